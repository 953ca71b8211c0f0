// What a product or a convolution does to each sum before it is final: bias, residual, activation.
// Clamps are applied in the tile's registers, other activations in a pass over rows just written.
#pragma once

#include "core/math.h"
#include "kernels/simd.h"
#include "ortolan_variants.h"

namespace ortolan::ORTOLAN_ISA {

constexpr float kInfinity = __builtin_inff();

enum class Activation : uint8_t {
  kNone,
  kRelu,
  kClip,       // to [alpha, beta]
  kLeakyRelu,  // alpha * x below zero
  kSigmoid,
  kTanh,
  kHardSigmoid,  // alpha * x + beta, clipped to [0, 1]
  kHardSwish,    // x * clip(x / 6 + 1 / 2, 0, 1)
  kSilu,         // x * sigmoid(alpha * x)
  kGelu,         // exact, by erf
};

template <Activation A>
struct ActivationTag {
  static constexpr Activation kValue = A;
};

// For C[M][N]: C = activation(sum + bias + residual).
struct Epilogue {
  const float* bias = nullptr;      // [N] or null
  const float* residual = nullptr;  // [M][ld_residual] or null; must not overlap C
  size_t ld_residual = 0;
  Activation activation = Activation::kNone;
  float alpha = 0;
  float beta = 0;
};

// Bounds that the registers of a tile are clamped to; NaN stays NaN.
struct Bounds {
  float low = -kInfinity;
  float high = kInfinity;
};

ORTOLAN_INLINE Bounds clamp_bounds(const Epilogue& e) {
  if (e.activation == Activation::kRelu) return {0, kInfinity};
  if (e.activation == Activation::kClip) return {e.alpha, e.beta};
  return {};
}

// Written with instructions where a comparison and a selection would become relaxed_min and
// relaxed_max, which may drop a NaN.
template <class V>
ORTOLAN_INLINE V clamp_sums(V v, V low, V high) {
#ifdef __wasm_simd128__
  return __builtin_wasm_pmin_f32x4(__builtin_wasm_pmax_f32x4(v, low), high);
#else
  return clamp(v, low, high);
#endif
}

ORTOLAN_INLINE float clamp_sums(float v, float low, float high) { return clamp(v, low, high); }

// c[rows][columns], row stride ldc: c = op(c).
template <class Op>
ORTOLAN_INLINE void map_rows(float* c, size_t ldc, size_t rows, size_t columns, Op op) {
  if (columns == ldc) {
    columns *= rows;
    rows = rows ? 1 : 0;
  }
  for (; rows; --rows, c += ldc)
    for (size_t n = 0; n < columns; n += kLanes) {
      const size_t rest = columns - n;  // one call of op, to keep its code small
      const F v = op(rest < kLanes ? load_part<F>(c + n, rest) : load<F>(c + n));
      if (rest < kLanes)
        store_part(c + n, v, rest);
      else
        store(c + n, v);
    }
}

// x / (1 + 2^(x * factor)), to 4 ulp or, where the result vanishes, 2^-120.
template <class V>
ORTOLAN_INLINE V quick_silu(V x, float factor) {
  // 2^r for |r| <= 1 / 2, to 2^-23.1
  static constexpr float kPower[] = {1,           0.693147f,     0.24022242f,
                                     0.05550734f, 0.0096715130f, 0.0013264727f};
  const V bounded = clamp_sums(x * splat<V>(factor), splat<V>(-126), splat<V>(126));
  auto [n, k] = math::round_to_integer(bounded, splat<V>(1));
  return x / fma(math::polynomial(bounded - n, kPower), math::power_of_two<V>(k), splat<V>(1));
}

// The activations that a tile does not apply itself; V is F or float.
template <class V>
ORTOLAN_INLINE V activate(const Epilogue& e, V x) {
  const V zero = splat<V>(0), half = splat<V>(0.5f), one = splat<V>(1);
  const V alpha = splat<V>(e.alpha), beta = splat<V>(e.beta);
  switch (e.activation) {
    case Activation::kNone:
    case Activation::kRelu:
    case Activation::kClip:
      return x;
    case Activation::kLeakyRelu:
      return x < zero ? x * alpha : x;
    case Activation::kSigmoid:
      return math::sigmoid(x);
    case Activation::kTanh:
      return math::tanh(x);
    case Activation::kHardSigmoid:
      return clamp_sums(fma(x, alpha, beta), zero, one);
    case Activation::kHardSwish:
      return x * clamp_sums(fma(x, splat<V>(1 / 6.f), half), zero, one);
    case Activation::kSilu:
      return quick_silu(x, -e.alpha * 1.44269504f);
    case Activation::kGelu:
      return math::gelu(x);
  }
  return x;
}

// The activation of `e` over c[rows][columns]; nothing for those that a tile applies itself.
ORTOLAN_NOINLINE inline void activation_pass(const Epilogue& e, float* c, size_t ldc, size_t rows,
                                             size_t columns) {
  if (e.activation <= Activation::kClip) return;
  if constexpr (!variants::kActivations.is_built) {  // small and slow
    for (size_t i = 0; i < rows; ++i)
      for (size_t n = 0; n < columns; ++n) c[i * ldc + n] = activate(e, c[i * ldc + n]);
    return;
  }
  if constexpr (kSmall) return map_rows(c, ldc, rows, columns, [&](F x) { return activate(e, x); });
  auto map = [&](auto kind) {  // a loop for each, without a branch inside
    map_rows(c, ldc, rows, columns, [&](F x) {
      Epilogue known = e;
      known.activation = decltype(kind)::kValue;
      return activate(known, x);
    });
  };
  switch (e.activation) {
    case Activation::kNone:
    case Activation::kRelu:
    case Activation::kClip:
      return;
    case Activation::kLeakyRelu:
      return map(ActivationTag<Activation::kLeakyRelu>());
    case Activation::kSigmoid:
      return map(ActivationTag<Activation::kSigmoid>());
    case Activation::kTanh:
      return map(ActivationTag<Activation::kTanh>());
    case Activation::kHardSigmoid:
      return map(ActivationTag<Activation::kHardSigmoid>());
    case Activation::kHardSwish:
      return map(ActivationTag<Activation::kHardSwish>());
    case Activation::kSilu:
      return map(ActivationTag<Activation::kSilu>());
    case Activation::kGelu:
      return map(ActivationTag<Activation::kGelu>());
  }
}

}  // namespace ortolan::ORTOLAN_ISA
