#include "core/shape.h"

namespace ortolan {

Shape Shape::of(Span<const int64_t> values) {
  Shape shape;
  shape.rank = static_cast<uint32_t>(min<size_t>(values.size, kMaxRank));
  for (uint32_t i = 0; i < shape.rank; ++i) shape.dims[i] = values[i];
  return shape;
}

size_t Shape::count() const { return product(0, rank); }

size_t Shape::product(uint32_t begin, uint32_t end) const {
  size_t n = 1;
#pragma clang loop vectorize(disable) unroll(disable)
  for (uint32_t i = begin; i < end; ++i) n *= static_cast<size_t>(dims[i]);
  return n;
}

bool Shape::operator==(const Shape& other) const {
  if (rank != other.rank) return false;
  for (uint32_t i = 0; i < rank; ++i)
    if (dims[i] != other.dims[i]) return false;
  return true;
}

bool checked_bytes(const Shape& shape, size_t element, size_t* bytes) {
  size_t total = element;
  bool zero = false;
  for (uint32_t i = 0; i < shape.rank; ++i) {
    if (shape.dims[i] < 0) return false;
    if (shape.dims[i] == 0) {
      zero = true;
      continue;
    }
    if (static_cast<uint64_t>(shape.dims[i]) > (SIZE_MAX >> 1)) return false;
    if (__builtin_mul_overflow(total, static_cast<size_t>(shape.dims[i]), &total)) return false;
    if (total > (SIZE_MAX >> 1)) return false;
  }
  *bytes = zero ? 0 : total;
  return true;
}

bool normalize_axis(int64_t* axis, uint32_t rank) {
  if (*axis < -static_cast<int64_t>(rank) || *axis >= static_cast<int64_t>(rank)) return false;
  if (*axis < 0) *axis += rank;
  return true;
}

Shape channels_last(const Shape& logical) {
  Shape physical = logical;
  if (logical.rank < 3) return physical;
  for (uint32_t i = 1; i + 1 < logical.rank; ++i) physical.dims[i] = logical.dims[i + 1];
  physical.dims[logical.rank - 1] = logical.dims[1];
  return physical;
}

bool layout_neutral(const Shape& shape, uint32_t rank) {
  if (shape.rank > rank) return false;
  uint32_t pad = rank - shape.rank;
  auto dim = [&](uint32_t i) { return i < pad ? 1 : shape.dims[i - pad]; };
  if (rank < 3 || dim(1) == 1) return true;
  for (uint32_t i = 2; i < rank; ++i)
    if (dim(i) != 1) return false;
  return true;
}

}  // namespace ortolan
