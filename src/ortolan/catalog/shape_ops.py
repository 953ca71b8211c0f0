"""Operators that speak of shapes, or only rename the bytes of their input."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FIXED, FLOAT8S, FLOATS, INT64, WHOLE, type_set

_ANY = {"T": FIXED}
_DATA_SHAPE = {"T": FIXED, "T1": INT64}
_DROPOUT12 = {"T": FLOATS | FLOAT8S, "T1": FLOATS, "T2": type_set("bool")}

FAMILY = Family(
    "shape_ops",
    simd=False,
    operators=(
        op(
            "Shape", "1-14", "data:T", "shape:T1", types=_DATA_SHAPE, kernel="ShapeOf",
            instances="once", flags=("shape_only",),
        ),
        op(
            "Shape", "15-", "data:T", "shape:T1", "end:int start:int=0", types=_DATA_SHAPE,
            kernel="ShapeOf", instances="once", flags=("shape_only",),
        ),
        op(
            "Size", "1-", "data:T", "size:T1", types=_DATA_SHAPE, instances="once",
            flags=("shape_only",),
        ),
        op(
            "Identity", "1-", "input:T", "output:T", types=_ANY, instances="once",
            layout="elementwise",
        ),
        op(
            "Dropout", "7-9", "data:T", "output:T mask?:T", "ratio:float=0.5",
            types={"T": FLOATS}, kernel="DropoutWithoutMode", instances="once",
            infer="Dropout::infer", layout="elementwise",
        ),
        op(
            "Dropout", "10-11", "data:T", "output:T mask?:T1", "ratio:float=0.5",
            types={"T": FLOATS, "T1": type_set("bool")}, kernel="DropoutWithoutMode",
            instances="once", infer="Dropout::infer", layout="elementwise",
        ),
        op(
            "Dropout", "12-", "data:T ratio?:T1 training_mode?:T2", "output:T mask?:T2", "seed:int",
            types=_DROPOUT12, instances="once", layout="elementwise", value_inputs=(1, 2),
        ),
        op(
            "Reshape", "5-13", "data:T shape:S", "reshaped:T", types={"T": FIXED, "S": INT64},
            instances="once", value_inputs=(1,),
        ),
        op(
            "Reshape", "14-", "data:T shape:S", "reshaped:T", "allowzero:int=0",
            types={"T": FIXED, "S": INT64}, instances="once", value_inputs=(1,),
        ),
        op("Flatten", "1-", "input:T", "output:T", "axis:int=1", types=_ANY, instances="once"),
        op(
            "Squeeze", "1-11", "data:T", "squeezed:T", "axes:ints", types=_ANY, instances="once",
        ),
        op(
            "Squeeze", "13-", "data:T axes?:S", "squeezed:T", types={"T": FIXED, "S": INT64},
            instances="once", value_inputs=(1,),
        ),
        op(
            "Unsqueeze", "1-11", "data:T", "expanded:T", "axes!:ints", types=_ANY,
            instances="once",
        ),
        op(
            "Unsqueeze", "13-", "data:T axes:S", "expanded:T", types={"T": FIXED, "S": INT64},
            instances="once", value_inputs=(1,),
        ),
        op(
            "ExpandDims", "1", "X:T axis:S", "Y:T", domain="com.microsoft", kernel="Unsqueeze",
            types={"T": FIXED, "S": type_set("int32")}, instances="once", value_inputs=(1,),
        ),
        op(
            "ConstantOfShape", "9-", "input:T1", "output:T2", "value:tensor",
            types={"T1": INT64, "T2": FIXED}, instances="width", keys="T2", value_inputs=(0,),
            type_attribute="value",
        ),
        op(
            "BitCast", "26-", "input:T1", "output:T2", "to!:int", types={"T1": WHOLE, "T2": WHOLE},
            instances="once", keys="T1", layout="elementwise", type_attribute="to",
        ),
    ),
)  # fmt: skip
