"""Transposed convolution of channels-last tensors."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT, INT64

FAMILY = Family(
    "transposed",
    simd=True,
    operators=(
        op(
            "ConvTranspose", "1-", "X:T W:T B?:T", "Y:T",
            "auto_pad:string=NOTSET dilations:ints group:int=1 kernel_shape:ints"
            " output_padding:ints output_shape:ints pads:ints strides:ints",
            types={"T": FLOAT}, prepare="plain", layout="spatial",
        ),
        op(
            "ConvTransposeWithDynamicPads", "1-", "X:T W:T Pads?:P B?:T", "Y:T",
            "auto_pad:string=NOTSET dilations:ints group:int=1 kernel_shape:ints"
            " output_padding:ints strides:ints",
            domain="com.microsoft", types={"T": FLOAT, "P": INT64}, prepare="plain",
            layout="spatial", value_inputs=(2,),
        ),
    ),
)  # fmt: skip
