// Casts between strings and numbers.
#pragma once

#include "core/context.h"

namespace ortolan::portable {

// Input 0 or output 0, or both, are strings.
Status cast_texts(Context& c);

}  // namespace ortolan::portable
