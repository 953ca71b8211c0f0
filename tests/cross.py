"""Runs the operator cases and the models on Arm under qemu-user, on x86, and under sanitizers.

`python tests/cross.py MACHINE cases|models [NAME...]` builds the runtime with runner.cc and runs
all cases of a bundle in one process. For `arm64` and `armv7` they are one static program; for `x86`
the runner loads Android's library as it is shipped, by the C library of 32 bits; `sanitized` (of
addresses, undefined behaviour, leaks) and `initialized` (what is read was set) are by Debian's
clang. Everywhere all memory of a job must be given back. Prints a line for each failure and skip,
and the counts as tools/run_tests.py reads them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import cases_bundle
import cases_lib
import models_bundle
import models_lib
from ortolan.build.compile import build, compiler, source_root
from ortolan.build.host import cache_folder
from ortolan.build.targets import TARGETS
from ortolan.catalog.types import DataType

sys.path.insert(0, str(Path(__file__).with_name("native")))
import sanitize

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(__file__).with_name("native") / "runner.cc"
_MAGIC = 0x4A54524F
# A crash ends the process; that often it is started again behind the job that did it.
_RESTARTS = 20


@dataclasses.dataclass(frozen=True)
class Machine:
    """Another machine: our target, the compiler's triple for programs, and what runs them.

    Attributes:
        triple: empty for a program of this machine under sanitizers.
        starter: an emulator, or the loader of a C library for programs that this machine runs.
        flushes: vector instructions take numbers too small for a normal float as zero.
        sanitizers: of the objects and of the program, as :mod:`sanitize` names them.
    """

    target: str
    triple: str
    starter: str
    flushes: bool = False
    sanitizers: tuple[str, str] = ("", "")

    @property
    def is_emulated(self) -> bool:
        """Whether this machine does not run its programs by itself."""
        return self.starter.startswith("qemu")


MACHINES = {
    "arm64": Machine("linux-arm64", "aarch64-linux-musl", "qemu-aarch64"),
    "armv7": Machine("linux-armv7", "arm-linux-musleabihf", "qemu-arm", True),
    "x86": Machine("android-x86", "x86-linux-gnu.2.28", "/lib/ld-linux.so.2"),
    "sanitized": Machine("linux-x64", "", "env", sanitizers=("fuzzer", "address")),
    "initialized": Machine("linux-x64", "", "env", sanitizers=("memory", "memory")),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A model to run, step by step."""

    name: str
    path: Path
    steps: Sequence[models_lib.Step]


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a job: the outputs by name of each step, and the error that ended it."""

    steps: Sequence[Mapping[str, Any]] = ()
    error: str = ""


def build_runner(machine: Machine, folder: Path) -> Path:
    """The program for a machine; compiled if something changed.

    Raises:
        sanitize.NoSanitizerError: it is to be under sanitizers, and there are none.
        ortolan.build.compile.BuildError: the compiler refused the runtime.
        subprocess.CalledProcessError: it refused the runner.
    """
    if not machine.triple:
        objects_kind, program_kind = machine.sanitizers
        return sanitize.program(RUNNER, program_kind, sanitize.objects(objects_kind))
    target = TARGETS[machine.target]
    objects: list[Path] = []
    library = build(target, folder, cache_folder(), linked=objects.append)
    command = [*compiler(), "-target", machine.triple, *target.flags, "-std=c++20", "-O2", "-g0"]
    command += ["-s", "-nostdlib++", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wextra"]
    command += ["-fno-sanitize=all", f"-I{source_root() / 'include'}", str(RUNNER)]
    command += ["-static", *map(str, objects)] if machine.is_emulated else [str(library)]
    digest = hashlib.sha256(RUNNER.read_bytes() + repr(command).encode()).hexdigest()
    program = folder / f"runner-{digest[:16]}"
    if not program.is_file():
        cache = str(cache_folder() / "zig")
        zig = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        fresh = program.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", str(fresh)], env={**os.environ, **zig}, check=True)
        fresh.replace(program)
    return program


def find_starter(machine: Machine, folder: Path) -> list[str]:
    """The command that programs for a machine are started by; empty if it is not there."""
    starter = shutil.which(machine.starter)
    if starter and not machine.triple:
        return [starter, *(f"{key}={value}" for key, value in sanitize.options().items())]
    if starter is None or machine.is_emulated:
        return [starter] if starter else []
    # Android's C library has another name than Linux's, and the same functions.
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / "libc.so"
    if not name.exists():
        name.unlink(missing_ok=True)
        name.symlink_to(Path(starter).resolve().with_name("libc.so.6"))
    return [starter, "--library-path", str(folder)]


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<I", len(content)) + content


def _tensor(array: cases_lib.Array) -> bytes:
    array = array.astype(object) if array.dtype.kind == "U" else array
    kind = int(cases_lib.data_type(cases_lib.type_name(array.dtype)))
    content = cases_bundle.to_bytes(array)
    head = struct.pack(f"<II{array.ndim}q", kind, array.ndim, *array.shape)
    return head + struct.pack("<Q", len(content)) + content


def write_jobs(jobs: Sequence[Job]) -> bytes:
    """Jobs in the form that runner.cc reads."""
    parts = [struct.pack("<II", _MAGIC, len(jobs))]
    for job in jobs:
        parts += [_text(str(job.path)), struct.pack("<I", len(job.steps))]
        for step in job.steps:
            parts.append(struct.pack("<I", len(step.feeds)))
            parts += [_text(name) + _tensor(np.asarray(x)) for name, x in step.feeds.items()]
            parts.append(struct.pack("<I", len(step.carried)))
            parts += [_text(to) + _text(of) for to, of in step.carried.items()]
            parts.append(struct.pack("<I", len(step.expected)))
            parts += map(_text, step.expected)
    return b"".join(parts)


class _CutOffError(Exception):
    """The results end in the middle of a job."""


def _take(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack("<" + form, _bytes(file, struct.calcsize("<" + form)))


def _bytes(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise _CutOffError
    return content


def _value(file: BinaryIO) -> Any:
    kind, count = _take(file, "II")
    if kind == 1:
        return [_value(file) for _ in range(count)]
    if kind == 2:
        keys, values = _value(file), _value(file)
        return dict(zip(keys.tolist(), values.tolist(), strict=True))
    if kind == 3:
        return _value(file) if count else None
    (rank,) = _take(file, "I")
    shape = _take(file, f"{rank}q")
    content = _bytes(file, _take(file, "Q")[0])
    return cases_bundle.from_bytes(content, DataType(count).onnx_name, shape)


def read_results(content: bytes, jobs: Sequence[Job]) -> Iterator[Result]:
    """The results of as many jobs as were done."""
    file = io.BytesIO(content)
    for job in jobs:
        steps: list[dict[str, Any]] = []
        try:
            while (count := _take(file, "I")[0]) != _MAGIC:
                values = [_value(file) for _ in range(count)]
                names = job.steps[len(steps)].expected
                steps.append(dict(zip(names, values, strict=True)))
            status, size = _take(file, "II")
            message = _bytes(file, size).decode("utf-8", "replace")
        except _CutOffError:
            return
        yield Result(steps, message or f"status {status}" if status else "")


def run_jobs(
    program: Path, starter: Sequence[str], jobs: Sequence[Job], limit: float, loses: str = ""
) -> list[Result]:
    """Runs jobs; one that crashes the process or is late has that as its error.

    Args:
        program: of :func:`build_runner`.
        starter: of :func:`find_starter`.
        jobs: what to run.
        limit: in seconds, for all.
        loses: "value" or "block" makes the runner lose memory, for tests of its checks.
    """
    results: list[Result] = []
    jobs_file, results_file = (program.with_name(f"{os.getpid()}.{x}") for x in ("jobs", "results"))
    jobs_file.write_bytes(write_jobs(jobs))
    end = time.monotonic() + limit
    try:
        for _ in range(_RESTARTS):
            command = [*starter, str(program), str(jobs_file), str(results_file)]
            command += [str(len(results)), *loses.split()]
            status, said = 0, ""
            try:
                left = max(end - time.monotonic(), 1)
                done = subprocess.run(command, capture_output=True, text=True, timeout=left)
                status, said = done.returncode, done.stdout
                ending = f"the process ended with status {status}: {done.stderr[-3000:]}"
            except subprocess.TimeoutExpired:
                ending = f"not done after {limit:.0f} s"
            results += read_results(results_file.read_bytes(), jobs[len(results) :])
            if len(results) == len(jobs):
                print(said, end="")
                if status:  # such as a leak that is found at the end
                    results[-1] = Result(error=ending)
                break
            results.append(Result(error=ending))
            if len(results) == len(jobs) or time.monotonic() > end:
                break
    finally:
        jobs_file.unlink()
        results_file.unlink(missing_ok=True)
    return results + [Result(error="not reached")] * (len(jobs) - len(results))


class Report:
    """Counts tests and prints what tools/run_tests.py reads."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0

    def test(self, name: str, problem: str) -> None:
        """`problem` is empty for a test that passed."""
        self.passed += not problem
        self.failed += bool(problem)
        if problem:
            print(f"failed: {name}: {problem}")

    def skip(self, name: str, reason: str) -> None:
        """A test that cannot run here."""
        self.skipped += 1
        print(f"skipped: {name}: {reason}")

    def end(self) -> int:
        """Prints the counts; returns an exit status."""
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed or not self.passed + self.skipped else 0


def has_denormals(step: models_lib.Step) -> bool:
    """Whether a float in the feeds or results is too small for a normal number."""
    smallest = np.finfo(np.float32).tiny
    arrays = (*step.feeds.values(), *step.expected.values())
    return any(
        bool(np.any((array != 0) & (np.abs(array) < smallest)))
        for array in arrays
        if array.dtype in (np.float32, np.float64)
    )


def check_cases(
    program: Path, machine: Machine, starter: Sequence[str], wanted: Sequence[str], report: Report
) -> None:
    """Runs the operator cases; `wanted` are pieces of their names, all without any."""
    folder = cases_bundle.ensure()
    entries = json.loads((folder / cases_bundle.INDEX).read_text("utf-8"))
    jobs, kept = [], []
    for entry in entries:
        if wanted and not any(part in entry["id"] for part in wanted):
            continue
        if "skip" in entry:
            report.skip(entry["id"], entry["skip"])
        elif "model" in entry:  # else the converter refused it: tests/test_cases.py has that
            feeds, expected = (cases_bundle.arrays(entry[side]) for side in ("inputs", "outputs"))
            step = models_lib.Step(feeds, expected)
            if machine.flushes and has_denormals(step):
                report.skip(entry["id"], "denormals, which this machine's vectors flush")
                continue
            jobs.append(Job(entry["id"], folder / entry["model"], [step]))
            kept.append(entry)
    results = run_jobs(program, starter, jobs, limit=900)
    for job, entry, result in zip(jobs, kept, results, strict=True):
        report.test(job.name, _case_problem(entry, job.steps[0], result))


def _case_problem(entry: Mapping[str, Any], step: models_lib.Step, result: Result) -> str:
    if entry["error"] is not None:
        return "" if entry["error"] in result.error else f"must fail: {result.error}"
    if result.error:
        return result.error
    problems = {
        name: cases_lib.differences(result.steps[0][name], expected, entry["tolerance"])
        for name, expected in step.expected.items()
    }
    return "; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem)


def check_models(
    program: Path, machine: Machine, starter: Sequence[str], wanted: Sequence[str], report: Report
) -> None:
    """Runs the real models and the corpus; without names not those that take minutes."""
    folder = models_bundle.ensure()
    index = json.loads((folder / models_bundle.INDEX).read_text("utf-8"))
    if index["missing"]:
        report.skip("real models", index["missing"])
    checks = []
    for entry in index["checks"]:
        name = entry["name"]
        if wanted and name not in wanted:
            continue
        if entry["refusal"] and entry["not_yet"]:
            report.skip(name, f"cannot run yet: {entry['not_yet']}")
        elif entry["refusal"]:
            report.test(name, entry["refusal"])
        elif machine.is_emulated and not wanted and name in models_lib.HEAVY:
            report.skip(name, "takes minutes under an emulator")
        else:
            checks.append((models_bundle.make_check(name), folder / entry["model"]))
    jobs = [Job(check.name, path, check.steps) for check, path in checks]
    results = run_jobs(program, starter, jobs, limit=3600 if wanted else 900)
    for (check, _), result in zip(checks, results, strict=True):
        verdict = models_lib.Verdict(problem=result.error)
        for step, outputs in zip(check.steps, result.steps, strict=False):
            verdict = verdict.worse(models_lib.judge_step(check, step, outputs))
        if not result.error:
            print(f"{check.name}: largest error {verdict.error:.2e} ({verdict.output})")
        report.test(check.name, verdict.problem)


def main() -> int:
    """Runs what the command line says; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("machine", choices=sorted(MACHINES))
    parser.add_argument("what", choices=["cases", "models"])
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    machine, report = MACHINES[options.machine], Report()
    folder = ROOT / "build" / machine.target
    starter = find_starter(machine, folder)
    if not starter:
        report.skip(options.machine, f"no {machine.starter}")
        return report.end()
    try:
        program = build_runner(machine, folder)
    except sanitize.NoSanitizerError as error:
        report.skip(options.machine, str(error))
        return report.end()
    check = check_cases if options.what == "cases" else check_models
    start = time.monotonic()
    check(program, machine, starter, options.names, report)
    print(f"{options.machine}: {options.what} took {time.monotonic() - start:.0f} s")
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
