// com.microsoft's operators on 8-bit integers: what an operator of one operand can give is looked
// up in a table of 256 results; sums are taken of integers and scaled once.
#include "core/math.h"
#include "kernels/integer_conv.h"

namespace ortolan::ORTOLAN_ISA {

namespace {

// A quantized operand, with the sign bit flipped where it is int8.
struct Coded {
  const uint8_t* data;
  float scale;
  int zero;
  uint8_t flip;

  Coded(const Context& c, size_t data_at, size_t scale_at, size_t zero_at)
      : data(c.input_data<uint8_t>(data_at)), scale(*c.input_data<float>(scale_at)) {
    const Bytes bytes = input_bytes(c, zero_at, c.input_type(data_at));
    zero = bytes[0];
    flip = bytes.flip;
  }
  int difference(uint8_t code) const { return (code ^ flip) - zero; }
  float real(uint8_t code) const { return static_cast<float>(difference(code)) * scale; }
};

// From numbers to the output.
struct Coder {
  ToByte to;
  float scale;

  Coder(const Context& c, size_t scale_at, size_t zero_at) : scale(*c.input_data<float>(scale_at)) {
    const DataType type = c.output_type(0);
    const Bytes bytes = input_bytes(c, zero_at, type);
    to = ToByte(type, bytes[0] - bytes.flip);
  }
  uint8_t operator()(float x) const { return to(x / scale); }
};

Status check_singles(const Context& c, Span<const uint8_t> inputs) {
  for (uint8_t i : inputs) ORTOLAN_TRY(check_one(c, i));
  return Status::kOk;
}

// Inputs: X, its scale and zero point, those of Y.
Status infer_unary(Context& c) {
  constexpr uint8_t kSingles[] = {1, 2, 3, 4};
  ORTOLAN_TRY(check_singles(c, {kSingles, 4}));
  return c.set_output(0, c.input_shape(0));
}

template <class Function>
void fill_table(const Coded& x, const Coder& y, uint8_t* table, const Function& f) {
#pragma clang loop vectorize(disable) unroll(disable)
  for (int code = 0; code < 256; ++code) table[code] = y(f(x.real(static_cast<uint8_t>(code))));
}

void look_up(const uint8_t* table, const uint8_t* from, size_t n, uint8_t* to) {
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < n; ++i) to[i] = table[from[i]];
}

template <class Function>
Status run_unary(Context& c, const Function& f) {
  const Coded x(c, 0, 1, 2);
  uint8_t table[256];
  fill_table(x, Coder(c, 3, 4), table, f);
  c.parallel(c.output_shape(0).count(), 1 << 16, [&](size_t begin, size_t end, size_t) {
    look_up(table, x.data + begin, end - begin, c.output_data<uint8_t>(0) + begin);
  });
  return Status::kOk;
}

}  // namespace

struct QLinearSigmoid {
  static Status infer(Context& c) { return infer_unary(c); }
  static Status run(Context& c) {
    return run_unary(c, [](float x) { return 1 / (1 + math::exp(-x)); });
  }
};

struct QLinearLeakyRelu {
  static Status infer(Context& c) { return infer_unary(c); }
  static Status run(Context& c) {
    const float alpha = c.attribute_float("alpha", 0.01f);
    return run_unary(c, [=](float x) { return x < 0 ? x * alpha : x; });
  }
};

// Up to opset 12 over all dimensions from the axis on, then over one.
struct QLinearSoftmax {
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    int64_t axis = c.attribute_int("axis", -1);
    if (x.rank && !normalize_axis(&axis, x.rank))
      return c.invalid("axis % is outside the rank %", axis, x.rank);
    return infer_unary(c);
  }
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    int64_t axis = c.attribute_int("axis", -1);
    const Coded from(c, 0, 1, 2);
    const Coder to(c, 3, 4);
    size_t outer = 1, length = 1, inner = 1;
    if (x.rank) {
      normalize_axis(&axis, x.rank);
      const uint32_t a = static_cast<uint32_t>(axis);
      const bool is_one = c.attribute_int("opset", 13) >= 13;
      outer = x.product(0, a);
      length = is_one ? static_cast<size_t>(x[a]) : x.product(a, x.rank);
      inner = is_one ? x.product(a + 1, x.rank) : 1;
    }
    if (!length || !inner) return Status::kOk;
    float powers[256];  // e^(-k scale)
    for (int k = 0; k < 256; ++k) powers[k] = math::exp(static_cast<float>(-k) * from.scale);
    c.parallel(outer * inner, (1 << 14) / length + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i)
        run_line(from, to, powers, (i / inner * length) * inner + i % inner, length, inner,
                 c.output_data<uint8_t>(0));
    });
    return Status::kOk;
  }

 private:
  static void run_line(const Coded& x, const Coder& to, const float* powers, size_t at, size_t n,
                       size_t step, uint8_t* y) {
    int most = 0;
    for (size_t i = 0; i < n; ++i) most = max(most, x.data[at + i * step] ^ x.flip);
    float sum = 0;
    for (size_t i = 0; i < n; ++i) sum += powers[most - (x.data[at + i * step] ^ x.flip)];
    for (size_t i = 0; i < n; ++i)
      y[at + i * step] = to(powers[most - (x.data[at + i * step] ^ x.flip)] / sum);
  }
};

// Inputs: condition, X, its scale and zero point, Y likewise, those of the output.
struct QLinearWhere {
  static constexpr uint8_t kOperands[] = {0, 1, 4};

  static Status infer(Context& c) {
    Shape out;
    for (uint8_t k : kOperands) {
      const Shape& in = c.input_shape(k);
      Shape wider;
      wider.rank = max(out.rank, in.rank);
      for (uint32_t i = 0; i < wider.rank; ++i) {
        const int64_t a = dimension(out, i, wider.rank), b = dimension(in, i, wider.rank);
        if (a != b && a != 1 && b != 1)
          return c.invalid("input % of shape % does not broadcast with %", k, in.span(),
                           out.span());
        wider[i] = a == 1 ? b : a;
      }
      out = wider;
    }
    constexpr uint8_t kSingles[] = {2, 3, 5, 6, 7, 8};
    ORTOLAN_TRY(check_singles(c, {kSingles, 6}));
    return c.set_output(0, out);
  }
  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    size_t steps[3][kMaxRank];
    for (int k = 0; k < 3; ++k) {
      const Shape& in = c.input_shape(kOperands[k]);
      size_t step = 1;
      for (uint32_t i = out.rank; i-- > 0;) {
        const int64_t n = dimension(in, i, out.rank);
        steps[k][i] = n == 1 ? 0 : step;
        step *= static_cast<size_t>(n);
      }
    }
    const Coder to(c, 7, 8);
    const Coded x(c, 1, 2, 3), y(c, 4, 5, 6);
    uint8_t tables[2][256];
    fill_table(x, to, tables[0], [](float v) { return v; });
    fill_table(y, to, tables[1], [](float v) { return v; });
    const auto* condition = c.input_data<uint8_t>(0);
    c.parallel(out.count(), 1 << 14, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        size_t at[3] = {}, rest = i;
        for (uint32_t d = out.rank; d-- > 0;) {
          const size_t n = static_cast<size_t>(out[d]), index = rest % n;
          rest /= n;
          for (int k = 0; k < 3; ++k) at[k] += index * steps[k][d];
        }
        c.output_data<uint8_t>(0)[i] =
            condition[at[0]] ? tables[0][x.data[at[1]]] : tables[1][y.data[at[2]]];
      }
    });
    return Status::kOk;
  }

 private:
  static int64_t dimension(const Shape& shape, uint32_t i, uint32_t rank) {
    const uint32_t missing = rank - shape.rank;
    return i < missing ? 1 : shape[i - missing];
  }
};

// Inputs: the output's scale and zero point, then a tensor, its scale and zero point, and so on. A
// tensor may be float.
struct QLinearConcat {
  static Status infer(Context& c) {
    const size_t n = c.input_count();
    if (n < 5 || n % 3 != 2)
      return c.invalid("it has % inputs: each tensor needs a scale and a zero point", n);
    Shape out = c.input_shape(2);
    int64_t axis = c.attribute_int("axis", 0);
    if (!normalize_axis(&axis, out.rank))
      return c.invalid("axis % is outside the rank %", axis, out.rank);
    out[axis] = 0;
    for (size_t i = 2; i < n; ++i)
      if (c.input(i).layers) return c.invalid("input % is no tensor", i);
    for (size_t i = 2; i < n; i += 3) {
      ORTOLAN_TRY(check_operand(c, i));
      const Shape& in = c.input_shape(i);
      bool fits = in.rank == out.rank;
      for (uint32_t d = 0; fits && d < in.rank; ++d) fits = d == axis || in[d] == out[d];
      if (!fits)
        return c.invalid("input % of shape % does not fit % but for axis %", i, in.span(),
                         c.input_shape(2).span(), axis);
      if (__builtin_add_overflow(out[axis], in[axis], &out[axis]))
        return c.fail(Status::kLimitExceeded, "the result is too long");
    }
    constexpr uint8_t kSingles[] = {0, 1};
    ORTOLAN_TRY(check_singles(c, {kSingles, 2}));
    return c.set_output(0, out);
  }
  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    int64_t axis = c.attribute_int("axis", 0);
    normalize_axis(&axis, out.rank);
    const uint32_t a = static_cast<uint32_t>(axis);
    const Coder to(c, 0, 1);
    const size_t row = out.product(a, out.rank), rows = out.product(0, a);
    auto* y = c.output_data<uint8_t>(0);
    for (size_t i = 2; i < c.input_count(); i += 3) {
      const size_t n = c.input_shape(i).product(a, out.rank);
      if (c.input_type(i) == DataType::kFloat) {
        const float* x = c.input_data<float>(i);
        for (size_t r = 0; r < rows; ++r)
          for (size_t k = 0; k < n; ++k) y[r * row + k] = to(x[r * n + k]);
      } else {
        uint8_t table[256];
        const Coded x(c, i, i + 1, i + 2);
        fill_table(x, to, table, [](float v) { return v; });
        for (size_t r = 0; r < rows; ++r) look_up(table, x.data + r * n, n, y + r * row);
      }
      y += n;
    }
    return Status::kOk;
  }

 private:
  static Status check_operand(const Context& c, size_t i) {
    const DataType type = c.input_type(i), zero = c.input_type(i + 2);
    const bool is_byte = type == DataType::kUint8 || type == DataType::kInt8;
    if (type != DataType::kFloat && (!is_byte || zero != type))
      return c.invalid("input % is %, its zero point %", i, type_name(type), type_name(zero));
    if (c.input_type(i + 1) != DataType::kFloat)
      return c.invalid("input %, a scale, is %", i + 1, type_name(c.input_type(i + 1)));
    ORTOLAN_TRY(check_one(c, i + 1));
    return check_one(c, i + 2);
  }
};

namespace {

// Images [N, C, ...], or [N, ..., C] with the attribute channels_last.
struct Images {
  Shape logical;  // [N, C, ...]
  bool is_last;
  size_t channels, channel_step, pixel_step;

  explicit Images(const Context& c) : logical(c.input_shape(0)) {
    is_last = c.attribute_int("channels_last", 0) != 0;
    const uint32_t last = logical.rank - 1;
    if (is_last) {
      const int64_t n = logical[last];
      for (uint32_t i = last; i > 1; --i) logical[i] = logical[i - 1];
      logical[1] = n;
    }
    channels = static_cast<size_t>(logical[1]);
    pixel_step = is_last ? channels : 1;
  }
  Shape physical(Shape shape) const {
    if (!is_last) return shape;
    const int64_t n = shape[1];
    for (uint32_t i = 1; i + 1 < shape.rank; ++i) shape[i] = shape[i + 1];
    shape[shape.rank - 1] = n;
    return shape;
  }
  // Elements from the start to the first pixel of channel `ch` of image `n`.
  size_t offset(size_t n, size_t ch, size_t pixels) const {
    return n * channels * pixels + ch * (is_last ? 1 : pixels);
  }
};

Status check_images(const Context& c) {
  const Shape& x = c.input_shape(0);
  if (x.rank < 3) return c.invalid("input 0 of shape % has no spatial dimensions", x.span());
  return Status::kOk;
}

}  // namespace

struct QLinearGlobalAveragePool {
  static Status infer(Context& c) {
    ORTOLAN_TRY(check_images(c));
    const Images images(c);
    Shape out = images.logical;
    for (uint32_t i = 2; i < out.rank; ++i) out[i] = 1;
    constexpr uint8_t kSingles[] = {1, 2, 3, 4};
    ORTOLAN_TRY(check_singles(c, {kSingles, 4}));
    return c.set_output(0, images.physical(out));
  }
  static Status run(Context& c) {
    const Images images(c);
    const size_t pixels = images.logical.product(2, images.logical.rank);
    const size_t planes = static_cast<size_t>(images.logical[0]) * images.channels;
    const Coded x(c, 0, 1, 2);
    const Coder to(c, 3, 4);
    c.parallel(planes, (1 << 16) / (pixels + 1) + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t p = begin; p < end; ++p) {
        const uint8_t* from =
            x.data + images.offset(p / images.channels, p % images.channels, pixels);
        int64_t sum = 0;
        for (size_t i = 0; i < pixels; ++i) sum += x.difference(from[i * images.pixel_step]);
        c.output_data<uint8_t>(0)[p] =
            to.to(static_cast<float>(sum) * (x.scale / (to.scale * static_cast<float>(pixels))));
      }
    });
    return Status::kOk;
  }
};

struct QLinearAveragePool {
  static Status prepare(Context& c) {
    auto* s = c.make_state<WindowAttributes>();
    if (!s) return c.out_of_memory();
    const Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
    if (kernel.empty() || kernel.size > 3)
      return c.fail(Status::kNotImplemented, "kernel_shape must have 1 to 3 entries, not %",
                    kernel.size);
    s->rank = static_cast<uint32_t>(kernel.size);
    for (size_t i = 0; i < kernel.size; ++i) s->kernel[i] = kernel[i];
    s->ceil_mode = c.attribute_int("ceil_mode", 0) != 0;
    return read_window(c, s);
  }
  static Status infer(Context& c) {
    ORTOLAN_TRY(check_images(c));
    const Images images(c);
    Shape out = images.logical;
    Window window;
    ptrdiff_t after[3];
    ORTOLAN_TRY(place_window(c, c.state<WindowAttributes>(), images.logical, &out, &window, after));
    constexpr uint8_t kSingles[] = {1, 2, 3, 4};
    ORTOLAN_TRY(check_singles(c, {kSingles, 4}));
    return c.set_output(0, images.physical(out));
  }
  static Status run(Context& c) {
    const Images images(c);
    Shape out = images.logical;
    Window w;
    ptrdiff_t after[3] = {};  // nothing behind dimensions that the input lacks
    ORTOLAN_TRY(place_window(c, c.state<WindowAttributes>(), images.logical, &out, &w, after));
    const bool counts_padding = c.attribute_int("count_include_pad", 0) != 0;
    const size_t planes = static_cast<size_t>(out[0]) * images.channels;
    const Coded x(c, 0, 1, 2);
    const Coder to(c, 3, 4);
    const size_t out_pixels = w.out_pixels(), in_pixels = w.in_pixels();
    const size_t work = max<size_t>(out_pixels * w.taps(), 1);  // it may go over: a hint
    const size_t grain = (1 << 14) / work + 1;
    c.parallel(planes, grain, [&](size_t begin, size_t end, size_t) {
      for (size_t p = begin; p < end; ++p) {
        const size_t n = p / images.channels, ch = p % images.channels;
        const uint8_t* from = x.data + images.offset(n, ch, in_pixels);
        uint8_t* y = c.output_data<uint8_t>(0) + images.offset(n, ch, out_pixels);
        for (size_t i = 0; i < out_pixels; ++i)
          y[i * images.pixel_step] =
              average(x, to, w, after, counts_padding, i, from, images.pixel_step);
      }
    });
    return Status::kOk;
  }

 private:
  static uint8_t average(const Coded& x, const Coder& to, const Window& w, const ptrdiff_t* after,
                         bool counts_padding, size_t pixel, const uint8_t* from, size_t step) {
    const size_t at[3] = {pixel / (w.out[1] * w.out[2]), pixel / w.out[2] % w.out[1],
                          pixel % w.out[2]};
    ptrdiff_t first[3], last[3];
    float counted = 1;
    for (int d = 0; d < 3; ++d) {
      const auto size = static_cast<ptrdiff_t>(w.in[d]);
      const ptrdiff_t start = static_cast<ptrdiff_t>(at[d] * w.stride[d]) - w.pad[d];
      const ptrdiff_t end = start + static_cast<ptrdiff_t>(w.kernel[d]);
      first[d] = max<ptrdiff_t>(start, 0);
      last[d] = min(end, size);
      counted *= static_cast<float>(counts_padding ? min(end, size + after[d]) - start
                                                   : max<ptrdiff_t>(last[d] - first[d], 0));
    }
    int64_t sum = 0;
    for (ptrdiff_t i = first[0]; i < last[0]; ++i)
      for (ptrdiff_t j = first[1]; j < last[1]; ++j)
        for (ptrdiff_t k = first[2]; k < last[2]; ++k) {
          const size_t row = static_cast<size_t>(i) * w.in[1] + static_cast<size_t>(j);
          sum += x.difference(from[(row * w.in[2] + static_cast<size_t>(k)) * step]);
        }
    return to(static_cast<float>(sum) * x.scale / max(counted, 1.f));
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "quantized_microsoft.inc"
