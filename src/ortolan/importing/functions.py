"""Replaces calls of functions by their bodies: those of the model, and those of the standard.

A function's nodes keep the versions of the function's own opset imports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ortolan import catalog, errors
from ortolan.importing.closures import apart, close_over, has_graphs
from ortolan.importing.constants import constant_tensor
from ortolan.importing.mending import mend_function
from ortolan.importing.naming import make_names_unique
from ortolan.importing.versions import Schema, schema_of, set_versions, since_version

__all__ = ["Knows", "inline_model_functions", "inline_standard_functions"]

Knows: TypeAlias = Callable[[str, str, int], bool]
"""Whether there is a kernel for an operator, by its domain, name and since_version."""

# As many as the runtime takes.
_MAX_NODES = 1000000

# A domain that no model uses: each call gets a function of its own in it for a moment.
_TEMPORARY = "ai.ortolan.inline"


def inline_model_functions(model: ir.Model) -> None:
    """Inlines the functions that the model itself defines.

    Raises:
        LimitExceeded: the calls bring more nodes than a model may have.
        InvalidGraph: functions call each other in a circle, or a call does not fit.
        NotImplemented: a function takes a graph as attribute.
    """
    if not model.functions:
        return
    for function in model.functions.values():
        set_versions(function.all_nodes(), function.opset_imports, model.opset_imports)
    _drop_uncalled(model)
    _check_size(model)
    _inline(model)


def _drop_uncalled(model: ir.Model) -> None:
    """Removes functions that nothing calls: the inlining would unfold them all the same."""
    called: set[ir.OperatorIdentifier] = set()
    pending: list[ir.Graph | ir.Function] = [model.graph]
    while pending:
        for node in pending.pop().all_nodes():
            key = node.op_identifier()
            if key in model.functions and key not in called:
                called.add(key)
                pending.append(model.functions[key])
    for key in model.functions.keys() - called:
        del model.functions[key]


def _check_size(model: ir.Model) -> None:
    """Refuses calls that multiply: a small model must not ask for much.

    A circle is left for the inlining to find. A body without nodes counts as one.
    """
    own: dict[ir.OperatorIdentifier, int] = {}
    calls: dict[ir.OperatorIdentifier, Counter[ir.OperatorIdentifier]] = {}
    for key, function in model.functions.items():
        named = Counter(node.op_identifier() for node in function.all_nodes())
        calls[key] = Counter({name: n for name, n in named.items() if name in model.functions})
        own[key] = named.total() - calls[key].total()
    sizes: dict[ir.OperatorIdentifier, int] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            sizes[key] = max(1, own[key] + sum(n * sizes[name] for name, n in calls[key].items()))
    except CycleError:
        return
    if sum(sizes.get(node.op_identifier(), 1) for node in model.graph.all_nodes()) > _MAX_NODES:
        raise errors.LimitExceeded(
            f"the model's functions bring more than {_MAX_NODES} nodes, the limit"
        )


def inline_standard_functions(
    model: ir.Model,
    lacks: Callable[[ir.Node], bool] | None = None,
    knows: Knows | None = None,
) -> bool:
    """Inlines operators without a kernel whose bodies the standard gives, once.

    A body is taken where all that it needs has a kernel. Every value that a node uses
    must have a type, because some bodies depend on it.

    Args:
        model: nodes have versions; changed in place.
        lacks: whether there is no kernel for a node; by default, no catalog entry.
        knows: which operators a body may use; by default, those of the catalog.

    Returns:
        Whether something was inlined; new nodes have no types yet.
    """
    lacks, knows = lacks or _lacks_entry, knows or _has_entry
    calls = 0
    gone: set[ir.Node] = set()
    for node in list(model.graph.all_nodes()):
        proto = _standard_body(node, knows) if node not in gone and lacks(node) else None
        if proto is None:
            continue
        imports = None
        if has_graphs(node):
            # Nodes of its graphs, of the model's versions, are in the body.
            imports = model.opset_imports
            gone |= close_over(node, proto)
        mend_function(proto)
        function = ir.serde.deserialize_function(proto)
        set_versions(function.all_nodes(), imports or function.opset_imports, model.opset_imports)
        function.domain, function.name, function.overload = _TEMPORARY, f"f{calls}", ""
        model.functions[function.identifier()] = function
        _fill_defaults(node)
        node.domain, node.op_type, node.overload = function.identifier()
        calls += 1
    if calls:
        _inline(model)
    return calls > 0


def _has_entry(domain: str, name: str, version: int) -> bool:
    return catalog.find(domain, name, version) is not None


def _lacks_entry(node: ir.Node) -> bool:
    return not _has_entry(node.domain, node.op_type, node.version or 1)


def _inline(model: ir.Model) -> None:
    for function in model.functions.values():
        # The nodes have their versions: imports that differ from the model's say no more.
        function.opset_imports.clear()
    for node in _calls(model):
        function = model.functions[node.op_identifier()]
        if len(node.outputs) > len(function.outputs):
            raise errors.InvalidGraph(
                f'[{node.op_type}] node "{node.name}": it has {len(node.outputs)} outputs, '
                f"but the function has {len(function.outputs)}"
            )
        node.resize_outputs(len(function.outputs))
        for output in node.outputs:
            if not output.name:
                output.name = None
    try:
        InlinePass()(model)
    except ir.passes.PreconditionError as error:
        raise errors.InvalidGraph(f"functions of the model call each other: {error}") from error
    except (ir.passes.PassError, RuntimeError, ValueError) as error:
        raise _refusal(error) from error
    model.functions.clear()
    make_names_unique(model)
    _lift_constants(model)


def _calls(model: ir.Model) -> Iterator[ir.Node]:
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        for node in graph.all_nodes():
            if node.op_identifier() in model.functions:
                yield node


def _refusal(error: BaseException) -> errors.OrtolanError:
    """Says in one line why a call was not inlined; the cause is the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = f"a function of the model cannot be inlined: {error}"
    if "graph attribute" in str(error):
        return errors.NotImplemented(text)
    return errors.InvalidGraph(text)


def _standard_body(node: ir.Node, knows: Knows) -> onnx.FunctionProto | None:
    """Returns the body of an operator, the newest that can be run; None if there is none."""
    version = node.version or 1
    schema = schema_of(node.domain, node.op_type, version)
    if schema is None or schema.since_version != version:
        return None
    for body in _bodies(schema, node):
        # Outputs that the node does not ask for need not be computed.
        del body.output[len(node.outputs) :]
        if _is_runnable(body, knows):
            return body
    return None


def _bodies(schema: Schema, node: ir.Node) -> Iterator[onnx.FunctionProto]:
    """Yields an operator's bodies, the newest first; those that depend on types need them all."""
    for version in sorted(schema.function_opset_versions, reverse=True):
        yield _parse(schema.get_function_with_opset_version(version))
    types = [_type_proto(value) for value in node.inputs]
    if None in types:
        return
    proto, _ = apart(node)
    for version in sorted(schema.context_dependent_function_opset_versions, reverse=True):
        content = schema.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), types
        )
        if content:
            yield _parse(content)


def _parse(content: bytes) -> onnx.FunctionProto:
    proto = onnx.FunctionProto()
    proto.ParseFromString(content)
    return proto


def _type_proto(value: ir.Value | None) -> bytes | None:
    """Returns the type that a builder of bodies is told; empty for an input left out."""
    if value is None:
        return b""
    if value.type is None:
        return None
    return bytes(ir.to_proto(value).type.SerializeToString())


def _is_runnable(function: onnx.FunctionProto, knows: Knows) -> bool:
    """Whether all operators of a body have kernels, or the standard a body for them."""
    if not set(function.output) <= {name for node in function.node for name in node.output}:
        return False
    imports = {item.domain: item.version for item in function.opset_import}
    for node in function.node:
        version = since_version(node.domain, node.op_type, imports.get(node.domain))
        if node.op_type == "Constant" or knows(node.domain, node.op_type, version):
            continue
        schema = schema_of(node.domain, node.op_type, version)
        if schema is None or not (schema.has_function or schema.has_context_dependent_function):
            return False
    return True


def _fill_defaults(node: ir.Node) -> None:
    """Writes out default attributes: a body refers to them, but does not know their values."""
    schema = schema_of(node.domain, node.op_type, node.version or 1)
    for name, attribute in schema.attributes.items() if schema is not None else ():
        default = attribute.default_value
        if name not in node.attributes and default.type != onnx.AttributeProto.UNDEFINED:
            node.attributes.add(ir.serde.deserialize_attribute(default))


def _lift_constants(model: ir.Model) -> None:
    """Makes the Constant nodes of inlined bodies initializers."""
    for node in list(model.graph.all_nodes()):
        if (node.domain, node.op_type) != ("", "Constant") or node.graph is None:
            continue
        graph, (output,) = node.graph, node.outputs
        tensor = ir.serde.deserialize_tensor(constant_tensor(ir.to_proto(node)))
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(
            name=output.name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor
        )  # fmt: skip
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        graph.initializers.add(value)
