// Elements of every type as float32 and back, one by one.
#include "kernels/narrow.h"

#include "kernels/elements.h"
#include "kernels/float16.h"

namespace ortolan::portable {

namespace {

template <class T>
void widen_numbers(const T* x, float* y, size_t n) {
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < n; ++i) {
    const float near = static_cast<float>(x[i]);
    const double exact = static_cast<double>(x[i]), size = exact < 0 ? -exact : exact;
    uint32_t bits = bitcast<uint32_t>(near);
    if (static_cast<double>(near) != exact && exact == exact) {
      bits -= static_cast<double>(bitcast<float>(bits & 0x7fffffffu)) > size;
      bits |= 1;
    }
    y[i] = bitcast<float>(bits);
  }
}

template <class T>
void narrow_numbers(const float* x, T* y, size_t n) {
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < n; ++i) y[i] = to_integer<T>(x[i]);
}

}  // namespace

void widen(DataType type, const void* x, float* y, size_t n) {
  switch (type) {
    case DataType::kBool:
    case DataType::kUint8:
      return widen_numbers(static_cast<const uint8_t*>(x), y, n);
    case DataType::kInt8:
      return widen_numbers(static_cast<const int8_t*>(x), y, n);
    case DataType::kUint16:
      return widen_numbers(static_cast<const uint16_t*>(x), y, n);
    case DataType::kInt16:
      return widen_numbers(static_cast<const int16_t*>(x), y, n);
    case DataType::kUint32:
      return widen_numbers(static_cast<const uint32_t*>(x), y, n);
    case DataType::kInt32:
      return widen_numbers(static_cast<const int32_t*>(x), y, n);
    case DataType::kUint64:
      return widen_numbers(static_cast<const uint64_t*>(x), y, n);
    case DataType::kInt64:
      return widen_numbers(static_cast<const int64_t*>(x), y, n);
    case DataType::kDouble:
      return widen_numbers(static_cast<const double*>(x), y, n);
    default:
      return;
  }
}

void narrow(DataType type, const float* x, void* y, size_t n) {
  switch (type) {
    case DataType::kBool:
      for (size_t i = 0; i < n; ++i) static_cast<uint8_t*>(y)[i] = x[i] != 0;
      return;
    case DataType::kUint8:  // as the low bits of a wider integer, whatever the sign
    case DataType::kInt8:
      return narrow_numbers(x, static_cast<uint8_t*>(y), n);
    case DataType::kUint16:
    case DataType::kInt16:
      return narrow_numbers(x, static_cast<uint16_t*>(y), n);
    case DataType::kInt32:
      return narrow_numbers(x, static_cast<int32_t*>(y), n);
    case DataType::kUint32:
      return narrow_numbers(x, static_cast<uint32_t*>(y), n);
    case DataType::kInt64:
      return narrow_numbers(x, static_cast<int64_t*>(y), n);
    case DataType::kUint64:
      return narrow_numbers(x, static_cast<uint64_t*>(y), n);
    case DataType::kDouble:
      for (size_t i = 0; i < n; ++i) static_cast<double*>(y)[i] = static_cast<double>(x[i]);
      return;
    default:
      return;
  }
}

}  // namespace ortolan::portable
