"""What rewrites ask of quantized values: their integers, scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ortolan.passes.matching import constant, only_user
from ortolan.passes.rewriting import Rewriter

__all__ = ["Quantized", "dequantized", "quantizer", "same_quantization"]

_BYTES = (ir.DataType.UINT8, ir.DataType.INT8)


@dataclass(frozen=True)
class Quantized:
    """Integers that stand for numbers.

    Attributes:
        value: the integers.
        scale: a constant, with one element, or one per entry of `axis`.
        zero: likewise, or None for 0.
        axis: None where there is one scale.
    """

    value: ir.Value
    scale: ir.Value
    zero: ir.Value | None
    axis: int | None

    def zero_point(self, rewriter: Rewriter, graph: ir.Graph) -> ir.Value:
        """The zero point as a value, made if it is left out."""
        if self.zero is not None:
            return self.zero
        scales, dtype = constant(self.scale), self.value.dtype
        assert scales is not None and dtype is not None
        zeros = np.zeros(scales.shape, dtype.numpy())
        return rewriter.constant(graph, zeros, f"{self.value.name}_zero_point")


def dequantized(value: ir.Value | None) -> Quantized | None:
    """What a DequantizeLinear makes a value of; None if its scale is computed, or for blocks."""
    node = value.producer() if value is not None else None
    return (
        _quantized(node, node.inputs[0]) if node is not None and _is(node, "Dequantize") else None
    )


def quantizer(value: ir.Value) -> tuple[ir.Node, Quantized] | None:
    """The QuantizeLinear that alone uses a value, with what it makes of it: one scale only."""
    node = only_user(value, ("QuantizeLinear",))
    if node is None or node.inputs[0] is not value:
        return None
    found = _quantized(node, node.outputs[0])
    return None if found is None or found.axis is not None else (node, found)


def same_quantization(a: Quantized, b: Quantized) -> bool:
    """Whether equal integers stand for equal numbers."""
    if a.value.dtype != b.value.dtype or a.axis != b.axis:
        return False
    scales = constant(a.scale), constant(b.scale)
    zeros = [0 if q.zero is None else constant(q.zero) for q in (a, b)]
    return np.array_equal(*scales) and zeros[1] is not None and np.array_equal(*zeros)  # type: ignore[arg-type]


def _is(node: ir.Node, kind: str) -> bool:
    return node.op_type == f"{kind}Linear" and node.domain == ""


def _quantized(node: ir.Node, integers: ir.Value | None) -> Quantized | None:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    scales = constant(node.inputs[1])
    if integers is None or node.inputs[1] is None or scales is None or integers.dtype is None:
        return None
    if zero is not None and constant(zero) is None:
        return None
    if node.attributes.get_int("block_size", 0) or scales.dtype != np.float32 or scales.ndim > 1:
        return None
    if integers.dtype not in (*_BYTES, ir.DataType.INT32):
        return None
    axis = None if scales.size == 1 else node.attributes.get_int("axis", 1)
    return Quantized(integers, node.inputs[1], zero, axis)
