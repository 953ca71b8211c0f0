// Elementary functions for float, double and vectors of them, without libm, in ortolan::math.
// NaN, infinities, denormals and signed zeros behave as in C (32-bit Arm flushes denormal vector
// elements). Only sin, cos and tan (for arguments beyond 2^20) and fmod branch.
//
// Largest errors in ulp, fused multiply-add or not. Float: over all 2^32 arguments down to log1p,
// over every seventh below; pow: 2 * 10^7 pairs. Double: over 4 * 10^6 random arguments, pow
// 5 * 10^6 pairs, erf 7 * 10^5. tests/test_math.py holds them. fmod and the roundings are exact.
//
//   function   float  double  method
//   exp        1.19   1.15    Cody and Waite: 2^k exp(r), polynomial; fused: 0.90
//   expm1      1.53   1.56    the same: 2^k ((1 - 2^-k) + (exp(r) - 1))
//   sigmoid    2.41   2.39    from exp(-|x|)
//   tanh       2.50   2.60    from exp(-2|x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1)
//   erf        1.36   1.27    polynomial below 0.8, then 1 - exp(polynomial)
//   gelu       error of 2.4e-7 |x|; double by erf; a quotient of polynomials
//   cosh       1.36   1.36    from exp(|x|) / 2
//   sinh       2.18   2.14    from expm1(|x|) / 2
//   log        0.84   0.81    atanh series in f / (2 + f), fitted
//   log1p      0.84   0.80    log of 1 + x with the rounding error of the sum
//   sin, cos   0.51   0.78    Cody and Waite in double, beyond 2^20 Payne and Hanek; polynomials
//   tan        0.51   2.22    sin / cos
//   asin, acos 0.51   0.63    polynomial; beyond 1/2 through sqrt((1 - |x|) / 2)
//   atan       0.51   1.35    polynomial at x, (x - 1) / (x + 1) or -1 / x
//   asinh      0.51   1.64    log1p
//   acosh      0.51   2.49    log1p
//   atanh      0.51   1.92    log1p
//   pow        0.51   0.92    exp2(y log2(x)), the logarithm in two doubles (in one for float)
#pragma once

#include "core/math_base.h"
#include "core/math_exp.h"
#include "core/math_log.h"
#include "core/math_trig.h"
