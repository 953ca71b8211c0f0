// Small matrices (Det, Inverse, EyeLike), Hardmax, and hashes of numbers.
#include "kernels/any_number.h"
#include "kernels/sorting.h"

ORTOLAN_SMALL_BEGIN

namespace ortolan::portable {

// Stacks of square matrices; the size of one.
static Status check_square(Context& c, size_t* n) {
  const Shape& x = c.input_shape(0);
  if (x.rank < 2 || x[x.rank - 1] != x[x.rank - 2])
    return c.invalid("input 0 of shape % has no square matrices", x.span());
  *n = static_cast<size_t>(x[x.rank - 1]);
  return Status::kOk;
}

// Brings the row with the largest element of column k on or below the diagonal to row k of an
// n x n matrix. Whether rows were exchanged.
template <class T>
static size_t pivot_row(const T* a, size_t n, size_t k) {
  size_t best = k;
  for (size_t i = k + 1; i < n; ++i)
    if (math::abs(a[i * n + k]) > math::abs(a[best * n + k])) best = i;
  return best;
}
template <class T>
static void exchange_rows(T* a, size_t n, size_t i, size_t j) {
  for (size_t k = 0; k < n && i != j; ++k) swap(a[i * n + k], a[j * n + k]);
}

struct Det {
  static Status infer(Context& c) {
    size_t n = 0, bytes = 0;
    ORTOLAN_TRY(check_square(c, &n));
    ORTOLAN_TRY(scratch_bytes(c, n * n, element_size(c.input_type(0)), &bytes));
    c.request_scratch(bytes);
    Shape out = c.input_shape(0);
    out.rank -= 2;
    return c.set_output(0, out);
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const size_t n = static_cast<size_t>(x[x.rank - 1]);
    T* a = static_cast<T*>(c.scratch());
    for (size_t i = 0, count = c.output_shape(0).count(); i < count; ++i) {
      if (n) copy(a, c.input_data<T>(0) + i * n * n, n * n * sizeof(T));
      T product = 1;
      for (size_t k = 0; k < n; ++k) {
        const size_t row = pivot_row(a, n, k);
        exchange_rows(a, n, row, k);
        product *= row == k ? a[k * n + k] : -a[k * n + k];
        for (size_t j = k + 1; j < n && product != 0; ++j) {
          const T factor = a[j * n + k] / a[k * n + k];
          for (size_t m = k; m < n; ++m) a[j * n + m] -= factor * a[k * n + m];
        }
      }
      c.output_data<T>(0)[i] = product;
    }
    return Status::kOk;
  }
};

// By elimination; what has no inverse gives infinities or NaN.
struct Inverse {
  static Status infer(Context& c) {
    size_t n = 0, bytes = 0;
    ORTOLAN_TRY(check_square(c, &n));
    ORTOLAN_TRY(scratch_bytes(c, n * n, element_size(c.input_type(0)), &bytes));
    c.request_scratch(bytes);
    return c.set_output(0, c.input_shape(0));
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const size_t n = static_cast<size_t>(x[x.rank - 1]);
    T* a = static_cast<T*>(c.scratch());
    for (size_t i = 0, count = x.product(0, x.rank - 2); i < count && n; ++i) {
      T* y = c.output_data<T>(0) + i * n * n;
      copy(a, c.input_data<T>(0) + i * n * n, n * n * sizeof(T));
      for (size_t k = 0; k < n * n; ++k) y[k] = k / n == k % n;
      for (size_t k = 0; k < n; ++k) eliminate(a, y, n, k);
    }
    return Status::kOk;
  }

 private:
  template <class T>
  static void eliminate(T* a, T* y, size_t n, size_t k) {
    const size_t row = pivot_row(a, n, k);
    exchange_rows(a, n, row, k);
    exchange_rows(y, n, row, k);
    const T scale = 1 / a[k * n + k];
    for (size_t m = 0; m < n; ++m) a[k * n + m] *= scale, y[k * n + m] *= scale;
    for (size_t j = 0; j < n; ++j) {
      const T factor = a[j * n + k];
      if (j == k || factor == 0) continue;
      for (size_t m = 0; m < n; ++m) {
        a[j * n + m] -= factor * a[k * n + m];
        y[j * n + m] -= factor * y[k * n + m];
      }
    }
  }
};

// 1 for the first greatest element of an axis; before version 13, of all from the axis on.
struct Hardmax {
  static Status infer(Context& c) {
    int64_t axis = 0;
    const uint32_t rank = c.input_shape(0).rank;
    ORTOLAN_TRY(read_axis(c, rank, &axis));
    return c.set_output(0, c.input_shape(0));
  }
  template <class T>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    int64_t axis = 0;
    ORTOLAN_TRY(read_axis(c, x.rank, &axis));
    const bool flat = c.since_version() < 13;
    const uint32_t at = static_cast<uint32_t>(axis), end = flat ? x.rank : at + 1;
    const size_t n = x.product(at, end), inner = x.product(end, x.rank);
    const T* from = c.input_data<T>(0);
    T* to = c.output_data<T>(0);
    if (x.count() == 0) return Status::kOk;
    fill_zero(to, x.count() * sizeof(T));
    for (size_t i = 0, rows = x.count() / n; i < rows; ++i) {
      const size_t first = i / inner * n * inner + i % inner;
      size_t best = first;
      for (size_t k = 1; k < n; ++k) {
        const T value = from[first + k * inner], most = from[best];
        if (value > most || (most != most && value == value)) best = first + k * inner;
      }
      to[best] = 1;
    }
    return Status::kOk;
  }

 private:
  // A number counts as a list of one.
  static Status read_axis(Context& c, uint32_t rank, int64_t* axis) {
    const bool flat = c.since_version() < 13;
    *axis = c.attribute_int("axis", flat ? 1 : -1);
    if (flat && *axis == static_cast<int64_t>(rank)) return Status::kOk;
    if (rank == 0 && (*axis == -1 || *axis == 0)) return c.invalid("input 0 has no dimensions");
    return resolve_axis(c, axis, rank);
  }
};

struct EyeLike {
  static Status infer(Context& c) {
    const Shape& x = c.input_shape(0);
    if (x.rank != 2) return c.invalid("input 0 of shape % needs 2 dimensions", x.span());
    return c.set_output(0, x);
  }
  static Status run(Context& c) {
    const Shape& x = c.output_shape(0);
    const int64_t k = c.attribute_int("k", 0);
    fill_zero(c.output_data<void>(0), x.count() * element_size(c.output_type(0)));
    if (k <= -x[0] || k >= x[1]) return Status::kOk;
    for (int64_t i = max<int64_t>(-k, 0); i < x[0] && i + k < x[1]; ++i)
      write_number(c.output_data<void>(0), c.output_type(0), static_cast<size_t>(i * x[1] + i + k),
                   1);
    return Status::kOk;
  }
};

// MurmurHash3 for 32 bits of the bytes of each element, of 4 or 8.
struct MurmurHash3 {
  static Status infer(Context& c) { return c.set_output(0, c.input_shape(0)); }
  static Status run(Context& c) {
    const uint32_t seed = static_cast<uint32_t>(c.attribute_int("seed", 0));
    const size_t words = word_size(c) / sizeof(uint32_t);
    const Loose<uint32_t>* from = c.input_data<Loose<uint32_t>>(0);
    uint32_t* to = c.output_data<uint32_t>(0);
    for (size_t i = 0, n = c.input_shape(0).count(); i < n; ++i) {
      uint32_t hash = seed;
      for (size_t k = 0; k < words; ++k) {
        const uint32_t word = rotated(*from++ * 0xcc9e2d51u, 15) * 0x1b873593u;
        hash = rotated(hash ^ word, 13) * 5 + 0xe6546b64u;
      }
      hash ^= static_cast<uint32_t>(words * sizeof(uint32_t));
      hash = (hash ^ hash >> 16) * 0x85ebca6bu;
      hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
      to[i] = hash ^ hash >> 16;
    }
    return Status::kOk;
  }

 private:
  static uint32_t rotated(uint32_t x, int bits) { return x << bits | x >> (32 - bits); }
};

}  // namespace ortolan::portable

ORTOLAN_SMALL_END

#include "algebra.inc"
