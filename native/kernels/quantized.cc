// Quantized tensors: conversions, and products and convolutions of 8-bit integers.
#include "core/math.h"
#include "kernels/integer_conv.h"
#include "kernels/integer_matmul.h"
#include "kernels/quantize.h"
#include "kernels/quantize_any.h"

namespace ortolan::ORTOLAN_ISA {

namespace {

Status infer_scaled(Context& c) {
  QuantizedRows q;
  ORTOLAN_TRY(place_scales(c, &q));
  return c.set_output(0, c.input_shape(0));
}

// Scales of an output: `count` of them, or one for all.
struct Scales {
  const float* data;
  size_t count;

  Scales(const Context& c, size_t i)
      : data(c.input_data<float>(i)), count(c.input_shape(i).count()) {}
  ORTOLAN_INLINE float operator[](size_t i) const { return data[count == 1 ? 0 : i % count]; }
};

int32_t zero_point(const Context& c, size_t i, DataType type) {
  const Bytes zero = input_bytes(c, i, type);
  return zero[0] - zero.flip;
}

ORTOLAN_INLINE int32_t wrapping_sum(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

}  // namespace

struct QuantizeLinear {
  static Status prepare(Context& c) {
    const int64_t precision = c.attribute_int("precision", 0);
    constexpr uint32_t kKnown = type_bit(DataType::kUndefined) | type_bit(DataType::kFloat) |
                                type_bit(DataType::kFloat16) | type_bit(DataType::kBfloat16);
    if (precision < 0 || precision >= kDataTypes || !(kKnown >> precision & 1))
      return c.fail(Status::kNotImplemented, "precision % is not supported", precision);
    const int64_t type = c.attribute_int("output_dtype", 0);
    if (type != 0 && type != static_cast<int64_t>(c.output_type(0)))
      return c.invalid("output_dtype % is not the type of the zero point", type);
    return Status::kOk;
  }
  static Status infer(Context& c) { return infer_scaled(c); }
  static Status run(Context& c) { return quantize_any(c); }
  template <class X, class Y>
  static Status run(Context& c) {
    const int64_t precision = c.attribute_int("precision", 0);
    if (c.input_type(1) != DataType::kFloat || precision > static_cast<int64_t>(DataType::kFloat))
      return quantize_any(c);
    QuantizedRows q;
    ORTOLAN_TRY(place_scales(c, &q));
    const Y* zero = c.has_input(2) ? c.input_data<Y>(2) : nullptr;
    for_each_row(c, q, [&](size_t begin, size_t n, size_t scale, bool each) {
      quantize_row(c.input_data<X>(0) + begin, n, c.input_data<float>(1) + scale,
                   zero ? zero + scale : nullptr, each, c.output_data<Y>(0) + begin);
    });
    return Status::kOk;
  }
};

struct DequantizeLinear {
  static Status infer(Context& c) { return infer_scaled(c); }
  static Status run(Context& c) { return dequantize_any(c); }
  template <class X>
  static Status run(Context& c) {
    if (c.input_type(1) != DataType::kFloat) return dequantize_any(c);
    QuantizedRows q;
    ORTOLAN_TRY(place_scales(c, &q));
    const X* zero = c.has_input(2) ? c.input_data<X>(2) : nullptr;
    for_each_row(c, q, [&](size_t begin, size_t n, size_t scale, bool each) {
      dequantize_row(c.input_data<X>(0) + begin, n, c.input_data<float>(1) + scale,
                     zero ? zero + scale : nullptr, each, c.output_data<float>(0) + begin);
    });
    return Status::kOk;
  }
};

struct DynamicQuantizeLinear {
  static Status infer(Context& c) {
    ORTOLAN_TRY(c.set_output(0, c.input_shape(0)));
    ORTOLAN_TRY(c.set_output(1, Shape()));
    return c.set_output(2, Shape());
  }
  static Status run(Context& c) {
    const float* x = c.input_data<float>(0);
    const size_t n = c.input_shape(0).count();
    const Range range = find_range(x, n);
    const uint8_t zero = static_cast<uint8_t>(range.zero);
    *c.output_data<float>(1) = range.scale;
    *c.output_data<uint8_t>(2) = zero;
    c.parallel(n, 1 << 16, [&](size_t begin, size_t end, size_t) {
      quantize_row(x + begin, end - begin, &range.scale, &zero, false,
                   c.output_data<uint8_t>(0) + begin);
    });
    return Status::kOk;
  }
};

// Products whose operand A is there as 8-bit integers; finish as run_integer_matmul calls it.
template <const IntegerPlaces& kAt>
struct IntegerMatMulBase {
  static Status prepare(Context& c) {
    auto* s = c.make_state<IntegerMatMulState>();
    if (!s) return c.out_of_memory();
    return prepare_integer_b(c, kAt, s);
  }

 protected:
  static Status infer_product(Context& c, IntegerMatMul* m, size_t scratch_before = 0) {
    Shape out;
    ORTOLAN_TRY(plan_integer_matmul(c, kAt, m, &out));
    ORTOLAN_TRY(c.set_output(0, out));
    request_integer_scratch(c, *m, scratch_before);
    return Status::kOk;
  }
  template <class Finish>
  static Status run_product(Context& c, const Finish& finish) {
    IntegerMatMul m;
    Shape out;
    ORTOLAN_TRY(plan_integer_matmul(c, kAt, &m, &out));
    const size_t columns = m.product.N;
    run_integer_matmul(
        c, m, c.input_data<uint8_t>(kAt.a), input_bytes(c, kAt.zero_a, c.input_type(kAt.a)),
        c.input_data<uint8_t>(kAt.b), input_bytes(c, kAt.zero_b, c.input_type(kAt.b)), c.scratch(),
        [&](size_t row, size_t column, size_t count, const int32_t* sums, size_t b_column) {
          finish(row * columns + column, count, sums, column, b_column);
        });
    return Status::kOk;
  }
  // One element, one for each column, or one for each column of each matrix B.
  static Status check_columns(const Context& c, size_t i, const IntegerMatMul& m) {
    const size_t n = c.input_shape(i).count(), columns = m.product.N;
    if (n == 1 || n == columns || n == m.b_matrices * columns) return Status::kOk;
    return c.invalid("input % has % elements for % columns", i, n, columns);
  }
};

constexpr IntegerPlaces kMatMulInteger = {0, 1, 2, 3};
struct MatMulInteger : IntegerMatMulBase<kMatMulInteger> {
  static Status infer(Context& c) {
    IntegerMatMul m;
    return infer_product(c, &m);
  }
  static Status run(Context& c) {
    return run_product(c, [&](size_t at, size_t count, const int32_t* sums, size_t, size_t) {
      copy(c.output_data<int32_t>(0) + at, sums, count * sizeof(int32_t));
    });
  }
};

constexpr IntegerPlaces kQLinearMatMul = {0, 3, 2, 5};
struct QLinearMatMul : IntegerMatMulBase<kQLinearMatMul> {
  static Status infer(Context& c) {
    IntegerMatMul m;
    ORTOLAN_TRY(infer_product(c, &m));
    constexpr size_t kSingle[] = {1, 6, 7};
    for (size_t i : kSingle) ORTOLAN_TRY(check_one(c, i));
    return check_columns(c, 4, m);
  }
  static Status run(Context& c) {
    const float scale_a = *c.input_data<float>(1), scale_y = *c.input_data<float>(6);
    const Scales scale_b(c, 4);
    const ToByte quantize(c.output_type(0), zero_point(c, 7, c.output_type(0)));
    uint8_t* y = c.output_data<uint8_t>(0);
    return run_product(
        c, [&](size_t at, size_t count, const int32_t* sums, size_t, size_t b_column) {
          for (size_t j = 0; j < count; ++j)
            y[at + j] =
                quantize(static_cast<float>(sums[j]) * (scale_a * scale_b[b_column + j] / scale_y));
        });
  }
};

// Float results: the sums, scaled by a factor for A and one for each column, and a bias.
template <const IntegerPlaces& kAt, size_t kScaleB, size_t kBias>
struct ScaledMatMul : IntegerMatMulBase<kAt> {
 protected:
  static Status check(Context& c, const IntegerMatMul& m) {
    const size_t n = c.has_input(kBias) ? c.input_shape(kBias).count() : m.product.N;
    if (n != m.product.N) return c.invalid("the bias has % elements, % are needed", n, m.product.N);
    return IntegerMatMulBase<kAt>::check_columns(c, kScaleB, m);
  }
  // What run_integer_matmul calls.
  struct Finish {
    float scale_a;
    Scales scale_b;
    const float* bias;
    float* y;
    size_t columns;

    Finish(const Context& c, float scale, size_t n)
        : scale_a(scale), scale_b(c, kScaleB), y(c.output_data<float>(0)), columns(n) {
      bias = c.has_input(kBias) ? c.input_data<float>(kBias) : nullptr;
    }
    void operator()(size_t row, size_t column, size_t count, const int32_t* sums,
                    size_t b_column) const {
      float* to = y + row * columns + column;
      for (size_t j = 0; j < count; ++j)
        to[j] = static_cast<float>(sums[j]) * (scale_a * scale_b[b_column + j]) +
                (bias ? bias[column + j] : 0);
    }
  };
};

constexpr IntegerPlaces kMatMulIntegerToFloat = {0, 1, 4, 5};
struct MatMulIntegerToFloat : ScaledMatMul<kMatMulIntegerToFloat, 3, 6> {
  static Status infer(Context& c) {
    IntegerMatMul m;
    ORTOLAN_TRY(infer_product(c, &m));
    ORTOLAN_TRY(check_one(c, 2));
    return check(c, m);
  }
  static Status run(Context& c) {
    IntegerMatMul m;
    Shape out;
    ORTOLAN_TRY(plan_integer_matmul(c, kMatMulIntegerToFloat, &m, &out));
    run_integer_matmul(c, m, c.input_data<uint8_t>(0), input_bytes(c, 4, c.input_type(0)),
                       c.input_data<uint8_t>(1), input_bytes(c, 5, c.input_type(1)), c.scratch(),
                       Finish(c, *c.input_data<float>(2), m.product.N));
    return Status::kOk;
  }
};

// A is float and becomes uint8 by its own range; it has no zero point as an input.
constexpr size_t kNoInput = SIZE_MAX;
constexpr IntegerPlaces kDynamicQuantizeMatMul = {0, 1, kNoInput, 3};
struct DynamicQuantizeMatMul : ScaledMatMul<kDynamicQuantizeMatMul, 2, 4> {
  static Status infer(Context& c) {
    IntegerMatMul m;
    ORTOLAN_TRY(infer_product(c, &m, round_up(c.input_shape(0).count(), kAlignment)));
    return check(c, m);
  }
  static Status run(Context& c) {
    IntegerMatMul m;
    Shape out;
    ORTOLAN_TRY(plan_integer_matmul(c, kDynamicQuantizeMatMul, &m, &out));
    const float* x = c.input_data<float>(0);
    const size_t n = c.input_shape(0).count();
    const Range range = find_range(x, n);
    const uint8_t zero = static_cast<uint8_t>(range.zero);
    auto* a = static_cast<uint8_t*>(c.scratch());
    c.parallel(n, 1 << 16, [&](size_t begin, size_t end, size_t) {
      quantize_row(x + begin, end - begin, &range.scale, &zero, false, a + begin);
    });
    run_integer_matmul(c, m, a, Bytes{&zero, 1, 0}, c.input_data<uint8_t>(1),
                       input_bytes(c, 3, c.input_type(1)), a + round_up(n, kAlignment),
                       Finish(c, range.scale, m.product.N));
    return Status::kOk;
  }
};

constexpr ConvPlaces kConvInteger = {0, 1, 2, 3};
struct ConvInteger {
  static Status prepare(Context& c) { return prepare_integer_conv(c, kConvInteger); }
  static Status infer(Context& c) {
    IntegerConv v;
    Shape out;
    ORTOLAN_TRY(plan_integer_conv(c, kConvInteger, &v, &out));
    request_conv_scratch(c, v);
    return c.set_output(0, out);
  }
  static Status run(Context& c) {
    IntegerConv v;
    Shape out;
    ORTOLAN_TRY(plan_integer_conv(c, kConvInteger, &v, &out));
    run_integer_conv(c, kConvInteger, v, [&](size_t, const int32_t* sums, size_t at, size_t n) {
      copy(c.output_data<int32_t>(0) + at, sums, n * sizeof(int32_t));
    });
    return Status::kOk;
  }
};

constexpr ConvPlaces kQLinearConv = {0, 3, 2, 5};
struct QLinearConv {
  static Status prepare(Context& c) {
    if (c.attribute_int("channels_last", 0) != 0)  // the importer turns such images around
      return c.fail(Status::kNotImplemented, "channels_last is not supported");
    return prepare_integer_conv(c, kQLinearConv);
  }
  static Status infer(Context& c) {
    IntegerConv v;
    Shape out;
    ORTOLAN_TRY(plan_integer_conv(c, kQLinearConv, &v, &out));
    constexpr size_t kSingle[] = {1, 6, 7};
    for (size_t i : kSingle) ORTOLAN_TRY(check_one(c, i));
    ORTOLAN_TRY(check_one(c, 4, v.outputs));
    if (c.has_input(8) && c.input_shape(8).count() != v.outputs)
      return c.invalid("the bias has % elements, % are needed", c.input_shape(8).count(),
                       v.outputs);
    request_conv_scratch(c, v);
    return c.set_output(0, out);
  }
  static Status run(Context& c) {
    IntegerConv v;
    Shape out;
    ORTOLAN_TRY(plan_integer_conv(c, kQLinearConv, &v, &out));
    const float scale_x = *c.input_data<float>(1), scale_y = *c.input_data<float>(6);
    const Scales scale_w(c, 4);
    const ToByte quantize(c.output_type(0), zero_point(c, 7, c.output_type(0)));
    const int32_t* bias = c.has_input(8) ? c.input_data<int32_t>(8) : nullptr;
    uint8_t* y = c.output_data<uint8_t>(0);
    run_integer_conv(c, kQLinearConv, v, [&](size_t o, const int32_t* sums, size_t at, size_t n) {
      const float scale = scale_x * scale_w[o] / scale_y;
      const int32_t add = bias ? bias[o] : 0;
      for (size_t j = 0; j < n; ++j)
        y[at + j] = quantize(static_cast<float>(wrapping_sum(sums[j], add)) * scale);
    });
    return Status::kOk;
  }
};

namespace {

// Two quantized operands that broadcast. Inputs: A, its scale and zero point, B likewise, C's.
struct QuantizedPair {
  Shape out;
  size_t steps_a[kMaxRank] = {}, steps_b[kMaxRank] = {};  // elements from index to index

  size_t offset(const size_t (&steps)[kMaxRank], size_t row) const {
    size_t found = 0;
    for (uint32_t i = out.rank - 1; i-- > 0;) {
      const size_t dim = static_cast<size_t>(out[i]);
      found += row % dim * steps[i];
      row /= dim;
    }
    return found;
  }
};

Status plan_pair(const Context& c, QuantizedPair* p) {
  const Shape &a = c.input_shape(0), &b = c.input_shape(3);
  p->out.rank = max(a.rank, b.rank);
  size_t count_a = 1, count_b = 1;
  for (uint32_t i = p->out.rank; i-- > 0;) {
    const uint32_t back = p->out.rank - i;
    const int64_t dim_a = back <= a.rank ? a[a.rank - back] : 1;
    const int64_t dim_b = back <= b.rank ? b[b.rank - back] : 1;
    if (dim_a != dim_b && dim_a != 1 && dim_b != 1)
      return c.invalid("shapes % and % do not broadcast", a.span(), b.span());
    p->out[i] = dim_a == 1 ? dim_b : dim_a;
    p->steps_a[i] = dim_a == 1 ? 0 : count_a;
    p->steps_b[i] = dim_b == 1 ? 0 : count_b;
    count_a *= static_cast<size_t>(dim_a);
    count_b *= static_cast<size_t>(dim_b);
  }
  return Status::kOk;
}

Status infer_pair(Context& c) {
  QuantizedPair p;
  ORTOLAN_TRY(plan_pair(c, &p));
  constexpr size_t kSingle[] = {1, 2, 4, 5, 6, 7};
  for (size_t i : kSingle) ORTOLAN_TRY(check_one(c, i));
  return c.set_output(0, p.out);
}

// f(a, b) takes differences from the zero points and gives the result in units of C's scale.
template <class Function>
ORTOLAN_INLINE Status run_pair(Context& c, const Function& f) {
  QuantizedPair p;
  ORTOLAN_TRY(plan_pair(c, &p));
  if (!p.out.count()) return Status::kOk;
  const DataType type = c.output_type(0);
  const Bytes zero_a = input_bytes(c, 2, type), zero_b = input_bytes(c, 5, type);
  const int za = zero_a[0], zb = zero_b[0], flip = zero_a.flip;
  const ToByte quantize(type, zero_point(c, 7, type));
  const uint32_t last = p.out.rank ? p.out.rank - 1 : 0;
  const size_t length = p.out.rank ? static_cast<size_t>(p.out[last]) : 1;
  const size_t step_a = p.steps_a[last], step_b = p.steps_b[last];
  auto run_row = [&](size_t row) {
    const uint8_t* a = c.input_data<uint8_t>(0) + (last ? p.offset(p.steps_a, row) : 0);
    const uint8_t* b = c.input_data<uint8_t>(3) + (last ? p.offset(p.steps_b, row) : 0);
    uint8_t* y = c.output_data<uint8_t>(0) + row * length;
    auto compute = [&](size_t sa, size_t sb) {
      for (size_t i = 0; i < length; ++i)
        y[i] = quantize(f(static_cast<float>((a[i * sa] ^ flip) - za),
                          static_cast<float>((b[i * sb] ^ flip) - zb)));
    };
    if (step_a && step_b)
      compute(1, 1);
    else
      compute(step_a, step_b);
  };
  c.parallel(p.out.count() / length, max<size_t>((1 << 16) / length, 1),
             [&](size_t begin, size_t end, size_t) {
               for (size_t row = begin; row < end; ++row) run_row(row);
             });
  return Status::kOk;
}

}  // namespace

struct QLinearAdd {
  static Status infer(Context& c) { return infer_pair(c); }
  static Status run(Context& c) {
    const float scale = *c.input_data<float>(6);
    const float factor_a = *c.input_data<float>(1) / scale;
    const float factor_b = *c.input_data<float>(4) / scale;
    return run_pair(c, [=](float a, float b) { return a * factor_a + b * factor_b; });
  }
};

struct QLinearMul {
  static Status infer(Context& c) { return infer_pair(c); }
  static Status run(Context& c) {
    const float scale = *c.input_data<float>(6);
    const float factor = *c.input_data<float>(1) * *c.input_data<float>(4) / scale;
    return run_pair(c, [=](float a, float b) { return a * b * factor; });
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "quantized.inc"
