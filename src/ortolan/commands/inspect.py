"""`ortolan inspect`: what is in a model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ortolan.commands.common import escape
from ortolan.errors import InvalidArgument, NoSuchFile
from ortolan.pipes import read_pipe

if TYPE_CHECKING:
    from ortolan.ortformat.inspect import OperatorSummary, OrtSummary, ValueSummary

__all__ = ["command"]

# Names of the weights that `inspect` shows; the rest is in the JSON.
_LARGEST = 10


def command(
    file: Annotated[Path, typer.Argument(help="an .ort file, or an ONNX model")],
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    as_html: Annotated[
        Path | None,
        typer.Option("--html", help="write a page with a map of the weights to this file"),
    ] = None,
) -> None:
    """Tell what is in a model: operators, inputs, outputs, weights, metadata."""
    from ortolan.ortformat import describe, read
    from ortolan.ortformat.tables import OrtFormatError

    piped = read_pipe(file)
    try:
        data = piped or file.read_bytes()
    except OSError as error:
        raise NoSuchFile(f"{file}: cannot be read ({error.strerror or error})") from error
    if data[4:8] != b"ORTM":
        from ortolan.conversion import convert as convert_model

        data = convert_model(piped or file, level="disable", allow_unknown_operators=True)
    try:
        summary = describe(read(data))
    except OrtFormatError as error:
        raise InvalidArgument(f"{file}: damaged or no ORT format file: {error}") from error
    if as_html is not None:
        _write_page(as_html, file, summary)
    if as_json:
        runs_on = {_name(o): runners(o) for o in summary.operators}
        print(json.dumps({**dataclasses.asdict(summary), "runs_on": runs_on}, indent=2))
    else:
        _show(Console(), file, summary)


def _write_page(target: Path, file: Path, summary: OrtSummary) -> None:
    from ortolan.report import page

    try:
        target.write_text(
            page(file.name, _facts(file, summary), summary), encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise InvalidArgument(f"{target}: cannot be written ({error.strerror or error})") from error


def _facts(file: Path, summary: OrtSummary) -> list[tuple[str, str]]:
    producer = f"{summary.producer_name} {summary.producer_version}".strip() or "unknown"
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in summary.opsets)
    return [
        ("file", f"{file}, {file.stat().st_size:,} bytes"),
        ("format", f"ORT format {summary.format_version}, IR version {summary.ir_version}"),
        ("producer", producer),
        ("opsets", opsets),
        ("nodes", f"{summary.node_count} in {summary.subgraph_count + 1} graph(s)"),
        ("element types", ", ".join(summary.element_types)),
        ("weights", f"{len(summary.initializers)}, {summary.initializer_bytes:,} bytes"),
        *summary.metadata,
    ]


def _show(console: Console, file: Path, summary: OrtSummary) -> None:
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for name, text in _facts(file, summary):
        table.add_row(f"[bold]{escape(name)}[/]", escape(text))
    console.print(table)
    for title, values in (("Inputs", summary.inputs), ("Outputs", summary.outputs)):
        console.print(_value_table(title, values))
    operators = Table(title="Operators", title_justify="left")
    operators.add_column("operator", overflow="fold")
    operators.add_column("since", justify="right")
    operators.add_column("nodes", justify="right")
    operators.add_column("runs on")
    for item in summary.operators:
        where = {2: "", 1: f"{''.join(runners(item))} only"}.get(len(runners(item)), "neither")
        operators.add_row(escape(_name(item)), str(item.since_version), str(item.count), where)
    console.print(operators)
    weights = Table(title=f"Largest weights (up to {_LARGEST})", title_justify="left")
    for column in ("name", "type", "shape"):
        weights.add_column(column, overflow="fold")
    weights.add_column("bytes", justify="right")
    for weight in summary.initializers[:_LARGEST]:
        shape = str(list(weight.dims))
        kind = f"{weight.element_type}, packed" if weight.packed else weight.element_type
        weights.add_row(escape(weight.name), kind, escape(shape), f"{weight.bytes:,}")
    console.print(weights)


def _name(operator: OperatorSummary) -> str:
    return f"{operator.domain}:{operator.name}" if operator.domain else operator.name


def runners(operator: OperatorSummary) -> list[str]:
    """Who has kernels for an operator: "ortolan", "onnxruntime", both or nobody."""
    from ortolan import catalog
    from ortolan.passes.onnxruntime_kernels import knows

    key = (operator.domain, operator.name, operator.since_version)
    return [
        *(["ortolan"] if catalog.find(*key) is not None else []),
        *(["onnxruntime"] if knows(*key) else []),
    ]


def _value_table(title: str, values: tuple[ValueSummary, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("name", "type", "shape"):
        table.add_column(column, overflow="fold")
    for value in values:
        sizes = ", ".join("?" if size is None else str(size) for size in value.shape or ())
        shape = "unknown" if value.shape is None else f"[{sizes}]"
        table.add_row(escape(value.name), escape(value.type), escape(shape))
    return table
