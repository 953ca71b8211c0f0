"""Tells which operators of a model the runtime does not have, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from ortolan import catalog, errors
from ortolan.catalog.operator import Operator, Parameter, takes
from ortolan.catalog.types import DataType
from ortolan.importing.element_types import type_text

__all__ = ["check_operators", "list_operators", "missing_operators"]


def check_operators(model: ir.Model) -> None:
    """Checks that the runtime has a kernel for every node.

    Raises:
        NotImplemented: names every operator, version and type that has none.
    """
    missing = missing_operators(model)
    if missing:
        raise errors.NotImplemented(
            f"Ortolan has no kernel for {list_operators(missing)}. Export the model without "
            "them, or allow unknown operators to write the file anyway"
        )


def list_operators(missing: Mapping[str, int]) -> str:
    """Returns the result of `missing_operators` in words."""
    items = [f"{text} ({n} node{'' if n == 1 else 's'})" for text, n in missing.items()]
    noun = "operator" if len(items) == 1 else "operators"
    return f"{len(items)} {noun} of the model: {', '.join(items)}"


def missing_operators(model: ir.Model) -> dict[str, int]:
    """Returns operators without a kernel, such as "ai.onnx:Crop:1", with their number of nodes.

    Where the operator is there but not for the types of a node, they are named:
    "ai.onnx:Conv:11 with T = float16".
    """
    found: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        version = node.version or 1
        name = f"{node.domain or 'ai.onnx'}:{node.op_type}:{version}"
        operator = catalog.find(node.domain, node.op_type, version)
        if operator is None:
            found[name] += 1
            continue
        wrong = _unsupported_types(node, operator)
        if wrong:
            found[f"{name} with {', '.join(wrong)}"] += 1
    return dict(sorted(found.items()))


def _unsupported_types(node: ir.Node, operator: Operator) -> list[str]:
    """Returns the type variables that stand for a type without a kernel: "T = float16"."""
    wrong: dict[str, None] = {}
    for parameters, values in (
        (operator.inputs, node.inputs),
        (operator.outputs, node.outputs),
    ):
        for k, value in enumerate(values):
            if value is None or value.name == "" or value.type is None or not parameters:
                continue
            parameter = parameters[min(k, len(parameters) - 1)]
            if not _has_kernel(value, parameter, operator):
                wrong[f"{parameter.variable} = {_text(value.type)}"] = None
    return list(wrong)


def _has_kernel(value: ir.Value, parameter: Parameter, operator: Operator) -> bool:
    types = operator.types.get(parameter.variable)
    if types is None:
        return True
    type_ = value.type
    is_sequence = isinstance(type_, ir.SequenceType)
    if isinstance(type_, ir.SequenceType):
        type_ = type_.elem_type
    if parameter.is_sequence != is_sequence or not isinstance(type_, ir.TensorType):
        # The loader has a kernel of its own for the identity of containers.
        return operator.name == "Identity"
    element = DataType.__members__.get(type_.dtype.name)
    return element is not None and takes(types, element)


def _text(type_: ir.TypeProtocol) -> str:
    if isinstance(type_, ir.TensorType):
        return type_.dtype.name.lower()
    return type_text(type_)
