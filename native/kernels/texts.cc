#include "kernels/texts.h"

#include "core/decimal.h"
#include "kernels/narrow.h"

namespace ortolan::portable {

namespace {

template <class T>
T element(const void* data, size_t i) {
  T value;
  copy(&value, static_cast<const char*>(data) + i * sizeof(T), sizeof(T));
  return value;
}
template <class T>
void put(void* data, size_t i, T value) {
  copy(static_cast<char*>(data) + i * sizeof(T), &value, sizeof(T));
}

size_t write(DataType type, const void* data, size_t i, char* text) {
  switch (type) {
    case DataType::kDouble:
      return decimal::write_double(text, element<double>(data, i));
    case DataType::kFloat:
      return decimal::write_float(text, element<float>(data, i));
    case DataType::kUint64:
      return decimal::write_uint(text, element<uint64_t>(data, i));
    case DataType::kUint32:
      return decimal::write_uint(text, element<uint32_t>(data, i));
    case DataType::kUint16:
      return decimal::write_uint(text, element<uint16_t>(data, i));
    case DataType::kUint8:
    case DataType::kBool:
      return decimal::write_uint(text, element<uint8_t>(data, i));
    case DataType::kInt64:
      return decimal::write_int(text, element<int64_t>(data, i));
    case DataType::kInt32:
      return decimal::write_int(text, element<int32_t>(data, i));
    case DataType::kInt16:
      return decimal::write_int(text, element<int16_t>(data, i));
    case DataType::kInt8:
      return decimal::write_int(text, element<int8_t>(data, i));
    default: {
      float x;
      widen(type, static_cast<const char*>(data) + i * element_size(type), &x, 1);
      return decimal::write_float(text, x);
    }
  }
}

// What an integer of fewer bytes cannot hold wraps, as in casts between integers.
bool parse(String text, DataType type, void* data, size_t i) {
  char* to = static_cast<char*>(data) + i * element_size(type);
  switch (type) {
    case DataType::kDouble: {
      double x;
      if (!decimal::read_double(text, &x)) return false;
      copy(to, &x, sizeof(x));
      return true;
    }
    case DataType::kUint64: {
      uint64_t x;
      if (!decimal::read_uint(text, &x)) return false;
      copy(to, &x, sizeof(x));
      return true;
    }
    case DataType::kInt8:
    case DataType::kUint8:
    case DataType::kInt16:
    case DataType::kUint16:
    case DataType::kInt32:
    case DataType::kUint32:
    case DataType::kInt64: {
      int64_t x;
      if (!decimal::read_int(text, &x)) return false;
      copy(to, &x, element_size(type));  // little endian: the low bytes
      return true;
    }
    case DataType::kBool: {
      int64_t x;
      if (!decimal::read_int(text, &x)) return false;
      put<uint8_t>(data, i, x != 0);
      return true;
    }
    default: {
      float x;
      if (!decimal::read_float(text, &x)) return false;
      if (type == DataType::kFloat)
        copy(to, &x, sizeof(x));
      else
        narrow({type}, &x, to, 1);
      return true;
    }
  }
}

}  // namespace

Status cast_texts(Context& c) {
  const DataType from = c.input_type(0), to = c.output_type(0);
  const size_t count = c.output_shape(0).count();
  const void* x = c.input_data<void>(0);
  void* y = c.output_data<void>(0);
  if (from == to) {
    if (x != y && count) copy(y, x, count * sizeof(Text));
    return Status::kOk;
  }
  for (size_t i = 0; i < count; ++i) {
    if (to == DataType::kString) {
      char text[decimal::kMaxText];
      const Text made = c.make_text({text, write(from, x, i, text)});
      if (!made.address) return c.out_of_memory();
      put(y, i, made);
      continue;
    }
    const String text = element<Text>(x, i).string();
    if (!parse(text, to, y, i)) return c.invalid("\"%\" at % is no %", text, i, type_name(to));
  }
  return Status::kOk;
}

Status equal_texts(Context& c) {
  const Text* a = c.input_data<Text>(0);
  const Text* b = c.input_data<Text>(1);
  bool* out = c.output_data<bool>(0);
  broadcast_pairs(c,
                  [&](size_t k, size_t i, size_t j) { out[k] = a[i].string() == b[j].string(); });
  return Status::kOk;
}

}  // namespace ortolan::portable
