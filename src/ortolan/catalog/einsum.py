"""Sums of products by an equation."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import NUMBERS

FAMILY = Family(
    "einsum",
    simd=True,
    operators=(
        op(
            "Einsum", "12-", "Inputs*:T", "Output:T", "equation!:string", types={"T": NUMBERS},
            prepare="plain", variants="products_in_place! products_dots!",
        ),
    ),
)  # fmt: skip
