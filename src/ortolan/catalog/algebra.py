"""Small matrices, Hardmax, and hashes of numbers."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import BOOL, FLOATS, NUMBERS, type_set

_F = {"T": FLOATS}
_HASHED = FLOATS | type_set("int32", "int64", "uint32", "uint64")
_HASHES = type_set("int32", "uint32")

FAMILY = Family(
    "algebra",
    simd=False,
    operators=(
        op("Det", "11-", "X:T", "Y:T", types=_F),
        op("Inverse", "1-", "X:T", "Y:T", domain="com.microsoft", types=_F),
        op("Hardmax", "1-12", "input:T", "output:T", "axis:int=1", types=_F),
        op("Hardmax", "13-", "input:T", "output:T", "axis:int=-1", types=_F),
        op(
            "EyeLike", "9-", "input:T1", "output:T2", "dtype:int k:int=0",
            types={"T1": NUMBERS | BOOL, "T2": NUMBERS | BOOL}, instances="once", keys="T2",
            flags=("shape_only",), type_attribute="dtype=T1",
        ),
        op(
            "MurmurHash3", "1-", "X:T1", "Y:T2", "positive:int=1 seed:int=0",
            domain="com.microsoft", types={"T1": _HASHED, "T2": _HASHES}, instances="once",
            keys="T1", type_attribute="positive",
        ),
    ),
)  # fmt: skip
