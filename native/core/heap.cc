#include "core/heap.h"

#include "core/poison.h"

namespace ortolan {

namespace {
constexpr size_t kChunk = 64 * 1024;

void* unpoisoned(void* block, size_t bytes) {
  unpoison(block, bytes);
  return block;
}
}  // namespace

void* Heap::take(Chunk* chunk, size_t size) {
  if (chunk->bytes - kAlignment - chunk->used < size) return nullptr;
  for (auto* h = reinterpret_cast<Header*>(chunk->begin());
       reinterpret_cast<char*>(h) < chunk->end(); h = next(h)) {
    if (h->references) continue;
    // Merge with the free blocks behind; cheaper than keeping them merged.
    for (Header* n = next(h); reinterpret_cast<char*>(n) < chunk->end() && !n->references;
         n = next(h))
      h->size += n->size;
    if (h->size < size) continue;
    if (h->size > size) {
      size_t rest = h->size - size;
      h->size = size;
      unpoison(next(h), sizeof(Header));
      *next(h) = {rest, chunk, 0};
    }
    h->references = 1;
    h->chunk = chunk;
    chunk->used += size;
    live_ += size;
    peak_ = max(peak_, live_);
    return reinterpret_cast<char*>(h) + kAlignment;
  }
  return nullptr;
}

void* Heap::allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  size_t size = kAlignment + round_up(max<size_t>(bytes, 1), kAlignment);
  for (Chunk* chunk = chunks_; chunk; chunk = chunk->next)
    if (void* block = take(chunk, size)) return unpoisoned(block, bytes);
  size_t need = max(kChunk, size + kAlignment);
  auto* chunk = static_cast<Chunk*>(allocator_.get(need));
  if (!chunk) return nullptr;
  *chunk = {chunks_, need, 0};
  *reinterpret_cast<Header*>(chunk->begin()) = {need - kAlignment, chunk, 0};
  poison(chunk->begin() + kAlignment, need - 2 * kAlignment);
  chunks_ = chunk;
  return unpoisoned(take(chunk, size), bytes);
}

void Heap::release(void* block) {
  Header* h = header(block);
  if (--h->references) return;
  h->chunk->used -= h->size;
  live_ -= h->size;
  poison(block, h->size - kAlignment);
}

void Heap::trim(size_t keep) {
  for (Chunk** link = &chunks_; *link;) {
    Chunk* chunk = *link;
    if (chunk->used || chunk->bytes <= keep) {
      keep = chunk->used ? keep : 0;
      link = &chunk->next;
      continue;
    }
    *link = chunk->next;
    unpoison(chunk, chunk->bytes);
    allocator_.put(chunk, chunk->bytes);
  }
}

}  // namespace ortolan
