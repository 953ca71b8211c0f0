// Walks an output in memory order while its operands broadcast, whatever their layouts, and hands
// whole groups of elements to a row function. Types appear only as sizes here, so one copy of this
// code serves every operator and element type; what is left of a row goes through padded groups.
#pragma once

#include "kernels/elements.h"
#include "kernels/memory_order.h"

namespace ortolan::ORTOLAN_ISA {

constexpr uint32_t kMaxOperands = 3;
constexpr size_t kGroupBytes = 2 * kVectorBytes;  // the most that one operand has in a group
constexpr size_t kBlock = 256;                    // elements that are gathered at once

// Groups of elements, one after the other. An operand whose step is 0 is one group that holds the
// same element in all lanes.
struct Row {
  const char* in[kMaxOperands];
  size_t step[kMaxOperands];  // bytes from group to group
  char* out;
  size_t groups;
  const void* op;  // the functor, where it has parameters
};
using RowFunction = void (*)(const Row& row);

// What an instance knows when it is compiled; small enough to be one immediate operand.
struct Form {
  uint8_t operands;
  uint8_t log2_lanes;  // elements of a group
  bool costly;         // worth a thread for fewer elements
  bool swapped;        // the first two operands change places
};

struct Instance {
  RowFunction row;
  const void* op;
  Form form;
  uint8_t out_size;  // bytes of an element

  size_t group_bytes(size_t element) const { return element << form.log2_lanes; }
};

struct Operand {
  enum Kind : uint8_t {
    kFlat,     // lies as the output does
    kUniform,  // one element
    kRepeats,  // one row for all rows
    kGeneral,
  };
  const char* data;
  size_t stride[kMaxRank];  // bytes, 0 where it broadcasts
  size_t size;
  Kind kind;
};

// The output's dimensions in memory order, those that all operands pass alike merged into one.
struct Loop {
  size_t count;
  uint32_t rank;
  uint32_t operands;
  size_t dims[kMaxRank];
  Operand in[kMaxOperands];
  size_t block;  // most elements of a piece
  size_t unit;   // elements that stay on one thread; pieces begin at its multiples
  bool by_row;   // pieces lie within a row; else they are whole rows

  size_t row() const { return dims[rank - 1]; }
};

ORTOLAN_SMALL static void set_strides(Operand& operand, const Slot& slot, const Slot& out) {
  const uint32_t rank = slot.shape.rank;
  const Shape dims = in_memory_order(slot);
  size_t physical[kMaxRank], stride = operand.size;
  for (uint32_t i = rank; i-- > 0;) {
    physical[i] = dims[i] == 1 ? 0 : stride;
    stride *= static_cast<size_t>(dims[i]);
  }
  for (size_t& s : operand.stride) s = 0;
  const uint32_t missing = out.shape.rank - rank;
  for (uint32_t i = 0; i < rank; ++i)
    operand.stride[memory_position(i + missing, out.shape.rank, out.layout)] =
        physical[memory_position(i, rank, slot.layout)];
}

ORTOLAN_SMALL static void merge_dimensions(Loop& loop, const Shape& dims) {
  uint32_t rank = 0;
  for (uint32_t i = 0; i < dims.rank; ++i) {
    const size_t n = static_cast<size_t>(dims[i]);
    if (n == 1) continue;
    bool merges = rank > 0;
    for (uint32_t k = 0; k < loop.operands && merges; ++k)
      merges = loop.in[k].stride[rank - 1] == loop.in[k].stride[i] * n;
    if (!merges) loop.dims[rank++] = 1;
    loop.dims[rank - 1] *= n;
    for (uint32_t k = 0; k < loop.operands; ++k) loop.in[k].stride[rank - 1] = loop.in[k].stride[i];
  }
  if (rank == 0) {
    loop.dims[rank++] = 1;
    for (uint32_t k = 0; k < loop.operands; ++k) loop.in[k].stride[0] = 0;
  }
  loop.rank = rank;
}

ORTOLAN_SMALL static Operand::Kind kind_of(const Loop& loop, const Operand& operand) {
  const uint32_t last = loop.rank - 1;
  bool flat = true, outer_zero = true;
  size_t stride = operand.size;
  for (uint32_t i = loop.rank; i-- > 0;) {
    flat = flat && operand.stride[i] == stride;
    stride *= loop.dims[i];
    outer_zero = outer_zero && (i == last || operand.stride[i] == 0);
  }
  if (flat) return Operand::kFlat;
  if (!outer_zero) return Operand::kGeneral;
  if (operand.stride[last] == 0) return Operand::kUniform;
  return operand.stride[last] == operand.size ? Operand::kRepeats : Operand::kGeneral;
}

// Pieces of long rows are used in place unless an operand skips elements; short rows are gathered,
// several to a block.
ORTOLAN_SMALL static void choose_pieces(Loop& loop) {
  loop.by_row = loop.rank == 1 || loop.row() >= kBlock;
  loop.unit = loop.block = loop.row() < kBlock ? kBlock / loop.row() * loop.row() : kBlock;
  if (!loop.by_row) return;
  loop.unit = 4 * kBlock;
  loop.block = SIZE_MAX;
  for (uint32_t k = 0; k < loop.operands; ++k) {
    const size_t stride = loop.in[k].stride[loop.rank - 1];
    if (stride != 0 && stride != loop.in[k].size) loop.block = kBlock;
  }
}

// `inputs` has `operands` slots, each of a shape that broadcasts to out's, which is not empty.
ORTOLAN_SMALL static void make_loop(Loop& loop, const Slot* const* inputs, uint32_t operands,
                                    const Slot& out) {
  loop.count = element_count(out.shape);
  loop.operands = operands;
  bool simple = true;
  for (uint32_t k = 0; k < operands; ++k) {
    Operand& operand = loop.in[k];
    const Slot& slot = *inputs[k];
    operand.data = static_cast<const char*>(slot.data);
    operand.size = element_size(slot.type);
    const bool one = element_count(slot.shape) == 1;
    operand.kind = one ? Operand::kUniform : Operand::kFlat;
    operand.stride[0] = one ? 0 : operand.size;
    simple = simple && (one || (slot.shape == out.shape && slot.layout == out.layout));
  }
  if (simple) {
    loop.rank = 1;
    loop.dims[0] = loop.count;
  } else {
    for (uint32_t k = 0; k < operands; ++k) set_strides(loop.in[k], *inputs[k], out);
    merge_dimensions(loop, in_memory_order(out));
    for (uint32_t k = 0; k < operands; ++k) loop.in[k].kind = kind_of(loop, loop.in[k]);
  }
  choose_pieces(loop);
}

// Bytes from an operand's start to its element at `position` of the output; leaves the position
// within each dimension in `index`.
static size_t offset_at(const Loop& loop, const Operand& operand, size_t position, size_t* index) {
  size_t offset = 0;
#pragma clang loop vectorize(disable) unroll(disable)
  for (uint32_t i = loop.rank; i-- > 1;) {
    const size_t rest = position / loop.dims[i];
    index[i] = position - rest * loop.dims[i];
    offset += index[i] * operand.stride[i];
    position = rest;
  }
  index[0] = position;
  return offset + position * operand.stride[0];
}

// The element at `from` in all of a group.
static void splat_group(char* group, const char* from, size_t size) {
  uint64_t word = 0;
  if (size == 1)
    word = load<uint8_t>(from) * 0x0101010101010101u;
  else if (size == 2)
    word = load<uint16_t>(from) * 0x0001000100010001u;
  else if (size == 4)
    word = load<uint32_t>(from) * 0x0000000100000001u;
  else
    word = load<uint64_t>(from);
  for (size_t i = 0; i < kGroupBytes; i += sizeof(word)) copy(group + i, &word, sizeof(word));
}

template <class Word>
ORTOLAN_INLINE static void copy_strided(char* to, const char* from, size_t stride, size_t n) {
#pragma clang loop vectorize(disable) unroll(disable)
  for (size_t i = 0; i < n; ++i, from += stride)
    store<Word>(to + i * sizeof(Word), load<Word>(from));
}

// Whole groups where one element is repeated: there is room for a group behind `to`.
ORTOLAN_NOINLINE static void copy_run(char* to, const char* from, size_t stride, size_t size,
                                      size_t n) {
  if (stride == size) return copy(to, from, n * size);
  if (stride == 0) {
    splat_group(to, from, size);
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t i = kGroupBytes; i < n * size; i += kGroupBytes) copy(to + i, to, kGroupBytes);
    return;
  }
  if (size == 1) return copy_strided<uint8_t>(to, from, stride, n);
  if (size == 2) return copy_strided<uint16_t>(to, from, stride, n);
  if (size == 4) return copy_strided<uint32_t>(to, from, stride, n);
  copy_strided<uint64_t>(to, from, stride, n);
}

// n elements from `position` on, one after the other.
ORTOLAN_NOINLINE static void gather(const Loop& loop, const Operand& operand, size_t position,
                                    size_t n, char* to) {
  size_t index[kMaxRank];
  const char* from = operand.data + offset_at(loop, operand, position, index);
  const uint32_t last = loop.rank - 1;
  while (true) {
    const size_t run = min(n, loop.dims[last] - index[last]);
    copy_run(to, from, operand.stride[last], operand.size, run);
    n -= run;
    if (n == 0) return;
    to += run * operand.size;
    from -= index[last] * operand.stride[last];
    index[last] = 0;
    for (uint32_t i = last; i-- > 0;) {
      from += operand.stride[i];
      if (++index[i] < loop.dims[i]) break;
      from -= index[i] * operand.stride[i];
      index[i] = 0;
    }
  }
}

// The elements of an operand for one piece, where they lie or in a buffer.
struct Window {
  alignas(64) char gathered[kBlock * 8 + kGroupBytes];  // copy_run writes whole groups
  alignas(64) char group[kGroupBytes];
  size_t repeated = 0;  // elements of `gathered` that hold for every piece

  void set(Row& row, uint32_t k, const char* data, size_t step) {
    row.in[k] = data;
    row.step[k] = step;
  }
  void open(const Loop& loop, uint32_t k, size_t position, size_t n, const Instance& instance,
            Row& row) {
    const Operand& operand = loop.in[k];
    const size_t group_bytes = instance.group_bytes(operand.size);
    if (operand.kind == Operand::kFlat)
      return set(row, k, operand.data + position * operand.size, group_bytes);
    size_t index[kMaxRank];
    const bool splat =
        operand.kind == Operand::kUniform || (loop.by_row && operand.stride[loop.rank - 1] == 0);
    const bool in_place = splat || (loop.by_row && loop.block != kBlock);
    if (in_place) {
      const char* from = operand.data + offset_at(loop, operand, position, index);
      if (!splat) return set(row, k, from, group_bytes);
      splat_group(group, from, operand.size);
      return set(row, k, group, 0);
    }
    if (repeated < n) gather(loop, operand, position, n, gathered);
    if (operand.kind == Operand::kRepeats && !loop.by_row) repeated = max(repeated, n);
    set(row, k, gathered, group_bytes);
  }
};

// The row function over n elements; row.groups is set here.
ORTOLAN_NOINLINE static void run_row(const Instance& instance, Row& row, size_t n) {
  const uint32_t log2_lanes = instance.form.log2_lanes;
  const size_t groups = n >> log2_lanes, rest = n - (groups << log2_lanes);
  row.op = instance.op;
  row.groups = groups;
  if (groups) instance.row(row);
  if (rest == 0) return;
  alignas(64) char padded[kMaxOperands][kGroupBytes] = {};
  alignas(64) char result[kGroupBytes];
  Row tail = row;
  for (uint32_t k = 0; k < instance.form.operands; ++k) {
    const size_t step = row.step[k];
    if (step == 0) continue;
    copy(padded[k], row.in[k] + groups * step, (step >> log2_lanes) * rest);
    tail.in[k] = padded[k];
  }
  tail.out = result;
  tail.groups = 1;
  instance.row(tail);
  copy(row.out + groups * instance.group_bytes(instance.out_size), result,
       rest * instance.out_size);
}

static void run_range(const Loop& loop, const Instance& instance, char* out, size_t begin,
                      size_t end) {
  Window windows[kMaxOperands];
  Row row = {};
  for (size_t position = begin; position < end;) {
    size_t n = min(loop.block, end - position);
    if (loop.by_row && loop.rank > 1) n = min(n, loop.row() - position % loop.row());
    for (uint32_t k = 0; k < loop.operands; ++k)
      windows[k].open(loop, k, position, n, instance, row);
    row.out = out + position * instance.out_size;
    run_row(instance, row, n);
    position += n;
  }
}

// Calls body(begin, end) for parts of [0, count) that begin at multiples of `unit`.
template <class Body>
ORTOLAN_INLINE static void split(const Context& c, size_t count, size_t unit, bool costly,
                                 const Body& body) {
  const size_t units = count / unit + (count % unit != 0);
  const size_t grain = (costly ? 16384 : 65536) / unit;
  c.parallel(units, max<size_t>(grain, 1),
             [&](size_t begin, size_t end, size_t) { body(begin * unit, min(end * unit, count)); });
}

// Output 0 = the functor `op` over the first inputs.
ORTOLAN_SMALL static Status apply(Context& c, RowFunction row, const void* op, Form form) {
  const Slot& output = c.output(0);
  if (element_count(output.shape) == 0) return Status::kOk;
  const Instance instance = {row, op, form, static_cast<uint8_t>(element_size(output.type))};
  const Slot* inputs[kMaxOperands];
  for (uint32_t k = 0; k < form.operands; ++k) inputs[k] = &c.input(k);
  if (form.swapped) swap(inputs[0], inputs[1]);
  Loop loop;
  make_loop(loop, inputs, form.operands, output);
  char* out = static_cast<char*>(output.data);
  split(c, loop.count, loop.unit, form.costly,
        [&](size_t begin, size_t end) { run_range(loop, instance, out, begin, end); });
  // Hides that the answer is always the same: the hundreds of callers are then plain jumps.
  Status status = Status::kOk;
  asm("" : "+r"(status));
  return status;
}

}  // namespace ortolan::ORTOLAN_ISA
