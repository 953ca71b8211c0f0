"""Transposed convolution of channels-last tensors."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import FLOAT

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
    ),
)  # fmt: skip
