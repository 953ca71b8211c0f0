"""Recognises x * sigmoid(alpha * x): SiLU, and the quick approximation of GELU.

    x -> Sigmoid -> Mul -> y      =>      x -> QuickGelu(alpha 1) -> y
    '---------------^

1. SiLU, which has alpha 1.
2. With a Mul by a constant before the Sigmoid, which is alpha.

Both become com.microsoft:QuickGelu. Not rewritten when the Sigmoid has another user, or alpha is
a double, which the attribute does not hold.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.matching import scalar
from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_quick_gelu"]

_SILU = Pattern("""
    gate = Sigmoid(x)
    y = Mul(x, gate)
""")
_SCALED = Pattern("""
    scaled = Mul(x, alpha)
    gate = Sigmoid(scaled)
    y = Mul(x, gate)
""")


def fuse_quick_gelu(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises products with their own sigmoid; returns whether there were any."""
    return rewrite(model, target, ["Mul"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match, alpha = _SCALED.match(node), 1.0
    if match is not None:
        found = scalar(match["alpha"])
        # A constant of one element may have more dimensions than x.
        shape = match["alpha"].shape
        exact = match["alpha"].dtype != ir.DataType.DOUBLE
        if found is None or shape is None or len(shape) > 0 or not exact:
            return False
        alpha = found
    else:
        match = _SILU.match(node)
    if match is None:
        return False
    gelu = rewriter.node("QuickGelu", [match["x"]], {"alpha": alpha}, domain=MICROSOFT)
    return rewriter.replace(node, [gelu])
