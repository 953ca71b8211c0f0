"""Operators that move elements without looking at them.

Transpose is compiled per element width. The rest copies rows of bytes, and the width decides at run
time how: compiled per width, this family took 96 KB on x86-64 instead of 51 KB.
"""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FIXED, FLOAT, FLOATS, INDEX, INT64, type_set

_INDEXED = {"T": FIXED, "Tind": INDEX}
_RANGE = {"T": FLOATS | type_set("int16", "int32", "int64")}

FAMILY = Family(
    "movement",
    simd=False,
    operators=(
        op(
            "Transpose", "1-", "data:T", "transposed:T", "perm:ints", types={"T": FIXED},
            instances="width", prepare="plain", layout="transpose",
        ),
        op(
            "Layout", "1-", "data:T", "output:T", domain="ai.ortolan", types={"T": FIXED},
            kernel="ChangeLayout", instances="width", layout="transpose",
        ),
        op(
            "Unpack", "1", "packed:B", "weights:T", "form!:int",
            domain="ai.ortolan", types={"B": type_set("uint8"), "T": FLOAT},
            instances="once", keys="B", layout="packed",
        ),
        op(
            "Gather", "1-", "data:T indices:Tind", "output:T", "axis:int=0", types=_INDEXED,
            instances="type", keys="Tind", prepare="plain",
        ),
        op(
            "Concat", "4-", "inputs*:T", "concat_result:T", "axis!:int", types={"T": FIXED},
            instances="once", prepare="plain", layout="axis",
        ),
        op(
            "Slice", "1-9", "data:T", "output:T", "axes:ints ends!:ints starts!:ints",
            types={"T": FIXED}, instances="once", prepare="plain", layout="axis",
        ),
        op(
            "Slice", "10-", "data:T starts:Tind ends:Tind axes?:Tind steps?:Tind", "output:T",
            types=_INDEXED, instances="once", prepare="plain", layout="axis",
            value_inputs=(1, 2, 3, 4),
        ),
        op(
            "Split", "2-12", "input:T", "outputs*:T", "axis:int=0 split:ints", types={"T": FIXED},
            instances="once", prepare="plain", layout="axis",
        ),
        op(
            "Split", "13-17", "input:T split?:S", "outputs*:T", "axis:int=0",
            types={"T": FIXED, "S": INT64}, instances="once", prepare="plain", layout="axis",
            value_inputs=(1,),
        ),
        op(
            "Split", "18-", "input:T split?:S", "outputs*:T", "axis:int=0 num_outputs:int",
            types={"T": FIXED, "S": INT64}, instances="once", prepare="plain", layout="axis",
            value_inputs=(1,),
        ),
        op(
            "Expand", "8-", "input:T shape:S", "output:T", types={"T": FIXED, "S": INT64},
            instances="once", value_inputs=(1,),
        ),
        op(
            "Tile", "6-", "input:T repeats:T1", "output:T", types={"T": FIXED, "T1": INT64},
            instances="once", value_inputs=(1,),
        ),
        op(
            "Pad", "2-10", "data:T", "output:T", "mode:string=constant pads!:ints value:float=0.0",
            types={"T": FLOATS}, instances="once", prepare="plain", layout="axis",
        ),
        op(
            "Pad", "11-17", "data:T pads:S constant_value?:T", "output:T", "mode:string=constant",
            types={"T": FIXED, "S": INT64}, instances="once", prepare="plain", layout="axis",
            value_inputs=(1,),
        ),
        op(
            "Pad", "18-", "data:T pads:S constant_value?:T axes?:Tind", "output:T",
            "mode:string=constant", types={"T": FIXED, "S": INT64, "Tind": INDEX},
            instances="once", prepare="plain", layout="axis", value_inputs=(1, 3),
        ),
        op(
            "Pad", "1-", "data:T pads:S value?:T", "output:T", "mode:string=constant",
            domain="com.microsoft", types={"T": FLOATS, "S": INT64}, instances="once",
            prepare="plain", layout="axis", value_inputs=(1,),
        ),
        op(
            "Range", "1-", "start:T limit:T delta?:T", "Y:T", domain="com.microsoft", types=_RANGE,
            value_inputs=(0, 1, 2),
        ),
        op(
            "Range", "11-26", "start:T limit:T delta:T", "output:T", types=_RANGE,
            value_inputs=(0, 1, 2),
        ),
        op(
            "Range", "27-", "start:T limit:T delta:T", "output:T", "stash_type:int=1",
            types=_RANGE, value_inputs=(0, 1, 2),
        ),
    ),
)  # fmt: skip
