// What the programs that try a built library have in common, whatever system they are for: load a
// model by the C interface, run it on given inputs, hand out what came. The including file says how
// a function is found and how bytes are written.
#pragma once

#include "core/base.h"
#include "ortolan/ortolan.h"

namespace ortolan::probing {

struct Record {  // of a tensor in FEEDS and RESULTS; its bytes follow, padded to 8
  uint32_t index, type, rank, reserved;
  int64_t dims[ORTOLAN_MAX_RANK];
  uint64_t bytes;
};

constexpr int32_t kString = 8;

// An error instead of outputs.
template <class Results>
void put_failure(Results& results, OrtolanStatus status, const char* text) {
  int32_t words[2] = {status, static_cast<int32_t>(from_c(text).size)};
  results.put(words, sizeof(words));
  results.put(text, from_c(text).size);
}

// `library.find<F>(name)` answers a function, `results.put(data, bytes)` writes.
template <class Library, class Results>
void run_model(const Library& library, const uint8_t* file, size_t size, const uint8_t* feeds,
               Results& results) {
#define FUNCTION(name) \
  auto* name = library.template find<decltype(::ortolan_##name)>("ortolan_" #name)
  FUNCTION(model_load);
  FUNCTION(model_error);
  FUNCTION(model_count);
  FUNCTION(run_create);
  FUNCTION(run_input);
  FUNCTION(run_execute);
  FUNCTION(run_error);
  FUNCTION(run_take);
  FUNCTION(value_tensor);
#undef FUNCTION
  OrtolanModel* model = nullptr;
  OrtolanStatus status = model_load(file, size, nullptr, 0, nullptr, &model);
  if (status) return put_failure(results, status, model ? model_error(model) : "");
  OrtolanRun* run = nullptr;
  status = run_create(model, &run);
  if (status) return put_failure(results, status, run ? run_error(run) : "");
  uint32_t count = *reinterpret_cast<const uint32_t*>(feeds);
  feeds += 8;
  for (uint32_t i = 0; i < count; ++i) {
    Record record;
    copy(&record, feeds, sizeof(record));
    OrtolanTensor tensor = {};
    tensor.size = sizeof(tensor);
    tensor.type = static_cast<int32_t>(record.type);
    tensor.rank = record.rank;
    tensor.data = const_cast<uint8_t*>(feeds + sizeof(record));
    tensor.bytes = static_cast<size_t>(record.bytes);
    copy(tensor.dims, record.dims, sizeof(record.dims));
    if ((status = run_input(run, record.index, &tensor)))
      return put_failure(results, status, run_error(run));
    feeds += sizeof(record) + round_up(static_cast<size_t>(record.bytes), 8);
  }
  if ((status = run_execute(run))) return put_failure(results, status, run_error(run));
  int32_t head[2] = {0, static_cast<int32_t>(model_count(model, ORTOLAN_OUTPUT))};
  results.put(head, sizeof(head));
  for (int32_t i = 0; i < head[1]; ++i) {
    OrtolanTensor tensor = {};
    tensor.size = sizeof(tensor);
    OrtolanValue* value = run_take(run, static_cast<size_t>(i));
    // Sequences and maps are type 0; of strings, the shape is handed out.
    if (!value || value_tensor(value, &tensor)) tensor.type = 0, tensor.rank = 0;
    if (tensor.type == 0 || tensor.type == kString) tensor.bytes = 0;
    Record record = {static_cast<uint32_t>(i),
                     static_cast<uint32_t>(tensor.type),
                     tensor.rank,
                     0,
                     {},
                     tensor.bytes};
    for (uint32_t k = 0; k < tensor.rank; ++k) record.dims[k] = tensor.dims[k];
    results.put(&record, sizeof(record));
    results.put(tensor.data, tensor.bytes);
    const char padding[8] = {};
    results.put(padding, round_up(tensor.bytes, 8) - tensor.bytes);
  }
}

}  // namespace ortolan::probing
