"""The ORT schema, held against onnxruntime's bindings, `onnx`, the tables and the C++ header."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from ortolan.build import schema_header
from ortolan.catalog.types import DataType
from ortolan.ortformat import schema as s
from ortolan.ortformat import tables as t
from ortolan.ortformat.schema import Kind, TensorDataType

_TRAINING = {
    "Checkpoint", "FloatProperty", "IntProperty", "ModuleState", "OptimizerGroup",
    "ParameterOptimizerState", "PropertyBag", "StringProperty",
}  # fmt: skip


def _bindings() -> dict[str, types.ModuleType]:
    """The modules of onnxruntime's own bindings, by the table, struct or enum that they hold."""
    package = pytest.importorskip("onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs")
    names = [path.stem for path in Path(package.__path__[0]).glob("*.py") if path.stem[0] != "_"]
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class _Recorder:
    """Stands in for a flatbuffers builder and notes what generated code asks of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, arguments))


_SLOT_CALLS = {
    "bool": "PrependBoolSlot", "i8": "PrependInt8Slot", "u8": "PrependUint8Slot",
    "i32": "PrependInt32Slot", "u32": "PrependUint32Slot", "f32": "PrependFloat32Slot",
    "i64": "PrependInt64Slot",
}  # fmt: skip


def _expected_slot_call(field: s.Field) -> str:
    if field.kind is Kind.SCALAR:
        return _SLOT_CALLS[field.type]
    if field.kind in (Kind.ENUM, Kind.UNION_TAG):
        return _SLOT_CALLS[s.ENUMS[field.type].scalar]
    return "PrependUOffsetTRelativeSlot"


def _element_size(field: s.Field) -> tuple[int, int]:
    if field.kind is Kind.STRUCTS:
        return s.STRUCTS[field.type].size, s.STRUCTS[field.type].align
    if field.kind is Kind.SCALARS:
        return s.SCALARS[field.type].size, s.SCALARS[field.type].size
    return (1, 1) if field.kind is Kind.BLOB else (4, 4)


def test_schema_names_the_tables_of_the_bindings() -> None:
    modules = _bindings()
    tables = {name for name, module in modules.items() if hasattr(module, f"{name}Start")}
    assert set(s.TABLES) == {n for n in tables - _TRAINING if not n.startswith("Deprecated")}


@pytest.mark.parametrize("table", s.TABLES.values(), ids=lambda table: table.name)
def test_schema_slots_are_those_of_the_bindings(table: s.Table) -> None:
    module = _bindings()[table.name]
    recorder = _Recorder()
    getattr(module, f"{table.name}Start")(recorder)
    assert recorder.calls == [("StartObject", (len(table.fields),))]
    prefix = f"{table.name}Add"
    adders = {_snake(n.removeprefix(prefix)): n for n in vars(module) if n.startswith(prefix)}
    live = [field for field in table.fields if field.kind is not Kind.DEPRECATED]
    assert set(adders) == {field.name for field in live}
    for field in live:
        recorder = _Recorder()
        getattr(module, adders[field.name])(recorder, 0)
        ((call, (slot, _, default)),) = recorder.calls
        assert call == _expected_slot_call(field), field.name
        assert (table.fields[slot], default) == (field, field.default)
        _check_reference(module, table, field)


def _check_reference(module: types.ModuleType, table: s.Table, field: s.Field) -> None:
    """Holds a vector's element size and the type of what a field leads to."""
    camel = "".join(word.title() for word in field.name.split("_"))
    starter = getattr(module, f"{table.name}Start{camel}Vector", None)
    vectors = (Kind.SCALARS, Kind.BLOB, Kind.STRINGS, Kind.BYTES_LIST, Kind.STRUCTS, Kind.TABLES)
    assert (starter is not None) == (field.kind in vectors)
    if starter is not None:
        recorder = _Recorder()
        starter(recorder, 3)
        size, align = _element_size(field)
        assert recorder.calls == [("StartVector", (size, 3, align))]
    source = inspect.getsource(getattr(getattr(module, table.name), camel))
    if field.kind in (Kind.TABLE, Kind.TABLES, Kind.STRUCTS):
        assert f".{field.type} import {field.type}" in source
    elif field.kind in (Kind.STRING, Kind.BYTES, Kind.STRINGS, Kind.BYTES_LIST):
        assert "_tab.String(" in source


@pytest.mark.parametrize("name", s.ENUMS)
def test_schema_enums_are_those_of_the_bindings(name: str) -> None:
    theirs = {k: v for k, v in vars(getattr(_bindings()[name], name)).items() if k[0] != "_"}
    ours = {member.name: int(member) for member in s.ENUMS[name].type}
    if name == "TensorDataType":
        ours = {k: v for k, v in ours.items() if v < s.FIRST_EXTENSION_TYPE}
    assert ours == {key.upper(): value for key, value in theirs.items()}


def test_element_types_are_those_of_onnx_and_of_the_catalog() -> None:
    onnx_types = dict(onnx.TensorProto.DataType.items())
    assert {member.name: int(member) for member in TensorDataType}.items() <= onnx_types.items()
    for data_type in DataType:
        assert TensorDataType[data_type.name].value == data_type.value
        # Strings are no plain bytes in the file; types below a byte are packed there.
        if data_type not in (DataType.UNDEFINED, DataType.STRING):
            bits = s.ELEMENT_BITS.get(TensorDataType(data_type), 0)
            assert (bits + 7) // 8 == data_type.size


_PYTHON_TYPES: dict[Kind, Callable[[s.Field], Any]] = {
    Kind.SCALAR: lambda f: {"bool": bool, "f32": float}.get(f.type, int),
    Kind.ENUM: lambda f: s.ENUMS[f.type].type,
    Kind.STRING: lambda f: str,
    Kind.BYTES: lambda f: bytes,
    Kind.BLOB: lambda f: bytes | bytearray | memoryview,
    Kind.SCALARS: lambda f: list[float] if f.type == "f32" else list[int],
    Kind.STRINGS: lambda f: list[str],
    Kind.BYTES_LIST: lambda f: list[bytes],
    Kind.STRUCTS: lambda f: types.GenericAlias(list, getattr(t, f.type)),
    Kind.TABLES: lambda f: types.GenericAlias(list, t.CLASSES[f.type]),
}


@pytest.mark.parametrize("table", s.TABLES.values(), ids=lambda table: table.name)
def test_tables_are_those_of_the_schema(table: s.Table) -> None:
    cls = t.CLASSES[table.name]
    hints = typing.get_type_hints(cls, vars(t))
    stored = (Kind.DEPRECATED, Kind.UNION_TAG)
    wanted = {field.name: field for field in table.fields if field.kind not in stored}
    assert {field.name for field in dataclasses.fields(cls)} == set(wanted)
    for name, field in wanted.items():
        if field.kind is Kind.UNION:
            members = [t.CLASSES[member] for member in s.UNIONS[field.type] if member]
            assert set(typing.get_args(hints[name])) == {*members, type(None)}
        elif field.kind is Kind.TABLE:
            target = t.CLASSES[field.type]
            assert hints[name] == (target if field.required else target | None), name
        else:
            assert hints[name] == _PYTHON_TYPES[field.kind](field), name


def test_structs_are_packed_as_the_schema_says() -> None:
    info = s.STRUCTS["EdgeEnd"]
    assert t.EdgeEnd._fields == tuple(name for name, _ in info.members)
    assert sum(s.SCALARS[scalar].size for _, scalar in info.members) == info.size


def test_schema_header_compiles_and_holds_the_slots(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    text = schema_header.generate()
    assert all(len(line) <= 100 for line in text.splitlines())
    checks = [
        "GraphTable::kRuntimeOptimizations == 8", "NodeTable::kImplicitInputs == 12",
        "AttributeTable::kGraphs == 12", "TensorTable::kRawData == 4",
        "sizeof(kTables) / 2 == int(TableId::kArgTypeAndIndex) + 1",
        "sizeof(kElementBits) == int(TensorDataType::kInt2) + 1",
        "kElementBits[int(TensorDataType::kFloat8E4M3FN)] == 8",
        "kAttributeSlots[int(AttributeType::kGraph)] == AttributeTable::kG",
    ]  # fmt: skip
    for number, table in enumerate(s.TABLES.values()):
        info = f"kTables[int(TableId::k{table.name})]"
        checks.append(f"int(TableId::k{table.name}) == {number}")
        checks.append(f"{info}.field_count == {len(table.fields)}")
        for slot, field in enumerate(table.fields):
            entry = f"kFields[{info}.first_field + {slot}]"
            checks.append(f"bool({entry}.kind & kRequired) == {str(field.required).lower()}")
            if field.kind in (Kind.TABLE, Kind.TABLES):
                kind = "kTable" if field.kind is Kind.TABLE else "kTables"
                checks.append(f"Kind({entry}.kind & ~kRequired) == Kind::{kind}")
                checks.append(f"{entry}.type == int(TableId::k{field.type})")
    (tmp_path / "ort_schema.h").write_text(text)
    asserts = "".join(f"static_assert({check});\n" for check in checks)
    probe = f'#include "ort_schema.h"\nusing namespace ortolan::schema;\n{asserts}'
    (tmp_path / "probe.cc").write_text(probe)
    command = [sys.executable, "-m", "ziglang", "c++", "-std=c++20", "-Wall", "-Wextra"]
    done = subprocess.run(
        [*command, "-c", str(tmp_path / "probe.cc"), "-o", str(tmp_path / "probe.o")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
