// Regular expressions in the syntax of RE2, for whole texts: a program for a machine that is in
// many states at once, so that no pattern and no text takes more than their product in time.
#pragma once

#include "core/context.h"
#include "kernels/unicode.h"

namespace ortolan::portable {

class Regex {
 public:
  // What is wrong with the pattern, empty if nothing is. `memory` keeps the program.
  String compile(Context& c, String pattern) {
    pattern_ = pattern;
    // Counts repeat parts of a pattern, but not endlessly; nothing else makes many of a letter.
    bool has_counts = false;
    for (size_t i = 0; i < pattern.size; ++i) has_counts = has_counts || pattern.data[i] == '{';
    capacity_ = has_counts ? kMaxCode : min<size_t>(32 + 24 * pattern.size, kMaxCode);
    code_.data = static_cast<Instruction*>(c.model_memory(capacity_ * sizeof(Instruction)));
    code_.size = 0;
    if (!code_.data) return "memory is out";
    parse_choice(0);
    if (wrong_.size == 0 && at_ < pattern_.size) fail("a ) without its (");
    emit({Op::kMatch});
    return wrong_;
  }

  // Of scratch for `matches`.
  size_t scratch_bytes() const { return code_.size * 5 * sizeof(uint32_t); }

  bool matches(String text, void* scratch) const { return longest(text, 0, scratch) == text.size; }

  // The end of the longest match that begins at `at`; SIZE_MAX if there is none.
  size_t longest(String text, size_t at, void* scratch) const {
    Threads now(scratch, code_.size), next(now.end, code_.size);
    uint32_t* stack = next.end;
    size_t found = SIZE_MAX;
    add(now, stack, 0, text, at);
    for (;;) {
      for (uint32_t i = 0; i < now.count; ++i)
        if (code_[now.list[i]].op == Op::kMatch) found = at;
      if (at == text.size || !now.count) return found;
      size_t after = at;
      const uint32_t point = next_point(text, &after);
      next.count = 0;
      for (uint32_t i = 0; i < now.count; ++i) {
        const Instruction& step = code_[now.list[i]];
        if (step.op == Op::kRange && takes(now.list[i], point))
          add(next, stack, now.list[i] + step.x, text, after);
      }
      swap(now, next);
      at = after;
    }
  }

 private:
  enum class Op : uint8_t {
    kRange,  // a point; ranges follow, the next instruction is x further on
    kPair,   // of kRange: x to y
    kSplit,  // go on at x and at y
    kJump,   // go on at x
    kMatch,
    kBegin,
    kEnd,
    kLineBegin,
    kLineEnd,
    kWord,
    kNoWord,
  };
  struct Instruction {
    Op op = Op::kMatch;
    bool negated = false;
    uint32_t x = 0, y = 0;
  };
  static constexpr uint32_t kMaxCode = 4096, kMaxDepth = 200, kMaxPoint = 0x110100;

  // Places in the program, each once. index[place] is where it stands in the list, if that says so.
  struct Threads {
    Threads(void* memory, size_t n)
        : list(static_cast<uint32_t*>(memory)), index(list + n), end(index + n) {
      fill_zero(index, n * sizeof(uint32_t));
    }
    uint32_t *list, *index, *end;
    uint32_t count = 0;
    bool put(uint32_t place) {
      if (index[place] < count && list[index[place]] == place) return false;
      index[place] = count;
      list[count++] = place;
      return true;
    }
  };

  bool takes(uint32_t place, uint32_t point) const {
    const Instruction& step = code_[place];
    bool found = false;
    for (uint32_t i = 1; i < step.x && !found; ++i)
      found = point >= code_[place + i].x && point <= code_[place + i].y;
    return found != step.negated;
  }

  static bool is_word(String text, size_t at) {
    if (at >= text.size) return false;
    const char c = text.data[at];
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  }
  static bool holds(Op op, String text, size_t at) {
    const bool before = at > 0 && is_word(text, at - 1), after = is_word(text, at);
    switch (op) {
      case Op::kBegin:
        return at == 0;
      case Op::kEnd:
        return at == text.size;
      case Op::kLineBegin:
        return at == 0 || text.data[at - 1] == '\n';
      case Op::kLineEnd:
        return at == text.size || text.data[at] == '\n';
      case Op::kWord:
        return before != after;
      default:
        return before == after;
    }
  }

  // Everything that is reached from a place without reading. A place is on the stack once at most
  // before it is in the list, for it is marked when it is pushed.
  void add(Threads& threads, uint32_t* stack, uint32_t place, String text, size_t at) const {
    uint32_t depth = 0;
    const auto push = [&](uint32_t p) {
      if (threads.put(p)) stack[depth++] = p;
    };
    push(place);
    while (depth) {
      const uint32_t p = stack[--depth];
      const Instruction& step = code_[p];
      switch (step.op) {
        case Op::kRange:
        case Op::kPair:
        case Op::kMatch:
          break;
        case Op::kSplit:
          push(step.x), push(step.y);
          break;
        case Op::kJump:
          push(step.x);
          break;
        default:
          if (holds(step.op, text, at)) push(p + 1);
      }
    }
  }

  void fail(String why) {
    if (wrong_.size == 0) wrong_ = why;
  }
  uint32_t here() const { return static_cast<uint32_t>(code_.size); }
  void emit(Instruction step) {
    if (code_.size == capacity_) return fail("it is too long");
    code_.data[code_.size++] = step;
  }
  bool more() const { return wrong_.size == 0 && at_ < pattern_.size; }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < pattern_.size ? pattern_.data[at_ + ahead] : '\0';
  }
  bool accept(char c) { return more() && peek() == c ? ++at_, true : false; }

  // Moves code from `from` on by one, for an instruction before it. Places inside move with it.
  void insert(uint32_t from, Instruction step) {
    emit({});
    if (wrong_.size) return;
    for (uint32_t i = here() - 1; i > from; --i) code_[i] = moved(code_[i - 1], from, 1);
    code_[from] = step;
  }
  static Instruction moved(Instruction step, uint32_t from, uint32_t by) {
    if (step.op == Op::kSplit || step.op == Op::kJump) {
      if (step.x >= from) step.x += by;
      if (step.op == Op::kSplit && step.y >= from) step.y += by;
    }
    return step;
  }

  // split begin+1, next; ...; jump end; next: ... The jumps are a list until the end is known.
  void parse_choice(uint32_t depth) {
    if (depth > kMaxDepth) return fail("it is nested too deep");
    const bool folds = folds_, dots = dots_, lines = lines_;  // flags end with their group
    uint32_t begin = here(), jumps = UINT32_MAX;
    parse_sequence(depth);
    while (accept('|')) {
      insert(begin, {Op::kSplit, false, begin + 1, 0});
      const uint32_t jump = here();
      emit({Op::kJump, false, jumps, 0});
      if (wrong_.size) return;
      jumps = jump;
      code_[begin].y = here();
      begin = here();
      parse_sequence(depth);
    }
    while (jumps != UINT32_MAX && wrong_.size == 0) {
      const uint32_t next = code_[jumps].x;
      code_[jumps].x = here();
      jumps = next;
    }
    folds_ = folds, dots_ = dots, lines_ = lines;
  }

  void parse_sequence(uint32_t depth) {
    while (more() && peek() != '|' && peek() != ')') {
      const uint32_t begin = here();
      quoted_ = 0;
      if (parse_atom(depth)) parse_repetition(max(begin, quoted_));
    }
  }

  // False when there is nothing to repeat.
  bool parse_atom(uint32_t depth) {
    size_t next = at_;
    const uint32_t point = next_point(pattern_, &next);
    at_ = next;
    switch (point) {
      case '(': {
        const bool repeats = parse_group(depth);
        quoted_ = 0;
        return repeats;
      }
      case '[':
        return parse_class(), true;
      case '.':
        open(true);
        if (!dots_) pair('\n', '\n');
        return close(), true;
      case '^':
        return emit({lines_ ? Op::kLineBegin : Op::kBegin}), false;
      case '$':
        return emit({lines_ ? Op::kLineEnd : Op::kEnd}), false;
      case '\\':
        return parse_escape();
      case '*':
      case '+':
      case '?':
        return fail("a repetition of nothing"), false;
      default:
        open(false);
        pair(point, point);
        return close(), true;
    }
  }

  bool parse_group(uint32_t depth) {
    if (accept('?')) {
      if (accept('P') || peek() == '<') {
        if (!accept('<')) return fail("an unknown kind of group"), false;
        while (more() && peek() != '>') ++at_;
        if (!accept('>')) return fail("a name of a group without its >"), false;
      } else {
        bool value = true;
        const bool before[] = {folds_, dots_, lines_};
        for (; more() && peek() != ')' && peek() != ':'; ++at_) {
          switch (peek()) {
            case '-':
              value = false;
              break;
            case 'i':
              folds_ = value;
              break;
            case 's':
              dots_ = value;
              break;
            case 'm':
              lines_ = value;
              break;
            case 'U':  // which of several matches is wanted does not matter here
              break;
            default:
              return fail("an unknown flag of a group"), false;
          }
        }
        if (accept(')')) return false;
        ++at_;
        finish_group(depth);
        folds_ = before[0], dots_ = before[1], lines_ = before[2];
        return true;
      }
    }
    finish_group(depth);
    return true;
  }
  void finish_group(uint32_t depth) {
    parse_choice(depth + 1);
    if (wrong_.size == 0 && !accept(')')) fail("a ( without its )");
  }

  void parse_repetition(uint32_t begin) {
    while (more()) {
      uint32_t least, most;
      if (accept('*'))
        least = 0, most = UINT32_MAX;
      else if (accept('+'))
        least = 1, most = UINT32_MAX;
      else if (accept('?'))
        least = 0, most = 1;
      else if (!parse_count(&least, &most))
        return;
      accept('?');  // the shortest or the longest: the same for whole texts
      repeat(begin, least, most);
    }
  }
  bool parse_count(uint32_t* least, uint32_t* most) {
    if (peek() != '{') return false;
    const size_t start = at_++;
    const auto number = [&](uint32_t* n) {
      bool any = false;
      for (*n = 0; more() && peek() >= '0' && peek() <= '9'; ++at_, any = true)
        *n = min<uint32_t>(*n * 10 + static_cast<uint32_t>(peek() - '0'), 100000);
      return any;
    };
    bool valid = number(least);
    *most = *least;
    if (valid && accept(',') && !number(most)) *most = UINT32_MAX;
    valid = valid && accept('}');
    if (!valid) return at_ = start, false;  // then { is a letter
    if (*most < *least || *least > 1000 || (*most != UINT32_MAX && *most > 1000))
      return fail("a repetition of more than 1000, or from more to less"), false;
    return true;
  }
  // The code from `begin` on, `least` to `most` times.
  void repeat(uint32_t begin, uint32_t least, uint32_t most) {
    const uint32_t size = here() - begin;
    const auto again = [&] {
      const uint32_t to = here();
      for (uint32_t i = 0; i < size && wrong_.size == 0; ++i)
        emit(moved(code_[begin + i], begin, to - begin));
    };
    if (least == 0 && most == 0) {
      code_.size = begin;
      return;
    }
    uint32_t last = begin;
    for (uint32_t i = 1; i < least; ++i) last = here(), again();
    if (most == UINT32_MAX && least > 0) {  // again from the last copy on
      emit({Op::kSplit, false, last, here() + 1});
      return;
    }
    if (most == UINT32_MAX) {
      insert(begin, {Op::kSplit, false, begin + 1, here() + 2});
      emit({Op::kJump, false, begin, 0});
      return;
    }
    // The pattern as it was is needed for the optional copies: they come after.
    if (least == 0) {
      insert(begin, {Op::kSplit, false, begin + 1, here() + 1});
      const uint32_t inner = begin + 1;
      for (uint32_t i = 1; i < most && wrong_.size == 0; ++i) {
        const uint32_t at = here();
        emit({Op::kSplit, false, at + 1, at + 1 + size});
        for (uint32_t k = 0; k < size && wrong_.size == 0; ++k)
          emit(moved(code_[inner + k], inner, at + 1 - inner));
      }
      return;
    }
    for (uint32_t i = least; i < most && wrong_.size == 0; ++i) {
      const uint32_t at = here();
      emit({Op::kSplit, false, at + 1, at + 1 + size});
      for (uint32_t k = 0; k < size && wrong_.size == 0; ++k)
        emit(moved(code_[begin + k], begin, at + 1 - begin));
    }
  }

  void open(bool negated) {
    open_ = here();
    emit({Op::kRange, negated});
  }
  void pair(uint32_t low, uint32_t high) {
    emit({Op::kPair, false, low, high});
    if (!folds_) return;
    // Of each two letters of which the range has one, the other; a range may be long.
    const auto has = [&](uint32_t p) { return p >= low && p <= high; };
    for (const CaseRange& range : kCases)
      for (uint32_t p = range.first; p <= range.last; p += range.distance == 1 ? 2 : 1) {
        const uint32_t small = to_lower(p), other = has(p) ? small : p;
        if (has(p) != has(small)) emit({Op::kPair, false, other, other});
      }
  }
  void close() {
    if (wrong_.size == 0) code_[open_].x = here() - open_;
  }

  // The ranges of \d, \w, \s; false when it is another letter. Not case sensitive: \D...
  bool shorthand(char letter) {
    const bool folds = folds_;
    folds_ = false;
    bool known = true;
    switch (letter) {
      case 'd':
        pair('0', '9');
        break;
      case 'w':
        pair('0', '9'), pair('A', 'Z'), pair('a', 'z'), pair('_', '_');
        break;
      case 's':
        pair('\t', '\n'), pair('\f', '\r'), pair(' ', ' ');
        break;
      default:
        known = false;
    }
    folds_ = folds;
    return known;
  }
  static bool is_shorthand(char c) {
    return c == 'd' || c == 'D' || c == 'w' || c == 'W' || c == 's' || c == 'S';
  }

  bool parse_escape() {
    const char c = peek();
    if (is_shorthand(c)) {
      ++at_;
      open(c < 'a');
      shorthand(static_cast<char>(c | 32));
      return close(), true;
    }
    const auto assertion = [&](Op op) { return ++at_, emit({op}), false; };
    switch (c) {
      case 'A':
        return assertion(Op::kBegin);
      case 'z':
        return assertion(Op::kEnd);
      case 'b':
        return assertion(Op::kWord);
      case 'B':
        return assertion(Op::kNoWord);
      case 'Q': {
        uint32_t quoted = UINT32_MAX;
        for (++at_; more() && !(peek() == '\\' && peek(1) == 'E');) {
          const uint32_t point = next_point(pattern_, &at_);
          quoted = here();
          open(false), pair(point, point), close();
        }
        at_ = min(at_ + 2, pattern_.size);
        quoted_ = quoted;  // what follows repeats the last letter
        return quoted != UINT32_MAX;
      }
      default: {
        uint32_t point;
        if (!escaped_point(&point)) return false;
        open(false);
        pair(point, point);
        return close(), true;
      }
    }
  }
  // The letter that an escape stands for; at_ is behind the backslash.
  bool escaped_point(uint32_t* point) {
    constexpr char kNames[] = "afnrtv";
    constexpr char kPoints[] = "\a\f\n\r\t\v";
    const char c = peek();
    for (size_t i = 0; i + 1 < sizeof(kNames); ++i)
      if (c == kNames[i]) return ++at_, *point = static_cast<uint8_t>(kPoints[i]), true;
    if (c == 'x') return ++at_, hexadecimal(point);
    const bool is_letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    if (at_ >= pattern_.size || is_letter) return fail("an escape that is not supported"), false;
    *point = next_point(pattern_, &at_);
    return true;
  }
  bool hexadecimal(uint32_t* point) {
    const bool braced = accept('{');
    *point = 0;
    size_t digits = 0;
    for (; more() && digits < (braced ? 6u : 2u); ++digits, ++at_) {
      const char c = peek(), low = static_cast<char>(c | 32);
      const bool decimal = c >= '0' && c <= '9';
      if (!decimal && !(low >= 'a' && low <= 'f')) break;
      *point = *point * 16 + static_cast<uint32_t>(decimal ? c - '0' : low - 'a' + 10);
    }
    if (digits == 0 || (braced && !accept('}'))) return fail("a number without its digits"), false;
    return true;
  }

  void parse_class() {
    open(accept('^'));
    bool first = true;
    while (more() && (first || peek() != ']')) {
      first = false;
      if (peek() == '[' && peek(1) == ':') {
        if (!named_class()) return fail("an unknown class");
        continue;
      }
      uint32_t low, high;
      if (accept('\\')) {
        if (is_shorthand(peek())) {
          const char c = peek();
          if (c < 'a') return fail("a class within a class that leaves something out");
          ++at_;
          shorthand(c);
          continue;
        }
        if (!escaped_point(&low)) return;
      } else {
        low = next_point(pattern_, &at_);
      }
      high = low;
      if (peek() == '-' && peek(1) != ']' && at_ + 1 < pattern_.size) {
        ++at_;
        if (accept('\\')) {
          if (!escaped_point(&high)) return;
        } else {
          high = next_point(pattern_, &at_);
        }
        if (high < low) return fail("a range from more to less");
      }
      pair(low, high);
    }
    if (!accept(']')) fail("a [ without its ]");
    close();
  }
  bool named_class() {
    struct Named {
      String name;
      uint8_t ranges[8];
    };
    constexpr Named kNamed[] = {
        {"[:alpha:]", {'A', 'Z', 'a', 'z'}},
        {"[:digit:]", {'0', '9'}},
        {"[:alnum:]", {'0', '9', 'A', 'Z', 'a', 'z'}},
        {"[:upper:]", {'A', 'Z'}},
        {"[:lower:]", {'a', 'z'}},
        {"[:space:]", {'\t', '\r', ' ', ' '}},
        {"[:punct:]", {'!', '/', ':', '@', '[', '`', '{', '~'}},
        {"[:word:]", {'0', '9', 'A', 'Z', 'a', 'z', '_', '_'}},
        {"[:xdigit:]", {'0', '9', 'A', 'F', 'a', 'f'}},
        {"[:blank:]", {'\t', '\t', ' ', ' '}},
    };
    for (const Named& named : kNamed) {
      const size_t n = named.name.size;
      if (pattern_.size - at_ < n || !(String(pattern_.data + at_, n) == named.name)) continue;
      for (size_t i = 0; i < 8 && named.ranges[i]; i += 2)
        pair(named.ranges[i], named.ranges[i + 1]);
      return at_ += n, true;
    }
    return false;
  }

  String pattern_, wrong_;
  Span<Instruction> code_;
  size_t at_ = 0, capacity_ = 0;
  uint32_t open_ = 0, quoted_ = 0;  // the class, and the last letter of a quotation
  bool folds_ = false, dots_ = false, lines_ = false;
};

}  // namespace ortolan::portable
