// Elements and slices at places that a tensor of indices names: read (Gather...), written or
// combined (Scatter...).
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

// An int32 or int64 tensor.
struct IndexReader {
  const void* data;
  bool wide;

  IndexReader(const Context& c, size_t input)
      : data(c.input_data<void>(input)), wide(c.input_type(input) == DataType::kInt64) {}
  int64_t operator[](size_t i) const {
    return wide ? static_cast<const Loose<int64_t>*>(data)[i]
                : static_cast<const Loose<int32_t>*>(data)[i];
  }
};

// Negative indices count from the end; false when outside.
inline bool resolve_index(int64_t* index, int64_t size) {
  if (*index < 0) *index += size;
  return *index >= 0 && *index < size;
}

inline Status bad_index(const Context& c, int64_t index, int64_t size) {
  return c.invalid("index % is outside a dimension of %", index < 0 ? index - size : index, size);
}

enum class Merge : uint8_t { kNone, kAdd, kMul, kMax, kMin };

// to = to (merge) from, n elements.
using MergeFunction = void (*)(Merge merge, char* to, const char* from, size_t n);

// Integers wrap; NaN on either side stays.
template <class T, class Word>
void merge_elements(Merge merge, char* to, const char* from, size_t n) {
  Loose<T>* a = reinterpret_cast<Loose<T>*>(to);
  const Loose<T>* b = reinterpret_cast<const Loose<T>*>(from);
  for (size_t i = 0; i < n; ++i) {
    const T x = a[i], y = b[i];
    switch (merge) {
      case Merge::kAdd:
        a[i] = static_cast<T>(static_cast<Word>(x) + static_cast<Word>(y));
        break;
      case Merge::kMul:
        a[i] = static_cast<T>(static_cast<Word>(x) * static_cast<Word>(y));
        break;
      case Merge::kMax:
        a[i] = y > x || y != y ? y : x;
        break;
      default:
        a[i] = y < x || y != y ? y : x;
    }
  }
}

// Sums and products of truth values are or and and.
inline void merge_bools(Merge merge, char* to, const char* from, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const bool x = to[i] != 0, y = from[i] != 0;
    to[i] = merge == Merge::kAdd || merge == Merge::kMax ? x || y : x && y;
  }
}

// Null for types that cannot be computed with.
inline MergeFunction merge_function(DataType type) {
  switch (type) {
    case DataType::kFloat:
      return merge_elements<float, float>;
    case DataType::kDouble:
      return merge_elements<double, double>;
    case DataType::kInt8:
      return merge_elements<int8_t, uint32_t>;
    case DataType::kUint8:
      return merge_elements<uint8_t, uint32_t>;
    case DataType::kInt16:
      return merge_elements<int16_t, uint32_t>;
    case DataType::kUint16:
      return merge_elements<uint16_t, uint32_t>;
    case DataType::kInt32:
      return merge_elements<int32_t, uint32_t>;
    case DataType::kUint32:
      return merge_elements<uint32_t, uint32_t>;
    case DataType::kInt64:
      return merge_elements<int64_t, uint64_t>;
    case DataType::kUint64:
      return merge_elements<uint64_t, uint64_t>;
    case DataType::kBool:
      return merge_bools;
    default:
      return nullptr;
  }
}

struct ScatterState {
  int64_t axis = 0;
  Merge merge = Merge::kNone;
};

inline Status prepare_scatter(Context& c) {
  ScatterState* state = c.make_state<ScatterState>();
  if (!state) return c.out_of_memory();
  state->axis = c.attribute_int("axis", 0);
  const String names[] = {"none", "add", "mul", "max", "min"};
  const String text = c.since_version() < 16 ? names[0] : c.attribute_string("reduction", "none");
  size_t i = 0;
  while (i < 5 && !(names[i] == text)) ++i;
  if (i == 5) return c.invalid("reduction \"%\" is unknown", text);
  state->merge = static_cast<Merge>(i);
  return Status::kOk;
}

// The output starts as a copy of the data.
inline void copy_data(Context& c) {
  const void* from = c.input_data<void>(0);
  void* to = c.output_data<void>(0);
  const size_t bytes = c.output_shape(0).count() * word_size(c);
  if (from != to && bytes) copy(to, from, bytes);
}

// Puts n elements to where `to` points.
class Scatterer {
 public:
  Scatterer(const Context& c, Merge merge)
      : merge_(merge), width_(word_size(c)), function_(merge_function(c.input_type(0))) {}
  static Status check(const Context& c, Merge merge) {
    if (merge == Merge::kNone || merge_function(c.input_type(0))) return Status::kOk;
    return c.fail(Status::kNotImplemented, "this type has no reduction");
  }
  void put(char* to, const char* from, size_t n) const {
    if (merge_ == Merge::kNone)
      copy_piece(to, from, n * width_);
    else
      function_(merge_, to, from, n);
  }

 private:
  Merge merge_;
  size_t width_;
  MergeFunction function_;
};

// Walks indices in order, row by row of their last dimension: body(index number, offset in `data`
// of the element that has the same place on all axes but `axis`).
template <class Body>
Status walk_elements(const Shape& data, const Shape& indices, uint32_t axis, Body body) {
  Nest nest;
  size_t stride = 1, strides[kMaxRank];
  for (uint32_t i = data.rank; i-- > 0; stride *= static_cast<size_t>(data[i])) strides[i] = stride;
  const auto step = [&](uint32_t i) { return i == axis ? 0 : static_cast<ptrdiff_t>(strides[i]); };
  const uint32_t last = indices.rank - 1;
  for (uint32_t i = 0; i < last; ++i) nest.add(static_cast<size_t>(indices[i]), step(i), 0);
  const size_t row = static_cast<size_t>(indices[last]), rows = nest.count();
  if (row == 0 || rows == 0) return Status::kOk;
  NestWalk walk(nest, 0);
  for (size_t r = 0; r < rows; ++r, walk.next())
    for (size_t j = 0; j < row; ++j)
      ORTOLAN_TRY(body(r * row + j, walk.in + static_cast<ptrdiff_t>(j) * step(last)));
  return Status::kOk;
}

// Indices fit into the data on all axes but one.
inline Status check_elements(const Context& c, int64_t* axis) {
  const Shape &data = c.input_shape(0), &indices = c.input_shape(1);
  ORTOLAN_TRY(resolve_axis(c, axis, data.rank));
  bool fits = indices.rank == data.rank;
  for (uint32_t i = 0; fits && i < data.rank; ++i) fits = i == *axis || indices[i] <= data[i];
  if (fits) return Status::kOk;
  return c.invalid("indices of shape % do not fit data of shape %", indices.span(), data.span());
}

struct ScatterElements {
  static Status prepare(Context& c) { return prepare_scatter(c); }
  static Status infer(Context& c) {
    int64_t axis = c.state<ScatterState>().axis;
    ORTOLAN_TRY(check_elements(c, &axis));
    ORTOLAN_TRY(Scatterer::check(c, c.state<ScatterState>().merge));
    if (!(c.input_shape(2) == c.input_shape(1)))
      return c.invalid("updates of shape % do not fit indices of shape %", c.input_shape(2).span(),
                       c.input_shape(1).span());
    return c.set_output(0, c.input_shape(0));
  }
  static Status run(Context& c) {
    const Shape& data = c.input_shape(0);
    int64_t axis = c.state<ScatterState>().axis;
    normalize_axis(&axis, data.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const IndexReader indices(c, 1);
    const Scatterer scatterer(c, c.state<ScatterState>().merge);
    const ptrdiff_t stride = static_cast<ptrdiff_t>(data.product(at + 1, data.rank));
    const ptrdiff_t width = static_cast<ptrdiff_t>(word_size(c));
    copy_data(c);
    char* to = c.output_data<char>(0);
    const char* from = c.input_data<char>(2);
    return walk_elements(data, c.input_shape(1), at, [&](size_t i, ptrdiff_t offset) {
      int64_t index = indices[i];
      if (!resolve_index(&index, data[at])) return bad_index(c, index, data[at]);
      const ptrdiff_t place = offset + static_cast<ptrdiff_t>(index) * stride;
      scatterer.put(to + place * width, from + static_cast<ptrdiff_t>(i) * width, 1);
      return Status::kOk;
    });
  }
};

struct GatherElements {
  static Status infer(Context& c) {
    int64_t axis = c.attribute_int("axis", 0);
    ORTOLAN_TRY(check_elements(c, &axis));
    return c.set_output(0, c.input_shape(1));
  }
  template <class Word>
  static Status run(Context& c) {
    const Shape& data = c.input_shape(0);
    int64_t axis = c.attribute_int("axis", 0);
    normalize_axis(&axis, data.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const IndexReader indices(c, 1);
    const ptrdiff_t stride = static_cast<ptrdiff_t>(data.product(at + 1, data.rank));
    const Loose<Word>* from = c.input_data<Loose<Word>>(0);
    Loose<Word>* to = c.output_data<Loose<Word>>(0);
    return walk_elements(data, c.input_shape(1), at, [&](size_t i, ptrdiff_t offset) {
      int64_t index = indices[i];
      if (!resolve_index(&index, data[at])) return bad_index(c, index, data[at]);
      to[i] = from[offset + static_cast<ptrdiff_t>(index) * stride];
      return Status::kOk;
    });
  }
};

// Element of `data`, counted in slices of dimensions [first + k, rank), that k indices name.
inline Status slice_place(const Context& c, const IndexReader& indices, size_t at, uint32_t first,
                          uint32_t k, size_t* place) {
  const Shape& data = c.input_shape(0);
  size_t slice = 0;
  for (uint32_t i = 0; i < k; ++i) {
    int64_t index = indices[at + i];
    if (!resolve_index(&index, data[first + i])) return bad_index(c, index, data[first + i]);
    slice = slice * static_cast<size_t>(data[first + i]) + static_cast<size_t>(index);
  }
  *place = slice;
  return Status::kOk;
}

struct ScatterND {
  static Status prepare(Context& c) { return prepare_scatter(c); }
  static Status infer(Context& c) {
    const Shape &data = c.input_shape(0), &indices = c.input_shape(1), &updates = c.input_shape(2);
    if (data.rank < 1 || indices.rank < 1) return c.invalid("data and indices need a dimension");
    const int64_t k = indices[indices.rank - 1];
    if (k > data.rank) return c.invalid("% indices for data of % dimensions", k, data.rank);
    Shape wanted = indices;
    --wanted.rank;
    bool fits = wanted.rank + data.rank - static_cast<uint32_t>(k) <= kMaxRank;
    for (uint32_t i = static_cast<uint32_t>(k); fits && i < data.rank; ++i) wanted.append(data[i]);
    if (!fits || !(wanted == updates))
      return c.invalid("updates of shape % do not fit indices % into %", updates.span(),
                       indices.span(), data.span());
    ORTOLAN_TRY(Scatterer::check(c, c.state<ScatterState>().merge));
    return c.set_output(0, data);
  }
  static Status run(Context& c) {
    const Shape &data = c.input_shape(0), &shape = c.input_shape(1);
    const uint32_t k = static_cast<uint32_t>(shape[shape.rank - 1]);
    const size_t count = shape.product(0, shape.rank - 1), slice = data.product(k, data.rank);
    const IndexReader indices(c, 1);
    const Scatterer scatterer(c, c.state<ScatterState>().merge);
    const size_t bytes = slice * word_size(c);
    copy_data(c);
    if (c.input_shape(2).count() == 0) return Status::kOk;
    for (size_t i = 0; i < count; ++i) {
      size_t place = 0;
      ORTOLAN_TRY(slice_place(c, indices, i * k, 0, k, &place));
      scatterer.put(c.output_data<char>(0) + place * bytes, c.input_data<char>(2) + i * bytes,
                    slice);
    }
    return Status::kOk;
  }
};

struct GatherND {
  static Status infer(Context& c) {
    const Shape &data = c.input_shape(0), &indices = c.input_shape(1);
    const int64_t batch = c.attribute_int("batch_dims", 0);
    if (data.rank < 1 || indices.rank < 1) return c.invalid("data and indices need a dimension");
    const int64_t k = indices[indices.rank - 1];
    bool fits = batch >= 0 && batch < indices.rank && batch < data.rank && k <= data.rank - batch;
    for (uint32_t i = 0; fits && i < batch; ++i) fits = data[i] == indices[i];
    if (!fits)
      return c.invalid("indices of shape % with batch_dims % do not fit data of shape %",
                       indices.span(), batch, data.span());
    Shape shape = indices;
    --shape.rank;
    const uint32_t first = static_cast<uint32_t>(batch + k);
    if (shape.rank + data.rank - first > kMaxRank)
      return c.invalid("the result has more than % dimensions", kMaxRank);
    for (uint32_t i = first; i < data.rank; ++i) shape.append(data[i]);
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const Shape &data = c.input_shape(0), &shape = c.input_shape(1);
    const uint32_t batch = static_cast<uint32_t>(c.attribute_int("batch_dims", 0));
    const uint32_t k = static_cast<uint32_t>(shape[shape.rank - 1]);
    if (c.output_shape(0).count() == 0) return Status::kOk;
    const size_t batches = data.product(0, batch);
    const size_t each = shape.product(batch, shape.rank - 1);
    const size_t slice = data.product(batch + k, data.rank) * word_size(c);
    const size_t slices = data.product(batch, batch + k);
    const IndexReader indices(c, 1);
    for (size_t i = 0; i < batches * each; ++i) {
      size_t place = 0;
      ORTOLAN_TRY(slice_place(c, indices, i * k, batch, k, &place));
      copy_piece(c.output_data<char>(0) + i * slice,
                 c.input_data<char>(0) + (i / each * slices + place) * slice, slice);
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable
