"""Removes Transpose nodes that move nothing, and joins two in a row.

    x -> Transpose(p) -> Transpose(q) -> y      =>      x -> Transpose(p[q]) -> y

1. The order of axes stays: `x` takes the place of the result.
2. Two in a row become one, or none.
3. Only axes of size 1 move, and all sizes are known: it becomes a Reshape, which moves no data.

Not rewritten when the order is left out and the rank is not known.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["order_of", "simplify_transposes"]


def simplify_transposes(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Removes and joins Transpose nodes; returns whether there were any."""
    return rewrite(model, target, ["Transpose"], _simplify)


def order_of(node: ir.Node) -> list[int] | None:
    """Returns the order of axes that a Transpose gives, None if the rank is not known."""
    if order := node.attributes.get_ints("perm"):
        return list(order)
    shape = known_shape(node.inputs[0])
    return None if shape is None else list(range(len(shape)))[::-1]


def _simplify(rewriter: Rewriter, node: ir.Node) -> bool:
    x, order = node.inputs[0], order_of(node)
    if x is None or order is None:
        return False
    if order == sorted(order):
        return rewriter.bypass(node, x)
    first = x.producer()
    if first is not None and (first.domain, first.op_type) == ("", "Transpose"):
        before, source = order_of(first), first.inputs[0]
        if before is not None and source is not None and len(before) == len(order):
            joined = [before[k] for k in order]
            if joined == sorted(joined) and rewriter.bypass(node, source):
                return True
            both = rewriter.node("Transpose", [source], {"perm": joined}, version=node.version)
            return rewriter.replace(node, [both])
    return _reshape(rewriter, node, x, order)


def _reshape(rewriter: Rewriter, node: ir.Node, x: ir.Value, order: list[int]) -> bool:
    """Case 3."""
    shape, graph = known_shape(x), node.graph
    version = rewriter.version("", "Reshape") or 0
    if shape is None or len(shape) != len(order) or version < 5 or not isinstance(graph, ir.Graph):
        return False
    sizes = [shape[k] for k in order]
    moved = [k for k in order if shape[k] != 1]
    if moved != sorted(moved) or not all(isinstance(size, int) and size > 0 for size in sizes):
        return False
    target = rewriter.constant(graph, np.array(sizes, np.int64), f"{node.outputs[0].name}_shape")
    return rewriter.replace(node, [rewriter.node("Reshape", [x, target])])
