"""Graphs of operators that the standard's function bodies replace, such as SequenceMap's.

In: a node with graphs and the body of it that has taken their nodes over. Out: a call without
graphs, which passes what the graphs captured as further arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from ortolan.importing.naming import graph_values

__all__ = ["apart", "close_over", "has_graphs"]

# No function body of the standard has names that begin with this; some are made by parsing a
# text, so that names must be identifiers.
_PREFIX = "ortolan_"


def has_graphs(node: ir.Node) -> bool:
    """Whether an attribute of a node is a graph."""
    return any(True for _ in _graphs(node))


def apart(node: ir.Node) -> tuple[onnx.NodeProto, dict[str, str]]:
    """Writes a node with new names for all values in its graphs.

    None of them is called as a value of the node's body then.

    Returns:
        The node, and the new names by the old ones.
    """
    proto = ir.to_proto(node)
    names: dict[str, str] = {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _rename(attribute.g, names)
    return proto, names


def close_over(node: ir.Node, body: onnx.FunctionProto) -> set[ir.Node]:
    """Makes captured values arguments of a call, and takes its graphs away.

    Args:
        node: the call; changed in place.
        body: made of the node as `apart` gives it; changed in place.

    Returns:
        The nodes of the graphs, which are in no model any more.
    """
    captured = list(_captured(node))
    _, names = apart(node)
    node.resize_inputs(len(body.input) + len(captured))
    for k, value in enumerate(captured, len(body.input)):
        node.replace_input_with(k, value)
        body.input.append(names[value.name or ""])
    gone: set[ir.Node] = set()
    for graph in _graphs(node):
        for inner in graph.all_nodes():
            gone.add(inner)
            for k in range(len(inner.inputs)):
                inner.replace_input_with(k, None)
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.GRAPH:
            node.attributes.pop(name)
            if name in body.attribute:
                body.attribute.remove(name)
    return gone


def _graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()


def _captured(node: ir.Node) -> dict[ir.Value, None]:
    """The outer values that a node's graphs use, each once."""
    own: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}
    for outermost in _graphs(node):
        for graph in (outermost, *outermost.subgraphs()):
            own.update(graph_values(graph))
        for inner in outermost.all_nodes():
            used.update((value, None) for value in inner.inputs if value is not None)
    return {value: None for value in used if value not in own}


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    def new(name: str) -> str:
        return names.setdefault(name, f"{_PREFIX}{len(names)}") if name else ""

    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = new(item.name)
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names)
