"""Holds the attributes of nodes against the declarations of their operators."""

from __future__ import annotations

import functools

import onnx_ir as ir

from ortolan import catalog
from ortolan.errors import InvalidGraph
from ortolan.importing.element_types import label
from ortolan.importing.versions import schema_of

__all__ = ["check_attributes"]

# Attribute names with this prefix are free for anybody's use.
_PRIVATE = "__"


def check_attributes(model: ir.Model) -> None:
    """Checks names, types and presence of the attributes of operators that are known.

    Raises:
        InvalidGraph: an operator has no such attribute, one has another type than declared, or
            a required one is missing.
    """
    for node in model.graph.all_nodes():
        declared = _declared(node.domain, node.op_type, node.version or 1)
        if declared is None:
            continue
        for name, attribute in node.attributes.items():
            if name not in declared and not name.startswith(_PRIVATE):
                raise InvalidGraph(
                    f"{label(node)}: version {node.version} has no attribute {name}: remove it"
                )
            kind = declared[name][0] if name in declared else attribute.type.name
            if attribute.type.name != kind:
                raise InvalidGraph(
                    f"{label(node)}: its attribute {name} is {attribute.type.name}, not {kind}"
                )
        for name, (_, required) in declared.items():
            if required and name not in node.attributes:
                raise InvalidGraph(f"{label(node)}: its attribute {name} is missing")


@functools.lru_cache(maxsize=4096)
def _declared(domain: str, name: str, version: int) -> dict[str, tuple[str, bool]] | None:
    """Type and necessity of an operator's attributes; None for an operator nobody declares."""
    schema = schema_of(domain, name, version)
    if schema is not None and schema.since_version == version and not schema.deprecated:
        return {
            attribute.name: (ir.AttributeType(attribute.type.value).name, attribute.required)
            for attribute in schema.attributes.values()
        }
    operator = catalog.find(domain, name, version)
    if operator is None:
        return None
    return {spec.name: (spec.kind.upper(), spec.required) for spec in operator.attributes}
