// Small builds for the web have no kernel for ai.ortolan:InvertedBottleneck: the loader makes of it
// the up to three fused convolutions that the converter joined. Results are the same; what is
// between them takes its place in the arena.
#include "core/loader.h"

namespace ortolan {

// Adds a node in the order of execution.
Status Loader::append(GraphBuilder& b, const Node& node) {
  if (node.type == String("InvertedBottleneck") && node.domain == String("ai.ortolan"))
    return split(b, node);
  return b.bound.push(node) ? Status::kOk : out_of_memory();
}

Status Loader::split(GraphBuilder& b, const Node& whole) {
  // Of the expanding, the depthwise and the projecting convolution.
  static constexpr uint8_t kWeights[3] = {4, 1, 6};
  constexpr char kPrefixes[] = "expand_\0depthwise_\0project_\0";
  constexpr size_t kAdded = 3, kInputs = 8;
  uint32_t input[kInputs];
  for (size_t i = 0; i < kInputs; ++i)
    input[i] = i < whole.inputs.size ? whole.inputs[i] : kNoValue;
  const uint32_t filter = input[kWeights[1]];
  uint32_t x = input[0];
  if (filter == kNoValue || !b.values[filter].shape.rank || !whole.outputs.size)
    return node_error(whole, Status::kNotImplemented,
                      "weights that are no constants are not supported");
  const size_t last = input[kWeights[2]] == kNoValue ? 1 : 2;
  for (size_t part = 0; part <= last; ++part) {
    const uint32_t weights = input[kWeights[part]];
    if (weights == kNoValue) continue;
    Node node = whole;
    node.domain = "com.microsoft";
    node.type = "FusedConv";
    ORTOLAN_TRY(make_array(4, &node.inputs));
    node.inputs[0] = x;
    node.inputs[1] = weights;
    node.inputs[2] = input[kWeights[part] + 1];
    node.inputs[3] = part == last ? input[kAdded] : kNoValue;
    if (part < last) {
      ORTOLAN_TRY(make_array(1, &node.outputs));
      x = node.outputs[0] = static_cast<uint32_t>(b.values.size());
      if (!b.values.push(Value())) return out_of_memory();
    }
    // Its own attributes without the prefix; the window is that of the depthwise convolution.
    ORTOLAN_TRY(make_array(whole.attributes.size + 1, &node.attributes));
    const String prefix = nth_word(kPrefixes, part);
    for (size_t i = 0; i < whole.attributes.size; ++i) {
      Attribute a = whole.attributes[i];
      if (a.name.size > prefix.size && String{a.name.data, prefix.size} == prefix) {
        a.name = {a.name.data + prefix.size, a.name.size - prefix.size};
        if (a.name == String("params")) a.name = "activation_params";
      } else if (part != 1) {
        continue;
      }
      node.attributes[i] = a;
    }
    if (part == 1) {
      Attribute& group = node.attributes[whole.attributes.size];
      group.name = "group";
      group.kind = AttributeKind::kInt;
      group.i = b.values[filter].shape[0];
    }
    if (!b.bound.push(node)) return out_of_memory();
  }
  return Status::kOk;
}

}  // namespace ortolan
