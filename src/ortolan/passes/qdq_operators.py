"""Computes with integers where a model dequantizes, computes, and quantizes again.

    a -> DequantizeLinear -> Conv -> QuantizeLinear -> y      =>      a, w -> QLinearConv -> y
    w -> DequantizeLinear ---^

1. Conv, with weights that may have a scale per output channel, and a bias that is left out, or
   is int32 with the product of both scales: QLinearConv.
2. MatMul: QLinearMatMul.
3. Add and Mul: com.microsoft:QLinearAdd and QLinearMul.
4. AveragePool, GlobalAveragePool, LeakyRelu, Sigmoid: those of com.microsoft, where the target
   has them.
5. MatMul of dequantized values that is not quantized again: com.microsoft:MatMulIntegerToFloat.

As in onnxruntime: results are rounded once, and may differ by one step from those in float. Not
rewritten when scales or zero points are computed, input and output have different types, or what
is between has another user.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import constant
from ortolan.passes.quantized import Quantized, dequantized, quantizer
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_qdq_operators"]

_UNARY = {
    "AveragePool": "QLinearAveragePool", "GlobalAveragePool": "QLinearGlobalAveragePool",
    "LeakyRelu": "QLinearLeakyRelu", "Sigmoid": "QLinearSigmoid",
}  # fmt: skip
_BYTES = (ir.DataType.UINT8, ir.DataType.INT8)


def fuse_qdq_operators(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Makes integer operators; returns whether there were any."""
    return rewrite(model, target, _RULES, _fuse)


def _fuse(rewriter: Rewriter, node: ir.Node) -> bool:
    inputs = [dequantized(value) for value in node.inputs]
    operands = [item for item in inputs[:2] if item is not None]
    if not operands or len(operands) < min(len(node.inputs), 2):
        return False
    if any(item.value.dtype not in _BYTES for item in operands):
        return False
    output = quantizer(node.outputs[0])
    if output is None:
        return node.op_type == "MatMul" and _to_float(rewriter, node, operands)
    last, result = output
    if result.value.dtype != operands[0].value.dtype or operands[0].axis is not None:
        return False
    new = _RULES[node.op_type](rewriter, node, [*operands, *inputs[2:]], result)
    return new is not None and rewriter.replace(last, [new])


def _all(rewriter: Rewriter, node: ir.Node, item: Quantized) -> list[ir.Value | None]:
    """The three inputs that stand for a quantized one."""
    assert isinstance(node.graph, ir.Graph)
    return [item.value, item.scale, item.zero_point(rewriter, node.graph)]


def _conv(
    rewriter: Rewriter, node: ir.Node, items: list[Quantized | None], result: Quantized
) -> ir.Node | None:
    x, w, *more = items
    if x is None or w is None or w.axis not in (None, 0) or constant(w.value) is None:
        return None
    bias = more[0] if more else None
    if len(node.inputs) > 2 and node.inputs[2] is not None and bias is None:
        return None
    if bias is not None and not _is_bias(bias, x, w):
        return None
    inputs = [*_all(rewriter, node, x), *_all(rewriter, node, w), *_all(rewriter, node, result)[1:]]
    return rewriter.node(
        "QLinearConv", [*inputs, None if bias is None else bias.value],
        dict(node.attributes.items()),
    )  # fmt: skip


def _is_bias(bias: Quantized, x: Quantized, w: Quantized) -> bool:
    """Whether a bias has the scale that sums of products have."""
    scales = [constant(item.scale) for item in (bias, x, w)]
    zeros = None if bias.zero is None else constant(bias.zero)
    if bias.value.dtype != ir.DataType.INT32 or any(scale is None for scale in scales):
        return False
    if zeros is not None and zeros.any():
        return False
    wanted = np.multiply(scales[1].reshape(-1), scales[2].reshape(-1))  # type: ignore[union-attr]
    given = scales[0].reshape(-1)  # type: ignore[union-attr]
    return given.size in (1, wanted.size) and bool(np.allclose(given, wanted, rtol=1e-5, atol=0))


def _matmul(
    rewriter: Rewriter, node: ir.Node, items: list[Quantized | None], result: Quantized
) -> ir.Node | None:
    a, b = items[:2]
    if a is None or b is None or b.axis is not None:
        return None
    inputs = [*_all(rewriter, node, a), *_all(rewriter, node, b), *_all(rewriter, node, result)[1:]]
    return rewriter.node("QLinearMatMul", inputs)


def _binary(
    rewriter: Rewriter, node: ir.Node, items: list[Quantized | None], result: Quantized
) -> ir.Node | None:
    a, b = items[:2]
    if a is None or b is None or b.axis is not None or a.value.dtype != b.value.dtype:
        return None
    inputs = [*_all(rewriter, node, a), *_all(rewriter, node, b), *_all(rewriter, node, result)[1:]]
    return rewriter.node(f"QLinear{node.op_type}", inputs, domain=MICROSOFT)


def _unary(
    rewriter: Rewriter, node: ir.Node, items: list[Quantized | None], result: Quantized
) -> ir.Node | None:
    x = items[0]
    if x is None or any(k != 1 for k in node.attributes.get_ints("dilations", ())):
        return None  # Pooling of com.microsoft has no dilations.
    inputs = [*_all(rewriter, node, x), *_all(rewriter, node, result)[1:]]
    attributes = dict(node.attributes.items())
    return rewriter.node(_UNARY[node.op_type], inputs, attributes, domain=MICROSOFT)


def _to_float(rewriter: Rewriter, node: ir.Node, items: list[Quantized]) -> bool:
    """Case 5."""
    a, b = items
    weights = constant(b.value)
    if a.axis is not None or (b.axis is not None and (weights is None or weights.ndim != 2)):
        return False
    if b.axis not in (None, 1, -1):
        return False
    inputs = [a.value, b.value, a.scale, b.scale]
    zeros = [item.zero_point(rewriter, node.graph) for item in items]  # type: ignore[arg-type]
    return rewriter.replace(
        node, [rewriter.node("MatMulIntegerToFloat", [*inputs, *zeros], domain=MICROSOFT)]
    )


_Rule = Callable[[Rewriter, ir.Node, list[Quantized | None], Quantized], ir.Node | None]
_RULES: dict[str, _Rule] = {
    "Conv": _conv, "MatMul": _matmul, "Add": _binary, "Mul": _binary,
    **dict.fromkeys(_UNARY, _unary),
}  # fmt: skip
