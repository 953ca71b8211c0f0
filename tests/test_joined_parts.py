"""Without copies: parts of a Concat that lie in its result, one part of a Gather.

Graphs in ONNX's text form, against onnxruntime, on every instruction set and with two threads: the
same bits. What must still be copied is counted by the steps of a run.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import ortolan
from cases_lib import levels
from ortolan.benchmarking import operator_times

ort = pytest.importorskip("onnxruntime")

WEIGHTS = {
    "w1": (24, 20, 1, 1), "w3": (40, 20, 3, 3), "wg": (20, 10, 3, 3), "wd": (20, 1, 3, 3),
    "wn": (3, 20, 3, 3), "wp": (32, 20, 3, 3), "we": (48, 20, 1, 1), "we3": (48, 1, 3, 3),
    "wr": (18, 48, 1, 1), "m": (9, 18), "w2": (2, 20, 1, 1), "wide": (9, 500),
}  # fmt: skip
SAME = "pads = [1, 1, 1, 1]"


@dataclass(frozen=True)
class Case:
    """Nodes from x [N, 20, 9, 11] or v [3, 9] to y; how many Concat still run."""

    nodes: str
    copies: int = 0
    batch: int = 1


CASES = {
    "a fire module": Case(f"""a0 = Conv (x, w1) a = Relu (a0) b0 = Conv <{SAME}> (x, w3)
        b = Relu (b0) c = Concat <axis = 1> (a, b) y = Neg (c)"""),
    "two images": Case(f"""a = Conv (x, w1) b = Conv <{SAME}> (x, w3)
        c = Concat <axis = 1> (a, b) y = Neg (c)""", batch=2),
    "Winograd's way": Case(f"""a = Conv <{SAME}> (x, wp) b0 = Conv <{SAME}> (x, w3)
        b = Sigmoid (b0) c = Concat <axis = 1> (b, a) y = Neg (c)"""),
    "few channels": Case(f"""b = Conv (x, w2) a0 = Conv <{SAME}> (x, wn) a = Sigmoid (a0)
        c = Concat <axis = 1> (a, b) y = Neg (c)"""),
    "groups": Case(f"""a = Conv <{SAME}, group = 2> (x, wg) b = Conv (x, w1)
        c = Concat <axis = 1> (b, a) y = Neg (c)"""),
    "a residual": Case(f"""a0 = Conv <{SAME}, group = 2> (x, wg) a = Add (a0, x)
        b = Conv (x, w1) c = Concat <axis = 1> (b, a) y = Neg (c)"""),
    "a bottleneck": Case(f"""e0 = Conv (x, we) e = Relu (e0) d0 = Conv <{SAME}, group = 48> (e, we3)
        d = Relu (d0) a = Conv (d, wr) b = Conv (x, w1) c = Concat <axis = 1> (a, b, d)
        y = Neg (c)""", copies=1),
    "a depthwise part": Case(f"""a = Conv <{SAME}, group = 20> (x, wd) b = Conv (x, w1)
        c = Concat <axis = 1> (a, b) y = Neg (c)""", copies=1),
    "a part with another reader": Case("""a = Conv (x, w1) b = Conv (x, w1) d = Abs (a)
        c = Concat <axis = 1> (a, b, d) y = Neg (c)""", copies=1),
    "a part twice": Case("""a = Conv (x, w1) c = Concat <axis = 1> (a, a) y = Neg (c)""", copies=1),
    "a part of the input": Case("""a = Conv (x, w1) c = Concat <axis = 1> (x, a) y = Neg (c)""",
        copies=1),
    "beside each other": Case("""a = Conv (x, w1) b = Conv (x, w1) d = Relu (b)
        c = Concat <axis = 3> (a, d) y = Neg (c)""", copies=1),
    "below each other": Case("""a = Conv (x, w1) b0 = Conv (x, w1) b = Relu (b0)
        c = Concat <axis = 2> (a, b) y = Neg (c)"""),
    "a part for a body": Case("""a = Conv (x, w1) b = Conv (x, w1)
        n = If (f) <then_branch = t () => (float o) { o = Abs (a) },
                    else_branch = u () => (float o) { o = Neg (a) }>
        c = Concat <axis = 1> (a, b) y = Sub (c, s)""", copies=1),
    "one piece each": Case("""a = Sigmoid (v) b = MatMul (v, m) d = Tanh (b)
        e = Reshape (d, nine) c = Concat <axis = 0> (a, e) y = Neg (c)"""),
    "the result is an output": Case("""a = Sigmoid (v) b = Tanh (v)
        y = Concat <axis = 0> (a, b)"""),
    "a view of the result is an output": Case("""a = Sigmoid (v) b = Tanh (v)
        c = Concat <axis = 0> (a, b) y = Reshape (c, nine)"""),
    "a result in a result": Case("""a = Sigmoid (v) b = Tanh (v) c = Concat <axis = 0> (a, b)
        d = Softplus (v) e = Concat <axis = 0> (d, c, v) y = Neg (e)""", copies=1),
    "in place afterwards": Case("""a = Sigmoid (v) b = Tanh (a) c = Concat <axis = 0> (a, b)
        d = Neg (c) y = Abs (d)"""),
    "a view with another reader": Case("""a = Sigmoid (v) b = Tanh (v) e = Reshape (a, nine)
        g = Transpose (e) h = MatMul (g, e) c = Concat <axis = 0> (e, b) d = ReduceSum (c)
        y = Max (h, d)"""),
    "a view that is needed later": Case("""a = Sigmoid (v) b = Tanh (v) e = Reshape (a, nine)
        c = Concat <axis = 0> (e, b) d = ReduceSum (c) g = Transpose (e) h = MatMul (g, e)
        y = Add (h, d)""", copies=1),
    "dimensions inside": Case("""a = Sigmoid (v) b = Tanh (v) c = Concat <axis = 1> (a, b)
        y = Neg (c)""", copies=1),
}  # fmt: skip


def model(case: Case) -> onnx.ModelProto:
    rng = np.random.default_rng(zlib.crc32(case.nodes.encode()))
    given = "float[N, 20, 9, 11] x" if "(x, " in case.nodes else "float[3, 9] v"
    flag = ", bool f" if "If (f)" in case.nodes else ""
    graph = onnx.parser.parse_graph(f"g ({given}{flag}) => (float y) {{ {case.nodes} }}")
    used = {name for node in graph.node for name in node.input}
    constants: dict[str, Any] = {"nine": np.array([-1, 9], np.int64), "s": np.float32(2)}
    for name, shape in WEIGHTS.items():
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        constants[name] = array.astype(np.float32)
    for name in sorted(used & set(constants)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(constants[name]), name))
    graph.output[0].type.tensor_type.ClearField("shape")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds_of(case: Case) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((case.batch, 20, 9, 11) if "(x, " in case.nodes else (3, 9))
    feeds = {"x" if x.ndim == 4 else "v": x.astype(np.float32)}
    return feeds | ({"f": np.array(True)} if "If (f)" in case.nodes else {})


def session_of(data: bytes, level: str, threads: int = 1) -> ortolan.InferenceSession:
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("ortolan.instruction_set", level)
    return ortolan.InferenceSession(data, options)


def copies(session: ortolan.InferenceSession, feeds: dict[str, Any]) -> int:
    times = operator_times(session, feeds, 1)
    return sum(int(time.nodes) for time in times if time.operator == "Concat")


@pytest.mark.parametrize("name", CASES)
def test_results_and_copies(name: str) -> None:
    case = CASES[name]
    proto, feeds = model(case).SerializeToString(), feeds_of(case)
    expected = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    for optimization in ("disable", "all"):
        data = ortolan.convert(proto, level=optimization)
        assert isinstance(data, bytes)
        for level in levels():
            session = session_of(data, level)
            found = session.run(None, feeds)[0]
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error < 1e-5, f"{optimization}, {level}: {error:.2g}"
            again = session_of(data, level, 2).run(None, feeds)[0]
            np.testing.assert_array_equal(again, found)
        if optimization == "all":
            assert copies(session, feeds) == case.copies


@pytest.mark.parametrize(("between", "left"), [("MatMul (v, wide)", 1), ("Abs (v)", 0)])
def test_an_early_part_is_copied_where_the_arena_would_grow(between: str, left: int) -> None:
    case = Case(f"""a = Sigmoid (v) p = {between} q = Tanh (p) t = ReduceSum <keepdims = 0> (q)
        k = Sub (v, t) c = Concat <axis = 0> (a, k) y = Neg (c)""")
    proto, feeds = model(case).SerializeToString(), feeds_of(case)
    expected = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    data = ortolan.convert(proto)
    assert isinstance(data, bytes)
    session = session_of(data, levels()[-1])
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=1e-5, atol=1e-5)
    assert copies(session, feeds) == left


@pytest.mark.parametrize(
    ("shape", "axis", "index", "steps"),
    [
        ("3, 4, 5", 0, "{2}", 0),
        ("1, 4, 5", 1, "{-1}", 0),
        ("3, 1, 5", 1, "{0}", 0),
        ("3, 4, 5", 1, "{1}", 1),
        ("3, 4, 5", 0, "{0, 1}", 1),
    ],
)
@pytest.mark.parametrize("rank", ["", "[1, 1]"])
def test_one_known_part_is_a_view(shape: str, axis: int, index: str, steps: int, rank: str) -> None:
    rank = "[2]" if index == "{0, 1}" else rank
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[{shape}] x) => (float y) <int64{rank} i = {index}>
        {{ a = Neg (x) b = Gather <axis = {axis}> (a, i) y = Softplus (b) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    data = ortolan.convert(proto.SerializeToString(), level="disable")
    assert isinstance(data, bytes)
    sizes = [int(size) for size in shape.split(",")]
    feeds = {"x": np.random.default_rng(2).standard_normal(sizes).astype(np.float32)}
    session = ortolan.InferenceSession(data)
    part = np.take(-feeds["x"], np.array(parsed(index, rank)), axis)
    np.testing.assert_allclose(session.run(None, feeds)[0], np.log1p(np.exp(part)), rtol=1e-6)
    found = operator_times(session, feeds, 1)
    assert sum(int(time.nodes) for time in found if time.operator == "Gather") == steps


def parsed(index: str, rank: str) -> Any:
    """What a constant in ONNX's text form is in numpy."""
    numbers = [int(number) for number in index.strip("{}").split(",")]
    return numbers[0] if not rank else [numbers] if rank == "[1, 1]" else numbers


def network(seed: int) -> onnx.ModelProto:
    """Convolutions, activations, sums and Concat of earlier values; some are outputs, too."""
    rng = np.random.default_rng(seed)
    batch = int(rng.integers(1, 3))
    values: list[tuple[str, tuple[int, ...]]] = [("x", (batch, 6, 7, 9))]
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(operator: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> None:
        values.append((f"v{len(nodes)}", shape))
        nodes.append(helper.make_node(operator, inputs, [values[-1][0]], **attributes))

    for _ in range(int(rng.integers(8, 20))):
        name, shape = values[-1 - min(int(rng.geometric(0.4)) - 1, len(values) - 1)]
        kind = rng.choice(["conv", "conv", "conv", "unary", "sum", "concat", "concat"])
        if kind == "conv":
            outs, side = int(rng.integers(1, 40)), int(rng.choice([1, 3]))
            deep = rng.random() < 0.2
            outs = shape[1] if deep else outs
            w = rng.standard_normal((outs, 1 if deep else shape[1], side, side))
            w /= np.sqrt(w[0].size)
            weights.append(numpy_helper.from_array(w.astype("f"), f"w{len(nodes)}"))
            add("Conv", [name, weights[-1].name], (shape[0], outs, *shape[2:]),
                pads=[side // 2] * 4, group=outs if deep else 1)  # fmt: skip
        elif kind == "unary":
            add(str(rng.choice(["Relu", "Sigmoid", "Neg"])), [name], shape)
        elif kind == "sum":
            others = [n for n, s in values if s == shape]
            add("Add", [name, str(rng.choice(others))], shape)
        else:
            axis = int(rng.choice([0, 1, 1, 1, 2, 3]))
            cut = shape[:axis] + shape[axis + 1 :]
            fits = [(n, s) for n, s in values[-6:] if s[:axis] + s[axis + 1 :] == cut]
            fits = fits or [(name, shape)]
            some = [fits[int(k)] for k in rng.integers(len(fits), size=rng.integers(1, 3))]
            some.append((name, shape))
            total = sum(s[axis] for _, s in some)
            if total < 200:
                add("Concat", [n for n, _ in some], (*shape[:axis], total, *shape[axis + 1 :]),
                    axis=axis)  # fmt: skip
    kept = {values[-1][0]} | {n for n, _ in values[1:] if rng.random() < 0.1}
    unused = {n for n, _ in values[1:]} - {i for node in nodes for i in node.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, values[0][1])],
        [helper.make_tensor_value_info(n, 1, s) for n, s in values if n in kept | unused], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int) -> None:
    proto = network(seed).SerializeToString()
    shape = onnx.load_from_string(proto).graph.input[0].type.tensor_type.shape
    sizes = [size.dim_value for size in shape.dim]
    feeds = {"x": np.random.default_rng(seed).standard_normal(sizes).astype(np.float32)}
    expected = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)
    data = ortolan.convert(proto)
    assert isinstance(data, bytes)
    results = session_of(data, levels()[-1]).run(None, feeds)
    for found, wanted in zip(results, expected, strict=True):
        scale = max(float(np.abs(wanted).max()), 1e-3)
        assert np.abs(found - wanted).max() < 2e-5 * scale
