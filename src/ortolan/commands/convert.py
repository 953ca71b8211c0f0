"""`ortolan convert`: ONNX models to ORT format files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import track

from ortolan.commands.common import complain, make_console
from ortolan.errors import InvalidArgument, NoSuchFile, OrtolanError

__all__ = ["command"]


def command(
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
    console = make_console()
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
            complain(f"{model}: {error}")
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
