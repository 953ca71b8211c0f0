"""Reads an ORT file into tables, and verifies all of it on the way.

Nothing in the file is trusted: every offset, length, tag and count is checked before use, the
nesting is limited, and the work is linear in the size of the file even where tables are shared.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from ortolan.ortformat.checks import CHECKS
from ortolan.ortformat.external import attach
from ortolan.ortformat.schema import (
    ENUMS,
    FILE_IDENTIFIER,
    MAX_DEPTH,
    MAX_FILE_SIZE,
    MAX_TABLES,
    READABLE_VERSIONS,
    ROOT_TABLE,
    SCALARS,
    STRUCTS,
    TABLES,
    UNIONS,
    Field,
    Kind,
    Scalar,
)
from ortolan.ortformat.tables import (
    CLASSES,
    EdgeEnd,
    InferenceSession,
    OrtFormatError,
)

__all__ = ["read"]

# Equal tables may be written once and referred to often, so what is decoded exceeds the file. In
# real files it is less than twice its size; this is how much a hostile one can unfold.
_SHARING_FACTOR = 64
_SHARING_FLOOR = 1 << 16

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")

# What a read field returns; the schema, not the type checker, holds the two together.
_Value: TypeAlias = Any
_FieldReader: TypeAlias = Callable[["_Reader", int, int, int], _Value]


def read(
    data: bytes | bytearray | memoryview | Any, external: bytes | memoryview | Any = None
) -> InferenceSession:
    """Reads and verifies an ORT model.

    Args:
        data: the file's bytes: any object with the buffer protocol, such as an `mmap`. The
            tensors of the result point into it, so it must stay as it is while they live.
        external: those of the file of weights beside it, an extension of ours; without them,
            tensors in it have no `raw_data`.

    Returns:
        The session. Tensors' `raw_data` are read-only views of `data`.

    Raises:
        OrtFormatError: the bytes are not a valid ORT file of a version that can be read.
    """
    view = memoryview(data).toreadonly()
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    reader = _Reader(view)
    root = reader.root_position()
    reader.check_version(root)
    session: InferenceSession = reader.table(ROOT_TABLE, root, 1)
    if external is not None:
        attach(session, memoryview(external).toreadonly().cast("B"))
    return session


class _Reader:
    """One file being read; `spent` counts decoded bytes against a limit linear in its size."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.size = len(view)
        self.spent = 0
        self.tables = 0
        self.limit = _SHARING_FACTOR * self.size + _SHARING_FLOOR
        self.strings: dict[int, str] = {}
        self.payloads: dict[int, bytes] = {}
        self.vtables: dict[int, tuple[int, ...]] = {}

    def root_position(self) -> int:
        if self.size < 8:
            raise OrtFormatError(f"the file has {self.size} bytes, too few for an ORT model")
        if self.size > MAX_FILE_SIZE:
            raise OrtFormatError("the file is larger than 2 GB, the limit of the ORT format")
        if self.view[4:8] != FILE_IDENTIFIER:
            raise OrtFormatError("not an ORT model: the file identifier is not ORTM")
        return self.target(0)

    def check_version(self, root: int) -> None:
        """Refuses unknown versions before their tables can cause errors that say less."""
        try:
            vtable = self.vtable(root)
            offset = vtable[2] if len(vtable) > 2 else 0
            self.need(root + offset, 4 if offset else 0)
            version = self.string(self.target(root + offset)) if offset else ""
        except OrtFormatError as error:
            raise error.within("ort_version") from None
        if version not in READABLE_VERSIONS:
            raise OrtFormatError(
                f"format version {version[:32]!r} is not supported; versions "
                f"{READABLE_VERSIONS[0]} to {READABLE_VERSIONS[-1]} are",
                "ort_version",
            )

    def spend(self, size: int) -> None:
        self.spent += size
        if self.spent > self.limit:
            raise OrtFormatError("shared tables unfold to far more than the file's size")

    def need(self, position: int, size: int) -> None:
        if position + size > self.size:
            raise OrtFormatError(
                f"{size} bytes at {position} reach beyond the file's end ({self.size})"
            )

    def target(self, position: int) -> int:
        """Follows the offset at `position`, which lies in the file; returns where it leads."""
        (offset,) = _U32.unpack_from(self.view, position)
        where: int = position + offset
        if offset == 0 or where + 4 > self.size:
            raise OrtFormatError(f"offset {offset} at {position} leads nowhere")
        if where % 4:
            raise OrtFormatError(f"offset {offset} at {position} leads to an odd place")
        return where

    def vtable(self, position: int) -> tuple[int, ...]:
        """Returns the checked vtable (own size, table size, field offsets...) of a table."""
        (distance,) = _I32.unpack_from(self.view, position)
        where = position - distance
        known = self.vtables.get(where)
        if known is not None:
            return known
        if where < 0 or where % 2 or where + 4 > self.size:
            raise OrtFormatError(f"the table at {position} has its vtable at {where}")
        (size,) = _U16.unpack_from(self.view, where)
        if size < 4 or size % 2:
            raise OrtFormatError(f"the vtable at {where} has a size of {size}")
        self.need(where, size)
        self.spend(size)
        vtable = struct.unpack_from(f"<{size // 2}H", self.view, where)
        if vtable[1] < 4:
            raise OrtFormatError(f"the vtable at {where} tells of a table of {vtable[1]} bytes")
        self.vtables[where] = vtable
        return vtable

    def table(self, name: str, position: int, depth: int) -> _Value:
        """Reads the table `name` at `position` and all that it refers to."""
        if depth > MAX_DEPTH:
            raise OrtFormatError(f"nested deeper than {MAX_DEPTH} tables")
        vtable = self.vtable(position)
        table_size = vtable[1]
        self.need(position, table_size)
        self.spend(table_size)
        self.tables += 1
        if self.tables > MAX_TABLES:
            raise OrtFormatError(f"more than {MAX_TABLES} tables")
        slots = len(vtable)
        values = {}
        for slot, width, field, reader in _PLANS[name]:
            offset = vtable[slot] if slot < slots else 0
            try:
                if offset == 0:
                    values[field.name] = _absent(field)
                    continue
                if offset < 4 or offset + width > table_size:
                    raise OrtFormatError(f"lies at {offset} in a table of {table_size} bytes")
                if (position + offset) % width:
                    raise OrtFormatError(f"a field of {width} bytes at {position + offset}")
                values[field.name] = reader(self, position, position + offset, depth)
            except OrtFormatError as error:
                raise error.within(field.name) from None
        if name in _UNION_FIELDS:
            _drop_union_tag(name, values)
        result = CLASSES[name](**values)
        check = CHECKS.get(name)
        if check is not None:
            check(result)
        return result

    def vector(self, position: int, width: int) -> tuple[int, int]:
        """Returns the first element's position and the checked count of a vector."""
        where = self.target(position)
        (count,) = _U32.unpack_from(self.view, where)
        self.need(where + 4, count * width)
        return where + 4, count

    def payload(self, where: int) -> bytes:
        """Returns the bytes of the string at `where`, copied once however often it is used."""
        known = self.payloads.get(where)
        if known is not None:
            return known
        (size,) = _U32.unpack_from(self.view, where)
        end = where + 4 + size
        self.need(where + 4, size + 1)
        self.spend(size)
        if self.view[end] != 0:
            raise OrtFormatError(f"the string at {where} does not end in a zero byte")
        payload = self.payloads[where] = bytes(self.view[where + 4 : end])
        return payload

    def string(self, where: int) -> str:
        """Returns the text of the string at `where`."""
        text = self.strings.get(where)
        if text is None:
            try:
                text = self.strings[where] = self.payload(where).decode("utf-8")
            except UnicodeDecodeError as error:
                raise OrtFormatError(f"not UTF-8: {error.reason}") from None
        return text


def _absent(field: Field) -> _Value:
    """Returns what a field without data is; a fresh list for a vector."""
    if field.required:
        raise OrtFormatError("missing")
    if field.kind is Kind.SCALAR:
        scalar = _PYTHON_SCALARS.get(field.type, int)
        return scalar(field.default)
    if field.kind is Kind.ENUM:
        return ENUMS[field.type].type(0)
    return _EMPTY[field.kind]()


_PYTHON_SCALARS: dict[str, type[float] | type[bool]] = {"f32": float, "bool": bool}

_EMPTY: dict[Kind, Callable[[], _Value]] = {
    Kind.STRING: str,
    Kind.BYTES: bytes,
    Kind.BLOB: bytes,
    Kind.TABLE: lambda: None,
    Kind.UNION: lambda: None,
    Kind.UNION_TAG: lambda: 0,
    Kind.SCALARS: list,
    Kind.STRINGS: list,
    Kind.BYTES_LIST: list,
    Kind.STRUCTS: list,
    Kind.TABLES: list,
}


def _drop_union_tag(name: str, values: dict[str, _Value]) -> None:
    """Removes the union's tag, and refuses a tag without a value."""
    tag_name, value_name = _UNION_FIELDS[name]
    if values.pop(tag_name) and values[value_name] is None:
        raise OrtFormatError("missing", value_name)


# The tag of a union is the field before it; no table has two unions.
_UNION_FIELDS = {
    table.name: (table.fields[number - 1].name, field.name)
    for table in TABLES.values()
    for number, field in enumerate(table.fields)
    if field.kind is Kind.UNION
}


def _scalar_reader(scalar: Scalar) -> _FieldReader:
    unpack = struct.Struct("<" + scalar.code).unpack_from
    return lambda reader, table, position, depth: unpack(reader.view, position)[0]


def _enum_reader(name: str) -> _FieldReader:
    info = ENUMS[name]
    unpack = struct.Struct("<" + SCALARS[info.scalar].code).unpack_from
    members = {int(member): member for member in info.type}

    def read_enum(reader: _Reader, table: int, position: int, depth: int) -> _Value:
        (value,) = unpack(reader.view, position)
        member = members.get(value)
        if member is None:
            raise OrtFormatError(f"{name} has no value {value}")
        return member

    return read_enum


def _read_string(reader: _Reader, table: int, position: int, depth: int) -> str:
    return reader.string(reader.target(position))


def _read_bytes(reader: _Reader, table: int, position: int, depth: int) -> bytes:
    return reader.payload(reader.target(position))


def _read_blob(reader: _Reader, table: int, position: int, depth: int) -> memoryview:
    start, count = reader.vector(position, 1)
    return reader.view[start : start + count]


def _table_reader(name: str) -> _FieldReader:
    return lambda reader, table, position, depth: reader.table(
        name, reader.target(position), depth + 1
    )


def _union_reader(name: str, slot: int) -> _FieldReader:
    members = UNIONS[name]

    def read_union(reader: _Reader, table: int, position: int, depth: int) -> _Value:
        vtable = reader.vtable(table)
        tag = reader.view[table + vtable[slot - 1]] if vtable[slot - 1] else 0
        member = members[tag] if tag < len(members) else None
        if member is None:
            raise OrtFormatError(f"has a value, but its tag is {tag}")
        return reader.table(member, reader.target(position), depth + 1)

    return read_union


def _scalars_reader(scalar: Scalar) -> _FieldReader:
    def read_scalars(reader: _Reader, table: int, position: int, depth: int) -> _Value:
        start, count = reader.vector(position, scalar.size)
        reader.spend(count * scalar.size)
        return list(struct.unpack_from(f"<{count}{scalar.code}", reader.view, start))

    return read_scalars


def _strings_reader(decode: Callable[[_Reader, int], _Value]) -> _FieldReader:
    def read_strings(reader: _Reader, table: int, position: int, depth: int) -> _Value:
        start, count = reader.vector(position, 4)
        reader.spend(count * 4)
        values = []
        for k in range(count):
            try:
                values.append(decode(reader, reader.target(start + 4 * k)))
            except OrtFormatError as error:
                raise error.within(f"[{k}]") from None
        return values

    return read_strings


def _structs_reader(name: str) -> _FieldReader:
    info = STRUCTS[name]
    record = struct.Struct("<" + "".join(SCALARS[scalar].code for _, scalar in info.members))

    def read_structs(reader: _Reader, table: int, position: int, depth: int) -> _Value:
        start, count = reader.vector(position, info.size)
        reader.spend(count * info.size)
        data = reader.view[start : start + count * info.size]
        return [EdgeEnd(*values) for values in record.iter_unpack(data)]

    return read_structs


def _tables_reader(name: str) -> _FieldReader:
    def read_tables(reader: _Reader, table: int, position: int, depth: int) -> _Value:
        start, count = reader.vector(position, 4)
        reader.spend(count * 4)
        values = []
        for k in range(count):
            try:
                where = reader.target(start + 4 * k)
                values.append(reader.table(name, where, depth + 1))
            except OrtFormatError as error:
                raise error.within(f"[{k}]") from None
        return values

    return read_tables


def _plan(field: Field, slot: int) -> tuple[int, int, Field, _FieldReader]:
    """Returns a field's slot in the vtable, its width in the table, and its reader."""
    kind = field.kind
    if kind is Kind.SCALAR:
        scalar = SCALARS[field.type]
        return slot, scalar.size, field, _scalar_reader(scalar)
    if kind in (Kind.ENUM, Kind.UNION_TAG):
        size = SCALARS[ENUMS[field.type].scalar].size
        return slot, size, field, _enum_reader(field.type)
    if kind is Kind.UNION:
        return slot, 4, field, _union_reader(field.type, slot)
    if kind is Kind.TABLE:
        return slot, 4, field, _table_reader(field.type)
    if kind is Kind.TABLES:
        return slot, 4, field, _tables_reader(field.type)
    if kind is Kind.SCALARS:
        return slot, 4, field, _scalars_reader(SCALARS[field.type])
    if kind is Kind.STRUCTS:
        return slot, 4, field, _structs_reader(field.type)
    readers: dict[Kind, _FieldReader] = {
        Kind.STRING: _read_string,
        Kind.BYTES: _read_bytes,
        Kind.BLOB: _read_blob,
        Kind.STRINGS: _strings_reader(_Reader.string),
        Kind.BYTES_LIST: _strings_reader(_Reader.payload),
    }
    return slot, 4, field, readers[kind]


# A vtable starts with two sizes, so slot k of the schema is entry k + 2 of the vtable.
_PLANS = {
    table.name: tuple(
        _plan(field, number + 2)
        for number, field in enumerate(table.fields)
        if field.kind is not Kind.DEPRECATED
    )
    for table in TABLES.values()
}
