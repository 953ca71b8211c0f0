// Gather: whole rows of an axis, by index. Rows are bytes: only the type of the index is compiled
// in.
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

struct Gather {
  struct State {
    int64_t axis = 0;
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->axis = c.attribute_int("axis", 0);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const Shape& data = c.input_shape(0);
    const Shape& indices = c.input_shape(1);
    int64_t axis = c.state<State>().axis;
    ORTOLAN_TRY(resolve_axis(c, &axis, data.rank));
    if (data.rank + indices.rank - 1 > kMaxRank)
      return c.invalid("the result has more than % dimensions", kMaxRank);
    Shape shape;
    for (uint32_t i = 0; i < data.rank; ++i) {
      if (i != axis) {
        shape.append(data[i]);
        continue;
      }
      for (int64_t dim : indices.span()) shape.append(dim);
    }
    ORTOLAN_TRY(c.set_output(0, shape));
    // One index that is known, of rows that lie together: a view.
    const uint32_t at = static_cast<uint32_t>(axis);
    const int64_t limit = data[at];
    int64_t index;
    size_t count;
    if (kSmall || (limit != 1 && data.product(0, at) != 1) || !c.constant_input(1) ||
        !c.input_ints(1, &index, 1, &count) || count != 1)
      return Status::kOk;
    if (index < 0) index += limit;
    if (index >= 0 && index < limit)
      c.alias(0, 0, static_cast<size_t>(index) * data.product(at + 1, data.rank) * word_size(c));
    return Status::kOk;
  }

  template <class Index>
  static Status run(Context& c) {
    const Shape& data = c.input_shape(0);
    int64_t axis = c.state<State>().axis;
    normalize_axis(&axis, data.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const size_t outer = data.product(0, at), inner = data.product(at + 1, data.rank);
    const int64_t limit = data[at];
    const Loose<Index>* indices = c.input_data<Loose<Index>>(1);
    const size_t count = c.input_shape(1).count();
    if (c.output_shape(0).count() == 0) return Status::kOk;
    for (size_t i = 0; i < count; ++i)
      if (indices[i] < -limit || indices[i] >= limit)
        return c.invalid("index % at % is outside [-%, %] of axis %",
                         static_cast<int64_t>(indices[i]), i, limit, limit - 1, axis);
    const char* from = c.input_data<char>(0);
    char* to = c.output_data<char>(0);
    const size_t row = inner * word_size(c), plane = static_cast<size_t>(limit) * row;
    c.parallel(outer * count, 65536 / row + 1, [=](size_t begin, size_t end, size_t) {
      size_t i = begin % count;
      const char* base = from + begin / count * plane;
      for (size_t turn = begin; turn < end; ++turn) {
        const int64_t index = indices[i];
        copy_piece(to + turn * row,
                   base + static_cast<size_t>(index < 0 ? index + limit : index) * row, row);
        if (++i == count) i = 0, base += plane;
      }
    });
    return Status::kOk;
  }
};

}  // namespace ortolan::portable
