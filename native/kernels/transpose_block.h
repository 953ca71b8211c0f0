// Blocks whose rows become columns on their way: squares of vector registers, and the three colours
// of an image.
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

template <class V>
ORTOLAN_INLINE V interleave(V a, V b, bool high) {
  if constexpr (kLanesOf<V> == 2)
    return high ? __builtin_shufflevector(a, b, 1, 3) : __builtin_shufflevector(a, b, 0, 2);
  else if constexpr (kLanesOf<V> == 4)
    return high ? __builtin_shufflevector(a, b, 2, 6, 3, 7)
                : __builtin_shufflevector(a, b, 0, 4, 1, 5);
  else if constexpr (kLanesOf<V> == 8)
    return high ? __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
                : __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  else
    return high ? __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14,
                                          30, 15, 31)
                : __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                          23);
}

// A square of N x N elements, N to a vector. Dealing the rows like cards, log2(N) times, exchanges
// rows and columns.
template <class Word>
ORTOLAN_INLINE void transpose_square(const Loose<Word>* in, ptrdiff_t in_stride, Loose<Word>* out,
                                     ptrdiff_t out_stride) {
  constexpr int N = 16 / sizeof(Word);
  using V = Vec<Word, N>;
  V a[N];
#pragma unroll
  for (int i = 0; i < N; ++i) copy(&a[i], in + i * in_stride, sizeof(V));
#pragma unroll
  for (int round = 1; round < N; round *= 2) {
    V b[N];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      b[2 * i] = interleave(a[i], a[i + N / 2], false);
      b[2 * i + 1] = interleave(a[i], a[i + N / 2], true);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) a[i] = b[i];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) copy(out + i * out_stride, &a[i], sizeof(V));
}

// Three planes of n >= 4 elements to n triples, and back.
ORTOLAN_INLINE void join_planes(const Loose<uint32_t>* in, ptrdiff_t plane, Loose<uint32_t>* out,
                                size_t n) {
  for (size_t i = 0; i < n; i += 4) {
    const size_t at = min(i, n - 4);
    Vec<uint32_t, 4> a, b, c;
    copy(&a, in + at, 16);
    copy(&b, in + at + plane, 16);
    copy(&c, in + at + 2 * plane, 16);
    const auto low = interleave(a, b, false), high = interleave(a, b, true);
    const auto middle = __builtin_shufflevector(low, c, 3, 5, 3, 5);
    a = __builtin_shufflevector(low, c, 0, 1, 4, 2);
    b = __builtin_shufflevector(middle, high, 0, 1, 4, 5);
    c = __builtin_shufflevector(c, high, 2, 6, 7, 3);
    copy(out + 3 * at, &a, 16);
    copy(out + 3 * at + 4, &b, 16);
    copy(out + 3 * at + 8, &c, 16);
  }
}
ORTOLAN_INLINE void split_planes(const Loose<uint32_t>* in, Loose<uint32_t>* out, ptrdiff_t plane,
                                 size_t n) {
  for (size_t i = 0; i < n; i += 4) {
    const size_t at = min(i, n - 4);
    Vec<uint32_t, 4> x, y, z;
    copy(&x, in + 3 * at, 16);
    copy(&y, in + 3 * at + 4, 16);
    copy(&z, in + 3 * at + 8, 16);
    const auto a =
        __builtin_shufflevector(__builtin_shufflevector(x, y, 0, 3, 6, 6), z, 0, 1, 2, 5);
    const auto b =
        __builtin_shufflevector(__builtin_shufflevector(x, y, 1, 4, 7, 7), z, 0, 1, 2, 6);
    const auto c =
        __builtin_shufflevector(__builtin_shufflevector(x, y, 2, 5, 5, 5), z, 0, 1, 4, 7);
    copy(out + at, &a, 16);
    copy(out + at + plane, &b, 16);
    copy(out + at + 2 * plane, &c, 16);
  }
}

// row.in == 1, column.out == 1, and both sides have room for a square, or are a triple
// (take_block): the block is transposed.
template <class Word>
void transpose_block(const CopyBlock& b, const char* input, char* output) {
  constexpr size_t kSide = 16 / sizeof(Word);
  constexpr size_t kTile = 64 / sizeof(Word);  // columns whose cache lines are used up together
  const Loose<Word>* in = reinterpret_cast<const Loose<Word>*>(input);
  Loose<Word>* out = reinterpret_cast<Loose<Word>*>(output);
  if constexpr (sizeof(Word) == 4) {
    if (b.columns == 3) return join_planes(in, b.column.in, out, b.rows);
    if (b.rows == 3) return split_planes(in, out, b.row.out, b.columns);
  }
  for (size_t tile = 0; tile < b.columns; tile += kTile) {
    const size_t end = min(tile + kTile, b.columns);
    for (size_t i = 0; i < b.rows; i += kSide) {
      const ptrdiff_t row = static_cast<ptrdiff_t>(min(i, b.rows - kSide));  // may overlap the last
      for (size_t j = tile; j < end; j += kSide) {
        const ptrdiff_t column = static_cast<ptrdiff_t>(min(j, b.columns - kSide));
        transpose_square<Word>(in + row + column * b.column.in, b.column.in,
                               out + row * b.row.out + column, b.row.out);
      }
    }
  }
}

}  // namespace ortolan::portable
