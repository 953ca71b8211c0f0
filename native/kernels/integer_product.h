// Exact products of matrices of 8-bit integers. Operands become 16-bit differences from their zero
// points; neighbours in depth lie side by side, so that one instruction multiplies and adds both.
// Sums are 32 bits wide and wrap.
#pragma once

#include "core/context.h"
#include "kernels/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

namespace ortolan::ORTOLAN_ISA {

using Sums = Vec<uint32_t, kLanes>;
using Pairs = Vec<int16_t, 2 * kLanes>;

constexpr size_t kPanelColumns = 2 * kLanes;  // of B, packed together
constexpr size_t kPanelRows = 4;              // of A, multiplied at once
constexpr size_t kProductGrain = 1 << 18;     // multiply-adds that are worth waking a thread for

// A view of 8-bit integers of either sign: flipping the sign bit makes int8 the unsigned value +
// 128 and keeps differences. Without data all are 0; a single one stands for all.
struct Bytes {
  const uint8_t* data = nullptr;
  size_t count = 1;
  uint8_t flip = 0;

  ORTOLAN_INLINE int operator[](size_t i) const { return (data ? data[i % count] : 0) ^ flip; }
};

ORTOLAN_INLINE uint8_t sign_flip(DataType type) { return type == DataType::kInt8 ? 0x80 : 0; }

// Input i, or as many zeros of `type` when it is absent.
inline Bytes input_bytes(const Context& c, size_t i, DataType type) {
  if (!c.has_input(i)) return {nullptr, 1, sign_flip(type)};
  return {c.input_data<uint8_t>(i), c.input_shape(i).count(), sign_flip(type)};
}

// sums[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]
ORTOLAN_INLINE Sums add_products(Sums sums, Pairs a, Pairs b) {
#if defined(__AVX512BW__)
  return sums + (Sums)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sums + (Sums)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sums + (Sums)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__wasm_simd128__)
  return sums + (Sums)wasm_i32x4_dot_i16x8((v128_t)a, (v128_t)b);
#else
  using Wide = Vec<int32_t, kLanes>;
  return sums +
         (Sums)(__builtin_convertvector(a.even, Wide) * __builtin_convertvector(b.even, Wide) +
                __builtin_convertvector(a.odd, Wide) * __builtin_convertvector(b.odd, Wide));
#endif
}

// A matrix of differences: rows of `pairs` pairs.
ORTOLAN_INLINE size_t pairs_of(size_t depth) { return (depth + 1) / 2; }
// 16-bit elements of `columns` columns of B after packing.
ORTOLAN_INLINE size_t panels_of(size_t columns) {
  return (columns + kPanelColumns - 1) / kPanelColumns;
}
ORTOLAN_INLINE size_t panel_size(size_t pairs) { return 2 * pairs * kPanelColumns; }

// `depth` bytes, `step` apart, to differences from `zero`; an odd one gets a 0 beside it.
inline void widen_row(const uint8_t* from, size_t step, size_t depth, uint8_t flip, int zero,
                      int16_t* to) {
  if (step == 1)
    for (size_t k = 0; k < depth; ++k) to[k] = static_cast<int16_t>((from[k] ^ flip) - zero);
  else
    for (size_t k = 0; k < depth; ++k) to[k] = static_cast<int16_t>((from[k * step] ^ flip) - zero);
  if (depth & 1) to[depth] = 0;
}

// A matrix B in memory: strides in elements, and its zero points from `first_zero` on.
struct IntegerSource {
  const uint8_t* data;
  size_t row, column;
  size_t depth, columns;
  Bytes zero;
  size_t first_zero = 0;
};

// A whole panel of columns that lie side by side: loops of known length, which become vectors.
inline void pack_whole_panel(const IntegerSource& b, const uint8_t* from, const int* zeros,
                             int16_t* to) {
  uint32_t words[kPanelColumns];
  const uint8_t flip = b.zero.flip;
  for (size_t k = 0; k < b.depth; k += 2, from += 2 * b.row, to += 2 * kPanelColumns) {
    for (size_t j = 0; j < kPanelColumns; ++j)
      words[j] = static_cast<uint16_t>((from[j] ^ flip) - zeros[j]);
    if (k + 1 < b.depth) {
      const uint8_t* odd = from + b.row;
      for (size_t j = 0; j < kPanelColumns; ++j)
        words[j] |= static_cast<uint32_t>((odd[j] ^ flip) - zeros[j]) << 16;
    }
    copy(to, words, sizeof(words));
  }
}

// Columns of one panel; those behind the last are 0.
inline void pack_integer_panel(const IntegerSource& b, size_t panel, int16_t* to) {
  const size_t first = panel * kPanelColumns, count = min(kPanelColumns, b.columns - first);
  int zeros[kPanelColumns];
  for (size_t j = 0; j < count; ++j) zeros[j] = b.zero[b.first_zero + first + j];
  if (b.column == 1 && count == kPanelColumns)
    return pack_whole_panel(b, b.data + first, zeros, to);
  fill_zero(to, panel_size(pairs_of(b.depth)) * sizeof(int16_t));
  for (size_t k = 0; k < b.depth; ++k) {
    const uint8_t* from = b.data + k * b.row + first * b.column;
    int16_t* at = to + k / 2 * 2 * kPanelColumns + (k & 1);
    for (size_t j = 0; j < count; ++j)
      at[2 * j] = static_cast<int16_t>((from[j * b.column] ^ b.zero.flip) - zeros[j]);
  }
}

template <int Rows>
ORTOLAN_NOINLINE void integer_rows(const int16_t* a, const int16_t* b, size_t pairs,
                                   int32_t (*out)[kPanelColumns]) {
  Sums sums[Rows][2] = {};
  for (size_t k = 0; k < pairs; ++k, b += 2 * kPanelColumns) {
    const Pairs b0 = load<Pairs>(b), b1 = load<Pairs>(b + kPanelColumns);
#pragma unroll
    for (int i = 0; i < Rows; ++i) {
      uint32_t word;
      copy(&word, a + (i * pairs + k) * 2, sizeof(word));
      const Pairs w = (Pairs)splat<Sums>(word);
      sums[i][0] = add_products(sums[i][0], w, b0);
      sums[i][1] = add_products(sums[i][1], w, b1);
    }
  }
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    store(out[i], sums[i][0]);
    store(out[i] + kLanes, sums[i][1]);
  }
}

// Rows [begin, end) of A times one panel of B: finish(row, sums) gets the sums of a row, those of
// columns behind the last of B included.
template <class Finish>
ORTOLAN_INLINE void multiply_panel(const int16_t* a, size_t begin, size_t end, const int16_t* panel,
                                   size_t pairs, const Finish& finish) {
  int32_t sums[kPanelRows][kPanelColumns];
  size_t row = begin;
  for (; row + kPanelRows <= end; row += kPanelRows) {
    integer_rows<kPanelRows>(a + row * 2 * pairs, panel, pairs, sums);
    for (size_t i = 0; i < kPanelRows; ++i) finish(row + i, sums[i]);
  }
  for (; row < end; ++row) {
    integer_rows<1>(a + row * 2 * pairs, panel, pairs, sums);
    finish(row, sums[0]);
  }
}

// x rounded to the nearest integer, half to even, within [low, high]; |low|, |high| < 2^22. NaN
// becomes `low`. The limits come between a product and the sum that rounds: no contraction.
ORTOLAN_INLINE int32_t round_within(float x, float low, float high) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  x = x != x ? low : x;
  x = x < low ? low : x;
  x = x > high ? high : x;
  return static_cast<int32_t>(math::bitcast<uint32_t>(x + kShift) -
                              math::bitcast<uint32_t>(kShift));
}

// Quantizes to one of the 8-bit types: the value is x + zero, kept within the type.
struct ToByte {
  float low, high;
  int zero;

  ToByte() = default;
  ToByte(DataType type, int32_t zero_point) : zero(zero_point) {
    const int least = type == DataType::kInt8 ? -128 : 0;
    low = static_cast<float>(least - zero);
    high = static_cast<float>(least + 255 - zero);
  }
  ORTOLAN_INLINE uint8_t operator()(float x) const {
    return static_cast<uint8_t>(round_within(x, low, high) + zero);
  }
};

}  // namespace ortolan::ORTOLAN_ISA
