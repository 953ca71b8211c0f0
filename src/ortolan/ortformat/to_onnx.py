"""Tables of the ORT format -> an ONNX model.

In: a file as `reader.read` gives it, ours or onnxruntime's. Out: an `onnx.ModelProto` with the
same nodes, names, types, constants and texts. The ORT format keeps no name of a graph and no
name of a value's producer file; ONNX keeps no provider of a node and no recorded fusions: that
is all that is lost on the two ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import onnx

from ortolan import errors
from ortolan.importing.versions import newest_opset, same_operator, since_version
from ortolan.ortformat import tables
from ortolan.ortformat.links import graphs
from ortolan.ortformat.packed import unpack_weights
from ortolan.ortformat.schema import (
    MAX_FILE_SIZE,
    NO_MODEL_VERSION,
    OPTIONAL_DENOTATION,
    AttributeType,
    DimensionValueType,
    NodeType,
    TensorDataType,
)

__all__ = ["to_onnx"]

# The format has no place for it, and ONNX wants one.
_GRAPH_NAME = "graph"
# Since this version of ONNX constants need not be inputs too.
_FREE_CONSTANTS = 4
_OWN_DOMAIN = "ai.ortolan"


def to_onnx(session: tables.InferenceSession) -> onnx.ModelProto:
    """Returns a file's model as an ONNX message.

    Args:
        session: the tables of a file; packed weights in it become plain.

    Raises:
        OrtFormatError: packed weights are damaged.
        NotImplemented: nodes have no place in ONNX: operators of `ai.ortolan`, or nodes whose
            versions no single opset import gives them.
        LimitExceeded: constants take more than the 2 GB of a message.
    """
    source = session.model
    # A file may hold bytes once that many constants have.
    if sum(len(tensor.raw_data) for tensor in _tensors(source.graph)) > MAX_FILE_SIZE:
        raise errors.LimitExceeded("an ONNX file ends at 2 GB, and the model's constants take more")
    unpack_weights(session)
    _check_nodes(source.graph)
    model = onnx.ModelProto(ir_version=source.ir_version)
    for domain, version in _imports(source).items():
        model.opset_import.add(domain=domain, version=version)
    for name in ("producer_name", "producer_version", "domain", "doc_string"):
        if getattr(source, name):
            setattr(model, name, getattr(source, name))
    if source.model_version != NO_MODEL_VERSION:
        model.model_version = source.model_version
    for entry in source.metadata_props:
        model.metadata_props.add(key=entry.key, value=entry.value)
    _fill_graph(model.graph, source.graph, _GRAPH_NAME)
    if source.graph_doc_string:
        model.graph.doc_string = source.graph_doc_string
    if any(t.name not in source.graph.inputs for t in source.graph.initializers):
        model.ir_version = max(model.ir_version, _FREE_CONSTANTS)
    return model


def _tensors(graph: tables.Graph) -> Iterator[tables.Tensor]:
    """All tensors of a graph and those in it."""
    for part in graphs(graph):
        yield from part.initializers
        for sparse in part.sparse_initializers:
            yield from (sparse.values, sparse.indices)
        for node in part.nodes:
            for attribute in node.attributes:
                yield from (attribute.t,) if attribute.t is not None else ()
                yield from attribute.tensors


def _check_nodes(graph: tables.Graph) -> None:
    for part in graphs(graph):
        for node in part.nodes:
            if node.domain == _OWN_DOMAIN or node.type is NodeType.FUSED:
                raise errors.NotImplemented(
                    f'[{node.domain}:{node.op_type}] node "{node.name}": ONNX has no such '
                    "operator; convert the model it came from, at most at level layout"
                )


def _imports(model: tables.Model) -> dict[str, int]:
    """Returns an opset import per domain in use, under which each node keeps its meaning."""
    nodes: dict[str, list[tables.Node]] = defaultdict(list)
    for part in graphs(model.graph):
        for node in part.nodes:
            nodes["" if node.domain == "ai.onnx" else node.domain].append(node)
    told = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    if not nodes:
        return {"": told.get("", 1)}
    order = [domain for domain in told if domain in nodes]
    order += [domain for domain in nodes if domain not in told]
    return {domain: _import(domain, told.get(domain, 1), nodes[domain]) for domain in order}


def _import(domain: str, told: int, nodes: Sequence[tables.Node]) -> int:
    """The version nearest to the file's own that fits all nodes of a domain."""
    candidates = range(1, newest_opset(domain) + 1)
    for version in (told, *sorted(candidates, key=lambda v: (abs(v - told), v))):
        if all(_fits(domain, node, version) for node in nodes):
            return version
    wrong = next(node for node in nodes if not _fits(domain, node, told))
    raise errors.NotImplemented(
        f'[{wrong.op_type}] node "{wrong.name}": it has version {wrong.since_version}, and the '
        f'file imports version {told} of "{domain or "ai.onnx"}": ONNX has no model with both'
    )


def _fits(domain: str, node: tables.Node, version: int) -> bool:
    found = since_version(domain, node.op_type, version)
    if found <= node.since_version:
        return found == node.since_version
    return same_operator(domain, node.op_type, node.since_version, found)


def _fill_graph(target: onnx.GraphProto, source: tables.Graph, name: str) -> None:
    target.name = name
    infos = {info.name: info for info in source.node_args}
    inputs, outputs = set(source.inputs), set(source.outputs)
    for field, names in ((target.input, source.inputs), (target.output, source.outputs)):
        for value in names:
            _fill_value(field.add(), infos.get(value) or tables.ValueInfo(value))
    for tensor in source.initializers:
        _fill_tensor(target.initializer.add(), tensor)
    for sparse in source.sparse_initializers:
        _fill_sparse(target.sparse_initializer.add(), sparse)
    constants = {tensor.name for tensor in source.initializers}
    computed = {value for node in source.nodes for value in node.outputs}
    for info in source.node_args:
        own = info.name in computed and info.name not in constants | inputs | outputs
        if own and info.name and info.type is not None:
            _fill_value(target.value_info.add(), info)
    for node in source.nodes:
        _fill_node(target.node.add(), node, infos)


def _fill_node(
    target: onnx.NodeProto, source: tables.Node, infos: Mapping[str, tables.ValueInfo]
) -> None:
    target.op_type = source.op_type
    for name in ("name", "domain", "doc_string"):
        if getattr(source, name):
            setattr(target, name, getattr(source, name))
    target.input.extend(source.inputs)
    target.output.extend(source.outputs)
    for attribute in source.attributes:
        _fill_attribute(target.attribute.add(), attribute)
    if source.op_type == "Optional" and not any(source.inputs) and source.outputs:
        _fill_optional(target, infos.get(source.outputs[0]))


def _fill_optional(target: onnx.NodeProto, result: tables.ValueInfo | None) -> None:
    """Says which type an Optional without an input is empty of; the file has it as its result's."""
    if result is not None and result.type is not None:
        kind = target.attribute.add(name="type", type=onnx.AttributeProto.TYPE_PROTO)
        _fill_type(kind.tp, tables.TypeInfo("", result.type.value))


def _fill_attribute(target: onnx.AttributeProto, source: tables.Attribute) -> None:
    target.name = source.name
    target.type = cast("Any", int(source.type))
    if source.doc_string:
        target.doc_string = source.doc_string
    match source.type:
        case AttributeType.FLOAT | AttributeType.INT | AttributeType.STRING:
            setattr(target, {1: "f", 2: "i", 3: "s"}[int(source.type)], source.value)
        case AttributeType.FLOATS:
            target.floats.extend(source.floats)
        case AttributeType.INTS:
            target.ints.extend(source.ints)
        case AttributeType.STRINGS:
            target.strings.extend(source.strings)
        case AttributeType.TENSOR if source.t is not None:
            _fill_tensor(target.t, source.t)
        case AttributeType.TENSORS:
            for tensor in source.tensors:
                _fill_tensor(target.tensors.add(), tensor)
        case AttributeType.GRAPH if source.g is not None:
            _fill_graph(target.g, source.g, source.name)
        case AttributeType.GRAPHS:
            for k, graph in enumerate(source.graphs):
                _fill_graph(target.graphs.add(), graph, f"{source.name}_{k}")


def _fill_tensor(target: onnx.TensorProto, source: tables.Tensor) -> None:
    target.data_type = int(source.data_type)
    target.dims.extend(source.dims)
    if source.name:
        target.name = source.name
    if source.doc_string:
        target.doc_string = source.doc_string
    if source.data_type is TensorDataType.STRING:
        target.string_data.extend(source.string_data)
    else:
        target.raw_data = bytes(source.raw_data)


def _fill_sparse(target: onnx.SparseTensorProto, source: tables.SparseTensor) -> None:
    _fill_tensor(target.values, source.values)
    _fill_tensor(target.indices, source.indices)
    target.dims.extend(source.dims)


def _fill_value(target: onnx.ValueInfoProto, source: tables.ValueInfo) -> None:
    target.name = source.name
    if source.doc_string:
        target.doc_string = source.doc_string
    if source.type is not None:
        _fill_type(target.type, source.type)


def _fill_type(target: onnx.TypeProto, source: tables.TypeInfo) -> None:
    if source.denotation == OPTIONAL_DENOTATION:
        _fill_type(target.optional_type.elem_type, tables.TypeInfo("", source.value))
        return
    if source.denotation:
        target.denotation = source.denotation
    match source.value:
        case tables.TensorTypeAndShape(elem_type=elem_type, shape=shape):
            target.tensor_type.elem_type = int(elem_type)
            if shape is not None:
                target.tensor_type.shape.SetInParent()
                _fill_shape(target.tensor_type.shape, shape.dim)
        case tables.SequenceType(elem_type=inner):
            _fill_type(target.sequence_type.elem_type, inner)
        case tables.MapType(key_type=key, value_type=value):
            target.map_type.key_type = int(key)
            _fill_type(target.map_type.value_type, value)


def _fill_shape(target: onnx.TensorShapeProto, dims: Iterable[tables.Dimension]) -> None:
    for source in dims:
        dim = target.dim.add()
        if source.denotation:
            dim.denotation = source.denotation
        value = source.value
        if value is None:
            continue
        if value.dim_type is DimensionValueType.VALUE:
            dim.dim_value = value.dim_value
        elif value.dim_type is DimensionValueType.PARAM:
            dim.dim_param = value.dim_param
