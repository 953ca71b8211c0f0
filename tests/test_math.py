"""Error bounds, special values and tails of native/core/math.h, on every instruction set here.

The oracle is numpy: float64 for float, the 80-bit long double for double. Errors are in units of
the last place (ulp) of the exact result. ORTOLAN_EXHAUSTIVE=1 tries all 2^32 floats.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ziglang", reason="the native probe is built with ziglang")

ROOT = Path(__file__).resolve().parent.parent
EXHAUSTIVE = os.environ.get("ORTOLAN_EXHAUSTIVE") == "1"
SEED = 20240611
Array = np.ndarray[Any, np.dtype[Any]]

# Largest error in ulp that is promised for float and for double. Those of float were measured over
# all 2^32 arguments, with fused multiply-add (AVX2) and without (SSE2), and rounded up.
BOUNDS: dict[str, tuple[float, float]] = {
    "exp": (1.2, 1.2),
    "expm1": (1.6, 1.6),
    "log": (0.9, 0.9),
    "log1p": (0.9, 0.9),
    "tanh": (2.6, 2.7),
    "sigmoid": (2.5, 2.5),
    "erf": (1.4, 1.4),
    "sinh": (2.2, 2.2),
    "cosh": (1.5, 1.5),
    "sin": (0.51, 0.8),
    "cos": (0.51, 0.8),
    "tan": (0.51, 2.3),
    "asin": (0.51, 0.7),
    "acos": (0.51, 0.7),
    "atan": (0.51, 1.5),
    "asinh": (0.51, 2.5),
    "acosh": (0.51, 2.5),
    "atanh": (0.51, 2.5),
    "sqrt": (0.5, 0.5),
    "floor": (0.0, 0.0),
    "ceil": (0.0, 0.0),
    "trunc": (0.0, 0.0),
    "round_even": (0.0, 0.0),
}
POW_BOUNDS = {"f32": 0.51, "f64": 1.0}

# name -> (CPU flags that it needs, compiler flags)
INSTRUCTION_SETS: dict[str, tuple[set[str], list[str]]] = {
    "scalar": (set(), ["-ffp-contract=off"]),
    "sse2": (set(), []),
    "avx2": ({"avx2", "fma"}, ["-mcpu=x86_64_v3"]),
    "avx512": (
        {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
        ["-mcpu=x86_64_v4", "-mprefer-vector-width=512"],
    ),
}
COMMON_FLAGS = (
    "-std=c++20 -O2 -g0 -fPIC -ffreestanding -fno-exceptions -fno-rtti -fno-threadsafe-statics "
    "-fno-asynchronous-unwind-tables -fno-stack-protector -fno-sanitize=all -fvisibility=hidden "
    "-ffunction-sections -fdata-sections -ffp-contract=fast -fno-math-errno -Wall -Wextra -Werror "
    "-target x86_64-linux-gnu.2.17 -shared -nostdlib -Wl,-z,defs"
).split()

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux",
    reason="the probe is built for x86-64 Linux",
)


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction set extensions of this machine, as Linux names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":")[1].split())
    return frozenset()


def compile_probe(name: str, folder: Path) -> Path:
    """Builds math_probe.cc for an instruction set. -z defs finds calls to an absent libm."""
    library = folder / f"math_{name}.so"
    compiler = [sys.executable, "-m", "ziglang", "c++", *COMMON_FLAGS, *INSTRUCTION_SETS[name][1]]
    options = [f"-DORTOLAN_ISA={name}", f"-I{ROOT / 'native'}"]
    source = str(ROOT / "tests/native/math_probe.cc")
    subprocess.run([*compiler, *options, source, "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """The probe libraries of all instruction sets that this machine runs."""
    folder = tmp_path_factory.mktemp("math")
    names = [name for name, (needed, _) in INSTRUCTION_SETS.items() if needed <= cpu_flags()]
    with ThreadPoolExecutor(2) as pool:
        libraries = list(pool.map(lambda name: compile_probe(name, folder), names))
    return {name: ctypes.CDLL(str(path)) for name, path in zip(names, libraries, strict=True)}


@pytest.fixture(params=list(INSTRUCTION_SETS))
def probe(request: pytest.FixtureRequest, probes: dict[str, ctypes.CDLL]) -> ctypes.CDLL:
    if request.param not in probes:
        pytest.skip(f"this machine lacks {request.param}")
    return probes[request.param]


def call(probe: ctypes.CDLL, kind: str, function: str, *arguments: Array) -> Array:
    """Runs `kind`_`function` of the probe over contiguous arrays of float32 or float64."""
    out = np.full_like(arguments[0], 12345)
    call_into(probe, kind, function, out, arguments[0].size, *arguments)
    return out


def call_into(
    probe: ctypes.CDLL, kind: str, function: str, out: Array, n: int, *arguments: Array
) -> None:
    suffix = "f32" if out.dtype == np.float32 else "f64"
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*arguments, out)]
    getattr(probe, f"{kind}_{function}_{suffix}")(*pointers, ctypes.c_size_t(n))


def ulp_errors(got: Array, want: Array) -> Array:
    """Errors of float32 or float64 results against more precise ones, in ulp of the latter.

    A NaN, infinity or sign of zero that is not the expected one counts as infinite error.
    """
    dtype = got.dtype.type
    info = np.finfo(dtype)
    size = np.clip(np.abs(want), info.smallest_normal, info.max)
    spacing = np.ldexp(np.ones_like(want), np.frexp(size)[1] - 1 - info.nmant)
    with np.errstate(all="ignore"):
        rounded = want.astype(dtype)
        errors = np.abs(got.astype(want.dtype) - want) / spacing
    exact = np.isnan(rounded) | np.isinf(rounded) | (rounded == 0) & (got == 0)
    same = np.isnan(got) & np.isnan(rounded)
    same |= (got == rounded) & (np.signbit(got) == np.signbit(rounded))
    errors = np.where(exact, np.where(same, 0, np.inf), errors)
    return np.where(np.isnan(errors), np.inf, errors).astype(np.float64)


def assert_within(got: Array, want: Array, bound: float, *arguments: Array) -> None:
    errors = ulp_errors(got, want)
    worst = int(errors.argmax())
    assert errors[worst] <= bound, (
        f"{errors[worst]:.3f} ulp at {[a[worst].item() for a in arguments]}: "
        f"got {got[worst]!r}, want {want[worst]!r}"
    )


def assert_identical(got: Array, want: Array) -> None:
    """The same bits, except that one NaN is as good as another."""
    integer = np.uint32 if got.dtype == np.float32 else np.uint64
    same = (got.view(integer) == want.view(integer)) | (np.isnan(got) & np.isnan(want))
    assert same.all(), np.flatnonzero(~same)[:5]


def erf_reference(x: Array) -> Array:
    """The all-positive series exp(-x^2) sum 2^n x^(2n+1) / (2n+1)!! of erf, in x's precision."""
    if x.dtype == np.float64:
        return np.array([math.erf(v) for v in x.tolist()], np.float64)
    a = np.minimum(np.abs(x), 7)
    term = a.copy()
    total = a.copy()
    for n in range(1, 200):
        term = term * (2 * a * a) / (2 * n + 1)
        total = total + term
    half_sqrt_pi = np.sqrt(np.arctan(np.ones(1, x.dtype)))
    size: Array = np.minimum(total * np.exp(-a * a) / half_sqrt_pi, 1)
    return np.copysign(size, x)


def sigmoid_reference(x: Array) -> Array:
    return np.where(x < -50, np.exp(x), 1 / (1 + np.exp(-x)))


Function = Callable[[Array], Array]
# What numpy does not have, or not by this name.
REFERENCES: dict[str, Function] = {
    "sigmoid": sigmoid_reference,
    "erf": erf_reference,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "round_even": np.rint,
}


def reference(function: str, x: Array) -> Array:
    """The function in numpy's next wider type: float64 for float32, long double for float64."""
    wider = np.float64 if x.dtype == np.float32 else np.longdouble
    compute: Function = REFERENCES[function] if function in REFERENCES else getattr(np, function)
    with np.errstate(all="ignore"):
        return compute(x.astype(wider))


SPECIAL = [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 4.5, math.inf, -math.inf, math.nan]
SPECIAL_F32 = [
    *SPECIAL, 1.4e-45, -1.4e-45, 1.1754942e-38, 1e-40, -1e-40, 3.4028235e38, -3.4028235e38,
    88.72283, 88.72284, 89.4, 89.5, -87.33655, -103.97208, -103.97209, -104.5, 8388607.5,
    -8388607.5, 4194303.5, 8388608, 16777216, 1e10, 1e30,
]  # fmt: skip
SPECIAL_F64 = [
    *SPECIAL, 5e-324, -5e-324, 2.2250738585072009e-308, 1e-310, 1.7976931348623157e308,
    -1.7976931348623157e308, 709.782712893384, 709.7827128933841, 710.4758, 710.476, -708.3964,
    -745.1332191019411, -745.1332191019412, -746.5, 4503599627370495.5, -4503599627370497.5,
    2251799813685247.5, 2.0**52, 2.0**53, 1e22, 1e300,
]  # fmt: skip


def float_arguments() -> Iterator[Array]:
    """Chunks of float32 arguments: all of them, or every 9973rd bit pattern and denser middles."""
    if EXHAUSTIVE:
        for start in range(0, 1 << 32, 1 << 24):
            yield np.arange(start, start + (1 << 24), dtype=np.uint64).astype(np.uint32).view("f4")
        return
    rng = np.random.default_rng(SEED)
    patterns = np.arange(0, 1 << 32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    parts = [np.array(SPECIAL_F32, np.float32), patterns]
    parts += [rng.uniform(-r, r, 40000).astype(np.float32) for r in (1, 10, 110, 1e5)]
    yield np.concatenate(parts)


@cache
def double_arguments() -> Array:
    rng = np.random.default_rng(SEED)
    near_one = 1 + rng.uniform(-1, 1, 4000) * np.exp2(rng.uniform(-52, 0, 4000))
    quarter_turns = np.arange(1, 4000) * (np.pi / 2)
    large_turns = np.rint(np.exp2(rng.uniform(1, 300, 2000))) * (np.pi / 2)
    patterns = rng.integers(0, 1 << 64, 8000, dtype=np.uint64).view(np.float64)
    small = rng.uniform(-1, 1, 8000) * np.exp2(rng.uniform(-40, 0, 8000))
    ranges = [rng.uniform(-r, r, 8000) for r in (1, 6, 40, 750, 1e6)]
    parts = [np.array(SPECIAL_F64), near_one, quarter_turns, large_turns, patterns, small, *ranges]
    return np.concatenate(parts)


@cache
def double_reference(function: str) -> Array:
    return reference(function, double_arguments())


@cache
def sampled_float_reference(function: str) -> tuple[Array, Array]:
    x: Array = next(float_arguments())
    return x, reference(function, x)


@pytest.mark.parametrize("function", BOUNDS)
def test_float_error(function: str, probe: ctypes.CDLL) -> None:
    if not EXHAUSTIVE:
        x, want = sampled_float_reference(function)
        assert_within(call(probe, "math", function, x), want, BOUNDS[function][0], x)
        return
    for x in float_arguments():
        want = reference(function, x)
        assert_within(call(probe, "math", function, x), want, BOUNDS[function][0], x)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider here")
@pytest.mark.parametrize("function", BOUNDS)
def test_double_error(function: str, probe: ctypes.CDLL) -> None:
    x = double_arguments()
    got = call(probe, "math", function, x)
    assert_within(got, double_reference(function), BOUNDS[function][1], x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", BOUNDS)
def test_scalar_and_vector_agree(function: str, dtype: type, probe: ctypes.CDLL) -> None:
    if dtype == np.float32:
        x = next(float_arguments())[: 1 << 20][::17].copy()
    else:
        x = double_arguments()[::5].copy()
    assert_identical(call(probe, "math", function, x), call(probe, "scalar", function, x))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2.5e-7), (np.float64, 4e-16)])
def test_gelu(dtype: type, bound: float, probe: ctypes.CDLL) -> None:
    """The error is in proportion to the argument; far out it is the argument, or 0, exactly."""
    x: Array = np.concatenate([np.linspace(-13, 13, 200001), np.geomspace(1e-30, 20, 9999)])
    x = x.astype(dtype)
    want = np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()])
    errors = np.abs(call(probe, "math", "gelu", x) - want)
    assert (errors <= bound * np.abs(x)).all()
    far: Array = np.array([-1e30, -9, 0, 9, 1e30, math.inf, math.nan], dtype)
    np.testing.assert_array_equal(
        call(probe, "math", "gelu", far), np.array([0, 0, 0, 9, 1e30, math.inf, math.nan], dtype)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_and_unaligned_arrays(dtype: type, probe: ctypes.CDLL) -> None:
    x: Array = np.linspace(-2, 3, 70).astype(dtype)
    want = call(probe, "scalar", "exp", x)
    for n in range(40):
        for offset in range(3):
            out: Array = np.full(70, 77, dtype)
            call_into(probe, "math", "exp", out[offset:], n, x[offset:])
            assert_identical(out[offset : offset + n], want[offset : offset + n])
            assert (out[:offset] == 77).all() and (out[offset + n :] == 77).all()


def special_pairs(dtype: type) -> tuple[Array, Array]:
    values = SPECIAL_F32 if dtype == np.float32 else SPECIAL_F64
    values = [*values, 2, -2, 3, -3, 7.25, -7.25, 1e-3, 151, -151, 1075, -1074.5]
    grid: Array = np.array(values, dtype)
    x, y = np.meshgrid(grid, grid)
    return x.ravel().copy(), y.ravel().copy()


def power_pairs(dtype: type) -> tuple[Array, Array]:
    """Special pairs, then pairs with results over the whole range, bases near 1 included."""
    rng = np.random.default_rng(SEED)
    low, high, n = (-149, 128, 100000) if dtype == np.float32 else (-1074, 1024, 20000)
    spread = np.exp2(rng.uniform(low, high - 1, n))
    near_one = 1 + rng.uniform(-0.9, 1, n) * np.exp2(rng.uniform(-20, 0, n))
    base: Array = np.concatenate([spread, near_one]).astype(dtype)
    with np.errstate(all="ignore"):
        exponent: Array = (rng.uniform(low, high, 2 * n) / np.log2(base)).astype(dtype)
    powers: Array = rng.integers(-20, 20, n).astype(dtype)
    signed: Array = rng.uniform(-9, 9, n).astype(dtype)
    x, y = special_pairs(dtype)
    return np.concatenate([x, base, signed]), np.concatenate([y, exponent, powers])


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_pow(suffix: str, probe: ctypes.CDLL) -> None:
    dtype, wider = (np.float32, np.float64) if suffix == "f32" else (np.float64, np.longdouble)
    if np.finfo(wider).nmant < 52 + 11 * (suffix == "f64"):
        pytest.skip("long double is no wider than double here")
    x, y = power_pairs(dtype)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(wider), y.astype(wider))
    got = call(probe, "math", "pow", x, y)
    assert_within(got, want, POW_BOUNDS[suffix], x, y)
    assert_identical(got, call(probe, "scalar", "pow", x, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fmod_is_exact(dtype: type, probe: ctypes.CDLL) -> None:
    rng = np.random.default_rng(SEED)
    reach = 120 if dtype == np.float32 else 1000
    random = rng.uniform(-1, 1, (2, 20000)) * np.exp2(rng.uniform(-reach, reach, (2, 20000)))
    denormal = rng.uniform(-1, 1, (2, 2000)) * np.finfo(dtype).smallest_normal
    special_x, special_y = special_pairs(dtype)
    pairs: Array = np.concatenate([random, denormal], axis=1).astype(dtype)
    x = np.concatenate([special_x, pairs[0], random[0].astype(dtype)])
    y = np.concatenate([special_y, pairs[1], (random[0] * 0.013).astype(dtype)])
    with np.errstate(all="ignore"):
        want = np.fmod(x, y)
    for kind in ("math", "scalar"):
        assert_identical(call(probe, kind, "fmod", x, y), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minimum_and_maximum_keep_nan(dtype: type, probe: ctypes.CDLL) -> None:
    x, y = special_pairs(dtype)
    differ = ~((x == 0) & (y == 0))  # which zero is smaller is nobody's business
    x, y = x[differ], y[differ]
    for kind in ("math", "scalar"):
        assert_identical(call(probe, kind, "minimum", x, y), np.minimum(x, y))
        assert_identical(call(probe, kind, "maximum", x, y), np.maximum(x, y))
    bounded = ~np.isnan(y)
    x, y = x[bounded], y[bounded]
    for kind in ("math", "scalar"):
        assert_identical(call(probe, kind, "at_least", x, y), np.maximum(x, y))
        assert_identical(call(probe, kind, "at_most", x, y), np.minimum(x, y))


def test_reductions(probe: ctypes.CDLL) -> None:
    lanes = ctypes.c_size_t()
    probe.lanes(ctypes.byref(lanes))
    rng = np.random.default_rng(SEED)
    x: Array = rng.integers(-1000, 1000, (200, lanes.value)).astype(np.float32)
    x[50:60, 1] = np.nan
    x[60:70, -1] = np.nan
    out = np.zeros((200, 3), np.float32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, out)]
    probe.reduce_f32(*pointers, ctypes.c_size_t(x.size))
    np.testing.assert_array_equal(out, np.stack([x.sum(1), x.min(1), x.max(1)], axis=1))
