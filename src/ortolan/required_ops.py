"""Which operators, versions and types models need, and the selection of kernels from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ortolan import catalog
from ortolan.catalog.operator import Operator, Parameter, covers
from ortolan.catalog.types import DataType, TypeSet
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.ortformat.links import graphs
from ortolan.ortformat.tables import Graph, InferenceSession, Node, TensorTypeAndShape

__all__ = ["RequiredOperator", "required_operators", "selects"]


@dataclass(frozen=True)
class RequiredOperator:
    """A use of an operator: the types are those of the variables that choose a kernel."""

    domain: str
    name: str
    version: int
    types: tuple[DataType, ...]


def required_operators(session: InferenceSession) -> set[RequiredOperator]:
    """Returns what a model needs, its subgraphs included.

    Args:
        session: a file as `ortolan.ortformat.reader.read` gives it.

    Raises:
        ortolan.errors.NotImplemented: the catalog lacks an operator.
    """
    found: set[RequiredOperator] = set()
    assert session.model is not None and session.model.graph is not None
    for graph in graphs(session.model.graph):
        types = _element_types(graph)
        for node in graph.nodes:
            found.add(_required(node, types))
    return found | set(_conversions(found))


def selects(
    required: Iterable[RequiredOperator], operator: Operator, types: tuple[TypeSet, TypeSet]
) -> bool:
    """Whether a compiled instance of a catalog entry serves any of the required uses."""
    return any(
        (use.domain, use.name) == (operator.domain, operator.name)
        and covers(operator, use.version)
        and all(t in of for t, of in zip(use.types, types, strict=False))
        for use in required
    )


def _element_types(graph: Graph) -> dict[str, DataType]:
    types = {t.name: DataType(t.data_type) for t in graph.initializers if t.data_type <= 20}
    for argument in graph.node_args:
        value = argument.type.value if argument.type else None
        if isinstance(value, TensorTypeAndShape) and value.elem_type <= 20:
            types[argument.name] = DataType(value.elem_type)
    return types


def _required(node: Node, types: dict[str, DataType]) -> RequiredOperator:
    domain = "" if node.domain == "ai.onnx" else node.domain
    operator = catalog.find(domain, node.op_type, node.since_version)
    if operator is None:
        raise NotImplementedHere(
            f"the catalog has no {domain or 'ai.onnx'}:{node.op_type}, version {node.since_version}"
        )
    keys = tuple(_type_of(key, operator, node, types) for key in operator.keys)
    return RequiredOperator(domain, node.op_type, node.since_version, keys)


def _type_of(variable: str, operator: Operator, node: Node, types: dict[str, DataType]) -> DataType:
    def first(parameters: tuple[Parameter, ...], names: list[str]) -> DataType | None:
        for k, name in enumerate(names):
            parameter = parameters[min(k, len(parameters) - 1)]
            if name and parameter.variable == variable and name in types:
                return types[name]
        return None

    found = first(operator.inputs, node.inputs) or first(operator.outputs, node.outputs)
    if found is None:
        raise NotImplementedHere(f'node "{node.name}" ({node.op_type}): a type is not known')
    return found


def _conversions(found: set[RequiredOperator]) -> Iterable[RequiredOperator]:
    """The layout conversions that the loader puts around spatial operators."""
    for use in found:
        operator = catalog.find(use.domain, use.name, use.version)
        if operator is not None and operator.layout == "spatial":
            yield RequiredOperator("ai.ortolan", "Layout", 1, use.types[:1])
