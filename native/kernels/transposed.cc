// ConvTranspose over channels_last tensors, without a buffer of products: each output pixel gathers
// the input pixels that reach it. Pixels `stride` apart see the same taps, so a row of them is a
// product of pixels behind pointers with the weights of those taps, as in conv_direct.h.
#include "kernels/window.h"

namespace ortolan::ORTOLAN_ISA {

namespace {

// One dimension. Taps `period` apart form a phase and reach the same outputs.
struct Axis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad = 0;
  int64_t period = 1;  // stride / gcd(stride, dilation)
  int64_t step = 1;    // dilation / gcd: input positions from tap to tap of a phase

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
  int64_t phases() const { return min(period, kernel); }
  int64_t taps(int64_t phase) const { return (kernel - phase + period - 1) / period; }
  // Taps of the phases before this one.
  int64_t before(int64_t phase) const {
    return phase * (kernel / period) + min(phase, kernel % period);
  }
  // Input position that tap 0 of a phase brings to an output; false when it falls between inputs.
  bool source(int64_t phase, int64_t position, int64_t* in_position) const {
    const int64_t at = position + pad - phase * dilation;
    *in_position = at / stride;
    return at % stride == 0;
  }
  // First output of a phase.
  int64_t first(int64_t phase) const {
    const int64_t rest = (phase * dilation - pad) % stride;
    return rest < 0 ? rest + stride : rest;
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

  size_t taps() const {
    return static_cast<size_t>(axes[0].kernel * axes[1].kernel * axes[2].kernel);
  }
  size_t most_segments() const {
    return static_cast<size_t>(axes[0].taps(0) * axes[1].taps(0) * axes[2].taps(0));
  }
  size_t group_size() const { return packed_size(outputs, channels * taps()); }
  size_t block() const { return max<size_t>(min(kBlockRows, 4096 / most_segments()), 1); }
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

// Weights [channels][outputs][taps] of a group into the panels of one phase.
void pack_phase(const Transposed& t, const Phase& phase, const float* weights, float* out) {
  const size_t N = t.outputs, taps = t.taps(), K = phase.segments() * t.channels;
  size_t segment = 0;
  for (int64_t jz = 0; jz < phase.taps[0]; ++jz)
    for (int64_t jy = 0; jy < phase.taps[1]; ++jy)
      for (int64_t jx = 0; jx < phase.taps[2]; ++jx, ++segment) {
        const Axis* a = t.axes;
        const int64_t z = phase.at[0] + jz * a[0].period, y = phase.at[1] + jy * a[1].period;
        const int64_t x = phase.at[2] + jx * a[2].period;
        const size_t tap = static_cast<size_t>((z * a[1].kernel + y) * a[2].kernel + x);
        const PackSource source = {weights + tap, 1, 0, t.channels, N * taps, taps};
        for (size_t p = 0; p < panel_count(N); ++p)
          for_each_part(N, p, [&](const Part& part) {
            pack_part(source, N, part,
                      out + part.column * K + segment * t.channels * part.vectors * kLanes);
          });
      }
}

void pack_transposed(const Transposed& t, const float* weights, float* out) {
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

// Computes rows of output pixels with the scratch of one thread: pointers, then zeros.
class RowRunner {
 public:
  RowRunner(Context& c, const Transposed& t, const float* packed, void* scratch)
      : t_(t),
        packed_(packed),
        x_(c.input_data<float>(0)),
        y_(c.output_data<float>(0)),
        pointers_(static_cast<const float**>(scratch)) {
    const size_t bias = c.state<TransposedState>().bias;
    epilogue_.bias = c.has_input(bias) ? c.input_data<float>(bias) : nullptr;
    float* zeros = reinterpret_cast<float*>(pointers_ + t.most_segments() * t.block());
    fill_zero(zeros, t.channels * t.groups * sizeof(float));
    zeros_ = zeros;
  }

  // Row `unit` of batch x depth x height.
  void run(size_t unit) {
    const Axis *z = &t_.axes[0], *y = &t_.axes[1], *x = &t_.axes[2];
    const size_t depth = static_cast<size_t>(z->out), height = static_cast<size_t>(y->out);
    const int64_t oz = static_cast<int64_t>(unit / height % depth);
    const int64_t oy = static_cast<int64_t>(unit % height);
    const size_t n = unit / height / depth, M = t_.outputs * t_.groups;
    image_ = x_ + n * static_cast<size_t>(z->in * y->in * x->in) * t_.channels * t_.groups;
    row_ = y_ + unit * static_cast<size_t>(x->out) * M;
    int64_t qz = 0, qy = 0;
    while (qz < z->phases() && !z->source(qz, oz, &iz_)) ++qz;
    while (qy < y->phases() && !y->source(qy, oy, &iy_)) ++qy;
    const bool reached = qz < z->phases() && qy < y->phases();
    if (!reached || x->phases() < x->stride) fill_bias(M);
    if (!reached) return;
    for (int64_t qx = 0; qx < x->phases(); ++qx) run_phase(Phase(t_, qz, qy, qx));
  }

 private:
  void fill_bias(size_t M) {
    float* to = row_;
    for (int64_t i = 0; i < t_.axes[2].out; ++i)
      for (size_t m = 0; m < M; ++m) *to++ = epilogue_.bias ? epilogue_.bias[m] : 0;
  }

  void run_phase(const Phase& phase) {
    const Axis& x = t_.axes[2];
    const int64_t first = x.first(phase.at[2]);
    if (first >= x.out) return;
    const size_t count = static_cast<size_t>((x.out - first + x.stride - 1) / x.stride);
    const size_t M = t_.outputs * t_.groups, stride = static_cast<size_t>(x.stride);
    const int64_t from = (first + x.pad - phase.at[2] * x.dilation) / x.stride;
    for (size_t begin = 0; begin < count; begin += t_.block()) {
      const size_t rows = min(t_.block(), count - begin);
      build_pointers(phase, from + static_cast<int64_t>(begin), rows);
      float* to = row_ + (static_cast<size_t>(first) + begin * stride) * M;
      for (size_t g = 0; g < t_.groups; ++g) {
        const float* weights =
            packed_ + g * t_.group_size() + packed_size(t_.outputs, phase.start * t_.channels);
        const TileInput in = {nullptr,         0,           pointers_, t_.block(), phase.segments(),
                              g * t_.channels, t_.channels, weights};
        for (size_t p = 0; p < panel_count(t_.outputs); ++p)
          multiply_panel(in, epilogue_, to, stride * M, 0, rows, g * t_.outputs, t_.outputs, p);
      }
    }
  }

  // Pointers [segments][block] to the input pixels of `rows` outputs, the first one's tap 0 of the
  // phase being at input column `x0`.
  void build_pointers(const Phase& phase, int64_t x0, size_t rows) {
    const Axis *z = &t_.axes[0], *y = &t_.axes[1], *x = &t_.axes[2];
    const size_t channels = t_.channels * t_.groups;
    const float** out = pointers_;
    for (int64_t jz = 0; jz < phase.taps[0]; ++jz)
      for (int64_t jy = 0; jy < phase.taps[1]; ++jy) {
        const int64_t iz = iz_ - jz * z->step, iy = iy_ - jy * y->step;
        const bool inside = iz >= 0 && iz < z->in && iy >= 0 && iy < y->in;
        for (int64_t jx = 0; jx < phase.taps[2]; ++jx, out += t_.block())
          for (size_t r = 0; r < rows; ++r) {
            const int64_t ix = x0 + static_cast<int64_t>(r) - jx * x->step;
            out[r] = inside && ix >= 0 && ix < x->in
                         ? image_ + static_cast<size_t>((iz * y->in + iy) * x->in + ix) * channels
                         : zeros_;
          }
      }
  }

  const Transposed& t_;
  const float *packed_, *x_;
  float* y_;
  const float** pointers_;
  const float* zeros_;
  Epilogue epilogue_;
  const float* image_ = nullptr;
  float* row_ = nullptr;
  int64_t iz_ = 0, iy_ = 0;
};

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
        t.most_segments() * t.block() * sizeof(float*) + t.channels * t.groups * sizeof(float));
    return c.set_output(0, out);
  }

  template <class T>
  static Status run(Context& c) {
    Transposed t;
    Shape out;
    ORTOLAN_TRY(place(c, &out, &t));
    if (out.count() == 0) return Status::kOk;
    const float* packed = c.state<TransposedState>().packed;
    if (!packed) {
      float* own = static_cast<float*>(c.scratch());
      pack_transposed(t, c.input_data<float>(1), own);
      packed = own;
    }
    const size_t units = t.batch * static_cast<size_t>(t.axes[0].out * t.axes[1].out);
    const size_t work =
        static_cast<size_t>(t.axes[2].out) * t.outputs * t.groups * t.channels * t.most_segments();
    c.parallel(units, (1 << 18) / max<size_t>(work, 1) + 1,
               [&](size_t begin, size_t end, size_t thread) {
                 RowRunner runner(c, t, packed, c.thread_scratch(thread));
                 for (size_t unit = begin; unit < end; ++unit) runner.run(unit);
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
