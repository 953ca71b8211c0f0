"""From what models need to a config, and from a config to the kernels of a build."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

import onnx

from ortolan import catalog
from ortolan.catalog.operator import Operator, covers, takes_containers
from ortolan.catalog.types import DataType, TypeSet, type_set
from ortolan.required_ops.config import TYPE_NAMES, Config, TypeUse
from ortolan.required_ops.models import RequiredOperator, casts_of_promotion, promoted

__all__ = [
    "Missing", "Selector", "contradictions", "from_uses", "minimise", "missing", "selector",
    "since_version", "variant_selector",
]  # fmt: skip

Selector = Callable[[Operator, tuple[TypeSet, TypeSet]], bool]
VariantSelector = Callable[[Operator, str], bool]

_SHAPES = type_set("int32", "int64", "bool")
# Models compute shapes with these, whatever the types of their data.
_SHAPE_OPERATORS = frozenset(
    """Add Concat Div Equal Greater Less Mul Neg Sub Cast Where ConstantOfShape Range Min Max
    ReduceProd TopK""".split()
)
_SHAPE_FAMILIES = frozenset({"movement", "shape_ops", "control"})


@dataclasses.dataclass(frozen=True)
class Missing:
    """An operator of a config that the catalog lacks, and where the config names it."""

    domain: str
    name: str
    opset: int
    place: str

    def __str__(self) -> str:
        return f"{self.place}{self.domain or 'ai.onnx'}:{self.name}, opset {self.opset}"


@cache
def since_version(domain: str, name: str, opset: int) -> int:
    """The version of an operator that an opset means; the opset itself where ONNX has none."""
    try:
        return int(onnx.defs.get_schema(name, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return opset


def entries(config: Config) -> Iterator[tuple[tuple[str, str], int, Operator | None]]:
    """Each operator and opset of a config, with the entry of the catalog that serves it."""
    for (domain, name), opsets in sorted(config.operators.items()):
        for opset in sorted(opsets):
            version = since_version(domain, name, opset)
            yield (domain, name), opset, catalog.find(domain, name, version)


def missing(config: Config) -> list[Missing]:
    """What a config asks for and the catalog does not have."""
    return [
        Missing(key[0], key[1], opset, config.place(key))
        for key, opset, operator in entries(config)
        if operator is None
    ]


def contradictions(config: Config) -> list[str]:
    """Operators that a config names although they are for what its `without` leaves out."""
    texts = type_set("string")
    found = []
    for key, _, operator in entries(config):
        if operator is None:
            continue
        use = config.types.get(key)
        named = frozenset().union(*use.inputs.values()) if use is not None else frozenset()
        first = operator.types.get(operator.keys[0]) if operator.keys else None
        for feature, is_for in (
            ("containers", takes_containers(operator)),
            ("strings", texts in (named, first)),
        ):
            if feature in config.without and is_for:
                name = f"{key[0] or 'ai.onnx'}:{key[1]}"
                found.append(f"{config.place(key)}{name} is for {feature}")
    return list(dict.fromkeys(found))


def from_uses(uses: Iterable[RequiredOperator]) -> Config:
    """The smallest config that has every use.

    Args:
        uses: of one model or of several.
    """
    operators: dict[tuple[str, str], set[int]] = {}
    types: dict[tuple[str, str], TypeUse] = {}
    open_keys: set[tuple[str, str]] = set()  # of types that a config cannot name: all are kept
    for use in sorted(uses, key=lambda u: (u.domain, u.name, u.version, u.types)):
        operator = catalog.find(use.domain, use.name, use.version)
        if operator is None or (use.domain, use.name) == ("ai.ortolan", "Layout"):
            continue  # conversions follow from what is converted
        key = (use.domain, use.name)
        operators.setdefault(key, set()).add(use.version)
        if not TYPE_NAMES.keys() >= set(use.types):
            open_keys.add(key)
            continue
        new = _type_use(operator, use)
        if new is not None:
            old = types.get(key)
            types[key] = new if old is None else _added(old, new)
    types = {key: use for key, use in types.items() if key not in open_keys}
    return Config({k: frozenset(v) for k, v in operators.items()}, types)


def _type_use(operator: Operator, use: RequiredOperator) -> TypeUse | None:
    if not operator.keys:
        return None
    inputs: dict[int, TypeSet] = {}
    outputs: dict[int, TypeSet] = {}
    for variable, data_type in zip(operator.keys, use.types, strict=False):
        places = [i for i, p in enumerate(operator.inputs) if p.variable == variable]
        if places:
            inputs[places[0]] = frozenset({data_type})
        else:
            places = [i for i, p in enumerate(operator.outputs) if p.variable == variable]
            outputs[places[0]] = frozenset({data_type})
    if operator.name == "OneHot":  # onnxruntime knows its types as triples only
        given = (DataType.INT64, inputs.get(2, type_set("float")), DataType.INT64)
        return TypeUse(triples=frozenset((given[0], values, given[2]) for values in given[1]))
    return TypeUse(inputs, outputs)


def _added(a: TypeUse, b: TypeUse) -> TypeUse:
    """Types of both; unlike `union`, an input that only one names keeps its types."""

    def added(x: Mapping[int, TypeSet], y: Mapping[int, TypeSet]) -> dict[int, TypeSet]:
        none: TypeSet = frozenset()
        return {k: x.get(k, none) | y.get(k, none) for k in x.keys() | y.keys()}

    return TypeUse(added(a.inputs, b.inputs), added(a.outputs, b.outputs), a.triples | b.triples)


def minimise(config: Config) -> Config:
    """The same selection with fewer words: one opset per entry, no types that have no kernel.

    What the catalog lacks is dropped.
    """
    opsets: dict[tuple[str, str], set[int]] = {}
    types: dict[tuple[str, str], TypeUse] = {}
    for key, opset, operator in entries(config):
        if operator is None:
            continue
        version = since_version(*key, opset)
        kept = opsets.setdefault(key, set())
        if not any(covers(operator, other) for other in kept):
            kept.add(version)
        use = config.types.get(key)
        if use is not None:
            types[key] = _with_kernels(use, operator)
    return dataclasses.replace(
        config, operators={k: frozenset(v) for k, v in opsets.items()}, types=types
    )


def _with_kernels(use: TypeUse, operator: Operator) -> TypeUse:
    def kept(given: Mapping[int, TypeSet], is_input: bool) -> dict[int, TypeSet]:
        parameters = operator.inputs if is_input else operator.outputs
        found = {}
        for index, names in given.items():
            variable = parameters[min(index, len(parameters) - 1)].variable
            if variable in operator.keys:
                found[index] = names & operator.types.get(variable, frozenset()) or names
        return found

    if use.triples:
        return use
    return TypeUse(kept(use.inputs, True), kept(use.outputs, False))


def selector(config: Config) -> Selector | None:
    """Which compiled instances a config keeps; None keeps all.

    What the loader puts into a graph is kept too: layout conversions around spatial operators, and
    casts around operators that compute float16 in float32.
    """
    if config.keeps_all and config.allowed_types is None:
        return None
    by_entry: dict[int, tuple[Operator, list[TypeUse | None]]] = {}

    def keep(operator: Operator, use: TypeUse | None) -> None:
        by_entry.setdefault(id(operator), (operator, []))[1].append(use)

    halves = _half_values(config)
    if config.keeps_all:
        for family in catalog.FAMILIES:
            for operator in family.operators:
                keep(operator, None)
    for key, _, entry in entries(config):
        if entry is not None:
            use = config.types.get(key)
            keep(entry, use)
            for implied, implied_use in _implied(entry, use, config.allowed_types, halves):
                keep(implied, implied_use)
    conversion = catalog.find("ai.ortolan", "Layout", 1)
    if conversion is not None and any(o.layout == "spatial" for o, _ in by_entry.values()):
        results = frozenset().union(
            *(
                _results(operator, use)
                for operator, uses in by_entry.values()
                if operator is not conversion and operator.layout not in ("plain", "spatial")
                for use in uses
            )
        )
        keep(conversion, TypeUse({0: results}))
    share = catalog.find("ai.ortolan", "Share", 1)
    if share is not None and _has_containers(entry for entry, _ in by_entry.values()):
        keep(share, None)  # Identity of a sequence

    texts = type_set("string") if "strings" in config.without else None

    def wanted(operator: Operator, types: tuple[TypeSet, TypeSet]) -> bool:
        if texts in types:
            return False
        _, uses = by_entry.get(id(operator), (operator, []))
        return any(_serves(operator, types, use) for use in uses) and (
            config.allowed_types is None or _allowed(operator, types, config.allowed_types)
        )

    return wanted


def variant_selector(config: Config) -> VariantSelector | None:
    """Which variants of the kernels that a config keeps are kept too; None keeps all."""
    if not config.variants:
        return None

    def wanted(operator: Operator, variant: str) -> bool:
        used = config.variants_of(operator.domain, operator.name, operator.since, operator.until)
        return used is None or variant in used

    return wanted


def _has_containers(operators: Iterable[Operator]) -> bool:
    return any(map(takes_containers, operators))


def _half_values(config: Config) -> TypeSet:
    """Half precision that a model may have where operators are named for what they compute in."""
    every = type_set("float16", "bfloat16")
    if ("", "Cast") not in config.operators:
        return frozenset()
    use = config.types.get(("", "Cast"))
    if use is None:
        return every
    return every & frozenset().union(*use.inputs.values(), *use.outputs.values())


def _implied(
    operator: Operator, use: TypeUse | None, allowed: TypeSet | None, halves: TypeSet
) -> Iterator[tuple[Operator, TypeUse | None]]:
    """What the loader puts around an operator.

    Args:
        operator: what is kept.
        use: with these types.
        allowed: the only types, if they are named for all operators together.
        halves: half precision in which values may be.
    """
    if operator.layout == "spatial":
        conversion = catalog.find("ai.ortolan", "Layout", 1)
        variable = operator.inputs[0].variable
        given = operator.types.get(variable)
        if use is not None and 0 in use.inputs:
            given = use.inputs[0]
        if conversion is not None:
            types = None if given is None else TypeUse({0: promoted_types(given) | halves})
            yield conversion, types
    for cast in casts_of_promotion(_halves(operator, use, allowed)):
        found = catalog.find(cast.domain, cast.name, cast.version)
        if found is not None:
            yield found, _type_use(found, cast)


def _results(operator: Operator, use: TypeUse | None) -> TypeSet:
    """The types of results that may keep the layout of what is before, a convolution perhaps."""
    found: set[DataType] = set()
    for index, output in enumerate(operator.outputs):
        places = [k for k, p in enumerate(operator.inputs) if p.variable == output.variable]
        named = [use.inputs[k] for k in places if k in use.inputs] if use is not None else []
        if use is not None and index in use.outputs:
            named = [use.outputs[index]]
        found.update(*(named or [operator.types.get(output.variable, frozenset())]))
    return promoted_types(frozenset(found))


def promoted_types(types: TypeSet) -> TypeSet:
    """The types, with that in which half precision is computed."""
    halves = types & type_set("float16", "bfloat16")
    return types | type_set("float") if halves else types


def _halves(operator: Operator, use: TypeUse | None, allowed: TypeSet | None) -> TypeSet:
    """The half-precision types that a config asks of an operator that computes them in float."""
    named: TypeSet = allowed or frozenset()
    if use is not None:
        named = frozenset().union(*use.inputs.values(), *use.outputs.values())
    return frozenset(
        t
        for variable in operator.keys
        for t in named
        if promoted(operator.types.get(variable, frozenset()), t) != t
    )


def _serves(operator: Operator, types: tuple[TypeSet, TypeSet], use: TypeUse | None) -> bool:
    """Whether an instance computes what a use needs."""
    if use is None:
        return True
    by_variable = dict(zip(operator.keys, types, strict=False))

    def fits(variable: str, needed: TypeSet) -> bool:
        given = by_variable.get(variable)
        if given is None:
            return True
        every = operator.types.get(variable, frozenset())
        return any(promoted(every, t) in given for t in needed)

    def all_fit(needs: Mapping[int, TypeSet], is_input: bool) -> bool:
        parameters = operator.inputs if is_input else operator.outputs
        return all(
            fits(parameters[min(i, len(parameters) - 1)].variable, needed)
            for i, needed in needs.items()
            if parameters
        )

    if use.triples:
        order = (0, 2, 1)
        return any(
            all(
                fits(operator.inputs[i].variable, frozenset({t}))
                for i, t in zip(order, triple, strict=False)
            )
            for triple in use.triples
        )
    return all_fit(use.inputs, True) and all_fit(use.outputs, False)


def _allowed(operator: Operator, types: tuple[TypeSet, TypeSet], allowed: TypeSet) -> bool:
    computes_shapes = operator.name in _SHAPE_OPERATORS or _family(operator) in _SHAPE_FAMILIES
    for variable, given in zip(operator.keys, types, strict=False):
        every = operator.types.get(variable, frozenset())
        if any(promoted(every, t) in given for t in allowed):
            continue
        if given & _SHAPES and (computes_shapes or every <= _SHAPES):
            continue
        return False
    return True


@cache
def _families() -> Mapping[int, str]:
    return {id(o): family.name for family in catalog.FAMILIES for o in family.operators}


def _family(operator: Operator) -> str:
    return _families().get(id(operator), "")
