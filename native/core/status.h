// Result codes, and the text of the one error that an object (model, run) remembers.
// Codes below 100 are onnxruntime's; src/ortolan/catalog/errors.py is the source, a test compares.
#pragma once

#include "core/base.h"

namespace ortolan {

enum class [[nodiscard]] Status : int32_t {
  kOk = 0,
  kFail = 1,
  kInvalidArgument = 2,
  kNoSuchFile = 3,
  kNoModel = 4,
  kNotImplemented = 9,
  kInvalidGraph = 10,
  kOutOfMemory = 100,
  kLimitExceeded = 101,
  kCancelled = 102,
  kInvalidFormat = 103,
};

#define ORTOLAN_TRY(expression)                                                 \
  do {                                                                          \
    if (::ortolan::Status status_ = (expression); status_ != ::ortolan::Status::kOk) \
      return status_;                                                           \
  } while (false)

// One piece of a message: text, a number, or a list of numbers.
struct Part {
  enum Kind : uint8_t { kText, kNumber, kNumbers } kind;
  union {
    String text;
    int64_t number;
    Span<const int64_t> numbers;
  };
  Part(String value) : kind(kText), text(value) {}
  template <size_t N>
  Part(const char (&literal)[N]) : kind(kText), text(literal, N - 1) {}
  Part(int64_t value) : kind(kNumber), number(value) {}
  Part(int value) : kind(kNumber), number(value) {}
  Part(uint32_t value) : kind(kNumber), number(value) {}
#if !defined(__wasm__)
  Part(size_t value) : kind(kNumber), number(static_cast<int64_t>(value)) {}
#else
  Part(unsigned long value) : kind(kNumber), number(static_cast<int64_t>(value)) {}
#endif
  Part(Span<const int64_t> value) : kind(kNumbers), numbers(value) {}
};

// Keeps the newest message, cut at its capacity. Always zero-terminated.
class ErrorText {
 public:
  void clear() { length_ = 0, text_[0] = 0; }
  void append(const Part& part);
  void append(Span<const Part> parts) {
    for (const Part& part : parts) append(part);
  }
  const char* text() const { return text_; }
  size_t length() const { return length_; }

 private:
  void put(char c) {
    if (length_ + 1 < sizeof(text_)) text_[length_++] = c, text_[length_] = 0;
  }
  void put_number(int64_t value);

  size_t length_ = 0;
  char text_[1024] = {};
};

// Sets the text and hands the code back: `return fail(error, Status::kX, "what ", n, " where")`.
template <class... Parts>
Status fail(ErrorText& error, Status code, const Parts&... parts) {
  const Part list[] = {Part(parts)...};
  error.clear();
  error.append(Span<const Part>{list, sizeof...(parts)});
  return code;
}

}  // namespace ortolan
