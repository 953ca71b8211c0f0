// Phase 1 of loading for ONNX models: the structure of the graphs from the protobuf messages, with
// what exporters get wrong and onnxruntime accepts put right (as src/ortolan/importing/mending.py).
#pragma once

#include "core/loader.h"
#include "onnx/functions.h"

namespace ortolan::onnx {

class OnnxReader : public Loader {
 public:
  // `marks`: see verify_onnx.
  OnnxReader(Model& model, size_t marks);
  ~OnnxReader();
  Status run(const Message& model);

 private:
  struct ExternalFile {
    String location;
    platform::Mapping mapping;
  };

  // reader.cc
  Status read_metadata(const Message& model);
  Status read_imports(const Message& model);
  Status check_import(const Import& import);
  Status read_graph(const Message& graph, Scope* scope, GraphBuilder* parent, Graph** result);
  Status declare(GraphBuilder& b, const Body& body);
  Status declare_constants(GraphBuilder& b, const Body& body);
  Status set_constant(GraphBuilder& b, String name, const TensorView& view);
  Status declare_inputs(GraphBuilder& b, const Body& body);
  Status declare_nodes(GraphBuilder& b, const Body& body);
  Status declare_aliases(GraphBuilder& b, const Body& body);
  Status declare_types(GraphBuilder& b, const Body& body, uint32_t which);
  Status read_type(Message type, Value& value);
  Status read_shape(const Message& shape, Value& value);
  int32_t since_version(const Scope* scope, String domain, String type) const;
  int64_t imported(const Scope* scope, String domain) const;
  Status resolve_nodes(GraphBuilder& b, const Body& body);
  Status resolve_outputs(GraphBuilder& b, const Body& body);

  // functions.cc
  Status charge(uint64_t work);
  Status function_key(String domain, String name, String overload, String* key);
  Status read_functions(const Message& model);
  Status expand(Body& body);
  Status enter(Body& body, const Item& call, size_t function, Scope** result);
  Status bind_formals(Body& body, const Item& call, const Function& f, Scope& scope,
                      const Node& shown);
  Status full_name(Scope* scope, String name, String* full);
  Status dereference(AttributeMessage* attribute, Scope** scope);

  // attributes.cc
  Status lift_constant(GraphBuilder& b, const Item& item);
  Status constant_of(String key, const AttributeMessage& attribute, String what,
                     TensorView* tensor);
  Status read_attributes(GraphBuilder& b, const Item& item, Node& node);
  Status read_attribute(GraphBuilder& b, const AttributeMessage& source, Scope* scope, Node& node,
                        Attribute& attribute);
  Status read_floats(const Message& message, uint32_t field, Span<const float>* result);
  Status read_ints(const AttributeMessage& source, Span<const int64_t>* result);

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

  List<Import> imports_;  // of the model, then of its functions
  size_t model_imports_ = 0;
  List<Function> functions_;
  Dictionary function_names_;
  List<char> key_;  // of the function that is looked for
  List<Scope*> scopes_;
  size_t marks_;
  uint64_t made_names_ = 0, work_ = 0;
  List<ExternalFile> files_;
  uint64_t mapped_ = 0, moved_ = 0;  // bytes of external files; of them, copied to be aligned
};

// The domain of the standard has two names.
inline String canonical(String domain) { return domain == String("ai.onnx") ? String() : domain; }

inline Import import_of(const Message& message) {
  return {canonical(message.text(opset::kDomain)),
          static_cast<int64_t>(message.number(opset::kVersion))};
}

}  // namespace ortolan::onnx
