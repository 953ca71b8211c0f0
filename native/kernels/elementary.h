// The functions of core/math.h as operators use them. Doubles are rare in models: each function has
// one copy for them that all operators call. Functions that are rare for floats too go through that
// copy, half a vector at a time; the others are inlined for floats.
#pragma once

#include "core/math.h"
#include "kernels/simd.h"

namespace ortolan::ORTOLAN_ISA::elementary {

// Floats beside which as many doubles fill a vector.
using HalfF = Vec<float, kDoubleLanes>;

#define ORTOLAN_ONE_COPY(function)                                        \
  [[maybe_unused]] ORTOLAN_NOINLINE static D function##_of_doubles(D x) { \
    return math::function(x);                                             \
  }

// Inlined for floats.
#define ORTOLAN_COMMON(function)             \
  ORTOLAN_ONE_COPY(function)                 \
  template <class V>                         \
  ORTOLAN_INLINE V function(V x) {           \
    if constexpr (is_same<V, D>)             \
      return function##_of_doubles(x);       \
    else if constexpr (is_same<V, double>)   \
      return function##_of_doubles((D)x)[0]; \
    else                                     \
      return math::function(x);              \
  }

// Floats by way of doubles.
#define ORTOLAN_RARE(function)                                        \
  ORTOLAN_ONE_COPY(function)                                          \
  ORTOLAN_INLINE D function(D x) { return function##_of_doubles(x); } \
  ORTOLAN_INLINE HalfF function(HalfF x) {                            \
    return convert<float>(function##_of_doubles(convert<double>(x))); \
  }

ORTOLAN_COMMON(exp)
ORTOLAN_COMMON(expm1)
// math::exp_flushed; doubles are not worth a function of their own.
template <class V>
ORTOLAN_INLINE V exp_flushed(V x) {
  if constexpr (is_same<Element<V>, double>)
    return exp(x);
  else
    return math::exp_flushed(x);
}
ORTOLAN_COMMON(log)
ORTOLAN_COMMON(log1p)
ORTOLAN_COMMON(sigmoid)
ORTOLAN_COMMON(tanh)
ORTOLAN_COMMON(erf)
ORTOLAN_COMMON(gelu)
ORTOLAN_COMMON(sin)
ORTOLAN_COMMON(cos)
ORTOLAN_RARE(tan)
ORTOLAN_RARE(asin)
ORTOLAN_RARE(acos)
ORTOLAN_RARE(atan)
ORTOLAN_RARE(sinh)
ORTOLAN_RARE(cosh)
ORTOLAN_RARE(asinh)
ORTOLAN_RARE(acosh)
ORTOLAN_RARE(atanh)

#undef ORTOLAN_RARE
#undef ORTOLAN_COMMON
#undef ORTOLAN_ONE_COPY

[[maybe_unused]] ORTOLAN_NOINLINE static D pow_of_doubles(D x, D y) { return math::pow(x, y); }
ORTOLAN_INLINE D pow(D x, D y) { return pow_of_doubles(x, y); }
ORTOLAN_INLINE HalfF pow(HalfF x, HalfF y) { return math::pow(x, y); }

}  // namespace ortolan::ORTOLAN_ISA::elementary
