// Float matrix product C[M][N] = activation(A[M][K] * B[K][N] + bias + residual) for any M, N, K.
// A is read in place. B is packed once into panels [K][tile width]; the small products of
// gemm_plain read it in place too. Every element of C is one chain of fma over k in ascending
// order, whatever tile computes it, so results do not depend on how the work is split.
#pragma once

#include "kernels/tiles.h"

namespace ortolan::ORTOLAN_ISA {

// Rows that stay in the second-level cache while all panels pass over them.
constexpr size_t kBlockRows = kWasm ? 60 : 112;

// C[M][N] = epilogue(A[M][K] * B). A has rows of lda floats, C of ldc.
struct GemmArgs {
  size_t M = 0, N = 0, K = 0;
  const float* a = nullptr;
  size_t lda = 0;
  const float* packed_b = nullptr;  // by pack_b, or in the common form
  float* c = nullptr;
  size_t ldc = 0;
  Epilogue epilogue;
  bool in_lines = false;  // the common form, of columns that reads_lines
};

// Whether products with N columns read the common form of B where it lies.
ORTOLAN_INLINE bool reads_lines(size_t N) { return kReadsLines && N % 8 == 0; }
// Whether it takes such a B at all.
ORTOLAN_INLINE bool takes_lines(size_t N) { return kPacksLines ? N > 1 : reads_lines(N); }
ORTOLAN_INLINE size_t line_of(const GemmArgs& g) {
  if (kPanelsAreLines || kHasOnlyLines || !g.in_lines) return 0;
  return kHasLinePerVector ? g.K * kLine : kLine;
}
// Whether the last of the panels of such a B has rows of another length.
ORTOLAN_INLINE bool ends_narrow(const GemmArgs& g) {
  return kHasPartOfLine && g.in_lines && g.N % kLine;
}

// Vectors that cover so many columns.
ORTOLAN_INLINE size_t vectors_of(size_t columns) { return (columns + kLanes - 1) / kLanes; }

// Panels that different threads may compute. A rest of less than a vector belongs to the panel
// before it, because the vector that computes it overlaps that panel.
ORTOLAN_INLINE size_t panel_count(size_t N) {
  if constexpr (kTiny) return max<size_t>(N / kTileColumns, N ? 1 : 0);
  size_t whole = N / kTileColumns, rest = N % kTileColumns;
  return whole + (rest >= kLanes || (rest && !whole) ? 1 : 0);
}
// First column of a panel, or N at the end.
ORTOLAN_INLINE size_t panel_column(size_t N, size_t panel) {
  return panel < panel_count(N) ? panel * kTileColumns : N;
}

// Columns that one tile covers.
struct Part {
  size_t column;
  size_t vectors;  // or one of half their lanes
  bool is_half;
  ptrdiff_t last;  // as TileOutput::last
  size_t columns;

  ORTOLAN_INLINE size_t lanes() const { return is_half ? kHalfLanes : kLanes; }
  ORTOLAN_INLINE size_t width() const { return vectors * lanes(); }  // of a packed row
};

// Calls body(part) for the parts of a panel: itself, and a rest that belongs to it.
template <class Body>
ORTOLAN_INLINE void for_each_part(size_t N, size_t panel, Body body) {
  const size_t end = panel_column(N, panel + 1);
  if constexpr (kTiny) {
    for (size_t n = panel * kTileColumns; n < end; n += kTileColumns)
      body(Part{n, kTileVectors, false, 0, kTileColumns});
    return;
  }
  for (size_t n = panel * kTileColumns, columns; n < end; n += columns) {
    columns = min(kTileColumns, end - n);
    if (kHasHalf && fits_half(columns % kLanes) && columns % kLanes && columns > kLanes)
      columns -= columns % kLanes;
    const bool is_half = fits_half(columns);
    const ptrdiff_t lanes = is_half ? kHalfLanes : kLanes, all = N;
    const ptrdiff_t last = all < lanes ? 0 : static_cast<ptrdiff_t>(columns) - lanes;
    body(Part{n, is_half ? 1 : vectors_of(columns), is_half, last, columns});
  }
}

// Floats of a packed B[K][N].
ORTOLAN_INLINE size_t packed_size(size_t N, size_t K) {
  if constexpr (kTiny) return (N + kTileColumns - 1) / kTileColumns * kTileColumns * K;
  constexpr size_t kUnit = kHasHalf ? kHalfLanes : kLanes;
  return (N + kUnit - 1) / kUnit * kUnit * K;
}

// B[K][N] as it lies in memory. Row k = tap * rows + r of column n is
// b[tap * tap_stride + r * row_stride + n * column_stride], or in the common form.
struct PackSource {
  const float* b;
  size_t taps, tap_stride;
  size_t rows, row_stride;
  size_t column_stride;
  bool in_lines = false;  // then there is one tap

  const float* column(size_t n) const {
    return b + (kPacksLines && in_lines ? line_offset(rows, n) : n * column_stride);
  }
  size_t step(size_t N, size_t n) const {
    return kPacksLines && in_lines ? line_width(N, n) : row_stride;
  }
};

// Where rows of a panel go one after another when taps pass fastest.
class PanelRows {
 public:
  PanelRows(const PackSource& s, float* out, size_t width) : s_(s), out_(out), width_(width) {}
  float* next() {
    float* row = out_ + (tap_ * s_.rows + row_) * width_;
    if (++tap_ == s_.taps) {
      tap_ = 0;
      ++row_;
    }
    return row;
  }

 private:
  const PackSource& s_;
  float* out_;
  size_t width_, tap_ = 0, row_ = 0;
};

// The same for one tap.
struct StraightRows {
  float* at;
  size_t width;
  float* next() {
    float* row = at;
    at += width;
    return row;
  }
};

// K rows of four neighbouring columns, each of which is contiguous, by 4x4 blocks transposed in
// registers.
template <class Rows>
ORTOLAN_INLINE void pack_four_columns(const float* b, size_t step, size_t K, Rows rows) {
  using Quad = Vec<float, 4>;
  size_t k = 0;
  for (; k + 4 <= K; k += 4) {
    const Quad c0 = load<Quad>(b + k), c1 = load<Quad>(b + step + k);
    const Quad c2 = load<Quad>(b + 2 * step + k), c3 = load<Quad>(b + 3 * step + k);
    const Quad low01 = __builtin_shufflevector(c0, c1, 0, 4, 1, 5);
    const Quad low23 = __builtin_shufflevector(c2, c3, 0, 4, 1, 5);
    const Quad high01 = __builtin_shufflevector(c0, c1, 2, 6, 3, 7);
    const Quad high23 = __builtin_shufflevector(c2, c3, 2, 6, 3, 7);
    store(rows.next(), __builtin_shufflevector(low01, low23, 0, 1, 4, 5));
    store(rows.next(), __builtin_shufflevector(low01, low23, 2, 3, 6, 7));
    store(rows.next(), __builtin_shufflevector(high01, high23, 0, 1, 4, 5));
    store(rows.next(), __builtin_shufflevector(high01, high23, 2, 3, 6, 7));
  }
  for (; k < K; ++k) {
    float* out = rows.next();
    for (size_t i = 0; i < 4; ++i) out[i] = b[i * step + k];
  }
}

// Where every part of a panel has all of the tile's columns: the first of them. A rest begins
// before its place, unless there are no more columns; what is missing then are zeros.
ORTOLAN_INLINE size_t first_column(size_t N, size_t place) {
  return N < kTileColumns ? 0 : min(place, N - kTileColumns);
}

ORTOLAN_INLINE void pack_part(const PackSource& s, size_t N, const Part& part, float* out) {
  if constexpr (kTiny) {
    const size_t first = first_column(N, part.column);
    const size_t width = line_width(round_up(N, kTileColumns), part.column);
    for (size_t tap = 0; tap < s.taps; ++tap)
      for (size_t r = 0; r < s.rows; ++r, out += width - kTileColumns)
        for (size_t n = first; n < first + kTileColumns; ++n)
          *out++ = n < N ? s.column(n)[tap * s.tap_stride + r * s.step(N, n)] : 0;
    return;
  }
  const size_t width = part.width(), before_last = width - part.lanes();
  const bool is_contiguous = s.row_stride == s.taps && (s.taps == 1 || s.tap_stride == 1);
  auto column = [&](size_t j) {
    return part.column + (j < before_last ? j : part.last + j - before_last);
  };
  if (kPacksLines && s.in_lines && (kLanes > kLineUnit || N % kLineUnit)) {
    for (size_t j = 0; j < width; ++j)
      for (size_t r = 0; r < s.rows; ++r)
        out[r * width + j] = column(j) < N ? s.column(column(j))[r * s.step(N, column(j))] : 0;
  } else if (kPacksLines && s.in_lines) {
    for (size_t j = 0; j < width; j += kLanes) {
      const float* from = s.column(column(j));
      const size_t step = s.step(N, column(j));
      for (size_t r = 0; r < s.rows; ++r, from += step) store(out + r * width + j, load<F>(from));
    }
  } else if (s.column_stride == 1 && N >= kLanes) {
    for (size_t tap = 0; tap < s.taps; ++tap)
      for (size_t r = 0; r < s.rows; ++r, out += width) {
        const float* b = s.b + tap * s.tap_stride + r * s.row_stride;
        if (kHasHalf && part.is_half)
          store(out, load<HalfF>(b + column(0)));
        else
          for (size_t j = 0; j < width; j += kLanes) store(out + j, load<F>(b + column(j)));
      }
  } else if (is_contiguous && N >= kLanes) {
    // With one tap in blocks of lines: all that is written of a block stays in the first cache.
    const size_t K = s.taps * s.rows, block = !kSmall && s.taps == 1 ? 16 : K;
    for (size_t k = 0; k < K; k += block)
      for (size_t j = 0; j < width; j += 4) {
        const float* b = s.b + column(j) * s.column_stride + k;
        if (block < K)
          pack_four_columns(b, s.column_stride, min(block, K - k),
                            StraightRows{out + k * width + j, width});
        else
          pack_four_columns(b, s.column_stride, K, PanelRows(s, out + j, width));
      }
  } else {
    for (size_t tap = 0; tap < s.taps; ++tap)
      for (size_t r = 0; r < s.rows; ++r)
        for (size_t j = 0; j < width; ++j) {
          const float* b = s.b + tap * s.tap_stride + r * s.row_stride;
          *out++ = column(j) < N ? b[column(j) * s.column_stride] : 0;
        }
  }
}

// Panels [panel0, panel1) of B into `out`, the whole packed buffer.
ORTOLAN_NOINLINE inline void pack_panels(const PackSource& s, size_t N, size_t panel0,
                                         size_t panel1, float* out) {
  if (s.taps * s.rows == 0) return;  // then there is no buffer either
  for (size_t p = panel0; p < min(panel1, panel_count(N)); ++p)
    for_each_part(N, p, [&](const Part& part) {
      pack_part(s, N, part, out + column_offset(0, s.taps * s.rows, part.column));
    });
}

// B[K][N] with any strides (row_stride 1 for a transposed B) into packed_size(N, K) floats.
ORTOLAN_INLINE void pack_b(const float* b, size_t row_stride, size_t column_stride, size_t K,
                           size_t N, float* out) {
  pack_panels({b, 1, 0, K, row_stride, column_stride}, N, 0, panel_count(N), out);
}

// A[M][K] with any strides (row_stride 1 for a transposed A) into M * K floats: lda is K then.
ORTOLAN_NOINLINE inline void pack_a(const float* a, size_t row_stride, size_t column_stride,
                                    size_t M, size_t K, float* out) {
  constexpr size_t kTile = 16;  // square tiles: lines of both sides are used while in cache
  for (size_t i0 = 0; i0 < M; i0 += kTile)
    for (size_t k0 = 0; k0 < K; k0 += kTile)
      for (size_t i = i0; i < min(M, i0 + kTile); ++i)
        for (size_t k = k0; k < min(K, k0 + kTile); ++k)
          out[i * K + k] = a[i * row_stride + k * column_stride];
}

constexpr int max_tile_rows() {
  int rows = 0;
  for (int r : kTileRows) rows = max(rows, r);
  return rows;
}

// Rows of each of the about equal blocks, of whole tiles, into which M rows are divided: nearly
// `limit`, or less where at least `blocks` are wanted.
ORTOLAN_INLINE size_t rows_per_block(size_t M, size_t limit, size_t blocks) {
  constexpr size_t kRows = kTileRows[kTileVectors];
  blocks = max(blocks, max<size_t>(1, (M + limit / 2) / limit));
  const size_t rows = (M + blocks - 1) / blocks;
  return max<size_t>(1, (rows + kRows - 1) / kRows) * kRows;
}

// Columns of a panel of the output, or of all.
ORTOLAN_INLINE TileOutput tile_output(const Epilogue& e, float* c, size_t ldc, size_t row,
                                      size_t column, ptrdiff_t last) {
  return {c + row * ldc + column,
          ldc,
          e.bias ? e.bias + column : nullptr,
          e.residual ? e.residual + row * e.ld_residual + column : nullptr,
          e.ld_residual,
          last,
          clamp_bounds(e)};
}

// Copies sums[rows][ld] into the first `columns` columns of an output, with residual and clamp.
ORTOLAN_NOINLINE inline void store_sums(const float* sums, size_t ld, size_t rows, size_t columns,
                                        const TileOutput& o) {
  for (size_t i = 0; i < rows; ++i)
    for (size_t n = 0; n < columns; ++n) {
      float v = sums[i * ld + n];
      if (o.residual) v += o.residual[i * o.ld_residual + n];
      o.c[i * o.ldc + n] = clamp(v, o.bounds.low, o.bounds.high);
    }
}

// The same where columns are less than V, whose sums are followed by others up to its lanes.
template <class V>
ORTOLAN_NOINLINE void store_narrow_sums(const float* sums, size_t rows, size_t columns,
                                        const TileOutput& o) {
  constexpr size_t kWidth = kLanesOf<V>;
  const V low = splat<V>(o.bounds.low), high = splat<V>(o.bounds.high);
  for (size_t i = 0; i < rows; ++i) {
    V v = load<V>(sums + i * kWidth);
    if (o.residual) v += load_part<V>(o.residual + i * o.ld_residual, columns);
    v = clamp_sums(v, low, high);
    // Whole vectors reach into rows that are written next.
    if (o.ldc == columns && (rows - i) * columns >= kWidth)
      store(o.c + i * o.ldc, v);
    else
      store_part(o.c + i * o.ldc, v, columns);
  }
}

// The tiles for a part of N columns of C, from the highest.
struct Tiles {
  const TileShape* shapes;
  bool is_narrow;  // N is less than their lanes: through a buffer
  bool is_half;
};
ORTOLAN_INLINE Tiles choose_tiles(size_t N, const Part& part, Reach reach) {
  const bool is_half = kHasHalf && part.is_half;
  return {is_half ? half_tile_shapes(reach) : tile_shapes(part.vectors, reach), N < part.lanes(),
          is_half};
}

// A tile of a matrix that is narrower than that: through a buffer.
ORTOLAN_NOINLINE inline void run_narrow_tile(const Tiles& tiles, const TileShape& shape,
                                             const TileInput& in, const TileOutput& out,
                                             size_t columns) {
  float sums[max_tile_rows() * kLanes], bias[kLanes] = {};
  if (out.bias)
    for (size_t n = 0; n < columns; ++n) bias[n] = out.bias[n];
  const size_t ld = tiles.is_half ? kHalfLanes : kLanes;
  shape.run(in, {sums, ld, bias, nullptr, 0, 0, {}});
  if constexpr (kSmall)
    store_sums(sums, kLanes, shape.rows, columns, out);
  else if (tiles.is_half)
    store_narrow_sums<HalfF>(sums, shape.rows, columns, out);
  else
    store_narrow_sums<F>(sums, shape.rows, columns, out);
}

// The one tile of small builds for the web: rows from `row` on of the `rows` of `in`, where there
// are less the last one again, times the columns at `b`. Few rows take as long as a whole tile
// does, whose sums hide each other's latency.
ORTOLAN_NOINLINE inline void tile_any(const TileInput& in, size_t row, size_t rows,
                                      const TileOutput& out) {
  constexpr int NV = kTileVectors, MR = kTileRows[NV];
  F acc[MR][NV];
  start_tile(acc, out);
  size_t at[MR];
#pragma unroll
  for (size_t i = 0; i < MR; ++i) at[i] = min(i, rows - row - 1);
  const float* b = in.b;
  const size_t row_step = rows_apart<F, NV>(in.line);
  for (size_t s = 0; s < in.segments; ++s) {
    const float* a[MR];
#pragma unroll
    for (int i = 0; i < MR; ++i) {
      const size_t r = row + at[i];
      a[i] = in.rows ? in.rows[s * in.row_stride + r] + in.offset : in.a + r * in.lda;
      opaque(a[i]);
    }
    for (size_t k = in.k; k; --k) {
      tile_step(acc, b, kLanes, [&](int i) { return *a[i]; });
#pragma unroll
      for (int i = 0; i < MR; ++i) {
        ++a[i];
        opaque(a[i]);
      }
      b += row_step;
      opaque(b);
    }
  }
  const F low = splat<F>(out.bounds.low), high = splat<F>(out.bounds.high);
#pragma unroll
  for (int i = 0; i < MR; ++i) {
    float* const c = out.c + at[i] * out.ldc;
    const float* const residual = out.residual + at[i] * out.ld_residual;
#pragma unroll
    for (int j = 0; j < NV; ++j) {
      if (out.residual) acc[i][j] += load<F>(residual + j * kLanes);
      store(c + j * kLanes, clamp_sums(acc[i][j], low, high));
    }
  }
}

// multiply_panel of these builds.
ORTOLAN_INLINE void multiply_panel_any(const TileInput& in, const Epilogue& e, float* c, size_t ldc,
                                       size_t row, size_t rows, size_t first, size_t N,
                                       size_t panel) {
  constexpr size_t kRows = kTileRows[kTileVectors];
  for_each_part(N, panel, [&](const Part& part) {
    const size_t column = first + first_column(N, part.column);
    TileInput tile_in = in;
    tile_in.b = in.b + column_offset(in.line, in.k * in.segments, part.column);
    tile_in.line = line_width(round_up(N, kTileColumns), part.column);
    float bias[kTileColumns] = {}, sums[kRows * kTileColumns];
    for (size_t n = 0; N < kTileColumns && e.bias && n < N; ++n) bias[n] = e.bias[column + n];
    for (size_t r = 0; r < rows; r += kRows) {
      const TileOutput out = tile_output(e, c, ldc, row + r, column, kTileColumns - kLanes);
      if (N < kTileColumns) {  // through a buffer
        tile_any(tile_in, r, rows,
                 {sums, kTileColumns, bias, nullptr, 0, kTileColumns - kLanes, {}});
        store_sums(sums, kTileColumns, min(rows - r, kRows), N, out);
      } else {
        tile_any(tile_in, r, rows, out);
      }
    }
  });
}

// Rows [row, row + rows) of C and of `in` times one panel, where the columns of B are columns
// [first, first + N) of C and of the epilogue.
ORTOLAN_NOINLINE inline void multiply_panel(const TileInput& in, const Epilogue& e, float* c,
                                            size_t ldc, size_t row, size_t rows, size_t first,
                                            size_t N, size_t panel) {
  const size_t begin = panel * kTileColumns;
  float* const written = c + row * ldc + first + begin;
  if constexpr (kTiny) {
    multiply_panel_any(in, e, c, ldc, row, rows, first, N, panel);
    return activation_pass(e, written, ldc, rows, panel_column(N, panel + 1) - begin);
  }
  constexpr size_t kSlice = kTileColumns < 16 ? kTileColumns : 16;  // a cache line
  const size_t K = in.k * in.segments;
  for_each_part(N, panel, [&](const Part& part) {
    const size_t width = part.width();
    TileInput tile_in = in;
    tile_in.b = in.b + column_offset(in.line, K, part.column);
    if (kHasPartOfLine && in.line) tile_in.line = line_width(N, part.column);
    Tiles tiles = choose_tiles(N, part, in.rows ? Reach::kIndirect : Reach::kDirect);
    // Rows 4096 bytes apart share one set of the first-level cache, which has 8 ways or a few more.
    const size_t apart = !in.rows ? in.lda : rows > 1 ? in.rows[1] - in.rows[0] : 1;
    if (tiles.shapes->rows > 8 && apart && apart % 1024 == 0) ++tiles.shapes;
    // All tiles together ask for the next panel, evenly: a burst of requests would wait in line.
    const size_t step = min(kSlice, width / max<size_t>(rows / tiles.shapes->rows, 1) + 1);
    tile_in.ahead = tile_in.b + width * K;
    tile_in.ahead_end = tile_in.ahead + width * K;
    tile_in.ahead_step = step;
    const size_t most = tiles.is_narrow ? 1 : rows;
    for_each_tile(tiles.shapes, rows, most, [&](size_t r, size_t count, const TileShape& shape) {
      if (in.rows)
        tile_in.rows = in.rows + r;
      else
        tile_in.a = in.a + r * in.lda;
      tile_in.tiles = count;
      const TileOutput out = tile_output(e, c, ldc, row + r, first + part.column, part.last);
      if (tiles.is_narrow)
        run_narrow_tile(tiles, shape, tile_in, out, N);
      else
        shape.run(tile_in, out);
      tile_in.ahead += count * step * K;
    });
  });
  activation_pass(e, written, ldc, rows, panel_column(N, panel + 1) - begin);
}

ORTOLAN_INLINE TileInput direct_input(const GemmArgs& g, size_t row) {
  TileInput in = {g.a + row * g.lda, g.lda, nullptr, 0, 1, 0, g.K, g.packed_b};
  in.line = line_of(g);
  return in;
}

// The lowest tile of more than one row. Below that, a row goes through several panels at once.
constexpr size_t few_rows() {
  int level = kTileHeights - 1;
  while (level && tile_rows(kTileVectors, level) == 1) --level;
  return tile_rows(kTileVectors, level);
}

// Lines so far from one another, in floats, meet in the same sets of the caches: fewer at a time.
constexpr size_t kCrowded = 1024;
constexpr int kFewPanels = max(1, kRowPanels / 2);

// Rows [row0, row1) of kRowPanels whole panels, every `apart`-th from `panel` on, or lines
// likewise.
ORTOLAN_NOINLINE inline void multiply_few_rows(const GemmArgs& g, size_t row0, size_t row1,
                                               size_t panel, size_t apart) {
  const size_t column = panel * kTileColumns, columns = apart * kTileColumns;
  for (size_t row = row0; row < row1; ++row) {
    const TileInput in = direct_input(g, row);
    const TileOutput out = tile_output(g.epilogue, g.c, g.ldc, row, column, kTileColumns - kLanes);
    if (!kHasLinePerVector || !in.line || in.line % kCrowded) {
      tile_row(in, column, columns, out);
      continue;
    }
    for (size_t p = 0; p < kRowPanels; p += kFewPanels)
      tile_row<kFewPanels>(in, column + p * columns, columns, move_columns(out, p * columns));
  }
  for (size_t p = 0; p < kRowPanels; ++p)
    activation_pass(g.epilogue, g.c + row0 * g.ldc + column + stream_column(line_of(g), columns, p),
                    g.ldc, row1 - row0, kTileColumns);
}

// Rows [row0, row1) of panels [panel0, panel1): what one thread of a static split computes.
ORTOLAN_NOINLINE inline void gemm_rows_panels(const GemmArgs& g, size_t row0, size_t row1,
                                              size_t panel0, size_t panel1) {
  if (!kTiny && row1 - row0 < few_rows()) {
    const size_t tiles = g.N / kTileColumns, rest = g.N % kTileColumns;
    const bool has_rest = (rest && rest < kLanes) || ends_narrow(g);
    const size_t whole = tiles && has_rest ? tiles - 1 : tiles;
    const size_t end = max(min(panel1, whole), panel0), together = streams_together(line_of(g));
    if (panel0 % together && panel0 < end) {  // within a line
      multiply_panel(direct_input(g, row0), g.epilogue, g.c, g.ldc, row0, row1 - row0, 0, g.N,
                     panel0);
      ++panel0;
    }
    const size_t each = (end - panel0) / kRowPanels;
    for (size_t i = 0; i < each; ++i) multiply_few_rows(g, row0, row1, panel0 + i * together, each);
    panel0 += each * kRowPanels;
  }
  const size_t limit = g.K > 1024 ? kBlockRows / 2 : kBlockRows;  // long rows fill the cache sooner
  const size_t block = rows_per_block(row1 - row0, limit, 1);
  for (size_t row = row0; row < row1; row += block)
    for (size_t p = panel0; p < panel1; ++p)
      multiply_panel(direct_input(g, row), g.epilogue, g.c, g.ldc, row, min(block, row1 - row), 0,
                     g.N, p);
}
ORTOLAN_INLINE void gemm(const GemmArgs& g) { gemm_rows_panels(g, 0, g.M, 0, panel_count(g.N)); }

// c[n] += sum over i < R of a[i] * b[i][n] for n in [begin, end), as far as whole vectors V reach;
// answers where it stopped. Sums stay one chain in ascending i.
template <class V, int R>
ORTOLAN_INLINE size_t add_rows(const float* a, const float* b, size_t ldb, size_t begin, size_t end,
                               float* c) {
  constexpr size_t kStep = kLanesOf<V>;
  V s[R];
#pragma unroll
  for (int i = 0; i < R; ++i) s[i] = splat<V>(a[i]);
  for (; begin + kStep <= end; begin += kStep) {
    V v = load<V>(c + begin);
#pragma unroll
    for (int i = 0; i < R; ++i) v = fma(load<V>(b + i * ldb + begin), s[i], v);
    store(c + begin, v);
  }
  return begin;
}
template <int R>
ORTOLAN_NOINLINE void add_rows_all(const float* a, const float* b, size_t ldb, size_t end,
                                   float* c) {
  using Quad = Vec<float, 4>;
  size_t n = add_rows<F, R>(a, b, ldb, 0, end, c);
  if constexpr (kLanes > 8) n = add_rows<Vec<float, 8>, R>(a, b, ldb, n, end, c);
  if constexpr (kLanes > 4) n = add_rows<Quad, R>(a, b, ldb, n, end, c);
  for (; n < end; ++n) {  // as a vector, because relaxed wasm has no scalar fma
    Quad v = splat<Quad>(c[n]);
#pragma unroll
    for (int i = 0; i < R; ++i) v = fma(splat<Quad>(b[i * ldb + n]), splat<Quad>(a[i]), v);
    c[n] = v[0];
  }
}

// Up to so many rows of A it is faster to read a B that is not packed yet in place.
constexpr size_t kPlainRows = 4;

// Columns [column0, column1) of C with B[K][ldb] in place (packed_b is not used), best for
// M <= kPlainRows: B streams through once, C stays in the first-level cache.
ORTOLAN_NOINLINE inline void gemm_plain(const GemmArgs& g, const float* b, size_t ldb,
                                        size_t column0, size_t column1) {
  constexpr size_t kColumns = 2048;
  constexpr size_t kDepth = 4;
  for (size_t n = column0; n < column1; n += kColumns) {
    const size_t columns = min(kColumns, column1 - n);
    for (size_t i = 0; i < g.M; ++i)
      for (size_t j = 0; j < columns; ++j)
        g.c[i * g.ldc + n + j] = g.epilogue.bias ? g.epilogue.bias[n + j] : 0;
    size_t k = 0;
    for (; k + kDepth <= g.K; k += kDepth)
      for (size_t i = 0; i < g.M; ++i)
        add_rows_all<kDepth>(g.a + i * g.lda + k, b + k * ldb + n, ldb, columns,
                             g.c + i * g.ldc + n);
    for (; k < g.K; ++k)
      for (size_t i = 0; i < g.M; ++i)
        add_rows_all<1>(g.a + i * g.lda + k, b + k * ldb + n, ldb, columns, g.c + i * g.ldc + n);
    store_sums(g.c + n, g.ldc, g.M, columns, tile_output(g.epilogue, g.c, g.ldc, 0, n, 0));
    activation_pass(g.epilogue, g.c + n, g.ldc, g.M, columns);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
