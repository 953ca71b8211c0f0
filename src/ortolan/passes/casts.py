"""Removes Cast nodes that change nothing, and joins two in a row.

    x (float) -> Cast(to float) -> y       =>      x
    x -> Cast(to A) -> Cast(to B) -> y     =>      x -> Cast(to B) -> y

1. The input has the type already.
2. Of two in a row the first goes if A holds every value of the type of `x`.

Not rewritten when the first of two rounds or wraps (float -> int -> float), or a type is none of
the usual numbers.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["simplify_casts"]

_INTEGER_BITS = {
    ir.DataType.BOOL: (0, 1), ir.DataType.UINT8: (0, 8), ir.DataType.UINT16: (0, 16),
    ir.DataType.UINT32: (0, 32), ir.DataType.UINT64: (0, 64), ir.DataType.INT8: (1, 7),
    ir.DataType.INT16: (1, 15), ir.DataType.INT32: (1, 31), ir.DataType.INT64: (1, 63),
}  # fmt: skip
"""Whether there is a sign, and the bits beside it."""

_FLOAT_BITS = {
    ir.DataType.FLOAT16: (11, 5), ir.DataType.BFLOAT16: (8, 8), ir.DataType.FLOAT: (24, 8),
    ir.DataType.DOUBLE: (53, 11),
}  # fmt: skip
"""Bits of the significand and of the exponent."""


def simplify_casts(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Removes and joins Cast nodes; returns whether there were any."""
    return rewrite(model, target, ["Cast"], _simplify)


def _simplify(rewriter: Rewriter, node: ir.Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if x is None or x.dtype is None or y.dtype is None:
        return False
    if x.dtype == y.dtype:
        return rewriter.bypass(node, x)
    first = x.producer()
    if first is None or (first.domain, first.op_type) != ("", "Cast"):
        return False
    source = first.inputs[0]
    if source is None or source.dtype is None or not _holds(x.dtype, source.dtype):
        return False
    if y.dtype not in _INTEGER_BITS and y.dtype not in _FLOAT_BITS:
        return False
    return rewriter.replace(
        node, [rewriter.node("Cast", [source], {"to": int(y.dtype)}, version=node.version)]
    )


def _holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether every value of a type is one of another."""
    if wide == narrow:
        return True
    if narrow in _INTEGER_BITS:
        sign, bits = _INTEGER_BITS[narrow]
        if wide in _FLOAT_BITS:
            return bits <= _FLOAT_BITS[wide][0] and bits < 1 << (_FLOAT_BITS[wide][1] - 1)
        return wide in _INTEGER_BITS and wide != ir.DataType.BOOL and (
            _INTEGER_BITS[wide][0] >= sign and _INTEGER_BITS[wide][1] >= bits
        )  # fmt: skip
    if narrow not in _FLOAT_BITS or wide not in _FLOAT_BITS:
        return False
    return all(w >= n for w, n in zip(_FLOAT_BITS[wide], _FLOAT_BITS[narrow], strict=True))
