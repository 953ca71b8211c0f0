// Operators that move elements without looking at them, compiled per element width; and Range.
#include "core/packed.h"
#include "kernels/gather.h"
#include "kernels/pad.h"
#include "kernels/repeat.h"
#include "kernels/slice.h"
#include "kernels/transpose.h"

namespace ortolan::portable {

// ai.ortolan: packed weights of a file, bytes [dims...][4], as the floats that they are. Where all
// readers take them packed there is nothing to do. Our converter writes no others: small builds
// refuse them.
struct Unpack {
  static Status infer(Context& c) {
    const int64_t form = c.attribute_int("form", 0);
    Slot& out = c.output(0);
    const bool is_known = form == kFormColumnsLast || form == kFormColumnsFirst;
    const bool stays = is_packed(out.layout) && (kSmall || is_aligned(c));
    Shape& shape = out.shape = c.input_shape(0);
    const bool is_float = shape.rank && shape[--shape.rank] == sizeof(float);
    // In small builds what reads the weights asks for the rest.
    const bool fits = kSmall ? stays : shape.rank > 1 && columns(shape, form) % kLineUnit == 0;
    if (!is_known || !is_float || !fits)
      return c.fail(Status::kNotImplemented, "bytes of shape % are no weights of form %",
                    c.input_shape(0).span(), form);
    out.layout = stays ? static_cast<Layout>(form + 1) : Layout::kPlain;
    if (!stays) return c.set_output(0, Shape(shape));
    out.state = Slot::kShape;  // set_output would count it as computed
    c.alias(0, 0);
    return Status::kOk;
  }

  static Status run(Context& c) {
    if (kSmall) return Status::kOk;
    const Shape& shape = c.output_shape(0);
    const int64_t form = c.attribute_int("form", 0);
    if (shape.count() == 0) return Status::kOk;
    const bool is_first = form == kFormColumnsFirst;
    const size_t N = columns(shape, form), K = shape.count() / N;
    const size_t channels = is_first && shape.rank > 1 ? static_cast<size_t>(shape[1]) : K;
    const char* lines = c.input_data<char>(0);
    char* out = c.output_data<char>(0);
    for (size_t n = 0; n < N; ++n)
      for (size_t k = 0; k < K; ++k) {
        const size_t from = line_offset(K, n) + k * line_width(N, n);
        const size_t row = k % channels * (K / channels) + k / channels;  // taps pass fastest
        const size_t to = is_first ? n * K + row : k * N + n;
        copy(out + to * sizeof(float), lines + from * sizeof(float), sizeof(float));
      }
    return Status::kOk;
  }

 private:
  static bool is_aligned(const Context& c) {
    return reinterpret_cast<uintptr_t>(c.input_data<char>(0)) % alignof(float) == 0;
  }
  static size_t columns(const Shape& shape, int64_t form) {
    return static_cast<size_t>(shape[form == kFormColumnsFirst ? 0 : shape.rank - 1]);
  }
};

struct Range {
  static Status infer(Context& c) {
    for (size_t i = 0; i < 3; ++i)
      if (c.has_input(i) && c.input_shape(i).count() != 1)
        return c.invalid("input % must be one number", i);
    Shape shape;
    shape.append(0);
    bool valid = false;
    switch (c.input_type(0)) {
      case DataType::kFloat:
        valid = float_steps<float>(c, &shape[0]);
        break;
      case DataType::kDouble:
        valid = float_steps<double>(c, &shape[0]);
        break;
      case DataType::kInt16:
        valid = int_steps<int16_t>(c, &shape[0]);
        break;
      case DataType::kInt32:
        valid = int_steps<int32_t>(c, &shape[0]);
        break;
      default:
        valid = int_steps<int64_t>(c, &shape[0]);
    }
    if (!valid) return c.invalid("delta is 0, or the number of elements is not finite");
    return c.set_output(0, shape);
  }

  template <class T>
  static Status run(Context& c) {
    // Integers wrap; a float is rounded once, from double.
    using Wide = Choose<is_float<T>, double, uint64_t>;
    const Wide start = static_cast<Wide>(number<T>(c, 0));
    const Wide delta = static_cast<Wide>(number<T>(c, 2));
    Loose<T>* out = c.output_data<Loose<T>>(0);
    for (size_t i = 0, n = c.output_shape(0).count(); i < n; ++i)
      out[i] = static_cast<T>(start + static_cast<Wide>(i) * delta);
    return Status::kOk;
  }

 private:
  template <bool yes, class A, class B>
  struct Chosen {
    using Type = A;
  };
  template <class A, class B>
  struct Chosen<false, A, B> {
    using Type = B;
  };
  template <bool yes, class A, class B>
  using Choose = typename Chosen<yes, A, B>::Type;

  // com.microsoft's has an optional delta.
  template <class T>
  static T number(Context& c, size_t i) {
    return i == 2 && !c.has_input(2) ? T{1} : *c.input_data<Loose<T>>(i);
  }
  template <class T>
  static bool float_steps(Context& c, int64_t* steps) {
    const T distance = number<T>(c, 1) - number<T>(c, 0);
    const double exact = static_cast<double>(distance) / static_cast<double>(number<T>(c, 2));
    if (!(exact < 0x1p53 && exact > -__DBL_MAX__)) return false;
    if (exact <= 0) return true;
    *steps = static_cast<int64_t>(exact);
    if (static_cast<double>(*steps) < exact) ++*steps;
    return true;
  }
  template <class T>
  static bool int_steps(Context& c, int64_t* steps) {
    const int64_t start = number<T>(c, 0), limit = number<T>(c, 1), delta = number<T>(c, 2);
    if (delta == 0) return false;
    if (delta > 0 ? start >= limit : start <= limit) return true;
    const uint64_t low = static_cast<uint64_t>(min(start, limit));
    const uint64_t distance = static_cast<uint64_t>(max(start, limit)) - low;
    const uint64_t step =
        delta > 0 ? static_cast<uint64_t>(delta) : 0 - static_cast<uint64_t>(delta);
    const uint64_t count = (distance - 1) / step + 1;
    if (count > INT64_MAX) return false;
    *steps = static_cast<int64_t>(count);
    return true;
  }
};

}  // namespace ortolan::portable

#include "movement.inc"
