"""Moves padding into the convolution or pooling behind it.

    x -> Pad(0, height and width) -> Conv -> y      =>      x -> Conv(more pads) -> y

1. Conv and ConvInteger without a zero point: the padding is constant 0.
2. AveragePool that counts its own padding: the padding is constant 0.
3. MaxPool: the padding is constant and the lowest number, or minus infinity.

Not rewritten when batch or channels are padded, a pad is negative or not constant, the padded
value has another user, or pads are chosen automatically; for pooling also when windows may lie in
the padding or are counted up, or places of the largest are asked for.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import integers, only_user, scalar
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fold_pads"]

_LOWEST = float(np.finfo(np.float32).min)


def fold_pads(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves Pad nodes into what is behind them; returns whether there were any."""
    return rewrite(model, target, ["Pad"], _fold)


def _fold(_: Rewriter, node: ir.Node) -> bool:
    user = only_user(node.outputs[0], ("Conv", "ConvInteger", "AveragePool", "MaxPool"))
    pads, value = _padding(node)
    if user is None or pads is None or value is None or user.inputs[0] is not node.outputs[0]:
        return False
    rank = len(pads) // 2
    outer = pads[:2] + pads[rank : rank + 2]
    if rank < 3 or any(outer) or min(pads) < 0 or not _accepts(user, value):
        return False
    if user.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    spatial = [*pads[2:rank], *pads[rank + 2 :]]
    given = user.attributes.get("pads")
    own = list(given.as_ints()) if given is not None else [0] * len(spatial)
    if user.attributes.get_string("auto_pad", "NOTSET") == "VALID":
        own = [0] * len(spatial)
    if len(own) != len(spatial):
        return False
    both = [a + b for a, b in zip(own, spatial, strict=True)]
    if user.op_type in ("MaxPool", "AveragePool") and not _touches(user, both):
        return False
    user.attributes.add(ir.AttrInt64s("pads", both))
    user.attributes.pop("auto_pad", None)
    user.replace_input_with(0, node.inputs[0])
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return True


def _padding(node: ir.Node) -> tuple[list[int] | None, float | None]:
    """How much is added at the beginnings and ends of axes, and what."""
    if node.attributes.get_string("mode", "constant") != "constant":
        return None, None
    if (node.version or 1) < 11:
        pads = node.attributes.get("pads") or node.attributes.get("paddings")
        value = node.attributes.get_float("value", 0.0)
        return (list(pads.as_ints()) if pads is not None else None), value
    given = [node.inputs[k] if k < len(node.inputs) else None for k in range(1, 4)]
    if given[2] is not None:
        return None, None
    return integers(given[0]), 0.0 if given[1] is None else scalar(given[1])


def _accepts(user: ir.Node, value: float) -> bool:
    if user.op_type in ("MaxPool", "AveragePool") and user.attributes.get_int("ceil_mode", 0) != 0:
        return False  # A last window may begin in what was padded, but not in pads.
    if user.op_type == "MaxPool":
        if any(output.uses() or output.is_graph_output() for output in user.outputs[1:]):
            return False
        floats = user.inputs[0] is not None and user.inputs[0].dtype == ir.DataType.FLOAT
        return floats and (value <= _LOWEST or value == -math.inf)
    if user.op_type == "AveragePool":
        return value == 0 and user.attributes.get_int("count_include_pad", 0) == 1
    if user.op_type == "ConvInteger" and len(user.inputs) > 2 and user.inputs[2] is not None:
        return value == 0 and scalar(user.inputs[2]) == 0
    return value == 0


def _touches(pool: ir.Node, pads: list[int]) -> bool:
    """Whether every window has an element that is no padding: runtimes refuse wider pads."""
    kernel = pool.attributes.get_ints("kernel_shape", ())
    dilations = pool.attributes.get_ints("dilations", ())
    within = len(pads) == 2 * len(kernel) and all(
        pad < size for pad, size in zip(pads, [*kernel, *kernel], strict=True)
    )
    return within and all(dilation == 1 for dilation in dilations)
