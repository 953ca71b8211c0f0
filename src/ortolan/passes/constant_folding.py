"""Computes at conversion what depends on constants only.

    c0 -> A -> B -> y -> C      =>      y (constant) -> C
    c1 ---------^

1. A node is foldable if its operator has a kernel, always gives the same result and holds no
   graph, and all its inputs are constants or outputs of foldable nodes.
2. All foldable nodes of all graphs become one small model, which our own kernels run in their
   portable form: the same model gives the same bytes on every machine.
3. What other nodes use of its results become constants; the foldable nodes go.

Not rewritten when the result is larger than `MAX_BYTES` and than the constants behind it, when
computing it fails (the node may never run, in a branch), or when it dequantizes: what follows a
DequantizeLinear is faster on the small weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ortolan import catalog
from ortolan.errors import OrtolanError
from ortolan.importing.naming import subgraphs
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.writer import write

__all__ = ["MAX_BYTES", "Evaluate", "fold_constants"]

MAX_BYTES = 1 << 20
"""A result up to this size is kept whatever the sizes of the constants that it comes from."""

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Evaluate: TypeAlias = Callable[[bytes], list[Array]]
"""Runs a model without inputs, given as an ORT file; returns all its outputs in order."""

_KEPT = frozenset({"DequantizeLinear"})

# Types that arrays of numpy have: results of other types cannot be taken back.
_TYPES = frozenset(
    {
        ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32,
        ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32,
        ir.DataType.UINT64, ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE,
    }
)  # fmt: skip


def fold_constants(model: ir.Model, evaluate: Evaluate | None = None) -> bool:
    """Replaces nodes of all graphs that depend on constants only by their results.

    Args:
        model: a verified model, changed in place.
        evaluate: how to run a model; by default with Ortolan's own portable kernels.

    Returns:
        Whether the model was changed.
    """
    refused: set[ir.Node] = set()
    while True:
        nodes = _foldable(model.graph, refused)
        results = _compute(model, nodes, evaluate or _run, refused)
        if results is None:
            continue
        too_large = {
            node
            for value, array in results.items()
            if (node := value.producer()) is not None and array.nbytes > _limit(node, nodes)
        }
        if not too_large:
            break
        refused |= too_large
    for value, array in results.items():
        _replace(value, array)
    for node in reversed(nodes):
        if isinstance(node.graph, ir.Graph):
            node.graph.remove(node, safe=True)
    return bool(nodes)


def _run(model: bytes) -> list[Array]:
    # Imported here: conversions without folding must not need the native library.
    from ortolan.session import InferenceSession, SessionOptions

    options = SessionOptions()
    options.add_session_config_entry("ortolan.instruction_set", "base")
    return list(InferenceSession(model, options).run(None, {}))


def _foldable(graph: ir.Graph, refused: set[ir.Node]) -> list[ir.Node]:
    """Returns the foldable nodes of a graph and its subgraphs, each after those it needs."""
    nodes: dict[ir.Node, None] = {}
    _collect(graph, nodes, refused)
    return list(nodes)


def _collect(graph: ir.Graph, nodes: dict[ir.Node, None], refused: set[ir.Node]) -> None:
    for node in graph:
        if node not in refused and _is_foldable(node, nodes):
            nodes[node] = None
        for subgraph in subgraphs(node):
            _collect(subgraph, nodes, refused)


def _is_foldable(node: ir.Node, nodes: dict[ir.Node, None]) -> bool:
    operator = catalog.find(node.domain, node.op_type, node.version or 1)
    if operator is None or not operator.kernel or "volatile" in operator.flags:
        return False
    inputs = [value for value in node.inputs if value is not None]
    if node.op_type in _KEPT or not inputs:
        return False
    if not all(_is_constant(value) or value.producer() in nodes for value in inputs):
        return False
    outputs = [value for value in node.outputs if value.name != ""]
    if any(value.dtype not in _TYPES for value in (*inputs, *outputs)):
        return False
    return sum(map(_hinted_bytes, outputs)) <= _limit(node, nodes)


def _is_constant(value: ir.Value) -> bool:
    """Whether a value is a constant that no feed can replace."""
    return value.is_initializer() and not value.is_graph_input()


def _hinted_bytes(value: ir.Value) -> int:
    """The size that a value probably has, 0 where its shape is not known."""
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return 0
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.itemsize)


def _limit(node: ir.Node, nodes: Iterable[ir.Node]) -> int:
    """The largest size of a result: that of the constants it comes from, if that is larger."""
    known = set(nodes)
    seen: set[ir.Value] = set()
    pending = [value for value in node.inputs if value is not None]
    total = 0
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if producer in known:
            pending.extend(v for v in producer.inputs if v is not None)
        elif value.const_value is not None:
            total += value.const_value.nbytes
    return max(MAX_BYTES, total)
