"""Writes tables as an ORT file of format version 6.

Flatbuffers are built from their end. Weights are placed first, so they end up behind all
tables, in the order of the graph: a reader that streams has the structure before the data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import secrets
import struct
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import flatbuffers.builder

from ortolan.ortformat.checks import CHECKS
from ortolan.ortformat.schema import (
    ATTRIBUTE_FIELDS,
    ELEMENT_BITS,
    ENUMS,
    FILE_IDENTIFIER,
    FORMAT_VERSION,
    MAX_DEPTH,
    MAX_FILE_SIZE,
    MAX_TABLES,
    ROOT_TABLE,
    SCALARS,
    STRUCTS,
    TABLES,
    UNIONS,
    Field,
    Kind,
    TensorDataType,
)
from ortolan.ortformat.tables import (
    CLASSES,
    Attribute,
    Graph,
    InferenceSession,
    OrtFormatError,
    Tensor,
)

__all__ = ["write", "write_file"]

# What another process is writing is left alone for so long, in seconds.
_STALE = 3600.0

# Weights of this many bytes or more are worth the padding that full alignment costs.
_ALIGNED_BYTES = 64

# Nodes and graphs have one place each. Were equal bodies shared, a small file could unfold to
# more than readers allow.
_UNSHARED = ("Graph", "Node")

# What a schema-driven field holds; the schema, not the type checker, ties kind and type.
_Value: TypeAlias = Any


def write(session: InferenceSession, *, alignment: int = 64) -> bytes:
    """Returns the bytes of an ORT file; equal tables give equal bytes.

    Args:
        session: the tables. `ort_version` is not looked at: version 6 is written.
        alignment: alignment in bytes, relative to the file's start, of `raw_data` that has 64
            bytes or more; a power of two of at least 8. Shorter data is aligned to its
            elements, and to 4 bytes at least.

    Returns:
        The file. Vectors that the format keeps sorted are sorted in it.

    Raises:
        OrtFormatError: the tables are not a valid model, or the file would exceed 2 GB.
    """
    if alignment < 8 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is not a power of two of at least 8")
    _check_class(ROOT_TABLE, session)
    session = dataclasses.replace(session, ort_version=FORMAT_VERSION)
    writer = _Writer(alignment)
    try:
        writer.place_weights(session)
        root = writer.table(ROOT_TABLE, session, 1)
        writer.builder.Finish(root, file_identifier=FILE_IDENTIFIER)
    except flatbuffers.builder.BuilderSizeError:
        raise OrtFormatError(_too_large()) from None
    builder = writer.builder
    data = bytes(memoryview(builder.Bytes)[builder.Head() :])
    if len(data) > MAX_FILE_SIZE:
        raise OrtFormatError(_too_large())
    return data


def write_file(
    path: str | os.PathLike[str],
    data: bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview],
) -> None:
    """Writes a file so that `path` holds either its old content or all of the new one.

    Args:
        path: where to; the folder must exist.
        data: the content, or parts of it in order.

    Raises:
        OSError: the file could not be written. Nothing is left behind, `path` is as it was.
    """
    target = Path(path)
    _remove_stale(target)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            for part in (data,) if isinstance(data, bytes | bytearray | memoryview) else data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    _sync_folder(target.parent)


def _remove_stale(target: Path) -> None:
    """Deletes what processes that were killed left beside a file."""
    head = f".{target.name}."
    with contextlib.suppress(OSError), os.scandir(target.parent) as found:
        for item in found:
            tail = item.name.removeprefix(head)
            is_ours = item.name.startswith(head) and re.fullmatch("[0-9a-f]{16}", tail)
            if is_ours and time.time() - item.stat().st_mtime > _STALE:
                Path(item.path).unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable where folders can be synced; elsewhere it is as good as done."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _too_large() -> str:
    return "the model exceeds 2 GB, the limit of the ORT format: its weights must be made smaller"


class _Writer:
    """A flatbuffer in the making.

    Equal content is written once and referred to often, as flatbuffers allow: the types of
    values repeat so much that this halves models with few weights.
    """

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.builder = flatbuffers.builder.Builder(1024)
        self.written: dict[Hashable, int] = {}
        self.weights: dict[int, int] = {}
        self.tables = 0

    def place_weights(self, session: InferenceSession) -> None:
        """Places all weights worth aligning, the first of the file last."""
        tensors = list(filter(_is_aligned, _graph_tensors(session.model.graph)))
        size = sum(len(tensor.raw_data) + self.alignment for tensor in tensors)
        if size > MAX_FILE_SIZE:
            raise OrtFormatError(_too_large())
        # Room for the weights at once: growing step by step would copy them several times.
        self.builder = flatbuffers.builder.Builder(min(size + 65536, MAX_FILE_SIZE))
        digests: dict[bytes, int] = {}
        for tensor in reversed(tensors):
            digest = hashlib.blake2b(tensor.raw_data).digest()
            if digest not in digests:
                digests[digest] = self.place(tensor.raw_data, 1, self.alignment)
            self.weights[id(tensor)] = digests[digest]

    def table(self, name: str, value: _Value, depth: int) -> int:
        """Writes a table after all that it refers to; returns its offset."""
        _check_class(name, value)
        if depth > MAX_DEPTH:
            raise OrtFormatError(f"nested deeper than {MAX_DEPTH} tables")
        self.tables += 1
        if self.tables > MAX_TABLES:
            raise OrtFormatError(f"more than {MAX_TABLES} tables")
        check = CHECKS.get(name)
        if check is not None:
            check(value)
        inline: list[tuple[int, bytes | int]] = []
        for slot, field in _PLANS[name]:
            try:
                content = _FIELDS[field.kind](self, field, value, depth)
            except OrtFormatError as error:
                raise error.within(field.name) from None
            except (struct.error, TypeError, AttributeError) as error:
                raise OrtFormatError(f"cannot be written: {error}", field.name) from None
            if content is not None:
                inline.append((slot, content))
        # Widest first, so that no padding lies between the fields.
        inline.sort(key=lambda item: -len(item[1]) if isinstance(item[1], bytes) else -4)
        if name in _UNSHARED:
            return self.place_table(name, inline)
        return self.once((name, *inline), lambda: self.place_table(name, inline))

    def place_table(self, name: str, inline: list[tuple[int, bytes | int]]) -> int:
        """Writes a table from the bytes or the target of each slot; returns its offset."""
        self.builder.StartObject(len(TABLES[name].fields))
        for slot, content in inline:
            if isinstance(content, bytes):
                self.builder.Prep(len(content), 0)
                self.put(content)
            else:
                self.builder.PrependUOffsetTRelative(content)
            self.builder.Slot(slot)
        end: int = self.builder.EndObject()
        return end

    def once(self, key: Hashable, place: Callable[[], int]) -> int:
        """Returns the offset of what was written under an equal key, or writes it now."""
        offset = self.written.get(key)
        if offset is None:
            offset = self.written[key] = place()
        return offset

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """Prepends bytes for which there is room and alignment."""
        builder = self.builder
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data

    def place(self, data: bytes | bytearray | memoryview, width: int, align: int) -> int:
        """Writes a vector of elements of `width` bytes from their bytes; returns its offset."""
        self.builder.StartVector(width, len(data) // width, align)
        self.put(data)
        end: int = self.builder.EndVector()
        return end

    def vector(self, data: bytes, width: int, align: int) -> int:
        """As `place`, once for equal vectors."""
        return self.once((data, width, align), lambda: self.place(data, width, align))

    def string(self, value: str | bytes) -> int:
        """Writes a string; returns its offset."""
        data = value.encode("utf-8") if isinstance(value, str) else value
        return self.once(data, lambda: int(self.builder.CreateString(data)))

    def offsets(self, values: list[int]) -> int:
        """Writes a vector of offsets; returns its own offset."""
        return self.once(tuple(values), lambda: self.place_offsets(values))

    def place_offsets(self, values: list[int]) -> int:
        """As `offsets`, without looking for an equal vector."""
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        end: int = self.builder.EndVector()
        return end


def _check_class(name: str, value: _Value) -> None:
    if not isinstance(value, CLASSES[name]):
        raise OrtFormatError(f"expected a {name}, not {type(value).__name__}")


def _is_aligned(tensor: Tensor) -> bool:
    return len(tensor.raw_data) >= _ALIGNED_BYTES and tensor.external_data_offset < 0


def _graph_tensors(graph: Graph) -> Iterator[Tensor]:
    """Yields the tensors of a graph and its subgraphs in the order of the file."""
    yield from graph.initializers
    for node in graph.nodes:
        for attribute in node.attributes:
            if attribute.t is not None:
                yield attribute.t
            yield from attribute.tensors
            for subgraph in attribute.subgraphs():
                yield from _graph_tensors(subgraph)
    for sparse in graph.sparse_initializers:
        yield from (sparse.values, sparse.indices)


def _is_kept(field: Field, owner: _Value) -> bool:
    """Tells whether an empty string or vector is written: its absence would mean an error."""
    if isinstance(owner, Attribute):
        return field.required or field.name == ATTRIBUTE_FIELDS[owner.type]
    if isinstance(owner, Tensor) and field.kind in (Kind.BLOB, Kind.BYTES_LIST):
        return (field.kind is Kind.BYTES_LIST) == (owner.data_type is TensorDataType.STRING)
    return field.required or field.keep_empty


def _scalar(writer: _Writer, field: Field, owner: _Value, depth: int) -> bytes | None:
    code = "<" + SCALARS[field.type].code
    data = struct.pack(code, getattr(owner, field.name))
    # Compared as bytes: -0.0 is not the default, though it equals it.
    return None if data == struct.pack(code, field.default) else data


def _enum(writer: _Writer, field: Field, owner: _Value, depth: int) -> bytes | None:
    info = ENUMS[field.type]
    value = getattr(owner, field.name)
    try:
        member = info.type(value)
    except ValueError:
        raise OrtFormatError(f"{field.type} has no value {value}") from None
    return struct.pack("<" + SCALARS[info.scalar].code, member) if member else None


def _string(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    value = getattr(owner, field.name)
    wanted = str if field.kind is Kind.STRING else bytes
    if not isinstance(value, wanted):
        raise OrtFormatError(f"expected {wanted.__name__}, not {type(value).__name__}")
    return writer.string(value) if value or _is_kept(field, owner) else None


def _strings(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    values = getattr(owner, field.name)
    if not values and not _is_kept(field, owner):
        return None
    wanted = str if field.kind is Kind.STRINGS else bytes
    for k, value in enumerate(values):
        if not isinstance(value, wanted):
            problem = f"expected {wanted.__name__}, not {type(value).__name__}"
            raise OrtFormatError(problem, f"[{k}]")
    return writer.offsets([writer.string(value) for value in reversed(values)][::-1])


def _table(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    value = getattr(owner, field.name)
    if value is None:
        if field.required:
            raise OrtFormatError("missing")
        return None
    return writer.table(field.type, value, depth + 1)


def _tables(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    values = getattr(owner, field.name)
    if not values and not _is_kept(field, owner):
        return None
    values = _sorted_by_key(field.type, values)
    offsets = []
    for k in reversed(range(len(values))):
        try:
            offsets.append(writer.table(field.type, values[k], depth + 1))
        except OrtFormatError as error:
            raise error.within(f"[{k}]") from None
    return writer.offsets(offsets[::-1])


def _sorted_by_key(name: str, values: list[_Value]) -> list[_Value]:
    """Returns tables in the order that readers search by, where the format has one."""
    key = TABLES[name].key
    if not key:
        return values
    ordered = sorted(values, key=lambda value: getattr(value, key).encode("utf-8"))
    for before, after in itertools.pairwise(ordered):
        if getattr(before, key) == getattr(after, key):
            raise OrtFormatError(f"{key} {getattr(after, key)!r} is repeated")
    return ordered


def _union_tag(writer: _Writer, field: Field, owner: _Value, depth: int) -> bytes | None:
    value = getattr(owner, field.name.removesuffix("_type"))
    if value is None:
        return None
    name = type(value).__name__
    if name not in UNIONS[field.type]:
        raise OrtFormatError(f"{name} is not a member of {field.type}")
    return bytes([UNIONS[field.type].index(name)])


def _union(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    value = getattr(owner, field.name)
    return None if value is None else writer.table(type(value).__name__, value, depth + 1)


def _scalars(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    values = getattr(owner, field.name)
    if not values and not _is_kept(field, owner):
        return None
    scalar = SCALARS[field.type]
    data = struct.pack(f"<{len(values)}{scalar.code}", *values)
    return writer.vector(data, scalar.size, scalar.size)


def _structs(writer: _Writer, field: Field, owner: _Value, depth: int) -> int:
    info = STRUCTS[field.type]
    record = struct.Struct("<" + "".join(SCALARS[scalar].code for _, scalar in info.members))
    data = b"".join(record.pack(*value) for value in getattr(owner, field.name))
    return writer.vector(data, info.size, info.align)


def _blob(writer: _Writer, field: Field, owner: _Value, depth: int) -> int | None:
    placed = writer.weights.get(id(owner))
    if placed is not None:
        return placed
    if not _is_kept(field, owner) or owner.external_data_offset >= 0:
        return None
    align = 8 if ELEMENT_BITS[owner.data_type] >= 64 else 4
    return writer.vector(bytes(owner.raw_data), 1, align)


# Each returns a field's inline bytes, the offset of what it refers to, or None to leave it out.
_FIELDS: dict[Kind, Callable[[_Writer, Field, _Value, int], bytes | int | None]] = {
    Kind.SCALAR: _scalar,
    Kind.ENUM: _enum,
    Kind.STRING: _string,
    Kind.BYTES: _string,
    Kind.TABLE: _table,
    Kind.UNION_TAG: _union_tag,
    Kind.UNION: _union,
    Kind.SCALARS: _scalars,
    Kind.BLOB: _blob,
    Kind.STRINGS: _strings,
    Kind.BYTES_LIST: _strings,
    Kind.STRUCTS: _structs,
    Kind.TABLES: _tables,
}

# Later slots first, so that what a table refers to lies in the file in slot order.
_PLANS = {
    table.name: [
        (slot, field)
        for slot, field in reversed(list(enumerate(table.fields)))
        if field.kind is not Kind.DEPRECATED
    ]
    for table in TABLES.values()
}
