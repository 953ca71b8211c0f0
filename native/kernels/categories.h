// A set of keys with their places, found by hash; and elements of any type as keys.
#pragma once

#include "kernels/ngrams.h"
#include "kernels/scores.h"

namespace ortolan::portable {

// As conversion on x86 does, which answers the least integer for what does not fit.
inline int64_t whole(double x) {
  return x >= -0x1p63 && x < 0x1p63 ? static_cast<int64_t>(x) : INT64_MIN;
}

class Categories {
 public:
  // Of equal keys the first counts, or the last.
  bool last_counts = false;

  Status read(Context& c, Span<const String> texts) {
    texts_ = texts;
    return fill(c, texts.size);
  }
  template <class T>
  Status read(Context& c, Span<const T> numbers) {
    auto* words = static_cast<int64_t*>(c.model_memory(max<size_t>(numbers.size, 1) * 8));
    if (!words) return c.out_of_memory();
    for (size_t i = 0; i < numbers.size; ++i) words[i] = word(numbers[i]);
    words_ = {words, numbers.size};
    return fill(c, numbers.size);
  }
  inline Status read(Context& c, const TensorView& tensor);

  size_t size() const { return texts_.size ? texts_.size : words_.size; }

  // The place of the key, size() if it is none.
  size_t find(String text) const {
    for (size_t slot = Tokens::hash_of(text);; ++slot) {
      const uint32_t place = table_[slot & (table_.size - 1)];
      if (place == 0) return size();
      if (place <= texts_.size && texts_[place - 1] == text) return place - 1;
    }
  }
  size_t find(int64_t key) const {
    for (size_t slot = Tokens::hash_of(key);; ++slot) {
      const uint32_t place = table_[slot & (table_.size - 1)];
      if (place == 0) return size();
      if (place <= words_.size && words_[place - 1] == key) return place - 1;
    }
  }
  size_t find(double key) const { return find(word(key)); }

  // Floats are keys by their value: all NaN are one key, and so are the zeros.
  static int64_t word(int64_t x) { return x; }
  static int64_t word(double x) {
    if (x == 0) return 0;
    if (x != x) x = __builtin_nan("");
    int64_t bits;
    copy(&bits, &x, sizeof(bits));
    return bits;
  }
  static int64_t word(float x) { return word(static_cast<double>(x)); }

 private:
  Status fill(Context& c, size_t count) {
    size_t capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    auto* table = static_cast<uint32_t*>(c.model_memory(capacity * sizeof(uint32_t)));
    if (!table || count > UINT32_MAX / 4) return c.out_of_memory();
    table_ = {table, capacity};
    for (size_t k = 0; k < count; ++k) {
      const size_t i = last_counts ? count - 1 - k : k;
      const bool is_new = texts_.size ? find(texts_[i]) == size() : find(words_[i]) == size();
      size_t slot = texts_.size ? Tokens::hash_of(texts_[i]) : Tokens::hash_of(words_[i]);
      while (is_new && table[slot & (capacity - 1)]) ++slot;
      if (is_new) table[slot & (capacity - 1)] = static_cast<uint32_t>(i + 1);
    }
    return Status::kOk;
  }

  Span<const String> texts_;
  Span<const int64_t> words_;
  Span<uint32_t> table_;
};

// The elements of an operand or an item.
class Elements {
 public:
  Elements(const Context& c, size_t input)
      : data_(c.input_data<char>(input)), type_(c.input_type(input)) {}
  explicit Elements(const Item& item)
      : data_(static_cast<const char*>(item.block)), type_(item.type.element) {}
  Elements(const void* data, DataType type) : data_(static_cast<const char*>(data)), type_(type) {}

  bool is_text() const { return type_ == DataType::kString; }
  String text(size_t i) const { return get<Text>(i).string(); }
  int64_t integer(size_t i) const {
    return type_ == DataType::kInt32   ? get<int32_t>(i)
           : type_ == DataType::kInt16 ? get<int16_t>(i)
                                       : get<int64_t>(i);
  }
  double number(size_t i) const {
    return type_ == DataType::kFloat    ? static_cast<double>(get<float>(i))
           : type_ == DataType::kDouble ? get<double>(i)
                                        : static_cast<double>(integer(i));
  }
  int64_t word(size_t i) const { return is_float() ? Categories::word(number(i)) : integer(i); }
  int64_t whole(size_t i) const { return is_float() ? portable::whole(number(i)) : integer(i); }
  size_t find(const Categories& keys, size_t i) const {
    return is_text() ? keys.find(text(i)) : keys.find(word(i));
  }

 private:
  bool is_float() const { return type_ == DataType::kFloat || type_ == DataType::kDouble; }
  template <class T>
  T get(size_t i) const {
    T value;
    copy(&value, data_ + i * sizeof(T), sizeof(T));
    return value;
  }
  const char* data_;
  DataType type_;
};

inline Status Categories::read(Context& c, const TensorView& tensor) {
  const size_t count = tensor.shape.count();
  const Elements elements(tensor.data, tensor.type);
  if (elements.is_text()) {
    auto* texts = static_cast<String*>(c.model_memory(max<size_t>(count, 1) * sizeof(String)));
    if (!texts) return c.out_of_memory();
    for (size_t i = 0; i < count; ++i) texts[i] = elements.text(i);
    return read(c, Span<const String>{texts, count});
  }
  auto* words = static_cast<int64_t*>(c.model_memory(max<size_t>(count, 1) * sizeof(int64_t)));
  if (!words) return c.out_of_memory();
  for (size_t i = 0; i < count; ++i) words[i] = elements.word(i);
  return read(c, Span<const int64_t>{words, count});
}

}  // namespace ortolan::portable
