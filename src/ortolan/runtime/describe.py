"""What a loaded model says of itself: its inputs, outputs and metadata."""

from __future__ import annotations

import ctypes

from ortolan import _native

__all__ = ["ModelMetadata", "NodeArg", "argument", "metadata"]


class NodeArg:
    """An input or output of a model.

    Attributes:
        name: its name.
        type: as onnxruntime writes it, e.g. ``"tensor(float)"``.
        shape: dimensions: a number, the name of a symbolic one, or None for an unknown one.
    """

    __slots__ = ("name", "shape", "type")

    def __init__(self, name: str, type: str, shape: list[int | str | None]) -> None:  # noqa: A002
        self.name = name
        self.type = type
        self.shape = shape

    def __repr__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape})"


class ModelMetadata:
    """What a model says of itself.

    Attributes:
        producer_name: the program that wrote the model.
        graph_name: name of the main graph; empty for an ``.ort`` file, which has no place for it.
        domain: of the model.
        description: of the model.
        graph_description: of the main graph.
        version: of the model.
        custom_metadata_map: the model's own entries.
    """

    __slots__ = (
        "custom_metadata_map", "description", "domain", "graph_description", "graph_name",
        "producer_name", "version",
    )  # fmt: skip

    def __init__(self, texts: dict[str, str], version: int, custom: dict[str, str]) -> None:
        self.producer_name = texts["producer_name"]
        self.graph_name = texts["graph_name"]
        self.domain = texts["domain"]
        self.description = texts["description"]
        self.graph_description = texts["graph_description"]
        self.version = version
        self.custom_metadata_map = custom

    def __repr__(self) -> str:
        return f"ModelMetadata(producer_name={self.producer_name!r}, version={self.version})"


def argument(model: int, side: int, index: int) -> tuple[NodeArg, int]:
    """An input or output of a model, and its element type, 0 if it is no tensor.

    Args:
        model: handle.
        side: `_native.INPUT` or `_native.OUTPUT`.
        index: less than the model's count.
    """
    library = _native.library()
    tensor = _native.new_tensor()
    name = library.ortolan_model_name(model, side, index).decode()
    code = library.ortolan_model_tensor(model, side, index, ctypes.byref(tensor))
    _native.check(code, b"a model's description is missing")
    shape: list[int | str | None] = []
    for axis in range(0 if tensor.rank == _native.UNKNOWN_RANK else tensor.rank):
        symbol = library.ortolan_model_dimension(model, side, index, axis)
        size = tensor.dims[axis]
        shape.append(size if size >= 0 else symbol.decode() if symbol else None)
    type_text = library.ortolan_model_type(model, side, index).decode()
    # A container has no element type of its own.
    is_tensor = type_text.startswith("tensor(")
    return NodeArg(name, type_text, shape), tensor.type if is_tensor else 0


def metadata(model: int, graph_name: str) -> ModelMetadata:
    """The metadata of a loaded model.

    Args:
        model: handle.
        graph_name: what is known of it from elsewhere.
    """
    library = _native.library()

    def text(key: bytes) -> str:
        found = library.ortolan_model_metadata(model, key)
        return found.decode("utf-8", "replace") if found else ""

    custom = {}
    index = 0
    while key := library.ortolan_model_metadata_key(model, index):
        custom[key.decode("utf-8", "replace")] = text(key)
        index += 1
    version = ctypes.c_int64()
    library.ortolan_model_number(model, b"model_version", ctypes.byref(version))
    texts = {
        name: text(name.encode())
        for name in ("producer_name", "domain", "description", "graph_description")
    }
    return ModelMetadata({**texts, "graph_name": graph_name}, version.value, custom)
