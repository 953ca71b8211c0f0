"""What a reduced build keeps: operators by domain and opset, their types; written as text.

The text is onnxruntime's format of required operators. Types are named there as in C++.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ortolan.catalog.types import DataType, TypeSet
from ortolan.errors import InvalidArgument

__all__ = [
    "ALL_OPERATORS", "GENERAL", "TYPE_NAMES", "VARIANT", "Config", "ConfigError", "TypeUse",
    "VariantUse", "merge",
]  # fmt: skip

WITHOUT = "#ortolan:without"
"""The start of a line that names features, of FEATURES, which no model of the config has."""
FEATURES = frozenset({"containers", "sparse", "strings"})
"""What values and constants may be that most models do not have."""

VARIANT = "#ortolan:variant"
"""The start of a line that names a variant; a comment for onnxruntime."""
GENERAL = "general"
"""A node that uses no variant of its kernel; every build has what it needs."""

ALL_OPERATORS = "!no_ops_specified_means_all_ops_are_required"
TYPE_NAMES: Mapping[DataType, str] = {
    DataType.FLOAT: "float",
    DataType.DOUBLE: "double",
    DataType.FLOAT16: "MLFloat16",
    DataType.BFLOAT16: "BFloat16",
    DataType.INT8: "int8_t",
    DataType.UINT8: "uint8_t",
    DataType.INT16: "int16_t",
    DataType.UINT16: "uint16_t",
    DataType.INT32: "int32_t",
    DataType.UINT32: "uint32_t",
    DataType.INT64: "int64_t",
    DataType.UINT64: "uint64_t",
    DataType.BOOL: "bool",
    DataType.STRING: "std::string",
    DataType.FLOAT8E4M3FN: "Float8E4M3FN",
    DataType.FLOAT8E4M3FNUZ: "Float8E4M3FNUZ",
    DataType.FLOAT8E5M2: "Float8E5M2",
    DataType.FLOAT8E5M2FNUZ: "Float8E5M2FNUZ",
}


class ConfigError(InvalidArgument):
    """A config contradicts its format, or names what there is not; the text gives file and line."""


@dataclasses.dataclass(frozen=True)
class TypeUse:
    """The types with which an operator is used.

    Attributes:
        inputs: by number of an input. An input that is not named may have any type.
        outputs: by number of an output, likewise.
        triples: combinations instead of single types; OneHot's inputs 0, 2 and 1, in this order.
    """

    inputs: Mapping[int, TypeSet] = dataclasses.field(default_factory=dict)
    outputs: Mapping[int, TypeSet] = dataclasses.field(default_factory=dict)
    triples: frozenset[tuple[DataType, ...]] = frozenset()

    def union(self, other: TypeUse) -> TypeUse:
        """Both uses; an input that one of them leaves open is open."""
        return TypeUse(
            _union(self.inputs, other.inputs),
            _union(self.outputs, other.outputs),
            self.triples | other.triples,
        )

    def text(self) -> str:
        """The JSON that stands behind the operator's name."""
        if self.triples:
            rows = sorted([TYPE_NAMES[t] for t in triple] for triple in self.triples)
            return json.dumps({"custom": rows})
        content = {
            name: {str(k): sorted(TYPE_NAMES[t] for t in types[k]) for k in sorted(types)}
            for name, types in (("inputs", self.inputs), ("outputs", self.outputs))
            if types
        }
        return json.dumps(content)


@dataclasses.dataclass(frozen=True, order=True)
class VariantUse:
    """A way of computing that some node of a model uses: one of its kernel's variants.

    Attributes:
        domain: of the operator.
        name: of the operator.
        version: its since_version.
        types: of the variables that choose a kernel.
        variant: its name, or GENERAL.
    """

    domain: str
    name: str
    version: int
    types: tuple[DataType, ...]
    variant: str

    def text(self) -> str:
        """The line of a config."""
        types = ",".join(TYPE_NAMES.get(t, t.onnx_name) for t in self.types)
        parts = (VARIANT, self.domain or "ai.onnx", str(self.version), self.name, types)
        return ";".join((*parts, self.variant))


def _union(a: Mapping[int, TypeSet], b: Mapping[int, TypeSet]) -> dict[int, TypeSet]:
    return {k: a[k] | b[k] for k in a.keys() & b.keys()}


@dataclasses.dataclass(frozen=True)
class Config:
    """Operators and types; immutable.

    Attributes:
        operators: opsets by (domain, name); the domain of the standard is "".
        types: by (domain, name); an operator without an entry keeps all types.
        allowed_types: the only types that kernels are kept for; None allows all.
        all_if_empty: no operators mean all operators.
        variants: what is used of the kernels' variants; an operator that no use names keeps all.
        without: those of FEATURES that no model has.
        lines: the line of the file by (domain, name), for messages.
        source: the name of the file, for messages.
    """

    operators: Mapping[tuple[str, str], frozenset[int]] = dataclasses.field(default_factory=dict)
    types: Mapping[tuple[str, str], TypeUse] = dataclasses.field(default_factory=dict)
    allowed_types: TypeSet | None = None
    all_if_empty: bool = False
    variants: frozenset[VariantUse] = frozenset()
    without: frozenset[str] = frozenset()
    lines: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict, compare=False)
    source: str = dataclasses.field(default="", compare=False)

    @property
    def keeps_all(self) -> bool:
        """Whether every operator is kept."""
        return self.all_if_empty and not self.operators

    def text(self, comments: Iterable[str] = ()) -> str:
        """The config as a file, the same for equal configs.

        Args:
            comments: lines that stand at its head.
        """
        # They name files and operators, whose names may be more than a line.
        rows = [f"# {' '.join(line.splitlines())}" for line in comments]
        if self.all_if_empty:
            rows.append(ALL_OPERATORS)
        if self.allowed_types is not None:
            rows.append(_allowed_line(self.allowed_types))
        by_opset: dict[tuple[str, int], list[str]] = {}
        for key in sorted(self.operators):
            domain, name = key
            use = self.types.get(key)
            entry = name + (use.text() if use is not None else "")
            for opset in self.operators[key]:
                by_opset.setdefault((domain or "ai.onnx", opset), []).append(entry)
        rows += [
            f"{domain};{opset};{','.join(entries)}"
            for (domain, opset), entries in sorted(by_opset.items())
        ]
        rows += [use.text() for use in sorted(self.variants)]
        rows += [f"{WITHOUT};{','.join(sorted(self.without))}"] if self.without else []
        return "\n".join(rows) + "\n"

    def variants_of(self, domain: str, name: str, first: int, last: int) -> frozenset[str] | None:
        """The variants that an operator uses in a range of its versions; None: perhaps all."""
        found = frozenset(
            use.variant
            for use in self.variants
            if (use.domain, use.name) == (domain, name) and first <= use.version <= last
        )
        return found or None

    def write(self, path: Path, comments: Iterable[str] = ()) -> None:
        """Writes `text` beside the file and renames it into place.

        Raises:
            ortolan.errors.InvalidArgument: the file cannot be written.
        """
        # Imported here: a build reads configs without what writes files.
        from ortolan.ortformat.writer import write_file

        try:
            write_file(path, self.text(comments).encode("utf-8", "replace"))
        except OSError as error:
            reason = error.strerror or error
            raise InvalidArgument(f"{path}: cannot be written ({reason})") from error

    def without_domain(self, domain: str) -> Config:
        """Everything but the operators of a domain."""
        return dataclasses.replace(
            self,
            operators={k: v for k, v in self.operators.items() if k[0] != domain},
            types={k: v for k, v in self.types.items() if k[0] != domain},
            variants=frozenset(use for use in self.variants if use.domain != domain),
        )

    def place(self, key: tuple[str, str]) -> str:
        """Where an operator stands: "file:3: " or nothing."""
        line = self.lines.get(key)
        return f"{self.source}:{line}: " if line else ""


def _allowed_line(types: TypeSet) -> str:
    return "!globally_allowed_types;" + ",".join(sorted(TYPE_NAMES[t] for t in types))


def merge(configs: Iterable[Config]) -> Config:
    """What keeps everything that each of the configs keeps.

    Raises:
        ConfigError: one restricts types globally and another by operator.
    """
    merged = Config()
    for index, each in enumerate(configs):
        merged = each if index == 0 else _merge(merged, each)
    return merged


def _merge(a: Config, b: Config) -> Config:
    allowed: TypeSet | None = None
    if a.allowed_types is not None and b.allowed_types is not None:
        allowed = a.allowed_types | b.allowed_types
    elif (a.allowed_types is None) != (b.allowed_types is None) and (a.types or b.types):
        raise ConfigError(
            f"{a.source or 'a config'} and {b.source or 'a config'} cannot be merged: one allows "
            "types globally, the other by operator"
        )
    types = {}
    for key in a.types.keys() | b.types.keys():
        if key in a.operators and key in b.operators:  # without types, one of them keeps all
            if key in a.types and key in b.types:
                types[key] = a.types[key].union(b.types[key])
        else:
            types[key] = a.types.get(key) or b.types[key]
    if a.keeps_all or b.keeps_all:
        return Config(allowed_types=allowed, all_if_empty=True, source=a.source)
    named = [{(use.domain, use.name) for use in c.variants} for c in (a, b)]
    open_keys = (a.operators.keys() - named[0]) | (b.operators.keys() - named[1])
    return Config(
        {
            key: a.operators.get(key, frozenset()) | b.operators.get(key, frozenset())
            for key in a.operators.keys() | b.operators.keys()
        },
        types,
        allowed,
        False,
        frozenset(u for u in a.variants | b.variants if (u.domain, u.name) not in open_keys),
        a.without & b.without,
        {**b.lines, **a.lines},
        a.source or b.source,
    )
