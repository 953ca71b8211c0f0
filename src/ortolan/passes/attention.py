"""Recognises attention with several heads in its parts.

    q -> heads -> MatMul -> scale -> mask -> Softmax -> MatMul -> join -> y
    k -> heads ----^                         v -> heads -^

        =>      q, k, v -> MultiHeadAttention -> y

1. Query, key and value have columns of their own, or are thirds of one value (ViT), with the
   scale on the query, the key, or the product (BERT, Whisper).
2. A mask that is added is the bias; unless it surely has all queries and keys, it is expanded.
3. A mask (1 - m) * number with m (batch, keys) of integers, as BERT makes it, is the mask of
   keys: m is 1 for keys to look at, and 0 for others.
4. A Where by a lower triangle, as GPT-2 has it, and a constant mask that is one: unidirectional.
5. Keys and values that are appended to those of the past: they are inputs of the node, and what
   is new of them outputs.
6. Keys and values that already are (batch, heads, n, size), such as those of Llama, which come
   from rotary embedding or are repeated for groups of queries, are inputs as they are.

The result is com.microsoft:MultiHeadAttention. Not rewritten when numbers of heads and columns
are not known, the mask is another one, or a value inside has another user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.attention_mask import Mask, mask_of
from ortolan.passes.heads import Heads, heads_of, joined_heads, swapped_heads
from ortolan.passes.matching import constant, only_user, scalar
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target
from ortolan.passes.transposes import order_of

__all__ = ["Scores", "fuse_attention", "scores_of", "take_present"]


@dataclass(frozen=True)
class _Keys:
    """Keys or values: the new ones, those of the past, and both together as (.., n, size)."""

    heads: Heads
    past: ir.Value | None = None
    present: tuple[ir.Value, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Scores:
    """What stands around a Softmax: (query x keys) * scale + mask, and (Softmax x values)."""

    product: ir.Node
    context: ir.Node
    mask: Mask
    scale: float


def fuse_attention(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises attention; returns whether there was any."""
    return rewrite(model, target, ["Softmax"], _fuse)


def _fuse(rewriter: Rewriter, softmax: ir.Node) -> bool:
    scores = scores_of(softmax)
    if scores is None:
        return False
    product, context = scores.product, scores.context
    query, keys, values = (
        heads_of(product.inputs[0]), _keys(product.inputs[1]), _values(context.inputs[1])
    )  # fmt: skip
    if query is not None and (keys is None or values is None):
        keys, values = _whole_keys(product.inputs[1], query), _whole(context.inputs[1], query)
    if query is None or keys is None or values is None or not _agree(query, keys, values):
        return False
    last = joined_heads(context.outputs[0], query)
    if last is None:
        return False
    scale = scores.scale * query.scale * keys.heads.scale
    return _replace(rewriter, last, (query, keys, values), scores.mask, scale)


def scores_of(softmax: ir.Node) -> Scores | None:
    """The products around a Softmax over the keys; None where it is not that of attention."""
    x = softmax.inputs[0]
    shape = known_shape(x)
    default = -1 if (softmax.version or 1) >= 13 else 1
    if x is None or shape is None or len(shape) != 4:
        return None
    if softmax.attributes.get_int("axis", default) not in (-1, 3):
        return None
    context = only_user(softmax.outputs[0], ("MatMul",))
    if context is None or context.inputs[0] is not softmax.outputs[0]:
        return None
    mask, rest = mask_of(x)
    product, scale = _product_of_scores(rest)
    if product is None or mask is None:
        return None
    return Scores(product, context, mask, scale)


def _product_of_scores(value: ir.Value | None) -> tuple[ir.Node | None, float]:
    """The product of query and key behind factors, and the factors."""
    scale = 1.0
    node = value.producer() if value is not None else None
    while node is not None and node.domain == "" and node.op_type in ("Mul", "Div"):
        k = 0 if node.op_type == "Mul" and scalar(node.inputs[0]) is not None else 1
        number, array = scalar(node.inputs[k]), constant(node.inputs[k])
        value = node.inputs[1 - k]
        if not number or array is None or array.ndim > 4 or value is None:
            return None, 1.0
        if only_user(value, (node.op_type,)) is not node:
            return None, 1.0
        scale *= number if node.op_type == "Mul" else 1 / number
        node = value.producer()
    if node is None or (node.domain, node.op_type) != ("", "MatMul"):
        return None, 1.0
    return node, scale


def _keys(value: ir.Value | None) -> _Keys | None:
    """Keys as the product needs them: (batch, heads, size, n)."""
    inner, heads = swapped_heads(value)
    if heads is not None:
        return _Keys(heads)
    if inner is not None:
        # The past was put in front before the last axes are swapped.
        return _values(inner)
    node = value.producer() if value is not None else None
    if value is None or node is None or (node.domain, node.op_type) != ("", "Concat"):
        return None
    if node.attributes.get_int("axis", 0) not in (-1, 3) or len(node.inputs) != 2:
        return None
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    _, heads = swapped_heads(node.inputs[1])
    if before is None or before.op_type != "Transpose" or order_of(before) != [0, 1, 3, 2]:
        return None
    if heads is None:
        return None
    present = []
    for user in (use.node for use in value.uses()):
        if user.op_type == "Transpose" and order_of(user) == [0, 1, 3, 2]:
            present.append(user.outputs[0])
        elif user.op_type != "MatMul":
            return None
    return _Keys(heads, before.inputs[0], tuple(present))


def _values(value: ir.Value | None) -> _Keys | None:
    """Values, or keys before their axes are swapped: (batch, heads, n, size)."""
    heads = heads_of(value)
    if heads is not None:
        return _Keys(heads)
    node = value.producer() if value is not None else None
    if value is None or node is None or (node.domain, node.op_type) != ("", "Concat"):
        return None
    if node.attributes.get_int("axis", 0) not in (-2, 2) or len(node.inputs) != 2:
        return None
    heads = heads_of(node.inputs[1])
    return None if heads is None else _Keys(heads, node.inputs[0], (value,))


def _whole(value: ir.Value | None, query: Heads) -> _Keys | None:
    """Keys or values (batch, heads, n, size), as they are."""
    shape = known_shape(value)
    if value is None or shape is None or len(shape) != 4 or query.part is not None:
        return None
    if (shape[1], shape[3]) != (query.count, query.size):
        return None
    return _Keys(Heads(value, query.count, query.size), whole=True)


def _whole_keys(value: ir.Value | None, query: Heads) -> _Keys | None:
    """Keys whose last two axes are swapped, perhaps with a factor."""
    node = value.producer() if value is not None else None
    scale = 1.0
    if node is not None and node.domain == "" and node.op_type == "Mul":
        k = 0 if scalar(node.inputs[0]) is not None else 1
        number, array = scalar(node.inputs[k]), constant(node.inputs[k])
        source = node.inputs[1 - k]
        if not number or array is None or array.ndim > 4 or source is None:
            return None
        scale, node = number, source.producer()
    if node is None or (node.domain, node.op_type) != ("", "Transpose"):
        return None
    found = _whole(node.inputs[0], query) if order_of(node) == [0, 1, 3, 2] else None
    if found is None:
        return None
    heads = Heads(found.heads.source, query.count, query.size, scale=scale)
    return _Keys(heads, whole=True)


def _agree(query: Heads, keys: _Keys, values: _Keys) -> bool:
    """Whether the three belong to one attention that the operator has."""
    parts = (query.part, keys.heads.part, values.heads.part)
    if parts not in ((None, None, None), (0, 1, 2)):
        return False
    sources = (query.source, keys.heads.source, values.heads.source)
    if parts[0] is not None and any(source is not sources[0] for source in sources):
        return False
    same = (query.count, query.size) == (keys.heads.count, keys.heads.size)
    if not same or values.heads.count != query.count or values.heads.scale != 1.0:
        return False
    if (keys.past is None) != (values.past is None):
        return False
    # The joined columns are the query's.
    return values.heads.size == query.size


def _replace(
    rewriter: Rewriter,
    last: ir.Node,
    parts: tuple[Heads, _Keys, _Keys],
    mask: Mask,
    scale: float,
) -> bool:
    query, keys, values = parts
    if mask.stretches and keys.past is not None:
        return False
    nodes: list[ir.Node] = []
    q, k, v = query.source, keys.heads.source, values.heads.source
    graph = last.graph
    assert isinstance(graph, ir.Graph)
    if query.part is not None:
        split = _split(rewriter, graph, q, query.count * query.size)
        nodes.append(split)
        q, k, v = split.outputs
    bias = mask.bias
    if bias is not None and mask.stretches:
        bias = _stretched(rewriter, graph, nodes, bias, (q, k, 2 if keys.whole else 1))
    padding = mask.padding
    if padding is not None and padding.dtype != ir.DataType.INT32:
        cast = rewriter.node("Cast", [padding], {"to": int(ir.DataType.INT32)})
        nodes.append(cast)
        padding = cast.outputs[0]
    attributes: Mapping[str, object] = {
        "num_heads": query.count,
        "scale": scale,
        "unidirectional": 1 if mask.causal else None,
        "mask_filter_value": mask.filtered if padding is not None else None,
    }
    attention = rewriter.node(
        "MultiHeadAttention",
        [q, k, v, None, padding, bias, keys.past, values.past],
        attributes, domain=MICROSOFT, outputs=1 if keys.past is None else 3,
    )  # fmt: skip
    for value in attention.outputs[1:]:
        value.type = ir.TensorType(q.dtype) if q.dtype else value.type
    nodes.append(attention)
    if not rewriter.replace(last, nodes, outputs=[attention.outputs[0]]):
        return False
    for present, result in zip((keys, values), attention.outputs[1:], strict=False):
        for value in present.present:
            take_present(rewriter, attention, value, result)
    return True


def _stretched(
    rewriter: Rewriter,
    graph: ir.Graph,
    nodes: list[ir.Node],
    bias: ir.Value,
    sources: tuple[ir.Value, ir.Value, int],
) -> ir.Value:
    """A bias with all queries and keys: `sources` tell them, keys along the given axis."""
    query, key, axis = sources
    sizes = [rewriter.constant(graph, np.array([1, 1], np.int64), "ones")]
    for value, place in ((query, 1), (key, axis)):
        shape = rewriter.node("Shape", [value])
        index = rewriter.constant(graph, np.array([place], np.int64), "place")
        size = rewriter.node("Gather", [shape.outputs[0], index], {"axis": 0})
        nodes.extend((shape, size))
        sizes.append(size.outputs[0])
    wanted = rewriter.node("Concat", sizes, {"axis": 0})
    expanded = rewriter.node("Expand", [bias, wanted.outputs[0]])
    nodes.extend((wanted, expanded))
    return expanded.outputs[0]


def _split(rewriter: Rewriter, graph: ir.Graph, x: ir.Value, columns: int) -> ir.Node:
    """Thirds of the columns of a value."""
    version = rewriter.version("", "Split") or 13
    if version < 13:
        return rewriter.node("Split", [x], {"axis": 2, "split": [columns] * 3}, outputs=3)
    sizes = rewriter.constant(graph, np.array([columns] * 3, np.int64), f"{x.name}_parts")
    return rewriter.node("Split", [x, sizes], {"axis": 2}, outputs=3)


def take_present(rewriter: Rewriter, attention: ir.Node, value: ir.Value, result: ir.Value) -> None:
    """Gives the users of what was appended to the past the output of the node.

    Those that come before it are moved behind it, with all that depends on them.
    """
    producer, graph = value.producer(), attention.graph
    assert producer is not None and isinstance(graph, ir.Graph)
    rewriter.bypass(producer, result)
    late = {result}
    moved = []
    for node in graph:
        if node is attention:
            break
        if any(source in late for source in node.inputs):
            moved.append(node)
            late.update(node.outputs)
    graph.remove(moved)
    graph.insert_after(attention, moved)
