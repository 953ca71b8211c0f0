"""Each kernel against its floor: the share of the multiply-add peak or of the bandwidth it reaches.

``python benchmarks/kernels.py [NAME ...] [--sets sse2,avx2,avx512] [--runs 30]``

Models of one node are run with the runtime's own step times, so that conversions of layouts and
calls are not part of a kernel's time. NAME chooses kernels whose name has it in. The floor is what
the arithmetic takes at the peak of the instruction set, or what reading inputs and constants and
writing outputs takes at the rate at which a buffer of that size is read, whichever is more; both
rates are measured in the same run. Bounds above 100 % mean that writing is cheaper than reading or
that less is read than counted. One thread, the least time of all runs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import floors
import numpy as np
import onnx
import onnx.parser
import peak
import tiny
import zoo
from engines import Array

import ortolan
from ortolan import _native

MOST_STEPS = 64
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """A node: its operator, the shape of its input, shapes of constants, and its attributes."""

    name: str
    operator: str
    inputs: Sequence[Sequence[int]]
    constants: Sequence[Sequence[int]] = ()
    attributes: Numbers = field(default_factory=dict)
    values: Sequence[Any] = ()
    """Constants that are not random, behind the others."""


def conv(name: str, size: int, ins: int, outs: int, k: int = 1, **more: int) -> Kernel:
    """A square convolution with bias; `size` is that of the input."""
    group, stride = more.get("group", 1), more.get("stride", 1)
    attributes = {"pads": [k // 2] * 4, "strides": [stride] * 2, "group": group}
    shapes = [(outs, ins // group, k, k), (outs,)]
    return Kernel(name, "Conv", [(1, ins, size, size)], shapes, attributes)


def transposed(name: str, size: int, ins: int, outs: int, k: int, pad: int = 0) -> Kernel:
    """A square transposed convolution of stride 2 with bias."""
    attributes = {"pads": [pad] * 4, "strides": [2] * 2}
    return Kernel(
        name, "ConvTranspose", [(1, ins, size, size)], [(ins, outs, k, k), (outs,)], attributes
    )


def pointwise(operator: str) -> Kernel:
    """One input of 0.8 M elements."""
    return Kernel(f"{operator}, 0.8 M", operator, [(1, 56, 56, 256)])


HEADS = (1, 12, 128, 64)
KERNELS = (
    conv("1x1, 112² 32→16", 112, 32, 16),
    conv("1x1, 56² 24→144", 56, 24, 144),
    conv("1x1, 14² 576→96", 14, 576, 96),
    conv("1x1, 7² 320→1280", 7, 320, 1280),
    conv("1x1, 7² 2048→512", 7, 2048, 512),
    conv("1x1, 1² 672→168", 1, 672, 168),
    conv("3x3, 56² 64", 56, 64, 64, 3),
    conv("3x3, 28² 128", 28, 128, 128, 3),
    conv("3x3, 14² 256", 14, 256, 256, 3),
    conv("3x3, 7² 512", 7, 512, 512, 3),
    conv("3x3, 224² 3→32, stride 2", 224, 3, 32, 3, stride=2),
    conv("7x7, 224² 3→64, stride 2", 224, 3, 64, 7, stride=2),
    conv("3x3, 28² 64, 32 groups", 28, 64, 64, 3, group=32),
    conv("3x3, 28² 128, 32 groups", 28, 128, 128, 3, group=32),
    conv("3x3, 28² 256, 32 groups", 28, 256, 256, 3, group=32),
    conv("3x3, 56² 128, 32 groups, stride 2", 56, 128, 128, 3, group=32, stride=2),
    conv("1x1, 28² 128, 32 groups", 28, 128, 128, group=32),
    transposed("transposed 2x2, 96² 16→1", 96, 16, 1, 2),
    transposed("transposed 2x2, 80² 24→24", 80, 24, 24, 2),
    transposed("transposed 3x3, 90² 64→32", 90, 64, 32, 3, 1),
    transposed("transposed 4x4, 32² 64→3", 32, 64, 3, 4, 1),
    transposed("transposed 4x4, 4² 512→256", 4, 512, 256, 4, 1),
    conv("depthwise 3x3, 112² 32", 112, 32, 32, 3, group=32),
    conv("depthwise 3x3, 56² 144", 56, 144, 144, 3, group=144),
    conv("depthwise 3x3, 112² 96, stride 2", 112, 96, 96, 3, group=96, stride=2),
    conv("depthwise 5x5, 28² 120", 28, 120, 120, 5, group=120),
    conv("depthwise 3x3, 7² 960", 7, 960, 960, 3, group=960),
    Kernel("product 128x384x384", "MatMul", [(128, 384)], [(384, 384)]),
    Kernel("product 128x384x1536", "MatMul", [(128, 384)], [(384, 1536)]),
    Kernel("product 1500x384x384", "MatMul", [(1500, 384)], [(384, 384)]),
    Kernel("product of two inputs 256³", "MatMul", [(256, 256), (256, 256)]),
    Kernel("heads 12 x 128x64x128", "MatMul", [HEADS, (1, 12, 64, 128)]),
    Kernel("row times 576x1536", "MatMul", [(1, 576)], [(576, 1536)]),
    Kernel("row times 576x49152", "MatMul", [(1, 576)], [(576, 49152)]),
    Kernel("4 rows times 576x1536", "MatMul", [(4, 576)], [(576, 1536)]),
    Kernel("Softmax 12x128x128", "Softmax", [(1, 12, 128, 128)], attributes={"axis": -1}),
    Kernel("Softmax 6x1500x1500", "Softmax", [(1, 6, 1500, 1500)], attributes={"axis": -1}),
    Kernel(
        "LayerNormalization 128x384", "LayerNormalization", [(128, 384)], [(384,), (384,)]
    ),
    *map(pointwise, ("Relu", "HardSwish", "Exp", "Sigmoid", "Tanh", "Erf", "Gelu", "Sqrt")),
    Kernel("Add, same shape, 0.8 M", "Add", [(1, 56, 56, 256)] * 2),
    Kernel("Add, row, 0.8 M", "Add", [(1, 56, 56, 256)], [(256,)]),
    Kernel("Transpose 0213", "Transpose", [(1, 128, 12, 64)], attributes={"perm": [0, 2, 1, 3]}),
    Kernel("Transpose 0321", "Transpose", [(1, 56, 56, 256)], attributes={"perm": [0, 3, 2, 1]}),
    Kernel("Gather rows 128 of 30522x384", "Gather", [(30522, 384)], values=[np.arange(128) * 200]),
    Kernel("ReduceMean, rows", "ReduceMean", [(1, 56, 56, 256)], attributes={"axes": [-1]}),
    Kernel("ReduceMean, columns", "ReduceMean", [(1, 3136, 256)], attributes={"axes": [1]}),
    Kernel("GlobalAveragePool 7² 1280", "GlobalAveragePool", [(1, 1280, 7, 7)]),
    Kernel(
        "MaxPool 3x3, 112² 64", "MaxPool", [(1, 64, 112, 112)],
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
    ),
    Kernel(
        "LSTM, 1 step, 128", "LSTM", [(1, 1, 128)], [(1, 512, 128), (1, 512, 128)],
        {"hidden_size": 128},
    ),
    Kernel(
        "LSTM, 50 steps, 128", "LSTM", [(50, 1, 128)], [(1, 512, 128), (1, 512, 128)],
        {"hidden_size": 128},
    ),
    Kernel(
        "GRU, 50 steps, 128", "GRU", [(50, 1, 128)], [(1, 384, 128), (1, 384, 128)],
        {"hidden_size": 128},
    ),
)  # fmt: skip


def make_model(kernel: Kernel, path: Path) -> None:
    """Writes the model of one node."""
    random = np.random.default_rng(0)
    helper = onnx.helper
    inputs = [
        helper.make_tensor_value_info(f"x{k}", onnx.TensorProto.FLOAT, shape)
        for k, shape in enumerate(kernel.inputs)
    ]
    arrays: list[Array] = [random.standard_normal(s, np.float32) * 0.1 for s in kernel.constants]
    arrays += [np.asarray(v) for v in kernel.values]
    constants = [onnx.numpy_helper.from_array(a, f"c{k}") for k, a in enumerate(arrays)]
    names = [v.name for v in inputs] + [t.name for t in constants]
    attributes = kernel.attributes
    version = 17 if "axes" in attributes else 20
    node = helper.make_node(kernel.operator, names, ["y"], "op", **attributes)
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "kernel", inputs, [result], constants)
    opsets = [helper.make_opsetid("", version)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def step_seconds(program: tiny.Program, operator: str, runs: int) -> float:
    """The least time of the operator's steps of all runs."""
    library = _native.library()
    run, model = c_void_p(program.arguments[0]), program.keep[0]
    steps = (_native.Step * MOST_STEPS)()
    library.ortolan_run_profile(run, steps, MOST_STEPS)
    call: Callable[..., int] = library.ortolan_run_call
    best = float("inf")
    for _ in range(runs):
        _native.check(call(run, program.arguments[1]), library.ortolan_run_error(run))
        count = c_int64()
        library.ortolan_run_number(run, b"steps", count)
        total = 0
        for step in steps[: count.value]:
            kind = library.ortolan_model_node(model, step.graph, step.node, b"type") or b""
            # Fused forms and packed ones have names of their own; conversions have one.
            if kind != b"Layout":
                total += step.end - step.begin
        best = min(best, total * 1e-9)
    library.ortolan_run_profile(run, None, 0)
    return best


def measure(
    kernel: Kernel, sets: Sequence[str], peaks: peak.Peaks, runs: int, folder: Path
) -> Iterator[str]:
    """The cells of a kernel's row: microseconds and the share of the floor, by instruction set."""
    path = folder / "kernel.onnx"
    (folder / "kernel.npz").unlink(missing_ok=True)
    make_model(kernel, path)
    spec = zoo.spec(path, folder)
    ortolan.convert(path, spec.file("ort"))
    feeds = spec.read_feeds()
    need = floors.count(spec.onnx, feeds)
    if kernel.operator == "Gather":  # only the rows that are taken are read
        need = floors.Need(0, 0, 2 * spec.read_outputs()["y"].nbytes)
    yield f"{need.madds / 1e6:.2f}" if need.madds else "-"
    yield f"{(need.constant_bytes + need.edge_bytes) / 1e6:.2f}"
    for isa in sets:
        outputs = {k: np.zeros_like(v) for k, v in spec.read_outputs().items()}
        program = tiny.ours(spec, feeds, outputs, isa)
        took = step_seconds(program, kernel.operator, runs)
        arithmetic, memory = need.floor(peaks, isa, 1)
        kind = "peak" if arithmetic >= memory else "bandwidth"
        share = f"{100 * max(arithmetic, memory) / took:.0f} % of {kind}" if took else "no step"
        yield f"{took * 1e6:.1f}, {share}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sets", default="sse2,avx2,avx512")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    peaks = peak.measure()
    sets = [s for s in options.sets.split(",") if s in peaks.madds]
    rates = ", ".join(f"{k} {v:.1f}" for k, v in peaks.madds.items())
    print(f"G multiply-adds/s of one core: {rates}\n")
    print(f"| kernel | multiply-adds, M | MB | {' | '.join(f'{s}, µs' for s in sets)} |")
    print("|---|---|---|" + "---|" * len(sets))
    chosen = [k for k in KERNELS if not options.names or any(n in k.name for n in options.names)]
    with tempfile.TemporaryDirectory() as folder:
        for kernel in chosen:
            cells = measure(kernel, sets, peaks, options.runs, Path(folder))
            print(f"| {kernel.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
