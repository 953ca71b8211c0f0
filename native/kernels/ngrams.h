// The n-grams of TfIdfVectorizer: which are known, and how often a text has each.
#pragma once

#include "core/context.h"

namespace ortolan::portable {

// The elements of a row: strings, int32 or int64.
struct Tokens {
  const char* data;
  size_t count;
  DataType type;

  uint64_t hash(size_t i) const {
    if (type == DataType::kString) return hash_of(text(i));
    return hash_of(number(i));
  }
  int64_t number(size_t i) const {
    if (type == DataType::kInt32) {
      int32_t value;
      copy(&value, data + i * sizeof(value), sizeof(value));
      return value;
    }
    int64_t value;
    copy(&value, data + i * sizeof(value), sizeof(value));
    return value;
  }
  String text(size_t i) const {
    Text value;
    copy(&value, data + i * sizeof(value), sizeof(value));
    return value.string();
  }

  // FNV-1a with a final mix.
  static uint64_t hash_of(String text) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < text.size; ++i)
      hash = (hash ^ static_cast<uint8_t>(text.data[i])) * 1099511628211u;
    return hash ^ hash >> 29;
  }
  static uint64_t hash_of(int64_t number) {
    uint64_t hash = static_cast<uint64_t>(number) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
  }
};

class Ngrams {
 public:
  Status read(Context& c) {
    const Attribute* texts = c.attribute("pool_strings");
    texts_ = texts ? texts->strings : Span<const String>();
    numbers_ = c.attribute_ints("pool_int64s");
    const Attribute* weights = c.attribute("weights");
    weights_ = weights ? weights->floats : Span<const float>();
    columns_ = c.attribute_ints("ngram_indexes");
    const bool is_text = c.input_type(0) == DataType::kString;
    const size_t pool = is_text ? texts_.size : numbers_.size;
    const String mode = c.attribute_string("mode", "");
    is_count_ = mode == String("TF");
    is_weight_ = mode == String("IDF");
    if (!is_count_ && !is_weight_ && !(mode == String("TFIDF")))
      return c.invalid("mode \"%\" is unknown", mode);
    const int64_t least = c.attribute_int("min_gram_length", 0);
    const int64_t most = c.attribute_int("max_gram_length", 0);
    const int64_t skips = c.attribute_int("max_skip_count", 0);
    if (least < 1 || most < least || skips < 0 || most > 64)
      return c.invalid("n-grams of % to % elements, up to % skipped", least, most, skips);
    least_ = static_cast<size_t>(least), most_ = static_cast<size_t>(most);
    skips_ = static_cast<size_t>(min<int64_t>(skips, INT32_MAX));
    if (weights_.size && weights_.size != columns_.size)
      return c.invalid("% weights for % n-grams", weights_.size, columns_.size);
    for (int64_t column : columns_) {
      if (column < 0 || column >= kMaxColumns)
        return c.invalid("an n-gram has the column %", column);
      width_ = max(width_, static_cast<size_t>(column) + 1);
    }
    if (!width_) return c.invalid("it has no n-grams");
    return index(c, pool, is_text);
  }

  size_t columns() const { return width_; }

  // Sets the columns of a row.
  void count(const Tokens& tokens, float* to) const {
    for (size_t i = 0; i < width_; ++i) to[i] = 0;
    // A single element has no neighbours to skip, and beyond the row there are none.
    const size_t most_skips = most_ == 1 ? 0 : min(skips_, tokens.count);
    for (size_t distance = 1; distance <= most_skips + 1; ++distance) {
      for (size_t i = 0; i < tokens.count; ++i) {
        uint64_t hash = 0;
        for (size_t n = 1; n <= most_ && i + (n - 1) * distance < tokens.count; ++n) {
          hash = combine(hash, tokens.hash(i + (n - 1) * distance));
          // N-grams of one element are the same at every distance: once.
          if (n < least_ || (n == 1 && distance > 1)) continue;
          add(tokens, i, distance, n, hash, to);
        }
      }
    }
    for (size_t k = 0; !is_count_ && k < columns_.size; ++k) {
      float& value = to[columns_[k]];
      const float weight = weights_.size ? weights_[k] : 1;
      if (value > 0) value = is_weight_ ? weight : value * weight;
    }
  }

 private:
  struct Gram {
    uint64_t hash;
    uint32_t begin, length, number;  // in the pool; of the n-gram
  };
  static constexpr int64_t kMaxColumns = 1 << 26;

  static uint64_t combine(uint64_t hash, uint64_t next) {
    hash = (hash ^ next) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
  }

  // The pool as an open hash table.
  Status index(Context& c, size_t pool, bool is_text) {
    const Span<const int64_t> counts = c.attribute_ints("ngram_counts");
    if (!counts.size || pool > UINT32_MAX / 4) return c.invalid("ngram_counts is empty");
    size_t capacity = 16;
    while (capacity < 2 * columns_.size) capacity *= 2;
    auto* table = static_cast<Gram*>(c.model_memory(capacity * sizeof(Gram)));
    if (!table) return c.out_of_memory();
    table_ = {table, capacity};
    size_t number = 0;
    for (size_t n = 1; n <= counts.size; ++n) {
      const int64_t begin = counts[n - 1];
      const int64_t end = n < counts.size ? counts[n] : static_cast<int64_t>(pool);
      if (begin < 0 || end < begin || end > static_cast<int64_t>(pool) ||
          (end - begin) % static_cast<int64_t>(n))
        return c.invalid("ngram_counts does not divide a pool of %", pool);
      for (int64_t at = begin; at < end; at += static_cast<int64_t>(n), ++number) {
        if (number >= columns_.size) return c.invalid("there are more n-grams than ngram_indexes");
        uint64_t hash = 0;
        for (size_t k = static_cast<size_t>(at); k < static_cast<size_t>(at) + n; ++k)
          hash = combine(hash, is_text ? Tokens::hash_of(texts_[k]) : Tokens::hash_of(numbers_[k]));
        size_t place = hash & (capacity - 1);
        for (; table[place].length; place = (place + 1) & (capacity - 1))
          if (is_same(table[place], hash, static_cast<size_t>(at), n, is_text))
            return c.invalid("n-gram % comes twice", number);
        table[place] = {hash, static_cast<uint32_t>(at), static_cast<uint32_t>(n),
                        static_cast<uint32_t>(number)};
      }
    }
    if (number != columns_.size)
      return c.invalid("% n-grams and % ngram_indexes", number, columns_.size);
    return Status::kOk;
  }

  // As in onnxruntime, none comes twice. Many times the same would also take quadratic time.
  bool is_same(const Gram& gram, uint64_t hash, size_t at, size_t n, bool is_text) const {
    bool same = gram.hash == hash && gram.length == n;
    for (size_t k = 0; same && k < n; ++k)
      same = is_text ? texts_[at + k] == texts_[gram.begin + k]
                     : numbers_[at + k] == numbers_[gram.begin + k];
    return same;
  }

  void add(const Tokens& tokens, size_t first, size_t distance, size_t n, uint64_t hash,
           float* to) const {
    for (size_t place = hash & (table_.size - 1); table_[place].length;
         place = (place + 1) & (table_.size - 1)) {
      const Gram& gram = table_[place];
      if (gram.hash != hash || gram.length != n) continue;
      bool same = true;
      for (size_t k = 0; same && k < n; ++k) {
        const size_t at = first + k * distance;
        same = tokens.type == DataType::kString ? tokens.text(at) == texts_[gram.begin + k]
                                                : tokens.number(at) == numbers_[gram.begin + k];
      }
      if (same) to[columns_[gram.number]] += 1;
    }
  }

  Span<const String> texts_;
  Span<const int64_t> numbers_, columns_;
  Span<const float> weights_;
  Span<Gram> table_;
  size_t least_ = 1, most_ = 1, skips_ = 0, width_ = 0;
  bool is_count_ = false, is_weight_ = false;
};

}  // namespace ortolan::portable
