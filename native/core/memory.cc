#include "core/memory.h"

#include "core/platform.h"
#include "core/poison.h"

namespace ortolan {

bool same_text(const char* a, size_t a_size, const char* b, size_t b_size) {
  if (a_size != b_size) return false;
  for (size_t i = 0; i < a_size; ++i)
    if (a[i] != b[i]) return false;
  return true;
}

String from_c(const char* text) {
  size_t n = 0;
  while (text && text[n]) ++n;
  return {text, n};
}

String nth_word(const char* words, size_t n) {
  String word = from_c(words);
  while (n--) word = from_c(word.data + word.size + 1);
  return word;
}

size_t find_word(const char* words, String text) {
  size_t n = 0;
  for (String word = from_c(words); word.size; word = from_c(word.data + word.size + 1), ++n)
    if (word == text) break;
  return n;
}

namespace {
#if defined(ORTOLAN_POISON) || defined(ORTOLAN_ASAN)
constexpr size_t kChunk = 0, kLargePage = 0;  // every piece has a chunk of its own
#else
constexpr size_t kChunk = 16 * 1024, kLargePage = platform::kLargePage;
#endif
constexpr size_t kHeader = kAlignment;
}  // namespace

void* Budget::get(void* user, size_t bytes) {
  auto* budget = static_cast<Budget*>(user);
  if (!budget->take(bytes)) return nullptr;
  void* memory = budget->from.get(bytes);
  if (!memory) budget->give(bytes);
  return memory;
}

void Budget::put(void* user, void* memory, size_t bytes) {
  auto* budget = static_cast<Budget*>(user);
  budget->give(bytes);
  budget->from.put(memory, bytes);
}

void* Zone::allocate(size_t bytes, size_t alignment) { return take(bytes, alignment, true); }
void* Zone::allocate_raw(size_t bytes) { return take(max<size_t>(bytes, 1), kAlignment, false); }

void* Zone::allocate_shared(size_t bytes) {
  constexpr uint64_t kMost = 16 * 1024 * 1024;  // what is larger has large pages by itself
  if (!kLargePage || bytes > kMost) return allocate_raw(bytes);
  const size_t size = round_up(max<size_t>(bytes, 1), kAlignment);
  const auto whole = static_cast<size_t>(min(expected_, kMost)) & ~(kLargePage - 1);
  if (size > shared_left_ && whole > size + kHeader) {
    end_shared();
    shared_ = static_cast<char*>(allocate_raw(whole - kHeader));
    if (!shared_) return nullptr;
    shared_left_ = whole - kHeader;
  }
  if (size > shared_left_) return allocate_raw(bytes);
  char* piece = shared_;
  shared_ += size;
  shared_left_ -= size;
  return piece;
}

void Zone::end_shared() {
  if constexpr (kLargePage > 0) platform::discard(shared_, shared_left_);
  shared_ = nullptr;
  shared_left_ = 0;
}

void* Zone::allocate_many(size_t count, size_t bytes) {
  size_t total;
  return __builtin_mul_overflow(count, bytes, &total) ? nullptr : allocate(total);
}

bool Zone::make_span(size_t count, size_t bytes, void* span) {
  char* items = static_cast<char*>(allocate_many(count, bytes));
  const Span<char> made = {items, items ? count : 0};
  copy(span, &made, sizeof(made));  // spans of all types are alike
  return items != nullptr;
}

void* Zone::take(size_t bytes, size_t alignment, bool zeroed) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  size_t at = round_up(reinterpret_cast<uintptr_t>(cursor_), alignment);
  if (cursor_ && at <= reinterpret_cast<uintptr_t>(limit_) &&
      bytes <= reinterpret_cast<uintptr_t>(limit_) - at) {
    cursor_ = reinterpret_cast<char*>(at + bytes);
    return reinterpret_cast<void*>(at);
  }
  bool own = bytes > kChunk / 4;
  size_t size = kHeader + (own ? round_up(bytes, kAlignment) : kChunk);
  char* memory = static_cast<char*>(allocator_.get(size));
  if (!memory) return nullptr;
  if (zeroed || !own) fill_zero(memory, size);
  Chunk* chunk = reinterpret_cast<Chunk*>(memory);
  *chunk = {chunks_, size};
  chunks_ = chunk;
  bytes_ += size;
  if (own) {
    poison(memory + kHeader + bytes, size - kHeader - bytes);
    return memory + kHeader;
  }
  cursor_ = memory + kHeader + bytes;
  limit_ = memory + size;
  return memory + kHeader;
}

bool Zone::owns(const void* place) const {
  const auto at = reinterpret_cast<uintptr_t>(place);
  for (const Chunk* chunk = chunks_; chunk; chunk = chunk->next)
    if (at - reinterpret_cast<uintptr_t>(chunk) < chunk->bytes) return true;
  return false;
}

bool Zone::release(const void* piece) {
  for (Chunk** link = &chunks_; *link; link = &(*link)->next) {
    Chunk* chunk = *link;
    if (reinterpret_cast<char*>(chunk) + kHeader != piece) continue;
    if (chunk->bytes == kHeader + kChunk) return false;  // small pieces may share it
    *link = chunk->next;
    bytes_ -= chunk->bytes;
    unpoison(chunk, chunk->bytes);
    allocator_.put(chunk, chunk->bytes);
    return true;
  }
  return false;
}

void Zone::reset() {
  while (chunks_) {
    Chunk* next = chunks_->next;
    unpoison(chunks_, chunks_->bytes);
    allocator_.put(chunks_, chunks_->bytes);
    chunks_ = next;
  }
  cursor_ = limit_ = shared_ = nullptr;
  bytes_ = shared_left_ = 0;
}

void ListBase::free(size_t item) { allocator_->put(items_, capacity_ * item); }

bool ListBase::reserve(size_t n, size_t item) {
  if (n <= capacity_) return true;
  size_t bytes;
  if (__builtin_mul_overflow(n, item, &bytes)) return false;
  void* items = allocator_->get(bytes);
  if (!items) return false;
  if (size_) copy(items, items_, size_ * item);
  free(item);
  items_ = items;
  capacity_ = n;
  return true;
}

bool ListBase::push(const void* from, size_t item) {
  if (size_ == capacity_ && !reserve(size_ ? size_ * 2 : 16, item)) return false;
  copy(static_cast<char*>(items_) + size_++ * item, from, item);
  return true;
}

bool ListBase::resize(size_t n, const void* fill, size_t item) {
  if (!reserve(n, item)) return false;
  for (; size_ < n; ++size_) copy(static_cast<char*>(items_) + size_ * item, fill, item);
  size_ = n;
  return true;
}

}  // namespace ortolan

#if !defined(__wasm_bulk_memory__)
namespace {
struct [[gnu::packed, gnu::may_alias]] Half {
  uint32_t bits;
};
struct [[gnu::packed, gnu::may_alias]] Word {
  uint64_t bits;
};
struct [[gnu::packed, gnu::may_alias]] Pair {
  uint64_t low, high;
};

// Word by word: a 32-bit compiler turns larger assignments into calls of memcpy, which this is.
ORTOLAN_INLINE void copy_pair(char* to, const char* from) {
  Word low = *reinterpret_cast<const Word*>(from), high = *reinterpret_cast<const Word*>(from + 8);
  *reinterpret_cast<Word*>(to) = low;
  *reinterpret_cast<Word*>(to + 8) = high;
}

// Both ends, which overlap in the middle.
template <class T>
ORTOLAN_INLINE void move_ends(char* to, const char* from, size_t bytes) {
  T head = *reinterpret_cast<const T*>(from);
  T tail = *reinterpret_cast<const T*>(from + bytes - sizeof(T));
  *reinterpret_cast<T*>(to) = head;
  *reinterpret_cast<T*>(to + bytes - sizeof(T)) = tail;
}
}  // namespace
#endif

// The compiler may call these although nothing here asks for a C library; `no_builtin` keeps it
// from turning their loops into calls to themselves.
extern "C" {
#if !defined(__wasm_bulk_memory__)
[[gnu::weak, gnu::visibility("hidden"),
  clang::no_builtin]] void* memcpy(void* __restrict to, const void* __restrict from, size_t bytes) {
  char* d = static_cast<char*>(to);
  const char* s = static_cast<const char*>(from);
  if (bytes < 16) {
    if (bytes >= 8) {
      move_ends<Word>(d, s, bytes);
    } else if (bytes >= 4) {
      move_ends<Half>(d, s, bytes);
    } else if (bytes) {
      char middle = s[bytes / 2], last = s[bytes - 1];
      d[0] = s[0];
      d[bytes / 2] = middle;
      d[bytes - 1] = last;
    }
    return to;
  }
#if defined(__x86_64__)
  if (bytes >= 4096) {
    void* result = to;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(bytes) : : "memory");
    return result;
  }
#endif
  const char* end = s + bytes - 16;
  char* last = d + bytes - 16;
  Pair tail;
  copy_pair(reinterpret_cast<char*>(&tail), end);
  for (; s < end; s += 16, d += 16) copy_pair(d, s);
  copy_pair(last, reinterpret_cast<const char*>(&tail));
  return to;
}

[[gnu::weak, gnu::visibility("hidden"), clang::no_builtin]] void* memset(void* to, int value,
                                                                         size_t bytes) {
  char* d = static_cast<char*>(to);
#if defined(__x86_64__)
  if (bytes >= 4096) {
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(bytes) : "a"(value) : "memory");
    return to;
  }
#endif
  uint64_t byte = static_cast<uint8_t>(value), word = byte * 0x0101010101010101u;
  for (; bytes >= 8; bytes -= 8, d += 8) *reinterpret_cast<Word*>(d) = {word};
  while (bytes--) *d++ = static_cast<char>(value);
  return to;
}
#endif

[[gnu::weak, gnu::visibility("hidden"),
  clang::no_builtin]] void* memmove(void* to, const void* from, size_t bytes) {
  char* d = static_cast<char*>(to);
  const char* s = static_cast<const char*>(from);
  if (d <= s || d >= s + bytes) {
    for (; bytes >= 8 && d + 8 <= s; bytes -= 8, d += 8, s += 8) __builtin_memcpy(d, s, 8);
    while (bytes--) *d++ = *s++;
    return to;
  }
  while (bytes--) d[bytes] = s[bytes];
  return to;
}
}
