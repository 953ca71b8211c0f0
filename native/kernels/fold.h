// Operators of any number of inputs, folded two at a time. A piece of the result is complete before
// it is stored, so the output may lie on any of the inputs.
#pragma once

#include "kernels/elementwise.h"

namespace ortolan::ORTOLAN_ISA {

struct FoldPlan {
  static constexpr size_t kLoops = 8;
  Loop loops[kLoops];  // of the first inputs; others are rare and made for each piece
  Instance step, last;
};

// The piece of input `k` at `position`, as the row's operand 0.
static void open_input(const Context& c, const FoldPlan& plan, size_t k, size_t position, size_t n,
                       Window& window, Row& row) {
  window.repeated = 0;
  if (k < FoldPlan::kLoops) return window.open(plan.loops[k], 0, position, n, plan.step, row);
  const Slot* slot = &c.input(k);
  Loop loop;
  make_loop(loop, &slot, 1, c.output(0));
  loop.by_row = false;
  window.open(loop, 0, position, n, plan.step, row);
}

static void fold_piece(const Context& c, const FoldPlan& plan, size_t position, size_t n) {
  Window windows[2];
  alignas(64) char sum[kBlock * 8];
  const size_t inputs = c.input_count(), size = plan.step.out_size;
  Row row = {};
  open_input(c, plan, 0, position, n, windows[0], row);
  const char* first = row.in[0];
  size_t first_step = row.step[0];
  for (size_t k = 1; k < inputs; ++k) {
    open_input(c, plan, k, position, n, windows[1], row);
    row.in[1] = row.in[0];
    row.step[1] = row.step[0];
    row.in[0] = first;
    row.step[0] = first_step;
    const bool final = k + 1 == inputs;
    row.out = final ? c.output_data<char>(0) + position * size : sum;
    run_row(final ? plan.last : plan.step, row, n);
    first = sum;
    first_step = plan.step.group_bytes(size);
  }
}

// out = last(step(step(in 0, in 1), in 2)..., in n - 1)
ORTOLAN_SMALL static Status fold(Context& c, RowFunction step, RowFunction last, const void* op,
                                 Form form) {
  const Slot& output = c.output(0);
  const size_t count = element_count(output.shape), inputs = c.input_count();
  const uint8_t size = static_cast<uint8_t>(element_size(output.type));
  if (inputs == 0) return c.invalid("there are no inputs");
  if (inputs == 1 && count > 0 && c.input(0).data != output.data)
    copy(output.data, c.input(0).data, count * size);
  if (inputs == 1 || count == 0) return Status::kOk;
  if (inputs == 2) return apply(c, last, op, form);
  FoldPlan plan;
  plan.step = {step, op, form, size};
  plan.last = {last, op, form, size};
  for (size_t k = 0; k < min(inputs, FoldPlan::kLoops); ++k) {
    const Slot* slot = &c.input(k);
    make_loop(plan.loops[k], &slot, 1, output);
    plan.loops[k].by_row = false;  // pieces are not those of this loop: a row may end in one
  }
  split(c, count, kBlock, false, [&](size_t begin, size_t end) {
    for (size_t position = begin; position < end; position += kBlock)
      fold_piece(c, plan, position, min(kBlock, end - position));
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
