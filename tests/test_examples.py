"""The digits example: the trained file, how it is trained, and the demo that runs it."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import ortolan
from ortolan import demo
from ortolan.cli import app

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "digits.onnx"


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_train", DIGITS / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def held_out() -> tuple[demo.Array, demo.Array]:
    return demo.load_held_out(DIGITS)


def reference(images: demo.Array) -> demo.Array:
    """What onnxruntime answers: float32 [n, 10]."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"image": images[:, None].astype(np.float32) / 16})
    return np.asarray(probabilities)


def test_model_is_valid_and_small() -> None:
    import onnx

    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    operators = [node.op_type for node in model.graph.node]
    assert operators == "Conv Relu Conv Relu MaxPool Flatten Gemm Relu Gemm Softmax".split()
    assert MODEL.stat().st_size < 200_000


def test_committed_model_answers_held_out_samples(held_out: tuple[demo.Array, demo.Array]) -> None:
    images, labels = held_out
    assert (reference(images).argmax(axis=1) == labels).mean() >= 0.98


def test_held_out_samples_are_scikit_learns(
    training: ModuleType, held_out: tuple[demo.Array, demo.Array]
) -> None:
    pytest.importorskip("sklearn")
    split = training.load_split()
    assert np.array_equal(held_out[0], split.held_out_images)
    assert np.array_equal(held_out[1], split.held_out_labels)
    seen = {image.tobytes() for image in split.train_images}
    assert not seen & {image.tobytes() for image in split.held_out_images}


def test_gradients_are_the_slopes_of_the_loss(training: ModuleType) -> None:
    rng = np.random.default_rng(7)
    parameters = training.initial_parameters(rng, np.float64)
    x = rng.random((4, 1, 8, 8))
    labels = np.array([1, 0, 7, 3])
    gradients = training.backward(parameters, training.forward(parameters, x), labels)
    step = 1e-6
    for name, value in parameters.items():
        flat = value.reshape(-1)
        for i in rng.choice(flat.size, min(flat.size, 12), replace=False):
            losses = []
            for sign in (1, -1):
                flat[i] += sign * step
                losses.append(training.loss_of(training.forward(parameters, x).logits, labels))
                flat[i] -= sign * step
            slope = (losses[0] - losses[1]) / (2 * step)
            assert slope == pytest.approx(gradients[name].reshape(-1)[i], rel=1e-4, abs=1e-7), name


def test_training_learns_and_repeats(training: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    split = training.load_split()
    x = training.to_input(split.train_images)
    written = []
    for run in range(2):
        parameters = training.train(x, split.train_labels, epochs=2)
        path = tmp_path / f"{run}.onnx"
        training.write_onnx(parameters, path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    held_out = training.to_input(split.held_out_images)
    assert training.accuracy(parameters, held_out, split.held_out_labels) > 0.85


def test_ortolan_agrees_with_onnxruntime(
    held_out: tuple[demo.Array, demo.Array], tmp_path: Path
) -> None:
    images, _ = held_out
    converted = tmp_path / "digits.ort"
    ortolan.convert(str(MODEL), str(converted))
    session = ortolan.InferenceSession(str(converted))
    expected = reference(images)
    for n in (1, 3, len(images)):
        x = images[:n, None].astype(np.float32) / np.float32(16)
        (probabilities,) = session.run(None, {"image": x})
        np.testing.assert_allclose(probabilities, expected[:n], rtol=1e-4, atol=2e-6)


def test_demo_reports_what_it_measured(held_out: tuple[demo.Array, demo.Array]) -> None:
    images, labels = held_out
    right = int((reference(images).argmax(axis=1) == labels).sum())
    console = Console(file=io.StringIO(), width=120)
    assert demo.run(console) == 0
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert f"{right / len(labels):.2%} ({right} of {len(labels)} held-out samples)" in text
    assert f"{MODEL.stat().st_size:,} bytes" in text
    assert text.count("it is a") >= 5


def test_demo_fails_when_the_answers_are_bad(
    held_out: tuple[demo.Array, demo.Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = held_out
    monkeypatch.setattr(demo, "load_held_out", lambda folder: (images, (labels + 1) % 10))
    assert demo.run(Console(file=io.StringIO(), width=120)) == 1


def test_drawing_uses_what_the_terminal_can_show() -> None:
    image = np.full((8, 8), 16, np.uint8)
    image[0] = 0
    assert demo.draw(image)[0] == " " * 16
    assert demo.draw(image)[1] == "█" * 16
    assert demo.shades_for("utf-8") == demo.SHADES
    assert demo.shades_for("ascii").isascii()


def run_clean(command: list[str], **environment: str) -> str:
    """Runs outside the checkout, with no variable that could lead into it; returns the output."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ORTOLAN"))}
    finished = subprocess.run(
        command,
        env={**inherited, **environment},
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@pytest.mark.slow
def test_demo_runs_from_the_wheel_alone(tmp_path: Path) -> None:
    """The wheel brings the library, the example and the C++ sources with it."""
    for module in ("hatchling", "ziglang"):
        pytest.importorskip(module, reason=f"building a wheel needs {module}")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    flags = ["--no-deps", "--no-build-isolation"]
    run_clean([*pip, "wheel", *flags, "--wheel-dir", str(tmp_path), str(ROOT)])
    (wheel,) = tmp_path.glob("ortolan-*.whl")
    assert "-py3-none-" in wheel.name and "-any" not in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("ortolan/lib/") for name in names)
    assert "ortolan/native/core/base.h" in names
    assert len(names) == len(set(names))

    site = tmp_path / "site"
    run_clean([*pip, "install", "--no-deps", "--target", str(site), str(wheel)])
    where = "import ortolan; print(ortolan.__file__)"
    assert str(site) in run_clean([sys.executable, "-c", where], PYTHONPATH=str(site))
    output = run_clean([sys.executable, "-m", "ortolan.demo"], PYTHONPATH=str(site))
    assert "held-out samples" in output


def test_demo_does_not_need_the_test_extra() -> None:
    """`make demo` installs neither onnxruntime nor scikit-learn."""
    code = (
        "import sys\n"
        "for name in ('onnxruntime', 'sklearn', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "from ortolan import demo\n"
        "sys.exit(demo.main())\n"
    )
    environment: dict[str, Any] = {"PYTHONPATH": str(ROOT / "src")}
    assert "held-out samples" in run_clean([sys.executable, "-c", code], **environment)


def test_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    shutil.copy(MODEL, tmp_path)
    monkeypatch.chdir(tmp_path)
    # The commands that the code builds on; the others are run by their own tests.
    commands = re.findall(r"^ortolan (convert \S+)", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert commands
    for command in commands:
        assert CliRunner().invoke(app, command.split()).exit_code == 0, command
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["probabilities"].shape == (1, 10)
    assert names["probabilities"].sum() == pytest.approx(1, abs=1e-5)
