// What the core asks of the system. native/platform/<system>.cc implements it.
#pragma once

#include "core/memory.h"

namespace ortolan::platform {

// Whether there are files at all.
#if defined(__wasm__) && !defined(ORTOLAN_WASI)
constexpr bool kHasFiles = false;
#else
constexpr bool kHasFiles = true;
#endif

// Memory of so many bytes and more is made of large pages; 0: no such thing.
#if defined(__linux__) && !defined(__ANDROID__)
constexpr size_t kLargePage = 2 * 1024 * 1024;
#else
constexpr size_t kLargePage = 0;
#endif

// Nobody will read what whole pages within this memory hold; they need not be kept.
void discard(void* memory, size_t bytes);

Allocator default_allocator();

// The highest instruction set level of this library that the machine can run (Row::target).
uint8_t instruction_set_level();
const char* instruction_set_name(uint8_t level);

// Processors that this process may use.
uint32_t processors();

// Starts a thread that is never joined. False when the system has no threads or refuses.
bool start_thread(void (*entry)(void*), void* argument);
// Calls `handler` in the child of a fork.
void on_fork(void (*handler)());

// Sleeps while *address == value; may wake early. wake_all wakes every sleeper on the address.
void wait(const uint32_t* address, uint32_t value);
void wake_all(const uint32_t* address);

// The processor that this thread runs on; always 0 where the system does not say.
uint32_t processor();
// Lets others who wait for this processor have it.
void yield();

// Nanoseconds of a steady clock.
uint64_t nanoseconds();

struct Mapping {
  const uint8_t* data = nullptr;
  size_t size = 0;
};
// Maps a whole file for reading. False with an errno-like reason in *reason.
bool map_file(const char* path, Mapping* mapping, int* reason);
// The same for a file inside a folder, "" being the current one. `path` has no ".." in it; where
// the system can tell, a symbolic link on it is refused with the reason kIsLink.
constexpr int kIsLink = 40;
bool map_file_inside(const char* folder, const char* path, Mapping* mapping, int* reason);
void unmap_file(const Mapping& mapping);

// Denormal results and operands of this thread count as zero between the two calls.
uint32_t flush_denormals();
void restore_denormals(uint32_t state);

}  // namespace ortolan::platform
