"""Optimizes an ONNX model and writes it as ONNX again."""

from __future__ import annotations

import argparse
from pathlib import Path

from ortolan.tools.common import finish
from ortolan.tools.onnx_model_utils import LEVELS, get_optimization_level, optimize_model

__all__ = ["main"]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.optimize_onnx_model",
        description="Optimize an ONNX model to the given level.",
    )
    parser.add_argument("--opt_level", choices=LEVELS, default="basic")
    parser.add_argument(
        "--log_level", choices=("debug", "info", "warning", "error"), default="error",
        help="accepted; nothing is logged",
    )  # fmt: skip
    parser.add_argument("input_model", type=Path)
    parser.add_argument("output_model", type=Path)
    given = parser.parse_args()
    level = get_optimization_level(given.opt_level)
    finish(lambda: optimize_model(given.input_model, given.output_model, level))


if __name__ == "__main__":
    main()
