// Plans a frame for the shapes of its inputs: infers all shapes, computes what depends on shapes
// alone, and gives every other value a place in the arena.
#pragma once

#include "core/run.h"

namespace ortolan {

constexpr bool kHasJoins = kHasConcat && !kSmall;

// Layouts were chosen by hints from the file; here the true ranks must bear them out. After infer.
Status check_layout(ErrorText& error, const Node& node, const Slot* slots);

class Planner {
 public:
  Planner(Run& run, Frame& frame)
      : run_(run),
        f_(frame),
        error_(run.error()),
        steps_(run.allocator()),
        blocks_(run.allocator()),
        last_(run.allocator()) {}
  Status plan();

 private:
  // A piece of the arena: a root value or the scratch of a step.
  struct Block {
    size_t bytes, offset;
    uint32_t first, last;  // nodes
    uint32_t value;        // kNoValue: scratch of `step`
    uint32_t step;
    size_t rank = 0;  // the higher, the earlier it is placed
    size_t best = 0;  // its offset in the tightest layout so far
  };
  // What is known while parts are joined.
  struct Joins {
    explicit Joins(const Allocator& allocator)
        : readers(allocator), first(allocator), alive(allocator) {}
    List<uint32_t> readers;  // per value
    List<uint32_t> first;    // per root: first node that needs it
    List<size_t> alive;      // per node: bytes of the arena
    size_t most_alive = 0;

    void add_alive(size_t from, size_t to, size_t bytes);
  };
  // Ways to order blocks; each finds layouts that the others miss.
  enum class Order : uint8_t { kSize, kArea, kLifetime, kPeak, kStart, kEnd, kCount };

  void reset_slots();
  Status plan_node(uint32_t index);
  bool must_wait(const Node& node) const;
  bool is_folded(const Node& node) const;
  Status check_outputs(const Node& node);
  bool can_compute(const Node& node) const;
  Status compute(Node& node);
  bool place_outputs(const Node& node);
  void place_in_place();
  Status join_parts();
  bool may_join(const Joins& joins, uint32_t concat, size_t i, size_t rows) const;
  void join_inputs(Joins& joins, Step& step);
  void take_parts(Joins& joins, Step& step, const uint32_t* firsts, uint32_t from);
  Status collect_blocks(const uint32_t* first = nullptr);
  void assign_by_size(List<const Block*>& placed);
  void assign_in_order(Order order, List<const Block*>& placed);
  size_t rank(const Block& block, Order order) const;
  void assign_by_time(List<const Block*>& alive);
  void place(Block& block, const Block* const* placed, size_t count);
  void put(Block& block, size_t offset);
  void measure();
  Status keep();
  Status list_releases();
  Status list_rebinds();
  size_t bytes_of(uint32_t value) const {
    const Slot& slot = f_.slots[value];
    return slot.shape.count() * element_size(slot.type);
  }
  uint32_t root(uint32_t value) const {
    while (f_.roots[value] != value) value = f_.roots[value];
    return value;
  }
  Status out_of_memory() { return fail(error_, Status::kOutOfMemory, "memory is out"); }

  Run& run_;
  Frame& f_;
  ErrorText& error_;
  Context context_;
  List<Step> steps_;
  List<Block> blocks_;
  List<uint32_t> last_;  // per root: last node that needs it
  bool has_joins_ = false;
  uint32_t peak_ = 0;  // a node at which the most bytes are alive
};

}  // namespace ortolan
