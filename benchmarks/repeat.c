/* Calls a function again and again and tells how long a call took: the harness for models so small
 * that a call through a language binding would be what is measured. Compiled by tiny.py. */
#include <time.h>

typedef long (*Function)(void*, void*, void*, void*, long, void*, long, void*);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Nanoseconds per call, or -1 when a call answers something other than zero. A function takes as
 * many of the arguments as it has parameters. */
double repeat(Function function, void** a, long count) {
  double start = now();
  for (long k = 0; k < count; ++k) {
    long code = function(a[0], a[1], a[2], a[3], (long)a[4], a[5], (long)a[6], a[7]);
    if ((int)code) return -1;
  }
  return (now() - start) / (double)count * 1e9;
}
