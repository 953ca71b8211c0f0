"""Raises the opset of an ONNX model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ortolan.tools.common import finish
from ortolan.tools.onnx_model_utils import update_onnx_opset

__all__ = ["main"]

_DEFAULT = 15


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.update_onnx_opset",
        description="Update an ONNX model to a newer opset.",
    )
    parser.add_argument("--opset", type=int, default=_DEFAULT, help="default: %(default)s")
    parser.add_argument("input_model", type=Path)
    parser.add_argument("output_model", type=Path)
    given = parser.parse_args()

    def work() -> None:
        update_onnx_opset(given.input_model, given.opset, given.output_model)

    finish(work)


if __name__ == "__main__":
    main()
