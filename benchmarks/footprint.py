"""Memory of real models: pages beside onnxruntime's, and the arena beside its floor.

``python benchmarks/footprint.py [MODEL ...]``

Prints Markdown. Each engine loads the model (Ortolan a mapped ``.ort``) and runs its golden inputs
once, with one thread, in a process of its own. Counted is what that adds, in KiB: anonymous pages
(what the engine allocated, outputs included), pages of files (weights that are used where they are
mapped, and code), and the peak of both together. The arena is one run's, beside the largest sum of
bytes that are alive at once; limit 1.10.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

MODELS = ROOT.parent / "shared" / "models"
ARENA_LIMIT = 1.10


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
    with np.load(MODELS / "golden" / f"{name}.npz") as content:
        return {key[3:]: content[key] for key in content.files if key.startswith("in/")}


def run_ortolan(path: str, feeds: dict[str, Any]) -> dict[str, int]:
    """What a run of an .ort file adds; also the bytes of its arena and their floor."""
    import ortolan
    from ortolan import _native

    library = _native.library()
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = 1
    forget_peak()
    before = pages()
    session = ortolan.InferenceSession(path, options)
    results = session.run(None, feeds)
    after = pages()
    arena = {}
    run = session._idle[-1]
    for key in ("arena_bytes", "arena_floor"):
        number = ctypes.c_int64()
        library.ortolan_run_number(run.handle, key.encode(), ctypes.byref(number))
        arena[key] = number.value
    del results
    return {**difference(before, after), **arena}


def run_onnxruntime(path: str, feeds: dict[str, Any]) -> dict[str, int]:
    """What a run of an ONNX file adds."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    forget_peak()
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


def measure(engine: str, path: Path, name: str) -> dict[str, int]:
    """Runs an engine in a fresh process."""
    command = [sys.executable, __file__, "--worker", engine, str(path), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(names: list[str]) -> int:
    """Prints the rows of the table; returns how many arenas are above the limit."""
    import ortolan

    above = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            source, target = MODELS / f"{name}.onnx", Path(folder) / f"{name}.ort"
            ortolan.convert(source, target)
            ours, theirs = measure("ortolan", target, name), measure("onnxruntime", source, name)
            ratio = ours["arena_bytes"] / max(ours["arena_floor"], 1)
            above += ratio > ARENA_LIMIT
            cells = [f"{e[key]:,}" for e in (ours, theirs) for key in ("anonymous", "file", "peak")]
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
    print(" | peak | arena bytes | floor | ratio |\n|" + "---|" * 11)
    return 1 if rows(names) else 0


if __name__ == "__main__":
    sys.exit(main())
