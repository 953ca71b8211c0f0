"""30 scikit-learn pipelines: what they are trained on, how skl2onnx converts them.

The data are drawn here; answers are scikit-learn's own. HistGradientBoosting is not among
them: onnx 1.23 refuses the attributes that skl2onnx 1.20 makes of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

for _package in ("sklearn", "skl2onnx"):
    pytest.importorskip(_package)

from skl2onnx import convert_sklearn  # noqa: E402 - what is skipped above
from skl2onnx.common.data_types import (  # noqa: E402
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn import (  # noqa: E402
    base,
    cluster,
    compose,
    decomposition,
    ensemble,
    feature_extraction,
    gaussian_process,
    impute,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

ROWS, FEATURES = 120, 6
OPSET = {"": 18, "ai.onnx.ml": 3}
_WORDS = "an Owl sings; the ortolan flies, a model runs and runs on phones 42 times".split()


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """An estimator, and the columns that it is made for.

    Attributes:
        kind: "numbers", "labels" (a column of whole numbers), "texts", "words" (two columns of
            categories) or "mixed" (numbers and categories).
        names: whether the classes are texts.
        not_yet: the operator that is missing for it to run; its test expects the failure.
    """

    make: Callable[[], Any]
    kind: str = "numbers"
    names: bool = False
    tolerance: float = 1e-4
    not_yet: str = ""


def _chain(*steps: Any) -> Any:
    return pipeline.make_pipeline(*steps)


def _columns() -> Any:
    return compose.ColumnTransformer(
        [
            ("scale", preprocessing.StandardScaler(), [0, 1]),
            ("code", preprocessing.OneHotEncoder(handle_unknown="ignore"), [2]),
        ]
    )


Logistic = functools.partial(linear_model.LogisticRegression, max_iter=500)
PIPELINES: dict[str, Pipeline] = {
    "logistic": Pipeline(Logistic),
    "logistic-names": Pipeline(Logistic, names=True),
    "sgd": Pipeline(
        lambda: linear_model.SGDClassifier(loss="log_loss", alpha=0.05, random_state=0)
    ),
    "linear": Pipeline(linear_model.LinearRegression),
    "ridge-scaled": Pipeline(lambda: _chain(preprocessing.RobustScaler(), linear_model.Ridge())),
    "lasso-quadratic": Pipeline(
        lambda: _chain(preprocessing.PolynomialFeatures(2), linear_model.Lasso(0.01))
    ),
    "tree": Pipeline(lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=0)),
    "tree-regressor": Pipeline(lambda: tree.DecisionTreeRegressor(max_depth=5, random_state=0)),
    "forest": Pipeline(lambda: ensemble.RandomForestClassifier(12, random_state=0)),
    "forest-names": Pipeline(
        lambda: ensemble.RandomForestClassifier(7, random_state=0), names=True
    ),
    "extra-trees": Pipeline(lambda: ensemble.ExtraTreesRegressor(9, random_state=0)),
    "boosting": Pipeline(lambda: ensemble.GradientBoostingClassifier(n_estimators=9)),
    "boosting-regressor": Pipeline(lambda: ensemble.GradientBoostingRegressor(n_estimators=9)),
    "ada-boost": Pipeline(lambda: ensemble.AdaBoostClassifier(n_estimators=5, random_state=0)),
    "isolation": Pipeline(lambda: ensemble.IsolationForest(n_estimators=9, random_state=0)),
    "svc": Pipeline(lambda: _chain(preprocessing.MinMaxScaler(), svm.SVC(gamma="auto"))),
    "svr": Pipeline(lambda: svm.SVR(kernel="poly", degree=2)),
    "neighbors": Pipeline(lambda: neighbors.KNeighborsClassifier(3)),
    "neighbors-regressor": Pipeline(lambda: neighbors.KNeighborsRegressor(4)),
    "gaussian-process": Pipeline(
        lambda: gaussian_process.GaussianProcessRegressor(alpha=0.1), tolerance=1e-3
    ),
    "network": Pipeline(lambda: neural_network.MLPClassifier((9, 5), max_iter=200, random_state=0)),
    "gaussian-bayes": Pipeline(naive_bayes.GaussianNB),
    "bernoulli-bayes": Pipeline(
        lambda: _chain(preprocessing.Binarizer(), naive_bayes.BernoulliNB())
    ),
    "means": Pipeline(lambda: cluster.KMeans(4, n_init=1, random_state=0)),
    "components": Pipeline(
        lambda: _chain(
            impute.SimpleImputer(), preprocessing.StandardScaler(), decomposition.PCA(3), Logistic()
        )
    ),
    "normal-rows": Pipeline(
        lambda: _chain(preprocessing.MaxAbsScaler(), preprocessing.Normalizer(), Logistic())
    ),
    "bins": Pipeline(
        lambda: _chain(preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), Logistic())
    ),
    "one-hot-numbers": Pipeline(
        lambda: _chain(preprocessing.OneHotEncoder(handle_unknown="ignore"), Logistic()),
        kind="labels",
    ),
    "one-hot-words": Pipeline(
        lambda: _chain(preprocessing.OneHotEncoder(handle_unknown="ignore"), Logistic()),
        kind="words",
    ),
    "ordinal-words": Pipeline(
        lambda: _chain(preprocessing.OrdinalEncoder(), tree.DecisionTreeClassifier(max_depth=4)),
        kind="words",
    ),
    "columns": Pipeline(lambda: _chain(_columns(), Logistic()), kind="mixed"),
    "counts": Pipeline(
        lambda: _chain(feature_extraction.text.CountVectorizer(), naive_bayes.MultinomialNB()),
        kind="texts",
    ),
    # The tokens that skl2onnx makes for the default pattern are others than scikit-learn's.
    "tf-idf": Pipeline(
        lambda: _chain(
            feature_extraction.text.TfidfVectorizer(
                ngram_range=(1, 2), token_pattern="[a-zA-Z0-9_]+"
            ),
            linear_model.Ridge(),
        ),
        kind="texts",
    ),
}


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained pipeline as an ONNX model, what to feed it, and what scikit-learn says."""

    model: bytes
    feeds: dict[str, Any]
    expected: list[Any]
    tolerance: float


def _numbers(random: np.random.Generator) -> Any:
    return random.standard_normal((ROWS, FEATURES)).astype(np.float32)


def _data(kind: str) -> tuple[Any, dict[str, Any], list[tuple[str, Any]]]:
    """What to train on, the same as feeds by name, and their types for skl2onnx."""
    random = np.random.default_rng(7)
    if kind == "numbers":
        x = _numbers(random)
        return x, {"x": x}, [("x", FloatTensorType([None, FEATURES]))]
    if kind == "labels":
        x = random.integers(0, 4, (ROWS, 2))
        return x, {"x": x}, [("x", Int64TensorType([None, 2]))]
    words = np.array(_WORDS, object)
    if kind == "words":
        x = random.choice(words[:5], (ROWS, 2))
        return x, {"x": x}, [("x", StringTensorType([None, 2]))]
    if kind == "texts":
        x = np.array([" ".join(random.choice(words, 6)) for _ in range(ROWS)], object)
        return x, {"x": x[:, None]}, [("x", StringTensorType([None, 1]))]
    columns: dict[str, Any] = {
        "a": _numbers(random)[:, :1], "b": _numbers(random)[:, :1],
        "c": random.choice(words[:5], (ROWS, 1)),
    }  # fmt: skip
    types = [("a", FloatTensorType([None, 1])), ("b", FloatTensorType([None, 1]))]
    types.append(("c", StringTensorType([None, 1])))
    return np.concatenate([v.astype(object) for v in columns.values()], 1), columns, types


def fit(name: str) -> Fitted:
    """Trains a pipeline and converts it."""
    chosen = PIPELINES[name]
    x, feeds, types = _data(chosen.kind)
    random = np.random.default_rng(8)
    estimator = chosen.make()
    target: Any = random.integers(0, 3, ROWS)
    if chosen.kind == "numbers":
        target = np.asarray((x[:, 0] > 0).astype(int) + (x[:, 1] > 0.3))
        if base.is_regressor(estimator):
            target = x[:, 0] * 2 + np.sin(3 * x[:, 1])
    if chosen.names:
        target = np.array(["owl", "ortolan", "wren"], object)[target]
    estimator.fit(x, target)
    return _convert(estimator, x, feeds, types, chosen)


def _last(estimator: Any) -> Any:
    return estimator[-1] if isinstance(estimator, pipeline.Pipeline) else estimator


def _convert(
    estimator: Any, x: Any, feeds: dict[str, Any], types: list[tuple[str, Any]], chosen: Pipeline
) -> Fitted:
    has_chances = hasattr(estimator, "predict_proba")
    options = {id(_last(estimator)): {"zipmap": False}} if has_chances else None
    model = convert_sklearn(estimator, initial_types=types, target_opset=OPSET, options=options)
    expected = [estimator.predict(x)]
    if has_chances:
        expected.append(estimator.predict_proba(x))
    elif hasattr(estimator, "transform") and hasattr(_last(estimator), "cluster_centers_"):
        expected.append(estimator.transform(x))
    return Fitted(model.SerializeToString(), feeds, expected, chosen.tolerance)


def with_maps(x: Any, names: Any) -> tuple[bytes, Any]:
    """A classifier converted as skl2onnx does unless told otherwise, and what it was before."""
    estimator = Logistic().fit(x, names)
    types = [("x", FloatTensorType([None, x.shape[1]]))]
    model = convert_sklearn(estimator, initial_types=types, target_opset=OPSET)
    return model.SerializeToString(), estimator
