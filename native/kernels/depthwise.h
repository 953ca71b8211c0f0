// Channels-last depthwise convolution (groups == channels == outputs) of any kernel, stride,
// dilation and padding. Vectors run over channels; several neighbouring output columns are
// computed at once, so that weights and inputs are loaded once for all of them.
#pragma once

#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

// Floats of packed weights: [channels / kLanes][taps][kLanes]. The last block overlaps the one
// before it, or is padded where there is less than one.
ORTOLAN_INLINE size_t packed_depthwise_size(const ConvShape& s) {
  return vectors_of(s.channels) * s.window.taps() * kLanes;
}
// From ONNX order [channels][1][kernel...].
ORTOLAN_NOINLINE inline void pack_depthwise_weights(const ConvShape& s, const float* weights,
                                                    float* out) {
  const size_t taps = s.window.taps();
  for (size_t block = 0; block < s.channels; block += kLanes) {
    const size_t first = s.channels < kLanes ? 0 : min(block, s.channels - kLanes);
    for (size_t tap = 0; tap < taps; ++tap)
      for (size_t c = first; c < first + kLanes; ++c)
        *out++ = c < s.channels ? weights[c * taps + tap] : 0;
  }
}

#ifndef KCH
#define KCH 1000
#define TT 4
#endif
constexpr size_t kDepthwiseChannels = KCH * kLanes;

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
  size_t first, last;  // channels to compute; first is a multiple of kLanes
  size_t taps;         // of the whole kernel
  size_t kx0, kx1;     // taps of a kernel row that meet the input
  int column0, column1;  // input columns that exist, from tap 0 of the first output column
  ptrdiff_t x;         // from a row's column 0 to tap 0 of the first output column
  size_t column_step;  // in the input, from one output column to the next
  size_t tap_step;
  const float* weights;
  float* y;  // [columns][channels]
  const float* bias;
  const float* residual;  // [columns][ld_residual]
  size_t ld_residual;
  Bounds bounds;
};

// Loads and stores of one vector of channels, of which `count` exist.
template <bool kNarrow>
ORTOLAN_INLINE F load_channels(const float* p, size_t count) {
  if constexpr (kNarrow) return load_part<F>(p, count);
  return load<F>(p);
}

// Adds one kernel row to T columns. A known width KW with undilated taps and stride S loads each
// input only once; otherwise (KW == 0) any taps [kx0, kx1).
template <int T, int S, int KW, bool kNarrow>
ORTOLAN_INLINE void add_kernel_row(F (&acc)[T], const DepthwiseTile& t, const float* x,
                                   const float* w) {
  if constexpr (KW == 0) {
    for (size_t kx = t.kx0; kx < t.kx1; ++kx) {
      const F weight = load<F>(w + kx * kLanes);
#pragma unroll
      for (int i = 0; i < T; ++i) {
        const float* p = x + kx * t.tap_step + i * t.column_step;
        acc[i] = fma(load_channels<kNarrow>(p, t.channels), weight, acc[i]);
      }
    }
  } else {
    F weight[KW];
#pragma unroll
    for (int kx = 0; kx < KW; ++kx) weight[kx] = load<F>(w + kx * kLanes);
#pragma unroll
    for (int column = 0; column < (T - 1) * S + KW; ++column) {
      if (column < t.column0 || column >= t.column1) continue;
      F in = load<F>(x + column * t.channels);
      pin(in);
#pragma unroll
      for (int kx = 0; kx < KW; ++kx) {
        const int i = column - kx;
        if (i >= 0 && i % S == 0 && i / S < T) acc[i / S] = fma(in, weight[kx], acc[i / S]);
      }
    }
  }
}

template <int T, int S, int KW, bool kNarrow = false>
ORTOLAN_NOINLINE void depthwise_tile(const DepthwiseTile& tile) {
  const DepthwiseTile t = tile;  // a copy that stores cannot alias
  const F low = splat<F>(t.bounds.low), high = splat<F>(t.bounds.high);
  const float* weights = t.weights + t.first * t.taps;
  const size_t ragged = kNarrow ? 0 : t.channels - kLanes;
  for (size_t next = t.first; next < t.last; next += kLanes, weights += t.taps * kLanes) {
    const size_t c = min(next, ragged);
    const F bias = t.bias ? load_channels<kNarrow>(t.bias + c, t.channels) : splat<F>(0);
    F acc[T];
#pragma unroll
    for (int i = 0; i < T; ++i) acc[i] = bias;
    for (size_t r = 0; r < t.row_count; ++r)
      add_kernel_row<T, S, KW, kNarrow>(acc, t, t.rows[r].x + t.x + c,
                                        weights + t.rows[r].first_tap * kLanes);
#pragma unroll
    for (int i = 0; i < T; ++i) {
      F v = acc[i];
      if (t.residual) v += load_channels<kNarrow>(t.residual + i * t.ld_residual + c, t.channels);
      v = clamp_sums(v, low, high);
      float* y = t.y + i * t.channels + c;
      if constexpr (kNarrow)
        store_part(y, v, t.channels);
      else
        store(y, v);
    }
  }
}

// Computes the output columns [begin, end) of one row; `rows` holds the kernel rows inside.
class DepthwiseLine {
 public:
  DepthwiseLine(const ConvArgs& args, const DepthwiseRow* rows, size_t row_count, size_t line)
      : args_(args), window_(args.shape.window), line_(line * window_.out[2]) {
    const size_t C = args.shape.channels;
    tile_.rows = rows;
    tile_.row_count = row_count;
    tile_.channels = C;
    tile_.last = C;
    tile_.taps = window_.taps();
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
    if (args_.shape.channels < kLanes) {
      single(begin, end);
    } else if (dense && kernel == 3) {
      stride == 1 ? columns<TT, 1, 3>(begin, end) : columns<2, 2, 3>(begin, end);
    } else if (dense && kernel == 5) {
      stride == 1 ? columns<4, 1, 5>(begin, end) : columns<2, 2, 5>(begin, end);
    } else {
      const size_t inner = min(end, max(begin, first_inner()));
      const size_t outer = max(inner, min(end, last_inner()));
      single(begin, inner);
      columns<4, 0, 0>(inner, outer);
      single(outer, end);
    }
    const size_t C = args_.shape.channels;
    activation_pass(args_.epilogue, args_.y + (line_ + begin) * C, C, end - begin, C);
  }

 private:
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

  void single(size_t begin, size_t end) {
    for (size_t x = begin; x < end; ++x) one(x);
  }

  // T columns at once; the last ones again where fewer are left. Some vectors of channels pass
  // over all columns, so that their weights and the shared input columns stay in the cache.
  template <int T, int S, int KW>
  void columns(size_t begin, size_t end) {
    const size_t C = args_.shape.channels;
    if (end - begin < T) return single(begin, end);
    for (size_t c = 0; c < C; c += kDepthwiseChannels) {
      tile_.first = c;
      tile_.last = min(C, c + kDepthwiseChannels);
      for (size_t x = begin; x < end; x += T) {
        place(min(x, end - T), 0, window_.kernel[2]);
        depthwise_tile<T, S, KW>(tile_);
      }
    }
    tile_.first = 0;
    tile_.last = C;
  }

  void one(size_t x) {
    const TapRange taps = tap_range(window_, 2, x);
    place(x, taps.begin, taps.end);
    if (args_.shape.channels < kLanes)
      depthwise_tile<1, 0, 0, true>(tile_);
    else
      depthwise_tile<1, 0, 0>(tile_);
  }

  void place(size_t x, size_t kx0, size_t kx1) {
    const size_t C = args_.shape.channels;
    tile_.kx0 = kx0;
    tile_.kx1 = kx1;
    tile_.x = (static_cast<ptrdiff_t>(x * window_.stride[2]) - window_.pad[2]) *
              static_cast<ptrdiff_t>(C);
    const ptrdiff_t column = x * window_.stride[2] - window_.pad[2];
    tile_.column0 = static_cast<int>(min<ptrdiff_t>(64, max<ptrdiff_t>(0, -column)));
    tile_.column1 = static_cast<int>(max<ptrdiff_t>(-1, min<ptrdiff_t>(64, window_.in[2] - column)));
    tile_.y = args_.y + (line_ + x) * C;
    const float* residual = args_.epilogue.residual;
    tile_.residual = residual ? residual + (line_ + x) * tile_.ld_residual : nullptr;
  }

  const ConvArgs& args_;
  const Window& window_;
  size_t line_;  // output pixel at which the row begins
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
// args.weights are by pack_depthwise_weights.
ORTOLAN_NOINLINE inline void depthwise_run_units(const ConvArgs& args, size_t begin, size_t end,
                                                 void* scratch) {
  const size_t spans = depthwise_spans(args.shape), width = args.shape.window.out[2];
  DepthwiseRow* rows = static_cast<DepthwiseRow*>(scratch);
  for (size_t unit = begin; unit < end; ++unit) {
    const size_t line = unit / spans, x = unit % spans * kDepthwiseSpan;
    const size_t row_count = find_kernel_rows(args, line, rows);
    DepthwiseLine(args, rows, row_count, line).run(x, min(width, x + kDepthwiseSpan));
  }
}

}  // namespace ortolan::ORTOLAN_ISA
