// UTF-8 and the letter case of alphabets that have one.
#pragma once

#include "core/base.h"

namespace ortolan::portable {

// The code point at `at`, which moves behind it. A byte that is no UTF-8 counts as itself, above
// all code points.
inline uint32_t next_point(String text, size_t* at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text.data[i]); };
  const uint32_t first = byte(*at);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  if (length == 1) return ++*at, first;
  if (length == 0 || length > text.size - *at) return ++*at, 0x110000 + first;
  uint32_t point = first & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(*at + i) & 0xC0) != 0x80) return ++*at, 0x110000 + first;
    point = point << 6 | (byte(*at + i) & 0x3F);
  }
  *at += length;
  return point;
}

// The bytes written, at most 4.
inline size_t put_point(uint32_t point, char* out) {
  if (point >= 0x110000) return *out = static_cast<char>(point - 0x110000), 1;
  if (point < 0x80) return *out = static_cast<char>(point), 1;
  const size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  for (size_t i = length; i-- > 1; point >>= 6) out[i] = static_cast<char>(0x80 | (point & 0x3F));
  out[0] = static_cast<char>((0xF00 >> length & 0xFF) | point);
  return length;
}

// Ranges of capitals with the distance to their small letters; distance 1: the two alternate.
struct CaseRange {
  uint16_t first, last;
  int16_t distance;
};
constexpr CaseRange kCases[] = {
    {'A', 'Z', 32},       {0xC0, 0xD6, 32},     {0xD8, 0xDE, 32},    {0x100, 0x12E, 1},
    {0x132, 0x136, 1},    {0x139, 0x147, 1},    {0x14A, 0x176, 1},   {0x178, 0x178, -121},
    {0x179, 0x17D, 1},    {0x1CD, 0x1DB, 1},    {0x1DE, 0x1EE, 1},   {0x1F8, 0x21E, 1},
    {0x222, 0x232, 1},    {0x386, 0x386, 38},   {0x388, 0x38A, 37},  {0x38C, 0x38C, 64},
    {0x38E, 0x38F, 63},   {0x391, 0x3A1, 32},   {0x3A3, 0x3AB, 32},  {0x400, 0x40F, 80},
    {0x410, 0x42F, 32},   {0x460, 0x480, 1},    {0x48A, 0x4BE, 1},   {0x4C1, 0x4CD, 1},
    {0x4D0, 0x52E, 1},    {0x531, 0x556, 48},   {0x1E00, 0x1E94, 1}, {0x1EA0, 0x1EFE, 1},
    {0x24B6, 0x24CF, 26}, {0xFF21, 0xFF3A, 32},
};

inline uint32_t to_lower(uint32_t point) {
  for (const CaseRange& range : kCases) {
    if (point < range.first || point > range.last) continue;
    if (range.distance == 1 && (point - range.first) % 2) return point;
    return static_cast<uint32_t>(static_cast<int32_t>(point) + range.distance);
  }
  return point;
}

inline uint32_t to_upper(uint32_t point) {
  for (const CaseRange& range : kCases) {
    const int32_t capital = static_cast<int32_t>(point) - range.distance;
    if (capital < range.first || capital > range.last) continue;
    if (range.distance == 1 && (capital - range.first) % 2) continue;
    return static_cast<uint32_t>(capital);
  }
  return point;
}

}  // namespace ortolan::portable
