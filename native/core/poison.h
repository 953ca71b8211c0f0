// Marks memory inside the runtime's own pools that nobody may touch at the moment. In builds with
// AddressSanitizer it cannot be touched: that finds a kernel that reads or writes beyond its
// tensors. With ORTOLAN_POISON it is filled with NaN, so that whoever reads it gives other results:
// that finds values whose memory was given away too early. Otherwise nothing.
#pragma once

#include "core/base.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ORTOLAN_ASAN 1
extern "C" void __asan_poison_memory_region(const volatile void* memory, size_t bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void* memory, size_t bytes);
#endif
#endif

namespace ortolan {

#if defined(ORTOLAN_ASAN)
inline void poison(const void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void unpoison(const void* memory, size_t bytes) {
  __asan_unpoison_memory_region(memory, bytes);
}
#elif defined(ORTOLAN_POISON)
// All ones: NaN, or -1, or a bool that is none.
inline void poison(void* memory, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) static_cast<volatile uint8_t*>(memory)[i] = 0xff;
}
inline void unpoison(const void*, size_t) {}
#else
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

}  // namespace ortolan
