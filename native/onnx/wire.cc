// Walks the messages with a list of its own instead of the C++ stack.
#include "onnx/wire.h"

#include "core/loader.h"

namespace ortolan::onnx {

namespace {

enum class Id : uint8_t {
  kModel,
  kOpset,
  kEntry,
  kGraph,
  kFunction,
  kNode,
  kAttribute,
  kValueInfo,
  kTensor,
  kSparse,
  kType,
  kTensorType,
  kWrappedType,
  kMapType,
  kShape,
  kDimension,
  kCount,
};

// What a field holds. Repeated numbers may be packed, as one field of bytes.
enum class Kind : uint8_t { kNumber, kFloat, kFloats, kNumbers, kDoubles, kBytes, kText, kMessage };

struct FieldRule {
  Id of;
  uint8_t number;
  Kind kind;
  Id child = Id::kModel;
};

// In the order of their messages.
constexpr FieldRule kRules[] = {
    {Id::kModel, model::kIrVersion, Kind::kNumber},
    {Id::kModel, model::kProducerName, Kind::kText},
    {Id::kModel, model::kProducerVersion, Kind::kText},
    {Id::kModel, model::kDomain, Kind::kText},
    {Id::kModel, model::kModelVersion, Kind::kNumber},
    {Id::kModel, model::kDocString, Kind::kText},
    {Id::kModel, model::kGraph, Kind::kMessage, Id::kGraph},
    {Id::kModel, model::kOpsetImport, Kind::kMessage, Id::kOpset},
    {Id::kModel, model::kMetadataProps, Kind::kMessage, Id::kEntry},
    {Id::kModel, model::kFunctions, Kind::kMessage, Id::kFunction},
    {Id::kOpset, opset::kDomain, Kind::kText},
    {Id::kOpset, opset::kVersion, Kind::kNumber},
    {Id::kEntry, entry::kKey, Kind::kText},
    {Id::kEntry, entry::kValue, Kind::kText},
    {Id::kGraph, graph::kNode, Kind::kMessage, Id::kNode},
    {Id::kGraph, graph::kName, Kind::kText},
    {Id::kGraph, graph::kInitializer, Kind::kMessage, Id::kTensor},
    {Id::kGraph, graph::kDocString, Kind::kText},
    {Id::kGraph, graph::kInput, Kind::kMessage, Id::kValueInfo},
    {Id::kGraph, graph::kOutput, Kind::kMessage, Id::kValueInfo},
    {Id::kGraph, graph::kValueInfo, Kind::kMessage, Id::kValueInfo},
    {Id::kGraph, graph::kSparseInitializer, Kind::kMessage, Id::kSparse},
    {Id::kFunction, function::kName, Kind::kText},
    {Id::kFunction, function::kInput, Kind::kText},
    {Id::kFunction, function::kOutput, Kind::kText},
    {Id::kFunction, function::kNode, Kind::kMessage, Id::kNode},
    {Id::kFunction, function::kOpsetImport, Kind::kMessage, Id::kOpset},
    {Id::kFunction, function::kDomain, Kind::kText},
    {Id::kFunction, function::kDefaults, Kind::kMessage, Id::kAttribute},
    {Id::kFunction, function::kOverload, Kind::kText},
    {Id::kNode, node::kInput, Kind::kText},
    {Id::kNode, node::kOutput, Kind::kText},
    {Id::kNode, node::kName, Kind::kText},
    {Id::kNode, node::kOpType, Kind::kText},
    {Id::kNode, node::kAttribute, Kind::kMessage, Id::kAttribute},
    {Id::kNode, node::kDomain, Kind::kText},
    {Id::kNode, node::kOverload, Kind::kText},
    {Id::kAttribute, attribute::kName, Kind::kText},
    {Id::kAttribute, attribute::kFloat, Kind::kFloat},
    {Id::kAttribute, attribute::kInt, Kind::kNumber},
    {Id::kAttribute, attribute::kString, Kind::kBytes},
    {Id::kAttribute, attribute::kTensor, Kind::kMessage, Id::kTensor},
    {Id::kAttribute, attribute::kGraph, Kind::kMessage, Id::kGraph},
    {Id::kAttribute, attribute::kFloats, Kind::kFloats},
    {Id::kAttribute, attribute::kInts, Kind::kNumbers},
    {Id::kAttribute, attribute::kStrings, Kind::kBytes},
    {Id::kAttribute, attribute::kType, Kind::kNumber},
    {Id::kAttribute, attribute::kRefAttrName, Kind::kText},
    {Id::kAttribute, attribute::kSparseTensor, Kind::kMessage, Id::kSparse},
    {Id::kValueInfo, value_info::kName, Kind::kText},
    {Id::kValueInfo, value_info::kType, Kind::kMessage, Id::kType},
    {Id::kTensor, tensor::kDims, Kind::kNumbers},
    {Id::kTensor, tensor::kDataType, Kind::kNumber},
    {Id::kTensor, tensor::kFloatData, Kind::kFloats},
    {Id::kTensor, tensor::kInt32Data, Kind::kNumbers},
    {Id::kTensor, tensor::kStringData, Kind::kBytes},
    {Id::kTensor, tensor::kInt64Data, Kind::kNumbers},
    {Id::kTensor, tensor::kName, Kind::kText},
    {Id::kTensor, tensor::kRawData, Kind::kBytes},
    {Id::kTensor, tensor::kDoubleData, Kind::kDoubles},
    {Id::kTensor, tensor::kUint64Data, Kind::kNumbers},
    {Id::kTensor, tensor::kExternalData, Kind::kMessage, Id::kEntry},
    {Id::kTensor, tensor::kDataLocation, Kind::kNumber},
    {Id::kSparse, sparse::kValues, Kind::kMessage, Id::kTensor},
    {Id::kSparse, sparse::kIndices, Kind::kMessage, Id::kTensor},
    {Id::kSparse, sparse::kDims, Kind::kNumbers},
    {Id::kType, type::kTensor, Kind::kMessage, Id::kTensorType},
    {Id::kType, type::kSequence, Kind::kMessage, Id::kWrappedType},
    {Id::kType, type::kMap, Kind::kMessage, Id::kMapType},
    {Id::kType, type::kOptional, Kind::kMessage, Id::kWrappedType},
    {Id::kTensorType, type::kElemType, Kind::kNumber},
    {Id::kTensorType, type::kShape, Kind::kMessage, Id::kShape},
    {Id::kWrappedType, type::kElement, Kind::kMessage, Id::kType},
    {Id::kMapType, type::kKeyType, Kind::kNumber},
    {Id::kMapType, type::kValueType, Kind::kMessage, Id::kType},
    {Id::kShape, shape::kDim, Kind::kMessage, Id::kDimension},
    {Id::kDimension, shape::kDimValue, Kind::kNumber},
    {Id::kDimension, shape::kDimParam, Kind::kText},
};
constexpr size_t kRuleCount = sizeof(kRules) / sizeof(kRules[0]);
constexpr uint32_t kNumberLimit = 32;  // all field numbers are less

// kRules by message and field number, as places from 1.
struct RuleIndex {
  uint8_t at[static_cast<size_t>(Id::kCount)][kNumberLimit] = {};
  constexpr RuleIndex() {
    for (size_t i = 0; i < kRuleCount; ++i)
      at[static_cast<size_t>(kRules[i].of)][kRules[i].number] = static_cast<uint8_t>(i + 1);
  }
};
constexpr RuleIndex kIndex;

// A graph in a graph is three messages deeper. Reading it takes some of the C++ stack.
constexpr uint8_t kMaxDepth = 64;

struct Pending {
  Bytes message;
  Id id;
  uint8_t depth;
};

class Verifier {
 public:
  Verifier(Bytes file, const Allocator& allocator, ErrorText& error)
      : file_(file), error_(error), pending_(allocator) {}

  Status run(size_t* marks) {
    ORTOLAN_TRY(enqueue(file_, Id::kModel, 0));
    while (!pending_.empty()) ORTOLAN_TRY(message(pending_.pop()));
    *marks = marks_;
    return Status::kOk;
  }

 private:
  Status bad(String what, const uint8_t* at) {
    return fail(error_, Status::kInvalidFormat, "damaged ONNX model, or none: % at byte %", what,
                static_cast<int64_t>(at - file_.data));
  }

  Status enqueue(Bytes bytes, Id id, uint8_t depth) {
    if (depth > kMaxDepth)
      return fail(error_, Status::kLimitExceeded,
                  "the ONNX model is nested deeper than % messages at byte %",
                  static_cast<int>(kMaxDepth), static_cast<int64_t>(bytes.data - file_.data));
    if (!pending_.push({bytes, id, depth}))
      return fail(error_, Status::kOutOfMemory, "memory is out");
    return Status::kOk;
  }

  Status message(Pending item) {
    const uint8_t *at = item.message.data, *end = at + item.message.size;
    while (at != end) {
      const uint8_t* begin = at;
      Field field;
      if (!next_field(&at, end, &field)) return bad("a field that ends outside its message", begin);
      uint8_t place =
          field.number < kNumberLimit ? kIndex.at[static_cast<size_t>(item.id)][field.number] : 0;
      if (place) ORTOLAN_TRY(check(item, kRules[place - 1], field, begin));
    }
    return Status::kOk;
  }

  Status check(Pending item, const FieldRule& rule, const Field& field, const uint8_t* begin) {
    auto wrong = [&] { return bad("a field of an unexpected kind", begin); };
    const bool packed = field.wire == Wire::kBytes;
    const size_t size = field.bytes.size;
    switch (rule.kind) {
      case Kind::kNumber:
        return field.wire == Wire::kVarint ? Status::kOk : wrong();
      case Kind::kFloat:
        return field.wire == Wire::kFixed32 ? Status::kOk : wrong();
      case Kind::kFloats:
        if (packed ? size % 4 != 0 : field.wire != Wire::kFixed32) return wrong();
        return Status::kOk;
      case Kind::kDoubles:
        if (packed ? size % 8 != 0 : field.wire != Wire::kFixed64) return wrong();
        return Status::kOk;
      case Kind::kNumbers: {
        if (!packed) return field.wire == Wire::kVarint ? Status::kOk : wrong();
        const uint8_t *at = field.bytes.data, *end = at + size;
        uint64_t value;
        while (at != end)
          if (!next_varint(&at, end, &value)) return bad("a number that does not end", begin);
        return Status::kOk;
      }
      default:
        break;
    }
    if (!packed) return wrong();
    // Errors hold the size of a text in 31 bits.
    const bool is_text =
        rule.kind == Kind::kText || (rule.kind == Kind::kBytes && rule.of == Id::kAttribute);
    if (is_text && size > INT32_MAX) return bad("a text of 2 GB or more", begin);
    if (rule.kind == Kind::kText &&
        !is_utf8({reinterpret_cast<const char*>(field.bytes.data), size}))
      return bad("a text that is not UTF-8", begin);
    if (rule.kind == Kind::kText) {
      size_t marks = 0;
      while (marks < size && field.bytes.data[marks] == kMark) ++marks;
      marks_ = max(marks_, marks);
    }
    if (rule.kind != Kind::kMessage) return Status::kOk;
    return enqueue(field.bytes, rule.child, static_cast<uint8_t>(item.depth + 1));
  }

  Bytes file_;
  ErrorText& error_;
  List<Pending> pending_;
  size_t marks_ = 0;
};

}  // namespace

bool next_varint(const uint8_t** at, const uint8_t* end, uint64_t* value) {
  uint64_t result = 0;
  const uint8_t* p = *at;
  for (uint32_t shift = 0; shift < 70; shift += 7) {
    if (p == end) return false;
    const uint8_t byte = *p++;
    result |= static_cast<uint64_t>(byte & 0x7f) << (shift & 63);
    if (byte < 0x80) {
      *value = result;
      *at = p;
      return true;
    }
  }
  return false;
}

bool next_field(const uint8_t** at, const uint8_t* end, Field* field) {
  uint64_t tag, size;
  const uint8_t* p = *at;
  if (p == end) return false;
  // Lists may be long: small numbers and floats, each with a tag of its own, go the short way.
  if (*p < 0x80) {
    tag = *p++;
  } else if (!next_varint(&p, end, &tag)) {
    return false;
  }
  if (tag >> 32 || tag < 8) return false;
  field->number = static_cast<uint32_t>(tag >> 3);
  field->wire = static_cast<Wire>(tag & 7);
  const size_t left = static_cast<size_t>(end - p);
  switch (field->wire) {
    case Wire::kVarint:
      if (left && *p < 0x80) {
        field->value = *p++;
        break;
      }
      if (!next_varint(&p, end, &field->value)) return false;
      break;
    case Wire::kFixed64:
      if (left < 8) return false;
      field->value = read<uint64_t>(p);
      p += 8;
      break;
    case Wire::kFixed32:
      if (left < 4) return false;
      field->value = read<uint32_t>(p);
      p += 4;
      break;
    case Wire::kBytes:
      if (!next_varint(&p, end, &size) || size > static_cast<size_t>(end - p)) return false;
      field->bytes = {p, static_cast<size_t>(size)};
      p += size;
      break;
    default:  // groups are in no ONNX file
      return false;
  }
  *at = p;
  return true;
}

Fields::Fields(const Bytes& message, uint32_t number)
    : at_(message.data), end_(message.data + message.size), number_(number) {}

bool Fields::next() {
  while (next_field(&at_, end_, &field_))
    if (!number_ || field_.number == number_) return true;
  return false;
}

size_t Message::count(uint32_t number) const {
  size_t n = 0;
  for (Fields fields = each(number); fields.next();) ++n;
  return n;
}

uint64_t Message::number(uint32_t number, uint64_t fallback) const {
  for (Fields fields = each(number); fields.next();) fallback = fields.field().value;
  return fallback;
}

float Message::real(uint32_t which) const {
  const uint32_t bits = static_cast<uint32_t>(number(which));
  float result;
  copy(&result, &bits, sizeof(result));
  return result;
}

String Message::text(uint32_t number) const {
  String result;
  for (Fields fields = each(number); fields.next();) result = fields.text();
  return result;
}

Message Message::message(uint32_t number) const {
  Message result;
  for (Fields fields = each(number); fields.next();) result = fields.message();
  return result;
}

bool Numbers::next(uint64_t* value) {
  while (at_ == end_) {
    if (!fields_.next()) return false;
    const Field& field = fields_.field();
    if (field.wire != Wire::kBytes) {
      *value = field.value;
      return true;
    }
    at_ = field.bytes.data;
    end_ = at_ + field.bytes.size;
  }
  return next_varint(&at_, end_, value);
}

Status verify_onnx(Bytes file, const Allocator& allocator, ErrorText& error, size_t* marks) {
  return Verifier(file, allocator, error).run(marks);
}

}  // namespace ortolan::onnx
