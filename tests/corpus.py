"""Tiny models, each with one trap that real models hold: what exporters write and runtimes trip on.

Out: checks like those of the real models (tests/models_lib.py), so that every runtime runs them
without ../shared. What must come out is what onnxruntime computes when the tests run; where it
refuses a model, the entry says what numpy computes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

import cases_lib as lib
import corpus_texts as texts
import models_lib
import models_oracle as oracle

PREFIX = "corpus/"
LIMIT = 1e-5
OPSETS = range(7, 25)

Feeds = dict[str, lib.Array]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model and what to feed it, run after run.

    Attributes:
        expected: for each run, where onnxruntime does not take the model.
        carried: outputs that are fed to the next run, by input.
        not_yet: what is missing for it to run; its tests expect the failure.
    """

    model: onnx.ModelProto
    runs: Sequence[Feeds]
    expected: Sequence[Mapping[str, lib.Array]] | None = None
    carried: Mapping[str, str] = dataclasses.field(default_factory=dict)
    not_yet: str = ""


_MAKERS: dict[str, Callable[[], Entry]] = {}


def _entry(make: Callable[[], Entry]) -> Callable[[], Entry]:
    _MAKERS[make.__name__.strip("_").replace("_", "-")] = make
    return make


def names() -> list[str]:
    """The names of all checks."""
    return [PREFIX + name for name in (*_MAKERS, *texts.SIMPLE, *map(_opset_name, OPSETS))]


@functools.cache
def entry(name: str) -> Entry:
    """The entry of a check's name."""
    short = name.removeprefix(PREFIX)
    if short in _MAKERS:
        return _MAKERS[short]()
    if short in texts.SIMPLE:
        simple = texts.SIMPLE[short]
        model = parse(simple.text)
        runs = [
            {value.name: draw(value, shape, seed) for value, shape in _pairs(model, shapes)}
            for seed, shapes in enumerate(simple.shapes)
        ]
        return Entry(model, runs, not_yet=simple.not_yet)
    return _all_versions(int(short.removeprefix("opset-")))


def parse(text: str) -> onnx.ModelProto:
    """A model of its text."""
    return onnx.parser.parse_model(text)


def _pairs(
    model: onnx.ModelProto, shapes: Sequence[Sequence[int]]
) -> list[tuple[onnx.ValueInfoProto, Sequence[int]]]:
    initialized = {weight.name for weight in model.graph.initializer}
    fed = [value for value in model.graph.input if value.name not in initialized]
    return list(zip(fed, shapes, strict=True))


def draw(value: onnx.ValueInfoProto, shape: Sequence[int], seed: int) -> lib.Array:
    """Numbers for an input; integers and booleans are small."""
    random = np.random.default_rng(seed)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if dtype == np.dtype(object):
        words = [f"word {k % 3}" for k in range(int(np.prod(shape)))]
        return np.array(words, object).reshape(shape)
    if dtype.kind in "iub":
        return np.asarray(random.integers(0, 3, shape)).astype(dtype)
    return np.asarray(random.standard_normal(shape)).astype(dtype)


@functools.cache
def make_check(name: str) -> models_lib.Check:
    """The check of a name."""
    item = entry(name)
    session = None if item.expected else oracle.session(item.model.SerializeToString())
    steps: list[models_lib.Step] = []
    before: Mapping[str, lib.Array] = {}
    for index, run in enumerate(item.runs):
        carried = item.carried if index else {}
        feeds = run | {to: before[of] for to, of in carried.items()}
        before = item.expected[index] if item.expected else oracle.run(session, feeds)
        steps.append(
            models_lib.Step({k: v for k, v in feeds.items() if k not in carried}, before, carried)
        )
    file_name = name.replace("/", "-")
    return models_lib.Check(
        name, file_name, steps, limit=LIMIT, proto=item.model, not_yet=item.not_yet
    )


def _floats(*shape: int, seed: int = 0) -> lib.Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _weight(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    return numpy_helper.from_array(_floats(*shape, seed=seed), name)


def _value(
    name: str, *shape: int | str | None, kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    weights: Sequence[onnx.TensorProto] = (),
    opsets: Mapping[str, int] = {"": 17},
    ir_version: int = 8,
) -> onnx.ModelProto:
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "corpus", inputs, results, weights)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


@_entry
def _weights_as_inputs() -> Entry:
    """IR 3: every initializer is an input as well, and is not meant to be fed."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    inputs = [_value("w", 4, 2, 3, 3), _value("b", 4), _value("x", 1, 2, 5, 6)]
    inputs.append(_value("shape", 2, kind=TensorProto.INT64))
    weights = [_weight("w", 4, 2, 3, 3), _weight("b", 4, seed=1), shape]
    model = _model(nodes, inputs, ["y"], weights, {"": 7}, ir_version=3)
    return Entry(model, [{"x": _floats(1, 2, 5, 6)}])


@_entry
def _overridable_initializers() -> Entry:
    """An initializer that is an input: fed in one run, with its own value in the next."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    inputs = [_value("x", "n", 3), _value("w", 3, 2), _value("b", 2)]
    model = _model(nodes, inputs, ["y"], [_weight("w", 3, 2), _weight("b", 2)])
    x = _floats(4, 3, seed=1)
    other = {"w": _floats(3, 2, seed=2), "b": _floats(2, seed=3)}
    return Entry(model, [{"x": x}, {"x": x, **other}, {"x": x}, {"x": x, "b": other["b"]}])


@_entry
def _repeated_names() -> Entry:
    """A constant's name defined twice with other values: the last one counts for every user."""

    def constant(number: float) -> onnx.NodeProto:
        value = numpy_helper.from_array(np.array([number], np.float32))
        return helper.make_node("Constant", [], ["c"], value=value)

    nodes = [
        constant(2.0),
        helper.make_node("Mul", ["x", "c"], ["a"]),
        constant(5.0),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    return Entry(_model(nodes, [_value("x", "n")], ["a", "y"]), [{"x": _floats(3)}])


@_entry
def _unsorted_nodes() -> Entry:
    """Users stand before what they use, in the main graph and in a branch.

    onnxruntime sorts the main graph only.
    """
    make = helper.make_node
    inner = [make("Neg", ["i"], ["o"]), make("Exp", ["late"], ["i"])]
    other = [make("Identity", ["late"], ["p"])]
    branches = [
        helper.make_graph(nodes, "branch", [], [_value(name, None)])
        for nodes, name in ((inner, "o"), (other, "p"))
    ]
    nodes = [
        make("Add", ["picked", "late"], ["y"]),
        make("If", ["go"], ["picked"], then_branch=branches[0], else_branch=branches[1]),
        make("Abs", ["x"], ["late"]),
    ]
    inputs = [_value("x", "n"), _value("go", kind=TensorProto.BOOL)]
    x = _floats(3)
    late = np.abs(x)
    runs: list[Feeds] = [{"x": x, "go": np.array(go)} for go in (True, False)]
    expected = [{"y": late - np.exp(late)}, {"y": late + late}]
    return Entry(_model(nodes, inputs, ["y"]), runs, expected)


@_entry
def _lstm_state() -> Entry:
    """A streaming LSTM: state in and out, a second layer that runs both ways."""
    make = helper.make_node
    nodes = [
        make("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["s", "hn", "cn"], hidden_size=5),
        make("Squeeze", ["s", "axis"], ["q"]),
        make("LSTM", ["q", "w2", "r2"], ["t", "", ""], hidden_size=3, direction="bidirectional"),
        make("Transpose", ["t"], ["u"], perm=[0, 2, 1, 3]),
        make("Reshape", ["u", "shape"], ["y"]),
    ]
    weights = [
        _weight("w", 1, 20, 4), _weight("r", 1, 20, 5), _weight("b", 1, 40),
        _weight("w2", 2, 12, 5), _weight("r2", 2, 12, 3),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([0, 0, -1], np.int64), "shape"),
    ]  # fmt: skip
    inputs = [_value("x", "t", 2, 4), _value("h", 1, 2, 5), _value("c", 1, 2, 5)]
    model = _model(nodes, inputs, ["y", "hn", "cn"], weights)
    zero = np.zeros((1, 2, 5), np.float32)
    runs = [{"x": _floats(t, 2, 4, seed=t), "h": zero, "c": zero} for t in (3, 1, 7)]
    return Entry(model, runs, carried={"h": "hn", "c": "cn"})


@_entry
def _forms_of_constants() -> Entry:
    """Each form in which a tensor can lie in a file: raw, by type, and Constant's short forms."""
    make, tensor = helper.make_node, helper.make_tensor
    kinds: dict[str, tuple[int, list[float]]] = {
        "f": (TensorProto.FLOAT, [1.5, -2.0]), "d": (TensorProto.DOUBLE, [1.5, -2.0]),
        "i": (TensorProto.INT32, [1, -2]), "l": (TensorProto.INT64, [1, -(2**40)]),
        "u": (TensorProto.UINT8, [1, 200]), "s": (TensorProto.INT8, [1, -2]),
        "b": (TensorProto.BOOL, [1, 0]), "w": (TensorProto.UINT32, [1, 2**31]),
    }  # fmt: skip
    weights = [tensor(name, kind, [2], values) for name, (kind, values) in kinds.items()]
    nodes = [make("Cast", [name], [f"{name}_out"], to=TensorProto.DOUBLE) for name in kinds]
    nodes += [
        make("Constant", [], ["one"], value_float=1.5),
        make("Constant", [], ["many"], value_floats=[1.0, 2.0]),
        make("Constant", [], ["whole"], value_int=3),
        make("Constant", [], ["wholes"], value_ints=[2, 1]),
        make("Add", ["one", "many"], ["sum"]),
        make("Add", ["sum", "x"], ["y"]),
        make("Expand", ["y", "wholes"], ["z"]),
        make("Add", ["whole", "l"], ["k"]),
    ]
    outputs = [*(f"{name}_out" for name in kinds), "z", "k"]
    return Entry(_model(nodes, [_value("x", 2)], outputs, weights), [{"x": _floats(2)}])


@_entry
def _odd_dimension_names() -> Entry:
    """Symbolic dimensions that are no identifiers, negative ones, and one name for two sizes."""
    model = _model(
        [helper.make_node("Concat", ["a", "b"], ["y"], axis=-1)],
        [_value("a", "N", "N"), _value("b", "?", "batch size/ß")],
        ["y"],
    )
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = -1
    return Entry(model, [{"a": _floats(2, 3), "b": _floats(2, 4, seed=1)}])


@_entry
def _untyped_trees() -> Entry:
    """ai.onnx.ml without a shape or type between the nodes, as ML.NET writes it; IR 3."""
    make = functools.partial(helper.make_node, domain="ai.onnx.ml")
    nodes = [
        make("Imputer", ["a"], ["a1"], imputed_value_floats=[0.5], replaced_value_float=-1.0),
        make("Scaler", ["b"], ["b1"], offset=[1.0], scale=[2.0]),
        make("FeatureVectorizer", ["a1", "b1"], ["v"], inputdimensions=[1, 1]),
        make(
            "TreeEnsembleRegressor", ["v"], ["y"], n_targets=1, base_values=[0.25],
            nodes_treeids=[0, 0, 0, 1, 1, 1], nodes_nodeids=[0, 1, 2, 0, 1, 2],
            nodes_featureids=[0, 0, 0, 1, 0, 0], nodes_values=[0.0, 0, 0, 1.0, 0, 0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 0, 0, 1, 0, 0], nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
            nodes_hitrates=[1.0] * 6, nodes_missing_value_tracks_true=[0] * 6,
            target_treeids=[0, 0, 1, 1], target_nodeids=[1, 2, 1, 2], target_ids=[0] * 4,
            target_weights=[1.0, 2.0, 4.0, 8.0], post_transform="NONE",
        ),
    ]  # fmt: skip
    inputs = [_value("a", 1, 1), _value("b", 1, 1)]
    model = _model(nodes, inputs, ["y"], opsets={"ai.onnx.ml": 1}, ir_version=3)
    model.graph.output[0].CopyFrom(_value("y", 1, 1))
    pairs = ((-1, 0), (-0.5, 3), (2, -2))
    runs = [
        {name: np.full((1, 1), number, np.float32) for name, number in zip("ab", pair, strict=True)}
        for pair in pairs
    ]
    return Entry(model, runs)


@_entry
def _unused_opset_imports() -> Entry:
    """Domains that nothing uses, known and unknown ones, and the standard one under both names."""
    opsets = {"com.microsoft": 1, "ai.onnx.ml": 3, "org.example.nothing": 7, "": 13}
    nodes = [helper.make_node("Softplus", ["x"], ["y"])]
    model = _model(nodes, [_value("x", "n")], ["y"], opsets=opsets)
    return Entry(model, [{"x": _floats(5)}])


@_entry
def _outputs_of_all_kinds() -> Entry:
    """Outputs that are inputs, initializers, constants, and views of each other."""
    make = helper.make_node
    nodes = [
        make("Identity", ["x"], ["same"]),
        make("Reshape", ["x", "shape"], ["flat"]),
        make("Identity", ["flat"], ["flat2"]),
        make("Neg", ["flat2"], ["y"]),
        make("Constant", [], ["three"], value_int=3),
    ]
    shape = numpy_helper.from_array(np.array([-1], np.int64), "shape")
    outputs = ["same", "w", "x", "flat", "flat2", "y", "three"]
    model = _model(nodes, [_value("x", "n", 2)], outputs, [shape, _weight("w", 3)])
    x = _floats(3, 2)
    return Entry(model, [{"x": x}, {"x": x + 1}])


@_entry
def _duplicate_outputs() -> Entry:
    """One value listed as an output twice."""
    model = _model([helper.make_node("Neg", ["x"], ["y"])], [_value("x", "n")], ["y", "y"])
    return Entry(model, [{"x": _floats(3)}])


@_entry
def _float16_weights() -> Entry:
    """float16 from end to end, as converters for phones write it."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        make("Relu", ["c"], ["r"]),
        make("GlobalAveragePool", ["r"], ["y"]),
    ]
    half = numpy_helper.from_array(_floats(4, 2, 3, 3).astype(np.float16), "w")
    x = _value("x", 1, 2, 6, 6, kind=TensorProto.FLOAT16)
    model = _model(nodes, [x], ["y"], [half])
    model.graph.output[0].CopyFrom(_value("y", 1, 4, 1, 1, kind=TensorProto.FLOAT16))
    feeds = {"x": _floats(1, 2, 6, 6).astype(np.float16)}
    return Entry(model, [feeds])


@_entry
def _zipmap() -> Entry:
    """A classifier whose probabilities come as a sequence of maps."""
    make = functools.partial(helper.make_node, domain="ai.onnx.ml")
    nodes = [
        make(
            "LinearClassifier", ["x"], ["label", "p"], coefficients=[1.0, -1, 0.5, 0.25],
            intercepts=[0.1, -0.1], classlabels_ints=[3, 8], post_transform="SOFTMAX",
        ),
        make("ZipMap", ["p"], ["maps"], classlabels_int64s=[3, 8]),
    ]  # fmt: skip
    model = _model(nodes, [_value("x", "n", 2)], [], opsets={"": 13, "ai.onnx.ml": 1})
    kind = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    maps = onnx.ValueInfoProto(name="maps", type=helper.make_sequence_type_proto(kind))
    model.graph.output.extend([_value("label", "n", kind=TensorProto.INT64), maps])
    return Entry(model, [{"x": _floats(3, 2)}])


def _opset_name(version: int) -> str:
    return f"opset-{version}"


def _all_versions(version: int) -> Entry:
    """One network in the words of an opset: operators whose form changed between 7 and 24."""
    text = texts.versioned(version)
    model = parse(text)
    for seed, (name, shape) in enumerate({"w": (4, 3, 3, 3), "scale": (4,), "bias": (4,)}.items()):
        model.graph.initializer.append(_weight(name, *shape, seed=seed))
    for name, array in (("mean", np.zeros(4)), ("variance", np.ones(4))):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    runs = [{"x": _floats(n, 3, 8, 8, seed=n)} for n in (1, 3)]
    return Entry(model, runs)
