"""InferenceSession: the Python API, shaped like onnxruntime's, over the C interface.

A session is a model and a small pool of runs, so it may be used by any number of threads at once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortolan import _native, errors, values
from ortolan.catalog.types import DataType

__all__ = [
    "GraphOptimizationLevel",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "RunOptions",
    "SessionOptions",
    "get_available_providers",
    "get_device",
    "runtime_info",
]

_PROVIDER = "CPUExecutionProvider"


class GraphOptimizationLevel(enum.IntEnum):
    """How much the converter rewrites a model; onnxruntime's names and numbers."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99

    @property
    def level(self) -> str:
        """The converter's name of the level."""
        return {0: "disable", 1: "basic", 2: "extended", 3: "layout"}.get(self.value, "all")


class SessionOptions:
    """What a session is made with.

    Attributes:
        intra_op_num_threads: threads that share the work of an operator; 0: one per processor.
        graph_optimization_level: for ``.onnx`` models; ``.ort`` files are run as they are.
    """

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        self.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        self._entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Sets a configuration entry, e.g. ``session.set_denormal_as_zero`` to ``"1"``."""
        self._entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """The value of an entry.

        Raises:
            ortolan.errors.InvalidArgument: it was not set.
        """
        if key not in self._entries:
            raise errors.InvalidArgument(f"no configuration entry {key!r} was set")
        return self._entries[key]


class RunOptions:
    """Options of one call.

    Attributes:
        terminate: set it from another thread to stop a run before its next node.
    """

    def __init__(self) -> None:
        self._terminate = False
        self._runs: set[int] = set()

    @property
    def terminate(self) -> bool:
        """Whether runs with these options stop."""
        return self._terminate

    @terminate.setter
    def terminate(self, value: bool) -> None:
        self._terminate = bool(value)
        if value:
            for handle in list(self._runs):
                _native.library().ortolan_run_cancel(handle)


@dataclasses.dataclass(frozen=True)
class NodeArg:
    """An input or output of a model.

    Attributes:
        name: its name.
        type: as onnxruntime writes it, e.g. ``"tensor(float)"``.
        shape: dimensions: a number, the name of a symbolic one, or None for an unknown one.
    """

    name: str
    type: str
    shape: list[int | str | None]


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What the model says of itself."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


class _Run:
    """A run of the C interface and the descriptions that feed it."""

    def __init__(self, model: int, feeds: int) -> None:
        self.library = _native.library()
        handle = ctypes.c_void_p()
        code = self.library.ortolan_run_create(model, ctypes.byref(handle))
        self.handle = handle.value or 0
        self.tensor = [_native.new_tensor() for _ in range(feeds)]
        self.keep: list[Any] = []  # borrowed until the execution is over
        _native.check(code, self.library.ortolan_run_error(self.handle))

    def __del__(self) -> None:
        if getattr(self, "handle", 0):
            self.library.ortolan_run_release(self.handle)

    def check(self, code: int) -> None:
        if code:
            _native.check(code, self.library.ortolan_run_error(self.handle))

    def feed(self, index: int, array: npt.NDArray[Any], number: int) -> None:
        tensor = self.tensor[index]
        tensor.type = number
        tensor.rank = array.ndim
        tensor.data = array.ctypes.data
        tensor.bytes = array.nbytes
        if array.ndim > _native.MAX_RANK:
            raise errors.InvalidArgument(
                f"a feed has {array.ndim} dimensions; at most {_native.MAX_RANK} are supported"
            )
        tensor.dims[: array.ndim] = array.shape
        self.check(self.library.ortolan_run_input(self.handle, index, ctypes.byref(tensor)))

    def feed_value(self, index: int, handle: values.Handle) -> None:
        self.keep.append(handle)
        self.check(self.library.ortolan_run_input_value(self.handle, index, handle.address))

    def take(self, index: int) -> Any:
        """An output; an array shows the runtime's own memory, without a copy."""
        value = self.library.ortolan_run_take(self.handle, index)
        if not value:
            raise errors.Fail(f"output {index} was not made")
        return values.from_handle(values.Handle(value))


class InferenceSession:
    """A model that is ready to run.

    Args:
        path_or_bytes: an ``.ort`` or ``.onnx`` file, or the bytes of one. ``.onnx`` is converted
            in memory.
        sess_options: see :class:`SessionOptions`.
        providers: names of execution providers in the order of preference; here the CPU's.
        provider_options: options per provider; none exist for the CPU.

    Raises:
        ortolan.errors.OrtolanError: the model is damaged, unknown operators, memory is out...
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | bytearray | memoryview,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        del provider_options
        _check_providers(providers)
        self._options = sess_options or SessionOptions()
        self._library = _native.library()
        self._model = 0
        self._keep: Any = None  # borrowed by the model
        self._load(path_or_bytes)
        self._inputs = [self._argument(_native.INPUT, i) for i in self._range(_native.INPUT)]
        self._outputs = [self._argument(_native.OUTPUT, i) for i in self._range(_native.OUTPUT)]
        self._input_index = {a.name: i for i, a in enumerate(self._inputs)}
        self._output_index = {a.name: i for i, a in enumerate(self._outputs)}
        self._overridable = [
            bool(self._library.ortolan_model_overridable(self._model, i))
            for i in self._range(_native.INPUT)
        ]
        self._types = [_number_of(a.type) for a in self._inputs]
        self._idle: deque[_Run] = deque()
        self.arena_bytes = 0

    def _load(self, source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> None:
        if isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
            if content[4:8] != b"ORTM":
                content = self._convert(content)
            return self._open_bytes(content)
        path = os.fspath(source)
        if not Path(path).is_file():
            raise errors.NoSuchFile(f"Load model from {path} failed: file does not exist")
        with Path(path).open("rb") as file:
            is_ort = file.read(8)[4:8] == b"ORTM"
        if path.endswith(".ort") or is_ort:
            return self._open_path(path)
        return self._open_bytes(self._convert(path))

    def _convert(self, source: str | bytes) -> bytes:
        from ortolan.conversion import convert

        result = convert(source, level=self._options.graph_optimization_level.level)
        assert isinstance(result, bytes)
        return result

    def _option_array(self) -> Any:
        entries = dict(self._options._entries)
        if self._options.intra_op_num_threads:
            entries["session.intra_op_num_threads"] = str(self._options.intra_op_num_threads)
        pairs = [_native.Option(k.encode(), v.encode()) for k, v in entries.items()]
        return (_native.Option * len(pairs))(*pairs)

    def _open_bytes(self, content: bytes) -> None:
        self._keep = content
        options = self._option_array()
        handle = ctypes.c_void_p()
        code = self._library.ortolan_model_load(
            content, len(content), options, len(options), None, ctypes.byref(handle)
        )
        self._opened(code, handle)

    def _open_path(self, path: str) -> None:
        options = self._option_array()
        handle = ctypes.c_void_p()
        code = self._library.ortolan_model_open(
            os.fsencode(path), options, len(options), None, ctypes.byref(handle)
        )
        self._opened(code, handle)

    def _opened(self, code: int, handle: ctypes.c_void_p) -> None:
        self._model = handle.value or 0
        _native.check(code, self._library.ortolan_model_error(self._model))

    def __del__(self) -> None:
        if getattr(self, "_model", 0):
            self._library.ortolan_model_release(self._model)

    def _range(self, side: int) -> range:
        return range(self._library.ortolan_model_count(self._model, side))

    def _argument(self, side: int, index: int) -> NodeArg:
        tensor = _native.new_tensor()
        name = self._library.ortolan_model_name(self._model, side, index).decode()
        code = self._library.ortolan_model_tensor(self._model, side, index, ctypes.byref(tensor))
        _native.check(code, b"a model's description is missing")
        shape: list[int | str | None] = []
        for axis in range(0 if tensor.rank == _native.UNKNOWN_RANK else tensor.rank):
            symbol = self._library.ortolan_model_dimension(self._model, side, index, axis)
            size = tensor.dims[axis]
            shape.append(size if size >= 0 else symbol.decode() if symbol else None)
        text = self._library.ortolan_model_type(self._model, side, index).decode()
        return NodeArg(name, text, shape)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that must be fed."""
        return [a for a, free in zip(self._inputs, self._overridable, strict=True) if not free]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs with a value of their own, which a feed may replace."""
        return [a for a, free in zip(self._inputs, self._overridable, strict=True) if free]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs."""
        return list(self._outputs)

    def get_providers(self) -> list[str]:
        """The execution providers in use."""
        return [_PROVIDER]

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._options

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself. ORT format has no place for the graph's name."""

        def text(key: str) -> str:
            found = self._library.ortolan_model_metadata(self._model, key.encode())
            return found.decode() if found else ""

        custom = {}
        index = 0
        while key := self._library.ortolan_model_metadata_key(self._model, index):
            custom[key.decode()] = text(key.decode())
            index += 1
        return ModelMetadata(
            text("producer_name"), "", text("domain"), text("description"),
            text("graph_description"), self._number("model_version"), custom,
        )  # fmt: skip

    def _number(self, key: str) -> int:
        value = ctypes.c_int64()
        self._library.ortolan_model_number(self._model, key.encode(), ctypes.byref(value))
        return value.value

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """Computes outputs.

        Args:
            output_names: which, in the order wanted; None or empty for all.
            input_feed: an array per input name; element types must be those of the model.
            run_options: see :class:`RunOptions`.

        Returns:
            Per output: an array; of strings with dtype object; a list for a sequence, a dict for a
            map, None for an empty optional.

        Raises:
            ortolan.errors.OrtolanError: a feed is wrong, or the computation failed.
        """
        wanted = self._wanted(output_names)
        arrays = [self._array(name, value) for name, value in input_feed.items()]
        try:
            run = self._idle.pop()
        except IndexError:
            run = _Run(self._model, len(self._inputs))
        try:
            for index, array in arrays:
                if isinstance(array, values.Handle):
                    run.feed_value(index, array)
                else:
                    run.feed(index, array, self._types[index])
            if run_options is None:
                run.check(self._library.ortolan_run_execute(run.handle))
            else:
                self._execute(run, run_options)
            results = [run.take(index) for index in wanted]
            self._note_arena(run)
        finally:
            run.keep.clear()
            self._idle.append(run)
        return results

    def _execute(self, run: _Run, options: RunOptions) -> None:
        if options.terminate:
            raise errors.Cancelled("the run was terminated before it began")
        options._runs.add(run.handle)
        try:
            run.check(self._library.ortolan_run_execute(run.handle))
        finally:
            options._runs.discard(run.handle)

    def _note_arena(self, run: _Run) -> None:
        value = ctypes.c_int64()
        self._library.ortolan_run_number(run.handle, b"arena_bytes", ctypes.byref(value))
        self.arena_bytes = value.value

    def _wanted(self, names: Sequence[str] | None) -> Sequence[int]:
        if not names:
            return range(len(self._outputs))
        try:
            return [self._output_index[name] for name in names]
        except KeyError as error:
            known = ", ".join(self._output_index)
            raise errors.InvalidArgument(
                f"Invalid output name: {error.args[0]}; the outputs are: {known}"
            ) from None

    def _array(self, name: str, value: Any) -> tuple[int, npt.NDArray[Any] | values.Handle]:
        index = self._input_index.get(name)
        if index is None:
            known = ", ".join(self._input_index)
            raise errors.InvalidArgument(f"Invalid input name: {name}; the inputs are: {known}")
        if self._types[index] in (0, DataType.STRING):
            return index, values.to_handle(value, self._inputs[index].type)
        expected = values.numpy_type(self._types[index])
        array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype=expected)
        if array.dtype != expected:
            if array.dtype.newbyteorder("=") != expected:
                raise errors.InvalidArgument(
                    f"Unexpected input data type for {name!r}: it is {array.dtype}, "
                    f"the model needs {expected} ({self._inputs[index].type})"
                )
            array = array.astype(expected)
        if not array.flags.c_contiguous or not array.flags.aligned:
            array = np.array(array, order="C", copy=True, ndmin=0)
        return index, array


def _number_of(type_text: str) -> int:
    """The element type of a tensor's type; 0 for containers."""
    if not type_text.startswith("tensor("):
        return 0
    name = type_text.removeprefix("tensor(").removesuffix(")")
    return int(DataType[name.upper()])


def _check_providers(providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None) -> None:
    names = [p if isinstance(p, str) else p[0] for p in providers or [_PROVIDER]]
    if _PROVIDER not in names:
        raise errors.InvalidArgument(
            f"none of the execution providers {names} is in this package; it has {_PROVIDER}"
        )


def get_available_providers() -> list[str]:
    """The execution providers of this package."""
    return [_PROVIDER]


def get_device() -> str:
    """``"CPU"``, as onnxruntime says."""
    return "CPU"


def runtime_info() -> dict[str, Any]:
    """The runtime library in use: its path, bytes, version and instruction set."""
    path = _native.library_path()
    loaded = _native.library()
    return {
        "library": str(path),
        "library_bytes": path.stat().st_size,
        "version": loaded.ortolan_version().decode(),
        "instruction_set": loaded.ortolan_instruction_set().decode(),
    }
