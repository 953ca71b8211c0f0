// Clang vector types and the traits that let one template serve a scalar and a vector.
// Only types and constants live here, nothing that becomes code, so every instruction set may share
// it.
#pragma once

#include "core/base.h"

// Vectors wider than a register would change the ABI of calls; ours are all inlined.
#pragma clang diagnostic ignored "-Wpsabi"

#ifndef ORTOLAN_ISA
#define ORTOLAN_ISA base
#endif

namespace ortolan {

template <class T, int N>
using Vec = T __attribute__((ext_vector_type(N)));

// V is a scalar (kLanes == 1) or a vector. Loose is the type to load and store through: it may
// alias anything and needs only the alignment of one element.
template <class V>
struct VecTraits {
  using Element = V;
  static constexpr int kLanes = 1;
  template <class T>
  using With = T;
  typedef V Loose __attribute__((may_alias));
};
template <class T, int N>
struct VecTraits<T __attribute__((ext_vector_type(N)))> {
  using Element = T;
  static constexpr int kLanes = N;
  template <class U>
  using With = Vec<U, N>;
  typedef T Loose __attribute__((ext_vector_type(N), aligned(alignof(T)), may_alias));
};

template <class V>
using Element = typename VecTraits<V>::Element;
template <class V>
constexpr int kLanesOf = VecTraits<V>::kLanes;
template <class V>
constexpr bool kIsVector = kLanesOf<V> > 1;

// The vector with as many lanes as V and elements of type T.
template <class T, class V>
using VecLike = typename VecTraits<V>::template With<T>;

template <size_t Bytes>
struct IntOfSize;
template <>
struct IntOfSize<1> {
  using Signed = int8_t;
  using Unsigned = uint8_t;
};
template <>
struct IntOfSize<2> {
  using Signed = int16_t;
  using Unsigned = uint16_t;
};
template <>
struct IntOfSize<4> {
  using Signed = int32_t;
  using Unsigned = uint32_t;
};
template <>
struct IntOfSize<8> {
  using Signed = int64_t;
  using Unsigned = uint64_t;
};

// Integers of the width of V's elements, as many as V has.
template <class V>
using IntLike = VecLike<typename IntOfSize<sizeof(Element<V>)>::Signed, V>;
template <class V>
using UintLike = VecLike<typename IntOfSize<sizeof(Element<V>)>::Unsigned, V>;

// What a comparison of two V gives: bool, or a vector of 0 and -1.
template <class V>
using Mask = decltype(V{} < V{});

}  // namespace ortolan
