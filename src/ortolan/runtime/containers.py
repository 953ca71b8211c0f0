"""Strings, sequences, maps and optionals across the boundary, as onnxruntime shows them.

Arrays of objects are string tensors, lists sequences, dicts maps, None an optional without a value.
Values go in as copies; tensors come out as arrays over the runtime's memory.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ortolan import _native, errors
from ortolan.runtime.element_types import STRING, number_from

__all__ = [
    "TENSOR",
    "decode_strings",
    "describe_array",
    "encode_strings",
    "encode_texts",
    "kind_of_type",
    "make_value",
    "read_value",
]

Array = npt.NDArray[Any]
TENSOR, SEQUENCE, MAP, OPTIONAL = range(4)
_MOST_BYTES = 2**32 - 1

AsArray = Callable[[Any, int], Array]
"""Makes an array of an element type of what a caller gave."""


def encode_texts(array: Array) -> list[bytes]:
    """The elements of a string tensor as UTF-8.

    Args:
        array: of objects that are str or bytes, or of numpy's own text types.

    Raises:
        ortolan.errors.InvalidArgument: an element is no text.
    """
    texts: list[bytes] = []
    for item in array.ravel().tolist():
        if isinstance(item, str):
            try:
                texts.append(item.encode("utf-8", "surrogateescape"))
            except UnicodeEncodeError as error:
                raise errors.InvalidArgument(
                    f"an element of a string tensor is no text: {error}"
                ) from error
        elif isinstance(item, bytes):
            texts.append(item)
        else:
            raise errors.InvalidArgument(
                f"an element of a string tensor is {item!r}, a {type(item).__name__}"
            )
    return texts


def encode_strings(array: Array) -> Array:
    """A string tensor's bytes: offsets of the texts, then the texts as UTF-8.

    Args:
        array: as for `encode_texts`.

    Returns:
        uint32 elements that hold them, padded to a multiple of 4 bytes.

    Raises:
        ortolan.errors.InvalidArgument: an element is no text.
        ortolan.errors.LimitExceeded: the text is too long for the offsets.
    """
    texts = encode_texts(array)
    start = 4 * (len(texts) + 1)
    ends = np.cumsum([start, *map(len, texts)], dtype=np.int64)
    if ends[-1] > _MOST_BYTES:
        raise errors.LimitExceeded(f"a string tensor of {ends[-1]:,} bytes is too large")
    text = b"".join(texts)
    block = ends.astype("<u4").tobytes() + text + bytes(-len(text) % 4)
    return np.frombuffer(block, np.uint32).copy()


def decode_strings(address: int, size: int, shape: tuple[int, ...]) -> Array:
    """The string tensor whose bytes are at an address, as an array of str.

    Args:
        address: of the block.
        size: its bytes.
        shape: of the tensor.
    """
    # Not string_at, whose size is an int.
    block = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    result = np.empty(shape, object)
    count = result.size
    offsets = np.frombuffer(block, "<u4", count + 1).tolist()
    texts = [
        str(block[begin:end], "utf-8", "surrogateescape")
        for begin, end in itertools.pairwise(offsets)
    ]
    flat = result.reshape(-1)
    for k, text in enumerate(texts):
        flat[k] = text
    return result


def kind_of_type(text: str) -> int:
    """The kind of a value by its type's text, such as "seq(tensor(float))"."""
    names = {"seq(": SEQUENCE, "map(": MAP, "optional(": OPTIONAL}
    return next((kind for name, kind in names.items() if text.startswith(name)), TENSOR)


def _inner(text: str) -> str:
    return text[text.index("(") + 1 : -1]


def _element_number(text: str) -> int:
    """The element type of the tensors inside: the last name in the text."""
    return number_from(text.rstrip(")").rsplit("(", 1)[-1].rsplit(",", 1)[-1])


class _Held:
    """A value made for a feed, given back when it is dropped."""

    __slots__ = ("handle",)

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        _native.library().ortolan_value_release(self.handle)


def describe_array(tensor: _native.Tensor, array: Array, number: int) -> Array:
    """Fills a description with an array's bytes; returns what must be kept while it is used.

    Args:
        tensor: filled.
        array: of the element type, its elements in order.
        number: the element type.
    """
    stored = encode_strings(array) if number == STRING else array
    tensor.type = number
    tensor.rank = array.ndim
    tensor.bytes = stored.nbytes
    tensor.data = stored.ctypes.data if stored.nbytes else None
    tensor.dims[: array.ndim] = array.shape
    return stored


def make_value(given: Any, type_text: str, as_array: AsArray) -> _Held:
    """A value of the runtime from what a caller gave.

    Args:
        given: arrays, lists, dicts, None, or an `OrtValue` of them.
        type_text: the type, as onnxruntime writes it.
        as_array: makes arrays.

    Returns:
        An owner with the member `handle`.

    Raises:
        ortolan.errors.InvalidArgument: it is not of the type.
    """
    given = getattr(given, "_ortolan_data", given)
    kind = kind_of_type(type_text)
    if kind == TENSOR:
        number = _element_number(type_text)
        return _make_tensor(as_array(given, number), number)
    if kind == SEQUENCE:
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            raise _wrong(given, type_text, "a list")
        items = [make_value(item, _inner(type_text), as_array) for item in given]
    elif kind == MAP:
        if not isinstance(given, Mapping):
            raise _wrong(given, type_text, "a dict")
        key, value = _inner(type_text).split(",", 1)
        items = [
            make_value(list(given.keys()), f"tensor({key})", as_array),
            make_value(list(given.values()), value, as_array),
        ]
    else:
        items = [] if given is None else [make_value(given, _inner(type_text), as_array)]
    if not items and "map(" in type_text:
        raise errors.InvalidArgument(f"an empty {type_text} cannot be given: it tells no key type")
    return _make_container(kind, items, _element_number(type_text))


def _wrong(given: Any, type_text: str, wanted: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"{wanted} is needed for {type_text}, not {type(given).__name__}")


def _make_tensor(array: Array, number: int) -> _Held:
    tensor = _native.new_tensor()
    kept = describe_array(tensor, array, number)
    handle = ctypes.c_void_p()
    code = _native.library().ortolan_value_make_tensor(ctypes.byref(tensor), ctypes.byref(handle))
    del kept
    _native.check(code, b"a value cannot be made of an array")
    return _Held(handle.value or 0)


def _make_container(kind: int, items: list[_Held], number: int) -> _Held:
    tensor = _native.new_tensor()
    tensor.type = number
    handles = (ctypes.c_void_p * len(items))(*[item.handle for item in items])
    handle = ctypes.c_void_p()
    code = _native.library().ortolan_value_make(
        kind, ctypes.byref(tensor), handles, len(items), ctypes.byref(handle)
    )
    _native.check(code, b"the items of a sequence or map are not of one type")
    return _Held(handle.value or 0)


def read_value(handle: int, show: Callable[[int], Any]) -> Any:
    """What onnxruntime shows for a value.

    Args:
        handle: of a container; stays the caller's.
        show: makes an array of a tensor's handle, and owns it from then on.
    """
    library = _native.library()
    kind = library.ortolan_value_kind(handle)
    items = []
    for k in range(library.ortolan_value_count(handle)):
        item = library.ortolan_value_item(handle, k)
        if library.ortolan_value_kind(item) == TENSOR:
            items.append(show(item))
        else:
            owner = _Held(item)
            items.append(read_value(item, show))
            del owner
    if kind == MAP:
        keys, values = items
        return dict(zip(keys.tolist(), values.tolist(), strict=True))
    if kind == OPTIONAL:
        return items[0] if items else None
    return items
