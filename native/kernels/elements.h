// Element types: in what form kernels compute with them, and how floats become integers.
#pragma once

#include "kernels/simd.h"

namespace ortolan::ORTOLAN_ISA {

constexpr size_t kVectorBytes = kLanes * sizeof(float);

template <class T>
using Lanes = Vec<T, static_cast<int>(kVectorBytes / sizeof(T))>;

// The type that elements are computed in. Bool tensors are bytes, and a stranger's file may hold
// other bytes than 0 and 1.
template <class T>
struct StoredOf {
  using Type = T;
};
template <>
struct StoredOf<bool> {
  using Type = uint8_t;
};
template <class T>
using Stored = typename StoredOf<T>::Type;

// Unsigned where only the width matters: such arithmetic wraps, and types of a width share code.
template <class T>
struct WrappedOf {
  using Type = typename IntOfSize<sizeof(T)>::Unsigned;
};
template <>
struct WrappedOf<float> {
  using Type = float;
};
template <>
struct WrappedOf<double> {
  using Type = double;
};
template <class T>
using Wrapped = typename WrappedOf<T>::Type;

template <bool condition, class Yes, class No>
struct If {
  using Type = Yes;
};
template <class Yes, class No>
struct If<false, Yes, No> {
  using Type = No;
};

template <class T>
constexpr bool is_signed = static_cast<T>(-1) < static_cast<T>(0);

template <class T>
constexpr T lowest() {
  if constexpr (is_float<T>)
    return -static_cast<T>(__builtin_inff());
  else if constexpr (is_signed<T>)
    return static_cast<T>(Wrapped<T>{1} << (8 * sizeof(T) - 1));
  else
    return 0;
}
template <class T>
constexpr T highest() {
  if constexpr (is_float<T>)
    return static_cast<T>(__builtin_inff());
  else
    return static_cast<T>(~lowest<T>());
}

// Out of range, floats become integers as on x86 and in onnxruntime there, on every machine: what
// int32 (int64 for the wide types) cannot hold, and NaN, becomes its least value, and narrower
// types take the low bits. This one truncates to int32 or int64.
template <class To, class V>
ORTOLAN_INLINE VecLike<To, V> to_signed(V x) {
  constexpr Element<V> kEnd = sizeof(To) == 4 ? 0x1p31f : 0x1p63f;
  const V end = splat<V>(kEnd);
  const V low = select<V>(x >= -end, x, -end);
  return convert<To>(select<V>(low < end, low, -end));
}

template <class To, class V>
ORTOLAN_INLINE VecLike<To, V> to_integer(V x) {
  if constexpr (sizeof(To) <= 2) {
    return convert<To>(to_signed<int32_t>(x));
  } else if constexpr (is_same<To, uint32_t>) {
    return convert<To>(to_signed<int64_t>(x));
  } else if constexpr (is_same<To, uint64_t>) {
    using U = VecLike<uint64_t, V>;
    const V half = splat<V>(0x1p63f);
    const auto large = x >= half;
    const U low = convert<uint64_t>(to_signed<int64_t>(select<V>(large, x - half, x)));
    return convert<int64_t>(large) ? low ^ splat<U>(uint64_t{1} << 63) : low;
  } else {
    return to_signed<To>(x);
  }
}

}  // namespace ortolan::ORTOLAN_ISA
