"""Attention as frameworks write it becomes one node that computes the same in onnxruntime."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from ortolan.passes.attention import fuse_attention
from ortolan.passes.attention_projection import fuse_attention_projection
from ortolan.passes.dead_code import remove_dead_code
from ortolan.passes.rotary import fuse_rotary
from passes_lib import Case, Everything, Nothing, check, model_of, no, operators, prepare

HEADS = "int64[4] r = {0, 0, 2, 3}, int64[3] j = {0, 0, 6}, float c = {1.7320508}, float h = {0.5}"
SPLIT = (
    "q3 = Reshape(q, r) q4 = Transpose<perm=[0, 2, 1, 3]>(q3) "
    "k3 = Reshape(k, r) k4 = Transpose<perm=[0, 2, 3, 1]>(k3) "
    "v3 = Reshape(v, r) v4 = Transpose<perm=[0, 2, 1, 3]>(v3) "
)
JOIN = (
    "p = Softmax<axis=-1>(m) o = MatMul(p, v4) o3 = Transpose<perm=[0, 2, 1, 3]>(o) "
    "y = Reshape(o3, j) "
)
QKV = "float[B, S, 6] q, float[B, T, 6] k, float[B, T, 6] v"


def graph(middle: str, inputs: str = QKV, more: str = "", split: str = SPLIT, y: str = "") -> str:
    """A graph with query, key and value in columns, and what is done to the scores."""
    return f"g ({inputs}) => (float[B, S, 6] y{y}) <{HEADS}{more}> {{ {split} {middle} {JOIN} }}"


PADDING = (
    "u = Unsqueeze(mask, ax) f = Cast<to=1>(u) i = Sub(one, f) b = Mul(i, low) "
    "s = MatMul(q4, k4) d = Div(s, c) m = Add(d, b) "
)
ONES = ", float one = {1}, float low = {-10000}, int64[2] ax = {1, 2}"
TRIANGLE = (
    ", float[1, 1, 4, 4] tri = {1,0,0,0, 1,1,0,0, 1,1,1,0, 1,1,1,1}, float low = {-10000}, "
    "int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4}, "
    "int64[1] last = {-1}, int64[1] before = {-2}, int64[1] far = {99}"
)
SLICES = (
    "s = MatMul(q4, k4) d = Mul(s, h) n = Shape(d) e = Slice(n, three, four) "
    "w = Slice(n, two, three) z = Sub(e, w) t1 = Slice(tri, z, e, two) "
    "t2 = Slice(t1, zero, e, three) t = Cast<to=9>(t2) m = Where(t, d, low) "
)
SQUARE = "float[B, S, 6] q, float[B, S, 6] k, float[B, S, 6] v"
PAST = (
    "q3 = Reshape(q, r) q4 = Transpose<perm=[0, 2, 1, 3]>(q3) "
    "k3 = Reshape(k, r) kn = Transpose<perm=[0, 2, 3, 1]>(k3) "
    "kp = Transpose<perm=[0, 1, 3, 2]>(pk) k4 = Concat<axis=-1>(kp, kn) "
    "kt = Transpose<perm=[0, 1, 3, 2]>(k4) ku = Abs(kt) "
    "v3 = Reshape(v, r) vn = Transpose<perm=[0, 2, 1, 3]>(v3) v4 = Concat<axis=-2>(pv, vn) "
    "vu = Abs(v4) "
)
PASTS = SQUARE + ", float[B, 2, P, 3] pk, float[B, 2, P, 3] pv"
PRESENT = ", float[B, 2, T, 3] ku, float[B, 2, T, 3] vu"
MHA = "MultiHeadAttention"
STRETCH = "Shape Gather Shape Gather Concat Expand"
QUERY = "q3 = Reshape(q, r) q4 = Transpose<perm=[0, 2, 1, 3]>(q3) "

PACKED = (
    "g (float[B, S, 18] x) => (float[B, S, 6] y) <" + HEADS + ", int64[5] r5 = {0, 0, 3, 2, 3}, "
    "int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64[1] ax = {0}, int64[3] sp = {1, 1, 1}> "
    "{ x5 = Reshape(x, r5) t5 = Transpose<perm=[2, 0, 3, 1, 4]>(x5) "
)
CASES = [
    Case("1: scale on the product", graph("s = MatMul(q4, k4) m = Div(s, c)"), MHA),
    Case("1: scale on the query", graph("qs = Mul(q4, h) m = MatMul(qs, k4)"), MHA),
    Case("1: scale on both", graph("qs = Mul(q4, h) s = MatMul(qs, k4) m = Mul(c, s)"), MHA),
    Case("1: two transposes of the key", graph(
        "m = MatMul(q4, k4)", split=SPLIT.replace(
            "k4 = Transpose<perm=[0, 2, 3, 1]>(k3)",
            "kk = Transpose<perm=[0, 2, 1, 3]>(k3) k4 = Transpose<perm=[0, 1, 3, 2]>(kk)")), MHA),
    Case("1: thirds by Gather", PACKED + "q4 = Gather(t5, i0) kk = Gather(t5, i1) "
         "v4 = Gather(t5, i2) k4 = Transpose<perm=[0, 1, 3, 2]>(kk) s = MatMul(q4, k4) "
         "m = Mul(s, h) " + JOIN + "}", "Split " + MHA),
    Case("1: thirds by Split", PACKED + "q1, k1, v1 = Split(t5, sp) q4 = Squeeze(q1, ax) "
         "kk = Squeeze(k1, ax) v4 = Squeeze(v1, ax) k4 = Transpose<perm=[0, 1, 3, 2]>(kk) "
         "qs = Mul(q4, h) m = MatMul(qs, k4) " + JOIN + "}", "Split " + MHA),
    Case("2: bias", graph("s = MatMul(q4, k4) d = Div(s, c) m = Add(d, bias)",
         inputs=QKV + ", float[B, 1, S, T] bias"), MHA),
    Case("2: bias for all of the batch", graph("s = MatMul(q4, k4) m = Add(bias, s)",
         inputs=QKV.replace("B, T", "B, 4").replace("B, S", "B, 5") + ", float[1, 2, 5, 4] bias"),
         MHA),
    Case("3: padding", graph(PADDING, inputs=QKV + ", int64[B, T] mask", more=ONES), "Cast " + MHA,
         feeds={"mask": np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])}),
    Case("3: padding of int32", graph(PADDING, inputs=QKV + ", int32[B, T] mask", more=ONES), MHA,
         feeds={"mask": np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], np.int32)}),
    Case("3: padding for all of the batch", graph(PADDING, inputs=QKV + ", int64[1, T] mask",
         more=ONES), "Unsqueeze Cast Sub Mul " + STRETCH + " " + MHA,
         feeds={"mask": np.array([[1, 1, 0, 0, 1]])}),
    Case("3: padding of queries", graph(PADDING.replace("u = Unsqueeze(mask, ax)",
         "w = Unsqueeze(mask, two) u = Unsqueeze(w, one1) n = Abs(w)"), more=ONES
         + ", int64[1] one1 = {1}, int64[1] two = {2}", inputs=SQUARE + ", int64[B, S] mask",
         y=", int64[B, S, 1] n"), "Unsqueeze Unsqueeze Abs Cast Sub Mul " + STRETCH + " " + MHA,
         feeds={"mask": np.array([[1, 1, 0], [1, 0, 0]])}),
    Case("4: a triangle", graph(SLICES, inputs=SQUARE, more=TRIANGLE), MHA),
    Case("5: past", graph("s = MatMul(q4, k4) m = Div(s, c)", PASTS, split=PAST, y=PRESENT),
         MHA + " Abs Abs"),
    Case("5: past and triangle", graph(SLICES, PASTS, TRIANGLE, PAST, PRESENT), MHA + " Abs Abs",
         feeds={name: np.random.default_rng(1).standard_normal(shape).astype(np.float32)
                for name, shape in (("q", (2, 3, 6)), ("k", (2, 3, 6)), ("v", (2, 3, 6)),
                                    ("pk", (2, 2, 1, 3)), ("pv", (2, 2, 1, 3)))}),
    Case("2: padding by floats", graph(PADDING.replace("f = Cast<to=1>(u) i = Sub(one, f)",
         "i = Sub(one, u)"), inputs=QKV + ", float[B, T] mask", more=ONES),
         f"Unsqueeze Sub Mul {STRETCH} " + MHA),
    Case("2: padding that hardly masks", graph(PADDING, inputs=QKV + ", int64[B, T] mask",
         more=ONES.replace("-10000", "-10")), f"Unsqueeze Cast Sub Mul {STRETCH} " + MHA),
    Case("2: a bias that may stretch", graph("s = MatMul(q4, k4) m = Add(s, bias)",
         inputs=QKV + ", float[B, 1, S, U] bias"), f"{STRETCH} {MHA}",
         feeds={"bias": np.ones((2, 1, 3, 1), np.float32)}),
    Case("6: heads that are there", graph("kt = Transpose<perm=[0, 1, 3, 2]>(k) "
         "ks = Mul(kt, h) s = MatMul(q4, ks) m = Mul(s, c) v4 = Identity(v)",
         inputs="float[B, S, 6] q, float[B, 2, T, 3] k, float[B, 2, T, 3] v",
         split=QUERY).replace("v4 = Identity(v) ", "").replace("v4", "v"), MHA),
    Case("6: repeated for groups", graph("k5 = Unsqueeze(k, ax) v5 = Unsqueeze(v, ax) "
         "sh = Shape(k) bt = Slice(sh, zero, one) tt = Slice(sh, two, three) "
         "e = Concat<axis=0>(bt, one, two, tt, three) f = Concat<axis=0>(bt, two, tt, three) "
         "k6 = Expand(k5, e) v6 = Expand(v5, e) k7 = Reshape(k6, f) v4 = Reshape(v6, f) "
         "kt = Transpose<perm=[0, 1, 3, 2]>(k7) s = MatMul(q4, kt) m = Mul(s, h)",
         inputs="float[B, S, 6] q, float[B, 1, T, 3] k, float[B, 1, T, 3] v", split=QUERY,
         more=", int64[1] ax = {2}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
         "int64[1] three = {3}"), "Unsqueeze Unsqueeze Shape Slice Slice Concat Concat Expand "
         "Expand Reshape Reshape " + MHA),
    no("another user of the probabilities", graph(
        "s = MatMul(q4, k4) m = Div(s, c) e = Abs(p)", y=", float[B, 2, S, T] e").replace(
        "m = Div(s, c) e = Abs(p)  p = Softmax<axis=-1>(m)",
        "m = Div(s, c) p = Softmax<axis=-1>(m) e = Abs(p)")),
    no("over another axis", graph("s = MatMul(q4, k4) m = Div(s, c)").replace(
        "Softmax<axis=-1>", "Softmax<axis=2>")),
    no("no triangle", graph(SLICES, inputs=SQUARE, more=TRIANGLE.replace("1,1,0,0", "1,0,1,0"))),
    no("another diagonal", graph(SLICES.replace("z = Sub(e, w)", "z = Sub(w, e)"),
        inputs=SQUARE, more=TRIANGLE)),
    no("heads are moved otherwise", graph("s = MatMul(q4, k4) m = Div(s, c)").replace(
        "o3 = Transpose<perm=[0, 2, 1, 3]>(o)", "o3 = Transpose<perm=[0, 2, 3, 1]>(o)")),
    no("the key is scaled by a vector", graph("s = MatMul(q4, k4) m = Mul(s, vec)",
        more=", float[1, 2, 1, 1] vec = {1, 2}")),
]  # fmt: skip


PRODUCTS = (
    "w = {1,2,3,4,5,6, 6,5,4,3,2,1, 1,0,2,0,3,0, 0,1,0,2,0,3}, float[6] b = {1,2,3,4,5,6}, "
    "float[4, 6] u = {3,2,1,4,5,6, 6,5,4,1,2,3, 0,1,2,0,0,3, 1,1,0,0,2,2}, "
    "float[4, 18] all = {" + ", ".join(str(k % 7) for k in range(72)) + "}, "
    "float[18] bs = {" + ", ".join(str(k % 5) for k in range(18)) + "}, int64[3] p = {6, 6, 6}, "
    "int64[1] z = {0}, int64 i0 = {0}, int64 i1 = {1}"
)
NODE = "com.microsoft.MultiHeadAttention<num_heads=2, scale=0.5>"


def projected(parts: str, inputs: str = "float[B, S, 4] x", y: str = "") -> str:
    """A graph with projections and an attention."""
    return f"g ({inputs}) => (float[B, S, 6] y{y}) <float[4, 6] {PRODUCTS}> {{ {parts} }}"


SEPARATE = (
    "q0 = MatMul(x, w) k0 = MatMul(x, u) v0 = MatMul(x, w) q = Add(q0, b) k = Add(b, k0) "
    "v = Add(v0, b) "
)
CAUSAL = NODE.replace("num_heads=2", "num_heads=2, unidirectional=1")
PASTS_OF_ONE = "float[B, S, 4] x, float[2, B, 2, P, 3] past"
PROJECTED = [
    Case("1: with bias", projected(SEPARATE + f"y = {NODE}(q, k, v)"), "Attention"),
    Case("1: without bias", projected("q = MatMul(x, w) k = MatMul(x, u) "
         f"v = MatMul(x, w) y = {NODE}(q, k, v)"), "Attention"),
    Case("1: with padding", projected(SEPARATE + f"y = {NODE}(q, k, v, , m)",
         "float[B, S, 4] x, int32[B, S] m"), "Attention",
         feeds={"m": np.array([[1, 1, 0], [1, 1, 1]], np.int32)}),
    Case("2: one product", projected("a = MatMul(x, all) c = Add(a, bs) "
         f"q, k, v = Split<axis=-1>(c, p) y = {CAUSAL}(q, k, v)"), "Attention"),
    Case("3: past and present", projected(
        "a = MatMul(x, all) c = Add(a, bs) q, k, v = Split<axis=2>(c, p) pk = Gather(past, i0) "
        f"pv = Gather(past, i1) y, nk, nv = {CAUSAL}(q, k, v, , , , pk, pv) "
        "uk = Unsqueeze(nk, z) uv = Unsqueeze(nv, z) present = Concat<axis=0>(uk, uv)",
        PASTS_OF_ONE, ", float[2, B, 2, T, 3] present"), "Attention"),
    no("another value", projected("e = Abs(x) q = MatMul(x, w) k = MatMul(e, u) v = MatMul(x, w) "
       f"y = {NODE}(q, k, v)")),
    no("one has no bias", projected("q0 = MatMul(x, w) k = MatMul(x, u) v = MatMul(x, w) "
       f"q = Add(q0, b) y = {NODE}(q, k, v)")),
    no("the query has another user", projected(SEPARATE + f"y = {NODE}(q, k, v) e = Abs(q)",
       y=", float[B, S, 6] e")),
    no("weights are an input", projected("q = MatMul(x, w) k = MatMul(x, h) v = MatMul(x, w) "
       f"y = {NODE}(q, k, v)", "float[B, S, 4] x, float[4, 6] h")),
    no("the present is not joined", projected(
        "a = MatMul(x, all) q, k, v = Split<axis=2>(a, p) pk = Gather(past, i0) "
        f"pv = Gather(past, i1) y, nk, nv = {CAUSAL}(q, k, v, , , , pk, pv)",
        PASTS_OF_ONE, ", float[B, 2, T, 3] nk, float[B, 2, T, 3] nv")),
]  # fmt: skip


@pytest.mark.parametrize("case", PROJECTED, ids=[case.name for case in PROJECTED])
def test_projection(case: Case) -> None:
    def run(model: ir.Model, target: object) -> bool:
        return fuse_attention_projection(model, Everything())

    check(case, run)


ROTARY = (
    "float[4, 4] t = {0.1,0.2,0.1,0.2, 0.5,0.6,0.5,0.6, 1,2,1,2, 3,4,3,4}, "
    "float[2, 4] uneven = {0.1,0.2,0.1,0.3, 0.5,0.6,0.5,0.6}, int64[1] zero = {0}, "
    "int64[1] two = {2}, int64[1] four = {4}, int64[1] far = {9223372036854775807}, "
    "int64[1] last = {3}, int64[1] one = {1}, int64[4] r = {0, 0, 2, 4}, "
    "float[1, 1, 2] freq = {1, 0.1}, float scale = {1.5}"
)
HALVES = "a = Slice(x4, zero, two, last, one) b = Slice(x4, two, far, last, one) "
TURN = "n = Neg(b) c = Concat<axis=-1>(n, a) l = Mul(x4, cos) m = Mul(c, sin) y = Add(l, m)"
ROWS = "cr = Gather(t, pos) sr = Gather(t, pos) cos = Unsqueeze(cr, one) sin = Unsqueeze(sr, one) "
ANGLES = (
    "p = Cast<to=1>(pos) p3 = Unsqueeze(p, two) an = MatMul(p3, freq) "
    "tw = Concat<axis=-1>(an, an) c0 = Cos(tw) s0 = Sin(tw) cr = Mul(c0, scale) "
    "sr = Mul(s0, scale) cos = Unsqueeze(cr, one) sin = Unsqueeze(sr, one) "
)


def rotary(parts: str, inputs: str = "float[B, 2, S, 4] x4, int64[B, S] pos", y: str = "") -> str:
    """A graph with tables for rotary embedding."""
    return f"g ({inputs}) => (float[B, 2, S, 4] y{y}) <{ROTARY}> {{ {parts} }}"


FEEDS = {"pos": np.array([[0, 1, 1], [1, 0, 1]])}
ROTATED = "RotaryEmbedding"
ROTATIONS = [
    Case("1: rows of a table", rotary(ROWS + HALVES + TURN), ROTATED, feeds=FEEDS),
    Case("1: by Split", rotary(ROWS + "a, b = Split<axis=-1>(x4) " + TURN), ROTATED, 13, FEEDS),
    Case("1: before heads", rotary("x3 = Reshape(x, r) x4 = Transpose<perm=[0, 2, 1, 3]>(x3) "
         + ROWS + HALVES + TURN, "float[B, S, 8] x, int64[B, S] pos"),
         "RotaryEmbedding Reshape Transpose", feeds=FEEDS),
    Case("2: computed", rotary(ANGLES + HALVES + TURN),
         "Cast Unsqueeze MatMul Concat Cos Sin Mul Mul Shape Gather ReduceProd Range Reshape "
         "Slice Reshape Slice Reshape RotaryEmbedding", feeds=FEEDS),
    no("each other row", rotary("t0 = Slice(t, zero, four, zero, two) "
       + ROWS.replace("Gather(t,", "Gather(t0,") + HALVES + TURN), feeds=FEEDS),
    no("halves differ", rotary(ROWS.replace("Gather(t", "Gather(uneven") + HALVES + TURN),
       feeds=FEEDS),
    no("the halves are not swapped", rotary(ROWS + HALVES + TURN.replace("(n, a)", "(a, n)")),
       feeds=FEEDS),
    Case("1: positions for all of the batch", rotary(ROWS + HALVES + TURN,
         "float[B, 2, S, 4] x4, int64[1, S] pos"), "Shape Gather Concat Expand " + ROTATED,
         feeds={"pos": np.array([[0, 1, 1]])}),
    no("positions of another batch", rotary(ROWS + HALVES + TURN,
       "float[B, 2, S, 4] x4, int64[C, S] pos"), feeds={"pos": np.array([[0, 1, 1]])}),
    no("another user", rotary(ROWS + HALVES + TURN + " z = Abs(c)", y=", float[B, 2, S, 4] z"),
       feeds=FEEDS),
]  # fmt: skip


@pytest.mark.parametrize("case", ROTATIONS, ids=[case.name for case in ROTATIONS])
def test_rotary(case: Case) -> None:
    def run(model: ir.Model, target: object) -> bool:
        changed = fuse_rotary(model, Everything())
        remove_dead_code(model)
        return changed

    random = np.random.default_rng(3)
    shapes = {"x4": (2, 2, 3, 4), "x": (2, 3, 8)}
    feeds = {k: random.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}
    used = {k: v for k, v in feeds.items() if f"4] {k}," in case.body or f"8] {k}," in case.body}
    check(dataclasses.replace(case, feeds={**case.feeds, **used}), run)


def fuse(model: ir.Model, target: object) -> bool:
    """The rewrite for onnxruntime, and away with what nothing uses then."""
    changed = fuse_attention(model, Everything())
    remove_dead_code(model)
    return changed


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    check(case, fuse)


def test_target_without_the_operator_gets_none_of_it() -> None:
    model = model_of(CASES[0].body)
    prepare(model)
    before = operators(model)
    assert not fuse_attention(model, Nothing())
    assert operators(model) == before
