// The standard's Attention: Q, K and V by heads or packed, a mask, and a past that grows or a cache
// of which a part counts.
#pragma once

#include "kernels/attention_operands.h"

namespace ortolan::ORTOLAN_ISA {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

struct Attention {
  struct State {
    int64_t heads = 0, kv_heads = 0, mode = 0;
    int64_t left = -1, right = -1;
    float scale = 0, softcap = 0;
    bool has_scale = false, causal = false, pads_mask = false;
  };
  static constexpr size_t kQuery = 0, kKey = 1, kValue = 2, kMask = 3, kPastKey = 4, kPastValue = 5,
                          kLengths = 6;

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->heads = c.attribute_int("q_num_heads", 0);
    s->kv_heads = c.attribute_int("kv_num_heads", 0);
    s->mode = c.attribute_int("qk_matmul_output_mode", 0);
    s->left = c.attribute_int("left_window_size", -1);
    s->right = c.attribute_int("right_window_size", -1);
    s->has_scale = c.attribute("scale") != nullptr;
    s->scale = c.attribute_float("scale", 0);
    s->softcap = c.attribute_float("softcap", 0);
    s->causal = c.attribute_int("is_causal", 0) != 0;
    s->pads_mask = c.since_version() >= 24;
    if (s->mode < 0 || s->mode > 3)
      return c.invalid("qk_matmul_output_mode % is not 0, 1, 2 or 3", s->mode);
    if (s->left < -1 || s->right < -1)
      return c.invalid("window sizes % and % must be -1 or more", s->left, s->right);
    if (c.has_input(kLengths) && c.has_input(kPastKey))
      return c.invalid("nonpad_kv_seqlen and past_key exclude each other");
    return Status::kOk;
  }

  static Status infer(Context& c) {
    AttentionTask t;
    size_t past = 0;
    ORTOLAN_TRY(plan(c, &t, &past));
    const int64_t batches = signed_size(t.batches), rows = signed_size(t.rows);
    const int64_t heads = signed_size(t.heads), kv_heads = signed_size(t.kv_heads);
    const int64_t keys = signed_size(t.keys), values = signed_size(t.value_width);
    int64_t y[] = {batches, rows, 0};
    const bool by_heads = c.input_shape(kQuery).rank == 4;
    if (!by_heads && __builtin_mul_overflow(heads, values, &y[2]))
      return c.fail(Status::kLimitExceeded, "% heads of % are too large", heads, values);
    ORTOLAN_TRY(
        c.set_output(0, by_heads ? shape_of({batches, heads, rows, values}) : Shape::of({y, 3})));
    ORTOLAN_TRY(c.set_output(1, shape_of({batches, kv_heads, keys, signed_size(t.width)})));
    ORTOLAN_TRY(c.set_output(2, shape_of({batches, kv_heads, keys, values})));
    ORTOLAN_TRY(c.set_output(3, shape_of({batches, heads, rows, keys})));
    size_t per_thread = 0;
    if (!attention_scratch(t, &per_thread))
      return c.fail(Status::kLimitExceeded, "% keys are too many", t.keys);
    c.request_scratch(numbers_at(c, t, 2) + t.batches * sizeof(int64_t), per_thread);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    AttentionTask t;
    size_t past = 0;
    ORTOLAN_TRY(plan(c, &t, &past));
    if (!t.batches) return Status::kOk;
    extend(c, t, past, 0, &t.k);
    extend(c, t, past, 1, &t.v);
    if (!t.rows) return Status::kOk;  // what is present is a result all the same
    if (c.has_input(kLengths)) {
      int64_t* offsets =
          reinterpret_cast<int64_t*>(static_cast<char*>(c.scratch()) + numbers_at(c, t, 2));
      t.lengths = c.input_data<int64_t>(kLengths);
      for (size_t b = 0; b < t.batches; ++b)
        offsets[b] = max<int64_t>(t.lengths[b], 0) - signed_size(t.rows);
      t.offsets = offsets;
    }
    if (c.has_output(3)) t.scores = c.output_data<float>(3);
    t.y = c.output_data<float>(0);
    const bool by_heads = c.input_shape(kQuery).rank == 4;
    t.y_row = by_heads ? t.value_width : t.heads * t.value_width;
    t.y_head = by_heads ? t.rows * t.value_width : t.value_width;
    t.y_batch = t.rows * t.heads * t.value_width;
    attend(c, t);
    return Status::kOk;
  }

 private:
  static Status plan(const Context& c, AttentionTask* t, size_t* past) {
    const State& state = c.state<State>();
    ORTOLAN_TRY(place(c, t));
    ORTOLAN_TRY(plan_past(c, t, past));
    ORTOLAN_TRY(lay_mask(c, t));
    t->scale = state.has_scale ? state.scale : 1 / __builtin_sqrtf(static_cast<float>(t->width));
    t->softcap = state.softcap;
    t->left = state.left, t->right = state.causal ? 0 : state.right;
    constexpr Stage kStages[] = {Stage::kScaled, Stage::kCapped, Stage::kMasked, Stage::kSoftmax};
    if (c.has_output(3)) t->stage = kStages[state.mode];
    if (!c.has_input(kLengths)) return Status::kOk;
    const Shape& s = c.input_shape(kLengths);
    if (s.rank != 1 || s[0] != signed_size(t->batches))
      return c.invalid("nonpad_kv_seqlen has shape %, not [%]", s.span(), t->batches);
    return Status::kOk;
  }

  // All of [B][heads][S][D], or of [B][S][heads * D].
  static Status place(const Context& c, AttentionTask* t) {
    const State& state = c.state<State>();
    Shape s[3];
    for (size_t i = 0; i < 3; ++i) {
      s[i] = c.input_shape(i);
      const uint32_t rank = c.input_shape(0).rank;
      if ((rank != 3 && rank != 4) || s[i].rank != rank || s[i][0] != s[0][0])
        return c.invalid("Q %, K % and V % do not fit together", c.input_shape(0).span(),
                         c.input_shape(1).span(), c.input_shape(2).span());
      if (s[i].rank == 4) continue;
      const int64_t heads = i ? state.kv_heads : state.heads, width = s[i][2];
      if (heads < 1 || width % heads)
        return c.invalid("% heads do not divide % of input %", heads, width, i);
      s[i] = shape_of({s[i][0], heads, s[i][1], width / heads});
    }
    if (s[1][1] != s[2][1] || s[1][2] != s[2][2] || s[0][3] != s[1][3] || s[1][1] < 1 ||
        s[0][1] % s[1][1])
      return c.invalid("Q %, K % and V % by heads do not fit together", s[0].span(), s[1].span(),
                       s[2].span());
    t->batches = static_cast<size_t>(s[0][0]), t->heads = static_cast<size_t>(s[0][1]);
    t->rows = static_cast<size_t>(s[0][2]), t->width = static_cast<size_t>(s[0][3]);
    t->kv_heads = static_cast<size_t>(s[1][1]), t->keys = static_cast<size_t>(s[1][2]);
    t->value_width = static_cast<size_t>(s[2][3]);
    Heads* const parts[] = {&t->q, &t->k, &t->v};
    for (size_t i = 0; i < 3; ++i) {
      const size_t heads = static_cast<size_t>(s[i][1]), rows = static_cast<size_t>(s[i][2]);
      const size_t width = static_cast<size_t>(s[i][3]);
      const float* data = c.input_data<float>(i);
      *parts[i] = c.input_shape(i).rank == 4
                      ? whole_heads(data, heads, rows, width)
                      : Heads{data, rows * heads * width, width, heads * width};
    }
    return Status::kOk;
  }

  static Status plan_past(const Context& c, AttentionTask* t, size_t* past) {
    if (c.has_input(kPastKey) != c.has_input(kPastValue))
      return c.invalid("past_key and past_value come together");
    if (!c.has_input(kPastKey)) return Status::kOk;
    for (size_t i = 0; i < 2; ++i) {
      const Shape& s = c.input_shape(kPastKey + i);
      if (s.rank != 4 || s[0] != signed_size(t->batches) || s[1] != signed_size(t->kv_heads) ||
          s[3] != signed_size(i ? t->value_width : t->width) || s[2] != c.input_shape(kPastKey)[2])
        return c.invalid("past of shape % does not fit K and V of % heads", s.span(), t->kv_heads);
      *past = static_cast<size_t>(s[2]);
    }
    t->keys += *past;
    t->offset = signed_size(*past);
    return Status::kOk;
  }

  // A mask of up to 4 dimensions that broadcasts to [B][heads][rows][keys].
  static Status lay_mask(const Context& c, AttentionTask* t) {
    if (!c.has_input(kMask)) return Status::kOk;
    const Shape& s = c.input_shape(kMask);
    const int64_t wanted[] = {signed_size(t->batches), signed_size(t->heads), signed_size(t->rows),
                              signed_size(t->keys)};
    const bool pads = c.state<State>().pads_mask;
    bool fits = s.rank >= 1 && s.rank <= 4;
    size_t steps[4] = {}, step = 1;
    for (uint32_t back = 1; fits && back <= s.rank; ++back) {
      const int64_t dim = s[s.rank - back], limit = wanted[4 - back];
      fits =
          dim == limit || (dim == 1 && !(back == 1 && pads)) || (back == 1 && pads && dim < limit);
      steps[4 - back] = dim == 1 && !(back == 1 && pads) ? 0 : step;
      step *= static_cast<size_t>(dim);
    }
    if (!fits)
      return c.invalid("attn_mask of shape % does not broadcast to %", s.span(),
                       Span<const int64_t>{wanted, 4});
    const size_t columns = steps[3] ? static_cast<size_t>(s[s.rank - 1]) : t->keys;
    if (c.input_type(kMask) == DataType::kBool)
      t->allowed = {c.input_data<uint8_t>(kMask), steps[0], steps[1], steps[2], steps[3], columns};
    else
      t->mask = {c.input_data<float>(kMask), steps[0], steps[1], steps[2], steps[3], columns};
    return Status::kOk;
  }

  // Bytes of the scratch that hold K and V, where a past grows that is no output.
  static size_t numbers_at(const Context& c, const AttentionTask& t, size_t end) {
    size_t floats = 0;
    for (size_t i = 0; i < end; ++i)
      if (c.has_input(kPastKey) && !c.has_output(1 + i))
        floats += t.batches * t.kv_heads * t.keys * (i ? t.value_width : t.width);
    return round_up(floats * sizeof(float), kAlignment);
  }

  static void extend(const Context& c, const AttentionTask& t, size_t past, size_t i, Heads* x) {
    const size_t width = i ? t.value_width : t.width;
    float* to = nullptr;
    if (c.has_output(1 + i))
      to = c.output_data<float>(1 + i);
    else if (c.has_input(kPastKey))
      to = reinterpret_cast<float*>(static_cast<char*>(c.scratch()) + numbers_at(c, t, i));
    else
      return;
    if (past)
      copy_heads(c, whole_heads(c.input_data<float>(kPastKey + i), t.kv_heads, past, width), to,
                 t.batches, t.kv_heads, past, width, 0, t.keys);
    copy_heads(c, *x, to, t.batches, t.kv_heads, t.keys - past, width, past, t.keys);
    *x = whole_heads(to, t.kv_heads, t.keys, width);
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
