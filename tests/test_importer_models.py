"""The importer on real models, functions, and operators that Ortolan does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import marks
from importer_lib import (
    MODELS,
    check_golden,
    disable,
    model_of,
    options,
    oracle,
    ort,
)
from ortolan import catalog, errors
from ortolan.catalog.operator import Operator
from ortolan.conversion import convert
from ortolan.importer import load
from ortolan.ortformat import read
from ortolan.ortformat import tables as t
from ortolan.ortformat.inspect import type_text
from ortolan.passes.operators import missing_operators


def test_gpt2_with_48_names_defined_twice_gives_the_golden() -> None:
    proto = onnx.load(MODELS / "gpt2-past-op11.onnx") if MODELS.is_dir() else None
    if proto is None:
        pytest.skip("shared models are absent")
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Constant"]
    assert len(names) - len(set(names)) == 48
    check_golden("gpt2-past-op11", disable(proto))


def all_graphs(graph: t.Graph) -> Iterator[t.Graph]:
    """A graph and all its subgraphs."""
    yield graph
    for node in graph.nodes:
        for attribute in node.attributes:
            for subgraph in attribute.subgraphs():
                yield from all_graphs(subgraph)


# What keeps a model from being written, or from being loaded by onnxruntime: it is told so.
NOT_YET: dict[str, str] = {}
NOT_IN_ONNXRUNTIME = {
    "squeezenet-fp16": "onnxruntime has no float16 kernels and adds casts when it reads .onnx",
    "vittrack-op14": "onnxruntime has no HardSwish and inlines it when it reads .onnx",
}


@pytest.fixture(scope="module")
def files() -> Callable[[str], bytes]:
    """Our file of a real model, each made once."""
    made: dict[str, bytes] = {}

    def make(name: str) -> bytes:
        if not MODELS.is_dir():
            pytest.skip("shared models are absent")
        if name in NOT_YET:
            with pytest.raises(errors.NotImplemented, match="has no kernel for"):
                disable(MODELS / f"{name}.onnx", allow_unknown_operators=True)
            pytest.skip(f"{name}: {NOT_YET[name]}")
        if name not in made:
            made[name] = disable(MODELS / f"{name}.onnx", allow_unknown_operators=True)
        return made[name]

    return make


@pytest.mark.parametrize("name", marks.real_models())
def test_real_model_gives_its_golden(name: str, files: Callable[[str], bytes]) -> None:
    data = files(name)
    if name in NOT_IN_ONNXRUNTIME:
        with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
            ort.InferenceSession(data, options())
        pytest.skip(f"{name}: {NOT_IN_ONNXRUNTIME[name]}")
    check_golden(name, data)


@pytest.mark.parametrize("name", marks.real_models())
def test_real_model_has_the_types_that_onnxruntime_finds(
    name: str, files: Callable[[str], bytes], tmp_path: Path
) -> None:
    ours = read(files(name)).model.graph
    settings = options()
    settings.optimized_model_filepath = str(tmp_path / "theirs.ort")
    settings.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(MODELS / f"{name}.onnx"), settings)
    theirs = read((tmp_path / "theirs.ort").read_bytes()).model.graph
    # onnxruntime inserts casts into the model with float16: its values are no longer ours.
    if name == "squeezenet-fp16":
        pytest.skip("onnxruntime computes in float32 instead")
    expected = {
        info.name: type_text(info.type) for part in all_graphs(theirs) for info in part.node_args
    }
    found = [
        (info.name, type_text(info.type)) for part in all_graphs(ours) for info in part.node_args
    ]
    known = [(name, text) for name, text in found if name in expected]
    assert len(known) > 0.8 * len(found)
    assert known == [(name, expected[name]) for name, _ in known]


LOCAL = """
<ir_version: 9, opset_import: ["" : 18, "house" : 1]>
agraph (float[N] x) => (float[N] y, float[N] z)
{
  y = house.outer <scale = 3.0> (x)
  z = house.outer (x)
}
<domain: "house", opset_import: ["" : 13, "house" : 1]>
outer <scale: float = 2.0> (a) => (b)
{
  k = Constant <value_float: float = @scale> ()
  scaled = Mul (a, k)
  b, unused = house.inner (scaled, )
}
<domain: "house", opset_import: ["" : 17]>
inner (p, maybe) => (q, p2)
{
  q = Neg (p)
  p2 = Identity (p)
}
"""


def test_model_functions_are_inlined() -> None:
    model = onnx.parser.parse_model(LOCAL)
    feeds = {"x": np.array([1, -2, 3], np.float32)}
    data = disable(model)
    for ours, theirs in zip(
        oracle(data, feeds), oracle(model.SerializeToString(), feeds), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    graph = read(data).model.graph
    # Version 14 of Mul differs from the 13 of its function in its types only.
    assert {(node.op_type, node.since_version) for node in graph.nodes} == {
        ("Mul", 14), ("Neg", 13), ("Identity", 16),
    }  # fmt: skip
    assert all(node.domain == "" for node in graph.nodes)


def test_node_of_a_function_keeps_a_version_that_means_something_else() -> None:
    text = """
<ir_version: 9, opset_import: ["" : 18, "house" : 1]>
agraph (float[1, N] x) => (float[N] y) { y = house.f (x) }
<domain: "house", opset_import: ["" : 12]> f (a) => (b) {
  s = Squeeze <axes = [0]> (a)
  b = Softmax (s)
}
"""
    found = [(node.op_type, node.version) for node in load(onnx.parser.parse_model(text)).graph]
    assert found == [("Squeeze", 11), ("Softmax", 11)]


def test_function_that_returns_its_argument_is_inlined() -> None:
    text = """
<ir_version: 9, opset_import: ["" : 18, "house" : 1]>
agraph (float[N] x) => (float[N] y, float[N] z) { y, z = house.same (x) }
<domain: "house", opset_import: ["" : 18]>
same (a) => (a, a) { unused = Neg (a) }
"""
    x = np.array([1, -2], np.float32)
    for found in oracle(disable(onnx.parser.parse_model(text)), {"x": x}):
        np.testing.assert_array_equal(found, x)


def test_functions_that_call_each_other_are_refused() -> None:
    text = """
<ir_version: 9, opset_import: ["" : 18, "house" : 1]>
agraph (float[N] x) => (float[N] y) { y = house.f (x) }
<domain: "house", opset_import: ["" : 18, "house" : 1]> f (a) => (b) { b = house.g (a) }
<domain: "house", opset_import: ["" : 18, "house" : 1]> g (a) => (b) { b = house.f (a) }
"""
    with pytest.raises(errors.InvalidGraph, match="call each other"):
        load(onnx.parser.parse_model(text))


def doubling(levels: int, leaf: str) -> onnx.ModelProto:
    """Functions of which each calls the next twice, once in a branch."""
    head = '<domain: "house", opset_import: ["" : 18, "house" : 1]>'
    text = """<ir_version: 9, opset_import: ["" : 18, "house" : 1]>
        g (float[N] x) => (float[N] y) { y = house.f0 (x) }"""
    for k in range(levels):
        text += f"""{head} f{k} (a) => (b) {{ t = house.f{k + 1} (a) c = Constant <value_int = 1> ()
            d = Cast <to = 9> (c) b = If (d) <
                then_branch = u () => (r) {{ r = house.f{k + 1} (t) }},
                else_branch = v () => (s) {{ s = Neg (t) }}> }}"""
    text += f"{head} f{levels} {leaf}"
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize("leaf", ["(a) => (b) { b = Neg (a) }", "(a) => (a) {}"])
def test_functions_that_multiply_are_refused(leaf: str) -> None:
    with pytest.raises(errors.LimitExceeded, match="more than 1000000 nodes"):
        load(doubling(40, leaf))


def test_functions_that_multiply_a_little_are_inlined() -> None:
    model = doubling(40, "(a) => (b) { b = Neg (a) }")
    model.graph.node[0].op_type = "f37"  # what it does not call does not count
    assert len(list(load(model).graph.all_nodes())) == 8 + 3 * 7


STANDARD: dict[str, tuple[list[str], dict[str, Any], int]] = {
    "HardSwish": (["x"], {}, 14),
    "Celu": (["x"], {}, 12),
    "ThresholdedRelu": (["x"], {"alpha": 0.5}, 10),
    "LayerNormalization": (["x", "x"], {"epsilon": 0.1}, 17),
    "MeanVarianceNormalization": (["x"], {"axes": [0]}, 13),
}


@pytest.mark.parametrize("name", list(STANDARD))
def test_functions_of_the_standard_are_inlined_where_the_catalog_lacks_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, attributes, opset = STANDARD[name]
    node = helper.make_node(name, inputs, ["y"], **attributes)
    wide = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    model = model_of(node, opsets=(("", max(opset, 18)),), inputs=(wide,))
    find = catalog.find

    def without(domain: str, op: str, version: int) -> Operator | None:
        return None if op == name else find(domain, op, version)

    monkeypatch.setattr(catalog, "find", without)
    loaded = load(model)
    assert name not in {node.op_type for node in loaded.graph.all_nodes()}
    feeds = {"x": np.array([-1.5, 0.25, 2, 7], np.float32)}
    (found,) = oracle(disable(model, allow_unknown_operators=True), feeds)
    (expected,) = oracle(model.SerializeToString(), feeds)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_all_unknown_operators_are_named_at_once() -> None:
    nodes = (
        helper.make_node("Nonsense", ["x"], ["a"], domain="far.away"),
        helper.make_node("Nonsense", ["a"], ["b"], domain="far.away"),
        helper.make_node("Twiddle", ["b"], ["c"], domain="near.by"),
        helper.make_node("Neg", ["b"], ["y"]),
    )
    model = model_of(*nodes, opsets=(("", 13), ("far.away", 3), ("near.by", 1)))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "abc"]
    with pytest.raises(errors.NotImplemented) as caught:
        convert(model, level="disable")
    for text in ("far.away:Nonsense:3 (2 nodes)", "near.by:Twiddle:1 (1 node)", "value_info"):
        assert text in str(caught.value)
    model.graph.value_info.extend(infos)
    with pytest.raises(errors.NotImplemented, match="allow unknown operators"):
        convert(model, level="disable")
    found = read(disable(model, allow_unknown_operators=True)).model.graph
    assert [node.op_type for node in found.nodes] == ["Nonsense", "Nonsense", "Twiddle", "Neg"]


def test_types_without_kernel_are_named() -> None:
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    model = model_of(helper.make_node("Neg", ["x"], ["y"]), inputs=(text,))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert missing_operators(load(model)) == {"ai.onnx:Neg:13 with T = string": 1}
