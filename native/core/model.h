// A loaded model: verified bytes, graphs with bound kernels, constants. Immutable once loaded, but
// for what kernels put off until the first run (kernels/once.h), and shared by threads; runs refer
// to it.
#pragma once

#include "core/context.h"
#include "core/graph.h"
#include "core/ort_view.h"
#include "core/platform.h"
#include "core/threads.h"

namespace ortolan {

using LogFunction = void (*)(void* user, int32_t severity, const char* text);

// Where tensors without elements are: kernels may compute with their addresses, null they may not.
alignas(kAlignment) inline constexpr char kNothing[kAlignment] = {};

constexpr size_t kMaxTensorBytes =
    static_cast<size_t>(min<uint64_t>(uint64_t{1} << 34, SIZE_MAX / 2));

// What a caller may limit for each run.
struct Limits {
  uint64_t run_bytes = uint64_t{1} << 36;  // arena, heap, plans and outputs
  uint64_t iterations = 100000000;         // of all loops of a run together
  uint64_t milliseconds = 0;               // 0: without end. Loading has as many
};

struct Options {
  Allocator allocator;  // the caller's, not limited: of what lives longer than models and runs
  LogFunction log = nullptr;
  void* log_user = nullptr;
  uint32_t threads = 0;           // 0: one per processor
  uint8_t instruction_set = 255;  // highest level that may be used
  bool flush_denormals = false;
  Limits limits;
  uint64_t max_model_bytes = uint64_t{1} << 36;  // of the files and what loading takes beside them
  size_t max_tensor_bytes = kMaxTensorBytes;     // that a node computes
  size_t winograd_bytes = 64 << 20;  // that transformed weights may take beyond plain ones
  uint64_t max_nodes = 1000000;
  uint64_t max_depth = 64;  // of graphs in graphs
  bool is_seeded = false;   // random operators without a seed of their own use `seed`
  uint64_t seed = 0;
  size_t recorded_lanes = 0;  // see Context::recorded_lanes
};

// When what begins now and may take so long must be over; 0: never.
inline uint64_t deadline_of(uint64_t milliseconds) {
  constexpr uint64_t kNanoseconds = 1000000, kLongest = uint64_t{1} << 40;
  return milliseconds ? platform::nanoseconds() + min(milliseconds, kLongest) * kNanoseconds : 0;
}

// What a model says of itself. All texts are followed by a zero, or null.
struct Metadata {
  struct Property {
    String key, value;
  };
  enum Name {
    kOrtVersion,
    kProducerName,
    kProducerVersion,
    kDomain,
    kDescription,
    kGraphName,
    kGraphDescription,
    kNames
  };
  String texts[kNames];
  int64_t model_version = 0, ir_version = 0;
  Span<Property> properties;
};

class Model {
 public:
  explicit Model(const Options& options)
      : options(options),
        budget(options.allocator),
        zone(budget.allocator()),
        graphs(budget.allocator()),
        mappings_(budget.allocator()) {}

  // Reads a file, of ORT format or of ONNX if the build has its reader, from bytes that outlive the
  // model. A base that is not aligned to 4 is copied once.
  Status load(const uint8_t* data, size_t size);
  // Maps the file.
  Status open(const char* path);

  // The bytes of "<path>.data", where weights lie that the file has no room for; mapped when asked
  // for first.
  Status external(platform::Mapping* mapping);
  // Memory of loading and of what stays of it.
  const Allocator& allocator() const { return budget.allocator(); }
  // Counts a file to the model's bytes.
  Status count_file(size_t bytes);
  // While the model is being loaded.
  Status check_time();
  // Keeps a mapping as long as the model.
  [[nodiscard]] bool keep(const platform::Mapping& mapping) { return mappings_.push(mapping); }
  // While it is being opened; empty if it is read from bytes.
  String path() const { return path_; }

  const Graph& main() const { return *graphs[0]; }

  void retain() { __atomic_fetch_add(&references_, 1, __ATOMIC_RELAXED); }
  // Gives a reference back; the last one ends the model.
  static void release(Model* model);
  ~Model() {
    if (!platform::kHasFiles) return;
    platform::unmap_file(mapping_);
    platform::unmap_file(external_);
    for (const platform::Mapping& mapping : mappings_) platform::unmap_file(mapping);
  }

  Options options;
  ErrorText error;
  Budget budget;
  Zone zone;
  List<Graph*> graphs;
  Metadata metadata;
  size_t file_bytes = 0;
  ThreadPool* pool = nullptr;
  uint32_t threads = 1;
  uint8_t level = 0;  // instruction set in use
  bool loaded = false;
  bool copied = false;  // the bytes were misaligned

 private:
  Status read(const uint8_t* data, size_t size);

  uint64_t deadline_ = 0;  // of loading
  platform::Mapping mapping_;
  platform::Mapping external_;
  List<platform::Mapping> mappings_;
  String path_;  // while it is being opened
  uint32_t references_ = 1;
};

}  // namespace ortolan
