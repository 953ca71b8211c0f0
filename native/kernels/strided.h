// The engine of operators that only move elements: a copy described as nested loops with a stride
// into the input and one into the output. Rows that lie together become block copies, exchanged
// axes become tiled transpositions, and large copies are shared among the threads.
#pragma once

#include "core/context.h"
#include "core/vector.h"

namespace ortolan::portable {

constexpr uint32_t kMaxLoops = 2 * kMaxRank + 2;

// The type to read and write elements of a width through: several narrow elements may be moved as
// one wide one, wherever they begin, and the same bytes may be read as another type elsewhere.
template <class Word>
struct Packed {
  typedef Word Type __attribute__((may_alias, aligned(1)));
};
template <class Word>
using Loose = typename Packed<Word>::Type;

// Strides are in elements.
struct StridedLoop {
  size_t size = 1;
  ptrdiff_t in = 0, out = 0;
};

struct Nest {
  uint32_t rank = 0;
  StridedLoop loops[kMaxLoops];

  // Adds the next loop inwards. Loops of one turn vanish, loops that continue each other join.
  ORTOLAN_NOINLINE void add(size_t size, ptrdiff_t in, ptrdiff_t out) {
    if (size == 1) return;
    const ptrdiff_t n = static_cast<ptrdiff_t>(size);
    if (rank > 0) {
      StridedLoop& outer = loops[rank - 1];
      if (outer.in == in * n && outer.out == out * n) {
        outer = {outer.size * size, in, out};
        return;
      }
    }
    loops[rank++] = {size, in, out};
  }
  void remove(uint32_t at) {
    for (uint32_t i = at + 1; i < rank; ++i) loops[i - 1] = loops[i];
    --rank;
  }
  size_t count() const {
    size_t n = 1;
    for (uint32_t i = 0; i < rank; ++i) n *= loops[i].size;
    return n;
  }
  // Makes elements that always go together in twos, fours or eights one wider element.
  ORTOLAN_NOINLINE size_t widen(size_t width) {
    while (width < 8 && rank > 1) {
      const StridedLoop& last = loops[rank - 1];
      const size_t n = last.size;
      if (last.in != 1 || last.out != 1 || n > 8 || (n & (n - 1)) || n * width > 8) break;
      const ptrdiff_t mask = static_cast<ptrdiff_t>(n) - 1;
      ptrdiff_t odd = 0;
      for (uint32_t i = 0; i + 1 < rank; ++i) odd |= (loops[i].in | loops[i].out) & mask;
      if (odd) break;
      --rank;
      for (uint32_t i = 0; i < rank; ++i) {
        loops[i].in /= mask + 1;
        loops[i].out /= mask + 1;
      }
      width *= n;
    }
    return width;
  }
  // One piece on both sides, in the same order.
  bool contiguous() const {
    return rank == 0 || (rank == 1 && loops[0].in == 1 && loops[0].out == 1);
  }
};

// A place in a nest, walked in order from any turn on.
class NestWalk {
 public:
  ORTOLAN_NOINLINE NestWalk(const Nest& nest, size_t turn) : nest_(nest) {
    for (uint32_t i = nest.rank; i-- > 0;) {
      const StridedLoop& loop = nest.loops[i];
      index_[i] = turn % loop.size;
      turn /= loop.size;
      in += static_cast<ptrdiff_t>(index_[i]) * loop.in;
      out += static_cast<ptrdiff_t>(index_[i]) * loop.out;
    }
  }
  void next() {
    for (uint32_t i = nest_.rank; i-- > 0;) {
      const StridedLoop& loop = nest_.loops[i];
      in += loop.in;
      out += loop.out;
      if (++index_[i] < loop.size) return;
      index_[i] = 0;
      in -= static_cast<ptrdiff_t>(loop.size) * loop.in;
      out -= static_cast<ptrdiff_t>(loop.size) * loop.out;
    }
  }
  size_t index(uint32_t loop) const { return index_[loop]; }

  ptrdiff_t in = 0, out = 0;

 private:
  const Nest& nest_;
  size_t index_[kMaxLoops];
};

// Bytes that lie together; short pieces without a call.
ORTOLAN_INLINE void copy_piece(char* out, const char* in, size_t bytes) {
  using Piece = Vec<uint8_t, 16>;
  if (bytes > 256) {
    copy(out, in, bytes);
  } else if (bytes >= sizeof(Piece)) {
    const size_t last = bytes - sizeof(Piece);  // overlaps the piece before
#pragma clang loop unroll(disable)
    for (size_t i = 0; i < last; i += sizeof(Piece)) copy(out + i, in + i, sizeof(Piece));
    copy(out + last, in + last, sizeof(Piece));
  } else if (bytes >= 4) {
    copy(out + bytes - 4, in + bytes - 4, 4);
#pragma clang loop unroll(disable)
    for (size_t i = 0; i + 4 < bytes; i += 4) copy(out + i, in + i, 4);
  } else {
#pragma clang loop unroll(disable) vectorize(disable)
    for (size_t i = 0; i < bytes; ++i) out[i] = in[i];
  }
}

// One element, n times over.
ORTOLAN_NOINLINE inline void fill(char* out, const char* element, size_t width, size_t n) {
  const size_t bytes = n * width;
  if (bytes == 0) return;
  copy_piece(out, element, width);
  for (size_t done = width; done < bytes;) {
    const size_t more = min(min<size_t>(done, 4096), bytes - done);
    copy_piece(out + done, out, more);
    done += more;
  }
}

// Part of a nest: rows.size turns of `row` around columns turns of `column`.
struct CopyBlock {
  size_t rows, columns;
  StridedLoop row, column;
};
using BlockFunction = void (*)(const CopyBlock& block, const char* in, char* out);

template <class Word>
ORTOLAN_INLINE void copy_elements(const CopyBlock& b, const char* in, char* out) {
  const Loose<Word>* from = reinterpret_cast<const Loose<Word>*>(in);
  Loose<Word>* to = reinterpret_cast<Loose<Word>*>(out);
  const ptrdiff_t in_step = b.column.in, out_step = b.column.out;
#pragma clang loop unroll_count(4) vectorize(disable)
  for (size_t j = b.columns; j > 0; --j, from += in_step, to += out_step) *to = *from;
}

// The width of an element is no template argument here: per row it costs nothing, and the code of
// every operator that copies exists once.
ORTOLAN_NOINLINE inline void copy_block(const CopyBlock& b, size_t width, const char* in,
                                        char* out) {
  const ptrdiff_t w = static_cast<ptrdiff_t>(width);
  for (size_t i = 0; i < b.rows; ++i, in += b.row.in * w, out += b.row.out * w) {
    if (b.column.out == 1 && b.column.in == 1)
      copy_piece(out, in, b.columns * width);
    else if (b.column.out == 1 && b.column.in == 0)
      fill(out, in, width, b.columns);
    else if (width == 1)
      copy_elements<uint8_t>(b, in, out);
    else if (width == 2)
      copy_elements<uint16_t>(b, in, out);
    else if (width == 4)
      copy_elements<uint32_t>(b, in, out);
    else
      copy_elements<uint64_t>(b, in, out);
  }
}

// A loop cut into equal pieces; the last one takes what is left over, so none is short.
struct LoopCut {
  size_t piece, pieces;

  LoopCut(size_t size, size_t wanted)
      : piece(min(size, wanted)), pieces(max<size_t>(size / max<size_t>(wanted, 1), 1)) {}
  size_t length(size_t i, size_t size) const { return i + 1 < pieces ? piece : size - i * piece; }
  StridedLoop loop(const StridedLoop& whole) const {
    const ptrdiff_t n = static_cast<ptrdiff_t>(piece);
    return {pieces, whole.in * n, whole.out * n};
  }
};

// Three neighbouring elements against a long loop: the colours of an image and its pixels.
inline bool is_triple(const StridedLoop& pixels, const StridedLoop& colours) {
  const ptrdiff_t pitch = pixels.in == 1 ? pixels.out : pixels.in;
  return colours.size == 3 && pixels.size >= 4 && pitch == 3;
}

// Takes the two loops of a block out of the nest. True when the block is to be transposed: it has
// `side` elements at least each way, or is a triple.
inline bool take_block(Nest& nest, size_t side, StridedLoop* row, StridedLoop* column) {
  if (nest.rank > 0) *column = nest.loops[--nest.rank];
  if (nest.rank == 0) return false;
  uint32_t at = nest.rank - 1;
  bool exchanged = false;
  if (side > 0 && column->in != 1 && column->out == 1)
    for (uint32_t i = 0; i < nest.rank; ++i)
      if (nest.loops[i].in == 1) at = i, exchanged = true;
  *row = nest.loops[at];
  nest.remove(at);
  if (!exchanged || (row->size >= side && column->size >= side)) return exchanged;
  if (side == 4 && (is_triple(*row, *column) || is_triple(*column, *row))) return true;
  // With a short side there is nothing to tile: the long side becomes the inner loop.
  if (column->size < row->size) swap(*row, *column);
  return false;
}

// copy_strided of small builds: the longest loop is the innermost, its elements move by words or by
// bytes.
ORTOLAN_NOINLINE inline void copy_each(Nest& nest, size_t width, const char* in, char* out) {
  uint32_t longest = 0;
  for (uint32_t i = 1; i < nest.rank; ++i)
    if (nest.loops[i].size >= nest.loops[longest].size) longest = i;
  const size_t turns = nest.count();
  StridedLoop loop = {1, 0, 0};
  if (nest.rank) loop = nest.loops[longest], nest.remove(longest);
  const ptrdiff_t w = static_cast<ptrdiff_t>(width);
  loop.in *= w, loop.out *= w;
  NestWalk walk(nest, 0);
  for (size_t done = 0; done < turns; done += loop.size, walk.next()) {
    const char* from = in + walk.in * w;
    char* to = out + walk.out * w;
    if (loop.in == w && loop.out == w) {
      copy(to, from, loop.size * width);
      continue;
    }
    for (size_t n = loop.size; n; --n, from += loop.in, to += loop.out)
      if (width % sizeof(uint32_t))
        for (size_t i = 0; i < width; ++i) to[i] = from[i];
      else
        for (size_t i = 0; i < width; i += sizeof(uint32_t))
          copy(to + i, from + i, sizeof(uint32_t));
  }
}

// Runs the copy of elements of `width` bytes. `transpose`: null when no two axes are exchanged.
// `nest` is used up.
ORTOLAN_NOINLINE inline void copy_strided(const Context& c, Nest& nest, size_t width,
                                          const void* input, void* output,
                                          BlockFunction transpose = nullptr) {
  if (nest.count() == 0 || input == output) return;
  if constexpr (kTiny)
    return copy_each(nest, width, static_cast<const char*>(input), static_cast<char*>(output));
  if (const size_t wide = nest.widen(width); wide != width) width = wide, transpose = nullptr;
  const size_t unit = 16384 / width;  // elements that one turn of the walk handles
  StridedLoop row, column;
  const bool exchanged = take_block(nest, transpose ? 16 / width : 0, &row, &column);
  const LoopCut columns(column.size, exchanged ? 256 : row.size > 1 ? unit / 4 : unit);
  const LoopCut rows(row.size, max<size_t>(unit / columns.piece, 1));
  const uint32_t outer = nest.rank;
  nest.loops[nest.rank++] = rows.loop(row);
  nest.loops[nest.rank++] = columns.loop(column);
  const size_t grain = max<size_t>(4 * unit / (rows.piece * columns.piece), 1);
  const ptrdiff_t w = static_cast<ptrdiff_t>(width);
  c.parallel(nest.count(), grain, [&](size_t begin, size_t end, size_t) {
    NestWalk walk(nest, begin);
    for (size_t i = begin; i < end; ++i, walk.next()) {
      const CopyBlock block = {rows.length(walk.index(outer), row.size),
                               columns.length(walk.index(outer + 1), column.size), row, column};
      const char* from = static_cast<const char*>(input) + walk.in * w;
      char* to = static_cast<char*>(output) + walk.out * w;
      if (exchanged)
        transpose(block, from, to);
      else
        copy_block(block, width, from, to);
    }
  });
}

// How a dense tensor lies in memory: dimensions and strides in that order, and the logical
// dimension at each place.
struct Dense {
  Shape dims;
  ptrdiff_t strides[kMaxRank];
  uint32_t order[kMaxRank];

  static Dense input(const Context& c, size_t i) {
    return Dense(c.input_shape(i), c.input_layout(i));
  }
  static Dense output(const Context& c, size_t i) {
    return Dense(c.output_shape(i), c.output_layout(i));
  }
  size_t size(size_t i) const { return static_cast<size_t>(dims[i]); }
  // Where a logical axis lies.
  uint32_t place(uint32_t axis) const {
    uint32_t i = 0;
    while (order[i] != axis) ++i;
    return i;
  }

 private:
  ORTOLAN_NOINLINE Dense(const Shape& logical, Layout layout) {
    const bool last = layout == Layout::kChannelsLast && logical.rank >= 3;
    dims.rank = logical.rank;
    size_t stride = 1;
#pragma clang loop unroll(disable)
    for (uint32_t i = dims.rank; i-- > 0;) {
      order[i] = !last || i == 0 ? i : i + 1 < dims.rank ? i + 1 : 1;
      dims[i] = logical[order[i]];
      strides[i] = static_cast<ptrdiff_t>(stride);
      stride *= size(i);
    }
  }
};

// `axis` counted from the front, or an error.
inline Status resolve_axis(const Context& c, int64_t* axis, uint32_t rank) {
  if (normalize_axis(axis, rank)) return Status::kOk;
  return c.invalid("axis % is outside the rank %", *axis, rank);
}

// Likewise for one of a list; `seen` has a bit for each axis that came before.
inline Status resolve_new_axis(const Context& c, int64_t* axis, uint32_t rank, uint32_t* seen) {
  ORTOLAN_TRY(resolve_axis(c, axis, rank));
  if (*seen >> *axis & 1) return c.invalid("axis % comes twice", *axis);
  *seen |= 1u << *axis;
  return Status::kOk;
}

// The integers of a short input. Refuses more than there may be dimensions.
inline Status short_list(const Context& c, size_t i, String name, int64_t* values, size_t* count) {
  if (c.input_ints(i, values, kMaxRank, count)) return Status::kOk;
  return c.invalid("% must be at most % int32 or int64 values", name, kMaxRank);
}

inline size_t word_size(const Context& c) { return element_size(c.input_type(0)); }

}  // namespace ortolan::portable
