"""Makes constants of what is computed from shapes, as far as sizes are known.

    x (batch, 3, 8, 8) -> Shape -> Slice(1:) -> s      =>      s is the constant (3, 8, 8)

1. Integers computed from shapes whose elements are all known become a constant.
2. The shape of a Reshape gets a 0, "as in the input", for a size that is the input's at that
   place, and a -1 for the only other one that is not known: then it is a constant.
3. Two nodes that compute the same sizes, in any way: users of the second use the first.

Not rewritten when a size that matters is not sure. In case 2, a -1 is not used together with a
0, or a fixed size of 0: the tensor may have no elements, and then -1 means nothing. A single -1
is used only if the other sizes are fixed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ortolan.importing.naming import subgraphs
from ortolan.importing.shapes import known_shape
from ortolan.passes.dimensions import Dimensions
from ortolan.passes.matching import integers
from ortolan.passes.rewriting import Rewriter
from ortolan.passes.shape_rules import improve_shapes
from ortolan.passes.sizes import Element
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["compute_shapes"]


def compute_shapes(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Computes shapes as far as possible; returns whether anything was changed."""
    return _visit(Rewriter(model, target), model.graph, Dimensions())


def _visit(rewriter: Rewriter, graph: ir.Graph, dimensions: Dimensions) -> bool:
    modified = False
    first: dict[tuple[object, ...], ir.Value] = {}
    for node in list(graph):
        for subgraph in subgraphs(node):
            modified |= _visit(rewriter, subgraph, dimensions)
        improve_shapes(dimensions, node)
        if node.domain == "" and node.op_type == "Reshape" and len(node.inputs) > 1:
            modified |= _simplify(rewriter, graph, node, dimensions)
        if len(node.outputs) != 1 or node.graph is None:
            continue
        modified |= _settle(rewriter, graph, node, dimensions, first)
    return modified


def _settle(
    rewriter: Rewriter,
    graph: ir.Graph,
    node: ir.Node,
    dimensions: Dimensions,
    first: dict[tuple[object, ...], ir.Value],
) -> bool:
    """Cases 1 and 3."""
    output = node.outputs[0]
    elements = dimensions.elements(output)
    if elements is None or output.dtype is None or output.is_graph_output():
        return False
    if elements.numbers is not None:
        array = np.array(elements.numbers, output.dtype.numpy())
        shape = () if elements.scalar else (len(elements),)
        constant = rewriter.constant(graph, array.reshape(shape), output.name or "shape")
        return rewriter.bypass(node, constant)
    key = (output.dtype, elements.scalar, *elements)
    known = first.get(key)
    producer = known.producer() if known is not None else None
    if known is None or producer is None or producer.graph is not graph:
        # There is none yet, or it went together with the last of its users.
        first[key] = output
        return False
    return rewriter.bypass(node, known)


def _simplify(rewriter: Rewriter, graph: ir.Graph, node: ir.Node, dimensions: Dimensions) -> bool:
    """Case 2."""
    elements = dimensions.elements(node.inputs[1])
    shape = known_shape(node.inputs[0])
    if elements is None or elements.scalar or integers(node.inputs[1]) is not None:
        return False
    if elements.numbers is None and node.attributes.get_int("allowzero", 0) != 0:
        return False
    sizes = [_size(element, k, shape) for k, element in enumerate(elements)]
    open_ = [k for k, size in enumerate(sizes) if isinstance(size, str)]
    if open_:
        others = [size for size in sizes if not isinstance(size, str)]
        if len(open_) > 1 or any(size <= 0 for size in others):
            return False
        sizes[open_[0]] = -1
    name = f"{node.outputs[0].name}_shape"
    node.replace_input_with(1, rewriter.constant(graph, np.array(sizes, np.int64), name))
    return True


def _size(element: Element, k: int, shape: tuple[int | str | None, ...] | None) -> Element:
    """What stands in the shape for an element: 0 if it is the input's size at that place."""
    if isinstance(element, str) and shape is not None and k < len(shape) and shape[k] == element:
        return 0
    return element
