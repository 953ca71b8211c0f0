// If, Loop and Scan: frames pushed on the run's own stack, nothing nests on the C stack.
#include "core/run.h"

namespace ortolan {

// Results of a body, one per iteration, behind each other.
struct Stack {
  void* block = nullptr;
  Shape element;
  size_t bytes = 0;  // of an element
  size_t count = 0, capacity = 0;
  int64_t axis = 0;
  bool reverse = false;
};

// An operand that a Scan walks along.
struct ScanInput {
  const Slot* from = nullptr;
  size_t outer = 1, inner = 0;  // pieces before the axis, bytes behind it
  Shape element;
  void* block = nullptr;  // for slices that are not contiguous
  bool reverse = false;
};

namespace {

const Attribute* ints_attribute(const Node& node, String name) {
  const Attribute* a = find_attribute(node, name);
  return a && a->kind == AttributeKind::kInts ? a : nullptr;
}

int64_t int_at(const Attribute* a, size_t i) { return a && i < a->ints.size ? a->ints[i] : 0; }

}  // namespace

// Body results that live elsewhere are copied, for that memory will be used again.
Status Run::transfer(Frame& frame, uint32_t value, Slot& to) {
  const Slot& from = frame.slots[value];
  const Value& v = frame.graph->values[value];
  if (from.state == Slot::kEmpty)
    return fail_node(*frame.node, Status::kFail, "result \"%\" was not produced", v.name);
  Slot result;
  result.shape = from.shape;
  result.set_type(from.full_type());
  result.state = Slot::kReady;
  result.data = from.data;
  if (from.block || from.layers) {
    result.block = from.layers ? from.data : from.block;
    Heap::retain(result.block);
  } else if (!v.is_constant) {
    size_t bytes = from.shape.count() * element_size(from.type);
    result.data = result.block = heap_.allocate(bytes);
    if (!result.data) return out_of_memory();
    if (bytes) copy(result.data, from.data, bytes);
  }
  to = result;
  return Status::kOk;
}

// Sets the captures of a body; its inputs are the caller's business.
void Run::push(Frame& caller, Node& node, Frame& frame) {
  frame.caller = &caller;
  frame.node = &node;
  for (uint32_t c : frame.graph->captures) {
    Slot& slot = frame.slots[c];
    slot = caller.slots[frame.graph->values[c].outer];
    slot.block = nullptr;
    slot.alias_of = kNoValue;
  }
}

// Back to the caller, whose control node is done with its operands.
void Run::pop(Frame& frame) {
  Frame& caller = *frame.caller;
  leave(frame);
  end_loop_state(frame);
  frame.caller = nullptr;
  top_ = &caller;
  const Step& done = caller.steps[caller.step - 1];
  for (uint32_t i = done.release_begin; i < done.release_end; ++i)
    drop(caller.slots[caller.releases[i]]);
}

Status Run::start_control(Frame& frame, Node& node) {
  switch (node.kernel->control) {
    case Control::kIf: {
      const Slot& condition = frame.slots[node.inputs[0]];
      if (condition.shape.count() != 1)
        return fail_node(node, Status::kInvalidArgument,
                         "the condition has shape %, one element is needed",
                         condition.shape.span());
      Graph* body = node.bodies[*static_cast<const bool*>(condition.data) ? 0 : 1];
      Frame& inner = *frames_[body->index];
      push(frame, node, inner);
      return enter(inner);
    }
    case Control::kLoop:
      return kHasLoop ? start_loop(frame, node) : Status::kFail;
    default:
      return kHasScan ? start_scan(frame, node) : Status::kFail;
  }
}

Status Run::finish(Frame& frame) {
  if (kHasLoops && frame.node->kernel->control != Control::kIf) return end_iteration(frame);
  for (size_t i = 0; i < frame.node->outputs.size; ++i) {
    uint32_t out = frame.node->outputs[i];
    if (out != kNoValue)
      ORTOLAN_TRY(transfer(frame, frame.graph->outputs[i], frame.caller->slots[out]));
  }
  pop(frame);
  return Status::kOk;
}

// The arrays of a loop, in one block.
Status Run::make_loop_state(Frame& body, size_t states, size_t inputs, size_t stacks) {
  LoopState& loop = body.loop;
  loop = LoopState();
  size_t bytes = states * sizeof(Slot) + inputs * sizeof(ScanInput) + stacks * sizeof(Stack);
  char* memory = static_cast<char*>(heap_.allocate(bytes));
  if (!memory) return out_of_memory();
  loop.block = memory;
  loop.states = states;
  loop.input_count = inputs;
  loop.stack_count = stacks;
  loop.carried = reinterpret_cast<Slot*>(memory);
  loop.inputs = reinterpret_cast<ScanInput*>(memory + states * sizeof(Slot));
  loop.stacks =
      reinterpret_cast<Stack*>(memory + states * sizeof(Slot) + inputs * sizeof(ScanInput));
  for (size_t i = 0; i < states; ++i) loop.carried[i] = Slot();
  for (size_t i = 0; i < inputs; ++i) loop.inputs[i] = ScanInput();
  for (size_t i = 0; i < stacks; ++i) loop.stacks[i] = Stack();
  return Status::kOk;
}

void Run::end_loop_state(Frame& body) {
  LoopState& loop = body.loop;
  if (!loop.block) return;
  auto give_back = [&](void* block) {
    if (block) heap_.release(block);
  };
  for (size_t i = 0; i < loop.states; ++i) give_back(loop.carried[i].block);
  for (size_t i = 0; i < loop.input_count; ++i) give_back(loop.inputs[i].block);
  for (size_t i = 0; i < loop.stack_count; ++i) give_back(loop.stacks[i].block);
  heap_.release(loop.block);
  loop = LoopState();
}

void Run::carry(Frame& caller, uint32_t value, Slot& to) {
  to = caller.slots[value];
  to.known = false;
  to.alias_of = kNoValue;
  if (to.layers) to.block = to.data;
  if (to.block) Heap::retain(to.block);
}

Status Run::start_loop(Frame& caller, Node& node) {
  Frame& body = *frames_[node.bodies[0]->index];
  size_t states = node.inputs.size - 2;
  push(caller, node, body);
  ORTOLAN_TRY(make_loop_state(body, states, 0, node.outputs.size - states));
  LoopState& loop = body.loop;
  top_ = &body;  // from here on clean() finds the state
  for (size_t i = 0; i < 2; ++i)
    if (node.inputs[i] != kNoValue && caller.slots[node.inputs[i]].shape.count() != 1)
      return fail_node(node, Status::kInvalidArgument, "M and cond must have one element");
  loop.limit = INT64_MAX;
  if (node.inputs[0] != kNoValue)
    loop.limit = *static_cast<const int64_t*>(caller.slots[node.inputs[0]].data);
  if (node.inputs[1] != kNoValue)
    loop.condition = *static_cast<const bool*>(caller.slots[node.inputs[1]].data);
  for (size_t i = 0; i < states; ++i) {
    if (node.inputs[i + 2] == kNoValue)
      return fail_node(node, Status::kInvalidArgument, "input % is missing", i + 2);
    carry(caller, node.inputs[i + 2], loop.carried[i]);
  }
  return begin_iteration(body);
}

Status Run::start_scan(Frame& caller, Node& node) {
  Frame& body = *frames_[node.bodies[0]->index];
  size_t scans = static_cast<size_t>(find_attribute(node, "num_scan_inputs")->i);
  size_t states = node.inputs.size - scans, stacks = node.outputs.size - states;
  push(caller, node, body);
  ORTOLAN_TRY(make_loop_state(body, states, scans, stacks));
  LoopState& loop = body.loop;
  top_ = &body;
  const Attribute* in_axes = ints_attribute(node, "scan_input_axes");
  const Attribute* in_directions = ints_attribute(node, "scan_input_directions");
  const Attribute* out_axes = ints_attribute(node, "scan_output_axes");
  const Attribute* out_directions = ints_attribute(node, "scan_output_directions");
  for (size_t i = 0; i < states; ++i) carry(caller, node.inputs[i], loop.carried[i]);
  for (size_t i = 0; i < scans; ++i) {
    const Slot& slot = caller.slots[node.inputs[states + i]];
    ScanInput& in = loop.inputs[i];
    int64_t axis = int_at(in_axes, i);
    if (!normalize_axis(&axis, slot.shape.rank))
      return fail_node(node, Status::kInvalidArgument, "scan input % of shape % has no axis %", i,
                       slot.shape.span(), axis);
    in.from = &slot;
    in.reverse = int_at(in_directions, i) != 0;
    uint32_t a = static_cast<uint32_t>(axis);
    in.outer = slot.shape.product(0, a);
    in.inner = slot.shape.product(a + 1, slot.shape.rank) * element_size(slot.type);
    for (uint32_t d = 0; d < slot.shape.rank; ++d)
      if (d != a) in.element.append(slot.shape[d]);
    if (i && slot.shape[a] != loop.limit)
      return fail_node(node, Status::kInvalidArgument, "scan inputs have lengths % and %",
                       loop.limit, slot.shape[a]);
    loop.limit = slot.shape[a];
    if (in.outer != 1 && !(in.block = heap_.allocate(in.outer * in.inner))) return out_of_memory();
  }
  for (size_t i = 0; i < stacks; ++i) {
    loop.stacks[i].axis = int_at(out_axes, i);
    loop.stacks[i].reverse = int_at(out_directions, i) != 0;
  }
  return begin_iteration(body);
}

// Sets the inputs of the body, or ends the loop.
Status Run::begin_iteration(Frame& body) {
  LoopState& loop = body.loop;
  const Graph& graph = *body.graph;
  if (loop.iteration >= loop.limit || !loop.condition) return end_loop(body);
  if (iterations_ >= limits_.iterations)
    return fail_node(*body.node, Status::kLimitExceeded,
                     "more than % iterations in one run, the limit ortolan.max_iterations",
                     limits_.iterations);
  ++iterations_;
  size_t at = 0;
  if (body.node->kernel->control == Control::kLoop) {
    void* own[] = {&loop.iteration, &loop.condition};
    for (void* data : own) {
      Slot& slot = body.slots[graph.inputs[at]];
      slot = Slot();
      slot.type = graph.values[graph.inputs[at]].type;
      slot.data = data;
      // The file may want one element as a tensor of rank 1.
      if (graph.values[graph.inputs[at]].rank_hint == 1) slot.shape.append(1);
      slot.state = Slot::kReady;
      ++at;
    }
  }
  for (size_t i = 0; i < loop.states; ++i, ++at) {
    Slot& slot = body.slots[graph.inputs[at]];
    slot = loop.carried[i];
    if (slot.block) Heap::retain(slot.block);
  }
  for (size_t i = 0; i < loop.input_count; ++i, ++at) {
    ScanInput& in = loop.inputs[i];
    size_t k = static_cast<size_t>(in.reverse ? loop.limit - 1 - loop.iteration : loop.iteration);
    Slot& slot = body.slots[graph.inputs[at]];
    slot = Slot();
    slot.type = in.from->type;
    slot.shape = in.element;
    slot.state = Slot::kReady;
    char* source = static_cast<char*>(in.from->data) + k * in.inner;
    slot.data = in.block ? in.block : source;
    size_t stride = in.inner * static_cast<size_t>(loop.limit);
    for (size_t o = 0; in.block && in.inner && o < in.outer; ++o)
      copy(static_cast<char*>(in.block) + o * in.inner, source + o * stride, in.inner);
  }
  return enter(body);
}

Status Run::end_iteration(Frame& body) {
  LoopState& loop = body.loop;
  const Graph& graph = *body.graph;
  size_t at = 0;
  if (body.node->kernel->control == Control::kLoop) {
    const Slot& condition = body.slots[graph.outputs[at++]];
    if (condition.state == Slot::kEmpty || condition.shape.count() != 1)
      return fail_node(*body.node, Status::kInvalidArgument,
                       "the body's condition must have one element");
    loop.condition = *static_cast<const bool*>(condition.data);
  }
  for (size_t i = 0; i < loop.states; ++i) {
    Slot next;
    ORTOLAN_TRY(transfer(body, graph.outputs[at++], next));
    if (loop.carried[i].block) heap_.release(loop.carried[i].block);
    loop.carried[i] = next;
  }
  for (size_t i = 0; i < loop.stack_count; ++i)
    ORTOLAN_TRY(stack_output(body, i, body.slots[graph.outputs[at++]]));
  leave(body);
  ++loop.iteration;
  return begin_iteration(body);
}

Status Run::stack_output(Frame& body, size_t index, const Slot& slot) {
  LoopState& loop = body.loop;
  Stack& stack = loop.stacks[index];
  if (slot.state == Slot::kEmpty)
    return fail_node(*body.node, Status::kFail, "a scan output was not produced");
  if (stack.count == 0) {
    stack.element = slot.shape;
    stack.bytes = slot.shape.count() * element_size(slot.type);
    if (slot.shape.rank >= kMaxRank)
      return fail_node(*body.node, Status::kNotImplemented, "a scan output has more than 8 axes");
  } else if (!(slot.shape == stack.element)) {
    return fail_node(*body.node, Status::kInvalidArgument,
                     "scan output % changes its shape from % to %", index, stack.element.span(),
                     slot.shape.span());
  }
  if (stack.count == stack.capacity) {
    bool is_scan = loop.input_count != 0;
    size_t capacity = is_scan ? static_cast<size_t>(loop.limit) : max<size_t>(8, 2 * stack.count);
    size_t fitting = model_.options.max_tensor_bytes / max<size_t>(stack.bytes, 1);
    if (fitting < (is_scan ? capacity : stack.count + 1))
      return fail_node(*body.node, Status::kLimitExceeded,
                       "scan output % is too large: the limit ortolan.max_tensor_bytes is %", index,
                       model_.options.max_tensor_bytes);
    capacity = min(capacity, fitting);
    size_t bytes = capacity * stack.bytes;
    void* grown = heap_.allocate(bytes);
    if (!grown) return out_of_memory();
    if (stack.count && stack.bytes) copy(grown, stack.block, stack.count * stack.bytes);
    if (stack.block) heap_.release(stack.block);
    stack.block = grown;
    stack.capacity = capacity;
  }
  size_t place = stack.reverse ? stack.capacity - 1 - stack.count : stack.count;
  if (stack.bytes)
    copy(static_cast<char*>(stack.block) + place * stack.bytes, slot.data, stack.bytes);
  ++stack.count;
  return Status::kOk;
}

// The stacked results with their new axis where the node wants it.
Status Run::finish_stack(Frame& body, size_t index, uint32_t value, Slot& result) {
  Stack& stack = body.loop.stacks[index];
  const Value& v = body.graph->values[value];
  if (stack.count == 0)  // no iteration: what the file states, unknown dimensions empty
    for (uint32_t d = 0; d < v.shape.rank && d + 1 < kMaxRank; ++d)
      stack.element.append(max<int64_t>(v.shape[d], 0));
  int64_t axis = stack.axis;
  if (!normalize_axis(&axis, stack.element.rank + 1))
    return fail_node(*body.node, Status::kInvalidArgument, "scan output % has no axis %", index,
                     stack.axis);
  uint32_t a = static_cast<uint32_t>(axis);
  result = Slot();
  result.type = v.type;
  result.state = Slot::kReady;
  for (uint32_t d = 0; d <= stack.element.rank; ++d)
    result.shape.append(d == a  ? static_cast<int64_t>(stack.count)
                        : d < a ? stack.element[d]
                                : stack.element[d - 1]);
  size_t outer = stack.element.product(0, a), bytes;
  if (!checked_bytes(result.shape, element_size(v.type), &bytes))
    return fail_node(*body.node, Status::kLimitExceeded,
                     "scan output % is too large: the limit ortolan.max_tensor_bytes is %", index,
                     model_.options.max_tensor_bytes);
  if (outer == 1 && stack.block) {
    result.data = result.block = stack.block;
    stack.block = nullptr;
    return Status::kOk;
  }
  result.data = result.block = heap_.allocate(bytes);
  if (!result.data) return out_of_memory();
  size_t inner = stack.element.product(a, stack.element.rank) * element_size(v.type);
  for (size_t k = 0; inner && k < stack.count; ++k)
    for (size_t o = 0; o < outer; ++o)
      copy(static_cast<char*>(result.data) + (o * stack.count + k) * inner,
           static_cast<char*>(stack.block) + k * stack.bytes + o * inner, inner);
  return Status::kOk;
}

Status Run::end_loop(Frame& body) {
  LoopState& loop = body.loop;
  const Node& node = *body.node;
  size_t first = node.kernel->control == Control::kLoop ? 1 : 0;
  for (size_t i = 0; i < node.outputs.size; ++i) {
    if (node.outputs[i] == kNoValue) continue;
    Slot& to = body.caller->slots[node.outputs[i]];
    if (i >= loop.states) {
      ORTOLAN_TRY(finish_stack(body, i - loop.states, body.graph->outputs[first + i], to));
      continue;
    }
    Slot& carried = loop.carried[i];
    if (!carried.block) {  // never changed: still the operand's memory
      size_t bytes = carried.shape.count() * element_size(carried.type);
      void* moved = heap_.allocate(bytes);
      if (!moved) return out_of_memory();
      if (bytes) copy(moved, carried.data, bytes);
      carried.data = carried.block = moved;
    }
    to = carried;
    to.state = Slot::kReady;
    carried.block = nullptr;
  }
  pop(body);
  return Status::kOk;
}

}  // namespace ortolan
