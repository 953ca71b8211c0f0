"""InferenceSession: the Python API, shaped like onnxruntime's, over the C interface.

A session is a model and a small pool of calls, so it may be used by any number of threads at once.
Its parts are in `ortolan.runtime`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ortolan import _native, errors
from ortolan.pipes import read_pipe
from ortolan.runtime.binding import IOBinding
from ortolan.runtime.describe import ModelMetadata, NodeArg, argument, metadata
from ortolan.runtime.environment import (
    PROVIDER,
    get_available_providers,
    get_device,
    log,
    runtime_info,
    seed_entries,
)
from ortolan.runtime.execution import Call, Signature
from ortolan.runtime.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    RunOptions,
    SessionOptions,
)
from ortolan.runtime.value import OrtDevice, OrtValue

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
    "RunOptions",
    "SessionOptions",
    "get_available_providers",
    "get_device",
    "runtime_info",
]

ModelSource = str | os.PathLike[str] | bytes | bytearray | memoryview
Provider = str | tuple[str, Mapping[Any, Any]]
Callback = Callable[[list[Any], Any, str], object]

# onnxruntime's key; here the default is "1": whoever shortens a mapped file ends the process.
_MAPPED = "session.use_memory_mapped_ort_model"

# onnxruntime's providers that are not here: asking for one is no error there either.
_ELSEWHERE = frozenset(
    f"{name}ExecutionProvider"
    for name in (
        "ACL", "ArmNN", "Azure", "CANN", "CoreML", "CUDA", "Dml", "Dnnl", "JS", "MIGraphX",
        "Nnapi", "NvTensorRTRTX", "OpenVINO", "QNN", "ROCM", "Rknpu", "SNPE", "Tensorrt", "VSINPU",
        "VitisAI", "WebGpu", "WebNN", "Xnnpack",
    )
)  # fmt: skip


class InferenceSession:
    """A model that is ready to run.

    Args:
        path_or_bytes: an ``.ort`` or ``.onnx`` file, or the bytes of one. ``.onnx`` is converted
            in memory.
        sess_options: see :class:`SessionOptions`.
        providers: names of execution providers in the order of preference, alone or with a dict
            of options. Of onnxruntime's, the CPU's is here; others are passed over with a warning.
        provider_options: a dict of options for each provider; the CPU has none.
        kwargs: what onnxruntime takes for other providers; ignored.

    Raises:
        ortolan.errors.OrtolanError: the file is missing, the model is damaged or has operators
            that are not here, an option is wrong, memory is out.
    """

    def __init__(
        self,
        path_or_bytes: ModelSource,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Provider] | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        del kwargs
        started = time.monotonic_ns()
        _check_providers(providers, provider_options)
        self._options = sess_options or SessionOptions()
        self._library = _native.library()
        self._model = 0
        self._keep: Any = None  # borrowed by the model
        self._source: str | bytes = _source(path_or_bytes)
        self._is_onnx = False
        self._can_lower = False  # a refusal is not the last word
        self._graph_name: str | None = None
        self._load(self._source)
        self._idle: deque[Call] = deque()
        self._profiler: Any = None
        if self._options.enable_profiling:
            self._start_profile(started)
        inputs, outputs = (len(self._range(side)) for side in (_native.INPUT, _native.OUTPUT))
        self._say(1, f"session is ready: {inputs} inputs, {outputs} outputs")

    @functools.cached_property
    def _signature(self) -> Signature:
        """Made when it is asked for first: it takes as long as opening a small model."""
        inputs = [argument(self._model, _native.INPUT, i) for i in self._range(_native.INPUT)]
        outputs = [argument(self._model, _native.OUTPUT, i) for i in self._range(_native.OUTPUT)]
        overridable = [
            bool(self._library.ortolan_model_overridable(self._model, i))
            for i in range(len(inputs))
        ]
        return Signature(inputs, outputs, overridable)

    # Opening.

    def _load(self, source: str | bytes) -> None:
        if isinstance(source, str):
            if source.endswith(".onnx") and self._open_noted(source):
                return
            source = self._source = read_pipe(source) or source
        if isinstance(source, bytes):
            content = source
            is_ort = source[4:8] == b"ORTM"
        else:
            is_ort = _is_ort_file(source)
            content = b""
        if not is_ort:
            self._is_onnx = True
            content = self._open_onnx(source)
            if not content:
                return
        elif self._options._initializers:
            from ortolan.runtime.preparing import replace_in_ort

            content = replace_in_ort(content or _read(source), self._options._initializers)
        self._can_lower = is_ort
        try:
            if content:
                self._open_bytes(content)
            elif self._options._entries.get(_MAPPED) == "0":
                self._open_bytes(*_read_apart(source))
            else:
                self._open_path(str(source))
        except errors.NotImplemented as missing:
            if not is_ort:
                raise
            self._can_lower = False
            self._open_bytes(self._lowered(content or source, missing))

    def _lowered(self, source: str | bytes, missing: errors.NotImplemented) -> bytes:
        """A file without the operators that the importer makes of others.

        Raises:
            ortolan.errors.NotImplemented: `missing`, if the importer cannot help.
        """
        from ortolan.conversion import convert

        self._say(1, "the file has operators that the runtime has not: converting it")
        try:
            return convert(source, level="disable")
        except errors.OrtolanError as error:
            self._say(1, f"it cannot be converted: {error}")
            raise missing from error

    def _open_noted(self, source: str) -> bool:
        """Opens what an unchanged model was converted to before, without reading the model."""
        options = self._options
        settings = self._settings()
        if settings[0] == "disable" or options._initializers or options.optimized_model_filepath:
            return False
        from ortolan.cache_notes import Note, folder

        place = folder()
        entry = None if place is None else Note(place, source, settings).entry()
        if entry is None:
            return False
        try:
            self._open_path(entry, failure=0)
        except errors.OrtolanError:
            return False
        self._is_onnx = True
        return True

    def _settings(self) -> tuple[str, ...]:
        """What decides on the result of a conversion."""
        options = self._options
        given = options.graph_optimization_level
        if not isinstance(given, GraphOptimizationLevel):
            given = GraphOptimizationLevel(given)
        settings = (given.level, repr(options._dimensions), repr(options._denotations))
        named = os.environ.get("ORTOLAN_LIBRARY")
        if not named:
            return settings
        from ortolan.cache_notes import facts_of

        # Constants are folded by that library, which may lack operators that others have.
        return (*settings, facts_of(os.stat(named)))  # noqa: PTH116

    def _open_onnx(self, source: str | bytes) -> bytes:
        """Opens a model or what it was converted to before, or returns what it is converted to."""
        options = self._options
        settings = self._settings()
        if options._initializers or options.optimized_model_filepath:
            return self._convert(source)
        if settings[0] == "disable":
            is_plain = not (options._dimensions or options._denotations)
            return b"" if is_plain and self._open_as_it_is(source) else self._convert(source)
        from ortolan.cache import load

        return load(source, settings, lambda: self._convert(source), self._open_path) or b""

    def _open_as_it_is(self, source: str | bytes) -> bool:
        """Whether the runtime's own reader opens a model.

        What it refuses, the converter may know how to rewrite, or what to call the mistake.
        """
        try:
            if isinstance(source, bytes):
                self._open_bytes(source, failure=0)
            else:
                self._open_path(source, failure=0)
        except (errors.NotImplemented, errors.InvalidGraph, errors.InvalidFormat):
            return False
        return True

    def _convert(self, source: str | bytes) -> bytes:
        from ortolan.runtime.preparing import convert_for_session

        level = GraphOptimizationLevel(self._options.graph_optimization_level).level
        return convert_for_session(source, self._options, level)

    def _option_array(self) -> Any:
        entries = {**seed_entries(), **self._options._entries}
        if self._options.intra_op_num_threads:
            entries["session.intra_op_num_threads"] = str(self._options.intra_op_num_threads)
        pairs = [_native.option(key, value) for key, value in entries.items()]
        return (_native.Option * len(pairs))(*pairs)

    def _open_bytes(self, content: Any, size: int | None = None, failure: int = 3) -> None:
        self._keep = content
        options = self._option_array()
        handle = ctypes.c_void_p()
        code = self._library.ortolan_model_load(
            content, len(content) if size is None else size, options, len(options), None,
            ctypes.byref(handle),
        )  # fmt: skip
        self._opened(code, handle, failure)

    def _open_path(self, path: str, failure: int = 3) -> None:
        options = self._option_array()
        handle = ctypes.c_void_p()
        code = self._library.ortolan_model_open(
            os.fsencode(path), options, len(options), None, ctypes.byref(handle)
        )
        self._opened(code, handle, failure)

    def _opened(self, code: int, handle: ctypes.c_void_p, failure: int) -> None:
        if self._model:  # what could not be opened before
            self._library.ortolan_model_release(self._model)
        self._model = handle.value or 0
        if code:
            text = self._library.ortolan_model_error(self._model)
            is_last = not (self._can_lower and code == errors.NotImplemented.code)
            self._say(failure if is_last else 1, text.decode("utf-8", "replace"))
            _native.check(code, text)

    def _say(self, severity: int, text: str) -> None:
        log(severity, text, self._options.log_severity_level, self._options.logid)

    def __del__(self) -> None:
        if getattr(self, "_model", 0):
            self._library.ortolan_model_release(self._model)

    def __reduce__(self) -> tuple[Any, ...]:
        return (InferenceSession, (self._source, self._options))

    def _range(self, side: int) -> range:
        return range(self._library.ortolan_model_count(self._model, side))

    # What it is.

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that must be fed."""
        signature = self._signature
        pairs = zip(signature.inputs, signature.overridable, strict=True)
        return [a for a, free in pairs if not free]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs with a value of their own, which a feed may replace."""
        signature = self._signature
        pairs = zip(signature.inputs, signature.overridable, strict=True)
        return [a for a, free in pairs if free]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs."""
        return list(self._signature.outputs)

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself."""
        if self._graph_name is None:
            found = self._library.ortolan_model_metadata(self._model, b"graph_name")
            self._graph_name = found.decode("utf-8", "replace") if found else ""
            if self._is_onnx and found is None:
                from ortolan.runtime.preparing import graph_name

                self._graph_name = graph_name(self._source)
        return metadata(self._model, self._graph_name)

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._options

    def get_providers(self) -> list[str]:
        """The execution providers in use."""
        return [PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The options of the providers in use: the CPU has none."""
        return {PROVIDER: {}}

    def set_providers(
        self,
        providers: Sequence[Provider] | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
    ) -> None:
        """Checks the names as the constructor does; the CPU stays in use."""
        _check_providers(providers, provider_options)

    def disable_fallback(self) -> None:
        """Does nothing: a failing call is never repeated elsewhere."""

    def enable_fallback(self) -> None:
        """Does nothing, as above."""

    @property
    def arena_bytes(self) -> int:
        """Memory for intermediate values of a call that was made last."""
        return self._figure(b"arena_bytes")

    def _figure(self, key: bytes) -> int:
        try:
            call = self._idle.pop()
        except IndexError:
            return 0
        value = call.number(key)
        self._idle.append(call)
        return value

    # Running.

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """Computes outputs.

        Args:
            output_names: which, in the order wanted; None or empty for all.
            input_feed: a value per input name: an array, numbers, an :class:`OrtValue`; element
                types of arrays must be those of the model.
            run_options: see :class:`RunOptions`.

        Returns:
            A value per output: arrays over memory of their own; sequences as lists, maps as
            dicts, strings as arrays of objects, an optional without a value as None.

        Raises:
            ortolan.errors.OrtolanError: a feed is wrong, or the computation failed.
        """
        try:
            call = self._idle.pop()
        except IndexError:
            call = Call(self._model, self._signature)
        try:
            profiler = self._profiler
            if profiler is not None:
                run = functools.partial(call.run, output_names, input_feed, run_options)
                return _profiled(profiler, call, run)
            return call.run(output_names, input_feed, run_options)
        finally:
            if not call.is_spent:
                self._idle.append(call)

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callback,
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Computes outputs on a thread of its own.

        Args:
            output_names: as for `run`.
            input_feed: as for `run`; the values must stay as they are until the callback.
            callback: called on that thread with the outputs, `user_data`, and the text of an
                error, which is empty if all went well.
            user_data: for the callback.
            run_options: as for `run`.
        """

        def work() -> None:
            results: list[Any] = []
            message = ""
            try:
                results = self.run(output_names, input_feed, run_options)
            except Exception as error:
                message = str(error) or type(error).__name__
            callback(results, user_data, message)

        threading.Thread(target=work, name="ortolan.run_async", daemon=True).start()

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As `run`, with values as objects.

        Args:
            output_names: as for `run`.
            input_dict_ort_values: a value per input name.
            run_options: as for `run`.
        """
        results = self.run(output_names, input_dict_ort_values, run_options)
        return [OrtValue(result) for result in results]

    def io_binding(self) -> IOBinding:
        """Makes an :class:`IOBinding` for this session."""
        return IOBinding(self)

    def run_with_iobinding(
        self, iobinding: IOBinding, run_options: RunOptions | None = None
    ) -> None:
        """Runs from bound inputs to bound outputs.

        Args:
            iobinding: made by `io_binding` of this session.
            run_options: as for `run`.

        Raises:
            ortolan.errors.OrtolanError: nothing is bound to an output, an input is missing, what
                is bound is wrong, or the computation failed.
        """
        if not iobinding._outputs:
            raise errors.InvalidArgument("At least one output should be requested.")
        try:
            call = self._idle.pop()
        except IndexError:
            call = Call(self._model, self._signature)
        try:
            run = functools.partial(
                call.run_bound, iobinding._feeds, iobinding._outputs, run_options
            )
            profiler = self._profiler
            results = run() if profiler is None else _profiled(profiler, call, run)
        finally:
            if not call.is_spent:
                self._idle.append(call)
        iobinding._results = [OrtValue(result) for result in results]

    # Profiling.

    def _start_profile(self, started: int) -> None:
        from ortolan.runtime.profiling import Profiler

        self._profiler = Profiler(self._model, self._options.profile_file_prefix)
        self._profiler.start_ns = started
        self._profiler.session_event("model_loading", started, time.monotonic_ns())

    def end_profiling(self) -> str:
        """Ends the profile that `SessionOptions.enable_profiling` began.

        Returns:
            The name of the file: a trace for chrome://tracing or Perfetto; empty if there is none.
        """
        profiler, self._profiler = self._profiler, None
        return "" if profiler is None else str(profiler.write())

    def get_profiling_start_time_ns(self) -> int:
        """When the profile began, by `time.monotonic_ns`; 0 without one."""
        return 0 if self._profiler is None else int(self._profiler.start_ns)

    def run_with_ortvaluevector(self, *arguments: Any) -> NoReturn:
        """Not supported.

        Raises:
            ortolan.errors.NotImplemented: always.
        """
        raise errors.NotImplemented(
            "run_with_ortvaluevector is not supported: use run_with_ort_values or an IOBinding"
        )

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0,
        vendor_id: int = -1,
    ) -> OrtValue:  # fmt: skip
        """As `OrtValue.ortvalue_from_shape_and_type`."""
        return OrtValue.ortvalue_from_shape_and_type(
            shape, element_type, device_type, device_id, vendor_id
        )


def _profiled(profiler: Any, call: Call, run: Callable[[], list[Any]]) -> list[Any]:
    recorder = profiler.record(call)
    begin = time.monotonic_ns()
    steps = []
    try:
        results = run()
    finally:
        end = time.monotonic_ns()
        steps = recorder.steps()
    profiler.call(begin, end, steps)
    return results


def _source(given: Any) -> str | bytes:
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    if isinstance(given, str | os.PathLike):
        return os.fsdecode(given)
    raise TypeError(f"Unable to load from type '{type(given)}'")


def _is_ort_file(path: str) -> bool:
    try:
        # A file object of Python's takes as long as opening a small model.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            return os.read(handle, 8)[4:8] == b"ORTM" or path.endswith(".ort")
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:  # a name may have a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise errors.NoSuchFile(f"Load model from {path} failed: {reason}") from error


def _read(path: str | bytes) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib is a slow import
        return file.read()


def _read_apart(path: str | bytes) -> tuple[Any, int]:
    """The bytes of a file, in large pages where there are any, and their number.

    Weights that a run reads once are read faster from large pages than from mapped ones.
    """
    import mmap

    least = 2 << 20
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib is a slow import
        size = os.fstat(file.fileno()).st_size
        if size < least or not hasattr(mmap, "MADV_HUGEPAGE"):
            content = file.read()
            return content, len(content)
        memory = mmap.mmap(-1, size + least, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        place = (ctypes.c_char * size).from_buffer(memory, -address % least)
        size = file.readinto(place)
    return place, size


def _check_providers(
    providers: Sequence[Provider] | None, options: Sequence[Mapping[Any, Any]] | None
) -> None:
    if isinstance(providers, str):
        raise errors.InvalidArgument("providers is a list of names, not one name")
    names = [p if isinstance(p, str) else p[0] for p in providers or [PROVIDER]]
    if options is not None and len(options) != len(providers or ()):
        raise errors.InvalidArgument("'providers' and 'provider_options' should be the same length")
    if unknown := [name for name in names if name != PROVIDER and name not in _ELSEWHERE]:
        raise errors.InvalidArgument(
            f"there is no execution provider {unknown[0]!r}; this package has {PROVIDER}"
        )
    if PROVIDER not in names:
        warnings.warn(
            f"Specified provider '{names[0]}' is not in available provider names. "
            f"Available providers: '{PROVIDER}'. It is used instead.",
            stacklevel=3,
        )
