"""Comparing layer by layer: what counts as a difference, and that the first one is found."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import models_lib
from ortolan import cli, compare
from ortolan.errors import InvalidArgument

pytest.importorskip("onnxruntime")

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3] x, bool go) => (float[N, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}>
{
  [first] m = MatMul (x, w)
  [second] s = Sigmoid (m)
  [third] p = If (go) <
    then_branch = one () => (float[N, 2] q) { q = Neg (s) },
    else_branch = two () => (float[N, 2] q) { q = Exp (s) }
  >
  [fourth] y = Tanh (p)
}
"""
FEEDS: dict[str, Any] = {
    "x": np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32),
    "go": np.array(True),
}


@pytest.fixture
def model() -> onnx.ModelProto:
    """A small model with a branch."""
    return onnx.parser.parse_model(MODEL)


@pytest.mark.parametrize("level", ["disable", "all"])
def test_all_results_are_compared(model: onnx.ModelProto, level: str) -> None:
    found = compare.compare(model, FEEDS, level=level)
    assert [layer.output for layer in found.layers] == ["m", "s", "p", "y"]
    assert found.fused == 0
    assert found.first is None
    assert found.worst is not None
    assert found.worst.error < 1e-6


def test_outputs_alone_are_compared(model: onnx.ModelProto) -> None:
    found = compare.compare(model, FEEDS, layers=False)
    assert [layer.output for layer in found.layers] == ["y"]


def test_the_first_node_that_differs_is_found(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ortolan is given another weight, so that all from the first node on differs."""
    right = compare._run_ortolan

    def wrong(source: Any, *arguments: Any) -> dict[str, Any]:
        source.graph.node[1].op_type = "HardSigmoid"
        return right(source, *arguments)

    monkeypatch.setattr(compare, "_run_ortolan", wrong)
    found = compare.compare(model, FEEDS)
    assert found.first is not None
    assert (found.first.node, found.first.output) == ("second", "s")
    assert found.first.inputs == ("m float32[4, 2]",)
    assert found.first.error > 0.01


def test_fused_nodes_are_counted() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) <float[1, 1, 3, 3] w = {1,2,3,4,5,6,7,8,9}>
    { c = Conv (x, w)  y = Relu (c) }
    """
    feeds = {"x": np.ones((1, 1, 4, 4), np.float32)}
    found = compare.compare(onnx.parser.parse_model(text), feeds)
    assert (found.fused, [layer.output for layer in found.layers]) == (1, ["y"])


def test_distance() -> None:
    def far(a: Any, b: Any) -> float:
        return compare.distance(np.array(a, np.float32), np.array(b, np.float32))

    inf = float("inf")
    assert far([1, 2], [1, 2]) == 0
    assert far([1, 2.5], [1, 2]) == 0.25
    assert far([np.nan, np.inf, 1], [np.nan, np.inf, 1]) == 0
    assert far([np.nan, 1], [1, 1]) == far([1, 1], [np.nan, 1]) == inf
    assert far([1], [[1]]) == compare.distance(np.array([1]), np.array([1.0])) == inf
    assert compare.distance(np.array([1, 2]), np.array([1, 3])) == inf
    assert compare.distance([{1: 0.5}], [{1: 0.5}]) == 0
    assert compare.distance([{1: 0.5}], [{2: 0.5}]) == compare.distance([], [1.0]) == inf


def test_without_onnxruntime_it_says_so(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="pip install onnxruntime"):
        compare.compare(model, FEEDS)


@pytest.mark.skipif(bool(models_lib.MISSING), reason=models_lib.MISSING)
@pytest.mark.parametrize("name", ["mnist-7", "silero-vad-v5-op16", "gpt2-past-op11"])
def test_real_models_agree_in_every_layer(name: str) -> None:
    feeds, _ = models_lib.golden(name)
    found = compare.compare(models_lib.FOLDER / f"{name}.onnx", feeds, level="disable")
    assert found.layers
    assert found.first is None, found.first


@pytest.mark.parametrize("layers", [True, False])
def test_command(
    layers: bool,
    model: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    more = ["--layers"] if layers else []
    arguments = ["ortolan", "run", str(path), "--compare", "--seed", "5", *more]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    output = capsys.readouterr().out
    assert f"{4 if layers else 1} results agree" in output
    assert "seed 5" in output
