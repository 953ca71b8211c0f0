"""Llama's attention, whose heads share keys and values, becomes one node of onnxruntime's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import ortolan
from ortolan.passes.dead_code import remove_dead_code
from ortolan.passes.group_query_attention import fuse_group_query_attention
from ortolan.passes.pipeline import optimize
from ortolan.passes.rotary import fuse_rotary
from passes_lib import (
    Array,
    Case,
    Everything,
    Nothing,
    check,
    model_of,
    no,
    operators,
    prepare,
    run,
)

NUMBERS = (
    "int64[4] rq = {0, 0, 4, 8}, int64[4] rk = {0, 0, 2, 8}, int64[3] j = {0, 0, 32}, "
    "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, "
    "int64[1] four = {4}, int64[1] eight = {8}, int64[1] last = {-1}, int64[1] far = {99}, "
    "float h = {0.35}, float r = {0.6}, int64[5] minus = {-1, -1, -1, -1, -1}, "
    "int64[5] ones = {1, 1, 1, 1, 1}, int64[4] twice = {0, 0, 1, 1}, "
    "int64[5] tiles = {1, 1, 2, 1, 1}, int64[1] five = {5}"
)
QUERY = "q3 = Reshape(q, rq) q4 = Transpose<perm=[0, 2, 1, 3]>(q3) "
KEYS = (
    "k3 = Reshape(k, rk) kn = Transpose<perm=[0, 2, 1, 3]>(k3) "
    "v3 = Reshape(v, rk) vn = Transpose<perm=[0, 2, 1, 3]>(v3) "
)
PAST = "kt = Concat<axis=2>(pk, kn) vt = Concat<axis=-2>(pv, vn) "
# As PyTorch writes Tensor.expand: sizes of -1 would be those of the input.
REPEAT = (
    "k5 = Unsqueeze(kt, two) v5 = Unsqueeze(vt, two) sh = Shape(kt) bt = Slice(sh, zero, one) "
    "n = Slice(sh, two, three) e0 = Concat<axis=0>(bt, two, two, n, eight) "
    "eq = Equal(e0, minus) e = Where(eq, ones, e0) f = Concat<axis=0>(bt, four, n, eight) "
    "k6 = Expand(k5, e) v6 = Expand(v5, e) k7 = Reshape(k6, f) v7 = Reshape(v6, f) "
)
SCORES = "ks = Transpose<perm=[0, 1, 3, 2]>(k7) s = MatMul(q4, ks) d = Mul(s, h) "
JOIN = (
    "p = Softmax<axis=-1>(m) o = MatMul(p, v7) o3 = Transpose<perm=[0, 2, 1, 3]>(o) "
    "y = Reshape(o3, j) "
)
ONE = "float[1, S, 32] q, float[1, S, 16] k, float[1, S, 16] v"
PASTS = ", float[1, 2, P, 8] pk, float[1, 2, P, 8] pv"
PRESENT = ", float[1, 2, T, 8] kt, float[1, 2, T, 8] vt"
GQA = "GroupQueryAttention"
# What tells the numbers of keys, and of those that are there.
LENGTHS = "Shape Gather Shape Gather Add Sub Shape Gather Expand"
FIRST = "Shape Gather Sub Shape Gather Expand"
CASTS = "Cast Cast"


def graph(*parts: str, inputs: str = ONE + PASTS, y: str = PRESENT, more: str = "") -> str:
    """A graph of the parts."""
    body = " ".join(parts)
    return f"g ({inputs}) => (float[B, S, 32] y{y}) <{NUMBERS}{more}> {{ {body} {JOIN} }}"


def without_past(repeat: str = REPEAT) -> tuple[str, ...]:
    """The parts of a graph that has no past."""
    return QUERY, KEYS.replace("kn =", "kt =").replace("vn =", "vt ="), repeat, SCORES


TRIANGLE = ", float[1, 1, 9, 9] tri = {" + ", ".join(
    str(int(k <= q)) for q in range(9) for k in range(9)
) + "}, float low = {-10000}"  # fmt: skip
SLICES = (
    "nd = Shape(d) e9 = Slice(nd, three, four) w = Slice(nd, two, three) z = Sub(e9, w) "
    "t1 = Slice(tri, z, e9, two) t2 = Slice(t1, zero, e9, three) t = Cast<to=9>(t2) "
    "m = Where(t, d, low) "
)
NO_MASK = SCORES.replace("d = Mul", "m = Mul")
BIAS = ", float[1, 1, S, U] bias"
CASES = [
    Case("1: one query", graph(QUERY, KEYS, PAST, REPEAT, NO_MASK,
         inputs=(ONE + PASTS).replace("S,", "1,")), f"{LENGTHS} {CASTS} {GQA}"),
    Case("1: no past", graph(*without_past()[:-1], NO_MASK, inputs=ONE, y=""),
         f"{FIRST} {CASTS} {GQA}"),
    Case("1: by Tile", graph(*without_past(
         "k5 = Unsqueeze(kt, two) v5 = Unsqueeze(vt, two) k6 = Tile(k5, tiles) "
         "v6 = Tile(v5, tiles) sh = Shape(kt) bt = Slice(sh, zero, one) n = Slice(sh, two, three) "
         "f = Concat<axis=0>(bt, four, n, eight) k7 = Reshape(k6, f) v7 = Reshape(v6, f) ")[:-1],
         NO_MASK, inputs=ONE, y=""), f"{FIRST} {CASTS} {GQA}"),
    Case("1: by Gather", graph(*without_past(
         "k7 = Gather<axis=1>(kt, twice) v7 = Gather<axis=1>(vt, twice) ")[:-1], NO_MASK,
         inputs=ONE, y=""), f"{FIRST} {CASTS} {GQA}"),
    Case("1: scales on both", graph(QUERY, "qs = Mul(q4, r) ", KEYS, PAST, REPEAT,
         "ks = Transpose<perm=[0, 1, 3, 2]>(k7) kr = Mul(ks, r) m = MatMul(qs, kr) "),
         f"{LENGTHS} {CASTS} {GQA}"),
    Case("2: bias", graph(QUERY, KEYS, PAST, REPEAT, SCORES, "m = Add(d, bias) ",
         inputs=ONE + PASTS + BIAS), f"{LENGTHS} Shape Gather Concat Expand {CASTS} {GQA}",
         feeds={"bias": np.random.default_rng(1).standard_normal((1, 1, 2, 5)).astype("f")}),
    Case("2: bias of each query", graph(*without_past(), "m = Add(d, bias) ",
         inputs=ONE + ", float[1, 1, S, S] bias", y=""), f"{FIRST} {CASTS} {GQA}"),
    Case("2: the mask is cut to the keys", graph(QUERY, KEYS, PAST, REPEAT, SCORES,
         "cut = Slice(bias, zero, n, three) m = Add(d, cut) ", inputs=ONE + PASTS + BIAS),
         "Shape Gather Shape Gather Shape Gather Add Concat Slice Slice "
         f"{LENGTHS} Shape Gather Concat Expand {CASTS} {GQA}",
         feeds={"bias": np.random.default_rng(1).standard_normal((1, 1, 2, 9)).astype("f")}),
    Case("3: a triangle", graph(*without_past(), SLICES, inputs=ONE, y="", more=TRIANGLE),
         f"{FIRST} {CASTS} {GQA}"),
    Case("4: no mask", graph(QUERY, KEYS, PAST, REPEAT, NO_MASK), f"{LENGTHS} {CASTS} {GQA}"),
    no("heads in another order", graph(*without_past(
       "k7 = Gather<axis=1>(kt, twice) v7 = Gather<axis=1>(vt, twice) ")[:-1], NO_MASK,
       inputs=ONE, y="").replace("{0, 0, 1, 1}", "{0, 1, 0, 1}")),
    no("each head has its own", graph(*without_past()[:-1], NO_MASK,
       inputs="float[1, S, 32] q, float[1, S, 32] k, float[1, S, 32] v", y="").replace(
       "{0, 0, 2, 8}", "{0, 0, 4, 8}").replace("(bt, two, two, n, eight)",
       "(bt, four, one, n, eight)")),
    no("onnxruntime has no batches of several queries with a past", graph(
       QUERY, KEYS, PAST, REPEAT, NO_MASK, inputs=(ONE + PASTS).replace("1, S", "B, S").replace(
       "1, 2, P", "B, 2, P"), y=PRESENT.replace("1, 2", "B, 2"))),
]  # fmt: skip


def fuse(model: ir.Model, target: object) -> bool:
    """The rewrite for onnxruntime, and away with what nothing uses then."""
    changed = fuse_group_query_attention(model, Everything())
    remove_dead_code(model)
    return changed


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    check(case, fuse)


def test_target_without_the_operator_gets_none_of_it() -> None:
    model = model_of(CASES[0].body)
    prepare(model)
    assert not fuse_group_query_attention(model, Nothing())
    assert GQA not in operators(model)


# Angles of positions, and cosines of them, in the ways that exporters have.
EMBEDDED = {
    "unsqueezed before": "an = Mul(p3, freq) tw = Concat<axis=-1>(an, an) "
    "tu = Unsqueeze(tw, one) cos = Cos(tu) sin = Sin(tu) ",
    "unsqueezed behind": "an = Mul(p3, freq) tw = Concat<axis=-1>(an, an) c0 = Cos(tw) "
    "s0 = Sin(tw) cos = Unsqueeze(c0, one) sin = Unsqueeze(s0, one) ",
    "joined behind": "an = Mul(p3, freq) c0 = Cos(an) s0 = Sin(an) c1 = Concat<axis=2>(c0, c0) "
    "s1 = Concat<axis=2>(s0, s0) cos = Unsqueeze(c1, one) sin = Unsqueeze(s1, one) ",
}
ROTATE = "".join(
    f"{x}a = Slice({x}, zero, four, three) {x}b = Slice({x}, four, eight, three) "
    f"{x}n = Neg({x}b) {x}r = Concat<axis=-1>({x}n, {x}a) {x}l = Mul({x}, cos) "
    f"{x}m = Mul({x}r, sin) {x}o = Add({x}l, {x}m) "
    for x in ("q4", "kn")
)
POSITIONS = "p0 = Cast<to=1>(pos) p3 = Unsqueeze(p0, two) "
FREQUENCIES = ", float[4] freq = {1, 0.3, 0.1, 0.03}"


def llama(kind: str, batch: str = "B", positions: str = "B") -> str:
    """A whole layer's attention: rotary embedding, past, repeated heads, bias."""
    inputs = ONE + PASTS + BIAS + ", int64[1, S] pos"
    inputs = inputs.replace("[1, S", f"[{batch}, S").replace("[1, 2", f"[{batch}, 2")
    inputs = inputs.replace(f"[{batch}, S] pos", f"[{positions}, S] pos")
    parts = (
        POSITIONS, EMBEDDED[kind], QUERY, KEYS, ROTATE, PAST.replace("pk, kn", "pk, kno"), REPEAT,
        SCORES.replace("q4", "q4o"), "m = Add(d, bias) ",
    )  # fmt: skip
    present = PRESENT.replace("[1, 2", f"[{batch}, 2")
    return graph(*parts, inputs=inputs, y=present, more=FREQUENCIES)


def feeds_of(batch: int, positions: int) -> dict[str, Array]:
    random = np.random.default_rng(5)
    shapes = {
        "q": (batch, 3, 32), "k": (batch, 3, 16), "v": (batch, 3, 16), "pk": (batch, 2, 4, 8),
        "pv": (batch, 2, 4, 8), "bias": (1, 1, 3, 7),
    }  # fmt: skip
    feeds = {k: random.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    return {**feeds, "pos": random.integers(0, 9, (positions, 3))}


@pytest.mark.parametrize("kind", EMBEDDED)
@pytest.mark.parametrize(("batch", "positions"), [(1, 1), (2, 2), (2, 1)])
def test_a_layer_of_llama_on_ortolan(kind: str, batch: int, positions: int) -> None:
    """All passes in their order; the runtime has batches that onnxruntime has not."""
    body = llama(kind, "B", "1" if positions == 1 else "B")
    model, plain = model_of(body), model_of(body)
    optimize(model, "extended")
    assert operators(model).split().count("RotaryEmbedding") == 2
    assert operators(model).split().count(GQA) == 1
    feeds = feeds_of(batch, positions)
    expected = run(plain, feeds)
    session = ortolan.InferenceSession(ir.to_proto(model).SerializeToString())
    for want, got in zip(expected, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_a_layer_of_llama_on_onnxruntime() -> None:
    model = model_of(llama("unsqueezed before", "1", "1"))
    plain = model_of(llama("unsqueezed before", "1", "1"))
    prepare(model)
    while fuse_rotary(model, Everything()) or fuse(model, None):
        prepare(model)
    assert operators(model).split().count(GQA) == 1
    feeds = feeds_of(1, 1)
    for want, got in zip(run(plain, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
