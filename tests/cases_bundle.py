"""Writes the operator cases for runners without Python: ORT files and one index of tensors.

`python tests/cases_bundle.py FOLDER` makes a folder below FOLDER, unless one is there that was made
of the same files, and prints its path. It holds an .ort file for each case, and cases.json: a list
of cases, of which each has

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
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cases_lib as lib
import cases_oracle
import cases_variants
from ortolan.runtime.containers import encode_strings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "cases"
INDEX = "cases.json"
# What the files are made of; the runtime is not.
_SOURCES = ("tests/cases", "src/ortolan", "tests/cases_*.py")
_CONVERTER = {".py", ".json"}
_KEEP_SECONDS = 3600


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


def ensure(root: Path = FOLDER) -> Path:
    """The folder with the cases; makes it if it is not there."""
    return ensure_folder(root, stamp(), _write_all)


def ensure_folder(root: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The folder of a name, filled by `write` if it is not there; old ones are removed.

    What stands under a name never changes, so that any number of processes may use it.
    """
    folder = root / name[:16]
    if not folder.is_dir():
        fresh = root / f"{os.getpid()}.new"
        fresh.mkdir(parents=True)
        try:
            write(fresh)
            with contextlib.suppress(OSError):  # another process was faster
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    for other in root.iterdir():
        if other != folder and other.stat().st_mtime < time.time() - _KEEP_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _write_all(folder: Path) -> None:
    groups: dict[str, list[str]] = {}
    for case in cases_variants.all_cases().values():
        groups.setdefault(f"{case.family}/{case.operator}", []).append(case.id)
    # Not forked: the packages have threads of their own.
    context = multiprocessing.get_context("spawn")
    workers = min(os.cpu_count() or 1, 8)
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        written = pool.map(_write_group, [folder] * len(groups), groups.values())
    cases = [entry for group in written for entry in group]
    (folder / INDEX).write_text(json.dumps(cases), "utf-8")


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
            "data": base64.b64encode(to_bytes(array)).decode(),
        }
        for name, array in arrays.items()
    ]


def to_bytes(array: lib.Array) -> bytes:
    """A tensor's bytes as the C interface has them."""
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    block = encode_strings(array)
    return block.tobytes()[: int(block[array.size])]


def arrays(entries: Sequence[Mapping[str, Any]]) -> dict[str, lib.Array]:
    """The other way round."""
    return {
        entry["name"]: from_bytes(base64.b64decode(entry["data"]), entry["type"], entry["shape"])
        for entry in entries
    }


def from_bytes(content: bytes, type_name: str, shape: Sequence[int]) -> lib.Array:
    """A tensor of its bytes; the type is ONNX's name of it."""
    if type_name == "string":
        return _texts(content, tuple(shape))
    return np.frombuffer(content, lib.numpy_type(type_name)).reshape(shape)


def _texts(content: bytes, shape: tuple[int, ...]) -> lib.Array:
    result = np.empty(shape, object)
    ends = np.frombuffer(content, "<u4", result.size + 1).tolist()
    result.reshape(-1)[:] = [content[a:b].decode() for a, b in itertools.pairwise(ends)]
    return result


if __name__ == "__main__":
    print(ensure(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
