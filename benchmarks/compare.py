"""Float models beside other engines: latency, load, memory, and the share of the machine's peak.

``python benchmarks/compare.py [MODEL ...] [--engines a,b] [--threads 1,2] [--rounds 7] [--avx2]``
``[--peers PYTHON] [--save FILE] [--merge FILE ...] [--plot FILE.svg]``

MODEL is a name of the zoo or of ``../shared/models``, `zoo`, `real`, or an ONNX file; without any,
all float32 ones. Each engine has a process of its own, in the environment PEERS where this one
lacks it, and the processes take turns: one is timed while the others stand still. A turn during
which others used more than a quarter of a core is loud, and left out where there are quiet ones.
``--save`` adds what was measured to a JSON file; ``--merge`` makes one table of such files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import floors
import peak
import report
import zoo
from engines import ENGINES, Spec

import ortolan

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
POLL_SECONDS, WAIT_SECONDS = 0.001, 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")
RELOADS = 9

Answer = dict[str, Any]


class Worker:
    """One engine's process. What goes wrong is kept in `failed`, and ends the process."""

    def __init__(self, python: str, engine: str, spec: Spec, threads: int, isa: str | None) -> None:
        self.engine, self.failed, self.result = engine, "", Answer(turns=[])
        held = (ENGINES[engine].avx2 or {}) if isa else {}
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), engine, str(threads), *filter(None, [isa])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **held}, start_new_session=True,
        )  # fmt: skip
        self.send(json.dumps(asdict(spec)))
        self.missing: str = self.answer().get("missing", "")

    def send(self, line: str) -> None:
        """Asks without waiting."""
        assert self.process.stdin
        if not self.failed:
            try:
                print(line, file=self.process.stdin, flush=True)
            except BrokenPipeError:
                self.fail("")

    def answer(self) -> Answer:
        """The next answer; empty when the engine failed."""
        assert self.process.stdout
        line = ""
        while not self.failed and not self.is_ready(WAIT_SECONDS):
            pass
        if not self.failed and select.select([self.process.stdout], [], [], 0)[0]:
            line = self.process.stdout.readline()
        found: Answer = json.loads(line) if line else {"failed": self.failed}
        if "failed" in found:
            self.fail(found["failed"])
            return {}
        self.result |= {k: v for k, v in found.items() if k not in ("median", "missing")}
        return found

    def is_ready(self, seconds: float) -> bool:
        """Whether there is an answer, or none will come: children may keep a dead one's pipe."""
        assert self.process.stdout
        is_dead = self.process.poll() is not None
        return bool(select.select([self.process.stdout], [], [], seconds)[0]) or is_dead

    def fail(self, why: str) -> None:
        """Notes the reason once, and ends the process."""
        self.close()
        self.failed = self.failed or why or f"it ended with status {self.process.returncode}"

    def ask(self, line: str) -> Answer:
        """Asks and waits."""
        self.send(line)
        return self.answer()

    def memory(self) -> tuple[int, int]:
        """Bytes of anonymous and of file pages that are in memory."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        resident, shared = int(fields[1]), int(fields[2])
        return (resident - shared) * PAGE, shared * PAGE

    def load(self) -> None:
        """Loads and runs once, watched from outside: the peaks of both kinds of memory."""
        if self.failed:
            return
        base = peaks = self.memory()
        self.send("load")
        while not self.is_ready(POLL_SECONDS):
            now = self.memory()
            peaks = max(peaks[0], now[0]), max(peaks[1], now[1])
        now = self.memory() if self.process.poll() is None else base
        if self.answer():
            peaks = max(peaks[0], now[0]), max(peaks[1], now[1])
            self.result |= {"anonymous": peaks[0] - base[0], "file": peaks[1] - base[1]}

    def close(self) -> None:
        """Ends the process and those that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def python_for(engine: str, peers: str) -> str:
    """The Python whose environment has the engine."""
    return peers if ENGINES[engine].missing() and peers else sys.executable


def convert(spec: Spec, options: argparse.Namespace) -> list[str]:
    """Writes the engines' own forms of a model; answers the engines that are installed.

    In processes of their own: memory that a converter has freed would hide what loading takes.
    """
    installed = []
    for engine in options.engines.split(","):
        worker = Worker(python_for(engine, options.peers), engine, spec, 1, None)
        if worker.missing:
            print(f"{engine} is not installed: no module {worker.missing}", file=sys.stderr)
        else:
            worker.ask("convert")
            installed.append(engine)
            if worker.failed:
                print(f"{spec.name}: {engine}: {worker.failed}", file=sys.stderr)
        worker.close()
    return installed


def start_workers(
    spec: Spec, threads: int, engines: Sequence[str], options: argparse.Namespace
) -> list[Worker]:
    """Processes of engines that have imported what they need."""
    isa = "avx2" if options.avx2 else None
    workers = [Worker(python_for(e, options.peers), e, spec, threads, isa) for e in engines]
    for worker in workers:
        worker.send("start")
    for worker in workers:
        worker.answer()
    return workers


def compare(
    spec: Spec, threads: int, engines: Sequence[str], options: argparse.Namespace
) -> Answer:
    """Times one model on engines in turn."""
    workers = start_workers(spec, threads, engines, options)
    try:
        for worker in workers:
            worker.load()
            worker.ask("check")
            worker.ask(f"reload {RELOADS}")
        for _ in range(options.rounds):
            for worker in workers:
                if not worker.failed and (found := worker.ask(f"turn {options.seconds}")):
                    worker.result["turns"].append(found)
    finally:
        for worker in workers:
            worker.close()
    for worker in workers:
        worker.result["held"] = ENGINES[worker.engine].avx2 is not None
        for key in ("min", "calls", "cpu", "others"):
            worker.result.pop(key, None)
        if worker.failed:
            worker.result["failed"] = worker.failed
            print(f"{spec.name}: {worker.engine}: {worker.failed}", file=sys.stderr)
    return {
        "model": spec.name, "threads": threads, "avx2": options.avx2,
        "engines": {w.engine: w.result for w in workers},
    }  # fmt: skip


def measure(options: argparse.Namespace) -> Answer:
    """Times all models; what is saved is saved after each."""
    info = ortolan.runtime_info()
    peaks = peak.measure(rounds=1 if options.convert else 7)
    isa = "avx2" if options.avx2 else str(info["instruction_set"])
    machine = {"isa": isa, "madds": peaks.madds, "reads": peaks.reads}
    found: Answer = {"machine": machine, "runs": []}
    with tempfile.TemporaryDirectory() as scrap:
        folder = options.converted or Path(scrap)
        folder.mkdir(parents=True, exist_ok=True)
        for model in zoo.find(options.models, options.zoo):
            spec = zoo.spec(model, folder)
            engines = convert(spec, options)
            if options.convert:
                continue
            need = floors.count(spec.onnx, spec.read_feeds())
            for threads in map(int, options.threads.split(",")):
                run = compare(spec, threads, engines, options)
                run |= {"need": asdict(need), "floor": need.floor(peaks, isa, threads)}
                found["runs"].append(run)
                if options.save:
                    save(options.save, {"machine": machine, "runs": [run]})
                print(next(line for k, line in enumerate(summary(run)) if k == 2), file=sys.stderr)
    return found


def summary(run: Answer) -> list[str]:
    """The latency table of one run."""
    return list(report.latency_table([run], list(run["engines"])))


def merged(results: Sequence[Answer]) -> Answer:
    """One result of several; what was measured last of a model counts."""
    runs: dict[tuple[str, int, bool], Answer] = {}
    for result in results:
        for run in result["runs"]:
            runs[run["model"], run["threads"], run["avx2"]] = run
    return {"machine": results[-1]["machine"], "runs": list(runs.values())}


def save(path: Path, found: Answer) -> None:
    """Adds to what the file has."""
    before = [json.loads(path.read_text())] if path.is_file() else []
    path.write_text(json.dumps(merged([*before, json.loads(json.dumps(found))])))


def show(found: Answer) -> None:
    """Prints the tables."""
    engines = list(dict.fromkeys(e for run in found["runs"] for e in run["engines"]))
    versions = {
        e: r["version"]
        for run in found["runs"]
        for e, r in run["engines"].items()
        if "version" in r
    }
    print(", ".join(f"{e} {v}" for e, v in versions.items()))
    for key in sorted({(run["avx2"], run["threads"]) for run in found["runs"]}):
        runs = [run for run in found["runs"] if (run["avx2"], run["threads"]) == key]
        print(f"\n### {key[1]} thread(s){', AVX2' if key[0] else ''}: ms, minimum / median\n")
        print("\n".join(report.latency_table(runs, engines)))
        print("\n#### Floors\n")
        print("\n".join(report.floor_table(runs, found["machine"])))
        print("\n#### Load and memory\n")
        print("\n".join(report.resource_table(runs, engines)))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn")
    parser.add_argument("--avx2", action="store_true", help="hold engines to AVX2 that can be held")
    parser.add_argument("--peers", default="", help="a Python in whose environment peers are")
    parser.add_argument("--zoo", type=Path, default=BUILD / "zoo")
    parser.add_argument("--converted", type=Path, help="keeps the engines' own forms of the models")
    parser.add_argument("--convert", action="store_true", help="and nothing else")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--merge", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def main() -> int:
    """Measures or merges, and prints; see the head of this file."""
    options = parse()
    if options.merge:
        found = merged([json.loads(path.read_text()) for path in options.merge])
    else:
        found = measure(options)
    show(found)
    if options.plot:
        engines = list(dict.fromkeys(e for run in found["runs"] for e in run["engines"]))
        first = min((r["avx2"], r["threads"]) for r in found["runs"])
        runs = [r for r in found["runs"] if (r["avx2"], r["threads"]) == first]
        options.plot.write_text(report.plot(runs, engines, "time over Ortolan's, one thread"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
