"""Writes the operator cases for runners without Python: ORT files and one index of tensors.

`python tests/cases_bundle.py FOLDER` writes FOLDER/cases.json and an .ort file for each case,
unless they are there already and nothing changed that they are made of. The index is
`{"stamp": ..., "cases": [...]}`; a case has

* `id`, and `model`: its file, relative to the index;
* `inputs` and `outputs`: name, type (ONNX's lower case name), shape, and the bytes in base64;
* `tolerance`: relative to the largest magnitude, null for the usual one;
* `error`: a piece of the text with which loading or running must fail, null if it must not;
* `refusal`: what the converter said, if there is no model;
* `skip`: why nobody knows what the case must give.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cases_lib as lib
import cases_oracle
import cases_variants

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "cases"
INDEX = "cases.json"
# What the files are made of; the runtime is not.
_SOURCES = ("tests/cases", "src/ortolan", "tests/cases_*.py")
_CONVERTER = {".py", ".json"}


def stamp() -> str:
    """A digest of everything that decides what the files hold."""
    digest = hashlib.sha256(repr(sys.version_info).encode())
    for package in ("numpy", "onnx", "onnxruntime"):
        try:
            digest.update(importlib.metadata.version(package).encode())
        except importlib.metadata.PackageNotFoundError:
            digest.update(b"none")
    for pattern in _SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.suffix in _CONVERTER:
                    digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()


def ensure(folder: Path = FOLDER) -> dict[str, Any]:
    """Writes the cases if they are not there or out of date; returns the index."""
    wanted = stamp()
    index = folder / INDEX
    if index.is_file():
        content: dict[str, Any] = json.loads(index.read_text("utf-8"))
        if content.get("stamp") == wanted:
            return content
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    content = {"stamp": wanted, "cases": _write_all(fresh)}
    (fresh / INDEX).write_text(json.dumps(content), "utf-8")
    replace_folder(fresh, folder)
    return content


def replace_folder(fresh: Path, folder: Path) -> None:
    """Puts a finished folder where another may be; whoever does so last wins."""
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
        except OSError:
            continue
        return
    raise RuntimeError(f"{folder} cannot be replaced")


def _write_all(folder: Path) -> list[dict[str, Any]]:
    groups: dict[str, list[str]] = {}
    for case in cases_variants.all_cases().values():
        groups.setdefault(f"{case.family}/{case.operator}", []).append(case.id)
    # Not forked: the packages have threads of their own.
    context = multiprocessing.get_context("spawn")
    workers = min(os.cpu_count() or 1, 8)
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        written = pool.map(_write_group, [folder] * len(groups), groups.values())
    return [entry for group in written for entry in group]


def _write_group(folder: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    return [_write(folder, cases_variants.all_cases()[case_id]) for case_id in ids]


def _write(folder: Path, case: lib.Case) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": case.id, "tolerance": case.tolerance, "error": case.error}
    try:
        compiled = cases_oracle.compile_case(case)
    except cases_oracle.NoOracleError as error:
        return {**entry, "skip": str(error)}
    if compiled.ort is None:
        return {**entry, "refusal": compiled.refusal}
    path = folder / f"{case.id}.ort"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compiled.ort)
    outputs = dict(zip(compiled.outputs, compiled.expected, strict=False))
    return {
        **entry,
        "model": f"{case.id}.ort",
        "inputs": tensors(compiled.feeds),
        "outputs": tensors(outputs),
    }


def tensors(arrays: Mapping[str, lib.Array]) -> list[dict[str, Any]]:
    """Arrays by name in the form of the index."""
    return [
        {
            "name": name,
            "type": lib.type_name(array.dtype),
            "shape": list(array.shape),
            "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
        }
        for name, array in arrays.items()
    ]


def arrays(entries: Sequence[Mapping[str, Any]]) -> dict[str, lib.Array]:
    """The other way round."""
    return {
        entry["name"]: np.frombuffer(
            base64.b64decode(entry["data"]), lib.numpy_type(entry["type"])
        ).reshape(entry["shape"])
        for entry in entries
    }


if __name__ == "__main__":
    ensure(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
