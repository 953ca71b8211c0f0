"""What a model needs at least: multiply-adds, and bytes that must be read or written once.

Shapes come from onnxruntime's profile of one unoptimised run, so that bodies of If, Loop and Scan
count as often as they run. `count` is for float models of any opset; operators without products
count as nothing, and so do element-wise operations: the floor is low rather than high.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from engines import Feeds
from peak import Peaks

Shape = list[int]
_ROWS_ONLY = {"Gather", "GatherND", "GatherElements", "EmbedLayerNormalization", "Constant"}


@dataclass(frozen=True)
class Need:
    """Of one run: multiply-adds, bytes of the constants used, bytes of inputs and outputs."""

    madds: int
    constant_bytes: int
    edge_bytes: int

    def floor(self, peaks: Peaks, isa: str, threads: int) -> tuple[float, float]:
        """Seconds that the arithmetic takes at least, and that the memory traffic takes."""
        size = self.constant_bytes + self.edge_bytes
        # Memory beyond the caches is shared by the cores.
        cores = threads if size < 8 << 20 else 1
        arithmetic = self.madds / (peaks.madd(isa) * 1e9 * threads)
        return arithmetic, size / (peaks.read(size) * 1e9 * cores)


def node_madds(operator: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Multiply-adds of a node, of the shapes of its inputs that are there and of its outputs."""
    out = math.prod(outputs[0]) if outputs else 0
    match operator:
        case "Conv" | "FusedConv" | "ConvInteger":
            return out * math.prod(inputs[1][1:])
        case "ConvTranspose":
            return math.prod(inputs[0]) * math.prod(inputs[1][1:])
        case "MatMul" | "FusedMatMul" | "MatMulInteger":
            return out * inputs[0][-1]
        case "Gemm" | "FusedGemm":
            return out * math.prod(inputs[0]) // max(outputs[0][0], 1)
        case "LSTM" | "GRU" | "RNN":
            steps, batch, size = inputs[0]
            directions, gates, _ = inputs[1]
            return steps * batch * directions * gates * (size + inputs[2][2])
        case "Attention":
            return _attention(inputs, outputs)
        case "Einsum":
            return out * inputs[0][-1]
    return 0


def _attention(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """com.microsoft's: the projection, and both products over the keys of past and present."""
    batch, length, width = inputs[0]
    columns = inputs[1][1] if len(inputs[1]) == 2 else 0
    keys = outputs[1][-2] if len(outputs) > 1 and len(outputs[1]) == 5 else length
    return batch * length * (width * columns + 2 * keys * outputs[0][-1])


def _shapes(described: Sequence[dict[str, Shape]]) -> list[Shape]:
    return [shape for entry in described for shape in entry.values()]


def _events(model: str, feeds: Feeds) -> tuple[list[dict[str, Any]], int]:
    """The nodes that one run executed, and the bytes of inputs and outputs."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")  # keeps their shapes
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        results = session.run(None, feeds)
        profile = session.end_profiling()
        events = json.loads(Path(profile).read_text())
    edges = [*feeds.values(), *(r for r in results if hasattr(r, "nbytes"))]
    return [e for e in events if e.get("cat") == "Node"], sum(a.nbytes for a in edges)


def count(model: str, feeds: Feeds) -> Need:
    """Counts what a run of a model needs."""
    events, edges = _events(model, feeds)
    constants: dict[str, int] = {}
    madds = 0
    for event in events:
        details = event["args"]
        if "output_type_shape" not in details or not event["name"].endswith("_kernel_time"):
            continue
        operator = details["op_name"]
        outputs = _shapes(details["output_type_shape"])
        madds += node_madds(operator, _shapes(details["input_type_shape"]), outputs)
        if operator not in _ROWS_ONLY:
            constants[event["name"]] = int(details.get("parameter_size", 0))
    stored = sum(constants.values())
    # A constant that several nodes read needs to be read once.
    return Need(madds, min(stored, Path(model).stat().st_size), edges)


def output_names(model: str) -> list[str]:
    """The outputs of an ONNX model."""
    graph = onnx.load(model, load_external_data=False).graph
    return [o.name for o in graph.output]
