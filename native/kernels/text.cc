// Operators on strings: joining, splitting, letter case, patterns, tokens, counts of n-grams.
#include "kernels/ngrams.h"
#include "kernels/regex.h"
#include "kernels/strided.h"
#include "kernels/texts.h"

namespace ortolan::portable {

// X and Y joined element by element, with broadcasting.
struct StringConcat {
  static Status run(Context& c) {
    const Text* x = c.input_data<Text>(0);
    const Text* y = c.input_data<Text>(1);
    Text* z = c.output_data<Text>(0);
    Status status = Status::kOk;
    broadcast_pairs(c, [&](size_t k, size_t i, size_t j) {
      if (Status now = join(c, x[i].string(), y[j].string(), &z[k]); now != Status::kOk)
        status = now;
    });
    return status;
  }

 private:
  static Status join(Context& c, String a, String b, Text* to) {
    char* text = c.text_memory(a.size + b.size, to);
    if (!text) return c.out_of_memory();
    if (a.size) copy(text, a.data, a.size);
    if (b.size) copy(text + a.size, b.data, b.size);
    return Status::kOk;
  }
};

// Parts of each element along a new last axis, filled up with empty strings; and how many.
struct StringSplit {
  static Status run(Context& c) {
    const Splitter splitter = {c.attribute_string("delimiter", ""),
                               static_cast<uint64_t>(c.attribute_int("maxsplit", -1))};
    const Shape shape = c.input_shape(0);
    if (shape.rank == kMaxRank) return c.invalid("the result has more than % dimensions", kMaxRank);
    const Text* x = c.input_data<Text>(0);
    const size_t count = shape.count();
    size_t most = 0;
    for (size_t i = 0; i < count; ++i)
      most = max(most, splitter.each(x[i].string(), [](size_t, String) {}));
    Shape result = shape;
    result.append(static_cast<int64_t>(most));
    ORTOLAN_TRY(c.allocate_output(0, result));
    if (c.has_output(1)) ORTOLAN_TRY(c.allocate_output(1, shape));
    Text* y = c.output_data<Text>(0);
    fill_zero(y, count * most * sizeof(Text));
    for (size_t i = 0; i < count; ++i) {
      Status status = Status::kOk;
      const size_t parts = splitter.each(x[i].string(), [&](size_t k, String part) {
        y[i * most + k] = c.make_text(part);
        if (part.size && !y[i * most + k].address) status = c.out_of_memory();
      });
      ORTOLAN_TRY(status);
      if (c.has_output(1)) c.output_data<int64_t>(1)[i] = static_cast<int64_t>(parts);
    }
    return Status::kOk;
  }

 private:
  struct Splitter {
    String delimiter;  // empty: runs of white space, as Python splits
    uint64_t limit;

    template <class Take>
    size_t each(String text, const Take& take) const {
      size_t parts = 0, begin = 0;
      if (delimiter.size == 0) return each_word(text, take);
      if (text.size == 0) return 0;  // nothing has no parts
      for (size_t i = 0; parts < limit && i + delimiter.size <= text.size;) {
        if (!(String(text.data + i, delimiter.size) == delimiter)) {
          ++i;
          continue;
        }
        take(parts++, String(text.data + begin, i - begin));
        begin = i += delimiter.size;
      }
      take(parts++, String(text.data + begin, text.size - begin));
      return parts;
    }
    static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
    template <class Take>
    size_t each_word(String text, const Take& take) const {
      size_t parts = 0, end = text.size;
      while (end && is_space(text.data[end - 1])) --end;
      for (size_t i = 0;;) {
        while (i < end && is_space(text.data[i])) ++i;
        if (i == end) return parts;
        const size_t begin = i;
        while (i < end && (parts >= limit || !is_space(text.data[i]))) ++i;
        take(parts++, String(text.data + begin, i - begin));
      }
    }
  };
};

// Drops stop words and changes the letter case.
struct StringNormalizer {
  static Status run(Context& c) {
    const Shape& shape = c.input_shape(0);
    if ((shape.rank != 1 && shape.rank != 2) || (shape.rank == 2 && shape[0] != 1))
      return c.invalid("X must have the shape [C] or [1, C], not %", shape.span());
    const String action = c.attribute_string("case_change_action", "NONE");
    const bool lower = action == String("LOWER"), upper = action == String("UPPER");
    if (!lower && !upper && !(action == String("NONE")))
      return c.invalid("case_change_action % is unknown", action);
    const bool is_strict = c.attribute_int("is_case_sensitive", 0) != 0;
    const Attribute* words = c.attribute("stopwords");
    const Span<const String> stop = words ? words->strings : Span<const String>();
    const Text* x = c.input_data<Text>(0);
    size_t kept = 0;
    for (size_t i = 0, n = shape.count(); i < n; ++i) kept += !has(stop, x[i].string(), is_strict);
    Shape result = shape;
    result[shape.rank - 1] = static_cast<int64_t>(max<size_t>(kept, 1));
    ORTOLAN_TRY(c.allocate_output(0, result));
    Text* y = c.output_data<Text>(0);
    y[0] = Text();  // what is left of nothing
    for (size_t i = 0, n = shape.count(); i < n; ++i) {
      if (has(stop, x[i].string(), is_strict)) continue;
      *y = x[i];
      if (lower || upper) ORTOLAN_TRY(change(c, x[i].string(), lower, y));
      ++y;
    }
    return Status::kOk;
  }

 private:
  static bool has(Span<const String> words, String word, bool is_strict) {
    for (String other : words)
      if (is_strict ? other == word : same_letters(other, word)) return true;
    return false;
  }
  static bool same_letters(String a, String b) {
    size_t i = 0, k = 0;
    while (i < a.size && k < b.size)
      if (to_lower(next_point(a, &i)) != to_lower(next_point(b, &k))) return false;
    return i == a.size && k == b.size;
  }
  static Status change(Context& c, String text, bool lower, Text* to) {
    char piece[4];
    size_t bytes = 0;
    for (size_t i = 0; i < text.size;) {
      const uint32_t point = next_point(text, &i);
      bytes += put_point(lower ? to_lower(point) : to_upper(point), piece);
    }
    char* out = c.text_memory(bytes, to);
    if (!out) return c.out_of_memory();
    for (size_t i = 0; i < text.size;) {
      const uint32_t point = next_point(text, &i);
      out += put_point(lower ? to_lower(point) : to_upper(point), out);
    }
    return Status::kOk;
  }
};

struct RegexFullMatch {
  static Status prepare(Context& c) {
    Regex* regex = c.make_state<Regex>();
    if (!regex) return c.out_of_memory();
    const String pattern = c.attribute_string("pattern", "");
    const String wrong = regex->compile(c, pattern);
    if (wrong.size) return c.invalid("the pattern \"%\" cannot be used: %", pattern, wrong);
    return Status::kOk;
  }
  static Status infer(Context& c) {
    c.request_scratch(c.state<Regex>().scratch_bytes());
    return c.set_output(0, c.input_shape(0));
  }
  static Status run(Context& c) {
    const Text* x = c.input_data<Text>(0);
    bool* y = c.output_data<bool>(0);
    for (size_t i = 0, n = c.input_shape(0).count(); i < n; ++i)
      y[i] = c.state<Regex>().matches(x[i].string(), c.scratch());
    return Status::kOk;
  }
};

struct TfIdfVectorizer {
  static Status prepare(Context& c) {
    Ngrams* ngrams = c.make_state<Ngrams>();
    return ngrams ? ngrams->read(c) : c.out_of_memory();
  }
  static Status infer(Context& c) {
    const Ngrams& ngrams = c.state<Ngrams>();
    Shape shape = c.input_shape(0);
    if (shape.rank != 1 && shape.rank != 2)
      return c.invalid("X must have the shape [C] or [N, C], not %", shape.span());
    shape[shape.rank - 1] = static_cast<int64_t>(ngrams.columns());
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const Ngrams& ngrams = c.state<Ngrams>();
    const Shape& shape = c.input_shape(0);
    const size_t rows = shape.rank == 2 ? static_cast<size_t>(shape[0]) : 1;
    const size_t width = static_cast<size_t>(shape[shape.rank - 1]);
    const DataType type = c.input_type(0);
    c.parallel(rows, 16, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        const Tokens tokens = {c.input_data<char>(0) + i * width * element_size(type), width, type};
        ngrams.count(tokens, c.output_data<float>(0) + i * ngrams.columns());
      }
    });
    return Status::kOk;
  }
};

// com.microsoft's: the parts of each text between separators, or those that match an expression.
struct Tokenizer {
  struct State {
    Span<Regex> separators;
    Regex expression;
    bool has_expression = false, is_by_letter = false, has_marks = false;
    size_t least = 1, scratch = 0;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    const int64_t least = c.attribute_int("mincharnum", 0);
    if (least < 1) return c.invalid("mincharnum is %", least);
    state->least = static_cast<size_t>(least);
    state->has_marks = c.attribute_int("mark", 0) != 0;
    const String expression = c.attribute_string("tokenexp", "");
    const Attribute* list = c.attribute("separators");
    const Span<const String> texts = list ? list->strings : Span<const String>();
    if ((expression.size != 0) == (texts.size != 0))
      return c.invalid("it needs either separators or tokenexp");
    state->has_expression = expression.size != 0;
    state->is_by_letter = texts.size == 1 && texts[0].size == 0;
    if (state->is_by_letter) return Status::kOk;
    auto* made = static_cast<Regex*>(c.model_memory(max<size_t>(texts.size, 1) * sizeof(Regex)));
    if (!made) return c.out_of_memory();
    for (size_t i = 0; i < texts.size; ++i) {
      made[i] = Regex();
      ORTOLAN_TRY(compile(c, made[i], texts[i], state));
    }
    state->separators = {made, texts.size};
    return state->has_expression ? compile(c, state->expression, expression, state) : Status::kOk;
  }
  static Status infer(Context& c) {
    c.request_scratch(c.state<State>().scratch);
    return Status::kOk;
  }
  static Status run(Context& c) {
    const State& state = c.state<State>();
    const Shape shape = c.input_shape(0);
    if (shape.rank != 1 && shape.rank != 2)
      return c.invalid("X must have the shape [C] or [N, C], not %", shape.span());
    const Text* x = c.input_data<Text>(0);
    const size_t count = shape.count();
    size_t most = 0;
    for (size_t i = 0; i < count; ++i)
      most = max(most, each(c, state, x[i].string(), [](size_t, String) {}));
    if (state.has_marks && count) most += 2;
    Shape result = shape;
    // As in onnxruntime: no texts, no axis for their tokens.
    if (count) result.append(static_cast<int64_t>(most));
    ORTOLAN_TRY(c.allocate_output(0, result));
    if (most == 0) return Status::kOk;
    const Text padding = c.make_text(c.attribute_string("pad_value", ""));
    const Text begin = c.make_text("\2"), end = c.make_text("\3");
    if (!begin.address || !end.address) return c.out_of_memory();
    Text* y = c.output_data<Text>(0);
    Status status = Status::kOk;
    for (size_t i = 0; i < count; ++i, y += most) {
      size_t at = 0;
      if (state.has_marks) y[at++] = begin;
      each(c, state, x[i].string(), [&](size_t, String token) {
        y[at] = c.make_text(token);
        if (!y[at++].address) status = c.out_of_memory();
      });
      if (state.has_marks) y[at++] = end;
      while (at < most) y[at++] = padding;
    }
    return status;
  }

 private:
  static Status compile(Context& c, Regex& regex, String pattern, State* state) {
    const String wrong = regex.compile(c, pattern);
    if (wrong.size) return c.invalid("the pattern \"%\" cannot be used: %", pattern, wrong);
    state->scratch = max(state->scratch, regex.scratch_bytes());
    return Status::kOk;
  }
  static size_t letters(String text) {
    size_t n = 0;
    for (size_t i = 0; i < text.size; ++n) next_point(text, &i);
    return n;
  }
  // Calls take(k, token) for each token; answers how many there are.
  template <class Take>
  static size_t each(Context& c, const State& state, String text, const Take& take) {
    size_t tokens = 0, begin = 0;
    const auto put = [&](size_t from, size_t to) {
      const String token(text.data + from, to - from);
      if (token.size && letters(token) >= state.least) take(tokens++, token);
    };
    for (size_t at = 0; at < text.size;) {
      size_t after = at;
      next_point(text, &after);
      if (state.is_by_letter) {
        put(at, after);
      } else if (state.has_expression) {
        const size_t end = state.expression.longest(text, at, c.scratch());
        if (end != SIZE_MAX && end > at) put(at, end), after = end;
      } else {
        size_t end = at;
        for (const Regex& separator : state.separators) {
          const size_t found = separator.longest(text, at, c.scratch());
          if (found != SIZE_MAX) end = max(end, found);
        }
        if (end > at) put(begin, at), begin = after = end;
      }
      at = after;
    }
    if (!state.is_by_letter && !state.has_expression) put(begin, text.size);
    return tokens;
  }
};

}  // namespace ortolan::portable

#include "text.inc"
