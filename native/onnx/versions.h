// What the reader knows of the standard's operator sets. Generated: src/ortolan/build/registry.py.
#pragma once

#include "core/registry.h"

namespace ortolan {

// By place in kOperators: bit v is set when version v of the domain changed the operator. 0 for
// operators that are not in the standard.
extern const uint32_t kSinceVersions[];
extern const uint8_t kNewestOpset, kNewestMlOpset;

}  // namespace ortolan
