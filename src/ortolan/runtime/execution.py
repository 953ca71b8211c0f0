"""One call in flight: feeds go in, the runtime computes, arrays over its memory come out.

A crossing into C costs more than the work of a small node, so a call makes one, with structs that
are made once and kept; what repeats from call to call is not written again.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ortolan import _native, errors
from ortolan.runtime.containers import (
    TENSOR,
    decode_strings,
    describe_array,
    make_value,
    read_value,
)
from ortolan.runtime.describe import NodeArg
from ortolan.runtime.element_types import STRING, number_of, numpy_type, type_text
from ortolan.runtime.options import RunOptions

__all__ = ["Array", "Call", "Signature", "as_array"]

Array = npt.NDArray[Any]

_ndarray = np.ndarray
_addressof = ctypes.addressof
# Any: numpy's annotations do not say that arrays are buffers.
_from_buffer: Any = ctypes.c_char.from_buffer
_char = ctypes.c_char
# size, type, rank, data, bytes, dims: OrtolanTensor as the compiler lays it out.
_TENSOR = struct.Struct(f"@IiIPN{_native.MAX_RANK}q")
assert _TENSOR.size == _native.TENSOR_SIZE
_DIMS = 5
_MOST_KINDS = 64
# The kind of numpy's StringDType.
_NEW_TEXT = "T"


class Signature:
    """What calls of one model share: names, types, which inputs must be fed."""

    def __init__(
        self, inputs: list[tuple[NodeArg, int]], outputs: list[tuple[NodeArg, int]],
        overridable: list[bool],
    ) -> None:  # fmt: skip
        self.inputs = [argument for argument, _ in inputs]
        self.outputs = [argument for argument, _ in outputs]
        self.numbers = [number for _, number in inputs]
        self.input_index = {a.name: i for i, a in enumerate(self.inputs)}
        self.output_index = {a.name: i for i, a in enumerate(self.outputs)}
        self.overridable = overridable
        # None where an array's bytes are not what the runtime takes.
        self.dtypes = [_plain_type(number) for number in self.numbers]
        # Bits that an address of elements must not have.
        self.misaligned = [min(d.itemsize, 8) - 1 if d is not None else 0 for d in self.dtypes]
        self.output_numbers = [number for _, number in outputs]
        self.output_dtypes = [_plain_type(number) for number in self.output_numbers]

    def wanted(self, names: Sequence[str] | None) -> list[int]:
        """Numbers of outputs.

        Raises:
            ortolan.errors.InvalidArgument: the model has no such output.
        """
        if names is not None and not isinstance(names, Collection):
            raise errors.InvalidArgument(
                f"output names come in a list, not in a {type(names).__name__}"
            )
        if names is None or len(names) == 0:
            return list(range(len(self.outputs)))
        if isinstance(names, str):
            raise errors.InvalidArgument(f"output names come in a list: [{names!r}]")
        try:
            return [self.output_index[name] for name in names]
        except (KeyError, TypeError):
            unknown = [
                name for name in names if not isinstance(name, str) or name not in self.output_index
            ]
            known = ", ".join(self.output_index)
            raise errors.InvalidArgument(
                f"Invalid output name: {unknown[0]}; the outputs are: {known}"
            ) from None

    def input_number(self, name: str) -> int:
        """The number of an input.

        Raises:
            ortolan.errors.InvalidArgument: the model has no such input.
        """
        index = self.input_index.get(name)
        if index is None:
            known = ", ".join(self.input_index)
            raise errors.InvalidArgument(f"Invalid input name: {name}; the inputs are: {known}")
        return index

    def check_complete(self, given: Iterable[str]) -> None:
        """Names inputs that are needed and not given.

        Raises:
            ortolan.errors.InvalidArgument: there are some; it is a `ValueError` too.
        """
        names = list(given)
        missing = [
            a.name
            for a, free in zip(self.inputs, self.overridable, strict=True)
            if not free and a.name not in names
        ]
        if missing:
            raise errors.InvalidArgument(
                f"Required inputs ({missing}) are missing from input feed ({names})."
            )


def _plain_type(number: int) -> np.dtype[Any] | None:
    return None if number in (0, STRING) else numpy_type(number)


def as_array(value: Any, name: str, number: int) -> Array:
    """A feed as an array of an element type, its elements in order and aligned.

    Args:
        value: an array, an `OrtValue`, or numbers, lists of numbers...
        name: of the input, for messages.
        number: the element type.

    Raises:
        ortolan.errors.InvalidArgument: its type is another one.
        ortolan.errors.NotImplemented: it has more dimensions than are supported.
    """
    expected = numpy_type(number)
    held: Any = getattr(value, "_ortolan_data", value)
    if not isinstance(held, np.ndarray):
        held = _numbers(held, name, expected)
    elif isinstance(held, np.ma.MaskedArray) and np.ma.is_masked(held):
        raise errors.InvalidArgument(
            f"the feed of {name!r} has masked elements, which have no value: give it filled"
        )
    elif held.dtype.kind == _NEW_TEXT:
        held = held.astype(object)
    if held.dtype != expected:
        if number_of(held.dtype) != number:
            raise errors.InvalidArgument(
                f"Unexpected input data type for {name!r}. "
                f"Actual: {held.dtype} ({type_text(number_of(held.dtype))}), "
                f"expected: {expected} ({type_text(number)})"
            )
        held = held.astype(expected)
    if not held.flags.c_contiguous or not held.flags.aligned:
        # ascontiguousarray would make a number an array of one dimension.
        try:
            held = np.array(held, order="C", copy=True)
        except MemoryError as error:
            raise errors.OutOfMemory(f"the feed of {name!r}: {error}") from error
    if held.ndim > _native.MAX_RANK:
        raise errors.NotImplemented(
            f"the feed of {name!r} has {held.ndim} dimensions; "
            f"at most {_native.MAX_RANK} are supported"
        )
    array: Array = held
    return array


def _numbers(value: Any, name: str, expected: np.dtype[Any]) -> Array:
    """Lists, numbers and the like as an array, unless that would make other values of them."""
    try:
        given = np.asarray(value)
        made = given if isinstance(value, np.generic) else np.asarray(value, expected)
    except Exception as error:  # any: it may call methods of what was given
        raise errors.InvalidArgument(
            f"the feed of {name!r}, a {type(value).__name__}, is no array of {expected}: {error}"
        ) from error
    if expected.kind == "O" or made is given:
        return made
    wrong = ""
    if given.dtype.kind in "US":
        wrong = "it is text"
    elif given.dtype.kind == "O" and any(item is None for item in given.ravel().tolist()):
        wrong = "it has a None in it"
    elif expected.kind in "biu" and given.dtype.kind != "O" and not np.array_equal(given, made):
        wrong = "it has other numbers than such an array can hold"
    if wrong:
        raise errors.InvalidArgument(
            f"the feed of {name!r}, a {type(value).__name__}, is no array of {expected}: {wrong}"
        )
    return made


class _Memory:
    """Keeps a value of the runtime alive for the arrays that show its bytes."""

    __slots__ = ("handle",)

    release: Any = None  # the C function, set when the first call is made

    def __init__(self, handle: int | None) -> None:
        self.handle = handle

    def __del__(self) -> None:
        self.release(self.handle)


def _show(handle: int) -> Array:
    """A tensor's handle, which is owned from now on, as an array over its memory."""
    memory = _Memory(handle)
    tensor = _native.new_tensor()
    _native.check(
        _native.library().ortolan_value_tensor(handle, ctypes.byref(tensor)), b"this is no tensor"
    )
    shape = tuple(tensor.dims[: tensor.rank])
    if tensor.type == STRING:
        return decode_strings(tensor.data or 0, tensor.bytes, shape)
    dtype = numpy_type(tensor.type)
    if tensor.bytes == 0:
        return np.empty(shape, dtype)
    buffer: Any = (_char * tensor.bytes).from_address(tensor.data)
    buffer.owner = memory
    return _ndarray(shape, dtype, buffer)


def _show_other(handle: int) -> Any:
    """What is no plain tensor: strings, containers."""
    if _native.library().ortolan_value_kind(handle) == TENSOR:
        return _show(handle)
    memory = _Memory(handle)
    value = read_value(handle, _show)
    del memory
    return value


class Call:
    """A run of the C interface and the structs that feed it; used by one thread at a time."""

    def __init__(self, model: int, signature: Signature) -> None:
        library = _native.library()
        self.signature = signature
        handle = ctypes.c_void_p()
        code = library.ortolan_run_create(model, ctypes.byref(handle))
        self.handle = handle.value or 0
        self.is_spent = False  # not to be used again
        self.borrowed: Any = None  # what the run writes to beside its outputs
        self._error = library.ortolan_run_error
        self._release = library.ortolan_run_release
        self._cancel = library.ortolan_run_cancel
        self._execute = library.ortolan_run_call
        self._input_value = library.ortolan_run_input_value
        _Memory.release = library.ortolan_value_release
        if code:
            raise errors.from_code(code, self.error_text())
        inputs, outputs = len(signature.inputs), len(signature.outputs)
        self._inputs = (_native.Tensor * inputs)()
        self._outputs = (_native.Tensor * outputs)()
        self._places = (_native.Tensor * outputs)()
        self._wanted = (ctypes.c_uint32 * outputs)()
        self._values = (ctypes.c_void_p * outputs)()
        for tensor in (*self._inputs, *self._outputs, *self._places):
            tensor.size = _native.TENSOR_SIZE
        # Views of the structs: taking an element of an array makes an object.
        self._tensors = list(self._inputs)
        self._results = memoryview(self._outputs).cast("B")
        # Those of values that nobody owns yet: an interrupt finds out by them.
        self._handles = memoryview(self._values).cast("B")
        self._nothing = bytes(len(self._handles))
        self._shapes: list[tuple[int, ...] | None] = [None] * inputs
        self._block = _native.Call(
            size=ctypes.sizeof(_native.Call), input_count=inputs, output_count=outputs,
            inputs=_addressof(self._inputs), wanted=_addressof(self._wanted), places=None,
            outputs=_addressof(self._outputs), values=_addressof(self._values),
        )  # fmt: skip
        self._address = _addressof(self._block)
        # Types of memory by size: making one takes longer than finding it.
        self._kinds: dict[int, Any] = {}
        # Containers that the next call gets, by number of the input.
        self._given: list[tuple[int, int]] = []
        self._names: list[str] | None = None
        self._chosen: list[int] = []
        self._repeats: list[int] | None = None
        self._choose(None)

    def __del__(self) -> None:
        if getattr(self, "handle", 0):
            self._release(self.handle)

    def cancel(self) -> None:
        """Stops the call before its next node; from any thread."""
        # If it comes too late for this call, it would stop the next one.
        self.is_spent = True
        self._cancel(self.handle)

    def error_text(self) -> str:
        """What failed last."""
        return str(self._error(self.handle).decode("utf-8", "replace"))

    def number(self, key: bytes) -> int:
        """A figure of the last call, such as ``arena_bytes``."""
        value = ctypes.c_int64()
        _native.library().ortolan_run_number(self.handle, key, ctypes.byref(value))
        return value.value

    def _choose(self, names: Sequence[str] | None) -> None:
        wanted = self.signature.wanted(names)
        # The runtime gives each output once.
        chosen = list(dict.fromkeys(wanted))
        self._repeats = None if chosen == wanted else [chosen.index(which) for which in wanted]
        self._chosen = chosen
        for k, which in enumerate(chosen):
            self._wanted[k] = which
        signature = self.signature
        self._chosen_kinds = [
            (signature.output_numbers[i], signature.output_dtypes[i]) for i in chosen
        ]
        self._filled = self._results[: len(chosen) * _TENSOR.size]
        self._block.output_count = len(chosen)
        self._names = None if names is None else list(names)

    def run(
        self, names: Sequence[str] | None, feed: Mapping[str, Any], options: RunOptions | None
    ) -> list[Any]:
        """Computes outputs.

        Args:
            names: of the outputs; None for all.
            feed: a value per name of an input.
            options: of this call.

        Raises:
            ortolan.errors.OrtolanError: a feed is wrong, or the computation failed.
        """
        if names is None:
            if self._names is not None:
                self._choose(None)
        elif type(names) is not list or names != self._names:
            self._choose(names)
        if type(feed) is not dict and not isinstance(feed, Mapping):
            raise errors.InvalidArgument(
                f"feeds are a dict of values by names of inputs, not a {type(feed).__name__}"
            )
        # Keeps the arrays: a mapping may make them when asked, another thread may replace them.
        feed = dict(feed)
        signature = self.signature
        index, dtypes, misaligned = signature.input_index, signature.dtypes, signature.misaligned
        tensors, shapes = self._tensors, self._shapes
        kept: list[Any] | None = None
        self._given.clear()
        complete = len(feed) == len(tensors)
        if not complete:
            # Types that the call before set would stand for what is not given now.
            self._forget()
        for name, value in feed.items():
            i = index.get(name)
            if i is None:
                i = signature.input_number(name)
            if type(value) is _ndarray and value.dtype is dtypes[i]:
                try:
                    address = _addressof(_from_buffer(value))
                except (TypeError, ValueError, BufferError):
                    address = 1
                if not address & misaligned[i] and address != 1:
                    shape = value.shape
                    tensor = tensors[i]
                    tensor.data = address
                    if shape != shapes[i]:
                        self._set_shape(i, value)
                    tensor.type = signature.numbers[i]
                    continue
            kept = kept or []
            kept.append(self._feed(i, value))
        if not complete:
            signature.check_complete(feed)
        try:
            if options is None and not self._given:
                code = self._execute(self.handle, self._address)
                if code:
                    raise errors.from_code(code, self.error_text())
            else:
                self._execute_once(options)
        except KeyboardInterrupt:
            self._drop()
            raise
        return self._take()

    def _drop(self) -> None:
        """Gives back the values of a call at whose end there was an interrupt."""
        for value in self._values:
            _Memory.release(value)
        self.is_spent = True

    def _set_shape(self, i: int, array: Array) -> None:
        shape = array.shape
        if len(shape) > _native.MAX_RANK:
            raise errors.NotImplemented(
                f"the feed of {self.signature.inputs[i].name!r} has {len(shape)} dimensions; "
                f"at most {_native.MAX_RANK} are supported"
            )
        tensor = self._tensors[i]
        tensor.rank = len(shape)
        tensor.bytes = array.nbytes
        tensor.dims[: len(shape)] = shape
        self._shapes[i] = shape

    def _feed(self, i: int, value: Any) -> Any:
        """The long way, for whatever is no array of the right type; returns what to keep."""
        argument, number = self.signature.inputs[i], self.signature.numbers[i]
        name = argument.name
        self._shapes[i] = None
        try:
            if number == 0:
                self._tensors[i].type = 0
                held = make_value(value, argument.type, lambda v, inner: as_array(v, name, inner))
                self._given.append((i, held.handle))
                return held
            array = as_array(value, name, number)
            return array, describe_array(self._tensors[i], array, number)
        except errors.InvalidArgument as error:
            if repr(name) in str(error):
                raise
            raise errors.InvalidArgument(f"the feed of {name!r}: {error}") from error

    def _execute_once(self, options: RunOptions | None) -> None:
        given, self._given = self._given, []
        # Nothing can fail between here and the call, which forgets what it was given.
        for i, handle in given:
            self._input_value(self.handle, i, handle)
        if options is None:
            code = self._execute(self.handle, self._address)
        else:
            code = self._execute_with(options)
        if code:
            raise errors.from_code(code, self.error_text())

    def _forget(self) -> None:
        for tensor in self._tensors:
            tensor.type = 0

    def _execute_with(self, options: RunOptions) -> int:
        # First in, then looked at: whoever sets `terminate` finds the call or is seen.
        options._calls.add(self)
        limits = {k: v for k, v in options._entries.items() if k.startswith("ortolan.")}
        try:
            for key, value in limits.items():
                self._limit(key, value)
            if options.terminate:
                raise errors.Cancelled("Exiting due to terminate flag being set to true.")
            return int(self._execute(self.handle, self._address))
        finally:
            # First out, then looked at: who still cancels has set it before.
            options._calls.discard(self)
            self.is_spent = self.is_spent or options.terminate
            for key in limits:
                self._limit(key, "")

    def _limit(self, key: str, value: str) -> None:
        option = _native.option(key, value)
        code = _native.library().ortolan_run_option(self.handle, ctypes.byref(option))
        if code:
            raise errors.from_code(code, self.error_text())

    def _take(self) -> list[Any]:
        """The outputs as arrays over the runtime's memory."""
        results: list[Any] = []
        kinds = self._kinds
        for kind, value, fields in zip(
            self._chosen_kinds, self._values, _TENSOR.iter_unpack(self._filled), strict=False
        ):
            number, dtype = kind
            if fields[1] != number or dtype is None:
                results.append(None if value is None else _show_other(value))
                continue
            shape = fields[_DIMS : _DIMS + fields[2]]
            size = fields[4]
            memory = _Memory(value)
            if size == 0:
                results.append(np.empty(shape, dtype))
                continue
            block = kinds.get(size)
            if block is None:
                if len(kinds) > _MOST_KINDS:
                    kinds.clear()
                block = kinds[size] = _char * size
            buffer: Any = block.from_address(fields[3])
            buffer.owner = memory
            results.append(_ndarray(shape, dtype, buffer))
        self._handles[:] = self._nothing
        if self._repeats is not None:
            return [results[k] for k in self._repeats]
        return results

    def run_bound(
        self, feeds: Mapping[int, Any], outputs: Mapping[int, Array | None],
        options: RunOptions | None,
    ) -> list[Any]:  # fmt: skip
        """Computes outputs into memory that is given.

        Args:
            feeds: values by number of the input.
            outputs: by number: an array of the output's type and shape, or None for a new one.
            options: of this call.

        Returns:
            An array per entry of `outputs`, those that were given among them.
        """
        outputs = dict(outputs)
        self._choose([self.signature.outputs[i].name for i in outputs])
        kept = []
        self._given.clear()
        self._forget()
        try:
            for i, value in feeds.items():
                kept.append(self._feed(i, value))
            arrays = [held[0] for held in kept if isinstance(held, tuple)]
            self.signature.check_complete(self.signature.inputs[i].name for i in feeds)
            # State in place: the runtime reads inputs while it writes outputs.
            shared = {
                which: array
                for which, array in outputs.items()
                if array is not None and any(np.may_share_memory(array, feed) for feed in arrays)
            }
            for k, (which, array) in enumerate(outputs.items()):
                if array is not None:
                    self._check_place(which, array)
                self._set_place(self._places[k], None if which in shared else array)
            self._check_apart(list(outputs))
            self._block.places = _addressof(self._places)
            self._execute_once(options)
        except KeyboardInterrupt:
            self._drop()
            raise
        finally:
            self._block.places = None
            self._forget()
        results = self._take()
        for k, (which, array) in enumerate(outputs.items()):
            if which in shared:
                np.copyto(shared[which], results[k])
            if array is not None:
                results[k] = array
        return results

    def _check_place(self, which: int, array: Array) -> None:
        flags = array.flags
        if not flags.writeable:
            wrong = "is read-only"
        elif not (flags.c_contiguous and array.dtype.isnative):
            wrong = "has its elements or their bytes in another order"
        elif array.ndim > _native.MAX_RANK:
            wrong = f"has {array.ndim} dimensions; at most {_native.MAX_RANK} are supported"
        else:
            return
        name = self.signature.outputs[which].name
        raise errors.InvalidArgument(f"the memory given for output {name!r} {wrong}")

    def _check_apart(self, numbers: list[int]) -> None:
        spans = sorted(
            (place.data, place.data + place.bytes, which)
            for place, which in zip(self._places, numbers, strict=False)
            if place.type and place.bytes
        )
        for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
            if begin < end:
                names = [self.signature.outputs[which].name for which in (first, second)]
                raise errors.InvalidArgument(
                    f"the memory given for the outputs {names[0]!r} and {names[1]!r} overlaps"
                )

    def _set_place(self, tensor: _native.Tensor, array: Array | None) -> None:
        tensor.type = 0
        if array is None:
            return
        tensor.type = number_of(array.dtype)
        tensor.rank = array.ndim
        tensor.bytes = array.nbytes
        tensor.data = array.ctypes.data
        tensor.dims[: array.ndim] = array.shape
