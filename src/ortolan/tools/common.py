"""What the tools share: files in and out, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx

from ortolan.errors import Fail, OrtolanError
from ortolan.importing.reading import embed_external, parse_model
from ortolan.ortformat.writer import write_file

__all__ = ["finish", "load_whole", "save"]


def load_whole(path: Path) -> onnx.ModelProto:
    """A model with its external data.

    Raises:
        ortolan.errors.OrtolanError: it cannot be read or is none.
    """
    model, folder = parse_model(path)
    embed_external(model, folder)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model.

    Raises:
        ortolan.errors.Fail: the file cannot be written.
    """
    try:
        write_file(path, model.SerializeToString())
    except OSError as error:
        raise Fail(f"{path}: cannot be written ({error.strerror or error})") from error


def finish(work: Callable[[], None]) -> None:
    """Runs a tool; what a user did wrong ends it with status 1 and one line."""
    try:
        work()
    except OrtolanError as error:
        sys.exit(f"error: {error}")
