// Numbers as decimal text and back, exactly: what is read is the nearest number there is, what is
// written is the shortest text that reads as the number again.
#pragma once

#include "core/base.h"

namespace ortolan::decimal {

// Longest text that write_* makes.
constexpr size_t kMaxText = 32;

// Answer the bytes written to `text`. From 9 (double: 18) digits before the point on, and below
// 0.0001, the form is 1e+20. NaN, INF and -INF as ONNX has them.
size_t write_float(char* text, float x);
size_t write_double(char* text, double x);
size_t write_int(char* text, int64_t x);
size_t write_uint(char* text, uint64_t x);

// False when the text is no number. Spaces around it are skipped; integers saturate.
bool read_float(String text, float* x);
bool read_double(String text, double* x);
bool read_int(String text, int64_t* x);
bool read_uint(String text, uint64_t* x);

}  // namespace ortolan::decimal
