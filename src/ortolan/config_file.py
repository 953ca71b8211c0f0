"""The config of required operators beside converted models, in onnxruntime's format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ortolan.ortformat import read
from ortolan.required_ops import from_uses, required_operators
from ortolan.required_ops.config import merge
from ortolan.required_ops.models import unknown_operators

__all__ = ["write_config"]


def write_config(path: Path, files: Iterable[Path], *, types: bool = False) -> None:
    """Writes the config of files; what is converted together is built together.

    Operators that Ortolan lacks are named in a comment.

    Args:
        path: the config.
        files: in ORT format.
        types: tell the element types too, so that a build keeps only the kernels of these.

    Raises:
        ortolan.errors.InvalidArgument: the config cannot be written.
    """
    names, found, unknown = [], [], set()
    for file in files:
        session = read(file.read_bytes())
        names.append(file.name)
        found.append(from_uses(required_operators(session, lenient=True)))
        unknown.update(unknown_operators(session))
    config = merge(found)
    if not types:
        config = dataclasses.replace(config, types={})
    comments = [f"operators that these models need: {', '.join(sorted(names))}"]
    if unknown:
        comments.append(f"and these, which Ortolan does not have: {', '.join(sorted(unknown))}")
    config.write(path, comments)
