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
TINY = [
    np.dtype(getattr(ml_dtypes, name))
    for name in "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float4_e2m1fn".split()
]
POWERS = np.dtype(ml_dtypes.float8_e8m0fnu)
SMALL = [np.dtype(getattr(ml_dtypes, name)) for name in ("int4", "uint4", "int2", "uint2")]
FLOAT = np.dtype(np.float32)
LEVELS = [item.name for item in host_target().instruction_sets]


@functools.cache
def model(source: int, to: int, more: tuple[tuple[str, Any], ...] = ()) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=to, **dict(more))],
        "cast",
        [helper.make_tensor_value_info("x", source, [None])],
        [helper.make_tensor_value_info("y", to, [None])],
    )
    imports = [helper.make_opsetid("", 25)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return ortolan.convert(proto, level="disable")


def cast(x: Array, to: np.dtype[Any], level: int = len(LEVELS) - 1, **more: Any) -> Array:
    numbers = [helper.np_dtype_to_tensor_dtype(dtype) for dtype in (x.dtype, to)]
    options = ortolan.SessionOptions()
    options.add_session_config_entry("ortolan.instruction_set", str(level))
    session = ortolan.InferenceSession(model(*numbers, tuple(more.items())), options)
    result: Array = session.run(None, {"x": x})[0]
    assert result.dtype == to
    return result


def every(dtype: np.dtype[Any]) -> Array:
    """All bit patterns of a type."""
    if dtype.itemsize == 2:
        return np.arange(1 << 16, dtype=np.uint16).view(dtype)
    bits = 4 if dtype in (TINY[-1], *SMALL[:2]) else 2 if dtype in SMALL else 8
    return np.arange(1 << bits, dtype=np.uint8).view(dtype)


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


@pytest.mark.parametrize("dtype", TINY, ids=str)
@pytest.mark.parametrize("saturate", [0, 1])
def test_tiny_floats(dtype: np.dtype[Any], saturate: int) -> None:
    values = every(dtype)
    assert_same(cast(values, FLOAT), values.astype(FLOAT))
    assert np.array_equal(cast(values, np.dtype(bool)), values.astype(FLOAT) != 0)
    wide = values.astype(FLOAT)
    most = np.nanmax(np.where(np.isinf(wide), np.nan, wide))
    x = np.concatenate([turns(dtype), turns(np.dtype(np.float16)), [np.float32(1e30)]])
    limited = np.clip(x, -most, most) if saturate or dtype == TINY[-1] else x
    assert_same(cast(x, dtype, saturate=saturate), limited.astype(dtype))
    # float4e2m1 has no NaN: the standard leaves open what becomes of one.
    nan = np.array([np.nan, -np.nan][: 1 if dtype == TINY[-1] else 2], FLOAT)
    assert cast(nan, dtype, saturate=saturate).tobytes() == nan.astype(dtype).tobytes()
    numbers = np.array([-9, -1, 0, 1, 3, 1000, 2**60 + 1], np.int64)
    limited = np.clip(numbers.astype(FLOAT), -most, most) if saturate else numbers.astype(FLOAT)
    if saturate or dtype != TINY[-1]:
        assert_same(cast(numbers, dtype, saturate=saturate), limited.astype(dtype))


def test_powers_of_two() -> None:
    values = every(POWERS)
    assert_same(cast(values, FLOAT), values.astype(FLOAT))
    exponents = np.arange(-127, 128)
    exact = np.ldexp(1.0, exponents).astype(FLOAT)
    for mode in ("up", "down", "nearest"):
        assert_same(cast(exact, POWERS, round_mode=mode), exact.astype(POWERS))
    for factor, up, down, nearest in ((1.25, 1, 0, 0), (1.5, 1, 0, 1), (1.75, 1, 0, 1)):
        x = (factor * np.ldexp(1.0, exponents[:-1])).astype(FLOAT)
        for mode, more in (("up", up), ("down", down), ("nearest", nearest)):
            expected = np.ldexp(1.0, exponents[:-1] + more).astype(FLOAT).astype(POWERS)
            assert_same(cast(x, POWERS, round_mode=mode), expected)
    # The standard's table; what is negative is up to us.
    x = np.array([0, np.inf, 3e38, 1e-44, np.nan, -1], FLOAT)
    codes = cast(x, POWERS).view(np.uint8).tolist()
    assert codes == [0, 254, 254, 0, 255, 255]
    codes = cast(x, POWERS, saturate=0, round_mode="nearest").view(np.uint8).tolist()
    assert codes == [255, 255, 255, 255, 255, 255]


@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_small_integers(dtype: np.dtype[Any]) -> None:
    values = every(dtype)
    for other in "int8 uint8 int16 int32 uint32 int64 uint64 float32 float64 float16".split():
        wide = np.dtype(other)
        expected = values.astype(np.int64).astype(wide)
        assert np.array_equal(cast(values, wide), expected)
        assert cast(expected, dtype).tobytes() == values.tobytes()
    assert np.array_equal(cast(values, np.dtype(bool)), values.astype(np.int64) != 0)
    # The higher bits of integers are dropped, those of fractions too.
    numbers = np.array([-(2**62) - 5, -17, -1, 0, 2**40 + 3, 255], np.int64)
    mask = values.size - 1
    assert cast(numbers, dtype).view(np.uint8).tolist() == [int(n) & mask for n in numbers]
    assert cast(np.array([1.75, 0.25], FLOAT), dtype).view(np.uint8).tolist() == [1, 0]
    # A stranger's bytes may have bits that do not belong to the element.
    dirty = (np.arange(values.size, dtype=np.uint8) | np.uint8(0xFF ^ mask)).view(dtype)
    assert np.array_equal(cast(dirty, np.dtype(np.int32)), values.astype(np.int32))
