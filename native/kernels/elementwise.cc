// Elementwise operators: a functor each, over the shared walk of broadcast.h.
#include "kernels/elementwise.h"

#include "kernels/bits.h"
#include "kernels/cast.h"
#include "kernels/fold.h"
#include "kernels/integer.h"
#include "kernels/power.h"
#include "kernels/unary.h"

namespace ortolan::ORTOLAN_ISA {

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
    if (!fits) return c.invalid("slope % does not broadcast to X %", slope.span(), x.span());
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
    if constexpr (is_same<T, Text>)
      return portable::equal_texts(c);
    else if constexpr (is_same<T, bool>)
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
