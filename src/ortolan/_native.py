"""The C interface by ctypes: declarations and error translation, nothing else."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache

from ortolan import errors

MAX_RANK = 8
UNKNOWN_RANK = 0xFFFFFFFF
INPUT, OUTPUT = 0, 1


class Tensor(Structure):
    """``OrtolanTensor``: a tensor's description and where its bytes are."""

    _fields_ = [
        ("size", c_uint32),
        ("type", c_int32),
        ("rank", c_uint32),
        ("data", c_void_p),
        ("bytes", c_size_t),
        ("dims", c_int64 * MAX_RANK),
    ]


class Call(Structure):
    """``OrtolanCall``: what a whole call needs; addresses as numbers."""

    _fields_ = [
        ("size", c_uint32),
        ("input_count", c_uint32),
        ("output_count", c_uint32),
        ("inputs", c_void_p),
        ("wanted", c_void_p),
        ("places", c_void_p),
        ("outputs", c_void_p),
        ("values", c_void_p),
    ]


class Step(Structure):
    """``OrtolanStep``: a node that ran."""

    _fields_ = [
        ("graph", c_uint32),
        ("node", c_uint32),
        ("begin", c_uint64),
        ("end", c_uint64),
    ]


class Option(Structure):
    """``OrtolanOption``."""

    _fields_ = [("key", c_char_p), ("value", c_char_p)]


def option(key: str, value: str) -> Option:
    """An option as the C interface takes it.

    Raises:
        ortolan.errors.InvalidArgument: it is no text, or ends before its end.
    """
    try:
        if "\0" in key + value:
            raise ValueError("there is a zero byte in it")
        return Option(key.encode(), value.encode())
    except ValueError as error:
        raise errors.InvalidArgument(f"option {key!r} cannot be {value!r}: {error}") from error


TENSOR_SIZE = ctypes.sizeof(Tensor)


def new_tensor() -> Tensor:
    """An empty description with its size set."""
    return Tensor(size=TENSOR_SIZE)


def _target_name() -> str:
    """Which of a wheel's libraries is for this process."""
    if sys.platform == "win32":
        # The interpreter's own kind, which need not be the machine's.
        return "windows-arm64" if "(ARM64)" in sys.version else "windows-x64"
    system = {"darwin": "macos"}.get(sys.platform, "linux")
    machine = os.uname().machine
    return f"{system}-{ {'x86_64': 'x64', 'aarch64': 'arm64'}.get(machine, machine) }"


def library_path() -> str:
    """The library of this machine: ``ORTOLAN_LIBRARY``, else the one in the package.

    A wheel has a folder for each machine, a checkout the one that was built there.
    """
    named = os.environ.get("ORTOLAN_LIBRARY")
    if named:
        return named
    name = {"darwin": "libortolan.dylib", "win32": "ortolan.dll"}.get(sys.platform, "libortolan.so")
    # pathlib is a slow import.
    folder = os.path.join(os.path.dirname(__file__), "lib")  # noqa: PTH118, PTH120
    packed = os.path.join(folder, _target_name(), name)  # noqa: PTH118
    return packed if os.path.exists(packed) else os.path.join(folder, name)  # noqa: PTH110, PTH118


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "ortolan_version": (c_char_p, []),
    "ortolan_instruction_set": (c_char_p, []),
    "ortolan_model_load": (
        c_int32,
        [c_void_p, c_size_t, POINTER(Option), c_size_t, c_void_p, POINTER(c_void_p)],
    ),
    "ortolan_model_open": (
        c_int32,
        [c_char_p, POINTER(Option), c_size_t, c_void_p, POINTER(c_void_p)],
    ),
    "ortolan_model_release": (None, [c_void_p]),
    "ortolan_model_error": (c_char_p, [c_void_p]),
    "ortolan_model_count": (c_size_t, [c_void_p, c_int32]),
    "ortolan_model_name": (c_char_p, [c_void_p, c_int32, c_size_t]),
    "ortolan_model_type": (c_char_p, [c_void_p, c_int32, c_size_t]),
    "ortolan_model_tensor": (c_int32, [c_void_p, c_int32, c_size_t, POINTER(Tensor)]),
    "ortolan_model_dimension": (c_char_p, [c_void_p, c_int32, c_size_t, c_size_t]),
    "ortolan_model_overridable": (c_int32, [c_void_p, c_size_t]),
    "ortolan_model_metadata": (c_char_p, [c_void_p, c_char_p]),
    "ortolan_model_metadata_key": (c_char_p, [c_void_p, c_size_t]),
    "ortolan_model_node": (c_char_p, [c_void_p, c_size_t, c_size_t, c_char_p]),
    "ortolan_model_number": (c_int32, [c_void_p, c_char_p, POINTER(c_int64)]),
    "ortolan_run_create": (c_int32, [c_void_p, POINTER(c_void_p)]),
    "ortolan_run_release": (None, [c_void_p]),
    "ortolan_run_error": (c_char_p, [c_void_p]),
    "ortolan_run_option": (c_int32, [c_void_p, POINTER(Option)]),
    "ortolan_run_input": (c_int32, [c_void_p, c_size_t, POINTER(Tensor)]),
    "ortolan_run_input_value": (c_int32, [c_void_p, c_size_t, c_void_p]),
    "ortolan_run_output": (c_int32, [c_void_p, c_size_t, POINTER(Tensor)]),
    "ortolan_run_execute": (c_int32, [c_void_p]),
    "ortolan_run_call": (c_int32, [c_void_p, c_void_p]),
    "ortolan_run_profile": (None, [c_void_p, POINTER(Step), c_size_t]),
    "ortolan_run_take": (c_void_p, [c_void_p, c_size_t]),
    "ortolan_run_cancel": (None, [c_void_p]),
    "ortolan_run_number": (c_int32, [c_void_p, c_char_p, POINTER(c_int64)]),
    "ortolan_value_kind": (c_int32, [c_void_p]),
    "ortolan_value_count": (c_size_t, [c_void_p]),
    "ortolan_value_item": (c_void_p, [c_void_p, c_size_t]),
    "ortolan_value_make_tensor": (c_int32, [POINTER(Tensor), POINTER(c_void_p)]),
    "ortolan_value_make": (
        c_int32,
        [c_int32, POINTER(Tensor), POINTER(c_void_p), c_size_t, POINTER(c_void_p)],
    ),
    "ortolan_value_tensor": (c_int32, [c_void_p, POINTER(Tensor)]),
    "ortolan_value_retain": (None, [c_void_p]),
    "ortolan_value_release": (None, [c_void_p]),
}


@cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        ortolan.errors.NoSuchFile: it is not where it should be.
    """
    path = library_path()
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise errors.NoSuchFile(
            f"cannot load the runtime library {path}: {error}; "
            "reinstall ortolan, or build it with 'python -m ortolan.build.host'"
        ) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


def check(code: int, text: bytes | None) -> None:
    """Raises the exception of a status code that is not OK."""
    if code:
        raise errors.from_code(code, (text or b"").decode("utf-8", "replace"))
