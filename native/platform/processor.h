// What the platforms share because it depends on the processor and not on the system: the
// instruction sets that it has, and how denormals are handled.
#pragma once

#include "core/platform.h"

namespace ortolan::platform {

#if defined(__x86_64__) || defined(__i386__)
namespace {
ORTOLAN_INLINE void cpuid(uint32_t leaf, uint32_t (&r)[4]) {
  __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}
ORTOLAN_INLINE bool bit(uint32_t word, int i) { return word >> i & 1; }

uint8_t find_level() {
  uint32_t r[4];
  cpuid(0, r);
  if (r[0] < 7) return 0;
  cpuid(1, r);
  bool fma = bit(r[2], 12), saves = bit(r[2], 27), avx = bit(r[2], 28);
  if (!fma || !saves || !avx) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  cpuid(7, r);
  // x86_64_v3 also has BMI1, BMI2; v4: AVX-512 F, BW, CD, DQ, VL, and its registers saved.
  if ((low & 6) != 6 || !bit(r[1], 5) || !bit(r[1], 3) || !bit(r[1], 8)) return 0;
  bool wide = (low & 0xe6) == 0xe6 && bit(r[1], 16) && bit(r[1], 17) && bit(r[1], 28) &&
              bit(r[1], 30) && bit(r[1], 31);
  return wide ? 2 : 1;
}
}  // namespace

// Found once: in a virtual machine each cpuid takes microseconds.
uint8_t instruction_set_level() {
  static uint8_t known = 0;  // the level plus 1
  uint8_t level = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (!level) {
    level = static_cast<uint8_t>(find_level() + 1);
    __atomic_store_n(&known, level, __ATOMIC_RELAXED);
  }
  return static_cast<uint8_t>(level - 1);
}

const char* instruction_set_name(uint8_t level) {
  return level >= 2 ? "avx512" : level == 1 ? "avx2" : "sse2";
}

uint32_t flush_denormals() {
  uint32_t state, flushed;
  __asm__ volatile("stmxcsr %0" : "=m"(state));
  flushed = state | 0x8040;  // flush-to-zero, denormals-are-zero
  __asm__ volatile("ldmxcsr %0" : : "m"(flushed));
  return state;
}
void restore_denormals(uint32_t state) { __asm__ volatile("ldmxcsr %0" : : "m"(state)); }
#elif defined(__aarch64__)
#ifdef ORTOLAN_HAS_BASE  // a lower set, without fused multiply-add, to fold constants with
uint8_t instruction_set_level() { return 1; }
const char* instruction_set_name(uint8_t level) { return level ? "neon" : "base"; }
#else
uint8_t instruction_set_level() { return 0; }
const char* instruction_set_name(uint8_t) { return "neon"; }
#endif
uint32_t flush_denormals() {
  uint64_t state;
  __asm__ volatile("mrs %0, fpcr" : "=r"(state));
  __asm__ volatile("msr fpcr, %0" : : "r"(state | 1u << 24));
  return static_cast<uint32_t>(state);
}
void restore_denormals(uint32_t state) {
  __asm__ volatile("msr fpcr, %0" : : "r"(static_cast<uint64_t>(state)));
}
#elif defined(__arm__)
// NEON of this processor always flushes; scalars follow FPSCR.
uint8_t instruction_set_level() { return 0; }
const char* instruction_set_name(uint8_t) { return "neon"; }
uint32_t flush_denormals() {
  uint32_t state;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(state));
  __asm__ volatile("vmsr fpscr, %0" : : "r"(state | 1u << 24));
  return state;
}
void restore_denormals(uint32_t state) { __asm__ volatile("vmsr fpscr, %0" : : "r"(state)); }
#endif

}  // namespace ortolan::platform
