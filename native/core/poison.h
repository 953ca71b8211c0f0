// In builds with AddressSanitizer, marks memory inside the runtime's own pools that nobody may
// touch at the moment; otherwise nothing. It finds what a sanitizer cannot see by itself: a kernel
// that reads or writes beyond its tensors in the arena.
#pragma once

#include "core/base.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ORTOLAN_POISON 1
extern "C" void __asan_poison_memory_region(const volatile void* memory, size_t bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void* memory, size_t bytes);
#endif
#endif

namespace ortolan {

#if defined(ORTOLAN_POISON)
inline void poison(const void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void unpoison(const void* memory, size_t bytes) {
  __asan_unpoison_memory_region(memory, bytes);
}
#else
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

}  // namespace ortolan
