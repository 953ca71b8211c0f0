// What programs that try models share: memory that is counted and fails when told to, feeds drawn
// for what a model declares, and a run that is made twice and must give the same bytes twice.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "ortolan/ortolan.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* memory);
#define EXACT_SIZES 1
#endif
#endif

namespace driver {

// Ends the process as a crash does, so that libFuzzer keeps the input.
[[noreturn]] inline void give_up(const char* what, const std::string& name) {
  fflush(stdout);
  fprintf(stderr, "HARNESS: %s: %s\n", what, name.c_str());
  abort();
}

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

// ---- Memory: counted, limited, and failing when told to.

struct Memory {
  std::atomic<size_t> live{0}, calls{0};
  size_t limit = size_t{1} << 30;
  size_t fail_at = SIZE_MAX;  // the call that fails, once
  uint8_t filling = 0xcd;     // of the first bytes of a block
};

inline void* take(void* user, size_t bytes) {
  auto& memory = *static_cast<Memory*>(user);
  if (memory.calls++ == memory.fail_at) return nullptr;
  if (bytes > memory.limit || memory.live + bytes > memory.limit) return nullptr;
  void* block = nullptr;
  if (posix_memalign(&block, 64, bytes ? bytes : 1) != 0) return nullptr;
  memset(block, memory.filling, bytes < 4096 ? bytes : 4096);
  memory.live += bytes;
  return block;
}

inline void give(void* user, void* block, size_t bytes) {
#if defined(EXACT_SIZES)
  if (block && __sanitizer_get_allocated_size(block) != (bytes ? bytes : 1))
    give_up("memory was given back with another size", std::to_string(bytes));
#endif
  static_cast<Memory*>(user)->live -= bytes;
  free(block);
}

// ---- Feeds.

struct Feeding {
  int64_t integer = INT64_MIN;           // what integers are fed; this: at random
  std::vector<size_t> dims;              // of dimensions without a size, in turn; else 1 to 3
  size_t most_bytes = size_t{16} << 20;  // of a feed; what is declared larger is not fed
};

inline size_t element_bytes(int32_t type) {
  static const uint8_t kBytes[] = {0, 4,  1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8,
                                   8, 16, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  return type >= 0 && type < static_cast<int32_t>(sizeof(kBytes)) ? kBytes[type] : 0;
}
constexpr int32_t kString = 8;

// Small numbers, and one in 16 that code gets wrong.
inline int64_t draw_integer(Random& random) {
  static const int64_t kHostile[] = {INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX, 1ll << 32,
                                     1ll << 40, 1ll << 62, -1000,     1000,      255};
  if (random.below(16) == 0) return kHostile[random.below(10)];
  return static_cast<int64_t>(random.below(7)) - 2;
}

inline double draw_number(Random& random) {
  static const double kHostile[] = {__builtin_nan(""),
                                    __builtin_inf(),
                                    -__builtin_inf(),
                                    1e30,
                                    -3e38,
                                    1e-40,
                                    -0.0,
                                    2147483648.0,
                                    9e18,
                                    1e5};
  if (random.below(16) == 0) return kHostile[random.below(10)];
  return static_cast<double>(random.below(2001)) / 1000 - 1;
}

inline void fill(uint8_t* to, size_t bytes, int32_t type, Random& random, bool zero,
                 int64_t integer) {
  size_t width = element_bytes(type);
  bool is_fixed = integer != INT64_MIN;
  if (bytes) memset(to, 0, bytes);
  if ((zero && !is_fixed) || width == 0) return;
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

// A block of strings as the C interface has them.
inline std::vector<uint8_t> string_block(size_t count, Random& random) {
  static const char* const kTexts[] = {
      "",   "a",      "b ",     "the quick", "\xc3\xa4\xf0\x9f\x98\x80",
      "12", "-1.5e3", "A b\tC", "zebra",     "nan"};
  std::string text;
  std::vector<uint32_t> ends = {static_cast<uint32_t>(4 * (count + 1))};
  for (size_t i = 0; i < count; ++i) {
    text += kTexts[random.below(10)];
    ends.push_back(static_cast<uint32_t>(ends[0] + text.size()));
  }
  std::vector<uint8_t> block(ends[0] + text.size());
  memcpy(block.data(), ends.data(), ends[0]);
  if (!text.empty()) memcpy(block.data() + ends[0], text.data(), text.size());
  return block;
}

struct Buffer {
  std::unique_ptr<uint8_t[]> bytes;
  OrtolanTensor tensor{};
  std::unique_ptr<OrtolanValue, void (*)(OrtolanValue*)> value{nullptr, ortolan_value_release};
};

// Exactly as many bytes as the tensor needs; false when the declared shape is out of reach.
inline bool make_feed(const OrtolanTensor& declared, const Feeding& rules, Random& random,
                      bool zero, size_t* unknown, Buffer* feed) {
  OrtolanTensor& t = feed->tensor;
  t = declared;
  t.size = sizeof(t);
  if (t.rank == 0xffffffffu) {
    t.rank = random.below(5);
    for (int64_t& dim : t.dims) dim = -1;
  }
  size_t count = 1;
  for (uint32_t d = 0; d < t.rank; ++d) {
    if (t.dims[d] < 0 && rules.dims.empty()) t.dims[d] = 1 + random.below(3);
    if (t.dims[d] < 0)
      t.dims[d] = static_cast<int64_t>(rules.dims[(*unknown)++ % rules.dims.size()]);
    if (__builtin_mul_overflow(count, static_cast<size_t>(t.dims[d]), &count)) return false;
    if (count > rules.most_bytes) return false;
  }
  if (t.type == kString) {
    if (count > rules.most_bytes / 64) return false;
    std::vector<uint8_t> block = string_block(count, random);
    t.bytes = block.size();
    feed->bytes.reset(new uint8_t[t.bytes]);
    memcpy(feed->bytes.get(), block.data(), t.bytes);
  } else {
    t.bytes = count * element_bytes(t.type);
    if (t.bytes > rules.most_bytes) return false;
    feed->bytes.reset(new uint8_t[t.bytes]);
    fill(feed->bytes.get(), t.bytes, t.type, random, zero, rules.integer);
  }
  t.data = feed->bytes.get();
  return true;
}

// A container of the type that `text` writes, such as "seq(map(int64,tensor(float)))"; of random
// length, with tensors of random shape. Null when the type is not one that is made here.
inline OrtolanValue* make_container(const std::string& text, int32_t element, Random& random) {
  Feeding rules;
  OrtolanTensor declared{};
  declared.type = element;
  declared.rank = 0xffffffffu;
  size_t unknown = 0;
  Buffer buffer;
  OrtolanValue* made = nullptr;
  if (text.rfind("tensor(", 0) == 0) {
    if (make_feed(declared, rules, random, false, &unknown, &buffer))
      ortolan_value_make_tensor(&buffer.tensor, &made);
    return made;
  }
  bool is_map = text.rfind("map(", 0) == 0, is_sequence = text.rfind("seq(", 0) == 0;
  if (!is_map && !is_sequence && text.rfind("optional(", 0) != 0) return nullptr;
  std::vector<OrtolanValue*> items;
  if (is_map) {
    uint32_t count = random.below(4);
    for (int32_t type : {text.rfind("map(string", 0) == 0 ? kString : 7, element}) {
      declared.type = type;
      declared.rank = 1;
      declared.dims[0] = count;
      OrtolanValue* item = nullptr;
      if (make_feed(declared, rules, random, false, &unknown, &buffer))
        ortolan_value_make_tensor(&buffer.tensor, &item);
      items.push_back(item);
    }
  } else {
    std::string inner = text.substr(text.find('(') + 1);
    for (uint32_t n = random.below(is_sequence ? 4 : 2); n; --n)
      items.push_back(make_container(inner, element, random));
  }
  declared.size = sizeof(declared);
  OrtolanKind kind = is_map ? ORTOLAN_MAP : is_sequence ? ORTOLAN_SEQUENCE : ORTOLAN_OPTIONAL;
  ortolan_value_make(kind, &declared, items.data(), items.size(), &made);
  for (OrtolanValue* item : items) ortolan_value_release(item);
  return made;
}

inline OrtolanStatus feed(OrtolanRun* run, std::vector<Buffer>& feeds) {
  for (size_t i = 0; i < feeds.size(); ++i) {
    OrtolanStatus status = ORTOLAN_OK;
    if (feeds[i].value)
      status = ortolan_run_input_value(run, i, feeds[i].value.get());
    else if (feeds[i].tensor.size)
      status = ortolan_run_input(run, i, &feeds[i].tensor);
    if (status) return status;
  }
  return ORTOLAN_OK;
}

// False when a declared input cannot be fed.
inline bool make_feeds(const OrtolanModel* model, const Feeding& rules, Random& random, bool zero,
                       std::vector<Buffer>* feeds) {
  size_t unknown = 0;
  feeds->clear();
  feeds->resize(ortolan_model_count(model, ORTOLAN_INPUT));
  for (size_t i = 0; i < feeds->size(); ++i) {
    if (ortolan_model_overridable(model, i) && random.below(4)) continue;
    OrtolanTensor declared{};
    declared.size = sizeof(declared);
    ortolan_model_tensor(model, ORTOLAN_INPUT, i, &declared);
    std::string type = ortolan_model_type(model, ORTOLAN_INPUT, i);
    if (type.rfind("tensor(", 0) != 0)
      (*feeds)[i].value.reset(make_container(type, declared.type, random));
    else if (!make_feed(declared, rules, random, zero, &unknown, &(*feeds)[i]))
      return false;
  }
  return true;
}

// ---- Results.

// A value as it came out: all of a container's bytes in one string.
struct Result {
  std::string bytes;
  OrtolanTensor tensor{};  // type 0: a container
  bool operator==(const Result& other) const { return bytes == other.bytes; }
};
using Results = std::vector<Result>;

inline void append(const OrtolanValue* value, std::string* bytes) {
  auto add = [&](const auto& number) {
    bytes->append(reinterpret_cast<const char*>(&number), sizeof(number));
  };
  OrtolanTensor tensor{};
  tensor.size = sizeof(tensor);
  add(ortolan_value_kind(value));
  if (ortolan_value_tensor(value, &tensor) == ORTOLAN_OK) {
    add(tensor.type), add(tensor.rank), add(tensor.bytes);
    for (uint32_t d = 0; d < tensor.rank; ++d) add(tensor.dims[d]);
    if (tensor.bytes) bytes->append(static_cast<const char*>(tensor.data), tensor.bytes);
    return;
  }
  size_t count = ortolan_value_count(value);
  add(count);
  for (size_t i = 0; i < count; ++i) {
    OrtolanValue* item = ortolan_value_item(value, i);
    if (!item) give_up("a container lacks an item", std::to_string(i));
    append(item, bytes);
    ortolan_value_release(item);
  }
}

inline void take_results(OrtolanRun* run, const OrtolanModel* model, Results* results) {
  for (size_t i = 0; i < ortolan_model_count(model, ORTOLAN_OUTPUT); ++i) {
    OrtolanValue* value = ortolan_run_take(run, i);
    if (!value) give_up("a run that succeeded lacks an output", std::to_string(i));
    Result& result = results->emplace_back();
    result.tensor.size = sizeof(OrtolanTensor);
    if (ortolan_value_tensor(value, &result.tensor)) result.tensor.type = 0;
    result.tensor.data = nullptr;
    append(value, &result.bytes);
    ortolan_value_release(value);
  }
}

// Whether an operator may draw other numbers in each run.
inline bool is_random(const OrtolanModel* model) {
  static const char* const kRandom[] = {"Random", "Bernoulli", "Multinomial", "Dropout"};
  int64_t graphs = 0;
  ortolan_model_number(model, "graphs", &graphs);
  for (size_t g = 0; g < static_cast<size_t>(graphs); ++g)
    for (size_t n = 0; const char* type = ortolan_model_node(model, g, n, "type"); ++n)
      for (const char* name : kRandom)
        if (strncmp(type, name, strlen(name)) == 0) return true;
  return false;
}

// Once into the runtime's memory, again with the same plan and numbers into the caller's, of exact
// size and with other bytes in it: what a kernel leaves unwritten differs. `before` is called
// before each of the two.
template <class Before>
OrtolanStatus run_twice(OrtolanRun* run, const OrtolanModel* model, std::vector<Buffer>& feeds,
                        const std::string& name, const Before& before) {
  before();
  if (OrtolanStatus status = feed(run, feeds)) return status;
  if (OrtolanStatus status = ortolan_run_execute(run)) return status;
  Results first;
  take_results(run, model, &first);
  std::vector<std::unique_ptr<uint8_t[]>> places(first.size());
  before();
  if (OrtolanStatus status = feed(run, feeds)) return status;
  for (size_t i = 0; i < first.size(); ++i) {
    OrtolanTensor place = first[i].tensor;
    if (place.type == 0 || place.type == kString) continue;
    places[i].reset(new uint8_t[place.bytes]);
    if (place.bytes) memset(places[i].get(), 0xa5, place.bytes);
    place.data = places[i].get();
    if (OrtolanStatus status = ortolan_run_output(run, i, &place)) return status;
  }
  if (OrtolanStatus status = ortolan_run_execute(run)) return status;
  bool may_differ = is_random(model);
  for (size_t i = 0; i < first.size(); ++i) {
    OrtolanValue* value = ortolan_run_take(run, i);
    if (!value != !!places[i]) give_up("an output is in two places or in none", name);
    std::string second;
    if (value) append(value, &second);
    ortolan_value_release(value);
    size_t bytes = first[i].tensor.bytes;
    const char* own = first[i].bytes.data() + first[i].bytes.size() - bytes;
    bool same = places[i] ? bytes == 0 || memcmp(places[i].get(), own, bytes) == 0
                          : second == first[i].bytes;
    if (!same && !may_differ) give_up("the second run gives other bytes", name);
  }
  return ORTOLAN_OK;
}

// Everything that the interface tells about a model is read, so that a sanitizer sees it.
inline void describe(const OrtolanModel* model) {
  size_t sum = 0;
  auto look = [&](const char* text) { sum += text ? strlen(text) : 0; };
  for (OrtolanSide side : {ORTOLAN_INPUT, ORTOLAN_OUTPUT})
    for (size_t i = 0; i < ortolan_model_count(model, side); ++i) {
      OrtolanTensor tensor{};
      tensor.size = sizeof(tensor);
      look(ortolan_model_name(model, side, i));
      look(ortolan_model_type(model, side, i));
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

}  // namespace driver
