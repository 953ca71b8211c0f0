// Attention of all its operators: y = softmax(scale * Q K' and what changes the scores) V, for each
// batch and head. A few rows of scores at a time lie in a thread's scratch, never all. Input: where
// operands lie, which keys a row may see. Output: y, and the scores of one stage where asked for.
#pragma once

#include "kernels/elementary.h"
#include "kernels/multiply.h"

namespace ortolan::ORTOLAN_ISA {

// An operand [batch][head][row][width] with contiguous rows; steps in elements.
struct Heads {
  const float* data = nullptr;
  size_t batch = 0, head = 0, row = 0;

  ORTOLAN_INLINE const float* at(size_t b, size_t h) const { return data + b * batch + h * head; }
};

// Something [batch][head][row][key] that is laid over the scores; steps of 0 repeat it.
template <class T>
struct Overlay {
  const T* data = nullptr;
  size_t batch = 0, head = 0, row = 0, column = 0;
  size_t columns = SIZE_MAX;  // keys beyond are hidden

  ORTOLAN_INLINE const T* at(size_t b, size_t h, size_t r) const {
    return data + b * batch + h * head + r * row;
  }
};

ORTOLAN_INLINE Shape shape_of(const int64_t (&dims)[4]) { return Shape::of({dims, 4}); }
ORTOLAN_INLINE int64_t signed_size(size_t n) { return static_cast<int64_t>(n); }

// Scores as they are to be put out.
enum class Stage : uint8_t { kNone, kScaled, kCapped, kMasked, kSoftmax };

struct AttentionTask {
  size_t batches = 0, heads = 0, kv_heads = 0;
  size_t rows = 0, keys = 0;  // queries and keys of a batch
  size_t width = 0, value_width = 0;
  Heads q, k, v;
  float* y = nullptr;
  size_t y_batch = 0, y_head = 0, y_row = 0;

  float scale = 1, softcap = 0;
  Overlay<float> bias, mask;  // added
  Overlay<uint8_t> allowed;   // 0: hidden as by -inf
  // Row i of batch b is at the position i + offset. It sees keys from `left` before to `right`
  // after it, no more than the batch has. The keys that it does not see get the score `hidden`.
  const int64_t* offsets = nullptr;  // [batches]; null: `offset` for all
  const int64_t* lengths = nullptr;  // [batches]; null: `keys` for all
  int64_t offset = 0;
  const int64_t* shifts = nullptr;  // [batches]; keys of a bias that the task no longer has
  int64_t left = -1, right = -1;    // -1: no limit
  float hidden = -kInfinity;
  const float* sinks = nullptr;  // [heads]: logits that are in the sum alone

  Stage stage = Stage::kNone;
  float* scores = nullptr;    // [batches][heads][rows][keys]
  float unseen = -kInfinity;  // masked scores of keys that a row does not see, as they are put out

  ORTOLAN_INLINE int64_t length(size_t b) const {
    const int64_t n = static_cast<int64_t>(keys);
    return lengths ? max<int64_t>(min(lengths[b], n), 0) : n;
  }
  // The keys [first, last) that a row sees.
  ORTOLAN_NOINLINE void range(size_t b, size_t row, size_t* first, size_t* last) const {
    const int64_t at = static_cast<int64_t>(row) + (offsets ? offsets[b] : offset);
    int64_t begin = 0, end = length(b);
    if (left >= 0 && at > left) begin = at - left;
    if (right >= 0) end = max<int64_t>(min(end, at < 0 && right < -at ? 0 : at + right + 1), 0);
    *last = static_cast<size_t>(end);
    *first = static_cast<size_t>(min(begin, end));
  }
};

// Rows of scores that go together: whole tiles, about 16.
constexpr size_t kScoreTile = kTileRows[kTileVectors];
constexpr size_t kScoreRows = kScoreTile >= 9 ? kScoreTile : 16 / kScoreTile * kScoreTile;

// Floats from row to row of scores: tiles and vectors may store beyond the last key.
ORTOLAN_INLINE size_t score_stride(size_t keys) { return round_up(keys, kTileColumns) + kLanes; }
// With few rows K and V are read where they are.
ORTOLAN_INLINE bool packs_keys(const AttentionTask& t) {
  return t.rows > kPlainRows && t.width && t.value_width;
}

// Bytes of scratch for each thread; false when there are too many keys.
ORTOLAN_NOINLINE inline bool attention_scratch(const AttentionTask& t, size_t* bytes) {
  size_t k = 0, v = 0, scores;
  if (packs_keys(t) &&
      (!packed_bytes(t.keys, t.width, 1, &k) || !packed_bytes(t.value_width, t.keys, 1, &v)))
    return false;
  const size_t rows = min(t.rows, kScoreRows);
  if (__builtin_mul_overflow(score_stride(t.keys), rows * sizeof(float), &scores)) return false;
  *bytes = round_up(k, kAlignment) + round_up(v, kAlignment) + round_up(scores, kAlignment);
  return true;
}

// e^(s - most) of [begin, end), rounded out to vectors that are there, over their sum.
ORTOLAN_NOINLINE inline void softmax_scores(float* s, size_t begin, size_t end, const float* sink) {
  const size_t tail = round_up(end - begin, kLanes) - (end - begin);
  for (size_t j = 0; j < tail; ++j) s[end + j] = -kInfinity;
  F most = splat<F>(sink ? *sink : -kInfinity);
  for (size_t j = begin; j < end; j += kLanes) most = at_least(load<F>(s + j), most);
  const float greatest = reduce_max(most);
  if (greatest == -kInfinity) {
    // Nothing to see. A NaN may be among the scores, and must stay.
    bool is_nan = false;
    for (size_t j = begin; j < end; ++j) is_nan |= s[j] != s[j];
    if (!is_nan) return fill_zero(s + begin, (end - begin) * sizeof(float));
  }
  const F shift = splat<F>(greatest);
  double sum = sink ? static_cast<double>(elementary::exp((F)(*sink) - shift)[0]) : 0;
  for (size_t j = begin; j < end;) {
    F part = splat<F>(0);  // a few vectors at a time in float
    for (const size_t stop = min(end, j + 8 * kLanes); j < stop; j += kLanes) {
      const F e = elementary::exp(load<F>(s + j) - shift);
      store(s + j, e);
      part += e;
    }
    sum += static_cast<double>(reduce_sum(part));
  }
  const F factor = splat<F>(static_cast<float>(1 / sum));
  for (size_t j = begin; j < end; j += kLanes) store(s + j, load<F>(s + j) * factor);
}

ORTOLAN_NOINLINE inline void add_overlay(const Overlay<float>& o, size_t b, size_t h, size_t row,
                                         float* s, size_t begin, size_t end) {
  const float* from = o.at(b, h, row);
  const size_t stop = min(end, max(o.columns, begin));
  if (o.column == 1)
    for (size_t j = begin; j < stop; ++j) s[j] += from[j];
  else
    for (size_t j = begin; j < stop; ++j) s[j] += *from;
  for (size_t j = stop; j < end; ++j) s[j] = -kInfinity;
}

// One row of scores from products to probabilities, in [begin, end); the row sees a part of it.
ORTOLAN_NOINLINE inline void finish_scores(const AttentionTask& t, size_t b, size_t h, size_t row,
                                           float* s, size_t begin, size_t end) {
  size_t first, last;
  t.range(b, row, &first, &last);
  float* out = t.scores ? t.scores + ((b * t.heads + h) * t.rows + row) * t.keys : nullptr;
  const auto put = [&](Stage stage) {
    if (t.stage != stage) return;
    const bool is_masked = stage == Stage::kMasked;
    const float rest = is_masked ? t.unseen : 0;
    const size_t from = is_masked ? max(first, begin) : begin;
    const size_t to = is_masked ? min(last, end) : end;
    for (size_t j = 0; j < t.keys; ++j) out[j] = j >= from && j < to ? s[j] : rest;
  };
  for (size_t j = begin; j < end; ++j) s[j] *= t.scale;
  put(Stage::kScaled);
  if (t.softcap > 0) {
    const F cap = splat<F>(t.softcap), inverse = splat<F>(1 / t.softcap);
    for (size_t j = begin; j < end; j += kLanes)
      store(s + j, cap * elementary::tanh(load<F>(s + j) * inverse));
  }
  put(Stage::kCapped);
  if (t.bias.data) {
    Overlay<float> bias = t.bias;
    if (t.shifts) bias.data += t.shifts[b];
    add_overlay(bias, b, h, row, s, begin, max(last, begin));
  }
  if (t.mask.data) add_overlay(t.mask, b, h, row, s, begin, end);
  if (t.allowed.data) {
    const uint8_t* allowed = t.allowed.at(b, h, row);
    for (size_t j = begin; j < end; ++j)
      if (j >= t.allowed.columns || !allowed[j * t.allowed.column]) s[j] = -kInfinity;
  }
  for (size_t j = begin; j < first; ++j) s[j] = t.hidden;
  for (size_t j = max(last, begin); j < end; ++j) s[j] = t.hidden;
  put(Stage::kMasked);
  softmax_scores(s, begin, end, t.sinks ? t.sinks + h : nullptr);
  put(Stage::kSoftmax);
}

// K' and V of one batch and head, packed where there are rows enough.
struct PackedKeys {
  float* k = nullptr;
  float* v = nullptr;
  float* scores = nullptr;
  size_t owner = SIZE_MAX;  // batch and head that are packed

  PackedKeys(const AttentionTask& t, void* scratch) {
    char* at = static_cast<char*>(scratch);
    if (packs_keys(t)) {
      k = reinterpret_cast<float*>(at);
      at += round_up(packed_size(t.keys, t.width) * sizeof(float), kAlignment);
      v = reinterpret_cast<float*>(at);
      at += round_up(packed_size(t.value_width, t.keys) * sizeof(float), kAlignment);
    }
    scores = reinterpret_cast<float*>(at);
  }
  ORTOLAN_NOINLINE void pack(const AttentionTask& t, size_t b, size_t head, size_t keys) {
    if (!k || owner == b * t.kv_heads + head) return;
    owner = b * t.kv_heads + head;
    Product p;
    p.N = keys, p.K = t.width, p.b_row = 1, p.b_column = t.k.row;
    pack_matrix(p, t.k.at(b, head), 0, panel_count(p.N), k);
    p.N = t.value_width, p.K = keys, p.b_row = t.v.row, p.b_column = 1;
    pack_matrix(p, t.v.at(b, head), 0, panel_count(p.N), v);
  }
};

// The keys that any of rows [row0, row1) may see; all of them where hidden ones have a weight.
ORTOLAN_NOINLINE inline void seen_keys(const AttentionTask& t, size_t b, size_t row0, size_t row1,
                                       size_t* begin, size_t* end) {
  *begin = t.keys, *end = 0;
  if (t.hidden != -kInfinity || t.stage == Stage::kScaled || t.stage == Stage::kCapped) {
    *begin = 0, *end = t.keys;
    return;
  }
  for (size_t i = row0; i < row1; ++i) {
    size_t first, last;
    t.range(b, i, &first, &last);
    if (first == last) continue;
    *begin = min(*begin, first), *end = max(*end, last);
  }
  *begin = min(*begin, *end);
}

// Rows [row0, row1) of one batch and head, no more than kScoreRows.
ORTOLAN_NOINLINE inline void attend_rows(const AttentionTask& t, size_t b, size_t h, size_t row0,
                                         size_t row1, PackedKeys& packed) {
  const size_t kv = h / (t.heads / t.kv_heads), rows = row1 - row0;
  size_t begin, end, first, keys;
  seen_keys(t, b, row0, row1, &begin, &end);
  seen_keys(t, b, 0, t.rows, &first, &keys);
  const size_t stride = score_stride(t.keys);
  float* scores = packed.scores;
  packed.pack(t, b, kv, keys);
  GemmArgs g;
  g.M = rows, g.N = keys, g.K = t.width;
  g.a = t.q.at(b, h) + row0 * t.q.row, g.lda = t.q.row;
  g.c = scores, g.ldc = stride;
  if (packed.k && begin < end) {
    const size_t panels = panel_count(keys);
    g.packed_b = packed.k;
    const size_t panel0 = min(begin / kTileColumns, panels - 1);
    const size_t panel1 = min((end - 1) / kTileColumns + 1, panels);
    multiply_rows_panels(g, 0, rows, panel0, panel1);
  } else {
    for (size_t i = 0; i < rows; ++i)
      for (size_t j = begin; j < end; ++j)
        scores[i * stride + j] = dot(g.a + i * g.lda, t.k.at(b, kv) + j * t.k.row, t.width);
  }
  for (size_t i = 0; i < rows; ++i)
    finish_scores(t, b, h, row0 + i, scores + i * stride, begin, end);
  g.K = keys, g.N = t.value_width;
  g.a = scores, g.lda = stride;
  g.c = t.y + b * t.y_batch + h * t.y_head + row0 * t.y_row, g.ldc = t.y_row;
  if (packed.v && keys) {
    for (size_t i = 0; i < rows; ++i) {
      float* s = scores + i * stride;
      fill_zero(s, begin * sizeof(float));
      if (keys > end) fill_zero(s + end, (keys - end) * sizeof(float));
    }
    g.packed_b = packed.v;
    return multiply_rows_panels(g, 0, rows, 0, panel_count(g.N));
  }
  g.a += begin, g.K = end - begin;
  gemm_plain(g, t.v.at(b, kv) + begin * t.v.row, t.v.row, 0, g.N);
}

// Everything; the scratch of each thread has attention_scratch bytes from `offset` on.
ORTOLAN_NOINLINE inline void attend(const Context& c, const AttentionTask& t) {
  const size_t blocks = (t.rows + kScoreRows - 1) / kScoreRows;
  if (!t.batches || !t.heads || !t.rows) return;
  const size_t work = max<size_t>(min(t.rows, kScoreRows) * t.keys * (t.width + t.value_width), 1);
  c.parallel(t.batches * t.heads * blocks, kThreadWork / work + 1,
             [&](size_t begin, size_t end, size_t thread) {
               PackedKeys packed(t, c.thread_scratch(thread));
               for (size_t unit = begin; unit < end; ++unit) {
                 const size_t block = unit % blocks, h = unit / blocks % t.heads;
                 const size_t row = block * kScoreRows;
                 attend_rows(t, unit / blocks / t.heads, h, row, min(t.rows, row + kScoreRows),
                             packed);
               }
             });
}

}  // namespace ortolan::ORTOLAN_ISA
