// The choice of a kernel's variants in `prepare`, and its record for `ortolan config`.
#pragma once

#include "core/context.h"
#include "kernels/simd.h"
#include "ortolan_variants.h"

namespace ortolan::ORTOLAN_ISA {

// Notes that a node uses a variant if `applies(lanes)`, which must follow from attributes, from
// types and shapes of constants, and from the floats of a vector alone: what another machine would
// choose is noted here. Where a constant would tell but there is none, a variant applies that may.
template <Variant V, class Applies>
ORTOLAN_INLINE void note([[maybe_unused]] Context& c, [[maybe_unused]] const Applies& applies) {
  if constexpr (kRecordsVariants) {
    const size_t lanes = c.recorded_lanes();
    if (lanes && applies(static_cast<int>(lanes))) c.record_variant(V.number);
  }
}

// Makes a choice in the same way, for this machine.
template <Variant V, class Applies>
ORTOLAN_INLINE void choose(Context& c, Choice<V>* choice, const Applies& applies) {
  choice->is_chosen = applies(kLanes);
  note<V>(c, applies);
}

}  // namespace ortolan::ORTOLAN_ISA
