// Attention with a state in place of a cache, and the causal convolution that models put before it.
#pragma once

#include "core/context.h"
#include "kernels/elementary.h"

namespace ortolan::ORTOLAN_ISA {

// For each head a matrix S[key][value]: it decays, a key and a value are added (with the delta rule
// what the key retrieves already is taken off first), and the query reads it.
struct LinearAttention {
  struct State {
    int64_t heads = 0, kv_heads = 0;
    float scale = 0;
    bool decays = false, corrects = false;
  };
  static constexpr size_t kQuery = 0, kKey = 1, kValue = 2, kPast = 3, kDecay = 4, kBeta = 5;
  struct Plan {
    size_t batches, rows, heads, key_heads, kv_heads, out_heads, width, value_width;
  };

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->heads = c.attribute_int("q_num_heads", 0);
    s->kv_heads = c.attribute_int("kv_num_heads", 0);
    s->scale = c.attribute_float("scale", 0);
    const String rule = c.attribute_string("update_rule", "gated_delta");
    s->decays = rule == "gated" || rule == "gated_delta";
    s->corrects = rule == "delta" || rule == "gated_delta";
    if (!s->decays && !s->corrects && !(rule == "linear"))
      return c.invalid("update_rule \"%\" is not linear, gated, delta or gated_delta", rule);
    if (s->heads < 1 || s->kv_heads < 1 ||
        (s->heads % s->kv_heads != 0 && s->kv_heads % s->heads != 0))
      return c.invalid("% heads of K and V do not fit % of Q", s->kv_heads, s->heads);
    if ((s->decays && !c.has_input(kDecay)) || (s->corrects && !c.has_input(kBeta)))
      return c.invalid("update_rule \"%\" needs decay or beta", rule);
    if (c.attribute_int("state_window", 0))
      return c.fail(Status::kNotImplemented, "state_window is not supported");
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    const int64_t batches = static_cast<int64_t>(p.batches), rows = static_cast<int64_t>(p.rows);
    const int64_t y[] = {batches, rows, static_cast<int64_t>(p.out_heads * p.value_width)};
    const int64_t s[] = {batches, static_cast<int64_t>(p.kv_heads), static_cast<int64_t>(p.width),
                         static_cast<int64_t>(p.value_width)};
    const size_t state = c.has_output(1) ? 0 : p.batches * p.kv_heads * p.width * p.value_width;
    c.request_scratch(state * sizeof(float), p.value_width * sizeof(float));
    ORTOLAN_TRY(c.set_output(0, Shape::of({y, 3})));
    return c.set_output(1, Shape::of({s, 4}));
  }

  static Status run(Context& c) {
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    float* states = c.has_output(1) ? c.output_data<float>(1) : static_cast<float*>(c.scratch());
    const size_t matrix = p.width * p.value_width;
    const size_t bytes = p.batches * p.kv_heads * matrix * sizeof(float);
    if (c.has_input(kPast))
      copy(states, c.input_data<float>(kPast), bytes);
    else
      fill_zero(states, bytes);
    c.parallel(p.batches * p.kv_heads, (1 << 16) / (p.rows * matrix + 1) + 1,
               [&](size_t begin, size_t end, size_t thread) {
                 float* value = static_cast<float*>(c.thread_scratch(thread));
                 for (size_t i = begin; i < end; ++i)
                   for (size_t r = 0; r < p.rows; ++r)
                     step(c, p, i / p.kv_heads * p.rows + r, i % p.kv_heads, states + i * matrix,
                          value);
               });
    return Status::kOk;
  }

 private:
  static bool fits(const Shape& s, const Shape& q, int64_t last) {
    return s.rank == 3 && s[0] == q[0] && s[1] == q[1] && s[2] == last;
  }
  static Status plan(const Context& c, Plan* p) {
    const State& state = c.state<State>();
    const Shape &q = c.input_shape(kQuery), &k = c.input_shape(kKey), &v = c.input_shape(kValue);
    const int64_t heads = state.heads, kv_heads = state.kv_heads;
    if (q.rank != 3 || q[2] % heads || q[2] < heads)
      return c.invalid("query of shape % does not fit % heads", q.span(), heads);
    const int64_t width = q[2] / heads;
    const int64_t key_heads = k.rank == 3 ? k[2] / width : 0;
    if (key_heads < 1 || !fits(k, q, key_heads * width) || kv_heads % key_heads)
      return c.invalid("key of shape % does not fit query of shape %", k.span(), q.span());
    if (v.rank != 3 || v[2] % kv_heads || !fits(v, q, v[2]))
      return c.invalid("value of shape % does not fit query of shape %", v.span(), q.span());
    const int64_t values = v[2] / kv_heads;
    int64_t keys;
    if (__builtin_mul_overflow(kv_heads, width, &keys))
      return c.fail(Status::kLimitExceeded, "% heads of % are too large", kv_heads, width);
    if (state.decays && !fits(c.input_shape(kDecay), q, kv_heads) &&
        !fits(c.input_shape(kDecay), q, keys))
      return c.invalid("decay of shape % does not fit % heads of %", c.input_shape(kDecay).span(),
                       kv_heads, width);
    if (state.corrects && !fits(c.input_shape(kBeta), q, kv_heads) &&
        !fits(c.input_shape(kBeta), q, 1))
      return c.invalid("beta of shape % does not fit % heads", c.input_shape(kBeta).span(),
                       kv_heads);
    if (c.has_input(kPast)) {
      const Shape& s = c.input_shape(kPast);
      if (s.rank != 4 || s[0] != q[0] || s[1] != kv_heads || s[2] != width || s[3] != values)
        return c.invalid("past_state of shape % is not [%, %, %, %]", s.span(), q[0], kv_heads,
                         width, values);
    }
    *p = {static_cast<size_t>(q[0]),     static_cast<size_t>(q[1]),
          static_cast<size_t>(heads),    static_cast<size_t>(key_heads),
          static_cast<size_t>(kv_heads), static_cast<size_t>(max(heads, kv_heads)),
          static_cast<size_t>(width),    static_cast<size_t>(values)};
    return Status::kOk;
  }

  // One row of one head: s[width][value_width] changes, and each head of Q that reads it is served.
  static void step(const Context& c, const Plan& p, size_t row, size_t head, float* s,
                   float* value) {
    const State& state = c.state<State>();
    const size_t n = p.value_width;
    const size_t key_head = head / (p.kv_heads / p.key_heads);
    const float* k = c.input_data<float>(kKey) + (row * p.key_heads + key_head) * p.width;
    const float* v = c.input_data<float>(kValue) + (row * p.kv_heads + head) * n;
    if (state.decays) {
      const size_t all = static_cast<size_t>(c.input_shape(kDecay)[2]), each = all / p.kv_heads;
      const float* decay = c.input_data<float>(kDecay) + row * all + head * each;
      for (size_t d = 0; d < p.width; ++d) {
        const float factor = elementary::exp(splat<F>(decay[each == 1 ? 0 : d]))[0];
        for (size_t m = 0; m < n; ++m) s[d * n + m] *= factor;
      }
    }
    if (state.corrects) {
      const size_t betas = static_cast<size_t>(c.input_shape(kBeta)[2]);
      const float beta = c.input_data<float>(kBeta)[row * betas + (betas == 1 ? 0 : head)];
      read(k, s, p.width, n, value);
      for (size_t m = 0; m < n; ++m) value[m] = beta * (v[m] - value[m]);
      v = value;
    }
    for (size_t d = 0; d < p.width; ++d)
      for (size_t m = 0; m < n; ++m) s[d * n + m] += k[d] * v[m];
    const float scale =
        state.scale != 0 ? state.scale : 1 / __builtin_sqrtf(static_cast<float>(p.width));
    // Several heads of Q for this one of K and V, or one for several.
    const size_t group = p.out_heads / p.kv_heads, shared = p.out_heads / p.heads;
    for (size_t h = head * group; h < (head + 1) * group; ++h) {
      const float* q = c.input_data<float>(kQuery) + (row * p.heads + h / shared) * p.width;
      float* y = c.output_data<float>(0) + (row * p.out_heads + h) * n;
      read(q, s, p.width, n, y);
      for (size_t m = 0; m < n; ++m) y[m] *= scale;
    }
  }

  ORTOLAN_NOINLINE static void read(const float* k, const float* s, size_t width, size_t n,
                                    float* y) {
    for (size_t m = 0; m < n; ++m) y[m] = 0;
    for (size_t d = 0; d < width; ++d)
      for (size_t m = 0; m < n; ++m) y[m] += k[d] * s[d * n + m];
  }
};

// Each channel by itself, over what came before and now; the end of that is the next call's past.
struct CausalConvWithState {
  struct State {
    int64_t dilation = 1;
    bool swish = false, channels_last = false;
  };
  struct Plan {
    size_t batches, channels, length, taps, past;
    size_t channel_step, time_step;  // within an image of X; the states have their own length
  };

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    const String activation = c.attribute_string("activation", "none");
    s->swish = activation == "silu" || activation == "swish";
    if (!s->swish && !(activation == "none"))
      return c.invalid("activation \"%\" is not none, silu or swish", activation);
    s->dilation = c.attribute_int("dilation", 1);
    if (s->dilation < 1) return c.invalid("dilation % is not positive", s->dilation);
    s->channels_last = c.attribute_int("channels_last", 0) != 0;
    static constexpr String kUnknown[] = {"state_window", "state_length", "state_update_capacity",
                                          "input_channels", "input_channel_offset"};
    for (const String name : kUnknown)
      if (c.attribute_int(name, 0))
        return c.fail(Status::kNotImplemented, "attribute % is not supported", name);
    if (c.attribute_int("ndim", 1) != 1 || c.attribute_int("state_channels_last", -1) != -1)
      return c.fail(Status::kNotImplemented,
                    "ndim above 1 and state_channels_last are not supported");
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Plan p;
    Shape past;
    ORTOLAN_TRY(plan(c, &p, &past));
    ORTOLAN_TRY(c.set_output(0, c.input_shape(0)));
    return c.set_output(1, past);
  }

  static Status run(Context& c) {
    const State& state = c.state<State>();
    Plan p;
    Shape shape;
    ORTOLAN_TRY(plan(c, &p, &shape));
    c.parallel(p.batches * p.channels, (1 << 14) / (p.length * p.taps + 1) + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i) channel(c, p, i / p.channels, i % p.channels);
               });
    if (state.swish) {
      float* y = c.output_data<float>(0);
      c.parallel(p.batches * p.channels * p.length, 1 << 14, [=](size_t begin, size_t end, size_t) {
        for (size_t i = begin; i < end; i += kLanes) {
          const size_t n = min<size_t>(kLanes, end - i);
          const F v = load_part<F>(y + i, n & (kLanes - 1));
          const F x = n == kLanes ? load<F>(y + i) : v;
          const F result = x * elementary::sigmoid(x);
          if (n == kLanes)
            store(y + i, result);
          else
            store_part(y + i, result, n);
        }
      });
    }
    return Status::kOk;
  }

 private:
  static Status plan(const Context& c, Plan* p, Shape* past) {
    const State& state = c.state<State>();
    const Shape &x = c.input_shape(0), &w = c.input_shape(1);
    const bool last = state.channels_last;
    if (x.rank < 3 || (!last && x.rank != 3))
      return c.invalid("input of shape % does not have 3 dimensions", x.span());
    p->batches = static_cast<size_t>(x[0]);
    p->length = static_cast<size_t>(x[last ? 1 : 2]);
    p->channels = last ? x.product(2, x.rank) : static_cast<size_t>(x[1]);
    if (w.rank != 3 || w[0] != static_cast<int64_t>(p->channels) || w[1] != 1 || w[2] < 1)
      return c.invalid("weight of shape % is not [%, 1, k]", w.span(), p->channels);
    if (c.has_input(2) && (c.input_shape(2).rank != 1 || c.input_shape(2)[0] != w[0]))
      return c.invalid("bias has shape %, not [%]", c.input_shape(2).span(), w[0]);
    p->taps = static_cast<size_t>(w[2]);
    int64_t reach;
    if (__builtin_mul_overflow(w[2] - 1, state.dilation, &reach) ||
        static_cast<uint64_t>(reach) > SIZE_MAX / 2)
      return c.fail(Status::kLimitExceeded, "% taps with dilation % reach too far", p->taps,
                    state.dilation);
    p->past = static_cast<size_t>(reach);
    p->channel_step = last ? 1 : p->length;
    p->time_step = last ? p->channels : 1;
    *past = x;
    (*past)[last ? 1 : 2] = static_cast<int64_t>(p->past);
    if (c.has_input(3) && !(c.input_shape(3) == *past))
      return c.invalid("past_state has shape %, not %", c.input_shape(3).span(), past->span());
    return Status::kOk;
  }

  static void channel(const Context& c, const Plan& p, size_t b, size_t ch) {
    const State& state = c.state<State>();
    const size_t step = p.time_step, image = p.channels * p.length, kept = p.channels * p.past;
    const size_t state_step = state.channels_last ? 1 : p.past;
    const float* x = c.input_data<float>(0) + b * image + ch * p.channel_step;
    const float* past =
        c.has_input(3) ? c.input_data<float>(3) + b * kept + ch * state_step : nullptr;
    const float* w = c.input_data<float>(1) + ch * p.taps;
    float* y = c.output_data<float>(0) + b * image + ch * p.channel_step;
    const float bias = c.has_input(2) ? c.input_data<float>(2)[ch] : 0;
    for (size_t t = 0; t < p.length; ++t) y[t * step] = bias;
    for (size_t j = 0; j < p.taps; ++j) {
      const size_t back = (p.taps - 1 - j) * static_cast<size_t>(state.dilation);
      for (size_t t = 0; past && t < min(back, p.length); ++t)
        y[t * step] += w[j] * past[(p.past - back + t) * step];
      for (size_t t = back; t < p.length; ++t) y[t * step] += w[j] * x[(t - back) * step];
    }
    if (!c.has_output(1)) return;
    float* next = c.output_data<float>(1) + b * kept + ch * state_step;
    for (size_t t = 0; t < p.past; ++t) {
      const size_t at = t + p.length;  // in the past and X together
      next[t * step] = at >= p.past ? x[(at - p.past) * step] : past ? past[at * step] : 0;
    }
  }
};

}  // namespace ortolan::ORTOLAN_ISA
