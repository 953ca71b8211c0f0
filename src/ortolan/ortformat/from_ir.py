"""IR -> tables of the ORT format.

In: a verified `onnx_ir.Model` in which every node has its since_version. Out: tables that are
ready to be written: subgraphs inline, all links and the kernel type strings filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from ortolan import errors
from ortolan.catalog import onnxruntime
from ortolan.errors import InvalidGraph
from ortolan.importing.constants import SPARSE
from ortolan.importing.map_types import MapType
from ortolan.importing.signatures import signature_of
from ortolan.ortformat import tables
from ortolan.ortformat.links import (
    TypeStrings,
    input_arg_counts,
    link_graph,
    op_ids,
    resolver,
    type_strings_from_onnx_defs,
)
from ortolan.ortformat.schema import (
    ELEMENT_BITS,
    NO_MODEL_VERSION,
    OPTIONAL_DENOTATION,
    AttributeType,
    TensorDataType,
)

__all__ = ["from_ir", "type_strings"]


def from_ir(model: ir.Model, imports: Mapping[str, int] | None = None) -> tables.InferenceSession:
    """Returns a model as tables; large constants stay where they are until they are written.

    Args:
        model: a verified model; it is not changed.
        imports: versions of domains that no node uses yet, but whoever loads the file may.

    Raises:
        InvalidGraph: a constant's data does not fit its shape.
        NotImplemented: a type or an attribute has no place in the format.
    """
    graph = _graph(model.graph)
    link_graph(graph)
    result = tables.Model(
        graph=graph,
        ir_version=model.ir_version,
        opset_import=_opsets(model, imports or {}),
        producer_name=model.producer_name or "",
        producer_version=model.producer_version or "",
        domain=model.domain or "",
        model_version=NO_MODEL_VERSION if model.model_version is None else model.model_version,
        doc_string=model.doc_string or "",
        graph_doc_string=model.graph.doc_string or "",
        metadata_props=[
            tables.StringStringEntry(key, value) for key, value in model.metadata_props.items()
        ],
    )
    strings = ((op_id, type_strings(op_id)) for op_id in op_ids(graph))
    return tables.InferenceSession(result, kernel_type_str_resolver=resolver(strings))


def _opsets(model: ir.Model, more: Mapping[str, int]) -> list[tables.OperatorSetId]:
    """The imports that nodes use, in the order of the model; ai.onnx if there is no node.

    Nodes of an inlined function may be newer than the model's import: it must cover them.
    """
    needed: dict[str, int] = {}
    for node in model.graph.all_nodes():
        needed[node.domain] = max(needed.get(node.domain, 1), node.version or 1)
    needed = needed or {"": 1}
    imports = model.opset_imports
    versions = {d: max(v, needed[d]) for d, v in imports.items() if d in needed}
    versions.update((d, v) for d, v in needed.items() if d not in imports)
    versions.update((d, v) for d, v in more.items() if d not in versions)
    return [tables.OperatorSetId(domain, version) for domain, version in versions.items()]


def _graph(graph: ir.Graph) -> tables.Graph:
    initializers = list(graph.initializers.values())
    values = [*graph.inputs, *(v for v in initializers if not v.is_graph_input())]
    constants = [_constant(value) for value in initializers]
    values.extend(value for node in graph for value in node.outputs if value.name)
    return tables.Graph(
        initializers=[c for c in constants if isinstance(c, tables.Tensor)],
        node_args=[_value_info(value) for value in values],
        nodes=[_node(node) for node in graph],
        inputs=[value.name or "" for value in graph.inputs],
        outputs=[value.name or "" for value in graph.outputs],
        sparse_initializers=[
            found for found in constants if isinstance(found, tables.SparseTensor)
        ],
    )


def _constant(value: ir.Value) -> tables.Tensor | tables.SparseTensor:
    if value.const_value is None:
        raise InvalidGraph(f'the constant "{value.name}" has no data')
    dense = _tensor(value.const_value, value.name or "")
    was_sparse = SPARSE in (value.const_value.metadata_props or {})
    return (_sparse(dense) if was_sparse and not value.is_graph_input() else None) or dense


def _sparse(dense: tables.Tensor) -> tables.SparseTensor | None:
    """Returns a constant as what is not zero in it; None where that is not smaller."""
    bits = ELEMENT_BITS.get(dense.data_type, 0)
    if bits < 8 or not dense.raw_data:
        return None
    width = bits // 8
    elements = np.frombuffer(dense.raw_data, np.uint8).reshape(-1, width)
    places = np.flatnonzero(elements.any(axis=1))
    if len(places) * (width + 8) >= len(dense.raw_data):
        return None
    values = dataclasses.replace(dense, dims=[len(places)], raw_data=elements[places].tobytes())
    indices = tables.Tensor(
        dims=[len(places)], data_type=TensorDataType.INT64, raw_data=places.astype("<i8").tobytes()
    )
    return tables.SparseTensor(values, indices, dense.dims)


def _tensor(tensor: ir.TensorProtocol, name: str) -> tables.Tensor:
    result = tables.Tensor(
        name=name,
        doc_string=tensor.doc_string or "",
        dims=list(tensor.shape.numpy()),
        data_type=_data_type(tensor.dtype, f'the constant "{name}"'),
    )
    if tensor.dtype == ir.DataType.STRING:
        result.string_data = _strings(tensor)
        stored, expected = len(result.string_data), result.element_count()
    else:
        result.raw_data = _bytes(tensor, name)
        stored, expected = len(result.raw_data), result.byte_size()
    if stored != expected:
        unit = "strings" if tensor.dtype == ir.DataType.STRING else "bytes"
        raise InvalidGraph(
            f'the constant "{name}" has {stored} {unit} of data, but its type and shape '
            f"{result.dims} take {expected}: the file is damaged"
        )
    return result


def _strings(tensor: ir.TensorProtocol) -> list[bytes]:
    elements = (
        tensor.string_data()
        if isinstance(tensor, ir.StringTensor)
        else tensor.numpy().reshape(-1).tolist()
    )
    return [item.encode() if isinstance(item, str) else bytes(item) for item in elements]


def _bytes(tensor: ir.TensorProtocol, name: str) -> bytes | memoryview:
    """Returns a tensor's data, little endian; a view where the tensor is an array or a file."""
    try:
        if isinstance(tensor, ir.Tensor | ir.ExternalTensor) and tensor.dtype.bitwidth >= 8:
            array = tensor.numpy()
            if array.dtype.byteorder not in (">", "=") or np.little_endian:
                return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        return tensor.tobytes()
    except (ValueError, TypeError, AssertionError, OSError) as error:
        raise InvalidGraph(f'the data of the constant "{name}" is damaged: {error}') from error


def _data_type(dtype: ir.DataType, what: str) -> TensorDataType:
    if int(dtype) not in TensorDataType._value2member_map_ or dtype == ir.DataType.UNDEFINED:
        raise errors.NotImplemented(
            f"{what}: the ORT format has no element type {dtype.name.lower()}"
        )
    return TensorDataType(int(dtype))


def _value_info(value: ir.Value) -> tables.ValueInfo:
    name = value.name or ""
    if value.type is None:
        raise InvalidGraph(f'the value "{name}" has no type')
    return tables.ValueInfo(name, value.doc_string or "", _type(value.type, value.shape, name))


def _type(type_: ir.TypeProtocol, shape: ir.Shape | None, name: str) -> tables.TypeInfo:
    what = f'the value "{name}"'
    if isinstance(type_, ir.SequenceType):
        element = _type(type_.elem_type, shape, name)
        return tables.TypeInfo(type_.denotation or "", tables.SequenceType(element))
    if isinstance(type_, MapType):
        key = _data_type(type_.key, what)
        return tables.TypeInfo("", tables.MapType(key, _type(type_.elem_type, None, name)))
    if isinstance(type_, ir.OptionalType):
        element = _type(type_.elem_type, shape, name)
        element.denotation = OPTIONAL_DENOTATION
        return element
    if not isinstance(type_, ir.TensorType):
        kind = type(type_).__name__
        raise errors.NotImplemented(f"{what}: the ORT format cannot hold a value of kind {kind}")
    tensor = tables.TensorTypeAndShape(_data_type(type_.dtype, what), _shape(shape))
    return tables.TypeInfo(type_.denotation or "", tensor)


def _shape(shape: ir.Shape | None) -> tables.Shape | None:
    if shape is None:
        return None
    dims = []
    for axis, size in enumerate(shape):
        dimension = tables.Dimension.of(size if isinstance(size, int) else size.value)
        dimension.denotation = shape.get_denotation(axis) or ""
        dims.append(dimension)
    return tables.Shape(dims)


def _node(node: ir.Node) -> tables.Node:
    inputs = [value.name or "" if value is not None else "" for value in node.inputs]
    return tables.Node(
        name=node.name or "",
        doc_string=node.doc_string or "",
        domain=node.domain,
        since_version=node.version or 1,
        op_type=node.op_type,
        inputs=inputs,
        outputs=[value.name or "" for value in node.outputs],
        attributes=list(_attributes(node)),
        input_arg_counts=_input_arg_counts(node),
    )


def _input_arg_counts(node: ir.Node) -> list[int]:
    """How many inputs belong to each formal one; one each where nobody declares them."""
    signature = signature_of(node.domain, node.op_type, node.version or 1)
    if signature is None:
        return [1] * len(node.inputs)
    formal = signature.inputs
    variadic = bool(formal) and formal[-1].variadic
    return input_arg_counts(len(node.inputs), len(formal), variadic=variadic)


def _attributes(node: ir.Node) -> Iterator[tables.Attribute]:
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.TYPE_PROTO:
            continue  # of Optional: the type of its result says the same
        result = tables.Attribute(name, attribute.doc_string or "")
        if attribute.type.name not in AttributeType.__members__ or attribute.is_ref():
            raise errors.NotImplemented(
                f'[{node.op_type}] node "{node.name}": the ORT format cannot hold its attribute '
                f"{name} of type {attribute.type.name}"
            )
        result.type = AttributeType[attribute.type.name]
        _set_value(result, attribute)
        yield result


def _set_value(result: tables.Attribute, attribute: ir.Attr) -> None:
    value = attribute.value
    match result.type:
        case AttributeType.FLOAT:
            result.f = value
        case AttributeType.INT:
            result.i = value
        case AttributeType.STRING:
            result.s = value.encode()
        case AttributeType.TENSOR:
            result.t = _tensor(value, value.name or "")
        case AttributeType.GRAPH:
            result.g = _graph(value)
        case AttributeType.FLOATS:
            result.floats = list(value)
        case AttributeType.INTS:
            result.ints = list(value)
        case AttributeType.STRINGS:
            result.strings = [item.encode() for item in value]
        case AttributeType.TENSORS:
            result.tensors = [_tensor(item, item.name or "") for item in value]
        case AttributeType.GRAPHS:
            result.graphs = [_graph(item) for item in value]


def type_strings(op_id: str) -> TypeStrings:
    """Returns the type strings by which onnxruntime finds an operator's kernel.

    Args:
        op_id: such as ":Conv:11".

    Returns:
        As the standard declares the operator, else onnxruntime, else the catalog; empty where
        nobody does.
    """
    try:
        return type_strings_from_onnx_defs(op_id)
    except LookupError:
        domain, name, version = op_id.split(":")
    strings: dict[str, list[tuple[bool, int]]] = {}
    declaration = onnxruntime.declaration(domain, name, int(version))
    if declaration is not None:
        for is_output, formals in ((False, declaration.inputs), (True, declaration.outputs)):
            for index, formal in enumerate(formals):
                key = formal.type if formal.type in declaration.types else formal.name
                strings.setdefault(key, []).append((is_output, index))
        return list(strings.items())
    signature = signature_of(domain, name, int(version))
    if signature is not None:
        for is_output, parameters in ((False, signature.inputs), (True, signature.outputs)):
            for index, parameter in enumerate(parameters):
                strings.setdefault(parameter.variable, []).append((is_output, index))
    return list(strings.items())
