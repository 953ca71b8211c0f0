// Memory of the runtime: the allocation hooks, a zone that is freed at once, a growing list.
// Every allocation may fail; nothing here aborts.
#pragma once

#include "core/base.h"

namespace ortolan {

constexpr size_t kAlignment = 64;

// Where all memory comes from: the caller's hooks or the platform. `allocate` answers memory
// aligned to kAlignment, or null.
struct Allocator {
  void* user = nullptr;
  void* (*allocate)(void* user, size_t bytes) = nullptr;
  void (*release)(void* user, void* memory, size_t bytes) = nullptr;

  void* get(size_t bytes) const { return allocate(user, bytes); }
  void put(void* memory, size_t bytes) const {
    if (memory) release(user, memory, bytes);
  }
};

// Hands memory of another allocator on, up to a limit. Stays where it is while it is used.
struct Budget {
  explicit Budget(const Allocator& from) : from(from) {}
  Budget(const Budget&) = delete;  // lists point at its allocator
  Budget& operator=(const Budget&) = delete;

  const Allocator& allocator() const { return counted_; }
  // Counts bytes that come from elsewhere; false when they are too many.
  bool take(size_t bytes) {
    bool fits = used <= limit && bytes <= limit - used;
    fits ? used += bytes : refused = bytes;
    return fits;
  }
  void give(size_t bytes) { used -= bytes; }

  Allocator from;
  size_t limit = SIZE_MAX;
  size_t used = 0;
  size_t refused = 0;  // the request that was beyond the limit, 0: none was

 private:
  static void* get(void* user, size_t bytes);
  static void put(void* user, void* memory, size_t bytes);

  Allocator counted_ = {this, get, put};
};

// Bump allocation in chunks; everything is freed together.
class Zone {
 public:
  explicit Zone(const Allocator& allocator) : allocator_(allocator) {}
  Zone(const Zone&) = delete;
  Zone& operator=(const Zone&) = delete;
  ~Zone() { reset(); }

  // `bytes` of zeroed memory, or null. Small pieces share chunks, large ones have their own.
  void* allocate(size_t bytes, size_t alignment = 16);
  // The same, but what is large is not zeroed: for what is written at once. Aligned to kAlignment.
  void* allocate_raw(size_t bytes);
  // The same for pieces of which `expect` said about how many bytes are still to come: they share
  // memory made of whole large pages, where the system has them, and are not given back alone.
  void* allocate_shared(size_t bytes);
  void expect(uint64_t bytes) { expected_ = bytes; }
  // There will be no more of them: what is left is the system's.
  void end_shared();
  bool owns(const void* place) const;
  // Gives a large piece back before the rest; false where it is none of the zone's own.
  bool release(const void* piece);

  template <class T>
  T* make() {
    void* memory = allocate(sizeof(T), max<size_t>(alignof(T), 8));
    return memory ? new (memory, Placement{}) T() : nullptr;
  }
  // The same into *place; false when memory is out.
  template <class T>
  [[nodiscard]] bool array(size_t n, Span<T>* place) {
    if (!make_span(n, sizeof(T), place)) return false;
    if constexpr (!starts_zero<T>)
      for (T& item : *place) new (&item, Placement{}) T();
    return true;
  }
  template <class T>
  Span<T> array(size_t n) {
    T* items = static_cast<T*>(allocate_many(n, sizeof(T)));
    if (!items) return {};
    if constexpr (!starts_zero<T>)
      for (size_t i = 0; i < n; ++i) new (items + i, Placement{}) T();
    return {items, n};
  }

  void reset();
  size_t bytes() const { return bytes_; }
  const Allocator& allocator() const { return allocator_; }

  struct Placement {};

 private:
  struct Chunk {
    Chunk* next;
    size_t bytes;
  };

  void* take(size_t bytes, size_t alignment, bool zeroed);
  void* allocate_many(size_t count, size_t bytes);
  bool make_span(size_t count, size_t bytes, void* span);

  Allocator allocator_;
  Chunk* chunks_ = nullptr;
  char* cursor_ = nullptr;
  char* limit_ = nullptr;
  char* shared_ = nullptr;
  size_t shared_left_ = 0;
  uint64_t expected_ = 0;
  size_t bytes_ = 0;
};

}  // namespace ortolan

inline void* operator new(size_t, void* memory, ortolan::Zone::Placement) noexcept {
  return memory;
}

namespace ortolan {

// What lists of all types share: `item` is the size of one.
class ListBase {
 public:
  ListBase(const ListBase&) = delete;
  ListBase& operator=(const ListBase&) = delete;

  void clear() { size_ = 0; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const void* bytes() const { return items_; }

 protected:
  explicit ListBase(const Allocator& allocator) : allocator_(&allocator) {}
  void free(size_t item);
  bool reserve(size_t n, size_t item);
  bool push(const void* from, size_t item);
  bool resize(size_t n, const void* fill, size_t item);

  const Allocator* allocator_;
  void* items_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// A list of trivially copyable items that grows; push answers false when memory is out. The
// allocator outlives it.
template <class T>
class List : public ListBase {
 public:
  explicit List(const Allocator& allocator) : ListBase(allocator) {}
  ~List() { free(sizeof(T)); }

  [[nodiscard]] bool push(const T& item) { return ListBase::push(&item, sizeof(T)); }
  [[nodiscard]] bool resize(size_t n, const T& fill = T()) {
    return ListBase::resize(n, &fill, sizeof(T));
  }
  [[nodiscard]] bool reserve(size_t n) { return ListBase::reserve(n, sizeof(T)); }
  T pop() { return begin()[--size_]; }
  void take_from(List& other) {
    swap(items_, other.items_);
    swap(size_, other.size_);
    swap(capacity_, other.capacity_);
  }

  T& operator[](size_t i) { return begin()[i]; }
  const T& operator[](size_t i) const { return begin()[i]; }
  T* begin() { return static_cast<T*>(items_); }
  T* end() { return begin() + size_; }
  const T* begin() const { return static_cast<const T*>(items_); }
  const T* end() const { return begin() + size_; }
  Span<T> span() const { return {static_cast<T*>(items_), size_}; }
};

}  // namespace ortolan
