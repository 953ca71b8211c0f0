"""Removes nodes that only change shapes and change nothing, and joins two in a row.

    x -> Reshape -> Reshape(shape) -> y                =>      x -> Reshape(shape) -> y
    x -> Unsqueeze(axes) -> Squeeze(axes) -> y         =>      x

1. A Reshape, Flatten, Squeeze or Unsqueeze whose result surely has the shape of its input.
2. A Reshape to a constant shape without a 0 needs none of these before it.
3. A Reshape to sizes that are all known, but computed, gets them as a constant.
4. A Squeeze and an Unsqueeze in a row with the same axes, in any order.
5. Two Unsqueeze, or two Squeeze, in a row become one.

Not rewritten when a shape is not sure, axes are left out or computed, or (2, 5) what is between
the two has another user.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import integers, only_user
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["axes_of", "simplify_reshapes", "squeezing"]

# More than any tensor has.
_MOST_DIMS = 64
_KINDS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def simplify_reshapes(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Removes and joins nodes that change shapes; returns whether there were any."""
    return rewrite(model, target, _KINDS, _simplify)


def axes_of(node: ir.Node) -> list[int] | None:
    """Returns the axes of a Squeeze or Unsqueeze, None if they are left out, none or computed."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints()) or None
    return (integers(node.inputs[1]) or None) if len(node.inputs) > 1 else None


def squeezing(rewriter: Rewriter, node: ir.Node, x: ir.Value, axes: list[int]) -> ir.Node:
    """A new node of the kind and version of a Squeeze or Unsqueeze, with other axes."""
    assert isinstance(node.graph, ir.Graph)
    if (node.version or 1) < 13:
        return rewriter.node(node.op_type, [x], {"axes": axes}, version=node.version)
    name = f"{node.outputs[0].name}_axes"
    constant = rewriter.constant(node.graph, np.array(axes, np.int64), name)
    return rewriter.node(node.op_type, [x, constant], version=node.version)


def _simplify(rewriter: Rewriter, node: ir.Node) -> bool:
    x = node.inputs[0]
    if x is None:
        return False
    before, after = known_shape(x), known_shape(node.outputs[0])
    same = before is not None and before == after and None not in before
    if same and rewriter.bypass(node, x):
        return True
    if node.op_type == "Reshape":
        return _fix_shape(rewriter, node, after) or _skip(rewriter, node, x)
    if node.op_type in ("Squeeze", "Unsqueeze"):
        return _join(rewriter, node, x)
    return False


def _fix_shape(
    rewriter: Rewriter, node: ir.Node, shape: tuple[int | str | None, ...] | None
) -> bool:
    """Case 3."""
    if len(node.inputs) < 2 or shape is None or not isinstance(node.graph, ir.Graph):
        return False
    if integers(node.inputs[1]) is not None or not all(
        isinstance(size, int) and size > 0 for size in shape
    ):
        return False
    name = f"{node.outputs[0].name}_shape"
    constant = rewriter.constant(node.graph, np.array(shape, np.int64), name)
    node.replace_input_with(1, constant)
    return True


def _skip(rewriter: Rewriter, node: ir.Node, x: ir.Value) -> bool:
    """Case 2."""
    first = x.producer()
    shape = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if first is None or first.domain or first.op_type not in _KINDS or shape is None:
        return False
    if 0 in shape or only_user(x, ("Reshape",)) is not node or first.inputs[0] is None:
        return False
    node.replace_input_with(0, first.inputs[0])
    assert isinstance(first.graph, ir.Graph)
    first.graph.remove(first, safe=True)
    return True


def _join(rewriter: Rewriter, node: ir.Node, x: ir.Value) -> bool:
    """Cases 4 and 5."""
    first = x.producer()
    if first is None or first.domain or first.op_type not in ("Squeeze", "Unsqueeze"):
        return False
    inner, outer = axes_of(first), axes_of(node)
    source = first.inputs[0]
    if inner is None or outer is None or source is None or min(inner + outer, default=0) < 0:
        return False
    if first.op_type != node.op_type:
        return sorted(inner) == sorted(outer) and rewriter.bypass(node, source)
    if only_user(x, (node.op_type,)) is not node or max(inner + outer, default=0) >= _MOST_DIMS:
        return False
    # The outer axes count places with those of both, or (Squeeze) without the inner ones.
    last = max(inner + outer) + len(inner) + len(outer) + 1
    taken = outer if node.op_type == "Unsqueeze" else inner
    left = [k for k in range(last) if k not in taken]
    moved = inner if node.op_type == "Unsqueeze" else outer
    axes = sorted([*taken, *(left[k] for k in moved)])
    return rewriter.replace(node, [squeezing(rewriter, node, source, axes)])
