// What targets do with a model's bytes: load it under limits, read all that it tells of itself, run
// it on feeds drawn from its own hash.
#pragma once

#include "driver.h"

namespace models {

using namespace driver;

inline uint64_t hash(const uint8_t* data, size_t size) {
  uint64_t value = 14695981039346656037u;
  for (size_t i = 0; i < size; ++i) value = (value ^ data[i]) * 1099511628211u;
  return value;
}

struct Model {
  Memory memory;
  std::unique_ptr<uint8_t[]> copy;
  OrtolanModel* handle = nullptr;
  OrtolanStatus status;

  // A copy of exactly the file's size, so that a sanitizer sees what reads beyond it.
  Model(const uint8_t* bytes, size_t size, size_t offset) {
    memory.limit = size_t{64} << 20;
    copy.reset(new uint8_t[size + offset]);
    if (size) memcpy(copy.get() + offset, bytes, size);
    const OrtolanOption options[] = {{"ortolan.max_tensor_bytes", "1048576"},
                                     {"ortolan.max_iterations", "100"},
                                     {"ortolan.max_milliseconds", "1000"},
                                     {"ortolan.seed", "7"},
                                     {"session.intra_op_num_threads", "1"}};
    const OrtolanHooks hooks = {sizeof(OrtolanHooks), &memory, take, give, nullptr};
    status = ortolan_model_load(copy.get() + offset, size, options,
                                sizeof(options) / sizeof(*options), &hooks, &handle);
    if (status && !*ortolan_model_error(handle)) give_up("an error without text", "load");
    if (status == ORTOLAN_OK) describe(handle);
  }
  ~Model() {
    ortolan_model_release(handle);
    if (memory.live) give_up("memory was not given back", std::to_string(memory.live));
  }
};

inline void run(Model& model, uint64_t seed) {
  OrtolanRun* run = nullptr;
  OrtolanStatus status = ortolan_run_create(model.handle, &run);
  Feeding rules;
  rules.most_bytes = 65536;
  Random random(seed);
  for (int round = 0; status == ORTOLAN_OK && round < 2; ++round) {
    std::vector<Buffer> feeds;
    if (!make_feeds(model.handle, rules, random, round != 0, &feeds)) break;
    status = run_twice(run, model.handle, feeds, "run", [] {});
    if (status && !*ortolan_run_error(run)) give_up("an error without text", "run");
  }
  ortolan_run_release(run);
}

}  // namespace models
