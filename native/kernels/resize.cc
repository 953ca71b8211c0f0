// Resize and Upsample: every mode is a separable resampling. The tables of the axes are made at the
// start of each run, in scratch; they are small beside the tensor.
#include "core/context.h"
#include "kernels/resize_taps.h"

namespace ortolan::ORTOLAN_ISA {

struct Resize {
  static Status prepare(Context& c);
  static Status infer(Context& c);
  template <class T>
  static Status run(Context& c) {
    static_assert(is_same<T, float>);
    return run_float(c);
  }

 private:
  struct Axes {
    uint32_t rank = 0, count = 0;
    uint32_t listed[kMaxRank];  // the `count` axes that roi, scales and sizes speak of
    ResizeAxis axes[kMaxRank];
  };

  // The resampled axes in memory order, with the memory that run needs.
  struct Plan {
    Shape in, out;  // in memory order
    uint32_t count = 0;
    uint32_t places[kMaxRank];
    ResizeAxis axes[kMaxRank];
    size_t taps[kMaxRank];
    size_t table_bytes = 0, between_bytes = 0, row_bytes = 0;
  };

  static Status choose(Context& c, String attribute, Span<const String> names, void* choice);
  static Status read_names(Context& c, ResizeState* state);
  static Status read_axes(Context& c, Axes* axes);
  static Status read_scales(Context& c, Axes* axes);
  static Status read_sizes(Context& c, Axes* axes);
  static Status read_roi(Context& c, Axes* axes);
  static Status make_plan(Context& c, const Axes& axes, Plan* plan);
  static void extrapolate(const Plan& plan, uint32_t i, const TapTable& table, float value,
                          float* out);
  static void run_passes(Context& c, const Plan& plan, const TapTable* tables, float* between);
  static Status run_float(Context& c);
  // The last two axes, when they are neighbours, are resampled in one pass.
  static bool ends_in_pair(const Plan& p) {
    return p.count >= 2 && p.places[p.count - 1] == p.places[p.count - 2] + 1;
  }
};

namespace {

ORTOLAN_NOINLINE void fill(float* out, size_t n, float value) {
#pragma clang loop unroll(disable)
  for (size_t i = 0; i < n; ++i) out[i] = value;
}

// Elements of the dimensions [begin, end). Called often where speed does not matter.
ORTOLAN_NOINLINE size_t volume(const Shape& shape, uint32_t begin, uint32_t end) {
  size_t n = 1;
#pragma clang loop unroll(disable) vectorize(disable)
  for (uint32_t i = begin; i < end; ++i) n *= static_cast<size_t>(shape[i]);
  return n;
}

}  // namespace

Status Resize::choose(Context& c, String attribute, Span<const String> names, void* choice) {
  const String name = c.attribute_string(attribute, names[0]);
  for (uint8_t i = 0; i < names.size; ++i) {
    if (!(names[i] == name)) continue;
    *static_cast<uint8_t*>(choice) = i;
    return Status::kOk;
  }
  return c.invalid("% \"%\" is unknown", attribute, name);
}

// The names are in the order of the enumerations, the standard's default first.
Status Resize::read_names(Context& c, ResizeState* state) {
  const String modes[] = {"nearest", "linear", "cubic"};
  const String ways[] = {
      "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
      "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize",
  };
  const String nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
  const String policies[] = {"stretch", "not_larger", "not_smaller"};
  ORTOLAN_TRY(choose(c, "mode", {modes, 3}, &state->mode));
  if (c.since_version() < 11) return Status::kOk;
  ORTOLAN_TRY(choose(c, "coordinate_transformation_mode", {ways, 7}, &state->coordinates));
  ORTOLAN_TRY(choose(c, "nearest_mode", {nearest, 4}, &state->nearest));
  return choose(c, "keep_aspect_ratio_policy", {policies, 3}, &state->aspect);
}

Status Resize::prepare(Context& c) {
  ResizeState* state = c.make_state<ResizeState>();
  if (!state) return c.out_of_memory();
  ORTOLAN_TRY(read_names(c, state));
  const int32_t version = c.since_version();
  state->enlarges_only = version < 10;
  state->roi_input = version >= 11 ? 1 : 0;
  state->scales_input = version >= 11 ? 2 : version >= 9 ? 1 : 0;
  state->sizes_input = version >= 11 ? 3 : 0;
  if (version < 11) return Status::kOk;
  state->antialias = c.attribute_int("antialias", 0) != 0;
  state->exclude_outside = c.attribute_int("exclude_outside", 0) != 0;
  state->cubic_a = c.attribute_float("cubic_coeff_a", -0.75f);
  state->extrapolation = c.attribute_float("extrapolation_value", 0);
  if (state->antialias && state->mode == ResizeMode::kNearest)
    return c.invalid("antialias needs mode linear or cubic");
  return Status::kOk;
}

Status Resize::read_scales(Context& c, Axes* axes) {
  const ResizeState& state = c.state<ResizeState>();
  Span<const float> scales;
  if (state.scales_input == 0) {
    const Attribute* attribute = c.attribute("scales");
    if (attribute && attribute->kind == AttributeKind::kFloats) scales = attribute->floats;
  } else if (c.has_input(state.scales_input)) {
    scales = {c.input_data<float>(state.scales_input), c.input_shape(state.scales_input).count()};
  }
  if (scales.size != axes->count)
    return c.invalid("there are % scales for % axes", scales.size, axes->count);
#pragma clang loop unroll(disable) vectorize(disable)
  for (uint32_t i = 0; i < axes->count; ++i) {
    ResizeAxis& axis = axes->axes[axes->listed[i]];
    axis.scale = scales[i];
    if (!(axis.scale > 0 && axis.scale < 1e9f) || (state.enlarges_only && axis.scale < 1))
      return c.invalid("the scale of axis % is too small or too large", axes->listed[i]);
    const float size = static_cast<float>(axis.in) * axis.scale;
    if (!(size < 1e18f)) return c.invalid("axis % becomes too large", axes->listed[i]);
    axis.out = static_cast<int64_t>(size);
  }
  return Status::kOk;
}

Status Resize::read_sizes(Context& c, Axes* axes) {
  const ResizeState& state = c.state<ResizeState>();
  int64_t sizes[kMaxRank];
  size_t count = 0;
  if (!c.input_ints(state.sizes_input, sizes, kMaxRank, &count) || count != axes->count)
    return c.invalid("sizes must be one int64 for each of % axes", axes->count);
  float common = 0;
  for (uint32_t i = 0; i < count; ++i) {
    ResizeAxis& axis = axes->axes[axes->listed[i]];
    if (sizes[i] < 0 || (axis.in == 0 && sizes[i] > 0))
      return c.invalid("axis % cannot go from % to %", axes->listed[i], axis.in, sizes[i]);
    axis.out = sizes[i];
    if (axis.in > 0) axis.scale = static_cast<float>(axis.out) / static_cast<float>(axis.in);
    const bool better =
        state.aspect == ResizeAspect::kNotLarger ? axis.scale < common : axis.scale > common;
    if (i == 0 || better) common = axis.scale;
  }
  if (state.aspect == ResizeAspect::kStretch) return Status::kOk;
  for (uint32_t i = 0; i < count; ++i) {
    ResizeAxis& axis = axes->axes[axes->listed[i]];
    const double size = static_cast<double>(common * static_cast<float>(axis.in));
    if (!(size < 1e18)) return c.invalid("axis % becomes too large", axes->listed[i]);
    axis.scale = common;
    axis.out = static_cast<int64_t>(size + 0.5);
  }
  return Status::kOk;
}

Status Resize::read_roi(Context& c, Axes* axes) {
  const size_t input = c.state<ResizeState>().roi_input;
  const size_t count = input && c.has_input(input) ? c.input_shape(input).count() : 0;
  if (count != 2 * static_cast<size_t>(axes->count))
    return c.invalid("roi has % values for % axes", count, axes->count);
  if (count == 0) return Status::kOk;  // of a scalar; roi may not be there
  const float* roi = c.input_data<float>(input);
#pragma clang loop unroll(disable) vectorize(disable)
  for (uint32_t i = 0; i < axes->count; ++i) {
    axes->axes[axes->listed[i]].roi_begin = roi[i];
    axes->axes[axes->listed[i]].roi_end = roi[axes->count + i];
  }
  return Status::kOk;
}

Status Resize::read_axes(Context& c, Axes* axes) {
  const ResizeState& state = c.state<ResizeState>();
  const Shape& input = c.input_shape(0);
  axes->rank = axes->count = input.rank;
#pragma clang loop unroll(disable) vectorize(disable)
  for (uint32_t i = 0; i < input.rank; ++i) {
    axes->listed[i] = i;
    axes->axes[i].in = axes->axes[i].out = input[i];
  }
  const Span<const int64_t> listed = c.attribute_ints("axes");
  if (listed.size > input.rank) return c.invalid("axes % do not fit rank %", listed, input.rank);
  uint32_t seen = 0;
  for (size_t i = 0; i < listed.size; ++i) {
    int64_t axis = listed[i];
    if (!normalize_axis(&axis, input.rank) || seen >> axis & 1)
      return c.invalid("axes % do not fit rank %", listed, input.rank);
    seen |= 1u << axis;
    axes->listed[i] = static_cast<uint32_t>(axis);
    axes->count = static_cast<uint32_t>(listed.size);
  }
  const uint8_t sizes = state.sizes_input;
  const bool has_sizes = sizes > 0 && c.has_input(sizes) && c.input_shape(sizes).count() > 0;
  ORTOLAN_TRY(has_sizes ? read_sizes(c, axes) : read_scales(c, axes));
  if (state.coordinates == ResizeCoordinates::kTfCropAndResize) ORTOLAN_TRY(read_roi(c, axes));
  return Status::kOk;
}

// Which axes need work, and the memory for it. Called for outputs that are not empty.
Status Resize::make_plan(Context& c, const Axes& axes, Plan* plan) {
  const ResizeState& state = c.state<ResizeState>();
  const bool last = c.input_layout(0) == Layout::kChannelsLast && axes.rank >= 3;
  uint64_t table = 0;
#pragma clang loop unroll(disable)
  for (uint32_t i = 0; i < axes.rank; ++i) {
    const ResizeAxis& axis = axes.axes[!last || i == 0 ? i : i + 1 < axes.rank ? i + 1 : 1];
    plan->in.append(axis.in);
    plan->out.append(axis.out);
    const bool whole = axis.roi_begin == 0 && axis.roi_end == 1;
    if (axis.scale == 1 && axis.in == axis.out && whole) continue;
    if (axis.in > INT32_MAX || axis.out > INT32_MAX)
      return c.fail(Status::kLimitExceeded, "an axis of % is too long", max(axis.in, axis.out));
    const uint64_t taps = tap_count(state, axis.scale);
    plan->places[plan->count] = i;
    plan->axes[plan->count] = axis;
    plan->taps[plan->count++] = static_cast<size_t>(taps);
    table += static_cast<uint64_t>(axis.out) * (taps * sizeof(Tap) + 1) + 8;
  }
  // Results of all passes but the last go through memory of their own, two buffers in turn.
  Shape between = plan->in;
  uint64_t largest = 0;
  for (uint32_t i = 0; i + (ends_in_pair(*plan) ? 2 : 1) < plan->count; ++i) {
    between[plan->places[i]] = plan->axes[i].out;
    size_t bytes = 0;
    if (!checked_bytes(between, sizeof(float), &bytes)) return c.out_of_memory();
    largest = max<uint64_t>(largest, bytes);
  }
  plan->table_bytes = round_up(static_cast<size_t>(table), 64);
  plan->between_bytes = round_up(static_cast<size_t>(largest), 64);
  if (ends_in_pair(*plan))
    plan->row_bytes =
        volume(plan->in, plan->places[plan->count - 1], plan->in.rank) * sizeof(float);
  if (table > SIZE_MAX / 4 || largest > SIZE_MAX / 8) return c.out_of_memory();
  return Status::kOk;
}

Status Resize::infer(Context& c) {
  Axes axes;
  ORTOLAN_TRY(read_axes(c, &axes));
  Shape shape;
  for (uint32_t i = 0; i < axes.rank; ++i) shape.append(axes.axes[i].out);
  ORTOLAN_TRY(c.set_output(0, shape));
  if (volume(shape, 0, shape.rank) == 0) return Status::kOk;
  Plan plan;
  ORTOLAN_TRY(make_plan(c, axes, &plan));
  if (plan.count == 0)
    c.alias(0, 0);
  else
    c.request_scratch(plan.table_bytes + 2 * plan.between_bytes, plan.row_bytes);
  return Status::kOk;
}

// Output positions whose place lay outside the input have a value of their own.
void Resize::extrapolate(const Plan& plan, uint32_t i, const TapTable& table, float value,
                         float* out) {
  const uint32_t place = plan.places[i];
  const size_t outer = volume(plan.out, 0, place), size = static_cast<size_t>(plan.axes[i].out);
  const size_t inner = volume(plan.out, place + 1, plan.out.rank);
  for (size_t k = 0; k < outer * size; ++k, out += inner)
    if (table.outside[k % size]) fill(out, inner, value);
}

void Resize::run_passes(Context& c, const Plan& plan, const TapTable* tables, float* between) {
  const float* in = c.input_data<float>(0);
  Shape dims = plan.in;
  for (uint32_t i = 0; i < plan.count;) {
    const uint32_t place = plan.places[i];
    const bool pair = i + 2 == plan.count && ends_in_pair(plan);
    const size_t inner = volume(dims, place + (pair ? 2 : 1), dims.rank);
    Pass pass = {volume(dims, 0, place), 1, 1, 1, 1, inner, nullptr, nullptr};
    if (pair || inner > 1) {
      pass.rows = &tables[i];
      pass.in_rows = static_cast<size_t>(dims[place]);
      dims[place] = plan.axes[i++].out;
      pass.out_rows = static_cast<size_t>(dims[place]);
    }
    if (pair || inner == 1) {
      int64_t& columns = dims[plan.places[i]];
      pass.columns = &tables[i];
      pass.in_columns = static_cast<size_t>(columns);
      columns = plan.axes[i++].out;
      pass.out_columns = static_cast<size_t>(columns);
    }
    float* to = i == plan.count ? c.output_data<float>(0)
                                : between + (i & 1) * (plan.between_bytes / sizeof(float));
    const size_t grain = 16384 / (pass.out_columns * inner) + 1;
    c.parallel(pass.outer * pass.out_rows, grain, [&](size_t begin, size_t end, size_t thread) {
      resample_rows(pass, in, to, begin, end, static_cast<float*>(c.thread_scratch(thread)));
    });
    in = to;
  }
}

Status Resize::run_float(Context& c) {
  const size_t count = volume(c.output_shape(0), 0, c.output_shape(0).rank);
  if (count == 0 || c.input_data<float>(0) == c.output_data<float>(0)) return Status::kOk;
  const ResizeState& state = c.state<ResizeState>();
  Axes axes;
  Plan plan;
  ORTOLAN_TRY(read_axes(c, &axes));
  ORTOLAN_TRY(make_plan(c, axes, &plan));
  if (plan.count == 0) copy(c.output_data<float>(0), c.input_data<float>(0), count * sizeof(float));
  TapTable tables[kMaxRank];
  char* memory = static_cast<char*>(c.scratch());
  float* between = reinterpret_cast<float*>(memory + plan.table_bytes);
  const bool crops = state.coordinates == ResizeCoordinates::kTfCropAndResize;
  for (uint32_t i = 0; i < plan.count; ++i) {
    const size_t size = static_cast<size_t>(plan.axes[i].out);
    tables[i].taps = plan.taps[i];
    tables[i].entries = reinterpret_cast<Tap*>(memory);
    memory += size * plan.taps[i] * sizeof(Tap);
    if (crops) tables[i].outside = reinterpret_cast<uint8_t*>(memory);
    memory += round_up(size, 8);
    fill_table(state, plan.axes[i], tables[i]);
  }
  run_passes(c, plan, tables, between);
  for (uint32_t i = 0; crops && i < plan.count; ++i)
    extrapolate(plan, i, tables[i], state.extrapolation, c.output_data<float>(0));
  return Status::kOk;
}

}  // namespace ortolan::ORTOLAN_ISA

#include "resize.inc"
