"""Float microkernels against numpy float64: random shapes, on every instruction set that runs here.

Native kernels read and write buffers that end or begin at an inaccessible page, so an access
outside crashes the test; WebAssembly buffers lie between guard words. The seed is printed;
ORTOLAN_MICROKERNEL_SEED repeats a run and ORTOLAN_MICROKERNEL_CASES makes it longer.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from ortolan.build.registry import generate
from ortolan.catalog import FAMILIES

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("ORTOLAN_MICROKERNEL_SEED", str(np.random.SeedSequence().entropy)[:9]))
CASES = int(os.environ.get("ORTOLAN_MICROKERNEL_CASES", "300"))

FLAGS = (
    "-std=c++20 -O2 -g0 -fPIC -ffreestanding -fno-exceptions -fno-rtti -fno-threadsafe-statics "
    "-fno-asynchronous-unwind-tables -fno-stack-protector -fno-sanitize=all -fvisibility=hidden "
    "-ffunction-sections -fdata-sections -ffp-contract=fast -fno-math-errno -Wall -Wextra -Werror"
).split()
X86 = ["-target", "x86_64-linux-gnu.2.17"]
WASM = ["-target", "wasm32-freestanding", "-msimd128"]
TARGETS = {
    "sse2": X86,
    "avx2": [*X86, "-mcpu=x86_64_v3"],
    "avx512": [*X86, "-mcpu=x86_64_v4", "-mprefer-vector-width=512"],
    "wasm": WASM,
    "wasm_relaxed": [*WASM, "-mrelaxed-simd"],
}
LINK = "-shared -nostdlib -Wl,-z,defs -Wl,--gc-sections".split()
LINK_WASM = (
    "-nostdlib -Wl,--no-entry -Wl,--export-dynamic -Wl,--gc-sections -Wl,--export=__heap_base "
    "-Wl,--initial-memory=67108864 -Wl,-z,stack-size=65536"
).split()

OPS = (
    "gemm", "gemm_plain", "conv", "depthwise", "pool", "global_average", "winograd", "columns",
    "partners",
)  # fmt: skip
ACTIVATIONS = (
    "none", "relu", "clip", "leaky_relu", "sigmoid",
    "tanh", "hard_sigmoid", "hard_swish", "silu", "gelu",
)  # fmt: skip
OUTPUT = 4  # index of the output among the probe's buffers; packed weights and scratch follow


@dataclass(frozen=True)
class Case:
    """One call of the probe.

    Attributes:
        op: Name of the kernel, one of OPS.
        integers: Shape parameters, in the order that the probe reads them.
        inputs: The first four buffers (activations, weights, bias, residual); None is null.
        expected: float64 result, in the shape of the output buffer.
        tolerance: Largest allowed error of each element, broadcastable to `expected`.
        floats: Parameters of the activation.
        untouched: Mask of the elements of the output that must keep their former value.
    """

    op: str
    integers: tuple[int, ...]
    inputs: tuple[F32 | None, ...]
    expected: F64
    tolerance: F64
    floats: tuple[float, float] = (0.0, 0.0)
    untouched: npt.NDArray[np.bool_] | None = field(default=None)


def fill(rng: np.random.Generator, shape: tuple[int, ...], nan: float = 0) -> F32:
    """Normal random float32 values, of which the fraction `nan` is NaN."""
    values: F32 = rng.standard_normal(shape).astype(np.float32)
    if nan:
        values[rng.random(shape) < nan] = np.nan
    return values


def activate(name: str, x: F64, alpha: float, beta: float) -> F64:
    """The activation in float64, elementwise."""
    match name:
        case "relu":
            return np.maximum(x, 0)
        case "clip":
            return np.minimum(np.maximum(x, alpha), beta)
        case "leaky_relu":
            return np.where(x < 0, alpha * x, x)
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "tanh":
            return np.tanh(x)
        case "hard_sigmoid":
            return np.clip(alpha * x + beta, 0, 1)
        case "hard_swish":
            return x * np.clip(x / 6 + 0.5, 0, 1)
        case "silu":
            return x * activate("sigmoid", alpha * x, 0, 0)
        case "gelu":
            return 0.5 * x * (1 + erf(x))
    return x


def erf(x: F64) -> F64:
    """The error function of x / sqrt 2, elementwise."""
    values = [math.erf(v) for v in (x / math.sqrt(2)).ravel().tolist()]
    return np.array(values, np.float64).reshape(x.shape)


@dataclass(frozen=True)
class Tail:
    """Random bias, residual and activation for a matrix of sums."""

    bias: F32 | None
    residual: F32 | None
    activation: int
    floats: tuple[float, float]

    @staticmethod
    def random(rng: np.random.Generator, shape: tuple[int, ...]) -> Tail:
        bias = fill(rng, shape[-1:]) if rng.random() < 0.7 else None
        residual = fill(rng, shape) if rng.random() < 0.3 else None
        activation = int(rng.integers(len(ACTIVATIONS))) if rng.random() < 0.6 else 0
        low, high = sorted(rng.standard_normal(2).astype(np.float32).tolist())
        return Tail(bias, residual, activation, (low, high))

    def apply(self, sums: F64, magnitude: F64, terms: int) -> tuple[F64, F64]:
        """The expected matrix and its tolerance, from sums and sums of absolute products.

        The bound on a chain of n roundings is n * 2^-24 times the sum of magnitudes; the
        activations change an error by a factor of at most 1.2 (or of their own alpha).
        """
        for extra in (self.bias, self.residual):
            if extra is not None:
                sums = sums + extra
                magnitude = magnitude + np.abs(extra)
        factor = max(1.2, abs(self.floats[0]))
        tolerance = factor * (terms + 8) * 2.0**-24 * np.nan_to_num(magnitude) + 1e-6
        return activate(ACTIVATIONS[self.activation], sums, *self.floats), tolerance


def dimension(rng: np.random.Generator, limit: int) -> int:
    """A size from 0 to `limit`: often tiny, often around a multiple of a vector, rarely 0."""
    kind = rng.random()
    if kind < 0.02:
        return 0
    if kind < 0.4 or limit < 9:
        return int(rng.integers(1, min(limit, 8) + 1))
    if kind < 0.7:
        near = int(rng.choice([4, 8, 16, 32, 48, 64])) + int(rng.integers(-2, 3))
        return min(limit, max(1, near))
    return int(rng.integers(1, limit + 1))


def gemm_case(rng: np.random.Generator, plain: bool) -> Case:
    few = plain or rng.random() < 0.3
    m, n, k = dimension(rng, 4 if few else 150), dimension(rng, 300), dimension(rng, 100)
    if rng.random() < 0.1:  # whole panels in groups, and a rest of less than a vector
        m, n = int(rng.integers(1, 3)), 64 * int(rng.integers(1, 5)) + int(rng.integers(0, 4))
    a = fill(rng, (m, k), nan=0.01 if rng.random() < 0.2 else 0)
    b = fill(rng, (k, n))
    tail = Tail.random(rng, (m, n))
    gap = int(rng.integers(0, 4)) if rng.random() < 0.5 else 0
    trans_a = bool(rng.random() < 0.2)
    b_layout = 0 if plain else int(rng.choice([0, 0, 1, 2]))  # rows, columns, neither contiguous
    integers = (
        m, n, k,
        *((1, m) if trans_a else (k, 1)),
        *((n, 1), (1, k), (2 * n, 2))[b_layout],
        n + gap,
        *(int(v) for v in rng.integers(1, 4, 2)),
        tail.activation,
    )  # fmt: skip
    wide_a = a.astype(np.float64)
    expected, tolerance = tail.apply(wide_a @ b, np.abs(wide_a) @ np.abs(b), k)
    padding = ((0, 0), (0, gap))
    inputs = (
        a.T.copy() if trans_a else a,
        (b, b.T.copy(), np.repeat(b, 2, axis=1))[b_layout],
        tail.bias,
        tail.residual,
    )
    untouched = np.pad(np.zeros((m, n), bool), padding, constant_values=True)
    return Case(
        "gemm_plain" if plain else "gemm",
        integers,
        inputs,
        np.pad(expected, padding),
        np.pad(tolerance, padding),
        tail.floats,
        untouched,
    )


@dataclass(frozen=True)
class Window:
    """A sliding window over (depth, height, width); all tuples have three entries."""

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad: tuple[int, ...]

    @staticmethod
    def random(rng: np.random.Generator, ceil: bool = False) -> tuple[Window, tuple[int, ...]]:
        """A window and its padding at the end."""
        rank = int(rng.choice([1, 2, 2, 2, 3]))
        rows: list[tuple[int, ...]] = [(1, 1, 1, 1, 1, 0, 0)] * (3 - rank)
        usual = rng.random() < 0.4
        limit = 24 if rank < 3 else 7
        rows += [Window._random_dimension(rng, usual, ceil, limit) for _ in range(rank)]
        if rank == 1 and rng.random() < 0.3:
            rows[2] = Window._random_dimension(rng, usual, ceil, 300)
        size, out, kernel, stride, dilation, pad, after = zip(*rows, strict=True)
        return Window(size, out, kernel, stride, dilation, pad), after

    @staticmethod
    def _random_dimension(
        rng: np.random.Generator, usual: bool, ceil: bool, limit: int
    ) -> tuple[int, ...]:
        size = int(rng.integers(1, limit + 1))
        if usual:
            kernel, dilation = int(rng.choice([1, 3, 3, 5])), 1
            stride, pad = int(rng.choice([1, 2])), kernel // 2
            after = pad
        else:
            kernel, dilation = int(rng.integers(1, 6)), int(rng.choice([1, 1, 2, 3]))
            stride = int(rng.choice([1, 2, 3, 7]))
            pad, after = (int(v) for v in rng.integers(0, kernel * dilation + 2, 2))
        room = size + pad + after - (kernel - 1) * dilation - 1
        out = 0 if room < 0 else (-(-room // stride) if ceil else room // stride) + 1
        return size, out, kernel, stride, dilation, pad, after

    def integers(self) -> tuple[int, ...]:
        return (*self.size, *self.out, *self.kernel, *self.stride, *self.dilation, *self.pad)

    def taps(self) -> list[tuple[int, ...]]:
        """All kernel positions, in order."""
        return list(np.ndindex(*self.kernel))

    def gather(self, x: F64, tap: tuple[int, ...], outside: float) -> F64:
        """x[batch, D, H, W, C] at one tap of every window: [batch, OD, OH, OW, C]."""
        index, valid = [], []
        for i in range(3):
            at = np.arange(self.out[i]) * self.stride[i] - self.pad[i] + tap[i] * self.dilation[i]
            valid.append((at >= 0) & (at < self.size[i]))
            index.append(np.clip(at, 0, self.size[i] - 1))
        inside = np.einsum("i,j,k->ijk", *valid).astype(bool)[None, ..., None]
        z, y, w = np.ix_(*index)
        return np.where(inside, x[:, z, y, w], outside)


def conv_case(rng: np.random.Generator, op: str) -> Case:
    """Of any convolution, one of depth or of small groups, or one whose taps become columns."""
    depthwise, columns = op == "depthwise", op == "columns"
    window, _ = Window.random(rng)
    while columns and window.stride[2] > 1:
        window, _ = Window.random(rng)
    batch = int(rng.integers(1, 4))
    if depthwise:
        groups = channels = outputs = max(1, dimension(rng, 70))
    elif op == "partners":
        of_group = int(rng.choice([2, 4, 8]))
        groups = 16 // of_group + dimension(rng, 60 // of_group)
        channels = outputs = groups * of_group
    else:
        groups = 1 if columns else int(rng.choice([1, 1, 1, 2, 3, 8]))
        limit = max(1, 70 // groups)
        channels = groups * dimension(rng, limit)
        outputs = max(1, dimension(rng, 20)) if columns else groups * dimension(rng, limit)
    x = fill(rng, (batch, *window.size, channels), nan=0.002 if rng.random() < 0.2 else 0)
    weights = fill(rng, (outputs, channels // groups, *window.kernel))
    shape = (batch, *window.out, outputs)
    tail = Tail.random(rng, shape)
    sums, magnitude = conv_sums(window, groups, x, weights, shape)
    terms = len(window.taps()) * channels // groups
    expected, tolerance = tail.apply(sums, magnitude, terms)
    integers = (
        batch, groups, channels, outputs, *window.integers(), int(rng.integers(1, 6)),
        tail.activation,
    )  # fmt: skip
    return Case(
        op,
        integers,
        (x, weights, tail.bias, tail.residual),
        expected,
        tolerance,
        tail.floats,
    )


def winograd_case(rng: np.random.Generator) -> Case:
    """Channels are at least as many as half of the widest vector has lanes."""
    form = int(rng.choice([2, 4, 5]))
    side, kernel = min(form, 4), 5 if form == 5 else 3
    size, pads = rng.integers(1, 30, 2), rng.integers(0, kernel, (2, 2))
    size = np.maximum(size, kernel - pads.sum(0))
    out = size + pads.sum(0) - kernel + 1
    window = Window(
        (1, *size.tolist()), (1, *out.tolist()), (1, kernel, kernel), (1, 1, 1), (1, 1, 1),
        (0, *pads[0].tolist()),
    )  # fmt: skip
    batch = int(rng.integers(1, 3))
    channels, outputs = (
        int(rng.choice([8, 12])) if rng.random() < 0.3 else 16 + dimension(rng, 60)
        for _ in range(2)
    )
    x = fill(rng, (batch, *window.size, channels))
    weights = fill(rng, (outputs, channels, *window.kernel))
    shape = (batch, *window.out, outputs)
    tail = Tail.random(rng, shape)
    sums, magnitude = conv_sums(window, 1, x, weights, shape)
    magnitude = np.broadcast_to(magnitude.max((1, 2, 3), keepdims=True), shape)  # a tile's is mixed
    expected, tolerance = tail.apply(sums, magnitude * side, kernel * kernel * channels)
    integers = (
        form, batch, 1, channels, outputs, *window.integers(), int(rng.integers(1, 6)),
        tail.activation,
    )  # fmt: skip
    inputs = (x, weights, tail.bias, tail.residual)
    return Case("winograd", integers, inputs, expected, tolerance, tail.floats)


def conv_sums(
    window: Window, groups: int, x: F32, weights: F32, shape: tuple[int, ...]
) -> tuple[F64, F64]:
    """Sums of products, and of their absolute values, in `shape` [batch, OD, OH, OW, outputs]."""
    sums, magnitude = np.zeros(shape), np.zeros(shape)
    wide = x.astype(np.float64)
    per_group = (shape[-1] // groups, x.shape[-1] // groups)
    for tap in window.taps():
        z, y, column = tap
        w = weights[:, :, z, y, column].astype(np.float64).reshape(groups, *per_group)
        at = window.gather(wide, tap, 0).reshape(*shape[:4], groups, per_group[1])
        sums += np.einsum("...gc,goc->...go", at, w).reshape(shape)
        magnitude += np.einsum("...gc,goc->...go", np.abs(at), np.abs(w)).reshape(shape)
    return sums, magnitude


def pool_case(rng: np.random.Generator) -> Case:
    window, after = Window.random(rng, ceil=rng.random() < 0.4)
    batch, channels = int(rng.integers(1, 4)), max(1, dimension(rng, 70))
    is_average, include_pad = int(rng.random() < 0.5), int(rng.random() < 0.5)
    x = fill(rng, (batch, *window.size, channels), nan=0.01 if rng.random() < 0.3 else 0)
    wide = x.astype(np.float64)
    if is_average:
        total, count = np.zeros((batch, *window.out, channels)), np.zeros((1, *window.out, 1))
        ones = np.ones((1, *window.size, 1))
        for tap in window.taps():
            total += window.gather(wide, tap, 0)
            count += counted(window, after, tap) if include_pad else window.gather(ones, tap, 0)
        expected = total / np.maximum(count, 1)
    else:
        expected = np.full((batch, *window.out, channels), -np.inf)
        for tap in window.taps():
            expected = np.maximum(expected, window.gather(wide, tap, -np.inf))
    integers = (
        is_average, include_pad, batch, channels, *after, *window.integers(),
        int(rng.integers(1, 4)),
    )  # fmt: skip
    tolerance = np.array(len(window.taps()) * 2.0**-22 if is_average else 0.0)
    return Case("pool", integers, (x, None, None, None), expected, tolerance)


def counted(window: Window, after: tuple[int, ...], tap: tuple[int, ...]) -> F64:
    """1 where a tap lies within the padded input, [1, OD, OH, OW, 1]."""
    inside = []
    for i in range(3):
        at = np.arange(window.out[i]) * window.stride[i] + tap[i] * window.dilation[i]
        inside.append((at < window.pad[i] + window.size[i] + after[i]).astype(np.float64))
    product: F64 = np.einsum("i,j,k->ijk", *inside)
    return product[None, ..., None]


def global_average_case(rng: np.random.Generator) -> Case:
    batch, pixels = int(rng.integers(1, 4)), int(rng.integers(1, 200))
    channels = max(1, dimension(rng, 200))
    x = fill(rng, (batch, pixels, channels))
    integers = (batch, pixels, channels, int(rng.integers(1, 4)))
    expected = x.astype(np.float64).mean(axis=1)
    return Case("global_average", integers, (x, None, None, None), expected, np.array(2.0**-21))


def make_case(rng: np.random.Generator) -> Case:
    """A random case of a random kernel."""
    op = str(rng.choice(OPS, p=[0.2, 0.1, 0.2, 0.18, 0.1, 0.05, 0.05, 0.06, 0.06]))
    match op:
        case "gemm" | "gemm_plain":
            return gemm_case(rng, plain=op == "gemm_plain")
        case "conv" | "depthwise" | "columns" | "partners":
            return conv_case(rng, op)
        case "pool":
            return pool_case(rng)
        case "winograd":
            return winograd_case(rng)
    return global_average_case(rng)


class Runner(Protocol):
    """Runs cases on one instruction set."""

    def run(self, cases: list[Case]) -> list[F32]:
        """The output buffers, each in the shape of its case's `expected`."""
        ...


SENTINEL = np.float32(-12345.0)


class GuardedMemory:
    """Buffers in pages of their own between inaccessible ones."""

    def __init__(self, limit: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._limit = -(-limit // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._limit + 2 * mmap.PAGESIZE)
        self._view = memoryview(self._map)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + mmap.PAGESIZE
        for page in (self.base - mmap.PAGESIZE, self.base + self._limit):
            if self._libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, size: int, at_end: bool) -> memoryview:
        """`size` bytes at the end or at the beginning of the accessible pages."""
        start = mmap.PAGESIZE + (self._limit - size if at_end else 0)
        return self._view[start : start + size]


class NativeRunner:
    """Calls the probe in this process, with every buffer next to an inaccessible page."""

    BUFFERS, LIMIT = 7, 24 << 20

    def __init__(self, library: Path, rng: np.random.Generator) -> None:
        self._probe = ctypes.CDLL(str(library))
        self._probe.probe_size.restype = ctypes.c_size_t
        self._memory = [GuardedMemory(self.LIMIT) for _ in range(self.BUFFERS)]
        self._rng = rng

    def run(self, cases: list[Case]) -> list[F32]:
        return [self._run(case) for case in cases]

    def _run(self, case: Case) -> F32:
        op = OPS.index(case.op)
        integers = (ctypes.c_int32 * len(case.integers))(*case.integers)
        floats = (ctypes.c_float * 2)(*case.floats)
        output = np.full(case.expected.shape, SENTINEL, np.float32)
        sizes = [self._probe.probe_size(op, integers, i) for i in (5, 6)]
        scratch = [np.full(-(-size // 16) * 4, np.nan, np.float32) for size in sizes]
        buffers: list[F32 | None] = [*case.inputs, output, *scratch]
        pointers = (ctypes.c_void_p * self.BUFFERS)()
        views: list[F32] = []
        for i, (buffer, memory) in enumerate(zip(buffers, self._memory, strict=True)):
            if buffer is None:
                continue
            place = memory.place(buffer.nbytes, at_end=bool(self._rng.random() < 0.7))
            view = np.frombuffer(place, np.float32).reshape(buffer.shape)
            view[...] = buffer
            views.append(view)
            pointers[i] = view.ctypes.data
            if i == OUTPUT:
                output = view
        self._probe.probe_run(op, integers, floats, pointers)
        return output.copy()


NODE_SCRIPT = r"""
const fs = require("fs");
const [wasm, casesFile, dataFile, outFile] = process.argv.slice(2);
const { exports: e } = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(wasm)), {});
const data = fs.readFileSync(dataFile);
const out = [];
const kGuard = 256;
for (const c of JSON.parse(fs.readFileSync(casesFile, "utf8"))) {
  let top = (e.__heap_base.value + 15) & ~15;
  const guards = [];
  const place = (bytes) => {
    guards.push(top);
    const at = top + kGuard;
    top = (at + bytes + 15) & ~15;
    const need = top + kGuard - e.memory.buffer.byteLength;
    if (need > 0) e.memory.grow(Math.ceil(need / 65536));
    new Uint8Array(e.memory.buffer).fill(0xff, at - kGuard, top + kGuard);
    return at;
  };
  const integers = place(c.integers.length * 4), floats = place(8), table = place(28);
  new Int32Array(e.memory.buffer, integers).set(c.integers);
  new Float32Array(e.memory.buffer, floats).set(c.floats);
  const sizes = c.sizes.concat([5, 6].map((i) => e.probe_size(c.op, integers, i)));
  const at = sizes.map((size) => (size < 0 ? 0 : place(size)));
  guards.push(top);
  c.sizes.forEach((size, i) => {
    if (size > 0)
      new Uint8Array(e.memory.buffer).set(data.subarray(c.offsets[i], c.offsets[i] + size), at[i]);
  });
  new Uint32Array(e.memory.buffer, table).set(at);
  e.probe_run(c.op, integers, floats, table);
  for (const g of guards)
    if (!new Uint8Array(e.memory.buffer, g, kGuard).every((v) => v === 0xff))
      throw new Error(`a kernel wrote outside its buffers: ${JSON.stringify(c)}`);
  out.push(Buffer.from(new Uint8Array(e.memory.buffer, at[4], sizes[4])));
}
fs.writeFileSync(outFile, Buffer.concat(out));
"""


class NodeRunner:
    """Runs all cases in one Node process."""

    def __init__(self, library: Path, node: str) -> None:
        self._library, self._node = library, node

    def run(self, cases: list[Case]) -> list[F32]:
        folder = self._library.parent
        blob, rows = bytearray(), []
        for case in cases:
            output = np.full(case.expected.shape, SENTINEL, np.float32)
            offsets, sizes = [], []
            for buffer in (*case.inputs, output):
                offsets.append(len(blob))
                sizes.append(-1 if buffer is None else buffer.nbytes)
                blob += b"" if buffer is None else buffer.tobytes()
            row: dict[str, Any] = {"op": OPS.index(case.op), "integers": case.integers}
            rows.append(row | {"floats": case.floats, "sizes": sizes, "offsets": offsets})
        files = [folder / name for name in ("cases.json", "data.bin", "out.bin")]
        files[0].write_text(json.dumps(rows))
        files[1].write_bytes(blob)
        script = folder / "probe.cjs"
        script.write_text(NODE_SCRIPT)
        subprocess.run([self._node, script, self._library, *files], check=True, timeout=600)
        flat = np.fromfile(files[2], np.float32)
        ends = np.cumsum([case.expected.size for case in cases])
        parts = np.split(flat, ends[:-1])
        return [p.reshape(c.expected.shape) for p, c in zip(parts, cases, strict=True)]


def check(case: Case, actual: F32) -> None:
    """Compares one result, NaN included; what the kernel must not touch is unchanged."""
    label = f"{case.op} {case.integers}"
    expected = case.expected
    if case.untouched is not None:
        assert np.all(actual[case.untouched] == SENTINEL), f"{label}: wrote outside the matrix"
        expected = np.where(case.untouched, SENTINEL, expected)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=label)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(actual - expected) > case.tolerance
    infinite = np.isinf(expected)
    wrong = np.where(infinite, actual != expected, wrong)
    assert not wrong.any(), f"{label}: {actual[wrong][:4]} instead of {expected[wrong][:4]}"


@cache
def machine_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def find_node(oldest: int) -> str:
    """A Node of at least that version, from ORTOLAN_NODE, the build folder or the path."""
    local = ROOT / "build" / "node" / "node_modules" / ".bin" / "node"
    for node in (os.environ.get("ORTOLAN_NODE"), shutil.which(local), shutil.which("node")):
        if not node:
            continue
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
        if int(version.stdout.lstrip("v").split(".")[0]) >= oldest:
            return node
    pytest.skip(f"no Node {oldest} or later")


def build(isa: str, folder: Path) -> Path:
    """Compiles the probe for one instruction set."""
    ziglang = pytest.importorskip("ziglang")
    zig = Path(ziglang.__file__).parent / "zig"
    is_wasm = isa.startswith("wasm")
    (folder / "ortolan_variants.h").write_text(generate(FAMILIES, [isa])["ortolan_variants.h"])
    library = folder / f"probe_{isa}.{'wasm' if is_wasm else 'so'}"
    command = [
        zig, "c++", *TARGETS[isa], *FLAGS, f"-DORTOLAN_ISA={isa}", f"-I{ROOT / 'native'}",
        f"-I{folder}",
        *(LINK_WASM if is_wasm else LINK), "-o", library,
        ROOT / "tests" / "native" / "kernels_probe.cc",
    ]  # fmt: skip
    cache_folder = str(folder / "cache")
    variables = {"ZIG_GLOBAL_CACHE_DIR": cache_folder, "ZIG_LOCAL_CACHE_DIR": cache_folder}
    subprocess.run([str(c) for c in command], check=True, env=os.environ | variables)
    return library


@pytest.fixture(scope="module", params=list(TARGETS))
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """The probe on one instruction set; skips where that cannot run."""
    isa: str = request.param
    folder = tmp_path_factory.mktemp(isa)
    if isa.startswith("wasm"):
        node = find_node(22 if isa == "wasm_relaxed" else 18)
        return NodeRunner(build(isa, folder), node)
    needed = {"sse2": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512vl"}}[isa]
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        pytest.skip("the native probe is built for x86-64 Linux")
    if not needed <= machine_flags():
        pytest.skip(f"this machine has no {isa}")
    return NativeRunner(build(isa, folder), np.random.default_rng(SEED))


@cache
def random_cases(seed: int, count: int) -> list[Case]:
    """The same cases for every instruction set, because the references take the time."""
    print(f"ORTOLAN_MICROKERNEL_SEED={SEED}")
    rng = np.random.default_rng(seed)
    return [make_case(rng) for _ in range(count)]


def test_random_shapes(runner: Runner) -> None:
    cases = random_cases(SEED, CASES)
    for case, actual in zip(cases, runner.run(cases), strict=True):
        check(case, actual)


def with_pieces(case: Case, pieces: int) -> Case:
    """The same case with its work split differently."""
    integers = list(case.integers)
    at = {"gemm": (8, 9), "gemm_plain": (9,), "pool": (-1,), "global_average": (-1,)}
    for i in at.get(case.op, (-2,)):
        integers[i] = pieces
    return Case(**(vars(case) | {"integers": tuple(integers)}))


def test_split_does_not_change_results(runner: Runner) -> None:
    cases = random_cases(SEED, CASES)[: CASES // 3]
    rng = np.random.default_rng(SEED)
    whole = runner.run([with_pieces(case, 1) for case in cases])
    parts = runner.run([with_pieces(case, int(rng.integers(2, 9))) for case in cases])
    for case, one, other in zip(cases, whole, parts, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=f"{case.op} {case.integers}")
