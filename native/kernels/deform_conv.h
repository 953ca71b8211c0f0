// DeformConv: taps are moved by offsets that are data. A block of output pixels at a time, the
// pixels that its taps meet are gathered into columns, and the weights multiply those.
#pragma once

#include "kernels/sampling.h"
#include "kernels/window.h"

namespace ortolan::portable {

constexpr size_t kDeformBlock = 16;

// sums[b] += weights[k] * columns[k][b]: the inner loop, and so not compiled for size.
template <class T>
ORTOLAN_NOINLINE void add_products(const T* weights, const T* columns, size_t K, T* sums) {
  T block[kDeformBlock];
  copy(block, sums, sizeof(block));
  for (size_t k = 0; k < K; ++k, columns += kDeformBlock)
    for (size_t b = 0; b < kDeformBlock; ++b) block[b] += weights[k] * columns[b];
  copy(sums, block, sizeof(block));
}

}  // namespace ortolan::portable

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

struct DeformConv {
  static Status infer(Context& c) {
    Plan p;
    ORTOLAN_TRY(make_plan(c, &p));
    const size_t element = element_size(c.input_type(0));
    size_t bytes = p.channels;
    if (__builtin_mul_overflow(bytes, p.window.taps(), &bytes) ||
        __builtin_mul_overflow(bytes, kBlock * element, &bytes) || bytes > SIZE_MAX / 4)
      return c.fail(Status::kLimitExceeded, "the weights are too large");
    c.request_scratch(0, bytes);
    return c.set_output(0, p.out);
  }

  template <class T>
  static Status run(Context& c) {
    Plan p;
    ORTOLAN_TRY(make_plan(c, &p));
    if (p.out.count() == 0) return Status::kOk;
    const size_t pixels = p.window.out_pixels(), blocks = (pixels + kBlock - 1) / kBlock;
    c.parallel(static_cast<size_t>(p.out[0]) * blocks, 1,
               [&](size_t begin, size_t end, size_t thread) {
                 T* columns = static_cast<T*>(c.thread_scratch(thread));
                 for (size_t i = begin; i < end; ++i) {
                   const size_t first = i % blocks * kBlock, n = min(kBlock, pixels - first);
                   gather<T>(c, p, i / blocks, first, n, columns);
                   multiply<T>(c, p, i / blocks, first, n, columns);
                 }
               });
    return Status::kOk;
  }

 private:
  static constexpr size_t kBlock = kDeformBlock;

  struct Plan {
    Window window;  // dimensions are right-aligned
    uint32_t rank;
    Shape out;
    size_t channels, groups, offset_groups;
  };

  static Status make_plan(Context& c, Plan* p) {
    const Shape &x = c.input_shape(0), &w = c.input_shape(1);
    if (w.rank < 3 || w.rank > 5 || x.rank != w.rank)
      return c.invalid("inputs 0 and 1 of shapes % and % need the same 3 to 5 dimensions", x.span(),
                       w.span());
    WindowAttributes window;
    p->rank = window.rank = w.rank - 2;
    for (uint32_t i = 0; i < p->rank; ++i) window.kernel[i] = w[2 + i];
    const Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
    for (uint32_t i = 0; i < kernel.size; ++i)
      if (kernel.size != p->rank || kernel[i] != w[2 + i])
        return c.invalid("the weights of shape % do not fit kernel_shape %", w.span(), kernel);
    ORTOLAN_TRY(read_window(c, &window));
    const int64_t groups = c.attribute_int("group", 1), C = x[1];
    const int64_t offset_groups = c.attribute_int("offset_group", 1);
    const bool fits = groups > 0 && offset_groups > 0 && C % groups == 0 && w[1] == C / groups &&
                      w[0] % groups == 0 && C % offset_groups == 0;
    if (!fits)
      return c.invalid("weights of shape % in % groups, offsets in %, do not fit % channels",
                       w.span(), groups, offset_groups, C);
    p->channels = static_cast<size_t>(C);
    p->groups = static_cast<size_t>(groups);
    p->offset_groups = static_cast<size_t>(offset_groups);
    ptrdiff_t after[3];
    p->out = x;
    p->out[1] = w[0];
    ORTOLAN_TRY(place_window(c, window, x, &p->out, &p->window, after));
    const size_t planes = p->offset_groups * p->window.taps();
    ORTOLAN_TRY(check_planes(c, *p, 2, planes * p->rank));
    if (c.has_input(3) && c.input_shape(3).count() != static_cast<size_t>(w[0]))
      return c.invalid("the bias has % elements, % are needed", c.input_shape(3).count(), w[0]);
    return c.has_input(4) ? check_planes(c, *p, 4, planes) : Status::kOk;
  }
  static Status check_planes(Context& c, const Plan& p, size_t input, size_t planes) {
    Shape needed = p.out;
    needed[1] = static_cast<int64_t>(planes);
    if (c.input_shape(input) == needed) return Status::kOk;
    return c.invalid("input % has shape %, % is needed", input, c.input_shape(input).span(),
                     needed.span());
  }

  // columns [channel][tap][kBlock] of n output pixels from `first` on
  template <class T>
  static void gather(const Context& c, const Plan& p, size_t image, size_t first, size_t n,
                     T* columns) {
    const Window& w = p.window;
    const size_t taps = w.taps(), pixels = w.out_pixels(), in_pixels = w.in_pixels();
    const size_t each = p.channels / p.offset_groups;
    const T* x = c.input_data<T>(0) + image * p.channels * in_pixels;
    const int64_t sizes[] = {static_cast<int64_t>(w.in[0]), static_cast<int64_t>(w.in[1]),
                             static_cast<int64_t>(w.in[2])};
    for (size_t i = 0; i < p.offset_groups * taps * kBlock; ++i) {
      const size_t b = i % kBlock, plane = i / kBlock, tap = plane % taps, group = plane / taps;
      Taps found;
      const size_t row = image * p.offset_groups * taps + plane, pixel = first + b;
      if (b < n) {
        AxisTaps axes[3];
        const T* offset = c.input_data<T>(2) + row * p.rank * pixels + pixel;
        find_axes(p, pixel, tap, offset, axes);
        found.combine(axes, sizes, 3);
      }
      const T mask = c.has_input(4) && b < n ? c.input_data<T>(4)[row * pixels + pixel] : T{1};
      for (size_t k = group * each; k < (group + 1) * each; ++k)
        columns[(k * taps + tap) * kBlock + b] = found.sum(x + k * in_pixels) * mask;
    }
  }

  // The pixels that a tap of an output pixel meets.
  template <class T>
  static void find_axes(const Plan& p, size_t pixel, size_t tap, const T* offset, AxisTaps* axes) {
    const Window& w = p.window;
    const size_t at[] = {pixel / (w.out[1] * w.out[2]), pixel / w.out[2] % w.out[1],
                         pixel % w.out[2]};
    const size_t k[] = {tap / (w.kernel[1] * w.kernel[2]), tap / w.kernel[2] % w.kernel[1],
                        tap % w.kernel[2]};
    for (uint32_t d = 0; d < 3; ++d) {
      if (d < 3 - p.rank) {
        axes[d].add(0, 1, 1);
        continue;
      }
      const T place =
          static_cast<T>(static_cast<ptrdiff_t>(at[d] * w.stride[d] + k[d] * w.dilation[d]) -
                         w.pad[d]) +
          offset[(d - (3 - p.rank)) * w.out_pixels()];
      const int64_t size = static_cast<int64_t>(w.in[d]);
      if (place > -1 && place < static_cast<T>(size)) add_neighbours(&axes[d], place, size);
    }
  }

  template <class T>
  static void multiply(const Context& c, const Plan& p, size_t image, size_t first, size_t n,
                       const T* columns) {
    const size_t outputs = static_cast<size_t>(p.out[1]), pixels = p.window.out_pixels();
    const size_t K = p.channels / p.groups * p.window.taps();
    const T* weights = c.input_data<T>(1);
    for (size_t m = 0; m < outputs; ++m, weights += K) {
      const T* from = columns + m / (outputs / p.groups) * K * kBlock;
      T sums[kBlock];
      for (T& sum : sums) sum = c.has_input(3) ? c.input_data<T>(3)[m] : T{0};
      add_products(weights, from, K, sums);
      copy(c.output_data<T>(0) + (image * outputs + m) * pixels + first, sums, n * sizeof(T));
    }
  }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END
