// One pool of threads for the process. Work is split statically into parts: the caller's own, and
// one for each worker, always the same, so that it finds in its cache what it wrote there a step
// before. Who is done early takes parts of those who sleep; who finds the pool taken computes on
// its own thread. Threads are started when a model is loaded, never in a run.
#pragma once

#include "core/base.h"

namespace ortolan {

class ThreadPool {
 public:
  // The pool with at least `threads` - 1 workers where the system allows; never fails: fewer
  // workers only mean less speed.
  static ThreadPool& with(uint32_t threads);

  using Body = void (*)(void* user, size_t begin, size_t end, size_t thread);
  // body over [0, units) in at most `threads` parts; part 0 runs here. `work`: how many threads
  // would have enough to do (Context::parallel). Returns when all are done.
  void run(size_t units, size_t threads, size_t work, Body body, void* user);

  static constexpr uint32_t kMaxWorkers = 63;

  enum State : uint32_t { kDone, kOpen, kTaken, kStates = 4 };

  // What one of two who wait for each other shows to the other.
  struct Waiter {
    uint32_t asleep = 0;
    uint32_t processor = 0;  // where it ran when it last looked
    void locate();
  };

 private:
  // A worker and its part of the job, in cache lines of their own.
  struct alignas(128) Worker {
    uint32_t word = 0;  // number of the job * kStates + State of the part
    uint32_t parts = 0;
    uint32_t denormals = 0;  // how the caller takes them
    Waiter self, caller;
    Body body = nullptr;
    void* user = nullptr;
    size_t begin = 0, end = 0;
  };

  static void work(void* worker);
  static void forget_workers();
  void grow(uint32_t workers);
  uint32_t ready(uint32_t workers, size_t work);
  void finish(uint32_t index);
  void take_others(uint32_t parts);

  uint32_t taken_ = 0;    // 1 while a run uses the pool
  uint32_t growing_ = 0;  // 1 while threads are started
  uint32_t workers_ = 0;  // started so far
  bool watches_forks_ = false;
  uint32_t job_ = 0;              // number of the last job
  size_t missed_ = 0;             // work that was done alone, because workers slept,
  uint64_t since_ = 0;            // since then, in nanoseconds
  Worker list_[kMaxWorkers + 1];  // none is at 0: that is the caller
};

}  // namespace ortolan
