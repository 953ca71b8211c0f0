// A verified ORT format file (FlatBuffers, identifier "ORTM") and accessors that read it in place.
// Accessors check nothing: only use them on a buffer that verify_ort has accepted.
#pragma once

#include "core/memory.h"
#include "core/status.h"
#include "ort_schema.h"

namespace ortolan {

template <class T>
ORTOLAN_INLINE T read(const uint8_t* at) {
  T value;
  copy(&value, at, sizeof(T));
  return value;
}

class FbTable;

// A vector of 4-byte offsets to tables or strings.
class FbOffsets {
 public:
  FbOffsets() = default;
  explicit FbOffsets(const uint8_t* vector) : vector_(vector) {}
  size_t size() const { return vector_ ? read<uint32_t>(vector_) : 0; }
  inline FbTable table(size_t i) const;
  String string(size_t i) const;

 private:
  // Not inlined: a reader has dozens of such calls.
  const uint8_t* target(size_t i) const;
  const uint8_t* vector_ = nullptr;
};

class FbTable {
 public:
  FbTable() = default;
  explicit FbTable(const uint8_t* table) : table_(table) {}
  explicit operator bool() const { return table_ != nullptr; }

  // Address of a field's inline bytes, null when absent.
  const uint8_t* field(uint16_t slot) const;
  template <class T>
  T scalar(uint16_t slot, T fallback) const {
    const uint8_t* at = field(slot);
    return at ? read<T>(at) : fallback;
  }
  String string(uint16_t slot) const;
  FbTable table(uint16_t slot) const { return FbTable(follow(slot)); }
  FbOffsets offsets(uint16_t slot) const { return FbOffsets(follow(slot)); }
  // Elements of a vector of scalars; `size` counts them. Aligned to 4 at least, not to T.
  const uint8_t* vector(uint16_t slot, size_t* size) const {
    const uint8_t* at = follow(slot);
    *size = at ? read<uint32_t>(at) : 0;
    return at ? at + 4 : nullptr;
  }
  bool has(uint16_t slot) const { return field(slot) != nullptr; }

 private:
  const uint8_t* follow(uint16_t slot) const;
  const uint8_t* table_ = nullptr;
};

inline FbTable FbOffsets::table(size_t i) const { return FbTable(target(i)); }

// Checks every offset, length, enumeration and nesting of the file, once and in time linear in its
// size. `data` is aligned to 4. On success *root is the InferenceSession table.
Status verify_ort(const uint8_t* data, size_t size, const Allocator& allocator, ErrorText& error,
                  FbTable* root);

}  // namespace ortolan
