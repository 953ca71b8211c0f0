"""Runs a model in Ortolan and in onnxruntime, and finds the first node whose results differ.

In: an ONNX model and feeds. Both engines give the result of every node of the main graph as an
output; bodies of If, Loop and Scan are compared as a whole, by what their node gives. onnxruntime
computes the model as it is, Ortolan what its passes make of it: a value that a pass took away is
not compared.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ortolan.errors import Fail, InvalidArgument
from ortolan.importer import Source, load
from ortolan.importing.mending import mend
from ortolan.importing.reading import read_model
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.writer import write
from ortolan.passes.operators import check_operators
from ortolan.passes.pipeline import optimize
from ortolan.session import InferenceSession, SessionOptions

__all__ = ["TOLERANCE", "Comparison", "Layer", "compare", "distance"]

TOLERANCE = 1e-4
"""How far results may be apart, relative to the largest magnitude of onnxruntime's."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A result that both engines have.

    Attributes:
        node: name of the node in the model; may be empty.
        operator: `domain:name`, without the standard's domain.
        inputs: of each input its name, and its shape where it is known.
        ours: type and shape in Ortolan; `theirs` in onnxruntime.
        error: largest difference relative to the largest magnitude; infinite where types, shapes or
            integers differ.
    """

    index: int
    node: str
    operator: str
    output: str
    inputs: tuple[str, ...]
    ours: str
    theirs: str
    error: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was compared: results in the order of nodes, and nodes without any that both have."""

    layers: tuple[Layer, ...]
    fused: int
    tolerance: float

    @property
    def first(self) -> Layer | None:
        """The first result that differs by more than the tolerance."""
        return next((layer for layer in self.layers if not layer.error <= self.tolerance), None)

    @property
    def worst(self) -> Layer | None:
        """The result that differs most."""
        return max(self.layers, key=lambda layer: layer.error, default=None)


def compare(
    source: Source,
    feeds: Mapping[str, Any],
    *,
    layers: bool = True,
    level: str = "all",
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Runs a model in both engines with the same inputs.

    Args:
        source: path of an ONNX file, its content, or an `onnx.ModelProto`.
        feeds: a value by the name of each input.
        layers: whether to compare the result of every node, or the outputs only.
        level: how far Ortolan optimizes the model.
        tolerance: see `TOLERANCE`.

    Raises:
        InvalidArgument: onnxruntime is not installed.
        Fail: onnxruntime refuses the model or the feeds.
        OrtolanError: Ortolan refuses them.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise InvalidArgument(
            "to compare, onnxruntime is needed, which is not installed: pip install onnxruntime"
        )
    proto = read_model(source)
    mend(proto)
    results = [value.name for value in proto.graph.output]
    made = [name for node in proto.graph.node for name in node.output if name] if layers else []
    expected = _run_onnxruntime(proto, list(dict.fromkeys([*made, *results])), feeds)
    found = _run_ortolan(source, level, set(expected), feeds)
    return _collect(proto, expected, found, tolerance)


def _run_onnxruntime(
    proto: onnx.ModelProto, names: Sequence[str], feeds: Mapping[str, Any]
) -> dict[str, Any]:
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
        return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
    except Exception as error:  # its exceptions have no common class of their own
        raise Fail(f"onnxruntime cannot run the model: {error}") from error


def _run_ortolan(
    source: Source, level: str, wanted: set[str], feeds: Mapping[str, Any]
) -> dict[str, Any]:
    model = load(source)
    optimize(model, level)
    check_operators(model)
    _show_all(model, wanted)
    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(write(from_ir(model)), options)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def _show_all(model: ir.Model, wanted: set[str]) -> None:
    """Makes outputs of all results of the main graph that are wanted."""
    present = {value.name for value in model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            if value.name in wanted and value.name not in present and value.type is not None:
                model.graph.outputs.append(value)
                present.add(value.name)


def _collect(
    proto: onnx.ModelProto,
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
    tolerance: float,
) -> Comparison:
    layers, fused = [], 0
    for index, node in enumerate(proto.graph.node):
        names = [name for name in node.output if name in expected]
        common = [name for name in names if name in found]
        fused += bool(names) and not common
        inputs = tuple(
            f"{name} {_describe(expected[name])}" if name in expected else name
            for name in node.input
        )
        domain = f"{node.domain}:" if node.domain else ""
        for name in common:
            pair = found[name], expected[name]
            layers.append(
                Layer(
                    index, node.name, domain + node.op_type, name, inputs,
                    _describe(pair[0]), _describe(pair[1]), distance(*pair),
                )
            )  # fmt: skip
    return Comparison(tuple(layers), fused, tolerance)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else str(value)


def distance(got: Any, expected: Any) -> float:
    """How far two values are apart, relative to the largest finite magnitude of the expected one.

    Infinite where types, shapes, texts, integers, NaN or infinities differ; of a sequence or map,
    the largest of its elements.
    """
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return float("inf")
        return max((distance(a, b) for a, b in zip(got, expected, strict=True)), default=0.0)
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            return float("inf")
        keys = list(expected)
        return distance(np.array([got[k] for k in keys]), np.array([expected[k] for k in keys]))
    if got is None or expected is None:
        return 0.0 if got is expected else float("inf")
    a, b = np.asarray(got), np.asarray(expected)
    if a.dtype != b.dtype or a.shape != b.shape:
        return float("inf")
    if b.dtype.kind not in "fcV":
        return 0.0 if np.array_equal(a, b) else float("inf")
    wide = np.complex128 if b.dtype.kind == "c" else np.float64
    a, b = a.astype(wide), b.astype(wide)
    is_finite = np.isfinite(b)
    if not np.array_equal(np.where(is_finite, 0, a), np.where(is_finite, 0, b), equal_nan=True):
        return float("inf")
    gap = np.abs(np.where(is_finite, a, 0) - np.where(is_finite, b, 0))
    scale = max(float(np.abs(np.where(is_finite, b, 0)).max(initial=0)), 1e-30)
    largest = float(gap.max(initial=0)) / scale
    return largest if np.isfinite(largest) else float("inf")
