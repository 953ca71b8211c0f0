"""The core and kernels under the sanitizers of Debian's clang, on damaged files and many threads.

``ORTOLAN_MUTANTS`` sets how many mutants of each of two files are tried (default 1,000), and a
1,000th of it how many of each operator case.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import case_mutants
import cases_lib
import cross
import hostile_models
import models_lib
import mutate
import onnx_wire
from ortolan.session import InferenceSession
from test_onnx_functions import named

sys.path.insert(0, str(Path(__file__).with_name("native")))
import sanitize

SEED = int(os.environ.get("ORTOLAN_TEST_SEED", "20261123"))
MUTANTS = int(os.environ.get("ORTOLAN_MUTANTS", "1000"))
CASE_MUTANTS = max(MUTANTS // 1000, 1)  # of each case
MODELS = ("convnet", "control")
FUNCTIONS = ("attributes through two calls", "a body that has branches")
FOUND = sorted((Path(__file__).with_name("fuzz") / "found").iterdir())


def harness(kind: str) -> Path:
    """The harness under a sanitizer, or a skip where there is no clang for it."""
    try:
        return sanitize.build(kind)
    except sanitize.NoSanitizerError as error:
        pytest.skip(f"no sanitizer: {error}")


def check(kind: str, *arguments: str) -> str:
    """Runs the harness; anything that a sanitizer reports, a crash or a hang fails."""
    print(f"seed {SEED}")
    done = sanitize.run(harness(kind), ["--seed", str(SEED), *arguments], timeout=500)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-4000:]
    return done.stdout


def written(name: str, folder: Path) -> Path:
    """One of the two hostile models as a file."""
    path = folder / f"{name}.ort"
    path.write_bytes(hostile_models.converted(name))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_mutants_are_refused_or_run(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    pack = tmp_path / "pack"
    with pack.open("wb") as file:
        for mutant in mutate.mutants(path.read_bytes(), SEED, MUTANTS):
            file.write(struct.pack("<I", len(mutant)) + mutant)
    found = check("address", "--mode", "pack", "--offsets", "0,4,1", str(pack))
    assert found.count("\tbegin\t") == MUTANTS


@pytest.mark.parametrize("name", MODELS)
def test_truncated_files_are_refused(name: str, tmp_path: Path) -> None:
    check("address", "--mode", "truncate", "--step", "97", str(written(name, tmp_path)))


def written_onnx(name: str, folder: Path) -> Path:
    """One of the two hostile models as exporters write it, or one with functions."""
    model = hostile_models.model(name) if name in MODELS else named(name)
    path = folder / f"{name.replace(' ', '_')}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *FUNCTIONS])
def test_mutants_of_onnx_models_are_refused_or_run(name: str, tmp_path: Path) -> None:
    model = hostile_models.model(name) if name in MODELS else named(name)
    pack = tmp_path / "pack"
    count = 0
    with pack.open("wb") as file:
        for mutant in onnx_wire.mutants(model, SEED, MUTANTS):
            file.write(struct.pack("<I", len(mutant)) + mutant)
            count += 1
    found = check("address", "--mode", "pack", "--offsets", "0,1", str(pack))
    assert found.count("\tbegin\t") == count


@pytest.mark.slow
def test_mutants_of_operator_cases_are_refused_or_run(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    count = 0
    with pack.open("wb") as file:
        for model in case_mutants.mutants(cases_lib.load_cases(), SEED, CASE_MUTANTS):
            mutant = model.SerializeToString()
            file.write(struct.pack("<I", len(mutant)) + mutant)
            count += 1
    found = check("address", "--mode", "pack", "--offsets", "0", str(pack))
    assert found.count("\tbegin\t") == count > 4000


@pytest.mark.parametrize("name", [*MODELS, *FUNCTIONS])
def test_truncated_onnx_models_are_refused(name: str, tmp_path: Path) -> None:
    path = written_onnx(name, tmp_path)
    check("address", "--mode", "truncate", "--step", "97", str(path))


def test_what_fuzzing_found_stays_fixed() -> None:
    assert FOUND
    check("address", "--mode", "run", "--rounds", "8", *map(str, FOUND))


def test_whole_files_run_at_any_offset(tmp_path: Path) -> None:
    paths = [str(written(name, tmp_path)) for name in MODELS]
    paths += [str(written_onnx(name, tmp_path)) for name in (*MODELS, *FUNCTIONS)]
    check("address", "--mode", "run", "--offsets", "0,4,1", *paths)


@pytest.mark.parametrize("name", MODELS)
def test_memory_may_run_out_anywhere(name: str, tmp_path: Path) -> None:
    """Every piece is a request of its own here; what is lost or used too late shows."""
    found = check("address", "--mode", "oom", str(written(name, tmp_path)))
    assert int(found.split("\toom\t0\t")[1].split()[0]) > 200


@pytest.mark.parametrize(
    ("loses", "told"),
    [
        ("", ""),
        ("value", "bytes in 1 blocks were not given back"),
        ("block", "LeakSanitizer: detected memory leaks"),
    ],
)
def test_memory_that_is_lost_is_noticed(loses: str, told: str, tmp_path: Path) -> None:
    """That tests/cross.py can fail, which runs all cases and models so."""
    machine = cross.MACHINES["sanitized"]
    try:
        program = cross.build_runner(machine, tmp_path)
    except sanitize.NoSanitizerError as error:
        pytest.skip(f"no sanitizer: {error}")
    path = written("control", tmp_path)
    feeds = hostile_models.FEEDS["control"]
    outputs = {a.name: np.zeros(0) for a in InferenceSession(str(path)).get_outputs()}
    job = cross.Job("control", path, [models_lib.Step(feeds, outputs)])
    starter = cross.find_starter(machine, tmp_path)
    first, last = cross.run_jobs(program, starter, [job, job], 100, loses)
    # The hooks count after each job, LeakSanitizer looks at the end.
    said = first.error if loses == "value" else first.error + last.error
    assert told in said and bool(said) == bool(told), said


@pytest.mark.parametrize("threads", ["1", "2"])
def test_many_threads_share_a_model(threads: str, tmp_path: Path) -> None:
    """Eight threads, runs that are cancelled, and models loaded and released beside them."""
    paths = [str(written(name, tmp_path)) for name in MODELS]
    check("thread", "--mode", "stress", "--repeat", "100", "--threads", threads, *paths)
