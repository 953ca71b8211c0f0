"""Extensions of the ORT format: weights beside the file, sparse constants, narrow types."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import models_oracle as oracle
import ortolan
from ortolan import errors
from ortolan.ortformat import describe, read, write
from ortolan.ortformat.schema import TensorDataType
from ortolan.ortformat.tables import SparseTensor, Tensor
from ortolan.ortformat.to_onnx import to_onnx

W = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)


def product(weight: np.ndarray[Any, Any] = W) -> onnx.ModelProto:
    """A model with a large and a small constant."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 64] x) => (float[N, 48] y)
        <float[1] b = {0.5}> { m = MatMul(x, w) y = Add(m, b) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def run(source: Any) -> np.ndarray[Any, Any]:
    (y,) = ortolan.InferenceSession(source).run(None, {"x": X})
    return np.asarray(y)


def wanted(weight: np.ndarray[Any, Any] = W) -> np.ndarray[Any, Any]:
    return np.asarray(X.astype(np.float64) @ weight + 0.5, np.float32)


def test_weights_beside_the_file(tmp_path: Path) -> None:
    inside = ortolan.convert(product(), level="disable")
    path = ortolan.convert(product(), tmp_path / "m.ort", level="disable", external_data=True)
    beside = tmp_path / "m.ort.data"
    assert path.stat().st_size < len(inside) - W.nbytes + 64
    assert W.tobytes() in beside.read_bytes()
    np.testing.assert_allclose(run(path), wanted(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(path), run(inside))
    # What tools tell of the file, and its way back.
    (large, _) = describe(read(path.read_bytes())).initializers
    assert (large.name, large.bytes) == ("w", W.nbytes)
    assert ortolan.convert(path, level="disable") == inside
    back = onnx.load(ortolan.convert(path, tmp_path / "back.onnx"))
    assert back == to_onnx(read(inside))


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    path = ortolan.convert(product(), tmp_path / "m.ort", external_data=True)
    beside = tmp_path / "m.ort.data"
    content = path.read_bytes()
    with pytest.raises(errors.InvalidArgument, match="open the model by its path"):
        run(content)
    with pytest.raises(errors.InvalidArgument, match="give its path"):
        ortolan.convert(content)
    beside.write_bytes(beside.read_bytes()[:-1])
    with pytest.raises(errors.OrtolanError, match=r'"w".*beyond the file of weights'):
        run(path)
    with pytest.raises(errors.OrtolanError, match="file of weights"):
        ortolan.convert(path)
    beside.unlink()
    with pytest.raises(errors.NoSuchFile, match=r"m\.ort\.data"):
        run(path)


def test_weights_beside_the_file_need_a_place(tmp_path: Path) -> None:
    with pytest.raises(errors.LimitExceeded, match="give a destination"):
        ortolan.convert(product(), external_data=True)
    with pytest.raises(errors.LimitExceeded, match="onnxruntime reads no weights beside"):
        ortolan.convert(product(), tmp_path / "m.ort", external_data=True, profile="onnxruntime")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_more_than_the_format_holds(tmp_path: Path) -> None:
    """Three tables of 768 MB, from a sparse file, of which a few rows are looked up."""
    rows, width, offset = 3 << 16, 1024, 4096
    size = rows * width * 4
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (int64[N] i) => (float[N, M] y)
        { a = Gather(t0, i) b = Gather(t1, i) c = Gather(t2, i) s = Add(a, b) y = Add(s, c) }"""
    )
    for k in range(3):
        tensor = model.graph.initializer.add(name=f"t{k}", data_type=TensorProto.FLOAT)
        tensor.dims.extend([rows, width])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "t.bin"), ("offset", offset + k * size), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
    source = tmp_path / "m.onnx"
    source.write_bytes(model.SerializeToString())
    with (tmp_path / "t.bin").open("wb") as file:
        for k in range(3):
            file.seek(offset + (k + 1) * size - 4)
            file.write(np.float32(k + 1).tobytes())
    with pytest.raises(errors.LimitExceeded, match="give a destination"):
        ortolan.convert(source)
    path = ortolan.convert(source, tmp_path / "m.ort")
    assert (tmp_path / "m.ort.data").stat().st_size >= 3 * size > 2**31
    session = ortolan.InferenceSession(path)
    (y,) = session.run(None, {"i": np.array([0, rows - 1], np.int64)})
    assert y.shape == (2, width) and not np.any(y[0]) and not np.any(y[1, :-1])
    assert y[1, -1] == 1 + 2 + 3


def sparse_model(coordinates: bool = False) -> tuple[onnx.ModelProto, np.ndarray[Any, Any]]:
    """A model with a mostly empty weight, stored as ONNX stores sparse ones; and the weight."""
    model = product()
    del model.graph.initializer[-1:]
    places = np.array([0, 5, 700, 64 * 48 - 1], np.int64)
    values = np.array([1, -2, 3, 4], np.float32)
    dense = np.zeros(64 * 48, np.float32)
    dense[places] = values
    indices = np.stack(np.unravel_index(places, (64, 48)), 1) if coordinates else places
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(values, "w"), numpy_helper.from_array(indices, "w_i"), [64, 48]
        )
    )
    return model, dense.reshape(64, 48)


@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_constants_stay_sparse(coordinates: bool) -> None:
    model, dense = sparse_model(coordinates)
    content = ortolan.convert(model, level="disable")
    assert len(content) < dense.nbytes / 2
    (sparse,) = read(content).model.graph.sparse_initializers
    assert (sparse.values.name, sparse.dims, sparse.values.dims) == ("w", [64, 48], [4])
    np.testing.assert_allclose(run(content), wanted(dense), rtol=1e-5, atol=1e-5)
    back = to_onnx(read(content))
    onnx.checker.check_model(back)
    assert ortolan.convert(back, level="disable") == content


def test_sparse_constants_in_onnxruntime(tmp_path: Path) -> None:
    """Its files hold them as well, with coordinates or narrow indices: both sides read both."""
    import onnxruntime

    model, dense = sparse_model()
    content = ortolan.convert(model, level="disable", profile="onnxruntime")
    results = oracle.run(oracle.session(content), {"x": X})
    np.testing.assert_allclose(results["y"], wanted(dense), rtol=1e-5, atol=1e-5)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "theirs.ort")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(run(tmp_path / "theirs.ort"), wanted(dense), rtol=1e-5, atol=1e-5)


def test_full_constants_become_dense() -> None:
    model, _ = sparse_model()
    sparse = model.graph.sparse_initializer[0]
    sparse.values.CopyFrom(numpy_helper.from_array(W.reshape(-1), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(W.size, dtype=np.int64), "i"))
    content = ortolan.convert(model, level="disable")
    assert not read(content).model.graph.sparse_initializers
    np.testing.assert_allclose(run(content), wanted(), rtol=1e-5, atol=1e-5)


def _indices(kind: TensorDataType, *numbers: int, dims: list[int] | None = None) -> Tensor:
    dtype = np.dtype(kind.name.lower())
    data = np.array(numbers, dtype)
    return Tensor(dims=dims or [len(numbers)], data_type=kind, raw_data=data.tobytes())


_INT64 = TensorDataType.INT64
_WRONG: dict[str, Callable[[SparseTensor], SparseTensor]] = {
    "an index is outside": lambda s: dataclasses.replace(
        s, indices=_indices(_INT64, 0, 1, 2, 64 * 48)
    ),
    "an index is outside its dimensions": lambda s: dataclasses.replace(
        s, indices=_indices(TensorDataType.INT8, 0, 0, 0, 1, 0, 2, -1, 3, dims=[4, 2])
    ),
    "not one index per value": lambda s: dataclasses.replace(s, indices=_indices(_INT64, 0, 1)),
    "it has not one index": lambda s: dataclasses.replace(
        s, indices=_indices(_INT64, *range(12), dims=[4, 3])
    ),
    "no signed integers": lambda s: dataclasses.replace(
        s, indices=_indices(TensorDataType.UINT8, 0, 1, 2, 3)
    ),
    "as a dense one": lambda s: dataclasses.replace(s, dims=[1 << 20, 1 << 20]),
    "negative or too large": lambda s: dataclasses.replace(s, dims=[1 << 31, 1 << 31]),
}


@pytest.mark.parametrize("message", _WRONG)
def test_wrong_sparse_constants(message: str) -> None:
    session = read(ortolan.convert(sparse_model()[0], level="disable"))
    graph = session.model.graph
    graph.sparse_initializers = [_WRONG[message](graph.sparse_initializers[0])]
    with pytest.raises(errors.OrtolanError, match=f'"w".*{message}'):
        run(write(session))


@pytest.mark.parametrize("kind", [TensorDataType.INT16, TensorDataType.INT32, _INT64])
def test_indices_of_any_width(kind: TensorDataType) -> None:
    model, dense = sparse_model()
    session = read(ortolan.convert(model, level="disable"))
    (sparse,) = session.model.graph.sparse_initializers
    sparse.indices = _indices(kind, 0, 5, 700, 64 * 48 - 1)
    np.testing.assert_allclose(run(write(session)), wanted(dense), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["UINT4", "INT4", "FLOAT4E2M1", "FLOAT8E8M0", "UINT2", "INT2", "FLOAT8E4M3FN"]
)
def test_types_that_the_enumeration_lacks(kind: str) -> None:
    """Their ONNX numbers stand in the file, and elements as ONNX packs them."""
    number = getattr(TensorProto, kind)
    raw = bytes([0x21, 0x43, 0x10])
    per_byte = {"4": 2, "2": 4}.get(kind[-1] if "E" not in kind else kind[5], 1)
    tensor = TensorProto(name="w", data_type=number, dims=[3 * per_byte], raw_data=raw)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [],
        [helper.make_tensor_value_info("y", number, [3 * per_byte])], [tensor],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 25)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=12)
    content = ortolan.convert(model, level="disable", allow_unknown_operators=True)
    (stored,) = read(content).model.graph.initializers
    assert (int(stored.data_type), bytes(stored.raw_data)) == (number, raw)
    assert to_onnx(read(content)).graph.initializer[0].raw_data == raw
