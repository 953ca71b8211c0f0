// ONNX protobuf for fuzzers: a writer of messages, and damage that keeps their lengths right.
#pragma once

#include <vector>

#include "driver.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace wire {

using driver::Random;

// ---- Writing.

class Message {
 public:
  Message& number(uint32_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
    return *this;
  }
  Message& real(uint32_t field, float value) {
    varint(field << 3 | 5);
    bytes_.append(reinterpret_cast<const char*>(&value), 4);
    return *this;
  }
  Message& text(uint32_t field, const std::string& value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(uint32_t field, const Message& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_ += static_cast<char>(value | 128);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// ---- Damage: a message is a list of fields, of which some are messages.

enum Type : uint8_t {
  kNone,
  kModel,
  kOpset,
  kEntry,
  kGraph,
  kNode,
  kAttribute,
  kValue,
  kTensor,
  kSparse,
  kKind,
  kTensorKind,
  kWrapped,
  kMap,
  kShape,
  kDimension,
};
struct Child {
  Type of;
  uint32_t number;
  Type type;
};
constexpr Child kChildren[] = {
    {kModel, 7, kGraph},       {kModel, 8, kOpset},      {kModel, 14, kEntry},
    {kGraph, 1, kNode},        {kGraph, 5, kTensor},     {kGraph, 11, kValue},
    {kGraph, 12, kValue},      {kGraph, 13, kValue},     {kGraph, 15, kSparse},
    {kNode, 5, kAttribute},    {kAttribute, 5, kTensor}, {kAttribute, 6, kGraph},
    {kAttribute, 10, kTensor}, {kAttribute, 11, kGraph}, {kAttribute, 14, kKind},
    {kAttribute, 22, kSparse}, {kValue, 2, kKind},       {kSparse, 1, kTensor},
    {kSparse, 2, kTensor},     {kKind, 1, kTensorKind},  {kKind, 4, kWrapped},
    {kKind, 5, kMap},          {kKind, 8, kTensorKind},  {kKind, 9, kWrapped},
    {kTensorKind, 2, kShape},  {kWrapped, 1, kKind},     {kMap, 2, kKind},
    {kShape, 1, kDimension},   {kTensor, 13, kEntry},
};

struct Field {
  uint32_t number = 0;
  uint8_t wire = 0;
  uint64_t value = 0;  // of a number
  std::string bytes;   // of text
  Type type = kNone;   // of a message
  std::vector<Field> fields;
};

inline bool read_varint(const char*& at, const char* end, uint64_t* value) {
  *value = 0;
  for (uint32_t shift = 0; at < end && shift < 64; shift += 7) {
    uint8_t byte = static_cast<uint8_t>(*at++);
    *value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return true;
  }
  return false;
}

inline bool parse(const char* at, const char* end, Type of, int depth, std::vector<Field>* fields) {
  while (at < end) {
    Field field;
    uint64_t tag, length;
    if (!read_varint(at, end, &tag)) return false;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = tag & 7;
    size_t left = static_cast<size_t>(end - at), width = field.wire == 1 ? 8 : 4;
    if (field.wire == 0) {
      if (!read_varint(at, end, &field.value)) return false;
    } else if (field.wire == 1 || field.wire == 5) {
      if (left < width) return false;
      memcpy(&field.value, at, width);
      at += width;
    } else if (field.wire == 2) {
      if (!read_varint(at, end, &length) || length > static_cast<size_t>(end - at)) return false;
      for (const Child& child : kChildren)
        if (child.of == of && child.number == field.number) field.type = child.type;
      if (depth > 40 || !field.type ||
          !parse(at, at + length, field.type, depth + 1, &field.fields)) {
        field.type = kNone;
        field.fields.clear();
        field.bytes.assign(at, length);
      }
      at += length;
    } else {
      return false;
    }
    fields->push_back(std::move(field));
  }
  return true;
}

inline void write(const std::vector<Field>& fields, std::string* out) {
  auto varint = [&](uint64_t value) {
    for (; value >= 128; value >>= 7) *out += static_cast<char>(value | 128);
    *out += static_cast<char>(value);
  };
  for (const Field& field : fields) {
    varint(static_cast<uint64_t>(field.number) << 3 | field.wire);
    if (field.wire == 0) {
      varint(field.value);
    } else if (field.wire == 2) {
      std::string inner = field.bytes;
      if (field.type) inner.clear(), write(field.fields, &inner);
      varint(inner.size());
      *out += inner;
    } else {
      out->append(reinterpret_cast<const char*>(&field.value), field.wire == 1 ? 8 : 4);
    }
  }
}

struct Place {
  std::vector<Field>* list;
  size_t index;
  Type of;
  Field& field() const { return (*list)[index]; }
};
inline void collect(std::vector<Field>& fields, Type of, std::vector<Place>* places) {
  for (size_t i = 0; i < fields.size(); ++i) {
    places->push_back({&fields, i, of});
    collect(fields[i].fields, fields[i].type, places);
  }
}

inline void damage_value(Field& field, Random& random) {
  if (field.wire == 0) {
    field.value = random.below(3) ? static_cast<uint64_t>(driver::draw_integer(random))
                                  : field.value + random.below(9) - 4;
  } else if (field.wire != 2) {
    field.value ^= uint64_t{1} << random.below(field.wire == 1 ? 64 : 32);
  } else if (!field.type) {
    std::string& bytes = field.bytes;
    switch (bytes.empty() ? 0 : random.below(4)) {
      case 0:
        bytes.insert(bytes.begin() + random.below(static_cast<uint32_t>(bytes.size()) + 1),
                     static_cast<char>(random.next()));
        break;
      case 1:
        bytes.pop_back();
        break;
      default:
        bytes[random.below(static_cast<uint32_t>(bytes.size()))] = static_cast<char>(random.next());
    }
  }
}

// For LLVMFuzzerCustomMutator.
inline size_t mutate(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  std::vector<Field> model;
  const char* text = reinterpret_cast<const char*>(data);
  if (random.below(20) == 0 || !parse(text, text + size, kModel, 0, &model) || model.empty())
    return LLVMFuzzerMutate(data, size, max_size);
  for (uint32_t n = 1 + random.below(3); n; --n) {
    std::vector<Place> places;
    collect(model, kModel, &places);
    if (places.empty()) break;
    auto pick = [&] { return places[random.below(static_cast<uint32_t>(places.size()))]; };
    Place place = pick();
    switch (random.below(8)) {
      case 0:
        place.list->erase(place.list->begin() + static_cast<ptrdiff_t>(place.index));
        break;
      case 1: {  // a second one, there or elsewhere in its list
        Field copy = place.field();
        size_t at = random.below(static_cast<uint32_t>(place.list->size()) + 1);
        place.list->insert(place.list->begin() + static_cast<ptrdiff_t>(at), copy);
        break;
      }
      case 2:
        std::swap(place.field(),
                  (*place.list)[random.below(static_cast<uint32_t>(place.list->size()))]);
        break;
      case 3:
        place.field().number = 1 + random.below(26);
        break;
      case 4:
      case 5: {  // what another field of the same meaning, or at least of the same form, holds
        for (int tries = 0; tries < 60; ++tries) {
          Place other = pick();
          bool alike = other.field().wire == place.field().wire &&
                       (tries > 40 ||
                        (other.of == place.of && other.field().number == place.field().number));
          if (!alike || &other.field() == &place.field()) continue;
          Field copy = other.field();
          copy.number = place.field().number;
          place.field() = copy;
          break;
        }
        break;
      }
      default:
        damage_value(place.field(), random);
    }
  }
  std::string made;
  write(model, &made);
  if (made.size() > max_size) return size;
  memcpy(data, made.data(), made.size());
  return made.size();
}

}  // namespace wire
