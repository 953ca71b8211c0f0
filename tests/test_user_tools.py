"""onnxruntime's tools under their names, beside onnxruntime's own, and programs written for it."""

from __future__ import annotations

import importlib
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from rich.console import Console

import ortolan
from ortolan import demo, errors
from ortolan.catalog.types import DataType
from ortolan.importer import load
from ortolan.ortformat import describe, read, write
from ortolan.ortformat.from_ir import from_ir
from ortolan.passes.pipeline import optimize
from ortolan.passes.weight_storage import store_weights
from ortolan.report import treemap
from ortolan.required_ops import read_config

ROOT = Path(__file__).resolve().parent.parent
TEXT = """
<ir_version: 3, opset_import: ["" : 13]>
g (float[N, 3] x, float[M, 2] u, float[3, 2] w) => (float[N, 2] y, float[A, B] v)
<float[3, 2] w = {1, 2, 3, 4, 5, 6}>
{ t = Identity(x) m = MatMul(t, w) y = Relu(m) v = Neg(u) }
"""
X = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)
U = np.ones((2, 2), np.float32)
W = np.arange(1, 7, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    return path


def run(package: str, tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"{package}.tools.{tool}", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def both(tool: str, model: Path, *options: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """What the tool of each makes of a model."""
    written = []
    for package in ("onnxruntime", "ortolan"):
        target = model.with_name(f"{package}.onnx")
        done = run(package, tool, *options, model, target)
        assert done.returncode == 0, done.stderr
        written.append(onnx.load(target))
    return written[0], written[1]


def shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        info.name: [d.dim_value or d.dim_param for d in info.type.tensor_type.shape.dim]
        for info in (*model.graph.input, *model.graph.output)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--dim_param", "N", "--dim_value", "4"],
        ["--input_name", "x", "--input_shape", "4,3"],
        ["--input_name", "u", "--input_shape", "2,2"],
    ],
)
def test_make_dynamic_shape_fixed(model: Path, options: list[str]) -> None:
    theirs, ours = both("make_dynamic_shape_fixed", model, *options)
    assert shapes(ours) == shapes(theirs)
    assert shapes(ours) != shapes(onnx.load(model))


@pytest.mark.slow
def test_update_onnx_opset(model: Path) -> None:
    theirs, ours = both("update_onnx_opset", model, "--opset", "17")
    assert (
        [o.version for o in ours.opset_import] == [o.version for o in theirs.opset_import] == [17]
    )
    done = run("ortolan", "update_onnx_opset", "--opset", "9", model, model.with_name("no.onnx"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: .*opset 13 is not below 9\n", done.stderr)


@pytest.mark.slow
def test_optimize_onnx_model(model: Path) -> None:
    theirs, ours = both("optimize_onnx_model", model, "--opt_level", "basic")
    for written in (theirs, ours):
        assert "Identity" not in [node.op_type for node in written.graph.node]
    y, v = onnxruntime.InferenceSession(ours.SerializeToString()).run(None, {"x": X, "u": U})
    expected = onnxruntime.InferenceSession(str(model)).run(None, {"x": X, "u": U})
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(v, expected[1])


def test_remove_initializer_from_input(model: Path) -> None:
    for package in ("onnxruntime", "ortolan"):
        target = model.with_name(f"{package}.onnx")
        done = run(package, "remove_initializer_from_input", "--input", model, "--output", target)
        assert done.returncode == 0, done.stderr
    target = model.with_name("ortolan.onnx")
    assert [info.name for info in onnx.load(target).graph.input] == ["x", "u"]
    session = onnxruntime.InferenceSession(str(target))
    assert session.get_overridable_initializers() == []


def test_onnx_randomizer(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(TEXT)
    weight = np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 100)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    source, target = tmp_path / "model.onnx", tmp_path / "random.onnx"
    onnx.save(proto, source)
    assert run("ortolan", "onnx_randomizer", "-m", source, "-o", target).returncode == 0
    changed = onnx.numpy_helper.to_array(onnx.load(target).graph.initializer[0])
    assert (changed.shape, changed.dtype) == (weight.shape, weight.dtype)
    assert not np.isclose(changed, weight).all()
    assert abs(changed.std() - weight.std()) < 0.2


@pytest.mark.slow
def test_onnxruntime_test(model: Path) -> None:
    done = run("ortolan", "onnxruntime_test", model, "3", "--symbolic_dims", "N=4,M=2")
    assert done.returncode == 0, done.stderr
    assert "3 runs" in done.stdout
    assert run("ortolan", "onnxruntime_test", model, "3", "--symbolic_dims", "N").returncode == 2


@pytest.mark.slow
def test_check_onnx_model_mobile_usability(model: Path) -> None:
    done = run("ortolan", "check_onnx_model_mobile_usability", model)
    assert "usable: YES" in done.stdout
    assert "without a fixed shape: x, u" in done.stdout
    onnx.save(onnx.parser.parse_model(TEXT.replace("Relu", "Frobnicate")), model)
    done = run("ortolan", "check_onnx_model_mobile_usability", "--log_level", "debug", model)
    assert "Frobnicate" in done.stdout + done.stderr


def test_convert_onnx_models_to_ort(model: Path, tmp_path: Path) -> None:
    names, operators = [], []
    for package in ("onnxruntime", "ortolan"):
        folder = tmp_path / package
        done = run(
            package, "convert_onnx_models_to_ort", "--output_dir", folder, "--optimization_style",
            "Fixed", "Runtime", "--save_optimized_onnx_model", model,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        names.append({path.name for path in folder.iterdir()})
        config = (folder / "model.required_operators.config").read_text()
        operators.append([line for line in config.splitlines() if not line.startswith("#")])
        for path in folder.glob("*.ort"):
            for ort in (onnxruntime, ortolan):
                y, _ = ort.InferenceSession(str(path)).run(None, {"x": X, "u": U})
                np.testing.assert_array_equal(y, np.maximum(X @ W, 0))
    assert {"model.ort", "model.with_runtime_opt.ort", "model.optimized.onnx"} <= names[1]
    assert names[0] - names[1] <= {"model.required_operators.with_runtime_opt.config"}
    assert sorted(operators[1]) == sorted(operators[0])


def test_configs_with_types_and_levels_are_named_as_onnxruntimes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL", "basic")
    configs = []
    for package in ("onnxruntime", "ortolan"):
        folder = tmp_path / package
        done = run(
            package, "convert_onnx_models_to_ort", "--output_dir", folder, "--optimization_style",
            "Fixed", "--enable_type_reduction", model,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        configs.append(folder / "model.required_operators_and_types.basic.config")
    theirs, ours = (read_config(path) for path in configs)
    assert ours.operators == theirs.operators
    assert ours.types[("", "Relu")].inputs == {0: frozenset({DataType.FLOAT})}


@pytest.mark.slow
def test_tools_have_onnxruntimes_options() -> None:
    for tool in (
        "make_dynamic_shape_fixed", "update_onnx_opset", "optimize_onnx_model",
        "check_onnx_model_mobile_usability", "remove_initializer_from_input", "onnx_randomizer",
        "onnxruntime_test", "convert_onnx_models_to_ort",
    ):  # fmt: skip
        options = [
            set(re.findall(r"--\w+|(?<=\s)-\w\b", run(package, tool, "--help").stdout))
            for package in ("onnxruntime", "ortolan")
        ]
        # The second is an option of onnxruntime's build script, which a help text names.
        assert options[0] <= options[1] | {"--help", "--include_ops_by_config"}, tool


PROGRAM = """
import sys
import zlib
import importlib.metadata
import numpy as np
import onnxruntime as rt
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from onnxruntime.capi._pybind_state import get_available_providers
from onnxruntime.datasets import get_example

assert __name__ == "__main__"
assert importlib.metadata.version("onnxruntime") == rt.__version__
session = rt.InferenceSession(sys.argv[1], providers=get_available_providers())
try:
    session.run(None, {"x": np.zeros((1, 4), np.float32), "u": np.zeros((1, 2), np.float32)})
except rt.capi.onnxruntime_pybind11_state.InvalidArgument as error:
    assert isinstance(error, InvalidArgument)
y = session.run(["y"], {"x": np.ones((1, 3), np.float32), "u": np.zeros((1, 2), np.float32)})[0]
print(type(session).__module__, y.tolist())
print(rt.InferenceSession(get_example("mul_1.onnx")).get_inputs()[0].shape)
try:
    import onnxruntime.training
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["script", "module"])
def test_programs_for_onnxruntime_run_unchanged(how: str, model: Path) -> None:
    (model.parent / "program.py").write_text(PROGRAM)
    program = ["program.py"] if how == "script" else ["-m", "program"]
    command = [sys.executable, "-m", "ortolan.as_onnxruntime", *program, str(model)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=model.parent, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ortolan.session [[9.0, 12.0]]",
        "[3, 2]",
        "Ortolan stands for onnxruntime and has no module onnxruntime.training",
    ]


@pytest.mark.parametrize(("storage", "most"), [("float16", 1e-3), ("int8", 1e-2)])
def test_weights_are_stored_in_fewer_bytes(storage: str, most: float) -> None:
    proto = onnx.parser.parse_model(TEXT)
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((3, 2000)).astype(np.float32) * np.array([[1], [9], [0.1]])
    proto.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(weight.astype(np.float32), "w")
    )
    for info in (proto.graph.input[2], proto.graph.output[0]):
        info.type.tensor_type.shape.dim[1].dim_value = 2000
    del proto.graph.input[2]
    proto.ir_version = 8
    whole = ortolan.convert(proto)
    model = load(proto)
    optimize(model)
    assert store_weights(model, storage) == 1
    small = write(from_ir(model))
    size = {"float16": 2, "int8": 1}[storage]
    assert len(small) - len(whole) == pytest.approx(weight.size * (size - 4), abs=9000)
    summary = describe(read(small))
    assert summary.initializers[0].bytes == weight.size * size
    feeds = {"x": X, "u": U}
    expected = ortolan.InferenceSession(whole).run(["y"], feeds)[0]
    for session in (ortolan.InferenceSession(small), onnxruntime.InferenceSession(small)):
        (y,) = session.run(["y"], feeds)
        assert np.abs(y - expected).max() <= most * np.abs(expected).max()
        assert np.abs(y - expected).max() > 0
    with pytest.raises(errors.InvalidArgument, match="int4"):
        store_weights(model, "int4")


def test_treemap_fills_the_rectangle() -> None:
    sizes = [50.0, 30.0, 10.0, 5.0, 4.0, 1.0]
    boxes = treemap(sizes, 200, 100)
    assert [box.item for box in boxes] == list(range(6))
    for box, size in zip(boxes, sizes, strict=True):
        assert box.width * box.height == pytest.approx(size * 200)
        assert -1e-9 <= box.x <= box.x + box.width <= 200 + 1e-9
        assert -1e-9 <= box.y <= box.y + box.height <= 100 + 1e-9
    for a in boxes:
        for b in boxes[a.item + 1 :]:
            across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert min(across, down) < 1e-6
    assert treemap([], 10, 10) == []


def test_demo_draws_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    assert demo.run(Console(file=io.StringIO(), width=120), path) == 0
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    length = struct.unpack(">I", content[33:37])[0]
    assert content[37:41] == b"IDAT"
    lines = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8)
    pixels = lines.reshape(height, 1 + width * 3)[:, 1:].reshape(height, width, 3)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    # Ink of the samples, the green of right answers and the red of the one that is wrong.
    assert {(0, 0, 0), (255, 255, 255), (24, 128, 56)} <= colours
    with pytest.raises(errors.NoSuchFile, match="none"):
        demo.run(Console(file=io.StringIO()), tmp_path / "none" / "demo.png")


@pytest.mark.parametrize("package", ["onnxruntime", "ortolan"])
def test_backend(package: str, model: Path) -> None:
    backend = importlib.import_module(f"{package}.backend")
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")
    assert backend.is_compatible(str(model))
    for source in (str(model), onnx.load(model)):
        rep = backend.prepare(source, "CPU")
        y, _ = rep.run([X, U])
        np.testing.assert_array_equal(y, np.maximum(X @ W, 0))
    one = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[3] x) => (float[3] y) { y = Neg(x) }'
    )
    (y,) = backend.run(one, np.ones(3, np.float32), "CPU")
    np.testing.assert_array_equal(y, [-1, -1, -1])


def test_backend_refuses_what_it_cannot(model: Path) -> None:
    backend = importlib.import_module("ortolan.backend")
    with pytest.raises(errors.NotImplemented, match="CUDA"):
        backend.prepare(str(model), "CUDA")
    with pytest.raises(errors.InvalidArgument, match="2 inputs, not 1"):
        backend.prepare(str(model)).run([X])
    with pytest.raises(errors.InvalidArgument, match="speed"):
        backend.prepare(str(model), speed=3)
    assert not backend.is_compatible(3)


def test_sizes_of_outputs_come_back_from_any_equation(tmp_path: Path) -> None:
    """Inference of onnx looks forever for the end of its first term."""
    path, fixed = tmp_path / "model.onnx", tmp_path / "fixed.onnx"
    text = '<ir_version: 8, opset_import: ["": 17]>\ng (float[N] x) => (float[A] y, float[B] z) '
    text += '{ y = Neg(x) z = Einsum<equation="i.,i">(x, x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    script = f"""
import onnx
from ortolan.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed
model = onnx.load({str(path)!r})
make_dim_param_fixed(model.graph, "N", 2)
fix_output_shapes(model)
onnx.save(model, {str(fixed)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    sizes = [output.type.tensor_type.shape.dim[0] for output in onnx.load(fixed).graph.output]
    assert [(size.dim_value, size.dim_param) for size in sizes] == [(2, ""), (0, "B")]
