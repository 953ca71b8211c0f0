"""Ortolan: converts ONNX models to ORT format files, and runs them in a small runtime.

Names are loaded when they are used: opening an `.ort` file needs no ONNX package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ortolan.conversion import convert
    from ortolan.errors import OrtolanError
    from ortolan.session import (
        GraphOptimizationLevel,
        InferenceSession,
        NodeArg,
        RunOptions,
        SessionOptions,
        get_available_providers,
        get_device,
        runtime_info,
    )

__version__ = "0.1.0"

__all__ = [
    "GraphOptimizationLevel",
    "InferenceSession",
    "NodeArg",
    "OrtolanError",
    "RunOptions",
    "SessionOptions",
    "__version__",
    "convert",
    "get_available_providers",
    "get_device",
    "runtime_info",
]

_MODULES = {"convert": "ortolan.conversion", "OrtolanError": "ortolan.errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ortolan' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "ortolan.session")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
