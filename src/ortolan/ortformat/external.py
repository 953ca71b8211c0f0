"""Weights in a file of their own beside an ORT file: an extension, for models beyond 2 GB.

`model.ort` says in `external_data_offset` where in `model.ort.data` the bytes of a tensor begin;
their number follows from its type and sizes. The field is the format's own; that the file has
this name is ours, and onnxruntime does not read it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ortolan.ortformat.links import graphs
from ortolan.ortformat.tables import InferenceSession, OrtFormatError, Tensor

__all__ = ["EXTERNAL_SUFFIX", "attach", "detach", "is_external", "weight_bytes"]

EXTERNAL_SUFFIX = ".data"
"""What the name of the file of weights has behind that of the model."""

# A page: what is mapped can be handed to a device without a copy.
_ALIGNMENT = 4096
# Smaller ones stay in the file.
_SMALLEST = 1024


def is_external(session: InferenceSession) -> bool:
    """Whether any weight of a model is in another file."""
    return any(tensor.external_data_offset >= 0 for tensor in _weights(session))


def weight_bytes(session: InferenceSession) -> int:
    """The bytes of all constants of a model."""
    return sum(len(tensor.raw_data) for tensor in _weights(session))


def detach(session: InferenceSession) -> Iterator[bytes | bytearray | memoryview]:
    """Moves the large weights of a model into a file of their own.

    Args:
        session: tables; their tensors get offsets and lose their bytes as the parts are taken.

    Yields:
        The parts of that file, one behind the other.
    """
    position = 0
    for tensor in _weights(session):
        data = tensor.raw_data
        if len(data) < _SMALLEST:
            continue
        padding = -position % _ALIGNMENT
        yield bytes(padding)
        tensor.external_data_offset = position + padding
        tensor.raw_data = b""
        yield data
        position += padding + len(data)


def attach(session: InferenceSession, data: memoryview) -> None:
    """Gives the tensors of a model their bytes in another file.

    Args:
        session: tables, changed in place.
        data: the content of the file.

    Raises:
        OrtFormatError: a tensor reaches beyond it.
    """
    for tensor in _weights(session):
        begin = tensor.external_data_offset
        if begin < 0:
            continue
        end = begin + tensor.byte_size()
        if end > len(data):
            problem = f"ends at byte {end}, but the file of weights has {len(data)}"
            raise OrtFormatError(problem, f'initializer "{tensor.name}"')
        tensor.raw_data, tensor.external_data_offset = data[begin:end], -1


def _weights(session: InferenceSession) -> Iterator[Tensor]:
    for graph in graphs(session.model.graph):
        yield from graph.initializers
