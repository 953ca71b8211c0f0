"""Gives a symbolic dimension or an input of an ONNX model a fixed size."""

from __future__ import annotations

import argparse
from pathlib import Path

from ortolan.tools.common import finish, load_whole, save
from ortolan.tools.onnx_model_utils import (
    fix_output_shapes,
    make_dim_param_fixed,
    make_input_shape_fixed,
)

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.make_dynamic_shape_fixed",
        description="Assign a fixed size to a symbolic dimension, or a fixed shape to an input.",
    )
    parser.add_argument("--dim_param", help="name of the symbolic dimension")
    parser.add_argument("--dim_value", type=int, help="its size, greater than 0")
    parser.add_argument("--input_name", help="name of the input")
    parser.add_argument("--input_shape", help="its shape, such as 1,3,256,256")
    parser.add_argument("input_model", type=Path)
    parser.add_argument("output_model", type=Path)
    return parser


def main() -> None:
    """Entry point."""
    parser = _parser()
    given = parser.parse_args()
    by_dimension = given.dim_param is not None and given.dim_value is not None
    by_input = given.input_name is not None and given.input_shape is not None
    if by_dimension == by_input:
        parser.error("give --dim_param and --dim_value, or --input_name and --input_shape")
    if by_dimension and given.dim_value < 1:
        parser.error("--dim_value must be greater than 0")
    sizes: list[int] = []
    if by_input:
        try:
            sizes = [int(size) for size in given.input_shape.split(",")]
        except ValueError:
            parser.error("--input_shape is numbers with commas between them")
        if min(sizes) < 1:
            parser.error("sizes in --input_shape must be greater than 0")

    def work() -> None:
        model = load_whole(given.input_model)
        if by_dimension:
            make_dim_param_fixed(model.graph, given.dim_param, given.dim_value)
        else:
            make_input_shape_fixed(model.graph, given.input_name, sizes)
        fix_output_shapes(model)
        save(model, given.output_model)

    finish(work)


if __name__ == "__main__":
    main()
