// Elementwise operators of one operand: functions, activations and tests.
#pragma once

#include "kernels/elementary.h"
#include "kernels/elementwise.h"

namespace ortolan::ORTOLAN_ISA {

// Functors that only hand on to a function; half ones take as many floats at once as doubles.
#define ORTOLAN_FUNCTOR(Name, function, costly) \
  struct Name : Unary<Name, costly> {           \
    template <class V>                          \
    ORTOLAN_INLINE V operator()(V x) const {    \
      return function(x);                       \
    }                                           \
  };
#define ORTOLAN_HALF_FUNCTOR(Name, function) \
  struct Name : Unary<Name, kCostly> {       \
    template <class T>                       \
    using Vector = Vec<T, kDoubleLanes>;     \
    template <class V>                       \
    ORTOLAN_INLINE V operator()(V x) const { \
      return elementary::function(x);        \
    }                                        \
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
    return elementary::gelu(x);
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
  float low, high;  // the infinities to find; NaN, which equals nothing, for one not wanted
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

}  // namespace ortolan::ORTOLAN_ISA
