"""What rewrites ask of a graph: constants, only users, and taking a node out."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "clip_bounds", "constant", "integers", "only_user", "reduced_axes", "replace_node_with_input",
    "scalar",
]  # fmt: skip

_FEW = 64
_LARGEST = float(np.finfo(np.float32).max)


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Returns the elements of a value that no feed can replace, None if it is no such constant."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return None if value.const_value is None else value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """Returns the number of a constant with one element that is a number, None for others."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING or math.prod(tensor.shape.numpy()) != 1:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def integers(value: ir.Value | None) -> list[int] | None:
    """Returns the elements of a small constant of integers, None for others."""
    if value is None or value.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    array = constant(value)
    return None if array is None or array.size > _FEW else [int(i) for i in array.reshape(-1)]


def only_user(
    value: ir.Value, operators: Container[str], domains: Container[str] = ("", "ai.onnx")
) -> ir.Node | None:
    """Returns the one node that uses a value, if it is one of some operators of some domains.

    None when there are other users, or users in subgraphs, or the value is an output of its graph.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    producer = value.producer()
    if producer is None or node.graph is not producer.graph or node.domain not in domains:
        return None
    return node if node.op_type in operators else None


def replace_node_with_input(node: ir.Node, value: ir.Value) -> None:
    """Takes a node with one output out of its graph: its users, and the graph, get `value`.

    `value` is computed in the same graph and used by `node` alone; it takes the output's name.
    """
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    name = output.name
    if value.shape is None or not value.shape.is_static():
        value.shape = output.shape
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name = name


def reduced_axes(node: ir.Node) -> list[int] | None:
    """Returns the axes that a reduction is over, None if they are computed or left out."""
    given = node.attributes.get_ints("axes")
    if given is not None:
        return list(given)
    return integers(node.inputs[1]) if len(node.inputs) > 1 else None


def clip_bounds(node: ir.Node) -> list[float] | None:
    """Returns the bounds of a Clip, those of float32 where one is left out; None if computed."""
    bounds = []
    for index, (name, default) in enumerate((("min", -_LARGEST), ("max", _LARGEST)), start=1):
        if name in node.attributes:
            bounds.append(node.attributes[name].as_float())
            continue
        value = node.inputs[index] if index < len(node.inputs) else None
        number = default if value is None else scalar(value)
        if number is None:
            return None
        bounds.append(number)
    return bounds
