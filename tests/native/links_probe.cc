// Whether the platform of 32-bit x86 maps what is behind a link: run in a folder with "link.bin"
// and "folder", a link to a folder with "w.bin". The exit code is 1 for the first that is refused
// as a link, and 2 for the second.
#include "core/platform.h"

extern "C" {
// Of the C library, which is not there; nothing here calls them.
int posix_memalign(void**, size_t, size_t) { return 1; }
void free(void*) {}
int pthread_create(unsigned long*, const void*, void* (*)(void*), void*) { return 1; }
int pthread_detach(unsigned long) { return 0; }
int pthread_atfork(void (*)(), void (*)(), void (*)()) { return 0; }

void _start() {
  using namespace ortolan::platform;
  int code = 0;
  const char* const paths[] = {"link.bin", "folder/w.bin"};
  for (int i = 0; i < 2; ++i) {
    Mapping mapping;
    int reason = 0;
    if (!map_file_inside("", paths[i], &mapping, &reason) && reason == kIsLink) code |= 1 << i;
  }
  __asm__ volatile("int $0x80" : : "a"(1), "b"(code));
}
}
