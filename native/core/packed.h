// The common form of packed weights, as files hold the matrix B[K][N] of a product, N a multiple of
// 4: lines of 16 columns one after another, each [K][16]; the last has as many columns as are left.
// Weights [N][channels][kernel...] are the matrix whose row tap * channels + channel they multiply
// with that. docs/format.md describes it.
#pragma once

#include "core/base.h"

namespace ortolan {

constexpr size_t kLine = 16;     // columns
constexpr size_t kLineUnit = 4;  // N is a multiple of it
// What files call the form of float32 weights whose columns are their last dimension, or the first.
constexpr int64_t kFormColumnsLast = 1, kFormColumnsFirst = 2;

// Columns of the line that column n is in: floats from row to row.
constexpr size_t line_width(size_t N, size_t n) {
  const size_t rest = N - n / kLine * kLine;
  return rest < kLine ? rest : kLine;
}
// Where row 0 of column n is.
constexpr size_t line_offset(size_t K, size_t n) { return n / kLine * kLine * K + n % kLine; }

}  // namespace ortolan
