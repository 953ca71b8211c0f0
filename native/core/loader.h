// Loading in four phases, a file each: read the structure (loader.cc), order nodes and bind kernels
// by type (bind.cc), choose layouts (layout.cc), prepare kernels (bind.cc).
#pragma once

#include "core/model.h"

namespace ortolan {

// Names of a graph's values. Open addressing; lives as long as loading.
class NameTable {
 public:
  explicit NameTable(const Allocator& allocator) : slots_(allocator) {}
  [[nodiscard]] bool reserve(size_t names);
  // The value of a name, kNoValue when there is none.
  uint32_t find(const List<Value>& values, String name) const;
  // The name of `value` is not there yet. False when memory is out.
  [[nodiscard]] bool insert(const List<Value>& values, uint32_t value);

 private:
  bool resize(size_t capacity);
  void place(const List<Value>& values, uint32_t value);
  uint32_t salt_ = 0;
  List<uint32_t> slots_;
  size_t count_ = 0;
};

// A graph while it is being loaded.
struct GraphBuilder {
  GraphBuilder(const Allocator& allocator, Graph* graph, GraphBuilder* parent)
      : graph(graph),
        parent(parent),
        names(allocator),
        values(allocator),
        nodes(allocator),
        captures(allocator) {}

  Graph* graph;
  GraphBuilder* parent;
  NameTable names;
  List<Value> values;
  List<Node> nodes;
  List<uint32_t> captures;
};

class Loader {
 public:
  explicit Loader(Model& model)
      : model_(model), error_(model.error), builders_(model.options.allocator) {}
  ~Loader();
  Status run();

 private:
  // loader.cc
  Status check_metadata(FbTable model);
  Status not_utf8(String what);
  Status read_graph(FbTable table, GraphBuilder* parent, uint32_t depth, Graph** result);
  Status declare(GraphBuilder& b, FbTable table);
  Status declare_inputs(GraphBuilder& b, FbTable table);
  Status declare_initializers(GraphBuilder& b, FbTable table);
  Status declare_types(GraphBuilder& b, FbTable table);
  Status declare_nodes(GraphBuilder& b, FbTable table);
  Status resolve_nodes(GraphBuilder& b, FbTable table);
  Status resolve_outputs(GraphBuilder& b, FbTable table);
  Status resolve(GraphBuilder& b, String name, uint32_t* value);
  Status define(GraphBuilder& b, String name, uint32_t* value);
  Status read_attributes(GraphBuilder& b, FbTable table, Node& node);
  Status read_attribute(GraphBuilder& b, FbTable table, Node& node, Attribute& attribute);
  Status read_tensor(FbTable table, String what, TensorView* tensor);
  Status read_shape(FbTable shape, Value& value);
  Status out_of_memory() { return fail(error_, Status::kOutOfMemory, "memory is out"); }
  template <class T>
  Status copy_vector(FbTable table, uint16_t slot, Span<const T>* result);

  // bind.cc
  Status order(GraphBuilder& b);
  Status bind_graph(GraphBuilder& b);
  Status bind_node(GraphBuilder& b, Node& node);
  Status bind_control(GraphBuilder& b, Node& node);
  Status bind_body(GraphBuilder& b, Node& node, Graph* body, size_t skip_inputs);
  Status choose_row(GraphBuilder& b, Node& node, const Operator& op);
  Status complete_outputs(GraphBuilder& b, Node& node, const uint8_t* signature);
  Status derive_types(GraphBuilder& b, Node& node, const uint8_t* signature, DataType* variables);
  Status unknown_operators();
  void note_unknown(const Node& node);
  GraphBuilder* builder_of(const Graph* graph) { return builders_[graph->index]; }
  Status finish(GraphBuilder& b);
  Status prepare(Graph& graph);
  bool is_constant_node(const Node& node, const List<Slot>& slots) const;
  Status fold(Graph& graph, Node& node, Context& context, List<Slot>& slots);
  template <class... Parts>
  ORTOLAN_INLINE Status node_error(const Node& node, Status code, Message format,
                                   const Parts&... parts) {
    return ::ortolan::fail_node(error_, node, code, format, parts...);
  }

  // layout.cc
  Status choose_layouts(GraphBuilder& b);
  Status convert(GraphBuilder& b, struct LayoutPass& pass, uint32_t value, Layout to,
                 uint32_t* result);

  Model& model_;
  ErrorText& error_;
  List<GraphBuilder*> builders_;  // by Graph::index
  const Node* unknown_[64] = {};
  size_t unknown_count_ = 0;
  uint64_t node_count_ = 0;
  uint64_t folded_ = 0, folded_reads_ = 0;  // bytes of constants that were computed; read for it
  bool initializers_are_constant_ = false;  // IR version < 4: even those listed as inputs
};

}  // namespace ortolan
