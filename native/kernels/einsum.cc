// Einsum: inputs are contracted one after the other, each step a stack of matrix products. What
// does not lie as a product needs it is brought there first; labels of one operand alone are summed
// on the way. Integers are computed in 64 bits and cut off at the end.
#include "kernels/einsum_equation.h"
#include "kernels/multiply.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::ORTOLAN_ISA {

namespace {

// An input or an intermediate result: a stride for each label, 0 where it has none.
struct View {
  const void* data = nullptr;
  uint64_t labels = 0;
  size_t stride[kLabels] = {};

  View() = default;
  View(const void* bytes, const Term& term, const Contraction& c, const Shape* shape)
      : data(bytes) {
    size_t step = 1;
    for (uint32_t i = term.count; i-- > 0;) {
      const uint32_t label = term.labels[i];
      const size_t size = shape ? static_cast<size_t>((*shape)[i]) : c.dims[label];
      labels |= label_bit(label);
      if (size != 1) stride[label] += step;
      step *= size;
    }
  }
  // Whether the elements lie in that order, without gaps.
  bool is_dense(const Contraction& c, const Term& order) const {
    size_t step = 1;
    for (uint32_t i = order.count; i-- > 0;) {
      if (c.dims[order.labels[i]] == 1) continue;
      if (stride[order.labels[i]] != step) return false;
      step *= c.dims[order.labels[i]];
    }
    return true;
  }
};

size_t count_of(const Contraction& c, const Term& term) {
  size_t n = 1;
  for (uint32_t i = 0; i < term.count; ++i) n *= c.dims[term.labels[i]];
  return n;
}

// A place that moves through the dimensions of a term.
struct Walk {
  const Contraction& c;
  const View& view;
  const Term& term;
  uint32_t rank;  // how many of the dimensions
  size_t index[kLabels] = {};
  size_t place = 0;

  bool next() {
    for (uint32_t i = rank; i-- > 0;) {
      const uint32_t label = term.labels[i];
      place += view.stride[label];
      if (++index[i] < c.dims[label]) return true;
      place -= view.stride[label] * c.dims[label];
      index[i] = 0;
    }
    return false;
  }
};

// Elements in the order of `kept`, summed over `summed`; no dimension is empty.
template <class From, class To>
void gather(const Contraction& c, const View& view, const Term& kept, const Term& summed,
            void* out) {
  const From* from = static_cast<const From*>(view.data);
  To* to = static_cast<To*>(out);
  const uint32_t outer = kept.count ? kept.count - 1u : 0;
  const size_t n = kept.count ? c.dims[kept.labels[outer]] : 1;
  const size_t step = kept.count ? view.stride[kept.labels[outer]] : 0;
  Walk rows{c, view, kept, outer};
  do {
    for (size_t j = 0; j < n; ++j) {
      const From* at = from + rows.place + j * step;
      To sum = static_cast<To>(*at);
      if (summed.count) {
        Walk terms{c, view, summed, summed.count};
        while (terms.next()) sum += static_cast<To>(at[terms.place]);
      }
      *to++ = sum;
    }
  } while (rows.next());
}
using Gather = void (*)(const Contraction&, const View&, const Term&, const Term&, void*);

// Elements as a kernel for T computes them.
template <class T>
struct Computed {
  using Type = uint64_t;
};
template <>
struct Computed<float> {
  using Type = float;
};
template <>
struct Computed<double> {
  using Type = double;
};

// One contraction: which labels play which part, and how much scratch it takes.
struct Step {
  Term batch, rows, columns, depth;  // of the product
  Term left_sum, right_sum;          // labels of one side alone that nobody needs afterwards
  Term left, right, result;          // orders in memory
  Product product;

  ORTOLAN_NOINLINE Step(const Contraction& c, uint64_t a, uint64_t b, uint64_t needed) {
    for (uint32_t label = 0; label < kLabels; ++label) {
      const uint64_t bit = label_bit(label);
      if (!((a | b) & bit)) continue;
      if (a & b & bit)
        (needed & bit ? batch : depth).add(label);
      else if (a & bit)
        (needed & bit ? rows : left_sum).add(label);
      else
        (needed & bit ? columns : right_sum).add(label);
    }
    join(&left, batch, rows, depth);
    join(&right, batch, depth, columns);
    join(&result, batch, rows, columns);
    product.M = count_of(c, rows);
    product.N = count_of(c, columns);
    product.K = count_of(c, depth);
    product.a_row = product.K;
    product.b_row = product.N;
    product.batches = count_of(c, batch);
    product.batch.append(static_cast<int64_t>(product.batches));
    product.a_steps[0] = product.b_steps[0] = 1;
    product.a_matrices = product.b_matrices = product.batches;
  }
  static void join(Term* to, const Term& a, const Term& b, const Term& c) {
    const Term* parts[] = {&a, &b, &c};
    for (const Term* part : parts)
      for (uint32_t i = 0; i < part->count; ++i) to->add(part->labels[i]);
  }
};

// Scratch: both operands of a step, two results in turn, and what products need.
struct Sizes {
  size_t left = 0, right = 0, result = 0, product = 0, per_thread = 0;

  size_t total() const { return left + right + 2 * result + product; }
};

uint64_t labels_of(const Term& term) {
  uint64_t labels = 0;
  for (uint32_t i = 0; i < term.count; ++i) labels |= label_bit(term.labels[i]);
  return labels;
}

uint64_t needed_after(const Contraction& c, uint32_t terms, uint32_t step) {
  uint64_t needed = labels_of(c.result);
  for (uint32_t t = step + 1; t < terms; ++t) needed |= labels_of(c.term[t]);
  return needed;
}

// Bytes of `term`, rounded up, if they are more than *most.
Status grow(Context& c, const Contraction& contraction, const Term& term, size_t* most) {
  size_t bytes = sizeof(uint64_t);
  for (uint32_t i = 0; i < term.count; ++i)
    if (__builtin_mul_overflow(bytes, contraction.dims[term.labels[i]], &bytes) ||
        bytes > SIZE_MAX / 16)
      return c.fail(Status::kLimitExceeded, "an intermediate result is too large");
  *most = max(*most, round_up(bytes, kAlignment));
  return Status::kOk;
}

ORTOLAN_NOINLINE Status find_sizes(Context& c, const Contraction& contraction, uint32_t terms,
                                   Sizes* sizes) {
  uint64_t labels = labels_of(contraction.term[0]);
  if (terms == 1) return grow(c, contraction, contraction.result, &sizes->result);
  for (uint32_t t = 1; t < terms; ++t) {
    const Step step(contraction, labels, labels_of(contraction.term[t]),
                    needed_after(contraction, terms, t));
    ORTOLAN_TRY(grow(c, contraction, step.left, &sizes->left));
    ORTOLAN_TRY(grow(c, contraction, step.right, &sizes->right));
    ORTOLAN_TRY(grow(c, contraction, step.result, &sizes->result));
    labels = labels_of(step.result);
    if (c.input_type(0) != DataType::kFloat) continue;
    // Both ways in which an operand may lie, so that run can choose.
    for (int turned = 0; turned < 4; ++turned) {
      Product p = step.product;
      if (turned & 1) p.a_row = 1, p.a_column = p.M;
      if (turned & 2) p.b_row = 1, p.b_column = p.K;
      Needs needs;
      ORTOLAN_TRY(find_needs<float>(c, p, false, &needs));
      sizes->product = max(sizes->product, round_up(needs.copy + needs.shared, kAlignment));
      sizes->per_thread = max(sizes->per_thread, needs.per_thread);
    }
  }
  return Status::kOk;
}

}  // namespace

struct Einsum {
  static Status prepare(Context& c) {
    Equation* equation = c.make_state<Equation>();
    if (!equation) return c.out_of_memory();
    return equation->parse(c, c.attribute_string("equation", ""));
  }

  static Status infer(Context& c) {
    Contraction contraction;
    ORTOLAN_TRY(contraction.plan(c, c.state<Equation>()));
    Sizes sizes;
    ORTOLAN_TRY(find_sizes(c, contraction, c.state<Equation>().terms, &sizes));
    c.request_scratch(sizes.total(), sizes.per_thread);
    Shape out;
    for (uint32_t i = 0; i < contraction.result.count; ++i)
      out.append(static_cast<int64_t>(contraction.dims[contraction.result.labels[i]]));
    return c.set_output(0, out);
  }

  template <class T>
  static Status run(Context& c) {
    using Word = typename IntOfSize<sizeof(T)>::Unsigned;
    using C = typename Computed<T>::Type;
    if constexpr (is_same<T, C>)
      return contract<C>(c, gather<C, C>, gather<C, C>);
    else
      return contract<C>(c, gather<Word, C>, gather<C, Word>);
  }

 private:
  // A view of an operand in one of two orders, itself if it lies so; else a copy in the first.
  template <class C>
  static const C* arrange(const Contraction& c, const View& view, bool is_computed, Gather read,
                          const Term& order, const Term& other, const Term& summed, bool* turned,
                          void* scratch) {
    *turned = false;
    if (is_computed && summed.count == 0) {
      if (view.is_dense(c, order)) return static_cast<const C*>(view.data);
      *turned = view.is_dense(c, other);
      if (*turned) return static_cast<const C*>(view.data);
    }
    (is_computed ? gather<C, C> : read)(c, view, order, summed, scratch);
    return static_cast<const C*>(scratch);
  }

  // `read` and `write` bring elements of inputs and of the output from and to C.
  template <class C>
  ORTOLAN_NOINLINE static Status contract(Context& c, Gather read, Gather write) {
    const uint32_t terms = c.state<Equation>().terms;
    Contraction contraction;
    ORTOLAN_TRY(contraction.plan(c, c.state<Equation>()));
    Sizes sizes;
    ORTOLAN_TRY(find_sizes(c, contraction, terms, &sizes));
    const Slot& out = c.output(0);
    if (out.shape.count() == 0) return Status::kOk;
    for (size_t dim : contraction.dims)
      if (dim == 0) {  // sums of nothing
        fill_zero(out.data, out.shape.count() * element_size(out.type));
        return Status::kOk;
      }
    char* scratch = static_cast<char*>(c.scratch());
    char* results = scratch + sizes.left + sizes.right;
    const bool is_word = !is_float<C>;
    View view(c.input_data<void>(0), contraction.term[0], contraction, &c.input_shape(0));
    const Term none{};
    for (uint32_t t = 1; t < terms; ++t) {
      const View other(c.input_data<void>(t), contraction.term[t], contraction, &c.input_shape(t));
      Step step(contraction, view.labels, other.labels, needed_after(contraction, terms, t));
      Term left, right;  // turned
      Step::join(&left, step.batch, step.depth, step.rows);
      Step::join(&right, step.batch, step.columns, step.depth);
      bool turned_left, turned_right;
      Product& p = step.product;
      const C* a = arrange<C>(contraction, view, !is_word || t > 1, read, step.left, left,
                              step.left_sum, &turned_left, scratch);
      const C* b = arrange<C>(contraction, other, !is_word, read, step.right, right, step.right_sum,
                              &turned_right, scratch + sizes.left);
      if (turned_left) p.a_row = 1, p.a_column = p.M;
      if (turned_right) p.b_row = 1, p.b_column = p.K;
      void* to = results + t % 2 * sizes.result;
      const bool is_last = t + 1 == terms;
      View result(to, step.result, contraction, nullptr);
      if (is_last && !is_word && result.is_dense(contraction, contraction.result)) to = out.data;
      product<C>(c, p, a, b, static_cast<C*>(to), results + 2 * sizes.result);
      if (to == out.data) return Status::kOk;
      view = result;
    }
    Term summed;
    for (uint32_t label = 0; label < kLabels; ++label)
      if (view.labels & ~labels_of(contraction.result) & label_bit(label)) summed.add(label);
    if (terms == 1 && is_word) {
      read(contraction, view, contraction.result, summed, results);
      view = View(results, contraction.result, contraction, nullptr);
      write(contraction, view, contraction.result, none, out.data);
    } else {
      write(contraction, view, contraction.result, summed, out.data);
    }
    return Status::kOk;
  }

  template <class C>
  static void product(Context& c, Product p, const C* a, const C* b, C* y, char* scratch) {
    if constexpr (!is_same<C, float>)
      if (p.b_column != 1) return turned_product<C>(p, a, b, y);
    multiply(c, p, Operands<C>{a, b, nullptr, nullptr, y, scratch}, {});
  }
  // Other types than float read the turned right operand in place.
  template <class C>
  static void turned_product(const Product& p, const C* a, const C* b, C* y) {
    for (size_t i = 0; i < p.batches; ++i, a += p.M * p.K, b += p.N * p.K)
      for (size_t m = 0; m < p.M; ++m)
        for (size_t n = 0; n < p.N; ++n) {
          C sum = 0;
          for (size_t k = 0; k < p.K; ++k) sum += a[m * p.a_row + k * p.a_column] * b[n * p.K + k];
          *y++ = sum;
        }
  }
};

}  // namespace ortolan::ORTOLAN_ISA

ORTOLAN_SMALL_END

#include "einsum.inc"
