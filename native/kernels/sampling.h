// Operators that read images between their pixels: GridSample, and AffineGrid, which makes its
// grids. A place becomes a list of pixels with weights, which serves all channels.
#pragma once

#include "kernels/any_number.h"

namespace ortolan::portable {

// Pixels of one axis. `T` is the type of weights.
template <class T>
struct AxisTaps {
  uint32_t count = 0;
  int64_t index[4];
  T weight[4];

  // Nothing outside [0, size) is added.
  void add(int64_t i, int64_t size, T w) {
    if (i < 0 || i >= size) return;
    index[count] = i;
    weight[count++] = w;
  }
};

// Pixels of an image of up to 3 dimensions.
template <class T>
struct Taps {
  uint32_t count = 0;
  size_t offset[64];
  T weight[64];

  // All combinations of the pixels of its axes.
  ORTOLAN_NOINLINE void combine(const AxisTaps<T>* axes, const int64_t* sizes, uint32_t rank) {
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
  T sum(const T* plane) const {
    T total = 0;
    for (uint32_t i = 0; i < count; ++i) total += weight[i] * plane[offset[i]];
    return total;
  }
};

// The two neighbours of a place.
template <class T>
void add_neighbours(AxisTaps<T>* axis, T place, int64_t size) {
  const T low = math::floor(place);
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

  template <class T>
  static Status run(Context& c) {
    if constexpr (is_float<T>)
      return sample<T>(c, [](const Taps<T>& taps, const T* x, size_t at, T* y, size_t to, size_t) {
        y[to] = taps.sum(x + at);
      });
    else
      return sample_integers(c);
  }

 private:
  static Status sample_integers(Context& c) {
    const DataType type = c.input_type(0);
    return sample<double>(c, [=](const Taps<double>& taps, const void* x, size_t at, void* y,
                                 size_t to, size_t width) {
      if (taps.count == 1 && taps.weight[0] == 1)  // the nearest one, exactly
        return copy_piece(static_cast<char*>(y) + to * width,
                          static_cast<const char*>(x) + (at + taps.offset[0]) * width, width);
      double total = 0;
      for (uint32_t i = 0; i < taps.count; ++i)
        total += taps.weight[i] * read_number(x, type, at + taps.offset[i]);
      write_number(y, type, to, total);
    });
  }

  template <class T, class Put>
  static Status sample(Context& c, Put put) {
    const Shape &x = c.input_shape(0), &out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const State& s = c.state<State>();
    const uint32_t rank = x.rank - 2;
    const size_t channels = static_cast<size_t>(x[1]), width = word_size(c);
    const size_t in_plane = x.product(2, x.rank), plane = out.product(2, x.rank);
    const bool is_double = c.input_type(1) == DataType::kDouble;
    const T* from = c.input_data<T>(0);
    T* to = c.output_data<T>(0);
    const size_t work = channels << (2 * rank);
    c.parallel(static_cast<size_t>(x[0]) * plane, 16384 / work + 1,
               [&](size_t begin, size_t end, size_t) {
                 for (size_t i = begin; i < end; ++i) {
                   Taps<T> taps;
                   AxisTaps<T> axes[3];
                   for (uint32_t d = 0; d < rank; ++d) {
                     const size_t at = i * rank + rank - 1 - d;  // x comes first
                     if (is_double)
                       place(s, c.input_data<double>(1)[at], x[2 + d], &axes[d]);
                     else
                       place(s, c.input_data<float>(1)[at], x[2 + d], &axes[d]);
                   }
                   taps.combine(axes, x.dims + 2, rank);
                   const size_t first = i / plane * channels;
                   for (size_t k = first; k < first + channels; ++k)
                     put(taps, from, k * in_plane, to, k * plane + i % plane, width);
                 }
               });
    return Status::kOk;
  }

  // Folds a place back between `low` and `high`.
  template <class C>
  static C reflect(C place, C low, C high) {
    const C range = high - low;
    if (!(range > 0)) return low;
    const C distance = math::abs(place - (place < low ? low : high));
    const C turns = math::trunc(distance / range), rest = distance - turns * range;
    const bool from_low = (turns - 2 * math::floor(turns / 2) == 0) == (place < low);
    return from_low ? low + rest : high - rest;
  }

  // The pixels around a coordinate of the grid, computed in the grid's type.
  template <class C, class T>
  ORTOLAN_NOINLINE static void place(const State& s, C coordinate, int64_t size,
                                     AxisTaps<T>* axis) {
    const C n = static_cast<C>(size), half = C(0.5);
    const C low = s.align_corners ? C(0) : -half, high = s.align_corners ? n - 1 : n - half;
    C at = s.align_corners ? (coordinate + 1) / 2 * (n - 1) : ((coordinate + 1) * n - 1) / 2;
    if (s.mode == Mode::kNearest) at = math::round_even(at);
    if (!(at >= low && at <= high)) {
      if (s.padding == Padding::kBorder) {
        // Cubic weights still depend on the place, as in onnxruntime; farther out all meet one
        // pixel.
        const C margin = s.mode == Mode::kCubic ? C(3) : C(0);
        at = at > -margin ? min(at, n - 1 + margin) : -margin;
      }
      if (s.padding == Padding::kReflection)
        at = math::abs(at) < C(1e9) ? reflect<C>(at, low, high) : low;
      if (!(at > -4 && at < n + 4)) return;
    }
    if (s.mode == Mode::kNearest)
      return add(s, static_cast<int64_t>(at), size, low, high, T{1}, axis);
    const C floor = math::floor(at), t = at - floor;
    const int64_t first = static_cast<int64_t>(floor);
    if (s.mode == Mode::kLinear) {
      add(s, first, size, low, high, static_cast<T>(1 - t), axis);
      return add(s, first + 1, size, low, high, static_cast<T>(t), axis);
    }
    for (int k = -1; k < 3; ++k)
      add(s, first + k, size, low, high, static_cast<T>(cubic<C>(math::abs(t - C(k)))), axis);
  }

  template <class C, class T>
  static void add(const State& s, int64_t i, int64_t size, C low, C high, T weight,
                  AxisTaps<T>* axis) {
    if (i < 0 || i >= size) {
      if (s.padding == Padding::kReflection)
        i = static_cast<int64_t>(reflect<C>(static_cast<C>(i), low, high));
      if (s.padding != Padding::kZeros) i = min(max<int64_t>(i, 0), size - 1);
    }
    axis->add(i, size, weight);
  }

  // Keys' kernel with a = -3/4 at a distance below 2.
  template <class C>
  static C cubic(C d) {
    if (d <= 1) return (C(1.25) * d - C(2.25)) * d * d + 1;
    return ((C(-0.75) * d + C(3.75)) * d - 6) * d + 3;
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

  template <class T>
  static Status run(Context& c) {
    const Shape& out = c.output_shape(0);
    if (out.count() == 0) return Status::kOk;
    const uint32_t rank = out.rank - 2;
    const bool align = c.attribute_int("align_corners", 0) != 0;
    const size_t plane = out.product(1, 1 + rank);
    const T* theta = c.input_data<T>(0);
    T* to = c.output_data<T>(0);
    for (size_t i = 0, n = static_cast<size_t>(out[0]) * plane; i < n; ++i) {
      const T* matrix = theta + i / plane * rank * (rank + 1);
      T place[3];  // x first
      size_t rest = i % plane;
      for (uint32_t d = 0; d < rank; ++d) {
        const size_t size = static_cast<size_t>(out[rank - d]);
        const T at = static_cast<T>(rest % size), all = static_cast<T>(size);
        place[d] = !align ? (2 * at + 1) / all - 1 : size == 1 ? T(-1) : 2 * at / (all - 1) - 1;
        rest /= size;
      }
      for (uint32_t r = 0; r < rank; ++r, matrix += rank + 1) {
        T sum = matrix[rank];
        for (uint32_t d = 0; d < rank; ++d) sum += matrix[d] * place[d];
        *to++ = sum;
      }
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable
