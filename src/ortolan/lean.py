"""Imports onnx_ir without SymPy, until somebody computes with symbolic dimensions.

onnx_ir imports SymPy, which takes longer than converting a small model, and needs it only for
arithmetic of dimensions, which the converter does not use. While onnx_ir is imported, modules that
load themselves when something is asked of them stand in for SymPy and for what reads its names.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_LATE = ("sympy", "onnx_ir._symbolic_shapes")


class _Late(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def _import_onnx_ir() -> None:
    if "onnx_ir" in sys.modules or "sympy" in sys.modules:
        return
    late = {name: _Late(name) for name in _LATE}
    sys.modules.update(late)
    try:
        importlib.import_module("onnx_ir")
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


_import_onnx_ir()
