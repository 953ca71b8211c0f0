"""Recognises rotary embedding, as Llama has it, in its parts.

    y = x * cos + concat(-x2, x1) * sin      =>      y = RotaryEmbedding(x, positions, cos, sin)

`x1` and `x2` are the halves of the last axis of `x` (batch, heads, n, size).

1. Cosines and sines are rows of constant tables, taken by positions (batch, n): the tables, cut
   to half their columns, and the positions are inputs.
2. They are computed of positions, twice the same columns side by side, for (batch, n): they are
   the tables themselves, with a row for each position. What is one batch is there for all.

The result is com.microsoft:RotaryEmbedding; it is moved before the columns are split into heads
where that is possible, so that attention still finds them. Not rewritten when the two halves of a
table differ, sizes are not known, or a value inside has another user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.heads import heads_of
from ortolan.passes.matching import constant, integers, scalar
from ortolan.passes.pattern import Match, Pattern
from ortolan.passes.reshapes import axes_of
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.sizes import Element
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_rotary"]

_SUM = """
    negative = Neg(second)
    rotated = Concat(negative, first)
    left = Mul(x, cos)
    right = Mul(rotated, sin)
    y = Add(left, right)
"""
_SLICES = Pattern(f"""
    first = Slice(x, s0, e0, a0, ...)
    second = Slice(x, s1, e1, a1, ...)
    {_SUM}
""")
_SPLIT = Pattern(f"""
    first = Split(x, ...)
    {_SUM.replace("second", "first.1")}
""")
# Range and Slice as they are used here.
_OLDEST = 13


@dataclass(frozen=True)
class _Table:
    """Rows of cosines or sines: a constant and who takes rows, or values (batch, n, size).

    `place`: the axis of n, which is 2 where the values have an axis for heads.
    """

    rows: ir.Value
    positions: ir.Value | None
    place: int = 1


def fuse_rotary(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises rotary embedding; returns whether there was any."""
    return rewrite(model, target, ["Add"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    match = _SPLIT.match(node) or _SLICES.match(node)
    if match is None or rewriter.model.opset_imports.get("", 0) < _OLDEST:
        return False
    x, shape = match["x"], known_shape(match["x"])
    size = shape[-1] if shape is not None and len(shape) == 4 else None
    if not isinstance(size, int) or size % 2 or not _halves(match, size):
        return False
    cos, sin = _table(match["cos"], "Cos", size), _table(match["sin"], "Sin", size)
    if cos is None or sin is None or cos.positions is not sin.positions:
        return False
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    nodes: list[ir.Node] = []
    if cos.positions is not None:
        if not _for_each(cos.positions, x):
            return False
        positions = cos.positions
        tables = [_half_of_constant(rewriter, graph, t.rows, size) for t in (cos, sin)]
    else:
        if not _for_each(cos.rows, x, cos.place) or not _for_each(sin.rows, x, sin.place):
            return False
        positions = _places(rewriter, graph, nodes, cos)
        tables = [_half_of_rows(rewriter, graph, nodes, t.rows, size) for t in (cos, sin)]
    if any(table is None for table in tables):
        return False
    one = (known_shape(cos.positions or cos.rows) or (None,))[0] == 1
    if one and (known_shape(x) or (None,))[0] != 1:
        positions = _for_batch(rewriter, graph, nodes, positions, x)
    _embed(rewriter, nodes, x, [positions, *tables])
    return rewriter.replace(node, nodes)


def _embed(
    rewriter: Rewriter, nodes: list[ir.Node], x: ir.Value, more: list[ir.Value | None]
) -> None:
    """Appends the embedding, before the columns become heads where they do."""
    heads = heads_of(x)
    transpose = x.producer()
    if heads is None or heads.part is not None or heads.scale != 1.0 or transpose is None:
        nodes.append(rewriter.node("RotaryEmbedding", [x, *more], domain=MICROSOFT))
        return
    embedding = rewriter.node("RotaryEmbedding", [heads.source, *more], domain=MICROSOFT)
    nodes.append(embedding)
    value = embedding.outputs[0]
    way = [transpose]
    while way[-1].inputs[0] is not heads.source:
        before = way[-1].inputs[0]
        producer = before.producer() if before is not None else None
        assert producer is not None
        way.append(producer)
    for old in reversed(way):
        copy = rewriter.node(
            old.op_type, [value, *old.inputs[1:]], dict(old.attributes.items()),
            version=old.version,
        )  # fmt: skip
        nodes.append(copy)
        value = copy.outputs[0]


def _halves(match: Match, size: int) -> bool:
    """Whether the parts are the first and the second half of the last axis."""
    last = (-1, 3)
    if match.nodes["rotated"].attributes.get_int("axis", 0) not in last:
        return False
    first = match.nodes["first"]
    if first.op_type == "Split":
        parts = integers(first.inputs[1]) if len(first.inputs) > 1 else [size // 2] * 2
        equal = parts == [size // 2] * 2 and len(first.outputs) == 2
        return equal and first.attributes.get_int("axis", 0) in last
    for name, begin in (("0", 0), ("1", size // 2)):
        starts, ends, axes = (integers(match[f"{key}{name}"]) for key in "sea")
        if starts != [begin] or axes is None or len(axes) != 1 or axes[0] not in last:
            return False
        if ends is None or min(ends[0], size) != begin + size // 2:
            return False
    steps = [node.inputs[4] for node in (first, match.nodes["second"]) if len(node.inputs) > 4]
    return all(step is None or integers(step) == [1] for step in steps)


def _table(value: ir.Value, function: str, size: int) -> _Table | None:
    """Where cosines or sines (batch, 1, n, size) come from."""
    node = value.producer()
    if node is None or node.op_type != "Unsqueeze" or axes_of(node) != [1]:
        shape = known_shape(value)
        headless = shape is not None and len(shape) == 4 and (shape[1], shape[3]) == (1, size)
        return _Table(value, None, 2) if headless and _is_twice(value, function) else None
    rows = node.inputs[0]
    shape = known_shape(rows)
    if rows is None or shape is None or len(shape) != 3 or shape[-1] != size:
        return None
    gather = rows.producer()
    if gather is not None and (gather.domain, gather.op_type) == ("", "Gather"):
        table, positions = gather.inputs
        whole = _whole(table)
        if whole is None or positions is None or positions.dtype != ir.DataType.INT64:
            return None
        return _Table(whole, positions) if gather.attributes.get_int("axis", 0) == 0 else None
    return _Table(rows, None) if _is_twice(rows, function) else None


def _whole(table: ir.Value | None) -> ir.Value | None:
    """The constant that a table is, or begins."""
    node = table.producer() if table is not None else None
    if node is not None and (node.domain, node.op_type) == ("", "Slice"):
        starts, axes = integers(node.inputs[1]), [0]
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            axes = integers(node.inputs[3]) or []
        steps = node.inputs[4] if len(node.inputs) > 4 else None
        if starts != [0] or axes != [0] or (steps is not None and integers(steps) != [1]):
            return None
        table = node.inputs[0]
    array = constant(table)
    return table if array is not None and array.ndim == 2 else None


def _is_twice(rows: ir.Value, function: str) -> bool:
    """Whether rows are a function of the same columns twice, perhaps scaled."""
    value: ir.Value | None = rows
    found, twice = False, False
    while value is not None and not (found and twice):
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type == function and not found:
            found = True
        elif node.op_type == "Concat" and not twice:
            last = len(known_shape(value) or ()) - 1
            if len(node.inputs) != 2 or node.attributes.get_int("axis", 0) not in (-1, last):
                return False
            twice = node.inputs[0] is node.inputs[1]
            if not twice:
                return False
        elif node.op_type == "Mul":
            if scalar(node.inputs[1]) is None:
                return False
        elif node.op_type != "Cast" and (node.op_type != "Unsqueeze" or axes_of(node) != [1]):
            return False
        value = node.inputs[0]
    return found and twice


def _for_each(value: ir.Value, x: ir.Value, place: int = 1) -> bool:
    """Whether a value begins with the batch, or one, and the places of `x`.

    It is enough if the model calls them so.
    """
    sizes, wanted = known_shape(value), known_shape(x)
    if sizes is None or wanted is None or len(sizes) < 2:
        return False
    batch = sizes[0] == 1 or _same(value, 0, sizes, x, 0, wanted)
    return batch and _same(value, place, sizes, x, 2, wanted)


def _same(
    a: ir.Value, axis: int, sizes: tuple[int | str | None, ...],
    b: ir.Value, place: int, wanted: tuple[int | str | None, ...],
) -> bool:  # fmt: skip
    """Sizes are equal, or have the same name in the model; the kernel checks them."""
    if sizes[axis] is not None and sizes[axis] == wanted[place]:
        return True
    names: list[Element | None] = []
    for value, k in ((a, axis), (b, place)):
        size = None if value.shape is None or k >= len(value.shape) else value.shape[k]
        names.append(size.value if isinstance(size, ir.SymbolicDim) else size)
    return names[0] is not None and names[0] == names[1]


def _half_of_constant(
    rewriter: Rewriter, graph: ir.Graph, table: ir.Value, size: int
) -> ir.Value | None:
    array = constant(table)
    if array is None or array.shape[1] != size:
        return None
    left, right = array[:, : size // 2], array[:, size // 2 :]
    if not np.array_equal(left, right):
        return None
    return rewriter.constant(graph, np.ascontiguousarray(left), f"{table.name}_half")


def _half_of_rows(
    rewriter: Rewriter, graph: ir.Graph, nodes: list[ir.Node], rows: ir.Value, size: int
) -> ir.Value:
    """(batch, n, size) as a table (batch * n, size / 2)."""
    bounds = [_integers(rewriter, graph, [k]) for k in (0, size // 2, -1)]
    half = rewriter.node("Slice", [rows, *bounds])
    shape = _integers(rewriter, graph, [-1, size // 2])
    table = rewriter.node("Reshape", [half.outputs[0], shape])
    nodes.extend((half, table))
    return table.outputs[0]


def _places(rewriter: Rewriter, graph: ir.Graph, nodes: list[ir.Node], table: _Table) -> ir.Value:
    """For each of (batch, n) its row in such a table."""
    shape = rewriter.node("Shape", [table.rows])
    chosen = _integers(rewriter, graph, [0, table.place])
    sizes = rewriter.node("Gather", [shape.outputs[0], chosen], {"axis": 0})
    count = rewriter.node("ReduceProd", [sizes.outputs[0]], {"keepdims": 0})
    ends = [rewriter.constant(graph, np.array(k, np.int64), "number") for k in (0, 1)]
    numbers = rewriter.node("Range", [ends[0], count.outputs[0], ends[1]])
    places = rewriter.node("Reshape", [numbers.outputs[0], sizes.outputs[0]])
    nodes.extend((shape, sizes, count, numbers, places))
    return places.outputs[0]


def _for_batch(
    rewriter: Rewriter, graph: ir.Graph, nodes: list[ir.Node], positions: ir.Value, x: ir.Value
) -> ir.Value:
    """Positions (1, n) for all of the batch."""
    shape = rewriter.node("Shape", [x])
    batch = rewriter.node(
        "Gather", [shape.outputs[0], _integers(rewriter, graph, [0])], {"axis": 0}
    )
    sizes = rewriter.node(
        "Concat", [batch.outputs[0], _integers(rewriter, graph, [1])], {"axis": 0}
    )
    wide = rewriter.node("Expand", [positions, sizes.outputs[0]])
    nodes.extend((shape, batch, sizes, wide))
    return wide.outputs[0]


def _integers(rewriter: Rewriter, graph: ir.Graph, numbers: list[int]) -> ir.Value:
    return rewriter.constant(graph, np.array(numbers, np.int64), "numbers")
