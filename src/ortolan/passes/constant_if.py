"""Puts the branch that is taken in the place of an If whose condition is a constant.

    c (true) -> If(then: t, else: e) -> y      =>      nodes of t -> y

1. The nodes and constants of the branch move into the graph that the If is in, under names that
   are free there.
2. An output of the branch that is a constant of it, or is computed outside of it, keeps an
   Identity where the If's output is an output of the graph.

Not rewritten when the condition can be fed.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.naming import graph_values
from ortolan.passes.matching import scalar
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["inline_constant_if"]


def inline_constant_if(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Removes If nodes with a constant condition; returns whether there were any."""
    return rewrite(model, target, ["If"], _inline)


def _inline(rewriter: Rewriter, node: ir.Node) -> bool:
    condition, graph = scalar(node.inputs[0]), node.graph
    if condition is None or not isinstance(graph, ir.Graph):
        return False
    branch = node.attributes["then_branch" if condition else "else_branch"].as_graph()
    results = list(branch.outputs)
    branch.outputs.clear()
    _rename(rewriter, branch)
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        graph.initializers.add(value)
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        if output.name == "":
            continue
        if output.is_graph_output():
            # Elimination of identities takes it out where that is possible.
            copy = rewriter.node("Identity", [result])
            graph.insert_before(node, [copy])
            result = copy.outputs[0]
        if result.shape is None:
            result.shape = output.shape
        name = output.name
        if output.is_graph_output():
            output.replace_all_uses_with(result, replace_graph_outputs=True)
            output.name, result.name = f"{name}_old", name
        else:
            output.replace_all_uses_with(result)
    _detach(node)
    graph.remove(node, safe=True)
    return True


def _rename(rewriter: Rewriter, branch: ir.Graph) -> None:
    """Gives all that the branch and its subgraphs define names that nothing else has."""
    for graph in (branch, *branch.subgraphs()):
        for value in list(graph_values(graph)):
            value.name = rewriter.fresh(value.name or "value")


def _detach(node: ir.Node) -> None:
    """Ends the uses of outer values in the branch that is not taken."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                for k in range(len(inner.inputs)):
                    inner.replace_input_with(k, None)
