// Elements of any type of number by way of double, for operators where speed is no matter: one copy
// of their code serves all types. Integers beyond 2^53 are rounded.
#pragma once

#include "kernels/elements.h"
#include "kernels/strided.h"

namespace ortolan::portable {

// Calls use(T{}) with the type of the elements.
template <class Use>
ORTOLAN_INLINE void with_number_type(DataType type, Use use) {
  switch (type) {
    case DataType::kFloat:
      return use(float{});
    case DataType::kDouble:
      return use(double{});
    case DataType::kInt8:
      return use(int8_t{});
    case DataType::kUint8:
      return use(uint8_t{});
    case DataType::kInt16:
      return use(int16_t{});
    case DataType::kUint16:
      return use(uint16_t{});
    case DataType::kInt32:
      return use(int32_t{});
    case DataType::kUint32:
      return use(uint32_t{});
    case DataType::kInt64:
      return use(int64_t{});
    case DataType::kUint64:
      return use(uint64_t{});
    default:
      return use(bool{});
  }
}

ORTOLAN_NOINLINE inline double read_number(const void* data, DataType type, size_t i) {
  double value = 0;
  with_number_type(type, [&](auto zero) {
    using T = Stored<decltype(zero)>;
    value = static_cast<double>(static_cast<const Loose<T>*>(data)[i]);
  });
  return value;
}

// Rounds to a float, truncates to an integer; a bool is whether it is not 0.
ORTOLAN_NOINLINE inline void write_number(void* data, DataType type, size_t i, double value) {
  with_number_type(type, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (is_same<T, bool>)
      static_cast<uint8_t*>(data)[i] = value != 0;
    else if constexpr (is_float<T>)
      static_cast<Loose<T>*>(data)[i] = static_cast<T>(value);
    else
      static_cast<Loose<T>*>(data)[i] = to_integer<T>(value);
  });
}

}  // namespace ortolan::portable
