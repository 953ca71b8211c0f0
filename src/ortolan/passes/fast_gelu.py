"""Recognises the GELU that is approximated by tanh in its parts.

    y = 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))      =>      y = FastGelu(x)

1. The cube is a Pow or two Mul; the factors come in any order.
2. The inner sum may be written as x * (1 + 0.044715 * x * x).

From opset 20 on it is ai.onnx:Gelu with approximate "tanh", before that com.microsoft:FastGelu.

Not rewritten when a value inside has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_fast_gelu"]

_ARGUMENTS = (
    """
    cube = Pow(x, 3.0)
    term = Mul(cube, 0.044715)
    inner = Add(x, term)
    argument = Mul(inner, 0.7978845608)
    """,
    """
    square = Mul(x, x)
    cube = Mul(square, x)
    term = Mul(cube, 0.044715)
    inner = Add(x, term)
    argument = Mul(inner, 0.7978845608)
    """,
    """
    scaled = Mul(x, 0.044715)
    square = Mul(x, scaled)
    term = Mul(x, square)
    inner = Add(x, term)
    argument = Mul(inner, 0.7978845608)
    """,
    """
    square = Mul(x, x)
    term = Mul(square, 0.044715)
    factor = Add(term, 1.0)
    scaled = Mul(x, 0.7978845608)
    argument = Mul(scaled, factor)
    """,
    """
    partial = Mul(x, 0.044715)
    term = Mul(partial, x)
    factor = Add(term, 1.0)
    scaled = Mul(x, 0.7978845608)
    argument = Mul(scaled, factor)
    """,
)
_ENDS = (
    "half = Mul(x, 0.5)\n y = Mul(half, sum)",
    "whole = Mul(x, sum)\n y = Mul(whole, 0.5)",
    "half = Mul(sum, 0.5)\n y = Mul(x, half)",
)
_PATTERNS = [
    Pattern(f"{argument}\n tanh = Tanh(argument)\n sum = Add(tanh, 1.0)\n {end}")
    for argument in _ARGUMENTS
    for end in _ENDS
]


def fuse_fast_gelu(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises approximated GELU; returns whether there was any."""
    return rewrite(model, target, ["Mul"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = next((m for p in _PATTERNS if (m := p.match(node))), None)
    if match is None:
        return False
    if (rewriter.version("", "Gelu") or 0) >= 20:
        gelu = rewriter.node("Gelu", [match["x"]], {"approximate": "tanh"})
        if rewriter.replace(node, [gelu]):
            return True
    return rewriter.replace(node, [rewriter.node("FastGelu", [match["x"]], domain=MICROSOFT)])
