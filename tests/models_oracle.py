"""onnxruntime as the oracle of real models, and the changes to a model that make it a better one.

In: the files of ../shared/models. Out: onnx models with other types, or with sigmoids that are
computed in double; what onnxruntime computes with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import cases_lib as lib


def session(model: Path | bytes) -> Any:
    """A session of onnxruntime, which computes the model as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def run(session: Any, feeds: Mapping[str, lib.Array]) -> dict[str, lib.Array]:
    """All outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def exact_sigmoids(path: Path) -> onnx.ModelProto:
    """A float model whose sigmoids are computed in double: 1 / (1 + exp(-x))."""
    model = onnx.load(path)
    numbers = itertools.count()
    for graph in graphs(model.graph):
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            parts = _sigmoid(node, f"exact_{next(numbers)}_") if node.op_type == "Sigmoid" else ()
            graph.node.extend(parts or [node])
    return model


def _sigmoid(node: onnx.NodeProto, prefix: str) -> list[onnx.NodeProto]:
    one, wide, minus, exp, total, result = (
        prefix + name for name in ("one", "wide", "minus", "exp", "sum", "result")
    )
    make = helper.make_node
    return [
        make("Constant", [], [one], value=numpy_helper.from_array(np.array(1.0), one)),
        make("Cast", [node.input[0]], [wide], to=TensorProto.DOUBLE),
        make("Neg", [wide], [minus]),
        make("Exp", [minus], [exp]),
        make("Add", [exp, one], [total]),
        make("Div", [one, total], [result]),
        make("Cast", [result], [node.output[0]], to=TensorProto.FLOAT),
    ]


def in_float32(path: Path) -> onnx.ModelProto:
    """A float16 model with its weights, inputs and outputs in float32."""
    model = onnx.load(path)
    for graph in graphs(model.graph):
        for weight in graph.initializer:
            if weight.data_type == TensorProto.FLOAT16:
                wide = numpy_helper.to_array(weight).astype(np.float32)
                weight.CopyFrom(numpy_helper.from_array(wide, weight.name))
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            assert node.op_type not in ("Cast", "Constant"), "its type would have to change too"
    return model


def output_quantum(path: Path) -> float:
    """The scale of the last DequantizeLinear of a model."""
    model = onnx.load(path)
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    last = [node for node in model.graph.node if node.op_type == "DequantizeLinear"][-1]
    return float(weights[last.input[1]].item())


def imagenet_image(rgb: lib.Array) -> lib.Array:
    """An image as most classifiers want it: (H, W, 3) bytes to (1, 3, H, W), normalized."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    planes = ((rgb / 255 - mean) / deviation).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, np.float32)
