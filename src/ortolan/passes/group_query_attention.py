"""Recognises attention whose heads of the query share fewer heads of key and value.

    q -> heads ------------------------> MatMul -> scale -> mask -> Softmax -> MatMul -> join -> y
    k -> heads -> (past, k) -> repeat -----^           v -> heads -> (past, v) -> repeat --^

        =>      q, k, v, past -> GroupQueryAttention -> y, present

1. Heads are repeated by Unsqueeze, Expand or Tile, and Reshape (`repeat_kv` of Llama), or by a
   Gather of the same numbers several times.
2. A mask that is added is the bias; unless it surely has all queries and keys, it is expanded.
3. A Where by a lower triangle is what the operator does by itself, and so is no mask where there
   is one query. With any other mask, or none, the node is told not to be causal.
4. Keys and values that are appended to those of the past: they are inputs of the node, and what
   is new of them outputs. Who asks for their shape gets it from the past and the query.

The result is com.microsoft:GroupQueryAttention. Not rewritten when each head of the query has
its own (that is `attention`), sizes are not known, a value inside has another user, or, for
onnxruntime, several queries of several batches have a past: its kernel refuses them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.attention import scores_of, take_present
from ortolan.passes.attention_mask import Mask
from ortolan.passes.dimensions import Dimensions
from ortolan.passes.heads import Heads, heads_of, joined_heads
from ortolan.passes.matching import integers, scalar
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.sizes import Element
from ortolan.passes.target import ORTOLAN, Target
from ortolan.passes.transposes import order_of

__all__ = ["fuse_group_query_attention"]

# Axes of repeated heads, batch and rows, and where they are while heads have two axes.
_KEPT = ((0, 0), (2, 3))


@dataclass(frozen=True)
class _Rows:
    """Heads, which are columns of their source, or, as a whole, (batch, heads, n, size)."""

    heads: Heads
    whole: bool = False


@dataclass(frozen=True)
class _Shared:
    """Keys or values: the new ones, those of the past, and both together before they repeat."""

    new: _Rows
    past: ir.Value | None = None
    present: ir.Value | None = None
    scale: float = 1.0


def fuse_group_query_attention(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises attention with shared keys and values; returns whether there was any."""
    return rewrite(model, target, ["Softmax"], _fuse)


def _fuse(rewriter: Rewriter, softmax: ir.Node) -> bool:
    scores = scores_of(softmax)
    if scores is None:
        return False
    product, context, mask = scores.product, scores.context, scores.mask
    rows = _rows(product.inputs[0])
    if rows is None:
        return False
    query = rows.heads
    keys, values = _keys(product.inputs[1], query), _shared(context.inputs[1], query)
    if keys is None or values is None or not _agree(query, keys, values):
        return False
    last = joined_heads(context.outputs[0], query)
    if last is None or not _served(rewriter, rows, keys):
        return False
    told = [_tell_shapes(rewriter, item) for item in (keys, values)]
    presents = {item.present for item in (keys, values) if item.present is not None}
    if _is_behind(mask.bias or mask.term, presents):
        return any(told)
    scale = scores.scale * query.scale * keys.scale
    return _replace(rewriter, last, rows, (keys, values), mask, scale) or any(told)


def _keys(value: ir.Value | None, query: Heads) -> _Shared | None:
    """Keys as the product needs them, (batch, heads, size, n), perhaps with a factor."""
    scale = 1.0
    node = _only(value)
    if node is not None and node.op_type == "Mul":
        k = 0 if scalar(node.inputs[0]) is not None else 1
        factor, rank = scalar(node.inputs[k]), len(known_shape(node.inputs[k]) or ())
        if not factor or rank > 4:
            return None
        scale, node = factor, _only(node.inputs[1 - k])
    if node is None or node.op_type != "Transpose" or order_of(node) != [0, 1, 3, 2]:
        return None
    found = _shared(node.inputs[0], query)
    return None if found is None else _Shared(found.new, found.past, found.present, scale)


def _rows(value: ir.Value | None) -> _Rows | None:
    heads = heads_of(value)
    if heads is not None and heads.part is None:
        return _Rows(heads)
    shape = known_shape(value)
    if value is None or shape is None or len(shape) != 4:
        return None
    count, size = shape[1], shape[3]
    if not isinstance(count, int) or not isinstance(size, int):
        return None
    return _Rows(Heads(value, count, size), whole=True)


def _shared(value: ir.Value | None, query: Heads) -> _Shared | None:
    """Values, or keys before their axes are swapped: (batch, heads, n, size)."""
    source = _repeated(value, query)
    if source is None:
        return None
    node = _only(source)
    if node is None or node.op_type != "Concat":
        rows = _rows(source)
        return None if rows is None or rows.heads.scale != 1.0 else _Shared(rows)
    if node.attributes.get_int("axis", 0) not in (-2, 2) or len(node.inputs) != 2:
        return None
    past, rows = node.inputs[0], _rows(node.inputs[1])
    shape = known_shape(past)
    if rows is None or rows.heads.scale != 1.0 or shape is None or len(shape) != 4:
        return None
    return _Shared(rows, past, source)


def _repeated(value: ir.Value | None, query: Heads) -> ir.Value | None:
    """What each of several heads of the query has a copy of: (batch, fewer heads, n, size)."""
    node, shape = _only(value), known_shape(value)
    if node is None or shape is None or len(shape) != 4:
        return None
    if (shape[1], shape[3]) != (query.count, query.size):
        return None
    if node.op_type == "Gather":
        return _gathered(node, query)
    many = _only(node.inputs[0]) if node.op_type == "Reshape" else None
    one = _only(many.inputs[0]) if many is not None and many.op_type in ("Expand", "Tile") else None
    if many is None or one is None or one.op_type not in ("Unsqueeze", "Reshape"):
        return None
    source = one.inputs[0]
    old, middle = known_shape(source), known_shape(one.outputs[0])
    wide = known_shape(many.outputs[0])
    if old is None or middle is None or wide is None or len(old) != 4:
        return None
    batch, count, n, size = old
    if not isinstance(count, int) or count < 1 or size != query.size or query.count % count:
        return None
    if None in (batch, n) or middle != (batch, count, 1, n, size):
        return None
    asked: tuple[Element, ...] = ()
    if many.op_type == "Tile":
        same = integers(many.inputs[1]) == [1, 1, query.count // count, 1, 1]
    else:
        asked = Dimensions().elements(many.inputs[1]) or ()
        # Values may get the keys' sizes: the kernel checks that both have the same.
        open_ = [
            new if isinstance(old, str) and isinstance(new, str) else old
            for old, new in ((batch, wide[0]), (n, wide[3]))
        ]
        same = wide == (open_[0], count, query.count // count, open_[1], size)
    # With heads and sizes, one more size tells the other.
    told = [shape[axis] in (wide[place], *asked[place : place + 1]) for axis, place in _KEPT]
    return source if same and any(told) else None


def _gathered(node: ir.Node, query: Heads) -> ir.Value | None:
    shape, numbers = known_shape(node.inputs[0]), integers(node.inputs[1])
    if node.attributes.get_int("axis", 0) not in (1, -3) or shape is None or numbers is None:
        return None
    count = shape[1]
    if not isinstance(count, int) or count < 1 or query.count % count:
        return None
    times = query.count // count
    return node.inputs[0] if numbers == [k // times for k in range(query.count)] else None


def _only(value: ir.Value | None) -> ir.Node | None:
    """The standard node that computes a value."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" else None


def _agree(query: Heads, keys: _Shared, values: _Shared) -> bool:
    k, v = keys.new.heads, values.new.heads
    if (k.count, k.size) != (v.count, v.size) or k.size != query.size or k.count == query.count:
        return False
    return (keys.past is None) == (values.past is None)


def _axis(rows: _Rows) -> int:
    """Which axis of the source counts the rows of heads."""
    return 2 if rows.whole else 1


def _count(rows: _Rows) -> int | str | None:
    shape = known_shape(rows.heads.source)
    return None if shape is None else shape[_axis(rows)]


def _served(rewriter: Rewriter, rows: _Rows, keys: _Shared) -> bool:
    """Whether the target has a kernel, which takes such a batch."""
    source = rows.heads.source
    if source.dtype is None or not rewriter.target.supports(
        MICROSOFT, "GroupQueryAttention", 1, {"T": source.dtype}
    ):
        return False
    if rewriter.target is ORTOLAN:
        return True
    batch = (known_shape(source) or (None,))[0]
    some = keys.past is None or batch == 1 or _count(rows) == 1
    return some and rows.heads.size % 8 == 0


def _replace(
    rewriter: Rewriter,
    last: ir.Node,
    rows: _Rows,
    shared: tuple[_Shared, _Shared],
    mask: Mask,
    scale: float,
) -> bool:
    keys, values = shared
    query, one = rows.heads, _count(rows) == 1
    made = _Maker(rewriter, last)
    total = made.total(keys)
    lengths = made.node("Sub", [total, made.numbers(1)])
    lengths = made.node("Expand", [lengths, made.size(query.source, 0)])
    bias = mask.bias if mask.bias is not None else mask.term
    if bias is not None and (mask.stretches or mask.padding is not None):
        queries = made.size(query.source, _axis(rows))
        sizes = made.node("Concat", [made.numbers(1, 1), queries, total], axis=0)
        bias = made.node("Expand", [bias, sizes])
    node = rewriter.node(
        "GroupQueryAttention",
        [
            made.columns(rows), made.columns(keys.new), made.columns(values.new), keys.past,
            values.past,
            made.narrow(lengths), made.narrow(total), None, None, None, bias,
        ],
        {
            "num_heads": query.count, "kv_num_heads": keys.new.heads.count, "scale": scale,
            "causal": None if mask.causal or one else 0,
        },
        domain=MICROSOFT, outputs=3,
    )  # fmt: skip
    for value in node.outputs[1:]:
        value.type = ir.TensorType(query.source.dtype or ir.DataType.FLOAT)
    made.nodes.append(node)
    if not rewriter.replace(last, made.nodes, outputs=[node.outputs[0]]):
        return False
    for item, result in zip(shared, node.outputs[1:], strict=True):
        if item.present is not None:
            take_present(rewriter, node, item.present, result)
    return True


def _tell_shapes(rewriter: Rewriter, item: _Shared) -> bool:
    """Computes the shape of the present from what is before it; returns whether any asked."""
    concat = item.present.producer() if item.present is not None else None
    asking = (
        []
        if item.present is None
        else [
            use.node
            for use in item.present.uses()
            if (use.node.domain, use.node.op_type) == ("", "Shape")
        ]
    )
    if concat is None or item.past is None or not asking:
        return False
    made = _Maker(rewriter, concat)
    sizes = [
        made.size(item.past, 0), made.numbers(item.new.heads.count), made.total(item),
        made.numbers(item.new.heads.size),
    ]  # fmt: skip
    shapes = []
    for node in asking:
        end = node.attributes.get_int("end", len(sizes))
        some = sizes[node.attributes.get_int("start", 0) : end]
        shapes.append(made.node("Concat", some, axis=0))
    made.graph.insert_before(concat, made.nodes)
    for node, shape in zip(asking, shapes, strict=True):
        rewriter.bypass(node, shape)
    return True


def _is_behind(value: ir.Value | None, sources: set[ir.Value]) -> bool:
    """Whether a value depends on others."""
    pending, seen = [value], set[ir.Value]()
    while pending:
        item = pending.pop()
        if item is None or item in seen:
            continue
        if item in sources:
            return True
        seen.add(item)
        node = item.producer()
        pending.extend(node.inputs if node is not None else ())
    return False


@dataclass
class _Maker:
    """Makes the nodes that stand before the new one."""

    rewriter: Rewriter
    last: ir.Node

    def __post_init__(self) -> None:
        self.nodes: list[ir.Node] = []
        assert isinstance(self.last.graph, ir.Graph)
        self.graph = self.last.graph

    def node(self, name: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        made = self.rewriter.node(name, inputs, attributes)
        self.nodes.append(made)
        return made.outputs[0]

    def numbers(self, *numbers: int) -> ir.Value:
        return self.rewriter.constant(self.graph, np.array(numbers, np.int64), "numbers")

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """One size of a value, as a list."""
        shape = self.node("Shape", [value])
        return self.node("Gather", [shape, self.numbers(axis)], axis=0)

    def total(self, item: _Shared) -> ir.Value:
        """How many keys there are, as a list."""
        new = self.size(item.new.heads.source, _axis(item.new))
        return new if item.past is None else self.node("Add", [self.size(item.past, 2), new])

    def columns(self, rows: _Rows) -> ir.Value:
        """(batch, n, heads * size)."""
        source = rows.heads.source
        if not rows.whole:
            return source
        shape = self.numbers(0, 0, rows.heads.count * rows.heads.size)
        transpose = self.rewriter.node("Transpose", [source], {"perm": [0, 2, 1, 3]})
        self.nodes.append(transpose)
        return self.node("Reshape", [transpose.outputs[0], shape])

    def narrow(self, value: ir.Value) -> ir.Value:
        return self.node("Cast", [value], to=int(ir.DataType.INT32))
