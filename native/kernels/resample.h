// Resampling along axes: per axis a table says which input positions, with which weights, make up
// an output position; the passes apply the tables to one axis, or to two neighbouring ones row by
// row.
#pragma once

#include "core/context.h"
#include "kernels/simd.h"

namespace ortolan::ORTOLAN_ISA {

struct Tap {
  uint32_t index;
  float weight;
};

// `taps` taps for each of `size` output positions.
struct TapTable {
  Tap* entries = nullptr;
  uint8_t* outside = nullptr;  // 1: extrapolated; null: none is
  size_t taps = 1;
};

// out[i] = sum of weight * base[index * n + i] for one vector of V at i.
template <class V, int kCount>
ORTOLAN_INLINE void combine_at(float* out, const float* base, size_t n, size_t i, const Tap* taps,
                               size_t count) {
  V sum[kCount] = {};
  for (size_t t = 0; t < count; ++t) {
    const float* from = base + taps[t].index * n + i;
    const V weight = splat<V>(taps[t].weight);
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum[k] = fma(weight, load<V>(from + k * kLanesOf<V>), sum[k]);
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) store(out + i + k * kLanesOf<V>, sum[k]);
}

// One output position of n neighbouring floats.
ORTOLAN_NOINLINE static void combine(float* out, const float* base, size_t n, const Tap* taps,
                                     size_t count) {
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) combine_at<F, 4>(out, base, n, i, taps, count);
  for (; i + kLanes <= n; i += kLanes) combine_at<F, 1>(out, base, n, i, taps, count);
  if constexpr (kLanes > 4)
    for (; i + 4 <= n; i += 4) combine_at<Vec<float, 4>, 1>(out, base, n, i, taps, count);
  for (; i < n; ++i) combine_at<float, 1>(out, base, n, i, taps, count);
}

// The same as vectors of V, which may reach beyond the n floats at `out`.
template <class V>
ORTOLAN_INLINE void combine_few(float* out, const float* base, size_t n, const Tap* taps,
                                size_t count) {
  V sum = load<V>(base + taps[0].index * n) * taps[0].weight;
  for (size_t t = 1; t < count; ++t)
    sum = fma(splat<V>(taps[t].weight), load<V>(base + taps[t].index * n), sum);
  store(out, sum);
}

// Input [outer, in_rows, in_columns, inner] to output [outer, out_rows, out_columns, inner]; an
// axis without table keeps its size.
struct Pass {
  size_t outer, in_rows, out_rows, in_columns, out_columns, inner;
  const TapTable *rows, *columns;
};

// Copies n floats for each output position. A vector more than that may be written, so the
// positions go upwards, and the last ones, where a vector would leave the rows, go one float at a
// time.
ORTOLAN_NOINLINE static void resample_row(const Pass& p, float* out, const float* in) {
  using V = Vec<float, 4>;
  const size_t n = p.inner, count = p.columns->taps;
  const Tap* taps = p.columns->entries;
  size_t x = 0;
  if (n == 1 && count == 2) {
#pragma clang loop unroll_count(4)
    for (; x < p.out_columns; ++x, taps += 2)
      out[x] = fma(taps[1].weight, in[taps[1].index], in[taps[0].index] * taps[0].weight);
    return;
  }
  if (n == 1) {
    for (; x < p.out_columns; ++x, taps += count) combine_few<float>(out + x, in, 1, taps, count);
    return;
  }
  if (n <= 4) {
    for (; x * n + 4 <= p.out_columns * n; ++x, taps += count) {
      if ((taps[count - 1].index * n + 4) > p.in_columns * n) break;
      combine_few<V>(out + x * n, in, n, taps, count);
    }
  }
  for (; x < p.out_columns; ++x, taps += count) combine(out + x * n, in, n, taps, count);
}

// Likewise with one tap of weight 1.
ORTOLAN_NOINLINE static void repeat_row(const Pass& p, float* out, const float* in) {
  using V = Vec<float, 4>;
  const size_t n = p.inner;
  const Tap* taps = p.columns->entries;
  size_t x = 0;
  if (n == 1) {
#pragma clang loop unroll_count(4)
    for (; x < p.out_columns; ++x) out[x] = in[taps[x].index];
    return;
  }
  if (n <= 4)
    for (; x * n + 4 <= p.out_columns * n && taps[x].index * n + 4 <= p.in_columns * n; ++x)
      store(out + x * n, load<V>(in + taps[x].index * n));
  for (; x < p.out_columns; ++x) {
    const float* from = in + taps[x].index * n;
    float* to = out + x * n;
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(to + i, load<F>(from + i));
    for (; i < n; ++i) to[i] = from[i];
  }
}

// Output rows [begin, end), counted over all of outer. `row`: room for one input row.
static void resample_rows(const Pass& p, const float* in, float* out, size_t begin, size_t end,
                          float* row) {
  const size_t in_row = p.in_columns * p.inner, out_row = p.out_columns * p.inner;
  const float* previous = nullptr;
  for (size_t i = begin; i < end; ++i) {
    const float* from = in + i / p.out_rows * p.in_rows * in_row;
    float* to = out + i * out_row;
    if (p.rows) {
      const Tap* taps = p.rows->entries + i % p.out_rows * p.rows->taps;
      if (p.rows->taps > 1) {
        float* target = p.columns ? row : to;
        combine(target, from, in_row, taps, p.rows->taps);
        from = row;
      } else {
        from += taps->index * in_row;
        const bool repeated = from == previous;
        previous = from;
        if (repeated || !p.columns) {
          copy(to, repeated ? to - out_row : from, out_row * sizeof(float));
          continue;
        }
      }
    }
    if (p.columns) (p.columns->taps == 1 ? repeat_row : resample_row)(p, to, from);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
