// com.microsoft's GroupQueryAttention: several heads of Q share one of K and V, which lie in a
// cache that grows, that is a buffer for more, or that keeps a window of the last keys.
#pragma once

#include "kernels/attention_operands.h"
#include "kernels/rotary.h"

namespace ortolan::ORTOLAN_ISA {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

struct GroupQueryAttention {
  struct State {
    int64_t heads = 0, kv_heads = 0, window = -1;
    int64_t scores = 0;  // to put out: 1 before, 2 after softmax
    float scale = 0, softcap = 0;
    bool rotates = false, interleaved = false, smooth = false, causal = true, slides = false;
  };
  static constexpr size_t kQuery = 0, kKey = 1, kValue = 2, kPastKey = 3, kPastValue = 4,
                          kLengths = 5, kTotal = 6, kCosines = 7, kSines = 8, kPlaces = 9,
                          kScoreBias = 10, kSinks = 11, kQueryLengths = 16;
  // Sizes of a call. The scratch has, in floats: turned Q, then K and V where no output holds them,
  // a logit for each head; then numbers for each batch.
  struct Plan {
    AttentionTask task;
    size_t past = 0, present = 0,
           room = 0;  // rows of the past, of the present, of what is worked on
    size_t half = 0;  // pairs that rotation turns
    size_t total = 0;
    bool is_prompt = false;
    size_t cache_at[2] = {}, sinks_at = 0, numbers_at = 0, bytes = 0, per_thread = 0;
  };
  // For each batch: keys before that are still there, rows that come now, and keys before.
  struct Counts {
    int64_t *resident, *lengths, *fresh, *before, *shifts;
    Counts(void* at, size_t batches) : resident(static_cast<int64_t*>(at)) {
      lengths = resident + batches, fresh = lengths + batches, before = fresh + batches;
      shifts = before + batches;
    }
  };

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->heads = c.attribute_int("num_heads", 0);
    s->kv_heads = c.attribute_int("kv_num_heads", 0);
    s->window = c.attribute_int("local_window_size", -1);
    s->scores = c.attribute_int("qk_output", 0);
    s->scale = c.attribute_float("scale", 0);
    s->softcap = c.attribute_float("softcap", 0);
    s->rotates = c.attribute_int("do_rotary", 0) != 0;
    s->interleaved = c.attribute_int("rotary_interleaved", 0) != 0;
    s->smooth = c.attribute_int("smooth_softmax", 0) != 0;
    s->causal = c.attribute_int("causal", 1) != 0;
    s->slides = c.attribute_int("sliding_window_cache", 0) != 0;
    if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads)
      return c.invalid("% heads of K and V do not divide % of Q", s->kv_heads, s->heads);
    if (!s->causal && s->window != -1) return c.invalid("local_window_size needs causal 1");
    if (s->slides && s->window < 1)
      return c.invalid("sliding_window_cache needs a local_window_size");
    if (s->slides && !c.has_input(kPastKey)) return c.invalid("sliding_window_cache needs a past");
    if (s->scores < 0 || s->scores > 2) return c.invalid("qk_output % is not 0, 1 or 2", s->scores);
    if (c.has_output(3) != (s->scores != 0))
      return c.invalid("output_qk and the attribute qk_output come together");
    for (size_t i = 12; i < kQueryLengths; ++i)
      if (c.has_input(i))
        return c.fail(Status::kNotImplemented,
                      "input % is not supported (quantized caches and "
                      "normalization of Q and K)",
                      i);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    const AttentionTask& t = p.task;
    const int64_t batches = signed_size(t.batches), rows = signed_size(t.rows);
    const int64_t y[] = {batches, rows, signed_size(t.heads * t.width)};
    const Shape cache =
        shape_of({batches, signed_size(t.kv_heads), signed_size(p.present), signed_size(t.width)});
    ORTOLAN_TRY(c.set_output(0, Shape::of({y, 3})));
    ORTOLAN_TRY(c.set_output(1, cache));
    ORTOLAN_TRY(c.set_output(2, cache));
    ORTOLAN_TRY(
        c.set_output(3, shape_of({batches, signed_size(t.heads), rows, signed_size(t.keys)})));
    c.request_scratch(p.bytes, p.per_thread);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    AttentionTask& t = p.task;
    if (!t.batches) return Status::kOk;
    const Counts n(static_cast<char*>(c.scratch()) + p.numbers_at, t.batches);
    ORTOLAN_TRY(count(c, p, n));
    float* const scratch = static_cast<float*>(c.scratch());
    if (state.rotates) {
      rotate(c, p, n, t.q, scratch, t.heads, t.rows, false);
      t.q = whole_heads(scratch, t.heads, t.rows, t.width);
    }
    fill_cache(c, p, n, 0, &t.k);
    fill_cache(c, p, n, 1, &t.v);
    t.lengths = n.lengths, t.offsets = n.resident;
    if (state.slides) t.shifts = n.shifts;
    if (c.has_input(kSinks)) {
      t.sinks = c.input_data<float>(kSinks);
    } else if (state.smooth) {
      t.sinks = scratch + p.sinks_at;
      fill_zero(scratch + p.sinks_at, t.heads * sizeof(float));
    }
    if (state.scores) {
      t.unseen = 0;
      t.scores = c.output_data<float>(3);
    }
    t.y = c.output_data<float>(0);
    t.y_row = t.heads * t.width, t.y_head = t.width, t.y_batch = t.rows * t.y_row;
    attend(c, t);
    if (state.slides) keep_window(c, p, n);
    return Status::kOk;
  }

 private:
  static Status plan(const Context& c, Plan* p) {
    const State& state = c.state<State>();
    AttentionTask& t = p->task;
    t.heads = static_cast<size_t>(state.heads), t.kv_heads = static_cast<size_t>(state.kv_heads);
    ORTOLAN_TRY(place(c, &t));
    ORTOLAN_TRY(plan_cache(c, p));
    ORTOLAN_TRY(check_vectors(c, t));
    t.scale = state.scale != 0 ? state.scale : 1 / __builtin_sqrtf(static_cast<float>(t.width));
    t.softcap = state.softcap;
    if (state.causal) t.right = 0;
    if (state.window > 0) t.left = state.window - 1;
    if (state.scores) t.stage = state.scores == 1 ? Stage::kMasked : Stage::kSoftmax;
    if (state.rotates) ORTOLAN_TRY(plan_rotation(c, p));
    ORTOLAN_TRY(plan_bias(c, p));
    // K and V may both go to scratch, for which the sum of all must fit.
    const Shape cache = shape_of({signed_size(t.batches), signed_size(t.kv_heads),
                                  signed_size(p->room), signed_size(t.width)});
    size_t most;
    if (!checked_bytes(cache, 4 * sizeof(float), &most))
      return c.fail(Status::kLimitExceeded, "a cache of shape % is too large", cache.span());
    size_t floats = state.rotates ? t.batches * t.rows * t.heads * t.width : 0;
    for (size_t i = 0; i < 2; ++i) {
      p->cache_at[i] = floats;
      if (state.slides || !c.has_output(1 + i))
        floats += t.batches * t.kv_heads * p->room * t.width;
    }
    p->sinks_at = floats;
    p->numbers_at = round_up((floats + t.heads) * sizeof(float), kAlignment);
    p->bytes = p->numbers_at + 5 * t.batches * sizeof(int64_t);
    if (!attention_scratch(t, &p->per_thread))
      return c.fail(Status::kLimitExceeded, "% keys are too many", t.keys);
    return Status::kOk;
  }

  // Q, K and V as [B][S][heads * D], or all in the query, one behind the other.
  static Status place(const Context& c, AttentionTask* t) {
    const Shape& q = c.input_shape(kQuery);
    const bool packed = !c.has_input(kKey);
    const size_t parts = t->heads + (packed ? 2 * t->kv_heads : 0);
    if (q.rank != 3 || q[2] < signed_size(parts) || q[2] % signed_size(parts))
      return c.invalid("query of shape % does not fit % heads", q.span(), parts);
    if (packed == c.has_input(kValue)) return c.invalid("key and value come together");
    t->batches = static_cast<size_t>(q[0]), t->rows = static_cast<size_t>(q[1]);
    t->width = t->value_width = static_cast<size_t>(q[2]) / parts;
    const size_t row = static_cast<size_t>(q[2]), narrow = t->kv_heads * t->width;
    const float* data = c.input_data<float>(kQuery);
    t->q = {data, t->rows * row, t->width, row};
    if (packed) {
      t->k = t->v = t->q;
      if (!data) return Status::kOk;
      t->k.data = data + t->heads * t->width;
      t->v.data = t->k.data + narrow;
      return Status::kOk;
    }
    for (size_t i = kKey; i <= kValue; ++i) {
      const Shape& s = c.input_shape(i);
      if (s.rank != 3 || s[0] != q[0] || s[1] != q[1] || s[2] != signed_size(narrow))
        return c.invalid("input % of shape % does not fit % heads of % and query %", i, s.span(),
                         t->kv_heads, t->width, q.span());
    }
    t->k = {c.input_data<float>(kKey), t->rows * narrow, t->width, narrow};
    t->v = {c.input_data<float>(kValue), t->rows * narrow, t->width, narrow};
    return Status::kOk;
  }

  static Status plan_cache(const Context& c, Plan* p) {
    const State& state = c.state<State>();
    AttentionTask& t = p->task;
    int64_t total = 0;
    size_t one = 0;
    if (!c.input_ints(kTotal, &total, 1, &one) || one != 1 || total < signed_size(t.rows))
      return c.invalid("total_sequence_length must be one number, % or more", t.rows);
    if (c.has_input(kPastKey) != c.has_input(kPastValue))
      return c.invalid("past_key and past_value come together");
    for (size_t i = kPastKey; c.has_input(kPastKey) && i <= kPastValue; ++i) {
      const Shape& s = c.input_shape(i);
      if (s.rank != 4 || s[0] != signed_size(t.batches) || s[1] != signed_size(t.kv_heads) ||
          s[3] != signed_size(t.width) || s[2] != c.input_shape(kPastKey)[2])
        return c.invalid("past of shape % does not fit a batch of %, % heads of %", s.span(),
                         t.batches, t.kv_heads, t.width);
      p->past = static_cast<size_t>(s[2]);
    }
    p->total = static_cast<size_t>(total);
    p->is_prompt = p->total == t.rows && !c.has_input(kQueryLengths);
    p->present = p->room = state.slides ? p->past : max(p->past, p->total);
    t.keys = p->total;
    if (!state.slides) return Status::kOk;
    if (p->past < static_cast<size_t>(state.window))
      return c.invalid("a cache of % rows is less than a window of %", p->past, state.window);
    p->room = p->past + t.rows;
    t.keys = p->room;
    if (state.scores) return c.fail(Status::kNotImplemented, "no output_qk of a sliding window");
    return Status::kOk;
  }

  static Status check_vectors(const Context& c, const AttentionTask& t) {
    for (const size_t i : (const size_t[]){kLengths, kQueryLengths, kSinks}) {
      if (!c.has_input(i)) continue;
      const Shape& s = c.input_shape(i);
      const size_t n = i == kSinks ? t.heads : t.batches;
      if (s.count() != n) return c.invalid("input % of shape % needs % entries", i, s.span(), n);
    }
    return Status::kOk;
  }

  static Status plan_rotation(const Context& c, Plan* p) {
    const AttentionTask& t = p->task;
    if (!c.has_input(kCosines) || !c.has_input(kSines))
      return c.invalid("do_rotary needs cos_cache and sin_cache");
    const Shape &cosines = c.input_shape(kCosines), &sines = c.input_shape(kSines);
    if (cosines.rank != 2 || !(cosines == sines) || 2 * cosines[1] > signed_size(t.width))
      return c.invalid("cos_cache % and sin_cache % do not fit heads of %", cosines.span(),
                       sines.span(), t.width);
    p->half = static_cast<size_t>(cosines[1]);
    if (!c.has_input(kPlaces)) return Status::kOk;
    const Shape& s = c.input_shape(kPlaces);
    if (s.rank != 2 || s[0] != signed_size(t.batches) || s[1] != signed_size(t.rows))
      return c.invalid("position_ids of shape % do not fit a batch of % and % rows", s.span(),
                       t.batches, t.rows);
    return Status::kOk;
  }

  // A bias counts keys from the first one of all on, also where a window is all that is left.
  static Status plan_bias(const Context& c, Plan* p) {
    AttentionTask& t = p->task;
    const size_t keys = t.keys;
    t.keys = p->total;
    const Status status = lay_bias(c, kScoreBias, &t);
    t.keys = keys;
    return status;
  }

  // Keys of a window's cache after `total` keys: it is emptied down to the window when it is full.
  static int64_t resident(int64_t total, int64_t room, int64_t window) {
    if (total <= room) return total;
    const int64_t step = room - window + 1;
    return total - (total - room + step - 1) / step * step;
  }

  static Status count(const Context& c, const Plan& p, const Counts& n) {
    const State& state = c.state<State>();
    const AttentionTask& t = p.task;
    const int32_t* ends = c.input_data<int32_t>(kLengths);
    for (size_t b = 0; b < t.batches; ++b) {
      const int64_t total = int64_t{ends[b]} + 1;
      if (total < 1 || total > signed_size(p.total))
        return c.invalid("seqlens_k has %, outside [0, %)", ends[b], p.total);
      const int64_t most = min(total, signed_size(t.rows));
      n.fresh[b] = c.has_input(kQueryLengths) ? c.input_data<int32_t>(kQueryLengths)[b] : most;
      if (n.fresh[b] < 0 || n.fresh[b] > most)
        return c.invalid("query_seqlens has %, outside [0, %]", n.fresh[b], most);
      n.before[b] = total - n.fresh[b];
      n.resident[b] = n.before[b];
      if (state.slides) n.resident[b] = resident(n.before[b], signed_size(p.past), state.window);
      if (n.resident[b] > signed_size(p.past))
        return c.invalid("% keys before are more than the % of the past", n.resident[b], p.past);
      n.lengths[b] = n.resident[b] + n.fresh[b];
      n.shifts[b] = n.before[b] - n.resident[b];
    }
    return check_places(c, p, n);
  }

  static int64_t place_of(const Context& c, const Plan& p, const Counts& n, size_t b, size_t row) {
    const int64_t step = signed_size(row);
    if (!c.has_input(kPlaces)) return n.before[b] + step;
    const int64_t* places = c.input_data<int64_t>(kPlaces);
    return p.is_prompt ? places[0] + step : places[b * p.task.rows + row];
  }
  static Status check_places(const Context& c, const Plan& p, const Counts& n) {
    if (!c.state<State>().rotates) return Status::kOk;
    const int64_t limit = c.input_shape(kCosines)[0];
    for (size_t b = 0; b < p.task.batches; ++b)
      for (size_t r = 0; r < p.task.rows; ++r) {
        const int64_t place = place_of(c, p, n, b, r);
        if (place < 0 || (place >= limit && (signed_size(r) < n.fresh[b] || limit == 0)))
          return c.invalid("position % is outside cos_cache with % rows", place, limit);
      }
    return Status::kOk;
  }

  // Turns rows of all heads into `to`, where each head has `capacity` rows, or behind what is
  // there.
  static void rotate(const Context& c, const Plan& p, const Counts& n, const Heads& from, float* to,
                     size_t heads, size_t capacity, bool behind) {
    const AttentionTask& t = p.task;
    const bool interleaved = c.state<State>().interleaved;
    const int64_t limit = c.input_shape(kCosines)[0];
    c.parallel(t.batches * heads, (1 << 14) / (t.rows * t.width + 1) + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i) {
                   const size_t b = i / heads;
                   const size_t first = behind ? static_cast<size_t>(n.resident[b]) : 0;
                   const float* x = from.at(b, i % heads);
                   float* y = to + (i * capacity + first) * t.width;
                   for (size_t r = 0; r < min(t.rows, capacity - first); ++r) {
                     // Rows of padding may lie beyond the table.
                     const int64_t place = min(place_of(c, p, n, b, r), limit - 1);
                     const size_t angle = static_cast<size_t>(place) * p.half;
                     rotate_row(x, y, t.width, c.input_data<float>(kCosines) + angle,
                                c.input_data<float>(kSines) + angle, p.half, interleaved);
                     x += from.row, y += t.width;
                   }
                 }
               });
  }

  // The past, what comes now, and zeros. `x` is where the new rows lie, and then the cache.
  static void fill_cache(const Context& c, const Plan& p, const Counts& n, size_t index, Heads* x) {
    const State& state = c.state<State>();
    const AttentionTask& t = p.task;
    const bool has_place = c.has_output(1 + index) && !state.slides;
    float* to = has_place ? c.output_data<float>(1 + index)
                          : static_cast<float*>(c.scratch()) + p.cache_at[index];
    const size_t row = t.width * sizeof(float);
    const float* past = c.has_input(kPastKey) ? c.input_data<float>(kPastKey + index) : nullptr;
    const bool turns = index == 0 && state.rotates;
    c.parallel(t.batches * t.kv_heads, (1 << 16) / (p.room * t.width + 1) + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i) {
                   const size_t kept = static_cast<size_t>(n.resident[i / t.kv_heads]);
                   const size_t fresh = min(t.rows, p.room - kept);
                   float* at = to + i * p.room * t.width;
                   if (kept) copy(at, past + i * p.past * t.width, kept * row);
                   const float* from = x->at(i / t.kv_heads, i % t.kv_heads);
                   if (!turns)
                     for (size_t r = 0; r < fresh; ++r)
                       copy(at + (kept + r) * t.width, from + r * x->row, row);
                   fill_zero(at + (kept + fresh) * t.width, (p.room - kept - fresh) * row);
                 }
               });
    if (turns) rotate(c, p, n, *x, to, t.kv_heads, p.room, true);
    *x = whole_heads(to, t.kv_heads, p.room, t.width);
  }

  // The last keys of the cache that was worked on, for the next call.
  static void keep_window(const Context& c, const Plan& p, const Counts& n) {
    const State& state = c.state<State>();
    const AttentionTask& t = p.task;
    const size_t row = t.width * sizeof(float);
    for (size_t index = 0; index < 2; ++index) {
      if (!c.has_output(1 + index)) continue;
      const float* from = index ? t.v.data : t.k.data;
      float* to = c.output_data<float>(1 + index);
      for (size_t i = 0; i < t.batches * t.kv_heads; ++i, from += p.room * t.width) {
        const size_t b = i / t.kv_heads;
        const int64_t total = n.before[b] + n.fresh[b];
        const int64_t kept = resident(total, signed_size(p.present), state.window);
        const size_t rows = static_cast<size_t>(kept);
        copy(to, from + static_cast<size_t>(n.lengths[b] - kept) * t.width, rows * row);
        fill_zero(to + rows * t.width, (p.present - rows) * row);
        to += p.present * t.width;
      }
    }
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
