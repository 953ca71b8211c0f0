// Elementwise operators: a functor each, over the shared walk of broadcast.h.
#include "kernels/elementwise.h"

#include "kernels/cast.h"
#include "kernels/elementary.h"
#include "kernels/fold.h"
#include "kernels/integer.h"
#include "kernels/power.h"

namespace ortolan::ORTOLAN_ISA {

// The unary functors that only hand on to a function. Half: of as many floats as doubles.
#define ORTOLAN_FUNCTOR(Name, function, costly)                           \
  struct Name : Unary<Name, costly> {                                     \
    template <class V>                                                    \
    ORTOLAN_INLINE V operator()(V x) const {                              \
      return function(x);                                                 \
    }                                                                     \
  };
#define ORTOLAN_HALF_FUNCTOR(Name, function)                              \
  struct Name : Unary<Name, kCostly> {                                    \
    template <class T>                                                    \
    using Vector = Vec<T, kDoubleLanes>;                                  \
    template <class V>                                                    \
    ORTOLAN_INLINE V operator()(V x) const {                              \
      return elementary::function(x);                                     \
    }                                                                     \
  };
ORTOLAN_FUNCTOR(Floor, math::floor, !kCostly)
ORTOLAN_FUNCTOR(Ceil, math::ceil, !kCostly)
ORTOLAN_FUNCTOR(Round, math::round_even, !kCostly)
ORTOLAN_FUNCTOR(Sqrt, math::sqrt, !kCostly)
ORTOLAN_FUNCTOR(Exp, elementary::exp, kCostly)
ORTOLAN_FUNCTOR(Log, elementary::log, kCostly)
ORTOLAN_FUNCTOR(Erf, elementary::erf, kCostly)
ORTOLAN_FUNCTOR(Sigmoid, elementary::sigmoid, kCostly)
ORTOLAN_FUNCTOR(Tanh, elementary::tanh, kCostly)
ORTOLAN_HALF_FUNCTOR(Sin, sin)
ORTOLAN_HALF_FUNCTOR(Cos, cos)
ORTOLAN_HALF_FUNCTOR(Tan, tan)
ORTOLAN_HALF_FUNCTOR(Asin, asin)
ORTOLAN_HALF_FUNCTOR(Acos, acos)
ORTOLAN_HALF_FUNCTOR(Atan, atan)
ORTOLAN_HALF_FUNCTOR(Sinh, sinh)
ORTOLAN_HALF_FUNCTOR(Cosh, cosh)
ORTOLAN_HALF_FUNCTOR(Asinh, asinh)
ORTOLAN_HALF_FUNCTOR(Acosh, acosh)
ORTOLAN_HALF_FUNCTOR(Atanh, atanh)
#undef ORTOLAN_HALF_FUNCTOR
#undef ORTOLAN_FUNCTOR

// The one or two float attributes of an operator, as its functor's `alpha` and `beta`.
struct Parameters {
  float alpha, beta;
};

ORTOLAN_SMALL static Status prepare_parameters(Context& c, float alpha, String second, float beta) {
  Parameters* state = c.make_state<Parameters>();
  if (!state) return c.out_of_memory();
  state->alpha = c.attribute_float("alpha", alpha);
  state->beta = c.attribute_float(second, beta);
  return Status::kOk;
}

template <class Op, bool costly = false>
struct Parametric : Unary<Op, costly>, Parameters {
  static Status prepare(Context& c) {
    static_assert(sizeof(Op) == sizeof(Parameters));
    return prepare_parameters(c, Op::kAlpha, Op::kSecond, Op::kBeta);
  }
  static constexpr String kSecond = "beta";
  static constexpr float kBeta = 0;
};

struct Abs : Unary<Abs> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    if constexpr (is_float<Element<V>>) {
      return math::abs(x);
    } else if constexpr (is_signed<Element<V>>) {
      using U = UintLike<V>;
      const U sign = bitcast<U>(x >> (8 * sizeof(Element<V>) - 1));
      return bitcast<V>((bitcast<U>(x) ^ sign) - sign);
    } else {
      return x;
    }
  }
};

struct Neg : Unary<Neg, false, Wrapped> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    if constexpr (is_float<Element<V>>)
      return -x;
    else
      return 0 - x;
  }
};

struct Sign : Unary<Sign> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V one = splat<V>(1), zero = splat<V>(0);
    if constexpr (is_float<Element<V>>) {
      const V sign = select<V>(x > zero, one, select<V>(x < zero, -one, zero));
      return select<V>(x == x, sign, x);
    } else if constexpr (is_signed<Element<V>>) {
      return bitcast<V>((x < zero) - (x > zero));
    } else {
      return select<V>(x != zero, one, zero);
    }
  }
};

struct Reciprocal : Unary<Reciprocal> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return splat<V>(1) / x;
  }
};

struct Relu : Unary<Relu> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return at_least(x, splat<V>(0));
  }
};

// max(x, 0) + log(1 + exp(-|x|)): nothing overflows.
struct Softplus : Unary<Softplus, kCostly> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return at_least(x, splat<V>(0)) + elementary::log1p(elementary::exp(-math::abs(x)));
  }
};

struct Softsign : Unary<Softsign> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return x / (splat<V>(1) + math::abs(x));
  }
};

template <class V>
ORTOLAN_INLINE V hard_sigmoid(V x, V alpha, V beta) {
  return clamp(fma(x, alpha, beta), splat<V>(0), splat<V>(1));
}

struct HardSwish : Unary<HardSwish> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return x * hard_sigmoid(x, splat<V>(1 / Element<V>(6)), splat<V>(0.5f));
  }
};

// x tanh(log(1 + e)) with e = exp(x) is x n / (n + 2), n = e (e + 2). Beyond 30 it is x, and n does
// not overflow below.
struct Mish : Unary<Mish, kCostly> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V e = elementary::exp(at_most(x, splat<V>(30)));
    const V two = splat<V>(2), n = e * (e + two);
    return x * (n / (n + two));
  }
};

struct LeakyRelu : Parametric<LeakyRelu> {
  static constexpr float kAlpha = 0.01f;
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return select<V>(x < splat<V>(0), x * splat<V>(alpha), x);
  }
};

struct Elu : Parametric<Elu, kCostly> {
  static constexpr float kAlpha = 1;
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return select<V>(x < splat<V>(0), splat<V>(alpha) * elementary::expm1(x), x);
  }
};

struct Celu : Parametric<Celu, kCostly> {
  static constexpr float kAlpha = 1;
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V zero = splat<V>(0), scale = splat<V>(alpha);
    const V low = scale * elementary::expm1(x / scale);
    return at_least(x, zero) + at_most(low, zero);
  }
};

struct Selu : Parametric<Selu, kCostly> {
  static constexpr float kAlpha = 1.67326319217681884765625f;
  static constexpr String kSecond = "gamma";
  static constexpr float kBeta = 1.05070102214813232421875f;
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V low = splat<V>(alpha) * elementary::expm1(x);
    return splat<V>(beta) * select<V>(x <= splat<V>(0), low, x);
  }
};

struct ThresholdedRelu : Parametric<ThresholdedRelu> {
  static constexpr float kAlpha = 1;
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return select<V>(x > splat<V>(alpha), x, splat<V>(0));
  }
};

struct HardSigmoid : Parametric<HardSigmoid> {
  static constexpr float kAlpha = 0.2f, kBeta = 0.5f;
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return hard_sigmoid(x, splat<V>(alpha), splat<V>(beta));
  }
};

struct ExactGelu {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V half = splat<V>(0.5f) * x;
    return half + half * elementary::erf(x * splat<V>(0.70710678118654752440));
  }
};

// 0.5 x (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
struct TanhGelu {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V twice = splat<V>(1.59576912160573071176), cubic = splat<V>(0.044715);
    return x * elementary::sigmoid(twice * fma(cubic * x, x * x, x));
  }
};

struct Gelu {
  bool approximate;
  static Status prepare(Context& c) {
    Gelu* state = c.make_state<Gelu>();
    if (!state) return c.out_of_memory();
    const String text = c.attribute_string("approximate", "none");
    state->approximate = text == "tanh";
    if (!state->approximate && !(text == "none"))
      return c.invalid("attribute approximate is \"%\", not \"none\" or \"tanh\"", text);
    return Status::kOk;
  }
  template <class T>
  static Status run(Context& c) {
    if (c.state<Gelu>().approximate) return map<TanhGelu, Lanes<T>>(c, TanhGelu{}, kCostly);
    return map<ExactGelu, Lanes<T>>(c, ExactGelu{}, kCostly);
  }
};

struct IsNaN : UnaryTest<IsNaN> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V x) const {
    return x != x;
  }
};

struct IsInf : UnaryTest<IsInf> {
  float low, high;  // the infinities to find; the other sign's twice where one is not wanted
  static Status prepare(Context& c) {
    IsInf* state = c.make_state<IsInf>();
    if (!state) return c.out_of_memory();
    constexpr float kNone = __builtin_nanf("");
    state->low = c.attribute_int("detect_negative", 1) ? -__builtin_inff() : kNone;
    state->high = c.attribute_int("detect_positive", 1) ? __builtin_inff() : kNone;
    return Status::kOk;
  }
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V x) const {
    return (x == splat<V>(low)) | (x == splat<V>(high));
  }
};

struct Not : UnaryTest<Not> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V x) const {
    return x == splat<V>(0);
  }
};

struct Add : Binary<Add, Wrapped> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};

struct Sub : Binary<Sub, Wrapped> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a - b;
  }
};

struct Mul : Binary<Mul, Wrapped> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a * b;
  }
};

struct Divide {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a / b;
  }
};

struct Div {
  template <class T>
  static Status run(Context& c) {
    if constexpr (is_float<T>) {
      return combine<Divide, Lanes<T>>(c, Divide{});
    } else {
      ORTOLAN_TRY(check_divisors<Wrapped<T>>(c));
      return combine<Quotient, T>(c, Quotient{});
    }
  }
};

struct TruncatedMod {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return math::fmod(a, b);
  }
};

// The sign is b's, also that of a zero.
struct FloorMod {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    const V zero = splat<V>(0), r = math::fmod(a, b);
    const V moved = select<V>((r < zero) == (b < zero), r, r + b);
    return select<V>(r == zero, math::copysign(zero, b), moved);
  }
};

struct Mod {
  bool truncates;
  static Status prepare(Context& c) {
    Mod* state = c.make_state<Mod>();
    if (!state) return c.out_of_memory();
    state->truncates = c.attribute_int("fmod", 0) != 0;
    return Status::kOk;
  }
  template <class T>
  static Status run(Context& c) {
    const bool truncates = c.state<Mod>().truncates;
    if constexpr (is_float<T>) {
      return truncates ? combine<TruncatedMod, T>(c, {}) : combine<FloorMod, T>(c, {});
    } else {
      ORTOLAN_TRY(check_divisors<Wrapped<T>>(c));
      return truncates ? combine<Remainder, T>(c, {}) : combine<FloorRemainder, T>(c, {});
    }
  }
};

struct PRelu : Binary<PRelu> {
  static Status infer(Context& c) {
    const Shape &x = c.input_shape(0), &slope = c.input_shape(1);
    bool fits = slope.rank <= x.rank;
    for (uint32_t i = 0; i < slope.rank && fits; ++i)
      fits = slope[i] == 1 || slope[i] == x[i + x.rank - slope.rank];
    if (!fits)
      return c.invalid("slope % does not broadcast to X %", slope.span(), x.span());
    return c.set_output(0, x);
  }
  template <class V>
  ORTOLAN_INLINE V operator()(V x, V slope) const {
    return select<V>(x < splat<V>(0), x * slope, x);
  }
};

struct Max : Fold<Max> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return maximum(a, b);
  }
};

struct Min : Fold<Min> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return minimum(a, b);
  }
};

struct Sum : Fold<Add> {};

struct Mean {
  // The last of the sums.
  struct Last {
    double inputs;
    template <class V>
    ORTOLAN_INLINE V operator()(V a, V b) const {
      return (a + b) / splat<V>(static_cast<Element<V>>(inputs));
    }
  };
  template <class T>
  static Status run(Context& c) {
    const Last last = {static_cast<double>(c.input_count())};
    using V = Lanes<T>;
    return fold(c, binary_row<Add, V, T>, binary_row<Last, V, T>, &last, form_of<V>(2));
  }
};

struct And : BinaryTest<And> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return (a != splat<V>(0)) & (b != splat<V>(0));
  }
};

struct Or : BinaryTest<Or> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return (a | b) != splat<V>(0);
  }
};

struct Xor : BinaryTest<Xor> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return (a == splat<V>(0)) != (b == splat<V>(0));
  }
};

struct SameTruth {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return (a == splat<V>(0)) == (b == splat<V>(0));
  }
};

struct Equal {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return a == b;
  }
  template <class T>
  static Status run(Context& c) {
    if constexpr (is_same<T, bool>)
      return combine<SameTruth, Lanes<uint8_t>, bool>(c, {});
    else
      return combine<Equal, Lanes<Wrapped<T>>, bool>(c, {});
  }
};

struct Greater : BinaryTest<Greater> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return a > b;
  }
};

struct GreaterOrEqual : BinaryTest<GreaterOrEqual> {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V a, V b) const {
    return a >= b;
  }
};

constexpr bool kSwapped = true;

struct Less {
  template <class T>
  static Status run(Context& c) {
    return combine<Greater, Lanes<T>, bool>(c, {}, kSwapped);
  }
};

struct LessOrEqual {
  template <class T>
  static Status run(Context& c) {
    return combine<GreaterOrEqual, Lanes<T>, bool>(c, {}, kSwapped);
  }
};

template <class T>
struct ClipTo {
  T low, high;  // no NaN
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return clamp(x, splat<V>(low), splat<V>(high));
  }
};

template <class T>
struct Constant {
  T value;
  template <class V>
  ORTOLAN_INLINE V operator()(V) const {
    return splat<V>(value);
  }
};

// Bounds are attributes up to version 6, inputs since 11.
struct Clip {
  bool by_attributes;
  float low, high;
  static Status prepare(Context& c) {
    Clip* state = c.make_state<Clip>();
    if (!state) return c.out_of_memory();
    state->by_attributes = c.since_version() < 11;
    state->low = c.attribute_float("min", -__FLT_MAX__);
    state->high = c.attribute_float("max", __FLT_MAX__);
    return Status::kOk;
  }
  template <class T>
  static Status run(Context& c) {
    const Clip& state = c.state<Clip>();
    // Of what an absent bound leaves, the standard excludes the infinities.
    ClipTo<T> clip = {lowest<T>(), highest<T>()};
    if constexpr (is_same<T, float>) clip = {-__FLT_MAX__, __FLT_MAX__};
    if constexpr (is_same<T, double>) clip = {-__DBL_MAX__, __DBL_MAX__};
    if (state.by_attributes) {
      if constexpr (is_float<T>) clip = {state.low, state.high};
    } else {
      const void *low = nullptr, *high = nullptr;
      ORTOLAN_TRY(find_bounds(c, &low, &high));
      if (low) clip.low = load<T>(low);
      if (high) clip.high = load<T>(high);
    }
    if constexpr (is_float<T>) {
      const T sum = clip.low + clip.high;
      if (clip.low != clip.low || clip.high != clip.high)
        return map<Constant<T>, Lanes<T>>(c, Constant<T>{sum});
    }
    return map<ClipTo<T>, Lanes<T>>(c, clip);
  }

 private:
  ORTOLAN_SMALL static Status find_bounds(const Context& c, const void** low, const void** high) {
    for (size_t i = 1; i < 3; ++i) {
      if (!c.has_input(i)) continue;
      const size_t n = element_count(c.input_shape(i));
      if (n != 1) return c.invalid("a bound has % elements, not one", n);
      *(i == 1 ? low : high) = c.input_data<void>(i);
    }
    return Status::kOk;
  }
};

struct Where {
  template <class Word>
  static void row(const Row& row) {
    using V = Lanes<Word>;
    using Flags = VecLike<uint8_t, V>;
    using I = IntLike<V>;
    const char *flags = row.in[0], *x = row.in[1], *y = row.in[2];
    const size_t step = row.step[0], step_x = row.step[1], step_y = row.step[2];
    char* out = row.out;
#pragma clang loop unroll(disable)
    for (size_t i = row.groups; i > 0; --i) {
      const I flag = convert<Element<I>>(load<Flags>(flags));
      store(out, select<V>(flag != splat<I>(0), load<V>(x), load<V>(y)));
      flags += step;
      x += step_x;
      y += step_y;
      out += sizeof(V);
    }
  }
  template <class Word>
  static Status run(Context& c) {
    return apply(c, row<Word>, nullptr, form_of<Lanes<Word>>(3));
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "elementwise.inc"
