"""Rewrites operators of the standard's first versions to those that have kernels.

In: nodes with versions, attributes that fit them. Out: the same computation in versions of the
catalog. Before version 7 an operand broadcast only where attributes said so and at an axis that one
of them named; before version 6 there were marks for memory that may be overwritten; and some
operands were attributes. Where the rank that an axis counts from is unknown, the model computes it.

    A, B -> Add-6(axis=1) -> C      =>      A, Unsqueeze(B) -> Add-7 -> C
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ortolan import catalog
from ortolan.errors import InvalidGraph
from ortolan.importing.element_types import label
from ortolan.importing.legacy_scan import rewrite_scan
from ortolan.importing.naming import make_names_unique
from ortolan.importing.rewriting import Editor
from ortolan.importing.shapes import infer_hints
from ortolan.importing.versions import since_version

__all__ = ["UPGRADES", "upgrade"]

_Ranks: TypeAlias = Callable[[ir.Value | None], int | None]
_Handler: TypeAlias = Callable[[Editor, _Ranks], None]


def upgrade(model: ir.Model) -> None:
    """Rewrites the nodes whose version the catalog lacks and this file knows.

    Args:
        model: nodes have versions and valid attributes; types are not needed.

    Raises:
        InvalidGraph: an axis does not fit its operands, or an attribute has no meaning.
    """
    nodes = [node for node in model.graph.all_nodes() if _handler(node) is not None]
    if not nodes:
        return
    ranks = _known_ranks(model)
    for node in nodes:
        handler = _handler(node)
        assert handler is not None
        handler(Editor(node), ranks)
    make_names_unique(model)
    _raise_import(model)


def _handler(node: ir.Node) -> _Handler | None:
    version = node.version or 1
    if node.domain != "" or catalog.find("", node.op_type, version) is not None:
        return None
    return UPGRADES.get((node.op_type, version))


def _known_ranks(model: ir.Model) -> _Ranks:
    hints: Mapping[ir.Value, Any] = infer_hints(model)

    def rank(value: ir.Value | None) -> int | None:
        if value is None:
            return None
        if value.const_value is not None:
            return len(value.const_value.shape)
        shape = hints[value][1] if value in hints else None
        shape = value.shape if shape is None else shape
        return None if shape is None else len(shape)

    return rank


def _raise_import(model: ir.Model) -> None:
    """Imports a version that means all nodes as they are now, if there is one."""
    versions = {(n.op_type, n.version or 1) for n in model.graph.all_nodes() if n.domain == ""}
    opset = model.opset_imports.get("", 1)
    for candidate in range(opset, max(opset, *(version for _, version in versions)) + 1):
        if all(since_version("", name, candidate) == version for name, version in versions):
            model.opset_imports[""] = candidate
            return


def _renewed(version: int, *dropped: str) -> _Handler:
    """The same operator in a newer version, without some attributes."""

    def handle(edit: Editor, ranks: _Ranks) -> None:
        edit.drop(*dropped, "consumed_inputs")
        edit.node.version = version

    return handle


def _selu(edit: Editor, ranks: _Ranks) -> None:
    """The defaults of version 1 have fewer digits."""
    for name, value in (("alpha", 1.6732), ("gamma", 1.0507)):
        edit.default(ir.AttrFloat32(name, value))
    _renewed(6)(edit, ranks)


def _broadcast(edit: Editor, ranks: _Ranks) -> None:
    """An axis of the first operand, if there is one, is where the second begins."""
    axis, broadcast = (edit.node.attributes.get(name) for name in ("axis", "broadcast"))
    if axis is not None and broadcast is not None and broadcast.as_int() != 0:
        _align(edit, ranks, axis.as_int())
    edit.drop("axis", "broadcast", "consumed_inputs")
    edit.node.version = 7


def _align(edit: Editor, ranks: _Ranks, axis: int) -> None:
    """Appends dimensions of 1 to input 1, so that it begins at an axis of input 0."""
    node = edit.node
    a, b = node.inputs[0], node.inputs[1]
    rank_a, rank_b = ranks(a), ranks(b)
    if rank_a is None or rank_b is None:
        edit.replace_input(1, _aligned_by_shape(edit, a, b, axis))
        return
    begin = axis + rank_a if axis < 0 else axis
    missing = rank_a - begin - rank_b
    if begin < 0 or missing < 0:
        raise InvalidGraph(
            f"{label(node)}: an operand of {rank_b} dimensions does not fit one of {rank_a} "
            f"from axis {axis} on"
        )
    if missing:
        axes = list(range(rank_b, rank_b + missing))
        edit.replace_input(1, edit.add("Unsqueeze", 1, [b], [ir.AttrInt64s("axes", axes)]))


def _aligned_by_shape(edit: Editor, a: ir.Value | None, b: ir.Value | None, axis: int) -> ir.Value:
    shape_a, shape_b = (edit.add("Shape", 1, [value]) for value in (a, b))
    rank_a, rank_b = (edit.add("Shape", 1, [shape]) for shape in (shape_a, shape_b))
    # What is left of A's dimensions behind the axis, without B's own.
    behind = edit.integers([-axis])
    if axis >= 0:
        behind = edit.add("Add", 7, [rank_a, behind])
    missing = edit.add("Sub", 7, [behind, rank_b])
    one = ir.AttrTensor("value", ir.tensor(np.array([1], np.int64)))
    ones = edit.add("ConstantOfShape", 9, [missing], [one])
    shape = edit.add("Concat", 4, [shape_b, ones], [ir.AttrInt64("axis", 0)])
    return edit.add("Reshape", 5, [b, shape])


def _prelu(edit: Editor, ranks: _Ranks) -> None:
    """A vector of slopes belongs to axis 1."""
    x, slope = edit.node.inputs[0], edit.node.inputs[1]
    is_vector = ranks(slope) == 1
    is_single = slope is not None and slope.const_value is not None and slope.const_value.size == 1
    if is_vector and not is_single and ranks(x) != 1:
        _align(edit, ranks, 1)
    _renewed(7)(edit, ranks)


def _cast(edit: Editor, ranks: _Ranks) -> None:
    """The type is a name."""
    node = edit.node
    name = node.attributes["to"].as_string().upper()
    if name not in ir.DataType.__members__ or name == "UNDEFINED":
        raise InvalidGraph(f'{label(node)}: its attribute to names no element type: "{name}"')
    node.attributes.add(ir.AttrInt64("to", int(ir.DataType[name])))
    node.version = 6


def _concat(edit: Editor, ranks: _Ranks) -> None:
    edit.default(ir.AttrInt64("axis", 1))
    edit.node.version = 4


def _pad(edit: Editor, ranks: _Ranks) -> None:
    paddings = edit.node.attributes["paddings"].as_ints()
    edit.drop("paddings")
    edit.default(ir.AttrInt64s("pads", paddings))
    edit.node.version = 2


def _reshape(edit: Editor, ranks: _Ranks) -> None:
    shape = edit.node.attributes.get("shape")
    if shape is None:
        raise InvalidGraph(f"{label(edit.node)}: its attribute shape is missing")
    edit.drop("shape", "consumed_inputs")
    edit.replace_input(1, edit.integers(shape.as_ints()))
    edit.node.version = 5


def _split(edit: Editor, ranks: _Ranks) -> None:
    """The sizes are an attribute, or an input in the type of the data."""
    node = edit.node
    sizes = node.inputs[1] if len(node.inputs) > 1 else None
    node.version = 2
    if sizes is not None:
        edit.drop("split")
        edit.replace_input(1, _as_int64(edit, sizes))
        node.version = 13


def _tile(edit: Editor, ranks: _Ranks) -> None:
    """How often, and along which one axis, as scalars in the type of the data."""
    x, tiles, axis = edit.node.inputs
    rank = edit.add("Size", 1, [edit.add("Shape", 1, [x])])
    limits = [edit.integer(0), rank, edit.integer(1)]
    is_axis = edit.add("Equal", 7, [edit.add("Range", 11, limits), _as_int64(edit, axis)])
    one = edit.integers([1])
    repeats = edit.add("Where", 9, [is_axis, _as_int64(edit, tiles), one])
    edit.node.resize_inputs(2)
    edit.replace_input(1, repeats)
    edit.node.version = 6


def _as_int64(edit: Editor, value: ir.Value | None) -> ir.Value:
    return edit.add("Cast", 6, [value], [ir.AttrInt64("to", int(ir.DataType.INT64))])


def _upsample(edit: Editor, ranks: _Ranks) -> None:
    """Of images only; what is linear now was bilinear."""
    node = edit.node
    scales = [1.0, 1.0, *(node.attributes[f"{k}_scale"].as_float() for k in ("height", "width"))]
    edit.drop("height_scale", "width_scale")
    edit.default(ir.AttrFloat32s("scales", scales))
    if node.attributes.get_string("mode", "nearest") == "bilinear":
        node.attributes.add(ir.AttrString("mode", "linear"))
    node.version = 7


def _renamed(name: str, version: int) -> _Handler:
    """The operator that took over when its old name was given up."""

    def handle(edit: Editor, ranks: _Ranks) -> None:
        edit.node.op_type = name
        edit.node.version = version

    return handle


def _scan(edit: Editor, ranks: _Ranks) -> None:
    rewrite_scan(edit)


def _table(*parts: tuple[str, Sequence[int], _Handler]) -> dict[tuple[str, int], _Handler]:
    return {
        (name, version): handler
        for names, versions, handler in parts
        for name in names.split()
        for version in versions
    }


UPGRADES = _table(
    ("Abs Ceil Clip Elu Exp Floor HardSigmoid LeakyRelu", [1], _renewed(6)),
    ("Log Neg Reciprocal Relu Sigmoid Sqrt Tanh", [1], _renewed(6)),
    ("Selu", [1], _selu),
    ("Add Div Mul Sub", [1, 6], _broadcast),
    ("And Or Xor Equal Greater Less Pow", [1], _broadcast),
    ("Max Mean Min Sum", [1, 6], _renewed(8)),
    ("PRelu", [1, 6], _prelu),
    ("Gemm", [1, 6], _renewed(7, "broadcast")),
    # What a training mode would compute is not asked for where there is but one output.
    ("BatchNormalization Dropout", [1, 6], _renewed(7, "is_test")),
    ("Cast", [1], _cast),
    ("Concat", [1], _concat),
    ("GRU", [1, 3], _renewed(7, "output_sequence")),
    ("LSTM RNN", [1], _renewed(7, "output_sequence")),
    ("Pad", [1], _pad),
    ("Reshape", [1], _reshape),
    ("Split", [1], _split),
    ("Tile", [1], _tile),
    ("Upsample", [1], _upsample),
    ("Upsample", [10], _renewed(9)),
    ("Scatter", [11], _renamed("ScatterElements", 11)),
    ("Scan", [8], _scan),
)
"""How to rewrite an operator of a version that the catalog lacks."""
