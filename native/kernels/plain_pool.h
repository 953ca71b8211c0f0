// Pools of plain images that are seldom used (LpPool, and com.microsoft's MaxpoolWithMask and
// NhwcMaxPool), and what turns windows back into images: MaxUnpool, Col2Im.
#pragma once

#include "core/math.h"
#include "kernels/any_number.h"
#include "kernels/window.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

struct PlainPool {
  struct State {
    WindowAttributes window;
    double p = 2;
  };

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    if (const Attribute* p = c.attribute("p"))
      s->p =
          p->kind == AttributeKind::kFloat ? static_cast<double>(p->f) : static_cast<double>(p->i);
    if (!(s->p > 0)) return c.invalid("p is not positive");
    const Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
    if (kernel.empty() || kernel.size > 3)
      return c.fail(Status::kNotImplemented, "kernel_shape must have 1 to 3 entries, not %",
                    kernel.size);
    s->window.rank = static_cast<uint32_t>(kernel.size);
    for (size_t i = 0; i < kernel.size; ++i) s->window.kernel[i] = kernel[i];
    s->window.ceil_mode = c.attribute_int("ceil_mode", 0) != 0;
    return read_window(c, &s->window);
  }

  // The window over an input of logical shape `in`.
  static Status place(Context& c, const Shape& in, Shape* out, Window* window) {
    ptrdiff_t after[3];
    *out = in;
    return place_window(c, c.state<State>().window, in, out, window, after);
  }

  // The pixels [z][y][x] of an output pixel's window.
  struct Reach {
    TapRange taps[3];
    Reach(const Window& w, size_t pixel)
        : taps{tap_range(w, 0, pixel / (w.out[1] * w.out[2])),
               tap_range(w, 1, pixel / w.out[2] % w.out[1]), tap_range(w, 2, pixel % w.out[2])} {}
    // Calls body(first, count, step) with places in a plane for each row of it.
    template <class Body>
    void rows(const Window& w, Body body) const {
      const TapRange& x = taps[2];
      if (x.begin >= x.end) return;
      for (size_t kz = taps[0].begin; kz < taps[0].end; ++kz)
        for (size_t ky = taps[1].begin; ky < taps[1].end; ++ky) {
          const size_t z = at(w, 0, kz), y = at(w, 1, ky);
          body((z * w.in[1] + y) * w.in[2] + at(w, 2, x.begin), x.end - x.begin, w.dilation[2]);
        }
    }
    size_t at(const Window& w, int d, size_t tap) const {
      return static_cast<size_t>(taps[d].start + static_cast<ptrdiff_t>(tap * w.dilation[d]));
    }
  };

  // Calls body(plane, pixel) for every output pixel of every plane.
  template <class Body>
  static void each(Context& c, const Window& w, size_t planes, Body body) {
    const size_t pixels = w.out_pixels(), work = w.taps();
    if (planes * pixels == 0) return;
    c.parallel(planes * pixels, 16384 / work + 1, [=](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) body(i / pixels, i % pixels);
    });
  }
};

// The p-norm of each window.
struct LpPool {
  static Status prepare(Context& c) { return PlainPool::prepare(c); }
  static Status infer(Context& c) {
    Shape out;
    Window w;
    ORTOLAN_TRY(PlainPool::place(c, c.input_shape(0), &out, &w));
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    Shape out;
    Window w;
    ORTOLAN_TRY(PlainPool::place(c, c.input_shape(0), &out, &w));
    const double p = c.state<PlainPool::State>().p;
    const T* x = c.input_data<T>(0);
    T* y = c.output_data<T>(0);
    PlainPool::each(c, w, out.product(0, 2), [=](size_t plane, size_t pixel) {
      const T* from = x + plane * w.in_pixels();
      double sum = 0;
      PlainPool::Reach(w, pixel).rows(
          w, [&](size_t first, size_t n, size_t step) { sum += powers(from + first, n, step, p); });
      y[plane * w.out_pixels() + pixel] = static_cast<T>(root(sum, p));
    });
    return Status::kOk;
  }

  template <class T>
  static double powers(const T* x, size_t n, size_t step, double p) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
      const double size = math::abs(static_cast<double>(x[i * step]));
      sum += p == 2 ? size * size : p == 1 ? size : math::pow(size, p);
    }
    return sum;
  }
  static double root(double sum, double p) {
    return p == 2 ? math::sqrt(sum) : p == 1 ? sum : math::pow(sum, 1 / p);
  }
};

struct GlobalLpPool {
  static Status infer(Context& c) {
    Shape out = c.input_shape(0);
    if (out.rank < 3) return c.invalid("input 0 of shape % has no spatial dimensions", out.span());
    for (uint32_t i = 2; i < out.rank; ++i) out[i] = 1;
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const Attribute* a = c.attribute("p");
    double p = 2;
    if (a) p = a->kind == AttributeKind::kFloat ? a->f : static_cast<double>(a->i);
    if (!(p > 0)) return c.invalid("p is not positive");
    const size_t pixels = x.product(2, x.rank);
    for (size_t i = 0, n = x.product(0, 2); i < n; ++i)
      c.output_data<T>(0)[i] = static_cast<T>(
          LpPool::root(LpPool::powers(c.input_data<T>(0) + i * pixels, pixels, 1, p), p));
    return Status::kOk;
  }
};

// A row of a window ends at the first pixel whose mask is 0. With more than one spatial dimension
// the mask of the first pixel of all does not count, as in onnxruntime.
struct MaxpoolWithMask {
  static Status prepare(Context& c) { return PlainPool::prepare(c); }
  static Status infer(Context& c) {
    const Shape &x = c.input_shape(0), &mask = c.input_shape(1);
    Shape out;
    Window w;
    ORTOLAN_TRY(PlainPool::place(c, x, &out, &w));
    bool fits = mask.rank == x.rank && mask[0] > 0 && mask[1] > 0;
    for (uint32_t i = 2; i < x.rank && fits; ++i) fits = mask[i] == x[i];
    if (!fits) return c.invalid("a mask of shape % does not fit %", mask.span(), x.span());
    return c.set_output(0, out);
  }
  static Status run(Context& c) {
    Shape out;
    Window w;
    ORTOLAN_TRY(PlainPool::place(c, c.input_shape(0), &out, &w));
    const float* x = c.input_data<float>(0);
    const int32_t* masks = c.input_data<int32_t>(1);
    float* y = c.output_data<float>(0);
    const size_t mask_planes = c.input_shape(1).product(0, 2);
    const bool keeps_first = out.rank > 3;
    PlainPool::each(c, w, out.product(0, 2), [=](size_t plane, size_t pixel) {
      const float* from = x + plane * w.in_pixels();
      const int32_t* mask = masks + plane % mask_planes * w.in_pixels();
      float most = -__FLT_MAX__;
      PlainPool::Reach(w, pixel).rows(w, [&](size_t first, size_t n, size_t step) {
        for (size_t at = first; n > 0 && (mask[at] || (keeps_first && at == 0)); --n, at += step)
          most = max(most, from[at]);
      });
      y[plane * w.out_pixels() + pixel] = most;
    });
    return Status::kOk;
  }
};

// MaxPool of [N][spatial...][C].
struct NhwcMaxPool {
  static Status prepare(Context& c) { return PlainPool::prepare(c); }
  static Status infer(Context& c) {
    Shape out;
    Window w;
    ORTOLAN_TRY(place(c, &out, &w));
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    Shape out;
    Window w;
    ORTOLAN_TRY(place(c, &out, &w));
    const size_t channels = static_cast<size_t>(out[out.rank - 1]);
    const T* x = c.input_data<T>(0);
    T* y = c.output_data<T>(0);
    PlainPool::each(c, w, channels ? static_cast<size_t>(out[0]) : 0, [=](size_t n, size_t pixel) {
      const T* from = x + n * w.in_pixels() * channels;
      T* to = y + (n * w.out_pixels() + pixel) * channels;
      for (size_t k = 0; k < channels; ++k) to[k] = lowest<T>();
      PlainPool::Reach(w, pixel).rows(w, [&](size_t first, size_t count, size_t step) {
        for (size_t i = 0; i < count; ++i)
          for (size_t k = 0; k < channels; ++k)
            to[k] = max(to[k], from[(first + i * step) * channels + k]);
      });
    });
    return Status::kOk;
  }

 private:
  static Status place(Context& c, Shape* out, Window* w) {
    const Shape& x = c.input_shape(0);
    if (x.rank < 3) return c.invalid("input 0 of shape % has no spatial dimensions", x.span());
    Shape in = x, result;
    in[1] = x[x.rank - 1];
    for (uint32_t i = 2; i < x.rank; ++i) in[i] = x[i - 1];
    ORTOLAN_TRY(PlainPool::place(c, in, &result, w));
    *out = x;
    for (uint32_t i = 2; i < x.rank; ++i) (*out)[i - 1] = result[i];
    return Status::kOk;
  }
};

// Puts each element where its index says, into zeros. Indices count in the shape that the window
// gives; a larger output_shape has that shape in its first corner.
struct MaxUnpool {
  static Status prepare(Context& c) { return PlainPool::prepare(c); }
  static Status infer(Context& c) {
    Shape inner;
    ORTOLAN_TRY(inner_shape(c, &inner));
    if (!c.has_input(2)) return c.set_output(0, inner);
    Shape out;
    size_t rank = 0;
    if (!c.input_ints(2, out.dims, kMaxRank, &rank) || rank != inner.rank)
      return c.invalid("output_shape must be % integers", inner.rank);
    out.rank = static_cast<uint32_t>(rank);
    for (uint32_t i = 0; i < out.rank; ++i)
      if (out[i] < inner[i])
        return c.invalid("output_shape % is less than %", out.span(), inner.span());
    return c.set_output(0, out);
  }
  static Status run(Context& c) {
    Shape inner;
    ORTOLAN_TRY(inner_shape(c, &inner));
    const Shape& out = c.output_shape(0);
    const size_t width = word_size(c), places = inner.count();
    const int64_t* indices = c.input_data<int64_t>(1);
    char* to = c.output_data<char>(0);
    fill_zero(to, out.count() * width);
    for (size_t i = 0, n = c.input_shape(0).count(); i < n; ++i) {
      if (indices[i] < 0 || static_cast<size_t>(indices[i]) >= places)
        return c.invalid("index % is outside a shape of %", indices[i], inner.span());
      size_t rest = static_cast<size_t>(indices[i]), place = 0, stride = 1;
      for (uint32_t d = out.rank; d-- > 0;) {
        place += rest % static_cast<size_t>(inner[d]) * stride;
        rest /= static_cast<size_t>(inner[d]);
        stride *= static_cast<size_t>(out[d]);
      }
      copy_piece(to + place * width, c.input_data<char>(0) + i * width, width);
    }
    return Status::kOk;
  }

 private:
  static Status inner_shape(Context& c, Shape* inner) {
    const WindowAttributes& w = c.state<PlainPool::State>().window;
    *inner = c.input_shape(0);
    if (inner->rank != w.rank + 2 || !(c.input_shape(1) == *inner))
      return c.invalid("inputs of shapes % and % do not fit a window of % dimensions",
                       inner->span(), c.input_shape(1).span(), w.rank);
    for (uint32_t i = 0; i < w.rank; ++i) {
      int64_t& dim = (*inner)[2 + i];
      if (dim > kWindowLimit) return c.fail(Status::kLimitExceeded, "input 0 is too large");
      dim = max<int64_t>((dim - 1) * w.stride[i] - w.pad_begin[i] - w.pad_end[i] + w.kernel[i], 0);
    }
    return Status::kOk;
  }
};

// Adds up blocks [N][C * block...][L] where they lie in images [N][C][image...].
struct Col2Im {
  static Status infer(Context& c) {
    Axes axes;
    ORTOLAN_TRY(read(c, &axes));
    const Shape& x = c.input_shape(0);
    int64_t block = 1, windows = 1;
    for (uint32_t i = 0; i < axes.rank; ++i) {
      if (__builtin_mul_overflow(block, axes.block[i], &block) ||
          __builtin_mul_overflow(windows, axes.windows[i], &windows))
        return c.fail(Status::kLimitExceeded, "the blocks are too large");
    }
    if (x.rank != 3 || block == 0 || x[1] % block != 0 || x[2] != windows)
      return c.invalid("input 0 of shape % does not fit blocks of % elements at % places", x.span(),
                       block, windows);
    Shape out;
    out.append(x[0]);
    out.append(x[1] / block);
    for (uint32_t i = 0; i < axes.rank; ++i) out.append(axes.image[i]);
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    return add<Wrapped<T>>(c);
  }

 private:
  struct Axes {
    uint32_t rank = 0;
    int64_t image[kMaxRank], block[kMaxRank], windows[kMaxRank];
    int64_t stride[kMaxRank], dilation[kMaxRank], pad[kMaxRank];
  };
  static Status read(Context& c, Axes* a) {
    size_t n = 0, m = 0;
    if (!c.input_ints(1, a->image, kMaxRank - 2, &n) || !c.input_ints(2, a->block, n, &m) ||
        n != m || n == 0)
      return c.invalid("image_shape and block_shape must be as many integers, 1 to %",
                       kMaxRank - 2);
    a->rank = static_cast<uint32_t>(n);
    const Span<const int64_t> strides = c.attribute_ints("strides"),
                              pads = c.attribute_ints("pads");
    const Span<const int64_t> dilations = c.attribute_ints("dilations");
    if ((!strides.empty() && strides.size != n) || (!dilations.empty() && dilations.size != n) ||
        (!pads.empty() && pads.size != 2 * n))
      return c.invalid("strides, dilations or pads do not fit % dimensions", n);
    for (uint32_t i = 0; i < n; ++i) {
      a->stride[i] = strides.empty() ? 1 : strides[i];
      a->dilation[i] = dilations.empty() ? 1 : dilations[i];
      a->pad[i] = pads.empty() ? 0 : pads[i];
      const int64_t after = pads.empty() ? 0 : pads[n + i];
      const int64_t numbers[] = {a->image[i],    a->block[i], a->stride[i],
                                 a->dilation[i], a->pad[i],   after};
      for (int64_t number : numbers)
        if (number < 0 || number > kWindowLimit)
          return c.invalid("% is outside 0 to %", number, kWindowLimit);
      if (a->stride[i] < 1 || a->dilation[i] < 1)
        return c.invalid("strides and dilations must be positive");
      const int64_t reach = (a->block[i] - 1) * a->dilation[i] + 1;
      const int64_t room = a->image[i] + a->pad[i] + after - reach;
      a->windows[i] = room < 0 ? 0 : room / a->stride[i] + 1;
    }
    return Status::kOk;
  }
  template <class T>
  ORTOLAN_NOINLINE static Status add(Context& c) {
    Axes a;
    ORTOLAN_TRY(read(c, &a));
    const Shape &x = c.input_shape(0), &out = c.output_shape(0);
    const size_t windows = static_cast<size_t>(x[2]), plane = out.product(2, out.rank);
    fill_zero(c.output_data<void>(0), out.count() * sizeof(T));
    if (x.count() == 0 || plane == 0) return Status::kOk;
    const size_t taps = static_cast<size_t>(x[1] / out[1]);
    const uint32_t last = a.rank - 1;
    const size_t columns = static_cast<size_t>(a.windows[last]);
    c.parallel(out.product(0, 2), 16384 / (taps * windows) + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t p = begin; p < end; ++p) {
                   const Loose<T>* from = c.input_data<Loose<T>>(0) + p * taps * windows;
                   Loose<T>* to = c.output_data<Loose<T>>(0) + p * plane;
                   for (size_t tap = 0; tap < taps; ++tap)
                     for (size_t i = 0; i < windows; i += columns, from += columns) {
                       size_t place = 0;
                       if (find(a, tap / a.block[last], i / columns, &place))
                         add_row<T>(a, tap % a.block[last], from, to + place * a.image[last]);
                     }
                 }
               });
    return Status::kOk;
  }
  // One row of windows along the last axis.
  template <class T>
  static void add_row(const Axes& a, size_t tap, const Loose<T>* from, Loose<T>* to) {
    const uint32_t last = a.rank - 1;
    int64_t at = static_cast<int64_t>(tap) * a.dilation[last] - a.pad[last];
    for (int64_t i = 0; i < a.windows[last]; ++i, at += a.stride[last])
      if (at >= 0 && at < a.image[last]) to[at] = static_cast<T>(to[at] + from[i]);
  }
  // The row of the image that a row of a block lies in; false when in the padding.
  static bool find(const Axes& a, size_t tap, size_t window, size_t* place) {
    size_t stride = 1;
    for (uint32_t d = a.rank - 1; d-- > 0;) {
      const size_t block = static_cast<size_t>(a.block[d]), n = static_cast<size_t>(a.windows[d]);
      const int64_t at = static_cast<int64_t>(window % n) * a.stride[d] - a.pad[d] +
                         static_cast<int64_t>(tap % block) * a.dilation[d];
      if (at < 0 || at >= a.image[d]) return false;
      *place += static_cast<size_t>(at) * stride;
      stride *= static_cast<size_t>(a.image[d]);
      tap /= block;
      window /= n;
    }
    return true;
  }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END
