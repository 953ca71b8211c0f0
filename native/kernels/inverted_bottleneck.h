// Expand 1x1 -> depthwise -> project 1x1 in strips of image rows, channels last. Expanded rows live
// in a ring of as many as a strip needs, and what is behind the depthwise convolution in a strip:
// only the input and the output of all three touch memory. The first or the last may be missing.
#pragma once

#include "kernels/depthwise.h"

namespace ortolan::ORTOLAN_ISA {

struct BottleneckArgs {
  ConvShape shape;     // of the depthwise convolution
  size_t inputs = 0;   // channels of x
  size_t outputs = 0;  // channels of y
  const float* x = nullptr;
  const float* expand = nullptr;     // by pack_b, or null: the depthwise convolution reads x
  const float* depthwise = nullptr;  // by pack_depthwise_weights
  const float* project = nullptr;    // by pack_b, or null: the depthwise convolution writes y
  bool expand_in_lines = false, project_in_lines = false;  // in the common form
  Epilogue expand_epilogue, depthwise_epilogue, project_epilogue;
  float* y = nullptr;
  size_t gap = 0;  // floats between pixels of y; only where there is `project`
};

struct BottleneckPlan {
  size_t strip;       // output rows
  size_t strips;      // of an image
  size_t rows;        // of the ring
  size_t ring, deep;  // floats
};

ORTOLAN_INLINE BottleneckPlan plan_bottleneck(const ConvShape& s, bool expands, bool projects) {
  constexpr size_t kPixels = 56;  // of a strip: enough rows for the tiles of the product
  const Window& w = s.window;
  const size_t width = max<size_t>(w.out[2], 1);
  BottleneckPlan p = {};
  p.strip = min(max<size_t>(w.out[1], 1), (kPixels + width - 1) / width);
  p.strips = (w.out[1] + p.strip - 1) / p.strip;
  p.rows = (p.strip - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
  p.rows = min(p.rows, max<size_t>(w.in[1], 1));
  p.ring = expands ? p.rows * w.in[2] * s.channels : 0;
  p.deep = projects ? p.strip * w.out[2] * s.channels : 0;
  return p;
}

// Bytes of scratch that each thread needs.
ORTOLAN_INLINE size_t bottleneck_scratch_size(const ConvShape& s, bool expands, bool projects) {
  const BottleneckPlan p = plan_bottleneck(s, expands, projects);
  return depthwise_scratch_size(s) + (p.ring + p.deep) * sizeof(float);
}

class BottleneckStrips {
 public:
  BottleneckStrips(const BottleneckArgs& args, void* scratch)
      : args_(args),
        plan_(plan_bottleneck(args.shape, args.expand, args.project)),
        rows_(static_cast<DepthwiseRow*>(scratch)),
        ring_(reinterpret_cast<float*>(rows_ + args.shape.window.kernel[1])),
        deep_(ring_ + plan_.ring) {}

  // Strips [begin, end), counted through all images.
  void run(size_t begin, size_t end) {
    const Window& w = args_.shape.window;
    for (size_t unit = begin; unit < end; ++unit) {
      const size_t image = unit / plan_.strips, first = unit % plan_.strips * plan_.strip;
      const size_t count = min(plan_.strip, w.out[1] - first);
      if (args_.expand) {
        const ptrdiff_t top = static_cast<ptrdiff_t>(first * w.stride[1]) - w.pad[1];
        const ptrdiff_t reach = (count - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
        const size_t from = max<ptrdiff_t>(top, 0);
        if (unit == begin || first == 0) have_ = from;
        expand(image, max(have_, from), min<ptrdiff_t>(w.in[1], max<ptrdiff_t>(top + reach, 0)));
      }
      filter(image, first, count);
      if (args_.project) project(image * w.out[1] + first, count);
    }
  }

 private:
  // Input rows [from, end) of an image into the ring.
  void expand(size_t image, size_t from, size_t end) {
    const Window& w = args_.shape.window;
    const size_t channels = args_.shape.channels, width = w.in[2];
    for (size_t count; from < end; from += count) {
      const size_t at = from % plan_.rows;
      count = min(end - from, plan_.rows - at);
      gemm({count * width, channels, args_.inputs,
            args_.x + (image * w.in[1] + from) * width * args_.inputs, args_.inputs, args_.expand,
            ring_ + at * width * channels, channels, args_.expand_epilogue, args_.expand_in_lines});
      have_ = from + count;
    }
  }

  // The depthwise convolution of `count` output rows.
  void filter(size_t image, size_t first, size_t count) {
    const Window& w = args_.shape.window;
    const size_t channels = args_.shape.channels, row_floats = w.in[2] * channels;
    const size_t pixel = (image * w.out[1] + first) * w.out[2];
    ConvArgs c;
    c.shape = args_.shape;
    c.x = args_.expand ? ring_ : args_.x + image * w.in[1] * row_floats;
    c.weights = args_.depthwise;
    c.epilogue = args_.depthwise_epilogue;
    c.y = args_.project ? deep_ : args_.y + pixel * channels;
    if (c.epilogue.residual) c.epilogue.residual += pixel * c.epilogue.ld_residual;
    const size_t stored = args_.expand ? plan_.rows : (args_.shape.batch - image) * w.in[1];
    for (size_t i = 0; i < count; ++i) {
      const TapRange taps = tap_range(w, 1, first + i);
      size_t found = 0;
      for (size_t ky = taps.begin; ky < taps.end; ++ky) {
        const size_t row = taps.start + ky * w.dilation[1];
        rows_[found++] = {c.x + (args_.expand ? row % plan_.rows : row) * row_floats,
                          ky * w.kernel[2]};
      }
      DepthwiseLine(c, rows_, found, i, c.x + stored * row_floats).run(0, w.out[2]);
    }
  }

  // Output rows from `row`, counted through all images.
  void project(size_t row, size_t count) {
    const size_t width = args_.shape.window.out[2], channels = args_.shape.channels;
    const size_t ldy = args_.outputs + args_.gap;
    Epilogue e = args_.project_epilogue;
    if (e.residual) e.residual += row * width * e.ld_residual;
    gemm({count * width, args_.outputs, channels, deep_, channels, args_.project,
          args_.y + row * width * ldy, ldy, e, args_.project_in_lines});
  }

  const BottleneckArgs& args_;
  const BottleneckPlan plan_;
  DepthwiseRow* rows_;
  float *ring_, *deep_;
  size_t have_ = 0;  // the next input row that the ring lacks
};

// Units [begin, end) of plan_bottleneck(...).strips for each image, with bottleneck_scratch_size
// bytes of scratch of this thread's own.
ORTOLAN_NOINLINE inline void bottleneck_run_units(const BottleneckArgs& args, size_t begin,
                                                  size_t end, void* scratch) {
  BottleneckStrips(args, scratch).run(begin, end);
}

}  // namespace ortolan::ORTOLAN_ISA
