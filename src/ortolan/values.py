"""Values of the runtime as Python objects: arrays, strings, lists, dictionaries, None.

In the C interface a string tensor is one block of offsets and text, and a container is a tree of
values (native/include/ortolan/ortolan.h).
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ortolan import _native, errors
from ortolan.catalog.types import DataType

__all__ = ["Handle", "from_handle", "numpy_type", "pack_texts", "to_handle", "unpack_texts"]

TENSOR, SEQUENCE, MAP, OPTIONAL = range(4)

_NUMPY_OF: dict[int, np.dtype[Any]] = {
    DataType.FLOAT: np.dtype(np.float32),
    DataType.UINT8: np.dtype(np.uint8),
    DataType.INT8: np.dtype(np.int8),
    DataType.UINT16: np.dtype(np.uint16),
    DataType.INT16: np.dtype(np.int16),
    DataType.INT32: np.dtype(np.int32),
    DataType.INT64: np.dtype(np.int64),
    DataType.STRING: np.dtype(object),
    DataType.BOOL: np.dtype(np.bool_),
    DataType.FLOAT16: np.dtype(np.float16),
    DataType.DOUBLE: np.dtype(np.float64),
    DataType.UINT32: np.dtype(np.uint32),
    DataType.UINT64: np.dtype(np.uint64),
    DataType.COMPLEX64: np.dtype(np.complex64),
    DataType.COMPLEX128: np.dtype(np.complex128),
}
# By name, for versions of the enumeration that lack some of them.
_ML_DTYPES = {
    "BFLOAT16": "bfloat16",
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
    "FLOAT8E8M0": "float8_e8m0fnu",
    "FLOAT4E2M1": "float4_e2m1fn",
    "UINT4": "uint4",
    "INT4": "int4",
    "UINT2": "uint2",
    "INT2": "int2",
}

Array = npt.NDArray[Any]


def numpy_type(number: int) -> np.dtype[Any]:
    """The numpy type of an element type; those that numpy lacks are of `ml_dtypes`.

    Raises:
        ortolan.errors.NotImplemented: there is none.
    """
    known = _NUMPY_OF.get(number)
    if known is not None:
        return known
    name = _ML_DTYPES.get(DataType(number).name)
    if name is None:
        raise errors.NotImplemented(f"numpy has no type for {DataType(number).onnx_name}")
    import ml_dtypes

    _NUMPY_OF[number] = np.dtype(getattr(ml_dtypes, name))
    return _NUMPY_OF[number]


def pack_texts(array: Array) -> npt.NDArray[np.uint8]:
    """A string tensor's block: count + 1 offsets, then the text in UTF-8.

    Args:
        array: elements are str or bytes, of any shape.

    Raises:
        ortolan.errors.InvalidArgument: an element is neither, or there are over 4 GB.
    """
    if array.dtype.kind in "TU":
        array = array.astype(object)
    items = array.reshape(-1).tolist()
    try:
        texts = [x.encode("utf-8", "surrogateescape") if isinstance(x, str) else bytes(x) if
                 isinstance(x, bytes | np.bytes_) else x.encode() for x in items]  # fmt: skip
    except AttributeError:
        wrong = next(x for x in items if not isinstance(x, str | bytes))
        raise errors.InvalidArgument(
            f"an element of a string tensor is a {type(wrong).__name__}, not a str: {wrong!r}"
        ) from None
    head = 4 * (len(texts) + 1)
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64) + head
    if ends[-1] > 0xFFFFFFFF:
        raise errors.InvalidArgument("a string tensor must have less than 4 GB of text")
    offsets: npt.NDArray[np.uint8] = ends.astype(np.uint32).view(np.uint8)
    return np.concatenate([offsets, np.frombuffer(b"".join(texts), np.uint8)])


def unpack_texts(block: bytes, shape: tuple[int, ...]) -> Array:
    """An array of str from a string tensor's block."""
    result = np.empty(shape, object)
    count = result.size
    offsets = np.frombuffer(block, np.uint32, count + 1).tolist()
    result.reshape(-1)[:] = [
        block[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise(offsets)
    ]
    return result


class Handle:
    """A reference to a value of the runtime; given back when it goes."""

    __slots__ = ("_release", "address")

    def __init__(self, address: int) -> None:
        self.address = address
        self._release = _native.library().ortolan_value_release

    def __del__(self) -> None:
        self._release(self.address)


def from_handle(handle: Handle) -> Any:
    """The Python object: an array, a list, a dict, or None for an empty optional.

    Arrays of numbers show the runtime's memory and keep it alive.
    """
    library = _native.library()
    kind = library.ortolan_value_kind(handle.address)
    if kind == TENSOR:
        return _array(handle)
    items = [
        from_handle(Handle(library.ortolan_value_item(handle.address, i)))
        for i in range(library.ortolan_value_count(handle.address))
    ]
    if kind == SEQUENCE:
        return items
    if kind == OPTIONAL:
        return items[0] if items else None
    keys, elements = items
    return dict(zip(keys.tolist(), elements.tolist(), strict=True))


def _array(handle: Handle) -> Array:
    tensor = _native.new_tensor()
    code = _native.library().ortolan_value_tensor(handle.address, ctypes.byref(tensor))
    _native.check(code, b"a value is no tensor")
    shape = tuple(tensor.dims[: tensor.rank])
    if tensor.type == DataType.STRING:
        return unpack_texts(ctypes.string_at(tensor.data, tensor.bytes), shape)
    dtype = numpy_type(tensor.type)
    if tensor.bytes == 0:
        return np.empty(shape, dtype)
    buffer: Any = (ctypes.c_char * tensor.bytes).from_address(tensor.data)
    buffer.owner = handle
    return np.frombuffer(buffer, dtype).reshape(shape)


def to_handle(value: Any, type_text: str) -> Handle:
    """A value of the runtime from a Python object.

    Args:
        value: what `from_handle` gives for the type: arrays, lists, dicts, None.
        type_text: such as "seq(map(int64,tensor(float)))".

    Raises:
        ortolan.errors.InvalidArgument: the object does not fit the type.
    """
    kind, inner = type_text[:-1].split("(", 1)
    if kind == "tensor":
        return _tensor_handle(value, DataType[inner.upper()])
    if kind == "map":
        key, element = inner.split(",", 1)
        if not isinstance(value, Mapping):
            raise errors.InvalidArgument(f"a value of type {type_text} must be a dict")
        keys = to_handle(list(value.keys()), f"tensor({key})")
        return _container(MAP, [keys, to_handle(list(value.values()), element)], inner)
    if kind == "optional":
        return _container(OPTIONAL, [] if value is None else [to_handle(value, inner)], inner)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise errors.InvalidArgument(f"a value of type {type_text} must be a list")
    return _container(SEQUENCE, [to_handle(item, inner) for item in value], inner)


def _container(kind: int, items: list[Handle], inner: str) -> Handle:
    if not items and "map(" in inner:
        raise errors.InvalidArgument("an empty list of maps cannot be fed: its type is not known")
    empty = _native.new_tensor()
    empty.type = DataType[inner.rstrip(")").rpartition("(")[2].upper()]
    addresses = (ctypes.c_void_p * max(len(items), 1))(*[item.address for item in items])
    made = ctypes.c_void_p()
    code = _native.library().ortolan_value_make(
        kind, ctypes.byref(empty), addresses, len(items), ctypes.byref(made)
    )
    _native.check(code, b"the items of a container differ in type, or are containers too deep")
    return Handle(made.value or 0)


def _tensor_handle(value: Any, element: DataType) -> Handle:
    dtype = numpy_type(element)
    array = np.asarray(value) if element != DataType.STRING else np.asarray(value, object)
    if element != DataType.STRING and array.dtype != dtype:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise errors.InvalidArgument(
                f"a tensor of {array.dtype} is given where {element.onnx_name} is needed"
            )
        array = array.astype(dtype)
    shape = array.shape
    if array.ndim > _native.MAX_RANK:
        raise errors.InvalidArgument(
            f"a tensor has {array.ndim} dimensions; at most {_native.MAX_RANK} are supported"
        )
    array = pack_texts(array) if element == DataType.STRING else np.ascontiguousarray(array)
    tensor = _native.new_tensor()
    tensor.type, tensor.rank = element, len(shape)
    tensor.data, tensor.bytes = array.ctypes.data, array.nbytes
    tensor.dims[: len(shape)] = shape
    made = ctypes.c_void_p()
    code = _native.library().ortolan_value_make_tensor(ctypes.byref(tensor), ctypes.byref(made))
    _native.check(code, b"a tensor could not be made")
    return Handle(made.value or 0)
