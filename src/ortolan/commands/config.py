"""`ortolan config`: the required operators of models, for a reduced build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help=".onnx or .ort files")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="the file to write; default: print")
    ] = None,
    add_to: Annotated[
        Path | None, typer.Option("--config", help="a config whose operators are kept too")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="record variants of kernels for it; default: all")
    ] = None,
) -> None:
    """Tell which operators, types and variants of kernels models need, in onnxruntime's format.

    An ONNX model is converted first, so that what our own passes make of it is named.
    """
    from ortolan.build.product import load_model, plain_name, targets_of, wanted_config

    contents = [(plain_name(path), load_model(path)) for path in models]
    config = wanted_config(contents, add_to, targets=targets_of(target) if target else ())
    comments = [f"made by ortolan config from {', '.join(sorted(n for n, _ in contents))}"]
    if output is None:
        print(config.text(comments), end="")
        return
    config.write(output, comments)
    print(f"{output}: {len(config.operators)} operators")
