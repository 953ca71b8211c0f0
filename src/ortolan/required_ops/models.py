"""Which operators, versions and types a model needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ortolan import catalog
from ortolan.catalog.operator import Operator, Parameter, takes_containers
from ortolan.catalog.types import DataType, TypeSet
from ortolan.errors import NotImplemented as NotImplementedHere
from ortolan.ortformat.links import graphs
from ortolan.ortformat.schema import OPTIONAL_DENOTATION, TensorDataType
from ortolan.ortformat.tables import (
    Graph,
    InferenceSession,
    Node,
    SequenceType,
    TensorTypeAndShape,
    TypeInfo,
)
from ortolan.required_ops.config import FEATURES

__all__ = [
    "RequiredOperator",
    "absent_features",
    "casts_of_promotion",
    "promoted",
    "required_operators",
    "unknown_operators",
]

_CAST_VERSION = 13


@dataclass(frozen=True)
class RequiredOperator:
    """A use of an operator: the types are those of the variables that choose a kernel."""

    domain: str
    name: str
    version: int
    types: tuple[DataType, ...]


def required_operators(
    session: InferenceSession, *, lenient: bool = False
) -> set[RequiredOperator]:
    """Returns what a model needs, its subgraphs included.

    Args:
        session: a file as `ortolan.ortformat.reader.read` gives it.
        lenient: leave out operators that the catalog lacks.

    Raises:
        ortolan.errors.NotImplemented: the catalog lacks operators.
    """
    unknown = [] if lenient else unknown_operators(session)
    if unknown:
        raise NotImplementedHere(f"operators that Ortolan does not have: {', '.join(unknown)}")
    found: set[RequiredOperator] = set()
    assert session.model is not None and session.model.graph is not None
    for node, types in _typed_nodes(session.model.graph, {}):
        operator = _entry(node)
        if operator is not None:
            found.update(_uses(operator, node, types))
    return found | set(_conversions(found))


def absent_features(session: InferenceSession) -> frozenset[str]:
    """Those of FEATURES that neither a value nor a constant of a model has."""
    parts = list(_graphs(session))
    used = {"sparse"} if any(part.sparse_initializers for part in parts) else set()
    tensors = [tensor for part in parts for tensor in part.initializers]
    tensors += [a.t for part in parts for node in part.nodes for a in node.attributes if a.t]
    if any(tensor.data_type == TensorDataType.STRING for tensor in tensors):
        used.add("strings")
    entries = (_entry(node) for part in parts for node in part.nodes)
    if any(takes_containers(entry) for entry in entries if entry is not None):
        used.add("containers")  # OptionalHasElement may be given a tensor
    for part in parts:
        for value in part.node_args:
            used |= _features(value.type) if value.name else set()
    return FEATURES - used


def _features(info: TypeInfo | None) -> set[str]:
    """The features of a value; those that it may have where its type is not known."""
    if info is None or info.value is None:
        return {"containers", "strings"}
    if isinstance(info.value, TensorTypeAndShape):
        is_text = info.value.elem_type in (TensorDataType.STRING, TensorDataType.UNDEFINED)
        used = {"strings"} if is_text else set()
        return used | {"containers"} if info.denotation == OPTIONAL_DENOTATION else used
    if isinstance(info.value, SequenceType):
        return {"containers"} | _features(info.value.elem_type)
    has_text_keys = info.value.key_type == TensorDataType.STRING
    keys = {"strings"} if has_text_keys else set()
    return {"containers"} | keys | _features(info.value.value_type)


def unknown_operators(session: InferenceSession) -> list[str]:
    """The operators and versions that the catalog lacks, each once."""
    return list(
        dict.fromkeys(
            f"{node.domain or 'ai.onnx'}:{node.op_type}, version {node.since_version}"
            for graph in _graphs(session)
            for node in graph.nodes
            if _entry(node) is None
        )
    )


def _graphs(session: InferenceSession) -> Iterable[Graph]:
    assert session.model is not None and session.model.graph is not None
    return graphs(session.model.graph)


def _entry(node: Node) -> Operator | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return catalog.find(domain, node.op_type, node.since_version)


def promoted(kernels: TypeSet, data_type: DataType) -> DataType:
    """The type in which a value is computed: float32 for half precision without a kernel.

    Args:
        kernels: the types that have one.
        data_type: that of the value.
    """
    halves = (DataType.FLOAT16, DataType.BFLOAT16)
    if data_type in halves and data_type not in kernels and DataType.FLOAT in kernels:
        return DataType.FLOAT
    return data_type


def casts_of_promotion(halves: Iterable[DataType]) -> Iterable[RequiredOperator]:
    """The casts to float32 and back that the loader puts around an operator."""
    for half in halves:
        for pair in ((half, DataType.FLOAT), (DataType.FLOAT, half)):
            yield RequiredOperator("", "Cast", _CAST_VERSION, pair)


def _typed_nodes(
    graph: Graph, outer: dict[str, DataType]
) -> Iterator[tuple[Node, dict[str, DataType]]]:
    """Every node with the types of all values that it can see."""
    types = outer | _element_types(graph)
    for node in graph.nodes:
        yield node, types
        for body in node.subgraphs():
            yield from _typed_nodes(body, types)


def _element_types(graph: Graph) -> dict[str, DataType]:
    types = {t.name: DataType(t.data_type) for t in graph.initializers if t.data_type <= 20}
    for argument in graph.node_args:
        value = argument.type.value if argument.type else None
        if isinstance(value, TensorTypeAndShape) and value.elem_type <= 20:
            types[argument.name] = DataType(value.elem_type)
    return types


def _uses(operator: Operator, node: Node, types: dict[str, DataType]) -> Iterator[RequiredOperator]:
    """The use of a node, with the casts of half precision.

    A type that the file does not tell (of a sequence's elements, for example) may be any.
    """
    given = [_types_of(key, operator, node, types) or operator.types[key] for key in operator.keys]
    for chosen in itertools.product(*map(sorted, given)):
        computed = [
            promoted(operator.types.get(key, frozenset()), t)
            for key, t in zip(operator.keys, chosen, strict=True)
        ]
        yield RequiredOperator(operator.domain, node.op_type, node.since_version, tuple(computed))
        yield from casts_of_promotion(
            {t for t, other in zip(chosen, computed, strict=True) if t != other}
        )


def _types_of(variable: str, operator: Operator, node: Node, types: dict[str, DataType]) -> TypeSet:
    def first(parameters: tuple[Parameter, ...], names: list[str]) -> TypeSet:
        for k, name in enumerate(names if parameters else ()):
            parameter = parameters[min(k, len(parameters) - 1)]
            if name and parameter.variable == variable and name in types:
                return frozenset({types[name]})
        return frozenset()

    return first(operator.inputs, node.inputs) or first(operator.outputs, node.outputs)


def _conversions(found: set[RequiredOperator]) -> Iterable[RequiredOperator]:
    """The layout conversions that the loader puts around spatial operators."""
    for use in found:
        operator = catalog.find(use.domain, use.name, use.version)
        if operator is not None and operator.layout == "spatial":
            yield RequiredOperator("ai.ortolan", "Layout", 1, use.types[:1])
