"""Random numbers.

The standard's body of Bernoulli gives 1 with probability 1 - p; its text, and the kernel here, p.
"""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import BOOL, FLOATS, INDEX, NUMBERS


def _random(name: str, attributes: str) -> Operator:
    return op(
        name, "1-", "", "output:T", f"dtype:int=1 seed:float shape!:ints {attributes}",
        types={"T": FLOATS}, instances="once", prepare="plain", flags=("volatile",),
        type_attribute="dtype=float",
    )  # fmt: skip


def _random_like(name: str, attributes: str) -> Operator:
    return op(
        f"{name}Like", "1-", "input:T1", "output:T2", f"dtype:int seed:float {attributes}",
        kernel=name, types={"T2": FLOATS}, instances="once", keys="T2", prepare="plain",
        infer="infer_same", flags=("volatile",), type_attribute="dtype=T1",
    )  # fmt: skip


_NORMAL = "mean:float=0.0 scale:float=1.0"
_UNIFORM = "high:float=1.0 low:float=0.0"

FAMILY = Family(
    "random",
    simd=False,
    operators=(
        _random("RandomNormal", _NORMAL),
        _random_like("RandomNormal", _NORMAL),
        _random("RandomUniform", _UNIFORM),
        _random_like("RandomUniform", _UNIFORM),
        op(
            "Bernoulli", "15-", "input:T1", "output:T2", "dtype:int seed:float",
            types={"T1": FLOATS, "T2": NUMBERS | BOOL}, instances="once", keys="T2",
            prepare="plain", infer="infer_same", flags=("volatile",), type_attribute="dtype=T1",
        ),
        op(
            "Multinomial", "7-", "input:T1", "output:T2",
            "dtype:int=6 sample_size:int=1 seed:float", types={"T1": FLOATS, "T2": INDEX},
            instances="once", keys="T2", prepare="plain", flags=("volatile",),
            type_attribute="dtype=int32",
        ),
    ),
)  # fmt: skip
