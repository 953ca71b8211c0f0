// The element-wise part of a recurrent step: from the sums of one row to its new state.
// Rows of state, and of sums at their end, are padded to whole vectors: what lies there is computed
// along and never used.
#pragma once

#include "core/math.h"
#include "kernels/simd.h"
#include "ortolan_variants.h"

namespace ortolan::ORTOLAN_ISA {

enum class Function : uint8_t {
  kSigmoid,
  kTanh,
  kRelu,
  kAffine,           // alpha * x + beta
  kLeakyRelu,        // alpha * x below zero
  kThresholdedRelu,  // 0 below alpha
  kScaledTanh,       // alpha * tanh(beta * x)
  kHardSigmoid,      // alpha * x + beta, clipped to [0, 1]
  kElu,              // alpha * (exp(x) - 1) below zero
  kSoftsign,         // x / (1 + |x|)
  kSoftplus,         // log(1 + exp(x))
};

// An activation as a node asks for it.
struct Curve {
  Function function;
  float alpha;
  float beta;
};

// V is F or float.
template <class V>
ORTOLAN_INLINE V apply_to(const Curve& curve, V x) {
  const V zero = splat<V>(0), one = splat<V>(1);
  const V alpha = splat<V>(curve.alpha), beta = splat<V>(curve.beta);
  switch (curve.function) {
    case Function::kSigmoid:
      return math::sigmoid(x);
    case Function::kTanh:
      return math::tanh(x);
    case Function::kRelu:
      return at_least(x, zero);
    case Function::kAffine:
      return fma(alpha, x, beta);
    case Function::kLeakyRelu:
      return x < zero ? alpha * x : x;
    case Function::kThresholdedRelu:
      return x < alpha ? zero : x;
    case Function::kScaledTanh:
      return alpha * math::tanh(beta * x);
    case Function::kHardSigmoid:
      return clamp(fma(alpha, x, beta), zero, one);
    case Function::kElu:
      return x < zero ? alpha * math::expm1(x) : x;
    case Function::kSoftsign:
      return x / (one + math::abs(x));
    case Function::kSoftplus:
      break;
  }
  return at_least(x, zero) + math::log1p(math::exp(-math::abs(x)));
}

ORTOLAN_NOINLINE inline F apply(const Curve& curve, F x) {
  if constexpr (variants::kCurves.is_built) return apply_to(curve, x);
  for (int i = 0; i < kLanes; ++i) x[i] = apply_to(curve, x[i]);  // small and slow
  return x;
}

// What all rows of a direction share.
struct Cell {
  size_t hidden = 0;
  float clip = 0;             // bound of what activations get, infinite for none
  bool input_forget = false;  // LSTM: the forget gate is 1 - the input gate
  bool usual = true;          // no clip, and the standard's default curves
  Curve curves[3] = {};
  const float* peepholes = nullptr;  // LSTM: [3][hidden], for input, output and forget, or null
};

// One row of a step.
struct CellRow {
  const float* x;  // [gates][hidden]: X * W + bias
  const float* r;  // [gates][hidden]: H * R
  float* h;        // [hidden]: the state
  float* extra;    // [hidden]: LSTM: the cell's state; GRU: the update gate between its two halves
  float* reset;    // [hidden]: GRU: reset gate times state
  float* y;        // [hidden], not padded: where the output goes, or null
};

// The curve of a place, compiled in where it is the usual one.
template <Function kFunction, bool kUsual>
ORTOLAN_INLINE F curve(const Cell& cell, int place, F x) {
  if constexpr (!kUsual)
    return apply(cell.curves[place], clamp(x, splat<F>(-cell.clip), splat<F>(cell.clip)));
  else if constexpr (kFunction == Function::kSigmoid)
    return math::sigmoid(x);
  else
    return math::tanh(x);
}

ORTOLAN_INLINE F load_columns(const float* p, size_t column, size_t columns) {
  const size_t left = columns - column;
  return left >= kLanes ? load<F>(p + column) : load_part<F>(p + column, left);
}
ORTOLAN_INLINE void store_state(const Cell& cell, const CellRow& row, size_t column, F h) {
  store(row.h + column, h);
  if (!row.y) return;
  const size_t left = cell.hidden - column;
  if (left >= kLanes)
    store(row.y + column, h);
  else
    store_part(row.y + column, h, left);
}

template <bool kUsual>
ORTOLAN_NOINLINE void rnn_row(const Cell& cell, const CellRow& row) {
  for (size_t j = 0; j < cell.hidden; j += kLanes) {
    const F sum = load<F>(row.x + j) + load<F>(row.r + j);
    store_state(cell, row, j, curve<Function::kTanh, kUsual>(cell, 0, sum));
  }
}

template <bool kUsual>
ORTOLAN_NOINLINE void lstm_row(const Cell& cell, const CellRow& row) {
  const size_t n = cell.hidden;
  for (size_t j = 0; j < n; j += kLanes) {
    F c = load<F>(row.extra + j);
    auto sum = [&](size_t gate) {
      return load<F>(row.x + gate * n + j) + load<F>(row.r + gate * n + j);
    };
    auto peep = [&](size_t gate, F s) {
      return cell.peepholes ? fma(load_columns(cell.peepholes + gate * n, j, n), c, s) : s;
    };
    const F in = curve<Function::kSigmoid, kUsual>(cell, 0, peep(0, sum(0)));
    F forget = splat<F>(1) - in;
    if (!cell.input_forget) forget = curve<Function::kSigmoid, kUsual>(cell, 0, peep(2, sum(2)));
    c = fma(forget, c, in * curve<Function::kTanh, kUsual>(cell, 1, sum(3)));
    const F out = curve<Function::kSigmoid, kUsual>(cell, 0, peep(1, sum(1)));
    // As in onnxruntime, the cell's state is not clipped.
    const F shown = kUsual ? math::tanh(c) : apply(cell.curves[2], c);
    store(row.extra + j, c);
    store_state(cell, row, j, out * shown);
  }
}

ORTOLAN_INLINE F gru_state(F update, F candidate, F h) {
  return fma(update, h, (splat<F>(1) - update) * candidate);
}

// First half, when the reset gate acts on the state: the update gate, and what R is to multiply.
template <bool kUsual>
ORTOLAN_NOINLINE void gru_gates(const Cell& cell, const CellRow& row) {
  const float *x = row.x + cell.hidden, *r = row.r + cell.hidden;
  for (size_t j = 0; j < cell.hidden; j += kLanes) {
    const F update = load<F>(row.x + j) + load<F>(row.r + j);
    const F reset = load<F>(x + j) + load<F>(r + j);
    store(row.extra + j, curve<Function::kSigmoid, kUsual>(cell, 0, update));
    store(row.reset + j, curve<Function::kSigmoid, kUsual>(cell, 0, reset) * load<F>(row.h + j));
  }
}
// Second half; r is [hidden] of the candidate alone.
template <bool kUsual>
ORTOLAN_NOINLINE void gru_row(const Cell& cell, const CellRow& row) {
  const float* x = row.x + 2 * cell.hidden;
  for (size_t j = 0; j < cell.hidden; j += kLanes) {
    const F sum = load<F>(x + j) + load<F>(row.r + j);
    const F candidate = curve<Function::kTanh, kUsual>(cell, 1, sum);
    store_state(cell, row, j, gru_state(load<F>(row.extra + j), candidate, load<F>(row.h + j)));
  }
}
// The whole step, when the reset gate acts on the recurrent product (linear_before_reset).
template <bool kUsual>
ORTOLAN_NOINLINE void gru_row_reset_after(const Cell& cell, const CellRow& row) {
  const size_t n = cell.hidden;
  for (size_t j = 0; j < n; j += kLanes) {
    auto x = [&](size_t gate) { return load<F>(row.x + gate * n + j); };
    auto r = [&](size_t gate) { return load<F>(row.r + gate * n + j); };
    const F update = curve<Function::kSigmoid, kUsual>(cell, 0, x(0) + r(0));
    const F reset = curve<Function::kSigmoid, kUsual>(cell, 0, x(1) + r(1));
    const F candidate = curve<Function::kTanh, kUsual>(cell, 1, fma(reset, r(2), x(2)));
    store_state(cell, row, j, gru_state(update, candidate, load<F>(row.h + j)));
  }
}

}  // namespace ortolan::ORTOLAN_ISA
