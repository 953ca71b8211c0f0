"""Runs the real models natively: our files, onnxruntime's files, and ours in onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marks
import models_lib as lib
import models_oracle as oracle
import ortolan
from ortolan.errors import OrtolanError

pytestmark = pytest.mark.skipif(bool(lib.MISSING), reason=lib.MISSING)
RecordProperty = Callable[[str, object], None]


@pytest.mark.parametrize("level", ["disable", "all"])
@pytest.mark.parametrize("name", marks.real_models(lib.check_names()))
def test_model(name: str, level: str, record_property: RecordProperty) -> None:
    check = lib.make_check(name)
    session = ortolan.InferenceSession(ortolan.convert(check.source, level=level))
    verdict = lib.run_check(check, session)
    record_property("largest error", f"{verdict.error:.3g} ({verdict.output})")
    assert not verdict.problem


def verdict(got: Any, expected: Any, dtype: type = np.float32, **rules: Any) -> Any:
    """What is said of one output."""
    check = lib.Check("", "", [], **rules)
    return lib.judge(check, "y", np.array(got, dtype), np.array(expected, dtype))


def test_errors_are_seen() -> None:
    assert verdict([1, 2], [1, 2]) == lib.Verdict(0.0, "y")
    assert verdict([1.5, 2], [1, 2]).error == 0.25
    assert verdict([1.5, 2], [1, 2]).problem
    assert np.isnan(verdict([np.nan, 2], [1, 2]).error)
    assert verdict([np.nan, 2], [1, 2]).problem
    assert verdict([[1, 2]], [1, 2]).problem
    assert verdict([1, 2], [1, 2], np.int64) == lib.Verdict(0.0, "y")
    assert verdict([1, 3], [1, 2], np.int64).problem


def test_rules_of_quantized_and_deciding_outputs() -> None:
    many = [1.0] * 200
    quanta = {"y": 0.5}
    assert not verdict([1.5, 1.5, *many[2:]], many, quanta=quanta).problem
    assert verdict([2.0, *many[1:]], many, quanta=quanta).problem
    assert verdict([1.5] * 3 + many[3:], many, quanta=quanta).problem
    assert verdict([1, 1.0005], [1.0005, 1], decisions={"y": -1}).problem
    assert not verdict([1, 1.0005], [1, 1.0006], decisions={"y": -1}).problem


def test_verdicts_add_up() -> None:
    unknown, wrong = lib.Verdict(float("nan"), "b"), lib.Verdict(0.1, "c", "wrong")
    together = lib.Verdict(0.5, "a").worse(unknown).worse(wrong)
    assert together.output == "b"
    assert together.problem == "wrong"


@pytest.mark.parametrize("name", ["mnist-7", "cifar-imageclassifier-op10"])
def test_onnxruntime_runs_our_file(name: str) -> None:
    check = lib.make_check(name)
    content = ortolan.convert(check.source, level="disable")
    results = oracle.run(oracle.session(content), check.steps[0].feeds)
    for output, expected in check.steps[0].expected.items():
        assert results[output].tobytes() == expected.tobytes(), output


@pytest.fixture(scope="module")
def onnxruntime_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what onnxruntime's own converter makes of the models."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    for name in lib.NAMES:
        (folder / f"{name}.onnx").symlink_to(lib.FOLDER / f"{name}.onnx")
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort"]
    command += [str(folder), "--optimization_style", "Fixed"]
    level = {"ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL": "basic"}
    done = subprocess.run(
        command, env={**os.environ, **level}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", marks.real_models(lib.check_names()))
def test_file_of_onnxruntime(
    name: str, onnxruntime_files: Path, record_property: RecordProperty
) -> None:
    check = lib.make_check(name)
    try:
        session = ortolan.InferenceSession(onnxruntime_files / f"{check.model}.basic.ort")
    except OrtolanError as refusal:
        pytest.fail(f"the file does not load: {refusal}")
    verdict = lib.run_check(check, session)
    record_property("largest error", f"{verdict.error:.3g} ({verdict.output})")
    assert not verdict.problem


def test_old_file_of_onnxruntime() -> None:
    """A file of format version 2 as onnxruntime 1.7 wrote it, with an answer from its makers."""
    sample = np.load(lib.FOLDER / "samples" / "mnist.npz")
    session = ortolan.InferenceSession(lib.FOLDER / "mnist-onnxjs.ort")
    results = session.run(None, {session.get_inputs()[0].name: sample["input"]})
    assert verdict(results[0], sample["expected"]).error <= 1e-5
