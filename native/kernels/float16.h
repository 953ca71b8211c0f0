// float16 and bfloat16 to float32 and back, for scalars and vectors: widening is exact, narrowing
// rounds to the nearest, ties to even. V is float or a vector of it; halves are their bits.
#pragma once

#include "kernels/simd.h"

namespace ortolan::ORTOLAN_ISA {

template <class V>
using Halves = VecLike<uint16_t, V>;

template <class V>
struct Float16 {
#if defined(__F16C__) || defined(__aarch64__)
  ORTOLAN_INLINE static V widen(Halves<V> x) {
    return convert<float>(bitcast<VecLike<_Float16, V>>(x));
  }
  ORTOLAN_INLINE static Halves<V> narrow(V x) { return bitcast<Halves<V>>(convert<_Float16>(x)); }
#else
  using U = UintLike<V>;
  ORTOLAN_INLINE static U choose(Mask<U> mask, U yes, U no) { return select<U>(mask, yes, no); }

  // With the mantissa in place, a product moves the exponent's bias and normalizes subnormals.
  ORTOLAN_INLINE static V widen(Halves<V> x) {
    const U bits = convert<uint32_t>(x), size = (bits & 0x7fff) << 13;
    const U value = bitcast<U>(bitcast<V>(size) * splat<V>(0x1p112f));
    const U not_finite = choose(size >= U(0x7c00u << 13), U(0x7f800000u), U(0u));
    return bitcast<V>(value | not_finite | (bits & 0x8000) << 16);
  }

  // Normal results round as integers do, the exponent taking the carry; a sum with 0.5, whose last
  // bit is the least subnormal, rounds the others.
  ORTOLAN_INLINE static Halves<V> narrow(V x) {
    const U bits = bitcast<U>(x), size = bits & 0x7fffffffu;
    const U normal = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    const U tiny = bitcast<U>(bitcast<V>(size) + splat<V>(0.5f)) - (126u << 23);
    U half = choose(size < U(113u << 23), tiny, normal);
    half = choose(size >= U(0x477ff000u), U(0x7c00u), half);  // 65520 and more
    half = choose(size > U(0x7f800000u), U(0x7e00u), half);
    return convert<uint16_t>(half | (bits >> 16 & 0x8000));
  }
#endif
};

template <class V>
struct Bfloat16 {
  using U = UintLike<V>;
  ORTOLAN_INLINE static V widen(Halves<V> x) { return bitcast<V>(convert<uint32_t>(x) << 16); }
  ORTOLAN_INLINE static Halves<V> narrow(V x) {
    const U bits = bitcast<U>(x);
    const U rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const U nan = (bits >> 16 & 0x8000) | 0x7fc0;
    return convert<uint16_t>(select<U>((bits & 0x7fffffffu) > U(0x7f800000u), nan, rounded));
  }
};

}  // namespace ortolan::ORTOLAN_ISA
