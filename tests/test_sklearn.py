"""scikit-learn pipelines, converted by skl2onnx, give what scikit-learn itself gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skl2onnx")

import ortolan
import sklearn_lib as lib
from ortolan.errors import OrtolanError

pytestmark = pytest.mark.filterwarnings("ignore")


def compare(got: Any, expected: Any, tolerance: float) -> None:
    """Labels are equal; numbers are near, relative to the largest."""
    expected = np.asarray(expected)
    got = np.asarray(got).reshape(expected.shape)
    if expected.dtype.kind in "OUSiu":
        assert np.array_equal(got.astype(str), expected.astype(str))
        return
    scale = max(float(np.abs(expected).max()), 1e-30)
    assert float(np.abs(got - expected).max()) <= tolerance * scale


def names() -> list[Any]:
    """The pipelines; those that cannot run yet must fail."""
    return [
        pytest.param(
            name,
            marks=[pytest.mark.xfail(raises=OrtolanError, reason=p.not_yet)] if p.not_yet else [],
        )
        for name, p in lib.PIPELINES.items()
    ]


@pytest.mark.parametrize("name", names())
def test_pipeline(name: str) -> None:
    fitted = lib.fit(name)
    session = ortolan.InferenceSession(fitted.model)
    results = session.run(None, fitted.feeds)
    for got, expected in zip(results, fitted.expected, strict=False):
        compare(got, expected, fitted.tolerance)


def test_there_are_thirty() -> None:
    assert sum(not pipeline.not_yet for pipeline in lib.PIPELINES.values()) >= 30


def test_probabilities_come_as_maps_by_default() -> None:
    """As skl2onnx writes classifiers unless it is told not to: a sequence of maps."""
    x = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    content, model = lib.with_maps(x, np.array(["low", "high"])[(x[:, 0] > 0).astype(int)])
    labels, maps = ortolan.InferenceSession(content).run(None, {"x": x})
    assert list(labels) == list(model.predict(x))
    chances = model.predict_proba(x)
    assert [set(item) for item in maps] == [{"low", "high"}] * 20
    compare([[item["high"], item["low"]] for item in maps], chances, 1e-5)


def test_other_numbers_are_seen() -> None:
    with pytest.raises(AssertionError):
        compare([1.0, 2.1], [1.0, 2.0], 1e-4)
    with pytest.raises(AssertionError):
        compare(["a", "b"], np.array(["a", "c"], object), 1e-4)
