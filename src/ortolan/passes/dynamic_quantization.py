"""Fuses what makes floats of a product of integers.

    a -> MatMulInteger -> Cast -> Mul -> y      =>      a, b -> MatMulIntegerToFloat -> y
    b ---^          a_scale * b_scale -^

1. The scales are multiplied first; `a_scale` has one element, `b_scale` one, or one per column.
2. A constant that is added, with one element per column, is the bias.

The result is com.microsoft:MatMulIntegerToFloat. Not rewritten when shapes of scales are not
known, or a value inside has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user
from ortolan.passes.pattern import Pattern
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_dynamic_quantization"]

_PATTERN = Pattern("""
    product = MatMulInteger(a, b, ...)
    floats = Cast(product)
    scale! = Mul(first, second)
    y = Mul(floats, scale)
""")


def fuse_dynamic_quantization(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Fuses scales into products of integers; returns whether there were any."""
    return rewrite(model, target, ["Mul"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = _PATTERN.match(node)
    if match is None or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    shape = known_shape(match["b"])
    # A vector has none.
    columns = shape[-1] if shape is not None and len(shape) > 1 else None
    scales = _ordered(match["first"], match["second"], columns)
    if scales is None:
        return False
    last, bias = node, None
    add = only_user(node.outputs[0], ("Add",))
    if add is not None:
        other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
        array = constant(other)
        if array is not None and array.shape == (columns,):
            last, bias = add, other
    zeros = [*match.nodes["product"].inputs[2:], None, None][:2]
    fused = rewriter.node(
        "MatMulIntegerToFloat", [match["a"], match["b"], *scales, *zeros, bias], domain=MICROSOFT
    )
    return rewriter.replace(last, [fused])


def _ordered(
    first: ir.Value, second: ir.Value, columns: int | str | None
) -> tuple[ir.Value, ir.Value] | None:
    """The scale of `a`, which is one, and that of `b`, which may be one per column."""
    for a, b in ((first, second), (second, first)):
        one, other = known_shape(a), known_shape(b)
        if one in ((), (1,)) and (other in ((), (1,)) or (other == (columns,) and columns)):
            return a, b
    return None
