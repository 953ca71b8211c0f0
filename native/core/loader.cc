// What readers of formats build graphs with, and the order of the phases. Names become value
// numbers.
#include "core/loader.h"

namespace ortolan {

uint32_t name_hash(String name, uint32_t salt) {
  uint32_t hash = 2166136261u ^ salt;
  for (size_t i = 0; i < name.size; ++i)
    hash = (hash ^ static_cast<uint8_t>(name.data[i])) * 16777619u;
  return hash ^ hash >> 15;
}

// Texts that callers see are UTF-8, so that every language can hold them.
bool is_utf8(String text) {
  for (size_t i = 0; i < text.size;) {
    uint32_t first = static_cast<uint8_t>(text.data[i++]);
    if (first < 0x80) continue;
    if (first < 0xc2 || first > 0xf4) return false;
    int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t code = first & (0x3fu >> more);
    for (int k = 0; k < more; ++k, ++i) {
      if (i == text.size || (text.data[i] & 0xc0) != 0x80) return false;
      code = code << 6 | (static_cast<uint8_t>(text.data[i]) & 0x3f);
    }
    bool is_overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    if (is_overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  }
  return true;
}

bool NameTable::reserve(size_t names) {
  size_t capacity = 16;
  while (capacity < names * 2) capacity *= 2;
  return resize(capacity);
}

// The address, which is another in every process, keeps files from being made so that all of their
// names collide.
bool NameTable::resize(size_t capacity) {
  slots_.clear();
  if (!slots_.resize(capacity, kNoValue)) return false;
  salt_ = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(slots_.begin()) >> 12);
  return true;
}

uint32_t NameTable::find(const List<Value>& values, String name) const {
  size_t mask = slots_.size() - 1;
  for (size_t i = name_hash(name, salt_) & mask;; i = (i + 1) & mask) {
    uint32_t value = slots_[i];
    if (value == kNoValue || values[value].name == name) return value;
  }
}

void NameTable::place(const List<Value>& values, uint32_t value) {
  size_t mask = slots_.size() - 1;
  size_t i = name_hash(values[value].name, salt_) & mask;
  while (slots_[i] != kNoValue) i = (i + 1) & mask;
  slots_[i] = value;
}

bool NameTable::insert(const List<Value>& values, uint32_t value) {
  if (++count_ * 2 > slots_.size()) {
    if (!resize(slots_.size() * 2)) return false;
    for (uint32_t i = 0; i < values.size(); ++i)
      if (i != value) place(values, i);
  }
  place(values, value);
  return true;
}

Loader::~Loader() {
  const Allocator& allocator = model_.allocator();
  for (GraphBuilder* b : builders_) {
    b->~GraphBuilder();
    allocator.put(b, sizeof(GraphBuilder));
  }
}

Status Loader::complete() {
  GraphBuilder& main = *builders_[0];
  ORTOLAN_TRY(unknown_operators());
  ORTOLAN_TRY(bind_graph(main));
  for (GraphBuilder* b : builders_) {
    if (kHasLayouts) ORTOLAN_TRY(choose_layouts(*b));
    ORTOLAN_TRY(finish(*b));
  }
  ORTOLAN_TRY(describe_types(main));
  // Bodies were read after the graphs that hold them: outer constants come first.
  for (Graph* each : model_.graphs) ORTOLAN_TRY(prepare(*each));
  model_.zone.end_shared();
  return Status::kOk;
}

Status Loader::not_utf8(String what) {
  return fail(error_, Status::kInvalidFormat, "damaged model: % is not UTF-8", what);
}

Status Loader::keep_text(String text, String* kept) {
  auto* bytes = static_cast<char*>(model_.zone.allocate(text.size + 1, 1));
  if (!bytes) return out_of_memory();
  if (text.size) copy(bytes, text.data, text.size);
  *kept = {bytes, text.size};
  return Status::kOk;
}

Status Loader::open_graph(GraphBuilder* parent, GraphBuilder** result) {
  const uint32_t depth = parent ? parent->graph->depth + 1 : 0;
  if (depth > model_.options.max_depth)
    return fail(error_, Status::kLimitExceeded,
                "graphs are nested deeper than %, the limit ortolan.max_depth",
                model_.options.max_depth);
  const Allocator& allocator = model_.allocator();
  Graph* graph = model_.zone.make<Graph>();
  void* memory = allocator.get(sizeof(GraphBuilder));
  if (!graph || !memory || !model_.graphs.push(graph) ||
      !builders_.push(static_cast<GraphBuilder*>(memory))) {
    allocator.put(memory, sizeof(GraphBuilder));
    return out_of_memory();
  }
  graph->index = static_cast<uint32_t>(model_.graphs.size() - 1);
  graph->parent = parent ? parent->graph : nullptr;
  graph->depth = depth;
  *result = new (memory, Zone::Placement{}) GraphBuilder(allocator, graph, parent);
  return Status::kOk;
}

Status Loader::reserve(GraphBuilder& b, size_t names, size_t nodes) {
  node_count_ += nodes;
  if (node_count_ > model_.options.max_nodes)
    return fail(error_, Status::kLimitExceeded,
                "the model has more than % nodes, the limit ortolan.max_nodes",
                model_.options.max_nodes);
  if (!b.names.reserve(names) || !b.values.reserve(names + 16) || !b.nodes.reserve(nodes + 1))
    return out_of_memory();
  return Status::kOk;
}

Status Loader::define(GraphBuilder& b, String name, uint32_t* value) {
  if (!is_utf8(name)) return not_utf8("the name of a value");
  if (b.names.find(b.values, name) != kNoValue)
    return fail(error_, Status::kInvalidGraph, "the name \"%\" is defined twice", name);
  Value fresh;
  fresh.name = name;
  *value = static_cast<uint32_t>(b.values.size());
  if (!b.values.push(fresh) || !b.names.insert(b.values, *value)) return out_of_memory();
  return Status::kOk;
}

Status Loader::declare_constant(GraphBuilder& b, String name, const TensorView& view) {
  uint32_t value = b.names.find(b.values, name);
  if (value == kNoValue) {
    ORTOLAN_TRY(define(b, name, &value));
  } else if (!b.values[value].is_input || b.values[value].data) {
    return fail(error_, Status::kInvalidGraph, "the name \"%\" is defined twice", name);
  }
  Value& v = b.values[value];
  v.type = view.type;
  v.shape = view.shape;
  v.rank_hint = static_cast<int8_t>(view.shape.rank);
  v.data = view.data ? view.data : kNothing;
  v.is_constant = !v.is_input || initializers_are_constant_;
  return Status::kOk;
}

// The types of the graph's inputs and outputs as onnxruntime writes them.
Status Loader::describe_types(GraphBuilder& b) {
  auto describe = [&](Span<uint32_t> values, Span<const char*>* texts) {
    ORTOLAN_TRY(make_array(values.size, texts));
    for (size_t i = 0; i < values.size; ++i) {
      const Value& v = b.values[values[i]];
      ErrorText& text = error_;  // that nothing is in
      text.clear();
      uint32_t closing = 0;
      for (ValueType t = v.full_type();; t = t.inner(), ++closing) {
        const ValueKind kind = kHasContainers ? t.kind() : ValueKind::kTensor;
        text.append(nth_word("tensor(\0seq(\0map(\0optional(\0", static_cast<size_t>(kind)));
        if (kind == ValueKind::kTensor) break;
        if (kind == ValueKind::kMap) text.append(Part(type_name(t.key))), text.append(Part(","));
      }
      text.append(Part(type_name(v.type)));
      for (uint32_t k = 0; k <= closing; ++k) text.append(Part(")"));
      char* kept = static_cast<char*>(model_.zone.allocate(text.length() + 1, 1));
      if (!kept) return out_of_memory();
      copy(kept, text.text(), text.length() + 1);
      (*texts)[i] = kept;
    }
    return Status::kOk;
  };
  ORTOLAN_TRY(describe(b.graph->inputs, &b.graph->input_types));
  ORTOLAN_TRY(describe(b.graph->outputs, &b.graph->output_types));
  error_.clear();
  return Status::kOk;
}

// The value of a name used in a graph; values of outer graphs are captured on the way in.
Status Loader::resolve(GraphBuilder& b, String name, uint32_t* value) {
  *value = kNoValue;
  if (name.size == 0) return Status::kOk;
  *value = b.names.find(b.values, name);
  if (*value != kNoValue) return Status::kOk;
  GraphBuilder* owner = b.parent;
  uint32_t outer = kNoValue;
  while (owner && (outer = owner->names.find(owner->values, name)) == kNoValue)
    owner = owner->parent;
  if (!owner)
    return fail(error_, Status::kInvalidGraph, "the name \"%\" is used but never defined", name);
  // One capture per graph between the owner and here; the innermost comes last.
  uint32_t depth = b.graph->depth;
  for (uint32_t level = owner->graph->depth + 1; level <= depth; ++level) {
    GraphBuilder* inner = &b;
    while (inner->graph->depth > level) inner = inner->parent;
    Value captured = inner->parent->values[outer];
    captured.is_input = captured.is_output = false;
    captured.outer = outer;
    outer = static_cast<uint32_t>(inner->values.size());
    if (!inner->values.push(captured) || !inner->captures.push(outer)) return out_of_memory();
    if (!inner->names.insert(inner->values, outer)) return out_of_memory();
  }
  *value = outer;
  return Status::kOk;
}

Status Loader::reserve_outputs(GraphBuilder& b, size_t count) {
  ORTOLAN_TRY(make_array(count, &b.graph->outputs));
  return make_array(count, &b.graph->repeats);
}

Status Loader::resolve_output(GraphBuilder& b, size_t i, String name) {
  uint32_t value;
  ORTOLAN_TRY(resolve(b, name, &value));
  if (value == kNoValue)
    return fail(error_, Status::kInvalidGraph, "output % of a graph has no name", i);
  b.graph->outputs[i] = value;
  b.graph->repeats[i] = b.values[value].is_output;
  b.values[value].is_output = true;
  return Status::kOk;
}

Status Loader::find_body(Node& node, String name, Graph*** place) {
  bool second = name == String("else_branch");
  *place = &node.bodies[second ? 1 : 0];
  if ((second || name == String("then_branch") || name == String("body")) && !**place)
    return Status::kOk;
  return node_error(node, Status::kInvalidGraph, "graph attribute \"%\" is unknown or there twice",
                    name);
}

namespace {

// Whether bytes that are no ORT format file begin with the tag of a field of ONNX's ModelProto: a
// number (varint) or what has a length.
bool may_be_onnx(const uint8_t* data, size_t size) {
  if (size >= 8 && read<uint32_t>(data + 4) == schema::kFileIdentifier) return false;
  if (size < 2) return false;
  const uint32_t field = data[0] >> 3;
  const uint32_t wire = field == 1 || field == 5 ? 0 : 2;
  return (data[0] & 7) == wire && ((field >= 1 && field <= 8) || field == 14);
}

Status load_ort(Model& model, const uint8_t* data, size_t size) {
  if (reinterpret_cast<uintptr_t>(data) % 4 != 0) {
    auto* moved = static_cast<uint8_t*>(model.zone.allocate_raw(size));
    if (!moved) return fail(model.error, Status::kOutOfMemory, "memory is out");
    copy(moved, data, size);
    data = moved;
    model.copied = true;
  }
  FbTable session;
  ORTOLAN_TRY(verify_ort(data, size, model.allocator(), model.error, &session));
  return read_ort(model, session);
}

}  // namespace

Status Model::load(const uint8_t* data, size_t size) {
  error.clear();
  file_bytes = size;
  budget.limit = static_cast<size_t>(min<uint64_t>(options.max_model_bytes, SIZE_MAX));
  deadline_ = deadline_of(options.limits.milliseconds);
  ORTOLAN_TRY(count_file(size));
  Status status = read(data, size);
  if (status == Status::kOutOfMemory && budget.refused)
    return fail(error, Status::kLimitExceeded,
                "loading takes more than % bytes, the limit ortolan.max_model_bytes: % are in use, "
                "% more were asked for",
                budget.limit, budget.used, budget.refused);
  return status;
}

Status Model::count_file(size_t bytes) {
  if (budget.take(bytes)) return Status::kOk;
  return fail(error, Status::kLimitExceeded,
              "a file of % bytes makes the model larger than % bytes, the limit "
              "ortolan.max_model_bytes",
              bytes, budget.limit);
}

Status Model::check_time() {
  if (!deadline_ || platform::nanoseconds() <= deadline_) return Status::kOk;
  return fail(error, Status::kLimitExceeded,
              "loading takes longer than % milliseconds, the limit ortolan.max_milliseconds",
              options.limits.milliseconds);
}

Status Model::read(const uint8_t* data, size_t size) {
  level = min(platform::instruction_set_level(), options.instruction_set);
#if defined(ORTOLAN_THREADS)
  threads = options.threads ? options.threads : platform::processors();
  threads = min(threads, ThreadPool::kMaxWorkers + 1);
  if (threads > 1) pool = &ThreadPool::with(threads);
#endif
  if (kReadsOnnx && may_be_onnx(data, size))
    ORTOLAN_TRY(read_onnx(*this, data, size));
  else
    ORTOLAN_TRY(load_ort(*this, data, size));
  loaded = true;
  return Status::kOk;
}

void Model::release(Model* model) {
  if (__atomic_sub_fetch(&model->references_, 1, __ATOMIC_ACQ_REL) != 0) return;
  const Allocator allocator = model->options.allocator;
  model->~Model();
  allocator.put(model, sizeof(Model));
}

Status Model::open(const char* path) {
  int reason = 0;
  String name = from_c(path);
  if (!platform::kHasFiles)
    return fail(error, Status::kNoSuchFile, "cannot read \"%\": give the bytes of the model", name);
  if (!platform::map_file(path, &mapping_, &reason))
    return fail(error, Status::kNoSuchFile, "cannot read \"%\" (system error %)", name, reason);
  path_ = name;
  Status status = load(mapping_.data, mapping_.size);
  path_ = String();
  return status;
}

}  // namespace ortolan
