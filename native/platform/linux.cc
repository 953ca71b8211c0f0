// Linux and Android: raw system calls, and symbols of the process for memory and threads. On Linux
// these are weak, so that the library itself needs nothing; Android's linker looks only into
// libraries that are named, and there the library needs libc.so.
#include "platform/inside.h"
#include "platform/processor.h"

#if defined(__ANDROID__)
#define ORTOLAN_SYSTEM
#else
#define ORTOLAN_SYSTEM [[gnu::weak]]
#endif

extern "C" {
ORTOLAN_SYSTEM int posix_memalign(void** memory, size_t alignment, size_t bytes);
ORTOLAN_SYSTEM void free(void* memory);
ORTOLAN_SYSTEM int pthread_create(unsigned long* thread, const void* attributes,
                                  void* (*entry)(void*), void* argument);
ORTOLAN_SYSTEM int pthread_detach(unsigned long thread);
ORTOLAN_SYSTEM int pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)());
}

namespace ortolan::platform {

namespace {

#if defined(__x86_64__)
enum Call : long {
  kClose = 3,
  kLseek = 8,
  kMmap = 9,
  kMunmap = 11,
  kSignalMask = 14,
  kYield = 24,
  kAdvise = 28,
  kFutex = 202,
  kAffinity = 204,
  kClock = 228,
  kOpenat = 257,
  kProcessor = 309,
};
long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
enum Call : long {
  kOpenat = 56,
  kClose = 57,
  kLseek = 62,
  kFutex = 98,
  kClock = 113,
  kAffinity = 123,
  kYield = 124,
  kSignalMask = 135,
  kProcessor = 168,
  kMunmap = 215,
  kMmap = 222,
  kAdvise = 233,
};
long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}
#elif defined(__arm__)
enum Call : long {
  kClose = 6,
  kLseek = 19,
  kMunmap = 91,
  kYield = 158,
  kSignalMask = 175,
  kMmap = 192,  // mmap2: the offset, always 0 here, counts pages
  kAdvise = 220,
  kFutex = 240,
  kAffinity = 242,
  kClock = 263,
  kOpenat = 322,
  kProcessor = 345,
};
long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d;
  register long r4 __asm__("r4") = e;
  register long r5 __asm__("r5") = f;
  // r7 holds the number, but may be the frame pointer.
  __asm__ volatile("mov r12, r7\n\tmov r7, %[number]\n\tsvc 0\n\tmov r7, r12"
                   : "+r"(r0)
                   : [number] "r"(number), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5)
                   : "r12", "memory");
  return r0;
}
#elif defined(__i386__)
enum Call : long {
  kClose = 6,
  kLseek = 19,
  kMunmap = 91,
  kYield = 158,
  kSignalMask = 175,
  kMmap = 192,  // mmap2: the offset counts pages
  kAdvise = 219,
  kFutex = 240,
  kAffinity = 242,
  kClock = 265,
  kOpenat = 295,
  kProcessor = 318,
};
// The sixth argument is 0 wherever it counts here; it would need the frame pointer.
long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  (void)f;
  long result;
  __asm__ volatile("push %%ebp\n\txor %%ebp, %%ebp\n\tint $0x80\n\tpop %%ebp"
                   : "=a"(result)
                   : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                   : "memory");
  return result;
}
#else
#error "system calls of this processor are missing"
#endif

#if defined(__ANDROID__)
constexpr bool has_memory() { return true; }
constexpr bool has_threads() { return true; }
constexpr bool has_fork() { return true; }
#else
bool has_memory() { return posix_memalign; }
bool has_threads() { return pthread_create && pthread_detach; }
bool has_fork() { return pthread_atfork; }
#endif

// Asks for large pages where they are whole within the memory: fewer faults when it is first
// written, and fewer misses of the TLB ever after. A system without them refuses; nothing is lost.
void advise_large_pages(void* memory, size_t bytes) {
  constexpr uintptr_t kPage = 2 * 1024 * 1024;
  constexpr long kHugePage = 14;
  const uintptr_t begin = round_up(reinterpret_cast<uintptr_t>(memory), kPage);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kPage - 1);
  if (begin < end)
    call(kAdvise, static_cast<long>(begin), static_cast<long>(end - begin), kHugePage);
}

void* allocate(void*, size_t bytes) {
  void* memory = nullptr;
  const size_t alignment = kLargePage && bytes >= kLargePage ? kLargePage : kAlignment;
  if (!has_memory() || posix_memalign(&memory, alignment, bytes ? bytes : 1) != 0) return nullptr;
  advise_large_pages(memory, bytes);
  return memory;
}

void release(void*, void* memory, size_t) { free(memory); }

// Signals that are for threads of the program: one that waits for them must not wait in vain. The
// others are for whoever causes them (faults, a profiler's), or the C library's own (32 to 34).
constexpr uint64_t bit(int signal) { return uint64_t{1} << (signal - 1); }
constexpr uint64_t kForProgram = ~(bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(27) |
                                   bit(31) | bit(32) | bit(33) | bit(34));
constexpr long kSetMask = 2;

constexpr long kFutexPrivate = 128, kFutexWait = 0, kFutexWake = 1;

}  // namespace

void discard(void* memory, size_t bytes) {
  constexpr uintptr_t kPage = 4096;
  constexpr long kDontNeed = 4, kNoHugePage = 15;
  const uintptr_t begin = round_up(reinterpret_cast<uintptr_t>(memory), kPage);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kPage - 1);
  if (begin >= end) return;
  // What is before it may be written later: then that must not bring the rest of a large page.
  constexpr long kAdvices[] = {kNoHugePage, kDontNeed};
  for (long advice : kAdvices)
    call(kAdvise, static_cast<long>(begin), static_cast<long>(end - begin), advice);
}

Allocator default_allocator() { return {nullptr, allocate, release}; }

uint32_t processors() {
  uint32_t mask[32] = {};
  long bytes = call(kAffinity, 0, sizeof(mask), reinterpret_cast<long>(mask));
  uint32_t n = 0;
  for (long i = 0; i < bytes / 4; ++i) n += static_cast<uint32_t>(__builtin_popcount(mask[i]));
  return n ? n : 1;
}

bool start_thread(void (*entry)(void*), void* argument) {
  if (!has_threads()) return false;
  struct Start {
    void (*entry)(void*);
    void* argument;
  };
  Start* start = static_cast<Start*>(allocate(nullptr, sizeof(Start)));
  if (!start) return false;
  *start = {entry, argument};
  unsigned long thread = 0;
  auto trampoline = [](void* memory) -> void* {
    Start copy = *static_cast<Start*>(memory);
    release(nullptr, memory, sizeof(Start));
    copy.entry(copy.argument);
    return nullptr;
  };
  const uint64_t mask = kForProgram;
  uint64_t before = 0;
  call(kSignalMask, kSetMask, reinterpret_cast<long>(&mask), reinterpret_cast<long>(&before),
       sizeof(mask));
  const int refused = pthread_create(&thread, nullptr, trampoline, start);
  call(kSignalMask, kSetMask, reinterpret_cast<long>(&before), 0, sizeof(before));
  if (refused) {
    release(nullptr, start, sizeof(Start));
    return false;
  }
  pthread_detach(thread);
  return true;
}

void on_fork(void (*handler)()) {
  if (has_fork()) pthread_atfork(nullptr, nullptr, handler);
}

void wait(const uint32_t* address, uint32_t value) {
  call(kFutex, reinterpret_cast<long>(address), kFutexWait | kFutexPrivate, value);
}

void wake_all(const uint32_t* address) {
  call(kFutex, reinterpret_cast<long>(address), kFutexWake | kFutexPrivate, 0x7fffffff);
}

uint32_t processor() {
  uint32_t number = 0;
  call(kProcessor, reinterpret_cast<long>(&number));
  return number;
}

void yield() { call(kYield); }

uint64_t nanoseconds() {
  long time[2] = {};
  call(kClock, 1, reinterpret_cast<long>(time));
  return static_cast<uint64_t>(time[0]) * 1000000000u + static_cast<uint64_t>(time[1]);
}

namespace {

constexpr long kHere = -100, kCloseOnExec = 02000000, kNoWait = 04000;

// Maps an open file, or one that could not be opened, and closes it.
bool map_opened(long file, Mapping* mapping, int* reason) {
  constexpr long kRead = 1, kPrivate = 2, kEnd = 2;
  if (file < 0) {
    *reason = static_cast<int>(-file);
    return false;
  }
  long size = call(kLseek, file, 0, kEnd);
  long memory = size > 0 ? call(kMmap, 0, size, kRead, kPrivate, file, 0) : size;
  call(kClose, file);
  if (size == 0) {
    *mapping = {};
    return true;
  }
  if (memory < 0 && memory > -4096) {
    *reason = static_cast<int>(-memory);
    return false;
  }
  *mapping = {reinterpret_cast<const uint8_t*>(memory), static_cast<size_t>(size)};
  return true;
}

struct System {
#if defined(__x86_64__) || defined(__i386__)
  static constexpr long kFolder = 0200000, kNoLink = 0400000;
#else
  static constexpr long kFolder = 040000, kNoLink = 0100000;
#endif
  static constexpr long kPathOnly = 010000000, kTooLong = -36;

  static long open(long at, const char* name, long flags) {
    return call(kOpenat, at, reinterpret_cast<long>(name), flags | kCloseOnExec);
  }
  static long open_folder(const char* name) { return open(kHere, name, kFolder | kPathOnly); }
  // Not waiting for what is no file.
  static long open_inside(long at, const char* name, bool is_last) {
    constexpr long kNoFolder = -20;  // such is a link, too
    const long next = open(at, name, (is_last ? kNoWait : kFolder | kPathOnly) | kNoLink);
    return !is_last && next == kNoFolder ? -kIsLink : next;
  }
  static void close(long at) { call(kClose, at); }
  static bool map(long file, Mapping* mapping, int* reason) {
    return map_opened(file, mapping, reason);
  }
};

}  // namespace

bool map_file(const char* path, Mapping* mapping, int* reason) {
  // Not waiting for somebody who writes to what is a pipe: it cannot be mapped.
  const long flags = kNoWait | kCloseOnExec;
  return map_opened(call(kOpenat, kHere, reinterpret_cast<long>(path), flags), mapping, reason);
}

bool map_file_inside(const char* folder, const char* path, Mapping* mapping, int* reason) {
  return map_below<System>(folder, path, mapping, reason);
}

void unmap_file(const Mapping& mapping) {
  if (mapping.data)
    call(kMunmap, reinterpret_cast<long>(mapping.data), static_cast<long>(mapping.size));
}

}  // namespace ortolan::platform
