"""ORT format -> ONNX: nothing is lost that both formats can say, and onnx's checker is content."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import pytest
from onnx import TensorProto, helper

import cases_lib
import corpus
import marks
import models_lib as lib
import models_oracle as oracle
import ortolan
import random_graphs
from ortolan.errors import InvalidArgument, LimitExceeded, NoModel
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.ortformat import read
from ortolan.ortformat.schema import OPTIONAL_DENOTATION, TensorDataType
from ortolan.ortformat.tables import Tensor, TypeInfo
from ortolan.ortformat.to_onnx import to_onnx

ALL_MODELS = marks.real_models()
# Goldens where onnxruntime's sigmoid is wrong by more than the limit.
WRONG_SIGMOIDS = ("yunet-n-dynamic", "ppocr-det-v1.1-ch")
ONNXRUNTIMES_OWN = ("LayerNormalization", "SimplifiedLayerNormalization")
CASES = [case for case in cases_lib.load_cases() if case.error is None]
FIRST_CASES = list({(case.family, case.operator): case for case in reversed(CASES)}.values())


def is_clean(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def has_onnxruntimes_own(model: onnx.ModelProto) -> bool:
    """Whether a node is ai.onnx's for onnxruntime alone, as its own optimized models have them."""
    opset = next(item.version for item in model.opset_import if item.domain == "")
    return opset < 17 and any(node.op_type in ONNXRUNTIMES_OWN for node in model.graph.node)


def back_and_forth(content: bytes) -> onnx.ModelProto:
    """The ONNX model of a file; holds that converting it gives the file again, byte for byte."""
    model = to_onnx(read(content))
    again = ortolan.convert(model, level="disable", allow_unknown_operators=True)
    if read(content).model.ir_version == read(again).model.ir_version:
        assert again == content
        return model
    # Version 3 of ONNX has every constant as an input. What was made of it is of version 4, and
    # inference finds more shapes there, which are hints.
    old, new = read(content).model.graph, read(again).model.graph
    assert (old.nodes, old.initializers) == (new.nodes, new.initializers)
    return back_and_forth(again)


@pytest.mark.skipif(bool(lib.MISSING), reason=lib.MISSING)
@pytest.mark.parametrize("level", ["disable", "extended"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_model(name: str, level: str) -> None:
    check = lib.make_check(name)
    content = ortolan.convert(check.source, level=level, allow_unknown_operators=True)
    model = back_and_forth(content)
    assert is_clean(model) or has_onnxruntimes_own(model)
    if name in WRONG_SIGMOIDS:  # the check has what is right instead
        check = dataclasses.replace(check, steps=[lib.Step(*lib.golden(name))])
    assert not lib.run_check(check, oracle.session(model.SerializeToString())).problem


@pytest.mark.parametrize("name", corpus.names())
def test_corpus(name: str) -> None:
    check = corpus.make_check(name)
    content = ortolan.convert(check.source, level="disable", allow_unknown_operators=True)
    model = back_and_forth(content)
    assert isinstance(check.source, onnx.ModelProto)
    assert is_clean(model) or not is_clean(check.source)
    try:
        session = oracle.session(model.SerializeToString())
    except Exception:
        # Where onnxruntime refuses ours, it must refuse the model that it was made from.
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            oracle.session(check.source.SerializeToString())
        return
    assert not lib.run_check(check, session).problem


@pytest.mark.parametrize("case", FIRST_CASES, ids=lambda case: case.id)
def test_operator(case: cases_lib.Case) -> None:
    model = cases_lib.make_model(case).proto
    content = ortolan.convert(model, level="disable", allow_unknown_operators=True)
    if case.domain == "com.microsoft":
        # What the importer makes of some of them has versions older than the import.
        again = to_onnx(read(content))
        content = ortolan.convert(again, level="disable", allow_unknown_operators=True)
    result = back_and_forth(content)
    assert is_clean(result) or not is_clean(model)


@pytest.mark.parametrize("seed", range(20))
def test_random_graph(seed: int) -> None:
    drawn = random_graphs.make(seed)
    model = back_and_forth(ortolan.convert(drawn.model, level="disable"))
    # The checker wants a rank of every output, which some of these models do not tell.
    assert is_clean(model) or not is_clean(drawn.model)
    wanted = oracle.session(drawn.model.SerializeToString())
    got = oracle.session(model.SerializeToString())
    for feeds in drawn.feeds:
        for a, b in zip(got.run(None, feeds), wanted.run(None, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


TEXTS = """<ir_version: 9, opset_import: ["": 18, "ai.onnx.ml": 3], producer_name: "p",
    producer_version: "1", domain: "d", model_version: 7, doc_string: "about the model",
    metadata_props: ["k": "v", "empty": ""]>
g (float[N, 3] x) => (float[N, 3] y) { y = Identity(x) }"""


def test_texts_and_dimensions() -> None:
    source = onnx.parser.parse_model(TEXTS)
    source.graph.doc_string = "about the graph"
    source.graph.input[0].doc_string = "an input"
    source.graph.input[0].type.denotation = "IMAGE"
    source.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    source.graph.node[0].name, source.graph.node[0].doc_string = "n", "a node"
    source.graph.node[0].ClearField("domain")
    model = back_and_forth(ortolan.convert(source, level="disable"))
    # The file names the opsets that are used, and the graph has no name in it.
    del source.opset_import[1:]
    source.graph.name = model.graph.name
    assert model == source


def test_sequences_maps_and_strings() -> None:
    source = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (seq(float[N]) s, int64 i)
        => (float[N] y, string[2] t) <string[2] c = {"a", "b"}>
        { y = SequenceAt(s, i) t = Identity(c) }"""
    )
    content = ortolan.convert(source, level="disable", allow_unknown_operators=True)
    model = back_and_forth(content)
    assert model.graph.input[0].type == source.graph.input[0].type
    assert list(model.graph.initializer[0].string_data) == [b"a", b"b"]


def test_optional_types_are_an_extension() -> None:
    source = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]> g (float[N] x) => (bool y)
        { o = Optional(x) y = OptionalHasElement(o) }"""
    )
    content = ortolan.convert(source, level="disable", allow_unknown_operators=True)
    (info,) = (i for i in read(content).model.graph.node_args if i.name == "o")
    assert isinstance(info.type, TypeInfo) and info.type.denotation == OPTIONAL_DENOTATION
    model = back_and_forth(content)
    (value,) = model.graph.value_info
    assert value.type.optional_type.elem_type.tensor_type.elem_type == TensorProto.FLOAT
    assert is_clean(model)


def test_an_empty_optional_keeps_its_type() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, 3])
    kinds = {"t": tensor, "s": helper.make_sequence_type_proto(tensor)}
    nodes = [helper.make_node("Optional", [], [key], type=kind) for key, kind in kinds.items()]
    nodes += [helper.make_node("OptionalHasElement", [key], [f"has_{key}"]) for key in kinds]
    outputs = [helper.make_tensor_value_info(f"has_{k}", TensorProto.BOOL, []) for k in kinds]
    graph = helper.make_graph(nodes, "g", [], outputs)
    source = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    content = ortolan.convert(source, level="disable", allow_unknown_operators=True)
    model = back_and_forth(content)
    found = [attribute.tp for node in model.graph.node for attribute in node.attribute]
    assert found == list(kinds.values())
    assert is_clean(model)
    assert oracle.session(model.SerializeToString()).run(None, {}) == [False, False]
    assert ortolan.InferenceSession(content).run(None, {}) == [False, False]


def test_an_import_is_found_that_fits_all_nodes() -> None:
    source = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 12]> g (float[2,2] x) => (float[2] y)
        { y = ReduceSum<axes = [1], keepdims = 0>(x) }"""
    )
    session = read(ortolan.convert(source, level="disable"))
    session.model.opset_import[0].version = 17  # as onnxruntime would not have it
    assert to_onnx(session).opset_import[0].version == 12
    other = dataclasses.replace(session.model.graph.nodes[0], since_version=13, index=1)
    session.model.graph.nodes.append(other)
    with pytest.raises(NotImplementedHere, match="has version 11, and the file imports version 17"):
        to_onnx(session)


def test_what_onnx_does_not_know_is_refused() -> None:
    session = read(ortolan.convert(onnx.parser.parse_model(TEXTS), level="disable"))
    session.model.graph.nodes[0].domain = "ai.ortolan"
    with pytest.raises(NotImplementedHere, match="at most at level layout"):
        to_onnx(session)


def test_bytes_that_are_shared_by_many_constants_have_a_limit() -> None:
    session = read(ortolan.convert(onnx.parser.parse_model(TEXTS), level="disable"))
    block = bytes(1 << 20)
    session.model.graph.initializers += [
        Tensor(name=f"w{k}", dims=[1 << 18], data_type=TensorDataType.FLOAT, raw_data=block)
        for k in range(2048)
    ]
    with pytest.raises(LimitExceeded, match="2 GB"):
        to_onnx(session)


def test_files(tmp_path: Path) -> None:
    """The destination's name says what is written; a file is never converted to itself."""
    source = tmp_path / "a.onnx"
    onnx.save(onnx.parser.parse_model(TEXTS), source)
    ort = ortolan.convert(source, tmp_path / "a.ort", level="disable")
    back = ortolan.convert(ort, tmp_path / "b.onnx")
    assert onnx.load(back) == to_onnx(read(ort.read_bytes()))
    # From ONNX to ONNX: the same passes, at most level layout.
    assert onnx.load(ortolan.convert(source, tmp_path / "c.onnx")).graph.node
    # From file to file, and from bytes: optimized again.
    assert ortolan.convert(ort.read_bytes(), level="disable") == ort.read_bytes()
    with pytest.raises(InvalidArgument, match="the model itself"):
        ortolan.convert(ort, ort)
    with pytest.raises(NoModel, match="damaged"):
        ortolan.convert(ort.read_bytes()[:100])
