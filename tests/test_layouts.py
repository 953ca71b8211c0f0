"""Where the loader converts layouts: at the borders of an image's way, and nowhere between.

Operators that have a list beside the image (scales of channels, pads, axes) stay on its way, also
where the list can be fed or the file states no ranks; results are onnxruntime's.
"""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import ortolan
from ortolan import _native

ort = pytest.importorskip("onnxruntime")

CHANNELS = 19

CASES = {
    "scales": "y = BatchNormalization (a, s, t, m, v)",
    "an instance": "y = InstanceNormalization (a, s, t)",
    "pads": 'y = Pad <mode = "reflect"> (a, pads)',
    "a part": "y = Slice (a, starts, ends, axes)",
    "a part of the channels": "y = Slice (a, starts, ends, channels)",
    "parts": "b, y = Split <axis = 1> (a, split)",
    "parts beside each other": "b, c = Split <axis = 2> (a, halves)\n y = Concat <axis = 3> (c, b)",
}
LISTS = {
    "pads": [0, 0, 1, 2, 0, 0, 2, 1], "starts": [1, 2], "ends": [5, 7], "axes": [2, 3],
    "channels": [1, 3], "split": [8, CHANNELS - 8], "halves": [4, 4],
}  # fmt: skip


def model(line: str, ranks: bool, fed: bool) -> onnx.ModelProto:
    """A convolution, an operator and a convolution; with `fed` floats are inputs with defaults."""
    rng = np.random.default_rng(7)
    scaled = "" if ranks else "x = ImageScaler <scale = 1.0, bias = [0.0, 0.0, 0.0]> (i)"
    graph = onnx.parser.parse_graph(
        f"""g (float[1, 3, 8, 8] {"x" if ranks else "i"}) => (float z) {{
            {scaled}
            a = Conv <pads = [1, 1, 1, 1]> (x, w)
            {line}
            z = Conv (y, u)
        }}"""
    )
    floats = {"w": (CHANNELS, 3, 3, 3), "s": (CHANNELS,), "t": (CHANNELS,), "m": (CHANNELS,)}
    arrays = {k: rng.standard_normal(shape).astype("f") for k, shape in floats.items()}
    arrays["v"] = rng.random(CHANNELS).astype("f") + 0.5
    inputs = CHANNELS - 8 if "split" in line else 4 if "channels" in line else CHANNELS
    arrays["u"] = rng.standard_normal((5, inputs, 1, 1)).astype("f")
    arrays |= {k: np.array(v, np.int64) for k, v in LISTS.items()}
    used = {name for node in graph.node for name in node.input}
    for name, array in arrays.items():
        if name not in used:
            continue
        graph.initializer.append(numpy_helper.from_array(array, name))
        if fed and array.dtype == np.float32 and array.ndim == 1:
            graph.input.append(helper.make_tensor_value_info(name, 1, array.shape))
    del graph.output[0].type.tensor_type.shape.dim[:]
    graph.output[0].type.tensor_type.ClearField("shape")
    opset = helper.make_opsetid("", 13 if ranks else 7)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def conversions(session: ortolan.InferenceSession) -> int:
    """How many nodes convert a layout."""
    library, found, node = _native.library(), 0, 0
    while (kind := library.ortolan_model_node(session._model, 0, node, b"type")) is not None:
        found += kind == b"Layout"
        node += 1
    return found


@pytest.mark.parametrize("level", ["disable", "all"])
@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_only_the_borders_are_converted(case: str, fed: bool, level: str) -> None:
    proto = model(CASES[case], True, fed).SerializeToString()
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype("f")}
    session = ortolan.InferenceSession(ortolan.convert(proto, level=level))
    assert conversions(session) == 2
    expected = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)
    np.testing.assert_allclose(session.run(None, feeds)[0], expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["scales", "an instance"])
def test_weights_tell_the_rank_that_a_file_does_not_state(case: str) -> None:
    proto = model(CASES[case], False, True).SerializeToString()
    feeds = {"i": np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype("f")}
    session = ortolan.InferenceSession(ortolan.convert(proto, level="disable"))
    assert conversions(session) == 2
    expected = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)
    np.testing.assert_allclose(session.run(None, feeds)[0], expected[0], rtol=1e-4, atol=1e-4)


# What is the same in both layouts stays as it is, but not where its own axis tells the kernel of
# the others'. Found by reading: Concat wrote beyond its result.
@pytest.mark.parametrize(
    ("first", "image"), [([8, 1, 64, 1], [8, 3, 64, 1]), ([2, 5, 1, 1], [2, 3, 1, 1])]
)
def test_a_constant_comes_before_an_image(first: list[int], image: list[int]) -> None:
    rng = np.random.default_rng(3)
    graph = onnx.parser.parse_graph(
        f"g (float{image} x) => (float z) {{ a = Conv (x, w) z = Concat <axis = 1> (c, a) }}"
    )
    for name, shape in {"w": [4, 3, 1, 1], "c": first}.items():
        array = rng.standard_normal(shape).astype("f")
        graph.initializer.append(numpy_helper.from_array(array, name))
    graph.output[0].type.tensor_type.ClearField("shape")
    opset = helper.make_opsetid("", 13)
    proto = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    feeds = {"x": rng.standard_normal(image).astype("f")}
    expected = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)
    session = ortolan.InferenceSession(ortolan.convert(proto, level="disable"))
    np.testing.assert_allclose(session.run(None, feeds)[0], expected[0], rtol=1e-4, atol=1e-4)
