"""The rewrites of level extended, each by its numbered cases and by what it must leave alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ortolan.passes.bias_gelu import fuse_bias_gelu
from ortolan.passes.conv_before_resize import move_conv_before_resize
from ortolan.passes.conv_residual import fuse_conv_residual
from ortolan.passes.fast_gelu import fuse_fast_gelu
from ortolan.passes.fused_matmul import fuse_matmul_operands
from ortolan.passes.gelu import fuse_gelu
from ortolan.passes.gemm_activation import fuse_gemm_activation
from ortolan.passes.hard_swish import fuse_hard_swish
from ortolan.passes.layer_norm import fuse_layer_norm
from ortolan.passes.quick_gelu import fuse_quick_gelu
from ortolan.passes.rms_norm import fuse_rms_norm
from ortolan.passes.skip_layer_norm import fuse_skip_layer_norm
from passes_lib import Case, Everything, Nothing, Pass, check, model_of, no, operators, prepare

SCALE = (
    "float[4] s = {1, -2, 0.5, 3}, float[4] b = {1, 2, 3, 4}, float e = {0.001}, float two = {2}"
)


def norm(parts: str, opset: int = 17, extra: str = "", y: str = "float[N, M, 4] y") -> str:
    """A graph with the constants of a normalization."""
    axes = ", int64[1] last = {-1}" if opset >= 18 else ""
    return f"g (float[N, M, 4] x) => ({y}) <{SCALE}{axes}{extra}> {{ {parts} }}"


MEAN = "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) "
ROOT = "q = Pow(d, two) v = ReduceMean<axes=[-1]>(q) a = Add(v, e) r = Sqrt(a) "
LAYER_NORM = [
    Case("1: Pow and Div", norm(MEAN + ROOT + "n = Div(d, r) k = Mul(s, n) y = Add(k, b)"),
         "LayerNormalization"),
    Case("1: opset 11", norm(MEAN + ROOT + "n = Div(d, r) k = Mul(s, n) y = Add(k, b)"),
         "LayerNormalization", opset=11),
    Case("1: Mul and Reciprocal", norm(
        MEAN + "q = Mul(d, d) v = ReduceMean<axes=[-1]>(q) a = Add(e, v) r = Sqrt(a) "
        "i = Reciprocal(r) n = Mul(i, d) k = Mul(s, n) y = Add(k, b)"), "LayerNormalization"),
    Case("1: axes are an input", norm(
        "m = ReduceMean(x, last) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, last) "
        "a = Add(v, e) r = Sqrt(a) n = Div(d, r) k = Mul(s, n) y = Add(k, b)", 18),
        "LayerNormalization", opset=18),
    Case("1: two axes", "g (float[N, 2, 2] x) => (float[N, 2, 2] y)"
         "<float[2, 2] s = {1, -2, 0.5, 3}, float e = {0.001}, float two = {2}> {"
         "m = ReduceMean<axes=[1, 2]>(x) d = Sub(x, m) q = Pow(d, two) "
         "v = ReduceMean<axes=[1, 2]>(q) a = Add(v, e) r = Sqrt(a) n = Div(d, r) y = Mul(s, n) }",
         "LayerNormalization"),
    Case("2: as TensorFlow writes it", norm(
        "m = ReduceMean<axes=[2]>(x) d = Sub(m, x) q = Mul(d, d) v = ReduceMean<axes=[2]>(q) "
        "a = Add(v, e) r = Sqrt(a) i = Reciprocal(r) f = Mul(i, s) t = Mul(f, x) u = Mul(f, m) "
        "w = Sub(b, u) y = Add(t, w)"), "LayerNormalization"),
    Case("3: without a bias", norm(MEAN + ROOT + "n = Div(d, r) k = Mul(s, n) y = Abs(k)"),
         "LayerNormalization Abs"),
    no("the variance is of columns", "g (float[4, 4] x) => (float[4, 4] y) <" + SCALE + "> { "
       + MEAN + ROOT.replace("axes=[-1]", "axes=[-1], keepdims=0")
       + "n = Div(d, r) y = Mul(s, n) }"),
    no("sizes are not known", "g (float[N, M] x) => (float[N, M] y) <float[1] s = {2}, "
       "float e = {0.001}, float two = {2}> {" + MEAN + ROOT + "n = Div(d, r) y = Mul(s, n) }"),
    no("another axis", norm("m = ReduceMean<axes=[1]>(x) d = Sub(x, m) q = Pow(d, two) "
       "v = ReduceMean<axes=[1]>(q) a = Add(v, e) r = Sqrt(a) n = Div(d, r) y = Mul(s, n)")),
    no("two axes that differ", norm(MEAN + "q = Pow(d, two) v = ReduceMean<axes=[1]>(q) "
       "a = Add(v, e) r = Sqrt(a) n = Div(d, r) y = Mul(s, n)")),
    no("another user", norm(MEAN + ROOT + "n = Div(d, r) y = Mul(s, n) z = Abs(d)",
       y="float[N, M, 4] y, float[N, M, 4] z")),
    no("a wide epsilon", norm(MEAN + ROOT.replace("e)", "w)") + "n = Div(d, r) y = Mul(s, n)",
       extra=", float[1, 1, 1, 1] w = {0.001}", y="float[1, N, M, 4] y")),
    no("a cube", norm(MEAN + "q = Pow(d, three) p = Abs(q) v = ReduceMean<axes=[-1]>(p) "
       "a = Add(v, e) r = Sqrt(a) n = Div(d, r) y = Mul(s, n)", extra=", float three = {3}")),
]  # fmt: skip

RMS_NORM = [
    Case(f"1: {square} {quotient}", norm(
        f"q = {square} v = ReduceMean<axes=[-1]>(q) a = Add(v, e) r = Sqrt(a) {quotient} "
        "y = Mul(n, s)", extra=", float one = {1}"), "SimplifiedLayerNormalization")
    for square in ("Pow(x, two)", "Mul(x, x)")
    for quotient in ("n = Div(x, r)", "i = Reciprocal(r) n = Mul(i, x)",
                     "i = Div(one, r) n = Mul(x, i)")
] + [
    Case("1: of the standard", norm(
        "q = Mul(x, x) v = ReduceMean(q, last) a = Add(v, e) r = Sqrt(a) n = Div(x, r) "
        "y = Mul(n, s)", 23), "RMSNormalization", opset=23),
    no("another user", norm("q = Mul(x, x) v = ReduceMean<axes=[-1]>(q) a = Add(v, e) r = Sqrt(a) "
       "n = Div(x, r) y = Mul(n, s) z = Abs(n)", y="float[N, M, 4] y, float[N, M, 4] z")),
    no("another axis", norm("q = Mul(x, x) v = ReduceMean<axes=[1]>(q) a = Add(v, e) r = Sqrt(a) "
       "n = Div(x, r) y = Mul(n, s)")),
]  # fmt: skip

SKIP = [
    Case("1: layer norm", "g (float[N, M, 4] x) => (float[N, M, 4] y) <" + SCALE + "> "
         "{ z = Abs(x) t = Add(x, z) y = LayerNormalization<epsilon=0.01>(t, s, b) }",
         "Abs SkipLayerNormalization"),
    Case("2: simplified", "g (float[N, M, 4] x) => (float[N, M, 4] y) <" + SCALE + "> "
         "{ z = Abs(x) t = Add(x, z) y = SimplifiedLayerNormalization<epsilon=0.01>(t, s) }",
         "Abs SkipSimplifiedLayerNormalization"),
    Case("3: bias", "g (float[N, M, 4] x) => (float[N, M, 4] y) <" + SCALE + "> "
         "{ z = Abs(x) u = Add(b, z) t = Add(x, u) y = LayerNormalization(t, s, b) }",
         "Abs SkipLayerNormalization"),
    Case("4: the sum", "g (float[N, M, 4] x) => (float[N, M, 4] y) <" + SCALE + "> "
         "{ z = Abs(x) t = Add(x, z) n = LayerNormalization(t, s, b) y = Sub(n, t) }",
         "Abs SkipLayerNormalization Sub"),
    no("shapes differ", "g (float[N, M, 4] x, float[M, 4] z) => (float[N, M, 4] y) <" + SCALE + "> "
       "{ t = Add(x, z) y = LayerNormalization(t, s, b) }"),
    no("the sum is an output", "g (float[N, M, 4] x) => (float[N, M, 4] y, float[N, M, 4] t) <"
       + SCALE + "> { z = Abs(x) t = Add(x, z) y = LayerNormalization(t, s, b) }"),
    no("a user before", "g (float[N, M, 4] x) => (float[N, M, 4] y, float[N, M, 4] w) <"
       + SCALE + "> { z = Abs(x) t = Add(x, z) w = Neg(t) y = LayerNormalization(t, s, b) }"),
    no("one scale for all", "g (float[N, M, 4] x, float[1] k) => (float[N, M, 4] y) "
       "{ z = Abs(x) t = Add(x, z) y = LayerNormalization(t, k) }"),
    no("a bias per row", "g (float[N, 3, 4] x, float[3, 1] k) => (float[N, 3, 4] y) <" + SCALE
       + "> { z = Abs(x) t = Add(x, z) y = LayerNormalization(t, s, k) }"),
    no("four dimensions", "g (float[N, M, 1, 4] x) => (float[N, M, 1, 4] y) <" + SCALE + "> "
       "{ z = Abs(x) t = Add(x, z) y = LayerNormalization(t, s, b) }"),
    no("the mean is used", "g (float[N, M, 4] x) => (float[N, M, 4] y, float[N, M, 1] w) <"
       + SCALE + "> { z = Abs(x) t = Add(x, z) y, w = LayerNormalization(t, s, b) }"),
]  # fmt: skip

HALF = "float h = {0.5}, float one = {1}, float root = {1.4142135}, float inv = {0.70710677}"


def gelu(parts: str, y: str = "float[N, 4] y") -> str:
    """A graph with the constants of GELU."""
    return (
        f"g (float[N, 4] x) => ({y}) <{HALF}, float k = {{0.044715}}, float c = {{0.79788456}}, "
        f"float three = {{3}}, float[4] b = {{1, 2, 3, 4}}, float a = {{1.702}}> {{ {parts} }}"
    )


GELU = [
    Case(f"1: {part} {end}", gelu(f"p = {part} e = Erf(p) s = Add(one, e) {end}"), "Gelu")
    for part in ("Div(x, root)", "Mul(inv, x)")
    for end in ("i = Mul(s, x) y = Mul(h, i)", "i = Mul(x, h) y = Mul(i, s)",
                "i = Mul(s, h) y = Mul(i, x)")
] + [
    Case("opset 20", gelu("p = Div(x, root) e = Erf(p) s = Add(one, e) i = Mul(x, s) y = "
       "Mul(i, h)"),
         "Gelu", opset=20),
    no("another user", gelu("p = Div(x, root) e = Erf(p) s = Add(one, e) i = Mul(x, s) "
       "y = Mul(i, h) z = Abs(e)", "float[N, 4] y, float[N, 4] z")),
    Case("numbers with dimensions", gelu("p = Div(x, root) e = Erf(p) s = Add(wide, e) "
         "i = Mul(x, s) y = Mul(i, h)").replace("<", "<float[1, 1] wide = {1}, ", 1), "Gelu"),
    no("a number with more dimensions", gelu("p = Div(x, root) e = Erf(p) s = Add(wide, e) "
       "i = Mul(x, s) y = Mul(i, h)", "float[1, N, 4] y").replace(
       "<", "<float[1, 1, 1] wide = {1}, ", 1)),
    no("another factor", gelu("p = Div(x, root) e = Erf(p) s = Add(h, e) i = Mul(x, s) "
       "y = Mul(i, h)")),
]  # fmt: skip

CUBES = (
    "u = Pow(x, three) t = Mul(u, k) i = Add(x, t) g = Mul(i, c)",
    "q = Mul(x, x) u = Mul(x, q) t = Mul(k, u) i = Add(t, x) g = Mul(c, i)",
    "q = Mul(x, x) t = Mul(q, k) f = Add(one, t) w = Mul(x, c) g = Mul(w, f)",
    "q = Mul(k, x) u = Mul(x, q) t = Mul(x, u) i = Add(x, t) g = Mul(c, i)",
    "q = Mul(x, k) t = Mul(q, x) f = Add(one, t) w = Mul(x, c) g = Mul(w, f)",
)
FAST_GELU = [
    Case(f"1: {cube}", gelu(f"{cube} n = Tanh(g) s = Add(n, one) {end}"), "FastGelu")
    for cube in CUBES
    for end in ("j = Mul(x, h) y = Mul(j, s)", "j = Mul(x, s) y = Mul(j, h)",
                "j = Mul(s, h) y = Mul(x, j)")
] + [
    Case("opset 20", gelu(CUBES[0] + " n = Tanh(g) s = Add(n, one) j = Mul(x, h) y = Mul(j, s)"),
         "Gelu", opset=20),
    no("another user", gelu(CUBES[0] + " n = Tanh(g) s = Add(n, one) j = Mul(x, h) y = Mul(j, s)"
       " z = Abs(n)", "float[N, 4] y, float[N, 4] z")),
]  # fmt: skip

BIAS_GELU = [
    Case("1: Gelu", gelu("t = Add(b, x) y = com.microsoft.Gelu(t)"), "BiasGelu"),
    Case("2: FastGelu", gelu("t = Add(x, b) y = com.microsoft.FastGelu(t)"), "FastGelu"),
    no("no column", gelu("t = Add(x, one) y = com.microsoft.Gelu(t)")),
    no("an input", "g (float[N, 4] x, float[4] b) => (float[N, 4] y) "
       "{ t = Add(x, b) y = com.microsoft.Gelu(t) }"),
    no("another user", gelu("t = Add(x, b) y = com.microsoft.Gelu(t) z = Abs(t)",
       "float[N, 4] y, float[N, 4] z")),
]  # fmt: skip

QUICK_GELU = [
    Case("1: SiLU", gelu("g = Sigmoid(x) y = Mul(g, x)"), "QuickGelu"),
    Case("2: alpha", gelu("t = Mul(a, x) g = Sigmoid(t) y = Mul(x, g)"), "QuickGelu"),
    no("another user", gelu("g = Sigmoid(x) y = Mul(g, x) z = Abs(g)",
       "float[N, 4] y, float[N, 4] z")),
    no("another value", gelu("w = Abs(x) g = Sigmoid(x) y = Mul(g, w)")),
    no("alpha is a double", "g (double[N] x) => (double[N] y) <double a = {1.702}> "
       "{ t = Mul(a, x) g = Sigmoid(t) y = Mul(x, g) }"),
]  # fmt: skip

SWISH = "float three = {3}, float zero = {0}, float six = {6}, float sixth = {0.16666667}"


def swish(parts: str, opset: int = 17) -> str:
    """A graph with the constants of HardSwish."""
    return f"g (float[N, 4] x) => (float[N, 4] y) <{SWISH}> {{ s = Add(x, three) {parts} }}"


HARD_SWISH = [
    Case("1: HardSigmoid", swish("c = Clip(s, zero, six) y = Div(c, six)"), "HardSigmoid"),
    Case("1: by Mul", swish("c = Clip(s, zero, six) y = Mul(c, sixth)"), "HardSigmoid"),
    Case("2: opset 9", swish("c = Clip<min=0.0, max=6.0>(s) p = Mul(x, c) y = Div(p, six)"),
         "HardSigmoid Mul", opset=9),
    Case("3: HardSwish", swish("c = Clip(s, zero, six) p = Mul(c, x) y = Mul(p, sixth)"),
         "HardSwish"),
    Case("3: the gate first", swish("c = Clip(s, zero, six) p = Mul(c, sixth) y = Mul(p, x)"),
         "HardSwish"),
    no("double", swish("c = Clip(s, zero, six) y = Div(c, six)").replace("float", "double")),
    no("another bound", swish("c = Clip(s, zero, three) y = Div(c, six)")),
    no("another value", swish("c = Clip(s, zero, six) w = Mul(c, c) y = Div(w, six)")),
]  # fmt: skip

W = "<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] b = {5, 6}, float[2, 1, 1] k = {1, 2}>"
RESIDUAL = [
    Case("1: Add", f"g (float[N, 2, 3, 3] x) => (float[N, 2, 3, 3] y) {W}"
         "{ c = Conv(x, w, b) y = Add(x, c) }", "FusedConv"),
    Case("2: Relu", f"g (float[N, 2, 3, 3] x) => (float[N, 2, 3, 3] y) {W}"
         "{ z = Abs(x) c = Conv(z, w) s = Add(c, x) y = Relu(s) }", "Abs FusedConv"),
    no("a constant", f"g (float[N, 2, 3, 3] x) => (float[N, 2, 3, 3] y) {W}"
       "{ c = Conv(x, w, b) y = Add(k, c) }"),
    no("it may stretch", f"g (float[N, 2, 3, 3] x, float[M, 2, 3, 3] z) => (float[A, 2, 3, 3] y) "
       f"{W} {{ c = Conv(x, w, b) y = Add(z, c) }}",
       feeds={"z": np.ones((1, 2, 3, 3), np.float32)}),
    no("another user", f"g (float[N, 2, 3, 3] x) => (float[N, 2, 3, 3] y, float[N, 2, 3, 3] z) {W}"
       "{ c = Conv(x, w, b) y = Add(x, c) z = Abs(c) }"),
]  # fmt: skip

GEMM = [
    Case(f"{k}: {call}", "g (float[N, 2] x, float[2, 3] w, float[3] b) => (float[N, 3] y) "
         f"{{ m = Gemm<alpha=0.5>(x, w, b) y = {call}(m) }}", "FusedGemm")
    for k, call in ((1, "Relu"), (1, "Tanh"), (1, "Sigmoid"), (2, "LeakyRelu<alpha=0.3>"),
                    (2, "Elu"), (2, "HardSigmoid<beta=0.4>"))
] + [
    no("another user", "g (float[N, 2] x, float[2, 3] w) => (float[N, 3] y, float[N, 3] z) "
       "{ m = Gemm(x, w) y = Relu(m) z = Abs(m) }"),
]  # fmt: skip

MATMUL = [
    Case("1: transposes", "g (float[2, 3, N] x, float[2, 4, 3] w) => (float[A, B, C] y) "
         "{ p = Transpose<perm=[0, 2, 1]>(x) q = Transpose<perm=[0, 2, 1]>(w) y = MatMul(p, q) }",
         "FusedMatMul"),
    Case("2: scales", "g (float[2, N, 3] x, float[2, 3, 4] w) => (float[2, N, 4] y) "
         "<float s = {3}, float[1] t = {4}> { m = MatMul(x, w) k = Mul(s, m) y = Div(k, t) }",
         "FusedMatMul"),
    no("another order", "g (float[3, 2, N] x, float[2, 3, 4] w) => (float[A, B, C] y) "
       "{ p = Transpose<perm=[1, 2, 0]>(x) y = MatMul(p, w) }"),
    no("a transpose with another user", "g (float[2, 3, N] x, float[2, 3, 4] w) => "
       "(float[A, B, C] y, float[A, B, D] z) "
       "{ p = Transpose<perm=[0, 2, 1]>(x) y = MatMul(p, w) z = Abs(p) }"),
    no("quotient", "g (float[2, N, 3] x, float[2, 3, 4] w) => (float[2, N, 4] y) "
       "<float s = {3}> { m = MatMul(x, w) y = Div(s, m) }"),
    no("a number that no attribute holds", "g (float[N, 3] x, float[3, 4] w) => (float[N, 4] y) "
       "<float s = {1e-40}> { m = MatMul(x, w) y = Div(m, s) }",
       feeds={"x": np.zeros((2, 3), np.float32)}),
    no("a double", "g (double[N, 3] x, double[3, 4] w) => (double[N, 4] y) "
       "<double s = {0.1}> { m = MatMul(x, w) y = Mul(s, m) }"),
    no("a batch behind the rows", "g (float[2, 3, 4] x, float[4, 3, 5] w) => (float[A, B, C] y) "
       "{ p = Transpose<perm=[0, 2, 1]>(x) y = com.microsoft.FusedMatMul<transBatchA=1>(p, w) }"),
    no("wider", "g (float[N, 3] x, float[3, 4] w) => (float[1, N, 4] y) "
       "<float[1, 1, 1] s = {3}> { m = MatMul(x, w) y = Mul(s, m) }"),
]  # fmt: skip


def enlarged(
    scales: str = "1, 1, 2, 2.5", resize: str = 'mode = "linear"', conv: str = "group = 1",
    weights: str = "float[1, 2, 1, 1] w = {0.5, -2}", more: str = "",
) -> str:  # fmt: skip
    """A Resize before a convolution."""
    return (
        "g (float[N, 2, 4, 3] x) => (float[A, B, C, D] y) "
        f"<{weights}, float[1] b = {{3}}, float[4] s = {{{scales}}}> "
        f"{{ e = Resize <{resize}> (x, , s) y0 = Conv <{conv}> (e, w, b) {more or 'y = Abs(y0)'} }}"
    )


ENLARGED = [
    Case("linear", enlarged(), "Conv Resize Abs"),
    Case("nearest", enlarged(resize='mode = "nearest", nearest_mode = "floor"'), "Conv Resize Abs"),
    Case("corners", enlarged(resize='mode = "linear", coordinate_transformation_mode = '
         '"align_corners"'), "Conv Resize Abs"),
    Case("an upsampling", enlarged().replace("Resize", "Upsample").replace("(x, , s)", "(x, s)"),
         "Conv Upsample Abs", opset=9),
    no("smaller", enlarged("1, 1, 0.5, 2")),
    no("channels", enlarged("1, 2, 2, 2", 'mode = "nearest"', weights="float[1, 4, 1, 1] w = "
       "{1, 2, 3, 4}")),
    no("cubic", enlarged(resize='mode = "cubic"')),
    no("strides", enlarged(conv="strides = [2, 2]")),
    no("pads", enlarged(conv="pads = [1, 0, 0, 0]")),
    no("a window", enlarged(weights="float[1, 2, 1, 2] w = {1, 2, 3, 4}")),
    no("more outputs", enlarged(weights="float[3, 2, 1, 1] w = {1, 2, 3, 4, 5, 6}").replace(
        "float[1] b = {3}", "float[3] b = {1, 2, 3}")),
    no("another user", enlarged(more="y1 = Neg(e) y2 = Add(y0, y1) y = Abs(y2)")),
]  # fmt: skip

ALL: list[tuple[Pass, list[Case]]] = [
    (move_conv_before_resize, ENLARGED),
    (fuse_layer_norm, LAYER_NORM),
    (fuse_rms_norm, RMS_NORM),
    (fuse_skip_layer_norm, SKIP),
    (fuse_gelu, GELU),
    (fuse_fast_gelu, FAST_GELU),
    (fuse_bias_gelu, BIAS_GELU),
    (fuse_quick_gelu, QUICK_GELU),
    (fuse_hard_swish, HARD_SWISH),
    (fuse_conv_residual, RESIDUAL),
    (fuse_gemm_activation, GEMM),
    (fuse_matmul_operands, MATMUL),
]
CASES = [pytest.param(p, c, id=f"{p.__name__}-{c.name}") for p, cases in ALL for c in cases]


@pytest.mark.parametrize(("change", "case"), CASES)
def test_case(change: Pass, case: Case) -> None:
    def run(model: ir.Model, target: object) -> bool:
        modified = False
        while change(model, Everything()):
            modified = True
        return modified

    check(case, run, Everything())


@pytest.mark.parametrize(("change", "cases"), ALL, ids=[p.__name__ for p, _ in ALL])
def test_target_without_the_operator_gets_none_of_it(change: Pass, cases: list[Case]) -> None:
    model = model_of(cases[0].body, cases[0].opset)
    prepare(model)
    before = operators(model)
    assert not change(model, Nothing())
    assert operators(model) == before


def test_refused_nodes_leave_no_trace() -> None:
    model = model_of(GEMM[0].body)
    prepare(model)
    uses = {value.name: len(list(value.uses())) for value in model.graph.inputs}
    constants = list(model.graph.initializers)
    assert not fuse_gemm_activation(model, Nothing())
    assert {value.name: len(list(value.uses())) for value in model.graph.inputs} == uses
    assert list(model.graph.initializers) == constants
