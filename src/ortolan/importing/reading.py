"""Reads a model from a path, bytes or a protobuf message, and finds its external data.

In: what the user has. Out: a message of our own to change, in which the location of external
data is an absolute path that was checked.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from ortolan.errors import InvalidGraph, InvalidProtobuf, LimitExceeded, NoModel, NoSuchFile

__all__ = ["Source", "embed_external", "parse_model", "read_model"]

# Graphs within graphs. A file of either format holds less than this.
_MAX_NESTED = 20

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto


def read_model(source: Source) -> onnx.ModelProto:
    """Returns the model as a message that the caller may change.

    Args:
        source: path of an ONNX file, its content, or a message, which is left as it is.

    Raises:
        NoSuchFile: the file, or one with external data, cannot be read.
        NoModel: the bytes are no ONNX model.
        InvalidGraph: external data lies outside the model's folder, or there is no folder.
    """
    model, folder = parse_model(source)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _locate(tensor, folder)
    return model


def embed_external(model: onnx.ModelProto, folder: Path | None) -> None:
    """Puts the external data of a model into the message itself.

    Args:
        model: changed in place.
        folder: where it lies; None if it came as bytes, and then it may have none.

    Raises:
        NoSuchFile: a file with external data cannot be read.
        InvalidGraph: external data lies outside the model's folder, or there is no folder.
    """
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _locate(tensor, folder)
            _embed(tensor)


def _embed(tensor: onnx.TensorProto) -> None:
    """Reads external data that were located."""
    entries = {item.key: item.value for item in tensor.external_data}
    what = f'the external data of "{tensor.name}"'
    path, size = Path(entries["location"]), _stored_bytes(tensor, what)
    try:
        with path.open("rb") as file:
            file.seek(int(entries.get("offset") or 0))
            data = file.read(size)
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be read, and it holds {what}") from error
    if len(data) != size:
        raise InvalidGraph(f"{what} reaches beyond the end of {path}")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.raw_data = data


def parse_model(source: Source) -> tuple[onnx.ModelProto, Path | None]:
    """Returns the model as a message of our own, and its folder; external data stays unread.

    Raises:
        NoSuchFile: the file cannot be read.
        NoModel: the bytes are no ONNX model.
        LimitExceeded: graphs are nested too deep.
    """
    folder: Path | None = None
    if isinstance(source, onnx.ModelProto):
        _check_nesting(source, "the model")
        model = onnx.ModelProto()
        model.CopyFrom(source)
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        folder = path.parent
        model = _parse(_content(path), str(path))
    else:
        model = _parse(bytes(source), "the given bytes")
    if not model.HasField("graph"):
        raise InvalidProtobuf("the model has no graph: the file is empty or no ONNX model")
    return model, folder


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name may have a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise NoSuchFile(f"{path}: cannot be read ({reason})") from error


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    if data[4:8] == b"ORTM":
        raise NoModel(f"{name}: this is an ORT format file already, there is nothing to convert")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidProtobuf(
            f"{name}: not an ONNX model (no valid protobuf, or nested deeper than that can be)"
        ) from error
    _check_nesting(model, name)
    field = _damaged_text(model)
    if field:
        raise InvalidProtobuf(f"{name}: not an ONNX model (a {field} is no UTF-8 text)")
    return model


def _check_nesting(model: onnx.ModelProto, name: str) -> None:
    """Refuses what recursion over graphs would not survive; itself it does not recurse."""
    pending = [(node, 1) for node in model.graph.node]
    pending += [(node, 1) for function in model.functions for node in function.node]
    while pending:
        node, depth = pending.pop()
        for attribute in node.attribute:
            graphs = list(attribute.graphs)
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            if graphs and depth > _MAX_NESTED:
                raise LimitExceeded(
                    f"{name}: graphs are nested deeper than {_MAX_NESTED} (If, Loop, Scan), "
                    "which no file can hold"
                )
            pending += [(inner, depth + 1) for graph in graphs for inner in graph.node]


def _damaged_text(message: Message) -> str:
    """Returns the name of a text field that holds other bytes; protobuf lets them through."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_STRING:
            if any(isinstance(item, bytes) for item in values):
                return str(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in values:
                found = _damaged_text(item)
                if found:
                    return found
    return ""


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields all tensors of a model, those of sparse ones included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        # Those are the defaults of attributes.
        yield from _attribute_tensors(function.attribute_proto)
        for node in function.node:
            yield from _attribute_tensors(node.attribute)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        yield from attribute.tensors
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _locate(tensor: onnx.TensorProto, folder: Path | None) -> None:
    """Replaces the location of external data by its absolute path.

    A model may come from anywhere: it must not make us read files that are not its own.
    """
    what = f'the external data of "{tensor.name}"'
    if folder is None:
        raise InvalidGraph(f"{what} is in another file: give the path of the model, not its bytes")
    counts = Counter(item.key for item in tensor.external_data)
    if twice := [key for key, count in counts.items() if count > 1]:
        # Who reads the data may take another entry than the one that is checked here.
        raise InvalidGraph(f'{what} has the entry "{twice[0]}" twice')
    entry = next((item for item in tensor.external_data if item.key == "location"), None)
    if entry is None or not entry.value:
        raise InvalidGraph(f"{what} has no location")
    try:
        path = (folder / entry.value).resolve()
    except (OSError, ValueError) as error:  # a name may have a zero byte, a link lead to itself
        raise InvalidGraph(f"{what} ({entry.value!r}) has no name of a file: {error}") from error
    if Path(entry.value).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise InvalidGraph(
            f'{what} ("{entry.value}") lies outside the model\'s folder: put it beside the model'
        )
    numbers = {item.key: item.value for item in tensor.external_data}
    needed = _stored_bytes(tensor, what)
    try:
        size = path.stat().st_size
        offset, length = int(numbers.get("offset") or 0), int(numbers.get("length") or needed)
    except OSError as error:
        raise NoSuchFile(f"{path}: cannot be read, and it holds {what}") from error
    except ValueError as error:
        raise InvalidGraph(f"{what} has an offset or length that is no number") from error
    if length != needed:
        raise InvalidGraph(f"{what} has a length of {length} bytes, its type and shape {needed}")
    if not path.is_file():
        raise InvalidGraph(f"{what} is to be in {path}, which is no file")
    if offset < 0 or offset + length > size:
        raise InvalidGraph(f"{what} reaches beyond the end of {path} ({size} bytes)")
    entry.value = str(path)


def _stored_bytes(tensor: onnx.TensorProto, what: str) -> int:
    """The bytes that a tensor's type and shape say."""
    if tensor.data_type == onnx.TensorProto.STRING:
        raise InvalidGraph(f"{what} would be strings, which stand in the model itself")
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (TypeError, ValueError) as error:
        raise InvalidGraph(f"{what} has no element type: {tensor.data_type}") from error
    if any(dim < 0 for dim in tensor.dims):
        raise InvalidGraph(f"{what} has negative dimensions: {list(tensor.dims)}")
    count = int(math.prod(tensor.dims))
    return (count * bits + 7) // 8
