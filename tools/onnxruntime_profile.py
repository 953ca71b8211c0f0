"""Writes what onnxruntime's CPU provider has: src/ortolan/catalog/onnxruntime.json.

The facts come from the wheel that is installed here (a test dependency): kernels with their
versions and types, and the declarations of operators that the onnx package does not have. The
file goes into the package, so that a conversion for onnxruntime needs no onnxruntime.
`--check` tells whether the file is what this wheel says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx.defs
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

TARGET = Path(__file__).resolve().parent.parent / "src" / "ortolan" / "catalog" / "onnxruntime.json"
PROVIDER = "CPUExecutionProvider"
# Domains of onnxruntime's own layout passes: they say nothing about a file of ours.
INTERNAL = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
# The last version of a kernel that serves the operator as it is now; 0 in the file.
NEWEST = 2**31 - 1
# Attributes that name the element type of an output which no input tells.
TYPE_ATTRIBUTES = ("to", "dtype")


class Interned:
    """Numbers for values in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        """The number of a value."""
        return self.numbers.setdefault(value, len(self.numbers))

    def values(self) -> list[Any]:
        """All values, by number."""
        return list(self.numbers)


def make_profile() -> dict[str, Any]:
    """Returns the content of the file."""
    types, sets = Interned(), Interned()

    def set_of(names: Sequence[str]) -> int:
        return sets(tuple(sorted(types(name) for name in names)))

    # Sorted first, so that the numbers do not depend on the order of registration.
    definitions = sorted(state.get_all_opkernel_def(), key=_kernel_key)
    schemas = sorted(state.get_all_operator_schema(), key=lambda s: (s.domain, s.name))
    kernels: dict[str, dict[str, list[Any]]] = defaultdict(dict)
    for (domain, name), rows in _merged(definitions).items():
        kernels[domain][name] = [
            [first, 0 if last == NEWEST else last, {key: set_of(of) for key, of in kinds.items()}]
            for first, last, kinds in rows
        ]
    known = {(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()}
    operators: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    opsets: dict[str, int] = {}
    for schema in schemas:
        if schema.domain in INTERNAL:
            continue
        opsets[schema.domain] = max(schema.since_version, opsets.get(schema.domain, 1))
        if (schema.domain, schema.name) not in known and not schema.deprecated:
            operators[schema.domain][schema.name][str(schema.since_version)] = _declaration(
                schema, set_of
            )
    return {
        "onnxruntime": onnxruntime.__version__,
        "opsets": opsets,
        "types": types.values(),
        "sets": [list(members) for members in sets.values()],
        "kernels": kernels,
        "operators": operators,
    }


def _kernel_key(definition: Any) -> tuple[Any, ...]:
    constraints = sorted((key, tuple(of)) for key, of in definition.type_constraints.items())
    return (definition.domain, definition.op_name, *definition.version_range, constraints)


def _merged(definitions: Sequence[Any]) -> dict[tuple[str, str], list[Any]]:
    """Kernels by operator; those of one range that differ in their only constraint are one."""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for definition in definitions:
        if definition.provider != PROVIDER or definition.domain in INTERNAL:
            continue
        rows = found[definition.domain, definition.op_name]
        first, last = definition.version_range
        kinds = {key: list(of) for key, of in sorted(definition.type_constraints.items())}
        before = rows[-1] if rows else None
        if (
            before
            and before[:2] == [first, last]
            and len(kinds) == 1
            and before[2].keys() == kinds.keys()
        ):
            ((key, of),) = kinds.items()
            before[2][key] += [name for name in of if name not in before[2][key]]
        elif before and before == [first, last, kinds]:
            continue
        else:
            rows.append([first, last, kinds])
    return found


def _declaration(schema: Any, set_of: Any) -> dict[str, Any]:
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    attribute = next((name for name in TYPE_ATTRIBUTES if name in schema.attributes), "")
    return {
        "inputs": [_formal(item) for item in schema.inputs],
        "outputs": [_formal(item) for item in schema.outputs],
        "types": {name: set_of(of) for name, of in sorted(allowed.items())},
        **({"type_attribute": attribute} if attribute else {}),
    }


def _formal(parameter: Any) -> list[str]:
    """Name, type string, and how often it stands: "1", "?", "*", or "~" for different types."""
    count = {"Single": "1", "Optional": "?", "Variadic": "*"}[parameter.option.name]
    if count == "*" and not parameter.isHomogeneous:
        count = "~"
    return [parameter.name, parameter.typeStr, count]


def render(profile: dict[str, Any]) -> str:
    """The file's text: one operator a line, so that a newer wheel shows as a readable diff."""

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    lines = ["{"]
    facts = ("onnxruntime", "opsets", "types", "sets")
    lines.extend(f'"{key}":{compact(profile[key])},' for key in facts)
    for key in ("kernels", "operators"):
        domains = []
        for domain, entries in profile[key].items():
            rows = [f"{compact(name)}:{compact(entries[name])}" for name in sorted(entries)]
            domains.append(f"{compact(domain)}:{{\n" + ",\n".join(rows) + "\n}")
        lines.append(f'"{key}":{{' + ",\n".join(domains) + "}" + ("," if key == "kernels" else ""))
    return "\n".join([*lines, "}", ""])


def main() -> int:
    """Writes or checks the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    text = render(make_profile())
    if arguments.check:
        same = TARGET.is_file() and TARGET.read_text("utf-8") == text
        print("as this wheel has it" if same else f"{TARGET.name} differs from this wheel")
        return 0 if same else 1
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.name}: {len(text):,} bytes, onnxruntime {onnxruntime.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
