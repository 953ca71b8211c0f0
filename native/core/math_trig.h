// sin, cos, tan, asin, acos, atan. Float arguments are computed in double with shorter
// polynomials: its 29 spare bits replace all corrections.
// The polynomials are our own near-minimax fits.
#pragma once

#include "core/math_base.h"

namespace ortolan::math {
inline namespace ORTOLAN_ISA {

// Coefficients for results of type T; all in double. kSin: (sin r - r) / r^3 and kCos:
// (cos r - 1 + r^2/2) / r^4 in r^2 up to pi/4; kAsin: (asin r - r) / r^3 and kAtan: (atan r - r)
// / r^3 in r^2 up to 1/2. Relative errors of the functions: 2^-27.5 and less, 2^-57.7 and less.
template <class T>
struct TrigConstants;
template <>
struct TrigConstants<float> {
  static constexpr double kSin[] = {-0.16666666640688518, 0.008333329291824619,
                                    -0.00019839308047928643, 2.7180813412292557e-06};
  static constexpr double kCos[] = {0.041666645607499504, -0.0013887312624518962,
                                    2.443274571695446e-05};
  static constexpr double kAsin[] = {0.16666659972675443,  0.07500505373852226,
                                     0.04451672292251944,  0.031809685410260045,
                                     0.014431024540264702, 0.0375273489320839};
  static constexpr double kAtan[] = {-0.33333326900838145, 0.19999488395193052,
                                     -0.14272050350977278, 0.10940741523301065,
                                     -0.07983130953817137, 0.03870985257713259};
};
template <>
struct TrigConstants<double> {
  static constexpr double kSin[] = {-0.1666666666666663,    0.008333333333321896,
                                    -0.000198412698294319,  2.755731357131079e-06,
                                    -2.505074042683587e-08, 1.5895826309286938e-10};
  static constexpr double kCos[] = {0.041666666666666595,   -0.0013888888888873327,
                                    2.4801587288985698e-05, -2.755731421075727e-07,
                                    2.087570437075468e-09,  -1.135868867527397e-11};
  static constexpr double kAsin[] = {
      0.1666666666666676,   0.07499999999970819,   0.044642857174634766, 0.030381942705305705,
      0.02237221508723981,  0.017351609790092846,  0.013980851612436763, 0.011398626567330651,
      0.010782011483540072, 0.0036992246070496624, 0.021726139933250867, -0.021027115330601934,
      0.0326471075051328};
  static constexpr double kAtan[] = {
      -0.3333333333333298,  0.19999999999903,    -0.14285714276371297, 0.11111110658867629,
      -0.09090896223169222, 0.07692073548627058, -0.06663806699166912, 0.05858271352283056,
      -0.05121879536825578, 0.04186141464979504, -0.02742900790158895, 0.010112618494604686};
};

constexpr double kHalfPi = 0x1.921fb54442d18p+0;
constexpr double kHalfPiLow = 0x1.1a62633145c07p-54;
constexpr double kTwoByPi = 0.6366197723675814;

// x = (quadrant + 4 i) pi/2 + high + low, |high| <= pi/4.
template <class V>
struct ReducedAngle {
  IntLike<V> quadrant;
  V high;
  V low;
};

// 64 zeros, then the first bits of 2 / pi.
inline constexpr uint32_t kTwoByPiBits[39] = {
    0,          0,          0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041,
    0xfe5163ab, 0xdebbc561, 0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c, 0xb129a73e,
    0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41, 0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b,
    0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f, 0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d,
    0x7527bac7, 0xebe5f17b, 0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046};

// product = m * (192 bits of 2 / pi from the given place on), modulo 2^192, least word first.
inline void multiply_by_two_by_pi(uint64_t m, int place, uint32_t (&product)[6]) {
  const uint32_t* word = kTwoByPiBits + ((place + 64) >> 5);
  int shift = (place + 64) & 31;
  for (int j = 0; j < 2; ++j) {
    uint32_t factor = static_cast<uint32_t>(m >> (32 * j));
    uint64_t carry = 0;
    for (int i = 0; i + j < 6; ++i) {
      const uint32_t* w = word + (5 - i);
      uint32_t digit = static_cast<uint32_t>((uint64_t{w[0]} << 32 | w[1]) >> (32 - shift));
      carry += uint64_t{digit} * factor + product[i + j];
      product[i + j] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
  }
}

// Payne and Hanek's reduction of a finite x = m 2^e >= 2^20. Modulo 4 quadrants only the bits of
// 2 / pi from place e - 2 on matter; taking 192 of them leaves an error of 2^-137 quadrants.
ORTOLAN_NOINLINE inline ReducedAngle<double> reduce_huge_angle(double x) {
  constexpr uint64_t kImplicit = uint64_t{1} << 52;
  uint64_t bits = bitcast<uint64_t>(x);
  uint32_t product[6] = {};
  multiply_by_two_by_pi((bits & (kImplicit - 1)) | kImplicit,
                        static_cast<int>(bits >> 52) - 1075 - 2, product);
  uint32_t top = product[5];
  int64_t quadrant = ((top >> 29) + 1) >> 1;
  // Against the nearest quadrant the fraction may be negative; its size is summed from the top.
  uint32_t flip = top >> 29 & 1 ? ~0u : 0;
  double high = 0, low = 0, unit = 0x1p-30;
  for (int i = 5; i >= 0; --i, unit *= 0x1p-32) {
    double part = unit * ((product[i] ^ flip) & (i == 5 ? 0x3fffffffu : ~0u));
    double sum = high + part;
    low += part - (sum - high);
    high = sum;
  }
  constexpr double kHead = 0x1.921fb5p+0, kTail = 0x1.110b4611a6263p-26;
  double head = upper_half(high);
  double r = head * kHead;
  double rest = head * kTail + (high - head + low) * kHalfPi;
  double sum = r + rest, lost = rest - (sum - r);
  return flip ? ReducedAngle<double>{quadrant, -sum, -lost}
              : ReducedAngle<double>{quadrant, sum, lost};
}

// Cody and Waite's reduction in double for results of type T. Each product is exact but the last.
template <class T, class V>
ORTOLAN_INLINE ReducedAngle<V> reduce_small_angle(V x) {
  auto [n, k] = round_to_integer(x, (V)kTwoByPi);
  V a = mul_add(n, (V)-0x1.921fb544p+0, x);
  if constexpr (is_same<T, float>) return {k, mul_add(n, (V)-0x1.0b4611a626331p-34, a), (V)0};
  V b = n * -0x1.0b4611a6p-34, c = n * -0x1.3198a2ep-69;
  V s = a + b, t = s + c;
  V s_lost = (a - (s - (s - a))) + (b - (s - a));
  V t_lost = (s - (t - (t - s))) + (c - (t - s));
  V low = mul_add(n, (V)-0x1.b839a252049c1p-104, s_lost + t_lost);
  V high = t + low;
  return {k, high, low - (high - t)};
}

template <class T, class V>
ORTOLAN_INLINE ReducedAngle<V> reduce_angle(V x) {
  ReducedAngle<V> angle = reduce_small_angle<T>(x);
  V size = abs(x);
  auto huge = (size > 0x1p20) & (size < (V)kInfinity<V>);
  if (!any<V>(huge)) [[likely]]
    return angle;
  if constexpr (kIsVector<V>) {
    for (int i = 0; i < kLanesOf<V>; ++i) {
      if (!huge[i]) continue;
      auto [quadrant, high, low] = reduce_huge_angle(size[i]);
      angle.quadrant[i] = x[i] < 0 ? -quadrant : quadrant;
      angle.high[i] = x[i] < 0 ? -high : high;
      angle.low[i] = x[i] < 0 ? -low : low;
    }
  } else {
    auto [quadrant, high, low] = reduce_huge_angle(size);
    angle = x < 0 ? ReducedAngle<V>{-quadrant, -high, -low} : ReducedAngle<V>{quadrant, high, low};
  }
  return angle;
}

template <class V>
struct SinCos {
  V sin;
  V cos;
};
// Of high + low.
template <class T, class V>
ORTOLAN_INLINE SinCos<V> sin_cos_of_reduced(V high, V low) {
  using C = TrigConstants<T>;
  V z = high * high, half = z * 0.5;
  V sin_tail = high * z * polynomial(z, C::kSin);
  V cos_tail = z * z * polynomial(z, C::kCos);
  if constexpr (is_same<T, float>) return {high + sin_tail, (1 - half) + cos_tail};
  V one = 1 - half;
  V lost = (1 - one) - half;
  return {high + (sin_tail + mul_add(-half, low, low)),
          one + (lost + mul_add(-high, low, cos_tail))};
}

// The sine of quadrants * pi/2 + (sin, cos)'s angle.
template <class V>
ORTOLAN_INLINE V turn(SinCos<V> at, IntLike<V> quadrant) {
  V y = select<V>((quadrant & 1) != 0, at.cos, at.sin);
  return bitcast<V>(bitcast<IntLike<V>>(y) ^ (quadrant & 2) << 62);
}

template <class V>
ORTOLAN_INLINE V sin(V x) {
  using T = Element<V>;
  auto [quadrant, high, low] = reduce_angle<T>(convert<double>(x));
  V y = convert<T>(turn(sin_cos_of_reduced<T>(high, low), quadrant));
  return select<V>(x == 0, x, y);
}

template <class V>
ORTOLAN_INLINE V cos(V x) {
  using T = Element<V>;
  auto [quadrant, high, low] = reduce_angle<T>(convert<double>(x));
  return convert<T>(turn(sin_cos_of_reduced<T>(high, low), (quadrant & 3) + 1));
}

template <class V>
ORTOLAN_INLINE V tan(V x) {
  using T = Element<V>;
  auto [quadrant, high, low] = reduce_angle<T>(convert<double>(x));
  auto at = sin_cos_of_reduced<T>(high, low);
  V y = convert<T>(turn(at, quadrant & 1) / turn(at, (quadrant & 1) + 1));
  return select<V>(x == 0, x, y);
}

// asin(a) = s + tail + lost for a <= 1/2 (s = a) and (pi/2 - asin(a)) / 2 beyond, where
// s = sqrt((1 - a) / 2) and `lost` is what its rounding lost.
template <class V>
struct HalfAngle {
  Mask<V> far;
  V s;
  V tail;
  V lost;
};
template <class T, class V>
ORTOLAN_INLINE HalfAngle<V> half_angle(V a) {
  auto far = a > 0.5;
  V z = select<V>(far, (1 - a) * 0.5, a * a);
  V s = select<V>(far, sqrt(z), a);
  V tail = s * z * polynomial(z, TrigConstants<T>::kAsin);
  if constexpr (is_same<T, float>) return {far, s, tail, (V)0};
  V head = upper_half(s);
  V lost = (z - head * head) / (s + head);
  lost = select<V>(far & (s > 0), lost - (s - head), (V)0);
  return {far, s, tail, lost};
}

template <class V>
ORTOLAN_INLINE V asin(V x) {
  using T = Element<V>;
  auto a = convert<double>(abs(x));
  auto [far, s, tail, lost] = half_angle<T>(a);
  auto rest = kHalfPi - 2 * s;
  auto rest_low = ((kHalfPi - rest) - 2 * s) + kHalfPiLow - 2 * (tail + lost);
  return copysign(convert<T>(select(far, rest + rest_low, s + tail)), x);
}

template <class V>
ORTOLAN_INLINE V acos(V x) {
  using T = Element<V>;
  auto wide = convert<double>(x);
  auto [far, s, tail, lost] = half_angle<T>(abs(wide));
  tail += lost;
  auto negative = wide < 0;
  auto twice = 2 * (s + tail);
  auto rest = 2 * kHalfPi - 2 * s;
  auto rest_low = ((2 * kHalfPi - rest) - 2 * s) + (2 * kHalfPiLow - 2 * tail);
  auto angle = copysign(s, wide);
  auto near = kHalfPi - angle;
  auto near_low = ((kHalfPi - near) - angle) + (kHalfPiLow - copysign(tail, wide));
  auto y = select(negative, rest + rest_low, twice);
  return convert<T>(select(far, y, near + near_low));
}

// atan(a) = atan(t) + base with t = a, (a - 1) / (a + 1) or -1 / a: |t| <= 1/2.
template <class V>
ORTOLAN_INLINE V atan(V x) {
  using T = Element<V>;
  auto a = convert<double>(abs(x));
  using W = decltype(a);
  auto middle = a > 0.5, far = a > 2;
  W above = select<W>(far, (W)-1, a - 1), below = select<W>(far, a, a + 1);
  W t = select<W>(middle, above / below, a), z = t * t;
  W base = select<W>(far, (W)kHalfPi, select<W>(middle, (W)(kHalfPi / 2), (W)0));
  W base_low = select<W>(far, (W)kHalfPiLow, select<W>(middle, (W)(kHalfPiLow / 2), (W)0));
  W tail = mul_add(t * z, polynomial(z, TrigConstants<T>::kAtan), base_low);
  W sum = base + t;
  W y = sum + (((base - sum) + t) + tail);
  return copysign(convert<T>(y), x);
}

}  // namespace ORTOLAN_ISA
}  // namespace ortolan::math
