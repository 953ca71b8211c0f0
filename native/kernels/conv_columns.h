// Channels-last convolution to few outputs, which would leave most of a vector empty: the taps of a
// kernel row become columns of one product, [input pixels][taps * outputs], and each output pixel
// adds up what its neighbours hold for it. For stride 1 along a row and one group.
#pragma once

#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

// Columns of the product, and the floats of a row of its sums.
ORTOLAN_INLINE size_t tap_columns(const ConvShape& s) { return s.window.kernel[2] * s.outputs; }
ORTOLAN_INLINE size_t sums_row(const ConvShape& s) {
  return vectors_of(tap_columns(s)) * static_cast<size_t>(kLanes);
}

// Whether the product takes clearly less than the direct convolution, for `lanes` of a vector.
ORTOLAN_INLINE bool suits_tap_columns(const ConvShape& s, size_t stride, size_t lanes) {
  const size_t taps = s.window.kernel[2], columns = tap_columns(s);
  if (s.groups != 1 || stride != 1 || taps < 2 || columns < lanes) return false;
  auto vectors = [&](size_t n) { return (n + lanes - 1) / lanes; };
  const size_t deep = s.window.taps() / taps * s.channels;  // of the product
  const size_t adds = 2 * taps * ((s.outputs + 3) / 4);     // of four columns each
  const size_t direct =
      deep * taps * vectors(s.outputs) / (2 * s.outputs <= lanes && lanes > 8 ? 2 : 1);
  return (deep * vectors(columns) + adds) * 10 < direct * 9;
}

struct ColumnsPlan {
  size_t reach;   // input columns beyond the outputs'
  size_t block;   // output columns of a work unit
  size_t width;   // input columns of a work unit
  size_t across;  // units of a row
  size_t rows;    // output rows of a unit
  size_t strips;
  size_t segments;  // of the kernel, one tap each
  size_t step;      // rows of the product that get pointers at once
};

ORTOLAN_NOINLINE inline ColumnsPlan plan_columns(const ConvShape& s) {
  constexpr size_t kSums = 64 * 1024;  // floats, which stay in the second-level cache
  constexpr size_t kUnits = 16;        // at least, so that threads get equal shares
  constexpr size_t kPointers = 4096;
  const Window& w = s.window;
  ColumnsPlan p;
  p.reach = (w.kernel[2] - 1) * w.dilation[2];
  const size_t fits = kSums / sums_row(s), most = fits > 2 * p.reach ? fits - p.reach : fits;
  p.across = (w.out[2] + most - 1) / max<size_t>(most, 1);
  p.across = max<size_t>(p.across, 1);
  p.block = (w.out[2] + p.across - 1) / p.across;
  const size_t total = s.batch * w.out[0] * w.out[1];
  p.width = min(p.block + p.reach, w.in[2]);
  p.rows = max<size_t>(1, min(kBlockRows / max<size_t>(p.width, 1), total / kUnits));
  p.strips = (total + p.rows - 1) / p.rows;
  p.segments = w.kernel[0] * w.kernel[1];
  p.step = min(rows_per_block(p.rows * p.width, kBlockRows, 1),
               max<size_t>(1, kPointers / max<size_t>(p.segments, 1)));
  return p;
}

ORTOLAN_INLINE size_t columns_units(const ConvShape& s) {
  const ColumnsPlan p = plan_columns(s);
  return p.across * p.strips;
}

// Bytes of scratch that each thread needs: pointers, zeros, sums.
ORTOLAN_INLINE size_t columns_scratch_size(const ConvShape& s) {
  const ColumnsPlan p = plan_columns(s);
  const size_t sums = p.rows * p.width * sums_row(s) + kLanes;
  return p.segments * p.step * sizeof(float*) + (s.channels + sums) * sizeof(float);
}

// Floats of packed weights.
ORTOLAN_INLINE size_t packed_columns_size(const ConvShape& s) {
  return packed_size(tap_columns(s), s.window.taps() / s.window.kernel[2] * s.channels);
}

// ONNX weights [outputs][channels][kernel...], or such in the common form, to packed_columns_size
// floats.
ORTOLAN_NOINLINE inline void pack_columns_weights(const ConvShape& s, const float* weights,
                                                  bool in_lines, float* out) {
  const size_t taps = s.window.kernel[2], rows = s.window.taps() / taps, columns = tap_columns(s);
  for (size_t panel = 0; panel < panel_count(columns); ++panel)
    for_each_part(columns, panel, [&](const Part& part) {
      const size_t width = part.width(), last = width - part.lanes();
      float* to = out + part.column * rows * s.channels;
      for (size_t j = 0; j < width; ++j) {
        const size_t at = j < last ? j : part.last + j - last;
        const size_t column = part.column + at, tap = column / s.outputs;
        const TapWeights from = {s, weights, in_lines, column % s.outputs};
        for (size_t row = 0; row < rows; ++row)
#pragma clang loop vectorize(disable) unroll(disable)
          for (size_t c = 0; c < s.channels; ++c)
            to[(row * s.channels + c) * width + j] =
                column < columns ? *from.at(row * taps + tap, c) : 0;
      }
    });
}

// One work unit: output columns [x0, x1) of `rows` rows of images.
class ColumnsUnit {
 public:
  ColumnsUnit(const ConvArgs& args, const ColumnsPlan& plan, void* scratch)
      : args_(args), plan_(plan), pointers_(static_cast<const float**>(scratch)) {
    zeros_ = reinterpret_cast<float*>(pointers_ + plan.segments * plan.step);
    sums_ = zeros_ + args.shape.channels;
    fill_zero(zeros_, args.shape.channels * sizeof(float));
  }

  void run(size_t row, size_t rows, size_t x0, size_t x1) {
    const Window& w = args_.shape.window;
    const ptrdiff_t begin = static_cast<ptrdiff_t>(x0) - w.pad[2], width = w.in[2];
    const ptrdiff_t end = static_cast<ptrdiff_t>(x1 + plan_.reach) - w.pad[2];
    first_ = static_cast<size_t>(min(max<ptrdiff_t>(begin, 0), width));
    columns_ = static_cast<size_t>(max<ptrdiff_t>(min(end, width), first_)) - first_;
    for (size_t at = 0; at < rows * columns_; at += plan_.step)
      multiply(row, at, min(plan_.step, rows * columns_ - at));
    for (size_t r = 0; r < rows; ++r) add_row(r, row + r, x0, x1);
  }

 private:
  // Rows [at, at + count) of the product, which begins at image row `row`.
  void multiply(size_t row, size_t at, size_t count) {
    const ConvShape& s = args_.shape;
    const Window& w = s.window;
    const float** out = pointers_;
    for (size_t kz = 0; kz < w.kernel[0]; ++kz)
      for (size_t ky = 0; ky < w.kernel[1]; ++ky, out += plan_.step)
        for (size_t i = 0, many; i < count; i += many) {
          const size_t r = row + (at + i) / columns_, column = (at + i) % columns_;
          many = min(columns_ - column, count - i);
          const size_t y = r % w.out[1], z = r / w.out[1] % w.out[0], n = r / w.out[1] / w.out[0];
          const size_t iz = z * w.stride[0] + kz * w.dilation[0] - w.pad[0];
          const size_t iy = y * w.stride[1] + ky * w.dilation[1] - w.pad[1];
          const bool inside = iz < w.in[0] && iy < w.in[1];  // negative wraps to large
          const size_t pixel = ((n * w.in[0] + iz) * w.in[1] + iy) * w.in[2] + first_ + column;
          const float* from = inside ? args_.x + pixel * s.channels : zeros_;
          const size_t next = inside ? s.channels : 0;
          for (size_t k = 0; k < many; ++k, from += next) out[i + k] = from;
        }
    const TileInput in = {nullptr,        0, pointers_,  plan_.step,
                          plan_.segments, 0, s.channels, args_.weights};
    const size_t columns = tap_columns(s);
    for (size_t p = 0; p < panel_count(columns); ++p)
      multiply_panel(in, {}, sums_, sums_row(s), at, count, 0, columns, p);
  }

  // Output row `row` from row `r` of the unit's.
  void add_row(size_t r, size_t row, size_t x0, size_t x1) {
    const ConvShape& s = args_.shape;
    const Window& w = s.window;
    const Epilogue& e = args_.epilogue;
    const size_t N = s.outputs, ld = sums_row(s), dilation = w.dilation[2];
    const float* sums = sums_ + r * columns_ * ld;
    const size_t ldy = N + args_.gap;
    float* y = args_.y + row * w.out[2] * ldy;
    const float* residual = e.residual ? e.residual + row * w.out[2] * e.ld_residual : nullptr;
    // Where all taps are inside.
    const ptrdiff_t slack = w.in[2] + w.pad[2] - plan_.reach, left = max<ptrdiff_t>(w.pad[2], 0);
    const size_t begin = min(max(x0, static_cast<size_t>(left)), x1);
    const size_t end = static_cast<size_t>(min<ptrdiff_t>(max<ptrdiff_t>(slack, begin), x1));
    for (size_t x = x0, many; x < x1; x += many) {
      many = x == begin && begin < end ? end - begin : 1;
      const TapRange t = tap_range(w, 2, x);
      const float* from = sums;  // of tap t.begin
      if (t.begin < t.end) from += (t.start + t.begin * dilation - first_) * ld + t.begin * N;
      add_pixels(from, t.end - t.begin, dilation * ld + N, many, y + x * ldy,
                 residual ? residual + x * e.ld_residual : nullptr);
    }
    activation_pass(e, y + x0 * ldy, ldy, x1 - x0, N);
  }

  // Four columns at a time, the last ones overlapping: a pixel of the sums is `step` floats from
  // tap to tap.
  ORTOLAN_NOINLINE void add_pixels(const float* sums, size_t taps, size_t step, size_t pixels,
                                   float* y, const float* residual) {
    using Quad = Vec<float, 4>;
    const size_t N = args_.shape.outputs, ld = sums_row(args_.shape), ldy = N + args_.gap;
    const Epilogue& e = args_.epilogue;
    const Bounds bounds = clamp_bounds(e);
    const Quad low = splat<Quad>(bounds.low), high = splat<Quad>(bounds.high);
    for (size_t next = 0; next < N; next += 4) {
      const size_t n = N < 4 ? 0 : min(next, N - 4), many = min<size_t>(N, 4);
      const Quad bias = e.bias ? load_lanes<Quad>(e.bias + n, many, 0) : splat<Quad>(0);
      for (size_t p = 0; p < pixels; ++p) {
        const float* from = sums + p * ld + n;
        Quad v = bias;
        for (size_t t = 0; t < taps; ++t, from += step) v += load<Quad>(from);
        if (residual) v += load_lanes<Quad>(residual + p * e.ld_residual + n, many, 0);
        store_lanes(y + p * ldy + n, clamp_sums(v, low, high), many);
      }
    }
  }

  const ConvArgs& args_;
  const ColumnsPlan& plan_;
  const float** pointers_;
  float *zeros_, *sums_;
  size_t first_ = 0, columns_ = 0;  // of the input: of each of the unit's rows
};

// Units [begin, end), with columns_scratch_size bytes of scratch of this thread's own.
// args.weights are by pack_columns_weights.
ORTOLAN_NOINLINE inline void columns_run_units(const ConvArgs& args, size_t begin, size_t end,
                                               void* scratch) {
  const ColumnsPlan plan = plan_columns(args.shape);
  const Window& w = args.shape.window;
  const size_t total = args.shape.batch * w.out[0] * w.out[1];
  ColumnsUnit unit(args, plan, scratch);
  for (; begin < end; ++begin) {
    const size_t row = begin / plan.across * plan.rows, x = begin % plan.across * plan.block;
    unit.run(row, min(plan.rows, total - row), x, min(x + plan.block, w.out[2]));
  }
}

}  // namespace ortolan::ORTOLAN_ISA
