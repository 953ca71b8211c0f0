"""The common form of packed weights, in which files hold the matrix B[K][N] of a product.

N is a multiple of 4. Lines of 16 columns stand one after another, each [K][16]; the last has as
many columns as are left. Elements are float32, little endian. A file has them as bytes of the shape
[dims...][4], and an `ai.ortolan:Unpack` says of which form they are: that of B, or that of weights
[N][channels][kernel...], which are the matrix [kernel... * channels][N].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ortolan.ortformat import tables
from ortolan.ortformat.links import graphs, link_graph
from ortolan.ortformat.schema import TensorDataType

__all__ = [
    "COLUMNS_FIRST",
    "COLUMNS_LAST",
    "LINE",
    "UNIT",
    "PackedWeights",
    "matrix_of",
    "pack",
    "packed_weights",
    "unpack",
    "unpack_weights",
]

COLUMNS_LAST, COLUMNS_FIRST = 1, 2
"""What files call the form of weights whose columns are their last dimension, or the first."""
LINE = 16
UNIT = 4
"""What the number of columns is a multiple of."""

if TYPE_CHECKING:  # to tell what is packed needs no numpy, and the build has none
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]


def matrix_of(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns weights [N][channels][kernel...] as the matrix [kernel... * channels][N]."""
    import numpy as np

    return np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1).T


def pack(matrix: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Packs a matrix.

    Args:
        matrix: float32 [K][N], any strides, N a multiple of 4.

    Returns:
        4 * K * N bytes.
    """
    import numpy as np

    rows, columns = matrix.shape
    whole = columns // LINE * LINE
    lines = matrix[:, :whole].reshape(rows, -1, LINE).transpose(1, 0, 2)
    rest = matrix[:, whole:]
    packed = np.concatenate([lines.reshape(-1), rest.reshape(-1)]).astype("<f4", copy=False)
    return packed.view(np.uint8)


def unpack(data: tables.RawData, columns: int, rows: int) -> Matrix:
    """Returns the matrix [rows][columns] that `pack` packed.

    Raises:
        ValueError: the data has another length than the matrix needs.
    """
    import numpy as np

    if len(data) != 4 * columns * rows:
        raise ValueError(f"{len(data)} bytes are not {columns} columns of {rows} floats")
    floats = np.frombuffer(data, "<f4")
    whole = columns // LINE * LINE
    lines = floats[: whole * rows].reshape(-1, rows, LINE).transpose(1, 0, 2)
    rest = floats[whole * rows :].reshape(rows, columns - whole)
    return np.concatenate([lines.reshape(rows, whole), rest], axis=1).astype(np.float32)


@dataclass(frozen=True)
class PackedWeights:
    """A constant of a graph that its file holds packed.

    Attributes:
        node: the `ai.ortolan:Unpack`.
        stored: the initializer with the packed bytes.
        name: of the value that nodes use.
        dims: its sizes.
        is_first: the first dimension has the columns, not the last.
    """

    node: tables.Node
    stored: tables.Tensor
    name: str
    dims: tuple[int, ...]
    is_first: bool

    def array(self) -> Matrix:
        """The weights as they are used.

        Raises:
            OrtFormatError: the bytes do not hold them.
        """
        import numpy as np

        columns = self.dims[0 if self.is_first else -1]
        rows = math.prod(self.dims) // max(columns, 1)
        try:
            matrix = unpack(self.stored.raw_data, columns, rows)
        except ValueError as error:
            raise tables.OrtFormatError(f'the constant "{self.name}": {error}') from error
        if self.is_first:
            outputs, channels, *kernel = self.dims
            matrix = np.moveaxis(matrix.T.reshape(outputs, *kernel, channels), -1, 1)
        return np.ascontiguousarray(matrix).reshape(self.dims)


def packed_weights(graph: tables.Graph) -> Iterator[PackedWeights]:
    """Yields the packed constants of a graph, those of its subgraphs not included.

    An `Unpack` of what is no constant, or of a form that this version does not know, is a node
    like any other; so is a second one of the same constant, which no writer makes.
    """
    stored = {tensor.name: tensor for tensor in graph.initializers}
    for name in graph.inputs:  # a caller may give other bytes
        stored.pop(name, None)
    for node in graph.nodes:
        if (node.domain, node.op_type, node.since_version) != ("ai.ortolan", "Unpack", 1):
            continue
        form = next((a.i for a in node.attributes if a.name == "form"), 0)
        tensor = stored.get(node.inputs[0]) if len(node.inputs) == len(node.outputs) == 1 else None
        if tensor is None or form not in (COLUMNS_FIRST, COLUMNS_LAST):
            continue
        dims, is_first = tuple(tensor.dims), form == COLUMNS_FIRST
        is_matrix = len(dims) > 2 and min(dims) > 0 and dims[-1] == UNIT
        is_matrix = is_matrix and dims[0 if is_first else -2] % UNIT == 0
        if tensor.data_type == TensorDataType.UINT8 and is_matrix:
            del stored[tensor.name]
            yield PackedWeights(node, tensor, node.outputs[0], dims[:-1], is_first)


def unpack_weights(session: tables.InferenceSession) -> None:
    """Makes plain initializers of all packed weights of a file, in place.

    Raises:
        OrtFormatError: the bytes of a constant are not there: they are in another file.
    """
    changed = False
    for graph in graphs(session.model.graph):
        found = list(packed_weights(graph))
        if not found:
            continue
        changed = True
        gone = {id(each.node) for each in found}
        graph.nodes = [node for node in graph.nodes if id(node) not in gone]
        used = {name for node in graph.nodes for name in (*node.inputs, *node.implicit_inputs)}
        used.update(graph.outputs)
        stored = {each.stored.name for each in found} - used
        graph.initializers = [t for t in graph.initializers if t.name not in stored]
        graph.node_args = [info for info in graph.node_args if info.name not in stored]
        for each in found:
            array = each.array().astype("<f4")
            graph.initializers.append(
                tables.Tensor(
                    name=each.name,
                    doc_string=each.stored.doc_string,
                    dims=list(each.dims),
                    data_type=TensorDataType.FLOAT,
                    raw_data=array.tobytes(),
                )
            )  # fmt: skip
    if changed:
        link_graph(session.model.graph)
