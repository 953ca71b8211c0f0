"""Removes nodes whose result is their input.

    x -> Slice(all of it) -> y -> A      =>      x -> A

1. Slice of all of every axis.                      6. Add or Sub of 0, Mul or Div by 1, Pow of 1.
2. Pad by nothing.                                  7. Sum, Mean, Max, Min, Concat of one input.
3. Expand to the shape that `x` has already.        8. Split into one.
4. Tile once.                                       9. A Concat loses inputs without elements.
5. Dropout that is not in training.

Not rewritten when the result is wider than `x`, or might be: its shape is not sure, and the
constant has more dimensions than `x`; when a Dropout's mask is used.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, integers, scalar
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["remove_neutral"]

# A Slice from 0 to here takes all of an axis: exporters write such numbers for "to the end".
_FAR = (1 << 31) - 1
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Pow": 1.0}


def remove_neutral(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Removes nodes that compute their input; returns whether there were any."""
    return rewrite(model, target, [*_RULES, "Concat"], _remove)


def _remove(rewriter: Rewriter, node: ir.Node) -> bool:
    if node.op_type == "Concat" and _drop_empty(node):
        return True
    rule = _RULES.get(node.op_type)
    k = None if rule is None else rule(node)
    value = None if k is None else node.inputs[k]
    if value is None or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    return rewriter.bypass(node, value)


def _input(node: ir.Node, k: int) -> ir.Value | None:
    return node.inputs[k] if k < len(node.inputs) else None


def _same_shape(node: ir.Node, k: int) -> bool:
    shape = known_shape(node.inputs[k])
    return shape is not None and None not in shape and shape == known_shape(node.outputs[0])


def _slice(node: ir.Node) -> int | None:
    if _same_shape(node, 0) and (node.version or 1) < 10:
        return 0
    if (node.version or 1) >= 10:
        steps = _input(node, 4)
        if steps is not None and (integers(steps) is None or set(integers(steps) or ()) != {1}):
            return None
        if _same_shape(node, 0):
            return 0
        starts, ends = integers(node.inputs[1]), integers(node.inputs[2])
    else:
        starts, ends = (list(node.attributes[name].as_ints()) for name in ("starts", "ends"))
    whole = starts is not None and ends is not None and not any(starts)
    return 0 if whole and min(ends or [_FAR]) >= _FAR else None


def _pad(node: ir.Node) -> int | None:
    name = "pads" if "pads" in node.attributes else "paddings"
    if name in node.attributes:
        pads: list[int] | None = list(node.attributes[name].as_ints())
    else:
        pads = integers(_input(node, 1))
    return 0 if pads is not None and not any(pads) else None


def _expand(node: ir.Node) -> int | None:
    sizes = integers(node.inputs[1])
    shape = known_shape(node.inputs[0])
    if _same_shape(node, 0):
        return 0
    ones = sizes is not None and set(sizes) <= {1}
    return 0 if ones and shape is not None and len(sizes or ()) <= len(shape) else None


def _tile(node: ir.Node) -> int | None:
    repeats = integers(node.inputs[1])
    return 0 if (node.version or 1) >= 6 and repeats is not None and set(repeats) <= {1} else None


def _dropout(node: ir.Node) -> int | None:
    version = node.version or 1
    if version < 7:
        return 0 if node.attributes.get_int("is_test", 0) else None
    training = _input(node, 2)
    off = training is None or (scalar(training) == 0.0)
    return 0 if version < 12 or off else None


def _arithmetic(node: ir.Node) -> int | None:
    neutral = _NEUTRAL[node.op_type]
    for k, other in ((0, 1), (1, 0)) if node.op_type in ("Add", "Mul") else ((0, 1),):
        term, x = node.inputs[other], node.inputs[k]
        if term is None or x is None or x.dtype != node.outputs[0].dtype:
            continue
        if scalar(term) != neutral:
            continue
        array, shape = constant(term), known_shape(x)
        if array is not None and (array.ndim == 0 or (shape and array.ndim <= len(shape))):
            return k
    return None


def _single(node: ir.Node) -> int | None:
    return 0 if len(node.inputs) == 1 else None


def _split(node: ir.Node) -> int | None:
    return 0 if len(node.outputs) == 1 else None


def _drop_empty(node: ir.Node) -> bool:
    """Case 9."""
    axis = node.attributes.get_int("axis", 1)
    kept = [value for value in node.inputs if not _is_empty(value, axis)]
    if not kept or len(kept) == len(node.inputs):
        return False
    for k, value in enumerate(kept):
        node.replace_input_with(k, value)
    node.resize_inputs(len(kept))
    return True


def _is_empty(value: ir.Value | None, axis: int) -> bool:
    shape = known_shape(value)
    return shape is not None and -len(shape) <= axis < len(shape) and shape[axis] == 0


_RULES: dict[str, Callable[[ir.Node], int | None]] = {
    "Slice": _slice, "Pad": _pad, "Expand": _expand, "Tile": _tile, "Dropout": _dropout,
    "Sum": _single, "Mean": _single, "Max": _single, "Min": _single, "Concat": _single,
    "Split": _split, **dict.fromkeys(_NEUTRAL, _arithmetic),
}  # fmt: skip
