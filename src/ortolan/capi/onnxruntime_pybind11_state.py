"""The names that programs take from onnxruntime's extension module: exceptions first of all.

A class that Ortolan never raises exists so that `except` clauses that name it keep working.
"""

# ruff: noqa: N818 - onnxruntime's names

from __future__ import annotations

from ortolan.errors import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NoSuchFile,
    NotImplemented,  # noqa: A004
    OrtolanError,
    RuntimeException,
)
from ortolan.runtime.binding import IOBinding as SessionIOBinding
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

__all__ = [
    "EPFail",
    "EngineError",
    "ExecutionMode",
    "ExecutionOrder",
    "Fail",
    "GraphOptimizationLevel",
    "InferenceSession",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoadCanceled",
    "ModelLoaded",
    "ModelMetadata",
    "ModelRequiresCompilation",
    "NoModel",
    "NoSuchFile",
    "NodeArg",
    "NotFound",
    "NotImplemented",
    "OrtDevice",
    "OrtValue",
    "RunOptions",
    "RuntimeException",
    "SessionIOBinding",
    "SessionOptions",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "has_collective_ops",
    "set_default_logger_callback",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]


class EngineError(OrtolanError):
    """Never raised."""


class EPFail(OrtolanError):
    """Never raised: there is one execution provider."""


class ModelLoadCanceled(OrtolanError):
    """Never raised."""


class ModelLoaded(OrtolanError):
    """Never raised."""


class ModelRequiresCompilation(OrtolanError):
    """Never raised."""


class NotFound(OrtolanError):
    """Never raised."""
