// Slice, Split and Concat: pieces of tensors, in the order of memory of whatever layout they have.
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

struct Slice {
  struct State {
    bool from_inputs = false;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->from_inputs = c.since_version() >= 10;
    return Status::kOk;
  }

  static Status infer(Context& c) {
    Selection selection;
    ORTOLAN_TRY(resolve(c, &selection));
    Shape shape;
    shape.rank = c.input_shape(0).rank;
    for (uint32_t i = 0; i < shape.rank; ++i) shape[i] = selection.size[i];
    ORTOLAN_TRY(c.set_output(0, shape));
    if (shape.count() == 0) return Status::kOk;
    Nest nest;
    const ptrdiff_t offset = plan(c, selection, &nest);
    if (nest.contiguous()) c.alias(0, 0, static_cast<size_t>(offset) * word_size(c));
    return Status::kOk;
  }

  static Status run(Context& c) {
    Selection selection;
    ORTOLAN_TRY(resolve(c, &selection));
    if (c.output_shape(0).count() == 0) return Status::kOk;
    Nest nest;
    const ptrdiff_t offset = plan(c, selection, &nest) * static_cast<ptrdiff_t>(word_size(c));
    copy_strided(c, nest, word_size(c), c.input_data<char>(0) + offset, c.output_data<char>(0));
    return Status::kOk;
  }

 private:
  // Per logical dimension; size is that of the result.
  struct Selection {
    int64_t start[kMaxRank], step[kMaxRank], size[kMaxRank];
  };
  struct Lists {
    int64_t starts[kMaxRank], ends[kMaxRank], axes[kMaxRank], steps[kMaxRank];
    size_t count = 0;
  };

  static Status read_inputs(Context& c, Lists* lists) {
    size_t ends = 0, axes = 0, steps = 0;
    ORTOLAN_TRY(short_list(c, 1, "starts", lists->starts, &lists->count));
    ORTOLAN_TRY(short_list(c, 2, "ends", lists->ends, &ends));
    axes = steps = lists->count;
    if (c.has_input(3)) ORTOLAN_TRY(short_list(c, 3, "axes", lists->axes, &axes));
    if (c.has_input(4)) ORTOLAN_TRY(short_list(c, 4, "steps", lists->steps, &steps));
    if (ends != lists->count || axes != lists->count || steps != lists->count)
      return c.invalid("starts, ends, axes and steps have %, %, % and % values", lists->count, ends,
                       axes, steps);
    return Status::kOk;
  }
  static Status read_attributes(Context& c, Lists* lists) {
    const Span<const int64_t> starts = c.attribute_ints("starts"), ends = c.attribute_ints("ends"),
                              axes = c.attribute_ints("axes");
    lists->count = starts.size;
    if (starts.size > kMaxRank || ends.size != starts.size ||
        (axes.size && axes.size != starts.size))
      return c.invalid("starts, ends and axes have %, % and % values", starts.size, ends.size,
                       axes.size);
    for (size_t i = 0; i < starts.size; ++i) {
      lists->starts[i] = starts[i];
      lists->ends[i] = ends[i];
      if (axes.size) lists->axes[i] = axes[i];
    }
    return Status::kOk;
  }

  static Status resolve(Context& c, Selection* selection) {
    const Shape& input = c.input_shape(0);
    for (uint32_t i = 0; i < input.rank; ++i)
      selection->start[i] = 0, selection->step[i] = 1, selection->size[i] = input[i];
    Lists lists;
    for (size_t i = 0; i < kMaxRank; ++i)
      lists.axes[i] = static_cast<int64_t>(i), lists.steps[i] = 1;
    ORTOLAN_TRY(c.state<State>().from_inputs ? read_inputs(c, &lists) : read_attributes(c, &lists));
    uint32_t seen = 0;
    for (size_t i = 0; i < lists.count; ++i) {
      int64_t axis = lists.axes[i];
      ORTOLAN_TRY(resolve_new_axis(c, &axis, input.rank, &seen));
      if (lists.steps[i] == 0) return c.invalid("the step of axis % is 0", axis);
      const size_t k = static_cast<size_t>(axis);
      selection->step[k] = lists.steps[i];
      clamp(input[k], lists.starts[i], lists.ends[i], lists.steps[i], &selection->start[k],
            &selection->size[k]);
    }
    return Status::kOk;
  }
  static void clamp(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t* first,
                    int64_t* size) {
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
    start = min(max(start < 0 ? start + dim : start, step > 0 ? low : 0), high);
    end = min(max(end < 0 ? end + dim : end, low), high);
    const int64_t distance = step > 0 ? end - start : start - end;
    const uint64_t stride =
        step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
    *first = start;
    *size = distance <= 0
                ? 0
                : static_cast<int64_t>((static_cast<uint64_t>(distance) - 1) / stride + 1);
  }

  // The loops over the result, and the offset of its first element.
  static ptrdiff_t plan(Context& c, const Selection& selection, Nest* nest) {
    const Dense from = Dense::input(c, 0), to = Dense::output(c, 0);
    ptrdiff_t offset = 0;
    for (uint32_t i = 0; i < from.dims.rank; ++i) {
      const uint32_t axis = from.order[i];
      // A lone element may have a step beyond any tensor.
      const ptrdiff_t step = to.size(i) > 1 ? static_cast<ptrdiff_t>(selection.step[axis]) : 0;
      nest->add(to.size(i), from.strides[i] * step, to.strides[i]);
      offset += from.strides[i] * static_cast<ptrdiff_t>(selection.start[axis]);
    }
    return offset;
  }
};

// The dimensions around an axis, as memory has them.
struct Around {
  uint32_t axis;  // in memory
  size_t outer, inner;

  ORTOLAN_NOINLINE Around(const Context& c, size_t operand, int64_t logical_axis) {
    const Dense tensor = Dense::input(c, operand);
    axis = tensor.place(static_cast<uint32_t>(logical_axis));
    outer = tensor.dims.product(0, axis);
    inner = static_cast<size_t>(tensor.strides[axis]);
  }
};

// Rows of bytes from one pitch to another.
inline void copy_rows(const Context& c, size_t rows, size_t bytes, const void* from,
                      size_t from_pitch, void* to, size_t to_pitch) {
  Nest nest;
  nest.add(rows, static_cast<ptrdiff_t>(from_pitch), static_cast<ptrdiff_t>(to_pitch));
  nest.add(bytes, 1, 1);
  copy_strided(c, nest, 1, from, to);
}

struct Split {
  struct State {
    int64_t axis = 0;
    int32_t version = 0;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->axis = c.attribute_int("axis", 0);
    state->version = c.since_version();
    if (c.since_version() < 18) return Status::kOk;
    const Attribute* wanted = c.attribute("num_outputs");
    const int64_t outputs = static_cast<int64_t>(c.output_count());
    if (c.has_input(1) == (wanted != nullptr))
      return c.invalid("exactly one of split and num_outputs must be given");
    if (wanted && c.attribute_int("num_outputs", 0) != outputs)
      return c.invalid("num_outputs is %, but there are % outputs",
                       c.attribute_int("num_outputs", 0), outputs);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const Shape& input = c.input_shape(0);
    int64_t axis = c.state<State>().axis;
    ORTOLAN_TRY(resolve_axis(c, &axis, input.rank));
    Sizes sizes;
    ORTOLAN_TRY(read_sizes(c, input[static_cast<size_t>(axis)], &sizes));
    const Around around(c, 0, axis);
    size_t offset = 0;
    for (size_t i = 0; i < c.output_count(); ++i) {
      Shape shape = input;
      const int64_t size = shape[static_cast<size_t>(axis)] = sizes[i];
      if (c.has_output(i)) {
        ORTOLAN_TRY(c.set_output(i, shape));
        if (around.outer == 1 && shape.count() > 0) c.alias(i, 0, offset);
      }
      offset += static_cast<size_t>(size) * around.inner * word_size(c);
    }
    return Status::kOk;
  }

  static Status run(Context& c) {
    const Shape& input = c.input_shape(0);
    int64_t axis = c.state<State>().axis;
    normalize_axis(&axis, input.rank);
    Sizes sizes;
    ORTOLAN_TRY(read_sizes(c, input[static_cast<size_t>(axis)], &sizes));
    const Around around(c, 0, axis);
    const size_t unit = around.inner * word_size(c);
    const size_t pitch = static_cast<size_t>(input[static_cast<size_t>(axis)]) * unit;
    const char* from = c.input_data<char>(0);
    for (size_t i = 0; i < c.output_count(); ++i) {
      const size_t bytes = static_cast<size_t>(sizes[i]) * unit;
      if (c.has_output(i))
        copy_rows(c, around.outer, bytes, from, pitch, c.output_data<char>(i), bytes);
      from += bytes;
    }
    return Status::kOk;
  }

 private:
  // Given one by one, or equal with a smaller last one.
  struct Sizes {
    const int64_t* given = nullptr;
    int64_t piece = 0, rest = 0;

    int64_t operator[](size_t i) const {
      return given ? given[i] : max<int64_t>(min(piece, rest - static_cast<int64_t>(i) * piece), 0);
    }
  };

  static Status read_sizes(Context& c, int64_t dim, Sizes* sizes) {
    const int64_t n = static_cast<int64_t>(c.output_count());
    if (n == 0) return Status::kOk;
    Span<const int64_t> given;
    const int32_t version = c.state<State>().version;
    if (version >= 13 && c.has_input(1))
      given = {c.input_data<int64_t>(1), c.input_shape(1).count()};
    else if (version < 13 && c.attribute("split"))
      given = c.attribute_ints("split");
    else if (version < 18 && dim % n != 0)
      return c.invalid("dimension % cannot be split evenly into % outputs", dim, n);
    else
      return equal_sizes(c, dim, n, sizes);
    if (given.size != static_cast<size_t>(n))
      return c.invalid("split has % values for % outputs", given.size, n);
    int64_t left = dim;
    for (int64_t size : given) {
      if (size < 0 || size > left) return c.invalid("split % does not fit dimension %", given, dim);
      left -= size;
    }
    if (left != 0) return c.invalid("split % leaves % of dimension %", given, left, dim);
    sizes->given = given.data;
    return Status::kOk;
  }
  static Status equal_sizes(Context& c, int64_t dim, int64_t n, Sizes* sizes) {
    sizes->rest = dim;
    sizes->piece = dim / n + (dim % n ? 1 : 0);  // an empty tensor may have the greatest dimension
    if ((n - 1) * sizes->piece > dim)
      return c.invalid("dimension % is too small for % pieces of %", dim, n, sizes->piece);
    return Status::kOk;
  }
};

struct Concat {
  struct State {
    int64_t axis = 0;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    const Attribute* axis = c.attribute("axis");
    if (!axis || axis->kind != AttributeKind::kInt) return c.invalid("attribute axis is missing");
    state->axis = axis->i;
    return Status::kOk;
  }

  static Status infer(Context& c) {
    if (c.input_count() == 0) return c.invalid("there is no input");
    Shape shape = c.input_shape(0);
    int64_t axis = c.state<State>().axis;
    ORTOLAN_TRY(resolve_axis(c, &axis, shape.rank));
    size_t filled = 0, last = 0;
    for (size_t i = 0; i < c.input_count(); ++i) {
      const Shape& input = c.input_shape(i);
      bool fits = input.rank == shape.rank;
      for (uint32_t k = 0; fits && k < input.rank; ++k) fits = k == axis || input[k] == shape[k];
      int64_t& total = shape[static_cast<size_t>(axis)];
      if (!fits ||
          (i > 0 && __builtin_add_overflow(total, input[static_cast<size_t>(axis)], &total)))
        return c.invalid("input % has shape %, which does not fit % on axis %", i, input.span(),
                         c.input_shape(0).span(), axis);
      if (input.count() > 0) ++filled, last = i;
    }
    ORTOLAN_TRY(c.set_output(0, shape));
    if (filled == 1)
      c.alias(0, last);
    else if (!kSmall && filled)
      c.join(Around(c, 0, axis).outer);
    return Status::kOk;
  }

  static Status run(Context& c) {
    const Shape dims = c.output_physical(0);
    int64_t axis = c.state<State>().axis;
    normalize_axis(&axis, dims.rank);
    const Around around(c, 0, axis);
    const size_t unit = around.inner * word_size(c);
    const size_t pitch = static_cast<size_t>(dims[around.axis]) * unit;
    char* to = c.output_data<char>(0);
    for (size_t i = 0; i < c.input_count(); ++i) {
      const size_t bytes = static_cast<size_t>(c.input_shape(i)[static_cast<size_t>(axis)]) * unit;
      const bool lies_there =
          c.input_data<char>(i) == to && (around.outer == 1 || c.input(i).pitch);
      if (!lies_there) copy_rows(c, around.outer, bytes, c.input_data<char>(i), bytes, to, pitch);
      to += bytes;
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable
