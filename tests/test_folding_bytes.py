"""Constants that are folded have the same bytes whatever machine converts: arm64 beside x86-64.

What the folding pass computes, it computes by small models; here they run in the library of this
machine and, under qemu-user, in that of an arm64 machine that converts, both in their lowest
instruction set. The operator cases run as such models too, with all their inputs constant.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import cases_lib
import corpus
import cross
import models_lib as lib
import ortolan
from ortolan.build.targets import LINUX_ARM64_HOST, TARGETS
from ortolan.errors import OrtolanError
from ortolan.importer import load
from ortolan.passes import constant_folding
from ortolan.session import InferenceSession, SessionOptions

EMULATOR = "qemu-aarch64"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR}"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this machine is no x86-64"),
]
# The host library of arm64 with the set that folds alone: what its runner computes with.
TARGET = dataclasses.replace(
    LINUX_ARM64_HOST,
    name="linux-arm64-fold",
    instruction_sets=LINUX_ARM64_HOST.instruction_sets[:1],
    flags=(),
)


def folded(model: Path | onnx.ModelProto) -> list[bytes]:
    """The models that the folding pass runs for a model."""
    programs: list[bytes] = []

    def record(program: bytes) -> list[Any]:
        results = constant_folding.run_portably(program)
        programs.append(program)
        return results

    constant_folding.fold_constants(load(model), record)
    return programs


def constant_cases() -> Iterator[tuple[str, bytes]]:
    """The operator cases as models without inputs, but those that draw random numbers."""
    for case in cases_lib.load_cases():
        entry = case.entry
        if case.error is not None or entry is None or "volatile" in entry.flags:
            continue
        made = cases_lib.make_model(case)
        for name, array in made.feeds.items():
            made.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        del made.proto.graph.input[:]
        try:
            yield case.id, ortolan.convert(made.proto, level="disable")
        except OrtolanError:
            continue  # tests/test_cases.py has those that must convert


def here(program: bytes) -> dict[str, Any] | None:
    """What this machine computes by its lowest set; None if it refuses."""
    options = SessionOptions()
    options.add_session_config_entry("ortolan.instruction_set", "base")
    try:
        session = InferenceSession(program, options)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {}), strict=True))
    except OrtolanError:
        return None


def is_same(a: Any, b: Any) -> bool:
    """Whether arrays have the same bytes, once NaNs are one NaN as in folded constants."""
    if not isinstance(a, np.ndarray) or a.dtype.kind in "OU":
        return bool(np.all(np.asarray(a, object) == np.asarray(b, object)))
    first, second = (constant_folding.with_one_nan(np.asarray(x)) for x in (a, b))
    return (first.dtype, first.shape) == (second.dtype, second.shape) and (
        first.tobytes() == second.tobytes()
    )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs models on arm64."""
    TARGETS[TARGET.name] = TARGET
    machine = cross.Machine(TARGET.name, "aarch64-linux-musl", EMULATOR)
    return cross.build_runner(machine, tmp_path_factory.mktemp("arm64"))


def compare(programs: dict[str, bytes], runner: Path, folder: Path) -> list[str]:
    """The names of the programs that differ; at least one program must run."""
    jobs, results = [], []
    for k, (name, program) in enumerate(programs.items()):
        computed = here(program)
        if computed is not None:
            path = folder / f"{k}.ort"
            path.write_bytes(program)
            jobs.append(cross.Job(name, path, [lib.Step({}, dict.fromkeys(computed, np.empty(0)))]))
            results.append(computed)
    assert jobs
    emulated = cross.run_jobs(runner, [EMULATOR], jobs, limit=900)
    return [
        f"{job.name}: {other.error or 'other bytes'}"
        for job, mine, other in zip(jobs, results, emulated, strict=True)
        if other.error or not all(is_same(mine[k], other.steps[0][k]) for k in mine)
    ]


def test_models(runner: Path, tmp_path: Path) -> None:
    """All that is folded in the corpus and, where they are, in the real models."""
    checks = [corpus.make_check(name) for name in corpus.names()]
    checks += [] if lib.MISSING else [lib.make_check(name) for name in lib.NAMES]
    programs = {
        f"{check.name} {k}": program
        for check in checks
        for k, program in enumerate(folded(check.source))
    }
    assert compare(programs, runner, tmp_path) == []


def test_operators(runner: Path, tmp_path: Path) -> None:
    assert compare(dict(constant_cases()), runner, tmp_path) == []


def test_a_difference_is_seen() -> None:
    one, other = np.array([1, np.nan], np.float32), np.array([1, -np.float32(np.nan)], np.float32)
    assert is_same(one, other)
    assert not is_same(one, np.nextafter(one, np.float32(2)))
    assert not is_same(np.array([0.0]), np.array([-0.0]))
