// Element types, value types and layouts. Numbers of DataType are those of ONNX's
// TensorProto.DataType.
#pragma once

#include "core/base.h"

namespace ortolan {

enum class DataType : uint8_t {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBfloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUint4 = 21,  // from here on packed in files; in memory the low bits of a byte
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUint2 = 25,
  kInt2 = 26,
};
constexpr uint8_t kDataTypes = 27;

// Bytes of one element in memory, 0 for undefined. Strings are handles (Text).
constexpr size_t element_size(DataType type) {
  constexpr uint8_t kSizes[kDataTypes] = {0, 4,  1, 1, 2, 2, 4, 8, 8, 1, 2, 8, 4, 8,
                                          8, 16, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  return static_cast<uint8_t>(type) < kDataTypes ? kSizes[static_cast<uint8_t>(type)] : 0;
}

// Whether all bytes are 0 or 1. The compiler relies on it wherever a bool is read.
inline bool are_bools(const void* data, size_t bytes) {
  uint8_t all = 0;
  for (size_t i = 0; i < bytes; ++i) all |= static_cast<const uint8_t*>(data)[i];
  return all <= 1;
}

constexpr uint32_t type_bit(DataType type) { return 1u << static_cast<uint8_t>(type); }

template <class T>
constexpr DataType data_type_of = DataType::kUndefined;
template <>
inline constexpr DataType data_type_of<float> = DataType::kFloat;
template <>
inline constexpr DataType data_type_of<double> = DataType::kDouble;
template <>
inline constexpr DataType data_type_of<int64_t> = DataType::kInt64;
template <>
inline constexpr DataType data_type_of<int32_t> = DataType::kInt32;
template <>
inline constexpr DataType data_type_of<bool> = DataType::kBool;

enum class ValueKind : uint8_t { kTensor = 0, kSequence = 1, kMap = 2, kOptional = 3 };

// What a value is: a tensor, or containers around tensors.
struct ValueType {
  DataType element = DataType::kUndefined;  // of the tensors
  DataType key = DataType::kUndefined;      // of the map, if one of the containers is a map
  uint8_t layers = 0;                       // two bits a container, the outermost in the lowest

  constexpr ValueKind kind() const { return static_cast<ValueKind>(layers & 3); }
  constexpr ValueType inner() const { return {element, key, static_cast<uint8_t>(layers >> 2)}; }
  constexpr ValueType within(ValueKind kind) const {
    return {element, key, static_cast<uint8_t>(layers << 2 | static_cast<uint8_t>(kind))};
  }
  constexpr bool operator==(const ValueType& other) const {
    return element == other.element && key == other.key && layers == other.layers;
  }
};
constexpr uint8_t kSequenceLayer = 1, kMapLayer = 2, kOptionalLayer = 3;
constexpr uint8_t kMaxLayers = 3;

// An element of a string tensor: where its length (4 bytes) and bytes are, as FlatBuffers lays
// strings out; 0 is the empty string. 8 bytes on every machine, so that operators that only move
// elements move strings too. Whoever made the bytes keeps them until the run is over.
struct Text {
  uint64_t address = 0;

  size_t size() const {
    uint32_t n = 0;
    if (address) __builtin_memcpy(&n, block(), sizeof(n));
    return n;
  }
  const char* data() const { return address ? block() + sizeof(uint32_t) : nullptr; }
  String string() const { return {data(), size()}; }
  static Text at(const void* block) { return {reinterpret_cast<uintptr_t>(block)}; }

 private:
  const char* block() const {
    return reinterpret_cast<const char*>(static_cast<uintptr_t>(address));
  }
};

// How the elements of a spatial tensor lie in memory. The shape of a value is always the logical
// (ONNX) one: N, C, spatial...; channels_last stores N, spatial..., C. Packed constants are weights
// in the common form of files (core/packed.h); the columns of the matrix are their last or their
// first dimension.
enum class Layout : uint8_t { kPlain = 0, kChannelsLast = 1, kPackedLast = 2, kPackedFirst = 3 };
constexpr bool is_packed(Layout layout) { return layout >= Layout::kPackedLast; }

}  // namespace ortolan
