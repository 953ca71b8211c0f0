"""ORT format files made by hand to blow up their reader: each is refused, at once and by name.

The twins for ONNX files are in ``test_onnx_reader.py``.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest

import hostile_models
import mutate
from ortolan import errors
from ortolan.ortformat import checks, tables, writer
from ortolan.ortformat.schema import TABLES
from ortolan.session import InferenceSession, SessionOptions

SECONDS = 20  # of the processor: far more than a reader needs that is linear in the file


class Raw:
    """A FlatBuffer written from its root on: parents first, so that tables can be shared."""

    def __init__(self) -> None:
        self.bytes = bytearray(b"\0\0\0\0ORTM")

    def align(self, size: int) -> None:
        """Fills up to a multiple of `size`."""
        self.bytes += bytes(-len(self.bytes) % size)

    def table(self, name: str, *fields: str, **numbers: int) -> tuple[int, dict[str, int]]:
        """A table with offsets to be set and numbers of one byte; its place and theirs."""
        slots = {field.name: slot for slot, field in enumerate(TABLES[name].fields)}
        entries = [0] * len(slots)
        for k, field in enumerate((*fields, *numbers)):
            entries[slots[field]] = 4 + 4 * k
        self.align(4)
        vtable = len(self.bytes)
        size = 4 + 4 * (len(fields) + len(numbers))
        self.bytes += struct.pack(f"<HH{len(entries)}H", 4 + 2 * len(entries), size, *entries)
        self.align(4)
        at = len(self.bytes)
        self.bytes += struct.pack("<i", at - vtable) + bytes(4 * len(fields))
        self.bytes += struct.pack(f"<{len(numbers)}I", *numbers.values())
        return at, {field: at + 4 + 4 * k for k, field in enumerate(fields)}

    def text(self, *places: int, value: bytes = b"") -> None:
        """A string behind offsets."""
        self.align(4)
        self.link(len(self.bytes), *places)
        self.bytes += struct.pack("<I", len(value)) + value + b"\0"

    def vector(self, place: int, count: int) -> range:
        """A vector of offsets behind one; the places of its entries."""
        self.align(4)
        self.link(len(self.bytes), place)
        begin = len(self.bytes) + 4
        self.bytes += struct.pack("<I", count) + bytes(4 * count)
        return range(begin, begin + 4 * count, 4)

    def link(self, target: int, *places: int) -> None:
        """Makes offsets lead to a place."""
        for place in places:
            struct.pack_into("<I", self.bytes, place, target - place)

    def model(self) -> dict[str, int]:
        """The tables down to the main graph; the places of the graph's fields."""
        session, of_session = self.table("InferenceSession", "ort_version", "model")
        self.link(session, 0)
        self.text(of_session["ort_version"], value=b"6")
        model, of_model = self.table("Model", "graph")
        self.link(model, of_session["model"])
        graph, of_graph = self.table("Graph", "nodes")
        self.link(graph, of_model["graph"])
        return of_graph

    def body(self, places: list[int], count: int) -> list[int]:
        """Nodes behind offsets are one node with a body of `count` nodes: the places of those."""
        node, of_node = self.table("Node", "op_type", "attributes")
        self.link(node, *places)
        entry = self.vector(of_node["attributes"], 1)
        attribute, of_attribute = self.table("Attribute", "name", "g", type=5)
        self.link(attribute, *entry)
        self.text(of_node["op_type"], of_attribute["name"], value=b"body")
        graph, of_graph = self.table("Graph", "nodes")
        self.link(graph, of_attribute["g"])
        return list(self.vector(of_graph["nodes"], count))


def shared_a_million_times() -> bytes:
    """A graph of a million nodes that are one table."""
    raw = Raw()
    entries = raw.vector(raw.model()["nodes"], 1_000_000)
    node, of_node = raw.table("Node", "op_type")
    raw.link(node, *entries)
    raw.text(of_node["op_type"], value=b"Relu")
    return bytes(raw.bytes)


def shared_graphs() -> bytes:
    """Each of 20 graphs holds the next one twice, and the budget of a long file is spent on it."""
    raw = Raw()
    places = list(raw.vector(raw.model()["nodes"], 2))
    for _ in range(20):
        places = raw.body(places, 2)
    node, of_node = raw.table("Node", "op_type")
    raw.link(node, *places)
    raw.text(of_node["op_type"], value=b"Relu")
    return bytes(raw.bytes)


def nested_attributes() -> bytes:
    """100,000 graphs, each an attribute of a node of the one before."""
    raw = Raw()
    places = list(raw.vector(raw.model()["nodes"], 1))
    for _ in range(100_000):
        places = raw.body(places, 1)
    return bytes(raw.bytes)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (shared_a_million_times, errors.OrtolanError, r"Relu|nodes|tables"),
        (shared_graphs, errors.InvalidFormat, "more tables than it has room for at byte"),
        (nested_attributes, errors.LimitExceeded, "nested deeper than 64 tables at byte"),
    ],
)
def test_structures_that_blow_up(
    make: Callable[[], bytes], error: type[errors.OrtolanError], text: str
) -> None:
    content = make()
    begin = time.process_time()
    with pytest.raises(error, match=text):
        InferenceSession(content)
    assert time.process_time() - begin < SECONDS


def test_a_million_nodes_are_counted() -> None:
    options = SessionOptions()
    options.add_session_config_entry("ortolan.max_nodes", "999999")
    with pytest.raises(errors.LimitExceeded, match=r"more than 999999 nodes.*max_nodes"):
        InferenceSession(shared_a_million_times(), options)


def test_an_offset_that_leads_back_to_its_table_is_refused() -> None:
    raw = Raw()
    graph = raw.model()
    [entry] = raw.vector(graph["nodes"], 1)
    struct.pack_into("<I", raw.bytes, entry, (8 - entry) % (1 << 32))
    with pytest.raises(errors.InvalidFormat, match="outside"):
        InferenceSession(bytes(raw.bytes))


Session = tables.InferenceSession


def _rename(session: Session, node: int, name: str) -> None:
    session.model.graph.nodes[node].outputs[0] = name


def _two_producers(session: Session) -> None:
    _rename(session, 1, session.model.graph.nodes[0].outputs[0])


def _no_producer(session: Session) -> None:
    session.model.graph.outputs.append("nobody")


def _cycle(session: Session) -> None:
    first, second = session.model.graph.nodes[:2]
    first.inputs[0] = second.outputs[0]


def _itself(session: Session) -> None:
    node = session.model.graph.nodes[0]
    node.inputs[0] = node.outputs[0]


def _dims(*dims: int) -> Callable[[Session], None]:
    def change(session: Session) -> None:
        session.model.graph.initializers[0].dims = list(dims)

    return change


def _empty(session: Session) -> None:
    tensor = session.model.graph.initializers[0]
    tensor.dims = [4, 0, 3, 3]
    tensor.raw_data = b""


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_two_producers, r'output "\w+" is defined|defined (twice|a second time)'),
        (_no_producer, r'"nobody" is used but never defined'),
        (_cycle, "cycle"),
        (_itself, "cycle"),
        (_dims(1 << 32, 1 << 32), "negative or too large"),
        (_dims(1 << 62, 4), "negative or too large"),
        (_dims(-4, 1, 3, 3), "negative or too large"),
        (_dims(-4, -1, 3, 3), "negative or too large"),
        (_dims(4, 1, 3, 0), "bytes"),
        (_dims(4, 1, 3, 1 << 40), "bytes"),
        (_dims(*[1] * 9), "dimensions"),
        (_empty, "Conv"),
    ],
)
def test_graphs_that_contradict_themselves(change: Callable[[Session], None], text: str) -> None:
    session = mutate.load(hostile_models.converted("convnet"))
    change(session)
    with mock.patch.dict(checks.CHECKS, clear=True):
        content = writer.write(session)
    with pytest.raises(errors.OrtolanError, match=text):
        InferenceSession(content).run(None, hostile_models.FEEDS["convnet"])


def test_dimensions_of_zero_are_no_error() -> None:
    """What is there is computed: a batch of nothing gives nothing."""
    session = InferenceSession(hostile_models.converted("convnet"))
    feeds = {**hostile_models.FEEDS["convnet"], "image": np.zeros((0, 1, 12, 12), np.float32)}
    scores, best = session.run(None, feeds)
    assert scores.shape == (0, 4)
    assert best.shape == (0,)
