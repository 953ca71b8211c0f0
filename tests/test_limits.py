"""The limits that a caller sets: each has its error, which names it, and leaves all usable."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortolan import errors
from ortolan.session import (
    GraphOptimizationLevel,
    InferenceSession,
    RunOptions,
    SessionOptions,
)
from test_cli import call
from test_session import ADD, ENDLESS, HEAD, convert

FEEDS: dict[str, Any] = {"x": np.ones((100_000, 3), np.float32), "y": np.ones(3, np.float32)}


def options(**entries: int) -> SessionOptions:
    """Options with limits."""
    made = SessionOptions()
    made.intra_op_num_threads = 1
    for key, value in entries.items():
        made.add_session_config_entry(f"ortolan.{key}", str(value))
    return made


def run_options(**entries: object) -> RunOptions:
    """Options of a run with limits."""
    made = RunOptions()
    for key, value in entries.items():
        made.add_run_config_entry(f"ortolan.{key}", str(value))
    return made


def feeds(trips: int) -> dict[str, Any]:
    """What ENDLESS takes."""
    return {"m": np.int64(trips), "c": np.array(True), "x": np.ones(2, np.float32)}


def test_the_file_counts_to_the_bytes_of_a_model() -> None:
    content = convert(ADD)
    with pytest.raises(errors.LimitExceeded, match=rf"{len(content)} bytes.*max_model_bytes"):
        InferenceSession(content, options(max_model_bytes=len(content) - 1))


def test_what_loading_takes_counts_to_the_bytes_of_a_model() -> None:
    content = convert(ADD)
    with pytest.raises(errors.LimitExceeded, match=r"loading takes more.*max_model_bytes"):
        InferenceSession(content, options(max_model_bytes=len(content) + 1000))
    InferenceSession(content, options(max_model_bytes=1 << 20)).run(None, FEEDS)


def test_external_weights_count_to_the_bytes_of_a_model(tmp_path: Path) -> None:
    import onnx

    weight = onnx.numpy_helper.from_array(np.ones(1 << 16, np.float32), "w")
    model = onnx.parser.parse_model(HEAD + "g (float[1] x) => (float[65536] y) { y = Add(x, w) }")
    model.graph.initializer.append(weight)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert path.stat().st_size < 1000
    few, many = options(max_model_bytes=200_000), options(max_model_bytes=1 << 20)
    # The file is read as it is.
    few.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    many.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    with pytest.raises(errors.LimitExceeded, match=r"a file of 262144 bytes.*max_model_bytes"):
        InferenceSession(str(path), few)
    InferenceSession(str(path), many)


def test_nodes() -> None:
    with pytest.raises(errors.LimitExceeded, match=r"more than 1 nodes.*max_nodes"):
        InferenceSession(convert(ADD), options(max_nodes=1))
    InferenceSession(convert(ADD), options(max_nodes=2))


NESTED = HEAD + (
    "g (bool c, float[2] x) => (float[2] y) { y = If (c) <"
    "then_branch = t () => (float[2] a) { a = If (c) <"
    "then_branch = tt () => (float[2] b) { b = Neg(x) },"
    "else_branch = te () => (float[2] d) { d = Abs(x) }> },"
    "else_branch = e () => (float[2] f) { f = Identity(x) }> }"
)


def test_depth() -> None:
    with pytest.raises(errors.LimitExceeded, match=r"deeper than 1.*max_depth"):
        InferenceSession(convert(NESTED), options(max_depth=1))
    InferenceSession(convert(NESTED), options(max_depth=2))


def test_bytes_of_a_tensor() -> None:
    with pytest.raises(errors.LimitExceeded, match=r"\[Add\].*100000.*max_tensor_bytes is 1199999"):
        InferenceSession(convert(ADD), options(max_tensor_bytes=1199999)).run(None, FEEDS)
    InferenceSession(convert(ADD), options(max_tensor_bytes=1200000)).run(None, FEEDS)


def test_bytes_of_a_run() -> None:
    session = InferenceSession(convert(ADD), options(max_run_bytes=2_300_000))
    with pytest.raises(
        errors.LimitExceeded, match=r"2300000 bytes.*max_run_bytes.*more were asked"
    ):
        session.run(None, FEEDS)
    # The same session runs what is small enough, or what is allowed for a run.
    small = {**FEEDS, "x": FEEDS["x"][:100]}
    assert session.run(None, small)[0].shape == (100, 3)
    assert session.run(None, FEEDS, run_options(max_run_bytes=3_000_000))[0].shape == (100_000, 3)
    with pytest.raises(errors.LimitExceeded):
        session.run(None, FEEDS)


def test_outputs_of_calls_before_do_not_count() -> None:
    session = InferenceSession(convert(ADD), options(max_run_bytes=3_000_000))
    kept = [session.run(None, FEEDS) for _ in range(5)]
    assert all(z.shape == (100_000, 3) for z, _ in kept)


@pytest.mark.parametrize("trips", [11, 2**62])
def test_iterations(trips: int) -> None:
    session = InferenceSession(convert(ENDLESS), options(max_iterations=10))
    with pytest.raises(errors.LimitExceeded, match=r"\[Loop\].*more than 10 it.*max_iterations"):
        session.run(None, feeds(trips))
    session.run(None, feeds(10))
    session.run(None, feeds(11), run_options(max_iterations=11))


NESTED_LOOPS = HEAD + (
    "g (int64 m, bool c, float[2] x) => (float[2] y) "
    "{ y = Loop <body = b (int64 i, bool k, float[2] s) => (bool k2, float[2] s2) "
    "{ k2 = Identity(k) s2 = Loop <body = bb (int64 j, bool l, float[2] t) => "
    "(bool l2, float[2] t2) { l2 = Identity(l) t2 = Neg(t) }> (m, c, s) }> (m, c, x) }"
)


def test_iterations_of_loops_in_loops_add_up() -> None:
    session = InferenceSession(convert(NESTED_LOOPS), options(max_iterations=110))
    session.run(None, feeds(10))
    with pytest.raises(errors.LimitExceeded, match="max_iterations"):
        session.run(None, feeds(11))


def test_time_of_a_run() -> None:
    session = InferenceSession(convert(ENDLESS), options(max_milliseconds=50))
    begin = time.monotonic()
    with pytest.raises(errors.LimitExceeded, match=r"longer than 50 milli.*max_milliseconds"):
        session.run(None, feeds(2**62))
    with pytest.raises(errors.LimitExceeded, match=r"longer than 1 milli.*max_milliseconds"):
        session.run(None, feeds(2**62), run_options(max_milliseconds=1))
    assert time.monotonic() - begin < 20
    session.run(None, feeds(3))


def test_a_limit_of_a_run_that_is_no_number_is_an_error() -> None:
    session = InferenceSession(convert(ADD))
    with pytest.raises(errors.InvalidArgument, match=r"max_run_bytes.*many"):
        session.run(None, FEEDS, run_options(max_run_bytes="many"))
    session.run(None, FEEDS, run_options(unknown="anything"))


def test_the_command_line_takes_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.ort"
    path.write_bytes(convert(ADD))
    assert not call(monkeypatch, "run", path, "--size", "N=2", "--config", "ortolan.max_nodes=2")
    assert call(monkeypatch, "run", path, "--config", "ortolan.max_nodes=1")
    assert re.search("max_nodes", capsys.readouterr().err)
