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
// kMinusOne: exp(x) - 1 rounds to -1 below it; the others bound the range of finite results.
template <>
struct ExpConstants<float> {
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 1.4286068e-6f;
  static constexpr float kOverflow = 89, kUnderflow = -104, kMinusOne = -18;
  // (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2: exp to 2^-28.0, exp - 1 to 2^-30.9
  static constexpr float kTail[] = {0.5f, 0.16666532f, 0.041667208f, 0.008367763f, 0.0013866979f};
  static constexpr float kTailNearZero[] = {0.5f,         0.16666667f,   0.041666485f,
                                            0.008333208f, 0.0013932927f, 0.00019944533f};
};
template <>
struct ExpConstants<double> {
  static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 5.497923018708371e-14;
  static constexpr double kOverflow = 710, kUnderflow = -746, kMinusOne = -38;
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

template <class V>
ORTOLAN_INLINE V exp(V x) {
  using C = ExpConstants<Element<V>>;
  auto [k, head, tail] = reduce_exp(bound(x, C::kUnderflow, C::kOverflow), C::kTail);
  return scale_by_power(1 + (head + tail), k);
}

// Cheaper, for results that are finite and not denormal.
template <class V>
ORTOLAN_INLINE V exp_moderate(V x) {
  auto [k, head, tail] = reduce_exp(x, ExpConstants<Element<V>>::kTail);
  return (1 + (head + tail)) * power_of_two<V>(k);
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

// e / (1 + e) or 1 / (1 + e) with e = exp(-|x|), which cannot overflow. What rounding took from
// 1 + e is made up for in the numerator e before that is rounded: near enough for small e, which
// alone has need of it.
template <class V>
ORTOLAN_INLINE V sigmoid(V x) {
  using C = ExpConstants<Element<V>>;
  auto [k, head, tail] = reduce_exp(at_least(-abs(x), (V)C::kUnderflow), C::kTail);
  V one = 1 + head;
  V low = head - (one - 1) + tail;
  V e = scale_by_power(one + low, k);
  V sum = 1 + e;
  V lost = e - (sum - 1);
  V numerator = scale_by_power(one + (low - lost), k);
  return select<V>(x < 0, numerator, (V)1) / sum;
}

template <class T>
struct TanhConstants;
// kNear: (tanh(x) - x) / x^3 in x^2 for |x| <= kSplit; tanh rounds to 1 beyond kOne.
template <>
struct TanhConstants<float> {
  static constexpr float kSplit = 0.55f, kOne = 10;
  static constexpr float kNear[] = {-0.33333313f, 0.13332441f, -0.053836744f, 0.021006329f,
                                    -0.0061802845f};
};
template <>
struct TanhConstants<double> {
  static constexpr double kSplit = 0.55, kOne = 20;
  static constexpr double kNear[] = {
      -0.3333333333333328,    0.13333333333323757,   -0.05396825396208941,    0.0218694883377724,
      -0.008863231809538751,  0.003592083990730518,  -0.0014554908242107804,  0.0005882294585705383,
      -0.0002328320698484606, 8.252570255035894e-05, -1.9004752983566913e-05,
  };
};

// 1 - 2 / (exp(2|x|) + 1) loses nothing where the result is above 1/2.
template <class V>
ORTOLAN_INLINE V tanh(V x) {
  using C = TanhConstants<Element<V>>;
  V a = abs(x);
  V z = a * a;
  V near = mul_add(a * z, polynomial(z, C::kNear), a);
  V e = exp_moderate(-2 * at_most(a, (V)C::kOne));
  V far = 1 - (e + e) / (1 + e);
  return copysign(select<V>(a < (V)C::kSplit, near, far), x);
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
