// A program without a C library that loads a built libortolan.so by itself, runs a model on given
// inputs and writes what came out: `probe LIBRARY MODEL FEEDS RESULTS`. It lets a build be tried on
// this machine or under an emulator without the system that it is for. FEEDS and RESULTS are as
// src/ortolan/build/verify.py writes and reads them.
#include "platform/linux.cc"

#include "tools/probe_model.h"

namespace {

using namespace ortolan;

#if defined(__x86_64__)
constexpr long kExit = 231, kWrite = 1;
constexpr uint32_t kRelative = 8, kSlots[] = {1, 6, 7};
#elif defined(__aarch64__)
constexpr long kExit = 94, kWrite = 64;
constexpr uint32_t kRelative = 1027, kSlots[] = {257, 1025, 1026};
#elif defined(__arm__)
constexpr long kExit = 248, kWrite = 4;
constexpr uint32_t kRelative = 23, kSlots[] = {2, 21, 22};
#else
constexpr long kExit = 252, kWrite = 4;
constexpr uint32_t kRelative = 8, kSlots[] = {1, 6, 7};
#endif

using Word = uintptr_t;
constexpr bool kWide = sizeof(Word) == 8;

[[noreturn]] void leave(int code) {
  platform::call(kExit, code);
  for (;;) {
  }
}
[[noreturn]] void give_up(String text) {
  platform::call(kWrite, 2, reinterpret_cast<long>(text.data), static_cast<long>(text.size));
  leave(99);
}

char* map_memory(size_t bytes, long protection) {
  constexpr long kPrivate = 2, kAnonymous = 32;
  long at = platform::call(platform::kMmap, 0, static_cast<long>(bytes), protection,
                           kPrivate | kAnonymous, -1, 0);
  if (at < 0 && at > -4096) give_up("memory is out\n");
  return reinterpret_cast<char*>(at);
}

bool same(const char* a, const char* b) { return from_c(a) == from_c(b); }

}  // namespace

// What the library asks of its system.
extern "C" {
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  static char *next = nullptr, *end = nullptr;
  (void)alignment;  // kAlignment, always
  bytes = round_up(bytes, kAlignment);
  if (static_cast<size_t>(end - next) < bytes) {
    size_t chunk = max<size_t>(bytes, size_t{64} << 20);
    next = map_memory(chunk, 3);
    end = next + chunk;
  }
  *memory = next;
  next += bytes;
  return 0;
}
void free(void*) {}
int pthread_create(unsigned long*, const void*, void* (*)(void*), void*) { return 11; }
int pthread_detach(unsigned long) { return 0; }
int pthread_atfork(void (*)(), void (*)(), void (*)()) { return 0; }
}

namespace {

struct Elf {
  uint8_t ident[16];
  uint16_t type, machine;
  uint32_t version;
  Word entry, programs, sections;
  uint32_t flags;
  uint16_t size, program_size, program_count;
};
struct Program32 {
  uint32_t type, offset, address, physical, in_file, in_memory, flags, align;
};
struct Program64 {
  uint32_t type, flags;
  uint64_t offset, address, physical, in_file, in_memory, align;
};
struct Symbol32 {
  uint32_t name, value, size;
  uint8_t info, other;
  uint16_t section;
};
struct Symbol64 {
  uint32_t name;
  uint8_t info, other;
  uint16_t section;
  uint64_t value, size;
};
template <bool Wide>
struct Forms {
  using Program = Program32;
  using Symbol = Symbol32;
};
template <>
struct Forms<true> {
  using Program = Program64;
  using Symbol = Symbol64;
};
using Program = Forms<kWide>::Program;
using Symbol = Forms<kWide>::Symbol;

class Library {
 public:
  explicit Library(const uint8_t* file) {
    const Elf& elf = *reinterpret_cast<const Elf*>(file);
    auto* programs = reinterpret_cast<const Program*>(file + elf.programs);
    size_t span = 0;
    for (size_t i = 0; i < elf.program_count; ++i)
      if (programs[i].type == kLoad)
        span = max<size_t>(span, programs[i].address + programs[i].in_memory);
    base_ = map_memory(span, 7);
    Word dynamic = 0;
    for (size_t i = 0; i < elf.program_count; ++i) {
      const Program& p = programs[i];
      if (p.type == kLoad) copy(base_ + p.address, file + p.offset, p.in_file);
      if (p.type == kDynamic) dynamic = p.address;
    }
    auto* entry = reinterpret_cast<const Word*>(base_ + dynamic);
    for (; entry[0]; entry += 2)
      if (entry[0] < kTags) tags_[entry[0]] = entry[1];
    symbols_ = reinterpret_cast<const Symbol*>(base_ + tags_[kSymbols]);
    names_ = base_ + tags_[kNames];
    relocate(tags_[kRela], tags_[kRelaSize], true);
    relocate(tags_[kRel], tags_[kRelSize], false);
    relocate(tags_[kPlt], tags_[kPltSize], tags_[kPltKind] == kRela);
    flush_code(span);
  }

  template <class Function>
  Function* find(const char* name) const {
    auto* hash = reinterpret_cast<const uint32_t*>(base_ + tags_[kHash]);
    for (uint32_t i = 1; i < hash[1]; ++i)
      if (symbols_[i].section && same(names_ + symbols_[i].name, name))
        return reinterpret_cast<Function*>(base_ + symbols_[i].value);
    give_up("the library lacks a function of the C interface\n");
  }

 private:
  static constexpr uint32_t kLoad = 1, kDynamic = 2, kTags = 32;
  enum Tag {
    kPltSize = 2,
    kHash = 4,
    kNames = 5,
    kSymbols = 6,
    kRela = 7,
    kRelaSize = 8,
    kRel = 17,
    kRelSize = 18,
    kPltKind = 20,
    kPlt = 23,
  };

  Word resolve(const Symbol& symbol) const {
    if (symbol.section) return reinterpret_cast<Word>(base_ + symbol.value);
    const char* name = names_ + symbol.name;
    if (same(name, "posix_memalign")) return reinterpret_cast<Word>(&::posix_memalign);
    if (same(name, "free")) return reinterpret_cast<Word>(&::free);
    if (same(name, "pthread_create")) return reinterpret_cast<Word>(&::pthread_create);
    if (same(name, "pthread_detach")) return reinterpret_cast<Word>(&::pthread_detach);
    if (same(name, "pthread_atfork")) return reinterpret_cast<Word>(&::pthread_atfork);
    if (symbol.info >> 4 == 2) return 0;  // weak
    give_up("the library needs a function that it must not need\n");
  }

  void relocate(Word at, size_t bytes, bool has_addend) {
    auto* entry = reinterpret_cast<const Word*>(base_ + at);
    for (size_t i = 0; i < bytes / sizeof(Word); i += has_addend ? 3 : 2) {
      Word& place = *reinterpret_cast<Word*>(base_ + entry[i]);
      uint32_t kind =
          static_cast<uint32_t>(kWide ? entry[i + 1] & 0xffffffff : entry[i + 1] & 0xff);
      size_t symbol =
          static_cast<size_t>(kWide ? entry[i + 1] >> (kWide ? 32 : 0) : entry[i + 1] >> 8);
      Word addend = has_addend ? entry[i + 2] : kind == kSlots[1] || kind == kSlots[2] ? 0 : place;
      if (kind == kRelative)
        place = reinterpret_cast<Word>(base_) + addend;
      else if (kind == kSlots[0] || kind == kSlots[1] || kind == kSlots[2])
        place = resolve(symbols_[symbol]) + addend;
      else
        give_up("the library has a relocation of an unknown kind\n");
    }
  }

  void flush_code([[maybe_unused]] size_t bytes) const {
#if defined(__aarch64__)
    for (size_t i = 0; i < bytes; i += 4)
      __asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic ivau, %0" : : "r"(base_ + i) : "memory");
    __asm__ volatile("dsb ish\n\tisb" : : : "memory");
#elif defined(__arm__)
    platform::call(0xf0002, reinterpret_cast<long>(base_), reinterpret_cast<long>(base_ + bytes));
#endif
  }

  char* base_ = nullptr;
  const Symbol* symbols_ = nullptr;
  const char* names_ = nullptr;
  Word tags_[kTags] = {};
};

class Results {
 public:
  explicit Results(const char* path) {
    constexpr long kHere = -100, kCreate = 01101;
    file_ = platform::call(platform::kOpenat, kHere, reinterpret_cast<long>(path), kCreate, 0644);
    if (file_ < 0) give_up("the results cannot be written\n");
  }
  void put(const void* data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
      long n = platform::call(kWrite, file_,
                              reinterpret_cast<long>(static_cast<const char*>(data) + done),
                              static_cast<long>(bytes - done));
      if (n <= 0) give_up("the results cannot be written\n");
      done += static_cast<size_t>(n);
    }
  }

 private:
  long file_ = -1;
};

const uint8_t* read_file(const char* path, size_t* size) {
  platform::Mapping mapping;
  int reason = 0;
  if (!platform::map_file(path, &mapping, &reason)) give_up("a file cannot be read\n");
  *size = mapping.size;
  return mapping.data;
}

void probe(char** arguments) {
  size_t size = 0, feed_size = 0;
  Library library(read_file(arguments[1], &size));
  const uint8_t* model = read_file(arguments[2], &size);
  const uint8_t* feeds = read_file(arguments[3], &feed_size);
  Results results(arguments[4]);
  probing::run_model(library, model, size, feeds, results);
}

}  // namespace

extern "C" [[noreturn, gnu::used]] void start_probe(char** stack) {
  if (*reinterpret_cast<Word*>(stack) != 5) give_up("probe LIBRARY MODEL FEEDS RESULTS\n");
  probe(stack + 1);
  leave(0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start_probe\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tbl start_probe\n");
#elif defined(__arm__)
__asm__(".arm\n.globl _start\n_start:\n\tmov r0, sp\n\tbl start_probe\n");
#else
__asm__(
    ".globl _start\n_start:\n\tmov %esp, %eax\n\tand $-16, %esp\n\tsub $12, %esp\n\tpush %eax\n\t"
    "call start_probe\n");
#endif
