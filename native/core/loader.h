// Loading in four phases: read the structure (a reader for each format, ort_reader.cc and
// native/onnx, with what they share in loader.cc and stored.cc), bind kernels by type (bind.cc),
// choose layouts (layout.cc), prepare kernels (bind.cc).
#pragma once

#include "core/model.h"

namespace ortolan {

uint32_t name_hash(String name, uint32_t salt);

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

// The float32 form of a half value. While it is pending, the half value itself is not computed.
struct Wide {
  uint32_t value = kNoValue;
  bool is_pending = false;
};

// A graph while it is being loaded.
struct GraphBuilder {
  GraphBuilder(const Allocator& allocator, Graph* graph, GraphBuilder* parent)
      : graph(graph),
        parent(parent),
        names(allocator),
        values(allocator),
        nodes(allocator),
        bound(allocator),
        captures(allocator),
        wide(allocator) {}

  Graph* graph;
  GraphBuilder* parent;
  NameTable names;
  List<Value> values;
  List<Node> nodes;
  List<Node> bound;  // what `nodes` becomes while kernels are bound
  List<uint32_t> captures;
  List<Wide> wide;  // by value; may be shorter
};

// Whether a half type runs as float32 where only the types of `mask` have kernels.
bool must_promote(DataType type, uint32_t mask);

// Whether bytes are UTF-8: texts that callers see must be, so that every language can hold them.
bool is_utf8(String text);

// A reader of a format derives from it: it opens the graphs, each after the one around it, declares
// and resolves what is in them, and then completes the model.
class Loader {
 public:
  explicit Loader(Model& model)
      : model_(model), error_(model.error), builders_(model.allocator()) {}
  ~Loader();

 protected:
  // loader.cc
  Status open_graph(GraphBuilder* parent, GraphBuilder** result);
  // Room for the names that a graph defines and its nodes, which are counted.
  Status reserve(GraphBuilder& b, size_t names, size_t nodes);
  Status define(GraphBuilder& b, String name, uint32_t* value);
  Status declare_constant(GraphBuilder& b, String name, const TensorView& view);
  Status resolve(GraphBuilder& b, String name, uint32_t* value);
  Status reserve_outputs(GraphBuilder& b, size_t count);
  Status resolve_output(GraphBuilder& b, size_t i, String name);
  // Where a node keeps the graph that is its attribute `name`.
  Status find_body(Node& node, String name, Graph*** place);
  Status not_utf8(String what);
  // Texts that leave through the C interface need a zero at their end, which an ONNX file's lack.
  Status keep_text(String text, String* kept);
  // An array in the model's zone.
  template <class T>
  Status make_array(size_t n, Span<T>* place) {
    return model_.zone.array(n, place) ? Status::kOk : out_of_memory();
  }
  Status out_of_memory() { return fail(error_, Status::kOutOfMemory, "memory is out"); }
  // The phases after the first.
  Status complete();

  // stored.cc
  Status take_bytes(String what, TensorView* tensor, const uint8_t* data, size_t size);
  Status densify(String what, const TensorView& values, const TensorView& indices,
                 TensorView* tensor);
  Status too_many_dimensions(String what, size_t rank);

  // bind.cc
  bool reads(const Node& node, size_t k, uint32_t* value);
  Status order(GraphBuilder& b);
  template <class... Parts>
  ORTOLAN_INLINE Status node_error(const Node& node, Status code, Message format,
                                   const Parts&... parts) {
    return ::ortolan::fail_node(error_, node, code, format, parts...);
  }

  Model& model_;
  ErrorText& error_;
  bool initializers_are_constant_ = false;  // IR version < 4: even those listed as inputs

 private:
  // loader.cc
  Status describe_types(GraphBuilder& b);

  // stored.cc
  Status unpack(const uint8_t* data, uint8_t bits, size_t count, TensorView* tensor);
  Status read_places(const TensorView& indices, String what, size_t values, const Shape& shape,
                     Span<size_t>* places);

  // bind.cc
  Status bind_graph(GraphBuilder& b);
  Status bind_node(GraphBuilder& b, Node& node);
  Status bind_control(GraphBuilder& b, Node& node);
  Status bind_body(GraphBuilder& b, Node& node, Graph* body, size_t skip_inputs);
  Status choose_row(GraphBuilder& b, Node& node, const Operator& op);
  Status complete_outputs(GraphBuilder& b, Node& node, const uint8_t* signature);
  Status set_special(GraphBuilder& b, Node& node, size_t i, TypeRule rule);
  Status derive_types(GraphBuilder& b, Node& node, const uint8_t* signature, DataType* variables);
  Status unknown_operators();
  void append_config_line(const Node& node);
  Status with_config_line(const Node& node, Status status);
  void note_unknown(const Node& node);
  GraphBuilder* builder_of(const Graph* graph) { return builders_[graph->index]; }
  Status finish(GraphBuilder& b);
  Status keep(const ListBase& list, size_t item, void* span);
  Status prepare(Graph& graph);
  Status record_variants(const Graph& graph, Node& node, uint32_t variants);
  Status expect_packed(const Graph& graph, List<uint64_t>* bytes);
  Status count_readers(const Graph& graph, List<uint32_t>* readers);
  void end_packed(Graph& graph, uint32_t value, List<Slot>& slots);
  void free_packed(Graph& graph, const Node& node, uint32_t packed, List<uint32_t>& readers,
                   List<Slot>& slots);
  bool is_constant_node(const Node& node, const List<Slot>& slots) const;
  Status fold(Graph& graph, Node& node, Context& context, List<Slot>& slots);

  // split.cc
  Status append(GraphBuilder& b, const Node& node);
  Status split(GraphBuilder& b, const Node& whole);

  // promote.cc
  Status make_wide(GraphBuilder& b, uint32_t value, bool is_pending, uint32_t* wide);
  Status add_cast(GraphBuilder& b, uint32_t from, uint32_t to);
  Status widen(GraphBuilder& b, uint32_t value, uint32_t* wide);
  Status narrow(GraphBuilder& b, uint32_t value);
  Status narrow_operands(GraphBuilder& b, const Node& node);
  Status promote_inputs(GraphBuilder& b, Node& node, const uint8_t* signature, DataType* halves);
  Status promote_output(GraphBuilder& b, Node& node, size_t i, DataType half);

  // layout.cc
  Status choose_layouts(GraphBuilder& b);
  Status convert(GraphBuilder& b, struct LayoutPass& pass, uint32_t value, Layout to,
                 uint32_t* result);

  List<GraphBuilder*> builders_;  // by Graph::index
  const Node* unknown_[64] = {};
  size_t unknown_count_ = 0;
  uint64_t node_count_ = 0;
  uint64_t folded_ = 0, folded_reads_ = 0;  // bytes of constants that were computed; read for it
};

// The readers. Files of ORT format are verified before.
Status read_ort(Model& model, FbTable session);
// native/onnx, which a build may leave out.
Status read_onnx(Model& model, const uint8_t* data, size_t size);

}  // namespace ortolan
