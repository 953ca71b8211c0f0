// Ways of computing that a kernel has besides its general one. The catalog names them; the registry
// says in ortolan_variants.h which of them this build has. `prepare` chooses (kernels/variant.h).
#pragma once

#include <stdint.h>

namespace ortolan {

struct Variant {
  uint8_t number;
  bool is_built;
};

// Part of a kernel's state: whether the node uses a variant. Where the build lacks it the answer is
// no at compile time, so that what only the variant calls is not linked.
template <Variant V>
struct Choice {
  bool is_chosen = false;
  [[gnu::always_inline]] operator bool() const { return V.is_built && is_chosen; }
};

}  // namespace ortolan
