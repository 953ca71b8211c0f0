// What families share of strings: casts from and to numbers, comparison.
#pragma once

#include "core/context.h"

namespace ortolan::portable {

// Input 0 or output 0, or both, are strings.
Status cast_texts(Context& c);

// Whether elements of inputs 0 and 1 are equal, with broadcasting.
Status equal_texts(Context& c);

// Calls each(k, i, j) for every element k of the result and those that it comes from.
template <class Each>
void broadcast_pairs(const Context& c, const Each& each) {
  const Shape& shape = c.output_shape(0);
  size_t steps[2][kMaxRank] = {}, at[2] = {};
  for (size_t i = 0; i < 2; ++i) {
    const Shape& from = c.input_shape(i);
    size_t step = 1;
    for (uint32_t d = 0; d < from.rank; ++d) {
      const uint32_t axis = from.rank - 1 - d;
      if (from[axis] != 1) steps[i][shape.rank - 1 - d] = step;
      step *= static_cast<size_t>(from[axis]);
    }
  }
  int64_t index[kMaxRank] = {};
  for (size_t k = 0, n = shape.count(); k < n; ++k) {
    each(k, at[0], at[1]);
    for (uint32_t d = shape.rank; d-- > 0;) {
      at[0] += steps[0][d], at[1] += steps[1][d];
      if (++index[d] < shape[d]) break;
      at[0] -= steps[0][d] * static_cast<size_t>(shape[d]);
      at[1] -= steps[1][d] * static_cast<size_t>(shape[d]);
      index[d] = 0;
    }
  }
}

}  // namespace ortolan::portable
