// Stacks of products C = A * B over the threads of a run, for operands of any strides: float by the
// tiles of gemm.h, other types by a vectorised loop. Input: where the operands lie. Output: C, and
// a call for each region of it that is ready.
#pragma once

#include "core/context.h"
#include "kernels/few_rows.h"
#include "kernels/variant.h"

namespace ortolan::ORTOLAN_ISA {

// C[M][N] = A[M][K] * B[K][N] for each index of the batch dimensions. Strides are in elements.
struct Product {
  size_t M = 0, N = 0, K = 0;
  size_t a_row = 0, a_column = 1;
  size_t b_row = 0, b_column = 1;
  size_t batches = 1;
  Shape batch;                    // of C
  size_t a_steps[kMaxRank] = {};  // matrices from index to index, 0 where A is repeated
  size_t b_steps[kMaxRank] = {};
  size_t a_size = 0, b_size = 0;  // elements from matrix to matrix, where they overlap
  size_t a_matrices = 1, b_matrices = 1;

  // Number of the matrix of an operand that a batch uses.
  size_t matrix(const size_t (&steps)[kMaxRank], size_t index) const {
    size_t found = 0;
    for (uint32_t i = batch.rank; i-- > 0;) {
      const size_t dim = static_cast<size_t>(batch[i]);
      found += index % dim * steps[i];
      index /= dim;
    }
    return found;
  }
  size_t a_offset(size_t index) const { return matrix(a_steps, index) * (a_size ? a_size : M * K); }
  size_t b_offset(size_t index) const { return matrix(b_steps, index) * (b_size ? b_size : K * N); }
  size_t b_matrix(size_t index) const { return matrix(b_steps, index); }
};

// Bytes of B after packing; false when they do not fit.
ORTOLAN_INLINE bool packed_bytes(size_t N, size_t K, size_t matrices, size_t* bytes) {
  size_t columns, count;
  if (__builtin_add_overflow(N, kTileColumns, &columns)) return false;
  if (__builtin_mul_overflow(columns, K, &count)) return false;
  if (__builtin_mul_overflow(count, sizeof(float), &count)) return false;
  if (__builtin_mul_overflow(count, matrices, &count)) return false;
  *bytes = packed_size(N, K) * sizeof(float) * matrices;
  return true;
}

// How float products are computed.
enum class Way : uint8_t {
  kDots,           // N == 1, B in one piece: rows of A times the vector B
  kInPlace,        // few rows: B is read where it is
  kPacked,         // B was packed by prepare
  kPackShared,     // one B, packed into shared scratch
  kPackPerThread,  // a B for each batch: each thread packs the one that it is at
};
ORTOLAN_INLINE Way choose_way(const Product& p, bool packed) {
  if (variants::kProductsDots.is_built && p.N == 1 && p.b_row == 1) return Way::kDots;
  if (packed) return Way::kPacked;
  if (variants::kProductsInPlace.is_built && p.M <= kPlainRows && p.b_column == 1)
    return Way::kInPlace;
  return !kHasStacks || p.batches == 1 ? Way::kPackShared : Way::kPackPerThread;
}

// In prepare, with the second operand's place in `p` if it is constant, plain or packed.
ORTOLAN_INLINE void note_ways(Context& c, const Product& p, bool is_constant, bool is_plain) {
  const bool is_vector = is_constant && p.N == 1;
  note<variants::kProductsDots>(c, [=](int) { return !is_constant || is_vector; });
  note<variants::kProductsInPlace>(c, [=](int) { return !is_constant; });
  note<variants::kProductsPrepacked>(c, [=](int) { return is_plain && !is_vector; });
}

// Scratch in bytes: first a copy of A, or of B for other types than float, then packed B.
struct Needs {
  size_t copy = 0, shared = 0, per_thread = 0;
};
template <class T>
Status find_needs(const Context& c, const Product& p, bool packed, Needs* needs) {
  if (!p.M || !p.N || !p.batches) return Status::kOk;
  if constexpr (!is_same<T, float>) {
    if (p.b_column != 1) needs->copy = p.b_matrices * p.K * p.N * sizeof(T);
    return Status::kOk;
  }
  if (p.a_column != 1) needs->copy = round_up(p.a_matrices * p.M * p.K * sizeof(float), kAlignment);
  const Way way = choose_way(p, packed);
  if (way != Way::kPackShared && way != Way::kPackPerThread) return Status::kOk;
  size_t bytes;
  if (!packed_bytes(p.N, p.K, 1, &bytes))
    return c.fail(Status::kLimitExceeded, "the second operand is too large to pack");
  (way == Way::kPackShared ? needs->shared : needs->per_thread) = bytes;
  return Status::kOk;
}

// Calls body(batch, first, last) for the pieces of units [begin, end), `each` to a batch.
template <class Body>
ORTOLAN_INLINE void for_each_batch(size_t begin, size_t end, size_t each, Body body) {
  while (begin < end) {
    const size_t first = begin % each, last = min(each, first + (end - begin));
    body(begin / each, first, last);
    begin += last - first;
  }
}

// Splits `each` units per batch over the threads; body(batch, first, last, thread).
template <class Body>
ORTOLAN_INLINE void split(const Context& c, const Product& p, size_t each, Body body) {
  const size_t work = max<size_t>(p.M * p.N / max<size_t>(each, 1) * p.K, 1);
  c.parallel(p.batches * each, max<size_t>(kThreadWork / work, 1),
             [&](size_t begin, size_t end, size_t thread) {
               for_each_batch(begin, end, each, [&](size_t batch, size_t first, size_t last) {
                 body(batch, first, last, thread);
               });
             });
}

ORTOLAN_NOINLINE inline float dot(const float* a, const float* b, size_t n) {
  F sums[4] = {splat<F>(0), splat<F>(0), splat<F>(0), splat<F>(0)};
  size_t k = 0;
  for (; k + 4 * kLanes <= n; k += 4 * kLanes)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sums[i] = fma(load<F>(a + k + i * kLanes), load<F>(b + k + i * kLanes), sums[i]);
  for (; k + kLanes <= n; k += kLanes) sums[0] = fma(load<F>(a + k), load<F>(b + k), sums[0]);
  if (k < n) sums[1] = fma(load_part<F>(a + k, n - k), load_part<F>(b + k, n - k), sums[1]);
  return reduce_sum<F>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Operands of a product. `b` is as it lies in the graph, `packed` by prepare (float only) or null.
template <class T>
struct Operands {
  const T* a;
  const T* b;
  const float* packed;
  const T* bias;  // [N] or null
  T* y;
  char* scratch;          // shared, as Needs says
  bool in_lines = false;  // `packed` is in the common form
};

// Rows and columns of one C that are ready for what comes after the product.
struct Region {
  size_t row0, row1, column0, column1;
};
// Called for each region; a plain pointer, so that there is one copy of the products.
struct Ready {
  void (*call)(const void* user, const Region& region) = nullptr;
  const void* user = nullptr;

  void operator()(const Region& region) const {
    if (call) call(user, region);
  }
};

// Panels [panel0, panel1) of a B[K][N], packed as gemm.h does: vector by vector where its rows are
// contiguous.
ORTOLAN_NOINLINE inline void pack_matrix(const Product& p, const float* b, size_t panel0,
                                         size_t panel1, float* out) {
  if (kTiny || p.b_column != 1) {
    const PackSource source = {b, 1, 0, p.K, p.b_row, p.b_column};
    return pack_panels(source, p.N, panel0, panel1, out);
  }
  auto pack_part = [&](const Part& part) {
    float* to = out + part.column * p.K;
    const float* from = b + part.column;
    for (size_t k = 0; k < p.K; ++k, from += p.b_row)
      for (size_t j = 0; j < part.vectors; ++j, to += part.lanes()) {
        const ptrdiff_t column = j + 1 == part.vectors ? part.last : j * kLanes;
        if (part.is_half)
          store(to, load_lanes<HalfF>(from + column, min(p.N, kHalfLanes), 0));
        else
          store(to, p.N < kLanes ? load_part<F>(from, p.N) : load<F>(from + column));
      }
  };
  for (size_t i = panel0; i < panel1; ++i) for_each_part(p.N, i, pack_part);
}

// float, B not packed and read in place: N == 1 or few rows.
ORTOLAN_INLINE void multiply_in_place(const Context& c, const Product& p, GemmArgs g,
                                      const Operands<float>& o, const Ready& ready) {
  if (variants::kProductsDots.is_built && p.N == 1 && p.b_row == 1)
    return split(c, p, p.M, [&](size_t batch, size_t first, size_t last, size_t) {
      const float* a = g.a + p.a_offset(batch);
      const float* b = o.b + p.b_offset(batch);
      for (size_t i = first; i < last; ++i)
        o.y[batch * p.M + i] = dot(a + i * g.lda, b, p.K) + (o.bias ? *o.bias : 0);
      ready(Region{first, last, 0, 1});
    });
  if constexpr (!variants::kProductsInPlace.is_built) return;
  split(c, p, panel_count(p.N), [&](size_t batch, size_t first, size_t last, size_t) {
    GemmArgs part = g;
    part.a += p.a_offset(batch);
    part.c += batch * p.M * p.N;
    const size_t column0 = panel_column(p.N, first), column1 = panel_column(p.N, last);
    gemm_plain(part, o.b + p.b_offset(batch), p.b_row, column0, column1);
    ready(Region{0, p.M, column0, column1});
  });
}

// float, B packed: rows are split, or panels where there are too few rows.
ORTOLAN_INLINE void multiply_packed(const Context& c, const Product& p, const GemmArgs& g,
                                    const float* packed, const Ready& ready) {
  constexpr size_t kRows = kTileRows[kTileVectors];
  const size_t panels = panel_count(p.N), rows = (p.M + kRows - 1) / kRows;
  const bool by_rows = rows >= panels || rows >= 4 * c.threads();
  split(c, p, by_rows ? rows : panels, [&](size_t batch, size_t first, size_t last, size_t) {
    GemmArgs part = g;
    part.a += p.a_offset(batch);
    part.c += batch * p.M * p.N;
    part.packed_b = packed + p.b_matrix(batch) * packed_size(p.N, p.K);
    Region r = {0, p.M, panel_column(p.N, first), panel_column(p.N, last)};
    if (by_rows) r = {first * kRows, min(p.M, last * kRows), 0, p.N};
    multiply_rows_panels(part, r.row0, r.row1, by_rows ? 0 : first, by_rows ? panels : last);
    ready(r);
  });
}

// float, a B for each batch: who computes it packs it.
ORTOLAN_INLINE void multiply_packing(const Context& c, const Product& p, const GemmArgs& g,
                                     const float* b, const Ready& ready) {
  constexpr size_t kRows = kTileRows[kTileVectors];
  const size_t rows = (p.M + kRows - 1) / kRows;
  split(c, p, rows, [&](size_t batch, size_t first, size_t last, size_t thread) {
    float* packed = static_cast<float*>(c.thread_scratch(thread));
    pack_matrix(p, b + p.b_offset(batch), 0, panel_count(p.N), packed);
    GemmArgs part = g;
    part.a += p.a_offset(batch);
    part.c += batch * p.M * p.N;
    part.packed_b = packed;
    const Region r = {first * kRows, min(p.M, last * kRows), 0, p.N};
    multiply_rows_panels(part, r.row0, r.row1, 0, panel_count(p.N));
    ready(r);
  });
}

ORTOLAN_NOINLINE inline void multiply(const Context& c, const Product& product,
                                      const Operands<float>& o, const Ready& ready) {
  Product p = product;
  GemmArgs g;
  g.M = p.M, g.N = p.N, g.K = p.K;
  g.a = o.a, g.lda = p.a_column == 1 ? p.a_row : p.K;
  g.c = o.y, g.ldc = p.N;
  g.epilogue.bias = o.bias;
  if (!kHasOnlyLines) g.in_lines = o.in_lines;
  char* scratch = o.scratch;
  if (p.a_column != 1) {
    float* copied = reinterpret_cast<float*>(scratch);
    const size_t matrix = p.M * p.K;
    for (size_t i = 0; i < p.a_matrices; ++i)
      pack_a(o.a + i * (p.a_size ? p.a_size : matrix), p.a_row, p.a_column, p.M, p.K,
             copied + i * matrix);
    g.a = copied;
    p.a_size = 0;
    scratch += round_up(p.a_matrices * matrix * sizeof(float), kAlignment);
  }
  switch (choose_way(p, o.packed)) {
    case Way::kDots:
    case Way::kInPlace:
      return multiply_in_place(c, p, g, o, ready);
    case Way::kPacked:
      return multiply_packed(c, p, g, o.packed, ready);
    case Way::kPackPerThread:
      return multiply_packing(c, p, g, o.b, ready);
    case Way::kPackShared:
      break;
  }
  float* packed = reinterpret_cast<float*>(scratch);
  const size_t panels = panel_count(p.N), work = max<size_t>(p.K * p.N / panels, 1);
  c.parallel(panels, max<size_t>(kThreadWork / 16 / work, 1),
             [&](size_t begin, size_t end, size_t) { pack_matrix(p, o.b, begin, end, packed); });
  multiply_packed(c, p, g, packed, ready);
}

// MR rows of C from `row` on; B[K][N] has rows `b_row` apart, A any strides.
template <int MR, class V>
ORTOLAN_INLINE void loop_rows(const Product& p, const Element<V>* a, const Element<V>* b,
                              size_t b_row, Element<V>* y, size_t row) {
  constexpr size_t kStep = kLanesOf<V>;
  for (size_t n = 0; n < p.N; n += kStep) {
    const size_t columns = min(kStep, p.N - n);
    V sums[MR] = {};
    for (size_t k = 0; k < p.K; ++k) {
      const Element<V>* at = b + k * b_row + n;
      V w = columns == kStep ? load<V>(at) : load_part<V>(at, columns);
#pragma unroll
      for (int i = 0; i < MR; ++i) sums[i] += splat<V>(a[(row + i) * p.a_row + k * p.a_column]) * w;
    }
#pragma unroll
    for (int i = 0; i < MR; ++i) {
      Element<V>* to = y + (row + i) * p.N + n;
      if (columns == kStep)
        store(to, sums[i]);
      else
        store_part(to, sums[i], columns);
    }
  }
}

// Other types than float: double, and integers as unsigned words, whose products wrap.
template <class T>
ORTOLAN_NOINLINE void multiply(const Context& c, const Product& p, const Operands<T>& o,
                               const Ready& ready) {
  using V = Vec<T, kLanes * sizeof(float) / sizeof(T)>;
  constexpr size_t kRows = 4;
  const T* b = o.b;
  const size_t matrix = p.K * p.N;
  if (p.b_column != 1) {
    T* copied = reinterpret_cast<T*>(o.scratch);
    for (size_t i = 0; i < p.b_matrices; ++i, copied += matrix)
      for (size_t k = 0; k < p.K; ++k)
        for (size_t n = 0; n < p.N; ++n)
          copied[k * p.N + n] =
              o.b[i * (p.b_size ? p.b_size : matrix) + k * p.b_row + n * p.b_column];
    b = reinterpret_cast<T*>(o.scratch);
  }
  const size_t b_row = b == o.b ? p.b_row : p.N;
  split(c, p, (p.M + kRows - 1) / kRows, [&](size_t batch, size_t first, size_t last, size_t) {
    const T* matrix_a = o.a + p.a_offset(batch);
    const T* matrix_b = b + (b == o.b ? p.b_offset(batch) : p.b_matrix(batch) * matrix);
    T* y = o.y + batch * p.M * p.N;
    const Region r = {first * kRows, min(p.M, last * kRows), 0, p.N};
    size_t row = r.row0;
    for (; row + kRows <= r.row1; row += kRows)
      loop_rows<kRows, V>(p, matrix_a, matrix_b, b_row, y, row);
    for (; row < r.row1; ++row) loop_rows<1, V>(p, matrix_a, matrix_b, b_row, y, row);
    ready(r);
  });
}

}  // namespace ortolan::ORTOLAN_ISA
