"""Whether the runtime computes what it should on this machine: the checks of `ortolan selftest`.

Small models against numpy in double precision, in every instruction set that the processor has; the
digits example against its labels; one thread against several, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

import ortolan
from ortolan.demo import FULL_INK, LEAST_ACCURACY, example_folder, load_held_out
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.errors import OrtolanError

__all__ = ["Finding", "findings", "levels"]

Array = npt.NDArray[Any]
_LIMIT = 1e-5
"""Largest difference to numpy, relative to the largest magnitude of the output."""
_OPSET = 17
_THREADS = 4
# Processors have the sets below the best as well.
_LEVELS = {"avx2": 2, "avx512": 3}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check gave.

    Attributes:
        name: of the check.
        level: the instruction set, by its number.
        problem: what is wrong; empty if nothing is.
        absent: whether the library, a reduced one, does not have what it takes.
    """

    name: str
    level: int
    problem: str = ""
    absent: bool = False


@dataclasses.dataclass(frozen=True)
class _Case:
    """A node, its inputs, constants among them, and what comes out in double precision."""

    operator: str
    feeds: Mapping[str, Array]
    expected: Callable[..., Array]
    constants: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _convolution(x: Array, w: Array) -> Array:
    """3x3, padded by one, of as many groups as the weights tell."""
    groups = x.shape[1] // w.shape[1]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    y = np.zeros((x.shape[0], w.shape[0], height, width))
    each_in, each_out = w.shape[1], w.shape[0] // groups
    for g in range(groups):
        inputs = padded[:, g * each_in : (g + 1) * each_in]
        weights = w[g * each_out : (g + 1) * each_out]
        for i in range(3):
            for j in range(3):
                part = inputs[:, :, i : i + height, j : j + width]
                y[:, g * each_out : (g + 1) * each_out] += np.einsum(
                    "nchw,oc->nohw", part, weights[:, :, i, j]
                )
    return y


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    found: Array = powers / powers.sum(-1, keepdims=True)
    return found


def _sigmoid(x: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-x))
    return found


def _lstm(x: Array, w: Array, r: Array) -> Array:
    hidden = r.shape[2]
    h, c = np.zeros((x.shape[1], hidden)), np.zeros((x.shape[1], hidden))
    rows = []
    for step in x:
        sums = step @ w[0].T + h @ r[0].T
        i, o, f, g = (sums[:, k * hidden : (k + 1) * hidden] for k in range(4))
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        rows.append(h)
    return np.stack(rows)[:, None]


def _cases() -> Iterator[_Case]:
    random = np.random.default_rng(1)

    def normal(*shape: int) -> Array:
        return random.normal(size=shape).astype(np.float32)

    yield _Case("MatMul", {"a": normal(37, 65), "b": normal(65, 43)}, np.matmul, ("b",))
    yield _Case("MatMul", {"a": normal(3, 5, 19), "b": normal(3, 19, 7)}, np.matmul)
    around = {"pads": [1, 1, 1, 1]}
    for groups, channels in ((1, 5), (1, 32), (24, 24), (3, 12)):
        feeds = {"x": normal(2, channels, 9, 11), "w": normal(24, channels // groups, 3, 3)}
        yield _Case("Conv", feeds, _convolution, ("w",), {**around, "group": groups})
    yield _Case("Softmax", {"x": normal(7, 45)}, _softmax)
    for name, function in (
        ("Exp", np.exp), ("Tanh", np.tanh), ("Sigmoid", _sigmoid), ("Relu", lambda x: x.clip(0)),
        ("Sin", np.sin),
    ):  # fmt: skip
        yield _Case(name, {"x": normal(9, 21)}, function)
    yield _Case("Log", {"x": np.abs(normal(201)) + np.float32(1e-3)}, np.log)
    yield _Case("Add", {"a": normal(6, 1, 5), "b": normal(4, 1)}, np.add)
    yield _Case("Mul", {"a": normal(129), "b": normal(129)}, np.multiply)
    yield _Case("Transpose", {"x": normal(3, 17, 9)}, lambda x: x.transpose(2, 0, 1), (),
                {"perm": [2, 0, 1]})  # fmt: skip
    yield _Case("ReduceMean", {"x": normal(5, 33)}, lambda x: x.mean(-1), (),
                {"axes": [-1], "keepdims": 0})  # fmt: skip
    yield _Case("LSTM", {"x": normal(6, 2, 10), "w": normal(1, 28, 10), "r": normal(1, 28, 7)},
                _lstm, ("w", "r"), {"hidden_size": 7})  # fmt: skip


def _model(case: _Case) -> bytes:
    def info(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, case.feeds[name].shape)

    node = helper.make_node(case.operator, list(case.feeds), ["y"], **case.attributes)
    graph = helper.make_graph(
        [node], "selftest", [info(name) for name in case.feeds if name not in case.constants],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(case.feeds[name], name) for name in case.constants],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", _OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    content = ortolan.convert(made.SerializeToString())
    assert isinstance(content, bytes)
    return content


def _session(content: bytes, level: int, threads: int = 1) -> ortolan.InferenceSession:
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("ortolan.instruction_set", str(level))
    return ortolan.InferenceSession(content, options)


def levels() -> range:
    """The numbers of the instruction sets that this machine has."""
    return range(_LEVELS.get(str(ortolan.runtime_info()["instruction_set"]), 1))


def findings() -> Iterator[Finding]:
    """Runs the checks one after another, in every instruction set."""
    for level in levels():
        for case in _cases():
            yield _checked(case.operator, level, partial(_case, case))
        yield _checked("the digits example", level, _digits)
        yield _checked("several threads", level, _threads)


def _checked(name: str, level: int, check: Callable[[int], str]) -> Finding:
    try:
        return Finding(name, level, check(level))
    except NotImplementedHere as error:
        return Finding(name, level, str(error), absent=True)
    except OrtolanError as error:
        return Finding(name, level, str(error))


def _case(case: _Case, level: int) -> str:
    feeds = {name: value for name, value in case.feeds.items() if name not in case.constants}
    (got,) = _session(_model(case), level).run(None, feeds)
    wanted = case.expected(*(value.astype(np.float64) for value in case.feeds.values()))
    if got.shape != wanted.shape:
        return f"the shape is {list(got.shape)}, not {list(wanted.shape)}"
    error = float(np.abs(got - wanted).max()) / float(np.abs(wanted).max())
    return "" if error <= _LIMIT else f"off by {error:.1e} of the largest magnitude"


def _digits_model() -> tuple[bytes, Array, Array]:
    folder = example_folder()
    images, labels = load_held_out(folder)
    content = ortolan.convert(folder / "digits.onnx")
    assert isinstance(content, bytes)
    return content, (images / np.float32(FULL_INK)).astype(np.float32)[:, None], labels


def _digits(level: int) -> str:
    content, images, labels = _digits_model()
    (answers,) = _session(content, level).run(None, {"image": images})
    share = float(np.mean(answers.argmax(-1) == labels))
    return "" if share >= LEAST_ACCURACY else f"only {share:.1%} of the answers are right"


def _threads(level: int) -> str:
    content, images, _ = _digits_model()
    alone, together = (
        _session(content, level, threads).run(None, {"image": images})[0]
        for threads in (1, _THREADS)
    )
    return "" if alone.tobytes() == together.tobytes() else "the result depends on their number"
