// Pow for every pair of types. Mixed pairs are computed in double, integers exactly.
#pragma once

#include "kernels/cast.h"
#include "kernels/elementary.h"
#include "kernels/integer.h"

namespace ortolan::ORTOLAN_ISA {

struct FloatPower {
  template <class V>
  ORTOLAN_INLINE V operator()(V x, V y) const {
    return elementary::pow(x, y);
  }
};

struct Square {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return x * x;
  }
};

struct Cube {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return x * x * x;
  }
};

template <class A, class B>
static void mixed_power_row(const Row& row) {
  const char *a = row.in[0], *b = row.in[1];
  const size_t step_a = row.step[0], step_b = row.step[1];
  char* out = row.out;
#pragma clang loop unroll(disable)
  for (size_t i = row.groups; i > 0; --i) {
    const D x = convert<double>(load<Vec<A, kDoubleLanes>>(a));
    const D y = convert<double>(load<Vec<B, kDoubleLanes>>(b));
    store(out, Convert<A>{}(elementary::pow(x, y)));
    a += step_a;
    b += step_b;
    out += kDoubleLanes * sizeof(A);
  }
}

template <class A, class B>
static void integer_power_row(const Row& row) {
  const char *a = row.in[0], *b = row.in[1];
  char* out = row.out;
  for (size_t i = row.groups; i > 0; --i) {
    store(out, integer_power<A, int64_t>(load<A>(a), load<B>(b)));
    a += row.step[0];
    b += row.step[1];
    out += sizeof(A);
  }
}

struct Pow {
  template <class A, class B>
  static Status run(Context& c) {
    if constexpr (!is_float<A> && !is_float<B>)
      return apply(c, integer_power_row<A, B>, nullptr, form_of<A>(2, kCostly));
    if constexpr (is_float<A>) {
      // Squares and cubes are what models mostly ask for.
      if (element_count(c.input_shape(1)) == 1) {
        const B exponent = *c.input_data<B>(1);
        if (exponent == 2) return map<Square, Lanes<A>>(c, Square{});
        if (exponent == 3) return map<Cube, Lanes<A>>(c, Cube{});
      }
    }
    using V = Vec<A, kDoubleLanes>;
    if constexpr (is_same<A, B> && is_float<A>)
      return apply(c, binary_row<FloatPower, V, A>, nullptr, form_of<V>(2, kCostly));
    return apply(c, mixed_power_row<A, B>, nullptr, form_of<V>(2, kCostly));
  }
};

}  // namespace ortolan::ORTOLAN_ISA
