"""Moves transposes and a scale into the product of matrices that they belong to.

    a -> Transpose(last two) -> MatMul -> Mul(s) -> y      =>      a -> FusedMatMul -> y

1. A Transpose that swaps the last two axes only, before either input: transA, transB.
2. A Mul or Div by a constant with one element behind the product, or before an input: alpha.

The result is com.microsoft:FusedMatMul; one that is there takes more in. Not rewritten when what
is between has another user, or the constant has more dimensions than the product, or is more exact
than the attribute, which is a float.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user, scalar
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target
from ortolan.passes.transposes import order_of

__all__ = ["fuse_matmul_operands"]

_KINDS = ("MatMul", "com.microsoft:FusedMatMul")


def fuse_matmul_operands(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves transposes and scales into products; returns whether there were any."""
    return rewrite(model, target, _KINDS, _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    attributes: dict[str, object] = dict(node.attributes.items())
    alpha = node.attributes.get_float("alpha", 1.0)
    inputs = list(node.inputs[:2])
    last, changed = node, False
    for k, name in enumerate(("transA", "transB")):
        # The batch would be where the rows are.
        batches = node.attributes.get_int(f"transBatch{'AB'[k]}", 0)
        source = None if batches else _swapped(inputs[k])
        if source is not None:
            attributes[name] = 1 - node.attributes.get_int(name, 0)
            inputs[k], changed = source, True
    scaled = _scaled(node)
    if scaled is not None:
        last, factor = scaled
        alpha, changed = alpha * factor, True
    if not changed:
        return False
    attributes["alpha"] = alpha
    return rewriter.replace(
        last, [rewriter.node("FusedMatMul", inputs, attributes, domain=MICROSOFT)]
    )


def _swapped(value: ir.Value | None) -> ir.Value | None:
    """What a Transpose of the last two axes was made of."""
    node = value.producer() if value is not None else None
    if value is None or node is None or (node.domain, node.op_type) != ("", "Transpose"):
        return None
    order = order_of(node)
    users = [use.node for use in value.uses()]
    if order is None or len(order) < 2 or len(users) != 1 or value.is_graph_output():
        return None
    places = list(range(len(order)))
    swapped = [*places[:-2], places[-1], places[-2]]
    return node.inputs[0] if order == swapped else None


def _scaled(node: ir.Node) -> tuple[ir.Node, float] | None:
    """The Mul or Div behind a product, and the factor that it is."""
    y = node.outputs[0]
    user = _user(node)
    shape = known_shape(y)
    if user is None or shape is None or y.dtype != ir.DataType.FLOAT:
        return None
    if user.op_type == "Div" and user.inputs[0] is not y:
        return None
    other = user.inputs[1] if user.inputs[0] is y else user.inputs[0]
    number, array = scalar(other), constant(other)
    if number is None or array is None or array.ndim > len(shape):
        return None
    if user.op_type == "Div":
        return (user, 1 / number) if number else None
    return user, number


def _user(node: ir.Node) -> ir.Node | None:
    return only_user(node.outputs[0], ("Mul", "Div"))
