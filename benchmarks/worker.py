"""One engine in a process of its own that takes turns: commands come and answers go as JSON lines.

``python benchmarks/worker.py ENGINE THREADS [ISA]``: the first line is the model (`engines.Spec`),
then commands: `convert`, `start`, `load`, `reload N`, `turn SECONDS`, `check`. Needs numpy and the
engine alone, so that it runs in the environment in which the engine is installed.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from engines import ENGINES, Engine, Spec, largest_error

WARM_SECONDS = 0.04
MOST_CALLS = 200_000
LEAST_CALLS = 3
LONG_CALL = 0.1
RELOAD_SECONDS = 1.5

Answer = dict[str, Any]


def busy_seconds() -> float:
    """Processor seconds that all processes have used, and that the machine was not given."""
    ticks = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def turn(engine: Engine, seconds: float) -> Answer:
    """Calls for some time: seconds per call, and what others used of the machine meanwhile."""
    clock = time.perf_counter
    start = clock()
    engine.run()
    least = 1 if clock() - start > LONG_CALL else LEAST_CALLS
    while clock() - start < WARM_SECONDS:
        engine.run()
    calls: list[float] = []
    busy, own, start = busy_seconds(), time.process_time(), clock()
    before = start
    while True:
        engine.run()
        now = clock()
        calls.append(now - before)
        before = now
        if (now - start >= seconds and len(calls) >= least) or len(calls) >= MOST_CALLS:
            break
    wall, cpu = clock() - start, time.process_time() - own
    others = max(busy_seconds() - busy - cpu, 0) / wall
    return {
        "median": statistics.median(calls), "min": min(calls), "calls": len(calls),
        "cpu": cpu / len(calls), "others": others,
    }  # fmt: skip


def timed_load(engine: Engine) -> Answer:
    """The first load of this process, and the first run."""
    start = time.perf_counter()
    engine.load()
    loaded = time.perf_counter()
    engine.run()
    return {"load": loaded - start, "first": time.perf_counter() - loaded}


def reload(engine: Engine, count: int) -> Answer:
    """Loads again, with the files and the code at hand."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < count and time.perf_counter() - began < RELOAD_SECONDS:
        engine.unload()
        gc.collect()
        start = time.perf_counter()
        engine.load()
        found.append(time.perf_counter() - start)
    engine.run()
    return {"reloads": found}


def check(engine: Engine) -> Answer:
    """How far the results are from what the model is known to give."""
    if not engine.same_weights:
        return {"error": None}
    known = engine.spec.read_outputs()
    return {"error": largest_error(engine.outputs(), list(known.values()))}


def perform(engine: Engine, command: list[str]) -> Answer:
    """Does what a line asks for."""
    match command:
        case ["convert"]:
            engine.convert()
            return {"bytes": sum(f.stat().st_size for f in engine.files())}
        case ["start"]:
            return {"version": engine.start()}
        case ["load"]:
            return timed_load(engine)
        case ["reload", count]:
            return reload(engine, int(count))
        case ["turn", seconds]:
            return turn(engine, float(seconds))
        case ["check"]:
            return check(engine)
    raise ValueError(f"there is no command {command}")


def main() -> None:
    """Serves commands until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines print; what they print is no answer
    name, threads, isa = sys.argv[1], int(sys.argv[2]), next(iter(sys.argv[3:]), None)
    missing = ENGINES[name].missing()
    print(json.dumps({"missing": missing}), file=answers, flush=True)
    if missing:
        return
    engine = ENGINES[name](Spec(**json.loads(sys.stdin.readline())), threads, isa)
    for line in sys.stdin:
        try:
            answer = perform(engine, line.split())
        except Exception as error:  # whatever an engine raises is its result
            answer = {"failed": f"{type(error).__name__}: {error}".replace("\n", " ")[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
