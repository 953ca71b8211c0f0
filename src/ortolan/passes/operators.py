"""Tells which operators of a model the runtime does not have, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from ortolan import catalog, errors
from ortolan.catalog.operator import Operator
from ortolan.catalog.types import DataType

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
            variable = parameters[min(k, len(parameters) - 1)].variable
            types = operator.types.get(variable)
            if types is None:
                continue
            if not isinstance(value.type, ir.TensorType):
                wrong[f"{variable} = {type(value.type).__name__}"] = None
            elif DataType.__members__.get(value.type.dtype.name) not in types:
                wrong[f"{variable} = {value.type.dtype.name.lower()}"] = None
    return list(wrong)
