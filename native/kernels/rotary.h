// Rotary position embedding: pairs of a row's first elements turned by the angles of its position.
#pragma once

#include "core/context.h"

namespace ortolan::ORTOLAN_ISA {

// Turns x[0, 2 * half) by the angles of `cosines` and `sines` [half]: neighbours are pairs, or the
// elements of both halves. y may be x; `width` elements are written.
template <class T>
ORTOLAN_NOINLINE void rotate_row(const T* x, T* y, size_t width, const T* cosines, const T* sines,
                                 size_t half, bool interleaved) {
  const size_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
  for (size_t i = 0; i < half; ++i) {
    const T a = x[i * step], b = x[i * step + apart];
    y[i * step] = a * cosines[i] - b * sines[i];
    y[i * step + apart] = b * cosines[i] + a * sines[i];
  }
  if (y != x)
    for (size_t i = 2 * half; i < width; ++i) y[i] = x[i];
}

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

// Both operators of the name; they differ in the order of their inputs.
struct RotaryEmbedding {
  struct State {
    int64_t heads = 0, width = 0;  // 0: not given
    bool interleaved = false;
    uint8_t cosines = 1, sines = 2, places = 3;  // inputs
  };
  struct Plan {
    size_t batches, rows, heads, width, half;
    size_t batch_step, head_step, row_step;
  };

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->heads = c.attribute_int("num_heads", 0);
    s->width = c.attribute_int("rotary_embedding_dim", 0);
    s->interleaved = c.attribute_int("interleaved", 0) != 0;
    if (s->heads < 0 || s->width < 0 || s->width % 2)
      return c.invalid("num_heads % or rotary_embedding_dim % is negative or odd", s->heads,
                       s->width);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    return c.set_output(0, c.input_shape(0));
  }

  template <class T>
  static Status run(Context& c) {
    const State& s = c.state<State>();
    Plan p;
    ORTOLAN_TRY(plan(c, &p));
    const size_t places = c.has_input(s.places) ? c.input_shape(s.places).count() : 0;
    const bool is_table = c.input_shape(s.cosines).rank == 2;
    ORTOLAN_TRY(check_places(c, p, places));
    c.parallel(p.batches * p.rows, (1 << 14) / (p.heads * p.width + 1) + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i) {
                   const size_t b = i / p.rows, r = i % p.rows;
                   const size_t place = is_table ? place_of(c, places, b, r, p.rows) : i;
                   const size_t angle = place * p.half, at = b * p.batch_step + r * p.row_step;
                   for (size_t h = 0; h < p.heads; ++h)
                     rotate_row(c.input_data<T>(0) + at + h * p.head_step,
                                c.output_data<T>(0) + at + h * p.head_step, p.width,
                                c.input_data<T>(s.cosines) + angle,
                                c.input_data<T>(s.sines) + angle, p.half, s.interleaved);
                 }
               });
    return Status::kOk;
  }

 private:
  // X is [B][S][heads * width] or [B][heads][S][width]. The angles are a table that position_ids
  // point into (one of them: where it starts), or [B][S][half].
  static Status plan(const Context& c, Plan* p) {
    const State& s = c.state<State>();
    const Shape &x = c.input_shape(0), &cosines = c.input_shape(s.cosines);
    if (x.rank != 3 && x.rank != 4)
      return c.invalid("input 0 of shape % needs 3 or 4 dimensions", x.span());
    const bool is_table = c.has_input(s.places);
    if (cosines.rank != (is_table ? 2u : 3u) || !(cosines == c.input_shape(s.sines)))
      return c.invalid("cos_cache % and sin_cache % must have % dimensions", cosines.span(),
                       c.input_shape(s.sines).span(), is_table ? 2 : 3);
    const int64_t half = cosines[cosines.rank - 1], rows = x[x.rank - 2];
    int64_t width = x[3], heads = x[1];
    if (x.rank == 3) {
      width = s.heads ? x[2] / s.heads : 2 * half;
      heads = width ? x[2] / width : 0;
      if (heads * width != x[2])
        return c.invalid("input 0 of shape % does not split into heads", x.span());
    }
    if (2 * half != (s.width ? s.width : width) || 2 * half > width)
      return c.invalid("cos_cache of shape % does not fit heads of % and rotary_embedding_dim %",
                       cosines.span(), width, s.width);
    if (!is_table && (cosines[0] != x[0] || cosines[1] != rows))
      return c.invalid("cos_cache of shape % does not fit input 0 of shape %", cosines.span(),
                       x.span());
    if (is_table) {
      const Shape& places = c.input_shape(s.places);
      const bool starts = places.rank == 1 && places[0] == 1;
      if (!starts && (places.rank != 2 || places[0] != x[0] || places[1] != rows))
        return c.invalid("position_ids of shape % do not fit input 0 of shape %", places.span(),
                         x.span());
    }
    p->batches = static_cast<size_t>(x[0]), p->rows = static_cast<size_t>(rows);
    p->heads = static_cast<size_t>(heads), p->width = static_cast<size_t>(width);
    p->half = static_cast<size_t>(half);
    p->batch_step = p->rows * p->heads * p->width;
    p->head_step = x.rank == 4 ? p->rows * p->width : p->width;
    p->row_step = x.rank == 4 ? p->width : p->heads * p->width;
    return Status::kOk;
  }

  static size_t place_of(const Context& c, size_t places, size_t b, size_t r, size_t rows) {
    const State& s = c.state<State>();
    const int64_t* ids = c.input_data<int64_t>(s.places);
    if (c.input_shape(s.places).rank == 1) return static_cast<size_t>(ids[0]) + r;
    return places ? static_cast<size_t>(ids[b * rows + r]) : 0;
  }
  static Status check_places(const Context& c, const Plan& p, size_t places) {
    const State& s = c.state<State>();
    if (!c.has_input(s.places)) return Status::kOk;
    const int64_t* ids = c.input_data<int64_t>(s.places);
    const int64_t limit = c.input_shape(s.cosines)[0];
    const int64_t beyond =
        c.input_shape(s.places).rank == 1 && p.rows ? static_cast<int64_t>(p.rows) - 1 : 0;
    for (size_t i = 0; i < places; ++i)
      if (ids[i] < 0 || ids[i] > limit - 1 - beyond)
        return c.invalid("position % and % after it are outside cos_cache with % rows", ids[i],
                         beyond, limit);
    return Status::kOk;
  }
};

struct MicrosoftRotaryEmbedding : RotaryEmbedding {
  static Status prepare(Context& c) {
    ORTOLAN_TRY(RotaryEmbedding::prepare(c));
    State& s = const_cast<State&>(c.state<State>());
    s.cosines = 2, s.sines = 3, s.places = 1;
    return Status::kOk;
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
