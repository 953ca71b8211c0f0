"""Moves what scales and shifts channels into the weights and the bias before it.

    x -> Conv(w, b) -> Mul(s) -> Add(t) -> y      =>      x -> Conv(w * s, b * s + t) -> y

1. Add or Sub of a constant.
2. Mul or Div by a constant.
3. BatchNormalization with constant parameters, not in training.

They follow a Conv, a ConvTranspose, a Gemm, or a MatMul whose weights are a constant. The
constant has one element per output channel and 1 in every other dimension, or one in all. A
MatMul of two matrices becomes a Gemm where something is added.

Not rewritten when what is between has another user or is an output of the graph, the weights are
no constant or (2, 3) have another user, a bias that is there already is no constant, or a product
is more than a number can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user, replace_node_with_input
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fold_channel_terms"]

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_TERMS = ("Add", "Sub", "Mul", "Div", "BatchNormalization")
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Channels:
    """The output channels of a node: how many, their axis, and the rank of the output."""

    count: int
    axis: int
    rank: int

    def spread(self, term: Array | None) -> Array | None:
        """What a constant is for each channel, in double; None if it differs within one."""
        if term is None or term.ndim > self.rank or term.dtype not in _FLOATS:
            return None
        shape = (1,) * (self.rank - term.ndim) + term.shape
        if shape[self.axis] not in (1, self.count):
            return None
        if math.prod(shape) != shape[self.axis]:
            return None
        flat = term.reshape(-1).astype(np.float64)
        return np.broadcast_to(flat, (self.count,))


@dataclass(frozen=True)
class _Change:
    """What becomes of each channel: times `scale`, plus `shift`."""

    scale: Array | None
    shift: Array | None


def fold_channel_terms(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves scales and terms of channels into weights; returns whether there were any."""
    return rewrite(model, target, _LINEAR, _fold_all)


def _fold_all(rewriter: Rewriter, node: ir.Node) -> bool:
    modified = False
    with np.errstate(all="ignore"):
        while node.graph is not None and _fold(rewriter, node):
            modified = True
    return modified


def _fold(rewriter: Rewriter, node: ir.Node) -> bool:
    user = only_user(node.outputs[0], _TERMS)
    weights = constant(node.inputs[1])
    if user is None or weights is None or weights.dtype not in _FLOATS or weights.ndim < 2:
        return False
    channels = _channels(node, weights)
    change = None if channels is None else _change(user, node.outputs[0], channels, weights.dtype)
    if channels is None or change is None:
        return False
    if change.scale is not None and len(list(_uses(node.inputs[1]))) > 1:
        return False
    bias = _new_bias(node, change, channels, weights.dtype)
    scaled = None
    if change.scale is not None:
        scaled = _scale(node, weights, change.scale).astype(weights.dtype)
    # What overflows here need not where it is computed.
    if bias is None or not all(np.isfinite(a).all() for a in (bias, scaled) if a is not None):
        return False
    if node.op_type == "MatMul" and bias.size:
        if not _is_matrix(node.inputs[0]) or not _can_be_gemm(rewriter, node):
            return False
        node.op_type, node.version = "Gemm", rewriter.version("", "Gemm")
    _set_constants(rewriter, node, bias, scaled)
    replace_node_with_input(user, node.outputs[0])
    return True


def _uses(value: ir.Value | None) -> Any:
    return () if value is None else value.uses()


def _is_matrix(value: ir.Value | None) -> bool:
    shape = known_shape(value)
    return shape is not None and len(shape) == 2


def _can_be_gemm(rewriter: Rewriter, node: ir.Node) -> bool:
    version, dtype = rewriter.version("", "Gemm"), node.outputs[0].dtype
    if version is None or version < 7 or dtype is None:
        return False
    return rewriter.target.supports("", "Gemm", version, {"T": dtype})


def _channels(node: ir.Node, weights: Array) -> _Channels | None:
    if node.op_type == "Conv":
        return _Channels(weights.shape[0], 1, weights.ndim)
    if node.op_type == "ConvTranspose":
        group = node.attributes.get_int("group", 1)
        return _Channels(weights.shape[1] * group, 1, weights.ndim)
    if weights.ndim != 2:
        return None
    if node.op_type == "Gemm":
        transposed = node.attributes.get_int("transB", 0)
        return _Channels(weights.shape[0 if transposed else 1], 1, 2)
    # A vector on the left gives a vector.
    shape = known_shape(node.inputs[0])
    rank = 1 if shape is None else len(shape)
    return _Channels(weights.shape[1], rank - 1, rank)


def _change(
    user: ir.Node, y: ir.Value, channels: _Channels, dtype: np.dtype[Any]
) -> _Change | None:
    """What a node behind the channels does to them, None if that is not known."""
    if user.op_type == "BatchNormalization":
        return _normalization(user, channels)
    first = user.inputs[0] is y
    other = constant(user.inputs[1 if first else 0])
    term = channels.spread(other)
    if term is None or other is None or other.dtype != dtype:
        return None
    match user.op_type:
        case "Add":
            return _Change(None, term)
        case "Sub":
            return _Change(None, -term) if first else _Change(np.full(term.shape, -1.0), term)
        case "Mul":
            return _Change(term, None)
        case _:
            return _Change(1.0 / term, None) if first and np.all(term != 0) else None


def _normalization(node: ir.Node, channels: _Channels) -> _Change | None:
    if node.version is None or node.version < 7 or channels.axis != 1:
        return None
    if node.attributes.get_int("training_mode", 0) or not node.attributes.get_int("spatial", 1):
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    found = [constant(value) for value in node.inputs[1:5]]
    arrays = [array.astype(np.float64) for array in found if array is not None]
    if len(arrays) != 4 or any(array.shape != (channels.count,) for array in arrays):
        return None
    gamma, beta, mean, variance = arrays
    epsilon = np.float32(node.attributes.get_float("epsilon", 1e-5)).astype(np.float64)
    scale = gamma / np.sqrt(variance + epsilon)
    return _Change(scale, beta - mean * scale)


def _new_bias(
    node: ir.Node, change: _Change, channels: _Channels, dtype: np.dtype[Any]
) -> Array | None:
    """The bias after the change, empty if there is none; None if the old one is not known."""
    old = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(0)
    if old is not None:
        found = constant(old)
        if found is None or (found.ndim == 2 and found.shape[0] != 1):
            return None
        bias = np.broadcast_to(found.reshape(-1).astype(np.float64), (channels.count,))
        bias = bias * node.attributes.get_float("beta", 1.0)
        bias = bias if change.scale is None else bias * change.scale
    if change.shift is not None:
        bias = bias + change.shift if bias.size else change.shift
    return bias.astype(dtype)


def _set_constants(rewriter: Rewriter, node: ir.Node, bias: Array, scaled: Array | None) -> None:
    graph, name = node.graph, node.outputs[0].name
    assert isinstance(graph, ir.Graph)
    if scaled is not None:
        node.replace_input_with(1, rewriter.constant(graph, scaled, f"{name}_weights"))
    if bias.size:
        node.resize_inputs(3)
        node.replace_input_with(2, rewriter.constant(graph, bias, f"{name}_bias"))
        node.attributes.pop("beta", None)


def _scale(node: ir.Node, weights: Array, scale: Array) -> Array:
    if node.op_type == "Conv":
        return weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
    if node.op_type == "ConvTranspose":
        group = node.attributes.get_int("group", 1)
        split = weights.reshape(group, -1, *weights.shape[1:])
        factors = scale.reshape(group, 1, -1, *[1] * (weights.ndim - 2))
        return (split * factors).reshape(weights.shape)
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0:
        return weights * scale.reshape(-1, 1)
    return weights * scale
