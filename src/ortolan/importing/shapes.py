"""Adds shapes, and types where no rule gives them, by onnx's own inference.

Shapes are hints: the runtime computes the real ones and trusts none of these. Where inference
fails, or finds nothing, what the model declares stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from ortolan.importing.naming import graph_values, subgraphs
from ortolan.importing.signatures import Type, same_type
from ortolan.importing.versions import since_version

__all__ = ["Hint", "apply_shapes", "infer_hints", "refine_shapes"]

# Larger constants are told by type and shape only: inference reads those that hold shapes.
_SMALL_BYTES = 1024

Hint = tuple[Type, ir.Shape | None]


def infer_hints(model: ir.Model) -> dict[ir.Value, Hint]:
    """Returns what onnx's inference finds for outputs of nodes, those in subgraphs included.

    Never raises: without a result there are no hints.

    Args:
        model: names of values are unique in all graphs around them; nodes have versions.
    """
    # Whatever goes wrong there, the model may be fine.
    try:
        proto = onnx.ModelProto(ir_version=model.ir_version)
        proto.graph.CopyFrom(_light_graph(model.graph, model))
        for domain, version in model.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=False, strict_mode=False, data_prop=True
        )
    except Exception:
        return {}
    hints: dict[ir.Value, Hint] = {}
    _collect(model.graph, inferred.graph, hints)
    names = _declared_names(model.graph)
    return {value: (type_, _known(shape, names)) for value, (type_, shape) in hints.items()}


def apply_shapes(model: ir.Model, hints: Mapping[ir.Value, Hint]) -> None:
    """Sets the shapes of values that have types: what is found, then what is declared."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for value in node.outputs:
                type_, shape = hints.get(value, (value.type, None))
                if type_ is not None and value.type is not None and same_type(type_, value.type):
                    value.shape = _merge(shape, value.shape)


def _light_graph(graph: ir.Graph, model: ir.Model) -> onnx.GraphProto:
    """The graph as a message without the bulk of its constants."""
    proto = onnx.GraphProto(name=graph.name or "graph")
    proto.input.extend(ir.to_proto(value) for value in graph.inputs)
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes <= _SMALL_BYTES:
            proto.initializer.append(ir.to_proto(tensor))
        elif not value.is_graph_input():
            proto.value_info.append(ir.to_proto(value))
    for node in graph:
        proto.node.append(_light_node(node, model))
        if not _is_standard(node, model):
            proto.value_info.extend(
                ir.to_proto(value) for value in node.outputs if value.name and value.type
            )
    proto.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.outputs)
    return proto


def _is_standard(node: ir.Node, model: ir.Model) -> bool:
    """Whether inference would read the node as the version that it has."""
    opset = model.opset_imports.get(node.domain)
    return opset is not None and since_version(node.domain, node.op_type, opset) == node.version


def _light_node(node: ir.Node, model: ir.Model) -> onnx.NodeProto:
    proto = onnx.NodeProto(
        name=node.name,
        op_type=node.op_type if _is_standard(node, model) else f"{node.op_type}_{node.version}",
        domain=node.domain,
        input=[value.name or "" if value is not None else "" for value in node.inputs],
        output=[value.name or "" for value in node.outputs],
    )
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            item = onnx.AttributeProto(name=attribute.name, type=onnx.AttributeProto.GRAPH)
            item.g.CopyFrom(_light_graph(attribute.as_graph(), model))
            proto.attribute.append(item)
        elif attribute.type != ir.AttributeType.GRAPHS:
            proto.attribute.append(ir.to_proto(attribute))
    return proto


def _collect(graph: ir.Graph, proto: onnx.GraphProto, hints: dict[ir.Value, Hint]) -> None:
    """Reads types and shapes from a message that has the graph's nodes in their order."""
    found = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    for node, node_proto in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            type_proto = found.get(value.name) if value.name else None
            type_ = None if type_proto is None else _type(type_proto)
            if type_proto is not None and type_ is not None:
                hints[value] = (type_, ir.serde.deserialize_type_proto_for_shape(type_proto))
        bodies = [item.g for item in node_proto.attribute if item.HasField("g")]
        for subgraph, body in zip(subgraphs(node), bodies, strict=False):
            _collect(subgraph, body, hints)


def _type(proto: onnx.TypeProto) -> Type | None:
    try:
        type_ = ir.serde.deserialize_type_proto_for_type(proto)
    except (ir.serde.SerdeError, NotImplementedError, ValueError):
        return None
    if type_ is None or type_.dtype == ir.DataType.UNDEFINED:
        return None
    return type_


def _declared_names(graph: ir.Graph) -> set[str]:
    """The names of sizes that the model itself uses; inference makes up others."""
    names: set[str] = set()
    for part in (graph, *graph.subgraphs()):
        for value in graph_values(part):
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    names.add(dim.value)
    return names


def _known(shape: ir.Shape | None, names: set[str]) -> ir.Shape | None:
    """Replaces the names that inference made up by unknown sizes."""
    if shape is None:
        return None
    return ir.Shape([dim if isinstance(dim, int) or dim.value in names else None for dim in shape])


def _merge(found: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    """What is found wins where it contradicts what is declared; names of sizes are kept."""
    if found is None or declared is None:
        return found if declared is None else declared
    if len(found) != len(declared):
        return found
    return ir.Shape(
        [_merge_size(a, b) for a, b in zip(found, declared, strict=True)],
    )


def _merge_size(
    found: int | ir.SymbolicDim, declared: int | ir.SymbolicDim
) -> int | ir.SymbolicDim:
    if isinstance(found, int):
        return found
    if isinstance(declared, int) or declared.value is not None:
        return declared
    return found


def refine_shapes(model: ir.Model) -> bool:
    """Infers shapes anew, after passes have made more values constant; types stay.

    Returns:
        True: shapes may have changed.
    """
    apply_shapes(model, infer_hints(model))
    return True
