// How a node's convolution is computed: what its weights are packed for, and the dispatch to that.
#pragma once

#include "kernels/conv_columns.h"
#include "kernels/conv_rows.h"
#include "kernels/depthwise.h"
#include "kernels/once.h"
#include "kernels/variant.h"
#include "kernels/window.h"
#include "kernels/winograd.h"

namespace ortolan::ORTOLAN_ISA {

// Multiply-adds that are worth waking a thread for.
constexpr size_t kWorthwhile = 1 << 18;

inline size_t grain(size_t work, size_t units) {
  size_t each = max<size_t>(work / max<size_t>(units, 1), 1);
  return (kWorthwhile + each - 1) / each;
}

// What the weights were packed for, besides the direct and the depthwise convolution.
enum class Way : uint8_t {
  kPlain = 0,
  kTapColumns = 1,
  kWinograd2 = 2,
  kWinograd4 = 4,
  kWinograd5 = 5
};
constexpr int form_of(Way way) { return static_cast<int>(way); }  // of Winograd's

// Floats between pixels of the result, which may lie in that of a Concat.
inline size_t output_gap(const Context& c, size_t channels) {
  return kSmall ? 0 : c.output_pitch(0, channels * sizeof(float)) / sizeof(float) - channels;
}

struct ConvState {
  WindowAttributes window;
  bool kernel_known = true;  // else it comes with the weights, as does a rank of 0
  int64_t groups = 1;
  Epilogue epilogue;             // its activation
  float* packed = nullptr;       // when the weights are constant or have a default
  mutable Once packing;          // by the first run: transformed weights take much of loading
  const void* source = nullptr;  // the default: a caller may give other weights
  Way way = Way::kPlain;         // how these are packed
  bool comes_in_lines = false;   // the constant is in the common form of files
  bool in_lines = false;         // and is read so
  Choice<variants::kDepthwise> depthwise;
  Choice<variants::kDepthwiseNarrow> narrow;  // less channels than a vector has
  Choice<variants::kPartners> partners;
  Choice<variants::kTapColumns> may_widen;
  Choice<variants::kWinograd> may_transform;
};

// com.microsoft:FusedConv names its activation like the operator, with its attributes in a list.
inline Status read_activation(Context& c, String attribute, String parameters, Epilogue* e) {
  String name = c.attribute_string(attribute, "");
  if (name.size == 0) return Status::kOk;
  constexpr Activation kKnown[] = {
      Activation::kRelu,      Activation::kClip, Activation::kLeakyRelu,
      Activation::kSigmoid,   Activation::kTanh, Activation::kHardSigmoid,
      Activation::kHardSwish, Activation::kSilu, Activation::kGelu};
  const size_t known = find_word(
      "Relu\0Clip\0LeakyRelu\0Sigmoid\0Tanh\0HardSigmoid\0HardSwish\0QuickGelu\0Gelu\0", name);
  if (known == sizeof(kKnown) / sizeof(kKnown[0]))
    return c.fail(Status::kNotImplemented, "activation \"%\" is not supported", name);
  e->activation = kKnown[known];
  if (e->activation == Activation::kLeakyRelu) e->alpha = 0.01f;
  if (e->activation == Activation::kHardSigmoid) e->alpha = 0.2f, e->beta = 0.5f;
  if (e->activation == Activation::kSilu) e->alpha = 1.702f;
  const Attribute* a = c.attribute(parameters);
  if (a && a->floats.size > 0) e->alpha = a->floats[0];
  if (a && a->floats.size > 1) e->beta = a->floats[1];
  if (e->activation == Activation::kClip && (!a || a->floats.size < 2))
    return c.invalid("activation Clip needs two %", parameters);
  return Status::kOk;
}

inline bool is_depthwise(const ConvShape& s) {
  return s.groups > 1 && s.groups == s.channels && s.groups == s.outputs;
}
inline bool is_depthwise(const ConvState& state, const ConvShape& s) {
  const bool is_chosen = s.channels < kLanes ? state.narrow : state.depthwise;
  // Between both there are channels, in small builds, that have no kernel of their own.
  const bool fits = s.channels < kLanes || s.channels >= kDepthwiseChannels;
  return is_chosen && fits && is_depthwise(s);
}

// Channels of a group that has a kernel for such; else 1.
inline size_t partners_of(const ConvState& state, const ConvShape& s) {
  return !kSmall && state.partners ? partner_count(s, kLanes) : 1;
}

inline bool is_by_lines(const ConvState& state, const ConvShape& s) {
  return is_depthwise(state, s) || partners_of(state, s) > 1;
}

// Depth that the kernel neither covers nor pads is more images: what is for these sees none.
inline void fold_depth(ConvShape* s) {
  Window& w = s->window;
  if (kSmall || w.kernel[0] != 1 || w.pad[0] != 0 || w.in[0] != w.out[0]) return;
  s->batch *= w.in[0];
  w.in[0] = w.out[0] = 1;
}

// Whether a convolution has the window and the groups that Winograd's transforms are for, which
// are of images, or of depth that is more of them.
inline bool fits_winograd(const ConvShape& s, const WindowAttributes& w) {
  bool fits = s.groups == 1 && w.rank > 1 && s.window.kernel[0] == 1;
  if (w.rank > 2) fits = fits && w.stride[0] == 1 && w.pad_begin[0] == 0 && w.pad_end[0] == 0;
  for (uint32_t i = w.rank - 2; i < w.rank; ++i)
    fits = fits && s.window.kernel[3 - w.rank + i] == s.window.kernel[2] && w.stride[i] == 1 &&
           w.dilation[i] == 1;
  return fits && (s.window.kernel[2] == 3 || s.window.kernel[2] == 5);
}

// What a depthwise convolution uses where `wide` tells that it has a vector of channels.
template <class Wide>
inline void note_depthwise(Context& c, const WindowAttributes& w, bool is_known, const Wide& wide) {
  const int64_t stride = w.rank ? w.stride[w.rank - 1] : 0;
  const bool is_dense = is_known && w.dilation[w.rank - 1] == 1 && stride <= 2;
  const bool is_three = is_dense && w.kernel[w.rank - 1] == 3;
  note<variants::kDepthwise3>(
      c, [=](int lanes) { return wide(lanes) && (!is_known || (is_three && stride == 1)); });
  note<variants::kDepthwise3Stride2>(
      c, [=](int lanes) { return wide(lanes) && (!is_known || (is_three && stride == 2)); });
  note<variants::kDepthwiseAny>(c, [=](int lanes) { return wide(lanes) && !is_three; });
}

// `shape` is of constant weights, or null.
inline void choose_variants(Context& c, ConvState* s, const ConvShape* shape) {
  const WindowAttributes& w = s->window;
  const bool is_deep = shape ? is_depthwise(*shape) : s->groups > 1;
  const bool is_known = s->kernel_known && w.rank;
  auto wide = [=](int lanes) { return is_deep && !(shape && shape->channels < size_t(lanes)); };
  choose(c, &s->depthwise, wide);
  choose(c, &s->narrow,
         [=](int lanes) { return is_deep && !(shape && shape->channels >= size_t(lanes)); });
  note_depthwise(c, w, is_known, wide);
  choose(c, &s->partners, [=](int lanes) {
    return shape ? partner_count(*shape, size_t(lanes)) > 1 : s->groups > 1;
  });
  bool is_point = s->groups == 1;
  for (uint32_t i = 0; i < w.rank; ++i)
    is_point = is_point && (!is_known || w.kernel[i] == 1) && w.stride[i] == 1;
  note<variants::kPointwise>(c, [=](int) { return is_point; });
  note<variants::kActivations>(c, [=](int) { return s->epilogue.activation > Activation::kClip; });
  choose(c, &s->may_widen, [=](int lanes) {
    if (!shape || w.rank == 0) return false;
    return suits_tap_columns(*shape, static_cast<size_t>(w.stride[w.rank - 1]), size_t(lanes));
  });
  choose(c, &s->may_transform, [=](int lanes) {
    const size_t least = static_cast<size_t>(lanes);
    return shape && fits_tiles(shape->channels, least) && fits_tiles(shape->outputs, least) &&
           fits_winograd(*shape, w);
  });
}

// Shape of the weights and what follows from it alone; *window gets a kernel that only they tell.
inline Status weights_shape(Context& c, const ConvState& s, const Shape& w,
                            WindowAttributes* window, ConvShape* shape) {
  *window = s.window;
  if (window->rank == 0 && w.rank > 2 && w.rank <= 5) window->rank = w.rank - 2;
  if (window->rank == 0 || w.rank != window->rank + 2)
    return c.invalid("the weights of shape % need % dimensions", w.span(),
                     max<uint32_t>(window->rank, 1) + 2);
  if (s.groups > w[0] || w[0] % s.groups != 0)
    return c.invalid("group % does not divide output channels %", s.groups, w[0]);
  shape->groups = static_cast<size_t>(s.groups);
  shape->outputs = static_cast<size_t>(w[0]);
  shape->channels = static_cast<size_t>(w[1] * s.groups);
  for (uint32_t i = 0; i < window->rank; ++i) {
    if (!s.kernel_known) window->kernel[i] = w[2 + i];
    if (w[2 + i] != window->kernel[i])
      return c.invalid("the weights of shape % do not fit kernel_shape %", w.span(),
                       Span<const int64_t>{window->kernel, window->rank});
    shape->window.kernel[3 - window->rank + i] = static_cast<size_t>(w[2 + i]);
  }
  return s.kernel_known ? Status::kOk : check_kernel(c, *window);
}

// The spatial dimensions that the lists of the node are for; 0 if it has none.
inline uint32_t listed_rank(Context& c) {
  size_t rank = max(c.attribute_ints("strides").size, c.attribute_ints("dilations").size);
  return static_cast<uint32_t>(max(rank, c.attribute_ints("pads").size / 2));
}

inline size_t packed_bytes(const ConvState& state, const ConvShape& s, Way way = Way::kPlain) {
  if (!kSmall && way >= Way::kWinograd2)
    return sizeof(float) * winograd_weights_size(s, form_of(way));
  if (!kSmall && way == Way::kTapColumns) return sizeof(float) * packed_columns_size(s);
  const size_t partners = partners_of(state, s);
  if (partners > 1) return sizeof(float) * partners * packed_depthwise_size(s);
  return sizeof(float) * (is_depthwise(state, s) ? packed_depthwise_size(s) : packed_conv_size(s));
}

inline void pack(const ConvState& state, const ConvShape& s, Way way, const float* weights,
                 float* out) {
  if (!kSmall && way >= Way::kWinograd2)
    pack_winograd_weights(s, form_of(way), weights, state.comes_in_lines, out);
  else if (!kSmall && way == Way::kTapColumns)
    pack_columns_weights(s, weights, state.comes_in_lines, out);
  else if (partners_of(state, s) > 1)
    pack_partner_weights(s, weights, out);
  else if (is_depthwise(state, s))
    pack_depthwise_weights(s, weights, out);
  else
    pack_conv_weights(s, weights, out, state.comes_in_lines);
}

// Bytes of scratch that each thread needs.
inline size_t scratch_bytes(const ConvState& state, const ConvShape& s, Way way) {
  if (!kSmall && way >= Way::kWinograd2) return winograd_scratch_size(s, form_of(way));
  if (!kSmall && way == Way::kTapColumns) return columns_scratch_size(s);
  return is_by_lines(state, s) ? depthwise_scratch_size(s) : plain_scratch_size(s);
}

inline size_t unit_count(const ConvState& state, const ConvShape& s, Way way, size_t threads) {
  if (!kSmall && way >= Way::kWinograd2) return winograd_units(s, form_of(way), threads);
  if (!kSmall && way == Way::kTapColumns) return columns_units(s);
  return is_by_lines(state, s) ? depthwise_units(s) : plain_units(s);
}

inline void run_units(const ConvState& state, const ConvArgs& args, Way way, size_t threads,
                      size_t begin, size_t end, void* scratch) {
  if (!kSmall && way >= Way::kWinograd2)
    winograd_run_units(args, form_of(way), threads, begin, end, scratch);
  else if (!kSmall && way == Way::kTapColumns)
    columns_run_units(args, begin, end, scratch);
  else if (is_by_lines(state, args.shape))
    depthwise_run_units(args, begin, end, scratch, partner_codes(partners_of(state, args.shape)));
  else
    plain_run_units(args, begin, end, scratch);
}

// The size of spatial dimension `i` of the image, counted from the last one, as the file announces
// it; 0: unknown.
inline int64_t announced(Context& c, const WindowAttributes& window, uint32_t i) {
  const Shape& hint = c.input_shape(0);
  if (hint.rank != window.rank + 2 || i >= window.rank) return 0;
  return max<int64_t>(hint[hint.rank - 1 - i], 0);
}

// Whether taps become columns: not where a row of the image has many more pixels than the result.
inline bool is_widened(Context& c, const ConvState& state, const WindowAttributes& window) {
  if (kSmall || !state.may_widen) return false;
  const uint32_t last = window.rank - 1;
  const int64_t reach = (window.kernel[last] - 1) * window.dilation[last];
  const int64_t pads = window.pad_begin[last] + window.pad_end[last];
  const bool is_same =
      window.auto_pad == AutoPad::kSameUpper || window.auto_pad == AutoPad::kSameLower;
  return is_same || pads >= reach || announced(c, window, 0) >= 8 * reach;
}

// The Winograd form that suits the image which the file announces, or one as is usual for so many
// channels, within the bytes that the session allows.
inline Way transformed(Context& c, const ConvState& state, const WindowAttributes& window,
                       ConvShape s) {
  constexpr size_t kUsual = 3584;  // channels times the side of the image
  if (kSmall || !state.may_transform) return Way::kPlain;
  const Shape& hint = c.input_shape(0);
  s.batch = hint.rank && hint[0] > 0 ? static_cast<size_t>(min<int64_t>(hint[0], kUsual)) : 1;
  s.batch *= static_cast<size_t>(min<int64_t>(max<int64_t>(announced(c, window, 2), 1), kUsual));
  for (uint32_t i = 1; i < 3; ++i) {
    int64_t size = announced(c, window, 2 - i);
    if (size == 0) size = max<int64_t>(1, kUsual / s.channels);
    s.window.out[i] = static_cast<size_t>(min<int64_t>(size, kUsual));
  }
  const Way found = static_cast<Way>(choose_winograd(s));
  if (found == Way::kPlain) return found;
  const size_t extra = packed_bytes(state, s, found) - packed_bytes(state, s);
  return c.take_extra(extra) ? found : Way::kPlain;
}

inline Way choose_way(Context& c, const ConvState& state, const WindowAttributes& window,
                      const ConvShape& s) {
  const Way way = transformed(c, state, window, s);
  return way == Way::kPlain && is_widened(c, state, window) ? Way::kTapColumns : way;
}

}  // namespace ortolan::ORTOLAN_ISA
