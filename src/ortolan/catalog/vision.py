"""Sampling of images between pixels, regions of images, rare pools and what inverts them."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import BOOL, FLOAT, FLOATS, INT64, NUMBERS, TypeSet, type_set

_F = {"T": FLOATS}
_INT32 = type_set("int32")
_POOL = "auto_pad:string=NOTSET kernel_shape!:ints pads:ints strides:ints"


def _grid_sample(versions: str, mode: str) -> Operator:
    types: dict[str, TypeSet] = {"T1": NUMBERS | BOOL, "T2": FLOATS}
    return op(
        "GridSample", versions, "X:T1 grid:T2", "Y:T1",
        f"align_corners:int=0 mode:string={mode} padding_mode:string=zeros", types=types,
        instances="once", keys="T1", prepare="plain",
    )  # fmt: skip


def _lp_pool(versions: str, attributes: str) -> Operator:
    return op("LpPool", versions, "X:T", "Y:T", attributes, types=_F, prepare="plain")


def _roi_align(versions: str, attributes: str) -> Operator:
    return op(
        "RoiAlign", versions, "X:T1 rois:T1 batch_indices:T2", "Y:T1",
        attributes + "mode:string=avg output_height:int=1 output_width:int=1 sampling_ratio:int=0"
        " spatial_scale:float=1.0",
        types={"T1": FLOATS, "T2": INT64}, keys="T1", prepare="plain",
    )  # fmt: skip


FAMILY = Family(
    "vision",
    simd=False,
    operators=(
        _grid_sample("16-19", "bilinear"),
        _grid_sample("20-", "linear"),
        op(
            "GridSample", "1-", "X:T Grid:T", "Y:T",
            "align_corners:int=0 mode:string=bilinear padding_mode:string=zeros",
            domain="com.microsoft", types=_F, instances="once", prepare="plain",
        ),
        op(
            "AffineGrid", "20-", "theta:T1 size:T2", "grid:T1", "align_corners:int=0",
            types={"T1": FLOATS, "T2": INT64}, instances="once", keys="T1", value_inputs=(1,),
        ),
        op(
            "DeformConv", "19-", "X:T W:T offset:T B?:T mask?:T", "Y:T",
            "dilations:ints group:int=1 kernel_shape:ints offset_group:int=1 pads:ints"
            " strides:ints",
            types=_F,
        ),
        _roi_align("10-15", ""),
        _roi_align("16-", "coordinate_transformation_mode:string=half_pixel "),
        op(
            "MaxRoiPool", "1-", "X:T rois:T", "Y:T", "pooled_shape!:ints spatial_scale:float=1.0",
            types=_F,
        ),
        op(
            "CropAndResize", "1-", "X:T1 rois:T1 batch_indices:T2 crop_size:T2", "Y:T1",
            "extrapolation_value:float=0.0 mode:string=bilinear", domain="com.microsoft",
            types={"T1": FLOATS, "T2": _INT32}, keys="T1", value_inputs=(3,),
        ),
        op("GlobalLpPool", "1", "X:T", "Y:T", "p:float=2.0", types=_F),
        op("GlobalLpPool", "2-", "X:T", "Y:T", "p:int=2", types=_F),
        _lp_pool(
            "1", "auto_pad:string=NOTSET kernel_shape:ints p:float=2.0 pads:ints strides:ints"
        ),
        _lp_pool("2-17", _POOL + " p:int=2"),
        _lp_pool("18-", _POOL + " ceil_mode:int=0 dilations:ints p:int=2"),
        op(
            "MaxpoolWithMask", "1-", "X:T M:T1", "Y:T",
            "auto_pad:string=NOTSET kernel_shape:ints pads:ints storage_order:int=0 strides:ints",
            domain="com.microsoft", types={"T": FLOAT, "T1": _INT32}, instances="once",
            prepare="plain",
        ),
        op(
            "NhwcMaxPool", "1-", "x:T", "y:T",
            _POOL + " ceil_mode:int=0 dilations:ints", domain="com.microsoft",
            types={"T": type_set("int8", "uint8")}, prepare="plain",
        ),
        op(
            "MaxUnpool", "9-", "X:T1 I:T2 output_shape?:T2", "output:T1",
            "kernel_shape!:ints pads:ints strides:ints", types={"T1": FLOATS, "T2": INT64},
            instances="once", keys="T1", prepare="plain", value_inputs=(2,),
        ),
        op(
            "Col2Im", "18-", "input:T image_shape:S block_shape:S", "output:T",
            "dilations:ints pads:ints strides:ints", types={"T": NUMBERS, "S": INT64},
            value_inputs=(1, 2),
        ),
    ),
)  # fmt: skip
