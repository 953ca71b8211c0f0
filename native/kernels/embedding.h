// com.microsoft's EmbedLayerNormalization: rows of embeddings, added up and normalized.
#pragma once

#include "kernels/layer_normalization.h"

namespace ortolan::ORTOLAN_ISA {

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

struct EmbedLayerNormalization {
  static constexpr size_t kIds = 0, kSegments = 1, kWords = 2, kPositions = 3, kSegment = 4,
                          kGamma = 5, kBeta = 6, kMask = 7, kPlaces = 8;

  static Status prepare(Context& c) { return prepare_layer(c, 1e-12f); }

  static Status infer(Context& c) {
    const Shape& ids = c.input_shape(kIds);
    const Shape& words = c.input_shape(kWords);
    if (ids.rank != 2) return c.invalid("input_ids of shape % needs 2 dimensions", ids.span());
    if (words.rank != 2)
      return c.invalid("word_embedding of shape % needs 2 dimensions", words.span());
    for (size_t i = kPositions; i <= kSegment; ++i) {
      if (!c.has_input(i)) continue;
      const Shape& s = c.input_shape(i);
      if (s.rank != 2 || s[1] != words[1])
        return c.invalid("input % of shape % is no table of rows of %", i, s.span(), words[1]);
    }
    if (c.has_input(kSegments) != c.has_input(kSegment))
      return c.invalid("segment_ids and segment_embedding come together");
    for (size_t i = kSegments; i <= kPlaces; ++i) {
      if (!c.has_input(i) || (i > kSegments && i < kMask)) continue;
      const Shape& s = c.input_shape(i);
      const bool repeats = i == kPlaces && s.rank == 2 && s[0] == 1 && s[1] == ids[1];
      if (!(s == ids) && !repeats)
        return c.invalid("input % has shape %, not % as input_ids", i, s.span(), ids.span());
    }
    if (!c.has_input(kPlaces) && ids[1] > c.input_shape(kPositions)[0])
      return c.invalid("% positions are more than the % rows of position_embedding", ids[1],
                       c.input_shape(kPositions)[0]);
    ORTOLAN_TRY(check_vectors(c, kGamma, kBeta, words[1]));
    Shape rows = ids, lengths;
    rows.append(words[1]);
    lengths.append(ids[0]);
    ORTOLAN_TRY(c.set_output(0, rows));
    ORTOLAN_TRY(c.set_output(1, lengths));
    return c.set_output(2, rows);
  }

  template <class T>
  static Status run(Context& c) {
    const Shape& ids = c.input_shape(kIds);
    const size_t length = static_cast<size_t>(ids[1]), rows = ids.count();
    const size_t n = static_cast<size_t>(c.input_shape(kWords)[1]);
    ORTOLAN_TRY(check_ids(c, kIds, kWords));
    ORTOLAN_TRY(check_ids(c, kSegments, kSegment));
    ORTOLAN_TRY(check_ids(c, kPlaces, kPositions));
    if (c.has_output(1)) count_words(c, length);
    if (rows * n == 0) return Status::kOk;
    const size_t places = c.has_input(kPlaces) ? c.input_shape(kPlaces).count() : 0;
    const float epsilon = c.state<LayerState>().epsilon;
    c.parallel(rows, kRowWork / n + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        const size_t place = places ? index(c, kPlaces, r % places) : r % length;
        const T* word = c.input_data<T>(kWords) + index(c, kIds, r) * n;
        const T* position = c.input_data<T>(kPositions) + place * n;
        T* to = c.output_data<T>(0) + r * n;
        for (size_t i = 0; i < n; ++i) to[i] = word[i] + position[i];
        if (c.has_input(kSegment)) {
          const T* segment = c.input_data<T>(kSegment) + index(c, kSegments, r) * n;
          for (size_t i = 0; i < n; ++i) to[i] += segment[i];
        }
        if (c.has_output(2)) copy(c.output_data<T>(2) + r * n, to, n * sizeof(T));
        normalize_row(to, to, n, row_moments(to, n, epsilon), c.input_data<T>(kGamma),
                      c.input_data<T>(kBeta));
      }
    });
    return Status::kOk;
  }

 private:
  static size_t index(const Context& c, size_t input, size_t i) {
    return static_cast<size_t>(c.input_data<int32_t>(input)[i]);
  }
  static Status check_ids(const Context& c, size_t input, size_t table) {
    if (!c.has_input(input)) return Status::kOk;
    const int64_t rows = c.input_shape(table)[0];
    const int32_t* ids = c.input_data<int32_t>(input);
    for (size_t i = 0, n = c.input_shape(input).count(); i < n; ++i)
      if (ids[i] < 0 || ids[i] >= rows)
        return c.invalid("entry % of input % is %, outside a table of % rows", i, input, ids[i],
                         rows);
    return Status::kOk;
  }
  // How many entries of each row of the mask are 1; 0 where there is no mask.
  static void count_words(const Context& c, size_t length) {
    for (size_t b = 0; b < static_cast<size_t>(c.input_shape(kIds)[0]); ++b) {
      int32_t count = 0;
      for (size_t i = 0; c.has_input(kMask) && i < length; ++i)
        count += c.input_data<int32_t>(kMask)[b * length + i] == 1;
      c.output_data<int32_t>(1)[b] = count;
    }
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
