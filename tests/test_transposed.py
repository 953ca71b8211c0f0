"""ConvTranspose and Conv in small groups against sums over taps in float64, on every vector width.

Sizes, strides, dilations, pads, output padding, groups and batches are random; where weights come
with a run, they are packed by it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from cases_lib import levels
from ortolan.build.variants import record_variants

Array: TypeAlias = npt.NDArray[Any]
FLOAT = TensorProto.FLOAT


def transposed(x: Array, w: Array, bias: Array, at: dict[str, Any]) -> Array:
    """ConvTranspose of X [N, G * C, ...] and W [G * C, M, ...]."""
    rank, group = x.ndim - 2, at["group"]
    strides, dilations, pads = at["strides"], at["dilations"], at["pads"]
    more = at.get("output_padding", [0] * rank)
    size = [
        (x.shape[2 + i] - 1) * strides[i] + (w.shape[2 + i] - 1) * dilations[i] + 1 + more[i]
        for i in range(rank)
    ]
    each, outs = w.shape[0] // group, w.shape[1]
    whole = np.zeros((x.shape[0], group, outs, *size))
    parts = x.astype(np.float64).reshape(x.shape[0], group, each, *x.shape[2:])
    weights = w.astype(np.float64).reshape(group, each, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        product = np.einsum("ngc...,gcm->ngm...", parts, weights[(..., *tap)])
        place = tuple(
            slice(tap[i] * dilations[i], tap[i] * dilations[i] + n * strides[i], strides[i])
            for i, n in enumerate(x.shape[2:])
        )
        whole[(slice(None),) * 3 + place] += product
    whole = whole.reshape(x.shape[0], group * outs, *size)
    inner = tuple(slice(pads[i], size[i] - pads[rank + i]) for i in range(rank))
    result: Array = whole[(slice(None), slice(None), *inner)]
    return result + bias.reshape(-1, *[1] * rank)


def grouped(x: Array, w: Array, bias: Array, at: dict[str, Any]) -> Array:
    """Conv of X [N, G * C, ...] and W [G * M, C, ...]."""
    rank, group = x.ndim - 2, at["group"]
    strides, dilations, pads = at["strides"], at["dilations"], at["pads"]
    around = [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))]
    wide = np.pad(x.astype(np.float64), around)
    size = [
        (wide.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(rank)
    ]
    outs = w.shape[0] // group
    parts = wide.reshape(x.shape[0], group, w.shape[1], *wide.shape[2:])
    weights = w.astype(np.float64).reshape(group, outs, *w.shape[1:])
    sums = np.zeros((x.shape[0], group, outs, *size))
    for tap in np.ndindex(*w.shape[2:]):
        place = tuple(
            slice(
                tap[i] * dilations[i], tap[i] * dilations[i] + (n - 1) * strides[i] + 1, strides[i]
            )
            for i, n in enumerate(size)
        )
        seen = parts[(slice(None),) * 3 + place]
        sums += np.einsum("ngc...,gmc->ngm...", seen, weights[(..., *tap)])
    result: Array = sums.reshape(x.shape[0], group * outs, *size)
    return result + bias.reshape(-1, *[1] * rank)


def _model(
    operator: str, x: Array, w: Array, bias: Array, at: dict[str, Any], fixed: bool
) -> bytes:
    info = helper.make_tensor_value_info
    inputs = [info("x", FLOAT, x.shape)] + ([] if fixed else [info("w", FLOAT, w.shape)])
    constants = [numpy_helper.from_array(bias, "b")]
    constants += [numpy_helper.from_array(w, "w")] if fixed else []
    node = helper.make_node(operator, ["x", "w", "b"], ["y"], kernel_shape=w.shape[2:], **at)
    graph = helper.make_graph([node], "g", inputs, [info("y", FLOAT, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def check(operator: str, x: Array, w: Array, bias: Array, at: dict[str, Any], fixed: bool) -> None:
    expected = (transposed if operator == "ConvTranspose" else grouped)(x, w, bias, at)
    content = ortolan.convert(_model(operator, x, w, bias, at, fixed))
    feeds = {"x": x} if fixed else {"x": x, "w": w}
    for level in levels():
        results = []
        for threads in (1, 2):
            options = ortolan.SessionOptions()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("ortolan.instruction_set", level)
            results.append(ortolan.InferenceSession(content, options).run(None, feeds)[0])
        case = f"{operator} {x.shape} {w.shape} {at}, set {level}"
        assert results[0].shape == expected.shape, case
        np.testing.assert_array_equal(results[0], results[1], case)
        limit = 2e-6 * max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(results[0], expected, rtol=0, atol=limit, err_msg=case)


@pytest.mark.parametrize("seed", range(40))
def test_random_transposed_convolutions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    most = {1: 60, 2: 13, 3: 6}[rank]
    size = rng.integers(1, most, rank)
    kernel, strides = rng.integers(1, 6, rank), rng.integers(1, 5, rank)
    dilations = rng.integers(1, 4, rank) if rng.random() < 0.4 else np.ones(rank, int)
    room = np.maximum(0, (size - 1) * strides + (kernel - 1) * dilations)
    pads = [int(rng.integers(0, min(4, r // 2 + 1))) for r in (*room, *room)]
    at = {
        "strides": strides.tolist(), "dilations": dilations.tolist(), "pads": pads,
        "group": int(rng.choice([1, 1, 1, 2, 5])),
    }  # fmt: skip
    if rng.random() < 0.5:
        at["output_padding"] = [
            int(rng.integers(0, max(s, d))) for s, d in zip(strides, dilations, strict=True)
        ]
    channels = at["group"] * int(rng.choice([1, 3, 8, 16, 21]))
    outs = int(rng.choice([1, 2, 3, 4, 7, 16, 19, 33]))
    x = rng.standard_normal((int(rng.integers(1, 4)), channels, *size)).astype(np.float32)
    w = rng.standard_normal((channels, outs, *kernel)).astype(np.float32)
    bias = rng.standard_normal(outs * at["group"]).astype(np.float32)
    check("ConvTranspose", x, w, bias, at, bool(rng.random() < 0.8))


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (4, 2, 1), (5, 3, 2)])
@pytest.mark.parametrize("outs", [1, 3, 24])
def test_blocks_of_pixels(kernel: int, stride: int, pad: int, outs: int) -> None:
    """More positions than a unit has rows, over the ends of lines and of images."""
    rng = np.random.default_rng(outs)
    x = rng.standard_normal((2, 6, 13, 17)).astype(np.float32)
    w = rng.standard_normal((6, outs, kernel, kernel)).astype(np.float32)
    bias = rng.standard_normal(outs).astype(np.float32)
    at = {"strides": [stride] * 2, "dilations": [1, 1], "pads": [pad, 0, 0, pad], "group": 1}
    check("ConvTranspose", x, w, bias, at, True)


@pytest.mark.parametrize("outs", [3, 20])
@pytest.mark.parametrize("strides", [[2, 2], [1, 3], [3, 4]])
def test_long_lines(outs: int, strides: list[int]) -> None:
    """Lines of more positions than a unit has rows, which are written at once."""
    rng = np.random.default_rng(outs)
    x = rng.standard_normal((2, 10, 3, 240)).astype(np.float32)
    w = rng.standard_normal((10, outs, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(2 * outs).astype(np.float32)
    at = {"strides": strides, "dilations": [1, 1], "pads": [1, 0, 2, 1], "group": 2}
    check("ConvTranspose", x, w, bias, at, True)


@pytest.mark.parametrize("seed", range(30))
def test_random_small_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    of_group = int(rng.choice([2, 4, 8]))
    size = rng.integers(1, {1: 80, 2: 20, 3: 8}[rank], rank)
    kernel = np.full(rank, 3) if rng.random() < 0.5 else rng.integers(1, 5, rank)
    strides = np.ones(rank, int) if rng.random() < 0.6 else rng.integers(1, 4, rank)
    dilations = np.ones(rank, int) if rng.random() < 0.7 else rng.integers(1, 4, rank)
    pads = rng.integers(0, 3, 2 * rank)
    pads[:rank] += np.maximum(0, (kernel - 1) * dilations + 1 - size)
    at = {
        "strides": strides.tolist(), "dilations": dilations.tolist(), "pads": pads.tolist(),
        "group": int(rng.integers(2, 80 // of_group)),
    }  # fmt: skip
    channels = at["group"] * of_group
    x = rng.standard_normal((int(rng.integers(1, 4)), channels, *size)).astype(np.float32)
    w = rng.standard_normal((channels, of_group, *kernel)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    check("Conv", x, w, bias, at, bool(rng.random() < 0.8))


def test_infinities_stay_in_their_group() -> None:
    x = np.ones((1, 32, 5, 9), np.float32)
    x[0, 5, 2, 4] = np.inf
    w = np.ones((32, 4, 3, 3), np.float32)
    model = _model("Conv", x, w, np.zeros(32, np.float32), {"group": 8, "pads": [1, 1, 1, 1]}, True)
    y = ortolan.InferenceSession(ortolan.convert(model)).run(None, {"x": x})[0]
    assert np.isposinf(y[0, 4:8, 1:4, 3:6]).all()
    assert np.isinf(y).sum() == 4 * 9 and not np.isnan(y).any()


def test_small_groups_are_a_variant() -> None:
    """Where a vector has whole groups and there are channels for a vector."""
    x, bias = np.ones((1, 8, 5, 5), np.float32), np.zeros(8, np.float32)
    w = np.ones((8, 4, 3, 3), np.float32)
    content = ortolan.convert(_model("Conv", x, w, bias, {"group": 2}, True))
    assert isinstance(content, bytes)

    def names(lanes: int) -> set[str]:
        return {use.variant for use in record_variants(content, [lanes])}

    assert names(4) == names(8) == {"partners"} and names(16) == {"general"}
