// Operators that bring regions of images to one size: RoiAlign, MaxRoiPool, and com.microsoft's
// CropAndResize. Images are [N][C][H][W].
#pragma once

#include "kernels/any_number.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

// Four pixels and their weights.
template <class T>
struct Corners {
  size_t offset[4];
  T weight[4];
};

// One axis of them: the pixels on both sides of a place and the weight of the second.
template <class T>
struct Sides {
  size_t low, high;
  T weight;
};

// Of a place that is within an axis, but for the rounding of large numbers.
template <class T>
Sides<T> sides_of(T at, int64_t size) {
  const size_t last = static_cast<size_t>(size) - 1, low = min(static_cast<size_t>(at), last);
  return {low, min(low + 1, last), at - static_cast<T>(low)};
}

template <class T>
Corners<T> corners(const Sides<T>& y, const Sides<T>& x, size_t width) {
  const T v = 1 - y.weight, u = 1 - x.weight;
  return {{y.low * width + x.low, y.low * width + x.high, y.high * width + x.low,
           y.high * width + x.high},
          {v * u, v * x.weight, y.weight * u, y.weight * x.weight}};
}

// The number of an image as a region names it.
inline Status check_image(const Context& c, int64_t index, size_t region) {
  const int64_t images = c.input_shape(0)[0];
  if (index >= 0 && index < images) return Status::kOk;
  return c.invalid("region % is of image %, of % images", region, index, images);
}

inline Status infer_regions(Context& c, int64_t columns, int64_t height, int64_t width) {
  const Shape &x = c.input_shape(0), &rois = c.input_shape(1);
  if (x.rank != 4) return c.invalid("input 0 of shape % needs 4 dimensions", x.span());
  if (rois.rank != 2 || rois[1] != columns)
    return c.invalid("rois of shape % need 2 dimensions, the second of %", rois.span(), columns);
  if (height < 1 || width < 1 || height > 1 << 24 || width > 1 << 24)
    return c.invalid("an output of % x % pixels is not possible", height, width);
  if (columns == 4 && (c.input_shape(2).rank != 1 || c.input_shape(2)[0] != rois[0]))
    return c.invalid("batch_indices of shape % do not fit % regions", c.input_shape(2).span(),
                     rois[0]);
  if (x.count() == 0 && x[1] && rois[0]) return c.invalid("the images % are empty", x.span());
  Shape out;
  const int64_t dims[] = {rois[0], x[1], height, width};
  for (int64_t dim : dims) out.append(dim);
  return c.set_output(0, out);
}

struct RoiAlign {
  struct State {
    int64_t height, width, sampling_ratio;
    float scale;
    bool is_max, half_pixel;
  };
  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->height = c.attribute_int("output_height", 1);
    s->width = c.attribute_int("output_width", 1);
    s->sampling_ratio = c.attribute_int("sampling_ratio", 0);
    s->scale = c.attribute_float("spatial_scale", 1);
    const String mode = c.attribute_string("mode", "avg");
    const String transformation =
        c.attribute_string("coordinate_transformation_mode", "half_pixel");
    s->is_max = mode == "max";
    s->half_pixel = c.since_version() >= 16 && transformation == "half_pixel";
    if (!s->is_max && !(mode == "avg")) return c.invalid("mode \"%\" is unknown", mode);
    if (!(transformation == "half_pixel") && !(transformation == "output_half_pixel"))
      return c.invalid("coordinate_transformation_mode \"%\" is unknown", transformation);
    if (s->sampling_ratio < 0 || s->sampling_ratio > kMostSamples)
      return c.invalid("sampling_ratio % is outside 0 to %", s->sampling_ratio, kMostSamples);
    return Status::kOk;
  }
  static Status infer(Context& c) {
    return infer_regions(c, 4, c.state<State>().height, c.state<State>().width);
  }

  template <class T>
  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const size_t regions = static_cast<size_t>(out[0]), bins = out.product(2, 4);
    for (size_t r = 0; r < regions; ++r) {
      ORTOLAN_TRY(check_image(c, c.input_data<int64_t>(2)[r], r));
      const Region<T> region(c, r);
      if (!(region.y.samples <= kMostSamples && region.x.samples <= kMostSamples))
        return c.invalid("region % is no number, or too large", r);
    }
    const size_t channels = static_cast<size_t>(out[1]);
    c.parallel(regions * bins, 1024 / channels + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) pool(c, Region<T>(c, i / bins), i / bins, i % bins);
    });
    return Status::kOk;
  }

 private:
  static constexpr int64_t kMostSamples = 1 << 16;
  static constexpr size_t kBuffer = 32;

  // One axis of a region.
  template <class T>
  struct Extent {
    T start, bin, samples;  // of a bin
    Extent(const State& s, T begin, T end, int64_t bins) {
      const T offset = s.half_pixel ? T(0.5) : T(0), scale = s.scale;
      start = begin * scale - offset;
      T size = end * scale - offset - start;
      if (!s.half_pixel) size = max<T>(size, 1);
      bin = size / static_cast<T>(bins);
      samples = s.sampling_ratio ? static_cast<T>(s.sampling_ratio) : math::ceil(bin);
    }
    // Sample k of a bin; false where it is outside.
    bool sides(size_t index, size_t k, int64_t size, Sides<T>* found) const {
      const T n = static_cast<T>(size);
      T at = start + static_cast<T>(index) * bin + (static_cast<T>(k) + T(0.5)) * bin / samples;
      if (!(at >= -1 && at <= n)) return false;
      *found = sides_of(min(max<T>(at, 0), n - 1), size);
      return true;
    }
  };
  template <class T>
  struct Region {
    Extent<T> y, x;
    Region(const Context& c, size_t r) : Region(c.state<State>(), c.input_data<T>(1) + 4 * r) {}
    Region(const State& s, const T* roi)
        : y(s, roi[1], roi[3], s.height), x(s, roi[0], roi[2], s.width) {}
  };

  template <class T>
  static void pool(const Context& c, const Region<T>& region, size_t r, size_t bin) {
    const State& s = c.state<State>();
    const Shape& in = c.input_shape(0);
    const size_t width = static_cast<size_t>(in[3]), plane = in.product(2, 4);
    const size_t channels = static_cast<size_t>(in[1]), bins = c.output_shape(0).product(2, 4);
    const size_t image = static_cast<size_t>(c.input_data<int64_t>(2)[r]);
    const T* x = c.input_data<T>(0) + image * channels * plane;
    T* y = c.output_data<T>(0) + r * channels * bins + bin;
    const size_t rows = region.y.samples > 0 ? static_cast<size_t>(region.y.samples) : 0;
    const size_t columns = region.x.samples > 0 ? static_cast<size_t>(region.x.samples) : 0;
    const size_t count = rows * columns;
    Corners<T> buffer[kBuffer];
    for (size_t k = 0; k < channels; ++k) y[k * bins] = 0;
    for (size_t i = 0; i < count; ++i) {
      Sides<T> v, u;
      Corners<T>& sample = buffer[i % kBuffer];
      sample = {};
      if (region.y.sides(bin / static_cast<size_t>(s.width), i / columns, in[2], &v) &&
          region.x.sides(bin % static_cast<size_t>(s.width), i % columns, in[3], &u))
        sample = corners(v, u, width);
      if (i % kBuffer != kBuffer - 1 && i + 1 != count) continue;
      const size_t n = i % kBuffer + 1;
      for (size_t k = 0; k < channels; ++k) {
        T& to = y[k * bins];
        if (s.is_max)
          to = most(buffer, n, x + k * plane, i < kBuffer ? -__builtin_inff() : to);
        else
          to += total(buffer, n, x + k * plane);
      }
    }
    for (size_t k = 0; k < channels && count && !s.is_max; ++k)
      y[k * bins] /= static_cast<T>(count);
  }
  template <class T>
  static T total(const Corners<T>* samples, size_t n, const T* x) {
    T sum = 0;
    for (size_t i = 0; i < n; ++i)
      for (int k = 0; k < 4; ++k) sum += samples[i].weight[k] * x[samples[i].offset[k]];
    return sum;
  }
  // As onnx and onnxruntime define it: the greatest weighted pixel, not the greatest sample.
  template <class T>
  static T most(const Corners<T>* samples, size_t n, const T* x, T greatest) {
    for (size_t i = 0; i < n; ++i)
      for (int k = 0; k < 4; ++k)
        greatest = max(greatest, samples[i].weight[k] * x[samples[i].offset[k]]);
    return greatest;
  }
};

// The greatest pixel of each bin of a region [image, x1, y1, x2, y2], whose ends are rounded.
struct MaxRoiPool {
  static Status infer(Context& c) {
    const Span<const int64_t> size = c.attribute_ints("pooled_shape");
    if (size.size != 2) return c.invalid("pooled_shape needs 2 entries, not %", size.size);
    return infer_regions(c, 5, size[0], size[1]);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape &in = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const T* rois = c.input_data<T>(1);
    const size_t channels = static_cast<size_t>(in[1]), plane = in.product(2, 4);
    T* y = c.output_data<T>(0);
    for (size_t r = 0; r < static_cast<size_t>(out[0]); ++r, rois += 5) {
      const int64_t image = whole(rois[0]);
      ORTOLAN_TRY(check_image(c, image, r));
      const Extent<T> rows(c, rois[2], rois[4], 2), columns(c, rois[1], rois[3], 3);
      const T* x = c.input_data<T>(0) + static_cast<size_t>(image) * channels * plane;
      for (size_t k = 0; k < channels; ++k, x += plane)
        for (int64_t ph = 0; ph < out[2]; ++ph)
          for (int64_t pw = 0; pw < out[3]; ++pw) *y++ = most(x, in[3], rows, ph, columns, pw);
    }
    return Status::kOk;
  }

 private:
  // Rounded, halves away from zero.
  template <class T>
  static int64_t whole(T value) {
    const T limit = T(1e9), size = min(math::abs(value), limit);
    if (!(size <= limit)) return 0;  // NaN
    const int64_t rounded = static_cast<int64_t>(math::floor(size + T(0.5)));
    return value < 0 ? -rounded : rounded;
  }
  template <class T>
  struct Extent {
    int64_t start, limit;
    T bin;
    Extent(const Context& c, T begin, T end, uint32_t dimension)
        : start(scaled(c, begin)), limit(c.input_shape(0)[dimension]) {
      const int64_t size = max<int64_t>(scaled(c, end) - start + 1, 1);
      bin = static_cast<T>(size) / static_cast<T>(c.output_shape(0)[dimension]);
    }
    static int64_t scaled(const Context& c, T value) {
      return whole(value * static_cast<T>(c.attribute_float("spatial_scale", 1)));
    }
    int64_t first(int64_t i) const {
      return clip(static_cast<int64_t>(math::floor(static_cast<T>(i) * bin)));
    }
    int64_t last(int64_t i) const {
      return clip(static_cast<int64_t>(math::ceil(static_cast<T>(i + 1) * bin)));
    }
    int64_t clip(int64_t i) const { return min(max<int64_t>(i + start, 0), limit); }
  };
  template <class T>
  static T most(const T* x, int64_t width, const Extent<T>& rows, int64_t ph,
                const Extent<T>& columns, int64_t pw) {
    const int64_t left = columns.first(pw), right = columns.last(pw);
    const int64_t top = rows.first(ph), bottom = rows.last(ph);
    if (left >= right || top >= bottom) return 0;
    T greatest = x[top * width + left];
    for (int64_t i = top; i < bottom; ++i)
      for (int64_t j = left; j < right; ++j) greatest = max(greatest, x[i * width + j]);
    return greatest;
  }
};

// Regions [y1, x1, y2, x2], where 0 and 1 are the centres of the outer pixels.
struct CropAndResize {
  static Status infer(Context& c) {
    int64_t size[2];
    size_t n = 0;
    const String mode = c.attribute_string("mode", "bilinear");
    if (!(mode == "bilinear") && !(mode == "nearest"))
      return c.invalid("mode \"%\" is unknown", mode);
    if (!c.input_ints(3, size, 2, &n) || n != 2) return c.invalid("crop_size must be 2 integers");
    return infer_regions(c, 4, size[0], size[1]);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape &in = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const size_t regions = static_cast<size_t>(out[0]), bins = out.product(2, 4);
    const size_t channels = static_cast<size_t>(in[1]), plane = in.product(2, 4);
    const int32_t* images = c.input_data<int32_t>(2);
    for (size_t r = 0; r < regions; ++r) ORTOLAN_TRY(check_image(c, images[r], r));
    const T outside = static_cast<T>(c.attribute_float("extrapolation_value", 0));
    const bool nearest = c.attribute_string("mode", "bilinear") == "nearest";
    c.parallel(regions * bins, 4096 / channels + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        const size_t r = i / bins, row = i % bins / static_cast<size_t>(out[3]);
        const T* roi = c.input_data<T>(1) + 4 * r;
        const T* x = c.input_data<T>(0) + static_cast<size_t>(images[r]) * channels * plane;
        T* y = c.output_data<T>(0) + r * channels * bins + i % bins;
        Sides<T> v, u;
        const bool inside =
            sides(roi[0], roi[2], in[2], row, out[2], nearest, &v) &&
            sides(roi[1], roi[3], in[3], i % static_cast<size_t>(out[3]), out[3], nearest, &u);
        const Corners<T> at = inside ? corners(v, u, static_cast<size_t>(in[3])) : Corners<T>{};
        for (size_t k = 0; k < channels; ++k, x += plane, y += bins) {
          *y = inside ? 0 : outside;
          for (int j = 0; inside && j < 4; ++j)
            if (at.weight[j] != 0) *y += at.weight[j] * x[at.offset[j]];
        }
      }
    });
    return Status::kOk;
  }

 private:
  template <class T>
  static bool sides(T begin, T end, int64_t size, size_t i, int64_t count, bool nearest,
                    Sides<T>* found) {
    const T last = static_cast<T>(size - 1), steps = static_cast<T>(count - 1);
    T at = count == 1 ? (begin + end) / 2 * last : begin * last;
    if (i > 0 && i + 1 == static_cast<size_t>(count))
      at = end * last;
    else if (i > 0)
      at += static_cast<T>(i) * ((end - begin) * last / steps);
    if (!(at >= 0 && at <= last)) return false;
    if (nearest) at = math::floor(at + T(0.5));
    *found = sides_of(at, size);
    return true;
  }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END
