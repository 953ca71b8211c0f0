// ONNX's protobuf messages: which fields the reader looks at, a check of the whole file, and access
// in place. Access checks nothing: only use it on what verify_onnx has accepted.
#pragma once

#include "core/memory.h"
#include "core/status.h"

namespace ortolan::onnx {

// Field numbers, by message.
namespace model {
enum : uint32_t {
  kIrVersion = 1,
  kProducerName = 2,
  kProducerVersion = 3,
  kDomain = 4,
  kModelVersion = 5,
  kDocString = 6,
  kGraph = 7,
  kOpsetImport = 8,
  kMetadataProps = 14,
  kFunctions = 25,
};
}  // namespace model
namespace opset {
enum : uint32_t { kDomain = 1, kVersion = 2 };
}  // namespace opset
namespace entry {
enum : uint32_t { kKey = 1, kValue = 2 };
}  // namespace entry
namespace graph {
enum : uint32_t {
  kNode = 1,
  kName = 2,
  kInitializer = 5,
  kDocString = 10,
  kInput = 11,
  kOutput = 12,
  kValueInfo = 13,
  kSparseInitializer = 15,
};
}  // namespace graph
namespace node {
enum : uint32_t {
  kInput = 1,
  kOutput = 2,
  kName = 3,
  kOpType = 4,
  kAttribute = 5,
  kDomain = 7,
  kOverload = 8,
};
}  // namespace node
namespace function {
enum : uint32_t {
  kName = 1,
  kInput = 4,
  kOutput = 5,
  kNode = 7,
  kOpsetImport = 9,
  kDomain = 10,
  kDefaults = 11,
  kOverload = 13,
};
}  // namespace function
namespace attribute {
enum : uint32_t {
  kName = 1,
  kFloat = 2,
  kInt = 3,
  kString = 4,
  kTensor = 5,
  kGraph = 6,
  kFloats = 7,
  kInts = 8,
  kStrings = 9,
  kType = 20,
  kRefAttrName = 21,
  kSparseTensor = 22,
};
}  // namespace attribute
namespace value_info {
enum : uint32_t { kName = 1, kType = 2 };
}  // namespace value_info
namespace tensor {
enum : uint32_t {
  kDims = 1,
  kDataType = 2,
  kFloatData = 4,
  kInt32Data = 5,
  kStringData = 6,
  kInt64Data = 7,
  kName = 8,
  kRawData = 9,
  kDoubleData = 10,
  kUint64Data = 11,
  kExternalData = 13,
  kDataLocation = 14,
};
}  // namespace tensor
namespace sparse {
enum : uint32_t { kValues = 1, kIndices = 2, kDims = 3 };
}  // namespace sparse
namespace type {
enum : uint32_t { kTensor = 1, kSequence = 4, kMap = 5, kOptional = 9 };
// Of TypeProto.Tensor; .Sequence and .Optional; .Map.
enum : uint32_t { kElemType = 1, kShape = 2, kElement = 1, kKeyType = 1, kValueType = 2 };
}  // namespace type
namespace shape {
enum : uint32_t { kDim = 1, kDimValue = 1, kDimParam = 2 };
}  // namespace shape

struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

enum class Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  Wire wire = Wire::kVarint;
  uint64_t value = 0;  // of what is no bytes
  Bytes bytes;
};

// Reads the varint or field at *at and moves *at behind it. False when it is damaged.
bool next_varint(const uint8_t** at, const uint8_t* end, uint64_t* value);
bool next_field(const uint8_t** at, const uint8_t* end, Field* field);

class Message;

// The fields of a message with one number, or with any for 0, in order.
class Fields {
 public:
  Fields(const Bytes& message, uint32_t number);
  bool next();
  const Field& field() const { return field_; }
  inline Message message() const;
  String text() const {
    return {reinterpret_cast<const char*>(field_.bytes.data), field_.bytes.size};
  }

 private:
  const uint8_t *at_, *end_;
  uint32_t number_;
  Field field_;
};

class Message {
 public:
  Message() = default;
  explicit Message(const Bytes& bytes) : bytes_(bytes) {}
  explicit operator bool() const { return bytes_.data != nullptr; }
  size_t size() const { return bytes_.size; }

  Fields each(uint32_t number) const { return {bytes_, number}; }
  size_t count(uint32_t number) const;
  bool has(uint32_t number) const { return count(number) != 0; }
  // Of a field that comes once; the last, if it comes again.
  uint64_t number(uint32_t number, uint64_t fallback = 0) const;
  float real(uint32_t number) const;
  String text(uint32_t number) const;
  Message message(uint32_t number) const;

 private:
  Bytes bytes_;
};

inline Message Fields::message() const { return Message(field_.bytes); }

// Numbers of a repeated field, packed or not: varints, or the bits of what is fixed.
class Numbers {
 public:
  Numbers(const Message& message, uint32_t number) : fields_(message.each(number)) {}
  bool next(uint64_t* value);

 private:
  Fields fields_;
  const uint8_t *at_ = nullptr, *end_ = nullptr;  // in a packed field
};

// What names that the reader makes begin with, once more than any text of the model.
constexpr char kMark = '#';

// Checks tags, kinds, lengths, nesting and texts of the whole model, once and in time linear in its
// size. Tells how many marks a text begins with at most.
Status verify_onnx(Bytes file, const Allocator& allocator, ErrorText& error, size_t* marks);

}  // namespace ortolan::onnx
