/* Multiply-adds of four lanes in registers, as many as the engine's code keeps going: the peak that
 * the web benchmarks measure in the run in which they need it. Twelve chains were faster than eight
 * in V8. The results depend on the arguments, so that nothing can be left out. */
#include <wasm_simd128.h>

#define CHAINS 12
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define DECLARE(i) v128_t c##i = wasm_f32x4_splat(i);
#define SUM(i) total = wasm_f32x4_add(total, c##i);
#define SEPARATE(i) c##i = wasm_f32x4_add(wasm_f32x4_mul(c##i, a), b);
#define FUSED(i) c##i = wasm_f32x4_relaxed_madd(c##i, a, b);

#define PEAK(name, step)                                                              \
  __attribute__((visibility("default"))) float name(int count, float fa, float fb) {  \
    v128_t a = wasm_f32x4_splat(fa), b = wasm_f32x4_splat(fb), total = a;             \
    EACH(DECLARE)                                                                     \
    for (int k = 0; k < count; ++k) {                                                 \
      EACH(step)                                                                      \
    }                                                                                 \
    EACH(SUM)                                                                         \
    return wasm_f32x4_extract_lane(total, 0);                                         \
  }

PEAK(simd128, SEPARATE)
#ifdef __wasm_relaxed_simd__
PEAK(relaxed, FUSED)
#endif

__attribute__((visibility("default"))) int madds(void) { return CHAINS * 4; }
