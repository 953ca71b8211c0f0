// WebAssembly: a first-fit allocator over the linear memory. Without an operating system the page
// hands over bytes and the time; threads, where the build has them, are workers that the page
// starts. Under WASI files and the clock are its calls.
#include "core/platform.h"

extern "C" {
extern unsigned char __heap_base;

// Called for products that may exceed 64 bits, whose type has no name in C++.
__extension__ typedef __int128 Wide;
[[gnu::weak, gnu::visibility("hidden")]] Wide __multi3(uint64_t a, uint64_t a_high, uint64_t b,
                                                       uint64_t b_high) {
  constexpr uint64_t kLow = 0xffffffffu;
  uint64_t low = (a & kLow) * (b & kLow), left = (a >> 32) * (b & kLow);
  uint64_t right = (a & kLow) * (b >> 32), middle = (low >> 32) + (left & kLow) + (right & kLow);
  union {
    uint64_t words[2];
    Wide wide;
  } result;
  result.words[0] = (low & kLow) | middle << 32;
  result.words[1] = (a >> 32) * (b >> 32) + (left >> 32) + (right >> 32) + (middle >> 32) +
                    a_high * b + a * b_high;
  return result.wide;
}

#define ORTOLAN_IMPORT(name) [[clang::import_module("ortolan"), clang::import_name(name)]]
#if !defined(ORTOLAN_WASI)
// Milliseconds of a steady clock: performance.now.
ORTOLAN_IMPORT("now") double ortolan_import_now();
#endif
#if defined(__wasm_atomics__)
ORTOLAN_IMPORT("processors") uint32_t ortolan_import_processors();
// Asks for a worker that calls ortolan_thread(entry, argument) with a stack of its own.
ORTOLAN_IMPORT("start_thread")
int32_t ortolan_import_start_thread(void (*entry)(void*), void* argument);
// Atomics.wait where the thread may; returns at once on the main thread of a page.
ORTOLAN_IMPORT("wait") void ortolan_import_wait(const uint32_t* address, uint32_t value);
[[gnu::visibility("default"), gnu::used]] void ortolan_thread(void (*entry)(void*),
                                                              void* argument) {
  entry(argument);
}
#endif
}

namespace ortolan::platform {

namespace {

constexpr size_t kPage = 65536;

// Free blocks in address order, merged with their neighbours; sizes are multiples of kAlignment.
struct Block {
  size_t size;
  Block* next;
};
Block* free_blocks = nullptr;
uintptr_t top = 0;  // end of the memory handed out so far

#if defined(__wasm_atomics__)
// The main thread of a page may not wait, so whoever finds the lock taken spins.
uint32_t taken = 0;
void lock() {
  while (__atomic_exchange_n(&taken, 1, __ATOMIC_ACQUIRE)) {
  }
}
void unlock() { __atomic_store_n(&taken, 0, __ATOMIC_RELEASE); }
#else
void lock() {}
void unlock() {}
#endif

void* grow(size_t bytes) {
  if (top == 0) top = round_up(reinterpret_cast<uintptr_t>(&__heap_base), kAlignment);
  size_t have = __builtin_wasm_memory_size(0) * kPage;
  if (bytes > SIZE_MAX - top) return nullptr;
  if (top + bytes > have) {
    size_t pages = (top + bytes - have + kPage - 1) / kPage;
    if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return nullptr;
  }
  void* memory = reinterpret_cast<void*>(top);
  top += bytes;
  return memory;
}

void* take(size_t size) {
  for (Block** link = &free_blocks; *link; link = &(*link)->next) {
    Block* block = *link;
    if (block->size < size) continue;
    if (block->size == size) {
      *link = block->next;
    } else {
      Block* rest = reinterpret_cast<Block*>(reinterpret_cast<char*>(block) + size);
      *rest = {block->size - size, block->next};
      *link = rest;
    }
    return block;
  }
  return grow(size);
}

void* allocate(void*, size_t bytes) {
  if (bytes > SIZE_MAX - kAlignment) return nullptr;
  lock();
  void* memory = take(max(round_up(bytes, kAlignment), kAlignment));
  unlock();
  return memory;
}

void give_back(Block* block) {
  Block** link = &free_blocks;
  while (*link && *link < block) link = &(*link)->next;
  block->next = *link;
  *link = block;
  auto end = [](Block* b) {
    return reinterpret_cast<Block*>(reinterpret_cast<char*>(b) + b->size);
  };
  if (block->next && end(block) == block->next) {
    block->size += block->next->size;
    block->next = block->next->next;
  }
  for (Block* b = free_blocks; b && b < block; b = b->next) {
    if (end(b) != block) continue;
    b->size += block->size;
    b->next = block->next;
    break;
  }
}

void release(void*, void* memory, size_t bytes) {
  Block* block = static_cast<Block*>(memory);
  lock();
  block->size = max(round_up(bytes, kAlignment), kAlignment);
  give_back(block);
  unlock();
}

}  // namespace

Allocator default_allocator() { return {nullptr, allocate, release}; }
uint8_t instruction_set_level() { return 0; }
const char* instruction_set_name(uint8_t) {
#if defined(__wasm_relaxed_simd__)
  return "wasm_relaxed";
#else
  return "wasm";
#endif
}
#if defined(__wasm_atomics__)
uint32_t processors() { return ortolan_import_processors(); }
bool start_thread(void (*entry)(void*), void* argument) {
  return ortolan_import_start_thread(entry, argument) != 0;
}
void wait(const uint32_t* address, uint32_t value) { ortolan_import_wait(address, value); }
void wake_all(const uint32_t* address) {
  __builtin_wasm_memory_atomic_notify(const_cast<int*>(reinterpret_cast<const int*>(address)), ~0u);
}
#else
uint32_t processors() { return 1; }
bool start_thread(void (*)(void*), void*) { return false; }
void wait(const uint32_t*, uint32_t) {}
void wake_all(const uint32_t*) {}
#endif
uint32_t processor() { return 0; }
void yield() {}
void on_fork(void (*)()) {}
uint32_t flush_denormals() { return 0; }
void restore_denormals(uint32_t) {}

#if !defined(ORTOLAN_WASI)
uint64_t nanoseconds() { return static_cast<uint64_t>(ortolan_import_now() * 1e6); }
bool map_file(const char*, Mapping*, int* reason) {
  *reason = 38;  // not implemented: the page hands over bytes
  return false;
}
bool map_file_inside(const char*, const char* path, Mapping* mapping, int* reason) {
  return map_file(path, mapping, reason);
}
void unmap_file(const Mapping&) {}
#endif

}  // namespace ortolan::platform
