"""What the scores of attention are masked with, before Softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.dimensions import Dimensions
from ortolan.passes.matching import constant, only_user, scalar
from ortolan.passes.pattern import Pattern
from ortolan.passes.reshapes import axes_of
from ortolan.passes.sizes import subtract

__all__ = ["Mask", "mask_of"]


@dataclass(frozen=True)
class Mask:
    """A mask; all None: there is none.

    Attributes:
        bias: what is added to the scores.
        padding: integers (batch, keys), 1 for keys to look at.
        filtered: what is added where the padding is 0.
        stretches: the bias may have 1 instead of the numbers of queries and keys.
        term: what is added for the padding.
        causal: a query sees the keys up to its own.
    """

    bias: ir.Value | None = None
    padding: ir.Value | None = None
    filtered: float = 0.0
    causal: bool = False
    stretches: bool = False
    term: ir.Value | None = None


_PADDING = Pattern("""
    number! = Cast?(wide)
    inverse! = Sub(1.0, number)
    y = Mul(inverse, filtered)
""")
_TRIANGLE = Pattern("""
    some! = Slice(triangle, s0, e0, ...)
    all! = Slice(some, s1, e1, ...)
    flags! = Cast?(all)
    y = Where(flags, scores, filtered)
""")
# As Pattern does: what is between two Slice may have been joined to one.
_JOINED_TRIANGLE = Pattern("""
    all! = Slice(triangle, s0, e0, ...)
    flags! = Cast?(all)
    y = Where(flags, scores, filtered)
""")
# Axes that make (batch, 1, 1, keys) of (batch, keys), in one step or one after the other.
_MIDDLE = ([1, 2], [1, 1])
# Lower than any score: what is there after Softmax is 0.
_LOW = -1000.0


def mask_of(x: ir.Value) -> tuple[Mask | None, ir.Value | None]:
    """Finds the mask in front of a Softmax.

    Args:
        x: what the Softmax gets, (batch, heads, queries, keys).

    Returns:
        The mask, None if it is one that attention has not, and the scores before it.
    """
    node = x.producer()
    if node is None or node.domain:
        return None, None
    if node.op_type == "Where":
        return _causal(node)
    if node.op_type != "Add":
        return Mask(), x
    for scores, other in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        if scores is None or other is None or only_user(scores, ("Add",)) is not node:
            continue
        source = scores.producer()
        if source is None or source.op_type not in ("MatMul", "Mul", "Div"):
            continue
        mask = _added(scores, other)
        if mask is not None:
            return mask, scores
    return None, None


def _added(scores: ir.Value, other: ir.Value) -> Mask | None:
    wanted, given = known_shape(scores), known_shape(other)
    if wanted is None or given is None or len(given) != 4:
        return None
    same = [_same_size(scores, other, axis) for axis in range(4)]
    if same[2] and same[3] and all(same[k] or given[k] == 1 for k in (0, 1)):
        return Mask(bias=other)
    # The operator has a mask for all of the batch and all keys; one that is stretched is a bias.
    stretched = any(given[k] == 1 and not same[k] for k in (0, 3))
    padding = None if stretched else _padding(other)
    if padding is not None or not all(same[k] or given[k] == 1 for k in (0, 1)):
        return padding
    return Mask(bias=other, stretches=True)


def _same_size(a: ir.Value, b: ir.Value, axis: int) -> bool:
    """Whether sizes are surely equal, or the model calls them by the same name.

    The kernel checks the shape of a bias: where names lie there is an error, no wrong result.
    """
    sizes = [(known_shape(value) or ())[axis] for value in (a, b)]
    if sizes[0] == sizes[1] and sizes[0] is not None:
        return True
    names = [None if v.shape is None else v.shape[axis] for v in (a, b)]
    symbols = [name.value for name in names if isinstance(name, ir.SymbolicDim)]
    return len(symbols) == 2 and symbols[0] is not None and symbols[0] == symbols[1]


def _padding(value: ir.Value) -> Mask | None:
    """Case 3 of `attention`."""
    node = value.producer()
    match = None if node is None else _PADDING.match(node)
    filtered = None if match is None else scalar(match["filtered"])
    if match is None or filtered is None or filtered > _LOW:
        return None
    wide: ir.Value | None = match["wide"]
    axes: list[int] = []
    # (batch, keys) got its middle axes by one Unsqueeze, or two.
    for _ in range(2):
        unsqueeze = wide.producer() if wide is not None else None
        if unsqueeze is None or unsqueeze.op_type != "Unsqueeze":
            break
        axes = [*sorted(axes_of(unsqueeze) or []), *axes]
        wide = unsqueeze.inputs[0]
    shape = known_shape(wide)
    if wide is None or shape is None or len(shape) != 2 or axes not in _MIDDLE:
        return None
    integer = wide.dtype in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)
    return Mask(padding=wide, filtered=filtered, term=value) if integer else None


def _causal(node: ir.Node) -> tuple[Mask | None, ir.Value | None]:
    """Case 4 of `attention`."""
    two, one = _TRIANGLE.match(node), _JOINED_TRIANGLE.match(node)
    match = two or one
    if match is None:
        return None, None
    scores, filtered = match["scores"], scalar(match["filtered"])
    shape, triangle = known_shape(scores), constant(match["triangle"])
    if filtered is None or filtered > _LOW or shape is None or triangle is None:
        return None, None
    if len(shape) != 4 or not _is_only_user(scores, node):
        return None, None
    if triangle.ndim != 4 or triangle.shape[2] != triangle.shape[3]:
        return None, None
    if not np.array_equal(triangle != 0, np.tril(np.ones(triangle.shape, bool))):
        return None, None
    bounds = [match[name] for name in ("s0", "e0", *(("s1", "e1") if two else ()))]
    found = [Dimensions().elements(value) for value in bounds]
    queries, keys = shape[2], shape[3]
    if queries is None or keys is None:
        return None, None
    starts = (subtract(keys, queries), 0)
    wanted = [(starts[0],), (keys,), (0,), (keys,)] if two else [starts, (keys, keys)]
    if [tuple(item) if item is not None else None for item in found] != wanted:
        return None, None
    return Mask(causal=True), scores


def _is_only_user(value: ir.Value, node: ir.Node) -> bool:
    """Whether a value is used by a node and by nodes that ask for its shape only."""
    return not value.is_graph_output() and all(
        use.node is node or use.node.op_type == "Shape" for use in value.uses()
    )
