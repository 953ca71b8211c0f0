// The activations that com.microsoft's FusedGemm names, over rows that were just computed. They are
// not the epilogue's: those are few, so that convolutions stay small.
#pragma once

#include "core/context.h"
#include "kernels/elementary.h"
#include "kernels/epilogue.h"

namespace ortolan::ORTOLAN_ISA {

struct FusedActivation {
  enum Kind : uint8_t {
    kNone,
    kElu,
    kHardSigmoid,
    kLeakyRelu,
    kParametricSoftplus,
    kRelu,
    kScaledTanh,
    kSelu,
    kSigmoid,
    kSoftplus,
    kSoftsign,
    kTanh,
    kThresholdedRelu,
  } kind = kNone;
  float alpha = 0, beta = 0, gamma = 0;

  ORTOLAN_NOINLINE Status read(const Context& c) {
    static constexpr String kNames[] = {
        "Elu",  "HardSigmoid", "LeakyRelu", "ParametricSoftplus", "Relu", "ScaledTanh",
        "Selu", "Sigmoid",     "Softplus",  "Softsign",           "Tanh", "ThresholdedRelu"};
    if (!c.attribute("activation")) return Status::kOk;
    const String name = c.attribute_string("activation", "");
    alpha = c.attribute_float("activation_alpha", 0);
    beta = c.attribute_float("activation_beta", 0);
    gamma = c.attribute_float("activation_gamma", 0);
    for (size_t i = 0; i < sizeof(kNames) / sizeof(*kNames); ++i)
      if (name == kNames[i]) {
        kind = static_cast<Kind>(i + 1);
        return Status::kOk;
      }
    return c.fail(Status::kNotImplemented, "activation \"%\" is not supported", name);
  }

  ORTOLAN_NOINLINE void apply(float* y, size_t n) const {
    const auto map = [&](auto op) { map_rows(y, n, 1, n, op); };
    const F zero = splat<F>(0), one = splat<F>(1);
    const F a = splat<F>(alpha), b = splat<F>(beta), g = splat<F>(gamma);
    const auto softplus = [=](F x) {
      return at_least(x, zero) + elementary::log1p(elementary::exp(-math::abs(x)));
    };
    switch (kind) {
      case kNone:
        return;
      case kElu:
        return map([=](F x) { return x < zero ? a * elementary::expm1(x) : x; });
      case kHardSigmoid:
        return map([=](F x) { return clamp(fma(x, a, b), zero, one); });
      case kLeakyRelu:
        return map([=](F x) { return x < zero ? x * a : x; });
      case kParametricSoftplus:
        return map([=](F x) { return a * softplus(x * b); });
      case kRelu:
        return map([=](F x) { return at_least(x, zero); });
      case kScaledTanh:
        return map([=](F x) { return a * elementary::tanh(x * b); });
      case kSelu:
        return map([=](F x) { return g * (x < zero ? a * elementary::expm1(x) : x); });
      case kSigmoid:
        return map([](F x) { return elementary::sigmoid(x); });
      case kSoftplus:
        return map([=](F x) { return softplus(x); });
      case kSoftsign:
        return map([=](F x) { return x / (one + math::abs(x)); });
      case kTanh:
        return map([](F x) { return elementary::tanh(x); });
      case kThresholdedRelu:
        return map([=](F x) { return x > a ? x : zero; });
    }
  }
};

}  // namespace ortolan::ORTOLAN_ISA
