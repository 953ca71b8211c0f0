"""Which kernel of onnxruntime a node would get, by onnxruntime's own rules."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import onnx_ir as ir

from ortolan.catalog import onnxruntime
from ortolan.catalog.onnxruntime import Kernel
from ortolan.importing.element_types import type_text
from ortolan.importing.signatures import signature_of
from ortolan.ortformat.from_ir import type_strings
from ortolan.passes.target import Target

__all__ = ["ONNXRUNTIME", "first_values", "has_kernel", "knows", "typed_values"]


class _Onnxruntime:
    """onnxruntime's CPU provider, as rewrites ask for it."""

    def supports(
        self, domain: str, name: str, version: int, types: Mapping[str, ir.DataType]
    ) -> bool:
        texts = {key: f"tensor({type_.name.lower()})" for key, type_ in types.items()}
        return any(
            _takes(kernel, texts)
            for kernel in onnxruntime.kernels(domain, name)
            if kernel.serves(version)
        )


ONNXRUNTIME: Target = _Onnxruntime()
"""For files that onnxruntime is to run."""


def knows(domain: str, name: str, version: int) -> bool:
    """Whether onnxruntime has a kernel for an operator of a since_version, for some types."""
    return any(kernel.serves(version) for kernel in onnxruntime.kernels(domain, name))


def has_kernel(node: ir.Node, types: Mapping[str, str] | None = None) -> bool:
    """Whether onnxruntime has a kernel for a node.

    Args:
        node: has a version, its values types.
        types: the node's types by type string, where they are to be others than its values'.
    """
    if types is None:
        types = {key: type_text(value.type) for key, value in first_values(node).items()}
    return any(
        _takes(kernel, types)
        for kernel in onnxruntime.kernels(node.domain, node.op_type)
        if kernel.serves(node.version or 1)
    )


def _takes(kernel: Kernel, types: Mapping[str, str]) -> bool:
    return all(key not in types or types[key] in of for key, of in kernel.types.items())


def first_values(node: ir.Node) -> dict[str, ir.Value]:
    """Returns by type string the first value of a node that it stands for: the one that counts."""
    found: dict[str, ir.Value] = {}
    for key, value in typed_values(node):
        found.setdefault(key, value)
    return found


def typed_values(node: ir.Node) -> list[tuple[str, ir.Value]]:
    """Returns a node's inputs, then its outputs, each with its type string."""
    inputs, outputs = _formals(node.domain, node.op_type, node.version or 1)
    found = []
    for keys, values in ((inputs, node.inputs), (outputs, node.outputs)):
        for k, value in enumerate(values):
            if keys and value is not None and value.name != "":
                found.append((keys[min(k, len(keys) - 1)], value))
    return found


@functools.lru_cache(maxsize=4096)
def _formals(domain: str, name: str, version: int) -> tuple[list[str], list[str]]:
    """The type string of each formal input and output of an operator."""
    inputs: dict[int, str] = {}
    outputs: dict[int, str] = {}
    if signature_of(domain, name, version) is not None:
        for key, places in type_strings(f"{domain}:{name}:{version}"):
            for is_output, index in places:
                (outputs if is_output else inputs)[index] = key
    return [inputs[k] for k in sorted(inputs)], [outputs[k] for k in sorted(outputs)]
