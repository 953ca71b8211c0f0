// Operators that pick, place, order and select elements by index or by value.
#include "kernels/scatter.h"
#include "kernels/selection.h"
#include "kernels/sorting.h"

namespace ortolan::portable {

// Element i of a tensor of numbers as an integer, cut off at the ends of int64; 0 for NaN.
static int64_t whole_number(const void* data, DataType type, size_t i) {
  const auto at = [=](auto one) { return static_cast<const Loose<decltype(one)>*>(data)[i]; };
  double real = 0;
  switch (type) {
    case DataType::kInt8:
      return at(int8_t{});
    case DataType::kUint8:
      return at(uint8_t{});
    case DataType::kInt16:
      return at(int16_t{});
    case DataType::kUint16:
      return at(uint16_t{});
    case DataType::kInt32:
      return at(int32_t{});
    case DataType::kUint32:
      return at(uint32_t{});
    case DataType::kFloat:
      real = static_cast<double>(at(float{}));
      break;
    case DataType::kDouble:
      real = at(double{});
      break;
    default:
      return at(int64_t{});
  }
  if (real != real) return 0;
  if (real >= 0x1p63) return INT64_MAX;
  return real < -0x1p63 ? INT64_MIN : static_cast<int64_t>(real);
}

struct OneHot {
  static Status infer(Context& c) {
    const Shape& in = c.input_shape(0);
    if (in.rank + 1 > kMaxRank) return c.invalid("the result has more than % dimensions", kMaxRank);
    int64_t axis = c.attribute_int("axis", -1);
    ORTOLAN_TRY(resolve_axis(c, &axis, in.rank + 1));
    if (c.input_shape(1).count() != 1 || c.input_shape(2).count() != 2)
      return c.invalid("depth must be one number and values two");
    const int64_t depth = whole_number(c.input_data<void>(1), c.input_type(1), 0);
    if (depth < 0) return c.invalid("depth % is negative", depth);
    Shape shape;
    for (uint32_t i = 0; i <= in.rank; ++i)
      shape.append(i == axis ? depth : in[i - (i > axis ? 1 : 0)]);
    return c.set_output(0, shape);
  }
  template <class Word>
  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    int64_t axis = c.attribute_int("axis", -1);
    normalize_axis(&axis, out.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const int64_t depth = out[at];
    const size_t inner = out.product(at + 1, out.rank), count = c.input_shape(0).count();
    const Loose<Word>* values = c.input_data<Loose<Word>>(2);
    const Word off = values[0], on = values[1];
    Loose<Word>* to = c.output_data<Loose<Word>>(0);
    for (size_t i = 0, n = out.count(); i < n; ++i) to[i] = off;
    for (size_t i = 0; i < count && depth; ++i) {
      int64_t index = whole_number(c.input_data<void>(0), c.input_type(0), i);
      if (!resolve_index(&index, depth)) continue;
      const size_t row = i / inner * static_cast<size_t>(depth) + static_cast<size_t>(index);
      to[row * inner + i % inner] = on;
    }
    return Status::kOk;
  }
};

struct Trilu {
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    if (x.rank < 2) return c.invalid("input 0 of shape % needs 2 dimensions", x.span());
    if (c.has_input(1) && c.input_shape(1).count() != 1) return c.invalid("k must be one number");
    return c.set_output(0, x);
  }
  static Status run(Context& c) {
    constexpr int64_t kFar = int64_t{1} << 61;
    const Shape& x = c.input_shape(0);
    const bool upper = c.attribute_int("upper", 1) != 0;
    const int64_t k = c.has_input(1) ? *c.input_data<Loose<int64_t>>(1) : 0;
    const int64_t diagonal = max(min(k, kFar), -kFar) + (upper ? 0 : 1);
    const int64_t rows = x[x.rank - 2], columns = x[x.rank - 1];
    const size_t width = word_size(c), row_bytes = static_cast<size_t>(columns) * width;
    const char* from = c.input_data<char>(0);
    char* to = c.output_data<char>(0);
    const size_t count = row_bytes ? x.product(0, x.rank - 1) : 0;
    for (size_t r = 0; r < count; ++r, from += row_bytes, to += row_bytes) {
      const int64_t edge = diagonal + static_cast<int64_t>(r % static_cast<size_t>(rows));
      const size_t split = static_cast<size_t>(max<int64_t>(min(edge, columns), 0)) * width;
      const size_t begin = upper ? split : 0, end = upper ? row_bytes : split;
      if (from != to) copy_piece(to + begin, from + begin, end - begin);
      fill_zero(to, begin);
      fill_zero(to + end, row_bytes - end);
    }
    return Status::kOk;
  }
};

// CumSum and CumProd.
template <bool is_product>
struct Cumulation {
  static Status infer(Context& c) {
    if (c.input_shape(1).count() != 1) return c.invalid("axis must be one number");
    if (c.input_shape(0).rank < 1) return c.invalid("input 0 has no dimensions");
    return c.set_output(0, c.input_shape(0));
  }
  // Integers wrap, and so signed ones share the code of unsigned ones.
  template <class T>
  static Status run(Context& c) {
    if constexpr (is_float<T>)
      return scan<T>(c);
    else if constexpr (sizeof(T) == 4)
      return scan<uint32_t>(c);
    else
      return scan<uint64_t>(c);
  }

 private:
  template <class T>
  static T join(T a, T b) {
    if constexpr (is_product)
      return a * b;
    else
      return a + b;
  }
  template <class T>
  static Status scan(Context& c) {
    const Shape& x = c.input_shape(0);
    int64_t axis = IndexReader(c, 1)[0];
    ORTOLAN_TRY(resolve_axis(c, &axis, x.rank));
    if (x.count() == 0) return Status::kOk;
    const uint32_t at = static_cast<uint32_t>(axis);
    const size_t n = static_cast<size_t>(x[at]), inner = x.product(at + 1, x.rank);
    const bool exclusive = c.attribute_int("exclusive", 0) != 0;
    const bool reverse = c.attribute_int("reverse", 0) != 0;
    const Loose<T>* from = c.input_data<Loose<T>>(0);
    Loose<T>* to = c.output_data<Loose<T>>(0);
    for (size_t o = 0, outer = x.product(0, at); o < outer; ++o) {
      size_t previous = 0;
      for (size_t i = 0; i < n; ++i) {
        const size_t row = (o * n + (reverse ? n - 1 - i : i)) * inner;
        const Loose<T>* term = from + (exclusive ? previous : row);
        for (size_t j = 0; j < inner; ++j) {
          if (i == 0)
            to[row + j] = exclusive ? T{is_product} : from[row + j];
          else
            to[row + j] = join<T>(to[previous + j], term[j]);
        }
        previous = row;
      }
    }
    return Status::kOk;
  }
};

struct CumSum : Cumulation<false> {};
struct CumProd : Cumulation<true> {};

// Cuts and fills axes evenly on both sides; an odd rest is at the end.
struct CenterCropPad {
  static Status infer(Context& c) {
    Shape shape = c.input_shape(0);
    int64_t sizes[kMaxRank];
    size_t n = 0;
    uint32_t seen = 0;
    ORTOLAN_TRY(short_list(c, 1, "shape", sizes, &n));
    const Span<const int64_t> axes = c.attribute_ints("axes");
    const bool all = !c.attribute("axes");
    if (n != (all ? shape.rank : axes.size))
      return c.invalid("shape has % entries for % axes", n, all ? shape.rank : axes.size);
    for (size_t i = 0; i < n; ++i) {
      int64_t axis = all ? static_cast<int64_t>(i) : axes[i];
      ORTOLAN_TRY(resolve_new_axis(c, &axis, shape.rank, &seen));
      if (sizes[i] < 0) return c.invalid("shape has the negative dimension %", sizes[i]);
      shape[static_cast<size_t>(axis)] = sizes[i];
    }
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const Dense in = Dense::input(c, 0), out = Dense::output(c, 0);
    const size_t width = word_size(c);
    const char* from = c.input_data<char>(0);
    char* to = c.output_data<char>(0);
    fill_zero(to, c.output_shape(0).count() * width);
    Nest nest;
    for (uint32_t i = 0; i < in.dims.rank; ++i) {
      const int64_t less = in.dims[i] - out.dims[i];
      nest.add(static_cast<size_t>(min(in.dims[i], out.dims[i])), in.strides[i], out.strides[i]);
      const ptrdiff_t each = static_cast<ptrdiff_t>(width);
      if (less > 0)
        from += less / 2 * in.strides[i] * each;
      else
        to += -less / 2 * out.strides[i] * each;
    }
    copy_strided(c, nest, width, from, to);
    return Status::kOk;
  }
};

// All slices of `size` of a dimension, `step` apart, along a new last dimension.
struct UnfoldTensor {
  static Status infer(Context& c) {
    Shape shape = c.input_shape(0);
    int64_t axis = c.attribute_int("dim", -1);
    const int64_t size = c.attribute_int("size", 0), step = c.attribute_int("step", 1);
    if (shape.rank + 1 > kMaxRank)
      return c.invalid("the result has more than % dimensions", kMaxRank);
    ORTOLAN_TRY(resolve_axis(c, &axis, shape.rank));
    int64_t& n = shape[static_cast<size_t>(axis)];
    if (size < 1 || step < 1 || size > n)
      return c.invalid("size % and step % do not fit a dimension of %", size, step, n);
    n = (n - size) / step + 1;
    shape.append(size);
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    int64_t axis = c.attribute_int("dim", -1);
    normalize_axis(&axis, out.rank - 1);
    const Dense in = Dense::input(c, 0), result = Dense::output(c, 0);
    Nest nest;
    for (uint32_t i = 0; i + 1 < out.rank; ++i) {
      const bool is_moved = i == axis && result.size(i) > 1;  // else a step may be any number
      const int64_t step = is_moved ? c.attribute_int("step", 1) : 1;
      nest.add(result.size(i), in.strides[i] * static_cast<ptrdiff_t>(step), result.strides[i]);
    }
    nest.add(result.size(out.rank - 1), in.strides[axis], 1);
    copy_strided(c, nest, word_size(c), c.input_data<void>(0), c.output_data<void>(0));
    return Status::kOk;
  }
};

// Reverses the first sequence_lens[b] steps of each sequence.
struct ReverseSequence {
  static Status infer(Context& c) {
    const Shape &x = c.input_shape(0), &lengths = c.input_shape(1);
    const int64_t batch = c.attribute_int("batch_axis", 1), time = c.attribute_int("time_axis", 0);
    if (x.rank < 2) return c.invalid("input 0 of shape % needs 2 dimensions", x.span());
    if (batch < 0 || batch > 1 || time != 1 - batch)
      return c.invalid("batch_axis % and time_axis % are not 0 and 1", batch, time);
    if (lengths.rank != 1 || lengths[0] != x[static_cast<size_t>(batch)])
      return c.invalid("sequence_lens of shape % do not fit %", lengths.span(), x.span());
    return c.set_output(0, x);
  }
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const bool batch_first = c.attribute_int("batch_axis", 1) == 0;
    const size_t batch = static_cast<size_t>(x[batch_first ? 0 : 1]);
    const size_t steps = static_cast<size_t>(x[batch_first ? 1 : 0]);
    const size_t bytes = x.product(2, x.rank) * word_size(c);
    const Loose<int64_t>* lengths = c.input_data<Loose<int64_t>>(1);
    for (size_t b = 0; b < batch; ++b) {
      if (lengths[b] < 0 || lengths[b] > static_cast<int64_t>(steps))
        return c.invalid("length % of sequence % is outside [0, %]",
                         static_cast<int64_t>(lengths[b]), b, steps);
      const size_t length = static_cast<size_t>(lengths[b]);
      for (size_t t = 0; t < steps && bytes; ++t) {
        const size_t source = t < length ? length - 1 - t : t;
        const auto place = [=](size_t step) {
          return (batch_first ? b * steps + step : step * batch + b) * bytes;
        };
        copy_piece(c.output_data<char>(0) + place(t), c.input_data<char>(0) + place(source), bytes);
      }
    }
    return Status::kOk;
  }
};

// Blocks of pixels and channels into each other.
struct Blocks {
  struct State {
    int64_t size;
    bool channels_first;  // mode CRD
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->size = c.attribute_int("blocksize", 0);
    if (state->size < 1 || state->size > 1 << 15)
      return c.invalid("blocksize % is outside 1 to %", state->size, 1 << 15);
    const String mode = c.attribute_string("mode", "DCR");
    state->channels_first = mode == "CRD";
    if (!state->channels_first && !(mode == "DCR")) return c.invalid("mode \"%\" is unknown", mode);
    return Status::kOk;
  }
  // `deep` has the channels, `wide` the pixels; it is input 0 where `to_space` is false.
  static Status run(Context& c, const Shape& deep, const Shape& wide, bool to_space) {
    const State& s = c.state<State>();
    const ptrdiff_t b = static_cast<ptrdiff_t>(s.size), C = static_cast<ptrdiff_t>(wide[1]);
    const ptrdiff_t H = static_cast<ptrdiff_t>(deep[2]), W = static_cast<ptrdiff_t>(deep[3]);
    if (deep.count() == 0) return Status::kOk;
    const ptrdiff_t plane = H * W, tap = s.channels_first ? plane : C * plane;
    Nest nest;
    const auto add = [&](ptrdiff_t n, ptrdiff_t in_deep, ptrdiff_t in_wide) {
      nest.add(static_cast<size_t>(n), to_space ? in_deep : in_wide, to_space ? in_wide : in_deep);
    };
    add(static_cast<ptrdiff_t>(wide[0]), C * b * b * plane, C * b * b * plane);
    add(C, s.channels_first ? b * b * plane : plane, b * b * plane);
    add(H, W, b * W * b);
    add(b, b * tap, W * b);
    add(W, 1, b);
    add(b, tap, 1);
    copy_strided(c, nest, word_size(c), c.input_data<void>(0), c.output_data<void>(0));
    return Status::kOk;
  }
  static Status check_rank(Context& c) {
    const Shape& x = c.input_shape(0);
    return x.rank == 4 ? Status::kOk : c.invalid("input 0 of shape % needs 4 dimensions", x.span());
  }
};

struct DepthToSpace {
  static Status prepare(Context& c) { return Blocks::prepare(c); }
  static Status infer(Context& c) {
    ORTOLAN_TRY(Blocks::check_rank(c));
    const int64_t b = c.state<Blocks::State>().size;
    Shape x = c.input_shape(0);
    if (x[1] % (b * b)) return c.invalid("% channels are no multiple of % x %", x[1], b, b);
    x[1] /= b * b;
    for (size_t i = 2; i < 4; ++i)
      if (__builtin_mul_overflow(x[i], b, &x[i])) return c.invalid("dimension % is too large", i);
    return c.set_output(0, x);
  }
  static Status run(Context& c) {
    return Blocks::run(c, c.input_shape(0), c.output_shape(0), true);
  }
};

struct SpaceToDepth {
  static Status prepare(Context& c) { return Blocks::prepare(c); }
  static Status infer(Context& c) {
    ORTOLAN_TRY(Blocks::check_rank(c));
    const int64_t b = c.state<Blocks::State>().size;
    Shape x = c.input_shape(0);
    if (x[2] % b || x[3] % b) return c.invalid("the pixels of % are no multiple of %", x.span(), b);
    if (__builtin_mul_overflow(x[1], b * b, &x[1])) return c.invalid("dimension 1 is too large");
    x[2] /= b;
    x[3] /= b;
    return c.set_output(0, x);
  }
  static Status run(Context& c) {
    return Blocks::run(c, c.output_shape(0), c.input_shape(0), false);
  }
};

// Cuts a border off images: [left, top, right, bottom], or a place and a size.
struct Crop {
  static Status infer(Context& c) {
    Shape x = c.input_shape(0);
    const Span<const int64_t> border = c.attribute_ints("border"),
                              scale = c.attribute_ints("scale");
    if (x.rank != 4) return c.invalid("input 0 of shape % needs 4 dimensions", x.span());
    if (border.size != 4 || (!scale.empty() && scale.size != 2))
      return c.invalid("border has % entries and scale %, not 4 and 2", border.size, scale.size);
    for (size_t i = 0; i < 2; ++i) {
      const int64_t size = x[2 + i], before = border[1 - i], after = border[3 - i];
      const bool fits = before >= 0 && before <= size &&
                        (scale.empty() ? after >= 0 && after <= size - before
                                       : scale[i] >= 0 && scale[i] <= size - before);
      if (!fits) return c.invalid("border % does not fit into %", border, c.input_shape(0).span());
      x[2 + i] = scale.empty() ? size - before - after : scale[i];
    }
    return c.set_output(0, x);
  }
  static Status run(Context& c) {
    const Dense in = Dense::input(c, 0), out = Dense::output(c, 0);
    const Span<const int64_t> border = c.attribute_ints("border");
    Nest nest;
    for (uint32_t i = 0; i < 4; ++i) nest.add(out.size(i), in.strides[i], out.strides[i]);
    if (nest.count() == 0) return Status::kOk;
    const ptrdiff_t offset = static_cast<ptrdiff_t>(border[1]) * in.strides[in.place(2)] +
                             static_cast<ptrdiff_t>(border[0]) * in.strides[in.place(3)];
    const size_t width = word_size(c);
    copy_strided(c, nest, width, c.input_data<char>(0) + offset * static_cast<ptrdiff_t>(width),
                 c.output_data<void>(0));
    return Status::kOk;
  }
};

}  // namespace ortolan::portable

#include "indexing.inc"
