"""Runs every operator case in this machine's runtime: each instruction set, and two threads.

The cases are data that all runtimes share; tests/cases/README.md tells their form.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import cases_bundle
import cases_lib as lib
import cases_oracle
import cases_variants
import ortolan
from ortolan.build.targets import host_target
from ortolan.importing.legacy import UPGRADES
from ortolan.importing.microsoft import MICROSOFT
from ortolan.importing.widening import RULES


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Session options that every case must stand."""

    instruction_set: int
    threads: int

    def __str__(self) -> str:
        name = host_target().instruction_sets[self.instruction_set].name
        return name if self.threads == 1 else f"{name}-{self.threads}-threads"


def _level() -> int:
    names = [item.name for item in host_target().instruction_sets]
    return names.index(ortolan.runtime_info()["instruction_set"])


def _other_configurations() -> list[Configuration]:
    return [*(Configuration(level, 1) for level in range(_level())), Configuration(_level(), 2)]


def _by_operator() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for case in cases_variants.all_cases().values():
        groups.setdefault(f"{case.family}/{case.operator}", []).append(case.id)
    return groups


OPERATORS = _by_operator()
# No operator leads from their maps to tensors: tests/test_values.py has their cases.
OF_CONTAINERS = {"ZipMap", "DictVectorizer", "CastMap"}


@pytest.fixture(scope="session")
def bundle() -> Mapping[str, Mapping[str, Any]]:
    """The converted cases by their ids; `path` is the place of the model."""
    folder = cases_bundle.ensure()
    entries = json.loads((folder / cases_bundle.INDEX).read_text("utf-8"))
    return {entry["id"]: {**entry, "path": folder / entry.get("model", "")} for entry in entries}


def run_case(entry: Mapping[str, Any], configuration: Configuration) -> list[str]:
    """What is wrong with the results of a converted case.

    Raises:
        ortolan.OrtolanError: the runtime refused it.
    """
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = configuration.threads
    options.add_session_config_entry("ortolan.instruction_set", str(configuration.instruction_set))
    session = ortolan.InferenceSession(entry["path"], options)
    results = session.run(None, cases_bundle.arrays(entry["inputs"]))
    expected = cases_bundle.arrays(entry["outputs"])
    if entry["error"] is not None:
        return []
    names = [output.name for output in session.get_outputs()]
    assert names == list(expected)
    return [
        f"{name}: {text}"
        for name, result in zip(names, results, strict=True)
        if (text := lib.differences(result, expected[name], entry["tolerance"]))
    ]


def problem_of(entry: Mapping[str, Any], configuration: Configuration) -> str:
    """What is wrong with a case; empty when nothing is."""
    if "skip" in entry:
        return f"{entry['skip']}: state the outputs in the case"
    refusal = entry.get("refusal", "")
    wrong: list[str] = []
    try:
        wrong = [] if refusal else run_case(entry, configuration)
    except ortolan.OrtolanError as error:
        refusal = str(error)
    if entry["error"] is None:
        return refusal or "; ".join(wrong)
    is_right = bool(refusal) and entry["error"] in refusal
    return "" if is_right else f"it must fail with {entry['error']!r}: {refusal or 'no failure'}"


@pytest.mark.parametrize("case_id", cases_variants.all_cases())
def test_case(case_id: str, bundle: Mapping[str, Mapping[str, Any]]) -> None:
    """Every case on what this machine uses by itself."""
    entry = bundle[case_id]
    if "skip" in entry and not cases_oracle.HAS_ONNXRUNTIME:
        pytest.skip(entry["skip"])
    assert problem_of(entry, Configuration(_level(), 1)) == ""


@pytest.mark.parametrize("configuration", _other_configurations(), ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_operator(
    operator: str, configuration: Configuration, bundle: Mapping[str, Mapping[str, Any]]
) -> None:
    """All cases of an operator on lower instruction sets, and with two threads."""
    entries = [bundle[case_id] for case_id in OPERATORS[operator]]
    known = [entry for entry in entries if "skip" not in entry]
    if not known:
        pytest.skip(entries[0]["skip"])
    problems = {entry["id"]: problem_of(entry, configuration) for entry in known}
    assert {case_id: text for case_id, text in problems.items() if text} == {}


def test_every_instruction_set_ran() -> None:
    above = [item.name for item in host_target().instruction_sets[_level() + 1 :]]
    if above:
        pytest.skip(f"this machine has no {', no '.join(above)}")


def test_every_operator_has_cases() -> None:
    """At least three for an operator that succeed, and one for each of its catalog entries."""
    cases = [case for case in lib.load_cases() if case.error is None]
    counts = Counter((case.domain, case.operator) for case in cases)
    few = {
        f"{entry.domain or 'ai.onnx'}:{entry.name}": counts[entry.domain, entry.name]
        for entry in cases_variants.entries()
        if counts[entry.domain, entry.name] < 3 and entry.name not in OF_CONTAINERS
    }
    assert few == {}
    covered = [case.entry for case in cases]
    none = [
        f"{entry.name} {entry.since}-{entry.until}"
        for entry in cases_variants.entries()
        if entry not in covered and entry.name not in OF_CONTAINERS
    ]
    assert none == []


def test_every_type_has_a_case() -> None:
    cases = list(cases_variants.all_cases().values())
    missing = []
    for entry in cases_variants.entries():
        if any(p.is_sequence or p.variable == "Any" for p in entry.inputs + entry.outputs):
            continue  # containers hold blocks: what is in them does not matter
        own = [case for case in cases if case.entry is entry]
        missing += [
            f"{entry.name} {entry.since}-{entry.until}: {types}"
            for types in cases_variants.missing_types(entry, own)
        ]
    assert missing == []


def test_every_lowered_operator_has_a_case() -> None:
    cases = {case.operator for case in lib.load_cases() if case.domain == "com.microsoft"}
    assert set(MICROSOFT) - cases == set()


def test_every_widened_type_has_a_case() -> None:
    cases = {
        (case.operator, spec["type"])
        for case in lib.load_cases()
        for spec in case.inputs
        if spec is not None and case.domain == "" and case.error is None
    }
    rules = {(name, type_) for name, types in RULES.items() for type_ in types}
    assert rules - cases == set()


def test_cases_are_of_the_catalog() -> None:
    """Or of a version that the importer rewrites to one that is."""
    unknown = {
        case.id
        for case in lib.load_cases()
        if case.entry is None
        and (case.operator, case.since) not in UPGRADES
        and (case.domain != "com.microsoft" or case.operator not in MICROSOFT)
    }
    assert unknown == set()


def test_every_upgrade_has_a_case() -> None:
    cases = {(case.operator, case.since) for case in lib.load_cases() if case.error is None}
    assert set(UPGRADES) - cases == set()


@pytest.mark.parametrize(
    ("got", "expected", "is_equal"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.00001], [1.0, 2.0], True),
        ([1.0, 2.001], [1.0, 2.0], False),
        ([1.0, 1000.0], [1.005, 1000.0], True),
        ([1e-8], [0.0], True),
        ([1e-6], [0.0], False),
        ([np.nan], [np.nan], True),
        ([np.nan], [1.0], False),
        ([1.0], [np.nan], False),
        ([np.inf], [np.inf], True),
        ([np.inf], [-np.inf], False),
        ([np.inf], [1.0], False),
        ([1.0], [np.inf], False),
        ([np.nan], [np.inf], False),
        ([np.nan, np.nan], [np.nan, 1.0], False),
        ([[1.0]], [1.0], False),
        ([], [], True),
    ],
)
def test_comparison(got: list[float], expected: list[float], is_equal: bool) -> None:
    pair = np.array(got, np.float32), np.array(expected, np.float32)
    assert (lib.differences(*pair) == "") == is_equal


def test_comparison_of_other_types() -> None:
    assert lib.differences(np.array([1, 2]), np.array([1, 2])) == ""
    assert lib.differences(np.array([1, 2]), np.array([1, 3])) == "elements differ"
    assert "instead of" in lib.differences(np.array([1.0]), np.array([1.0], np.float32))
    assert lib.differences(np.array([1.1]), np.array([1.0]), tolerance=0.2) == ""
