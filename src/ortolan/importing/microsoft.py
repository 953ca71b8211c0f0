"""Rewrites com.microsoft's operators on quantized tensors that consist of others.

    A, B, C, scales, zero points -> QGemm -> Y
    =>
    A, B -> MatMulInteger -> Add(C) -> Cast(float) -> Mul(scales) -> QuantizeLinear -> Y

Attention, embeddings and LSTM with quantized weights compute with the numbers that the weights
stand for; the sums are float then, where onnxruntime has integers in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ortolan.errors import NotImplemented as NotSupported
from ortolan.importing.element_types import label
from ortolan.importing.naming import make_names_unique
from ortolan.importing.rewriting import Editor

__all__ = ["MICROSOFT", "lower_microsoft"]

_DOMAIN = "com.microsoft"
_Rule: TypeAlias = Callable[[Editor], None]
_Values: TypeAlias = Sequence[ir.Value | None]


def lower_microsoft(model: ir.Model) -> None:
    """Rewrites the nodes that this file knows; types need not be known.

    Raises:
        NotImplemented: an image in channels_last order has an unknown number of dimensions.
    """
    found = [node for node in model.graph.all_nodes() if _is_known(node)]
    for node in found:
        MICROSOFT[node.op_type](Editor(node))
    if found:
        make_names_unique(model)


def _is_known(node: ir.Node) -> bool:
    if node.domain != _DOMAIN or node.op_type not in MICROSOFT:
        return False
    if node.op_type == "QLinearConv":
        flag = node.attributes.get("channels_last")
        return flag is not None and flag.as_int() != 0
    return True


def _input(edit: Editor, index: int) -> ir.Value | None:
    inputs = edit.node.inputs
    return inputs[index] if index < len(inputs) else None


def _transposed(edit: Editor, value: ir.Value | None, order: Sequence[int]) -> ir.Value:
    return edit.add("Transpose", 13, [value], [ir.AttrInt64s("perm", order)])


def _product_of_words(edit: Editor) -> None:
    """MatMulInteger16: integers of 32 bits hold the operands, and their sums wrap."""
    (result,) = edit.node.outputs
    are_unsigned = all(
        value is not None and value.dtype == ir.DataType.UINT16 for value in edit.node.inputs
    )
    to = result.dtype or (ir.DataType.UINT32 if are_unsigned else ir.DataType.INT32)
    a, b = (
        edit.add("Cast", 13, [value], [ir.AttrInt64("to", int(to))]) for value in edit.node.inputs
    )
    edit.finish([edit.add("MatMul", 13, [a, b])])


def _gemm(edit: Editor) -> None:
    a, scale_a, zero_a, b, scale_b, zero_b = edit.node.inputs[:6]
    for name, is_a in (("transA", True), ("transB", False)):
        flag = edit.node.attributes.get(name)
        if flag is not None and flag.as_int():
            a, b = (_transposed(edit, a, [1, 0]), b) if is_a else (a, _transposed(edit, b, [1, 0]))
    sums = edit.add("MatMulInteger", 10, [a, b, zero_a, zero_b])
    bias, scale, zero = (_input(edit, k) for k in (6, 7, 8))
    if bias is not None:
        sums = edit.add("Add", 7, [sums, bias])
    real = edit.add("Cast", 13, [sums], [ir.AttrInt64("to", int(ir.DataType.FLOAT))])
    factor = edit.add("Mul", 7, [scale_a, scale_b])
    alpha = edit.node.attributes.get("alpha")
    if alpha is not None and alpha.as_float() != 1:
        factor = edit.add("Mul", 7, [factor, edit.constant(np.array(alpha.as_float(), np.float32))])
    real = edit.add("Mul", 7, [real, factor])
    if scale is not None:
        real = edit.add("QuantizeLinear", 13, [real, scale, zero])
    edit.finish([real])


def _real(
    edit: Editor, value: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None
) -> ir.Value | None:
    """The numbers that a quantized operand stands for; a vector of scales belongs to columns."""
    if value is None:
        return None
    return edit.add("DequantizeLinear", 13, [value, scale, zero], [ir.AttrInt64("axis", 1)])


def _attention(edit: Editor) -> None:
    x, weight, bias, scale_x, scale_w, mask, zero_x, zero_w, past = (
        _input(edit, k) for k in range(9)
    )
    inputs: _Values = [
        _real(edit, x, scale_x, zero_x),
        _real(edit, weight, scale_w, zero_w),
        bias,
        mask,
        past,
    ]
    edit.finish(edit.same("Attention", inputs))


def _embedding(edit: Editor) -> None:
    """Scales follow the five quantized operands and the mask, zero points the scales."""
    real = [_real(edit, *(_input(edit, k) for k in (2 + i, 8 + i, 13 + i))) for i in range(5)]
    inputs: _Values = [_input(edit, 0), _input(edit, 1), *real, _input(edit, 7)]
    edit.finish(edit.same("EmbedLayerNormalization", inputs))


def _lstm(edit: Editor) -> None:
    """The weights lie transposed; their scales are one per direction, or one per column of it."""
    x, w, r, *others = edit.node.inputs[:8]
    scales = [_input(edit, k) for k in range(8, 12)]
    real = [
        _transposed(edit, _direction_scaled(edit, value, scale, zero), [0, 2, 1])
        for value, scale, zero in ((w, *scales[:2]), (r, *scales[2:]))
    ]
    results = edit.add_all(
        "LSTM", 7, [x, *real, *others], list(edit.node.attributes.values()), len(edit.node.outputs)
    )
    edit.finish(results)


def _direction_scaled(
    edit: Editor, value: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None
) -> ir.Value:
    """[directions][inputs][columns] with scales [directions] or [directions][columns]."""
    shape = edit.constant(np.array([0, 1, -1], np.int64))
    float_ = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    numbers = [edit.add("Cast", 13, [v], [float_]) for v in (value, zero)]
    zeros = edit.add("Reshape", 5, [numbers[1], shape])
    scales = edit.add("Reshape", 5, [scale, shape])
    return edit.add("Mul", 7, [edit.add("Sub", 7, [numbers[0], zeros]), scales])


def _conv(edit: Editor) -> None:
    """With images in channels_last order, around which they are turned."""
    x, weights = _input(edit, 0), _input(edit, 3)
    ranks = [len(v.shape) for v in (x, weights) if v is not None and v.shape is not None]
    kernel = edit.node.attributes.get("kernel_shape")
    if kernel is not None:
        ranks.append(len(kernel.as_ints()) + 2)
    if not ranks:
        raise NotSupported(
            f"{label(edit.node)}: neither the rank of its image nor that of its weights is known: "
            "give it a kernel_shape"
        )
    rank = ranks[0]
    edit.drop("channels_last")
    image = _transposed(edit, x, [0, rank - 1, *range(1, rank - 1)])
    attributes = list(edit.node.attributes.values())
    (y,) = edit.add_all("QLinearConv", 10, [image, *edit.node.inputs[1:]], attributes, 1)
    edit.finish([_transposed(edit, y, [0, *range(2, rank), 1])])


MICROSOFT: Mapping[str, _Rule] = {
    "DynamicQuantizeLSTM": _lstm,
    "MatMulInteger16": _product_of_words,
    "QAttention": _attention,
    "QEmbedLayerNormalization": _embedding,
    "QGemm": _gemm,
    "QLinearConv": _conv,
}
"""How to rewrite an operator; QLinearConv only with channels_last."""
