#include "core/plan.h"

namespace ortolan {

namespace {
// Results up to this size are computed while planning when nothing but shapes decides them.
constexpr size_t kKnownLimit = 4096;
// Up to this many blocks the arena is laid out by size, which is tight but quadratic.
constexpr size_t kBySizeLimit = 4096;
// Up to this many other orders are tried as well, until one reaches the floor.
constexpr size_t kOrdersLimit = 1024;
}  // namespace

Status Planner::plan() {
  f_.planned = false;
  f_.zone.reset();
  ++f_.generation;
  context_.slots_ = f_.slots;
  context_.error_ = &error_;
  context_.threads_ = run_.model().threads;
  context_.tensor_limit_ = run_.model().options.max_tensor_bytes;
  if (!steps_.reserve(f_.graph->nodes.size)) return out_of_memory();
  reset_slots();
  for (uint32_t i = 0; i < f_.graph->nodes.size; ++i) ORTOLAN_TRY(plan_node(i));
  if (!last_.resize(f_.graph->values.size, 0)) return out_of_memory();
  for (uint32_t v = 0; v < f_.graph->values.size; ++v)
    last_[root(v)] = max(last_[root(v)], f_.last_use[v]);
  place_in_place();
  ORTOLAN_TRY(kHasJoins && has_joins_ ? join_parts() : collect_blocks());
  f_.arena_bytes = 0;
  List<const Block*> placed(run_.allocator());
  if (!placed.resize(blocks_.size(), nullptr)) return out_of_memory();
  measure();
  if (blocks_.size() <= kBySizeLimit)
    assign_by_size(placed);
  else
    assign_by_time(placed);
  ORTOLAN_TRY(keep());
  if (kHasDynamic) ORTOLAN_TRY(list_releases());
  ORTOLAN_TRY(list_rebinds());
  f_.planned = true;
  return Status::kOk;
}

void Planner::reset_slots() {
  const Graph& graph = *f_.graph;
  for (uint32_t v = 0; v < graph.values.size; ++v) {
    const Value& value = graph.values[v];
    f_.roots[v] = v;
    f_.offsets[v] = 0;
    if (value.is_constant && value.outer == kNoValue) {
      f_.sources[v] = Source::kConstant;
      Slot& slot = f_.slots[v];
      slot.data = const_cast<void*>(value.data);
      slot.shape = value.shape;
      slot.state = Slot::kReady;
      slot.known = true;
    } else if (value.is_input || value.outer != kNoValue) {
      f_.sources[v] = value.is_constant ? Source::kConstant : Source::kInput;
    } else {
      f_.sources[v] = Source::kNone;
      f_.slots[v] = Slot();
    }
    static_cast<Typed&>(f_.slots[v]) = value;
  }
  size_t i = 0;
  for (uint32_t v : graph.inputs) f_.input_shapes[i++] = f_.slots[v].shape;
  for (uint32_t v : graph.captures) f_.input_shapes[i++] = f_.slots[v].shape;
}

// Whether loading has made constants of all results.
bool Planner::is_folded(const Node& node) const {
  bool any = false;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    if (!f_.graph->values[v].is_constant) return false;
    any = true;
  }
  return any;
}

// Whether shapes of results are known only when the node runs.
bool Planner::must_wait(const Node& node) const {
  if (!kHasDynamic) return false;
  if (node.kernel->control != Control::kNone) return true;
  if (node.kernel->flags & KernelInfo::kDataDependent) return true;
  for (size_t i = 0; i < node.inputs.size; ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const Slot& slot = f_.slots[node.inputs[i]];
    if (slot.state == Slot::kEmpty) return true;
    if (i < 8 && (node.kernel->value_inputs >> i & 1) && !slot.known) return true;
  }
  return false;
}

Status Planner::plan_node(uint32_t index) {
  Node& node = f_.graph->nodes[index];
  if (is_folded(node)) return Status::kOk;
  ORTOLAN_TRY(run_.check_interrupt());
  Step step;
  step.node = index;
  step.dynamic = must_wait(node);
  if (step.dynamic) {
    for (uint32_t v : node.outputs)
      if (v != kNoValue) f_.sources[v] = Source::kDynamic;
    return steps_.push(step) ? Status::kOk : out_of_memory();
  }
  context_.node_ = &node;
  context_.scratch_shared_ = context_.scratch_per_thread_ = 0;
  if (kHasJoins) context_.joined_rows_ = 0;
  if (node.kernel->infer) ORTOLAN_TRY(invoke(node.kernel->infer, context_));
  ORTOLAN_TRY(check_outputs(node));
  ORTOLAN_TRY(check_layout(error_, node, f_.slots));
  if (kHasKnown && can_compute(node)) return compute(node);
  if (!place_outputs(node)) return Status::kOk;
  step.scratch_shared = context_.scratch_shared_;
  step.scratch_per_thread = context_.scratch_per_thread_;
  if constexpr (kHasJoins) {
    step.joined_rows = context_.joined_rows_;
    has_joins_ |= step.joined_rows != 0;
  }
  return steps_.push(step) ? Status::kOk : out_of_memory();
}

Status Planner::check_outputs(const Node& node) {
  for (size_t i = 0; i < node.outputs.size; ++i)
    if (node.outputs[i] != kNoValue && f_.slots[node.outputs[i]].state == Slot::kEmpty)
      return fail(error_, Status::kFail, "[%] node \"%\": output % got no shape", node.type,
                  node.name, i);
  return Status::kOk;
}

Status check_layout(ErrorText& error, const Node& node, const Slot* slots) {
  LayoutClass kind = node.kernel->layout;
  if (kind != LayoutClass::kElementwise && kind != LayoutClass::kAxis) return Status::kOk;
  if (node.outputs.size == 0 || node.outputs[0] == kNoValue) return Status::kOk;
  const Slot& out = slots[node.outputs[0]];
  if (out.layout == Layout::kPlain) return Status::kOk;
  for (size_t i = 0; i < node.inputs.size; ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const Slot& in = slots[node.inputs[i]];
    bool fits = in.layout == Layout::kChannelsLast ? in.shape.rank == out.shape.rank
                                                   : layout_neutral(in.shape, out.shape.rank);
    if (!fits)
      return fail_node(error, node, Status::kInvalidGraph,
                       "input % has shape %, which is not the rank that the file states", i,
                       in.shape.span());
  }
  return Status::kOk;
}

bool Planner::can_compute(const Node& node) const {
  if (node.kernel->flags & KernelInfo::kVolatile) return false;
  if (!(node.kernel->flags & KernelInfo::kShapeOnly))
    for (uint32_t v : node.inputs)
      if (v != kNoValue && !f_.slots[v].known) return false;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    const Slot& slot = f_.slots[v];
    // Bytes of strings live as long as a run, not as long as a plan.
    if (kHasTexts && slot.type == DataType::kString) return false;
    if (slot.alias_of == kNoValue && bytes_of(v) > kKnownLimit) return false;
  }
  return true;
}

Status Planner::compute(Node& node) {
  bool run = false;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    Slot& slot = f_.slots[v];
    bool alias = slot.alias_of != kNoValue && f_.slots[slot.alias_of].known;
    if (alias) {
      slot.data = static_cast<char*>(f_.slots[slot.alias_of].data) + slot.alias_offset;
    } else {
      slot.data = f_.zone.allocate(max<size_t>(bytes_of(v), 1), kAlignment);
      if (!slot.data) return out_of_memory();
      run = run || bytes_of(v);
    }
    f_.sources[v] = Source::kKnown;
  }
  size_t scratch = context_.scratch_shared_ + context_.scratch_per_thread_ * context_.threads_;
  context_.scratch_ = nullptr;
  if (run && scratch && !(context_.scratch_ = run_.heap().allocate(scratch)))
    return out_of_memory();
  Status status = run && node.kernel->run ? invoke(node.kernel->run, context_) : Status::kOk;
  if (context_.scratch_) run_.heap().release(context_.scratch_);
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    f_.slots[v].state = Slot::kReady;
    f_.slots[v].known = true;
  }
  return status;
}

// False when the node has nothing to do: all its results are views or empty.
bool Planner::place_outputs(const Node& node) {
  bool work = false;
  for (uint32_t v : node.outputs) {
    if (v == kNoValue) continue;
    Slot& slot = f_.slots[v];
    // The caller gets strings in another form.
    bool is_output =
        f_.graph->values[v].is_output && !(kHasTexts && slot.type == DataType::kString);
    f_.sources[v] = is_output ? Source::kOutput : Source::kArena;
    if (slot.alias_of == kNoValue) {
      work = work || bytes_of(v);
      continue;
    }
    uint32_t of = slot.alias_of, r = root(of);
    size_t offset = f_.offsets[of] + slot.alias_offset;
    if (!is_output) {
      f_.roots[v] = r;
      f_.offsets[v] = offset;
      f_.sources[v] = f_.sources[r];
    } else if (f_.sources[r] == Source::kArena && offset == 0 && bytes_of(r) == bytes_of(v)) {
      f_.roots[r] = v;  // the result is computed in the caller's memory from the start
    } else {
      work = work || bytes_of(v);  // a graph output is never a view of something else
    }
  }
  return work;
}

void Planner::place_in_place() {
  for (const Step& step : steps_) {
    const Node& node = f_.graph->nodes[step.node];
    if (step.dynamic || !node.kernel->in_place || node.outputs[0] == kNoValue) continue;
    uint32_t out = node.outputs[0];
    if (root(out) != out || f_.sources[out] != Source::kArena) continue;
    for (size_t i = 0; i < min<size_t>(node.inputs.size, 8); ++i) {
      uint32_t in = node.inputs[i];
      if (!(node.kernel->in_place >> i & 1) || in == kNoValue) continue;
      uint32_t r = root(in);
      bool fits = f_.sources[r] == Source::kArena && last_[r] == step.node && f_.offsets[in] == 0 &&
                  bytes_of(in) == bytes_of(r) && bytes_of(in) == bytes_of(out);
      for (uint32_t other : node.inputs)
        if (other != kNoValue && other != in && root(other) == r) fits = false;
      if (!fits) continue;
      f_.roots[out] = r;
      last_[r] = max(last_[r], last_[out]);
      break;
    }
  }
}

// `first`, where it is given: of each root the first node that needs it.
Status Planner::collect_blocks([[maybe_unused]] const uint32_t* first) {
  const Graph& graph = *f_.graph;
  for (uint32_t s = 0; s < steps_.size(); ++s) {
    const Step& step = steps_[s];
    if (step.dynamic) continue;
    size_t scratch = step.scratch_shared + step.scratch_per_thread * context_.threads_;
    if (scratch &&
        !blocks_.push({round_up(scratch, kAlignment), 0, step.node, step.node, kNoValue, s, 0, 0}))
      return out_of_memory();
    for (uint32_t v : graph.nodes[step.node].outputs) {
      if (v == kNoValue || root(v) != v || f_.sources[v] != Source::kArena) continue;
      size_t bytes = round_up(bytes_of(v), kAlignment);
      uint32_t begin = kHasJoins && first ? min(step.node, first[v]) : step.node;
      if (bytes && !blocks_.push({bytes, 0, begin, max(last_[v], step.node), v, 0, 0, 0}))
        return out_of_memory();
    }
  }
  return Status::kOk;
}

// The lowest offset where `block` meets none of `placed` (sorted by offset) that live at its time.
void Planner::place(Block& block, const Block* const* placed, size_t count) {
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const Block& other = *placed[i];
    if (other.last < block.first || block.last < other.first) continue;
    if (other.offset >= at && other.offset - at >= block.bytes) break;
    at = max(at, other.offset + other.bytes);
  }
  put(block, at);
}

void Planner::put(Block& block, size_t offset) {
  block.offset = offset;
  // More than the address space holds: SIZE_MAX bytes will not be had.
  if (__builtin_add_overflow(offset, block.bytes, &offset)) offset = SIZE_MAX;
  f_.arena_bytes = max(f_.arena_bytes, offset);
}

namespace {
template <class T, class Before>
void sort(T* items, size_t n, const Before& before) {  // heap sort: no recursion, no worst case
  auto sift = [&](size_t i, size_t end) {
    for (size_t child; (child = 2 * i + 1) < end; i = child) {
      if (child + 1 < end && before(items[child], items[child + 1])) ++child;
      if (!before(items[i], items[child])) return;
      swap(items[i], items[child]);
    }
  };
  for (size_t i = n / 2; i-- > 0;) sift(i, n);
  for (size_t end = n; end-- > 1;) {
    swap(items[0], items[end]);
    sift(0, end);
  }
}
}  // namespace

// Greedy by size is mostly at the floor; where it is not, other orders may be tighter.
void Planner::assign_by_size(List<const Block*>& placed) {
  size_t tightest = SIZE_MAX;
  for (uint8_t i = 0; i < static_cast<uint8_t>(Order::kCount); ++i) {
    if (i && (tightest <= f_.arena_floor || blocks_.size() > kOrdersLimit)) break;
    assign_in_order(static_cast<Order>(i), placed);
    if (i && f_.arena_bytes >= tightest) continue;
    tightest = f_.arena_bytes;
    for (Block& block : blocks_) block.best = block.offset;
  }
  f_.arena_bytes = tightest;
  for (Block& block : blocks_) block.offset = block.best;
}

size_t Planner::rank(const Block& block, Order order) const {
  size_t time = block.last - block.first + 1, area;
  switch (order) {
    case Order::kArea:
      return __builtin_mul_overflow(block.bytes, time, &area) ? SIZE_MAX : area;
    case Order::kLifetime:
      return time;
    case Order::kPeak:
      return block.first <= peak_ && peak_ <= block.last;
    case Order::kStart:
      return SIZE_MAX - block.first;
    case Order::kEnd:
      return block.last;
    default:
      return 0;
  }
}

void Planner::assign_in_order(Order order, List<const Block*>& placed) {
  size_t n = blocks_.size();
  f_.arena_bytes = 0;
  for (Block& block : blocks_) block.rank = rank(block, order);
  sort(blocks_.begin(), n, [](const Block& a, const Block& b) {
    if (a.rank != b.rank) return a.rank > b.rank;
    if (a.bytes != b.bytes) return a.bytes > b.bytes;
    return a.first != b.first ? a.first < b.first : a.value < b.value;
  });
  for (size_t i = 0; i < n; ++i) {
    place(blocks_[i], placed.begin(), i);
    size_t at = i;
    while (at > 0 && placed[at - 1]->offset > blocks_[i].offset) {
      placed[at] = placed[at - 1];
      --at;
    }
    placed[at] = &blocks_[i];
  }
}

// Blocks are in the order of their first node: only those alive at that moment matter. Once too
// many are, all that follow go behind each other: not tight, but never quadratic.
void Planner::assign_by_time(List<const Block*>& alive) {
  size_t count = 0;
  for (Block& block : blocks_) {
    if (count == kBySizeLimit) {
      put(block, f_.arena_bytes);
      continue;
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i)
      if (alive[i]->last >= block.first) alive[kept++] = alive[i];
    place(block, alive.begin(), kept);
    size_t at = kept;
    for (; at > 0 && alive[at - 1]->offset > block.offset; --at) alive[at] = alive[at - 1];
    alive[at] = &block;
    count = kept + 1;
  }
}

// The floor: the largest sum of bytes alive at one node, the peak.
void Planner::measure() {
  f_.arena_floor = 0;
  List<size_t> change(run_.allocator());  // what goes is a negative number, wrapped
  if (!change.resize(f_.graph->nodes.size + 2, 0)) return;
  for (const Block& block : blocks_) {
    size_t end = min<size_t>(block.last, f_.graph->nodes.size) + 1;
    change[block.first] += block.bytes;
    change[end] -= block.bytes;
  }
  size_t live = 0;
  for (uint32_t node = 0; node < change.size(); ++node) {
    live += change[node];
    if (live <= f_.arena_floor) continue;
    f_.arena_floor = live;
    peak_ = node;
  }
}

Status Planner::keep() {
  for (const Block& block : blocks_) {
    if (block.value == kNoValue)
      steps_[block.step].scratch = block.offset;
    else
      f_.offsets[block.value] = block.offset;
  }
  if constexpr (kHasJoins) {
    size_t kept = 0;
    for (const Step& step : steps_)
      if (!step.is_joined) steps_[kept++] = step;
    if (!steps_.resize(kept, Step())) return out_of_memory();
  }
  if (!f_.zone.array(steps_.size(), &f_.steps)) return out_of_memory();
  if (!steps_.empty()) copy(f_.steps.data, steps_.begin(), steps_.size() * sizeof(Step));
  return Status::kOk;
}

// Which dynamic values are done with after each step.
Status Planner::list_releases() {
  size_t nodes = f_.graph->nodes.size, values = f_.graph->values.size, total = 0;
  List<uint32_t> step_of(run_.allocator());
  if (!step_of.resize(nodes, kNoValue)) return out_of_memory();
  for (uint32_t s = 0; s < f_.steps.size; ++s) step_of[f_.steps[s].node] = s;
  auto step_after = [&](uint32_t v) -> Step* {
    bool dynamic = f_.sources[v] == Source::kDynamic && f_.last_use[v] < nodes;
    uint32_t s = dynamic ? step_of[f_.last_use[v]] : kNoValue;
    return s == kNoValue ? nullptr : &f_.steps[s];
  };
  for (uint32_t v = 0; v < values; ++v)
    if (Step* step = step_after(v)) ++step->release_end, ++total;
  if (!f_.zone.array(total, &f_.releases)) return out_of_memory();
  uint32_t at = 0;
  for (Step& step : f_.steps) {
    uint32_t count = step.release_end;
    step.release_begin = step.release_end = at;
    at += count;
  }
  for (uint32_t v = 0; v < values; ++v)
    if (Step* step = step_after(v)) f_.releases[step->release_end++] = v;
  return Status::kOk;
}

// Flattens roots, and lists the values whose address changes from run to run.
Status Planner::list_rebinds() {
  size_t values = f_.graph->values.size, total = 0;
  auto moves = [&](uint32_t v) {
    Source source = f_.sources[f_.roots[v]];
    return f_.roots[v] != v && (source == Source::kInput || source == Source::kOutput);
  };
  for (uint32_t v = 0; v < values; ++v) f_.roots[v] = root(v);
  for (uint32_t v = 0; v < values; ++v) {
    if (f_.roots[v] == v) continue;
    f_.sources[v] = f_.sources[f_.roots[v]];
    if (moves(v)) ++total;
    if (f_.sources[v] == Source::kConstant || f_.sources[v] == Source::kKnown)
      f_.slots[v].data = static_cast<char*>(f_.slots[f_.roots[v]].data) + f_.offsets[v];
  }
  if (!f_.zone.array(total, &f_.rebinds)) return out_of_memory();
  size_t at = 0;
  for (uint32_t v = 0; v < values; ++v)
    if (moves(v)) f_.rebinds[at++] = v;
  return Status::kOk;
}

}  // namespace ortolan
