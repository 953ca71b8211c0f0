"""How attention splits columns into heads, and how it joins them again.

    x (batch, n, heads * size) -> Reshape (batch, n, heads, size) -> Transpose (0, 2, 1, 3)

A value with heads of its own, (batch, heads, n, size), is traced to columns of a value. Exporters
that compute query, key and value in one product split them in several ways: they are found too.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, integers, only_user, scalar
from ortolan.passes.reshapes import axes_of
from ortolan.passes.transposes import order_of

__all__ = ["Heads", "heads_of", "joined_heads", "swapped_heads"]

_SPLIT = [0, 2, 1, 3]


@dataclass(frozen=True)
class Heads:
    """Columns of a value that are seen as heads.

    Attributes:
        source: (batch, n, columns).
        count: how many heads.
        size: columns per head.
        part: which third of the columns they are; None for all of them.
        scale: a factor on the way.
    """

    source: ir.Value
    count: int
    size: int
    part: int | None = None
    scale: float = 1.0


def heads_of(value: ir.Value | None) -> Heads | None:
    """Traces (batch, heads, n, size) back to columns, None if it is something else."""
    shape = known_shape(value)
    node = _only(value)
    if shape is None or node is None or len(shape) != 4:
        return None
    count, size = shape[1], shape[3]
    if not isinstance(count, int) or not isinstance(size, int):
        return None
    if node.op_type in ("Mul", "Div") and value is not None:
        return _scaled(node)
    if node.op_type == "Transpose" and order_of(node) == _SPLIT:
        inner = _only(node.inputs[0])
        if inner is None or inner.op_type != "Reshape":
            return None
        return _columns(inner.inputs[0], (shape[0], shape[2]), count, size)
    if node.op_type == "Reshape" and 1 in (shape[1], shape[2]):
        # Where an axis has size 1, moving it is a Reshape, too.
        return _columns(node.inputs[0], (shape[0], shape[2]), count, size)
    return _packed(node, count, size)


def swapped_heads(value: ir.Value | None) -> tuple[ir.Value | None, Heads | None]:
    """Traces (batch, heads, size, n), as a product with a query needs it, back to columns.

    Returns:
        What is there before the last two axes are swapped, if that is a value of its own; and
        the heads.
    """
    node = _only(value)
    if node is None or node.op_type != "Transpose":
        return None, None
    order = order_of(node)
    if order == [0, 1, 3, 2]:
        return node.inputs[0], heads_of(node.inputs[0])
    inner = _only(node.inputs[0])
    shape = known_shape(node.inputs[0])
    if order != [0, 2, 3, 1] or inner is None or inner.op_type != "Reshape" or shape is None:
        return None, None
    count, size = shape[2], shape[3]
    if not isinstance(count, int) or not isinstance(size, int):
        return None, None
    return None, _columns(inner.inputs[0], (shape[0], shape[1]), count, size)


def joined_heads(value: ir.Value, query: Heads) -> ir.Node | None:
    """The Reshape that joins (batch, heads, n, size) to (batch, n, heads * size), None without."""
    heads, size = query.count, query.size
    shape = known_shape(value)
    node = only_user(value, ("Transpose", "Reshape"))
    if shape is None or len(shape) != 4 or node is None:
        return None
    if node.op_type == "Transpose":
        if order_of(node) != _SPLIT:
            return None
        node = only_user(node.outputs[0], ("Reshape",))
    elif shape[1] != 1 and shape[2] != 1:
        return None
    joined = known_shape(node.outputs[0]) if node is not None else None
    if joined is None or len(joined) != 3 or joined[2] != heads * size:
        return None
    # With the columns, one more size tells the third. The batch may be named as the query's.
    batch = (shape[0], (known_shape(query.source) or (None,))[0])
    return node if joined[0] in batch or joined[1] == shape[2] or _copies(node) else None


def _copies(node: ir.Node | None) -> bool:
    """Whether a Reshape keeps the first axis: with the last one, that tells them all."""
    shape = integers(node.inputs[1]) if node is not None else None
    return shape is not None and shape[0] == 0


def _only(value: ir.Value | None) -> ir.Node | None:
    """The standard node that computes a value."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" else None


def _columns(
    x: ir.Value | None, sizes: tuple[int | str | None, int | str | None], count: int, size: int
) -> Heads | None:
    shape = known_shape(x)
    if x is None or shape is None or len(shape) != 3 or shape[2] != count * size:
        return None
    return Heads(x, count, size) if shape[0] == sizes[0] or shape[1] == sizes[1] else None


def _scaled(node: ir.Node) -> Heads | None:
    """Heads times a number."""
    for k in (0, 1) if node.op_type == "Mul" else (1,):
        number, array = scalar(node.inputs[k]), constant(node.inputs[k])
        value = node.inputs[1 - k]
        if number is None or array is None or array.ndim > 4 or not number:
            continue
        heads = heads_of(value)
        if heads is None or value is None or only_user(value, (node.op_type,)) is not node:
            return None
        factor = number if node.op_type == "Mul" else 1 / number
        return Heads(heads.source, heads.count, heads.size, heads.part, heads.scale * factor)
    return None


def _packed(node: ir.Node, count: int, size: int) -> Heads | None:
    """A third of x (batch, n, 3 * heads * size) -> (3, batch, heads, n, size)."""
    part, packed = _third(node)
    transpose = _only(packed)
    if part is None or transpose is None or transpose.op_type != "Transpose":
        return None
    reshape = _only(transpose.inputs[0])
    if order_of(transpose) != [2, 0, 3, 1, 4] or reshape is None or reshape.op_type != "Reshape":
        return None
    x, shape = reshape.inputs[0], known_shape(transpose.inputs[0])
    columns = known_shape(x)
    if x is None or shape is None or columns is None or len(columns) != 3:
        return None
    if shape[2:] != (3, count, size) or columns[2] != 3 * count * size:
        return None
    if shape[0] != columns[0] and shape[1] != columns[1]:
        return None
    return Heads(x, count, size, part)


def _third(node: ir.Node) -> tuple[int | None, ir.Value | None]:
    """Which entry of the first axis, of which value, a node takes."""
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
        index = scalar(node.inputs[1])
        array = constant(node.inputs[1])
        if index is None or array is None or array.ndim:
            return None, None
        return int(index) % 3, node.inputs[0]
    if node.op_type != "Squeeze" or axes_of(node) != [0]:
        return None, None
    split = _only(node.inputs[0])
    if split is None or split.op_type != "Split" or split.attributes.get_int("axis", 0) != 0:
        return None, None
    value = node.inputs[0]
    if value is None or len(split.outputs) != 3:
        return None, None
    return value.index(), split.inputs[0]
