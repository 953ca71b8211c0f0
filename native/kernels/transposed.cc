// ConvTranspose over channels_last tensors, without a buffer of all products: each output pixel
// gathers the input pixels that reach it. Outputs `stride` apart see the same taps, so they are
// rows of a product of input pixels with the weights of those taps, as in conv_direct.h. Where that
// takes less, all outputs of a block of `stride` pixels a side are columns of one such product.
#include "kernels/window.h"

namespace ortolan::ORTOLAN_ISA {

namespace {

// One dimension. Taps `period` apart form a phase and reach the same outputs.
struct Axis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad = 0;
  int64_t period = 1;      // stride / gcd(stride, dilation)
  int64_t step = 1;        // dilation / gcd: input positions from tap to tap of a phase
  bool is_merged = false;  // into columns: all phases are one

  void set_period() {
    int64_t a = stride, b = dilation;
    while (b) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    period = stride / a;
    step = dilation / a;
  }
  bool merges() const { return !kTiny && is_merged; }
  int64_t phases() const { return merges() ? 1 : min(period, kernel); }
  // Outputs of a position.
  int64_t reach() const { return merges() ? stride : 1; }
  int64_t taps(int64_t phase) const { return (kernel - phase + period - 1) / period; }
  // Taps of the phases before this one.
  int64_t before(int64_t phase) const {
    return phase * (kernel / period) + min(phase, kernel % period);
  }
};

// Positions of a phase along an axis: outputs `stride` apart, which see the same taps of
// neighbouring inputs.
struct Line {
  ptrdiff_t first;  // output of position 0; of a merged axis it may lie before the image
  ptrdiff_t input;  // what tap 0 brings to it
  ptrdiff_t count, taps, step, in, out, stride, reach;

  Line(const Axis& a, int64_t phase)
      : taps(a.taps(phase)),
        step(a.step),
        in(a.in),
        out(a.out),
        stride(a.stride),
        reach(a.reach()) {
    const int64_t tap = phase * a.dilation, rest = (tap - a.pad) % a.stride;
    first = rest < 0 && !a.merges() ? rest + a.stride : rest;
    input = (first + a.pad - tap) / a.stride;
    count = max<ptrdiff_t>(out - first + stride - 1, 0) / stride;
  }
};

struct TransposedState {
  WindowAttributes window;
  bool kernel_known = true;
  int64_t groups = 1;
  int64_t output_padding[3] = {};
  int64_t output_shape[3] = {-1, -1, -1};
  const float* packed = nullptr;
  size_t bias = 2;  // the input; 3 where input 2 has the pads
};

struct Transposed {
  Axis axes[3];
  size_t batch = 1, groups = 1, channels = 0, outputs = 0;  // of one group
  bool is_merged = false;

  size_t taps() const {
    return static_cast<size_t>(axes[0].kernel * axes[1].kernel * axes[2].kernel);
  }
  size_t most_segments() const {
    return static_cast<size_t>(axes[0].taps(0) * axes[1].taps(0) * axes[2].taps(0));
  }
  size_t phases() const {
    return static_cast<size_t>(axes[0].phases() * axes[1].phases() * axes[2].phases());
  }
  // Columns of a group's product.
  size_t columns() const {
    return outputs * static_cast<size_t>(axes[0].reach() * axes[1].reach() * axes[2].reach());
  }
  // The same with those that panels fill up with zeros.
  size_t all_columns() const {
    const size_t lanes = fits_half(columns()) ? kHalfLanes : kLanes;
    return max<size_t>(columns(), kTiny ? kTileColumns : lanes);
  }
  size_t group_size() const {
    return packed_size(columns(), channels * (!kTiny && is_merged ? most_segments() : taps()));
  }
  size_t pixels(bool of_output) const {
    size_t n = 1;
    for (const Axis& a : axes) n *= static_cast<size_t>(of_output ? a.out : a.in);
    return n;
  }

  // Taps that are missing from a block's last pixels count as others do, and so does what a vector
  // has beyond the last column.
  void choose_merged() {
    if (kTiny || groups != 1) return;
    size_t block = 1;
    for (const Axis& a : axes) {
      if (a.stride > a.kernel || (a.stride > 1 && a.dilation > 1)) return;
      block *= static_cast<size_t>(a.stride);
    }
    const size_t apart = taps() * channels * vectors_of(outputs);
    const size_t together = (most_segments() * channels + 1) * vectors_of(outputs * block);
    is_merged = block > 1 && together <= apart;
    for (Axis& a : axes) a.is_merged = is_merged;
  }
};

// How the products are cut: rows are positions of a phase. Those of a long line are written to the
// output at once; short lines follow one another, through the batch, in a buffer of sums.
struct TransposedPlan {
  bool is_long;
  size_t block;   // rows of a unit
  size_t parts;   // units of a long line
  size_t blocks;  // of the phase that has most
  size_t panels;  // of one group
  size_t ld;      // of the sums of a panel

  explicit TransposedPlan(const Transposed& t) {
    constexpr size_t kPointers = 4096, kUnits = 16, kLong = kBlockRows / 2;
    size_t lines = t.batch, width = 0;
    for (const Axis& a : t.axes) {
      lines *= max<size_t>(width, 1);
      width = static_cast<size_t>((a.out + a.stride - 1) / a.stride + 1);
    }
    panels = panel_count(t.columns());
    ld = min<size_t>(t.all_columns(), kTileColumns + kLanes);
    const size_t limit = max<size_t>(min(kBlockRows, kPointers / t.most_segments()), 1);
    is_long = kTiny || (!t.is_merged && width >= kLong);
    if (is_long) {
      block = kTiny ? limit : rows_per_block(width, limit, 1);
      parts = (width + block - 1) / block;
      blocks = lines * parts;
    } else {
      const size_t units = max<size_t>(t.phases() * t.groups * panels, 1);
      block = rows_per_block(lines * width, limit, (kUnits + units - 1) / units);
      blocks = (lines * width + block - 1) / block;
      parts = 0;
    }
  }
  size_t units(const Transposed& t) const { return blocks * t.phases() * t.groups * panels; }
  // Pointers and zeros, then bias, sums and a vector that may be read behind them.
  size_t scratch_bytes(const Transposed& t) const {
    size_t floats = t.channels * t.groups;
    if (!is_long) floats += t.all_columns() * t.groups + block * ld + kLanes;
    size_t pointers;
    if (__builtin_mul_overflow(t.most_segments() * sizeof(float*), block, &pointers))
      return SIZE_MAX;
    return pointers > SIZE_MAX / 2 ? SIZE_MAX : pointers + floats * sizeof(float);
  }
};

// Where the weights of a phase begin, in taps, and how many it has.
struct Phase {
  int64_t at[3];
  int64_t taps[3];
  size_t start = 0;

  Phase(const Transposed& t, int64_t z, int64_t y, int64_t x) : at{z, y, x} {
    for (int i = 0; i < 3; ++i) taps[i] = t.axes[i].taps(at[i]);
    start = static_cast<size_t>(
        (t.axes[0].before(z) * t.axes[1].kernel + taps[0] * t.axes[1].before(y)) *
            t.axes[2].kernel +
        taps[0] * taps[1] * t.axes[2].before(x));
  }
  size_t segments() const { return static_cast<size_t>(taps[0] * taps[1] * taps[2]); }
};

// Weights [channels][outputs][taps] of a group into the panels of one phase. Columns are
// [z][y][x][outputs] of the pixels of a position.
[[clang::minsize]] ORTOLAN_NOINLINE void pack_phase(const Transposed& t, const Phase& phase,
                                                    const float* weights, float* out) {
  const size_t N = t.columns(), M = t.outputs, taps = t.taps(), segments = phase.segments();
  auto pack_column = [&](size_t column, size_t width, float* to) {
    int64_t pixel = static_cast<int64_t>(column / M);
    int64_t of[3];
    for (int i = 2; i >= 0; pixel /= t.axes[i].reach(), --i) of[i] = pixel % t.axes[i].reach();
    for (size_t s = 0; s < segments; ++s) {
      int64_t tap = 0, rest = static_cast<int64_t>(s), place = 1;
      bool exists = column < N;
      for (int i = 2; i >= 0; rest /= phase.taps[i], place *= t.axes[i].kernel, --i) {
        const Axis& a = t.axes[i];
        const int64_t at = phase.at[i] + rest % phase.taps[i] * a.period + of[i];
        exists = exists && at < a.kernel;
        tap += at * place;
      }
      const float* from = weights + column % M * taps + tap;
#pragma clang loop vectorize(disable) unroll(disable)
      for (size_t c = 0; c < t.channels; ++c, to += width) *to = exists ? from[c * M * taps] : 0;
    }
  };
  for (size_t p = 0; p < panel_count(N); ++p)
    for_each_part(N, p, [&](const Part& part) {
      const size_t columns = part.width(), last = columns - part.lanes();
      const size_t width =
          kHasOnlyLines ? line_width(round_up(N, kTileColumns), part.column) : columns;
      float* to = out + column_offset(0, segments * t.channels, part.column);
      for (size_t j = 0; j < columns; ++j)
        pack_column(kTiny      ? first_column(N, part.column) + j
                    : j < last ? part.column + j
                               : part.column + part.last + j - last,
                    width, to + j);
    });
}

void pack_transposed(const Transposed& t, const float* weights, float* out) {
  if (t.channels == 0) return;  // of such weights there may be any number of columns
  for (size_t g = 0; g < t.groups; ++g) {
    const float* from = weights + g * t.channels * t.outputs * t.taps();
    for (int64_t z = 0; z < t.axes[0].phases(); ++z)
      for (int64_t y = 0; y < t.axes[1].phases(); ++y)
        for (int64_t x = 0; x < t.axes[2].phases(); ++x) {
          const Phase phase(t, z, y, x);
          pack_phase(t, phase, from,
                     out + g * t.group_size() + packed_size(t.outputs, phase.start * t.channels));
        }
  }
}

// What the weights' shape says; the kernel of *window is set when only they tell it.
Status weights_shape(Context& c, const TransposedState& s, const Shape& w, WindowAttributes* window,
                     Transposed* t) {
  *window = s.window;
  if (window->rank == 0 && w.rank > 2 && w.rank <= 5) window->rank = w.rank - 2;
  if (window->rank == 0 || w.rank != window->rank + 2)
    return c.invalid("the weights of shape % need % dimensions", w.span(),
                     max<uint32_t>(window->rank, 1) + 2);
  if (s.groups > max<int64_t>(w[0], 1) || w[0] % s.groups != 0)
    return c.invalid("group % does not divide input channels %", s.groups, w[0]);
  t->groups = static_cast<size_t>(s.groups);
  t->channels = static_cast<size_t>(w[0] / s.groups);
  t->outputs = static_cast<size_t>(w[1]);
  for (uint32_t i = 0; i < window->rank; ++i) {
    if (!s.kernel_known) window->kernel[i] = w[2 + i];
    if (w[2 + i] != window->kernel[i])
      return c.invalid("the weights of shape % do not fit kernel_shape %", w.span(),
                       Span<const int64_t>{window->kernel, window->rank});
    Axis& axis = t->axes[3 - window->rank + i];
    axis.kernel = window->kernel[i];
    axis.stride = window->stride[i];
    axis.dilation = window->dilation[i];
    axis.set_period();
  }
  t->choose_merged();
  return s.kernel_known ? Status::kOk : check_kernel(c, *window);
}

// Sizes of the output and the padding before it.
Status place_output(Context& c, const TransposedState& s, const WindowAttributes& w,
                    const Shape& in, Shape* out, Transposed* t) {
  if (in.rank != w.rank + 2)
    return c.invalid("input 0 of shape % needs % dimensions", in.span(), w.rank + 2);
  if (in[1] != static_cast<int64_t>(t->channels * t->groups))
    return c.invalid("input 0 has % channels, the weights are for %", in[1],
                     t->channels * t->groups);
  for (uint32_t i = 0; i < w.rank; ++i) {
    Axis& a = t->axes[3 - w.rank + i];
    a.in = in[2 + i];
    if (a.in > kWindowLimit) return c.fail(Status::kLimitExceeded, "input 0 is too large");
    const int64_t all = max<int64_t>(a.in - 1, 0) * a.stride + s.output_padding[i] +
                        (a.kernel - 1) * a.dilation + 1;
    const bool same = w.auto_pad == AutoPad::kSameUpper || w.auto_pad == AutoPad::kSameLower;
    if (s.output_shape[i] >= 0 || same) {
      a.out = s.output_shape[i] >= 0 ? s.output_shape[i] : min(all, a.in * a.stride);
      const int64_t total = max<int64_t>(all - a.out, 0);
      a.pad = w.auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
    } else {
      const bool padded = w.auto_pad == AutoPad::kNotSet;
      a.pad = padded ? w.pad_begin[i] : 0;
      a.out = all - a.pad - (padded ? w.pad_end[i] : 0);
      if (a.out <= 0) return c.invalid("padding leaves nothing of dimension %", 2 + i);
    }
    if (a.in == 0) a.out = max<int64_t>(s.output_shape[i], 0);
    out->dims[2 + i] = a.out;
  }
  t->batch = static_cast<size_t>(in[0]);
  out->dims[1] = static_cast<int64_t>(t->outputs * t->groups);
  return Status::kOk;
}

// Copies `count` pixels of n floats each.
template <class V>
ORTOLAN_INLINE void copy_pixels(const float* from, size_t ld, float* to, size_t step, size_t n,
                                size_t count) {
  for (; count; --count, from += ld, to += step)
    for (size_t i = 0; i < n; i += kLanesOf<V>) {
      const size_t at = min<size_t>(i, n - kLanesOf<V>);
      store(to + at, load<V>(from + at));
    }
}

ORTOLAN_NOINLINE void copy_pixels_any(const float* from, size_t ld, float* to, size_t step,
                                      size_t n, size_t count) {
  using Quad = Vec<float, 4>;
  if (n >= kLanes) return copy_pixels<F>(from, ld, to, step, n, count);
  if (n >= 4) return copy_pixels<Quad>(from, ld, to, step, n, count);
  if (step == n)  // whole vectors reach into pixels that are written next
    for (; count * n >= 4; --count, from += ld, to += step) store(to, load<Quad>(from));
  for (; count; --count, from += ld, to += step)
    for (size_t i = 0; i < n; ++i) to[i] = from[i];
}

// Computes blocks of a phase's positions with the scratch of one thread.
class BlockRunner {
 public:
  BlockRunner(Context& c, const Transposed& t, const TransposedPlan& plan, const float* packed,
              void* scratch)
      : t_(t),
        plan_(plan),
        packed_(packed),
        x_(c.input_data<float>(0)),
        y_(c.output_data<float>(0)),
        pointers_(static_cast<const float**>(scratch)) {
    float* zeros = reinterpret_cast<float*>(pointers_ + t.most_segments() * plan.block);
    fill_zero(zeros, t.channels * t.groups * sizeof(float));
    zeros_ = zeros;
    const size_t input = c.state<TransposedState>().bias, columns = t.all_columns();
    const float* bias = c.has_input(input) ? c.input_data<float>(input) : nullptr;
    epilogue_.bias = bias;
    if (kTiny || plan.is_long) return;
    bias_ = zeros + t.channels * t.groups;
    sums_ = bias_ + columns * t.groups;
    for (size_t g = 0; g < t.groups; ++g)
#pragma clang loop vectorize(disable) unroll(disable)
      for (size_t i = 0; i < columns; ++i)
        bias_[g * columns + i] = bias && i < t.columns() ? bias[g * t.outputs + i % t.outputs] : 0;
  }

  void run(size_t begin, size_t end) {
    const size_t panels = t_.groups * plan_.panels;
    while (begin < end) {
      const size_t panel = begin % panels, rest = begin / panels;
      const size_t count = min(end - begin, panels - panel);
      run_block(static_cast<int64_t>(rest % t_.phases()), rest / t_.phases(), panel, panel + count);
      begin += count;
    }
  }

 private:
  void run_block(int64_t number, size_t block, size_t panel0, size_t panel1) {
    const Axis *y = &t_.axes[1], *x = &t_.axes[2];
    const int64_t qx = number % x->phases(), qy = number / x->phases() % y->phases();
    const Phase phase(t_, number / x->phases() / y->phases(), qy, qx);
    const Line lines[] = {{t_.axes[0], phase.at[0]}, {*y, qy}, {*x, qx}};
    lines_ = lines;
    size_t all = t_.batch;
    bool is_product = !kTiny && phase.segments() == 1;  // positions are inputs
    for (const Line& line : lines) {
      all *= static_cast<size_t>(line.count);
      is_product = is_product && line.input == 0 && line.count == line.in;
    }
    size_t row = block * plan_.block, end = all;
    if (kTiny || plan_.is_long) {
      const size_t width = static_cast<size_t>(lines[2].count), part = block % plan_.parts;
      row = block / plan_.parts * width;
      end = row < all ? row + width : 0;
      row += part * plan_.block;
    }
    if (row >= end) return;
    const size_t rows = min(plan_.block, end - row), channels = t_.channels * t_.groups;
    if (!is_product) build_pointers(row, rows);
    for (size_t p = panel0; p < panel1; ++p) {
      const size_t g = p / plan_.panels, panel = p % plan_.panels, begin = panel * kTileColumns;
      TileInput in = {nullptr,          0,
                      pointers_,        plan_.block,
                      phase.segments(), g * t_.channels,
                      t_.channels,      packed_ + g * t_.group_size()};
      in.b += packed_size(t_.outputs, phase.start * t_.channels);
      if (is_product) in.a = x_ + row * channels + in.offset, in.lda = channels, in.rows = nullptr;
      if (kTiny || plan_.is_long) {
        const size_t pixel = t_.outputs * t_.groups;
        multiply_panel(in, epilogue_, first_output(row), lines[2].stride * pixel, 0, rows,
                       g * t_.outputs, t_.outputs, panel);
        continue;
      }
      Epilogue epilogue;
      epilogue.bias = bias_ + g * t_.all_columns();
      multiply_panel(in, epilogue, sums_ - begin, plan_.ld, 0, rows, 0, t_.all_columns(), panel);
      place_sums(row, rows, g, begin, panel_column(t_.columns(), panel + 1));
    }
  }

  // Calls body(r, image, z, y, x, many) for rows [row, row + rows) by lines of positions.
  template <class Body>
  ORTOLAN_INLINE void for_each_line(size_t row, size_t rows, Body body) const {
    const size_t depth = static_cast<size_t>(lines_[0].count);
    const size_t height = static_cast<size_t>(lines_[1].count);
    const size_t width = static_cast<size_t>(lines_[2].count);
    for (size_t r = 0, many; r < rows; r += many) {
      const size_t x = (row + r) % width, line = (row + r) / width, plane = line / height;
      many = min(width - x, rows - r);
      body(r, plane / depth, plane % depth, line % height, x, many);
    }
  }

  // Pointers [segments][block] to input pixels.
  ORTOLAN_NOINLINE void build_pointers(size_t row, size_t rows) {
    const Line &lz = lines_[0], &ly = lines_[1], &lx = lines_[2];
    const ptrdiff_t channels = t_.channels * t_.groups;
    for_each_line(row, rows, [&](size_t r, size_t image, size_t z, size_t y, size_t x, size_t n) {
      const float** out = pointers_ + r;
      for (ptrdiff_t jz = 0; jz < lz.taps; ++jz)
        for (ptrdiff_t jy = 0; jy < ly.taps; ++jy) {
          const size_t iz = lz.input + z - jz * lz.step, iy = ly.input + y - jy * ly.step;
          const size_t depth = lz.in, height = ly.in, width = lx.in;
          const bool inside = iz < depth && iy < height;  // negative wraps to large
          const float* line =
              inside ? x_ + ((image * depth + iz) * height + iy) * width * channels : nullptr;
          for (ptrdiff_t jx = 0; jx < lx.taps; ++jx, out += plan_.block) {
            size_t ix = lx.input + x - jx * lx.step;
#pragma clang loop vectorize(disable) unroll(disable)
            for (size_t i = 0; i < n; ++i, ++ix)
              out[i] = line && ix < width ? line + ix * channels : zeros_;
          }
        }
    });
  }

  // Of a position.
  float* first_output(size_t row) const {
    float* to = nullptr;
    for_each_line(row, 1, [&](size_t, size_t image, size_t z, size_t y, size_t x, size_t) {
      size_t pixel = image;
      const size_t at[] = {z, y, x};
      for (int i = 0; i < 3; ++i)
        pixel = pixel * lines_[i].out + lines_[i].first + at[i] * lines_[i].stride;
      to = y_ + pixel * t_.outputs * t_.groups;
    });
    return to;
  }

  // Sums of columns [begin, end) of a group, to where they belong in the output.
  void place_sums(size_t row, size_t rows, size_t group, size_t begin, size_t end) {
    const Line &lz = lines_[0], &ly = lines_[1], &lx = lines_[2];
    const ptrdiff_t pixel = t_.outputs * t_.groups;
    const size_t width = t_.outputs * static_cast<size_t>(lx.reach);
    for_each_line(row, rows, [&](size_t r, size_t image, size_t z, size_t y, size_t x, size_t n) {
      for (ptrdiff_t i = 0; i < lz.reach * ly.reach; ++i) {
        const size_t oz = lz.first + z * lz.stride + i / ly.reach;
        const size_t oy = ly.first + y * ly.stride + i % ly.reach;
        const size_t depth = lz.out, height = ly.out, first = i * width;
        const size_t from = max(begin, first), to = min(end, first + width);
        if (from >= to || oz >= depth || oy >= height) continue;
        const ptrdiff_t column = lx.first + x * lx.stride;
        place_line(sums_ + r * plan_.ld + from - begin, to - from, n,
                   y_ + ((image * depth + oz) * height + oy) * lx.out * pixel,
                   column * pixel + group * t_.outputs + from - first);
      }
    });
  }

  // n floats of each of `count` positions into an output line, the first at `at`.
  ORTOLAN_NOINLINE void place_line(const float* from, size_t n, size_t count, float* line,
                                   ptrdiff_t at) {
    const ptrdiff_t pixel = t_.outputs * t_.groups, size = n;
    const ptrdiff_t step = lines_[2].stride * pixel, end = lines_[2].out * pixel;
    auto clipped = [&](const float* sums, ptrdiff_t to) {
#pragma clang loop vectorize(disable) unroll(disable)
      for (ptrdiff_t i = max<ptrdiff_t>(-to, 0); i < min(size, end - to); ++i)
        line[to + i] = sums[i];
    };
    for (; count && at < 0; --count, from += plan_.ld, at += step) clipped(from, at);
    for (; count; --count) {
      const ptrdiff_t last = count - 1;
      if (at + last * step + size <= end) break;
      clipped(from + last * plan_.ld, at + last * step);
    }
    copy_pixels_any(from, plan_.ld, line + at, static_cast<size_t>(step), n, count);
  }

  const Transposed& t_;
  const TransposedPlan& plan_;
  const float *packed_, *x_;
  float* y_;
  const float** pointers_;
  const float* zeros_;
  Epilogue epilogue_;
  float *bias_ = nullptr, *sums_ = nullptr;
  const Line* lines_ = nullptr;  // of the phase at hand
};

// Outputs that no tap reaches are the bias.
void fill_bias(const float* bias, size_t channels, size_t pixels, float* y) {
  for (; pixels; --pixels)
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t i = 0; i < channels; ++i) *y++ = bias ? bias[i] : 0;
}

// The pads of com.microsoft:ConvTransposeWithDynamicPads.
Status read_pads(Context& c, WindowAttributes* window) {
  int64_t pads[6];
  size_t n = 0;
  if (!c.input_ints(2, pads, 6, &n) || n != 2 * window->rank)
    return c.invalid("Pads must be % integers", 2 * window->rank);
  for (uint32_t i = 0; i < n; ++i) {
    if (pads[i] < 0 || pads[i] > kWindowLimit)
      return c.invalid("Pads have %, which is outside 0 to %", pads[i], kWindowLimit);
    (i < window->rank ? window->pad_begin[i] : window->pad_end[i - window->rank]) = pads[i];
  }
  return Status::kOk;
}

Status read_sizes(Context& c, String name, uint32_t rank, bool may_have_channels, int64_t* out) {
  Span<const int64_t> list = c.attribute_ints(name);
  if (list.empty()) return Status::kOk;
  if (list.size != rank && !(may_have_channels && list.size == rank + 2))
    return c.invalid("% has % entries, % are needed", name, list.size, rank);
  for (uint32_t i = 0; i < rank; ++i) {
    out[i] = list[list.size - rank + i];
    if (out[i] < 0 || out[i] > kWindowLimit)
      return c.invalid("% % has an entry outside 0 to %", name, list, kWindowLimit);
  }
  return Status::kOk;
}

}  // namespace

struct ConvTranspose {
  static Status prepare(Context& c) { return read(c, 2); }
  static Status read(Context& c, size_t bias) {
    auto* s = c.make_state<TransposedState>();
    if (!s) return c.out_of_memory();
    s->bias = bias;
    s->groups = c.attribute_int("group", 1);
    if (s->groups < 1) return c.invalid("group % is not positive", s->groups);
    const Slot* weights = c.constant_input(1);
    Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
    if (kernel.empty() && weights && weights->shape.rank > 2)
      kernel = {weights->shape.dims + 2, weights->shape.rank - 2};
    s->kernel_known = !kernel.empty();
    size_t rank = max(kernel.size, s->kernel_known ? 0 : c.attribute_ints("pads").size / 2);
    const String lists[] = {"strides", "dilations", "output_padding"};
    if (!s->kernel_known)
      for (String name : lists) rank = max(rank, c.attribute_ints(name).size);
    if (rank > 3)
      return c.fail(Status::kNotImplemented, "more than 3 spatial dimensions are not supported");
    s->window.rank = static_cast<uint32_t>(rank);
    for (size_t i = 0; i < kernel.size; ++i) s->window.kernel[i] = kernel[i];
    ORTOLAN_TRY(read_window(c, &s->window));
    if (rank) {
      ORTOLAN_TRY(read_sizes(c, "output_padding", s->window.rank, false, s->output_padding));
      ORTOLAN_TRY(read_sizes(c, "output_shape", s->window.rank, true, s->output_shape));
    }
    if (!weights) return Status::kOk;
    WindowAttributes window;
    Transposed t;
    ORTOLAN_TRY(weights_shape(c, *s, weights->shape, &window, &t));
    auto* packed = static_cast<float*>(c.model_memory(t.groups * t.group_size() * sizeof(float)));
    if (!packed) return c.out_of_memory();
    pack_transposed(t, static_cast<const float*>(weights->data), packed);
    s->packed = packed;
    c.has_packed(1);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Transposed t;
    Shape out;
    ORTOLAN_TRY(place(c, &out, &t));
    const size_t outputs = t.outputs * t.groups;
    const size_t bias = c.state<TransposedState>().bias;
    if (c.has_input(bias) && c.input_shape(bias).count() != outputs)
      return c.invalid("the bias has % elements, % are needed", c.input_shape(bias).count(),
                       outputs);
    c.request_scratch(
        c.state<TransposedState>().packed ? 0 : t.groups * t.group_size() * sizeof(float),
        TransposedPlan(t).scratch_bytes(t));
    return c.set_output(0, out);
  }

  template <class T>
  static Status run(Context& c) {
    Transposed t;
    Shape out;
    ORTOLAN_TRY(place(c, &out, &t));
    if (out.count() == 0) return Status::kOk;
    const size_t bias = c.state<TransposedState>().bias;
    const auto fill = [&] {
      fill_bias(c.has_input(bias) ? c.input_data<float>(bias) : nullptr, t.outputs * t.groups,
                t.batch * t.pixels(true), c.output_data<float>(0));
    };
    if (!t.channels) return fill(), Status::kOk;  // the kernel may be huge
    const float* packed = c.state<TransposedState>().packed;
    if (!packed) {
      float* own = static_cast<float*>(c.scratch());
      pack_transposed(t, c.input_data<float>(1), own);
      packed = own;
    }
    bool is_covered = true;
    for (const Axis& a : t.axes) is_covered = is_covered && (a.merges() || a.phases() == a.stride);
    if (!is_covered) fill();
    const TransposedPlan plan(t);
    const size_t columns = min(t.all_columns(), kTileColumns);
    const size_t work = plan.block * columns * t.channels * t.most_segments();
    c.parallel(plan.units(t), (1 << 18) / max<size_t>(work, 1) + 1,
               [&](size_t begin, size_t end, size_t thread) {
                 BlockRunner(c, t, plan, packed, c.thread_scratch(thread)).run(begin, end);
               });
    return Status::kOk;
  }

 private:
  static Status place(Context& c, Shape* out, Transposed* t) {
    const TransposedState& s = c.state<TransposedState>();
    WindowAttributes window;
    ORTOLAN_TRY(weights_shape(c, s, c.input_shape(1), &window, t));
    if (s.bias == 3 && c.has_input(2)) ORTOLAN_TRY(read_pads(c, &window));
    *out = c.input_shape(0);
    return place_output(c, s, window, c.input_shape(0), out, t);
  }
};

struct ConvTransposeWithDynamicPads : ConvTranspose {
  static Status prepare(Context& c) { return read(c, 3); }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "transposed.inc"
