// probe.cc for Windows, or what stands in for it: `probe LIBRARY MODEL FEEDS RESULTS`. Over
// kernel32 alone, so that it takes no C library to link it.
#include "platform/windows.cc"

#include "tools/probe_model.h"

ORTOLAN_IMPORT Handle __stdcall LoadLibraryA(const char* path);
ORTOLAN_IMPORT void* __stdcall GetProcAddress(Handle library, const char* name);
ORTOLAN_IMPORT Handle __stdcall CreateFileA(const char* path, uint32_t access, uint32_t share,
                                            void* security, uint32_t creation, uint32_t flags,
                                            Handle like);
ORTOLAN_IMPORT int __stdcall WriteFile(Handle file, const void* data, uint32_t bytes,
                                       uint32_t* written, void* overlapped);
ORTOLAN_IMPORT Handle __stdcall GetStdHandle(uint32_t number);
ORTOLAN_IMPORT char* __stdcall GetCommandLineA();
ORTOLAN_IMPORT [[noreturn]] void __stdcall ExitProcess(uint32_t code);

namespace {

using namespace ortolan;

void write(Handle file, const void* data, size_t bytes) {
  uint32_t written = 0;
  for (auto* from = static_cast<const char*>(data); bytes; from += written, bytes -= written)
    if (!WriteFile(file, from, static_cast<uint32_t>(bytes), &written, nullptr)) ExitProcess(98);
}
[[noreturn]] void give_up(String text) {
  constexpr uint32_t kErrors = 0xfffffff4;
  write(GetStdHandle(kErrors), text.data, text.size);
  ExitProcess(99);
}

struct Library {
  Handle handle;
  template <class Function>
  Function* find(const char* name) const {
    auto* found = reinterpret_cast<Function*>(GetProcAddress(handle, name));
    if (!found) give_up("the library lacks a function of the C interface\n");
    return found;
  }
};

struct Results {
  Handle file;
  void put(const void* data, size_t bytes) { write(file, data, bytes); }
};

const uint8_t* read_file(const char* path, size_t* size) {
  platform::Mapping mapping;
  int reason = 0;
  if (!platform::map_file(path, &mapping, &reason)) give_up("a file cannot be read\n");
  *size = mapping.size;
  return mapping.data;
}

// Cuts a command line into at most five words, which may stand in quotes.
size_t split(char* line, char* (&words)[5]) {
  size_t count = 0;
  while (*line && count < 5) {
    while (*line == ' ') ++line;
    if (!*line) break;
    const char end = *line == '"' ? '"' : ' ';
    if (end == '"') ++line;
    words[count++] = line;
    while (*line && *line != end) ++line;
    if (*line) *line++ = 0;
  }
  return count;
}

}  // namespace

extern "C" [[noreturn, gnu::used]] void start_probe() {
  constexpr uint32_t kWrite = 0x40000000, kCreate = 2;
  char* words[5] = {};
  if (split(GetCommandLineA(), words) != 5) give_up("probe LIBRARY MODEL FEEDS RESULTS\n");
  const Library library = {LoadLibraryA(words[1])};
  if (!library.handle) give_up("the library cannot be loaded\n");
  Results results = {CreateFileA(words[4], kWrite, 0, nullptr, kCreate, 0, nullptr)};
  size_t size = 0, feed_size = 0;
  const uint8_t* model = read_file(words[2], &size);
  const uint8_t* feeds = read_file(words[3], &feed_size);
  probing::run_model(library, model, size, feeds, results);
  ExitProcess(0);
}
