"""In which versions of its domain the standard changed each operator: for builds, without onnx.

The facts are data, `onnx_versions.json`: `tools/onnx_versions.py` makes it from the onnx package.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

__all__ = ["newest_version", "since_versions"]


def since_versions(domain: str, name: str) -> tuple[int, ...]:
    """Returns the since_versions of an operator of the standard, from the first; () for others."""
    return tuple(_data()["operators"].get(domain, {}).get(name, ()))


def newest_version(domain: str) -> int:
    """Returns the newest version of a domain of the standard ("" is ai.onnx), 0 for others."""
    return int(_data()["newest"].get(domain, 0))


@functools.cache
def _data() -> dict[str, Any]:
    text = resources.files("ortolan.catalog").joinpath("onnx_versions.json").read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
