"""The road from an ONNX model to an ORT format file: importer, passes, tables, bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import overload

from ortolan.errors import Fail, InvalidArgument, InvalidGraph, NoSuchFile
from ortolan.importer import Source, load
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.tables import OrtFormatError
from ortolan.ortformat.writer import write, write_file
from ortolan.passes.operators import check_operators
from ortolan.passes.pipeline import LEVELS, optimize

__all__ = ["LEVELS", "Source", "convert"]


@overload
def convert(
    source: Source,
    destination: None = None,
    *,
    level: str = "all",
    allow_unknown_operators: bool = False,
) -> bytes: ...


@overload
def convert(
    source: Source,
    destination: str | os.PathLike[str],
    *,
    level: str = "all",
    allow_unknown_operators: bool = False,
) -> Path: ...


def convert(
    source: Source,
    destination: str | os.PathLike[str] | None = None,
    *,
    level: str = "all",
    allow_unknown_operators: bool = False,
) -> bytes | Path:
    """Converts an ONNX model to an ORT format file.

    Args:
        source: path of an ONNX file, its content, or an `onnx.ModelProto`.
        destination: path of the file to write; an existing one is replaced at once, when all
            is done. None returns the bytes instead.
        level: how far the model is optimized: "disable", "basic", "extended", "layout", "all".
        allow_unknown_operators: write the file even if the runtime lacks some of its operators.

    Returns:
        The path that was written, or the content of the file.

    Raises:
        NoSuchFile: the model, its external data, or the folder of the destination is missing.
        NoModel: the source is no ONNX model.
        InvalidArgument: no such level, or the destination is the source or a folder.
        InvalidGraph: the model contradicts itself.
        NotImplemented: the runtime lacks operators (all are named), or the format cannot hold
            something.
        LimitExceeded: the model exceeds the 2 GB of the format.
        Fail: the file could not be written.
    """
    if level not in LEVELS:
        raise InvalidArgument(f'there is no level "{level}": use one of {", ".join(LEVELS)}')
    target = None if destination is None else _target(source, destination)
    model = load(source)
    optimize(model, level)
    if not allow_unknown_operators:
        check_operators(model)
    try:
        data = write(from_ir(model))
    except OrtFormatError as error:
        raise InvalidGraph(f"the model cannot be written: {error}") from error
    if target is None:
        return data
    try:
        write_file(target, data)
    except OSError as error:
        raise Fail(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _target(source: Source, destination: str | os.PathLike[str]) -> Path:
    """Checks where to write before any work is done."""
    target = Path(destination)
    if target.is_dir():
        raise InvalidArgument(f"{target}: this is a folder, give the path of a file")
    if not target.parent.is_dir():
        raise NoSuchFile(f"{target.parent}: there is no such folder to write to")
    origin = Path(source) if isinstance(source, str | os.PathLike) else None
    if origin is not None and origin.exists() and target.exists() and target.samefile(origin):
        raise InvalidArgument(f"{target}: this is the model itself, write to another file")
    return target
