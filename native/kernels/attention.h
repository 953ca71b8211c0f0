// Attention of all its operators: y = softmax(scale * Q K' and what changes the scores) V, for each
// batch and head. The scores of a tile of rows and a block of keys lie in the first-level cache; y
// takes block after block, its former sums scaled down where a block has a greater score. Input:
// where operands lie, which keys a row may see. Output: y, and the scores of one stage if asked
// for.
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
    if (right >= 0 && at < end && right < end - at) end = max<int64_t>(at + right + 1, 0);
    *last = static_cast<size_t>(end);
    *first = static_cast<size_t>(min(begin, end));
  }
};

// Rows of scores that go together: whole tiles, about 16.
constexpr size_t kScoreTile = kTileRows[kTileVectors];
constexpr size_t kScoreRows = kScoreTile >= 9 ? kScoreTile : 16 / kScoreTile * kScoreTile;
// Keys of a block, in whole panels; the last one has half as many to one and a half times.
constexpr size_t kKeyBlock = 512 / kTileColumns * kTileColumns;

// With few rows K and V are read where they are.
ORTOLAN_INLINE bool packs_keys(const AttentionTask& t) {
  return t.rows > kPlainRows && t.width && t.value_width;
}
// Blocks of keys; all in one where nothing is packed or rows of scores are put out.
ORTOLAN_INLINE size_t key_blocks(const AttentionTask& t) {
  if (!packs_keys(t) || t.stage != Stage::kNone) return 1;
  return max<size_t>((t.keys + kKeyBlock / 2) / kKeyBlock, 1);
}
// Floats from row to row of scores: tiles and vectors may store beyond the last key.
ORTOLAN_INLINE size_t score_stride(const AttentionTask& t) {
  const size_t keys = key_blocks(t) > 1 ? kKeyBlock + kKeyBlock / 2 : t.keys;
  return round_up(keys, kTileColumns) + kLanes;
}
// Rows that go through a block of keys before the next block comes.
ORTOLAN_INLINE size_t group_rows(const AttentionTask& t, size_t groups) {
  return round_up(rows_per_block(t.rows, kBlockRows, groups), kScoreRows);
}
constexpr size_t kGroupLimit = 3 * kBlockRows / 2 + 2 * kScoreRows;

// Where things lie in the scratch of a thread, in floats.
struct AttentionScratch {
  size_t k, v, q, scores, sums, end;
};
ORTOLAN_NOINLINE inline AttentionScratch attention_layout(const AttentionTask& t) {
  const auto floats = [](size_t n) { return round_up(n, kAlignment / sizeof(float)); };
  const size_t rows = min(t.rows, kScoreRows);
  AttentionScratch at = {};
  at.v = packs_keys(t) ? floats(packed_size(t.keys, t.width)) : 0;
  at.q = at.v + (packs_keys(t) ? floats(packed_size(t.value_width, t.keys)) : 0);
  at.scores = at.q + floats(min(t.rows, kGroupLimit) * t.width);
  at.sums = at.scores + floats(rows * score_stride(t));
  at.end = at.sums + (key_blocks(t) > 1 ? floats(rows * t.value_width) : 0);
  return at;
}

// Bytes of scratch for each thread; false when there are too many keys. The stage counts: scores
// that are put out lie in whole rows.
ORTOLAN_NOINLINE inline bool attention_scratch(const AttentionTask& t, size_t* bytes) {
  size_t k, v, scores;
  if (!packed_bytes(t.keys, max<size_t>(t.width, 1), 1, &k) ||
      !packed_bytes(t.value_width, max<size_t>(t.keys, 1), 1, &v) ||
      __builtin_mul_overflow(t.keys, 2 * kScoreRows * sizeof(float), &scores))
    return false;
  *bytes = attention_layout(t).end * sizeof(float);
  return true;
}

// The greatest score so far, and the sum of e^(s - most), of a row.
struct RowState {
  float most;
  double sum;
};

// s = e^(s - most) in [begin, end), rounded out to vectors that are there; answers the factor of
// what is already in the sum. Where there is nothing to see, all are 0; a NaN stays.
ORTOLAN_NOINLINE inline float exp_scores(float* s, size_t begin, size_t end, RowState& state) {
  constexpr size_t kChunk = 32 * kLanes;  // so many are added up in float
  const size_t tail = round_up(end - begin, kLanes) - (end - begin);
  for (size_t j = 0; j < tail; ++j) s[end + j] = -kInfinity;
  F most = splat<F>(state.most);
  for (size_t j = begin; j < end; j += kLanes) most = at_least(load<F>(s + j), most);
  const float greatest = reduce_max(most);
  const F shift = splat<F>(greatest == -kInfinity ? 0 : greatest);
  const float factor = elementary::exp_flushed(splat<F>(state.most) - shift)[0];
  state.sum *= static_cast<double>(factor);
  state.most = greatest;
  for (size_t j = begin; j < end;) {
    F part = splat<F>(0);
#pragma clang loop unroll(disable)
    for (const size_t stop = min(end, j + kChunk); j < stop; j += kLanes) {
      const F e = elementary::exp_flushed(load<F>(s + j) - shift);
      store(s + j, e);
      part += e;
    }
    state.sum += static_cast<double>(reduce_sum(part));
  }
  return factor;
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

// One row of scores, in [begin, end), to e^(s - most); the row sees a part of it. Answers the
// factor of what was before.
ORTOLAN_NOINLINE inline float finish_scores(const AttentionTask& t, size_t b, size_t h, size_t row,
                                            float* s, size_t begin, size_t end, RowState& state) {
  size_t first, last;
  t.range(b, row, &first, &last);
  float* out = t.scores ? t.scores + ((b * t.heads + h) * t.rows + row) * t.keys : nullptr;
  const auto put = [&](Stage stage, float factor) {
    if (t.stage != stage) return;
    const bool is_masked = stage == Stage::kMasked;
    const float rest = is_masked ? t.unseen : 0;
    const size_t from = is_masked ? max(first, begin) : begin;
    const size_t to = is_masked ? min(last, end) : end;
    for (size_t j = 0; j < t.keys; ++j) out[j] = j >= from && j < to ? s[j] * factor : rest;
  };
  put(Stage::kScaled, 1);
  if (t.softcap > 0) {
    const F cap = splat<F>(t.softcap), inverse = splat<F>(1 / t.softcap);
    for (size_t j = begin; j < end; j += kLanes)
      store(s + j, cap * elementary::tanh(load<F>(s + j) * inverse));
  }
  put(Stage::kCapped, 1);
  if (t.bias.data) {
    Overlay<float> bias = t.bias;
    if (t.shifts) bias.data += t.shifts[b];
    add_overlay(bias, b, h, row, s, begin, max(min(last, end), begin));
  }
  if (t.mask.data) add_overlay(t.mask, b, h, row, s, begin, end);
  if (t.allowed.data) {
    const uint8_t* allowed = t.allowed.at(b, h, row);
    for (size_t j = begin; j < end; ++j)
      if (j >= t.allowed.columns || !allowed[j * t.allowed.column]) s[j] = -kInfinity;
  }
  for (size_t j = begin; j < min(first, end); ++j) s[j] = t.hidden;
  for (size_t j = max(last, begin); j < end; ++j) s[j] = t.hidden;
  put(Stage::kMasked, 1);
  const float factor = exp_scores(s, begin, end, state);
  put(Stage::kSoftmax, state.sum != 0 ? static_cast<float>(1 / state.sum) : 0);
  return factor;
}

// A thread's scratch. K' and V of one batch and head are packed where there are rows enough, V
// block by block of keys.
struct PackedKeys {
  float *k = nullptr, *v = nullptr;
  float *q, *scores, *sums;
  size_t owner = SIZE_MAX;  // batch and head that are packed

  PackedKeys(const AttentionTask& t, void* scratch) {
    const AttentionScratch at = attention_layout(t);
    float* floats = static_cast<float*>(scratch);
    if (packs_keys(t)) k = floats, v = floats + at.v;
    q = floats + at.q, scores = floats + at.scores, sums = floats + at.sums;
  }
  ORTOLAN_NOINLINE void pack(const AttentionTask& t, size_t b, size_t head, size_t keys) {
    if (!k || owner == b * t.kv_heads + head) return;
    owner = b * t.kv_heads + head;
    Product p;
    p.N = keys, p.K = t.width, p.b_row = 1, p.b_column = t.k.row;
    pack_matrix(p, t.k.at(b, head), 0, panel_count(p.N), k);
    p.N = t.value_width, p.b_row = t.v.row, p.b_column = 1;
    const size_t blocks = key_blocks(t);
    for (size_t i = 0; i < blocks; ++i) {
      const size_t first = min(i * kKeyBlock, keys);
      p.K = (i + 1 == blocks ? keys : min(keys, first + kKeyBlock)) - first;
      pack_matrix(p, t.v.at(b, head) + first * t.v.row, 0, panel_count(p.N),
                  v + packed_size(p.N, 1) * first);
    }
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
  if (t.left < 0 && t.right < 0) row1 = min(row1, row0 + 1);  // all see the same
  for (size_t i = row0; i < row1; ++i) {
    size_t first, last;
    t.range(b, i, &first, &last);
    if (first == last) continue;
    *begin = min(*begin, first), *end = max(*end, last);
  }
  *begin = min(*begin, *end);
}

// What rows of one batch and head have in common, and a tile of them.
struct RowTile {
  const AttentionTask& t;
  size_t b, h, kv;
  size_t keys;        // that any row sees
  size_t row, rows;   // of the tile
  const float* q;     // scaled
  size_t begin, end;  // keys that the tile sees
  bool started = false;
};

// y = y * factor + sums for a row.
ORTOLAN_INLINE void add_block(float* y, const float* sums, size_t n, float factor) {
  for (size_t i = 0; i < n; ++i) y[i] = y[i] * factor + sums[i];
}

// Adds the block [key0, key1) of keys to a tile's rows of y.
ORTOLAN_NOINLINE inline void attend_block(RowTile& r, size_t key0, size_t key1, PackedKeys& packed,
                                          RowState* states) {
  const AttentionTask& t = r.t;
  const size_t stride = score_stride(t), begin = min(max(r.begin, key0), key1);
  const size_t end = max(min(r.end, key1), begin);
  float* const scores = packed.scores - key0;
  if (begin == end && t.stage == Stage::kNone) return;
  GemmArgs g;
  g.M = r.rows, g.N = r.keys, g.K = t.width;
  g.a = r.q, g.lda = t.width;
  g.c = scores, g.ldc = stride;
  if (packed.k && begin < end) {
    const size_t panels = panel_count(r.keys);
    g.packed_b = packed.k;
    const size_t panel0 = min(begin / kTileColumns, panels - 1);
    const size_t panel1 = min((end - 1) / kTileColumns + 1, panels);
    multiply_rows_panels(g, 0, r.rows, panel0, panel1);
  } else {
    for (size_t i = 0; i < r.rows; ++i)
      for (size_t j = begin; j < end; ++j)
        scores[i * stride + j] = dot(g.a + i * g.lda, t.k.at(r.b, r.kv) + j * t.k.row, t.width);
  }
  float factors[kScoreRows];
  for (size_t i = 0; i < r.rows; ++i)
    factors[i] = finish_scores(t, r.b, r.h, r.row + i, scores + i * stride, begin, end, states[i]);
  float* y = t.y + r.b * t.y_batch + r.h * t.y_head + r.row * t.y_row;
  g.K = key1 - key0, g.N = t.value_width;
  g.a = packed.scores, g.lda = stride;
  g.c = r.started ? packed.sums : y, g.ldc = r.started ? t.value_width : t.y_row;
  if (packed.v && key0 < key1) {
    for (size_t i = 0; i < r.rows; ++i) {
      fill_zero(packed.scores + i * stride, (begin - key0) * sizeof(float));
      fill_zero(scores + i * stride + end, (key1 - end) * sizeof(float));
    }
    g.packed_b = packed.v + packed_size(g.N, 1) * key0;
    multiply_rows_panels(g, 0, r.rows, 0, panel_count(g.N));
  } else {
    g.a = scores + begin, g.K = end - begin;
    gemm_plain(g, t.v.at(r.b, r.kv) + begin * t.v.row, t.v.row, 0, g.N);
  }
  for (size_t i = 0; r.started && i < r.rows; ++i)
    add_block(y + i * t.y_row, packed.sums + i * t.value_width, t.value_width, factors[i]);
  r.started = true;
}

// Rows [row0, row1) of one batch and head, no more than kGroupLimit.
ORTOLAN_NOINLINE inline void attend_rows(const AttentionTask& t, size_t b, size_t h, size_t row0,
                                         size_t row1, PackedKeys& packed) {
  constexpr size_t kTiles = kGroupLimit / kScoreRows + 1;
  const size_t kv = h / (t.heads / t.kv_heads), blocks = key_blocks(t);
  size_t first, keys;
  seen_keys(t, b, 0, t.rows, &first, &keys);
  packed.pack(t, b, kv, keys);
  RowState states[kTiles * kScoreRows];
  bool started[kTiles] = {};
  for (size_t row = row0; row < row1; ++row) {
    const float sink = t.sinks ? t.sinks[h] : -kInfinity;
    states[row - row0] = {sink, sink == -kInfinity ? 0.0 : 1.0};
    const float* q = t.q.at(b, h) + row * t.q.row;
    float* to = packed.q + (row - row0) * t.width;
    for (size_t i = 0; i < t.width; ++i) to[i] = q[i] * t.scale;
  }
  for (size_t block = 0; block < blocks; ++block) {
    const size_t key0 = min(block * kKeyBlock, keys);
    const size_t key1 = block + 1 == blocks ? keys : min(keys, key0 + kKeyBlock);
    for (size_t row = row0, tile = 0; row < row1; row += kScoreRows, ++tile) {
      RowTile r = {t,
                   b,
                   h,
                   kv,
                   keys,
                   row,
                   min(kScoreRows, row1 - row),
                   packed.q + (row - row0) * t.width,
                   0,
                   0,
                   started[tile]};
      seen_keys(t, b, row, row + r.rows, &r.begin, &r.end);
      attend_block(r, key0, key1, packed, states + (row - row0));
      started[tile] = r.started;
    }
  }
  for (size_t row = row0; row < row1; ++row) {
    float* y = t.y + b * t.y_batch + h * t.y_head + row * t.y_row;
    const double sum = states[row - row0].sum;
    const float factor = sum != 0 ? static_cast<float>(1 / sum) : 0;
    if (!started[(row - row0) / kScoreRows]) fill_zero(y, t.value_width * sizeof(float));
    for (size_t i = 0; i < t.value_width; ++i) y[i] *= factor;
  }
}

// Everything; the scratch of each thread has attention_scratch bytes.
ORTOLAN_NOINLINE inline void attend(const Context& c, const AttentionTask& t) {
  if (!t.batches || !t.heads || !t.rows) return;
  const size_t all = t.batches * t.heads, wanted = c.threads() > 1 ? 4 * c.threads() : 1;
  const size_t each = group_rows(t, (wanted + all - 1) / all);
  const size_t groups = (t.rows + each - 1) / each;
  const size_t work = max<size_t>(min(t.rows, each) * t.keys * (t.width + t.value_width), 1);
  c.parallel(all * groups, kThreadWork / work + 1, [&](size_t begin, size_t end, size_t thread) {
    PackedKeys packed(t, c.thread_scratch(thread));
    for (size_t unit = begin; unit < end; ++unit) {
      const size_t row = unit % groups * each, h = unit / groups % t.heads;
      attend_rows(t, unit / groups / t.heads, h, row, min(t.rows, row + each), packed);
    }
  });
}

}  // namespace ortolan::ORTOLAN_ISA
