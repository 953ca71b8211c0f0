// Pieces that the elementary functions share: lane selection, rounding, powers of two, polynomials.
// V is float, double or a vector of them. -ffp-contract=fast overrides the contract pragma, so a
// product whose rounding matters is exact by construction: contraction cannot spoil a result.
#pragma once

#include "core/vector.h"

namespace ortolan::math {
inline namespace ORTOLAN_ISA {

template <class V>
constexpr bool kIsDouble = is_same<Element<V>, double>;

template <class V>
constexpr int kMantissaBits = kIsDouble<V> ? 52 : 23;

template <class V>
constexpr Element<V> kInfinity = __builtin_inff();
template <class V>
constexpr Element<V> kNaN = __builtin_nanf("");

template <class V>
ORTOLAN_INLINE V splat(double s) {
  return (V) static_cast<Element<V>>(s);
}

// The same bits as another type of the same size.
template <class To, class From>
ORTOLAN_INLINE To bitcast(From v) {
  return __builtin_bit_cast(To, v);
}

#ifdef __wasm_relaxed_simd__
// Relaxed wasm has special instructions for registers only; wider vectors take them by halves.
template <class V, class Function, class... In>
ORTOLAN_INLINE V by_halves(Function function, In... in) {
  V result;
  result.lo = function(+in.lo...);
  result.hi = function(+in.hi...);
  return result;
}
#endif

// On relaxed wasm the compiler would make x < y ? y : x a relaxed maximum, which may drop a NaN;
// its lane selection, given a full mask, is exact and fast.
template <class V>
ORTOLAN_INLINE V select(Mask<V> mask, V yes, V no) {
#ifdef __wasm_relaxed_simd__
  using I = IntLike<V>;
  constexpr size_t kWidth = sizeof(Element<V>);
  if constexpr (kIsVector<V> && sizeof(V) > 16) {
    using Half = Vec<Element<V>, kLanesOf<V> / 2>;
    return by_halves<V>([](Mask<Half> m, Half y, Half n) { return select(m, y, n); }, mask, yes,
                        no);
  } else if constexpr (kIsVector<V> && sizeof(V) == 8 && kWidth == 4) {  // half a register
    using Whole = Vec<Element<V>, 4>;
    return select<Whole>(__builtin_shufflevector(mask, mask, 0, 1, 0, 1),
                         __builtin_shufflevector(yes, yes, 0, 1, 0, 1),
                         __builtin_shufflevector(no, no, 0, 1, 0, 1))
        .lo;
  } else if constexpr (sizeof(V) == 16 && kWidth == 8) {
    return bitcast<V>(
        __builtin_wasm_relaxed_laneselect_i64x2(bitcast<I>(yes), bitcast<I>(no), bitcast<I>(mask)));
  } else if constexpr (sizeof(V) == 16 && kWidth == 4) {
    return bitcast<V>(
        __builtin_wasm_relaxed_laneselect_i32x4(bitcast<I>(yes), bitcast<I>(no), bitcast<I>(mask)));
  }
#endif
  return mask ? yes : no;
}

// Each element converted to T (float to integer truncates; out of range is undefined).
template <class T, class V>
ORTOLAN_INLINE VecLike<T, V> convert(V v) {
  if constexpr (kIsVector<V>)
    return __builtin_convertvector(v, VecLike<T, V>);
  else
    return static_cast<T>(v);
}

template <class V>
ORTOLAN_INLINE bool any(Mask<V> mask) {
  if constexpr (kIsVector<V>)
    return __builtin_reduce_or(mask) != 0;
  else
    return mask;
}

// a * b + c with one or two roundings. Relaxed wasm has no scalar form: a scalar takes the vector
// instruction so that it agrees with the vectors.
template <class V>
ORTOLAN_INLINE V mul_add(V a, V b, V c) {
#ifdef __wasm_relaxed_simd__
  if constexpr (!kIsVector<V>) {
    using Wide = Vec<V, 16 / sizeof(V)>;
    return mul_add<Wide>((Wide)a, (Wide)b, (Wide)c)[0];
  } else if constexpr (sizeof(V) > 16) {
    using Half = Vec<Element<V>, kLanesOf<V> / 2>;
    return by_halves<V>([](Half x, Half y, Half z) { return mul_add(x, y, z); }, a, b, c);
  } else if constexpr (is_same<V, Vec<float, 4>>) {
    return __builtin_wasm_relaxed_madd_f32x4(a, b, c);
  } else if constexpr (is_same<V, Vec<double, 2>>) {
    return __builtin_wasm_relaxed_madd_f64x2(a, b, c);
  }
#endif
  return a * b + c;
}

// The larger or smaller of x and a bound that is not NaN: x where it is NaN.
template <class V>
ORTOLAN_INLINE V at_least(V x, V low) {
#if defined(__aarch64__) && !defined(ORTOLAN_BASE)  // it would make +0 of -0
  if constexpr (is_float<Element<V>>) return __builtin_elementwise_maximum(x, low);
#elif defined(__wasm_simd128__)
  if constexpr (is_same<V, Vec<float, 4>>) return __builtin_wasm_pmax_f32x4(x, low);
#endif
  return select<V>(x < low, low, x);
}
template <class V>
ORTOLAN_INLINE V at_most(V x, V high) {
#if defined(__aarch64__) && !defined(ORTOLAN_BASE)
  if constexpr (is_float<Element<V>>) return __builtin_elementwise_minimum(x, high);
#elif defined(__wasm_simd128__)
  if constexpr (is_same<V, Vec<float, 4>>) return __builtin_wasm_pmin_f32x4(x, high);
#endif
  return select<V>(high < x, high, x);
}

// A constant in all lanes. Engines of WebAssembly make a vector constant anew for each use, with
// three instructions; from memory it takes one. The address is hidden to keep it there.
template <class V>
ORTOLAN_INLINE V stored(const Element<V>& constant) {
#ifdef __wasm_simd128__
  if constexpr (kIsVector<V>) {
    const Element<V>* place = &constant;
    __asm__("" : "+r"(place));
    return (V)*place;
  }
#endif
  return (V)constant;
}
template <class T, auto value>
constexpr T kStored = static_cast<T>(value);

// coefficients[0] + x * (coefficients[1] + x * ...)
template <int First = 0, class V, int N>
ORTOLAN_INLINE V polynomial(V x, const Element<V> (&coefficients)[N]) {
  const V c = stored<V>(coefficients[First]);
  if constexpr (First == N - 1)
    return c;
  else
    return mul_add(polynomial<First + 1>(x, coefficients), x, c);
}

template <class V>
ORTOLAN_INLINE V abs(V x) {
  return __builtin_elementwise_abs(x);
}
template <class V>
ORTOLAN_INLINE V copysign(V size, V sign) {
  using U = UintLike<V>;
  U top = (U)((Element<U>)1 << (sizeof(Element<V>) * 8 - 1));
  return bitcast<V>((bitcast<U>(size) & ~top) | (bitcast<U>(sign) & top));
}
template <class V>
ORTOLAN_INLINE V sqrt(V x) {
  return __builtin_elementwise_sqrt(x);
}

// The upper 26 bits of a double: the product of two such is exact.
template <class V>
ORTOLAN_INLINE V upper_half(V x) {
  using U = UintLike<V>;
  return bitcast<V>(bitcast<U>(x) & (U)(~uint64_t{0} << 27));
}

// Modulo 2^bits: a NaN or a huge argument leads to any integer whatever on its way.
template <class I>
ORTOLAN_INLINE I add_wrapping(I a, I b) {
  using U = UintLike<I>;
  return bitcast<I>(bitcast<U>(a) + bitcast<U>(b));
}
template <class I>
ORTOLAN_INLINE I subtract_wrapping(I a, I b) {
  using U = UintLike<I>;
  return bitcast<I>(bitcast<U>(a) - bitcast<U>(b));
}

// 2^mantissa bits: adding it rounds to an integer, the sum's low bits are that integer.
template <class V>
constexpr Element<V> kRoundingShift = kIsDouble<V> ? 0x1p52 : 0x1p23;

#if defined(__SSE4_1__) || defined(__aarch64__) || defined(__wasm__)
template <class V>
ORTOLAN_INLINE V round_even(V x) {
  return __builtin_elementwise_roundeven(x);
}
template <class V>
ORTOLAN_INLINE V floor(V x) {
  return __builtin_elementwise_floor(x);
}
template <class V>
ORTOLAN_INLINE V ceil(V x) {
  return __builtin_elementwise_ceil(x);
}
template <class V>
ORTOLAN_INLINE V trunc(V x) {
  return __builtin_elementwise_trunc(x);
}
#else
// Without such instructions the builtins would call libm. Values beyond the shift are integers.
template <class V>
ORTOLAN_INLINE V round_even(V x) {
  V size = abs(x), shift = (V)kRoundingShift<V>;
  V rounded = copysign((size + shift) - shift, x);
  return select<V>(size < shift, rounded, x);
}
template <class V>
ORTOLAN_INLINE V floor(V x) {
  V r = round_even(x);
  return select<V>(r > x, r - 1, r);
}
template <class V>
ORTOLAN_INLINE V ceil(V x) {
  V r = round_even(x);
  return copysign(select<V>(r < x, r + 1, r), x);
}
template <class V>
ORTOLAN_INLINE V trunc(V x) {
  return copysign(floor(abs(x)), x);
}
#endif

// The nearest integer to x, |x| < 2^(mantissa bits - 2), as a float and as an integer. The shift
// of 1.5 * 2^bits keeps the sum's exponent for both signs.
template <class V>
struct Rounded {
  V value;
  IntLike<V> integer;
};
template <class V>
ORTOLAN_INLINE Rounded<V> round_to_integer(V x, V scale) {
  using I = IntLike<V>;
  V shift = (V)(kRoundingShift<V> * Element<V>(1.5));
  V sum = mul_add(x, scale, shift);
  return {sum - shift, subtract_wrapping(bitcast<I>(sum), bitcast<I>(shift))};
}
// Back from a small integer; there is no such conversion for int64 before AVX-512.
template <class V>
ORTOLAN_INLINE V small_integer_to_float(IntLike<V> n) {
  using I = IntLike<V>;
  V shift = (V)(kRoundingShift<V> * Element<V>(1.5));
  return bitcast<V>(add_wrapping(bitcast<I>(shift), n)) - shift;
}

// 2^n for n in the range of normal numbers.
template <class V>
ORTOLAN_INLINE V power_of_two(IntLike<V> n) {
  constexpr int kBias = kIsDouble<V> ? 1023 : 127;
  return bitcast<V>(add_wrapping(n, (IntLike<V>)kBias) << kMantissaBits<V>);
}
// y * 2^n for |n| up to twice that range, with one rounding when the result is denormal.
template <class V>
ORTOLAN_INLINE V scale_by_power(V y, IntLike<V> n) {
#ifdef __AVX512DQ__
  if constexpr (is_same<V, Vec<float, 16>>)
    return __builtin_ia32_scalefps512_mask(y, convert<float>(n), y, -1, 4);
  else if constexpr (is_same<V, Vec<double, 8>>)
    return __builtin_ia32_scalefpd512_mask(y, convert<double>(n), y, -1, 4);
#endif
  IntLike<V> half = n >> 1;
  return y * power_of_two<V>(half) * power_of_two<V>(n - half);
}

// A finite, non-zero y: the remainder of integer division, which is exact.
template <class T>
ORTOLAN_NOINLINE inline T remainder_of_sizes(T x, T y) {
  using U = UintLike<T>;
  constexpr int kBits = kMantissaBits<T>;
  constexpr U kImplicit = U{1} << kBits;
  auto field = [](T v) { return static_cast<int>(bitcast<U>(v) >> kBits); };
  auto digits = [&](T v) -> uint64_t {
    return (bitcast<U>(v) & (kImplicit - 1)) | (field(v) > 0 ? kImplicit : 0);
  };
  int x_place = max(field(x), 1), y_place = max(field(y), 1);
  uint64_t divisor = digits(y), rest = digits(x) % divisor;
  for (int left = x_place - y_place; left > 0;) {
    int step = min(left, 63 - kBits);
    rest = (rest << step) % divisor;
    left -= step;
  }
  constexpr int kBias = kIsDouble<T> ? 1023 : 127;
  return scale_by_power(static_cast<T>(static_cast<int64_t>(rest)),
                        static_cast<IntLike<T>>(y_place - kBias - kBits));
}

// As C's fmod: exact, with the sign of x.
template <class V>
ORTOLAN_INLINE V fmod(V x, V y) {
  if constexpr (kIsVector<V>) {
    V result;
    for (int i = 0; i < kLanesOf<V>; ++i) result[i] = fmod<Element<V>>(x[i], y[i]);
    return result;
  } else {
    V a = abs(x), b = abs(y);
    if (!(a < kInfinity<V>) || b == 0 || y != y) return kNaN<V> * x;
    return a < b ? x : copysign(remainder_of_sizes(a, b), x);
  }
}

}  // namespace ORTOLAN_ISA
}  // namespace ortolan::math
