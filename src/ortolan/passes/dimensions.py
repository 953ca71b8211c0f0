"""What integers that a graph computes from shapes are: numbers, or sizes that have a name.

    x (batch, 3, 8) -> Shape -> Gather(0) -> Unsqueeze -> Concat -> s      s is (batch, 24)
                                             24 --------------^

A value is a list of elements, as `sizes` writes them: equal texts stand for equal numbers. Sizes
are those that `known_shape` tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ortolan.importing.shapes import known_shape, own_size
from ortolan.passes.matching import constant, integers, reduced_axes
from ortolan.passes.sizes import Element, add, divide, is_plain, multiply, subtract

__all__ = ["Dimensions", "Elements"]

_MOST = 64


class Elements(tuple[Element, ...]):
    """The elements of a value with no dimension (`scalar`) or one."""

    scalar: bool

    @staticmethod
    def of(items: Sequence[Element], scalar: bool = False) -> Elements:
        """Elements in order; `scalar` for the one of a value without dimensions."""
        found = Elements(items)
        found.scalar = scalar
        return found

    @property
    def numbers(self) -> list[int] | None:
        """All elements if they are known, None otherwise."""
        return [e for e in self if isinstance(e, int)] if self.known else None

    @property
    def known(self) -> bool:
        """Whether all elements are numbers."""
        return all(isinstance(e, int) for e in self)


class Dimensions:
    """Finds elements of values of one model, each once."""

    def __init__(self) -> None:
        self._found: dict[ir.Value, Elements | None] = {}

    def elements(self, value: ir.Value | None) -> Elements | None:
        """Returns what is known of a value, None if it is nothing.

        Nodes must be asked in order: what is behind a value is looked at one node deep.
        """
        if value is None:
            return None
        if value not in self._found:
            self._found[value] = self._find(value)
        return self._found[value]

    def _find(self, value: ir.Value) -> Elements | None:
        if value.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
            return None
        array = constant(value)
        if array is not None:
            if array.ndim > 1 or array.size > _MOST:
                return None
            return Elements.of([int(i) for i in array.reshape(-1)], array.ndim == 0)
        node = value.producer()
        if node is None or node.domain:
            return None
        rule = _RULES.get(node.op_type)
        found = None if rule is None else rule(self, node)
        return found if found is None or _fit(found, value.dtype) else None


def _fit(elements: Elements, dtype: ir.DataType) -> bool:
    """Whether a type holds all numbers, as others wrap when the model runs; texts have an end."""
    limits = np.iinfo(dtype.numpy())
    return all(
        is_plain(e) if isinstance(e, str) else limits.min <= e <= limits.max for e in elements
    )


def _shape(_: Dimensions, node: ir.Node) -> Elements | None:
    shape = known_shape(node.inputs[0])
    if shape is None:
        return None
    sizes: list[Element] = []
    for k, size in enumerate(shape):
        # A size without a name: it is what this node says at this place.
        sizes.append(own_size(node.outputs[0], k) if size is None else size)
    end = node.attributes.get_int("end", len(sizes))
    return Elements.of(sizes[node.attributes.get_int("start", 0) : end])


def _size(_: Dimensions, node: ir.Node) -> Elements | None:
    shape = known_shape(node.inputs[0])
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return Elements.of([math.prod(s for s in shape if isinstance(s, int))], scalar=True)


def _gather(d: Dimensions, node: ir.Node) -> Elements | None:
    data, chosen = d.elements(node.inputs[0]), d.elements(node.inputs[1])
    if data is None or chosen is None or data.scalar or chosen.numbers is None:
        return None
    if not all(-len(data) <= k < len(data) for k in chosen.numbers):
        return None
    return Elements.of([data[k] for k in chosen.numbers], chosen.scalar)


def _slice(d: Dimensions, node: ir.Node) -> Elements | None:
    data = d.elements(node.inputs[0])
    if data is None or data.scalar:
        return None
    bounds: list[int] = []
    for k, (name, default) in enumerate(
        (("starts", None), ("ends", None), ("axes", 0), ("steps", 1)), start=1
    ):
        if name in node.attributes:
            numbers: list[int] | None = list(node.attributes[name].as_ints())
        elif k < len(node.inputs) and node.inputs[k] is not None:
            numbers = integers(node.inputs[k])
        else:
            numbers = None if default is None else [default]
        if numbers is None or len(numbers) != 1:
            return None
        bounds.append(numbers[0])
    start, end, _, step = bounds
    return Elements.of(data[start:end:step]) if step > 0 else None


def _concat(d: Dimensions, node: ir.Node) -> Elements | None:
    items: list[Element] = []
    for value in node.inputs:
        part = d.elements(value)
        if part is None or part.scalar or len(items) > _MOST:
            return None
        items.extend(part)
    return Elements.of(items)


def _unsqueeze(d: Dimensions, node: ir.Node) -> Elements | None:
    data, axes = d.elements(node.inputs[0]), reduced_axes(node)
    # With more axes it has more dimensions.
    one = axes is not None and len(axes) == 1
    return Elements.of(data) if data is not None and data.scalar and one else None


def _squeeze(d: Dimensions, node: ir.Node) -> Elements | None:
    data = d.elements(node.inputs[0])
    if data is None or data.scalar or len(data) != 1:
        return None
    return Elements.of(data, scalar=True)


def _same(d: Dimensions, node: ir.Node) -> Elements | None:
    return d.elements(node.inputs[0])


def _cast(d: Dimensions, node: ir.Node) -> Elements | None:
    data = d.elements(node.inputs[0])
    if data is None or node.outputs[0].dtype == ir.DataType.INT64:
        return data
    # A number may wrap; a size with a name is as good as its number in int32.
    return data if all(isinstance(e, str) or abs(e) < 1 << 31 for e in data) else None


def _reshape(d: Dimensions, node: ir.Node) -> Elements | None:
    data, shape = d.elements(node.inputs[0]), known_shape(node.outputs[0])
    if data is None or shape is None or len(shape) > 1 or None in shape:
        return None
    return Elements.of(data, scalar=not shape)


def _product(d: Dimensions, node: ir.Node) -> Elements | None:
    data = d.elements(node.inputs[0])
    if data is None or data.scalar or len(node.inputs) > 1:
        return None
    if node.attributes.get_int("noop_with_empty_axes", 0):
        return None
    keep = node.attributes.get_int("keepdims", 1)
    return Elements.of([multiply(*data)], scalar=not keep)


def _arithmetic(d: Dimensions, node: ir.Node) -> Elements | None:
    a, b = (d.elements(value) for value in node.inputs)
    if a is None or b is None:
        return None
    n = max(len(a), len(b))
    if len(a) not in (1, n) or len(b) not in (1, n):
        return None
    pairs = zip(a if len(a) == n else [*a] * n, b if len(b) == n else [*b] * n, strict=True)
    combine = _OPERATORS[node.op_type]
    return Elements.of([combine(p, q) for p, q in pairs], a.scalar and b.scalar)


def _where(d: Dimensions, node: ir.Node) -> Elements | None:
    """A choice by whether elements equal numbers; no size with a name is a negative number."""
    equal = node.inputs[0].producer() if node.inputs[0] is not None else None
    if equal is None or (equal.domain, equal.op_type) != ("", "Equal"):
        return None
    a, b, yes, no = (d.elements(value) for value in (*equal.inputs, *node.inputs[1:]))
    if a is None or b is None or yes is None or no is None:
        return None
    n = max(len(items) for items in (a, b, yes, no))
    wide = [tuple(items) * (n if len(items) == 1 else 1) for items in (a, b, yes, no)]
    if any(len(items) != n for items in wide):
        return None
    chosen: list[Element] = []
    for left, right, first, second in zip(*wide, strict=True):
        same = _is_equal(left, right)
        if same is None:
            return None
        chosen.append(first if same else second)
    return Elements.of(chosen, all(items.scalar for items in (a, b, yes, no)))


def _is_equal(a: Element, b: Element) -> bool | None:
    """Whether two elements are equal, None if that is not sure."""
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    number, name = (a, b) if isinstance(a, int) else (b, a)
    # What is in brackets may be a difference.
    negative = isinstance(number, int) and number < 0
    return False if negative and "(" not in str(name) and "-" not in str(name) else None


_OPERATORS: dict[str, Callable[[Element, Element], Element]] = {
    "Add": add, "Sub": subtract, "Mul": multiply, "Div": divide,
}  # fmt: skip

_RULES: dict[str, Callable[[Dimensions, ir.Node], Elements | None]] = {
    "Shape": _shape, "Size": _size, "Gather": _gather, "Slice": _slice, "Concat": _concat,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Cast": _cast, "Identity": _same,
    "Reshape": _reshape, "ReduceProd": _product, "Where": _where,
    **dict.fromkeys(_OPERATORS, _arithmetic),
}  # fmt: skip
