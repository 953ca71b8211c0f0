// Integer division, remainder and power, element by element. The hardware traps where C++ leaves
// the result open, so divisors are looked at before any row starts and -1 is handled apart.
#pragma once

#include "kernels/elementwise.h"

namespace ortolan::ORTOLAN_ISA {

// Every divisor is used when the output has elements.
template <class Word>
ORTOLAN_SMALL static Status check_divisors(Context& c) {
  if (element_count(c.output_shape(0)) == 0) return Status::kOk;
  const char* p = c.input_data<char>(1);
  for (size_t n = element_count(c.input_shape(1)); n > 0; --n, p += sizeof(Word))
    if (load<Word>(p) == 0) return c.invalid("division of integers by zero");
  return Status::kOk;
}

template <class T>
ORTOLAN_INLINE T negate(T x) {
  return static_cast<T>(0u - static_cast<Wrapped<T>>(x));
}

struct Quotient {
  template <class T>
  ORTOLAN_INLINE T operator()(T a, T b) const {
    if constexpr (is_signed<T>)
      if (b == -1) return negate(a);
    return static_cast<T>(a / b);
  }
};

// The sign is a's, as in C.
struct Remainder {
  template <class T>
  ORTOLAN_INLINE T operator()(T a, T b) const {
    if constexpr (is_signed<T>)
      if (b == -1) return 0;
    return static_cast<T>(a % b);
  }
};

// The sign is b's, as in Python.
struct FloorRemainder {
  template <class T>
  ORTOLAN_INLINE T operator()(T a, T b) const {
    const T r = Remainder{}(a, b);
    if constexpr (is_signed<T>)
      if (r != 0 && (r < 0) != (b < 0)) return static_cast<T>(r + b);
    return r;
  }
};

// base^exponent modulo 2^bits. Of the fractions for negative exponents the integer part is left;
// 1 / 0 becomes what Cast makes of infinity.
template <class T, class E>
ORTOLAN_INLINE T integer_power(T base, E exponent) {
  using U = Wrapped<T>;
  if (exponent < 0) {
    if (base == 1) return 1;
    if (base == -1) return exponent & 1 ? -1 : 1;
    return base == 0 ? static_cast<T>(U{1} << (8 * sizeof(T) - 1)) : 0;
  }
  U result = 1, square = static_cast<U>(base);
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}

}  // namespace ortolan::ORTOLAN_ISA
