"""Quantized models compute with integers: the rewrites by their cases, with onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ortolan.passes.dynamic_quantization import fuse_dynamic_quantization
from ortolan.passes.qdq_clean_up import clean_up_qdq
from ortolan.passes.qdq_operators import fuse_qdq_operators
from passes_lib import (
    Case,
    Everything,
    Nothing,
    Pass,
    check,
    compare,
    model_of,
    no,
    operators,
    prepare,
)

SCALES = (
    "float s = {0.5}, float t = {0.25}, float u = {4}, uint8 z = {7}, uint8 o = {120}, "
    "uint8 zero = {0}, int8 low = {-128}, int8 i = {0}"
)
WEIGHTS = (
    "uint8[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}, int32[2] b = {10, -20}, float bs = {0.125}, "
    "float[2] wt = {0.25, 0.5}, uint8[2] wz = {7, 8}, float[2] wb = {0.125, 0.25}, "
    "int32[2] bz = {0, 0}, uint8[3, 2] m = {1, 2, 3, 4, 5, 6}"
)


def image(parts: str, more: str = "", y: str = "uint8[A, B, C, D] y") -> str:
    """A graph on quantized images."""
    return f"g (uint8[N, 3, 4, 4] x) => ({y}) <{SCALES}, {WEIGHTS}{more}> {{ {parts} }}"


def rows(parts: str, y: str = "uint8[A, B] y", inputs: str = "uint8[N, 3] x") -> str:
    """A graph on quantized rows."""
    return f"g ({inputs}) => ({y}) <{SCALES}, {WEIGHTS}> {{ {parts} }}"


DX = "d = DequantizeLinear(x, s, z) "
CONV = DX + "e = DequantizeLinear(w, t, o) c = Conv(d, e) "
Q = "y = QuantizeLinear(c, u, o) "
OPERATORS = [
    Case("1: Conv", image(CONV + Q), "QLinearConv"),
    Case("1: bias", image(DX + "e = DequantizeLinear(w, t, o) f = DequantizeLinear(b, bs) "
         "c = Conv<pads=[1, 1, 1, 1]>(d, e, f) " + Q), "QLinearConv"),
    Case("1: a scale per channel", image(DX + "e = DequantizeLinear<axis=0>(w, wt, wz) "
         "f = DequantizeLinear<axis=0>(b, wb, bz) c = Conv(d, e, f) " + Q), "QLinearConv"),
    Case("2: MatMul", rows(DX + "e = DequantizeLinear(m, t, o) c = MatMul(d, e) " + Q),
         "QLinearMatMul"),
    Case("3: Add", rows("d = DequantizeLinear(x, s, z) e = DequantizeLinear(v, t) c = Add(d, e) "
         + Q, inputs="uint8[N, 3] x, uint8[N, 3] v"), "QLinearAdd"),
    Case("3: Mul", rows("d = DequantizeLinear(x, s, z) e = DequantizeLinear(v, t, o) "
         "c = Mul(d, e) " + Q, inputs="uint8[N, 3] x, uint8[N, 3] v"), "QLinearMul"),
    Case("4: AveragePool", image(DX + "c = AveragePool<kernel_shape=[2, 2]>(d) " + Q),
         "QLinearAveragePool"),
    Case("4: LeakyRelu", image(DX + "c = LeakyRelu<alpha=0.1>(d) " + Q), "QLinearLeakyRelu"),
    Case("5: MatMul to float", rows(DX + "e = DequantizeLinear(m, t, o) y = MatMul(d, e)",
         "float[A, B] y"), "MatMulIntegerToFloat"),
    Case("5: a scale per column", rows(DX + "e = DequantizeLinear<axis=1>(m, wt, wz) "
         "y = MatMul(d, e)", "float[A, B] y"), "MatMulIntegerToFloat"),
    no("another user", image(CONV + Q + "k = Abs(c)",
       y="uint8[A, B, C, D] y, float[A, B, C, D] k")),
    no("a scale that is fed", f"g (uint8[N, 3, 4, 4] x, float r) => (uint8[A, B, C, D] y) "
       f"<{SCALES}, {WEIGHTS}> {{ d = DequantizeLinear(x, r, z) e = DequantizeLinear(w, t, o) "
       f"c = Conv(d, e) {Q} }}"),
    no("another type", image(CONV + "y = QuantizeLinear(c, u, i)", y="int8[A, B, C, D] y")),
    no("a bias of another scale", image(DX + "e = DequantizeLinear(w, t, o) "
       "f = DequantizeLinear(b, s) c = Conv(d, e, f) " + Q)),
    no("a bias of floats", image(DX + "e = DequantizeLinear(w, t, o) c = Conv(d, e, wt) " + Q)),
    no("a window with gaps", image(DX + "c = AveragePool<kernel_shape=[2, 2], dilations=[2, 2]>(d) "
       + Q), opset=19),
    no("one operand in float", rows(DX + "c = Add(d, t) " + Q)),
]  # fmt: skip

CLEAN_UP = [
    Case("1: there and back", image(DX + "y = QuantizeLinear(d, s, z) k = Abs(y)",
         y="uint8[A, B, C, D] k"), "Abs"),
    Case("2: moves", image(DX + "c = Transpose(d) y = QuantizeLinear(c, s, z)"), "Transpose"),
    Case("2: takes the largest", image(DX + "c = MaxPool<kernel_shape=[2, 2]>(d) "
         "y = QuantizeLinear(c, s, z)"), "MaxPool"),
    Case("3: Relu", image("d = DequantizeLinear(x, s, z) c = Relu(d) "
         "y = QuantizeLinear(c, t, zero)"), "DequantizeLinear QuantizeLinear"),
    Case("3: Relu of int8", image("d = DequantizeLinear(x, s, z) c = Relu(d) "
         "y = QuantizeLinear(c, t, low)", y="int8[A, B, C, D] y"),
         "DequantizeLinear QuantizeLinear"),
    Case("3: Clip", image("d = DequantizeLinear(x, s, z) c = Clip(d, p, q) "
         "y = QuantizeLinear(c, t, zero)", ", float p = {0}, float q = {63.75}"),
         "DequantizeLinear QuantizeLinear"),
    no("a negative scale", image(DX + "c = Relu(d) y = QuantizeLinear(c, minus, zero)",
       ", float minus = {-1}")),
    no("the largest by a negative scale", image("d = DequantizeLinear(x, minus, z) "
       "c = MaxPool<kernel_shape=[2, 2]>(d) y = QuantizeLinear(c, minus, z)",
       ", float minus = {-1}")),
    no("other scales", image(DX + "c = Transpose(d) y = QuantizeLinear(c, t, z)")),
    no("other zero points", image(DX + "y = QuantizeLinear(d, s, o)")),
    no("there is less than 0", image(DX + "c = Relu(d) y = QuantizeLinear(c, t, o)")),
    no("there is more", image(DX + "c = Clip(d, p, q) y = QuantizeLinear(c, t, zero)",
       ", float p = {0}, float q = {60}")),
    no("another user", image(DX + "c = Transpose(d) y = QuantizeLinear(c, s, z) k = Abs(d)",
       y="uint8[A, B, C, D] y, float[N, 3, 4, 4] k")),
]  # fmt: skip

DYNAMIC = "g (uint8[N, 3] x, float[1] p) => (float[N, 2] y) " + f"<{SCALES}, {WEIGHTS}> {{ "
INTEGERS = "i0 = MatMulInteger(x, m, z, o) f = Cast<to=1>(i0) "
FUSED = [
    Case("1: one scale", DYNAMIC + INTEGERS + "r = Mul(p, t) y = Mul(f, r) }",
         "MatMulIntegerToFloat"),
    Case("1: a scale per column", DYNAMIC + INTEGERS + "r = Mul(wt, p) y = Mul(r, f) }",
         "MatMulIntegerToFloat"),
    Case("2: bias", DYNAMIC + INTEGERS + "r = Mul(p, t) k = Mul(f, r) y = Add(wt, k) }",
         "MatMulIntegerToFloat"),
    no("a scale per row of a vector", "g (uint8[3, 3] x, uint8[3] v, float[1] p, float[3] k) => "
       "(float[3] y) { i = MatMulInteger(x, v) f = Cast<to=1>(i) r = Mul(p, k) y = Mul(f, r) }"),
    no("a scale per row", DYNAMIC.replace("float[1] p", "float[N, 1] p") + INTEGERS
       + "r = Mul(p, t) y = Mul(f, r) }"),
    no("another user", DYNAMIC.replace("y)", "y, float[N, 2] k)") + INTEGERS
       + "r = Mul(p, t) y = Mul(f, r) k = Abs(f) }"),
]  # fmt: skip

ALL: list[tuple[Pass, list[Case]]] = [
    (fuse_qdq_operators, OPERATORS),
    (clean_up_qdq, CLEAN_UP),
    (fuse_dynamic_quantization, FUSED),
]


@pytest.mark.parametrize(
    ("change", "case"),
    [pytest.param(p, c, id=f"{p.__name__}-{c.name}") for p, cases in ALL for c in cases],
)
def test_case(change: Pass, case: Case) -> None:
    def run(model: ir.Model, target: object) -> bool:
        return change(model, Everything())

    check(case, run, step=1 if change is fuse_qdq_operators else 0)


def test_target_without_the_operator_gets_none_of_it() -> None:
    for change, cases in (ALL[0], ALL[2]):
        model = model_of(cases[0].body)
        prepare(model)
        before = operators(model)
        assert not change(model, Nothing())
        assert operators(model) == before


def test_one_step_is_the_limit() -> None:
    compare([np.array([1, 2], np.uint8)], [np.array([2, 2], np.uint8)], step=1)
    with pytest.raises(AssertionError):
        compare([np.array([1, 2], np.uint8)], [np.array([3, 2], np.uint8)], step=1)
    with pytest.raises(AssertionError):
        compare([np.array([1, 2], np.int64)], [np.array([2, 2], np.int64)])
