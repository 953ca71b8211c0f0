// Channels-last max, average and global average pooling with any window. Vectors run over
// channels. Maxima propagate NaN as numpy does.
#pragma once

#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

enum class PoolKind : uint8_t { kMax, kAverage };

// x [batch][in...][channels] to y [batch][out...][channels]. The output size is given, so it may
// be rounded up: a window may begin inside the padding after the input.
struct PoolArgs {
  PoolKind kind = PoolKind::kMax;
  bool count_include_pad = false;  // average: padding counts as zeros, but nothing beyond it
  ptrdiff_t pad_after[3] = {0, 0, 0};
  size_t batch = 1;
  size_t channels = 0;
  Window window;
  const float* x = nullptr;
  float* y = nullptr;
};

// The input elements under the windows of neighbouring pixels, with strides in floats.
struct PoolPatch {
  const float* x;
  size_t count[3];
  size_t step[3];
  float divisor;  // of an average
  size_t pixels;
  size_t next;  // from pixel to pixel
};

// NV vectors of channels of all pixels, from channel c on.
template <PoolKind kind, class V, int NV = 1>
ORTOLAN_INLINE void pool_channels(const PoolPatch& p, size_t c, size_t channels, float* y) {
  constexpr bool kIsMax = kind == PoolKind::kMax;
  const float* first = p.x + c;
  y += c;
  for (size_t pixel = p.pixels; pixel; --pixel, first += p.next, y += channels) {
    V acc[NV];
#pragma unroll
    for (int j = 0; j < NV; ++j) acc[j] = splat<V>(kIsMax ? -kInfinity : 0);
    for (size_t iz = 0; iz < p.count[0]; ++iz)
      for (size_t iy = 0; iy < p.count[1]; ++iy) {
        const float* x = first + iz * p.step[0] + iy * p.step[1];
        for (size_t n = p.count[2]; n; --n, x += p.step[2])
#pragma unroll
          for (int j = 0; j < NV; ++j) {
            const V v = load<V>(x + j * kLanesOf<V>);
            acc[j] = kIsMax ? maximum(acc[j], v) : acc[j] + v;
          }
      }
#pragma unroll
    for (int j = 0; j < NV; ++j)
      store(y + j * kLanesOf<V>, kIsMax ? acc[j] : acc[j] / splat<V>(p.divisor));
  }
}

// A ragged last vector of channels overlaps the one before it.
template <PoolKind kind>
ORTOLAN_NOINLINE void pool_pixels(const PoolPatch& p, size_t channels, float* y) {
  const size_t C = channels;
  size_t c = 0;
  for (; c + 4 * kLanes <= C; c += 4 * kLanes) pool_channels<kind, F, 4>(p, c, C, y);
  if (C >= kLanes) {
    for (; c < C; c += kLanes) pool_channels<kind, F>(p, min(c, C - kLanes), C, y);
    return;
  }
  if constexpr (kLanes > 8)
    for (; c + 8 <= C; c += 8) pool_channels<kind, Vec<float, 8>>(p, c, C, y);
  if constexpr (kLanes > 4)
    for (; c + 4 <= C; c += 4) pool_channels<kind, Vec<float, 4>>(p, c, C, y);
  for (; c < C; ++c) pool_channels<kind, float>(p, c, C, y);
}

// Elements of one dimension's window that count for an average.
ORTOLAN_INLINE size_t counted_taps(const PoolArgs& args, int dimension, const TapRange& taps) {
  const Window& w = args.window;
  if (!args.count_include_pad) return taps.end - taps.begin;
  const ptrdiff_t end = w.in[dimension] + args.pad_after[dimension];
  const ptrdiff_t step = w.dilation[dimension];
  const size_t reach = end > taps.start ? (end - taps.start + step - 1) / step : 0;
  return min(w.kernel[dimension], reach);
}

// Work units for a static split over threads: output rows.
ORTOLAN_INLINE size_t pool_units(const PoolArgs& args) {
  return args.batch * args.window.out[0] * args.window.out[1];
}

ORTOLAN_NOINLINE inline void pool_run_units(const PoolArgs& args, size_t begin, size_t end) {
  const Window& w = args.window;
  const size_t C = args.channels;
  const Columns inside = inside_columns(w);  // go together
  for (size_t line = begin; line < end; ++line) {
    const size_t position[2] = {line / w.out[1] % w.out[0], line % w.out[1]};
    const size_t batch = line / w.out[1] / w.out[0];
    PoolPatch patch;
    size_t counted_before = 1, at_row = batch;
    auto place = [&](int i, size_t where, size_t* counted, size_t* at) {
      const TapRange taps = tap_range(w, i, where);
      *counted *= counted_taps(args, i, taps);
      patch.count[i] = taps.end - taps.begin;
      *at *= w.in[i];
      if (patch.count[i]) *at += taps.start + taps.begin * w.dilation[i];
    };
    for (int i = 0; i < 2; ++i) place(i, position[i], &counted_before, &at_row);
    patch.step[2] = w.dilation[2] * C;
    patch.step[1] = w.dilation[1] * w.in[2] * C;
    patch.step[0] = w.dilation[0] * w.in[1] * w.in[2] * C;
    patch.next = w.stride[2] * C;
    for (size_t column = 0; column < w.out[2]; column += patch.pixels) {
      patch.pixels = column == inside.begin && inside.begin < inside.end ? inside.count() : 1;
      size_t counted = counted_before, at = at_row;
      place(2, column, &counted, &at);
      patch.x = args.x + at * C;
      float* y = args.y + (line * w.out[2] + column) * C;
      patch.divisor = max<size_t>(counted, 1);
      if (args.kind == PoolKind::kMax)
        pool_pixels<PoolKind::kMax>(patch, C, y);
      else
        pool_pixels<PoolKind::kAverage>(patch, C, y);
    }
  }
}

// Mean over all pixels of NV neighbouring V of channels. Sums of short chunks are summed, so
// that the error grows with the square root of the pixels, not with all of them.
template <class V, int NV>
ORTOLAN_INLINE void average_pixels(const float* x, size_t pixels, size_t channels, float* y) {
  constexpr size_t kChunk = 64;
  V total[NV] = {};
  for (size_t begin = 0; begin < pixels; begin += kChunk) {
    V sum[NV] = {};
    const float* end = x + min(kChunk, pixels - begin) * channels;
    for (; x != end; x += channels)
#pragma unroll
      for (int j = 0; j < NV; ++j) sum[j] += load<V>(x + j * kLanesOf<V>);
    for (int j = 0; j < NV; ++j) total[j] += sum[j];
  }
  const V divisor = splat<V>(max<size_t>(pixels, 1));
  for (int j = 0; j < NV; ++j) store(y + j * kLanesOf<V>, total[j] / divisor);
}

// Work units: blocks of channels.
constexpr size_t kAverageChannels = 4 * kLanes;

ORTOLAN_INLINE size_t global_average_units(size_t batch, size_t channels) {
  return batch * ((channels + kAverageChannels - 1) / kAverageChannels);
}

// x [batch][pixels][channels] to y [batch][channels].
ORTOLAN_NOINLINE inline void global_average_run_units(const float* x, size_t pixels,
                                                      size_t channels, float* y, size_t begin,
                                                      size_t end) {
  const size_t blocks = global_average_units(1, channels);
  for (size_t unit = begin; unit < end; ++unit) {
    const size_t batch = unit / blocks, first = unit % blocks * kAverageChannels;
    const size_t last = min(channels, first + kAverageChannels);
    const float* in = x + batch * pixels * channels;
    float* out = y + batch * channels;
    size_t c = first;
    for (; !kTiny && c + 4 * kLanes <= last; c += 4 * kLanes)
      average_pixels<F, 4>(in + c, pixels, channels, out + c);
    for (; c + kLanes <= last; c += kLanes) average_pixels<F, 1>(in + c, pixels, channels, out + c);
    for (; c < last; ++c) average_pixels<float, 1>(in + c, pixels, channels, out + c);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
