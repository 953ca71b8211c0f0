// Concat without copies: inputs that nobody needs afterwards are computed at their places in the
// result, where that takes no more memory. Parts that do not lie in one piece need a kernel that
// can leave gaps between its rows (Context::allow_gaps).
#include "core/plan.h"

namespace ortolan {

namespace {
// Beyond, planning stays short; blocks that are laid out by time have to begin in that order.
constexpr size_t kBlocksLimit = 2048;
}  // namespace

// In place of collect_blocks.
Status Planner::join_parts() {
  const Graph& graph = *f_.graph;
  ORTOLAN_TRY(collect_blocks());
  if (blocks_.size() > kBlocksLimit) return Status::kOk;
  Joins joins(run_.allocator());
  if (!joins.readers.resize(graph.values.size, 0) ||
      !joins.first.resize(graph.values.size, kNoValue) || !joins.alive.resize(graph.nodes.size, 0))
    return out_of_memory();
  for (const Node& node : graph.nodes) {
    for (uint32_t v : node.inputs)
      if (v != kNoValue) ++joins.readers[v];
    for (const Graph* body : node.bodies)
      for (size_t i = 0; body && i < body->captures.size; ++i)
        ++joins.readers[body->values[body->captures[i]].outer];
  }
  for (const Block& block : blocks_) {
    if (block.value != kNoValue) joins.first[block.value] = block.first;
    joins.add_alive(block.first, block.last, block.bytes);
  }
  for (size_t bytes : joins.alive) joins.most_alive = max(joins.most_alive, bytes);
  for (Step& step : steps_)
    if (step.joined_rows) join_inputs(joins, step);
  if (!blocks_.resize(0, Block())) return out_of_memory();
  return collect_blocks(joins.first.begin());
}

// At the nodes from `from` to `to`; bytes that go are a negative number, wrapped.
void Planner::Joins::add_alive(size_t from, size_t to, size_t bytes) {
  for (size_t node = from; node < alive.size() && node <= to; ++node) alive[node] += bytes;
}

// Whether input i of a Concat has memory of its own that ends there, and can be one of `rows` rows.
bool Planner::may_join(const Joins& joins, uint32_t concat, size_t i, size_t rows) const {
  const Node& node = f_.graph->nodes[concat];
  const uint32_t v = node.inputs[i], r = root(v);
  const size_t bytes = bytes_of(v);
  if (!bytes || f_.sources[r] != Source::kArena || joins.first[r] == kNoValue ||
      last_[r] != concat || bytes_of(r) != bytes || (v != r && f_.offsets[v] != 0))
    return false;
  for (size_t k = 0; k < node.inputs.size; ++k)
    if (k != i && root(node.inputs[k]) == r) return false;
  if (rows == 1) return true;
  const Slot& slot = f_.slots[v];
  const size_t row = static_cast<size_t>(slot.shape[1]) * element_size(slot.type);
  return v == r && slot.allows_gaps && joins.readers[v] == 1 && bytes == rows * row;
}

// Takes all inputs that can be taken; while that needs more memory than there is at once anyway,
// leaves out those that are computed first.
void Planner::join_inputs(Joins& joins, Step& step) {
  constexpr size_t kMost = 16;
  const Node& node = f_.graph->nodes[step.node];
  const uint32_t out = node.outputs[0], whole = root(out);
  const bool in_arena = f_.sources[whole] == Source::kArena;
  if (node.inputs.size > kMost || bytes_of(whole) != bytes_of(out) ||
      (out != whole && f_.offsets[out] != 0) || !(in_arena || f_.sources[whole] == Source::kOutput))
    return;
  uint32_t firsts[kMost];
  for (size_t i = 0; i < node.inputs.size; ++i)
    firsts[i] = may_join(joins, step.node, i, step.joined_rows) ? joins.first[root(node.inputs[i])]
                                                                : kNoValue;
  for (uint32_t from = 0;; ++from) {
    uint32_t next = kNoValue;
    for (size_t i = 0; i < node.inputs.size; ++i)
      if (firsts[i] >= from) next = min(next, firsts[i]);
    if (next == kNoValue) return;
    from = next;
    // What the other parts have of the result's memory, they had before.
    const auto change = [&](bool undo) {
      size_t bytes = in_arena && from < step.node ? round_up(bytes_of(whole), kAlignment) : 0;
      if (bytes) joins.add_alive(from, step.node - 1, undo ? 0 - bytes : bytes);
      for (size_t i = 0; i < node.inputs.size; ++i) {
        if (firsts[i] == kNoValue || firsts[i] < from) continue;
        bytes = round_up(bytes_of(node.inputs[i]), kAlignment);
        joins.add_alive(firsts[i], step.node, undo ? bytes : 0 - bytes);
      }
    };
    change(false);
    size_t most = 0;
    for (uint32_t at = from; at <= step.node; ++at) most = max(most, joins.alive[at]);
    if (most <= joins.most_alive) {
      take_parts(joins, step, firsts, from);
      return;
    }
    change(true);
  }
}

void Planner::take_parts(Joins& joins, Step& step, const uint32_t* firsts, uint32_t from) {
  const Node& node = f_.graph->nodes[step.node];
  const uint32_t out = node.outputs[0], whole = root(out);
  const size_t rows = step.joined_rows;
  size_t offset = 0;
  step.is_joined = true;
  for (size_t i = 0; i < node.inputs.size; ++i) {
    const uint32_t v = node.inputs[i], r = root(v);
    const size_t bytes = bytes_of(v);
    if (firsts[i] != kNoValue && firsts[i] >= from) {
      for (uint32_t other = 0; other < f_.graph->values.size; ++other)
        if (other != r && root(other) == r) f_.offsets[other] += offset;
      f_.offsets[r] = offset;
      f_.roots[r] = whole;
      if (rows > 1) f_.slots[v].pitch = bytes_of(out) / rows;
    } else if (bytes) {
      step.is_joined = false;
    }
    offset += bytes / rows;
  }
  joins.first[whole] = min(joins.first[whole], from);
}

}  // namespace ortolan
