"""Lets 1x1 convolutions work on the small image where it is enlarged before them.

    Conv(Resize(x), w, b), kernel 1x1      =>      Resize(Conv(x, w, b))

Each pixel of the large image is a weighted mean of some of the small one's, and a 1x1 convolution
of a mean is the mean of convolutions: there are fewer of those, by the factor of enlargement.

1. Resize with constant scales, or Upsample, of mode nearest or linear.
2. The convolution has no more outputs than inputs: enlarging takes no longer than before.

Not rewritten when batch or channels are scaled, something is made smaller, pixels from outside are
filled in, or the large image has another user.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import constant
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["move_conv_before_resize"]


def move_conv_before_resize(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves 1x1 convolutions before what enlarges; returns whether there were any."""
    return rewrite(model, target, ["Conv"], _move)


def _move(rewriter: Rewriter, node: ir.Node) -> bool:
    large, weights = node.inputs[0], constant(node.inputs[1])
    resize = None if large is None else large.producer()
    if large is None or resize is None or resize.graph is not node.graph or weights is None:
        return False
    if len(large.uses()) != 1 or large.is_graph_output() or large.dtype != ir.DataType.FLOAT:
        return False
    channels = weights.shape[1] * node.attributes.get_int("group", 1)
    if weights.shape[0] > channels or not _is_point(node, weights.shape[2:]):
        return False
    if not _enlarges(resize, weights.ndim):
        return False
    inputs = [resize.inputs[0], *node.inputs[1:]]
    small = rewriter.node("Conv", inputs, _attributes(node), version=node.version)
    again = rewriter.node(
        resize.op_type, [small.outputs[0], *resize.inputs[1:]], _attributes(resize),
        version=resize.version,
    )  # fmt: skip
    return rewriter.replace(node, [small, again])


def _attributes(node: ir.Node) -> dict[str, ir.Attr]:
    return {attribute.name: attribute for attribute in node.attributes.values()}


def _is_point(node: ir.Node, kernel: tuple[int, ...]) -> bool:
    def is_all(name: str, value: int) -> bool:
        given = node.attributes.get(name)
        return given is None or all(number == value for number in given.as_ints())

    return all(k == 1 for k in kernel) and is_all("strides", 1) and is_all("pads", 0)


def _enlarges(node: ir.Node, rank: int) -> bool:
    attributes, version = node.attributes, node.version or 1
    if node.domain or attributes.get_string("mode", "nearest") not in ("nearest", "linear"):
        return False
    if attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return False
    if "axes" in attributes or attributes.get_int("antialias", 0) != 0:
        return False
    match node.op_type:
        case "Upsample" if version < 9:
            given = attributes.get("scales")
            scales = None if given is None else np.array(given.as_floats())
        case "Upsample":
            scales = constant(node.inputs[1])
        case "Resize":
            at = 1 if version < 11 else 2
            scales = constant(node.inputs[at]) if len(node.inputs) == at + 1 else None
        case _:
            return False
    if scales is None or scales.shape != (rank,) or any(scales[:2] != 1):
        return False
    return bool(np.all(scales >= 1) and np.prod(scales) > 1)
