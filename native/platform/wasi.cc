// WASI: the clock, and files below the folders that the caller opened. There is no mapping: a file
// is read into memory.
#include "core/platform.h"
#include "platform/joined.h"

#define ORTOLAN_IMPORT(name) \
  [[clang::import_module("wasi_snapshot_preview1"), clang::import_name(name)]]
extern "C" {
ORTOLAN_IMPORT("clock_time_get")
int32_t wasi_clock(int32_t id, uint64_t precision, uint64_t* time);
ORTOLAN_IMPORT("fd_prestat_get") int32_t wasi_prestat(int32_t file, uint32_t* tag_and_length);
ORTOLAN_IMPORT("fd_prestat_dir_name")
int32_t wasi_prestat_name(int32_t file, char* name, size_t bytes);
ORTOLAN_IMPORT("path_open")
int32_t wasi_open(int32_t folder, int32_t lookup, const char* path, size_t bytes, int32_t flags,
                  uint64_t rights, uint64_t inherited, int32_t descriptor_flags, int32_t* file);
ORTOLAN_IMPORT("fd_filestat_get") int32_t wasi_status(int32_t file, uint64_t* words);
ORTOLAN_IMPORT("fd_read")
int32_t wasi_read(int32_t file, const void* pieces, size_t count, size_t* read);
ORTOLAN_IMPORT("fd_close") int32_t wasi_close(int32_t file);
}

namespace ortolan::platform {

namespace {

// WASI's numbers of errors.
constexpr int kNoAccess = 2, kInputOutput = 29, kNotFound = 44, kNoMemory = 48;

// As errno has them.
int reason_of(int32_t error) {
  return error == kNotFound ? 2 : error == kNoAccess ? 13 : error == kNoMemory ? 12 : error ? 5 : 0;
}

// A path below an opened folder of this name; the rest of the path, or null.
const char* below(const char* path, String folder) {
  while (folder.size && folder.data[folder.size - 1] == '/') --folder.size;
  if (folder == String(".")) return path[0] == '/' ? nullptr : path;
  String whole = from_c(path);
  if (whole.size <= folder.size || !(String(path, folder.size) == folder)) return nullptr;
  return path[folder.size] == '/' ? path + folder.size + 1 : nullptr;
}

int32_t open_below_any(const char* path, int32_t* file) {
  constexpr int32_t kFirst = 3, kFollow = 1;
  constexpr uint64_t kRights = 1 << 1 | 1 << 2 | 1 << 21;  // read, seek, status
  int32_t result = kNotFound;
  for (int32_t folder = kFirst;; ++folder) {
    uint32_t prestat[2];
    char name[1024];
    if (wasi_prestat(folder, prestat) != 0) return result;  // they follow each other
    if (prestat[0] != 0 || prestat[1] > sizeof(name)) continue;
    if (wasi_prestat_name(folder, name, prestat[1]) != 0) continue;
    const char* rest = below(path, {name, prestat[1]});
    if (!rest) continue;
    result = wasi_open(folder, kFollow, rest, from_c(rest).size, 0, kRights, 0, 0, file);
    if (result == 0) return 0;
  }
}

bool read_all(int32_t file, uint8_t* memory, size_t bytes) {
  while (bytes) {
    struct {
      uint8_t* data;
      size_t size;
    } piece = {memory, bytes};
    size_t n = 0;
    if (wasi_read(file, &piece, 1, &n) != 0 || n == 0 || n > bytes) return false;
    memory += n, bytes -= n;
  }
  return true;
}

}  // namespace

uint64_t nanoseconds() {
  uint64_t time = 0;
  return wasi_clock(1, 1, &time) == 0 ? time : 0;
}

bool map_file(const char* path, Mapping* mapping, int* reason) {
  int32_t file = -1, error = open_below_any(path, &file);
  uint8_t* memory = nullptr;
  size_t size = 0;
  if (error == 0) {
    uint64_t words[8] = {};
    error = wasi_status(file, words);
    if (error == 0 && words[4] > SIZE_MAX / 2) error = kNoMemory;
    size = error == 0 ? static_cast<size_t>(words[4]) : 0;
    if (size && !(memory = static_cast<uint8_t*>(default_allocator().get(size)))) error = kNoMemory;
    if (memory && !read_all(file, memory, size)) error = kInputOutput;
    wasi_close(file);
  }
  *reason = reason_of(error);
  if (error != 0 && memory) default_allocator().put(memory, size);
  if (error == 0) *mapping = {memory, size};
  return error == 0;
}

bool map_file_inside(const char* folder, const char* path, Mapping* mapping, int* reason) {
  return map_joined(folder, path, mapping, reason);
}

void unmap_file(const Mapping& mapping) {
  default_allocator().put(const_cast<uint8_t*>(mapping.data), mapping.size);
}

}  // namespace ortolan::platform
