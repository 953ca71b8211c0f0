"""`ortolan build`: the runtime with only what given models need, for a platform."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ortolan.commands.common import escape
from ortolan.errors import InvalidArgument

if TYPE_CHECKING:
    from ortolan.build.product import Product

__all__ = ["command", "read_arrays"]


def command(
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="linux-x64, linux-arm64, android, ios, macos, windows-x64, windows-arm64, web or"
            " wasi; or one library of them, such as android-arm64-v8a",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder for the result")],
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL...]", help=".onnx or .ort files that must run"),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--inputs", help=".npz files with inputs to try the models with; else random"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="required operators, as onnxruntime has them")
    ] = None,
    types: Annotated[
        str | None, typer.Option(help="the only element types to keep: float,int8,...")
    ] = None,
    disable_ml_ops: Annotated[
        bool, typer.Option("--disable-ml-ops", help="leave out the operators of ai.onnx.ml")
    ] = False,
    messages: Annotated[
        str, typer.Option(help="errors as text, or as codes for `ortolan explain`: smaller")
    ] = "text",
    optimize: Annotated[str, typer.Option(help="kernels for size or for speed")] = "size",
    instruction_sets: Annotated[
        str, typer.Option(help="those to keep, from the lowest up: sse2,avx2")
    ] = "",
    report: Annotated[
        Path | None, typer.Option(help="write a page that shows where the bytes went")
    ] = None,
) -> None:
    """Build the runtime for a platform with only what models need; without any, with everything."""
    from ortolan.build.compile import BuildOptions
    from ortolan.build.host import cache_folder
    from ortolan.build.product import build_product
    from ortolan.build.report import write_report
    from ortolan.required_ops.reading import parse_types

    for value, known, name in (
        (messages, ("text", "codes"), "--messages"),
        (optimize, ("size", "speed"), "--optimize"),
    ):
        if value not in known:
            raise InvalidArgument(f"{name} {value}: use {known[0]} or {known[1]}")
    if report is not None and not os.access(report.parent, os.W_OK):
        raise InvalidArgument(f"{report}: its folder does not exist or cannot be written to")
    whole = bool(models or config)
    console = Console(soft_wrap=True, highlight=False)
    with console.status("building") as status:
        product = build_product(
            target,
            output,
            cache_folder(),
            models=models or (),
            inputs=read_arrays(inputs or ()),
            config=config,
            types=parse_types(types) if types else None,
            with_ml=not disable_ml_ops,
            instruction_sets=[s for s in instruction_sets.split(",") if s],
            options=BuildOptions(optimize, messages, whole_program=whole),
            progress=lambda text: status.update(f"building: {text}"),
        )
    _show(console, product)
    if report is not None:
        write_report(report, product)
        console.print(f"{escape(str(report))}: where the bytes went")


def read_arrays(paths: Sequence[Path]) -> dict[str, Any]:
    """The arrays of .npz files by name.

    Raises:
        InvalidArgument: a file is none.
    """
    import zipfile

    import numpy as np

    found: dict[str, Any] = {}
    for path in paths:
        try:
            with np.load(path) as content:
                found.update({key: content[key] for key in content.files})
        except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise InvalidArgument(f"{path}: no .npz file of arrays ({error})") from error
    return found


def _show(console: Console, product: Product) -> None:
    table = Table(title=escape(str(product.folder)), title_justify="left")
    for column in ("library", "bytes", "gzip", "executed", "models"):
        table.add_column(column, justify="right" if column in ("bytes", "gzip") else "left")
    for each in product.manifest["artefacts"]:
        sizes = each["bytes"]
        checked = escape(", ".join(map(_check_text, each["checks"])))
        table.add_row(
            each["target"], f"{sizes['raw']:,}", f"{sizes['gzip']:,}", each["executed"], checked
        )
    console.print(table)
    for name, parts in list(product.parts.items())[:1]:
        if parts:
            sums = ", ".join(f"{part} {sum(sizes.values()):,}" for part, sizes in parts.items())
            console.print(f"bytes of {name}: {sums}")


def _check_text(check: dict[str, Any]) -> str:
    outcome = "loaded, not run" if check["refused"] else format(check["error"], ".0e")
    return f"{check['model']} ({outcome})"
