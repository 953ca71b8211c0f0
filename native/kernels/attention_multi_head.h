// com.microsoft's MultiHeadAttention: Q, K and V are given, packed or apart, with or without a
// past.
#pragma once

#include "kernels/attention_operands.h"

namespace ortolan::ORTOLAN_ISA {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

struct MultiHeadAttention {
  struct State {
    int64_t heads = 0;
    float scale = 0, filter = 0;
    bool unidirectional = false;
  };
  static constexpr size_t kQuery = 0, kKey = 1, kValue = 2, kBias = 3, kMask = 4, kScoreBias = 5,
                          kPastKey = 6, kPastValue = 7, kPastLength = 8;
  struct Plan {
    AttentionTask task;
    MaskForm mask;
    size_t added = 0;               // rows of K and V that come now
    size_t past = 0, capacity = 0;  // keys before, keys that the present has room for
    bool shares_buffer = false;
    size_t biased_at[3] = {};  // floats into the scratch
    size_t mask_at = 0, floats = 0, per_thread = 0;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->heads = c.attribute_int("num_heads", 0);
    state->scale = c.attribute_float("scale", 0);
    state->filter = c.attribute_float("mask_filter_value", -10000);
    state->unidirectional = c.attribute_int("unidirectional", 0) != 0;
    if (state->heads < 1) return c.invalid("num_heads % is not positive", state->heads);
    if (c.has_input(9))
      return c.fail(Status::kNotImplemented, "cache_indirection is not supported");
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(plan(c, &p, false));
    const AttentionTask& t = p.task;
    const int64_t batches = signed_size(t.batches), heads = signed_size(t.heads);
    const int64_t rows = signed_size(t.rows), capacity = signed_size(p.capacity);
    const int64_t y[] = {batches, rows, signed_size(t.heads * t.value_width)};
    ORTOLAN_TRY(c.set_output(0, Shape::of({y, 3})));
    ORTOLAN_TRY(c.set_output(1, shape_of({batches, heads, capacity, signed_size(t.width)})));
    ORTOLAN_TRY(c.set_output(2, shape_of({batches, heads, capacity, signed_size(t.value_width)})));
    ORTOLAN_TRY(c.set_output(3, shape_of({batches, heads, rows, signed_size(t.keys)})));
    c.request_scratch(p.floats * sizeof(float), p.per_thread);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Plan p;
    ORTOLAN_TRY(plan(c, &p, true));
    AttentionTask& t = p.task;
    if (!t.batches) return Status::kOk;
    if (t.rows) ORTOLAN_TRY(lay_bias(c, kScoreBias, &t));
    add_biases(c, p);
    if (c.has_output(1) || c.has_output(2) || c.has_input(kPastKey)) {
      extend(c, p, 0, &t.k);
      extend(c, p, 1, &t.v);
    }
    if (!t.rows) return Status::kOk;  // what is present is a result all the same
    if (p.mask.kind != MaskForm::kNone) {
      float* mask = static_cast<float*>(c.scratch()) + p.mask_at;
      ORTOLAN_TRY(fill_mask(c, kMask, p.mask, t, state.filter, mask));
      lay_mask(mask, p.mask, &t);
      t.hidden = kLowest;  // a row of padding sees what lies behind it too
    }
    if (c.has_output(3)) {
      t.unseen = kLowest;
      t.scores = c.output_data<float>(3);
    }
    t.y = c.output_data<float>(0);
    t.y_row = t.heads * t.value_width, t.y_head = t.value_width, t.y_batch = t.rows * t.y_row;
    attend(c, t);
    return Status::kOk;
  }

 private:
  // Before run nobody knows how much of a buffer for more is past: then sizes are for all of it.
  static Status plan(const Context& c, Plan* p, bool is_run) {
    const State& state = c.state<State>();
    AttentionTask& t = p->task;
    t.heads = t.kv_heads = static_cast<size_t>(state.heads);
    ORTOLAN_TRY(place(c, p));
    if (!t.width || !t.value_width) return c.invalid("a head has no elements");
    t.scale = state.scale != 0 ? state.scale : 1 / __builtin_sqrtf(static_cast<float>(t.width));
    if (state.unidirectional) t.right = 0;
    if (c.has_output(3)) t.stage = Stage::kMasked;
    ORTOLAN_TRY(plan_past(c, p, is_run));
    const size_t vector = t.heads * (2 * t.width + t.value_width);
    if (c.has_input(kBias)) {
      const Shape& s = c.input_shape(kBias);
      if (s.rank != 1 || s[0] != signed_size(vector))
        return c.invalid("bias has shape %, not [%]", s.span(), vector);
      const size_t sizes[] = {t.rows * t.width, p->added * t.width, p->added * t.value_width};
      for (size_t i = 0; i < 3; ++i) {
        p->biased_at[i] = p->floats;
        p->floats += t.batches * t.heads * sizes[i];
      }
    }
    if (p->shares_buffer && !is_run)
      p->mask.kind = c.has_input(kMask) ? MaskForm::kRows : MaskForm::kNone;
    else
      ORTOLAN_TRY(find_mask_form(c, kMask, signed_size(t.batches), signed_size(t.rows),
                                 signed_size(t.keys), &p->mask));
    p->mask_at = p->floats;
    p->floats += p->mask.floats(t.batches, t.rows, t.keys);
    for (size_t i = 0; i < 2; ++i)  // a past, and no output for what it becomes
      if (c.has_input(kPastKey) && !c.has_output(1 + i))
        p->floats += t.batches * t.heads * p->capacity * (i ? t.value_width : t.width);
    if (!attention_scratch(t, &p->per_thread))
      return c.fail(Status::kLimitExceeded, "% keys are too many", t.keys);
    return Status::kOk;
  }

  // Where Q, K and V lie: [B][S][N * D], several of them packed as [B][S][N][2 or 3][D], or K and V
  // as [B][N][L][D].
  static Status place(const Context& c, Plan* p) {
    AttentionTask& t = p->task;
    const int64_t heads = signed_size(t.heads);
    const Shape& q = c.input_shape(kQuery);
    const bool all = q.rank == 5;
    if ((q.rank != 3 && !all) || (all && (q[2] != heads || q[3] != 3)) ||
        (!all && q[2] % heads != 0))
      return c.invalid("query of shape % does not fit % heads", q.span(), heads);
    t.batches = static_cast<size_t>(q[0]), t.rows = static_cast<size_t>(q[1]);
    t.width = static_cast<size_t>(all ? q[4] : q[2] / heads);
    if (all != !c.has_input(kKey))
      return c.invalid("query of shape % and key do not fit", q.span());
    const size_t data = t.width;
    if (all) {
      place_packed(c, kQuery, 3, t.rows, t, 0, &t.q);
      place_packed(c, kQuery, 3, t.rows, t, 1, &t.k);
      place_packed(c, kQuery, 3, t.rows, t, 2, &t.v);
      t.value_width = t.width, p->added = t.rows;
      return Status::kOk;
    }
    t.q = {c.input_data<float>(kQuery), t.rows * t.heads * data, data, t.heads * data};
    const Shape& k = c.input_shape(kKey);
    const bool pair = k.rank == 5;
    if (pair == c.has_input(kValue) || k.rank < 3 || k.rank > 5 || k[0] != q[0])
      return c.invalid("key of shape % does not fit query of shape %", k.span(), q.span());
    const int64_t width = signed_size(t.width);
    const bool fits = k.rank == 3   ? k[2] == q[2]
                      : k.rank == 4 ? k[1] == heads && k[3] == width
                                    : k[2] == heads && k[3] == 2 && k[4] == width;
    if (!fits) return c.invalid("key of shape % does not fit % heads of %", k.span(), heads, width);
    p->added = static_cast<size_t>(k[k.rank == 4 ? 2 : 1]);
    t.value_width = t.width;
    if (pair) {
      place_packed(c, kKey, 2, p->added, t, 0, &t.k);
      place_packed(c, kKey, 2, p->added, t, 1, &t.v);
      return Status::kOk;
    }
    const Shape& v = c.input_shape(kValue);
    bool same = v.rank == k.rank && v[0] == k[0] && v[1] == k[1];
    same = same && (k.rank == 3 ? v[2] % heads == 0 : v[2] == k[2] && v[3] == k[3]);
    if (!same) return c.invalid("value of shape % does not fit key of shape %", v.span(), k.span());
    if (k.rank == 3) t.value_width = static_cast<size_t>(v[2] / heads);
    place_plain(c, kKey, k.rank == 4, p->added, t.heads, t.width, &t.k);
    place_plain(c, kValue, k.rank == 4, p->added, t.heads, t.value_width, &t.v);
    return Status::kOk;
  }

  static void place_plain(const Context& c, size_t input, bool by_heads, size_t rows, size_t heads,
                          size_t width, Heads* to) {
    const float* data = c.input_data<float>(input);
    *to = by_heads ? whole_heads(data, heads, rows, width)
                   : Heads{data, rows * heads * width, width, heads * width};
  }

  // Number `index` of `count` that are packed. The data may be null before run.
  static void place_packed(const Context& c, size_t input, size_t count, size_t rows,
                           const AttentionTask& t, size_t index, Heads* to) {
    const float* data = c.input_data<float>(input);
    const size_t head = count * t.width, row = t.heads * head;
    *to = {data ? data + index * t.width : nullptr, rows * row, head, row};
  }

  static Status plan_past(const Context& c, Plan* p, bool is_run) {
    AttentionTask& t = p->task;
    p->capacity = t.keys = p->added;
    if (c.has_input(kPastKey) != c.has_input(kPastValue))
      return c.invalid("past_key and past_value come together");
    if (!c.has_input(kPastKey)) return Status::kOk;
    const Shape &k = c.input_shape(kPastKey), &v = c.input_shape(kPastValue);
    const bool fits = k.rank == 4 && v.rank == 4 && k[0] == signed_size(t.batches) &&
                      k[1] == signed_size(t.heads) && k[3] == signed_size(t.width) &&
                      v[0] == k[0] && v[1] == k[1] && v[2] == k[2] &&
                      v[3] == signed_size(t.value_width);
    if (!fits)
      return c.invalid("past of shapes % and % does not fit a batch of %, % heads of %", k.span(),
                       v.span(), t.batches, t.heads, t.width);
    p->past = static_cast<size_t>(k[2]);
    p->shares_buffer = c.has_input(kPastLength);
    if (p->shares_buffer && c.has_output(3))
      return c.fail(Status::kNotImplemented, "no output qk with a shared buffer");
    p->capacity = p->past + (p->shares_buffer ? 0 : p->added);
    t.keys = p->capacity;
    if (p->shares_buffer && is_run) {
      int64_t past = 0;
      size_t count = 0;
      if (!c.input_ints(kPastLength, &past, 1, &count) || count != 1)
        return c.invalid("past_sequence_length must be one number");
      if (past < 0 || past + signed_size(p->added) > k[2])
        return c.invalid("% keys and % more do not fit a past of %", past, p->added, k[2]);
      p->past = static_cast<size_t>(past);
      t.keys = p->past + p->added;
    }
    t.offset = signed_size(p->past);
    return Status::kOk;
  }

  // Q, K and V with the bias of the projections that made them.
  static void add_biases(const Context& c, Plan& p) {
    if (!c.has_input(kBias)) return;
    AttentionTask& t = p.task;
    const float* bias = c.input_data<float>(kBias);
    const bool by_heads = c.has_input(kKey) && c.input_shape(kKey).rank == 4;
    Heads* const parts[] = {&t.q, &t.k, &t.v};
    // K and V of another model's past have theirs already.
    for (size_t i = 0; i < (by_heads ? 1 : 3); ++i) {
      const size_t rows = i ? p.added : t.rows, width = i == 2 ? t.value_width : t.width;
      float* to = static_cast<float*>(c.scratch()) + p.biased_at[i];
      const Heads from = *parts[i];
      c.parallel(t.batches * t.heads, (1 << 14) / (rows * width + 1) + 1,
                 [&](size_t begin, size_t end, size_t) {
                   for (size_t n = begin; n < end; ++n) {
                     const size_t h = n % t.heads;
                     const float *x = from.at(n / t.heads, h), *term = bias + h * width;
                     float* y = to + n * rows * width;
                     for (size_t r = 0; r < rows; ++r, x += from.row, y += width)
                       for (size_t k = 0; k < width; ++k) y[k] = x[k] + term[k];
                   }
                 });
      *parts[i] = whole_heads(to, t.heads, rows, width);
      bias += t.heads * width;
    }
  }

  // The past and what comes now, in the output, or in the scratch where there is none.
  static void extend(const Context& c, const Plan& p, size_t i, Heads* x) {
    const AttentionTask& t = p.task;
    const size_t width = i ? t.value_width : t.width;
    const size_t size = t.batches * t.heads * p.capacity * width;
    float* to = nullptr;
    if (c.has_output(1 + i)) {
      to = c.output_data<float>(1 + i);
    } else if (c.has_input(kPastKey)) {
      to = static_cast<float*>(c.scratch()) + p.floats - size;  // at the end, V behind K
      if (i == 0 && !c.has_output(2)) to -= t.batches * t.heads * p.capacity * t.value_width;
    } else {
      return;
    }
    if (c.has_input(kPastKey)) {
      const size_t kept = p.shares_buffer ? p.capacity : p.past;
      const Heads past = whole_heads(c.input_data<float>(kPastKey + i), t.heads, kept, width);
      copy_heads(c, past, to, t.batches, t.heads, kept, width, 0, p.capacity);
    }
    copy_heads(c, *x, to, t.batches, t.heads, p.added, width, p.past, p.capacity);
    *x = whole_heads(to, t.heads, p.capacity, width);
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
