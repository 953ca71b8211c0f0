"""Takes away the reshapes around a product that has the rows of more than one axis.

    x -> Reshape(-1, k) -> Gemm(w, bias) -> Reshape(..., n) -> y
        =>      x -> MatMul(w) -> Add(bias) -> y

The product is a Gemm or a MatMul.

1. `x` has three dimensions or more, the last of them `k`; the second Reshape gives back all of
   them but the last, which is `n`. Exporters write linear layers so.

Not rewritten when the shapes are not sure, `w` is no constant matrix, or the Gemm scales.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant
from ortolan.passes.pattern import Match, Pattern
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["unflatten_products"]

_PATTERN = Pattern("""
    rows! = Reshape(x, _)
    product = Gemm|MatMul(rows, w, ...)
    y = Reshape(product, _)
""")


def unflatten_products(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Takes reshapes around products away; returns whether there were any."""
    return rewrite(model, target, _PATTERN.operators, _unflatten)


def _unflatten(rewriter: Rewriter, node: ir.Node) -> bool:
    match = _PATTERN.match(node)
    if match is None or not _shapes_agree(match):
        return False
    gemm, graph = match.nodes["product"], node.graph
    weights = constant(match["w"])
    scales = [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if weights is None or scales != [1.0, 1.0] or gemm.attributes.get_int("transA", 0):
        return False
    w = match["w"]
    if gemm.attributes.get_int("transB", 0):
        assert isinstance(graph, ir.Graph)
        if len(list(w.uses())) > 1:
            return False
        w = rewriter.constant(graph, np.ascontiguousarray(weights.T), f"{w.name}_t")
    product = rewriter.node("MatMul", [match["x"], w])
    nodes = [product]
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    if bias is not None:
        shape = known_shape(bias)
        if shape is None or len(shape) > 1:
            return False
        nodes.append(rewriter.node("Add", [product.outputs[0], bias]))
    return rewriter.replace(node, nodes)


def _shapes_agree(match: Match) -> bool:
    x, rows, product, y = (known_shape(match[name]) for name in ("x", "rows", "product", "y"))
    if x is None or rows is None or product is None or y is None:
        return False
    return (
        len(x) >= 3
        and len(rows) == 2
        and len(product) == 2
        and isinstance(x[-1], int)
        and x[-1] == rows[-1]
        and None not in x[:-1]
        and (*x[:-1], product[-1]) == y
    )
