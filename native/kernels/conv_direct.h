// Channels-last convolution of any kernel, stride, dilation, padding and group in one to three
// spatial dimensions, without copying the input: tiles of the matrix product read their rows
// through pointers to input pixels, or to zeros. Tiles cross image rows, so small images fill
// them. 1x1 kernels of stride 1 are plain products.
#pragma once

#include "kernels/gemm.h"

namespace ortolan::ORTOLAN_ISA {

// A window that slides over depth, height, width; missing leading dimensions are 1.
struct Window {
  size_t in[3] = {1, 1, 1};
  size_t out[3] = {1, 1, 1};
  size_t kernel[3] = {1, 1, 1};
  size_t stride[3] = {1, 1, 1};
  size_t dilation[3] = {1, 1, 1};
  ptrdiff_t pad[3] = {0, 0, 0};  // before the first element

  size_t in_pixels() const { return in[0] * in[1] * in[2]; }
  size_t out_pixels() const { return out[0] * out[1] * out[2]; }
  size_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// Taps [begin, end) of one dimension that meet the input, for one output position.
struct TapRange {
  size_t begin;
  size_t end;
  ptrdiff_t start;  // input position of tap 0, may be outside
};
ORTOLAN_INLINE TapRange tap_range(const Window& w, int dimension, size_t position) {
  const ptrdiff_t in = w.in[dimension], step = w.dilation[dimension];
  const ptrdiff_t start = static_cast<ptrdiff_t>(position * w.stride[dimension]) - w.pad[dimension];
  const size_t kernel = w.kernel[dimension];
  if (start >= 0 && start + static_cast<ptrdiff_t>(kernel - 1) * step < in)
    return {0, kernel, start};  // most: without a division
  const size_t begin = start < 0 ? (-start + step - 1) / step : 0;
  const size_t end = start < in ? (in - start + step - 1) / step : 0;
  return {min(begin, kernel), max(min(begin, kernel), min(end, kernel)), start};
}

// x [batch][in...][channels] to y [batch][out...][outputs].
struct ConvShape {
  size_t batch = 1;
  size_t groups = 1;
  size_t channels = 0;
  size_t outputs = 0;
  Window window;

  size_t group_channels() const { return channels / groups; }
  size_t group_outputs() const { return outputs / groups; }
  size_t rows() const { return batch * window.out_pixels(); }
};

struct ConvArgs {
  ConvShape shape;
  const float* x = nullptr;
  const float* weights = nullptr;  // by pack_conv_weights
  bool in_lines = false;           // or those of one group in the common form
  float* y = nullptr;
  Epilogue epilogue;  // its matrix is [batch * out pixels][outputs]
  size_t gap = 0;     // floats between pixels of y; depthwise kernels leave none
};

// How a shape is computed. Rows are output pixels; each reads, for every segment of the kernel, a
// run of neighbouring input floats.
struct ConvPlan {
  bool is_product;  // 1x1: the input is the matrix A
  bool is_merged;   // a segment is a kernel row, else one tap
  size_t segments;
  size_t pixels;  // of a run
  size_t run;     // floats of a run
  size_t panels;  // of one group
  size_t block;   // rows of a work unit
  size_t blocks;
  size_t zeros;    // floats
  size_t patches;  // floats
};

// Output columns whose windows are inside the input's row.
struct Columns {
  size_t begin;
  size_t end;

  size_t count() const { return end - begin; }
};
ORTOLAN_INLINE Columns inside_columns(const Window& w) {
  const ptrdiff_t pad = w.pad[2], step = w.stride[2];
  const ptrdiff_t reach = (w.kernel[2] - 1) * w.dilation[2] + 1, slack = w.in[2] + pad - reach;
  const size_t begin = min<size_t>(w.out[2], pad > 0 ? (pad + step - 1) / step : 0);
  return {begin, max(begin, min<size_t>(w.out[2], slack < 0 ? 0 : slack / step + 1))};
}

// Whether the input is the matrix A of a product.
ORTOLAN_INLINE bool is_product(const ConvShape& s) {
  const Window& w = s.window;
  bool is = variants::kPointwise.is_built && s.groups == 1 && w.taps() == 1;
  for (int i = 0; i < 3; ++i) is = is && w.in[i] == w.out[i] && w.pad[i] == 0 && w.stride[i] == 1;
  return is;
}

ORTOLAN_NOINLINE inline ConvPlan plan_conv(const ConvShape& s) {
  // With more channels, single taps are long enough; copies at the border cost more.
  constexpr size_t kMergedChannels = 4, kMostMerged = 32;
  constexpr size_t kPointers = 4096;  // of a block, to stay in the first-level cache
  constexpr size_t kUnits = 16;       // at least, so that threads get equal shares
  const Window& w = s.window;
  ConvPlan p = {};
  p.is_product = is_product(s);
  const size_t borders = w.out[2] - inside_columns(w).count();
  p.is_merged = s.groups == 1 && w.kernel[2] > 1 && w.dilation[2] == 1 &&
                s.channels <= (borders ? kMergedChannels : kMostMerged);
  p.pixels = p.is_merged ? w.kernel[2] : 1;
  p.run = p.pixels * s.group_channels();
  p.segments = p.is_merged ? w.kernel[0] * w.kernel[1] : w.taps();
  p.panels = panel_count(s.group_outputs());
  const size_t limit = min(kBlockRows, kPointers / max<size_t>(p.segments, 1));
  const size_t panels = max<size_t>(p.panels * s.groups, 1);
  p.block = rows_per_block(s.rows(), max<size_t>(limit, 1), (kUnits + panels - 1) / panels);
  p.blocks = (s.rows() + p.block - 1) / p.block;
  p.zeros = max(p.run, s.channels);
  if (p.is_merged) {
    const size_t image_rows = p.block / max<size_t>(w.out[2], 1) + 2;
    p.patches = min(p.block, image_rows * borders) * p.segments * p.run;
  }
  return p;
}

// Bytes of scratch that each thread needs, aligned to 16.
ORTOLAN_INLINE size_t conv_scratch_size(const ConvShape& s) {
  const ConvPlan p = plan_conv(s);
  if (p.is_product) return 0;
  size_t pointers;  // without channels there may be more taps than memory has places for
  if (__builtin_mul_overflow(p.segments * sizeof(float*), p.block, &pointers)) return SIZE_MAX;
  const size_t floats = (p.zeros + p.patches) * sizeof(float);
  return pointers > SIZE_MAX / 2 ? SIZE_MAX : pointers + floats;
}

// Floats of packed weights.
ORTOLAN_INLINE size_t packed_conv_size(const ConvShape& s) {
  return s.groups * packed_size(s.group_outputs(), s.window.taps() * s.group_channels());
}

// ONNX weights [outputs][channels / groups][kernel...] to packed_conv_size floats; those of one
// group may be in the common form.
ORTOLAN_INLINE void pack_conv_weights(const ConvShape& s, const float* weights, float* out,
                                      bool in_lines = false) {
  const size_t taps = s.window.taps(), channels = s.group_channels(), N = s.group_outputs();
  if (kPacksLines && in_lines)
    return pack_panels({weights, 1, 0, taps * channels, 0, 0, true}, N, 0, panel_count(N), out);
  for (size_t g = 0; g < s.groups; ++g) {
    const float* w = weights + g * N * channels * taps;
    pack_panels({w, taps, 1, channels, taps, channels * taps}, N, 0, panel_count(N),
                out + g * packed_size(N, taps * channels));
  }
}

// Where the weights of output `n` of a convolution of one group are, and with them, in the common
// form, those of the next three if n is a multiple of 4.
struct TapWeights {
  TapWeights(const ConvShape& s, const float* weights, bool in_lines, size_t n) {
    const size_t taps = s.window.taps(), K = taps * s.channels;
    first_ = weights + (in_lines ? line_offset(K, n) : n * K);
    channel_ = in_lines ? line_width(s.outputs, n) : taps;
    tap_ = in_lines ? channel_ * s.channels : 1;
  }
  const float* at(size_t tap, size_t channel) const {
    return first_ + tap * tap_ + channel * channel_;
  }

 private:
  const float* first_;
  size_t channel_, tap_;
};

// Fills pointers for one block of output pixels. The scratch holds pointers, zeros, patches.
class PointerBuilder {
 public:
  PointerBuilder(const ConvArgs& args, const ConvPlan& plan, void* scratch)
      : args_(args), plan_(plan), pointers_(static_cast<const float**>(scratch)) {
    float* zeros = reinterpret_cast<float*>(pointers_ + plan.segments * plan.block);
    fill_zero(zeros, plan.zeros * sizeof(float));
    zeros_ = zeros;
    patches_ = zeros + plan.zeros;
  }

  // For rows [first, first + rows) of the output: [segments][plan.block].
  const float* const* build(size_t first, size_t rows) {
    const Window& w = args_.shape.window;
    patch_ = patches_;
    for (size_t r = 0, count; r < rows; r += count) {
      const size_t pixel = first + r, column = pixel % w.out[2];
      count = min(w.out[2] - column, rows - r);
      add_image_row(pixel / w.out[2], column, pointers_ + r, count);
    }
    return pointers_;
  }

 private:
  // `count` pixels from `column` of output row `row`, which counts through batch and depth.
  void add_image_row(size_t row, size_t column, const float** out, size_t count) {
    const Window& w = args_.shape.window;
    const size_t y = row % w.out[1], z = row / w.out[1] % w.out[0], n = row / w.out[1] / w.out[0];
    const size_t row_floats = w.in[2] * args_.shape.channels;
    const ptrdiff_t x = static_cast<ptrdiff_t>(column * w.stride[2]) - w.pad[2];
    for (size_t kz = 0; kz < w.kernel[0]; ++kz)
      for (size_t ky = 0; ky < w.kernel[1]; ++ky) {
        const size_t iz = z * w.stride[0] + kz * w.dilation[0] - w.pad[0];
        const size_t iy = y * w.stride[1] + ky * w.dilation[1] - w.pad[1];
        const bool inside = iz < w.in[0] && iy < w.in[1];  // negative wraps to large
        const float* from =
            inside ? args_.x + ((n * w.in[0] + iz) * w.in[1] + iy) * row_floats : nullptr;
        const size_t runs = plan_.is_merged ? 1 : w.kernel[2];
        for (size_t kx = 0; kx < runs; ++kx, out += plan_.block)
          add_runs(from, x + kx * w.dilation[2], out, count);
      }
  }

  // Pointers to `count` runs of pixels of an input row (null: outside), the first at pixel x.
  void add_runs(const float* row, ptrdiff_t x, const float** out, size_t count) {
    const Window& w = args_.shape.window;
    const ptrdiff_t step = w.stride[2], slack = w.in[2] - plan_.pixels - x;
    const ptrdiff_t channels = args_.shape.channels;
    const size_t begin = min<size_t>(count, x < 0 ? (step - 1 - x) / step : 0);
    const size_t end = max(begin, min<size_t>(count, slack < 0 ? 0 : slack / step + 1));
    size_t i = 0;
    if (!row)
      for (; i < count; ++i) out[i] = zeros_;
    for (; i < begin; ++i, x += step) out[i] = border_run(row, x);
    for (; i < end; ++i, x += step) out[i] = row + x * channels;
    for (; i < count; ++i, x += step) out[i] = border_run(row, x);
  }

  // A run that is not inside: zeros, or a copy of what is inside among zeros.
  const float* border_run(const float* row, ptrdiff_t x) {
    const ptrdiff_t width = args_.shape.window.in[2], pixels = plan_.pixels;
    if (x + pixels <= 0 || x >= width) return zeros_;
    float* patch = patch_;
    patch_ += plan_.run;
    const ptrdiff_t channels = args_.shape.channels;
    const size_t first = x < 0 ? -x * channels : 0, last = min(pixels, width - x) * channels;
    const float* from = row + x * channels;
    // Calls that fill and copy would take longer than these few floats.
#pragma clang loop vectorize(disable)
    for (size_t k = 0; k < plan_.run; ++k) patch[k] = k - first < last - first ? from[k] : 0;
    return patch;
  }

  const ConvArgs& args_;
  const ConvPlan& plan_;
  const float** pointers_;
  const float* zeros_;
  float* patches_;
  float* patch_ = nullptr;
};

// Rows [row, row + rows), for which `pointers` were built, of one panel of one group.
ORTOLAN_INLINE void conv_panel(const ConvArgs& args, const ConvPlan& plan,
                               const float* const* pointers, size_t row, size_t rows, size_t group,
                               size_t panel) {
  const ConvShape& s = args.shape;
  const size_t N = s.group_outputs(), K = plan.segments * plan.run;
  TileInput in = {nullptr,       0,
                  pointers,      plan.block,
                  plan.segments, group * s.group_channels(),
                  plan.run,      args.weights + group * packed_size(N, K)};
  if (!kPanelsAreLines && !kHasOnlyLines && args.in_lines)
    in.line = kHasLinePerVector ? K * kLine : kLine;
  multiply_panel(in, args.epilogue, args.y, s.outputs + args.gap, row, rows, group * N, N, panel);
}

// Work units for a static split over threads: blocks of rows, and in each the panels.
ORTOLAN_INLINE size_t conv_units(const ConvShape& s) {
  const ConvPlan plan = plan_conv(s);
  return plan.blocks * s.groups * plan.panels;
}

// Calls body(row, rows, panel0, panel1) for the blocks that units [begin, end) touch, with the
// range of panels, counted through all groups.
template <class Body>
ORTOLAN_INLINE void for_each_block(const ConvShape& s, const ConvPlan& plan, size_t begin,
                                   size_t end, Body body) {
  const size_t panels = s.groups * plan.panels;
  while (begin < end) {
    const size_t panel = begin % panels, row = begin / panels * plan.block;
    const size_t count = min(end - begin, panels - panel);
    body(row, min(plan.block, s.rows() - row), panel, panel + count);
    begin += count;
  }
}

// Units [begin, end), with conv_scratch_size bytes of scratch of this thread's own.
ORTOLAN_NOINLINE inline void conv_run_units(const ConvArgs& args, size_t begin, size_t end,
                                            void* scratch) {
  const ConvShape& s = args.shape;
  const ConvPlan plan = plan_conv(s);
  if (plan.is_product) {
    GemmArgs g = {s.rows(),      s.outputs,
                  s.channels,    args.x,
                  s.channels,    args.weights,
                  args.y,        s.outputs + args.gap,
                  args.epilogue, !kHasOnlyLines && args.in_lines};
    return for_each_block(s, plan, begin, end,
                          [&](size_t row, size_t rows, size_t panel0, size_t panel1) {
                            gemm_rows_panels(g, row, row + rows, panel0, panel1);
                          });
  }
  PointerBuilder builder(args, plan, scratch);
  for_each_block(s, plan, begin, end, [&](size_t row, size_t rows, size_t panel0, size_t panel1) {
    const float* const* pointers = builder.build(row, rows);
    for (size_t p = panel0; p < panel1; ++p)
      conv_panel(args, plan, pointers, row, rows, p / plan.panels, p % plan.panels);
  });
}

}  // namespace ortolan::ORTOLAN_ISA
