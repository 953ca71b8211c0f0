// Channels-last depthwise convolution (groups == channels == outputs) of any kernel, stride,
// dilation and padding. Vectors run over channels; several neighbouring output columns are
// computed at once, so that weights and inputs are loaded once for all of them. Groups of G
// channels and outputs, which a vector has whole, are the same with G partners in the place of a
// channel.
#pragma once

#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

// Columns of the tile of small builds, and its vectors of channels.
constexpr int kDepthwiseColumns = 2, kDepthwiseVectors = kTiny ? 2 : 1;
// Channels of a block of weights, and the fewest of a convolution that is not narrow.
constexpr size_t kDepthwiseChannels = kDepthwiseVectors * kLanes;

// Floats of packed weights: [blocks][taps][kDepthwiseChannels]. The last block overlaps the one
// before it. Less than one block is repeated: lane l holds channel l % channels.
ORTOLAN_INLINE size_t packed_depthwise_size(const ConvShape& s) {
  const size_t blocks = (s.channels + kDepthwiseChannels - 1) / kDepthwiseChannels;
  return blocks * s.window.taps() * kDepthwiseChannels;
}
// From ONNX order [channels][1][kernel...].
ORTOLAN_NOINLINE inline void pack_depthwise_weights(const ConvShape& s, const float* weights,
                                                    float* out) {
  const size_t taps = s.window.taps();
  constexpr size_t kWidth = kDepthwiseChannels;
  for (size_t block = 0; block < s.channels; block += kWidth) {
    const size_t first = s.channels < kWidth ? 0 : min(block, s.channels - kWidth);
    for (size_t tap = 0; tap < taps; ++tap)
      for (size_t c = first; c < first + kWidth; ++c) *out++ = weights[c % s.channels * taps + tap];
  }
}

template <class T, T... I>
struct Numbers {};
template <int N>
using NumbersTo = __make_integer_seq<Numbers, int, N>;
// Each lane's partner R: that of number lane ^ R, so that groups of 2^n lanes stay among
// themselves.
template <int R, int... I>
ORTOLAN_INLINE F swap_lanes(F v, Numbers<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ R)...);
}
template <int R>
ORTOLAN_INLINE F partners(F v) {
  if constexpr (R == 0) return v;
  return swap_lanes<R>(v, NumbersTo<kLanes>());
}

// Channels of a group, if there is a kernel for such groups; else 1.
ORTOLAN_INLINE size_t partner_count(const ConvShape& s, size_t lanes) {
  const size_t n = s.groups > 1 ? s.group_channels() : 1;
  const bool fits = !kSmall && n == s.group_outputs() && (n == 2 || n == 4 || n == 8);
  return fits && n <= lanes && s.channels >= lanes ? n : 1;
}

// Weights [outputs][n][kernel...] to n * packed_depthwise_size floats: of each block and kernel row
// [partners][taps of the row][kLanes].
ORTOLAN_NOINLINE inline void pack_partner_weights(const ConvShape& s, const float* weights,
                                                  float* out) {
  const size_t n = s.group_channels(), taps = s.window.taps(), row = s.window.kernel[2];
  for (size_t block = 0; block < s.channels; block += kLanes) {
    const size_t first = min(block, s.channels - kLanes);
    for (size_t ky = 0; ky < taps; ky += row)
      for (size_t r = 0; r < n; ++r)
        for (size_t kx = 0; kx < row; ++kx)
          for (size_t c = first; c < first + kLanes; ++c)
            *out++ = weights[(c * n + (c % n ^ r)) * taps + ky + kx];
  }
}

// A kernel row that meets the input.
struct DepthwiseRow {
  const float* x;    // input row, at column 0
  size_t first_tap;  // of the kernel row
};

// Some neighbouring columns of an output row. Offsets and steps are in floats.
struct DepthwiseTile {
  const DepthwiseRow* rows;
  size_t row_count;
  size_t channels;
  size_t taps;  // of the whole kernel
  size_t row_taps;
  size_t kx0, kx1;             // taps of a kernel row that meet the input, for the first column
  ptrdiff_t inside0, inside1;  // input columns that exist, counted from the first column's tap 0
  ptrdiff_t x;                 // from a row's column 0 to that tap
  size_t column_step;          // in the input, from one output column to the next
  size_t tap_step;
  const float* weights;
  float* y;  // [columns][channels]
  const float* bias;
  const float* residual;  // [columns][ld_residual]
  size_t ld_residual;
  Bounds bounds;
};

// Adds one kernel row to T columns. A kernel of KW undilated taps and stride S loads each input
// once for all of them; KW == 0 is any kernel, of which all columns use the taps [kx0, kx1).
// Channels in groups meet the kernel of their partner R.
template <int T, int S, int KW, int R = 0>
ORTOLAN_INLINE void add_kernel_row(F (&acc)[T], const DepthwiseTile& t, const float* x,
                                   const float* w) {
  if constexpr (KW == 0) {
#pragma clang loop unroll(disable)
    for (size_t kx = t.kx0; kx < t.kx1; ++kx) {
      const F weight = load<F>(w + kx * kLanes);
#pragma unroll
      for (int i = 0; i < T; ++i)
        acc[i] = fma(partners<R>(load<F>(x + kx * t.tap_step + i * t.column_step)), weight, acc[i]);
    }
  } else {
    F weight[KW];
#pragma unroll
    for (int kx = 0; kx < KW; ++kx) weight[kx] = load<F>(w + kx * kLanes);
#pragma unroll
    for (int column = 0; column < (T - 1) * S + KW; ++column) {
      if (column < t.inside0 || column >= t.inside1) continue;
      F in = partners<R>(load<F>(x + column * t.channels));
      pin(in);
#pragma unroll
      for (int kx = 0; kx < KW; ++kx) {
        const int i = column - kx;
        if (i >= 0 && i % S == 0 && i / S < T) acc[i / S] = fma(in, weight[kx], acc[i / S]);
      }
    }
  }
}

template <int T, int S, int KW, int G, int R = 0>
ORTOLAN_INLINE void add_partner_rows(F (&acc)[T], const DepthwiseTile& t, const float* x,
                                     const float* w) {
  add_kernel_row<T, S, KW, R>(acc, t, x, w);
  if constexpr (R + 1 < G) add_partner_rows<T, S, KW, G, R + 1>(acc, t, x, w + t.row_taps * kLanes);
}

// T columns of all channels, which are in groups of G.
template <int T, int S, int KW, int G = 1>
ORTOLAN_NOINLINE void depthwise_tile(const DepthwiseTile& tile) {
  const DepthwiseTile t = tile;  // a copy that stores cannot alias
  const F low = splat<F>(t.bounds.low), high = splat<F>(t.bounds.high);
  DepthwiseRow three[3] = {};
  // Unrolled, with its pointers in registers.
  const bool is_three = G == 1 && KW == 3 && t.row_count == 3;
  if (is_three)
    for (int r = 0; r < 3; ++r) three[r] = {t.rows[r].x + t.x, t.rows[r].first_tap * kLanes};
  const float* weights = t.weights;
  for (size_t next = 0; next < t.channels; next += kLanes, weights += t.taps * G * kLanes) {
    const size_t c = min(next, t.channels - kLanes);
    const F bias = t.bias ? load<F>(t.bias + c) : splat<F>(0);
    F acc[T];
#pragma unroll
    for (int i = 0; i < T; ++i) acc[i] = bias;
    if constexpr (G > 1) {
      for (size_t r = 0; r < t.row_count; ++r)
        add_partner_rows<T, S, KW, G>(acc, t, t.rows[r].x + t.x + c,
                                      weights + t.rows[r].first_tap * G * kLanes);
    } else if (is_three) {
#pragma unroll
      for (int r = 0; r < 3; ++r)
        add_kernel_row<T, S, KW>(acc, t, three[r].x + c, weights + three[r].first_tap);
    } else {
      for (size_t r = 0; r < t.row_count; ++r)
        add_kernel_row<T, S, KW>(acc, t, t.rows[r].x + t.x + c,
                                 weights + t.rows[r].first_tap * kLanes);
    }
    if (t.residual)
#pragma unroll
      for (int i = 0; i < T; ++i) acc[i] += load<F>(t.residual + i * t.ld_residual + c);
#pragma unroll
    for (int i = 0; i < T; ++i) store(t.y + i * t.channels + c, clamp_sums(acc[i], low, high));
  }
}

// The tile of small builds: up to T columns of any kernel, where less are wanted the last one
// again. All taps [kx0, kx1) of them meet the input.
ORTOLAN_NOINLINE inline void depthwise_columns(const DepthwiseTile& tile, size_t count) {
  constexpr int T = kDepthwiseColumns, V = kDepthwiseVectors;
  const DepthwiseTile t = tile;
  const F low = splat<F>(t.bounds.low), high = splat<F>(t.bounds.high);
  size_t at[T];
#pragma unroll
  for (size_t i = 0; i < T; ++i) at[i] = min(i, count - 1);
  const float* weights = t.weights;
  for (size_t next = 0; next < t.channels; next += V * kLanes, weights += t.taps * V * kLanes) {
    const size_t c = min(next, t.channels - V * kLanes);
    F acc[T][V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const F bias = t.bias ? load<F>(t.bias + c + j * kLanes) : splat<F>(0);
#pragma unroll
      for (int i = 0; i < T; ++i) acc[i][j] = bias;
    }
    for (size_t r = 0; r < t.row_count; ++r) {
      const float* x = t.rows[r].x + t.x + t.kx0 * t.tap_step + c;
      const float* w = weights + (t.rows[r].first_tap + t.kx0) * V * kLanes;
      for (size_t n = t.kx1 - t.kx0; n; --n, x += t.tap_step, w += V * kLanes)
#pragma unroll
        for (int i = 0; i < T; ++i)
#pragma unroll
          for (int j = 0; j < V; ++j)
            acc[i][j] = fma(load<F>(x + at[i] * t.column_step + j * kLanes),
                            load<F>(w + j * kLanes), acc[i][j]);
    }
#pragma unroll
    for (int i = 0; i < T; ++i)
#pragma unroll
      for (int j = 0; j < V; ++j) {
        if (t.residual) acc[i][j] += load<F>(t.residual + at[i] * t.ld_residual + c + j * kLanes);
        store(t.y + at[i] * t.channels + c + j * kLanes, clamp_sums(acc[i][j], low, high));
      }
  }
}

// Up to a whole vector of `count` floats. More than that is read or written if `room` allows it.
ORTOLAN_INLINE F load_some(const float* p, size_t count, ptrdiff_t room) {
  return count == kLanes || room >= kLanes ? load<F>(p) : load_part<F>(p, count);
}
ORTOLAN_INLINE void store_some(float* p, F v, size_t count, ptrdiff_t room) {
  if (count == kLanes || room >= kLanes)
    store(p, v);
  else
    store_part(p, v, count);
}

// Some neighbouring columns of less channels than a vector has, as one vector of `count` floats.
// Whole vectors are read before x_end and written before y_end: what is written too much belongs
// to columns that follow.
ORTOLAN_NOINLINE inline void depthwise_narrow(const DepthwiseTile& t, size_t count,
                                              const float* x_end, float* y_end) {
  float bias[kLanes];
  for (size_t i = 0; i < kLanes; ++i) bias[i] = t.bias ? t.bias[i % t.channels] : 0;
  F acc = load<F>(bias);
  for (size_t r = 0; r < t.row_count; ++r)
    for (size_t kx = t.kx0; kx < t.kx1; ++kx) {
      const float* x = t.rows[r].x + t.x + kx * t.tap_step;
      const F weight = load<F>(t.weights + (t.rows[r].first_tap + kx) * kDepthwiseChannels);
      acc = fma(load_some(x, count, x_end - x), weight, acc);
    }
  if (t.residual) acc += load_some(t.residual, count, 0);
  acc = clamp_sums(acc, splat<F>(t.bounds.low), splat<F>(t.bounds.high));
  store_some(t.y, acc, count, y_end - t.y);
}

// A tile's code, and its columns.
struct DepthwiseCode {
  void (*run)(const DepthwiseTile&);
  size_t columns;
};
template <int T, int S, int KW, int G = 1>
constexpr DepthwiseCode kDepthwiseCode = {depthwise_tile<T, S, KW, G>, T};

// What a line needs: for 3 dense taps of stride 1, for any, for a single column.
struct DepthwiseCodes {
  DepthwiseCode three, any, one;
};
constexpr int kWide = 7;  // what most images' sizes are multiples of
template <int G>
constexpr DepthwiseCodes kPartnerCodes = {
    kDepthwiseCode<kWide, 1, 3, G>, kDepthwiseCode<kWide, 0, 0, G>, kDepthwiseCode<1, 0, 0, G>};
constexpr bool kHasPartners = !kSmall && variants::kPartners.is_built;
// For groups of n channels; null for depthwise.
ORTOLAN_INLINE const DepthwiseCodes* partner_codes(size_t n) {
  if constexpr (!kHasPartners) return nullptr;
  if constexpr (kLanes >= 8)
    if (n == 8) return &kPartnerCodes<8>;
  return n == 4 ? &kPartnerCodes<4> : n == 2 ? &kPartnerCodes<2> : nullptr;
}

// Computes the output columns [begin, end) of one row; `rows` holds the kernel rows inside.
class DepthwiseLine {
 public:
  // `x_end` is behind the last input that may be read.
  DepthwiseLine(const ConvArgs& args, const DepthwiseRow* rows, size_t row_count, size_t line,
                const float* x_end, const DepthwiseCodes* codes = nullptr)
      : args_(args),
        window_(args.shape.window),
        line_(line * window_.out[2]),
        x_end_(x_end),
        codes_(codes) {
    const size_t C = args.shape.channels;
    tile_.rows = rows;
    tile_.row_count = row_count;
    tile_.channels = C;
    tile_.taps = window_.taps();
    tile_.row_taps = window_.kernel[2];
    tile_.column_step = window_.stride[2] * C;
    tile_.tap_step = window_.dilation[2] * C;
    tile_.weights = args.weights;
    tile_.bias = args.epilogue.bias;
    tile_.ld_residual = args.epilogue.ld_residual;
    tile_.bounds = clamp_bounds(args.epilogue);
  }

  void run(size_t begin, size_t end) {
    const size_t stride = window_.stride[2], kernel = window_.kernel[2];
    const bool dense = window_.dilation[2] == 1 && (stride == 1 || stride == 2);
    if (kHasPartners && codes_)
      dense&& kernel == 3 && stride == 1 ? columns(codes_->three, begin, end)
                                         : any_kernel(codes_->any, begin, end);
    else if (variants::kDepthwiseNarrow.is_built && args_.shape.channels < kLanes)
      narrow(begin, end);
    else if (kTiny)
      few(begin, end);
    else if (variants::kDepthwise3.is_built && dense && kernel == 3 && stride == 1)
      columns(kDepthwiseCode<4, 1, 3>, begin, end);
    else if (variants::kDepthwise3Stride2.is_built && dense && kernel == 3 && stride == 2)
      columns(kDepthwiseCode<4, 2, 3>, begin, end);
    else if (!kSmall && dense && kernel == 5)
      columns(stride == 1 ? kDepthwiseCode<4, 1, 5> : kDepthwiseCode<4, 2, 5>, begin, end);
    else if constexpr (!variants::kDepthwiseAny.is_built)
      single(begin, end);
    else
      any_kernel(kDepthwiseCode<4, 0, 0>, begin, end);
    const size_t C = args_.shape.channels;
    activation_pass(args_.epilogue, args_.y + (line_ + begin) * C, C, end - begin, C);
  }

 private:
  // Many columns at once; the last ones again where fewer are left.
  void columns(const DepthwiseCode& code, size_t begin, size_t end) {
    if (end - begin < code.columns) return single(begin, end);
    for (size_t x = begin; x < end; x += code.columns) {
      place(min(x, end - code.columns));
      code.run(tile_);
    }
  }

  void single(size_t begin, size_t end) {
    for (size_t x = begin; x < end; ++x) {
      place(x);
      (kHasPartners && codes_ ? codes_->one.run : depthwise_tile<1, 0, 0>)(tile_);
    }
  }

  void any_kernel(const DepthwiseCode& code, size_t begin, size_t end) {
    const size_t inner = min(end, max(begin, first_inner()));
    const size_t outer = max(inner, min(end, last_inner()));
    single(begin, inner);
    columns(code, inner, outer);
    single(outer, end);
  }

  // As many columns at once as all use the same taps.
  void few(size_t begin, size_t end) {
    const size_t inner = first_inner(), outer = last_inner();
    for (size_t x = begin, count; x < end; x += count) {
      const bool together = x >= inner && x < outer;
      count = together ? min<size_t>(kDepthwiseColumns, min(end, outer) - x) : 1;
      place(x);
      depthwise_columns(tile_, count);
    }
  }

  // With stride 1, neighbouring columns are neighbours in the input, too.
  void narrow(size_t begin, size_t end) {
    const size_t C = args_.shape.channels;
    const bool dense =
        window_.stride[2] == 1 && (!args_.epilogue.residual || tile_.ld_residual == C);
    const size_t inner = first_inner(), outer = last_inner();
    for (size_t x = begin, count; x < end; x += count) {
      const bool together = dense && x >= inner && x < outer;
      count = together ? min<size_t>(kLanes / C, min(end, outer) - x) : 1;
      place(x);
      depthwise_narrow(tile_, count * C, x_end_, args_.y + (line_ + end) * C);
    }
  }

  // Columns of which all taps of a kernel row meet the input.
  size_t first_inner() const {
    const ptrdiff_t pad = window_.pad[2], stride = window_.stride[2];
    return pad > 0 ? (pad + stride - 1) / stride : 0;
  }
  size_t last_inner() const {
    const ptrdiff_t reach = (window_.kernel[2] - 1) * window_.dilation[2];
    const ptrdiff_t slack = window_.in[2] + window_.pad[2] - reach - 1;
    return slack < 0 ? 0 : slack / window_.stride[2] + 1;
  }

  // Moves the tile to output column x.
  void place(size_t x) {
    const size_t C = args_.shape.channels;
    const TapRange taps = tap_range(window_, 2, x);
    tile_.kx0 = taps.begin;
    tile_.kx1 = taps.end;
    tile_.inside0 = -taps.start;
    tile_.inside1 = static_cast<ptrdiff_t>(window_.in[2]) - taps.start;
    tile_.x = taps.start * static_cast<ptrdiff_t>(C);
    tile_.y = args_.y + (line_ + x) * C;
    const float* residual = args_.epilogue.residual;
    tile_.residual = residual ? residual + (line_ + x) * tile_.ld_residual : nullptr;
  }

  const ConvArgs& args_;
  const Window& window_;
  size_t line_;  // output pixel at which the row begins
  const float* x_end_;
  const DepthwiseCodes* codes_;
  DepthwiseTile tile_ = {};
};

// Work units for a static split over threads: pieces of output rows.
constexpr size_t kDepthwiseSpan = 64;

ORTOLAN_INLINE size_t depthwise_spans(const ConvShape& s) {
  return (s.window.out[2] + kDepthwiseSpan - 1) / kDepthwiseSpan;
}
ORTOLAN_INLINE size_t depthwise_units(const ConvShape& s) {
  return s.batch * s.window.out[0] * s.window.out[1] * depthwise_spans(s);
}

// Bytes of scratch that each thread needs, aligned to 16.
ORTOLAN_INLINE size_t depthwise_scratch_size(const ConvShape& s) {
  return s.window.kernel[0] * s.window.kernel[1] * sizeof(DepthwiseRow);
}

// The kernel rows that meet the input for an output row, which counts through batch and depth.
ORTOLAN_INLINE size_t find_kernel_rows(const ConvArgs& args, size_t line, DepthwiseRow* rows) {
  const Window& w = args.shape.window;
  const size_t batch = line / w.out[1] / w.out[0], row_floats = w.in[2] * args.shape.channels;
  const TapRange z = tap_range(w, 0, line / w.out[1] % w.out[0]);
  const TapRange y = tap_range(w, 1, line % w.out[1]);
  size_t count = 0;
  for (size_t kz = z.begin; kz < z.end; ++kz)
    for (size_t ky = y.begin; ky < y.end; ++ky) {
      const size_t iz = z.start + kz * w.dilation[0], iy = y.start + ky * w.dilation[1];
      const float* x = args.x + ((batch * w.in[0] + iz) * w.in[1] + iy) * row_floats;
      rows[count++] = {x, (kz * w.kernel[1] + ky) * w.kernel[2]};
    }
  return count;
}

// Units [begin, end), with depthwise_scratch_size bytes of scratch of this thread's own.
// args.weights are by pack_depthwise_weights, or pack_partner_weights where there are `codes`.
ORTOLAN_NOINLINE inline void depthwise_run_units(const ConvArgs& args, size_t begin, size_t end,
                                                 void* scratch,
                                                 const DepthwiseCodes* codes = nullptr) {
  const size_t spans = depthwise_spans(args.shape), width = args.shape.window.out[2];
  DepthwiseRow* rows = static_cast<DepthwiseRow*>(scratch);
  const float* x_end =
      args.x + args.shape.batch * args.shape.window.in_pixels() * args.shape.channels;
  for (size_t unit = begin; unit < end; ++unit) {
    const size_t line = unit / spans, x = unit % spans * kDepthwiseSpan;
    const size_t row_count = find_kernel_rows(args, line, rows);
    DepthwiseLine(args, rows, row_count, line, x_end, codes).run(x, min(width, x + kDepthwiseSpan));
  }
}

}  // namespace ortolan::ORTOLAN_ISA
