// Elements of every type as float32 and back, for types that have no arithmetic of their own.
#pragma once

#include "core/types.h"

namespace ortolan::portable {

// x: n elements. What float32 cannot hold is rounded to odd (the last bit says that there was
// more), so that rounding the result to a narrower type gives what rounding x itself would.
void widen(DataType type, const void* x, float* y, size_t n);

enum class PowerRounding : uint8_t { kUp, kDown, kNearest };

struct Narrowing {
  DataType type;
  bool saturates = true;  // types of 8 bits: what is too large becomes the largest, not infinite
  PowerRounding rounding = PowerRounding::kUp;  // of float8e8m0
};

// y: n elements. Float types round to the nearest, ties to even; integers are cut off.
void narrow(const Narrowing& to, const float* x, void* y, size_t n);

// Of integers of `size` bytes the low bits that `type`, an integer of fewer than 8, has.
void cut(const void* x, size_t size, DataType type, uint8_t* y, size_t n);

// Bits of an integer type of fewer than 8, 0 for others.
constexpr int small_integer_bits(DataType type) {
  if (type == DataType::kInt4 || type == DataType::kUint4) return 4;
  return type == DataType::kInt2 || type == DataType::kUint2 ? 2 : 0;
}

}  // namespace ortolan::portable
