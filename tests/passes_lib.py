"""Runs a rewrite on a small model in ONNX's text form, with onnxruntime as oracle.

A case tells the model and which operators are left. What the model computes is compared before
and after, on random inputs; a size with a name gets a number of its own.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from ortolan.importer import load
from ortolan.importing.shapes import refine_shapes
from ortolan.passes.static_shapes import compute_shapes
from ortolan.passes.target import ORTOLAN, Target
from ortolan.passes.verify import verify

ort = pytest.importorskip("onnxruntime")

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Pass: TypeAlias = Callable[[ir.Model, Target], bool]

TOLERANCE = 1e-5
"""Largest difference in an output, relative to its largest magnitude."""

_SIZES = (2, 3, 5, 4, 6, 7)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and what a rewrite makes of it.

    Attributes:
        name: what the case is about.
        body: the graph in ONNX's text form.
        left: operators that are left, in order; the same as before where nothing is rewritten.
        opset: the import of ai.onnx.
        feeds: inputs that cannot be random.
        changed: whether the rewrite does something; False is "not rewritten when".
    """

    name: str
    body: str
    left: str
    opset: int = 17
    feeds: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    changed: bool = True


class Everything:
    """A target with all operators that onnxruntime has: for rewrites whose kernels we lack."""

    def supports(
        self, domain: str, name: str, version: int, types: Mapping[str, ir.DataType]
    ) -> bool:
        return True


class Nothing:
    """A target without any operator."""

    def supports(
        self, domain: str, name: str, version: int, types: Mapping[str, ir.DataType]
    ) -> bool:
        return False


def no(name: str, body: str, opset: int = 17, feeds: Mapping[str, Array] | None = None) -> Case:
    """A case in which nothing is rewritten."""
    return Case(name, body, "", opset, feeds or {}, changed=False)


def model_of(body: str, opset: int = 17) -> ir.Model:
    """A model from ONNX's text form, imported."""
    imports = f'["" : {opset}, "com.microsoft" : 1]'
    head = f"<ir_version: {8 if opset < 19 else 10}, opset_import: {imports}>\n"
    return load(onnx.parser.parse_model(head + body))


def operators(model: ir.Model) -> str:
    """Operators of all nodes in order, those of subgraphs after the node that has them."""
    return " ".join(node.op_type for node in model.graph.all_nodes())


def random_feeds(model: ir.Model, given: Mapping[str, Array]) -> dict[str, Array]:
    """Feeds of the inputs' types and shapes."""
    sizes: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        name = value.name or ""
        if name in given or value.is_initializer():
            feeds.update({name: given[name]} if name in given else {})
            continue
        assert value.shape is not None and value.dtype is not None
        shape = []
        for size in value.shape:
            if not isinstance(size, int):
                size = sizes.setdefault(size.value or name, _SIZES[len(sizes)])
            shape.append(size)
        feeds[name] = _random(name, tuple(shape), value.dtype)
    return feeds


def _random(name: str, shape: tuple[int, ...], dtype: ir.DataType) -> Array:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if dtype == ir.DataType.BOOL:
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.numpy().kind in "iu":
        return random.integers(0, 100, shape).astype(dtype.numpy())
    return random.standard_normal(shape).astype(dtype.numpy())


def run(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime computes, without a rewrite of its own."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Not as an ORT file: the catalog may lack what onnxruntime needs to know of an operator.
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return list(session.run(None, dict(feeds)))


def prepare(model: ir.Model) -> None:
    """What comes before a rewrite that asks for shapes."""
    refine_shapes(model)
    compute_shapes(model)
    verify(model, "static shapes")


def check(
    case: Case, change: Pass, target: Target = ORTOLAN, *, shapes: bool = True, step: int = 0
) -> None:
    """Runs one rewrite on a case and compares what is computed.

    Args:
        case: the case.
        change: the rewrite.
        target: who it is for.
        shapes: sure sizes are found before.
        step: largest difference of integers: those of a quantized value may be off by one.
    """
    model = model_of(case.body, case.opset)
    feeds = random_feeds(model, case.feeds)
    expected = run(model, feeds)
    if shapes:
        prepare(model)
    before = operators(model)
    assert change(model, target) == case.changed, operators(model)
    verify(model, case.name)
    assert operators(model) == (case.left if case.changed else before)
    compare(run(model, feeds), expected, step)
    if case.changed:
        for _ in range(4):
            if not change(model, target):
                break
        else:
            raise AssertionError("it never comes to an end")


def compare(found: list[Array], expected: list[Array], step: int = 0) -> None:
    """Checks that results are equal, or nearly so where they are floats."""
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype.kind == "f":
            scale = float(np.max(np.abs(theirs), initial=1e-30))
            assert np.max(np.abs(ours - theirs), initial=0) <= TOLERANCE * scale
        else:
            difference = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
            assert np.max(difference, initial=0) <= step
