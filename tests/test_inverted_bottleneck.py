"""Operators of ai.ortolan for convolutions and the passes that make them, against onnxruntime.

Random widths, images, strides and activations, on every instruction set that the machine has and
with two threads; small images too, which the pass leaves alone otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from cases_lib import levels
from ortolan.build.compile import BuildOptions, build
from ortolan.build.host import cache_folder
from ortolan.build.product import wanted_config
from ortolan.build.targets import WEB
from ortolan.build.verify import Reference, run_library, runner_of
from ortolan.ortformat import read
from ortolan.passes import inverted_bottleneck
from ortolan.required_ops import selector, variant_selector
from ortolan.session import InferenceSession, SessionOptions

ort = pytest.importorskip("onnxruntime")

Rng = np.random.Generator
ACTIVATIONS = (None, "Relu", "Clip", "HardSwish", "Silu")


class Network:
    """Nodes of a model, one behind the other."""

    def __init__(self, rng: Rng, channels: int) -> None:
        self.rng, self.channels, self.last = rng, channels, "x"
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node whose result is the last one now."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        self.last = name
        return name

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(
        self, outputs: int, kernel: tuple[int, int], group: int = 1, **attributes: Any
    ) -> None:
        """A convolution with or without bias, and an activation."""
        shape = (outputs, self.channels // group, *kernel)
        scale = np.sqrt(1 / (shape[1] * kernel[0] * kernel[1]))
        inputs = [self.last, self.constant((self.rng.standard_normal(shape) * scale).astype("f"))]
        if self.rng.random() < 0.7:
            inputs.append(self.constant(self.rng.standard_normal(outputs).astype("f")))
        self.channels = outputs
        self.add("Conv", *inputs, group=group, kernel_shape=list(kernel), **attributes)

    def activate(self, kind: str | None) -> None:
        if kind == "Silu":
            x = self.last
            self.add("Mul", x, self.add("Sigmoid", x))
        elif kind == "Clip":
            bounds = [self.constant(np.array(v, np.float32)) for v in (-0.5, 0.75)]
            self.add("Clip", self.last, *bounds)
        elif kind is not None:
            self.add(kind, self.last)

    def model(self, shape: list[Any]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)],
            self.weights,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bottleneck(rng: Rng, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Expand or not, depthwise, project, and the input added where that fits."""
    network = Network(rng, shape[1])
    kinds = [ACTIVATIONS[int(k)] for k in rng.integers(len(ACTIVATIONS), size=3)]
    if rng.random() < 0.8:
        network.conv(int(rng.integers(1, 80)), (1, 1))
        network.activate(kinds[0])
    kernel = tuple(int(k) for k in rng.choice([1, 3, 3, 3, 5], 2))
    strides = [int(k) for k in rng.choice([1, 1, 2, 3], 2)]
    pads = [int(k) for k in rng.integers(0, 3, 4)]
    if rng.random() < 0.5:
        kernel, strides, pads = (3, 3), [1, 1], [1, 1, 1, 1]
    channels = network.channels
    network.conv(channels, (kernel[0], kernel[1]), channels, strides=strides, pads=pads)
    network.activate(kinds[1])
    is_same = strides == [1, 1] and pads == [1, 1, 1, 1] and kernel == (3, 3)
    network.conv(shape[1] if is_same else int(rng.integers(1, 60)), (1, 1))
    if is_same:
        network.add("Add", network.last, "x")
    else:
        network.activate(kinds[2])
    return network.model(list(shape))


def run(data: bytes, feeds: dict[str, Any], level: str, threads: int) -> Any:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("ortolan.instruction_set", level)
    return InferenceSession(data, options).run(None, feeds)[0]


def operators(data: bytes) -> list[str]:
    """Those that compute something."""
    nodes = read(data).model.graph.nodes
    return [node.op_type for node in nodes if node.op_type != "Unpack"]


@pytest.mark.parametrize("seed", range(30))
def test_random_bottlenecks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted_bottleneck, "_SMALLEST", 1)
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 50)), *rng.integers(5, 40, 2).tolist())
    model = bottleneck(rng, shape)
    x = rng.standard_normal(shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    data = ortolan.convert(model)
    if "InvertedBottleneck" not in operators(data):  # one channel has no groups
        assert any(a.i == 1 for n in model.graph.node for a in n.attribute if a.name == "group")
    for level in levels():
        for threads in (1, 2):
            found = run(data, {"x": x}, level, threads)
            assert found.shape == expected.shape
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error < 1e-5, f"{level}, {threads} threads: {error:.2g}"


@pytest.mark.parametrize(
    ("side", "level", "fused"),
    [(28, "all", True), (27, "all", False), (28, "layout", False), ("H", "all", False)],
)
def test_when_it_is_made(side: Any, level: str, fused: bool) -> None:
    network = Network(np.random.default_rng(0), 8)
    network.conv(16, (1, 1))
    network.activate("Relu")
    network.conv(16, (3, 3), 16, pads=[1, 1, 1, 1])
    network.activate("Relu")
    network.conv(8, (1, 1))
    network.add("Add", network.last, "x")
    found = operators(ortolan.convert(network.model([1, 8, side, side]), level=level))
    assert (found == ["InvertedBottleneck"]) == fused


@pytest.mark.parametrize("kind", ["HardSwish", "Silu"])
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "group"),
    [(7, 9, 3, 1), (40, 33, 1, 1), (32, 24, 3, 1), (20, 20, 5, 20), (3, 3, 3, 3), (8, 12, 3, 4)],
)
def test_own_activations(kind: str, channels: int, outputs: int, kernel: int, group: int) -> None:
    rng = np.random.default_rng(channels)
    network = Network(rng, channels)
    network.conv(outputs, (kernel, kernel), group, pads=[kernel // 2] * 4)
    network.activate(kind)
    model = network.model([2, channels, 13, 17])
    x = 3 * rng.standard_normal((2, channels, 13, 17)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    data = ortolan.convert(model)
    assert operators(data) == ["FusedConv"]
    assert "FusedConv" not in operators(ortolan.convert(model, level="layout"))
    for level in levels():
        error = np.abs(run(data, {"x": x}, level, 1) - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"{level}: {error:.2g}"


@pytest.mark.parametrize(
    ("alpha", "shared", "left"),
    [
        (1 / 6, False, ["FusedConv"]),
        (0.2, False, ["Conv", "HardSigmoid", "Mul"]),
        (1 / 6, True, ["Conv", "HardSigmoid", "Mul", "Add"]),
    ],
)
def test_hard_swish_of_old_opsets(alpha: float, shared: bool, left: list[str]) -> None:
    rng = np.random.default_rng(3)
    network = Network(rng, 20)
    network.conv(24, (3, 3), 1, pads=[1, 1, 1, 1])
    between = network.last
    gate = network.add("HardSigmoid", between, alpha=alpha, beta=0.5)
    network.add("Mul", gate, between)
    if shared:
        network.add("Add", network.last, gate)
    model = network.model([2, 20, 9, 11])
    model.opset_import[0].version = 11
    feeds = {"x": 3 * rng.standard_normal((2, 20, 9, 11)).astype(np.float32)}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)[0]
    data = ortolan.convert(model)
    assert operators(data) == left
    error = np.abs(run(data, feeds, levels()[-1], 1) - expected).max() / np.abs(expected).max()
    assert error < 1e-5, error


def test_another_user_prevents_it() -> None:
    network = Network(np.random.default_rng(0), 8)
    network.conv(8, (3, 3), 8, pads=[1, 1, 1, 1])
    between = network.last
    network.conv(8, (1, 1))
    network.add("Add", network.last, between)
    assert "InvertedBottleneck" not in operators(ortolan.convert(network.model([1, 8, 32, 32])))


def test_a_small_web_build_makes_convolutions_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("ziglang", reason="the compiler (ziglang) is not installed")
    runner = runner_of(WEB, cache_folder())
    if runner is None:
        pytest.skip("there is no Node")
    monkeypatch.setattr(inverted_bottleneck, "_SMALLEST", 1)
    models = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shape = tuple(int(size) for size in rng.integers([1, 1, 5, 5], [3, 30, 30, 30]))
        data = ortolan.convert(bottleneck(rng, shape))
        assert isinstance(data, bytes)
        if "InvertedBottleneck" in operators(data):
            models.append((data, rng.standard_normal(shape).astype(np.float32)))
    assert len(models) > 3
    config = wanted_config([(str(i), m[0]) for i, m in enumerate(models)], None, targets=[WEB])
    library = build(
        WEB, tmp_path, cache_folder(), wanted=selector(config), variants=variant_selector(config),
        without=config.without, options=BuildOptions("size", "text", whole_program=True),
    )  # fmt: skip
    assert b"InvertedBottleneck" in library.read_bytes()
    for data, x in models:
        result = run_library(runner[1], library, Reference("m", data, {0: x}, ()), tmp_path)
        assert result is not None
        code, text, outputs = result
        assert code == 0, text
        expected = run(data, {"x": x}, "0", 1)
        assert outputs[0].shape == expected.shape
        assert np.abs(outputs[0].astype("f8") - expected).max(initial=0) < 1e-5


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"w": (4, 2, 3, 3)}, "has shape"),
        ({"w": (0, 1, 3, 3), "p": (5, 0, 1, 1)}, "has shape"),
        ({"w": (4, 1, 3, 3), "p": (5, 3, 1, 1)}, "does not fit 4 channels"),
        ({"w": (4, 1, 3, 3), "e": (4, 5, 1, 1)}, "input 0 has 4 channels"),
        ({"w": (4, 1, 3, 3), "p": (6, 4, 1, 1), "pb": (5,)}, "the bias has 5 elements"),
        ({"w": (4, 1, 3, 3), "z": (1, 4, 8, 9)}, "input 3 has shape"),
        ({}, "no constants"),
    ],
)
def test_errors(weights: dict[str, tuple[int, ...]], message: str) -> None:
    places = ["x", "w" if weights else "x", "b", "z", "e", "eb", "p", "pb"]
    names = [name if name in weights or name == "x" else "" for name in places]
    node = helper.make_node(
        "InvertedBottleneck", names, ["y"], domain="ai.ortolan", pads=[1, 1, 1, 1]
    )
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in weights.items()],
    )  # fmt: skip
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.ortolan", 1)],
        ir_version=8,
    )
    with pytest.raises(ortolan.errors.OrtolanError, match=message):
        run(ortolan.convert(model), {"x": np.ones((1, 4, 8, 8), np.float32)}, "255", 1)
