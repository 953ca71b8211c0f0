"""The time of every node: recorded by the runtime, summed for tables, written as a Chrome trace.

The trace has onnxruntime's form: events of category Node named `<node>_kernel_time`, of category
Session for calls and for loading; times in microseconds since the profile began.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, NamedTuple

from ortolan import _native
from ortolan.runtime.environment import PROVIDER
from ortolan.runtime.execution import Call

__all__ = ["NodeTime", "Profiler"]

_CAPACITY = 1 << 16
_MOST_EVENTS = 1_000_000


class NodeTime(NamedTuple):
    """A node that ran.

    Attributes:
        name: of the node; empty if the model gives none.
        operator: with its domain in front if that is not the standard's.
        begin, nanoseconds: when, by a steady clock, and how long.
    """

    name: str
    operator: str
    begin: int
    nanoseconds: int


class Profiler:
    """Collects what the calls of a session took.

    Args:
        model: handle of the model.
        prefix: of the file's name.
    """

    def __init__(self, model: int, prefix: str) -> None:
        self._model = model
        self._prefix = prefix
        self.start_ns = time.monotonic_ns()
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._nodes: dict[tuple[int, int], tuple[str, str]] = {}

    def session_event(self, name: str, begin: int, end: int) -> None:
        """Notes a stretch of time, by `time.monotonic_ns`."""
        self._add("Session", name, begin, end - begin, {})

    def call(self, begin: int, end: int, steps: list[NodeTime]) -> None:
        """Notes a call and its nodes."""
        for node in steps:
            arguments = {
                "op_name": node.operator, "provider": PROVIDER, "node_name": node.name,
            }  # fmt: skip
            label = node.name or node.operator
            self._add("Node", f"{label}_kernel_time", node.begin, node.nanoseconds, arguments)
        self.session_event("model_run", begin, end)

    def _add(
        self, category: str, name: str, begin: int, nanoseconds: int, arguments: dict[str, str]
    ) -> None:
        event = {
            "cat": category, "pid": os.getpid(), "tid": threading.get_native_id(), "ph": "X",
            "name": name, "ts": (begin - self.start_ns) // 1000, "dur": nanoseconds / 1000,
            "args": arguments,
        }  # fmt: skip
        with self._lock:
            if len(self._events) < _MOST_EVENTS:
                self._events.append(event)

    def record(self, call: Call) -> Recorder:
        """Has the next executions of a call note their nodes."""
        return Recorder(self._model, call, self._nodes)

    def write(self, path: str = "") -> str:
        """Writes the trace; returns the name of the file, by default of the prefix and the time."""
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        path = path or f"{self._prefix}_{stamp}.json"
        with self._lock, open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - a slow import
            json.dump(self._events, file, indent=0)
        return path


class Recorder:
    """Room for the steps of one execution."""

    def __init__(
        self, model: int, call: Call, nodes: dict[tuple[int, int], tuple[str, str]]
    ) -> None:
        self._model = model
        self._call = call
        self._nodes = nodes
        self._steps = (_native.Step * _CAPACITY)()
        # The call writes there until it is told not to, which an interrupt may prevent.
        call.borrowed = self._steps
        _native.library().ortolan_run_profile(call.handle, self._steps, _CAPACITY)

    def steps(self) -> list[NodeTime]:
        """What ran since it was made, the first 65,536 nodes; ends the recording."""
        library = _native.library()
        count = self._call.number(b"steps")
        library.ortolan_run_profile(self._call.handle, None, 0)
        self._call.borrowed = None
        found = []
        for step in self._steps[: min(count, _CAPACITY)]:
            name, operator = self._node(step.graph, step.node)
            found.append(NodeTime(name, operator, step.begin, step.end - step.begin))
        return found

    def _node(self, graph: int, node: int) -> tuple[str, str]:
        known = self._nodes.get((graph, node))
        if known is None:
            told = [
                _native.library().ortolan_model_node(self._model, graph, node, key)
                for key in (b"name", b"domain", b"type")
            ]
            texts = [(text or b"").decode("utf-8", "replace") for text in told]
            domain = "" if texts[1] in ("", "ai.onnx") else f"{texts[1]}:"
            known = self._nodes[graph, node] = (texts[0], domain + texts[2])
        return known
