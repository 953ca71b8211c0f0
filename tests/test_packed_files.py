"""Packed weights in files: the form, the pass that makes it, and what the runtime makes of it.

Results with packed weights are held against those with plain ones, bit by bit, on every instruction
set that the machine has: sums are the same chains however weights lie.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from cases_lib import levels
from ortolan import _native, errors, importer
from ortolan.ortformat import read, tables, write
from ortolan.ortformat.from_ir import from_ir
from ortolan.ortformat.inspect import describe
from ortolan.ortformat.links import link_graph
from ortolan.ortformat.packed import pack, packed_weights, unpack, unpack_weights
from ortolan.ortformat.schema import AttributeType
from ortolan.passes.packed_weights import pack_weights
from ortolan.passes.pipeline import optimize

Array = np.ndarray[Any, Any]
SEED = 20261127


def model_of(nodes: list[onnx.NodeProto], x: list[Any], **weights: Array) -> onnx.ModelProto:
    """Nodes from "x" to "y"."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def files(model: onnx.ModelProto, level: str = "disable", multiple: int = 4) -> tuple[bytes, bytes]:
    """The model with plain weights and with packed ones."""
    loaded = importer.load(model)
    optimize(loaded, level)
    plain = write(from_ir(loaded))
    assert pack_weights(loaded, least=1, multiple=multiple)
    return plain, write(from_ir(loaded))


def run(content: bytes, x: Array, level: str = "255", threads: int = 1) -> Array:
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("ortolan.instruction_set", level)
    result: Array = ortolan.InferenceSession(content, options).run(None, {"x": x})[0]
    return result


def matmul(rng: np.random.Generator, K: int = 8, N: int = 16) -> onnx.ModelProto:
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [None, K],
        w=rng.standard_normal((K, N)).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("columns", [4, 8, 12, 16, 20, 24, 32, 40, 52])
def test_what_is_packed_is_unpacked(columns: int) -> None:
    matrix = np.arange(columns * 5, dtype=np.float32).reshape(5, columns)
    data = pack(matrix)
    assert data.nbytes == matrix.nbytes
    assert np.array_equal(unpack(data.tobytes(), columns, 5), matrix)
    # Column 17 is the second of the second line.
    if columns > 17:
        width = min(16, columns - 16)
        assert data.view("<f4")[16 * 5 + 3 * width + 1] == matrix[3, 17]
    with pytest.raises(ValueError, match="are not"):
        unpack(data.tobytes()[:-4], columns, 5)


@pytest.mark.parametrize("threads", [1, 2])
def test_products_do_not_change(threads: int) -> None:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    for _ in range(60):
        transposed = bool(rng.integers(2))
        N = int(rng.choice([4, 8, 12, 16, 20, 24, 32, 36, 40, 56, 64, 72, 100, 136]))
        K, M = int(rng.integers(2, 70)), int(rng.choice([1, 2, 3, 5, 8, 9, 17, 40]))
        w = rng.standard_normal((N, K) if transposed else (K, N)).astype(np.float32)
        bias = rng.standard_normal(N).astype(np.float32)
        node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=int(transposed))
        plain, packed = files(model_of([node], [None, K], w=w, b=bias))
        x = rng.standard_normal((M, K)).astype(np.float32)
        for level in levels():
            a, b = (run(content, x, level, threads) for content in (plain, packed))
            assert np.array_equal(a, b), (N, K, M, transposed, level)


@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_do_not_change(threads: int) -> None:
    rng = np.random.default_rng(SEED + 1)
    print(f"seed {SEED + 1}")
    for _ in range(40):
        N = int(rng.choice([4, 8, 12, 16, 20, 24, 36, 48, 72, 104]))
        C, stride = int(rng.integers(2, 40)), int(rng.integers(1, 3))
        height, width, pad = (int(rng.integers(1, n)) for n in (9, 20, 3))
        pad = int(rng.integers(2)) * min(pad, height, width)
        node = helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], strides=[stride] * 2, pads=[pad] * 4
        )
        plain, packed = files(
            model_of(
                [node], [1, C, height, width],
                w=rng.standard_normal((N, C, 1, 1)).astype(np.float32),
                b=rng.standard_normal(N).astype(np.float32),
            )
        )  # fmt: skip
        x = rng.standard_normal((1, C, height, width)).astype(np.float32)
        for level in levels():
            a, b = (run(content, x, level, threads) for content in (plain, packed))
            assert np.array_equal(a, b), (N, C, stride, height, width, pad, level)


KERNELS = [
    (3, 3), (3, 3), (3, 3), (5, 5), (2, 3), (1, 7), (7, 1), (3,), (8,),
    (2, 2, 2), (3, 3, 3), (1, 1, 2), (1, 3, 3),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_with_kernels_do_not_change(threads: int) -> None:
    """By pointers and by rows, with tap columns (few outputs) and by Winograd's way."""
    rng = np.random.default_rng(SEED + 2)
    print(f"seed {SEED + 2}")
    for k in range(78):
        kernel = KERNELS[k % len(KERNELS)]
        rank = len(kernel)
        N = int(rng.choice([4, 8, 12, 16, 20, 24, 36, 48, 72]))
        C, stride = int(rng.choice([1, 3, 4, 8, 12, 16, 21, 32])), int(rng.choice([1, 1, 2]))
        dilation = int(rng.choice([1, 1, 1, 2]))
        size = [int(rng.integers(9, 32 if rank < 3 else 12)) + 2 * n for n in kernel]
        pads = [int(rng.integers(0, (n + 1) // 2 + 1)) for n in (*kernel, *kernel)]
        node = helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], strides=[stride] * rank, pads=pads,
            dilations=[dilation] * rank,
        )  # fmt: skip
        plain, packed = files(
            model_of(
                [node], [1, C, *size],
                w=rng.standard_normal((N, C, *kernel)).astype(np.float32),
                b=rng.standard_normal(N).astype(np.float32),
            )
        )  # fmt: skip
        x = rng.standard_normal((1, C, *size)).astype(np.float32)
        for level in levels():
            a, b = (run(content, x, level, threads) for content in (plain, packed))
            assert np.array_equal(a, b), (N, C, kernel, stride, dilation, size, pads, level)


@pytest.mark.parametrize(("wide", "narrow"), [(24, 8), (48, 16), (72, 24), (40, 20), (36, 12)])
def test_inverted_bottlenecks_do_not_change(wide: int, narrow: int) -> None:
    rng = np.random.default_rng(SEED + 2)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], group=wide, pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
    ]
    plain, packed = files(
        model_of(
            nodes, [1, narrow, 30, 30],
            w0=rng.standard_normal((wide, narrow, 1, 1)).astype(np.float32),
            w1=rng.standard_normal((wide, 1, 3, 3)).astype(np.float32),
            w2=rng.standard_normal((narrow, wide, 1, 1)).astype(np.float32),
        ),
        "all",
    )  # fmt: skip
    assert b"InvertedBottleneck" in packed
    x = rng.standard_normal((1, narrow, 30, 30)).astype(np.float32)
    for level in levels():
        assert np.array_equal(run(plain, x, level), run(packed, x, level)), level


def test_level_all_packs_large_weights_and_says_so() -> None:
    rng = np.random.default_rng(SEED)
    content = ortolan.convert(matmul(rng, 64, 64))
    (weights,) = packed_weights(read(content).model.graph)
    assert (weights.name, weights.dims, weights.is_first) == ("w", (64, 64), False)
    described = describe(read(content))
    (summary,) = described.initializers
    assert (summary.name, summary.packed, summary.dims) == ("w", True, (64, 64))
    for other in (ortolan.convert(matmul(rng, 8, 8)), ortolan.convert(matmul(rng, 64, 68))):
        assert not list(packed_weights(read(other).model.graph))
    layout = ortolan.convert(matmul(rng, 64, 64), level="layout")
    assert not list(packed_weights(read(layout).model.graph))


def test_weights_with_a_user_that_takes_none_stay_plain() -> None:
    rng = np.random.default_rng(SEED)
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "w"], ["y"]),
        ],
        [64, 64],
        w=rng.standard_normal((64, 64)).astype(np.float32),
    )
    assert not list(packed_weights(read(ortolan.convert(model)).model.graph))


def test_packed_weights_become_plain_in_onnx(tmp_path: Path) -> None:
    model = matmul(np.random.default_rng(SEED), 64, 64)
    packed, back = tmp_path / "m.ort", tmp_path / "m.onnx"
    ortolan.convert(model, packed)
    assert b"Unpack" in packed.read_bytes()
    ortolan.convert(packed, back)
    found = onnx.load(back)
    assert [node.op_type for node in found.graph.node] == ["MatMul"]
    (weights,) = found.graph.initializer
    assert weights.name == "w"
    assert np.array_equal(
        numpy_helper.to_array(weights), numpy_helper.to_array(model.graph.initializer[0])
    )


def test_packed_weights_can_be_replaced() -> None:
    rng = np.random.default_rng(SEED)
    content = ortolan.convert(matmul(rng, 64, 64))
    other = rng.standard_normal((64, 64)).astype(np.float32)
    options = ortolan.SessionOptions()
    options.add_initializer("w", ortolan.OrtValue.ortvalue_from_numpy(other))
    x = rng.standard_normal((3, 64)).astype(np.float32)
    (y,) = ortolan.InferenceSession(content, options).run(None, {"x": x})
    assert np.allclose(y, x @ other, atol=1e-4)


Change = Callable[[tables.Graph], None]


def changed(change: Change, K: int = 8, N: int = 16) -> bytes:
    """A packed product, of which a test changes something in the file."""
    _, content = files(matmul(np.random.default_rng(SEED), K, N))
    session = read(content)
    change(session.model.graph)
    link_graph(session.model.graph)
    return write(session)


def attribute(graph: tables.Graph, name: str) -> tables.Attribute:
    node = next(node for node in graph.nodes if node.op_type == "Unpack")
    return next(a for a in node.attributes if a.name == name)


def add_reader(graph: tables.Graph) -> None:
    """W is read by an Identity as well, whose result is what the graph gives."""
    user = next(node for node in graph.nodes if "w" in node.inputs)
    user.outputs = ["unused"]
    info = next(info for info in graph.node_args if info.name == "y")
    graph.node_args.append(tables.ValueInfo(name="unused", type=info.type))
    reader = tables.Node(op_type="Identity", since_version=16, inputs=["w"], outputs=["y"])
    graph.nodes.append(reader)


@pytest.mark.parametrize("columns", [16, 24, 12])
def test_another_reader_gets_plain_weights(columns: int) -> None:
    content = changed(add_reader, N=columns)
    w = numpy_helper.to_array(matmul(np.random.default_rng(SEED), 8, columns).graph.initializer[0])
    assert np.array_equal(run(content, np.zeros((1, 8), np.float32)), w)


def test_another_reader_gets_plain_kernels() -> None:
    w = np.random.default_rng(SEED).standard_normal((20, 3, 2, 5)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    _, content = files(model_of([node], [1, 3, 8, 8], w=w))
    session = read(content)
    graph = session.model.graph
    assert np.array_equal(next(packed_weights(graph)).array(), w)
    add_reader(graph)
    link_graph(graph)
    assert np.array_equal(run(write(session), np.zeros((1, 3, 8, 8), np.float32)), w)


def test_a_body_gets_plain_weights() -> None:
    rng = np.random.default_rng(SEED)
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [f"o{k}"])], f"b{k}", [],
            [helper.make_tensor_value_info(f"o{k}", TensorProto.FLOAT, None)],
        )
        for k in range(2)
    ]  # fmt: skip
    model = model_of(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["c"]),
            helper.make_node("If", ["c"], ["i"], then_branch=branches[0], else_branch=branches[1]),
            helper.make_node("MatMul", ["i", "v"], ["y"]),
        ],
        [None, 8],
        w=rng.standard_normal((8, 16)).astype(np.float32),
        v=rng.standard_normal((16, 16)).astype(np.float32),
        zero=np.zeros((), np.float32),
    )
    _, content = files(model)
    session = read(content)
    graph = session.model.graph
    # The converter packs no weights that a body reads: here somebody else did.
    node = next(node for node in graph.nodes if node.op_type == "Unpack")
    twin = copy.deepcopy(node)
    twin.inputs, twin.outputs = ["w_packed"], ["w"]
    plain = next(t for t in graph.initializers if t.name == "w")
    array = np.frombuffer(plain.raw_data, "<f4").reshape(8, 16)
    stored = next(t for t in graph.initializers if t.name == "v_packed")
    graph.initializers.remove(plain)
    graph.initializers.append(
        tables.Tensor(
            name="w_packed", dims=[8, 16, 4], data_type=stored.data_type,
            raw_data=pack(array).tobytes(),
        )
    )  # fmt: skip
    graph.nodes.insert(0, twin)
    info = next(info for info in graph.node_args if info.name == "v_packed")
    graph.node_args.append(tables.ValueInfo(name="w_packed", type=info.type))
    link_graph(graph)
    x = rng.standard_normal((2, 8)).astype(np.float32)
    assert np.array_equal(run(write(session), x), run(ortolan.convert(model, level="disable"), x))


def set_form(value: int) -> Change:
    def change(graph: tables.Graph) -> None:
        attribute(graph, "form").i = value

    return change


def set_dims(*dims: int) -> Change:
    def change(graph: tables.Graph) -> None:
        (tensor,) = [t for t in graph.initializers if t.name.endswith("_packed")]
        tensor.dims = list(dims)

    return change


def drop(name: str) -> Change:
    def change(graph: tables.Graph) -> None:
        node = next(node for node in graph.nodes if node.op_type == "Unpack")
        node.attributes = [a for a in node.attributes if a.name != name]

    return change


def unpack_twice(graph: tables.Graph) -> None:
    node = next(node for node in graph.nodes if node.op_type == "Unpack")
    node.inputs = node.inputs * 2


def unpack_floats(graph: tables.Graph) -> None:
    """The bytes are said to be floats."""
    (tensor,) = [t for t in graph.initializers if t.name.endswith("_packed")]
    tensor.data_type, tensor.dims = tensor.data_type.__class__.FLOAT, [len(tensor.raw_data) // 4]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (
            set_form(3),
            errors.NotImplemented,
            r"shape \[8, 16, 4\] are no weights of form 3",
        ),
        (set_form(-1), errors.NotImplemented, "form -1"),
        (drop("form"), errors.NotImplemented, "form 0"),
        (set_dims(512), errors.NotImplemented, "are no weights"),
        (set_dims(128, 4), errors.NotImplemented, "are no weights"),
        (set_dims(4, 128), errors.NotImplemented, "are no weights"),
        (set_dims(64, 2, 4), errors.NotImplemented, "are no weights"),
        (unpack_floats, errors.NotImplemented, "no kernel"),
        (unpack_twice, errors.InvalidGraph, "2 inputs"),
        # A matrix, but not one that the product multiplies.
        (set_dims(16, 8, 4), errors.InvalidArgument, "inner dimension"),
        (set_dims(2, 4, 16, 4), errors.InvalidArgument, "inner dimension"),
    ],
)
def test_damaged_packed_weights_are_refused(
    change: Change, kind: type[Exception], text: str
) -> None:
    with pytest.raises((kind, errors.InvalidArgument), match=text):
        run(changed(change), np.zeros((1, 8), np.float32))


def test_other_products_get_plain_weights() -> None:
    """The other direction, which sizes would allow, and a factor: the session unpacks the file."""
    w = numpy_helper.to_array(matmul(np.random.default_rng(SEED), 16, 16).graph.initializer[0])
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    first = run(changed(set_form(2), 16, 16), x)
    assert np.allclose(first, x @ unpack(pack(w).tobytes(), 16, 16).T, atol=1e-4)
    node = helper.make_node("Gemm", ["x", "w"], ["y"])
    _, content = files(model_of([node], [None, 16], w=w))
    session = read(content)
    gemm = next(node for node in session.model.graph.nodes if node.op_type == "Gemm")
    alpha = next(a for a in gemm.attributes if a.name == "alpha") if gemm.attributes else None
    if alpha is None:
        alpha = tables.Attribute(name="alpha", type=AttributeType.FLOAT)
        gemm.attributes.append(alpha)
    alpha.f = 0.5
    assert np.allclose(run(write(session), x), 0.5 * (x @ w), atol=1e-4)


def test_bytes_may_be_computed() -> None:
    """Whoever feeds packed bytes gets them unpacked in each run."""
    rng = np.random.default_rng(SEED)
    w = rng.standard_normal((8, 20)).astype(np.float32)
    node = helper.make_node("Unpack", ["x"], ["y"], domain="ai.ortolan", form=1)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.UINT8, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 20])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.ortolan", 1)]
    content = ortolan.convert(helper.make_model(graph, opset_imports=imports, ir_version=8))
    assert np.array_equal(run(content, pack(w).reshape(8, 20, 4)), w)
    with pytest.raises(errors.NotImplemented, match="are no weights"):
        run(content, pack(w))


def test_tools_leave_what_they_do_not_know() -> None:
    for change in (set_form(7), set_dims(128, 4), set_dims(64, 2, 4), drop("form")):
        session = read(changed(change))
        assert not list(packed_weights(session.model.graph))
        unpack_weights(session)
        assert [node.op_type for node in session.model.graph.nodes] == ["Unpack", "MatMul"]
        assert describe(session).node_count == 2


def test_weights_are_unpacked_once() -> None:
    session = read(ortolan.convert(matmul(np.random.default_rng(SEED), 64, 64)))
    graph = session.model.graph
    (node,) = (node for node in graph.nodes if node.op_type == "Unpack")
    again = copy.copy(node)
    again.outputs, again.index = ["again"], graph.max_node_index
    graph.nodes.append(again)
    assert [weights.name for weights in packed_weights(graph)] == ["w"]


def test_unknown_forms_are_refused_when_a_file_is_opened() -> None:
    with pytest.raises(errors.NotImplemented, match="form 3"):
        ortolan.InferenceSession(changed(set_form(3)))


def images(pads: list[int]) -> dict[str, list[onnx.NodeProto]]:
    """Graphs in which packed weights are images as well: kernels want them channels_last."""
    make = helper.make_node
    return {
        "input": [make("Conv", ["w", "x"], ["y"], pads=pads)],
        "pool": [make("Conv", ["x", "w"], ["a"], pads=pads),
                 make("MaxPool", ["w"], ["p"], kernel_shape=[1, 1]),
                 make("ReduceSum", ["p"], ["s"], keepdims=0), make("Add", ["a", "s"], ["y"])],
        "added": [make("Conv", ["x", "w"], ["a"], pads=pads), make("Add", ["a", "w"], ["y"])],
        "joined": [make("Conv", ["x", "w"], ["a"], pads=pads),
                   make("Concat", ["a", "w"], ["y"], axis=0)],
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", ["input", "pool", "added", "joined"])
def test_packed_weights_may_be_images(name: str, size: int) -> None:
    rng = np.random.default_rng(SEED)
    w = rng.standard_normal((8, 8, size, size)).astype(np.float32)
    x = rng.standard_normal((8, 8, size, size)).astype(np.float32)
    pads = [size // 2] * 4
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads)
    _, content = files(model_of([node], [8, 8, size, size], w=w))
    model = model_of(images(pads)[name], [8, 8, size, size], w=w)
    plain = ortolan.convert(model, level="disable")
    # The converter does not pack such weights: what it packed for a convolution goes in here.
    donor, session = read(content).model.graph, read(plain)
    graph = session.model.graph
    graph.initializers = [t for t in graph.initializers if t.name != "w"]
    graph.initializers += [t for t in donor.initializers if t.name == "w_packed"]
    graph.node_args += [info for info in donor.node_args if info.name == "w_packed"]
    graph.nodes.insert(0, next(node for node in donor.nodes if node.op_type == "Unpack"))
    link_graph(graph)
    for level in levels():
        assert np.array_equal(run(plain, x, level), run(write(session), x, level)), level


def test_equal_weights_stay_one() -> None:
    """Tied embeddings, under two names: one is looked up, the other multiplied."""
    e = np.random.default_rng(SEED).standard_normal((256, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["k"], to=TensorProto.INT64),
        helper.make_node("Gather", ["e", "k"], ["a"]),
        helper.make_node("Gemm", ["a", "h"], ["y"], transB=1),
    ]
    model = model_of(nodes, [None], e=e, h=e.copy())
    sizes = [len(ortolan.convert(model, level=level)) for level in ("layout", "all")]
    assert sizes[1] <= sizes[0]
    twins = model_of(
        [
            helper.make_node("MatMul", ["x", "a"], ["t"]),
            helper.make_node("MatMul", ["t", "b"], ["y"]),
        ],
        [None, 64], a=e[:64], b=e[:64].copy(),
    )  # fmt: skip
    content = ortolan.convert(twins)
    assert b"Unpack" in content
    assert len(content) < 2 * 64 * 64 * 4


@pytest.mark.parametrize("shape", [(32, 144), (32, 48, 3, 1), (16, 32, 3, 3), (288, 16, 1, 1)])
def test_equal_weights_of_other_shapes_stay_one(shape: tuple[int, ...]) -> None:
    """They would be packed in other orders."""
    w = np.random.default_rng(SEED).standard_normal((32, 16, 3, 3)).astype(np.float32)
    second = helper.make_node("Conv", ["z", "v"], ["y"])
    if len(shape) == 2:
        second = helper.make_node("Gemm", ["z", "v"], ["y"], transB=1)
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            second,
        ],
        [1, 16, 9, 9], w=w, v=w.reshape(shape),
    )  # fmt: skip
    size = [5, shape[1]] if len(shape) == 2 else [1, shape[1], 9, 9]
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, size))
    model.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    assert len(ortolan.convert(model)) < len(ortolan.convert(model, level="layout")) + w.nbytes / 2


def test_sparse_weights_stay_sparse() -> None:
    dense = np.zeros((128, 128), np.float32)
    dense[3, 5] = 2
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_of([node], [None, 128])
    values = numpy_helper.from_array(dense[dense != 0], "w")
    indices = numpy_helper.from_array(np.flatnonzero(dense), "w_indices")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, list(dense.shape))
    )
    assert len(ortolan.convert(model)) < 4096


def test_converting_again_changes_nothing() -> None:
    rng = np.random.default_rng(SEED)
    weights = {f"w{k}": rng.standard_normal((64, 64)).astype(np.float32) for k in range(4)}
    nodes = [
        helper.make_node("MatMul", ["x" if k == 0 else f"v{k}", f"w{k}"], [f"v{k + 1}"])
        for k in range(4)
    ]
    nodes[-1].output[0] = "y"
    model = model_of(nodes, [None, 64], **weights)
    model.graph.initializer[1].doc_string = "learnt"
    once = ortolan.convert(model)
    assert ortolan.convert(once) == once
    order = [weights.name for weights in packed_weights(read(once).model.graph)]
    assert order == list(weights)
    assert b"learnt" in once


class Moved:
    """The library, for which the bytes of a model are at an address of its own."""

    def __init__(self, address: int) -> None:
        self._library, self._address = _native.library(), address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def ortolan_model_load(self, _content: bytes, *rest: Any) -> int:
        return int(self._library.ortolan_model_load(self._address, *rest))


@pytest.mark.parametrize("offset", [0, 1, 2, 4, 16, 60])
def test_bytes_may_lie_anywhere(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    plain, packed = files(matmul(rng, 33, 48))
    x = rng.standard_normal((3, 33)).astype(np.float32)
    expected = {level: run(plain, x, level) for level in levels()}
    memory = (ctypes.c_char * (len(packed) + 128))()
    address = (ctypes.addressof(memory) + 63) // 64 * 64 + offset
    ctypes.memmove(address, packed, len(packed))
    moved = Moved(address)
    monkeypatch.setattr(_native, "library", lambda: moved)
    for level in levels():
        assert np.array_equal(run(packed, x, level), expected[level]), level


def test_external_files_hold_packed_weights(tmp_path: Path) -> None:
    model = matmul(np.random.default_rng(SEED), 64, 64)
    path = tmp_path / "m.ort"
    ortolan.convert(model, path, external_data=True)
    assert (tmp_path / "m.ort.data").exists()
    x = np.ones((2, 64), np.float32)
    (y,) = ortolan.InferenceSession(path).run(None, {"x": x})
    assert np.array_equal(y, run(ortolan.convert(model, level="disable"), x))


def test_a_large_file_may_be_read_instead_of_mapped(tmp_path: Path) -> None:
    path = tmp_path / "m.ort"
    ortolan.convert(matmul(np.random.default_rng(SEED), 800, 1024), path)
    x = np.random.default_rng(1).standard_normal((2, 800)).astype(np.float32)
    results = []
    for mapped in ("0", "1"):
        options = ortolan.SessionOptions()
        options.add_session_config_entry("session.use_memory_mapped_ort_model", mapped)
        session = ortolan.InferenceSession(path, options)
        results.append(session.run(None, {"x": x})[0])
    assert np.array_equal(*results)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.OrtolanError):
        ortolan.InferenceSession(path, options)


def test_a_model_can_be_loaded_as_ir_without_being_packed() -> None:
    loaded = importer.load(matmul(np.random.default_rng(SEED), 4, 3))
    assert not pack_weights(loaded)
    assert isinstance(loaded, ir.Model)
