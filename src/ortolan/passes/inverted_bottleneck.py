"""Computes a depthwise convolution together with the 1x1 convolutions around it.

    x -> Conv 1x1 -> Conv depthwise -> Conv 1x1 -> y      =>      x -> InvertedBottleneck -> y

1. All three, or the last two: ai.ortolan:InvertedBottleneck, with the activations of each, and what
   is added to the last one. The first two alone gain nothing.
2. Large images only: there the values in between are worth keeping out of memory; in small ones
   weights would be read once per strip of rows.

Not rewritten when weights are computed, the image is small or of unknown size, the depthwise
convolution has another multiplier than 1 or dilations, or a value in between has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant
from ortolan.passes.rewriting import MICROSOFT, OWN, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_inverted_bottleneck"]

_SMALLEST = 28  # pixels of a side, as measured
_CONVOLUTIONS = ("Conv", f"{MICROSOFT}:FusedConv", f"{OWN}:FusedConv")
_SPATIAL = ("auto_pad", "dilations", "pads", "strides")


def fuse_inverted_bottleneck(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Joins depthwise convolutions with their neighbours; returns whether there were any."""
    return rewrite(model, target, _CONVOLUTIONS, _fuse)


def _fuse(rewriter: Rewriter, depthwise: ir.Node) -> bool:
    x, weights, bias, added = _inputs(depthwise)
    if not _is_depthwise(depthwise) or not _is_large(x) or added is not None:
        return False
    expand, project = _before(depthwise), _next(depthwise)
    if project is None:
        return False
    _, expand_weights, expand_bias, _ = _inputs(expand)
    _, project_weights, project_bias, last_added = _inputs(project)
    attributes = {
        name: depthwise.attributes[name] for name in _SPATIAL if name in depthwise.attributes
    }
    fused = rewriter.node(
        "InvertedBottleneck",
        [
            expand.inputs[0] if expand is not None else x, weights, bias, last_added,
            expand_weights, expand_bias, project_weights, project_bias,
        ],
        attributes | _activation(expand, "expand") | _activation(depthwise, "depthwise")
        | _activation(project, "project"),
        domain=OWN,
    )  # fmt: skip
    return rewriter.replace(project, [fused])


def _inputs(node: ir.Node | None) -> tuple[ir.Value | None, ...]:
    """X, W, B, Z of a convolution; None for what it lacks."""
    given = tuple(node.inputs) if node is not None else ()
    return (*given, *[None] * 4)[:4]


def _is_large(x: ir.Value | None) -> bool:
    shape = known_shape(x)
    return shape is not None and all(isinstance(d, int) and d >= _SMALLEST for d in shape[2:])


def _is_depthwise(node: ir.Node) -> bool:
    weights = constant(_inputs(node)[1])
    if weights is None or weights.ndim != 4 or weights.dtype != "float32":
        return False
    group = node.attributes.get_int("group", 1)
    dilations = node.attributes.get_ints("dilations", [1, 1])
    return bool(weights.shape[0] == group > 1 and weights.shape[1] == 1) and set(dilations) == {1}


def _is_pointwise(node: ir.Node, beside: ir.Node) -> bool:
    """Whether a node is a plain 1x1 convolution of the same graph as `beside`."""
    name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    weights = constant(_inputs(node)[1])
    return (
        name in _CONVOLUTIONS
        and node.graph is beside.graph
        and weights is not None
        and weights.shape[2:] == (1, 1)
        and node.attributes.get_int("group", 1) == 1
        and set(node.attributes.get_ints("strides", [1, 1])) == {1}
        and set(node.attributes.get_ints("pads", [0])) == {0}
    )


def _before(node: ir.Node) -> ir.Node | None:
    """The 1x1 convolution, to which nothing is added, whose output only a node uses."""
    x = node.inputs[0]
    source = x.producer() if x is not None else None
    if x is None or source is None or len(list(x.uses())) != 1 or x.is_graph_output():
        return None
    return source if _is_pointwise(source, node) and _inputs(source)[3] is None else None


def _next(node: ir.Node) -> ir.Node | None:
    """The 1x1 convolution that is the only user of a node's output."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].idx != 0:
        return None
    user = uses[0].node
    return user if _is_pointwise(user, node) else None


def _activation(node: ir.Node | None, prefix: str) -> dict[str, object]:
    if node is None or not (name := node.attributes.get_string("activation", "")):
        return {}
    parameters = node.attributes.get_floats("activation_params", [])
    found: dict[str, object] = {f"{prefix}_activation": name}
    return found | ({f"{prefix}_params": list(parameters)} if parameters else {})
