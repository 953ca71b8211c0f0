// What recurrent layers have in common before they run: attributes, packed weights, the shapes of
// operands and results, the places of buffers in scratch.
#pragma once

#include "core/context.h"
#include "kernels/few_rows.h"
#include "kernels/recurrent_cells.h"
#include "kernels/variant.h"

namespace ortolan::ORTOLAN_ISA {

// Rows of one input product; their sums stay in the second-level cache until the steps use them.
constexpr size_t kChunkRows = 128;

// What distinguishes the operators outside of their cells.
struct Kind {
  size_t gates;
  size_t curves;
  Curve usual[3];
  bool has_reset;       // GRU
  bool has_cell_state;  // LSTM: inputs initial_c and P, output Y_c
};
constexpr Curve kUsualSigmoid = {Function::kSigmoid, 0, 0};
constexpr Curve kUsualTanh = {Function::kTanh, 0, 0};
constexpr Kind kRnn = {1, 1, {kUsualTanh}, false, false};
constexpr Kind kGru = {3, 2, {kUsualSigmoid, kUsualTanh}, true, false};
constexpr Kind kLstm = {4, 3, {kUsualSigmoid, kUsualTanh, kUsualTanh}, false, true};

// Inputs and outputs of all operators.
enum Input { kX, kW, kR, kB, kLengths, kInitialH, kInitialC, kPeepholes };
enum Output { kY, kYh, kYc };

struct LayerState {
  size_t directions = 1;
  bool reverse = false;  // the first direction
  bool batch_first = false;
  bool reset_after = false;  // GRU: linear_before_reset
  int64_t hidden = -1;       // -1: not given
  Cell cells[2];             // of each direction, as far as the attributes tell
  const float* w = nullptr;  // packed where constant, all directions
  const float* r = nullptr;
};

// Dimensions of a call, what follows from them, and the places of buffers in scratch (in floats).
struct Sizes {
  size_t steps, batch, input, hidden;
  size_t columns;         // gates * hidden
  size_t first, second;   // columns of the step's first and second recurrent product
  size_t padded;          // floats of a row of state
  size_t sums;            // floats of a row of sums: columns, the last gate padded
  size_t chunk;           // steps of one input product
  size_t w_size, r_size;  // packed, of one direction
  size_t w, r;            // packed weights that are not constant: [directions][size]
  size_t bias, r_bias;    // [directions][columns]
  size_t x_sums, r_sums;  // [directions][chunk][batch][sums], [directions][batch][sums]
  size_t rows;            // [directions][3][batch][padded]: h, extra, reset
  size_t total;
};

struct NamedCurve {
  char name[16];     // in lower case; no pointer, so no relocation
  Curve curve;       // with the operator's defaults
  bool alpha, beta;  // which it uses
};
constexpr NamedCurve kCurves[] = {
    {"sigmoid", {Function::kSigmoid, 0, 0}, false, false},
    {"tanh", {Function::kTanh, 0, 0}, false, false},
    {"relu", {Function::kRelu, 0, 0}, false, false},
    {"affine", {Function::kAffine, 1, 0}, true, true},
    {"leakyrelu", {Function::kLeakyRelu, 0.01f, 0}, true, false},
    {"thresholdedrelu", {Function::kThresholdedRelu, 1, 0}, true, false},
    {"scaledtanh", {Function::kScaledTanh, 1, 1}, true, true},
    {"hardsigmoid", {Function::kHardSigmoid, 0.2f, 0.5f}, true, true},
    {"elu", {Function::kElu, 1, 0}, true, false},
    {"softsign", {Function::kSoftsign, 0, 0}, false, false},
    {"softplus", {Function::kSoftplus, 0, 0}, false, false},
};

// onnxruntime takes names in any case. Null for an unknown one.
inline const NamedCurve* find_curve(String name) {
  for (const NamedCurve& entry : kCurves) {
    if (name.size >= sizeof(entry.name) || entry.name[name.size]) continue;
    size_t i = 0;
    for (; i < name.size; ++i) {
      const char c = name.data[i];
      if ((c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c) != entry.name[i]) break;
    }
    if (i == name.size && i) return &entry;
  }
  return nullptr;
}

inline Span<const float> attribute_floats(const Context& c, String name) {
  const Attribute* a = c.attribute(name);
  return a && a->kind == AttributeKind::kFloats ? a->floats : Span<const float>{};
}

// Activations of all directions. Values of alpha and beta go in order to the functions that use
// them.
inline Status parse_curves(const Context& c, const Kind& kind, LayerState* state) {
  for (Cell& cell : state->cells)
    for (size_t i = 0; i < kind.curves; ++i) cell.curves[i] = kind.usual[i];
  const Attribute* names = c.attribute("activations");
  if (!names || names->kind != AttributeKind::kStrings || names->strings.empty())
    return Status::kOk;
  const size_t needed = state->directions * kind.curves;
  if (names->strings.size < needed)
    return c.invalid("activations has % names, needs %", names->strings.size, needed);
  Span<const float> alpha = attribute_floats(c, "activation_alpha");
  Span<const float> beta = attribute_floats(c, "activation_beta");
  size_t alphas = 0, betas = 0;
  for (size_t i = 0; i < needed; ++i) {
    Cell& cell = state->cells[i / kind.curves];
    const NamedCurve* entry = find_curve(names->strings[i]);
    if (!entry) return c.invalid("activation \"%\" is not known", names->strings[i]);
    Curve& curve = cell.curves[i % kind.curves];
    curve = entry->curve;
    if (entry->alpha && alphas < alpha.size) curve.alpha = alpha[alphas++];
    if (entry->beta && betas < beta.size) curve.beta = beta[betas++];
    cell.usual = cell.usual && curve.function == kind.usual[i % kind.curves].function;
  }
  return Status::kOk;
}

inline Status parse_attributes(const Context& c, const Kind& kind, LayerState* state) {
  const String direction = c.attribute_string("direction", "forward");
  state->reverse = direction == "reverse";
  state->directions = direction == "bidirectional" ? 2 : 1;
  if (!state->reverse && state->directions == 1 && !(direction == "forward"))
    return c.invalid("direction \"%\" is not known", direction);
  state->batch_first = c.attribute_int("layout", 0) != 0;
  state->reset_after = kind.has_reset && c.attribute_int("linear_before_reset", 0) != 0;
  state->hidden = c.attribute_int("hidden_size", -1);
  const float clip = c.attribute_float("clip", kInfinity);
  if (!(clip > 0)) return c.invalid("clip must be greater than 0");
  for (Cell& cell : state->cells) {
    cell.clip = clip;
    cell.usual = clip == kInfinity;
    cell.input_forget = c.attribute_int("input_forget", 0) != 0;
  }
  return parse_curves(c, kind, state);
}

// Adds up sizes of hostile shapes without overflow. Pieces are whole cache lines.
struct Adder {
  size_t total = 0;
  bool fits = true;

  size_t take(size_t count, size_t a, size_t b = 1, size_t c = 1) {
    const size_t begin = total;
    fits = fits && !__builtin_mul_overflow(count, a, &count);
    fits = fits && !__builtin_mul_overflow(count, b, &count);
    fits = fits && !__builtin_mul_overflow(count, c, &count);
    fits = fits && count < SIZE_MAX / 64 && total < SIZE_MAX / 64;
    if (fits) total += round_up(count, kAlignment / sizeof(float));
    return begin;
  }
};

// Columns and packed sizes from `columns`, `hidden` and `input`.
inline bool size_weights(const LayerState& state, const Kind& kind, Sizes* s) {
  const bool halves = kind.has_reset && !state.reset_after;
  s->first = halves ? 2 * s->hidden : s->columns;
  s->second = s->columns - s->first;
  Adder adder;  // packing rounds columns up by less than a panel
  adder.take(s->columns + 2 * kTileColumns, max(s->input, s->hidden), 2 * state.directions);
  if (!adder.fits) return false;
  s->w_size = packed_size(s->columns, s->input);
  s->r_size = packed_size(s->first, s->hidden) + packed_size(s->second, s->hidden);
  return true;
}

inline void pack_w(const LayerState& state, const Sizes& s, const float* w, float* out) {
  for (size_t d = 0; d < state.directions; ++d)
    pack_b(w + d * s.columns * s.input, 1, s.input, s.input, s.columns, out + d * s.w_size);
}
inline void pack_r(const LayerState& state, const Sizes& s, const float* r, float* out) {
  for (size_t d = 0; d < state.directions; ++d, r += s.columns * s.hidden, out += s.r_size) {
    pack_b(r, 1, s.hidden, s.hidden, s.first, out);
    pack_b(r + s.first * s.hidden, 1, s.hidden, s.hidden, s.second,
           out + packed_size(s.first, s.hidden));
  }
}

// Packs a weight [directions][columns][depth] that is constant; others are packed in each run.
inline Status pack_weight(Context& c, const Kind& kind, size_t input, LayerState* state) {
  const Slot* weight = c.constant_input(input);
  if (!weight) return Status::kOk;
  const Shape& shape = weight->shape;
  if (shape.rank != 3 || shape[0] != static_cast<int64_t>(state->directions) ||
      shape[1] % static_cast<int64_t>(kind.gates) || !shape.count())
    return Status::kOk;  // infer will say what is wrong
  Sizes s = {};
  s.columns = static_cast<size_t>(shape[1]);
  s.hidden = s.columns / kind.gates;
  s.input = static_cast<size_t>(shape[2]);
  if (input == kR && s.input != s.hidden) return Status::kOk;
  if (!size_weights(*state, kind, &s)) return c.out_of_memory();
  const size_t size = input == kW ? s.w_size : s.r_size;
  float* packed = static_cast<float*>(c.model_memory(state->directions * size * sizeof(float)));
  if (!packed) return c.out_of_memory();
  const float* data = static_cast<const float*>(weight->data);
  if (input == kW)
    pack_w(*state, s, data, packed);
  else
    pack_r(*state, s, data, packed);
  (input == kW ? state->w : state->r) = packed;
  c.has_packed(input);
  return Status::kOk;
}

inline Status prepare_layer(Context& c, const Kind& kind) {
  LayerState* state = c.make_state<LayerState>();
  if (!state) return c.out_of_memory();
  ORTOLAN_TRY(parse_attributes(c, kind, state));
  note<variants::kCurves>(c, [=](int) { return !state->cells[0].usual || !state->cells[1].usual; });
  ORTOLAN_TRY(pack_weight(c, kind, kW, state));
  return pack_weight(c, kind, kR, state);
}

inline Status check_shape(const Context& c, size_t input, String name,
                          Span<const int64_t> expected) {
  if (!c.has_input(input)) return Status::kOk;
  const Shape& shape = c.input_shape(input);
  if (shape == Shape::of(expected)) return Status::kOk;
  return c.invalid("% has shape %, needs %", name, shape.span(), expected);
}

// Dimensions from the inputs' shapes, all of which must agree.
inline Status read_dims(const Context& c, const Kind& kind, Sizes* s) {
  const LayerState& state = c.state<LayerState>();
  const Shape &x = c.input_shape(kX), &r = c.input_shape(kR);
  if (x.rank != 3 || r.rank != 3)
    return c.invalid("X % and R % must have three dimensions", x.span(), r.span());
  const int64_t hidden = r[2], directions = static_cast<int64_t>(state.directions);
  if (max(max(x[0], x[1]), max(x[2], hidden)) > INT32_MAX)
    return c.fail(Status::kLimitExceeded, "a dimension is too large");
  if (state.hidden >= 0 && state.hidden != hidden)
    return c.invalid("hidden_size is %, R % has another", state.hidden, r.span());
  const int64_t columns = static_cast<int64_t>(kind.gates) * hidden;
  const int64_t batch = x[state.batch_first ? 0 : 1];
  const int64_t w_shape[] = {directions, columns, x[2]}, r_shape[] = {directions, columns, hidden};
  const int64_t b_shape[] = {directions, 2 * columns}, p_shape[] = {directions, 3 * hidden};
  int64_t h_shape[] = {directions, batch, hidden};
  if (state.batch_first) swap(h_shape[0], h_shape[1]);
  ORTOLAN_TRY(check_shape(c, kW, "W", {w_shape, 3}));
  ORTOLAN_TRY(check_shape(c, kR, "R", {r_shape, 3}));
  ORTOLAN_TRY(check_shape(c, kB, "B", {b_shape, 2}));
  ORTOLAN_TRY(check_shape(c, kLengths, "sequence_lens", {&batch, 1}));
  ORTOLAN_TRY(check_shape(c, kInitialH, "initial_h", {h_shape, 3}));
  if (kind.has_cell_state) {
    ORTOLAN_TRY(check_shape(c, kInitialC, "initial_c", {h_shape, 3}));
    ORTOLAN_TRY(check_shape(c, kPeepholes, "P", {p_shape, 2}));
  }
  s->steps = static_cast<size_t>(x[state.batch_first ? 1 : 0]);
  s->batch = static_cast<size_t>(batch);
  s->input = static_cast<size_t>(x[2]);
  s->hidden = static_cast<size_t>(hidden);
  s->columns = static_cast<size_t>(columns);
  return Status::kOk;
}

inline Status find_sizes(const Context& c, const Kind& kind, Sizes* s) {
  const LayerState& state = c.state<LayerState>();
  ORTOLAN_TRY(read_dims(c, kind, s));
  const size_t directions = state.directions;
  s->padded = round_up(s->hidden, kLanes);
  s->sums = s->columns + (s->padded - s->hidden);
  s->chunk = min(s->steps, max<size_t>(kChunkRows / max<size_t>(s->batch, 1), 1));
  bool fits = size_weights(state, kind, s);
  Adder adder;
  s->w = adder.take(directions, state.w ? 0 : s->w_size);
  s->r = adder.take(directions, state.r ? 0 : s->r_size);
  s->bias = adder.take(directions, s->columns);
  s->r_bias = adder.take(directions, s->columns);
  s->x_sums = adder.take(directions, s->chunk, s->batch, s->sums);
  s->r_sums = adder.take(directions, s->batch, s->sums);
  s->rows = adder.take(directions * 3, s->batch, s->padded);
  s->total = adder.total;
  if (fits && adder.fits) return Status::kOk;
  return c.fail(Status::kLimitExceeded, "the layer is too large");
}

inline Status infer_layer(Context& c, const Kind& kind) {
  Sizes s = {};
  ORTOLAN_TRY(find_sizes(c, kind, &s));
  const LayerState& state = c.state<LayerState>();
  const int64_t steps = static_cast<int64_t>(s.steps), batch = static_cast<int64_t>(s.batch);
  const int64_t directions = static_cast<int64_t>(state.directions);
  const int64_t hidden = static_cast<int64_t>(s.hidden);
  const int64_t y[] = {steps, directions, batch, hidden};
  const int64_t y_batch_first[] = {batch, steps, directions, hidden};
  const int64_t last[] = {directions, batch, hidden};
  const int64_t last_batch_first[] = {batch, directions, hidden};
  if (c.has_output(kY))
    ORTOLAN_TRY(c.set_output(kY, Shape::of({state.batch_first ? y_batch_first : y, 4})));
  for (size_t i = kYh; i <= kYc; ++i)
    if (c.has_output(i))
      ORTOLAN_TRY(c.set_output(i, Shape::of({state.batch_first ? last_batch_first : last, 3})));
  c.request_scratch(s.total * sizeof(float));
  return Status::kOk;
}

}  // namespace ortolan::ORTOLAN_ISA
