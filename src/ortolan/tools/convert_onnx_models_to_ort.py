"""Converts ONNX models to ORT format files for Ortolan and onnxruntime, and writes their operators.

Scripts that call onnxruntime's tool of this name get the files that they expect.
"""

from __future__ import annotations

import argparse
import enum
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx_ir

from ortolan.config_file import write_config
from ortolan.conversion import LEVELS, convert
from ortolan.errors import InvalidArgument, NoSuchFile, OrtolanError
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.importer import load
from ortolan.passes.pipeline import optimize
from ortolan.tools.common import finish, save

__all__ = ["OptimizationStyle", "convert_onnx_models_to_ort", "main"]

_LEVEL_VARIABLE = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"


class OptimizationStyle(enum.Enum):
    """When fusions are done: at conversion, or when onnxruntime loads the file."""

    Fixed = 0
    Runtime = 1


def convert_onnx_models_to_ort(
    model_path_or_dir: Path, output_dir: Path | None = None,
    optimization_styles: list[OptimizationStyle] | None = None,
    custom_op_library_path: Path | None = None, target_platform: str | None = None,
    save_optimized_onnx_model: bool = False, allow_conversion_failures: bool = False,
    enable_type_reduction: bool = False,
) -> None:  # fmt: skip
    """Converts a model, or all in a folder and below it.

    Args:
        model_path_or_dir: an `.onnx` file, or a folder.
        output_dir: where to; None: beside each model.
        optimization_styles: None: both.
        custom_op_library_path: not supported.
        target_platform: ignored: files are the same for all machines.
        save_optimized_onnx_model: write X.optimized.onnx too.
        allow_conversion_failures: go on after a model that fails.
        enable_type_reduction: the config tells the element types too.

    Raises:
        ortolan.errors.OrtolanError: there is no model, or one fails.
    """
    del target_platform
    if custom_op_library_path is not None:
        raise NotImplementedHere("libraries of custom operators are not supported")
    source = Path(model_path_or_dir)
    if not source.exists():
        raise NoSuchFile(f"{source}: there is no such file or folder")
    models = sorted(source.rglob("*.onnx")) if source.is_dir() else [source]
    models = [m for m in models if not m.name.endswith(".optimized.onnx")]
    if not models:
        raise NoSuchFile(f"{source}: there is no .onnx file in this folder or below it")
    level = os.environ.get(_LEVEL_VARIABLE, "all")
    if level not in LEVELS:
        raise InvalidArgument(f"{_LEVEL_VARIABLE} is {level!r}: use one of {', '.join(LEVELS)}")
    root = source if source.is_dir() else source.parent
    folder = Path(output_dir) if output_dir is not None else root
    written: list[Path] = []
    for style in optimization_styles or list(OptimizationStyle):
        for model in models:
            target = folder / model.relative_to(root).with_name(_name(model.stem, level, style))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                convert(
                    model, target, level=level, profile="onnxruntime",
                    optimization_style=style.name,
                )  # fmt: skip
            except OrtolanError as error:
                if not allow_conversion_failures:
                    raise
                print(f"{model}: {error}", file=sys.stderr)
                continue
            print(f"{model} -> {target}")
            written.append(target)
            if save_optimized_onnx_model:
                _save_optimized(model, target, level, style)
    if written:
        stem = "" if source.is_dir() else f"{source.stem}."
        types = "_and_types" if enable_type_reduction else ""
        config = folder / f"{stem}required_operators{types}.{_suffix(level)}config"
        write_config(config, written, types=enable_type_reduction)
        print(f"operators: {config}")


def _suffix(level: str) -> str:
    return "" if level == "all" else f"{level}."


def _name(stem: str, level: str, style: OptimizationStyle) -> str:
    runtime = "with_runtime_opt." if style is OptimizationStyle.Runtime else ""
    return f"{stem}.{_suffix(level)}{runtime}ort"


def _save_optimized(model: Path, target: Path, level: str, style: OptimizationStyle) -> None:
    # ONNX has no operators of our own, so it stops a level earlier.
    most = "basic" if style is OptimizationStyle.Runtime else "layout"
    optimized = load(model)
    optimize(optimized, min(level, most, key=LEVELS.index))
    save(onnx_ir.to_proto(optimized), target.with_suffix(".optimized.onnx"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.convert_onnx_models_to_ort",
        description="Convert the ONNX model or all in a folder to ORT format files, and write a "
        "config of the operators that they need.",
    )
    parser.add_argument("--output_dir", type=Path, help="default: beside each model")
    parser.add_argument(
        "--optimization_style", nargs="+", choices=[s.name for s in OptimizationStyle],
        default=[s.name for s in OptimizationStyle], help="default: both",
    )  # fmt: skip
    parser.add_argument(
        "--enable_type_reduction", action="store_true", help="the config tells types too"
    )  # fmt: skip
    parser.add_argument("--custom_op_library", type=Path, help="not supported")
    parser.add_argument("--save_optimized_onnx_model", action="store_true")
    parser.add_argument("--allow_conversion_failures", action="store_true")
    parser.add_argument("--target_platform", choices=("arm", "amd64"), help="ignored")
    parser.add_argument("model_path_or_dir", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        convert_onnx_models_to_ort(
            given.model_path_or_dir, given.output_dir,
            [OptimizationStyle[name] for name in given.optimization_style],
            given.custom_op_library, given.target_platform, given.save_optimized_onnx_model,
            given.allow_conversion_failures, given.enable_type_reduction,
        )  # fmt: skip

    finish(work)


if __name__ == "__main__":
    main()
