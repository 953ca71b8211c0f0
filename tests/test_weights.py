"""What loading knows of weights when a file says little, and what it leaves to the first run.

Convolutions of images of unknown size or rank, weights that are defaults of inputs, which a caller
may replace, first runs at the same time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from ortolan.benchmarking import operator_times

Array: TypeAlias = npt.NDArray[np.float32]
FLOAT = TensorProto.FLOAT


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _model(
    nodes: list[onnx.NodeProto], image: list[Any] | None, weights: dict[str, Array], *,
    defaults: bool = False,
) -> bytes:  # fmt: skip
    info = helper.make_tensor_value_info
    inputs = [info("x", FLOAT, image)]
    if defaults:
        inputs += [info(name, FLOAT, [None] * w.ndim) for name, w in weights.items()]
    graph = helper.make_graph(
        nodes, "g", inputs, [info("y", FLOAT, None)],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _session(model: bytes, winograd_bytes: int = 1 << 26) -> ortolan.InferenceSession:
    options = ortolan.SessionOptions()
    options.add_session_config_entry("ortolan.winograd_bytes", str(winograd_bytes))
    return ortolan.InferenceSession(ortolan.convert(model), options)


def _expected(model: bytes, feeds: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, feeds)[0]
    return result


def _close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


CONV = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)


@pytest.mark.parametrize("image", [None, ["n", 32, "h", "w"], ["n", 32, 40, 41]])
def test_transformed_weights_need_no_size_of_the_image(image: list[Any] | None) -> None:
    model = _model([CONV], image, {"w": _random(32, 32, 3, 3)})
    x = _random(1, 32, 40, 41, seed=1)
    plain = _session(model, 0).run(None, {"x": x})[0]
    fast = _session(model).run(None, {"x": x})[0]
    assert not np.array_equal(plain, fast), "the weights were not transformed"
    for found in (plain, fast):
        _close(found, _expected(model, {"x": x}))


def test_an_image_of_unknown_rank_is_converted_once() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("InstanceNormalization", ["a", "s", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"], pads=[1] * 4),
    ]
    weights = {"w": _random(8, 8, 3, 3), "s": _random(8, seed=1), "b": _random(8, seed=2)}
    model = _model(nodes, None, weights)
    x = _random(2, 8, 9, 10, seed=3)
    session = _session(model)
    _close(session.run(None, {"x": x})[0], _expected(model, {"x": x}))
    counts = {row.operator: row.nodes for row in operator_times(session, {"x": x}, 1)}
    assert counts["ai.ortolan:Layout"] == 2


def test_weights_that_are_defaults_are_packed_and_can_be_replaced() -> None:
    model = _model([CONV], ["n", 32, 40, 41], {"w": _random(32, 32, 3, 3)}, defaults=True)
    x, other = _random(1, 32, 40, 41, seed=1), _random(32, 32, 3, 3, seed=2)
    narrow = _random(5, 32, 3, 3, seed=3)
    plain, fast = _session(model, 0), _session(model)
    feeds: list[dict[str, Array]] = [{}, {"w": other}, {}, {"w": narrow}, {"w": other}, {}]
    for more in feeds:
        found = fast.run(None, {"x": x, **more})[0]
        _close(found, _expected(model, {"x": x, **more}))
        exact = plain.run(None, {"x": x, **more})[0]
        assert np.array_equal(found, exact) == bool(more), "only the default is transformed"


def test_a_normalization_with_defaults_leaves_the_layout() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["y"]),
    ]
    weights = {"w": _random(20, 20, 1, 1)}
    weights |= {name: _random(20, seed=k) ** 2 + 0.5 for k, name in enumerate("sbmv")}
    model = _model(nodes, ["n", 20, 6, 7], weights, defaults=True)
    x = _random(2, 20, 6, 7, seed=9)
    session = _session(model)
    for more in ({}, {"s": _random(20, seed=11)}):
        _close(session.run(None, {"x": x, **more})[0], _expected(model, {"x": x, **more}))
    counts = {row.operator: row.nodes for row in operator_times(session, {"x": x}, 1)}
    assert counts["ai.ortolan:Layout"] == 2


def test_a_default_that_does_not_fit_is_told_of_only_when_it_is_used() -> None:
    model = _model([CONV], ["n", 4, 6, 6], {"w": _random(4, 4, 5, 5)}, defaults=True)
    session = _session(model)
    x, fits = _random(1, 4, 6, 6), _random(4, 4, 3, 3)
    _close(session.run(None, {"x": x, "w": fits})[0], _expected(model, {"x": x, "w": fits}))
    with pytest.raises(ortolan.errors.InvalidArgument, match="kernel_shape"):
        session.run(None, {"x": x})


CONVOLUTIONS = [
    helper.make_node("Conv", [f"v{i}" if i else "x", "w"], [f"v{i + 1}" if i < 3 else "y"],
                     pads=[1, 1, 1, 1])
    for i in range(4)
]  # fmt: skip
PRODUCTS = [
    helper.make_node("Gemm", ["x", "w"], ["a"], transB=1, alpha=0.5),
    helper.make_node("MatMul", ["a", "w"], ["b"]),
    helper.make_node("Gemm", ["b", "w"], ["y"]),
]


@pytest.mark.parametrize(
    ("nodes", "x", "w"),
    [
        (CONVOLUTIONS, (1, 64, 16, 16), (64, 64, 3, 3)),
        (PRODUCTS, (3, 250), (250, 250)),
    ],
    ids=["Winograd", "products"],
)
def test_first_runs_at_the_same_time_wait_for_the_weights_of_one(
    nodes: list[onnx.NodeProto], x: tuple[int, ...], w: tuple[int, ...], tmp_path: Path
) -> None:
    """Weights that lie in the file are packed by the first run, whichever it is."""
    model = _model(nodes, list(x), {"w": _random(*w, seed=5) * np.float32(0.04)})
    feeds = {"x": _random(*x, seed=6)}
    expected = _expected(model, feeds)
    (tmp_path / "model.onnx").write_bytes(model)
    path = ortolan.convert(tmp_path / "model.onnx", tmp_path / "model.ort")
    barrier = Barrier(8)
    for _ in range(10):
        session = ortolan.InferenceSession(path)

        def run(_: int, session: ortolan.InferenceSession = session) -> bytes:
            barrier.wait()
            found: Array = session.run(None, feeds)[0]
            _close(found, expected)
            return bytes(found.tobytes())

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(run, range(8)))) == 1
