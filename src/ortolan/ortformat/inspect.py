"""Tells what is in an ORT model: a summary for people and programs, without printing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ortolan.ortformat.links import graphs
from ortolan.ortformat.packed import packed_weights
from ortolan.ortformat.schema import TensorDataType
from ortolan.ortformat.tables import (
    Graph,
    InferenceSession,
    MapType,
    SequenceType,
    SparseTensor,
    Tensor,
    TensorTypeAndShape,
    TypeInfo,
    ValueInfo,
)

__all__ = [
    "InitializerSummary",
    "OperatorSummary",
    "OrtSummary",
    "ValueSummary",
    "describe",
    "type_text",
]


@dataclass(frozen=True, slots=True)
class ValueSummary:
    """An input or output of the model.

    Attributes:
        name: its name.
        type: such as "tensor(float)" or "seq(map(int64,tensor(float)))"; empty if unknown.
        shape: per dimension its size, its name, or None where it is unknown; None in all for
            an unknown rank and for what is no tensor.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class OperatorSummary:
    """An operator, and how many nodes of all graphs use it; ai.onnx is the empty domain."""

    domain: str
    name: str
    since_version: int
    count: int


@dataclass(frozen=True, slots=True)
class InitializerSummary:
    """A constant.

    Attributes:
        name: its name; unique within its graph only.
        element_type: such as "float".
        dims: its sizes; those of the dense tensor for a sparse one.
        bytes: what it takes in the file.
        sparse: it is stored as values and indices.
        packed: it is stored in the order in which kernels read it.
    """

    name: str
    element_type: str
    dims: tuple[int, ...]
    bytes: int
    sparse: bool
    packed: bool = False


@dataclass(frozen=True, slots=True)
class OrtSummary:
    """What `describe` tells about a model.

    Attributes:
        format_version: of the file, "1" to "6".
        ir_version: of the ONNX model that it was made from.
        opsets: (domain, version) of each imported operator set.
        operators: sorted by domain, name and version; those in subgraphs are included.
        element_types: of all values and constants, such as "float", sorted.
        inputs: of the main graph, without those that have a constant as default.
        outputs: of the main graph.
        initializers: of all graphs, the largest first.
        initializer_bytes: of all initializers together.
        node_count: in all graphs.
        subgraph_count: graphs besides the main one.
        runtime_optimizations: names of optimizers with recorded optimizations, sorted.
        producer_name, producer_version, domain, model_version, doc_string, graph_doc_string,
            metadata: what the producer tells.
    """

    format_version: str
    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    operators: tuple[OperatorSummary, ...]
    element_types: tuple[str, ...]
    inputs: tuple[ValueSummary, ...]
    outputs: tuple[ValueSummary, ...]
    initializers: tuple[InitializerSummary, ...]
    initializer_bytes: int
    node_count: int
    subgraph_count: int
    runtime_optimizations: tuple[str, ...]
    producer_name: str
    producer_version: str
    domain: str
    model_version: int
    doc_string: str
    graph_doc_string: str
    metadata: tuple[tuple[str, str], ...]


def describe(session: InferenceSession) -> OrtSummary:
    """Summarizes a model that `ortolan.ortformat.read` returned, or one made in memory."""
    model = session.model
    graph = model.graph
    parts = list(graphs(graph))
    initializers = _initializers(parts)
    constants = {tensor.name for tensor in graph.initializers}
    constants.update(sparse.values.name for sparse in graph.sparse_initializers)
    return OrtSummary(
        format_version=session.ort_version,
        ir_version=model.ir_version,
        opsets=tuple((opset.domain, opset.version) for opset in model.opset_import),
        operators=_operators(parts),
        element_types=_element_types(parts),
        inputs=_values(graph, (name for name in graph.inputs if name not in constants)),
        outputs=_values(graph, graph.outputs),
        initializers=initializers,
        initializer_bytes=sum(item.bytes for item in initializers),
        node_count=sum(len(part.nodes) for part in parts),
        subgraph_count=len(parts) - 1,
        runtime_optimizations=_recorded_optimizers(parts),
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        graph_doc_string=model.graph_doc_string,
        metadata=tuple((entry.key, entry.value) for entry in model.metadata_props),
    )


def type_text(info: TypeInfo | None) -> str:
    """Returns a type as onnxruntime spells it, such as "tensor(float)"; empty if unknown."""
    value = info.value if info is not None else None
    if isinstance(value, TensorTypeAndShape):
        return f"tensor({_element_name(value.elem_type)})"
    if isinstance(value, SequenceType):
        return f"seq({type_text(value.elem_type)})"
    if isinstance(value, MapType):
        return f"map({_element_name(value.key_type)},{type_text(value.value_type)})"
    return ""


def _element_name(data_type: TensorDataType) -> str:
    return data_type.name.lower()


def _values(graph: Graph, names: Iterable[str]) -> tuple[ValueSummary, ...]:
    infos = {info.name: info for info in graph.node_args}
    return tuple(_value(infos.get(name, ValueInfo(name))) for name in names)


def _value(info: ValueInfo) -> ValueSummary:
    tensor = info.type.value if info.type is not None else None
    shape = None
    if isinstance(tensor, TensorTypeAndShape) and tensor.shape is not None:
        shape = tuple(dimension.size() for dimension in tensor.shape.dim)
    return ValueSummary(info.name, type_text(info.type), shape)


def _operators(parts: list[Graph]) -> tuple[OperatorSummary, ...]:
    uses = Counter(
        ("" if node.domain == "ai.onnx" else node.domain, node.op_type, node.since_version)
        for part in parts
        for node in part.nodes
    )
    return tuple(OperatorSummary(*key, uses[key]) for key in sorted(uses))


def _element_types(parts: list[Graph]) -> tuple[str, ...]:
    found: set[TensorDataType] = set()
    for part in parts:
        found.update(tensor.data_type for tensor in part.initializers)
        found.update(sparse.values.data_type for sparse in part.sparse_initializers)
        for info in part.node_args:
            _collect_element_types(info.type, found)
    found.discard(TensorDataType.UNDEFINED)
    return tuple(sorted(_element_name(data_type) for data_type in found))


def _collect_element_types(info: TypeInfo | None, found: set[TensorDataType]) -> None:
    value = info.value if info is not None else None
    if isinstance(value, TensorTypeAndShape):
        found.add(value.elem_type)
    elif isinstance(value, SequenceType):
        _collect_element_types(value.elem_type, found)
    elif isinstance(value, MapType):
        found.add(value.key_type)
        _collect_element_types(value.value_type, found)


def _initializers(parts: list[Graph]) -> tuple[InitializerSummary, ...]:
    found: list[InitializerSummary] = []
    for part in parts:
        packed = {each.stored.name: each for each in packed_weights(part)}
        found.extend(_dense(t) for t in part.initializers if t.name not in packed)
        found.extend(
            InitializerSummary(p.name, "float", p.dims, _stored_bytes(p.stored), False, True)
            for p in packed.values()
        )
        found.extend(_sparse(sparse) for sparse in part.sparse_initializers)
    return tuple(sorted(found, key=lambda item: (-item.bytes, item.name)))


def _stored_bytes(tensor: Tensor) -> int:
    if tensor.external_data_offset >= 0:
        return tensor.byte_size()  # in the file of weights
    return len(tensor.raw_data) + sum(len(text) for text in tensor.string_data)


def _dense(tensor: Tensor) -> InitializerSummary:
    name = _element_name(tensor.data_type)
    return InitializerSummary(
        tensor.name, name, tuple(tensor.dims), _stored_bytes(tensor), sparse=False
    )


def _sparse(sparse: SparseTensor) -> InitializerSummary:
    values = sparse.values
    size = _stored_bytes(values) + _stored_bytes(sparse.indices)
    name = _element_name(values.data_type)
    return InitializerSummary(values.name, name, tuple(sparse.dims), size, sparse=True)


def _recorded_optimizers(parts: list[Graph]) -> tuple[str, ...]:
    names: set[str] = set()
    for part in parts:
        if part.runtime_optimizations is not None:
            names.update(entry.optimizer_name for entry in part.runtime_optimizations.records)
    return tuple(sorted(names))
