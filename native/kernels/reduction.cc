// Reduce*, ArgMax, ArgMin, Softmax, LogSoftmax.
#include "kernels/reduce.h"
#include "kernels/softmax.h"

namespace ortolan::ORTOLAN_ISA {

enum class Finish : uint8_t { kSum, kMean, kRoot, kLogarithm };

// out = what the sums of `count` elements each stand for; `shift` is added to logarithms.
using FinishFunction = void (*)(Finish how, const void* state, size_t columns, size_t count,
                                const void* shift, char* out, size_t stride);

template <class T>
static void finish_sums(Finish how, const void* state, size_t columns, size_t count,
                        const void* shift, char* out, size_t stride) {
  const double* sums = static_cast<const double*>(state);
  // Of nothing the mean is 0, as in onnxruntime.
  const double divisor = how == Finish::kMean && count > 0 ? static_cast<double>(count) : 1;
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < columns; ++i, out += stride) {
    double value = sums[i] / divisor;
    if (how == Finish::kRoot) value = math::sqrt(value);
    if (how == Finish::kLogarithm) {
      value = elementary::log(value);
      if (shift) value += static_cast<const T*>(shift)[i];
    }
    store(out, static_cast<T>(value));
  }
}

template <class T>
static void finish_integers(Finish how, const void* state, size_t columns, size_t count,
                            const void*, char* out, size_t stride) {
  const int64_t* sums = static_cast<const int64_t*>(state);
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < columns; ++i, out += stride) {
    int64_t value = sums[i];
    if (how == Finish::kMean && count > 0) value /= static_cast<int64_t>(count);
    if (how == Finish::kRoot) value = to_signed<int64_t>(math::sqrt(static_cast<double>(value)));
    store(out, static_cast<T>(value));
  }
}

template <class T>
static void finish_extremes(Finish, const void* state, size_t columns, size_t, const void*,
                            char* out, size_t stride) {
  const Stored<T>* values = static_cast<const Stored<T>*>(state);
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < columns; ++i, out += stride) {
    if constexpr (is_same<T, bool>)
      store<uint8_t>(out, values[i] != 0);
    else
      store(out, values[i]);
  }
}

// What all reductions share. Axes are an attribute in old versions and an input since 18 (ReduceSum
// since 13); a loaded graph has one or the other.
struct Reduce {
  bool keepdims;
  bool does_nothing;  // without axes; else all axes are reduced
  uint32_t count;
  int64_t axes[kMaxRank];

  ORTOLAN_SMALL static Status prepare(Context& c) {
    Reduce* state = c.make_state<Reduce>();
    if (!state) return c.out_of_memory();
    state->keepdims = c.attribute_int("keepdims", 1) != 0;
    state->does_nothing = c.attribute_int("noop_with_empty_axes", 0) != 0;
    const Span<const int64_t> axes = c.attribute_ints("axes");
    if (axes.size > kMaxRank) return c.invalid("there are % axes", axes.size);
    state->count = static_cast<uint32_t>(axes.size);
    for (uint32_t i = 0; i < state->count; ++i) state->axes[i] = axes[i];
    return Status::kOk;
  }

  ORTOLAN_SMALL static Status read_axes(Context& c, uint32_t* mask) {
    const Reduce& state = c.state<Reduce>();
    const uint32_t rank = c.input_shape(0).rank;
    int64_t axes[kMaxRank];
    size_t count = state.count;
    for (size_t i = 0; i < count; ++i) axes[i] = state.axes[i];
    if (c.has_input(1) && !c.input_ints(1, axes, kMaxRank, &count))
      return c.invalid("axes must be at most % integers", kMaxRank);
    *mask = count == 0 && !state.does_nothing ? (1u << rank) - 1 : 0;
    for (size_t i = 0; i < count; ++i) {
      int64_t axis = axes[i];
      if (!normalize_axis(&axis, rank))
        return c.invalid("axis % is outside the rank %", axis, rank);
      *mask |= 1u << axis;
    }
    return Status::kOk;
  }

  ORTOLAN_SMALL static Status infer(Context& c) {
    uint32_t mask;
    ORTOLAN_TRY(read_axes(c, &mask));
    return set_reduced(c, mask, c.state<Reduce>().keepdims);
  }

  ORTOLAN_SMALL static Status set_reduced(Context& c, uint32_t mask, bool keepdims) {
    const Shape& in = c.input_shape(0);
    Shape out;
    for (uint32_t i = 0; i < in.rank; ++i) {
      const bool reduced = mask >> i & 1;
      if (!reduced || keepdims) out.append(reduced ? 1 : in[i]);
    }
    return c.set_output(0, out);
  }
};

// `shifts`, if any, is reduced first and handed to `reducer`; `settle` makes it finite.
struct Reduction {
  Reducer reducer;
  FinishFunction finish;
  Finish how;
  Reducer shifts = {};
  void (*settle)(void* shifts, size_t columns) = nullptr;
};

ORTOLAN_SMALL static Status reduce(Context& c, const Reduction& reduction) {
  uint32_t mask;
  ORTOLAN_TRY(Reduce::read_axes(c, &mask));
  const ReduceLoop loop = make_reduce_loop(c, mask);
  for_blocks(c, loop, [&](const char* in, char* out, size_t columns, size_t stride) {
    alignas(64) char state[kColumns * kAccumulator], shifts[kColumns * kAccumulator];
    const bool shifted = reduction.settle;
    if (shifted) {
      reduce_block(loop, reduction.shifts, in, columns, shifts, nullptr);
      reduction.settle(shifts, columns);
    }
    const void* shift = shifted ? shifts : nullptr;
    reduce_block(loop, reduction.reducer, in, columns, state, shift);
    reduction.finish(reduction.how, state, columns, loop.inputs, shift, out, stride);
  });
  return Status::kOk;
}

template <class Op, class T>
Status reduce_sums(Context& c, Finish how) {
  if constexpr (is_float<T>)
    return reduce(c, {ReduceRows<Op, T>::reducer(), finish_sums<T>, how});
  else
    return reduce(c, {ReduceRows<Op, T>::reducer(), finish_integers<T>, how});
}

template <class Op, Finish how = Finish::kSum>
struct ReduceSums : Reduce {
  template <class T>
  static Status run(Context& c) {
    return reduce_sums<Op, T>(c, how);
  }
};

template <class Op>
struct ReduceExtremes : Reduce {
  template <class T>
  static Status run(Context& c) {
    return reduce(c, {ReduceRows<Op, Stored<T>>::reducer(), finish_extremes<T>, Finish::kSum});
  }
};

struct ReduceSum : ReduceSums<SumOf> {};
struct ReduceMean : ReduceSums<SumOf, Finish::kMean> {};
struct ReduceSumSquare : ReduceSums<SumOfSquares> {};
struct ReduceL1 : ReduceSums<SumOfSizes> {};
struct ReduceL2 : ReduceSums<SumOfSquares, Finish::kRoot> {};
struct ReduceLogSum : ReduceSums<SumOf, Finish::kLogarithm> {};
struct ReduceProd : ReduceSums<ProductOf> {};
struct ReduceMax : ReduceExtremes<MaxOf> {};
struct ReduceMin : ReduceExtremes<MinOf> {};

// log(sum(exp(x))) = m + log(sum(exp(x - m))), m the greatest x unless that is infinite.
struct ReduceLogSumExp : Reduce {
  template <class T>
  static void settle(void* shifts, size_t columns) {
    T* m = static_cast<T*>(shifts);
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t i = 0; i < columns; ++i) m[i] = m[i] - m[i] == 0 ? m[i] : 0;
  }
  template <class T>
  static Status run(Context& c) {
    return reduce(c, {ReduceRows<SumOfExponentials, T>::reducer(), finish_sums<T>,
                      Finish::kLogarithm, ReduceRows<MaxOf, T>::reducer(), settle<T>});
  }
};

// Where the extreme is, by its bits' type W.
template <class W>
struct Search {
  template <class V>
  ORTOLAN_INLINE static auto matches(V x, V extreme) {
    // A NaN is among the elements only if it is the extreme.
    if constexpr (is_float<W>)
      return (x == extreme) | (x != x);
    else
      return x == extreme;
  }

  // The first of n elements side by side that matches (one does), or the last.
  static size_t row(const char* x, size_t n, const void* extreme, bool last) {
    using V = Lanes<W>;
    const W wanted = load<W>(extreme);
    const auto at = [&](size_t i) { return x + i * sizeof(W); };
    const auto any = [&](size_t i) {
      return math::any<V>(matches(load<V>(at(i)), splat<V>(wanted)));
    };
    constexpr size_t kCount = kLanesOf<V>;
    if (last) {
      while (n > kCount && !any(n - kCount)) n -= kCount;
      while (n > 1 && !matches(load<W>(at(n - 1)), wanted)) --n;
      return n - 1;
    }
    size_t i = 0;
    while (n - i > kCount && !any(i)) i += kCount;
    while (i + 1 < n && !matches(load<W>(at(i)), wanted)) ++i;
    return i;
  }

  // Likewise for each column, the rows being `stride` apart.
  static void columns(const char* x, size_t n, size_t stride, size_t columns, const void* extremes,
                      bool last, uint32_t* found) {
    const W* wanted = static_cast<const W*>(extremes);
    for (size_t k = 0; k < n; ++k) {  // the last one to match stays
      const size_t row = last ? k : n - 1 - k;
      const char* at = x + row * stride;
#pragma clang loop interleave(disable) unroll(disable)
      for (size_t j = 0; j < columns; ++j)
        found[j] =
            matches(load<W>(at + j * sizeof(W)), wanted[j]) ? static_cast<uint32_t>(row) : found[j];
    }
  }
};

struct ArgReduction {
  Reducer extremes;
  size_t (*row)(const char* x, size_t n, const void* extreme, bool last);
  void (*columns)(const char* x, size_t n, size_t stride, size_t columns, const void* extremes,
                  bool last, uint32_t* found);
};

struct ArgReduce {
  int64_t axis;
  bool keepdims;
  bool last;

  ORTOLAN_SMALL static Status prepare(Context& c) {
    ArgReduce* state = c.make_state<ArgReduce>();
    if (!state) return c.out_of_memory();
    state->axis = c.attribute_int("axis", 0);
    state->keepdims = c.attribute_int("keepdims", 1) != 0;
    state->last = c.attribute_int("select_last_index", 0) != 0;
    return Status::kOk;
  }

  ORTOLAN_SMALL static Status infer(Context& c) {
    const ArgReduce& state = c.state<ArgReduce>();
    const Shape& in = c.input_shape(0);
    int64_t axis = state.axis;
    if (!normalize_axis(&axis, in.rank))
      return c.invalid("axis % is outside the rank %", axis, in.rank);
    ORTOLAN_TRY(Reduce::set_reduced(c, 1u << axis, state.keepdims));
    if (in[axis] == 0 && element_count(c.output_shape(0)) > 0)
      return c.invalid("axis % is empty", axis);
    if (in[axis] > UINT32_MAX) return c.invalid("axis % has % elements", axis, in[axis]);
    return Status::kOk;
  }

  ORTOLAN_SMALL static Status run(Context& c, const ArgReduction& reduction) {
    const ArgReduce& state = c.state<ArgReduce>();
    int64_t axis = state.axis;
    if (axis < 0) axis += c.input_shape(0).rank;
    const ReduceLoop loop = make_reduce_loop(c, 1u << axis);
    for_blocks(c, loop, [&](const char* in, char* out, size_t columns, size_t stride) {
      alignas(64) char extremes[kColumns * kAccumulator];
      uint32_t found[kColumns] = {};
      reduce_block(loop, reduction.extremes, in, columns, extremes, nullptr);
      if (!loop.by_columns) {
        store<int64_t>(out, reduction.row(in, loop.inner.n, extremes, state.last));
        return;
      }
      const size_t step = loop.reduced_rank ? loop.reduced[0].in : 0;
      reduction.columns(in, loop.inputs, step, columns, extremes, state.last, found);
#pragma clang loop vectorize(disable) unroll(disable)
      for (size_t i = 0; i < columns; ++i, out += stride) store<int64_t>(out, found[i]);
    });
    return Status::kOk;
  }
};

template <class Op>
struct ArgExtreme : ArgReduce {
  template <class T>
  static Status run(Context& c) {
    using S = Search<Wrapped<T>>;
    return ArgReduce::run(c, {ReduceRows<Op, T>::reducer(), S::row, S::columns});
  }
};

struct ArgMax : ArgExtreme<MaxOf> {};
struct ArgMin : ArgExtreme<MinOf> {};

struct Softmax : SoftmaxAxis {
  template <class T>
  static Status run(Context& c) {
    return SoftmaxAxis::run<T>(c, false);
  }
};

struct LogSoftmax : SoftmaxAxis {
  template <class T>
  static Status run(Context& c) {
    return SoftmaxAxis::run<T>(c, true);
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "reduction.inc"
