"""`ortolan bench`: how long a model takes, which operators take it, and onnxruntime beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ortolan.commands.common import escape, make_console
from ortolan.errors import InvalidArgument

if TYPE_CHECKING:
    from ortolan.benchmarking import OperatorTime, Timing

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(help="an .ort or .onnx file")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]FILE...", help="as for ortolan run; others are random"),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", "-s", metavar="NAME=SIZES", help="as for ortolan run"),
    ] = None,
    threads: Annotated[int, typer.Option(help="0: one per processor")] = 1,
    warm_up: Annotated[int, typer.Option(help="calls that are not counted")] = 5,
    runs: Annotated[
        int | None, typer.Option(help="calls that are counted; default: as the time allows")
    ] = None,
    seconds: Annotated[float, typer.Option(help="for how long")] = 2.0,
    compare: Annotated[
        bool, typer.Option("--compare", help="time onnxruntime too, in turn with Ortolan")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="write a Chrome trace of three calls to this file")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Time a model: least, median and 90th percentile, and each operator's share."""
    from ortolan import benchmarking
    from ortolan.commands.run import open_session
    from ortolan.feeds import make_feeds, parse_sizes

    session = open_session(model, threads)
    feeds, _ = make_feeds(session.get_inputs(), inputs or [], parse_sizes(size or []), 0)
    timings: dict[str, Timing] = {}
    if compare:
        other = _onnxruntime(model, threads)
        ours, theirs = benchmarking.measure_both(session, other, feeds, warm_up, runs, seconds)
        timings = {"ortolan": ours, "onnxruntime": theirs}
    else:
        timings["ortolan"] = benchmarking.measure(session, feeds, warm_up, runs, seconds)
    operators = benchmarking.operator_times(session, feeds, min(runs or 20, 20))
    if trace is not None:
        benchmarking.trace(model, feeds, session.get_session_options(), str(trace))
    if as_json:
        print(
            json.dumps(_as_json(model, threads, session.arena_bytes, timings, operators), indent=2)
        )
        return
    console = make_console()
    for table in (_timing_table(timings), _operator_table(operators)):
        console.print(table)
    console.print(f"{threads or 'all'} thread(s), arena of a call {session.arena_bytes:,} bytes")
    if trace is not None:
        console.print(f"trace written to {escape(str(trace))}: open it with ui.perfetto.dev")


def _onnxruntime(model: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InvalidArgument("--compare needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidArgument(f"{model}: onnxruntime cannot open it: {error}") from error


def _as_json(
    model: Path, threads: int, arena: int, timings: dict[str, Timing], operators: list[OperatorTime]
) -> dict[str, Any]:
    return {
        "model": str(model),
        "threads": threads,
        "arena_bytes": arena,
        "milliseconds": {
            name: {
                "runs": len(t.times), "minimum": t.minimum, "median": t.median, "p90": t.p90,
            }
            for name, t in timings.items()
        },
        "operators": [dataclasses.asdict(row) for row in operators],
    }  # fmt: skip


def _timing_table(timings: dict[str, Timing]) -> Table:
    table = Table(title="Milliseconds of a call", title_justify="left")
    for column in ("", "least", "median", "90th percentile", "calls"):
        table.add_column(column, justify="left" if not column else "right")
    for name, timing in timings.items():
        figures = (f"{t:.3f}" for t in (timing.minimum, timing.median, timing.p90))
        table.add_row(name, *figures, str(len(timing.times)))
    if len(timings) == 2:
        ours, theirs = timings.values()
        pairs = (
            (ours.minimum, theirs.minimum), (ours.median, theirs.median), (ours.p90, theirs.p90),
        )  # fmt: skip
        table.add_row("ratio", *(f"{a / b:.2f}" for a, b in pairs), "")
    return table


def _operator_table(operators: list[OperatorTime]) -> Table:
    table = Table(title="Operators", title_justify="left")
    table.add_column("operator", overflow="fold")
    for column in ("nodes", "milliseconds", "share"):
        table.add_column(column, justify="right")
    for row in operators:
        table.add_row(
            escape(row.operator), f"{row.nodes:.0f}", f"{row.milliseconds:.4f}", f"{row.share:.1%}"
        )
    return table
