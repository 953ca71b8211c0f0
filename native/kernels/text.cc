// Operators on strings: joining, splitting, letter case, patterns, counts of n-grams.
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
      for (size_t i = 0; parts < limit && i + delimiter.size <= text.size;) {
        if (!(String(text.data + i, delimiter.size) == delimiter)) {
          ++i;
          continue;
        }
        take(parts++, String(text.data + begin, i - begin));
        begin = i += delimiter.size;
      }
      take(parts++, String(text.data + begin, text.size - begin));
      // Nothing has no parts.
      return text.size ? parts : 0;
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

}  // namespace ortolan::portable

#include "text.inc"
