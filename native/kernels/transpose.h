// Transpose, and ChangeLayout: the same with the identity permutation. Input and output may each be
// plain or channels_last; what is carried out is the permutation between the two orders in memory.
#pragma once

#include "kernels/transpose_block.h"

namespace ortolan::portable {

struct Transpose {
  struct Permutation {
    uint32_t rank = 0;  // 0: no perm given, the dimensions are reversed
    uint32_t axes[kMaxRank] = {};
  };

  static Status prepare(Context& c) {
    Permutation* state = c.make_state<Permutation>();
    if (!state) return c.out_of_memory();
    const Span<const int64_t> perm = c.attribute_ints("perm");
    if (perm.size > kMaxRank) return c.invalid("perm has more than % axes", kMaxRank);
    state->rank = static_cast<uint32_t>(perm.size);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < state->rank; ++i) {
      if (perm[i] < 0 || perm[i] >= state->rank || seen >> perm[i] & 1)
        return c.invalid("perm % is not a permutation", perm);
      seen |= 1u << perm[i];
      state->axes[i] = static_cast<uint32_t>(perm[i]);
    }
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const Permutation perm = permutation(c);
    const Shape& input = c.input_shape(0);
    if (perm.rank != input.rank)
      return c.invalid("perm has % axes for the input %", perm.rank, input.span());
    return set_permuted(c, perm);
  }

  template <class Word>
  static Status run(Context& c) {
    return permute(c, permutation(c), transpose_block<Word>);
  }

 protected:
  static Status set_permuted(Context& c, const Permutation& perm) {
    Shape shape;
    for (uint32_t i = 0; i < perm.rank; ++i) shape.append(c.input_shape(0)[perm.axes[i]]);
    ORTOLAN_TRY(c.set_output(0, shape));
    if (plan(c, perm).contiguous()) c.alias(0, 0);
    return Status::kOk;
  }

  static Status permute(Context& c, const Permutation& perm, BlockFunction transpose) {
    Nest nest = plan(c, perm);
    copy_strided(c, nest, word_size(c), c.input_data<char>(0), c.output_data<char>(0), transpose);
    return Status::kOk;
  }

 private:
  static Permutation permutation(Context& c) {
    Permutation perm = c.state<Permutation>();
    if (perm.rank > 0) return perm;
    perm.rank = c.input_shape(0).rank;
    for (uint32_t i = 0; i < perm.rank; ++i) perm.axes[i] = perm.rank - 1 - i;
    return perm;
  }

  static Nest plan(Context& c, const Permutation& perm) {
    const Dense from = Dense::input(c, 0), to = Dense::output(c, 0);
    Nest nest;
    for (uint32_t i = 0; i < perm.rank; ++i)
      nest.add(to.size(i), from.strides[from.place(perm.axes[to.order[i]])], to.strides[i]);
    return nest;
  }
};

struct ChangeLayout : Transpose {
  static Status infer(Context& c) { return set_permuted(c, identity(c)); }
  template <class Word>
  static Status run(Context& c) {
    return permute(c, identity(c), transpose_block<Word>);
  }

 private:
  static Permutation identity(Context& c) {
    Permutation perm;
    perm.rank = c.input_shape(0).rank;
    for (uint32_t i = 0; i < perm.rank; ++i) perm.axes[i] = i;
    return perm;
  }
};

}  // namespace ortolan::portable
