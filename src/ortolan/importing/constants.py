"""Constants in all the ways that ONNX spells them, as plain tensors."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from ortolan.errors import InvalidGraph, LimitExceeded

__all__ = ["check_data", "constant_tensor", "densify"]

SPARSE = "ai.ortolan.sparse"
"""Mark in the metadata of a constant that was a sparse one, and may be stored as one again."""

# A few bytes of a sparse tensor can claim any size; the file's format ends here anyway.
_MAX_DENSE_BYTES = 2**31 - 1


def constant_tensor(node: onnx.NodeProto) -> TensorProto:
    """Returns the value of a Constant node as a tensor that has the output's name.

    Raises:
        InvalidGraph: the node has no value, more than one, or a damaged one.
        LimitExceeded: a sparse value is too large as a dense tensor.
    """
    name = node.output[0] if node.output else ""
    values = [a for a in node.attribute if a.name == "value" or _is_form(a.name)]
    if len(values) != 1:
        raise InvalidGraph(f'[Constant] "{name}": it needs exactly one value, not {len(values)}')
    (attribute,) = values
    if attribute.name == "value" and attribute.HasField("t"):
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = name
        return tensor
    if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
        return densify(attribute.sparse_tensor, name)
    return _simple(attribute, name)


def _is_form(name: str) -> bool:
    return name == "sparse_value" or name.startswith("value_")


def _simple(attribute: onnx.AttributeProto, name: str) -> TensorProto:
    """Numbers and strings in the attribute itself: a scalar, or a list as a vector."""
    match attribute.name:
        case "value_float":
            return numpy_helper.from_array(np.array(attribute.f, np.float32), name)
        case "value_floats":
            return numpy_helper.from_array(np.array(attribute.floats, np.float32), name)
        case "value_int":
            return numpy_helper.from_array(np.array(attribute.i, np.int64), name)
        case "value_ints":
            return numpy_helper.from_array(np.array(attribute.ints, np.int64), name)
        case "value_string":
            return TensorProto(name=name, data_type=TensorProto.STRING, string_data=[attribute.s])
        case "value_strings":
            return TensorProto(
                name=name,
                data_type=TensorProto.STRING,
                dims=[len(attribute.strings)],
                string_data=attribute.strings,
            )
    raise InvalidGraph(f'[Constant] "{name}": its attribute {attribute.name} holds no value')


# Where numbers lie that are not raw bytes: by default in int32_data.
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data", TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data", TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data", TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data", TensorProto.STRING: "string_data",
}  # fmt: skip
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def check_data(tensor: TensorProto, what: str) -> None:
    """Compares the data that a tensor holds with what its type and shape take.

    Raises:
        InvalidGraph: there are more or less of them.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    count, kind = math.prod(tensor.dims), tensor.data_type
    bits = 0 if kind == TensorProto.STRING else ir.DataType(kind).bitwidth
    packed = (count * bits + 7) // 8
    if bits and tensor.HasField("raw_data"):
        unit, stored, expected = "bytes", len(tensor.raw_data), packed
    else:
        unit, stored = "elements", len(getattr(tensor, _FIELDS.get(kind, "int32_data")))
        expected = packed if bits in (2, 4) else count * (2 if kind in _COMPLEX else 1)
    if stored != expected:
        raise InvalidGraph(
            f"{what} has {stored} {unit} of data, but its type and shape {list(tensor.dims)} take "
            f"{expected}: the file is damaged"
        )


def densify(sparse: onnx.SparseTensorProto, name: str) -> TensorProto:
    """Returns a sparse tensor (coordinates, or one flat index per value) as a dense one.

    Raises:
        InvalidGraph: indices, values and sizes do not agree.
        LimitExceeded: the dense tensor would exceed 2 GB.
    """
    dims = list(sparse.dims)
    try:
        values = numpy_helper.to_array(sparse.values).reshape(-1)
        indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
    except (ValueError, TypeError) as error:
        raise InvalidGraph(f'the sparse tensor "{name}" is damaged: {error}') from error
    if any(size < 0 for size in dims):
        raise InvalidGraph(f'the sparse tensor "{name}" has a negative size')
    if math.prod(dims) * max(values.itemsize, 1) > _MAX_DENSE_BYTES:
        raise LimitExceeded(f'the sparse tensor "{name}" {dims} takes more than 2 GB as dense data')
    dense = np.zeros(math.prod(dims), values.dtype)
    if len(values):
        flat = _flat_indices(indices, dims, len(values), name)
        dense[flat] = values
    return numpy_helper.from_array(dense.reshape(dims), name)


def _flat_indices(
    indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    dims: list[int],
    count: int,
    name: str,
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Row-major positions, from [count] flat indices or [count, rank] coordinates."""
    if indices.shape == (count,):
        limits = np.array(math.prod(dims))
        flat = indices
    elif indices.shape == (count, len(dims)):
        limits = np.array(dims)
        flat = np.zeros(count, np.int64)
        for axis, size in enumerate(dims):
            flat = flat * size + indices[:, axis]
    else:
        raise InvalidGraph(
            f'the sparse tensor "{name}" has {count} values but indices of shape {indices.shape}'
        )
    if np.any(indices < 0) or np.any(indices >= limits):
        raise InvalidGraph(f'the sparse tensor "{name}" has an index outside its shape {dims}')
    return flat
