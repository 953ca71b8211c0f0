// Phases 2 and 4: execution order, element types, the kernel of each node, and its preparation.
#include "core/loader.h"
#include "core/plan.h"
#include "core/signature.h"

namespace ortolan {

extern const bool kIsReduced;  // in registry.cc: operators were left out

namespace {

bool covers(const Row& row, int32_t version) {
  return version >= row.min_version && (version <= row.max_version || row.max_version == 255);
}

String kind_name(uint8_t layers) {
  return nth_word("a tensor\0a sequence\0a map\0an optional\0", layers & 3);
}

bool is_tensor_of(const GraphBuilder& b, uint32_t value, DataType type) {
  return b.values[value].full_type() == ValueType{type, DataType::kUndefined, 0};
}

bool has_texts(const Node& node, String name) {
  const Attribute* a = find_attribute(node, name);
  return a && a->kind == AttributeKind::kStrings && a->strings.size;
}

DataType label_type(const Node& node) {
  const Attribute* tensor = find_attribute(node, "values_tensor");
  if (tensor && tensor->kind == AttributeKind::kTensor) return tensor->tensor.type;
  if (has_texts(node, "values_strings")) return DataType::kString;
  return find_attribute(node, "values_int64s") ? DataType::kInt64 : DataType::kFloat;
}

// The type of a result that no variable gives.
ValueType special_type(TypeRule rule, const Node& node, ValueType declared, ValueType input) {
  switch (rule) {
    case TypeRule::kSame:
      return input;
    case TypeRule::kOptional:  // without an element, only the file knows of what
      if (input.element == DataType::kUndefined)
        return declared.kind() == ValueKind::kOptional ? declared : ValueType();
      return input.within(ValueKind::kOptional);
    case TypeRule::kElement:
      return input.kind() == ValueKind::kOptional ? input.inner() : input;
    case TypeRule::kZipMap: {
      DataType key = has_texts(node, "classlabels_strings") ? DataType::kString : DataType::kInt64;
      return ValueType{DataType::kFloat, key, kMapLayer}.within(ValueKind::kSequence);
    }
    case TypeRule::kMapValue:
      return {input.element, DataType::kUndefined, 0};
    case TypeRule::kLabels:
      return {has_texts(node, "classlabels_strings") ? DataType::kString : DataType::kInt64,
              DataType::kUndefined, 0};
    case TypeRule::kLabelValues:
      return {label_type(node), DataType::kUndefined, 0};
    case TypeRule::kOpposite:
      return {input.element == DataType::kString ? DataType::kInt64 : DataType::kString,
              DataType::kUndefined, 0};
    case TypeRule::kPositive: {
      const Attribute* positive = find_attribute(node, "positive");
      bool is_signed = positive && positive->i == 0;
      return {is_signed ? DataType::kInt32 : DataType::kUint32, DataType::kUndefined, 0};
    }
    case TypeRule::kCastTo: {
      const Attribute* to = find_attribute(node, "cast_to");
      DataType type = !to || to->s == String("TO_FLOAT") ? DataType::kFloat
                      : to->s == String("TO_INT64")      ? DataType::kInt64
                      : to->s == String("TO_STRING")     ? DataType::kString
                                                         : DataType::kUndefined;
      return {type, DataType::kUndefined, 0};
    }
    default:
      return declared;
  }
}

// `missing`: the type where the node has no such attribute.
DataType type_from_attribute(const Node& node, TypeAttribute source, DataType missing) {
  if (source == TypeAttribute::kValue) {
    const Attribute* value = find_attribute(node, "value");
    return value && value->kind == AttributeKind::kTensor ? value->tensor.type : DataType::kFloat;
  }
  const Attribute* a = find_attribute(node, nth_word("to\0dtype\0\0output_datatype\0output_dtype\0",
                                                     static_cast<size_t>(source) - 1));
  if (!a || (a->kind == AttributeKind::kInt && a->i == 0)) return missing;
  if (a->kind != AttributeKind::kInt || a->i < 0 || a->i >= kDataTypes) return DataType::kUndefined;
  return static_cast<DataType>(a->i);
}

}  // namespace

String type_name(DataType type) {
  return nth_word(
      "undefined\0float\0uint8\0int8\0uint16\0int16\0int32\0int64\0string\0bool\0float16\0double\0"
      "uint32\0uint64\0complex64\0complex128\0bfloat16\0float8e4m3fn\0float8e4m3fnuz\0float8e5m2\0"
      "float8e5m2fnuz\0uint4\0int4\0float4e2m1\0float8e8m0\0uint2\0int2\0",
      static_cast<size_t>(type));
}

namespace {
void append_place(ErrorText& error, const Node& node) {
  const Part place[] = {node.type, node.name};
  error.clear();
  error.append("[%] node \"%\": ", place, 2);
}
}  // namespace

#if defined(ORTOLAN_MESSAGE_CODES)
Status fail_node_number(ErrorText& error, const Node& node, Status code, uint32_t number) {
  append_place(error, node);
  error.append(Part("message "));
  error.append(Part(number));
  return code;
}
#else
Status fail_node_parts(ErrorText& error, const Node& node, Status code, const char* format,
                       const Part* parts, size_t count) {
  append_place(error, node);
  error.append(format, parts, count);
  return code;
}
#endif

const Attribute* find_attribute(const Node& node, String name) {
  for (const Attribute& attribute : node.attributes)
    if (attribute.name == name) return &attribute;
  return nullptr;
}

const Operator* find_operator(String domain, String type) {
  uint32_t hash = operator_hash(domain, type), low = 0, high = kOperatorCount;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (kOperators[middle].hash < hash)
      low = middle + 1;
    else
      high = middle;
  }
  bool found = low < kOperatorCount && kOperators[low].hash == hash;
  return found ? &kOperators[low] : nullptr;
}

// The k-th value that a node reads, those that its bodies capture included; false past the last.
bool Loader::reads(const Node& node, size_t k, uint32_t* value) {
  if (k < node.inputs.size) {
    *value = node.inputs[k];
    return true;
  }
  k -= node.inputs.size;
  for (Graph* body : node.bodies) {
    if (!kHasControl || !body) continue;
    const GraphBuilder& inner = *builder_of(body);
    if (k < inner.captures.size()) {
      *value = inner.values[inner.captures[k]].outer;
      return true;
    }
    k -= inner.captures.size();
  }
  return false;
}

// The file's order, in which what a node reads comes before it where the file has it later.
Status Loader::order(GraphBuilder& b) {
  enum State : uint8_t { kNew, kOpen, kDone };
  struct Visit {
    uint32_t node;
    uint32_t read;  // how much of what the node reads was visited
  };
  const Allocator& allocator = model_.allocator();
  List<uint32_t> producer(allocator);
  List<uint8_t> states(allocator);
  List<Visit> path(allocator);
  if (!producer.resize(b.values.size(), kNoValue) || !states.resize(b.nodes.size(), kNew) ||
      !b.bound.reserve(b.nodes.size()))
    return out_of_memory();
  for (uint32_t i = 0; i < b.nodes.size(); ++i)
    for (uint32_t value : b.nodes[i].outputs)
      if (value != kNoValue) producer[value] = i;
  for (uint32_t i = 0; i < b.nodes.size(); ++i) {
    uint32_t next = i;
    for (;;) {
      if (next != kNoValue && states[next] == kOpen)
        return node_error(b.nodes[next], Status::kInvalidGraph, "it is part of a cycle");
      if (next != kNoValue && states[next] == kNew) {
        states[next] = kOpen;
        if (!path.push({next, 0})) return out_of_memory();
      }
      if (path.empty()) break;
      Visit& visit = path[path.size() - 1];
      const Node& node = b.nodes[visit.node];
      if (reads(node, visit.read++, &next)) {
        if (next != kNoValue) next = producer[next];
        continue;
      }
      states[visit.node] = kDone;
      if constexpr (kSplitsBottlenecks)
        ORTOLAN_TRY(append(b, node));
      else if (!b.bound.push(node))
        return out_of_memory();
      path.pop();
      next = kNoValue;
    }
  }
  b.nodes.take_from(b.bound);
  b.bound.clear();
  return Status::kOk;
}

// Whether this build has values of such a kind.
static bool is_built(const Value& v) {
  return (kHasTexts || v.type != DataType::kString) && (kHasContainers || !v.layers);
}

Status Loader::bind_graph(GraphBuilder& b) {
  for (uint32_t value : b.graph->inputs) {
    const Value& v = b.values[value];
    if (v.type == DataType::kUndefined || !is_built(v))
      return fail(error_, Status::kNotImplemented, "input \"%\" has no type that is supported",
                  v.name);
  }
  if (!b.bound.reserve(b.nodes.size())) return out_of_memory();
  for (Node& node : b.nodes) {
    ORTOLAN_TRY(bind_node(b, node));
    if (!b.bound.push(node)) return out_of_memory();
  }
  for (uint32_t value : b.graph->outputs) ORTOLAN_TRY(narrow(b, value));
  b.nodes.take_from(b.bound);
  for (uint32_t value : b.graph->outputs)
    if (b.values[value].type == DataType::kUndefined)
      return fail(error_, Status::kNotImplemented, "output \"%\" has no type that is supported",
                  b.values[value].name);
  return Status::kOk;
}

void Loader::note_unknown(const Node& node) {
  for (size_t i = 0; i < unknown_count_; ++i)
    if (unknown_[i]->type == node.type && unknown_[i]->domain == node.domain) return;
  if (unknown_count_ < sizeof(unknown_) / sizeof(unknown_[0])) unknown_[unknown_count_++] = &node;
}

// "ai.onnx;7;Sin", on a line of its own.
void Loader::append_config_line(const Node& node) {
  const Part parts[] = {node.domain.size ? node.domain : String("ai.onnx"),
                        static_cast<int64_t>(node.since_version), node.type};
  error_.append("\n%;%;%", parts, 3);
}

// After an error that a build with more would not have.
Status Loader::with_config_line(const Node& node, Status status) {
  if (!kIsReduced) return status;
  error_.append(String("; a line for the config of this build:"));
  append_config_line(node);
  return status;
}

// All of them at once, before anything is wrong because of one of them.
Status Loader::unknown_operators() {
  for (GraphBuilder* b : builders_)
    for (const Node& node : b->nodes)
      if (!find_operator(node.domain, node.type)) note_unknown(node);
  if (unknown_count_ == 0) return Status::kOk;
  error_.clear();
  error_.append(Part("operators that this build does not have"));
  error_.append(kIsReduced ? String(", as lines for its config:") : String(":"));
  for (size_t i = 0; i < unknown_count_; ++i) {
    const Node& node = *unknown_[i];
    if (kIsReduced) {
      append_config_line(node);
      continue;
    }
    const Part parts[] = {i ? String(", ") : String(" "), node.domain,
                          node.domain.size ? String(":") : String(), node.type, node.since_version};
    error_.append("%%%% (version %)", parts, 5);
  }
  return Status::kNotImplemented;
}

Status Loader::bind_node(GraphBuilder& b, Node& node) {
  // Kernels for tensors do not see containers.
  if (kHasContainers && node.type == String("Identity") && node.domain.size == 0 &&
      node.inputs.size == 1 && node.inputs[0] != kNoValue && b.values[node.inputs[0]].layers) {
    node.domain = "ai.ortolan";
    node.type = "Share";
    if (!find_operator(node.domain, node.type))
      return node_error(node, Status::kNotImplemented, "this build has no containers");
  }
  const Operator* op = find_operator(node.domain, node.type);
  const Row& any = kRows[op->first_row];
  if (kHasControl && kKernels[any.kernel].control != Control::kNone) {
    node.kernel = &kKernels[any.kernel];
    ORTOLAN_TRY(narrow_operands(b, node));
    return bind_control(b, node);
  }
  if (node.bodies[0] || node.bodies[1])
    return node_error(node, Status::kInvalidGraph, "it has a graph but is no control flow");
  return choose_row(b, node, *op);
}

// Kernels rely on the outputs that are not optional; where the file leaves one out, there comes a
// value that nobody reads.
Status Loader::complete_outputs(GraphBuilder& b, Node& node, const uint8_t* bytes) {
  SignatureView signature(bytes);
  size_t given = node.outputs.size, required = signature.required_outputs();
  if (given < required) {
    Span<uint32_t> list;
    ORTOLAN_TRY(make_array(required, &list));
    for (size_t i = 0; i < required; ++i) list[i] = i < given ? node.outputs[i] : kNoValue;
    node.outputs = list;
  }
  for (size_t i = 0; i < node.outputs.size; ++i) {
    bool repeated = i >= signature.header.declared_outputs;
    if (node.outputs[i] != kNoValue || (i >= required && !repeated)) continue;
    node.outputs[i] = static_cast<uint32_t>(b.values.size());
    if (!b.values.push(Value())) return out_of_memory();
  }
  return Status::kOk;
}

// Binds type variables from the inputs and gives the outputs their types.
Status Loader::derive_types(GraphBuilder& b, Node& node, const uint8_t* bytes,
                            DataType* variables) {
  SignatureView signature(bytes);
  size_t given = node.inputs.size;
  if (!signature.takes_inputs(given) || !signature.takes_outputs(node.outputs.size) ||
      signature.header.variables > kMaxVariables)
    return node_error(node, Status::kInvalidGraph,
                      "it has % inputs and % outputs, more than the operator", given,
                      node.outputs.size);
  for (size_t i = 0; i < max<size_t>(signature.header.min_inputs, given); ++i)
    if (signature.needs_input(i) && (i >= given || node.inputs[i] == kNoValue))
      return node_error(node, Status::kInvalidGraph, "input % is missing", i);
  DataType halves[kMaxVariables] = {};
  ORTOLAN_TRY(promote_inputs(b, node, bytes, halves));
  for (size_t i = 0; i < given; ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const Value& v = b.values[node.inputs[i]];
    if (v.type == DataType::kUndefined)
      return node_error(node, Status::kNotImplemented, "input % (\"%\") has no known type", i,
                        v.name);
    uint8_t variable = signature.input(i);
    if (variable == kFreeVariable) continue;
    if (kHasContainers && v.layers != (signature.is_sequence_input(i) ? kSequenceLayer : 0))
      return node_error(node, Status::kInvalidGraph, "input % (\"%\") is % but must be %", i,
                        v.name, kind_name(v.layers), kind_name(signature.is_sequence_input(i)));
    if (!(signature.mask(variable) & type_bit(v.type)))
      return with_config_line(
          node, node_error(node, Status::kNotImplemented,
                           "input % (\"%\") is %, for which this build has no kernel", i, v.name,
                           type_name(v.type)));
    if (variables[variable] == DataType::kUndefined) variables[variable] = v.type;
    if (variables[variable] != v.type)
      return node_error(node, Status::kInvalidGraph, "input % (\"%\") is %, but % is needed", i,
                        v.name, type_name(v.type), type_name(variables[variable]));
  }
  for (size_t i = 0; i < node.outputs.size; ++i) {
    uint8_t variable = signature.output(i);
    auto source = static_cast<TypeAttribute>(signature.header.type_attribute &
                                             ((1 << kTypeAttributeBits) - 1));
    if (variable == kFreeVariable) {
      auto rule = static_cast<TypeRule>(signature.header.type_attribute >> kTypeAttributeBits);
      if (kHasTypeRules && source == TypeAttribute::kRule)
        ORTOLAN_TRY(set_special(b, node, i, rule));
      continue;
    }
    DataType& type = variables[variable];
    uint32_t mask = signature.mask(variable);
    bool is_single = mask && (mask & (mask - 1)) == 0;
    if (kHasTypeRules && type == DataType::kUndefined && source == TypeAttribute::kRule &&
        !is_single) {
      auto rule = static_cast<TypeRule>(signature.header.type_attribute >> kTypeAttributeBits);
      bool has_input = node.inputs.size && node.inputs[0] != kNoValue;
      ValueType input = has_input ? b.values[node.inputs[0]].full_type() : ValueType();
      type = special_type(rule, node, {}, input).element;
    } else if (kHasTypeAttributes && type == DataType::kUndefined &&
               source != TypeAttribute::kNone && source != TypeAttribute::kRule) {
      uint8_t other = signature.header.type_attribute >> kTypeAttributeBits;
      DataType missing = static_cast<DataType>(other);
      if (other >= kFallback) {
        other -= kFallback;
        missing = halves[other] != DataType::kUndefined ? halves[other] : variables[other];
      }
      type = type_from_attribute(node, source, missing);
    }
    if (must_promote(type, mask)) halves[variable] = type, type = DataType::kFloat;
    if (type == DataType::kUndefined && is_single)
      type = static_cast<DataType>(__builtin_ctz(mask));
    if (type == DataType::kUndefined || !(mask & type_bit(type)))
      return node_error(node, Status::kNotImplemented,
                        "output % would be %, for which this build has no kernel", i,
                        type_name(type));
    if (node.outputs[i] == kNoValue) continue;
    if (halves[variable] != DataType::kUndefined)
      ORTOLAN_TRY(promote_output(b, node, i, halves[variable]));
    bool is_sequence = kHasContainers && signature.is_sequence_output(i);
    b.values[node.outputs[i]].set_type(
        {type, DataType::kUndefined, is_sequence ? kSequenceLayer : uint8_t{0}});
  }
  return Status::kOk;
}

Status Loader::set_special(GraphBuilder& b, Node& node, size_t i, TypeRule rule) {
  if (node.outputs[i] == kNoValue) return Status::kOk;
  Value& v = b.values[node.outputs[i]];
  bool has_input = node.inputs.size && node.inputs[0] != kNoValue;
  ValueType input = has_input ? b.values[node.inputs[0]].full_type() : ValueType();
  v.set_type(special_type(rule, node, v.full_type(), input));
  if (v.type == DataType::kUndefined || v.layers >> 2 * kMaxLayers || !is_built(v))
    return node_error(node, Status::kNotImplemented, "output % has no type that is supported", i);
  return Status::kOk;
}

Status Loader::choose_row(GraphBuilder& b, Node& node, const Operator& op) {
  uint32_t signature = ~0u;
  DataType variables[kMaxVariables] = {};
  for (uint32_t i = 0; i < op.row_count; ++i) {
    const Row& row = kRows[op.first_row + i];
    if (!covers(row, node.since_version) || row.target > model_.level) continue;
    if (signature == ~0u) {
      signature = row.signature;
      ORTOLAN_TRY(complete_outputs(b, node, kSignatures + signature));
      ORTOLAN_TRY(derive_types(b, node, kSignatures + signature, variables));
    }
    SignatureView view(kSignatures + row.signature);
    auto fits = [&](uint8_t key, uint32_t types) {
      return key == kNoVariable || (types & type_bit(variables[key]));
    };
    if (row.signature != signature || !fits(view.header.key_a, row.types_a) ||
        !fits(view.header.key_b, row.types_b))
      continue;
    node.kernel = &kKernels[row.kernel];
    return Status::kOk;
  }
  if (signature == ~0u)
    return with_config_line(
        node, node_error(node, Status::kNotImplemented,
                         "version % of the operator is not in this build", node.since_version));
  SignatureView view(kSignatures + signature);
  DataType a =
      view.header.key_a == kNoVariable ? DataType::kUndefined : variables[view.header.key_a];
  DataType c =
      view.header.key_b == kNoVariable ? DataType::kUndefined : variables[view.header.key_b];
  return with_config_line(node, node_error(node, Status::kNotImplemented,
                                           "this build has no kernel for the types % and %",
                                           type_name(a), type_name(c)));
}

// The types of a body: captures from outside, inputs as the file states them.
Status Loader::bind_body(GraphBuilder& b, Node& node, Graph* body, size_t skip_inputs) {
  GraphBuilder* inner = builder_of(body);
  if (node.kernel->control == Control::kIf && body->inputs.size)
    return node_error(node, Status::kInvalidGraph, "a branch has inputs");
  for (uint32_t capture : inner->captures) {
    Value& v = inner->values[capture];
    const Value& outer = b.values[v.outer];
    v.set_type(outer.full_type());
    v.rank_hint = outer.rank_hint;
  }
  for (size_t i = 0; i < body->inputs.size; ++i) {
    Value& v = inner->values[body->inputs[i]];
    size_t from = i - skip_inputs + (skip_inputs ? 2 : 0);
    ValueType given;
    if (skip_inputs && i < 2)
      given.element = i == 0 ? DataType::kInt64 : DataType::kBool;
    else if (from < node.inputs.size && node.inputs[from] != kNoValue)
      given = b.values[node.inputs[from]].full_type();
    if (v.type == DataType::kUndefined) v.set_type(given);
    if (!(v.full_type() == given))
      return node_error(node, Status::kInvalidGraph,
                        "input % of the body is % of %, but is given % of %", i,
                        kind_name(v.layers), type_name(v.type), kind_name(given.layers),
                        type_name(given.element));
  }
  return bind_graph(*inner);
}

Status Loader::bind_control(GraphBuilder& b, Node& node) {
  Control control = node.kernel->control;
  bool is_if = control == Control::kIf, is_loop = control == Control::kLoop;
  if (!node.bodies[0] || (is_if && !node.bodies[1]))
    return node_error(node, Status::kInvalidGraph, "a body is missing");
  if (!is_if && node.bodies[1])
    return node_error(node, Status::kInvalidGraph, "it has a second body");
  if (control == Control::kScan && node.since_version < 9)
    return node_error(node, Status::kNotImplemented, "version 8 is not in this build");
  size_t in = node.inputs.size, out = node.outputs.size;
  if (is_if &&
      (in != 1 || node.inputs[0] == kNoValue || !is_tensor_of(b, node.inputs[0], DataType::kBool)))
    return node_error(node, Status::kInvalidGraph, "its one input must be a bool");
  if (is_loop) {
    if (in < 2) return node_error(node, Status::kInvalidGraph, "it needs two inputs at least");
    auto is = [&](size_t i, DataType type) {
      return node.inputs[i] == kNoValue || is_tensor_of(b, node.inputs[i], type);
    };
    if (!is(0, DataType::kInt64) || !is(1, DataType::kBool))
      return node_error(node, Status::kInvalidGraph, "M must be int64 and cond bool");
  }
  ORTOLAN_TRY(bind_body(b, node, node.bodies[0], is_loop ? 2 : 0));
  if (is_if) ORTOLAN_TRY(bind_body(b, node, node.bodies[1], 0));
  size_t states = 0, skip = is_loop ? 1 : 0;
  if (is_loop) {
    states = in - 2;
    if (node.bodies[0]->inputs.size != in || node.bodies[0]->outputs.size < 1 + states)
      return node_error(node, Status::kInvalidGraph,
                        "the body has % inputs and % outputs, which does not fit the node",
                        node.bodies[0]->inputs.size, node.bodies[0]->outputs.size);
    GraphBuilder* inner = builder_of(node.bodies[0]);
    if (!is_tensor_of(*inner, node.bodies[0]->outputs[0], DataType::kBool))
      return node_error(node, Status::kInvalidGraph, "the body's condition must be bool");
  } else if (control == Control::kScan) {
    const Attribute* count = find_attribute(node, "num_scan_inputs");
    int64_t scans = count && count->kind == AttributeKind::kInt ? count->i : 0;
    if (scans < 1 || scans > static_cast<int64_t>(in) || node.bodies[0]->inputs.size != in)
      return node_error(node, Status::kInvalidGraph,
                        "num_scan_inputs % does not fit the node's % inputs", scans, in);
    states = in - static_cast<size_t>(scans);
    if (node.bodies[0]->outputs.size < states)
      return node_error(node, Status::kInvalidGraph, "the body has too few outputs");
    for (size_t i = 0; i < in; ++i)
      if (node.inputs[i] == kNoValue || (i >= states && b.values[node.inputs[i]].layers))
        return node_error(node, Status::kInvalidGraph, "input % is missing or no tensor", i);
  }
  for (Graph* body : node.bodies) {
    if (!body) continue;
    if (body->outputs.size != out + skip)
      return node_error(node, Status::kInvalidGraph, "the body has % outputs, the node %",
                        body->outputs.size, out);
    GraphBuilder* inner = builder_of(body);
    for (size_t i = 0; i < out; ++i) {
      const Value& from = inner->values[body->outputs[i + skip]];
      bool carried = !is_if && i < states;
      const uint32_t state = carried ? body->inputs[i + (is_loop ? 2 : 0)] : kNoValue;
      if (carried && !(from.full_type() == inner->values[state].full_type()))
        return node_error(node, Status::kInvalidGraph, "state % changes its type", i);
      if (!is_if && !carried && from.layers)
        return node_error(node, Status::kInvalidGraph, "scan output % is no tensor", i - states);
      if (node.outputs[i] == kNoValue) continue;
      Value& to = b.values[node.outputs[i]];
      if (body == node.bodies[1] && !(to.full_type() == from.full_type()))
        return node_error(node, Status::kInvalidGraph,
                          "output % differs in type between the branches", i);
      to.set_type(from.full_type());
    }
  }
  return Status::kOk;
}

// Moves what is final into the model's zone.
Status Loader::finish(GraphBuilder& b) {
  Graph& graph = *b.graph;
  ORTOLAN_TRY(keep(b.values, sizeof(Value), &graph.values));
  ORTOLAN_TRY(keep(b.nodes, sizeof(Node), &graph.nodes));
  return keep(b.captures, sizeof(uint32_t), &graph.captures);
}

Status Loader::keep(const ListBase& list, size_t item, void* span) {
  const size_t bytes = list.size() * item;
  const Span<char> kept = {static_cast<char*>(model_.zone.allocate(bytes)), list.size()};
  if (!kept.data) return out_of_memory();
  if (bytes) copy(kept.data, list.bytes(), bytes);
  copy(span, &kept, sizeof(kept));  // spans of all types are alike
  return Status::kOk;
}

// Once per node, with the constants that it reads, those of outer graphs included.
Status Loader::prepare(Graph& graph) {
  List<Slot> slots(model_.allocator());
  if (!slots.resize(graph.values.size)) return out_of_memory();
  for (size_t i = 0; i < graph.values.size; ++i) {
    Value& v = graph.values[i];
    if (v.outer != kNoValue) {
      const Value& outer = graph.parent->values[v.outer];
      v.is_constant = outer.is_constant;
      v.shape = outer.shape;
      v.data = outer.data;
    }
    static_cast<Typed&>(slots[i]) = v;
    slots[i].shape = v.shape;
    slots[i].data = const_cast<void*>(v.data);
    if (!v.is_constant) continue;
    slots[i].known = v.data != nullptr;
    slots[i].state = Slot::kReady;
  }
  Context context;
  context.slots_ = slots.begin();
  context.error_ = &error_;
  context.zone_ = context.texts_ = &model_.zone;
  context.threads_ = model_.threads;
  context.tensor_limit_ = model_.options.max_tensor_bytes;
  context.extra_ = &model_.options.winograd_bytes;
  if (kRecordsVariants) context.recorded_lanes_ = model_.options.recorded_lanes;
  List<uint32_t> readers(model_.allocator());
  if (kHasHalves) ORTOLAN_TRY(count_readers(graph, &readers));
  List<uint64_t> packed(model_.allocator());
  if (platform::kLargePage) ORTOLAN_TRY(expect_packed(graph, &packed));
  for (Node& node : graph.nodes) {
    ORTOLAN_TRY(model_.check_time());
    if (platform::kLargePage)
      model_.zone.expect(packed[static_cast<size_t>(&node - graph.nodes.begin())]);
    context.node_ = &node;
    context.variants_ = context.packed_ = 0;
    if (node.kernel->prepare) ORTOLAN_TRY(invoke(node.kernel->prepare, context));
    if constexpr (kRecordsVariants)
      if (context.recorded_lanes_) ORTOLAN_TRY(record_variants(graph, node, context.variants_));
    if (is_constant_node(node, slots)) {
      // A node that fails may stand in a branch that is never taken: it fails when it is run.
      Status status = fold(graph, node, context, slots);
      if (status == Status::kOutOfMemory) return status;
      if (kHasUnpack && status == Status::kNotImplemented &&
          node.kernel->layout == LayoutClass::kPacked)
        return status;
      error_.clear();
    }
    if (kHasUnpack && node.outputs.size == 1) end_packed(graph, node.outputs[0], slots);
    if (kHasHalves && context.packed_) free_packed(graph, node, context.packed_, readers, slots);
  }
  return Status::kOk;
}

// About how many bytes a node and those after it pack: the constants that reach those which
// prepare, also through conversions and transpositions of them, widened to float32.
Status Loader::expect_packed(const Graph& graph, List<uint64_t>* bytes) {
  List<uint64_t> sizes(model_.allocator());
  if (!sizes.resize(graph.values.size) || !bytes->resize(graph.nodes.size)) return out_of_memory();
  for (size_t v = 0; v < graph.values.size; ++v)
    if (graph.values[v].is_constant)
      sizes[v] = graph.values[v].shape.count() * max<size_t>(element_size(graph.values[v].type), 4);
  for (size_t n = 0; n < graph.nodes.size; ++n) {
    const Node& node = graph.nodes[n];
    if (node.kernel->prepare) {
      for (uint32_t v : node.inputs)
        if (v != kNoValue) (*bytes)[n] += sizes[v];
    } else if (node.inputs.size == 1 && node.outputs.size == 1 && node.inputs[0] != kNoValue &&
               node.outputs[0] != kNoValue) {
      // Packed weights are read where they are, but for those with kernels, of images, that
      // Winograd's way may transform. It makes up to four floats of each: `sizes` has counted four
      // bytes for each of theirs.
      const Shape& from = graph.values[node.inputs[0]].shape;
      const bool packed = node.kernel->layout == LayoutClass::kPacked;
      if (!packed || (from.rank > 4 && from.product(2, from.rank - 1) > 1))
        sizes[node.outputs[0]] = sizes[node.inputs[0]];
    }
  }
  for (size_t n = graph.nodes.size; n-- > 1;) (*bytes)[n - 1] += (*bytes)[n];
  return Status::kOk;
}

// What could not be computed ahead comes unpacked in each run.
void Loader::end_packed(Graph& graph, uint32_t v, List<Slot>& slots) {
  if (v == kNoValue || slots[v].known || !is_packed(slots[v].layout)) return;
  graph.values[v].layout = slots[v].layout = Layout::kPlain;
}

// Callers and bodies count as readers.
Status Loader::count_readers(const Graph& graph, List<uint32_t>* readers) {
  if (!readers->resize(graph.values.size)) return out_of_memory();
  List<uint32_t>& counts = *readers;
  for (uint32_t v : graph.inputs) ++counts[v];
  for (uint32_t v : graph.outputs) ++counts[v];
  for (const Node& node : graph.nodes) {
    for (uint32_t v : node.inputs)
      if (v != kNoValue) ++counts[v];
    for (const Graph* body : node.bodies)
      for (size_t i = 0; body && i < body->captures.size; ++i)
        ++counts[body->values[body->captures[i]].outer];
  }
  return Status::kOk;
}

// A view of a constant is a reader that packs nothing, so that what is freed has none.
void Loader::free_packed(Graph& graph, const Node& node, uint32_t packed, List<uint32_t>& readers,
                         List<Slot>& slots) {
  for (uint32_t i = 0; packed; ++i, packed >>= 1) {
    if (!(packed & 1)) continue;
    const uint32_t v = node.inputs[i];
    Value& value = graph.values[v];
    if (--readers[v] || value.outer != kNoValue || slots[v].alias_of != kNoValue) continue;
    if (!model_.zone.release(value.data)) continue;
    value.data = slots[v].data = nullptr;
    slots[v].known = false;
  }
}

// "11 ac float float": see ortolan_model_node.
Status Loader::record_variants(const Graph& graph, Node& node, uint32_t variants) {
  ErrorText text;
  text.append(Part(static_cast<int64_t>(node.since_version)));
  text.append(Part(variants ? String(" ") : String(" -")));
  for (char letter = 'a'; variants; ++letter, variants >>= 1)
    if (variants & 1) text.append(String(&letter, 1));
  for (uint32_t value : node.inputs) {
    text.append(String(" "));
    text.append(type_name(value == kNoValue ? DataType::kUndefined : graph.values[value].type));
  }
  auto* kept = static_cast<char*>(model_.zone.allocate(text.length() + 1, 1));
  if (!kept) return out_of_memory();
  copy(kept, text.text(), text.length() + 1);
  node.variants = kept;
  return Status::kOk;
}

bool Loader::is_constant_node(const Node& node, const List<Slot>& slots) const {
  if (node.kernel->control != Control::kNone || node.inputs.size == 0) return false;
  if (node.kernel->flags & (KernelInfo::kDataDependent | KernelInfo::kVolatile)) return false;
  for (uint32_t v : node.inputs)
    if (v != kNoValue && !slots[v].known) return false;
  return true;
}

// Results of constants become constants, so that weights which a file reshapes or transposes are
// packed once, unless they are much larger than their operands, or all of them than the file.
Status Loader::fold(Graph& graph, Node& node, Context& context, List<Slot>& slots) {
  constexpr size_t kSmall = 64 * 1024, kFolded = 1024 * 1024, kRead = 16 * kFolded;
  size_t before = 0, after = 0;
  auto bytes_of = [&](const Slot& s) { return s.shape.count() * element_size(s.type); };
  for (uint32_t v : node.inputs)
    if (v != kNoValue) before += bytes_of(slots[v]);
  const uint64_t file = model_.file_bytes;
  if (before > kRead + 16 * file - folded_reads_) return Status::kLimitExceeded;
  folded_reads_ += before;
  context.scratch_shared_ = context.scratch_per_thread_ = 0;
  if (node.kernel->infer) ORTOLAN_TRY(invoke(node.kernel->infer, context));
  ORTOLAN_TRY(check_layout(error_, node, slots.begin()));
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    if (slots[v].state == Slot::kEmpty) return Status::kFail;
    if (slots[v].alias_of == kNoValue) after += bytes_of(slots[v]);
  }
  if (after > max(kSmall, 4 * before)) return Status::kLimitExceeded;
  if (after > kFolded + 4 * file - folded_) return Status::kLimitExceeded;
  folded_ += after;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    Slot& slot = slots[v];
    if (slot.alias_of != kNoValue)
      slot.data = static_cast<char*>(slots[slot.alias_of].data) + slot.alias_offset;
    else
      slot.data = model_.zone.allocate_raw(max<size_t>(bytes_of(slot), 1));
    if (!slot.data) return out_of_memory();
  }
  const Allocator& allocator = model_.allocator();
  size_t scratch = context.scratch_shared_ + context.scratch_per_thread_ * context.threads_;
  if (after && node.kernel->run) {
    context.scratch_ = scratch ? allocator.get(scratch) : nullptr;
    if (scratch && !context.scratch_) return out_of_memory();
    Status status = invoke(node.kernel->run, context);
    allocator.put(context.scratch_, scratch);
    ORTOLAN_TRY(status);
  }
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    slots[v].state = Slot::kReady;
    slots[v].known = true;
    Value& value = graph.values[v];
    value.is_constant = true;
    value.layout = slots[v].layout;
    value.shape = slots[v].shape;
    value.data = slots[v].data;
  }
  return Status::kOk;
}

}  // namespace ortolan
