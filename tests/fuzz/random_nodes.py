"""Models of a few nodes of any operators of the standard, in any of their versions.

Bytes decide everything: which operator, of which version, with which inputs and attributes. Inputs
mostly have types that the operator takes; sizes, numbers and attributes are often senseless. What
changes the bytes of a file hardly ever finds such models.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper

__all__ = ["make"]

T = TypeVar("T")
Schema = onnx.defs.OpSchema

_NEWEST = {"": 26, "ai.onnx.ml": 5}
_TYPES = {
    "tensor(float)": TensorProto.FLOAT, "tensor(uint8)": TensorProto.UINT8,
    "tensor(int8)": TensorProto.INT8, "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64, "tensor(string)": TensorProto.STRING,
    "tensor(bool)": TensorProto.BOOL, "tensor(float16)": TensorProto.FLOAT16,
    "tensor(double)": TensorProto.DOUBLE,
}  # fmt: skip
_SIZES = (0, 1, 2, 3, 4, 5, 1, 2, 3, 17)
_INTEGERS = (1, 0, 2, 3, -1, -2, -3, 4, 7, -7, 100)
_ODD_INTEGERS = (1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63), 1 << 62)
_REALS = (0.0, 1.0, -1.0, 0.5, 2.0, -3.5, 1e30, math.nan, math.inf)
_TEXTS = (
    "", "NOTSET", "SAME_UPPER", "VALID", "constant", "edge", "reflect", "linear", "cubic",
    "nearest", "forward", "reverse", "bidirectional", "DCR", "CRD", "mean", "sum", "none", "add",
    "bilinear", "floor", "MAX", "BRANCH_LEQ", "LEAF", "ij,jk->ik", "...i,i...->...", "ii->i", "a",
)  # fmt: skip


class _Draw:
    """Decisions from bytes; the first choice of each when they have ended."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def below(self, count: int) -> int:
        number = next(self._bytes, 0)
        return (number if count <= 256 else number << 8 | next(self._bytes, 0)) % count

    def between(self, least: int, most: int) -> int:
        return least + self.below(most - least + 1)

    def chance(self, of_256: int) -> bool:
        return next(self._bytes, 255) < of_256

    def of(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def integer(self) -> int:
        return self.of(_ODD_INTEGERS if self.chance(20) else _INTEGERS)

    def many(self, draw: Callable[[], T], most: int = 5) -> list[T]:
        return [draw() for _ in range(self.below(most + 1))]


@functools.cache
def _schemas() -> tuple[tuple[Schema, ...], ...]:
    """By operator, its versions."""
    found: dict[tuple[str, str], list[Schema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in _NEWEST and not schema.deprecated:
            found.setdefault((schema.domain, schema.name), []).append(schema)
    return tuple(tuple(found[key]) for key in sorted(found))


class _Graph:
    """A graph that is being made; nodes take what stands before them."""

    def __init__(self, draw: _Draw, prefix: str, depth: int) -> None:
        self._draw = draw
        self._prefix = prefix
        self._depth = depth
        self._types: dict[str, str] = {}  # of values that a node may take
        self._proto = onnx.GraphProto(name="graph")
        self.first: Schema | None = None

    def make(self) -> onnx.GraphProto:
        for _ in range(self._draw.between(1, 3)):
            self._add_input(self._draw.of(list(_TYPES)))
        for _ in range(self._draw.between(1, 3)):
            self._add_node(self._draw.of(self._draw.of(_schemas())))
        self._proto.output.extend(
            onnx.ValueInfoProto(name=name) for name in self._proto.node[-1].output
        )
        return self._proto

    def _name(self) -> str:
        return f"{self._prefix}v{len(self._types)}"

    def _add_input(self, type_: str) -> str:
        draw, name = self._draw, self._name()
        shape: list[Any] | None = draw.many(lambda: draw.of(_SIZES))
        assert shape is not None
        shape = [draw.of((None, "N", size)) if draw.chance(50) else size for size in shape]
        if draw.chance(12):
            shape = None
        element = _TYPES[type_.removeprefix("seq(").removeprefix("optional(").rstrip(")") + ")"]
        made = helper.make_tensor_type_proto(element, shape)
        if type_.startswith("seq("):
            made = helper.make_sequence_type_proto(made)
        elif type_.startswith("optional("):
            made = helper.make_optional_type_proto(made)
        self._proto.input.append(helper.make_value_info(name, made))
        self._types[name] = type_
        return name

    def _add_constant(self, type_: str) -> str:
        name = self._name()
        self._proto.initializer.append(self._tensor(name, type_))
        self._types[name] = type_
        return name

    def _tensor(self, name: str, type_: str) -> TensorProto:
        draw = self._draw
        dims = [draw.below(5) for _ in range(draw.of((1, 1, 1, 0, 2, 3)))]
        count = math.prod(dims)
        element = _TYPES[type_]
        if element == TensorProto.STRING:
            texts: Any = [draw.of(_TEXTS) for _ in range(count)]
            return helper.make_tensor(name, element, dims, texts)
        is_real = element in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
        values: list[float] = [draw.of(_REALS) if is_real else draw.integer() for _ in range(count)]
        with np.errstate(all="ignore"):
            wide = np.array(values, np.float64 if is_real else np.int64)
            array = wide.astype(helper.tensor_dtype_to_np_dtype(element)).reshape(dims)
        return onnx.numpy_helper.from_array(array, name)

    def _add_node(self, schema: Schema) -> None:
        draw = self._draw
        self.first = self.first or schema
        given = range(
            draw.between(
                max(schema.min_input - draw.chance(12), 0),
                min(schema.max_input, schema.min_input + 4),
            )
        )
        bound: dict[str, str] = {}
        inputs = [
            self._operand(schema.inputs[min(k, len(schema.inputs) - 1)], bound) for k in given
        ]
        count = draw.between(
            max(schema.min_output, 1), max(min(schema.max_output, schema.min_output + 3), 1)
        )
        names = [f"{self._prefix}o{len(self._proto.node)}_{k}" for k in range(count)]
        node = helper.make_node(schema.name, inputs, names, domain=schema.domain)
        for attribute in schema.attributes.values():
            if draw.chance(245 if attribute.required else 110):
                made = self._attribute(attribute)
                if made is not None:
                    node.attribute.append(made)
        self._proto.node.append(node)
        for k, name in enumerate(names):
            formal = schema.outputs[min(k, len(schema.outputs) - 1)]
            self._types[name] = bound.get(formal.type_str, next(iter(formal.types), ""))

    def _operand(self, formal: Schema.FormalParameter, bound: dict[str, str]) -> str:
        """An input's name, with a type that the operator takes in most cases."""
        draw = self._draw
        if draw.chance(10):
            return ""
        allowed = [bound[formal.type_str]] if formal.type_str in bound else sorted(formal.types)
        fitting = [name for name, type_ in self._types.items() if type_ in allowed]
        how = draw.below(16)
        if how == 15:
            fitting = list(self._types)
        if fitting and how % 3 < 2:
            name = draw.of(fitting)
        else:
            makable = [t for t in allowed if t in _TYPES] or [
                t for t in allowed if t[: t.find("(") + 1] in ("seq(", "optional(")
                and t.removeprefix("seq(").removeprefix("optional(")[:-1] in _TYPES
            ]  # fmt: skip
            if not makable:
                return draw.of(list(self._types))
            type_ = draw.of(makable)
            is_constant = type_ in _TYPES and (self._depth > 0 or how % 2 == 0)
            name = self._add_constant(type_) if is_constant else self._add_input(type_)
        bound[formal.type_str] = self._types[name]
        return name

    def _attribute(self, attribute: Any) -> onnx.AttributeProto | None:
        draw, name, kinds = self._draw, attribute.name, Schema.AttrType
        match attribute.type:
            case kinds.INT:
                value: Any = draw.below(24) if draw.chance(60) else draw.integer()
            case kinds.FLOAT:
                value = draw.of(_REALS)
            case kinds.STRING:
                value = draw.of(_TEXTS)
            case kinds.INTS:
                value = draw.many(draw.integer)
            case kinds.FLOATS:
                value = draw.many(lambda: draw.of(_REALS))
            case kinds.STRINGS:
                value = draw.many(lambda: draw.of(_TEXTS))
            case kinds.TENSOR:
                value = self._tensor(name, draw.of(list(_TYPES)))
            case kinds.TYPE_PROTO:
                value = helper.make_tensor_type_proto(draw.of(list(_TYPES.values())), [2, None])
            case kinds.GRAPH if self._depth < 2:
                prefix = f"{self._prefix}b{len(self._proto.node)}"
                value = _Graph(draw, prefix + name[0], self._depth + 1).make()
            case _:
                return None
        return helper.make_attribute(name, value, attr_type=attribute.type.value)


def make(data: bytes) -> onnx.ModelProto:
    """A model that the bytes decide; equal bytes make equal models."""
    draw = _Draw(data)
    opsets = {"": draw.of((26, 13, 18, 24, 11, 9)), "ai.onnx.ml": draw.between(1, 5)}
    graph = _Graph(draw, "", 0)
    proto = graph.make()
    if graph.first is not None and draw.chance(230):
        opsets[graph.first.domain] = graph.first.since_version
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(proto, opset_imports=imports, ir_version=10)
