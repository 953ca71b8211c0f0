"""Session creation beside onnxruntime, over the real models: one Markdown table.

``python benchmarks/load.py [NAME ...] [--rounds 7] [--threads 1]
[--columns disable,cached]``

Medians in ms of samples that alternate between the engines, so that other load hits both:

* ``.ort``: ours at the default level, theirs as its converter writes it (style Fixed, level all);
* ``disable``: the ONNX model without optimization, ours by the runtime's own reader;
* ``first``: the ONNX model at the default level in a fresh process, after the import of the
  package, with an empty cache: what is imported on the way counts;
* ``cached``: the same again, from the cache, in this process.

Beside each pair stands the rule and whether it holds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "models"
EVERYTHING = "ORT_ENABLE_ALL"
LARGE_NODES = 1000
# What the first opening may take more than onnxruntime's, in ms: for models and for large ones.
EXTRA, EXTRA_LARGE = 1000.0, 3000.0

FRESH = {
    "ortolan": "import ortolan; create = ortolan.InferenceSession",
    "onnxruntime": (
        "import onnxruntime as o; s = o.SessionOptions(); s.log_severity_level = 4; "
        "s.intra_op_num_threads = int(sys.argv[2]); "
        "create = lambda p: o.InferenceSession(p, s, ['CPUExecutionProvider'])"
    ),
}
TIMED = "t = time.perf_counter(); create(sys.argv[1]); print((time.perf_counter() - t) * 1e3)"

Create = Callable[[], object]


def theirs(path: Path, level: str, threads: int, save: Path | None = None) -> object:
    """A session of onnxruntime; with `save`, it writes its `.ort` file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    dropped = []
    if save is not None:
        options.optimized_model_filepath = str(save)
        options.add_session_config_entry("session.save_model_format", "ORT")
        dropped = ["NchwcTransformer"]
    return onnxruntime.InferenceSession(
        str(path), options, ["CPUExecutionProvider"], disabled_optimizers=dropped
    )


def ours(path: Path, level: str, threads: int) -> object:
    """A session of Ortolan."""
    from ortolan import GraphOptimizationLevel, InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = GraphOptimizationLevel[level]
    return InferenceSession(path, options)


def medians(a: Create, b: Create, rounds: int) -> tuple[float, float]:
    """Medians of both in ms, sampled in turn; the first of each is not counted."""
    samples: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for create, into in zip((a, b), samples, strict=True):
            start = time.perf_counter()
            created = create()
            if turn:
                into.append((time.perf_counter() - start) * 1e3)
            del created
    return statistics.median(samples[0]), statistics.median(samples[1])


def fresh(engine: str, model: Path, threads: int, rounds: int) -> float:
    """The median of new processes in ms."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            code = f"import sys, time; {FRESH[engine]}; {TIMED}"
            done = subprocess.run(
                [sys.executable, "-c", code, str(model), str(threads)],
                env={**os.environ, "ORTOLAN_CACHE": cache},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        found.append(float(done.stdout))
    return statistics.median(found)


def node_count(graph: onnx.GraphProto) -> int:
    """The nodes of a graph and of those in it."""
    inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(map(node_count, inner))


def pair(a: float, b: float, holds: bool) -> str:
    """Two cells: ours and theirs, and whether the rule holds."""
    return f"{a:.2f} / {b:.2f} | {'yes' if holds else '**no**'}"


def ort_cell(model: Path, folder: Path, rounds: int, threads: int) -> str:
    """Times the files of both converters."""
    import ortolan

    our_file = ortolan.convert(model, folder / "ours.ort")
    theirs(model, EVERYTHING, threads, folder / "theirs.ort")
    found = medians(
        lambda: ours(our_file, EVERYTHING, threads),
        lambda: theirs(folder / "theirs.ort", EVERYTHING, threads),
        rounds,
    )
    return pair(*found, found[0] <= found[1] / 2)


def disable_cell(model: Path, folder: Path, rounds: int, threads: int) -> str:
    """Times the model without optimization: ours by the runtime's own reader of ONNX."""
    found = medians(
        lambda: ours(model, "ORT_DISABLE_ALL", threads),
        lambda: theirs(model, "ORT_DISABLE_ALL", threads),
        rounds,
    )
    return pair(*found, found[0] <= found[1])


def first_cell(model: Path, folder: Path, rounds: int, threads: int) -> str:
    """Times the first opening at the default level."""
    mine, other = (fresh(engine, model, threads, max(1, rounds // 3)) for engine in FRESH)
    nodes = node_count(onnx.load(model).graph)
    return pair(mine, other, mine <= other + (EXTRA_LARGE if nodes > LARGE_NODES else EXTRA))


def cached_cell(model: Path, folder: Path, rounds: int, threads: int) -> str:
    """Times the opening from the cache."""
    os.environ["ORTOLAN_CACHE"] = str(folder / "cache")
    found = medians(
        lambda: ours(model, EVERYTHING, threads),
        lambda: theirs(model, EVERYTHING, threads),
        rounds,
    )
    return pair(*found, found[0] <= found[1] / 2)


# By name: what the rule is, and what makes the two cells.
COLUMNS: dict[str, tuple[str, Callable[[Path, Path, int, int], str]]] = {
    "ort": (".ort: half", ort_cell),
    "disable": ("disable: no more", disable_cell),
    "first": ("first: 1 s more (large: 3 s)", first_cell),
    "cached": ("cached: half", cached_cell),
}


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--columns", default=",".join(COLUMNS))
    arguments = parser.parse_args()
    found = [SHARED / f"{name}.onnx" for name in arguments.names]
    models = found or sorted(SHARED.glob("*.onnx"))
    if not models:
        print("there is no ../shared/models")
        return 1
    columns = [COLUMNS[name] for name in arguments.columns.split(",")]
    print(f"ms, ours / onnxruntime {onnxruntime.__version__}, {arguments.threads} thread(s)\n")
    print("| model | nodes | " + " | ".join(f"{rule} | " for rule, _ in columns) + "|")
    print("|---|---|" + "---|---|" * len(columns))
    for model in models:
        nodes = node_count(onnx.load(model).graph)
        with tempfile.TemporaryDirectory() as name:
            cells = [
                make(model, Path(name), arguments.rounds, arguments.threads) for _, make in columns
            ]
        print(f"| {model.stem} | {nodes} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
