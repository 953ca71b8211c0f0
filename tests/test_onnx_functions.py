"""The runtime's own reader replaces calls of a model's functions: with onnxruntime as oracle."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import onnx_wire as wire
import ortolan
from ortolan import errors
from test_onnx_reader import MUTANTS, SEED, opened

ort = pytest.importorskip("onnxruntime")

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

HEAD = '<ir_version: 10, opset_import: ["" : 18, "f" : 1]>\n'
LIST = '<domain: "f", opset_import: ["" : 18, "f" : 1]>'
X = np.array([[1.5, -2.0, 0.25]], np.float32)

MODELS = {
    "nested": """g (float[n, 3] x) => (float[n, 3] y) { a = f.outer(x) y = f.inner(a) }
        %F outer (p) => (q) { t = f.inner(p) q = Neg(t) }
        %F inner (p) => (q) { t = Abs(p) q = Add(t, p) }""",
    "called several times": """g (float[n, 3] x) => (float[n, 3] y, float[n, 3] z)
        { t = f.one(x) y = f.one(t) z = f.one(y) }
        %F one (x) => (y) { t = Abs(x) y = Sqrt(t) }""",
    "names that clash": """g (float[n, 3] x) => (float[n, 3] y)
        <float t = {2}, float[1] q = {3}> { p = Mul(x, t) u = f.one(p, q) y = Add(u, t) }
        %F one (x, p) => (q) { t = Add(x, p) u = Neg(t) q = Mul(u, x) }""",
    "names like those that are made": """g (float[n, 3] x) => (float[n, 3] y)
        { y0 = Neg(x) y1 = f.one(y0) y = Add(y1, y0) }
        %F one (x) => (q) { y0 = Abs(x) q = Add(y0, x) }""",
    "attributes by reference": """g (float[n, 3] x) => (float[n, 3] y)
        { a = f.leak <alpha = 0.5, unused = 3> (x) b = f.leak <alpha = 0.25> (a) y = f.sum(b) }
        %F leak <alpha> (p) => (q) { q = LeakyRelu <alpha: float = @alpha> (p) }
        %F sum <axis: int = 1> (p) => (q) { c = Constant <value_int: int = @axis> ()
            r = Constant <value_ints = [1]> () a = Reshape(c, r) s = ReduceSum(p, a)
            q = Sub(p, s) }""",
    "attributes through two calls": """g (float[n, 3] x) => (float[n, 3] y)
        { y = f.outer <slope = 0.125> (x) }
        %F outer <slope> (p) => (q) { t = f.inner <alpha: float = @slope> (p) q = Neg(t) }
        %F inner <alpha: float = 7.0> (p) => (q) { q = LeakyRelu <alpha: float = @alpha> (p) }""",
    "an attribute that nobody gives": """g (float[n, 3] x) => (float[n, 3] y) { y = f.leak(x) }
        %F leak <alpha> (p) => (q) { q = LeakyRelu <alpha: float = @alpha> (p) }""",
    "inputs that are left out": """g (float[n, 3] x) => (float[n, 3] y)
        <float low = {-1}, float high = {1}>
        { a = f.bound(x, low, high) b = f.bound(a, , high) c = f.bound(b, low) y = f.bound(c) }
        %F bound (v, l, h) => (q) { q = Clip(v, l, h) }""",
    "outputs that are left out": """g (float[n, 3] x) => (float[n, 3] y)
        { a, b = f.two(x) c = f.two(b) , d = f.two(c) y = Add(a, d) }
        %F two (v) => (p, q) { p = Neg(v) q = Abs(p) }""",
    "outputs that are inputs": """g (float[n, 3] x) => (float[n, 3] y, float[n, 3] z)
        { y, a, b = f.same(x) z = Add(a, b) }
        %F same (v) => (v, w, w) { w = Neg(v) }""",
    "opsets of the function": """g (float[n, 3] x) => (float[n, 3] y) { y = f.old(x) }
        <domain: "f", opset_import: ["" : 11]> old (p) => (q)
        { s = ReduceSum <axes = [1]> (p) q = Softmax(p) }""",
    "a body that has branches": """g (float[n, 3] x) => (float[n, 3] y) <bool c = {1}>
        { a = f.choose(x, c) n = Not(c) y = f.choose(a, n) }
        %F choose (p, c) => (q) { t = Abs(p)
            q = If (c) <then_branch = a () => (r) { u = Neg(t) r = f.twice(u) },
                        else_branch = b () => (r) { u = f.twice(p) r = Add(u, t) }> }
        %F twice (p) => (q) { t = Add(p, p) q = Identity(t) }""",
    "a call in a branch": """g (float[n, 3] x) => (float[n, 3] y) <bool c = {0}>
        { t = Neg(x) y = If (c) <then_branch = a () => (float[n, 3] r) { r = Identity(x) },
                        else_branch = b () => (float[n, 3] r) { u = f.twice(t) r = f.twice(u) }> }
        %F twice (p) => (q) { t = Add(p, p) q = Neg(t) }""",
    "constants in the body": """g (float[n, 3] x) => (float[n, 3] y)
        { a = f.scale(x) y = f.scale(a) }
        %F scale (p) => (q) { h = Constant <value = float[1] {0.5}> () t = Mul(h, p)
            three = Constant <value_float = 3.0> () q = Add(t, three) }""",
    "nodes out of order": """g (float[n, 3] x) => (float[n, 3] y) { y = f.one(x) }
        %F one (p) => (q) { t = Abs(p) q = Neg(t) }""",
}


def model_of(body: str) -> onnx.ModelProto:
    """A model from ONNX's text; `%F` stands for the head of a function."""
    return onnx.parser.parse_model(HEAD + body.replace("%F", LIST))


# onnxruntime refuses a call that leaves out an output, an output that is an input, and nodes that
# are not of the model's own opset.
BY_HAND: dict[str, Callable[[Array], list[Array]]] = {
    "outputs that are left out": lambda x: [np.abs(x) - x],
    "outputs that are inputs": lambda x: [x, -2 * x],
    "opsets of the function": lambda x: [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)],
}


def expected(name: str) -> list[Any]:
    if name in BY_HAND:
        return BY_HAND[name](X)
    model = named(name) if name != "nodes out of order" else model_of(MODELS[name])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, {"x": X}))


def named(name: str) -> onnx.ModelProto:
    """One of the models, with what the text cannot say."""
    model = model_of(MODELS[name])
    if name == "names like those that are made":
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [f"#{n[1]} y0" if n in ("y0", "y1") else n for n in names]
    if name == "nodes out of order":
        nodes = list(model.functions[0].node)[::-1]
        del model.functions[0].node[:]
        model.functions[0].node.extend(nodes)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_same_as_onnxruntime(name: str) -> None:
    got_all = opened(named(name)).run(None, {"x": X})
    for want, got in zip(expected(name), got_all, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_same_as_by_the_converter(name: str) -> None:
    model = named(name)
    data = model.SerializeToString()
    want = ortolan.InferenceSession(data).run(None, {"x": X})
    for ours, theirs in zip(opened(model).run(None, {"x": X}), want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_overloads_are_told_apart() -> None:
    model = model_of("""g (float[n, 3] x) => (float[n, 3] y) { a = f.one(x) y = f.one(a) }
        %F one (p) => (q) { q = Neg(p) }
        %F one (p) => (q) { q = Abs(p) }""")
    model.functions[1].overload = model.graph.node[1].overload = "other"
    np.testing.assert_array_equal(opened(model).run(None, {"x": X})[0], np.abs(-X))


def test_a_graph_as_attribute_sees_what_the_call_sees() -> None:
    model = model_of("""g (float[n, 3] x) => (float[n, 3] y) <bool c = {1}>
        { t = Neg(x) y = f.choose(c, x) }
        %F choose <one> (c, t) => (q) { q = Identity(t) }""")
    info = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    one = helper.make_graph([helper.make_node("Abs", ["t"], ["r"])], "one", [], [info])
    other = helper.make_graph([helper.make_node("Identity", ["t"], ["r"])], "other", [], [info])
    model.graph.node[1].attribute.append(helper.make_attribute("one", one))
    branch = helper.make_node("If", ["c"], ["q"], else_branch=other)
    branch.attribute.add(name="then_branch", ref_attr_name="one", type=onnx.AttributeProto.GRAPH)
    model.functions[0].node[0].CopyFrom(branch)
    np.testing.assert_array_equal(opened(model).run(None, {"x": X})[0], np.abs(X))


REFUSED = {
    "recursion": (
        "{ y = f.a(x) } %F a (p) => (q) { q = f.b(p) } %F b (p) => (q) { q = f.a(p) }",
        r"\[a\] node \"\": the function calls itself",
    ),
    "too many inputs": ("{ y = f.a(x, x) } %F a (p) => (q) { q = Neg(p) }", "it has 2 inputs"),
    "too many outputs": ("{ y, z = f.a(x) } %F a (p) => (q) { q = Neg(p) }", "it has 2 outputs"),
    "no output": ("{ y = f.a(x) } %F a (p) => (q) { r = Neg(p) }", "never defined"),
    "an outer name": ("{ t = Neg(x) y = f.a(t) } %F a (p) => (q) { q = Neg(t) }", "never defined"),
    "a new opset": (
        '{ y = f.a(x) } <domain: "f", opset_import: ["" : 99]> a (p) => (q) { q = Neg(p) }',
        "newest one known",
    ),
    "a constant without value": (
        "{ y = f.a(x) } %F a <v> (p) => (q) { q = Constant <value_int: int = @v> () }",
        "exactly one value, not 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    body, text = REFUSED[name]
    with pytest.raises(errors.OrtolanError, match=text):
        opened(model_of("g (float[n, 3] x) => (float[n, 3] y) " + body))


def test_a_reference_outside_of_functions_is_refused() -> None:
    model = model_of("g (float[n, 3] x) => (float[n, 3] y) { y = LeakyRelu <alpha = 0.1> (x) }")
    model.graph.node[0].attribute[0].ref_attr_name = "a"
    with pytest.raises(errors.InvalidGraph, match="is in none"):
        opened(model)


def chain(length: int, calls: int, leaf: str = "q = Neg(p)") -> onnx.ModelProto:
    """Functions of which each calls the next several times, one after the other."""
    functions = []
    for k in range(length):
        steps = [f"t{i + 1} = f.a{k + 1}(t{i})" for i in range(calls)]
        steps[0] = steps[0].replace("(t0)", "(p)")
        steps[-1] = steps[-1].replace(f"t{calls} =", "q =")
        functions.append(f"%F a{k} (p) => (q) {{ {' '.join(steps)} }}")
    functions.append(f"%F a{length} (p) => (q) {{ {leaf} }}")
    return model_of("g (float[n, 3] x) => (float[n, 3] y) { y = f.a0(x) } " + " ".join(functions))


def test_depth_has_a_limit() -> None:
    np.testing.assert_array_equal(opened(chain(63, 1)).run(None, {"x": X})[0], -X)
    with pytest.raises(errors.LimitExceeded, match="deeper than 64"):
        opened(chain(64, 1))


def test_what_calls_read_again_has_a_limit() -> None:
    """A constant of a body is one for each call. Found by reading: 120 KB took 760 MB."""
    steps = "".join(f"t{k + 1} = f.a(t{k}) " for k in range(2000))
    model = model_of(
        f"g (float[n, 3] t0) => (float[n, 3] t2000) {{ {steps} }} "
        "%F a (p) => (q) { c = Constant <value = int64[1] {1}> () q = Identity(p) }"
    )
    tensor = model.functions[0].node[0].attribute[0].t
    tensor.Clear()
    tensor.CopyFrom(helper.make_tensor("c", TensorProto.INT64, [100000], [1] * 100000))
    with pytest.raises(errors.LimitExceeded, match="functions bring more than"):
        opened(model)


@pytest.mark.parametrize("leaf", ["q = Neg(p)", ""])
def test_calls_that_multiply_have_a_limit(leaf: str) -> None:
    """Two to the power of 40 nodes, or of calls without any."""
    with pytest.raises(errors.LimitExceeded, match=r"more than \d+ nodes"):
        opened(chain(40, 2, leaf))


def test_mutants_are_refused_or_opened() -> None:
    draw = random.Random(SEED)
    outcomes = {"opened": 0, "refused": 0}
    for name in ("nested", "attributes through two calls", "a body that has branches"):
        for mutant in wire.mutants(named(name), draw.randrange(1 << 30), MUTANTS // 10):
            try:
                opened(mutant)
                outcomes["opened"] += 1
            except errors.OrtolanError as error:
                assert str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > MUTANTS // 100, outcomes
