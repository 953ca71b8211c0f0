"""Mends the types and shapes that a graph declares for its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, TypeProto, ValueInfoProto

__all__ = ["mend_value_infos"]

# What exporters write for "any size". As names they would say that all such sizes are equal.
_NO_NAMES = frozenset({"", "?", "*", "-1", "none", "null", "unknown"})


def mend_value_infos(graph: GraphProto, own: Mapping[str, str]) -> None:
    """Drops declarations of what is no value of a node, and sizes that say nothing.

    Args:
        graph: the graph, changed in place.
        own: the names that the graph defines.
    """
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {info.name: info for info in graph.input}
    for k in reversed(range(len(graph.value_info))):
        name = graph.value_info[k].name
        if name not in own or name in constants or name in inputs:
            del graph.value_info[k]
    declared = {info.name: info for info in graph.value_info}
    for info in graph.output:
        # What an output repeats about an input is not to replace what the input says.
        source = inputs.get(info.name) or (
            declared.get(info.name) if not info.type.WhichOneof("value") else None
        )
        if source is not None:
            info.type.CopyFrom(source.type)
    for info in _all_infos(graph):
        _mend_type(info.type)


def _all_infos(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _mend_type(type_: TypeProto) -> None:
    match type_.WhichOneof("value"):
        case "tensor_type":
            for dim in type_.tensor_type.shape.dim:
                named = not dim.HasField("dim_value")
                if dim.dim_param.strip().lower() in _NO_NAMES if named else dim.dim_value < 0:
                    dim.ClearField("dim_param" if named else "dim_value")
        case "sequence_type":
            _mend_type(type_.sequence_type.elem_type)
        case "optional_type":
            _mend_type(type_.optional_type.elem_type)
