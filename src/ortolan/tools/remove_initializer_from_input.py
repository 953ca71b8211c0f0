"""Makes weights that a model lists as inputs constants, so that they can be optimized."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

from ortolan.tools.common import finish, load_whole, save

__all__ = ["main", "remove_initializer_from_input"]

# Before this version every initializer had to be an input.
_FREE_SINCE = 4


def remove_initializer_from_input(model: onnx.ModelProto) -> bool:
    """Takes initializers out of the list of inputs, in place.

    Args:
        model: changed; its IR version is raised to 4 if it is older.

    Returns:
        Whether there were any.
    """
    names = {tensor.name for tensor in model.graph.initializer}
    names |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    kept = [info for info in model.graph.input if info.name not in names]
    if len(kept) == len(model.graph.input):
        return False
    model.ir_version = max(model.ir_version, _FREE_SINCE)
    copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
    del model.graph.input[:]
    model.graph.input.extend(copies)
    return True


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m ortolan.tools.remove_initializer_from_input")
    parser.add_argument("--input", type=Path, required=True, help="input model")
    parser.add_argument("--output", type=Path, required=True, help="output model")
    given = parser.parse_args()

    def work() -> None:
        model = load_whole(given.input)
        remove_initializer_from_input(model)
        save(model, given.output)

    finish(work)


if __name__ == "__main__":
    main()
