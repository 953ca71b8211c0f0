"""Gives every node its since_version: the version of the operator that its opset import means."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

import onnx.defs
import onnx_ir as ir

from ortolan import errors

__all__ = [
    "Schema",
    "differ_in_types_only",
    "newest_opset",
    "same_operator",
    "schema_of",
    "set_versions",
    "since_version",
]

Schema: TypeAlias = Any
"""An `onnx.defs.OpSchema`, which has members that its annotations lack."""

_MICROSOFT = "com.microsoft"

# Domains of the standard: what they do not import gets the newest version, as in onnxruntime.
_STANDARD = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")


def set_versions(
    nodes: Iterable[ir.Node], imports: Mapping[str, int], model: Mapping[str, int] | None = None
) -> None:
    """Sets `version` of nodes that have none to the since_version of their operator.

    Args:
        nodes: the nodes, those of subgraphs included.
        imports: opset version by domain, "" for ai.onnx.
        model: for nodes of a function, the imports of the model around it. A node takes the
            newer version that it would have there if the two differ in their types only: a
            file has one import per domain, and onnxruntime wants all nodes to agree with it.

    Raises:
        NotImplemented: a version is newer than any that is known.
    """
    for domain, version in imports.items():
        newest = newest_opset(domain)
        if newest and version > newest:
            raise errors.NotImplemented(
                f'the model imports version {version} of "{domain or "ai.onnx"}", but {newest} '
                "is the newest one known: export it for that version, or update Ortolan"
            )
    for node in nodes:
        if node.version is None:
            node.version = since_version(node.domain, node.op_type, imports.get(node.domain))
            if model is not None and node.domain in model:
                newer = since_version(node.domain, node.op_type, model[node.domain])
                if differ_in_types_only(node, newer):
                    node.version = newer


def differ_in_types_only(node: ir.Node, newer: int, ignored: Collection[str] = ()) -> bool:
    """Whether a newer version of a node's operator means the same for the types of the older.

    Args:
        node: has a version, or 1 is meant.
        newer: a since_version of its operator.
        ignored: attributes that may differ as well.
    """
    version = node.version or 1
    return newer > version and same_operator(node.domain, node.op_type, version, newer, ignored)


def same_operator(
    domain: str, name: str, version: int, other: int, ignored: Collection[str] = ()
) -> bool:
    """Whether two since_versions of an operator differ in nothing but types, as far as declared."""
    old, new = schema_of(domain, name, version), schema_of(domain, name, other)
    if old is None or new is None:
        return False
    return _form(old, ignored) == _form(new, ignored)


def _form(schema: Schema, ignored: Collection[str]) -> tuple[object, ...]:
    """All that a declaration fixes apart from types."""
    formals = [
        [(p.name, p.option, p.is_homogeneous, p.min_arity) for p in parameters]
        for parameters in (schema.inputs, schema.outputs)
    ]
    attributes = {
        name: (a.type, a.required, a.default_value.SerializeToString())
        for name, a in schema.attributes.items()
        if name not in ignored
    }
    return (schema.deprecated, formals, attributes)


# A number that onnx can hold; files have more bits.
_NEWEST = 2**31 - 1


@functools.lru_cache(maxsize=4096)
def since_version(domain: str, name: str, opset: int | None) -> int:
    """Returns the version in which the operator of an opset was introduced.

    Operators of com.microsoft have version 1 only. Those that left the standard without
    a trace, as ImageScaler and Crop did, keep the 1 that onnxruntime gives them.

    Args:
        domain: "" is ai.onnx.
        name: the operator.
        opset: version of the import; None where the domain is not imported.
    """
    if domain == _MICROSOFT:
        return 1
    version = opset or newest_opset(domain) or 1
    schema = schema_of(domain, name, version)
    if schema is not None:
        return int(schema.since_version)
    return 1 if domain in _STANDARD else version


@functools.lru_cache(maxsize=4096)
def schema_of(domain: str, name: str, version: int) -> Schema | None:
    """Returns the standard's declaration in force at a version; None where there is none."""
    try:
        return onnx.defs.get_schema(name, min(max(version, 0), _NEWEST), domain)
    except onnx.defs.SchemaError:
        return None


@functools.cache
def newest_opset(domain: str) -> int:
    """The newest version of a domain of the standard ("" is ai.onnx), 0 for other domains."""
    if domain == "":
        return int(onnx.defs.onnx_opset_version())
    if domain not in _STANDARD:
        return 0
    schemas = onnx.defs.get_all_schemas()
    return max((int(s.since_version) for s in schemas if s.domain == domain), default=0)
