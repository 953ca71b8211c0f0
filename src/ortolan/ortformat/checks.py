"""Rules that the schema cannot express, held by both the reader and the writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ortolan.ortformat.schema import ATTRIBUTE_FIELDS, ELEMENT_BITS, AttributeType, TensorDataType
from ortolan.ortformat.tables import Attribute, Graph, OrtFormatError, SparseTensor, Tensor

__all__ = [
    "CHECKS",
    "check_attribute",
    "check_graph",
    "check_sparse_tensor",
    "check_tensor",
]


def _check_dims(dims: list[int]) -> int:
    """Returns the element count of `dims`; refuses sizes that no file can hold."""
    count = 1
    for size in dims:
        if size < 0:
            raise OrtFormatError(f"a size of {size}", "dims")
        count *= size
        # A zero later on would hide an overflow that a reader with 64 bits runs into.
        if count >= 1 << 63:
            raise OrtFormatError("the product of the sizes exceeds 64 bits", "dims")
    return count


def check_tensor(tensor: Tensor) -> None:
    """Holds a tensor's data against its type and dims.

    Raises:
        OrtFormatError: they do not agree.
    """
    count = _check_dims(tensor.dims)
    if tensor.data_type is TensorDataType.STRING:
        if len(tensor.string_data) != count:
            raise OrtFormatError(
                f"{len(tensor.string_data)} strings for {count} elements", "string_data"
            )
        return
    if tensor.data_type not in ELEMENT_BITS:
        raise OrtFormatError("a tensor needs an element type", "data_type")
    raw_data = tensor.raw_data
    if tensor.external_data_offset >= 0 and not raw_data:
        return  # the bytes are in another file, which need not be there
    if isinstance(raw_data, memoryview) and (raw_data.ndim != 1 or raw_data.itemsize != 1):
        raise OrtFormatError("not a view of single bytes", "raw_data")
    expected = tensor.byte_size()
    if len(raw_data) != expected:
        raise OrtFormatError(
            f"{len(raw_data)} bytes, but {tensor.data_type.name} {tensor.dims} takes {expected}",
            "raw_data",
        )


def check_attribute(attribute: Attribute) -> None:
    """Holds an attribute's type against the fields that are there.

    Raises:
        OrtFormatError: the type has no place in the format, or its value is missing.
    """
    name = ATTRIBUTE_FIELDS.get(attribute.type)
    if name is None:
        kind = AttributeType(attribute.type).name
        raise OrtFormatError(f"the ORT format holds no attributes of type {kind}", "type")
    if getattr(attribute, name) is None:
        raise OrtFormatError("missing", name)


def check_graph(graph: Graph) -> None:
    """Holds node indices and edges against the nodes that are there.

    Raises:
        OrtFormatError: an index is repeated, out of range, or leads to no node.
    """
    indices = set()
    for k, node in enumerate(graph.nodes):
        if node.index >= graph.max_node_index:
            raise OrtFormatError(
                f"{node.index} is not below max_node_index ({graph.max_node_index})",
                f"nodes[{k}].index",
            )
        if node.index in indices:
            raise OrtFormatError(f"{node.index} is repeated", f"nodes[{k}].index")
        if any(count < 0 for count in node.input_arg_counts):
            raise OrtFormatError("a negative count", f"nodes[{k}].input_arg_counts")
        indices.add(node.index)
    for k, edge in enumerate(graph.node_edges):
        if edge.node_index not in indices:
            raise OrtFormatError(f"no node {edge.node_index}", f"node_edges[{k}].node_index")
        for side in ("input_edges", "output_edges"):
            for e, end in enumerate(getattr(edge, side)):
                if end.node_index not in indices:
                    place = f"node_edges[{k}].{side}[{e}].node_index"
                    raise OrtFormatError(f"no node {end.node_index}", place)


def check_sparse_tensor(sparse: SparseTensor) -> None:
    """Holds a sparse tensor's sizes against what a dense one may have.

    Raises:
        OrtFormatError: a size is negative, or the product too large.
    """
    _check_dims(sparse.dims)


# By table name; each takes one table and raises OrtFormatError.
CHECKS: dict[str, Callable[[Any], None]] = {
    "Attribute": check_attribute,
    "Graph": check_graph,
    "SparseTensor": check_sparse_tensor,
    "Tensor": check_tensor,
}
