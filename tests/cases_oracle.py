"""What the operator cases must give: the numbers in the file, else onnxruntime's.

Where onnxruntime lacks a kernel for a type, a type variant (tests/cases_variants.py) is computed in
a related type that holds the same small numbers exactly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from typing import Any

import numpy as np

import cases_lib as lib
import ortolan
from ortolan import importer
from ortolan.errors import OrtolanError
from ortolan.ortformat import write
from ortolan.ortformat.from_ir import from_ir
from ortolan.passes.packed_weights import pack_weights

HAS_ONNXRUNTIME = importlib.util.find_spec("onnxruntime") is not None


class NoOracleError(Exception):
    """Nothing here knows the answer of a case; the text says why."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A case that is ready to run.

    Attributes:
        ort: the model in ORT format; None when the converter refused it.
        refusal: what the converter said then.
        outputs: names of the outputs.
        expected: an array per output; empty for a case that must fail.
    """

    ort: bytes | None
    refusal: str
    feeds: dict[str, lib.Array]
    outputs: list[str]
    expected: tuple[lib.Array, ...]


def compile_case(case: lib.Case) -> Compiled:
    """A case, converted, with the results that it must have.

    Raises:
        NoOracleError: onnxruntime is missing, or cannot run the case.
    """
    model = lib.make_model(case)
    expected = () if case.error is not None else expected_outputs(case, model)
    ort, refusal = None, ""
    try:
        ort = convert(model, packed=case.packed)
    except OrtolanError as error:
        refusal = str(error)
    return Compiled(ort, refusal, model.feeds, model.outputs, expected)


def convert(model: lib.Model, *, packed: bool = False) -> bytes:
    """The model in ORT format, not optimized: what runs is what the case says."""
    if not packed:
        return ortolan.convert(model.proto, level="disable")
    graph = importer.load(model.proto)
    assert pack_weights(graph, least=1), "nothing was packed"
    return write(from_ir(graph))


def expected_outputs(case: lib.Case, model: lib.Model) -> tuple[lib.Array, ...]:
    """The results that a case must have.

    Raises:
        NoOracleError: onnxruntime is missing, or cannot run the case.
    """
    if not isinstance(case.outputs, int):
        return tuple(lib.make_array(spec) for spec in case.outputs if spec is not None)
    if not HAS_ONNXRUNTIME:
        raise NoOracleError("onnxruntime, which knows the answer, is not installed")
    if case.channels_last:  # the pool changes nothing, but onnxruntime's loses NaN
        model = lib.make_model(dataclasses.replace(case, channels_last=False))
    try:
        return tuple(run_onnxruntime(model))
    except NoOracleError:
        for other in case.stand_ins:
            with contextlib.suppress(NoOracleError):
                return _from_stand_in(case, other)
        raise


def _from_stand_in(case: lib.Case, other: lib.Case) -> tuple[lib.Array, ...]:
    entry = case.entry
    assert entry is not None
    results = run_onnxruntime(lib.make_model(other))
    parameters = [entry.outputs[min(k, len(entry.outputs) - 1)] for k in range(len(results))]
    types = [case.types.get(parameter.variable) for parameter in parameters]
    return tuple(
        result if name is None else _as_type(result, name)
        for result, name in zip(results, types, strict=True)
    )


def _as_type(result: lib.Array, name: str) -> lib.Array:
    if name == "float8e8m0":  # has no zero: the bytes of one are its least number
        result = np.where(result == 0, 2.0**-127, result)
    if name == "string":  # whole numbers as texts; the bytes of zero are the empty one
        texts = [str(int(number)) if number else "" for number in result.reshape(-1)]
        return np.array(texts, object).reshape(result.shape)
    return result.astype(lib.numpy_type(name))


def run_onnxruntime(model: lib.Model) -> list[lib.Array]:
    """Runs a model in onnxruntime as it is.

    Raises:
        NoOracleError: it refuses.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = model.proto.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        results: list[Any] = session.run(model.outputs, model.feeds)
    except Exception as error:  # its exceptions have no common class of their own
        raise NoOracleError(f"onnxruntime cannot run it: {error}") from error
    return [np.asarray(result) for result in results]
