// The activations that com.microsoft's FusedGemm names, over rows that were just computed. Those
// that the epilogue lacks are rare: one loop does all of them.
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
  Activation epilogue = Activation::kNone;
  float alpha = 0, beta = 0, gamma = 0;

  ORTOLAN_SMALL Status read(const Context& c) {
    static constexpr String kNames[] = {
        "Elu",  "HardSigmoid", "LeakyRelu", "ParametricSoftplus", "Relu", "ScaledTanh",
        "Selu", "Sigmoid",     "Softplus",  "Softsign",           "Tanh", "ThresholdedRelu"};
    if (!c.attribute("activation")) return Status::kOk;
    const String name = c.attribute_string("activation", "");
    alpha = c.attribute_float("activation_alpha", 0);
    beta = c.attribute_float("activation_beta", 0);
    gamma = c.attribute_float("activation_gamma", 0);
    for (size_t i = 0; i < sizeof(kNames) / sizeof(*kNames); ++i)
      if (name == kNames[i]) kind = static_cast<Kind>(i + 1);
    if (!kind) return c.fail(Status::kNotImplemented, "activation \"%\" is not supported", name);
    // The other activations are these of something else.
    if (kind == kSoftplus) alpha = beta = 1, kind = kParametricSoftplus;
    if (kind == kElu) gamma = 1;
    if (kind == kHardSigmoid) epilogue = Activation::kHardSigmoid;
    if (kind == kLeakyRelu) epilogue = Activation::kLeakyRelu;
    if (kind == kSigmoid) epilogue = Activation::kSigmoid;
    if (kind == kTanh || kind == kScaledTanh) epilogue = Activation::kTanh;
    return Status::kOk;
  }

  ORTOLAN_SMALL void apply(float* y, size_t n) const {
    if (epilogue != Activation::kNone) {
      for (size_t i = 0; kind == kScaledTanh && i < n; ++i) y[i] *= beta;
      activation_pass({nullptr, nullptr, 0, epilogue, alpha, beta}, y, n, 1, n);
      for (size_t i = 0; kind == kScaledTanh && i < n; ++i) y[i] *= alpha;
      return;
    }
    const F zero = splat<F>(0), one = splat<F>(1), a = splat<F>(alpha);
    map_rows(y, n, 1, n, [&](F x) {
      if (kind == kRelu) return at_least(x, zero);
      if (kind == kThresholdedRelu) return x > a ? x : zero;
      if (kind == kSoftsign) return x / (one + math::abs(x));
      const bool is_softplus = kind == kParametricSoftplus;
      if (is_softplus) x *= splat<F>(beta);
      const F e = math::exp(is_softplus ? -math::abs(x) : x);
      if (is_softplus) return a * (at_least(x, zero) + math::log1p(e));
      return splat<F>(gamma) * (x < zero ? a * (e - one) : x);
    });
  }
};

}  // namespace ortolan::ORTOLAN_ISA
