"""Removes what no output needs: constants, nodes, and optional outputs of nodes.

    x -> A -> y (output)            x -> A -> y (output)
    x -> B -> z              =>
    w (constant)

1. A constant that nothing uses goes, in every graph. One that is the default of an input stays.
2. A node goes if nothing uses its outputs, with all its subgraphs.
3. An optional output that nothing uses is left out, so that it is not computed.

Inputs of graphs stay: who calls them counts on them.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan import catalog
from ortolan.importing.naming import subgraphs

__all__ = ["remove_dead_code", "remove_unused_constants"]


def remove_unused_constants(model: ir.Model) -> bool:
    """Removes constants that nothing uses; returns whether there were any."""
    modified = False
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del graph.initializers[name]
                modified = True
    return modified


def remove_dead_code(model: ir.Model) -> bool:
    """Removes all that no output of the model needs; returns whether there was anything."""
    modified = _remove_nodes(model.graph)
    return remove_unused_constants(model) or modified


def _remove_nodes(graph: ir.Graph) -> bool:
    """Removes dead nodes; the last come first, so that one pass finds whole chains."""
    modified = False
    for node in reversed(list(graph)):
        if any(_is_used(value) for value in node.outputs):
            for subgraph in subgraphs(node):
                modified |= _remove_nodes(subgraph)
            modified |= _leave_out_outputs(node)
            continue
        _detach(node)
        graph.remove(node, safe=True)
        modified = True
    return modified


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _detach(node: ir.Node) -> None:
    """Ends the uses of outer values in the subgraphs of a node that goes."""
    for subgraph in subgraphs(node):
        for inner in subgraph.all_nodes():
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)


def _leave_out_outputs(node: ir.Node) -> bool:
    operator = catalog.find(node.domain, node.op_type, node.version or 1)
    if operator is None:
        return False
    modified = False
    for value, parameter in zip(node.outputs, operator.outputs, strict=False):
        if parameter.optional and value.name != "" and not _is_used(value):
            value.name = ""
            modified = True
    # How many outputs there are means something where there may be any number of them.
    count = len(node.outputs)
    while 0 < count <= len(operator.outputs) and node.outputs[count - 1].name == "":
        if not operator.outputs[count - 1].optional:
            break
        count -= 1
    node.resize_outputs(count)
    return modified
