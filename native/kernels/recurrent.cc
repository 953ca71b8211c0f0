// Recurrent layers: LSTM, GRU and RNN. The input product of many steps is one product of matrices;
// each step adds the product with the state and applies the cell (recurrent_cells.h) row by row.
#include "kernels/recurrent_layer.h"

namespace ortolan::ORTOLAN_ISA {

namespace {

// Strides in elements of tensors indexed by step, direction and row.
struct Strides {
  size_t x_step, x_row;
  size_t y_step, y_direction, y_row;
  size_t state_direction, state_row;
};
Strides find_strides(const LayerState& state, const Sizes& s) {
  const size_t h = s.hidden, all = state.directions * h;
  if (state.batch_first) return {s.input, s.steps * s.input, all, h, s.steps * all, h, all};
  return {s.batch * s.input, s.input, s.batch * all, s.batch * h, h, s.batch * h, h};
}

// One direction of a running layer.
struct Direction {
  const Context& c;
  const Sizes& s;
  Strides strides;
  Cell cell;
  bool reverse, reset_after;
  bool alone;  // the products may use all threads
  const float* x;
  const int32_t* lengths;              // [batch] or null
  const float *w, *r;                  // packed
  const float *bias, *r_bias;          // [columns]; r_bias may be null
  float *x_sums, *r_sums;              // [chunk][batch][sums], [batch][sums]
  float *h, *extra, *reset;            // [batch][padded]
  float *y, *y_h, *y_c;                // at this direction, or null
  const float *initial_h, *initial_c;  // likewise

  size_t length(size_t row) const { return lengths ? static_cast<size_t>(lengths[row]) : s.steps; }

  // sums[rows][ld] = a * packed + bias, or with the panels in falling order.
  void multiply(size_t rows, const float* a, size_t lda, size_t depth, const float* packed,
                size_t columns, const float* bias_of, float* sums, size_t ld,
                bool falling = false) const {
    GemmArgs g;
    g.M = rows, g.N = columns, g.K = depth;
    g.a = a, g.lda = lda, g.packed_b = packed, g.c = sums, g.ldc = ld;
    g.epilogue.bias = bias_of;
    auto part = [&](size_t begin, size_t end, size_t) {
      constexpr size_t kPiece = 2 * kGroupPanels;
      for (; falling && end - begin > kPiece; end -= kPiece)
        multiply_rows_panels(g, 0, rows, end - kPiece, end);
      multiply_rows_panels(g, 0, rows, begin, end);
    };
    const size_t panels = panel_count(columns);
    if (!alone) return part(0, panels, 0);
    const size_t work = max<size_t>(rows * depth * kTileColumns, 1);
    // The weights come from the caches, and half of them from each processor's own.
    c.parallel(panels, max<size_t>(kThreadWork / 4 / work, 1), part);
  }

  // X * W of rows [row0, row1) in `count` steps from `step` on.
  void multiply_input(size_t step, size_t count, size_t row0, size_t row1) const {
    const float* from = x + step * strides.x_step;
    const size_t ld = s.sums;
    if (row0 == 0 && row1 == s.batch && strides.x_step == s.batch * s.input)
      return multiply(count * s.batch, from, s.input, s.input, w, s.columns, bias, x_sums, ld);
    for (size_t row = row0; row < row1; ++row)
      multiply(count, from + row * strides.x_row, strides.x_step, s.input, w, s.columns, bias,
               x_sums + row * ld, s.batch * ld);
  }

  // The first product of a step, of the state. Every other step goes through R the other way: it
  // begins with what the step before left in the caches.
  void multiply_state(size_t step, size_t row0, size_t row1) const {
    multiply(row1 - row0, h + row0 * s.padded, s.padded, s.hidden, r, s.first, r_bias,
             r_sums + row0 * s.sums, s.sums, step & 1);
  }
  // The second one, of the reset state.
  void multiply_reset(size_t step, size_t row0, size_t row1) const {
    multiply(row1 - row0, reset + row0 * s.padded, s.padded, s.hidden,
             r + packed_size(s.first, s.hidden), s.second, nullptr, r_sums + row0 * s.sums, s.sums,
             step & 1);
  }

  // Calls body(row) with the CellRow of each row that has this step.
  template <class Body>
  ORTOLAN_INLINE void for_rows(size_t step, size_t in_chunk, size_t row0, size_t row1,
                               Body body) const {
    for (size_t n = row0; n < row1; ++n) {
      if (step >= length(n)) continue;
      body(CellRow{x_sums + (in_chunk * s.batch + n) * s.sums, r_sums + n * s.sums,
                   h + n * s.padded, extra + n * s.padded, reset + n * s.padded,
                   y ? y + step * strides.y_step + n * strides.y_row : nullptr});
    }
  }

  void start(size_t row0, size_t row1) const {
    const size_t bytes = s.hidden * sizeof(float);
    for (size_t n = row0; n < row1; ++n) {
      float *to_h = h + n * s.padded, *to_c = extra + n * s.padded;
      fill_zero(to_h, bytes);
      fill_zero(to_c, bytes);
      if (initial_h) copy(to_h, initial_h + n * strides.state_row, bytes);
      if (initial_c) copy(to_c, initial_c + n * strides.state_row, bytes);
    }
  }
  // As in onnxruntime, the last state of an empty sequence is zero.
  void finish(size_t row0, size_t row1) const {
    const size_t bytes = s.hidden * sizeof(float);
    auto give = [&](float* to, const float* from, size_t n) {
      if (!to) return;
      to += n * strides.state_row;
      if (length(n))
        copy(to, from + n * s.padded, bytes);
      else
        fill_zero(to, bytes);
    };
    for (size_t n = row0; n < row1; ++n) {
      give(y_h, h, n);
      give(y_c, extra, n);
      for (size_t t = length(n); y && t < s.steps; ++t)
        fill_zero(y + t * strides.y_step + n * strides.y_row, bytes);
    }
  }
};

// All steps of rows [row0, row1) of one direction.
template <class Layer>
void run_rows(const Direction& d, size_t row0, size_t row1) {
  const size_t steps = d.s.steps;
  d.start(row0, row1);
  for (size_t done = 0; done < steps; done += d.s.chunk) {
    const size_t count = min(d.s.chunk, steps - done);
    const size_t begin = d.reverse ? steps - done - count : done;
    d.multiply_input(begin, count, row0, row1);
    for (size_t i = 0; i < count; ++i) {
      const size_t in_chunk = d.reverse ? count - 1 - i : i;
      size_t end = row1;
      while (end > row0 && begin + in_chunk >= d.length(end - 1)) --end;
      if (end > row0) Layer::step(d, begin + in_chunk, in_chunk, row0, end);
    }
  }
  d.finish(row0, row1);
}

// The sum of both biases, or both where the reset gate lies between them.
void add_biases(const float* b, size_t columns, size_t apart, float* bias, float* r_bias) {
  for (size_t i = 0; i < columns; ++i) {
    bias[i] = b[i] + (i < apart ? b[columns + i] : 0);
    r_bias[i] = i < apart ? 0 : b[columns + i];
  }
}

Direction make_direction(const Context& c, const Kind& kind, const Sizes& s, size_t i) {
  const LayerState& state = c.state<LayerState>();
  const Strides strides = find_strides(state, s);
  float* scratch = static_cast<float*>(c.scratch());
  auto input = [&](size_t index, size_t stride) -> const float* {
    return c.has_input(index) ? c.input_data<float>(index) + i * stride : nullptr;
  };
  auto output = [&](size_t index, size_t stride) -> float* {
    return c.has_output(index) ? c.output_data<float>(index) + i * stride : nullptr;
  };
  float* bias = scratch + s.bias + i * s.columns;
  float* r_bias = scratch + s.r_bias + i * s.columns;
  const float* b = input(kB, 2 * s.columns);
  if (b) add_biases(b, s.columns, state.reset_after ? 2 * s.hidden : s.columns, bias, r_bias);
  Cell cell = state.cells[i];
  cell.hidden = s.hidden;
  if (kind.has_cell_state) cell.peepholes = input(kPeepholes, 3 * s.hidden);
  const size_t rows = s.batch * s.padded;
  float* h = scratch + s.rows + i * 3 * rows;
  return {c,
          s,
          strides,
          cell,
          i == 1 || state.reverse,
          state.reset_after,
          false,
          c.input_data<float>(kX),
          c.has_input(kLengths) ? c.input_data<int32_t>(kLengths) : nullptr,
          (state.w ? state.w : scratch + s.w) + i * s.w_size,
          (state.r ? state.r : scratch + s.r) + i * s.r_size,
          b ? bias : nullptr,
          b && state.reset_after ? r_bias : nullptr,
          scratch + s.x_sums + i * s.chunk * s.batch * s.sums,
          scratch + s.r_sums + i * s.batch * s.sums,
          h,
          h + rows,
          h + 2 * rows,
          output(kY, strides.y_direction),
          output(kYh, strides.state_direction),
          kind.has_cell_state ? output(kYc, strides.state_direction) : nullptr,
          input(kInitialH, strides.state_direction),
          kind.has_cell_state ? input(kInitialC, strides.state_direction) : nullptr};
}

Status check_lengths(const Context& c, const Sizes& s) {
  if (!c.has_input(kLengths)) return Status::kOk;
  const int32_t* lengths = c.input_data<int32_t>(kLengths);
  for (size_t n = 0; n < s.batch; ++n)
    if (lengths[n] < 0 || static_cast<size_t>(lengths[n]) > s.steps)
      return c.invalid("sequence_lens has %, X has % steps", static_cast<int64_t>(lengths[n]),
                       static_cast<int64_t>(s.steps));
  return Status::kOk;
}

template <class Layer>
Status run_layer(Context& c) {
  const LayerState& state = c.state<LayerState>();
  Sizes s = {};
  ORTOLAN_TRY(find_sizes(c, Layer::kKind, &s));
  ORTOLAN_TRY(check_lengths(c, s));
  if (!s.batch || !s.hidden) return Status::kOk;
  float* scratch = static_cast<float*>(c.scratch());
  if (!state.w) pack_w(state, s, c.input_data<float>(kW), scratch + s.w);
  if (!state.r) pack_r(state, s, c.input_data<float>(kR), scratch + s.r);
  Direction directions[2] = {make_direction(c, Layer::kKind, s, 0),
                             make_direction(c, Layer::kKind, s, state.directions - 1)};
  // Threads take directions and rows of the batch, which needs no waiting between steps; a single
  // direction of few rows has only its products to split.
  constexpr size_t kEnoughRows = 8;
  if (state.directions == 1 && s.batch < kEnoughRows) {
    directions[0].alone = true;
    run_rows<Layer>(directions[0], 0, s.batch);
    return Status::kOk;
  }
  const size_t work = max<size_t>(s.steps * s.columns * (s.input + s.hidden), 1);
  c.parallel(state.directions * s.batch, max<size_t>(kThreadWork / work, 1),
             [&](size_t begin, size_t end, size_t) {
               while (begin < end) {
                 const size_t row0 = begin % s.batch, row1 = min(s.batch, row0 + (end - begin));
                 run_rows<Layer>(directions[begin / s.batch], row0, row1);
                 begin += row1 - row0;
               }
             });
  return Status::kOk;
}

}  // namespace

struct RNN {
  static constexpr const Kind& kKind = kRnn;

  static Status prepare(Context& c) { return prepare_layer(c, kKind); }
  static Status infer(Context& c) { return infer_layer(c, kKind); }
  template <class T>
  static Status run(Context& c) {
    return run_layer<RNN>(c);
  }
  static void step(const Direction& d, size_t step, size_t in_chunk, size_t row0, size_t row1) {
    d.multiply_state(step, row0, row1);
    d.for_rows(step, in_chunk, row0, row1, [&](const CellRow& row) {
      d.cell.usual ? rnn_row<true>(d.cell, row) : rnn_row<false>(d.cell, row);
    });
  }
};

struct GRU {
  static constexpr const Kind& kKind = kGru;

  static Status prepare(Context& c) { return prepare_layer(c, kKind); }
  static Status infer(Context& c) { return infer_layer(c, kKind); }
  template <class T>
  static Status run(Context& c) {
    return run_layer<GRU>(c);
  }
  static void step(const Direction& d, size_t step, size_t in_chunk, size_t row0, size_t row1) {
    const bool usual = d.cell.usual;
    auto for_rows = [&](auto body) { d.for_rows(step, in_chunk, row0, row1, body); };
    d.multiply_state(step, row0, row1);
    if (d.reset_after)
      return for_rows([&](const CellRow& row) {
        usual ? gru_row_reset_after<true>(d.cell, row) : gru_row_reset_after<false>(d.cell, row);
      });
    for_rows([&](const CellRow& row) {
      usual ? gru_gates<true>(d.cell, row) : gru_gates<false>(d.cell, row);
    });
    d.multiply_reset(step, row0, row1);
    for_rows([&](const CellRow& row) {
      usual ? gru_row<true>(d.cell, row) : gru_row<false>(d.cell, row);
    });
  }
};

struct LSTM {
  static constexpr const Kind& kKind = kLstm;

  static Status prepare(Context& c) { return prepare_layer(c, kKind); }
  static Status infer(Context& c) { return infer_layer(c, kKind); }
  template <class T>
  static Status run(Context& c) {
    return run_layer<LSTM>(c);
  }
  static void step(const Direction& d, size_t step, size_t in_chunk, size_t row0, size_t row1) {
    d.multiply_state(step, row0, row1);
    d.for_rows(step, in_chunk, row0, row1, [&](const CellRow& row) {
      d.cell.usual ? lstm_row<true>(d.cell, row) : lstm_row<false>(d.cell, row);
    });
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "recurrent.inc"
