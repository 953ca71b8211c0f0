"""What is about the process and not about a session: providers, versions, seeds, the logger."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from ortolan import _native, errors
from ortolan.texts import printable

__all__ = [
    "PROVIDER",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "has_collective_ops",
    "log",
    "preload_dlls",
    "print_debug_info",
    "runtime_info",
    "seed_entries",
    "set_default_logger_callback",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]

PROVIDER = "CPUExecutionProvider"
_SEVERITIES = ("V", "I", "W", "E", "F")
LogCallback = Callable[[int, str, str, str, str], None]


class _State:
    severity = 2
    seed: int | None = None
    callback: LogCallback | None = None


def get_available_providers() -> list[str]:
    """The execution providers of this package."""
    return [PROVIDER]


def get_all_providers() -> list[str]:
    """The execution providers that Ortolan knows, in the order of preference."""
    return [PROVIDER]


def get_device() -> str:
    """``"CPU"``, as onnxruntime says."""
    return "CPU"


def get_version_string() -> str:
    """The version of the runtime library."""
    return str(_native.library().ortolan_version().decode())


def get_build_info() -> str:
    """Version and instruction set of the runtime library in a line."""
    info = runtime_info()
    return f"Ortolan Build Info: version={info['version']}, isa={info['instruction_set']}"


def runtime_info() -> dict[str, Any]:
    """The runtime library in use: its path, bytes, version and instruction set."""
    path = _native.library_path()
    loaded = _native.library()
    return {
        "library": path,
        "library_bytes": os.stat(path).st_size,  # noqa: PTH116 - pathlib is a slow import
        "version": loaded.ortolan_version().decode(),
        "instruction_set": loaded.ortolan_instruction_set().decode(),
    }


def print_debug_info() -> None:
    """Prints versions of Ortolan, Python and the machine."""
    import platform

    print(get_build_info())
    print(f"library: {_native.library_path()}")
    print(f"Python {platform.python_version()} on {platform.platform()}")


def has_collective_ops() -> bool:
    """False."""
    return False


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True,
                 directory: str | None = None) -> None:  # fmt: skip
    """Does nothing: the runtime needs no other library."""
    del cuda, cudnn, msvc, directory


def enable_telemetry_events() -> None:
    """Does nothing: there are none."""


def disable_telemetry_events() -> None:
    """Does nothing: there are none."""


def set_seed(seed: int) -> None:
    """Sets the seed of random operators without one of their own, in sessions made from now on."""
    _State.seed = int(seed)


def seed_entries() -> dict[str, str]:
    """The option for the runtime that `set_seed` means."""
    return {} if _State.seed is None else {"ortolan.seed": str(_State.seed % 2**63)}


def set_default_logger_severity(severity: int) -> None:
    """Sets the least severity that is logged: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal."""
    if not 0 <= severity < len(_SEVERITIES):
        raise errors.InvalidArgument(f"there is no severity {severity}: it is 0 to 4")
    _State.severity = severity


def set_default_logger_verbosity(verbosity: int) -> None:
    """Accepted, changes nothing: there is one kind of verbose message."""
    del verbosity


def set_default_logger_callback(callback: LogCallback | None, severity: int = 2) -> None:
    """Has messages given to a function instead of standard error.

    Args:
        callback: gets severity, category, the session's logid, where in the code, and the text;
            None: standard error again.
        severity: the least severity that is logged.
    """
    if callback is not None:
        set_default_logger_severity(severity)
    _State.callback = callback


def log(severity: int, text: str, least: int = -1, logid: str = "") -> None:
    """Logs a message.

    Args:
        severity: 0 verbose to 4 fatal.
        text: one line.
        least: what the session logs; -1: what the default logger does.
        logid: of the session.
    """
    if severity < (_State.severity if least < 0 else least):
        return
    if _State.callback is not None:
        _State.callback(severity, "ortolan", logid, "", text)
        return
    mark = f" {logid}" if logid else ""
    print(f"[{_SEVERITIES[severity]}:ortolan{mark}] {printable(text)}", file=sys.stderr)
