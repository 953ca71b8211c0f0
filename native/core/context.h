// All that a kernel sees: its operands, attributes, state, scratch and threads. Kernels include
// this header and no other of the core. The three steps are design.md's: prepare once per model,
// infer when a shape changed, run for each call.
#pragma once

#include "core/graph.h"
#include "core/memory.h"
#include "core/status.h"

namespace ortolan {

class Run;
class ThreadPool;

// A value of a running frame. Where it has layers, `data` is a Container.
struct Slot : Typed {
  enum State : uint8_t {
    kEmpty,  // nothing known
    kShape,  // shape known, bytes not yet
    kReady,  // bytes known
  };
  void* data = nullptr;
  Shape shape;
  State state = kEmpty;
  bool known = false;            // bytes are known whenever the plan of the frame is valid
  uint32_t alias_of = kNoValue;  // infer found that the bytes are those of this value...
  size_t alias_offset = 0;       // ... from here on
  bool allows_gaps = false;      // infer: the kernel can leave gaps between rows of channels
  size_t pitch = 0;              // bytes from row to row of what lies in a larger tensor; else 0
  void* block = nullptr;         // of the run's heap, one reference; null: somebody else's bytes
};

// What a container holds: blocks of the run's heap, each with one reference of the container. The
// bytes of a tensor, or again a Container. An optional has one item or none, a map its keys and its
// values.
struct Item {
  void* block = nullptr;
  ValueType type;
  Shape shape;
};
struct Container {
  size_t count = 0;
  Item* items() { return reinterpret_cast<Item*>(this + 1); }
};

class Context {
 public:
  // Operands.
  size_t input_count() const { return node_->inputs.size; }
  size_t output_count() const { return node_->outputs.size; }
  bool has_input(size_t i) const { return i < node_->inputs.size && node_->inputs[i] != kNoValue; }
  bool has_output(size_t i) const {
    return i < node_->outputs.size && node_->outputs[i] != kNoValue;
  }
  DataType input_type(size_t i) const { return input(i).type; }
  DataType output_type(size_t i) const { return output(i).type; }
  // In prepare what the file announces: unknown dimensions are -1, an unknown rank is 0.
  const Shape& input_shape(size_t i) const { return input(i).shape; }
  Layout input_layout(size_t i) const { return input(i).layout; }
  Layout output_layout(size_t i) const { return output(i).layout; }
  const Shape& output_shape(size_t i) const { return output(i).shape; }
  // Dimensions in memory order.
  Shape input_physical(size_t i) const { return physical(input(i)); }
  Shape output_physical(size_t i) const { return physical(output(i)); }

  // In run: the bytes. In infer: only of inputs named by the catalog as deciding shapes.
  template <class T>
  const T* input_data(size_t i) const {
    return static_cast<const T*>(input(i).data);
  }
  template <class T>
  T* output_data(size_t i) const {
    return static_cast<T*>(output(i).data);
  }
  // Integers of an int32 or int64 tensor; `values` holds at most `capacity`. False if there are
  // more or the type is another.
  bool input_ints(size_t i, int64_t* values, size_t capacity, size_t* count) const;

  // Attributes, with the standard's default given by the caller.
  ORTOLAN_INLINE const Attribute* attribute(String name) const {
    return find_attribute(*node_, name);
  }
  int64_t attribute_int(String name, int64_t fallback) const;
  float attribute_float(String name, float fallback) const;
  String attribute_string(String name, String fallback) const;
  // Empty when absent.
  Span<const int64_t> attribute_ints(String name) const;
  int32_t since_version() const { return node_->since_version; }

  // prepare: state and packed weights live as long as the model. Null when memory is out.
  template <class S>
  S* make_state() {
    S* state = zone_->make<S>();
    node_->state = state;
    return state;
  }
  template <class S>
  const S& state() const {
    return *static_cast<const S*>(node_->state);
  }
  ORTOLAN_INLINE void* model_memory(size_t bytes) { return zone_->allocate(bytes, kAlignment); }
  // The same without zeros, for what is written as a whole.
  ORTOLAN_INLINE void* raw_model_memory(size_t bytes) { return zone_->allocate_shared(bytes); }
  // prepare: neither infer nor run will read the elements of input i. Constants that loading made
  // (a half weight as float32, a transposed one) are freed when the last reader has packed them.
  ORTOLAN_INLINE void has_packed(size_t i) { packed_ |= 1u << i; }
  // prepare: whether constant input i is where the caller or the file has it, for as long as the
  // model lives; what loading made may be freed.
  bool is_stored(const Slot& constant) const { return !zone_->owns(constant.data); }
  // Whether weights may take so many bytes more than plain ones; what is taken is counted.
  ORTOLAN_INLINE bool take_extra(size_t bytes) {
    if (!extra_ || bytes > *extra_) return false;
    *extra_ -= bytes;
    return true;
  }
  // Floats of a vector of the machine for which variants are recorded; 0: they are not.
  size_t recorded_lanes() const { return recorded_lanes_; }
  void record_variant(uint32_t number) { variants_ |= 1u << number; }
  // Null when the input is absent or no constant.
  const Slot* constant_input(size_t i) const;
  // prepare: the same, but also what an input of the model has where none is given. Run compares
  // the address of what it gets with the data of this slot.
  const Slot* default_input(size_t i) const;

  // infer: exactly one call per present output.
  Status set_output(size_t i, const Shape& shape);
  // The bytes of output i are those of input `from`, `offset` bytes in: nothing needs to run. Only
  // a proposal: run may still be called with separate memory and must then copy.
  void alias(size_t i, size_t from, size_t offset = 0);
  // Output i, which is channels_last, may get memory with gaps: run asks for output_pitch.
  void allow_gaps(size_t i) { output(i).allows_gaps = true; }
  // The inputs are `rows` pieces each that lie in turn in output 0: run copies only those that do
  // not lie there yet.
  void join(size_t rows) { joined_rows_ = rows; }
  // Memory for run: `shared` bytes once and `per_thread` bytes for each thread.
  void request_scratch(size_t shared, size_t per_thread = 0);

  // run.
  void* scratch() const { return scratch_; }
  void* thread_scratch(size_t thread) const {
    return static_cast<char*>(scratch_) + scratch_shared_ + thread * scratch_per_thread_;
  }
  // Bytes from pixel to pixel of output i, each with `bytes` bytes of channels.
  size_t output_pitch(size_t i, size_t bytes) const {
    return output(i).pitch ? output(i).pitch : bytes;
  }
  // For data-dependent kernels: memory for an output whose size is known now.
  Status allocate_output(size_t i, const Shape& shape);

  // Containers; only in run, and of data-dependent kernels.
  Span<const Item> items(size_t input) const {
    auto* container = static_cast<Container*>(this->input(input).data);
    return {container->items(), container->count};
  }
  // The operand itself as an item: its block, or a copy of its bytes in a new one. The caller gets
  // the reference.
  Status as_item(size_t input, Item* item) const;
  // Output i becomes a container of `count` items; the caller fills them with references.
  Status make_container(size_t i, size_t count, Item** items);
  // A new tensor as an item, with one reference.
  Status make_item(DataType type, const Shape& shape, Item* item) const;
  // A new map of floats with two empty items, for an output whose type says what its keys are.
  Status make_map(Item* map, Item** pair) const;
  // Output i becomes the item, whose reference it takes.
  void give(size_t i, const Item& item);
  static void retain(const Item& item);
  // An element of a string tensor. Null address and not empty: memory is out. Not in parallel.
  Text make_text(String text) const;
  // Where to write `bytes` bytes of an element; null when memory is out.
  char* text_memory(size_t bytes, Text* text) const;

  // Calls body(begin, end, thread) over [0, units), split statically over the threads that are
  // free. `grain` = units that are worth waking a thread for: some 5 us.
  template <class Body>
  void parallel(size_t units, [[maybe_unused]] size_t grain, const Body& body) const {
#if !defined(ORTOLAN_THREADS)
    if (units) body(size_t{0}, units, size_t{0});
#else
    parallel_for(
        units, grain,
        [](void* user, size_t begin, size_t end, size_t thread) {
          (*static_cast<const Body*>(user))(begin, end, thread);
        },
        const_cast<Body*>(&body));
#endif
  }
  size_t threads() const { return threads_; }

  // Run only: a number of this node's own that follows from the seed of the session; false when it
  // has none.
  bool session_seed(uint64_t* seed) const;

  // Sets the error text, prefixed with operator and node, and hands the code back:
  // `return c.invalid("axis % is outside a tensor of % dimensions", axis, rank)`.
  template <class... Parts>
  ORTOLAN_INLINE Status fail(Status code, Message format,
                             [[maybe_unused]] const Parts&... parts) const {
#if defined(ORTOLAN_MESSAGE_CODES)
    return fail_number(code, format.number);
#else
    const Part list[sizeof...(parts) + 1] = {Part(parts)..., Part(0)};
    return fail_parts(code, format, list, sizeof...(parts));
#endif
  }
  template <class... Parts>
  ORTOLAN_INLINE Status invalid(Message format, const Parts&... parts) const {
    return fail(Status::kInvalidArgument, format, parts...);
  }
  Status out_of_memory() const;

  // The rest is the executor's.
  const Slot& input(size_t i) const { return slots_[node_->inputs[i]]; }
  Slot& output(size_t i) const { return slots_[node_->outputs[i]]; }

 private:
  friend class Run;
  friend class Planner;
  friend class Loader;
  friend class Folder;

  using Body = void (*)(void* user, size_t begin, size_t end, size_t thread);
#if defined(ORTOLAN_THREADS)
  void parallel_for(size_t units, size_t grain, Body body, void* user) const;
#endif
#if defined(ORTOLAN_MESSAGE_CODES)
  Status fail_number(Status code, uint32_t number) const;
#else
  Status fail_parts(Status code, const char* format, const Part* parts, size_t count) const;
#endif
  static Shape physical(const Slot& slot) {
    return slot.layout == Layout::kPlain ? slot.shape : channels_last(slot.shape);
  }

  Node* node_ = nullptr;
  Slot* slots_ = nullptr;
  ErrorText* error_ = nullptr;
  Zone* zone_ = nullptr;        // prepare only
  size_t* extra_ = nullptr;     // prepare only
  Zone* texts_ = nullptr;       // for make_text
  Run* run_ = nullptr;          // run only
  ThreadPool* pool_ = nullptr;  // null: this thread alone
  size_t threads_ = 1;
  void* scratch_ = nullptr;
  size_t scratch_shared_ = 0, scratch_per_thread_ = 0;
  size_t joined_rows_ = 0;
  size_t tensor_limit_ = SIZE_MAX;  // bytes
  size_t recorded_lanes_ = 0;
  uint32_t variants_ = 0;  // of the node, a bit each
  uint32_t packed_ = 0;    // inputs of the node, a bit each
};

}  // namespace ortolan
