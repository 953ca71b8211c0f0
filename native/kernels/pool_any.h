// Pools of channels_last images of any element type, channel by channel: for types that few models
// pool, so that the code is short.
#pragma once

#include "kernels/elements.h"
#include "kernels/pool_channels_last.h"

namespace ortolan::ORTOLAN_ISA {

// Calls body(pixel) for the pixels of an image, from 0 on, that are under the window at `pixel`.
template <class Body>
ORTOLAN_INLINE void for_each_tap(const Window& w, size_t pixel, const Body& body) {
  const size_t at[3] = {pixel / (w.out[1] * w.out[2]), pixel / w.out[2] % w.out[1],
                        pixel % w.out[2]};
  TapRange t[3];
  for (int i = 0; i < 3; ++i) t[i] = tap_range(w, i, at[i]);
  for (size_t kz = t[0].begin; kz < t[0].end; ++kz)
    for (size_t ky = t[1].begin; ky < t[1].end; ++ky)
      for (size_t kx = t[2].begin; kx < t[2].end; ++kx) {
        const size_t z = t[0].start + kz * w.dilation[0], y = t[1].start + ky * w.dilation[1];
        const size_t x = t[2].start + kx * w.dilation[2];
        body(z, y, x);
      }
}

// NaN counts as the largest, and what comes first among equals.
template <class T>
ORTOLAN_INLINE bool is_larger(T v, T best) {
  return v > best || (v != v && best == best);
}

// The output pixel at `p` of all images; `args` says nothing about x and y here.
template <class T>
ORTOLAN_NOINLINE void pool_any_pixel(const PoolArgs& args, const T* x, size_t p, T* y) {
  const Window& w = args.window;
  const size_t out_pixels = w.out_pixels(), channels = args.channels;
  const T* image = x + p / out_pixels * w.in_pixels() * channels;
  y += p * channels;
  const bool is_max = args.kind == PoolKind::kMax;
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t c = 0; c < channels; ++c) y[c] = is_max ? lowest<T>() : T{0};
  for_each_tap(w, p % out_pixels, [&](size_t z, size_t row, size_t column) {
    const T* v = image + ((z * w.in[1] + row) * w.in[2] + column) * channels;
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t c = 0; c < channels; ++c) {
      if (is_max)
        y[c] = is_larger(v[c], y[c]) ? v[c] : y[c];
      else
        y[c] = static_cast<T>(y[c] + v[c]);
    }
  });
  if constexpr (is_float<T>) {
    if (is_max) return;
    const size_t rest = p % out_pixels;
    const size_t at[3] = {rest / (w.out[1] * w.out[2]), rest / w.out[2] % w.out[1],
                          rest % w.out[2]};
    size_t counted = 1;
    for (int i = 0; i < 3; ++i) counted *= counted_taps(args, i, tap_range(w, i, at[i]));
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t c = 0; c < channels; ++c) y[c] /= static_cast<T>(max<size_t>(counted, 1));
  }
}

}  // namespace ortolan::ORTOLAN_ISA
