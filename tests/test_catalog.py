"""Holds the catalog against the standard, and what is generated from it against the catalog."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from ortolan.build import registry
from ortolan.catalog import FAMILIES, find
from ortolan.catalog.errors import Code
from ortolan.catalog.operator import Operator, Parameter, covers
from ortolan.catalog.types import FIXED, DataType
from ortolan.importing.legacy import UPGRADES

NATIVE = Path(__file__).resolve().parents[1] / "native"
KINDS = {
    onnx.defs.OpSchema.AttrType.INT: "int",
    onnx.defs.OpSchema.AttrType.FLOAT: "float",
    onnx.defs.OpSchema.AttrType.STRING: "string",
    onnx.defs.OpSchema.AttrType.INTS: "ints",
    onnx.defs.OpSchema.AttrType.FLOATS: "floats",
    onnx.defs.OpSchema.AttrType.STRINGS: "strings",
    onnx.defs.OpSchema.AttrType.TENSOR: "tensor",
    onnx.defs.OpSchema.AttrType.GRAPH: "graph",
}
STANDARD = ("", "ai.onnx.ml")
# Operators of the standard's domain whose versions onnx.defs does not have: onnxruntime's schemas.
# The first five left the standard before onnx kept a history, the layer normalizations came later.
ONNXRUNTIMES = (
    "Affine",
    "Crop",
    "ImageScaler",
    "ParametricSoftplus",
    "ScaledTanh",
    "LayerNormalization",
    "SimplifiedLayerNormalization",
)
# Attributes that older versions have and that mean nothing for inference.
# Optional's is a type, which the format cannot hold: the result's declared type says the same.
IGNORED_ATTRIBUTES = {("Reshape", "consumed_inputs"), ("Optional", "type")}

# Enumerators of the C header that are no codes.
_OTHER_NAMES = {"INPUT", "OUTPUT", "TENSOR", "SEQUENCE", "MAP", "OPTIONAL"}

OPERATORS = [(f, o) for f in FAMILIES for o in f.operators]


Schemas = dict[tuple[str, str], dict[int, onnx.defs.OpSchema]]


@functools.cache
def schemas(deprecated: bool = False) -> Schemas:
    """Every declaration, those that say that an operator is deprecated only when asked for."""
    found: Schemas = defaultdict(dict)
    for schema in [*onnx.defs.get_all_schemas_with_history(), *onnxruntimes()]:
        if deprecated or not schema.deprecated:
            found[schema.domain, schema.name].setdefault(schema.since_version, schema)
    return found


def onnxruntimes() -> Iterator[onnx.defs.OpSchema]:
    """The operators of ONNXRUNTIMES as onnxruntime declares them, in the form of onnx.defs."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return
    for schema in state.get_all_operator_schema():
        # What it declares once more for opset 10 marks the end of the operator.
        if schema.domain == "" and schema.name in ONNXRUNTIMES and schema.since_version < 10:
            yield onnx_schema(schema)


def onnx_schema(schema: Any) -> onnx.defs.OpSchema:
    def parameters(listed: Any) -> list[onnx.defs.OpSchema.FormalParameter]:
        options = onnx.defs.OpSchema.FormalParameterOption
        return [
            onnx.defs.OpSchema.FormalParameter(
                p.name, p.typeStr, param_option=getattr(options, p.option.name)
            )
            for p in listed
        ]

    def attribute(name: str, given: Any) -> onnx.defs.OpSchema.Attribute:
        kind = getattr(onnx.defs.OpSchema.AttrType, str(given.type).rpartition(".")[2])
        default = onnx.AttributeProto.FromString(given._default_value)
        if default.name:
            return onnx.defs.OpSchema.Attribute(name, default)
        return onnx.defs.OpSchema.Attribute(name, kind, required=given.required)

    return onnx.defs.OpSchema(
        schema.name,
        schema.domain,
        schema.since_version,
        inputs=parameters(schema.inputs),
        outputs=parameters(schema.outputs),
        type_constraints=[
            (c.type_param_str, list(c.allowed_type_strs), "") for c in schema.type_constraints
        ],
        attributes=[attribute(name, given) for name, given in schema.attributes.items()],
    )


SCHEMAS = schemas()


def covered() -> Iterator[tuple[Operator, onnx.defs.OpSchema]]:
    for _, operator in OPERATORS:
        if operator.domain in STANDARD:
            for version, schema in SCHEMAS[operator.domain, operator.name].items():
                if covers(operator, version):
                    yield operator, schema


COVERED = list(covered())
IDS = [f"{o.name}-{s.since_version}" for o, s in COVERED]


def signature(parameters: tuple[Parameter, ...]) -> list[tuple[bool, bool]]:
    return [(p.optional, p.variadic) for p in parameters]


def standard(parameters: list[onnx.defs.OpSchema.FormalParameter]) -> list[tuple[bool, bool]]:
    option = onnx.defs.OpSchema.FormalParameterOption
    return [(p.option == option.Optional, p.option == option.Variadic) for p in parameters]


def test_no_version_has_two_entries() -> None:
    seen: dict[tuple[str, str, int], str] = {}
    for family, operator in OPERATORS:
        for version in range(operator.since, min(operator.until, 40) + 1):
            key = (operator.domain, operator.name, version)
            assert key not in seen, f"{key} is in {seen[key]} and in {family.name}"
            seen[key] = family.name


@pytest.mark.parametrize(("operator", "schema"), COVERED, ids=IDS)
def test_entry_is_the_standard(operator: Operator, schema: onnx.defs.OpSchema) -> None:
    for ours, theirs in ((operator.inputs, schema.inputs), (operator.outputs, schema.outputs)):
        # An older version may lack trailing optional parameters; the rest is the same in order.
        assert signature(ours)[: len(theirs)] == standard(list(theirs))
        assert all(p.optional or p.variadic for p in ours[len(theirs) :])
    for name, attribute in schema.attributes.items():
        if (operator.name, name) in IGNORED_ATTRIBUTES:
            continue
        ours_ = next((a for a in operator.attributes if a.name == name), None)
        assert ours_ is not None, f"attribute {name} is missing"
        assert ours_.kind == KINDS[attribute.type], name
        assert ours_.required == attribute.required, name
        default = onnx.helper.get_attribute_value(attribute.default_value)
        if attribute.default_value.name and ours_.default is not None:
            text = default.decode() if isinstance(default, bytes) else default
            if isinstance(text, float):
                assert float(str(ours_.default)) == pytest.approx(text, rel=1e-6), name
            else:
                assert ours_.default == text, name
    for attribute_ in operator.attributes:
        assert attribute_.name in {
            n for s in SCHEMAS[operator.domain, operator.name].values() for n in s.attributes
        }, attribute_.name


@pytest.mark.parametrize(("operator", "schema"), COVERED, ids=IDS)
def test_types_are_allowed_by_some_covered_version(
    operator: Operator, schema: onnx.defs.OpSchema
) -> None:
    """Parameters that share a variable in the standard share one here; types are the standard's."""
    ours = operator.inputs + operator.outputs
    theirs = [*schema.inputs, *schema.outputs]
    offset = len(operator.inputs) - len(schema.inputs)
    by_variable: dict[str, set[str]] = defaultdict(set)
    for k, parameter in enumerate(theirs):
        index = k if k < len(schema.inputs) else k + offset
        by_variable[parameter.type_str].add(ours[index].variable)
    for variable, names in by_variable.items():
        assert len(names) == 1, f"{variable} is split into {names}"


@pytest.mark.parametrize("operator", [o for _, o in OPERATORS if o.domain in STANDARD])
def test_types_are_the_standards(operator: Operator) -> None:
    """Operators that only move bytes may take more types than an old version of the standard."""
    versions = schemas(deprecated=True)[operator.domain, operator.name]
    if operator.name in ONNXRUNTIMES and not any(covers(operator, v) for v in versions):
        pytest.importorskip("onnxruntime")
    for side, parameters in (("inputs", operator.inputs), ("outputs", operator.outputs)):
        for k, parameter in enumerate(parameters):
            if operator.types.get(parameter.variable) == FIXED:
                continue
            allowed: set[str] = set()
            for version, schema in versions.items():
                formal = getattr(schema, side)
                if covers(operator, version) and k < len(formal):
                    allowed |= set(formal[k].types)
            for data_type in operator.types.get(parameter.variable, ()):
                assert f"tensor({data_type.onnx_name})" in allowed, (parameter.name, data_type)


def test_versions_have_no_gaps() -> None:
    """Every version of an operator has an entry, or the importer rewrites it."""
    gaps = [
        f"{domain}:{name}:{version}"
        for domain, name in sorted({(operator.domain, operator.name) for _, operator in OPERATORS})
        if domain in STANDARD
        for version in SCHEMAS[domain, name]
        if find(domain, name, version) is None and (name, version) not in UPGRADES
    ]
    assert not gaps, gaps


def test_entries_do_not_overlap() -> None:
    for _, a in OPERATORS:
        for _, b in OPERATORS:
            if a is not b and (a.domain, a.name) == (b.domain, b.name):
                assert a.until < b.since or b.until < a.since, (a.name, a.since, b.since)


def test_hash_is_the_runtimes() -> None:
    """Known values of FNV-1a with the final mix, computed by hand for short strings."""
    value = 2166136261
    for byte in b":Add":
        value = (value ^ byte) * 16777619 % 2**32
    assert registry.operator_hash("", "Add") == value ^ value >> 15


def test_registry_has_no_pointers_and_no_names() -> None:
    source = registry.generate(FAMILIES, ["a", "b"])["registry.cc"]
    tables = source[source.index("kOperators[]") : source.index("Status invoke")]
    code = re.sub(r"//.*", "", tables)
    assert '"' not in code
    assert "&" not in code


def test_reduced_registry_compiles_only_what_is_wanted() -> None:
    files = registry.generate(FAMILIES, ["a"], lambda operator, types: operator.name == "Relu")
    assert set(files) == {
        "a/elementwise.inc",
        "registry.cc",
        "ortolan_features.h",
        "ortolan_variants.h",
    }
    assert "Add" not in files["a/elementwise.inc"]


def test_features_that_are_left_out_have_no_types() -> None:
    def features(*names: str) -> dict[str, str]:
        files = registry.generate(FAMILIES, ["a"], without=frozenset(names))
        text = files["ortolan_features.h"]
        return dict(re.findall(r"bool (kHas(?:Texts|Containers|Sparse)) = (\w+);", text))

    assert features() == {"kHasTexts": "true", "kHasContainers": "true", "kHasSparse": "true"}
    assert features("strings", "containers", "sparse") == dict.fromkeys(features(), "false")
    kept = registry.generate(FAMILIES, ["a"], without=frozenset({"containers"}))["registry.cc"]
    assert "SequenceAt" not in kept and "ZipMap" not in kept and "// :Loop" in kept
    assert "SequenceAt" in registry.generate(FAMILIES, ["a"])["registry.cc"]


def test_a_build_without_bottlenecks_has_their_convolutions() -> None:
    def files(name: str, *, splits: bool) -> dict[str, str]:
        return registry.generate(
            FAMILIES, ["a"], lambda operator, types: operator.name == name,
            variants=lambda operator, variant: False, splits=splits,
        )  # fmt: skip

    whole, parts = (files("InvertedBottleneck", splits=s) for s in (False, True))
    assert "InvertedBottleneck::run" in whole["a/convolution.inc"]
    assert "InvertedBottleneck" not in parts["a/convolution.inc"]
    assert "Conv::run" in parts["a/convolution.inc"]
    assert "kSplitsBottlenecks = true" in parts["ortolan_features.h"]
    assert re.search(r"kDepthwise = \{\d+, true\}", parts["ortolan_variants.h"])
    assert "kSplitsBottlenecks = false" in files("Relu", splits=True)["ortolan_features.h"]


def test_variants_are_built_where_an_operator_needs_them() -> None:
    def built(*names: str, wanted: str = "") -> set[str]:
        files = registry.generate(
            FAMILIES, ["a"], lambda operator, types: operator.name in names,
            variants=lambda operator, variant: f"{operator.name}:{variant}" in wanted.split(),
        )  # fmt: skip
        return set(re.findall(r"Variant k(\w+) = {\d+, true}", files["ortolan_variants.h"]))

    assert built("Conv") == set()
    assert built("Conv", wanted="Conv:depthwise_3 Gemm:products_dots") == {"Depthwise3"}
    assert built("FusedGemm") == {"GemmActivation", "Activations"}
    everything = registry.generate(FAMILIES, ["a"])["ortolan_variants.h"]
    assert "true" in everything and "false" not in everything


def test_error_codes_are_those_of_the_headers() -> None:
    for path, prefix in (
        (NATIVE / "include" / "ortolan" / "ortolan.h", "ORTOLAN_"),
        (NATIVE / "core" / "status.h", "k"),
    ):
        found = re.findall(rf"^\s+({prefix}\w+) = (\d+),?$", path.read_text(), re.MULTILINE)
        codes = {name.removeprefix(prefix).replace("_", "").upper(): int(n) for name, n in found}
        codes = {name: n for name, n in codes.items() if name not in _OTHER_NAMES}
        expected = {code.name.replace("_", ""): int(code) for code in Code}
        if prefix == "k":
            expected["NOSUCHFILE"] = expected.pop("NOSUCHFILE")
        assert codes == expected, path


def test_data_types_are_those_of_onnx_and_the_header() -> None:
    header = (NATIVE / "core" / "types.h").read_text()
    enum = header[header.index("enum class DataType") : header.index("kDataTypes")]
    found = {name.upper(): int(n) for name, n in re.findall(r"k(\w+) = (\d+),", enum)}
    assert found == {t.name: int(t) for t in DataType}
    for data_type in DataType:
        assert getattr(onnx.TensorProto, data_type.name) == data_type
