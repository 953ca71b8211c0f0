// Support vector machines: the kernel functions and, for classes, the votes between each pair of
// them and the probabilities that follow.
#pragma once

#include "kernels/scores.h"

namespace ortolan::portable {

template <class T>
float dot(const T* x, const float* y, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(static_cast<float>(x[i])) * y[i];
  return static_cast<float>(sum);
}

struct SupportVectors {
  enum Kernel : uint8_t { kLinear, kPoly, kRbf, kSigmoid };

  Span<const float> values;  // [count][width]
  size_t count = 0, width = 0;
  Kernel type = kLinear;
  float gamma = 0, offset = 0, degree = 0;

  Status read(Context& c, size_t vectors) {
    constexpr String kNames[] = {"LINEAR", "POLY", "RBF", "SIGMOID"};
    const String text = c.attribute_string("kernel_type", "LINEAR");
    size_t index;
    if (!find_name(text, kNames, &index)) return c.invalid("kernel_type % is unknown", text);
    type = static_cast<Kernel>(index);
    const Span<const float> parameters = attribute_floats(c, "kernel_params");
    if (parameters.size >= 3) gamma = parameters[0], offset = parameters[1], degree = parameters[2];
    values = attribute_floats(c, "support_vectors");
    count = vectors;
    if (count && values.size % count)
      return c.invalid("% numbers are not % support vectors", values.size, count);
    if (count) width = values.size / count;
    return Status::kOk;
  }

  template <class T>
  float kernel(const T* x, size_t k) const {
    const float* vector = values.data + k * width;
    if (type == kRbf) {
      double sum = 0;
      for (size_t i = 0; i < width; ++i) {
        const double difference = static_cast<double>(static_cast<float>(x[i])) - vector[i];
        sum += difference * difference;
      }
      return math::exp(-gamma * static_cast<float>(sum));
    }
    const float product = dot(x, vector, width);
    if (type == kLinear) return product;
    const float inner = gamma * product + offset;
    return type == kPoly ? math::pow(inner, degree) : math::tanh(inner);
  }
};

struct SvmClasses {
  SupportVectors vectors;
  Span<const float> coefficients, rho, a, b;  // a, b: of the sigmoid that makes probabilities
  Labels labels;
  Span<const int64_t> per_class;
  size_t width = 0, scores = 0;
  bool is_positive = true;
  PostTransform transform = PostTransform::kNone;

  ORTOLAN_NOINLINE Status read(Context& c) {
    ORTOLAN_TRY(labels.read(c, "classlabels_ints"));
    ORTOLAN_TRY(read_post_transform(c, &transform));
    coefficients = attribute_floats(c, "coefficients"), rho = attribute_floats(c, "rho");
    a = attribute_floats(c, "prob_a"), b = attribute_floats(c, "prob_b");
    per_class = c.attribute_ints("vectors_per_class");
    const size_t classes = labels.size;
    if (!classes || classes > 65535 || !coefficients.size || !rho.size || a.size != b.size)
      return c.invalid("it needs labels, coefficients, rho, and as many prob_a as prob_b");
    for (float x : coefficients) is_positive = is_positive && x >= 0;
    uint64_t count = 0;
    for (int64_t n : per_class) {
      if (n < 0 || n > INT32_MAX) return c.invalid("a class has % support vectors", n);
      count += static_cast<uint64_t>(n);
    }
    ORTOLAN_TRY(vectors.read(c, count));
    scores = classes;
    if (!count) {
      width = coefficients.size / classes;
      return Status::kOk;
    }
    width = vectors.width;
    const size_t pairs = classes * (classes - 1) / 2;
    if (classes < 2 || per_class.size != classes || vectors.values.size < count ||
        coefficients.size / count < classes - 1 || rho.size < pairs || (a.size && a.size < pairs))
      return c.invalid("its lists do not fit % classes and % support vectors", classes, count);
    if (!a.size && classes > 2) scores = pairs;
    return Status::kOk;
  }

  // Kernel values, the scores of pairs with the votes behind them, and for probabilities two square
  // matrices and a vector.
  size_t scratch_floats() const {
    const size_t classes = labels.size;
    if (!vectors.count) return 0;
    return vectors.count + classes * classes + (a.size ? 2 * classes * classes + classes : 0);
  }

  // Scores to z, the label as result.
  template <class T>
  int64_t classify(const T* x, float* z, float* scratch) const {
    const size_t classes = labels.size;
    if (!vectors.count) {
      for (size_t i = 0; i < classes; ++i)
        z[i] = dot(x, coefficients.data + i * width, width) + rho[0];
      const int64_t label = choose_linear(z);
      transform_scores(transform, z, classes);
      return label;
    }
    float* pairs = scratch + vectors.count;
    float* rest = pairs + classes * classes;
    for (size_t k = 0; k < vectors.count; ++k) scratch[k] = vectors.kernel(x, k);
    const size_t best = vote(scratch, pairs, rest - classes);
    if (a.size) {
      estimate(pairs, z, rest);
      transform_scores(transform, z, classes);
    } else if (classes == 2) {
      expand_score(transform, transform == PostTransform::kNone, pairs[0], z);
    } else {
      copy(z, pairs, scores * sizeof(float));
      transform_scores(transform, z, scores);
    }
    return labels[best];
  }

 private:
  int64_t choose_linear(const float* z) const {
    size_t best = 0;
    for (size_t i = 1; i < labels.size; ++i)
      if (z[i] > z[best]) best = i;
    if (labels.size == 2 && !a.size && (is_positive ? z[best] >= 0.5f : z[best] > 0)) best = 1;
    return labels[best];
  }

  // Row j - 1 of the coefficients has those of class i < j against j, row i those of j against i.
  ORTOLAN_NOINLINE size_t vote(const float* kernels, float* pairs, float* votes) const {
    const size_t classes = labels.size;
    for (size_t i = 0; i < classes; ++i) votes[i] = 0;
    size_t begin_i = 0;
    for (size_t i = 0, pair = 0; i < classes; begin_i += static_cast<size_t>(per_class[i++])) {
      size_t begin_j = begin_i + static_cast<size_t>(per_class[i]);
      for (size_t j = i + 1; j < classes; begin_j += static_cast<size_t>(per_class[j++]), ++pair) {
        const double sum = add_up(kernels, j - 1, begin_i, per_class[i]) +
                           add_up(kernels, i, begin_j, per_class[j]) + rho[pair];
        pairs[pair] = static_cast<float>(sum);
        ++votes[sum > 0 ? i : j];
      }
    }
    size_t best = 0;
    for (size_t i = 1; i < classes; ++i)
      if (votes[i] > votes[best]) best = i;
    return best;
  }
  double add_up(const float* kernels, size_t row, size_t begin, int64_t n) const {
    const float* weights = coefficients.data + row * vectors.count;
    double sum = 0;
    for (size_t k = begin; k < begin + static_cast<size_t>(n); ++k)
      sum += static_cast<double>(weights[k]) * kernels[k];
    return sum;
  }

  // Probabilities p of the classes from those of the pairs, by the iteration of Wu, Lin and Weng
  // (2004), their second method.
  ORTOLAN_NOINLINE void estimate(const float* pairs, float* p, float* scratch) const {
    const size_t n = labels.size;
    float *r = scratch, *q = r + n * n, *qp = q + n * n;
    for (size_t i = 0, pair = 0; i < n; ++i)
      for (size_t j = i + 1; j < n; ++j, ++pair) {
        const float value = 1 - math::sigmoid(pairs[pair] * a[pair] + b[pair]);
        r[i * n + j] = min(max(value, 1e-7f), 1 - 1e-7f);
        r[j * n + i] = 1 - r[i * n + j];
      }
    for (size_t i = 0; i < n; ++i) {
      p[i] = 1.0f / static_cast<float>(n);
      q[i * n + i] = 0;
      for (size_t j = 0; j < n; ++j) {
        if (j == i) continue;
        q[i * n + i] += r[j * n + i] * r[j * n + i];
        q[i * n + j] = -r[j * n + i] * r[i * n + j];
      }
    }
    for (int round = 0; round < 100 && !improve(q, qp, p); ++round) {
    }
  }
  // One round; true when p is good enough.
  bool improve(const float* q, float* qp, float* p) const {
    const size_t n = labels.size;
    float total = 0, error = 0;
    for (size_t i = 0; i < n; ++i) {
      qp[i] = 0;
      for (size_t j = 0; j < n; ++j) qp[i] += q[i * n + j] * p[j];
      total += p[i] * qp[i];
    }
    for (size_t i = 0; i < n; ++i) error = max(error, __builtin_fabsf(qp[i] - total));
    if (error < 0.005f / static_cast<float>(n)) return true;
    for (size_t i = 0; i < n; ++i) {
      const float step = (total - qp[i]) / q[i * n + i], scale = 1 + step;
      p[i] += step;
      total = (total + step * (step * q[i * n + i] + 2 * qp[i])) / scale / scale;
      for (size_t j = 0; j < n; ++j) {
        qp[j] = (qp[j] + step * q[i * n + j]) / scale;
        p[j] /= scale;
      }
    }
    return false;
  }
};

}  // namespace ortolan::portable
