"""How long a model takes: calls of a session, of its operators, and of onnxruntime beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ortolan.errors import InvalidArgument
from ortolan.runtime.profiling import NodeTime, Profiler
from ortolan.session import InferenceSession

__all__ = ["OperatorTime", "Timing", "measure", "measure_both", "operator_times", "trace"]

Feeds = Mapping[str, Any]
_LEAST_RUNS = 5


@dataclass(frozen=True)
class Timing:
    """Times of one call in milliseconds.

    Attributes:
        times: each, in the order in which they were made.
    """

    times: tuple[float, ...] = field(repr=False)

    @property
    def minimum(self) -> float:
        """The least."""
        return min(self.times)

    @property
    def median(self) -> float:
        """As many are above as below."""
        return statistics.median(self.times)

    @property
    def p90(self) -> float:
        """Nine of ten are below."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))]


@dataclass(frozen=True)
class OperatorTime:
    """What the nodes of one operator take in a call.

    Attributes:
        operator: with its domain if that is not the standard's.
        nodes: how often it runs in a call.
        milliseconds: all of them, the median over calls.
        share: of the nodes' time, 0 to 1.
    """

    operator: str
    nodes: float
    milliseconds: float
    share: float


def _rounds(
    calls: list[Callable[[], object]], warm_up: int, runs: int | None, seconds: float
) -> list[Timing]:
    """Times calls in turn, so that what else the machine does hits all alike."""
    for _ in range(warm_up):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < (runs or _LEAST_RUNS) or (runs is None and time.perf_counter() < end):
        for call, own in zip(calls, times, strict=True):
            begin = time.perf_counter_ns()
            call()
            own.append((time.perf_counter_ns() - begin) / 1e6)
    return [Timing(tuple(own)) for own in times]


def measure(
    session: InferenceSession, feeds: Feeds, warm_up: int = 5, runs: int | None = None,
    seconds: float = 2.0,
) -> Timing:  # fmt: skip
    """Times calls of a session.

    Args:
        session: any.
        feeds: a value per input.
        warm_up: calls that are not counted.
        runs: how many are counted; None: as many as `seconds` allow, 5 at least.
        seconds: for how long.
    """
    return _rounds([lambda: session.run(None, feeds)], warm_up, runs, seconds)[0]


def measure_both(
    session: InferenceSession, other: Any, feeds: Feeds, warm_up: int = 5,
    runs: int | None = None, seconds: float = 2.0,
) -> tuple[Timing, Timing]:  # fmt: skip
    """Times two sessions in turn; the arguments are those of `measure`."""
    calls: list[Callable[[], object]] = [
        lambda: session.run(None, feeds),
        lambda: other.run(None, feeds),
    ]
    ours, theirs = _rounds(calls, warm_up, runs, seconds)
    return ours, theirs


def _steps(session: InferenceSession, feeds: Feeds, runs: int) -> list[list[NodeTime]]:
    profiler = Profiler(session._model, "")
    found = []
    for _ in range(runs):
        session.run(None, feeds)
        call = session._idle[-1]
        recorder = profiler.record(call)
        session.run(None, feeds)
        found.append(recorder.steps())
    return found


def operator_times(session: InferenceSession, feeds: Feeds, runs: int = 20) -> list[OperatorTime]:
    """What each operator takes, most first.

    Args:
        session: used by nobody else meanwhile.
        feeds: a value per input.
        runs: calls that are recorded.
    """
    totals: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for steps in _steps(session, feeds, runs):
        sums: dict[str, float] = {}
        for step in steps:
            sums[step.operator] = sums.get(step.operator, 0.0) + step.nanoseconds / 1e6
            counts[step.operator] = counts.get(step.operator, 0) + 1
        for operator, value in sums.items():
            totals.setdefault(operator, []).append(value)
    medians = {operator: statistics.median(values) for operator, values in totals.items()}
    whole = sum(medians.values()) or 1.0
    rows = [
        OperatorTime(operator, counts[operator] / runs, value, value / whole)
        for operator, value in medians.items()
    ]
    return sorted(rows, key=lambda row: -row.milliseconds)


def trace(model: Any, feeds: Feeds, options: Any, path: str, runs: int = 3) -> str:
    """Writes a Chrome trace of some calls.

    Args:
        model: for a session of its own.
        feeds: a value per input.
        options: `ortolan.SessionOptions` of that session.
        path: of the file.
        runs: calls that are recorded.

    Raises:
        ortolan.errors.InvalidArgument: the file cannot be written.
    """
    options.enable_profiling = True
    session = InferenceSession(model, options)
    for _ in range(runs):
        session.run(None, feeds)
    profiler: Profiler = session._profiler
    try:
        return profiler.write(path)
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be written ({error.strerror or error})") from error
