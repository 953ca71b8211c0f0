"""Joins two Concat, or two Slice, in a row.

    a -> Concat -> Concat -> y      =>      a -> Concat -> y
    b ---^      c ---^                      b, c --^

    x -> Slice(axis 0) -> Slice(axis 1) -> y      =>      x -> Slice(axes 0, 1) -> y

1. A Concat that is an input of another one along the same axis: its inputs take its place.
2. A Slice of other axes than the one before it, both with constant bounds.

Not rewritten when what is between the two has another user, axes are not given or negative, or
both Slice take a part of the same axis.
"""

from __future__ import annotations

import operator

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import integers, only_user
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["join_movements"]

_INPUTS = ("starts", "ends", "axes", "steps")


def join_movements(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Joins Concat and Slice nodes; returns whether there were any."""
    return rewrite(model, target, ("Concat", "Slice"), _join)


def _join(rewriter: Rewriter, node: ir.Node) -> bool:
    return _concat(rewriter, node) if node.op_type == "Concat" else _slice(rewriter, node)


def _concat(rewriter: Rewriter, node: ir.Node) -> bool:
    """Takes in all that lies before the last of several in a row: each of them once."""
    axis = node.attributes.get_int("axis", 1)
    behind = only_user(node.outputs[0], ("Concat",))
    if behind is not None and behind.attributes.get_int("axis", 1) == axis:
        return False
    inputs: list[ir.Value | None] = []
    pending = list(reversed(node.inputs))
    while pending:
        value = pending.pop()
        first = value.producer() if value is not None else None
        if (
            value is not None
            and first is not None
            and (first.domain, first.op_type) == ("", "Concat")
            and first.attributes.get_int("axis", 1) == axis
            and only_user(value, ("Concat",)) is not None
        ):
            pending.extend(reversed(first.inputs))
        else:
            inputs.append(value)
    if len(inputs) == len(node.inputs) and all(map(operator.is_, inputs, node.inputs)):
        return False
    # A node whose inputs are replaced one by one takes the square of their number.
    joined = rewriter.node("Concat", inputs, dict(node.attributes.items()), version=node.version)
    joined.name = node.name
    return rewriter.replace(node, [joined])


def _slice(rewriter: Rewriter, node: ir.Node) -> bool:
    x = node.inputs[0]
    first = x.producer() if x is not None else None
    if x is None or first is None or (first.domain, first.op_type) != ("", "Slice"):
        return False
    before, after = _bounds(first), _bounds(node)
    if before is None or after is None or only_user(x, ("Slice",)) is not node:
        return False
    axes = before["axes"] + after["axes"]
    if (
        min(axes, default=-1) < 0
        or len(set(axes)) != len(axes)
        or not isinstance(node.graph, ir.Graph)
    ):
        return False
    joined = {name: before[name] + after[name] for name in _INPUTS}
    if (node.version or 1) < 10:
        del joined["steps"]
        both = rewriter.node("Slice", [first.inputs[0]], joined, version=node.version)
        return rewriter.replace(node, [both])
    name = node.outputs[0].name
    constants = [
        rewriter.constant(node.graph, np.array(numbers, np.int64), f"{name}_{key}")
        for key, numbers in joined.items()
    ]
    both = rewriter.node("Slice", [first.inputs[0], *constants], version=node.version)
    return rewriter.replace(node, [both])


def _bounds(node: ir.Node) -> dict[str, list[int]] | None:
    """The constant bounds of a Slice by name; None where they are computed or axes left out."""
    found: dict[str, list[int]] = {}
    for k, name in enumerate(_INPUTS, start=1):
        if name in node.attributes:
            found[name] = list(node.attributes[name].as_ints())
            continue
        value = node.inputs[k] if k < len(node.inputs) else None
        numbers = integers(value)
        if value is None and name == "steps" and "starts" in found:
            numbers = [1] * len(found["starts"])
        if numbers is None:
            return None
        found[name] = numbers
    return found
