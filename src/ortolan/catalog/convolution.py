"""Convolution, pooling, resizing: channels-last tensors of any number of spatial dimensions."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, FLOATS, INT64, type_set

_F = {"T": FLOAT}
_D = {"T": FLOATS}
_POOLED = FLOATS | type_set("int8", "uint8")
_CONV = "auto_pad:string=NOTSET dilations:ints group:int=1 kernel_shape:ints pads:ints strides:ints"
_DEPTHWISE = "depthwise_narrow depthwise_3 depthwise_3_stride_2 depthwise_any"
_VARIANTS = f"depthwise {_DEPTHWISE} pointwise partners tap_columns winograd"

FAMILY = Family(
    "convolution",
    simd=True,
    operators=(
        op(
            "Conv", "1-", "X:T W:T B?:T", "Y:T", _CONV, types=_F, prepare="typed",
            layout="spatial", variants=_VARIANTS, packed=(1,),
        ),
        op(
            "FusedConv", "1-", "X:T W:T B?:T Z?:T", "Y:T",
            _CONV + " activation:string activation_params:floats", domain="com.microsoft",
            kernel="Conv", types=_F, prepare="typed", layout="spatial",
            variants=_VARIANTS + " activations", packed=(1,),
        ),
        op(
            "FusedConv", "1-", "X:T W:T B?:T Z?:T", "Y:T",
            _CONV + " activation:string activation_params:floats", domain="ai.ortolan",
            kernel="Conv", types=_F, prepare="typed", layout="spatial",
            variants=_VARIANTS + " activations", packed=(1,),
        ),
        op(
            "InvertedBottleneck", "1-", "X:T W:T B?:T Z?:T We?:T Be?:T Wp?:T Bp?:T", "Y:T",
            "auto_pad:string=NOTSET dilations:ints pads:ints strides:ints"
            " expand_activation:string expand_params:floats depthwise_activation:string"
            " depthwise_params:floats project_activation:string project_params:floats",
            domain="ai.ortolan", types=_F, prepare="typed", layout="spatial",
            variants=_DEPTHWISE + " activations", packed=(4, 6),
        ),
        op(
            "MaxPool", "1-7", "X:T", "Y:T",
            "auto_pad:string=NOTSET kernel_shape!:ints pads:ints strides:ints", types=_D,
            prepare="plain", layout="spatial",
        ),
        op(
            "MaxPool", "8-9", "X:T", "Y:T Indices?:I",
            "auto_pad:string=NOTSET kernel_shape!:ints pads:ints storage_order:int=0 strides:ints",
            types={"T": FLOATS, "I": INT64}, prepare="plain", layout="spatial",
        ),
        op(
            "MaxPool", "10-", "X:T", "Y:T Indices?:I",
            "auto_pad:string=NOTSET ceil_mode:int=0 dilations:ints kernel_shape!:ints pads:ints"
            " storage_order:int=0 strides:ints",
            types={"T": _POOLED, "I": INT64}, prepare="plain", layout="spatial",
        ),
        op(
            "AveragePool", "1-6", "X:T", "Y:T",
            "auto_pad:string=NOTSET kernel_shape!:ints pads:ints strides:ints", types=_D,
            prepare="plain", layout="spatial",
        ),
        op(
            "AveragePool", "7-9", "X:T", "Y:T",
            "auto_pad:string=NOTSET count_include_pad:int=0 kernel_shape!:ints pads:ints"
            " strides:ints",
            types=_D, prepare="plain", layout="spatial",
        ),
        op(
            "AveragePool", "10-18", "X:T", "Y:T",
            "auto_pad:string=NOTSET ceil_mode:int=0 count_include_pad:int=0 kernel_shape!:ints"
            " pads:ints strides:ints",
            types=_D, prepare="plain", layout="spatial",
        ),
        op(
            "AveragePool", "19-", "X:T", "Y:T",
            "auto_pad:string=NOTSET ceil_mode:int=0 count_include_pad:int=0 dilations:ints"
            " kernel_shape!:ints pads:ints strides:ints",
            types=_D, prepare="plain", layout="spatial",
        ),
        op("GlobalAveragePool", "1-", "X:T", "Y:T", types=_D, layout="spatial"),
        op("GlobalMaxPool", "1-", "X:T", "Y:T", types=_D, layout="spatial"),
        op(
            "BatchNormalization", "7-8", "X:T scale:T B:T mean:T var:T",
            "Y:T mean?:T var?:T saved_mean?:T saved_var?:T",
            "epsilon:float=1e-05 momentum:float=0.9 spatial:int=1", types=_D, prepare="plain",
            layout="axis", in_place=(0,),
        ),
        op(
            "BatchNormalization", "9-13", "X:T scale:T B:T mean:T var:T",
            "Y:T mean?:T var?:T saved_mean?:T saved_var?:T",
            "epsilon:float=1e-05 momentum:float=0.9",
            types=_D, prepare="plain", layout="axis", in_place=(0,),
        ),
        op(
            "BatchNormalization", "14", "X:T scale:T B:T input_mean:U input_var:U",
            "Y:T running_mean?:U running_var?:U",
            "epsilon:float=1e-05 momentum:float=0.9 training_mode:int=0",
            types={"T": FLOATS, "U": FLOATS}, keys="T", prepare="plain",
            layout="axis", in_place=(0,),
        ),
        op(
            "BatchNormalization", "15-", "X:T scale:T1 B:T1 input_mean:T2 input_var:T2",
            "Y:T running_mean?:T2 running_var?:T2",
            "epsilon:float=1e-05 momentum:float=0.9 training_mode:int=0",
            types={"T": FLOATS, "T1": FLOATS, "T2": FLOATS}, prepare="plain", layout="axis",
            in_place=(0,),
        ),
    ),
)  # fmt: skip
