"""Stores large float weights in fewer bytes: as float16 or int8, with the node that reads them.

    w32 -> MatMul     =>     w16 -> Cast -> MatMul, or w8, scale -> DequantizeLinear -> MatMul

1. Weights of 256 elements and more are taken, for int8 those of two dimensions and more; one
   that callers could replace becomes a constant.
2. int8 has a scale per slice along the first or the last axis, whichever loses less.
3. The loader computes such nodes once: a call computes with float32 as before.
Last of all: constant folding would undo it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ortolan.errors import InvalidArgument
from ortolan.importing.naming import make_names_unique
from ortolan.importing.versions import since_version

__all__ = ["STORAGES", "store_weights"]

STORAGES = ("float32", "float16", "int8")
_LEAST_ELEMENTS = 256
_MOST_HALF = 65504.0
_MOST_INT8 = 127
_SCALE_SHARE = 8
# DequantizeLinear with an axis.
_AXIS_VERSION = 13

Array = npt.NDArray[Any]


def store_weights(model: ir.Model, storage: str) -> int:
    """Changes how the weights of all graphs are stored; returns how many were changed.

    Args:
        model: an optimized model, changed in place.
        storage: one of `STORAGES`.

    Raises:
        InvalidArgument: there is no such storage.
    """
    if storage not in STORAGES:
        raise InvalidArgument(f"weights are stored as {', '.join(STORAGES)}, not as {storage!r}")
    if storage == "float32":
        return 0
    changed = 0
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in list(graph.initializers.values()):
            if value.is_graph_output() or not value.uses():
                continue
            if value.dtype != ir.DataType.FLOAT or value.const_value is None:
                continue
            array = value.const_value.numpy()
            if array.size < _LEAST_ELEMENTS or not np.isfinite(array).all():
                continue
            if storage == "float16":
                node = _as_half(graph, value, array, model.opset_imports.get(""))
            else:
                node = _as_int8(graph, value, array)
            if node is None:
                continue
            output = node.outputs[0]
            output.name, output.type = f"{value.name}_read", value.type
            output.shape = value.shape
            value.replace_all_uses_with(output)
            graph.initializers.pop(value.name or "")
            if value in graph.inputs:
                graph.inputs.remove(value)
            graph.insert_before(graph[0], [node])
            changed += 1
    make_names_unique(model)
    return changed


def _constant(graph: ir.Graph, array: Array, name: str) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    assert value.const_value is not None
    value.type = ir.TensorType(value.const_value.dtype)
    value.shape = ir.Shape(array.shape)
    graph.initializers[name] = value
    return value


def _as_half(graph: ir.Graph, value: ir.Value, array: Array, opset: int | None) -> ir.Node | None:
    if np.abs(array).max() > _MOST_HALF:
        return None
    half = _constant(graph, array.astype(np.float16), f"{value.name}_float16")
    to = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    return ir.Node(
        "", "Cast", [half], [to], num_outputs=1, version=since_version("", "Cast", opset or 1)
    )


def _as_int8(graph: ir.Graph, value: ir.Value, array: Array) -> ir.Node | None:
    if array.ndim < 2:
        return None
    # Scales are float32: along a long axis they would cost more than they gain.
    axes = {0, array.ndim - 1}
    short = {axis for axis in axes if _SCALE_SHARE * array.shape[axis] <= array.size}
    axes = short or {min(axes, key=lambda axis: array.shape[axis])}
    choices = [(*_quantize(array, axis), axis) for axis in sorted(axes)]
    losses = [_loss(array, *choice) for choice in choices]
    levels, scale, axis = choices[int(np.argmin(losses))]
    inputs = [
        _constant(graph, levels, f"{value.name}_int8"),
        _constant(graph, scale, f"{value.name}_scale"),
    ]
    return ir.Node(
        "", "DequantizeLinear", inputs, [ir.AttrInt64("axis", axis)], num_outputs=1,
        version=_AXIS_VERSION,
    )  # fmt: skip


def _quantize(array: Array, axis: int) -> tuple[Array, Array]:
    """int8 elements and a float32 scale per slice along an axis."""
    others = tuple(k for k in range(array.ndim) if k != axis)
    scale = np.abs(array).max(axis=others) / np.float32(_MOST_INT8)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    levels = np.rint(array / _along(scale, axis, array.ndim))
    return np.clip(levels, -_MOST_INT8, _MOST_INT8).astype(np.int8), scale


def _along(scale: Array, axis: int, rank: int) -> Array:
    return scale.reshape([-1 if k == axis else 1 for k in range(rank)])


def _loss(array: Array, levels: Array, scale: Array, axis: int) -> float:
    read = levels * _along(scale, axis, array.ndim)
    return float(np.square(array - read, dtype=np.float64).sum())
