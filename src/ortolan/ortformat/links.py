"""Fills in what an ORT file repeats about a graph: indices, edges, implicit inputs, type strings.

All of it follows from names and operator declarations, but onnxruntime repairs nothing when it
loads a file, so it must be there and right.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, MutableMapping

from ortolan.ortformat.schema import MAX_DEPTH, ArgType
from ortolan.ortformat.tables import (
    ArgTypeAndIndex,
    EdgeEnd,
    Graph,
    KernelTypeStrArgsEntry,
    KernelTypeStrResolver,
    Node,
    NodeEdge,
    OpIdKernelTypeStrArgsEntry,
    OrtFormatError,
    ValueInfo,
)

__all__ = [
    "TypeStrings",
    "graphs",
    "input_arg_counts",
    "link_graph",
    "op_ids",
    "resolver",
    "resolver_from_onnx_defs",
    "type_strings_from_onnx_defs",
]

# What one operator's type strings stand for: (type string, [(is output, formal index), ...]).
TypeStrings = list[tuple[str, list[tuple[bool, int]]]]

# In a recorded optimization, the place of a node that is not there.
_NO_NODE = 0xFFFFFFFF


def link_graph(graph: Graph) -> None:
    """Fills in the links of a main graph and of its subgraphs, from the names of the values.

    Sets every node's `index` (its position) and `implicit_inputs` (in order of first use), and
    the graph's `node_edges` and `max_node_index`. A subgraph's `node_args` gets the outer values
    that it uses, and every graph's the empty name where an argument is left out. Recorded
    runtime optimizations follow their nodes.

    Args:
        graph: the main graph, its nodes in an order in which they can run. Changed in place.

    Raises:
        OrtFormatError: a name has no value or several, or a value has no entry in `node_args`.
    """
    free = _link(graph, ChainMap[str, ValueInfo](), 1)
    for name, place in free.items():
        raise OrtFormatError(f"no value has the name {name!r}", place)


def _link(graph: Graph, outer: ChainMap[str, ValueInfo], depth: int) -> dict[str, str]:
    """Links one graph; returns the outer names that it uses, each with the place of a use."""
    if depth > MAX_DEPTH:
        raise OrtFormatError(f"nested deeper than {MAX_DEPTH} graphs")
    types = {info.name: info for info in graph.node_args}
    scope = outer.new_child(types)
    _renumber(graph)
    local = _local_names(graph)
    free: dict[str, str] = {}
    for k, node in enumerate(graph.nodes):
        _link_subgraphs(node, k, scope, depth)
        for name in (*node.inputs, *node.implicit_inputs):
            if name and name not in local:
                free.setdefault(name, f"nodes[{k}]")
    for name in graph.outputs:
        if name not in local:
            free.setdefault(name, "outputs")
    graph.node_edges = _edges(graph)
    _complete_node_args(graph, types, outer)
    return free


def _link_subgraphs(node: Node, k: int, scope: ChainMap[str, ValueInfo], depth: int) -> None:
    implicit: dict[str, str] = {}
    for attribute in node.attributes:
        for subgraph in attribute.subgraphs():
            try:
                implicit |= _link(subgraph, scope, depth + 1)
            except OrtFormatError as error:
                raise error.within(f"nodes[{k}].{attribute.name}") from None
    node.implicit_inputs = list(implicit)


def _renumber(graph: Graph) -> None:
    """Gives nodes their position as index; recorded optimizations keep meaning the same ones."""
    moved = {node.index: k for k, node in enumerate(graph.nodes)}
    for k, node in enumerate(graph.nodes):
        node.index = k
    graph.max_node_index = len(graph.nodes)
    if graph.runtime_optimizations is None:
        return
    moved[_NO_NODE] = _NO_NODE
    for entry in graph.runtime_optimizations.records:
        for record in entry.runtime_optimization_records:
            nodes = record.nodes_to_optimize_indices
            try:
                nodes.node_indices = [moved[index] for index in nodes.node_indices]
            except KeyError as error:
                problem = f"{record.action_id} of {entry.optimizer_name} needs node {error}"
                raise OrtFormatError(problem, "runtime_optimizations") from None


def _local_names(graph: Graph) -> set[str]:
    """Returns the names that a graph defines itself; refuses one that two nodes produce."""
    local = set(graph.inputs)
    local.update(tensor.name for tensor in graph.initializers)
    local.update(sparse.values.name for sparse in graph.sparse_initializers)
    for k, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name and name in local:
                raise OrtFormatError(f"the name {name!r} is taken", f"nodes[{k}].outputs")
            local.add(name)
    return local


def _edges(graph: Graph) -> list[NodeEdge]:
    """Returns the edges of each node, sorted; implicit inputs count on after explicit ones."""
    edges = [NodeEdge(node.index) for node in graph.nodes]
    producers = {
        name: (node.index, source)
        for node in graph.nodes
        for source, name in enumerate(node.outputs)
        if name
    }
    for node in graph.nodes:
        for argument, name in enumerate((*node.inputs, *node.implicit_inputs)):
            if name in producers:
                producer, source = producers[name]
                edges[node.index].input_edges.append(EdgeEnd(producer, source, argument))
                edges[producer].output_edges.append(EdgeEnd(node.index, source, argument))
    for edge in edges:
        edge.input_edges.sort()
        edge.output_edges.sort()
    return edges


def _complete_node_args(
    graph: Graph, types: MutableMapping[str, ValueInfo], outer: ChainMap[str, ValueInfo]
) -> None:
    """Adds the outer values that nodes use themselves, and the empty name where it stands.

    A value that only passes through to a subgraph gets no entry, as in onnxruntime's files.
    """
    for k, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            if name in types:
                continue
            if name and name not in outer:
                raise OrtFormatError(f"no entry in node_args for {name!r}", f"nodes[{k}]")
            types[name] = outer[name] if name else ValueInfo()
            graph.node_args.append(types[name])


def input_arg_counts(inputs: int, formal_inputs: int, *, variadic: bool) -> list[int]:
    """Returns how many of a node's inputs belong to each formal input of its operator.

    Args:
        inputs: number of inputs of the node, those left out in between included.
        formal_inputs: number of inputs that the operator declares.
        variadic: the last declared input takes any number.

    Raises:
        OrtFormatError: the node has more inputs than the operator.
    """
    if variadic:
        ahead = min(inputs, formal_inputs - 1)
        return [1] * ahead + [0] * (formal_inputs - 1 - ahead) + [inputs - ahead]
    if inputs > formal_inputs:
        raise OrtFormatError(f"{inputs} inputs, but the operator has {formal_inputs}", "inputs")
    return [1] * inputs + [0] * (formal_inputs - inputs)


def graphs(graph: Graph) -> Iterator[Graph]:
    """Yields a graph and all its subgraphs, outer ones first."""
    yield graph
    for node in graph.nodes:
        for subgraph in node.subgraphs():
            yield from graphs(subgraph)


def op_ids(graph: Graph) -> list[str]:
    """Returns the sorted ids ("domain:OpType:since_version") of a graph's operators.

    Those in subgraphs are included, and those that recorded runtime optimizations may produce.
    """
    ids: set[str] = set()
    for part in graphs(graph):
        ids.update(node.op_id() for node in part.nodes)
        if part.runtime_optimizations is not None:
            for entry in part.runtime_optimizations.records:
                for record in entry.runtime_optimization_records:
                    ids.update(record.produced_op_ids)
    return sorted(ids)


def resolver(ops: Iterable[tuple[str, TypeStrings]]) -> KernelTypeStrResolver:
    """Makes the table by which onnxruntime matches kernels without operator schemas.

    Args:
        ops: each operator's id, such as ":Conv:11", and its type strings. A type string is the
            name of a type parameter, or that of an argument whose type is fixed.

    Returns:
        The table, sorted as the format wants it.

    Raises:
        OrtFormatError: an operator or one of its type strings is repeated.
    """
    entries: dict[str, OpIdKernelTypeStrArgsEntry] = {}
    for op_id, strings in ops:
        if op_id in entries:
            raise OrtFormatError(f"{op_id} is repeated", "kernel_type_str_resolver")
        if len({name for name, _ in strings}) != len(strings):
            raise OrtFormatError(f"a type string of {op_id} is repeated")
        entry = entries[op_id] = OpIdKernelTypeStrArgsEntry(op_id)
        for name, arguments in sorted(strings, key=lambda item: item[0].encode()):
            args = [
                ArgTypeAndIndex(ArgType.OUTPUT if is_output else ArgType.INPUT, index)
                for is_output, index in sorted(arguments)
            ]
            entry.kernel_type_str_args.append(KernelTypeStrArgsEntry(name, args))
    return KernelTypeStrResolver([entries[op_id] for op_id in sorted(entries, key=str.encode)])


def resolver_from_onnx_defs(ids: Iterable[str]) -> KernelTypeStrResolver:
    """Makes the table for operators that the `onnx` package declares.

    Args:
        ids: operator ids, such as ":Conv:11".

    Raises:
        LookupError: `onnx` declares no such operator and version.
    """
    return resolver((op_id, type_strings_from_onnx_defs(op_id)) for op_id in ids)


def type_strings_from_onnx_defs(op_id: str) -> TypeStrings:
    """Returns the type strings of an operator that the `onnx` package declares.

    Args:
        op_id: such as ":Conv:11".

    Raises:
        LookupError: `onnx` declares no such operator and version.
    """
    import onnx.defs  # here, because reading and writing must not wait for this import

    domain, name, version = op_id.split(":")
    try:
        schema = onnx.defs.get_schema(name, int(version), domain)
    except onnx.defs.SchemaError as error:
        raise LookupError(f"onnx declares no operator {op_id}") from error
    if schema.since_version != int(version):
        raise LookupError(f"{op_id}: the version in force is {schema.since_version}")
    parameters = {constraint.type_param_str for constraint in schema.type_constraints}
    strings: dict[str, list[tuple[bool, int]]] = {}
    for is_output, arguments in ((False, schema.inputs), (True, schema.outputs)):
        for index, argument in enumerate(arguments):
            known = argument.type_str in parameters
            key = argument.type_str if known else argument.name
            strings.setdefault(key, []).append((is_output, index))
    return list(strings.items())
