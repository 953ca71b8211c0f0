"""Latency beside onnxruntime, interleaved in one process: ratios, as the README's table has them.

``python benchmarks/compare.py [MODEL.onnx ...] [--all] [--threads 1] [--rounds 9] [--seconds 0.2]``

Without models: the digits example and, where the folder is there, some models of ``../shared``; all
of them with ``--all``, and then the exit status is 1 if one is slower than 4 times onnxruntime.
Ortolan runs an ``.ort`` file, mapped; onnxruntime the ONNX file.
Feeds come from the model's golden file beside it, else they are random. Each round times both
engines for some time each; a sample during which other processes used more than a quarter of a core
is marked loud and left out where quiet ones exist.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import ortolan
from ortolan.session import InferenceSession, SessionOptions

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "models"
REAL = (
    "mnist-7", "cifar-imageclassifier-op10", "super-resolution-10", "yunet-n-dynamic",
    "silero-vad-v5-op16", "scan-lstm",
)  # fmt: skip
LOUD = 0.25
SLOWEST = 4.0
_TYPES = {"float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32}

Feeds = dict[str, np.ndarray[Any, Any]]


@dataclass
class Samples:
    """Seconds per call of one engine, and the load of others beside each sample."""

    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def quiet(self) -> list[float]:
        """The samples without much other load; all where there are none."""
        kept = [s for s, o in zip(self.seconds, self.others, strict=True) if o < LOUD]
        return kept or self.seconds


def busy_seconds() -> float:
    """CPU seconds that all processes have used."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    ticks = [int(f) for f in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def sample(call: Callable[[], object], seconds: float, into: Samples) -> None:
    """Calls for some time; notes seconds per call and the load of others."""
    busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    calls = 0
    while True:
        call()
        calls += 1
        wall = time.perf_counter() - start
        if wall >= seconds:
            break
    others = (busy_seconds() - busy) - (time.process_time() - own)
    into.seconds.append(wall / calls)
    into.others.append(max(others, 0) / wall)


def feeds_for(model: Path, session: InferenceSession) -> Feeds:
    """The golden inputs of a real model, else random numbers; unknown dimensions are 1."""
    golden = model.parent / "golden" / f"{model.stem}.npz"
    if golden.is_file():
        with np.load(golden) as stored:
            return {k[3:]: stored[k] for k in stored.files if k.startswith("in/")}
    random = np.random.default_rng(0)
    feeds = {}
    for argument in session.get_inputs():
        shape = [d if isinstance(d, int) else 1 for d in argument.shape]
        dtype = _TYPES[argument.type.removeprefix("tensor(").removesuffix(")")]
        feeds[argument.name] = random.random(shape).astype(dtype)
    return feeds


def compare(model: Path, threads: int, rounds: int, seconds: float) -> tuple[str, float]:
    """Times one model; returns a row of the table, and the ratio of medians."""
    options = SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        ours = InferenceSession(ortolan.convert(model, Path(folder) / "model.ort"), options)
    theirs_options = onnxruntime.SessionOptions()
    theirs_options.intra_op_num_threads = threads
    theirs_options.log_severity_level = 3
    theirs = onnxruntime.InferenceSession(
        str(model), theirs_options, providers=["CPUExecutionProvider"]
    )
    feeds = feeds_for(model, ours)
    results: tuple[Samples, Samples] = (Samples(), Samples())
    for session in (ours, theirs):
        for _ in range(5):
            session.run(None, feeds)
    for _ in range(rounds):
        sample(lambda: ours.run(None, feeds), seconds, results[0])
        sample(lambda: theirs.run(None, feeds), seconds, results[1])
    a, b = (s.quiet() for s in results)
    quiet = sum(o < LOUD for o in results[0].others + results[1].others)
    row = (
        f"| {model.stem} | {min(a) * 1e3:.3f} / {np.median(a) * 1e3:.3f} "
        f"| {min(b) * 1e3:.3f} / {np.median(b) * 1e3:.3f} "
        f"| {min(a) / min(b):.2f} / {np.median(a) / np.median(b):.2f} "
        f"| {quiet} of {2 * rounds} |"
    )
    return row, float(np.median(a) / np.median(b))


def main() -> int:
    """Prints the table; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2)
    options = parser.parse_args()
    every = sorted(SHARED.glob("*.onnx")) if options.all else []
    models = (
        options.models
        or every
        or [
            ROOT / "examples" / "digits" / "digits.onnx",
            *(p for p in (SHARED / f"{name}.onnx" for name in REAL) if p.is_file()),
        ]
    )
    info = ortolan.runtime_info()
    print(f"{info['instruction_set']}, {options.threads} thread(s), ms: minimum / median\n")
    print("| model | ortolan | onnxruntime | ratio | quiet samples |\n|---|---|---|---|---|")
    slow = []
    for model in models:
        row, ratio = compare(model, options.threads, options.rounds, options.seconds)
        print(row, flush=True)
        if ratio > SLOWEST:
            slow.append(model.stem)
    if slow:
        print(f"\nslower than {SLOWEST:.0f} times onnxruntime: {', '.join(slow)}")
    return 1 if options.all and slow else 0


if __name__ == "__main__":
    sys.exit(main())
