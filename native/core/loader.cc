// Phase 1: the structure of the graphs, from the verified file. Names become value numbers.
#include "core/loader.h"

namespace ortolan {

namespace {

using schema::AttributeTable;
using schema::GraphTable;
using schema::NodeTable;
using schema::TensorTable;

uint32_t name_hash(String name, uint32_t salt) {
  uint32_t hash = 2166136261u ^ salt;
  for (size_t i = 0; i < name.size; ++i)
    hash = (hash ^ static_cast<uint8_t>(name.data[i])) * 16777619u;
  return hash ^ hash >> 15;
}

// Texts that callers see are UTF-8, so that every language can hold them.
bool is_utf8(String text) {
  for (size_t i = 0; i < text.size;) {
    uint32_t first = static_cast<uint8_t>(text.data[i++]);
    if (first < 0x80) continue;
    if (first < 0xc2 || first > 0xf4) return false;
    int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t code = first & (0x3fu >> more);
    for (int k = 0; k < more; ++k, ++i) {
      if (i == text.size || (text.data[i] & 0xc0) != 0x80) return false;
      code = code << 6 | (static_cast<uint8_t>(text.data[i]) & 0x3f);
    }
    bool is_overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    if (is_overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  }
  return true;
}

}  // namespace

bool NameTable::reserve(size_t names) {
  size_t capacity = 16;
  while (capacity < names * 2) capacity *= 2;
  return resize(capacity);
}

// The address, which is another in every process, keeps files from being made so that all of their
// names collide.
bool NameTable::resize(size_t capacity) {
  slots_.clear();
  if (!slots_.resize(capacity, kNoValue)) return false;
  salt_ = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(slots_.begin()) >> 12);
  return true;
}

uint32_t NameTable::find(const List<Value>& values, String name) const {
  size_t mask = slots_.size() - 1;
  for (size_t i = name_hash(name, salt_) & mask;; i = (i + 1) & mask) {
    uint32_t value = slots_[i];
    if (value == kNoValue || values[value].name == name) return value;
  }
}

void NameTable::place(const List<Value>& values, uint32_t value) {
  size_t mask = slots_.size() - 1;
  size_t i = name_hash(values[value].name, salt_) & mask;
  while (slots_[i] != kNoValue) i = (i + 1) & mask;
  slots_[i] = value;
}

bool NameTable::insert(const List<Value>& values, uint32_t value) {
  if (++count_ * 2 > slots_.size()) {
    if (!resize(slots_.size() * 2)) return false;
    for (uint32_t i = 0; i < values.size(); ++i)
      if (i != value) place(values, i);
  }
  place(values, value);
  return true;
}

Loader::~Loader() {
  const Allocator& allocator = model_.options.allocator;
  for (GraphBuilder* b : builders_) {
    b->~GraphBuilder();
    allocator.put(b, sizeof(GraphBuilder));
  }
}

Status Loader::run() {
  using schema::InferenceSessionTable;
  using schema::ModelTable;
  FbTable model = model_.root.table(InferenceSessionTable::kModel);
  if (!model.has(ModelTable::kGraph))
    return fail(error_, Status::kInvalidFormat, "the model has no graph");
  ORTOLAN_TRY(check_metadata(model));
  initializers_are_constant_ = model.scalar<int64_t>(ModelTable::kIrVersion, 0) < 4;
  Graph* graph = nullptr;
  ORTOLAN_TRY(read_graph(model.table(ModelTable::kGraph), nullptr, 0, &graph));
  ORTOLAN_TRY(unknown_operators());
  ORTOLAN_TRY(bind_graph(*builder_of(graph)));
  for (GraphBuilder* b : builders_) {
    if (kHasLayouts) ORTOLAN_TRY(choose_layouts(*b));
    ORTOLAN_TRY(finish(*b));
  }
  ORTOLAN_TRY(describe_types(*builder_of(graph)));
  // Bodies were read after the graphs that hold them: outer constants come first.
  for (Graph* each : model_.graphs) ORTOLAN_TRY(prepare(*each));
  return Status::kOk;
}

Status Loader::check_metadata(FbTable model) {
  using schema::ModelTable;
  using schema::StringStringEntryTable;
  constexpr uint16_t kTexts[] = {ModelTable::kProducerName, ModelTable::kProducerVersion,
                                 ModelTable::kDomain, ModelTable::kDocString,
                                 ModelTable::kGraphDocString};
  for (uint16_t slot : kTexts)
    if (!is_utf8(model.string(slot))) return not_utf8("a text of the model");
  FbOffsets props = model.offsets(ModelTable::kMetadataProps);
  for (size_t i = 0; i < props.size(); ++i)
    if (!is_utf8(props.table(i).string(StringStringEntryTable::kKey)) ||
        !is_utf8(props.table(i).string(StringStringEntryTable::kValue)))
      return not_utf8("the metadata");
  return Status::kOk;
}

Status Loader::not_utf8(String what) {
  return fail(error_, Status::kInvalidFormat, "damaged ORT format file: % is not UTF-8", what);
}

Status Loader::read_graph(FbTable table, GraphBuilder* parent, uint32_t depth, Graph** result) {
  const Allocator& allocator = model_.options.allocator;
  Graph* graph = model_.zone.make<Graph>();
  void* memory = allocator.get(sizeof(GraphBuilder));
  if (!graph || !memory || !model_.graphs.push(graph) ||
      !builders_.push(static_cast<GraphBuilder*>(memory))) {
    allocator.put(memory, sizeof(GraphBuilder));
    return out_of_memory();
  }
  graph->index = static_cast<uint32_t>(model_.graphs.size() - 1);
  graph->parent = parent ? parent->graph : nullptr;
  graph->depth = depth;
  auto* b = new (memory, Zone::Placement{}) GraphBuilder(allocator, graph, parent);
  ORTOLAN_TRY(declare(*b, table));
  ORTOLAN_TRY(resolve_nodes(*b, table));
  ORTOLAN_TRY(resolve_outputs(*b, table));
  ORTOLAN_TRY(order(*b));
  *result = graph;
  return Status::kOk;
}

// Every name that the graph itself defines: inputs, initializers, results of nodes.
Status Loader::declare(GraphBuilder& b, FbTable table) {
  FbOffsets nodes = table.offsets(GraphTable::kNodes);
  size_t names =
      table.offsets(GraphTable::kInputs).size() + table.offsets(GraphTable::kInitializers).size();
  for (size_t i = 0; i < nodes.size(); ++i)
    names += nodes.table(i).offsets(NodeTable::kOutputs).size();
  node_count_ += nodes.size();
  if (node_count_ > model_.options.max_nodes)
    return fail(error_, Status::kLimitExceeded, "the model has more than % nodes, the limit",
                static_cast<int64_t>(model_.options.max_nodes));
  if (!b.names.reserve(names) || !b.values.reserve(names + 16)) return out_of_memory();
  ORTOLAN_TRY(declare_inputs(b, table));
  ORTOLAN_TRY(declare_initializers(b, table));
  ORTOLAN_TRY(declare_nodes(b, table));
  return declare_types(b, table);
}

Status Loader::define(GraphBuilder& b, String name, uint32_t* value) {
  if (!is_utf8(name)) return not_utf8("the name of a value");
  if (b.names.find(b.values, name) != kNoValue)
    return fail(error_, Status::kInvalidGraph, "the name \"%\" is defined twice", name);
  Value fresh;
  fresh.name = name;
  *value = static_cast<uint32_t>(b.values.size());
  if (!b.values.push(fresh) || !b.names.insert(b.values, *value)) return out_of_memory();
  return Status::kOk;
}

Status Loader::declare_inputs(GraphBuilder& b, FbTable table) {
  FbOffsets inputs = table.offsets(GraphTable::kInputs);
  b.graph->inputs = model_.zone.array<uint32_t>(inputs.size());
  if (b.graph->inputs.size != inputs.size()) return out_of_memory();
  for (size_t i = 0; i < inputs.size(); ++i) {
    uint32_t value;
    ORTOLAN_TRY(define(b, inputs.string(i), &value));
    b.values[value].is_input = true;
    b.graph->inputs[i] = value;
  }
  return Status::kOk;
}

Status Loader::declare_initializers(GraphBuilder& b, FbTable table) {
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
    ORTOLAN_TRY(read_sparse(sparse.table(i), name, &view));
    ORTOLAN_TRY(declare_constant(b, name, view));
  }
  return Status::kOk;
}

Status Loader::declare_constant(GraphBuilder& b, String name, const TensorView& view) {
  uint32_t value = b.names.find(b.values, name);
  if (value == kNoValue) {
    ORTOLAN_TRY(define(b, name, &value));
  } else if (!b.values[value].is_input || b.values[value].data) {
    return fail(error_, Status::kInvalidGraph, "the name \"%\" is defined twice", name);
  }
  Value& v = b.values[value];
  v.type = view.type;
  v.shape = view.shape;
  v.rank_hint = static_cast<int8_t>(view.shape.rank);
  v.data = view.data;
  v.is_constant = !v.is_input || initializers_are_constant_;
  return Status::kOk;
}

// Types and shapes that the file states. Only those of inputs are relied on; the rest are hints.
Status Loader::declare_types(GraphBuilder& b, FbTable table) {
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
Status Loader::read_type(FbTable type, Value& v) {
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
    if (type.string(TypeInfoTable::kDenotation) == String("ai.ortolan.optional")) {
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
        add(ValueKind::kSequence);
        type = what.table(SequenceTypeTable::kElemType);
        break;
      case TypeInfoValue::kMapType:
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

// The types of the graph's inputs and outputs as onnxruntime writes them.
Status Loader::describe_types(GraphBuilder& b) {
  auto describe = [&](Span<uint32_t> values, Span<const char*>* texts) {
    *texts = model_.zone.array<const char*>(values.size);
    if (texts->size != values.size) return out_of_memory();
    for (size_t i = 0; i < values.size; ++i) {
      const Value& v = b.values[values[i]];
      ErrorText text;
      uint32_t closing = 0;
      for (ValueType t = v.full_type();; t = t.inner(), ++closing) {
        constexpr String kOpen[] = {"tensor(", "seq(", "map(", "optional("};
        text.append(Part(kOpen[static_cast<uint8_t>(t.kind())]));
        if (t.kind() == ValueKind::kTensor) break;
        if (t.kind() == ValueKind::kMap)
          text.append(Part(type_name(t.key))), text.append(Part(","));
      }
      text.append(Part(type_name(v.type)));
      for (uint32_t k = 0; k <= closing; ++k) text.append(Part(")"));
      char* kept = static_cast<char*>(model_.zone.allocate(text.length() + 1, 1));
      if (!kept) return out_of_memory();
      copy(kept, text.text(), text.length() + 1);
      (*texts)[i] = kept;
    }
    return Status::kOk;
  };
  ORTOLAN_TRY(describe(b.graph->inputs, &b.graph->input_types));
  return describe(b.graph->outputs, &b.graph->output_types);
}

Status Loader::read_shape(FbTable shape, Value& v) {
  using namespace schema;
  FbOffsets dims = shape.offsets(ShapeTable::kDim);
  if (dims.size() > kMaxRank) return Status::kOk;
  Span<String> names = model_.zone.array<String>(dims.size());
  if (names.size != dims.size()) return out_of_memory();
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

Status Loader::declare_nodes(GraphBuilder& b, FbTable table) {
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
    node.outputs = model_.zone.array<uint32_t>(outputs.size());
    if (node.outputs.size != outputs.size()) return out_of_memory();
    for (size_t j = 0; j < outputs.size(); ++j) {
      node.outputs[j] = kNoValue;
      String name = outputs.string(j);
      if (name.size) ORTOLAN_TRY(define(b, name, &node.outputs[j]));
    }
    if (!b.nodes.push(node)) return out_of_memory();
  }
  return Status::kOk;
}

// The value of a name used in a graph; values of outer graphs are captured on the way in.
Status Loader::resolve(GraphBuilder& b, String name, uint32_t* value) {
  *value = kNoValue;
  if (name.size == 0) return Status::kOk;
  *value = b.names.find(b.values, name);
  if (*value != kNoValue) return Status::kOk;
  GraphBuilder* owner = b.parent;
  uint32_t outer = kNoValue;
  while (owner && (outer = owner->names.find(owner->values, name)) == kNoValue)
    owner = owner->parent;
  if (!owner)
    return fail(error_, Status::kInvalidGraph, "the name \"%\" is used but never defined", name);
  // One capture per graph between the owner and here; the innermost comes last.
  uint32_t depth = b.graph->depth;
  for (uint32_t level = owner->graph->depth + 1; level <= depth; ++level) {
    GraphBuilder* inner = &b;
    while (inner->graph->depth > level) inner = inner->parent;
    Value captured = inner->parent->values[outer];
    captured.is_input = captured.is_output = false;
    captured.outer = outer;
    outer = static_cast<uint32_t>(inner->values.size());
    if (!inner->values.push(captured) || !inner->captures.push(outer)) return out_of_memory();
    if (!inner->names.insert(inner->values, outer)) return out_of_memory();
  }
  *value = outer;
  return Status::kOk;
}

Status Loader::resolve_nodes(GraphBuilder& b, FbTable table) {
  FbOffsets nodes = table.offsets(GraphTable::kNodes);
  for (size_t i = 0; i < nodes.size(); ++i) {
    FbOffsets inputs = nodes.table(i).offsets(NodeTable::kInputs);
    Span<uint32_t> list = model_.zone.array<uint32_t>(inputs.size());
    if (list.size != inputs.size()) return out_of_memory();
    for (size_t j = 0; j < inputs.size(); ++j) ORTOLAN_TRY(resolve(b, inputs.string(j), &list[j]));
    b.nodes[i].inputs = list;
    ORTOLAN_TRY(read_attributes(b, nodes.table(i), b.nodes[i]));
  }
  return Status::kOk;
}

Status Loader::resolve_outputs(GraphBuilder& b, FbTable table) {
  FbOffsets outputs = table.offsets(GraphTable::kOutputs);
  b.graph->outputs = model_.zone.array<uint32_t>(outputs.size());
  b.graph->repeats = model_.zone.array<bool>(outputs.size());
  if (b.graph->outputs.size != outputs.size() || b.graph->repeats.size != outputs.size())
    return out_of_memory();
  for (size_t i = 0; i < outputs.size(); ++i) {
    uint32_t value;
    ORTOLAN_TRY(resolve(b, outputs.string(i), &value));
    if (value == kNoValue)
      return fail(error_, Status::kInvalidGraph, "output % of a graph has no name", i);
    b.graph->outputs[i] = value;
    b.graph->repeats[i] = b.values[value].is_output;
    b.values[value].is_output = true;
  }
  return Status::kOk;
}

Status Loader::read_attributes(GraphBuilder& b, FbTable table, Node& node) {
  FbOffsets attributes = table.offsets(NodeTable::kAttributes);
  node.attributes = model_.zone.array<Attribute>(attributes.size());
  if (node.attributes.size != attributes.size()) return out_of_memory();
  for (size_t i = 0; i < attributes.size(); ++i)
    ORTOLAN_TRY(read_attribute(b, attributes.table(i), node, node.attributes[i]));
  return Status::kOk;
}

template <class T>
Status Loader::copy_vector(FbTable table, uint16_t slot, Span<const T>* result) {
  size_t n;
  const uint8_t* data = table.vector(slot, &n);
  Span<T> list = model_.zone.array<T>(n);
  if (list.size != n) return out_of_memory();
  if (n) copy(list.data, data, n * sizeof(T));
  *result = {list.data, n};
  return Status::kOk;
}

Status Loader::read_attribute(GraphBuilder& b, FbTable table, Node& node, Attribute& attribute) {
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
      Span<String> list = model_.zone.array<String>(strings.size());
      if (list.size != strings.size()) return out_of_memory();
      for (size_t i = 0; i < list.size; ++i) list[i] = strings.string(i);
      attribute.strings = {list.data, list.size};
      break;
    }
    case AttributeKind::kGraph: {
      FbTable graph = table.table(AttributeTable::kG);
      if (!graph) break;
      bool second = attribute.name == String("else_branch");
      Graph*& place = node.bodies[second ? 1 : 0];
      bool known =
          second || attribute.name == String("then_branch") || attribute.name == String("body");
      if (!known || place)
        return node_error(node, Status::kInvalidGraph,
                          "graph attribute \"%\" is unknown or there twice", attribute.name);
      ORTOLAN_TRY(read_graph(graph, &b, b.graph->depth + 1, &attribute.graph));
      place = attribute.graph;
      break;
    }
    default:
      break;
  }
  return Status::kOk;
}

// Elements stay where they are in the file, unless they are too little aligned for their size.
Status Loader::read_tensor(FbTable table, String what, TensorView* tensor) {
  auto wrong = [&](String why) {
    return fail(error_, Status::kInvalidFormat, "tensor \"%\": %", what, why);
  };
  uint32_t type = table.scalar<uint32_t>(TensorTable::kDataType, 0);
  size_t rank, bytes, size;
  const uint8_t* dims = table.vector(TensorTable::kDims, &rank);
  const uint8_t* data = table.vector(TensorTable::kRawData, &size);
  if (rank > kMaxRank)
    return fail(error_, Status::kNotImplemented,
                "tensor \"%\" has % dimensions; at most 8 are supported", what, rank);
  if (type == 0 || type >= kDataTypes) return wrong("its element type is not supported");
  tensor->type = static_cast<DataType>(type);
  tensor->shape = Shape();
  for (size_t i = 0; i < rank; ++i) tensor->shape.append(read<int64_t>(dims + 8 * i));
  size_t element = element_size(tensor->type);
  if (!checked_bytes(tensor->shape, element, &bytes))
    return wrong("its dimensions are negative or too large");
  if (tensor->type == DataType::kString) return read_texts(table, what, tensor);
  const uint8_t bits = schema::kElementBits[type];
  const size_t count = bytes;
  if (bits < 8) bytes = (count * bits + 7) / 8;
  int64_t offset = table.scalar<int64_t>(TensorTable::kExternalDataOffset, -1);
  if (offset >= 0) {
    if (data) return wrong("its data are in the file and in another one");
    ORTOLAN_TRY(external_data(what, offset, bytes, &data));
    size = bytes;
  }
  if (size != bytes)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions need % bytes, the file has %", what, bytes, size);
  if (bits < 8) return unpack(data, bits, count, tensor);
  size_t alignment = min<size_t>(element, 8);
  if (!data || reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    void* moved = model_.zone.allocate(max<size_t>(bytes, 1), kAlignment);
    if (!moved) return out_of_memory();
    if (bytes) copy(moved, data, bytes);
    data = static_cast<const uint8_t*>(moved);
  }
  if (tensor->type == DataType::kBool && !are_bools(data, bytes))
    return wrong("a byte of it is no bool");
  tensor->data = data;
  return Status::kOk;
}

// Elements of a few bits, the first in the lowest, get a byte each.
Status Loader::unpack(const uint8_t* data, uint8_t bits, size_t count, TensorView* tensor) {
  Span<uint8_t> bytes = model_.zone.array<uint8_t>(max<size_t>(count, 1));
  if (bytes.size < count) return out_of_memory();
  const size_t in_byte = 8 / bits;
  for (size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<uint8_t>(data[i / in_byte] >> i % in_byte * bits & ((1 << bits) - 1));
  tensor->data = bytes.data;
  return Status::kOk;
}

// The handles; the bytes stay in the file.
Status Loader::read_texts(FbTable table, String what, TensorView* tensor) {
  FbOffsets texts = table.offsets(TensorTable::kStringData);
  size_t count = tensor->shape.count();
  if (texts.size() != count)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions need % strings, the file has %", what, count,
                texts.size());
  Span<Text> handles = model_.zone.array<Text>(max<size_t>(count, 1));
  if (handles.size < count) return out_of_memory();
  for (size_t i = 0; i < count; ++i)
    if (String text = texts.string(i); text.size)
      handles[i] = Text::at(text.data - sizeof(uint32_t));
  tensor->data = handles.data;
  return Status::kOk;
}

Status Model::load(const uint8_t* data, size_t size) {
  error.clear();
  file_bytes = size;
  if (reinterpret_cast<uintptr_t>(data) % 4 != 0) {
    auto* moved = static_cast<uint8_t*>(zone.allocate(size, kAlignment));
    if (!moved) return fail(error, Status::kOutOfMemory, "memory is out");
    copy(moved, data, size);
    data = moved;
    copied = true;
  }
  ORTOLAN_TRY(verify_ort(data, size, options.allocator, error, &root));
  level = min(platform::instruction_set_level(), options.instruction_set);
  threads = options.threads ? options.threads : platform::processors();
  threads = min(threads, ThreadPool::kMaxWorkers + 1);
  if (threads > 1) pool = &ThreadPool::with(threads);
  Loader loader(*this);
  ORTOLAN_TRY(loader.run());
  loaded = true;
  return Status::kOk;
}

Status Model::open(const char* path) {
  int reason = 0;
  String name = from_c(path);
  if (!platform::map_file(path, &mapping_, &reason))
    return fail(error, Status::kNoSuchFile, "cannot read \"%\" (system error %)", name, reason);
  path_ = name;
  Status status = load(mapping_.data, mapping_.size);
  path_ = String();
  return status;
}

}  // namespace ortolan
