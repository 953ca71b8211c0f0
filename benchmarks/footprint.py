"""Memory of real models: pages beside onnxruntime's, and the arena beside its floor.

``python benchmarks/footprint.py [MODEL ...]``

Prints Markdown. Each engine loads the model (Ortolan a mapped ``.ort``) and runs its golden inputs
once, with one thread, in a process of its own. Counted is what that adds to a process that has
imported the engine, in KiB: anonymous pages (what the engine allocated, outputs included) at their
peak, watched from outside, pages of files (weights that are used where they are mapped, and code),
and the peak of both together. The first row is a model of one node: what an engine takes for
nothing. `limit` is half of onnxruntime's anonymous pages, or 1.1 times the arena's floor, the
outputs and 1 MiB, whichever is more. The arena is one run's, beside the largest sum of bytes that
are alive at once; limit 1.10. Models are those of ../shared/models, or of the zoo.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

MODELS = ROOT.parent / "shared" / "models"
ZOO = ROOT / "build" / "zoo"
ARENA_LIMIT = 1.10
POLL_SECONDS = 0.0005
REPEATS = 3  # onnxruntime takes up to a fifth more or less from run to run
NOTHING = "one node"


def pages() -> dict[str, int]:
    """KiB of this process: anonymous, of files, and the peak of all."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("RssAnon", "RssFile", "VmHWM", "VmRSS"):
            fields[key] = int(value.split()[0])
    return fields


def forget_peak() -> None:
    """The peak counts from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def golden(name: str) -> dict[str, Any]:
    """The inputs of a model's golden file."""
    if name == NOTHING:
        return {"x": np.zeros((1, 4), np.float32)}
    real = MODELS / "golden" / f"{name}.npz"
    with np.load(real if real.exists() else ZOO / f"{name}.npz") as content:
        return {key[3:]: content[key] for key in content.files if key.startswith(("in/", "in:"))}


def wait_for_parent() -> None:
    """The parent looks at this process from here on."""
    print("ready", flush=True)
    sys.stdin.readline()


def run_ortolan(path: str, feeds: dict[str, Any]) -> dict[str, int]:
    """What a run of an .ort file adds; also the bytes of its arena and their floor."""
    from ortolan import _native
    from ortolan.session import InferenceSession, SessionOptions  # imports are not counted

    library = _native.library()
    options = SessionOptions()
    options.intra_op_num_threads = 1
    forget_peak()
    wait_for_parent()
    before = pages()
    session = InferenceSession(path, options)
    results = session.run(None, feeds)
    after = pages()
    found = {"outputs": sum(getattr(r, "nbytes", 0) for r in results)}
    run = session._idle[-1]
    for key in ("arena_bytes", "arena_floor"):
        number = ctypes.c_int64()
        library.ortolan_run_number(run.handle, key.encode(), ctypes.byref(number))
        found[key] = number.value
    return {**difference(before, after), **found}


def run_onnxruntime(path: str, feeds: dict[str, Any]) -> dict[str, int]:
    """What a run of an ONNX file adds."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    forget_peak()
    wait_for_parent()
    before = pages()
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    results = session.run(None, feeds)
    after = pages()
    del results
    return difference(before, after)


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What was added."""
    return {
        "anonymous": after["RssAnon"] - before["RssAnon"],
        "file": after["RssFile"] - before["RssFile"],
        "peak": after["VmHWM"] - before["VmRSS"],
    }


def anonymous(process: int) -> int:
    """KiB of anonymous pages of a process."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") // 1024


def measure_once(engine: str, path: Path, name: str) -> dict[str, int]:
    """Runs an engine in a fresh process, and looks at it meanwhile."""
    command = [sys.executable, __file__, "--worker", engine, str(path), name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{engine} does not start")
        base = peak = anonymous(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        while not select.select([process.stdout], [], [], POLL_SECONDS)[0]:
            peak = max(peak, anonymous(process.pid))
        found: dict[str, int] = json.loads(process.stdout.readline())
    found["anonymous"] = max(found["anonymous"], peak - base)
    return found


def measure(engine: str, path: Path, name: str) -> dict[str, int]:
    """The middle one of some runs."""
    found = [measure_once(engine, path, name) for _ in range(REPEATS)]
    return sorted(found, key=lambda run: run["anonymous"])[REPEATS // 2]


def make_nothing(path: Path) -> Path:
    """A model of one node."""
    graph = onnx.parser.parse_graph("g (float[1, 4] x) => (float[1, 4] y) { y = Neg (x) }")
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def limit_of(ours: dict[str, int], theirs: dict[str, int]) -> float:
    """KiB of anonymous pages that a model may take."""
    least = (1.1 * ours["arena_floor"] + ours["outputs"]) / 1024 + 1024
    return max(theirs["anonymous"] / 2, least)


def rows(names: list[str]) -> int:
    """Prints the rows of the table; returns how many models are above a limit."""
    import ortolan

    above = 0
    with tempfile.TemporaryDirectory() as scrap:
        folder = Path(scrap)
        for name in (NOTHING, *names):
            source, target = MODELS / f"{name}.onnx", folder / f"{name}.ort"
            if name == NOTHING:
                source = make_nothing(folder / "nothing.onnx")
            elif not source.exists():
                source = ZOO / f"{name}.onnx"
            ortolan.convert(source, target)
            ours, theirs = measure("ortolan", target, name), measure("onnxruntime", source, name)
            ratio = ours["arena_bytes"] / max(ours["arena_floor"], 1)
            limit = limit_of(ours, theirs)
            is_above = ours["anonymous"] > limit
            above += ratio > ARENA_LIMIT or is_above
            cells = [f"{e[key]:,}" for e in (ours, theirs) for key in ("anonymous", "file", "peak")]
            cells.append(f"{limit:,.0f}{' **above**' if is_above else ''}")
            cells += [f"{ours[key]:,}" for key in ("arena_bytes", "arena_floor")]
            print(f"| {name} | {source.stat().st_size // 1024:,} | " + " | ".join(cells), end="")
            print(f" | {ratio:.3f} |", flush=True)
    return above


def main() -> int:
    """Prints the table; see the head of this file."""
    if sys.argv[1:2] == ["--worker"]:
        engine, path, name = sys.argv[2:]
        run = run_ortolan if engine == "ortolan" else run_onnxruntime
        print(json.dumps(run(path, golden(name))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    names = parser.parse_args().models or sorted(p.stem for p in MODELS.glob("*.onnx"))
    if not names:
        print("there is no ../shared/models")
        return 1
    print(
        "| model | file KiB | Ortolan: anonymous | file | peak | onnxruntime: anonymous | file",
        end="",
    )
    print(" | peak | limit | arena bytes | floor | ratio |\n|" + "---|" * 12)
    return 1 if rows(names) else 0


if __name__ == "__main__":
    sys.exit(main())
