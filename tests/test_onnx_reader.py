"""The runtime's own reader of ONNX models: real models, odd ones, damaged and hostile ones.

Nearly everything here is opened with the converter out of reach, so that the reader cannot hide
behind it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import corpus
import hostile_models
import models_lib
import onnx_wire as wire
import ortolan
from ortolan import _native, errors
from ortolan.catalog import FAMILIES
from ortolan.catalog.onnx_versions import since_versions
from ortolan.catalog.operator import Operator
from ortolan.importing.versions import since_version

SEED = int(os.environ.get("ORTOLAN_TEST_SEED", "20261127"))
REPEATING = [
    operator
    for family in FAMILIES
    for operator in family.operators
    if operator.control == "none" and operator.inputs and operator.inputs[-1].variadic
]
MUTANTS = int(os.environ.get("ORTOLAN_MUTANTS", "1000"))
TOOLS = Path(__file__).resolve().parent.parent / "tools"


def opened(source: Any) -> ortolan.InferenceSession:
    """A session of the reader; raises what it raises."""
    options = ortolan.SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    if isinstance(source, onnx.ModelProto):
        source = source.SerializeToString()
    return _Strict(source, options)


class _Strict(ortolan.InferenceSession):
    """Does not turn to the converter."""

    def _open_as_it_is(self, source: str | bytes) -> bool:
        if isinstance(source, bytes):
            self._open_bytes(source)
        else:
            self._open_path(source)
        return True


# ---- What it reads.


@pytest.mark.skipif(bool(models_lib.MISSING), reason=models_lib.MISSING)
@pytest.mark.parametrize("name", models_lib.check_names())
def test_model(name: str) -> None:
    check = models_lib.make_check(name)
    assert not models_lib.run_check(check, opened(check.source)).problem


@pytest.mark.parametrize("name", corpus.names())
def test_entry_of_the_corpus(name: str) -> None:
    if corpus.entry(name).not_yet:
        pytest.xfail(corpus.entry(name).not_yet)
    check = corpus.make_check(name)
    assert not models_lib.run_check(check, opened(check.source)).problem


def graph_of(nodes: list[onnx.NodeProto], outputs: list[str], **more: Any) -> onnx.ModelProto:
    """A model of one float input `x` of two elements."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, [2])],
        [info(name, TensorProto.FLOAT, None) for name in outputs], **more,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


X = np.array([1, -2], np.float32)


def run(model: onnx.ModelProto) -> list[Any]:
    """The outputs for X."""
    return opened(model).run(None, {"x": X})


TYPES = (
    "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE",
    "UINT32", "UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN", "UINT4", "INT4",
)  # fmt: skip


def tensor_of(name: str, kind: int, *, raw: bool) -> onnx.TensorProto:
    """A vector of five numbers in the field of its type, or as raw bytes."""
    values: list[Any] = [0, 1, 1, 0, 1] if kind == TensorProto.BOOL else [3, 1, 0, 2, 5]
    typed = helper.make_tensor(name, kind, [5], values)
    assert not typed.HasField("raw_data")
    if not raw:
        return typed
    return numpy_helper.from_array(numpy_helper.to_array(typed), name)


@pytest.mark.parametrize("name", TYPES)
def test_both_forms_of_a_tensor_are_the_same(name: str) -> None:
    kind = TensorProto.DataType.Value(name)
    results = []
    for raw in (False, True):
        model = graph_of([], ["y"], initializer=[tensor_of("y", kind, raw=raw)])
        model.graph.output[0].type.tensor_type.elem_type = kind
        results.append(opened(model).run(None, {"x": X})[0])
    expected = numpy_helper.to_array(tensor_of("y", kind, raw=True))
    assert results[0].tobytes() == results[1].tobytes() == np.asarray(expected).tobytes()
    assert len(results[0]) == 5


def test_a_lone_number_is_not_the_name_before_it() -> None:
    """Both have four bytes; numbers that are not packed come one by one. Found by reading."""
    tensor = b"\x08\x01\x10\x01\x42\x04nine\x25" + np.float32(2.5).tobytes()
    model = graph_of([], ["nine"])
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor
    model.ClearField("graph")
    data = model.SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph
    assert opened(data).run(None, {"x": X})[0] == [2.5]


def test_strings_count_as_what_memory_has_for_them() -> None:
    """Of none there may be no dimension that none could have. Found by reading."""
    tensor = TensorProto(name="y", data_type=TensorProto.STRING, dims=[0, 1 << 61])
    with pytest.raises(ortolan.errors.InvalidFormat, match="do not fit the 0 strings"):
        opened(graph_of([], ["y"], initializer=[tensor]))


def test_attributes_of_other_forms_turn_no_integers() -> None:
    """Those of com.microsoft:FusedMatMul: there was no memory to turn them in. Found by reading."""
    integers = {"a": (3, 5), "b": (4, 5)}
    model = graph_of(
        [helper.make_node("MatMul", ["a", "b"], ["y"], transB=1)],
        ["y"],
        initializer=[
            numpy_helper.from_array(np.ones(shape, np.int32), name)
            for name, shape in integers.items()
        ],
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    with pytest.raises(ortolan.errors.InvalidArgument, match="differ in the inner dimension"):
        run(model)


@pytest.mark.parametrize("shift", range(8))
def test_weights_lie_anywhere_in_the_file(shift: int) -> None:
    weights = numpy_helper.from_array(np.array([0.5, 4], np.float64), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["d", "w"], ["e"]),
        helper.make_node("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
    ]
    model = graph_of(nodes, ["y"], initializer=[weights])
    model.producer_name = "p" * (1 + shift)
    assert run(model)[0].tolist() == [0.5, -8]


def test_versions_are_those_of_the_standard() -> None:
    for name in ("Add", "Clip", "Softmax", "Upsample", "LSTM", "Cast", "ZipMap"):
        domain = "ai.onnx.ml" if name == "ZipMap" else ""
        versions = since_versions(domain, name)
        for opset in range(versions[0], 5 if domain else 27):
            expected = since_version(domain, name, opset)
            assert max(v for v in versions if v <= opset) == expected, (name, opset)


def test_the_file_of_versions_is_that_of_the_package() -> None:
    command = [sys.executable, str(TOOLS / "onnx_versions.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(("opset", "expected"), [(10, [0.5, 0.5]), (12, [0.5, 0.5]), (13, [1, 1])])
def test_an_opset_means_the_version_in_force(opset: int, expected: list[float]) -> None:
    """Softmax of [1, 2, 1]: before 13 over all from axis 1 on, then over the last."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    (found,) = opened(model).run(None, {"x": np.ones((1, 2, 1), np.float32)})
    assert found.reshape(2).tolist() == expected


def test_metadata_and_descriptions() -> None:
    model = graph_of([helper.make_node("Neg", ["x"], ["y"])], ["y"])
    model.producer_name, model.domain, model.model_version = "maker", "a.b", 7
    model.doc_string, model.graph.doc_string = "of it", "of the graph"
    model.metadata_props.add(key="k", value="v\u00fc")
    for name in ("?", "batch"):
        model.graph.input.add().CopyFrom(model.graph.input[0])
        model.graph.input[-1].name = f"in_{name}"
        model.graph.input[-1].type.tensor_type.shape.dim[0].dim_param = name
    session = opened(model)
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.domain, meta.version) == ("maker", "a.b", 7)
    assert (meta.graph_name, meta.description) == ("g", "of it")
    assert meta.graph_description == "of the graph"
    assert meta.custom_metadata_map == {"k": "v\u00fc"}
    assert [i.name for i in session.get_inputs()] == ["x", "in_?", "in_batch"]
    assert [i.shape for i in session.get_inputs()] == [[2], [None], ["batch"]]


def test_a_branch_may_give_outer_values_and_repeat_them() -> None:
    info = helper.make_tensor_value_info
    outs = [info("x", TensorProto.FLOAT, None), info("w", TensorProto.FLOAT, None)]
    then = helper.make_graph([], "t", [], outs)
    twice = helper.make_graph([], "e", [], [outs[1], outs[1]])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=then, else_branch=twice),
    ]
    weights = [
        numpy_helper.from_array(np.array([7, 8], np.float32), "w"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    session = opened(graph_of(nodes, ["a", "b", "a"], initializer=weights))
    negative = session.run(None, {"x": X})
    assert [v.tolist() for v in negative] == [[7, 8]] * 3
    positive = session.run(None, {"x": -X})
    assert [v.tolist() for v in positive] == [[-1, 2], [7, 8], [-1, 2]]


# ---- Files beside the model.


def with_external(folder: Path, **entries: str) -> Path:
    """A model that adds two numbers of `w.bin`, which has [1, 2, 3, 4] from byte 4 on."""
    (folder / "w.bin").write_bytes(b"head" + np.arange(1, 5, dtype=np.float32).tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": "8", "length": "8", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    model = graph_of([helper.make_node("Add", ["x", "w"], ["y"])], ["y"], initializer=[tensor])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "sub/../w.bin"])
def test_external_data_are_mapped(location: str, tmp_path: Path) -> None:
    path = with_external(tmp_path, location=location)
    if ".." in location:
        with pytest.raises(errors.InvalidGraph, match="outside the model's folder"):
            opened(path)
        return
    assert opened(path).run(None, {"x": X})[0].tolist() == [3, 1]
    # The current folder is the model's.
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert opened("model.onnx").run(None, {"x": X})[0].tolist() == [3, 1]
    finally:
        os.chdir(here)


def test_external_data_at_odd_places_are_copied(tmp_path: Path) -> None:
    path = with_external(tmp_path, offset="5")
    content = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(b"!" + content)
    assert opened(path).run(None, {"x": X})[0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "../w.bin"}, "outside the model's folder"),
        ({"location": "a/../../w.bin"}, "outside the model's folder"),
        ({"location": "c:\\w.bin"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "w.bin\0x"}, r'its external data \("w.bin'),
        ({"location": "none.bin"}, "cannot read its external data"),
        ({"location": "."}, "cannot read its external data"),
        ({"location": "n" * 300}, "cannot read its external data"),
        ({"offset": "16"}, "beyond the end"),
        ({"offset": "18446744073709551615"}, "no number"),
        ({"offset": "9223372036854775807"}, "beyond the end"),
        ({"offset": "-4"}, "no number"),
        ({"length": "9999"}, "beyond the end"),
        ({"length": "4"}, "need 8 bytes"),
        ({"length": "x"}, "no number"),
    ],
)
def test_external_data_that_are_refused(entries: dict[str, str], text: str, tmp_path: Path) -> None:
    with pytest.raises(errors.OrtolanError, match=text):
        opened(with_external(tmp_path, **entries))


def test_external_data_behind_links_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    path = with_external(inside, location="link.bin")
    (inside / "link.bin").symlink_to(outside / "w.bin")
    (outside / "w.bin").write_bytes(bytes(64))
    with pytest.raises(errors.NotImplemented, match="symbolic link"):
        opened(path)
    path = with_external(inside, location="folder/w.bin")
    (inside / "folder").symlink_to(outside)
    with pytest.raises(errors.NotImplemented, match="symbolic link"):
        opened(path)
    os.mkfifo(inside / "pipe")  # opening it must not wait
    with pytest.raises(errors.NoSuchFile):
        opened(with_external(inside, location="pipe"))


def test_external_data_need_a_path(tmp_path: Path) -> None:
    content = with_external(tmp_path).read_bytes()
    with pytest.raises(errors.InvalidArgument, match="by its path"):
        opened(content)


# ---- Damage.


def test_ranks_that_a_file_invents_are_noticed_in_constants() -> None:
    """What loading computes is checked as what a run computes is. Found by reading."""
    weights = {"i": (1, 3, 5), "w": (4, 3, 1), "c": (1, 3, 5)}
    model = graph_of(
        [
            helper.make_node("Conv", ["i", "w"], ["a"]),
            helper.make_node("Concat", ["a", "c"], ["y"], axis=1),
        ],
        ["y"],
        initializer=[
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in weights.items()
        ],
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, [None] * 4)],
    )
    with pytest.raises(ortolan.errors.InvalidGraph, match="not the rank that the file states"):
        run(model)


def test_outputs_of_training_are_none_of_old_versions() -> None:
    """An attribute of newer ones made them, of shapes of inputs beyond the last. By reading."""
    names = ["x", "scale", "b", "mean", "var"]
    model = graph_of(
        [helper.make_node("BatchNormalization", names, [*"ymvst"], training_mode=1)],
        ["y"],
        initializer=[
            numpy_helper.from_array(np.ones((1, 2) if name == "x" else 2, np.float32), name)
            for name in names
        ],
    )
    model.opset_import[0].version = 8
    with pytest.raises(ortolan.errors.NotImplemented, match="exists in training only"):
        opened(model)


def test_attributes_of_other_operators_make_no_strings_of_numbers() -> None:
    """Those of a CategoryMapper: the numbers were read as addresses. Found by reading."""
    node = helper.make_node(
        "LabelEncoder", ["k"], ["y"], domain="ai.onnx.ml",
        cats_strings=["a"], cats_int64s=[1 << 40], keys_strings=["a"], values_strings=["q"],
    )  # fmt: skip
    key = numpy_helper.from_array(np.array(["a"], object), "k")
    model = graph_of([node], ["y"], initializer=[key])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert run(model)[0] == ["q"]


def nested(depth: int) -> onnx.ModelProto:
    """Branches in branches."""
    info = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "b", [], [info])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)
        node.attribute[1].g.CopyFrom(
            helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "b", [], [info])
        )
        graph = helper.make_graph([node], "b", [], [info])
    model = graph_of(list(graph.node), ["o"])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    return model


_ADDED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[1, 8, 6, 6] x, float16[2, 3] h) => (float[1, 8, n] y, float16[2, 3] z)
    <float[8, 8, 1, 1] w, int64[3] s = {1, 8, -1}> {
    middle = Sin (x)
    convolved = Conv (middle, w)
    y = Reshape (convolved, s)
    half = Neg (h)
    soft = Softmax (half)
    z = Neg (soft)
}
"""


def test_nodes_that_loading_adds_have_whole_names() -> None:
    """They are called as values, whose names have no end of their own in the file."""
    model = onnx.parser.parse_model(_ADDED)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w"))
    session, names = opened(model), list[str]()
    node = _native.library().ortolan_model_node
    while node(session._model, 0, len(names), b"type"):
        names.append(node(session._model, 0, len(names), b"name").decode())
    assert "middle" in names
    assert len(set(names)) > 3
    known = {name for each in model.graph.node for name in (*each.input, *each.output)}
    assert set(names) <= {"", *known}


def test_texts_have_a_limit(tmp_path: Path) -> None:
    """A name of 3 GB, most of it a hole in the file; errors count the bytes of texts in 31 bits."""
    size = 3 << 30
    model = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    )
    node, path = model.graph.node.pop(), tmp_path / "model.onnx"
    node.input.clear()
    tail = node.SerializeToString()
    name = b"\x0a" + wire.varint(size)
    named = b"\x0a" + wire.varint(len(name) + size + len(tail)) + name
    rest = model.graph.SerializeToString()
    model.ClearField("graph")
    head = model.SerializeToString() + b"\x3a"
    head += wire.varint(len(named) + size + len(tail) + len(rest)) + named
    with path.open("wb") as file:
        file.write(head)
        file.seek(size, os.SEEK_CUR)
        file.write(tail + rest)
    with pytest.raises(errors.InvalidFormat, match=r"a text of 2 GB or more at byte"):
        opened(path)


def test_nesting_has_a_limit() -> None:
    assert run(nested(20))[0].tolist() == [-1, 2]
    with pytest.raises(errors.LimitExceeded, match="nested deeper"):
        opened(nested(25))


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    """A model of two additions with a change."""
    nodes = [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])]
    model = graph_of(nodes, ["y"], initializer=[numpy_helper.from_array(X, "w")])
    change(model)
    return model


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "part of a cycle"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "no"), '"no" is used but never defined'),
        (lambda m: m.graph.node[1].output.__setitem__(0, "a"), '"a" is defined a second time'),
        (lambda m: m.graph.node[1].output.__setitem__(0, "w"), '"w" is defined a second time'),
        (lambda m: m.graph.input.append(m.graph.input[0]), 'two inputs have the name "x"'),
        (lambda m: m.graph.initializer[0].dims.append(2**62), "negative or too large"),
        (lambda m: m.graph.initializer[0].dims.append(-1), "negative or too large"),
        (lambda m: m.graph.initializer[0].dims.append(3), "need 24 bytes, the file has 8"),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 8), "at most 8"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "element type 99"),
        (lambda m: setattr(m.graph.initializer[0], "name", ""), "has no name"),
        (lambda m: setattr(m.graph.node[0], "op_type", ""), "names no operator"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Nope"), "Nope .version 18"),
        (lambda m: m.opset_import.pop(), "imports no operator set"),
        (lambda m: setattr(m.opset_import[0], "version", 0), "the first version is 1"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "newest one known"),
        (lambda m: m.ClearField("graph"), "0 graphs"),
        (lambda m: m.graph.output[0].ClearField("name"), "has no name"),
    ],
)
def test_graphs_that_are_refused(change: Callable[[onnx.ModelProto], object], text: str) -> None:
    with pytest.raises(errors.OrtolanError, match=text):
        opened(changed(change))


@pytest.mark.parametrize("operator", REPEATING, ids=lambda operator: operator.name)
def test_of_inputs_that_repeat_none_is_left_out(operator: Operator) -> None:
    """Found by random models: Einsum read what was not there."""
    attributes: dict[str, dict[str, Any]] = {
        "Einsum": {"equation": "i,i,i->i"}, "Concat": {"axis": 0}, "QLinearConcat": {"axis": 0},
    }  # fmt: skip
    first = len(operator.inputs) - 1
    for missing in range(first, first + 3):
        names = [f"x{k}" for k in range(first + 3)]
        names[missing] = ""
        node = helper.make_node(
            operator.name, names, ["y"], domain=operator.domain, **attributes.get(operator.name, {})
        )
        feeds = [helper.make_tensor_value_info(x, TensorProto.FLOAT, [2]) for x in names if x]
        graph = helper.make_graph([node], "g", feeds, [onnx.ValueInfoProto(name="y")])
        opsets = {"": 17, operator.domain: 17 if operator.domain == "" else 1}
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets.items()]
        )
        with pytest.raises(errors.InvalidGraph, match=f"input {missing} is missing"):
            opened(model)
        with pytest.raises(errors.InvalidGraph, match="is left out"):
            ortolan.convert(model)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x08\x07\x3a\x05\x0a", "outside its message"),
        (b"\x08" + b"\xff" * 11, "outside its message"),
        (b"\x08\x07\x3b\x3c", "outside its message"),  # groups
        (b"\x08\x07\x10\x01", "unexpected kind"),  # the producer's name as a number
        (b"\x08\x07\x12\x02\xc0\xaf", "not UTF-8"),
        (b"\x08\x07\x3a\x04\x2a\x02\x0a\x01", "unexpected kind|outside its message"),
        (b"\x08\x07" + b"\x3a\x00" * 2, "2 graphs"),
    ],
)
def test_damaged_messages(data: bytes, text: str) -> None:
    with pytest.raises(errors.InvalidFormat, match=text):
        opened(data)


@pytest.mark.parametrize("name", ["convnet", "control"])
def test_truncated_models_are_refused(name: str) -> None:
    data = hostile_models.model(name).SerializeToString()
    opened(data)
    for cut in wire.truncated(data, 37):
        # A cut between two fields leaves a model, which may lack what the graph needs.
        try:
            opened(cut)
        except errors.OrtolanError as error:
            assert str(error)


@pytest.mark.parametrize("name", ["convnet", "control"])
def test_mutants_are_refused_or_opened(name: str) -> None:
    model = hostile_models.model(name)
    outcomes = {"opened": 0, "refused": 0}
    for mutant in wire.mutants(model, SEED, MUTANTS):
        try:
            opened(mutant)
            outcomes["opened"] += 1
        except errors.OrtolanError as error:
            assert str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > MUTANTS // 20, outcomes


def test_random_bytes_are_refused() -> None:
    draw = random.Random(SEED)
    for _ in range(300):
        with pytest.raises(errors.OrtolanError):
            opened(b"\x08" + draw.randbytes(draw.randrange(1, 200)))


# ---- In Python.

FRESH = """
import sys
import ortolan
options = ortolan.SessionOptions()
options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ortolan.InferenceSession(sys.argv[1], options)
session.get_inputs(), session.get_modelmeta()
print([n for n in ("onnx", "onnx_ir", "typer", "google.protobuf") if n in sys.modules])
"""


def test_opening_imports_no_toolchain(tmp_path: Path) -> None:
    path = with_external(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_what_it_refuses_is_converted() -> None:
    options = ortolan.SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = graph_of([helper.make_node("Neg", ["x"], ["y"])], ["y"])
    model.opset_import[0].version = 5  # Neg of version 1 has no kernel but a rewriting
    session = ortolan.InferenceSession(model.SerializeToString(), options)
    assert session.run(None, {"x": X})[0].tolist() == [-1, 2]
