"""What the Python side costs beside onnxruntime's: a call of a model of one node, and the import.

Calls are timed in turn in one process; the least of many rounds counts. Imports are whole
processes: their processor time, less that of `import numpy`, which both need.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import timeit
from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from rich.console import Console
from rich.table import Table

import ortolan

ROUNDS, CALLS, PROCESSES = 60, 1000, 15
NODE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x) => (float[N] y) { y = Neg(x) }"""
PAIR = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] a, float[N] b) => (float[N] y, float[N] z) { y = Add(a, b) z = Sub(a, b) }"""


def least(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least time of each in microseconds."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            found[name] = min(found[name], timeit.timeit(call, number=CALLS) / CALLS * 1e6)
    return found


def call_times(text: str) -> dict[str, float]:
    """Microseconds of a call of a tiny model, by package."""
    content = onnx.parser.parse_model(text).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    theirs = onnxruntime.InferenceSession(content, options)
    ours = ortolan.InferenceSession(content)
    feeds = {a.name: np.ones(4, np.float32) for a in ours.get_inputs()}
    return least(
        {
            "ortolan": lambda: ours.run(None, feeds),
            "onnxruntime": lambda: theirs.run(None, feeds),
        }
    )


def import_times() -> dict[str, float]:
    """Milliseconds of processor time of an import beyond numpy's, by package."""
    programs = {
        "ortolan": "import ortolan; ortolan.InferenceSession",
        "onnxruntime": "import onnxruntime; onnxruntime.InferenceSession",
        "numpy": "import numpy",
    }
    found = dict.fromkeys(programs, float("inf"))
    for _ in range(PROCESSES):
        for name, program in programs.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[name] = min(found[name], spent * 1e3)
    base = found.pop("numpy")
    return {name: value - base for name, value in found.items()}


def main() -> None:
    """Prints a table."""
    rows = {
        "call, one node, microseconds": call_times(NODE),
        "call, two inputs and outputs, microseconds": call_times(PAIR),
        "import beyond numpy's, milliseconds": import_times(),
    }
    table = Table()
    for column in ("", "ortolan", "onnxruntime", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in rows.items():
        ours, theirs = found["ortolan"], found["onnxruntime"]
        table.add_row(name, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
