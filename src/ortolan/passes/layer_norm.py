"""Recognises LayerNormalization in its parts.

    d = x - mean(x)
    y = d / sqrt(mean(d * d) + epsilon) * scale + bias      =>      y = LayerNormalization(x)

1. As frameworks write it: the difference is squared by Pow or Mul, and divided, or multiplied by
   a reciprocal.
2. As TensorFlow writes it: y = x * r + (bias - mean(x) * r), with r the scale over the root.
3. Without a bias.

The means are over the last axes, and scale and bias are constants of just those sizes. Before
opset 17 it is the operator that onnxruntime had in ai.onnx ahead of the standard.

Not rewritten when sizes of these axes are not known, or a value inside has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user, reduced_axes, scalar
from ortolan.passes.pattern import Match, Pattern
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["epsilon_of", "fuse_layer_norm", "trailing_axis"]

_VARIANCE = """
    mean = ReduceMean(x, ...)
    centred = Sub(x, mean)
    square = Pow(centred, 2.0)
    variance = ReduceMean(square, ...)
    shifted = Add(variance, epsilon)
    root = Sqrt(shifted)
"""
_VARIANCE_BY_MUL = _VARIANCE.replace("Pow(centred, 2.0)", "Mul(centred, centred)")
_QUOTIENT = """
    normal = Div(centred, root)
    y = Mul(normal, scale)
"""
_PRODUCT = """
    factor = Reciprocal(root)
    normal = Mul(centred, factor)
    y = Mul(normal, scale)
"""
_WITHOUT_BIAS = [
    Pattern(variance + end)
    for variance in (_VARIANCE, _VARIANCE_BY_MUL)
    for end in (_QUOTIENT, _PRODUCT)
]
# The difference is the other way round there, which its square does not tell.
_TENSORFLOW = [
    Pattern(
        f"""
    mean = ReduceMean(x, ...)
    centred = Sub({difference})
    square = Mul(centred, centred)
    variance = ReduceMean(square, ...)
    shifted = Add(variance, epsilon)
    root = Sqrt(shifted)
    inverse = Reciprocal(root)
    factor = Mul(inverse, scale)
    scaled = Mul(x, factor)
    moved = Mul(mean, factor)
    offset = Sub(bias, moved)
    y = Add(scaled, offset)
    """
    )
    for difference in ("x, mean", "mean, x")
]


def fuse_layer_norm(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Recognises layer normalization; returns whether there was any."""
    return rewrite(model, target, ["Mul", "Add"], _fuse)


def trailing_axis(reduction: ir.Node, scale: ir.Value) -> int | None:
    """The first of the last axes that a reduction is over, counted from the end.

    None if there are others, or the scale is no constant of their sizes.
    """
    x = known_shape(reduction.inputs[0])
    axes = reduced_axes(reduction)
    factors = constant(scale)
    if x is None or not axes or factors is None or not reduction.attributes.get_int("keepdims", 1):
        return None
    places = sorted(axis % len(x) for axis in axes)
    if places != list(range(len(x) - len(places), len(x))):
        return None
    return -len(places) if factors.shape == x[places[0] :] else None


def epsilon_of(match: Match) -> float | None:
    """The number that is added to the variance, None if it is none, or makes it wider."""
    array, shape = constant(match["epsilon"]), known_shape(match["x"])
    if array is None or shape is None or array.ndim > len(shape):
        return None
    return scalar(match["epsilon"])


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    if node.op_type == "Add":
        found = next((m for p in _TENSORFLOW if (m := p.match(node))), None)
        return found is not None and _replace(rewriter, node, found, found["bias"])
    found = next((m for p in _WITHOUT_BIAS if (m := p.match(node))), None)
    if found is None:
        return False
    add = only_user(node.outputs[0], ("Add",))
    if add is not None:
        other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
        bias, scale = constant(other), constant(found["scale"])
        if bias is not None and scale is not None and bias.shape == scale.shape:
            return _replace(rewriter, add, found, other)
    return _replace(rewriter, node, found, None)


def _replace(rewriter: Rewriter, last: ir.Node, match: Match, bias: ir.Value | None) -> bool:
    axis = trailing_axis(match.nodes["mean"], match["scale"])
    epsilon = epsilon_of(match)
    if (
        axis is None
        or epsilon is None
        or not match.nodes["variance"].attributes.get_int("keepdims", 1)
        or reduced_axes(match.nodes["mean"]) != reduced_axes(match.nodes["variance"])
    ):
        return False
    if bias is not None and known_shape(bias) != known_shape(match["scale"]):
        return False
    norm = rewriter.node(
        "LayerNormalization", [match["x"], match["scale"], bias],
        {"axis": axis, "epsilon": epsilon},
    )  # fmt: skip
    return rewriter.replace(last, [norm])
