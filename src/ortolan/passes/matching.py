"""What rewrites ask of a graph: constants, only users, and taking a node out."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

__all__ = ["constant", "integers", "only_user", "replace_node_with_input", "scalar"]

_FEW = 64


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
def only_user(value: ir.Value, operators: Container[str]) -> ir.Node | None:
    """Returns the one node that uses a value, if it is one of some standard operators.

    None when there are other users, or users in subgraphs, or the value is an output of its graph.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    producer = value.producer()
    if producer is None or node.graph is not producer.graph or node.domain not in ("", "ai.onnx"):
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
