"""Random small graphs for the executor: views, elementwise operators, pools, If, Loop and Scan.

`make(seed)` draws a model with feeds. Shapes are tracked while drawing, so every graph is valid.
What decides shapes (targets of Reshape, bounds of Slice...) is either constant, so that the whole
plan is known beforehand, or fed at run time, so that nodes are planned one by one.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Drawn", "make"]

OPSET = 17
_LARGEST = 96  # elements of a value
_MAX_RANK = 5

Array: TypeAlias = npt.NDArray[Any]
Dims: TypeAlias = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A model and several sets of feeds for it; `fed` tells whether shapes are decided by feeds."""

    seed: int
    model: onnx.ModelProto
    feeds: list[dict[str, Array]]
    fed: bool


@dataclasses.dataclass(frozen=True)
class _Value:
    """A float tensor in scope; a dimension of None differs from run to run."""

    name: str
    dims: Dims

    @property
    def is_known(self) -> bool:
        return None not in self.dims

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(d for d in self.dims if d is not None)

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass
class _Scope:
    """A graph in the making: its own nodes, and all values that it may use, outer ones included."""

    draw: random.Random
    root: _Root
    depth: int
    values: list[_Value]
    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    own: list[_Value] = dataclasses.field(default_factory=list)

    def add(self, value: _Value) -> _Value:
        self.values.append(value)
        self.own.append(value)
        return value

    def node(self, op: str, inputs: Sequence[str], dims: Dims, **attributes: Any) -> _Value:
        name = self.root.name(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return self.add(_Value(name, dims))

    def pick(self, wanted: Callable[[_Value], bool] = lambda v: True) -> _Value | None:
        """A value; the newest are the likeliest, so that graphs get deep."""
        found = [v for v in self.values if wanted(v)]
        if not found:
            return None
        return found[-1 - min(int(self.draw.expovariate(0.35)), len(found) - 1)]


@dataclasses.dataclass
class _Root:
    """What belongs to the main graph: constants, inputs, and numbers for names."""

    draw: random.Random
    fed: bool
    initializers: list[onnx.TensorProto] = dataclasses.field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = dataclasses.field(default_factory=list)
    feeds: list[dict[str, Array]] = dataclasses.field(default_factory=list)
    names: int = 0

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}_{self.names}"

    def constant(self, array: Array) -> str:
        name = self.name("constant")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def input(self, arrays: Sequence[Array], dims: Sequence[Any] | None = None) -> str:
        """An input of the model; an array for each set of feeds."""
        name = self.name("input")
        kind = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        shape = arrays[0].shape if dims is None else dims
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        for feeds, array in zip(self.feeds, arrays, strict=True):
            feeds[name] = array
        return name

    def integers(self, values: Sequence[int]) -> str:
        """Integers that decide shapes."""
        array = np.array(values, np.int64)
        return self.input([array] * len(self.feeds)) if self.fed else self.constant(array)

    def floats(self, shape: Sequence[int]) -> Array:
        numbers = [self.draw.randrange(-16, 17) / 8 for _ in range(math.prod(shape))]
        return np.array(numbers, np.float32).reshape(shape)


# ---- Operators. Each adds nodes to a scope, or answers False when nothing there suits it.

_UNARY = ("Relu", "Neg", "Abs", "Identity", "Identity", "Sigmoid")
_BINARY = ("Add", "Sub", "Mul", "Max", "Min")


def _small(value: _Value) -> bool:
    return value.is_known and value.count <= _LARGEST


def _unary(s: _Scope) -> bool:
    x = s.pick()
    assert x is not None
    s.node(s.draw.choice(_UNARY), [x.name], x.dims)
    return True


def _binary(s: _Scope) -> bool:
    a = s.pick(_small)
    if a is None:
        return False
    b = s.pick(lambda v: v.dims == a.dims) if s.draw.random() < 0.7 else None
    name, dims = (b.name, b.dims) if b else (s.root.constant(s.root.floats(())), ())
    pair = [a.name, name] if s.draw.random() < 0.5 else [name, a.name]
    assert dims in (a.dims, ())
    s.node(s.draw.choice(_BINARY), pair, a.dims)
    return True


def _broadcast(s: _Scope) -> bool:
    a = s.pick(lambda v: _small(v) and len(v.dims) > 0)
    if a is None:
        return False
    shape = [d if s.draw.random() < 0.5 else 1 for d in a.shape][s.draw.randrange(len(a.dims)) :]
    s.node(s.draw.choice(_BINARY), [a.name, s.root.constant(s.root.floats(shape))], a.dims)
    return True


def _factors(draw: random.Random, count: int) -> list[int]:
    shape: list[int] = []
    while count > 1 and len(shape) < _MAX_RANK - 1:
        divisors = [d for d in range(2, count + 1) if count % d == 0]
        shape.append(draw.choice(divisors))
        count //= shape[-1]
    if count > 1 or draw.random() < 0.2:
        shape.append(count)
    draw.shuffle(shape)
    return shape


def _reshape(s: _Scope) -> bool:
    x = s.pick(_small)
    if x is None or x.count == 0:
        return False
    shape = _factors(s.draw, x.count)
    other = s.pick(lambda v: v.is_known and v.count == x.count)
    if other and s.draw.random() < 0.3:  # the shape of another value, known while planning
        target = s.node("Shape", [other.name], (len(other.dims),))
        s.values.remove(target)  # no float
        s.own.remove(target)
        s.node("Reshape", [x.name, target.name], other.dims)
        return True
    written = list(shape)
    if written and s.draw.random() < 0.4:
        written[s.draw.randrange(len(written))] = -1
    s.node("Reshape", [x.name, s.root.integers(written)], tuple(shape))
    return True


def _transpose(s: _Scope) -> bool:
    x = s.pick(lambda v: len(v.dims) >= 2)
    if x is None:
        return False
    perm = list(range(len(x.dims)))
    s.draw.shuffle(perm)
    s.node("Transpose", [x.name], tuple(x.dims[p] for p in perm), perm=perm)
    return True


def _slice(s: _Scope) -> bool:
    x = s.pick(lambda v: v.is_known and len(v.dims) > 0)
    if x is None:
        return False
    axis = s.draw.randrange(len(x.dims))
    size = x.shape[axis]
    step = s.draw.choice((1, 1, 1, 2, -1))
    start, end = sorted(s.draw.randrange(size + 1) for _ in range(2))
    kept = len(range(size)[start:end:step] if step > 0 else range(size)[end - 1 : start : step])
    if step < 0:
        start, end = end - 1, start
        if start < 0:
            return False
    dims = (*x.dims[:axis], kept, *x.dims[axis + 1 :])
    if 0 in dims and s.draw.random() < 0.8:
        return False
    names = [s.root.integers([v]) for v in (start, end, axis - len(x.dims), step)]
    s.node("Slice", [x.name, *names], dims)
    return True


def _unsqueeze(s: _Scope) -> bool:
    x = s.pick(lambda v: len(v.dims) < _MAX_RANK)
    if x is None:
        return False
    axis = s.draw.randrange(len(x.dims) + 1)
    dims = (*x.dims[:axis], 1, *x.dims[axis:])
    s.node("Unsqueeze", [x.name, s.root.integers([axis])], dims)
    return True


def _squeeze(s: _Scope) -> bool:
    x = s.pick(lambda v: 1 in v.dims)
    if x is None:
        return False
    axis = s.draw.choice([i for i, d in enumerate(x.dims) if d == 1])
    s.node("Squeeze", [x.name, s.root.integers([axis])], (*x.dims[:axis], *x.dims[axis + 1 :]))
    return True


def _split(s: _Scope) -> bool:
    x = s.pick(lambda v: v.is_known and any(d >= 2 for d in v.shape))
    if x is None:
        return False
    axis = s.draw.choice([i for i, d in enumerate(x.shape) if d >= 2])
    first = s.draw.randrange(1, x.shape[axis])
    parts = [first, x.shape[axis] - first]
    names = [s.root.name("split") for _ in parts]
    sizes = s.root.integers(parts)
    s.nodes.append(helper.make_node("Split", [x.name, sizes], names, axis=axis))
    for name, size in zip(names, parts, strict=True):
        s.add(_Value(name, (*x.dims[:axis], size, *x.dims[axis + 1 :])))
    return True


def _concat(s: _Scope) -> bool:
    x = s.pick(lambda v: _small(v) and len(v.dims) > 0)
    if x is None or 2 * x.count > _LARGEST:
        return False
    axis = s.draw.randrange(len(x.dims))

    def suits(v: _Value) -> bool:
        rest = (*v.dims[:axis], *v.dims[axis + 1 :])
        return (
            _small(v)
            and len(v.dims) == len(x.dims)
            and rest == (*x.dims[:axis], *x.dims[axis + 1 :])
        )

    y = s.pick(suits) or x
    dims = (*x.dims[:axis], x.shape[axis] + y.shape[axis], *x.dims[axis + 1 :])
    s.node("Concat", [x.name, y.name], dims, axis=axis)
    return True


def _expand(s: _Scope) -> bool:
    x = s.pick(lambda v: v.is_known and 1 in v.dims and v.count * 3 <= _LARGEST)
    if x is None:
        return False
    axis = s.draw.choice([i for i, d in enumerate(x.dims) if d == 1])
    shape = [3 if i == axis else d for i, d in enumerate(x.shape)]
    s.node("Expand", [x.name, s.root.integers(shape)], tuple(shape))
    return True


def _reduce(s: _Scope) -> bool:
    x = s.pick(lambda v: _small(v) and len(v.dims) > 0)
    if x is None or x.count == 0:
        return False
    axis, keep = s.draw.randrange(len(x.dims)), s.draw.randrange(2)
    middle = (1,) if keep else ()
    dims = (*x.dims[:axis], *middle, *x.dims[axis + 1 :])
    s.node("ReduceMax", [x.name], dims, axes=[axis], keepdims=keep)
    return True


def _pool(s: _Scope) -> bool:
    """A spatial operator: its results lie in memory with the channels last."""
    x = s.pick(lambda v: v.is_known and len(v.dims) in (3, 4) and min(v.shape[2:]) >= 2)
    if x is None or x.count == 0:
        return False
    spatial = len(x.dims) - 2
    if s.draw.random() < 0.5:
        dims = (*x.shape[:2], *(d - 1 for d in x.shape[2:]))
        s.node("MaxPool", [x.name], dims, kernel_shape=[2] * spatial)
    else:
        channels = s.draw.choice((1, 3, 4))
        weights = s.root.constant(s.root.floats((channels, x.shape[1], *[1] * spatial)) / 4)
        s.node("Conv", [x.name, weights], (x.shape[0], channels, *x.shape[2:]))
    return True


def _where(s: _Scope) -> bool:
    a = s.pick(_small)
    b = s.pick(lambda v: a is not None and v.dims == a.dims)
    if a is None or b is None:
        return False
    mask = s.root.name("mask")
    s.nodes.append(helper.make_node("Greater", [a.name, b.name], [mask]))
    s.node("Where", [mask, b.name, a.name], a.dims)
    return True


# ---- Control flow.


def _inner(s: _Scope, own: Sequence[_Value] = ()) -> _Scope:
    made = _Scope(s.draw, s.root, s.depth + 1, [*s.values, *own])
    made.own.extend(own)
    for _ in range(s.draw.randrange(1, 6)):
        _step(made)
    return made


def _info(s: _Scope, value: _Value, styles: int = 3) -> onnx.ValueInfoProto:
    """A declaration: of the shape, of the rank, or (style 2) of the type alone."""
    style = s.draw.randrange(styles)
    dims = None if style == 2 else [None if style == 1 else d for d in value.dims]
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims)


def _result(inner: _Scope, dims: Dims) -> _Value:
    """A value of these dims that the graph itself computes; a new one when there is none."""
    made = {name for node in inner.nodes for name in node.output}
    found = [v for v in inner.own if v.dims == dims and v.name in made]
    if found and inner.draw.random() < 0.8:
        return inner.draw.choice(found)
    source = inner.pick(lambda v: v.dims == dims)
    if source is None:
        shape = [d for d in dims if d is not None]
        source = _Value(inner.root.constant(inner.root.floats(shape)), tuple(shape))
    return inner.node("Identity", [source.name], dims)


def _graph(inner: _Scope, inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
    return helper.make_graph(inner.nodes, inner.root.name("body"), inputs, outputs)


def _if(s: _Scope) -> bool:
    conditions = [np.array(s.draw.random() < 0.5) for _ in s.root.feeds]
    if s.draw.random() < 0.2:
        condition = s.root.constant(conditions[0])
    else:
        condition = s.root.input(conditions)
    branches = [_inner(s), _inner(s)]
    known = [v for v in branches[0].own if v.is_known]
    wanted = [s.draw.choice(known).dims for _ in range(s.draw.randrange(1, 3)) if known] or [(2,)]
    graphs = []
    for inner in branches:
        results = [_result(inner, dims) for dims in wanted]
        for i, value in enumerate(results):
            if value in results[:i]:
                results[i] = inner.node("Identity", [value.name], value.dims)
        graphs.append(_graph(inner, [], [_info(s, v) for v in results]))
    names = [s.root.name("if") for _ in wanted]
    s.nodes.append(
        helper.make_node("If", [condition], names, then_branch=graphs[0], else_branch=graphs[1])
    )
    for name, dims in zip(names, wanted, strict=True):
        s.add(_Value(name, dims))
    return True


def _condition(s: _Scope, inner: _Scope, number: str, go: str, last: int) -> str:
    """The body's condition: always true, or false after `last` turns."""
    name = s.root.name("again")
    if s.draw.random() < 0.6:
        inner.nodes.append(helper.make_node("Identity", [go], [name]))
    else:
        limit = s.root.constant(np.array(last, np.int64))
        inner.nodes.append(helper.make_node("Less", [number, limit], [name]))
    return name


def _loop(s: _Scope) -> bool:
    states = [v for v in (s.pick(_small) for _ in range(s.draw.randrange(3))) if v]
    number, go = s.root.name("number"), s.root.name("go")
    own = [_Value(s.root.name("state"), v.dims) for v in states]
    inner = _inner(s, own)
    outputs = _next_states(s, inner, own)
    stacked = [_result(inner, v.dims) for v in inner.own[:1] if v.is_known]
    again = _condition(s, inner, number, go, s.draw.randrange(4))
    inputs = [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(go, TensorProto.BOOL, []),
        *(_info(s, v) for v in own),
    ]
    results = _distinct(inner, [*outputs, *stacked])
    infos = [helper.make_tensor_value_info(again, TensorProto.BOOL, [])]
    body = _graph(inner, inputs, [*infos, *(_info(s, v) for v in results)])
    # A scan output of no turns has the shape that the body declares, so there is one turn.
    trips = [np.array(s.draw.randrange(1, 4), np.int64) for _ in s.root.feeds]
    trip = s.root.input(trips) if s.draw.random() < 0.8 else s.root.constant(trips[0])
    names = [s.root.name("loop") for _ in results]
    if not names:
        return False
    s.nodes.append(
        helper.make_node("Loop", [trip, "", *(v.name for v in states)], names, body=body)
    )
    for i, (name, value) in enumerate(zip(names, results, strict=True)):
        s.add(_Value(name, value.dims if i < len(states) else (None, *value.dims)))
    return True


def _next_states(s: _Scope, inner: _Scope, own: Sequence[_Value]) -> list[_Value]:
    """What each state becomes: a result, itself, or another state of the same shape."""
    made = []
    for value in own:
        alike = [v for v in own if v.dims == value.dims]
        made.append(s.draw.choice(alike) if s.draw.random() < 0.4 else _result(inner, value.dims))
    return made


def _distinct(inner: _Scope, values: list[_Value]) -> list[_Value]:
    """Outputs of a graph must differ."""
    for i, value in enumerate(values):
        if value in values[:i]:
            values[i] = inner.node("Identity", [value.name], value.dims)
    return values


def _scan(s: _Scope) -> bool:
    x = s.pick(lambda v: _small(v) and len(v.dims) >= 1 and v.count > 0)
    if x is None:
        return False
    axis = s.draw.randrange(len(x.dims))
    length = x.shape[axis]
    item = _Value(s.root.name("item"), (*x.dims[:axis], *x.dims[axis + 1 :]))
    states = [v for v in (s.pick(_small) for _ in range(s.draw.randrange(3))) if v]
    own = [_Value(s.root.name("state"), v.dims) for v in states]
    inner = _inner(s, [*own, item])
    stacked = [_result(inner, item.dims) for _ in range(s.draw.randrange(1, 3))]
    out_axes = [s.draw.randrange(len(v.dims) + 1) for v in stacked]
    # onnxruntime never writes a state that a Scan's body hands on as it came.
    kept = [
        inner.node("Identity", [v.name], v.dims) if v in own else v
        for v in _next_states(s, inner, own)
    ]
    results = _distinct(inner, [*kept, *stacked])
    # onnxruntime wants the rank of a Scan's results declared.
    infos = [_info(s, v, 2) for v in results]
    body = _graph(inner, [_info(s, v) for v in (*own, item)], infos)
    names = [s.root.name("scan") for _ in results]
    s.nodes.append(
        helper.make_node(
            "Scan", [*(v.name for v in states), x.name], names, body=body, num_scan_inputs=1,
            scan_input_axes=[axis - (len(x.dims) if s.draw.random() < 0.5 else 0)],
            scan_input_directions=[s.draw.randrange(2)], scan_output_axes=out_axes,
            scan_output_directions=[s.draw.randrange(2) for _ in stacked],
        )
    )  # fmt: skip
    for i, (name, value) in enumerate(zip(names, results, strict=True)):
        dims = value.dims
        if i >= len(states):
            at = out_axes[i - len(states)]
            dims = (*dims[:at], length, *dims[at:])
        s.add(_Value(name, dims))
    return True


_PLAIN = (
    _unary, _unary, _binary, _binary, _broadcast, _reshape, _reshape, _transpose, _transpose,
    _slice, _slice, _unsqueeze, _squeeze, _split, _concat, _expand, _reduce, _pool, _pool, _where,
)  # fmt: skip
_CONTROL = (_if, _loop, _scan)


def _step(s: _Scope) -> None:
    for _ in range(8):
        control = s.depth < 2 and s.draw.random() < (0.2 if s.depth == 0 else 0.1)
        if s.draw.choice(_CONTROL if control else _PLAIN)(s):
            return


def make(seed: int) -> Drawn:
    """The model of a seed, with three sets of feeds."""
    draw = random.Random(seed)
    root = _Root(draw, fed=draw.random() < 0.4, feeds=[{}, {}, {}])
    scope = _Scope(draw, root, 0, [])
    for _ in range(draw.randrange(1, 4)):
        shape = [draw.choice((1, 2, 3, 4)) for _ in range(draw.randrange(5))]
        arrays = [root.floats(shape) for _ in root.feeds]
        dims = [f"d{draw.randrange(9)}x{d}" if draw.random() < 0.3 else d for d in shape]
        scope.values.append(_Value(root.input(arrays, dims), tuple(shape)))
    if draw.random() < 0.5:
        shape = [draw.choice((2, 3)) for _ in range(draw.randrange(4))]
        scope.values.append(_Value(root.constant(root.floats(shape)), tuple(shape)))
    for _ in range(draw.randrange(3, 14)):
        _step(scope)
    candidates = scope.own or scope.values
    outputs = list(dict.fromkeys([candidates[-1], *draw.sample(candidates, len(candidates) // 3)]))
    if draw.random() < 0.2:
        outputs.append(scope.values[0])  # an input that is also an output
    infos = [helper.make_tensor_value_info(v.name, TensorProto.FLOAT, None) for v in outputs]
    graph = helper.make_graph(
        scope.nodes, f"graph_{seed}", root.inputs, infos, initializer=root.initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return Drawn(seed, model, root.feeds, root.fed)
