"""What a model becomes in the file, and what the package shows of all this."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from importer_lib import (
    Array,
    add,
    disable,
    model_of,
    oracle,
    weight,
)
from ortolan import errors
from ortolan.catalog.errors import Code
from ortolan.conversion import convert
from ortolan.ortformat import read
from ortolan.ortformat.inspect import type_text


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


def test_optional_types_are_marked() -> None:
    model = model_of(
        helper.make_node("Optional", ["x"], ["o"]), add("x", "x", "y"), opsets=(("", 18),)
    )
    model.graph.output.append(helper.make_empty_tensor_value_info("o"))
    file = read(disable(model))
    assert file.model is not None and file.model.graph is not None
    (found,) = (info for info in file.model.graph.node_args if info.name == "o")
    assert found.type is not None and found.type.denotation == "ai.ortolan.optional"


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
    for code in Code:
        if code is not Code.OK:
            error = errors.from_code(code, "text")
            assert (error.code, str(error)) == (code, "text")
    assert type(errors.from_code(77, "?")) is errors.Fail
