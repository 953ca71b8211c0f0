// The generated operator registry (src/ortolan/build/registry.py writes its contents): two levels,
// no pointers, no names. Functions have numbers; `invoke` is one generated switch, so a library
// needs no relocations for them and links only what its registry names.
#pragma once

#include "core/status.h"
#include "core/types.h"
#include "ortolan_features.h"

namespace ortolan {

class Context;

// How a kernel treats the layout of its operands.
enum class LayoutClass : uint8_t {
  kPlain = 0,        // everything plain
  kElementwise = 1,  // any layout, the same for all tensor operands and results
  kSpatial = 2,      // input 0 and output 0 channels_last, the rest plain
  kAxis = 3,         // like kElementwise; the kernel maps its axis itself
  kTranspose = 4,    // input of any layout, output of any layout
  kPacked = 5,       // everything plain, but the output where all its readers take it packed
};

// Operators that the executor itself runs.
enum class Control : uint8_t { kNone = 0, kIf = 1, kLoop = 2, kScan = 3 };

struct KernelInfo {
  enum Flag : uint8_t {
    kShapeOnly = 1,      // results depend on the shapes of inputs alone
    kDataDependent = 2,  // run asks for its outputs when it knows their sizes
    kVolatile = 4,       // never evaluated ahead (random numbers)
  };
  uint16_t prepare, infer, run;  // function numbers, 0 = nothing to do
  LayoutClass layout;
  Control control;
  uint8_t value_inputs;  // bit i: the *value* of input i decides output shapes
  uint8_t in_place;      // bit i: output 0 may take the memory of input i
  uint8_t packed;        // bit i: input i may be a packed constant (core/packed.h)
  uint8_t flags;
};

// One kernel for a range of operator versions, a set of types and an instruction set.
struct Row {
  uint8_t min_version, max_version;
  uint8_t target;  // instruction set level that the kernel needs, 0 = any
  uint8_t reserved;
  uint32_t types_a, types_b;  // allowed types of the signature's two key variables
  uint16_t kernel;            // into kKernels
  uint16_t signature;         // into kSignatures
};
static_assert(sizeof(Row) == 16);

struct Operator {
  uint32_t hash;  // of domain, ':' and type
  uint16_t first_row, row_count;
};

// Encoded signature: the header, then `variables` type masks (4 bytes each), then a variable number
// per declared input, plus kOptional where one may be missing, and per declared output. The last
// input repeats when it is variadic.
struct Signature {
  uint8_t min_inputs;
  uint8_t declared_inputs;
  uint8_t variadic;  // bit 0: last input repeats, bit 1: last output repeats; above: the number
                     // of outputs up to the last that is not optional
  uint8_t declared_outputs;
  uint8_t key_a, key_b;    // variable numbers, kNoVariable if unused
  uint8_t type_attribute;  // low 3 bits: TypeAttribute that gives output types not bound by inputs;
                           // above, where it is left out: a DataType, or kFallback + a variable
  uint8_t variables;
};
constexpr uint8_t kNoVariable = 255;
// A parameter's byte: the number of a variable with flags, or "free": no constraint.
constexpr uint8_t kVariableBits = 15, kSequenceOf = 16, kOptional = 64, kFreeBit = 128;
constexpr uint8_t kFreeVariable = kFreeBit;
constexpr uint8_t kFallback = 16, kTypeAttributeBits = 3;
enum class TypeAttribute : uint8_t {
  kNone = 0,
  kTo = 1,
  kDtype = 2,
  kValue = 3,
  kOutput = 4,
  kOutputDtype = 5,  // 0 is as if it were left out
  kRule = 7,         // the bits above are a TypeRule
};
// What free outputs are, and those that no input binds.
enum class TypeRule : uint8_t {
  kSame = 0,         // as input 0
  kOptional = 1,     // an optional of input 0
  kElement = 2,      // what is in input 0 if it is an optional, else as input 0
  kZipMap = 3,       // a sequence of maps from labels to float
  kMapValue = 4,     // a tensor with the values of the map in input 0
  kLabels = 5,       // string with the attribute classlabels_strings, else int64
  kLabelValues = 6,  // of the attribute that is there: values_strings, values_tensor...
  kOpposite = 7,     // int64 for string and string for int64
  kCastTo = 8,       // as the attribute cast_to says
  kPositive = 9,     // int32 where the attribute positive is 0, else uint32
};

extern const Operator kOperators[];
extern const uint32_t kOperatorCount;
extern const Row kRows[];
extern const KernelInfo kKernels[];
extern const uint8_t kSignatures[];

Status invoke(uint16_t function, Context& context);

// FNV-1a with a final mix; the generator computes the same.
constexpr uint32_t operator_hash(String domain, String type) {
  uint32_t hash = 2166136261u;
  for (char c : Span<const char>{domain.data, domain.size})
    hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  hash = (hash ^ ':') * 16777619u;
  for (char c : Span<const char>{type.data, type.size})
    hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash ^ (hash >> 15);
}

// Null when the operator is not in this build.
const Operator* find_operator(String domain, String type);

}  // namespace ortolan
