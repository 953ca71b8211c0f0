"""Elementwise operators of com.microsoft and those that left the standard with opset 10."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import FLOAT, FLOATS

_MICROSOFT = "com.microsoft"


def _legacy(name: str, attributes: str, names: tuple[str, str]) -> Operator:
    return op(
        name, "1-9", f"{names[0]}:T", f"{names[1]}:T", attributes, types={"T": FLOAT},
        prepare="plain", infer="infer_same", layout="elementwise", in_place=(0,),
    )  # fmt: skip


FAMILY = Family(
    "activation",
    simd=True,
    operators=(
        op(
            "Gelu", "1", "X:T", "Y:T", domain=_MICROSOFT, kernel="MicrosoftGelu",
            types={"T": FLOATS}, infer="infer_same", layout="elementwise", in_place=(0,),
        ),
        op(
            "QuickGelu", "1", "X:T", "Y:T", "alpha:float=1.702", domain=_MICROSOFT,
            types={"T": FLOATS}, prepare="plain", infer="infer_same", layout="elementwise",
            in_place=(0,),
        ),
        op(
            "FastGelu", "1", "X:T bias?:T", "Y:T", domain=_MICROSOFT, types={"T": FLOATS},
            layout="elementwise", in_place=(0,),
        ),
        op(
            "BiasGelu", "1", "A:T B:T", "C:T", domain=_MICROSOFT, types={"T": FLOATS},
            infer="FastGelu::infer", layout="elementwise", in_place=(0,),
        ),
        op(
            "Swish", "24-", "X:T", "Y:T", "alpha:float=1.0", types={"T": FLOATS},
            prepare="plain", infer="infer_same", layout="elementwise", in_place=(0,),
        ),
        op(
            "SwiGLU", "28-", "A:T B:T", "Y:T", "alpha:float=1.0", types={"T": FLOATS},
            prepare="plain", layout="elementwise", in_place=(0, 1),
        ),
        _legacy("Affine", "alpha:float=1.0 beta:float=0.0", ("X", "Y")),
        _legacy("ParametricSoftplus", "alpha:float beta:float", ("X", "Y")),
        _legacy("ScaledTanh", "alpha:float beta:float", ("input", "output")),
        op(
            "ImageScaler", "1-9", "input:T", "output:T", "bias:floats scale:float=1.0",
            types={"T": FLOAT}, prepare="plain", layout="axis", in_place=(0,),
        ),
    ),
)  # fmt: skip
