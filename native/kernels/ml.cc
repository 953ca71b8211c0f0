// Classical machine learning (ai.onnx.ml): decision trees, linear models, support vector machines
// and the small operators that prepare features for them.
#include "kernels/support_vectors.h"
#include "kernels/tree_ensemble.h"

namespace ortolan::portable {

namespace {

constexpr size_t kMaxScores = size_t{1} << 24;

// Thresholds and sums are as exact as the features.
template <class T>
struct WeightOf {
  using Type = float;
};
template <>
struct WeightOf<double> {
  using Type = double;
};

ORTOLAN_NOINLINE Status set_targets(Context& c, TreeShape* shape, uint64_t targets, size_t weight) {
  if (targets < 1 || targets > kMaxScores) return c.invalid("it has % scores", targets);
  shape->targets = targets;
  shape->weight = weight;
  return Status::kOk;
}

ORTOLAN_NOINLINE Status find_tree_rows(Context& c, Rows* rows) {
  const TreeShape& shape = c.state<TreeShape>();
  ORTOLAN_TRY(find_rows(c, rows));
  if (rows->count && shape.features > rows->width)
    return c.invalid("the trees read % features, a row has %", shape.features, rows->width);
  c.request_scratch(0, round_up(shape.targets * (shape.weight + sizeof(bool)), kAlignment));
  return Status::kOk;
}

// Calls finish(row, sums, has) for each row of X.
template <class T, class W, class Finish>
void score_rows(const Context& c, const Ensemble<W>& e, const Rows& rows, const Finish& finish) {
  const T* x = c.input_data<T>(0);
  each_row(c, rows.count, e.roots.size * 20, [&](size_t i, size_t thread) {
    W* sums = static_cast<W*>(c.thread_scratch(thread));
    bool* has = reinterpret_cast<bool*>(sums + e.targets);
    e.score(x + i * rows.width, sums, has);
    finish(i, sums, has);
  });
}

// Results of a regression in place. As in onnxruntime, a target that no tree votes for is 0.
template <class W>
void finish_targets(const Ensemble<W>& e, W* sums, const bool* has) {
  const bool has_base = e.base.size == e.targets;
  for (size_t i = 0; i < e.targets; ++i) {
    if (e.aggregate == Aggregate::kAverage) sums[i] /= static_cast<W>(e.roots.size);
    if (has_base) sums[i] += e.base[i];
    if (e.targets > 1 && !has[i]) sums[i] = 0;
  }
}

template <class W, class Y>
void write_targets(const Ensemble<W>& e, const W* sums, Y* y) {
  if constexpr (is_same<Y, float>) {
    for (size_t i = 0; i < e.targets; ++i) y[i] = static_cast<float>(sums[i]);
    transform_scores(e.transform, y, e.targets);
  } else {
    float* narrow = reinterpret_cast<float*>(y);
    for (size_t i = 0; i < e.targets; ++i) y[i] = sums[i];
    if (e.transform == PostTransform::kNone) return;
    // onnxruntime, too, transforms floats. They fill the front half of the row and are widened
    // from behind.
    for (size_t i = 0; i < e.targets; ++i) {
      const float value = static_cast<float>(sums[i]);
      copy(narrow + i, &value, sizeof(value));
    }
    transform_scores(e.transform, narrow, e.targets);
    for (size_t i = e.targets; i-- > 0;) {
      float value;
      copy(&value, narrow + i, sizeof(value));
      y[i] = value;
    }
  }
}

}  // namespace

struct TreeEnsembleRegressor {
  template <class T>
  static Status prepare(Context& c) {
    using W = typename WeightOf<T>::Type;
    auto* e = c.make_state<Ensemble<W>>();
    if (!e) return c.out_of_memory();
    constexpr String kAggregates[] = {"AVERAGE", "SUM", "MIN", "MAX"};
    const String text = c.attribute_string("aggregate_function", "SUM");
    size_t aggregate;
    if (!find_name(text, kAggregates, &aggregate))
      return c.invalid("aggregate_function % is unknown", text);
    e->aggregate = static_cast<Aggregate>(aggregate);
    ORTOLAN_TRY(
        set_targets(c, e, static_cast<uint64_t>(c.attribute_int("n_targets", 1)), sizeof(W)));
    ORTOLAN_TRY(read_post_transform(c, &e->transform));
    TreeBuilder<W> builder(c, *e);
    ORTOLAN_TRY(builder.read_base());
    return builder.read_lists(false);
  }
  static Status infer(Context& c) {
    Rows rows;
    ORTOLAN_TRY(find_tree_rows(c, &rows));
    return set_rows(c, 0, rows.count, c.state<TreeShape>().targets);
  }
  template <class T>
  static Status run(Context& c) {
    return run_typed<T, float>(c);
  }

 protected:
  template <class T, class Y>
  static Status run_typed(Context& c) {
    using W = typename WeightOf<T>::Type;
    const auto& e = c.state<Ensemble<W>>();
    Rows rows;
    ORTOLAN_TRY(find_rows(c, &rows));
    Y* y = c.output_data<Y>(0);
    score_rows<T>(c, e, rows, [&](size_t i, W* sums, const bool* has) {
      finish_targets(e, sums, has);
      write_targets(e, sums, y + i * e.targets);
    });
    return Status::kOk;
  }
};

// Version 5's form, with numbers for names and tensors for lists.
struct TreeEnsemble : TreeEnsembleRegressor {
  template <class T>
  static Status prepare(Context& c) {
    auto* e = c.make_state<Ensemble<T>>();
    if (!e) return c.out_of_memory();
    const int64_t aggregate = c.attribute_int("aggregate_function", 1);
    const int64_t transform = c.attribute_int("post_transform", 0);
    if (aggregate < 0 || aggregate > 3 || transform < 0 || transform > 4)
      return c.invalid("aggregate_function % or post_transform % is unknown", aggregate, transform);
    e->aggregate = static_cast<Aggregate>(aggregate);
    e->transform = static_cast<PostTransform>(transform);
    ORTOLAN_TRY(
        set_targets(c, e, static_cast<uint64_t>(c.attribute_int("n_targets", 1)), sizeof(T)));
    return TreeBuilder<T>(c, *e).read_tensors();
  }
  template <class T>
  static Status run(Context& c) {
    return run_typed<T, T>(c);
  }
};

struct TreeEnsembleClassifier {
  template <class T>
  static Status prepare(Context& c) {
    using W = typename WeightOf<T>::Type;
    auto* e = c.make_state<Ensemble<W>>();
    if (!e) return c.out_of_memory();
    ORTOLAN_TRY(e->labels.read(c, "classlabels_int64s"));
    ORTOLAN_TRY(set_targets(c, e, e->labels.size, sizeof(W)));
    ORTOLAN_TRY(read_post_transform(c, &e->transform));
    TreeBuilder<W> builder(c, *e);
    ORTOLAN_TRY(builder.read_base());
    ORTOLAN_TRY(builder.read_lists(true));
    e->is_binary = e->targets == 2 && e->weights.size;
    for (const TreeWeight<W>& weight : e->weights) {
      e->is_binary = e->is_binary && weight.target == e->weights[0].target;
      e->is_positive = e->is_positive && weight.value >= 0;
    }
    return Status::kOk;
  }
  static Status infer(Context& c) {
    Rows rows;
    ORTOLAN_TRY(find_tree_rows(c, &rows));
    ORTOLAN_TRY(set_labels(c, rows.count));
    return set_rows(c, 1, rows.count, c.state<TreeShape>().targets);
  }
  template <class T>
  static Status run(Context& c) {
    using W = typename WeightOf<T>::Type;
    const auto& e = c.state<Ensemble<W>>();
    Rows rows;
    ORTOLAN_TRY(find_rows(c, &rows));
    int64_t* y = c.output_data<int64_t>(0);
    float* z = c.output_data<float>(1);
    score_rows<T>(c, e, rows, [&](size_t i, W* sums, bool* has) {
      float* to = z + i * e.targets;
      y[i] = e.targets == 1   ? finish_one(e, sums[0], to)
             : e.targets == 2 ? finish_two(e, sums, has, to)
                              : finish_many(e, sums, has, to);
    });
    return e.labels.name(c);
  }

 private:
  // onnxruntime's rules for one and two classes, its surprises included.
  template <class W>
  static int64_t finish_one(const Ensemble<W>& e, W sum, float* z) {
    if (e.base.size == 2) {
      float both[] = {0, static_cast<float>(sum + e.base[1])};
      const int64_t label = both[1] > 0;
      both[0] = -both[1];
      transform_scores(e.transform, both, 2);
      *z = both[0];
      return label;
    }
    if (e.base.size == 1) sum += e.base[0];
    *z = static_cast<float>(sum);
    transform_scores(e.transform, z, 1);
    return sum > 0;
  }

  template <class W>
  static int64_t finish_two(const Ensemble<W>& e, W* sums, const bool* has, float* z) {
    bool has_first = has[0];
    if (e.base.size == 2) {
      sums[1] = has[1] ? e.base[1] + sums[0] : 0;
      sums[0] = has[1] ? -sums[1] : sums[0] + e.base[0];
      has_first = has_first || !has[1];
    } else if (e.base.size == 1) {
      sums[0] += e.base[0];
    }
    if (!has_first) sums[0] = 0;
    const bool alone = !has[1] && e.base.size != 2;
    const W positive = has[1] ? sums[1] : sums[0];
    if (alone && (e.is_binary || !e.base.size)) {
      const bool is_signed = !e.is_binary || !e.is_positive;
      expand_score(e.transform, is_signed, static_cast<float>(sums[0]), z);
    } else {
      z[0] = static_cast<float>(sums[0]), z[1] = static_cast<float>(sums[1]);
      transform_scores(e.transform, z, 2);
    }
    if (!e.is_binary) return positive > 0;
    return e.labels[positive > (e.is_positive ? W(0.5) : W(0))];
  }

  template <class W>
  static int64_t finish_many(const Ensemble<W>& e, W* sums, const bool* has, float* z) {
    size_t best = e.targets;
    for (size_t i = 0; i < e.targets; ++i) {
      if (e.base.size) sums[i] += e.base[i];
      const bool counts = has[i] || e.base.size;
      if (counts && (best == e.targets || sums[i] > sums[best])) best = i;
      z[i] = static_cast<float>(sums[i]);
    }
    transform_scores(e.transform, z, e.targets);
    return e.labels[best == e.targets ? 0 : best];
  }
};

// Y = X * coefficients' + intercepts.
struct LinearRegressor {
  struct State {
    Span<const float> coefficients, intercepts;
    Labels labels;
    size_t targets = 1;
    PostTransform transform = PostTransform::kNone;

    template <class T>
    void apply(const T* x, size_t width, float* y) const {
      const float* row = coefficients.data;
      for (size_t i = 0; i < targets; ++i, row += width)
        y[i] = dot(x, row, width) + (intercepts.size ? intercepts[i] : 0);
    }
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    const int64_t targets = c.attribute_int("targets", 1);
    if (targets < 1 || static_cast<uint64_t>(targets) > kMaxScores)
      return c.invalid("it has % targets", targets);
    state->targets = static_cast<size_t>(targets);
    return read(c, state);
  }
  static Status infer(Context& c) {
    Rows rows;
    ORTOLAN_TRY(find(c, &rows));
    return set_rows(c, 0, rows.count, c.state<State>().targets);
  }
  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Rows rows;
    ORTOLAN_TRY(find(c, &rows));
    const T* x = c.input_data<T>(0);
    float* y = c.output_data<float>(0);
    each_row(c, rows.count, state.coefficients.size, [&](size_t i, size_t) {
      float* to = y + i * state.targets;
      state.apply(x + i * rows.width, rows.width, to);
      transform_scores(state.transform, to, state.targets);
    });
    return Status::kOk;
  }

 protected:
  static Status read(Context& c, State* state) {
    state->coefficients = attribute_floats(c, "coefficients");
    state->intercepts = attribute_floats(c, "intercepts");
    if (state->intercepts.size && state->intercepts.size != state->targets)
      return c.invalid("% intercepts for % targets", state->intercepts.size, state->targets);
    return read_post_transform(c, &state->transform);
  }
  static Status find(Context& c, Rows* rows) {
    const State& state = c.state<State>();
    ORTOLAN_TRY(find_rows(c, rows));
    // More than needed are left unread, as onnxruntime does: its own example model has them.
    if (rows->width <= state.coefficients.size / state.targets) return Status::kOk;
    return c.invalid("% coefficients for % features and % targets", state.coefficients.size,
                     rows->width, state.targets);
  }
};

// A single score stands for the second of two classes.
struct LinearClassifier : LinearRegressor {
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    ORTOLAN_TRY(state->labels.read(c, "classlabels_ints"));
    const size_t intercepts = attribute_floats(c, "intercepts").size;
    state->targets = intercepts ? intercepts : state->labels.size;
    const bool fits =
        state->targets == state->labels.size || (state->targets == 1 && state->labels.size == 2);
    if (!fits || !state->targets)
      return c.invalid("% labels for % scores", state->labels.size, state->targets);
    return read(c, state);
  }
  static Status infer(Context& c) {
    Rows rows;
    ORTOLAN_TRY(find(c, &rows));
    ORTOLAN_TRY(set_labels(c, rows.count));
    return set_rows(c, 1, rows.count, c.state<State>().labels.size);
  }
  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Rows rows;
    ORTOLAN_TRY(find(c, &rows));
    const T* x = c.input_data<T>(0);
    int64_t* y = c.output_data<int64_t>(0);
    float* z = c.output_data<float>(1);
    each_row(c, rows.count, state.coefficients.size, [&](size_t i, size_t) {
      float* to = z + i * state.labels.size;
      state.apply(x + i * rows.width, rows.width, to);
      y[i] = choose(state, to);
    });
    return state.labels.name(c);
  }

 private:
  static int64_t choose(const State& state, float* z) {
    const Span<const int64_t>& labels = state.labels;
    if (state.targets == 1) {
      const float score = *z;
      if (labels.size == 1) return transform_scores(state.transform, z, 1), labels[0];
      expand_score(state.transform, false, score, z);
      return labels[score > 0];
    }
    size_t best = 0;
    for (size_t i = 1; i < state.targets; ++i)
      if (z[i] > z[best]) best = i;
    transform_scores(state.transform, z, state.targets);
    return labels[best];
  }
};

struct SVMRegressor {
  struct State {
    SupportVectors vectors;
    Span<const float> coefficients;
    float rho = 0;
    bool one_class = false;
  };
  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    state->coefficients = attribute_floats(c, "coefficients");
    state->one_class = c.attribute_int("one_class", 0) != 0;
    const Span<const float> rho = attribute_floats(c, "rho");
    const int64_t supports = c.attribute_int("n_supports", 0);
    const uint64_t needed = supports > 0 ? static_cast<uint64_t>(supports) : 1;
    if (!rho.size || state->coefficients.size < needed)
      return c.invalid("it needs rho and % coefficients", needed);
    state->rho = rho[0];
    return state->vectors.read(c, supports > 0 ? needed : 0);
  }
  static Status infer(Context& c) {
    const State& state = c.state<State>();
    Rows rows;
    ORTOLAN_TRY(find_rows(c, &rows));
    const size_t width = state.vectors.count ? state.vectors.width : state.coefficients.size;
    if (rows.width != width) return c.invalid("a row has % features, not %", rows.width, width);
    return set_rows(c, 0, rows.count, 1);
  }
  template <class T>
  static Status run(Context& c) {
    const State& state = c.state<State>();
    Rows rows;
    ORTOLAN_TRY(find_rows(c, &rows));
    const T* x = c.input_data<T>(0);
    float* y = c.output_data<float>(0);
    const SupportVectors& v = state.vectors;
    each_row(c, rows.count, (v.count + 1) * rows.width, [&](size_t i, size_t) {
      const T* row = x + i * rows.width;
      double sum = state.rho;
      if (v.count)
        for (size_t k = 0; k < v.count; ++k)
          sum += static_cast<double>(state.coefficients[k]) * v.kernel(row, k);
      else
        sum += dot(row, state.coefficients.data, rows.width);
      y[i] = static_cast<float>(sum);
      if (state.one_class) y[i] = y[i] > 0 ? 1 : -1;
    });
    return Status::kOk;
  }
};

struct SVMClassifier {
  static Status prepare(Context& c) {
    SvmClasses* state = c.make_state<SvmClasses>();
    return state ? state->read(c) : c.out_of_memory();
  }
  static Status infer(Context& c) {
    const SvmClasses& state = c.state<SvmClasses>();
    Rows rows;
    ORTOLAN_TRY(find_rows(c, &rows));
    if (rows.width != state.width)
      return c.invalid("a row has % features, not %", rows.width, state.width);
    c.request_scratch(0, round_up(state.scratch_floats() * sizeof(float), kAlignment));
    ORTOLAN_TRY(set_labels(c, rows.count));
    return set_rows(c, 1, rows.count, state.scores);
  }
  template <class T>
  static Status run(Context& c) {
    const SvmClasses& state = c.state<SvmClasses>();
    Rows rows;
    ORTOLAN_TRY(find_rows(c, &rows));
    const T* x = c.input_data<T>(0);
    int64_t* y = c.output_data<int64_t>(0);
    float* z = c.output_data<float>(1);
    const size_t work = (state.vectors.count + state.labels.size) * rows.width;
    each_row(c, rows.count, work, [&](size_t i, size_t thread) {
      y[i] = state.classify(x + i * rows.width, z + i * state.scores,
                            static_cast<float*>(c.thread_scratch(thread)));
    });
    return state.labels.name(c);
  }
};

// Divides rows by their greatest element or their norm.
struct Normalizer {
  enum Norm : uint8_t { kMax, kL1, kL2 };

  static Status infer(Context& c) {
    Rows rows;
    size_t norm;
    ORTOLAN_TRY(find_norm(c, &norm));
    ORTOLAN_TRY(find_rows(c, &rows));
    return c.set_output(0, c.input_shape(0));
  }
  template <class T>
  static Status run(Context& c) {
    Rows rows;
    size_t norm;
    ORTOLAN_TRY(find_norm(c, &norm));
    ORTOLAN_TRY(find_rows(c, &rows));
    const T* x = c.input_data<T>(0);
    float* y = c.output_data<float>(0);
    each_row(c, rows.count, rows.width, [&](size_t i, size_t) {
      const T* from = x + i * rows.width;
      float* to = y + i * rows.width;
      const double size = measure(from, rows.width, static_cast<Norm>(norm));
      for (size_t k = 0; k < rows.width; ++k)
        to[k] = static_cast<float>(size != 0 ? static_cast<double>(from[k]) / size
                                             : static_cast<double>(from[k]));
    });
    return Status::kOk;
  }

 private:
  static Status find_norm(Context& c, size_t* norm) {
    constexpr String kNames[] = {"MAX", "L1", "L2"};
    const String text = c.attribute_string("norm", "MAX");
    if (!find_name(text, kNames, norm)) return c.invalid("norm % is unknown", text);
    return Status::kOk;
  }
  template <class T>
  static double measure(const T* x, size_t n, Norm norm) {
    double greatest = -__DBL_MAX__, sum = 0;
    for (size_t k = 0; k < n; ++k) {
      const double value = static_cast<double>(x[k]);
      greatest = value > greatest ? value : greatest;
      sum += norm == kL2 ? value * value : value < 0 ? -value : value;
    }
    return norm == kMax ? greatest : norm == kL1 ? sum : __builtin_sqrt(sum);
  }
};

// (X - offset) * scale, with one of each or one per column.
struct Scaler {
  static Status infer(Context& c) {
    const size_t offsets = attribute_floats(c, "offset").size;
    const size_t scales = attribute_floats(c, "scale").size;
    const Shape& shape = c.input_shape(0);
    const size_t width = shape.rank ? static_cast<size_t>(shape[shape.rank > 1 ? 1 : 0]) : 1;
    if ((offsets != width && offsets != 1) || scales != offsets)
      return c.invalid("% offsets and % scales for % features", offsets, scales, width);
    return c.set_output(0, shape);
  }
  template <class T>
  static Status run(Context& c) {
    const Span<const float> offset = attribute_floats(c, "offset");
    const Span<const float> scale = attribute_floats(c, "scale");
    const T* x = c.input_data<T>(0);
    float* y = c.output_data<float>(0);
    for (size_t i = 0, k = 0, n = c.output_shape(0).count(); i < n; ++i) {
      y[i] = static_cast<float>((x[i] - offset[k]) * scale[k]);
      if (++k == offset.size) k = 0;
    }
    return Status::kOk;
  }
};

struct Imputer {
  static Status infer(Context& c) {
    const Shape& shape = c.input_shape(0);
    const bool floats = c.input_type(0) == DataType::kFloat || c.input_type(0) == DataType::kDouble;
    const size_t values = floats ? attribute_floats(c, "imputed_value_floats").size
                                 : c.attribute_ints("imputed_value_int64s").size;
    if (!values) return c.invalid("it has no values of X's type to impute");
    return c.set_output(0, shape);
  }
  template <class T>
  static Status run(Context& c) {
    if constexpr (is_float<T>)
      replace<T>(c, static_cast<T>(c.attribute_float("replaced_value_float", 0)),
                 attribute_floats(c, "imputed_value_floats"));
    else
      replace<T>(c, c.attribute_int("replaced_value_int64", 0),
                 c.attribute_ints("imputed_value_int64s"));
    return Status::kOk;
  }

 private:
  // Missing: equal to `missing`, or NaN like it. As in onnxruntime, other numbers of values than
  // the row has elements leave the first for all.
  template <class T, class M, class V>
  static void replace(Context& c, M missing, Span<const V> values) {
    const Shape& shape = c.input_shape(0);
    const size_t width = shape.rank ? static_cast<size_t>(shape[shape.rank > 1 ? 1 : 0]) : 1;
    const size_t step = values.size == width ? 1 : 0;
    const T* x = c.input_data<T>(0);
    T* y = c.output_data<T>(0);
    for (size_t i = 0, k = 0, n = shape.count(); i < n; ++i) {
      const bool both_nan = x[i] != x[i] && missing != missing;
      y[i] = x[i] == missing || both_nan ? static_cast<T>(values[k]) : x[i];
      k += step;
      if (k == width) k = 0;
    }
  }
};

// Rows of the inputs side by side, each cut or filled with zeros to its dimension.
struct FeatureVectorizer {
  static Status infer(Context& c) {
    const Span<const int64_t> widths = c.attribute_ints("inputdimensions");
    if (widths.size != c.input_count())
      return c.invalid("% dimensions for % inputs", widths.size, c.input_count());
    uint64_t total = 0;
    for (int64_t width : widths) {
      if (width < 0 || width > INT32_MAX) return c.invalid("an input dimension is %", width);
      total += static_cast<uint64_t>(width);
    }
    if (total > INT32_MAX) return c.invalid("the input dimensions make %", total);
    if (!c.has_input(0)) return c.invalid("it has no inputs");
    const size_t rows = row_count(c, 0);
    for (size_t k = 0; k < c.input_count(); ++k)
      if (!c.input_shape(k).rank || row_count(c, k) != rows)
        return c.invalid("input % has not % rows", k, rows);
    return set_rows(c, 0, rows, total);
  }
  template <class T>
  static Status run(Context& c) {
    const Span<const int64_t> widths = c.attribute_ints("inputdimensions");
    const size_t rows = row_count(c, 0), total = static_cast<size_t>(c.output_shape(0)[1]);
    float* column = c.output_data<float>(0);
    for (size_t k = 0; k < c.input_count(); ++k) {
      const Shape& shape = c.input_shape(k);
      const size_t width = shape.product(shape.rank == 1 ? 0 : 1, shape.rank);
      const size_t wanted = static_cast<size_t>(widths[k]), count = min(width, wanted);
      const T* from = c.input_data<T>(k);
      for (size_t i = 0; i < rows; ++i, from += width) {
        float* to = column + i * total;
        for (size_t j = 0; j < count; ++j) to[j] = static_cast<float>(from[j]);
        for (size_t j = count; j < wanted; ++j) to[j] = 0;
      }
      column += wanted;
    }
    return Status::kOk;
  }

 private:
  static size_t row_count(const Context& c, size_t k) {
    const Shape& shape = c.input_shape(k);
    return shape.rank < 2 ? 1 : static_cast<size_t>(shape[0]);
  }
};

struct Binarizer {
  template <class T>
  static Status run(Context& c) {
    const float threshold = c.attribute_float("threshold", 0);
    const T* x = c.input_data<T>(0);
    T* y = c.output_data<T>(0);
    for (size_t i = 0, n = c.output_shape(0).count(); i < n; ++i) y[i] = x[i] > threshold;
    return Status::kOk;
  }
};

// Columns of X that Y names.
struct ArrayFeatureExtractor {
  static Status infer(Context& c) {
    Shape shape = c.input_shape(0);
    const size_t count = c.input_shape(1).count();
    if (!shape.rank || !count) return c.invalid("it needs a dimension of X and an index");
    shape[shape.rank - 1] = static_cast<int64_t>(count);
    if (shape.rank == 1) shape[0] = 1, shape.append(static_cast<int64_t>(count));
    return c.set_output(0, shape);
  }
  template <class Word>
  static Status run(Context& c) {
    typedef Word Loose __attribute__((may_alias));
    const Shape& shape = c.input_shape(0);
    const size_t width = static_cast<size_t>(shape[shape.rank - 1]);
    const size_t rows = shape.product(0, shape.rank - 1), count = c.input_shape(1).count();
    const Loose* x = c.input_data<Loose>(0);
    const int64_t* index = c.input_data<int64_t>(1);
    for (size_t k = 0; k < count; ++k)
      if (index[k] < 0 || static_cast<uint64_t>(index[k]) >= width)
        return c.invalid("index % is outside rows of %", index[k], width);
    Loose* z = c.output_data<Loose>(0);
    for (size_t i = 0; i < rows; ++i, x += width)
      for (size_t k = 0; k < count; ++k) *z++ = x[index[k]];
    return Status::kOk;
  }
};

}  // namespace ortolan::portable

#include "ml.inc"
