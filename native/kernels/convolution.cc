// Conv, pooling and BatchNormalization over channels_last tensors.
#include "kernels/conv_ways.h"
#include "kernels/inverted_bottleneck.h"
#include "kernels/moments.h"
#include "kernels/pool_any.h"
#include "kernels/pool_channels_last.h"

namespace ortolan::ORTOLAN_ISA {

struct Conv {
  template <class T>
  static Status prepare(Context& c) {
    auto* s = c.make_state<ConvState>();
    if (!s) return c.out_of_memory();
    s->groups = c.attribute_int("group", 1);
    if (s->groups < 1) return c.invalid("group % is not positive", s->groups);
    const Slot *constant = c.constant_input(1), *weights = c.default_input(1);
    Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
    if (kernel.empty() && constant && constant->shape.rank > 2)
      kernel = {constant->shape.dims + 2, constant->shape.rank - 2};
    s->kernel_known = !kernel.empty();
    s->window.rank = kernel.empty() ? listed_rank(c) : static_cast<uint32_t>(kernel.size);
    if (s->window.rank > 3)
      return c.fail(Status::kNotImplemented, "more than 3 spatial dimensions are not supported");
    for (size_t i = 0; i < kernel.size; ++i) s->window.kernel[i] = kernel[i];
    ORTOLAN_TRY(read_window(c, &s->window));
    ORTOLAN_TRY(read_activation(c, "activation", "activation_params", &s->epilogue));
    WindowAttributes window;
    ConvShape shape;
    const Status fits =
        weights ? weights_shape(c, *s, weights->shape, &window, &shape) : Status::kOk;
    if (fits != Status::kOk && constant) return fits;
    if (fits != Status::kOk) weights = nullptr;  // callers may give some that fit
    choose_variants(c, s, weights ? &shape : nullptr);
    if (!weights) return Status::kOk;
    s->way = choose_way(c, *s, window, shape);
    if (is_packed(weights->layout)) {
      const bool is_first = weights->layout == Layout::kPackedFirst;
      if (shape.groups != 1 || !is_first || !takes_lines(shape.outputs))
        return c.fail(Status::kNotImplemented, "packed weights of shape % do not fit",
                      weights->shape.span());
      s->comes_in_lines = true;
      s->in_lines = s->way == Way::kPlain && reads_lines(shape.outputs);
      s->packed = static_cast<float*>(weights->data);
      if (s->in_lines) return Status::kOk;
    }
    auto* packed = static_cast<float*>(c.raw_model_memory(packed_bytes(*s, shape, s->way)));
    if (!packed) return c.out_of_memory();
    s->packed = packed;
    if (!constant) s->source = weights->data;
    if (!kSmall && s->way >= Way::kWinograd2 && c.is_stored(*weights)) {
      s->packing.put_off();
      return Status::kOk;
    }
    pack(*s, shape, s->way, static_cast<const float*>(weights->data), packed);
    if (constant) c.has_packed(1);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const ConvState& s = c.state<ConvState>();
    const Shape& in = c.input_shape(0);
    WindowAttributes window;
    ConvShape shape;
    ptrdiff_t after[3];
    ORTOLAN_TRY(weights_shape(c, s, c.input_shape(1), &window, &shape));
    Shape out = in;
    ORTOLAN_TRY(place_window(c, window, in, &out, &shape.window, after));
    if (in[1] != static_cast<int64_t>(shape.channels))
      return c.invalid("input 0 has % channels, the weights are for % in % groups", in[1],
                       shape.channels, s.groups);
    if (c.has_input(2) && c.input_shape(2).count() != shape.outputs)
      return c.invalid("the bias has % elements, % are needed", c.input_shape(2).count(),
                       shape.outputs);
    shape.batch = static_cast<size_t>(in[0]);
    fold_depth(&shape);
    out[1] = static_cast<int64_t>(shape.outputs);
    ORTOLAN_TRY(c.set_output(0, out));
    if (c.has_input(3) && !(c.input_shape(3) == out))
      return c.invalid("input 3 has shape %, the output %", c.input_shape(3).span(), out.span());
    const bool may_pack = !s.packed || s.source;  // in a run, plainly
    size_t own = scratch_bytes(s, shape, s.way);
    if (may_pack) own = max(own, scratch_bytes(s, shape, Way::kPlain));
    c.request_scratch(may_pack ? packed_bytes(s, shape) : 0, own);
    if (!kSmall && !is_by_lines(s, shape)) c.allow_gaps(0);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    const ConvState& s = c.state<ConvState>();
    WindowAttributes window;
    ConvArgs args;
    Shape out = c.output_shape(0);
    ptrdiff_t after[3];
    ORTOLAN_TRY(weights_shape(c, s, c.input_shape(1), &window, &args.shape));
    ORTOLAN_TRY(place_window(c, window, c.input_shape(0), &out, &args.shape.window, after));
    if (out.count() == 0) return Status::kOk;
    args.shape.batch = static_cast<size_t>(out[0]);
    fold_depth(&args.shape);
    args.x = c.input_data<float>(0);
    args.y = c.output_data<float>(0);
    args.gap = output_gap(c, args.shape.outputs);
    args.weights = s.packed;
    if (!kHasOnlyLines) args.in_lines = s.in_lines;
    Way way = s.way;
    if (!s.packed || (s.source && s.source != c.input_data<float>(1))) {
      auto* packed = static_cast<float*>(c.scratch());
      way = Way::kPlain;
      pack(s, args.shape, way, c.input_data<float>(1), packed);
      args.weights = packed;
    } else if (!kSmall) {
      s.packing.complete([&] { pack(s, args.shape, way, c.input_data<float>(1), s.packed); });
    }
    args.epilogue = s.epilogue;
    args.epilogue.bias = c.has_input(2) ? c.input_data<float>(2) : nullptr;
    args.epilogue.residual = c.has_input(3) ? c.input_data<float>(3) : nullptr;
    args.epilogue.ld_residual = args.shape.outputs;
    size_t work = out.count() * args.shape.window.taps() * args.shape.group_channels();
    size_t units = unit_count(s, args.shape, way, c.threads());
    c.parallel(units, grain(work, units), [&](size_t begin, size_t end, size_t thread) {
      run_units(s, args, way, c.threads(), begin, end, c.thread_scratch(thread));
    });
    return Status::kOk;
  }
};

// ai.ortolan: a 1x1 convolution before a depthwise one, or one behind it, or both. Inputs are those
// of the depthwise FusedConv (Z is added last), then weights and bias of the other two.
struct InvertedBottleneck {
  enum Input { kX, kWeights, kBias, kAdded, kExpand, kExpandBias, kProject, kProjectBias };

  struct State {
    WindowAttributes window;
    ConvShape shape;                  // of the depthwise convolution, without the image
    int64_t inputs = 0, outputs = 0;  // channels
    const float* packed[3] = {};      // expand, depthwise, project
    bool in_lines[3] = {};            // likewise
    Epilogue epilogues[3];            // likewise: activations
    Choice<variants::kDepthwiseNarrow> narrow;
  };

  template <class T>
  static Status prepare(Context& c) {
    auto* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    const Slot* w = c.constant_input(kWeights);
    if (!w || (c.has_input(kExpand) && !c.constant_input(kExpand)) ||
        (c.has_input(kProject) && !c.constant_input(kProject)))
      return c.fail(Status::kNotImplemented, "weights that are no constants are not supported");
    if (w->shape.rank != 4 || w->shape[0] < 1 || w->shape[1] != 1)
      return c.invalid("input 1 has shape %, [channels, 1, height, width] is needed",
                       w->shape.span());
    s->window.rank = 2;
    for (uint32_t i = 0; i < 2; ++i) s->window.kernel[i] = w->shape[2 + i];
    ORTOLAN_TRY(read_window(c, &s->window));
    ORTOLAN_TRY(read_activation(c, "expand_activation", "expand_params", &s->epilogues[0]));
    ORTOLAN_TRY(read_activation(c, "depthwise_activation", "depthwise_params", &s->epilogues[1]));
    ORTOLAN_TRY(read_activation(c, "project_activation", "project_params", &s->epilogues[2]));
    ConvShape& d = s->shape;
    d.groups = d.channels = d.outputs = static_cast<size_t>(w->shape[0]);
    for (uint32_t i = 0; i < 2; ++i) d.window.kernel[1 + i] = static_cast<size_t>(w->shape[2 + i]);
    s->inputs = s->outputs = w->shape[0];
    auto wide = [channels = d.channels](int lanes) {
      return channels >= static_cast<size_t>(lanes);
    };
    choose(c, &s->narrow, [=](int lanes) { return !wide(lanes); });
    note_depthwise(c, s->window, true, wide);
    note<variants::kActivations>(c, [=](int) {
      bool any = false;
      for (const Epilogue& e : s->epilogues) any = any || e.activation > Activation::kClip;
      return any;
    });
    if (d.channels < kLanes && !s->narrow)
      return c.fail(Status::kNotImplemented, "this build has no kernel for % channels", d.channels);
    ORTOLAN_TRY(pack_product(c, kExpand, 0, s->inputs, &s->inputs, &s->packed[0], &s->in_lines[0]));
    ORTOLAN_TRY(
        pack_product(c, kProject, 1, s->outputs, &s->outputs, &s->packed[2], &s->in_lines[2]));
    auto* packed = static_cast<float*>(c.model_memory(sizeof(float) * packed_depthwise_size(d)));
    if (!packed) return c.out_of_memory();
    pack_depthwise_weights(d, static_cast<const float*>(w->data), packed);
    s->packed[1] = packed;
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const State& s = c.state<State>();
    ConvShape shape;
    Shape out;
    ORTOLAN_TRY(place(c, &shape, &out));
    if (c.input_shape(kX)[1] != s.inputs)
      return c.invalid("input 0 has % channels, the weights are for %", c.input_shape(kX)[1],
                       s.inputs);
    const int64_t channels = static_cast<int64_t>(shape.channels);
    const int64_t sizes[3] = {channels, channels, s.outputs};
    const Input biases[3] = {kExpandBias, kBias, kProjectBias};
    for (int i = 0; i < 3; ++i)
      if (c.has_input(biases[i]) &&
          static_cast<int64_t>(c.input_shape(biases[i]).count()) != sizes[i])
        return c.invalid("the bias has % elements, % are needed", c.input_shape(biases[i]).count(),
                         sizes[i]);
    if (c.has_input(kAdded) && !(c.input_shape(kAdded) == out))
      return c.invalid("input 3 has shape %, the output %", c.input_shape(kAdded).span(),
                       out.span());
    c.request_scratch(0, bottleneck_scratch_size(shape, s.packed[0], s.packed[2]));
    ORTOLAN_TRY(c.set_output(0, out));
    if (!kSmall && s.packed[2]) c.allow_gaps(0);
    return Status::kOk;
  }

  template <class T>
  static Status run(Context& c) {
    const State& s = c.state<State>();
    BottleneckArgs args;
    Shape out;
    ORTOLAN_TRY(place(c, &args.shape, &out));
    if (out.count() == 0) return Status::kOk;
    args.inputs = static_cast<size_t>(s.inputs);
    args.outputs = static_cast<size_t>(s.outputs);
    args.x = c.input_data<float>(kX);
    args.y = c.output_data<float>(0);
    args.gap = output_gap(c, args.outputs);
    args.expand = s.packed[0], args.depthwise = s.packed[1], args.project = s.packed[2];
    args.expand_in_lines = s.in_lines[0], args.project_in_lines = s.in_lines[2];
    args.expand_epilogue = with_bias(c, s.epilogues[0], kExpandBias);
    args.depthwise_epilogue = with_bias(c, s.epilogues[1], kBias);
    args.project_epilogue = with_bias(c, s.epilogues[2], kProjectBias);
    Epilogue& last = args.project ? args.project_epilogue : args.depthwise_epilogue;
    if (c.has_input(kAdded)) last.residual = c.input_data<float>(kAdded);
    last.ld_residual = args.outputs;
    const BottleneckPlan plan = plan_bottleneck(args.shape, args.expand, args.project);
    const size_t units = args.shape.batch * plan.strips;
    const size_t each = args.inputs + args.outputs + args.shape.window.taps();
    c.parallel(units, grain(args.shape.rows() * args.shape.channels * each, units),
               [&](size_t begin, size_t end, size_t thread) {
                 bottleneck_run_units(args, begin, end, c.thread_scratch(thread));
               });
    return Status::kOk;
  }

 private:
  // Weights [N][K][1][1] of a 1x1 convolution, which has `have` channels in dimension `at`; *other
  // gets the other number. Nothing where the input is missing.
  static Status pack_product(Context& c, Input input, uint32_t at, int64_t have, int64_t* other,
                             const float** packed, bool* in_lines) {
    const Slot* w = c.constant_input(input);
    if (!w) return Status::kOk;
    const Shape& shape = w->shape;
    if (shape.rank != 4 || shape[at] != have || shape[2] != 1 || shape[3] != 1)
      return c.invalid("input % has shape %, which does not fit % channels",
                       static_cast<int>(input), shape.span(), have);
    *other = shape[1 - at];
    const size_t N = static_cast<size_t>(shape[0]), K = static_cast<size_t>(shape[1]);
    PackSource source = {static_cast<const float*>(w->data), 1, 0, K, 1, K, is_packed(w->layout)};
    if (source.in_lines && (w->layout != Layout::kPackedFirst || !takes_lines(N)))
      return c.fail(Status::kNotImplemented, "packed weights of shape % do not fit", shape.span());
    if (source.in_lines && reads_lines(N)) {
      *packed = source.b;
      *in_lines = true;
      return Status::kOk;
    }
    auto* out = static_cast<float*>(c.model_memory(sizeof(float) * packed_size(N, K)));
    if (!out) return c.out_of_memory();
    pack_panels(source, N, 0, panel_count(N), out);
    *packed = out;
    return Status::kOk;
  }

  static Status place(Context& c, ConvShape* shape, Shape* out) {
    const State& s = c.state<State>();
    const Shape& in = c.input_shape(kX);
    ptrdiff_t after[3];
    *shape = s.shape;
    *out = in;
    ORTOLAN_TRY(place_window(c, s.window, in, out, &shape->window, after));
    shape->batch = static_cast<size_t>(in[0]);
    (*out)[1] = s.outputs;
    return Status::kOk;
  }

  static Epilogue with_bias(const Context& c, Epilogue e, Input input) {
    if (c.has_input(input)) e.bias = c.input_data<float>(input);
    return e;
  }
};

namespace {

struct PoolState {
  WindowAttributes window;
  bool count_include_pad = false;
  bool column_major = false;
};

Status prepare_pool(Context& c) {
  auto* s = c.make_state<PoolState>();
  if (!s) return c.out_of_memory();
  Span<const int64_t> kernel = c.attribute_ints("kernel_shape");
  if (kernel.empty() || kernel.size > 3)
    return c.fail(Status::kNotImplemented, "kernel_shape must have 1 to 3 entries, not %",
                  kernel.size);
  s->window.rank = static_cast<uint32_t>(kernel.size);
  for (size_t i = 0; i < kernel.size; ++i) s->window.kernel[i] = kernel[i];
  s->window.ceil_mode = c.attribute_int("ceil_mode", 0) != 0;
  s->count_include_pad = c.attribute_int("count_include_pad", 0) != 0;
  s->column_major = c.attribute_int("storage_order", 0) != 0;
  return read_window(c, &s->window);
}

Status infer_pool(Context& c) {
  Window window;
  ptrdiff_t after[3];
  Shape out = c.input_shape(0);
  ORTOLAN_TRY(place_window(c, c.state<PoolState>().window, c.input_shape(0), &out, &window, after));
  ORTOLAN_TRY(c.set_output(0, out));
  return c.set_output(1, out);
}

Status fill_pool(Context& c, PoolKind kind, PoolArgs* args) {
  const PoolState& s = c.state<PoolState>();
  Shape out = c.input_shape(0);
  ORTOLAN_TRY(place_window(c, s.window, c.input_shape(0), &out, &args->window, args->pad_after));
  args->kind = kind;
  args->count_include_pad = s.count_include_pad;
  args->batch = static_cast<size_t>(out[0]);
  args->channels = static_cast<size_t>(out[1]);
  return Status::kOk;
}

template <class T>
void run_pool(Context& c, PoolArgs& args) {
  if (c.output_shape(0).count() == 0) return;
  if constexpr (!is_same<T, float>) {
    const size_t pixels = args.batch * args.window.out_pixels();
    const size_t total = c.output_shape(0).count() * args.window.taps();
    c.parallel(pixels, grain(total, pixels), [&](size_t begin, size_t end, size_t) {
      for (size_t p = begin; p < end; ++p)
        pool_any_pixel<T>(args, c.input_data<T>(0), p, c.output_data<T>(0));
    });
    return;
  }
  args.x = c.input_data<float>(0);
  args.y = c.output_data<float>(0);
  size_t units = pool_units(args), work = c.output_shape(0).count() * args.window.taps();
  c.parallel(units, grain(work, units),
             [&](size_t begin, size_t end, size_t) { pool_run_units(args, begin, end); });
}

// Where each maximum of MaxPool was found: an index into the whole plain input tensor.
template <class T>
ORTOLAN_NOINLINE void find_maxima(const PoolArgs& a, const T* images, bool column_major,
                                  int64_t* indices) {
  const Window& w = a.window;
  size_t in_pixels = w.in_pixels(), out_pixels = w.out_pixels();
  for (size_t p = 0; p < a.batch * out_pixels; ++p) {
    size_t n = p / out_pixels, rest = p % out_pixels;
    for (size_t ch = 0; ch < a.channels; ++ch) {
      T best = lowest<T>();
      size_t found = 0;
      bool any = false;
      for_each_tap(w, rest, [&](size_t z, size_t y, size_t x) {
        const T v = images[(n * in_pixels + (z * w.in[1] + y) * w.in[2] + x) * a.channels + ch];
        if (any && !is_larger(v, best)) return;
        any = true;
        best = v;
        found = column_major ? (x * w.in[1] + y) * w.in[0] + z : (z * w.in[1] + y) * w.in[2] + x;
      });
      indices[(n * a.channels + ch) * out_pixels + rest] =
          static_cast<int64_t>((n * a.channels + ch) * in_pixels + found);
    }
  }
}

}  // namespace

struct MaxPool {
  static Status prepare(Context& c) { return prepare_pool(c); }
  static Status infer(Context& c) { return infer_pool(c); }
  template <class T>
  static Status run(Context& c) {
    PoolArgs args;
    ORTOLAN_TRY(fill_pool(c, PoolKind::kMax, &args));
    run_pool<T>(c, args);
    if (c.has_output(1))
      find_maxima(args, c.input_data<T>(0), c.state<PoolState>().column_major,
                  c.output_data<int64_t>(1));
    return Status::kOk;
  }
};

struct AveragePool {
  static Status prepare(Context& c) { return prepare_pool(c); }
  static Status infer(Context& c) { return infer_pool(c); }
  template <class T>
  static Status run(Context& c) {
    PoolArgs args;
    ORTOLAN_TRY(fill_pool(c, PoolKind::kAverage, &args));
    run_pool<T>(c, args);
    return Status::kOk;
  }
};

namespace {

Status infer_global_pool(Context& c) {
  Shape out = c.input_shape(0);
  if (out.rank < 3) return c.invalid("input 0 of shape % has no spatial dimensions", out.span());
  for (uint32_t i = 2; i < out.rank; ++i) out[i] = 1;
  return c.set_output(0, out);
}

template <class T>
Status run_global_pool(Context& c, PoolKind kind) {
  const Shape& in = c.input_shape(0);
  PoolArgs args;
  args.kind = kind;
  args.batch = static_cast<size_t>(in[0]);
  args.channels = static_cast<size_t>(in[1]);
  args.window.in[2] = args.window.kernel[2] = in.product(2, in.rank);
  run_pool<T>(c, args);
  return Status::kOk;
}

}  // namespace

struct GlobalAveragePool {
  static Status infer(Context& c) { return infer_global_pool(c); }
  template <class T>
  static Status run(Context& c) {
    const Shape& in = c.input_shape(0);
    if constexpr (!is_same<T, float>) return run_global_pool<T>(c, PoolKind::kAverage);
    size_t batch = static_cast<size_t>(in[0]), channels = static_cast<size_t>(in[1]);
    size_t pixels = in.product(2, in.rank), units = global_average_units(batch, channels);
    c.parallel(units, grain(in.count(), units), [&](size_t begin, size_t end, size_t) {
      global_average_run_units(c.input_data<float>(0), pixels, channels, c.output_data<float>(0),
                               begin, end);
    });
    return Status::kOk;
  }
};

struct GlobalMaxPool {
  static Status infer(Context& c) { return infer_global_pool(c); }
  template <class T>
  static Status run(Context& c) {
    return run_global_pool<T>(c, PoolKind::kMax);
  }
};

// y = x * factor + term with one factor and term per channel.
struct BatchNormalization {
  struct State {
    float epsilon, momentum;
    bool is_training;
  };
  static Status prepare(Context& c) {
    auto* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->epsilon = c.attribute_float("epsilon", 1e-5f);
    s->momentum = c.attribute_float("momentum", 0.9f);
    // Before there is no such attribute, and there are outputs that it says nothing about.
    s->is_training = c.since_version() >= 14 && c.attribute_int("training_mode", 0) != 0;
    if (c.since_version() < 9 && c.attribute_int("spatial", 1) == 0)
      return c.fail(Status::kNotImplemented, "spatial 0 is not supported");
    for (size_t i = 1; i < c.output_count(); ++i)
      if (c.has_output(i) && !s->is_training)
        return c.fail(Status::kNotImplemented, "output % exists in training only", i);
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const Shape& in = c.input_shape(0);
    if (in.rank < 1) return c.invalid("input 0 has no dimensions");
    size_t channels = in.rank > 1 ? static_cast<size_t>(in[1]) : 1;
    for (size_t i = 1; i < 5; ++i)
      if (c.input_shape(i).count() != channels)
        return c.invalid("input % has shape %, but there are % channels", i,
                         c.input_shape(i).span(), channels);
    c.request_scratch(2 * (channels + kWide) * element_size(c.input_type(0)));
    for (size_t i = 1; i < c.output_count(); ++i)
      if (c.has_output(i)) ORTOLAN_TRY(c.set_output(i, c.input_shape(i + 2)));
    return c.set_output(0, in);
  }
  template <class T>
  static Status run(Context& c) {
    Shape in = c.input_shape(0);
    size_t channels = in.rank > 1 ? static_cast<size_t>(in[1]) : 1;
    auto* factor = static_cast<T*>(c.scratch());
    T* term = factor + channels + kWide;
    for (size_t i = 0; i < channels; ++i) {
      const T epsilon = static_cast<T>(c.state<State>().epsilon);
      T mean = number<T>(c, 3, i), variance = number<T>(c, 4, i);
      if (c.state<State>().is_training) {
        double found[2];
        estimate(c, channels, i, found);
        mean = static_cast<T>(found[0]);
        variance = static_cast<T>(found[1]);
      }
      factor[i] = number<T>(c, 1, i) / math::sqrt(variance + epsilon);
      term[i] = number<T>(c, 2, i) - mean * factor[i];
    }
    if (in.count() == 0) return Status::kOk;
    if (c.input_layout(0) == Layout::kChannelsLast)
      scale_pixels(c, in.count(), channels, factor, term);
    else
      scale_planes(c, in.rank > 2 ? in.product(2, in.rank) : 1, in.count(), factor, term);
    return Status::kOk;
  }

 private:
  // Elements that are worth waking a thread for; elements of rows of whole pixels.
  static constexpr size_t kWork = 1 << 15, kWide = 64;

  // Few channels are repeated, so that rows are long enough for vectors.
  template <class T>
  static void scale_pixels(Context& c, size_t count, size_t channels, T* factor, T* term) {
    size_t wide = channels;
    for (; wide + channels <= kWide; wide += channels)
      for (size_t i = 0; i < channels; ++i) factor[wide + i] = factor[i], term[wide + i] = term[i];
    const size_t rows = count / wide, rest = count % wide;
    const T* x = c.input_data<T>(0);
    T* y = c.output_data<T>(0);
    c.parallel(rows, kWork / wide + 1, [&](size_t begin, size_t end, size_t) {
      scale_columns(x + begin * wide, y + begin * wide, end - begin, wide, factor, term);
    });
    if (rest) scale_columns(x + rows * wide, y + rows * wide, 1, rest, factor, term);
  }

  template <class T>
  static void scale_planes(Context& c, size_t inner, size_t count, const T* factor, const T* term) {
    const size_t channels =
        c.input_shape(0).rank > 1 ? static_cast<size_t>(c.input_shape(0)[1]) : 1;
    c.parallel(count / inner, kWork / inner + 1, [&](size_t begin, size_t end, size_t) {
      for (; begin < end; ++begin) {
        const T* __restrict x = c.input_data<T>(0) + begin * inner;
        T* __restrict y = c.output_data<T>(0) + begin * inner;
        const T f = factor[begin % channels], t = term[begin % channels];
#pragma clang loop unroll(disable)
        for (size_t i = 0; i < inner; ++i) y[i] = x[i] * f + t;
      }
    });
  }

  // Training: mean and variance of a channel of this batch in the place of those that are given,
  // which move towards them by 1 - momentum. Small, not fast: models are rarely left in training.
  [[gnu::noinline, gnu::cold]] static void estimate(Context& c, size_t channels, size_t channel,
                                                    double found[2]) {
    const Shape& in = c.input_shape(0);
    bool is_last = c.input_layout(0) == Layout::kChannelsLast;
    size_t per_channel = in.count() / channels;
    size_t inner = is_last || in.rank < 2 ? 1 : in.product(2, in.rank);
    for (size_t pass = 0; pass < 2; ++pass) {
      double sum = 0;
      for (size_t i = 0; i < per_channel; ++i) {
        size_t block = i / inner, at = (block * channels + channel) * inner + i % inner;
        double x = number<double>(c, 0, at);
        sum += pass ? (x - found[0]) * (x - found[0]) : x;
      }
      found[pass] = sum / static_cast<double>(per_channel);
      if (!c.has_output(1 + pass)) continue;
      double momentum = static_cast<double>(c.state<State>().momentum);
      double given = number<double>(c, 3 + pass, channel);
      double moved = given * momentum + found[pass] * (1 - momentum);
      if (c.output_type(1 + pass) == DataType::kFloat)
        c.output_data<float>(1 + pass)[channel] = static_cast<float>(moved);
      else
        c.output_data<double>(1 + pass)[channel] = moved;
    }
  }
  // Parameters may be of another float type than X.
  template <class T>
  static T number(const Context& c, size_t input, size_t i) {
    return c.input_type(input) == DataType::kFloat ? static_cast<T>(c.input_data<float>(input)[i])
                                                   : static_cast<T>(c.input_data<double>(input)[i]);
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "convolution.inc"
