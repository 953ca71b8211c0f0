"""OrtValue: a value of a model as an object of its own, over memory that is shared, not copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ortolan import errors
from ortolan.runtime.element_types import STRING, number_from, number_of, numpy_type, type_text

__all__ = ["OrtDevice", "OrtValue", "check_device"]

Array = npt.NDArray[Any]


def check_device(device_type: str) -> None:
    """Raises `ortolan.errors.NotImplemented` for memory that is not the CPU's."""
    if device_type.lower() not in ("cpu", ""):
        raise errors.NotImplemented(
            f"there is no memory of a device {device_type!r} in this package: use 'cpu'"
        )


class OrtDevice:
    """Where memory is: the CPU's."""

    def __init__(self, device_type: str = "cpu", device_id: int = 0) -> None:
        check_device(device_type)
        self._id = int(device_id)

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> OrtDevice:
        """A device by name.

        Raises:
            ortolan.errors.NotImplemented: it is not the CPU.
        """
        del vendor_id
        return OrtDevice(ort_device_name, device_id)

    def device_id(self) -> int:
        """The number of the device."""
        return self._id

    def device_type(self) -> int:
        """0, the CPU."""
        return 0

    def device_mem_type(self) -> int:
        """0, plain memory."""
        return 0

    def device_vendor_id(self) -> int:
        """0, none."""
        return 0


class OrtValue:
    """A tensor, a sequence, a map, or nothing (an optional without a value).

    Make one with the static methods. Tensors show their memory: what `numpy()` returns is a view.
    """

    __slots__ = ("_number", "_ortolan_data")

    def __init__(self, data: Any, number: int = 0) -> None:
        self._ortolan_data = data
        if number == 0 and isinstance(data, np.ndarray):
            number = number_of(data.dtype)
        self._number = number

    @staticmethod
    def ortvalue_from_numpy(
        numpy_obj: Array, /, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """A tensor over an array's memory, or over a copy if its elements are not in order.

        Args:
            numpy_obj: of a type that ONNX has.
            device_type: "cpu".
            device_id: ignored.
            vendor_id: ignored.

        Raises:
            ortolan.errors.OrtolanError: ONNX has no such type, there is no such device, or elements
                are masked.
        """
        del device_id, vendor_id
        check_device(device_type)
        if np.ma.is_masked(numpy_obj):
            raise errors.InvalidArgument("masked elements have no value: give the array filled")
        array = np.asarray(numpy_obj)
        number = number_of(array.dtype)
        if array.dtype != numpy_type(number) or not _is_plain(array):
            array = np.array(array, numpy_type(number), order="C", copy=True)
        return OrtValue(array, number)

    @staticmethod
    def ortvalue_from_numpy_with_onnx_type(data: Array, /, onnx_element_type: int) -> OrtValue:
        """A tensor of an ONNX type over an array that holds its bytes.

        Args:
            data: elements of as many bytes as the type has, e.g. uint16 for bfloat16.
            onnx_element_type: a number of ``TensorProto.DataType``.

        Raises:
            ortolan.errors.InvalidArgument: the sizes do not agree.
        """
        number = number_from(onnx_element_type)
        dtype = numpy_type(number)
        if number == STRING or data.dtype.itemsize != dtype.itemsize:
            raise errors.InvalidArgument(
                f"elements of {data.dtype} do not have the size of {type_text(number)}"
            )
        return OrtValue(np.ascontiguousarray(data).reshape(data.shape).view(dtype), number)

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0,
        vendor_id: int = -1, memory_info: Any = None,
    ) -> OrtValue:  # fmt: skip
        """A tensor whose elements are not set.

        Args:
            shape: its dimensions.
            element_type: a numpy type, a number of ``TensorProto.DataType``, or ONNX's name.
            device_type: "cpu".
            device_id: ignored.
            vendor_id: ignored.
            memory_info: ignored.
        """
        del device_id, vendor_id, memory_info
        check_device(device_type)
        number = number_from(element_type)
        return OrtValue(np.empty(tuple(shape), numpy_type(number)), number)

    @staticmethod
    def from_dlpack(data: Any, /, is_bool_tensor: bool = False) -> OrtValue:
        """A tensor over the memory of another library's, by DLPack.

        Args:
            data: has ``__dlpack__`` and is in the CPU's memory.
            is_bool_tensor: take bytes as booleans, for libraries that export them so.
        """
        array = np.from_dlpack(data)
        if is_bool_tensor:
            array = array.view(np.bool_)
        return OrtValue.ortvalue_from_numpy(array)

    @staticmethod
    def ort_value_from_sparse_tensor(sparse_tensor: Any) -> NoReturn:
        """Not supported.

        Raises:
            ortolan.errors.NotImplemented: always.
        """
        raise errors.NotImplemented("sparse tensors are not supported as values")

    def _tensor(self) -> Array:
        if not isinstance(self._ortolan_data, np.ndarray):
            raise errors.InvalidArgument(f"this value is no tensor but a {self.data_type()}")
        return self._ortolan_data

    def numpy(self) -> Any:
        """The tensor as an array over its own memory; a sequence as a list, a map as a dict."""
        return self._ortolan_data

    def shape(self) -> list[int]:
        """Dimensions of the tensor."""
        return list(self._tensor().shape)

    def data_type(self) -> str:
        """As in ``"tensor(float)"``."""
        data = self._ortolan_data
        if isinstance(data, np.ndarray):
            return type_text(self._number)
        if isinstance(data, list):
            return f"seq({OrtValue(data[0]).data_type()})" if data else "seq(tensor(undefined))"
        if isinstance(data, dict):
            return "map"
        return "optional"

    def element_type(self) -> int:
        """The number of the element type in ``TensorProto.DataType``."""
        self._tensor()
        return self._number

    def data_ptr(self) -> int:
        """The address of the first element."""
        if self._number == STRING:
            raise errors.InvalidArgument("strings have no address")
        return int(self._tensor().ctypes.data)

    def tensor_size_in_bytes(self) -> int:
        """The bytes of all elements."""
        return self._tensor().nbytes

    def device_name(self) -> str:
        """``"cpu"``."""
        return "cpu"

    def has_value(self) -> bool:
        """False for an optional without a value."""
        return self._ortolan_data is not None

    def is_tensor(self) -> bool:
        """Whether it is a tensor."""
        return isinstance(self._ortolan_data, np.ndarray)

    def is_tensor_sequence(self) -> bool:
        """Whether it is a sequence of tensors."""
        data = self._ortolan_data
        return isinstance(data, list) and all(isinstance(item, np.ndarray) for item in data)

    def is_sparse_tensor(self) -> bool:
        """False: there are none."""
        return False

    def as_sparse_tensor(self) -> NoReturn:
        """Not supported.

        Raises:
            ortolan.errors.NotImplemented: always.
        """
        raise errors.NotImplemented("sparse tensors are not supported as values")

    def update_inplace(self, data: Any) -> None:
        """Writes new elements into the tensor's memory.

        Args:
            data: an array or a tensor of this shape and type.

        Raises:
            ortolan.errors.InvalidArgument: shape or type are others, or the memory is read-only.
        """
        to = self._tensor()
        if not to.flags.writeable:
            raise errors.InvalidArgument("the memory of this tensor is read-only")
        new = np.asarray(getattr(data, "_ortolan_data", data))
        if new.shape != to.shape or number_of(new.dtype) != self._number:
            raise errors.InvalidArgument(
                f"an array of {new.dtype} {list(new.shape)} cannot be put into "
                f"{self.data_type()} {list(to.shape)}"
            )
        np.copyto(to, new)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._tensor(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if options.get("stream") is None:
            options.pop("stream", None)
        return self._tensor().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        device, number = self._tensor().__dlpack_device__()
        return int(device), int(number)

    def __repr__(self) -> str:
        held = self._ortolan_data
        shape = f", shape={list(held.shape)}" if isinstance(held, np.ndarray) else ""
        return f"OrtValue({self.data_type()}{shape})"


def _is_plain(array: Array) -> bool:
    return array.flags.c_contiguous and array.flags.aligned
