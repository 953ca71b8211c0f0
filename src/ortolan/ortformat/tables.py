"""The tables of an ORT file as plain mutable Python objects.

Field names and their order are those of `ortolan.ortformat.schema`; a test holds the two
together. An absent string is "", an absent vector is [], an absent table is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ortolan.ortformat.schema import (
    ATTRIBUTE_FIELDS,
    ELEMENT_BITS,
    FORMAT_VERSION,
    ArgType,
    AttributeType,
    DimensionValueType,
    NodeType,
    TensorDataType,
)

__all__ = [
    "CLASSES",
    "ArgTypeAndIndex",
    "Attribute",
    "AttributeValue",
    "Dimension",
    "DimensionValue",
    "EdgeEnd",
    "Graph",
    "InferenceSession",
    "KernelTypeStrArgsEntry",
    "KernelTypeStrResolver",
    "MapType",
    "Model",
    "Node",
    "NodeEdge",
    "NodesToOptimizeIndices",
    "OpIdKernelTypeStrArgsEntry",
    "OperatorSetId",
    "OrtFormatError",
    "RuntimeOptimizationRecord",
    "RuntimeOptimizationRecordContainerEntry",
    "RuntimeOptimizations",
    "SequenceType",
    "Shape",
    "SparseTensor",
    "StringStringEntry",
    "Tensor",
    "TensorTypeAndShape",
    "TypeInfo",
    "ValueInfo",
]

RawData: TypeAlias = bytes | bytearray | memoryview


_LONGEST_PLACE = 200


class OrtFormatError(ValueError):
    """A file, or the tables to write, are not a valid ORT model.

    Attributes:
        problem: what is wrong.
        place: where, as a path of fields from the session ("model.graph.nodes[3].inputs").
    """

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place

    def within(self, segment: str) -> OrtFormatError:
        """Prepends `segment` to the place while the error travels up; returns itself."""
        if not self.place:
            self.place = segment
        elif self.place.startswith("["):
            self.place = segment + self.place
        else:
            self.place = f"{segment}.{self.place}"
        return self

    def __str__(self) -> str:
        place = self.place
        if len(place) > _LONGEST_PLACE:  # deep in graphs within graphs
            half = _LONGEST_PLACE // 2
            place = f"{place[:half]}...{place[-half:]}"
        return f"{place}: {self.problem}" if place else self.problem


@dataclass(slots=True)
class Shape:
    """Dimensions of a tensor type, outermost first."""

    dim: list[Dimension] = field(default_factory=list)


@dataclass(slots=True)
class DimensionValue:
    """One dimension: unknown, a number, or a name shared by equal dimensions."""

    dim_type: DimensionValueType = DimensionValueType.UNKNOWN
    dim_value: int = 0
    dim_param: str = ""


@dataclass(slots=True)
class Dimension:
    """A dimension and what it stands for (for example "DATA_BATCH")."""

    value: DimensionValue | None = None
    denotation: str = ""

    @classmethod
    def of(cls, value: int | str | None) -> Dimension:
        """Makes a dimension from its size, its name, or None where it is unknown."""
        if isinstance(value, str):
            return cls(DimensionValue(DimensionValueType.PARAM, 0, value))
        if value is None:
            return cls(DimensionValue())
        return cls(DimensionValue(DimensionValueType.VALUE, value))

    def size(self) -> int | str | None:
        """Returns the size, the name, or None where the dimension is unknown."""
        if self.value is None or self.value.dim_type is DimensionValueType.UNKNOWN:
            return None
        if self.value.dim_type is DimensionValueType.PARAM:
            return self.value.dim_param
        return self.value.dim_value


@dataclass(slots=True)
class TensorTypeAndShape:
    """Type of a tensor; a shape of None is an unknown rank."""

    elem_type: TensorDataType = TensorDataType.UNDEFINED
    shape: Shape | None = None


@dataclass(slots=True)
class SequenceType:
    """Type of a sequence."""

    elem_type: TypeInfo


@dataclass(slots=True)
class MapType:
    """Type of a map."""

    key_type: TensorDataType
    value_type: TypeInfo


@dataclass(slots=True)
class TypeInfo:
    """Type of a value; its union tag follows from the class of `value`."""

    denotation: str = ""
    value: TensorTypeAndShape | SequenceType | MapType | None = None


@dataclass(slots=True)
class ValueInfo:
    """A value of a graph. The empty name stands for an input or output left out."""

    name: str = ""
    doc_string: str = ""
    type: TypeInfo | None = None


@dataclass(slots=True)
class Tensor:
    """A constant tensor.

    `raw_data` holds the elements, little endian, row-major; after reading it is a view of
    the file. Strings are in `string_data` instead, as bytes of any encoding.
    """

    name: str = ""
    doc_string: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: TensorDataType = TensorDataType.UNDEFINED
    raw_data: RawData = b""
    string_data: list[bytes] = field(default_factory=list)
    external_data_offset: int = -1

    def element_count(self) -> int:
        """Returns the number of elements that `dims` tells."""
        return math.prod(self.dims)

    def byte_size(self) -> int:
        """Returns the bytes of `raw_data` that `dims` and `data_type` tell; 0 for strings."""
        return (self.element_count() * ELEMENT_BITS.get(self.data_type, 0) + 7) // 8


@dataclass(slots=True)
class SparseTensor:
    """A constant sparse tensor; the name is that of `values`."""

    values: Tensor
    indices: Tensor
    dims: list[int] = field(default_factory=list)


AttributeValue: TypeAlias = (
    "float | int | bytes | Tensor | Graph | list[float] | list[int] | list[bytes] "
    "| list[Tensor] | list[Graph] | None"
)


@dataclass(slots=True)
class Attribute:
    """A node's attribute; only the field that belongs to `type` holds the value."""

    name: str
    doc_string: str = ""
    type: AttributeType = AttributeType.UNDEFINED
    f: float = 0.0
    i: int = 0
    s: bytes = b""
    t: Tensor | None = None
    g: Graph | None = None
    floats: list[float] = field(default_factory=list)
    ints: list[int] = field(default_factory=list)
    strings: list[bytes] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    graphs: list[Graph] = field(default_factory=list)

    @property
    def value(self) -> AttributeValue:
        """The value in the field that belongs to `type`; None for a type without a field."""
        name = ATTRIBUTE_FIELDS.get(self.type)
        value: AttributeValue = getattr(self, name) if name else None
        return value

    def subgraphs(self) -> list[Graph]:
        """Returns the graphs that the attribute holds."""
        if self.type is AttributeType.GRAPH and self.g is not None:
            return [self.g]
        return self.graphs if self.type is AttributeType.GRAPHS else []


@dataclass(slots=True)
class Node:
    """An operator's use in a graph.

    `input_arg_counts` tells how many of `inputs` belong to each formal input, more than one
    for a variadic input. `implicit_inputs` are the outer values that its subgraphs use.
    """

    name: str = ""
    doc_string: str = ""
    domain: str = ""
    since_version: int = 0
    index: int = 0
    op_type: str = ""
    type: NodeType = NodeType.PRIMITIVE
    execution_provider_type: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)
    input_arg_counts: list[int] = field(default_factory=list)
    implicit_inputs: list[str] = field(default_factory=list)

    def op_id(self) -> str:
        """Returns "domain:OpType:since_version", with an empty domain for ai.onnx."""
        domain = "" if self.domain == "ai.onnx" else self.domain
        return f"{domain}:{self.op_type}:{self.since_version}"

    def subgraphs(self) -> Iterator[Graph]:
        """Yields the graphs in the node's attributes, not those nested in them."""
        for attribute in self.attributes:
            yield from attribute.subgraphs()


class EdgeEnd(NamedTuple):
    """The other end of an edge: a node, and which output feeds which input."""

    node_index: int
    src_arg_index: int
    dst_arg_index: int


@dataclass(slots=True)
class NodeEdge:
    """The edges of one node."""

    node_index: int = 0
    input_edges: list[EdgeEnd] = field(default_factory=list)
    output_edges: list[EdgeEnd] = field(default_factory=list)


@dataclass(slots=True)
class NodesToOptimizeIndices:
    """The nodes that a recorded optimization acts on."""

    node_indices: list[int] = field(default_factory=list)
    num_inputs: int = 0
    num_outputs: int = 0
    has_variadic_input: bool = False
    has_variadic_output: bool = False
    num_variadic_inputs: int = 0
    num_variadic_outputs: int = 0


@dataclass(slots=True)
class RuntimeOptimizationRecord:
    """One optimization that onnxruntime may replay when it loads the file."""

    action_id: str
    nodes_to_optimize_indices: NodesToOptimizeIndices
    produced_op_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RuntimeOptimizationRecordContainerEntry:
    """The recorded optimizations of one optimizer."""

    optimizer_name: str
    runtime_optimization_records: list[RuntimeOptimizationRecord] = field(default_factory=list)


@dataclass(slots=True)
class RuntimeOptimizations:
    """The recorded optimizations of a graph, by optimizer."""

    records: list[RuntimeOptimizationRecordContainerEntry] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    """A graph. `node_args` holds the types of all its values, outer ones included."""

    initializers: list[Tensor] = field(default_factory=list)
    node_args: list[ValueInfo] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    max_node_index: int = 0
    node_edges: list[NodeEdge] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    sparse_initializers: list[SparseTensor] = field(default_factory=list)
    runtime_optimizations: RuntimeOptimizations | None = None


@dataclass(slots=True)
class OperatorSetId:
    """An operator set that the model imports."""

    domain: str = ""
    version: int = 0


@dataclass(slots=True)
class StringStringEntry:
    """One entry of the model's metadata."""

    key: str = ""
    value: str = ""


@dataclass(slots=True)
class Model:
    """A model and what its producer tells about it."""

    graph: Graph
    ir_version: int = 0
    opset_import: list[OperatorSetId] = field(default_factory=list)
    producer_name: str = ""
    producer_version: str = ""
    domain: str = ""
    model_version: int = 0
    doc_string: str = ""
    graph_doc_string: str = ""
    metadata_props: list[StringStringEntry] = field(default_factory=list)


@dataclass(slots=True)
class ArgTypeAndIndex:
    """An input or output of an operator, by its formal index."""

    arg_type: ArgType = ArgType.INPUT
    index: int = 0


@dataclass(slots=True)
class KernelTypeStrArgsEntry:
    """The arguments whose type a type string (a type parameter, or a name) stands for."""

    kernel_type_str: str
    args: list[ArgTypeAndIndex] = field(default_factory=list)


@dataclass(slots=True)
class OpIdKernelTypeStrArgsEntry:
    """The type strings of one operator, such as ":Conv:11"."""

    op_id: str
    kernel_type_str_args: list[KernelTypeStrArgsEntry] = field(default_factory=list)


@dataclass(slots=True)
class KernelTypeStrResolver:
    """What onnxruntime needs to match nodes and kernels without the operator schemas."""

    op_kernel_type_str_args: list[OpIdKernelTypeStrArgsEntry] = field(default_factory=list)


@dataclass(slots=True)
class InferenceSession:
    """The root of an ORT file."""

    model: Model
    ort_version: str = FORMAT_VERSION
    kernel_type_str_resolver: KernelTypeStrResolver | None = None


CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        ArgTypeAndIndex,
        Attribute,
        Dimension,
        DimensionValue,
        Graph,
        InferenceSession,
        KernelTypeStrArgsEntry,
        KernelTypeStrResolver,
        MapType,
        Model,
        Node,
        NodeEdge,
        NodesToOptimizeIndices,
        OpIdKernelTypeStrArgsEntry,
        OperatorSetId,
        RuntimeOptimizationRecord,
        RuntimeOptimizationRecordContainerEntry,
        RuntimeOptimizations,
        SequenceType,
        Shape,
        SparseTensor,
        StringStringEntry,
        Tensor,
        TensorTypeAndShape,
        TypeInfo,
        ValueInfo,
    )
}
