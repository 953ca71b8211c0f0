// Stacks of products of 8-bit integer matrices, B packed by prepare where it is constant: what
// MatMulInteger and its relatives share.
#pragma once

#include "kernels/integer_product.h"
#include "kernels/multiply.h"

namespace ortolan::ORTOLAN_ISA {

// Which inputs are the operands and their zero points.
struct IntegerPlaces {
  size_t a, b, zero_a, zero_b;
};

struct IntegerMatMulState {
  const int16_t* packed = nullptr;
};

struct IntegerMatMul {
  Product product;
  size_t pairs = 0, panels = 0;
  size_t a_rows = 0;  // of all matrices A
  size_t b_matrices = 1;
  size_t a_bytes = 0, b_bytes = 0;
};

inline Status integer_sizes(const Context& c, IntegerMatMul* m) {
  const Product& p = m->product;
  m->pairs = pairs_of(p.K);
  m->panels = panels_of(p.N);
  const size_t element = 2 * sizeof(int16_t);
  bool fits = !__builtin_mul_overflow(m->a_rows, m->pairs * element, &m->a_bytes);
  fits = fits && !__builtin_mul_overflow(m->pairs * element * kPanelColumns,
                                         m->panels * m->b_matrices, &m->b_bytes);
  if (!fits || m->a_bytes > SIZE_MAX / 4 || m->b_bytes > SIZE_MAX / 4)
    return c.fail(Status::kLimitExceeded, "the operands are too large");
  m->a_bytes = round_up(m->a_bytes, kAlignment);
  return Status::kOk;
}

// The dimensions before the last two, as in numpy.matmul.
inline bool broadcast_matrices(const Shape& a, const Shape& b, Product* p) {
  const uint32_t rank_a = a.rank > 2 ? a.rank - 2 : 0, rank_b = b.rank > 2 ? b.rank - 2 : 0;
  p->batch.rank = max(rank_a, rank_b);
  size_t count_a = 1, count_b = 1;
  for (uint32_t i = p->batch.rank; i-- > 0;) {
    const uint32_t back = p->batch.rank - i;
    const int64_t dim_a = back <= rank_a ? a[rank_a - back] : 1;
    const int64_t dim_b = back <= rank_b ? b[rank_b - back] : 1;
    if (dim_a != dim_b && dim_a != 1 && dim_b != 1) return false;
    p->batch[i] = dim_a == 1 ? dim_b : dim_a;
    p->a_steps[i] = dim_a == 1 ? 0 : count_a;
    p->b_steps[i] = dim_b == 1 ? 0 : count_b;
    count_a *= static_cast<size_t>(dim_a);
    count_b *= static_cast<size_t>(dim_b);
  }
  p->batches = p->batch.count();
  return true;
}

inline Status check_zero_points(const Context& c, const IntegerPlaces& at, const IntegerMatMul& m) {
  const Product& p = m.product;
  auto check = [&](size_t i, size_t each, size_t all) -> Status {
    if (!c.has_input(i)) return Status::kOk;
    const size_t n = c.input_shape(i).count();
    if (n && (n == 1 || n == each || n == all)) return Status::kOk;
    if (!each || !all) return Status::kOk;  // there is nothing to compute
    return c.invalid("the zero point of shape % fits neither a matrix nor its rows or columns",
                     c.input_shape(i).span());
  };
  ORTOLAN_TRY(check(at.zero_a, p.M, m.a_rows));
  return check(at.zero_b, p.N, m.b_matrices * p.N);
}

inline Status plan_integer_matmul(const Context& c, const IntegerPlaces& at, IntegerMatMul* m,
                                  Shape* out) {
  const Shape &a = c.input_shape(at.a), &b = c.input_shape(at.b);
  Product& p = m->product;
  if (!a.rank || !b.rank) return c.invalid("operands need at least one dimension");
  p.M = a.rank == 1 ? 1 : static_cast<size_t>(a[a.rank - 2]);
  p.N = b.rank == 1 ? 1 : static_cast<size_t>(b[b.rank - 1]);
  const size_t depth_a = static_cast<size_t>(a[a.rank - 1]);
  const size_t depth_b = static_cast<size_t>(b[b.rank == 1 ? 0 : b.rank - 2]);
  p.a_row = depth_a, p.b_row = p.N;
  p.K = depth_a;
  if (depth_a != depth_b)
    return c.invalid("shapes % and % differ in the inner dimension", a.span(), b.span());
  if (!broadcast_matrices(a, b, &p))
    return c.invalid("shapes % and % do not broadcast", a.span(), b.span());
  *out = p.batch;
  if (a.rank > 1) out->append(static_cast<int64_t>(p.M));
  if (b.rank > 1) out->append(static_cast<int64_t>(p.N));
  m->a_rows = p.M * (a.rank > 2 ? a.product(0, a.rank - 2) : 1);
  m->b_matrices = b.rank > 2 ? b.product(0, b.rank - 2) : 1;
  ORTOLAN_TRY(check_zero_points(c, at, *m));
  if (m->b_matrices == 1) {  // all rows of A are rows of one product
    p.M *= p.batches;
    p.batches = 1;
    p.batch = {};
  }
  return integer_sizes(c, m);
}

inline IntegerSource matrix_of(const uint8_t* b, const IntegerMatMul& m, size_t matrix,
                               const Bytes& zero) {
  const Product& p = m.product;
  return {b + matrix * p.K * p.N, p.b_row, p.b_column, p.K, p.N, zero, matrix * p.N};
}

// Packs a constant B with a constant zero point for the life of the model.
inline Status prepare_integer_b(Context& c, const IntegerPlaces& at, IntegerMatMulState* s) {
  const Slot* b = c.constant_input(at.b);
  const Slot* zero = c.constant_input(at.zero_b);
  if (!b || (c.has_input(at.zero_b) && !zero) || b->shape.rank < 2) return Status::kOk;
  const Shape& shape = b->shape;
  IntegerMatMul m;
  Product& p = m.product;
  p.K = static_cast<size_t>(shape[shape.rank - 2]),
  p.N = static_cast<size_t>(shape[shape.rank - 1]);
  p.b_row = p.N;
  m.b_matrices = shape.product(0, shape.rank - 2);
  Bytes zeros = {nullptr, 1, sign_flip(b->type)};
  if (zero) zeros = {static_cast<const uint8_t*>(zero->data), zero->shape.count(), zeros.flip};
  const size_t n = zeros.count;
  // infer speaks about what does not fit
  if (!shape.count() || (n != 1 && n != p.N && n != m.b_matrices * p.N)) return Status::kOk;
  ORTOLAN_TRY(integer_sizes(c, &m));
  auto* packed = static_cast<int16_t*>(c.model_memory(m.b_bytes));
  if (!packed) return c.out_of_memory();
  const size_t size = panel_size(m.pairs);
  for (size_t i = 0; i < m.panels * m.b_matrices; ++i)
    pack_integer_panel(matrix_of(static_cast<const uint8_t*>(b->data), m, i / m.panels, zeros),
                       i % m.panels, packed + i * size);
  s->packed = packed;
  return Status::kOk;
}

inline void request_integer_scratch(Context& c, const IntegerMatMul& m, size_t before) {
  c.request_scratch(before + m.a_bytes + (c.state<IntegerMatMulState>().packed ? 0 : m.b_bytes));
}

// finish(row, column, count, sums, b_column): columns of a row of the stacked products; b_column
// counts the columns of all matrices B.
template <class Finish>
ORTOLAN_INLINE void run_integer_matmul(const Context& c, const IntegerMatMul& m, const uint8_t* a,
                                       const Bytes& zero_a, const uint8_t* b, const Bytes& zero_b,
                                       void* scratch, const Finish& finish) {
  const Product& p = m.product;
  if (!p.M || !p.N || !p.batches) return;
  auto* wide = static_cast<int16_t*>(scratch);
  const int16_t* packed = c.state<IntegerMatMulState>().packed;
  const size_t depth = max<size_t>(p.K, 1), size = panel_size(m.pairs);
  // With one B the rows of all matrices are those of one; each has its own M then.
  const size_t rows = p.batches == 1 ? m.a_rows : p.M;
  c.parallel(m.a_rows, max<size_t>((1 << 16) / depth, 1), [&](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i)
      widen_row(a + i / rows * rows * p.K + i % rows * p.a_row, p.a_column, p.K, zero_a.flip,
                zero_a[i], wide + i * 2 * m.pairs);
  });
  if (!packed) {
    auto* to = reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + m.a_bytes);
    c.parallel(m.panels * m.b_matrices, max<size_t>((1 << 14) / depth / kPanelColumns, 1),
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i)
                   pack_integer_panel(matrix_of(b, m, i / m.panels, zero_b), i % m.panels,
                                      to + i * size);
               });
    packed = to;
  }
  constexpr size_t kRows = 16 * kPanelRows;  // of A while a panel stays in the cache
  const size_t parts = (p.M + kRows - 1) / kRows, each = parts * m.panels;
  const size_t work = min(p.M, kRows) * kPanelColumns * depth;
  c.parallel(p.batches * each, max<size_t>(kProductGrain / work, 1),
             [&](size_t begin, size_t end, size_t) {
               for (size_t i = begin; i < end; ++i) {
                 const size_t batch = i / each, panel = i % each / parts, part = i % parts;
                 const size_t matrix = p.b_matrix(batch), column = panel * kPanelColumns;
                 const size_t count = min(kPanelColumns, p.N - column);
                 multiply_panel(
                     wide + p.matrix(p.a_steps, batch) * p.M * 2 * m.pairs, part * kRows,
                     min(p.M, (part + 1) * kRows), packed + (matrix * m.panels + panel) * size,
                     m.pairs, [&](size_t row, const int32_t* sums) {
                       finish(batch * p.M + row, column, count, sums, matrix * p.N + column);
                     });
               }
             });
}

}  // namespace ortolan::ORTOLAN_ISA
