"""The runtime's own reader of ONNX models: real models, odd ones, damaged and hostile ones.

Everything here is opened at level disable with the converter out of reach, so that the reader
cannot hide behind it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import corpus
import hostile_models
import models_lib
import ortolan
from ortolan import errors
from ortolan.catalog.onnx_versions import since_versions
from ortolan.importing.versions import since_version
from ortolan.runtime import preparing

SEED = int(os.environ.get("ORTOLAN_TEST_SEED", "20261127"))
MUTANTS = int(os.environ.get("ORTOLAN_MUTANTS", "1000"))
# What the reader leaves to the converter, as the operator or the word that the refusal names.
CONVERTED: dict[str, str] = {}
TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture(autouse=True)
def _no_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises what the reader raised instead of converting."""

    def refuse(*_: Any) -> bytes:
        error = sys.exception()
        raise AssertionError("the model was converted") if error is None else error

    monkeypatch.setattr(preparing, "convert_for_session", refuse)


def opened(source: Any) -> ortolan.InferenceSession:
    """A session of the reader; raises what it raises."""
    options = ortolan.SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    if isinstance(source, onnx.ModelProto):
        source = source.SerializeToString()
    session = _Strict.__new__(_Strict)
    session.__init__(source, options)  # type: ignore[misc]
    return session


class _Strict(ortolan.InferenceSession):
    def _open_as_it_is(self, source: str | bytes) -> bool:
        if isinstance(source, bytes):
            self._open_bytes(source)
        else:
            self._open_path(source)
        return True
