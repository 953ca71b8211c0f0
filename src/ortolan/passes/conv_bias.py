"""Makes the bias of a convolution of a constant that is added behind it.

    x -> Conv -> y -> Add -> z      =>      x -> Conv(bias b) -> z
                 b ---^

1. `b` is a constant with one element per output channel and 1 in every other dimension, or one
   element in all: it becomes the bias, added to a constant bias that is there already.

Not rewritten when `y` has another user or is an output of the graph, or when the number of
output channels is not known because the weights are no constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ortolan.passes.matching import constant, only_user, replace_node_with_input

__all__ = ["fold_conv_bias"]


def fold_conv_bias(model: ir.Model) -> bool:
    """Moves constants added to convolutions into their bias; returns whether there were any."""
    modified = False
    for node in list(model.graph.all_nodes()):
        if (node.domain, node.op_type) == ("", "Conv"):
            while _fold(node):
                modified = True
    return modified


def _fold(conv: ir.Node) -> bool:
    add = only_user(conv.outputs[0], ("Add",))
    weights = constant(conv.inputs[1])
    if add is None or weights is None or not isinstance(conv.graph, ir.Graph):
        return False
    other = add.inputs[1] if add.inputs[0] is conv.outputs[0] else add.inputs[0]
    term = constant(other)
    if term is None or term.dtype != weights.dtype:
        return False
    added = _per_channel(term, weights.shape[0], weights.ndim)
    if added is None:
        return False
    old = conv.inputs[2] if len(conv.inputs) > 2 else None
    if old is not None:
        bias = constant(old)
        if bias is None:
            return False
        added = bias + added
    name = f"{conv.outputs[0].name}_bias"
    while name in conv.graph.initializers:
        name += "_"
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(added.dtype)),
        shape=ir.Shape(added.shape),
        const_value=ir.tensor(added, name=name),
    )
    conv.graph.register_initializer(value)
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    conv.replace_input_with(2, value)
    replace_node_with_input(add, conv.outputs[0])
    return True


def _per_channel(term: npt.NDArray[Any], channels: int, rank: int) -> npt.NDArray[Any] | None:
    """Returns what is added to each channel, None if it differs within one."""
    if term.ndim > rank:
        return None
    shape = (1,) * (rank - term.ndim) + term.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1) or shape[1] not in (
        1,
        channels,
    ):
        return None
    return np.ascontiguousarray(np.broadcast_to(term.reshape(-1), (channels,)))
