// Attributes of nodes, and Constant nodes, which become initializers.
#include "onnx/reader.h"

namespace ortolan::onnx {

namespace {

using Kind = AttributeKind;

struct KindField {
  Kind kind;
  uint32_t field;
};

// The kind that files before IR version 2 do not state: that of the field which is there.
Kind kind_of(const AttributeMessage& source) {
  constexpr KindField kFields[] = {
      {Kind::kFloat, attribute::kFloat},   {Kind::kInt, attribute::kInt},
      {Kind::kString, attribute::kString}, {Kind::kTensor, attribute::kTensor},
      {Kind::kGraph, attribute::kGraph},   {Kind::kFloats, attribute::kFloats},
      {Kind::kInts, attribute::kInts},     {Kind::kStrings, attribute::kStrings},
  };
  if (source.kind) return static_cast<Kind>(min<uint64_t>(source.kind, 255));
  for (KindField each : kFields)
    if (source.has(each.field)) return each.kind;
  return Kind::kUndefined;
}

bool has_prefix(String text, String prefix) {
  return text.size >= prefix.size && String(text.data, prefix.size) == prefix;
}

}  // namespace

AttributeMessage::AttributeMessage(const Message& message) : message(message) {
  if (!message) return;
  for (Fields each = message.each(0); each.next();) {
    const Field& field = each.field();
    if (field.number < 32) fields |= 1u << field.number;
    switch (field.number) {
      case attribute::kName:
        name = each.text();
        break;
      case attribute::kRefAttrName:
        reference = each.text();
        break;
      case attribute::kType:
        kind = field.value;
        break;
      case attribute::kInts:
        if (field.wire != Wire::kBytes)
          ++ints;
        else
          for (size_t i = 0; i < field.bytes.size; ++i) ints += field.bytes.data[i] < 0x80;
        break;
      default:
        break;
    }
  }
}

Status OnnxReader::lift_constant(GraphBuilder& b, const Item& item) {
  Fields outputs = item.node.each(node::kOutput);
  if (!outputs.next() || outputs.text().size == 0) return Status::kOk;
  const String name = outputs.text();
  String kind, full;
  AttributeMessage value{Message()};
  size_t values = 0;
  for (Fields each = item.node.each(node::kAttribute); each.next();) {
    AttributeMessage found(each.message());
    const String key = found.name;
    if (key != String("value") && key != String("sparse_value") && !has_prefix(key, "value_"))
      continue;
    Scope* scope = item.scope;
    ORTOLAN_TRY(dereference(&found, &scope));
    if (found.message) value = found, kind = key, ++values;
  }
  if (values != 1)
    return fail(error_, Status::kInvalidGraph,
                "[Constant] \"%\": it needs exactly one value, not %", name, values);
  TensorView view;
  ORTOLAN_TRY(constant_of(kind, value, name, &view));
  ORTOLAN_TRY(full_name(item.scope, name, &full));
  return set_constant(b, full, view);
}

// Numbers and strings may be in the attribute itself: a scalar, or a list as a vector.
Status OnnxReader::constant_of(String key, const AttributeMessage& attribute, String what,
                               TensorView* view) {
  const Message& source = attribute.message;
  if (key == String("value") && attribute.has(attribute::kTensor))
    return read_tensor(source.message(attribute::kTensor), what, view);
  if (key == String("sparse_value") && attribute.has(attribute::kSparseTensor))
    return read_sparse(source.message(attribute::kSparseTensor), what, view);
  auto vector = [&](size_t n) { view->shape.append(static_cast<int64_t>(n)); };
  auto single = [&](DataType type, const void* from, size_t size) {
    void* kept = model_.zone.allocate(size);
    if (!kept) return out_of_memory();
    copy(kept, from, size);
    view->type = type;
    view->data = kept;
    return Status::kOk;
  };
  if (key == String("value_float")) {
    const float number = source.real(attribute::kFloat);
    return single(DataType::kFloat, &number, sizeof(number));
  }
  if (key == String("value_int")) {
    const int64_t number = static_cast<int64_t>(source.number(attribute::kInt));
    return single(DataType::kInt64, &number, sizeof(number));
  }
  if (key == String("value_floats")) {
    Span<const float> list;
    ORTOLAN_TRY(read_floats(source, attribute::kFloats, &list));
    vector(list.size);
    return single(DataType::kFloat, list.data, list.size * sizeof(float));
  }
  if (key == String("value_ints")) {
    Span<const int64_t> list;
    ORTOLAN_TRY(read_ints(attribute, &list));
    vector(list.size);
    return single(DataType::kInt64, list.data, list.size * sizeof(int64_t));
  }
  view->type = DataType::kString;
  if (key == String("value_string")) {
    if (source.count(attribute::kString) != 1)
      return fail(error_, Status::kInvalidGraph, "[Constant] \"%\": its value is missing", what);
    return read_texts(source, attribute::kString, what, view);
  }
  if (key != String("value_strings"))
    return fail(error_, Status::kInvalidGraph, "[Constant] \"%\": its attribute % holds no value",
                what, key);
  vector(source.count(attribute::kStrings));
  return read_texts(source, attribute::kStrings, what, view);
}

Status OnnxReader::read_floats(const Message& message, uint32_t field, Span<const float>* result) {
  size_t bytes = 0;
  for (Fields each = message.each(field); each.next();)
    bytes += each.field().wire == Wire::kBytes ? each.field().bytes.size : sizeof(float);
  Span<float> list = model_.zone.array<float>(bytes / sizeof(float));
  if (list.size != bytes / sizeof(float)) return out_of_memory();
  float* to = list.data;
  for (Fields each = message.each(field); each.next();) {
    const Field& f = each.field();
    const size_t size = f.wire == Wire::kBytes ? f.bytes.size : sizeof(float);
    if (size)
      copy(to, f.wire == Wire::kBytes ? f.bytes.data : reinterpret_cast<const uint8_t*>(&f.value),
           size);
    to += size / sizeof(float);
  }
  *result = {list.data, list.size};
  return Status::kOk;
}

Status OnnxReader::read_ints(const AttributeMessage& source, Span<const int64_t>* result) {
  Span<int64_t> list = model_.zone.array<int64_t>(source.ints);
  if (list.size != source.ints) return out_of_memory();
  uint64_t value;
  size_t n = 0;
  for (Numbers numbers(source.message, attribute::kInts); numbers.next(&value);)
    list[n++] = static_cast<int64_t>(value);
  *result = {list.data, n};
  return Status::kOk;
}

Status OnnxReader::read_attributes(GraphBuilder& b, const Item& item, Node& node) {
  node.attributes = model_.zone.array<Attribute>(item.node.count(node::kAttribute));
  size_t i = 0;
  for (Fields each = item.node.each(node::kAttribute); each.next();) {
    if (i >= node.attributes.size) return out_of_memory();
    AttributeMessage source(each.message());
    const String name = source.name;
    Scope* scope = item.scope;
    ORTOLAN_TRY(dereference(&source, &scope));
    if (!source.message) continue;
    node.attributes[i].name = name;
    ORTOLAN_TRY(read_attribute(b, source, scope, node, node.attributes[i++]));
  }
  node.attributes.size = i;
  return Status::kOk;
}

Status OnnxReader::read_attribute(GraphBuilder& b, const AttributeMessage& attribute, Scope* scope,
                                  Node& node, Attribute& a) {
  const Message& source = attribute.message;
  a.kind = kind_of(attribute);
  switch (a.kind) {
    case Kind::kUndefined:
      break;
    case Kind::kFloat:
      a.f = source.real(attribute::kFloat);
      break;
    case Kind::kInt:
      a.i = static_cast<int64_t>(source.number(attribute::kInt));
      break;
    case Kind::kString:
      a.s = source.text(attribute::kString);
      break;
    case Kind::kFloats:
      return read_floats(source, attribute::kFloats, &a.floats);
    case Kind::kInts:
      return read_ints(attribute, &a.ints);
    case Kind::kStrings: {
      Span<String> list = model_.zone.array<String>(source.count(attribute::kStrings));
      size_t i = 0;
      for (Fields each = source.each(attribute::kStrings); each.next(); ++i) {
        if (i >= list.size) return out_of_memory();
        list[i] = each.text();
      }
      a.strings = {list.data, list.size};
      break;
    }
    case Kind::kTensor:
      if (!attribute.has(attribute::kTensor)) break;
      return read_tensor(source.message(attribute::kTensor), a.name, &a.tensor);
    case Kind::kGraph: {
      if (!attribute.has(attribute::kGraph)) break;
      Graph** place;
      ORTOLAN_TRY(find_body(node, a.name, &place));
      ORTOLAN_TRY(read_graph(source.message(attribute::kGraph), scope, &b, &a.graph));
      *place = a.graph;
      break;
    }
    default:
      return node_error(node, Status::kNotImplemented,
                        "attribute \"%\" has a kind that is not supported", a.name);
  }
  return Status::kOk;
}

}  // namespace ortolan::onnx
