"""Builds and runs the fuzz targets: `make fuzz SECONDS=n`.

    python tests/fuzz/fuzz.py [--seconds N] [--minutes N] [--jobs N] [TARGET...]

Targets of C++ (libFuzzer, under ASan and UBSan): ort_reader, onnx_reader, session, options, and
kernels-FAMILY for each family of the catalog. Targets of Python: python-config, python-ort_file,
python-onnx_file, python-nodes, python-session. Each runs N seconds from its corpus in build/fuzz,
which it extends. Prints executions and coverage of each; inputs that are findings are in
build/fuzz/found, and then the exit status is 1.

Seconds of processor time since the last finding of a target add up over calls, machines and
people, in ledger.json beside this file: commit it with what was mended. With `--minutes` a call
goes on, with the targets that have the least of them, until each has that many.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "native")]

import sanitize  # noqa: E402 - the path is set above

FOLDER = ROOT / "build" / "fuzz"
LEDGER = Path(__file__).with_name("ledger.json")
NATIVE = {"ort_reader": "ort", "onnx_reader": "onnx", "session": "ort", "options": "options"}
PYTHON = {
    "config": "config", "ort_file": "ort", "onnx_file": "onnx", "nodes": "kernels",
    "session": "ort",
}  # fmt: skip
# Seconds that one input may take: more than a machine that is busy or stops it needs.
_TIMEOUT = 900
_MOST_FINDINGS = 8


@dataclass
class Entry:
    """A target in the ledger; `coverage` is what its last run reached, as in `Outcome`."""

    seconds: float = 0  # of processor time since its last finding
    executions: int = 0
    findings: int = 0
    coverage: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a target did: `coverage` is libFuzzer's counts of edges and features."""

    target: str
    seconds: float
    processor: float  # seconds of it
    executions: int
    coverage: str
    corpus: int
    found: tuple[str, ...]


def targets() -> list[str]:
    """The names of all targets."""
    from operators import families

    kernels = [f"kernels-{family}" for family in families()]
    return [*NATIVE, *kernels, *(f"python-{name}" for name in PYTHON)]


def build(names: list[str]) -> dict[str, Path]:
    """Compiles the programs of the targets, by name of the source file."""
    from operators import generate

    sources = {name.partition("-")[0] for name in names if not name.startswith("python-")}
    if not sources:
        return {}
    runtime = sanitize.objects("fuzzer")
    folder = runtime[0].parent
    header = folder / "generated" / "fuzz_operators.h"
    text = generate()
    if not header.is_file() or header.read_text() != text:
        header.write_text(text)
    flags = [f"-I{header.parent}", f"-I{ROOT / 'tests' / 'native'}"]
    here = Path(__file__).parent
    return {
        name: sanitize.program(here / f"{name}.cc", "fuzzer", runtime, flags=flags)
        for name in sorted(sources)
    }


def corpus(target: str) -> Path:
    """The folder that a target reads and extends, filled from the seeds where it is new."""
    seeds = FOLDER / "seeds"
    if not seeds.is_dir():
        from corpora import write

        with tempfile.TemporaryDirectory(dir=FOLDER) as fresh:
            write(Path(fresh))
            shutil.copytree(fresh, seeds)
    folder = FOLDER / "corpus" / target
    if not folder.is_dir():
        kind, _, name = target.partition("-")
        kind = PYTHON[name] if kind == "python" else NATIVE.get(kind, kind)
        shutil.copytree(seeds / kind, folder)
    return folder


def run(target: str, programs: dict[str, Path], seconds: int) -> Outcome:
    """Runs a target; after a finding it goes on, so that one does not hide the next."""
    kind, _, name = target.partition("-")
    found = FOLDER / "found" / target
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    log = FOLDER / "log" / f"{target}.txt"
    log.parent.mkdir(exist_ok=True)
    begin, executions, coverage, entries, processor = time.monotonic(), 0, "", 0, 0.0
    fresh: set[Path] = set()
    while len(fresh) < _MOST_FINDINGS:
        left = int(seconds - (time.monotonic() - begin))
        if left <= 0:
            break
        if kind == "python":
            script = str(Path(__file__).with_name("python_targets.py"))
            command = [sys.executable, script, name, str(left), str(corpus(target)), str(found)]
        else:
            command = _libfuzzer(programs[kind], target, left, found)
        environment = {**sanitize.environment(), "ORTOLAN_CACHE": "off"}
        if kind == "kernels":
            environment["FUZZ_FAMILY"] = name
        with log.open("w") as file:
            process = subprocess.Popen(command, stderr=file, stdout=file, env=environment)
            _, ended, usage = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(ended)
        processor += usage.ru_utime + usage.ru_stime
        text = log.read_text("utf-8", "replace")
        executions += _last(r"^(?:Done |stat::number_of_executed_units: |#)(\d+)", text)
        pairs = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
        if pairs:
            coverage, entries = f"{pairs[-1][0]}/{pairs[-1][1]}", int(pairs[-1][2])
        fresh = set(found.iterdir()) - before
        if code and not fresh:
            raise RuntimeError(f"{target} ended with {code}; see {log}")
        for path in fresh:
            kept = FOLDER / "log" / f"{target}-{path.name}.txt"
            if not kept.exists():
                kept.write_text(text[-20000:])
        if not code:
            break
    names = tuple(str(path.relative_to(ROOT)) for path in sorted(fresh))
    elapsed = time.monotonic() - begin
    return Outcome(target, elapsed, processor, executions, coverage, entries, names)


def ledger() -> dict[str, Entry]:
    """All targets, those that never ran included."""
    kept = json.loads(LEDGER.read_text()) if LEDGER.exists() else {}
    return {name: Entry(**kept.get(name, {})) for name in targets()}


def record(outcome: Outcome) -> None:
    """Adds what a run did to the ledger."""
    entries = ledger()
    entry = entries[outcome.target]
    entry.seconds = 0 if outcome.found else round(entry.seconds + outcome.processor)
    entry.executions += outcome.executions
    entry.findings += len(outcome.found)
    entry.coverage = outcome.coverage or entry.coverage
    fresh = LEDGER.with_suffix(".part")
    fresh.write_text(json.dumps({name: asdict(entries[name]) for name in entries}, indent=1) + "\n")
    fresh.replace(LEDGER)


def rounds(wanted: list[str], seconds: int, minutes: float) -> Iterator[dict[str, int]]:
    """Turns of targets: all once, or those that lack minutes, as long as there are any."""
    if not minutes:
        yield dict.fromkeys(wanted, seconds)
        return
    while True:
        entries = ledger()
        lacking = {name: 60 * minutes - entries[name].seconds for name in wanted}
        lacking = {name: lack for name, lack in lacking.items() if lack > 0}
        if not lacking:
            return
        # The clock runs faster than processor time.
        yield {
            name: min(seconds, int(1.05 * lacking[name]) + 5)
            for name in sorted(lacking, key=lambda name: -lacking[name])
        }


def _libfuzzer(program: Path, target: str, seconds: int, found: Path) -> list[str]:
    return [
        str(program), f"-max_total_time={seconds}", f"-timeout={_TIMEOUT}", "-rss_limit_mb=2500",
        "-max_len=16384" if not target.startswith("kernels") else "-max_len=300",
        "-print_final_stats=1", "-report_slow_units=100000", f"-artifact_prefix={found}/",
        str(corpus(target)),
    ]  # fmt: skip


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return max((int(number) for number in found), default=0)


def main() -> int:
    """Runs what the arguments name and prints a row for each target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60, help="of a target's turn")
    parser.add_argument("--minutes", type=float, default=0, help="that each shall have in the end")
    parser.add_argument("--jobs", type=int, default=max((os.cpu_count() or 2) // 2, 1))
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    wanted = arguments.targets or targets()
    unknown = sorted(set(wanted) - set(targets()))
    if unknown:
        parser.error(f"unknown targets {unknown}; there are {targets()}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    programs = build(wanted)
    corpus(wanted[0])
    print(f"{'target':30} {'seconds':>8} {'executions':>11} {'cov/ft':>13} {'corpus':>7} findings")
    status = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for turns in rounds(wanted, arguments.seconds, arguments.minutes):
            pending = [pool.submit(run, name, programs, turn) for name, turn in turns.items()]
            for done in as_completed(pending):
                o = done.result()
                record(o)
                row = f"{o.target:30} {o.seconds:8.0f} {o.executions:11} {o.coverage:>13}"
                print(row, f"{o.corpus:7}", len(o.found), *o.found, flush=True)
                status |= bool(o.found)
    if arguments.minutes:
        for name, entry in ledger().items():
            row = f"{name:30} {entry.seconds / 60:5.1f} minutes {entry.executions:11} executions"
            print(f"{row} {entry.coverage:>13} coverage {entry.findings:3} findings")
    return status


if __name__ == "__main__":
    sys.exit(main())
