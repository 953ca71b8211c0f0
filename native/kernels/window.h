// What Conv and the pools share: the attributes of a window that slides over 1 to 3 spatial
// dimensions, and the output size and padding that they give for an input.
#pragma once

#include "core/context.h"
#include "kernels/conv_direct.h"

namespace ortolan::ORTOLAN_ISA {

enum class AutoPad : uint8_t { kNotSet, kSameUpper, kSameLower, kValid };

struct WindowAttributes {
  uint32_t rank = 0;  // spatial dimensions
  int64_t kernel[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1};
  int64_t dilation[3] = {1, 1, 1};
  int64_t pad_begin[3] = {};
  int64_t pad_end[3] = {};
  AutoPad auto_pad = AutoPad::kNotSet;
  bool ceil_mode = false;
};

inline Status read_auto_pad(Context& c, WindowAttributes* w) {
  String text = c.attribute_string("auto_pad", "NOTSET");
  constexpr size_t kKnown = 4;
  const size_t found = text.size ? find_word("NOTSET\0SAME_UPPER\0SAME_LOWER\0VALID\0", text) : 0;
  if (found == kKnown) return c.invalid("auto_pad \"%\" is unknown", text);
  w->auto_pad = static_cast<AutoPad>(found);
  return Status::kOk;
}

constexpr int64_t kWindowLimit = 1 << 28;

inline Status check_kernel(Context& c, const WindowAttributes& w) {
  int64_t taps = 1;
  for (uint32_t i = 0; i < w.rank; ++i) {
    if (w.kernel[i] < 1 || w.kernel[i] > kWindowLimit ||
        (w.kernel[i] - 1) * w.dilation[i] >= kWindowLimit)
      return c.invalid("a kernel of % with dilation % is outside 1 to %", w.kernel[i],
                       w.dilation[i], kWindowLimit);
    // Neither a pool nor weights without channels have memory that would limit them.
    taps *= w.kernel[i];
    if (taps > kWindowLimit)
      return c.invalid("the kernel % has more than % taps", Span<const int64_t>{w.kernel, w.rank},
                       kWindowLimit);
  }
  return Status::kOk;
}

// Reads everything but the kernel, which the caller has set together with `rank`.
inline Status read_window(Context& c, WindowAttributes* w) {
  ORTOLAN_TRY(read_auto_pad(c, w));
  auto read_list = [&](String name, size_t n, int64_t least, int64_t* to) -> Status {
    Span<const int64_t> list = c.attribute_ints(name);
    if (list.empty()) return Status::kOk;
    if (list.size != n) return c.invalid("% has % entries, % are needed", name, list.size, n);
    for (size_t i = 0; i < n; ++i) {
      if (list[i] < least || list[i] > kWindowLimit)
        return c.invalid("% % has an entry outside % to %", name, list, least, kWindowLimit);
      to[i] = list[i];
    }
    return Status::kOk;
  };
  const uint32_t rank = w->rank;
  int64_t pads[6] = {};
  ORTOLAN_TRY(read_list("strides", rank, 1, w->stride));
  ORTOLAN_TRY(read_list("dilations", rank, 1, w->dilation));
  ORTOLAN_TRY(read_list("pads", 2 * rank, 0, pads));
  for (uint32_t i = 0; i < rank; ++i) w->pad_begin[i] = pads[i], w->pad_end[i] = pads[rank + i];
  return check_kernel(c, *w);
}

// The window over an input of logical shape [N, C, spatial...]; pad_after gets the padding behind.
// The spatial part of `out` is set. Dimensions are right-aligned in Window.
inline Status place_window(Context& c, const WindowAttributes& a, const Shape& in, Shape* out,
                           Window* w, ptrdiff_t* pad_after) {
  constexpr int64_t kLimit = 1 << 30;
  if (in.rank != a.rank + 2)
    return c.invalid("input 0 of shape % has % dimensions, % are needed", in.span(), in.rank,
                     a.rank + 2);
  *w = Window();
  for (uint32_t i = 0; i < a.rank; ++i) {
    uint32_t d = 3 - a.rank + i;
    int64_t size = in[2 + i], reach = (a.kernel[i] - 1) * a.dilation[i] + 1;
    int64_t before = a.pad_begin[i], after = a.pad_end[i], count;
    if (size > kLimit) return c.fail(Status::kLimitExceeded, "input 0 is too large");
    if (a.auto_pad == AutoPad::kSameUpper || a.auto_pad == AutoPad::kSameLower) {
      count = (size + a.stride[i] - 1) / a.stride[i];
      int64_t total = max<int64_t>((count - 1) * a.stride[i] + reach - size, 0);
      before = a.auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
      after = total - before;
    } else {
      if (a.auto_pad == AutoPad::kValid) before = after = 0;
      int64_t room = size + before + after - reach;
      if (room < 0)
        return c.invalid(
            "a kernel that covers % does not fit into dimension % of % with padding % and %", reach,
            2 + i, in.span(), before, after);
      count = (a.ceil_mode ? room + a.stride[i] - 1 : room) / a.stride[i] + 1;
      // A window must begin inside the input or the padding before it.
      if (a.ceil_mode && (count - 1) * a.stride[i] >= size + before) --count;
    }
    out->dims[2 + i] = count;
    w->in[d] = static_cast<size_t>(size);
    w->out[d] = static_cast<size_t>(count);
    w->kernel[d] = static_cast<size_t>(a.kernel[i]);
    w->stride[d] = static_cast<size_t>(a.stride[i]);
    w->dilation[d] = static_cast<size_t>(a.dilation[i]);
    w->pad[d] = static_cast<ptrdiff_t>(before);
    pad_after[d] = static_cast<ptrdiff_t>(after);
  }
  return Status::kOk;
}

}  // namespace ortolan::ORTOLAN_ISA
