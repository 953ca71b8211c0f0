"""The passes on the real models: what they know of sizes is true, and they come to an end."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

import marks
import models_lib as lib
import ortolan
from ortolan.importer import load
from ortolan.importing.naming import subgraphs
from ortolan.importing.shapes import known_shape, refine_shapes, set_known_shape
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.writer import write
from ortolan.passes.pipeline import optimize
from ortolan.passes.static_shapes import compute_shapes
from ortolan.passes.target import ORTOLAN, Target
from passes_lib import Array, Everything, ort

pytestmark = pytest.mark.skipif(bool(lib.MISSING), reason=lib.MISSING)


def shown(model: ir.Model) -> bytes:
    """All that is in a file of the model."""
    return bytes(write(from_ir(model)))


# Models with fusions for which we lack kernels, perhaps.
FUSED = ("bert-toy", "tfbert-mrpc-op10", "gpt2-past-op11", "vittrack-op14", "attention-past-u8s8")
RUNS = [(name, ORTOLAN) for name in lib.NAMES] + [(name, Everything()) for name in FUSED]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), RUNS)
def test_second_run_changes_nothing(name: str, target: Target) -> None:
    model = load(lib.make_check(name).source)
    optimize(model, "extended", target)
    once = shown(model)
    optimize(model, "extended", target)
    assert shown(model) == once


def top_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Results of the main graph's nodes that onnxruntime can return."""
    for node in graph:
        if next(subgraphs(node), None) is None:
            yield from (value for value in node.outputs if value.name)


def sizes_disagree(pairs: list[tuple[ir.Value, Array]]) -> list[str]:
    """Values whose sizes are not those that were found, or not those of others of their name."""
    wrong: list[str] = []
    numbers: dict[str, int] = {}
    for value, array in pairs:
        shape = known_shape(value)
        if shape is None:
            continue
        if len(shape) != array.ndim:
            wrong.append(f"{value.name}: {shape} is {array.shape}")
            continue
        for size, actual in zip(shape, array.shape, strict=True):
            if isinstance(size, str) and "*" not in size:
                size = numbers.setdefault(size, actual)
            if isinstance(size, int) and size != actual:
                wrong.append(f"{value.name}: {shape} is {array.shape}")
                break
    return wrong


@pytest.mark.parametrize("name", marks.real_models())
def test_sizes_are_those_that_come_out(name: str) -> None:
    check = lib.make_check(name)
    model = load(check.source)
    if any(value.dtype == ir.DataType.STRING for value in model.graph.outputs):
        pytest.skip("it has strings")
    refine_shapes(model)
    changed = copy.copy(model)
    compute_shapes(changed, ORTOLAN)
    values = [value for value in top_values(changed.graph) if not value.is_graph_output()]
    changed.graph.outputs.extend(values)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not values:
        pytest.skip("the main graph has nothing but outputs")
    content = ir.to_proto(changed).SerializeToString()
    try:
        session = ort.InferenceSession(content, options)
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:
        pytest.skip("onnxruntime lacks a kernel without its own rewrites")
    arrays = session.run([value.name for value in values], dict(check.steps[0].feeds))
    assert sizes_disagree(list(zip(values, arrays, strict=True))) == []


def test_wrong_sizes_are_seen() -> None:
    a, b = ir.Value(name="a"), ir.Value(name="b")
    set_known_shape(a, ("n", 3))
    set_known_shape(b, ("n",))
    arrays = np.zeros((2, 3)), np.zeros(2)
    assert sizes_disagree([(a, arrays[0]), (b, arrays[1])]) == []
    assert sizes_disagree([(a, np.zeros((2, 4)))]) == ["a: ('n', 3) is (2, 4)"]
    assert sizes_disagree([(a, arrays[0]), (b, np.zeros(5))]) == ["b: ('n',) is (5,)"]


@pytest.mark.parametrize("level", ["basic", "extended"])
@pytest.mark.parametrize("name", marks.real_models())
def test_golden_at_every_level(name: str, level: str) -> None:
    """Levels disable and all are for `test_models`."""
    check = lib.make_check(name)
    if check.not_yet:
        pytest.skip(check.not_yet)
    session = ortolan.InferenceSession(ortolan.convert(check.source, level=level))
    assert lib.run_check(check, session).problem == ""
