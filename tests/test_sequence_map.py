"""SequenceMap: its body becomes a Loop, whatever the body's names and versions are.

The expected values are numpy's; onnxruntime refuses some of these graphs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper

import ortolan

Feeds = dict[str, Any]


def model_of(graph: str, body: str) -> bytes:
    """A model whose node `Map` becomes a SequenceMap with a body."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}')
    for node in model.graph.node:
        if node.op_type == "Map":
            node.op_type = "SequenceMap"
            node.attribute.append(helper.make_attribute("body", onnx.parser.parse_graph(body)))
    content: bytes = model.SerializeToString()
    return content


def run(model: bytes, level: str, feeds: Feeds) -> list[Any]:
    """Outputs as lists."""
    session = ortolan.InferenceSession(ortolan.convert(model, level=level))
    return [[item.tolist() for item in output] for output in session.run(None, feeds)]


X = [np.array([1, 2], np.float32), np.array([3], np.float32)]
ONE = "g (seq(float[N]) s) => (seq(float[N]) y) { y = Map(s) }"
CASES: dict[str, tuple[str, str, Feeds, list[Any]]] = {
    # The names are those of the standard's body.
    "names": (
        "g (seq(float[N]) s, float[1] t) => (seq(float[N]) y) { y = Map(s, t) }",
        "b (float[N] input_sequence, float[1] c) => (float[N] d) { d = Mul(input_sequence, c) }",
        {"s": X, "t": np.array([2], np.float32)},
        [[[2, 4], [6]]],
    ),
    "captured value": (
        "g (seq(float[N]) s, float input_sequence) => (seq(float[N]) y) { y = Map(s) }",
        "b (float[N] a) => (float[N] d) { d = Add(a, input_sequence) }",
        {"s": X, "input_sequence": np.float32(1)},
        [[[2, 3], [4]]],
    ),
    # ReduceMean takes axes as input since version 18, after the standard's body.
    "later version": (
        "g (seq(float[N]) s, int64[1] axes) => (seq(float) y, seq(int64[1]) z) { y, z = Map(s) }",
        """b (float[N] a) => (float d, int64[1] q) <float k = {2.0}> {
          e = ReduceMean<keepdims = 0>(a, axes) d = Mul(e, k) q = Shape(a) }""",
        {"s": X, "axes": np.array([0])},
        [[3, 6], [[2], [1]]],
    ),
    "strings": (
        "g (seq(string[N]) s, string[1] t) => (seq(string[N]) y) { y = Map(s) }",
        "b (string[N] a) => (string[N] d) { d = StringConcat(a, t) }",
        {"s": [np.array(["a", ""]), np.array(["ö"])], "t": np.array(["x"])},
        [[["ax", "x"], ["öx"]]],
    ),
    "function in the body": (
        ONE, "b (float[N] a) => (float[N] d) { d = HardSwish(a) }", {"s": X},
        [[[2 / 3, 5 / 3], [3]]],
    ),
    "empty": (ONE, "b (float[N] a) => (float[N] d) { d = Neg(a) }", {"s": []}, [[]]),
    "identity": (
        ONE, "b (float[N] a) => (float[N] d) { d = Identity(a) }", {"s": X}, [[[1, 2], [3]]]
    ),
}  # fmt: skip


@pytest.mark.parametrize("level", ["disable", "all"])
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, level: str) -> None:
    graph, body, feeds, expected = CASES[name]
    found = run(model_of(graph, body), level, feeds)
    if isinstance(expected[0], list) and "strings" not in name:
        for a, b in zip(found, expected, strict=True):
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                assert np.allclose(x, y, rtol=1e-6, atol=0)
    else:
        assert found == expected


@pytest.mark.parametrize("level", ["disable", "all"])
def test_nested(level: str) -> None:
    """A SequenceMap in the branch of an If, which captures a value of the main graph."""
    graph = """g (bool c, seq(float[N]) s, float t) => (seq(float[N]) y) {
      y = If (c) <
        then_branch = a () => (seq(float[N]) p) { p = Map (s) },
        else_branch = b () => (seq(float[N]) q) { q = Identity (s) }>
    }"""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {graph}')
    body = onnx.parser.parse_graph("b (float[N] a) => (float[N] d) { d = Mul(a, t) }")
    (branch,) = [a.g for a in model.graph.node[0].attribute if a.name == "then_branch"]
    branch.node[0].op_type = "SequenceMap"
    branch.node[0].attribute.append(helper.make_attribute("body", body))
    for condition, expected in ((True, [[3, 6], [9]]), (False, [[1, 2], [3]])):
        feeds = {"c": np.array(condition), "s": X, "t": np.float32(3)}
        assert run(model.SerializeToString(), level, feeds) == [expected]
