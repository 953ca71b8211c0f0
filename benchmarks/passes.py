"""What the passes make of the real models: nodes, seconds, and errors at each level, as a table.

``python benchmarks/passes.py [MODEL ...] [--seconds 0.2] [--threads 1]``

For each level: nodes of all graphs; seconds of a conversion (the best of three); milliseconds of a
run; the largest error relative to the largest magnitude of an output, against the goldens. The
last column is what onnxruntime takes to create a session at its default level.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

import ortolan
from ortolan.ortformat import read
from ortolan.ortformat.links import graphs
from ortolan.session import InferenceSession, SessionOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import models_lib as lib

LEVELS = ("disable", "basic", "extended")
_REPEAT = 3


@dataclass(frozen=True)
class Result:
    """What one model is at one level."""

    nodes: int
    seconds: float
    milliseconds: float
    error: float
    problem: str


def best_of(call: Callable[[], object], times: int) -> float:
    """Seconds of the fastest call."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def milliseconds_of(call: Callable[[], object], seconds: float) -> float:
    """Milliseconds of the fastest call within some time."""
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        best = min(best, best_of(call, 1))
        if time.perf_counter() >= end:
            return best * 1e3


def measure(check: lib.Check, level: str, seconds: float, threads: int) -> Result:
    """Converts a model, counts, checks and runs it."""
    converted: list[bytes] = []

    def convert() -> None:
        converted[:] = [ortolan.convert(check.source, level=level)]

    taken = best_of(convert, _REPEAT)
    (content,) = converted
    options = SessionOptions()
    options.intra_op_num_threads = threads
    session = InferenceSession(content, options)
    verdict = lib.run_check(check, session)
    feeds = dict(check.steps[0].feeds)
    return Result(
        nodes=sum(len(graph.nodes) for graph in graphs(read(content).model.graph)),
        seconds=taken,
        milliseconds=milliseconds_of(lambda: session.run(None, feeds), seconds),
        error=verdict.error,
        problem=verdict.problem,
    )


def created_by_onnxruntime(check: lib.Check) -> float:
    """Seconds that onnxruntime takes for a session of the ONNX file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = check.source
    given = str(source) if isinstance(source, Path) else source.SerializeToString()
    return best_of(lambda: onnxruntime.InferenceSession(given, options), _REPEAT)


def row(name: str, results: list[Result], theirs: float) -> str:
    """One line of the table."""
    cells = [
        " / ".join(str(r.nodes) for r in results),
        " / ".join(f"{r.seconds:.2f}" for r in results),
        " / ".join(f"{r.milliseconds:.3g}" for r in results),
        f"{max(r.error for r in results):.1e}",
        f"{theirs:.2f}",
    ]
    wrong = next((r.problem for r in results if r.problem), "")
    return f"| {' | '.join([name, *cells])} |" + (f" **{wrong}**" if wrong else "")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names; all without any")
    parser.add_argument("--seconds", type=float, default=0.2, help="of runs, per level")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if lib.MISSING:
        parser.error(lib.MISSING)
    print(
        f"| model | nodes at {' / '.join(LEVELS)} | conversion, s | run, ms | error | theirs, s |"
    )
    print("|---|---|---|---|---|---|")
    for name in given.models or sorted(lib.NAMES):
        check = lib.make_check(name)
        results = [measure(check, level, given.seconds, given.threads) for level in LEVELS]
        print(row(name, results, created_by_onnxruntime(check)), flush=True)


if __name__ == "__main__":
    main()
