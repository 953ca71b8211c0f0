"""The same model gives the same bytes: wherever it lies, whoever converts it, in any process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto

import marks
import models_lib as lib
import ortolan
from ortolan.ortformat import read

REAL = marks.real_models(quick=("mnist-7",))

# Converts in every way that writes something: level by level, for both, and to ONNX.
CONVERT = """
import sys
from pathlib import Path
import ortolan
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
for level in ("disable", "extended", "all"):
    for profile in ("ortolan", "onnxruntime"):
        ortolan.convert(source, folder / f"{level}.{profile}.ort", level=level, profile=profile)
ortolan.convert(source, folder / "runtime.ort", optimization_style="Runtime")
ortolan.convert(source, folder / "again.onnx")
"""


def convert_in(folder: Path, source: Path, seed: str) -> dict[str, bytes]:
    """Copies a model into a folder, converts it there in a process; the files by name."""
    folder.mkdir(parents=True)
    for path in source.parent.glob(f"{source.stem}*"):
        shutil.copyfile(path, folder / path.name)
    results = folder / "results"
    results.mkdir()
    # Names of sets come in another order with each seed.
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", CONVERT, str(folder / source.name), str(results)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in sorted(results.iterdir())}


def same_in_two_folders(source: Path, tmp_path: Path) -> None:
    first = convert_in(tmp_path / "a", source, "1")
    second = convert_in(tmp_path / "a folder" / "somewhere else", source, "2")
    assert len(first) == 8
    assert [name for name in first if first[name] != second[name]] == []
    # Nothing tells where it was made.
    assert [name for name, content in first.items() if str(tmp_path).encode() in content] == []


@pytest.mark.parametrize("name", REAL)
def test_real_model(name: str, tmp_path: Path) -> None:
    same_in_two_folders(lib.FOLDER / f"{name}.onnx", tmp_path)


@pytest.mark.slow
def test_model_with_external_data(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 64] x) => (float[N, 64] y)
        <float[64] w = {1.0}, float[64] v = {2.0}> { u = Add(v, w) a = Mul(x, u) y = Relu(a) }"""
    )
    for k, tensor in enumerate(model.graph.initializer):
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.bin")
        tensor.external_data.add(key="offset", value=str(256 * k))
        tensor.external_data.add(key="length", value="256")
    (tmp_path / "origin").mkdir()
    source = tmp_path / "origin" / "model.onnx"
    source.write_bytes(model.SerializeToString())
    source.with_suffix(".bin").write_bytes(np.arange(128, dtype=np.float32).tobytes())
    same_in_two_folders(source, tmp_path)


def test_folded_nans_are_all_alike() -> None:
    """Which NaN a computation gives depends on the processor: the sign bit on x86, none on Arm."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[3] x) => (float[3] y)
        <float[3] w = {0.0, -1.0, 4.0}> { z = Sub(w, w) d = Div(z, z) s = Sqrt(w)
        a = Add(d, s) y = Add(x, a) }"""
    )
    (constant,) = read(ortolan.convert(model)).model.graph.initializers
    bits = np.frombuffer(constant.raw_data, np.uint32)
    assert bits.tolist() == [0x7FC00000] * 3
