// QuantizeLinear and DequantizeLinear for types without arithmetic, and for scales that are not
// float: by small pieces, in which all operands are numbers of 64 bits.
#pragma once

#include "core/math.h"
#include "kernels/narrow.h"
#include "kernels/quantize.h"

namespace ortolan::ORTOLAN_ISA {

constexpr size_t kAnyPiece = 128;

// An operand that may be absent, which counts as zeros.
struct AnyNumbers {
  const char* data = nullptr;
  DataType type = DataType::kFloat;

  AnyNumbers(const Context& c, size_t i) {
    if (!c.has_input(i)) return;
    data = c.input_data<char>(i);
    type = c.input_type(i);
  }
  // n <= kAnyPiece elements from `begin` on, or n times the one there.
  void read(size_t begin, size_t n, bool each, double* to) const {
    const size_t count = each ? n : 1;
    float wide[kAnyPiece] = {};
    const char* from = data ? data + begin * element_size(type) : nullptr;
    if (data && type != DataType::kInt32) portable::widen(type, from, wide, count);
#pragma clang loop vectorize(disable) unroll(disable)
    for (size_t i = 0; i < n; ++i) {
      const size_t k = each ? i : 0;
      to[i] = data && type == DataType::kInt32 ? static_cast<double>(load<int32_t>(from + 4 * k))
                                               : static_cast<double>(wide[k]);
    }
  }
};

// Calls body(begin, n, x, scale, zero) for pieces of the tensor.
template <class Body>
ORTOLAN_INLINE Status for_each_piece(Context& c, const Body& body) {
  QuantizedRows q;
  ORTOLAN_TRY(place_scales(c, &q));
  const AnyNumbers x(c, 0), scales(c, 1), zeros(c, 2);
  for_each_row(c, q, [&](size_t begin, size_t length, size_t scale, bool each) {
    double in[3][kAnyPiece];
    for (size_t i = 0, n; i < length; i += n) {
      n = min(length - i, kAnyPiece);
      const size_t at = scale + (each ? i : 0);
      x.read(begin + i, n, true, in[0]);
      scales.read(at, n, each, in[1]);
      zeros.read(at, n, each, in[2]);
      body(begin + i, n, in[0], in[1], in[2]);
    }
  });
  return Status::kOk;
}

// Rounded to a type of 16 bits.
inline double round_to(DataType type, double x) {
  float wide = static_cast<float>(x);
  uint16_t bits;
  portable::narrow({type}, &wide, &bits, 1);
  portable::widen(type, &bits, &wide, 1);
  return static_cast<double>(wide);
}

// Bits of an integer type, 0 for float types.
inline int integer_bits(DataType type) {
  const bool is_float_type = type >= DataType::kFloat8E4M3FN && type <= DataType::kFloat8E5M2FNUZ;
  if (is_float_type || type == DataType::kFloat4E2M1) return 0;
  const int small = portable::small_integer_bits(type);
  return small ? small : static_cast<int>(8 * element_size(type));
}

[[gnu::noinline, clang::minsize]] static Status quantize_any(Context& c) {
  const DataType type = c.output_type(0);
  const auto precision = static_cast<DataType>(c.attribute_int("precision", 0));
  const bool is_half = precision == DataType::kFloat16 || precision == DataType::kBfloat16;
  const bool are_integers =
      c.input_type(0) == DataType::kInt32 && c.input_type(1) == c.input_type(0);
  const portable::Narrowing to = {type, c.attribute_int("saturate", 1) != 0};
  const int bits = integer_bits(type);
  const bool is_signed = type == DataType::kInt8 || type == DataType::kInt16 ||
                         type == DataType::kInt4 || type == DataType::kInt2;
  const double low = is_signed ? -static_cast<double>(1 << (bits - 1)) : 0;
  const double high = low + (1 << bits) - 1;
  return for_each_piece(
      c, [&](size_t begin, size_t n, const double* x, const double* scale, const double* zero) {
        float result[kAnyPiece];
#pragma clang loop vectorize(disable) unroll(disable)
        for (size_t i = 0; i < n; ++i) {
          double q =
              is_half ? round_to(precision, x[i]) / round_to(precision, scale[i]) : x[i] / scale[i];
          if (is_half)
            q = round_to(precision, q);
          else if (!are_integers)
            q = static_cast<double>(static_cast<float>(q));
          if (bits)
            q = clamp(math::round_even(q) + zero[i], low, high);
          else
            q += zero[i];
          result[i] = static_cast<float>(q);
        }
        portable::narrow(to, result, c.output_data<char>(0) + begin * element_size(type), n);
      });
}

[[gnu::noinline, clang::minsize]] static Status dequantize_any(Context& c) {
  return for_each_piece(
      c, [&](size_t begin, size_t n, const double* x, const double* scale, const double* zero) {
        float* y = c.output_data<float>(0) + begin;
#pragma clang loop vectorize(disable) unroll(disable)
        for (size_t i = 0; i < n; ++i)
          y[i] = static_cast<float>(x[i] - zero[i]) * static_cast<float>(scale[i]);
      });
}

}  // namespace ortolan::ORTOLAN_ISA
