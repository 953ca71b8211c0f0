// Windows, over kernel32 and the system's wait on an address (Windows 8 and later).
#include "platform/joined.h"
#include "platform/processor.h"

#define ORTOLAN_IMPORT extern "C" __declspec(dllimport)
using Handle = void*;
ORTOLAN_IMPORT Handle __stdcall GetProcessHeap();
ORTOLAN_IMPORT void* __stdcall HeapAlloc(Handle heap, uint32_t flags, size_t bytes);
ORTOLAN_IMPORT int __stdcall HeapFree(Handle heap, uint32_t flags, void* memory);
ORTOLAN_IMPORT Handle __stdcall CreateThread(void* attributes, size_t stack,
                                             uint32_t(__stdcall* entry)(void*), void* argument,
                                             uint32_t flags, uint32_t* id);
ORTOLAN_IMPORT int __stdcall CloseHandle(Handle handle);
ORTOLAN_IMPORT int __stdcall GetModuleHandleExW(uint32_t flags, const wchar_t* name,
                                                Handle* module);
ORTOLAN_IMPORT uint32_t __stdcall GetActiveProcessorCount(uint16_t group);
ORTOLAN_IMPORT int __stdcall SwitchToThread();
ORTOLAN_IMPORT int __stdcall QueryPerformanceCounter(int64_t* count);
ORTOLAN_IMPORT int __stdcall QueryPerformanceFrequency(int64_t* frequency);
ORTOLAN_IMPORT int __stdcall MultiByteToWideChar(uint32_t page, uint32_t flags, const char* text,
                                                 int bytes, wchar_t* wide, int count);
ORTOLAN_IMPORT Handle __stdcall CreateFileW(const wchar_t* path, uint32_t access, uint32_t share,
                                            void* security, uint32_t creation, uint32_t flags,
                                            Handle like);
ORTOLAN_IMPORT int __stdcall GetFileSizeEx(Handle file, int64_t* size);
ORTOLAN_IMPORT Handle __stdcall CreateFileMappingW(Handle file, void* security, uint32_t protection,
                                                   uint32_t high, uint32_t low,
                                                   const wchar_t* name);
ORTOLAN_IMPORT void* __stdcall MapViewOfFile(Handle mapping, uint32_t access, uint32_t high,
                                             uint32_t low, size_t bytes);
ORTOLAN_IMPORT int __stdcall UnmapViewOfFile(const void* memory);
ORTOLAN_IMPORT uint32_t __stdcall GetLastError();
ORTOLAN_IMPORT int __stdcall WaitOnAddress(const void* address, const void* value, size_t bytes,
                                           uint32_t milliseconds);
ORTOLAN_IMPORT void __stdcall WakeByAddressAll(void* address);

extern "C" {
int _fltused = 0;  // the compiler refers to it wherever there are floats
int __stdcall DllMainCRTStartup(void*, uint32_t, void*) { return 1; }
}

namespace ortolan::platform {

namespace {

// The heap aligns to 16; what it gave stands before the aligned bytes.
void* allocate(void*, size_t bytes) {
  if (bytes > SIZE_MAX - 2 * kAlignment) return nullptr;
  char* block = static_cast<char*>(HeapAlloc(GetProcessHeap(), 0, bytes + 2 * kAlignment));
  if (!block) return nullptr;
  uintptr_t at = (reinterpret_cast<uintptr_t>(block) / kAlignment + 1) * kAlignment;
  void** memory = reinterpret_cast<void**>(at);
  memory[-1] = block;
  return memory;
}
void release(void*, void* memory, size_t) {
  HeapFree(GetProcessHeap(), 0, static_cast<void**>(memory)[-1]);
}

struct Start {
  void (*entry)(void*);
  void* argument;
};
uint32_t __stdcall run_thread(void* memory) {
  Start copy = *static_cast<Start*>(memory);
  release(nullptr, memory, sizeof(Start));
  copy.entry(copy.argument);
  return 0;
}

// As errno has them, for the codes that a file can give.
int reason_of(uint32_t error) {
  constexpr uint32_t kFileNotFound = 2, kPathNotFound = 3, kAccessDenied = 5, kNoMemory = 8;
  if (error == kFileNotFound || error == kPathNotFound) return 2;
  if (error == kAccessDenied) return 13;
  return error == kNoMemory ? 12 : 5;
}

// UTF-8 to what Windows takes; null when memory is out or the text is no UTF-8.
wchar_t* widen(const char* path, size_t* bytes) {
  constexpr uint32_t kUtf8 = 65001, kInvalid = 8;
  int count = MultiByteToWideChar(kUtf8, kInvalid, path, -1, nullptr, 0);
  if (count <= 0) return nullptr;
  *bytes = static_cast<size_t>(count) * sizeof(wchar_t);
  auto* wide = static_cast<wchar_t*>(allocate(nullptr, *bytes));
  if (wide) MultiByteToWideChar(kUtf8, kInvalid, path, -1, wide, count);
  return wide;
}

}  // namespace

Allocator default_allocator() { return {nullptr, allocate, release}; }

uint32_t processors() {
  uint32_t n = GetActiveProcessorCount(0xffff);
  return n ? n : 1;
}

bool start_thread(void (*entry)(void*), void* argument) {
  Start* start = static_cast<Start*>(allocate(nullptr, sizeof(Start)));
  if (!start) return false;
  *start = {entry, argument};
  // The library stays, even if it is freed: the thread is in it until the process ends.
  constexpr uint32_t kPinByAddress = 5;
  Handle self = nullptr;
  GetModuleHandleExW(kPinByAddress, reinterpret_cast<const wchar_t*>(run_thread), &self);
  Handle thread = CreateThread(nullptr, 0, run_thread, start, 0, nullptr);
  if (!thread) release(nullptr, start, sizeof(Start));
  if (thread) CloseHandle(thread);
  return thread != nullptr;
}

void on_fork(void (*)()) {}

void wait(const uint32_t* address, uint32_t value) {
  WaitOnAddress(address, &value, sizeof(value), 0xffffffff);
}
void wake_all(const uint32_t* address) { WakeByAddressAll(const_cast<uint32_t*>(address)); }
uint32_t processor() { return 0; }
void yield() { SwitchToThread(); }

uint64_t nanoseconds() {
  int64_t count = 0, frequency = 0;
  if (!QueryPerformanceCounter(&count) || !QueryPerformanceFrequency(&frequency)) return 0;
  constexpr uint64_t kSecond = 1000000000u;
  uint64_t ticks = static_cast<uint64_t>(count), rate = static_cast<uint64_t>(frequency);
  return ticks / rate * kSecond + ticks % rate * kSecond / rate;
}

bool map_file(const char* path, Mapping* mapping, int* reason) {
  constexpr uint32_t kRead = 0x80000000u, kShareRead = 1, kOpen = 3, kReadOnly = 2, kMapRead = 4;
  const Handle none = reinterpret_cast<Handle>(-1);
  size_t bytes = 0;
  wchar_t* wide = widen(path, &bytes);
  if (!wide) {
    *reason = 2;
    return false;
  }
  Handle file = CreateFileW(wide, kRead, kShareRead, nullptr, kOpen, 0, nullptr);
  uint32_t error = file == none ? GetLastError() : 0;
  release(nullptr, wide, bytes);
  int64_t size = 0;
  void* memory = nullptr;
  if (!error && !GetFileSizeEx(file, &size)) error = GetLastError();
  if (!error && size > 0) {
    Handle view = CreateFileMappingW(file, nullptr, kReadOnly, 0, 0, nullptr);
    if (view) memory = MapViewOfFile(view, kMapRead, 0, 0, 0);
    if (!memory) error = GetLastError();
    if (view) CloseHandle(view);
  }
  if (file != none) CloseHandle(file);
  if (error) {
    *reason = reason_of(error);
    return false;
  }
  *mapping = {static_cast<const uint8_t*>(memory), static_cast<size_t>(size)};
  return true;
}

bool map_file_inside(const char* folder, const char* path, Mapping* mapping, int* reason) {
  return map_joined(folder, path, mapping, reason);
}

void unmap_file(const Mapping& mapping) {
  if (mapping.data) UnmapViewOfFile(mapping.data);
}

}  // namespace ortolan::platform
