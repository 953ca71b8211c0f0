"""Removes Identity nodes.

    x -> Identity -> y -> A      =>      x -> A

1. `y` is no output of its graph: its users use `x`.
2. `y` is an output, and `x` is computed in the same graph and is no output itself: `x` takes
   the name and the place of `y`.

Not rewritten when `y` is an output and `x` is an input, a constant, a value of an outer graph,
or an output already: then the copy is what the graph computes.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["eliminate_identities"]


def eliminate_identities(model: ir.Model) -> bool:
    """Removes Identity nodes of all graphs; returns whether there were any to remove."""
    modified = False
    for node in list(model.graph.all_nodes()):
        if (node.domain, node.op_type) == ("", "Identity"):
            modified |= _eliminate(node)
    return modified


def _eliminate(node: ir.Node) -> bool:
    graph, x, y = node.graph, node.inputs[0], node.outputs[0]
    if not isinstance(graph, ir.Graph) or x is None:
        return False
    if y.is_graph_output():
        producer = x.producer()
        if producer is None or producer.graph is not graph or x.is_graph_output():
            return False
        name = y.name
        y.replace_all_uses_with(x, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        x.name = name
    else:
        y.replace_all_uses_with(x)
        graph.remove(node, safe=True)
    if x.shape is None:
        x.shape = y.shape
    return True
