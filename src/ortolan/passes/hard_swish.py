"""Recognises HardSigmoid and HardSwish in their parts.

    clip(x + 3, 0, 6) / 6      =>      HardSigmoid(x, alpha 1/6, beta 1/2)
    x * HardSigmoid(x)         =>      HardSwish(x)

1. Add of 3, Clip from 0 to 6, and Div by 6 or Mul by 1/6: HardSigmoid.
2. The same with a Mul by `x` between the last two: HardSigmoid, and the Mul.
3. HardSigmoid with alpha 1/6 and beta 1/2 times its input, from opset 14 on: HardSwish.

Not rewritten when the bounds or terms are others, a value inside has another user, or numbers are
double: 1/6 is a float as an attribute.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ortolan.passes.matching import clip_bounds
from ortolan.passes.pattern import Match, Pattern
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_hard_swish", "hard_swish_gate"]

_BOUNDED = """
    shifted = Add(x, 3.0)
    bounded = Clip(shifted, _, _)
"""
_ENDS = ("Div({}, 6.0)", "Mul({}, 0.16666666667)")
_SIGMOID = [Pattern(f"{_BOUNDED}\n y = {end.format('bounded')}") for end in _ENDS]
_SWISH = [
    Pattern(f"{_BOUNDED}\n product = Mul(x, bounded)\n y = {end.format('product')}")
    for end in _ENDS
]
_GATED = Pattern("""
    gate = HardSigmoid(x)
    y = Mul(x, gate)
""")


def fuse_hard_swish(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises HardSigmoid and HardSwish; returns whether there were any."""
    return rewrite(model, target, ["Mul", "Div"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    if node.outputs[0].dtype == ir.DataType.DOUBLE:
        return False
    if (match := _find(_SWISH, node)) is not None:
        gate = _gate(rewriter, match)
        product = rewriter.node("Mul", [match["x"], gate.outputs[0]])
        return rewriter.replace(node, [gate, product])
    if (match := _find(_SIGMOID, node)) is not None:
        return rewriter.replace(node, [_gate(rewriter, match)])
    found = hard_swish_gate(node)
    if found is None or (rewriter.version("", "HardSwish") or 0) < 14:
        return False
    return rewriter.replace(node, [rewriter.node("HardSwish", [found.inputs[0]])])


def hard_swish_gate(node: ir.Node) -> ir.Node | None:
    """Returns the HardSigmoid with whose input a Mul multiplies it to HardSwish; None if none."""
    gated = _GATED.match(node)
    if gated is None:
        return None
    attributes = gated.nodes["gate"].attributes
    alpha, beta = attributes.get_float("alpha", 0.2), attributes.get_float("beta", 0.5)
    exact = math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5
    return gated.nodes["gate"] if exact else None


def _find(patterns: list[Pattern], node: ir.Node) -> Match | None:
    for pattern in patterns:
        match = pattern.match(node)
        if match is not None and clip_bounds(match.nodes["bounded"]) == [0.0, 6.0]:
            return match
    return None


def _gate(rewriter: Rewriter, match: Match) -> ir.Node:
    return rewriter.node("HardSigmoid", [match["x"]], {"alpha": 1 / 6, "beta": 0.5})
