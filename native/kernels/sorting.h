// TopK and Unique. Elements of every type become unsigned keys of the same order, so that one copy
// of the code sorts them all; equal elements keep their order.
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

// n elements, `stride` apart, as keys: -0 equals 0, and NaN is greater than everything.
template <class T, class Word>
void make_keys(const char* from, size_t stride, size_t n, uint64_t* keys) {
  constexpr Word kSign = static_cast<Word>(Word{1} << (8 * sizeof(Word) - 1));
  for (size_t i = 0; i < n; ++i) {
    const T v = reinterpret_cast<const Loose<T>*>(from)[i * stride];
    Word word = __builtin_bit_cast(Word, v);
    if constexpr (is_float<T>) {
      if (v == 0) word = 0;
      word = word & kSign ? ~word : word | kSign;
      keys[i] = v != v ? ~uint64_t{0} : word;
    } else {
      keys[i] = static_cast<T>(-1) < static_cast<T>(0) ? static_cast<Word>(word ^ kSign) : word;
    }
  }
}
using KeyFunction = void (*)(const char* from, size_t stride, size_t n, uint64_t* keys);

inline KeyFunction key_function(DataType type) {
  switch (type) {
    case DataType::kFloat:
      return make_keys<float, uint32_t>;
    case DataType::kDouble:
      return make_keys<double, uint64_t>;
    case DataType::kInt8:
      return make_keys<int8_t, uint8_t>;
    case DataType::kUint8:
      return make_keys<uint8_t, uint8_t>;
    case DataType::kInt16:
      return make_keys<int16_t, uint16_t>;
    case DataType::kUint16:
      return make_keys<uint16_t, uint16_t>;
    case DataType::kInt32:
      return make_keys<int32_t, uint32_t>;
    case DataType::kUint32:
      return make_keys<uint32_t, uint32_t>;
    case DataType::kInt64:
      return make_keys<int64_t, uint64_t>;
    default:
      return make_keys<uint64_t, uint64_t>;
  }
}

// Restores the heap below `at`, whose root is the entry that comes last.
template <class T, class Before>
void sift_down(T* heap, size_t n, size_t at, Before before) {
  for (size_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && before(heap[child], heap[child + 1])) ++child;
    if (!before(heap[at], heap[child])) return;
    swap(heap[at], heap[child]);
  }
}
template <class T, class Before>
void make_heap(T* heap, size_t n, Before before) {
  for (size_t i = n / 2; i-- > 0;) sift_down(heap, n, i, before);
}
template <class T, class Before>
void sort_heap(T* heap, size_t n, Before before) {
  while (n > 1) {
    swap(heap[0], heap[--n]);
    sift_down(heap, n, 0, before);
  }
}

// Bytes of `n` entries, or an error.
inline Status scratch_bytes(const Context& c, size_t n, size_t each, size_t* bytes) {
  if (!__builtin_mul_overflow(n, each, bytes) && *bytes <= SIZE_MAX / 4) return Status::kOk;
  return c.fail(Status::kLimitExceeded, "% elements are too many", n);
}

struct TopK {
  struct State {
    int64_t axis, k;
    bool smallest;
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->axis = c.attribute_int("axis", -1);
    state->k = c.attribute_int("k", -1);
    state->smallest = c.attribute_int("largest", 1) == 0;
    if (c.since_version() < 10 && state->k < 0) return c.invalid("k % is negative", state->k);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Shape shape = c.input_shape(0);
    int64_t axis = c.state<State>().axis, k = c.state<State>().k;
    ORTOLAN_TRY(resolve_axis(c, &axis, shape.rank));
    size_t count = 0;
    if (c.has_input(1) && (!c.input_ints(1, &k, 1, &count) || count != 1))
      return c.invalid("K must be one int64");
    int64_t& n = shape[static_cast<size_t>(axis)];
    if (k < 0 || k > n) return c.invalid("k % is outside a dimension of %", k, n);
    size_t keys = 0, entries = 0;
    ORTOLAN_TRY(scratch_bytes(c, static_cast<size_t>(n), sizeof(uint64_t), &keys));
    ORTOLAN_TRY(scratch_bytes(c, static_cast<size_t>(k), sizeof(Entry), &entries));
    c.request_scratch(0, keys + entries);
    n = k;
    ORTOLAN_TRY(c.set_output(0, shape));
    return c.set_output(1, shape);
  }

  static Status run(Context& c) {
    const Shape &in = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    int64_t axis = c.state<State>().axis;
    normalize_axis(&axis, in.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const size_t n = static_cast<size_t>(in[at]), k = static_cast<size_t>(out[at]);
    const size_t inner = in.product(at + 1, in.rank);
    c.parallel(in.count() / n, 4096 / n + 1, [&](size_t begin, size_t end, size_t thread) {
      for (size_t i = begin; i < end; ++i) run_row(c, i / inner, i % inner, inner, n, k, thread);
    });
    return Status::kOk;
  }

 private:
  struct Entry {
    uint64_t key;
    size_t index;
  };

  static void run_row(Context& c, size_t outer, size_t column, size_t inner, size_t n, size_t k,
                      size_t thread) {
    const size_t width = word_size(c);
    uint64_t* keys = static_cast<uint64_t*>(c.thread_scratch(thread));
    Entry* best = reinterpret_cast<Entry*>(keys + n);
    const char* from = c.input_data<char>(0) + (outer * n * inner + column) * width;
    key_function(c.input_type(0))(from, inner, n, keys);
    if (!c.state<State>().smallest)
      for (size_t i = 0; i < n; ++i) keys[i] = ~keys[i];
    // Small keys come first; the heap's root is the worst of the best so far.
    const auto before = [](const Entry& a, const Entry& b) {
      return a.key < b.key || (a.key == b.key && a.index < b.index);
    };
    for (size_t i = 0; i < k; ++i) best[i] = {keys[i], i};
    make_heap(best, k, before);
    for (size_t i = k; i < n; ++i) {
      if (keys[i] >= best[0].key) continue;
      best[0] = {keys[i], i};
      sift_down(best, k, 0, before);
    }
    sort_heap(best, k, before);
    const size_t place = outer * k * inner + column;
    char* values = c.output_data<char>(0) + place * width;
    Loose<int64_t>* indices = c.output_data<Loose<int64_t>>(1) + place;
    for (size_t i = 0; i < k; ++i) {
      copy_piece(values + i * inner * width, from + best[i].index * inner * width, width);
      indices[i * inner] = static_cast<int64_t>(best[i].index);
    }
  }
};

// Slices along an axis, or elements, each once: in order of value, or as they first come.
struct Unique {
  static Status infer(Context& c) {
    Parts p;
    ORTOLAN_TRY(find_parts(c, &p));
    size_t keys = 0, lists = 0;
    ORTOLAN_TRY(scratch_bytes(c, p.n * p.outer * p.inner, sizeof(uint64_t), &keys));
    ORTOLAN_TRY(scratch_bytes(c, p.n, 3 * sizeof(size_t), &lists));
    c.request_scratch(keys + lists);
    return Status::kOk;
  }

  static Status run(Context& c) {
    Parts p;
    ORTOLAN_TRY(find_parts(c, &p));
    const size_t n = p.n, m = p.outer * p.inner;
    uint64_t* keys = static_cast<uint64_t*>(c.scratch());
    size_t* order = reinterpret_cast<size_t*>(keys + n * m);
    size_t *first = order + n, *group = first + n;
    for (size_t i = 0; i < n; ++i) {
      order[i] = i;
      for (size_t j = 0; j < p.outer; ++j)
        key_function(c.input_type(0))(c.input_data<char>(0) + (j * n + i) * p.inner * word_size(c),
                                      1, p.inner, keys + i * m + j * p.inner);
    }
    const auto compare = [=](size_t a, size_t b) {
      for (size_t j = 0; j < m; ++j)
        if (keys[a * m + j] != keys[b * m + j]) return keys[a * m + j] < keys[b * m + j] ? -1 : 1;
      return 0;
    };
    const auto before = [=](size_t a, size_t b) {
      const int result = compare(a, b);
      return result < 0 || (result == 0 && a < b);
    };
    make_heap(order, n, before);
    sort_heap(order, n, before);
    size_t groups = 0;
    for (size_t i = 0; i < n; ++i) {
      if (i == 0 || compare(order[i - 1], order[i]) != 0) first[groups++] = order[i];
      group[order[i]] = groups - 1;
    }
    if (c.attribute_int("sorted", is_standard(c) ? 1 : 0) == 0)
      order_by_first(n, groups, first, group, order);
    return write(c, p, groups, first, group);
  }

 private:
  struct Parts {
    size_t outer = 1, n = 0, inner = 1;  // [outer][n][inner]
    uint32_t axis = 0;
    bool flat = true;
  };
  // com.microsoft's, of version 1, sorts nothing and lacks output 1 of the standard's.
  static bool is_standard(const Context& c) { return c.since_version() >= 11; }
  static Status find_parts(Context& c, Parts* p) {
    const Shape& x = c.input_shape(0);
    p->n = x.count();
    if (!c.attribute("axis")) return Status::kOk;
    int64_t axis = c.attribute_int("axis", 0);
    ORTOLAN_TRY(resolve_axis(c, &axis, x.rank));
    p->axis = static_cast<uint32_t>(axis);
    p->flat = false;
    p->n = static_cast<size_t>(x[p->axis]);
    if (x.count() == 0 && p->n != 0) return c.invalid("the slices of % are empty", x.span());
    if (p->n == 0) return Status::kOk;
    p->outer = x.product(0, p->axis);
    p->inner = x.product(p->axis + 1, x.rank);
    return Status::kOk;
  }

  // Numbers the groups anew: as their first elements come. `spare` has n entries.
  static void order_by_first(size_t n, size_t groups, size_t* first, size_t* group, size_t* spare) {
    for (size_t g = 0; g < groups; ++g) spare[g] = n;
    size_t next = 0;
    for (size_t i = 0; i < n; ++i) {
      size_t& number = spare[group[i]];
      if (number == n) first[next] = i, number = next++;
      group[i] = number;
    }
  }

  static Status write(Context& c, const Parts& p, size_t groups, const size_t* first,
                      const size_t* group) {
    const size_t width = p.inner * word_size(c);
    Shape shape, list, all;
    if (!p.flat) shape = c.input_shape(0);
    if (p.flat)
      shape.append(static_cast<int64_t>(groups));
    else
      shape[p.axis] = static_cast<int64_t>(groups);
    list.append(static_cast<int64_t>(groups));
    all.append(static_cast<int64_t>(p.n));
    ORTOLAN_TRY(c.allocate_output(0, shape));
    for (size_t j = 0; j < p.outer; ++j)
      for (size_t g = 0; g < groups; ++g)
        copy_piece(c.output_data<char>(0) + (j * groups + g) * width,
                   c.input_data<char>(0) + (j * p.n + first[g]) * width, width);
    const size_t inverse = is_standard(c) ? 2 : 1, counts = inverse + 1;
    for (size_t i = 1; i <= counts; ++i)
      ORTOLAN_TRY(c.allocate_output(i, i == inverse ? all : list));
    if (inverse == 2 && c.has_output(1))
      for (size_t g = 0; g < groups; ++g)
        c.output_data<int64_t>(1)[g] = static_cast<int64_t>(first[g]);
    if (c.has_output(inverse))
      for (size_t i = 0; i < p.n; ++i)
        c.output_data<int64_t>(inverse)[i] = static_cast<int64_t>(group[i]);
    if (c.has_output(counts)) {
      fill_zero(c.output_data<int64_t>(counts), groups * sizeof(int64_t));
      for (size_t i = 0; i < p.n; ++i) ++c.output_data<int64_t>(counts)[group[i]];
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable
