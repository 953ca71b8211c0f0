"""Files between Ortolan and onnxruntime, both ways: written by one, run by the other.

In: the real models and the corpus. Out: a verdict for each file. benchmarks/interchange.py prints
them as tables.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

import corpus
import models_lib as lib
import models_oracle as oracle
import ortolan

OUR_LEVELS = ("disable", "basic", "extended")
THEIR_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
STYLES = ("Fixed", "Runtime")
# What its converter leaves out, because it makes files for one kind of machine.
LAYOUT = "NchwcTransformer"


def check_of(name: str) -> lib.Check:
    """The check of a real model, or of the corpus."""
    return corpus.make_check(name) if name.startswith(corpus.PREFIX) else lib.make_check(name)


def ours(name: str, level: str) -> lib.Verdict:
    """What onnxruntime computes from our file, against what it computes from the model.

    Args:
        name: of a check.
        level: one of `OUR_LEVELS`.
    """
    check = check_of(name)
    if name in lib.NAMES:
        # The golden itself: where it is wrong, the check has what is right instead.
        check = dataclasses.replace(check, steps=[lib.Step(*lib.golden(name))])
    content = ortolan.convert(check.source, level=level, profile="onnxruntime")
    return lib.run_check(check, oracle.session(content))


def theirs(name: str, style: str, level: str, *, nchwc: bool = False) -> lib.Verdict:
    """What Ortolan computes from onnxruntime's file.

    Args:
        name: of a check.
        style: one of `STYLES`.
        level: one of `THEIR_LEVELS`.
        nchwc: with the layout pass that its converter leaves out.
    """
    check = check_of(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ort"
        write(check.source, path, style, level, nchwc=nchwc)
        return lib.run_check(check, ortolan.InferenceSession(path))


def write(source: Any, path: Path, style: str, level: str, *, nchwc: bool = False) -> None:
    """Writes a file as onnxruntime's converter does, with its library."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, THEIR_LEVELS[level]
    )
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    if style == "Runtime":
        options.add_session_config_entry("optimization.minimal_build_optimizations", "save")
    onnxruntime.InferenceSession(
        str(source) if isinstance(source, Path) else source.SerializeToString(),
        options,
        ["CPUExecutionProvider"],
        disabled_optimizers=[] if nchwc else [LAYOUT],
    )
