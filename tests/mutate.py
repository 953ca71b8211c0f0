"""Damages ORT format files on purpose: their bytes, knowing the schema, and the graphs in them.

`mutants(data, seed, count)` draws damaged copies of a file. Half are byte damage at places that
mean something (offsets, vtables, lengths, enumerators, numbers, names; weights in 1 of 20). Half
are well-formed files whose graphs are wrong: edges, operators, versions, attributes, types, dims,
bodies and lists are exchanged for hostile ones.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest import mock

from ortolan.catalog import FAMILIES
from ortolan.ortformat import checks, reader, tables, writer
from ortolan.ortformat.schema import (
    ENUMS,
    ROOT_TABLE,
    SCALARS,
    STRUCTS,
    TABLES,
    UNIONS,
    AttributeType,
    DimensionValueType,
    Field,
    Kind,
    TensorDataType,
)

__all__ = ["INTEGERS", "Site", "damage_bytes", "damage_graph", "mutants", "sites"]

INTEGERS = (
    -(2**63), -(2**31) - 1, -65536, -9, -8, -3, -2, -1, 0, 1, 2, 3, 4, 7, 8, 9, 63, 64, 65, 255,
    256, 1000, 65536, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40, 2**61, 2**62, 2**63 - 1,
)  # fmt: skip
"""Integers that code gets wrong."""

_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3e38, float("inf"), float("-inf"), float("nan"))
_WEIGHT_SHARE = 0.05

Session: TypeAlias = tables.InferenceSession
Damage: TypeAlias = Callable[[Session, random.Random], None]


@dataclasses.dataclass(frozen=True)
class Site:
    """A piece of a file that means one thing: where and what it is, to which field it belongs."""

    at: int
    size: int
    kind: str
    place: str


# ---- Byte damage.


def sites(data: bytes) -> list[Site]:
    """Every meaningful piece of a well-formed file, tables that are shared once."""
    return list(_Walker(data).walk())


class _Walker:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.seen: set[tuple[int, str]] = set()

    def word(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 4], "little")

    def walk(self) -> Iterator[Site]:
        yield Site(0, 4, "offset", "root")
        yield Site(4, 4, "text", "identifier")
        yield from self.table(ROOT_TABLE, self.word(0), ROOT_TABLE)

    def table(self, name: str, at: int, place: str) -> Iterator[Site]:
        if (at, name) in self.seen:
            return
        self.seen.add((at, name))
        vtable = at - struct.unpack_from("<i", self.data, at)[0]
        yield Site(at, 4, "vtable", place)
        yield Site(vtable, 2, "vtable_size", place)
        yield Site(vtable + 2, 2, "vtable_size", place)
        size = struct.unpack_from("<H", self.data, vtable)[0]
        tag = 0
        for slot, field in enumerate(TABLES[name].fields):
            entry = vtable + 4 + 2 * slot
            offset = struct.unpack_from("<H", self.data, entry)[0] if entry < vtable + size else 0
            if not offset:
                continue
            where = f"{name}.{field.name}"
            yield Site(entry, 2, "vtable_entry", where)
            if field.kind is Kind.UNION_TAG:
                tag = self.data[at + offset]
            yield from self.field(field, at + offset, where, tag)

    def field(self, field: Field, at: int, where: str, tag: int) -> Iterator[Site]:
        kind = field.kind
        if kind in (Kind.ENUM, Kind.UNION_TAG):
            yield Site(at, SCALARS[ENUMS[field.type].scalar].size, "enum", where)
        elif kind is Kind.SCALAR:
            yield Site(at, SCALARS[field.type].size, "number", where)
        elif kind is not Kind.DEPRECATED:
            yield Site(at, 4, "offset", where)
            yield from self.target(field, at + self.word(at), where, tag)

    def target(self, field: Field, at: int, where: str, tag: int) -> Iterator[Site]:
        if field.kind is Kind.TABLE:
            yield from self.table(field.type, at, where)
        elif field.kind is Kind.UNION:
            yield from self.table(str(UNIONS[field.type][tag]), at, where)
        elif field.kind in (Kind.STRING, Kind.BYTES):
            yield from self.string(at, where)
        else:
            yield from self.vector(field, at, where)

    def string(self, at: int, where: str) -> Iterator[Site]:
        if (at, "string") in self.seen:
            return
        self.seen.add((at, "string"))
        yield Site(at, 4, "length", where)
        yield Site(at + 4, max(self.word(at), 1), "text", where)

    def vector(self, field: Field, at: int, where: str) -> Iterator[Site]:
        if (at, "vector") in self.seen:
            return
        self.seen.add((at, "vector"))
        count = self.word(at)
        yield Site(at, 4, "length", where)
        if field.kind is Kind.BLOB:
            yield Site(at + 4, max(count, 1), "weight", where)
        elif field.kind is Kind.SCALARS:
            width = SCALARS[field.type].size
            for i in range(count):
                yield Site(at + 4 + width * i, width, "number", where)
        elif field.kind is Kind.STRUCTS:
            for i in range(0, count * STRUCTS[field.type].size, 4):
                yield Site(at + 4 + i, 4, "number", where)
        else:
            for entry in range(at + 4, at + 4 + 4 * count, 4):
                yield Site(entry, 4, "offset", where)
                target = entry + self.word(entry)
                if field.kind is Kind.TABLES:
                    yield from self.table(field.type, target, where)
                else:
                    yield from self.string(target, where)


def _number_bytes(size: int, draw: random.Random) -> bytes:
    if size == 4 and draw.random() < 0.2:
        return struct.pack("<f", draw.choice(_FLOATS))
    return (draw.choice(INTEGERS) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def damage_bytes(data: bytes, places: list[Site], draw: random.Random) -> bytes:
    """A copy with one to three pieces damaged; `places` are `sites(data)`."""
    changed = bytearray(data)
    light = [p for p in places if p.kind != "weight"]
    weights = [p for p in places if p.kind == "weight"]
    by_kind: dict[str, list[Site]] = {}
    for place in light:
        by_kind.setdefault(place.kind, []).append(place)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if weights and draw.random() < _WEIGHT_SHARE:
            site = draw.choice(weights)
        else:  # every kind is as likely, though most pieces are offsets
            site = draw.choice(by_kind[draw.choice(sorted(by_kind))])
        changed[site.at : site.at + site.size] = _damaged(site, data, by_kind, draw)
    return bytes(changed)


def _damaged(site: Site, data: bytes, by_kind: dict[str, list[Site]], draw: random.Random) -> bytes:
    old = data[site.at : site.at + site.size]
    number = int.from_bytes(old, "little")
    top = 1 << 8 * site.size
    alike = [s for s in by_kind.get(site.kind, ()) if s.size == site.size]
    choice = draw.random()
    if site.kind == "offset" and choice < 0.6:  # what another offset of this kind refers to
        same = [s for s in alike if s.place == site.place] if draw.random() < 0.7 else alike
        other = draw.choice(same or alike)
        target = other.at + int.from_bytes(data[other.at : other.at + 4], "little")
        return ((target - site.at) % top).to_bytes(4, "little")
    if site.kind == "enum" and choice < 0.8:
        return draw.randrange(30).to_bytes(site.size, "little")
    if site.kind in ("text", "weight"):
        changed = bytearray(old)
        for _ in range(draw.choice((1, 1, 2, 8))):
            if changed:
                changed[draw.randrange(len(changed))] = draw.randrange(256)
        if choice < 0.3 and alike:
            other = draw.choice(alike)
            return data[other.at : other.at + site.size]
        return bytes(changed)
    if choice < 0.75:
        near = number + draw.choice((-8, -4, -2, -1, 1, 2, 4, 8))
        return (near % top).to_bytes(site.size, "little")
    if choice < 0.85:
        return (number ^ 1 << draw.randrange(8 * site.size)).to_bytes(site.size, "little")
    return _number_bytes(site.size, draw)


# ---- Graph damage: the files are well-formed, what they say is not.


def _graphs(graph: tables.Graph) -> Iterator[tables.Graph]:
    yield graph
    for node in graph.nodes:
        for body in node.subgraphs():
            yield from _graphs(body)


def _any_graph(session: Session, draw: random.Random) -> tables.Graph:
    return draw.choice(list(_graphs(session.model.graph)))


def _any_node(session: Session, draw: random.Random) -> tables.Node:
    nodes = [n for g in _graphs(session.model.graph) for n in g.nodes]
    return draw.choice(nodes) if nodes else tables.Node()


def _any_name(session: Session, draw: random.Random, local: tables.Graph | None = None) -> str:
    graphs = [local] if local and draw.random() < 0.7 else list(_graphs(session.model.graph))
    names = [""] if draw.random() < 0.1 else []
    for graph in graphs:
        names += [*graph.inputs, *(t.name for t in graph.initializers)]
        names += [name for node in graph.nodes for name in node.outputs]
    return draw.choice(names or ["absent"])


def _any_attribute(session: Session, draw: random.Random) -> tables.Attribute:
    nodes = [n for g in _graphs(session.model.graph) for n in g.nodes if n.attributes]
    return draw.choice(draw.choice(nodes).attributes) if nodes else tables.Attribute("absent")


def _any_tensor(session: Session, draw: random.Random) -> tables.Tensor:
    found = [t for g in _graphs(session.model.graph) for t in g.initializers]
    return draw.choice(found) if found else tables.Tensor()


def _change_list(items: list[Any], fresh: Any, draw: random.Random) -> None:
    """Replaces, adds, takes away, repeats or exchanges an item."""
    what = draw.randrange(5)
    at = draw.randrange(len(items) + 1)
    if what == 0 or not items:
        items.insert(at, fresh)
    elif what == 1:
        items[at % len(items)] = fresh
    elif what == 2:
        del items[at % len(items)]
    elif what == 3:
        items.insert(at, items[draw.randrange(len(items))])
    else:
        other = draw.randrange(len(items))
        items[at % len(items)], items[other] = items[other], items[at % len(items)]


def _inputs(session: Session, draw: random.Random) -> None:
    graph = _any_graph(session, draw)
    if graph.nodes:
        _change_list(draw.choice(graph.nodes).inputs, _any_name(session, draw, graph), draw)


def _outputs(session: Session, draw: random.Random) -> None:
    node = _any_node(session, draw)
    fresh = draw.choice(("", f"fresh{draw.randrange(1000)}", _any_name(session, draw)))
    _change_list(node.outputs, fresh, draw)


def _io(session: Session, draw: random.Random) -> None:
    graph = _any_graph(session, draw)
    _change_list(draw.choice((graph.inputs, graph.outputs)), _any_name(session, draw, graph), draw)


def _nodes(session: Session, draw: random.Random) -> None:
    graph = _any_graph(session, draw)
    fresh = copy.deepcopy(_any_node(session, draw))
    fresh.outputs = [name and f"{name}{draw.randrange(1000)}" for name in fresh.outputs]
    _change_list(graph.nodes, fresh, draw)


def _operator(session: Session, draw: random.Random) -> None:
    node = _any_node(session, draw)
    operator = draw.choice([o for family in FAMILIES for o in family.operators])
    node.op_type, node.domain = operator.name, operator.domain
    node.since_version = operator.since
    for spec in operator.attributes:
        if spec.kind != "graph" and draw.random() < 0.5:
            node.attributes.append(_fresh_attribute(spec.name, spec.kind, draw))
    if draw.random() < 0.7:
        graph = _any_graph(session, draw)
        while len(node.inputs) < operator.min_inputs:
            node.inputs.append(_any_name(session, draw, graph))
        del node.inputs[max(len(operator.inputs), 1) :]


def _fresh_attribute(name: str, kind: str, draw: random.Random) -> tables.Attribute:
    made = tables.Attribute(name, type=AttributeType[kind.upper()])
    made.i, made.f = draw.choice(INTEGERS), draw.choice(_FLOATS)
    made.s = draw.choice((b"", b"SAME_UPPER", b"VALID", b"reflect", b"linear", b"\xff\xfe"))
    made.ints = [draw.choice(INTEGERS) for _ in range(draw.randrange(5))]
    made.floats = [draw.choice(_FLOATS) for _ in range(draw.randrange(5))]
    made.strings = [made.s] * draw.randrange(3)
    made.t = tables.Tensor("", dims=[1], data_type=TensorDataType.INT64, raw_data=b"\1" + bytes(7))
    if made.type is AttributeType.GRAPH:
        made.g = tables.Graph()
    return made


def _version(session: Session, draw: random.Random) -> None:
    _any_node(session, draw).since_version = draw.choice((*range(24), -1, 255, 256, 2**31 - 1))


def _attribute_value(session: Session, draw: random.Random) -> None:
    attribute = _any_attribute(session, draw)
    attribute.i, attribute.f = draw.choice(INTEGERS), draw.choice(_FLOATS)
    if attribute.type is AttributeType.INTS:
        _change_list(attribute.ints, draw.choice(INTEGERS), draw)
    elif attribute.type is AttributeType.FLOATS:
        _change_list(attribute.floats, draw.choice(_FLOATS), draw)
    elif attribute.type is AttributeType.STRING:
        attribute.s = draw.choice((b"", b"\0", attribute.s[:-1], attribute.s + b"x"))


def _attribute_kind(session: Session, draw: random.Random) -> None:
    attribute = _any_attribute(session, draw)
    kinds = [k for k in AttributeType if 0 < k < AttributeType.SPARSE_TENSOR]
    fresh = _fresh_attribute(attribute.name, draw.choice(kinds).name, draw)
    attribute.type = fresh.type
    if attribute.g is None:
        attribute.g = fresh.g
    attribute.t = attribute.t or fresh.t


def _attributes(session: Session, draw: random.Random) -> None:
    node = _any_node(session, draw)
    _change_list(node.attributes, copy.deepcopy(_any_attribute(session, draw)), draw)


def _bodies(session: Session, draw: random.Random) -> None:
    """Exchanges two bodies, or gives one to a node that has none."""
    holders = [
        a
        for g in _graphs(session.model.graph)
        for n in g.nodes
        for a in n.attributes
        if a.type is AttributeType.GRAPH
    ]
    if not holders:
        return
    holder = draw.choice(holders)
    if draw.random() < 0.5:
        other = draw.choice(holders)
        holder.g, other.g = copy.deepcopy(other.g), copy.deepcopy(holder.g)
    elif draw.random() < 0.5:
        holder.name = draw.choice(("body", "then_branch", "else_branch", "other"))
    else:
        extra = copy.deepcopy(holder)
        extra.name = draw.choice(("body", "then_branch", "else_branch"))
        _any_node(session, draw).attributes.append(extra)


def _tensor_value(session: Session, draw: random.Random) -> None:
    """Hostile integers in an initializer that decides shapes; other types get other bytes."""
    integers = [
        t
        for g in _graphs(session.model.graph)
        for t in g.initializers
        if t.data_type in (TensorDataType.INT64, TensorDataType.INT32)
    ]
    tensor = draw.choice(integers) if integers else _any_tensor(session, draw)
    data = bytearray(tensor.raw_data)
    width = 4 if tensor.data_type is TensorDataType.INT32 else 8
    if len(data) >= width:
        at = draw.randrange(len(data) // width) * width
        value = draw.choice(INTEGERS) & (1 << 8 * width) - 1
        data[at : at + width] = value.to_bytes(width, "little")
    tensor.raw_data = bytes(data)


def _tensor_shape(session: Session, draw: random.Random) -> None:
    """Other dims with as many bytes as they need, so that the tensor itself is right."""
    tensor = _any_tensor(session, draw)
    for _ in range(draw.choice((1, 2))):
        _change_list(tensor.dims, draw.choice((0, 0, 1, 1, 2, 3, 5, 8, 17)), draw)
    if draw.random() < 0.2:
        tensor.data_type = TensorDataType(draw.randrange(1, 17))
    size = tensor.byte_size()
    if size <= 1 << 20 and draw.random() < 0.9:
        data = bytes(tensor.raw_data) or b"\0"
        tensor.raw_data = (data * (size // len(data) + 1))[:size]


def _declared(session: Session, draw: random.Random) -> None:
    """A value's declared type lies."""
    graph = _any_graph(session, draw)
    if not graph.node_args:
        return
    info = draw.choice(graph.node_args)
    info.type = copy.deepcopy(info.type)
    value = info.type.value if info.type else None
    if info.type is None or not isinstance(value, tables.TensorTypeAndShape):
        return
    what = draw.randrange(6)
    if what == 0:
        value.elem_type = TensorDataType(draw.randrange(21))
    elif what == 1:
        value.shape = None
    elif what == 2:
        info.type = None
    elif what == 3:
        info.type.value = tables.SequenceType(tables.TypeInfo(value=value))
    else:
        value.shape = value.shape or tables.Shape()
        size = draw.choice((None, "N", 0, 1, 2, 3, 9, *INTEGERS))
        fresh = tables.Dimension.of(size)
        if draw.random() < 0.1:
            fresh = tables.Dimension(tables.DimensionValue(DimensionValueType.VALUE, -1))
        _change_list(value.shape.dim, fresh, draw)


def _as_input(session: Session, draw: random.Random) -> None:
    """Initializers become inputs as well, or the model gets so old that they are constants."""
    graph = _any_graph(session, draw)
    if graph.initializers:
        graph.inputs.append(draw.choice(graph.initializers).name)
    if draw.random() < 0.3:
        session.model.ir_version = draw.choice((0, 3, 4, 2**40))


def _initializers(session: Session, draw: random.Random) -> None:
    graph = _any_graph(session, draw)
    fresh = copy.copy(_any_tensor(session, draw))
    if draw.random() < 0.6:
        fresh.name = draw.choice((fresh.name + "x", _any_name(session, draw), ""))
    _change_list(graph.initializers, fresh, draw)


_DAMAGES: tuple[Damage, ...] = (
    _inputs, _inputs, _inputs, _outputs, _outputs, _io, _nodes, _nodes, _operator, _operator,
    _operator, _version, _attribute_value, _attribute_value, _attribute_kind, _attributes, _bodies,
    _tensor_value, _tensor_value, _tensor_shape, _tensor_shape, _declared, _declared, _as_input,
    _initializers,
)  # fmt: skip


def load(data: bytes) -> Session:
    """The tables of a file, without views of it."""
    session = reader.read(data)
    for graph in _graphs(session.model.graph):
        attributes = [a for node in graph.nodes for a in node.attributes]
        for tensor in (*graph.initializers, *(a.t for a in attributes if a.t)):
            tensor.raw_data = bytes(tensor.raw_data)
    return session


def damage_graph(session: Session, draw: random.Random) -> bytes:
    """A file like `session` (of `load`) with one to four things wrong in its graphs."""
    while True:
        changed = copy.deepcopy(session)
        for _ in range(draw.choice((1, 1, 2, 2, 3, 4))):
            draw.choice(_DAMAGES)(changed, draw)
        try:  # the writer's own checks would refuse most of these
            with mock.patch.dict(checks.CHECKS, clear=True):
                return writer.write(changed)
        except (tables.OrtFormatError, KeyError):  # KeyError: an attribute without a type
            continue


def mutants(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """`count` damaged copies of a file; the same for the same seed."""
    places, session = sites(data), load(data)
    for k in range(count):
        draw = random.Random(f"{seed} {k}")
        if k % 2:
            yield damage_graph(session, draw)
        else:
            yield damage_bytes(data, places, draw)
