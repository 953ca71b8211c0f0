"""Whole layers of transformers through all passes: the fusions meet as they do in real models."""

from __future__ import annotations

import collections

import numpy as np
import onnx_ir as ir
import pytest

from ortolan.passes.pipeline import optimize
from passes_lib import Array, Everything, compare, model_of, random_feeds, run


def weights(**shapes: tuple[int, ...]) -> str:
    """Constants of these shapes in ONNX's text form."""
    random = np.random.default_rng(5)
    found = []
    for name, shape in shapes.items():
        numbers = ", ".join(f"{x:.4f}" for x in random.standard_normal(shape).reshape(-1))
        found.append(f"float[{', '.join(map(str, shape))}] {name} = {{{numbers}}}")
    return ", ".join(found)


NUMBERS = (
    "float two = {2}, float eps = {0.00001}, int64[4] r = {0, 0, 4, 2}, int64[4] rk = {0, 0, 2, 2},"
    " int64[3] j = {0, 0, 8}, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2},"
    " int64[1] i3 = {3}, int64[1] i4 = {4}, int64[1] far = {9223372036854775807},"
    " float root = {1.4142135}, float half = {0.5}, float one = {1}, float low = {-10000},"
    " float c = {0.044715}, float p = {0.79788456}, float three = {3}"
)


def rms(x: str, scale: str, y: str) -> str:
    """RMS normalization in its parts."""
    return (
        f"{y}q = Pow({x}, two) {y}m = ReduceMean<axes=[-1]>({y}q) {y}a = Add({y}m, eps) "
        f"{y}r = Sqrt({y}a) {y}n = Div({x}, {y}r) {y} = Mul({y}n, {scale}) "
    )


def norm(x: str, scale: str, bias: str, y: str) -> str:
    """Layer normalization in its parts."""
    return (
        f"{y}m = ReduceMean<axes=[-1]>({x}) {y}d = Sub({x}, {y}m) {y}q = Pow({y}d, two) "
        f"{y}v = ReduceMean<axes=[-1]>({y}q) {y}a = Add({y}v, eps) {y}r = Sqrt({y}a) "
        f"{y}n = Div({y}d, {y}r) {y}k = Mul({y}n, {scale}) {y} = Add({y}k, {bias}) "
    )


def turn(x: str, y: str) -> str:
    """Rotary embedding in its parts, for heads of two columns."""
    return (
        f"{y}a = Slice({x}, i0, i1, i3, i1) {y}b = Slice({x}, i1, far, i3, i1) {y}n = Neg({y}b) "
        f"{y}c = Concat<axis=-1>({y}n, {y}a) {y}l = Mul({x}, cos) {y}m = Mul({y}c, sin) "
        f"{y} = Add({y}l, {y}m) "
    )


def repeat(x: str, y: str) -> str:
    """Two heads, each twice, as PyTorch repeats them for groups of queries."""
    return (
        f"{y}u = Unsqueeze({x}, i2) {y}s = Shape({x}) {y}t = Slice({y}s, i2, i3) "
        f"{y}w = Slice({y}s, i0, i1) {y}e = Concat<axis=0>({y}w, i2, i2, {y}t, i2) "
        f"{y}x = Expand({y}u, {y}e) {y}f = Concat<axis=0>({y}w, i4, {y}t, i2) "
        f"{y} = Reshape({y}x, {y}f) "
    )


LLAMA = (
    "g (float[B, S, 8] x, int64[B, S] pos, float[B, 1, S, T] mask, float[B, 2, P, 2] pk, "
    "float[B, 2, P, 2] pv) => (float[B, S, 8] y, float[B, 2, T, 2] nk, float[B, 2, T, 2] nv) <"
    + weights(wq=(8, 8), wk=(8, 4), wv=(8, 4), wo=(8, 8), s1=(8,), s2=(8,), wg=(8, 12),
              wu=(8, 12), wd=(12, 8))
    + ", float[8, 2] table = {1,1, 0.5,0.5, 0.1,0.1, 0.2,0.2, 0.3,0.3, 0.4,0.4, 0.6,0.6, 0.7,0.7}, "
    + NUMBERS + "> {" + rms("x", "s1", "h")
    + "q0 = MatMul(h, wq) k0 = MatMul(h, wk) v0 = MatMul(h, wv) "
    "q3 = Reshape(q0, r) q4 = Transpose<perm=[0, 2, 1, 3]>(q3) "
    "k3 = Reshape(k0, rk) k4 = Transpose<perm=[0, 2, 1, 3]>(k3) "
    "v3 = Reshape(v0, rk) v4 = Transpose<perm=[0, 2, 1, 3]>(v3) "
    "cr = Gather(table, pos) cos = Unsqueeze(cr, i1) sr = Gather(table, pos) "
    "sin = Unsqueeze(sr, i1) "
    + turn("q4", "qt") + turn("k4", "kt")
    + "nk = Concat<axis=2>(pk, kt) nv = Concat<axis=2>(pv, v4) "
    + repeat("nk", "kk") + repeat("nv", "vv")
    + "tr = Transpose<perm=[0, 1, 3, 2]>(kk) sc = MatMul(qt, tr) sd = Div(sc, root) "
    "sm = Add(sd, mask) pr = Softmax<axis=-1>(sm) o4 = MatMul(pr, vv) "
    "o3 = Transpose<perm=[0, 2, 1, 3]>(o4) o = Reshape(o3, j) oo = MatMul(o, wo) z = Add(x, oo) "
    + rms("z", "s2", "g")
    + "gate = MatMul(g, wg) up = MatMul(g, wu) sg = Sigmoid(gate) si = Mul(gate, sg) "
    "ml = Mul(si, up) dn = MatMul(ml, wd) y = Add(z, dn) }"
)  # fmt: skip

SPLIT = "".join(
    f"{n}0 = MatMul(h, w{n}) {n}b = Add(b{n}, {n}0) {n}3 = Reshape({n}b, r) "
    f"{n}4 = Transpose<perm=[0, 2, {last}]>({n}3) "
    for n, last in (("q", "1, 3"), ("k", "3, 1"), ("v", "1, 3"))
)
BERT = (
    "g (float[B, S, 8] h, int64[B, S] mask) => (float[B, S, 8] y) <"
    + weights(wq=(8, 8), wk=(8, 8), wv=(8, 8), wo=(8, 8), bq=(8,), bk=(8,), bv=(8,), bo=(8,),
              s1=(8,), b1=(8,), s2=(8,), b2=(8,), wu=(8, 12), bu=(12,), wd=(12, 8), bd=(8,))
    + ", " + NUMBERS + "> {"
    "mu = Unsqueeze(mask, i12) mf = Cast<to=1>(mu) mi = Sub(one, mf) mm = Mul(mi, low) "
    + SPLIT
    + "sc = MatMul(q4, k4) sd = Div(sc, root) sm = Add(sd, mm) pr = Softmax<axis=-1>(sm) "
    "o4 = MatMul(pr, v4) o3 = Transpose<perm=[0, 2, 1, 3]>(o4) o = Reshape(o3, j) "
    "oo = MatMul(o, wo) ob = Add(oo, bo) z = Add(ob, h) "
    + norm("z", "s1", "b1", "a")
    + "u0 = MatMul(a, wu) u = Add(u0, bu) ud = Div(u, root) ue = Erf(ud) u1 = Add(ue, one) "
    "um = Mul(u, u1) uh = Mul(um, half) d0 = MatMul(uh, wd) d = Add(d0, bd) t = Add(d, a) "
    + norm("t", "s2", "b2", "y") + "}"
).replace("int64[1] i0", "int64[2] i12 = {1, 2}, int64[1] i0")  # fmt: skip

WHISPER = (
    "g (float[B, S, 8] x, float[B, T, 8] e) => (float[B, S, 8] y) <"
    + weights(wq=(8, 8), wk=(8, 8), wv=(8, 8), wo=(8, 8), bq=(8,), bv=(8,), bo=(8,), s1=(8,),
              b1=(8,))
    + ", " + NUMBERS + "> {" + norm("x", "s1", "b1", "h")
    + "q0 = MatMul(h, wq) qb = Add(bq, q0) qs = Mul(qb, half) k0 = MatMul(e, wk) "
    "v0 = MatMul(e, wv) vb = Add(bv, v0) q3 = Reshape(qs, r) k3 = Reshape(k0, r) "
    "v3 = Reshape(vb, r) q4 = Transpose<perm=[0, 2, 1, 3]>(q3) "
    "k4 = Transpose<perm=[0, 2, 3, 1]>(k3) "
    "v4 = Transpose<perm=[0, 2, 1, 3]>(v3) sc = MatMul(q4, k4) pr = Softmax<axis=-1>(sc) "
    "o4 = MatMul(pr, v4) o3 = Transpose<perm=[0, 2, 1, 3]>(o4) o = Reshape(o3, j) "
    "oo = MatMul(o, wo) ob = Add(oo, bo) y = Add(x, ob) }"
)  # fmt: skip


def fused(body: str, feeds: dict[str, Array]) -> collections.Counter[str]:
    """Operators after all passes for onnxruntime, which computes the same before and after."""
    model: ir.Model = model_of(body)
    given = random_feeds(model, feeds)
    expected = run(model, given)
    optimize(model, "extended", Everything())
    compare(run(model, given), expected)
    return collections.Counter(node.op_type for node in model.graph)


def test_llama() -> None:
    feeds: dict[str, Array] = {"pos": np.array([[3, 4, 5], [3, 4, 5]])}
    random = np.random.default_rng(1)
    for name, shape in (("pk", (2, 2, 3, 2)), ("pv", (2, 2, 3, 2)), ("mask", (2, 1, 3, 6)),
                        ("x", (2, 3, 8))):  # fmt: skip
        feeds[name] = random.standard_normal(shape).astype(np.float32)
    found = fused(LLAMA, feeds)
    assert found["RotaryEmbedding"] == 2
    assert found["MultiHeadAttention"] == found["QuickGelu"] == 1
    assert found["SimplifiedLayerNormalization"] + found["SkipSimplifiedLayerNormalization"] == 2
    assert not found.keys() & {"Softmax", "Sigmoid", "Neg", "Pow", "Sqrt", "ReduceMean"}


def test_bert() -> None:
    found = fused(BERT, {"mask": np.array([[1, 1, 0], [1, 1, 1]])})
    assert found == {
        "Cast": 1, "Attention": 1, "MatMul": 3, "SkipLayerNormalization": 2, "BiasGelu": 1,
    }  # fmt: skip


@pytest.mark.parametrize("body", [WHISPER])
def test_whisper_looks_at_what_was_heard(body: str) -> None:
    found = fused(body, {})
    assert found["MultiHeadAttention"] == found["LayerNormalization"] == 1
    assert not found.keys() & {"Softmax", "Transpose", "Reshape"}
