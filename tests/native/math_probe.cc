// Exports every function of core/math.h over arrays, for tests/test_math.py:
// math_<function>_<type> works through full vectors and a partial one, scalar_<function>_<type>
// element by element. Also the lane-wise functions and the reductions of kernels/simd.h.
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
#define UNARY_OF(space, name, suffix, T)                           \
  PROBE math_##name##_##suffix(const T* x, T* out, size_t n) {     \
    by_vectors([](auto a) { return space::name(a); }, out, n, x);  \
  }                                                                \
  PROBE scalar_##name##_##suffix(const T* x, T* out, size_t n) {   \
    by_elements([](auto a) { return space::name(a); }, out, n, x); \
  }
#define BINARY_OF(space, name, suffix, T)                                        \
  PROBE math_##name##_##suffix(const T* x, const T* y, T* out, size_t n) {       \
    by_vectors([](auto a, auto b) { return space::name(a, b); }, out, n, x, y);  \
  }                                                                              \
  PROBE scalar_##name##_##suffix(const T* x, const T* y, T* out, size_t n) {     \
    by_elements([](auto a, auto b) { return space::name(a, b); }, out, n, x, y); \
  }
#define UNARY(space, name) UNARY_OF(space, name, f32, float) UNARY_OF(space, name, f64, double)
#define BINARY(space, name) BINARY_OF(space, name, f32, float) BINARY_OF(space, name, f64, double)

UNARY(math, exp)
UNARY(math, expm1)
UNARY(math, log)
UNARY(math, log1p)
UNARY(math, tanh)
UNARY(math, sigmoid)
UNARY(math, gelu)
UNARY(math, erf)
UNARY(math, sin)
UNARY(math, cos)
UNARY(math, tan)
UNARY(math, asin)
UNARY(math, acos)
UNARY(math, atan)
UNARY(math, sinh)
UNARY(math, cosh)
UNARY(math, asinh)
UNARY(math, acosh)
UNARY(math, atanh)
UNARY(math, sqrt)
UNARY(math, floor)
UNARY(math, ceil)
UNARY(math, trunc)
UNARY(math, round_even)
BINARY(math, pow)
BINARY(math, fmod)
BINARY(ORTOLAN_ISA, minimum)
BINARY(ORTOLAN_ISA, maximum)
BINARY(ORTOLAN_ISA, at_least)
BINARY(ORTOLAN_ISA, at_most)

// out: sum, minimum and maximum of each full vector's lanes.
PROBE reduce_f32(const float* x, float* out, size_t n) {
  using namespace ortolan::ORTOLAN_ISA;
  for (size_t i = 0; i + kLanes <= n; i += kLanes) {
    F v = load<F>(x + i);
    *out++ = reduce_sum(v);
    *out++ = reduce_min(v);
    *out++ = reduce_max(v);
  }
}
PROBE lanes(size_t* out) { *out = ortolan::ORTOLAN_ISA::kLanes; }
