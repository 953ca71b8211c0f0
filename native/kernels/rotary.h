// Rotary position embedding: pairs of a row's first elements turned by the angles of its position.
#pragma once

#include "core/context.h"

namespace ortolan::ORTOLAN_ISA {

// Turns x[0, 2 * half) by the angles of `cosines` and `sines` [half]: neighbours are pairs, or the
// elements of both halves. y may be x; `width` elements are written.
template <class T>
ORTOLAN_NOINLINE void rotate_row(const T* x, T* y, size_t width, const T* cosines, const T* sines,
                                 size_t half, bool interleaved) {
  const size_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
  for (size_t i = 0; i < half; ++i) {
    const T a = x[i * step], b = x[i * step + apart];
    y[i * step] = a * cosines[i] - b * sines[i];
    y[i * step + apart] = b * cosines[i] + a * sines[i];
  }
  if (y != x)
    for (size_t i = 2 * half; i < width; ++i) y[i] = x[i];
}

}  // namespace ortolan::ORTOLAN_ISA
