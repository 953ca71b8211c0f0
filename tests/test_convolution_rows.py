"""Convolutions whose kernel rows are short, and pools, by rows of the image.

Windows that are inside, that reach beyond each side and that miss the image, few and many channels,
against onnxruntime; on every instruction set and with two threads the same bits for a batch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from cases_lib import levels

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Case:
    """An operator with the shape of its input, that of its weights, and its attributes."""

    x: tuple[int, ...]
    w: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    after: str = ""
    operator: str = "Conv"


CASES = {
    "digits": Case((1, 1, 28, 28), (8, 1, 5, 5), {"auto_pad": "SAME_UPPER"}, "Relu"),
    "few channels, a tile a row": Case((1, 8, 14, 14), (16, 8, 5, 5), {"pads": [2] * 4}),
    "a vector and a half": Case((1, 3, 17, 23), (24, 3, 3, 3), {"pads": [1] * 4}, "Sigmoid"),
    "less than half a vector": Case((2, 2, 9, 31), (5, 2, 3, 3), {"pads": [1] * 4}, "Relu"),
    "one output": Case((1, 1, 12, 12), (1, 1, 4, 4), {"pads": [3, 0, 0, 2]}),
    "between half and a vector": Case((1, 4, 13, 13), (11, 4, 2, 2), {}, "Tanh"),
    "several panels": Case((1, 3, 40, 29), (70, 3, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
    "other strides": Case((1, 5, 21, 33), (16, 5, 3, 5), {"pads": [0, 3, 2, 1],
        "strides": [3, 2]}),
    "dilated rows": Case((1, 3, 20, 20), (8, 3, 3, 3), {"pads": [2, 0, 1, 0],
        "dilations": [2, 1]}),
    "dilated columns": Case((1, 3, 20, 20), (12, 3, 3, 3), {"pads": [0, 4, 0, 2],
        "dilations": [1, 3]}),
    "windows that miss the image": Case((1, 2, 4, 5), (8, 2, 3, 3), {"pads": [6, 7, 5, 4]}, "Relu"),
    "a kernel larger than the image": Case((1, 2, 3, 4), (16, 2, 5, 7), {"pads": [2, 3, 2, 3]}),
    "a long line": Case((2, 1, 3000), (40, 1, 9), {"pads": [4, 4]}),
    "a long line, strides": Case((1, 2, 4001), (7, 2, 10), {"strides": [5]}, "Relu"),
    "many channels, few outputs": Case((1, 90, 11, 10), (6, 90, 3, 3), {"pads": [1] * 4}),
    "one tap, strides": Case((1, 20, 9, 9), (33, 20, 1, 1), {"strides": [2, 2]}),
    "one tap, pads": Case((1, 6, 9, 9), (8, 6, 1, 1), {"pads": [1, 2, 0, 3]}),
    "a batch": Case((9, 3, 32, 32), (32, 3, 5, 5), {"pads": [2] * 4}, "Relu"),
    "a residual": Case((1, 8, 15, 16), (8, 8, 3, 3), {"pads": [1] * 4}, "Add"),
    "wide lines": Case((1, 12, 40, 300), (16, 12, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
    "no channels": Case((1, 0, 5, 5), (8, 0, 3, 3), {"pads": [1] * 4}),
    "maxima": Case((2, 8, 28, 27), attributes={"kernel_shape": [2, 2], "strides": [2, 2]},
        operator="MaxPool"),
    "maxima, pads": Case((1, 70, 9, 12), attributes={"kernel_shape": [3, 4], "pads": [2, 3, 1, 0],
        "strides": [1, 2]}, operator="MaxPool"),
    "maxima, dilated": Case((1, 5, 19, 20), attributes={"kernel_shape": [3, 3], "pads": [2] * 4,
        "dilations": [3, 2]}, operator="MaxPool"),
    "means": Case((1, 20, 13, 14), attributes={"kernel_shape": [3, 3], "pads": [1, 0, 1, 2]},
        operator="AveragePool"),
    "means, ceil": Case((1, 3, 13, 14), attributes={"kernel_shape": [3, 3], "pads": [1] * 4,
        "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}, operator="AveragePool"),
}  # fmt: skip


def model_of(case: Case) -> bytes:
    rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
    constants = []
    if case.w:
        scale = 1 / np.sqrt(max(float(np.prod(case.w[1:])), 1.0))
        constants = [
            numpy_helper.from_array((rng.standard_normal(case.w) * scale).astype(np.float32), "w"),
            numpy_helper.from_array(rng.standard_normal(case.w[:1]).astype(np.float32), "b"),
        ]
    names = ["x", *(t.name for t in constants)]
    nodes = [helper.make_node(case.operator, names, ["c"], **case.attributes)]
    more = ["x"] if case.after == "Add" else []
    nodes.append(helper.make_node(case.after or "Identity", ["c", *more], ["y"]))
    info = helper.make_tensor_value_info
    inputs, outputs = [info("x", FLOAT, case.x)], [info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def result(data: bytes, level: str, threads: int, x: Any) -> Any:
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("ortolan.instruction_set", level)
    options.add_session_config_entry("ortolan.winograd_bytes", "0")
    return ortolan.InferenceSession(data, options).run(None, {"x": x})[0]


@pytest.mark.parametrize("name", CASES)
def test_results(name: str) -> None:
    case = CASES[name]
    model = model_of(case)
    data = ortolan.convert(model)
    x = np.random.default_rng(1).standard_normal(case.x).astype(np.float32)
    if 0 in case.x:  # onnxruntime refuses it
        expected = np.broadcast_to(bias_of(model)[:, None, None], (1, case.w[0], 5, 5))
    else:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        expected = session.run(None, {"x": x})[0]
    for level in levels():
        found = result(data, level, 1, x)
        limit = 2e-6 * float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=level)
        assert np.array_equal(found, result(data, level, 2, x)), level


def bias_of(model: bytes) -> Any:
    return numpy_helper.to_array(onnx.load_from_string(model).graph.initializer[1])


def test_a_nan_stays_where_windows_see_it() -> None:
    """Halves of vectors and copied lines carry nothing over to other pixels."""
    case = CASES["less than half a vector"]
    x = np.random.default_rng(2).standard_normal(case.x).astype(np.float32)
    x[0, 1, 4, 30] = np.nan
    seen = np.zeros((2, 5, 9, 31), bool)
    seen[0, :, 3:6, 29:] = True
    for level in levels():
        found = result(ortolan.convert(model_of(case)), level, 1, x)
        assert np.array_equal(np.isnan(found), seen), level
