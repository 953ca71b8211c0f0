"""Two small models that between them reach most of the runtime: for damaging, and for threads.

`convnet` is an image classifier whose layouts change on the way; `control` is made of Scan, Loop
and nested If, with captures at two levels, carried states and views.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import numpy_helper

import ortolan

__all__ = ["FEEDS", "TEXTS", "converted", "model"]

_CONVNET = """
<ir_version: 8, opset_import: ["" : 16], producer_name: "hostile">
convnet (float[N, 1, 12, 12] image, bool[1] flag) => (float[N, 4] scores, int64[N] best)
{
    c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    r1 = Relu (c1)
    p1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
    d1 = Conv <group = 4, pads = [1, 1, 1, 1]> (p1, w2)
    a1 = Add (d1, p1)
    half = If (flag) <
        then_branch = pooled () => (float[N, 4, H, W] y) {
            q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a1)
            y = Mul (q, scale)
        },
        else_branch = largest () => (float[N, 4, H, W] y) {
            y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a1)
        }
    >
    t1 = Transpose <perm = [0, 2, 3, 1]> (half)
    s1 = Shape (image)
    n1 = Gather <axis = 0> (s1, zero)
    target = Concat <axis = 0> (n1, rest)
    flat = Reshape (t1, target)
    logits = Gemm <transB = 1> (flat, w3, b3)
    scores = Softmax <axis = -1> (logits)
    best = ArgMax <axis = 1, keepdims = 0> (scores)
}
"""

_CONTROL = """
<ir_version: 8, opset_import: ["" : 16]>
control (float[T, 2, 3] x, float[2, 3] h, int64 trip, bool keep)
    => (float[2, 3] last, float[T, 2, 3] all, float[2, 3] looped, float[K, 2, 3] kept,
        int64[K] counts, float[T, 1, 2, 4] sequence, float[2, 6] halves)
{
    last, all = Scan <num_scan_inputs = 1, scan_output_directions = [1], body = step (
            float[2, 3] before, float[2, 3] item) => (float[2, 3] after, float[2, 3] copy) {
        sum = Add (before, item)
        after = Tanh (sum)
        copy = Identity (after)
    }> (h, x)
    looped, partner, kept, counts = Loop <body = turn (
            int64 i, bool go, float[2, 3] v, float[2, 3] w)
            => (bool again, float[2, 3] w, float[2, 3] v2, float[2, 3] view, int64 number) {
        again = Identity (go)
        v2 = If (keep) <
            then_branch = grow () => (float[2, 3] y) {
                scaled = Mul (v, factor)
                y = Add (scaled, last)
            },
            else_branch = stay () => (float[2, 3] y) {
                y = Identity (v)
            }
        >
        flat = Reshape (w, six)
        view = Reshape (flat, two_three)
        number = Add (i, one)
    }> (trip, keep, h, last)
    sequence, final, cell = LSTM <hidden_size = 4> (x, lstm_w, lstm_r, lstm_b)
    left, right = Split <axis = 0> (looped)
    both = Concat <axis = 1> (left, right)
    wide = Expand (both, two_one)
    cut = Slice (wide, zero, two)
    mask = Greater (cut, nought)
    halves = Where (mask, cut, nought)
}
"""

TEXTS = {"convnet": _CONVNET, "control": _CONTROL}


def _initializers(name: str) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(11)

    def normal(*shape: int) -> npt.NDArray[Any]:
        return random.standard_normal(shape).astype(np.float32) / 2

    def integers(*values: int) -> npt.NDArray[Any]:
        return np.array(values, np.int64)

    if name == "convnet":
        return {
            "w1": normal(4, 1, 3, 3), "b1": normal(4), "w2": normal(4, 1, 3, 3),
            "scale": np.array(0.5, np.float32), "zero": integers(0), "rest": integers(36),
            "w3": normal(4, 36), "b3": normal(4),
        }  # fmt: skip
    return {
        "factor": np.array(0.5, np.float32), "one": np.array(1, np.int64), "six": integers(6),
        "two_three": integers(2, 3), "two_one": integers(2, 1), "zero": integers(0),
        "two": integers(2), "nought": np.array(0, np.float32),
        "lstm_w": normal(1, 16, 3), "lstm_r": normal(1, 16, 4), "lstm_b": normal(1, 32),
    }  # fmt: skip


FEEDS: dict[str, dict[str, npt.NDArray[Any]]] = {
    "convnet": {
        "image": np.linspace(-1, 1, 288, dtype=np.float32).reshape(2, 1, 12, 12),
        "flag": np.array([True]),
    },
    "control": {
        "x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 2, 3),
        "h": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
        "trip": np.array(5, np.int64),
        "keep": np.array(True),
    },
}
"""A set of feeds for each model."""


@functools.cache
def model(name: str) -> onnx.ModelProto:
    """The ONNX model of a name in `TEXTS`."""
    made = onnx.parser.parse_model(TEXTS[name])
    made.graph.initializer.extend(
        numpy_helper.from_array(array, key) for key, array in _initializers(name).items()
    )
    onnx.checker.check_model(made)
    return made


@functools.cache
def converted(name: str, level: str = "disable") -> bytes:
    """The ORT format file of a model; "disable" keeps every node that the text has."""
    return ortolan.convert(model(name), level=level)
