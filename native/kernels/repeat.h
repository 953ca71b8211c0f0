// Expand and Tile: the input again and again along some axes.
#pragma once

#include "kernels/strided.h"

namespace ortolan::portable {

struct Expand {
  static Status infer(Context& c) {
    int64_t wanted[kMaxRank];
    size_t count = 0;
    ORTOLAN_TRY(short_list(c, 1, "shape", wanted, &count));
    const Shape& input = c.input_shape(0);
    Shape shape;
    shape.rank = max(input.rank, static_cast<uint32_t>(count));
    for (uint32_t i = 0; i < shape.rank; ++i) {
      const int64_t own = i + input.rank >= shape.rank ? input[i + input.rank - shape.rank] : 1;
      const int64_t other = i + count >= shape.rank ? wanted[i + count - shape.rank] : 1;
      if (other < 0 || (own != other && own != 1 && other != 1))
        return c.invalid("cannot expand % to %", input.span(), Span<const int64_t>{wanted, count});
      shape[i] = own == 1 ? other : own;
    }
    ORTOLAN_TRY(c.set_output(0, shape));
    if (shape.count() == input.count()) c.alias(0, 0);
    return Status::kOk;
  }

  static Status run(Context& c) {
    const Dense from = Dense::input(c, 0), to = Dense::output(c, 0);
    const uint32_t added = to.dims.rank - from.dims.rank;
    Nest nest;
    for (uint32_t i = 0; i < to.dims.rank; ++i) {
      const bool repeats = i < added || from.size(i - added) == 1;
      nest.add(to.size(i), repeats ? 0 : from.strides[i - added], to.strides[i]);
    }
    copy_strided(c, nest, word_size(c), c.input_data<char>(0), c.output_data<char>(0));
    return Status::kOk;
  }
};

struct Tile {
  static Status infer(Context& c) {
    int64_t repeats[kMaxRank];
    size_t count = 0;
    ORTOLAN_TRY(short_list(c, 1, "repeats", repeats, &count));
    Shape shape = c.input_shape(0);
    if (count != shape.rank)
      return c.invalid("repeats has % values for the input %", count, shape.span());
    for (uint32_t i = 0; i < shape.rank; ++i)
      if (repeats[i] < 0 || __builtin_mul_overflow(shape[i], repeats[i], &shape[i]))
        return c.invalid("cannot repeat axis % % times", i, repeats[i]);
    ORTOLAN_TRY(c.set_output(0, shape));
    if (shape == c.input_shape(0)) c.alias(0, 0);
    return Status::kOk;
  }

  static Status run(Context& c) {
    const Dense from = Dense::input(c, 0), to = Dense::output(c, 0);
    if (to.dims.count() == 0) return Status::kOk;
    Nest nest;
    for (uint32_t i = 0; i < to.dims.rank; ++i) {
      const ptrdiff_t size = static_cast<ptrdiff_t>(from.size(i));
      nest.add(to.size(i) / from.size(i), 0, to.strides[i] * size);
      nest.add(from.size(i), from.strides[i], to.strides[i]);
    }
    copy_strided(c, nest, word_size(c), c.input_data<char>(0), c.output_data<char>(0));
    return Status::kOk;
  }
};

}  // namespace ortolan::portable
