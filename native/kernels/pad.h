// Pad: the input goes into the middle of the output, then axis by axis, innermost first, the
// borders are filled: with a constant, or with planes that the output already holds.
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

struct Pad {
  enum class Mode : uint8_t { kConstant, kReflect, kEdge, kWrap };
  struct State {
    Mode mode = Mode::kConstant;
    bool from_inputs = false;
    uint64_t value = 0;  // bits of the attribute, before version 11
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    const String mode = c.attribute_string("mode", "constant");
    if (mode == "reflect")
      state->mode = Mode::kReflect;
    else if (mode == "edge")
      state->mode = Mode::kEdge;
    else if (mode == "wrap" && c.since_version() >= 19)
      state->mode = Mode::kWrap;
    else if (!(mode == "constant"))
      return c.invalid("mode \"%\" is unknown", mode);
    // Version 1 is com.microsoft's.
    state->from_inputs = c.since_version() >= 11 || c.since_version() == 1;
    if (state->from_inputs) return Status::kOk;
    const float value = c.attribute_float("value", 0);
    const double wide = value;
    if (c.input_type(0) == DataType::kDouble)
      copy(&state->value, &wide, sizeof(wide));
    else
      copy(&state->value, &value, sizeof(value));
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Borders borders;
    ORTOLAN_TRY(read_pads(c, &borders));
    Shape shape = c.input_shape(0);
    for (uint32_t i = 0; i < shape.rank; ++i) {
      int64_t& dim = shape[i];
      const int64_t before = borders.before[i], after = borders.after[i];
      if (__builtin_add_overflow(dim, before, &dim) || __builtin_add_overflow(dim, after, &dim) ||
          dim < 0)
        return c.invalid("pads % and % do not fit axis % of %", before, after, i,
                         c.input_shape(0).span());
    }
    ORTOLAN_TRY(c.set_output(0, shape));
    if (shape.count() == 0) return Status::kOk;
    for (uint32_t i = 0; i < shape.rank; ++i)
      if (Extent(c, borders, i).size == 0 && c.state<State>().mode != Mode::kConstant)
        return c.invalid("axis % of % has nothing to pad with", i, c.input_shape(0).span());
    // Without borders the result may be one piece of the input.
    Middle middle(c, borders);
    if (middle.nest.count() == shape.count() && middle.nest.contiguous())
      c.alias(0, 0, middle.from * word_size(c));
    return Status::kOk;
  }

  static Status run(Context& c) {
    Borders borders;
    ORTOLAN_TRY(read_pads(c, &borders));
    if (c.output_shape(0).count() == 0) return Status::kOk;
    const size_t width = word_size(c);
    Middle middle(c, borders);
    const char* from = c.input_data<char>(0) + middle.from * width;
    // In place. A place where nothing is kept is not a sign of it: it is anybody's.
    if (middle.nest.count() && from == c.output_data<char>(0)) return Status::kOk;
    copy_strided(c, middle.nest, width, from, c.output_data<char>(0) + middle.to * width);
    const uint64_t zero = 0;
    const void* value = c.state<State>().from_inputs ? &zero : &c.state<State>().value;
    if (c.has_input(2) && c.input_shape(2).count() > 0) value = c.input_data<void>(2);
    for (uint32_t i = c.output_shape(0).rank; i-- > 0;)
      fill_axis(c, borders, i, static_cast<const char*>(value));
    return Status::kOk;
  }

 private:
  // Per logical axis; negative numbers cut off.
  struct Borders {
    int64_t before[kMaxRank] = {}, after[kMaxRank] = {};
  };

  // Where the kept part of an axis (logical) begins in input and output, and its size.
  struct Extent {
    int64_t from, to, size;

    ORTOLAN_NOINLINE Extent(const Context& c, const Borders& borders, uint32_t axis) {
      const int64_t before = borders.before[axis], after = borders.after[axis];
      from = before < 0 ? 0 - before : 0;
      size = max<int64_t>(c.input_shape(0)[axis] - from + (after < 0 ? after : 0), 0);
      to = min(max<int64_t>(before, 0), c.output_shape(0)[axis]);
    }
  };

  static Status read_pads(Context& c, Borders* borders) {
    const uint32_t rank = c.input_shape(0).rank;
    int64_t axes[kMaxRank];
    size_t count = rank;
    for (uint32_t i = 0; i < rank; ++i) axes[i] = i;
    const State& state = c.state<State>();
    if (state.from_inputs && c.has_input(3)) ORTOLAN_TRY(short_list(c, 3, "axes", axes, &count));
    int64_t read[2 * kMaxRank];
    Span<const int64_t> pads = c.attribute_ints("pads");
    if (state.from_inputs) {
      pads = {read, 0};
      if (!c.input_ints(1, read, 2 * kMaxRank, &pads.size))
        return c.invalid("pads must be at most % integers", 2 * kMaxRank);
    }
    if (pads.size != 2 * count) return c.invalid("pads has % values for % axes", pads.size, count);
    uint32_t seen = 0;
    for (size_t i = 0; i < count; ++i) {
      ORTOLAN_TRY(resolve_new_axis(c, &axes[i], rank, &seen));
      if (pads[i] < INT64_MIN / 4 || pads[i + count] < INT64_MIN / 4)
        return c.invalid("pads % are out of range", pads);
      borders->before[axes[i]] = pads[i];
      borders->after[axes[i]] = pads[i + count];
    }
    return Status::kOk;
  }

  // The loops over the kept part, and where it begins in input and output, in elements.
  struct Middle {
    Nest nest;
    size_t from = 0, to = 0;

    Middle(const Context& c, const Borders& borders) {
      const Dense input = Dense::input(c, 0), output = Dense::output(c, 0);
      for (uint32_t i = 0; i < input.dims.rank; ++i) {
        const Extent extent(c, borders, input.order[i]);
        nest.add(static_cast<size_t>(extent.size), input.strides[i], output.strides[i]);
        // Where nothing is kept the places may be anywhere: they wrap.
        from += static_cast<size_t>(extent.from) * static_cast<size_t>(input.strides[i]);
        to += static_cast<size_t>(extent.to) * static_cast<size_t>(output.strides[i]);
      }
      if (nest.count() == 0) from = to = 0;
    }
  };

  // The plane of the kept part [0, size) that belongs at `place`, which may lie outside it.
  static int64_t source(Mode mode, int64_t place, int64_t size) {
    if (mode == Mode::kEdge) return min(max<int64_t>(place, 0), size - 1);
    const int64_t period = mode == Mode::kWrap ? size : max<int64_t>(2 * (size - 1), 1);
    const int64_t turn = place % period, at = turn < 0 ? turn + period : turn;
    return mode == Mode::kWrap || at < size ? at : period - at;
  }

  // Fills both borders of an axis (in memory), wherever the outer axes have their kept part.
  static void fill_axis(Context& c, const Borders& borders, uint32_t axis, const char* value) {
    const Dense output = Dense::output(c, 0);
    const Extent kept(c, borders, output.order[axis]);
    const int64_t dim = output.dims[axis];
    if (kept.size == dim) return;
    const size_t width = word_size(c);
    Nest outer;
    char* origin = c.output_data<char>(0);
    for (uint32_t i = 0; i < axis; ++i) {
      const Extent extent(c, borders, output.order[i]);
      outer.add(static_cast<size_t>(extent.size), 0, output.strides[i]);
      origin += static_cast<size_t>(extent.to * output.strides[i]) * width;
    }
    const Mode mode = c.state<State>().mode;
    const size_t plane = static_cast<size_t>(output.strides[axis]);
    const size_t added = static_cast<size_t>(dim - kept.size) * plane * width;
    c.parallel(outer.count(), 65536 / added + 1, [&](size_t begin, size_t end, size_t) {
      if (begin == end) return;
      NestWalk walk(outer, begin);
      for (size_t i = begin; i < end; ++i, walk.next()) {
        char* base = origin + walk.out * static_cast<ptrdiff_t>(width);
        for (int64_t k = kept.to == 0 ? kept.size : 0; k < dim; ++k) {
          char* to = base + static_cast<size_t>(k) * plane * width;
          if (mode == Mode::kConstant) {
            const int64_t end_of_side = k < kept.to ? kept.to : dim;
            fill(to, value, width, static_cast<size_t>(end_of_side - k) * plane);
            k = end_of_side - 1;
          } else {
            const int64_t place = kept.to + source(mode, k - kept.to, kept.size);
            copy_piece(to, base + static_cast<size_t>(place) * plane * width, plane * width);
          }
          if (k + 1 == kept.to) k += kept.size;
        }
      }
    });
  }
};

}  // namespace ortolan::portable
