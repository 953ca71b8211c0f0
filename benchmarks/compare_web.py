"""Float models in WebAssembly beside onnxruntime-web and LiteRT.js: in Chromium and in Node.

``python benchmarks/compare_web.py [MODEL ...] [--places chromium,node] [--rounds 7]``
``[--modules NODE_MODULES] [--tflite FOLDER] [--save FILE] [--merge FILE ...] [--plot FILE.svg]``

MODEL is as in `compare.py`. One thread; the engines take turns, as there, each in a page of a
context of its own or a process of its own. ``--modules`` is where ``npm install onnxruntime-web
@litertjs/core`` has put the peers; LiteRT.js takes `NAME.tflite` files of the ``--tflite`` folder,
in Chromium only. Beside the times stand the share of the multiply-add peak, which is measured in
the same run, the time from the start of the page to a session, and what was fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import floors
import numpy as np
import report
import zoo
from engines import Spec

import ortolan

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
WASM = {"ortolan.wasm": "web", "ortolan.relaxed.wasm": "web-relaxed"}
ENGINES = ("ortolan", "ortolan simd128", "onnxruntime-web", "LiteRT.js")
NODE_ONLY = {"node": {"LiteRT.js"}}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

Answer = dict[str, Any]


def build_modules(folder: Path) -> None:
    """Compiles the runtime's modules, and the one that measures the peak."""
    for name, target in WASM.items():
        command = [sys.executable, "-m", "ortolan.build.host", "--target", target]
        done = subprocess.run(
            [*command, "-o", str(BUILD / "web")], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        shutil.copy(done.stdout.split()[-1], folder / name)
    subprocess.run(
        [
            sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", "-O3",
            "-msimd128", "-mrelaxed-simd", "-nostdlib", "-Wl,--no-entry", "-Wl,--export-dynamic",
            str(ROOT / "benchmarks" / "web" / "peak.c"), "-o", str(folder / "peak.wasm"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip


def write_tensors(spec: Spec, folder: Path) -> None:
    """The feeds and known results for JavaScript: `NAME.bin`, and `NAME.json` as its index."""
    content = bytearray()
    index: dict[str, list[Answer]] = {"inputs": [], "outputs": []}
    sides = (("inputs", spec.read_feeds()), ("outputs", spec.read_outputs()))
    for side, arrays in sides:
        for name, array in arrays.items():
            content += bytes(-len(content) % 8)
            raw = np.ascontiguousarray(array).tobytes()
            entry = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
            index[side].append({**entry, "offset": len(content), "bytes": len(raw)})
            content += raw
    (folder / f"{spec.name}.bin").write_bytes(content)
    (folder / f"{spec.name}.json").write_text(json.dumps(index))


def prepare(model: Path, folder: Path, tflite: Path | None) -> Spec:
    """Puts all forms of a model, its feeds and its results into the served folder."""
    spec = zoo.spec(model, folder)
    write_tensors(spec, folder)
    ortolan.convert(model, folder / f"{spec.name}.ort")
    for source in (model, (tflite or folder) / f"{spec.name}.tflite"):
        target = folder / source.name
        if source.is_file() and source != target:
            target.unlink(missing_ok=True)
            target.symlink_to(source.resolve())
    return spec


def measure_model(spec: Spec, place: str, folder: Path, options: argparse.Namespace) -> Answer:
    """Times one model in one place."""
    node_modules = BUILD / "node" / "node_modules"
    engines = [e for e in options.engines.split(",") if e not in NODE_ONLY.get(place, ())]
    has_tflite = (folder / f"{spec.name}.tflite").exists()
    job = {
        "place": place, "model": spec.name, "rounds": options.rounds, "seconds": options.seconds,
        "engines": [e for e in engines if has_tflite or e != "LiteRT.js"],
        "tree": str(ROOT), "files": str(folder), "modules": str(options.modules.resolve()),
        "playwright": str(node_modules),
        "chromium": next(filter(None, map(shutil.which, BROWSERS)), ""),
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    own = node_modules / ".bin" / "node"
    node = str(own) if own.exists() else shutil.which("node") or "node"
    script = ROOT / "benchmarks" / "web" / "bench.mjs"
    done = subprocess.run([node, script, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{place}: {done.stderr[-500:]}")
    found: Answer = json.loads(done.stdout.splitlines()[-1])
    for engine, result in found["engines"].items():
        if result.get("failed"):
            print(f"{spec.name}: {engine}: {result['failed']}", file=sys.stderr)
    return {"model": spec.name, "place": place, "threads": 1, "avx2": False, **found}


def measure(options: argparse.Namespace) -> Answer:
    """Times all models; what is saved is saved after each."""
    runs: list[Answer] = []
    with tempfile.TemporaryDirectory() as scrap:
        folder = Path(scrap)
        build_modules(folder)
        for model in zoo.find(options.models or ["zoo"], options.zoo):
            spec = prepare(model, folder, options.tflite)
            need = floors.count(spec.onnx, spec.read_feeds())
            for place in options.places.split(","):
                run = {**measure_model(spec, place, folder, options), "need": asdict(need)}
                runs.append(run)
                if options.save:
                    save(options.save, [run])
                print(list(report.latency_table([run], list(run["engines"])))[2], file=sys.stderr)
    return {"runs": runs}


def save(path: Path, runs: list[Answer]) -> None:
    """Adds to what the file has; what was measured last of a model counts."""
    before = json.loads(path.read_text())["runs"] if path.is_file() else []
    path.write_text(json.dumps({"runs": merged([*before, *json.loads(json.dumps(runs))])}))


def merged(runs: list[Answer]) -> list[Answer]:
    """The last run of each model and place."""
    return list({(run["model"], run["place"]): run for run in runs}.values())


def peak_table(runs: list[Answer]) -> Iterator[str]:
    """Shares of the multiply-add peak by minima: relaxed of the fused one, simd128 of the other."""
    yield "| model | relaxed, % of peak | simd128, % of peak | peaks, G multiply-adds/s |"
    yield "|---|---|---|---|"
    for run in runs:
        cells = []
        for engine, name in (("ortolan", "relaxed"), ("ortolan simd128", "simd128")):
            found = report.times(run["engines"].get(engine, {}))
            rate = run["need"]["madds"] / found.least / 1e9 if found else 0
            cells.append(f"{100 * rate / run['peaks'][name]:.0f}")
        rates = f"{run['peaks']['relaxed']:.1f}, {run['peaks']['simd128']:.1f}"
        yield f"| {run['model']} | {cells[0]} | {cells[1]} | {rates} |"


def start_table(runs: list[Answer], engines: list[str]) -> Iterator[str]:
    """From the start of the page to the session, the first run, the memory, and what is fetched."""

    def cell(result: Answer) -> str:
        text = f"{result['ready']:.0f}, {result['first']:.1f}, {result['memory'] / 1e6:.1f}"
        if "libraryBytes" in result:
            text += f", {result['libraryBytes'] / 1e6:.2f} + {result['modelBytes'] / 1e6:.2f}"
        return text

    yield "ms to session, ms of the first run, MB of memory, MB fetched (library + model)."
    yield ""
    yield from report.engine_table(runs, engines, cell)


def show(runs: list[Answer]) -> None:
    """Prints the tables."""
    for place in sorted({run["place"] for run in runs}):
        those = [run for run in runs if run["place"] == place]
        engines = [e for e in ENGINES if any(e in run["engines"] for run in those)]
        print(f"\n### {those[-1]['version']}, one thread: ms, minimum / median\n")
        variants = [*engines]
        print("\n".join(report.latency_table(those, variants)))
        print("\n#### Share of the peak\n")
        print("\n".join(peak_table(those)))
        print("\n#### Start\n")
        print("\n".join(start_table(those, engines)))


def main() -> int:
    """Measures or merges, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--places", default="chromium,node")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--zoo", type=Path, default=BUILD / "zoo")
    parser.add_argument("--modules", type=Path, default=BUILD / "web-peers" / "node_modules")
    parser.add_argument("--tflite", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--merge", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.merge:
        runs = merged([r for p in options.merge for r in json.loads(p.read_text())["runs"]])
    else:
        runs = measure(options)["runs"]
    show(runs)
    if options.plot:
        those = [run for run in runs if run["place"] == options.places.split(",")[0]]
        engines = [e for e in ENGINES if any(e in run["engines"] for run in those)]
        options.plot.write_text(
            report.plot(those, engines, "time over Ortolan's (relaxed), Chromium")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
