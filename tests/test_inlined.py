"""Operators that have no kernel because the standard's body is enough, over all their attributes.

onnxruntime, which inlines them as well, says what is right; where it cannot run the body, the
standard's reference does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

import cases_lib as lib
import cases_oracle
import ortolan
from ortolan import catalog

Inputs = tuple[lib.Spec | None, ...]


def _normal(*shape: int, dtype: str = "float", seed: int = 1) -> lib.Spec:
    return {"type": dtype, "shape": list(shape), "random": "normal", "seed": seed}


def _whole(
    *shape: int, low: int = 0, high: int = 5, dtype: str = "int64", seed: int = 2
) -> lib.Spec:
    return {
        "type": dtype, "shape": list(shape), "random": "integers", "seed": seed,
        "low": low, "high": high,
    }  # fmt: skip


def _case(
    name: str, opset: int, inputs: Inputs, attributes: Mapping[str, Any], outputs: int = 1
) -> lib.Case:
    return lib.Case("inlined", name, "", "case", opset, inputs, outputs, attributes)


def _casts() -> Iterator[lib.Case]:
    names = ("float", "double", "int8", "uint8", "int32", "int64", "bool")
    for a, b in itertools.product(names, names):
        first = _whole(3, 4, dtype=a, high=2 if a == "bool" else 5)
        yield _case("CastLike", 19, (first, _whole(1, dtype=b, high=2)), {})
    for opset in (15, 21, 23, 25):
        yield _case("CastLike", opset, (_normal(5), _whole(2)), {})
    yield _case("CastLike", 24, (_normal(5), _whole(2)), {"saturate": 0})


def _losses() -> Iterator[lib.Case]:
    reductions = ("mean", "sum", "none")
    shapes = ((4, 5), (3, 5, 2), (2, 5, 3, 2))
    options = itertools.product(
        reductions, (False, True), (None, 2, -1), shapes, ("int64", "int32")
    )
    for reduction, weighted, ignored, shape, target in options:
        attributes: dict[str, Any] = {"reduction": reduction}
        if ignored is not None:
            attributes["ignore_index"] = ignored
        labels = _whole(shape[0], *shape[2:], dtype=target)
        weights = {"type": "float", "shape": [5], "random": "uniform", "seed": 3}
        inputs: Inputs = (_normal(*shape), labels) + ((weights,) if weighted else ())
        yield _case("NegativeLogLikelihoodLoss", 13, inputs, attributes)
        for outputs in (1, 2):
            yield _case("SoftmaxCrossEntropyLoss", 13, inputs, attributes, outputs)
    for opset in (12, 22):
        yield _case("NegativeLogLikelihoodLoss", opset, (_normal(4, 5), _whole(4)), {})
    yield _case("SoftmaxCrossEntropyLoss", 12, (_normal(4, 5), _whole(4)), {})


CASES = [*_casts(), *_losses()]


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{k}-{case.operator}-{case.opset}" for k, case in enumerate(CASES)]
)
def test_body_gives_what_the_operator_means(case: lib.Case) -> None:
    assert not catalog.knows("", case.operator)
    model = lib.make_model(case)
    try:
        expected: Sequence[Any] = cases_oracle.run_onnxruntime(model)
    except cases_oracle.NoOracleError:
        evaluator = onnx.reference.ReferenceEvaluator(model.proto)
        expected = list(evaluator.run(model.outputs, model.feeds))
    got = ortolan.InferenceSession(ortolan.convert(model.proto)).run(None, model.feeds)
    problems = [lib.differences(a, np.asarray(b)) for a, b in zip(got, expected, strict=True)]
    assert problems == [""] * len(expected)
