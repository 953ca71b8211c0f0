"""Models as a session wants them: converted, with fixed dimensions and weights that were given.

Needs the toolchain, so a session imports it only for what is no `.ort` file ready to run.
"""

from __future__ import annotations

import ortolan.lean  # noqa: F401 # isort: skip - before onnx_ir

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import numpy_helper

from ortolan import errors
from ortolan.conversion import convert
from ortolan.importer import load
from ortolan.importing.reading import Source, embed_external, parse_model
from ortolan.ortformat import read, write
from ortolan.ortformat.external import is_external
from ortolan.ortformat.packed import unpack_weights
from ortolan.ortformat.writer import write_file
from ortolan.passes.pipeline import optimize
from ortolan.runtime.containers import encode_texts
from ortolan.runtime.element_types import STRING, number_of

__all__ = [
    "convert_for_session",
    "fix_dimensions",
    "fixed_model",
    "graph_name",
    "replace_in_ort",
    "replace_initializers",
]


def convert_for_session(source: str | bytes, options: Any, level: str) -> bytes:
    """Converts a model as a session's options ask for.

    Args:
        source: path or content of an ONNX model.
        options: `ortolan.SessionOptions`.
        level: how far it is optimized.

    Returns:
        The ORT format file.
    """
    changed: str | bytes | onnx.ModelProto = source
    if options._initializers or options._dimensions or options._denotations:
        changed, folder = parse_model(source)
        replace_initializers(changed, options._initializers)
        fix_dimensions(changed, options._dimensions, options._denotations)
        # What is left in other files is looked for beside the model, and no longer later.
        embed_external(changed, folder)
    content = convert(changed, level=level)
    if options.optimized_model_filepath:
        _save(changed, content, options, level)
    return content


def fixed_model(source: Source, sizes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A model with fixed shapes, its weights read.

    Args:
        source: of an ONNX model.
        sizes: a size by the name of a symbolic dimension, a shape by the name of an input.

    Raises:
        ortolan.errors.InvalidArgument: a name is neither, or a shape contradicts the model.
    """
    from ortolan.tools.onnx_model_utils import make_input_shape_fixed

    model, folder = parse_model(source)
    embed_external(model, folder)
    inputs = {info.name for info in model.graph.input}
    named = {name: size[0] for name, size in sizes.items() if name not in inputs and len(size) == 1}
    known = fix_dimensions(model, named, {})
    for name, size in sizes.items():
        if name in inputs:
            make_input_shape_fixed(model.graph, name, size)
        elif name not in known:
            raise errors.InvalidArgument(
                f"{name!r} is neither an input nor a symbolic dimension of the model"
            )
    return model


def graph_name(source: str | bytes) -> str:
    """The name of an ONNX model's graph."""
    return parse_model(source)[0].graph.name


def _save(source: Source, content: bytes, options: Any, level: str) -> None:
    target = Path(os.fspath(options.optimized_model_filepath))
    kind = options._entries.get("session.save_model_format", "")
    if kind.upper() == "ORT" or (not kind and target.suffix == ".ort"):
        data = content
    else:
        model = load(source)
        optimize(model, level)
        data = onnx_ir.to_proto(model).SerializeToString()
    try:
        write_file(target, data)
    except OSError as error:
        raise errors.Fail(f"{target}: cannot be written ({error.strerror or error})") from error


def fix_dimensions(
    model: onnx.ModelProto, by_name: Mapping[str, int], by_denotation: Mapping[str, int]
) -> set[str]:
    """Gives symbolic dimensions of a model's inputs, outputs and values sizes, in place.

    Args:
        model: changed.
        by_name: sizes by the dimension's name.
        by_denotation: sizes by what the model denotes a dimension as.

    Returns:
        The names and denotations that were found.
    """
    found: set[str] = set()
    graph = model.graph
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.denotation in by_denotation:
                found.add(dimension.denotation)
                dimension.dim_value = by_denotation[dimension.denotation]
            elif dimension.HasField("dim_param") and dimension.dim_param in by_name:
                found.add(dimension.dim_param)
                dimension.dim_value = by_name[dimension.dim_param]
    return found


def replace_initializers(model: onnx.ModelProto, values: Mapping[str, Any]) -> None:
    """Replaces weights of a model in place.

    Args:
        model: changed.
        values: arrays or `OrtValue`s by name.

    Raises:
        ortolan.errors.InvalidArgument: the model has no such weight, or one of another type or
            shape.
    """
    present = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in values.items():
        array = _array(value)
        tensor = present.get(name)
        if tensor is None:
            raise errors.InvalidArgument(f"the model has no initializer {name!r} to replace")
        _check_same(name, array, tensor.data_type, tuple(tensor.dims))
        if tensor.data_type == STRING:
            array = np.array(_texts(name, array), object).reshape(array.shape)
        tensor.CopyFrom(numpy_helper.from_array(array, name))


def replace_in_ort(content: bytes, values: Mapping[str, Any]) -> bytes:
    """Replaces weights of an ORT format file.

    Args:
        content: of the file.
        values: arrays or `OrtValue`s by name.

    Raises:
        ortolan.errors.InvalidArgument: as for `replace_initializers`.
    """
    session = read(content)
    if not is_external(session):
        unpack_weights(session)
    present = {tensor.name: tensor for tensor in session.model.graph.initializers}
    for name, value in values.items():
        array = _array(value)
        tensor = present.get(name)
        if tensor is None:
            raise errors.InvalidArgument(f"the model has no initializer {name!r} to replace")
        _check_same(name, array, int(tensor.data_type), tuple(tensor.dims))
        if tensor.data_type == STRING:
            tensor.string_data = _texts(name, array)
        else:
            tensor.raw_data = onnx_ir.tensor(array).tobytes()
    return write(session)


def _array(value: Any) -> Any:
    array = np.asarray(getattr(value, "_ortolan_data", value))
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def _texts(name: str, array: Any) -> list[bytes]:
    try:
        return encode_texts(array)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"initializer {name!r}: {error}") from error


def _check_same(name: str, array: Any, number: int, shape: tuple[int, ...]) -> None:
    if number_of(array.dtype) != number or array.shape != shape:
        raise errors.InvalidArgument(
            f"initializer {name!r}: an array of {array.dtype} {list(array.shape)} does not "
            f"replace one of type {number} {list(shape)}"
        )
