"""Casts from and to types of 16 bits and fewer: every value, and every place where rounding turns.

The results must be those of numpy and ml_dtypes, bit by bit, in each instruction set.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper

import ortolan
from ortolan.build.targets import host_target

Array: TypeAlias = npt.NDArray[Any]
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
LEVELS = [item.name for item in host_target().instruction_sets]


@functools.cache
def model(source: int, to: int) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=to)],
        "cast",
        [helper.make_tensor_value_info("x", source, [None])],
        [helper.make_tensor_value_info("y", to, [None])],
    )
    imports = [helper.make_opsetid("", 21)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return ortolan.convert(proto, level="disable")


def cast(x: Array, to: np.dtype[Any], level: int = len(LEVELS) - 1) -> Array:
    numbers = [helper.np_dtype_to_tensor_dtype(dtype) for dtype in (x.dtype, to)]
    options = ortolan.SessionOptions()
    options.add_session_config_entry("ortolan.instruction_set", str(level))
    session = ortolan.InferenceSession(model(*numbers), options)
    result: Array = session.run(None, {"x": x})[0]
    assert result.dtype == to
    return result


def every(dtype: np.dtype[Any]) -> Array:
    """All bit patterns of a type of 16 bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def turns(dtype: np.dtype[Any]) -> Array:
    """What lies between neighbours of a type, and next to that, in float."""
    values = np.sort(every(dtype).astype(np.float32))
    values = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        middle = np.append(values[:-1] / 2 + values[1:] / 2, np.float32(65520))
        low, high = (np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf))
    return np.concatenate([values, low, middle, high, np.array([np.inf, -np.inf], np.float32)])


def assert_same(got: Array, expected: Array) -> None:
    """Equal bits, apart from the payloads of NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        nan = np.isnan(expected.astype(np.float32))
    assert np.array_equal(np.isnan(got.astype(np.float32)), nan)
    assert got[~nan].tobytes() == expected[~nan].tobytes()


@pytest.mark.parametrize("level", range(len(LEVELS)), ids=LEVELS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves(dtype: np.dtype[Any], level: int) -> None:
    values = every(dtype)
    assert_same(cast(values, np.dtype(np.float32), level), values.astype(np.float32))
    x = turns(dtype)
    with np.errstate(over="ignore"):
        assert_same(cast(x, dtype, level), x.astype(dtype))
    nan = np.array([np.nan, -np.nan], np.float32)
    assert np.isnan(cast(nan, dtype, level).astype(np.float32)).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves_and_double(dtype: np.dtype[Any]) -> None:
    values = every(dtype)
    with np.errstate(invalid="ignore"):
        assert_same(cast(values, np.dtype(np.float64)), values.astype(np.float64))


def test_double_to_half_rounds_once() -> None:
    """Next to a tie, where rounding to float first would make a tie of it."""
    middle = turns(np.dtype(np.float16)).astype(np.float64)
    x = np.concatenate([np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)])
    with np.errstate(over="ignore"):
        assert_same(cast(x, np.dtype(np.float16)), x.astype(np.float16))
    # 1 + 2^-8 is a tie of bfloat16, whose last bits are 2^-7 here.
    x = np.array([1 + 2**-8, 1 + 2**-8 + 2**-40, 1 + 3 * 2**-8, 1 + 3 * 2**-8 - 2**-40])
    expected = np.array([1, 1 + 2**-7, 1 + 2**-6, 1 + 2**-7], ml_dtypes.bfloat16)
    assert_same(cast(x, HALVES[1]), expected)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64".split())
def test_halves_and_integers(dtype: np.dtype[Any], name: str) -> None:
    other = np.dtype(name)
    if other == np.dtype(bool):
        numbers = np.array([False, True])
    else:
        info = np.iinfo(other)
        bits = [1 << k for k in range(min(8 * other.itemsize, 53))]
        around = {int(sign * bit + more) for bit in bits for more in (-1, 0, 1) for sign in (1, -1)}
        numbers = np.array(sorted(n for n in around if info.min <= n <= info.max), other)
    with np.errstate(over="ignore"):
        # Exact in double; from there ml_dtypes rounds twice, but not these.
        assert_same(cast(numbers, dtype), numbers.astype(np.float64).astype(dtype))
    values = every(dtype)
    inside = values[np.abs(values.astype(np.float32)) < 100]
    if other == np.dtype(bool):
        assert np.array_equal(cast(values, other), values.astype(np.float32) != 0)
    elif info.min == 0:
        inside = inside[inside.astype(np.float32) >= 0]
    assert np.array_equal(cast(inside, other), inside.astype(np.float32).astype(other))
