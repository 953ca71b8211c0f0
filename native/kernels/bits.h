// Operators on the bits of integers, and Shrink.
#pragma once

#include "kernels/elementwise.h"

namespace ortolan::ORTOLAN_ISA {

struct BitwiseAnd : Binary<BitwiseAnd> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a & b;
  }
};

struct BitwiseOr : Binary<BitwiseOr> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a | b;
  }
};

struct BitwiseXor : Binary<BitwiseXor> {
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a ^ b;
  }
};

struct BitwiseNot : Unary<BitwiseNot> {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return ~x;
  }
};

// Beyond the width of the type only the sign is left.
struct ShiftLeft {
  template <class T>
  ORTOLAN_INLINE T operator()(T x, T count) const {
    return count < 8 * sizeof(T) ? static_cast<T>(x << count) : T{0};
  }
};
struct ShiftRight {
  template <class T>
  ORTOLAN_INLINE T operator()(T x, T count) const {
    constexpr Wrapped<T> kLast = 8 * sizeof(T) - 1;
    const bool within = static_cast<Wrapped<T>>(count) <= kLast;
    if constexpr (is_signed<T>)
      return static_cast<T>(x >> (within ? static_cast<int>(count) : static_cast<int>(kLast)));
    else
      return within ? static_cast<T>(x >> count) : T{0};
  }
};

struct BitShift {
  bool left;
  static Status prepare(Context& c) {
    BitShift* state = c.make_state<BitShift>();
    if (!state) return c.out_of_memory();
    const String direction = c.attribute_string("direction", "");
    state->left = direction == "LEFT";
    if (!state->left && !(direction == "RIGHT"))
      return c.invalid("direction \"%\" is not \"LEFT\" or \"RIGHT\"", direction);
    return Status::kOk;
  }
  template <class T>
  static Status run(Context& c) {
    if (c.state<BitShift>().left) return combine<ShiftLeft, Wrapped<T>>(c, {});
    return combine<ShiftRight, T>(c, {});
  }
};

// x + bias below -lambd, x - bias above lambd, else 0; integers by way of double.
struct Shrink {
  float lambd, bias;
  static Status prepare(Context& c) {
    Shrink* state = c.make_state<Shrink>();
    if (!state) return c.out_of_memory();
    state->lambd = c.attribute_float("lambd", 0.5f);
    state->bias = c.attribute_float("bias", 0);
    return Status::kOk;
  }
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    if constexpr (is_float<Element<V>>) {
      const V limit = splat<V>(lambd), shift = splat<V>(bias);
      return select<V>(x < -limit, x + shift, select<V>(x > limit, x - shift, splat<V>(0)));
    } else {
      return to_integer<V>((*this)(static_cast<double>(x)));
    }
  }
  template <class T>
  static Status run(Context& c) {
    using V = typename If<is_float<T>, Lanes<T>, T>::Type;
    return map<Shrink, V>(c, c.state<Shrink>());
  }
};

}  // namespace ortolan::ORTOLAN_ISA
