// Freestanding foundation of the runtime: integer types, small traits, spans, memory helpers.
// Nothing here or below includes a C or C++ library header; compiler headers only.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ORTOLAN_INLINE [[gnu::always_inline]] inline
#define ORTOLAN_NOINLINE [[gnu::noinline]]
// For code that runs once per call or less: size matters and loops are short.
#define ORTOLAN_SMALL [[gnu::noinline, clang::minsize]]
// What stands between these two is compiled for size. Shared headers are included before.
#define ORTOLAN_SMALL_BEGIN \
  _Pragma("clang attribute push(__attribute__((minsize)), apply_to = function)")
#define ORTOLAN_SMALL_END _Pragma("clang attribute pop")

// Whether the target has threads.
#if !defined(__wasm__) || defined(__wasm_atomics__)
#define ORTOLAN_THREADS
#endif

namespace ortolan {

// A build for size: kernels have fewer special cases. Results are the same.
#if defined(ORTOLAN_FOR_SIZE)
constexpr bool kSmall = true;
#else
constexpr bool kSmall = false;
#endif
// The same for the web, where each byte is fetched before anything runs: one way for everything.
#if defined(ORTOLAN_FOR_SIZE) && defined(__wasm__)
constexpr bool kTiny = true;
#else
constexpr bool kTiny = false;
#endif

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
constexpr void swap(T& a, T& b) {
  T t = a;
  a = b;
  b = t;
}

// size rounded up to a multiple of `unit`, a power of two
constexpr size_t round_up(size_t size, size_t unit) { return (size + unit - 1) & ~(unit - 1); }

// Whether T() is all zeros, as memory of a zone is: nothing to be done to construct it there.
template <class T>
constexpr bool starts_zero = !__is_class(T) && !__is_union(T);

// A view of n elements that somebody else owns.
template <class T>
struct Span {
  T* data = nullptr;
  size_t size = 0;

  constexpr T& operator[](size_t i) const { return data[i]; }
  constexpr T* begin() const { return data; }
  constexpr T* end() const { return data + size; }
  constexpr bool empty() const { return size == 0; }
};

// Whether two texts are the same: one function, as hundreds of names are compared.
bool same_text(const char* a, size_t a_size, const char* b, size_t b_size);

// A view of UTF-8 bytes, not terminated by zero.
struct String {
  const char* data = nullptr;
  size_t size = 0;

  constexpr String() = default;
  constexpr String(const char* text, size_t length) : data(text), size(length) {}
  template <size_t N>
  constexpr String(const char (&literal)[N]) : data(literal), size(N - 1) {}

  ORTOLAN_INLINE bool operator==(String other) const {
    return same_text(data, size, other.data, other.size);
  }
};

// The text of a zero-terminated string; null counts as empty.
String from_c(const char* text);

// Tables of texts hold no addresses, which would have to be relocated: each text ends with a zero,
// the last with two.
String nth_word(const char* words, size_t n);
// The place of `text` among the words; their number where it is none of them.
size_t find_word(const char* words, String text);

template <class T>
inline constexpr bool starts_zero<Span<T>> = true;
template <>
inline constexpr bool starts_zero<String> = true;

template <class A, class B>
constexpr bool is_same = false;
template <class A>
constexpr bool is_same<A, A> = true;

template <class T>
constexpr bool is_float = is_same<T, float> || is_same<T, double>;

ORTOLAN_INLINE void copy(void* to, const void* from, size_t bytes) {
  __builtin_memcpy(to, from, bytes);
}
ORTOLAN_INLINE void fill_zero(void* to, size_t bytes) { __builtin_memset(to, 0, bytes); }

}  // namespace ortolan
