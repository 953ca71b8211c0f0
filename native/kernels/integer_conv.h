// Convolution of 8-bit integers over plain images of 1 to 3 spatial dimensions: the weights are
// rows of a product, the pixels under each tap its columns, gathered panel by panel.
#pragma once

#include "kernels/integer_product.h"
#include "kernels/window.h"

namespace ortolan::ORTOLAN_ISA {

// Which inputs are the operands and their zero points.
struct ConvPlaces {
  size_t x, w, zero_x, zero_w;
};

struct IntegerConvState {
  const int16_t* weights = nullptr;  // differences, when they and their zero point are constant
};

struct IntegerConv {
  Window window;
  size_t batch = 0, channels = 0, outputs = 0, groups = 1;
  size_t depth = 0, pairs = 0, panels = 0;
  size_t weight_bytes = 0;

  size_t group_channels() const { return channels / groups; }
  size_t group_outputs() const { return outputs / groups; }
};

inline Status weight_sizes(const Context& c, const Shape& w, IntegerConv* v) {
  v->outputs = static_cast<size_t>(w[0]);
  v->depth = w.product(1, w.rank);
  v->pairs = pairs_of(v->depth);
  if (__builtin_mul_overflow(v->outputs, v->pairs * 2 * sizeof(int16_t), &v->weight_bytes) ||
      v->weight_bytes > SIZE_MAX / 4 || v->pairs > SIZE_MAX / 8 / (kPanelColumns * sizeof(int16_t)))
    return c.fail(Status::kLimitExceeded, "the weights are too large");
  return Status::kOk;
}

inline Status check_one(const Context& c, size_t i, size_t or_as_many = 1) {
  if (!c.has_input(i)) return Status::kOk;
  const size_t n = c.input_shape(i).count();
  if (n == 1 || n == or_as_many) return Status::kOk;
  return c.invalid("input % has % elements, 1 or % are needed", i, n, or_as_many);
}

inline Status plan_integer_conv(Context& c, const ConvPlaces& at, IntegerConv* v, Shape* out) {
  const Shape &x = c.input_shape(at.x), &w = c.input_shape(at.w);
  if (w.rank < 3 || w.rank > 5)
    return c.fail(Status::kNotImplemented, "weights of % dimensions are not supported", w.rank);
  WindowAttributes window;
  window.rank = w.rank - 2;
  const Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
  bool fits = kernel.empty() || kernel.size == window.rank;
  for (uint32_t i = 0; i < window.rank; ++i) {
    window.kernel[i] = w[2 + i];
    fits = fits && (kernel.empty() || kernel[i] == w[2 + i]);
  }
  if (!fits) return c.invalid("the weights of shape % do not fit kernel_shape %", w.span(), kernel);
  ORTOLAN_TRY(read_window(c, &window));
  ptrdiff_t after[3];
  *out = x;
  ORTOLAN_TRY(place_window(c, window, x, out, &v->window, after));
  const int64_t groups = c.attribute_int("group", 1);
  if (groups < 1 || groups > w[0] || w[0] % groups != 0)
    return c.invalid("group % does not divide output channels %", groups, w[0]);
  if (x[1] % groups != 0 || x[1] / groups != w[1])
    return c.invalid("input 0 has % channels, the weights are for % in each of % groups", x[1],
                     w[1], groups);
  v->groups = static_cast<size_t>(groups);
  v->batch = static_cast<size_t>(x[0]);
  v->channels = static_cast<size_t>(x[1]);
  v->panels = panels_of(v->window.out_pixels());
  out->dims[1] = w[0];
  ORTOLAN_TRY(weight_sizes(c, w, v));
  ORTOLAN_TRY(check_one(c, at.zero_x));
  return check_one(c, at.zero_w, v->outputs);
}

inline void widen_weights(const uint8_t* w, const Bytes& zero, const IntegerConv& v, int16_t* to) {
  for (size_t o = 0; o < v.outputs; ++o)
    widen_row(w + o * v.depth, 1, v.depth, zero.flip, zero[o], to + o * 2 * v.pairs);
}

inline Status prepare_integer_conv(Context& c, const ConvPlaces& at) {
  auto* s = c.make_state<IntegerConvState>();
  if (!s) return c.out_of_memory();
  const Slot* w = c.constant_input(at.w);
  const Slot* zero = c.constant_input(at.zero_w);
  if (!w || (c.has_input(at.zero_w) && !zero) || w->shape.rank < 3 || !w->shape.count())
    return Status::kOk;
  IntegerConv v;
  ORTOLAN_TRY(weight_sizes(c, w->shape, &v));
  Bytes zeros = {nullptr, 1, sign_flip(w->type)};
  if (zero) zeros = {static_cast<const uint8_t*>(zero->data), zero->shape.count(), zeros.flip};
  if (zeros.count != 1 && zeros.count != v.outputs) return Status::kOk;  // infer complains
  auto* wide = static_cast<int16_t*>(c.model_memory(v.weight_bytes));
  if (!wide) return c.out_of_memory();
  widen_weights(static_cast<const uint8_t*>(w->data), zeros, v, wide);
  s->weights = wide;
  return Status::kOk;
}

inline void request_conv_scratch(Context& c, const IntegerConv& v) {
  c.request_scratch(c.state<IntegerConvState>().weights ? 0 : v.weight_bytes,
                    panel_size(v.pairs) * sizeof(int16_t));
}

// The pixels of one panel under all taps of a group's channels; padding is 0, the zero point.
inline void gather_pixels(const IntegerConv& v, const uint8_t* x, uint8_t flip, int zero,
                          size_t panel, int16_t* to) {
  const Window& w = v.window;
  const size_t first = panel * kPanelColumns, taps = w.taps(), pixels = w.in_pixels();
  const size_t count = min(kPanelColumns, w.out_pixels() - first);
  ptrdiff_t start[kPanelColumns][3];
  for (size_t j = 0; j < count; ++j) {
    const size_t p = first + j;
    const size_t at[3] = {p / (w.out[1] * w.out[2]), p / w.out[2] % w.out[1], p % w.out[2]};
    for (int d = 0; d < 3; ++d)
      start[j][d] = static_cast<ptrdiff_t>(at[d] * w.stride[d]) - w.pad[d];
  }
  fill_zero(to, panel_size(v.pairs) * sizeof(int16_t));
  if (!v.depth) return;  // no channels, but a kernel that may be huge
  for (size_t tap = 0; tap < taps; ++tap) {
    const size_t k[3] = {tap / (w.kernel[1] * w.kernel[2]), tap / w.kernel[2] % w.kernel[1],
                         tap % w.kernel[2]};
    size_t offset[kPanelColumns], column[kPanelColumns], n = 0;  // the pixels inside
    for (size_t j = 0; j < count; ++j) {
      size_t at = 0;
      bool inside = true;
      for (int d = 0; d < 3; ++d) {
        const ptrdiff_t i = start[j][d] + static_cast<ptrdiff_t>(k[d] * w.dilation[d]);
        inside = inside && i >= 0 && i < static_cast<ptrdiff_t>(w.in[d]);
        at = at * w.in[d] + static_cast<size_t>(i);
      }
      if (inside) offset[n] = at, column[n++] = 2 * j;
    }
    for (size_t ch = 0; ch < v.group_channels(); ++ch) {
      const size_t row = ch * taps + tap;
      int16_t* put = to + row / 2 * 2 * kPanelColumns + (row & 1);
      for (size_t i = 0; i < n; ++i)
        put[column[i]] = static_cast<int16_t>((x[ch * pixels + offset[i]] ^ flip) - zero);
    }
  }
}

// finish(output channel, sums, first element, count): a piece of the pixels of one channel.
template <class Finish>
ORTOLAN_INLINE void run_integer_conv(const Context& c, const ConvPlaces& at, const IntegerConv& v,
                                     const Finish& finish) {
  const size_t pixels = v.window.out_pixels();
  if (!pixels || !v.batch) return;
  const Bytes zero_x = input_bytes(c, at.zero_x, c.input_type(at.x));
  const int16_t* weights = c.state<IntegerConvState>().weights;
  if (!weights) {
    auto* wide = static_cast<int16_t*>(c.scratch());
    widen_weights(c.input_data<uint8_t>(at.w), input_bytes(c, at.zero_w, c.input_type(at.w)), v,
                  wide);
    weights = wide;
  }
  const size_t group_bytes = v.group_channels() * v.window.in_pixels();
  const size_t work = max<size_t>(v.depth * kPanelColumns * v.group_outputs(), 1);
  c.parallel(v.batch * v.groups * v.panels, max<size_t>(kProductGrain / work, 1),
             [&](size_t begin, size_t end, size_t thread) {
               auto* panel = static_cast<int16_t*>(c.thread_scratch(thread));
               for (size_t i = begin; i < end; ++i) {
                 const size_t image = i / v.panels, group = image % v.groups;
                 const size_t first = i % v.panels * kPanelColumns;
                 gather_pixels(v, c.input_data<uint8_t>(at.x) + image * group_bytes, zero_x.flip,
                               zero_x[0], i % v.panels, panel);
                 multiply_panel(weights + group * v.group_outputs() * 2 * v.pairs, 0,
                                v.group_outputs(), panel, v.pairs,
                                [&](size_t row, const int32_t* sums) {
                                  finish(group * v.group_outputs() + row, sums,
                                         (image * v.group_outputs() + row) * pixels + first,
                                         min(kPanelColumns, pixels - first));
                                });
               }
             });
}

}  // namespace ortolan::ORTOLAN_ISA
