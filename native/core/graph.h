// The loaded graph: what every reader (ORT format now, ONNX later) fills and the executor runs.
// Immutable after loading; shared by all runs of a model. Lives in the model's zone.
#pragma once

#include "core/registry.h"
#include "core/shape.h"
#include "core/types.h"

namespace ortolan {

constexpr uint32_t kNoValue = ~0u;

struct Graph;

// Bytes with a type and a shape: an initializer or a tensor attribute. Never owned.
struct TensorView {
  const void* data = nullptr;
  Shape shape;
  DataType type = DataType::kUndefined;
};

enum class AttributeKind : uint8_t {
  kUndefined = 0,
  kFloat = 1,
  kInt = 2,
  kString = 3,
  kTensor = 4,
  kGraph = 5,
  kFloats = 6,
  kInts = 7,
  kStrings = 8,
};

struct Attribute {
  String name;
  AttributeKind kind = AttributeKind::kUndefined;
  float f = 0;
  int64_t i = 0;
  String s;
  TensorView tensor;
  Graph* graph = nullptr;
  Span<const float> floats;
  Span<const int64_t> ints;
  Span<const String> strings;
};

template <>
inline constexpr bool starts_zero<Attribute> = true;

// What values of a graph and of a run have in common; four bytes that are copied as one.
struct Typed {
  DataType type = DataType::kUndefined;  // of the elements; undefined: nothing is known
  DataType key = DataType::kUndefined;   // see ValueType
  uint8_t layers = 0;
  Layout layout = Layout::kPlain;

  ValueType full_type() const { return {type, key, layers}; }
  void set_type(ValueType is) { type = is.element, key = is.key, layers = is.layers; }
};

struct Value : Typed {
  String name;
  bool is_constant = false;      // data and shape are those of an initializer
  bool is_input = false;         // of this graph, captures apart
  bool is_output = false;        // of this graph
  int8_t rank_hint = -1;         // from the file; a hint that only layout decisions use
  uint32_t outer = kNoValue;     // value of the parent graph that this one captures
  Span<const String> dim_names;  // of graph inputs and outputs, empty where a dimension has none
  Shape shape;                   // of a constant; of inputs and outputs as declared, -1 = unknown
  const void* data = nullptr;
};

struct Node {
  String name, domain, type;
  int32_t since_version = 0;
  uint32_t file_index = 0;
  Span<uint32_t> inputs;   // value numbers, kNoValue = absent
  Span<uint32_t> outputs;  // likewise
  Span<Attribute> attributes;
  const KernelInfo* kernel = nullptr;
  void* state = nullptr;           // made by prepare
  Graph* bodies[2] = {};           // then_branch or body, else_branch
  const char* variants = nullptr;  // as api.cc hands them out, where they are recorded
};

struct Graph {
  uint32_t index = 0;  // in the model's list of graphs; 0 is the main graph
  Graph* parent = nullptr;
  uint32_t depth = 0;
  Span<Value> values;
  Span<Node> nodes;  // in execution order
  Span<uint32_t> inputs;
  Span<uint32_t> outputs;
  Span<const char*> input_types, output_types;  // of the main graph: "seq(tensor(float))"
  Span<bool> repeats;                           // per output: the same value stands before it
  Span<uint32_t> captures;                      // values of this graph whose `outer` is set
};

// fail_parts with the operator and the node in front: [Conv] node "conv1": ...
#if defined(ORTOLAN_MESSAGE_CODES)
Status fail_node_number(ErrorText& error, const Node& node, Status code, uint32_t number);
#else
Status fail_node_parts(ErrorText& error, const Node& node, Status code, const char* format,
                       const Part* parts, size_t count);
#endif
template <class... Parts>
ORTOLAN_INLINE Status fail_node(ErrorText& error, const Node& node, Status code, Message format,
                                [[maybe_unused]] const Parts&... parts) {
#if defined(ORTOLAN_MESSAGE_CODES)
  return fail_node_number(error, node, code, format.number);
#else
  const Part list[sizeof...(parts) + 1] = {Part(parts)..., Part(0)};
  return fail_node_parts(error, node, code, format, list, sizeof...(parts));
#endif
}

String type_name(DataType type);

// Null when the node has none of that name.
const Attribute* find_attribute(const Node& node, String name);

}  // namespace ortolan
