// Sums over rows and columns of floats or doubles for the normalizations. Short blocks are summed
// in vectors, blocks in double: long rows stay accurate, and the order depends on shapes alone.
#pragma once

#include "kernels/elements.h"

namespace ortolan::ORTOLAN_ISA {

constexpr size_t kSumBlock = 512;  // elements of a row, or rows of a column

// The sum of map(x) over a row.
template <class T, class Map>
ORTOLAN_INLINE double row_sum(const T* x, size_t n, Map map) {
  using V = Lanes<T>;
  constexpr size_t kStep = kLanesOf<V>;
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kSumBlock) {
    const size_t end = min(n, begin + kSumBlock);
    V sums[2] = {};
    size_t i = begin;
    for (; i + 2 * kStep <= end; i += 2 * kStep) {
      sums[0] += map(load<V>(x + i));
      sums[1] += map(load<V>(x + i + kStep));
    }
    T rest = 0;
    for (; i < end; ++i) rest += map(x[i]);
    total += static_cast<double>(reduce_sum<V>(sums[0] + sums[1])) + static_cast<double>(rest);
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

template <class T>
ORTOLAN_NOINLINE Moments<T> row_moments(const T* x, size_t n, float epsilon) {
  const double count = static_cast<double>(n);
  const T mean = static_cast<T>(row_sum(x, n, [](auto v) { return v; }) / count);
  const double squares = row_sum(x, n, [=](auto v) {
    const auto d = v - splat<decltype(v)>(mean);
    return d * d;
  });
  return {mean, inverse_root<T>(squares / count, epsilon)};
}

template <class T>
ORTOLAN_NOINLINE double square_sum(const T* x, size_t n) {
  return row_sum(x, n, [](auto v) { return v * v; });
}

// out[column] = sum over `rows` rows of x, or of (x - mean)^2 where there are means.
template <class T>
ORTOLAN_NOINLINE void column_sums(const T* x, size_t rows, size_t columns, const T* mean,
                                  double* out) {
  using V = Lanes<T>;
  constexpr size_t kStep = kLanesOf<V>;
  for (size_t i = 0; i < columns; i += kStep) {
    const size_t n = min(kStep, columns - i);
    const V shift = mean ? (n < kStep ? load_part<V>(mean + i, n) : load<V>(mean + i)) : V{};
    V sum = {};
    for (size_t r = 0; r < rows; ++r) {
      const T* at = x + r * columns + i;
      const V v = (n < kStep ? load_part<V>(at, n) : load<V>(at)) - shift;
      sum += mean ? v * v : v;
    }
    for (size_t k = 0; k < n; ++k) out[i + k] = static_cast<double>(sum[k]);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
