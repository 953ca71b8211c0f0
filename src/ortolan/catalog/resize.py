"""Resize and Upsample: interpolation over the spatial dimensions."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, INT64

_F = {"T": FLOAT}
_T1 = {"T1": FLOAT, "T2": FLOAT}
_RESIZE11 = (
    "coordinate_transformation_mode:string=half_pixel cubic_coeff_a:float=-0.75"
    " exclude_outside:int=0 extrapolation_value:float=0.0 mode:string=nearest"
    " nearest_mode:string=round_prefer_floor"
)

FAMILY = Family(
    "resize",
    simd=True,
    operators=(
        op("Upsample", "7", "X:T", "Y:T", "mode:string=nearest scales!:floats", types=_F,
           kernel="Resize", prepare="plain", layout="spatial"),
        op("Upsample", "9", "X:T scales:S", "Y:T", "mode:string=nearest",
           types={"T": FLOAT, "S": FLOAT}, kernel="Resize", prepare="plain", layout="spatial",
           value_inputs=(1,)),
        op("Resize", "10", "X:T scales:S", "Y:T", "mode:string=nearest",
           types={"T": FLOAT, "S": FLOAT}, prepare="plain", layout="spatial", value_inputs=(1,)),
        op("Resize", "11", "X:T1 roi:T2 scales:S sizes?:I", "Y:T1", _RESIZE11,
           types={**_T1, "S": FLOAT, "I": INT64}, keys="T1", prepare="plain", layout="spatial",
           value_inputs=(1, 2, 3)),
        op("Resize", "13", "X:T1 roi?:T2 scales?:S sizes?:I", "Y:T1", _RESIZE11,
           types={**_T1, "S": FLOAT, "I": INT64}, keys="T1", prepare="plain", layout="spatial",
           value_inputs=(1, 2, 3)),
        op("Resize", "18-", "X:T1 roi?:T2 scales?:S sizes?:I", "Y:T1",
           "antialias:int=0 axes:ints keep_aspect_ratio_policy:string=stretch " + _RESIZE11,
           types={**_T1, "S": FLOAT, "I": INT64}, keys="T1", prepare="plain", layout="spatial",
           value_inputs=(1, 2, 3)),
    ),
)  # fmt: skip
