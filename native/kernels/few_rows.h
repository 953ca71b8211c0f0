// Product of few rows with a packed B, for small batches and recurrent steps. The tiles of gemm.h
// are made for many rows: lower ones have too few sums to hide the latency of fma, or read B once
// per row. Here a few rows go together through several panels.
#pragma once

#include "kernels/gemm.h"

namespace ortolan::ORTOLAN_ISA {

// Multiplications that keep a thread busy for about 20 us: less is not worth another thread.
constexpr size_t kThreadWork = 1 << 19;

// Panels of a group, so that four vectors of B are at hand. Where panels are wider than two
// vectors, or registers too few, the lower tiles do well.
constexpr int kGroupPanels = kTileVectors == 2 ? 2 : 1;
#if defined(__AVX512F__)
constexpr int kGroupRows = 4;  // there are 32 registers
#else
constexpr int kGroupRows = 2;
#endif
// Above that the tiles of gemm.h are as fast.
constexpr size_t kGroupedRows = 16;

// MR rows from `row` on times the group that starts at `panel`, all of its panels whole.
// The sums are the same chains as in gemm.h.
template <int MR>
ORTOLAN_NOINLINE void multiply_group(const GemmArgs& g, size_t row, size_t panel) {
  constexpr int NV = kGroupPanels * kTileVectors;
  const size_t lda = g.lda;
  const size_t column = panel * kTileColumns, line = line_of(g);
  const size_t first = column_offset(line, g.K, column);
  const size_t next = column_offset(line, g.K, column + kTileColumns) - first;
  const size_t apart = vectors_apart<F>(line), row_step = rows_apart<F, kTileVectors>(line);
  const float* a = g.a + row * g.lda;
  const float* b = g.packed_b + first;
  F acc[MR][NV];
#pragma unroll
  for (int j = 0; j < NV; ++j) {
    F v = g.epilogue.bias ? load<F>(g.epilogue.bias + column + j * kLanes) : splat<F>(0);
#pragma unroll
    for (int i = 0; i < MR; ++i) acc[i][j] = v;
  }
  for (size_t k = 0; k < g.K; ++k, b += row_step) {
    F w[NV];
#pragma unroll
    for (int j = 0; j < NV; ++j)
      w[j] = load<F>(b + j / kTileVectors * next + j % kTileVectors * apart);
#pragma unroll
    for (int i = 0; i < MR; ++i) {
      F s = splat<F>(a[i * lda + k]);
#pragma unroll
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(w[j], s, acc[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < MR; ++i)
#pragma unroll
    for (int j = 0; j < NV; ++j) store(g.c + (row + i) * g.ldc + column + j * kLanes, acc[i][j]);
}

// gemm_rows_panels by the faster of both ways. The epilogue may have a bias and nothing else.
ORTOLAN_NOINLINE inline void multiply_rows_panels(const GemmArgs& g, size_t row0, size_t row1,
                                                  size_t panel0, size_t panel1) {
  const size_t rows = row1 - row0;
  if (!kTiny && kGroupPanels > 1 && rows > 1 && rows <= kGroupedRows && rows % kGroupRows <= 1) {
    // The last panel may be narrower, or wider by a rest.
    const size_t whole =
        min(panel1, panel_count(g.N) - (g.N % kTileColumns || ends_narrow(g) ? 1 : 0));
    for (; panel0 + kGroupPanels <= whole; panel0 += kGroupPanels) {
      size_t row = row0;
      for (; row + kGroupRows <= row1; row += kGroupRows)
        multiply_group<kGroupRows>(g, row, panel0);
      if (row < row1) multiply_group<1>(g, row, panel0);
    }
  }
  gemm_rows_panels(g, row0, row1, panel0, panel1);
}

}  // namespace ortolan::ORTOLAN_ISA
