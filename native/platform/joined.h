// map_file_inside for systems where links cannot be told apart.
#pragma once

#include "core/platform.h"

namespace ortolan::platform {

inline bool map_joined(const char* folder, const char* path, Mapping* mapping, int* reason) {
  constexpr size_t kMaxPath = 8192;
  char joined[kMaxPath];
  size_t n = 0;
  const char* const parts[] = {folder, path};
  for (const char* part : parts)
    for (; *part && n + 1 < kMaxPath; ++part) joined[n++] = *part;
  joined[n] = 0;
  return map_file(joined, mapping, reason);
}

}  // namespace ortolan::platform
