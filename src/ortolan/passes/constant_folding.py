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
from collections.abc import Callable, Container, Iterable
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ortolan import catalog
from ortolan.errors import OrtolanError
from ortolan.importing.naming import subgraphs
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.writer import write

__all__ = ["MAX_BYTES", "Evaluate", "fold_constants", "run_portably", "with_one_nan"]

MAX_BYTES = 1 << 20
"""A result up to this size is kept whatever the sizes of the constants that it comes from."""

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Evaluate: TypeAlias = Callable[[bytes], list[Array]]
"""Runs a model without inputs, given as an ORT file; returns all its outputs in order."""

# The bytes of a result on the way: so many, or so often those of all constants.
_LARGEST = 1 << 28
_GROWTH = 4

# So often what is refused is looked for one after the other.
_TRIES = 8

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
    run = evaluate or run_portably
    refused: set[ir.Node] = set()
    tries = 0
    while nodes := _foldable(model.graph, refused):
        wrong = _fold(model, nodes, run)
        if not wrong:
            return True
        tries += 1
        # What is before a refused node may be refused next, then what is before that...
        refused |= wrong if tries < _TRIES else set(_with_sources(wrong, nodes))
    return False


def _fold(model: ir.Model, nodes: list[ir.Node], evaluate: Evaluate) -> set[ir.Node]:
    """Folds nodes, or changes nothing and returns those that must not be folded."""
    wanted = _wanted(nodes)
    # Sequences and optionals may be on the way, but a file holds constants that are tensors only.
    if untold := {v.producer() for v in wanted if not isinstance(v.type, ir.TensorType)}:
        return {node for node in untold if node is not None}
    try:
        arrays = evaluate(_program(model, nodes, wanted))
    except OrtolanError:
        return _failing(model, nodes, evaluate) or set(nodes)
    known = set(nodes)
    too_large = {
        value.producer()
        for value, array in zip(wanted, arrays, strict=True)
        if not _is_worth(array.nbytes, value.producer(), known)
    }
    if too_large:
        return {node for node in too_large if node is not None}
    for value, array in zip(wanted, arrays, strict=True):
        _replace(value, array)
    for node in reversed(nodes):
        if isinstance(node.graph, ir.Graph):
            node.graph.remove(node, safe=True)
    return set()


def run_portably(model: bytes) -> list[Array]:
    """Runs a model without inputs by the kernels that compute the same on every machine.

    Args:
        model: an ORT format file.

    Returns:
        Its outputs.

    Raises:
        OrtolanError: it cannot be run.
    """
    # Imported here: conversions without folding must not need the native library.
    from ortolan.session import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # what cannot be folded stays as it is: no mistake to tell
    options.add_session_config_entry("ortolan.instruction_set", "base")
    options.add_session_config_entry("ortolan.winograd_bytes", "0")
    # A few bytes may ask for a tensor of any size; what is not computed stays as it is.
    largest = max(_LARGEST, _GROWTH * len(model))
    options.add_session_config_entry("ortolan.max_tensor_bytes", str(largest))
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


def _is_foldable(node: ir.Node, nodes: Container[ir.Node | None]) -> bool:
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
    return _is_worth(sum(map(_hinted_bytes, outputs)), node, nodes)


def _is_constant(value: ir.Value) -> bool:
    """Whether a value is a constant that no feed can replace."""
    return value.is_initializer() and not value.is_graph_input()


def _hinted_bytes(value: ir.Value) -> int:
    """The size that a value probably has, 0 where its shape is not known."""
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return 0
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.itemsize)


def _is_worth(size: int, node: ir.Node | None, nodes: Container[ir.Node | None]) -> bool:
    """Whether a result of some bytes is small, or smaller than the constants it comes from."""
    return size <= MAX_BYTES or (node is not None and size <= _constant_bytes(node, nodes))


def _constant_bytes(node: ir.Node, nodes: Container[ir.Node | None]) -> int:
    """The size of all constants behind a node's inputs."""
    seen: set[ir.Value] = set()
    pending = [value for value in node.inputs if value is not None]
    total = 0
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is not None and producer in nodes:
            pending.extend(v for v in producer.inputs if v is not None)
        elif value.const_value is not None:
            total += value.const_value.nbytes
    return total


def _wanted(nodes: list[ir.Node]) -> list[ir.Value]:
    """Returns the results of foldable nodes that others use, or a graph returns."""
    known = set(nodes)
    return [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in known for use in value.uses())
    ]


def _program(model: ir.Model, nodes: list[ir.Node], wanted: list[ir.Value]) -> bytes:
    """Returns an ORT file without inputs that computes the wanted values."""
    copies: dict[ir.Value, ir.Value] = {}
    constants: list[ir.Value] = []
    clones: list[ir.Node] = []
    for node in nodes:
        inputs: list[ir.Value | None] = []
        for value in node.inputs:
            if value is not None and value not in copies:
                copies[value] = ir.Value(
                    name=f"c{len(copies)}", type=value.type, shape=value.shape,
                    const_value=value.const_value,
                )  # fmt: skip
                constants.append(copies[value])
            inputs.append(None if value is None else copies[value])
        clone = ir.Node(
            node.domain, node.op_type, inputs, node.attributes, num_outputs=len(node.outputs),
            version=node.version, name=node.name,
        )  # fmt: skip
        for value, copy in zip(node.outputs, clone.outputs, strict=True):
            copy.name = f"r{len(copies)}" if value.name else ""
            copy.type = value.type
            copies[value] = copy
        clones.append(clone)
    outputs = [copies[value] for value in wanted]
    graph = ir.Graph(
        [], outputs, nodes=clones, initializers=constants, opset_imports=model.opset_imports
    )
    return write(from_ir(ir.Model(graph, ir_version=model.ir_version)))


def _failing(model: ir.Model, nodes: list[ir.Node], evaluate: Evaluate) -> set[ir.Node]:
    """The nodes that do not compute their results, and those that need them.

    A part that runs has none; others are halved: where few fail, few programs are run.
    """
    failing: set[ir.Node] = set()
    pending = [nodes]
    while pending:
        part = []
        for node in pending.pop():
            # Nodes are in order: those before it are known.
            if any(value is not None and value.producer() in failing for value in node.inputs):
                failing.add(node)
            else:
                part.append(node)
        if not part or _runs(model, part, nodes, evaluate):
            continue
        if len(part) == 1:
            failing.update(part)
        else:
            pending += [part[len(part) // 2 :], part[: len(part) // 2]]
    return failing


def _runs(model: ir.Model, part: list[ir.Node], nodes: list[ir.Node], evaluate: Evaluate) -> bool:
    """Whether nodes compute their results; those before them in `nodes` that they need run too."""
    known = set(part)
    last = [
        value
        for node in part
        for value in node.outputs
        if value.name and not any(use.node in known for use in value.uses())
    ]
    try:
        evaluate(_program(model, _with_sources(part, nodes), last))
    except OrtolanError:
        return False
    return True


def _with_sources(some: Iterable[ir.Node], nodes: list[ir.Node]) -> list[ir.Node]:
    known = set(nodes)
    needed = set(some)
    pending = list(needed)
    while pending:
        for value in pending.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer in known and producer not in needed:
                needed.add(producer)
                pending.append(producer)
    return [item for item in nodes if item in needed]


def _replace(value: ir.Value, array: Array) -> None:
    """Puts a constant in the place of a value; its graph and its name stay."""
    producer = value.producer()
    graph = producer.graph if producer is not None else None
    if not isinstance(graph, ir.Graph) or value.dtype is None:
        raise ValueError(f"{value.name!r} is no result of a node in a graph")
    array = with_one_nan(np.asarray(array, order="C"))
    tensor = ir.Tensor(array, dtype=value.dtype, name=value.name)
    constant = ir.Value(
        name=value.name, type=ir.TensorType(value.dtype), shape=ir.Shape(array.shape),
        const_value=tensor,
    )  # fmt: skip
    value.replace_all_uses_with(constant, replace_graph_outputs=True)
    graph.initializers.add(constant)


def with_one_nan(array: Array) -> Array:
    """Makes all NaNs the same: which of them a computation gives depends on the processor."""
    if array.dtype.kind != "f" or not np.isnan(array).any():
        return array
    return np.where(np.isnan(array), array.dtype.type(np.nan), array)
