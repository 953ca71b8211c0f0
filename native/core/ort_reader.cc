// Phase 1 for ORT format files: the structure of the graphs, from the verified file.
#include "core/loader.h"

namespace ortolan {

namespace {

using schema::AttributeTable;
using schema::GraphTable;
using schema::NodeTable;
using schema::TensorTable;

class OrtReader : public Loader {
 public:
  using Loader::Loader;
  Status run(FbTable session);

 private:
  Status read_metadata(FbTable session);
  Status read_graph(FbTable table, GraphBuilder* parent, Graph** result);
  Status declare(GraphBuilder& b, FbTable table);
  Status declare_inputs(GraphBuilder& b, FbTable table);
  Status declare_initializers(GraphBuilder& b, FbTable table);
  Status declare_types(GraphBuilder& b, FbTable table);
  Status declare_nodes(GraphBuilder& b, FbTable table);
  Status resolve_nodes(GraphBuilder& b, FbTable table);
  Status resolve_outputs(GraphBuilder& b, FbTable table);
  Status read_attributes(GraphBuilder& b, FbTable table, Node& node);
  Status read_attribute(GraphBuilder& b, FbTable table, Node& node, Attribute& attribute);
  Status read_tensor(FbTable table, String what, TensorView* tensor);
  Status read_sparse(FbTable table, String what, TensorView* tensor);
  Status read_shape(FbTable shape, Value& value);
  Status read_type(FbTable type, Value& value);
  Status read_texts(FbTable table, String what, TensorView* tensor);
  Status external_data(String what, int64_t offset, size_t bytes, const uint8_t** data);
  template <class T>
  Status copy_vector(FbTable table, uint16_t slot, Span<const T>* result);
};

Status OrtReader::run(FbTable session) {
  using schema::InferenceSessionTable;
  using schema::ModelTable;
  FbTable model = session.table(InferenceSessionTable::kModel);
  if (!model.has(ModelTable::kGraph))
    return fail(error_, Status::kInvalidFormat, "the model has no graph");
  ORTOLAN_TRY(read_metadata(session));
  initializers_are_constant_ = model_.metadata.ir_version < 4;
  Graph* graph = nullptr;
  ORTOLAN_TRY(read_graph(model.table(ModelTable::kGraph), nullptr, &graph));
  return complete();
}

Status OrtReader::read_metadata(FbTable session) {
  using schema::ModelTable;
  using schema::StringStringEntryTable;
  FbTable model = session.table(schema::InferenceSessionTable::kModel);
  Metadata& m = model_.metadata;
  m.texts[Metadata::kOrtVersion] = session.string(schema::InferenceSessionTable::kOrtVersion);
  constexpr uint8_t kFields[][2] = {{Metadata::kProducerName, ModelTable::kProducerName},
                                    {Metadata::kProducerVersion, ModelTable::kProducerVersion},
                                    {Metadata::kDomain, ModelTable::kDomain},
                                    {Metadata::kDescription, ModelTable::kDocString},
                                    {Metadata::kGraphDescription, ModelTable::kGraphDocString}};
  for (const uint8_t (&field)[2] : kFields) {
    m.texts[field[0]] = model.string(field[1]);
    if (!is_utf8(m.texts[field[0]])) return not_utf8("a text of the model");
  }
  m.model_version = model.scalar<int64_t>(ModelTable::kModelVersion, 0);
  m.ir_version = model.scalar<int64_t>(ModelTable::kIrVersion, 0);
  FbOffsets props = model.offsets(ModelTable::kMetadataProps);
  ORTOLAN_TRY(make_array(props.size(), &m.properties));
  for (size_t i = 0; i < props.size(); ++i) {
    Metadata::Property& p = m.properties[i];
    p = {props.table(i).string(StringStringEntryTable::kKey),
         props.table(i).string(StringStringEntryTable::kValue)};
    if (!is_utf8(p.key) || !is_utf8(p.value)) return not_utf8("the metadata");
  }
  return Status::kOk;
}

Status OrtReader::read_graph(FbTable table, GraphBuilder* parent, Graph** result) {
  GraphBuilder* b;
  ORTOLAN_TRY(open_graph(parent, &b));
  ORTOLAN_TRY(declare(*b, table));
  ORTOLAN_TRY(resolve_nodes(*b, table));
  ORTOLAN_TRY(resolve_outputs(*b, table));
  ORTOLAN_TRY(order(*b));
  *result = b->graph;
  return Status::kOk;
}

Status OrtReader::declare(GraphBuilder& b, FbTable table) {
  FbOffsets nodes = table.offsets(GraphTable::kNodes);
  size_t names =
      table.offsets(GraphTable::kInputs).size() + table.offsets(GraphTable::kInitializers).size();
  for (size_t i = 0; i < nodes.size(); ++i)
    names += nodes.table(i).offsets(NodeTable::kOutputs).size();
  ORTOLAN_TRY(reserve(b, names, nodes.size()));
  ORTOLAN_TRY(declare_inputs(b, table));
  ORTOLAN_TRY(declare_initializers(b, table));
  ORTOLAN_TRY(declare_nodes(b, table));
  return declare_types(b, table);
}

Status OrtReader::declare_inputs(GraphBuilder& b, FbTable table) {
  FbOffsets inputs = table.offsets(GraphTable::kInputs);
  ORTOLAN_TRY(make_array(inputs.size(), &b.graph->inputs));
  for (size_t i = 0; i < inputs.size(); ++i) {
    uint32_t value;
    ORTOLAN_TRY(define(b, inputs.string(i), &value));
    b.values[value].is_input = true;
    b.graph->inputs[i] = value;
  }
  return Status::kOk;
}

Status OrtReader::declare_initializers(GraphBuilder& b, FbTable table) {
  FbOffsets tensors = table.offsets(GraphTable::kInitializers);
  for (size_t i = 0; i < tensors.size(); ++i) {
    String name = tensors.table(i).string(TensorTable::kName);
    TensorView view;
    ORTOLAN_TRY(read_tensor(tensors.table(i), name, &view));
    ORTOLAN_TRY(declare_constant(b, name, view));
  }
  FbOffsets sparse = table.offsets(GraphTable::kSparseInitializers);
  for (size_t i = 0; i < sparse.size(); ++i) {
    FbTable values = sparse.table(i).table(schema::SparseTensorTable::kValues);
    String name = values.string(TensorTable::kName);
    TensorView view;
    if constexpr (!kHasSparse) return densify(name, view, view, &view);
    ORTOLAN_TRY(read_sparse(sparse.table(i), name, &view));
    ORTOLAN_TRY(declare_constant(b, name, view));
  }
  return Status::kOk;
}

// Types and shapes that the file states. Only those of inputs are relied on; the rest are hints.
Status OrtReader::declare_types(GraphBuilder& b, FbTable table) {
  using namespace schema;
  FbOffsets args = table.offsets(GraphTable::kNodeArgs);
  for (size_t i = 0; i < args.size(); ++i) {
    uint32_t value = b.names.find(b.values, args.table(i).string(ValueInfoTable::kName));
    FbTable type = args.table(i).table(ValueInfoTable::kType);
    if (value == kNoValue || !type) continue;
    Value& v = b.values[value];
    // An initializer's own type is the true one.
    if (v.type == DataType::kUndefined) ORTOLAN_TRY(read_type(type, v));
  }
  return Status::kOk;
}

// Types that are not supported leave the value without one.
Status OrtReader::read_type(FbTable type, Value& v) {
  using namespace schema;
  auto element = [](FbTable table, uint16_t slot) {
    uint32_t number = table.scalar<uint32_t>(slot, 0);
    return number < kDataTypes ? static_cast<DataType>(number) : DataType::kUndefined;
  };
  ValueType found;
  for (uint8_t depth = 0; type && depth <= kMaxLayers; ++depth) {
    const auto add = [&](ValueKind kind) {
      found.layers |= static_cast<uint8_t>(static_cast<uint8_t>(kind) << 2 * depth);
    };
    // The format has no optional types: ours are marked (docs/format.md).
    if (kHasContainers &&
        type.string(TypeInfoTable::kDenotation) == String("ai.ortolan.optional")) {
      add(ValueKind::kOptional);
      ++depth;
    }
    FbTable what = type.table(TypeInfoTable::kValue);
    if (!what || depth > kMaxLayers) return Status::kOk;
    switch (static_cast<TypeInfoValue>(type.scalar<uint8_t>(TypeInfoTable::kValueType, 0))) {
      case TypeInfoValue::kTensorType: {
        found.element = element(what, TensorTypeAndShapeTable::kElemType);
        v.set_type(found);
        FbTable shape = what.table(TensorTypeAndShapeTable::kShape);
        return shape && depth == 0 ? read_shape(shape, v) : Status::kOk;
      }
      case TypeInfoValue::kSequenceType:
        if (!kHasContainers) return Status::kOk;
        add(ValueKind::kSequence);
        type = what.table(SequenceTypeTable::kElemType);
        break;
      case TypeInfoValue::kMapType:
        if (!kHasContainers) return Status::kOk;
        add(ValueKind::kMap);
        found.key = element(what, MapTypeTable::kKeyType);
        type = what.table(MapTypeTable::kValueType);
        break;
      default:
        return Status::kOk;
    }
  }
  return Status::kOk;
}

Status OrtReader::read_shape(FbTable shape, Value& v) {
  using namespace schema;
  FbOffsets dims = shape.offsets(ShapeTable::kDim);
  if (dims.size() > kMaxRank) return Status::kOk;
  Span<String> names;
  ORTOLAN_TRY(make_array(dims.size(), &names));
  v.rank_hint = static_cast<int8_t>(dims.size());
  v.shape = Shape();
  for (size_t i = 0; i < dims.size(); ++i) {
    FbTable dim = dims.table(i).table(DimensionTable::kValue);
    auto kind = static_cast<DimensionValueType>(
        dim ? dim.scalar<uint8_t>(DimensionValueTable::kDimType, 0) : 0);
    bool fixed = kind == DimensionValueType::kValue;
    v.shape.append(fixed ? dim.scalar<int64_t>(DimensionValueTable::kDimValue, -1) : -1);
    if (kind == DimensionValueType::kParam) names[i] = dim.string(DimensionValueTable::kDimParam);
    if (!is_utf8(names[i])) return not_utf8("the name of a dimension");
  }
  v.dim_names = {names.data, names.size};
  return Status::kOk;
}

Status OrtReader::declare_nodes(GraphBuilder& b, FbTable table) {
  FbOffsets nodes = table.offsets(GraphTable::kNodes);
  if (!b.nodes.reserve(nodes.size() + 1)) return out_of_memory();
  for (size_t i = 0; i < nodes.size(); ++i) {
    FbTable source = nodes.table(i);
    Node node;
    node.name = source.string(NodeTable::kName);
    node.type = source.string(NodeTable::kOpType);
    node.domain = source.string(NodeTable::kDomain);
    if (node.domain == String("ai.onnx")) node.domain = {};
    node.since_version = source.scalar<int32_t>(NodeTable::kSinceVersion, 0);
    node.file_index = static_cast<uint32_t>(i);
    FbOffsets outputs = source.offsets(NodeTable::kOutputs);
    ORTOLAN_TRY(make_array(outputs.size(), &node.outputs));
    for (size_t j = 0; j < outputs.size(); ++j) {
      node.outputs[j] = kNoValue;
      String name = outputs.string(j);
      if (name.size) ORTOLAN_TRY(define(b, name, &node.outputs[j]));
    }
    if (!b.nodes.push(node)) return out_of_memory();
  }
  return Status::kOk;
}

Status OrtReader::resolve_nodes(GraphBuilder& b, FbTable table) {
  FbOffsets nodes = table.offsets(GraphTable::kNodes);
  for (size_t i = 0; i < nodes.size(); ++i) {
    FbOffsets inputs = nodes.table(i).offsets(NodeTable::kInputs);
    Span<uint32_t>& list = b.nodes[i].inputs;
    ORTOLAN_TRY(make_array(inputs.size(), &list));
    for (size_t j = 0; j < inputs.size(); ++j) ORTOLAN_TRY(resolve(b, inputs.string(j), &list[j]));
    ORTOLAN_TRY(read_attributes(b, nodes.table(i), b.nodes[i]));
  }
  return Status::kOk;
}

Status OrtReader::resolve_outputs(GraphBuilder& b, FbTable table) {
  FbOffsets outputs = table.offsets(GraphTable::kOutputs);
  ORTOLAN_TRY(reserve_outputs(b, outputs.size()));
  for (size_t i = 0; i < outputs.size(); ++i) ORTOLAN_TRY(resolve_output(b, i, outputs.string(i)));
  return Status::kOk;
}

Status OrtReader::read_attributes(GraphBuilder& b, FbTable table, Node& node) {
  FbOffsets attributes = table.offsets(NodeTable::kAttributes);
  ORTOLAN_TRY(make_array(attributes.size(), &node.attributes));
  for (size_t i = 0; i < attributes.size(); ++i)
    ORTOLAN_TRY(read_attribute(b, attributes.table(i), node, node.attributes[i]));
  return Status::kOk;
}

template <class T>
Status OrtReader::copy_vector(FbTable table, uint16_t slot, Span<const T>* result) {
  size_t n;
  const uint8_t* data = table.vector(slot, &n);
  Span<T> list;
  ORTOLAN_TRY(make_array(n, &list));
  if (n) copy(list.data, data, n * sizeof(T));
  *result = {list.data, n};
  return Status::kOk;
}

Status OrtReader::read_attribute(GraphBuilder& b, FbTable table, Node& node, Attribute& attribute) {
  attribute.name = table.string(AttributeTable::kName);
  uint32_t kind = table.scalar<uint32_t>(AttributeTable::kType, 0);
  if (kind > static_cast<uint32_t>(AttributeKind::kStrings))
    return node_error(node, Status::kNotImplemented,
                      "attribute \"%\" has a kind that is not supported", attribute.name);
  attribute.kind = static_cast<AttributeKind>(kind);
  switch (attribute.kind) {
    case AttributeKind::kFloat:
      attribute.f = table.scalar<float>(AttributeTable::kF, 0);
      break;
    case AttributeKind::kInt:
      attribute.i = table.scalar<int64_t>(AttributeTable::kI, 0);
      break;
    case AttributeKind::kString:
      attribute.s = table.string(AttributeTable::kS);
      break;
    case AttributeKind::kFloats:
      return copy_vector<float>(table, AttributeTable::kFloats, &attribute.floats);
    case AttributeKind::kInts:
      return copy_vector<int64_t>(table, AttributeTable::kInts, &attribute.ints);
    case AttributeKind::kTensor: {
      FbTable tensor = table.table(AttributeTable::kT);
      if (!tensor) break;
      return read_tensor(tensor, attribute.name, &attribute.tensor);
    }
    case AttributeKind::kStrings: {
      FbOffsets strings = table.offsets(AttributeTable::kStrings);
      Span<String> list;
      ORTOLAN_TRY(make_array(strings.size(), &list));
      for (size_t i = 0; i < list.size; ++i) list[i] = strings.string(i);
      attribute.strings = {list.data, list.size};
      break;
    }
    case AttributeKind::kGraph: {
      FbTable graph = table.table(AttributeTable::kG);
      if (!graph) break;
      Graph** place;
      ORTOLAN_TRY(find_body(node, attribute.name, &place));
      ORTOLAN_TRY(read_graph(graph, &b, &attribute.graph));
      *place = attribute.graph;
      break;
    }
    default:
      break;
  }
  return Status::kOk;
}

// Elements stay where they are in the file, unless they are too little aligned for their size.
Status OrtReader::read_tensor(FbTable table, String what, TensorView* tensor) {
  auto wrong = [&](String why) {
    return fail(error_, Status::kInvalidFormat, "tensor \"%\": %", what, why);
  };
  uint32_t type = table.scalar<uint32_t>(TensorTable::kDataType, 0);
  size_t rank, bytes, size;
  const uint8_t* dims = table.vector(TensorTable::kDims, &rank);
  const uint8_t* data = table.vector(TensorTable::kRawData, &size);
  if (rank > kMaxRank) return too_many_dimensions(what, rank);
  if (type == 0 || type >= kDataTypes) return wrong("its element type is not supported");
  tensor->type = static_cast<DataType>(type);
  tensor->shape = Shape();
  for (size_t i = 0; i < rank; ++i) tensor->shape.append(read<int64_t>(dims + 8 * i));
  size_t element = element_size(tensor->type);
  if (!checked_bytes(tensor->shape, element, &bytes))
    return wrong("its dimensions are negative or too large");
  if (tensor->type == DataType::kString)
    return kHasTexts ? read_texts(table, what, tensor) : wrong("this build has no strings");
  const uint8_t bits = schema::kElementBits[type];
  const size_t count = bytes;
  if (kHasPacked && bits < 8) bytes = count / 8 * bits + (count % 8 * bits + 7) / 8;
  int64_t offset = table.scalar<int64_t>(TensorTable::kExternalDataOffset, -1);
  if (offset >= 0) {
    if (data) return wrong("its data are in the file and in another one");
    ORTOLAN_TRY(external_data(what, offset, bytes, &data));
    size = bytes;
  }
  return take_bytes(what, tensor, data, size);
}

// The handles; the bytes stay in the file.
Status OrtReader::read_texts(FbTable table, String what, TensorView* tensor) {
  FbOffsets texts = table.offsets(TensorTable::kStringData);
  size_t count = tensor->shape.count();
  if (texts.size() != count)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions need % strings, the file has %", what, count,
                texts.size());
  Span<Text> handles;
  ORTOLAN_TRY(make_array(max<size_t>(count, 1), &handles));
  for (size_t i = 0; i < count; ++i)
    if (String text = texts.string(i); text.size)
      handles[i] = Text::at(text.data - sizeof(uint32_t));
  tensor->data = handles.data;
  return Status::kOk;
}

Status OrtReader::read_sparse(FbTable table, String what, TensorView* tensor) {
  using schema::SparseTensorTable;
  TensorView values, indices;
  ORTOLAN_TRY(read_tensor(table.table(SparseTensorTable::kValues), what, &values));
  ORTOLAN_TRY(read_tensor(table.table(SparseTensorTable::kIndices), what, &indices));
  size_t rank;
  const uint8_t* dims = table.vector(SparseTensorTable::kDims, &rank);
  if (rank > kMaxRank) return too_many_dimensions(what, rank);
  for (size_t i = 0; i < rank; ++i) tensor->shape.append(read<int64_t>(dims + 8 * i));
  return densify(what, values, indices, tensor);
}

Status OrtReader::external_data(String what, int64_t offset, size_t bytes, const uint8_t** data) {
  platform::Mapping file;
  ORTOLAN_TRY(model_.external(&file));
  uint64_t begin = static_cast<uint64_t>(offset);
  if (begin > file.size || bytes > file.size - begin)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its data end beyond the file of weights, which has % bytes", what,
                file.size);
  *data = file.data + begin;
  return Status::kOk;
}

}  // namespace

Status read_ort(Model& model, FbTable session) { return OrtReader(model).run(session); }

}  // namespace ortolan
