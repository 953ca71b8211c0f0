"""Runs the real models natively: our files, onnxruntime's files, and ours in onnxruntime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import models_lib as lib
import ortolan
from ortolan.errors import OrtolanError

pytestmark = pytest.mark.skipif(bool(lib.MISSING), reason=lib.MISSING)
RecordProperty = Callable[[str, object], None]


def worst(errors: dict[str, float]) -> tuple[float, str]:
    """The largest error and the output that has it; NaN is larger than anything."""
    unknown = [(error, name) for name, error in errors.items() if not error < np.inf]
    return max(unknown or [(error, name) for name, error in errors.items()])


@pytest.mark.parametrize("level", ["disable", "all"])
@pytest.mark.parametrize("name", lib.check_names())
def test_model(name: str, level: str, record_property: RecordProperty) -> None:
    check = lib.make_check(name)
    session = ortolan.InferenceSession(ortolan.convert(check.path, level=level))
    error, output = worst(lib.run_check(check, session))
    record_property("largest error", f"{error:.3g} ({output})")
    assert error <= lib.LIMIT, output


def test_errors_are_seen() -> None:
    right = {"y": np.array([1.0, 2.0], np.float32)}
    assert lib.errors_of(right, right) == {"y": 0.0}
    assert lib.errors_of({"y": np.array([1.5, 2.0], np.float32)}, right) == {"y": 0.25}
    assert np.isnan(lib.errors_of({"y": np.array([np.nan, 2], np.float32)}, right)["y"])
    assert np.isnan(worst({"a": 0.5, "b": float("nan"), "c": 0.1})[0])
    with pytest.raises(AssertionError):
        lib.errors_of({"y": np.array([[1.0, 2.0]], np.float32)}, right)


@pytest.mark.parametrize("name", ["mnist-7", "cifar-imageclassifier-op10"])
def test_onnxruntime_runs_our_file(name: str) -> None:
    check = lib.make_check(name)
    content = ortolan.convert(check.path, level="disable")
    results = lib.run_oracle(lib.onnxruntime_session(content), check.steps[0].feeds)
    for output, expected in check.steps[0].expected.items():
        assert results[output].tobytes() == expected.tobytes(), output


@pytest.fixture(scope="module")
def onnxruntime_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what onnxruntime's own converter makes of the models."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    for name in lib.NAMES:
        shutil.copyfile(lib.FOLDER / f"{name}.onnx", folder / f"{name}.onnx")
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort"]
    command += [str(folder), "--optimization_style", "Fixed"]
    level = {"ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL": "basic"}
    done = subprocess.run(
        command, env={**os.environ, **level}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", lib.check_names())
def test_file_of_onnxruntime(
    name: str, onnxruntime_files: Path, record_property: RecordProperty
) -> None:
    check = lib.make_check(name)
    try:
        session = ortolan.InferenceSession(onnxruntime_files / f"{check.model}.basic.ort")
    except OrtolanError as refusal:
        pytest.fail(f"the file does not load: {refusal}")
    error, output = worst(lib.run_check(check, session))
    record_property("largest error", f"{error:.3g} ({output})")
    assert error <= lib.LIMIT, output


def test_old_file_of_onnxruntime() -> None:
    """A file of format version 2 as onnxruntime 1.7 wrote it, with an answer from its makers."""
    sample = np.load(lib.FOLDER / "samples" / "mnist.npz")
    session = ortolan.InferenceSession(lib.FOLDER / "mnist-onnxjs.ort")
    names = [value.name for value in session.get_inputs()]
    results = session.run(None, {names[0]: sample["input"]})
    errors = lib.errors_of({"y": results[0]}, {"y": sample["expected"]})
    assert errors["y"] <= 1e-5
