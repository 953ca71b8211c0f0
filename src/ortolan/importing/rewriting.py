"""What rewrites of a node at import need: new nodes and constants in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Editor"]


class Editor:
    """Changes one node and adds others in front of it, in the same graph.

    Attributes:
        node: the node; its version and attributes may be changed directly.
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        self.graph = graph

    def drop(self, *names: str) -> None:
        """Takes attributes away, where they are there."""
        for name in names:
            self.node.attributes.pop(name, None)

    def default(self, attribute: ir.Attr) -> None:
        """Adds an attribute, unless the node has it."""
        if attribute.name not in self.node.attributes:
            self.node.attributes.add(attribute)

    def add(
        self,
        name: str,
        version: int,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:
        """A new node of the standard with one output, in front of the node; returns the output."""
        return self.add_all(name, version, inputs, attributes, 1)[0]

    def add_all(
        self,
        name: str,
        version: int,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr],
        outputs: int,
        domain: str = "",
    ) -> Sequence[ir.Value]:
        """The same with any number of outputs."""
        fresh = ir.Node(domain, name, inputs, attributes, num_outputs=outputs, version=version)
        fresh.name = self.node.name
        self.graph.insert_before(self.node, fresh)
        for value in fresh.outputs:
            value.name = self._free_name()
        return fresh.outputs

    def same(self, name: str, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
        """A node of another operator of the same domain, version, attributes and outputs."""
        attributes = list(self.node.attributes.values())
        outputs = len(self.node.outputs)
        return self.add_all(
            name, self.node.version or 1, inputs, attributes, outputs, self.node.domain
        )

    def constant(self, array: npt.NDArray[Any]) -> ir.Value:
        """A new constant of the graph."""
        name = self._free_name()
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=name),
        )
        self.graph.register_initializer(value)
        return value

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """A constant int64 vector."""
        return self.constant(np.array(numbers, np.int64))

    def integer(self, number: int) -> ir.Value:
        """A constant int64 scalar."""
        return self.constant(np.array(number, np.int64))

    def replace_input(self, index: int, value: ir.Value) -> None:
        """Gives the node another operand; inputs that it lacks are made."""
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)

    def finish(self, results: Sequence[ir.Value]) -> None:
        """Takes the node out of the graph; new values take the places of its results."""
        for old, value in zip(self.node.outputs, results, strict=True):
            value.type = old.type
            value.shape = old.shape
            name = old.name
            old.replace_all_uses_with(value, replace_graph_outputs=True)
            old.name = None
            value.name = name
        self.graph.remove(self.node, safe=True)

    def _free_name(self) -> str:
        """Free among the constants of the graph; the rest is settled when all is done."""
        output = next((value.name for value in self.node.outputs if value.name), "value")
        k = len(self.graph.initializers)
        while f"{output}_part{k}" in self.graph.initializers:
            k += 1
        return f"{output}_part{k}"
