// Between numbers and their quantized form, y = round(x / scale) + zero: for a tensor, an axis, or
// blocks along an axis.
#pragma once

#include "kernels/integer_product.h"

namespace ortolan::ORTOLAN_ISA {

// The tensor as rows of elements, each with a scale of its own or one for all.
struct QuantizedRows {
  size_t rows = 0, length = 0;
  size_t axis = 1, block = 1, blocks = 0;  // scales: row -> (row / axis, row % axis / block)
  size_t scale_row = 0;                    // elements between the scales of two blocks
  bool each = false;                       // a scale for each element of a row

  size_t first_scale(size_t row) const {
    return (row / axis * blocks + row % axis / block) * scale_row;
  }
};

// Elements of a row where one scale serves the whole tensor.
constexpr size_t kQuantizedPiece = 4096;

inline Status check_zero_point(const Context& c) {
  if (!c.has_input(2) || c.input_shape(2) == c.input_shape(1)) return Status::kOk;
  if (c.input_shape(2).count() == 1 && c.input_shape(1).count() == 1) return Status::kOk;
  return c.invalid("the zero point of shape % needs the shape % of the scale",
                   c.input_shape(2).span(), c.input_shape(1).span());
}

// Inputs: 0 data, 1 scale, 2 zero point, in every version.
inline Status place_scales(const Context& c, QuantizedRows* q) {
  const Shape &x = c.input_shape(0), &scale = c.input_shape(1);
  ORTOLAN_TRY(check_zero_point(c));
  const int64_t block = c.attribute_int("block_size", 0);
  if (block < 0) return c.invalid("block_size % is negative", block);
  if (block == 0 && scale.count() == 1 && scale.rank <= 1) {
    q->length = x.count();
    q->rows = (q->length + kQuantizedPiece - 1) / kQuantizedPiece;
    return Status::kOk;
  }
  int64_t axis = c.attribute_int("axis", 1);
  // From when there was one scale only, no version had an axis.
  if (c.since_version() < 13 && c.since_version() != 1)
    return c.invalid("the scale of shape % needs one element", scale.span());
  if (!normalize_axis(&axis, x.rank))
    return c.invalid("axis % is outside the rank %", axis, x.rank);
  const uint32_t a = static_cast<uint32_t>(axis);
  const size_t inner = x.product(a + 1, x.rank);
  q->axis = static_cast<size_t>(x[a]);
  q->rows = x.product(0, a + 1);
  q->length = inner;
  if (block == 0) {
    if (scale.rank != 1 || scale[0] != x[a])
      return c.invalid("the scale of shape % does not fit axis % of %", scale.span(), axis,
                       x.span());
    q->scale_row = 1;
    if (inner != 1) return Status::kOk;
    *q = {x.product(0, a), q->axis, 1, 1, 0, 0, true};
    return Status::kOk;
  }
  const int64_t blocks = x[a] / block + (x[a] % block != 0);
  bool fits = scale.rank == x.rank;
  for (uint32_t i = 0; fits && i < x.rank; ++i) fits = scale[i] == (i == a ? blocks : x[i]);
  if (!fits)
    return c.invalid("the scale of shape % does not fit % in blocks of % along axis %",
                     scale.span(), x.span(), block, axis);
  q->block = static_cast<size_t>(block);
  q->blocks = static_cast<size_t>(blocks);
  q->scale_row = inner;
  q->each = true;
  return Status::kOk;
}

// Calls row(begin, length, first_scale, each) for pieces of the tensor, over the threads.
template <class Row>
ORTOLAN_INLINE void for_each_row(const Context& c, const QuantizedRows& q, const Row& row) {
  const bool whole = q.scale_row == 0 && !q.each;
  const size_t piece = whole ? kQuantizedPiece : max<size_t>(q.length, 1);
  c.parallel(q.rows, max<size_t>((1 << 16) / piece, 1), [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      if (whole)
        row(r * piece, min(piece, q.length - r * piece), 0, false);
      else
        row(r * q.length, q.length, q.first_scale(r), q.each);
    }
  });
}

template <class T>
struct IntegerLimits {
  static constexpr bool kSigned = T(-1) < T(0);
  static constexpr int kLow = kSigned ? -(1 << (8 * sizeof(T) - 1)) : 0;
  static constexpr int kHigh = kLow + (1 << 8 * sizeof(T)) - 1;
};

template <class X, class Y>
ORTOLAN_INLINE Y quantize(X x, float scale, int zero) {
  constexpr int kLow = IntegerLimits<Y>::kLow, kHigh = IntegerLimits<Y>::kHigh;
  return static_cast<Y>(round_within(static_cast<float>(x) / scale, static_cast<float>(kLow - zero),
                                     static_cast<float>(kHigh - zero)) +
                        zero);
}

template <class X, class Y>
ORTOLAN_NOINLINE void quantize_row(const X* x, size_t n, const float* scale, const Y* zero,
                                   bool each, Y* y) {
  if (!each) {
    const float s = *scale;
    const int z = zero ? *zero : 0;
    for (size_t i = 0; i < n; ++i) y[i] = quantize<X, Y>(x[i], s, z);
  } else {
    for (size_t i = 0; i < n; ++i) y[i] = quantize<X, Y>(x[i], scale[i], zero ? zero[i] : 0);
  }
}

template <class X>
ORTOLAN_INLINE float dequantize(X x, float scale, int32_t zero) {
  // Only int32 can wrap.
  const uint32_t difference = static_cast<uint32_t>(x) - static_cast<uint32_t>(zero);
  return static_cast<float>(static_cast<int32_t>(difference)) * scale;
}

template <class X>
ORTOLAN_NOINLINE void dequantize_row(const X* x, size_t n, const float* scale, const X* zero,
                                     bool each, float* y) {
  if (!each) {
    const float s = *scale;
    const int32_t z = zero ? *zero : 0;
    for (size_t i = 0; i < n; ++i) y[i] = dequantize(x[i], s, z);
  } else {
    for (size_t i = 0; i < n; ++i) y[i] = dequantize(x[i], scale[i], zero ? zero[i] : 0);
  }
}

// Scale and zero point with which uint8 covers the numbers and 0.
struct Range {
  float scale = 1;
  int zero = 0;
};
inline Range find_range(const float* x, size_t n) {
  float low = 0, high = 0;
  F lows = splat<F>(0), highs = splat<F>(0);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    lows = math::at_most(lows, load<F>(x + i));
    highs = math::at_least(highs, load<F>(x + i));
  }
  low = reduce_min<F>(lows), high = reduce_max<F>(highs);
  for (; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  Range range;
  if (low == high) return range;
  range.scale = (high - low) / 255;
  range.zero = round_within(0 - low / range.scale, 0, 255);
  return range;
}

}  // namespace ortolan::ORTOLAN_ISA
