"""Types with maps, which onnx-ir does not have: set aside while a model becomes IR.

In: a model whose graph inputs and outputs may be maps or sequences of maps. Out: the same without
those types, and the types of the inputs by name; outputs are typed by the operators' rules.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from ortolan.errors import InvalidGraph

__all__ = ["MapType", "take_map_types"]


class MapType:
    """A map: keys are integers or strings, values have a type of their own.

    Attributes:
        key: the element type of the keys.
        elem_type: the type of the values.
        dtype: the element type of the values' tensors.
        denotation: as of other types.
    """

    def __init__(self, key: ir.DataType, elem_type: ir.TypeProtocol) -> None:
        self.key = key
        # onnx-ir's protocol is wider than what a map can hold.
        self.elem_type: Any = elem_type
        self.dtype = elem_type.dtype
        self.denotation: str | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MapType):
            return False
        return self.key == other.key and bool(self.elem_type == other.elem_type)

    def __hash__(self) -> int:
        return hash((self.key, self.dtype))


def take_map_types(model: onnx.ModelProto) -> dict[str, ir.TypeProtocol]:
    """Removes types with maps from a model's main graph.

    Args:
        model: changed in place.

    Returns:
        What the inputs among them had, by name.
    """
    graph = model.graph
    found = {}
    for info in graph.input:
        if _has_map(info.type):
            found[info.name] = _type_of(info.type)
            info.ClearField("type")
    for info in (*graph.output, *graph.value_info):
        if _has_map(info.type):
            info.ClearField("type")
    return found


def _has_map(type_: onnx.TypeProto) -> bool:
    match type_.WhichOneof("value"):
        case "map_type":
            return True
        case "sequence_type":
            return _has_map(type_.sequence_type.elem_type)
        case "optional_type":
            return _has_map(type_.optional_type.elem_type)
    return False


def _type_of(type_: onnx.TypeProto) -> ir.TypeProtocol:
    match type_.WhichOneof("value"):
        case "map_type":
            key = _data_type(type_.map_type.key_type)
            return MapType(key, _type_of(type_.map_type.value_type))
        case "sequence_type":
            return ir.SequenceType(_type_of(type_.sequence_type.elem_type))
        case "optional_type":
            return ir.OptionalType(_type_of(type_.optional_type.elem_type))
    return ir.TensorType(_data_type(type_.tensor_type.elem_type))


def _data_type(number: int) -> ir.DataType:
    try:
        return ir.DataType(number)
    except ValueError as error:
        raise InvalidGraph(f"an input is a map with the unknown element type {number}") from error
