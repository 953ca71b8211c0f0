"""Constants that loading makes, as weights in float32 of halves: kept while somebody reads them.

Whoever packs its weights reads them no more, and they are freed. Every model here has a second
reader of the same weights, or none.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from scarce_lib import Memory, Model

Array: TypeAlias = npt.NDArray[Any]
HALF = TensorProto.FLOAT16
CHANNELS = 96  # weights of 36 KB: larger than what shares a piece of memory


def _weights(*shape: int) -> Array:
    return (np.random.default_rng(5).standard_normal(shape) / 10).astype(np.float16)


def _model(nodes: list[onnx.NodeProto], outputs: list[str], x: list[int], w: Array) -> bytes:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "packed", [info("x", HALF, x)], [info(name, HALF, None) for name in outputs],
        [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17)]
    return ortolan.convert(
        helper.make_model(graph, opset_imports=imports, ir_version=8), level="disable"
    )


def _run(content: bytes, x: Array, **more: Array) -> list[Array]:
    results: list[Array] = ortolan.InferenceSession(content).run(None, {"x": x, **more})
    return results


def _product(x: Array, w: Array) -> Array:
    return (x.astype(np.float64) @ w.astype(np.float64)).astype(np.float16)


X = _weights(3, CHANNELS)
W = _weights(CHANNELS, CHANNELS)
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])
SUM = helper.make_node("ReduceSum", ["w"], ["z"], keepdims=0)


def test_two_products_of_the_same_weights() -> None:
    again = helper.make_node("MatMul", ["y", "w"], ["z"])
    y, z = _run(_model([MATMUL, again], ["y", "z"], [3, CHANNELS], W), X)
    np.testing.assert_allclose(y, _product(X, W), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(z, _product(y, W), rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("nodes", [[MATMUL, SUM], [SUM, MATMUL]], ids=["behind", "before"])
def test_a_reader_that_does_not_pack(nodes: list[onnx.NodeProto]) -> None:
    y, z = _run(_model(nodes, ["y", "z"], [3, CHANNELS], W), X)
    np.testing.assert_allclose(y, _product(X, W), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(z, W.sum(dtype=np.float64), rtol=4e-3)


def test_a_view_of_weights_that_are_packed() -> None:
    shape = helper.make_node("Constant", [], ["s"], value_ints=[CHANNELS, CHANNELS])
    view = helper.make_node("Reshape", ["w", "s"], ["v"])
    again = helper.make_node("MatMul", ["y", "v"], ["z"])
    content = _model([MATMUL, shape, view, again], ["y", "z"], [3, CHANNELS], W)
    y, z = _run(content, X)
    np.testing.assert_allclose(z, _product(y, W), rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("choice", [True, False])
def test_weights_that_a_body_reads_too(choice: bool) -> None:
    out = [helper.make_tensor_value_info("z", HALF, None)]
    product = helper.make_graph([helper.make_node("MatMul", ["y", "w"], ["z"])], "a", [], out)
    total = helper.make_graph([helper.make_node("ReduceMax", ["w"], ["z"])], "b", [], out)
    least = helper.make_node("ReduceMin", ["x"], ["m"], keepdims=0)
    condition = helper.make_node("Greater", ["m", "limit"], ["choice"])
    limit = helper.make_node(
        "Constant", [], ["limit"],
        value=numpy_helper.from_array(np.array(-100 if choice else 100, np.float16)),
    )  # fmt: skip
    branch = helper.make_node("If", ["choice"], ["z"], then_branch=product, else_branch=total)
    content = _model([MATMUL, least, limit, condition, branch], ["y", "z"], [3, CHANNELS], W)
    y, z = _run(content, X)
    expected = _product(y, W) if choice else W.max().reshape(1, 1)
    np.testing.assert_allclose(z, expected, rtol=4e-3, atol=4e-3)


def test_weights_that_are_an_output() -> None:
    y, w = _run(_model([MATMUL], ["y", "w"], [3, CHANNELS], W), X)
    assert np.array_equal(w, W)
    np.testing.assert_allclose(y, _product(X, W), rtol=2e-3, atol=2e-3)


def test_weights_in_float32_are_freed_when_they_are_packed() -> None:
    """What stays is the packed weights alone, of twice the bytes that the halves have."""
    memory = Memory()
    w = _weights(1024, 512)
    model = Model(_model([MATMUL], ["y"], [3, 1024], w), memory)
    try:
        assert memory.bytes < 2 * w.nbytes + 200_000
    finally:
        model.close()
    assert memory.bytes == 0
