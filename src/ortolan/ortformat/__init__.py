"""The ORT format: tables <-> bytes.

`schema` is the format as data, `tables` the objects, `reader` and `writer` convert, `links`
fills in what the format repeats about a graph, `inspect` summarizes. Nothing here imports
`onnx` to open a file.
"""

from ortolan.ortformat.inspect import OrtSummary, describe
from ortolan.ortformat.links import link_graph, resolver, resolver_from_onnx_defs
from ortolan.ortformat.reader import read
from ortolan.ortformat.tables import OrtFormatError
from ortolan.ortformat.writer import write, write_file

__all__ = [
    "OrtFormatError",
    "OrtSummary",
    "describe",
    "link_graph",
    "read",
    "resolver",
    "resolver_from_onnx_defs",
    "write",
    "write_file",
]
