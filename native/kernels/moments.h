// Sums over rows and columns of floats or doubles for the normalizations. Short blocks are summed
// in vectors, blocks in double: long rows stay accurate, and the order depends on shapes alone.
#pragma once

#include "kernels/elements.h"

namespace ortolan::ORTOLAN_ISA {

constexpr size_t kSumBlock = 512;  // elements of a row, or rows of a column

// Calls body(i, n) for the vectors of a row; the last may have fewer elements n than V.
template <class V, class Body>
ORTOLAN_INLINE void for_vectors(size_t begin, size_t end, Body body) {
  constexpr size_t kStep = kLanesOf<V>;
#pragma clang loop unroll(disable)
  for (; begin + kStep <= end; begin += kStep) body(begin, kStep);
  if (begin < end) body(begin, end - begin);
}

// The sum of map(x, i) over a row of vectors x at i.
template <class T, class Map>
ORTOLAN_INLINE double row_sum(const T* x, size_t n, Map map) {
  using V = Lanes<T>;
  using I = IntLike<V>;
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kSumBlock) {
    V sum = splat<V>(0);
    for_vectors<V>(begin, min(n, begin + kSumBlock), [&](size_t i, size_t count) {
      V v = map(load_lanes<V>(x + i, count, 0), i, count);
      if (count < kLanesOf<V>)
        v = select<V>(lane_numbers<V>() < splat<I>(static_cast<Element<I>>(count)), v, splat<V>(0));
      sum += v;
    });
    total += static_cast<double>(reduce_sum<V>(sum));
  }
  return total;
}

template <class T>
struct Moments {
  T mean, inverse;  // 1 / sqrt(variance + epsilon)
};

template <class T>
ORTOLAN_INLINE T inverse_root(double variance, float epsilon) {
  return static_cast<T>(1 / __builtin_sqrt(variance + static_cast<double>(epsilon)));
}

// Of a row whose sum is known.
template <class T>
ORTOLAN_INLINE Moments<T> moments_about(const T* x, size_t n, double sum, float epsilon) {
  using V = Lanes<T>;
  const double count = static_cast<double>(n);
  const T mean = static_cast<T>(sum / count);
  const V shift = splat<V>(mean);
  const double squares =
      row_sum(x, n, [=](V v, size_t, size_t) { return (v - shift) * (v - shift); });
  return {mean, inverse_root<T>(squares / count, epsilon)};
}
template <class T>
ORTOLAN_NOINLINE Moments<T> row_moments(const T* x, size_t n, float epsilon) {
  const double sum = row_sum(x, n, [](Lanes<T> v, size_t, size_t) { return v; });
  return moments_about(x, n, sum, epsilon);
}

template <class T>
ORTOLAN_NOINLINE double square_sum(const T* x, size_t n) {
  return row_sum(x, n, [](Lanes<T> v, size_t, size_t) { return v * v; });
}

// Columns [0, n) of rows of `columns`: B vectors, or less than one. A single one is summed in four
// chains, or each addition would wait for the one before.
template <int B, class T>
ORTOLAN_INLINE void column_block_sums(const T* x, size_t rows, size_t columns, size_t n,
                                      const T* mean, double* out) {
  using V = Lanes<T>;
  constexpr size_t kStep = kLanesOf<V>, kChains = B == 1 ? 4 : 1;
  V shift[B], sums[kChains][B] = {};
  for (size_t b = 0; b < B; ++b)
    shift[b] = mean ? load_lanes<V>(mean + b * kStep, B == 1 ? n : kStep, 0) : splat<V>(0);
  auto add = [&](const T* at, size_t chain) {
#pragma unroll
    for (size_t b = 0; b < B; ++b) {
      const V v = load_lanes<V>(at + b * kStep, B == 1 ? n : kStep, 0) - shift[b];
      sums[chain][b] += mean ? v * v : v;
    }
  };
  size_t r = 0;
  for (; r + kChains <= rows; r += kChains) {
#pragma unroll
    for (size_t k = 0; k < kChains; ++k) add(x + (r + k) * columns, k);
  }
  for (; r < rows; ++r) add(x + r * columns, 0);
  for (size_t b = 0; b < B; ++b) {
    V sum = sums[0][b];
    for (size_t k = 1; k < kChains; ++k) sum += sums[k][b];
    for (size_t k = 0; k < (B == 1 ? n : kStep); ++k)
      out[b * kStep + k] = static_cast<double>(sum[k]);
  }
}

// out[column] = sum over `rows` rows of x, or of (x - mean)^2 where there are means.
template <class T>
ORTOLAN_NOINLINE void column_sums(const T* x, size_t rows, size_t columns, const T* mean,
                                  double* out) {
  constexpr size_t kStep = kLanesOf<Lanes<T>>, kMany = kSmall ? 1 : 4;
  for (size_t i = 0; i < columns;) {
    const size_t n = min(kStep, columns - i);
    const T* const means = mean ? mean + i : nullptr;
    if (kMany > 1 && i + kMany * kStep <= columns) {
      column_block_sums<kMany>(x + i, rows, columns, n, means, out + i);
      i += kMany * kStep;
    } else {
      column_block_sums<1>(x + i, rows, columns, n, means, out + i);
      i += n;
    }
  }
}

// y = x * factor + term with one of both for each column; y may be x.
template <class T>
ORTOLAN_NOINLINE void scale_columns(const T* x, T* y, size_t rows, size_t columns, const T* factor,
                                    const T* term) {
  using V = Lanes<T>;
  constexpr size_t kStep = kLanesOf<V>;
  const size_t few = 4096 / columns + 1;  // rows that stay in the first cache
  for (; rows; x += few * columns, y += few * columns) {
    const size_t n = min(rows, few);
    rows -= n;
    for (size_t i = 0; i < columns; i += kStep) {
      const size_t rest = min(kStep, columns - i);
      const V scale = load_lanes<V>(factor + i, rest, 0), shift = load_lanes<V>(term + i, rest, 0);
      const T* from = x + i;
      T* to = y + i;
      if (rest == kStep) {
#pragma clang loop unroll_count(4)
        for (size_t r = n; r > 0; --r, from += columns, to += columns)
          store(to, load<V>(from) * scale + shift);
      } else {
#pragma clang loop unroll(disable)
        for (size_t r = n; r > 0; --r, from += columns, to += columns)
          store_part(to, load_part<V>(from, rest) * scale + shift, rest);
      }
    }
  }
}

}  // namespace ortolan::ORTOLAN_ISA
