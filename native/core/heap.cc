#include "core/heap.h"

#include "core/poison.h"
#include "ortolan_features.h"

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
      *next(h) = {rest, chunk, 0, false};
    }
    h->references = 1;
    h->is_container = false;
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
  *reinterpret_cast<Header*>(chunk->begin()) = {need - kAlignment, chunk, 0, false};
  poison(chunk->begin() + kAlignment, need - 2 * kAlignment);
  chunks_ = chunk;
  return unpoisoned(take(chunk, size), bytes);
}

void Heap::release(void* block) {
  Header* h = header(block);
  if (--h->references) return;
  if (kHasContainers && h->is_container) {  // containers nest as deep as types do
    auto* container = static_cast<Container*>(block);
    for (size_t i = 0; i < container->count; ++i)
      if (void* held = container->items()[i].block) release(held);
  }
  h->chunk->used -= h->size;
  live_ -= h->size;
  poison(block, h->size - kAlignment);
}

Container* Heap::make_container(size_t count) {
  size_t bytes;
  if (__builtin_mul_overflow(count, sizeof(Item), &bytes)) return nullptr;
  auto* container = static_cast<Container*>(allocate(sizeof(Container) + bytes));
  if (!container) return nullptr;
  container->count = count;
  for (size_t i = 0; i < count; ++i) container->items()[i] = Item();
  header(container)->is_container = true;
  return container;
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
