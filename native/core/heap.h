// The second region of a run: blocks whose size is known only while running. Reference counted,
// first fit over chunks; everything is given back at the end but one small chunk.
#pragma once

#include "core/context.h"

namespace ortolan {

class Heap {
 public:
  explicit Heap(const Allocator& allocator) : allocator_(allocator) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap() { trim(0); }

  // A block of `bytes` with one reference, aligned to kAlignment; null when memory is out.
  void* allocate(size_t bytes);
  static void retain(void* block) { ++header(block)->references; }
  static uint32_t references(void* block) { return header(block)->references; }
  // Also gives back what a container holds, when it goes.
  void release(void* block);
  // With empty items; null when memory is out.
  Container* make_container(size_t count);
  // Frees chunks without blocks, but keeps one of at most `keep` bytes.
  void trim(size_t keep);

  size_t peak() const { return peak_; }
  size_t live() const { return live_; }

 private:
  struct Chunk;
  struct Header {  // before every block; sizes count the header
    size_t size;
    Chunk* chunk;
    uint32_t references;  // 0: free
    bool is_container;
  };
  struct Chunk {
    Chunk* next;
    size_t bytes;  // all of it
    size_t used;   // bytes in blocks
    char* begin() { return reinterpret_cast<char*>(this) + kAlignment; }
    char* end() { return reinterpret_cast<char*>(this) + bytes; }
  };
  static_assert(sizeof(Header) <= kAlignment && sizeof(Chunk) <= kAlignment);

  static Header* header(void* block) {
    return reinterpret_cast<Header*>(static_cast<char*>(block) - kAlignment);
  }
  static Header* next(Header* h) {
    return reinterpret_cast<Header*>(reinterpret_cast<char*>(h) + h->size);
  }
  void* take(Chunk* chunk, size_t size);

  Allocator allocator_;
  Chunk* chunks_ = nullptr;
  size_t live_ = 0, peak_ = 0;
};

}  // namespace ortolan
