// macOS and iOS, over libSystem alone. Waiting uses mutexes and conditions chosen by address: the
// system's own wait on an address is private, or too new.
#include "platform/inside.h"
#include "platform/processor.h"

extern "C" {
int posix_memalign(void** memory, size_t alignment, size_t bytes);
void free(void* memory);
struct OrtolanThread;
int pthread_create(OrtolanThread** thread, const void* attributes, void* (*entry)(void*),
                   void* argument);
int pthread_detach(OrtolanThread* thread);
int pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)());
int pthread_mutex_lock(void* mutex);
int pthread_mutex_unlock(void* mutex);
int pthread_cond_wait(void* condition, void* mutex);
int pthread_cond_broadcast(void* condition);
struct OrtolanPlace {
  const char* file;
  void* base;
  const char* name;
  void* address;
};
int dladdr(const void* address, OrtolanPlace* place);
void* dlopen(const char* path, int mode);
int sched_yield();
long sysconf(int name);
uint64_t clock_gettime_nsec_np(int clock);
int open(const char* path, int flags, ...);
int openat(int folder, const char* path, int flags, ...);
int64_t lseek(int file, int64_t offset, int whence);
void* mmap(void* address, size_t bytes, int protection, int flags, int file, int64_t offset);
int munmap(void* address, size_t bytes);
int close(int file);
int* __error();
}

namespace ortolan::platform {

namespace {

// Room and first word of pthread_mutex_t and pthread_cond_t as the system's headers initialise
// them; both are part of the ABI.
struct Gate {
  long mutex_mark = 0x32AAABA7;
  char mutex[56] = {};
  long condition_mark = 0x3CB0B1BB;
  char condition[40] = {};
};
constinit Gate gates[16];

Gate& gate_of(const uint32_t* address) {
  return gates[reinterpret_cast<uintptr_t>(address) / 64 % 16];
}

void* allocate(void*, size_t bytes) {
  void* memory = nullptr;
  return posix_memalign(&memory, kAlignment, bytes ? bytes : 1) == 0 ? memory : nullptr;
}
void release(void*, void* memory, size_t) { free(memory); }

struct Start {
  void (*entry)(void*);
  void* argument;
};

}  // namespace

Allocator default_allocator() { return {nullptr, allocate, release}; }

uint32_t processors() {
  constexpr int kOnline = 58;
  long n = sysconf(kOnline);
  return n > 0 ? static_cast<uint32_t>(n) : 1;
}

bool start_thread(void (*entry)(void*), void* argument) {
  Start* start = static_cast<Start*>(allocate(nullptr, sizeof(Start)));
  if (!start) return false;
  *start = {entry, argument};
  // The library stays, even if it is closed: the thread is in it until the process ends.
  constexpr int kLazyNoLoadNoDelete = 0x91;
  OrtolanPlace place;
  if (dladdr(gates, &place)) dlopen(place.file, kLazyNoLoadNoDelete);
  OrtolanThread* thread = nullptr;
  auto trampoline = [](void* memory) -> void* {
    Start copy = *static_cast<Start*>(memory);
    free(memory);
    copy.entry(copy.argument);
    return nullptr;
  };
  if (pthread_create(&thread, nullptr, trampoline, start) != 0) {
    free(start);
    return false;
  }
  pthread_detach(thread);
  return true;
}

void on_fork(void (*handler)()) { pthread_atfork(nullptr, nullptr, handler); }

void wait(const uint32_t* address, uint32_t value) {
  Gate& gate = gate_of(address);
  pthread_mutex_lock(&gate.mutex_mark);
  while (__atomic_load_n(address, __ATOMIC_ACQUIRE) == value)
    pthread_cond_wait(&gate.condition_mark, &gate.mutex_mark);
  pthread_mutex_unlock(&gate.mutex_mark);
}

void wake_all(const uint32_t* address) {
  Gate& gate = gate_of(address);
  pthread_mutex_lock(&gate.mutex_mark);
  pthread_cond_broadcast(&gate.condition_mark);
  pthread_mutex_unlock(&gate.mutex_mark);
}

uint32_t processor() { return 0; }
void yield() { sched_yield(); }

uint64_t nanoseconds() {
  constexpr int kUptime = 8;
  return clock_gettime_nsec_np(kUptime);
}

namespace {

constexpr int kCloseOnExec = 0x1000000, kNoWait = 4;

long or_error(int descriptor) { return descriptor < 0 ? -*__error() : descriptor; }

// Maps an open file, or one that could not be opened, and closes it.
bool map_opened(long opened, Mapping* mapping, int* reason) {
  constexpr int kRead = 1, kPrivate = 2, kEnd = 2;
  if (opened < 0) {
    *reason = static_cast<int>(-opened);
    return false;
  }
  const int file = static_cast<int>(opened);
  int64_t size = lseek(file, 0, kEnd);
  void* memory = nullptr;
  if (size > 0) memory = mmap(nullptr, static_cast<size_t>(size), kRead, kPrivate, file, 0);
  bool failed = size < 0 || memory == reinterpret_cast<void*>(-1);
  if (failed) *reason = *__error();
  ::close(file);
  if (failed) return false;
  *mapping = {static_cast<const uint8_t*>(memory), static_cast<size_t>(size)};
  return true;
}

struct System {
  static constexpr int kFolder = 0x100000, kNoLink = 0x100;
  static constexpr long kTooLong = -63;

  static long open_folder(const char* name) {
    return or_error(::open(name, kFolder | kCloseOnExec));
  }
  static long open_inside(long at, const char* name, bool is_last) {
    constexpr long kLink = -62, kNoFolder = -20;  // such may be a link, too
    const int flags = (is_last ? kNoWait : kFolder) | kNoLink | kCloseOnExec;
    const long next = or_error(openat(static_cast<int>(at), name, flags));
    return next == kLink || (!is_last && next == kNoFolder) ? -kIsLink : next;
  }
  static void close(long at) { ::close(static_cast<int>(at)); }
  static bool map(long file, Mapping* mapping, int* reason) {
    return map_opened(file, mapping, reason);
  }
};

}  // namespace

bool map_file(const char* path, Mapping* mapping, int* reason) {
  // Not waiting for somebody who writes to what is a pipe: it cannot be mapped.
  return map_opened(or_error(::open(path, kNoWait | kCloseOnExec)), mapping, reason);
}

bool map_file_inside(const char* folder, const char* path, Mapping* mapping, int* reason) {
  return map_below<System>(folder, path, mapping, reason);
}

void unmap_file(const Mapping& mapping) {
  if (mapping.data) munmap(const_cast<uint8_t*>(mapping.data), mapping.size);
}

}  // namespace ortolan::platform
