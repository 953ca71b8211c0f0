"""Element types at the boundary to numpy: ONNX's numbers, their names, numpy's types.

Strings are arrays of Python strings. Types that numpy lacks are those of `ml_dtypes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ortolan import errors

__all__ = ["STRING", "number_from", "number_of", "numpy_type", "onnx_name", "type_text"]

STRING = 8
_NAMES = {
    1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "double", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8e4m3fn",
    18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip
_NUMBERS = {name: number for number, name in _NAMES.items()}
_NUMPY_NAMES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "object", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128",
}  # fmt: skip
_ML_NAMES = {
    16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2",
    20: "float8_e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4_e2m1fn", 24: "float8_e8m0fnu",
    25: "uint2", 26: "int2",
}  # fmt: skip
_TYPES: dict[int, np.dtype[Any]] = {n: np.dtype(name) for n, name in _NUMPY_NAMES.items()}
_BY_DTYPE: dict[np.dtype[Any], int] = {dtype: n for n, dtype in _TYPES.items()}


def onnx_name(number: int) -> str:
    """As in ``tensor(float)``; "undefined" for what ONNX does not know."""
    return _NAMES.get(number, "undefined")


def type_text(number: int) -> str:
    """``"tensor(float)"`` for 1."""
    return f"tensor({onnx_name(number)})"


def numpy_type(number: int) -> np.dtype[Any]:
    """The numpy type of an element type; that of strings is object.

    Raises:
        ortolan.errors.NotImplemented: there is none.
    """
    found = _TYPES.get(number)
    if found is None and number in _ML_NAMES:
        # Imported when it is needed, which is seldom.
        import ml_dtypes

        scalar = getattr(ml_dtypes, _ML_NAMES[number], None)
        if scalar is not None:
            found = _TYPES[number] = np.dtype(scalar)
            _BY_DTYPE[found] = number
    if found is None:
        raise errors.NotImplemented(
            f"no numpy type is known for elements of type {onnx_name(number)} ({number})"
        )
    return found


def number_of(dtype: np.dtype[Any]) -> int:
    """ONNX's number of a numpy type; any kind of text counts as string.

    Raises:
        ortolan.errors.InvalidArgument: ONNX has no such type.
    """
    found = _BY_DTYPE.get(dtype)
    if found is not None:
        return found
    if dtype.kind in "US":
        return STRING
    native = dtype.newbyteorder("=")
    found = _BY_DTYPE.get(native)
    if found is None:
        for number, name in _ML_NAMES.items():
            if dtype.name == name:
                numpy_type(number)
                return number
        raise errors.InvalidArgument(f"ONNX has no element type for numpy's {dtype}")
    return found


def number_from(element_type: Any) -> int:
    """ONNX's number of what onnxruntime takes for a type.

    Args:
        element_type: the number, ONNX's name, or anything that numpy takes for a type.

    Raises:
        ortolan.errors.InvalidArgument: there is no such type.
    """
    if isinstance(element_type, int | np.integer) and not isinstance(element_type, bool):
        if int(element_type) in _NAMES:
            return int(element_type)
        raise errors.InvalidArgument(f"ONNX has no element type {element_type}")
    if isinstance(element_type, str):
        name = element_type.removeprefix("tensor(").removesuffix(")")
        if name in _NUMBERS:
            return _NUMBERS[name]
    if element_type is str:
        return STRING
    try:
        dtype = np.dtype(element_type)
    except TypeError as error:
        raise errors.InvalidArgument(f"{element_type!r} names no element type") from error
    return number_of(dtype)
