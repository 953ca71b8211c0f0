// Loads model files through the C interface as an attacker would: exact-size copies at odd offsets,
// truncated, with little memory, from many threads. Built with sanitizers by sanitize.py; prints a
// line per attempt: "case <tab> stage <tab> code <tab> text". A sanitizer's report ends the
// process.
#include <errno.h>

#include <chrono>
#include <mutex>
#include <thread>

#include "driver.h"

namespace {

using namespace driver;

using Clock = std::chrono::steady_clock;

struct Settings : Feeding {
  std::vector<size_t> offsets = {0};
  std::vector<std::string> files;
  std::string threads = "1";
  std::string mode = "run";
  uint64_t seed = 1;
  size_t step = 997;           // between truncations in the middle
  size_t edge = 1024;          // bytes at both ends of which every truncation is tried
  size_t skip = 0;             // cases of a pack that were done before
  size_t repeat = 1000;        // runs per thread
  size_t rounds = 3;           // sets of feeds per model
  double soft = 3, hard = 20;  // seconds until a run is cancelled, until the process gives up
};

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
    OrtolanStatus ended = run_twice(run, model.handle, feeds, name, [&] { guard.set(run); });
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

// Every length in the first and last bytes of `edge`, some between.
void truncate_files(const Settings& settings, Guard& guard) {
  for (const std::string& path : settings.files) {
    std::vector<uint8_t> bytes = read_file(path);
    size_t n = bytes.size();
    for (size_t length = 0; length < n;) {
      try_bytes(bytes.data(), length, settings.offsets[length % settings.offsets.size()], settings,
                guard, path + "[:" + std::to_string(length) + "]");
      bool edge = length < settings.edge || length + settings.edge >= n;
      size_t next = length + (edge ? 1 : settings.step);
      if (!edge && next + settings.edge > n) next = n - settings.edge;
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
          status = run_twice(run, model.handle, feeds, name, [&] { guard.set(run); });
        if (status == ORTOLAN_OUT_OF_MEMORY && run) {
          model.memory.fail_at = SIZE_MAX;  // a failed call leaves a usable run
          OrtolanStatus second = run_twice(run, model.handle, feeds, name, [&] { guard.set(run); });
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
        if (expected.empty())
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
    } else if (word == "--edge") {
      settings->edge = strtoull(value.c_str(), nullptr, 10);
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
            " [--edge N] [--skip N] [--threads N] [--repeat N] [--rounds N] [--dims N,N...] "
            "[--integer N]"
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
