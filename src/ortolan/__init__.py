"""Ortolan: converts ONNX models to ORT format files, and runs them in a small runtime.

The names are onnxruntime's, and so is what they do; `docs/api.md` lists what is not here. Names are
loaded when they are used: opening an `.ort` file needs no ONNX package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ortolan.conversion import convert
    from ortolan.errors import OrtolanError
    from ortolan.runtime.binding import IOBinding
    from ortolan.runtime.describe import ModelMetadata, NodeArg
    from ortolan.runtime.environment import (
        disable_telemetry_events,
        enable_telemetry_events,
        get_all_providers,
        get_available_providers,
        get_build_info,
        get_device,
        get_version_string,
        has_collective_ops,
        preload_dlls,
        print_debug_info,
        runtime_info,
        set_default_logger_callback,
        set_default_logger_severity,
        set_default_logger_verbosity,
        set_seed,
    )
    from ortolan.runtime.options import (
        ExecutionMode,
        ExecutionOrder,
        GraphOptimizationLevel,
        RunOptions,
        SessionOptions,
    )
    from ortolan.runtime.value import OrtDevice, OrtValue
    from ortolan.session import InferenceSession

__version__ = "0.1.0"

_PARTS = {
    "conversion": "convert",
    "errors": "OrtolanError",
    "runtime.binding": "IOBinding",
    "runtime.describe": "ModelMetadata NodeArg",
    "runtime.environment": (
        "disable_telemetry_events enable_telemetry_events get_all_providers "
        "get_available_providers get_build_info get_device get_version_string has_collective_ops "
        "preload_dlls print_debug_info runtime_info set_default_logger_callback "
        "set_default_logger_severity set_default_logger_verbosity set_seed"
    ),
    "runtime.options": (
        "ExecutionMode ExecutionOrder GraphOptimizationLevel RunOptions SessionOptions"
    ),
    "runtime.value": "OrtDevice OrtValue",
    "session": "InferenceSession",
}
_PLACES = {name: part for part, names in _PARTS.items() for name in names.split()}
# Modules that programs reach as attributes of onnxruntime without importing them.
_MODULES = ("capi",)
# onnxruntime has these; the text says why they are not here.
_ABSENT = {
    "SparseTensor": "sparse tensors are weights of a model here, not values",
    "LoraAdapter": "LoRA adapters are not supported",
    "AdapterFormat": "LoRA adapters are not supported",
    "ModelCompiler": "models are compiled by ortolan.convert",
    "register_execution_provider_library": "there are no providers to add",
    "create_and_register_allocator": "memory is the system's or planned by the runtime",
    "set_global_thread_pool_sizes": "use SessionOptions.intra_op_num_threads",
}

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtDevice",
    "OrtValue",
    "OrtolanError",
    "RunOptions",
    "SessionOptions",
    "__version__",
    "convert",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "has_collective_ops",
    "preload_dlls",
    "print_debug_info",
    "runtime_info",
    "set_default_logger_callback",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        importlib.import_module("ortolan.capi.onnxruntime_pybind11_state")
        return importlib.import_module(f"ortolan.{name}")
    part = _PLACES.get(name)
    if part is None:
        reason = f": {_ABSENT[name]}" if name in _ABSENT else ""
        raise AttributeError(f"module 'ortolan' has no attribute {name!r}{reason}")
    value = getattr(importlib.import_module(f"ortolan.{part}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
