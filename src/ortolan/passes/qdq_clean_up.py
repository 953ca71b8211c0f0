"""Takes away what quantization makes needless.

    q -> DequantizeLinear -> QuantizeLinear -> y               =>      q
    q -> DequantizeLinear -> Reshape -> QuantizeLinear -> y    =>      q -> Reshape -> y
    x -> Relu -> QuantizeLinear -> y                           =>      x -> QuantizeLinear -> y

1. Dequantizing and quantizing again with the same scale and zero point.
2. The same with a node between that only moves elements, or takes the largest (MaxPool).
3. Relu, or a Clip that keeps all numbers that the integers stand for: where the zero point is
   the lowest integer, no integer stands for less than 0.

Not rewritten when scales or zero points differ or are computed, there is one scale per channel,
or what is between has another user.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import clip_bounds, constant, only_user
from ortolan.passes.quantized import Quantized, dequantized, quantizer, same_quantization
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["clean_up_qdq"]

_MOVING = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Tile",
    "DepthToSpace", "SpaceToDepth", "MaxPool",
)  # fmt: skip


def clean_up_qdq(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Removes needless quantization; returns whether there was any."""
    return rewrite(model, target, [*_MOVING, "QuantizeLinear", "Relu", "Clip"], _change)


def _change(rewriter: Rewriter, node: ir.Node) -> bool:
    if node.op_type == "QuantizeLinear":
        return _back(rewriter, node)
    if node.op_type in ("Relu", "Clip"):
        return _bounded(rewriter, node)
    return _moved(rewriter, node)


def _back(rewriter: Rewriter, node: ir.Node) -> bool:
    """Case 1."""
    x = node.inputs[0]
    before = dequantized(x)
    after = None if before is None else _result(node)
    if before is None or after is None or not same_quantization(before, after):
        return False
    return rewriter.bypass(node, before.value)


def _result(node: ir.Node) -> Quantized | None:
    value = node.inputs[0]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    scale, scales = node.inputs[1], constant(node.inputs[1])
    if value is None or scale is None or scales is None or scales.size != 1:
        return None
    return Quantized(node.outputs[0], scale, zero, None)


def _moved(rewriter: Rewriter, node: ir.Node) -> bool:
    """Case 2."""
    before, after = dequantized(node.inputs[0]), quantizer(node.outputs[0])
    if before is None or after is None or not same_quantization(before, after[1]):
        return False
    if before.axis is not None or any(value.uses() for value in node.outputs[1:]):
        return False
    if only_user(node.inputs[0], (node.op_type,)) is not node:  # type: ignore[arg-type]
        return False
    scale = constant(before.scale)
    if node.op_type == "MaxPool" and (scale is None or not np.all(scale > 0)):
        return False  # The largest integer stands for the least number.
    new = rewriter.node(
        node.op_type, [before.value, *node.inputs[1:]], dict(node.attributes.items()),
        version=node.version,
    )  # fmt: skip
    return rewriter.replace(after[0], [new])


def _bounded(rewriter: Rewriter, node: ir.Node) -> bool:
    """Case 3."""
    after = quantizer(node.outputs[0])
    bounds = [0.0, np.inf] if node.op_type == "Relu" else clip_bounds(node)
    if after is None or bounds is None or node.inputs[0] is None:
        return False
    dtype, scales = after[1].value.dtype, constant(after[1].scale)
    if scales is None or dtype not in (ir.DataType.UINT8, ir.DataType.INT8):
        return False
    zeros = None if after[1].zero is None else constant(after[1].zero)
    zero = 0 if zeros is None else int(zeros.reshape(-1)[0])
    limits = np.iinfo(dtype.numpy())
    scale = float(scales.reshape(-1)[0])
    if not scale > 0:
        return False
    low, high = ((limit - zero) * scale for limit in (limits.min, limits.max))
    if bounds[0] > low or bounds[1] < high:
        return False
    return rewriter.bypass(node, node.inputs[0])
