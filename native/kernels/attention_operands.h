// What com.microsoft's attention operators share: caches of keys and values, padding masks, biases.
#pragma once

#include "kernels/attention.h"

namespace ortolan::ORTOLAN_ISA {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

constexpr float kLowest = -0x1.fffffep127f;

// A tensor [batch][head][row][width] in one piece.
ORTOLAN_INLINE Heads whole_heads(const float* data, size_t heads, size_t rows, size_t width) {
  return {data, heads * rows * width, rows * width, width};
}

// to[b][h][at + row][width] = from, for rows [0, rows).
ORTOLAN_NOINLINE static void copy_heads(const Context& c, const Heads& from, float* to,
                                        size_t batches, size_t heads, size_t rows, size_t width,
                                        size_t at, size_t capacity) {
  c.parallel(batches * heads, (1 << 16) / (rows * width + 1) + 1,
             [&](size_t begin, size_t end, size_t) {
               for (size_t i = begin; i < end; ++i) {
                 const float* row = from.at(i / heads, i % heads);
                 float* out = to + (i * capacity + at) * width;
                 for (size_t r = 0; r < rows; ++r, row += from.row, out += width)
                   copy(out, row, width * sizeof(float));
               }
             });
}

// Padding as com.microsoft's operators have it: lengths of the keys [B] (also the first of the
// 3 * B + 2 of a packed form), ends and starts [2 * B], or flags [B][T], [B][S][T], [B][1][M][M].
struct MaskForm {
  enum Kind : uint8_t { kNone, kLengths, kRanges, kKeys, kRows, kSquare } kind = kNone;

  // Floats of the mask as it is added.
  size_t floats(size_t batches, size_t rows, size_t keys) const {
    return kind == kNone ? 0 : batches * keys * (kind >= kRows ? rows : 1);
  }
};

ORTOLAN_NOINLINE static Status find_mask_form(const Context& c, size_t input, int64_t batches,
                                              int64_t rows, int64_t keys, MaskForm* form) {
  *form = {};
  if (!c.has_input(input)) return Status::kOk;
  const Shape& s = c.input_shape(input);
  const bool fits = s.rank > 1 && s[0] == batches && s[s.rank - 1] == keys;
  if (s.rank == 1 && (s[0] == batches || s[0] == 3 * batches + 2))
    form->kind = MaskForm::kLengths;
  else if (s.rank == 1 && s[0] == 2 * batches)
    form->kind = MaskForm::kRanges;
  else if (s.rank == 2 && fits)
    form->kind = MaskForm::kKeys;
  else if (s.rank == 3 && fits && s[1] == rows)
    form->kind = MaskForm::kRows;
  else if (s.rank == 4 && s[0] == batches && s[1] == 1 && s[2] == s[3] && s[3] >= keys)
    form->kind = MaskForm::kSquare;
  else
    return c.invalid("a mask of shape % does not fit a batch of %, % queries and % keys", s.span(),
                     batches, rows, keys);
  return Status::kOk;
}

// The mask as floats that are added: 0 or `filter`.
ORTOLAN_NOINLINE static Status fill_mask(const Context& c, size_t input, MaskForm form,
                                         const AttentionTask& t, float filter, float* to) {
  const int32_t* from = c.input_data<int32_t>(input);
  const bool is_square = form.kind == MaskForm::kSquare;
  const size_t side = is_square ? static_cast<size_t>(c.input_shape(input)[3]) : 0;
  // Queries need not be as many as the keys that come with them.
  if (is_square && side < static_cast<size_t>(t.offset) + t.rows)
    return c.invalid("a mask of % rows is too small for % queries after %", side, t.rows, t.offset);
  const size_t rows = form.kind >= MaskForm::kRows ? t.rows : 1;
  for (size_t b = 0; b < t.batches; ++b)
    for (size_t r = 0; r < rows; ++r, to += t.keys) {
      if (form.kind <= MaskForm::kRanges) {
        const int32_t end = from[b];
        const int32_t start = form.kind == MaskForm::kRanges ? from[t.batches + b] : 0;
        if (end < 0 || start < 0)
          return c.invalid("mask_index has the negative entry %", min(start, end));
        for (size_t j = 0; j < t.keys; ++j)
          to[j] = j >= static_cast<size_t>(start) && j < static_cast<size_t>(end) ? 0 : filter;
        continue;
      }
      const size_t row = static_cast<size_t>(t.offset) + r;
      const int32_t* flags =
          is_square ? from + (b * side + row) * side : from + (b * rows + r) * t.keys;
      for (size_t j = 0; j < t.keys; ++j) to[j] = flags[j] > 0 ? 0 : filter;
    }
  return Status::kOk;
}

ORTOLAN_NOINLINE static void lay_mask(const float* mask, MaskForm form, AttentionTask* t) {
  const size_t rows = form.kind >= MaskForm::kRows ? t->rows : 1;
  t->mask = {mask, rows * t->keys, 0, rows == 1 ? 0 : t->keys, 1};
}

// A bias [B or 1][heads or 1][rows][keys] of the scores.
ORTOLAN_NOINLINE static Status lay_bias(const Context& c, size_t input, AttentionTask* t) {
  if (!c.has_input(input)) return Status::kOk;
  const Shape& s = c.input_shape(input);
  const int64_t wanted[] = {static_cast<int64_t>(t->batches), static_cast<int64_t>(t->heads),
                            static_cast<int64_t>(t->rows), static_cast<int64_t>(t->keys)};
  bool fits = s.rank == 4;
  for (uint32_t i = 0; fits && i < 4; ++i) fits = s[i] == wanted[i] || (i < 2 && s[i] == 1);
  if (!fits)
    return c.invalid("attention_bias of shape % does not fit %", s.span(),
                     Span<const int64_t>{wanted, 4});
  const size_t matrix = t->rows * t->keys;
  const size_t heads = static_cast<size_t>(s[1]);
  t->bias = {c.input_data<float>(input), s[0] == 1 ? 0 : heads * matrix, heads == 1 ? 0 : matrix,
             t->keys, 1};
  return Status::kOk;
}

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
