"""What rewrites do to a graph: new nodes and constants, and putting them in the place of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ortolan.importing.element_types import infer_node_types
from ortolan.importing.naming import graph_values, subgraphs
from ortolan.importing.shapes import copy_shape
from ortolan.importing.versions import since_version
from ortolan.passes.dimensions import Dimensions
from ortolan.passes.shape_rules import improve_shapes
from ortolan.passes.target import Target, takes

__all__ = ["MICROSOFT", "OWN", "Rewriter", "nodes_of", "rewrite"]

_LARGEST = float(np.finfo(np.float32).max)

MICROSOFT = "com.microsoft"
OWN = "ai.ortolan"

Inputs = Sequence[ir.Value | None]
Attributes = Mapping[str, Any]


@dataclass
class Rewriter:
    """Changes one model for one target; a pass makes one for each run."""

    model: ir.Model
    target: Target
    _names: set[str] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=dict)
    _made: set[ir.Value] = field(default_factory=set)

    def version(self, domain: str, name: str) -> int | None:
        """The since_version that an operator has by the model's imports; None if it has none.

        A domain of the standard that the model does not import may not be used: another version
        of it might come with another part of the model. com.microsoft may always be.
        """
        if domain == MICROSOFT:
            return 1
        opset = self.model.opset_imports.get(domain)
        return None if opset is None else since_version(domain, name, opset)

    def node(
        self,
        name: str,
        inputs: Inputs,
        attributes: Attributes | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
        version: int | None = None,
    ) -> ir.Node:
        """A new node, in no graph yet, whose outputs have types and names.

        Args:
            name: the operator.
            inputs: values; what comes last and is None is left out.
            attributes: by name; those that are None are left out.
            domain: "" is ai.onnx.
            outputs: how many.
            version: a since_version, by default that of the model's imports.
        """
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        items = {key: value for key, value in (attributes or {}).items() if value is not None}
        node = ir.Node(
            domain, name, given, ir.convenience.convert_attributes(items), num_outputs=outputs,
            version=version or self.version(domain, name) or 1,
        )  # fmt: skip
        for value in node.outputs:
            value.name = self.fresh(name.lower())
        infer_node_types(node)
        for value in node.outputs:
            if value.type is None and given and given[0] is not None and given[0].dtype:
                # Only the target knows the operator.
                value.type = ir.TensorType(given[0].dtype)
        return node

    def constant(
        self, graph: ir.Graph, array: npt.NDArray[Any], name: str, dtype: ir.DataType | None = None
    ) -> ir.Value:
        """A new constant of a graph.

        Args:
            graph: the graph that gets it.
            array: its elements.
            name: what its name begins with.
            dtype: its type where numpy has none of its own.
        """
        data = np.ascontiguousarray(array).reshape(array.shape)
        tensor = ir.Tensor(data, dtype=dtype, name=self.fresh(name))
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape),
            const_value=tensor,
        )  # fmt: skip
        graph.initializers.add(value)
        self._made.add(value)
        return value

    def fresh(self, base: str) -> str:
        """A name that no value of the model has."""
        if not self._names:
            for graph in (self.model.graph, *self.model.graph.subgraphs()):
                self._names.update(value.name or "" for value in graph_values(graph))
        name = base
        while name in self._names:
            # Those before are taken: a pass may ask for thousands of one name.
            number = self._numbers[base] = self._numbers.get(base, 1) + 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def replace(
        self,
        old: ir.Node,
        nodes: Sequence[ir.Node],
        *,
        outputs: Sequence[ir.Value | None] | None = None,
    ) -> bool:
        """Puts nodes in the place of a node; what only it needed goes too.

        Args:
            old: the node whose outputs are computed anew.
            nodes: new nodes in order, in no graph yet.
            outputs: what stands for the outputs of `old`, by default those of the last node;
                None where an output is not used.

        Returns:
            Whether it was done: not if the target has no kernel for one of the nodes, or an
            attribute is a number that a file does not hold.
        """
        graph = old.graph
        can_be = all(takes(self.target, node) and _has_floats(node) for node in nodes)
        if not isinstance(graph, ir.Graph) or not can_be:
            self._discard(nodes)
            return False
        dimensions = Dimensions()
        for node in nodes:
            self._import(node.domain)
            # It may tell more than what it stands for: attention has the batch of its query.
            improve_shapes(dimensions, node)
        graph.insert_before(old, nodes)
        for value, new in zip(old.outputs, outputs or nodes[-1].outputs, strict=False):
            if new is not None:
                _take_place(value, new)
        remove_dead(old)
        return True

    def bypass(self, node: ir.Node, value: ir.Value) -> bool:
        """Gives the users of a node's only output another value, which is equal to it.

        Returns:
            Whether it was done: not if the output is one of the graph and cannot be another
            value, because that is an input, a constant, from outside, or an output itself.
        """
        output = node.outputs[0]
        if output.is_graph_output() and not _can_be_output(value, node.graph):
            return False
        _take_place(output, value)
        remove_dead(node)
        return True

    def _discard(self, nodes: Sequence[ir.Node]) -> None:
        """Ends what new nodes use, so that nothing counts them as users any more."""
        for node in nodes:
            for k, value in enumerate(node.inputs):
                node.replace_input_with(k, None)
                if value is not None and value in self._made and not value.uses():
                    assert value.graph is not None
                    value.graph.initializers.pop(value.name or "", None)

    def _import(self, domain: str) -> None:
        if domain in (MICROSOFT, OWN):
            self.model.opset_imports.setdefault(domain, 1)


def rewrite(
    model: ir.Model,
    target: Target,
    operators: Iterable[str],
    change: Callable[[Rewriter, ir.Node], bool],
) -> bool:
    """Tries a change on all nodes of some operators, in order, those of subgraphs included.

    Args:
        model: changed in place.
        target: who runs it.
        operators: names, with "com.microsoft:" before those of that domain.
        change: gets a node that is in a graph; returns whether it changed something.

    Returns:
        Whether anything was changed.
    """
    rewriter = Rewriter(model, target)
    modified = False
    for node in list(nodes_of(model, frozenset(operators))):
        if node.graph is not None:
            modified |= change(rewriter, node)
    return modified


def nodes_of(model: ir.Model, operators: frozenset[str]) -> Iterator[ir.Node]:
    """Yields the nodes of some operators, in order; subgraphs come after the node they are of."""
    yield from _nodes_of(model.graph, operators)


def _nodes_of(graph: ir.Graph, operators: frozenset[str]) -> Iterator[ir.Node]:
    for node in graph:
        name = node.op_type if node.domain == "" else f"{node.domain}:{node.op_type}"
        if name in operators:
            yield node
        for subgraph in subgraphs(node):
            yield from _nodes_of(subgraph, operators)


def remove_dead(node: ir.Node) -> None:
    """Removes a node that nothing uses, then those before it that only it used."""
    pending = [node]
    while pending:
        item = pending.pop()
        graph = item.graph
        if not isinstance(graph, ir.Graph) or any(
            value.uses() or value.is_graph_output() for value in item.outputs
        ):
            continue
        if next(subgraphs(item), None) is not None:
            continue
        sources = [v.producer() for v in reversed(item.inputs) if v is not None]
        graph.remove(item, safe=True)
        pending.extend(source for source in sources if source is not None)


def _has_floats(node: ir.Node) -> bool:
    """Whether the numbers among a node's attributes are no larger than floats can be."""
    return not any(
        attribute.type == ir.AttributeType.FLOAT and _LARGEST < abs(attribute.as_float()) < math.inf
        for attribute in node.attributes.values()
    )


def _can_be_output(value: ir.Value, graph: ir.Graph | ir.Function | None) -> bool:
    producer = value.producer()
    return producer is not None and producer.graph is graph and not value.is_graph_output()


def _take_place(old: ir.Value, new: ir.Value) -> None:
    """Gives the users of a value another one, with its name where the graph returns it."""
    if new.producer() is not None:
        copy_shape(old, new)
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}_old"
    new.name = name
