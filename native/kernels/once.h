// Work of loading that is put off until a run needs it. Runs of a model may come from several
// threads at the same time: the first does the work, the others wait for it.
#pragma once

#include "core/platform.h"

namespace ortolan {

class Once {
 public:
  // Not yet done; without it there is nothing to do.
  void put_off() { state_ = kOpen; }

  template <class Work>
  ORTOLAN_INLINE void complete(const Work& work) {
    uint32_t now = __atomic_load_n(&state_, __ATOMIC_ACQUIRE);
    if (now == kDone) return;
    if (now == kOpen && __atomic_compare_exchange_n(&state_, &now, kBegun, false, __ATOMIC_ACQUIRE,
                                                    __ATOMIC_ACQUIRE)) {
      work();
      __atomic_store_n(&state_, kDone, __ATOMIC_RELEASE);
      platform::wake_all(&state_);
      return;
    }
    while (__atomic_load_n(&state_, __ATOMIC_ACQUIRE) == kBegun) platform::wait(&state_, kBegun);
  }

 private:
  enum State : uint32_t { kDone, kOpen, kBegun };
  uint32_t state_ = kDone;
};

}  // namespace ortolan
