"""Marks that several files of tests share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

import models_lib as lib

# One for each kind of graph: enough while working.
QUICK = ("mnist-7", "squeezenet-fp16", "vittrack-op14", "silero-vad-v5-op16", "scan-lstm",
         "tiny-gpt2-contrib-fp32", "qtdnn-int8", "mlnet-tree-imputer")  # fmt: skip


def real_models(names: Iterable[str] = lib.NAMES, quick: Iterable[str] = QUICK) -> list[Any]:
    """Parameters: real models, or checks of them (`MODEL/WHICH`); all but `quick` are slow."""
    fast = set(quick)
    parameters = []
    for name in names:
        marks = [pytest.mark.skipif(bool(lib.MISSING), reason=lib.MISSING)]
        marks += [] if name in fast else [pytest.mark.slow]
        if name.split("/")[0] in lib.NOT_YET:
            marks.append(pytest.mark.xfail(reason=lib.NOT_YET[name.split("/")[0]]))
        parameters.append(pytest.param(name, marks=marks))
    return parameters
