"""Cases that are made from the written ones: for types that no case has, and for channels_last.

A type variant takes the smallest case of a catalog entry and draws small whole numbers of the
wanted type; a channels_last variant sends the images of a case through a pool that changes nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx.defs

import cases_lib as lib
from ortolan.catalog import FAMILIES
from ortolan.catalog.operator import TYPE_RULES, Operator, covers
from ortolan.catalog.types import FLOATS, INDEX, INTS, SIGNED, DataType

# Where the numbers of a case are computed if there is no kernel for its own type.
_STAND_INS = {True: ("int64", "int32", "float", "double"), False: ("float", "double", "int32")}
# Operators that no ONNX file holds: the runtime itself puts them between others.
INTERNAL_DOMAIN = "ai.ortolan"


@functools.cache
def all_cases() -> dict[str, lib.Case]:
    """Every case by its id: the written ones and what is made from them."""
    written = lib.load_cases()
    made = [
        *written, *type_variants(written), *channels_last_variants(written),
        *packed_variants(written),
    ]  # fmt: skip
    return {case.id: case for case in made}


def entries() -> list[Operator]:
    """The catalog's entries that an ONNX file can use."""
    every = itertools.chain.from_iterable(family.operators for family in FAMILIES)
    return [entry for entry in every if entry.domain != INTERNAL_DOMAIN]


def channels_last_variants(cases: Iterable[lib.Case]) -> Iterator[lib.Case]:
    """Cases again whose operator may see images in channels_last order."""
    for case in cases:
        entry = case.entry
        if entry is None or entry.layout not in ("elementwise", "axis", "transpose"):
            continue
        is_empty = any(0 in spec["shape"] for spec in case.inputs if spec is not None)
        if case.error is None and case.model is None and lib.images(case) and not is_empty:
            yield dataclasses.replace(case, name=f"{case.name}@channels_last", channels_last=True)


def packed_variants(cases: Iterable[lib.Case]) -> Iterator[lib.Case]:
    """Cases again whose weights come packed, as files of the level `all` have them."""
    for case in cases:
        entry = case.entry
        if entry is None or case.error is not None or case.model is not None:
            continue
        if entry.packed and all(_can_be_packed(case, k) for k in entry.packed):
            constants = tuple({*case.constants, *entry.packed})
            yield dataclasses.replace(
                case, name=f"{case.name}@packed", packed=True, constants=constants
            )


def _can_be_packed(case: lib.Case, k: int) -> bool:
    """Whether input k is what the converter packs but for its size."""
    spec = case.inputs[k] if k < len(case.inputs) else None
    if spec is None or spec["type"] != "float" or len(spec["shape"]) < 2:
        return False
    given = case.attributes
    if given.get("alpha", 1) != 1 or given.get("transBatchB") or given.get("group", 1) != 1:
        return False
    shape = spec["shape"]
    is_image = case.family == "convolution"
    columns = shape[0] if is_image or given.get("transB") else shape[-1]
    rows = math.prod(shape) // max(columns, 1)
    is_one = len(shape) > 2 if is_image else len(shape) == 2
    return is_one and rows > 1 and columns > 1 and columns % 8 == 0


def type_variants(cases: Sequence[lib.Case]) -> Iterator[lib.Case]:
    """A case for every type that a catalog entry declares and no case has."""
    for entry in entries():
        own = [case for case in cases if case.entry is entry]
        # Cases that state their outputs are often those that onnxruntime refuses.
        order = sorted(filter(_is_template, own), key=_elements)
        templates = sorted(order, key=lambda case: not isinstance(case.outputs, int))
        for types in missing_types(entry, own):
            made = (_retyped(entry, case, types) for case in _preferred(templates, types))
            yield from itertools.islice((case for case in made if case is not None), 1)


def missing_types(entry: Operator, cases: Iterable[lib.Case]) -> list[dict[str, str]]:
    """Types by variable that are allowed and that no case has; pairs where pairs have kernels."""
    seen = [_types_of(entry, case) for case in cases if case.error is None]
    if len(set(entry.keys)) == 2 and entry.instances.startswith("pair"):
        groups = [entry.keys]
    else:
        groups = [(variable,) for variable in entry.types]
    missing = []
    if entry.type_attribute in TYPE_RULES:  # what decides is in the attributes of written cases
        bound = {parameter.variable for parameter in entry.inputs}
        groups = [group for group in groups if bound.issuperset(group)]
    for group in groups:
        for choice in itertools.product(*(sorted(entry.types[v]) for v in group)):
            types = {v: t.onnx_name for v, t in zip(group, choice, strict=True)}
            if len(group) == 2 and not _has_instance(choice):
                continue
            has = any(types.items() <= other.items() for other in seen)
            if not has and _opset(entry, types, entry.since) is not None:
                missing.append(types)
    return missing


def _has_instance(pair: Sequence[DataType]) -> bool:
    """Whether a pair has code of its own; types without arithmetic all go through float."""
    return all(t.has_arithmetic for t in pair) or DataType.FLOAT in pair


def _types_of(entry: Operator, case: lib.Case) -> dict[str, str]:
    """Types by variable as the inputs, outputs and attributes of a case have them."""
    types = {
        _parameter(entry.inputs, k): spec["type"]
        for k, spec in enumerate(case.inputs)
        if spec is not None and entry.inputs
    }
    for k in range(case.count):
        variable = _parameter(entry.outputs, k)
        allowed = entry.types.get(variable, frozenset())
        if len(allowed) == 1:
            types.setdefault(variable, next(iter(allowed)).onnx_name)
        elif entry.type_attribute not in ("none", *TYPE_RULES):
            types.setdefault(variable, _attribute_type(entry, case.attributes, types))
    return types


def _parameter(parameters: Sequence[Any], index: int) -> str:
    variable: str = parameters[min(index, len(parameters) - 1)].variable
    return variable


def _attribute_type(
    entry: Operator, attributes: Mapping[str, Any], types: Mapping[str, str]
) -> str:
    value = attributes.get(entry.type_attribute)
    if isinstance(value, dict):
        return str(value["type"])
    if value is None:
        return types.get(entry.type_fallback) or entry.type_fallback or "float"
    return DataType(value).onnx_name


def _is_template(case: lib.Case) -> bool:
    return case.error is None and case.model is None and _elements(case) > 0


def _elements(case: lib.Case) -> int:
    return sum(math.prod(spec["shape"]) for spec in case.inputs if spec is not None)


def _preferred(cases: list[lib.Case], types: Mapping[str, str]) -> list[lib.Case]:
    """Cases of the same kind of number first: Mod has an attribute that belongs to it."""

    def kind(name: str) -> bool:
        return lib.data_type(name) in FLOATS

    def is_other(case: lib.Case) -> bool:
        first = next((spec["type"] for spec in case.inputs if spec is not None), "float")
        return kind(first) != kind(next(iter(types.values())))

    return sorted(cases, key=is_other)


def _opset(entry: Operator, types: Mapping[str, str], wanted: int) -> int | None:
    """The opset that is wanted, else another one in which the standard allows the types."""
    schemas = _schemas().get((entry.domain, entry.name))
    if schemas is None:
        return wanted
    valid = [
        since
        for since, allowed in schemas.items()
        if covers(entry, since)
        and all(f"tensor({t})" in allowed.get(v, (f"tensor({t})",)) for v, t in types.items())
    ]
    if not valid:
        return None
    if max((since for since in schemas if since <= wanted), default=0) in valid:
        return wanted
    return min((since for since in valid if since > wanted), default=max(valid))


@functools.cache
def _schemas() -> dict[tuple[str, str], dict[int, dict[str, frozenset[str]]]]:
    """By domain and operator, for each since_version: what the type variables allow."""
    found: dict[tuple[str, str], dict[int, dict[str, frozenset[str]]]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        allowed = {
            constraint.type_param_str: frozenset(constraint.allowed_type_strs)
            for constraint in schema.type_constraints
        }
        versions = found.setdefault((schema.domain, schema.name), {})
        versions[schema.since_version] = allowed
    return found


def _retyped(entry: Operator, case: lib.Case, types: Mapping[str, str]) -> lib.Case | None:
    """The case in other types; None where that would not be the same question."""
    if not isinstance(case.outputs, int) and None in case.outputs:
        return None
    opset = _opset(entry, types, case.opset)
    attributes = dict(case.attributes)
    bound = {_parameter(entry.inputs, k) for k in range(len(case.inputs)) if entry.inputs}
    for variable, name in types.items():
        if variable in bound:
            continue
        if entry.type_attribute == "value":
            attributes["value"] = {"type": name, "shape": [1], "data": [1]}
        elif entry.type_attribute != "none":
            attributes[entry.type_attribute] = int(lib.data_type(name))
        else:
            return None
    inputs = _retyped_inputs(entry, case, types)
    if inputs is None or opset is None:
        return None
    made = dataclasses.replace(
        case,
        name="_".join(f"{v}_{t}" for v, t in types.items()) + f"@{opset}",
        opset=opset,
        inputs=inputs,
        outputs=case.count,
        attributes=attributes,
        tolerance=None,
        note="",
        types=types,
    )
    if entry.name == "BitCast":  # to the type that it is
        (name,) = types.values()
        spec = {**(inputs[0] or {}), "type": name}
        attributes["to"] = int(lib.data_type(name))
        same = _as_written(lib.make_array(spec), name)
        return dataclasses.replace(
            made, inputs=(spec,), attributes=attributes, outputs=(same,), types={}
        )
    is_narrow = not all(lib.data_type(t).has_arithmetic for t in types.values())
    if entry.name == "Cast" and is_narrow:
        return dataclasses.replace(made, outputs=(_cast_by_numpy(made),))
    return dataclasses.replace(made, stand_ins=tuple(_stand_ins(entry, made)))


def _cast_by_numpy(case: lib.Case) -> lib.Spec:
    """What Cast gives: onnxruntime's Python interface has no arrays of the narrow types."""
    spec = case.inputs[0]
    assert spec is not None
    name = DataType(case.attributes["to"]).onnx_name
    if name == "string":  # whole numbers are drawn
        numbers = lib.make_array(spec).astype(int).reshape(-1).tolist()
        return {"type": name, "shape": spec["shape"], "data": [str(n) for n in numbers]}
    return _as_written(lib.make_array(spec).astype(lib.numpy_type(name)), name)


def _as_written(result: lib.Array, name: str) -> lib.Spec:
    numbers = result.astype(complex if "complex" in name else float).reshape(-1).tolist()
    return {"type": name, "shape": list(result.shape), "data": numbers}


def _stand_ins(entry: Operator, case: lib.Case) -> Iterator[lib.Case]:
    is_integer = any(lib.data_type(name) in INTS for name in case.types.values())
    for name in _STAND_INS[is_integer]:
        types = dict.fromkeys(case.types, name)
        retyped = _retyped_inputs(entry, case, types)
        if retyped is None or entry.type_attribute == "to":
            continue
        attributes = dict(case.attributes)
        if entry.type_attribute == "value":
            attributes["value"] = {"type": name, "shape": [1], "data": [1]}
        # As drawn for the type that is asked for, only held in another one.
        inputs = tuple(
            None if a is None or b is None else {**a, "type": b["type"]}
            for a, b in zip(case.inputs, retyped, strict=True)
        )
        yield dataclasses.replace(case, inputs=inputs, attributes=attributes, types=types)


def _retyped_inputs(
    entry: Operator, case: lib.Case, types: Mapping[str, str]
) -> tuple[lib.Spec | None, ...] | None:
    operands = sum(
        spec is not None and _parameter(entry.inputs, k) in types
        for k, spec in enumerate(case.inputs)
    )
    # Powers of two have no sign, and Cast may bring them about.
    may_be_negative = operands == 1 and "float8e8m0" not in types.values()
    inputs: list[lib.Spec | None] = []
    for k, spec in enumerate(case.inputs):
        variable = _parameter(entry.inputs, k)
        name = types.get(variable)
        if spec is None or name is None:
            inputs.append(spec)
        elif k in entry.value_inputs or entry.types[variable] <= INDEX:
            if not _is_whole(spec):
                return None
            inputs.append({**spec, "type": name})
        else:
            inputs.append(_drawn(spec["shape"], name, seed=k, may_be_negative=may_be_negative))
    return tuple(inputs)


def _is_whole(spec: lib.Spec) -> bool:
    if "data" not in spec:
        return bool(spec["random"] == "integers")
    return all(not isinstance(x, str) and x == int(x) for x in spec["data"])


def _drawn(shape: list[int], name: str, seed: int, may_be_negative: bool) -> lib.Spec:
    """Small whole numbers, which every type holds exactly; none is 0 where one may divide."""
    is_signed = lib.data_type(name) in SIGNED | FLOATS
    low, high = (-3, 4) if may_be_negative and is_signed else (1, 5)
    low, high = {"bool": (0, 2), "uint2": (1, 4), "int2": (0, 2), "float8e8m0": (1, 3)}.get(
        name, (low, high)
    )
    return {
        "type": name,
        "shape": shape,
        "random": "integers",
        "seed": seed,
        "low": low,
        "high": high,
    }
