// com.microsoft's Attention: the projection of one input to Q, K and V, then attention over them
// and a past.
#pragma once

#include "kernels/attention_operands.h"

namespace ortolan::ORTOLAN_ISA {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

struct MicrosoftAttention {
  struct State {
    int64_t heads = 0;
    float scale = 0, filter = 0;
    bool unidirectional = false, shares_buffer = false;
    Span<const int64_t> sizes;
    const float* packed = nullptr;
  };
  // Sizes of a call, and where things lie in the scratch (bytes).
  struct Plan {
    AttentionTask task;
    Product product;
    Needs needs;
    MaskForm mask;
    size_t past = 0, capacity = 0;  // keys before, keys that the present has room for
    size_t mask_at = 0, multiply_at = 0, per_thread = 0;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->heads = c.attribute_int("num_heads", 0);
    state->scale = c.attribute_float("scale", 0);
    state->filter = c.attribute_float("mask_filter_value", -10000);
    state->unidirectional = c.attribute_int("unidirectional", 0) != 0;
    state->shares_buffer = c.attribute_int("past_present_share_buffer", 0) != 0;
    state->sizes = c.attribute_ints("qkv_hidden_sizes");
    if (state->heads < 1) return c.invalid("num_heads % is not positive", state->heads);
    if (state->sizes.size && state->sizes.size != 3)
      return c.invalid("qkv_hidden_sizes has % entries, not 3", state->sizes.size);
    if (c.attribute_int("do_rotary", 0))
      return c.fail(Status::kNotImplemented,
                    "do_rotary is not supported; use RotaryEmbedding and MultiHeadAttention");
    const Slot* weights = c.constant_input(1);
    if (!weights || weights->shape.rank != 2 || !weights->shape.count()) return Status::kOk;
    const size_t K = static_cast<size_t>(weights->shape[0]);
    const size_t N = static_cast<size_t>(weights->shape[1]);
    size_t bytes;
    if (N == 1 || !packed_bytes(N, K, 1, &bytes)) return Status::kOk;
    float* packed = static_cast<float*>(c.model_memory(bytes));
    if (!packed) return c.out_of_memory();
    pack_b(static_cast<const float*>(weights->data), N, 1, K, N, packed);
    state->packed = packed;
    c.has_packed(1);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    const AttentionTask& t = p.task;
    const int64_t batches = signed_size(t.batches);
    Shape y = c.input_shape(0);
    y[2] = static_cast<int64_t>(t.heads * t.value_width);
    ORTOLAN_TRY(c.set_output(0, y));
    const int64_t present[] = {2, batches, signed_size(t.heads), signed_size(p.capacity),
                               signed_size(t.width)};
    if (c.has_output(1) && t.width != t.value_width)
      return c.invalid("K and V with heads of % and % cannot share a present", t.width,
                       t.value_width);
    ORTOLAN_TRY(c.set_output(1, Shape::of({present, 5})));
    c.request_scratch(p.multiply_at + p.needs.copy + p.needs.shared, p.per_thread);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    AttentionTask& t = p.task;
    if (!t.batches) return Status::kOk;
    char* scratch = static_cast<char*>(c.scratch());
    float* qkv = reinterpret_cast<float*>(scratch);
    const Operands<float> o = {c.input_data<float>(0),
                               c.input_data<float>(1),
                               state.packed,
                               c.has_input(2) ? c.input_data<float>(2) : nullptr,
                               qkv,
                               scratch + p.multiply_at};
    if (t.rows) multiply(c, p.product, o, {});
    ORTOLAN_TRY(find_past(c, &p));
    const size_t row = p.product.N, batch = t.rows * row;
    t.q = {qkv, batch, t.width, row};
    t.k = {qkv + t.heads * t.width, batch, t.width, row};
    t.v = {qkv + 2 * t.heads * t.width, batch, t.value_width, row};
    if (c.has_output(1)) extend_past(c, p);
    if (!t.rows) return Status::kOk;  // what is present is a result all the same
    if (p.mask.kind != MaskForm::kNone) {
      float* mask = reinterpret_cast<float*>(scratch + p.mask_at);
      ORTOLAN_TRY(fill_mask(c, 3, p.mask, t, state.filter, mask));
      lay_mask(mask, p.mask, &t);
      t.hidden = kLowest;  // a row of padding sees what lies behind it too
    }
    t.bias.data = c.has_input(5) ? c.input_data<float>(5) : nullptr;
    t.y = c.output_data<float>(0);
    t.y_row = t.heads * t.value_width, t.y_head = t.value_width, t.y_batch = t.rows * t.y_row;
    attend(c, t);
    return Status::kOk;
  }

 private:
  static Status plan(const Context& c, Plan* p) {
    const State& state = c.state<State>();
    const Shape &x = c.input_shape(0), &w = c.input_shape(1);
    AttentionTask& t = p->task;
    if (x.rank != 3 || w.rank != 2 || x[2] != w[0])
      return c.invalid("input % and weights % are not [batch, rows, K] and [K, N]", x.span(),
                       w.span());
    int64_t sizes[3] = {w[1] / 3, w[1] / 3, w[1] / 3};
    for (size_t i = 0; i < state.sizes.size; ++i) sizes[i] = state.sizes[i];
    for (const int64_t size : sizes)
      if (size < state.heads || size % state.heads || size > w[1])
        return c.invalid("% heads do not divide a hidden size of %, of % columns", state.heads,
                         size, w[1]);
    if (sizes[0] != sizes[1] || sizes[0] + sizes[1] + sizes[2] != w[1])
      return c.invalid("hidden sizes %, %, % do not fit weights of shape %", sizes[0], sizes[1],
                       sizes[2], w.span());
    if (c.has_input(2) && (c.input_shape(2).rank != 1 || c.input_shape(2)[0] != w[1]))
      return c.invalid("bias has shape %, not [%]", c.input_shape(2).span(), w[1]);
    t.batches = static_cast<size_t>(x[0]);
    t.rows = static_cast<size_t>(x[1]);
    t.heads = t.kv_heads = static_cast<size_t>(state.heads);
    t.width = static_cast<size_t>(sizes[0]) / t.heads;
    t.value_width = static_cast<size_t>(sizes[2]) / t.heads;
    t.scale = state.scale != 0 ? state.scale : 1 / __builtin_sqrtf(static_cast<float>(t.width));
    ORTOLAN_TRY(plan_past(c, p));
    if (state.unidirectional) t.right = 0;
    Product& m = p->product;
    m.M = t.batches * t.rows, m.N = static_cast<size_t>(w[1]), m.K = static_cast<size_t>(x[2]);
    m.a_row = m.K, m.b_row = m.N;
    ORTOLAN_TRY(find_needs<float>(c, m, state.packed, &p->needs));
    ORTOLAN_TRY(find_mask_form(c, 3, x[0], x[1], signed_size(t.keys), &p->mask));
    ORTOLAN_TRY(lay_bias(c, 5, &t));
    p->mask_at = round_up(m.M * m.N * sizeof(float), kAlignment);
    const size_t mask = p->mask.floats(t.batches, t.rows, t.keys) * sizeof(float);
    p->multiply_at = p->mask_at + round_up(mask, kAlignment);
    if (!attention_scratch(t, &p->per_thread))
      return c.fail(Status::kLimitExceeded, "% keys are too many", t.keys);
    p->per_thread = max(p->per_thread, p->needs.per_thread);
    return Status::kOk;
  }

  static Status plan_past(const Context& c, Plan* p) {
    AttentionTask& t = p->task;
    p->capacity = t.keys = t.rows;
    if (!c.has_input(4)) return Status::kOk;
    const Shape& s = c.input_shape(4);
    const bool fits = s.rank == 5 && s[0] == 2 && s[1] == signed_size(t.batches) &&
                      s[2] == signed_size(t.heads) && s[4] == signed_size(t.width) &&
                      t.width == t.value_width;
    if (!fits)
      return c.invalid("past of shape % does not fit a batch of %, % heads of %", s.span(),
                       t.batches, t.heads, t.width);
    if (!c.has_output(1)) return c.invalid("a past needs the output present");
    const size_t rows = static_cast<size_t>(s[3]);
    if (c.state<State>().shares_buffer) {
      p->capacity = t.keys = rows;
      return Status::kOk;
    }
    p->past = rows;
    t.offset = signed_size(rows);
    p->capacity = t.keys = rows + t.rows;
    return Status::kOk;
  }

  // Where the past is a buffer for more, an input says how much of it counts.
  static Status find_past(const Context& c, Plan* p) {
    AttentionTask& t = p->task;
    if (!c.state<State>().shares_buffer || !c.has_input(4)) return Status::kOk;
    int64_t past = 0;
    size_t count = 0;
    if (!c.has_input(6) || !c.input_ints(6, &past, 1, &count) || count != 1)
      return c.invalid("past_sequence_length must be one number");
    if (past < 0 || past + signed_size(t.rows) > signed_size(p->capacity))
      return c.invalid("% keys and % more do not fit a past of %", past, t.rows, p->capacity);
    p->past = static_cast<size_t>(past);
    t.offset = past;
    return Status::kOk;
  }

  static void extend_past(const Context& c, Plan& p) {
    AttentionTask& t = p.task;
    const size_t half = t.batches * t.heads * p.capacity * t.width;
    for (size_t i = 0; i < 2; ++i) {
      Heads& x = i ? t.v : t.k;
      float* to = c.output_data<float>(1) + i * half;
      if (c.has_input(4)) {
        const size_t kept = c.state<State>().shares_buffer ? p.capacity : p.past;
        const float* past = c.input_data<float>(4) + i * t.batches * t.heads * kept * t.width;
        copy_heads(c, whole_heads(past, t.heads, kept, t.width), to, t.batches, t.heads, kept,
                   t.width, 0, p.capacity);
      }
      copy_heads(c, x, to, t.batches, t.heads, t.rows, t.width, p.past, p.capacity);
      x = whole_heads(to, t.heads, p.capacity, t.width);
    }
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
