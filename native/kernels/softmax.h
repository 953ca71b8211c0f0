// Softmax and its logarithm over one axis: three passes (greatest element, sum of exponentials,
// result) over a row, or over as many neighbouring columns as a vector has lanes. The output may
// lie on the input.
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
    if constexpr (is_same<V, D>)
      return 1 / low;
    else
      return join(convert<float>(1 / low), convert<float>(1 / high));
  }
  ORTOLAN_INLINE V logarithm() const {
    if constexpr (is_same<V, D>)
      return elementary::log(low);
    else
      return join(convert<float>(elementary::log(low)), convert<float>(elementary::log(high)));
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

// y = softmax(x), or its logarithm, of n elements side by side, no more than a vector has.
// Behind them are `readable` - n more that may be read.
template <class T>
static void softmax_short_row(const T* x, T* y, size_t n, size_t readable, bool logarithm) {
  using V = Lanes<T>;
  using I = IntLike<V>;
  const V nothing = splat<V>(-static_cast<T>(__builtin_inff()));
  V values;
  if (readable >= kLanesOf<V>)
    values =
        select<V>(lane_numbers<V>() < splat<I>(static_cast<Element<I>>(n)), load<V>(x), nothing);
  else
    values = load_lanes<V>(x, n, nothing[0]);
  const V apart = values - splat<V>(reduce_max(values));
  const V e = elementary::exp_flushed(apart);
  DoubleSum<V> sum;
  sum.add(e);
  if (logarithm)
    store_lanes(y, apart - splat<V>(static_cast<T>(elementary::log(sum.total()))), n);
  else
    store_lanes(y, e * splat<V>(static_cast<T>(1 / sum.total())), n);
}

// The same for more elements. The last vector may overlap the one before; it is kept apart so that
// each element is added once and none is read after it was written.
template <class T>
static void softmax_row(const T* x, T* y, size_t n, bool logarithm) {
  using V = Lanes<T>;
  using I = IntLike<V>;
  constexpr size_t kCount = kLanesOf<V>;
  const size_t last = n - kCount, end = round_up(last, kCount);
  V most = load<V>(x + last);  // a NaN need not stay: it comes back with its exponential
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < end; i += kCount) most = at_least(load<V>(x + i), most);
  const V shift = splat<V>(reduce_max(most));
  const V apart = load<V>(x + last) - shift, tail = elementary::exp_flushed(apart);
  const I overlap = splat<I>(static_cast<Element<I>>(end - last));
  DoubleSum<V> sum;
  sum.add(select<V>(lane_numbers<V>() < overlap, splat<V>(0), tail));
  for (size_t i = 0; i < end;) {
    V part = splat<V>(0);  // a few at a time in the elements' own type
    const size_t part_end = min(end, i + 8 * kCount);
#pragma clang loop unroll(disable)
    for (; i < part_end; i += kCount) {
      const V e = elementary::exp_flushed(load<V>(x + i) - shift);
      part += e;
      if (!logarithm) store(y + i, e);
    }
    sum.add(part);
  }
  if (logarithm) {
    const V all = splat<V>(static_cast<T>(elementary::log(sum.total())));
    for (size_t i = 0; i < end; i += kCount) store(y + i, load<V>(x + i) - shift - all);
    return store(y + last, apart - all);
  }
  const V scale = splat<V>(static_cast<T>(1 / sum.total()));
  for (size_t i = 0; i < end; i += kCount) store(y + i, load<V>(y + i) * scale);
  store(y + last, tail * scale);
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
    const V e = elementary::exp_flushed(load_lanes<V>(x + i, lanes, 0) - most);
    sum.add(e);
    if (!logarithm) store_lanes(y + i, e, lanes);
  }
  const V all = logarithm ? sum.logarithm() : sum.inverse();
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < end; i += stride)
    store_lanes(y + i,
                logarithm ? load_lanes<V>(x + i, lanes, 0) - most - all
                          : load_lanes<V>(y + i, lanes, 0) * all,
                lanes);
}

// The same for rows of two elements, as detectors have them: as many at once as a vector has lanes.
[[maybe_unused]] static void softmax_pairs(const float* x, float* y, size_t rows, bool logarithm) {
  constexpr size_t kCount = kLanes;
  float columns[2 * kCount];
  for (size_t done = 0; done < rows; done += kCount) {
    const size_t count = min(kCount, rows - done);
#pragma clang loop unroll(disable) interleave(disable)
    for (size_t i = 0; i < count; ++i) {
      columns[i] = x[2 * (done + i)];
      columns[kCount + i] = x[2 * (done + i) + 1];
    }
    softmax_columns(columns, columns, 2, kCount, count, logarithm);
#pragma clang loop unroll(disable) interleave(disable)
    for (size_t i = 0; i < count; ++i) {
      y[2 * (done + i)] = columns[i];
      y[2 * (done + i) + 1] = columns[kCount + i];
    }
  }
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
      return c.invalid("axis % is outside the rank %", axis, shape.rank);
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
    constexpr size_t kCount = kLanesOf<Lanes<T>>;
    const size_t width = s.inner == 1 ? 1 : kCount;
    const size_t strips = (s.inner + width - 1) / width;
    c.parallel(s.outer * strips, 1 + 16384 / (s.n * width), [&](size_t begin, size_t end, size_t) {
      if constexpr (!kTiny && is_same<T, float>)
        if (s.inner == 1 && s.n == 2)
          return softmax_pairs(x + 2 * begin, y + 2 * begin, end - begin, logarithm);
      for (size_t unit = begin; unit < end; ++unit) {
        const size_t row = unit / strips, column = (unit - row * strips) * width;
        const size_t at = row * s.n * s.inner + column;
        if (s.inner == 1 && s.n <= kCount)
          softmax_short_row(x + at, y + at, s.n, (end - unit) * s.n, logarithm);
        else if (s.inner == 1)
          softmax_row(x + at, y + at, s.n, logarithm);
        else
          softmax_columns(x + at, y + at, s.n, s.inner, min(width, s.inner - column), logarithm);
      }
    });
    return Status::kOk;
  }
};

}  // namespace ortolan::ORTOLAN_ISA
