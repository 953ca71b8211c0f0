"""Takes away the reshapes around a product that has the rows of more than one axis.

    x -> Reshape(-1, k) -> Gemm(w, bias) -> Reshape(..., n) -> y
        =>      x -> MatMul(w) -> Add(bias) -> y

The product is a Gemm or a MatMul.

1. `x` has three dimensions or more, the last of them `k`; the second Reshape gives back all of
   them but the last, which is `n`. Exporters write linear layers so.

2. `x` has other dimensions, but was reshaped to the right ones beside: that takes its place.

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
    x = None if match is None else _unflattened(match)
    if match is None or x is None:
        return False
    gemm, graph = match.nodes["product"], node.graph
    weights = constant(match["w"])
    scales = [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if weights is None or scales != [1.0, 1.0] or gemm.attributes.get_int("transA", 0) != 0:
        return False
    w = match["w"]
    if gemm.attributes.get_int("transB", 0):
        assert isinstance(graph, ir.Graph)
        if len(list(w.uses())) > 1:
            return False
        w = rewriter.constant(graph, np.ascontiguousarray(weights.T), f"{w.name}_t")
    product = rewriter.node("MatMul", [x, w])
    nodes = [product]
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    if bias is not None:
        shape = known_shape(bias)
        if shape is None or len(shape) > 1:
            return False
        nodes.append(rewriter.node("Add", [product.outputs[0], bias]))
    return rewriter.replace(node, nodes)


def _unflattened(match: Match) -> ir.Value | None:
    """The value with the product's axes, but the columns of its input."""
    rows, product, y = (known_shape(match[name]) for name in ("rows", "product", "y"))
    if rows is None or product is None or y is None or len(rows) != 2 or len(product) != 2:
        return None
    if len(y) < 3 or y[-1] != product[-1] or None in y[:-1] or not isinstance(rows[-1], int):
        return None
    wanted = (*y[:-1], rows[-1])
    x = match["x"]
    if known_shape(x) == wanted:
        return x
    flattening = match.nodes["rows"]
    for user in (use.node for use in x.uses()):
        beside = user.domain == "" and user.op_type == "Reshape" and user.graph is flattening.graph
        if beside and known_shape(user.outputs[0]) == wanted and user.inputs[0] is x:
            return user.outputs[0] if _is_before(user, match.nodes["y"]) else None
    return None


def _is_before(first: ir.Node, second: ir.Node) -> bool:
    """Whether a node comes before another one of its graph."""
    graph = first.graph
    assert isinstance(graph, ir.Graph)
    return next(node for node in graph if node is first or node is second) is first
