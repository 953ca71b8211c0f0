"""Adds a residual within the normalization behind it.

    x -> Add -> s -> LayerNormalization -> y      =>      x -> SkipLayerNormalization -> y (and s)
    z ---^                                                z ---^

1. LayerNormalization over the last axis becomes com.microsoft:SkipLayerNormalization.
2. SimplifiedLayerNormalization becomes com.microsoft:SkipSimplifiedLayerNormalization.
3. A constant with one element per column that was added to `x` or `z` before becomes the bias.
4. Where the sum has other users, they get the fourth output.

Not rewritten when the shapes of `x` and `z` are not surely equal with two or three dimensions, a
graph returns the sum, scale or bias are not surely one number per column, or the normalization
returns its mean.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_skip_layer_norm"]

_NAMES = {
    "LayerNormalization": "SkipLayerNormalization",
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
}


def fuse_skip_layer_norm(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves residuals into normalizations; returns whether there were any."""
    return rewrite(model, target, _NAMES, _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    total = node.inputs[0]
    add = total.producer() if total is not None else None
    if total is None or add is None or (add.domain, add.op_type) != ("", "Add"):
        return False
    if add.graph is not node.graph or total.is_graph_output() or len(node.outputs) > 1:
        return False
    x, z = add.inputs
    shape = known_shape(x)
    if shape is None or shape != known_shape(z) or None in shape or len(shape) not in (2, 3):
        return False
    if node.attributes.get_int("axis", -1) not in (-1, len(shape) - 1) or _users_before(
        node, total
    ):
        return False
    scale, beta, *_ = [*node.inputs[1:], None]
    if any(term is not None and known_shape(term) != shape[-1:] for term in (scale, beta)):
        return False
    x, z, bias = _take_bias(rewriter, x, z, shape[-1])
    simple = node.op_type == "SimplifiedLayerNormalization"
    inputs = [x, z, scale, bias] if simple else [x, z, scale, beta, bias]
    more = [use for use in total.uses() if use.node is not node]
    norm = rewriter.node(
        _NAMES[node.op_type], inputs,
        {"epsilon": node.attributes.get_float("epsilon", 1e-5)},
        domain=MICROSOFT, outputs=4 if more else 1,
    )  # fmt: skip
    for value in norm.outputs[1:3]:
        value.name = ""
    if not rewriter.replace(node, [norm], outputs=[norm.outputs[0]]):
        return False
    if more:
        rewriter.bypass(add, norm.outputs[3])
    return True


def _users_before(node: ir.Node, total: ir.Value) -> bool:
    """Whether a user of the sum comes before the normalization, or is in a subgraph."""
    graph = node.graph
    users = [use.node for use in total.uses() if use.node is not node]
    if not isinstance(graph, ir.Graph) or any(user.graph is not graph for user in users):
        return bool(users)
    for other in graph if users else ():
        if other is node:
            return False
        if any(other is user for user in users):
            return True
    return False


def _take_bias(
    rewriter: Rewriter, x: ir.Value | None, z: ir.Value | None, columns: int | str | None
) -> tuple[ir.Value | None, ir.Value | None, ir.Value | None]:
    """Case 3: the two terms, and what is added to both of them."""
    for first, other, flipped in ((x, z, False), (z, x, True)):
        add = first.producer() if first is not None else None
        if first is None or add is None or (add.domain, add.op_type) != ("", "Add"):
            continue
        if only_user(first, ("Add",)) is None:
            continue
        for value, term in ((add.inputs[0], add.inputs[1]), (add.inputs[1], add.inputs[0])):
            array = constant(term)
            if array is None or array.shape != (columns,):
                continue
            if known_shape(value) == known_shape(first):
                return (other, value, term) if flipped else (value, other, term)
    return x, z, None
