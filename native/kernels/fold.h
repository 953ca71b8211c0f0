// Operators of any number of inputs, folded two at a time. A piece of the result is complete before
// it is stored, so the output may lie on any of the inputs.
#pragma once

#include "kernels/elementwise.h"

namespace ortolan::ORTOLAN_ISA {

// The piece of input `k` at `position`, as operand `operand` of the row.
static void open_input(const Context& c, size_t k, const Instance& instance, size_t position,
                       size_t n, Window& window, uint32_t operand, Row& row) {
  const Slot* slot = &c.input(k);
  Loop loop;
  make_loop(loop, &slot, 1, c.output(0));
  loop.by_row = false;  // pieces are not those of this loop: its row may end in the middle
  window.open(loop, 0, position, n, instance, row);
  if (operand == 0) return;
  row.in[operand] = row.in[0];
  row.step[operand] = row.step[0];
}

static void fold_piece(const Context& c, const Instance& step, const Instance& last,
                       size_t position, size_t n) {
  Window windows[2];
  alignas(64) char sum[kBlock * 8];
  const size_t inputs = c.input_count();
  Row row = {};
  open_input(c, 0, step, position, n, windows[0], 0, row);
  const char* first = row.in[0];
  size_t first_step = row.step[0];
  for (size_t k = 1; k < inputs; ++k) {
    open_input(c, k, step, position, n, windows[1], 1, row);
    windows[1].repeated = 0;
    row.in[0] = first;
    row.step[0] = first_step;
    const bool final = k + 1 == inputs;
    row.out = final ? c.output_data<char>(0) + position * step.out_size : sum;
    run_row(final ? last : step, row, n);
    first = sum;
    first_step = step.group_bytes(step.out_size);
  }
}

// out = last(step(step(in 0, in 1), in 2)..., in n - 1)
ORTOLAN_SMALL static Status fold(Context& c, RowFunction step, RowFunction last, const void* op,
                                 Form form) {
  const Slot& output = c.output(0);
  const size_t count = element_count(output.shape), inputs = c.input_count();
  const uint8_t size = static_cast<uint8_t>(element_size(output.type));
  if (inputs == 0) return c.invalid("there are no inputs");
  for (size_t k = 0; k < inputs; ++k)
    if (!c.has_input(k)) return c.invalid("input ", k, " is missing");
  if (inputs == 1 && count > 0 && c.input(0).data != output.data)
    copy(output.data, c.input(0).data, count * size);
  if (inputs == 1 || count == 0) return Status::kOk;
  if (inputs == 2) return apply(c, last, op, form);
  const Instance first_steps = {step, op, form, size}, last_step = {last, op, form, size};
  split(c, count, kBlock, false, [&](size_t begin, size_t end) {
    for (size_t position = begin; position < end; position += kBlock)
      fold_piece(c, first_steps, last_step, position, min(kBlock, end - position));
  });
  return Status::kOk;
}

template <class Op>
struct Fold {
  template <class T>
  static Status run(Context& c) {
    using V = Lanes<Stored<T>>;
    return fold(c, binary_row<Op, V, T>, binary_row<Op, V, T>, nullptr, form_of<V>(2));
  }
};

}  // namespace ortolan::ORTOLAN_ISA
