"""Makes a model one that onnxruntime's CPU provider runs: it repairs nothing when it loads a file.

1. Where a version of an operator has no kernel, the import is raised to the next one that has,
   if all nodes of the domain mean the same there: onnxruntime holds every node against the
   import. Versions are not raised otherwise.
2. A node whose kernels want float32 where it has half precision gets Casts around it
   (`half_casts`).
3. A node without kernel whose operator is a function of the standard becomes its body.
4. int4 constants become int8 ones (`wide_constants`): onnxruntime writes them, but does not
   read them back.

What is left without a kernel is named. No fused operator is taken apart: the passes make those
of com.microsoft only, and for onnxruntime the level `all` is `layout`, without `ai.ortolan`.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from ortolan import errors
from ortolan.catalog import onnxruntime
from ortolan.importer import set_types
from ortolan.importing.element_types import type_text
from ortolan.importing.functions import inline_standard_functions
from ortolan.importing.versions import differ_in_types_only, since_version
from ortolan.passes.dead_code import remove_unused_constants
from ortolan.passes.half_casts import cast_types, insert_half_casts
from ortolan.passes.onnxruntime_kernels import first_values, has_kernel, knows
from ortolan.passes.operators import list_operators
from ortolan.passes.verify import verify
from ortolan.passes.wide_constants import widen_constants

__all__ = ["IMPORTS", "lacking", "legalize"]

IMPORTS = {"com.microsoft": 1}
"""What every file imports: onnxruntime rewrites QLinearConv and others when it loads a file, but
does not import the domain of what it writes."""

# Bodies of the standard's functions use functions again, but not deeper than this.
_MAX_NESTED = 8

# An attribute of the first versions that said nothing about the result.
_CONSUMED = "consumed_inputs"


def legalize(model: ir.Model, *, allow_unknown_operators: bool = False) -> None:
    """Changes a model in place so that onnxruntime has a kernel for every node.

    Args:
        model: a verified model.
        allow_unknown_operators: keep nodes for which there is no help.

    Raises:
        NotImplemented: names every operator, version and type that has no kernel, or a type
            that onnxruntime's files cannot hold.
    """
    _check_types(model)
    for domain in list(model.opset_imports):
        _raise_versions(model, domain)
    for _ in range(_MAX_NESTED):
        if not inline_standard_functions(model, _needs_body, knows):
            break
        set_types(model)
        remove_unused_constants(model)
    widen_constants(model)
    insert_half_casts(model, has_kernel)
    missing = lacking(model)
    if missing and not allow_unknown_operators:
        raise errors.NotImplemented(
            f"onnxruntime {onnxruntime.version()} has no kernel for {list_operators(missing)}. "
            "Convert without --for onnxruntime, or allow unknown operators to write the file anyway"
        )
    verify(model, "making it onnxruntime's")


def lacking(model: ir.Model) -> dict[str, int]:
    """Returns operators without a kernel in onnxruntime, with their number of nodes.

    They are named with the types of the node where the operator has kernels for others:
    "ai.onnx:Conv:11 with T = tensor(double)".
    """
    found: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        if has_kernel(node):
            continue
        name = f"{node.domain or 'ai.onnx'}:{node.op_type}:{node.version}"
        if knows(node.domain, node.op_type, node.version or 1):
            types = [f"{key} = {type_text(v.type)}" for key, v in first_values(node).items()]
            name += f" with {', '.join(types)}"
        found[name] += 1
    return dict(sorted(found.items()))


def _needs_body(node: ir.Node) -> bool:
    return not has_kernel(node) and not cast_types(node, has_kernel)


def _raise_versions(model: ir.Model, domain: str) -> None:
    """Raises a domain's import to where all its operators have kernels, if that changes nothing."""
    nodes = [node for node in model.graph.all_nodes() if node.domain == domain]
    needed = [
        min((k.first for k in kernels if k.first > (node.version or 1)), default=0)
        for node in nodes
        if (kernels := onnxruntime.kernels(domain, node.op_type))
        and not knows(domain, node.op_type, node.version or 1)
    ]
    imported = max([model.opset_imports.get(domain, 1), *needed])
    versions = [since_version(domain, node.op_type, imported) for node in nodes]
    if not any(needed) or not all(map(_means_the_same, nodes, versions)):
        return
    for node, version in zip(nodes, versions, strict=True):
        node.version = version
        node.attributes.pop(_CONSUMED, None)
    model.opset_imports[domain] = imported


def _means_the_same(node: ir.Node, version: int) -> bool:
    return node.version == version or differ_in_types_only(node, version, ignored=(_CONSUMED,))


def _check_types(model: ir.Model) -> None:
    """Refuses what the format of onnxruntime has no place for."""
    graphs = [model.graph, *(graph for graph in model.graph.subgraphs())]
    for graph in graphs:
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        for value in values:
            if isinstance(value.type, ir.OptionalType):
                raise errors.NotImplemented(
                    f'the value "{value.name}" is {type_text(value.type)}: files of onnxruntime '
                    "cannot hold optional types; convert without --for onnxruntime"
                )
