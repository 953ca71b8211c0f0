"""Recognises the exact GELU in its parts.

    y = x * 0.5 * (1 + erf(x / sqrt(2)))      =>      y = Gelu(x)

1. The factors come in any order; the division is a Div, or a Mul by 1 / sqrt(2).

From opset 20 on it is ai.onnx:Gelu, before that com.microsoft:Gelu.

Not rewritten when a value inside has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_gelu"]

_PATTERNS = [
    Pattern(
        f"""
    part = {part}
    erf = Erf(part)
    sum = Add(erf, 1.0)
    {end}
    """
    )
    for part in ("Div(x, 1.41421356237)", "Mul(x, 0.70710678118)")
    for end in (
        "inner = Mul(x, sum)\n y = Mul(inner, 0.5)",
        "inner = Mul(x, 0.5)\n y = Mul(inner, sum)",
        "inner = Mul(sum, 0.5)\n y = Mul(x, inner)",
    )
]


def fuse_gelu(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises GELU; returns whether there was any."""
    return rewrite(model, target, ["Mul"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = next((m for p in _PATTERNS if (m := p.match(node))), None)
    if match is None:
        return False
    standard = (rewriter.version("", "Gelu") or 0) >= 20
    if standard and rewriter.replace(node, [rewriter.node("Gelu", [match["x"]])]):
        return True
    return rewriter.replace(node, [rewriter.node("Gelu", [match["x"]], domain=MICROSOFT)])
