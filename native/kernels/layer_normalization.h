// Normalizations of rows: LayerNormalization, RMSNormalization, and com.microsoft's that add first.
#pragma once

#include "core/context.h"
#include "kernels/moments.h"

namespace ortolan::ORTOLAN_ISA {

// y = (x - mean) * inverse * scale + bias; scale and bias may be null, y may be x.
template <class T>
ORTOLAN_NOINLINE void normalize_row(const T* x, T* y, size_t n, Moments<T> m, const T* scale,
                                    const T* bias) {
  using V = Lanes<T>;
  const V mean = splat<V>(m.mean), inverse = splat<V>(m.inverse);
  for_vectors<V>(0, n, [&](size_t i, size_t count) {
    V v = (load_lanes<V>(x + i, count, 0) - mean) * inverse;
    if (scale) v *= load_lanes<V>(scale + i, count, 0);
    if (bias) v += load_lanes<V>(bias + i, count, 0);
    store_lanes(y + i, v, count);
  });
}

// y = x + skip + bias, and its copy where there is one; answers the sum of y, or of its squares.
// bias may be null.
template <class T>
ORTOLAN_NOINLINE double add_skip(const T* x, const T* skip, const T* bias, T* y, T* copy, size_t n,
                                 bool squares) {
  using V = Lanes<T>;
  return row_sum(x, n, [=](V v, size_t i, size_t count) {
    v += load_lanes<V>(skip + i, count, 0);
    if (bias) v += load_lanes<V>(bias + i, count, 0);
    store_lanes(y + i, v, count);
    if (copy) store_lanes(copy + i, v, count);
    return squares ? v * v : v;
  });
}

// Scale or bias of rows: usually one row for all; else it broadcasts and a row is filled each time.
template <class T>
class RowOperand {
 public:
  RowOperand(const Context& c, size_t input, const Shape& x, uint32_t axis)
      : x_(x), axis_(axis), n_(x.product(axis, x.rank)) {
    if (!c.has_input(input)) return;
    data_ = c.input_data<T>(input);
    shape_ = c.input_shape(input);
    uint32_t first = 0;
    while (first < shape_.rank && shape_[first] == 1) ++first;
    shared_ = shape_.rank - first <= x.rank - axis && shape_.count() == n_;
  }
  // n elements for a row; `buffer` holds as many.
  const T* row(size_t index, T* buffer) const {
    if (!data_ || shared_) return data_;
    for (size_t i = 0; i < n_; ++i) {
      size_t rest = index * n_ + i, at = 0, stride = 1;
      for (uint32_t d = x_.rank, s = shape_.rank; d-- > 0 && s-- > 0;) {
        const size_t place = rest % static_cast<size_t>(x_[d]);
        if (shape_[s] != 1) at += place * stride;
        stride *= static_cast<size_t>(shape_[s]);
        rest /= static_cast<size_t>(x_[d]);
      }
      buffer[i] = data_[at];
    }
    return buffer;
  }

 private:
  const Shape& x_;
  Shape shape_;
  uint32_t axis_;
  size_t n_;
  const T* data_ = nullptr;
  bool shared_ = false;
};

struct LayerState {
  int64_t axis = -1;
  float epsilon = 0;
};

ORTOLAN_NOINLINE static Status prepare_layer(Context& c, float epsilon) {
  LayerState* state = c.make_state<LayerState>();
  if (!state) return c.out_of_memory();
  state->axis = c.attribute_int("axis", -1);
  state->epsilon = c.attribute_float("epsilon", epsilon);
  return Status::kOk;
}

ORTOLAN_NOINLINE static Status infer_layer(Context& c) {
  const Shape& x = c.input_shape(0);
  int64_t axis = c.state<LayerState>().axis;
  if (!normalize_axis(&axis, x.rank))
    return c.invalid("axis % is outside a tensor of % dimensions", axis, x.rank);
  for (size_t i = 1; i < 3; ++i) {
    if (!c.has_input(i)) continue;
    const Shape& s = c.input_shape(i);
    bool fits = s.rank <= x.rank;
    for (uint32_t d = 1; fits && d <= s.rank; ++d)
      fits = s[s.rank - d] == 1 || s[s.rank - d] == x[x.rank - d];
    if (!fits) return c.invalid("input % of shape % does not fit %", i, s.span(), x.span());
  }
  Shape moments = x;
  for (uint32_t i = static_cast<uint32_t>(axis); i < x.rank; ++i) moments[i] = 1;
  const size_t n = x.product(static_cast<uint32_t>(axis), x.rank);
  c.request_scratch(0, 2 * n * element_size(c.input_type(0)));
  ORTOLAN_TRY(c.set_output(0, x));
  ORTOLAN_TRY(c.set_output(1, moments));
  return c.set_output(2, moments);
}

// Rows without elements have neither a mean nor a factor.
ORTOLAN_NOINLINE static void write_no_moments(Context& c, size_t last, size_t rows) {
  for (size_t i = 1; i <= last; ++i)
    for (size_t r = 0; c.has_output(i) && r < rows; ++r)
      c.output_data<float>(i)[r] = __builtin_nanf("");
}

constexpr size_t kRowWork = 1 << 14;  // elements that are worth a thread

// Normalizes the rows of input 0; `moments_of(x, n)` gives their mean and factor, which are outputs
// too: both, or without a mean the factor alone.
template <class T, class MomentsOf>
ORTOLAN_INLINE Status run_layer(Context& c, bool centers, MomentsOf moments_of) {
  const Shape& x = c.input_shape(0);
  int64_t axis = c.state<LayerState>().axis;
  normalize_axis(&axis, x.rank);
  const uint32_t first = static_cast<uint32_t>(axis);
  const size_t rows = x.product(0, first), n = x.product(first, x.rank);
  if (n == 0) write_no_moments(c, centers ? 2 : 1, rows);
  if (rows * n == 0) return Status::kOk;
  const RowOperand<T> scale(c, 1, x, first), bias(c, 2, x, first);
  const size_t last = centers ? 2 : 1;
  float* means = centers && c.has_output(1) ? c.output_data<float>(1) : nullptr;
  float* inverses = c.has_output(last) ? c.output_data<float>(last) : nullptr;
  c.parallel(rows, kRowWork / n + 1, [&](size_t begin, size_t end, size_t thread) {
    T* buffer = static_cast<T*>(c.thread_scratch(thread));
    for (size_t r = begin; r < end; ++r) {
      const T* from = c.input_data<T>(0) + r * n;
      const Moments<T> m = moments_of(from, n);
      if (means) means[r] = static_cast<float>(m.mean);
      if (inverses) inverses[r] = static_cast<float>(m.inverse);
      normalize_row(from, c.output_data<T>(0) + r * n, n, m, scale.row(r, buffer),
                    bias.row(r, buffer + n));
    }
  });
  return Status::kOk;
}

struct LayerNormalization {
  static Status prepare(Context& c) { return prepare_layer(c, 1e-5f); }
  static Status infer(Context& c) { return infer_layer(c); }
  template <class T>
  static Status run(Context& c) {
    const float epsilon = c.state<LayerState>().epsilon;
    return run_layer<T>(c, true, [=](const T* x, size_t n) { return row_moments(x, n, epsilon); });
  }
};

// As if the mean was 0.
template <class T>
ORTOLAN_INLINE Moments<T> root_moments(double squares, size_t n, float epsilon) {
  return {0, inverse_root<T>(squares / static_cast<double>(n), epsilon)};
}

struct RMSNormalization {
  static Status prepare(Context& c) { return prepare_layer(c, 1e-5f); }
  static Status infer(Context& c) {
    if (c.input_type(0) != c.input_type(1))
      return c.fail(Status::kNotImplemented, "X is % and the scale %: they must be the same",
                    type_name(c.input_type(0)), type_name(c.input_type(1)));
    return infer_layer(c);
  }
  template <class T>
  static Status run(Context& c) {
    const float epsilon = c.state<LayerState>().epsilon;
    return run_layer<T>(c, false, [=](const T* x, size_t n) {
      return root_moments<T>(square_sum(x, n), n, epsilon);
    });
  }
};

// onnxruntime's, from before the standard's; output 1 has the factors.
struct SimplifiedLayerNormalization : RMSNormalization {};

// Every input from `first` on that is there has one dimension of n.
ORTOLAN_NOINLINE static Status check_vectors(Context& c, size_t first, size_t last, int64_t n) {
  for (size_t i = first; i <= last; ++i) {
    if (!c.has_input(i)) continue;
    const Shape& s = c.input_shape(i);
    if (s.rank != 1 || s[0] != n) return c.invalid("input % has shape %, not [%]", i, s.span(), n);
  }
  return Status::kOk;
}

// Normalizes input + skip + bias, with or without its mean taken away.
template <bool centers>
struct SkipNormalization {
  static constexpr size_t kBeta = centers ? 3 : 0;  // 0: there is none
  static constexpr size_t kBias = centers ? 4 : 3;

  static Status prepare(Context& c) { return prepare_layer(c, 1e-12f); }
  static Status infer(Context& c) {
    const Shape &x = c.input_shape(0), &skip = c.input_shape(1);
    if (x.rank != 2 && x.rank != 3)
      return c.invalid("input 0 of shape % needs 2 or 3 dimensions", x.span());
    // The skip may lack the batch, or have a batch of 1.
    bool fits = skip.rank == x.rank || (x.rank == 3 && skip.rank == 2);
    for (uint32_t d = 1; fits && d <= skip.rank; ++d)
      fits = skip[skip.rank - d] == x[x.rank - d] || (d == 3 && skip[0] == 1);
    if (!fits) return c.invalid("skip of shape % does not fit %", skip.span(), x.span());
    ORTOLAN_TRY(check_vectors(c, 2, kBias, x[x.rank - 1]));
    Shape moments = x;
    moments[x.rank - 1] = 1;
    ORTOLAN_TRY(c.set_output(0, x));
    ORTOLAN_TRY(c.set_output(1, moments));
    ORTOLAN_TRY(c.set_output(2, moments));
    return c.set_output(3, x);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const size_t n = static_cast<size_t>(x[x.rank - 1]), rows = x.product(0, x.rank - 1);
    const size_t skips = c.input_shape(1).count();
    const float epsilon = c.state<LayerState>().epsilon;
    const T* beta = kBeta && c.has_input(kBeta) ? c.input_data<T>(kBeta) : nullptr;
    const T* bias = c.has_input(kBias) ? c.input_data<T>(kBias) : nullptr;
    if (n == 0) write_no_moments(c, 2, rows);
    if (rows * n == 0) return Status::kOk;
    c.parallel(rows, kRowWork / n + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        const T* from = c.input_data<T>(0) + r * n;
        const T* skip = c.input_data<T>(1) + r * n % skips;
        T* to = c.output_data<T>(0) + r * n;
        T* sums = c.has_output(3) ? c.output_data<T>(3) + r * n : nullptr;
        const double total = add_skip(from, skip, bias, to, sums, n, !centers);
        const Moments<T> m =
            centers ? moments_about(to, n, total, epsilon) : root_moments<T>(total, n, epsilon);
        if (c.has_output(1)) c.output_data<float>(1)[r] = m.mean;
        if (c.has_output(2)) c.output_data<float>(2)[r] = m.inverse;
        normalize_row(to, to, n, m, c.input_data<T>(2), beta);
      }
    });
    return Status::kOk;
  }
};

using SkipLayerNormalization = SkipNormalization<true>;
using SkipSimplifiedLayerNormalization = SkipNormalization<false>;

}  // namespace ortolan::ORTOLAN_ISA
