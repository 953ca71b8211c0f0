"""Models loaded and run through the C interface with memory that is counted and runs out when told.

Only the runtime's own hooks are used, so this is the library that users have.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import CFUNCTYPE, POINTER, c_int, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ortolan import _native
from ortolan.runtime.containers import TENSOR, describe_array, make_value, read_value
from ortolan.runtime.describe import argument
from ortolan.runtime.execution import _Memory, _show, as_array

__all__ = ["OUT_OF_MEMORY", "Memory", "Model", "Run", "Status", "plain"]

OUT_OF_MEMORY = 100
NEVER = 1 << 62

_Allocate = CFUNCTYPE(c_void_p, c_void_p, c_size_t)
_Deallocate = CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)
_Log = CFUNCTYPE(None, c_void_p, c_int32, ctypes.c_char_p)
_libc = ctypes.CDLL(None)
_libc.posix_memalign.argtypes = [POINTER(c_void_p), c_size_t, c_size_t]
_libc.posix_memalign.restype = c_int
_libc.free.argtypes = [c_void_p]


class Hooks(ctypes.Structure):
    """``OrtolanHooks``."""

    _fields_ = [
        ("size", c_uint32),
        ("user", c_void_p),
        ("allocate", _Allocate),
        ("deallocate", _Deallocate),
        ("log", _Log),
    ]


class Memory:
    """Counts what is asked for and given back, and refuses from the call `fail_at` on.

    Attributes:
        calls: for memory so far.
        live: bytes of each block that was not given back.
        fail_at: the first call that is refused.
        fail_for: how many calls are.
        wrong: blocks that were given back wrongly, in words.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.live: dict[int, int] = {}
        self.fail_at = self.fail_for = NEVER
        self.wrong: list[str] = []
        self.messages: list[str] = []
        self.hooks = Hooks(
            ctypes.sizeof(Hooks), None, _Allocate(self._allocate), _Deallocate(self._give_back),
            _Log(lambda _user, _severity, text: self.messages.append(text.decode())),
        )  # fmt: skip

    @property
    def bytes(self) -> int:
        """What is in use."""
        return sum(self.live.values())

    def fail(self, at: int, times: int = NEVER) -> None:
        """Refuses `times` calls from the one of number `at`, counted from now."""
        self.calls, self.fail_at, self.fail_for = 0, at, times

    def _allocate(self, _user: Any, size: int) -> int | None:
        call, self.calls = self.calls, self.calls + 1
        if self.fail_at <= call < self.fail_at + self.fail_for:
            return None
        block = c_void_p()
        if _libc.posix_memalign(ctypes.byref(block), 64, max(size, 1)):
            return None
        assert block.value
        # What is not written before it is read must not be zero by luck.
        ctypes.memset(block.value, 0xA5, size)
        self.live[block.value] = size
        return block.value

    def _give_back(self, _user: Any, block: int | None, size: int) -> None:
        if self.live.pop(block or 0, None) != size:
            self.wrong.append(f"{block} of {size} bytes")
            return
        _libc.free(block)


@dataclass(frozen=True)
class Status:
    """How a call ended: its code, and the text of the object that failed."""

    code: int
    text: str = ""


class Model:
    """A model under such memory; `close` gives it back."""

    def __init__(self, content: bytes, memory: Memory, **options: str) -> None:
        self.library = _native.library()
        _Memory.release = self.library.ortolan_value_release
        self.memory = memory
        self.content = content
        entries = {"session.intra_op_num_threads": "1", **options}
        pairs = [_native.Option(k.encode(), v.encode()) for k, v in entries.items()]
        handle = c_void_p()
        code = self.library.ortolan_model_load(
            content, len(content), (_native.Option * len(pairs))(*pairs), len(pairs),
            ctypes.addressof(memory.hooks), ctypes.byref(handle),
        )  # fmt: skip
        self.handle = handle.value or 0
        text = self.library.ortolan_model_error(self.handle) if code else b""
        self.status = Status(code, text.decode())

    def names(self, side: int) -> list[str]:
        """Of the inputs or the outputs."""
        count = self.library.ortolan_model_count(self.handle, side)
        return [self.library.ortolan_model_name(self.handle, side, i).decode()
                for i in range(count)]  # fmt: skip

    def close(self) -> None:
        """Drops the model."""
        self.library.ortolan_model_release(self.handle)
        self.handle = 0


@dataclass
class Run:
    """A call of a model."""

    model: Model
    handle: int = 0
    status: Status = field(default_factory=lambda: Status(0))

    def __post_init__(self) -> None:
        handle = c_void_p()
        code = self.model.library.ortolan_run_create(self.model.handle, ctypes.byref(handle))
        self.handle = handle.value or 0
        self.status = self._status(code)

    def _status(self, code: int) -> Status:
        text = self.model.library.ortolan_run_error(self.handle) if code else b""
        return Status(code, text.decode())

    def execute(self, feeds: Mapping[str, Any]) -> tuple[Status, list[Any]]:
        """Runs once; the outputs are copies, their values given back."""
        library, inputs = self.model.library, self.model.names(_native.INPUT)
        kept: list[Any] = []
        for name, value in feeds.items():
            index = inputs.index(name)
            described, number = argument(self.model.handle, _native.INPUT, index)
            if number:
                array = as_array(value, name, number)
                tensor = _native.new_tensor()
                kept += [array, tensor, describe_array(tensor, array, number)]
                code = library.ortolan_run_input(self.handle, index, ctypes.byref(tensor))
            else:
                held = make_value(value, described.type, lambda v, n: as_array(v, "", n))
                kept.append(held)
                code = library.ortolan_run_input_value(self.handle, index, held.handle)
            if code:
                return self._status(code), []
        code = library.ortolan_run_execute(self.handle)
        if code:
            return self._status(code), []
        return Status(0), [self._take(i) for i in range(len(self.model.names(_native.OUTPUT)))]

    def _take(self, index: int) -> Any:
        library = self.model.library
        handle = library.ortolan_run_take(self.handle, index)
        if library.ortolan_value_kind(handle) == TENSOR:
            return plain(_show(handle))
        value = plain(read_value(handle, _show))
        library.ortolan_value_release(handle)
        return value

    def close(self) -> None:
        """Drops the run."""
        self.model.library.ortolan_run_release(self.handle)
        self.handle = 0


def plain(value: Any) -> Any:
    """A value with nothing of the runtime's memory in it, that can be compared."""
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tolist())
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
