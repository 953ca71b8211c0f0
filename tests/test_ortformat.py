"""The ORT format: tables <-> bytes, held against onnxruntime's bindings, converter and loader."""

from __future__ import annotations

import copy
import dataclasses
import math
import mmap
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers.builder
import numpy as np
import onnx
import onnx.parser
import pytest

from ortolan.ortformat import (
    OrtFormatError,
    describe,
    link_graph,
    read,
    resolver,
    resolver_from_onnx_defs,
    write,
    write_file,
)
from ortolan.ortformat import schema as s
from ortolan.ortformat import tables as t
from ortolan.ortformat.links import graphs, input_arg_counts, op_ids
from ortolan.ortformat.schema import AttributeType, TensorDataType

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("ORTOLAN_TEST_SEED", "20260417"))
MUTATIONS = 2000

CONV = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "house", doc_string: "a model",
 metadata_props: ["author": "us", "license": "none"]>
conv (float[N, 3, 8, 8] x) => (float[N, 4, h, w] y)
{
  pooled = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (x)
  c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (pooled, weight, bias)
  r = Relu (c)
  top = Constant <value = float {0.75}> ()
  y = Clip (r, , top)
}
"""

CONTROL = """
<ir_version: 8, opset_import: ["" : 17]>
control (float[n] x, bool a, bool b) => (float[n] y, float[n] last)
{
  shifted = Add (x, x)
  y = If (a) <
    then_branch = outer_then () => (float[n] p) {
      q = Mul (shifted, x)
      p = If (b) <
        then_branch = inner_then () => (float[n] u) { u = Add (q, shifted) },
        else_branch = inner_else () => (float[n] v) { v = Sub (x, q) }
      >
    },
    else_branch = outer_else () => (float[n] z) { z = Neg (shifted) }
  >
  trips = Constant <value = int64 {3}> ()
  last = Loop (trips, b, shifted) <
    body = once (int64 k, bool go, float[n] state) => (bool on, float[n] next) {
      on = Identity (go)
      half = Mul (y, state)
      next = Add (half, x)
    }
  >
}
"""

STRINGS = """
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 2]>
strings (string[k] words, float[1, 3] scores) => (string[m] all, int64[k] codes,
    seq(map(int64, float)) named, seq(float[1, 3]) list)
{
  more = Constant <value_strings = ["alpha", "", "\u00df"]> ()
  all = Concat <axis = 0> (words, more)
  codes = ai.onnx.ml.LabelEncoder <keys_strings = ["alpha", "beta"], values_int64s = [1, 2]> (words)
  named = ai.onnx.ml.ZipMap <classlabels_int64s = [10, 20, 30]> (scores)
  list = SequenceConstruct (scores, scores)
}
"""

FEEDS: dict[str, dict[str, Any]] = {
    "conv": {"x": np.linspace(-1, 1, 2 * 3 * 64, dtype=np.float32).reshape(2, 3, 8, 8)},
    "control": {
        "x": np.array([0.5, -1.25, 3.0], np.float32),
        "a": np.array(True),
        "b": np.array(True),
    },
    "strings": {
        "words": np.array(["beta", "gamma", "alpha"], object),
        "scores": np.array([[0.1, 0.2, 0.7]], np.float32),
    },
    "sparse": {"x": np.arange(12, dtype=np.float32).reshape(3, 4)},
}


def _onnx_models() -> dict[str, onnx.ModelProto]:
    rng = np.random.default_rng(SEED)
    conv = onnx.parser.parse_model(CONV)
    for name, shape in (("weight", (4, 3, 3, 3)), ("bias", (4,))):
        array = rng.standard_normal(shape).astype(np.float32)
        conv.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    sparse = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        sparse (float[3, 4] x) => (float[3, 5] y) { y = MatMul (x, w) }""")
    values = onnx.numpy_helper.from_array(np.array([2.0, -3.0], np.float32), "w")
    indices = onnx.numpy_helper.from_array(np.array([3, 17], np.int64), "w_indices")
    sparse.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4, 5]))
    return {
        "conv": conv,
        "control": onnx.parser.parse_model(CONTROL),
        "strings": onnx.parser.parse_model(STRINGS),
        "sparse": sparse,
    }


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of onnxruntime's converter in both styles, by name ("conv", "conv.runtime")."""
    tool = pytest.importorskip("onnxruntime.tools.convert_onnx_models_to_ort")
    folder = tmp_path_factory.mktemp("models")
    for name, model in _onnx_models().items():
        onnx.save(model, folder / f"{name}.onnx")
    tool.convert_onnx_models_to_ort(folder, folder, list(tool.OptimizationStyle))
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.ort"))}
    assert len(files) == 2 * len(FEEDS)
    return {
        name.removesuffix(".ort").replace(".with_runtime_opt", ".runtime"): data
        for name, data in files.items()
    }


def _run(data: bytes, name: str) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    result: list[Any] = session.run(None, FEEDS[name.split(".")[0]])
    return result


def _assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            _assert_same(our, their)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


def _type(*dims: int | str | None) -> t.TypeInfo:
    shape = t.Shape([t.Dimension.of(size) for size in dims])
    return t.TypeInfo(value=t.TensorTypeAndShape(TensorDataType.FLOAT, shape))


def _small() -> t.InferenceSession:
    """A model with every kind of field, made from tables alone."""
    weight = t.Tensor("w", "", [4, 8], TensorDataType.FLOAT, np.arange(32, dtype="f4").tobytes())
    ids = t.Tensor("ids", "", [3], TensorDataType.INT64, np.arange(3, dtype="<i8").tobytes())
    words = t.Tensor("words", "", [2], TensorDataType.STRING, b"", [b"\xff\x00", b""])
    branch = t.Graph(
        [copy.deepcopy(ids)],
        [t.ValueInfo("z", "", _type("n"))],
        [t.Node("n", op_type="Neg", since_version=13, inputs=["y"], outputs=["z"])],
        outputs=["z"],
    )
    attributes = [
        t.Attribute("f", "", AttributeType.FLOAT, f=-0.0),
        t.Attribute("i", "", AttributeType.INT, i=-(2**63)),
        t.Attribute("s", "", AttributeType.STRING, s=b"\x80"),
        t.Attribute("t", "", AttributeType.TENSOR, t=copy.deepcopy(weight)),
        t.Attribute("g", "", AttributeType.GRAPH, g=branch),
        t.Attribute("floats", "", AttributeType.FLOATS, floats=[1.5, math.inf]),
        t.Attribute("ints", "", AttributeType.INTS),
        t.Attribute("strings", "", AttributeType.STRINGS, strings=[b"", b"b"]),
        t.Attribute("tensors", "", AttributeType.TENSORS, tensors=[ids]),
        t.Attribute("graphs", "", AttributeType.GRAPHS, graphs=[copy.deepcopy(branch)]),
    ]
    graph = t.Graph(
        [weight, ids, words],
        [t.ValueInfo(name, "", _type(None, 8)) for name in ("x", "w", "y", "r")],
        [
            t.Node("m", "", "", 13, 0, "MatMul", inputs=["x", "w"], outputs=["y"]),
            t.Node(
                "b", "doc", "x.y", 1, 1, "If", inputs=["y", ""], outputs=["r"],
                attributes=attributes, input_arg_counts=[1, 1],
            ),
        ],
        inputs=["x"],
        outputs=["r"],
    )  # fmt: skip
    mapped = t.TypeInfo("d", t.MapType(TensorDataType.INT64, _type()))
    graph.node_args.append(t.ValueInfo("q", "doc", t.TypeInfo("", t.SequenceType(mapped))))
    link_graph(graph)
    model = t.Model(graph, 8, [t.OperatorSetId("", 17)], "p", "1", "d", 2**63 - 1)
    model.metadata_props = [t.StringStringEntry("k", "v")]
    table = resolver([(":B:1", [("T", [(True, 0), (False, 0)])]), (":A:2", [])])
    return t.InferenceSession(model, kernel_type_str_resolver=table)


NAMES = [f"{name}{style}" for name in FEEDS for style in ("", ".runtime")]


def test_converted_models_hold_what_they_are_there_for(converted: dict[str, bytes]) -> None:
    sessions = {name: read(data) for name, data in converted.items()}
    assert describe(sessions["control"]).subgraph_count == 5
    assert any(node.implicit_inputs for node in sessions["control"].model.graph.nodes)
    assert describe(sessions["conv.runtime"]).runtime_optimizations == ("ConvActivationFusion",)
    strings = sessions["strings"].model.graph
    assert [b"alpha", b"", "\u00df".encode()] in [x.string_data for x in strings.initializers]
    assert "seq(map(int64,tensor(float)))" in [
        x.type for x in describe(sessions["strings"]).outputs
    ]
    assert len(sessions["sparse"].model.graph.sparse_initializers) == 1


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_of_onnxruntime_files(converted: dict[str, bytes], name: str) -> None:
    session = read(converted[name])
    ours = write(session)
    assert read(ours) == session
    assert write(read(ours)) == ours
    _assert_same(_run(ours, name), _run(converted[name], name))


@pytest.mark.parametrize("name", NAMES)
def test_links_and_resolver_are_those_of_onnxruntime(
    converted: dict[str, bytes], name: str
) -> None:
    theirs = read(converted[name])
    ours = read(converted[name])
    for graph in graphs(ours.model.graph):
        graph.node_edges = []
        graph.node_args = [info for info in graph.node_args if info.name in _defined(graph)]
        for node in graph.nodes:
            node.implicit_inputs = []
    link_graph(ours.model.graph)
    pairs = zip(graphs(theirs.model.graph), graphs(ours.model.graph), strict=True)
    for their_graph, our_graph in pairs:
        assert _links(our_graph) == _links(their_graph)
        names = {info.name for info in our_graph.node_args}
        used = {name for node in their_graph.nodes for name in (*node.inputs, *node.outputs)}
        assert used <= names <= {info.name for info in their_graph.node_args}
        assert our_graph.max_node_index == len(our_graph.nodes)
    resolved = theirs.kernel_type_str_resolver
    assert resolved is not None
    known = [i for i in op_ids(ours.model.graph) if not i.startswith("com.microsoft:")]
    expected = [e for e in resolved.op_kernel_type_str_args if e.op_id in known]
    assert [entry.op_id for entry in expected] == known
    assert resolver_from_onnx_defs(known).op_kernel_type_str_args == expected
    _assert_same(_run(write(ours), name), _run(converted[name], name))


def _defined(graph: t.Graph) -> set[str]:
    names = {*graph.inputs, *(tensor.name for tensor in graph.initializers)}
    names |= {sparse.values.name for sparse in graph.sparse_initializers}
    return names | {name for node in graph.nodes for name in node.outputs}


def _links(graph: t.Graph) -> list[Any]:
    """Edges by position and argument name: indices have gaps, implicit inputs no fixed order."""
    position = {node.index: k for k, node in enumerate(graph.nodes)}
    nodes = {node.index: node for node in graph.nodes}

    def ends(edges: list[t.EdgeEnd], consumer: int | None) -> list[Any]:
        found = []
        for end in edges:
            node = nodes[end.node_index if consumer is None else consumer]
            explicit = len(node.inputs)
            argument: int | str = end.dst_arg_index
            if end.dst_arg_index >= explicit:
                argument = node.implicit_inputs[end.dst_arg_index - explicit]
            found.append((position[end.node_index], end.src_arg_index, str(argument)))
        return sorted(found)

    return [
        (
            position[edge.node_index],
            ends(edge.input_edges, edge.node_index),
            ends(edge.output_edges, None),
            sorted(nodes[edge.node_index].implicit_inputs),
        )
        for edge in graph.node_edges
    ]


def test_every_kind_of_field_survives() -> None:
    session = _small()
    data = write(session)
    back = read(data)
    assert describe(back) == describe(session)
    assert math.copysign(1.0, back.model.graph.nodes[1].attributes[0].f) == -1.0
    ordered = copy.deepcopy(session)
    assert ordered.kernel_type_str_resolver is not None
    assert back == ordered
    assert write(back) == data == write(session)


def test_weights_are_aligned_and_views_of_the_file() -> None:
    session = _small()
    rng = random.Random(SEED)
    for k in range(40):
        size = rng.choice([1, 7, 15, 16, 17, 63, 64, 65, 500])
        raw = bytes([k]) * (8 * size)
        session.model.graph.initializers.append(
            t.Tensor(f"t{k}", "", [size], TensorDataType.INT64, raw)
        )
    for alignment in (8, 64, 4096):
        data = write(session, alignment=alignment)
        base = np.frombuffer(data, np.uint8).ctypes.data
        for tensor in read(data).model.graph.initializers:
            if tensor.data_type is TensorDataType.STRING:
                continue
            view = tensor.raw_data
            assert isinstance(view, memoryview) and view.readonly
            offset = np.frombuffer(view, np.uint8).ctypes.data - base
            assert data[offset : offset + len(view)] == view
            wanted = alignment if len(view) >= 64 else 8
            assert offset % wanted == 0, (tensor.name, len(view), offset)
    with pytest.raises(ValueError, match="power of two"):
        write(session, alignment=48)


def test_weights_follow_the_tables_in_graph_order() -> None:
    session = _small()
    graph = session.model.graph
    raws = [bytes([k]) * 256 for k in range(5)]
    graph.initializers = [
        t.Tensor(f"w{k}", "", [256], TensorDataType.UINT8, raw) for k, raw in enumerate(raws)
    ]
    graph.nodes[0].inputs[1] = "w0"
    data = write(session)
    offsets = [data.index(raw) for raw in raws]
    assert offsets == sorted(offsets)
    assert offsets[0] > data.index(b"MatMul")


def test_equal_content_is_written_once() -> None:
    session = _small()
    size = len(write(session))
    node_args = session.model.graph.node_args
    node_args += [t.ValueInfo(f"v{k}", "", _type("batch", 3, 224, 224)) for k in range(100)]
    # A name, its table and the offset to it; the types cost the same for 1 and for 100.
    assert len(write(session)) - size < 100 * 28 + 200
    twin = copy.deepcopy(session.model.graph.initializers[0])
    twin.name = "twin"
    before = len(write(session))
    session.model.graph.initializers.append(twin)
    # The table and its name, rounded up to the file's alignment; not another 128 bytes.
    assert len(write(session)) - before <= 64


def test_read_takes_any_buffer(tmp_path: Path) -> None:
    data = write(_small())
    path = tmp_path / "small.ort"
    write_file(path, data)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    expected = read(data)
    assert read(mapped) == expected
    assert read(bytearray(data)) == expected
    assert read(memoryview(data).cast("I")) == expected


def test_old_versions_are_read_and_their_kernel_hashes_ignored() -> None:
    data = bytearray(write(_small()))
    place = data.index(struct.pack("<I", 1) + b"6\0") + 4
    for version in b"12345":
        data[place] = version
        assert read(data).ort_version == chr(version)
    data[place] = ord("7")
    with pytest.raises(OrtFormatError, match=r"^ort_version: format version '7' is not supported"):
        read(data)


def test_a_file_of_version_2_is_read_and_made_one_of_version_6() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    sample = ROOT.parent / "shared" / "models" / "mnist-onnxjs.ort"
    if not sample.is_file():
        pytest.skip("the shared folder of real models is absent")
    session = read(sample.read_bytes())
    assert session.ort_version == "2"
    session.kernel_type_str_resolver = resolver_from_onnx_defs(op_ids(session.model.graph))
    ours, theirs = (onnxruntime.InferenceSession(x) for x in (write(session), sample.read_bytes()))
    feed = {"Input3": np.linspace(0, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)}
    _assert_same(ours.run(None, feed), theirs.run(None, feed))


def test_types_that_the_enumeration_lacks_are_kept() -> None:
    session = _small()
    tensor = t.Tensor("w4", "", [3, 3], TensorDataType.INT4, b"\x21\x43\x65\x87\x09")
    session.model.graph.initializers.append(tensor)
    assert read(write(session)).model.graph.initializers[-1] == tensor


def test_opening_a_file_imports_no_onnx() -> None:
    program = (
        "import sys; from ortolan.ortformat import read, describe;"
        "describe(read(sys.stdin.buffer.read()));"
        "print(sorted({'onnx', 'onnx_ir', 'typer', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=write(_small()), capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [b"[]"]


def _mutants(data: bytes, count: int) -> Iterator[bytes]:
    rng = random.Random(SEED)
    for k in range(count):
        mutant = bytearray(data)
        if k % 4 == 0:
            del mutant[rng.randrange(len(mutant)) :]
        elif k % 4 == 1:
            place = rng.randrange(len(mutant))
            mutant[place] ^= 1 << rng.randrange(8)
        elif k % 4 == 2:
            place = rng.randrange(0, len(mutant) - 4, 2)
            value = rng.choice([0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)])
            mutant[place : place + 4] = struct.pack("<I", value)
        else:
            for _ in range(rng.randrange(1, 30)):
                mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        yield bytes(mutant)


def test_mutations_raise_nothing_but_format_errors() -> None:
    print(f"seed {SEED} (ORTOLAN_TEST_SEED)")
    data = write(_small())
    refused = 0
    for mutant in _mutants(data, MUTATIONS):
        try:
            session = read(mutant)
        except OrtFormatError:
            refused += 1
        else:
            # What was accepted can also be summarized and written again.
            describe(session)
            write(session)
    assert MUTATIONS // 4 < refused < MUTATIONS


def test_every_truncation_is_refused() -> None:
    session = _small()
    # The last of the file is a weight, so each byte of it matters.
    data = write(session)
    for size in range(0, len(data), 3):
        with pytest.raises(OrtFormatError):
            read(data[:size])


def test_errors_tell_the_place() -> None:
    session = _small()
    tensor = session.model.graph.nodes[1].attributes[3].t
    assert tensor is not None
    place = re.escape("model.graph.nodes[1].attributes[3].t.raw_data: 128 bytes, but FLOAT [4, 9]")
    data = bytearray(write(session))
    dims = struct.pack("<Iqq", 2, 4, 8)
    at = data.index(dims)
    data[at : at + len(dims)] = struct.pack("<Iqq", 2, 4, 9)
    # The weight "w" and the attribute share equal dims; the initializer is read first.
    with pytest.raises(OrtFormatError, match=r"^model\.graph\.initializers\[0\]\.raw_data: 128 b"):
        read(data)
    tensor.dims = [4, 9]
    with pytest.raises(OrtFormatError, match=f"^{place}"):
        write(session)


Change = Callable[[t.Graph], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: setattr(g.nodes[0], "index", 9), r"nodes\[0\].index: 9 is not below"),
        (lambda g: setattr(g.nodes[0], "index", 1), r"nodes\[1\].index: 1 is repeated"),
        (lambda g: setattr(g.node_edges[0], "node_index", 7), r"node_edges\[0\].node_index: no no"),
        (lambda g: setattr(g.nodes[0], "since_version", 2**31), r"nodes\[0\].since_version: cann"),
        (lambda g: setattr(g.nodes[0], "name", None), r"nodes\[0\].name: expected str, not None"),
        (lambda g: setattr(g.nodes[1].attributes[4], "g", None), r"attributes\[4\].g: missing"),
        (lambda g: setattr(g.nodes[1].attributes[0], "type", 11), r"type: the ORT format holds no"),
        (lambda g: g.nodes[0].inputs.append(3), r"nodes\[0\].inputs\[2\]: expected str, not int"),
        (
            lambda g: g.node_args.append(None),
            r"node_args\[\d\]: expected a ValueInfo, not N",
        ),
        (lambda g: g.initializers[0].dims.append(-1), r"initializers\[0\].dims: a size of -1"),
        (lambda g: g.initializers[0].dims.append(2**62), r"dims: the product of the sizes exceed"),
        (lambda g: setattr(g.initializers[0], "data_type", 0), r"data_type: a tensor needs an el"),
        (lambda g: g.initializers[2].dims.append(2), r"string_data: 2 strings for 4 elements"),
    ],
)
def test_tables_that_are_no_model_are_not_written(change: Change, message: str) -> None:
    session = _small()
    change(session.model.graph)
    with pytest.raises(OrtFormatError, match=message):
        write(session)


def test_models_over_two_gigabytes_are_refused() -> None:
    session = _small()
    untouched = mmap.mmap(-1, 2**31 - 64)
    tensor = t.Tensor("huge", "", [len(untouched)], TensorDataType.UINT8, memoryview(untouched))
    session.model.graph.initializers.append(tensor)
    with pytest.raises(OrtFormatError, match="2 GB"):
        write(session)


def _nested(depth: int) -> t.InferenceSession:
    info = _type()
    for _ in range(depth):
        info = t.TypeInfo("", t.SequenceType(info))
    graph = t.Graph(node_args=[t.ValueInfo("x", "", info)])
    return t.InferenceSession(t.Model(graph))


def _unlimited(session: t.InferenceSession, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as context:
        context.setattr("ortolan.ortformat.writer.MAX_DEPTH", 10**6)
        return write(session)


def test_deep_nesting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Session, model, graph, value, its type and a tensor with a shape take 7 levels.
    deepest = (s.MAX_DEPTH - 7) // 2
    read(write(_nested(deepest)))
    with pytest.raises(OrtFormatError, match="nested deeper"):
        write(_nested(deepest + 1))
    for depth in (deepest + 1, 150):
        with pytest.raises(OrtFormatError, match="nested deeper"):
            read(_unlimited(_nested(depth), monkeypatch))


def _vector_of(builder: flatbuffers.builder.Builder, *offsets: int) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _table_of(builder: flatbuffers.builder.Builder, table: str, /, **fields: int) -> int:
    """Writes a table; a field is an offset, but those of 4 bytes in Node and Graph a number."""
    slots = [field.name for field in s.TABLES[table].fields]
    builder.StartObject(len(slots))
    for field, value in fields.items():
        if field in ("type", "max_node_index"):
            builder.PrependUint32Slot(slots.index(field), value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slots.index(field), value, 0)
    return int(builder.EndObject())


def test_shared_tables_cannot_unfold_without_limit() -> None:
    """Each graph holds the next one twice: a few hundred bytes for 2 to the 18th graphs."""
    builder = flatbuffers.builder.Builder()
    version, name = builder.CreateString("6"), builder.CreateString("n")
    graph = _table_of(builder, "Graph")
    for _ in range(18):
        bodies = _vector_of(builder, graph, graph)
        kind = int(AttributeType.GRAPHS)
        attribute = _table_of(builder, "Attribute", name=name, type=kind, graphs=bodies)
        attributes = _vector_of(builder, attribute)
        node = _table_of(builder, "Node", op_type=name, attributes=attributes)
        graph = _table_of(builder, "Graph", nodes=_vector_of(builder, node), max_node_index=1)
    model = _table_of(builder, "Model", graph=graph)
    root = _table_of(builder, "InferenceSession", ort_version=version, model=model)
    builder.Finish(root, file_identifier=b"ORTM")
    data = bytes(builder.Output())
    assert len(data) < 4096
    with pytest.raises(OrtFormatError, match="unfold to far more"):
        read(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.nodes[0].inputs.append("nowhere"), r"^nodes\[0\]: no entry in node_args for"),
        (lambda g: g.outputs.append("nowhere"), "^outputs: no value has the name 'nowhere'"),
        (lambda g: g.nodes[1].outputs.append("x"), r"^nodes\[1\].outputs: the name 'x' is taken"),
        (lambda g: g.node_args.pop(0), r"^nodes\[0\]: no entry in node_args for 'x'"),
        (
            lambda g: g.nodes[1].attributes[4].g.nodes[0].inputs.append("u"),
            r"^nodes\[1\].g.nodes\[0\]: no entry in node_args for 'u'",
        ),
    ],
)
def test_links_need_a_value_for_every_name(change: Change, message: str) -> None:
    graph = _small().model.graph
    change(graph)
    with pytest.raises(OrtFormatError, match=message):
        link_graph(graph)


def test_links_of_an_implicit_input_count_after_the_explicit_ones() -> None:
    graph = _small().model.graph
    assert graph.nodes[1].inputs == ["y", ""]
    assert graph.nodes[1].implicit_inputs == ["y"]
    assert graph.node_edges[1].input_edges == [t.EdgeEnd(0, 0, 0), t.EdgeEnd(0, 0, 2)]
    assert graph.node_edges[0].output_edges == [t.EdgeEnd(1, 0, 0), t.EdgeEnd(1, 0, 2)]
    body = graph.nodes[1].attributes[4].g
    assert body is not None
    assert [info.name for info in body.node_args] == ["z", "y"]
    assert t.ValueInfo() in graph.node_args


def test_links_move_recorded_optimizations_with_their_nodes() -> None:
    graph = _small().model.graph
    graph.nodes[0].index, graph.nodes[1].index = 40, 7
    nodes = t.NodesToOptimizeIndices([7, 0xFFFFFFFF, 40])
    record = t.RuntimeOptimizationRecord("act", nodes, [":C:3"])
    entry = t.RuntimeOptimizationRecordContainerEntry("optimizer", [record])
    graph.runtime_optimizations = t.RuntimeOptimizations([entry])
    link_graph(graph)
    assert nodes.node_indices == [1, 0xFFFFFFFF, 0]
    assert op_ids(graph) == [":C:3", ":MatMul:13", ":Neg:13", "x.y:If:1"]
    nodes.node_indices = [2]
    with pytest.raises(OrtFormatError, match=r"^runtime_optimizations: act of optimizer needs n"):
        link_graph(graph)


def test_input_arg_counts() -> None:
    assert input_arg_counts(2, 3, variadic=False) == [1, 1, 0]
    assert input_arg_counts(4, 2, variadic=True) == [1, 3]
    assert input_arg_counts(0, 2, variadic=True) == [0, 0]
    with pytest.raises(OrtFormatError, match="4 inputs, but the operator has 3"):
        input_arg_counts(4, 3, variadic=False)


@pytest.mark.parametrize("name", NAMES)
def test_input_arg_counts_are_those_of_onnxruntime(converted: dict[str, bytes], name: str) -> None:
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    for graph in graphs(read(converted[name]).model.graph):
        for node in graph.nodes:
            if node.domain == "com.microsoft":
                continue
            formal = onnx.defs.get_schema(node.op_type, node.since_version, node.domain).inputs
            last = bool(formal) and formal[-1].option == variadic
            counts = input_arg_counts(len(node.inputs), len(formal), variadic=last)
            assert node.input_arg_counts == counts, node.op_type


def test_resolver_is_sorted_and_refuses_repetition() -> None:
    table = resolver([(":B:1", [("b", [(True, 0), (False, 1)]), ("B", [])]), (":A:1", [])])
    first, second = table.op_kernel_type_str_args
    assert (first.op_id, second.op_id) == (":A:1", ":B:1")
    assert [entry.kernel_type_str for entry in second.kernel_type_str_args] == ["B", "b"]
    assert [int(arg.arg_type) for arg in second.kernel_type_str_args[1].args] == [0, 1]
    with pytest.raises(OrtFormatError, match="repeated"):
        resolver([(":A:1", []), (":A:1", [])])
    with pytest.raises(LookupError, match="version in force is 14"):
        resolver_from_onnx_defs([":Add:15"])
    with pytest.raises(LookupError, match="declares no operator"):
        resolver_from_onnx_defs(["com.microsoft:FusedConv:1"])


def test_write_file_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.ort"
    write_file(path, b"old")
    with monkeypatch.context() as context, pytest.raises(OSError, match="disk full"):
        context.setattr(os, "fsync", _disk_full)
        write_file(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [
        ("model.ort", b"old")
    ]
    write_file(path, memoryview(b"new"))
    assert path.read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "model.ort", b"")


def _disk_full(descriptor: int) -> None:
    raise OSError("disk full")


def test_describe() -> None:
    summary = describe(read(write(_small())))
    assert summary.format_version == s.FORMAT_VERSION
    assert summary.opsets == (("", 17),)
    assert [dataclasses.astuple(use) for use in summary.operators] == [
        ("", "MatMul", 13, 1), ("", "Neg", 13, 2), ("x.y", "If", 1, 1),
    ]  # fmt: skip
    assert summary.element_types == ("float", "int64", "string")
    assert [dataclasses.astuple(value) for value in summary.inputs] == [
        ("x", "tensor(float)", (None, 8))
    ]
    assert [value.name for value in summary.outputs] == ["r"]
    assert summary.initializers[0].name == "w"
    assert [item.bytes for item in summary.initializers] == [128, 24, 24, 24, 2]
    assert summary.initializer_bytes == 202
    assert (summary.node_count, summary.subgraph_count) == (4, 2)
    assert (summary.producer_name, summary.metadata) == ("p", (("k", "v"),))


@pytest.mark.parametrize("name", NAMES)
def test_describe_agrees_with_onnxruntime(converted: dict[str, bytes], name: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(converted[name])
    summary = describe(read(converted[name]))
    for ours, theirs in ((summary.inputs, session.get_inputs()),
                         (summary.outputs, session.get_outputs())):  # fmt: skip
        assert [(value.name, value.type) for value in ours] == [(v.name, v.type) for v in theirs]
        for our, their in zip(ours, theirs, strict=True):
            if our.type.startswith("tensor"):
                assert list(our.shape or ()) == their.shape
    meta = session.get_modelmeta()
    assert dict(summary.metadata) == meta.custom_metadata_map
    assert (summary.producer_name, summary.doc_string) == (meta.producer_name, meta.description)
