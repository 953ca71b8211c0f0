// Channels-last convolution of stride 1 by Winograd's F(2x2, 3x3), F(4x4, 3x3) and F(4x4, 5x5):
// input tiles of 4, 6 or 8 pixels a side overlap, become 16, 36 or 64 matrices, are multiplied with
// weights that were transformed at load, and become tiles of 2 or 4 pixels a side: 2.25, 4 or 6.25
// times less multiplications, for 1.8, 4 or 2.6 times the weights. A NaN or an infinity spreads
// over its tile.
#pragma once

#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

// One dimension's transforms. Forms: 2 and 4 are the outputs of kernels of 3, 5 is the kernel whose
// outputs are 4.
template <int form>
struct Winograd;

template <>
struct Winograd<2> {
  static constexpr int kIn = 4, kOut = 2, kTaps = 3;
  ORTOLAN_INLINE static void weights(const F (&g)[3], F (&t)[4]) {
    const F sum = (g[0] + g[2]) * splat<F>(0.5f), middle = g[1] * splat<F>(0.5f);
    t[0] = g[0], t[1] = sum + middle, t[2] = sum - middle, t[3] = g[2];
  }
  ORTOLAN_INLINE static void input(const F (&d)[4], F (&t)[4]) {
    t[0] = d[0] - d[2], t[1] = d[1] + d[2], t[2] = d[2] - d[1], t[3] = d[1] - d[3];
  }
  ORTOLAN_INLINE static void output(const F (&d)[4], F (&y)[2]) {
    y[0] = d[0] + (d[1] + d[2]), y[1] = (d[1] - d[2]) - d[3];
  }
};

template <>
struct Winograd<4> {  // points 0, 1, -1, 2, -2, infinity
  static constexpr int kIn = 6, kOut = 4, kTaps = 3;
  ORTOLAN_INLINE static void weights(const F (&g)[3], F (&t)[6]) {
    const F sixth = splat<F>(-1 / 6.f), part = splat<F>(1 / 24.f);
    const F sum = (g[0] + g[2]) * sixth, middle = g[1] * sixth;
    const F wide = fma(g[2], splat<F>(4), g[0]) * part, middle_wide = g[1] * splat<F>(1 / 12.f);
    t[0] = g[0] * splat<F>(0.25f), t[1] = sum + middle, t[2] = sum - middle;
    t[3] = wide + middle_wide, t[4] = wide - middle_wide, t[5] = g[2];
  }
  ORTOLAN_INLINE static void input(const F (&d)[6], F (&t)[6]) {
    const F four = splat<F>(4), minus_four = splat<F>(-4), minus_five = splat<F>(-5);
    const F a = fma(minus_four, d[2], d[4]), b = fma(minus_four, d[1], d[3]);
    const F c = d[4] - d[2], e = d[3] - d[1], twice = e + e;
    t[0] = fma(four, d[0], fma(minus_five, d[2], d[4]));
    t[1] = a + b, t[2] = a - b, t[3] = c + twice, t[4] = c - twice;
    t[5] = fma(four, d[1], fma(minus_five, d[3], d[5]));
  }
  ORTOLAN_INLINE static void output(const F (&d)[6], F (&y)[4]) {
    const F a = d[1] + d[2], b = d[1] - d[2], c = d[3] + d[4], e = d[3] - d[4];
    y[0] = d[0] + a + c, y[1] = fma(splat<F>(2), e, b);
    y[2] = fma(splat<F>(4), c, a), y[3] = fma(splat<F>(8), e, b) + d[5];
  }
};

template <>
struct Winograd<5> {  // points 0, 1, -1, 2, -2, 1/2, -1/2, infinity
  static constexpr int kIn = 8, kOut = 4, kTaps = 5;
  ORTOLAN_INLINE static void weights(const F (&g)[5], F (&t)[8]) {
    const F part = splat<F>(-2 / 9.f), wide = splat<F>(1 / 90.f), narrow = splat<F>(4 / 45.f);
    const F two = splat<F>(2), four = splat<F>(4), half = splat<F>(0.5f), quarter = half * half;
    const F a = (g[0] + g[2] + g[4]) * part, b = (g[1] + g[3]) * part;
    const F c = fma(fma(four, g[4], g[2]), four, g[0]) * wide;
    const F d = fma(four, g[3], g[1]) * two * wide;
    const F e = fma(fma(quarter, g[4], g[2]), quarter, g[0]) * narrow;
    const F f = fma(quarter, g[3], g[1]) * half * narrow;
    t[0] = g[0], t[1] = a + b, t[2] = a - b, t[3] = c + d, t[4] = c - d;
    t[5] = e + f, t[6] = e - f, t[7] = g[4];
  }
  ORTOLAN_INLINE static void input(const F (&d)[8], F (&t)[8]) {
    const F far = splat<F>(5.25f), near = splat<F>(-4.25f), four = splat<F>(4), two = splat<F>(2);
    const F half = splat<F>(0.5f), less = splat<F>(-1.25f), middle = splat<F>(-2.5f);
    t[0] = fma(far, d[4] - d[2], d[0] - d[6]), t[7] = fma(far, d[3] - d[5], d[7] - d[1]);
    const F a = fma(near, d[4], d[2] + d[6]), b = fma(near, d[3], d[1] + d[5]);
    t[1] = a + b, t[2] = a - b;
    const F c = fma(splat<F>(0.25f), d[2], fma(less, d[4], d[6]));
    const F e = fma(half, d[1], fma(middle, d[3], two * d[5]));
    t[3] = c + e, t[4] = c - e;
    const F f = fma(four, fma(less, d[4], d[2]), d[6]);
    const F g = fma(two, d[1], fma(middle, d[3], half * d[5]));
    t[5] = f + g, t[6] = f - g;
  }
  ORTOLAN_INLINE static void output(const F (&d)[8], F (&y)[4]) {
    const F two = splat<F>(2), four = splat<F>(4), eight = splat<F>(8);
    const F a = d[1] + d[2], b = d[1] - d[2], c = d[3] + d[4], e = d[3] - d[4];
    const F f = d[5] + d[6], g = d[5] - d[6];
    y[0] = fma(eight, f, d[0] + a + c), y[1] = fma(four, g, fma(two, e, b));
    y[2] = fma(two, f, fma(four, c, a)), y[3] = fma(eight, e, b) + g + d[7];
  }
};

// Calls body with a Winograd<form>.
template <class Body>
ORTOLAN_INLINE auto with_form(int form, Body body) {
  return form == 2 ? body(Winograd<2>{}) : form == 4 ? body(Winograd<4>{}) : body(Winograd<5>{});
}
constexpr size_t winograd_matrices(int form) { return form == 2 ? 16 : form == 4 ? 36 : 64; }
constexpr size_t winograd_side(int form) { return form == 2 ? 2 : 4; }

// Channels as the matrices have them: a vector at least, whose rest is not multiplied.
ORTOLAN_INLINE size_t whole_vector(size_t channels) {
  return max(channels, static_cast<size_t>(kLanes));
}
// Whether tiles can be read and written so: half a vector is worth it, and comes by fours.
constexpr bool fits_tiles(size_t channels, size_t lanes) {
  return channels >= lanes || (lanes > 4 && 2 * channels >= lanes && channels % 4 == 0);
}

// The form that takes least time for images of out pixels: 0 for the direct convolution. In halves
// of vectors of multiply-adds; weights that are used for few rows cost what they take to arrive.
// The transformed ones are a copy, which memory has to hold and each run to read: where they are
// more than a cache keeps, a byte of them has to save kWorth multiply-adds.
ORTOLAN_INLINE int choose_winograd(const ConvShape& s) {
  constexpr size_t kFewRows = max(24, 2 * kLanes);
  constexpr size_t kTileCost = 8;  // of short products: to begin and to end a vector of sums
  const size_t outputs = vectors_of(s.outputs), halves = packed_size(s.outputs, 1) * 2 / kLanes;
  const size_t direct = s.window.taps() * s.channels * halves * max(s.rows(), kFewRows);
  constexpr size_t kWorth = 6, kKept = 256 * 1024;
  size_t best = direct;
  int found = 0;
  constexpr int kForms[] = {2, 4, 5};
  for (int form : kForms) {
    if ((form == 5) != (s.window.kernel[2] == 5)) continue;
    const size_t side = winograd_side(form);
    const size_t tiles =
        s.batch * ((s.window.out[1] + side - 1) / side) * ((s.window.out[2] + side - 1) / side);
    const size_t pass = winograd_matrices(form) * (vectors_of(s.channels) * 8 + outputs * 6);
    const size_t cost =
        winograd_matrices(form) * halves * (s.channels + kTileCost) * max(tiles, kFewRows) +
        2 * tiles * pass;
    if (cost >= best) continue;
    const size_t bytes = winograd_matrices(form) * s.channels * s.outputs * sizeof(float);
    if (bytes <= kKept || (direct - cost) * kLanes / 2 > bytes * kWorth) best = cost, found = form;
  }
  return found;
}

// Floats from one packed matrix of weights to the next: not a multiple of 4096 bytes, or what a
// transformation writes would share one set of the cache.
ORTOLAN_INLINE size_t weights_plane(const ConvShape& s) {
  return round_up(packed_size(s.outputs, s.channels), 16) + 16;
}

// Floats of transformed and packed weights.
ORTOLAN_INLINE size_t winograd_weights_size(const ConvShape& s, int form) {
  return winograd_matrices(form) * weights_plane(s);
}

// `columns` columns from `column` on, at most a vector, or half of one, of weights
// [outputs][channels][taps][taps], or such in the common form, for all channels: matrices of `out`
// are `plane` floats apart, rows `width`.
template <class W>
ORTOLAN_NOINLINE void transform_weights(const ConvShape& s, const float* weights, bool in_lines,
                                        size_t column, int columns, bool is_half, float* out,
                                        size_t plane, size_t width) {
  constexpr int A = W::kIn, R = W::kTaps;
  constexpr size_t kTaps = R * R,
                   kBlock = 4;  // channels whose taps are turned into vectors together
  const size_t step = s.channels * kTaps;
  float turned[kBlock * kTaps * kLanes] = {};
  for (size_t c = 0; c < s.channels; ++c, out += width) {
    const size_t some = c % kBlock ? 0 : min(kBlock, s.channels - c);
    for (int l = 0; some && l < columns; l += 4) {
      const TapWeights from = {s, weights, in_lines, column + static_cast<size_t>(l)};
      if (!in_lines)
        pack_four_columns(from.at(0, c), step, some * kTaps, StraightRows{turned + l, kLanes});
      for (size_t i = 0; in_lines && i < some * kTaps; ++i)
        store(turned + i * kLanes + l, load<Vec<float, 4>>(from.at(i % kTaps, c + i / kTaps)));
    }
    const float* taps = turned + c % kBlock * kTaps * kLanes;
    F t[A][R];
#pragma nounroll
    for (int x = 0; x < R; ++x) {
      F r[A], g[R];
#pragma unroll
      for (int i = 0; i < R; ++i) g[i] = load<F>(taps + (i * R + x) * kLanes);
      W::weights(g, r);
      for (int i = 0; i < A; ++i) t[i][x] = r[i];
    }
#pragma nounroll
    for (int i = 0; i < A; ++i) {
      F r[A];
      W::weights(t[i], r);
      for (int j = 0; j < A; ++j) {
        float* to = out + (i * A + j) * plane;
        if (kHasHalf && is_half)
          store(to, r[j].lo);
        else
          stream(to, r[j]);
      }
    }
  }
}

// ONNX weights, or such in the common form, to winograd_weights_size floats: a packed matrix
// [channels][outputs] after another.
ORTOLAN_NOINLINE inline void pack_winograd_weights(const ConvShape& s, int form,
                                                   const float* weights, bool in_lines,
                                                   float* out) {
  const size_t plane = weights_plane(s);
  for (size_t p = 0; p < panel_count(s.outputs); ++p)
    for_each_part(s.outputs, p, [&](const Part& part) {
      for (size_t v = 0; v < part.vectors; ++v) {
        const size_t at = v + 1 == part.vectors ? part.last : v * kLanes;
        const int columns = static_cast<int>(min(s.outputs, part.lanes()));
        float* to = out + part.column * s.channels + v * kLanes;
        with_form(form, [&](auto w) {
          transform_weights<decltype(w)>(s, weights, in_lines, part.column + at, columns,
                                         part.is_half, to, plane, part.width());
        });
      }
    });
  end_stream();
}

struct WinogradPlan {
  size_t across, down;  // tiles of an image
  size_t tiles;         // of all images
  size_t block;         // tiles of a work unit
  size_t blocks;
  size_t pieces;            // of the panels of a block, so that there are enough units
  size_t v_plane, s_plane;  // floats from matrix to matrix
};

ORTOLAN_INLINE WinogradPlan plan_winograd(const ConvShape& s, int form, size_t threads) {
  constexpr size_t kBlockFloats = 192 * 1024;  // of both sides' matrices: they stay in the cache
  const size_t side = winograd_side(form), matrices = winograd_matrices(form);
  const size_t ins = whole_vector(s.channels), outs = whole_vector(s.outputs);
  WinogradPlan p;
  p.across = (s.window.out[2] + side - 1) / side;
  p.down = (s.window.out[1] + side - 1) / side;
  p.tiles = s.batch * p.across * p.down;
  const size_t fits = kBlockFloats / (matrices * (ins + outs));
  // A block for each thread if that leaves it a tile of rows, else panels of blocks: each piece
  // reads all of its block.
  const size_t least = p.tiles >= threads * kTileRows[kTileVectors] ? threads : 1;
  p.block = rows_per_block(p.tiles, max<size_t>(fits, 28), least);
  p.blocks = (p.tiles + p.block - 1) / p.block;
  const size_t pieces = p.blocks % threads == 0 ? 1
                        : p.blocks > threads    ? 2
                                                : (threads + p.blocks - 1) / p.blocks;
  p.pieces = min(pieces, panel_count(s.outputs));
  // Not a multiple of 4096 bytes, or all matrices would share one set of the cache.
  p.v_plane = p.block * ins + 16;
  p.s_plane = p.block * outs + 16;
  return p;
}

// Bytes of scratch that each thread needs.
ORTOLAN_INLINE size_t winograd_scratch_size(const ConvShape& s, int form) {
  const WinogradPlan p = plan_winograd(s, form, 1);
  const size_t patch = winograd_matrices(form) * s.channels + kLanes;
  return (winograd_matrices(form) * (p.v_plane + p.s_plane) + patch) * sizeof(float);
}

// One tile of the input, at x with rows of ldx floats, to a row of each matrix. Of less channels
// than a vector, what follows a pixel is read with it.
template <class W>
ORTOLAN_NOINLINE void winograd_input(const float* x, size_t ldx, size_t channels, float* v,
                                     size_t plane) {
  constexpr int A = W::kIn;
  const size_t last = channels < kLanes ? 0 : channels - kLanes;
  for (size_t next = 0; next < channels; next += kLanes) {
    const size_t c = min(next, last);
    F t[A][A];
#pragma nounroll
    for (int j = 0; j < A; ++j) {
      F d[A], r[A];
#pragma unroll
      for (int i = 0; i < A; ++i) d[i] = load<F>(x + i * ldx + j * channels + c);
      W::input(d, r);
#pragma unroll
      for (int i = 0; i < A; ++i) t[i][j] = r[i];
    }
#pragma nounroll
    for (int i = 0; i < A; ++i) {
      F r[A];
      W::input(t[i], r);
#pragma unroll
      for (int j = 0; j < A; ++j) store(v + (i * A + j) * plane + c, r[j]);
    }
  }
}

// Where a tile of the output goes, at its first pixel; `h` by `w` pixels are inside.
struct WinogradTile {
  float* y;
  const float* residual;
  size_t ldy, ld_residual;  // from row to row; from pixel to pixel of the residual
  size_t h, w;
};

// Columns [begin, end) of a row of each matrix to a tile of the output; `narrow`: all, less than a
// vector.
template <class W, bool narrow>
ORTOLAN_NOINLINE void winograd_output(const float* s, size_t plane, size_t begin, size_t end,
                                      const ConvArgs& args, const WinogradTile& o) {
  constexpr int A = W::kIn, m = W::kOut;
  const size_t N = args.shape.outputs + args.gap, lanes = narrow ? args.shape.outputs : kLanes,
               row_residual = args.shape.window.out[2] * o.ld_residual;
  const Bounds bounds = clamp_bounds(args.epilogue);
  const F low = splat<F>(bounds.low), high = splat<F>(bounds.high);
  for (size_t next = begin; next < end; next += kLanes) {
    const size_t c = min(next, end - lanes);
    const F bias = args.epilogue.bias ? load_lanes<F>(args.epilogue.bias + c, lanes, 0) : F{};
    F t[m][A];
#pragma nounroll
    for (int j = 0; j < A; ++j) {
      F d[A], r[m];
#pragma unroll
      for (int i = 0; i < A; ++i) d[i] = load<F>(s + (i * A + j) * plane + c);
      W::output(d, r);
#pragma unroll
      for (int i = 0; i < m; ++i) t[i][j] = r[i];
    }
#pragma nounroll
    for (size_t i = 0; i < o.h; ++i) {
      F r[m];
      W::output(t[i], r);
      auto finish = [&](size_t j) {
        F sum = r[j] + bias;
        if (o.residual)
          sum += load_lanes<F>(o.residual + i * row_residual + j * o.ld_residual + c, lanes, 0);
        store_lanes(o.y + i * o.ldy + j * N + c, clamp_sums(sum, low, high), lanes);
      };
      if constexpr (narrow) {
#pragma nounroll
        for (size_t j = 0; j < o.w; ++j) finish(j);
      } else {
#pragma unroll
        for (size_t j = 0; j < m; ++j) {
          if (j >= o.w) break;
          finish(j);
        }
      }
    }
  }
}

// Pixels [y, y + A) x [x, x + A) of an image into patch[A][A][channels], zeros outside.
ORTOLAN_NOINLINE inline void copy_patch(const float* image, const ConvShape& s, ptrdiff_t y,
                                        ptrdiff_t x, size_t A, float* patch) {
  const size_t height = s.window.in[1], width = s.window.in[2], bytes = s.channels * sizeof(float);
  for (size_t i = 0; i < A; ++i)
    for (size_t j = 0; j < A; ++j, patch += s.channels) {
      const size_t row = y + i, column = x + j;  // negative wraps to large
      if (row < height && column < width)
        copy(patch, image + (row * width + column) * s.channels, bytes);
      else
        fill_zero(patch, bytes);
    }
}

// The tiles of a block, between matrices and images.
template <class W>
class WinogradBlock {
  static constexpr int m = W::kOut;
  static constexpr size_t A = W::kIn, kMatrices = A * A;

 public:
  WinogradBlock(const ConvArgs& args, const WinogradPlan& plan, float* scratch)
      : args_(args),
        plan_(plan),
        v_(scratch),
        s_(v_ + kMatrices * plan.v_plane),
        patch_(s_ + kMatrices * plan.s_plane) {}

  // Tiles [first, first + count), panels [panel0, panel1).
  void run(size_t first, size_t count, size_t panel0, size_t panel1) {
    const ConvShape& s = args_.shape;
    const size_t ins = whole_vector(s.channels), outs = whole_vector(s.outputs);
    for (size_t i = 0; i < count; ++i) read(first + i, v_ + i * ins);
    const size_t weights = weights_plane(s);
    const size_t N = fits_half(s.outputs) ? s.outputs : outs;
    GemmArgs g = {count, N, s.channels, v_, ins, args_.weights, s_, outs, {}};
    for (size_t q = 0; q < kMatrices; ++q) {
      gemm_rows_panels(g, 0, count, panel0, panel1);
      g.a += plan_.v_plane, g.packed_b += weights, g.c += plan_.s_plane;
    }
    const size_t begin = panel_column(s.outputs, panel0), end = panel_column(s.outputs, panel1);
    for (size_t i = 0; i < count; ++i) write(first + i, s_ + i * outs, begin, end);
  }

 private:
  struct Place {
    size_t image, y, x;  // of the first output pixel
  };
  Place place(size_t tile) const {
    const size_t row = tile / plan_.across;
    return {row / plan_.down, row % plan_.down * m, tile % plan_.across * m};
  }

  void read(size_t tile, float* v) {
    const ConvShape& s = args_.shape;
    const Window& w = s.window;
    const Place at = place(tile);
    const ptrdiff_t y = at.y - w.pad[1], x = at.x - w.pad[2];
    const float* image = args_.x + at.image * w.in_pixels() * s.channels;
    const float* from = patch_;
    size_t ldx = A * s.channels;
    // The last pixel of all has nothing behind it.
    const bool is_last = s.channels < kLanes && y + A == w.in[1] && x + A == w.in[2];
    if (y < 0 || x < 0 || y + A > w.in[1] || x + A > w.in[2] || is_last) {
      copy_patch(image, s, y, x, A, patch_);
    } else {
      from = image + (y * w.in[2] + x) * s.channels;
      ldx = w.in[2] * s.channels;
    }
    winograd_input<W>(from, ldx, s.channels, v, plan_.v_plane);
  }

  void write(size_t tile, const float* sums, size_t begin, size_t end) {
    const Window& w = args_.shape.window;
    const Epilogue& e = args_.epilogue;
    const size_t N = args_.shape.outputs + args_.gap;
    const Place at = place(tile);
    const size_t pixel = (at.image * w.out[1] + at.y) * w.out[2] + at.x;
    const WinogradTile o = {args_.y + pixel * N,
                            e.residual ? e.residual + pixel * e.ld_residual : nullptr,
                            w.out[2] * N,
                            e.ld_residual,
                            min<size_t>(m, w.out[1] - at.y),
                            min<size_t>(m, w.out[2] - at.x)};
    if (kLanes > 4 && args_.shape.outputs < kLanes)
      winograd_output<W, kLanes != 4>(sums, plan_.s_plane, begin, end, args_, o);
    else
      winograd_output<W, false>(sums, plan_.s_plane, begin, end, args_, o);
    for (size_t i = 0; i < o.h; ++i)
      activation_pass(e, o.y + i * o.ldy + begin, N, o.w, end - begin);
  }

  const ConvArgs& args_;
  const WinogradPlan& plan_;
  float *v_, *s_, *patch_;
};

template <class W>
ORTOLAN_NOINLINE void winograd_blocks(const ConvArgs& args, const WinogradPlan& plan, size_t begin,
                                      size_t end, float* scratch) {
  WinogradBlock<W> block(args, plan, scratch);
  const size_t panels = panel_count(args.shape.outputs);
  for (size_t unit = begin; unit < end; ++unit) {
    const size_t first = unit / plan.pieces * plan.block, piece = unit % plan.pieces;
    block.run(first, min(plan.block, plan.tiles - first), panels * piece / plan.pieces,
              panels * (piece + 1) / plan.pieces);
  }
}

// Work units for a static split over threads.
ORTOLAN_INLINE size_t winograd_units(const ConvShape& s, int form, size_t threads) {
  const WinogradPlan plan = plan_winograd(s, form, threads);
  return plan.blocks * plan.pieces;
}

// Units [begin, end), with winograd_scratch_size bytes of scratch of this thread's own.
// args.weights are by pack_winograd_weights.
ORTOLAN_INLINE void winograd_run_units(const ConvArgs& args, int form, size_t threads, size_t begin,
                                       size_t end, void* scratch) {
  const WinogradPlan plan = plan_winograd(args.shape, form, threads);
  with_form(form, [&](auto w) {
    winograd_blocks<decltype(w)>(args, plan, begin, end, static_cast<float*>(scratch));
  });
}

}  // namespace ortolan::ORTOLAN_ISA
