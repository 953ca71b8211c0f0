// Phase 1 of loading for ONNX models: the structure of the graphs from the protobuf messages, with
// what exporters get wrong and onnxruntime accepts put right (as src/ortolan/importing/mending.py).
#pragma once

#include "core/loader.h"
#include "onnx/wire.h"

namespace ortolan::onnx {

class OnnxReader : public Loader {
 public:
  explicit OnnxReader(Model& model);
  Status run(const Message& model);

 private:
  struct Import {
    String domain;
    int64_t version;
  };
  struct ExternalFile {
    String location;
    platform::Mapping mapping;
  };

  // reader.cc
  Status read_metadata(const Message& model);
  Status read_imports(const Message& model);
  Status keep(String text, String* kept);
  Status read_graph(const Message& graph, GraphBuilder* parent, Graph** result);
  Status declare(GraphBuilder& b, const Message& graph);
  Status declare_constants(GraphBuilder& b, const Message& graph);
  Status set_constant(GraphBuilder& b, String name, const TensorView& view);
  Status declare_inputs(GraphBuilder& b, const Message& graph);
  Status declare_nodes(GraphBuilder& b, const Message& graph);
  Status declare_types(GraphBuilder& b, const Message& graph, uint32_t which);
  Status read_type(Message type, Value& value);
  Status read_shape(const Message& shape, Value& value);
  int32_t since_version(String domain, String type) const;
  int64_t imported(String domain) const;
  Status resolve_nodes(GraphBuilder& b, const Message& graph);
  Status resolve_outputs(GraphBuilder& b, const Message& graph);

  // attributes.cc
  Status lift_constant(GraphBuilder& b, const Message& node);
  Status constant_of(const Message& attribute, String what, TensorView* tensor);
  Status read_attribute(GraphBuilder& b, const Message& source, Node& node, Attribute& attribute);
  Status read_floats(const Message& message, uint32_t field, Span<const float>* result);
  Status read_ints(const Message& message, uint32_t field, Span<const int64_t>* result);

  // tensors.cc
  Status read_tensor(const Message& tensor, String what, TensorView* view);
  Status read_sparse(const Message& sparse, String what, TensorView* view);
  Status read_dims(const Message& message, uint32_t field, String what, Shape* shape);
  Status read_fixed(const Message& tensor, uint32_t field, size_t width, String what,
                    TensorView* view);
  Status read_numbers(const Message& tensor, uint32_t field, String what, TensorView* view);
  Status read_texts(const Message& message, uint32_t field, String what, TensorView* view);
  Status read_external(const Message& tensor, String what, TensorView* view);
  Status map_external(String what, String location, platform::Mapping* mapping);

  List<Import> imports_;
  List<ExternalFile> files_;
  uint64_t mapped_ = 0, moved_ = 0;  // bytes of external files; of them, copied to be aligned
};

}  // namespace ortolan::onnx
