// Operators that speak of shapes, or whose result has the bytes of their input under another shape.
#include "core/context.h"
#include "kernels/narrow.h"

namespace ortolan::portable {

namespace {

// What remains for a view when the executor could not share the bytes.
Status copy_bytes(Context& c) {
  const void* from = c.input_data<void>(0);
  void* to = c.output_data<void>(0);
  const size_t bytes = c.output_shape(0).count() * element_size(c.output_type(0));
  if (from != to && bytes) copy(to, from, bytes);
  return Status::kOk;
}

Status set_view(Context& c, const Shape& shape) {
  ORTOLAN_TRY(c.set_output(0, shape));
  c.alias(0, 0);
  return Status::kOk;
}

// Axes named by input 1 or, in old versions, by an attribute, as a bit set over `rank` dimensions.
Status read_axes(Context& c, uint32_t rank, bool may_repeat, uint32_t* set) {
  *set = 0;
  int64_t values[kMaxRank];
  size_t count = 0;
  if (c.has_input(1)) {
    if (!c.input_ints(1, values, kMaxRank, &count))
      return c.invalid("axes must be at most % integers", kMaxRank);
  } else {
    const Span<const int64_t> axes = c.attribute_ints("axes");
    if (axes.size > kMaxRank) return c.invalid("axes must be at most % integers", kMaxRank);
    for (int64_t axis : axes) values[count++] = axis;
  }
  for (size_t i = 0; i < count; ++i) {
    int64_t axis = values[i];
    if (!normalize_axis(&axis, rank))
      return c.invalid("axis % is outside the rank %", values[i], rank);
    if (!may_repeat && *set >> axis & 1) return c.invalid("axis % comes twice", values[i]);
    *set |= 1u << axis;
  }
  return Status::kOk;
}

}  // namespace

struct Identity {
  static Status infer(Context& c) { return set_view(c, c.input_shape(0)); }
  static Status run(Context& c) { return copy_bytes(c); }
};

// The same bytes as another type. A bool must be 0 or 1, and so it is no view.
struct BitCast {
  static Status infer(Context& c) {
    const size_t from = bits_of(c.input_type(0)), to = bits_of(c.output_type(0));
    if (from != to) return c.invalid("elements of % bits cannot become elements of %", from, to);
    return set_result(c, c.output_type(0) == DataType::kBool);
  }
  static Status run(Context& c) {
    if (c.output_type(0) != DataType::kBool) return copy_bytes(c);
    const uint8_t* from = c.input_data<uint8_t>(0);
    uint8_t* to = c.output_data<uint8_t>(0);
    for (size_t i = 0, n = c.output_shape(0).count(); i < n; ++i) to[i] = from[i] != 0;
    return Status::kOk;
  }

 private:
  static size_t bits_of(DataType type) {
    if (type == DataType::kFloat4E2M1) return 4;
    const int small = small_integer_bits(type);
    return small ? static_cast<size_t>(small) : 8 * element_size(type);
  }
  static Status set_result(Context& c, bool is_bool) {
    return is_bool ? c.set_output(0, c.input_shape(0)) : set_view(c, c.input_shape(0));
  }
};

struct Reshape {
  static Status infer(Context& c) {
    const Shape& input = c.input_shape(0);
    Shape shape;
    size_t rank = 0;
    if (!c.input_ints(1, shape.dims, kMaxRank, &rank))
      return c.invalid("shape must be at most % int64 values", kMaxRank);
    shape.rank = static_cast<uint32_t>(rank);
    const bool keeps_zero = c.attribute_int("allowzero", 0) != 0;
    int unknown = -1;
    size_t known = 1;
    for (uint32_t i = 0; i < shape.rank; ++i) {
      if (shape[i] == -1) {
        if (unknown >= 0) return c.invalid("shape % has more than one -1", shape.span());
        unknown = static_cast<int>(i);
        continue;
      }
      if (shape[i] < 0) return c.invalid("shape has the negative dimension %", shape[i]);
      if (shape[i] == 0 && !keeps_zero) {
        if (i >= input.rank)
          return c.invalid("shape has 0 at %, but the input has rank %", i, input.rank);
        shape[i] = input[i];
      }
      known *= static_cast<size_t>(shape[i]);  // wraps at worst: set_output refuses such shapes
    }
    const size_t count = input.count();
    if (unknown >= 0) {
      if (known == 0 || count % known) return mismatch(c, shape);
      shape[static_cast<size_t>(unknown)] = static_cast<int64_t>(count / known);
    } else if (shape.count() != count) {
      return mismatch(c, shape);
    }
    return set_view(c, shape);
  }
  static Status run(Context& c) { return copy_bytes(c); }

 private:
  static Status mismatch(Context& c, const Shape& shape) {
    return c.invalid("cannot reshape % to %", c.input_shape(0).span(), shape.span());
  }
};

struct Flatten {
  static Status infer(Context& c) {
    const Shape& input = c.input_shape(0);
    int64_t axis = c.attribute_int("axis", 1);
    const int64_t rank = input.rank;
    if (axis < -rank || axis > rank)
      return c.invalid("axis % is outside the rank %", axis, input.rank);
    if (axis < 0) axis += rank;
    const uint32_t split = static_cast<uint32_t>(axis);
    Shape shape;
    shape.append(static_cast<int64_t>(input.product(0, split)));
    shape.append(static_cast<int64_t>(input.product(split, input.rank)));
    return set_view(c, shape);
  }
  static Status run(Context& c) { return copy_bytes(c); }
};

struct Squeeze {
  static Status infer(Context& c) {
    const Shape& input = c.input_shape(0);
    uint32_t set = 0;
    ORTOLAN_TRY(read_axes(c, input.rank, true, &set));
    const bool all = set == 0;
    Shape shape;
    for (uint32_t i = 0; i < input.rank; ++i) {
      if (set >> i & 1 && input[i] != 1)
        return c.invalid("cannot squeeze axis % of %: it is not 1", i, input.span());
      if (!(set >> i & 1) && !(all && input[i] == 1)) shape.append(input[i]);
    }
    return set_view(c, shape);
  }
  static Status run(Context& c) { return copy_bytes(c); }
};

struct Unsqueeze {
  static Status infer(Context& c) {
    const Shape& input = c.input_shape(0);
    uint32_t set = 0;
    const uint32_t rank = input.rank + axis_count(c);
    if (rank > kMaxRank) return c.invalid("the result has more than % dimensions", kMaxRank);
    ORTOLAN_TRY(read_axes(c, rank, false, &set));
    Shape shape;
    for (uint32_t i = 0, next = 0; i < rank; ++i) shape.append(set >> i & 1 ? 1 : input[next++]);
    return set_view(c, shape);
  }
  static Status run(Context& c) { return copy_bytes(c); }

 private:
  static uint32_t axis_count(Context& c) {
    const size_t n = c.has_input(1) ? c.input_shape(1).count() : c.attribute_ints("axes").size;
    return static_cast<uint32_t>(min<size_t>(n, kMaxRank + 1));
  }
};

// Inference: the data passes through and the mask, where asked for, says that nothing was dropped.
struct Dropout {
  static Status infer(Context& c) {
    if (training(c) && ratio(c) != 0)
      return c.fail(Status::kNotImplemented, "training mode drops elements only with ratio 0");
    ORTOLAN_TRY(set_view(c, c.input_shape(0)));
    return c.has_output(1) ? c.set_output(1, c.input_shape(0)) : Status::kOk;
  }
  static Status run(Context& c) { return copy_and_mask(c, true); }

 protected:
  static Status copy_and_mask(Context& c, bool kept) {
    ORTOLAN_TRY(copy_bytes(c));
    const size_t bytes =
        c.has_output(1) ? c.output_shape(1).count() * element_size(c.output_type(1)) : 0;
    if (bytes) __builtin_memset(c.output_data<char>(1), kept ? 1 : 0, bytes);
    return Status::kOk;
  }

 private:
  static bool training(Context& c) {
    return c.has_input(2) && c.input_shape(2).count() == 1 && *c.input_data<uint8_t>(2) != 0;
  }
  static double ratio(Context& c) {
    if (!c.has_input(1) || c.input_shape(1).count() != 1) return 0.5;
    return c.input_type(1) == DataType::kDouble ? *c.input_data<double>(1)
                                                : *c.input_data<float>(1);
  }
};

// Before version 12 the mask's contents are open; onnxruntime writes zeros of the mask's type.
struct DropoutWithoutMode : Dropout {
  static Status run(Context& c) { return copy_and_mask(c, false); }
};

struct ShapeOf {
  static Status infer(Context& c) {
    int64_t begin = 0, end = 0;
    range(c, &begin, &end);
    Shape shape;
    shape.append(end - begin);
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    int64_t begin = 0, end = 0;
    range(c, &begin, &end);
    int64_t* out = c.output_data<int64_t>(0);
    for (int64_t i = begin; i < end; ++i) *out++ = c.input_shape(0)[static_cast<size_t>(i)];
    return Status::kOk;
  }

 private:
  static int64_t clamp(int64_t value, int64_t rank) {
    return min(max<int64_t>(value < 0 ? value + rank : value, 0), rank);
  }
  static void range(Context& c, int64_t* begin, int64_t* end) {
    const int64_t rank = c.input_shape(0).rank;
    *begin = clamp(c.attribute_int("start", 0), rank);
    *end = max(*begin, clamp(c.attribute_int("end", rank), rank));
  }
};

struct Size {
  static Status infer(Context& c) { return c.set_output(0, Shape()); }
  static Status run(Context& c) {
    *c.output_data<int64_t>(0) = static_cast<int64_t>(c.input_shape(0).count());
    return Status::kOk;
  }
};

struct ConstantOfShape {
  static Status infer(Context& c) {
    Shape shape;
    size_t rank = 0;
    if (!c.input_ints(0, shape.dims, kMaxRank, &rank))
      return c.invalid("the shape must be at most % int64 values", kMaxRank);
    shape.rank = static_cast<uint32_t>(rank);
    const Attribute* value = c.attribute("value");
    if (value && (value->kind != AttributeKind::kTensor || value->tensor.shape.count() != 1 ||
                  value->tensor.type != c.output_type(0)))
      return c.invalid("attribute value must be a tensor of one element");
    return c.set_output(0, shape);
  }
  template <class Word>
  static Status run(Context& c) {
    Word word = 0;  // also the bits of the default, the float 0
    if (const Attribute* value = c.attribute("value"))
      copy(&word, value->tensor.data, sizeof(Word));
    typedef Word Loose __attribute__((may_alias));
    Loose* out = c.output_data<Loose>(0);
    for (size_t i = 0, n = c.output_shape(0).count(); i < n; ++i) out[i] = word;
    return Status::kOk;
  }
};

}  // namespace ortolan::portable

#include "shape_ops.inc"
