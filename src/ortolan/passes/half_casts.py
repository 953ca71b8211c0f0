"""Puts Casts around nodes that have a kernel for float32, but none for half precision.

    x16 -> Conv -> y16      =>      x16 -> Cast -> Conv -> Cast -> y16

1. A node is taken whose type strings that stand for float16 or bfloat16 can be float32 instead.
2. Each value is cast once in a graph, before its first use there.
3. A Cast to half precision and back is left out: what follows gets the float32 result, as
   onnxruntime's own casts give it. The half precision value stays if others use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx_ir as ir

from ortolan.importing.element_types import type_text
from ortolan.importing.naming import make_names_unique
from ortolan.importing.versions import since_version
from ortolan.passes.onnxruntime_kernels import first_values, typed_values

__all__ = ["cast_types", "insert_half_casts"]

HasKernel: TypeAlias = Callable[[ir.Node, Mapping[str, str] | None], bool]

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOAT = ir.TensorType(ir.DataType.FLOAT)
# The attribute by which an operator chooses the type of its result.
_TYPE_ATTRIBUTE = "dtype"


def cast_types(node: ir.Node, has_kernel: HasKernel) -> set[str]:
    """Returns the type strings of a node that must become float32 for it to have a kernel.

    Empty where that is no help.
    """
    if node.op_type == "Cast":
        return set()
    types = {key: value.type for key, value in first_values(node).items()}
    half = {key for key, type_ in types.items() if _is_half(type_)}
    texts = {key: type_text(_FLOAT if key in half else type_) for key, type_ in types.items()}
    return half if half and has_kernel(node, texts) else set()


def insert_half_casts(model: ir.Model, has_kernel: HasKernel) -> bool:
    """Puts Casts around nodes of all graphs that need them; returns whether there were any.

    Args:
        model: a verified model, changed in place.
        has_kernel: whether a node, with types by type string in place of its own, has one.
    """
    casts: dict[tuple[ir.Graph | ir.Function | None, ir.Value], ir.Value] = {}
    precise: dict[ir.Value, ir.Value] = {}
    version = since_version("", "Cast", model.opset_imports.get(""))
    for node in list(model.graph.all_nodes()):
        keys = set() if has_kernel(node, None) else cast_types(node, has_kernel)
        if not keys:
            continue
        halves = {value for key, value in typed_values(node) if key in keys}
        for k, value in enumerate(node.inputs):
            if value is None or value not in halves or not _is_half(value.type):
                continue
            source = precise.get(value) or casts.get((node.graph, value))
            if source is None:
                source = casts[node.graph, value] = _cast(
                    value, ir.DataType.FLOAT, f"{value.name}_float", version
                )
                _graph(node).insert_before(node, [_producer(source)])
            node.replace_input_with(k, source)
        for value in node.outputs:
            if value in halves and _is_half(value.type):
                precise[_cast_back(node, value, version)] = value
        if _TYPE_ATTRIBUTE in node.attributes:
            node.attributes[_TYPE_ATTRIBUTE] = ir.AttrInt64(_TYPE_ATTRIBUTE, ir.DataType.FLOAT)
    for half in precise:
        if not half.uses() and not half.is_graph_output():
            back = _producer(half)
            _graph(back).remove(back, safe=True)
    make_names_unique(model)
    return bool(precise) or bool(casts)


def _cast_back(node: ir.Node, value: ir.Value, version: int) -> ir.Value:
    """Makes a node's output float32; returns the half precision value that its users get."""
    assert value.dtype is not None
    back = _cast(value, value.dtype, value.name or "", version)
    value.replace_all_uses_with(back, replace_graph_outputs=True)
    producer = _producer(back)
    producer.replace_input_with(0, value)
    value.name = f"{value.name}_float"
    value.type = ir.TensorType(ir.DataType.FLOAT)
    _graph(node).insert_after(node, [producer])
    return back


def _cast(value: ir.Value, to: ir.DataType, name: str, version: int) -> ir.Value:
    node = ir.Node(
        "", "Cast", [value], [ir.AttrInt64("to", int(to))], num_outputs=1, version=version
    )
    output = node.outputs[0]
    output.name, output.type, output.shape = name, ir.TensorType(to), value.shape
    return output


def _is_half(type_: ir.TypeProtocol | None) -> bool:
    return isinstance(type_, ir.TensorType) and type_.dtype in _HALF


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node
