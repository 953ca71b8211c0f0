// The executor: enters frames, walks their steps, gives memory back. Control flow is in control.cc.
#include "core/run.h"

#include "core/plan.h"
#include "core/poison.h"

namespace ortolan {

namespace {

constexpr size_t kKeptHeap = 256 * 1024;

#if defined(ORTOLAN_POISON)
// Fills what a planned step has not computed yet, and afterwards what nobody needs any more.
class OnlyOperands {
 public:
  OnlyOperands(const Frame& frame, const Node& node, const Step& step, size_t scratch)
      : frame_(frame), node_(node), index_(step.node) {
    for (uint32_t v : node.outputs)
      if (is_in_arena(v) && !shares_input(v)) fill(v);
    if (scratch) poison(frame.base + step.scratch, scratch);
    scratch_ = scratch ? frame.base + step.scratch : nullptr;
    scratch_bytes_ = scratch;
  }
  ~OnlyOperands() {
    poison(scratch_, scratch_bytes_);
    for (uint32_t v : node_.inputs)
      if (is_in_arena(v) && is_done(frame_.roots[v])) fill(frame_.roots[v]);
    for (uint32_t v : node_.outputs)
      if (is_in_arena(v) && is_done(frame_.roots[v])) fill(frame_.roots[v]);
  }

 private:
  bool is_in_arena(uint32_t v) const {
    return v != kNoValue && frame_.sources[frame_.roots[v]] == Source::kArena;
  }
  bool shares_input(uint32_t v) const {
    for (uint32_t other : node_.inputs)
      if (other != kNoValue && frame_.roots[other] == frame_.roots[v]) return true;
    return false;
  }
  bool is_done(uint32_t root) const {
    for (uint32_t v = 0; v < frame_.graph->values.size; ++v)
      if (frame_.roots[v] == root && frame_.last_use[v] > index_) return false;
    return true;
  }
  void fill(uint32_t v) const {
    const Slot& slot = frame_.slots[v];
    if (slot.pitch) return;  // between its rows are those of others
    poison(slot.data, slot.shape.count() * element_size(slot.type));
  }
  const Frame& frame_;
  const Node& node_;
  uint32_t index_;
  char* scratch_;
  size_t scratch_bytes_;
};
#else
// While it lives, only the operands of a planned step may be touched in the arena.
class OnlyOperands {
 public:
  OnlyOperands(const Frame& frame, const Node& node, const Step& step, size_t scratch)
      : frame_(frame) {
    poison(frame.base, frame.arena_bytes);
    for (uint32_t v : node.inputs) open(v);
    for (uint32_t v : node.outputs) open(v);
    if (scratch) unpoison(frame.base + step.scratch, scratch);
  }
  ~OnlyOperands() { unpoison(frame_.base, frame_.arena_bytes); }

 private:
  void open(uint32_t v) {
    if (v == kNoValue || frame_.sources[v] != Source::kArena) return;
    const Slot& slot = frame_.slots[v];
    size_t bytes = slot.shape.count() * element_size(slot.type);
    if (slot.pitch) bytes += (slot.pitch - row_bytes(slot)) * (bytes / row_bytes(slot) - 1);
    unpoison(slot.data, bytes);
  }
  static size_t row_bytes(const Slot& slot) {
    return static_cast<size_t>(slot.shape[1]) * element_size(slot.type);
  }
  const Frame& frame_;
};
#endif

}  // namespace

Status Run::create() {
  budget_.limit = static_cast<size_t>(min<uint64_t>(limits_.run_bytes, SIZE_MAX));
  return settle(make_frames());
}

Status Run::make_frames() {
  const Graph& main = model_.main();
  size_t graphs = model_.graphs.size();
  Span<Frame*> frames;
  if (!zone_.array(graphs, &frames) || !zone_.array(main.inputs.size, &inputs_) ||
      !zone_.array(main.outputs.size, &outputs_) || !zone_.array(main.outputs.size, &made_) ||
      !zone_.array(main.outputs.size, &output_shapes_))
    return out_of_memory();
  for (size_t g = 0; g < graphs; ++g) {
    const Graph& graph = *model_.graphs[g];
    void* memory = zone_.allocate(sizeof(Frame));
    if (!memory) return out_of_memory();
    auto* frame = new (memory, Zone::Placement{}) Frame(allocator());
    frames[g] = frame;
    frames_ = frames.data;
    size_t n = graph.values.size;
    frame->graph = &graph;
    frame->slots = zone_.array<Slot>(n).data;
    frame->last_use = zone_.array<uint32_t>(n).data;
    frame->sources = zone_.array<Source>(n).data;
    frame->roots = zone_.array<uint32_t>(n).data;
    frame->offsets = zone_.array<size_t>(n).data;
    size_t shapes = graph.inputs.size + graph.captures.size;
    frame->input_shapes = zone_.array<Shape>(shapes).data;
    bool made = frame->slots && frame->last_use && frame->sources && frame->roots &&
                frame->offsets && frame->input_shapes;
    if (!made) return out_of_memory();
    uint32_t end = static_cast<uint32_t>(graph.nodes.size);
    for (uint32_t i = 0; i < end; ++i) {
      const Node& node = graph.nodes[i];
      for (uint32_t v : node.outputs)
        if (v != kNoValue) frame->last_use[v] = i;
      for (uint32_t v : node.inputs)
        if (v != kNoValue) frame->last_use[v] = i;
      for (Graph* body : node.bodies)
        if (body)
          for (uint32_t c : body->captures) frame->last_use[body->values[c].outer] = i;
    }
    for (uint32_t v : graph.outputs) frame->last_use[v] = end;
  }
  created_ = true;
  return Status::kOk;
}

Run::~Run() {
  clean();
  release_outputs();
  for (size_t g = 0; frames_ && g < model_.graphs.size(); ++g)
    if (frames_[g]) frames_[g]->~Frame();
  this->allocator().put(arena_, arena_capacity_);
  zone_.reset();
  heap_.trim(0);
  Model::release(&model_);
}

Status Run::set_input(size_t index, const TensorArgument& tensor) {
  if (index >= inputs_.size)
    return fail(error_, Status::kInvalidArgument, "there is no input %", index);
  inputs_[index] = tensor;
  inputs_[index].present = true;
  return Status::kOk;
}

Status Run::set_output(size_t index, const TensorArgument& tensor) {
  if (index >= outputs_.size)
    return fail(error_, Status::kInvalidArgument, "there is no output %", index);
  outputs_[index] = tensor;
  return Status::kOk;
}

OutputValue* Run::take_output(size_t index) {
  if (index >= made_.size) return nullptr;
  OutputValue* tensor = made_[index];
  made_[index] = nullptr;
  return tensor;
}

// Those that the caller has not taken.
void Run::release_outputs() {
  for (OutputValue*& value : made_) {
    OutputValue::release(value);
    value = nullptr;
  }
}

Status Run::execute() {
  error_.clear();
  if (!created_) return out_of_memory();
  steps_ = iterations_ = 0;
  release_outputs();
  budget_.give(made_bytes_);
  made_bytes_ = 0;
  budget_.limit = static_cast<size_t>(min<uint64_t>(limits_.run_bytes, SIZE_MAX));
  deadline_ = deadline_of(limits_.milliseconds);
  uint32_t state = model_.options.flush_denormals ? platform::flush_denormals() : 0;
  Status status = settle(run());
  if (model_.options.flush_denormals) platform::restore_denormals(state);
  clean();
  if (status != Status::kOk) release_outputs();
  forget_arguments();
  // Not at the beginning: whoever cancels just before it means this execution.
  __atomic_store_n(&cancelled_, 0, __ATOMIC_RELAXED);
  return status;
}

void Run::forget_arguments() {
  for (TensorArgument& argument : inputs_) argument.present = false;
  for (TensorArgument& argument : outputs_) argument.present = false;
}

Status Run::settle(Status status) {
  if (status != Status::kOutOfMemory || !budget_.refused) return status;
  size_t refused = budget_.refused;
  budget_.refused = 0;
  return fail(error_, Status::kLimitExceeded,
              "the run takes more than % bytes, the limit ortolan.max_run_bytes: % are in use, % "
              "more were asked for",
              budget_.limit, budget_.used, refused);
}

Status Run::interrupted() {
  if (__atomic_load_n(&cancelled_, __ATOMIC_RELAXED))
    return fail(error_, Status::kCancelled, "the run was cancelled");
  if (!deadline_ || platform::nanoseconds() <= deadline_) return Status::kOk;
  return fail(error_, Status::kLimitExceeded,
              "the run takes longer than % milliseconds, the limit ortolan.max_milliseconds",
              limits_.milliseconds);
}

// An output; it lives longer than the run, so it comes from the caller's memory.
OutputValue* Run::make_value(ValueType type, const Shape& shape, size_t bytes) {
  if (!budget_.take(bytes)) return nullptr;
  made_bytes_ += bytes;
  return OutputValue::make(model_.options.allocator, type, shape, bytes);
}

Status Run::run() {
  ORTOLAN_TRY(check_inputs());
  Frame& main = *frames_[0];
  ORTOLAN_TRY(enter(main));
  ORTOLAN_TRY(loop());
  return deliver_outputs(main);
}

Status Run::check_inputs() {
  const Graph& main = model_.main();
  Frame& frame = *frames_[0];
  for (size_t i = 0; i < inputs_.size; ++i) {
    const Value& v = main.values[main.inputs[i]];
    TensorArgument& given = inputs_[i];
    Slot& slot = frame.slots[main.inputs[i]];
    if (!given.present) {
      if (!v.data) return fail(error_, Status::kInvalidArgument, "input \"%\" is missing", v.name);
      slot.data = const_cast<void*>(v.data);
      slot.shape = v.shape;
      slot.state = Slot::kReady;
      slot.known = v.is_constant;
      continue;
    }
    if (v.is_constant)
      return fail(error_, Status::kInvalidArgument,
                  "input \"%\" is a constant of this model and cannot be given", v.name);
    ORTOLAN_TRY(kHasContainers && v.layers ? check_container(v, given.value, slot)
                                           : check_tensor(v, given, slot));
    slot.state = Slot::kReady;
    slot.known = false;
  }
  return Status::kOk;
}

Status Run::check_tensor(const Value& v, const TensorArgument& given, Slot& slot) {
  auto wrong = [&](String what) {
    return fail(error_, Status::kInvalidArgument, "input \"%\" of shape % %", v.name,
                given.shape.span(), what);
  };
  if (given.type != v.type)
    return fail(error_, Status::kInvalidArgument,
                "input \"%\" has element type %, but % is expected", v.name, type_name(given.type),
                type_name(v.type));
  bool is_text = kHasTexts && given.type == DataType::kString;
  size_t bytes;
  if (!checked_bytes(given.shape, element_size(given.type), &bytes) ||
      (!is_text && bytes > given.bytes))
    return wrong("does not have enough bytes");
  if (v.rank_hint >= 0 && static_cast<uint32_t>(v.rank_hint) != given.shape.rank)
    return fail(error_, Status::kInvalidArgument,
                "input \"%\" has % dimensions, but % are expected", v.name, given.shape.rank,
                static_cast<int>(v.rank_hint));
  for (uint32_t d = 0; v.rank_hint >= 0 && !v.data && d < given.shape.rank; ++d)
    if (v.shape[d] >= 0 && v.shape[d] != given.shape[d])
      return fail(error_, Status::kInvalidArgument,
                  "input \"%\" has shape %, but dimension % must be %", v.name, given.shape.span(),
                  d, v.shape[d]);
  if (given.type == DataType::kBool && !are_bools(given.data, bytes))
    return wrong("has a byte that is no bool");
  slot.data = given.data ? given.data : const_cast<char*>(kNothing);
  slot.shape = given.shape;
  return is_text ? import_texts(given.data, given.bytes, given.shape.count(), v.name, &slot.data)
                 : Status::kOk;
}

Status Run::check_container(const Value& v, const OutputValue* given, Slot& slot) {
  if (!given || !(given->type == v.full_type()))
    return fail(error_, Status::kInvalidArgument, "input \"%\" must be a value of another type",
                v.name);
  Item item;
  Status status = import_value(*given, v.name, &item);
  slot.data = slot.block = item.block;
  slot.shape = Shape();
  return status;
}

bool Run::plan_is_valid(const Frame& frame) const {
  if (!frame.planned) return false;
  if (frame.caller && frame.parent_generation != frame.caller->generation) return false;
  size_t i = 0;
  for (uint32_t v : frame.graph->inputs)
    if (!(frame.slots[v].shape == frame.input_shapes[i++])) return false;
  for (uint32_t v : frame.graph->captures)
    if (!(frame.slots[v].shape == frame.input_shapes[i++])) return false;
  return true;
}

// The inputs' and captures' slots are set. Plans if shapes changed, and binds memory.
Status Run::enter(Frame& frame) {
  if (!plan_is_valid(frame)) {
    ORTOLAN_TRY(Planner(*this, frame).plan());
    if (frame.caller) frame.parent_generation = frame.caller->generation;
  }
  frame.step = 0;
  top_ = &frame;
  return bind(frame);
}

Status Run::bind(Frame& frame) {
  if (!frame.arena_bytes) {
    frame.base = const_cast<char*>(kNothing);
  } else if (&frame == frames_[0]) {
    if (frame.arena_bytes > arena_capacity_) {
      Allocator allocator = budget_.allocator();
      allocator.put(arena_, arena_capacity_);
      arena_capacity_ = 0;
      arena_ = static_cast<char*>(allocator.get(frame.arena_bytes));
      if (!arena_)
        return fail(error_, Status::kOutOfMemory, "no memory for an arena of % bytes",
                    frame.arena_bytes);
      arena_capacity_ = frame.arena_bytes;
    }
    frame.base = arena_;
  } else {
    frame.block = heap_.allocate(frame.arena_bytes);
    if (!frame.block) return out_of_memory();
    frame.base = static_cast<char*>(frame.block);
  }
  if (frame.base != frame.bound_base || frame.generation != frame.bound_generation) {
    for (uint32_t v = 0; v < frame.graph->values.size; ++v) {
      if (frame.sources[v] != Source::kArena) continue;
      uint32_t root = frame.roots[v];
      size_t offset = frame.offsets[root] + (v == root ? 0 : frame.offsets[v]);
      frame.slots[v].data = frame.base + offset;
    }
    frame.bound_base = frame.base;
    frame.bound_generation = frame.generation;
  }
  ORTOLAN_TRY(bind_outputs(frame));
  for (uint32_t v : frame.rebinds)
    frame.slots[v].data = static_cast<char*>(frame.slots[frame.roots[v]].data) + frame.offsets[v];
  return Status::kOk;
}

// Planned outputs are computed where they will stay.
Status Run::bind_outputs(Frame& frame) {
  bool is_main = &frame == frames_[0];
  for (size_t i = 0; i < frame.graph->outputs.size; ++i) {
    uint32_t v = frame.graph->outputs[i];
    if (frame.sources[v] != Source::kOutput || frame.roots[v] != v) continue;
    Slot& slot = frame.slots[v];
    size_t bytes = slot.shape.count() * element_size(slot.type);
    if (frame.graph->repeats[i]) continue;
    if (!is_main) {
      slot.block = slot.data = heap_.allocate(bytes);
      if (!slot.data) return out_of_memory();
      continue;
    }
    output_shapes_[i] = slot.shape;
    if (outputs_[i].present) {
      TensorArgument& place = outputs_[i];
      if (place.type != slot.type || !(place.shape == slot.shape) || place.bytes < bytes)
        return fail(error_, Status::kInvalidArgument,
                    "output \"%\" has shape %; the memory given for it is for %",
                    frame.graph->values[v].name, slot.shape.span(), place.shape.span());
      slot.data = place.data;
      continue;
    }
    made_[i] = make_value(slot.full_type(), slot.shape, bytes);
    if (!made_[i]) return out_of_memory();
    slot.data = made_[i]->data();
  }
  return Status::kOk;
}

// What was not computed in place: dynamic values, inputs and constants as outputs, repetitions.
Status Run::deliver_outputs(Frame& frame) {
  const Graph& graph = *frame.graph;
  for (size_t i = 0; i < graph.outputs.size; ++i) {
    uint32_t v = graph.outputs[i];
    const Slot& slot = frame.slots[v];
    if (frame.sources[v] == Source::kOutput && !graph.repeats[i]) continue;
    if (slot.state == Slot::kEmpty)
      return fail(error_, Status::kFail, "output \"%\" was not produced", graph.values[v].name);
    output_shapes_[i] = slot.shape;
    if (!outputs_[i].present) {
      ORTOLAN_TRY(export_value(slot.full_type(), slot.shape, slot.data, &made_[i]));
      continue;
    }
    TensorArgument& place = outputs_[i];
    size_t bytes = slot.shape.count() * element_size(slot.type);
    if ((kHasContainers && slot.layers) || (kHasTexts && slot.type == DataType::kString))
      return fail(error_, Status::kNotImplemented,
                  "output \"%\" is no tensor of numbers: no memory can be given for it",
                  graph.values[v].name);
    if (place.type != slot.type || !(place.shape == slot.shape) || place.bytes < bytes)
      return fail(error_, Status::kInvalidArgument,
                  "output \"%\" has shape %; the memory given for it is for %",
                  graph.values[v].name, slot.shape.span(), place.shape.span());
    if (bytes) copy(place.data, slot.data, bytes);
  }
  return Status::kOk;
}

Status Run::loop() {
  for (;;) {
    Frame& frame = *top_;
    ORTOLAN_TRY(check_interrupt());
    if (frame.step == frame.steps.size) {
      if (!kHasControl || &frame == frames_[0]) return Status::kOk;
      ORTOLAN_TRY(finish(frame));
      continue;
    }
    const Step& now = frame.steps[frame.step++];
    ORTOLAN_TRY(times_.size ? timed_step(frame, now) : step(frame, now));
    // A control node's operands are still in use by its body.
    if (top_ != &frame) continue;
    for (uint32_t i = now.release_begin; kHasDynamic && i < now.release_end; ++i)
      drop(frame.slots[frame.releases[i]]);
  }
}

void Run::start_context(Frame& frame, Node& node) {
  context_.node_ = &node;
  context_.slots_ = frame.slots;
  context_.error_ = &error_;
  context_.run_ = this;
  context_.texts_ = &texts_;
  context_.pool_ = model_.pool;
  context_.threads_ = model_.threads;
  context_.tensor_limit_ = model_.options.max_tensor_bytes;
}

Status Run::step(Frame& frame, const Step& step) {
  Node& node = frame.graph->nodes[step.node];
  start_context(frame, node);
  if (kHasDynamic && step.dynamic) return step_dynamic(frame, step);
  context_.scratch_ = frame.base + step.scratch;
  context_.scratch_shared_ = step.scratch_shared;
  context_.scratch_per_thread_ = step.scratch_per_thread;
  size_t scratch = step.scratch_shared + step.scratch_per_thread * context_.threads_;
  OnlyOperands guard(frame, node, step, scratch);
  return invoke(node.kernel->run, context_);
}

Status Run::timed_step(Frame& frame, const Step& now) {
  uint64_t begin = platform::nanoseconds();
  ORTOLAN_TRY(step(frame, now));
  if (steps_ < times_.size)
    times_[steps_] = {frame.graph->index, now.node, begin, platform::nanoseconds()};
  ++steps_;
  return Status::kOk;
}

Status Run::step_dynamic(Frame& frame, const Step& step) {
  Node& node = frame.graph->nodes[step.node];
  if (kHasControl && node.kernel->control != Control::kNone) return start_control(frame, node);
  context_.scratch_shared_ = context_.scratch_per_thread_ = 0;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    frame.slots[v] = Slot();
    static_cast<Typed&>(frame.slots[v]) = frame.graph->values[v];
  }
  if (node.kernel->infer) ORTOLAN_TRY(invoke(node.kernel->infer, context_));
  ORTOLAN_TRY(check_layout(error_, node, frame.slots));
  bool work = false;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    Slot& slot = frame.slots[v];
    if (node.kernel->flags & KernelInfo::kDataDependent) {
      work = true;
      continue;
    }
    if (slot.state == Slot::kEmpty) return fail_node(node, Status::kFail, "an output got no shape");
    if (slot.alias_of != kNoValue) {
      const Slot& from = frame.slots[slot.alias_of];
      // Memory of the arena is used again as soon as the plan allows: no views of it.
      Source source = frame.sources[slot.alias_of];
      if (from.block || (source != Source::kArena && source != Source::kOutput)) {
        slot.data = static_cast<char*>(from.data) + slot.alias_offset;
        slot.block = from.block;
        if (slot.block) Heap::retain(slot.block);
        slot.state = Slot::kReady;
        continue;
      }
    }
    size_t bytes = slot.shape.count() * element_size(slot.type);
    slot.data = slot.block = heap_.allocate(bytes);
    if (!slot.data) return out_of_memory();
    work = work || bytes;
  }
  if (!work || !node.kernel->run) return Status::kOk;
  size_t scratch = context_.scratch_shared_ + context_.scratch_per_thread_ * context_.threads_;
  context_.scratch_ = scratch ? heap_.allocate(scratch) : nullptr;
  if (scratch && !context_.scratch_) return out_of_memory();
  Status status = invoke(node.kernel->run, context_);
  if (context_.scratch_) heap_.release(context_.scratch_);
  context_.scratch_ = nullptr;
  return status;
}

void Run::drop(Slot& slot) {
  if (slot.block) heap_.release(slot.block);
  slot.block = nullptr;
  slot.data = nullptr;
  slot.state = Slot::kEmpty;
}

// Gives back what a frame holds beyond its plan.
void Run::leave(Frame& frame) {
  for (uint32_t v = 0; v < frame.graph->values.size; ++v) {
    Slot& slot = frame.slots[v];
    if (!slot.block) continue;
    heap_.release(slot.block);
    slot.block = nullptr;
    if (frame.sources[v] == Source::kDynamic) slot.state = Slot::kEmpty;
  }
  if (frame.block) heap_.release(frame.block);
  frame.block = nullptr;
}

void Run::clean() {
  for (Frame* frame = top_; frame;) {
    leave(*frame);
    if (kHasLoops) end_loop_state(*frame);
    Frame* caller = frame->caller;
    frame->caller = nullptr;
    frame = caller;
  }
  if (!top_ && created_) leave(*frames_[0]);  // it failed before it began
  top_ = nullptr;
  texts_.reset();
  heap_.trim(kKeptHeap);
}

// Context members that need the executor.

int64_t Context::attribute_int(String name, int64_t fallback) const {
  const Attribute* a = attribute(name);
  return a && a->kind == AttributeKind::kInt ? a->i : fallback;
}

float Context::attribute_float(String name, float fallback) const {
  const Attribute* a = attribute(name);
  return a && a->kind == AttributeKind::kFloat ? a->f : fallback;
}

String Context::attribute_string(String name, String fallback) const {
  const Attribute* a = attribute(name);
  return a && a->kind == AttributeKind::kString ? a->s : fallback;
}

Span<const int64_t> Context::attribute_ints(String name) const {
  const Attribute* a = attribute(name);
  return a && a->kind == AttributeKind::kInts ? a->ints : Span<const int64_t>{};
}

const Slot* Context::constant_input(size_t i) const {
  if (!has_input(i)) return nullptr;
  const Slot& slot = input(i);
  return slot.known && slot.state == Slot::kReady ? &slot : nullptr;
}

const Slot* Context::default_input(size_t i) const {
  return has_input(i) && input(i).data ? &input(i) : nullptr;
}

bool Context::session_seed(uint64_t* seed) const {
  const Options& options = run_->model_.options;
  uint64_t hash = options.seed ^ node_->file_index;
  for (size_t i = 0; i < node_->name.size; ++i)
    hash = (hash ^ static_cast<uint8_t>(node_->name.data[i])) * 0x100000001b3u;
  *seed = hash;
  return options.is_seeded;
}

Status Context::out_of_memory() const { return fail(Status::kOutOfMemory, "memory is out"); }

Status Context::set_output(size_t i, const Shape& shape) {
  if (!has_output(i)) return Status::kOk;
  Slot& slot = output(i);
  size_t bytes;
  if (!checked_bytes(shape, max<size_t>(element_size(slot.type), 1), &bytes) ||
      bytes > tensor_limit_)
    return fail(Status::kLimitExceeded,
                "output % of shape % is too large: the limit ortolan.max_tensor_bytes is %", i,
                shape.span(), tensor_limit_);
  slot.shape = shape;
  slot.state = Slot::kShape;
  slot.alias_of = kNoValue;
  slot.alias_offset = 0;
  if (!kSmall) slot.pitch = 0, slot.allows_gaps = false;
  return Status::kOk;
}

void Context::alias(size_t i, size_t from, size_t offset) {
  if (!has_output(i)) return;
  output(i).alias_of = node_->inputs[from];
  output(i).alias_offset = offset;
}

void Context::request_scratch(size_t shared, size_t per_thread) {
  constexpr size_t kMost = SIZE_MAX / 2, kRefused = ~(kAlignment - 1);
  scratch_shared_ = round_up(min(shared, kMost), kAlignment);
  scratch_per_thread_ = round_up(min(per_thread, kMost), kAlignment);
  size_t all;
  const bool fits = !__builtin_mul_overflow(scratch_per_thread_, threads_, &all) &&
                    !__builtin_add_overflow(scratch_shared_, all, &all) && all <= kMost;
  // More than the address space holds: so many bytes will not be had, while a sum that wraps would.
  if (!fits) scratch_shared_ = kRefused, scratch_per_thread_ = 0;
}

Status Context::allocate_output(size_t i, const Shape& shape) {
  if (!has_output(i)) return Status::kOk;
  ORTOLAN_TRY(set_output(i, shape));
  Slot& slot = output(i);
  slot.data = slot.block = run_->heap_.allocate(shape.count() * element_size(slot.type));
  return slot.data ? Status::kOk : out_of_memory();
}

bool Context::input_ints(size_t i, int64_t* values, size_t capacity, size_t* count) const {
  const Slot& slot = input(i);
  *count = slot.shape.count();
  if (*count > capacity) return false;
  if (slot.type == DataType::kInt64) {
    for (size_t k = 0; k < *count; ++k) values[k] = static_cast<const int64_t*>(slot.data)[k];
    return true;
  }
  if (slot.type != DataType::kInt32) return false;
  for (size_t k = 0; k < *count; ++k) values[k] = static_cast<const int32_t*>(slot.data)[k];
  return true;
}

#if defined(ORTOLAN_THREADS)
void Context::parallel_for(size_t units, size_t grain, Body body, void* user) const {
  // For threads that are awake a quarter of it is enough; the pool knows who sleeps.
  const size_t work = 4 * units / max<size_t>(grain, 1), threads = min(threads_, work);
  if (!pool_ || threads < 2) {
    if (units) body(user, 0, units, 0);
    return;
  }
  pool_->run(units, threads, work, body, user);
}
#endif

#if defined(ORTOLAN_MESSAGE_CODES)
Status Context::fail_number(Status code, uint32_t number) const {
  return fail_node_number(*error_, *node_, code, number);
}
#else
Status Context::fail_parts(Status code, const char* format, const Part* parts, size_t count) const {
  return fail_node_parts(*error_, *node_, code, format, parts, count);
}
#endif

}  // namespace ortolan
