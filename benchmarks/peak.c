/* What one core of this machine does at most: multiply-adds per second in registers, for each
 * vector width, and bytes per second read from buffers of several sizes. `peak [ROUNDS]` prints
 * lines `name median best` in G/s. Compiled by peak.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define COUNT 1000000L
#define CHAINS 14
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)
#define DECLARE(i) V c##i = start;
#define SUM(i) total += c##i[0];

static volatile float sink;

/* As many chains as SSE2 has registers for, so that no unit waits for a result. */
#define PEAK(name, attribute, bytes, step)                            \
  attribute static double name(void) {                                \
    typedef float V __attribute__((vector_size(bytes)));              \
    V start = {1}, a = start * 0.999f, b = start * 0.001f;            \
    EACH(DECLARE)                                                   \
    double begin = now();                                             \
    for (long k = 0; k < COUNT; ++k) {                                \
      EACH(step)                                                    \
    }                                                                 \
    double seconds = now() - begin;                                   \
    float total = 0;                                                  \
    EACH(SUM)                                                       \
    sink = total;                                                     \
    return (double)(CHAINS * bytes / 4) * COUNT / seconds * 1e-9;               \
  }

#if defined(__x86_64__)
#include <cpuid.h>

static int has(int bit) { /* of leaf 7, ebx */
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> bit & 1);
}

#define SSE(i) __asm__ volatile("mulps %1, %0\n\taddps %2, %0" : "+x"(c##i) : "x"(a), "x"(b));
#define FMA(i) __asm__ volatile("vfmadd213ps %2, %1, %0" : "+x"(c##i) : "x"(a), "x"(b));
#define FMA_WIDE(i) __asm__ volatile("vfmadd213ps %2, %1, %0" : "+v"(c##i) : "v"(a), "v"(b));
PEAK(peak_sse2, , 16, SSE)
PEAK(peak_avx2, __attribute__((target("avx2,fma"))), 32, FMA)
PEAK(peak_avx512, __attribute__((target("avx512f"))), 64, FMA_WIDE)
#elif defined(__aarch64__)
#define FMA(i) __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(c##i) : "w"(a), "w"(b));
PEAK(peak_neon, , 16, FMA)
#else
#define PLAIN(i) c##i = c##i * a + b;
PEAK(peak_plain, , 16, PLAIN)
#endif

static double read_rate(const float* memory, size_t bytes) {
  typedef float V __attribute__((vector_size(64), aligned(64)));
  const V* in = (const V*)memory;
  size_t count = bytes / 64;
  long times = (long)(4e8 / (double)bytes) + 1;
  V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
  double begin = now();
  for (long k = 0; k < times; ++k) {
    for (size_t i = 0; i + 4 <= count; i += 4) {
      s0 += in[i], s1 += in[i + 1], s2 += in[i + 2], s3 += in[i + 3];
    }
    __asm__ volatile("" ::: "memory");
  }
  double seconds = now() - begin;
  s0 += s1 + s2 + s3;
  sink = s0[0];
  return (double)bytes * (double)times / seconds * 1e-9;
}

static int compare(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void show(const char* name, double* found, int rounds) {
  qsort(found, (size_t)rounds, sizeof(double), compare);
  printf("%s %.2f %.2f\n", name, found[rounds / 2], found[rounds - 1]);
}

int main(int count, char** arguments) {
  enum { MOST = 64, LARGEST = 256 << 20 };
  int rounds = count > 1 ? atoi(arguments[1]) : 7;
  double found[MOST];
  if (rounds < 1 || rounds > MOST) return 1;
#define SHOW(name)                                    \
  do {                                                \
    name();                                           \
    for (int r = 0; r < rounds; ++r) found[r] = name(); \
    show(#name, found, rounds);                       \
  } while (0)
#if defined(__x86_64__)
  SHOW(peak_sse2);
  if (has(5)) SHOW(peak_avx2);
  if (has(16)) SHOW(peak_avx512);
#elif defined(__aarch64__)
  SHOW(peak_neon);
#else
  SHOW(peak_plain);
#endif
  float* memory = aligned_alloc(64, LARGEST);
  if (!memory) return 1;
  for (size_t i = 0; i < LARGEST / sizeof(float); ++i) memory[i] = 1;
  for (size_t bytes = 16 << 10; bytes <= LARGEST; bytes *= 4) {
    for (int r = 0; r < rounds; ++r) found[r] = read_rate(memory, bytes);
    char name[32];
    snprintf(name, sizeof(name), "read_%zu", bytes);
    show(name, found, rounds);
  }
  free(memory);
  return 0;
}
