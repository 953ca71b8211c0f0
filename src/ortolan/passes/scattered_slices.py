"""Has ScatterND write slices where its indices list the elements of whole ones.

    ScatterND(data [C, D], [n, D, 2], updates)      =>      ScatterND(data, [n, 1], updates)

The indices are a constant in which those of all elements of a slice stand in order: PyTorch exports
`x[:, i:j] = y` so. Again while it fits; updates stay as they are.

Not rewritten when that dimension of the data is not known, or no index would be left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant
from ortolan.passes.rewriting import Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["scatter_slices"]


def scatter_slices(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Shortens the indices of ScatterND; returns whether there were any to shorten."""
    return rewrite(model, target, ["ScatterND"], _shorten)


def _shorten(rewriter: Rewriter, node: ir.Node) -> bool:
    indices, shape = constant(node.inputs[1]), known_shape(node.inputs[0])
    if indices is None or shape is None or not isinstance(node.graph, ir.Graph):
        return False
    count = indices.ndim
    while _lists_slices(indices, shape):
        indices = indices[..., 0, :-1]
    if indices.ndim == count:
        return False
    node.replace_input_with(1, rewriter.constant(node.graph, indices, "indices"))
    return True


def _lists_slices(indices: npt.NDArray[Any], shape: tuple[int | str | None, ...]) -> bool:
    depth = indices.shape[-1]
    if indices.ndim < 2 or not 2 <= depth <= len(shape) or not indices.size:
        return False
    size = shape[depth - 1]
    if not isinstance(size, int) or indices.shape[-2] != size:
        return False
    last = indices[..., -1]
    in_order = np.where(last < 0, last + size, last) == np.arange(size)
    return bool(in_order.all() and (indices[..., :-1] == indices[..., :1, :-1]).all())
