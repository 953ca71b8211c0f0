// Graphs, values and nodes.
#include "onnx/reader.h"

#include "onnx/versions.h"

namespace ortolan {

Status read_onnx(Model& model, const uint8_t* data, size_t size) {
  size_t marks;
  ORTOLAN_TRY(onnx::verify_onnx({data, size}, model.allocator(), model.error, &marks));
  return onnx::OnnxReader(model, marks).run(onnx::Message({data, size}));
}

namespace onnx {

namespace {

constexpr String kMlDomain = "ai.onnx.ml";

// A graph in a graph takes some of the C++ stack.
constexpr uint32_t kMaxGraphs = 24;

bool is_constant(const Message& node) {
  return node.text(node::kOpType) == String("Constant") &&
         canonical(node.text(node::kDomain)).size == 0;
}

DataType element_type(const Message& message, uint32_t field) {
  uint64_t number = message.number(field);
  return number < kDataTypes ? static_cast<DataType>(number) : DataType::kUndefined;
}

// What exporters write for "any size". As names they would say that all such sizes are equal.
bool is_no_name(String text) {
  while (text.size && text.data[0] == ' ') ++text.data, --text.size;
  while (text.size && text.data[text.size - 1] == ' ') --text.size;
  char small[8];
  if (text.size > sizeof(small)) return false;
  for (size_t i = 0; i < text.size; ++i) {
    char c = text.data[i];
    small[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  constexpr String kNoNames[] = {"", "?", "*", "-1", "none", "null", "unknown"};
  for (String each : kNoNames)
    if (String(small, text.size) == each) return true;
  return false;
}

}  // namespace

OnnxReader::OnnxReader(Model& model, size_t marks)
    : Loader(model),
      imports_(model.allocator()),
      functions_(model.allocator()),
      function_names_(model.allocator()),
      key_(model.allocator()),
      scopes_(model.allocator()),
      marks_(marks),
      files_(model.allocator()) {}

Status OnnxReader::run(const Message& model) {
  size_t graphs = model.count(model::kGraph);
  if (graphs != 1)
    return fail(error_, Status::kInvalidFormat, "the ONNX model has % graphs, not one", graphs);
  ORTOLAN_TRY(read_metadata(model));
  initializers_are_constant_ = model_.metadata.ir_version < 4;
  ORTOLAN_TRY(read_imports(model));
  ORTOLAN_TRY(read_functions(model));
  Graph* graph = nullptr;
  ORTOLAN_TRY(read_graph(model.message(model::kGraph), nullptr, nullptr, &graph));
  return complete();
}

Status OnnxReader::read_metadata(const Message& model) {
  Metadata& m = model_.metadata;
  Message graph = model.message(model::kGraph);
  ORTOLAN_TRY(keep_text(model.text(model::kProducerName), &m.texts[Metadata::kProducerName]));
  ORTOLAN_TRY(keep_text(model.text(model::kProducerVersion), &m.texts[Metadata::kProducerVersion]));
  ORTOLAN_TRY(keep_text(model.text(model::kDomain), &m.texts[Metadata::kDomain]));
  ORTOLAN_TRY(keep_text(model.text(model::kDocString), &m.texts[Metadata::kDescription]));
  ORTOLAN_TRY(keep_text(graph.text(graph::kName), &m.texts[Metadata::kGraphName]));
  ORTOLAN_TRY(keep_text(graph.text(graph::kDocString), &m.texts[Metadata::kGraphDescription]));
  m.ir_version = static_cast<int64_t>(model.number(model::kIrVersion));
  m.model_version = static_cast<int64_t>(model.number(model::kModelVersion));
  m.properties = model_.zone.array<Metadata::Property>(model.count(model::kMetadataProps));
  size_t i = 0;
  for (Fields props = model.each(model::kMetadataProps); props.next(); ++i) {
    if (i >= m.properties.size) return out_of_memory();
    ORTOLAN_TRY(keep_text(props.message().text(entry::kKey), &m.properties[i].key));
    ORTOLAN_TRY(keep_text(props.message().text(entry::kValue), &m.properties[i].value));
  }
  return Status::kOk;
}

Status OnnxReader::read_imports(const Message& model) {
  for (Fields imports = model.each(model::kOpsetImport); imports.next(); ++model_imports_) {
    const Import import = import_of(imports.message());
    ORTOLAN_TRY(check_import(import));
    if (!imports_.push(import)) return out_of_memory();
  }
  if (!imports_.empty()) return Status::kOk;
  // Before IR version 3 a model could do without: it meant version 1.
  if (model_.metadata.ir_version < 1 || model_.metadata.ir_version > 2)
    return fail(error_, Status::kInvalidGraph,
                "the model imports no operator set, so the version of its operators is unknown: "
                "export it again, or set opset_import");
  model_imports_ = 1;
  return imports_.push({{}, 1}) ? Status::kOk : out_of_memory();
}

Status OnnxReader::check_import(const Import& import) {
  if (import.version < 1)
    return fail(error_, Status::kInvalidGraph,
                "the model imports version % of \"%\": the first version is 1", import.version,
                import.domain);
  int64_t newest = import.domain.size == 0      ? kNewestOpset
                   : import.domain == kMlDomain ? kNewestMlOpset
                                                : INT32_MAX;
  if (import.version <= newest) return Status::kOk;
  return fail(error_, Status::kNotImplemented,
              "the model imports version % of \"%\", but % is the newest one known: export it "
              "for that version, or update Ortolan",
              import.version, import.domain, newest);
}

// Of a domain that is imported twice, the last; 0: not at all. What a function does not import is
// what the model does.
int64_t OnnxReader::imported(const Scope* scope, String domain) const {
  auto find = [&](size_t begin, size_t end) -> int64_t {
    while (end-- > begin)
      if (imports_[end].domain == domain) return imports_[end].version;
    return 0;
  };
  int64_t version = 0;
  if (scope)
    version = find(functions_[scope->function].imports, functions_[scope->function].imports_end);
  return version ? version : find(0, model_imports_);
}

int32_t OnnxReader::since_version(const Scope* scope, String domain, String type) const {
  if (domain == String("com.microsoft")) return 1;
  const int64_t version = imported(scope, domain);
  const Operator* op = find_operator(domain, type);
  const uint32_t versions = op ? kSinceVersions[op - kOperators] : 0;
  const bool is_standard = domain.size == 0 || domain == kMlDomain;
  // A domain of the standard that is not imported is meant in its newest version.
  uint32_t until = ~0u;
  if (version && version < 31) until = (1u << (version + 1)) - 1;
  if (versions & until) return 31 - __builtin_clz(versions & until);
  if (is_standard && op) return 1;
  return version ? static_cast<int32_t>(version) : 1;
}

Status OnnxReader::read_graph(const Message& graph, Scope* scope, GraphBuilder* parent,
                              Graph** result) {
  if (parent && parent->graph->depth >= kMaxGraphs)
    return fail(error_, Status::kLimitExceeded, "graphs are nested deeper than %", kMaxGraphs);
  GraphBuilder* b;
  Body body(model_.allocator(), graph, scope);
  ORTOLAN_TRY(expand(body));
  ORTOLAN_TRY(open_graph(parent, &b));
  ORTOLAN_TRY(declare(*b, body));
  ORTOLAN_TRY(resolve_nodes(*b, body));
  ORTOLAN_TRY(resolve_outputs(*b, body));
  ORTOLAN_TRY(order(*b));
  *result = b->graph;
  return Status::kOk;
}

Status OnnxReader::declare(GraphBuilder& b, const Body& body) {
  const Message& graph = body.graph;
  size_t names = graph.count(graph::kInput) + graph.count(graph::kInitializer) +
                 graph.count(graph::kSparseInitializer) + body.aliases.size();
  for (const Item& item : body.items) names += item.node.count(node::kOutput);
  ORTOLAN_TRY(reserve(b, names, body.items.size() + body.aliases.size()));
  ORTOLAN_TRY(declare_constants(b, body));
  ORTOLAN_TRY(declare_inputs(b, body));
  ORTOLAN_TRY(declare_nodes(b, body));
  ORTOLAN_TRY(declare_aliases(b, body));
  ORTOLAN_TRY(declare_types(b, body, graph::kInput));
  ORTOLAN_TRY(declare_types(b, body, graph::kOutput));
  return declare_types(b, body, graph::kValueInfo);
}

// Of several constants with one name the last is valid for every user, also for those before it.
Status OnnxReader::declare_constants(GraphBuilder& b, const Body& body) {
  TensorView view;
  String full;
  for (Fields each = body.graph.each(graph::kInitializer); each.next();) {
    String name = each.message().text(tensor::kName);
    view = TensorView();
    ORTOLAN_TRY(read_tensor(each.message(), name, &view));
    ORTOLAN_TRY(full_name(body.scope, name, &full));
    ORTOLAN_TRY(set_constant(b, full, view));
  }
  for (Fields each = body.graph.each(graph::kSparseInitializer); each.next();) {
    String name = each.message().message(sparse::kValues).text(tensor::kName);
    view = TensorView();
    ORTOLAN_TRY(read_sparse(each.message(), name, &view));
    ORTOLAN_TRY(full_name(body.scope, name, &full));
    ORTOLAN_TRY(set_constant(b, full, view));
  }
  for (const Item& item : body.items)
    if (is_constant(item.node)) ORTOLAN_TRY(lift_constant(b, item));
  return Status::kOk;
}

Status OnnxReader::set_constant(GraphBuilder& b, String name, const TensorView& view) {
  if (name.size == 0)
    return fail(error_, Status::kInvalidGraph, "an initializer of a graph has no name");
  uint32_t value = b.names.find(b.values, name);
  if (value == kNoValue) return declare_constant(b, name, view);
  Value& v = b.values[value];
  v.type = view.type;
  v.shape = view.shape;
  v.rank_hint = static_cast<int8_t>(view.shape.rank);
  v.data = view.data;
  return Status::kOk;
}

// A constant that is listed as an input is a default from IR version 4 on. Before, and in a body,
// whose inputs are counted without it, it is no input.
Status OnnxReader::declare_inputs(GraphBuilder& b, const Body& body) {
  const bool has_defaults = !b.parent && !initializers_are_constant_;
  List<uint32_t> found(model_.allocator());
  for (Fields each = body.graph.each(graph::kInput); each.next();) {
    String name;
    ORTOLAN_TRY(full_name(body.scope, each.message().text(value_info::kName), &name));
    uint32_t value = b.names.find(b.values, name);
    if (value == kNoValue) {
      ORTOLAN_TRY(define(b, name, &value));
    } else if (b.values[value].is_input) {
      return fail(error_, Status::kInvalidGraph, "two inputs have the name \"%\"", name);
    } else if (!has_defaults) {
      continue;
    }
    if (name.size == 0)
      return fail(error_, Status::kInvalidGraph, "an input of a graph has no name");
    Value& v = b.values[value];
    v.is_input = true;
    v.is_constant = false;
    ORTOLAN_TRY(keep_text(name, &v.name));
    if (!found.push(value)) return out_of_memory();
  }
  b.graph->inputs = model_.zone.array<uint32_t>(found.size());
  if (b.graph->inputs.size != found.size()) return out_of_memory();
  for (size_t i = 0; i < found.size(); ++i) b.graph->inputs[i] = found[i];
  return Status::kOk;
}

Status OnnxReader::declare_nodes(GraphBuilder& b, const Body& body) {
  for (const Item& item : body.items) {
    const Message& source = item.node;
    if (is_constant(source)) continue;
    Node node;
    ORTOLAN_TRY(keep_text(source.text(node::kName), &node.name));
    ORTOLAN_TRY(keep_text(source.text(node::kOpType), &node.type));
    ORTOLAN_TRY(keep_text(canonical(source.text(node::kDomain)), &node.domain));
    node.since_version = since_version(item.scope, node.domain, node.type);
    node.file_index = static_cast<uint32_t>(&item - body.items.begin());
    if (node.type.size == 0) return node_error(node, Status::kInvalidGraph, "it names no operator");
    node.outputs = model_.zone.array<uint32_t>(source.count(node::kOutput));
    size_t i = 0;
    for (Fields outputs = source.each(node::kOutput); outputs.next(); ++i) {
      if (i >= node.outputs.size) return out_of_memory();
      node.outputs[i] = kNoValue;
      String name;
      ORTOLAN_TRY(full_name(item.scope, outputs.text(), &name));
      if (name.size && b.names.find(b.values, name) != kNoValue)
        return node_error(node, Status::kInvalidGraph, "its output \"%\" is defined a second time",
                          name);
      if (name.size) ORTOLAN_TRY(define(b, name, &node.outputs[i]));
    }
    if (!b.nodes.push(node)) return out_of_memory();
  }
  return Status::kOk;
}

Status OnnxReader::declare_aliases(GraphBuilder& b, const Body& body) {
  for (const Body::Alias& alias : body.aliases) {
    Node node;
    node.type = String("Identity");
    node.since_version = since_version(nullptr, {}, node.type);
    node.file_index = static_cast<uint32_t>(b.nodes.size());
    node.outputs = model_.zone.array<uint32_t>(1);
    if (!node.outputs.size) return out_of_memory();
    ORTOLAN_TRY(define(b, alias.to, &node.outputs[0]));
    if (!b.nodes.push(node)) return out_of_memory();
  }
  return Status::kOk;
}

// Types and shapes that the model states; what was read first, stays. Only those of inputs are
// relied on; the rest are hints.
Status OnnxReader::declare_types(GraphBuilder& b, const Body& body, uint32_t which) {
  for (Fields each = body.graph.each(which); each.next();) {
    String name;
    ORTOLAN_TRY(full_name(body.scope, each.message().text(value_info::kName), &name));
    uint32_t value = b.names.find(b.values, name);
    if (value == kNoValue || b.values[value].type != DataType::kUndefined) continue;
    ORTOLAN_TRY(read_type(each.message().message(value_info::kType), b.values[value]));
  }
  return Status::kOk;
}

// Types that are not supported leave the value without one.
Status OnnxReader::read_type(Message type, Value& v) {
  ValueType found;
  for (uint8_t depth = 0; type && depth <= kMaxLayers; ++depth) {
    const auto add = [&](ValueKind kind) {
      found.layers |= static_cast<uint8_t>(static_cast<uint8_t>(kind) << 2 * depth);
    };
    if (Message what = type.message(type::kTensor)) {
      found.element = element_type(what, type::kElemType);
      v.set_type(found);
      Message shape = what.message(type::kShape);
      return shape && depth == 0 ? read_shape(shape, v) : Status::kOk;
    }
    if (depth == kMaxLayers) break;
    if (Message sequence = type.message(type::kSequence)) {
      add(ValueKind::kSequence);
      type = sequence.message(type::kElement);
    } else if (Message optional = type.message(type::kOptional)) {
      add(ValueKind::kOptional);
      type = optional.message(type::kElement);
    } else {
      Message map = type.message(type::kMap);
      add(ValueKind::kMap);
      found.key = element_type(map, type::kKeyType);
      type = map.message(type::kValueType);
    }
  }
  return Status::kOk;
}

Status OnnxReader::read_shape(const Message& shape, Value& v) {
  const size_t rank = shape.count(shape::kDim);
  if (rank > kMaxRank) return Status::kOk;
  Span<String> names = model_.zone.array<String>(rank);
  if (names.size != rank) return out_of_memory();
  v.rank_hint = static_cast<int8_t>(rank);
  v.shape = Shape();
  size_t i = 0;
  for (Fields each = shape.each(shape::kDim); each.next(); ++i) {
    Message dim = each.message();
    const bool fixed = dim.has(shape::kDimValue);
    int64_t size = static_cast<int64_t>(dim.number(shape::kDimValue));
    v.shape.append(fixed && size >= 0 ? size : -1);
    String name = dim.text(shape::kDimParam);
    if (!fixed && !is_no_name(name)) ORTOLAN_TRY(keep_text(name, &names[i]));
  }
  v.dim_names = {names.data, names.size};
  return Status::kOk;
}

Status OnnxReader::resolve_nodes(GraphBuilder& b, const Body& body) {
  size_t k = 0;
  String name;
  for (const Item& item : body.items) {
    if (is_constant(item.node)) continue;
    Node& node = b.nodes[k++];
    node.inputs = model_.zone.array<uint32_t>(item.node.count(node::kInput));
    size_t i = 0;
    for (Fields inputs = item.node.each(node::kInput); inputs.next(); ++i) {
      if (i >= node.inputs.size) return out_of_memory();
      ORTOLAN_TRY(full_name(item.scope, inputs.text(), &name));
      ORTOLAN_TRY(resolve(b, name, &node.inputs[i]));
    }
    ORTOLAN_TRY(read_attributes(b, item, node));
  }
  for (const Body::Alias& alias : body.aliases) {
    Node& node = b.nodes[k++];
    node.inputs = model_.zone.array<uint32_t>(1);
    if (!node.inputs.size) return out_of_memory();
    ORTOLAN_TRY(resolve(b, alias.from, &node.inputs[0]));
  }
  return Status::kOk;
}

Status OnnxReader::resolve_outputs(GraphBuilder& b, const Body& body) {
  ORTOLAN_TRY(reserve_outputs(b, body.graph.count(graph::kOutput)));
  size_t i = 0;
  for (Fields each = body.graph.each(graph::kOutput); each.next(); ++i) {
    String name;
    ORTOLAN_TRY(full_name(body.scope, each.message().text(value_info::kName), &name));
    ORTOLAN_TRY(resolve_output(b, i, name));
    Value& v = b.values[b.graph->outputs[i]];
    if (!b.parent) ORTOLAN_TRY(keep_text(name, &v.name));
  }
  return Status::kOk;
}

}  // namespace onnx

}  // namespace ortolan
