"""The texts of the corpus (tests/corpus.py): models that need nothing but words.

A simple entry is a model with the shapes of its inputs, a set for each run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Simple:
    """A model and shapes of its inputs, for each run."""

    text: str
    shapes: Sequence[Sequence[Sequence[int]]]
    not_yet: str = ""


_NESTED_IF = """
<ir_version: 8, opset_import: ["" : 17]>
nested (float[n] x, bool a, bool b) => (float[m] y) {
  outer = Abs (x)
  y = If (a) <
    then_branch = one () => (float[m] p) {
      inner = Add (outer, x)
      p = If (b) <
        then_branch = two () => (float[m] q) { t = Mul (inner, outer)  q = Sub (t, x) },
        else_branch = three () => (float[m] q) { q = Concat <axis = 0> (inner, outer, x) }
      >
    },
    else_branch = four () => (float[m] p) {
      p = If (b) <
        then_branch = five () => (float[m] q) { q = Neg (outer) },
        else_branch = six () => (float[m] q) { q = Identity (x) }
      >
    }
  >
}
"""

_GROWING_LOOP = """
<ir_version: 8, opset_import: ["" : 17]>
growing (float[n] x, int64 trips) => (float[m] grown, float[k, 1] sums, float last) {
  go = Constant <value = bool {1}> ()
  zero = Constant <value = float {0}> ()
  grown, last, sums = Loop (trips, go, x, zero) <
    body = step (int64 i, bool on, float[p] state, float total)
      => (bool next, float[q] longer, float sum, float[1] part) {
      next = Identity (on)
      number = Cast <to = 1> (i)
      axes = Constant <value = int64[1] {0}> ()
      row = Unsqueeze (number, axes)
      longer = Concat <axis = 0> (state, row)
      part = ReduceSum <keepdims = 1> (longer)
      one = Squeeze (part, axes)
      sum = Add (total, one)
    }
  >
}
"""

_WHILE_LOOP = """
<ir_version: 8, opset_import: ["" : 17]>
while_loop (float[n] x) => (float[n] y, int64 count) {
  go = Constant <value = bool {1}> ()
  zero = Constant <value = int64 {0}> ()
  y, count = Loop ("", go, x, zero) <
    body = step (int64 i, bool on, float[n] state, int64 seen)
      => (bool next, float[n] half, int64 now) {
      two = Constant <value = float {2}> ()
      one = Constant <value = int64 {1}> ()
      half = Div (state, two)
      now = Add (seen, one)
      size = ReduceL1 <keepdims = 0> (half)
      limit = Constant <value = float {0.25}> ()
      next = Greater (size, limit)
    }
  >
}
"""

_SCAN = """
<ir_version: 8, opset_import: ["" : 17]>
scanned (float[2] state, float[t, 2] a, float[2, t] b) => (float[2] last, float[2, t] all) {
  scale = Constant <value = float[1] {0.5}> ()
  last, all = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
    scan_output_axes = [1], scan_output_directions = [1],
    body = step (float[2] s, float[2] p, float[2] q) => (float[2] next, float[2] out) {
      m = Mul (s, scale)
      n = Add (m, p)
      next = Sub (n, q)
      out = Tanh (next)
    }
  > (state, a, b)
}
"""

_SHADOWING = """
<ir_version: 8, opset_import: ["" : 17]>
shadowing (float[n] x, bool a) => (float[n] y, float[n] z) {
  y = If (a) <
    then_branch = one () => (float[n] o) { t = Neg (x)  o = Exp (t) },
    else_branch = two () => (float[n] o) { t = Abs (x)  o = Sqrt (t) }
  >
  t = Add (y, x)
  z = If (a) <
    then_branch = three () => (float[n] o) { o = Mul (t, y) },
    else_branch = four () => (float[n] o) { o = Sub (t, y) }
  >
}
"""

_QDQ = """
<ir_version: 8, opset_import: ["" : 13]>
quantized (float[n, 2, 6, 6] x) => (float[n, 3, 4, 4] y)
<float s = {0.03}, uint8 z = {120}, float[3] ws = {0.01, 0.02, 0.03}, int8[3] wz = {0, 0, 0},
 float bs = {0.05}, uint8 bz = {100},
 int8[3, 2, 3, 3] w = {1, -2, 3, -4, 5, -6, 7, -8, 9, 10, -11, 12, -13, 14, -15, 16, -17, 18,
   -19, 20, -21, 22, -23, 24, -25, 26, -27, 28, -29, 30, -31, 32, -33, 34, -35, 36,
   37, -38, 39, -40, 41, -42, 43, -44, 45, -46, 47, -48, 49, -50, 51, -52, 53, -54}>
{
  xq = QuantizeLinear (x, s, z)
  xf = DequantizeLinear (xq, s, z)
  wf = DequantizeLinear <axis = 0> (w, ws, wz)
  c = Conv <kernel_shape = [3, 3]> (xf, wf)
  r = Relu (c)
  yq = QuantizeLinear (r, bs, bz)
  y = DequantizeLinear (yq, bs, bz)
}
"""

_EMPTY = """
<ir_version: 8, opset_import: ["" : 17]>
empty (float[n, 3] x, float[3, 2] w) => (float[n, 2] y, float[1, 3] sum, float[m, 3] both,
  int64[2] shape, float[n, 3] soft, float[k, 3] picked)
{
  y = MatMul (x, w)
  axes = Constant <value = int64[1] {0}> ()
  sum = ReduceSum (x, axes)
  row = ReduceSum (w)
  both = Concat <axis = 0> (x, x)
  shape = Shape (x)
  soft = Softmax (x)
  none = Constant <value = int64[0] {}> ()
  picked = Gather (both, none)
}
"""

_LEFT_OUT = """
<ir_version: 8, opset_import: ["" : 17]>
left_out (float[t, 1, 3] x, float[1, 1, 4, 4] image) => (float[t, 1, 1, 2] y,
  float[1, 1, 8, 8] big, float[t, 1, 3] low) <float[1, 6, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6,
    0.7, 0.8, 0.9, 0.1, 0.2, 0.3, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6},
  float[1, 6, 2] r = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7,
    0.8, 0.9, 0.1, 0.2, 0.3}, float[1, 1, 2] h = {0.5, -0.5}, float most = {0.5},
    float[4] scales = {1, 1, 2, 2}>
{
  y, unused = GRU <hidden_size = 2> (x, w, r, "", "", h)
  big = Resize <mode = "nearest"> (image, "", scales)
  low = Clip (x, "", most)
}
"""

_UNUSED = """
<ir_version: 8, opset_import: ["" : 13]>
unused (float[n, 4] x, float[k] ignored) => (float[n, 1] y)
<float[2] nobody = {1, 2}, int64[2] parts = {1, 3}>
{
  a, b = Split <axis = 1> (x, parts)
  d, mask = Dropout (a)
  dead = Exp (b)
  deader = Neg (dead)
  y = Tanh (d)
}
"""

_SHAPE_ARITHMETIC = """
<ir_version: 6, opset_import: ["" : 11]>
arithmetic (float[n, c, h, w] x) => (float[n, a, c] y, float[n, c, p, q] half) {
  s0 = Shape (x)
  zero = Constant <value = int64 {0}> ()
  n = Gather <axis = 0> (s0, zero)
  s1 = Shape (x)
  one = Constant <value = int64 {1}> ()
  c = Gather <axis = 0> (s1, one)
  n1 = Unsqueeze <axes = [0]> (n)
  c1 = Unsqueeze <axes = [0]> (c)
  rest = Constant <value = int64[1] {-1}> ()
  target = Concat <axis = 0> (n1, rest, c1)
  t = Transpose <perm = [0, 2, 3, 1]> (x)
  y = Reshape (t, target)
  hw = Slice (s0, two, four)
  halves = Div (hw, twos)
  start = Constant <value = int64[2] {0, 0}> ()
  axes = Constant <value = int64[2] {2, 3}> ()
  half = Slice (x, start, halves, axes)
  twos = Constant <value = int64[1] {2}> ()
  two = Constant <value = int64[1] {2}> ()
  four = Constant <value = int64[1] {4}> ()
}
"""

_FUNCTIONS = """
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
functions (float[n, 3] x) => (float[n, 3] y) {
  a = local.Twice <factor = 3.0> (x)
  y = local.Norm (a)
}
<domain: "local", opset_import: ["" : 17]>
Twice <factor> (v) => (r) {
  k = Constant <value_float: float = @factor> ()
  r = Mul (v, k)
}
<domain: "local", opset_import: ["" : 17, "local" : 1]>
Norm (v) => (r) {
  w = local.Twice <factor = 0.5> (v)
  m = ReduceMean <axes = [-1]> (w)
  r = Sub (w, m)
}
"""

_UNKNOWN_RANK = """
<ir_version: 8, opset_import: ["" : 17]>
unknown (float[] x) => (float[] y) {
  s = Shape (x)
  r = Size (s)
  z = ReduceSum <keepdims = 1> (x)
  q = Sqrt (z)
  f = Cast <to = 1> (r)
  a = Mul (x, x)
  y = Add (a, f)
}
"""

_STRINGS = """
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
strings (string[n] words) => (int64[n] codes) {
  codes = ai.onnx.ml.LabelEncoder <keys_strings = ["word 0", "word 2"], values_int64s = [7, 9],
    default_int64 = -1> (words)
}
"""

_SEQUENCE = """
<ir_version: 8, opset_import: ["" : 17]>
sequence (float[n, 2] x) => (float[2, n] y, float[1, 2] first) {
  rows = SplitToSequence <axis = 0> (x)
  zero = Constant <value = int64 {0}> ()
  first = SequenceAt (rows, zero)
  all = ConcatFromSequence <axis = 0> (rows)
  y = Transpose (all)
}
"""

SIMPLE = {
    "nested-if": Simple(_NESTED_IF, [[[3], [], []]] * 6),
    "growing-loop": Simple(_GROWING_LOOP, [[[3], []], [[1], []], [[0], []]]),
    "while-loop": Simple(_WHILE_LOOP, [[[3]], [[5]]]),
    "scan": Simple(_SCAN, [[[2], [t, 2], [2, t]] for t in (4, 1, 6)]),
    "shadowing": Simple(_SHADOWING, [[[3], []]] * 4),
    "qdq": Simple(_QDQ, [[[1, 2, 6, 6]], [[2, 2, 6, 6]]]),
    "empty-tensors": Simple(_EMPTY, [[[n, 3], [3, 2]] for n in (0, 2, 0)]),
    "left-out-inputs": Simple(_LEFT_OUT, [[[t, 1, 3], [1, 1, 4, 4]] for t in (2, 5)]),
    "unused-values": Simple(_UNUSED, [[[2, 4], [3]]]),
    "shape-arithmetic": Simple(_SHAPE_ARITHMETIC, [[[2, 3, 4, 5]], [[1, 2, 7, 6]]]),
    "functions": Simple(_FUNCTIONS, [[[2, 3]]]),
    "unknown-rank": Simple(_UNKNOWN_RANK, [[[2, 3]], [[4]], [[]]]),
    "strings": Simple(_STRINGS, [[[5]]]),
    "sequence": Simple(_SEQUENCE, [[[3, 2]]]),
}


def versioned(version: int) -> str:
    """A network whose operators take attributes in old opsets and inputs in new ones.

    Weights w, scale, bias, mean and variance are to be added.
    """
    constants: list[str] = []

    def tensor(name: str, values: Sequence[float], kind: str = "int64") -> str:
        numbers = ", ".join(map(str, values))
        constants.append(f"{name} = Constant <value = {kind}[{len(values)}] {{{numbers}}}> ()")
        return name

    def scalar(name: str, value: float) -> str:
        constants.append(f"{name} = Constant <value = float {{{value}}}> ()")
        return name

    lines = [
        "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)",
        "n = BatchNormalization (c, scale, bias, mean, variance)",
        "r = Clip <min = -0.5, max = 2.0> (n)" if version < 11
        else f"r = Clip (n, {scalar('low', -0.5)}, {scalar('high', 2.0)})",
        "p = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (r)" if version < 11
        else f"p = Pad (r, {tensor('pads', [0, 0, 1, 1, 0, 0, 1, 1])})",
        "m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (p)",
        _resize(version, tensor),
        "s = Slice <axes = [2, 3], starts = [1, 1], ends = [9, 9]> (u)" if version < 10
        else f"s = Slice (u, {tensor('starts', [1, 1])}, {tensor('ends', [9, 9])},"
        f" {tensor('where', [2, 3])})",
        "d = Dropout (s)",
        "a = ReduceSum <axes = [2, 3], keepdims = 1> (d)" if version < 13
        else f"a = ReduceSum <keepdims = 1> (d, {tensor('axes', [2, 3])})",
        "q = Squeeze <axes = [2, 3]> (a)" if version < 13 else "q = Squeeze (a, axes)",
        "e = Unsqueeze <axes = [2]> (q)" if version < 13
        else f"e = Unsqueeze (q, {tensor('two', [2])})",
        "y = Softmax <axis = 1> (q)",
        "z = Transpose <perm = [2, 0, 1]> (e)",
    ]  # fmt: skip
    body = "\n  ".join([*constants, *lines])
    ir_version = 4 if version < 11 else 7 if version < 19 else 10
    return f"""
<ir_version: {ir_version}, opset_import: ["" : {version}]>
versioned (float[n, 3, 8, 8] x) => (float[n, 4] y, float[1, n, 4] z) {{
  {body}
}}
"""


def _resize(version: int, tensor: Callable[..., str]) -> str:
    if version < 9:
        return 'u = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (m)'
    scales = tensor("scales", [1.0, 1.0, 2.0, 2.0], "float")
    if version < 10:
        return f'u = Upsample <mode = "nearest"> (m, {scales})'
    if version < 11:
        return f'u = Resize <mode = "nearest"> (m, {scales})'
    region = tensor("region", [0.0] * 4 + [1.0] * 4, "float") if version < 13 else '""'
    mode = 'mode = "linear", coordinate_transformation_mode = "half_pixel"'
    return f"u = Resize <{mode}> (m, {region}, {scales})"
