// Elements of every type as float32 and back, one by one.
#include "kernels/narrow.h"

#include "kernels/elements.h"
#include "kernels/float16.h"

namespace ortolan::portable {

namespace {

template <class T, class Function>
void widen_each(const void* x, float* y, size_t n, const Function& function) {
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < n; ++i) y[i] = function(static_cast<const T*>(x)[i]);
}

template <class T, class Function>
void narrow_each(const float* x, void* y, size_t n, const Function& function) {
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < n; ++i) static_cast<T*>(y)[i] = function(x[i]);
}

template <class T>
void widen_numbers(const void* x, float* y, size_t n) {
  widen_each<T>(x, y, n, [](T number) {
    const float near = static_cast<float>(number);
    const double exact = static_cast<double>(number), size = exact < 0 ? -exact : exact;
    uint32_t bits = bitcast<uint32_t>(near);
    if (static_cast<double>(near) != exact && exact == exact) {
      bits -= static_cast<double>(bitcast<float>(bits & 0x7fffffffu)) > size;
      bits |= 1;
    }
    return bitcast<float>(bits);
  });
}

template <class T>
void narrow_numbers(const float* x, void* y, size_t n) {
  narrow_each<T>(x, y, n, [](float number) { return to_integer<T>(number); });
}

// A float type of 4 or 8 bits. Codes are without the sign, which lies above them.
struct Tiny {
  uint8_t mantissa, bias;  // bits, and the exponent of 1
  uint8_t bits;            // of a code
  uint8_t most;            // the largest finite number's code
  uint8_t infinity, nan;   // 0: there is none
  bool one_zero = false;   // NaN takes the place of -0
};

Tiny tiny_type(DataType type) {
  switch (type) {
    case DataType::kFloat8E4M3FN:
      return {3, 7, 7, 0x7e, 0, 0x7f};
    case DataType::kFloat8E4M3FNUZ:
      return {3, 8, 7, 0x7f, 0, 0x80, true};
    case DataType::kFloat8E5M2:
      return {2, 15, 7, 0x7b, 0x7c, 0x7e};
    case DataType::kFloat8E5M2FNUZ:
      return {2, 16, 7, 0x7f, 0, 0x80, true};
    default:
      return {1, 1, 3, 7, 0, 0};
  }
}

float power_of_two(int exponent) {  // of a normal number
  return bitcast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

float widen_tiny(const Tiny& t, uint8_t x) {
  const uint32_t size = x & ((1u << t.bits) - 1), sign = (x >> t.bits & 1u) << 31;
  uint32_t value =
      bitcast<uint32_t>(bitcast<float>(size << (23 - t.mantissa)) * power_of_two(127 - t.bias));
  if (t.one_zero ? x == t.nan : t.nan && size > t.most) value = 0x7fc00000;
  if (t.infinity && size == t.infinity) value = 0x7f800000;
  return bitcast<float>(value | sign);
}

// As for float16: normal results round as integers, a sum rounds the others.
uint8_t narrow_tiny(const Tiny& t, bool saturates, float x) {
  const uint32_t bits = bitcast<uint32_t>(x), size = bits & 0x7fffffff;
  const uint8_t sign = static_cast<uint8_t>(bits >> 31 << t.bits);
  if (size > 0x7f800000) return t.one_zero ? t.nan : t.nan ? t.nan | sign : 8;  // -0 where no NaN
  const uint32_t shift = 23u - t.mantissa;
  uint32_t code;
  if (size < bitcast<uint32_t>(power_of_two(1 - t.bias))) {
    const float unit = power_of_two(24 - t.bias - t.mantissa);  // whose last bit is the least code
    code = bitcast<uint32_t>(bitcast<float>(size) + unit) - bitcast<uint32_t>(unit);
  } else {
    code = size - ((127u - t.bias) << 23);
    code = (code + (1u << (shift - 1)) - 1 + (code >> shift & 1)) >> shift;
  }
  if (code > t.most) {
    if (saturates || !t.nan)
      code = t.most;
    else if (t.one_zero)
      return t.nan;
    else
      code = t.infinity ? t.infinity : t.nan;
  }
  return static_cast<uint8_t>(code) | (t.one_zero && code == 0 ? 0 : sign);
}

// Of float8e8m0, which has powers of two only: code c is 2^(c - 127), 255 is NaN.
constexpr uint8_t kNoPower = 255;

float widen_power(uint8_t x) {
  if (x == kNoPower) return __builtin_nanf("");
  return bitcast<float>(x ? static_cast<uint32_t>(x) << 23 : 1u << 22);
}

uint8_t narrow_power(const Narrowing& to, float x) {
  constexpr float kLeast = 0x1p-127f, kMost = 0x1p127f;
  if (!(x >= 0)) return kNoPower;  // also what is negative
  if (x < kLeast) return to.saturates ? 0 : kNoPower;
  const uint32_t bits = bitcast<uint32_t>(x);
  const bool is_subnormal = bits < 1u << 23;
  const uint32_t rest = is_subnormal ? (bits - (1u << 22)) << 1 : bits & 0x7fffff;
  uint32_t code = bits >> 23;
  if (to.rounding == PowerRounding::kUp) code += rest != 0;
  if (to.rounding == PowerRounding::kNearest) code += rest >= 1u << 22;
  if (code < kNoPower && x < 2 * kMost) return static_cast<uint8_t>(code);
  return to.saturates ? kNoPower - 1 : kNoPower;
}

uint8_t low_bits(DataType type) {
  return static_cast<uint8_t>((1 << small_integer_bits(type)) - 1);
}

void widen_small_integers(DataType type, const void* x, float* y, size_t n) {
  const int shift = 8 - small_integer_bits(type);
  if (type == DataType::kInt4 || type == DataType::kInt2)
    return widen_each<uint8_t>(x, y, n, [=](uint8_t bits) {
      const auto top = static_cast<int8_t>(static_cast<uint8_t>(bits << shift));
      return static_cast<float>(top >> shift);
    });
  widen_each<uint8_t>(x, y, n,
                      [=](uint8_t bits) { return static_cast<float>(bits & low_bits(type)); });
}

}  // namespace

void widen(DataType type, const void* x, float* y, size_t n) {
  switch (type) {
    case DataType::kFloat:
      return widen_each<float>(x, y, n, [](float number) { return number; });
    case DataType::kDouble:
      return widen_numbers<double>(x, y, n);
    case DataType::kBool:
    case DataType::kUint8:
      return widen_numbers<uint8_t>(x, y, n);
    case DataType::kInt8:
      return widen_numbers<int8_t>(x, y, n);
    case DataType::kUint16:
      return widen_numbers<uint16_t>(x, y, n);
    case DataType::kInt16:
      return widen_numbers<int16_t>(x, y, n);
    case DataType::kUint32:
      return widen_numbers<uint32_t>(x, y, n);
    case DataType::kInt32:
      return widen_numbers<int32_t>(x, y, n);
    case DataType::kUint64:
      return widen_numbers<uint64_t>(x, y, n);
    case DataType::kInt64:
      return widen_numbers<int64_t>(x, y, n);
    case DataType::kFloat16:
      return widen_each<uint16_t>(x, y, n, Float16<float>::widen);
    case DataType::kBfloat16:
      return widen_each<uint16_t>(x, y, n, Bfloat16<float>::widen);
    case DataType::kFloat8E8M0:
      return widen_each<uint8_t>(x, y, n, widen_power);
    default:
      break;
  }
  if (small_integer_bits(type)) return widen_small_integers(type, x, y, n);
  const Tiny tiny = tiny_type(type);
  widen_each<uint8_t>(x, y, n, [&](uint8_t bits) { return widen_tiny(tiny, bits); });
}

void narrow(const Narrowing& to, const float* x, void* y, size_t n) {
  switch (to.type) {
    case DataType::kFloat:
      return narrow_each<float>(x, y, n, [](float number) { return number; });
    case DataType::kDouble:
      return narrow_each<double>(x, y, n, [](float number) { return number; });
    case DataType::kBool:
      return narrow_each<uint8_t>(x, y, n, [](float number) -> uint8_t { return number != 0; });
    case DataType::kUint8:  // as the low bits of a wider integer, whatever the sign
    case DataType::kInt8:
      return narrow_numbers<uint8_t>(x, y, n);
    case DataType::kUint16:
    case DataType::kInt16:
      return narrow_numbers<uint16_t>(x, y, n);
    case DataType::kInt32:
      return narrow_numbers<int32_t>(x, y, n);
    case DataType::kUint32:
      return narrow_numbers<uint32_t>(x, y, n);
    case DataType::kInt64:
      return narrow_numbers<int64_t>(x, y, n);
    case DataType::kUint64:
      return narrow_numbers<uint64_t>(x, y, n);
    case DataType::kFloat16:
      return narrow_each<uint16_t>(x, y, n, Float16<float>::narrow);
    case DataType::kBfloat16:
      return narrow_each<uint16_t>(x, y, n, Bfloat16<float>::narrow);
    case DataType::kFloat8E8M0:
      return narrow_each<uint8_t>(x, y, n, [&](float number) { return narrow_power(to, number); });
    default:
      break;
  }
  if (small_integer_bits(to.type)) {
    narrow_numbers<uint8_t>(x, y, n);
    return cut(y, 1, to.type, static_cast<uint8_t*>(y), n);
  }
  const Tiny tiny = tiny_type(to.type);
  narrow_each<uint8_t>(x, y, n,
                       [&](float number) { return narrow_tiny(tiny, to.saturates, number); });
}

void cut(const void* x, size_t size, DataType type, uint8_t* y, size_t n) {
  const auto* bytes = static_cast<const uint8_t*>(x);
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < n; ++i) y[i] = bytes[i * size] & low_bits(type);
}

}  // namespace ortolan::portable
