"""Writes when the standard changed its operators: src/ortolan/catalog/onnx_versions.json.

`python tools/onnx_versions.py [--check]`, with the onnx package whose versions are wanted; with
`--check` nothing is written, and the exit code is 1 if the file differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import onnx.defs

TARGET = (
    Path(__file__).resolve().parent.parent / "src" / "ortolan" / "catalog" / "onnx_versions.json"
)


def text() -> str:
    """The content of the file: a line per domain and operator."""
    found: dict[str, dict[str, set[int]]] = {"": {}, "ai.onnx.ml": {}}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in found:
            found[schema.domain].setdefault(schema.name, set()).add(schema.since_version)
    operators = {
        domain: {name: sorted(versions) for name, versions in sorted(names.items())}
        for domain, names in found.items()
    }
    newest = {
        "": onnx.defs.onnx_opset_version(),
        "ai.onnx.ml": max(v for names in operators["ai.onnx.ml"].values() for v in names),
    }
    lines = []
    for domain, names in operators.items():
        inner = ",\n".join(f"{json.dumps(name)}: {versions}" for name, versions in names.items())
        lines.append(f"{json.dumps(domain)}: {{\n{inner}\n}}")
    return f'{{"newest": {json.dumps(newest)},\n"operators": {{\n' + ",\n".join(lines) + "}}\n"


def main() -> int:
    """Writes or compares the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(TARGET.read_text("utf-8") != text())
    TARGET.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
