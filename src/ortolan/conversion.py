"""The road from an ONNX model to an ORT format file: importer, passes, tables, bytes; and back."""

from __future__ import annotations

import ortolan.lean  # noqa: F401 # isort: skip - before onnx_ir

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import onnx
import onnx_ir as ir

from ortolan.errors import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    LimitExceeded,
    NoModel,
    NoSuchFile,
)
from ortolan.importer import Source, load
from ortolan.ortformat.external import (
    EXTERNAL_SUFFIX,
    attach,
    detach,
    is_external,
    weight_bytes,
)
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.reader import read
from ortolan.ortformat.schema import FILE_IDENTIFIER, MAX_FILE_SIZE
from ortolan.ortformat.tables import InferenceSession, OrtFormatError
from ortolan.ortformat.to_onnx import to_onnx
from ortolan.ortformat.writer import write, write_file
from ortolan.passes.for_onnxruntime import IMPORTS, legalize
from ortolan.passes.onnxruntime_kernels import ONNXRUNTIME
from ortolan.passes.operators import check_operators
from ortolan.passes.packed_weights import pack_weights
from ortolan.passes.pipeline import LEVELS, optimize
from ortolan.passes.runtime_style import record_fusions
from ortolan.passes.verify import verify
from ortolan.passes.weight_storage import STORAGES, store_weights
from ortolan.pipes import read_pipe

__all__ = ["LEVELS", "PROFILES", "STYLES", "Source", "convert"]

STYLES = ("Fixed", "Runtime")
"""When fusions are done: at conversion, or when onnxruntime loads the file."""

PROFILES = ("ortolan", "onnxruntime")
"""Whose kernels a file can be made for."""


@overload
def convert(
    source: Source,
    destination: None = None,
    *,
    level: str | None = None,
    profile: str = "ortolan",
    optimization_style: str = "Fixed",
    external_data: bool = False,
    weights: str = "float32",
    allow_unknown_operators: bool = False,
) -> bytes: ...


@overload
def convert(
    source: Source,
    destination: str | os.PathLike[str],
    *,
    level: str | None = None,
    profile: str = "ortolan",
    optimization_style: str = "Fixed",
    external_data: bool = False,
    weights: str = "float32",
    allow_unknown_operators: bool = False,
) -> Path: ...


def convert(
    source: Source,
    destination: str | os.PathLike[str] | None = None,
    *,
    level: str | None = None,
    profile: str = "ortolan",
    optimization_style: str = "Fixed",
    external_data: bool = False,
    weights: str = "float32",
    allow_unknown_operators: bool = False,
) -> bytes | Path:
    """Converts an ONNX model to an ORT format file, or an ORT format file to an ONNX model.

    Args:
        source: path of an ONNX or ORT format file, its content, or an `onnx.ModelProto`.
        destination: path of the file to write; an existing one is replaced at once, when all
            is done. A name that ends in ".onnx" asks for an ONNX model, any other for an ORT
            format file. None returns the bytes of an ORT format file instead.
        level: how far the model is optimized: "disable", "basic", "extended", "layout", "all".
            By default "all", but an ORT format file becomes an ONNX model as it is.
        profile: whose kernels the file is for: "ortolan", or "onnxruntime" for a file that
            both run.
        optimization_style: "Fixed", or "Runtime" for standard operators only, with records of
            fusions that onnxruntime may do when it loads the file; at most level "basic" then.
        external_data: put the large weights of an ORT format file into a file of their own
            beside it, its name with ".data" behind. Models beyond 2 GB need it and get it; only
            Ortolan reads such files.
        weights: how large float weights are stored: "float32", as they are, or "float16" or
            "int8" for a smaller file; calls compute with float32 all the same.
        allow_unknown_operators: write the file even if the profile lacks some of its operators.

    Returns:
        The path that was written, or the content of the file.

    Raises:
        NoSuchFile: the model, its external data, or the folder of the destination is missing.
        NoModel: the source is neither ONNX nor ORT format.
        InvalidArgument: no such level, profile, style or storage of weights, or the destination
            is the source or a folder.
        InvalidGraph: the model contradicts itself.
        NotImplemented: the runtime lacks operators (all are named), or the format cannot hold
            something.
        LimitExceeded: the model exceeds the 2 GB of the format.
        Fail: the file could not be written.
    """
    _check_choice("level", level or "all", LEVELS)
    _check_choice("profile", profile, PROFILES)
    _check_choice("optimization style", optimization_style, STYLES)
    _check_choice("storage of weights", weights, STORAGES)
    target = None if destination is None else _target(source, destination)
    if isinstance(source, str | os.PathLike):
        source = read_pipe(source) or source
    as_onnx = target is not None and target.suffix == ".onnx"
    session = _read_ort(source)
    try:
        if session is not None and not (as_onnx and level is None and weights == "float32"):
            source, session = _onnx(session), None
        if session is None:
            # The level above has operators of our own, which ONNX does not know.
            most = "basic" if optimization_style == "Runtime" else "layout" if as_onnx else "all"
            level = min(level or "all", most, key=LEVELS.index)
            model = _converted(source, level, profile, allow_unknown_operators)
            store_weights(model, weights)
            if level == "all" and profile == "ortolan":
                pack_weights(model)
                verify(model, "packing weights")
            session = from_ir(model, IMPORTS if profile == "onnxruntime" else None)
            if optimization_style == "Runtime":
                record_fusions(session)
        if as_onnx:
            return _save(target, _onnx(session).SerializeToString())
        if external_data or weight_bytes(session) > MAX_FILE_SIZE:
            _save(_weights_of(target, profile), detach(session))
        data = write(session)
    except OrtFormatError as error:
        raise InvalidGraph(f"the model cannot be written: {error}") from error
    return data if target is None else _save(target, data)


def _save(target: Path | None, data: bytes | Iterator[bytes | bytearray | memoryview]) -> Path:
    assert target is not None
    try:
        write_file(target, data)
    except (OSError, ValueError) as error:  # a name may have a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise Fail(f"{target}: cannot be written ({reason})") from error
    return target


def _weights_of(target: Path | None, profile: str) -> Path:
    """The file for the weights of a model; refuses where there can be none."""
    if profile == "onnxruntime":
        raise LimitExceeded(
            "onnxruntime reads no weights beside an ORT format file, which ends at 2 GB: make them "
            "smaller, for example by quantization, or convert without --for onnxruntime"
        )
    if target is None:
        raise LimitExceeded(
            "an ORT format file ends at 2 GB: give a destination, and the weights are written "
            "into a file beside it"
        )
    return target.with_name(target.name + EXTERNAL_SUFFIX)


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidArgument(f'there is no {what} "{value}": use one of {", ".join(choices)}')


def _read_ort(source: Source) -> InferenceSession | None:
    """Returns the tables of an ORT format file; None for any other source."""
    if isinstance(source, onnx.ModelProto):
        return None
    if isinstance(source, str | os.PathLike):
        try:
            with Path(source).open("rb") as file:
                start = file.read(8)
                if start[4:] != FILE_IDENTIFIER:
                    return None
                content = start + file.read()
            beside = Path(source).with_name(Path(source).name + EXTERNAL_SUFFIX)
            external = _map(beside) if beside.is_file() else None
        except (OSError, ValueError):  # an empty file cannot be mapped
            return None  # the importer says why
    else:
        content, external = bytes(source), None
        if content[4:8] != FILE_IDENTIFIER:
            return None
    try:
        session = read(content)
        if is_external(session):
            if external is None:
                raise InvalidArgument("the weights of this file are in another: give its path")
            attach(session, external)
        return session
    except OrtFormatError as error:
        raise NoModel(f"damaged or no ORT format file: {error}") from error


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _onnx(session: InferenceSession) -> onnx.ModelProto:
    model = to_onnx(session)
    if model.ByteSize() > MAX_FILE_SIZE:
        raise LimitExceeded("an ONNX file ends at 2 GB, and the model takes more")
    return model


def _converted(source: Source, level: str, profile: str, allow_unknown: bool) -> ir.Model:
    """Imports and optimizes a model; says what its profile lacks."""
    model = load(source)
    if profile == "onnxruntime":
        # The level above is for operators of our own.
        optimize(model, "layout" if level == "all" else level, ONNXRUNTIME)
        legalize(model, allow_unknown_operators=allow_unknown)
        return model
    optimize(model, level)
    if not allow_unknown:
        check_operators(model)
    return model


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
