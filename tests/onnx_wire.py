"""Damaged ONNX models for tests: protobuf messages with one thing changed.

Bytes are changed where they matter to the reader: tags, lengths, numbers, texts; and messages are
changed as messages, so that the result is well-formed and means something else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import onnx
from onnx import AttributeProto

__all__ = ["mutants", "truncated", "varint"]

_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def truncated(data: bytes, step: int) -> Iterator[bytes]:
    """The file cut at every place of its first and last bytes, and at each `step` between."""
    edge = 300
    for size in range(len(data)):
        if size < edge or len(data) - size < edge or size % step == 0:
            yield data[:size]


def mutants(model: onnx.ModelProto, seed: int, count: int) -> Iterator[bytes]:
    """Yields damaged variants of a model, the same ones for the same seed."""
    draw = random.Random(seed)
    data = model.SerializeToString()
    for k in range(count):
        yield _damaged_bytes(data, draw) if k % 2 else _damaged_message(model, draw)


def _damaged_bytes(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(changed))
        kind = draw.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[at] = draw.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            changed[at : at + draw.choice((0, 1, 4))] = varint(draw.choice(_NUMBERS))
        else:
            other = draw.randrange(len(changed))
            changed[at:at] = changed[other : other + draw.choice((1, 4, 40))]
    return bytes(changed)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _names(graph: onnx.GraphProto) -> list[str]:
    found = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*found, *(tensor.name for tensor in graph.initializer), "", "nowhere"]


def _damaged_message(model: onnx.ModelProto, draw: random.Random) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graphs = list(_graphs(changed.graph))
    change = draw.choice((_rewire, _retype, _resize, _reattribute, _reorder, _misplace, _reimport))
    change(changed, draw.choice(graphs), draw)
    content: bytes = changed.SerializeToString()
    return content


def _rewire(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    if not graph.node:
        return
    node = draw.choice(graph.node)
    names = draw.choice((node.input, node.output))
    place = draw.randrange(len(names) + 1)
    name = draw.choice(_names(draw.choice((graph, model.graph))))
    names[place : place + draw.randrange(2)] = [name]


def _retype(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    infos = [*graph.input, *graph.output]
    if infos:
        tensor = draw.choice(infos).type.tensor_type
        tensor.elem_type = draw.choice((0, 1, 7, 8, 9, 16, 22, 99, -1))
        if draw.randrange(2):
            tensor.shape.dim.add().dim_value = draw.choice((-1, 0, 3, 2**62))
    for node in graph.node[:1]:
        node.op_type = draw.choice(("Add", "Loop", "If", "Concat", "Shape", node.op_type))


def _resize(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = draw.choice(graph.initializer)
    kind = draw.randrange(4)
    if kind == 0:
        tensor.dims.append(draw.choice((-1, 0, 1, 2, 2**31, 2**62)))
    elif kind == 1:
        tensor.data_type = draw.choice((0, 1, 2, 7, 8, 9, 10, 11, 14, 16, 21, 22, 26, 27, 99, -5))
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
    else:
        tensor.int64_data.extend([draw.choice((0, -1, 2**62))] * draw.randrange(5))


def _reattribute(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    found = [attribute for node in graph.node for attribute in node.attribute]
    if not found:
        return
    attribute = draw.choice(found)
    kind = draw.randrange(4)
    if kind == 0:
        attribute.type = draw.choice(list(AttributeProto.AttributeType.values()))
    elif kind == 1:
        attribute.i = draw.choice((-1, 0, 1, 2**31, -(2**63), 2**63 - 1))
    elif kind == 2:
        attribute.ints[:] = [draw.choice((-1, 0, 1, 2**62)) for _ in range(draw.randrange(5))]
    else:
        attribute.name = draw.choice(("axis", "body", "then_branch", "value", "value_ints", ""))


def _reorder(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    for items in (graph.node, graph.input, graph.initializer):
        if len(items) > 1 and draw.randrange(2):
            a, b = draw.sample(range(len(items)), 2)
            items[a].CopyFrom(items[b])


def _misplace(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    if graph.initializer:
        tensor = draw.choice(graph.initializer)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, draw.choice(("w", "../w", "0", "-1", "9" * 30, ""))


def _reimport(model: onnx.ModelProto, graph: onnx.GraphProto, draw: random.Random) -> None:
    model.opset_import[0].version = draw.choice((-1, 0, 1, 5, 7, 12, 18, 99, 2**62))
    model.ir_version = draw.choice((0, 1, 2, 3, 4, 10))
