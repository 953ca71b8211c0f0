"""Replaces the weights of an ONNX model by random numbers, to share its structure alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ortolan.tools.common import finish, load_whole
from ortolan.tools.onnx_model_utils import iterate_graph_per_graph_func

__all__ = ["main", "randomize_graph_initializer"]

# Tensors up to here are shapes, axes, scales: what a model needs to run at all.
_KEPT_ELEMENTS = 8


def randomize_graph_initializer(graph: onnx.GraphProto) -> None:
    """Replaces floating point weights of more than 8 elements, keeping mean and deviation."""
    generator = np.random.default_rng()
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size <= _KEPT_ELEMENTS or array.dtype.kind != "f":
            continue
        spread = float(np.std(array, dtype=np.float64))
        mean = float(np.mean(array, dtype=np.float64))
        values: Any = generator.standard_normal(array.shape) * spread + mean
        tensor.CopyFrom(numpy_helper.from_array(values.astype(array.dtype), tensor.name))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.onnx_randomizer",
        description="Randomize the weights of an ONNX model.",
    )
    parser.add_argument("-m", type=Path, required=True, metavar="MODEL", help="input")
    parser.add_argument("-o", type=Path, required=True, metavar="MODEL", help="output")
    parser.add_argument("--use_external_data_format", action="store_true")
    parser.add_argument("--all_tensors_to_one_file", action="store_true")
    given = parser.parse_args()

    def work() -> None:
        model = load_whole(given.m)
        iterate_graph_per_graph_func(model.graph, randomize_graph_initializer)
        onnx.save(
            model, given.o, save_as_external_data=given.use_external_data_format,
            all_tensors_to_one_file=given.all_tensors_to_one_file,
            location=f"{given.o.name}.data" if given.all_tensors_to_one_file else None,
        )  # fmt: skip

    finish(work)


if __name__ == "__main__":
    main()
