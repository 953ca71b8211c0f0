"""Writes the checks of real models for runners without Python: ORT files, one index, the tensors.

`python tests/models_bundle.py FOLDER` makes a folder below FOLDER, unless one is there that was
made of the same files, and prints its path. In it is models.json:
`{"missing": why there is nothing, "part": ..., "checks": [...]}`. A check has `name`, `model` (its
file), `limit`, `refusal` (what the converter said, if there is no file), `not_yet` (why the model
cannot run yet), `containers` (whether it gives sequences or maps, and then no steps), `data` (the
file of its tensors) and `steps`; a step has `inputs` and `outputs`
(name, type, shape, and the offset of the bytes in the data file) and `carried` (outputs of the step
before by the inputs that get them). An output also has `scale`, `quantum` and `axis`, or null;
tests/models_lib.py says what they mean.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cases_bundle
import cases_lib
import corpus
import corpus_texts
import models_lib as lib
import models_oracle
import ortolan
from ortolan.errors import OrtolanError

FOLDER = cases_bundle.ROOT / "build" / "models"
INDEX = "models.json"
_ALIGNMENT = 16


def stamp() -> str:
    """A digest of everything that decides what the files hold."""
    digest = hashlib.sha256(cases_bundle.stamp().encode())
    for module in (lib, models_oracle, corpus, corpus_texts):
        digest.update(Path(str(module.__file__)).read_bytes())
    for name in [] if lib.MISSING else lib.NAMES:
        status = (lib.FOLDER / f"{name}.onnx").stat()
        digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def ensure(root: Path = FOLDER) -> Path:
    """The folder with the checks; makes it if it is not there."""
    return cases_bundle.ensure_folder(root, stamp(), _write_all)


def make_check(name: str) -> lib.Check:
    """The check of a name: of a real model, or of the generated corpus."""
    return corpus.make_check(name) if name.startswith(corpus.PREFIX) else lib.make_check(name)


def _write_all(folder: Path) -> None:
    names = [*([] if lib.MISSING else lib.check_names()), *corpus.names()]
    checks = [_write(folder, name) for name in names]
    content = {"missing": lib.MISSING, "part": lib.QUANTUM_PART, "checks": checks}
    (folder / INDEX).write_text(json.dumps(content), "utf-8")


def _write(folder: Path, name: str) -> dict[str, Any]:
    check = make_check(name)
    file_name = name.replace("/", "-")
    model = folder / f"{check.model}.ort"
    refusal = None
    if not model.exists():
        try:
            ortolan.convert(check.source, model)
        except OrtolanError as error:
            refusal = str(error)
    data = folder / f"{file_name}.bin"
    with data.open("wb") as file:
        steps = (
            []
            if has_containers(check)
            else [
                {
                    "inputs": [_tensor(file, key, value) for key, value in step.feeds.items()],
                    "outputs": [
                        {**_tensor(file, key, value), **_rules(check, key)}
                        for key, value in step.expected.items()
                    ],
                    "carried": dict(step.carried),
                }
                for step in check.steps
            ]
        )
    return {
        "name": name,
        "model": model.name,
        "limit": check.limit,
        "refusal": refusal,
        "not_yet": check.not_yet or None,
        "containers": has_containers(check),
        "data": data.name,
        "steps": steps,
    }


def has_containers(check: lib.Check) -> bool:
    """Whether something is a sequence or a map; those have no place in the bundle."""
    values = [v for step in check.steps for v in (*step.feeds.values(), *step.expected.values())]
    return any(value is None or isinstance(value, list | dict) for value in values)


def _rules(check: lib.Check, output: str) -> dict[str, Any]:
    return {
        "scale": check.scales.get(output),
        "quantum": check.quanta.get(output),
        "axis": check.decisions.get(output),
    }


def _tensor(file: Any, name: str, array: cases_lib.Array) -> dict[str, Any]:
    file.write(bytes(-file.tell() % _ALIGNMENT))
    offset = file.tell()
    content = cases_bundle.to_bytes(array)
    file.write(content)
    return {
        "name": name,
        "type": cases_lib.type_name(array.dtype),
        "shape": list(array.shape),
        "offset": offset,
        "bytes": len(content),
    }


if __name__ == "__main__":
    print(ensure(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
