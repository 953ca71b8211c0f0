// Logical shape of a tensor: up to eight dimensions, each >= 0.
#pragma once

#include "core/base.h"

namespace ortolan {

constexpr uint32_t kMaxRank = 8;

struct Shape {
  uint32_t rank = 0;
  int64_t dims[kMaxRank] = {};

  ORTOLAN_INLINE constexpr Shape() {}
  static Shape of(Span<const int64_t> values);

  ORTOLAN_INLINE int64_t& operator[](size_t i) { return dims[i]; }
  ORTOLAN_INLINE int64_t operator[](size_t i) const { return dims[i]; }
  ORTOLAN_INLINE Span<const int64_t> span() const { return {dims, rank}; }

  ORTOLAN_INLINE void append(int64_t dim) { dims[rank++] = dim; }

  // Number of elements. The caller has checked that the product fits (see checked_count).
  size_t count() const;
  // Not inlined: there are hundreds of callers, each with a loop over up to eight otherwise.
  size_t product(uint32_t begin, uint32_t end) const;

  bool operator==(const Shape& other) const;
};
template <>
inline constexpr bool starts_zero<Shape> = true;

// Bytes of `shape` with elements of `element` bytes; false when a dimension is negative or the
// product does not fit into half of the address space.
bool checked_bytes(const Shape& shape, size_t element, size_t* bytes);

// `axis` counted from the end when negative; false when it is outside [-rank, rank).
bool normalize_axis(int64_t* axis, uint32_t rank);

// The dimensions in memory order for channels_last: N, spatial..., C.
Shape channels_last(const Shape& logical);

// Whether the bytes of a tensor are the same in both layouts when it is seen with `rank` dimensions
// (padded in front): moving dimension 1 to the end passes only dimensions of 1.
bool layout_neutral(const Shape& shape, uint32_t rank);

}  // namespace ortolan
