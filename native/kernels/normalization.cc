// Normalizations: of channels, groups of channels, windows of channels, axes; of rows in the
// header.
#include "kernels/elementary.h"
#include "kernels/embedding.h"
#include "kernels/layer_normalization.h"

namespace ortolan::ORTOLAN_ISA {

// y = x * factor + term
template <class T>
ORTOLAN_NOINLINE void scale_run(const T* x, T* y, size_t n, T factor, T term) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * factor + term;
}

// Each channel of each image by itself, whatever the layout.
struct InstanceNormalization {
  static Status prepare(Context& c) { return prepare_layer(c, 1e-5f); }
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    if (x.rank < 3) return c.invalid("input 0 of shape % needs 3 dimensions", x.span());
    ORTOLAN_TRY(check_vectors(c, 1, 2, x[1]));
    if (c.input_layout(0) == Layout::kChannelsLast) {
      const size_t channels = static_cast<size_t>(x[1]);
      const size_t blocks = (x.product(2, x.rank) + kSumBlock - 1) / kSumBlock;
      c.request_scratch(channels * (2 * blocks + 2) * sizeof(double), channels * sizeof(double));
    }
    return c.set_output(0, x);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    if (x.count() == 0) return Status::kOk;
    const size_t channels = static_cast<size_t>(x[1]), n = x.product(2, x.rank);
    if (c.input_layout(0) == Layout::kChannelsLast) {
      for (size_t i = 0; i < static_cast<size_t>(x[0]); ++i)
        run_image<T>(c, c.input_data<T>(0) + i * n * channels,
                     c.output_data<T>(0) + i * n * channels, n, channels);
      return Status::kOk;
    }
    const float epsilon = c.state<LayerState>().epsilon;
    c.parallel(x.count() / n, kRowWork / n + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        const T* from = c.input_data<T>(0) + r * n;
        const Moments<T> m = row_moments(from, n, epsilon);
        const T factor = m.inverse * c.input_data<T>(1)[r % channels];
        scale_run(from, c.output_data<T>(0) + r * n, n, factor,
                  c.input_data<T>(2)[r % channels] - m.mean * factor);
      }
    });
    return Status::kOk;
  }

 private:
  // One image [pixels][channels]. A block of pixels has sums, and squares about its own mean while
  // it is in the cache, whoever computes them; x is read once for both and once for y.
  template <class T>
  static void run_image(Context& c, const T* x, T* y, size_t pixels, size_t channels) {
    const size_t blocks = (pixels + kSumBlock - 1) / kSumBlock;
    const size_t grain = kRowWork / (kSumBlock * channels) + 1;
    double* sums = static_cast<double*>(c.scratch());
    double* squares = sums + blocks * channels;
    T* factor = reinterpret_cast<T*>(squares + blocks * channels);
    T* term = factor + channels;
    const auto rows = [=](size_t block) { return min(kSumBlock, pixels - block * kSumBlock); };
    c.parallel(blocks, grain, [&](size_t begin, size_t end, size_t thread) {
      T* mean = static_cast<T*>(c.thread_scratch(thread));
      for (size_t b = begin; b < end; ++b) {
        const T* from = x + b * kSumBlock * channels;
        double* sum = sums + b * channels;
        column_sums<T>(from, rows(b), channels, nullptr, sum);
        for (size_t i = 0; i < channels; ++i) mean[i] = mean_of<T>(sum[i], rows(b));
        column_sums<T>(from, rows(b), channels, mean, squares + b * channels);
      }
    });
    for (size_t i = 0; i < channels; ++i) {
      double sum = 0, square = 0;
      for (size_t b = 0; b < blocks; ++b) sum += sums[b * channels + i];
      const double mean = sum / static_cast<double>(pixels);
      for (size_t b = 0; b < blocks; ++b) {
        // From squares about a block's rounded mean to squares about that of all.
        const double at = sums[b * channels + i], n = static_cast<double>(rows(b));
        const double own = static_cast<double>(mean_of<T>(at, rows(b))), off = own - mean;
        square += squares[b * channels + i] + off * (2 * (at - n * own) + n * off);
      }
      factor[i] =
          inverse_root<T>(square / static_cast<double>(pixels), c.state<LayerState>().epsilon) *
          c.input_data<T>(1)[i];
      term[i] = c.input_data<T>(2)[i] - static_cast<T>(mean) * factor[i];
    }
    c.parallel(blocks, grain, [&](size_t begin, size_t end, size_t) {
      const size_t at = begin * kSumBlock, last = min(pixels, end * kSumBlock);
      scale_columns(x + at * channels, y + at * channels, last - at, channels, factor, term);
    });
  }
  template <class T>
  static T mean_of(double sum, size_t rows) {
    return static_cast<T>(sum / static_cast<double>(rows));
  }
};

// Groups of neighbouring channels; scale and bias are per group before version 21.
struct GroupNormalization {
  struct State {
    int64_t groups;
    float epsilon;
    bool per_group;
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->groups = c.attribute_int("num_groups", 0);
    state->epsilon = c.attribute_float("epsilon", 1e-5f);
    state->per_group = c.since_version() < 21;
    if (state->groups < 1) return c.invalid("num_groups % is not positive", state->groups);
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    const State& s = c.state<State>();
    if (x.rank < 2) return c.invalid("input 0 of shape % needs 2 dimensions", x.span());
    if (x[1] % s.groups != 0) return c.invalid("% groups do not divide % channels", s.groups, x[1]);
    ORTOLAN_TRY(check_vectors(c, 1, 2, s.per_group ? s.groups : x[1]));
    return c.set_output(0, x);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const State& s = c.state<State>();
    if (x.count() == 0) return Status::kOk;
    const size_t groups = static_cast<size_t>(s.groups);
    const size_t channels = static_cast<size_t>(x[1]) / groups, run = x.product(2, x.rank);
    const size_t n = channels * run;
    c.parallel(x.count() / n, kRowWork / n + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        const Moments<T> m = row_moments(c.input_data<T>(0) + r * n, n, s.epsilon);
        for (size_t i = 0; i < channels; ++i) {
          const size_t group = r % groups, at = s.per_group ? group : group * channels + i;
          const T factor = m.inverse * c.input_data<T>(1)[at];
          const size_t offset = r * n + i * run;
          scale_run(c.input_data<T>(0) + offset, c.output_data<T>(0) + offset, run, factor,
                    c.input_data<T>(2)[at] - m.mean * factor);
        }
      }
    });
    return Status::kOk;
  }
};

// y = x / (bias + alpha / size * sum of the squares of `size` channels around)^beta
struct LRN {
  struct State {
    int64_t size;
    float alpha, beta, bias;
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->size = c.attribute_int("size", 0);
    state->alpha = c.attribute_float("alpha", 1e-4f);
    state->beta = c.attribute_float("beta", 0.75f);
    state->bias = c.attribute_float("bias", 1);
    if (state->size < 1) return c.invalid("size % is not positive", state->size);
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    if (x.rank < 2) return c.invalid("input 0 of shape % needs 2 dimensions", x.span());
    return c.set_output(0, x);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    if (x.count() == 0) return Status::kOk;
    const size_t channels = static_cast<size_t>(x[1]), run = x.product(2, x.rank);
    c.parallel(x.count() / run, kRowWork / run / 4 + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) run_channel<T>(c, r / channels, r % channels, run);
    });
    return Status::kOk;
  }

 private:
  template <class T>
  static void run_channel(Context& c, size_t image, size_t channel, size_t run) {
    using V = Lanes<T>;
    const State& s = c.state<State>();
    const size_t channels = static_cast<size_t>(c.input_shape(0)[1]);
    const size_t before = static_cast<size_t>((s.size - 1) / 2);
    const size_t after = static_cast<size_t>(s.size - 1) - before;
    const size_t first = channel - min(channel, before);
    const size_t last = channel + min(channels - 1 - channel, after);
    const T* x = c.input_data<T>(0) + image * channels * run;
    T* y = c.output_data<T>(0) + (image * channels + channel) * run;
    const V alpha = splat<V>(static_cast<T>(s.alpha) / static_cast<T>(s.size));
    for (size_t i = 0; i < run; i += kLanesOf<V>) {
      const size_t n = min<size_t>(kLanesOf<V>, run - i);
      const auto get = [&](size_t ch) {
        const T* at = x + ch * run + i;
        return n < kLanesOf<V> ? load_part<V>(at, n) : load<V>(at);
      };
      V sum = {};
      for (size_t ch = first; ch <= last; ++ch) sum += get(ch) * get(ch);
      const V base = fma(sum, alpha, splat<V>(s.bias));
      const V result = get(channel) * power<V>(base, s.beta);
      if (n < kLanesOf<V>)
        store_part(y + i, result, n);
      else
        store(y + i, result);
    }
  }
  // base^-beta
  template <class V>
  ORTOLAN_INLINE static V power(V base, float beta) {
    if (beta == 0.75f) {
      const V root = math::sqrt(base);
      return splat<V>(1) / (root * math::sqrt(root));
    }
    return elementary::exp(elementary::log(base) * splat<V>(-beta));
  }
};

// Vectors along an axis divided by their norm; those of norm 0 stay.
struct LpNormalization {
  struct State {
    int64_t axis;
    bool squares;
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->axis = c.attribute_int("axis", -1);
    const int64_t p = c.attribute_int("p", 2);
    if (p != 1 && p != 2) return c.invalid("p is %, not 1 or 2", p);
    state->squares = p == 2;
    return Status::kOk;
  }
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    int64_t axis = c.state<State>().axis;
    if (!normalize_axis(&axis, x.rank))
      return c.invalid("axis % is outside a tensor of % dimensions", axis, x.rank);
    return c.set_output(0, x);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    int64_t axis = c.state<State>().axis;
    const bool squares = c.state<State>().squares;
    normalize_axis(&axis, x.rank);
    const uint32_t at = static_cast<uint32_t>(axis);
    const size_t n = static_cast<size_t>(x[at]), inner = x.product(at + 1, x.rank);
    if (x.count() == 0) return Status::kOk;
    c.parallel(x.count() / n, kRowWork / n + 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        const size_t offset = r / inner * n * inner + r % inner;
        const T* from = c.input_data<T>(0) + offset;
        T* to = c.output_data<T>(0) + offset;
        double sum = 0;
        for (size_t i = 0; i < n; ++i) {
          const double v = static_cast<double>(from[i * inner]);
          sum += squares ? v * v : v < 0 ? -v : v;
        }
        const T norm = static_cast<T>(squares ? __builtin_sqrt(sum) : sum);
        for (size_t i = 0; i < n; ++i)
          to[i * inner] = norm == 0 ? from[i * inner] : from[i * inner] / norm;
      }
    });
    return Status::kOk;
  }
};

// Over any axes: sums per kept element in double, in one walk each for mean and variance.
struct MeanVarianceNormalization {
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    uint32_t mask = 0;
    ORTOLAN_TRY(axes(c, &mask));
    c.request_scratch(2 * sizeof(double) * kept(x, mask));
    return c.set_output(0, x);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    uint32_t mask = 0;
    ORTOLAN_TRY(axes(c, &mask));
    const size_t count = x.count(), places = kept(x, mask);
    if (count == 0) return Status::kOk;
    double* mean = static_cast<double*>(c.scratch());
    double* factor = mean + places;
    const T* from = c.input_data<T>(0);
    T* to = c.output_data<T>(0);
    const double share = 1 / static_cast<double>(count / places);
    fill_zero(mean, 2 * places * sizeof(double));
    walk(x, mask, [&](size_t i, size_t k) { mean[k] += static_cast<double>(from[i]) * share; });
    walk(x, mask, [&](size_t i, size_t k) {
      const double d = static_cast<double>(from[i]) - mean[k];
      factor[k] += d * d * share;
    });
    for (size_t k = 0; k < places; ++k) factor[k] = 1 / (__builtin_sqrt(factor[k]) + 1e-9);
    walk(x, mask, [&](size_t i, size_t k) {
      to[i] = static_cast<T>((static_cast<double>(from[i]) - mean[k]) * factor[k]);
    });
    return Status::kOk;
  }

 private:
  static size_t kept(const Shape& x, uint32_t mask) {
    size_t n = 1;
    for (uint32_t i = 0; i < x.rank; ++i)
      if (!(mask >> i & 1)) n *= static_cast<size_t>(x[i]);
    return n;
  }
  ORTOLAN_NOINLINE static Status axes(Context& c, uint32_t* mask) {
    static constexpr int64_t kDefault[] = {0, 2, 3};
    Span<const int64_t> list = c.attribute_ints("axes");
    if (!c.attribute("axes")) list = {kDefault, 3};
    for (int64_t axis : list) {
      if (!normalize_axis(&axis, c.input_shape(0).rank))
        return c.invalid("axis % is outside a tensor of % dimensions", axis, c.input_shape(0).rank);
      *mask |= 1u << axis;
    }
    return Status::kOk;
  }
  // body(element, kept element) in memory order.
  template <class Body>
  ORTOLAN_INLINE static void walk(const Shape& x, uint32_t mask, Body body) {
    size_t index[kMaxRank] = {}, stride[kMaxRank] = {}, step = 1, k = 0;
    for (uint32_t i = x.rank; i-- > 0;) {
      if (mask >> i & 1) continue;
      stride[i] = step;
      step *= static_cast<size_t>(x[i]);
    }
    for (size_t i = 0, n = x.count(); i < n; ++i) {
      body(i, k);
      for (uint32_t d = x.rank; d-- > 0;) {
        k += stride[d];
        if (++index[d] < static_cast<size_t>(x[d])) break;
        k -= stride[d] * index[d];
        index[d] = 0;
      }
    }
  }
};

}  // namespace ortolan::ORTOLAN_ISA

#include "normalization.inc"
