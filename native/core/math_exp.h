// Exponentials and what is made of them: exp, expm1, sigmoid, tanh, erf, sinh, cosh.
// The polynomials are our own near-minimax fits, weighted by the error that each result allows.
#pragma once

#include "core/math_base.h"

namespace ortolan::math {
inline namespace ORTOLAN_ISA {

constexpr double kLog2E = 1.4426950408889634;

template <class T>
struct ExpConstants;
// kLn2High has so few bits that its product with any exponent is exact (Cody and Waite).
// kMinusOne: exp(x) - 1 rounds to -1 below it; kTanhOne: tanh rounds to 1 beyond it; kNormal: 2^n
// of exp_moderate is 0 there; the others bound the range of finite results.
template <>
struct ExpConstants<float> {
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 1.4286068e-6f;
  static constexpr float kOverflow = 89, kUnderflow = -104, kNormal = -88, kMinusOne = -18,
                         kTanhOne = 10;
  // (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2: exp to 2^-28.0, exp - 1 to 2^-30.9
  static constexpr float kTail[] = {0.5f, 0.16666532f, 0.041667208f, 0.008367763f, 0.0013866979f};
  static constexpr float kTailNearZero[] = {0.5f,         0.16666667f,   0.041666485f,
                                            0.008333208f, 0.0013932927f, 0.00019944533f};
};
template <>
struct ExpConstants<double> {
  static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 5.497923018708371e-14;
  static constexpr double kOverflow = 710, kUnderflow = -746, kNormal = -709, kMinusOne = -38,
                          kTanhOne = 20;
  // as above: 2^-57.3 and 2^-61.4
  static constexpr double kTail[] = {
      0.5,
      0.16666666666666427,
      0.041666666666602424,
      0.008333333333503595,
      0.001388888892748509,
      0.0001984126946040854,
      2.4801507737079785e-05,
      2.7557643919789207e-06,
      2.762559257631673e-07,
      2.497817610910983e-08,
  };
  static constexpr double kTailNearZero[] = {
      0.5,
      0.16666666666666677,
      0.041666666666666685,
      0.008333333333321372,
      0.0013888888888873823,
      0.0001984126988687725,
      2.480158734854447e-05,
      2.7557243368812394e-06,
      2.755725206881683e-07,
      2.5109356265560073e-08,
      2.092177395559551e-09,
  };
};

// NaN stays.
template <class V>
ORTOLAN_INLINE V bound(V x, Element<V> low, Element<V> high) {
  return at_most(at_least(x, (V)low), (V)high);
}

// exp(x) = 2^k (1 + head + tail), |head| <= ln(2) / 2, head exact and tail small: their sum
// carries half an ulp of head's size and no more.
template <class V>
struct ReducedExp {
  IntLike<V> k;
  V head;
  V tail;
};
template <class V, int N>
ORTOLAN_INLINE ReducedExp<V> reduce_exp(V x, const Element<V> (&tail)[N]) {
  using C = ExpConstants<Element<V>>;
  auto [n, k] = round_to_integer(x, splat<V>(kLog2E));
  V head = mul_add(n, (V)-C::kLn2High, x);
  V rest = n * C::kLn2Low;
  V r = head - rest;
  return {k, head, mul_add(r * r, polynomial(r, tail), -rest)};
}

// x = n ln(2) + r. The integer n + kBiases * bias is in the low bits of `bits`: shifted up to the
// exponent's place, with a single bias that is 2^n; with two, each half of it is a power.
template <class V>
struct PowerAndRest {
  V r, n;
  IntLike<V> bits;
};
template <int kBiases, class V>
ORTOLAN_INLINE PowerAndRest<V> reduce_by_power(V x) {
  using C = ExpConstants<Element<V>>;
  constexpr int kBias = kBiases * (kIsDouble<V> ? 1023 : 127);
  using T = Element<V>;
  const V shift = stored<V>(kStored<T, kRoundingShift<V> * T(1.5) + kBias>);
  const V sum = mul_add(x, stored<V>(kStored<T, kLog2E>), shift), n = sum - shift;
  const V r = mul_add(n, stored<V>(kStored<T, -C::kLn2Low>),
                      mul_add(n, stored<V>(kStored<T, -C::kLn2High>), x));
  return {r, n, bitcast<IntLike<V>>(sum)};
}

// exp(r) for |r| <= ln(2) / 2.
template <class V>
ORTOLAN_INLINE V exp_of_rest(V r) {
  const V q = polynomial(r, ExpConstants<Element<V>>::kTail);
  return mul_add(mul_add(q, r, (V)1), r, (V)1);
}

// For x <= kOverflow; results below the least denormal become 0.
template <class V>
ORTOLAN_INLINE V exp_bounded(V x) {
  const auto [r, n, bits] =
      reduce_by_power<2>(at_least(x, (V)ExpConstants<Element<V>>::kUnderflow));
  const V p = exp_of_rest(r);
#ifdef __AVX512DQ__
  if constexpr (is_same<V, Vec<float, 16>>)
    return __builtin_ia32_scalefps512_mask(p, n, p, -1, 4);
  else if constexpr (is_same<V, Vec<double, 8>>)
    return __builtin_ia32_scalefpd512_mask(p, n, p, -1, 4);
#endif
  const IntLike<V> half = bits >> 1;  // the shift's own bits are even and beyond the exponent
  return p * bitcast<V>(half << kMantissaBits<V>) *
         bitcast<V>(subtract_wrapping(bits, half) << kMantissaBits<V>);
}

template <class V>
ORTOLAN_INLINE V exp(V x) {
  return exp_bounded(at_most(x, (V)ExpConstants<Element<V>>::kOverflow));
}

// Cheaper, for x between kNormal, where it is 0, and kOverflow.
template <class V>
ORTOLAN_INLINE V exp_moderate(V x) {
  const auto [r, n, bits] = reduce_by_power<1>(x);
  return exp_of_rest(r) * bitcast<V>(bits << kMantissaBits<V>);
}

// The same for any x below: results that are not normal become 0, as softmax can do with.
template <class V>
ORTOLAN_INLINE V exp_flushed(V x) {
  return exp_moderate(at_least(x, (V)ExpConstants<Element<V>>::kNormal));
}

// (exp(x) - 1) * 2^shift, accurate near 0: 2^k ((1 - 2^-k) + head + tail).
template <class V>
ORTOLAN_INLINE V expm1_scaled(V x, int shift) {
  using C = ExpConstants<Element<V>>;
  auto [k, head, tail] = reduce_exp(bound(x, C::kMinusOne, C::kOverflow + 1), C::kTailNearZero);
  IntLike<V> limited = k > 100 ? (IntLike<V>)100 : k;
  V y = (1 - power_of_two<V>(-limited)) + (head + tail);
  return scale_by_power(y, add_wrapping(k, (IntLike<V>)shift));
}

template <class V>
ORTOLAN_INLINE V expm1(V x) {
  return select<V>(x == 0, x, expm1_scaled(x, 0));
}

// e / (1 + e) or 1 / (1 + e) with e = exp(-|x|), which cannot overflow.
template <class V>
ORTOLAN_INLINE V sigmoid(V x) {
  const V e = exp_bounded(-abs(x));
  return select<V>(x < 0, e, (V)1) / (1 + e);
}

// -e / (2 + e) with e = exp(-2|x|) - 1, which is 2^n q + (2^n - 1): q alone where n is 0.
template <class V>
ORTOLAN_INLINE V tanh(V x) {
  using C = ExpConstants<Element<V>>;
  const V a = at_most(abs(x), (V)C::kTanhOne);
  const auto [r, n, bits] = reduce_by_power<1>(-2 * a);
  const V q = mul_add(polynomial(r, C::kTail) * r, r, r);
  const V power = bitcast<V>(bits << kMantissaBits<V>);
  const V e = mul_add(power, q, power - 1);
  return copysign(e / (2 + e), x);
}

template <class T>
struct ErfConstants;
// kNear: erf(x) / x - 1 in x^2 below kSplit. kFar: -log(1 - erf(x)) / x from there to kOne, beyond
// which erf rounds to 1; its error counts only in proportion to 1 - erf(x), so few terms do.
template <>
struct ErfConstants<float> {
  static constexpr float kSplit = 0.8f, kOne = 4;
  static constexpr float kNear[] = {0.12837917f,   -0.37612605f, 0.11283115f,
                                    -0.026819952f, 0.005082455f, -0.000651298f};
  static constexpr float kFar[] = {1.1285343f,    0.6356497f,    0.10535366f,
                                   -0.022949643f, 0.0032337923f, -0.0002162943f};
};
template <>
struct ErfConstants<double> {
  static constexpr double kSplit = 0.8, kOne = 6;
  static constexpr double kNear[] = {
      0.12837916709551256,     -0.3761263890318337,     0.11283791670936856,
      -0.0268661706414419,     0.005223977585418443,    -0.0008548324411356912,
      0.00012055224304319419,  -1.4922693991190765e-05, 1.6409584268544168e-06,
      -1.5774773455846034e-07, 1.0918898658964452e-08,
  };
  static constexpr double kFar[] = {
      1.1283791796024722,     0.6366196007458873,      0.10277369574484041,
      -0.01913274116307835,   -0.00019749459540854597, 0.0016727060490293185,
      -0.0005540204845621906, -1.7535906747586298e-05, 0.0001058961103062633,
      -6.119237028712437e-05, 2.2361148880640538e-05,  -5.998991685516318e-06,
      1.2231027288194192e-06, -1.8895651867457274e-07, 2.1523207650771165e-08,
      -1.7082783944667e-09,   8.441710561027256e-11,   -1.955139485049138e-12,
  };
};

template <class V>
ORTOLAN_INLINE V erf(V x) {
  using C = ErfConstants<Element<V>>;
  V a = abs(x);
  V near = mul_add(a, polynomial(a * a, C::kNear), a);
  V b = at_most(a, (V)C::kOne);
  V far = 1 - exp_moderate(-b * polynomial(b, C::kFar));
  return copysign(select<V>(a < (V)C::kSplit, near, far), x);
}

// Of the normal distribution's integral less 1/2: P(x^2) / Q(x^2) is its quotient by x, to 2^-25 up
// to kOne, beyond which it is 1/2.
struct GeluConstants {
  static constexpr float kOne = 6;
  static constexpr float kP[] = {0.398942262f,    0.0342144035f,   0.00469358591f,
                                 0.000171622873f, 6.28810676e-06f, 2.19510436e-08f};
  static constexpr float kQ[] = {
      1, 0.252429068f, 0.0288375877f, 0.00190091575f, 7.40988326e-05f, 1.16938247e-06f};
};

// x (1 + erf(x / sqrt(2))) / 2; for floats by one quotient, 2.4e-7 |x| off at most.
template <class V>
ORTOLAN_INLINE V gelu(V x) {
  using C = GeluConstants;
  if constexpr (kIsDouble<V>) {
    const V half = splat<V>(0.5) * x;
    return half + half * erf(x * splat<V>(0.70710678118654752440));
  } else {
    const V bounded = bound(x, -C::kOne, C::kOne), square = bounded * bounded;
    const V part = bounded * (polynomial(square, C::kP) / polynomial(square, C::kQ));
    return x * (bound(part, -0.5f, 0.5f) + (V)0.5f);
  }
}

// h + h / (2 h + 1) with h = (exp(|x|) - 1) / 2, which is finite wherever sinh is.
template <class V>
ORTOLAN_INLINE V sinh(V x) {
  V h = expm1_scaled(abs(x), -1);
  V limited = at_most(h, (V)0x1p60f);
  V y = h + limited / (2 * limited + 1);
  return select<V>(x == 0, x, copysign(y, x));
}

// h + 1 / (4 h) with h = exp(|x|) / 2.
template <class V>
ORTOLAN_INLINE V cosh(V x) {
  using C = ExpConstants<Element<V>>;
  auto [k, head, tail] = reduce_exp(bound(abs(x), 0, C::kOverflow + 1), C::kTail);
  V h = scale_by_power(1 + (head + tail), add_wrapping(k, (IntLike<V>)-1));
  return h + Element<V>(0.25) / h;
}

}  // namespace ORTOLAN_ISA
}  // namespace ortolan::math
