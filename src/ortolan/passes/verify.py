"""The rules that hold after the import and after every pass.

1. Every value of every graph has a type and a name, unique in its graph and those around it.
2. Every value that a node uses is an input, a constant, or an output of a node before it, in the
   node's graph or one around it.
3. A graph computes its outputs itself: they are its own inputs, constants or outputs of nodes.
4. A constant has data of its type.
5. Every node has a since_version.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.errors import InvalidGraph
from ortolan.importing.element_types import label
from ortolan.importing.naming import subgraphs

__all__ = ["verify"]


def verify(model: ir.Model, after: str) -> None:
    """Checks a model.

    Args:
        model: the model.
        after: what was done to it last, for the message.

    Raises:
        InvalidGraph: a rule is broken. It is a defect of what was done last.
    """
    try:
        _verify_graph(model.graph, set(), set())
        if model.functions:
            raise InvalidGraph("there are functions")
    except InvalidGraph as error:
        raise InvalidGraph(f"after {after}: {error}") from error


def _verify_graph(graph: ir.Graph, outer: set[ir.Value], outer_names: set[str]) -> None:
    visible = set(outer)
    names = set(outer_names)
    for value in graph.inputs:
        _define(value, visible, names, "an input")
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if name != value.name or tensor is None or value.dtype != tensor.dtype:
            raise InvalidGraph(f'the constant "{name}" has no data of its type')
        if not value.is_graph_input():
            _define(value, visible, names, "a constant")
    own_first = visible - outer
    computed: set[ir.Value] = set()
    for node in graph:
        if node.version is None:
            raise InvalidGraph(f"{label(node)} has no version")
        for used in node.inputs:
            if used is not None and used not in visible:
                raise InvalidGraph(f'{label(node)} uses "{used.name}", which nothing defines')
        for value in node.outputs:
            if value.name != "":
                _define(value, visible, names, f"an output of {label(node)}")
                computed.add(value)
    _verify_subgraphs(graph, visible, names)
    for value in graph.outputs:
        if value not in own_first and value not in computed:
            raise InvalidGraph(f'the output "{value.name}" is computed nowhere')


def _define(value: ir.Value, visible: set[ir.Value], names: set[str], what: str) -> None:
    if not value.name or value.name in names:
        raise InvalidGraph(f'{what} has the name "{value.name}", which is empty or taken')
    if value.type is None:
        raise InvalidGraph(f'{what}, "{value.name}", has no type')
    names.add(value.name)
    visible.add(value)


def _verify_subgraphs(graph: ir.Graph, visible: set[ir.Value], names: set[str]) -> None:
    """Checks the subgraphs of a graph's nodes; names meet those of the whole graph around them."""
    later = {value for node in graph for value in node.outputs}
    defined = visible - later
    for node in graph:
        for subgraph in subgraphs(node):
            _verify_graph(subgraph, defined, names)
        defined.update(node.outputs)
