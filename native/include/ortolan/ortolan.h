/* Ortolan: runs ONNX models in ORT format. The C interface; every binding stands on it.
 *
 * Objects: a model is immutable and may be shared by threads; a run is one call in flight and
 * belongs to one thread at a time; a value is reference counted. Every function that can fail
 * answers an OrtolanStatus and keeps the text of the failure on the object that failed. Structs
 * begin with their size, set by the caller, so that they can grow. Nothing here is global.
 */
#ifndef ORTOLAN_H_
#define ORTOLAN_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ORTOLAN_API __declspec(dllexport)
#elif defined(__wasm__)
#define ORTOLAN_API __attribute__((visibility("default"), used))
#else
#define ORTOLAN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ORTOLAN_VERSION "0.1.0"
#define ORTOLAN_MAX_RANK 8

/* Below 100: onnxruntime's codes. */
typedef enum OrtolanStatus {
  ORTOLAN_OK = 0,
  ORTOLAN_FAIL = 1,
  ORTOLAN_INVALID_ARGUMENT = 2,
  ORTOLAN_NO_SUCHFILE = 3,
  ORTOLAN_NO_MODEL = 4,
  ORTOLAN_NOT_IMPLEMENTED = 9,
  ORTOLAN_INVALID_GRAPH = 10,
  ORTOLAN_OUT_OF_MEMORY = 100,
  ORTOLAN_LIMIT_EXCEEDED = 101,
  ORTOLAN_CANCELLED = 102,
  ORTOLAN_INVALID_FORMAT = 103
} OrtolanStatus;

typedef struct OrtolanModel OrtolanModel;
typedef struct OrtolanRun OrtolanRun;
typedef struct OrtolanValue OrtolanValue;

/* Hooks of the caller; members that are null are the platform's own. `allocate` answers memory
 * aligned to 64 bytes or null; `deallocate` gets the same byte count back. Severity as in
 * onnxruntime: 0 verbose to 4 fatal. All may be called from any thread that uses the model. */
typedef struct OrtolanHooks {
  uint32_t size;
  void* user;
  void* (*allocate)(void* user, size_t bytes);
  void (*deallocate)(void* user, void* memory, size_t bytes);
  void (*log)(void* user, int32_t severity, const char* text);
} OrtolanHooks;

/* A key and value; the keys are onnxruntime's where it has them:
 *   session.intra_op_num_threads  number of threads, 0 = one per processor
 *   session.set_denormal_as_zero  "1": denormals count as zero during runs
 *   ortolan.instruction_set       highest level to use; "base" or 0 = the library's baseline
 *   ortolan.seed                  of random operators that have none: runs of a model repeat
 *   ortolan.winograd_bytes        what weights for Winograd's convolution may take beyond plain
 *                                 ones in a model; 64 MB if not set, 0 = it is not used
 * Limits; what goes beyond one fails with ORTOLAN_LIMIT_EXCEEDED:
 *   ortolan.max_model_bytes   of the model's files and what loading takes beside them (64 GiB)
 *   ortolan.max_nodes         of all graphs (1,000,000)
 *   ortolan.max_depth         of graphs in graphs (64)
 *   ortolan.max_tensor_bytes  that a node computes (16 GiB)
 *   ortolan.max_run_bytes     of a run: arena, second region, plans, outputs (64 GiB)
 *   ortolan.max_iterations    of all loops of a run together (100,000,000)
 *   ortolan.max_milliseconds  of loading, and of each run, looked at between nodes (0: no end)
 * Unknown keys are ignored, as onnxruntime does. */
typedef struct OrtolanOption {
  const char* key;
  const char* value;
} OrtolanOption;

/* A tensor's description and, where it says so, its bytes. `type` is ONNX's
 * TensorProto.DataType; unknown dimensions are -1. The bytes of a string tensor of n elements are
 * one block, aligned to 4: n + 1 offsets (uint32_t) from its start, in order, then the text;
 * element i is UTF-8 from offset i to offset i + 1. */
typedef struct OrtolanTensor {
  uint32_t size;
  int32_t type;
  uint32_t rank;
  void* data;
  size_t bytes;
  int64_t dims[ORTOLAN_MAX_RANK];
} OrtolanTensor;

typedef enum OrtolanKind {
  ORTOLAN_TENSOR = 0,
  ORTOLAN_SEQUENCE = 1,
  ORTOLAN_MAP = 2,     /* two items: a tensor of keys, a tensor of values */
  ORTOLAN_OPTIONAL = 3 /* one item or none */
} OrtolanKind;

typedef enum OrtolanSide { ORTOLAN_INPUT = 0, ORTOLAN_OUTPUT = 1 } OrtolanSide;

/* "0.1.0" */
ORTOLAN_API const char* ortolan_version(void);
/* The instruction set that this machine gets, e.g. "avx512". */
ORTOLAN_API const char* ortolan_instruction_set(void);

/* ---- Models */

/* *model is set whenever memory allows, also on failure: then only ortolan_model_error and
 * ortolan_model_release may be called. `bytes` are borrowed and must outlive the model. `hooks` may
 * be null; it is copied. */
ORTOLAN_API OrtolanStatus ortolan_model_load(const void* bytes, size_t size,
                                             const OrtolanOption* options, size_t option_count,
                                             const OrtolanHooks* hooks, OrtolanModel** model);
/* Maps the file at `path` (UTF-8): it must stay as it is while the model lives, for a system may
 * end a process that reads behind the end of a file that was shortened. Whoever cannot promise
 * that, or has a pipe, reads it and calls ortolan_model_load. */
ORTOLAN_API OrtolanStatus ortolan_model_open(const char* path, const OrtolanOption* options,
                                             size_t option_count, const OrtolanHooks* hooks,
                                             OrtolanModel** model);
/* Runs hold a reference of their own. */
ORTOLAN_API void ortolan_model_release(OrtolanModel* model);
/* Belongs to the model. */
ORTOLAN_API const char* ortolan_model_error(const OrtolanModel* model);

/* Inputs without initializer come first in the model's order; overridable initializers are inputs
 * as well (ortolan_model_overridable tells them apart). */
ORTOLAN_API size_t ortolan_model_count(const OrtolanModel* model, OrtolanSide side);
/* Zero-terminated, belongs to the model; null when there is no such index. */
ORTOLAN_API const char* ortolan_model_name(const OrtolanModel* model, OrtolanSide side,
                                           size_t index);
/* "tensor(float)", "seq(map(int64,tensor(float)))"...; belongs to the model. */
ORTOLAN_API const char* ortolan_model_type(const OrtolanModel* model, OrtolanSide side,
                                           size_t index);
/* Fills type (of a container: of the tensors inside), rank and dims; rank is 0xffffffff when
 * unknown. */
ORTOLAN_API OrtolanStatus ortolan_model_tensor(const OrtolanModel* model, OrtolanSide side,
                                               size_t index, OrtolanTensor* tensor);
/* The symbolic name of a dimension, null when it has none. */
ORTOLAN_API const char* ortolan_model_dimension(const OrtolanModel* model, OrtolanSide side,
                                                size_t index, size_t axis);
/* 1 when the input has a value of its own that a feed may replace. */
ORTOLAN_API int32_t ortolan_model_overridable(const OrtolanModel* model, size_t index);
/* "producer_name", "graph_description", "domain", "description", "producer_version",
 * "ort_version", or a key of the model's own metadata; null when absent. */
ORTOLAN_API const char* ortolan_model_metadata(const OrtolanModel* model, const char* key);
/* The keys of the model's own metadata; null past the end. */
ORTOLAN_API const char* ortolan_model_metadata_key(const OrtolanModel* model, size_t index);
/* "name", "domain" or "type" of a node as a step counts it; null when there is none. "variants"
 * where the option ortolan.record_variants gave the floats of a vector and the library records
 * them: the version, a letter for each variant ("a" is number 0) or "-", the types of the inputs.
 */
ORTOLAN_API const char* ortolan_model_node(const OrtolanModel* model, size_t graph, size_t node,
                                           const char* key);
/* "nodes", "graphs", "model_version", "ir_version", "loaded_bytes", "copied"; 0 = unknown key. */
ORTOLAN_API int32_t ortolan_model_number(const OrtolanModel* model, const char* key,
                                         int64_t* number);

/* ---- Runs */

/* *run is set whenever memory allows, also on failure. */
ORTOLAN_API OrtolanStatus ortolan_run_create(OrtolanModel* model, OrtolanRun** run);
ORTOLAN_API void ortolan_run_release(OrtolanRun* run);
ORTOLAN_API const char* ortolan_run_error(const OrtolanRun* run);
/* Sets ortolan.max_run_bytes, ortolan.max_iterations or ortolan.max_milliseconds for this run from
 * its next execution on; an empty value is the model's again. Other keys are ignored. */
ORTOLAN_API OrtolanStatus ortolan_run_option(OrtolanRun* run, const OrtolanOption* option);
/* `tensor->data` is borrowed until the next ortolan_run_execute has returned. */
ORTOLAN_API OrtolanStatus ortolan_run_input(OrtolanRun* run, size_t index,
                                            const OrtolanTensor* tensor);
/* Any value, also a container; borrowed likewise. */
ORTOLAN_API OrtolanStatus ortolan_run_input_value(OrtolanRun* run, size_t index,
                                                  const OrtolanValue* value);
/* Where the next execution puts an output (a tensor without strings); its type and shape must be
 * what the model gives. Without this call the runtime makes a value. Memory for inputs and outputs
 * must not overlap. */
ORTOLAN_API OrtolanStatus ortolan_run_output(OrtolanRun* run, size_t index,
                                             const OrtolanTensor* tensor);
/* Runs from the inputs to the outputs, forgetting both sets of arguments. */
ORTOLAN_API OrtolanStatus ortolan_run_execute(OrtolanRun* run);
/* The value made for an output; the caller owns the reference. Null when there is none. */
ORTOLAN_API OrtolanValue* ortolan_run_take(OrtolanRun* run, size_t index);
/* A whole call, for bindings in which every crossing is dear. */
typedef struct OrtolanCall {
  uint32_t size;
  uint32_t input_count, output_count;
  const OrtolanTensor* inputs; /* of the first inputs of the model; type 0 = not given */
  const uint32_t* wanted;      /* which outputs; the arrays below are in this order */
  const OrtolanTensor* places; /* where to put them, type 0 = in a value; null = all in values */
  OrtolanTensor* outputs;      /* filled for values; type 0 = the value is no tensor */
  OrtolanValue** values;       /* filled, the caller owns the references; null where put */
} OrtolanCall;
/* ortolan_run_input and _output of what is given, _execute, _take and _value_tensor of the rest.
 * On failure nothing is taken, and all of `values` are null. */
ORTOLAN_API OrtolanStatus ortolan_run_call(OrtolanRun* run, const OrtolanCall* call);
/* A node that ran; nanoseconds of a steady clock. One that runs bodies ends when a body begins. */
typedef struct OrtolanStep {
  uint32_t graph, node;
  uint64_t begin, end;
} OrtolanStep;
/* Each execution from now on writes its steps there, as far as there is room; `steps` is borrowed
 * until this is called with null. ortolan_run_number tells how many "steps" there were. */
ORTOLAN_API void ortolan_run_profile(OrtolanRun* run, OrtolanStep* steps, size_t capacity);
/* From any thread: the execution in flight, or else the next one, stops before its next node with
 * ORTOLAN_CANCELLED. */
ORTOLAN_API void ortolan_run_cancel(OrtolanRun* run);
/* "arena_bytes", "arena_floor", "heap_peak", "steps" of the last execution; 0 = unknown key. */
ORTOLAN_API int32_t ortolan_run_number(const OrtolanRun* run, const char* key, int64_t* number);

/* ---- Values */

ORTOLAN_API OrtolanKind ortolan_value_kind(const OrtolanValue* value);
/* Items of a container; 0 for a tensor. */
ORTOLAN_API size_t ortolan_value_count(const OrtolanValue* value);
/* An item; the caller owns the reference. Null when there is no such index. */
ORTOLAN_API OrtolanValue* ortolan_value_item(const OrtolanValue* value, size_t index);
/* A tensor with a copy of the bytes; the caller owns the reference. */
ORTOLAN_API OrtolanStatus ortolan_value_make_tensor(const OrtolanTensor* tensor,
                                                    OrtolanValue** value);
/* A container of items of one type, of which it takes references of its own. `type` says what an
 * empty one holds (tensors of type->type), and may be null otherwise. */
ORTOLAN_API OrtolanStatus ortolan_value_make(OrtolanKind kind, const OrtolanTensor* type,
                                             OrtolanValue* const* items, size_t count,
                                             OrtolanValue** value);
/* Fills the description and the address of the bytes, which belong to the value. */
ORTOLAN_API OrtolanStatus ortolan_value_tensor(const OrtolanValue* value, OrtolanTensor* tensor);
ORTOLAN_API void ortolan_value_retain(OrtolanValue* value);
ORTOLAN_API void ortolan_value_release(OrtolanValue* value);

/* ---- Memory for callers without an allocator of their own (WebAssembly) */

/* 64-byte aligned, null when memory is out. */
ORTOLAN_API void* ortolan_allocate(size_t bytes);
ORTOLAN_API void ortolan_deallocate(void* memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif /* ORTOLAN_H_ */
