"""The importer: what it mends, what it refuses, and the types it finds; onnxruntime is the oracle."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from ortolan import errors
from ortolan.catalog.operator import Operator
from ortolan.conversion import convert
from ortolan.importer import load
from ortolan.importing import functions
from ortolan.importing.naming import graph_values
from ortolan.ortformat import read
from ortolan.ortformat import tables as t
from ortolan.ortformat.inspect import type_text
from ortolan.passes.operators import missing_operators

ort = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT.parent / "shared" / "models"

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])


def options(level: str = "ORT_DISABLE_ALL") -> Any:
    """Session options of onnxruntime that print nothing and optimize as told."""
    found = ort.SessionOptions()
    found.log_severity_level = 4
    found.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return found


def oracle(model: bytes, feeds: dict[str, Array]) -> list[Array]:
    """What onnxruntime computes."""
    return list(ort.InferenceSession(model, options()).run(None, feeds))


def disable(model: onnx.ModelProto | Path, **more: bool) -> bytes:
    """Our file of a model, not optimized."""
    return convert(model, level="disable", **more)


def add(a: str, b: str, out: str) -> onnx.NodeProto:
    """A node that adds."""
    return helper.make_node("Add", [a, b], [out])


def constant(name: str, value: float) -> onnx.NodeProto:
    """A Constant node with one number."""
    return helper.make_node("Constant", [], [name], value=weight(name, value))


def weight(name: str, value: float) -> onnx.TensorProto:
    """A tensor with one number."""
    return numpy_helper.from_array(np.array([value], np.float32), name)


def model_of(
    *nodes: onnx.NodeProto,
    weights: tuple[onnx.TensorProto, ...] = (),
    outputs: tuple[str, ...] = ("y",),
    inputs: tuple[onnx.ValueInfoProto, ...] = (X,),
    ir_version: int = 8,
    opsets: tuple[tuple[str, int], ...] = (("", 13),),
) -> onnx.ModelProto:
    """A model of float vectors."""
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", list(inputs), results, list(weights))
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    model = helper.make_model(graph, ir_version=ir_version, opset_imports=imports)
    if not opsets:
        del model.opset_import[:]
    return model


def agree(model: onnx.ModelProto, feeds: dict[str, Array] | None = None) -> None:
    """Our file gives in onnxruntime what the model itself gives there."""
    feeds = {"x": np.array([3], np.float32)} if feeds is None else feeds
    expected = oracle(model.SerializeToString(), feeds)
    found = oracle(disable(model), feeds)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def refused_by_both(model: onnx.ModelProto, error: type[Exception], text: str) -> None:
    """Neither takes the model; our error says why."""
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        ort.InferenceSession(model.SerializeToString(), options())
    with pytest.raises(error, match=text):
        load(model)


def branch(*nodes: onnx.NodeProto, out: str = "o") -> onnx.GraphProto:
    """A subgraph without inputs that gives a float vector."""
    result = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "branch", [], [result])


@pytest.mark.parametrize(
    "model",
    [
        model_of(constant("c", 10), add("x", "c", "y"), constant("c", 20)),
        model_of(
            constant("c", 10), add("x", "c", "y"), constant("c", 20), add("y", "c", "z"),
            outputs=("y", "z"),
        ),
        model_of(add("x", "c", "y"), weights=(weight("c", 10), weight("c", 20))),
        model_of(constant("c", 20), add("x", "c", "y"), weights=(weight("c", 10),)),
    ],
    ids=["two nodes", "users before and after", "two initializers", "initializer and node"],
)  # fmt: skip
def test_last_constant_of_a_name_wins(model: onnx.ModelProto) -> None:
    agree(model)


@pytest.mark.parametrize(
    "model",
    [
        model_of(add("x", "x", "c"), add("c", "x", "y"), add("x", "y", "c")),
        model_of(add("x", "x", "c"), add("c", "x", "y"), constant("c", 5)),
        model_of(add("x", "x", "c"), add("c", "x", "y"), weights=(weight("c", 5),)),
        model_of(add("x", "x", "x"), add("x", "x", "y")),
        model_of(helper.make_node("Split", ["x"], ["a", "a"], axis=0), add("a", "a", "y")),
    ],
    ids=["two nodes", "node and Constant", "node and initializer", "node and input", "one node"],
)
def test_computed_value_with_a_taken_name_is_refused(model: onnx.ModelProto) -> None:
    refused_by_both(model, errors.InvalidGraph, "is defined a second time")


def test_gpt2_with_48_names_defined_twice_gives_the_golden() -> None:
    proto = onnx.load(MODELS / "gpt2-past-op11.onnx") if MODELS.is_dir() else None
    if proto is None:
        pytest.skip("shared models are absent")
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Constant"]
    assert len(names) - len(set(names)) == 48
    check_golden("gpt2-past-op11", disable(proto))


def test_nodes_out_of_order_are_sorted_stably() -> None:
    nodes = (add("b", "a", "y"), add("x", "x", "dead"), add("a", "x", "b"), add("x", "x", "a"))
    model = model_of(*nodes)
    agree(model)
    names = [node.outputs[0].name for node in load(model).graph]
    assert names == ["dead", "a", "b", "y"]


def test_nodes_in_order_stay_where_they_are() -> None:
    model = model_of(add("x", "x", "b"), add("x", "x", "a"), add("b", "a", "y"))
    assert [node.outputs[0].name for node in load(model).graph] == ["b", "a", "y"]


COND = helper.make_tensor_value_info("cond", TensorProto.BOOL, [1])


def if_model(then: onnx.GraphProto, *more: onnx.NodeProto) -> onnx.ModelProto:
    """A model with an If; its other branch negates."""
    other = branch(helper.make_node("Neg", ["x"], ["o"]))
    node = helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other)
    return model_of(node, *more, inputs=(X, COND))


@pytest.mark.parametrize(
    "more", [add("x", "x", "late"), constant("late", 5)], ids=["node", "constant"]
)
@pytest.mark.parametrize("taken", [True, False])
def test_what_a_subgraph_captures_counts_for_the_order(more: onnx.NodeProto, taken: bool) -> None:
    model = if_model(branch(add("late", "x", "o")), more)
    agree(model, {"x": np.array([3], np.float32), "cond": np.array([taken])})


def test_branch_that_returns_an_outer_value_copies_it() -> None:
    # onnxruntime refuses this; what is meant is clear.
    model = if_model(branch(out="x"))
    (expected,) = oracle(
        if_model(branch(helper.make_node("Identity", ["x"], ["o"]))).SerializeToString(),
        feeds := {"x": np.array([3], np.float32), "cond": np.array([True])},
    )
    np.testing.assert_array_equal(oracle(disable(model), feeds)[0], expected)


def test_inner_name_that_hides_an_outer_one_is_renamed() -> None:
    inner = branch(add("x", "x", "c"), add("c", "c", "o"))
    model = if_model(inner, add("x", "x", "c"))
    names = [value.name for value in graph_values(load(model).graph)]
    (node,) = (node for node in load(model).graph if node.op_type == "If")
    inner_names = {v.name for v in graph_values(node.attributes["then_branch"].as_graph())}
    assert not inner_names & set(names)
    feeds = {"x": np.array([3], np.float32), "cond": np.array([True])}
    assert oracle(disable(model), feeds)[0] == [12]


def test_circle_is_refused() -> None:
    model = model_of(add("b", "x", "a"), add("a", "x", "b"), add("a", "b", "y"))
    with pytest.raises(errors.InvalidGraph, match=r'\[Add\] node "a" needs its own output'):
        load(model)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (model_of(add("x", "nowhere", "y")), 'its input "nowhere" is no graph input'),
        (model_of(add("x", "x", "z")), 'its output "y" is computed nowhere'),
    ],
)
def test_missing_value_is_refused(model: onnx.ModelProto, text: str) -> None:
    refused_by_both(model, errors.InvalidGraph, text)


def squeeze_with_attribute(*opsets: tuple[str, int]) -> onnx.ModelProto:
    """A model that is valid before version 13 only."""
    return model_of(helper.make_node("Squeeze", ["x"], ["y"], axes=[0]), opsets=opsets)


def test_last_import_of_a_domain_counts() -> None:
    agree(squeeze_with_attribute(("", 13), ("", 7)))
    refused_by_both(
        squeeze_with_attribute(("", 7), ("ai.onnx", 13)), errors.InvalidGraph, "no attribute axes"
    )


def test_long_name_of_the_standard_domain_is_the_same() -> None:
    model = model_of(add("x", "x", "y"), opsets=(("ai.onnx", 13),))
    model.graph.node[0].domain = "ai.onnx"
    agree(model)
    assert load(model).opset_imports == {"": 13}


def test_domain_without_import_gets_the_newest_version() -> None:
    scaler = helper.make_node(
        "Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0]
    )
    model = model_of(scaler)
    found = read(disable(model, allow_unknown_operators=True))
    assert {o.domain: o.version for o in found.model.opset_import} == {"ai.onnx.ml": 1}
    assert found.model.graph.nodes[0].since_version == 1


def test_unused_import_is_dropped() -> None:
    model = model_of(add("x", "x", "y"), opsets=(("", 13), ("ai.onnx.ml", 2), ("foo.bar", 1)))
    agree(model)
    assert [o.domain for o in read(disable(model)).model.opset_import] == [""]


def test_no_imports_mean_version_one_in_the_oldest_models_only() -> None:
    refused_by_both(model_of(add("x", "x", "y"), opsets=()), errors.InvalidGraph, "imports no")
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    old = model_of(node, opsets=(), ir_version=2)
    assert [node.version for node in load(old).graph] == [1]


@pytest.mark.parametrize(("version", "error"), [(0, "INVALID_GRAPH"), (999, "NOT_IMPLEMENTED")])
def test_impossible_version_is_refused(version: int, error: str) -> None:
    with pytest.raises(errors.OrtolanError) as caught:
        load(model_of(add("x", "x", "y"), opsets=(("", version),)))
    assert caught.value.code.name == error


def test_since_versions_are_those_of_the_import() -> None:
    nodes = (add("x", "x", "a"), helper.make_node("Relu", ["a"], ["y"]))
    for opset, expected in ((7, [7, 6]), (13, [13, 13]), (18, [14, 14])):
        model = model_of(*nodes, opsets=(("", opset),))
        assert [node.version for node in load(model).graph] == expected


C = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])


def test_weights_listed_as_inputs_are_constants_in_old_models() -> None:
    model = model_of(add("x", "c", "y"), weights=(weight("c", 5),), inputs=(X, C), ir_version=3)
    agree(model)
    session = ort.InferenceSession(disable(model), options())
    assert [item.name for item in session.get_inputs()] == ["x"]
    assert session.get_overridable_initializers() == []


@pytest.mark.parametrize("as_node", [False, True])
def test_weights_listed_as_inputs_are_defaults_in_newer_models(as_node: bool) -> None:
    nodes = (constant("c", 5), add("x", "c", "y")) if as_node else (add("x", "c", "y"),)
    model = model_of(*nodes, weights=() if as_node else (weight("c", 5),), inputs=(X, C))
    x = np.array([3], np.float32)
    agree(model, {"x": x})
    agree(model, {"x": x, "c": np.array([7], np.float32)})
    assert read(disable(model)).model.graph.inputs == ["x", "c"]


def test_input_with_a_default_of_another_type_is_refused() -> None:
    wrong = helper.make_tensor_value_info("c", TensorProto.INT64, [1])
    with pytest.raises(errors.InvalidGraph, match=r"declared as tensor\(int64\), but its default"):
        load(model_of(add("x", "c", "y"), weights=(weight("c", 5),), inputs=(X, wrong)))


def sparse(indices: list[Any]) -> onnx.SparseTensorProto:
    """Two values in a 2 x 3 matrix."""
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1.5, -2], np.float32), "values"),
        numpy_helper.from_array(np.array(indices, np.int64), "indices"),
        [2, 3],
    )


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("value", numpy_helper.from_array(np.arange(6, dtype=np.int8).reshape(2, 3))),
        ("value_float", 1.5),
        ("value_floats", [1.5, 2.5]),
        ("value_int", -(2**40)),
        ("value_ints", [1, 2, 3]),
        ("value_string", "größer"),
        ("value_strings", ["a", "", "c"]),
        ("sparse_value", sparse([1, 5])),
        ("sparse_value", sparse([[0, 1], [1, 2]])),
    ],
)
def test_constants_in_all_forms(attribute: str, value: Any) -> None:
    node = helper.make_node("Constant", [], ["y"], **{attribute: value})
    model = model_of(node)
    model.graph.output[0].ClearField("type")
    if attribute == "sparse_value":
        expected = np.array([[0, 1.5, 0], [0, 0, -2]], np.float32)
    else:
        (expected,) = oracle(model.SerializeToString(), {"x": np.ones(1, np.float32)})
    found = read(disable(model)).model.graph
    assert not found.nodes
    (tensor,) = found.initializers
    assert tensor.dims == list(expected.shape)
    if expected.dtype == object:
        assert [item.decode() for item in tensor.string_data] == expected.reshape(-1).tolist()
    else:
        stored = np.frombuffer(tensor.raw_data, expected.dtype).reshape(expected.shape)
        np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize("indices", [[1, 6], [[0, 1], [2, 0]], [-1, 2], [[0, 0, 0]], [1]])
def test_damaged_sparse_constant_is_refused(indices: list[Any]) -> None:
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse(indices))
    with pytest.raises(errors.InvalidGraph, match="sparse tensor"):
        load(model_of(node))


def test_huge_sparse_constant_is_refused_before_it_is_made() -> None:
    value = sparse([1, 5])
    value.dims[:] = [2**20, 2**20]
    node = helper.make_node("Constant", [], ["y"], sparse_value=value)
    with pytest.raises(errors.LimitExceeded, match="2 GB"):
        load(model_of(node))


def test_constant_whose_data_does_not_fit_is_refused() -> None:
    wrong = weight("c", 5)
    wrong.dims[0] = 2
    with pytest.raises(errors.InvalidGraph, match='"c" has 4 bytes of data, but .* take 8'):
        disable(model_of(add("x", "c", "y"), weights=(wrong,)))
    wrong.dims[0] = -1
    refused_by_both(
        model_of(add("x", "c", "y"), weights=(wrong,)), errors.InvalidGraph, "negative size"
    )


def test_sizes_that_say_nothing_are_unknown() -> None:
    sizes = ["", -1, "?", "None", "batch", 0, 3]
    wide = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    (value,) = load(model_of(add("x", "x", "y"), inputs=(wide,))).graph.inputs
    assert value.shape is not None
    found = [size if isinstance(size, int) else size.value for size in value.shape]
    assert found == [None, None, None, None, "batch", 0, 3]


def test_declared_shape_that_contradicts_is_replaced() -> None:
    model = model_of(add("x", "x", "c"), add("c", "c", "y"))
    model.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [7]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [7, 7]))
    agree(model)
    shapes = {v.name: v.shape for v in graph_values(load(model).graph)}
    assert shapes == {"x": [1], "c": [1], "y": [1]}


def test_declared_names_of_sizes_are_kept_and_others_not_made_up() -> None:
    batch = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", None])
    model = model_of(helper.make_node("NonZero", ["x"], ["i"]), add("x", "x", "y"), inputs=(batch,))
    shapes = {v.name: v.shape for v in graph_values(load(model).graph)}
    assert shapes["y"] == ["batch", None]
    assert shapes["i"] == [2, None]


def test_wrong_type_of_an_inner_value_is_replaced_and_of_an_output_refused() -> None:
    model = model_of(add("x", "x", "c"), add("c", "c", "y"))
    model.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.INT64, [1]))
    assert {v.dtype for v in graph_values(load(model).graph)} == {ir.DataType.FLOAT}
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    refused_by_both(model, errors.InvalidGraph, r'"y" is declared as tensor\(int64\), but')


def test_input_without_type_is_refused() -> None:
    model = model_of(add("x", "x", "y"))
    model.graph.input[0].ClearField("type")
    refused_by_both(model, errors.InvalidGraph, '"x" has no type')


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (helper.make_node("Add", ["x", "x", "x"], ["y"]), "it has 3 inputs, but"),
        (helper.make_node("Add", ["x"], ["y"]), "its input B is missing"),
        (helper.make_node("Add", ["x", ""], ["y"]), "its input B is left out"),
        (helper.make_node("Add", ["x", "n"], ["y"]), r"B is tensor\(int64\), but its input A"),
        (helper.make_node("Add", ["x", "x"], ["y"], foo=3), "has no attribute foo"),
        (helper.make_node("Flatten", ["x"], ["y"], axis="a"), "axis is STRING, not INT"),
        (helper.make_node("Concat", ["x"], ["y"]), "its attribute axis is missing"),
    ],
)
def test_node_that_contradicts_its_declaration_is_refused(node: onnx.NodeProto, text: str) -> None:
    number = helper.make_tensor_value_info("n", TensorProto.INT64, [1])
    refused_by_both(model_of(node, inputs=(X, number)), errors.InvalidGraph, text)


TYPES = """
<ir_version: 8, opset_import: ["" : 17]>
types (float[n] x, int32[n] k, bool b) => (double[n] d, int64[r, m] where, last, int64[q] s)
{
  c = Cast <to = 11> (x)
  shape = Shape (k)
  zeros = ConstantOfShape (shape)
  ones = ConstantOfShape <value = double {1}> (shape)
  d = Add (c, ones)
  where = NonZero (zeros)
  trips = Constant <value = int64 {3}> ()
  last, scanned = Loop (trips, b, x) <
    body = once (k1, go, state) => (on, next, q) {
      on = Identity (go)
      next = Neg (state)
      q = Identity (k1)
    }
  >
  s = Identity (scanned)
}
"""


def test_types_follow_rules_attributes_and_bodies() -> None:
    model = load(onnx.parser.parse_model(TYPES))
    (loop,) = (node for node in model.graph if node.op_type == "Loop")
    body = loop.attributes["body"].as_graph()
    found = {value.name: value.dtype for g in (model.graph, body) for value in graph_values(g)}
    expected = {
        "c": "DOUBLE", "shape": "INT64", "zeros": "FLOAT", "ones": "DOUBLE", "d": "DOUBLE",
        "where": "INT64", "last": "FLOAT", "scanned": "INT64", "s": "INT64", "k1": "INT64",
        "go": "BOOL", "state": "FLOAT", "next": "FLOAT", "q": "INT64", "on": "BOOL",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == {
        name: ir.DataType[text] for name, text in expected.items()
    }


def all_graphs(graph: t.Graph) -> Iterator[t.Graph]:
    """A graph and all its subgraphs."""
    yield graph
    for node in graph.nodes:
        for attribute in node.attributes:
            for subgraph in attribute.subgraphs():
                yield from all_graphs(subgraph)


def names_of_models() -> list[str]:
    """The real models, none where they are absent."""
    return sorted(path.stem for path in MODELS.glob("*.onnx"))


# What keeps a model from being written, or from being loaded by onnxruntime: it is told so.
NOT_YET = {
    "candy-style-op7": "legacy operators without catalog entry and without declared types",
    "tiny-gpt2-contrib-fp32": "com.microsoft operators without catalog entry and declared types",
}
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
            pytest.skip(f"{name}: {NOT_YET[name]}")
        if name not in made:
            made[name] = disable(MODELS / f"{name}.onnx", allow_unknown_operators=True)
        return made[name]

    return make


@pytest.mark.parametrize("name", names_of_models() or ["mnist-7"])
def test_real_model_gives_its_golden(name: str, files: Callable[[str], bytes]) -> None:
    data = files(name)
    if name in NOT_IN_ONNXRUNTIME:
        pytest.skip(f"{name}: {NOT_IN_ONNXRUNTIME[name]}")
    check_golden(name, data)


def check_golden(name: str, data: bytes) -> None:
    """A file gives in onnxruntime what the model gave, up to the order of its additions."""
    with np.load(MODELS / "golden" / f"{name}.npz", allow_pickle=True) as golden:
        feeds = {key[3:]: golden[key] for key in golden.files if key.startswith("in/")}
        expected = {key[4:]: golden[key] for key in golden.files if key.startswith("out/")}
    session = ort.InferenceSession(data, options())
    names = [item.name for item in session.get_outputs()]
    found = dict(zip(names, session.run(None, feeds), strict=True))
    assert expected
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", names_of_models() or ["mnist-7"])
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


STANDARD = {
    "HardSwish": (("HardSwish", ["x"], {}), 14),
    "Celu": (("Celu", ["x"], {}), 12),
    "ThresholdedRelu": (("ThresholdedRelu", ["x"], {"alpha": 0.5}), 10),
    "LayerNormalization": (("LayerNormalization", ["x", "x"], {"epsilon": 0.1}), 17),
    "MeanVarianceNormalization": (("MeanVarianceNormalization", ["x"], {"axes": [0]}), 13),
}


@pytest.mark.parametrize("name", list(STANDARD))
def test_functions_of_the_standard_are_inlined_where_the_catalog_lacks_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (op_type, inputs, attributes), opset = STANDARD[name]
    node = helper.make_node(op_type, inputs, ["y"], **attributes)
    wide = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    model = model_of(node, opsets=(("", max(opset, 18)),), inputs=(wide,))
    find = functions.catalog.find

    def without(domain: str, op: str, version: int) -> Operator | None:
        return None if op == name else find(domain, op, version)

    monkeypatch.setattr(functions.catalog, "find", without)
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
        helper.make_node("ZipMap", ["b"], ["c"], domain="ai.onnx.ml", classlabels_int64s=[1]),
        helper.make_node("Neg", ["b"], ["y"]),
    )
    model = model_of(*nodes, opsets=(("", 13), ("far.away", 3), ("ai.onnx.ml", 3)))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "abc"]
    with pytest.raises(errors.NotImplemented) as caught:
        convert(model, level="disable")
    for text in ("far.away:Nonsense:3 (2 nodes)", "ai.onnx.ml:ZipMap:1 (1 node)", "value_info"):
        assert text in str(caught.value)
    model.graph.value_info.extend(infos)
    with pytest.raises(errors.NotImplemented, match="allow unknown operators"):
        convert(model, level="disable")
    found = read(disable(model, allow_unknown_operators=True)).model.graph
    assert [node.op_type for node in found.nodes] == ["Nonsense", "Nonsense", "ZipMap", "Neg"]


def test_types_without_kernel_are_named() -> None:
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    model = model_of(helper.make_node("Neg", ["x"], ["y"]), inputs=(text,))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert missing_operators(load(model)) == {"ai.onnx:Neg:13 with T = string": 1}


def test_the_callers_message_stays_as_it_is() -> None:
    model = model_of(add("c", "x", "y"), constant("c", 2), weights=(weight("c", 1),))
    before = model.SerializeToString()
    load(model)
    assert model.SerializeToString() == before


def test_sources_of_all_kinds_give_the_same_file(tmp_path: Path) -> None:
    model = model_of(constant("c", 2), add("x", "c", "y"))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    content = path.read_bytes()
    results = {convert(s) for s in (model, path, str(path), content, memoryview(content))}
    assert len(results) == 1


@pytest.mark.parametrize("content", [b"", b"\x08", b"not a model at all", b"\x00" * 64])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(errors.NoModel):
        load(content)


def test_missing_file_and_ort_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(errors.NoSuchFile, match=r"none\.onnx: cannot be read"):
        load(tmp_path / "none.onnx")
    with pytest.raises(errors.NoModel, match="ORT format file already"):
        load(convert(model_of(add("x", "x", "y"))))


def external_model(folder: Path, location: str) -> Path:
    """A model whose weights (64 floats) are said to lie elsewhere."""
    values = numpy_helper.from_array(np.arange(64, dtype=np.float32), "c")
    model = model_of(add("x", "c", "y"), weights=(values,))
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, offset=16, length=len(data))
    tensor.ClearField("raw_data")
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(b"\xff" * 16 + data)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_external_data_beside_the_model_is_taken(tmp_path: Path) -> None:
    path = external_model(tmp_path / "models", "weights.bin")
    x = np.array([2], np.float32)
    (found,) = oracle(disable(path), {"x": x})
    np.testing.assert_array_equal(found, np.arange(64, dtype=np.float32) + 2)
    with pytest.raises(errors.InvalidGraph, match="give the path of the model"):
        load(path.read_bytes())


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link/weights.bin", ""])
def test_external_data_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    external_model(tmp_path, "weights.bin")
    path = external_model(tmp_path / "models", location)
    (tmp_path / "models" / "link").symlink_to(tmp_path)
    with pytest.raises(errors.InvalidGraph, match="outside the model's folder|no location"):
        load(path)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = external_model(tmp_path / "models", "weights.bin")
    (tmp_path / "models" / "weights.bin").write_bytes(b"short")
    with pytest.raises(errors.InvalidGraph, match="beyond the end"):
        load(path)
    (tmp_path / "models" / "weights.bin").unlink()
    with pytest.raises(errors.NoSuchFile, match="external data"):
        load(path)


def test_mutated_models_never_raise_anything_but_our_errors() -> None:
    seed = 20261123
    random = np.random.default_rng(seed)
    model = onnx.parser.parse_model(TYPES)
    values = numpy_helper.from_array(np.arange(200, dtype=np.float32), "unused")
    model.graph.initializer.append(values)
    content = model.SerializeToString()
    outcomes = {"loaded": 0, "refused": 0}
    for k in range(400):
        data = bytearray(content)
        for place in random.integers(0, len(data), 1 + k % 3):
            data[place] = random.integers(0, 256)
        try:
            convert(bytes(data[: random.integers(1, len(data) + 1)] if k % 4 == 0 else data),
                    level="disable", allow_unknown_operators=True)  # fmt: skip
            outcomes["loaded"] += 1
        except errors.OrtolanError:
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, mutation {k}") from error
    assert min(outcomes.values()) > 20


def test_what_the_producer_tells_is_kept() -> None:
    model = model_of(add("x", "x", "y"), ir_version=9)
    model.producer_name, model.producer_version, model.domain = "maker", "1.2", "org.house"
    model.model_version, model.doc_string, model.graph.doc_string = 42, "about", "the graph"
    model.graph.node[0].name, model.graph.node[0].doc_string = "sum", "adds"
    model.graph.input[0].doc_string = "a number"
    helper.set_model_props(model, {"author": "us", "task": "none"})
    found = read(disable(model)).model
    names = ("producer_name", "producer_version", "domain", "model_version", "doc_string")
    assert [getattr(found, n) for n in names] == [getattr(model, n) for n in names]
    assert (found.ir_version, found.graph_doc_string) == (9, "the graph")
    assert {(e.key, e.value) for e in found.metadata_props} == {("author", "us"), ("task", "none")}
    assert (found.graph.nodes[0].name, found.graph.nodes[0].doc_string) == ("sum", "adds")
    assert found.graph.node_args[0].doc_string == "a number"


def test_attributes_of_all_types_are_kept() -> None:
    values: dict[str, Any] = {
        "f": 1.5, "i": -7, "s": "text", "t": weight("t", 2), "floats": [1.0, 2.5],
        "ints": [1, 2**40], "strings": ["a", "b"], "tensors": [weight("a", 1), weight("b", 2)],
        "empty": helper.make_attribute("empty", [], attr_type=onnx.AttributeProto.INTS),
    }  # fmt: skip
    node = helper.make_node("Nonsense", ["x"], ["y"], domain="far.away")
    for name, value in values.items():
        known = isinstance(value, onnx.AttributeProto)
        node.attribute.append(value if known else helper.make_attribute(name, value))
    model = model_of(node, opsets=(("far.away", 1),))
    (found,) = read(disable(model, allow_unknown_operators=True)).model.graph.nodes
    by_name = {attribute.name: attribute for attribute in found.attributes}
    assert set(by_name) == set(values)
    assert by_name["t"].t is not None
    assert bytes(by_name["t"].t.raw_data) == values["t"].raw_data
    assert [bytes(x.raw_data) for x in by_name["tensors"].tensors] == [
        x.raw_data for x in values["tensors"]
    ]
    plain = {n: by_name[n].value for n in ("f", "i", "s", "floats", "ints", "strings", "empty")}
    assert plain == {
        "f": 1.5, "i": -7, "s": b"text", "floats": [1.0, 2.5], "ints": [1, 2**40],
        "strings": [b"a", b"b"], "empty": [],
    }  # fmt: skip


ELEMENTS = [
    (TensorProto.FLOAT16, np.array([1.5, -2], np.float16)),
    (TensorProto.DOUBLE, np.array([1.5, -2])),
    (TensorProto.BOOL, np.array([True, False])),
    (TensorProto.UINT64, np.array([2**63, 1], np.uint64)),
    (TensorProto.INT8, np.array([-128, 127], np.int8)),
]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("kind", "values"), ELEMENTS, ids=lambda x: str(getattr(x, "dtype", x)))
def test_constants_are_stored_as_bytes(kind: int, values: Array, raw: bool) -> None:
    if raw:
        tensor = numpy_helper.from_array(values, "y")
    else:
        tensor = helper.make_tensor("y", kind, [2], values.tolist())
    model = model_of(weights=(tensor,))
    model.graph.output[0].ClearField("type")
    (found,) = read(disable(model)).model.graph.initializers
    assert int(found.data_type) == kind
    np.testing.assert_array_equal(np.frombuffer(found.raw_data, values.dtype), values)


def test_the_format_has_no_optional_types() -> None:
    model = model_of(
        helper.make_node("Optional", ["x"], ["o"]), add("x", "x", "y"), opsets=(("", 18),)
    )
    with pytest.raises(errors.NotImplemented, match='"o": the ORT format cannot hold'):
        disable(model, allow_unknown_operators=True)


def test_sequences_have_their_types() -> None:
    model = model_of(
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    )
    data = disable(model, allow_unknown_operators=True)
    infos = {info.name: type_text(info.type) for info in read(data).model.graph.node_args}
    assert infos["s"] == "seq(tensor(float))"
    x = np.array([3], np.float32)
    np.testing.assert_array_equal(oracle(data, {"x": x})[0], [3, 3])


def test_provider_is_left_open_and_onnxruntime_chooses_one() -> None:
    data = disable(model_of(add("x", "x", "y")))
    (node,) = read(data).model.graph.nodes
    assert node.execution_provider_type == ""
    assert oracle(data, {"x": np.array([3], np.float32)})[0] == [6]


def test_package_alone_imports_no_onnx() -> None:
    code = (
        "import sys, ortolan; print([m for m in ('onnx', 'onnx_ir', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_the_package_are_those_of_their_modules() -> None:
    import ortolan

    assert ortolan.convert is convert
    assert ortolan.OrtolanError is errors.OrtolanError
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = ortolan.nothing_such


def test_errors_carry_their_codes() -> None:
    for code in errors.Code:
        if code is not errors.Code.OK:
            error = errors.from_code(code, "text")
            assert (error.code, str(error)) == (code, "text")
    assert dataclasses.is_dataclass(t.Model)
    assert type(errors.from_code(77, "?")) is errors.Fail
