"""Computes in a wider type where an operator has no kernel for the type of a node.

In: nodes with types. Out: the same with casts around the nodes whose types few models use; results
are those of the standard, apart from double computed in float, which costs digits.

    uint32 x -> ReduceSum -> y    =>    x -> Cast(int64) -> ReduceSum -> Cast(uint32) -> y

Some need more than casts: a maximum of uint64, for example, is taken of signed numbers that are
moved by half of the range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ortolan import catalog
from ortolan.catalog.types import DataType
from ortolan.importing.naming import make_names_unique
from ortolan.importing.rewriting import Editor

__all__ = ["RULES", "widen_types"]

_T: TypeAlias = ir.DataType
_Rule: TypeAlias = Callable[[Editor, _T], None]
"""Replaces a node; the type is that of its first operand without a kernel."""


def widen_types(model: ir.Model) -> bool:
    """Rewrites nodes for whose types the catalog has no kernel but this file a rule.

    Args:
        model: every value has a type, every node a version.

    Returns:
        Whether there were any; new values have no types yet.
    """
    found = []
    for node in model.graph.all_nodes():
        dtype = next(iter(_unsupported(node).values()), None)
        if dtype is not None and dtype in _RULES_BY_NAME.get(node.op_type, {}):
            found.append((node, dtype))
    for node, dtype in found:
        _RULES_BY_NAME[node.op_type][dtype](Editor(node), dtype)
    if found:
        make_names_unique(model)
    return bool(found)


def _unsupported(node: ir.Node) -> dict[int, _T]:
    """The operands whose variables do not allow their types."""
    operator = catalog.find("", node.op_type, node.version or 1) if node.domain == "" else None
    wrong: dict[int, _T] = {}
    for k, value in enumerate(node.inputs if operator is not None and operator.inputs else ()):
        assert operator is not None
        allowed = operator.types.get(operator.inputs[min(k, len(operator.inputs) - 1)].variable)
        if value is None or not isinstance(value.type, ir.TensorType) or allowed is None:
            continue
        element = DataType.__members__.get(value.type.dtype.name)
        if element is not None and element not in allowed:
            wrong[k] = value.type.dtype
    return wrong


def _cast(edit: Editor, value: ir.Value | None, to: _T) -> ir.Value:
    return edit.add("Cast", 19, [value], [ir.AttrInt64("to", int(to))])


def _bit_cast(edit: Editor, value: ir.Value | None, to: _T) -> ir.Value:
    return edit.add("BitCast", 26, [value], [ir.AttrInt64("to", int(to))])


def _again(
    edit: Editor, inputs: Sequence[ir.Value | None], name: str = "", version: int = 0
) -> Sequence[ir.Value]:
    """The node again with other operands; also as another operator."""
    node = edit.node
    return edit.add_all(
        name or node.op_type,
        version or node.version or 1,
        inputs,
        list(node.attributes.values()),
        len(node.outputs),
    )


def _through(to: _T, name: str = "", version: int = 0) -> _Rule:
    """All operands and results of the type become another type for the computation."""

    def rule(edit: Editor, dtype: _T) -> None:
        wrong = _unsupported(edit.node)
        inputs = [
            _cast(edit, value, to) if k in wrong else value
            for k, value in enumerate(edit.node.inputs)
        ]
        results = _again(edit, inputs, name, version)
        edit.finish(
            [
                _cast(edit, value, dtype) if old.dtype == dtype and old.name else value
                for value, old in zip(results, edit.node.outputs, strict=True)
            ]
        )

    return rule


def _only_inputs(to: _T) -> _Rule:
    """Operands of the type become another one; results have types of their own."""

    def rule(edit: Editor, dtype: _T) -> None:
        for k in _unsupported(edit.node):
            edit.replace_input(k, _cast(edit, edit.node.inputs[k], to))

    return rule


def _unsigned_sum_of_sizes(edit: Editor, dtype: _T) -> None:
    """ReduceL1 of what is never negative."""
    version = 13 if (edit.node.version or 1) >= 18 else 11
    _through(_T.INT64, "ReduceSum", version)(edit, dtype)


def _unsigned_extreme(edit: Editor, dtype: _T) -> None:
    """The order of uint64 is that of int64 moved by half of the range."""
    half = edit.constant(np.array(np.iinfo(np.int64).min))
    x, *axes = edit.node.inputs
    moved = edit.add("Add", 7, [_cast(edit, x, _T.INT64), half])
    (extreme,) = _again(edit, [moved, *axes])
    edit.finish([_cast(edit, edit.add("Add", 7, [extreme, half]), dtype)])


def _prelu(edit: Editor, dtype: _T) -> None:
    x, slope = edit.node.inputs
    zero = _cast(edit, edit.integer(0), dtype)
    is_negative = edit.add("Less", 9, [x, zero])
    edit.finish([edit.add("Where", 9, [is_negative, edit.add("Mul", 7, [x, slope]), x])])


def _gemm(edit: Editor, dtype: _T) -> None:
    """With factors of 1 exact as a product of integers, else in double."""
    node = edit.node
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if factors != [1.0, 1.0]:
        _through(_T.DOUBLE)(edit, dtype)
        return
    transposed = [node.attributes.get("transA"), node.attributes.get("transB")]
    a, b = (
        edit.add("Transpose", 13, [value], [ir.AttrInt64s("perm", [1, 0])])
        if flag is not None and flag.as_int()
        else value
        for value, flag in zip(node.inputs[:2], transposed, strict=True)
    )
    result = edit.add("MatMul", 9, [a, b])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = edit.add("Add", 7, [result, node.inputs[2]])
    edit.finish([result])


def _quantized_product(edit: Editor, dtype: _T) -> None:
    """QLinearMatMul of float8 in float."""
    a, b, y = edit.node.inputs[:3], edit.node.inputs[3:6], edit.node.inputs[6:8]
    left, right = (edit.add("DequantizeLinear", 19, operand) for operand in (a, b))
    product = edit.add("MatMul", 13, [left, right])
    edit.finish([edit.add("QuantizeLinear", 19, [product, *y])])


def _resize(edit: Editor, dtype: _T) -> None:
    """Nearest neighbours are copies: wide types take the place of float, or of two."""
    node = edit.node
    x = node.inputs[0]
    own = x.dtype if x is not None else None
    mode = node.attributes.get("mode")
    is_nearest = mode is None or mode.as_string() == "nearest"
    transformation = node.attributes.get("coordinate_transformation_mode")
    fills = transformation is not None and transformation.as_string() == "tf_crop_and_resize"
    others = [
        _cast(edit, value, _T.FLOAT) if value is not None and value.dtype == _T.DOUBLE else value
        for value in node.inputs[1:]
    ]
    if not is_nearest or fills or dtype.itemsize < 4 or own != dtype:
        x = _cast(edit, x, _T.FLOAT) if own not in (None, _T.FLOAT) else x
        (y,) = _again(edit, [x, *others])
        edit.finish([y if own is None or own == _T.FLOAT else _cast(edit, y, own)])
    elif dtype.itemsize == 4:
        (y,) = _again(edit, [_bit_cast(edit, x, _T.FLOAT), *others])
        edit.finish([_bit_cast(edit, y, dtype)])
    else:
        edit.finish([_resize_halves(edit, dtype, others)])


def _resize_halves(edit: Editor, dtype: _T, others: Sequence[ir.Value | None]) -> ir.Value:
    bits = _bit_cast(edit, edit.node.inputs[0], _T.UINT64)
    shift = edit.constant(np.array(32, np.uint64))
    upper = edit.add("BitShift", 11, [bits, shift], [ir.AttrString("direction", "RIGHT")])
    halves = []
    for half in (upper, bits):
        word = _bit_cast(edit, _cast(edit, half, _T.UINT32), _T.FLOAT)
        (resized,) = _again(edit, [word, *others])
        halves.append(_cast(edit, _bit_cast(edit, resized, _T.UINT32), _T.UINT64))
    left = edit.add("BitShift", 11, [halves[0], shift], [ir.AttrString("direction", "LEFT")])
    return _bit_cast(edit, edit.add("BitwiseOr", 18, [left, halves[1]]), dtype)


def _rules(types: Sequence[str], rule: _Rule) -> dict[_T, _Rule]:
    return {ir.DataType[name.upper()]: rule for name in types}


_FLOAT8 = "float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz".split()
_SMALL = "int8 uint8 int16 uint16".split()
_MODULO = _rules(["uint32", "uint64"], _through(_T.INT64))
_IN_DOUBLE = _rules("int32 int64 uint32 uint64".split(), _through(_T.DOUBLE))
_IN_FLOAT = _rules(["double"], _through(_T.FLOAT))
_EXTREME = {_T.UINT32: _through(_T.INT64), _T.UINT64: _unsigned_extreme}

_RULES_BY_NAME: Mapping[str, Mapping[_T, _Rule]] = {
    "ReduceSum": _MODULO,
    "ReduceProd": _MODULO,
    "ReduceSumSquare": _MODULO,
    "ReduceL1": {_T.UINT32: _through(_T.INT64), _T.UINT64: _unsigned_sum_of_sizes},
    "ReduceL2": _rules(["uint32", "uint64"], _through(_T.DOUBLE)),
    "ReduceMean": {_T.UINT32: _through(_T.INT64), _T.UINT64: _through(_T.DOUBLE)},
    "ReduceMax": _EXTREME,
    "ReduceMin": _EXTREME,
    "ReduceLogSum": _IN_DOUBLE,
    "ReduceLogSumExp": _IN_DOUBLE,
    "PRelu": _rules("int32 int64 uint32 uint64".split(), _prelu),
    "Gemm": _rules("int32 int64 uint32 uint64".split(), _gemm),
    "Erf": _rules([*_SMALL, *"int32 int64 uint32 uint64".split()], _through(_T.DOUBLE)),
    "Pow": _rules([*_SMALL, "uint32", "uint64"], _only_inputs(_T.INT64)),
    "IsNaN": _rules(_FLOAT8, _only_inputs(_T.FLOAT)),
    "IsInf": _rules(_FLOAT8, _only_inputs(_T.FLOAT)),
    "Dropout": _rules(_FLOAT8, _only_inputs(_T.FLOAT)),
    "Unique": _rules(["bool"], _through(_T.UINT8)),
    "QLinearMatMul": _rules(_FLOAT8, _quantized_product),
    "Resize": _rules([*_SMALL, *"bool int32 int64 uint32 uint64 double".split()], _resize),
    "Upsample": _rules([*_SMALL, *"bool int32 int64 uint32 uint64 double".split()], _resize),
    "Col2Im": _rules(["bool"], _through(_T.INT32)),
    "Attention": _rules([*_SMALL, *"int32 int64 uint32 uint64 double".split()], _through(_T.FLOAT)),
    "Conv": _IN_FLOAT,
    "ConvTranspose": _IN_FLOAT,
    "LSTM": _IN_FLOAT,
    "GRU": _IN_FLOAT,
    "RNN": _IN_FLOAT,
}

RULES: Mapping[str, frozenset[str]] = {
    name: frozenset(dtype.name.lower() for dtype in rules) for name, rules in _RULES_BY_NAME.items()
}
"""By operator, the types that are computed in others."""
