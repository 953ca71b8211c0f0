"""Keeps names of values unique where they can meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["graph_values", "make_names_unique", "subgraphs"]


# The standard's operators that have graphs.
_WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yields the graphs in a node's attributes, not those nested in them."""
    if node.domain == "" and node.op_type not in _WITH_GRAPHS:
        return  # Looking at the attributes of every node takes long.
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def graph_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yields what a graph defines: inputs, constants and outputs of nodes that are not left out.

    An input with a default is yielded once.
    """
    yield from graph.inputs
    for value in graph.initializers.values():
        if not value.is_graph_input():
            yield value
    for node in graph:
        for value in node.outputs:
            if value.name != "":
                yield value


def make_names_unique(model: ir.Model) -> None:
    """Renames values so that a name is unique in its graph and in all graphs around it.

    Inputs and outputs of the main graph keep their names. Graphs beside each other may use the
    same name, as the branches of an If do.
    """
    graph = model.graph
    fixed = {value.name or "": value for value in (*graph.inputs, *graph.outputs)}
    _rename(graph, set(), fixed)


def _rename(graph: ir.Graph, outer: set[str], fixed: dict[str, ir.Value]) -> None:
    values = list(graph_values(graph))
    taken = outer | set(fixed)
    clashing = []
    for value in values:
        name = value.name or ""
        if fixed.get(name) is value:
            continue
        if not name or name in taken:
            clashing.append(value)
        taken.add(name)
    for value in clashing:
        base = value.name or "value"
        names = (f"{base}_{k}" for k in itertools.count(2))
        value.name = next(name for name in names if name not in taken)
        taken.add(value.name)
    for node in graph:
        for subgraph in subgraphs(node):
            _rename(subgraph, taken, {})
