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

  template <class T>
  T* make() {
    void* memory = allocate(sizeof(T), max<size_t>(alignof(T), 8));
    return memory ? new (memory, Placement{}) T() : nullptr;
  }
  template <class T>
  Span<T> array(size_t n) {
    size_t bytes;
    if (__builtin_mul_overflow(n, sizeof(T), &bytes)) return {};
    T* items = static_cast<T*>(allocate(bytes, max<size_t>(alignof(T), 8)));
    if (!items) return {};
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

  Allocator allocator_;
  Chunk* chunks_ = nullptr;
  char* cursor_ = nullptr;
  char* limit_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace ortolan

inline void* operator new(size_t, void* memory, ortolan::Zone::Placement) noexcept {
  return memory;
}

namespace ortolan {

// A list of trivially copyable items that grows; push answers false when memory is out.
template <class T>
class List {
 public:
  explicit List(const Allocator& allocator) : allocator_(allocator) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() { allocator_.put(items_, capacity_ * sizeof(T)); }

  [[nodiscard]] bool push(const T& item) {
    if (size_ == capacity_ && !reserve(size_ ? size_ * 2 : 16)) return false;
    items_[size_++] = item;
    return true;
  }
  [[nodiscard]] bool resize(size_t n, const T& fill = T()) {
    if (n > capacity_ && !reserve(n)) return false;
    for (size_t i = size_; i < n; ++i) items_[i] = fill;
    size_ = n;
    return true;
  }
  [[nodiscard]] bool reserve(size_t n) {
    if (n <= capacity_) return true;
    size_t bytes;
    if (__builtin_mul_overflow(n, sizeof(T), &bytes)) return false;
    T* items = static_cast<T*>(allocator_.get(bytes));
    if (!items) return false;
    if (size_) copy(items, items_, size_ * sizeof(T));
    allocator_.put(items_, capacity_ * sizeof(T));
    items_ = items;
    capacity_ = n;
    return true;
  }
  T pop() { return items_[--size_]; }
  void clear() { size_ = 0; }
  void take_from(List& other) {
    swap(items_, other.items_);
    swap(size_, other.size_);
    swap(capacity_, other.capacity_);
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return items_[i]; }
  const T& operator[](size_t i) const { return items_[i]; }
  T* begin() { return items_; }
  T* end() { return items_ + size_; }
  const T* begin() const { return items_; }
  const T* end() const { return items_ + size_; }
  Span<T> span() const { return {items_, size_}; }

 private:
  Allocator allocator_;
  T* items_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace ortolan
