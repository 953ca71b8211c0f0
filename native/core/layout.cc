// Phase 3: which values are channels_last. Spatial kernels want their image so; elementwise ones
// follow their operands; everything else is plain. Conversions (ai.ortolan:Layout) stand at the
// borders, at most one per value and direction. Ranks from the file are only hints: the planner
// checks what is assumed here when shapes are known.
#include "core/loader.h"

namespace ortolan {

struct LayoutPass {
  explicit LayoutPass(const Allocator& allocator)
      : nodes(allocator), other(allocator), uses(allocator), from_transpose(allocator) {}
  List<Node> nodes;              // the new list
  List<uint32_t> other;          // the value in its other layout
  List<uint32_t> uses;           // by nodes and graph outputs
  List<uint8_t> from_transpose;  // made by a kernel that can write either layout
};

namespace {

// A constant whose bytes are the same in both layouts of a tensor of `rank` dimensions.
bool neutral(const Value& v, int rank) {
  if (!v.is_constant || static_cast<int>(v.shape.rank) > rank) return v.rank_hint == 0;
  return layout_neutral(v.shape, static_cast<uint32_t>(rank));
}

// An operand that is a list beside an image, such as the scale of a normalization: it stays plain.
bool is_list(const Node& node, size_t i, const Value& v) {
  return node.kernel->layout == LayoutClass::kAxis && i > 0 && v.rank_hint == 1;
}

// The common rank of the operands if they can be channels_last together, else 0.
int joint_rank(const GraphBuilder& b, const Node& node) {
  int rank = 0;
  bool any = false;
  for (uint32_t value : node.inputs) {
    if (value == kNoValue) continue;
    const Value& v = b.values[value];
    if (v.layout == Layout::kChannelsLast) any = true, rank = max<int>(rank, v.rank_hint);
  }
  if (!any) return 0;
  if (node.inputs.size == 1) return max(rank, 3);  // the kernel sees the true rank
  for (size_t i = 0; i < node.inputs.size; ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const Value& v = b.values[node.inputs[i]];
    if (v.rank_hint != rank && !neutral(v, rank) && !is_list(node, i, v)) return 0;
  }
  return rank >= 3 ? rank : 0;
}

// The rank of an image, or of the weights beside it where that is not known.
int8_t spatial_rank(const GraphBuilder& b, const Node& node) {
  int8_t rank = b.values[node.inputs[0]].rank_hint;
  if (rank >= 0 || node.inputs.size < 2 || node.inputs[1] == kNoValue) return rank;
  rank = b.values[node.inputs[1]].rank_hint;
  return rank >= 3 ? rank : -1;
}

}  // namespace

// *result: `value` in layout `to`, by a conversion if needed. Packed weights come plain then.
Status Loader::convert(GraphBuilder& b, LayoutPass& pass, uint32_t value, Layout to,
                       uint32_t* result) {
  *result = value;
  if (value == kNoValue || b.values[value].layout == to) return Status::kOk;
  if (kHasUnpack && is_packed(b.values[value].layout)) {
    b.values[value].layout = Layout::kPlain;
    if (kSmall)
      return fail(error_, Status::kNotImplemented, "\"%\" is packed for a node that takes it plain",
                  b.values[value].name);
    if (to == Layout::kPlain) return Status::kOk;
  }
  if (pass.other[value] != kNoValue) {
    *result = pass.other[value];
    return Status::kOk;
  }
  bool direct = pass.from_transpose[value] && pass.uses[value] == 1 && !b.values[value].is_output;
  if (direct && to == Layout::kChannelsLast) {
    b.values[value].layout = to;
    return Status::kOk;
  }
  Value converted = b.values[value];
  converted.layout = to;
  converted.is_input = converted.is_output = converted.is_constant = false;
  converted.outer = kNoValue;
  converted.data = nullptr;
  uint32_t fresh = static_cast<uint32_t>(b.values.size());
  Node node;
  node.name = converted.name;
  if (kReadsOnnx) ORTOLAN_TRY(keep_text(converted.name, &node.name));
  node.type = "Layout";
  node.domain = "ai.ortolan";
  node.since_version = 1;
  ORTOLAN_TRY(make_array(1, &node.inputs));
  ORTOLAN_TRY(make_array(1, &node.outputs));
  if (!b.values.push(converted) || !pass.other.push(value) || !pass.uses.push(0) ||
      !pass.from_transpose.push(0))
    return out_of_memory();
  node.inputs[0] = value;
  node.outputs[0] = fresh;
  const Operator* op = find_operator(node.domain, node.type);
  if (!op) return node_error(node, Status::kNotImplemented, "this build cannot convert layouts");
  ORTOLAN_TRY(choose_row(b, node, *op));
  pass.other[value] = fresh;
  *result = fresh;
  return pass.nodes.push(node) ? Status::kOk : out_of_memory();
}

Status Loader::choose_layouts(GraphBuilder& b) {
  LayoutPass pass(model_.allocator());
  size_t n = b.values.size();
  if (!pass.other.resize(n, kNoValue) || !pass.uses.resize(n, 0) ||
      !pass.from_transpose.resize(n, 0) || !pass.nodes.reserve(b.nodes.size()))
    return out_of_memory();
  for (const Node& node : b.nodes)
    for (uint32_t value : node.inputs)
      if (value != kNoValue) ++pass.uses[value];
  for (uint32_t value : b.graph->outputs) ++pass.uses[value];
  for (const Node& node : b.nodes)
    for (Graph* body : node.bodies)
      for (size_t i = 0; body && i < builder_of(body)->captures.size(); ++i)
        ++pass.uses[builder_of(body)->values[builder_of(body)->captures[i]].outer];
  for (Node& node : b.nodes) {
    LayoutClass kind = node.kernel->layout;
    int rank =
        kind == LayoutClass::kElementwise || kind == LayoutClass::kAxis ? joint_rank(b, node) : 0;
    for (size_t i = 0; i < node.inputs.size; ++i) {
      if (node.inputs[i] == kNoValue) continue;
      const bool packed = kHasUnpack && is_packed(b.values[node.inputs[i]].layout);
      if (packed ? node.kernel->packed >> i & 1 : kind == LayoutClass::kTranspose) continue;
      // Input 3 of a fused convolution is an image that is added; other kernels read its value.
      bool image = i == 0 || (i == 3 && !(node.kernel->value_inputs >> i & 1));
      // By input 0 a kernel tells where its axis lies, even if its bytes are the same either way.
      bool stays = neutral(b.values[node.inputs[i]], rank) && (kind != LayoutClass::kAxis || i > 0);
      bool last = kind == LayoutClass::kSpatial ? image : rank && !stays;
      if (is_list(node, i, b.values[node.inputs[i]])) last = false;
      ORTOLAN_TRY(convert(b, pass, node.inputs[i], last ? Layout::kChannelsLast : Layout::kPlain,
                          &node.inputs[i]));
    }
    for (Graph* body : node.bodies) {
      if (!body) continue;
      GraphBuilder& inner = *builder_of(body);
      for (uint32_t capture : inner.captures)
        ORTOLAN_TRY(convert(b, pass, inner.values[capture].outer, Layout::kPlain,
                            &inner.values[capture].outer));
    }
    bool to_last = kind == LayoutClass::kSpatial || rank;
    for (size_t i = 0; i < node.outputs.size; ++i) {
      if (node.outputs[i] == kNoValue) continue;
      Value& v = b.values[node.outputs[i]];
      bool spatial_extra = kind == LayoutClass::kSpatial && i > 0;
      v.layout = to_last && !spatial_extra ? Layout::kChannelsLast : Layout::kPlain;
      if (kHasUnpack && kind == LayoutClass::kPacked) v.layout = Layout::kPackedLast;
      if (rank && v.rank_hint < 0) v.rank_hint = static_cast<int8_t>(rank);
      if (kind == LayoutClass::kSpatial && v.rank_hint < 0) v.rank_hint = spatial_rank(b, node);
      pass.from_transpose[node.outputs[i]] =
          kind == LayoutClass::kTranspose && v.layout == Layout::kPlain;
    }
    if (!pass.nodes.push(node)) return out_of_memory();
  }
  for (uint32_t& value : b.graph->outputs) {
    uint32_t made = value;
    ORTOLAN_TRY(convert(b, pass, made, Layout::kPlain, &value));
    if (made != value) b.values[made].is_output = false;
    b.values[value].is_output = true;
  }
  b.nodes.take_from(pass.nodes);
  return Status::kOk;
}

}  // namespace ortolan
