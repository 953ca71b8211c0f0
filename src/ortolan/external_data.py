"""Finds the files beside an ONNX model that hold its weights, without the `onnx` package.

It reads the wire format of protobuf just as far as needed: field numbers and lengths on the way
from the model to its tensors' external data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["external_files"]

# By message: the fields on the way to a tensor, and what they hold.
_MODEL: Mapping[int, str] = {7: "graph", 25: "function"}
_WAYS: Mapping[str, Mapping[int, str]] = {
    "model": _MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}  # fmt: skip
_LOCATION = b"location"
_MAX_DEPTH = 64
_BYTES = 2
_FIXED = {1: 8, 5: 4}


def external_files(model: bytes, folder: Path | None) -> list[Path]:
    """Returns the files with external data of a model, each once, in the order of their use.

    Args:
        model: the content of an ONNX file.
        folder: where it lies; None if it came as bytes.

    Returns:
        Their paths by the names in the model: links on the way are as they are.

    Raises:
        ValueError: the bytes are no protobuf message, or a file is outside the folder.
        OSError: a link leads to itself.
    """
    if _LOCATION not in model:
        return []
    found: dict[Path, None] = {}
    for location in _locations(memoryview(model), "model", 0):
        name = location.decode("utf-8")
        if folder is None:
            raise ValueError("external data of a model without a folder")
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} is outside the model's folder")
        found[folder / name] = None
    return list(found)


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[bytes]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if kind == "entry":
        fields = dict(_fields(message, _WAYS[kind]))
        if bytes(fields.get("key", b"")) == _LOCATION:
            yield bytes(fields.get("value", b""))
        return
    for inner, content in _fields(message, _WAYS[kind]):
        yield from _locations(content, inner, depth + 1)


def _fields(message: memoryview, wanted: Mapping[int, str]) -> Iterator[tuple[str, memoryview]]:
    """Yields the wanted fields of a message with their bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(message, at)
        elif wire in _FIXED:
            at += _FIXED[wire]
        elif wire == _BYTES:
            size, at = _varint(message, at)
            if at + size > end:
                raise ValueError("a length reaches beyond the message")
            if number in wanted:
                yield wanted[number], message[at : at + size]
            at += size
        else:
            raise ValueError(f"no wire type {wire}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number does not end")
