// Runs models on a machine that has no Python: reads jobs that tests/cross.py wrote, and writes
// what came out after each, so that a crash loses nothing before it.
//
//   runner JOBS RESULTS [FIRST [LEAK]]      from job FIRST on
//
// All memory that a job takes must be given back by its end; "value" or "block" as LEAK loses some,
// to show that this is noticed: by the counts of the hooks, or by LeakSanitizer.
//
// All numbers are little-endian, u32 unless noted. A text is its length and its bytes. A tensor is
// type, rank, dims (i64), byte count (u64), bytes. JOBS: magic, count of jobs; a job: path of the
// model, steps; a step: inputs (name, tensor), carried (input, output of the step before), names of
// the outputs wanted. RESULTS, per job: the values of each step that ran to its end (their number
// first), the magic, status, message. A value: kind, then a tensor or a number of values.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ortolan/ortolan.h"

namespace {

constexpr uint32_t kMagic = 0x4a54524f;
constexpr int kMaxOutputs = 512;

[[noreturn]] void stop(const char* text) {
  fprintf(stderr, "runner: %s\n", text);
  exit(2);
}

struct Text {
  const char* data;
  uint32_t size;
  bool is(const char* other) const {
    return strlen(other) == size && memcmp(data, other, size) == 0;
  }
};

class Reader {
 public:
  Reader(const char* data, size_t size) : at_(data), end_(data + size) {}
  const char* bytes(uint64_t size) {
    if (size > static_cast<uint64_t>(end_ - at_)) stop("the jobs are cut off");
    const char* found = at_;
    at_ += size;
    return found;
  }
  template <class T>
  T number() {
    T value;
    memcpy(&value, bytes(sizeof(T)), sizeof(T));
    return value;
  }
  uint32_t count() { return number<uint32_t>(); }
  Text text() {
    uint32_t size = count();
    return {bytes(size), size};
  }

 private:
  const char* at_;
  const char* end_;
};

void put(FILE* file, const void* data, size_t size) {
  if (size && fwrite(data, 1, size, file) != size) stop("the results cannot be written");
}
void put_count(FILE* file, size_t value) {
  uint32_t number = static_cast<uint32_t>(value);
  put(file, &number, sizeof(number));
}
void put_text(FILE* file, const char* text) {
  size_t size = text ? strlen(text) : 0;
  put_count(file, size);
  put(file, text, size);
}

void put_value(FILE* file, const OrtolanValue* value) {
  OrtolanKind kind = ortolan_value_kind(value);
  put_count(file, kind);
  if (kind != ORTOLAN_TENSOR) {
    size_t count = ortolan_value_count(value);
    put_count(file, count);
    for (size_t i = 0; i < count; ++i) {
      OrtolanValue* item = ortolan_value_item(value, i);
      put_value(file, item);
      ortolan_value_release(item);
    }
    return;
  }
  OrtolanTensor tensor = {};
  tensor.size = sizeof(tensor);
  if (ortolan_value_tensor(value, &tensor)) stop("a value has no tensor");
  put_count(file, static_cast<uint32_t>(tensor.type));
  put_count(file, tensor.rank);
  put(file, tensor.dims, tensor.rank * sizeof(int64_t));
  uint64_t bytes = tensor.bytes;
  put(file, &bytes, sizeof(bytes));
  put(file, tensor.data, tensor.bytes);
}

// What the runtime holds of the memory that it asked for.
struct Memory {
  size_t bytes = 0, blocks = 0;
  uint64_t taken = 0;  // blocks, over all jobs

  static void* take(void* user, size_t bytes) {
    auto& memory = *static_cast<Memory*>(user);
    void* block = nullptr;
    if (posix_memalign(&block, 64, bytes ? bytes : 1)) return nullptr;
    memory.bytes += bytes, ++memory.blocks, ++memory.taken;
    return block;
  }
  static void give(void* user, void* block, size_t bytes) {
    auto& memory = *static_cast<Memory*>(user);
    memory.bytes -= bytes, --memory.blocks;
    free(block);
  }
};
Memory memory;

constexpr uint32_t kLost = 1000;  // no status of the runtime
enum class Loss { kNone, kValue, kBlock } loss = Loss::kNone;

int index_of(const OrtolanModel* model, OrtolanSide side, Text name) {
  size_t count = ortolan_model_count(model, side);
  for (size_t i = 0; i < count; ++i)
    if (name.is(ortolan_model_name(model, side, i))) return static_cast<int>(i);
  return -1;
}

// A model in use: its run, copies of the inputs, and the outputs of the last step.
class Session {
 public:
  explicit Session(Text path) {
    char name[4096] = {};
    if (path.size >= sizeof(name)) stop("a path is too long");
    memcpy(name, path.data, path.size);
    const OrtolanOption options[] = {{"session.intra_op_num_threads", "1"}};
    const OrtolanHooks hooks = {sizeof(hooks), &memory, Memory::take, Memory::give, nullptr};
    status_ = ortolan_model_open(name, options, 1, &hooks, &model_);
    if (!status_) status_ = ortolan_run_create(model_, &run_);
  }
  ~Session() {
    forget();
    ortolan_run_release(run_);
    ortolan_model_release(model_);
  }

  OrtolanStatus status() const { return status_; }
  const char* error() const { return run_ ? ortolan_run_error(run_) : ortolan_model_error(model_); }
  size_t outputs() const { return ortolan_model_count(model_, ORTOLAN_OUTPUT); }
  const OrtolanValue* output(int index) const { return outputs_[index]; }
  int output_index(Text name) const { return index_of(model_, ORTOLAN_OUTPUT, name); }

  void lose() { outputs_[0] = nullptr; }

  // Reads a step's inputs in any case, and runs it if nothing has failed yet.
  void step(Reader& jobs) {
    for (uint32_t n = jobs.count(); n; --n) feed(jobs);
    for (uint32_t n = jobs.count(); n; --n) {
      Text to = jobs.text(), from = jobs.text();
      if (status_) continue;
      int index = index_of(model_, ORTOLAN_INPUT, to), source = output_index(from);
      if (index < 0 || source < 0) stop("an input or output has another name");
      status_ = ortolan_run_input_value(run_, static_cast<size_t>(index), outputs_[source]);
    }
    if (!status_) status_ = ortolan_run_execute(run_);
    for (; copies_; --copies_) free(copy_[copies_ - 1]);
    forget();
    if (status_) return;
    if (outputs() > kMaxOutputs) stop("too many outputs");
    for (size_t i = 0; i < outputs(); ++i) outputs_[i] = ortolan_run_take(run_, i);
  }

 private:
  void feed(Reader& jobs) {
    Text name = jobs.text();
    OrtolanTensor tensor = {};
    tensor.size = sizeof(tensor);
    tensor.type = static_cast<int32_t>(jobs.count());
    tensor.rank = jobs.count();
    if (tensor.rank > ORTOLAN_MAX_RANK) stop("a tensor has too many dimensions");
    for (uint32_t i = 0; i < tensor.rank; ++i) tensor.dims[i] = jobs.number<int64_t>();
    tensor.bytes = static_cast<size_t>(jobs.number<uint64_t>());
    const char* data = jobs.bytes(tensor.bytes);
    if (status_) return;
    int index = index_of(model_, ORTOLAN_INPUT, name);
    if (index < 0 || copies_ == kMaxOutputs) stop("an input has another name");
    if (posix_memalign(&copy_[copies_], 64, tensor.bytes + 1)) stop("no memory");
    tensor.data = memcpy(copy_[copies_++], data, tensor.bytes);
    status_ = ortolan_run_input(run_, static_cast<size_t>(index), &tensor);
  }
  void forget() {
    for (int i = 0; i < kMaxOutputs; ++i)
      if (outputs_[i]) ortolan_value_release(outputs_[i]), outputs_[i] = nullptr;
  }

  OrtolanModel* model_ = nullptr;
  OrtolanRun* run_ = nullptr;
  OrtolanStatus status_ = ORTOLAN_OK;
  OrtolanValue* outputs_[kMaxOutputs] = {};
  void* copy_[kMaxOutputs] = {};
  int copies_ = 0;
};

// Reads past a job.
void skip(Reader& jobs) {
  jobs.text();
  for (uint32_t steps = jobs.count(); steps; --steps) {
    for (uint32_t n = jobs.count(); n; --n) {
      jobs.text();
      jobs.count();
      jobs.bytes(uint64_t{jobs.count()} * sizeof(int64_t));
      jobs.bytes(jobs.number<uint64_t>());
    }
    for (uint32_t n = 2 * jobs.count(); n; --n) jobs.text();
    for (uint32_t n = jobs.count(); n; --n) jobs.text();
  }
}

// Runs the steps; answers the status, and the text of an error.
uint32_t run_steps(Reader& jobs, FILE* results, char* text, size_t room) {
  Session session(jobs.text());
  for (uint32_t steps = jobs.count(); steps; --steps) {
    session.step(jobs);
    uint32_t wanted = jobs.count();
    if (!session.status()) put_count(results, wanted);
    for (; wanted; --wanted) {
      int index = session.output_index(jobs.text());
      if (session.status()) continue;
      if (index < 0) stop("an output has another name");
      put_value(results, session.output(index));
    }
  }
  if (loss == Loss::kValue) session.lose();
  if (session.status()) snprintf(text, room, "%s", session.error());
  return static_cast<uint32_t>(session.status());
}

void do_job(Reader& jobs, FILE* results) {
  char text[4096] = "";
  uint32_t status = run_steps(jobs, results, text, sizeof(text));
  if (memory.blocks || memory.bytes) {
    status = kLost;
    snprintf(text, sizeof(text), "%zu bytes in %zu blocks were not given back", memory.bytes,
             memory.blocks);
    memory.bytes = memory.blocks = 0;
  }
  put_count(results, kMagic);
  put_count(results, status);
  put_text(results, text);
  fflush(results);
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) stop("runner JOBS RESULTS [FIRST [LEAK]]");
  FILE* file = fopen(words[1], "rb");
  if (!file || fseek(file, 0, SEEK_END)) stop("the jobs cannot be read");
  size_t size = static_cast<size_t>(ftell(file));
  char* data = static_cast<char*>(malloc(size + 1));
  rewind(file);
  if (!data || fread(data, 1, size, file) != size) stop("the jobs cannot be read");
  fclose(file);
  FILE* results = fopen(words[2], "wb");
  if (!results) stop("the results cannot be written");
  Reader jobs(data, size);
  if (jobs.count() != kMagic) stop("this is no file of jobs");
  uint32_t first = count > 3 ? static_cast<uint32_t>(strtoul(words[3], nullptr, 10)) : 0;
  if (count > 4) loss = strcmp(words[4], "value") ? Loss::kBlock : Loss::kValue;
  if (loss == Loss::kBlock) memset(Memory::take(&memory, 100), 1, 100), memory = {};
  for (uint32_t i = 0, total = jobs.count(); i < total; ++i)
    i < first ? skip(jobs) : do_job(jobs, results);
  fclose(results);
  free(data);
  printf("%s, %llu blocks of memory were given back\n", ortolan_instruction_set(),
         static_cast<unsigned long long>(memory.taken));
  return 0;
}
