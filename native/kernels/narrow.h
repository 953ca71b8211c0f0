// Elements of every type as float32 and back, for types that have no arithmetic of their own.
#pragma once

#include "core/types.h"

namespace ortolan::portable {

// x: n elements. What float32 cannot hold is rounded to odd (the last bit says that there was
// more), so that rounding the result to a narrower type gives what rounding x itself would.
void widen(DataType type, const void* x, float* y, size_t n);

// y: n elements. Float types round to the nearest, ties to even; integers are cut off.
void narrow(DataType type, const float* x, void* y, size_t n);

}  // namespace ortolan::portable
