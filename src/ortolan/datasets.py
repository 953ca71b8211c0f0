"""onnxruntime's small example models, for programs that ask for them by name.

Those of an installed onnxruntime if there is one, else models that do the same, made here.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import tempfile
from pathlib import Path

from ortolan.errors import NoSuchFile

__all__ = ["get_example"]

_TEXTS = {
    "sigmoid.onnx": """<ir_version: 8, opset_import: ["" : 13]>
        sigmoid (float[3, 4, 5] x) => (float[3, 4, 5] y) { y = Sigmoid(x) }""",
    "mul_1.onnx": """<ir_version: 8, opset_import: ["" : 13]>
        mul (float[3, 2] X) => (float[3, 2] Y) <float[3, 2] W = {1, 2, 3, 4, 5, 6}>
        { Y = Mul(X, W) }""",
}


def get_example(name: str) -> str:
    """The path of an example model.

    Args:
        name: such as "sigmoid.onnx".

    Raises:
        ortolan.errors.NoSuchFile: there is none of this name.
    """
    installed = importlib.machinery.PathFinder.find_spec("onnxruntime", sys.path)
    for folder in (installed and installed.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / name
        if path.is_file():
            return str(path)
    if name not in _TEXTS:
        raise NoSuchFile(f"there is no example {name!r}: there are {', '.join(_TEXTS)}")
    import onnx
    import onnx.parser

    path = Path(_folder().name, name)
    onnx.save(onnx.parser.parse_model(_TEXTS[name]), path)
    return str(path)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process alone: in that of all, others could lay a link in its way."""
    return tempfile.TemporaryDirectory(prefix="ortolan-example-")
