"""Quantized tensors: conversions, and arithmetic on 8-bit integers."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import (
    CRUMBS,
    FLOAT,
    FLOAT4,
    FLOAT8S,
    NIBBLES,
    POWERS,
    TypeSet,
    type_set,
)

_BYTES = type_set("uint8", "int8")
_WORDS = _BYTES | type_set("uint16", "int16")
_INT32 = type_set("int32")
_UINT8 = type_set("uint8")
_NUMBERS = FLOAT | _INT32
_QUANTIZE_21 = "axis:int=1 block_size:int=0 output_dtype:int=0 saturate:int=1"
_NARROW = FLOAT8S | NIBBLES | CRUMBS | FLOAT4
_DEQUANTIZE_10 = "x:T x_scale:S x_zero_point?:T"
_DEQUANTIZE = "x:T1 x_scale:T2 x_zero_point?:T1"
_QUANTIZE_SAME = "x:T1 y_scale:T1 y_zero_point?:T2"
_QUANTIZE = "x:T1 y_scale:S y_zero_point?:T2"
_CONV = "auto_pad:string=NOTSET dilations:ints group:int=1 kernel_shape:ints pads:ints strides:ints"
_Q_PAIR = "A:T A_scale:S A_zero_point?:T B:T B_scale:S B_zero_point?:T C_scale:S C_zero_point?:T"
_Q_MATMUL = (
    "a:T1 a_scale:TS a_zero_point:T1 b:T2 b_scale:TS b_zero_point:T2 y_scale:TS y_zero_point:T3"
)
_Q_MATMUL_TYPES = {"T1": _BYTES, "T2": _BYTES, "T3": _BYTES, "TS": FLOAT}


def _quantize(
    versions: str, inputs: str, output: str, attributes: str, **types: TypeSet
) -> Operator:
    """Without a zero point the output is uint8, or what an attribute says in later versions."""
    target = output.partition(":")[2]
    return op(
        "QuantizeLinear", versions, inputs, output, attributes, instances="pair",
        keys=f"T1 {target}", types=types, prepare="plain", type_attribute="output_dtype=uint8",
    )  # fmt: skip


def _dequantize(
    versions: str, inputs: str, output: str, attributes: str, **types: TypeSet
) -> Operator:
    has_attribute = "output_dtype" in attributes
    return op(
        "DequantizeLinear", versions, inputs, output, attributes, keys=next(iter(types)),
        types=types, type_attribute="output_dtype=T2" if has_attribute else "none",
    )  # fmt: skip


FAMILY = Family(
    "quantized",
    simd=True,
    operators=(
        _quantize("10-12", _QUANTIZE, "y:T2", "", T1=_NUMBERS, T2=_BYTES, S=FLOAT),
        _quantize("13-18", _QUANTIZE, "y:T2", "axis:int=1", T1=_NUMBERS, T2=_BYTES, S=FLOAT),
        _quantize(
            "19-20",
            _QUANTIZE_SAME,
            "y:T2",
            "axis:int=1 saturate:int=1",
            T1=_NUMBERS,
            T2=_BYTES | FLOAT8S,
        ),
        _quantize(
            "21-22",
            _QUANTIZE_SAME,
            "y:T2",
            _QUANTIZE_21,
            T1=_NUMBERS,
            T2=_WORDS | FLOAT8S | NIBBLES,
        ),
        _quantize(
            "23-",
            "x:T1 y_scale:T2 y_zero_point?:T3",
            "y:T3",
            _QUANTIZE_21 + " precision:int=0",
            T1=_NUMBERS,
            T2=_NUMBERS | POWERS,
            T3=_WORDS | _NARROW,
        ),
        _dequantize("10-12", _DEQUANTIZE_10, "y:S", "", T=_BYTES | _INT32, S=FLOAT),
        _dequantize("13-18", _DEQUANTIZE_10, "y:S", "axis:int=1", T=_BYTES | _INT32, S=FLOAT),
        _dequantize(
            "19-20", _DEQUANTIZE, "y:T2", "axis:int=1", T1=_BYTES | _INT32 | FLOAT8S, T2=FLOAT
        ),
        _dequantize(
            "21-22",
            _DEQUANTIZE,
            "y:T2",
            "axis:int=1 block_size:int=0",
            T1=_WORDS | _INT32 | FLOAT8S | NIBBLES,
            T2=FLOAT,
        ),
        _dequantize(
            "23-",
            _DEQUANTIZE,
            "y:T3",
            "axis:int=1 block_size:int=0 output_dtype:int=0",
            T1=_WORDS | _INT32 | _NARROW,
            T2=FLOAT | POWERS,
            T3=FLOAT,
        ),
        op(
            "DynamicQuantizeLinear",
            "11-",
            "x:T1",
            "y:T2 y_scale:F y_zero_point:T2",
            types={"T1": FLOAT, "T2": _UINT8, "F": FLOAT},
            instances="once",
            keys="T1",
        ),
        op(
            "MatMulInteger",
            "10-",
            "A:T1 B:T2 a_zero_point?:T1 b_zero_point?:T2",
            "Y:T3",
            types={"T1": _BYTES, "T2": _BYTES, "T3": _INT32},
            instances="once",
            keys="T1 T2",
            prepare="plain",
        ),
        op(
            "QLinearMatMul",
            "10-",
            _Q_MATMUL,
            "y:T3",
            types=_Q_MATMUL_TYPES,
            instances="once",
            keys="T1 T2",
            prepare="plain",
        ),
        op(
            "ConvInteger",
            "10-",
            "x:T1 w:T2 x_zero_point?:T1 w_zero_point?:T2",
            "y:T3",
            _CONV,
            types={"T1": _BYTES, "T2": _BYTES, "T3": _INT32},
            instances="once",
            keys="T1 T2",
            prepare="plain",
        ),
        op(
            "QLinearConv",
            "10-",
            "x:T1 x_scale:S x_zero_point:T1 w:T2 w_scale:S w_zero_point:T2 y_scale:S"
            " y_zero_point:T3 B?:T4",
            "y:T3",
            _CONV,
            instances="once",
            keys="T1 T2",
            prepare="plain",
            types={"T1": _BYTES, "T2": _BYTES, "T3": _BYTES, "T4": _INT32, "S": FLOAT},
        ),
        op(
            "QLinearConv",
            "1-",
            "x:T1 x_scale:S x_zero_point:T1 w:T2 w_scale:S w_zero_point:T2 y_scale:S"
            " y_zero_point:T3 B?:T4",
            "y:T3",
            _CONV + " channels_last:int=0",
            domain="com.microsoft",
            instances="once",
            keys="T1 T2",
            prepare="plain",
            types={"T1": _BYTES, "T2": _BYTES, "T3": _BYTES, "T4": _INT32, "S": FLOAT},
        ),
        op(
            "QuantizeLinear",
            "1-",
            _QUANTIZE_SAME,
            "y:T2",
            "axis:int=1",
            domain="com.microsoft",
            instances="pair",
            keys="T1 T2",
            types={"T1": FLOAT, "T2": _WORDS | NIBBLES},
            prepare="plain",
            type_attribute="output_dtype=uint8",
        ),
        op(
            "DequantizeLinear",
            "1-",
            _DEQUANTIZE,
            "y:T2",
            "axis:int=1",
            domain="com.microsoft",
            keys="T1",
            types={"T1": _WORDS | _INT32 | NIBBLES, "T2": FLOAT},
        ),
        op(
            "MatMulIntegerToFloat",
            "1-",
            "A:T1 B:T2 a_scale:T3 b_scale:T3 a_zero_point?:T1 b_zero_point?:T2 bias?:T3",
            "Y:T3",
            domain="com.microsoft",
            types={"T1": _BYTES, "T2": _BYTES, "T3": FLOAT},
            instances="once",
            keys="T1 T2",
            prepare="plain",
        ),
        op(
            "DynamicQuantizeMatMul",
            "1-",
            "A:T1 B:T2 b_scale:T1 b_zero_point?:T2 bias?:T1",
            "Y:T1",
            domain="com.microsoft",
            types={"T1": FLOAT, "T2": _BYTES},
            instances="once",
            keys="T1 T2",
            prepare="plain",
        ),
        op(
            "QLinearAdd",
            "1-",
            _Q_PAIR,
            "C:T",
            domain="com.microsoft",
            types={"T": _BYTES, "S": FLOAT},
            instances="once",
            keys="T",
        ),
        op(
            "QLinearMul",
            "1-",
            _Q_PAIR,
            "C:T",
            domain="com.microsoft",
            types={"T": _BYTES, "S": FLOAT},
            instances="once",
            keys="T",
        ),
    ),
)
