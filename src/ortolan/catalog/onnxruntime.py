"""What onnxruntime's CPU provider has: kernels, and operators that the standard does not declare.

The facts are data, `onnxruntime.json`, which `tools/onnxruntime_profile.py` makes from a wheel.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

__all__ = ["Declaration", "Formal", "Kernel", "declaration", "kernels", "newest_opset", "version"]


@dataclass(frozen=True)
class Kernel:
    """A kernel.

    Attributes:
        first: the since_version that it was made for.
        last: the newest since_version that it serves; None: only `first`, newer ones must
            have kernels of their own.
        types: by type string (a type parameter, or the name of an argument), the types that
            it takes, as ONNX spells them: "tensor(float)".
    """

    first: int
    last: int | None
    types: Mapping[str, frozenset[str]]

    def serves(self, since_version: int) -> bool:
        """Whether onnxruntime binds it to a node of that version."""
        if self.last is None:
            return since_version == self.first
        return self.first <= since_version <= self.last


@dataclass(frozen=True)
class Formal:
    """A formal input or output: `type` is a type parameter, or a type as ONNX spells it."""

    name: str
    type: str
    optional: bool
    variadic: bool
    homogeneous: bool


@dataclass(frozen=True)
class Declaration:
    """An operator that onnxruntime declares and the standard does not.

    Attributes:
        inputs: the formal inputs.
        outputs: the formal outputs.
        types: the types that each type parameter can stand for.
        type_attribute: the attribute that names the type of an output, "" if there is none.
    """

    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    types: Mapping[str, tuple[str, ...]]
    type_attribute: str


@functools.cache
def _data() -> Any:
    text = resources.files("ortolan.catalog").joinpath("onnxruntime.json").read_text("utf-8")
    data = json.loads(text)
    data["sets"] = [tuple(data["types"][k] for k in members) for members in data["sets"]]
    return data


def version() -> str:
    """The release that the facts are from."""
    return str(_data()["onnxruntime"])


def newest_opset(domain: str) -> int | None:
    """The newest opset of a domain ("" is ai.onnx); None for domains that it does not know."""
    found: int | None = _data()["opsets"].get(domain)
    return found


@functools.cache
def kernels(domain: str, name: str) -> tuple[Kernel, ...]:
    """Returns the kernels of an operator, of all its versions; empty where it has none.

    Args:
        domain: "" is ai.onnx.
        name: the operator.
    """
    data = _data()
    return tuple(
        Kernel(first, last or None, {key: frozenset(data["sets"][k]) for key, k in types.items()})
        for first, last, types in data["kernels"].get(domain, {}).get(name, ())
    )


@functools.cache
def declaration(domain: str, name: str, since_version: int) -> Declaration | None:
    """Returns the declaration of an operator that the standard lacks; None if there is none."""
    data = _data()
    found = data["operators"].get(domain, {}).get(name, {}).get(str(since_version))
    if found is None:
        return None
    return Declaration(
        tuple(_formals(found["inputs"])),
        tuple(_formals(found["outputs"])),
        {key: data["sets"][k] for key, k in found["types"].items()},
        found.get("type_attribute", ""),
    )


def _formals(rows: list[list[str]]) -> Iterator[Formal]:
    for name, type_, count in rows:
        yield Formal(name, type_, count == "?", count in "*~", count != "~")
