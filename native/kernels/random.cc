// Random numbers. Number i of a stream is a hash of the stream and i, so that results depend on
// nothing else. With a seed, every run of a node gives the same numbers; without, every run has a
// stream of its own, which repeats from session to session if the session has a seed.
#include "core/math.h"
#include "core/platform.h"
#include "kernels/any_number.h"
#include "kernels/sorting.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

namespace {

// The finalizer of SplitMix64: every bit depends on every bit.
uint64_t mixed(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

struct Stream {
  uint64_t start;

  // In (0, 1).
  double uniform(uint64_t i) const {
    const uint64_t bits = mixed(mixed(start + (i + 1) * 0x9e3779b97f4a7c15u));
    return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
  }
  // By Box and Muller.
  double normal(uint64_t i) const {
    const double radius = math::sqrt(-2 * math::log(uniform(2 * i)));
    return radius * math::cos(6.283185307179586477 * uniform(2 * i + 1));
  }
};

// Runs that share the model draw their streams from one counter.
struct RandomState {
  uint32_t runs = 0;
};

Status prepare_random(Context& c) {
  return c.make_state<RandomState>() ? Status::kOk : c.out_of_memory();
}

Stream open_stream(const Context& c) {
  const Attribute* seed = c.attribute("seed");
  if (seed) return {mixed(static_cast<uint64_t>(__builtin_bit_cast(uint32_t, seed->f)))};
  RandomState& state = const_cast<RandomState&>(c.state<RandomState>());
  const uint64_t run = __atomic_fetch_add(&state.runs, 1, __ATOMIC_RELAXED);
  uint64_t of_session;
  if (c.session_seed(&of_session)) return {mixed(mixed(of_session) + run)};
  const uint64_t place = reinterpret_cast<uintptr_t>(&state);
  return {mixed(mixed(platform::nanoseconds() + run) ^ place)};
}

// Fills output 0 with numbers of `draw`(i), from any thread.
template <class Draw>
Status fill_random(Context& c, Draw draw) {
  void* to = c.output_data<void>(0);
  const DataType type = c.output_type(0);
  c.parallel(c.output_shape(0).count(), 4096, [=](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i) write_number(to, type, i, draw(i));
  });
  return Status::kOk;
}

Status infer_random(Context& c) {
  const Span<const int64_t> shape = c.attribute_ints("shape");
  if (shape.size > kMaxRank) return c.invalid("shape has more than % dimensions", kMaxRank);
  for (int64_t dim : shape)
    if (dim < 0) return c.invalid("shape % has a negative dimension", shape);
  return c.set_output(0, Shape::of(shape));
}

}  // namespace

struct RandomNormal {
  static Status prepare(Context& c) { return prepare_random(c); }
  static Status infer(Context& c) { return infer_random(c); }
  static Status run(Context& c) {
    const Stream stream = open_stream(c);
    const double mean = c.attribute_float("mean", 0), scale = c.attribute_float("scale", 1);
    return fill_random(c, [=](size_t i) { return mean + scale * stream.normal(i); });
  }
};

struct RandomUniform {
  static Status prepare(Context& c) { return prepare_random(c); }
  static Status infer(Context& c) { return infer_random(c); }
  static Status run(Context& c) {
    const Stream stream = open_stream(c);
    const double low = c.attribute_float("low", 0), high = c.attribute_float("high", 1);
    // What is rounded up to `high` is `high` no more.
    const double below = c.output_type(0) == DataType::kFloat ? 1 - 0x1p-24 : 1;
    return fill_random(
        c, [=](size_t i) { return low + (high - low) * min(stream.uniform(i), below); });
  }
};

// 1 with the probability that the input says, else 0.
struct Bernoulli {
  static Status prepare(Context& c) { return prepare_random(c); }
  static Status run(Context& c) {
    const Stream stream = open_stream(c);
    const void* from = c.input_data<void>(0);
    const DataType type = c.input_type(0);
    return fill_random(
        c, [=](size_t i) { return stream.uniform(i) < read_number(from, type, i) ? 1.0 : 0.0; });
  }
};

// Class numbers by their unnormalized logarithms of probabilities.
struct Multinomial {
  static Status prepare(Context& c) { return prepare_random(c); }
  static Status infer(Context& c) {
    Shape shape = c.input_shape(0);
    const int64_t samples = c.attribute_int("sample_size", 1);
    if (shape.rank != 2 || shape[1] < 1)
      return c.invalid("input 0 of shape % needs 2 dimensions and a class", shape.span());
    if (samples < 1) return c.invalid("sample_size % is not positive", samples);
    size_t bytes = 0;
    ORTOLAN_TRY(scratch_bytes(c, static_cast<size_t>(shape[1]), sizeof(double), &bytes));
    c.request_scratch(bytes);
    shape[1] = samples;
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const Shape &x = c.input_shape(0), &out = c.output_shape(0);
    const size_t classes = static_cast<size_t>(x[1]), samples = static_cast<size_t>(out[1]);
    const Stream stream = open_stream(c);
    double* sums = static_cast<double*>(c.scratch());
    for (size_t i = 0; i < static_cast<size_t>(x[0]); ++i) {
      const auto at = [&](size_t k) {
        return read_number(c.input_data<void>(0), c.input_type(0), i * classes + k);
      };
      double most = at(0), sum = 0;
      for (size_t k = 1; k < classes; ++k) most = max(most, at(k));
      for (size_t k = 0; k < classes; ++k) {
        const double part = math::exp(at(k) - most);
        sum += part == part ? part : 0;
        sums[k] = sum;
      }
      for (size_t j = i * samples; j < (i + 1) * samples; ++j) {
        const double place = stream.uniform(j) * sum;
        size_t low = 0, high = classes - 1;  // the first whose sum is above the place
        while (low < high) {
          const size_t middle = (low + high) / 2;
          if (sums[middle] > place)
            high = middle;
          else
            low = middle + 1;
        }
        write_number(c.output_data<void>(0), c.output_type(0), j, static_cast<double>(low));
      }
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END

#include "random.inc"
