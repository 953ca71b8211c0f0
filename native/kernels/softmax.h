// Softmax and its logarithm over one axis: three passes (greatest element, sum of exponentials,
// result) over a row, or over as many neighbouring columns as a vector has lanes. The output may lie
// on the input.
#pragma once

#include "kernels/reduce.h"

namespace ortolan::ORTOLAN_ISA {

// The lanes of a vector as doubles, added up over many vectors.
template <class V>
struct DoubleSum {
  D low = splat<D>(0), high = splat<D>(0);

  ORTOLAN_INLINE void add(V x) {
    if constexpr (is_same<V, D>) {
      low += x;
    } else {
      low += convert<double>(V(x).lo);
      high += convert<double>(V(x).hi);
    }
  }
  // 1 / sum, or log(sum), of each lane.
  ORTOLAN_INLINE V inverse() const {
    if constexpr (is_same<V, D>) return 1 / low;
    else return join(convert<float>(1 / low), convert<float>(1 / high));
  }
  ORTOLAN_INLINE V logarithm() const {
    if constexpr (is_same<V, D>) return elementary::log(low);
    else return join(convert<float>(elementary::log(low)), convert<float>(elementary::log(high)));
  }
  ORTOLAN_INLINE double total() const { return reduce_sum(low + high); }

 private:
  template <class H>
  ORTOLAN_INLINE static V join(H low, H high) {
    V both;
    both.lo = low;
    both.hi = high;
    return both;
  }
};

// Calls body(i, lanes) for n elements, a vector at a time.
template <class V, class Body>
ORTOLAN_INLINE void by_vectors(size_t n, const Body& body) {
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < n; i += kLanesOf<V>) body(i, min<size_t>(n - i, kLanesOf<V>));
}

template <class V>
ORTOLAN_INLINE V load_lanes(const Element<V>* p, size_t lanes, Element<V> rest) {
  if (lanes == kLanesOf<V>) return load<V>(p);
  Element<V> values[kLanesOf<V>];
  store(values, splat<V>(rest));
  copy_part<kLanesOf<V>>(values, p, lanes);
  return load<V>(values);
}

template <class V>
ORTOLAN_INLINE void store_lanes(Element<V>* p, V v, size_t lanes) {
  if (lanes == kLanesOf<V>)
    store(p, v);
  else
    store_part(p, v, lanes);
}

// y = softmax(x), or its logarithm, of n elements side by side.
template <class T>
static void softmax_row(const T* x, T* y, size_t n, bool logarithm) {
  using V = Lanes<T>;
  constexpr T kNothing = -static_cast<T>(__builtin_inff());
  T most = kNothing;
  ReduceRows<MaxOf, T>::row(reinterpret_cast<const char*>(x), n, &most, nullptr);
  const V shift = splat<V>(most);
  DoubleSum<V> sum;
  by_vectors<V>(n, [&](size_t i, size_t lanes) {
    const V e = elementary::exp(load_lanes<V>(x + i, lanes, kNothing) - shift);
    sum.add(e);
    if (!logarithm) store_lanes(y + i, e, lanes);
  });
  if (logarithm) {
    const V all = splat<V>(static_cast<T>(elementary::log(sum.total())));
    by_vectors<V>(n, [&](size_t i, size_t lanes) {
      store_lanes(y + i, load_lanes<V>(x + i, lanes, kNothing) - shift - all, lanes);
    });
  } else {
    const V scale = splat<V>(static_cast<T>(1 / sum.total()));
    by_vectors<V>(n, [&](size_t i, size_t lanes) {
      store_lanes(y + i, load_lanes<V>(y + i, lanes, kNothing) * scale, lanes);
    });
  }
}

// The same for `lanes` columns side by side, their n elements `stride` apart.
template <class T>
static void softmax_columns(const T* x, T* y, size_t n, size_t stride, size_t lanes,
                            bool logarithm) {
  using V = Lanes<T>;
  const size_t end = n * stride;
  V most = splat<V>(-static_cast<T>(__builtin_inff()));
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < end; i += stride) most = maximum(most, load_lanes<V>(x + i, lanes, 0));
  DoubleSum<V> sum;
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < end; i += stride) {
    const V e = elementary::exp(load_lanes<V>(x + i, lanes, 0) - most);
    sum.add(e);
    if (!logarithm) store_lanes(y + i, e, lanes);
  }
  const V all = logarithm ? sum.logarithm() : sum.inverse();
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < end; i += stride)
    store_lanes(y + i, logarithm ? load_lanes<V>(x + i, lanes, 0) - most - all
                                 : load_lanes<V>(y + i, lanes, 0) * all, lanes);
}

// The input as [outer][n][inner] in memory order, the middle one being normalised.
struct SoftmaxShape {
  size_t outer = 1, n = 1, inner = 1;
};

struct SoftmaxAxis {
  int64_t axis;
  bool flattens;  // before version 13 all axes from this one on are one

  static Status prepare(Context& c) {
    SoftmaxAxis* state = c.make_state<SoftmaxAxis>();
    if (!state) return c.out_of_memory();
    state->flattens = c.since_version() < 13;
    state->axis = c.attribute_int("axis", state->flattens ? 1 : -1);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    int64_t axis = c.state<SoftmaxAxis>().axis;
    const Shape& shape = c.input_shape(0);
    if (!normalize_axis(&axis, shape.rank))
      return c.invalid("axis ", axis, " is outside the rank ", shape.rank);
    return c.set_output(0, shape);
  }

  ORTOLAN_SMALL static SoftmaxShape shape(const Context& c) {
    const Shape& dims = c.input_shape(0);
    const SoftmaxAxis& state = c.state<SoftmaxAxis>();
    int64_t axis = state.axis;
    if (axis < 0) axis += dims.rank;
    const uint32_t first = static_cast<uint32_t>(axis);
    const uint32_t last = state.flattens ? dims.rank - 1 : first;
    SoftmaxShape result;
    // In memory order the middle is in one piece, whatever the layout.
    const uint32_t place = memory_position(first, dims.rank, c.input_layout(0));
    for (uint32_t i = 0; i < dims.rank; ++i) {
      const uint32_t at = memory_position(i, dims.rank, c.input_layout(0));
      size_t& part = i >= first && i <= last ? result.n : at < place ? result.outer : result.inner;
      part *= static_cast<size_t>(dims[i]);
    }
    return result;
  }

  template <class T>
  static Status run(Context& c, bool logarithm) {
    const SoftmaxShape s = shape(c);
    const T* x = c.input_data<T>(0);
    T* y = c.output_data<T>(0);
    if (s.n == 0 || s.outer == 0 || s.inner == 0) return Status::kOk;
    const size_t width = s.inner == 1 ? 1 : kLanesOf<Lanes<T>>;
    const size_t strips = (s.inner + width - 1) / width;
    c.parallel(s.outer * strips, 1 + 8192 / (s.n * width),
               [&](size_t begin, size_t end, size_t) {
                 for (size_t unit = begin; unit < end; ++unit) {
                   const size_t row = unit / strips, column = (unit - row * strips) * width;
                   const size_t at = row * s.n * s.inner + column;
                   if (s.inner == 1)
                     softmax_row(x + at, y + at, s.n, logarithm);
                   else
                     softmax_columns(x + at, y + at, s.n, s.inner, min(width, s.inner - column),
                                     logarithm);
                 }
               });
    return Status::kOk;
  }
};

}  // namespace ortolan::ORTOLAN_ISA
