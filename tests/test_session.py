"""The Python API: what a program written for onnxruntime relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import ortolan
from ortolan import errors
from ortolan.session import InferenceSession, RunOptions, SessionOptions


def convert(text: str, level: str = "disable", **initializers: np.ndarray[Any, Any]) -> bytes:
    """An ORT file from the textual form of ONNX; initializers are added to the graph."""
    model = onnx.parser.parse_model(text)
    for name, array in initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    content = ortolan.convert(model.SerializeToString(), level=level)
    assert isinstance(content, bytes)
    return content


HEAD = '<ir_version: 8, opset_import: ["" : 17], producer_name: "test">'
ADD = (
    HEAD
    + "g (float[N, 3] x, float[3] y) => (float[N, 3] z, float[N, 3] w) "
    + ("{ z = Add(x, y) w = Mul(z, z) }")
)
ENDLESS = HEAD + (
    "g (int64 m, bool c, float[2] x) => (float[2] y) "
    "{ y = Loop <body = b (int64 i, bool k, float[2] s) => (bool k2, float[2] s2) "
    "{ k2 = Identity(k) s2 = Neg(s) }> (m, c, x) }"
)


def test_inputs_and_outputs_are_described() -> None:
    session = InferenceSession(convert(ADD))
    assert [(a.name, a.type, a.shape) for a in session.get_inputs()] == [
        ("x", "tensor(float)", ["N", 3]),
        ("y", "tensor(float)", [3]),
    ]
    assert [a.name for a in session.get_outputs()] == ["z", "w"]
    assert session.get_modelmeta().producer_name == "test"
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_outputs_come_in_the_order_asked_for() -> None:
    session = InferenceSession(convert(ADD))
    x, y = np.ones((2, 3), np.float32), np.arange(3, dtype=np.float32)
    w, z = session.run(["w", "z"], {"x": x, "y": y})
    np.testing.assert_array_equal(z, x + y)
    np.testing.assert_array_equal(w, (x + y) ** 2)
    with pytest.raises(errors.InvalidArgument, match="nothing"):
        session.run(["nothing"], {"x": x, "y": y})


def test_outputs_outlive_the_session_and_later_runs() -> None:
    session = InferenceSession(convert(ADD))
    y = np.zeros(3, np.float32)
    first = session.run(["z"], {"x": np.full((4, 3), 1, np.float32), "y": y})[0]
    second = session.run(["z"], {"x": np.full((4, 3), 2, np.float32), "y": y})[0]
    del session
    assert (first == 1).all()
    assert (second == 2).all()
    first += 1  # outputs belong to the caller
    assert (first == 2).all()


def test_an_initializer_that_is_an_input_can_be_replaced() -> None:
    text = HEAD + "g (float[2] x, float[2] b) => (float[2] y) { y = Add(x, b) }"
    session = InferenceSession(convert(text, b=np.array([1, 2], np.float32)))
    assert [a.name for a in session.get_inputs()] == ["x"]
    assert [a.name for a in session.get_overridable_initializers()] == ["b"]
    x = np.zeros(2, np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], [1, 2])
    b = np.array([5, 6], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "b": b})[0], [5, 6])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], [1, 2])


def test_a_run_can_be_terminated_from_another_thread() -> None:
    session = InferenceSession(convert(ENDLESS))
    options = RunOptions()
    feeds: dict[str, Any] = {"m": np.int64(2**62), "c": np.array(True), "x": np.ones(2, np.float32)}
    threading.Timer(0.2, lambda: setattr(options, "terminate", True)).start()
    start = time.monotonic()
    with pytest.raises(errors.Cancelled):
        session.run(None, feeds, options)
    assert time.monotonic() - start < 20
    # The session is as good as before.
    feeds["m"] = np.int64(3)
    np.testing.assert_array_equal(session.run(None, feeds)[0], [-1, -1])


def test_a_loop_has_a_limit_that_the_caller_sets() -> None:
    options = SessionOptions()
    options.add_session_config_entry("ortolan.max_iterations", "10")
    session = InferenceSession(convert(ENDLESS), options)
    feeds: dict[str, Any] = {"m": np.int64(11), "c": np.array(True), "x": np.ones(2, np.float32)}
    with pytest.raises(errors.LimitExceeded, match="Loop"):
        session.run(None, feeds)


def test_denormals_are_kept_or_flushed() -> None:
    content = convert(HEAD + "g (float[1] x, float[1] f) => (float[1] y) { y = Mul(x, f) }")
    feeds = {"x": np.array([1e-30], np.float32), "f": np.array([1e-10], np.float32)}
    assert InferenceSession(content).run(None, feeds)[0][0] > 0
    options = SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    assert InferenceSession(content, options).run(None, feeds)[0][0] == 0
    assert np.float32(1e-30) * np.float32(1e-10) > 0  # the thread's own state is as before


def test_an_option_that_is_no_number_is_an_error() -> None:
    options = SessionOptions()
    options.add_session_config_entry("session.intra_op_num_threads", "many")
    with pytest.raises(errors.InvalidArgument, match="many"):
        InferenceSession(convert(ADD), options)


@pytest.mark.parametrize("value", ["9\x00x", "\ud800"])
def test_an_option_that_is_no_text_is_an_error(value: str) -> None:
    options, limits = SessionOptions(), RunOptions()
    options.add_session_config_entry("ortolan.max_nodes", value)
    with pytest.raises(errors.InvalidArgument, match=r"option 'ortolan\.max_nodes'"):
        InferenceSession(convert(ADD), options)
    limits.add_run_config_entry("ortolan.max_run_bytes", value)
    text = HEAD + "g (float[N] x) => (float[N] y) { y = Neg(x) }"
    with pytest.raises(errors.InvalidArgument, match=r"option 'ortolan\.max_run_bytes'"):
        InferenceSession(convert(text)).run(None, {"x": np.ones(1, np.float32)}, limits)


def test_the_arena_is_close_to_its_floor() -> None:
    chain = "".join(f"t{i} = Transpose <perm = [1, 0]> (t{i - 1}) " for i in range(1, 9))
    text = HEAD + "g (float[64, 32] t0) => (float[64, 32] y) { " + chain + "y = Relu(t8) }"
    session = InferenceSession(convert(text))
    session.run(None, {"t0": np.ones((64, 32), np.float32)})
    assert 0 < session.arena_bytes <= 2 * 64 * 32 * 4


def test_constants_that_are_computed_leave_no_work(tmp_path: Path) -> None:
    """Level disable keeps the nodes; loading computes them once."""
    text = HEAD + (
        "g (float[1, 4] x) => (float[1, 2] y) "
        "{ t = Transpose <perm = [1, 0]> (w) y = MatMul(x, t) }"
    )
    w = np.arange(8, dtype=np.float32).reshape(2, 4)
    path = tmp_path / "model.ort"
    path.write_bytes(convert(text, w=w))
    x = np.array([[1, 2, 3, 4]], np.float32)
    np.testing.assert_allclose(InferenceSession(path).run(None, {"x": x})[0], x @ w.T)


def test_opening_an_ort_file_imports_no_toolchain(tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    path.write_bytes(convert(ADD))
    program = (
        "import sys, ortolan; ortolan.InferenceSession(sys.argv[1]);"
        "sys.exit(any(m.split('.')[0] in ('onnx', 'onnx_ir', 'typer', 'rich', 'flatbuffers')"
        " for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == 0


def test_scales_that_may_be_given_leave_images_as_they_are(tmp_path: Path) -> None:
    """BatchNormalization between convolutions, its vectors inputs with defaults: no conversions."""
    names = ("scale", "b", "mean", "var")
    text = HEAD + (
        "g (float[1, 24, 9, 8] x, float[24] scale, float[24] b, float[24] mean, float[24] var)"
        " => (float[1, 24, 9, 8] y) { c = Conv(x, w) n = BatchNormalization(c, scale, b, mean, var)"
        " r = Relu(n) y = Conv(r, w) }"
    )
    random = np.random.default_rng(3)
    vectors = {name: random.uniform(0.5, 2, 24).astype(np.float32) for name in names}
    weights = random.standard_normal((24, 24, 1, 1)).astype(np.float32)
    x = random.standard_normal((1, 24, 9, 8)).astype(np.float32)
    options = SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "p")
    session = InferenceSession(convert(text, "all", w=weights, **vectors), options)
    (y,) = session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    kinds = [e["args"]["op_name"] for e in events if e["cat"] == "Node"]
    assert [k.rpartition(":")[2] for k in kinds].count("Layout") == 2
    scale, b, mean, var = (vectors[name].astype(np.float64)[:, None, None] for name in names)
    w = weights[:, :, 0, 0].astype(np.float64)
    c = np.einsum("oi,bihw->bohw", w, x)
    r = np.maximum((c - mean) / np.sqrt(var + 1e-5) * scale + b, 0)
    np.testing.assert_allclose(y, np.einsum("oi,bihw->bohw", w, r), rtol=1e-4, atol=1e-3)


def test_converting_needs_no_sympy(tmp_path: Path) -> None:
    """onnx_ir loads it for arithmetic of dimensions, which works all the same."""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(ADD).SerializeToString())
    program = (
        "import sys, ortolan; ortolan.InferenceSession(sys.argv[1]); late = 'sympy' in sys.modules;"
        "import onnx_ir; print(late, onnx_ir.SymbolicDim('n') + 1 + 2, 'sympy' in sys.modules)"
    )
    environment = {**os.environ, "ORTOLAN_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "False n + 3 True"


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(errors.NoSuchFile, match="missing"):
        InferenceSession(tmp_path / "missing.ort")
    empty = tmp_path / "empty.ort"
    empty.write_bytes(b"")
    with pytest.raises(errors.InvalidFormat):
        InferenceSession(empty)
    with pytest.raises(errors.OrtolanError):
        InferenceSession(tmp_path)


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="FastExecutionProvider"):
        InferenceSession(convert(ADD), providers=["FastExecutionProvider"])
