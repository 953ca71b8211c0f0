"""Changes to ONNX models as messages: fixed shapes, newer opsets, optimization."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter
import onnx_ir

from ortolan.errors import InvalidArgument
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.importer import load
from ortolan.passes.pipeline import optimize
from ortolan.runtime.options import GraphOptimizationLevel
from ortolan.tools.common import load_whole, save

__all__ = [
    "fix_output_shapes",
    "get_opsets_imported",
    "get_optimization_level",
    "is_fixed_size_tensor",
    "iterate_graph_per_graph_func",
    "iterate_graph_per_node_func",
    "make_dim_param_fixed",
    "make_input_shape_fixed",
    "optimize_model",
    "remove_invalid_dim_values",
    "update_onnx_opset",
]

LEVELS = ("disable", "basic", "extended", "layout", "all")


def iterate_graph_per_node_func(
    graph: onnx.GraphProto, per_node_func: Callable[..., Any], **func_args: Any
) -> None:
    """Calls a function with each node of a graph and of those inside it."""
    for node in graph.node:
        per_node_func(node, **func_args)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                iterate_graph_per_node_func(attribute.g, per_node_func, **func_args)


def iterate_graph_per_graph_func(
    graph: onnx.GraphProto, per_graph_func: Callable[..., Any], **func_args: Any
) -> None:
    """Calls a function with a graph and each of those inside it."""
    per_graph_func(graph, **func_args)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                iterate_graph_per_graph_func(attribute.g, per_graph_func, **func_args)


def get_opsets_imported(model: onnx.ModelProto) -> dict[str, int]:
    """Versions by domain; the standard's is "ai.onnx"."""
    return {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}


def get_optimization_level(level: str) -> GraphOptimizationLevel:
    """The level of a name.

    Raises:
        ortolan.errors.InvalidArgument: there is none of it.
    """
    numbers = dict(zip(LEVELS, (0, 1, 2, 3, 99), strict=True))
    if level not in numbers:
        raise InvalidArgument(f"there is no level {level!r}: use one of {', '.join(LEVELS)}")
    return GraphOptimizationLevel(numbers[level])


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]


def is_fixed_size_tensor(value: onnx.ValueInfoProto) -> bool:
    """Whether a value is a tensor all of whose sizes are known."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return False
    return all(size.dim_value > 0 for size in value.type.tensor_type.shape.dim)


def remove_invalid_dim_values(graph: onnx.GraphProto) -> None:
    """Makes sizes below 1, which some exporters write for unknown ones, unknown."""

    def clean(graph: onnx.GraphProto) -> None:
        for value in _values(graph):
            for size in value.type.tensor_type.shape.dim:
                if size.HasField("dim_value") and size.dim_value < 1:
                    size.Clear()

    iterate_graph_per_graph_func(graph, clean)


def make_dim_param_fixed(graph: onnx.GraphProto, param_name: str, value: int) -> None:
    """Gives a symbolic dimension a size, everywhere in a graph and those inside it.

    Args:
        graph: changed.
        param_name: of the dimension.
        value: greater than 0.
    """

    def fix(graph: onnx.GraphProto) -> None:
        for info in _values(graph):
            for size in info.type.tensor_type.shape.dim:
                if size.HasField("dim_param") and size.dim_param == param_name:
                    size.dim_value = value

    iterate_graph_per_graph_func(graph, fix)


def make_input_shape_fixed(
    graph: onnx.GraphProto, input_name: str, fixed_shape: Sequence[int]
) -> None:
    """Gives an input a shape; symbolic dimensions in it get their sizes everywhere.

    Args:
        graph: changed.
        input_name: of the input.
        fixed_shape: all its sizes.

    Raises:
        ortolan.errors.InvalidArgument: there is no such input, or it has a shape that differs.
    """
    remove_invalid_dim_values(graph)
    found = next((info for info in graph.input if info.name == input_name), None)
    if found is None:
        known = ", ".join(info.name for info in graph.input)
        raise InvalidArgument(f"there is no input {input_name!r}; there are: {known}")
    if not found.type.HasField("tensor_type"):
        raise InvalidArgument(f"input {input_name!r} is no tensor")
    shape = found.type.tensor_type.shape
    if not found.type.tensor_type.HasField("shape"):
        for size in fixed_shape:
            shape.dim.add(dim_value=size)
        return
    if len(shape.dim) != len(fixed_shape):
        raise InvalidArgument(
            f"input {input_name!r} has {len(shape.dim)} dimensions, {len(fixed_shape)} are given"
        )
    for axis, (size, value) in enumerate(zip(shape.dim, fixed_shape, strict=True)):
        if size.HasField("dim_value") and size.dim_value != value:
            raise InvalidArgument(
                f"input {input_name!r}: dimension {axis} is {size.dim_value}, not {value}"
            )
        if size.HasField("dim_param"):
            make_dim_param_fixed(graph, size.dim_param, value)
        size.dim_value = value


def fix_output_shapes(model: onnx.ModelProto) -> None:
    """Gives outputs the sizes that follow from the inputs', where they follow.

    Raises:
        ortolan.errors.OrtolanError: the model cannot be imported.
    """
    # Not onnx's inference itself, which some models end, or keep for ever.
    for ours, found in zip(model.graph.output, load(model).graph.outputs, strict=True):
        if not ours.type.HasField("tensor_type") or is_fixed_size_tensor(ours):
            continue
        if found.shape is None or not found.shape.is_static():
            continue
        shape = ours.type.tensor_type.shape
        shape.Clear()
        shape.SetInParent()
        for size in found.shape.numpy():
            shape.dim.add(dim_value=size)


def optimize_model(
    model_path: Path, output_path: Path,
    level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_BASIC,
    log_level: int = 3, use_external_initializers: bool = False,
) -> None:  # fmt: skip
    """Optimizes a model and writes it as ONNX.

    Args:
        model_path: of the model.
        output_path: of the file to write.
        level: how far.
        log_level: ignored; nothing is logged.
        use_external_initializers: write the weights into a file beside it.

    Raises:
        ortolan.errors.OrtolanError: the model cannot be read or written.
    """
    del log_level
    model = load(Path(model_path))
    optimize(model, GraphOptimizationLevel(level).level)
    proto = onnx_ir.to_proto(model)
    if use_external_initializers:
        location = f"{Path(output_path).name}.data"
        onnx.save(proto, output_path, save_as_external_data=True, location=location)
    else:
        save(proto, Path(output_path))


def update_onnx_opset(
    model_path: Path, opset: int, out_path: Path | None = None,
    logger: logging.Logger | None = None,
) -> onnx.ModelProto:  # fmt: skip
    """Raises the opset of a model by onnx's version converter.

    Args:
        model_path: of the model.
        opset: the new one, greater than the model's.
        out_path: of the file to write, if any.
        logger: gets a line about it.

    Returns:
        The new model.

    Raises:
        ortolan.errors.OrtolanError: the opset is no newer one, or there is no way to it.
    """
    model = load_whole(Path(model_path))
    before = get_opsets_imported(model).get("ai.onnx", 1)
    if opset <= before:
        raise InvalidArgument(f"{model_path}: opset {before} is not below {opset}")
    if logger is not None:
        logger.info("Updating %s from opset %d to %d", model_path, before, opset)
    try:
        updated = onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # whatever its C++ side raises
        raise NotImplementedHere(
            f"{model_path}: there is no way to opset {opset}: {error}"
        ) from error
    if out_path is not None:
        save(updated, Path(out_path))
    return updated
