// A signature of the registry, read in place (core/registry.h has its form).
#pragma once

#include "core/ort_view.h"
#include "core/registry.h"

namespace ortolan {

constexpr uint8_t kMaxVariables = 16;

struct SignatureView {
  explicit SignatureView(const uint8_t* bytes) : bytes(bytes) {
    copy(&header, bytes, sizeof(header));
  }
  uint32_t mask(uint8_t variable) const {
    constexpr uint32_t kBuilt = kHasTexts ? ~0u : ~type_bit(DataType::kString);
    return kBuilt & read<uint32_t>(bytes + sizeof(header) + 4 * static_cast<size_t>(variable));
  }
  const uint8_t* parameters() const {
    return bytes + sizeof(header) + 4 * static_cast<size_t>(header.variables);
  }
  uint8_t parameter(size_t i) const {
    return parameters()[min<size_t>(i, header.declared_inputs - 1)];
  }
  // The variable of a parameter, kFreeVariable if its type is not constrained.
  static uint8_t variable(uint8_t parameter) {
    return parameter & kFreeBit ? kFreeVariable : parameter & kVariableBits;
  }
  uint8_t input(size_t i) const { return variable(parameter(i)); }
  bool is_sequence_input(size_t i) const { return is_sequence(parameter(i)); }
  static bool is_sequence(uint8_t parameter) {
    return !(parameter & kFreeBit) && (parameter & kSequenceOf);
  }
  // Some operators of other domains have optional inputs before required ones. Of inputs that
  // repeat none is left out.
  bool needs_input(size_t i) const {
    const bool repeated = (header.variadic & 1) && i + 1 >= header.declared_inputs;
    return repeated || (i < header.min_inputs && !(parameter(i) & kOptional));
  }
  uint8_t output(size_t i) const { return variable(result(i)); }
  bool is_sequence_output(size_t i) const { return is_sequence(result(i)); }
  uint8_t result(size_t i) const {
    return parameters()[header.declared_inputs + min<size_t>(i, header.declared_outputs - 1)];
  }
  bool takes_inputs(size_t n) const { return n <= header.declared_inputs || (header.variadic & 1); }
  size_t required_outputs() const { return header.variadic >> 2; }
  bool takes_outputs(size_t n) const {
    return n <= header.declared_outputs || (header.variadic & 2);
  }

  Signature header;
  const uint8_t* bytes;
};

}  // namespace ortolan
