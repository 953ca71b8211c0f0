#include "core/memory.h"

namespace ortolan {

namespace {
constexpr size_t kChunk = 16 * 1024;
constexpr size_t kHeader = kAlignment;
}  // namespace

void* Zone::allocate(size_t bytes, size_t alignment) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  size_t at = round_up(reinterpret_cast<uintptr_t>(cursor_), alignment);
  if (cursor_ && at + bytes <= reinterpret_cast<uintptr_t>(limit_)) {
    cursor_ = reinterpret_cast<char*>(at + bytes);
    return reinterpret_cast<void*>(at);
  }
  bool own = bytes > kChunk / 4;
  size_t size = kHeader + (own ? round_up(bytes, kAlignment) : kChunk);
  char* memory = static_cast<char*>(allocator_.get(size));
  if (!memory) return nullptr;
  fill_zero(memory, size);
  Chunk* chunk = reinterpret_cast<Chunk*>(memory);
  *chunk = {chunks_, size};
  chunks_ = chunk;
  bytes_ += size;
  if (own) return memory + kHeader;
  cursor_ = memory + kHeader + bytes;
  limit_ = memory + size;
  return memory + kHeader;
}

void Zone::reset() {
  while (chunks_) {
    Chunk* next = chunks_->next;
    allocator_.put(chunks_, chunks_->bytes);
    chunks_ = next;
  }
  cursor_ = limit_ = nullptr;
  bytes_ = 0;
}

}  // namespace ortolan

// The compiler may call these although nothing here asks for a C library. Written with inline
// assembly barriers or builtins that cannot become calls to themselves.
extern "C" {
#if !defined(__wasm_bulk_memory__)
[[gnu::weak, gnu::visibility("hidden")]] void* memcpy(void* __restrict to,
                                                      const void* __restrict from, size_t bytes) {
  char* d = static_cast<char*>(to);
  const char* s = static_cast<const char*>(from);
#if defined(__x86_64__)
  void* result = to;
  __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(bytes) : : "memory");
  return result;
#else
  typedef uint64_t Word __attribute__((aligned(1), may_alias));
  while (bytes >= 8) {
    *reinterpret_cast<Word*>(d) = *reinterpret_cast<const Word*>(s);
    __asm__ volatile("" : "+r"(d), "+r"(s), "+r"(bytes) : : "memory");
    d += 8, s += 8, bytes -= 8;
  }
  while (bytes--) {
    *d++ = *s++;
    __asm__ volatile("" : "+r"(d), "+r"(s) : : "memory");
  }
  return to;
#endif
}
[[gnu::weak, gnu::visibility("hidden")]] void* memset(void* to, int value, size_t bytes) {
  char* d = static_cast<char*>(to);
#if defined(__x86_64__)
  __asm__ volatile("rep stosb" : "+D"(d), "+c"(bytes) : "a"(value) : "memory");
#else
  while (bytes--) {
    *d++ = static_cast<char>(value);
    __asm__ volatile("" : "+r"(d) : : "memory");
  }
#endif
  return to;
}
#endif
[[gnu::weak, gnu::visibility("hidden")]] void* memmove(void* to, const void* from, size_t bytes) {
  char* d = static_cast<char*>(to);
  const char* s = static_cast<const char*>(from);
  if (d <= s || d >= s + bytes) return __builtin_memcpy(to, from, bytes);
  while (bytes--) {
    d[bytes] = s[bytes];
    __asm__ volatile("" : "+r"(d), "+r"(s) : : "memory");
  }
  return to;
}
}
