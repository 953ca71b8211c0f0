"""Recognises root mean square normalization in its parts.

    y = x / sqrt(mean(x * x) + epsilon) * scale      =>      y = RMSNormalization(x)

1. The square is a Pow or a Mul; the quotient a Div, or a Mul by a Reciprocal or by 1 / root.

The mean is over the last axes, and the scale a constant of just their sizes. Before opset 23 it
is the SimplifiedLayerNormalization that onnxruntime has in ai.onnx.

Not rewritten when sizes of these axes are not known, or a value inside has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.layer_norm import epsilon_of, trailing_axis
from ortolan.passes.matching import reduced_axes
from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_rms_norm"]

_PATTERNS = [
    Pattern(
        f"""
    square = {square}
    mean = ReduceMean(square, ...)
    shifted = Add(mean, epsilon)
    root = Sqrt(shifted)
    {quotient}
    y = Mul(normal, scale)
    """
    )
    for square in ("Pow(x, 2.0)", "Mul(x, x)")
    for quotient in (
        "normal = Div(x, root)",
        "factor = Reciprocal(root)\n normal = Mul(x, factor)",
        "factor = Div(1.0, root)\n normal = Mul(x, factor)",
    )
]


def fuse_rms_norm(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises root mean square normalization; returns whether there was any."""
    return rewrite(model, target, ["Mul"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = next((m for p in _PATTERNS if (m := p.match(node))), None)
    if match is None:
        return False
    mean, epsilon = match.nodes["mean"], epsilon_of(match)
    axis = trailing_axis(mean, match["scale"])
    if axis is None or epsilon is None or reduced_axes(mean) is None:
        return False
    standard = (rewriter.version("", "RMSNormalization") or 0) >= 23
    name = "RMSNormalization" if standard else "SimplifiedLayerNormalization"
    norm = rewriter.node(
        name, [match["x"], match["scale"]], {"axis": axis, "epsilon": epsilon, "stash_type": 1}
    )
    return rewriter.replace(node, [norm])
