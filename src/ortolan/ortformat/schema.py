"""The ORT flatbuffer schema as data: the single place that lists tables, slots and enums.

The reader, the writer and the generated C++ header walk these declarations. The position
of a field in its table is its flatbuffer slot, so a field is never removed or moved.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "ATTRIBUTE_FIELDS",
    "ELEMENT_BITS",
    "ENUMS",
    "FILE_IDENTIFIER",
    "FIRST_EXTENSION_TYPE",
    "FORMAT_VERSION",
    "MAX_DEPTH",
    "MAX_FILE_SIZE",
    "MAX_TABLES",
    "NO_MODEL_VERSION",
    "OPTIONAL_DENOTATION",
    "READABLE_VERSIONS",
    "ROOT_TABLE",
    "SCALARS",
    "STRUCTS",
    "TABLES",
    "UNIONS",
    "ArgType",
    "AttributeType",
    "DimensionValueType",
    "EnumInfo",
    "Field",
    "Kind",
    "NodeType",
    "Scalar",
    "Struct",
    "Table",
    "TensorDataType",
    "TypeInfoValue",
]

FILE_IDENTIFIER = b"ORTM"
FORMAT_VERSION = "6"
READABLE_VERSIONS = ("1", "2", "3", "4", "5", "6")
ROOT_TABLE = "InferenceSession"

# The flatbuffers verifier in onnxruntime stops at this nesting and this many tables, so a file
# beyond them would be of no use there.
MAX_DEPTH = 64
MAX_TABLES = 1_000_000

# onnxruntime keeps this number for a model without a version of its own.
NO_MODEL_VERSION = 2**63 - 1

# The format has no optional types. Ours are the type of the element with this denotation, an
# extension: other readers see a value that is always there.
OPTIONAL_DENOTATION = "ai.ortolan.optional"

# Flatbuffer offsets within a vector of tables are 32 bits, and the container's limit is signed.
MAX_FILE_SIZE = 2**31 - 1


class AttributeType(enum.IntEnum):
    """Type of a node's attribute; the numbers are those of ONNX."""

    UNDEFINED = 0
    FLOAT = 1
    INT = 2
    STRING = 3
    TENSOR = 4
    GRAPH = 5
    FLOATS = 6
    INTS = 7
    STRINGS = 8
    TENSORS = 9
    GRAPHS = 10
    SPARSE_TENSOR = 11
    SPARSE_TENSORS = 12


class TensorDataType(enum.IntEnum):
    """Element type of a tensor; the numbers are those of ONNX.

    The format's own enumeration ends before `FIRST_EXTENSION_TYPE`: onnxruntime writes files
    with the types from there on, but does not load them.
    """

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26


FIRST_EXTENSION_TYPE = TensorDataType.UINT4


class NodeType(enum.IntEnum):
    """Whether a node is an operator of the model or was fused by a provider."""

    PRIMITIVE = 0
    FUSED = 1


class DimensionValueType(enum.IntEnum):
    """What a dimension is known by: nothing, its value, or its name."""

    UNKNOWN = 0
    VALUE = 1
    PARAM = 2


class ArgType(enum.IntEnum):
    """Which side of an operator an argument is on."""

    INPUT = 0
    OUTPUT = 1


class TypeInfoValue(enum.IntEnum):
    """Tag of the union of types that a value may have."""

    NONE = 0
    TENSOR_TYPE = 1
    SEQUENCE_TYPE = 2
    MAP_TYPE = 3


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar type: its `struct` code (little endian is implied) and size in bytes."""

    code: str
    size: int


SCALARS = {
    "bool": Scalar("?", 1),
    "i8": Scalar("b", 1),
    "u8": Scalar("B", 1),
    "i32": Scalar("i", 4),
    "u32": Scalar("I", 4),
    "f32": Scalar("f", 4),
    "i64": Scalar("q", 8),
}


@dataclass(frozen=True, slots=True)
class EnumInfo:
    """An enumeration and the scalar that stores it."""

    type: type[enum.IntEnum]
    scalar: str


ENUMS = {
    "AttributeType": EnumInfo(AttributeType, "i32"),
    "TensorDataType": EnumInfo(TensorDataType, "i32"),
    "NodeType": EnumInfo(NodeType, "i32"),
    "DimensionValueType": EnumInfo(DimensionValueType, "i8"),
    "ArgType": EnumInfo(ArgType, "i8"),
    "TypeInfoValue": EnumInfo(TypeInfoValue, "u8"),
}

# Member tables of each union; index 0 is the tag NONE.
UNIONS = {"TypeInfoValue": (None, "TensorTypeAndShape", "SequenceType", "MapType")}


class Kind(enum.Enum):
    """How a field is stored. BYTES is a string that need not be UTF-8, BLOB a vector of u8."""

    DEPRECATED = enum.auto()
    SCALAR = enum.auto()
    ENUM = enum.auto()
    STRING = enum.auto()
    BYTES = enum.auto()
    TABLE = enum.auto()
    UNION_TAG = enum.auto()
    UNION = enum.auto()
    SCALARS = enum.auto()
    BLOB = enum.auto()
    STRINGS = enum.auto()
    BYTES_LIST = enum.auto()
    STRUCTS = enum.auto()
    TABLES = enum.auto()


@dataclass(frozen=True, slots=True)
class Field:
    """One slot of a table.

    Attributes:
        name: the field's name in snake case.
        kind: how it is stored.
        type: name of the scalar, enumeration, struct, table or union; empty for strings.
        default: value of an absent scalar.
        required: an absent table or string makes the file invalid.
        keep_empty: an empty string or vector is written, not left out; onnxruntime refuses
            files without them.
    """

    name: str
    kind: Kind
    type: str = ""
    default: int | float = 0
    required: bool = False
    keep_empty: bool = False


@dataclass(frozen=True, slots=True)
class Struct:
    """A fixed-size record stored inline in a vector: names and scalar types of its members."""

    name: str
    members: tuple[tuple[str, str], ...]
    size: int
    align: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its fields in slot order, and the field that vectors of it are sorted by."""

    name: str
    fields: tuple[Field, ...]
    key: str = ""


_TABLES = (
    Table(
        "InferenceSession",
        (
            Field("ort_version", Kind.STRING, required=True),
            Field("model", Kind.TABLE, "Model", required=True),
            Field("session_state", Kind.DEPRECATED),
            Field("kernel_type_str_resolver", Kind.TABLE, "KernelTypeStrResolver"),
        ),
    ),
    Table(
        "Model",
        (
            Field("ir_version", Kind.SCALAR, "i64"),
            Field("opset_import", Kind.TABLES, "OperatorSetId", keep_empty=True),
            Field("producer_name", Kind.STRING, keep_empty=True),
            Field("producer_version", Kind.STRING, keep_empty=True),
            Field("domain", Kind.STRING, keep_empty=True),
            Field("model_version", Kind.SCALAR, "i64"),
            Field("doc_string", Kind.STRING),
            Field("graph", Kind.TABLE, "Graph", required=True),
            Field("graph_doc_string", Kind.STRING),
            Field("metadata_props", Kind.TABLES, "StringStringEntry"),
        ),
    ),
    Table(
        "OperatorSetId",
        (
            Field("domain", Kind.STRING, keep_empty=True),
            Field("version", Kind.SCALAR, "i64"),
        ),
    ),
    Table(
        "StringStringEntry",
        (
            Field("key", Kind.STRING, keep_empty=True),
            Field("value", Kind.STRING, keep_empty=True),
        ),
    ),
    Table(
        "Graph",
        (
            Field("initializers", Kind.TABLES, "Tensor", keep_empty=True),
            Field("node_args", Kind.TABLES, "ValueInfo", keep_empty=True),
            Field("nodes", Kind.TABLES, "Node", keep_empty=True),
            Field("max_node_index", Kind.SCALAR, "u32"),
            Field("node_edges", Kind.TABLES, "NodeEdge", keep_empty=True),
            Field("inputs", Kind.STRINGS, keep_empty=True),
            Field("outputs", Kind.STRINGS, keep_empty=True),
            Field("sparse_initializers", Kind.TABLES, "SparseTensor", keep_empty=True),
            Field("runtime_optimizations", Kind.TABLE, "RuntimeOptimizations"),
        ),
    ),
    Table(
        "Node",
        (
            Field("name", Kind.STRING, keep_empty=True),
            Field("doc_string", Kind.STRING),
            Field("domain", Kind.STRING, keep_empty=True),
            Field("since_version", Kind.SCALAR, "i32"),
            Field("index", Kind.SCALAR, "u32"),
            Field("op_type", Kind.STRING, required=True),
            Field("type", Kind.ENUM, "NodeType"),
            Field("execution_provider_type", Kind.STRING, keep_empty=True),
            Field("inputs", Kind.STRINGS, keep_empty=True),
            Field("outputs", Kind.STRINGS, keep_empty=True),
            Field("attributes", Kind.TABLES, "Attribute", keep_empty=True),
            Field("input_arg_counts", Kind.SCALARS, "i32", keep_empty=True),
            Field("implicit_inputs", Kind.STRINGS, keep_empty=True),
        ),
    ),
    Table(
        "NodeEdge",
        (
            Field("node_index", Kind.SCALAR, "u32"),
            Field("input_edges", Kind.STRUCTS, "EdgeEnd"),
            Field("output_edges", Kind.STRUCTS, "EdgeEnd"),
        ),
    ),
    Table(
        "Tensor",
        (
            Field("name", Kind.STRING),
            Field("doc_string", Kind.STRING),
            Field("dims", Kind.SCALARS, "i64", keep_empty=True),
            Field("data_type", Kind.ENUM, "TensorDataType"),
            Field("raw_data", Kind.BLOB),
            Field("string_data", Kind.BYTES_LIST),
            Field("external_data_offset", Kind.SCALAR, "i64", default=-1),
        ),
    ),
    Table(
        "SparseTensor",
        (
            Field("values", Kind.TABLE, "Tensor", required=True),
            Field("indices", Kind.TABLE, "Tensor", required=True),
            Field("dims", Kind.SCALARS, "i64", keep_empty=True),
        ),
    ),
    Table(
        "Attribute",
        (
            Field("name", Kind.STRING, required=True),
            Field("doc_string", Kind.STRING),
            Field("type", Kind.ENUM, "AttributeType"),
            Field("f", Kind.SCALAR, "f32"),
            Field("i", Kind.SCALAR, "i64"),
            Field("s", Kind.BYTES),
            Field("t", Kind.TABLE, "Tensor"),
            Field("g", Kind.TABLE, "Graph"),
            Field("floats", Kind.SCALARS, "f32"),
            Field("ints", Kind.SCALARS, "i64"),
            Field("strings", Kind.BYTES_LIST),
            Field("tensors", Kind.TABLES, "Tensor"),
            Field("graphs", Kind.TABLES, "Graph"),
        ),
    ),
    Table(
        "ValueInfo",
        (
            Field("name", Kind.STRING, keep_empty=True),
            Field("doc_string", Kind.STRING),
            Field("type", Kind.TABLE, "TypeInfo"),
        ),
    ),
    Table(
        "TypeInfo",
        (
            Field("denotation", Kind.STRING),
            Field("value_type", Kind.UNION_TAG, "TypeInfoValue"),
            Field("value", Kind.UNION, "TypeInfoValue"),
        ),
    ),
    Table(
        "TensorTypeAndShape",
        (
            Field("elem_type", Kind.ENUM, "TensorDataType"),
            Field("shape", Kind.TABLE, "Shape"),
        ),
    ),
    Table("SequenceType", (Field("elem_type", Kind.TABLE, "TypeInfo", required=True),)),
    Table(
        "MapType",
        (
            Field("key_type", Kind.ENUM, "TensorDataType"),
            Field("value_type", Kind.TABLE, "TypeInfo", required=True),
        ),
    ),
    Table("Shape", (Field("dim", Kind.TABLES, "Dimension", keep_empty=True),)),
    Table(
        "Dimension",
        (
            Field("value", Kind.TABLE, "DimensionValue"),
            Field("denotation", Kind.STRING),
        ),
    ),
    Table(
        "DimensionValue",
        (
            Field("dim_type", Kind.ENUM, "DimensionValueType"),
            Field("dim_value", Kind.SCALAR, "i64"),
            Field("dim_param", Kind.STRING),
        ),
    ),
    Table(
        "RuntimeOptimizations",
        (Field("records", Kind.TABLES, "RuntimeOptimizationRecordContainerEntry"),),
    ),
    Table(
        "RuntimeOptimizationRecordContainerEntry",
        (
            Field("optimizer_name", Kind.STRING, required=True),
            Field("runtime_optimization_records", Kind.TABLES, "RuntimeOptimizationRecord"),
        ),
        key="optimizer_name",
    ),
    Table(
        "RuntimeOptimizationRecord",
        (
            Field("action_id", Kind.STRING, keep_empty=True),
            Field(
                "nodes_to_optimize_indices",
                Kind.TABLE,
                "NodesToOptimizeIndices",
                required=True,
            ),
            Field("produced_nodes", Kind.DEPRECATED),
            Field("produced_op_ids", Kind.STRINGS, keep_empty=True),
        ),
    ),
    Table(
        "NodesToOptimizeIndices",
        (
            Field("node_indices", Kind.SCALARS, "u32", keep_empty=True),
            Field("num_inputs", Kind.SCALAR, "u32"),
            Field("num_outputs", Kind.SCALAR, "u32"),
            Field("has_variadic_input", Kind.SCALAR, "bool"),
            Field("has_variadic_output", Kind.SCALAR, "bool"),
            Field("num_variadic_inputs", Kind.SCALAR, "u32"),
            Field("num_variadic_outputs", Kind.SCALAR, "u32"),
        ),
    ),
    Table(
        "KernelTypeStrResolver",
        (
            Field(
                "op_kernel_type_str_args",
                Kind.TABLES,
                "OpIdKernelTypeStrArgsEntry",
                keep_empty=True,
            ),
        ),
    ),
    Table(
        "OpIdKernelTypeStrArgsEntry",
        (
            Field("op_id", Kind.STRING, required=True),
            Field("kernel_type_str_args", Kind.TABLES, "KernelTypeStrArgsEntry", keep_empty=True),
        ),
        key="op_id",
    ),
    Table(
        "KernelTypeStrArgsEntry",
        (
            Field("kernel_type_str", Kind.STRING, required=True),
            Field("args", Kind.TABLES, "ArgTypeAndIndex", keep_empty=True),
        ),
        key="kernel_type_str",
    ),
    Table(
        "ArgTypeAndIndex",
        (
            Field("arg_type", Kind.ENUM, "ArgType"),
            Field("index", Kind.SCALAR, "u32"),
        ),
    ),
)

TABLES = {table.name: table for table in _TABLES}

STRUCTS = {
    "EdgeEnd": Struct(
        "EdgeEnd",
        (("node_index", "u32"), ("src_arg_index", "i32"), ("dst_arg_index", "i32")),
        size=12,
        align=4,
    ),
}

# The field of an Attribute that holds the value; the two sparse types have no field.
ATTRIBUTE_FIELDS = {
    AttributeType.FLOAT: "f",
    AttributeType.INT: "i",
    AttributeType.STRING: "s",
    AttributeType.TENSOR: "t",
    AttributeType.GRAPH: "g",
    AttributeType.FLOATS: "floats",
    AttributeType.INTS: "ints",
    AttributeType.STRINGS: "strings",
    AttributeType.TENSORS: "tensors",
    AttributeType.GRAPHS: "graphs",
}

# Bits of one element as stored in raw_data; elements below a byte are packed.
ELEMENT_BITS = {
    TensorDataType.FLOAT: 32,
    TensorDataType.UINT8: 8,
    TensorDataType.INT8: 8,
    TensorDataType.UINT16: 16,
    TensorDataType.INT16: 16,
    TensorDataType.INT32: 32,
    TensorDataType.INT64: 64,
    TensorDataType.BOOL: 8,
    TensorDataType.FLOAT16: 16,
    TensorDataType.DOUBLE: 64,
    TensorDataType.UINT32: 32,
    TensorDataType.UINT64: 64,
    TensorDataType.COMPLEX64: 64,
    TensorDataType.COMPLEX128: 128,
    TensorDataType.BFLOAT16: 16,
    TensorDataType.FLOAT8E4M3FN: 8,
    TensorDataType.FLOAT8E4M3FNUZ: 8,
    TensorDataType.FLOAT8E5M2: 8,
    TensorDataType.FLOAT8E5M2FNUZ: 8,
    TensorDataType.UINT4: 4,
    TensorDataType.INT4: 4,
    TensorDataType.FLOAT4E2M1: 4,
    TensorDataType.FLOAT8E8M0: 8,
    TensorDataType.UINT2: 2,
    TensorDataType.INT2: 2,
}
