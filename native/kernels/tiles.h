// Register tiles of the float matrix product: their shapes for each instruction set, the loops that
// multiply rows of A with a packed panel of B, and the way to cover rows with them. Every sum is
// one chain of fma over k in ascending order, whatever tile computes it.
#pragma once

#include "core/packed.h"
#include "kernels/epilogue.h"

namespace ortolan::ORTOLAN_ISA {

#if defined(__wasm__)
constexpr bool kWasm = true;
#else
constexpr bool kWasm = false;
#endif

// Shape of the register tile: rows by width in vectors (index 0 unused), as measured.
#if defined(__AVX512F__)
constexpr int kTileRows[] = {0, 14, 14};
#elif defined(__AVX__)
constexpr int kTileRows[] = {0, 12, 6};
#elif defined(__aarch64__)
constexpr int kTileRows[] = {0, 8, 8, 8, 6};
#elif defined(__wasm_relaxed_simd__)
constexpr int kTileRows[] = {0, 8, 5};
#elif defined(__wasm__) && defined(ORTOLAN_FOR_SIZE)
constexpr int kTileRows[] = {0, 4, 4};
#elif defined(__wasm__)
constexpr int kTileRows[] = {0, 8, 4, 3};
#elif defined(__i386__)
constexpr int kTileRows[] = {0, 4};
#else
constexpr int kTileRows[] = {0, 6, 4, 3};
#endif
constexpr int kTileVectors = sizeof(kTileRows) / sizeof(int) - 1;
constexpr size_t kTileColumns = kTileVectors * kLanes;
// How a tile reads weights in the common form of files: as its own panels, whose rows are lines; a
// line for each of its vectors; or a part of a line. Other tiles do not: such weights are packed
// again.
constexpr bool kPanelsAreLines = kTileColumns == kLine;
constexpr bool kHasLinePerVector = kLanes == kLine;
constexpr bool kHasPartOfLine = kWasm && kTileColumns < kLine && kLine % kTileColumns == 0;
constexpr bool kReadsLines = kPanelsAreLines || kHasLinePerVector || kHasPartOfLine;
// Tiny builds have no other panels.
constexpr bool kHasOnlyLines = kTiny && kHasPartOfLine;
// The converter packs no columns that such tiles do not read: small builds need nothing for them.
constexpr bool kPacksLines = !kReadsLines || !kSmall;
// Half a vector, for products of so few columns that the other half would be empty.
constexpr bool kHasHalf = kLanes > 8 && !kSmall;
using HalfF = Vec<float, kHasHalf ? kLanes / 2 : kLanes>;
constexpr int kHalfRows = 14;
constexpr size_t kHalfLanes = kLanesOf<HalfF>;
constexpr bool fits_half(size_t columns) { return kHasHalf && columns <= kHalfLanes; }
// Hides a pointer's origin. Loop strength reduction would otherwise keep one pointer per row
// (x86: spills) or lose the constant offsets of loads (wasm: one addition more per load).
template <class T>
ORTOLAN_INLINE void opaque(T*& p) {
  __asm__("" : "+r"(p));
}
// Keeps the source's order in wasm: LLVM moves loads up, engines do not move them back down, and
// the 16 registers overflow.
template <class V>
ORTOLAN_INLINE void pin([[maybe_unused]] V& v) {
#ifdef __wasm_simd128__
  __asm__ volatile("" : "+r"(v));
#endif
}

// Where a tile's sums go: columns [0, last + kLanes) of the tile.
struct TileOutput {
  float* c;  // [rows][ldc], at the tile's first element
  size_t ldc;
  const float* bias;      // at the tile's first column, or null
  const float* residual;  // at the tile's first element, or null
  size_t ld_residual;
  ptrdiff_t last;  // column of the last vector; less than its place when N is ragged
  Bounds bounds;
};

template <int NV>
ORTOLAN_INLINE ptrdiff_t tile_column(const TileOutput& o, int j) {
  return j == NV - 1 ? o.last : j * kLanes;
}

// The sums start at the bias. The lines that the tile will read or write last are strided, which
// hardware does not prefetch.
template <class V, int MR, int NV>
ORTOLAN_INLINE void start_tile(V (&acc)[MR][NV], const TileOutput& o) {
  if constexpr (!kWasm) {
    auto fetch = [&](const float* p, size_t ld) {
#pragma unroll
      for (int i = 0; i < MR; ++i)
#pragma unroll
        for (int j = 0; j < NV * kLanesOf<V>; j += 16) __builtin_prefetch(p + i * ld + j);
    };
    fetch(o.c, o.ldc);
    if (o.residual) fetch(o.residual, o.ld_residual);
  }
#pragma unroll
  for (int j = 0; j < NV; ++j) {
    V v = o.bias ? load<V>(o.bias + tile_column<NV>(o, j)) : splat<V>(0);
#pragma unroll
    for (int i = 0; i < MR; ++i) acc[i][j] = v;
  }
}

template <class V, int MR, int NV>
ORTOLAN_INLINE void finish_tile(V (&acc)[MR][NV], const TileOutput& o) {
  if (o.residual) {
#pragma unroll
    for (int i = 0; i < MR; ++i)
#pragma unroll
      for (int j = 0; j < NV; ++j)
        acc[i][j] += load<V>(o.residual + i * o.ld_residual + tile_column<NV>(o, j));
  }
  const V low = splat<V>(o.bounds.low), high = splat<V>(o.bounds.high);
#pragma unroll
  for (int i = 0; i < MR; ++i)
#pragma unroll
    for (int j = 0; j < NV; ++j)
      store(o.c + i * o.ldc + tile_column<NV>(o, j), clamp_sums(acc[i][j], low, high));
}

// One step of k: a row of B times MR elements of A. `at(i)` is row i's element.
template <class V, int MR, int NV, class At>
ORTOLAN_INLINE void tile_step(V (&acc)[MR][NV], const float* b, size_t apart, At at) {
  V w[NV];
#pragma unroll
  for (int j = 0; j < NV; ++j) w[j] = load<V>(b + j * apart);
#pragma unroll
  for (int i = 0; i < MR; ++i) {
    float s = at(i);
#ifdef __aarch64__
    __asm__("" : "+w"(s));  // ldr + fmla by element; ld1r would take a vector pipe
#endif
    V a = splat<V>(s);
#pragma unroll
    for (int j = 0; j < NV; ++j) acc[i][j] = fma(w[j], a, acc[i][j]);
    pin(acc[i][NV - 1]);
  }
}

// What a tile multiplies: rows of A `lda` apart, where there is more than one segment at `starts`;
// or, segment by segment, at a pointer for each row.
struct TileInput {
  const float* a;
  size_t lda;
  const float* const* rows;  // [segments][row_stride] or null
  size_t row_stride;
  size_t segments;
  size_t offset;     // added to each pointer
  size_t k;          // floats of a row, or of a segment
  const float* b;    // [segments * k][tile width], or in lines
  size_t tiles = 1;  // below each other
  // To fetch into the cache meanwhile, `ahead_step` floats per k, up to an end.
  const float *ahead = nullptr, *ahead_end = nullptr;
  size_t ahead_step = 0;
  // Where row 0 begins in each segment; `a` is row `first` of the first one.
  const float* const* starts = nullptr;
  size_t first = 0;
  // Where B is in the common form and rows of a tile are no lines: floats from line to line, if
  // each vector has one, or of a row, if a tile has a part of it. Else 0.
  size_t line = 0;
};

// Floats from vector to vector of a row of B, and from row to row.
template <class V>
ORTOLAN_INLINE size_t vectors_apart(size_t line) {
  return kHasLinePerVector && line ? line : kLanesOf<V>;
}
template <class V, int NV>
ORTOLAN_INLINE size_t rows_apart(size_t line) {
  if (kHasOnlyLines || (kHasPartOfLine && line)) return line;
  return kHasLinePerVector && line ? kLanesOf<V> : NV * kLanesOf<V>;
}
// Where column n of B is, of `depth` rows.
ORTOLAN_INLINE size_t column_offset(size_t line, size_t depth, size_t n) {
  return kHasOnlyLines || (kHasPartOfLine && line) ? line_offset(depth, n) : n * depth;
}

// A packed panel is used once per block of rows and comes from memory each time, which hardware
// notices too late: a tile asks for a slice of the next panel. It may point beyond the last one.
ORTOLAN_INLINE void fetch_ahead(const float*& ahead, size_t step) {
  if constexpr (kWasm) return;
  __builtin_prefetch(ahead, 0, 3);
  ahead += step;
}
ORTOLAN_INLINE size_t ahead_step(const TileInput& in, const float* ahead) {
  return ahead < in.ahead_end ? in.ahead_step : 0;
}

// Tiles of wasm take so little time that a call for each would count. Code for size has the calls.
ORTOLAN_INLINE size_t tile_count(const TileInput& in) { return kSmall ? 1 : in.tiles; }
template <int MR>
ORTOLAN_INLINE void next_tile(TileOutput& o) {
  o.c += MR * o.ldc;
  if (o.residual) o.residual += MR * o.ld_residual;
}

// How a tile finds its rows; each has functions of its own: one loop more around a tile's, for
// segments, costs products of 24 columns of A 3 %.
enum class Reach : uint8_t { kDirect, kSegments, kIndirect };
constexpr bool kHasSegments = !kSmall && !kWasm;

template <int MR, int NV, class V = F, Reach reach = Reach::kDirect>
ORTOLAN_NOINLINE void tile(const TileInput& in, const TileOutput& out) {
#if defined(__x86_64__) || defined(__i386__)
  constexpr int kShare = 3;  // p, p + lda and p + 2 * lda are reached from one pointer
#else
  constexpr int kShare = 1;
#endif
  constexpr int kPointers = (MR + kShare - 1) / kShare;
  constexpr bool is_whole = kLanesOf<V> == kLanes;  // else there is no panel ahead
  const size_t lda = in.lda;
  const size_t apart = vectors_apart<V>(in.line), row_step = rows_apart<V, NV>(in.line);
  const float* ahead = in.ahead;
  TileOutput o = out;
  for (size_t t = tile_count(in), row = 0; t; --t, row += MR, next_tile<MR>(o)) {
    V acc[MR][NV];
    start_tile(acc, o);
    const size_t step = ahead_step(in, ahead);
    const float* b = in.b;
    const float* from = in.a + row * lda;
    for (size_t s = 1;; ++s) {
      const float* a[kPointers];
#pragma unroll
      for (int g = 0; g < kPointers; ++g) {
        a[g] = from + kShare * g * lda;
        opaque(a[g]);
      }
      for (size_t k = in.k; k; --k) {
        if constexpr (is_whole) fetch_ahead(ahead, step);
        tile_step(acc, b, apart, [&](int i) { return a[i / kShare][(i % kShare) * lda]; });
#pragma unroll
        for (int g = 0; g < kPointers; ++g) {
          ++a[g];
          opaque(a[g]);
        }
        b += row_step;
        if constexpr (kWasm) opaque(b);
      }
      if (reach == Reach::kDirect || s >= in.segments) break;
      from = in.starts[s] + (in.first + row) * lda;
    }
    finish_tile(acc, o);
  }
}

template <int MR, int NV, class V = F>
ORTOLAN_NOINLINE void tile_indirect(const TileInput& in, const TileOutput& out) {
  constexpr bool is_whole = kLanesOf<V> == kLanes;
  const float* ahead = in.ahead;
  const size_t run = in.k;
  const size_t apart = vectors_apart<V>(in.line), row_step = rows_apart<V, NV>(in.line);
  TileOutput o = out;
  for (size_t t = tile_count(in), row = 0; t; --t, row += MR, next_tile<MR>(o)) {
    V acc[MR][NV];
    start_tile(acc, o);
    const float* b = in.b;
    const size_t step = ahead_step(in, ahead);
    const float* const* rows = in.rows + row;
    for (size_t s = in.segments; s; --s, rows += in.row_stride) {
      const float* a[MR];
#pragma unroll
      for (int i = 0; i < MR; ++i) a[i] = rows[i] + in.offset;
      for (size_t k = 0; k < run; ++k) {
        if constexpr (is_whole) fetch_ahead(ahead, step);
        tile_step(acc, b, apart, [&](int i) { return a[i][k]; });
        b += row_step;
        if constexpr (kWasm) opaque(b);
      }
    }
    finish_tile(acc, o);
  }
}

// One row times several whole panels, from `column` on, `apart` columns from one another: enough
// independent sums to hide the latency of fma. Each panel is a stream that goes on where the last
// call left it, because memory gives a stream its full rate only after a while.
constexpr int kRowPanels = max(1, 8 / kTileVectors);

ORTOLAN_INLINE TileOutput move_columns(TileOutput out, size_t columns) {
  out.c += columns;
  if (out.bias) out.bias += columns;
  if (out.residual) out.residual += columns;
  return out;
}

// The column of stream p, from that of the first: where a tile has a part of a line, its parts go
// together, so that no line is read twice.
ORTOLAN_INLINE size_t stream_column(size_t line, size_t apart, size_t p) {
  constexpr size_t kParts = kHasPartOfLine ? kLine / kTileColumns : 1;
  if (kParts == 1 || !line) return p * apart;
  return p / kParts * kParts * apart + p % kParts * kTileColumns;
}
ORTOLAN_INLINE size_t streams_together(size_t line) {
  return kHasPartOfLine && line ? kLine / kTileColumns : 1;
}

template <int kPanels = kRowPanels>
ORTOLAN_NOINLINE void tile_row(const TileInput& in, size_t column, size_t apart,
                               const TileOutput& out) {
  constexpr int NV = kTileVectors;
  const size_t between = vectors_apart<F>(in.line), row_step = rows_apart<F, NV>(in.line);
  F acc[kPanels][1][NV];
  const float* b[kPanels];
#pragma unroll
  for (int p = 0; p < kPanels; ++p) {
    const size_t at = stream_column(in.line, apart, p);
    b[p] = in.b + column_offset(in.line, in.k, column + at);
    start_tile(acc[p], move_columns(out, at));
  }
  for (size_t k = 0; k < in.k; ++k) {
    const F a = splat<F>(in.a[k]);
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
#pragma unroll
      for (int j = 0; j < NV; ++j) acc[p][0][j] = fma(load<F>(b[p] + j * between), a, acc[p][0][j]);
      b[p] += row_step;
      if constexpr (kWasm) opaque(b[p]);
    }
  }
#pragma unroll
  for (int p = 0; p < kPanels; ++p)
    finish_tile(acc[p], move_columns(out, stream_column(in.line, apart, p)));
}

// Tiles of one width, from the highest to a single row.
using TileFunction = void (*)(const TileInput&, const TileOutput&);
struct TileShape {
  size_t rows;
  TileFunction run;
};
constexpr int kTileHeights = 4;

constexpr int lower_rows(int rows) {
  constexpr bool kNarrow = kWasm && !kSmall && kTileVectors == 2;  // one row hides no latency
  if (kNarrow && rows == 5) return 4;
  return kWasm && !kNarrow && rows <= 5 ? 1 : max(rows / 2, 1);
}
constexpr int tile_rows(int vectors, int level) {
  int rows = kTileRows[vectors];
  for (; level; --level) rows = lower_rows(rows);
  return rows;
}
template <int NV>
constexpr TileShape kDirectTiles[kTileHeights] = {
    {tile_rows(NV, 0), tile<tile_rows(NV, 0), NV>},
    {tile_rows(NV, 1), tile<tile_rows(NV, 1), NV>},
    {tile_rows(NV, 2), tile<tile_rows(NV, 2), NV>},
    {tile_rows(NV, 3), tile<tile_rows(NV, 3), NV>},
};
template <int NV>
constexpr TileShape kIndirectTiles[kTileHeights] = {
    {tile_rows(NV, 0), tile_indirect<tile_rows(NV, 0), NV>},
    {tile_rows(NV, 1), tile_indirect<tile_rows(NV, 1), NV>},
    {tile_rows(NV, 2), tile_indirect<tile_rows(NV, 2), NV>},
    {tile_rows(NV, 3), tile_indirect<tile_rows(NV, 3), NV>},
};
constexpr TileShape kHalfIndirectTiles[kTileHeights] = {
    {kHalfRows, tile_indirect<kHalfRows, 1, HalfF>},
    {kHalfRows / 2, tile_indirect<kHalfRows / 2, 1, HalfF>},
    {kHalfRows / 4, tile_indirect<kHalfRows / 4, 1, HalfF>},
    {1, tile_indirect<1, 1, HalfF>},
};
constexpr TileShape kHalfTiles[kTileHeights] = {
    {kHalfRows, tile<kHalfRows, 1, HalfF>},
    {kHalfRows / 2, tile<kHalfRows / 2, 1, HalfF>},
    {kHalfRows / 4, tile<kHalfRows / 4, 1, HalfF>},
    {1, tile<1, 1, HalfF>},
};
template <int NV>
constexpr TileShape kSegmentTiles[kTileHeights] = {
    {tile_rows(NV, 0), tile<tile_rows(NV, 0), NV, F, Reach::kSegments>},
    {tile_rows(NV, 1), tile<tile_rows(NV, 1), NV, F, Reach::kSegments>},
    {tile_rows(NV, 2), tile<tile_rows(NV, 2), NV, F, Reach::kSegments>},
    {tile_rows(NV, 3), tile<tile_rows(NV, 3), NV, F, Reach::kSegments>},
};
constexpr TileShape kHalfSegmentTiles[kTileHeights] = {
    {kHalfRows, tile<kHalfRows, 1, HalfF, Reach::kSegments>},
    {kHalfRows / 2, tile<kHalfRows / 2, 1, HalfF, Reach::kSegments>},
    {kHalfRows / 4, tile<kHalfRows / 4, 1, HalfF, Reach::kSegments>},
    {1, tile<1, 1, HalfF, Reach::kSegments>},
};
template <int NV = kTileVectors>
ORTOLAN_INLINE const TileShape* tile_shapes(size_t vectors, Reach reach) {
  if constexpr (NV > 1)
    if (vectors < NV) return tile_shapes<NV - 1>(vectors, reach);
  if (kHasSegments && reach == Reach::kSegments) return kSegmentTiles<NV>;
  return reach == Reach::kIndirect ? kIndirectTiles<NV> : kDirectTiles<NV>;
}
ORTOLAN_INLINE const TileShape* half_tile_shapes(Reach reach) {
  if (kHasSegments && reach == Reach::kSegments) return kHalfSegmentTiles;
  return reach == Reach::kIndirect ? kHalfIndirectTiles : kHalfTiles;
}

// Calls run(row, tiles, shape) for tiles that cover [0, rows), `most` of them in a call. The last
// ones are lower, or overlap rows that are already written: those get the same results again.
template <class Run>
ORTOLAN_INLINE void for_each_tile(const TileShape* shape, size_t rows, size_t most, Run run) {
  for (size_t row = 0, tiles; row < rows; row += tiles * shape->rows) {
    while (rows - row < shape->rows) {
      const size_t lower = shape[1].rows;
      if (rows - row > lower + lower / 2 && rows >= shape->rows)
        row = rows - shape->rows;
      else
        ++shape;
    }
    tiles = kSmall ? 1 : min(most, (rows - row) / shape->rows);
    run(row, tiles, *shape);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
