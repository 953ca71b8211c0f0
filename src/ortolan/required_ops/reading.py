"""Reads a file of required operators; every complaint names the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortolan import catalog
from ortolan.catalog.types import DataType, TypeSet
from ortolan.errors import NoSuchFile
from ortolan.required_ops.config import (
    ALL_OPERATORS,
    FEATURES,
    GENERAL,
    TYPE_NAMES,
    VARIANT,
    WITHOUT,
    Config,
    ConfigError,
    TypeUse,
    VariantUse,
)

__all__ = ["parse_config", "parse_types", "read_config"]

_ALLOWED = "!globally_allowed_types"
_MOST_DIGITS = 9
_TYPES = {name: data_type for data_type, name in TYPE_NAMES.items()}


def read_config(path: str | Path) -> Config:
    """Reads a config.

    Raises:
        NoSuchFile: it is not there.
        ConfigError: it is malformed.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is no text file (byte {error.start})") from error
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_config(text, str(path))


def parse_config(text: str, source: str = "config") -> Config:
    """Parses the text of a config.

    Args:
        text: the content of the file.
        source: its name, for messages.

    Raises:
        ConfigError: it is malformed.
    """
    return _Parser(source).parse(text)


def parse_types(text: str) -> TypeSet:
    """Types by their names in C++ or ONNX: "float,int8_t" or "float,int8".

    Raises:
        ConfigError: a name is not known.
    """
    return frozenset(_type(name.strip(), "types") for name in text.split(","))


def _type(name: str, where: str) -> DataType:
    known = _TYPES.get(name)
    if known is None and name.upper() in DataType.__members__:
        known = DataType[name.upper()]
    if known is None or known not in TYPE_NAMES:
        raise ConfigError(f'{where}: there is no type "{name}": use one of {", ".join(_TYPES)}')
    return known


def _is_number(text: str) -> bool:
    """Whether a text is a whole number as anybody would write it."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._operators: dict[tuple[str, str], set[int]] = {}
        self._types: dict[tuple[str, str], TypeUse] = {}
        self._open: set[tuple[str, str]] = set()  # named without types: all of them
        self._lines: dict[tuple[str, str], int] = {}
        self._allowed: TypeSet | None = None
        self._allowed_line = 0
        self._all_if_empty = False
        self._variants: set[VariantUse] = set()
        self._without: set[str] = set()
        self._where = source

    def parse(self, text: str) -> Config:
        for number, line in enumerate(text.splitlines(), 1):
            self._where = f"{self._source}:{number}"
            line = line.strip()
            if line.startswith(WITHOUT):
                self._features(line)
            elif line.startswith("#ortolan:"):
                self._variant(line)
            elif line and not line.startswith("#"):
                self._line(line, number)
        types = {k: use for k, use in self._types.items() if k not in self._open}
        if types and self._allowed is not None:
            key = next(iter(types))
            raise ConfigError(
                f"{self._source}:{self._lines[key]}: {key[1]} has types, but line "
                f"{self._allowed_line} allows types globally: only one of both can be"
            )
        return Config(
            {k: frozenset(v) for k, v in self._operators.items()},
            types,
            self._allowed,
            self._all_if_empty,
            frozenset(self._variants),
            frozenset(self._without),
            self._lines,
            self._source,
        )

    def _fail(self, text: str) -> ConfigError:
        return ConfigError(f"{self._where}: {text}")

    def _line(self, line: str, number: int) -> None:
        if line.startswith("!"):
            self._directive(line, number)
            return
        parts = [part.strip() for part in line.split(";")]
        if len(parts) != 3 or not all(parts):
            raise self._fail(
                "a line is domain;opsets;operators, such as ai.onnx;13;Add,Relu, "
                f"but this has {len(parts)} part(s)"
            )
        domain = "" if parts[0] == "ai.onnx" else parts[0]
        opsets = {self._opset(item) for item in parts[1].split(",")}
        for name, types in self._entries(parts[2]):
            key = (domain, name)
            self._operators.setdefault(key, set()).update(opsets)
            self._lines.setdefault(key, number)
            if types is None:
                self._open.add(key)
            else:
                old = self._types.get(key)
                self._types[key] = types if old is None else old.union(types)

    def _directive(self, line: str, number: int) -> None:
        name, _, rest = line.partition(";")
        if line == ALL_OPERATORS:
            self._all_if_empty = True
        elif name.strip() == _ALLOWED:
            if self._allowed is not None:
                raise self._fail(f"types were already allowed in line {self._allowed_line}")
            names = [item.strip() for item in rest.split(",") if item.strip()]
            self._allowed = frozenset(_type(item, self._where) for item in names)
            self._allowed_line = number
        else:
            raise self._fail(f'there is no "{name}": {_ALLOWED} and {ALL_OPERATORS} are known')

    def _features(self, line: str) -> None:
        _, _, rest = line.partition(";")
        names = {name.strip() for name in rest.split(",")}
        if names - FEATURES:
            known = ", ".join(sorted(FEATURES))
            raise self._fail(
                f'a line of what no model has is {WITHOUT};features, of {known}, not "{rest}"'
            )
        self._without |= names

    def _variant(self, line: str) -> None:
        parts = [part.strip() for part in line.split(";")]
        if parts[0] != VARIANT or len(parts) != 6:
            raise self._fail(
                f"a line of a variant is {VARIANT};domain;version;operator;types;variant, such as "
                f"{VARIANT};ai.onnx;11;Conv;float;depthwise"
            )
        domain, name, variant = "" if parts[1] == "ai.onnx" else parts[1], parts[3], parts[5]
        version = self._opset(parts[2])
        operator = catalog.find(domain, name, version)
        known = (*(operator.variants if operator else ()), GENERAL)
        if variant not in known:
            raise self._fail(
                f'{name} of version {version} has no variant "{variant}", but {", ".join(known)}: '
                "leave the line out to keep all"
            )
        types = tuple(_type(t, self._where) for t in parts[4].split(",") if t)
        self._variants.add(VariantUse(domain, name, version, types, variant))

    def _opset(self, text: str) -> int:
        text = text.strip()
        if not _is_number(text) or int(text) < 1:
            raise self._fail(f'"{text}" is no opset: a whole number from 1 up is needed')
        return int(text)

    def _entries(self, text: str) -> Iterator[tuple[str, TypeUse | None]]:
        """Name and types of each operator of a line; commas inside of braces do not separate."""
        at = 0
        while at < len(text):
            end = next((i for i in range(at, len(text)) if text[i] in ",{"), len(text))
            name = text[at:end].strip()
            if not name.isidentifier():
                raise self._fail(f'"{name}" is no name of an operator')
            types = None
            if end < len(text) and text[end] == "{":
                try:
                    content, after = json.JSONDecoder().raw_decode(text, end)
                except json.JSONDecodeError as error:
                    raise self._fail(f"the types of {name} are no JSON: {error.msg}") from error
                except (ValueError, RecursionError) as error:
                    raise self._fail(f"the types of {name} are too long or too deep") from error
                types = self._type_use(name, content)
                rest = text[after:].lstrip()
                if rest and not rest.startswith(","):
                    raise self._fail(f"a comma is missing after the types of {name}")
                end = after if not rest else text.index(",", after)
            yield name, types
            at = end + 1

    def _type_use(self, name: str, content: Any) -> TypeUse | None:
        where = f"{self._where}: types of {name}"
        if not isinstance(content, dict) or content.keys() - {"inputs", "outputs", "custom"}:
            raise ConfigError(f'{where}: an object with "inputs", "outputs" or "custom" is needed')
        if "custom" in content:
            rows = content["custom"]
            if not isinstance(rows, list) or not all(isinstance(r, list) for r in rows):
                raise ConfigError(f'{where}: "custom" is a list of lists of types')
            triples = frozenset(tuple(_type(str(t), where) for t in row) for row in rows)
            # Other operators have combinations of their own, which say nothing here.
            return TypeUse(triples=triples) if name == "OneHot" else None
        return TypeUse(
            self._by_index(content.get("inputs", {}), where),
            self._by_index(content.get("outputs", {}), where),
        )

    def _by_index(self, content: Any, where: str) -> dict[int, TypeSet]:
        if not isinstance(content, dict) or not all(map(_is_number, content)):
            raise ConfigError(f'{where}: types stand by number, such as {{"0": ["float"]}}')
        if not all(isinstance(v, list) for v in content.values()):
            raise ConfigError(f'{where}: a list of types is needed, such as ["float", "int64_t"]')
        return {
            int(k): frozenset(_type(str(t), where) for t in names) for k, names in content.items()
        }
