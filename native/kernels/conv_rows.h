// Channels-last convolution of one group over one or two spatial dimensions whose kernel rows are
// short: an output row is a product with rows that lie `stride` pixels apart in each of the lines
// of the image that it sees, without a pointer for each pixel. Where lines have borders, they are
// copied between zeros first; lines outside the image are left out.
#pragma once

#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

struct RowsPlan {
  bool is_copied;  // lines are copied between zeros
  size_t runs;     // of a kernel row: one, or its taps where they are dilated
  size_t run;      // floats
  size_t columns;  // of a work unit
  size_t across;   // units of an output row
  size_t rows;     // output rows of a unit
  size_t down;     // units of an image
  size_t panels;
  size_t lines;  // of the image that a unit sees
  size_t slot;   // floats of a copied line

  size_t starts(const Window& w) const { return w.kernel[1] * runs; }  // of an output row
};

// Input positions that so many neighbouring outputs see.
ORTOLAN_INLINE size_t seen(const Window& w, int dimension, size_t outputs) {
  const size_t reach = (w.kernel[dimension] - 1) * w.dilation[dimension];
  return (outputs - 1) * w.stride[dimension] + reach + 1;
}
// The most outputs that see no more than so many inputs, at least 1.
ORTOLAN_INLINE size_t most_outputs(const Window& w, int dimension, size_t inputs) {
  const size_t one = seen(w, dimension, 1);
  return inputs <= one ? 1 : (inputs - one) / w.stride[dimension] + 1;
}

ORTOLAN_INLINE bool has_borders(const Window& w) { return inside_columns(w).count() < w.out[2]; }

// Whether this way is faster: where copies are small beside what pointers cost, or where half a
// vector is enough.
ORTOLAN_INLINE bool suits_rows(const ConvShape& s) {
  constexpr size_t kMostChannels = 32, kMostCopied = 16, kMostColumns = 64;
  constexpr size_t kMostSeen = 64 * 1024, kMostStarts = 1024;  // what scratch is worth it
  const Window& w = s.window;
  if (!kHasSegments || s.groups != 1 || w.kernel[0] != 1 || w.in[0] != 1 || w.out[0] != 1 ||
      w.pad[0] != 0)
    return false;
  if (s.rows() == 0 || is_product(s)) return false;
  const size_t high = seen(w, 1, 1), wide = seen(w, 2, 1);
  if (w.kernel[1] * w.kernel[2] > kMostStarts || max(max(high, wide), s.channels) > kMostSeen ||
      high * wide * s.channels > kMostSeen)
    return false;
  if (fits_half(s.outputs)) return true;
  if (!has_borders(w)) return s.channels <= kMostChannels;
  return s.channels <= kMostCopied && (s.channels == 1 || w.out[2] <= kMostColumns);
}

ORTOLAN_NOINLINE inline RowsPlan plan_rows(const ConvShape& s) {
  constexpr size_t kCopied = 8192;            // floats, about the first-level cache
  constexpr size_t kPixels = 4 * kBlockRows;  // of a unit
  constexpr size_t kUnits = 16;               // so that threads get equal shares, if each
  constexpr size_t kWork = 1 << 17;           // has so many multiply-adds
  constexpr size_t kTile = kTileRows[kTileVectors];
  const Window& w = s.window;
  const size_t channels = max<size_t>(s.channels, 1);
  RowsPlan p;
  p.is_copied = has_borders(w);
  p.runs = w.dilation[2] == 1 ? 1 : w.kernel[2];
  p.run = w.kernel[2] / p.runs * s.channels;
  p.panels = panel_count(s.outputs);
  size_t most = kPixels;
  if (p.is_copied) most = min(most, most_outputs(w, 2, kCopied / channels / seen(w, 1, 1)));
  const size_t pieces = (w.out[2] + most - 1) / most;
  const size_t whole_tiles = (w.out[2] + pieces * kTile - 1) / (pieces * kTile) * kTile;
  p.columns = min(w.out[2], whole_tiles);
  p.across = (w.out[2] + p.columns - 1) / p.columns;
  p.slot = seen(w, 2, p.columns) * s.channels;

  const size_t work =
      w.taps() * channels * p.columns * max<size_t>(min(s.outputs, kTileColumns), 1);
  const size_t shared = w.out[1] * s.batch * p.across * p.panels / kUnits;
  p.rows = min(kPixels / p.columns, max(kWork / work, shared));
  if (p.is_copied) p.rows = min(p.rows, most_outputs(w, 1, kCopied / max<size_t>(p.slot, 1)));
  p.rows = max<size_t>(p.rows, 1);
  p.down = (w.out[1] + p.rows - 1) / p.rows;
  p.rows = (w.out[1] + p.down - 1) / p.down;
  p.down = (w.out[1] + p.rows - 1) / p.rows;
  p.lines = seen(w, 1, p.rows);
  return p;
}

// Bytes of scratch that each thread needs: where rows begin in lines, and copied lines.
ORTOLAN_INLINE size_t rows_scratch_size(const ConvShape& s) {
  const RowsPlan p = plan_rows(s);
  const size_t copied = p.is_copied ? p.lines * p.slot + kLanes : 0;
  return p.rows * p.starts(s.window) * sizeof(float*) + copied * sizeof(float);
}

ORTOLAN_INLINE size_t rows_units(const ConvShape& s) {
  const RowsPlan p = plan_rows(s);
  return s.batch * p.down * p.across * p.panels;
}

// Zeros, up to a vector more than asked for.
ORTOLAN_INLINE void put_zeros(float* to, size_t count) {
  for (size_t i = 0; i < count; i += kLanes) store(to + i, splat<F>(0));
}
ORTOLAN_INLINE void put_floats(float* to, const float* from, size_t count) {
  if (count < kLanes) return copy_part<kLanes / 2>(to, from, count);
  for (size_t i = 0; i < count; i += kLanes) {
    const size_t at = min<size_t>(i, count - kLanes);
    store(to + at, load<F>(from + at));
  }
}

// A work unit: `rows` rows from `row` on of an image, columns [column, column + columns).
struct RowsPlace {
  size_t image;
  size_t row, rows;
  size_t column, columns;
};

class RowsUnit {
 public:
  RowsUnit(const ConvArgs& args, const RowsPlan& plan, void* scratch)
      : args_(args),
        plan_(plan),
        starts_(static_cast<const float**>(scratch)),
        lines_(reinterpret_cast<float*>(starts_ + plan.rows * plan.starts(args.shape.window))) {}

  // Finds where rows begin in each line, which may be a copy.
  void move_to(const RowsPlace& place) {
    const Window& w = args_.shape.window;
    const ptrdiff_t channels = args_.shape.channels, width = w.in[2];
    place_ = place;
    const float* image = args_.x + place.image * w.in_pixels() * args_.shape.channels;
    const ptrdiff_t x = static_cast<ptrdiff_t>(place.column * w.stride[2]) - w.pad[2];
    const ptrdiff_t y = static_cast<ptrdiff_t>(place.row * w.stride[1]) - w.pad[1];
    if (plan_.is_copied) copy_lines(image, x, y);
    const float** out = starts_;
    for (size_t r = 0; r < place.rows; ++r)
      for (size_t ky = 0; ky < w.kernel[1]; ++ky) {
        const ptrdiff_t line = r * w.stride[1] + ky * w.dilation[1];
        ptrdiff_t at = ((y + line) * width + x) * channels;
        if (plan_.is_copied) at = line * static_cast<ptrdiff_t>(plan_.slot);
        for (size_t kx = 0; kx < plan_.runs; ++kx, at += w.dilation[2] * channels)
          *out++ = (plan_.is_copied ? lines_ : image) + at;
      }
  }

  void multiply(size_t panel) {
    const size_t N = args_.shape.outputs, begin = panel * kTileColumns;
    const size_t columns = panel_column(N, panel + 1) - begin, ldy = N + args_.gap;
    for (size_t r = 0; r < place_.rows; ++r) {
      for_each_part(N, panel, [&](const Part& part) { multiply_row(r, part); });
      activation_pass(args_.epilogue, args_.y + first_pixel(r) * ldy + begin, ldy, place_.columns,
                      columns);
    }
  }

 private:
  // The first output pixel of row r of the unit.
  size_t first_pixel(size_t r) const {
    const Window& w = args_.shape.window;
    return (place_.image * w.out[1] + place_.row + r) * w.out[2] + place_.column;
  }

  ORTOLAN_INLINE void multiply_row(size_t r, const Part& part) {
    const ConvShape& s = args_.shape;
    const Window& w = s.window;
    const Tiles tiles = choose_tiles(s.outputs, part, Reach::kSegments);
    const TapRange taps = tap_range(w, 1, place_.row + r);  // lines that are inside
    const size_t skipped = taps.begin * plan_.runs * plan_.run;
    TileInput in = {};
    in.segments = (taps.end - taps.begin) * plan_.runs;  // may be none: the bias alone
    in.lda = in.segments ? w.stride[2] * s.channels : 0;
    in.k = in.segments ? plan_.run : 0;
    if (kHasLinePerVector && args_.in_lines) in.line = w.taps() * s.channels * kLine;
    in.b = args_.weights + part.column * w.taps() * s.channels +
           skipped * (in.line ? part.lanes() : part.width());
    in.starts = starts_ + r * plan_.starts(w) + taps.begin * plan_.runs;
    const size_t pixel = first_pixel(r), most = tiles.is_narrow ? 1 : place_.columns;
    for_each_tile(
        tiles.shapes, place_.columns, most, [&](size_t at, size_t count, const TileShape& shape) {
          in.tiles = count;
          in.first = at;
          in.a = (in.segments ? in.starts[0] : args_.x) + at * in.lda;
          const TileOutput out = tile_output(args_.epilogue, args_.y, s.outputs + args_.gap,
                                             pixel + at, part.column, part.last);
          if (tiles.is_narrow)
            run_narrow_tile(tiles, shape, in, out, s.outputs);
          else
            shape.run(in, out);
        });
  }

  // Lines of the image from y on, each from pixel x on; those outside of it are never read.
  void copy_lines(const float* image, ptrdiff_t x, ptrdiff_t y) {
    const Window& w = args_.shape.window;
    const ptrdiff_t channels = args_.shape.channels, width = w.in[2], height = w.in[1];
    const ptrdiff_t count = seen(w, 1, place_.rows), all = plan_.slot;
    const ptrdiff_t left = min(max<ptrdiff_t>(-x * channels, 0), all);
    const ptrdiff_t right = max(left, min((width - x) * channels, all));
    for (ptrdiff_t i = max<ptrdiff_t>(0, -y); i < min(count, height - y); ++i) {
      float* to = lines_ + i * all;
      put_zeros(to, left);
      put_floats(to + left, image + ((y + i) * width + x) * channels + left, right - left);
      put_zeros(to + right, all - right);
    }
  }

  const ConvArgs& args_;
  const RowsPlan& plan_;
  const float** starts_;
  float* lines_;
  RowsPlace place_ = {};
};

// Units [begin, end), with rows_scratch_size bytes of scratch of this thread's own.
ORTOLAN_NOINLINE inline void rows_run_units(const ConvArgs& args, size_t begin, size_t end,
                                            void* scratch) {
  const RowsPlan plan = plan_rows(args.shape);
  const Window& w = args.shape.window;
  RowsUnit unit(args, plan, scratch);
  while (begin < end) {
    const size_t panel = begin % plan.panels, last = min(plan.panels, panel + (end - begin));
    const size_t place = begin / plan.panels, strip = place / plan.across;
    const size_t column = place % plan.across * plan.columns, row = strip % plan.down * plan.rows;
    unit.move_to({strip / plan.down, row, min(plan.rows, w.out[1] - row), column,
                  min(plan.columns, w.out[2] - column)});
    for (size_t p = panel; p < last; ++p) unit.multiply(p);
    begin += last - panel;
  }
}

// Convolutions without tap columns or Winograd's transforms, by rows or by pointers.
ORTOLAN_INLINE size_t plain_scratch_size(const ConvShape& s) {
  return suits_rows(s) ? rows_scratch_size(s) : conv_scratch_size(s);
}
ORTOLAN_INLINE size_t plain_units(const ConvShape& s) {
  return suits_rows(s) ? rows_units(s) : conv_units(s);
}
ORTOLAN_INLINE void plain_run_units(const ConvArgs& args, size_t begin, size_t end, void* scratch) {
  if (suits_rows(args.shape))
    rows_run_units(args, begin, end, scratch);
  else
    conv_run_units(args, begin, end, scratch);
}

}  // namespace ortolan::ORTOLAN_ISA
