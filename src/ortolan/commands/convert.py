"""`ortolan convert`: ONNX models to ORT format files, and back."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import track

from ortolan.commands.common import complain, escape, make_console
from ortolan.errors import InvalidArgument, NoSuchFile, OrtolanError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    weights: Annotated[
        str, typer.Option(help="float32, or float16 or int8 for a smaller file; tells the loss")
    ] = "float32",
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            "-s",
            metavar="NAME=SIZES",
            help="fix a symbolic dimension or the shape of an input: batch=1, image=1,3,224,224",
        ),
    ] = None,
    config: Annotated[
        bool, typer.Option("--config", help="write X.required_operators.config beside each file")
    ] = False,
    allow_unknown_operators: Annotated[
        bool,
        typer.Option("--allow-unknown-operators", help="write files that cannot be run"),
    ] = False,
) -> None:
    """Convert ONNX models to ORT format files; with -o X.onnx, write an ONNX model."""
    from ortolan.feeds import parse_sizes

    styles = list(dict.fromkeys(optimization_style or ["Fixed"]))
    sizes = parse_sizes(size or [])
    jobs = [
        _Job(level, profile, style, external_data, weights, sizes, config, allow_unknown_operators)
        for style in styles
    ]
    if source.is_dir():
        _convert_folder(source, output, jobs)
        return
    if len(jobs) > 1 and output is not None and not output.is_dir():
        raise InvalidArgument(f"{output}: two styles are two files, name a folder for them")
    console = make_console()
    for job in jobs:
        for line in _convert(source, _target(source, output, job), job):
            console.print(line)


def _convert_folder(source: Path, output: Path | None, jobs: list[_Job]) -> None:
    console = make_console()
    models = sorted(path for path in source.rglob("*.onnx") if path.is_file())
    if not models:
        raise NoSuchFile(f"{source}: there is no .onnx file in this folder or below it")
    failed = 0
    for model in track(models, "Converting", console=console, transient=True):
        folder = ((output or source) / model.relative_to(source)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for job in jobs:
                for line in _convert(model, folder / job.name_for(model), job):
                    console.print(line)
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
    weights: str
    sizes: Mapping[str, tuple[int, ...]]
    config: bool
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


def _convert(source: Path, target: Path, job: _Job) -> list[str]:
    """Converts one model; returns lines that tell sizes, time and what was lost."""
    from ortolan.conversion import convert as convert_model
    from ortolan.runtime.preparing import fixed_model

    start = time.perf_counter()
    given = fixed_model(source, job.sizes) if job.sizes else source
    convert_model(
        given, target, level=job.level, profile=job.profile, optimization_style=job.style,
        external_data=job.external_data, weights=job.weights,
        allow_unknown_operators=job.allow_unknown_operators,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    sizes = f"{source.stat().st_size:,} -> {target.stat().st_size:,} bytes"
    lines = [f"{escape(str(source))} -> {escape(str(target))}  {sizes}  {seconds:.2f} s"]
    if job.config and target.suffix == ".ort":
        from ortolan.config_file import write_config

        write_config(target.with_suffix(".required_operators.config"), [target])
    if job.weights != "float32" and target.suffix == ".ort":
        lines += _loss(given, target, job)
    return lines


def _loss(given: Any, target: Path, job: _Job) -> list[str]:
    from ortolan.conversion import convert as convert_model
    from ortolan.weights_effect import weights_effect

    whole = convert_model(
        given, level=job.level, profile=job.profile, optimization_style=job.style,
        allow_unknown_operators=job.allow_unknown_operators,
    )  # fmt: skip
    try:
        changes = weights_effect(whole, target, job.sizes)
    except OrtolanError as error:
        return [f"  the change of accuracy is not known: {escape(str(error))}"]
    return [
        f"  {escape(c.name)}: moves by up to {c.difference:.3g} of {c.largest:.3g}, "
        f"{c.same_top:.0%} of the rows keep their largest element (random inputs)"
        for c in changes
    ]
