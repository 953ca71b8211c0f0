// Products with weights of 2, 4 or 8 bits that stay as they are in the file: numbers [N][K] in
// blocks along K, each with its scale and zero point. Few rows multiply the packed numbers
// directly; for many rows a thread unpacks the columns that it is at.
#pragma once

#include "kernels/multiply.h"

namespace ortolan::ORTOLAN_ISA {

constexpr size_t kGroup = 16;  // numbers that are unpacked together; blocks are multiples
using Group = Vec<float, 16>;

struct PackedWeights {
  const uint8_t* numbers = nullptr;       // [N][blocks][bytes of a block]
  const float* scales = nullptr;          // [N][blocks]
  const float* zeros = nullptr;           // [N][blocks], or
  const uint8_t* packed_zeros = nullptr;  // [N][zero_row], packed as the numbers, or neither
  const int32_t* groups = nullptr;        // [K]: the block whose scale counts, or null
  size_t N = 0, K = 0, blocks = 0, block = 0, zero_row = 0;
  int bits = 4;

  ORTOLAN_INLINE size_t row_bytes() const { return blocks * block * static_cast<size_t>(bits) / 8; }
  ORTOLAN_INLINE uint32_t number(const uint8_t* row, size_t i) const {
    const size_t bit = i * static_cast<size_t>(bits);
    return row[bit / 8] >> (bit % 8) & ((1u << bits) - 1);
  }
  ORTOLAN_INLINE float zero(size_t n, size_t b) const {
    if (zeros) return zeros[n * blocks + b];
    if (packed_zeros) return static_cast<float>(number(packed_zeros + n * zero_row, b));
    return static_cast<float>(1 << (bits - 1));
  }
};

// 16 numbers: those of the low bits of all bytes, then those of the next bits. Rows of A are in the
// same order (arrange_row).
template <int bits>
ORTOLAN_INLINE Group unpack_group(const uint8_t* p) {
  using All = Vec<uint8_t, 16>;
  if constexpr (bits == 8) {
    return convert<float>(load<All>(p));
  } else if constexpr (bits == 4) {
    using Half = Vec<uint8_t, 8>;
    const Half v = load<Half>(p), low = v & 15, high = v >> 4;
    return convert<float>((All)__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
                                                       11, 12, 13, 14, 15));
  } else {
    uint32_t word;
    copy(&word, p, sizeof(word));
    const Vec<uint32_t, 4> words = {word, word >> 2, word >> 4, word >> 6};
    return convert<float>(bitcast<All>(words) & 3);
  }
}

// A row of A in the order of unpack_group, with zeros up to whole blocks.
ORTOLAN_NOINLINE inline void arrange_row(const float* a, size_t K, size_t padded, int bits,
                                         float* to) {
  const size_t parts = 8 / static_cast<size_t>(bits), bytes = kGroup / parts;
  for (size_t k = 0; k < padded; ++k) {
    const size_t i = k % kGroup, from = k - i + i % bytes * parts + i / bytes;
    to[k] = from < K ? a[from] : 0;
  }
}

// MR rows of A (arranged, `stride` apart) times NC rows of the weights from n on.
template <int bits, int MR, int NC>
ORTOLAN_NOINLINE void multiply_packed_rows(const PackedWeights& w, const float* a, size_t stride,
                                           size_t n, const float* bias, float* y) {
  const uint8_t* from[NC];
  Group sums[MR][NC] = {};
#pragma unroll
  for (int j = 0; j < NC; ++j) from[j] = w.numbers + (n + j) * w.row_bytes();
  for (size_t b = 0; b < w.blocks; ++b) {
    Group part[MR][NC] = {}, zero[NC];
#pragma unroll
    for (int j = 0; j < NC; ++j) zero[j] = splat<Group>(w.zero(n + j, b));
    for (size_t k = 0; k < w.block; k += kGroup, a += kGroup) {
#pragma unroll
      for (int j = 0; j < NC; ++j) {
        const Group v = unpack_group<bits>(from[j]) - zero[j];
        from[j] += kGroup * bits / 8;
#pragma unroll
        for (int i = 0; i < MR; ++i) part[i][j] = fma(load<Group>(a + i * stride), v, part[i][j]);
      }
    }
#pragma unroll
    for (int j = 0; j < NC; ++j) {
      const Group scale = splat<Group>(w.scales[(n + j) * w.blocks + b]);
#pragma unroll
      for (int i = 0; i < MR; ++i) sums[i][j] = fma(part[i][j], scale, sums[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < MR; ++i)
#pragma unroll
    for (int j = 0; j < NC; ++j)
      y[i * w.N + n + j] = reduce_sum(sums[i][j]) + (bias ? bias[n + j] : 0);
}

// Pairs [pair0, pair1) of rows of the weights; the last pair shares a row with the one before where
// N is odd.
template <int bits>
ORTOLAN_NOINLINE void multiply_few_packed(const PackedWeights& w, const float* a, size_t stride,
                                          size_t M, size_t pair0, size_t pair1, const float* bias,
                                          float* y) {
  constexpr int kRows = 4;
  size_t m = 0;
  for (; m + kRows <= M; m += kRows)
    for (size_t n = 2 * pair0; n < min(w.N, 2 * pair1); ++n)
      multiply_packed_rows<bits, kRows, 1>(w, a + m * stride, stride, n, bias, y + m * w.N);
  for (; m < M; ++m)
    for (size_t pair = pair0; pair < pair1; ++pair)
      multiply_packed_rows<bits, 1, 2>(w, a + m * stride, stride, min(2 * pair, w.N - 2), bias,
                                       y + m * w.N);
}

// Row n of the weights as floats in the order of unpack_group, up to whole blocks.
template <int bits>
ORTOLAN_NOINLINE void unpack_row(const PackedWeights& w, size_t n, float* to) {
  const uint8_t* from = w.numbers + n * w.row_bytes();
  for (size_t b = 0; b < w.blocks; ++b) {
    const Group scale = splat<Group>(w.scales[n * w.blocks + b]);
    const Group zero = splat<Group>(w.zero(n, b));
    for (size_t k = 0; k < w.block; k += kGroup, to += kGroup, from += kGroup * bits / 8)
      store(to, (unpack_group<bits>(from) - zero) * scale);
  }
}

// The same in the order of K, each number with the scale of its own group.
ORTOLAN_NOINLINE inline void unpack_grouped_row(const PackedWeights& w, size_t n, float* to) {
  const uint8_t* from = w.numbers + n * w.row_bytes();
  for (size_t k = 0; k < w.K; ++k) {
    const size_t b = static_cast<size_t>(w.groups[k]);
    to[k] = (static_cast<float>(w.number(from, k)) - w.zero(n, b)) * w.scales[n * w.blocks + b];
  }
}

// Columns of the product that a thread unpacks at once.
constexpr size_t kUnpackedColumns = kTileColumns;
// Up to so many rows it is faster to multiply packed numbers.
constexpr size_t kPackedRows = 32;

// Columns [n0, n1) of Y[M][N], no more than kUnpackedColumns, for A[M][depth]; scratch: twice as
// many rows [depth].
ORTOLAN_NOINLINE inline void multiply_unpacked(const PackedWeights& w, const float* a, size_t depth,
                                               size_t M, size_t n0, size_t n1, const float* bias,
                                               float* y, float* scratch) {
  const size_t columns = n1 - n0;
  float* packed = scratch + kUnpackedColumns * depth;
  const auto unpack = w.groups      ? unpack_grouped_row
                      : w.bits == 8 ? unpack_row<8>
                      : w.bits == 4 ? unpack_row<4>
                                    : unpack_row<2>;
  for (size_t n = n0; n < n1; ++n) unpack(w, n, scratch + (n - n0) * depth);
  pack_b(scratch, 1, depth, depth, columns, packed);
  GemmArgs g;
  g.M = M, g.N = columns, g.K = depth;
  g.a = a, g.lda = depth;
  g.packed_b = packed;
  g.c = y + n0, g.ldc = w.N;
  g.epilogue.bias = bias ? bias + n0 : nullptr;
  multiply_rows_panels(g, 0, M, 0, panel_count(columns));
}

// Not hot: small.
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)

// com.microsoft: Y[...][N] = A[...][K] * weights' + bias.
struct MatMulNBits {
  struct State {
    int64_t K = 0, N = 0, block = 0, bits = 4;
  };
  static constexpr int64_t kMostBlock = 1 << 28;
  static constexpr size_t kWeights = 1, kScales = 2, kZeros = 3, kGroups = 4, kBias = 5;

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    s->K = c.attribute_int("K", 0);
    s->N = c.attribute_int("N", 0);
    s->block = c.attribute_int("block_size", 0);
    s->bits = c.attribute_int("bits", 4);
    if (s->K < 1 || s->N < 1) return c.invalid("K % or N % is not positive", s->K, s->N);
    if (s->bits != 2 && s->bits != 4 && s->bits != 8)
      return c.invalid("bits % is not 2, 4 or 8", s->bits);
    if (s->block < 16 || s->block > kMostBlock || (s->block & (s->block - 1)))
      return c.invalid("block_size % is no power of 2 from 16 to %", s->block, kMostBlock);
    if (c.attribute_int("weight_prepacked", 0))
      return c.fail(Status::kNotImplemented, "weight_prepacked is not supported");
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const State& s = c.state<State>();
    Shape y = c.input_shape(0);
    if (!y.rank || y[y.rank - 1] != s.K)
      return c.invalid("A of shape % does not end with K = %", y.span(), s.K);
    y[y.rank - 1] = s.N;
    if (c.has_input(kBias) && c.input_shape(kBias).count() != static_cast<size_t>(s.N))
      return c.invalid("bias of shape % is not [%]", c.input_shape(kBias).span(), s.N);
    if (!is_omitted(c)) ORTOLAN_TRY(check(c));
    const size_t M = y.product(0, y.rank - 1);
    const size_t depth = c.has_input(kGroups) ? static_cast<size_t>(s.K) : padded(s);
    c.request_scratch(c.has_input(kGroups) ? 0 : M * depth * sizeof(float),
                      is_direct(c, M) ? 0 : 2 * kUnpackedColumns * depth * sizeof(float));
    return c.set_output(0, y);
  }

  template <class T>
  static Status run(Context& c) {
    const Shape& shape = c.output_shape(0);
    const size_t M = shape.product(0, shape.rank - 1);
    const float* bias = c.has_input(kBias) ? c.input_data<float>(kBias) : nullptr;
    const PackedWeights w = weights(c);
    float* y = c.output_data<float>(0);
    const float* a = c.input_data<float>(0);
    if (is_omitted(c)) {
      for (size_t i = 0; i < M * w.N; ++i) y[i] = bias ? bias[i % w.N] : 0;
      return Status::kOk;
    }
    for (size_t k = 0; w.groups && k < w.K; ++k)
      if (w.groups[k] < 0 || static_cast<size_t>(w.groups[k]) >= w.blocks)
        return c.invalid("g_idx has %, outside [0, %)", w.groups[k], w.blocks);
    if (!M) return Status::kOk;
    size_t depth = w.K;
    if (!w.groups) {
      depth = w.blocks * w.block;
      float* arranged = static_cast<float*>(c.scratch());
      for (size_t m = 0; m < M; ++m)
        arrange_row(a + m * w.K, w.K, depth, w.bits, arranged + m * depth);
      a = arranged;
    }
    if (is_direct(c, M))
      run_direct(c, w, a, M, bias, y);
    else
      run_unpacked(c, w, a, depth, M, bias, y);
    return Status::kOk;
  }

 private:
  static size_t padded(const State& s) {
    return round_up(static_cast<size_t>(s.K), static_cast<size_t>(s.block));
  }
  static bool is_direct(const Context& c, size_t M) {
    const State& s = c.state<State>();
    return M <= kPackedRows && s.bits != 2 && s.N > 1 && !c.has_input(kGroups);
  }
  // A projection that the model leaves out: weights of no elements.
  static bool is_omitted(const Context& c) { return c.input_shape(kWeights).count() == 0; }

  static PackedWeights weights(const Context& c) {
    const State& s = c.state<State>();
    PackedWeights w;
    w.numbers = c.input_data<uint8_t>(kWeights);
    w.scales = c.input_data<float>(kScales);
    w.groups = c.has_input(kGroups) ? c.input_data<int32_t>(kGroups) : nullptr;
    w.N = static_cast<size_t>(s.N), w.K = static_cast<size_t>(s.K);
    w.block = static_cast<size_t>(s.block), w.blocks = padded(s) / w.block;
    w.bits = static_cast<int>(s.bits);
    w.zero_row = (w.blocks * static_cast<size_t>(s.bits) + 7) / 8;
    if (c.has_input(kZeros) && c.input_type(kZeros) == DataType::kFloat)
      w.zeros = c.input_data<float>(kZeros);
    else if (c.has_input(kZeros))
      w.packed_zeros = c.input_data<uint8_t>(kZeros);
    return w;
  }

  static Status check(const Context& c) {
    const State& s = c.state<State>();
    const size_t N = static_cast<size_t>(s.N), blocks = padded(s) / static_cast<size_t>(s.block);
    const size_t bits = static_cast<size_t>(s.bits);
    const Shape& b = c.input_shape(kWeights);
    if (b.count() != N * padded(s) * bits / 8 || b[0] != s.N)
      return c.invalid("B of shape % is not [%, %, %]", b.span(), N, blocks,
                       static_cast<size_t>(s.block) * bits / 8);
    if (c.input_shape(kScales).count() != N * blocks)
      return c.invalid("scales of shape % are not [%, %]", c.input_shape(kScales).span(), N,
                       blocks);
    if (c.has_input(kZeros)) {
      const bool is_float = c.input_type(kZeros) == DataType::kFloat;
      const size_t row = is_float ? blocks : (blocks * bits + 7) / 8;
      if (c.input_shape(kZeros).count() != N * row)
        return c.invalid("zero_points of shape % are not [%, %]", c.input_shape(kZeros).span(), N,
                         row);
    }
    if (c.has_input(kGroups) && c.input_shape(kGroups).count() < static_cast<size_t>(s.K))
      return c.invalid("g_idx of shape % has less than % entries", c.input_shape(kGroups).span(),
                       s.K);
    return Status::kOk;
  }

  static void run_direct(const Context& c, const PackedWeights& w, const float* a, size_t M,
                         const float* bias, float* y) {
    c.parallel(
        (w.N + 1) / 2, kThreadWork / (2 * M * w.K) + 1, [&](size_t begin, size_t end, size_t) {
          const auto multiply = w.bits == 8 ? multiply_few_packed<8> : multiply_few_packed<4>;
          multiply(w, a, w.blocks * w.block, M, begin, end, bias, y);
        });
  }

  static void run_unpacked(const Context& c, const PackedWeights& w, const float* a, size_t depth,
                           size_t M, const float* bias, float* y) {
    const size_t chunks = (w.N + kUnpackedColumns - 1) / kUnpackedColumns;
    c.parallel(chunks, kThreadWork / (M * w.K * kUnpackedColumns) + 1,
               [&](size_t begin, size_t end, size_t thread) {
                 for (size_t i = begin; i < end; ++i)
                   multiply_unpacked(w, a, depth, M, i * kUnpackedColumns,
                                     min(w.N, (i + 1) * kUnpackedColumns), bias, y,
                                     static_cast<float*>(c.thread_scratch(thread)));
               });
  }
};

#pragma clang attribute pop

}  // namespace ortolan::ORTOLAN_ISA
