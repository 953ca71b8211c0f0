"""Records fusions in a file instead of doing them: onnxruntime's optimization style "Runtime".

    x -> Conv -> y -> Relu -> z      =>      the same, and a record "ConvAct" of both nodes

A file of this style holds standard operators only, so that any execution provider can take its
nodes. onnxruntime replays the records, where it is told to, for nodes that are left to the CPU.
Recorded is what its converter records for float models: convolutions with an activation.
"""

from __future__ import annotations

from ortolan.ortformat.from_ir import type_strings
from ortolan.ortformat.links import graphs, op_ids, resolver
from ortolan.ortformat.schema import TensorDataType
from ortolan.ortformat.tables import (
    Graph,
    InferenceSession,
    Node,
    NodesToOptimizeIndices,
    OperatorSetId,
    RuntimeOptimizationRecord,
    RuntimeOptimizationRecordContainerEntry,
    RuntimeOptimizations,
    TensorTypeAndShape,
)

__all__ = ["record_fusions"]

_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip")
_PRODUCED = "com.microsoft:FusedConv:1"
_MICROSOFT = "com.microsoft"


def record_fusions(session: InferenceSession) -> bool:
    """Adds records of the fusions that onnxruntime may do to a file's graphs.

    Args:
        session: linked tables, changed in place.

    Returns:
        Whether there were any.
    """
    found = False
    for graph in graphs(session.model.graph):
        records = _convolutions(graph)
        if records:
            found = True
            entry = RuntimeOptimizationRecordContainerEntry("ConvActivationFusion", records)
            graph.runtime_optimizations = RuntimeOptimizations([entry])
    if found:
        model = session.model
        strings = ((op_id, type_strings(op_id)) for op_id in op_ids(model.graph))
        session.kernel_type_str_resolver = resolver(strings)
        if all(item.domain != _MICROSOFT for item in model.opset_import):
            model.opset_import.append(OperatorSetId(_MICROSOFT, 1))
    return found


def _convolutions(graph: Graph) -> list[RuntimeOptimizationRecord]:
    floats = {
        info.name
        for info in graph.node_args
        if info.type is not None
        and isinstance(info.type.value, TensorTypeAndShape)
        and info.type.value.elem_type is TensorDataType.FLOAT
    }
    constants = {tensor.name for tensor in graph.initializers} - set(graph.inputs)
    records = []
    for node, edge in zip(graph.nodes, graph.node_edges, strict=True):
        ends = edge.output_edges
        output = node.outputs[0]
        if (node.domain, node.op_type) != ("", "Conv") or len(ends) != 1:
            continue
        activation = graph.nodes[ends[0].node_index]
        free = output in floats and output not in graph.outputs and ends[0].dst_arg_index == 0
        if free and _fits(activation, constants):
            places = NodesToOptimizeIndices([node.index, activation.index], 0, 1)
            records.append(RuntimeOptimizationRecord("ConvAct", places, [_PRODUCED]))
    return records


def _fits(node: Node, constants: set[str]) -> bool:
    bounds = all(name in constants for name in node.inputs[1:] if name)
    return node.domain == "" and node.op_type in _ACTIVATIONS and bounds
