"""The command line: `ortolan convert`, `ortolan inspect`, `ortolan demo`.

Each command imports what it needs when it runs: showing the help must not wait for ONNX. What a
user did wrong is told in one line; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from ortolan.errors import InvalidArgument, NoSuchFile, OrtolanError

if TYPE_CHECKING:
    from ortolan.ortformat.inspect import OrtSummary, ValueSummary

__all__ = ["app", "main"]

app = typer.Typer(
    name="ortolan",
    help="Converts ONNX models to ORT format files and runs them in a small runtime.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# Names of the weights that `inspect` shows; the rest is in the JSON.
_LARGEST = 10


def main() -> None:
    """Entry point of the command `ortolan`; a refusal ends it with status 1 and one line."""
    try:
        app()
    except OrtolanError as error:
        _complain(str(error))
        sys.exit(1)


def _complain(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(text)}")


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="MODEL_OR_FOLDER", help="an ONNX file, or a folder of them")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="where to: a file, or a folder; default: beside it"),
    ] = None,
    level: Annotated[
        str, typer.Option(help="optimization: disable, basic, extended, layout or all")
    ] = "all",
    allow_unknown_operators: Annotated[
        bool,
        typer.Option("--allow-unknown-operators", help="write files that Ortolan cannot run"),
    ] = False,
) -> None:
    """Convert ONNX models to ORT format files."""
    console = Console(soft_wrap=True)
    if not source.is_dir():
        target = _target(source, output)
        console.print(_convert(source, target, level, allow_unknown_operators))
        return
    models = sorted(path for path in source.rglob("*.onnx") if path.is_file())
    if not models:
        raise NoSuchFile(f"{source}: there is no .onnx file in this folder or below it")
    failed = 0
    for model in track(models, "Converting", console=console, transient=True):
        target = (output or source) / model.relative_to(source).with_suffix(".ort")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            console.print(_convert(model, target, level, allow_unknown_operators))
        except OrtolanError as error:
            failed += 1
            _complain(f"{model}: {error}")
        except OSError as error:
            raise InvalidArgument(f"{target.parent}: no folder to write to ({error})") from error
    console.print(f"{len(models) - failed} converted, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _target(source: Path, output: Path | None) -> Path:
    name = source.with_suffix(".ort").name
    if output is None:
        return source.with_name(name)
    return output / name if output.is_dir() else output


def _convert(source: Path, target: Path, level: str, allow_unknown_operators: bool) -> str:
    """Converts one model; returns a line that tells sizes and time."""
    from ortolan.conversion import convert as convert_model

    start = time.perf_counter()
    convert_model(source, target, level=level, allow_unknown_operators=allow_unknown_operators)
    seconds = time.perf_counter() - start
    sizes = f"{source.stat().st_size:,} -> {target.stat().st_size:,} bytes"
    return f"{escape(str(source))} -> {escape(str(target))}  {sizes}  {seconds:.2f} s"


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="an .ort file, or an ONNX model")],
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Tell what is in a model: operators, inputs, outputs, weights, metadata."""
    from ortolan.ortformat import describe, read
    from ortolan.ortformat.tables import OrtFormatError

    try:
        data = file.read_bytes()
    except OSError as error:
        raise NoSuchFile(f"{file}: cannot be read ({error.strerror or error})") from error
    if data[4:8] != b"ORTM":
        from ortolan.conversion import convert as convert_model

        data = convert_model(file, level="disable", allow_unknown_operators=True)
    try:
        summary = describe(read(data))
    except OrtFormatError as error:
        raise InvalidArgument(f"{file}: damaged or no ORT format file: {error}") from error
    if as_json:
        print(json.dumps(dataclasses.asdict(summary), indent=2))
    else:
        _show(Console(), file, summary)


def _show(console: Console, file: Path, summary: OrtSummary) -> None:
    producer = f"{summary.producer_name} {summary.producer_version}".strip() or "unknown"
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in summary.opsets)
    facts = [
        ("file", f"{file}, {file.stat().st_size:,} bytes"),
        ("format", f"ORT format {summary.format_version}, IR version {summary.ir_version}"),
        ("producer", producer),
        ("opsets", opsets),
        ("nodes", f"{summary.node_count} in {summary.subgraph_count + 1} graph(s)"),
        ("element types", ", ".join(summary.element_types)),
        ("weights", f"{len(summary.initializers)}, {summary.initializer_bytes:,} bytes"),
        *summary.metadata,
    ]
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(f"[bold]{escape(name)}[/]", escape(text))
    console.print(table)
    for title, values in (("Inputs", summary.inputs), ("Outputs", summary.outputs)):
        console.print(_value_table(title, values))
    operators = Table(title="Operators", title_justify="left")
    operators.add_column("operator", overflow="fold")
    operators.add_column("since", justify="right")
    operators.add_column("nodes", justify="right")
    for item in summary.operators:
        name = f"{item.domain}:{item.name}" if item.domain else item.name
        operators.add_row(escape(name), str(item.since_version), str(item.count))
    console.print(operators)
    weights = Table(title=f"Largest weights (up to {_LARGEST})", title_justify="left")
    for column in ("name", "type", "shape"):
        weights.add_column(column, overflow="fold")
    weights.add_column("bytes", justify="right")
    for weight in summary.initializers[:_LARGEST]:
        shape = str(list(weight.dims))
        weights.add_row(
            escape(weight.name), weight.element_type, escape(shape), f"{weight.bytes:,}"
        )
    console.print(weights)


def _value_table(title: str, values: tuple[ValueSummary, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("name", "type", "shape"):
        table.add_column(column, overflow="fold")
    for value in values:
        sizes = ", ".join("?" if size is None else str(size) for size in value.shape or ())
        shape = "unknown" if value.shape is None else f"[{sizes}]"
        table.add_row(escape(value.name), escape(value.type), escape(shape))
    return table


@app.command()
def demo() -> None:
    """Convert and run the example model, and show what it says."""
    from ortolan.demo import main as run_demo

    raise typer.Exit(run_demo())


for _name in ("config", "build", "check", "ops", "package", "explain"):
    app.command(_name)(importlib.import_module(f"ortolan.commands.{_name}").command)


if __name__ == "__main__":
    main()
