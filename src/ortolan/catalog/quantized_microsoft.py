"""com.microsoft's operators on 8-bit integers."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import BOOL, FLOAT, type_set

_BYTES = type_set("uint8", "int8")
_POOLED = "X:T x_scale:S x_zero_point{0}:T y_scale:S y_zero_point{0}:T"


def _op(
    name: str, inputs: str, output: str = "Y:T", attributes: str = "", prepare: str = "none"
) -> Operator:
    types = {"T": _BYTES, "S": FLOAT, "B": BOOL}
    used = {k: v for k, v in types.items() if f":{k}" in f"{inputs} {output}"}
    return op(
        name, "1-", inputs, output, attributes, domain="com.microsoft", instances="once",
        types=used, prepare=prepare,
    )  # fmt: skip


_UNARY = "X:T X_scale:S X_zero_point?:T Y_scale:S Y_zero_point?:T"

FAMILY = Family(
    "quantized_microsoft",
    simd=False,
    operators=(
        _op("QLinearSigmoid", _UNARY),
        _op("QLinearLeakyRelu", _UNARY, attributes="alpha:float=0.01"),
        _op(
            "QLinearSoftmax", "X:T X_scale:S x_zero_point?:T y_scale:S y_zero_point:T",
            attributes="axis:int=-1 opset!:int",
        ),
        _op(
            "QLinearWhere",
            "condition:B X:T x_scale:S x_zero_point:T Y:T y_scale:S y_zero_point:T z_scale:S"
            " z_zero_point:T",
            "Z:T",
        ),
        _op("QLinearConcat", "Y_scale:S Y_zero_point:T inputs*:Any", attributes="axis!:int"),
        _op(
            "QLinearGlobalAveragePool", _POOLED.format(""), attributes="channels_last:int=0"
        ),
        _op(
            "QLinearAveragePool", _POOLED.format("?"), prepare="plain",
            attributes="auto_pad:string=NOTSET ceil_mode:int=0 channels_last:int=0"
            " count_include_pad:int=0 kernel_shape!:ints pads:ints strides:ints",
        ),
    ),
)  # fmt: skip
