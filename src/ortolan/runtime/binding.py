"""IOBinding: inputs and outputs of a session tied to memory, from call to call."""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ortolan import errors
from ortolan.runtime.element_types import STRING, number_from, numpy_type
from ortolan.runtime.execution import Array, Signature, as_array
from ortolan.runtime.value import OrtValue, check_device

__all__ = ["IOBinding"]


class IOBinding:
    """Ties inputs and outputs to memory; made by ``InferenceSession.io_binding``.

    Nothing is copied: a tensor that a call made for an output can be bound to an input of the
    next call, as recurrent states and caches are.
    """

    def __init__(self, session: Any) -> None:
        self._signature: Signature = session._signature
        self._feeds: dict[int, Any] = {}
        self._outputs: dict[int, Array | None] = {}
        self._results: list[OrtValue] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Binds an input to an array, which must stay as it is until the call is over."""
        i = self._signature.input_number(name)
        number = self._signature.numbers[i]
        if number in (0, STRING):
            self._feeds[i] = arr_on_cpu
        else:
            self._feeds[i] = as_array(arr_on_cpu, name, number)

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any,
        shape: Sequence[int], buffer_ptr: int,
    ) -> None:  # fmt: skip
        """Binds an input to memory by its address.

        Args:
            name: of the input.
            device_type: "cpu".
            device_id: ignored.
            element_type: a numpy type, a number of ``TensorProto.DataType``, or ONNX's name.
            shape: of the tensor.
            buffer_ptr: address of the first element.
        """
        del device_id
        check_device(device_type)
        self.bind_cpu_input(name, _array_at(f"input {name!r}", element_type, shape, buffer_ptr))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Binds an input to a value."""
        self.bind_cpu_input(name, ortvalue._ortolan_data)

    def bind_output(
        self, name: str, device_type: str = "cpu", device_id: int = 0, element_type: Any = None,
        shape: Sequence[int] | None = None, buffer_ptr: int | None = None,
    ) -> None:  # fmt: skip
        """Asks for an output: in new memory, or in memory that is given by its address.

        Args:
            name: of the output.
            device_type: "cpu".
            device_id: ignored.
            element_type: of the memory at `buffer_ptr`.
            shape: of the tensor there.
            buffer_ptr: address of the first element; None: the runtime makes a tensor.
        """
        del device_id
        check_device(device_type)
        i = self._output_number(name)
        if buffer_ptr is None:
            self._outputs[i] = None
            return
        if element_type is None or shape is None:
            raise errors.InvalidArgument(
                f"output {name!r}: memory by its address needs element_type and shape"
            )
        self._outputs[i] = _array_at(f"output {name!r}", element_type, shape, buffer_ptr)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Has an output written into the memory of a tensor, which must have its shape."""
        self._outputs[self._output_number(name)] = ortvalue._tensor()

    def _output_number(self, name: str) -> int:
        return self._signature.wanted([name])[0]

    def synchronize_inputs(self) -> None:
        """Does nothing: memory of the CPU is always there."""

    def synchronize_outputs(self) -> None:
        """Does nothing, as above."""

    def get_outputs(self) -> list[OrtValue]:
        """The outputs of the last call, in the order in which they were bound."""
        return list(self._results)

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The outputs of the last call as arrays."""
        return [value.numpy() for value in self._results]

    def clear_binding_inputs(self) -> None:
        """Forgets the inputs."""
        self._feeds.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets the outputs and the results of the last call."""
        self._outputs.clear()
        self._results = []


def _array_at(what: str, element_type: Any, shape: Sequence[int], address: int) -> Array:
    """An array over memory that somebody else owns."""
    number = number_from(element_type)
    if number == STRING:
        raise errors.InvalidArgument("strings have no address")
    dtype = numpy_type(number)
    try:
        sizes = tuple(map(operator.index, shape))
        size = math.prod(sizes) * dtype.itemsize
        if size == 0:
            return np.empty(sizes, dtype)
        if not address:
            raise ValueError("this address is none")
        buffer: Any = (ctypes.c_char * size).from_address(operator.index(address))
        return np.ndarray(sizes, dtype, buffer)
    except (TypeError, ValueError, OverflowError) as error:
        raise errors.InvalidArgument(
            f"{what}: there can be no tensor of shape {shape} at address {address}: {error}"
        ) from error
