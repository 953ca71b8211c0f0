// The C interface. Every function: check pointers, one call, write the result.
#include "ortolan/ortolan.h"

#include "core/run.h"
#include "ortolan_features.h"

using namespace ortolan;

namespace {

Model* unwrap(OrtolanModel* model) { return reinterpret_cast<Model*>(model); }
const Model* unwrap(const OrtolanModel* model) { return reinterpret_cast<const Model*>(model); }
Run* unwrap(OrtolanRun* run) { return reinterpret_cast<Run*>(run); }
OutputValue* unwrap(OrtolanValue* value) { return reinterpret_cast<OutputValue*>(value); }
OrtolanStatus answer(Status status) { return static_cast<OrtolanStatus>(status); }

bool parse(String text, uint64_t* number) {
  *number = 0;
  for (size_t i = 0; i < text.size; ++i) {
    if (text.data[i] < '0' || text.data[i] > '9') return false;
    *number = *number * 10 + static_cast<uint64_t>(text.data[i] - '0');
  }
  return text.size > 0 && text.size < 20;
}

enum Option : uint8_t {
  kThreads,
  kFlushDenormals,
  kInstructionSet,
  kMaxTensorBytes,
  kMaxNodes,
  kSeed,
  kWinogradBytes,
  kRecordedLanes,
  kMaxModelBytes,
  kMaxDepth,
  kMaxRunBytes,
  kMaxIterations,
  kMaxMilliseconds,
  kOptions
};  // clang-format off
constexpr char kOptionNames[] =
    "session.intra_op_num_threads\0" "session.set_denormal_as_zero\0" "ortolan.instruction_set\0"
    "ortolan.max_tensor_bytes\0" "ortolan.max_nodes\0" "ortolan.seed\0" "ortolan.winograd_bytes\0"
    "ortolan.record_variants\0" "ortolan.max_model_bytes\0" "ortolan.max_depth\0"
    "ortolan.max_run_bytes\0" "ortolan.max_iterations\0" "ortolan.max_milliseconds\0";
// clang-format on

// Of those that a run may have its own of; null for other options.
uint64_t* limit_of(Limits& limits, size_t option) {
  if (option == kMaxRunBytes) return &limits.run_bytes;
  if (option == kMaxIterations) return &limits.iterations;
  return option == kMaxMilliseconds ? &limits.milliseconds : nullptr;
}

OrtolanStatus needs_number(ErrorText& error, String key, String value) {
  return answer(
      fail(error, Status::kInvalidArgument, "option \"%\" needs a number, not \"%\"", key, value));
}

// False when the value of a known key is no number.
bool apply(Options& options, String key, String value) {
  const size_t option = find_word(kOptionNames, key);
  uint64_t n;
  if (option == kOptions || (!kRecordsVariants && option == kRecordedLanes)) return true;
  if (!parse(value, &n)) {
    if (option != kInstructionSet || !(value == String("base"))) return false;
    n = 0;
  }
  switch (option) {
    case kThreads:
      options.threads = static_cast<uint32_t>(min<uint64_t>(n, 1024));
      break;
    case kFlushDenormals:
      options.flush_denormals = n != 0;
      break;
    case kInstructionSet:
      options.instruction_set = static_cast<uint8_t>(min<uint64_t>(n, 255));
      break;
    case kMaxTensorBytes:
      options.max_tensor_bytes = static_cast<size_t>(min<uint64_t>(n, SIZE_MAX / 2));
      break;
    case kMaxNodes:
      options.max_nodes = n;
      break;
    case kSeed:
      options.seed = n;
      options.is_seeded = true;
      break;
    case kWinogradBytes:
      options.winograd_bytes = static_cast<size_t>(min<uint64_t>(n, SIZE_MAX / 2));
      break;
    case kRecordedLanes:
      options.recorded_lanes = static_cast<uint8_t>(min<uint64_t>(n, 64));
      break;
    case kMaxModelBytes:
      options.max_model_bytes = n;
      break;
    case kMaxDepth:
      options.max_depth = n;
      break;
    default:
      *limit_of(options.limits, option) = n;
  }
  return true;
}

// From a file where there is a path, else from bytes.
OrtolanStatus make_model(const OrtolanOption* list, size_t count, const OrtolanHooks* hooks,
                         OrtolanModel** result, bool has_path, const void* from, size_t size) {
  if (!result || (count && !list)) return ORTOLAN_INVALID_ARGUMENT;
  *result = nullptr;
  Options options;
  options.allocator = platform::default_allocator();
  if (hooks && hooks->size >= sizeof(OrtolanHooks)) {
    if (hooks->allocate && hooks->deallocate)
      options.allocator = {hooks->user, hooks->allocate, hooks->deallocate};
    options.log = hooks->log;
    options.log_user = hooks->user;
  }
  void* memory = options.allocator.get(sizeof(Model));
  if (!memory) return ORTOLAN_OUT_OF_MEMORY;
  auto* model = new (memory, Zone::Placement{}) Model(options);
  *result = reinterpret_cast<OrtolanModel*>(model);
  for (size_t i = 0; i < count; ++i) {
    String key = from_c(list[i].key), value = from_c(list[i].value);
    if (!apply(model->options, key, value)) return needs_number(model->error, key, value);
  }
  Status status = !from      ? fail(model->error, Status::kInvalidArgument,
                                    "there is no path, or there are no bytes")
                  : has_path ? model->open(static_cast<const char*>(from))
                             : model->load(static_cast<const uint8_t*>(from), size);
  if (status != Status::kOk && options.log) options.log(options.log_user, 3, model->error.text());
  return answer(status);
}

const Value* value_at(const OrtolanModel* handle, OrtolanSide side, size_t index) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded) return nullptr;
  const Graph& graph = model->main();
  Span<uint32_t> list = side == ORTOLAN_INPUT ? graph.inputs : graph.outputs;
  return index < list.size ? &graph.values[list[index]] : nullptr;
}

// The number that stands at the place of a key; 0 when there is no such key.
int32_t pick(const char* keys, const char* key, const int64_t* numbers, size_t bytes,
             int64_t* number) {
  const size_t place = find_word(keys, from_c(key));
  if (place >= bytes / sizeof(int64_t)) return 0;
  *number = numbers[place];
  return 1;
}

}  // namespace

extern "C" {

const char* ortolan_version(void) { return ORTOLAN_VERSION; }

const char* ortolan_instruction_set(void) {
  return platform::instruction_set_name(platform::instruction_set_level());
}

OrtolanStatus ortolan_model_load(const void* bytes, size_t size, const OrtolanOption* options,
                                 size_t option_count, const OrtolanHooks* hooks,
                                 OrtolanModel** model) {
  return make_model(options, option_count, hooks, model, false, bytes, size);
}

OrtolanStatus ortolan_model_open(const char* path, const OrtolanOption* options,
                                 size_t option_count, const OrtolanHooks* hooks,
                                 OrtolanModel** model) {
  return make_model(options, option_count, hooks, model, true, path, 0);
}

void ortolan_model_release(OrtolanModel* handle) {
  if (handle) Model::release(unwrap(handle));
}

const char* ortolan_model_error(const OrtolanModel* model) {
  return model ? unwrap(model)->error.text() : "memory is out";
}

size_t ortolan_model_count(const OrtolanModel* handle, OrtolanSide side) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded) return 0;
  return side == ORTOLAN_INPUT ? model->main().inputs.size : model->main().outputs.size;
}

const char* ortolan_model_name(const OrtolanModel* model, OrtolanSide side, size_t index) {
  const Value* v = value_at(model, side, index);
  return v ? v->name.data : nullptr;
}

const char* ortolan_model_type(const OrtolanModel* handle, OrtolanSide side, size_t index) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded) return nullptr;
  const Graph& graph = model->main();
  Span<const char*> types = side == ORTOLAN_INPUT ? graph.input_types : graph.output_types;
  return index < types.size ? types[index] : nullptr;
}

OrtolanStatus ortolan_model_tensor(const OrtolanModel* model, OrtolanSide side, size_t index,
                                   OrtolanTensor* tensor) {
  const Value* v = value_at(model, side, index);
  if (!v || !tensor || tensor->size < sizeof(OrtolanTensor)) return ORTOLAN_INVALID_ARGUMENT;
  tensor->type = static_cast<int32_t>(v->type);
  tensor->rank = v->rank_hint < 0 ? 0xffffffffu : static_cast<uint32_t>(v->rank_hint);
  tensor->data = nullptr;
  tensor->bytes = 0;
  for (uint32_t d = 0; d < kMaxRank; ++d) tensor->dims[d] = d < v->shape.rank ? v->shape[d] : -1;
  return ORTOLAN_OK;
}

const char* ortolan_model_dimension(const OrtolanModel* model, OrtolanSide side, size_t index,
                                    size_t axis) {
  const Value* v = value_at(model, side, index);
  if (!v || axis >= v->dim_names.size || v->dim_names[axis].size == 0) return nullptr;
  return v->dim_names[axis].data;
}

int32_t ortolan_model_overridable(const OrtolanModel* model, size_t index) {
  const Value* v = value_at(model, ORTOLAN_INPUT, index);
  return v && v->data ? 1 : 0;
}

const char* ortolan_model_metadata(const OrtolanModel* handle, const char* key) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded || !key) return nullptr;
  const Metadata& m = model->metadata;
  String wanted = from_c(key);
  size_t named = find_word(
      "ort_version\0producer_name\0producer_version\0domain\0description\0graph_name\0"
      "graph_description\0",
      wanted);
  if (named < Metadata::kNames) return m.texts[named].data;
  for (const Metadata::Property& p : m.properties)
    if (p.key == wanted) return p.value.data;
  return nullptr;
}

const char* ortolan_model_metadata_key(const OrtolanModel* handle, size_t index) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded || index >= model->metadata.properties.size) return nullptr;
  return model->metadata.properties[index].key.data;
}

const char* ortolan_model_node(const OrtolanModel* handle, size_t graph, size_t index,
                               const char* key) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded || !key || graph >= model->graphs.size() ||
      index >= model->graphs[graph]->nodes.size)
    return nullptr;
  const Node& node = model->graphs[graph]->nodes[index];
  const String wanted = from_c(key);
  if (kRecordsVariants && wanted == String("variants")) return node.variants;
  const String texts[] = {node.name, node.domain, node.type, {}};
  return texts[find_word("name\0domain\0type\0", wanted)].data;
}

int32_t ortolan_model_number(const OrtolanModel* handle, const char* key, int64_t* number) {
  const Model* model = unwrap(handle);
  if (!model || !model->loaded || !number) return 0;
  size_t nodes = 0;
  for (const Graph* graph : model->graphs) nodes += graph->nodes.size;
  const int64_t numbers[] = {static_cast<int64_t>(nodes),
                             static_cast<int64_t>(model->graphs.size()),
                             model->metadata.model_version,
                             model->metadata.ir_version,
                             static_cast<int64_t>(model->zone.bytes()),
                             model->copied};
  return pick("nodes\0graphs\0model_version\0ir_version\0loaded_bytes\0copied\0", key, numbers,
              sizeof(numbers), number);
}

OrtolanStatus ortolan_run_create(OrtolanModel* handle, OrtolanRun** result) {
  Model* model = unwrap(handle);
  if (!result || !model || !model->loaded) return ORTOLAN_INVALID_ARGUMENT;
  *result = nullptr;
  void* memory = model->options.allocator.get(sizeof(Run));
  if (!memory) return ORTOLAN_OUT_OF_MEMORY;
  auto* run = new (memory, Zone::Placement{}) Run(*model);
  *result = reinterpret_cast<OrtolanRun*>(run);
  return answer(run->create());
}

void ortolan_run_release(OrtolanRun* handle) {
  Run* run = unwrap(handle);
  if (!run) return;
  Allocator allocator = run->model().options.allocator;
  run->~Run();
  allocator.put(run, sizeof(Run));
}

const char* ortolan_run_error(const OrtolanRun* run) {
  return run ? unwrap(const_cast<OrtolanRun*>(run))->error().text() : "memory is out";
}

OrtolanStatus ortolan_run_option(OrtolanRun* handle, const OrtolanOption* option) {
  Run* run = unwrap(handle);
  if (!run || !option) return ORTOLAN_INVALID_ARGUMENT;
  String key = from_c(option->key), value = from_c(option->value);
  uint64_t* limit = limit_of(run->limits(), find_word(kOptionNames, key));
  if (!limit) return ORTOLAN_OK;
  uint64_t number = *limit_of(run->model().options.limits, find_word(kOptionNames, key));
  if (value.size && !parse(value, &number)) return needs_number(run->error(), key, value);
  *limit = number;
  return ORTOLAN_OK;
}

static OrtolanStatus argument(OrtolanRun* handle, size_t index, const OrtolanTensor* tensor,
                              Status (Run::*set)(size_t, const TensorArgument&)) {
  Run* run = unwrap(handle);
  if (!run || !tensor || tensor->size < sizeof(OrtolanTensor)) return ORTOLAN_INVALID_ARGUMENT;
  if (tensor->rank > kMaxRank)
    return answer(fail(run->error(), Status::kInvalidArgument,
                       "argument % has % dimensions; at most 8 are supported", index,
                       tensor->rank));
  TensorArgument given;
  given.data = tensor->data;
  given.bytes = tensor->bytes;
  given.shape = Shape::of({tensor->dims, tensor->rank});
  given.type = tensor->type > 0 && tensor->type < kDataTypes ? static_cast<DataType>(tensor->type)
                                                             : DataType::kUndefined;
  given.present = true;
  // The block of a string tensor begins with offsets of 4 bytes.
  size_t element = given.type == DataType::kString ? sizeof(uint32_t) : element_size(given.type);
  size_t alignment = max<size_t>(min<size_t>(element, 8), 1);
  if (given.bytes && (!given.data || reinterpret_cast<uintptr_t>(given.data) % alignment != 0))
    return answer(fail(run->error(), Status::kInvalidArgument,
                       "the bytes of argument % are not aligned to their elements", index));
  return answer((run->*set)(index, given));
}

OrtolanStatus ortolan_run_input(OrtolanRun* run, size_t index, const OrtolanTensor* tensor) {
  return argument(run, index, tensor, &Run::set_input);
}

OrtolanStatus ortolan_run_output(OrtolanRun* run, size_t index, const OrtolanTensor* tensor) {
  return argument(run, index, tensor, &Run::set_output);
}

OrtolanStatus ortolan_run_execute(OrtolanRun* run) {
  return run ? answer(unwrap(run)->execute()) : ORTOLAN_INVALID_ARGUMENT;
}

OrtolanValue* ortolan_run_take(OrtolanRun* run, size_t index) {
  return run ? reinterpret_cast<OrtolanValue*>(unwrap(run)->take_output(index)) : nullptr;
}

OrtolanStatus ortolan_run_call(OrtolanRun* run, const OrtolanCall* call) {
  if (!run || !call || call->size < sizeof(OrtolanCall)) return ORTOLAN_INVALID_ARGUMENT;
  OrtolanStatus status = ORTOLAN_OK;
  for (uint32_t i = 0; i < call->output_count; ++i) call->values[i] = nullptr;
  for (uint32_t i = 0; i < call->input_count && status == ORTOLAN_OK; ++i)
    if (call->inputs[i].type) status = ortolan_run_input(run, i, &call->inputs[i]);
  for (uint32_t i = 0; i < call->output_count && status == ORTOLAN_OK; ++i)
    if (call->places && call->places[i].type)
      status = ortolan_run_output(run, call->wanted[i], &call->places[i]);
  if (status != ORTOLAN_OK) {
    unwrap(run)->forget_arguments();
    return status;
  }
  status = ortolan_run_execute(run);
  if (status != ORTOLAN_OK) return status;
  for (uint32_t i = 0; i < call->output_count; ++i) {
    call->values[i] = ortolan_run_take(run, call->wanted[i]);
    call->outputs[i].type = 0;
    ortolan_value_tensor(call->values[i], &call->outputs[i]);
  }
  return status;
}

static_assert(sizeof(OrtolanStep) == sizeof(StepTime));

void ortolan_run_profile(OrtolanRun* run, OrtolanStep* steps, size_t capacity) {
  if (run) unwrap(run)->profile({reinterpret_cast<StepTime*>(steps), steps ? capacity : 0});
}

void ortolan_run_cancel(OrtolanRun* run) {
  if (run) unwrap(run)->cancel();
}

int32_t ortolan_run_number(const OrtolanRun* handle, const char* key, int64_t* number) {
  Run* run = unwrap(const_cast<OrtolanRun*>(handle));
  if (!run || !number) return 0;
  const int64_t numbers[] = {
      static_cast<int64_t>(run->arena_bytes()), static_cast<int64_t>(run->arena_floor()),
      static_cast<int64_t>(run->steps()), static_cast<int64_t>(run->heap_peak())};
  return pick("arena_bytes\0arena_floor\0steps\0heap_peak\0", key, numbers, sizeof(numbers),
              number);
}

OrtolanStatus ortolan_run_input_value(OrtolanRun* handle, size_t index, const OrtolanValue* value) {
  Run* run = unwrap(handle);
  if (!run || !value) return ORTOLAN_INVALID_ARGUMENT;
  const OutputValue* given = unwrap(const_cast<OrtolanValue*>(value));
  TensorArgument argument;
  argument.value = given;
  argument.data = const_cast<void*>(given->data());
  argument.bytes = given->bytes;
  argument.shape = given->shape;
  argument.type = given->type.layers ? DataType::kUndefined : given->type.element;
  return answer(run->set_input(index, argument));
}

OrtolanKind ortolan_value_kind(const OrtolanValue* handle) {
  OutputValue* value = unwrap(const_cast<OrtolanValue*>(handle));
  return value ? static_cast<OrtolanKind>(value->type.kind()) : ORTOLAN_TENSOR;
}

size_t ortolan_value_count(const OrtolanValue* handle) {
  OutputValue* value = unwrap(const_cast<OrtolanValue*>(handle));
  return value ? value->item_count() : 0;
}

OrtolanValue* ortolan_value_item(const OrtolanValue* handle, size_t index) {
  OutputValue* value = unwrap(const_cast<OrtolanValue*>(handle));
  if (!value || index >= value->item_count()) return nullptr;
  auto* item = reinterpret_cast<OrtolanValue*>(value->items()[index]);
  ortolan_value_retain(item);
  return item;
}

OrtolanStatus ortolan_value_tensor(const OrtolanValue* handle, OrtolanTensor* tensor) {
  OutputValue* value = unwrap(const_cast<OrtolanValue*>(handle));
  if (!value || !tensor || tensor->size < sizeof(OrtolanTensor) || value->type.layers)
    return ORTOLAN_INVALID_ARGUMENT;
  tensor->type = static_cast<int32_t>(value->type.element);
  tensor->rank = value->shape.rank;
  tensor->data = value->data();
  tensor->bytes = value->bytes;
  for (uint32_t d = 0; d < value->shape.rank; ++d) tensor->dims[d] = value->shape[d];
  return ORTOLAN_OK;
}

OrtolanStatus ortolan_value_make_tensor(const OrtolanTensor* tensor, OrtolanValue** result) {
  if (!result) return ORTOLAN_INVALID_ARGUMENT;
  *result = nullptr;
  size_t bytes;
  bool is_known = tensor && tensor->size >= sizeof(OrtolanTensor) && tensor->rank <= kMaxRank &&
                  tensor->type > 0 && tensor->type < kDataTypes;
  if (!is_known) return ORTOLAN_INVALID_ARGUMENT;
  ValueType type{static_cast<DataType>(tensor->type), DataType::kUndefined, 0};
  Shape shape = Shape::of({tensor->dims, tensor->rank});
  if (!checked_bytes(shape, element_size(type.element), &bytes)) return ORTOLAN_INVALID_ARGUMENT;
  if (type.element == DataType::kString) bytes = tensor->bytes;
  if (bytes > tensor->bytes || (bytes && !tensor->data)) return ORTOLAN_INVALID_ARGUMENT;
  OutputValue* value = OutputValue::make(platform::default_allocator(), type, shape, bytes);
  if (!value) return ORTOLAN_OUT_OF_MEMORY;
  if (bytes) copy(value->data(), tensor->data, bytes);
  *result = reinterpret_cast<OrtolanValue*>(value);
  return ORTOLAN_OK;
}

OrtolanStatus ortolan_value_make(OrtolanKind kind, const OrtolanTensor* type,
                                 OrtolanValue* const* items, size_t count, OrtolanValue** result) {
  if (!result) return ORTOLAN_INVALID_ARGUMENT;
  *result = nullptr;
  if (!kHasContainers) return ORTOLAN_NOT_IMPLEMENTED;
  bool is_container = kind == ORTOLAN_SEQUENCE || kind == ORTOLAN_MAP || kind == ORTOLAN_OPTIONAL;
  bool has_count = kind == ORTOLAN_MAP ? count == 2 : kind == ORTOLAN_SEQUENCE || count <= 1;
  if (!is_container || !has_count || (count && !items) || (!count && !type) ||
      count > SIZE_MAX / sizeof(OutputValue*) / 2)
    return ORTOLAN_INVALID_ARGUMENT;
  ValueType inner;
  if (count == 0) {
    if (type->type <= 0 || type->type >= kDataTypes) return ORTOLAN_INVALID_ARGUMENT;
    inner.element = static_cast<DataType>(type->type);
  }
  for (size_t i = 0; i < count; ++i) {
    if (!items[i]) return ORTOLAN_INVALID_ARGUMENT;
    ValueType of = unwrap(items[i])->type;
    if (kind == ORTOLAN_MAP && of.layers) return ORTOLAN_INVALID_ARGUMENT;
    if (kind == ORTOLAN_MAP && i == 0) {
      inner.key = of.element;
    } else if (kind == ORTOLAN_MAP || i == 0) {
      DataType key = kind == ORTOLAN_MAP ? inner.key : of.key;
      inner = {of.element, key, of.layers};
    } else if (!(of == inner)) {
      return ORTOLAN_INVALID_ARGUMENT;
    }
  }
  if (inner.layers >> 2 * (kMaxLayers - 1)) return ORTOLAN_INVALID_ARGUMENT;
  OutputValue* value =
      OutputValue::make(platform::default_allocator(), inner.within(static_cast<ValueKind>(kind)),
                        Shape(), count * sizeof(OutputValue*));
  if (!value) return ORTOLAN_OUT_OF_MEMORY;
  for (size_t i = 0; i < count; ++i) {
    value->items()[i] = unwrap(items[i]);
    ortolan_value_retain(items[i]);
  }
  *result = reinterpret_cast<OrtolanValue*>(value);
  return ORTOLAN_OK;
}

void ortolan_value_retain(OrtolanValue* value) {
  if (value) __atomic_fetch_add(&unwrap(value)->references, 1, __ATOMIC_RELAXED);
}

void ortolan_value_release(OrtolanValue* value) { OutputValue::release(unwrap(value)); }

void* ortolan_allocate(size_t bytes) {
  Allocator allocator = platform::default_allocator();
  return allocator.get(bytes);
}

void ortolan_deallocate(void* memory, size_t bytes) {
  platform::default_allocator().put(memory, bytes);
}

}  // extern "C"
