"""The rewrites of level basic, each by its numbered cases and by what it must leave alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ortolan.importing.shapes import known_shape, own_size, refine_shapes
from ortolan.passes.casts import simplify_casts
from ortolan.passes.channel_terms import fold_channel_terms
from ortolan.passes.common_subexpressions import share_common
from ortolan.passes.constant_if import inline_constant_if
from ortolan.passes.dead_code import remove_dead_code
from ortolan.passes.dimensions import Dimensions
from ortolan.passes.flat_products import unflatten_products
from ortolan.passes.joining import join_movements
from ortolan.passes.matmul_add import fuse_matmul_add
from ortolan.passes.neutral import remove_neutral
from ortolan.passes.pads import fold_pads
from ortolan.passes.reshapes import simplify_reshapes
from ortolan.passes.rewriting import Inputs, Rewriter
from ortolan.passes.scattered_slices import scatter_slices
from ortolan.passes.sizes import multiply
from ortolan.passes.static_shapes import compute_shapes
from ortolan.passes.target import ORTOLAN, Target
from ortolan.passes.transposed_conv import turn_transposed
from ortolan.passes.transposes import simplify_transposes
from passes_lib import Case, Nothing, Pass, check, model_of, no, operators, prepare

CASTS = [
    Case("1: same type", "g (float[N] x) => (float[N] y) { a = Cast<to=1>(x) y = Abs(a) }", "Abs"),
    Case(
        "2: the first holds all",
        "g (int32[N] x) => (float[N] y) { a = Cast<to=7>(x) y = Cast<to=1>(a) }", "Cast",
    ),
    Case(
        "2: float to double and back, which leaves nothing",
        "g (float[N] x) => (float[N] y) { a = Cast<to=11>(x) b = Cast<to=1>(a) y = Abs(b) }",
        "Abs",
    ),
    no("rounds", "g (float[N] x) => (float[N] y) { a = Cast<to=7>(x) y = Cast<to=1>(a) }"),
    no("wraps", "g (int64[N] x) => (float[N] y) { a = Cast<to=6>(x) y = Cast<to=1>(a) }"),
    no("loses bits", "g (int32[N] x) => (double[N] y) { a = Cast<to=1>(x) y = Cast<to=11>(a) }"),
]  # fmt: skip

NEUTRAL = [
    Case(
        "1: slice of all",
        "g (float[N, 4] x) => (float[N, 4] y) <int64[2] s = {0, 0}, int64[2] e = {2147483647, 4}>"
        "{ a = Slice(x, s, e) y = Abs(a) }", "Abs",
    ),
    Case(
        "1: far ends",
        "g (float[N, M] x) => (float[N, M] y) <int64[1] s = {0}, int64[1] e = "
           "{9223372036854775807}>"
        "{ a = Slice(x, s, e) y = Abs(a) }", "Abs",
    ),
    no(
        "a part", "g (float[N, 4] x) => (float[N, B] y) <int64[2] s = {0, 0}, int64[2] e = {9, 3}>"
        "{ a = Slice(x, s, e) y = Abs(a) }",
    ),
    no(
        "backwards", "g (float[4] x) => (float[B] y) <int64[1] s = {-1}, int64[1] e = {-9}, "
        "int64[1] a = {0}, int64[1] m = {-1}> { b = Slice(x, s, e, a, m) y = Abs(b) }",
    ),
    Case(
        "2: pad by nothing", "g (float[N, 4] x) => (float[N, 4] y) <int64[4] p = {0, 0, 0, 0}>"
        "{ a = Pad(x, p) y = Abs(a) }", "Abs",
    ),
    no("pad", "g (float[N] x) => (float[B] y) <int64[2] p = {0, 1}> { a = Pad(x, p) y = Abs(a) }"),
    Case(
        "3: expand to the same", "g (float[3, 4] x) => (float[3, 4] y) <int64[2] s = {3, 1}>"
        "{ a = Expand(x, s) y = Abs(a) }", "Abs",
    ),
    no(
        "expand to more", "g (float[1, 4] x) => (float[3, 4] y) <int64[2] s = {3, 1}>"
        "{ a = Expand(x, s) y = Abs(a) }",
    ),
    Case(
        "4: tile once", "g (float[N, 4] x) => (float[N, 4] y) <int64[2] s = {1, 1}>"
        "{ a = Tile(x, s) y = Abs(a) }", "Abs",
    ),
    no("tile", "g (float[N] x) => (float[B] y) <int64[1] s = {2}> { a = Tile(x, s) y = Abs(a) }"),
    Case("5: dropout", "g (float[N] x) => (float[N] y) { a = Dropout(x) y = Abs(a) }", "Abs"),
    no(
        "mask is used", "g (float[N] x) => (float[N] y, bool[N] m)"
        "{ a, m = Dropout(x) y = Abs(a) }",
    ),
    Case(
        "6: arithmetic", "g (float[N, 4] x) => (float[N, 4] y) <float z = {0}, float[1] o = {1}>"
        "{ a = Add(z, x) b = Sub(a, z) c = Mul(b, o) d = Div(c, o) e = Pow(d, o) y = Abs(e) }",
        "Abs",
    ),
    no("0 - x", "g (float[N] x) => (float[N] y) <float z = {0}> { a = Sub(z, x) y = Abs(a) }"),
    no(
        "the constant is wider", "g (float[N] x) => (float[1, N] y) <float[1, 1] z = {0}>"
        "{ a = Add(x, z) y = Abs(a) }",
    ),
    no("rank", "g (float[N] x) => (float[N] y) <float[1] z = {2}> { a = Mul(x, z) y = Abs(a) }"),
    Case(
        "7: one input", "g (float[N] x) => (float[N] y)"
        "{ a = Sum(x) b = Concat<axis=0>(a) c = Max(b) y = Abs(c) }", "Abs",
    ),
    Case(
        "8: split into one", "g (float[4] x) => (float[4] y) <int64[1] s = {4}>"
        "{ a = Split(x, s) y = Abs(a) }", "Abs",
    ),
    Case(
        "9: empty parts", "g (float[0, 4] x, float[N, 4] z) => (float[M, 4] y)"
        "{ a = Concat<axis=0>(x, z, z) y = Abs(a) }", "Concat Abs",
    ),
]  # fmt: skip

RESHAPES = [
    Case(
        "1: same shape", "g (float[N, 4] x) => (float[N, 4] y) <int64[2] s = {0, 4}>"
        "{ a = Reshape(x, s) b = Flatten(a) y = Abs(b) }", "Abs",
    ),
    Case(
        "2: the last one counts", "g (float[N, 4] x) => (float[M, 2] y) <int64[2] s = {-1, 2}>"
        "{ a = Flatten<axis=0>(x) y = Reshape(a, s) }", "Reshape",
    ),
    no(
        "0 copies a size", "g (float[N, 4] x) => (float[2, 1, M] y)"
        "<int64[2] r = {2, -1}, int64[3] s = {0, 1, -1}>"
        "{ a = Reshape(x, r) y = Reshape(a, s) }",
    ),
    no(
        "another user", "g (float[N, 4] x) => (float[M, 2] y, float[K] z) <int64[2] s = {-1, 2}, "
        "int64[1] t = {-1}> { a = Reshape(x, t) y = Reshape(a, s) z = Abs(a) }",
    ),
    Case(
        "4: there and back", "g (float[N, 1] x) => (float[N, 1] y) <int64[1] s = {1}>"
        "{ a = Squeeze(x, s) b = Unsqueeze(a, s) y = Abs(b) }", "Abs",
    ),
    Case(
        "5: two Unsqueeze", "g (float[N, 4] x) => (float[A, B, C, D] y)"
        "<int64[1] s = {1}, int64[1] t = {0}> { a = Unsqueeze(x, s) y = Unsqueeze(a, t) }",
        "Unsqueeze",
    ),
    Case(
        "5: two Squeeze", "g (float[1, N, 1, 4] x) => (float[A, B] y)"
        "<int64[1] s = {0}, int64[1] t = {1}> { a = Squeeze(x, s) y = Squeeze(a, t) }", "Squeeze",
    ),
    no(
        "other axes", "g (float[1, N, 1] x) => (float[A, B, C] y) <int64[1] s = {0}, "
        "int64[1] t = {2}> { a = Squeeze(x, s) y = Unsqueeze(a, t) }",
    ),
    no(
        "no axes mean all of size 1", "g (float[1, N] x) => (float[A] y) <int64[0] s = {}>"
        "{ a = Squeeze(x, s) y = Unsqueeze(a, s) }",
    ),
]  # fmt: skip

TRANSPOSES = [
    Case(
        "1: the same order", "g (float[N, M] x) => (float[N, M] y)"
        "{ a = Transpose<perm=[0, 1]>(x) y = Abs(a) }", "Abs",
    ),
    Case(
        "2: there and back", "g (float[N, M, 3] x) => (float[N, M, 3] y)"
        "{ a = Transpose<perm=[1, 2, 0]>(x) b = Transpose<perm=[2, 0, 1]>(a) y = Abs(b) }", "Abs",
    ),
    Case(
        "2: both are one", "g (float[N, M, 3] x) => (float[A, B, C] y)"
        "{ a = Transpose<perm=[1, 2, 0]>(x) y = Transpose(a) }", "Transpose",
    ),
    Case(
        "3: only 1 moves", "g (float[2, 1, 3] x) => (float[2, 3, 1] y)"
        "{ y = Transpose<perm=[0, 2, 1]>(x) }", "Reshape",
    ),
    no("moves", "g (float[N, M] x) => (float[M, N] y) { y = Transpose(x) }"),
]  # fmt: skip

JOINING = [
    Case(
        "1: Concat of Concat", "g (float[N] x, float[M] z) => (float[K] y)"
        "{ a = Concat<axis=0>(x, z) y = Concat<axis=0>(z, a, x) }", "Concat",
    ),
    no(
        "another axis", "g (float[2, 3] x) => (float[4, 6] y)"
        "{ a = Concat<axis=0>(x, x) y = Concat<axis=1>(a, a) }",
    ),
    no(
        "another user of Concat", "g (float[N] x) => (float[K] y, float[L] z)"
        "{ a = Concat<axis=0>(x, x) z = Abs(a) y = Concat<axis=0>(a, x) }",
    ),
    Case(
        "2: Slice of Slice", "g (float[9, 9] x) => (float[A, B] y) <int64[1] s = {1}, "
        "int64[1] e = {7}, int64[1] p = {0}, int64[1] q = {1}>"
        "{ a = Slice(x, s, e, p) y = Slice(a, s, e, q, s) }", "Slice",
    ),
    Case(
        "2: of opset 9", "g (float[9, 9] x) => (float[A, B] y)"
        "{ a = Slice<axes=[0], starts=[1], ends=[4]>(x) "
        "y = Slice<axes=[1], starts=[2], ends=[-1]>(a) }",
        "Slice", opset=9,
    ),
    no(
        "the same axis", "g (float[9, 9] x) => (float[A, B] y) <int64[1] s = {1}, "
        "int64[1] e = {7}, int64[1] p = {0}> { a = Slice(x, s, e, p) y = Slice(a, s, e, p) }",
    ),
    no("no axes", "g (float[N, M] x) => (float[A, B] y) <int64[0] e = {}>"
       "{ a = Slice(x, e, e, e, e) y = Slice(a, e, e, e, e) }"),
]  # fmt: skip

SHARING = [
    Case(
        "1: equal nodes", "g (float[N] x) => (float[N] y)"
        "{ a = LeakyRelu<alpha=0.5>(x) b = LeakyRelu<alpha=0.5>(x) y = Add(a, b) }",
        "LeakyRelu Add",
    ),
    Case(
        "1: in a subgraph", "g (float[N] x, bool c) => (float[N] y) { a = Abs(x) z = Neg(a) "
           "y = If(c)"
        "<then_branch = t () => (float[N] p) { b = Abs(x) p = Exp(b) },"
        " else_branch = e () => (float[N] q) { q = Neg(z) }> }", "Abs Neg If Exp Neg",
    ),
    Case(
        "2: equal constants", "g (float[N] x) => (float[N] y) <float[1] c = {2}, float[1] d = {2}>"
        "{ a = Add(x, c) b = Add(x, d) y = Mul(a, b) }", "Add Mul",
    ),
    no(
        "other attributes", "g (float[N] x) => (float[N] y)"
        "{ a = LeakyRelu<alpha=0.5>(x) b = LeakyRelu<alpha=0.25>(x) y = Add(a, b) }",
    ),
    no("both are outputs", "g (float[N] x) => (float[N] y, float[N] z) { y = Abs(x) z = Abs(x) }"),
    no(
        "an output of a subgraph", "g (float[N] x, bool c) => (float[N] y) { a = Abs(x) z = Neg(a)"
        "y = If(c) <then_branch = t () => (float[N] p) { p = Abs(x) },"
        " else_branch = e () => (float[N] q) { q = Exp(z) }> }",
    ),
]  # fmt: skip

STATIC = [
    Case(
        "1: known sizes", "g (float[N, 3, 8] x) => (int64[1] y) <int64 k = {2}, int64[1] z = {0}, "
        "int64[1] o = {1}> { s = Shape(x) t = Gather(s, k) u = Unsqueeze(t, z) y = Add(u, o) }",
        "Add",
    ),
    Case(
        "2: 0 for a size of the input", "g (float[N, M, 8] x) => (float[A, B, C, D] y)"
        "<int64 a = {0}, int64 b = {1}, int64[1] z = {0}, int64[2] r = {2, 4}>"
        "{ s = Shape(x) p = Gather(s, a) q = Gather(s, b) i = Unsqueeze(p, z) j = Unsqueeze(q, z)"
        " t = Concat<axis=0>(i, j, r) y = Reshape(x, t) }",
        "Reshape",
    ),
    Case(
        "2: -1 for the only open size", "g (float[N, 8] x, float[N] w) => (float[A, B] y)"
        "<int64[1] r = {4}, int64[1] i = {0}, int64[1] two = {2}>"
        "{ n = Shape(x) m = Gather(n, i) k = Mul(m, two) t = Concat<axis=0>(r, k)"
        " y = Reshape(x, t) }", "Reshape",
    ),
    Case(
        "3: the same size twice", "g (float[N, M] x) => (int64[2] y) <int64[1] i = {0}>"
        "{ a = Shape(x) b = Abs(x) c = Shape(b) d = Gather(a, i) e = Gather(c, i)"
        " y = Concat<axis=0>(d, e) }", "Shape Gather Concat",
    ),
    no(
        "two sizes are open", "g (float[N, M] x, float[M, N] w) => (float[A, B] y)"
        "{ s = Shape(w) y = Reshape(x, s) }",
        feeds={"x": np.zeros((2, 3), np.float32), "w": np.zeros((3, 2), np.float32)},
    ),
    Case(
        "a number of two dimensions", "g (float[2, 3] x) => (int64[A, B] y) <int64 k = {0}, "
        "int64[2] a = {0, 1}, int64[2] r = {2, 3}>"
        "{ s = Shape(x) d = Gather(s, k) u = Unsqueeze(d, a) y = Tile(u, r) }", "Unsqueeze Tile",
    ),
    Case(
        "no axes, and no product", "g (float[2, 3] x) => (int64[A] y) { s = Shape(x) "
        "p = ReduceProd<noop_with_empty_axes=1>(s) y = Neg(p) }", "ReduceProd Neg", opset=18,
    ),
    Case(
        "a product that wraps", "g (float[65536, 32768, 0] x) => (int32[A] y) <int64[1] b = {0}, "
        "int64[1] e = {2}> { s = Shape(x) c = Cast<to=6>(s) k = Slice(c, b, e) d = Mul(k, k) "
        "y = Neg(d) }", "Mul Neg",
    ),
    no("computed parts", "g (float[6] x, int64[2] p) => (int64[A] y) "
       "{ a, b = Split(x, p) s = Shape(a) y = Neg(s) }"),
    no("no axes mean all of size 1", "g (float[1, 3] x) => (int64[A] y) <int64[0] e = {}>"
       "{ s = Squeeze(x, e) h = Shape(s) y = Neg(h) }"),
    no("keys and values beside the query", "g (float[1, 2, 64] x, int32[1] l, int32 t) => "
       "(int64[A] y, float[B, C, D, E] k, float[F, G, H, I] v) { o, k, v = "
       "com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(x, , , , , l, t) "
       "s = Shape(o) y = Neg(s) }"),
]  # fmt: skip

CONV = "float[N, 2, 6, 6] x) => (float[A, B, C, D] y)"
W = "float[3, 2, 1, 1] w = {1, 2, 3, 4, 5, 6}"
PADS = "int64[8] p = {0, 0, 1, 2, 0, 0, 0, 1}"
PADDING = [
    Case(
        "1: Conv", f"g ({CONV} <{W}, {PADS}> {{ a = Pad(x, p) y = Conv<pads=[1, 0, 0, 0]>(a, w) }}",
        "Conv",
    ),
    Case(
        "1: opset 9", f"g ({CONV} <{W}>"
        "{ a = Pad<pads=[0, 0, 1, 2, 0, 0, 0, 1]>(x) y = Conv(a, w) }", "Conv", opset=9,
    ),
    Case(
        "2: AveragePool", f"g ({CONV} <{PADS}> {{ a = Pad(x, p) "
        "y = AveragePool<kernel_shape=[3, 3], count_include_pad=1>(a) }", "AveragePool",
    ),
    Case(
        "3: MaxPool", f"g ({CONV} <{PADS}, float v = {{-3.4028235e38}}> {{ a = Pad(x, p, v) "
        "y = MaxPool<kernel_shape=[3, 3]>(a) }", "MaxPool",
    ),
    no("0 is no lowest", f"g ({CONV} <{PADS}> {{ a = Pad(x, p) y = MaxPool<kernel_shape=[3, "
       f"3]>(a) }}"),
    no("pads are not counted", f"g ({CONV} <{PADS}> {{ a = Pad(x, p) y = "
       f"AveragePool<kernel_shape=[3, 3]>(a) }}"),
    no("channels", f"g (float[N, 1, 6, 6] x) => (float[A, B, C, D] y) <{W}, "
       "int64[8] p = {0, 1, 0, 0, 0, 0, 0, 0}> { a = Pad(x, p) y = Conv(a, w) }"),
    no("negative", f"g ({CONV} <{W}, int64[8] p = {{0, 0, -1, 0, 0, 0, 0, 0}}>"
       "{ a = Pad(x, p) y = Conv(a, w) }"),
    no("reflects", f"g ({CONV} <{W}, {PADS}> {{ a = Pad<mode=\"reflect\">(x, p) y = Conv(a, w) }}"),
    no("automatic", f"g ({CONV} <{W}, {PADS}> {{ a = Pad(x, p) y = "
       f"Conv<auto_pad=\"SAME_UPPER\">(a, w) }}"),
    no("places", f"g ({CONV[:-1]}, int64[E, F, G, H] z) <{PADS}, float v = {{-3.4028235e38}}> "
       "{ a = Pad(x, p, v) y, z = MaxPool<kernel_shape=[3, 3]>(a) }"),
    no("a window begins in the padding", f"g ({CONV} <int64[8] p = {{0, 0, 0, 0, 0, 0, 1, 1}}, "
       "float v = {-3.4028235e38}> { a = Pad(x, p, v) "
       "y = MaxPool<kernel_shape=[2, 2], strides=[6, 6], ceil_mode=1>(a) }"),
    no("a window is all padding", f"g ({CONV} <{PADS}, float v = {{-3.4028235e38}}> "
       "{ a = Pad(x, p, v) y = MaxPool<kernel_shape=[2, 2]>(a) }"),
    no("a window is all padding: mean", f"g ({CONV} <{PADS}> {{ a = Pad(x, p) "
       "y = AveragePool<kernel_shape=[2, 2], count_include_pad=1>(a) }"),
    no("a window with gaps", f"g ({CONV} <{PADS}, float v = {{-3.4028235e38}}> {{ "
       "a = Pad(x, p, v) y = MaxPool<kernel_shape=[3, 3], dilations=[2, 2]>(a) }"),
    no("another user", f"g (float[N, 2, 6, 6] x) => (float[A, B, C, D] y, float[E, F, G, H] z)"
       f" <{W}, {PADS}> {{ a = Pad(x, p) z = Abs(a) y = Conv(a, w) }}"),
]  # fmt: skip


def scatter(indices: str, sizes: str = "2, 3, 2", attributes: str = "", rows: str = "4") -> str:
    """A graph with ScatterND of [rows, 3] by indices of some sizes."""
    updates = ", ".join(sizes.split(", ")[:-1])
    return (
        f"g (float[{rows}, 3] x, float[{updates}] u) => (float[{rows}, 3] y) "
        f"<int64[{sizes}] i = {{{indices}}}> {{ y = ScatterND{attributes}(x, i, u) }}"
    )


SCATTERING = [
    Case("rows", scatter("2, 0, 2, 1, 2, 2, 0, 0, 0, 1, 0, 2"), "ScatterND"),
    Case("rows of unknown number", scatter("1, 0, 1, 1, 1, 2, 0, 0, 0, 1, 0, 2", rows="N"),
         "ScatterND"),
    Case("counted from the end", scatter("-1, -3, -1, -2, -1, -1, 1, 0, 1, 1, 1, 2"), "ScatterND"),
    Case("added, one row twice", scatter("2, 0, 2, 1, 2, 2, 2, 0, 2, 1, 2, 2", attributes=
         '<reduction="add">'), "ScatterND"),
    Case("two dimensions", "g (float[3, 2, 2] x, float[2, 2, 2] u) => (float[3, 2, 2] y) "
         "<int64[2, 2, 2, 3] i = {2, 0, 0, 2, 0, 1, 2, 1, 0, 2, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, "
         "0, 1, 1}> { y = ScatterND(x, i, u) }", "ScatterND"),
    no("a part of a row", scatter("2, 0, 2, 1, 0, 0, 0, 1", "2, 2, 2")),
    no("another order", scatter("2, 1, 2, 0, 2, 2, 0, 0, 0, 1, 0, 2")),
    no("of two rows", scatter("2, 0, 1, 1, 2, 2, 0, 0, 0, 1, 0, 2")),
    no("columns of unknown number", scatter("0, 0, 1, 0, 2, 0", "3, 2", rows="N").replace(
       "[N, 3]", "[3, N]")),
    no("no index would be left", "g (float[3] x, float[3] u) => (float[3] y) "
       "<int64[3, 1] i = {0, 1, 2}> { y = ScatterND(x, i, u) }"),
    no("an input", "g (float[4, 3] x, float[2, 3] u, int64[2, 3, 2] i) => (float[4, 3] y) "
       "{ y = ScatterND(x, i, u) }", feeds={"i": np.zeros((2, 3, 2), np.int64)}),
]  # fmt: skip


def turned(attributes: str = "", inputs: str = "x, w, b", weights: str = "4, 3, 2, 3") -> str:
    """A ConvTranspose of an image of four channels, in two groups if not said otherwise."""
    count = math.prod(map(int, weights.split(",")))
    numbers = ", ".join(str((7 * k) % 11 - 5) for k in range(count))
    return (
        f"g (float[N, 4, 6, 5] x) => (float[A, B, C, D] y) <float[{weights}] w = {{{numbers}}}, "
        "float[6] b = {1, 2, 3, 4, 5, 6}> "
        f"{{ y = ConvTranspose <{attributes or 'group = 2'}> ({inputs}) }}"
    )


TURNED = [
    Case("groups", turned(), "Conv"),
    Case("pads, dilations", turned("group = 2, pads = [1, 0, 0, 2], dilations = [3, 1]"), "Conv"),
    Case("no bias", turned(inputs="x, w"), "Conv"),
    Case("one group", turned("kernel_shape = [3, 1]", weights="4, 6, 3, 1"), "Conv"),
    no("strides", turned("group = 2, strides = [1, 2]")),
    no("padding of the output", turned("group = 2, strides = [2, 2], output_padding = [0, 1]")),
    no("a shape", turned("group = 2, output_shape = [7, 7]")),
    no("automatic pads", turned('group = 2, auto_pad = "SAME_UPPER"')),
    no("more is cut off", turned("group = 2, pads = [2, 0, 0, 0]")),
    no("weights of a run", "g (float[N, 1, 6, 5] x, float[1, 1, 2, 2] w) => (float[A, B, C, D] y) "
       "{ y = ConvTranspose (x, w) }"),
]  # fmt: skip

VECTORS = (
    "float[3] g1 = {1.5, -2, 0.5}, float[3] b1 = {1, 2, 3}, float[3] m1 = {0.5, 1, 0}, "
    "float[3] v1 = {1, 4, 0.25}"
)
TERMS = [
    Case(
        "1: terms", f"g ({CONV} <{W}, float[3, 1, 1] t = {{1, 2, 3}}, float[1] u = {{4}}>"
        "{ a = Conv(x, w) b = Add(t, a) c = Sub(b, u) y = Sub(u, c) }", "Conv",
    ),
    Case(
        "2: scales", f"g ({CONV} <{W}, float[3, 1, 1] t = {{1, 2, 3}}, float u = {{4}}, {VECTORS}>"
        "{ a = Conv(x, w, b1) b = Mul(t, a) y = Div(b, u) }", "Conv",
    ),
    Case(
        "3: BatchNormalization", f"g ({CONV} <{W}, {VECTORS}>"
        "{ a = Conv(x, w) y = BatchNormalization<epsilon=0.01>(a, g1, b1, m1, v1) }", "Conv",
    ),
    Case(
        "3: of ConvTranspose in groups", "g (float[N, 2, 6, 6] x) => (float[A, B, C, D] y)"
        "<float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[4] g1 = {1.5, -2, 0.5, 1}, "
        "float[4] b1 = {1, 2, 3, 4}, float[4] m1 = {0.5, 1, 0, 2}, float[4] v1 = {1, 4, 0.25, 9}>"
        "{ a = ConvTranspose<group=2>(x, w) y = BatchNormalization(a, g1, b1, m1, v1) }",
        "ConvTranspose",
    ),
    Case(
        "3: of Gemm", f"g (float[N, 2] x) => (float[N, 3] y) <float[3, 2] w = {{1, 2, 3, 4, 5, 6}},"
        f"{VECTORS}> {{ a = Gemm<transB=1, beta=0.5, alpha=2.0>(x, w, b1) "
        "y = BatchNormalization(a, g1, b1, m1, v1) }", "Gemm",
    ),
    Case(
        "MatMul", "g (float[N, M, 2] x) => (float[N, M, 3] y)"
        "<float[2, 3] w = {1, 2, 3, 4, 5, 6}, float[3] t = {1, 2, 3}>"
        "{ a = MatMul(x, w) y = Mul(a, t) }", "MatMul",
    ),
    Case(
        "MatMul becomes Gemm", f"g (float[N, 2] x) => (float[N, 3] y)"
        f"<float[2, 3] w = {{1, 2, 3, 4, 5, 6}}, {VECTORS}>"
        "{ a = MatMul(x, w) y = BatchNormalization(a, g1, b1, m1, v1) }", "Gemm",
    ),
    no("differs in a channel", f"g ({CONV} <{W}, float[6] t = {{1, 2, 3, 4, 5, 6}}>"
       "{ a = Conv(x, w) y = Add(a, t) }"),
    no("wider", f"g (float[N, 2, 6, 6] x) => (float[A, B, C, D, E] y) <{W}, "
       "float[1, 1, 3, 1, 1] t = {1, 2, 3}> { a = Conv(x, w) y = Mul(a, t) }"),
    no("another user", f"g (float[N, 2, 6, 6] x) => (float[A, B, C, D] y, float[E, F, G, H] z)"
       f" <{W}, float t = {{2}}> {{ a = Conv(x, w) z = Abs(a) y = Mul(a, t) }}"),
    no("weights are an input", f"g (float[3, 2, 1, 1] w, {CONV} <float t = {{2}}>"
       "{ a = Conv(x, w) y = Mul(a, t) }"),
    no("weights have another user", f"g (float[N, 2, 6, 6] x) => (float[A, B, C, D] y, "
       f"float[3, 2, 1, 1] z) <{W}, float t = {{2}}> {{ z = Abs(w) a = Conv(x, w) y = "
          f"Mul(a, t) }}"),
    no("bias is an input", f"g (float[3] b, {CONV} <{W}, float t = {{2}}>"
       "{ a = Conv(x, w, b) y = Mul(a, t) }"),
    no("quotient", f"g ({CONV} <{W}, float t = {{2}}> {{ a = Conv(x, w) y = Div(t, a) }}"),
    no("a product overflows", "g (float[N, 1, 3, 3] x) => (float[A, B, C, D] y) "
       "<float[1, 1, 1, 1] w = {1e30}, float s = {1e30}> { c = Conv(x, w) y = Mul(c, s) }",
       feeds={"x": np.zeros((2, 1, 3, 3), np.float32)}),
    no("a variance is 0", "g (float[N, 1, 3, 3] x) => (float[A, B, C, D] y) "
       "<float[1, 1, 1, 1] w = {0}, float[1] s = {1}, float[1] z = {0}, float[1] v = {0}> "
       "{ c = Conv(x, w) y = BatchNormalization<epsilon = 0.0>(c, s, z, z, v) }",
       feeds={"x": np.zeros((0, 1, 3, 3), np.float32)}),
]  # fmt: skip

GEMM = [
    Case(
        "1: rows", "g (float[N, K] a, float[K, 3] b) => (float[N, 3] y) <float[3] c = {1, 2, 3}>"
        "{ m = MatMul(a, b) y = Add(c, m) }", "Gemm",
    ),
    Case(
        "1: whole", "g (float[2, K] a, float[K, 3] b, float[2, 3] c) => (float[2, 3] y)"
        "{ m = MatMul(a, b) y = Add(m, c) }", "Gemm",
    ),
    no("rank 3", "g (float[1, N, K] a, float[K, 3] b) => (float[1, N, 3] y) <float[3] c = "
       "{1, 2, 3}>"
       "{ m = MatMul(a, b) y = Add(c, m) }"),
    no("wider", "g (float[1, K] a, float[K, 3] b, float[N, 3] c) => (float[N, 3] y)"
       "{ m = MatMul(a, b) y = Add(c, m) }"),
    no("a name that may be 1", "g (float[N, K] a, float[K, M] b, float[L] c) => (float[N, M] y)"
       "{ m = MatMul(a, b) y = Add(c, m) }", feeds={"c": np.ones(1, np.float32)}),
    no("another user", "g (float[N, K] a, float[K, 3] b) => (float[N, 3] y, float[N, 3] z)"
       "<float[3] c = {1, 2, 3}> { m = MatMul(a, b) z = Abs(m) y = Add(c, m) }"),
]  # fmt: skip

FLAT = [
    Case(
        "1: Gemm", "g (float[N, M, 2] x) => (float[A, B, C] y) <float[2, 3] w = {1, 2, 3, "
           "4, 5, 6}, "
        "float[3] b = {1, 2, 3}, int64[2] r = {-1, 2}, int64[1] three = {3}, int64[1] i = {0}, "
        "int64[1] j = {2}> { s = Shape(x) f = Slice(s, i, j) t = Concat<axis=0>(f, three) "
        "a = Reshape(x, r) p = Gemm(a, w, b) y = Reshape(p, t) }", "MatMul Add",
    ),
    Case(
        "1: MatMul, weights in rows", "g (float[4, M, 2] x) => (float[A, B, C] y) "
        "<float[2, 3] w = {1, 2, 3, 4, 5, 6}, int64[2] r = {-1, 2}, int64[3] t = {4, -1, 3}>"
        "{ a = Reshape(x, r) p = MatMul(a, w) y = Reshape(p, t) }", "MatMul",
    ),
    no("other rows", "g (float[2, 4, 2] x) => (float[A, B, C] y) "
       "<float[2, 3] w = {1, 2, 3, 4, 5, 6}, int64[2] r = {-1, 2}, int64[3] t = {4, -1, 3}>"
       "{ a = Reshape(x, r) p = MatMul(a, w) y = Reshape(p, t) }"),
    no("scales", "g (float[4, M, 2] x) => (float[A, B, C] y) "
       "<float[2, 3] w = {1, 2, 3, 4, 5, 6}, int64[2] r = {-1, 2}, int64[3] t = {4, -1, 3}>"
       "{ a = Reshape(x, r) p = Gemm<alpha=2.0>(a, w) y = Reshape(p, t) }"),
    no("weights are an input", "g (float[4, M, 2] x, float[2, 3] w) => (float[A, B, C] y) "
       "<int64[2] r = {-1, 2}, int64[3] t = {4, -1, 3}>"
       "{ a = Reshape(x, r) p = MatMul(a, w) y = Reshape(p, t) }"),
]  # fmt: skip

BRANCHES = (
    "<then_branch = t () => (float[N] p) <float[1] k = {3}> { i = Exp(z) p = Add(i, k) },"
    " else_branch = e () => (float[N] q) { q = Identity(z) }>"
)
IFS = [
    Case("1: then", "g (float[N] x) => (float[N] y) <bool c = {1}>"
         f"{{ z = Abs(x) a = If(c) {BRANCHES} y = Neg(a) }}", "Abs Exp Add Neg"),
    Case("2: an output", "g (float[N] x) => (float[N] y) <bool c = {1}>"
         f"{{ z = Abs(x) y = If(c) {BRANCHES} }}", "Abs Exp Add Identity"),
    Case("1: else", "g (float[N] x) => (float[N] y) <bool c = {0}>"
         f"{{ z = Abs(x) a = If(c) {BRANCHES} y = Neg(a) }}", "Abs Identity Neg"),
    no("can be fed", "g (float[N] x, bool c = {0}) => (float[N] y)"
       f"{{ z = Abs(x) a = If(c) {BRANCHES} y = Neg(a) }}"),
]  # fmt: skip

ALL: list[tuple[Pass, list[Case]]] = [
    (simplify_casts, CASTS),
    (remove_neutral, NEUTRAL),
    (simplify_reshapes, RESHAPES),
    (simplify_transposes, TRANSPOSES),
    (join_movements, JOINING),
    (share_common, SHARING),
    (fold_pads, PADDING),
    (scatter_slices, SCATTERING),
    (turn_transposed, TURNED),
    (fold_channel_terms, TERMS),
    (fuse_matmul_add, GEMM),
    (unflatten_products, FLAT),
    (inline_constant_if, IFS),
]


@pytest.mark.parametrize(
    ("change", "case"),
    [pytest.param(p, c, id=f"{p.__name__}-{c.name}") for p, cases in ALL for c in cases],
)
def test_case(change: Pass, case: Case) -> None:
    check(case, _repeated(change))


def test_many_concat_in_a_row_are_joined_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    node = Rewriter.node

    def counting(self: Rewriter, name: str, inputs: Inputs, *rest: Any, **options: Any) -> ir.Node:
        made.append(len(inputs))
        return node(self, name, inputs, *rest, **options)

    monkeypatch.setattr(Rewriter, "node", counting)
    parts = " ".join(f"a{k} = Concat<axis=0>(a{k - 1}, x)" for k in range(1, 50))
    model = model_of(f"g (float[N] x) => (float[M] y) {{ a0 = Neg(x) {parts} y = Neg(a49) }}")
    assert join_movements(model, ORTOLAN)
    assert operators(model) == "Neg Concat Neg"
    assert made == [50]


def test_a_size_of_a_value_is_no_product() -> None:
    first, second = ir.Value(name="n"), ir.Value(name="2*n")
    assert own_size(second, 0) != multiply(2, own_size(first, 0))
    assert len({own_size(ir.Value(name=name), 0) for name in ("a*b", "a.b", "a\\.b", "a\\*b")}) == 4


@pytest.mark.parametrize("operator", ["Mul", "Add", "Sub"])
def test_sizes_that_are_computed_over_and_over_stay_short(operator: str) -> None:
    parts = " ".join(
        f"s{k} = {operator}(s{k - 1}, t{k - 1}) t{k} = {operator}(t{k - 1}, s{k - 1})"
        for k in range(1, 16)
    )
    model = model_of(
        "g (float[N, M] x) => (int64 y) <int64 a = {0}, int64 b = {1}> "
        f"{{ h = Shape(x) s0 = Gather(h, a) t0 = Gather(h, b) {parts} y = Neg(s15) }}"
    )
    prepare(model)
    dimensions = Dimensions()
    for node in model.graph:
        found = dimensions.elements(node.outputs[0]) or ()
        assert all(len(str(element)) <= 1000 for element in found)


def test_shapes_that_grow_over_and_over_stay_short() -> None:
    parts = " ".join(
        f"u{k} = Unsqueeze(f{k - 1}, zero) t{k} = Transpose<perm=[1, 0]>(u{k}) "
        f"p{k} = MatMul(t{k}, u{k}) f{k} = Reshape(p{k}, all)"
        for k in range(1, 16)
    )
    for size in ("N", "1000"):
        model = model_of(
            f"g (float[{size}] f0) => (float[A] y) <int64[1] zero = {{0}}, int64[1] all = {{-1}}> "
            f"{{ {parts} y = Neg(f15) }}"
        )
        prepare(model)
        for node in model.graph:
            found = known_shape(node.outputs[0]) or ()
            assert all(len(str(element)) <= 1000 for element in found)


@pytest.mark.parametrize("operator", ["Squeeze", "Unsqueeze"])
def test_axes_that_no_tensor_has_take_no_time(operator: str) -> None:
    model = model_of(
        "g (float[N] x) => (float y) <int64[1] s = {1099511627776}>"
        f"{{ a = {operator}(x, s) y = {operator}(a, s) }}"
    )
    model.graph.inputs[0].shape = None
    prepare(model)
    assert not simplify_reshapes(model, ORTOLAN)


def test_an_order_without_axes_is_none() -> None:
    model = model_of("g (float[2, 3] x) => (float[A, B] y) { a = Transpose<perm:ints=[]>(x) "
                     "y = Abs(a) }")  # fmt: skip
    prepare(model)
    assert not simplify_transposes(model, ORTOLAN)


def _repeated(change: Pass) -> Pass:
    """The pass until it finds nothing more."""

    def run(model: ir.Model, target: Target) -> bool:
        modified = False
        while change(model, target):
            modified = True
        return modified

    return run


@pytest.mark.parametrize("case", STATIC, ids=[case.name for case in STATIC])
def test_static_shapes(case: Case) -> None:
    model = model_of(case.body, case.opset)
    refine_shapes(model)
    if not case.changed:
        assert not compute_shapes(model, ORTOLAN)
        return

    def run(model: ir.Model, target: Target) -> bool:
        refine_shapes(model)
        modified = compute_shapes(model, target)
        remove_dead_code(model)
        return modified

    check(case, run, shapes=False)


def test_target_without_the_operator_gets_none_of_it() -> None:
    model = model_of(GEMM[0].body)
    prepare(model)
    assert not fuse_matmul_add(model, Nothing())
    assert operators(model) == "MatMul Add"
