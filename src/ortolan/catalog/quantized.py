"""Quantized tensors: conversions, and arithmetic on 8-bit integers."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, type_set

_BYTES = type_set("uint8", "int8")
_WORDS = _BYTES | type_set("uint16", "int16")
_INT32 = type_set("int32")
_UINT8 = type_set("uint8")
_NUMBERS = FLOAT | _INT32
_QUANTIZE_21 = "axis:int=1 block_size:int=0 output_dtype:int=0 saturate:int=1"
_DEQUANTIZE = "x:T1 x_scale:T2 x_zero_point?:T1"
_QUANTIZE = "x:T1 y_scale:S y_zero_point?:T2"
_CONV = "auto_pad:string=NOTSET dilations:ints group:int=1 kernel_shape:ints pads:ints strides:ints"
_Q_PAIR = "A:T A_scale:S A_zero_point?:T B:T B_scale:S B_zero_point?:T C_scale:S C_zero_point?:T"
_Q_MATMUL = (
    "a:T1 a_scale:TS a_zero_point:T1 b:T2 b_scale:TS b_zero_point:T2 y_scale:TS y_zero_point:T3"
)
_Q_MATMUL_TYPES = {"T1": _BYTES, "T2": _BYTES, "T3": _BYTES, "TS": FLOAT}

FAMILY = Family(
    "quantized",
    simd=True,
    operators=(
        op(
            "QuantizeLinear",
            "10-12",
            _QUANTIZE,
            "y:T2",
            instances="pair",
            keys="T1 T2",
            types={"T1": _NUMBERS, "T2": _BYTES, "S": FLOAT},
            prepare="plain",
        ),
        op(
            "QuantizeLinear",
            "13-18",
            _QUANTIZE,
            "y:T2",
            "axis:int=1",
            instances="pair",
            keys="T1 T2",
            types={"T1": _NUMBERS, "T2": _BYTES, "S": FLOAT},
            prepare="plain",
        ),
        op(
            "QuantizeLinear",
            "19-20",
            "x:T1 y_scale:T1 y_zero_point?:T2",
            "y:T2",
            "axis:int=1 saturate:int=1",
            instances="pair",
            keys="T1 T2",
            types={"T1": FLOAT, "T2": _BYTES},
            prepare="plain",
        ),
        op(
            "QuantizeLinear",
            "21-22",
            "x:T1 y_scale:T1 y_zero_point?:T2",
            "y:T2",
            _QUANTIZE_21,
            instances="pair",
            keys="T1 T2",
            types={"T1": FLOAT, "T2": _WORDS},
            prepare="plain",
        ),
        op(
            "QuantizeLinear",
            "23-",
            "x:T1 y_scale:T2 y_zero_point?:T3",
            "y:T3",
            _QUANTIZE_21 + " precision:int=0",
            instances="pair",
            keys="T1 T3",
            types={"T1": _NUMBERS, "T2": FLOAT, "T3": _WORDS},
            prepare="plain",
        ),
        op(
            "DequantizeLinear",
            "10-12",
            "x:T x_scale:S x_zero_point?:T",
            "y:S",
            types={"T": _BYTES | _INT32, "S": FLOAT},
            prepare="plain",
        ),
        op(
            "DequantizeLinear",
            "13-18",
            "x:T x_scale:S x_zero_point?:T",
            "y:S",
            "axis:int=1",
            types={"T": _BYTES | _INT32, "S": FLOAT},
            prepare="plain",
        ),
        op(
            "DequantizeLinear",
            "19-20",
            _DEQUANTIZE,
            "y:T2",
            "axis:int=1",
            keys="T1",
            types={"T1": _BYTES | _INT32, "T2": FLOAT},
            prepare="plain",
        ),
        op(
            "DequantizeLinear",
            "21-22",
            _DEQUANTIZE,
            "y:T2",
            "axis:int=1 block_size:int=0",
            keys="T1",
            types={"T1": _WORDS | _INT32, "T2": FLOAT},
            prepare="plain",
        ),
        op(
            "DequantizeLinear",
            "23-",
            _DEQUANTIZE,
            "y:T3",
            "axis:int=1 block_size:int=0 output_dtype:int=0",
            keys="T1",
            types={"T1": _WORDS | _INT32, "T2": FLOAT, "T3": FLOAT},
            prepare="plain",
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
