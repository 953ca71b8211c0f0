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

#define ORTOLAN_TRY(expression)                                                      \
  do {                                                                               \
    if (::ortolan::Status status_ = (expression); status_ != ::ortolan::Status::kOk) \
      return status_;                                                                \
  } while (false)

// FNV-1a folded to 16 bits; src/ortolan/build/messages.py computes the same.
constexpr uint16_t message_number(String text) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < text.size; ++i)
    hash = (hash ^ static_cast<uint8_t>(text.data[i])) * 16777619u;
  return static_cast<uint16_t>(hash ^ (hash >> 16));
}

// What a % in a message stands for: text, a number, or a list of numbers.
struct Part {
  static constexpr uint32_t kNumber = ~0u, kList = 1u << 31;
  union {
    const char* text;
    int64_t number;
    const int64_t* list;
  };
  uint32_t size;  // of a text; or kNumber; or kList and the entries of a list

  ORTOLAN_INLINE Part(String value) : text(value.data), size(static_cast<uint32_t>(value.size)) {}
  template <size_t N>
  ORTOLAN_INLINE Part(const char (&literal)[N]) : text(literal), size(N - 1) {}
  template <class T>
    requires(__is_integral(T))
  ORTOLAN_INLINE Part(T value) : number(static_cast<int64_t>(value)), size(kNumber) {}
  ORTOLAN_INLINE Part(Span<const int64_t> value)
      : list(value.data), size(kList | static_cast<uint32_t>(value.size)) {}
};

// The text of an error, with a % for each part. A build with messages as codes keeps only a number
// of it, which `ortolan explain` turns back into the text.
#if defined(ORTOLAN_MESSAGE_CODES)
struct Message {
  uint16_t number;
  template <size_t N>
  consteval Message(const char (&text)[N]) : number(message_number({text, N - 1})) {}
};
#else
using Message = const char*;
#endif

// Keeps the newest message, cut at its capacity. Always zero-terminated.
class ErrorText {
 public:
  void clear() { length_ = 0, text_[0] = 0; }
  void append(String text);
  void append(const Part& part);
  // Replaces each % of the format by the next part; parts that are left over follow.
  void append(const char* format, const Part* parts, size_t count);
  const char* text() const { return text_; }
  size_t length() const { return length_; }

 private:
  void put(char c) {
    if (length_ + 1 < sizeof(text_)) text_[length_++] = c, text_[length_] = 0;
  }
  void put_number(int64_t value);

  size_t length_ = 0;
  char text_[2048] = {};
};

#if defined(ORTOLAN_MESSAGE_CODES)
Status fail_number(ErrorText& error, Status code, uint32_t number);
#else
Status fail_parts(ErrorText& error, Status code, const char* format, const Part* parts,
                  size_t count);
#endif

// Sets the text and hands the code back: `return fail(error, Status::kX, "what % where", n)`.
// Always inlined: call sites differ in types, and what they share is in fail_parts.
template <class... Parts>
ORTOLAN_INLINE Status fail(ErrorText& error, Status code, Message format,
                           [[maybe_unused]] const Parts&... parts) {
#if defined(ORTOLAN_MESSAGE_CODES)
  return fail_number(error, code, format.number);
#else
  const Part list[sizeof...(parts) + 1] = {Part(parts)..., Part(0)};
  return fail_parts(error, code, format, list, sizeof...(parts));
#endif
}

}  // namespace ortolan
