// WebAssembly without an operating system: a first-fit allocator over the linear memory, one
// thread.
#include "core/platform.h"

extern "C" unsigned char __heap_base;

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

void* allocate(void*, size_t bytes) {
  if (bytes > SIZE_MAX - kAlignment) return nullptr;
  size_t size = max(round_up(bytes, kAlignment), kAlignment);
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

void release(void*, void* memory, size_t bytes) {
  Block* block = static_cast<Block*>(memory);
  block->size = max(round_up(bytes, kAlignment), kAlignment);
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
uint32_t processors() { return 1; }
bool start_thread(void (*)(void*), void*) { return false; }
void on_fork(void (*)()) {}
void wait(const uint32_t*, uint32_t) {}
void wake_all(const uint32_t*) {}
uint64_t nanoseconds() { return 0; }
bool map_file(const char*, Mapping*, int* reason) {
  *reason = 38;  // not implemented: the page hands over bytes
  return false;
}
bool map_file_inside(const char*, const char* path, Mapping* mapping, int* reason) {
  return map_file(path, mapping, reason);
}
void unmap_file(const Mapping&) {}
uint32_t flush_denormals() { return 0; }
void restore_denormals(uint32_t) {}

}  // namespace ortolan::platform
