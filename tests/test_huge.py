"""Models with very many nodes, and graphs very deep within graphs: in linear time, or refused."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mutate
import ortolan
from ortolan import errors
from ortolan.ortformat import reader, writer
from ortolan.ortformat.tables import OrtFormatError
from ortolan.session import InferenceSession, SessionOptions

X = np.array([-0.5, 0.25, 3.0], np.float32)


def plain(content: bytes) -> InferenceSession:
    """A session of what is opened by the runtime itself, on one thread."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    return InferenceSession(content, options)


def value(name: str) -> onnx.ValueInfoProto:
    """A float tensor of one dimension."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])


def model_of(nodes: list[onnx.NodeProto], output: str) -> bytes:
    """A model of one input, x."""
    graph = helper.make_graph(nodes, "huge", [value("x")], [value(output)])
    imports = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(
        graph, opset_imports=imports, ir_version=8
    ).SerializeToString()
    return content


def chain(count: int) -> bytes:
    """Each node takes the result of the one before."""
    names = ["x", *(f"v{k}" for k in range(count))]
    nodes = [
        helper.make_node(("Neg", "Abs")[k % 2], [names[k]], [names[k + 1]]) for k in range(count)
    ]
    return model_of(nodes, names[-1])


def fan(count: int) -> bytes:
    """Half of the nodes take the input, and all of their results are kept to the end."""
    half = count // 2
    nodes = [helper.make_node("Neg", ["x"], [f"w{k}"]) for k in range(half)]
    sums = ["w0", *(f"s{k}" for k in range(1, half))]
    nodes += [helper.make_node("Max", [sums[k - 1], f"w{k}"], [sums[k]]) for k in range(1, half)]
    return model_of(nodes, sums[-1])


EXPECTED = {"chain": np.abs(X), "fan": -X}
KINDS: dict[str, Callable[[int], bytes]] = {"chain": chain, "fan": fan}


def seconds(content: bytes, expected: Any) -> float:
    """Processor time to load and run twice."""
    began = time.process_time()
    session = plain(content)
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected)
    return time.process_time() - began


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_nodes(kind: str) -> None:
    few, many = KINDS[kind](10_000), KINDS[kind](100_000)
    short = min(seconds(few, EXPECTED[kind]) for _ in range(3))
    long = seconds(many, EXPECTED[kind])
    assert long < 10
    assert long < 60 * short, f"{short:.3f} s for 10,000 nodes, {long:.3f} s for 100,000"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_nodes_are_converted(kind: str) -> None:
    began = time.process_time()
    content = ortolan.convert(KINDS[kind](100_000), level="disable")
    assert time.process_time() - began < 200
    assert seconds(content, EXPECTED[kind]) < 10


def _wire(field: int, content: bytes) -> bytes:
    """A field of a protobuf message with a length."""
    head = bytearray()
    for number in (field << 3 | 2, len(content)):
        while number > 0x7F:
            head.append(number & 0x7F | 0x80)
            number >>= 7
        head.append(number)
    return bytes(head) + content


def nested(levels: int) -> bytes:
    """An ONNX model of If within If; put together from its inside, as no library would."""
    graph = _wire(1, helper.make_node("Neg", ["x"], ["y0"]).SerializeToString())
    graph += _wire(12, value("y0").SerializeToString())
    of_graph = b"\xa0\x01\x05"  # the type of an attribute: a graph
    for k in range(1, levels + 1):
        other = helper.make_graph(
            [helper.make_node("Abs", ["x"], [f"e{k}"])], "other", [], [value(f"e{k}")]
        ).SerializeToString()
        attributes = _wire(
            5, _wire(1, b"then_branch") + _wire(6, graph + _wire(2, b"g")) + of_graph
        )
        attributes += _wire(5, _wire(1, b"else_branch") + _wire(6, other) + of_graph)
        node = _wire(1, b"c") + _wire(2, f"y{k}".encode()) + _wire(4, b"If") + attributes
        graph = _wire(1, node) + _wire(12, value(f"y{k}").SerializeToString())
    graph += _wire(2, b"g") + _wire(11, value("x").SerializeToString())
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph += _wire(11, flag.SerializeToString())
    return b"\x08\x08" + _wire(7, graph) + _wire(8, helper.make_opsetid("", 17).SerializeToString())


def test_nested_graphs_run() -> None:
    content = nested(17)
    feeds = {"x": X, "c": np.array(True)}
    for each in (content, ortolan.convert(content, level="disable"), ortolan.convert(content)):
        np.testing.assert_array_equal(plain(each).run(None, feeds)[0], -X)


@pytest.mark.parametrize("levels", [21, 40, 10_000])
def test_deeper_ones_are_refused(levels: int) -> None:
    content = nested(levels)
    with pytest.raises(errors.OrtolanError, match="nested deeper"):
        plain(content)
    with pytest.raises(errors.OrtolanError, match="nested deeper"):
        ortolan.convert(content)


def test_messages_deeper_than_a_file_can_hold_are_refused() -> None:
    """A message need not come from a file, and recursion would end the process or Python."""
    model = onnx.load_model_from_string(nested(1))
    graph = model.graph
    for k in range(10_000):
        node = graph.node.add(op_type="If", input=["c"], output=[f"z{k}"])
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        graph = attribute.g
    with pytest.raises(errors.LimitExceeded, match="nested deeper than 20"):
        ortolan.convert(model)


def test_deep_ort_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 levels in a file that no writer of ours makes, read by the runtime and by Python."""
    session = mutate.load(ortolan.convert(nested(1), level="disable"))
    graph = session.model.graph
    place = next(a for a in graph.nodes[0].attributes if a.name == "then_branch")
    content = b""
    with monkeypatch.context() as patch:
        patch.setattr(writer, "MAX_DEPTH", 1 << 30)
        patch.setattr(writer, "MAX_TABLES", 1 << 30)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(1_000_000)
        try:
            inner = place.g
            for _ in range(2_000):
                inner = _copy_of(graph, inner)
            place.g = inner
            content = writer.write(session)
        finally:
            sys.setrecursionlimit(limit)
    with pytest.raises(errors.OrtolanError, match="nested deeper than 64"):
        plain(content)
    with pytest.raises(OrtFormatError, match="nested deeper than 64"):
        reader.read(content)


def _copy_of(graph: Any, inner: Any) -> Any:
    """A graph like another one, with another branch."""
    node = copy.copy(graph.nodes[0])
    node.attributes = [copy.copy(each) for each in node.attributes]
    for attribute in node.attributes:
        if attribute.name == "then_branch":
            attribute.g = inner
    made = copy.copy(graph)
    made.nodes = [node]
    return made


@pytest.mark.parametrize(
    ("operator", "domain", "width", "region"),
    [
        ("RoiAlign", "", 2**24 + 3, [2**24 + 4, 0, 2**24 + 4, 1]),
        ("CropAndResize", "com.microsoft", 2**24 + 4, [0, 1, 0, 1]),
    ],
)
def test_regions_at_the_end_of_an_axis_that_floats_round(
    operator: str, domain: str, width: int, region: list[int]
) -> None:
    """Its last pixel's number is rounded up, to one behind the image."""
    index = np.int32 if domain else np.int64
    feeds = {
        "x": np.ones((1, 1, 1, width), np.float32),
        "rois": np.array([region], np.float32),
        "images": np.zeros(1, index),
    }
    if domain:
        feeds["size"] = np.ones(2, index)
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    node = helper.make_node(operator, list(feeds), ["y"], domain=domain)
    graph = helper.make_graph([node], "g", values, [value("y")])
    graph.output[0].type.tensor_type.ClearField("shape")
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    assert plain(made.SerializeToString()).run(None, feeds)[0].tolist() == [[[[1]]]]
