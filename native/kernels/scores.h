// What the classifiers and regressors of ai.onnx.ml share: rows of features, class labels, and the
// transforms of scores. Where onnxruntime leaves a score unwritten, here it is that of a zero.
#pragma once

#include "core/context.h"
#include "core/math.h"

namespace ortolan::portable {

// In the order of TreeEnsemble's numbers.
enum class PostTransform : uint8_t { kNone, kSoftmax, kLogistic, kSoftmaxZero, kProbit };

// Place of a text attribute among `names`; false when it is none of them.
template <size_t N>
bool find_name(String text, const String (&names)[N], size_t* index) {
  for (*index = 0; *index < N; ++*index)
    if (names[*index] == text) return true;
  return false;
}

ORTOLAN_NOINLINE inline Status read_post_transform(Context& c, PostTransform* out) {
  constexpr String kNames[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"};
  const String text = c.attribute_string("post_transform", "NONE");
  size_t index;
  if (!find_name(text, kNames, &index)) return c.invalid("post_transform % is unknown", text);
  *out = static_cast<PostTransform>(index);
  return Status::kOk;
}

inline Span<const float> attribute_floats(const Context& c, String name) {
  const Attribute* a = c.attribute(name);
  return a && a->kind == AttributeKind::kFloats ? a->floats : Span<const float>();
}

inline Span<const String> attribute_texts(const Context& c, String name) {
  const Attribute* a = c.attribute(name);
  return a && a->kind == AttributeKind::kStrings ? a->strings : Span<const String>();
}

// Class labels; for labels that are strings their numbers, and the strings as names.
struct Labels : Span<const int64_t> {
  Span<const Text> names;

  ORTOLAN_NOINLINE Status read(Context& c, String ints) {
    const Span<const String> texts = attribute_texts(c, "classlabels_strings");
    Span<const int64_t>::operator=(c.attribute_ints(ints));
    if (!texts.size) return Status::kOk;
    auto* numbers = static_cast<int64_t*>(c.model_memory(texts.size * sizeof(int64_t)));
    auto* made = static_cast<Text*>(c.model_memory(texts.size * sizeof(Text)));
    if (!numbers || !made) return c.out_of_memory();
    for (size_t i = 0; i < texts.size; ++i) {
      numbers[i] = static_cast<int64_t>(i);
      made[i] = c.make_text(texts[i]);
      if (texts[i].size && !made[i].address) return c.out_of_memory();
    }
    Span<const int64_t>::operator=({numbers, texts.size});
    names = {made, texts.size};
    return Status::kOk;
  }

  // Output 0 gets the names in the place of numbers.
  ORTOLAN_NOINLINE Status name(Context& c) const {
    if (!names.size) return Status::kOk;
    int64_t* y = c.output_data<int64_t>(0);
    for (size_t i = 0, n = c.output_shape(0).count(); i < n; ++i)
      y[i] = static_cast<int64_t>(
          names[min(static_cast<size_t>(max<int64_t>(y[i], 0)), names.size - 1)].address);
    return Status::kOk;
  }
};

// X as rows of features; a vector is one row.
struct Rows {
  size_t count = 1, width = 0;
};
ORTOLAN_NOINLINE inline Status find_rows(const Context& c, Rows* rows) {
  const Shape& shape = c.input_shape(0);
  if (shape.rank != 1 && shape.rank != 2)
    return c.invalid("X must be a vector or a matrix, not %", shape.span());
  if (shape.rank == 2) rows->count = static_cast<size_t>(shape[0]);
  rows->width = static_cast<size_t>(shape[shape.rank - 1]);
  return Status::kOk;
}

ORTOLAN_NOINLINE inline Status set_rows(Context& c, size_t output, size_t rows, size_t columns) {
  const int64_t dims[] = {static_cast<int64_t>(rows), static_cast<int64_t>(columns)};
  return c.set_output(output, Shape::of({dims, 2}));
}
ORTOLAN_NOINLINE inline Status set_labels(Context& c, size_t rows) {
  const int64_t dims[] = {static_cast<int64_t>(rows)};
  return c.set_output(0, Shape::of({dims, 1}));
}

// Splits rows over the threads; `work`: about how many nanoseconds a row takes.
template <class Body>
void each_row(const Context& c, size_t rows, size_t work, const Body& body) {
  c.parallel(rows, max<size_t>(20000 / max<size_t>(work, 1), 1),
             [&](size_t begin, size_t end, size_t thread) {
               for (size_t i = begin; i < end; ++i) body(i, thread);
             });
}

// onnxruntime's approximation of the quantile function, which is 0.2 % off the true one.
ORTOLAN_NOINLINE inline float probit(float x) {
  const float y = 2 * x - 1;
  const float log = math::log((1 - y) * (1 + y));
  const float v = 2 / (3.14159f * 0.147f) + 0.5f * log;
  const float root = __builtin_sqrtf(__builtin_sqrtf(v * v - 1 / 0.147f * log) - v);
  return 1.41421356f * (y < 0 ? -root : root);
}

// exp(z - greatest) / sum. `keep_zero`: zeros stay, and do not count.
inline void softmax(float* z, size_t n, bool keep_zero) {
  float greatest = -__FLT_MAX__, sum = 0;
  for (size_t i = 0; i < n; ++i) greatest = z[i] > greatest ? z[i] : greatest;
  const float scale = keep_zero ? math::exp(-greatest) : 0;
  for (size_t i = 0; i < n; ++i) {
    if (keep_zero && z[i] <= 1e-7f && z[i] >= -1e-7f) {
      z[i] *= scale;
    } else {
      z[i] = math::exp(z[i] - greatest);
      sum += z[i];
    }
  }
  for (size_t i = 0; i < n; ++i) z[i] /= sum;
}

// In place. As in onnxruntime, a single score knows PROBIT alone.
ORTOLAN_NOINLINE inline void transform_scores(PostTransform transform, float* z, size_t n) {
  if (transform == PostTransform::kProbit)
    for (size_t i = 0; i < n; ++i) z[i] = probit(z[i]);
  if (n < 2) return;
  if (transform == PostTransform::kLogistic)
    for (size_t i = 0; i < n; ++i) z[i] = math::sigmoid(z[i]);
  if (transform == PostTransform::kSoftmax || transform == PostTransform::kSoftmaxZero)
    softmax(z, n, transform == PostTransform::kSoftmaxZero);
}

// The scores of both classes from that of the second: 1 - s and s, or where s may be negative
// -s and s.
ORTOLAN_NOINLINE inline void expand_score(PostTransform transform, bool is_signed, float s,
                                          float* z) {
  z[0] = is_signed || transform == PostTransform::kLogistic ? -s : 1 - s;
  z[1] = s;
  if (transform == PostTransform::kLogistic || transform == PostTransform::kProbit)
    transform_scores(transform, z, 2);
}

}  // namespace ortolan::portable
