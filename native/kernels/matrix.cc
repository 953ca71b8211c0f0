// Matrix products: MatMul and Gemm, com.microsoft's forms included. A constant float B is packed
// once.
#include "kernels/fused_activation.h"
#include "kernels/once.h"
#include "kernels/packed_weights.h"

namespace ortolan::ORTOLAN_ISA {

namespace {

// The type that integers of a width are multiplied in.
template <class T>
struct WordOf {
  using Type = typename IntOfSize<sizeof(T)>::Unsigned;
};
template <>
struct WordOf<float> {
  using Type = float;
};
template <>
struct WordOf<double> {
  using Type = double;
};

// A constant B as it is multiplied: its matrices in panels, scaled, or in the file's lines.
struct ConstantB {
  float* packed = nullptr;
  float scale = 1;
  bool comes_in_lines = false, in_lines = false;
  mutable Once packing;  // by the first run, where B stays as it is: it takes most of loading

  // Keeps B, of p.b_matrices matrices, for the life of the model.
  Status keep(Context& c, const Slot& b, const Product& p) {
    size_t bytes;
    const bool comes = is_packed(b.layout);
    if (kPacksLines) comes_in_lines = comes;
    if (comes && reads_lines(p.N)) {
      in_lines = !kHasOnlyLines;
      packed = static_cast<float*>(b.data);
      return Status::kOk;
    }
    // No other B comes here then: what follows need not be in such a build.
    if (!kPacksLines && !variants::kProductsPrepacked.is_built) return Status::kOk;
    if (packed_bytes(p.N, p.K, p.b_matrices, &bytes))
      packed = static_cast<float*>(c.raw_model_memory(max<size_t>(bytes, kAlignment)));
    if (!packed) return c.out_of_memory();
    if (!kSmall && c.is_stored(b)) {
      packing.put_off();
      return Status::kOk;
    }
    pack(c, static_cast<const float*>(b.data), p);
    c.has_packed(1);
    return Status::kOk;
  }

  // Before it is used.
  ORTOLAN_INLINE void complete(const Context& c, const void* b, const Product& p) const {
    if (!kSmall && packed) packing.complete([&] { pack(c, static_cast<const float*>(b), p); });
  }

 private:
  void pack(const Context& c, const float* b, const Product& p) const {
    const size_t size = packed_size(p.N, p.K), panels = panel_count(p.N);
    for (size_t i = 0; i < p.b_matrices; ++i, b += p.K * p.N) {
      float* out = packed + i * size;
      const PackSource source = {b, 1, 0, p.K, p.b_row, p.b_column, comes_in_lines};
      c.parallel(panels, kThreadWork / (p.K * kTileColumns) + 1,
                 [&](size_t p0, size_t p1, size_t) { pack_panels(source, p.N, p0, p1, out); });
      if (scale != 1)
        for (size_t j = 0; j < size; ++j) out[j] *= scale;
    }
  }
};

// Whether a product takes a constant B, which may be packed.
ORTOLAN_INLINE bool takes(const Slot& b, bool transposed, bool can_pack, const Product& p) {
  const Layout needed = transposed ? Layout::kPackedFirst : Layout::kPackedLast;
  return !is_packed(b.layout) ||
         (can_pack && b.layout == needed && b.shape.rank == 2 && takes_lines(p.N));
}

}  // namespace

// A and B are vectors, matrices or stacks of them that broadcast, as in numpy.matmul. In
// com.microsoft's forms they may be transposed in their last two dimensions, after the first was
// moved to the last but one, and the product is scaled.
struct MatMul {
  struct State {
    ConstantB b;
    float alpha = 1;
    bool transposes[2] = {}, moves_first[2] = {};
  };

  template <class T>
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->alpha = c.attribute_float("alpha", 1);
    // The standard's has no such attributes, and com.microsoft's forms are of floats: infer asks
    // for no memory to turn others in.
    if (!is_float<T>) return Status::kOk;
    state->transposes[0] = c.attribute_int("transA", 0) != 0;
    state->transposes[1] = c.attribute_int("transB", 0) != 0;
    state->moves_first[0] = c.attribute_int("transBatchA", 0) != 0;
    state->moves_first[1] = c.attribute_int("transBatchB", 0) != 0;
    if (!is_same<T, float>) return Status::kOk;
    const Slot* constant = c.constant_input(1);
    Product p;
    const bool can_pack = constant && constant->shape.rank > 1 && !state->moves_first[1];
    if (can_pack) place(*state, 1, constant->shape, &p);
    if (constant && !takes(*constant, state->transposes[1], can_pack && state->alpha == 1, p))
      return c.fail(Status::kNotImplemented, "packed weights of shape % do not fit",
                    constant->shape.span());
    const bool is_plain = can_pack && !is_packed(constant->layout);
    note_ways(c, p, can_pack, is_plain);
    if (!can_pack || (is_plain && !variants::kProductsPrepacked.is_built)) return Status::kOk;
    if (p.N == 1 || !constant->shape.count()) return Status::kOk;
    state->b.scale = state->alpha;
    state->alpha = 1;
    return state->b.keep(c, *constant, p);
  }

  static Status infer(Context& c) {
    Product p;
    Shape shape;
    ORTOLAN_TRY(plan(c, &p, &shape));
    ORTOLAN_TRY(c.set_output(0, shape));
    Needs needs;
    if (c.input_type(0) == DataType::kFloat)
      ORTOLAN_TRY(find_needs<float>(c, p, c.state<State>().b.packed, &needs));
    else if (c.input_type(0) == DataType::kDouble)
      ORTOLAN_TRY(find_needs<double>(c, p, false, &needs));
    c.request_scratch(needs.copy + needs.shared, needs.per_thread);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    Product p;
    Shape shape;
    ORTOLAN_TRY(plan(c, &p, &shape));
    if (!p.M || !p.N || !p.batches) return Status::kOk;
    using Word = typename WordOf<T>::Type;
    const ConstantB& b = c.state<State>().b;
    b.complete(c, c.input_data<Word>(1), p);
    const Operands<Word> o = {
        c.input_data<Word>(0),  c.input_data<Word>(1),           b.packed,  nullptr,
        c.output_data<Word>(0), static_cast<char*>(c.scratch()), b.in_lines};
    multiply(c, p, o, {});
    const float alpha = c.state<State>().alpha;
    if (is_float<T> && alpha != 1) scale(c, o.y, p.batches * p.M * p.N, static_cast<Word>(alpha));
    return Status::kOk;
  }

 private:
  template <class T>
  static void scale(const Context& c, T* y, size_t n, T alpha) {
    c.parallel(n, 1 << 16, [=](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) y[i] *= alpha;
    });
  }

  // The operand's dimensions as they are multiplied.
  ORTOLAN_SMALL static Shape turned(const State& state, size_t operand, Shape s) {
    if (s.rank > 2 && state.moves_first[operand]) {
      const int64_t first = s[0];
      for (uint32_t i = 0; i + 2 < s.rank; ++i) s[i] = s[i + 1];
      s[s.rank - 2] = first;
    }
    if (s.rank > 1 && state.transposes[operand]) {
      const int64_t last = s[s.rank - 1];
      s[s.rank - 1] = s[s.rank - 2];
      s[s.rank - 2] = last;
    }
    return s;
  }

  // Strides of an operand, and K and N of B.
  ORTOLAN_SMALL static void place(const State& state, size_t operand, const Shape& s, Product* p) {
    const size_t columns = static_cast<size_t>(s[s.rank - 1]);
    const bool moves = s.rank > 2 && state.moves_first[operand];
    const bool transposes = s.rank > 1 && state.transposes[operand];
    const size_t matrices = s.rank < 2 ? 1 : s.product(moves ? 1 : 0, s.rank - (moves ? 1 : 2));
    const size_t row = s.rank == 1 && operand ? 1 : columns * (moves ? matrices : 1);
    const size_t rows = s.rank < 2 ? 1 : static_cast<size_t>(s[moves ? 0 : s.rank - 2]);
    (operand ? p->b_row : p->a_row) = transposes ? 1 : row;
    (operand ? p->b_column : p->a_column) = transposes ? row : 1;
    (operand ? p->b_matrices : p->a_matrices) = matrices;
    (operand ? p->b_size : p->a_size) = moves ? columns : rows * columns;
    if (!operand) return;
    p->K = transposes ? columns : rows, p->N = transposes ? rows : columns;
  }

  ORTOLAN_SMALL static Status plan(const Context& c, Product* p, Shape* shape) {
    const State& state = c.state<State>();
    const Shape &first = c.input_shape(0), &second = c.input_shape(1);
    if (!first.rank || !second.rank) return c.invalid("operands need at least one dimension");
    const Shape a = turned(state, 0, first), b = turned(state, 1, second);
    place(state, 0, first, p);
    place(state, 1, second, p);
    const int64_t depth = a[a.rank - 1], depth_b = b[b.rank == 1 ? 0 : b.rank - 2];
    if (depth != depth_b)
      return c.invalid("shapes % and % differ in the inner dimension", a.span(), b.span());
    p->K = static_cast<size_t>(depth);
    p->M = a.rank == 1 ? 1 : static_cast<size_t>(a[a.rank - 2]);
    p->N = b.rank == 1 ? 1 : static_cast<size_t>(b[b.rank - 1]);
    if (!broadcast_batches(a, b, p))
      return c.invalid("shapes % and % do not broadcast", a.span(), b.span());
    *shape = p->batch;
    if (a.rank > 1) shape->append(a[a.rank - 2]);
    if (b.rank > 1) shape->append(b[b.rank - 1]);
    p->batches = p->batch.count();
    if (p->a_row == p->K && p->a_column == 1 && !state.moves_first[0]) fold_rows(b, p);
    return Status::kOk;
  }

  // The dimensions before the last two.
  static bool broadcast_batches(const Shape& a, const Shape& b, Product* p) {
    const uint32_t rank_a = a.rank > 2 ? a.rank - 2 : 0, rank_b = b.rank > 2 ? b.rank - 2 : 0;
    const uint32_t rank = max(rank_a, rank_b);
    p->batch.rank = rank;
    size_t count_a = 1, count_b = 1;
    for (uint32_t i = rank; i-- > 0;) {
      const uint32_t back = rank - i;
      const int64_t dim_a = back <= rank_a ? a[rank_a - back] : 1;
      const int64_t dim_b = back <= rank_b ? b[rank_b - back] : 1;
      if (dim_a != dim_b && dim_a != 1 && dim_b != 1) return false;
      p->batch[i] = dim_a == 1 ? dim_b : dim_a;
      p->a_steps[i] = dim_a == 1 ? 0 : count_a;
      p->b_steps[i] = dim_b == 1 ? 0 : count_b;
      count_a *= static_cast<size_t>(dim_a);
      count_b *= static_cast<size_t>(dim_b);
    }
    return true;
  }

  // With a single B all rows of a stacked A are rows of one product.
  static void fold_rows(const Shape& b, Product* p) {
    for (uint32_t i = 0; i + 2 < b.rank; ++i)
      if (b[i] != 1) return;
    p->M *= p->batches;
    p->batches = 1;
    p->batch = {};
  }
};

// Y = alpha * A' * B' + beta * C, A' and B' transposed where asked for.
struct Gemm {
  static constexpr bool kFuses = variants::kGemmActivation.is_built;
  struct State {
    ConstantB b;  // alpha * B'
    float alpha = 1, beta = 1;
    bool transpose_a = false, transpose_b = false;
    FusedActivation activation;
  };

  template <class T>
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->alpha = c.attribute_float("alpha", 1);
    state->beta = c.attribute_float("beta", 1);
    state->transpose_a = c.attribute_int("transA", 0) != 0;
    state->transpose_b = c.attribute_int("transB", 0) != 0;
    if constexpr (kFuses) ORTOLAN_TRY(state->activation.read(c));
    const Slot* constant = c.constant_input(1);
    if (!is_same<T, float>) return Status::kOk;
    Product p;
    const bool can_pack = constant && constant->shape.rank == 2;
    if (can_pack) place_b(*state, constant->shape, &p);
    if (constant && !takes(*constant, state->transpose_b, can_pack && state->alpha == 1, p))
      return c.fail(Status::kNotImplemented, "packed weights of shape % do not fit",
                    constant->shape.span());
    const bool is_plain = can_pack && !is_packed(constant->layout);
    note_ways(c, p, can_pack, is_plain);
    if (!can_pack || (is_plain && !variants::kProductsPrepacked.is_built)) return Status::kOk;
    if (p.N == 1 || !constant->shape.count()) return Status::kOk;
    state->b.scale = state->alpha;
    state->alpha = 1;
    return state->b.keep(c, *constant, p);
  }

  static Status infer(Context& c) {
    Product p;
    ORTOLAN_TRY(plan(c, &p));
    ORTOLAN_TRY(check_c(c, p));
    Shape shape;
    shape.append(static_cast<int64_t>(p.M));
    shape.append(static_cast<int64_t>(p.N));
    ORTOLAN_TRY(c.set_output(0, shape));
    Needs needs;
    const bool packed = c.state<State>().b.packed;
    ORTOLAN_TRY(c.input_type(0) == DataType::kFloat ? find_needs<float>(c, p, packed, &needs)
                                                    : find_needs<double>(c, p, packed, &needs));
    c.request_scratch(needs.copy + needs.shared, needs.per_thread);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Product p;
    ORTOLAN_TRY(plan(c, &p));
    if (!p.M || !p.N) return Status::kOk;
    Addend<T> addend = find_addend<T>(c);
    state.b.complete(c, c.input_data<T>(1), p);
    Operands<T> o = {c.input_data<T>(0),  c.input_data<T>(1),
                     state.b.packed,      nullptr,
                     c.output_data<T>(0), static_cast<char*>(c.scratch()),
                     state.b.in_lines};
    const T alpha = state.alpha;
    if (is_same<T, float> && alpha == 1 && addend.scale == 1 && !addend.row &&
        (addend.column == 1 || p.N == 1)) {
      o.bias = addend.data;
      addend.data = nullptr;
    }
    const FusedActivation* activation = &state.activation;
    if (!kFuses || !activation->kind) activation = nullptr;
    const Finish<T> rest = {addend, alpha, p.N, o.y, activation};
    const bool is_done = alpha == 1 && !addend.data && !activation;
    multiply(c, p, o, is_done ? Ready{} : Ready{Finish<T>::call, &rest});
    return Status::kOk;
  }

 private:
  // C with strides 0 in the dimensions that it repeats.
  template <class T>
  struct Addend {
    const T* data = nullptr;
    size_t row = 0, column = 0;
    T scale = 0;
  };
  // As in onnxruntime, C is not looked at when beta is 0.
  template <class T>
  static Addend<T> find_addend(const Context& c) {
    const float beta = c.state<State>().beta;
    if (!c.has_input(2) || beta == 0) return {};
    const Shape& shape = c.input_shape(2);
    Addend<T> addend = {c.input_data<T>(2), 0, 0, beta};
    if (shape.rank && shape[shape.rank - 1] != 1) addend.column = 1;
    if (shape.rank == 2 && shape[0] != 1) addend.row = static_cast<size_t>(shape[1]);
    return addend;
  }

  // Y = alpha * Y + beta * C, for what the product itself could not do.
  template <class T>
  struct Finish {
    Addend<T> addend;
    T alpha;
    size_t N;
    T* y;
    const FusedActivation* activation;  // of floats

    static void call(const void* user, const Region& r) {
      const Finish& f = *static_cast<const Finish*>(user);
      for (size_t i = r.row0; i < r.row1; ++i) {
        f.row(i, r.column0, r.column1);
        if constexpr (is_same<T, float> && kFuses)
          if (f.activation) f.activation->apply(f.y + i * f.N + r.column0, r.column1 - r.column0);
      }
    }
    void row(size_t i, size_t begin, size_t end) const {
      T* to = y + i * N;
      if (alpha != 1)
        for (size_t j = begin; j < end; ++j) to[j] *= alpha;
      if (!addend.data) return;
      const T* from = addend.data + i * addend.row;
      if (addend.column)
        for (size_t j = begin; j < end; ++j) to[j] += addend.scale * from[j];
      else
        for (size_t j = begin; j < end; ++j) to[j] += addend.scale * *from;
    }
  };

  static void place_b(const State& state, const Shape& b, Product* p) {
    const size_t rows = static_cast<size_t>(b[0]), columns = static_cast<size_t>(b[1]);
    p->K = state.transpose_b ? columns : rows;
    p->N = state.transpose_b ? rows : columns;
    p->b_row = state.transpose_b ? 1 : columns;
    p->b_column = state.transpose_b ? columns : 1;
  }

  static Status plan(const Context& c, Product* p) {
    const State& state = c.state<State>();
    const Shape &a = c.input_shape(0), &b = c.input_shape(1);
    if (a.rank != 2 || b.rank != 2)
      return c.invalid("A and B must be matrices, not % and %", a.span(), b.span());
    place_b(state, b, p);
    p->M = static_cast<size_t>(a[state.transpose_a ? 1 : 0]);
    p->a_row = state.transpose_a ? 1 : p->K;
    p->a_column = state.transpose_a ? p->M : 1;
    if (static_cast<size_t>(a[state.transpose_a ? 0 : 1]) != p->K)
      return c.invalid("A % and B % differ in the inner dimension", a.span(), b.span());
    return Status::kOk;
  }

  static Status check_c(const Context& c, const Product& p) {
    if (!c.has_input(2)) return Status::kOk;
    const Shape& shape = c.input_shape(2);
    const int64_t limits[] = {static_cast<int64_t>(p.M), static_cast<int64_t>(p.N)};
    bool fits = shape.rank <= 2;
    for (uint32_t i = 0; fits && i < shape.rank; ++i)
      fits = shape[i] == 1 || shape[i] == limits[2 - shape.rank + i];
    if (fits) return Status::kOk;
    return c.invalid("C % does not broadcast to [%, %]", shape.span(), limits[0], limits[1]);
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "matrix.inc"
