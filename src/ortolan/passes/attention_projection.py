"""Computes query, key and value within the attention that uses them.

    x -> MatMul, Add -> q --.
    x -> MatMul, Add -> k --> MultiHeadAttention -> y      =>      x -> Attention -> y
    x -> MatMul, Add -> v --'

1. Three products of the same value with constant weights; either all of them have a constant
   bias, or none. (BERT)
2. One product that is split in three. (GPT-2, ViT)
3. The past of keys and of values, taken from one value, and the present, joined to one, as GPT-2
   has them: an input and an output.

Not rewritten when query, key or value has another user, weights are of different sizes, or only
one of past and present is of one value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user, scalar
from ortolan.passes.reshapes import axes_of
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_attention_projection"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Projection:
    """Columns that are x * weights + bias."""

    x: ir.Value
    weights: ir.Value
    bias: ir.Value | None


def fuse_attention_projection(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves projections into attention; returns whether there were any."""
    return rewrite(model, target, [f"{MICROSOFT}:MultiHeadAttention"], _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    given: list[ir.Value | None] = [*node.inputs, *[None] * (10 - len(node.inputs))]
    q, k, v, bias, padding, attention_bias, past_key, past_value, *more = given
    if bias is not None or any(value is not None for value in more):
        return False
    found = _merged(q, k, v) or _separate(rewriter, node, (q, k, v))
    if found is None:
        return False
    past: ir.Value | None = None
    joined: ir.Node | None = None
    if past_key is not None or len(node.outputs) > 1:
        past, joined = _past(past_key, past_value), _present(node)
        if past is None or joined is None:
            return False
    attributes = {
        name: node.attributes[name]
        for name in ("num_heads", "scale", "unidirectional", "mask_filter_value")
        if name in node.attributes
    }
    attention = rewriter.node(
        "Attention", [found.x, found.weights, found.bias, padding, past, attention_bias],
        attributes, domain=MICROSOFT, outputs=1 if joined is None else 2,
    )  # fmt: skip
    if not rewriter.replace(node, [attention], outputs=[attention.outputs[0]]):
        return False
    return joined is None or rewriter.bypass(joined, attention.outputs[1])


def _merged(q: ir.Value | None, k: ir.Value | None, v: ir.Value | None) -> _Projection | None:
    """Case 2."""
    split = q.producer() if q is not None else None
    if split is None or (split.domain, split.op_type) != ("", "Split") or len(split.outputs) != 3:
        return None
    thirds = list(split.outputs)
    if any(value is not third for value, third in zip((q, k, v), thirds, strict=True)):
        return None
    columns = {(known_shape(value) or (None,))[-1] for value in thirds}
    rank = len(known_shape(split.inputs[0]) or ())
    last = split.attributes.get_int("axis", 0) in (-1, rank - 1)
    if not last or len(columns) != 1 or any(len(list(value.uses())) != 1 for value in thirds):
        return None
    return _projection(split.inputs[0])


def _projection(value: ir.Value | None) -> _Projection | None:
    """What columns with one user are a product of."""
    node = value.producer() if value is not None else None
    if node is None or value is None or node.domain or value.is_graph_output():
        return None
    if len(list(value.uses())) != 1:
        return None
    bias: ir.Value | None = None
    if node.op_type == "Add":
        for product, term in (tuple(node.inputs), tuple(node.inputs)[::-1]):
            array = constant(term)
            if product is not None and array is not None and array.ndim == 1:
                node, bias = product.producer(), term
                if only_user(product, ("Add",)) is None:
                    return None
                break
    if node is None or (node.domain, node.op_type) != ("", "MatMul"):
        return None
    x, weights = node.inputs
    array, shape = constant(weights), known_shape(x)
    if x is None or weights is None or array is None or array.ndim != 2 or shape is None:
        return None
    if len(shape) != 3 or (bias is not None and known_shape(bias) != array.shape[1:]):
        return None
    return _Projection(x, weights, bias)


def _separate(
    rewriter: Rewriter, node: ir.Node, values: tuple[ir.Value | None, ...]
) -> _Projection | None:
    """Case 1."""
    parts = [_projection(value) for value in values]
    known = [part for part in parts if part is not None]
    if len(known) != 3 or any(part.x is not known[0].x for part in known):
        return None
    weights = [constant(part.weights) for part in known]
    biases = [constant(part.bias) for part in known if part.bias is not None]
    shapes = {None if array is None else (array.shape, array.dtype) for array in weights}
    if len(shapes) != 1 or len(biases) not in (0, 3):
        return None
    graph, name = node.graph, node.outputs[0].name
    assert isinstance(graph, ir.Graph)
    joined = rewriter.constant(graph, _side_by_side(weights), f"{name}_weights")
    bias = None
    if biases:
        bias = rewriter.constant(graph, _side_by_side(biases), f"{name}_bias")
    return _Projection(known[0].x, joined, bias)


def _side_by_side(arrays: list[Array | None]) -> Array:
    return np.concatenate([array for array in arrays if array is not None], axis=-1)


def _past(key: ir.Value | None, value: ir.Value | None) -> ir.Value | None:
    """The one value that both of the past are taken from."""
    sources = []
    for part, index in ((key, 0), (value, 1)):
        node = part.producer() if part is not None else None
        if node is None or (node.domain, node.op_type) != ("", "Gather"):
            return None
        if node.attributes.get_int("axis", 0) != 0 or scalar(node.inputs[1]) != index:
            return None
        sources.append(node.inputs[0])
    shape = known_shape(sources[0])
    same = sources[0] is sources[1] and shape is not None and len(shape) == 5 and shape[0] == 2
    return sources[0] if same else None


def _present(node: ir.Node) -> ir.Node | None:
    """The Concat that alone uses what is new of both."""
    if len(node.outputs) != 3:
        return None
    sides = []
    for value in node.outputs[1:]:
        unsqueeze = _user(value, "Unsqueeze")
        if unsqueeze is None or axes_of(unsqueeze) != [0]:
            return None
        sides.append(unsqueeze.outputs[0])
    concat = _user(sides[0], "Concat")
    if concat is None or concat.attributes.get_int("axis", 1) != 0:
        return None
    if len(concat.inputs) != 2 or any(
        given is not side for given, side in zip(concat.inputs, sides, strict=True)
    ):
        return None
    return concat if _user(sides[1], "Concat") is concat else None


def _user(value: ir.Value, operator: str) -> ir.Node | None:
    """The one user of a value, if it is a standard operator in the same graph."""
    return only_user(value, (operator,))
