// Exports every function of core/math.h over arrays, for tests/test_math.py:
// math_<function>_<type> works through full vectors and a partial one, scalar_<function>_<type>
// element by element.
#include "core/math.h"
#include "kernels/simd.h"

namespace {

using namespace ortolan;

template <class T, class Function, class... In>
ORTOLAN_INLINE void by_vectors(Function function, T* out, size_t n, const In*... in) {
  constexpr int kWidth = ORTOLAN_ISA::kLanes * sizeof(float) / sizeof(T);
  using V = Vec<T, kWidth>;
  size_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    ORTOLAN_ISA::store(out + i, function(ORTOLAN_ISA::load<V>(in + i)...));
  if (i < n)
    ORTOLAN_ISA::store_part(out + i, function(ORTOLAN_ISA::load_part<V>(in + i, n - i)...), n - i);
}

template <class T, class Function, class... In>
ORTOLAN_INLINE void by_elements(Function function, T* out, size_t n, const In*... in) {
#pragma clang loop vectorize(disable) interleave(disable)
  for (size_t i = 0; i < n; ++i) out[i] = function(in[i]...);
}

}  // namespace

#define PROBE extern "C" [[gnu::visibility("default")]] void
#define CALL_UNARY(name) [](auto x) { return math::name(x); }
#define CALL_BINARY(name) [](auto x, auto y) { return math::name(x, y); }

#define UNARY_OF(name, suffix, T)                                \
  PROBE math_##name##_##suffix(const T* x, T* out, size_t n) {   \
    by_vectors(CALL_UNARY(name), out, n, x);                     \
  }                                                              \
  PROBE scalar_##name##_##suffix(const T* x, T* out, size_t n) { \
    by_elements(CALL_UNARY(name), out, n, x);                    \
  }
#define BINARY_OF(name, suffix, T)                                           \
  PROBE math_##name##_##suffix(const T* x, const T* y, T* out, size_t n) {   \
    by_vectors(CALL_BINARY(name), out, n, x, y);                             \
  }                                                                          \
  PROBE scalar_##name##_##suffix(const T* x, const T* y, T* out, size_t n) { \
    by_elements(CALL_BINARY(name), out, n, x, y);                            \
  }
#define UNARY(name) UNARY_OF(name, f32, float) UNARY_OF(name, f64, double)
#define BINARY(name) BINARY_OF(name, f32, float) BINARY_OF(name, f64, double)

UNARY(exp)
UNARY(expm1)
UNARY(log)
UNARY(log1p)
UNARY(tanh)
UNARY(sigmoid)
UNARY(erf)
UNARY(sin)
UNARY(cos)
UNARY(tan)
UNARY(asin)
UNARY(acos)
UNARY(atan)
UNARY(sinh)
UNARY(cosh)
UNARY(asinh)
UNARY(acosh)
UNARY(atanh)
UNARY(sqrt)
UNARY(floor)
UNARY(ceil)
UNARY(trunc)
UNARY(round_even)
BINARY(pow)
BINARY(fmod)
