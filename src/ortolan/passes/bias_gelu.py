"""Adds a bias within the GELU behind it.

    x -> Add -> Gelu -> y      =>      x -> BiasGelu -> y
    b ---^                             b ---^

1. com.microsoft:Gelu becomes com.microsoft:BiasGelu.
2. com.microsoft:FastGelu gets the bias as its second input.

Not rewritten when the bias is not a constant with one element per column, or the sum has another
user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant
from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_bias_gelu"]

_PATTERN = Pattern("""
    sum = Add(x, bias)
    y = com.microsoft:Gelu|com.microsoft:FastGelu(sum)
""")


def fuse_bias_gelu(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves biases into GELU; returns whether there were any."""
    return rewrite(model, target, _PATTERN.operators, _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = _PATTERN.match(node)
    if match is None:
        return False
    for x, bias in ((match["x"], match["bias"]), (match["bias"], match["x"])):
        array, shape = constant(bias), known_shape(x)
        if array is not None and array.ndim == 1 and shape and shape[-1] == array.size:
            name = "FastGelu" if node.op_type == "FastGelu" else "BiasGelu"
            return rewriter.replace(node, [rewriter.node(name, [x, bias], domain=MICROSOFT)])
    return False
