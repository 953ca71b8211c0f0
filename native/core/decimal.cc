#include "core/decimal.h"

namespace ortolan::decimal {

namespace {

// A natural number of up to 5,120 bits: more than any product below needs.
class Big {
 public:
  explicit Big(uint64_t value) {
    for (; value; value >>= 32) words_[size_++] = static_cast<uint32_t>(value);
  }
  void multiply_add(uint32_t factor, uint32_t summand) {
    uint64_t carry = summand;
    for (uint32_t i = 0; i < size_; ++i) {
      carry += static_cast<uint64_t>(words_[i]) * factor;
      words_[i] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry) words_[size_++] = static_cast<uint32_t>(carry);
  }
  void multiply_power_of_10(uint32_t n) {
    for (; n >= 9; n -= 9) multiply_add(1000000000, 0);
    for (; n > 0; --n) multiply_add(10, 0);
  }
  void shift_left(uint32_t bits) {
    const uint32_t words = bits / 32, rest = bits % 32;
    if (rest) multiply_add(1u << rest, 0);
    if (!words || !size_) return;
    for (uint32_t i = size_; i-- > 0;) words_[i + words] = words_[i];
    for (uint32_t i = 0; i < words; ++i) words_[i] = 0;
    size_ += words;
  }
  uint32_t bits() const {
    return size_ ? 32 * size_ - static_cast<uint32_t>(__builtin_clz(words_[size_ - 1])) : 0;
  }
  bool is_zero() const { return size_ == 0; }
  // Negative, 0 or positive as *this is less than, equal to or greater than a + b.
  int compare_sum(const Big& a, const Big* b = nullptr) const {
    uint32_t n = max(size_, max(a.size_, b ? b->size_ : 0) + 1);
    int64_t ahead = 0;  // *this - (a + b), of the words above
    for (uint32_t i = n; i-- > 0;) {
      ahead = (ahead << 32) + word(i) - a.word(i) - (b ? b->word(i) : 0);
      if (ahead > 2 || ahead < -2) return ahead < 0 ? -1 : 1;
    }
    return ahead < 0 ? -1 : ahead > 0;
  }
  // *this is not less.
  void subtract(const Big& other) {
    int64_t borrow = 0;
    for (uint32_t i = 0; i < size_; ++i) {
      borrow += static_cast<int64_t>(words_[i]) - other.word(i);
      words_[i] = static_cast<uint32_t>(borrow);
      borrow >>= 32;
    }
    while (size_ && !words_[size_ - 1]) --size_;
  }

 private:
  int64_t word(uint32_t i) const { return i < size_ ? words_[i] : 0; }
  uint32_t size_ = 0;
  uint32_t words_[160];
};

// Fraction bits (without the hidden one) and the exponent of the least number.
struct Format {
  uint32_t bits;
  int32_t least;
  uint32_t exponents;  // the number of infinity
};
constexpr Format kFloat = {23, -149, 255}, kDouble = {52, -1074, 2047};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

String trim(String text) {
  auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (text.size && is_space(text.data[0])) ++text.data, --text.size;
  while (text.size && is_space(text.data[text.size - 1])) --text.size;
  return text;
}

bool is_word(String text, String word) {
  if (text.size != word.size) return false;
  for (size_t i = 0; i < text.size; ++i)
    if (lower(text.data[i]) != word.data[i]) return false;
  return true;
}

// The digits of an integer; false when there is something else. Saturates.
bool read_digits(String text, bool* is_negative, uint64_t* size) {
  *is_negative = text.size && text.data[0] == '-';
  if (text.size && (*is_negative || text.data[0] == '+')) ++text.data, --text.size;
  *size = 0;
  for (size_t i = 0; i < text.size; ++i) {
    const char c = text.data[i];
    if (c < '0' || c > '9') return false;
    if (__builtin_mul_overflow(*size, uint64_t{10}, size) ||
        __builtin_add_overflow(*size, static_cast<uint64_t>(c - '0'), size))
      *size = UINT64_MAX, text.size = i + 1;
  }
  return text.size > 0;
}

// The bits of the number nearest to numerator / denominator, ties to even.
uint64_t nearest(Big numerator, Big denominator, const Format& format) {
  if (numerator.is_zero()) return 0;
  const int32_t wanted = static_cast<int32_t>(format.bits) + 2;
  // A quotient of `wanted` bits or one more; fewer where the number is subnormal.
  int32_t shift =
      wanted - static_cast<int32_t>(numerator.bits()) + static_cast<int32_t>(denominator.bits());
  shift = min(shift, 1 - format.least);
  if (shift >= 0)
    numerator.shift_left(static_cast<uint32_t>(shift));
  else
    denominator.shift_left(static_cast<uint32_t>(-shift));
  uint64_t quotient = 0;
  uint32_t steps = 0;
  while (steps < 64 && denominator.compare_sum(numerator) <= 0) denominator.shift_left(1), ++steps;
  // Long division, bit by bit; halving the denominator is doubling the numerator.
  for (; steps > 0; --steps) {
    numerator.shift_left(1);
    quotient <<= 1;
    if (numerator.compare_sum(denominator) >= 0) numerator.subtract(denominator), quotient |= 1;
  }
  const bool is_exact = numerator.is_zero();
  int32_t exponent = -shift;
  uint32_t drop = 0;
  while (quotient >> drop >= uint64_t{2} << format.bits) ++drop;
  while (exponent + static_cast<int32_t>(drop) < format.least) ++drop;
  if (drop > 63) return 0;
  uint64_t kept = quotient >> drop;
  if (drop) {
    const uint64_t half = uint64_t{1} << (drop - 1), rest = quotient & (2 * half - 1);
    if (rest > half || (rest == half && (!is_exact || (kept & 1)))) ++kept;
  }
  exponent += static_cast<int32_t>(drop);
  if (kept >= uint64_t{2} << format.bits) kept >>= 1, ++exponent;
  if (!(kept >> format.bits)) return kept;  // subnormal
  const uint64_t biased = static_cast<uint64_t>(exponent - format.least + 1);
  if (biased >= format.exponents) return static_cast<uint64_t>(format.exponents) << format.bits;
  return biased << format.bits | (kept & ((uint64_t{1} << format.bits) - 1));
}

// Digits beyond this many only matter if one is not zero.
constexpr uint32_t kDigits = 800;

bool read_bits(String text, const Format& format, uint64_t* result) {
  text = trim(text);
  bool is_negative = false;
  if (text.size && (text.data[0] == '-' || text.data[0] == '+'))
    is_negative = text.data[0] == '-', ++text.data, --text.size;
  const uint64_t sign = static_cast<uint64_t>(is_negative)
                        << (format.bits + (format.exponents == 255 ? 8 : 11));
  const uint64_t infinity = static_cast<uint64_t>(format.exponents) << format.bits;
  if (is_word(text, "inf") || is_word(text, "infinity")) return *result = sign | infinity, true;
  if (is_word(text, "nan")) return *result = infinity | infinity >> 1, true;
  Big digits(0);
  uint32_t used = 0;
  int32_t exponent = 0;
  bool any = false, has_point = false, has_rest = false;
  size_t i = 0;
  for (; i < text.size; ++i) {
    const char c = text.data[i];
    if (c == '.' && !has_point) {
      has_point = true;
      continue;
    }
    if (c < '0' || c > '9') break;
    any = true;
    if (exponent < 100000 && exponent > -100000) exponent -= has_point;
    if (used == 0 && c == '0') continue;
    if (used < kDigits) {
      if (digits.is_zero())
        digits = Big(static_cast<uint64_t>(c - '0'));
      else
        digits.multiply_add(10, static_cast<uint32_t>(c - '0'));
      ++used;
    } else {
      has_rest = has_rest || c != '0';
      if (exponent < 100000) ++exponent;
    }
  }
  if (!any) return false;
  if (i < text.size && lower(text.data[i]) == 'e') {
    bool is_down;
    uint64_t power;
    if (!read_digits({text.data + i + 1, text.size - i - 1}, &is_down, &power)) return false;
    const int32_t size = static_cast<int32_t>(min<uint64_t>(power, 100000));
    exponent += is_down ? -size : size;
    i = text.size;
  }
  if (i != text.size) return false;
  if (has_rest) digits.multiply_add(10, 1), --exponent, ++used;
  const int32_t magnitude = exponent + static_cast<int32_t>(used);
  if (used == 0 || magnitude < -400) return *result = sign, true;
  if (magnitude > 400) return *result = sign | infinity, true;
  Big denominator(1);
  if (exponent >= 0)
    digits.multiply_power_of_10(static_cast<uint32_t>(exponent));
  else
    denominator.multiply_power_of_10(static_cast<uint32_t>(-exponent));
  *result = sign | nearest(digits, denominator, format);
  return true;
}

// The shortest digits that round to fraction * 2^exponent (Steele and White, "How to print
// floating-point numbers accurately", with the shortcuts of Dybvig). Answers how many, and where
// the point is: 0.d1d2d3... * 10^point.
uint32_t shortest(uint64_t fraction, int32_t exponent, bool is_power, char* digits,
                  int32_t* point) {
  const bool is_even = !(fraction & 1);
  Big rest(fraction), scale(1), low(1), high(1);
  const uint32_t wide = is_power ? 2 : 1;  // the gap below a power of two is half of that above
  rest.shift_left(wide);
  scale.shift_left(wide);
  if (is_power) high.shift_left(1);
  if (exponent >= 0) {
    const auto n = static_cast<uint32_t>(exponent);
    rest.shift_left(n), low.shift_left(n), high.shift_left(n);
  } else {
    scale.shift_left(static_cast<uint32_t>(-exponent));
  }
  const int32_t top = exponent + 63 - __builtin_clzll(fraction);
  // floor(top * log10(2)) is the place of the first digit or one less.
  int32_t place = static_cast<int32_t>((top * int64_t{1292913986}) >> 32) + 1;
  const auto raise = [&](int32_t n, Big& by_scale) {
    if (n > 0) by_scale.multiply_power_of_10(static_cast<uint32_t>(n));
  };
  raise(place, scale);
  raise(-place, rest), raise(-place, low), raise(-place, high);
  // Up where the number and half the gap above reach 10^place.
  const auto reaches = [&] {
    const int order = scale.compare_sum(rest, &high);
    return is_even ? order <= 0 : order < 0;
  };
  if (reaches())
    ++place;
  else
    rest.multiply_add(10, 0), low.multiply_add(10, 0), high.multiply_add(10, 0);
  *point = place;
  for (uint32_t n = 0;;) {
    char digit = '0';
    while (rest.compare_sum(scale) >= 0) rest.subtract(scale), ++digit;
    const int below = rest.compare_sum(low);
    const bool is_low = is_even ? below <= 0 : below < 0, is_high = reaches();
    if (is_low || is_high) {
      if (is_high && (!is_low || scale.compare_sum(rest, &rest) <= 0)) ++digit;
      digits[n++] = digit;
      return n;
    }
    digits[n++] = digit;
    rest.multiply_add(10, 0), low.multiply_add(10, 0), high.multiply_add(10, 0);
  }
}

size_t write_bits(char* text, uint64_t bits, const Format& format, int32_t longest) {
  char* out = text;
  const auto put = [&](String s) {
    copy(out, s.data, s.size);
    out += s.size;
  };
  const uint32_t width = format.exponents == 255 ? 8 : 11;
  const uint64_t biased = bits >> format.bits & format.exponents;
  uint64_t fraction = bits & ((uint64_t{1} << format.bits) - 1);
  if (biased == format.exponents && fraction) return put("NaN"), size_t{3};
  if (bits >> (format.bits + width)) *out++ = '-';
  if (biased == format.exponents) return put("INF"), static_cast<size_t>(out - text);
  if (!biased && !fraction) return *out++ = '0', static_cast<size_t>(out - text);
  const bool is_power = !fraction && biased > 1;
  if (biased) fraction |= uint64_t{1} << format.bits;
  const int32_t exponent = format.least + (biased ? static_cast<int32_t>(biased) - 1 : 0);
  char digits[20];
  int32_t point;
  const int32_t n = static_cast<int32_t>(shortest(fraction, exponent, is_power, digits, &point));
  if (point > longest || point < -3) {
    *out++ = digits[0];
    if (n > 1) *out++ = '.', put({digits + 1, static_cast<size_t>(n - 1)});
    const int32_t power = point - 1, size = power < 0 ? -power : power;
    *out++ = 'e', *out++ = power < 0 ? '-' : '+';
    if (size < 10) *out++ = '0';
    out += write_int(out, size);
  } else if (point <= 0) {
    put("0.");
    for (int32_t i = point; i < 0; ++i) *out++ = '0';
    put({digits, static_cast<size_t>(n)});
  } else {
    for (int32_t i = 0; i < max(point, n); ++i) {
      if (i == point) *out++ = '.';
      *out++ = i < n ? digits[i] : '0';
    }
  }
  return static_cast<size_t>(out - text);
}

}  // namespace

// Where onnxruntime, which writes 8 and 17 digits, changes the form.
size_t write_float(char* text, float x) {
  uint32_t bits;
  copy(&bits, &x, sizeof(bits));
  return write_bits(text, bits, kFloat, 8);
}
size_t write_double(char* text, double x) {
  uint64_t bits;
  copy(&bits, &x, sizeof(bits));
  return write_bits(text, bits, kDouble, 17);
}

size_t write_uint(char* text, uint64_t x) {
  char digits[20];
  size_t n = 0;
  do digits[n++] = static_cast<char>('0' + x % 10);
  while (x /= 10);
  for (size_t i = 0; i < n; ++i) text[i] = digits[n - 1 - i];
  return n;
}
size_t write_int(char* text, int64_t x) {
  if (x >= 0) return write_uint(text, static_cast<uint64_t>(x));
  *text = '-';
  return 1 + write_uint(text + 1, 0 - static_cast<uint64_t>(x));
}

bool read_float(String text, float* x) {
  uint64_t bits;
  if (!read_bits(text, kFloat, &bits)) return false;
  const uint32_t narrow = static_cast<uint32_t>(bits);
  copy(x, &narrow, sizeof(narrow));
  return true;
}
bool read_double(String text, double* x) {
  uint64_t bits;
  if (!read_bits(text, kDouble, &bits)) return false;
  copy(x, &bits, sizeof(bits));
  return true;
}

bool read_int(String text, int64_t* x) {
  bool is_negative;
  uint64_t size;
  if (!read_digits(trim(text), &is_negative, &size)) return false;
  constexpr uint64_t kEnd = uint64_t{1} << 63;
  size = min(size, is_negative ? kEnd : kEnd - 1);
  *x = static_cast<int64_t>(is_negative ? 0 - size : size);
  return true;
}
bool read_uint(String text, uint64_t* x) {
  bool is_negative;
  if (!read_digits(trim(text), &is_negative, x)) return false;
  if (is_negative) *x = 0 - *x;
  return true;
}

}  // namespace ortolan::decimal
