// From a functor to an operator: the row functions that apply it to vectors of any element type,
// and the bases that give an operator its `run`. A functor is the operator's own struct; its
// members are the parameters that `prepare` (or `run`) fills in.
#pragma once

#include "kernels/broadcast.h"

namespace ortolan::ORTOLAN_ISA {

template <class Op>
ORTOLAN_INLINE Op functor(const Row& row) {
  if constexpr (__is_empty(Op))
    return Op{};
  else
    return *static_cast<const Op*>(row.op);
}

// 1 where the mask is set, else 0.
template <class V>
ORTOLAN_INLINE VecLike<uint8_t, V> to_bool(Mask<V> mask) {
  return bitcast<VecLike<uint8_t, V>>(convert<int8_t>(mask)) & 1;
}

// U is the output's element type; for bool the result is a mask.
template <class V, class U, class Result>
ORTOLAN_INLINE void put(char* out, Result result) {
  if constexpr (is_same<U, bool>)
    store(out, to_bool<V>(result));
  else
    store(out, result);
}

template <class Op, class V, class U>
static void unary_row(const Row& row) {
  const Op op = functor<Op>(row);
  const char* x = row.in[0];
  char* out = row.out;
#pragma clang loop unroll(disable)
  for (size_t i = row.groups; i > 0; --i) {
    put<V, U>(out, op(load<V>(x)));
    x += sizeof(V);
    out += kLanesOf<V> * sizeof(U);
  }
}

template <class Op, class V, class U>
static void binary_row(const Row& row) {
  const Op op = functor<Op>(row);
  const char *a = row.in[0], *b = row.in[1];
  const size_t step_a = row.step[0], step_b = row.step[1];
  char* out = row.out;
#pragma clang loop unroll(disable)
  for (size_t i = row.groups; i > 0; --i) {
    put<V, U>(out, op(load<V>(a), load<V>(b)));
    a += step_a;
    b += step_b;
    out += kLanesOf<V> * sizeof(U);
  }
}

template <class V>
constexpr Form form_of(uint8_t operands, bool costly = false, bool swapped = false) {
  return {operands, static_cast<uint8_t>(__builtin_ctz(kLanesOf<V>)), costly, swapped};
}

template <class Op>
ORTOLAN_INLINE const void* parameters(const Op& op) {
  return __is_empty(Op) ? nullptr : &op;
}

// out = op(x)
template <class Op, class V, class U = Element<V>>
Status map(Context& c, const Op& op, bool costly = false) {
  return apply(c, unary_row<Op, V, U>, parameters(op), form_of<V>(1, costly));
}

// out = op(a, b)
template <class Op, class V, class U = Element<V>>
Status combine(Context& c, const Op& op, bool swapped = false) {
  return apply(c, binary_row<Op, V, U>, parameters(op), form_of<V>(2, false, swapped));
}

// The functor that prepare made.
template <class Op>
ORTOLAN_INLINE const Op& prepared(const Context& c) {
  static constexpr Op kEmpty{};
  if constexpr (__is_empty(Op))
    return kEmpty;
  else
    return c.state<Op>();
}

constexpr bool kCostly = true;

template <class Op, bool costly = false, template <class> class Type = Stored>
struct Unary {
  template <class T>
  using Vector = Lanes<T>;
  template <class T>
  static Status run(Context& c) {
    return map<Op, typename Op::template Vector<Type<T>>>(c, prepared<Op>(c), costly);
  }
};

template <class Op, template <class> class Type = Stored>
struct Binary {
  template <class T>
  static Status run(Context& c) {
    return combine<Op, Lanes<Type<T>>>(c, prepared<Op>(c));
  }
};

// The same with a bool output; the functor answers a mask.
template <class Op>
struct UnaryTest {
  template <class T>
  static Status run(Context& c) {
    return map<Op, Lanes<Stored<T>>, bool>(c, prepared<Op>(c));
  }
};

template <class Op, template <class> class Type = Stored>
struct BinaryTest {
  template <class T>
  static Status run(Context& c) {
    return combine<Op, Lanes<Type<T>>, bool>(c, prepared<Op>(c));
  }
};

}  // namespace ortolan::ORTOLAN_ISA
