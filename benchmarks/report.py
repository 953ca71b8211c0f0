"""Tables and a plot of what `compare.py` and `compare_web.py` measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

LOUD = 0.25
LEAST_QUIET = 3
WRONG = 1e-2
OURS = "ortolan"

Json = dict[str, Any]


@dataclass(frozen=True)
class Times:
    """Seconds of one engine on one model: minimum and median of quiet turns, and their number."""

    least: float
    median: float
    quiet: int
    all: int


def times(result: Json) -> Times | None:
    """Of an engine's turns; None when it has none."""
    turns = result.get("turns", [])
    if not turns:
        return None
    quiet = [t for t in turns if t["others"] < LOUD]
    used = quiet if len(quiet) >= min(LEAST_QUIET, len(turns)) else turns
    median = statistics.median(t["median"] for t in used)
    return Times(min(t["min"] for t in used), median, len(quiet), len(turns))


def is_right(result: Json) -> bool:
    """Whether the engine gave the model's results, as far as that can be told."""
    error = result.get("error")
    return error is None or error <= WRONG


def milliseconds(found: Times) -> str:
    """Minimum and median."""
    return f"{found.least * 1e3:.3f} / {found.median * 1e3:.3f}"


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; not a number when there are none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


@dataclass(frozen=True)
class Row:
    """A model's times by engine, and the best peer among them."""

    run: Json
    found: dict[str, Times]
    best: str

    @property
    def ratio(self) -> tuple[float, float]:
        """The best peer's minimum and median over ours: above 1 is faster than every peer."""
        ours, peer = self.found[OURS], self.found[self.best]
        return peer.least / ours.least, peer.median / ours.median


def row_of(run: Json) -> Row:
    """Picks the best peer (by the median) that gave right results and is held as we are."""
    found = {name: t for name, r in run["engines"].items() if (t := times(r)) and is_right(r)}
    free = {n for n, r in run["engines"].items() if run["avx2"] and not r.get("held", True)}
    peers = [name for name in found if not name.startswith(OURS) and name not in free]
    return Row(run, found, min(peers, key=lambda n: found[n].median, default=""))


def cell(run: Json, engine: str) -> str:
    """An engine's times, or why there are none."""
    result = run["engines"].get(engine, {})
    found = times(result)
    if found is None:
        return "fails" if result.get("failed") else "-"
    text = milliseconds(found)
    if found.quiet < LEAST_QUIET:
        text += " (loud)"
    if run["avx2"] and not result.get("held", True):
        text += " (not held to AVX2)"
    return text if is_right(result) else f"{text} (wrong by {result['error']:.0e})"


def latency_table(runs: Sequence[Json], engines: Sequence[str]) -> Iterator[str]:
    """Milliseconds by model and engine, the ratio to the best peer, and geometric means."""
    yield f"| model | {' | '.join(engines)} | best peer | times as fast, min / median |"
    yield "|---|" + "---|" * (len(engines) + 2)
    rows = [row_of(run) for run in runs]
    for row in rows:
        cells = " | ".join(cell(row.run, e) for e in engines)
        ending = "- | -"
        if row.best and OURS in row.found:
            ending = f"{row.best} | {row.ratio[0]:.2f} / {row.ratio[1]:.2f}"
        yield f"| {row.run['model']} | {cells} | {ending} |"
    yield ""
    yield from mean_lines(rows, engines)


def mean_lines(rows: Sequence[Row], engines: Sequence[str]) -> Iterator[str]:
    """Geometric means against the best peer per model and against each engine."""
    both = [row for row in rows if row.best and OURS in row.found]
    least = geometric_mean([row.ratio[0] for row in both])
    median = geometric_mean([row.ratio[1] for row in both])
    yield (
        f"Against the best peer of each model: {least:.2f} times as fast by minima, "
        f"{median:.2f} by medians (geometric mean of {len(both)})."
    )
    for engine in engines:
        shared = [r for r in rows if engine in r.found and OURS in r.found]
        if engine != OURS and shared:
            least = geometric_mean([r.found[engine].least / r.found[OURS].least for r in shared])
            median = geometric_mean([r.found[engine].median / r.found[OURS].median for r in shared])
            yield f"Against {engine}: {least:.2f} / {median:.2f} ({len(shared)} models)."
    behind = [f"{r.run['model']} {r.ratio[1]:.2f}" for r in both if r.ratio[1] < 0.97]
    yield f"Behind the best peer (under 0.97 by medians): {', '.join(behind) or 'none'}."


def floor_table(runs: Sequence[Json], machine: Json) -> Iterator[str]:
    """The floor of each model, what bounds it, and the share that is reached (by minima)."""
    yield "| model | multiply-adds, M | MB | floor, ms | bound by | reached, % | best peer, % |"
    yield "|---|---|---|---|---|---|---|"
    for run in runs:
        need, row = run["need"], row_of(run)
        arithmetic, memory = run["floor"]
        floor = max(arithmetic, memory)
        shares = [
            f"{100 * floor / row.found[e].least:.0f}" if e in row.found else "-"
            for e in (OURS, row.best)
        ]
        size = (need["constant_bytes"] + need["edge_bytes"]) / 1e6
        bound = "arithmetic" if arithmetic >= memory else "memory"
        yield (
            f"| {run['model']} | {need['madds'] / 1e6:.2f} | {size:.2f} | {floor * 1e3:.4f} "
            f"| {bound} | {shares[0]} | {shares[1]} |"
        )
    rates = ", ".join(f"{k} {v:.1f}" for k, v in machine["madds"].items())
    reads = ", ".join(f"{int(k) >> 10} KiB {v:.0f}" for k, v in machine["reads"].items())
    yield ""
    yield f"One core, measured in the same run: G multiply-adds/s: {rates}; GB/s read: {reads}."


def resource_table(runs: Sequence[Json], engines: Sequence[str]) -> Iterator[str]:
    """Load and first run, and the peaks of anonymous and file pages over the import's."""

    def cell(result: Json) -> str:
        again = statistics.median(result.get("reloads") or [result["load"]])
        return (
            f"{result['load'] * 1e3:.1f} / {again * 1e3:.1f}, {result['first'] * 1e3:.1f}; "
            f"{result['anonymous'] / 1e6:.1f} + {result['file'] / 1e6:.1f}"
        )

    yield "ms of a load in a fresh process / again, of the first run; peak MB anonymous + file."
    yield ""
    yield from engine_table(runs, engines, cell)


def engine_table(
    runs: Sequence[Json], engines: Sequence[str], cell: Callable[[Json], str]
) -> Iterator[str]:
    """A row for each model and a column for each engine; "-" where it did not run."""
    yield f"| model | {' | '.join(engines)} |"
    yield "|---|" + "---|" * len(engines)
    for run in runs:
        results = [run["engines"].get(engine, {}) for engine in engines]
        cells = [cell(result) if "first" in result else "-" for result in results]
        yield f"| {run['model']} | {' | '.join(cells)} |"


COLORS = ("#888", "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728")


def plot(runs: Sequence[Json], engines: Sequence[str], title: str) -> str:
    """SVG: a line per model, a dot per engine at its time over ours, on a logarithmic axis."""
    left, width, step, top = 220, 560, 18, 60
    low, high = math.log(0.5), math.log(16)

    def x(ratio: float) -> float:
        share = (math.log(ratio) - low) / (high - low)
        return left + width * min(max(share, 0), 1)

    peers = [e for e in engines if not e.startswith(OURS)]
    height = top + step * len(runs) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}">',
        "<style>text { font: 12px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="16">{title}</text>',
    ]
    for k, peer in enumerate(peers):
        legend = left + 110 * k
        parts.append(f'<circle cx="{legend}" cy="31" r="4" fill="{COLORS[k + 1]}"/>')
        parts.append(f'<text x="{legend + 8}" y="35">{peer}</text>')
    for ratio in (0.5, 1, 2, 4, 8, 16):
        color = "#000" if ratio == 1 else "#ddd"
        line = f'x1="{x(ratio):.1f}" x2="{x(ratio):.1f}" y1="{top - 6}" y2="{height - 8}"'
        parts.append(f'<line {line} stroke="{color}"/>')
        parts.append(f'<text x="{x(ratio) - 8:.1f}" y="{top - 10}">{ratio}x</text>')
    for k, run in enumerate(runs):
        row, y = row_of(run), top + step * k + 8
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{run["model"]}</text>')
        for n, peer in enumerate(peers):
            if peer in row.found and OURS in row.found:
                at = x(row.found[peer].median / row.found[OURS].median)
                parts.append(f'<circle cx="{at:.1f}" cy="{y}" r="4" fill="{COLORS[n + 1]}"/>')
    return "\n".join([*parts, "</svg>", ""])
