"""Computes once what is computed several times.

    x -> Abs -> a -> A              x -> Abs -> a -> A
    x -> Abs -> b -> B      =>               '-----> B

1. Two nodes with the same operator, version, attributes and inputs: users of the second use the
   first. A node in a subgraph finds those before it in the graphs around it, too.
2. Two constants of up to `SMALL` bytes with the same type, shape and bytes are one.

Not rewritten when a node's results differ from run to run, it holds a graph, both results are
outputs of the graph, or an output of a subgraph is computed outside of it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable
from typing import Any

import onnx_ir as ir

from ortolan import catalog
from ortolan.importing.naming import subgraphs
from ortolan.importing.signatures import same_type
from ortolan.passes.rewriting import Rewriter
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["SMALL", "share_common"]

SMALL = 4096
_VOLATILE = frozenset(
    {
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
        "Bernoulli", "Dropout",
    }
)  # fmt: skip


def share_common(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Shares equal nodes and constants; returns whether there were any."""
    return _share(Rewriter(model, target), model.graph, ChainMap(), ChainMap())


def _share(
    rewriter: Rewriter,
    graph: ir.Graph,
    nodes: ChainMap[Hashable, ir.Node],
    constants: ChainMap[Hashable, ir.Value],
) -> bool:
    modified = False
    for value in list(graph.initializers.values()):
        key = _constant_key(value)
        if key is None:
            continue
        known = constants.setdefault(key, value)
        if known is not value and not value.is_graph_output() and value.uses():
            value.replace_all_uses_with(known)
            modified = True
    for node in list(graph):
        inner = list(subgraphs(node))
        for subgraph in inner:
            modified |= _share(rewriter, subgraph, nodes.new_child(), constants.new_child())
        key = None if inner else _node_key(node)
        if key is None:
            continue
        known_node = nodes.setdefault(key, node)
        if known_node is not node:
            modified |= _merge(rewriter, node, known_node)
    return modified


def _constant_key(value: ir.Value) -> Hashable | None:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or tensor.nbytes > SMALL:
        return None
    if tensor.dtype == ir.DataType.STRING:
        return None
    return (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())


def _node_key(node: ir.Node) -> Hashable | None:
    operator = catalog.find(node.domain, node.op_type, node.version or 1)
    if node.op_type in _VOLATILE or (operator is not None and "volatile" in operator.flags):
        return None
    if operator is None and node.domain not in ("", "ai.onnx.ml", "com.microsoft"):
        return None
    attributes = tuple(sorted((name, _attribute_key(a)) for name, a in node.attributes.items()))
    present = tuple(value.name != "" for value in node.outputs)
    # A value that is left out and one that is there never are the same object.
    inputs = tuple(id(value) for value in node.inputs)
    return (node.domain, node.op_type, node.version, inputs, attributes, present)


def _attribute_key(attribute: ir.Attr) -> str:
    value: Any = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        is_text = value.dtype == ir.DataType.STRING
        content = value.string_data() if is_text else value.tobytes()
        return f"{value.dtype} {value.shape} {content!r}"
    if attribute.type == ir.AttributeType.FLOAT:
        return float(value).hex()
    return repr(value)


def _merge(rewriter: Rewriter, node: ir.Node, known: ir.Node) -> bool:
    pairs = list(zip(node.outputs, known.outputs, strict=True))
    if not all(a.type and b.type and same_type(a.type, b.type) for a, b in pairs if a.name):
        return False
    if len(pairs) == 1:
        return rewriter.bypass(node, pairs[0][1])
    if any(value.is_graph_output() for value in node.outputs):
        return False
    for value, other in pairs:
        value.replace_all_uses_with(other)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    return True
