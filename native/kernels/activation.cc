// Elementwise operators of com.microsoft, and those that left the standard with opset 10.
#include "kernels/elementary.h"
#include "kernels/elementwise.h"

namespace ortolan::ORTOLAN_ISA {

struct ExactGelu {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return elementary::gelu(x);
  }
};

// 0.5 x (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
struct TanhGelu {
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V twice = splat<V>(1.59576912160573071176), cubic = splat<V>(0.044715);
    return x * elementary::sigmoid(twice * fma(cubic * x, x * x, x));
  }
};

// The function of x + bias.
template <class Function>
struct Biased {
  template <class V>
  ORTOLAN_INLINE V operator()(V x, V bias) const {
    return Function()(x + bias);
  }
};

struct MicrosoftGelu {
  template <class T>
  static Status run(Context& c) {
    return map<ExactGelu, Lanes<T>>(c, ExactGelu{}, kCostly);
  }
};

struct FastGelu {
  static Status infer(Context& c) {
    const Shape& in = c.input_shape(0);
    if (c.has_input(1)) {
      const Shape& bias = c.input_shape(1);
      if (bias.rank != 1 || in.rank == 0 || in[in.rank - 1] != bias[0])
        return c.invalid("the bias of shape % does not fit the last dimension of %", bias.span(),
                         in.span());
    }
    return c.set_output(0, in);
  }
  template <class T>
  static Status run(Context& c) {
    if (!c.has_input(1)) return map<TanhGelu, Lanes<T>>(c, TanhGelu{}, kCostly);
    return combine<Biased<TanhGelu>, Lanes<T>>(c, Biased<TanhGelu>{});
  }
};

struct BiasGelu {
  template <class T>
  static Status run(Context& c) {
    return combine<Biased<ExactGelu>, Lanes<T>>(c, Biased<ExactGelu>{});
  }
};

// The attributes alpha and beta as members of an operator's functor.
struct AlphaBeta {
  float alpha = 0, beta = 0;

  // Those that have no default must be there.
  static Status read(Context& c, bool has_defaults, float alpha, float beta) {
    AlphaBeta* state = c.make_state<AlphaBeta>();
    if (!state) return c.out_of_memory();
    if (!has_defaults && (!c.attribute("alpha") || !c.attribute("beta")))
      return c.invalid("attributes alpha and beta are needed");
    state->alpha = c.attribute_float("alpha", alpha);
    state->beta = c.attribute_float("beta", beta);
    return Status::kOk;
  }
};

// x sigmoid(alpha x)
struct QuickGelu : AlphaBeta, Unary<QuickGelu, kCostly> {
  static Status prepare(Context& c) { return read(c, true, 1.702f, 0); }
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return x * elementary::sigmoid(x * splat<V>(alpha));
  }
};

struct Swish : QuickGelu {
  static Status prepare(Context& c) { return read(c, true, 1, 0); }
};

// a sigmoid(alpha a) b
struct SwiGLU : AlphaBeta, Binary<SwiGLU> {
  static Status prepare(Context& c) { return read(c, true, 1, 0); }
  static Status infer(Context& c) {
    if (!(c.input_shape(0) == c.input_shape(1)))
      return c.invalid("A % and B % differ in shape", c.input_shape(0).span(),
                       c.input_shape(1).span());
    return c.set_output(0, c.input_shape(0));
  }
  template <class V>
  ORTOLAN_INLINE V operator()(V a, V b) const {
    return a * elementary::sigmoid(a * splat<V>(alpha)) * b;
  }
};

struct Affine : AlphaBeta, Unary<Affine> {
  static Status prepare(Context& c) { return read(c, true, 1, 0); }
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return fma(x, splat<V>(alpha), splat<V>(beta));
  }
};

struct ParametricSoftplus : AlphaBeta, Unary<ParametricSoftplus, kCostly> {
  static Status prepare(Context& c) { return read(c, false, 1, 1); }
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    const V u = x * splat<V>(beta);
    return splat<V>(alpha) *
           (at_least(u, splat<V>(0)) + elementary::log1p(elementary::exp(-math::abs(u))));
  }
};

struct ScaledTanh : AlphaBeta, Unary<ScaledTanh, kCostly> {
  static Status prepare(Context& c) { return read(c, false, 1, 1); }
  template <class V>
  ORTOLAN_INLINE V operator()(V x) const {
    return splat<V>(alpha) * elementary::tanh(x * splat<V>(beta));
  }
};

// scale * x + bias of the channel
struct ImageScaler {
  struct State {
    float scale = 1;
    Span<const float> bias;
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->scale = c.attribute_float("scale", 1);
    const Attribute* bias = c.attribute("bias");
    if (bias && bias->kind == AttributeKind::kFloats) state->bias = bias->floats;
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const Shape& in = c.input_shape(0);
    const Span<const float> bias = c.state<State>().bias;
    if (in.rank != 4) return c.invalid("input 0 of shape % needs 4 dimensions", in.span());
    if (static_cast<size_t>(in[1]) != bias.size)
      return c.invalid("bias has % entries for % channels", bias.size, in[1]);
    return c.set_output(0, in);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& in = c.input_shape(0);
    const State& s = c.state<State>();
    const size_t channels = s.bias.size, count = in.count();
    const size_t run = c.input_layout(0) == Layout::kChannelsLast ? 1 : in.product(2, 4);
    if (count == 0) return Status::kOk;
    const float* x = c.input_data<float>(0);
    float* y = c.output_data<float>(0);
    c.parallel(count / run, (1 << 16) / run + 1, [=](size_t begin, size_t end, size_t) {
      size_t channel = begin % channels;
      for (size_t i = begin; i < end; ++i) {
        const float bias = s.bias[channel];
        for (size_t j = i * run; j < (i + 1) * run; ++j) y[j] = x[j] * s.scale + bias;
        if (++channel == channels) channel = 0;
      }
    });
    return Status::kOk;
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "activation.inc"
