"""Random numbers: their type and shape, what a seed fixes, and their moments.

What onnxruntime draws is not asked for; the bounds are five standard errors of fixed seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import ortolan

COUNT = 40000
FLOAT, INT64, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE
NAMES = ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"]


def make_session(
    name: str, opset: int = 13, element: int = FLOAT, rank: int = 1, **attributes: Any
) -> ortolan.InferenceSession:
    """A session of one node, with an input where the operator has one."""
    has_input = name.endswith("Like") or name in ("Bernoulli", "Multinomial")
    dims = [f"d{i}" for i in range(rank)]
    inputs = [helper.make_tensor_value_info("x", element, dims)] if has_input else []
    if not has_input:
        attributes.setdefault("shape", [COUNT])
    node = helper.make_node(name, ["x"] if has_input else [], ["y"], **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ortolan.InferenceSession(ortolan.convert(model))


def draw(session: ortolan.InferenceSession, x: Any = None) -> np.ndarray[Any, Any]:
    """The node's result; `x` is the input, zeros where the operator looks at the shape alone."""
    feeds = {
        item.name: np.zeros(COUNT, np.float32) if x is None else x for item in session.get_inputs()
    }
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("name", NAMES)
def test_seed_fixes_the_numbers(name: str) -> None:
    first = draw(make_session(name, seed=3.0))
    session = make_session(name, seed=3.0)
    assert np.array_equal(first, draw(session))
    assert np.array_equal(first, draw(session))
    assert not np.array_equal(first, draw(make_session(name, seed=4.0)))
    assert np.unique(first).size > 0.95 * COUNT


@pytest.mark.parametrize("name", NAMES)
def test_without_seed_no_two_runs_are_alike(name: str) -> None:
    session = make_session(name)
    draws = [draw(session), draw(session), draw(make_session(name))]
    assert len({a.tobytes() for a in draws}) == len(draws)


def test_two_nodes_draw_different_numbers() -> None:
    nodes = [helper.make_node("RandomUniform", [], [name], shape=[50]) for name in "ab"]
    outputs = [onnx.ValueInfoProto(name=name) for name in "ab"]
    graph = helper.make_graph(nodes, "g", [], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    a, b = ortolan.InferenceSession(ortolan.convert(model)).run(None, {})
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE])
@pytest.mark.parametrize("name", ["RandomNormal", "RandomNormalLike"])
def test_normal_moments(name: str, dtype: int) -> None:
    numbers = draw(make_session(name, seed=1.0, mean=2.0, scale=3.0, dtype=dtype))
    assert numbers.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    z = (numbers.astype(np.float64) - 2) / 3
    error = 5 / np.sqrt(COUNT)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < error * np.sqrt(variance)
    assert abs((z[1:] * z[:-1]).mean()) < error


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE])
@pytest.mark.parametrize("name", ["RandomUniform", "RandomUniformLike"])
def test_uniform_moments(name: str, dtype: int) -> None:
    numbers = draw(make_session(name, seed=1.0, low=-1.0, high=3.0, dtype=dtype))
    assert numbers.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    assert numbers.min() >= -1
    assert numbers.max() < 3
    u = (numbers.astype(np.float64) + 1) / 4
    error = 5 / np.sqrt(COUNT)
    assert abs(u.mean() - 0.5) < error * np.sqrt(1 / 12)
    assert abs(((u - 0.5) ** 2).mean() - 1 / 12) < error * np.sqrt(1 / 180)
    counts = np.histogram(u, 16, (0, 1))[0]
    assert np.abs(counts - COUNT / 16).max() < 5 * np.sqrt(COUNT / 16)


@pytest.mark.parametrize("name", ["RandomNormalLike", "RandomUniformLike"])
def test_type_is_the_inputs(name: str) -> None:
    assert draw(make_session(name, element=DOUBLE), np.zeros(3)).dtype == np.float64
    made = draw(make_session(name, element=INT64, rank=2, dtype=FLOAT), np.zeros((2, 3), np.int64))
    assert made.dtype == np.float32
    assert made.shape == (2, 3)


@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize("dtype", [None, INT64])
def test_multinomial(opset: int, dtype: int | None) -> None:
    attributes = {} if dtype is None else {"dtype": dtype}
    session = make_session("Multinomial", opset, rank=2, seed=2.0, sample_size=COUNT, **attributes)
    shares = np.array([[0.1, 0.2, 0.7], [0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        drawn = draw(session, (np.log(shares) + 3).astype(np.float32))
    assert drawn.shape == (2, COUNT)
    assert drawn.dtype == (np.int32 if dtype is None else np.int64)
    for row, expected in zip(drawn, shares, strict=True):
        found = np.bincount(row, minlength=3) / COUNT
        assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / COUNT)
    assert not np.array_equal(drawn[0] == 0, drawn[1] == 0)


@pytest.mark.parametrize("opset", [15, 22])
@pytest.mark.parametrize("dtype", [None, INT64, onnx.TensorProto.BOOL])
def test_bernoulli(opset: int, dtype: int | None) -> None:
    """As many ones as the probabilities say, in the type that is asked for."""
    attributes = {} if dtype is None else {"dtype": dtype}
    session = make_session("Bernoulli", opset, rank=2, seed=5.0, **attributes)
    drawn = draw(session, np.repeat(np.array([[0.0], [0.3], [1.0]], np.float32), COUNT, axis=1))
    assert drawn.dtype == helper.tensor_dtype_to_np_dtype(dtype or FLOAT)
    shares = drawn.astype(np.float64).mean(axis=1)
    assert shares[0] == 0
    assert shares[2] == 1
    assert abs(shares[1] - 0.3) < 5 * np.sqrt(0.3 * 0.7 / COUNT)
    assert set(np.unique(drawn[1]).tolist()) == {0, 1}
