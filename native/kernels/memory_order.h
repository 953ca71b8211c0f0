// Shapes as they lie in memory, for kernels that take any layout.
#pragma once

#include "core/context.h"

namespace ortolan::ORTOLAN_ISA {

ORTOLAN_SMALL static size_t element_count(const Shape& shape) {
  size_t n = 1;
  for (uint32_t i = 0; i < shape.rank; ++i) n *= static_cast<size_t>(shape[i]);
  return n;
}

// Where dimension i of a shape lies in memory order.
ORTOLAN_INLINE uint32_t memory_position(uint32_t i, uint32_t rank, Layout layout) {
  if (layout == Layout::kPlain || rank < 3 || i == 0) return i;
  return i == 1 ? rank - 1 : i - 1;
}

ORTOLAN_SMALL static Shape in_memory_order(const Slot& slot) {
  Shape dims = slot.shape;
  for (uint32_t i = 0; i < dims.rank; ++i)
    dims[memory_position(i, dims.rank, slot.layout)] = slot.shape[i];
  return dims;
}

}  // namespace ortolan::ORTOLAN_ISA
