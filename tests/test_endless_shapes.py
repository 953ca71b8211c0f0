"""Tensors without elements whose other dimensions are as large as they like, found by reading.

They are no operator cases, as machines of 32 bits refuse such shapes before any kernel sees them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

import ortolan

F32, U8 = np.float32, np.uint8
HUGE = 2**27
PADS = [HUGE // 2, HUGE // 2, HUGE // 2 - 1, HUGE // 2 - 1]
TOO_MANY = "has more than 268435456 taps"
ONE = [np.array(1, F32), np.array(0, U8)]


def empty(*shape: int, dtype: Any = F32) -> Any:
    """A tensor without elements."""
    return np.zeros(shape, dtype)


class Node(NamedTuple):
    """One node and a piece of what it must say."""

    operator: str
    inputs: list[Any]
    attributes: dict[str, Any]
    error: str
    domain: str = ""


NODES = [
    Node("Attention", [np.ones((1, 1, 32), F32), empty(1, 0, 1), empty(1, 0, 2**59 + 1)],
         {"q_num_heads": 32, "kv_num_heads": 1}, "are too large"),
    Node("Attention", [empty(0, 2**40, 1, 1), empty(0, 1, 1, 1), empty(0, 1, 1, 2**40)], {},
         "is too large"),
    Node("GatherBlockQuantized",
         [empty(0, 2**62, dtype=U8), empty(0, dtype=np.int32), empty(0, 1)], {"bits": 2},
         "is too large", "com.microsoft"),
    Node("QLinearConcat", ONE + [empty(2**62, 0, dtype=U8), *ONE] * 2, {"axis": 0},
         "the result is too long", "com.microsoft"),
    Node("ConvInteger", [empty(1, 0, 1, 1, dtype=U8), empty(1, 0, HUGE, HUGE, dtype=U8)],
         {"pads": PADS}, TOO_MANY),
    Node("Conv", [empty(1, 0, 1, 1), empty(1, 0, HUGE, HUGE)], {"pads": PADS}, TOO_MANY),
    Node("ConvTranspose", [empty(1, 0, 1, 1), empty(0, 1, HUGE, HUGE), np.array([0.5], F32)],
         {"pads": PADS, "strides": [HUGE // 2] * 2}, TOO_MANY),
    Node("ConvTranspose", [np.ones((1, 3, 4), F32), empty(0, 2**33, 4)], {}, "channels"),
]  # fmt: skip


def run(nodes: list[Any], feeds: dict[str, Any]) -> Any:
    """The result y of nodes, which are not converted."""
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    graph = helper.make_graph(nodes, "endless", inputs, [onnx.ValueInfoProto(name="y")])
    imports = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = ortolan.SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ortolan.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]


@pytest.mark.parametrize("node", NODES, ids=[node.operator for node in NODES])
def test_endless_shapes(node: Node) -> None:
    feeds = {f"x{i}": value for i, value in enumerate(node.inputs)}
    made = helper.make_node(
        node.operator, list(feeds), ["y"], domain=node.domain, **node.attributes
    )
    with pytest.raises(ortolan.OrtolanError, match=node.error):
        run([made], feeds)


def test_endless_sequence() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    with pytest.raises(ortolan.OrtolanError, match="the result is too long"):
        run(nodes, {"x": empty(2**62, 0, dtype=np.int8)})


def test_endless_split() -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["first", "second"], num_outputs=2),
        helper.make_node("Shape", ["first"], ["y"]),
    ]
    assert run(nodes, {"x": empty(2**63 - 1, 0, dtype=np.int8)}).tolist() == [2**62, 0]
