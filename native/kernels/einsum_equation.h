// The equation of an Einsum: labels of each operand and of the result, without and with shapes.
#pragma once

#include "core/context.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::ORTOLAN_ISA {

constexpr uint32_t kLetters = 52;
constexpr uint32_t kLabels = kLetters + kMaxRank;  // then the dimensions of the ellipsis
constexpr uint32_t kMostTerms = 16;
constexpr uint8_t kEllipsis = 255;

// Labels of one operand or of the result, in order.
struct Term {
  uint8_t count = 0;
  uint8_t labels[kLabels];

  void add(uint32_t label) { labels[count++] = static_cast<uint8_t>(label); }
};
constexpr uint64_t label_bit(uint32_t label) { return uint64_t{1} << label; }

struct Equation {
  uint32_t terms = 0;
  Term term[kMostTerms];
  Term result;
  bool is_explicit = false;

  ORTOLAN_NOINLINE Status parse(Context& c, String text) {
    Term* at = &term[0];
    for (size_t i = 0; i < text.size; ++i) {
      const char letter = text.data[i];
      const uint32_t lower = static_cast<uint32_t>(letter - 'a'),
                     upper = static_cast<uint32_t>(letter - 'A');
      if (letter == ' ') continue;
      if (letter == ',' && !is_explicit && terms + 1 < kMostTerms) {
        at = &term[++terms];
      } else if (letter == '-' && i + 1 < text.size && text.data[i + 1] == '>' && !is_explicit) {
        is_explicit = true;
        at = &result;
        ++i;
      } else if (letter == '.' && i + 2 < text.size && text.data[i + 1] == '.' &&
                 text.data[i + 2] == '.' && at->count <= kMaxRank && !has_ellipsis(*at)) {
        at->add(kEllipsis);
        i += 2;
      } else if ((lower < 26 || upper < 26) && at->count <= kMaxRank) {
        at->add(upper < 26 ? upper : 26 + lower);
      } else {
        return c.invalid("equation \"%\" cannot be read at character %", text, i);
      }
    }
    ++terms;
    if (terms != c.input_count())
      return c.invalid("equation \"%\" is for % inputs, not %", text, terms, c.input_count());
    return Status::kOk;
  }
  static bool has_ellipsis(const Term& term) {
    for (uint32_t i = 0; i < term.count; ++i)
      if (term.labels[i] == kEllipsis) return true;
    return false;
  }
};

// The equation with shapes: an ellipsis has become labels of its own, aligned at the last one.
struct Contraction {
  size_t dims[kLabels];  // of each label; 1 where it stands nowhere
  Term term[kMostTerms];
  Term result;

  ORTOLAN_NOINLINE Status plan(Context& c, const Equation& e) {
    for (size_t& dim : dims) dim = 1;
    uint32_t widest = 0;
    uint64_t once = 0, all = 0;
    for (uint32_t t = 0; t < e.terms; ++t) {
      const Shape& shape = c.input_shape(t);
      const bool open = Equation::has_ellipsis(e.term[t]);
      const uint32_t letters = e.term[t].count - (open ? 1 : 0);
      if (shape.rank < letters || (!open && shape.rank != letters))
        return c.invalid("input % of shape % does not have the dimensions of its labels", t,
                         shape.span());
      widest = max(widest, open ? shape.rank - letters : 0);
      expand(e.term[t], shape.rank - letters, &term[t]);
      for (uint32_t i = 0; i < shape.rank; ++i) {
        size_t& dim = dims[term[t].labels[i]];
        const size_t size = static_cast<size_t>(shape[i]);
        if (size != dim && size != 1 && dim != 1)
          return c.invalid("dimension % of input % is %, but its label has %", i, t, size, dim);
        if (size != 1) dim = size;
        const uint64_t bit = label_bit(term[t].labels[i]);
        once = all & bit ? once & ~bit : once | bit;
        all |= bit;
      }
    }
    if (e.is_explicit) {
      expand(e.result, Equation::has_ellipsis(e.result) ? widest : 0, &result);
    } else {
      result.count = 0;
      for (uint32_t i = 0; i < widest; ++i) result.add(kLabels - widest + i);
      for (uint32_t label = 0; label < kLetters; ++label)
        if (once & label_bit(label)) result.add(label);
    }
    return check_result(c, all, widest, e);
  }

 private:
  static void expand(const Term& from, uint32_t ellipsis, Term* to) {
    to->count = 0;
    for (uint32_t i = 0; i < from.count; ++i) {
      if (from.labels[i] != kEllipsis) to->add(from.labels[i]);
      for (uint32_t k = 0; k < ellipsis && from.labels[i] == kEllipsis; ++k)
        to->add(kLabels - ellipsis + k);
    }
  }
  Status check_result(Context& c, uint64_t all, uint32_t widest, const Equation& e) const {
    uint64_t seen = 0;
    if (result.count > kMaxRank)
      return c.invalid("the result has more than % dimensions", kMaxRank);
    if (e.is_explicit && widest > 0 && !Equation::has_ellipsis(e.result))
      return c.invalid("the result has no ellipsis, but an input has");
    for (uint32_t i = 0; i < result.count; ++i) {
      const uint64_t bit = label_bit(result.labels[i]);
      if (result.labels[i] < kLetters && !(all & bit))
        return c.invalid("a label of the result stands in no input");
      if (seen & bit) return c.invalid("a label of the result comes twice");
      seen |= bit;
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::ORTOLAN_ISA

ORTOLAN_SMALL_END
