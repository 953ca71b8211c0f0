"""Mends what exporters get wrong and onnxruntime accepts, at protobuf level.

In: a model as it was written. Out: the same message, in which every name of a graph has one
definition before its uses, constants are initializers, and types and sizes contradict nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSequence
from typing import Literal

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from ortolan import errors
from ortolan.errors import InvalidGraph
from ortolan.importing.constants import SPARSE, check_data, constant_tensor, densify
from ortolan.importing.ordering import sort_nodes
from ortolan.importing.value_types import mend_value_infos

__all__ = ["mend", "mend_function", "node_label", "opset_versions"]

# From this version on, an initializer that is also an input is a default that a feed replaces.
_IR_WITH_DEFAULTS = 4

_ELEMENT_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}

# Before this version a model could do without opset imports: it meant version 1.
_IR_WITH_OPSETS = 3


def node_label(node: NodeProto) -> str:
    """Returns how messages call a node: its operator and the best name that there is."""
    name = node.name or next((output for output in node.output if output), "")
    return f'[{node.op_type}] node "{name}"'


def mend(model: onnx.ModelProto) -> None:
    """Mends a model in place.

    Raises:
        InvalidGraph: a name has two definitions or none, nodes form a cycle, or a tensor is
            damaged: what onnxruntime refuses as well.
        NotImplemented: something that the ORT format or ONNX IR cannot hold.
    """
    _mend_graph(model.graph, {}, model.ir_version)
    for function in model.functions:
        mend_function(function)


def opset_versions(model: onnx.ModelProto) -> dict[str, int]:
    """Returns the version of each imported domain; of one imported twice, the last.

    Raises:
        InvalidGraph: there are no imports, or one without a version.
    """
    if not model.opset_import:
        if 0 < model.ir_version < _IR_WITH_OPSETS:
            return {"": 1}
        raise InvalidGraph(
            "the model imports no operator set, so the version of its operators is unknown: "
            "export it again, or set opset_import"
        )
    versions: dict[str, int] = {}
    for item in model.opset_import:
        domain = "" if item.domain == "ai.onnx" else item.domain
        if item.version < 1:
            raise InvalidGraph(
                f'the model imports version {item.version} of "{domain or "ai.onnx"}": '
                "the first version is 1"
            )
        versions[domain] = item.version
    return versions


def mend_function(function: onnx.FunctionProto) -> None:
    """Sorts a function's nodes and mends its subgraphs; constants may refer to attributes.

    Raises:
        InvalidGraph: as `mend`.
        NotImplemented: as `mend`.
    """
    names = dict.fromkeys(function.input, "an input")
    for node in function.node:
        _define_outputs(node, names)
    _mend_subgraphs(function.node, names)
    _check_inputs(function.node, names)
    sort_nodes(function.node, f'function "{function.name}"')
    # The inliner cannot bind an output to an argument of the call, or two outputs to one value.
    seen = set(function.input)
    for k, name in enumerate(function.output):
        if name not in names:
            raise InvalidGraph(f'function "{function.name}": its output "{name}" is not computed')
        if name in seen:
            function.output[k] = _pass_through(function.node, name, names)
        seen.add(name)


def _mend_graph(graph: GraphProto, outer: Mapping[str, str], ir_version: int | None) -> None:
    """Mends a graph and its subgraphs.

    Args:
        graph: the graph.
        outer: the names that it may capture.
        ir_version: that of the model for its main graph, None for a subgraph.
    """
    _lift_constants(graph)
    own = _own_names(graph, keep_defaults=(ir_version or 0) >= _IR_WITH_DEFAULTS)
    visible = {**outer, **own}
    _mend_subgraphs(graph.node, visible)
    _check_inputs(graph.node, visible)
    _mend_outputs(graph, own, outer)
    mend_value_infos(graph, own)
    sort_nodes(graph.node, f'graph "{graph.name}"')


def _mend_subgraphs(nodes: Iterable[NodeProto], visible: Mapping[str, str]) -> None:
    for node in nodes:
        if not node.op_type or ":" in node.op_type + node.domain:
            raise InvalidGraph(f'{node_label(node)}: "{node.op_type}" is no name of an operator')
        for attribute in node.attribute:
            _mend_attribute(node, attribute)
            if attribute.type == AttributeProto.GRAPH:
                _mend_graph(attribute.g, visible, None)
            for subgraph in attribute.graphs:
                _mend_graph(subgraph, visible, None)


def _mend_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    """Adds the type that files before IR version 2 lack; refuses what has no place in the IR."""
    if attribute.type == AttributeProto.UNDEFINED and not attribute.ref_attr_name:
        for field, kind in _KINDS.items():
            value = getattr(attribute, field)
            if len(value) if field in _REPEATED else attribute.HasField(field):
                attribute.type = kind
    if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
        raise errors.NotImplemented(
            f"{node_label(node)}: the attribute {attribute.name} is a sparse tensor, "
            "which the ORT format cannot hold"
        )
    single = _SINGLE.get(attribute.type)
    if single is not None and not attribute.ref_attr_name and not attribute.HasField(single):
        raise InvalidGraph(f"{node_label(node)}: its attribute {attribute.name} has no value")
    tensors = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
    for tensor in tensors:
        _check_tensor(tensor, f"{node_label(node)}: its attribute {attribute.name}")
    for text in (attribute.s, *attribute.strings):
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise errors.NotImplemented(
                f"{node_label(node)}: the attribute {attribute.name} is no UTF-8 text"
            ) from error


# What has no value where it is left out; a number that is left out is 0.
_SINGLE: dict[int, Literal["t", "g"]] = {AttributeProto.TENSOR: "t", AttributeProto.GRAPH: "g"}
_REPEATED = ("floats", "ints", "strings", "tensors", "graphs")
_KINDS = {
    "f": AttributeProto.FLOAT,
    "i": AttributeProto.INT,
    "s": AttributeProto.STRING,
    "t": AttributeProto.TENSOR,
    "g": AttributeProto.GRAPH,
    "floats": AttributeProto.FLOATS,
    "ints": AttributeProto.INTS,
    "strings": AttributeProto.STRINGS,
    "tensors": AttributeProto.TENSORS,
    "graphs": AttributeProto.GRAPHS,
}


def _lift_constants(graph: GraphProto) -> None:
    """Makes Constant nodes and sparse initializers plain initializers.

    Of several constants with one name the last is valid for every user, also for those before
    it: initializers first, then Constant nodes in their order. onnxruntime reads them so.
    """
    tensors: dict[str, TensorProto | None] = {tensor.name: None for tensor in graph.initializer}
    if "" in tensors:
        raise InvalidGraph(f'graph "{graph.name}": an initializer has no name')
    last = {tensor.name: k for k, tensor in enumerate(graph.initializer)}
    for sparse in graph.sparse_initializer:
        dense = tensors[sparse.values.name] = densify(sparse, sparse.values.name)
        dense.metadata_props.add(key=SPARSE)
    kept = [k for k, node in enumerate(graph.node) if not _is_constant(node)]
    if len(kept) != len(graph.node):
        for node in graph.node:
            if _is_constant(node) and node.output and node.output[0]:
                tensors[node.output[0]] = constant_tensor(node)
        nodes = [graph.node[k] for k in kept]
        del graph.node[:]
        graph.node.extend(nodes)
    del graph.sparse_initializer[:]
    for k in reversed(range(len(graph.initializer))):
        name = graph.initializer[k].name
        if last[name] != k or tensors[name] is not None:
            del graph.initializer[k]
    graph.initializer.extend(tensor for tensor in tensors.values() if tensor is not None)
    for tensor in graph.initializer:
        _check_tensor(tensor, f'the initializer "{tensor.name}"')


def _check_tensor(tensor: TensorProto, what: str) -> None:
    if any(size < 0 for size in tensor.dims):
        raise InvalidGraph(f"{what} has a negative size")
    if tensor.data_type not in _ELEMENT_TYPES:
        raise InvalidGraph(f"{what} has no element type")
    check_data(tensor, what)


def _is_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def _own_names(graph: GraphProto, *, keep_defaults: bool) -> dict[str, str]:
    """Returns what a graph defines, each name with its definition in words.

    An initializer that is listed as an input as well is a default from IR version 4 on. Before,
    it is a constant, and so it is in a subgraph, whose inputs are counted without it.
    """
    constants = {tensor.name for tensor in graph.initializer}
    if not keep_defaults:
        for k in reversed(range(len(graph.input))):
            if graph.input[k].name in constants:
                del graph.input[k]
    names: dict[str, str] = {}
    for info in graph.input:
        if not info.name or info.name in names:
            raise InvalidGraph(f'graph "{graph.name}": two inputs have the name "{info.name}"')
        names[info.name] = "an input"
    names.update(dict.fromkeys(constants, "a constant"))
    for node in graph.node:
        _define_outputs(node, names)
    return names


def _define_outputs(node: NodeProto, names: dict[str, str]) -> None:
    for name in node.output:
        if name and name in names:
            raise InvalidGraph(
                f'{node_label(node)}: its output "{name}" is defined a second time '
                f"(it is {names[name]} already)"
            )
        if name:
            names[name] = f"an output of {node_label(node)}"


def _check_inputs(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        for name in node.input:
            if name and name not in names:
                raise InvalidGraph(
                    f'{node_label(node)}: its input "{name}" is no graph input, no constant '
                    "and no output of a node"
                )


def _mend_outputs(graph: GraphProto, own: dict[str, str], outer: Mapping[str, str]) -> None:
    """Checks the outputs; one of a subgraph that is an outer value goes through an Identity."""
    for info in graph.output:
        if info.name in own:
            continue
        if info.name not in outer:
            raise InvalidGraph(
                f'graph "{graph.name}": its output "{info.name}" is computed nowhere'
            )
        info.name = _pass_through(graph.node, info.name, {**outer, **own})
        own[info.name] = "an output of an Identity"


def _pass_through(nodes: MutableSequence[NodeProto], name: str, taken: Mapping[str, str]) -> str:
    """Appends an Identity of a value; returns the name of its output."""
    copy, k = f"{name}_out", 0
    outputs = {output for node in nodes for output in node.output}
    while copy in taken or copy in outputs:
        k += 1
        copy = f"{name}_out{k}"
    nodes.append(onnx.helper.make_node("Identity", [name], [copy]))
    return copy
