"""Makes convolutions of transposed ones that move one pixel at a time.

    ConvTranspose(x, w), strides 1      =>      Conv(x, w turned around)

Taps are reversed, inputs and outputs of each group exchanged, and pads are what the window reaches
beyond them. A Conv has kernels for such windows, and other nodes go into it.

Not rewritten when the weights are not constant, there are strides, an output shape or padding, pads
are chosen automatically, or more is cut off than the window reaches.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import constant
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["turn_transposed"]


def turn_transposed(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Turns transposed convolutions around; returns whether there were any."""
    return rewrite(model, target, ["ConvTranspose"], _turn)


def _turn(rewriter: Rewriter, node: ir.Node) -> bool:
    weights, graph = constant(node.inputs[1]), node.graph
    if weights is None or weights.ndim < 3 or not weights.size or not isinstance(graph, ir.Graph):
        return False
    rank, kernel = weights.ndim - 2, list(weights.shape[2:])
    group = node.attributes.get_int("group", 1)
    dilations = _list(node, "dilations", [1] * rank)
    pads = _list(node, "pads", [0] * 2 * rank)
    strides, more = _list(node, "strides", [1] * rank), _list(node, "output_padding", [0] * rank)
    if any(s != 1 for s in strides) or any(more) or "output_shape" in node.attributes:
        return False
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    lengths = (
        len(dilations),
        len(strides),
        len(pads) / 2,
        len(_list(node, "kernel_shape", kernel)),
    )
    if any(n != rank for n in lengths) or group < 1 or weights.shape[0] % group:
        return False
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    turned = [r - p for r, p in zip(reach * 2, pads, strict=True)]
    if min(turned) < 0:
        return False
    split = weights.reshape(group, -1, *weights.shape[1:]).swapaxes(1, 2)
    mirrored = np.flip(split, tuple(range(3, 3 + rank))).reshape(-1, split.shape[2], *kernel)
    constants = rewriter.constant(graph, mirrored, f"{node.outputs[0].name}_weights")
    attributes = {
        "kernel_shape": kernel, "dilations": dilations, "pads": turned, "strides": strides,
        "group": group,
    }  # fmt: skip
    inputs = [node.inputs[0], constants, *node.inputs[2:]]
    return rewriter.replace(node, [rewriter.node("Conv", inputs, attributes)])


def _list(node: ir.Node, name: str, default: list[int]) -> list[int]:
    given = node.attributes.get(name)
    return default if given is None else list(given.as_ints())
