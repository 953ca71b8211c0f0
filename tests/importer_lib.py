"""What the tests of the importer share: small models, and onnxruntime as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from ortolan.conversion import convert
from ortolan.importer import load

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


def disable(model: onnx.ModelProto | Path, *, allow_unknown_operators: bool = False) -> bytes:
    """Our file of a model, not optimized."""
    return convert(model, level="disable", allow_unknown_operators=allow_unknown_operators)


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
