"""`ortolan config`: the required operators of models, for a reduced build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ortolan.errors import InvalidArgument

__all__ = ["command"]


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help=".onnx or .ort files")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="the file to write; default: print")
    ] = None,
    add_to: Annotated[
        Path | None, typer.Option("--config", help="a config whose operators are kept too")
    ] = None,
) -> None:
    """Tell which operators and types models need, in onnxruntime's format.

    An ONNX model is converted first, so that what our own passes make of it is named.
    """
    from ortolan.build.product import load_model, wanted_config

    contents = [(path.name, load_model(path)) for path in models]
    config = wanted_config(contents, add_to)
    text = config.text([f"made by ortolan config from {', '.join(sorted(n for n, _ in contents))}"])
    if output is None:
        print(text, end="")
        return
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidArgument(f"{output}: cannot be written ({error.strerror or error})") from error
    print(f"{output}: {len(config.operators)} operators")
