// Vectors of the instruction set that this object is compiled for: loads, stores, arithmetic
// helpers, reductions. All functions are always inlined and also take scalars, so one template
// serves full vectors and tails. `F` is the natural float vector, kLanes wide.
#pragma once

#include "core/math_base.h"

namespace ortolan::ORTOLAN_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kDoubleLanes = kLanes / 2;

using F = Vec<float, kLanes>;
using D = Vec<double, kDoubleLanes>;

// Element alignment is enough for p.
template <class V>
ORTOLAN_INLINE V load(const void* p) {
  return *static_cast<const typename VecTraits<V>::Loose*>(p);
}
template <class V>
ORTOLAN_INLINE void store(void* p, V v) {
  *static_cast<typename VecTraits<V>::Loose*>(p) = v;
}

// The same past the caches, for much that is not read soon: lines need not be read before they are
// written. Only whole lines, at their beginning, are worth it; `end_stream` comes before readers.
template <class V>
ORTOLAN_INLINE void stream(void* p, V v) {
  if constexpr (sizeof(V) == 64)
    __builtin_nontemporal_store(v, static_cast<V*>(p));
  else
    store(p, v);
}
ORTOLAN_INLINE void end_stream() {
#if defined(__AVX512F__)
  __builtin_ia32_sfence();
#endif
}

// n < 2 * Piece elements in pieces of Piece, Piece / 2, ... 1: each a plain load and store.
template <int Piece, class T>
ORTOLAN_INLINE void copy_part(T* to, const T* from, size_t n) {
  if (n & Piece) copy(to, from, Piece * sizeof(T));
  if constexpr (Piece > 1) copy_part<Piece / 2>(to + (n & Piece), from + (n & Piece), n);
}

// The first n < kLanesOf<V> elements; the other lanes are zero.
template <class V>
ORTOLAN_INLINE V load_part(const void* p, size_t n) {
  Element<V> lanes[kLanesOf<V>] = {};
  copy_part<kLanesOf<V> / 2>(lanes, static_cast<const Element<V>*>(p), n);
  return load<V>(lanes);
}
template <class V>
ORTOLAN_INLINE void store_part(void* p, V v, size_t n) {
  Element<V> lanes[kLanesOf<V>];
  store(lanes, v);
  copy_part<kLanesOf<V> / 2>(static_cast<Element<V>*>(p), lanes, n);
}

template <class V>
ORTOLAN_INLINE V splat(Element<V> s) {
  return (V)s;
}

// The first `lanes` elements, at most kLanesOf<V>.
template <class V>
ORTOLAN_INLINE V load_lanes(const Element<V>* p, size_t lanes, Element<V> rest) {
  if (lanes == kLanesOf<V>) return load<V>(p);
  Element<V> values[kLanesOf<V>];
  store(values, splat<V>(rest));
  copy_part<kLanesOf<V>>(values, p, lanes);
  return load<V>(values);
}

template <class V>
ORTOLAN_INLINE void store_lanes(Element<V>* p, V v, size_t lanes) {
  if (lanes == kLanesOf<V>)
    store(p, v);
  else
    store_part(p, v, lanes);
}

// The number of each lane.
template <class V>
ORTOLAN_INLINE IntLike<V> lane_numbers() {
  IntLike<V> numbers;
  for (int i = 0; i < kLanesOf<V>; ++i) numbers[i] = i;
  return numbers;
}

using math::at_least;
using math::at_most;
using math::bitcast;
using math::convert;
using math::select;

// a * b + c, rounded once where the instruction set has such an instruction.
template <class V>
ORTOLAN_INLINE V fma(V a, V b, V c) {
  return math::mul_add(a, b, c);
}

// As numpy's minimum and maximum: a NaN on either side is the result.
template <class V>
ORTOLAN_INLINE V minimum(V a, V b) {
#if defined(__aarch64__) && !defined(ORTOLAN_BASE)
  if constexpr (is_float<Element<V>>) return __builtin_elementwise_minimum(a, b);
#endif
  V least = select<V>(a < b, a, b);
  if constexpr (is_float<Element<V>>) return select<V>(a != a, a, least);
  return least;
}
template <class V>
ORTOLAN_INLINE V maximum(V a, V b) {
#if defined(__aarch64__) && !defined(ORTOLAN_BASE)
  if constexpr (is_float<Element<V>>) return __builtin_elementwise_maximum(a, b);
#endif
  V most = select<V>(a > b, a, b);
  if constexpr (is_float<Element<V>>) return select<V>(a != a, a, most);
  return most;
}

// NaN stays; the bounds must not be NaN.
template <class V>
ORTOLAN_INLINE V clamp(V x, V low, V high) {
  return at_most(at_least(x, low), high);
}

// Over all lanes, by halves: the order depends on the number of lanes only.
template <class V>
ORTOLAN_INLINE Element<V> reduce_sum(V v) {
  if constexpr (kLanesOf<V> == 1)
    return v;
  else if constexpr (kLanesOf<V> == 2)
    return v[0] + v[1];
  else
    return reduce_sum<Vec<Element<V>, kLanesOf<V> / 2>>(v.lo + v.hi);
}
template <class V>
ORTOLAN_INLINE Element<V> reduce_max(V v) {
  if constexpr (kLanesOf<V> == 1)
    return v;
  else if constexpr (kLanesOf<V> == 2)
    return maximum<Element<V>>(v[0], v[1]);
  else
    return reduce_max(maximum<Vec<Element<V>, kLanesOf<V> / 2>>(v.lo, v.hi));
}
template <class V>
ORTOLAN_INLINE Element<V> reduce_min(V v) {
  if constexpr (kLanesOf<V> == 1)
    return v;
  else if constexpr (kLanesOf<V> == 2)
    return minimum<Element<V>>(v[0], v[1]);
  else
    return reduce_min(minimum<Vec<Element<V>, kLanesOf<V> / 2>>(v.lo, v.hi));
}

}  // namespace ortolan::ORTOLAN_ISA
