"""Operator cases with one to three things wrong.

An attribute, the numbers or the shape of an input, an input or output too many or too few.
A case is a valid use of its operator, so nearly all of a kernel's checks pass: the one that is
missing shows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, numpy_helper

import cases_lib
import mutate

__all__ = ["mutants"]

Array = npt.NDArray[Any]

_FLOATS = (
    0.0, -0.0, 1.0, -1.0, 3.5, 1e-40, 1e10, 1e30, -1e30, 2.0**31, 2.0**63, -(2.0**63),
    math.inf, -math.inf, math.nan,
)  # fmt: skip
_TEXTS = ("", "a", "é" * 3, "x" * 40, "1", "-1e400")
_MOST_BYTES = 30_000
_MOST_ELEMENTS = 20_000


def mutants(cases: Iterable[cases_lib.Case], seed: int, count: int) -> Iterator[onnx.ModelProto]:
    """Yields `count` mutants of each case; cases of long models are left out."""
    draw = random.Random(seed)
    for case in cases:
        model = cases_lib.make_model(case)
        if model.proto.ByteSize() <= _MOST_BYTES:
            for _ in range(count):
                yield _Mutant(model, case.operator, draw).make()


class _Mutant:
    def __init__(self, model: cases_lib.Model, operator: str, draw: random.Random) -> None:
        self._draw = draw
        self._proto = onnx.ModelProto()
        self._proto.CopyFrom(model.proto)
        graph = self._proto.graph
        nodes = [node for node in graph.node if node.op_type == operator] or list(graph.node)
        self._node = nodes[-1]
        self._arrays = {
            name: array for name, array in model.feeds.items() if isinstance(array, np.ndarray)
        }
        for tensor in graph.initializer:
            self._arrays[tensor.name] = numpy_helper.to_array(tensor)

    def make(self) -> onnx.ModelProto:
        for _ in range(self._draw.choice((1, 1, 1, 2, 3))):
            self._draw.choice((self._attribute, self._input, self._input, self._operands))()
        self._store(fixed=self._draw.random() < 0.7)
        return self._proto

    def _attribute(self) -> None:
        attributes = self._node.attribute
        if not attributes:
            return
        attribute = self._draw.choice(attributes)
        if self._draw.random() < 0.1:
            attributes.remove(attribute)
            return
        match attribute.type:
            case AttributeProto.FLOAT:
                attribute.f = self._draw.choice(_FLOATS)
            case AttributeProto.INT:
                attribute.i = self._draw.choice(mutate.INTEGERS)
            case AttributeProto.STRING:
                attribute.s += b"x"
            case AttributeProto.FLOATS:
                self._list(attribute.floats, self._draw.choice(_FLOATS))
            case AttributeProto.INTS:
                self._list(attribute.ints, self._draw.choice(mutate.INTEGERS))
            case AttributeProto.STRINGS:
                self._list(attribute.strings, b"x")
            case AttributeProto.TENSOR if attribute.t.data_type != onnx.TensorProto.UNDEFINED:
                array = self._changed(numpy_helper.to_array(attribute.t))
                attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))

    def _list(self, values: Any, value: Any) -> None:
        how = self._draw.randrange(3)
        if how == 0 or not values:
            values.append(value)
        elif how == 1:
            del values[-1]
        else:
            values[self._draw.randrange(len(values))] = value

    def _input(self) -> None:
        names = [name for name in self._node.input if name in self._arrays]
        if names:
            name = self._draw.choice(names)
            self._arrays[name] = self._changed(self._arrays[name])

    def _changed(self, array: Array) -> Array:
        draw = self._draw
        if array.size and draw.random() < 0.4:
            flat = array.copy().reshape(-1)
            for _ in range(draw.choice((1, 1, 2, min(flat.size, 20)))):
                flat[draw.randrange(flat.size)] = self._element(flat.dtype)
            return flat.reshape(array.shape)
        shape = list(array.shape)
        how = draw.choice(("more", "less", "none", "one", "drop", "add", "scalar", "order"))
        at = draw.randrange(len(shape)) if shape else 0
        if how == "scalar":
            shape = []
        elif how == "add" or not shape:
            shape.insert(at, draw.choice((1, 1, 2, 0)))
        elif how == "drop":
            del shape[at]
        elif how == "order":
            draw.shuffle(shape)
        else:
            size = shape[at]
            shape[at] = {"more": size + 1, "less": max(size - 1, 0), "none": 0, "one": 1}[how]
        count = math.prod(shape)
        if count > _MOST_ELEMENTS:
            return array
        filler = np.full(1, "", object) if array.dtype.kind == "O" else np.zeros(1, array.dtype)
        return np.resize(array.reshape(-1) if array.size else filler, count).reshape(shape)

    def _element(self, dtype: np.dtype[Any]) -> Any:
        draw = self._draw
        if dtype.kind == "O":
            return draw.choice(_TEXTS)
        if dtype.kind in "iu":
            ends = (np.iinfo(dtype).min, np.iinfo(dtype).max)
            integers = [n for n in mutate.INTEGERS if ends[0] <= n <= ends[1]]
            return draw.choice((*integers, *ends))
        with np.errstate(all="ignore"):
            return np.array(draw.choice(_FLOATS)).astype(dtype)

    def _operands(self) -> None:
        draw, node = self._draw, self._node
        names = [name for name in node.input if name]
        how = draw.randrange(5)
        if how == 0 and len(node.output) > 1:
            node.output[draw.randrange(len(node.output))] = ""
        elif how == 1 or not node.input:
            node.input.append(draw.choice(names) if names else "")
        elif how == 2:
            del node.input[-1]
        else:
            at = draw.randrange(len(node.input))
            node.input[at] = draw.choice(names) if names and how == 3 else ""

    def _store(self, *, fixed: bool) -> None:
        """Puts the arrays into the model; `fixed`: as constants, so that no feeds replace them."""
        graph = self._proto.graph
        inputs = list(graph.input)
        constants = {tensor.name for tensor in graph.initializer}
        if fixed:
            constants |= self._arrays.keys()
        kept = []
        for info in inputs:
            if info.name not in constants:
                kept.append(onnx.ValueInfoProto.FromString(info.SerializeToString()))
                if info.name in self._arrays:
                    kept[-1].type.tensor_type.ClearField("shape")
                    for size in self._arrays[info.name].shape:
                        kept[-1].type.tensor_type.shape.dim.add(dim_value=size)
        tensors = [
            numpy_helper.from_array(array, name)
            for name, array in self._arrays.items()
            if name in constants
        ]
        del graph.input[:], graph.initializer[:]
        graph.input.extend(kept)
        graph.initializer.extend(tensors)
        produced = [name for node in graph.node for name in node.output if name]
        outputs = [info.name for info in graph.output if info.name in produced] or produced[-1:]
        del graph.output[:]
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
