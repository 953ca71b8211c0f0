"""Puts the nodes of a graph in an order in which they can run."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, MutableSequence

from onnx import GraphProto, NodeProto

from ortolan.errors import InvalidGraph

__all__ = ["sort_nodes"]


def sort_nodes(nodes: MutableSequence[NodeProto], where: str) -> None:
    """Sorts nodes in place so that each comes after those whose outputs it needs.

    What a node's subgraphs capture counts as its inputs. Nodes that are in order already stay
    as they are; otherwise, of the nodes that can run, the one that was first comes first.

    Args:
        nodes: the nodes of a graph or function, as the repeated field of the message.
        where: the graph, for the message.

    Raises:
        InvalidGraph: nodes need each other in a circle.
    """
    producers = {name: k for k, node in enumerate(nodes) for name in node.output if name}
    needs = [{producers[name] for name in _uses(node) if name in producers} for node in nodes]
    if all(source < k for k, sources in enumerate(needs) for source in sources):
        return
    order = _order(needs)
    if len(order) != len(needs):
        stuck = min(set(range(len(needs))) - set(order))
        name = nodes[stuck].name or next(iter(nodes[stuck].output), "")
        raise InvalidGraph(
            f'{where}: [{nodes[stuck].op_type}] node "{name}" needs its own output in a circle'
        )
    ordered = [nodes[k] for k in order]
    del nodes[:]
    nodes.extend(ordered)


def _order(needs: list[set[int]]) -> list[int]:
    """Returns the indices in order; those in or behind a circle are missing."""
    users: list[list[int]] = [[] for _ in needs]
    for k, sources in enumerate(needs):
        for source in sources:
            users[source].append(k)
    missing = [len(sources) for sources in needs]
    ready = [k for k, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for user in users[k]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    return order


def _uses(node: NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from _captures(attribute.g)
        for graph in attribute.graphs:
            yield from _captures(graph)


def _captures(graph: GraphProto) -> set[str]:
    """Returns the outer names that a graph uses."""
    used = {info.name for info in graph.output}
    own = {info.name for info in graph.input}
    own.update(tensor.name for tensor in graph.initializer)
    for node in graph.node:
        own.update(node.output)
        used.update(_uses(node))
    return used - own
