"""Feeds of every kind: what means numbers of the input's type is right, all else names it."""

from __future__ import annotations

import collections
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ortolan import errors
from ortolan.session import InferenceSession, OrtValue
from test_session import convert

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
F = np.arange(6, dtype=np.float32).reshape(2, 3)


def session(declared: str, operator: str = "Neg") -> InferenceSession:
    """A session of one operator on one input, "feed_me"."""
    text = f"{HEAD} g ({declared} feed_me) => ({declared} y) {{ y = {operator}(feed_me) }}"
    return InferenceSession(convert(text))


class Sub(np.ndarray[Any, Any]):
    """A subclass."""


class Array:
    """What says how to become an array."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        return F


class Broken:
    """What fails to."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array today")


RIGHT: dict[str, Callable[[], Any]] = {
    "transposed": lambda: F.T.copy().T,
    "reversed": lambda: F[::-1][::-1],
    "strided": lambda: np.repeat(F, 3, axis=1)[:, ::3],
    "read-only": lambda: np.frombuffer(F.tobytes(), np.float32).reshape(2, 3),
    "misaligned": lambda: np.frombuffer(b"x" + F.tobytes(), np.float32, offset=1).reshape(2, 3),
    "swapped": lambda: F.astype(F.dtype.newbyteorder()),
    "subclass": lambda: F.view(Sub),
    "masked, but nothing": lambda: np.ma.masked_array(F),
    "list": F.tolist,
    "tuples": lambda: tuple(map(tuple, F.tolist())),
    "integers in a list": lambda: [[0, 1, 2], [3, 4, 5]],
    "decimals": lambda: [[decimal.Decimal(k) for k in range(3 * r, 3 * r + 3)] for r in range(2)],
    "list of arrays": lambda: [F[0], F[1]],
    "memoryview": lambda: memoryview(F.tobytes()).cast("f", (2, 3)),
    "its own method": Array,
}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_means_an_array_is_one(kind: str) -> None:
    np.testing.assert_array_equal(
        session("float[N, 3]").run(None, {"feed_me": RIGHT[kind]()})[0], -F
    )


@pytest.mark.parametrize("shape", [(0, 3), (1, 3)])
def test_sizes_may_be_zero(shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)
    np.testing.assert_array_equal(session("float[N, 3]").run(None, {"feed_me": array})[0], -array)


def test_one_number_twice_over() -> None:
    wide = np.broadcast_to(np.float32(3), (2, 3))
    np.testing.assert_array_equal(session("float[N, 3]").run(None, {"feed_me": wide})[0], -wide)


WRONG: dict[str, tuple[str, Callable[[], Any], str]] = {
    "doubles": ("float[N, 3]", lambda: F.astype(np.float64), "float64"),
    "halves": ("float[N, 3]", lambda: F.astype(np.float16), "float16"),
    "complex": ("float[N, 3]", lambda: F + 1j, "complex"),
    "bools": ("float[N, 3]", lambda: F > 1, "bool"),
    "long doubles": ("float[N, 3]", lambda: F.astype(np.longdouble), "float|longdouble"),
    "objects": ("float[N, 3]", lambda: F.astype(object), "object"),
    "text array": ("float[N, 3]", lambda: F.astype("S"), "string"),
    "dates": ("float[N, 3]", lambda: F.astype("M8[s]"), "datetime64"),
    "fields": ("float[N, 3]", lambda: np.zeros(2, [("a", "f4", 3)]), "f4"),
    "masked": ("float[N, 3]", lambda: np.ma.masked_array(F, mask=F > 3), "masked"),
    "ragged": ("float[N, 3]", lambda: [[1, 2, 3], [4, 5]], "inhomogeneous"),
    "a None": ("float[N, 3]", lambda: [[1, 2, None]], "None"),
    "None": ("float", lambda: None, "None"),
    "text": ("float[N, 3]", lambda: "abc", "abc"),
    "numbers as text": ("float[N, 3]", lambda: [["1", "2", "3"]], "text"),
    "bytes": ("float[N, 3]", lambda: b"abc", "abc"),
    "a dict": ("float[N, 3]", lambda: {"a": 1}, "dict"),
    "a set": ("float[N, 3]", lambda: {1.0}, "set"),
    "a generator": ("float[N, 3]", lambda: (x for x in "ab"), "generator"),
    "its own failure": ("float[N, 3]", Broken, "no array today"),
    "no dimension": ("float[N, 3]", lambda: np.float32(1), "0 dimensions"),
    "too few": ("float[N, 3]", lambda: F[0], "1 dimensions"),
    "too many": ("float[N, 3]", lambda: F[None], "3 dimensions"),
    "far too many": ("float[N, 3]", lambda: np.zeros((1,) * 30, np.float32), "30 dimensions"),
    "an empty list": ("float[N, 3]", list, "1 dimensions"),
    "another size": ("float[N, 3]", lambda: np.zeros((2, 4), np.float32), "dimension 1 must be 3"),
    "two of none": ("float[2, 3]", lambda: F[:0], "dimension 0 must be 2"),
    "no room": ("float[N, 3]", lambda: np.broadcast_to(np.float32(0), (1 << 44, 3)), "allocate"),
    "a fraction": ("int64[N]", lambda: [1.5], "other numbers"),
    "not a number": ("int64[N]", lambda: [float("nan")], "NaN"),
    "infinity": ("int64[N]", lambda: [float("inf")], "infinity"),
    "too large": ("int64[N]", lambda: [2**63], "too large"),
    "too large for a byte": ("int8[N]", lambda: [300], "300|other numbers"),
    "other integers": ("int64[N]", lambda: np.array([1], np.int32), "int32"),
    "a duration": ("int64[N]", lambda: np.array([1], "m8[s]"), "timedelta"),
    "twos": ("bool[N]", lambda: [0, 1, 2], "other numbers"),
    "bytes that are no bools": ("bool[N]", lambda: np.array([2], np.uint8).view(bool), "no bool"),
    "words for bools": ("bool[N]", lambda: ["yes", ""], "text"),
    "None as text": ("string[N]", lambda: np.array(["a", None], object), "None"),
    "numbers for text": ("string[N]", lambda: [1, 2], "element of a string tensor"),
    "half a surrogate": ("string[N]", lambda: ["\ud800"], "surrogates"),
    "no list": ("seq(float[N])", lambda: F[0], "list is needed"),
    "a wrong item": ("seq(float[N])", lambda: [F[0], np.zeros(2)], "float64"),
    "a wrong option": ("optional(float[N])", lambda: np.zeros(2, np.int32), "int32"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_names_the_input(kind: str) -> None:
    declared, make, text = WRONG[kind]
    operator = {"b": "Not", "s": "Identity", "o": "Identity"}.get(declared[0], "Neg")
    made = session(declared, operator)
    with pytest.raises(errors.OrtolanError, match=text) as caught:
        made.run(None, {"feed_me": make()})
    assert "feed_me" in str(caught.value)
    assert isinstance(caught.value, ValueError | MemoryError | NotImplementedError)


TWO = f"{HEAD} g (float[N] x, float[N] z) => (float[N] yy) {{ yy = Add(x, z) }}"
GOOD = {"x": F[0], "z": F[1]}
CALLS: dict[str, tuple[Any, Any, str]] = {
    "missing": (None, {"x": F[0]}, r"\['z'\]"),
    "nothing": (None, {}, r"\['x', 'z'\]"),
    "unknown": (None, {**GOOD, "q": F[0]}, "q; the inputs are: x, z"),
    "in other letters": (None, {"X": F[0], "z": F[0]}, "X; the inputs"),
    "a name of bytes": (None, {**GOOD, b"x": F[0]}, "b'x'"),
    "a number as name": (None, {**GOOD, 1: F[0]}, "1; the inputs"),
    "no feeds": (None, None, "dict"),
    "a list of feeds": (None, [F[0], F[1]], "dict"),
    "feeds that do not fit": (None, {"x": F[0], "z": F[1][:2]}, "broadcast"),
    "unknown output": (["nope"], GOOD, "nope; the outputs are: yy"),
    "an output's name alone": ("yy", GOOD, "list"),
    "a number as output": ([0], GOOD, "0; the outputs"),
    "a list as output": ([["yy"]], GOOD, "the outputs are: yy"),
    "a generator of outputs": ((name for name in ["yy"]), GOOD, "not in a generator"),
    "one number for outputs": (5, GOOD, "not in a int"),
}


@pytest.mark.parametrize("kind", CALLS)
def test_calls_that_are_wrong(kind: str) -> None:
    names, feeds, text = CALLS[kind]
    made = InferenceSession(convert(TWO))
    for _ in range(2):
        with pytest.raises(errors.InvalidArgument, match=text):
            made.run(names, feeds)
        # Nothing of the wrong call is left.
        np.testing.assert_array_equal(made.run(None, GOOD)[0], F[0] + F[1])


@pytest.mark.parametrize("names", [("yy",), np.array(["yy"]), {"yy": 1}, np.array([], str)])
def test_names_of_outputs_may_be_in_any_collection(names: Any) -> None:
    made = InferenceSession(convert(TWO))
    for _ in range(2):
        (got,) = made.run(names, GOOD)
        np.testing.assert_array_equal(got, F[0] + F[1])


def test_masked_elements_are_in_no_value() -> None:
    with pytest.raises(errors.InvalidArgument, match="masked"):
        OrtValue.ortvalue_from_numpy(np.ma.masked_array(F, mask=F > 3))
    value = OrtValue.ortvalue_from_numpy(np.ma.masked_array(F))
    np.testing.assert_array_equal(value.numpy(), F)


def test_feeds_may_be_any_mapping() -> None:
    made = InferenceSession(convert(TWO))
    np.testing.assert_array_equal(made.run(["yy"], collections.UserDict(GOOD))[0], F[0] + F[1])


class Fresh(collections.UserDict[str, Any]):
    """Makes an array each time that it is asked for one, as numpy's files of arrays do."""

    def __getitem__(self, name: str) -> Any:
        return np.full(100, self.data[name], np.float32)


def test_arrays_that_nobody_else_holds_stay_until_the_run_is_over() -> None:
    made = InferenceSession(convert(f"{HEAD} g (float[N] x, float[N] z, float[N] w)"
        " => (float[N] yy) { t = Add(x, z) yy = Add(t, w) }"))  # fmt: skip
    for _ in range(10):
        (got,) = made.run(None, Fresh(x=1, z=10, w=100))
        np.testing.assert_array_equal(got, np.full(100, 111, np.float32))


class Double(collections.UserDict[str, Any]):
    """Has an entry twice, as collections of headers do."""

    def items(self) -> Any:
        return [("x", self.data["x"])] * 2

    def __iter__(self) -> Any:
        return iter(["x", "x"])

    def __len__(self) -> int:
        return 2


def test_a_name_that_comes_twice_stands_for_no_other() -> None:
    made = InferenceSession(convert(TWO))
    made.run(None, GOOD)
    with pytest.raises(errors.InvalidArgument, match=r"\['z'\]"):
        made.run(None, Double(x=F[0]))
