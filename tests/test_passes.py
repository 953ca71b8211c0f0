"""Passes: what each rewrites and what not; the whole road, with onnxruntime as oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from ortolan import errors
from ortolan.conversion import convert
from ortolan.importer import load
from ortolan.importing.naming import graph_values
from ortolan.passes import constant_folding
from ortolan.passes.constant_folding import fold_constants
from ortolan.passes.dead_code import remove_dead_code, remove_unused_constants
from ortolan.passes.identity_elimination import eliminate_identities
from ortolan.passes.neutral import remove_neutral
from ortolan.passes.pipeline import LEVELS, STEPS, optimize
from ortolan.passes.verify import verify

ort = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT.parent / "shared" / "models"

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def by_onnxruntime(model: bytes) -> list[Array]:
    """Runs an ORT file without inputs in onnxruntime; what it refuses is our kind of error."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return list(ort.InferenceSession(model, options).run(None, {}))
    except Exception as error:
        raise errors.Fail(str(error)) from error


def by_ortolan(model: bytes) -> list[Array]:
    """Runs an ORT file without inputs in our own runtime."""
    pytest.importorskip("ortolan.session")
    return constant_folding.run_portably(model)


@pytest.fixture(params=[by_onnxruntime, by_ortolan])
def evaluate(request: pytest.FixtureRequest) -> Callable[[bytes], list[Array]]:
    """Who computes the constants: the oracle, and the kernels that do it for users."""
    found: Callable[[bytes], list[Array]] = request.param
    return found


def model_of(body: str) -> ir.Model:
    """A model from ONNX's text form."""
    return load(onnx.parser.parse_model(HEAD + body))


def operators(model: ir.Model) -> list[str]:
    """Operators of all nodes in order, those of subgraphs after the node that has them."""
    return [node.op_type for node in model.graph.all_nodes()]


def run(model: ir.Model | bytes, feeds: dict[str, Array]) -> list[Array]:
    """What onnxruntime computes."""
    from ortolan.ortformat.from_ir import from_ir
    from ortolan.ortformat.writer import write

    data = write(from_ir(model)) if isinstance(model, ir.Model) else model
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(ort.InferenceSession(data, options).run(None, feeds))


DEAD = """
g (float[2] x, bool b) => (float[2] y)
<float[2] w = {1, 2}, float[2] unused = {3, 4}, float[2] default = {5, 6}>
{
  outer = Neg (x)
  gone = Add (outer, w)
  gone_too = If (b) <
    then_branch = t () => (float[2] p) { p = Abs (outer) },
    else_branch = e () => (float[2] q) { q = Abs (x) }
  >
  y = If (b) <
    then_branch = t2 () => (float[2] p2) { dead = Abs (x) p2 = Exp (x) },
    else_branch = e2 () => (float[2] q2) { q2 = Abs (x) }
  >
}
"""


def test_dead_code_goes_with_its_subgraphs_and_what_only_they_use() -> None:
    model = model_of(DEAD)
    feeds = {"x": np.array([1, -2], np.float32), "b": np.array(True)}
    before = run(model, feeds)
    assert remove_dead_code(model)
    verify(model, "dead code")
    assert operators(model) == ["If", "Exp", "Abs"]
    assert not model.graph.initializers
    np.testing.assert_array_equal(run(model, feeds), before)
    assert not remove_dead_code(model)


def test_at_disable_only_unused_constants_go() -> None:
    model = model_of(DEAD)
    assert remove_unused_constants(model)
    assert list(model.graph.initializers) == ["w"]
    assert operators(model).count("If") == 2
    assert not remove_unused_constants(model)


def test_unused_default_of_an_input_stays() -> None:
    model = model_of("g (float[2] x, float[2] d = {5, 6}) => (float[2] y) { y = Neg (x) }")
    remove_dead_code(model)
    assert [value.name for value in model.graph.inputs] == ["x", "d"]
    assert list(model.graph.initializers) == ["d"]


def test_optional_outputs_that_nothing_uses_are_left_out() -> None:
    model = model_of(
        "g (float[1, 1, 4, 4] x) => (float[1, 1, 3, 3] y) "
        "{ y, indices = MaxPool <kernel_shape = [2, 2]> (x) }"
    )
    assert remove_dead_code(model)
    (node,) = model.graph
    assert [value.name for value in node.outputs] == ["y"]


def test_part_that_is_left_out_counts() -> None:
    model = model_of("g (float[6] x) => (float[3] y) { a, b = Split (x) y = Neg (a) }")
    model.graph[0].outputs[1].name = ""
    remove_dead_code(model)
    remove_neutral(model)
    assert operators(model) == ["Split", "Neg"]
    assert len(model.graph[0].outputs) == 2


def test_output_left_out_in_the_middle_keeps_the_place_of_the_next() -> None:
    model = model_of("""
g (float[1, 1, 4] x, float[1, 12, 4] w, float[1, 12, 3] r) => (float[1, 1, 3] c)
{
  all, h, c = LSTM <hidden_size = 3> (x, w, r)
}
""")
    assert remove_dead_code(model)
    verify(model, "dead code")
    (node,) = model.graph
    assert [value.name for value in node.outputs] == ["", "", "c"]
    shapes = {"x": (1, 1, 4), "w": (1, 12, 4), "r": (1, 12, 3)}
    feeds: dict[str, Array] = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    assert run(model, feeds)[0].shape == (1, 1, 3)


IDENTITIES = """
g (float[2] x, bool b) => (float[2] y, float[2] z, float[2] same, float[2] k, float[2] i)
<float[2] w = {1, 2}>
{
  a = Identity (x)
  n = Neg (a)
  y = Identity (n)
  y2 = Identity (y)
  z = Abs (y2)
  same = Identity (x)
  k = Identity (w)
  inner = Exp (a)
  i = If (b) <
    then_branch = t () => (float[2] p) { p = Identity (inner) },
    else_branch = e () => (float[2] q) { m = Neg (inner) q = Identity (m) }
  >
}
"""


def test_identities_go_where_nothing_but_a_name_is_lost() -> None:
    model = model_of(IDENTITIES)
    feeds = {"x": np.array([1, -2], np.float32), "b": np.array(False)}
    before = run(model, feeds)
    assert eliminate_identities(model)
    verify(model, "identities")
    # Copies of an input, of a constant and of an outer value are what their graphs compute.
    assert operators(model) == [
        "Neg", "Abs", "Identity", "Identity", "Exp", "If", "Identity", "Neg",
    ]  # fmt: skip
    assert [value.name for value in model.graph.outputs] == ["y", "z", "same", "k", "i"]
    np.testing.assert_array_equal(run(model, feeds), before)
    assert not eliminate_identities(model)


def test_value_that_is_an_output_twice_keeps_its_copy() -> None:
    model = model_of("g (float[2] x) => (float[2] y, float[2] z) { y = Neg (x) z = Identity (y) }")
    assert not eliminate_identities(model)
    assert [value.name for value in model.graph.outputs] == ["y", "z"]


FOLDABLE = """
g (float[2, 3] x, bool b) => (float[6] y, float[2, 3] z, int64[2] s)
<int64[1] one = {1}, int64[1] six = {6}, float[2, 3] w = {1, 2, 3, 4, 5, 6}>
{
  none = Sub (one, one)
  s = Concat <axis = 0> (none, six)
  half = Constant <value = float {0.5}> ()
  scaled = Mul (w, half)
  size = Slice (s, one, one)
  sizes = Expand (six, one)
  flat = Reshape (x, sizes)
  y = Relu (flat)
  z = If (b) <
    then_branch = t () => (float[2, 3] p) { r = Neg (scaled) p = Add (x, r) },
    else_branch = e () => (float[2, 3] q) { v = Exp (scaled) q = Mul (v, scaled) }
  >
}
"""


def test_constants_are_folded_in_all_graphs(evaluate: Callable[[bytes], list[Array]]) -> None:
    model = model_of(FOLDABLE)
    feeds = [
        {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(b)} for b in (True, False)
    ]
    before = [run(model, feed) for feed in feeds]
    assert fold_constants(model, evaluate)
    verify(model, "folding")
    assert operators(model) == ["Reshape", "Relu", "If", "Add"]
    assert [value.name for value in model.graph.outputs] == ["y", "z", "s"]
    for feed, expected in zip(feeds, before, strict=True):
        for ours, theirs in zip(run(model, feed), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert not fold_constants(model, evaluate)


def test_default_of_an_input_is_no_constant(evaluate: Callable[[bytes], list[Array]]) -> None:
    model = model_of(
        "g (float[2] x, float[2] d = {5, 6}) => (float[2] y) { n = Neg (d) y = Add (x, n) }"
    )
    assert not fold_constants(model, evaluate)


def test_nodes_that_need_a_feed_are_not_folded_even_in_bodies() -> None:
    model = model_of("""
g (float[2] x, int64 n) => (float[2] y)
{
  go = Constant <value = bool {1}> ()
  y = Loop (n, go, x) <
    body = once (int64 k, bool on, float[2] state) => (bool off, float[2] next) {
      off = Identity (on)
      one = Constant <value = float {1}> ()
      two = Add (one, one)
      next = Mul (state, two)
    }
  >
}
""")
    calls: list[bytes] = []

    def counting(data: bytes) -> list[Array]:
        calls.append(data)
        return by_onnxruntime(data)

    assert fold_constants(model, counting)
    assert operators(model) == ["Loop", "Identity", "Mul"]
    assert len(calls) == 1
    (graph,) = model.graph.subgraphs()
    assert set(graph.initializers) == {"one", "two"}


def test_large_results_are_folded_only_if_they_save_something(
    evaluate: Callable[[bytes], list[Array]],
) -> None:
    model = model_of("""
g (float[n] x) => (float[m] y, float[k] z)
<float[1] one = {1}, int64[1] million = {1000000}, int64[1] two = {2}, int64[1] zero = {0}>
{
  sum = Add (one, one)
  large = Expand (sum, million)
  y = Add (x, large)
  wide = Expand (sum, million)
  small = Slice (wide, zero, two)
  z = Add (x, small)
}
""")
    assert fold_constants(model, evaluate)
    verify(model, "folding")
    # The sum is known; what is four million bytes is computed when it is needed.
    assert operators(model) == ["Expand", "Add", "Expand", "Slice", "Add"]
    assert {"sum"} <= set(model.graph.initializers)
    x = np.array([1], np.float32)
    assert run(model, {"x": x})[1].tolist() == [3, 3]


def test_large_weights_are_folded_if_the_result_is_not_larger() -> None:
    proto = onnx.parser.parse_model(
        HEAD + "g (float[1, 600] x) => (float[1, 1000] y) "
        "{ t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }"
    )
    weights = np.arange(600_000, dtype=np.float32).reshape(1000, 600)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    model = load(proto)
    assert fold_constants(model, by_onnxruntime)
    assert operators(model) == ["MatMul"]


def test_unknown_size_is_measured_before_it_is_kept() -> None:
    model = model_of(
        "g (float[n] x) => (float[m] y) <float[1] one = {1}, int64[1] many = {400000}> "
        "{ a = Expand (one, many) y = Add (x, a) }"
    )
    for value in graph_values(model.graph):
        if value.name == "a":
            value.shape = None
    sizes: list[int] = []

    def watching(data: bytes) -> list[Array]:
        found = by_onnxruntime(data)
        sizes.extend(array.nbytes for array in found)
        return found

    assert not fold_constants(model, watching)
    assert sizes == [1_600_000]
    assert operators(model) == ["Expand", "Add"]


def test_constant_that_cannot_be_computed_is_left_where_it_is(
    evaluate: Callable[[bytes], list[Array]],
) -> None:
    model = model_of("""
g (float[6] x, bool b) => (float[z] y)
<int64[2] wrong = {4, 4}, float[6] w = {1, 2, 3, 4, 5, 6}, int64[1] six = {6}>
{
  fine = Add (w, w)
  y = If (b) <
    then_branch = t () => (float[p0] p) { p = Reshape (fine, wrong) },
    else_branch = e () => (float[6] q) { q = Add (x, fine) }
  >
}
""")
    assert fold_constants(model, evaluate)
    verify(model, "folding")
    assert operators(model) == ["If", "Reshape", "Add"]
    feeds = {"x": np.zeros(6, np.float32), "b": np.array(False)}
    assert run(model, feeds)[0].tolist() == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("first", "left"),
    [
        ("c = Reshape (w, wrong)", 0),
        ("c = Add (w, w) d = Reshape (w, wrong) e = Add (d, x)", 2),
        ("n = Abs (many) c = Expand (w, n)", 0),
    ],
    ids=["the first cannot be computed", "one cannot be computed", "all are large"],
)
def test_long_chains_take_few_tries(first: str, left: int) -> None:
    chain = " ".join(f"a{k} = Neg (a{k - 1})" for k in range(1, 100))
    model = model_of(
        f"g (float[6] x) => (float[m] y) <int64[1] wrong = {{4}}, float[1] w = {{1}}, "
        f"int64[1] many = {{400000}}> {{ {first} a0 = Neg (c) {chain} y = Add (x, a99) }}"
    )
    for value in graph_values(model.graph):
        if value.producer() is not None:
            value.shape = None
    tries: list[int] = []

    def counting(data: bytes) -> list[Array]:
        tries.append(len(data))
        return by_ortolan(data)

    assert fold_constants(model, counting) == (left > 0)
    assert len(tries) < 20
    assert not left or len(operators(model)) == left + 1


def test_results_on_the_way_have_a_limit() -> None:
    model = model_of(
        "g (float[n] x) => (float[m] y) <float[1] one = {1}, int64[1] many = {80000000}> "
        "{ n = Abs (many) a = Expand (one, n) b = ReduceSum (a) y = Add (x, b) }"
    )
    for value in graph_values(model.graph):
        if value.producer() is not None:
            value.shape = None
    seen: list[str] = []

    def watching(data: bytes) -> list[Array]:
        try:
            return constant_folding.run_portably(data)
        except errors.LimitExceeded as error:
            seen.append(str(error))
            raise

    assert fold_constants(model, watching)
    assert "max_tensor_bytes" in seen[0]
    assert operators(model) == ["Expand", "ReduceSum", "Add"]


def test_small_weights_of_quantized_models_stay_small() -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) <int8[2] w = {1, 2}, float scale = {0.5}> "
        "{ d = DequantizeLinear (w, scale) y = Add (x, d) }"
    )
    assert not fold_constants(model, by_onnxruntime)


def break_type(model: ir.Model) -> None:
    """Takes the type of a value away."""
    next(iter(model.graph)).outputs[0].type = None


def break_order(model: ir.Model) -> None:
    """Moves the first node behind its users."""
    first = next(iter(model.graph))
    model.graph.remove(first)
    model.graph.append(first)


def break_names(model: ir.Model) -> None:
    """Gives two values one name."""
    first, second = list(model.graph)[:2]
    first.outputs[0].name = second.outputs[0].name


def break_constant(model: ir.Model) -> None:
    """Takes the data of a constant away."""
    next(iter(model.graph.initializers.values())).const_value = None


def break_output(model: ir.Model) -> None:
    """Makes a value the output that nothing computes."""
    model.graph.outputs[0] = ir.Value(name="other", type=ir.TensorType(ir.DataType.FLOAT))


def break_input(model: ir.Model) -> None:
    """Makes a node use a value from nowhere."""
    next(iter(model.graph)).replace_input_with(
        0, ir.Value(name="other", type=ir.TensorType(ir.DataType.FLOAT))
    )


def break_version(model: ir.Model) -> None:
    """Takes the version of a node away."""
    next(iter(model.graph)).version = None


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (break_type, "has no type"),
        (break_order, "which nothing defines"),
        (break_names, "empty or taken"),
        (break_constant, "has no data of its type"),
        (break_output, "computed nowhere"),
        (break_input, 'uses "other", which nothing defines'),
        (break_version, "has no version"),
    ],
)
def test_check_between_passes_finds_what_a_pass_broke(
    break_it: Callable[[ir.Model], None], text: str
) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add (x, w) y = Neg (a) }"
    )
    verify(model, "nothing")
    break_it(model)
    with pytest.raises(errors.InvalidGraph, match=f'after the pass "p": .*{text}'):
        verify(model, 'the pass "p"')


def test_levels_run_what_those_before_them_run() -> None:
    assert LEVELS[:3] == ("disable", "basic", "extended")
    assert all(step.name and step.reason for step in STEPS)
    model = model_of("g (float[2] x) => (float[2] y) { a = Identity (x) y = Neg (a) }")
    optimize(model, "disable")
    assert operators(model) == ["Identity", "Neg"]
    optimize(model, "basic")
    assert operators(model) == ["Neg"]
    with pytest.raises(errors.InvalidArgument, match='no level "fast": use one of disable, basic'):
        optimize(model, "fast")


SIX = (
    "mnist-7",
    "cifar-imageclassifier-op10",
    "super-resolution-10",
    "yunet-n-dynamic",
    "silero-vad-v5-op16",
    "scan-lstm",
)


@pytest.mark.parametrize("level", ["disable", "basic", "layout"])
@pytest.mark.parametrize("name", SIX)
def test_real_model_gives_its_golden_in_onnxruntime(name: str, level: str) -> None:
    if not MODELS.is_dir():
        pytest.skip("shared models are absent")
    if level != "disable":
        pytest.importorskip("ortolan.session")
    data = convert(MODELS / f"{name}.onnx", level=level)
    with np.load(MODELS / "golden" / f"{name}.npz") as golden:
        feeds = {key[3:]: golden[key] for key in golden.files if key.startswith("in/")}
        expected = {key[4:]: golden[key] for key in golden.files if key.startswith("out/")}
    names = [info.name for info in ort.InferenceSession(data).get_outputs()]
    found = dict(zip(names, run(data, feeds), strict=True))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def test_conversion_is_deterministic() -> None:
    pytest.importorskip("ortolan.session")
    proto = onnx.parser.parse_model(HEAD + FOLDABLE)
    assert convert(proto) == convert(proto)


def test_slices_up_to_computed_places_tell_their_shapes() -> None:
    """A half of the channels, as torch.chunk is exported, one after another."""
    half = """
        s{0} = Shape (x{0})
        c{0} = Gather <axis = 0> (s{0}, one)
        p{0} = Add (c{0}, one)
        h{0} = Div (p{0}, two)
        a{0} = Slice (x{0}, zero, h{0}, one)
        x{1} = AveragePool <kernel_shape = [2, 2]> (a{0})
    """
    text = f"""{HEAD} g (float[1, 64, 8, 6] x) => (float[1, 8, 5, 3] y) {{
        zero = Constant <value = int64[1] {{0}}> ()
        one = Constant <value = int64[1] {{1}}> ()
        two = Constant <value = int64[1] {{2}}> ()
        x0 = Relu (x)
        {half.format(0, 1)} {half.format(1, 2)} {half.format(2, 3)}
        y = Neg (x3)
    }}"""
    model = load(onnx.parser.parse_model(text))
    optimize(model, "all")
    shapes = [tuple(value.shape or ()) for node in model.graph for value in node.outputs]
    pooled = [(1, 32, 7, 5), (1, 16, 6, 4), (1, 8, 5, 3)]
    assert [shape for shape in shapes if shape in pooled[:2]] == pooled[:2]
    assert all(isinstance(size, int) for shape in shapes for size in shape)
    assert {node.op_type for node in model.graph} == {"Relu", "Slice", "AveragePool", "Neg"}
