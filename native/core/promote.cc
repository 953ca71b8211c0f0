// Phase 2, for half precision: nodes without a kernel for float16 or bfloat16 compute in float32.
// A half value and its float32 form ("wide") are two values; conversions (Cast) stand where one is
// missing. The result of a promoted node is wide, and is rounded only where something needs the
// half value itself: an operator with a kernel for it, a body, an output of the graph.
#include "core/loader.h"
#include "core/signature.h"
#include "ortolan_features.h"

namespace ortolan {

namespace {
constexpr uint32_t kHalves = type_bit(DataType::kFloat16) | type_bit(DataType::kBfloat16);
bool is_half(DataType type) { return kHasHalves && (type_bit(type) & kHalves); }
}  // namespace

bool must_promote(DataType type, uint32_t mask) {
  return is_half(type) && !(mask & type_bit(type)) && (mask & type_bit(DataType::kFloat));
}

// A float32 value that stands for `value`.
Status Loader::make_wide(GraphBuilder& b, uint32_t value, bool is_pending, uint32_t* wide) {
  if (!b.wide.resize(b.values.size() + 1)) return out_of_memory();
  Value fresh = b.values[value];
  fresh.type = DataType::kFloat;
  fresh.is_constant = fresh.is_input = fresh.is_output = false;
  fresh.outer = kNoValue;
  fresh.data = nullptr;
  *wide = static_cast<uint32_t>(b.values.size());
  b.wide[value] = {*wide, is_pending};
  return b.values.push(fresh) ? Status::kOk : out_of_memory();
}

Status Loader::add_cast(GraphBuilder& b, uint32_t from, uint32_t to) {
  Node node;
  node.name = b.values[from].name;
  if (kReadsOnnx) ORTOLAN_TRY(keep_text(node.name, &node.name));
  node.type = "Cast";
  node.since_version = 13;
  ORTOLAN_TRY(make_array(1, &node.inputs));
  ORTOLAN_TRY(make_array(1, &node.outputs));
  ORTOLAN_TRY(make_array(1, &node.attributes));
  if (!node.inputs.size || !node.outputs.size || !node.attributes.size) return out_of_memory();
  node.inputs[0] = from;
  node.outputs[0] = to;
  node.attributes[0].name = "to";
  node.attributes[0].kind = AttributeKind::kInt;
  node.attributes[0].i = static_cast<int64_t>(b.values[to].type);
  const Operator* op = find_operator(node.domain, node.type);
  if (!op)
    return node_error(node, Status::kNotImplemented,
                      "half precision needs this operator, which this build does not have");
  ORTOLAN_TRY(choose_row(b, node, *op));
  return b.bound.push(node) ? Status::kOk : out_of_memory();
}

Status Loader::widen(GraphBuilder& b, uint32_t value, uint32_t* wide) {
  *wide = value < b.wide.size() ? b.wide[value].value : kNoValue;
  if (*wide != kNoValue) return Status::kOk;
  ORTOLAN_TRY(make_wide(b, value, false, wide));
  return add_cast(b, value, *wide);
}

// Makes sure that a value itself is computed, and not only its wide form.
Status Loader::narrow(GraphBuilder& b, uint32_t value) {
  if (!kHasHalves || value >= b.wide.size() || !b.wide[value].is_pending) return Status::kOk;
  b.wide[value].is_pending = false;
  return add_cast(b, b.wide[value].value, value);
}

Status Loader::narrow_operands(GraphBuilder& b, const Node& node) {
  if (!kHasHalves) return Status::kOk;
  for (uint32_t value : node.inputs)
    if (value != kNoValue) ORTOLAN_TRY(narrow(b, value));
  for (Graph* body : node.bodies) {
    if (!body) continue;
    GraphBuilder* inner = builder_of(body);
    for (uint32_t capture : inner->captures) ORTOLAN_TRY(narrow(b, inner->values[capture].outer));
  }
  return Status::kOk;
}

// halves[k]: what variable k is in the file, where the kernel gets float32 instead. A kernel that
// takes either gets the wide form while only that is there, unless the type is its business.
Status Loader::promote_inputs(GraphBuilder& b, Node& node, const uint8_t* bytes, DataType* halves) {
  if (!kHasHalves) return Status::kOk;
  SignatureView signature(bytes);
  auto is_result = [&](uint8_t variable) {
    for (size_t i = 0; i < node.outputs.size; ++i)
      if (signature.output(i) == variable) return true;
    return false;
  };
  bool any = false;
  for (size_t i = 0; i < node.inputs.size; ++i) {
    uint32_t value = node.inputs[i];
    uint8_t variable = signature.input(i);
    if (value == kNoValue || !is_half(b.values[value].type) || b.values[value].layers) continue;
    any = true;
    if (variable == kFreeVariable) continue;
    uint32_t mask = signature.mask(variable);
    bool is_pending = value < b.wide.size() && b.wide[value].is_pending;
    bool stays = is_pending && (mask & type_bit(DataType::kFloat)) && is_result(variable);
    if (stays || must_promote(b.values[value].type, mask)) halves[variable] = b.values[value].type;
  }
  for (size_t i = 0; any && i < node.inputs.size; ++i) {
    uint32_t value = node.inputs[i];
    uint8_t variable = signature.input(i);
    if (value == kNoValue || !is_half(b.values[value].type) || b.values[value].layers) continue;
    if (variable != kFreeVariable && halves[variable] == b.values[value].type)
      ORTOLAN_TRY(widen(b, value, &node.inputs[i]));
    else
      ORTOLAN_TRY(narrow(b, value));
  }
  return Status::kOk;
}

// The node computes the wide form of output i.
Status Loader::promote_output(GraphBuilder& b, Node& node, size_t i, DataType half) {
  if (!kHasHalves) return Status::kOk;
  uint32_t value = node.outputs[i];
  b.values[value].set_type({half, DataType::kUndefined, 0});
  return make_wide(b, value, true, &node.outputs[i]);
}

}  // namespace ortolan
