#include "core/threads.h"

#include "core/platform.h"

namespace ortolan {

namespace {

// How long who waits spins, in nanoseconds: longer than most steps that one thread does alone.
constexpr uint64_t kSpinTime = 200000;
// To wake a thread takes the caller 5 to 20 us, and the thread 20 to 80 us. It pays when this much
// work (of Context::parallel: about a microsecond each) was there for it within a short time.
constexpr size_t kWorthWaking = 64;
constexpr uint64_t kShortTime = 1000000;

constinit ThreadPool pool;

ORTOLAN_INLINE void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
  __asm__ volatile("yield");
#endif
}

using Waiter = ThreadPool::Waiter;
constexpr uint32_t kStates = ThreadPool::kStates;

uint32_t load(const uint32_t& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }

// Spins until the word is in the state, and answers it; false when it took too long. Who finds
// itself on the processor of whom it waits for makes way; for others the system does that better.
bool spin_for(const uint32_t& word, uint32_t state, Waiter& waiter, const Waiter& other,
              uint32_t* found) {
  constexpr uint32_t kTurn = 256;
  uint64_t begin = 0;
  for (uint32_t i = 1;; ++i) {
    *found = load(word);
    if (*found % kStates == state) return true;
    relax();
    if (i % kTurn) continue;
    const uint64_t time = platform::nanoseconds();
    if (i == kTurn) begin = time;
    if (time - begin > kSpinTime) return false;
    waiter.locate();
    if (load(waiter.processor) == load(other.processor)) platform::yield();
  }
}

// Waits until the word is in the state; answers it. Who sleeps says so before it looks at the
// word, who wakes writes the word before it looks whether one sleeps: so one of them sees the
// other. (A call of the system that wakes takes longer than many a job.) Who was woken for a part
// that others took meanwhile spins again: the next part comes soon.
uint32_t wait_for(const uint32_t& word, uint32_t state, Waiter& waiter, const Waiter& other) {
  uint32_t now;
  while (!spin_for(word, state, waiter, other, &now)) {
    __atomic_store_n(&waiter.asleep, 1, __ATOMIC_SEQ_CST);
    now = __atomic_load_n(&word, __ATOMIC_SEQ_CST);
    if (now % kStates != state) platform::wait(&word, now);
    __atomic_store_n(&waiter.asleep, 0, __ATOMIC_RELAXED);
  }
  return now;
}

// Writes the word, and wakes who may sleep on it.
void tell(uint32_t& word, uint32_t value, const Waiter& waiter, Waiter& self) {
  __atomic_store_n(&word, value, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n(&waiter.asleep, __ATOMIC_SEQ_CST)) return;
  self.locate();
  platform::wake_all(&word);
}

bool exchange(uint32_t& word, uint32_t expected, uint32_t value) {
  return __atomic_compare_exchange_n(&word, &expected, value, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED);
}
bool try_take(uint32_t& flag) { return exchange(flag, 0, 1); }
void give_back(uint32_t& flag) { __atomic_store_n(&flag, 0, __ATOMIC_RELEASE); }

// How this thread takes denormals, for platform::restore_denormals of others.
uint32_t denormals() {
  const uint32_t state = platform::flush_denormals();
  platform::restore_denormals(state);
  return state;
}

}  // namespace

void ThreadPool::Waiter::locate() {
  __atomic_store_n(&processor, platform::processor(), __ATOMIC_RELAXED);
}

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
      refused = !platform::start_thread(work, &list_[workers_ + 1]);
      if (!refused) __atomic_store_n(&workers_, workers_ + 1, __ATOMIC_RELEASE);
    }
    give_back(growing_);
    if (refused) return;
  }
}

// In the child of a fork only the forking thread lives.
void ThreadPool::forget_workers() {
  for (Worker& worker : pool.list_) worker = Worker();
  pool.workers_ = 0;
  pool.taken_ = 0;
  pool.growing_ = 0;
}

// How many of the first workers are to be used: all, if they are awake or worth to be woken.
uint32_t ThreadPool::ready(uint32_t workers, size_t work) {
  uint32_t awake = 0;
  while (awake < workers && !__atomic_load_n(&list_[awake + 1].self.asleep, __ATOMIC_RELAXED))
    ++awake;
  if (awake == workers) return workers;
  const uint64_t now = platform::nanoseconds();
  if (now - since_ > kShortTime) since_ = now, missed_ = 0;
  missed_ += work;
  if (missed_ < kWorthWaking) return awake;
  missed_ = 0;
  return workers;
}

void ThreadPool::run(size_t units, size_t threads, size_t work, Body body, void* user) {
  const size_t most = min<size_t>(min<size_t>(threads, load(workers_) + 1), units);
  if (most < 2 || !try_take(taken_)) {
    if (units) body(user, 0, units, 0);
    return;
  }
  const uint32_t parts = 1 + ready(static_cast<uint32_t>(most) - 1, work);
  const uint32_t job = ++job_ * kStates, state = denormals();
  // units * i / parts, with no product that a size of 32 bits cannot hold.
  auto begin = [&](uint32_t i) { return units / parts * i + units % parts * i / parts; };
  for (uint32_t i = 1; i < parts; ++i) {
    Worker& w = list_[i];
    w.parts = parts;
    w.denormals = state;
    w.body = body;
    w.user = user;
    w.begin = begin(i);
    w.end = begin(i + 1);
    tell(w.word, job + kOpen, w.self, w.caller);
  }
  body(user, 0, units / parts, 0);
  take_others(parts);
  for (uint32_t i = 1; i < parts; ++i)
    wait_for(list_[i].word, kDone, list_[i].caller, list_[i].self);
  give_back(taken_);
}

// The part is this thread's.
void ThreadPool::finish(uint32_t index) {
  Worker& w = list_[index];
  if (w.begin < w.end) w.body(w.user, w.begin, w.end, index);
}

// Only while a part of the job, or the job itself, is this thread's: so what is open is the job's.
void ThreadPool::take_others(uint32_t parts) {
  for (uint32_t i = 1; i < parts; ++i) {
    Worker& w = list_[i];
    const uint32_t now = load(w.word);
    if (now % kStates != kOpen || !exchange(w.word, now, now - kOpen + kTaken)) continue;
    finish(i);
    tell(w.word, now - kOpen + kDone, w.caller, w.self);
  }
}

void ThreadPool::work(void* worker) {
  auto* w = static_cast<Worker*>(worker);
  const uint32_t index = static_cast<uint32_t>(w - pool.list_);
  for (;;) {
    const uint32_t now = wait_for(w->word, kOpen, w->self, w->caller);
    if (!exchange(w->word, now, now - kOpen + kTaken)) continue;
    platform::restore_denormals(w->denormals);
    pool.finish(index);
    pool.take_others(w->parts);
    tell(w->word, now - kOpen + kDone, w->caller, w->self);
  }
}

}  // namespace ortolan
