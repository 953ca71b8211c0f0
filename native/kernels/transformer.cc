// What transformers need beside attention and is not hot: caches, quantized tables, states, and
// small operators of com.microsoft on matrices.
#include "kernels/linear_attention.h"

namespace ortolan::portable {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

// The cache with rows of `update` in the place of some of its own, a place for each batch.
struct TensorScatter {
  struct State {
    int64_t axis = -2;
    bool circular = false;
  };
  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->axis = c.attribute_int("axis", -2);
    const String mode = c.attribute_string("mode", "linear");
    s->circular = mode == "circular";
    if (!s->circular && !(mode == "linear"))
      return c.invalid("mode \"%\" is not linear or circular", mode);
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const Shape &cache = c.input_shape(0), &update = c.input_shape(1);
    int64_t axis = c.state<State>().axis;
    if (!normalize_axis(&axis, cache.rank) || axis == 0)
      return c.invalid("axis % of % dimensions is the batch's, or none", axis, cache.rank);
    bool fits = cache.rank == update.rank;
    for (uint32_t i = 0; fits && i < cache.rank; ++i)
      fits = update[i] == cache[i] || (i == axis && update[i] < cache[i]);
    if (!fits) return c.invalid("update of shape % does not fit %", update.span(), cache.span());
    if (c.has_input(2) && (c.input_shape(2).rank != 1 || c.input_shape(2)[0] != cache[0]))
      return c.invalid("write_indices have shape %, not [%]", c.input_shape(2).span(), cache[0]);
    return c.set_output(0, cache);
  }
  static Status run(Context& c) {
    const Shape &cache = c.input_shape(0), &update = c.input_shape(1);
    const State& state = c.state<State>();
    int64_t axis = state.axis;
    normalize_axis(&axis, cache.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const int64_t length = cache[at], rows = update[at];
    const size_t element = element_size(c.input_type(0));
    const size_t row = cache.product(at + 1, cache.rank) * element;
    const size_t middle = cache.product(1, at), batches = static_cast<size_t>(cache[0]);
    const int64_t* places = c.has_input(2) ? c.input_data<int64_t>(2) : nullptr;
    for (size_t b = 0; places && b < batches; ++b)
      if (places[b] < 0 ||
          (state.circular ? places[b] >= max<int64_t>(length, 1) : places[b] > length - rows))
        return c.invalid("% rows from % on are outside a cache of %", rows, places[b], length);
    char* to = c.output_data<char>(0);
    const char* from = c.input_data<char>(1);
    if (to != c.input_data<char>(0)) copy(to, c.input_data<char>(0), cache.count() * element);
    for (size_t i = 0; i < batches * middle; ++i) {
      const int64_t place = places ? places[i / middle] : 0;
      for (int64_t r = 0; r < rows; ++r, from += row) {
        const size_t target = static_cast<size_t>((place + r) % length);
        copy(to + (i * static_cast<size_t>(length) + target) * row, from, row);
      }
    }
    return Status::kOk;
  }
};

// Distances between the rows of two matrices.
struct CDist {
  static Status infer(Context& c) {
    const Shape &a = c.input_shape(0), &b = c.input_shape(1);
    if (a.rank != 2 || b.rank != 2 || a[1] != b[1])
      return c.invalid("A % and B % are no matrices of as many columns", a.span(), b.span());
    const String metric = c.attribute_string("metric", "sqeuclidean");
    if (!(metric == "euclidean") && !(metric == "sqeuclidean"))
      return c.fail(Status::kNotImplemented, "metric \"%\" is not euclidean or sqeuclidean",
                    metric);
    Shape shape = a;
    shape[1] = b[0];
    return c.set_output(0, shape);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& a = c.input_shape(0);
    const size_t n = static_cast<size_t>(a[1]), columns = static_cast<size_t>(c.input_shape(1)[0]);
    const bool roots = c.attribute_string("metric", "sqeuclidean") == "euclidean";
    c.parallel(static_cast<size_t>(a[0]), (1 << 14) / (columns * n + 1) + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i)
                   for (size_t j = 0; j < columns; ++j) {
                     const T* x = c.input_data<T>(0) + i * n;
                     const T* y = c.input_data<T>(1) + j * n;
                     double sum = 0;
                     for (size_t k = 0; k < n; ++k) {
                       const double apart = static_cast<double>(x[k]) - static_cast<double>(y[k]);
                       sum += apart * apart;
                     }
                     c.output_data<T>(0)[i * columns + j] =
                         static_cast<T>(roots ? __builtin_sqrt(sum) : sum);
                   }
               });
    return Status::kOk;
  }
};

// Rows of a table whose numbers are packed in bytes, with a scale and a zero point for each block.
struct GatherBlockQuantized {
  static constexpr int64_t kMostBlock = 1 << 28;
  struct State {
    int64_t axis = 1, gather = 0, block = 128, bits = 4;
    bool packed = true, is_signed = false;  // int4 and uint4 have a byte each, and 0 for a zero
  };
  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->packed = c.input_type(0) == DataType::kUint8;
    s->is_signed = c.input_type(0) == DataType::kInt4;
    s->axis = c.attribute_int("quantize_axis", 1);
    s->block = c.attribute_int("block_size", 128);
    s->bits = c.attribute_int("bits", 4);
    if (s->bits != 2 && s->bits != 4 && s->bits != 8)
      return c.invalid("bits % is not 2, 4 or 8", s->bits);
    if (s->block < 16 || s->block > kMostBlock || (s->block & (s->block - 1)))
      return c.invalid("block_size % is no power of 2 from 16 to %", s->block, kMostBlock);
    s->gather = c.attribute_int("gather_axis", 0);
    if (s->packed && s->gather != 0)
      return c.invalid("gather_axis % of a table of bytes is not 0", s->gather);
    if (!s->packed) s->bits = 8;  // as they are in memory
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const State& s = c.state<State>();
    const Shape &ids = c.input_shape(1), &scales = c.input_shape(2);
    Shape data = c.input_shape(0);
    int64_t axis = s.axis, gather = s.gather;
    if (data.rank < 2 || !normalize_axis(&axis, data.rank) || !normalize_axis(&gather, data.rank) ||
        axis == gather)
      return c.invalid("quantize_axis % of data of shape % is that of gather_axis %, or none",
                       s.axis, data.span(), s.gather);
    if (ids.rank + data.rank - 1 > kMaxRank)
      return c.invalid("the result has more than % dimensions", kMaxRank);
    // Longer ones have no elements; what follows multiplies by 8 bits.
    if (data[data.rank - 1] > INT64_MAX >> 8)
      return c.fail(Status::kLimitExceeded, "data of shape % is too large", data.span());
    data[data.rank - 1] *= 8 / s.bits;
    bool fits = scales.rank == data.rank;
    for (uint32_t i = 0; fits && i < data.rank; ++i)
      fits = scales[i] == (i == axis ? data[i] / s.block + (data[i] % s.block != 0) : data[i]);
    if (!fits)
      return c.invalid("scales of shape % do not fit data of shape % in blocks of %", scales.span(),
                       data.span(), s.block);
    if (c.has_input(3)) {
      Shape zeros = scales;
      int64_t& last = zeros[zeros.rank - 1];
      last = (last * s.bits + 7) / 8;
      if (!(c.input_shape(3) == zeros))
        return c.invalid("zero_points have shape %, not %", c.input_shape(3).span(), zeros.span());
    }
    Shape y;
    for (uint32_t i = 0; i < data.rank; ++i) {
      if (i != gather) y.append(data[i]);
      for (uint32_t k = 0; i == gather && k < ids.rank; ++k) y.append(ids[k]);
    }
    return c.set_output(0, y);
  }
  static Status run(Context& c) {
    const State& s = c.state<State>();
    const Shape& data = c.input_shape(0);
    int64_t axis = s.gather;
    normalize_axis(&axis, data.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const int64_t limit = data[at];
    const size_t n = data.product(at + 1, data.rank) * static_cast<size_t>(8 / s.bits);
    const bool is_wide = c.input_type(1) == DataType::kInt64;
    const size_t ids = c.input_shape(1).count();
    c.parallel(
        data.product(0, at) * ids, (1 << 14) / (n + 1) + 1, [&](size_t begin, size_t end, size_t) {
          for (size_t i = begin; i < end; ++i) {
            const size_t k = i % ids;
            int64_t id = is_wide ? c.input_data<int64_t>(1)[k] : c.input_data<int32_t>(1)[k];
            if (id < 0) id += limit;
            float* y = c.output_data<float>(0) + i * n;
            if (id < 0 || id >= limit)
              fill_zero(y, n * sizeof(float));
            else
              row(c, (i / ids * static_cast<size_t>(limit) + static_cast<size_t>(id)) * n, n, y);
          }
        });
    return Status::kOk;
  }

 private:
  // Number i of those that are packed from `bytes` on.
  static int32_t number(const State& s, const uint8_t* bytes, size_t i) {
    if (!s.packed) return s.is_signed ? ((bytes[i] & 15) ^ 8) - 8 : bytes[i] & 15;
    const size_t bits = static_cast<size_t>(s.bits), per_byte = 8 / bits;
    return bytes[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1);
  }
  // n numbers of the data from `first` on.
  static void row(const Context& c, size_t first, size_t n, float* y) {
    const State& s = c.state<State>();
    const Shape &data = c.input_shape(0), &scales = c.input_shape(2);
    int64_t axis = s.axis;
    normalize_axis(&axis, data.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const size_t per_byte = static_cast<size_t>(8 / s.bits);
    size_t inner = data.product(at + 1, data.rank), length = static_cast<size_t>(data[at]);
    (at + 1 == data.rank ? length : inner) *= per_byte;
    const size_t blocks = static_cast<size_t>(scales[at]), block = static_cast<size_t>(s.block);
    const size_t last = static_cast<size_t>(scales[scales.rank - 1]);
    const float* scale = c.input_data<float>(2);
    const uint8_t* zeros = c.has_input(3) ? c.input_data<uint8_t>(3) : nullptr;
    const size_t zero_row = (last + per_byte - 1) / per_byte;
    for (size_t i = first; i < first + n; ++i) {
      const size_t place = i / inner;
      const size_t group = (place / length * blocks + place % length / block) * inner + i % inner;
      int32_t zero = s.packed ? 1 << (s.bits - 1) : 0;
      if (zeros) zero = number(s, zeros + group / last * zero_row, group % last);
      y[i - first] =
          static_cast<float>(number(s, c.input_data<uint8_t>(0), i) - zero) * scale[group];
    }
  }
};

#pragma clang attribute pop

}  // namespace ortolan::portable

#include "transformer.inc"
