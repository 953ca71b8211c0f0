"""`ortolan convert`: ONNX models to ORT format files, and back."""

from __future__ import annotations

import dataclasses
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
        Path,
        typer.Argument(
            metavar="MODEL_OR_FOLDER", help="an ONNX or .ort file, or a folder of ONNX files"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="where to: a file, or a folder; default: beside it"),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help="disable, basic, extended, layout or all, the default", metavar="LEVEL"),
    ] = None,
    profile: Annotated[
        str,
        typer.Option("--for", help="whose kernels the file is for: ortolan or onnxruntime"),
    ] = "ortolan",
    optimization_style: Annotated[
        list[str] | None,
        typer.Option(help="Fixed, or Runtime (X.with_runtime_opt.ort); may be given twice"),
    ] = None,
    external_data: Annotated[
        bool, typer.Option("--external-data", help="large weights in a file beside, X.ort.data")
    ] = False,
    allow_unknown_operators: Annotated[
        bool,
        typer.Option("--allow-unknown-operators", help="write files that cannot be run"),
    ] = False,
) -> None:
    """Convert ONNX models to ORT format files; with -o X.onnx, write an ONNX model."""
    console = make_console()
    styles = list(dict.fromkeys(optimization_style or ["Fixed"]))
    jobs = [_Job(level, profile, style, external_data, allow_unknown_operators) for style in styles]
    if not source.is_dir():
        if len(jobs) > 1 and output is not None and not output.is_dir():
            raise InvalidArgument(f"{output}: two styles are two files, name a folder for them")
        for job in jobs:
            console.print(_convert(source, _target(source, output, job), job))
        return
    models = sorted(path for path in source.rglob("*.onnx") if path.is_file())
    if not models:
        raise NoSuchFile(f"{source}: there is no .onnx file in this folder or below it")
    failed = 0
    for model in track(models, "Converting", console=console, transient=True):
        folder = ((output or source) / model.relative_to(source)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for job in jobs:
                console.print(_convert(model, folder / job.name_for(model), job))
        except OrtolanError as error:
            failed += 1
            complain(f"{model}: {error}")
        except OSError as error:
            raise InvalidArgument(f"{folder}: no folder to write to ({error})") from error
    console.print(f"{len(models) - failed} converted, {failed} failed")
    if failed:
        raise typer.Exit(1)


@dataclasses.dataclass(frozen=True)
class _Job:
    """How each model is converted."""

    level: str | None
    profile: str
    style: str
    external_data: bool
    allow_unknown_operators: bool

    def name_for(self, model: Path) -> str:
        """The name of the file that a model becomes, as onnxruntime's converter has it."""
        suffix = ".with_runtime_opt.ort" if self.style == "Runtime" else ".ort"
        return model.with_suffix(suffix).name


def _target(source: Path, output: Path | None, job: _Job) -> Path:
    name = job.name_for(source)
    if output is None:
        return source.with_name(name)
    return output / name if output.is_dir() else output


def _convert(source: Path, target: Path, job: _Job) -> str:
    """Converts one model; returns a line that tells sizes and time."""
    from ortolan.conversion import convert as convert_model

    start = time.perf_counter()
    convert_model(
        source, target, level=job.level, profile=job.profile, optimization_style=job.style,
        external_data=job.external_data, allow_unknown_operators=job.allow_unknown_operators,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    sizes = f"{source.stat().st_size:,} -> {target.stat().st_size:,} bytes"
    return f"{escape(str(source))} -> {escape(str(target))}  {sizes}  {seconds:.2f} s"
