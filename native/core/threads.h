// One pool of threads for the process. Work is split statically into parts, which the caller and
// the workers that are awake take; who finds the pool taken computes on its own thread. Threads are
// started when a model is loaded, never in a run.
#pragma once

#include "core/base.h"

namespace ortolan {

class ThreadPool {
 public:
  // The pool with at least `threads` - 1 workers where the system allows; never fails: fewer
  // workers only mean less speed.
  static ThreadPool& with(uint32_t threads);

  using Body = void (*)(void* user, size_t begin, size_t end, size_t thread);
  // body over [0, units) in at most `threads` parts; part 0 runs here. Returns when all are done.
  void run(size_t units, size_t threads, Body body, void* user);

  struct Worker {
    ThreadPool* pool;
    uint32_t seen;  // job_ when the worker was made
  };
  static constexpr uint32_t kMaxWorkers = 63;

 private:
  static void work(void* worker);
  static void forget_workers();
  void grow(uint32_t workers);
  void take_parts(uint32_t job);
  void part(size_t index) const;

  uint32_t taken_ = 0;    // 1 while a run uses the pool
  uint32_t growing_ = 0;  // 1 while threads are started
  uint32_t workers_ = 0;  // started so far
  bool watches_forks_ = false;
  uint32_t job_ = 0;                         // number of the job; workers sleep on it
  uint32_t pending_ = 0;                     // parts that are not done; the caller sleeps on it
  uint32_t asleep_ = 0, caller_asleep_ = 0;  // how many may sleep on the two
  // The job's number, its parts, and the next part that nobody has: whoever takes one by an
  // exchange knows that the job cannot end before, so the fields below are the job's own. A worker
  // that wakes late finds nothing to take; the caller does not wait for it.
  alignas(8) uint64_t claim_ = 0;
  Body body_ = nullptr;
  void* user_ = nullptr;
  size_t units_ = 0;
  size_t parts_ = 0;
  Worker list_[kMaxWorkers] = {};
};

}  // namespace ortolan
