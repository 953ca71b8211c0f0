// Logarithms and what is made of them: log, log1p, asinh, acosh, atanh, pow.
// The polynomials are our own near-minimax fits.
#pragma once

#include "core/math_exp.h"

namespace ortolan::math {
inline namespace ORTOLAN_ISA {

constexpr double kLn2 = 0.6931471805599453;

template <class T>
struct LogConstants;
// kTail: (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2, for (1 + s) / (1 - s) in [sqrt(1/2), sqrt(2)]
template <>
struct LogConstants<float> {
  static constexpr float kSmallest = 0x1p-126f, kSqrtHalf = 0.70710677f;
  static constexpr float kTail[] = {0.6666678f, 0.39976865f, 0.2989012f};  // 2^-30.1
};
template <>
struct LogConstants<double> {
  static constexpr double kSmallest = 0x1p-1022, kSqrtHalf = 0.7071067811865475;
  static constexpr double kTail[] = {0.666666666666674,  0.3999999999937705,  0.2857142875146714,
                                     0.222221975733281,  0.18183619612263868, 0.1531255591599044,
                                     0.14811664306173997};  // 2^-59.4
};

// x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); x is positive and finite.
template <class V>
struct ReducedLog {
  V k;
  V f;
};
template <class V>
ORTOLAN_INLINE ReducedLog<V> reduce_log(V x) {
  using C = LogConstants<Element<V>>;
  using I = IntLike<V>;
  constexpr int kBits = kMantissaBits<V>;
  auto denormal = x < (V)C::kSmallest;
  x = select<V>(denormal, x * (V)(kRoundingShift<V>), x);
  I base = bitcast<I>((V)C::kSqrtHalf);
  I bits = subtract_wrapping(bitcast<I>(x), base);
  V k = small_integer_to_float<V>(bits >> kBits);
  k = select<V>(denormal, k - kBits, k);
  I mantissa = bits & (I)(((Element<I>)1 << kBits) - 1);
  return {k, bitcast<V>(mantissa + base) - 1};
}

// log(1 + f) + k ln 2 + correction, with s = f / (2 + f), so that
// log(1 + f) = f - s (f - tail) = f - (f^2/2 - s (f^2/2 + tail)).
template <class V>
ORTOLAN_INLINE V log_of_reduced(V k, V f, V correction) {
  using C = ExpConstants<Element<V>>;
  V s = f / (2 + f), z = s * s;
  V tail = z * polynomial(z, LogConstants<Element<V>>::kTail);
  V half = Element<V>(0.5) * f * f;
  V low = mul_add(k, (V)C::kLn2Low, correction);
  return mul_add(k, (V)C::kLn2High, f - (half - mul_add(s, half + tail, low)));
}

// NaN and infinity pass; log(0) is -infinity and the logarithm of a negative number NaN.
template <class V>
ORTOLAN_INLINE V log_special(V x, V y) {
  y = select<V>(x < (V)kInfinity<V>, y, x);
  y = select<V>(x == 0, (V)-kInfinity<V>, y);
  return select<V>(x < 0, (V)kNaN<V>, y);
}

template <class V>
ORTOLAN_INLINE V log(V x) {
  auto [k, f] = reduce_log(x);
  return log_special(x, log_of_reduced(k, f, (V)0));
}

// log(1 + x): the rounding error of u = 1 + x, divided by u, corrects log(u).
template <class V>
ORTOLAN_INLINE V log1p(V x) {
  V u = 1 + x;
  V lost = select<V>(x < 1, x - (u - 1), 1 - (u - x));
  auto [k, f] = reduce_log(u);
  auto near = k == 0;
  V y = log_of_reduced(k, select<V>(near, x, f), select<V>(near, (V)0, lost / u));
  y = select<V>(x == 0, x, y);
  return log_special(u, y);
}

// A float is computed in double by the functions below.
template <class V>
ORTOLAN_INLINE VecLike<double, V> to_double(V x) {
  return convert<double>(x);
}

// log(a + sqrt(a^2 + 1)) = log1p(a + a^2 / (1 + sqrt(a^2 + 1))); log(2 a) where 1 is nothing beside
// a^2.
template <class V>
ORTOLAN_INLINE V asinh(V x) {
  if constexpr (!kIsDouble<V>) {
    return convert<float>(asinh(to_double(x)));
  } else {
    V a = abs(x), z = a * a;
    auto large = a > 0x1p28;
    V y = log1p(select<V>(large, a - 1, a + z / (1 + sqrt(z + 1))));
    y = select<V>(large, y + kLn2, y);
    return copysign(y, x);
  }
}

// log1p(t + sqrt(2 t + t^2)) with t = x - 1.
template <class V>
ORTOLAN_INLINE V acosh(V x) {
  if constexpr (!kIsDouble<V>) {
    return convert<float>(acosh(to_double(x)));
  } else {
    V t = x - 1;
    auto large = x > 0x1p28;
    V y = log1p(select<V>(large, t, t + sqrt(t * (t + 2))));
    y = select<V>(large, y + kLn2, y);
    return select<V>(x < 1, (V)kNaN<V>, y);
  }
}

// log1p(2 a / (1 - a)) / 2.
template <class V>
ORTOLAN_INLINE V atanh(V x) {
  if constexpr (!kIsDouble<V>) {
    return convert<float>(atanh(to_double(x)));
  } else {
    V a = abs(x);
    return copysign(log1p(2 * a / (1 - a)) * 0.5, x);
  }
}

template <class V>
struct Pair {
  V high;
  V low;
};

// log2(x) of a positive finite double to about 2^-65 of its size, as a short head and a tail. With
// s = f / (2 + f): ln(1 + f) = 2/3 s (3 + s^2 + s^4 rest). Every product that must be exact
// is one of halves, so that contraction cannot change it.
template <class V>
ORTOLAN_INLINE Pair<V> log2_pair(V x) {
  constexpr double kScale = 0x1.ec709dc3a03fdp-1;  // 2 / (3 ln 2)
  constexpr double kScaleHigh = 0x1.ec709d8p-1;
  constexpr double kScaleLow = 0x1.0e80ff5d27f05p-27;
  constexpr double kRest[] = {0.5999999999999996,  0.42857142857168945, 0.3333333332597191,
                              0.2727272834815724,  0.2307683230407125,  0.20004594209941537,
                              0.17509791252090207, 0.18004065518379142};  // 2^-73.3
  auto [k, f] = reduce_log(x);
  V divisor = 2 + f;
  V s = f / divisor, s_high = upper_half(s), d_high = upper_half(divisor);
  V d_low = f - (d_high - 2);
  V s_low = ((f - s_high * d_high) - s_high * d_low) / divisor;
  V z_low = s_low * (s + s_high), z = mul_add(s_high, s_high, z_low);
  V rest = mul_add(z * z, polynomial(z, kRest), z_low);
  V w_high = upper_half(3 + s_high * s_high + rest);
  V w_low = rest - ((w_high - 3) - s_high * s_high);
  V u = s_high * w_high;
  V u_low = mul_add(s_low, w_high, s * w_low);
  V p_high = upper_half(u + u_low);
  V p_low = u_low - (p_high - u);
  V t = kScaleHigh * p_high;
  V t_low = mul_add((V)kScaleLow, p_high, p_low * kScale);
  V high = upper_half(t + t_low + k);
  return {high, t_low - ((high - k) - t)};
}

// 2^(high + low), high of 52 bits and below 1100 in size.
template <class V>
ORTOLAN_INLINE V exp2_pair(V high, V low) {
  constexpr double kLn2Short = 0x1.62e42f8p-1, kLn2Rest = 0x1.be8e7bcd5e4f2p-27;
  auto [n, k] = round_to_integer(high, (V)1);
  V f = high - n, f_high = upper_half(f);
  V t = f_high * kLn2Short;
  V t_low = mul_add((f - f_high) + low, (V)kLn2, f_high * kLn2Rest);
  V r = t + t_low;
  V tail = mul_add(r * r, polynomial(r, ExpConstants<double>::kTail), t_low - (r - t));
  return scale_by_power(1 + (r + tail), k);
}

// |x|^y for double, without C's special cases.
template <class V>
ORTOLAN_INLINE V pow_of_size(V x, V y) {
  auto [log_high, log_low] = log2_pair(x);
  log_high = select<V>(x == 0, (V)-kInfinity<V>, log_high);
  log_high = select<V>(x == (V)kInfinity<V>, x, log_high);
  V estimate = y * log_high;
  V y_high = upper_half(y);
  V high = y_high * log_high;
  V low = mul_add(y - y_high, log_high, y * log_low);
  V limit = copysign((V)1100, estimate);
  auto extreme = abs(estimate) > 1090;
  return exp2_pair(select<V>(extreme, limit, high), select<V>(extreme, (V)0, low));
}

// The same for float operands given as double: short polynomials, result good to 2^-30.
template <class V>
ORTOLAN_INLINE V pow_of_float_size(V x, V y) {
  constexpr double kLogTail[] = {0.6666666560309111, 0.40000345595920533, 0.28536602244804327,
                                 0.23596332373881246};  // 2^-37.5
  constexpr double kExpTail[] = {0.5,
                                 0.16666665561844038,
                                 0.04166645890539319,
                                 0.008333589219767398,
                                 0.0013935504112710458,
                                 0.000197328557379971};  // 2^-33.2
  auto [k, f] = reduce_log(x);
  V s = f / (2 + f), z = s * s;
  V logarithm = mul_add(k, (V)kLn2, mul_add(s * z, polynomial(z, kLogTail), s + s));
  logarithm = select<V>(x == 0, (V)-kInfinity<V>, logarithm);
  logarithm = select<V>(x == (V)kInfinity<V>, x, logarithm);
  V exponent = bound(y * logarithm, -110, 110);
  auto [n, power] = round_to_integer(exponent, (V)kLog2E);
  V r = mul_add(n, (V)-kLn2, exponent);
  return mul_add(r * r, polynomial(r, kExpTail), 1 + r) * power_of_two<V>(power);
}

// C's special cases, given size = |x|^y.
template <class V>
ORTOLAN_INLINE V pow_special(V x, V y, V size) {
  V half = y * Element<V>(0.5), whole = trunc(y), whole_half = trunc(half);
  auto fraction = whole != y;
  auto odd = (whole == y) & (whole_half != half);
  size = select<V>(abs(x) == 1, (V)1, size);
  V signed_size = select<V>(odd, copysign(size, x), size);
  auto undefined = fraction & (x < 0) & (x > (V)-kInfinity<V>);
  V result = select<V>(undefined, (V)kNaN<V>, signed_size);
  result = select<V>((x != x) | (y != y), x + y, result);
  return select<V>((x == 1) | (y == 0), (V)1, result);
}

template <class V>
ORTOLAN_INLINE V pow(V x, V y) {
  if constexpr (kIsDouble<V>)
    return pow_special(x, y, pow_of_size(abs(x), y));
  else
    return pow_special(x, y, convert<float>(pow_of_float_size(to_double(abs(x)), to_double(y))));
}

}  // namespace ORTOLAN_ISA
}  // namespace ortolan::math
