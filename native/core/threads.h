// One pool of threads for the process. Work is split statically; who finds the pool taken computes
// on its own thread. Threads are started when a model is loaded, never in a run.
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
    uint32_t index;
    uint32_t seen;  // job_ when the worker was made
  };
  static constexpr uint32_t kMaxWorkers = 63;

 private:
  static void work(void* worker);
  static void forget_workers();
  void grow(uint32_t workers);
  void part(size_t index) const;

  uint32_t taken_ = 0;    // 1 while a run uses the pool
  uint32_t growing_ = 0;  // 1 while threads are started
  uint32_t workers_ = 0;  // started so far
  // Number of the job, times 64, plus the workers that take part in it: a worker learns both from
  // one read, so one that was not counted never looks at the job. Workers sleep on it.
  uint32_t job_ = 0;
  uint32_t pending_ = 0;  // parts that are not done; the caller sleeps on it
  // The job. Written before job_ changes; read by counted workers only.
  Body body_ = nullptr;
  void* user_ = nullptr;
  size_t units_ = 0;
  size_t parts_ = 0;
  Worker list_[kMaxWorkers] = {};
};

}  // namespace ortolan
