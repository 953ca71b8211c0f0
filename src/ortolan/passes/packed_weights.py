"""Stores weights of matrix products as kernels read them, so that no run has to rearrange them.

    w -> MatMul     =>     w_packed (uint8) -> ai.ortolan:Unpack -> MatMul

1. float32 constants of two dimensions or of convolutions of one group, of `_LEAST` elements and
   more, with a number of columns that is a multiple of 8: all that every kernel reads in the
   common form.
2. All users take them so (`packed` in the catalog), and agree on which dimension the columns are.

3. Constants with the same bytes are packed together or not at all: a file holds them once. What is
   sparse stays so.

Unpack computes nothing: the loader gives its users the bytes where they lie. Last of all: no other
pass knows packed weights. Not rewritten in models whose weights are more than a file holds: they
are copied from file to file and need not fit into memory.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from ortolan import catalog
from ortolan.importing.constants import SPARSE
from ortolan.ortformat.packed import COLUMNS_FIRST, COLUMNS_LAST, UNIT, matrix_of, pack
from ortolan.ortformat.schema import MAX_FILE_SIZE
from ortolan.passes.rewriting import OWN, Rewriter
from ortolan.passes.target import ORTOLAN

__all__ = ["pack_weights"]

_LEAST = 4096  # elements
_COLUMNS = 8  # their number is a multiple of it


def pack_weights(model: ir.Model, *, least: int = _LEAST, multiple: int = _COLUMNS) -> bool:
    """Packs the weights of all graphs; returns whether there were any.

    Args:
        model: an optimized model, changed in place.
        least: elements that a constant must have.
        multiple: what its number of columns must be a multiple of.
    """
    graphs = [model.graph, *model.graph.subgraphs()]
    weights = [
        (graph, value, value.const_value)
        for graph in graphs
        for value in graph.initializers.values()
        if value.const_value is not None and math.prod(value.const_value.shape.numpy()) >= least
    ]
    if sum(tensor.nbytes for _, _, tensor in weights) > MAX_FILE_SIZE:
        return False
    axes = {id(value): _axis(graph, value, tensor, multiple) for graph, value, tensor in weights}
    for group in _equal([(value, tensor) for _, value, tensor in weights]):
        if len({_order(axes[id(value)], value) for value in group}) > 1:
            axes.update((id(value), None) for value in group)
    rewriter = Rewriter(model, ORTOLAN)
    made: dict[int, list[ir.Node]] = defaultdict(list)
    for graph, value, tensor in weights:
        axis = axes[id(value)]
        if axis is not None:
            made[id(graph)].append(_pack(rewriter, graph, value, tensor, axis))
    for graph in graphs:
        if made[id(graph)]:
            graph.insert_before(graph[0], made[id(graph)])
            model.opset_imports.setdefault(OWN, 1)
    return any(made.values())


def _axis(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol, multiple: int) -> int | None:
    """The dimension of the columns as all users multiply them; None if it stays plain."""
    if value.is_graph_input() or value.is_graph_output() or not value.uses():
        return None
    if tensor.dtype != ir.DataType.FLOAT or SPARSE in (tensor.metadata_props or {}):
        return None
    shape = tuple(tensor.shape.numpy())
    axes = {_columns(use.node, use.idx, graph, shape, multiple) for use in value.uses()}
    return axes.pop() if len(axes) == 1 else None


def _order(axis: int | None, value: ir.Value) -> tuple[int, ...] | None:
    """What bytes that are equal are packed equally by."""
    if axis is None:
        return None
    assert value.const_value is not None
    shape = tuple(value.const_value.shape.numpy())
    return (axis, *shape[:2]) if axis == 0 else (axis, shape[-1])


def _equal(weights: Sequence[tuple[ir.Value, ir.TensorProtocol]]) -> Iterator[list[ir.Value]]:
    """Groups of values with the same bytes, which a file holds once."""
    sizes: dict[int, list[tuple[ir.Value, ir.TensorProtocol]]] = defaultdict(list)
    for value, tensor in weights:
        if tensor.dtype == ir.DataType.FLOAT:
            sizes[tensor.nbytes].append((value, tensor))
    for candidates in sizes.values():
        groups: dict[bytes, list[ir.Value]] = defaultdict(list)
        for value, tensor in candidates if len(candidates) > 1 else ():
            digest = hashlib.blake2b(np.ascontiguousarray(tensor.numpy()).data).digest()
            groups[digest].append(value)
        yield from (group for group in groups.values() if len(group) > 1)


def _pack(
    rewriter: Rewriter, graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol, axis: int
) -> ir.Node:
    array = tensor.numpy()
    matrix = matrix_of(array) if axis == 0 else array
    name = value.name or ""
    graph.initializers.pop(name)
    packed = rewriter.constant(graph, pack(matrix).reshape(*array.shape, UNIT), f"{name}_packed")
    assert packed.const_value is not None
    packed.const_value.doc_string = tensor.doc_string
    unpack = rewriter.node(
        "Unpack", [packed], {"form": COLUMNS_LAST if axis else COLUMNS_FIRST}, domain=OWN
    )
    unpack.name = rewriter.fresh(f"{name}_unpack")
    result = unpack.outputs[0]
    value.replace_all_uses_with(result)
    result.name, result.shape = name, ir.Shape(array.shape)
    return unpack


def _columns(
    node: ir.Node, index: int, graph: ir.Graph, shape: tuple[int, ...], multiple: int
) -> int | None:
    """The dimension of the columns as a node multiplies them; None if it takes none packed."""
    operator = catalog.find(node.domain, node.op_type, node.version or 1)
    if node.graph is not graph or operator is None or index not in operator.packed:
        return None
    if (
        node.attributes.get_float("alpha", 1.0) != 1
        or node.attributes.get_int("transBatchB", 0) != 0
    ):
        return None
    if operator.layout == "spatial":
        if len(shape) < 3 or node.attributes.get_int("group", 1) != 1:
            return None
        axis = 0
    elif len(shape) == 2:
        axis = 0 if node.attributes.get_int("transB", 0) else 1
    else:
        return None
    columns, rows = shape[axis], math.prod(shape) // max(shape[axis], 1)
    return axis if columns > 1 and columns % multiple == 0 and rows > 1 else None
