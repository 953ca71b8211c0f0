#include "core/threads.h"

#include "core/platform.h"

namespace ortolan {

namespace {

constexpr uint32_t kSpins = 2000;  // a few microseconds

constinit ThreadPool pool;

ORTOLAN_INLINE void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
  __asm__ volatile("yield");
#endif
}

uint32_t load(const uint32_t& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }

// Spins shortly, then sleeps, until word != value; answers the new one. `asleep` counts those who
// may sleep on it: a call of the system, which wakes them, takes longer than many a job. Who sleeps
// counts itself before it looks at the word, who wakes writes the word before it looks at the
// count: so one of them sees the other.
uint32_t wait_while(const uint32_t& word, uint32_t value, uint32_t& asleep) {
  for (uint32_t i = 0; i < kSpins; ++i) {
    uint32_t now = load(word);
    if (now != value) return now;
    relax();
  }
  __atomic_add_fetch(&asleep, 1, __ATOMIC_SEQ_CST);
  uint32_t now;
  while ((now = __atomic_load_n(&word, __ATOMIC_SEQ_CST)) == value) platform::wait(&word, value);
  __atomic_sub_fetch(&asleep, 1, __ATOMIC_RELAXED);
  return now;
}

// After the word was written, by sequentially consistent order.
void wake(uint32_t& word, const uint32_t& asleep) {
  if (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST)) platform::wake_all(&word);
}

bool try_take(uint32_t& flag) {
  uint32_t expected = 0;
  return __atomic_compare_exchange_n(&flag, &expected, 1, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED);
}
void give_back(uint32_t& flag) { __atomic_store_n(&flag, 0, __ATOMIC_RELEASE); }

}  // namespace

ThreadPool& ThreadPool::with(uint32_t threads) {
  if (threads > 1) pool.grow(min(threads - 1, kMaxWorkers));
  return pool;
}

void ThreadPool::grow(uint32_t workers) {
  while (load(workers_) < workers) {
    if (!try_take(growing_)) {
      relax();
      continue;
    }
    bool refused = false;
    if (!watches_forks_) platform::on_fork(forget_workers);
    watches_forks_ = true;
    while (workers_ < workers && !refused) {
      list_[workers_] = {this, load(job_)};
      refused = !platform::start_thread(work, &list_[workers_]);
      if (!refused) __atomic_store_n(&workers_, workers_ + 1, __ATOMIC_RELEASE);
    }
    give_back(growing_);
    if (refused) return;
  }
}

// In the child of a fork only the forking thread lives.
void ThreadPool::forget_workers() {
  pool.workers_ = 0;
  pool.taken_ = 0;
  pool.growing_ = 0;
  pool.pending_ = 0;
  pool.asleep_ = pool.caller_asleep_ = 0;
}

void ThreadPool::part(size_t index) const {
  size_t begin = units_ * index / parts_, end = units_ * (index + 1) / parts_;
  if (begin < end) body_(user_, begin, end, index);
}

void ThreadPool::run(size_t units, size_t threads, Body body, void* user) {
  uint32_t workers = load(workers_);
  size_t parts = min<size_t>(min<size_t>(threads, workers + 1), units);
  if (parts < 2 || !try_take(taken_)) {
    if (units) body(user, 0, units, 0);
    return;
  }
  body_ = body;
  user_ = user;
  units_ = units;
  parts_ = parts;
  uint32_t job = job_ + 1;
  __atomic_store_n(&pending_, static_cast<uint32_t>(parts), __ATOMIC_RELAXED);
  uint64_t claim = static_cast<uint64_t>(job) << 32 | static_cast<uint64_t>(parts) << 16;
  __atomic_store_n(&claim_, claim, __ATOMIC_RELEASE);
  __atomic_store_n(&job_, job, __ATOMIC_SEQ_CST);
  wake(job_, asleep_);
  take_parts(job);
  for (uint32_t left = load(pending_); left != 0;)
    left = wait_while(pending_, left, caller_asleep_);
  give_back(taken_);
}

void ThreadPool::take_parts(uint32_t job) {
  uint64_t claim = __atomic_load_n(&claim_, __ATOMIC_ACQUIRE);
  while (static_cast<uint32_t>(claim >> 32) == job && (claim & 0xffff) < (claim >> 16 & 0xffff)) {
    if (!__atomic_compare_exchange_n(&claim_, &claim, claim + 1, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_ACQUIRE))
      continue;
    part(claim & 0xffff);
    if (__atomic_sub_fetch(&pending_, 1, __ATOMIC_SEQ_CST) == 0) wake(pending_, caller_asleep_);
    claim = __atomic_load_n(&claim_, __ATOMIC_ACQUIRE);
  }
}

void ThreadPool::work(void* worker) {
  auto [self, seen] = *static_cast<Worker*>(worker);
  for (;;) {
    seen = wait_while(self->job_, seen, self->asleep_);
    self->take_parts(seen);
  }
}

}  // namespace ortolan
