// Resampling along axes: per axis a table says which input positions, with which weights, make up an
// output position; the passes apply the tables to one axis, or to two neighbouring ones row by row.
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

ORTOLAN_INLINE void copy_floats(float* out, const float* in, size_t n) {
  if (n > 64) return copy(out, in, n * sizeof(float));
  size_t i = 0;
  for (; i + 4 <= n; i += 4) store(out + i, load<Vec<float, 4>>(in + i));
  for (; i < n; ++i) out[i] = in[i];
}

// Input [outer, in_rows, in_columns, inner] to output [outer, out_rows, out_columns, inner]; an axis
// without table keeps its size.
struct Pass {
  size_t outer, in_rows, out_rows, in_columns, out_columns, inner;
  const TapTable *rows, *columns;
};

ORTOLAN_NOINLINE static void resample_row(const Pass& p, float* out, const float* in) {
  const TapTable& table = *p.columns;
  const Tap* taps = table.entries;
  if (table.taps == 1) {
    for (size_t x = 0; x < p.out_columns; ++x, out += p.inner)
      copy_floats(out, in + taps[x].index * p.inner, p.inner);
  } else if (p.inner == 1) {
    for (size_t x = 0; x < p.out_columns; ++x, taps += table.taps)
      combine_at<float, 1>(out + x, in, 1, 0, taps, table.taps);
  } else {
    for (size_t x = 0; x < p.out_columns; ++x, taps += table.taps, out += p.inner)
      combine(out, in, p.inner, taps, table.taps);
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
    if (p.columns) resample_row(p, to, from);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
