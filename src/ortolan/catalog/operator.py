"""The form of a catalog entry.

A family is a file here and a C++ file of the same name in ``native/kernels``. An entry declares one
operator for a range of versions in the standard's own terms; everything downstream (the runtime's
registry, type inference, the usability check, the docs) reads it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from ortolan.catalog.types import HALVES, DataType, TypeSet

NEWEST = 255
"""Upper end of a version range that is still open."""


TYPE_RULES = (
    "same", "optional", "element", "zip_map", "map_value", "labels", "label_values", "opposite",
    "cast_to", "positive",
)  # fmt: skip
"""``TypeRule`` of ``core/registry.h``, by number: how outputs get types that no input binds."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One input or output: its name, type variable, and how often it comes."""

    name: str
    variable: str
    optional: bool = False
    variadic: bool = False
    is_sequence: bool = False
    """A sequence of tensors of the variable's type."""


@dataclasses.dataclass(frozen=True)
class AttributeSpec:
    """One attribute: kind is int, float, string, ints, floats, strings, tensor or graph."""

    name: str
    kind: str
    default: int | float | str | None = None
    required: bool = False


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator for a range of since_versions; see :func:`op` for the short way to write it."""

    name: str
    domain: str
    since: int
    until: int
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: tuple[AttributeSpec, ...]
    types: Mapping[str, TypeSet]
    """Types that each variable may have *in Ortolan*; keys of the standard's constraints."""
    kernel: str
    """C++ struct in the family's file; empty for operators that the executor runs."""
    instances: str
    """How ``run`` is compiled: "type" per type of the first key variable, "width" per byte width of
    it, "pair" per pair of both, "once" for all types together. For "type" and "pair", all types
    that have no arithmetic share one ``run()``."""
    keys: tuple[str, ...]
    """The variables that choose an instance, at most two."""
    prepare: str
    """"none", "plain" (type-independent) or "typed"."""
    infer: str
    """"own", "none", or the name of a shared rule in ``kernels/infer.h``."""
    layout: str
    control: str
    value_inputs: tuple[int, ...]
    in_place: tuple[int, ...]
    packed: tuple[int, ...]
    """Inputs that may be constants in the packed form of files."""
    flags: tuple[str, ...]
    type_attribute: str
    """Attribute ("to", "dtype", "value", "output_datatype", "output_dtype") that gives output types
    not bound by an input, or a rule (``TypeRule`` of ``core/registry.h``: "same", "labels"...)."""
    type_fallback: str
    """The type where that attribute is left out: "float", or that of a variable that is bound."""
    variants: tuple[str, ...] = ()
    """Ways of computing that the kernel has besides its general one and that a reduced build may
    leave out. Several kernels may share one."""
    fixed_variants: tuple[str, ...] = ()
    """Those that the kernel always needs."""

    @property
    def min_inputs(self) -> int:
        """Fewest inputs that a node must have."""
        required = [i for i, p in enumerate(self.inputs) if not p.optional and not p.variadic]
        return required[-1] + 1 if required else 0


def takes_containers(operator: Operator) -> bool:
    """Whether an operator is for containers; control flow only passes them on.

    Many inputs of any types are tensors of several types, as QLinearConcat has them.
    """
    return operator.control == "none" and any(
        p.is_sequence or (p.variable == "Any" and not p.variadic)
        for p in operator.inputs + operator.outputs
    )


@dataclasses.dataclass(frozen=True)
class Family:
    """The operators of one C++ file; ``simd``: compiled once per instruction set."""

    name: str
    simd: bool
    operators: tuple[Operator, ...]


_KINDS = {"int", "float", "string", "ints", "floats", "strings", "tensor", "graph"}


def _parameters(text: str) -> tuple[Parameter, ...]:
    found = []
    for item in text.split():
        match = re.fullmatch(r"(\w+)([?*]?):(?:(\w+)|seq\((\w+)\))", item)
        if match is None:
            raise ValueError(f"parameter {item!r} is not name[?*]:Variable or name:seq(Variable)")
        name, mark, variable, inner = match.groups()
        found.append(
            Parameter(name, variable or inner, mark == "?", mark == "*", inner is not None)
        )
    return tuple(found)


def _attributes(text: str) -> tuple[AttributeSpec, ...]:
    found = []
    for item in text.split():
        match = re.fullmatch(r"(\w+)(!?):(\w+)(?:=(.*))?", item)
        if match is None or match.group(3) not in _KINDS:
            raise ValueError(f"attribute {item!r} is not name[!]:kind[=default]")
        name, required, kind, default = match.groups()
        value: int | float | str | None = default
        if default is not None and kind == "int":
            value = int(default)
        elif default is not None and kind == "float":
            value = float(default)
        found.append(AttributeSpec(name, kind, value, required == "!"))
    return tuple(found)


def op(
    name: str,
    versions: str,
    inputs: str,
    outputs: str,
    attributes: str = "",
    *,
    kernel: str | None = None,
    types: Mapping[str, TypeSet] | None = None,
    instances: str = "type",
    keys: str = "T",
    domain: str = "",
    prepare: str = "none",
    infer: str = "own",
    layout: str = "plain",
    control: str = "none",
    value_inputs: tuple[int, ...] = (),
    in_place: tuple[int, ...] = (),
    packed: tuple[int, ...] = (),
    flags: tuple[str, ...] = (),
    type_attribute: str = "none",
    variants: str = "",
) -> Operator:
    """One operator.

    Args:
        name: operator type, exactly as in ONNX.
        versions: the since_versions covered: ``"7-12"``, ``"13-"`` (to the newest) or ``"9"``.
        inputs: ``"X:T W:T B?:T"``; ``?`` optional, ``*`` variadic; variable ``Any``: no constraint;
            ``S:seq(T)``: a sequence.
        outputs: likewise.
        attributes: ``"axis:int=-1 to!:int pads:ints"``; ``!`` required.
        kernel: C++ struct, by default the operator's name; "" when the executor runs it.
        types: element types per variable that have a kernel.
        instances: see :class:`Operator`.
        keys: variables that choose an instance, separated by a space.
        domain: "" is ai.onnx.
        prepare: see :class:`Operator`.
        infer: see :class:`Operator`.
        layout: plain, elementwise, spatial, axis, transpose or packed (``core/registry.h``).
        control: none, if, loop or scan.
        value_inputs: inputs whose values decide output shapes.
        in_place: inputs whose memory output 0 may take.
        packed: inputs that may be packed weights of a file.
        flags: of "shape_only", "data_dependent", "volatile".
        type_attribute: ``"dtype"``, or with the fallback ``"dtype=T1"``; see :class:`Operator`.
        variants: names, separated by a space; ``!`` where always needed; see :class:`Operator`.
    """
    first, dash, last = versions.partition("-")
    since = int(first)
    until = (int(last) if last else NEWEST) if dash else since
    return Operator(
        name, domain, since, until, _parameters(inputs), _parameters(outputs),
        _attributes(attributes), types or {}, name if kernel is None else kernel, instances,
        tuple(keys.split()), prepare, infer, layout, control, value_inputs, in_place, packed,
        flags,
        *type_attribute.partition("=")[::2],
        tuple(v for v in variants.split() if not v.endswith("!")),
        tuple(v[:-1] for v in variants.split() if v.endswith("!")),
    )  # fmt: skip


def covers(operator: Operator, version: int) -> bool:
    """Whether the entry is for this since_version."""
    return operator.since <= version <= operator.until


def takes(types: TypeSet, element: DataType) -> bool:
    """Whether elements of a type can be computed: half types without a kernel run as float32."""
    return element in types or (element in HALVES and DataType.FLOAT in types)


def type_mask(types: TypeSet) -> int:
    """Bit set as in ``core/types.h``."""
    return sum(1 << int(t) for t in types)


def types_by_width(types: TypeSet) -> dict[int, TypeSet]:
    """The types grouped by bytes of an element; strings (0) are left out."""
    widths: dict[int, set[DataType]] = {}
    for t in types:
        if t.size:
            widths.setdefault(t.size, set()).add(t)
    return {width: frozenset(widths[width]) for width in sorted(widths)}
