"""Who runs the model: rewrites ask it whether it has an operator before they use one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import onnx_ir as ir

from ortolan import catalog
from ortolan.catalog.types import DataType
from ortolan.importing.signatures import ANY, signature_of

__all__ = ["ORTOLAN", "Target", "takes"]


class Target(Protocol):
    """A runtime, as rewrites see it."""

    def supports(
        self, domain: str, name: str, version: int, types: Mapping[str, ir.DataType]
    ) -> bool:
        """Whether the runtime has a kernel.

        Args:
            domain: "" is ai.onnx.
            name: the operator.
            version: its since_version.
            types: element type by type variable of the operator's declaration, such as "T".
        """


class _Ortolan:
    """Ortolan itself: what the catalog has."""

    def supports(
        self, domain: str, name: str, version: int, types: Mapping[str, ir.DataType]
    ) -> bool:
        operator = catalog.find(domain, name, version)
        return operator is not None and all(
            DataType.__members__.get(type_.name) in operator.types[variable]
            for variable, type_ in types.items()
            if variable in operator.types
        )


ORTOLAN: Target = _Ortolan()
"""What a file is made for unless something else is asked for."""


def takes(target: Target, node: ir.Node) -> bool:
    """Whether a target has a kernel for a node; its inputs and outputs have types."""
    version = node.version or 1
    signature = signature_of(node.domain, node.op_type, version)
    types: dict[str, ir.DataType] = {}
    if signature is None:
        # The target may know it all the same; most operators call their first input's type T.
        first = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
        return target.supports(node.domain, node.op_type, version, {"T": first} if first else {})
    for values, parameter_of in (
        (node.inputs, signature.input),
        (node.outputs, signature.output),
    ):
        for k, value in enumerate(values):
            parameter = parameter_of(k)
            if value is None or value.name == "" or value.dtype is None:
                continue
            if parameter is None:
                return False
            if parameter.variable != ANY:
                types.setdefault(parameter.variable, value.dtype)
    return target.supports(node.domain, node.op_type, version, types)
