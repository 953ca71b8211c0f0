"""Runs every kind of test and adds the counts up.

Order: lint, pytest, the web runtime's cases in Node, the real models there, both in Chromium, both
on emulated Arm, on x86 and under sanitizers. The skips and their reasons come last, and the last
line is `N passed, N failed, N skipped`. The exit status is 1 if anything failed. `--quick` leaves
out the tests marked slow, the models in Node, the browser and the other machines.

A runner that is not pytest ends its output with that same line, and prints each skip as
`skipped: NAME: REASON`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import check

ROOT = check.ROOT
NODE_MODULES = ROOT / "build" / "node" / "node_modules"
NOT_INSTALLED = ROOT / "build" / "not_installed.json"
JUNIT = ROOT / "build" / "pytest.xml"
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
SKIPPED = re.compile(r"skipped: (.+)")
OLDEST_NODE = 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OTHER_MACHINES = ("arm64", "armv7", "x86", "sanitized")
LIMIT_SECONDS = {True: 300, False: 1600}


@dataclass(frozen=True)
class Outcome:
    """Counts of one runner; `skips` has a line for each skip, `failures` for each failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    skips: Sequence[str] = ()
    failures: Sequence[str] = ()


@dataclass
class Finished:
    """How a child ended: its exit status (None if it ran out of time) and its lines."""

    status: int | None
    lines: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return "ran out of time" if self.status is None else f"ended with status {self.status}"


def run(command: Sequence[str], seconds: float, environment: dict[str, str]) -> Finished:
    """Runs a command, shows its output as it comes, and ends it with its children when late."""
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    is_late = threading.Event()

    def end_late() -> None:
        is_late.set()
        end_group(child)

    timer = threading.Timer(seconds, end_late)
    timer.start()
    lines = []
    try:
        for line in child.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
        status = child.wait()
    finally:
        timer.cancel()
        end_group(child)
    return Finished(None if is_late.is_set() else status, lines)


def end_group(child: subprocess.Popen[str]) -> None:
    """Ends a child and whatever it started, if anything of it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def skip_runner(name: str, reason: str) -> Outcome:
    """A runner that cannot run here counts as one skip."""
    return Outcome(skipped=1, skips=[f"{name}: {reason}"])


def run_lint() -> Outcome:
    """Each lint tool counts as one test."""
    failures = [f"lint: {item.name}" for item in check.checks() if not check.run(item, fix=False)]
    return Outcome(len(check.checks()) - len(failures), len(failures), failures=failures)


def run_pytest(quick: bool, seconds: float) -> Outcome:
    """Runs tests/ on all cores, one file on one core so that module fixtures are made once."""
    command = [sys.executable, "-m", "pytest", "-q", "--junitxml", str(JUNIT)]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(os.cpu_count() or 1), "--dist", "loadfile"]
    if quick:
        command += ["-m", "not slow"]
    JUNIT.parent.mkdir(parents=True, exist_ok=True)
    JUNIT.unlink(missing_ok=True)
    # Tests that look for Node on the PATH are to find the one of the set-up first.
    path = os.pathsep.join([str(NODE_MODULES / ".bin"), os.environ.get("PATH", os.defpath)])
    environment = {"ORTOLAN_NODE_MODULES": str(NODE_MODULES), "PATH": path}
    finished = run(command, seconds, environment)
    outcome = read_junit(JUNIT) if JUNIT.exists() else Outcome()
    if finished.status == 0 or (finished.status == 1 and outcome.failed):
        return outcome
    failures = [*outcome.failures, f"pytest: {finished.ending}"]
    return Outcome(outcome.passed, len(failures), outcome.skipped, outcome.skips, failures)


def read_junit(path: Path) -> Outcome:
    """Counts a pytest report; an error in set-up or collection is a failure."""
    passed, skips, failures = 0, list[str](), list[str]()
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        problem = next((n for n in case if n.tag in ("failure", "error")), None)
        skip = case.find("skipped")
        if problem is not None:
            failures.append(f"{name}: {(problem.get('message') or 'no message').splitlines()[0]}")
        elif skip is not None:
            skips.append(f"{case.get('classname', '')}: {skip.get('message') or 'no reason'}")
        else:
            passed += 1
    return Outcome(passed, len(failures), len(skips), skips, failures)


def read_summary(name: str, finished: Finished) -> Outcome:
    """Counts a runner that prints the summary line itself."""
    last = next((line for line in reversed(finished.lines) if line.strip()), "")
    match = SUMMARY.fullmatch(last.strip())
    if match is None:
        return Outcome(failed=1, failures=[f"{name}: {finished.ending} without a summary"])
    passed, failed, skipped = map(int, match.groups())
    skips = [f"{name}: {m[1]}" for line in finished.lines if (m := SKIPPED.match(line.strip()))]
    skips += [f"{name}: no reason given"] * (skipped - len(skips))
    failures = [f"{name}: {failed} cases"] if failed else []
    if finished.status != 0 and not failed:
        failed, failures = 1, [f"{name}: {finished.ending}"]
    return Outcome(passed, failed, skipped, skips, failures)


def find_node() -> str | None:
    """The Node of the set-up, else a recent one on the PATH."""
    candidates = [str(NODE_MODULES / ".bin" / "node"), shutil.which("node")]
    for candidate in filter(None, candidates):
        try:
            text = subprocess.check_output([candidate, "--version"], text=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if int(text.strip().lstrip("v").split(".")[0]) >= OLDEST_NODE:
            return candidate
    return None


def run_web(name: str, script: str, needs_browser: bool, seconds: float, *more: str) -> Outcome:
    """Runs one of the web runners with arguments, if the machine has what it needs."""
    node = find_node()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not (ROOT / script).exists():
        return skip_runner(name, f"there is no {script}")
    if node is None:
        return skip_runner(name, f"no Node {OLDEST_NODE} or later")
    if needs_browser and browser is None:
        return skip_runner(name, "no Chromium")
    environment = {
        "ORTOLAN_NODE_MODULES": str(NODE_MODULES),
        "ORTOLAN_PYTHON": sys.executable,
        "ORTOLAN_CHROMIUM": browser or "",
    }
    return read_summary(name, run([node, script, *more], seconds, environment))


def run_cross(machine: str, what: str, seconds: float) -> Outcome:
    """Runs the operator cases or the models on another machine; it says what it lacks."""
    command = [sys.executable, "tests/cross.py", machine, what]
    paths = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return read_summary(f"{machine} {what}", run(command, seconds, environment))


def run_all(quick: bool) -> Iterator[tuple[str, Outcome]]:
    """Runs the kinds of test in order, within one limit of time for all of them."""
    end = time.monotonic() + LIMIT_SECONDS[quick]

    def left() -> float:
        return max(1.0, end - time.monotonic())

    yield "lint", run_lint()
    yield "pytest", run_pytest(quick, left())
    only = ["--quick"] if quick else []
    yield "Node", run_web("Node", "tests/web/run_cases.mjs", False, left(), *only)
    if quick:
        yield "Node models", skip_runner("Node models", "left out by --quick")
        yield "Chromium", skip_runner("Chromium", "left out by --quick")
    else:
        yield "Node models", run_web("Node models", "tests/web/run_models.mjs", False, left())
        yield "Chromium", run_web("Chromium", "tests/web/chromium.mjs", True, left())
    for machine, what in itertools.product(OTHER_MACHINES, ("cases", "models")):
        name = f"{machine} {what}"
        if quick:
            yield name, skip_runner(name, "left out by --quick")
        else:
            yield name, run_cross(machine, what, left())


def print_list(title: str, lines: Sequence[str]) -> None:
    """Prints lines under a title, equal ones once with their number."""
    if lines:
        print(f"\n{title}:")
    for line, count in Counter(lines).items():
        print(f"  {line}" + (f" ({count} times)" if count > 1 else ""))


def main() -> int:
    """Runs the tests; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out what is slow")
    outcomes = []
    for name, outcome in run_all(parser.parse_args().quick):
        print(f"== {name}: {outcome.passed} passed, {outcome.failed} failed,", end=" ")
        print(f"{outcome.skipped} skipped\n", flush=True)
        outcomes.append(outcome)
    if NOT_INSTALLED.exists():
        notes = json.loads(NOT_INSTALLED.read_text())
        print_list("Not installed", [f"{name}: {reason}" for name, reason in notes.items()])
    print_list("Failed", [line for outcome in outcomes for line in outcome.failures])
    print_list("Skipped", [line for outcome in outcomes for line in outcome.skips])
    passed, failed, skipped = (
        sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("passed", "failed", "skipped")
    )
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
