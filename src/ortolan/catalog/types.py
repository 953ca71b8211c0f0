"""Element types: ONNX's numbers, their names in ONNX and in C++."""

from __future__ import annotations

import enum


class DataType(enum.IntEnum):
    """``TensorProto.DataType`` of ONNX."""

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26

    @property
    def onnx_name(self) -> str:
        """As in ``tensor(float)``."""
        return self.name.lower()

    @property
    def cpp_name(self) -> str:
        """C++ element type in kernels."""
        return "Text" if self == DataType.STRING else _CPP[self]

    @property
    def has_arithmetic(self) -> bool:
        """Whether C++ computes with the type; kernels are compiled for such types only."""
        return self in _CPP

    @property
    def size(self) -> int:
        """Bytes of an element in memory; a string is a handle of 8."""
        return _SIZES[self]


_CPP = {
    DataType.FLOAT: "float",
    DataType.UINT8: "uint8_t",
    DataType.INT8: "int8_t",
    DataType.UINT16: "uint16_t",
    DataType.INT16: "int16_t",
    DataType.INT32: "int32_t",
    DataType.INT64: "int64_t",
    DataType.BOOL: "bool",
    DataType.DOUBLE: "double",
    DataType.UINT32: "uint32_t",
    DataType.UINT64: "uint64_t",
}
_SIZES = {
    DataType.FLOAT: 4,
    DataType.UINT8: 1,
    DataType.INT8: 1,
    DataType.UINT16: 2,
    DataType.INT16: 2,
    DataType.INT32: 4,
    DataType.INT64: 8,
    DataType.STRING: 8,
    DataType.BOOL: 1,
    DataType.FLOAT16: 2,
    DataType.DOUBLE: 8,
    DataType.UINT32: 4,
    DataType.UINT64: 8,
    DataType.COMPLEX64: 8,
    DataType.COMPLEX128: 16,
    DataType.BFLOAT16: 2,
    DataType.FLOAT8E4M3FN: 1,
    DataType.FLOAT8E4M3FNUZ: 1,
    DataType.FLOAT8E5M2: 1,
    DataType.FLOAT8E5M2FNUZ: 1,
    DataType.UINT4: 1,
    DataType.INT4: 1,
    DataType.FLOAT4E2M1: 1,
    DataType.FLOAT8E8M0: 1,
    DataType.UINT2: 1,
    DataType.INT2: 1,
}

TypeSet = frozenset[DataType]


def type_set(*names: str) -> TypeSet:
    """``type_set("float", "int64")``."""
    return frozenset(DataType[name.upper()] for name in names)


FLOAT = type_set("float")
FLOATS = type_set("float", "double")
SIGNED = type_set("int8", "int16", "int32", "int64")
UNSIGNED = type_set("uint8", "uint16", "uint32", "uint64")
INTS = SIGNED | UNSIGNED
NUMBERS = INTS | FLOATS
BOOL = type_set("bool")
HALVES = type_set("float16", "bfloat16")
STRING = type_set("string")
FLOAT8S = type_set("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
# Packed in files, a byte each in memory.
NIBBLES = type_set("uint4", "int4")
CRUMBS = type_set("uint2", "int2")
FLOAT4 = type_set("float4e2m1")
POWERS = type_set("float8e8m0")
INDEX = type_set("int32", "int64")
INT64 = type_set("int64")
# Everything whose elements are plain bytes of 1, 2, 4 or 8.
FIXED = frozenset(t for t in DataType if _SIZES.get(t, 0) in (1, 2, 4, 8))
# The bytes of strings are elsewhere.
WHOLE = FIXED - type_set("string")
