"""Models of a few nodes of any operators: the standard's in any version, and com.microsoft's.

Bytes decide everything: which operator, of which version, with which inputs and attributes. Inputs
mostly have types that the operator takes; sizes, numbers and attributes are often senseless. What
changes the bytes of a file hardly ever finds such models.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper

from ortolan.catalog import FAMILIES
from ortolan.catalog.operator import Operator, Parameter

__all__ = ["make"]

T = TypeVar("T")

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


@dataclass(frozen=True)
class _Formal:
    """An input or output: its type variable, and the types that it may have."""

    variable: str
    types: tuple[str, ...]


@dataclass(frozen=True)
class _Attribute:
    name: str
    kind: str  # as in AttributeProto: INT, FLOATS...
    required: bool


@dataclass(frozen=True)
class _Operator:
    """A version of an operator; the last input and output may repeat."""

    domain: str
    name: str
    version: int
    inputs: tuple[_Formal, ...]
    outputs: tuple[_Formal, ...]
    attributes: tuple[_Attribute, ...]
    input_counts: tuple[int, int]  # least and most
    output_counts: tuple[int, int]


@functools.cache
def _operators() -> tuple[tuple[_Operator, ...], ...]:
    """By operator, its versions."""
    found: dict[tuple[str, str], list[_Operator]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in _NEWEST and not schema.deprecated:
            found.setdefault((schema.domain, schema.name), []).append(_of_schema(schema))
    for family in FAMILIES:
        for operator in family.operators:
            if operator.domain not in _NEWEST:
                found.setdefault((operator.domain, operator.name), []).append(_of_ours(operator))
    return tuple(tuple(found[key]) for key in sorted(found))


def _of_schema(schema: onnx.defs.OpSchema) -> _Operator:
    inputs, outputs = (
        tuple(_Formal(formal.type_str, tuple(sorted(formal.types))) for formal in formals)
        for formals in (schema.inputs, schema.outputs)
    )
    attributes: Any = schema.attributes.values()
    return _Operator(
        schema.domain, schema.name, schema.since_version, inputs, outputs,
        tuple(_Attribute(a.name, a.type.name, a.required) for a in attributes),
        (schema.min_input, schema.max_input), (schema.min_output, schema.max_output),
    )  # fmt: skip


def _of_ours(operator: Operator) -> _Operator:
    names = {int(number): name for name, number in _TYPES.items()}

    def formal(parameter: Parameter) -> _Formal:
        allowed = operator.types.get(parameter.variable)
        numbers = names if allowed is None else map(int, allowed)
        types = sorted(names[number] for number in numbers if number in names)
        pattern = "seq({})" if parameter.is_sequence else "{}"
        return _Formal(parameter.variable, tuple(pattern.format(name) for name in types))

    return _Operator(
        operator.domain, operator.name, operator.since,
        tuple(map(formal, operator.inputs)), tuple(map(formal, operator.outputs)),
        tuple(_Attribute(a.name, a.kind.upper(), a.required) for a in operator.attributes),
        (operator.min_inputs, len(operator.inputs) + 3 * any(p.variadic for p in operator.inputs)),
        (1, len(operator.outputs)),
    )  # fmt: skip


class _Graph:
    """A graph that is being made; nodes take what stands before them."""

    def __init__(self, draw: _Draw, prefix: str, depth: int) -> None:
        self._draw = draw
        self._prefix = prefix
        self._depth = depth
        self._types: dict[str, str] = {}  # of values that a node may take
        self._proto = onnx.GraphProto(name="graph")
        self.first: _Operator | None = None

    def make(self) -> onnx.GraphProto:
        for _ in range(self._draw.between(1, 3)):
            self._add_input(self._draw.of(list(_TYPES)))
        for _ in range(self._draw.between(1, 3)):
            self._add_node(self._draw.of(self._draw.of(_operators())))
        self._proto.output.extend(
            onnx.ValueInfoProto(name=name) for name in self._proto.node[-1].output
        )
        return self._proto

    def _name(self) -> str:
        return f"{self._prefix}v{len(self._types)}"

    def _add_input(self, type_: str) -> str:
        draw, name = self._draw, self._name()
        sizes = draw.many(lambda: draw.of(_SIZES))
        dims: list[Any] = [draw.of((None, "N", n)) if draw.chance(50) else n for n in sizes]
        shape = None if draw.chance(12) else dims
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

    def _add_node(self, operator: _Operator) -> None:
        draw = self._draw
        self.first = self.first or operator
        least, most = operator.input_counts
        given = range(draw.between(max(least - draw.chance(12), 0), min(most, least + 4)))
        bound: dict[str, str] = {}
        inputs = [
            self._operand(operator.inputs[min(k, len(operator.inputs) - 1)], bound) for k in given
        ]
        least, most = operator.output_counts
        count = draw.between(max(least, 1), max(min(most, least + 3), 1))
        names = [f"{self._prefix}o{len(self._proto.node)}_{k}" for k in range(count)]
        node = helper.make_node(operator.name, inputs, names, domain=operator.domain)
        for attribute in operator.attributes:
            if draw.chance(245 if attribute.required else 110):
                made = self._attribute(attribute)
                if made is not None:
                    node.attribute.append(made)
        self._proto.node.append(node)
        for k, name in enumerate(names):
            formal = operator.outputs[min(k, len(operator.outputs) - 1)]
            self._types[name] = bound.get(formal.variable, next(iter(formal.types), ""))

    def _operand(self, formal: _Formal, bound: dict[str, str]) -> str:
        """An input's name, with a type that the operator takes in most cases."""
        draw = self._draw
        if draw.chance(10):
            return ""
        allowed = [bound[formal.variable]] if formal.variable in bound else formal.types
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
        bound[formal.variable] = self._types[name]
        return name

    def _attribute(self, attribute: _Attribute) -> onnx.AttributeProto | None:
        draw, name = self._draw, attribute.name
        match attribute.kind:
            case "INT":
                value: Any = draw.below(24) if draw.chance(60) else draw.integer()
            case "FLOAT":
                value = draw.of(_REALS)
            case "STRING":
                value = draw.of(_TEXTS)
            case "INTS":
                value = draw.many(draw.integer)
            case "FLOATS":
                value = draw.many(lambda: draw.of(_REALS))
            case "STRINGS":
                value = draw.many(lambda: draw.of(_TEXTS))
            case "TENSOR":
                value = self._tensor(name, draw.of(list(_TYPES)))
            case "TYPE_PROTO":
                value = helper.make_tensor_type_proto(draw.of(list(_TYPES.values())), [2, None])
            case "GRAPH" if self._depth < 2:
                prefix = f"{self._prefix}b{len(self._proto.node)}"
                value = _Graph(draw, prefix + name[0], self._depth + 1).make()
            case _:
                return None
        kind = onnx.AttributeProto.AttributeType.Value(attribute.kind)
        return helper.make_attribute(name, value, attr_type=kind)


def make(data: bytes) -> onnx.ModelProto:
    """A model that the bytes decide; equal bytes make equal models."""
    draw = _Draw(data)
    opsets = {"": draw.of((26, 13, 18, 24, 11, 9)), "ai.onnx.ml": draw.between(1, 5)}
    opsets |= {"com.microsoft": 1, "ai.ortolan": 1}
    graph = _Graph(draw, "", 0)
    proto = graph.make()
    if graph.first is not None and draw.chance(230):
        opsets[graph.first.domain] = graph.first.version
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(proto, opset_imports=imports, ir_version=10)
