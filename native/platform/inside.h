// map_file_inside for systems that open a file by the folder that it is in, and tell links.
#pragma once

#include "core/platform.h"

namespace ortolan::platform {

// Folder by folder, none of them through a link. `System` opens the first one and what is in one,
// answers a descriptor or an error below 0, and maps and closes what it opened.
template <class System>
bool map_below(const char* folder, const char* path, Mapping* mapping, int* reason) {
  long at = System::open_folder(folder[0] ? folder : ".");
  while (at >= 0) {
    char part[256];
    size_t n = 0;
    while (*path == '/') ++path;
    while (path[n] && path[n] != '/' && n + 1 < sizeof(part)) part[n] = path[n], ++n;
    part[n] = 0;
    path += n;
    const bool is_last = *path == 0;
    const long next =
        n + 1 < sizeof(part) ? System::open_inside(at, part, is_last) : System::kTooLong;
    System::close(at);
    if (is_last) return System::map(next, mapping, reason);
    at = next;
  }
  *reason = static_cast<int>(-at);
  return false;
}

}  // namespace ortolan::platform
