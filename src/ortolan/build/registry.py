"""Writes the runtime's operator registry from the catalog.

Input: the catalog's families and the instruction sets of a target, best last. Output: C++ sources,
one ``<isa>/<family>.inc`` with the thunks of each family and instruction set, and ``registry.cc``
with the two-level table and the one switch that calls kernels by number. What the selection leaves
out is neither compiled nor linked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from ortolan import catalog
from ortolan.catalog.onnx_versions import newest_version, since_versions
from ortolan.catalog.operator import (
    TYPE_RULES,
    Family,
    Operator,
    Parameter,
    takes_containers,
    type_mask,
    types_by_width,
)
from ortolan.catalog.types import HALVES, DataType, TypeSet

PORTABLE = "portable"
"""Pseudo instruction set of families that are compiled once, with the baseline's flags."""

_NO_VARIABLE, _FREE_VARIABLE, _OPTIONAL, _SEQUENCE_OF = 255, 128, 64, 16
_LAYOUTS = {
    "plain": "kPlain", "elementwise": "kElementwise", "spatial": "kSpatial", "axis": "kAxis",
    "transpose": "kTranspose", "packed": "kPacked",
}  # fmt: skip
_CONTROLS = {"none": "kNone", "if": "kIf", "loop": "kLoop", "scan": "kScan"}
_FLAGS = {"shape_only": 1, "data_dependent": 2, "volatile": 4}
_TYPE_ATTRIBUTES = {
    "none": 0, "to": 1, "dtype": 2, "value": 3, "output_datatype": 4, "output_dtype": 5,
}  # fmt: skip
_PACKED = frozenset(t for t in DataType if t >= DataType.UINT4)  # less than a byte, or unused
_RULE = 7
_FALLBACK = 16
_MAX_VARIANTS = 26  # a letter each
_TEXT = "Text"
_TEXTS = frozenset({DataType.STRING})
_BOTTLENECK = ("ai.ortolan", "InvertedBottleneck")
_BOTTLENECK_PART = ("com.microsoft", "FusedConv")
_WORDS = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}

Selector = Callable[[Operator, tuple[TypeSet, TypeSet]], bool]
"""Whether an instance (its operator, the types of its two keys) is wanted."""

VariantSelector = Callable[[Operator, str], bool]
"""Whether an operator that is kept needs a variant of its kernel."""


def operator_hash(domain: str, name: str) -> int:
    """``operator_hash`` of ``core/registry.h``."""
    value = 2166136261
    for byte in f"{domain}:{name}".encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value ^ value >> 15


@dataclasses.dataclass(frozen=True)
class Instance:
    """One compiled ``run``: its template arguments and the types that it serves."""

    arguments: tuple[str, ...]
    types_a: TypeSet
    types_b: TypeSet


def instances(operator: Operator) -> list[Instance]:
    """The ways in which ``run`` is compiled for an operator."""
    key = operator.types.get(operator.keys[0], frozenset()) if operator.keys else frozenset()
    second: TypeSet = operator.types[operator.keys[1]] if len(operator.keys) > 1 else frozenset()
    if operator.instances == "once" or not operator.keys:
        return [Instance((), key, second)]
    if operator.instances == "type":
        plain = frozenset(t for t in key if t.has_arithmetic or t == DataType.STRING)
        found = [Instance((t.cpp_name,), frozenset({t}), second) for t in sorted(plain)]
        return found + ([Instance((), key - plain, second)] if key - plain else [])
    widths = types_by_width(key)
    if operator.instances == "width":
        return [Instance((_WORDS[w],), types, second) for w, types in widths.items()]
    if operator.instances == "pair_width":
        return [
            Instance((_WORDS[w], t.cpp_name), types, frozenset({t}))
            for w, types in widths.items()
            for t in sorted(second)
        ]
    if operator.instances == "pair":
        return _pairs(operator, key, second)
    raise ValueError(f"{operator.name}: unknown instances {operator.instances!r}")


def _pairs(operator: Operator, key: TypeSet, second: TypeSet) -> list[Instance]:
    if operator.keys[0] == operator.keys[1]:  # both operands have the one type
        return [Instance((t.cpp_name, t.cpp_name), frozenset({t}), frozenset({t})) for t in key]
    plain, plain_second = (frozenset(t for t in s if t.has_arithmetic) for s in (key, second))
    pairs = [
        Instance((a.cpp_name, b.cpp_name), frozenset({a}), frozenset({b}))
        for a in sorted(plain)
        for b in sorted(plain_second)
    ]
    texts = frozenset({DataType.STRING})
    narrow, narrow_second = key - plain - texts, second - plain_second - texts
    rest = [
        Instance((), narrow, second - texts),
        Instance((), plain, narrow_second),
        Instance((_TEXT,), key & texts, second),
        Instance((_TEXT,), key - texts, second & texts),
    ]
    return pairs + [instance for instance in rest if instance.types_a and instance.types_b]


class _Functions:
    """Numbers the thunks and remembers in which file each one goes."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}  # qualified name -> number, from 1
        self.thunks: dict[tuple[str, str], dict[str, str]] = {}  # (isa, family) -> name -> body

    def add(self, isa: str, family: str, name: str, body: str) -> int:
        self.thunks.setdefault((isa, family), {})[name] = body
        return self.number(f"{isa}::{name}")

    def number(self, qualified: str) -> int:
        return self.numbers.setdefault(qualified, len(self.numbers) + 1)


def _infer(functions: _Functions, isa: str, family: Family, operator: Operator) -> int:
    if operator.infer == "none":
        return 0
    if operator.infer.startswith("infer_"):
        return functions.number(f"{PORTABLE}::{operator.infer}")
    method = f"{operator.kernel}::infer" if operator.infer == "own" else operator.infer
    name = method.replace("::", "_")
    return functions.add(isa, family.name, name, f"return {method}(c);")


def _prepare(
    functions: _Functions, isa: str, family: Family, operator: Operator, instance: Instance
) -> int:
    if operator.prepare == "none":
        return 0
    typed = operator.prepare == "typed"
    suffix = "_" + "_".join(instance.arguments) if typed else ""
    arguments = f"<{', '.join(instance.arguments)}>" if typed else ""
    name = f"{operator.kernel}_prepare{suffix}"
    body = f"return {operator.kernel}::prepare{arguments}(c);"
    return functions.add(isa, family.name, name, body)


def _run(
    functions: _Functions, isa: str, family: Family, operator: Operator, instance: Instance
) -> int:
    suffix = "".join("_" + a for a in instance.arguments)
    arguments = f"<{', '.join(instance.arguments)}>" if instance.arguments else ""
    name = f"{operator.kernel}_run{suffix}"
    return functions.add(isa, family.name, name, f"return {operator.kernel}::run{arguments}(c);")


def _bits(indexes: Iterable[int]) -> int:
    return sum(1 << i for i in indexes)


@dataclasses.dataclass
class _Tables:
    """The rows as they grow; kernels and signatures are stored once each."""

    rows: dict[tuple[str, str], list[str]] = dataclasses.field(default_factory=dict)
    kernels: dict[str, int] = dataclasses.field(default_factory=dict)
    signatures: dict[bytes, int] = dataclasses.field(default_factory=dict)
    signature_bytes: int = 0

    def signature(self, operator: Operator) -> int:
        encoded = _signature(operator)
        if encoded not in self.signatures:
            self.signatures[encoded] = self.signature_bytes
            self.signature_bytes += len(encoded)
        return self.signatures[encoded]


def _variables(operator: Operator) -> list[str]:
    used = [p.variable for p in operator.inputs + operator.outputs if p.variable != "Any"]
    return list(dict.fromkeys(used))


def _type_source(operator: Operator) -> int:
    """The attribute that gives types, and above its 3 bits what does where it is left out."""
    if operator.type_attribute in TYPE_RULES:
        return _RULE | TYPE_RULES.index(operator.type_attribute) << 3
    fallback, variables = operator.type_fallback, _variables(operator)
    if fallback in variables:
        code = _FALLBACK + variables.index(fallback)
    else:
        code = int(DataType[fallback.upper()]) if fallback else 0
    return _TYPE_ATTRIBUTES[operator.type_attribute] | code << 3


def _signature(operator: Operator) -> bytes:
    variables = _variables(operator)
    masks = b"".join(
        type_mask(operator.types.get(v, frozenset(DataType) - {DataType.UNDEFINED})).to_bytes(
            4, "little"
        )
        for v in variables
    )

    def number(parameter: Parameter) -> int:
        if parameter.variable == "Any":
            return _FREE_VARIABLE
        return variables.index(parameter.variable) + _SEQUENCE_OF * parameter.is_sequence

    keys = [variables.index(k) for k in operator.keys]
    keys += [_NO_VARIABLE] * (2 - len(keys))
    variadic = int(bool(operator.inputs and operator.inputs[-1].variadic))
    variadic |= int(bool(operator.outputs and operator.outputs[-1].variadic)) << 1
    required = [i for i, p in enumerate(operator.outputs) if not p.optional]
    variadic |= (required[-1] + 1 if required else 0) << 2
    header = bytes(
        [
            operator.min_inputs, len(operator.inputs), variadic, len(operator.outputs),
            keys[0], keys[1], _type_source(operator), len(variables),
        ]
    )  # fmt: skip
    inputs = [number(p) + _OPTIONAL * p.optional for p in operator.inputs]
    return header + masks + bytes(inputs + [number(p) for p in operator.outputs])


def _add_operator(
    tables: _Tables, functions: _Functions, family: Family, operator: Operator,
    isas: Sequence[str], wanted: Selector,
) -> None:  # fmt: skip
    levels = list(enumerate(isas)) if family.simd else [(0, PORTABLE)]
    for level, isa in reversed(levels):
        for instance in instances(operator):
            if not wanted(operator, (instance.types_a, instance.types_b)):
                continue
            numbers = (0, 0, 0)
            if operator.kernel:
                numbers = (
                    _prepare(functions, isa, family, operator, instance),
                    _infer(functions, isa, family, operator),
                    _run(functions, isa, family, operator, instance),
                )
            kernel = (
                f"{{{numbers[0]}, {numbers[1]}, {numbers[2]},"
                f" LayoutClass::{_LAYOUTS[operator.layout]},"
                f" Control::{_CONTROLS[operator.control]}, {_bits(operator.value_inputs)},"
                f" {_bits(operator.in_place)}, {_bits(operator.packed)},"
                f" {sum(_FLAGS[f] for f in operator.flags)}}}"
            )
            index = tables.kernels.setdefault(kernel, len(tables.kernels))
            masks = [type_mask(types) for types in (instance.types_a, instance.types_b)]
            tables.rows.setdefault((operator.domain, operator.name), []).append(
                f"{{{operator.since}, {operator.until}, {level}, 0, {masks[0]:#x}, {masks[1]:#x},"
                f" {index}, {tables.signature(operator)}}}"
            )


def _registry_source(tables: _Tables, functions: _Functions, *, reduced: bool) -> str:
    operators: list[str] = []
    rows: list[str] = []
    hashes: dict[int, tuple[str, str]] = {}
    for key in sorted(tables.rows, key=lambda k: operator_hash(*k)):
        value = operator_hash(*key)
        if value in hashes:
            raise ValueError(f"operators {key} and {hashes[value]} have the same hash")
        hashes[value] = key
        operators.append(
            f"    {{{value:#010x}u, {len(rows)}, {len(tables.rows[key])}}},  // {key[0]}:{key[1]}"
        )
        rows += [f"    {row}," for row in tables.rows[key]]
    declarations: dict[str, list[str]] = {}
    for qualified in functions.numbers:
        isa, _, name = qualified.partition("::")
        declarations.setdefault(isa, []).append(f"Status {name}(Context& c);")
    signatures = b"".join(tables.signatures)
    lines = [
        "// Made by ortolan.build.registry from the catalog. Do not edit.",
        '#include "core/registry.h"',
        "namespace ortolan {",
        *(
            f"namespace {isa} {{\n" + "\n".join(names) + "\n}"
            for isa, names in declarations.items()
        ),
        "extern const Operator kOperators[] = {", *operators, "    {0, 0, 0}};",
        f"extern const uint32_t kOperatorCount = {len(operators)};",
        f"extern const bool kIsReduced = {str(reduced).lower()};",
        "extern const Row kRows[] = {", *rows, "    {}};",
        "extern const KernelInfo kKernels[] = {",
        *(f"    {k}," for k in tables.kernels), "    {}};",
        "extern const uint8_t kSignatures[] = {"
        + ", ".join(map(str, signatures or b"\0")) + "};",
        "Status invoke(uint16_t function, [[maybe_unused]] Context& c) {",
        "  switch (function) {",
        *(f"    case {number}: return {name}(c);" for name, number in functions.numbers.items()),
        "  }", "  return Status::kOk;", "}", "}  // namespace ortolan", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _uses(kept: Sequence[Operator], select: Selector, types: TypeSet) -> bool:
    """Whether some operator may meet values of these types."""
    every = frozenset(DataType)
    for operator in kept:
        for variable, possible in operator.types.items():
            if not possible & types:
                continue
            if variable not in operator.keys:
                return True
            place = operator.keys.index(variable)
            if select(operator, (types, every) if place == 0 else (every, types)):
                return True
    return False


def _has_containers(operator: Operator) -> bool:
    is_control = operator.control != "none"
    return takes_containers(operator) or (
        is_control and any(p.variable == "Any" for p in operator.inputs + operator.outputs)
    )


def _without_containers(select: Selector) -> Selector:
    """The same selection but what takes or gives containers; control flow only passes them on."""

    def selected(operator: Operator, types: tuple[TypeSet, TypeSet]) -> bool:
        return not takes_containers(operator) and select(operator, types)

    return selected


def _without_bottlenecks(
    select: Selector, variants: VariantSelector
) -> tuple[Selector, VariantSelector]:
    """The same selection where the loader makes convolutions of InvertedBottleneck."""
    whole = catalog.find(*_BOTTLENECK, 1)
    part = catalog.find(*_BOTTLENECK_PART, 1)
    assert whole is not None and part is not None

    def selected(operator: Operator, types: tuple[TypeSet, TypeSet]) -> bool:
        if operator is whole:
            return False
        return select(operator, types) or (operator is part and select(whole, types))

    def has_variant(operator: Operator, variant: str) -> bool:
        if variants(operator, variant):
            return True
        is_used = variant in ("depthwise", "pointwise") or variants(whole, variant)
        return operator is part and is_used

    return selected, has_variant


def _features_source(
    kept: Sequence[Operator], select: Selector, without: frozenset[str],
    *, onnx: bool, records: bool, splits: bool,
) -> str:  # fmt: skip
    """What the core need not have where no operator needs it."""
    casts = [o for o in kept if o.name == "Cast"]
    features = {
        "kHasControl": any(o.control != "none" for o in kept),
        "kHasLoops": any(o.control in ("loop", "scan") for o in kept),
        "kHasLoop": any(o.control == "loop" for o in kept),
        "kHasScan": any(o.control == "scan" for o in kept),
        "kReadsOnnx": onnx,
        "kRecordsVariants": records,
        "kSplitsBottlenecks": splits,
        "kHasLayouts": any(o.layout in ("spatial", "packed") for o in kept),
        "kHasContainers": "containers" not in without and any(map(_has_containers, kept)),
        "kHasTexts": "strings" not in without and _uses(kept, select, _TEXTS),
        "kHasSparse": "sparse" not in without,
        "kHasHalves": _uses(casts, select, HALVES),
        "kHasPacked": _uses(kept, select, _PACKED),
        # Gemm multiplies two matrices, the others stacks of them.
        "kHasStacks": any(o.kernel in ("MatMul", "Einsum") or "Attention" in o.name for o in kept),
        "kHasUnpack": any(o.name == "Unpack" for o in kept),
        "kHasTypeAttributes": any(o.type_attribute not in ("none", *TYPE_RULES) for o in kept),
        "kHasTypeRules": any(o.type_attribute in TYPE_RULES for o in kept),
        # Otherwise no result depends on shapes alone, and all shapes are known before a run.
        "kHasConcat": any(o.name == "Concat" for o in kept),
        "kHasKnown": any("shape_only" in o.flags for o in kept),
        "kHasDynamic": any(
            o.control != "none" or o.value_inputs or "data_dependent" in o.flags for o in kept
        ),
    }
    lines = ["// Made by ortolan.build.registry from the catalog. Do not edit.", "#pragma once"]
    lines += ["namespace ortolan {"]
    lines += [f"constexpr bool {k} = {str(v).lower()};" for k, v in features.items()]
    return "\n".join([*lines, "}  // namespace ortolan", ""])


def variant_numbers(families: Iterable[Family]) -> dict[str, int]:
    """All variants of kernels by name, as the runtime numbers them."""
    operators = [o for family in families for o in family.operators]
    names = sorted({v for o in operators for v in o.variants + o.fixed_variants})
    if len(names) > _MAX_VARIANTS:
        raise ValueError(f"{len(names)} variants, but a record has {_MAX_VARIANTS}")
    return {name: number for number, name in enumerate(names)}


def _variants_source(
    families: Sequence[Family], kept: Sequence[Operator], wanted: VariantSelector
) -> str:
    """Which variants of kernels this build has: kDepthwise..."""
    lines = ["// Made by ortolan.build.registry from the catalog. Do not edit.", "#pragma once"]
    lines += ['#include "core/variant.h"', "namespace ortolan::variants {"]
    for name, number in variant_numbers(families).items():
        built = any(
            name in o.fixed_variants or (name in o.variants and wanted(o, name)) for o in kept
        )
        constant = "k" + "".join(word.capitalize() for word in name.split("_"))
        lines.append(f"constexpr Variant {constant} = {{{number}, {str(built).lower()}}};")
    return "\n".join([*lines, "}  // namespace ortolan::variants", ""])


def _thunks_source(isa: str, bodies: Mapping[str, str]) -> str:
    lines = ["// Made by ortolan.build.registry from the catalog. Do not edit."]
    lines += [f"namespace ortolan::{isa} {{"]
    lines += [f"Status {name}(Context& c) {{ {body} }}" for name, body in sorted(bodies.items())]
    return "\n".join([*lines, "}", ""])


def _versions_source(tables: _Tables) -> str:
    """The versions of each operator in the order of kOperators, a bit each."""
    keys = sorted(tables.rows, key=lambda k: operator_hash(*k))
    masks = [sum(1 << version for version in since_versions(*key)) for key in keys]
    if any(mask >> 32 for mask in masks):
        raise ValueError("a version of an operator has no place in 32 bits")
    lines = [
        "// Made by ortolan.build.registry from the catalog. Do not edit.",
        '#include "onnx/versions.h"',
        "namespace ortolan {",
        "extern const uint32_t kSinceVersions[] = {" + ", ".join(map(hex, [*masks, 0])) + "};",
        f"extern const uint8_t kNewestOpset = {newest_version('')};",
        f"extern const uint8_t kNewestMlOpset = {newest_version('ai.onnx.ml')};",
        "}  // namespace ortolan", "",
    ]  # fmt: skip
    return "\n".join(lines)


def generate(
    families: Iterable[Family],
    isas: Sequence[str],
    wanted: Selector | None = None,
    *,
    variants: VariantSelector | None = None,
    onnx: bool = False,
    records: bool = False,
    splits: bool = False,
    without: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """The generated sources by relative path.

    Args:
        families: the catalog, or a part of it.
        isas: instruction sets of the target from the baseline up, e.g. ("sse2", "avx2", "avx512").
        wanted: selection of instances for reduced builds; None takes all.
        variants: those of kernels that are wanted; None takes all.
        onnx: for a build with the reader of ONNX models.
        records: for a build that tells which variants a model uses.
        without: features that no model has, see `required_ops.config.FEATURES`.
        splits: for a build without a kernel for InvertedBottleneck: it loads convolutions instead.

    Raises:
        ValueError: two operators have the same hash, or an entry is malformed.
    """
    tables, functions = _Tables(), _Functions()
    families = list(families)
    select = wanted or (lambda operator, types: True)
    if "containers" in without:
        select = _without_containers(select)
    has_variant = variants or (lambda operator, variant: True)
    if splits:
        bottleneck = catalog.find(*_BOTTLENECK, 1)
        splits = bottleneck is not None and any(
            select(bottleneck, (i.types_a, i.types_b)) for i in instances(bottleneck)
        )
    if splits:
        select, has_variant = _without_bottlenecks(select, has_variant)
    kept: list[Operator] = []
    for family in families:
        for operator in family.operators:
            _add_operator(tables, functions, family, operator, isas, select)
            if any(select(operator, (i.types_a, i.types_b)) for i in instances(operator)):
                kept.append(operator)
    files = {
        f"{isa}/{family}.inc": _thunks_source(isa, bodies)
        for (isa, family), bodies in functions.thunks.items()
    }
    files["registry.cc"] = _registry_source(tables, functions, reduced=wanted is not None)
    files["ortolan_features.h"] = _features_source(
        kept, select, without, onnx=onnx, records=records, splits=splits
    )
    files["ortolan_variants.h"] = _variants_source(families, kept, has_variant)
    if onnx:
        files["onnx_versions.cc"] = _versions_source(tables)
    return files
