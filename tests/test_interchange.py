"""Our files in onnxruntime and its files in Ortolan: the corpus, and some of the real models.

``python benchmarks/interchange.py`` does it with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import corpus
import interchange_lib as interchange
import marks
import models_lib as lib
import models_oracle as oracle
import ortolan
from ortolan.ortformat import read

RecordProperty = Callable[[str, object], None]

REAL = marks.real_models(
    quick=("mnist-7", "squeezenet-fp16", "vittrack-op14", "silero-vad-v5-op16", "scan-lstm")
)
# Models of the corpus that onnxruntime refuses, whoever wrote the file.
REFUSED = [name for name in corpus.names() if corpus.entry(name).expected is not None]
TAKEN = [name for name in corpus.names() if name not in REFUSED]
RUNNABLE = [
    pytest.param(name, marks=[pytest.mark.xfail(reason=why)] if why else [])
    for name in TAKEN
    for why in [corpus.entry(name).not_yet]
]


def hold(verdict: lib.Verdict, record_property: RecordProperty) -> None:
    record_property("largest error", f"{verdict.error:.3g} ({verdict.output})")
    assert not verdict.problem


@pytest.mark.parametrize("level", interchange.OUR_LEVELS)
@pytest.mark.parametrize("name", [*REAL, *TAKEN])
def test_ours_in_onnxruntime(name: str, level: str, record_property: RecordProperty) -> None:
    hold(interchange.ours(name, level), record_property)


@pytest.mark.parametrize("style", interchange.STYLES)
@pytest.mark.parametrize("level", interchange.THEIR_LEVELS)
@pytest.mark.parametrize("name", [*REAL, *RUNNABLE])
def test_theirs_in_ortolan(
    name: str, level: str, style: str, record_property: RecordProperty
) -> None:
    hold(interchange.theirs(name, style, level), record_property)


def test_recorded_optimizations_are_read_and_ignored(tmp_path: Path) -> None:
    """Ortolan fuses while it converts; a record is no part of what the graph computes."""
    model = corpus.parse(
        """<ir_version: 8, opset_import: ["": 14]> g (float[1,1,5,5] x) => (float[1,1,4,4] y)
        <float[1,1,2,2] w = {1.0, -2.0, 3.0, -4.0}> { c = Conv(x, w) y = Relu(c) }"""
    )
    path = tmp_path / "model.ort"
    interchange.write(model, path, "Runtime", "all")
    records = read(path.read_bytes()).model.graph.runtime_optimizations
    assert records is not None and records.records[0].optimizer_name == "ConvActivationFusion"
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 1, 5, 5)).astype(np.float32)}
    (wanted,) = oracle.session(model.SerializeToString()).run(None, feeds)
    (got,) = ortolan.InferenceSession(path).run(None, feeds)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(bool(lib.MISSING), reason=lib.MISSING)
def test_the_oldest_file() -> None:
    """Format version 2, written by onnxruntime 1.7, with the answer of its makers."""
    sample = np.load(lib.FOLDER / "samples" / "mnist.npz")
    session: Any = ortolan.InferenceSession(lib.FOLDER / "mnist-onnxjs.ort")
    (got,) = session.run(None, {session.get_inputs()[0].name: sample["input"]})
    np.testing.assert_allclose(got, sample["expected"], rtol=1e-4, atol=1e-3)
    again = oracle.session(
        ortolan.convert(lib.FOLDER / "mnist-onnxjs.ort", profile="onnxruntime", level="disable")
    )
    (theirs,) = again.run(None, {again.get_inputs()[0].name: sample["input"]})
    np.testing.assert_allclose(theirs, sample["expected"], rtol=1e-4, atol=1e-3)


def test_operators_that_only_the_importer_knows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file for the layout of onnxruntime's kernels is converted when it is opened, silently."""
    if lib.MISSING:
        pytest.skip(lib.MISSING)
    check = interchange.check_of("qtdnn-int8")
    path = tmp_path / "model.ort"
    interchange.write(check.source, path, "Fixed", "all")
    assert "com.microsoft" in {node.domain for node in read(path.read_bytes()).model.graph.nodes}
    for source in (path, path.read_bytes()):
        assert not lib.run_check(check, ortolan.InferenceSession(source)).problem
    assert capfd.readouterr().err == ""
