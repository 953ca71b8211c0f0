// Loads model files through the C interface as an attacker would: exact-size copies at odd offsets,
// truncated, with little memory, from many threads. Built with sanitizers by sanitize.py; prints a
// line per attempt: "case <tab> stage <tab> code <tab> text". A sanitizer's report ends the
// process.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ortolan/ortolan.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* memory);
#define EXACT_SIZES 1
#endif
#endif

namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  std::vector<size_t> offsets = {0};
  std::vector<std::string> files;
  std::string threads = "1";
  std::string mode = "run";
  uint64_t seed = 1;
  size_t step = 997;            // between truncations in the middle
  size_t skip = 0;              // cases of a pack that were done before
  size_t repeat = 1000;         // runs per thread
  size_t rounds = 3;            // sets of feeds per model
  int64_t integer = INT64_MIN;  // what integers are fed; this: at random
  std::vector<size_t> dims;     // of dimensions without a size, in turn; else 1 to 3 at random
  double soft = 3, hard = 20;   // seconds until a run is cancelled, until the process gives up
};

// xorshift64*
struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  uint32_t next() {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return static_cast<uint32_t>(state * 0x2545f4914f6cdd1du >> 32);
  }
  uint32_t below(uint32_t n) { return next() % n; }
};

[[noreturn]] void give_up(const char* what, const std::string& name) {
  fprintf(stderr, "HARNESS: %s: %s\n", what, name.c_str());
  fflush(stdout);
  _exit(7);
}

// ---- Memory: counted, limited, and failing when told to.

struct Memory {
  std::atomic<size_t> live{0}, calls{0};
  size_t limit = size_t{1} << 30;
  size_t fail_at = SIZE_MAX;  // the call that fails, once
};

void* take(void* user, size_t bytes) {
  auto& memory = *static_cast<Memory*>(user);
  if (memory.calls++ == memory.fail_at) return nullptr;
  if (bytes > memory.limit || memory.live + bytes > memory.limit) return nullptr;
  void* block = nullptr;
  if (posix_memalign(&block, 64, bytes ? bytes : 1) != 0) return nullptr;
  memory.live += bytes;
  return block;
}

void give(void* user, void* block, size_t bytes) {
#if defined(EXACT_SIZES)
  if (block && __sanitizer_get_allocated_size(block) != (bytes ? bytes : 1))
    give_up("memory was given back with another size", std::to_string(bytes));
#endif
  static_cast<Memory*>(user)->live -= bytes;
  free(block);
}

// ---- A guard that cancels runs that take long, and ends the process when that does not help.

class Guard {
 public:
  explicit Guard(const Settings& settings) : settings_(settings), thread_([this] { watch(); }) {}
  ~Guard() {
    end_ = true;
    thread_.join();
  }
  void begin(const std::string& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    name_ = name;
    began_ = Clock::now();
    active_ = true;
  }
  void end() {
    std::lock_guard<std::mutex> lock(mutex_);
    active_ = false;
    run_ = nullptr;
  }
  void set(OrtolanRun* run) {
    std::lock_guard<std::mutex> lock(mutex_);
    run_ = run;
    began_ = Clock::now();
  }

 private:
  void watch() {
    while (!end_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      std::lock_guard<std::mutex> lock(mutex_);
      double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
      if (!active_) continue;
      if (seconds > settings_.soft && run_) ortolan_run_cancel(run_);
      if (seconds > settings_.hard) give_up("HANG", name_);
    }
  }
  const Settings& settings_;
  std::mutex mutex_;
  std::string name_;
  Clock::time_point began_;
  OrtolanRun* run_ = nullptr;
  bool active_ = false;
  std::atomic<bool> end_{false};
  std::thread thread_;
};

// ---- Tensors.

size_t element_bytes(int32_t type) {
  static const uint8_t kBytes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2, 1, 1, 1, 1};
  return type >= 0 && type < static_cast<int32_t>(sizeof(kBytes)) ? kBytes[type] : 0;
}

// Small numbers, and one in 16 that code gets wrong.
int64_t draw_integer(Random& random) {
  static const int64_t kHostile[] = {INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX, 1ll << 32,
                                     1ll << 40, 1ll << 62, -1000,     1000,      255};
  if (random.below(16) == 0) return kHostile[random.below(10)];
  return static_cast<int64_t>(random.below(7)) - 2;
}

double draw_number(Random& random) {
  static const double kHostile[] = {__builtin_nan(""),
                                    __builtin_inf(),
                                    -__builtin_inf(),
                                    1e30,
                                    -3e38,
                                    1e-40,
                                    -0.0,
                                    2147483648.0,
                                    9.3e18,
                                    1e5};
  if (random.below(16) == 0) return kHostile[random.below(10)];
  return static_cast<double>(random.below(2001)) / 1000 - 1;
}

void fill(uint8_t* to, size_t bytes, int32_t type, Random& random, bool zero, int64_t integer) {
  size_t width = element_bytes(type);
  bool is_fixed = integer != INT64_MIN;
  zero = zero && !is_fixed;
  memset(to, 0, bytes);
  if (zero || width == 0) return;
  for (size_t at = 0; at + width <= bytes; at += width) {
    if (type == 1) {
      float value = static_cast<float>(draw_number(random));
      memcpy(to + at, &value, 4);
    } else if (type == 11) {
      double value = draw_number(random);
      memcpy(to + at, &value, 8);
    } else if (type == 9) {
      to[at] = static_cast<uint8_t>(random.below(2));
    } else if (type == 10 || type == 16) {
      uint16_t value = static_cast<uint16_t>(random.below(0x3c00));
      memcpy(to + at, &value, 2);
    } else {
      int64_t value = is_fixed ? integer : draw_integer(random);
      memcpy(to + at, &value, width < 8 ? width : 8);
    }
  }
}

struct Buffer {
  std::unique_ptr<uint8_t[]> bytes;
  OrtolanTensor tensor{};
};

// Exactly as many bytes as the tensor needs; false when the declared shape is out of reach.
bool make_feed(const OrtolanTensor& declared, const Settings& settings, Random& random, bool zero,
               size_t* unknown, Buffer* feed) {
  OrtolanTensor& t = feed->tensor;
  t = declared;
  if (t.rank == 0xffffffffu) {
    t.rank = random.below(5);
    for (int64_t& dim : t.dims) dim = -1;
  }
  size_t bytes = element_bytes(t.type);
  for (uint32_t d = 0; d < t.rank; ++d) {
    if (t.dims[d] < 0 && settings.dims.empty()) t.dims[d] = 1 + random.below(3);
    if (t.dims[d] < 0)
      t.dims[d] = static_cast<int64_t>(settings.dims[(*unknown)++ % settings.dims.size()]);
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(t.dims[d]), &bytes)) return false;
    if (bytes > (size_t{16} << 20)) return false;
  }
  feed->bytes.reset(new uint8_t[bytes]);
  fill(feed->bytes.get(), bytes, t.type, random, zero, settings.integer);
  t.data = feed->bytes.get();
  t.bytes = bytes;
  return true;
}

void report(const std::string& name, const char* stage, int code, const char* text) {
  std::string line(text ? text : "");
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 32) c = ' ';
  printf("%s\t%s\t%d\t%s\n", name.c_str(), stage, code, line.c_str());
}

// ---- One model, loaded and run.

struct Model {
  Memory memory;
  std::unique_ptr<uint8_t[]> copy;
  OrtolanModel* handle = nullptr;
  OrtolanStatus status = ORTOLAN_OK;

  Model(const uint8_t* bytes, size_t size, size_t offset, const Settings& settings,
        size_t fail_at = SIZE_MAX) {
    memory.fail_at = fail_at;
    copy.reset(new uint8_t[size + offset]);
    if (size) memcpy(copy.get() + offset, bytes, size);
    OrtolanOption options[] = {{"ortolan.max_tensor_bytes", "67108864"},
                               {"ortolan.max_iterations", "1000"},
                               {"session.intra_op_num_threads", settings.threads.c_str()}};
    OrtolanHooks hooks = {sizeof(OrtolanHooks), &memory, take, give, nullptr};
    status = ortolan_model_load(copy.get() + offset, size, options, 3, &hooks, &handle);
  }
  ~Model() {
    ortolan_model_release(handle);
    if (memory.live) give_up("memory was not given back", std::to_string(memory.live));
  }
};

// Everything that the interface tells about a model is read, so that a sanitizer sees it.
void describe(const OrtolanModel* model) {
  size_t sum = 0;
  auto look = [&](const char* text) { sum += text ? strlen(text) : 0; };
  for (OrtolanSide side : {ORTOLAN_INPUT, ORTOLAN_OUTPUT})
    for (size_t i = 0; i < ortolan_model_count(model, side); ++i) {
      OrtolanTensor tensor{};
      tensor.size = sizeof(tensor);
      look(ortolan_model_name(model, side, i));
      ortolan_model_tensor(model, side, i, &tensor);
      if (tensor.rank != 0xffffffffu && tensor.rank > ORTOLAN_MAX_RANK)
        give_up("a rank is above the limit", std::to_string(tensor.rank));
      for (size_t axis = 0; axis < ORTOLAN_MAX_RANK + 1; ++axis)
        look(ortolan_model_dimension(model, side, i, axis));
      sum += static_cast<size_t>(ortolan_model_overridable(model, i));
    }
  for (const char* key : {"producer_name", "graph_description", "domain", "description",
                          "producer_version", "ort_version", "absent"})
    look(ortolan_model_metadata(model, key));
  for (size_t i = 0; const char* key = ortolan_model_metadata_key(model, i); ++i) {
    look(key);
    look(ortolan_model_metadata(model, key));
  }
  int64_t number = 0;
  for (const char* key :
       {"nodes", "graphs", "model_version", "ir_version", "loaded_bytes", "copied"})
    if (!ortolan_model_number(model, key, &number)) give_up("a number is missing", key);
  if (sum == SIZE_MAX) puts("");  // the reads above are not to be removed
}

struct Results {
  std::vector<Buffer> buffers;
  bool operator==(const Results& other) const {
    if (buffers.size() != other.buffers.size()) return false;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const OrtolanTensor &a = buffers[i].tensor, &b = other.buffers[i].tensor;
      bool same = a.type == b.type && a.rank == b.rank && a.bytes == b.bytes &&
                  memcmp(a.dims, b.dims, a.rank * sizeof(int64_t)) == 0 &&
                  (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
      if (!same) return false;
    }
    return true;
  }
};

OrtolanStatus feed(OrtolanRun* run, std::vector<Buffer>& feeds) {
  for (size_t i = 0; i < feeds.size(); ++i)
    if (feeds[i].tensor.size)
      if (OrtolanStatus status = ortolan_run_input(run, i, &feeds[i].tensor)) return status;
  return ORTOLAN_OK;
}

// False when a declared input cannot be fed.
bool make_feeds(const OrtolanModel* model, const Settings& settings, Random& random, bool zero,
                std::vector<Buffer>* feeds) {
  size_t unknown = 0;
  feeds->clear();
  feeds->resize(ortolan_model_count(model, ORTOLAN_INPUT));
  for (size_t i = 0; i < feeds->size(); ++i) {
    if (ortolan_model_overridable(model, i) && random.below(4)) continue;
    OrtolanTensor declared{};
    declared.size = sizeof(declared);
    ortolan_model_tensor(model, ORTOLAN_INPUT, i, &declared);
    if (!make_feed(declared, settings, random, zero, &unknown, &(*feeds)[i])) return false;
  }
  return true;
}

void take_results(OrtolanRun* run, const OrtolanModel* model, Results* results) {
  for (size_t i = 0; i < ortolan_model_count(model, ORTOLAN_OUTPUT); ++i) {
    OrtolanValue* value = ortolan_run_take(run, i);
    Buffer& buffer = results->buffers.emplace_back();
    if (!value) give_up("a run that succeeded lacks an output", std::to_string(i));
    buffer.tensor.size = sizeof(OrtolanTensor);
    if (ortolan_value_tensor(value, &buffer.tensor)) give_up("a value has no tensor", "");
    buffer.bytes.reset(new uint8_t[buffer.tensor.bytes]);
    if (buffer.tensor.bytes) memcpy(buffer.bytes.get(), buffer.tensor.data, buffer.tensor.bytes);
    buffer.tensor.data = buffer.bytes.get();
    ortolan_value_release(value);
  }
}

// Once with the runtime's memory, again with the same plan and the caller's memory of exact size.
OrtolanStatus run_twice(OrtolanRun* run, const OrtolanModel* model, std::vector<Buffer>& feeds,
                        Guard& guard, const std::string& name) {
  guard.set(run);
  if (OrtolanStatus status = feed(run, feeds)) return status;
  if (OrtolanStatus status = ortolan_run_execute(run)) return status;
  Results first;
  take_results(run, model, &first);
  Results second;
  for (Buffer& buffer : first.buffers) {
    Buffer& own = second.buffers.emplace_back();
    own.tensor = buffer.tensor;
    own.bytes.reset(new uint8_t[buffer.tensor.bytes]);
    memset(own.bytes.get(), 0xa5, buffer.tensor.bytes);
    own.tensor.data = own.bytes.get();
  }
  guard.set(run);
  if (OrtolanStatus status = feed(run, feeds)) return status;
  for (size_t i = 0; i < second.buffers.size(); ++i)
    if (OrtolanStatus status = ortolan_run_output(run, i, &second.buffers[i].tensor)) return status;
  if (OrtolanStatus status = ortolan_run_execute(run)) return status;
  if (!(first == second)) give_up("the second run gives other bytes", name);
  return ORTOLAN_OK;
}

void run_model(Model& model, const Settings& settings, Guard& guard, const std::string& name) {
  describe(model.handle);
  OrtolanRun* run = nullptr;
  OrtolanStatus status = ortolan_run_create(model.handle, &run);
  report(name, "create", status, ortolan_run_error(run));
  Random random(settings.seed);
  for (size_t round = 0; status == ORTOLAN_OK && round < settings.rounds; ++round) {
    std::vector<Buffer> feeds;
    if (!make_feeds(model.handle, settings, random, round == 0, &feeds)) {
      report(name, "run", -1, "an input is declared too large to be fed");
      continue;
    }
    OrtolanStatus ended = run_twice(run, model.handle, feeds, guard, name);
    report(name, "run", ended, ended ? ortolan_run_error(run) : "");
    if (ended && !*ortolan_run_error(run)) give_up("an error without text", name);
    if (ended == ORTOLAN_CANCELLED) break;
  }
  guard.set(nullptr);
  ortolan_run_release(run);
}

void try_bytes(const uint8_t* bytes, size_t size, size_t offset, const Settings& settings,
               Guard& guard, const std::string& name) {
  guard.begin(name);
  {
    Model model(bytes, size, offset, settings);
    report(name, "load", model.status, ortolan_model_error(model.handle));
    if (model.status && !*ortolan_model_error(model.handle)) give_up("an error without text", name);
    if (model.status == ORTOLAN_OK) run_model(model, settings, guard, name);
  }
  guard.end();
}

std::vector<uint8_t> read_file(const std::string& path) {
  FILE* file = fopen(path.c_str(), "rb");
  if (!file) give_up(strerror(errno), path);
  std::vector<uint8_t> bytes;
  uint8_t piece[65536];
  for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0;)
    bytes.insert(bytes.end(), piece, piece + n);
  fclose(file);
  return bytes;
}

// ---- Modes.

void run_files(const Settings& settings, Guard& guard) {
  for (const std::string& path : settings.files) {
    std::vector<uint8_t> bytes = read_file(path);
    for (size_t offset : settings.offsets) {
      std::string name = path + "+" + std::to_string(offset);
      printf("%s\tbegin\t0\t\n", name.c_str());
      fflush(stdout);
      try_bytes(bytes.data(), bytes.size(), offset, settings, guard, name);
    }
  }
}

// Every length in the first and last KB, some between.
void truncate_files(const Settings& settings, Guard& guard) {
  for (const std::string& path : settings.files) {
    std::vector<uint8_t> bytes = read_file(path);
    size_t n = bytes.size();
    for (size_t length = 0; length < n;) {
      try_bytes(bytes.data(), length, settings.offsets[length % settings.offsets.size()], settings,
                guard, path + "[:" + std::to_string(length) + "]");
      bool edge = length < 1024 || length + 1024 >= n;
      size_t next = length + (edge ? 1 : settings.step);
      if (!edge && next + 1024 > n) next = n - 1024;
      length = next;
    }
  }
}

// A pack is many files in one: pairs of a little-endian 32-bit size and the bytes.
void run_pack(const Settings& settings, Guard& guard) {
  for (const std::string& path : settings.files) {
    std::vector<uint8_t> bytes = read_file(path);
    size_t index = 0;
    for (size_t at = 0; at + 4 <= bytes.size(); ++index) {
      uint32_t size;
      memcpy(&size, bytes.data() + at, 4);
      at += 4;
      if (size > bytes.size() - at) give_up("the pack is cut off", path);
      if (index >= settings.skip) {
        std::string name = std::to_string(index);
        printf("%s\tbegin\t0\t\n", name.c_str());
        fflush(stdout);
        Settings own = settings;
        own.seed = settings.seed + index;
        try_bytes(bytes.data() + at, size, settings.offsets[index % settings.offsets.size()], own,
                  guard, name);
      }
      at += size;
    }
  }
}

// The n-th allocation fails, for every n until all is well without a failure. Then come `repeat`
// failures at random in turn, in one run object that has to stay usable.
void run_out_of_memory(const Settings& settings, Guard& guard) {
  for (const std::string& path : settings.files) {
    std::vector<uint8_t> bytes = read_file(path);
    size_t n = 0;
    for (bool reached = true; reached; ++n) {
      std::string name = path + " allocation " + std::to_string(n);
      guard.begin(name);
      Model model(bytes.data(), bytes.size(), 0, settings, n);
      OrtolanStatus status = model.status;
      if (status == ORTOLAN_OK) {
        OrtolanRun* run = nullptr;
        status = ortolan_run_create(model.handle, &run);
        bool is_made = status == ORTOLAN_OK;
        Random random(settings.seed);
        std::vector<Buffer> feeds;
        if (!make_feeds(model.handle, settings, random, false, &feeds)) give_up("no feeds", name);
        for (int again = 0; status == ORTOLAN_OK && again < 2; ++again)
          status = run_twice(run, model.handle, feeds, guard, name);
        if (status == ORTOLAN_OUT_OF_MEMORY && run) {
          model.memory.fail_at = SIZE_MAX;  // a failed call leaves a usable run
          OrtolanStatus second = run_twice(run, model.handle, feeds, guard, name);
          if (is_made && second) give_up(ortolan_run_error(run), name);
          if (!is_made && !second) give_up("a run works that could not be made", name);
        }
        guard.set(nullptr);
        ortolan_run_release(run);
      }
      if (status && status != ORTOLAN_OUT_OF_MEMORY) give_up("another error than expected", name);
      reached = model.memory.calls > n;
      guard.end();
    }
    report(path, "oom", 0, std::to_string(n).c_str());
  }
}

// Threads with a run each on one model; beside them models come and go, and runs are cancelled.
void stress(const Settings& settings) {
  for (const std::string& path : settings.files) {
    std::vector<uint8_t> bytes = read_file(path);
    auto model = std::make_unique<Model>(bytes.data(), bytes.size(), 0, settings);
    if (model->status) give_up(ortolan_model_error(model->handle), path);
    std::atomic<size_t> wrong{0}, runs{0}, cancelled{0}, loads{0};
    std::atomic<bool> end{false};
    auto work = [&](uint64_t seed, std::atomic<OrtolanRun*>* shown) {
      Random random(seed);
      std::vector<Buffer> feeds;
      if (!make_feeds(model->handle, settings, random, false, &feeds)) give_up("no feeds", path);
      OrtolanRun* run = nullptr;
      if (ortolan_run_create(model->handle, &run)) give_up(ortolan_run_error(run), path);
      if (shown) *shown = run;
      Results expected;
      for (size_t i = 0; shown ? !end.load() : i < settings.repeat; ++i) {
        if (feed(run, feeds)) give_up(ortolan_run_error(run), path);
        OrtolanStatus status = ortolan_run_execute(run);
        if (shown && status == ORTOLAN_CANCELLED) {
          ++cancelled;
          continue;
        }
        if (status) give_up(ortolan_run_error(run), path);
        Results results;
        take_results(run, model->handle, &results);
        if (expected.buffers.empty())
          expected = std::move(results);
        else if (!(expected == results))
          ++wrong;
        ++runs;
      }
      if (shown)
        while (shown->exchange(nullptr) == nullptr) std::this_thread::yield();
      ortolan_run_release(run);
    };
    std::vector<std::thread> workers;
    for (uint64_t t = 0; t < 8; ++t) workers.emplace_back(work, settings.seed + t % 3, nullptr);
    std::atomic<OrtolanRun*> victim{nullptr};
    std::thread cancelling(work, settings.seed + 9, &victim);
    std::thread canceller([&] {
      while (!end.load()) {
        OrtolanRun* run = victim.exchange(nullptr);
        if (run) ortolan_run_cancel(run), victim = run;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
    std::thread loader([&] {
      for (; !end.load(); ++loads) {
        Model own(bytes.data(), bytes.size(), 0, settings);
        if (own.status) give_up(ortolan_model_error(own.handle), path);
      }
    });
    for (std::thread& thread : workers) thread.join();
    end = true;
    canceller.join();
    cancelling.join();
    loader.join();
    std::string text = std::to_string(runs) + " runs, " + std::to_string(cancelled) +
                       " cancelled, " + std::to_string(loads) + " models loaded";
    report(path, "stress", wrong ? 1 : 0, text.c_str());
    if (wrong) give_up("results differ between runs", path);
  }
}

bool parse(int count, char** words, Settings* settings) {
  for (int i = 1; i < count; ++i) {
    std::string word = words[i];
    if (word.rfind("--", 0) != 0) {
      settings->files.push_back(word);
      continue;
    }
    if (++i == count) return false;
    std::string value = words[i];
    if (word == "--mode") {
      settings->mode = value;
    } else if (word == "--threads") {
      settings->threads = value;
    } else if (word == "--seed") {
      settings->seed = strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--step") {
      settings->step = strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--skip") {
      settings->skip = strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--repeat") {
      settings->repeat = strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--integer") {
      settings->integer = strtoll(value.c_str(), nullptr, 10);
    } else if (word == "--rounds") {
      settings->rounds = strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--soft") {
      settings->soft = strtod(value.c_str(), nullptr);
    } else if (word == "--hard") {
      settings->hard = strtod(value.c_str(), nullptr);
    } else if (word == "--offsets" || word == "--dims") {
      std::vector<size_t>& list = word == "--dims" ? settings->dims : settings->offsets;
      list.clear();
      for (const char* at = value.c_str(); *at;) {
        char* rest;
        list.push_back(strtoull(at, &rest, 10));
        at = *rest ? rest + 1 : rest;
      }
    } else {
      return false;
    }
  }
  return !settings->files.empty() && !settings->offsets.empty();
}

}  // namespace

int main(int count, char** words) {
  Settings settings;
  if (!parse(count, words, &settings)) {
    fprintf(stderr,
            "harness [--mode run|truncate|pack|oom|stress] [--offsets 0,4,1] [--seed N] [--step N]"
            " [--skip N] [--threads N] [--repeat N] [--rounds N] [--dims N,N...] [--integer N]"
            " [--soft S] [--hard S] FILE...\n");
    return 2;
  }
  if (settings.mode == "stress") {
    stress(settings);
    return 0;
  }
  Guard guard(settings);
  if (settings.mode == "truncate")
    truncate_files(settings, guard);
  else if (settings.mode == "pack")
    run_pack(settings, guard);
  else if (settings.mode == "oom")
    run_out_of_memory(settings, guard);
  else
    run_files(settings, guard);
  return 0;
}
