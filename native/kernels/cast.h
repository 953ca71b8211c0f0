// Cast between all types of numbers. Types with arithmetic have a loop for each pair; the narrow
// ones, such as float16, go through float32, which holds all of their values.
#pragma once

#include "kernels/elementwise.h"
#include "kernels/float16.h"
#include "kernels/narrow.h"
#include "kernels/texts.h"

namespace ortolan::ORTOLAN_ISA {

template <class To>
struct Convert {
  template <class V>
  ORTOLAN_INLINE VecLike<To, V> operator()(V x) const {
    if constexpr (is_float<Element<V>> && !is_float<To>)
      return to_integer<To>(x);
    else
      return convert<To>(x);
  }
};

struct NotZero {
  template <class V>
  ORTOLAN_INLINE Mask<V> operator()(V x) const {
    return x != 0;
  }
};

// Without instructions for it, conversions between floats and 64-bit integers are smaller and as
// fast one by one.
template <class From, class To>
constexpr bool by_lanes() {
#if defined(__AVX512DQ__) || defined(__aarch64__)
  return true;
#else
  return !((is_float<From> && !is_float<To> && (sizeof(To) == 8 || is_same<To, uint32_t>)) ||
           (is_float<To> && !is_float<From> && sizeof(From) == 8));
#endif
}

struct Cast {
  static constexpr bool is_integer(DataType type) {  // of whole bytes
    constexpr uint32_t kIntegers = type_bit(DataType::kInt8) | type_bit(DataType::kUint8) |
                                   type_bit(DataType::kInt16) | type_bit(DataType::kUint16) |
                                   type_bit(DataType::kInt32) | type_bit(DataType::kUint32) |
                                   type_bit(DataType::kInt64) | type_bit(DataType::kUint64);
    return (type_bit(type) & kIntegers) != 0;
  }

  ORTOLAN_SMALL static bool keeps_bytes(DataType from, DataType to) {
    if (from == DataType::kBool || to == DataType::kBool) return false;
    return from == to ||
           (is_integer(from) && is_integer(to) && element_size(from) == element_size(to));
  }

  static Status infer(Context& c) {
    ORTOLAN_TRY(c.set_output(0, c.input_shape(0)));
    if (keeps_bytes(c.input_type(0), c.output_type(0))) c.alias(0, 0);
    return Status::kOk;
  }

  template <class A, class B>
  static Status run(Context& c) {
    if constexpr (is_same<B, bool>) {
      return map<NotZero, Lanes<Wrapped<Stored<A>>>, bool>(c, NotZero{});
    } else {
      constexpr bool kIntegers = !is_float<A> && !is_float<B>;
      if constexpr (sizeof(A) == sizeof(B) && (kIntegers || is_same<A, B>) && !is_same<A, bool>)
        return copy_elements(c);
      using From = typename If<kIntegers && sizeof(B) <= sizeof(A), Wrapped<A>, Stored<A>>::Type;
      using To = typename If<is_float<A>, B, Wrapped<B>>::Type;
      using V = typename If<by_lanes<From, To>(), Vec<From, kLanes>, From>::Type;
      return map<Convert<To>, V, To>(c, Convert<To>{});
    }
  }

  // One of the types is string.
  template <class>
  static Status run(Context& c) {
    return portable::cast_texts(c);
  }

  // One of the types is narrow.
  ORTOLAN_SMALL static Status run(Context& c) {
    const DataType from = c.input_type(0);
    Narrow op = {from, {c.output_type(0), c.attribute_int("saturate", 1) != 0}};
    const String rounding = c.attribute_string("round_mode", "up");
    if (rounding == String("down")) op.to.rounding = portable::PowerRounding::kDown;
    if (rounding == String("nearest")) op.to.rounding = portable::PowerRounding::kNearest;
    if (from == op.to.type) return copy_elements(c);
    return apply(c, narrow_row, &op, form_of<F>(1));
  }

 private:
  struct Narrow {
    DataType from;
    portable::Narrowing to;
  };
  static constexpr size_t kPiece = 256;

  template <class Format>
  static void widen_halves(const char* x, float* y, size_t n) {
    for (size_t i = 0; i < n; i += kLanes) store(y + i, Format::widen(load<Halves<F>>(x + 2 * i)));
  }
  template <class Format>
  static void narrow_halves(const float* x, char* y, size_t n) {
    for (size_t i = 0; i < n; i += kLanes) store(y + 2 * i, Format::narrow(load<F>(x + i)));
  }

  // n is a multiple of kLanes.
  static void narrow_row(const Row& row) {
    const Narrow op = *static_cast<const Narrow*>(row.op);
    const DataType to = op.to.type;
    const size_t size = element_size(op.from), out_size = element_size(to);
    const size_t count = row.groups * kLanes;
    for (size_t i = 0, n; i < count; i += n) {
      n = min(count - i, kPiece);
      const char* x = row.in[0] + i * size;
      char* y = row.out + i * out_size;
      if (portable::small_integer_bits(to) && is_integer(op.from)) {
        portable::cut(x, size, to, static_cast<uint8_t*>(static_cast<void*>(y)), n);
        continue;
      }
      alignas(64) float piece[kPiece];
      float* wide = to == DataType::kFloat ? static_cast<float*>(static_cast<void*>(y)) : piece;
      if (op.from == DataType::kFloat)
        wide = const_cast<float*>(static_cast<const float*>(static_cast<const void*>(x)));
      else if (op.from == DataType::kFloat16)
        widen_halves<Float16<F>>(x, wide, n);
      else if (op.from == DataType::kBfloat16)
        widen_halves<Bfloat16<F>>(x, wide, n);
      else
        portable::widen(op.from, x, wide, n);
      if (to == DataType::kFloat16)
        narrow_halves<Float16<F>>(wide, y, n);
      else if (to == DataType::kBfloat16)
        narrow_halves<Bfloat16<F>>(wide, y, n);
      else if (to != DataType::kFloat)
        portable::narrow(op.to, wide, y, n);
    }
  }

  ORTOLAN_SMALL static Status copy_elements(Context& c) {
    const Slot& from = c.input(0);
    const Slot& to = c.output(0);
    if (from.data != to.data && from.data)
      copy(to.data, from.data, element_count(to.shape) * element_size(to.type));
    return Status::kOk;
  }
};

}  // namespace ortolan::ORTOLAN_ISA
