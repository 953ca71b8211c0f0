// Which input positions make up an output position of Resize, and with which weights: coordinate
// transformations, roundings and filters of the standard, as tables for resample.h.
#pragma once

#include "kernels/resample.h"

namespace ortolan::ORTOLAN_ISA {

enum class ResizeMode : uint8_t { kNearest, kLinear, kCubic };
enum class ResizeCoordinates : uint8_t {
  kHalfPixel,
  kHalfPixelSymmetric,
  kPytorchHalfPixel,
  kAlignCorners,
  kAsymmetric,
  kTfHalfPixelForNn,
  kTfCropAndResize,
};
// kBeforeVersion11: down when enlarging, up when shrinking, as onnxruntime does.
enum class ResizeNearest : uint8_t {
  kRoundPreferFloor,
  kRoundPreferCeil,
  kFloor,
  kCeil,
  kBeforeVersion11,
};
enum class ResizeAspect : uint8_t { kStretch, kNotLarger, kNotSmaller };

struct ResizeState {
  ResizeMode mode = ResizeMode::kNearest;
  ResizeCoordinates coordinates = ResizeCoordinates::kAsymmetric;
  ResizeNearest nearest = ResizeNearest::kBeforeVersion11;
  ResizeAspect aspect = ResizeAspect::kStretch;
  bool antialias = false, exclude_outside = false, enlarges_only = false;
  uint8_t roi_input = 0, scales_input = 0, sizes_input = 0;  // 0: this version has none
  float cubic_a = -0.75f, extrapolation = 0;
};

// What happens to an axis (logical).
struct ResizeAxis {
  int64_t in = 0, out = 0;
  float scale = 1, roi_begin = 0, roi_end = 1;
};

static int64_t floor_int(float x) {
  const int64_t whole = static_cast<int64_t>(x);
  return static_cast<float>(whole) > x ? whole - 1 : whole;
}

// NaN and what no integer can hold become places that clamp to an edge.
static float within(float x, float low, float high) {
  return x > low ? (x < high ? x : high) : low;
}

static uint64_t tap_count(const ResizeState& state, float scale) {
  if (state.mode == ResizeMode::kNearest) return 1;
  const uint64_t reach = state.mode == ResizeMode::kLinear ? 1 : 2;
  if (!state.antialias || scale >= 1) return 2 * reach;
  return 2 * (static_cast<uint64_t>(static_cast<float>(reach) / scale) + 1);
}

// Where output position x lies on the input axis. In float, as onnxruntime computes it: which
// neighbour is nearest hangs on the last bit.
static float coordinate(const ResizeState& state, const ResizeAxis& axis, int64_t x) {
#pragma clang fp contract(off)
  const float at = static_cast<float>(x), scale = axis.scale;
  const float in = static_cast<float>(axis.in), out = static_cast<float>(axis.out);
  switch (state.coordinates) {
    case ResizeCoordinates::kPytorchHalfPixel:
      if (axis.out <= 1) return 0;
      [[fallthrough]];
    case ResizeCoordinates::kHalfPixel:
      return (at + 0.5f) / scale - 0.5f;
    case ResizeCoordinates::kHalfPixelSymmetric: {
      const double offset = in / 2 * (1 - out / (scale * in));
      return static_cast<float>(offset + (at + 0.5) / static_cast<double>(scale) - 0.5);
    }
    case ResizeCoordinates::kAlignCorners:
      return axis.out <= 1 ? 0 : at * (in - 1) / (out - 1);
    case ResizeCoordinates::kAsymmetric:
      return at / scale;
    case ResizeCoordinates::kTfHalfPixelForNn:
      return (at + 0.5f) / scale;
    case ResizeCoordinates::kTfCropAndResize:
      break;
  }
  const float begin = axis.roi_begin, end = axis.roi_end;
  if (axis.out <= 1) return 0.5f * (begin + end) * (in - 1);
  return begin * (in - 1) + at * (end - begin) * (in - 1) / (out - 1);
}

static int64_t nearest(const ResizeState& state, float x, float scale) {
  const int64_t floor = floor_int(x);
  const float part = x - static_cast<float>(floor);
  // A rational scale is inexact in float; like onnxruntime, count what is this near as a tie.
  constexpr float kTie = 1e-6f;
  bool up = false;
  switch (state.nearest) {
    case ResizeNearest::kRoundPreferFloor:
      up = part - 0.5f > kTie;
      break;
    case ResizeNearest::kRoundPreferCeil:
      up = part - 0.5f >= -kTie;
      break;
    case ResizeNearest::kFloor:
      break;
    case ResizeNearest::kCeil:
      up = part > 0;
      break;
    case ResizeNearest::kBeforeVersion11:
      up = scale < 1 && part > 0;
  }
  return up ? floor + 1 : floor;
}

// Triangle, or the cubic convolution kernel (Keys 1981) with a free parameter a.
static float filter(const ResizeState& state, float distance) {
  const float x = distance < 0 ? -distance : distance;
  if (state.mode == ResizeMode::kLinear) return x < 1 ? 1 - x : 0;
  const float a = state.cubic_a;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

// The taps of an output position at x. Positions beyond the edge count as the edge.
static void weigh(const ResizeState& state, const ResizeAxis& axis, float x, Tap* taps,
                  size_t count) {
  const float stretch = state.antialias && axis.scale < 1 ? axis.scale : 1;
  const int64_t floor = floor_int(x), first = floor - static_cast<int64_t>(count / 2) + 1;
  const float part = x - static_cast<float>(floor);
  float sum = 0;
#pragma clang loop unroll(disable) vectorize(disable)
  for (size_t t = 0; t < count; ++t) {
    const int64_t at = first + static_cast<int64_t>(t);
    const bool outside = at < 0 || at >= axis.in;
    const float distance = static_cast<float>(at - floor) - part;
    const float weight = outside && state.exclude_outside ? 0 : filter(state, distance * stretch);
    taps[t] = {static_cast<uint32_t>(min(max<int64_t>(at, 0), axis.in - 1)), weight};
    sum += weight;
  }
  if ((!state.antialias && !state.exclude_outside) || sum == 0) return;
#pragma clang loop unroll(disable) vectorize(disable)
  for (size_t t = 0; t < count; ++t) taps[t].weight /= sum;
}

static void fill_table(const ResizeState& state, const ResizeAxis& axis, const TapTable& table) {
  const float end = static_cast<float>(axis.in - 1);
  for (int64_t i = 0; i < axis.out; ++i) {
    float x = coordinate(state, axis, i);
    if (table.outside) table.outside[i] = !(x >= 0 && x <= end);
    x = within(x, -4, end + 4);
    Tap* taps = table.entries + static_cast<size_t>(i) * table.taps;
    if (state.mode == ResizeMode::kNearest) {
      const int64_t at = min(max<int64_t>(nearest(state, x, axis.scale), 0), axis.in - 1);
      *taps = {static_cast<uint32_t>(at), 1};
    } else {
      weigh(state, axis, x, taps, table.taps);
    }
  }
}

}  // namespace ortolan::ORTOLAN_ISA
