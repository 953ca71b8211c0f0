"""Finds parts of a graph that look like a pattern, which is written as ONNX text writes nodes.

    shifted = Add(x, 3.0)
    bounded = Clip(shifted, _, ...)
    y = Mul|Div(x, bounded)

1. Each line is a node; the last one is the root, where a search begins and goes to the inputs.
2. `a|b` are operators to choose from, `com.microsoft:Gelu` one of another domain, and `Cast?(x)`
   a node that may be missing, in which case its result is its first input.
3. Names of other lines must be what they compute; other names are any value, always the same
   one. A number is a constant with one element of about that value, and surely not of more
   dimensions than the input beside it; `_` is any value or none, and `...` at the end any
   further inputs; inputs that are not named must be missing.
4. The inputs of operators that commute come in any order.
5. A result inside the pattern has no user outside of it, unless its name ends with "!".
6. A result of a name with ".1" at its end is the node's second output, and so on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, scalar

__all__ = ["Match", "Pattern"]

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal", "Sum"})
_LINE = re.compile(r"([\w, !]+?)\s*=\s*([\w.:|]+)(\??)\s*\((.*)\)")


@dataclass(frozen=True)
class _Step:
    """One node of a pattern."""

    name: str
    operators: frozenset[str]
    arguments: tuple[str, ...]
    optional: bool
    shared: bool

    def takes(self, node: ir.Node) -> bool:
        name = node.op_type if node.domain == "" else f"{node.domain}:{node.op_type}"
        return name in self.operators

    def orders(self, node: ir.Node) -> Iterator[tuple[ir.Value | None, ...]]:
        """The ways to see a node's inputs, extended by what is left out."""
        inputs = tuple(node.inputs)
        count = len([a for a in self.arguments if a != "..."])
        more = any(value is not None for value in inputs[count:])
        if more and "..." not in self.arguments:
            return
        inputs = (*inputs, *[None] * (count - len(inputs)))[:count]
        yield inputs
        if node.op_type in _COMMUTATIVE and count == 2 and inputs[0] is not inputs[1]:
            yield inputs[::-1]


@dataclass(frozen=True)
class Match:
    """A part of a graph that looks like a pattern."""

    values: dict[str, ir.Value | None]
    nodes: dict[str, ir.Node]

    def __getitem__(self, name: str) -> ir.Value:
        """The value of a name, which is not left out."""
        value = self.values[name]
        assert value is not None, name
        return value


@dataclass(frozen=True)
class _State:
    """What is bound so far, and what has still to be compared."""

    values: dict[str, ir.Value | None]
    nodes: dict[str, ir.Node]
    pending: tuple[tuple[str, ir.Value | None], ...] = ()


@dataclass
class Pattern:
    """A pattern; see the module for how it is written."""

    text: str
    _steps: dict[str, _Step] = field(default_factory=dict)
    _root: str = ""

    def __post_init__(self) -> None:
        for line in filter(None, map(str.strip, self.text.splitlines())):
            found = _LINE.fullmatch(line)
            if found is None:
                raise ValueError(f"not a line of a pattern: {line}")
            name, operators, optional, arguments = found.groups()
            items = tuple(filter(None, (item.strip() for item in arguments.split(","))))
            bare = name.strip().rstrip("!")
            self._steps[bare] = _Step(
                bare, frozenset(operators.split("|")), items, optional == "?", "!" in name
            )
            self._root = bare

    @property
    def operators(self) -> frozenset[str]:
        """What the root may be."""
        return self._steps[self._root].operators

    def match(self, root: ir.Node) -> Match | None:
        """Compares a node and what is before it with the pattern.

        Args:
            root: the node that would be the last one.
        """
        step = self._steps[self._root]
        if not step.takes(root):
            return None
        for state in self._node(step, root, _State({}, {})):
            if self._is_closed(state, root):
                return Match(state.values, state.nodes)
        return None

    def _node(self, step: _Step, node: ir.Node, state: _State) -> Iterator[_State]:
        """Ways to go on when a step is a node."""
        nodes = {**state.nodes, step.name: node}
        values = {**state.values, step.name: node.outputs[0]}
        names = [argument for argument in step.arguments if argument != "..."]
        for inputs in step.orders(node):
            pending = (*zip(names, inputs, strict=True), *state.pending)
            yield from self._go_on(_State(values, nodes, pending))

    def _go_on(self, state: _State) -> Iterator[_State]:
        if not state.pending:
            yield state
            return
        (name, value), *rest = state.pending
        after = _State(state.values, state.nodes, tuple(rest))
        if name == "_" or _is_number(name):
            if name == "_" or _equals(value, float(name)):
                yield from self._go_on(after)
            return
        if name in state.values:
            if state.values[name] is value:
                yield from self._go_on(after)
            return
        base, _, index = name.partition(".")
        step = self._steps.get(base)
        if step is None:
            if value is not None:
                yield from self._go_on(
                    _State({**state.values, name: value}, state.nodes, after.pending)
                )
            return
        yield from self._step(step, name, int(index or 0), value, after)

    def _step(
        self, step: _Step, name: str, index: int, value: ir.Value | None, state: _State
    ) -> Iterator[_State]:
        """Ways to go on when a value must be an output of a step."""
        if value is None:
            return
        node = value.producer()
        known = state.nodes.get(step.name)
        if node is not None and step.takes(node) and value.index() == index:
            values = {**state.values, name: value}
            if known is node:
                yield from self._go_on(_State(values, state.nodes, state.pending))
            elif known is None:
                yield from self._node(step, node, _State(values, state.nodes, state.pending))
        elif step.optional:
            pending = ((step.arguments[0], value), *state.pending)
            yield from self._go_on(_State({**state.values, name: value}, state.nodes, pending))

    def _is_closed(self, state: _State, root: ir.Node) -> bool:
        """Whether all of it is in one graph, and nothing inside is used outside."""
        inside = list(state.nodes.values())
        for name, node in state.nodes.items():
            if node.graph is not root.graph or self._widens(name, node):
                return False
            if node is root or self._steps[name].shared:
                continue
            for value in node.outputs:
                if value.is_graph_output():
                    return False
                if not all(any(use.node is n for n in inside) for use in value.uses()):
                    return False
        return True

    def _widens(self, name: str, node: ir.Node) -> bool:
        """Whether a number may give a result more dimensions than the input beside it has."""
        if not any(_is_number(argument) for argument in self._steps[name].arguments):
            return False
        arrays = [constant(value) for value in node.inputs]
        ranks = [len(known_shape(value) or ()) for value in node.inputs]
        return any(
            array is not None and array.size == 1 and array.ndim > min(ranks) for array in arrays
        )


def _is_number(text: str) -> bool:
    return text[0].isdigit() or text[0] == "-"


def _equals(value: ir.Value | None, number: float) -> bool:
    found = scalar(value)
    return found is not None and math.isclose(found, number, rel_tol=2e-6, abs_tol=1e-9)
