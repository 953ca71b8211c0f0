// Fourier transforms of any length, in double: by halves where the length is a power of two, else
// as a convolution with a chirp (Bluestein), which is three transforms of such a length.
#pragma once

#include "core/math.h"
#include "kernels/sorting.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

struct Complex {
  double re, im;
};
inline Complex operator*(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
inline Complex conjugate(Complex a) { return {a.re, -a.im}; }

// exp(-2 pi i k / n)
inline Complex root_of_unity(size_t k, size_t n) {
  const double angle = -6.283185307179586477 * static_cast<double>(k) / static_cast<double>(n);
  return {math::cos(angle), math::sin(angle)};
}

class Fourier {
 public:
  explicit Fourier(size_t length) : n_(length), m_(1) {
    const size_t needed = (length & (length - 1)) ? 2 * length - 1 : length;
    while (m_ < needed) m_ *= 2;
  }
  // Numbers of a buffer that transforms work in.
  size_t buffer() const { return m_; }
  // Numbers of the tables.
  size_t tables() const { return m_ / 2 + (m_ == n_ ? 0 : n_ + m_); }

  ORTOLAN_NOINLINE void make_tables(Complex* tables) {
    roots_ = tables;
    for (size_t k = 0; k < m_ / 2; ++k) tables[k] = root_of_unity(k, m_);
    if (m_ == n_) return;
    Complex *chirp = tables + m_ / 2, *kernel = chirp + n_;
    chirp_ = chirp;
    kernel_ = kernel;
    fill_zero(kernel, m_ * sizeof(Complex));
    size_t square = 0;  // k * k modulo 2 n
    for (size_t k = 0; k < n_; ++k) {
      chirp[k] = root_of_unity(square, 2 * n_);
      kernel[k] = kernel[(m_ - k) % m_] = conjugate(chirp[k]);
      square = (square + 2 * k + 1) % (2 * n_);
    }
    by_halves(kernel);
  }

  // The transform of the first `length` numbers of a buffer, in place.
  ORTOLAN_NOINLINE void transform(Complex* x) const {
    if (m_ == n_) return by_halves(x);
    for (size_t k = 0; k < n_; ++k) x[k] = x[k] * chirp_[k];
    fill_zero(x + n_, (m_ - n_) * sizeof(Complex));
    by_halves(x);
    // The way back is the way there between conjugates.
    for (size_t k = 0; k < m_; ++k) x[k] = conjugate(x[k] * kernel_[k]);
    by_halves(x);
    const double scale = 1 / static_cast<double>(m_);
    for (size_t k = 0; k < n_; ++k) {
      const Complex y = conjugate(x[k]) * chirp_[k];
      x[k] = {y.re * scale, y.im * scale};
    }
  }
  ORTOLAN_NOINLINE void inverse(Complex* x) const {
    for (size_t k = 0; k < n_; ++k) x[k] = conjugate(x[k]);
    transform(x);
    const double scale = 1 / static_cast<double>(n_);
    for (size_t k = 0; k < n_; ++k) x[k] = {x[k].re * scale, -x[k].im * scale};
  }

 private:
  void by_halves(Complex* x) const {
    for (size_t i = 1, j = 0; i < m_; ++i) {  // j is i with its bits in reverse
      size_t bit = m_ / 2;
      for (; j & bit; bit /= 2) j ^= bit;
      j ^= bit;
      if (i < j) swap(x[i], x[j]);
    }
    for (size_t half = 1; half < m_; half *= 2) {
      const size_t step = m_ / 2 / half;
      for (size_t i = 0; i < m_; i += 2 * half)
        for (size_t k = 0; k < half; ++k) {
          Complex &a = x[i + k], &b = x[i + k + half];
          const Complex turned = b * roots_[k * step], sum = {a.re + turned.re, a.im + turned.im};
          b = {a.re - turned.re, a.im - turned.im};
          a = sum;
        }
    }
  }

  size_t n_, m_;
  const Complex *roots_ = nullptr, *chirp_ = nullptr, *kernel_ = nullptr;
};

// Tables of the longest take 4 GB, which an address space of 32 bits cannot hold.
constexpr int64_t kLongestTransform = sizeof(size_t) < 8 ? 1 << 24 : 1 << 26;

// Scratch of a kernel that transforms: tables for all, a buffer for each thread.
inline void request_transform(Context& c, const Fourier& f) {
  c.request_scratch(f.tables() * sizeof(Complex), f.buffer() * sizeof(Complex));
}

}  // namespace ortolan::portable

ORTOLAN_SMALL_END
