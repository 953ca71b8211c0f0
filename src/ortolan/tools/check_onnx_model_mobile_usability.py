"""Tells whether a model can run on small devices with Ortolan, and what it would need."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx_ir

from ortolan.importer import load
from ortolan.passes.operators import list_operators, missing_operators
from ortolan.tools.common import finish, load_whole
from ortolan.tools.onnx_model_utils import is_fixed_size_tensor

__all__ = ["check", "main"]


def check(path: Path, verbose: bool = False) -> tuple[bool, list[str]]:
    """Looks at a model.

    Args:
        path: of an ONNX model.
        verbose: list the operators too.

    Returns:
        Whether Ortolan runs it, and lines about it.
    """
    proto = load_whole(path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [info for info in proto.graph.input if info.name not in weights]
    model = load(proto)
    nodes = list(model.graph.all_nodes())
    missing = missing_operators(model)
    lines = [f"{len(nodes)} nodes, opset {model.opset_imports.get('', 'none')}"]
    if verbose:
        lines.append("operators: " + ", ".join(sorted(_names(nodes))))
    if missing:
        lines.append(f"Ortolan has no kernel for: {list_operators(missing)}")
    else:
        lines.append("Ortolan runs all operators, on the CPU and in WebAssembly")
    if free := [info.name for info in inputs if not is_fixed_size_tensor(info)]:
        lines.append(
            f"inputs without a fixed shape: {', '.join(free)}. Ortolan plans memory when a shape "
            "is first seen; fixed shapes save that: python -m "
            "ortolan.tools.make_dynamic_shape_fixed"
        )
    else:
        lines.append("all inputs have fixed shapes")
    return not missing, lines


def _names(nodes: list[onnx_ir.Node]) -> set[str]:
    return {f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in nodes}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m ortolan.tools.check_onnx_model_mobile_usability",
        description="Analyze how well an ONNX model will work on small devices.",
    )
    parser.add_argument("--log_level", choices=("debug", "info"), default="info")
    parser.add_argument("model_path", type=Path)
    given = parser.parse_args()

    def work() -> None:
        usable, lines = check(given.model_path, given.log_level == "debug")
        print(f"{given.model_path}: {'usable: YES' if usable else 'usable: NO'}")
        for line in lines:
            print(f"  {line}")

    finish(work)


if __name__ == "__main__":
    main()
