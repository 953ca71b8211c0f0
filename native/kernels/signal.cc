// Signals: Fourier transforms, windows, and the weights of mel bands.
#include "kernels/any_number.h"
#include "kernels/fourier.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

// An integer input of one element.
static Status read_integer(Context& c, size_t input, String name, int64_t* value) {
  size_t n = 0;
  if (c.input_ints(input, value, 1, &n) && n == 1) return Status::kOk;
  return c.invalid("% must be one integer", name);
}

// Real or complex numbers, the last dimension being 1 or 2.
static Status check_parts(Context& c, const Shape& x) {
  if (x.rank >= 2 && (x[x.rank - 1] == 1 || x[x.rank - 1] == 2)) return Status::kOk;
  return c.invalid("input 0 of shape % needs a last dimension of 1 or 2", x.span());
}

struct DFT {
  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(make_plan(c, &p));
    request_transform(c, Fourier(static_cast<size_t>(p.length)));
    Shape out = c.input_shape(0);
    out[p.axis] = p.results;
    out[out.rank - 1] = p.is_real ? 1 : 2;
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    Plan p;
    ORTOLAN_TRY(make_plan(c, &p));
    const Shape &in = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    Fourier fourier(static_cast<size_t>(p.length));
    fourier.make_tables(static_cast<Complex*>(c.scratch()));
    const size_t parts = static_cast<size_t>(in[in.rank - 1]);
    const size_t out_parts = static_cast<size_t>(out[out.rank - 1]);
    const size_t inner = in.product(p.axis + 1, in.rank - 1), n = static_cast<size_t>(in[p.axis]);
    const size_t results = static_cast<size_t>(p.results);
    c.parallel(in.product(0, p.axis) * inner, 4096 / fourier.buffer() + 1,
               [&](size_t begin, size_t end, size_t thread) {
                 Complex* x = static_cast<Complex*>(c.thread_scratch(thread));
                 for (size_t i = begin; i < end; ++i) {
                   const size_t outer = i / inner, column = i % inner;
                   const T* from = c.input_data<T>(0) + (outer * n * inner + column) * parts;
                   read(p, from, n, inner * parts, parts == 2, x);
                   p.inverse ? fourier.inverse(x) : fourier.transform(x);
                   T* to = c.output_data<T>(0) + (outer * results * inner + column) * out_parts;
                   for (size_t k = 0; k < results; ++k, to += inner * out_parts) {
                     to[0] = static_cast<T>(x[k].re);
                     if (out_parts == 2) to[1] = static_cast<T>(x[k].im);
                   }
                 }
               });
    return Status::kOk;
  }

 private:
  struct Plan {
    uint32_t axis;
    int64_t length, results;
    bool inverse, is_real;  // of half a spectrum to a real signal
  };
  static Status make_plan(Context& c, Plan* p) {
    const Shape& x = c.input_shape(0);
    ORTOLAN_TRY(check_parts(c, x));
    int64_t axis = c.attribute_int("axis", c.since_version() < 20 ? 1 : -2);
    if (c.has_input(2)) ORTOLAN_TRY(read_integer(c, 2, "axis", &axis));
    ORTOLAN_TRY(resolve_axis(c, &axis, x.rank));
    if (axis == x.rank - 1) return c.invalid("axis % is that of the parts of numbers", axis);
    p->axis = static_cast<uint32_t>(axis);
    p->inverse = c.attribute_int("inverse", 0) != 0;
    const bool onesided = c.attribute_int("onesided", 0) != 0;
    const bool is_complex = x[x.rank - 1] == 2;
    p->is_real = onesided && p->inverse;
    if (onesided && is_complex != p->inverse)
      return c.invalid(p->inverse ? "onesided needs complex numbers for the inverse"
                                  : "onesided needs real numbers");
    const int64_t n = x[p->axis];
    p->length = p->is_real ? 2 * (n - 1) : n;
    if (c.has_input(1)) ORTOLAN_TRY(read_integer(c, 1, "dft_length", &p->length));
    if (p->length < 1 || p->length > kLongestTransform)
      return c.invalid("a length of % is outside 1 to %", p->length, kLongestTransform);
    p->results = onesided && !p->inverse ? p->length / 2 + 1 : p->length;
    return Status::kOk;
  }
  // Cut off or filled with zeros; half a spectrum becomes a whole one.
  template <class T>
  static void read(const Plan& p, const T* from, size_t n, size_t stride, bool is_complex,
                   Complex* x) {
    const size_t length = static_cast<size_t>(p.length);
    for (size_t k = 0; k < length; ++k) {
      const bool mirrored = p.is_real && 2 * k > length;
      const size_t at = mirrored ? length - k : k;
      x[k] = {0, 0};
      if (at >= n) continue;
      x[k].re = static_cast<double>(from[at * stride]);
      if (is_complex) x[k].im = static_cast<double>(from[at * stride + 1]);
      if (mirrored) x[k].im = -x[k].im;
    }
  }
};

struct STFT {
  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(make_plan(c, &p));
    request_transform(c, Fourier(static_cast<size_t>(p.length)));
    Shape out;
    const int64_t dims[] = {c.input_shape(0)[0], p.frames, p.bins, 2};
    for (int64_t dim : dims) out.append(dim);
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    Plan p;
    ORTOLAN_TRY(make_plan(c, &p));
    const Shape &in = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const size_t length = static_cast<size_t>(p.length), bins = static_cast<size_t>(p.bins);
    const size_t frames = static_cast<size_t>(p.frames), parts = static_cast<size_t>(in[2]);
    Fourier fourier(length);
    fourier.make_tables(static_cast<Complex*>(c.scratch()));
    const T* window = c.has_input(2) ? c.input_data<T>(2) : nullptr;
    c.parallel(static_cast<size_t>(in[0]) * frames, 4096 / fourier.buffer() + 1,
               [&](size_t begin, size_t end, size_t thread) {
                 Complex* x = static_cast<Complex*>(c.thread_scratch(thread));
                 for (size_t i = begin; i < end; ++i) {
                   const size_t first = i / frames * static_cast<size_t>(in[1]) +
                                        i % frames * static_cast<size_t>(p.step);
                   const T* from = c.input_data<T>(0) + first * parts;
                   for (size_t k = 0; k < length; ++k) {
                     const double weight = window ? static_cast<double>(window[k]) : 1;
                     x[k].re = static_cast<double>(from[k * parts]) * weight;
                     x[k].im = parts == 2 ? static_cast<double>(from[k * parts + 1]) * weight : 0;
                   }
                   fourier.transform(x);
                   T* to = c.output_data<T>(0) + i * bins * 2;
                   for (size_t k = 0; k < bins; ++k) {
                     to[2 * k] = static_cast<T>(x[k].re);
                     to[2 * k + 1] = static_cast<T>(x[k].im);
                   }
                 }
               });
    return Status::kOk;
  }

 private:
  struct Plan {
    int64_t step, length, frames, bins;
  };
  static Status make_plan(Context& c, Plan* p) {
    const Shape& x = c.input_shape(0);
    ORTOLAN_TRY(check_parts(c, x));
    if (x.rank != 3) return c.invalid("input 0 of shape % needs 3 dimensions", x.span());
    const bool onesided = c.attribute_int("onesided", 1) != 0;
    if (onesided && x[2] == 2) return c.invalid("onesided needs a real signal");
    ORTOLAN_TRY(read_integer(c, 1, "frame_step", &p->step));
    p->length = x[1];
    if (c.has_input(2)) {
      if (c.input_shape(2).rank != 1) return c.invalid("the window needs one dimension");
      p->length = c.input_shape(2)[0];
    }
    if (c.has_input(3)) ORTOLAN_TRY(read_integer(c, 3, "frame_length", &p->length));
    if (c.has_input(2) && c.input_shape(2)[0] != p->length)
      return c.invalid("a window of % does not fit frame_length %", c.input_shape(2)[0], p->length);
    if (p->step < 1 || p->length < 1 || p->length > x[1] || p->length > kLongestTransform)
      return c.invalid("frames of % with step % do not fit a signal of %", p->length, p->step,
                       x[1]);
    p->frames = (x[1] - p->length) / p->step + 1;
    p->bins = onesided ? p->length / 2 + 1 : p->length;
    return Status::kOk;
  }
};

// a0 - a1 cos(2 pi k / n) + a2 cos(4 pi k / n)
static Status infer_window(Context& c) {
  int64_t size = 0;
  ORTOLAN_TRY(read_integer(c, 0, "size", &size));
  if (size < 0) return c.invalid("size % is negative", size);
  Shape shape;
  shape.append(size);
  return c.set_output(0, shape);
}
static Status fill_window(Context& c, double a0, double a1, double a2) {
  const size_t size = c.output_shape(0).count();
  const double n = static_cast<double>(size) - (c.attribute_int("periodic", 1) != 0 ? 0 : 1);
  for (size_t k = 0; k < size; ++k) {
    const double angle = 6.283185307179586477 * static_cast<double>(k) / n;
    write_number(c.output_data<void>(0), c.output_type(0), k,
                 a0 - a1 * math::cos(angle) + a2 * math::cos(2 * angle));
  }
  return Status::kOk;
}
struct HannWindow {
  static Status infer(Context& c) { return infer_window(c); }
  static Status run(Context& c) { return fill_window(c, 0.5, 0.5, 0); }
};
struct HammingWindow {
  static Status infer(Context& c) { return infer_window(c); }
  static Status run(Context& c) { return fill_window(c, 25.0 / 46, 21.0 / 46, 0); }
};
struct BlackmanWindow {
  static Status infer(Context& c) { return infer_window(c); }
  static Status run(Context& c) { return fill_window(c, 0.42, 0.5, 0.08); }
};

// Triangles over the bins of a spectrum, evenly spaced on the mel scale.
struct MelWeightMatrix {
  static Status infer(Context& c) {
    int64_t bands = 0, length = 0;
    ORTOLAN_TRY(read_integer(c, 0, "num_mel_bins", &bands));
    ORTOLAN_TRY(read_integer(c, 1, "dft_length", &length));
    if (bands < 1 || length < 1 || bands > kLongestTransform || length > kLongestTransform)
      return c.invalid("% bands of a transform of % are not possible", bands, length);
    for (size_t i = 2; i < 5; ++i)
      if (c.input_shape(i).count() != 1) return c.invalid("input % must be one number", i);
    Shape shape;
    shape.append(length / 2 + 1);
    shape.append(bands);
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const auto number = [&](size_t i) {
      return read_number(c.input_data<void>(i), c.input_type(i), 0);
    };
    const double length = number(1), rate = number(2);
    const double low = mel(number(3)), high = mel(number(4));
    if (!(rate > 0) || !(low > -1e9 && low <= high && high < 1e9))
      return c.invalid("sample_rate is not positive, or the edges are not in order");
    const Shape& shape = c.output_shape(0);
    const int64_t bins = shape[0], bands = shape[1];
    fill_zero(c.output_data<void>(0), shape.count() * element_size(c.output_type(0)));
    const double step = (high - low) / static_cast<double>(bands + 2);
    const auto bin = [&](int64_t i) {
      const double at = low + static_cast<double>(i) * step;
      const double hertz = 700 * (math::pow(10.0, at / 2595) - 1);
      return static_cast<int64_t>(math::floor(min((length + 1) * hertz / rate, 1e9)));
    };
    const auto put = [&](int64_t j, int64_t band, double value) {
      if (j >= 0 && j < bins)
        write_number(c.output_data<void>(0), c.output_type(0),
                     static_cast<size_t>(j * bands + band), value);
    };
    for (int64_t i = 0; i < bands; ++i) {
      const int64_t from = bin(i), peak = bin(i + 1), to = bin(i + 2);
      if (from == peak) put(peak, i, 1);
      for (int64_t j = max<int64_t>(from, 0); j <= min(peak, bins) && from != peak; ++j)
        put(j, i, static_cast<double>(j - from) / static_cast<double>(peak - from));
      for (int64_t j = max<int64_t>(peak, 0); j < min(to, bins); ++j)
        put(j, i, static_cast<double>(to - j) / static_cast<double>(to - peak));
    }
    return Status::kOk;
  }

 private:
  static double mel(double hertz) {
    return 2595 * math::log(1 + hertz / 700) / 2.302585092994045684;
  }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END

#include "signal.inc"
