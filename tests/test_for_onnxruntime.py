"""Files made for onnxruntime: what is changed so that it loads them, with itself as the oracle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import models_oracle as oracle
import ortolan
from ortolan.catalog import onnxruntime as facts
from ortolan.errors import InvalidArgument
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.ortformat import read
from ortolan.ortformat.links import graphs, op_ids

ROOT = Path(__file__).resolve().parent.parent
X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)


def operators(content: bytes) -> list[str]:
    """The ids of all nodes of a file, those of subgraphs included, in order."""
    return [node.op_id() for part in graphs(read(content).model.graph) for node in part.nodes]


def run(model: bytes, feeds: Mapping[str, Any]) -> list[Any]:
    session = oracle.session(model)
    return list(session.run(None, dict(feeds)))


def same(model: onnx.ModelProto, feeds: Mapping[str, Any], level: str = "disable") -> bytes:
    """Converts a model; holds that onnxruntime computes the same from the file. Returns it."""
    content = ortolan.convert(model, level=level, profile="onnxruntime")
    for got, wanted in zip(run(content, feeds), run(model.SerializeToString(), feeds), strict=True):
        np.testing.assert_array_equal(got, wanted)
    return content


def graph(text: str, opset: int = 18) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}')


def test_facts_are_those_of_the_wheel() -> None:
    command = [sys.executable, str(ROOT / "tools" / "onnxruntime_profile.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if facts.version() != onnxruntime.__version__:
        pytest.skip(f"the facts are of {facts.version()}, installed is {onnxruntime.__version__}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels_serve_versions_as_onnxruntime_says() -> None:
    relu = facts.kernels("", "Relu")
    assert [k.first for k in relu if k.serves(14)] == [14]
    assert [k.first for k in relu if k.serves(12)] == [6]
    # A kernel without an end serves its first version only: nobody knows what later ones mean.
    assert not any(k.serves(99) for k in relu)
    assert facts.kernels("", "HardSwish") == ()


@pytest.mark.parametrize(
    ("operator", "opset", "body"),
    [
        ("HardSwish", 14, [":HardSigmoid:6", ":Mul:14"]),
        ("Mish", 18, [":Softplus:1", ":Tanh:13", ":Mul:14"]),
        ("CastLike<>", 15, [":Cast:13"]),
    ],
)
def test_functions_without_kernel_are_inlined(operator: str, opset: int, body: list[str]) -> None:
    inputs = "x, x" if "CastLike" in operator else "x"
    name = operator.removesuffix("<>")
    model = graph(f"(float[2,4] x) => (float[2,4] y) {{ y = {name}({inputs}) }}", opset)
    assert operators(same(model, {"x": X})) == body


def test_functions_in_branches_are_inlined() -> None:
    model = graph(
        """(float[2,4] x, bool c) => (float[2,4] y) { y = If (c) <
            then_branch = a () => (float[2,4] t) { t = Mish(x) },
            else_branch = b () => (float[2,4] e) { e = HardSwish(x) }> }"""
    )
    for condition in (True, False):
        content = same(model, {"x": X, "c": np.array(condition)})
    session = read(content)
    assert session.kernel_type_str_resolver is not None
    resolved = [item.op_id for item in session.kernel_type_str_resolver.op_kernel_type_str_args]
    assert resolved == op_ids(session.model.graph)
    assert {":Softplus:1", ":HardSigmoid:6", ":If:16"} <= set(resolved)


def test_half_precision_is_cast_around_what_lacks_it() -> None:
    model = graph(
        """(float16[2,4] x) => (float16[2,4] y) { a = Sigmoid(x) b = Relu(a) y = Add(b, x) }""", 14
    )
    content = same(model, {"x": X.astype(np.float16)})
    # Cast once on the way in and once on the way out: nothing is rounded in between.
    wanted = [":Cast:13", ":Sigmoid:13", ":Relu:14", ":Add:14", ":Cast:13"]
    assert operators(content) == wanted
    assert read(content).model.graph.outputs == ["y"]


def test_half_precision_that_others_use_stays() -> None:
    model = graph(
        """(float16[2,4] x) => (float16[2,4] w, float16[4,2] t)
        { w = Sigmoid(x) v = Relu(w) t = Transpose(v) }""",
        14,
    )
    content = same(model, {"x": X.astype(np.float16)})
    assert operators(content).count(":Cast:13") == 3


def test_half_precision_chosen_by_an_attribute() -> None:
    node = "RandomNormalLike<dtype = 10, seed = 1.0>(x)"
    model = graph(f"(float16[2,4] x) => (float16[2,4] y) {{ y = {node} }}")
    assert same(model, {"x": X.astype(np.float16)})


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize("axes", [[], [2]])
@pytest.mark.parametrize("between", [False, True])
def test_narrow_integers(kind: int, axes: list[int], between: bool) -> None:
    """4 bits: onnxruntime 1.32 writes such constants into its files and does not read them."""
    count = 2 if axes else 1
    numbers = [1, 2, 3, -4 if kind == TensorProto.INT4 else 4, 5, 6, 7, 0]
    constants = [
        helper.make_tensor("w", kind, [4, 2], numbers),
        helper.make_tensor("z", kind, axes, [1, 2][:count]),
        helper.make_tensor("s", TensorProto.FLOAT, axes, [0.5, 0.25][:count]),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["v" if between else "w", "s", "z"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    if between:
        nodes.insert(0, helper.make_node("Transpose", ["w"], ["v"], perm=[0, 1]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", [2, 4]), ("y", [2, 2]))
    ]
    proto = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 21)]
    content = same(helper.make_model(proto, opset_imports=opsets, ir_version=10), {"x": X})
    assert (":Cast:21" in operators(content)) == between


# The shapes of image, filters, bias and result; the other parameters are drawn.
QUANTIZED: dict[str, tuple[list[int], list[int], list[int], dict[str, Any]]] = {
    "scalars": ([1, 2, 5, 6], [3, 2, 3, 2], [], {}),
    "one per filter": ([1, 2, 5, 6], [3, 2, 3, 2], [3], {"per_filter": True}),
    "int8": ([2, 3, 6, 6], [4, 3, 3, 3], [4], {"w": "int8", "pads": [1, 1, 1, 1]}),
    "int8 image": ([1, 2, 5, 5], [2, 2, 3, 3], [2], {"x": "int8", "w": "int8"}),
    "groups": ([1, 4, 6, 6], [8, 2, 3, 3], [8], {"group": 2, "strides": [2, 2]}),
    "depthwise": ([1, 8, 6, 6], [8, 1, 3, 3], [8], {"group": 8, "w": "int8"}),
    "1-D": ([1, 2, 9], [3, 2, 3], [3], {}),
    "3-D": ([1, 2, 4, 5, 4], [3, 2, 2, 2, 2], [], {}),
}


def quantized_conv(name: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model with one QLinearConv on an image that is fed."""
    image, filters, bias, options = QUANTIZED[name]
    draw = np.random.default_rng(3)
    x_type, w_type = np.dtype(options.get("x", "uint8")), np.dtype(options.get("w", "uint8"))
    shape = [filters[0]] if options.get("per_filter") else []
    values = {
        "x_scale": np.float32(0.02),
        "x_zero": x_type.type(3),
        "w": draw.integers(0, 100, filters).astype(w_type),
        "w_scale": np.full(shape, 0.05, np.float32) + np.arange(shape[0] if shape else 1).reshape(
            shape
        ).astype(np.float32) / 100,
        "w_zero": np.full(shape, 50 if w_type == np.uint8 else 0, w_type),
        "y_scale": np.float32(0.3),
        "y_zero": x_type.type(7),
    }  # fmt: skip
    if bias:
        values["b"] = draw.integers(-500, 500, bias).astype(np.int32)
    attributes = {key: options[key] for key in ("group", "pads", "strides") if key in options}
    node = helper.make_node("QLinearConv", ["x", *values], ["y"], **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(x_type)] * 2
    infos = [
        helper.make_tensor_value_info(key, kind, shape)
        for key, kind, shape in zip("xy", kinds, (image, None), strict=True)
    ]
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
    made = helper.make_graph([node], "g", infos[:1], infos[1:], constants)
    model = helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return model, {"x": draw.integers(0, 100, image).astype(x_type)}


@pytest.mark.parametrize("level", ["disable", "extended", "layout"])
@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_convolutions_are_loaded(name: str, level: str) -> None:
    """Onnxruntime rewrites them into com.microsoft's when it loads a file."""
    model, feeds = quantized_conv(name)
    content = same(model, feeds, level)
    assert operators(content) == [":QLinearConv:10"]
    (wanted,) = run(model.SerializeToString(), feeds)
    # As users open it: the oracle's sessions optimize nothing.
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for runner in (session, ortolan.InferenceSession(content)):
        (got,) = runner.run(None, feeds)
        assert np.abs(np.asarray(got, int) - np.asarray(wanted, int)).max() <= 1


@pytest.mark.parametrize("level", ["disable", "basic"])
@pytest.mark.parametrize(
    ("text", "feeds"),
    [
        ("(float[2,4] x) => (float[2,4] x) {}", {"x": X}),
        ("() => (float[2] y) <float[2] y = {1.0, 2.0}> {}", {}),
        ("() => (float[2] y) { y = Constant <value = float[2] {1.0, 2.0}> () }", {}),
        ("() => (float[2] y) <float[2] a = {1.0, 2.0}> { y = Add(a, a) }", {}),
        ("(float[2,4] x) => (float[2,4] y) { y = Identity(x) }", {"x": X}),
    ],
)
def test_files_without_nodes_are_loaded(text: str, feeds: dict[str, Any], level: str) -> None:
    model = graph(text)
    content = same(model, feeds, level)
    for data in (content, ortolan.convert(model, level=level)):
        wanted = run(model.SerializeToString(), feeds)
        for got in (run(data, feeds), ortolan.InferenceSession(data).run(None, feeds)):
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_version_without_kernel_is_raised() -> None:
    model = graph("(float[2,4] x) => (float[2,4] y) { w = Relu(x) y = Sigmoid(w) }", 5)
    content = ortolan.convert(model, profile="onnxruntime")
    assert operators(content) == [":Relu:6", ":Sigmoid:6"]
    (got,) = run(content, {"x": X})
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-np.maximum(X, 0).astype(float))), rtol=1e-6)


def test_versions_are_not_raised_otherwise() -> None:
    model = graph("(float[2,4] x) => (float[2,4] y) { w = Relu(x) y = Softmax(w) }", 7)
    assert operators(same(model, {"x": X}, "all")) == [":Relu:6", ":Softmax:1"]


def test_operators_that_ortolan_lacks_are_no_obstacle() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]>
        g (float[3,3] x) => (float[3,3] y) { a = com.microsoft.Inverse(x) y = Identity(a) }"""
    )
    feeds = {"x": np.diag([1, 2, 4]).astype(np.float32)}
    assert "com.microsoft:Inverse:1" in operators(same(model, feeds))


def test_unknown_types_of_unknown_operators_are_told() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "house": 1]>
        g (int32[2] x) => (float[2] y) { a = house.Riddle(x) y = Cast<to = 1>(a) }"""
    )
    with pytest.raises(NotImplementedHere, match=r"Riddle.*declare them in the model"):
        ortolan.convert(model, profile="onnxruntime")


def test_what_cannot_be_helped_is_named() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]>
        g (double[2] x) => (double[2] y) { y = com.microsoft.QuickGelu(x) }"""
    )
    what = r"QuickGelu:1 with T = tensor\(double\) \(1 node\)"
    with pytest.raises(NotImplementedHere, match=what):
        ortolan.convert(model, profile="onnxruntime")
    assert ortolan.convert(model, profile="onnxruntime", allow_unknown_operators=True)
    model = graph("(float[2,4] x) => (bool y) { z = Optional(x) y = OptionalHasElement(z) }")
    with pytest.raises(NotImplementedHere, match=r'"z" is optional\(tensor\(float\)\)'):
        ortolan.convert(model, profile="onnxruntime")
    with pytest.raises(InvalidArgument, match="profile"):
        ortolan.convert(model, profile="tensorrt")
    with pytest.raises(InvalidArgument, match="optimization style"):
        ortolan.convert(model, optimization_style="Later")


CONVOLUTIONS = """(float[1,1,5,5] x) => (float[1,1,3,3] y, float[1,1,4,4] a)
    <float[1,1,2,2] w = {1.0, -2.0, 3.0, -4.0}>
    { c = Conv(x, w) a = Relu(c) d = Conv(a, w) y = LeakyRelu<alpha = 0.5>(d) }"""


def test_runtime_style_is_replayed_by_onnxruntime(tmp_path: Path) -> None:
    model = graph(CONVOLUTIONS, 14)
    content = ortolan.convert(model, profile="onnxruntime", optimization_style="Runtime")
    assert operators(content) == [":Conv:11", ":Relu:14", ":Conv:11", ":LeakyRelu:6"]
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 1, 5, 5)).astype(np.float32)}
    wanted = run(model.SerializeToString(), feeds)
    seen = {}
    for replay in ("0", "1"):
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.enable_saved_runtime_optimizations", replay)
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / replay)
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        for got, right in zip(session.run(None, feeds), wanted, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-5)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        names = (event.get("args", {}).get("op_name") for event in events)
        seen[replay] = {name for name in names if name}
    assert seen == {"0": {"Conv", "Relu", "LeakyRelu"}, "1": {"FusedConv"}}
    # Ortolan runs the same file; the records say nothing to it.
    for got, right in zip(ortolan.InferenceSession(content).run(None, feeds), wanted, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5)
