// Operators that read images between their pixels: GridSample, and AffineGrid, which makes its
// grids. A place becomes a list of pixels with weights, which serves all channels.
#pragma once

#include "kernels/any_number.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

// Pixels of one axis.
struct AxisTaps {
  uint32_t count = 0;
  int64_t index[4];
  double weight[4];

  // Nothing outside [0, size) is added.
  void add(int64_t i, int64_t size, double w) {
    if (i < 0 || i >= size) return;
    index[count] = i;
    weight[count++] = w;
  }
};

// Pixels of an image of up to 3 dimensions.
struct Taps {
  uint32_t count = 0;
  size_t offset[64];
  double weight[64];

  // All combinations of the pixels of its axes.
  ORTOLAN_NOINLINE void combine(const AxisTaps* axes, const int64_t* sizes, uint32_t rank) {
    count = 1;
    offset[0] = 0;
    weight[0] = 1;
    for (uint32_t d = 0; d < rank; ++d) {
      count *= axes[d].count;
      // From the end: what is still to be read lies in front of what is written.
      for (uint32_t i = count; i-- > 0;) {
        const uint32_t from = i / axes[d].count, k = i % axes[d].count;
        offset[i] =
            offset[from] * static_cast<size_t>(sizes[d]) + static_cast<size_t>(axes[d].index[k]);
        weight[i] = weight[from] * axes[d].weight[k];
      }
    }
  }
  template <class T>
  double sum(const T* plane) const {
    double total = 0;
    for (uint32_t i = 0; i < count; ++i) total += weight[i] * static_cast<double>(plane[offset[i]]);
    return total;
  }
};

// The two neighbours of a place.
inline void add_neighbours(AxisTaps* axis, double place, int64_t size) {
  const double low = math::floor(place);
  const int64_t first = static_cast<int64_t>(low);
  axis->add(first, size, 1 - (place - low));
  axis->add(first + 1, size, place - low);
}

struct GridSample {
  enum class Mode : uint8_t { kLinear, kNearest, kCubic };
  enum class Padding : uint8_t { kZeros, kBorder, kReflection };
  struct State {
    Mode mode = Mode::kLinear;
    Padding padding = Padding::kZeros;
    bool align_corners = false;
  };

  static Status prepare(Context& c) {
    State* s = c.make_state<State>();
    if (!s) return c.out_of_memory();
    const String mode = c.attribute_string("mode", "linear");
    const String padding = c.attribute_string("padding_mode", "zeros");
    s->align_corners = c.attribute_int("align_corners", 0) != 0;
    if (mode == "nearest")
      s->mode = Mode::kNearest;
    else if (mode == "cubic" || mode == "bicubic")
      s->mode = Mode::kCubic;
    else if (!(mode == "linear" || mode == "bilinear"))
      return c.invalid("mode \"%\" is unknown", mode);
    if (padding == "border")
      s->padding = Padding::kBorder;
    else if (padding == "reflection")
      s->padding = Padding::kReflection;
    else if (!(padding == "zeros"))
      return c.invalid("padding_mode \"%\" is unknown", padding);
    return Status::kOk;
  }

  static Status infer(Context& c) {
    const Shape &x = c.input_shape(0), &grid = c.input_shape(1);
    if (x.rank < 3 || x.rank > 5)
      return c.invalid("input 0 of shape % needs 3 to 5 dimensions", x.span());
    const int64_t rank = x.rank - 2;
    if (grid.rank != x.rank || grid[0] != x[0] || grid[x.rank - 1] != rank)
      return c.invalid("a grid of shape % does not fit an image of %", grid.span(), x.span());
    Shape out = x;
    for (uint32_t i = 2; i < x.rank; ++i) out[i] = grid[i - 1];
    if (x.count() == 0 && out.count() != 0) return c.invalid("the image % is empty", x.span());
    return c.set_output(0, out);
  }

  static Status run(Context& c) {
    const Shape &x = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const uint32_t rank = x.rank - 2;
    const size_t channels = static_cast<size_t>(x[1]), grain = (16384 >> (2 * rank)) / channels + 1;
    const size_t in_plane = x.product(2, x.rank), plane = out.product(2, x.rank);
    c.parallel(static_cast<size_t>(x[0]) * plane, grain, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        Taps taps;
        AxisTaps axes[3];
        for (uint32_t d = 0; d < rank; ++d)  // x comes first
          place(c.state<State>(), coordinate(c, i * rank + rank - 1 - d, x[2 + d]), x[2 + d],
                &axes[d]);
        taps.combine(axes, x.dims + 2, rank);
        const size_t first = i / plane * channels;
        for (size_t k = first; k < first + channels; ++k)
          put(c, taps, k * in_plane, k * plane + i % plane);
      }
    });
    return Status::kOk;
  }

 private:
  static void put(const Context& c, const Taps& taps, size_t from, size_t to) {
    const DataType type = c.input_type(0);
    const void* x = c.input_data<void>(0);
    if (type == DataType::kFloat) {
      c.output_data<float>(0)[to] = static_cast<float>(taps.sum(c.input_data<float>(0) + from));
      return;
    }
    if (taps.count == 1 && taps.weight[0] == 1) {  // the nearest one, exactly
      const size_t width = word_size(c);
      return copy_piece(c.output_data<char>(0) + to * width,
                        c.input_data<char>(0) + (from + taps.offset[0]) * width, width);
    }
    double total = 0;
    for (uint32_t i = 0; i < taps.count; ++i)
      total += taps.weight[i] * read_number(x, type, from + taps.offset[i]);
    write_number(c.output_data<void>(0), type, to, total);
  }

  // Where element i of the grid points to, computed in the grid's type.
  static double coordinate(const Context& c, size_t i, int64_t size) {
    const bool align = c.state<State>().align_corners;
    if (c.input_type(1) == DataType::kFloat)
      return pixels<float>(c.input_data<float>(1)[i], static_cast<float>(size), align);
    return pixels<double>(c.input_data<double>(1)[i], static_cast<double>(size), align);
  }
  template <class C>
  static C pixels(C at, C size, bool align) {
    return align ? (at + 1) / 2 * (size - 1) : ((at + 1) * size - 1) / 2;
  }

  // Folds a place back between `low` and `high`.
  ORTOLAN_NOINLINE static double reflect(double place, double low, double high) {
    const double range = high - low;
    if (!(range > 0)) return low;
    const double distance = math::abs(place - (place < low ? low : high));
    const double turns = math::trunc(distance / range), rest = distance - turns * range;
    const bool from_low = (turns - 2 * math::floor(turns / 2) == 0) == (place < low);
    return from_low ? low + rest : high - rest;
  }

  // The pixels around a place.
  ORTOLAN_NOINLINE static void place(const State& s, double at, int64_t size, AxisTaps* axis) {
    const double n = static_cast<double>(size);
    const double low = s.align_corners ? 0 : -0.5, high = n - 1 - low;
    if (s.mode == Mode::kNearest) at = math::round_even(at);
    if (!(at >= low && at <= high)) {
      if (s.padding == Padding::kBorder) {
        // Cubic weights still depend on the place, as in onnxruntime; farther out all meet one
        // pixel.
        const double margin = s.mode == Mode::kCubic ? 3 : 0;
        at = at > -margin ? min(at, n - 1 + margin) : -margin;
      }
      if (s.padding == Padding::kReflection)
        at = math::abs(at) < 1e9 ? reflect(at, low, high) : low;
      if (!(at > -4 && at < n + 4)) return;
    }
    const double floor = math::floor(at), t = at - floor;
    const int first = s.mode == Mode::kCubic ? -1 : 0,
              last = s.mode == Mode::kNearest ? 0 : -first + 1;
    for (int k = first; k <= last; ++k) {
      int64_t i = static_cast<int64_t>(floor) + k;
      if (i < 0 || i >= size) {
        if (s.padding == Padding::kReflection)
          i = static_cast<int64_t>(reflect(static_cast<double>(i), low, high));
        if (s.padding != Padding::kZeros) i = min(max<int64_t>(i, 0), size - 1);
      }
      axis->add(i, size, weight(s.mode, math::abs(t - k)));
    }
  }

  // At a distance: below 1, or with cubic weights below 2 (Keys' kernel with a = -3/4).
  static double weight(Mode mode, double d) {
    if (mode == Mode::kNearest) return 1;
    if (mode == Mode::kLinear) return 1 - d;
    if (d <= 1) return (1.25 * d - 2.25) * d * d + 1;
    return ((-0.75 * d + 3.75) * d - 6) * d + 3;
  }
};

// The places of an image's pixels under an affine map, as GridSample takes them.
struct AffineGrid {
  static Status infer(Context& c) {
    const Shape& theta = c.input_shape(0);
    int64_t size[kMaxRank];
    size_t n = 0;
    if (!c.input_ints(1, size, kMaxRank, &n) || n < 4 || n > 5)
      return c.invalid("size must be 4 or 5 integers");
    const int64_t rank = static_cast<int64_t>(n) - 2;
    if (theta.rank != 3 || theta[0] != size[0] || theta[1] != rank || theta[2] != rank + 1)
      return c.invalid("theta of shape % does not fit size %", theta.span(),
                       Span<const int64_t>{size, n});
    Shape out;
    out.append(size[0]);
    for (size_t i = 2; i < n; ++i) out.append(size[i]);
    out.append(rank);
    return c.set_output(0, out);
  }

  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const uint32_t rank = out.rank - 2;
    const bool align = c.attribute_int("align_corners", 0) != 0;
    const size_t plane = out.product(1, 1 + rank);
    size_t to = 0;
    for (size_t i = 0, n = static_cast<size_t>(out[0]) * plane; i < n; ++i) {
      double place[4];  // x first, then 1
      size_t rest = i % plane;
      for (uint32_t d = 0; d < rank; ++d) {
        const size_t size = static_cast<size_t>(out[rank - d]);
        const double at = static_cast<double>(rest % size), all = static_cast<double>(size);
        place[d] = !align ? (2 * at + 1) / all - 1 : size == 1 ? -1 : 2 * at / (all - 1) - 1;
        rest /= size;
      }
      place[rank] = 1;
      for (uint32_t r = 0; r < rank; ++r) {
        double sum = 0;
        for (uint32_t d = 0; d <= rank; ++d)
          sum += place[d] * read_number(c.input_data<void>(0), c.input_type(0),
                                        ((i / plane) * rank + r) * (rank + 1) + d);
        write_number(c.output_data<void>(0), c.input_type(0), to++, sum);
      }
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END
