// One call in flight: frames with their plans, the arena, the heap, the error of the call. Used by
// one thread at a time; a session keeps a small pool of runs.
#pragma once

#include "core/heap.h"
#include "core/model.h"

namespace ortolan {

// Where the bytes of a value come from in a planned frame.
enum class Source : uint8_t {
  kNone,      // not produced yet
  kConstant,  // an initializer
  kInput,     // an input of the graph or a capture
  kKnown,     // computed while planning: depends on shapes and constants alone
  kArena,     // planned
  kOutput,    // planned, in the memory of a graph output
  kDynamic,   // shape unknown while planning: from the heap when it is computed
};

struct Step {
  uint32_t node = 0;
  bool dynamic = false;
  bool is_joined = false;  // its inputs lie in its result: there is nothing to do
  size_t joined_rows = 0;  // inputs may lie there, in so many pieces; 0: they may not
  size_t scratch = 0, scratch_shared = 0, scratch_per_thread = 0;  // offset in the arena, bytes
  uint32_t release_begin = 0, release_end = 0;                     // in Frame::releases
};

template <>
inline constexpr bool starts_zero<Step> = true;

// The state of a Loop or Scan while its body runs.
struct LoopState {
  int64_t iteration = 0;
  int64_t limit = 0;
  bool condition = true;
  size_t states = 0;                   // carried values
  Slot* carried = nullptr;             // [states]
  struct Stack* stacks = nullptr;      // [scan outputs]
  struct ScanInput* inputs = nullptr;  // [scan inputs]
  size_t stack_count = 0, input_count = 0;
  void* block = nullptr;  // heap block that holds the arrays
};

// A graph in execution, and its plan, which stays from run to run. All arrays are per value.
struct Frame {
  explicit Frame(const Allocator& allocator) : zone(allocator) {}

  const Graph* graph = nullptr;
  Slot* slots = nullptr;
  uint32_t* last_use = nullptr;  // last node that reads the value; static
  Zone zone;                     // the plan's memory
  bool planned = false;
  uint32_t generation = 0;         // counts plans
  uint32_t parent_generation = 0;  // of the outer frame's plan that this one is based on
  Source* sources = nullptr;
  uint32_t* roots = nullptr;      // the value whose memory this one uses; itself if its own
  size_t* offsets = nullptr;      // of the value in its root's memory; of a root in the arena
  Shape* input_shapes = nullptr;  // [inputs + captures] that the plan is for
  Span<Step> steps;
  Span<uint32_t> releases;
  Span<uint32_t> rebinds;  // values in the memory of inputs or outputs, in order
  size_t arena_bytes = 0, arena_floor = 0;

  char* base = nullptr;        // of the arena while running
  char* bound_base = nullptr;  // the slots in the arena point into this one
  uint32_t bound_generation = 0;
  void* block = nullptr;  // heap block that the arena is in, for inner frames
  Frame* caller = nullptr;
  Node* node = nullptr;  // of the caller
  size_t step = 0;
  LoopState loop;
};

struct OutputValue;

// A tensor of the caller, or a container.
struct TensorArgument {
  void* data = nullptr;
  size_t bytes = 0;
  Shape shape;
  DataType type = DataType::kUndefined;
  bool present = false;
  const OutputValue* value = nullptr;  // instead of all of the above
};

template <>
inline constexpr bool starts_zero<TensorArgument> = true;

// A value that lives outside of runs: what the runtime made for the caller, or the caller for it.
// One allocation: this, then the bytes of a tensor (a string tensor's as the C interface has them)
// or pointers to the items of a container, of which each counts as a reference.
struct OutputValue {
  Allocator allocator;
  uint32_t references;
  size_t total;  // bytes of the allocation
  size_t bytes;  // behind the head
  Shape shape;
  ValueType type;

  void* data() { return reinterpret_cast<char*>(this) + round_up(sizeof(OutputValue), kAlignment); }
  const void* data() const { return const_cast<OutputValue*>(this)->data(); }
  OutputValue** items() const {
    return static_cast<OutputValue**>(const_cast<OutputValue*>(this)->data());
  }
  size_t item_count() const { return type.layers ? bytes / sizeof(OutputValue*) : 0; }

  static OutputValue* make(const Allocator& allocator, ValueType type, const Shape& shape,
                           size_t bytes);
  static void release(OutputValue* value);
};

// A step that ran, as OrtolanStep has it.
struct StepTime {
  uint32_t graph, node;
  uint64_t begin, end;
};

class Run {
 public:
  explicit Run(Model& model)
      : model_(model),
        limits_(model.options.limits),
        budget_(model.options.allocator),
        heap_(budget_.allocator()),
        zone_(budget_.allocator()),
        texts_(budget_.allocator()) {
    model.retain();
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run();

  Status create();

  // Borrowed until the call is over.
  Status set_input(size_t index, const TensorArgument& tensor);
  // Where to put an output; absent: the runtime makes a tensor.
  Status set_output(size_t index, const TensorArgument& tensor);
  // Runs to the end.
  Status execute();
  // Where to put the times of steps; empty: nowhere.
  void profile(Span<StepTime> times) { times_ = times; }
  size_t steps() const { return steps_; }
  // Inputs and outputs set so far.
  void forget_arguments();
  // The tensor made for an output; the caller takes the reference. Null if it went into the
  // caller's own memory.
  OutputValue* take_output(size_t index);
  const Shape& output_shape(size_t index) const { return output_shapes_[index]; }
  // May be called from another thread; the execution in flight, else the next one, stops before
  // its next node.
  void cancel() { __atomic_store_n(&cancelled_, 1, __ATOMIC_RELAXED); }

  Model& model() { return model_; }
  // All memory of the run but its outputs.
  const Allocator& allocator() const { return budget_.allocator(); }
  // What may be limited anew for each call.
  Limits& limits() { return limits_; }
  ErrorText& error() { return error_; }
  Heap& heap() { return heap_; }
  size_t arena_bytes() const { return frames_ ? frames_[0]->arena_bytes : 0; }
  size_t arena_floor() const { return frames_ ? frames_[0]->arena_floor : 0; }
  size_t heap_peak() const { return heap_.peak(); }

 private:
  friend class Context;
  friend class Planner;

  Status make_frames();
  Status run();
  // Tells memory that is out from a limit that was reached.
  Status settle(Status status);
  Status interrupted();
  // Whether the run was cancelled or its time is over.
  ORTOLAN_INLINE Status check_interrupt() {
    bool maybe = __atomic_load_n(&cancelled_, __ATOMIC_RELAXED) || deadline_;
    return maybe ? interrupted() : Status::kOk;
  }
  OutputValue* make_value(ValueType type, const Shape& shape, size_t bytes);
  void release_outputs();
  Status loop();
  void clean();
  Status check_inputs();
  Status check_tensor(const Value& v, const TensorArgument& given, Slot& slot);
  Status check_container(const Value& v, const OutputValue* given, Slot& slot);

  // Values (values.cc).
  Status import_texts(const void* blob, size_t bytes, size_t count, String name, void** handles);
  Status import_value(const OutputValue& value, String name, Item* item);
  Status export_value(ValueType type, const Shape& shape, const void* data, OutputValue** result);
  Status too_large_text();

  // Frames.
  Status enter(Frame& frame);
  Status bind(Frame& frame);
  Status bind_outputs(Frame& frame);
  bool plan_is_valid(const Frame& frame) const;
  Status finish(Frame& frame);
  void leave(Frame& frame);
  void push(Frame& caller, Node& node, Frame& body);
  void pop(Frame& frame);
  Status deliver_outputs(Frame& frame);

  // Steps.
  Status step(Frame& frame, const Step& step);
  Status timed_step(Frame& frame, const Step& step);
  Status step_dynamic(Frame& frame, const Step& step);
  void drop(Slot& slot);
  void start_context(Frame& frame, Node& node);

  // Control flow.
  Status start_control(Frame& frame, Node& node);
  Status start_loop(Frame& frame, Node& node);
  Status start_scan(Frame& frame, Node& node);
  Status begin_iteration(Frame& body);
  Status end_iteration(Frame& body);
  Status end_loop(Frame& body);
  Status make_loop_state(Frame& body, size_t states, size_t inputs, size_t stacks);
  void end_loop_state(Frame& body);
  void carry(Frame& caller, uint32_t value, Slot& to);
  Status stack_output(Frame& body, size_t index, const Slot& slot);
  Status finish_stack(Frame& body, size_t index, uint32_t value, Slot& result);
  Status transfer(Frame& frame, uint32_t value, Slot& to);

  template <class... Parts>
  ORTOLAN_INLINE Status fail_node(const Node& node, Status code, Message format,
                                  const Parts&... parts) {
    return ::ortolan::fail_node(error_, node, code, format, parts...);
  }
  Status out_of_memory() { return fail(error_, Status::kOutOfMemory, "memory is out"); }

  Model& model_;
  Limits limits_;
  ErrorText error_;
  Budget budget_;
  Heap heap_;
  Zone zone_;                 // what stays as long as the run object
  Zone texts_;                // bytes of strings, until the call is over
  Frame** frames_ = nullptr;  // by Graph::index
  Frame* top_ = nullptr;
  Context context_;
  char* arena_ = nullptr;
  size_t arena_capacity_ = 0;
  Span<TensorArgument> inputs_, outputs_;
  Span<OutputValue*> made_;
  Span<Shape> output_shapes_;
  Span<StepTime> times_;
  size_t steps_ = 0;
  size_t made_bytes_ = 0;  // of the outputs of the last call
  uint64_t iterations_ = 0, deadline_ = 0;
  uint32_t cancelled_ = 0;
  bool created_ = false;
};

}  // namespace ortolan
