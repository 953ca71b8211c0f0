"""The importer: what it mends, what it refuses, the types it finds; onnxruntime is the oracle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from importer_lib import (
    TYPES,
    Array,
    X,
    add,
    agree,
    branch,
    constant,
    disable,
    model_of,
    options,
    oracle,
    ort,
    refused_by_both,
    weight,
)
from ortolan import errors
from ortolan.conversion import convert
from ortolan.importer import load
from ortolan.importing.element_types import type_text
from ortolan.importing.naming import graph_values
from ortolan.ortformat import read


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
    expected: Array
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
    with pytest.raises(errors.InvalidGraph, match=r'"c" has 4 bytes of data, but .* take 8'):
        disable(model_of(add("x", "c", "y"), weights=(wrong,)))
    wrong.dims[0] = -1
    refused_by_both(
        model_of(add("x", "c", "y"), weights=(wrong,)), errors.InvalidGraph, "negative size"
    )


def test_sizes_that_say_nothing_are_unknown() -> None:
    sizes: list[str | int | None] = ["", -1, "?", "None", "batch", 0, 3]
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


def test_maps_are_typed_by_the_rule() -> None:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[1])
    model = model_of(node)
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    map_type = helper.make_map_type_proto(TensorProto.INT64, value)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(map_type))
    assert type_text(load(model).graph.outputs[0].type) == "seq(map(int64,tensor(float)))"


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
    with pytest.raises(errors.InvalidGraph, match=r"outside the model's folder|no location"):
        load(path)


@pytest.mark.parametrize("key", ["location", "offset", "length"])
def test_external_data_with_an_entry_twice_is_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(512))
    path = external_model(tmp_path / "models", "weights.bin")
    model = onnx.load(path, load_external_data=False)
    value = str(tmp_path / "secret") if key == "location" else "0"
    model.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(errors.InvalidGraph, match=f'has the entry "{key}" twice'):
        load(path)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "none.bin", "/etc/hostname"])
def test_external_data_of_a_model_that_is_changed_first(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes have no folder: what lies in the working directory is not theirs."""
    path = external_model(tmp_path / "models", location)
    (tmp_path / "weights.bin").write_bytes(bytes(512))
    monkeypatch.chdir(path.parent)
    options = ortolan.SessionOptions()
    options.add_free_dimension_override_by_name("unknown", 2)
    with pytest.raises(errors.InvalidGraph, match="give the path of the model"):
        ortolan.InferenceSession(path.read_bytes(), options)
    if location == "weights.bin":
        session = ortolan.InferenceSession(path, options)
        (found,) = session.run(None, {"x": np.ones(1, np.float32)})
        np.testing.assert_array_equal(found, np.arange(64, dtype=np.float32) + 1)
        return
    with pytest.raises((errors.InvalidGraph, errors.NoSuchFile), match="external data"):
        ortolan.InferenceSession(path, options)


def test_external_data_of_a_functions_default_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    make = onnx.helper.make_node
    constant = make("Constant", [], ["c"])
    constant.attribute.add(name="value", ref_attr_name="w", type=onnx.AttributeProto.TENSOR)
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    function = onnx.helper.make_function(
        "local", "F", ["x"], ["y"], [constant, make("Add", ["x", "c"], ["y"])], imports[:1]
    )
    default = function.attribute_proto.add(name="w", type=onnx.AttributeProto.TENSOR)
    default.t.dims.append(4)
    default.t.data_type = TensorProto.FLOAT
    default.t.data_location = TensorProto.EXTERNAL
    default.t.external_data.add(key="location", value="../secret")
    x, y = (onnx.helper.make_tensor_value_info(k, TensorProto.FLOAT, [4]) for k in "xy")
    graph = onnx.helper.make_graph([make("F", ["x"], ["y"], domain="local")], "g", [x], [y])
    model = onnx.helper.make_model(graph, functions=[function], opset_imports=imports)
    path = tmp_path / "models" / "m.onnx"
    path.parent.mkdir()
    onnx.save(model, path)
    with pytest.raises(errors.InvalidGraph, match="outside the model's folder"):
        load(path)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = external_model(tmp_path / "models", "weights.bin")
    (tmp_path / "models" / "weights.bin").write_bytes(b"short")
    with pytest.raises(errors.InvalidGraph, match="beyond the end"):
        load(path)
    (tmp_path / "models" / "weights.bin").unlink()
    with pytest.raises(errors.NoSuchFile, match="external data"):
        load(path)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"length": "-1"}, "length of -1 bytes, its type and shape 256"),
        ({"length": "252"}, "length of 252 bytes"),
        ({"length": "260"}, "length of 260 bytes"),
        ({"length": "", "offset": "20"}, "beyond the end"),
        ({"offset": "-4"}, "beyond the end"),
        ({"offset": "0x4"}, "no number"),
        ({"location": "weights.bin\0x"}, "no name of a file"),
        ({"location": "."}, "which is no file"),
    ],
)
def test_external_data_with_wrong_entries(
    entries: dict[str, str], text: str, tmp_path: Path
) -> None:
    path = external_model(tmp_path / "models", "weights.bin")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(errors.InvalidGraph, match=text):
        load(path)


def test_external_data_of_strings_or_without_a_size(tmp_path: Path) -> None:
    path = external_model(tmp_path / "models", "weights.bin")
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    for kind, dims, text in (
        (TensorProto.STRING, [64], "would be strings"),
        (99, [64], "no element type"),
        (TensorProto.FLOAT, [-64], "negative dimensions"),
        (TensorProto.FLOAT, [1 << 61], "its type and shape 9223372036854775808"),
    ):
        tensor.data_type = kind
        tensor.dims[:] = dims
        path.write_bytes(model.SerializeToString())
        with pytest.raises(errors.OrtolanError, match=text):
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


_INFER_ALL = """
import onnx
import onnx_ir as ir
from onnx import helper
from ortolan.importing.shapes import infer_hints
from ortolan.importing.versions import set_versions

Kind = onnx.defs.OpSchema.AttrType
TENSOR = helper.make_tensor("t", 1, [1], [1.0])
VALUES = {Kind.INT: 1, Kind.FLOAT: 1.0, Kind.STRING: "x", Kind.INTS: [1], Kind.FLOATS: [1.0],
          Kind.STRINGS: ["x"], Kind.TENSOR: TENSOR}
count = 0
for schema in onnx.defs.get_all_schemas_with_history():
    names = [f"i{k}" for k in range(max(schema.min_input, min(schema.max_input, 1)))]
    given = [{a.name: VALUES[a.type] for a in schema.attributes.values() if a.type in VALUES and
              (a.required or everything)} for everything in (False, True)]
    for attributes in given:
        made = helper.make_node(schema.name, names, ["o"], domain=schema.domain, **attributes)
        nodes = [helper.make_node("Unknown", [], names, domain="x")] if names else []
        graph = helper.make_graph([*nodes, made], "g", [], [])
        imports = {"": 21, "x": 1, schema.domain: schema.since_version}
        opsets = [helper.make_opsetid(*item) for item in imports.items()]
        print(schema.name, schema.since_version, *attributes, flush=True)
        model = ir.from_proto(helper.make_model(graph, opset_imports=opsets))
        set_versions(model.graph.all_nodes(), imports)
        infer_hints(model)
        count += 1
print(count)
"""


def test_inference_where_no_type_is_known_does_not_end_the_process() -> None:
    """Of every operator in every version: onnx's own reads what is not there of some."""
    command = [sys.executable, "-c", _INFER_ALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-1000:]
    assert int(done.stdout.split()[-1]) > 1000


@pytest.mark.parametrize(
    "nodes", ["y = Add(x, w)", "a = Relu(w) y = Sub(a, x)", "a = Reshape(w, all) y = Add(a, x)"]
)
def test_vectors_of_many_elements_are_not_taken_for_shapes(nodes: str) -> None:
    """Inference that propagates numbers would make a dimension of each element."""
    text = (
        '<ir_version: 8, opset_import: ["": 17]> '
        f"g (float[1] x, float[2147483648] w) => (float[n] y) <int64[1] all = {{-1}}> {{ {nodes} }}"
    )
    found = read(convert(onnx.parser.parse_model(text), level="disable"))
    assert found.model.graph.outputs


def test_inference_survives_negative_sizes() -> None:
    """Found by fuzzing: onnx's inference of a Slice of one ends the process."""
    script = """
import onnx, sys
import numpy as np
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from ortolan.importer import load
attributes = {
    "MaxPool": dict(kernel_shape=[9, 9]), "Resize": dict(axes=[2]), "Split": dict(axis=2),
    "ConvTranspose": dict(pads=[9, 9, 9, 9]), "CenterCropPad": dict(axes=[2]),
}
inputs = {
    "Conv": ["x", "weights"], "MaxPool": ["x"], "ConvTranspose": ["x", "weights"],
    "Pad": ["x", "pads"], "Tile": ["x", "shape"], "Expand": ["one", "shape"],
    "ConstantOfShape": ["shape"], "Reshape": ["x", "shape"], "Resize": ["x", "", "", "size"],
    "Split": ["x", "parts"], "CenterCropPad": ["x", "size"], "Relu": ["negative"],
}
constants = {
    "weights": np.zeros((3, 3, 9, 9), np.float32), "one": np.ones((1, 1, 1, 1), np.float32),
    "pads": [0, 0, -3, 0, 0, 0, -3, 0], "shape": [1, 3, -4, 4], "size": [-4], "parts": [-2, 6],
    "starts": [0], "ends": [1], "axes": [2],
}
constants = [onnx.numpy_helper.from_array(np.array(v), k) for k, v in constants.items()]
for op_type, names in inputs.items():
    outputs = ["y", "z"] if op_type == "Split" else ["y"]
    node = make_node(op_type, names, outputs, **attributes.get(op_type, {}))
    part = make_node("Slice", ["y", "starts", "ends", "axes"], ["part"])
    shapes = {"x": [1, 3, 4, 4], "negative": [1, 3, -4, 4]}
    feeds = [make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    graph = make_graph([node, part], "g", feeds, [onnx.ValueInfoProto(name="part")], constants)
    load(make_model(graph, opset_imports=[make_opsetid("", 18)]))
    print(op_type)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("y = GatherND<batch_dims=-3>(x, i)", None),
        ("y = GatherND<batch_dims=9223372036854775807>(x, i)", None),
        ("y = GatherND(x, i)", 2),
        ("y, m, d = LayerNormalization<axis=-7>(x, x)", None),
        ("y, m, d = LayerNormalization<axis=2147483648>(x, x)", None),
        ("y, m, d = LayerNormalization<axis=1>(x, x)", 3),
        ("y, b = Split<num_outputs=1>(x)", None),
        ("y, b = Split<num_outputs=2147483648>(x)", None),
        ("y, b = Split<num_outputs=2>(x)", 3),
    ],
)
def test_inference_survives_attributes(text: str, rank: int | None) -> None:
    """Found by random models: such attributes ended the process, or took all memory."""
    script = """
import sys
import onnx.parser
import onnx_ir as ir
from ortolan.importing.shapes import infer_hints
from ortolan.importing.versions import set_versions
model = ir.serde.deserialize_model(onnx.parser.parse_model(sys.argv[1]))
set_versions(model.graph.all_nodes(), model.opset_imports)
_, shape = infer_hints(model).get(model.graph.outputs[0], (None, None))
print(shape and len(shape))
"""
    head = '<ir_version: 10, opset_import: ["": 18]>'
    model = f"{head} agraph (float[2, 3, 4] x, int64[5, 2] i) => (y) {{ {text} }}"
    command = [sys.executable, "-c", script, model]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(rank)


def test_inference_passes_shapes_behind_guards() -> None:
    """Sizes that are computed from a shape, and go through a Slice, are known all the same."""
    x = helper.make_tensor_value_info("x", 1, [2, 3, 4])
    constants = {"starts": [1], "ends": [3], "minus": [-1]}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["r"], ["shape"]),
        helper.make_node("Slice", ["shape", "starts", "ends"], ["part"]),
        helper.make_node("Concat", ["part", "minus"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["r", "wanted"], ["y"]),
        helper.make_node("Exp", ["y"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [x], [onnx.ValueInfoProto(name="z")],
        [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    model = load(helper.make_model(graph, opset_imports=opsets))
    assert list(model.graph.outputs[0].shape or ()) == [3, 4, 2]


def test_inference_comes_back_from_any_equation() -> None:
    """Found by fuzzing: onnx's inference of Einsum did not; in a process that can be stopped."""
    script = """
import onnx, sys
from ortolan.importer import load
for equation in sys.argv[1:]:
    node = onnx.helper.make_node("Einsum", ["x"], ["y"], equation=equation)
    x = onnx.helper.make_tensor_value_info("x", 1, [3, 4])
    graph = onnx.helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")])
    opsets = [onnx.helper.make_opsetid("", 12)]
    load(onnx.helper.make_model(graph, opset_imports=opsets))
    print(equation)
"""
    equations = ["ij->ji", "i...->...", "ij%>", "%", "i-j", "ij->%", ">", "i1->i", ".", "i .,->i "]
    command = [sys.executable, "-c", script, *equations]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == equations
