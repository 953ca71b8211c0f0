// Reduction over any set of axes. The shape is brought into a loop over kept and over reduced
// dimensions in memory order; the innermost of them is either reduced, and then rows are summed, or
// kept, and then many columns at once. Sums of float are kept in double and so are exact but for
// the last rounding; the order depends on shapes and the instruction set, never on threads.
#pragma once

#include "kernels/elementary.h"
#include "kernels/elements.h"
#include "kernels/memory_order.h"

namespace ortolan::ORTOLAN_ISA {

constexpr size_t kColumns = 256;  // columns that are reduced together, at most
// Rows of few elements are transposed, several at a time, and then reduced as columns.
constexpr size_t kShortRow = 16;
constexpr size_t kShortRows = 64;

struct ReduceLoop {
  struct Dimension {
    size_t n;
    size_t in;   // bytes from one to the next
    size_t out;  // likewise, 0 where reduced
  };
  Dimension kept[kMaxRank], reduced[kMaxRank];
  uint32_t kept_rank = 0, reduced_rank = 0;
  size_t outputs = 1;  // elements of the output
  size_t inputs = 1;   // elements that each is made of
  size_t element = 0;  // bytes

  // Columns lie side by side; without any, rows do.
  bool by_columns = false;
  bool transposes = false;
  Dimension inner = {1, 0, 0};  // taken out of `kept` or `reduced`
};

// What a reduction does. `state` holds one accumulator per column, kAccumulator bytes each.
constexpr size_t kAccumulator = 8;
struct Reducer {
  void (*start)(void* state, size_t columns);
  // state = state combined with n elements side by side
  void (*row)(const char* x, size_t n, void* state, const void* shift);
  // likewise, each column with its elements of n rows
  void (*columns)(const char* x, size_t n, size_t stride, size_t columns, void* state,
                  const void* shift);
};

ORTOLAN_SMALL static void append(ReduceLoop& loop, size_t n, size_t in, size_t out, bool reduced,
                                 bool* previous_reduced) {
  if (n == 1) return;
  uint32_t& rank = reduced ? loop.reduced_rank : loop.kept_rank;
  ReduceLoop::Dimension* dims = reduced ? loop.reduced : loop.kept;
  (reduced ? loop.inputs : loop.outputs) *= n;
  if (rank > 0 && *previous_reduced == reduced && dims[rank - 1].in == in * n &&
      dims[rank - 1].out == out * n) {
    dims[rank - 1] = {dims[rank - 1].n * n, in, out};
    return;
  }
  dims[rank++] = {n, in, out};
  *previous_reduced = reduced;
}

// Of input 0 over the axes in the bit set `mask`, into output 0.
ORTOLAN_SMALL static ReduceLoop make_reduce_loop(const Context& c, uint32_t mask) {
  const Slot &in = c.input(0), &out = c.output(0);
  const uint32_t rank = in.shape.rank;
  ReduceLoop loop;
  loop.element = element_size(in.type);
  size_t out_stride[kMaxRank], step = element_size(out.type);
  const Shape out_dims = in_memory_order(out);
  for (uint32_t i = out_dims.rank; i-- > 0; step *= static_cast<size_t>(out_dims[i]))
    out_stride[i] = step;
  size_t out_of[kMaxRank] = {}, in_stride[kMaxRank];  // by the input's memory order
  uint32_t order[kMaxRank];
  for (uint32_t i = 0, kept = 0; i < rank; ++i) {
    const uint32_t place = memory_position(i, rank, in.layout);
    order[place] = i;
    if (mask >> i & 1) continue;
    const uint32_t out_axis = out.shape.rank == rank ? i : kept++;
    out_of[place] = out_stride[memory_position(out_axis, out.shape.rank, out.layout)];
  }
  step = loop.element;
  for (uint32_t i = rank; i-- > 0; step *= static_cast<size_t>(in.shape[order[i]]))
    in_stride[i] = step;
  bool previous = false;
  for (uint32_t i = 0; i < rank; ++i)
    append(loop, static_cast<size_t>(in.shape[order[i]]), in_stride[i], out_of[i],
           mask >> order[i] & 1, &previous);
  loop.by_columns = !previous && loop.kept_rank > 0;
  if (loop.by_columns)
    loop.inner = loop.kept[--loop.kept_rank];
  else if (loop.reduced_rank > 0)
    loop.inner = loop.reduced[--loop.reduced_rank];
  loop.transposes =
      !loop.by_columns && loop.reduced_rank == 0 && loop.kept_rank > 0 && loop.inner.n <= kShortRow;
  if (loop.transposes) {
    loop.by_columns = true;
    loop.reduced[loop.reduced_rank++] = {loop.inner.n, kShortRows * loop.element, 0};
    loop.inner = loop.kept[--loop.kept_rank];
  }
  return loop;
}

// to[row][column] = the element `row` of column `column`, whose elements lie side by side.
template <class Word>
ORTOLAN_NOINLINE static void transpose_rows(const char* x, size_t stride, size_t columns, size_t n,
                                            char* to) {
  for (size_t i = 0; i < columns; ++i, x += stride, to += sizeof(Word)) {
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t row = 0; row < n; ++row)
      store(to + row * kShortRows * sizeof(Word), load<Word>(x + row * sizeof(Word)));
  }
}

ORTOLAN_SMALL static void transpose_rows(const ReduceLoop& loop, const char* x, size_t columns,
                                         char* to) {
  const size_t n = loop.reduced[0].n, stride = loop.inner.in;
  if (loop.element == 1) return transpose_rows<uint8_t>(x, stride, columns, n, to);
  if (loop.element == 2) return transpose_rows<uint16_t>(x, stride, columns, n, to);
  if (loop.element == 4) return transpose_rows<uint32_t>(x, stride, columns, n, to);
  transpose_rows<uint64_t>(x, stride, columns, n, to);
}

// Steps an index over `rank` dimensions, the last one fastest; false when all have been.
ORTOLAN_SMALL static bool advance(const ReduceLoop::Dimension* dims, uint32_t rank, size_t* index,
                                  const char** in) {
  for (uint32_t i = rank; i-- > 0;) {
    *in += dims[i].in;
    if (++index[i] < dims[i].n) return true;
    *in -= dims[i].in * dims[i].n;
    index[i] = 0;
  }
  return false;
}

// One output (by rows) or a block of `columns` of them, their elements beginning at x.
static void reduce_block(const ReduceLoop& loop, const Reducer& reducer, const char* x,
                         size_t columns, void* state, const void* shift) {
  reducer.start(state, columns);
  if (loop.inputs == 0) return;
  size_t index[kMaxRank] = {};
  if (!loop.by_columns) {
    do {
      reducer.row(x, loop.inner.n, state, shift);
    } while (advance(loop.reduced, loop.reduced_rank, index, &x));
    return;
  }
  const bool none = loop.reduced_rank == 0;
  const uint32_t outer = none ? 0 : loop.reduced_rank - 1;
  const ReduceLoop::Dimension rows = none ? ReduceLoop::Dimension{1, 0, 0} : loop.reduced[outer];
  do {
    reducer.columns(x, rows.n, rows.in, columns, state, shift);
  } while (advance(loop.reduced, outer, index, &x));
}

// Calls body(in, out, columns, stride of their outputs) for blocks [begin, end).
template <class Body>
ORTOLAN_INLINE void walk_blocks(const ReduceLoop& loop, const char* in, char* out, size_t begin,
                                size_t end, size_t width, size_t block, const Body& body) {
  alignas(64) char transposed[kShortRow * kShortRows * kAccumulator];
  const size_t blocks = (width + block - 1) / block;
  for (size_t unit = begin; unit < end; ++unit) {
    size_t rest = unit / blocks;
    const size_t first = (unit - rest * blocks) * block, columns = min(width - first, block);
    size_t in_offset = loop.by_columns ? first * loop.inner.in : 0;
    size_t out_offset = first * loop.inner.out;
    for (uint32_t i = loop.kept_rank; i-- > 0;) {
      const size_t next = rest / loop.kept[i].n, place = rest - next * loop.kept[i].n;
      in_offset += place * loop.kept[i].in;
      out_offset += place * loop.kept[i].out;
      rest = next;
    }
    if (loop.transposes) transpose_rows(loop, in + in_offset, columns, transposed);
    body(loop.transposes ? transposed : in + in_offset, out + out_offset, columns, loop.inner.out);
  }
}

// The same for all blocks, on all threads.
template <class Body>
ORTOLAN_INLINE void for_blocks(const Context& c, const ReduceLoop& loop, const Body& body) {
  const size_t width = loop.by_columns ? loop.inner.n : 1;
  const size_t block = loop.transposes ? kShortRows : kColumns;
  const size_t rows = loop.outputs == 0 ? 0 : loop.outputs / width;
  const char* in = c.input_data<char>(0);
  char* out = c.output_data<char>(0);
  const size_t work = max<size_t>(loop.inputs, 1) * min(width, block);
  const size_t grain = 1 + 65536 / max<size_t>(work, 1);
  c.parallel(rows * ((width + block - 1) / block), grain, [&](size_t begin, size_t end, size_t) {
    walk_blocks(loop, in, out, begin, end, width, block, body);
  });
}

template <class Op, class V>
ORTOLAN_INLINE Element<V> combine_lanes(V v) {
  if constexpr (kLanesOf<V> == 1)
    return v;
  else if constexpr (kLanesOf<V> == 2)
    return Op::join(v[0], v[1]);
  else
    return combine_lanes<Op, Vec<Element<V>, kLanesOf<V> / 2>>(Op::join(v.lo, v.hi));
}

// The row functions of an operation: Op::Accumulator<T> is what sums are kept in, Op::start their
// first value, Op::add(sum, x, shift) takes elements in, Op::join(a, b) puts two sums together, and
// Op::kChains (at most 4) sums of floats hide the latency of add.
template <class Op, class T>
struct ReduceRows {
  using A = typename Op::template Accumulator<T>;
  static constexpr int kWidth = kVectorBytes / sizeof(A);
  using V = Vec<T, kWidth>;
  using AV = Vec<A, kWidth>;
  static constexpr size_t kStep = kWidth * sizeof(T);
  static constexpr int kChains = is_float<T> ? Op::kChains : 1;  // integers are rare

  static void start(void* state, size_t columns) {
    A* sums = static_cast<A*>(state);
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t i = 0; i < columns; ++i) sums[i] = Op::template start<A>();
  }

  ORTOLAN_NOINLINE static void row(const char* x, size_t n, void* state, const void* shift_at) {
    A* sum = static_cast<A*>(state);
    const T shift = shift_at ? *static_cast<const T*>(shift_at) : T(0);
    const V shifts = splat<V>(shift);
    if (n >= kWidth) {
      AV sums[4];
      for (AV& s : sums) s = splat<AV>(Op::template start<A>());
      if constexpr (kChains > 1)
        for (; n >= kChains * kWidth; n -= kChains * kWidth, x += kChains * kStep)
#pragma unroll
          for (int i = 0; i < kChains; ++i)
            sums[i] = Op::add(sums[i], load<V>(x + i * kStep), shifts);
#pragma clang loop unroll(disable)
      for (; n >= kWidth; n -= kWidth, x += kStep) sums[0] = Op::add(sums[0], load<V>(x), shifts);
      const AV all = Op::join(Op::join(sums[0], sums[1]), Op::join(sums[2], sums[3]));
      *sum = Op::join(*sum, combine_lanes<Op>(all));
    }
#pragma clang loop vectorize(disable) unroll(disable)
    for (; n > 0; --n, x += sizeof(T)) *sum = Op::add(*sum, load<T>(x), shift);
  }

  template <class U, int chains>
  ORTOLAN_INLINE static void strip(const char* x, size_t n, size_t stride, A* sums,
                                   const T* shift) {
    constexpr int kCount = kLanesOf<U>;
    using AU = VecLike<A, U>;
    AU state[chains];
    U shifts[chains];
    for (int i = 0; i < chains; ++i) {
      state[i] = load<AU>(sums + i * kCount);
      shifts[i] = shift ? load<U>(shift + i * kCount) : splat<U>(0);
    }
#pragma clang loop unroll(disable)
    for (; n > 0; --n, x += stride)
#pragma unroll
      for (int i = 0; i < chains; ++i)
        state[i] = Op::add(state[i], load<U>(x + i * sizeof(U)), shifts[i]);
    for (int i = 0; i < chains; ++i) store(sums + i * kCount, state[i]);
  }

  static void columns(const char* x, size_t n, size_t stride, size_t columns, void* state,
                      const void* shift_at) {
    A* sums = static_cast<A*>(state);
    const T* shift = static_cast<const T*>(shift_at);
    size_t done = 0;
    auto walk = [&]<class U, int chains>() {
      constexpr size_t kCount = static_cast<size_t>(chains) * kLanesOf<U>;
#pragma clang loop unroll(disable)
      for (; columns - done >= kCount; done += kCount)
        strip<U, chains>(x + done * sizeof(T), n, stride, sums + done,
                         shift ? shift + done : nullptr);
    };
    if constexpr (kChains > 1) walk.template operator()<V, kChains>();
    walk.template operator()<V, 1>();
    walk.template operator()<T, 1>();
  }

  static Reducer reducer() { return {start, row, columns}; }
};

// Sums and products: of floats in double, of integers in 64 bits, where they wrap.
struct WideAccumulator {
  static constexpr int kChains = 4;
  template <class T>
  using Accumulator = typename If<is_float<T>, double, uint64_t>::Type;
  template <class A>
  ORTOLAN_INLINE static constexpr A start() {
    return 0;
  }
  template <class A>
  ORTOLAN_INLINE static A join(A a, A b) {
    return a + b;
  }
  // An element as wide as the sums, which are unsigned where it is an integer.
  template <class A, class V>
  ORTOLAN_INLINE static A widen(V x) {
    return convert<Element<A>>(x);
  }
};

struct SumOf : WideAccumulator {
  template <class A, class V>
  ORTOLAN_INLINE static A add(A sum, V x, V) {
    return sum + widen<A>(x);
  }
};

struct SumOfSquares : WideAccumulator {
  template <class A, class V>
  ORTOLAN_INLINE static A add(A sum, V x, V) {
    const A wide = widen<A>(x);
    return fma(wide, wide, sum);
  }
};

struct SumOfSizes : WideAccumulator {
  template <class A, class V>
  ORTOLAN_INLINE static A add(A sum, V x, V) {
    const A wide = widen<A>(x);
    if constexpr (is_float<Element<A>>)
      return sum + math::abs(wide);
    else
      return sum + select<A>(bitcast<IntLike<A>>(wide) < 0, 0 - wide, wide);
  }
};

// exp(x - shift)
struct SumOfExponentials : WideAccumulator {
  static constexpr int kChains = 1;
  template <class A, class V>
  ORTOLAN_INLINE static A add(A sum, V x, V shift) {
    return sum + widen<A>(elementary::exp(x - shift));
  }
};

struct ProductOf : WideAccumulator {
  template <class A>
  ORTOLAN_INLINE static constexpr A start() {
    return 1;
  }
  template <class A>
  ORTOLAN_INLINE static A join(A a, A b) {
    return a * b;
  }
  template <class A, class V>
  ORTOLAN_INLINE static A add(A sum, V x, V) {
    return sum * widen<A>(x);
  }
};

struct MaxOf {
  static constexpr int kChains = 4;
  template <class T>
  using Accumulator = T;
  template <class A>
  ORTOLAN_INLINE static constexpr A start() {
    return lowest<A>();
  }
  template <class A>
  ORTOLAN_INLINE static A join(A a, A b) {
    return maximum(a, b);
  }
  template <class A>
  ORTOLAN_INLINE static A add(A most, A x, A) {
    return maximum(most, x);
  }
};

struct MinOf {
  static constexpr int kChains = 4;
  template <class T>
  using Accumulator = T;
  template <class A>
  ORTOLAN_INLINE static constexpr A start() {
    return highest<A>();
  }
  template <class A>
  ORTOLAN_INLINE static A join(A a, A b) {
    return minimum(a, b);
  }
  template <class A>
  ORTOLAN_INLINE static A add(A least, A x, A) {
    return minimum(least, x);
  }
};

}  // namespace ortolan::ORTOLAN_ISA
