"""Values that are no tensors of numbers: strings, sequences, maps, optionals, in and out.

onnxruntime says what is right where it can run the graph.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import ortolan
from ortolan import _native
from ortolan.runtime.containers import decode_strings

HEAD = '<ir_version: 10, opset_import: ["" : 18, "ai.onnx.ml" : 3]>'


def model_of(graph: str) -> bytes:
    """An ONNX model of a graph in ONNX's text form."""
    content: bytes = onnx.parser.parse_model(f"{HEAD} {graph}").SerializeToString()
    return content


def run(model: bytes, feeds: dict[str, Any]) -> list[Any]:
    """The outputs of a model that was converted without optimization."""
    converted = ortolan.convert(model, level="disable")
    assert isinstance(converted, bytes)
    return list(ortolan.InferenceSession(converted).run(None, feeds))


def plain(value: Any) -> Any:
    """Arrays as lists, also in containers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def check_with_onnxruntime(model: bytes, feeds: dict[str, Any]) -> None:
    """Both give the same."""
    onnxruntime = pytest.importorskip("onnxruntime")
    expected = onnxruntime.InferenceSession(model).run(None, feeds)
    assert plain(run(model, feeds)) == plain(expected)


@pytest.mark.parametrize(
    "labels", ["classlabels_int64s = [3, 1, 2]", 'classlabels_strings = ["a", "ö", "c"]']
)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_zip_map(labels: str, rows: int) -> None:
    kind = "string" if "strings" in labels else "int64"
    graph = (
        f"g (float[N,3] x) => (seq(map({kind}, float)) y) {{ y = ai.onnx.ml.ZipMap<{labels}>(x) }}"
    )
    x = np.random.default_rng(1).standard_normal((rows, 3)).astype(np.float32)
    check_with_onnxruntime(model_of(graph), {"x": x})


def map_model(operator: str, key: int, value: int, **attributes: Any) -> bytes:
    """A model of one operator that takes a map."""
    node = helper.make_node(operator, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    map_type = helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, []))
    graph = helper.make_graph(
        [node], "g", [helper.make_value_info("x", map_type)], [onnx.ValueInfoProto(name="y")]
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    content: bytes = helper.make_model(
        graph, opset_imports=imports, ir_version=9
    ).SerializeToString()
    return content


STRING, INT64, FLOAT = TensorProto.STRING, TensorProto.INT64, TensorProto.FLOAT


@pytest.mark.parametrize(
    ("model", "feed"),
    [
        (map_model("DictVectorizer", STRING, FLOAT, string_vocabulary=["a", "b", "c"]),
         {"c": 3.0, "a": 1.5, "q": 9.0}),
        (map_model("DictVectorizer", INT64, FLOAT, int64_vocabulary=[5, 6, 7]), {7: 3.0, 5: 1.0}),
        (map_model("CastMap", INT64, FLOAT, cast_to="TO_FLOAT"), {7: 3.0, 5: 1.0}),
        (map_model("CastMap", INT64, FLOAT, cast_to="TO_INT64"), {7: 3.0, 5: 1.0}),
        (map_model("CastMap", INT64, FLOAT, cast_to="TO_FLOAT", map_form="SPARSE", max_map=9),
         {7: 3.0, 5: 1.0}),
    ],
)  # fmt: skip
def test_maps_in(model: bytes, feed: dict[Any, Any]) -> None:
    check_with_onnxruntime(model, {"x": feed})


def test_map_of_strings_to_numbers() -> None:
    """Python interfaces of onnxruntime cannot feed these."""
    model = map_model("DictVectorizer", STRING, INT64, string_vocabulary=["a", "b"])
    assert plain(run(model, {"x": {"b": 4}})) == [[[0, 4]]]
    model = map_model("CastMap", INT64, STRING, cast_to="TO_INT64")
    assert plain(run(model, {"x": {7: "3", 5: "-1"}})) == [[[-1, 3]]]
    with pytest.raises(ortolan.OrtolanError, match=r'"x1" is no integer'):
        run(model, {"x": {7: "x1"}})


def test_maps_of_numbers_that_are_no_integers() -> None:
    """As conversion on x86 does; integers are not rounded on the way."""
    model = map_model("CastMap", INT64, FLOAT, cast_to="TO_INT64")
    assert plain(run(model, {"x": {7: float("nan"), 5: 1e30}})) == [[[-(2**63), -(2**63)]]]
    model = map_model("CastMap", INT64, INT64, cast_to="TO_INT64")
    assert plain(run(model, {"x": {7: 2**63 - 1, 5: 2**53 + 1}})) == [[[2**53 + 1, 2**63 - 1]]]


def test_sequences_in_and_out() -> None:
    graph = (
        "g (seq(float[N]) x, float[N] z) => (seq(float[N]) y, float[M] c, int64 n) {"
        " y = SequenceInsert(x, z) c = ConcatFromSequence<axis = 0>(y) n = SequenceLength(x) }"
    )
    x = [np.arange(3, dtype=np.float32), np.ones(1, np.float32)]
    check_with_onnxruntime(model_of(graph), {"x": x, "z": np.zeros(2, np.float32)})


def test_empty_sequence_in() -> None:
    graph = (
        "g (seq(int64[N]) x) => (int64 n, seq(int64[N]) y) {"
        " n = SequenceLength(x) y = Identity(x) }"
    )
    assert plain(run(model_of(graph), {"x": []})) == [0, []]


@pytest.mark.parametrize("given", [None, np.arange(2, dtype=np.float32)])
def test_optionals_in(given: Any) -> None:
    graph = (
        "g (optional(float[N]) x) => (bool h, optional(float[N]) y) {"
        " h = OptionalHasElement(x) y = Identity(x) }"
    )
    has, value = run(model_of(graph), {"x": given})
    assert bool(has) == (given is not None)
    assert plain(value) == plain(given)


def test_empty_optional_has_no_element() -> None:
    graph = "g (optional(float[N]) x) => (float[N] y) { y = OptionalGetElement(x) }"
    with pytest.raises(ortolan.OrtolanError, match="the optional is empty"):
        run(model_of(graph), {"x": None})


def test_strings_in_and_out() -> None:
    graph = (
        "g (string[N] x) => (string[M] y, string[N] z) {"
        " i = Constant<value_ints = [2, 0, 0]>() y = Gather(x, i) z = Identity(x) }"
    )
    x = np.array(["grün", "", "日本 \0 x"], object)
    assert plain(run(model_of(graph), {"x": x})) == [["日本 \0 x", "grün", "grün"], x.tolist()]
    # numpy's own text types, and plain lists
    assert plain(run(model_of(graph), {"x": np.array(["a", "bb", "c"])}))[0] == ["c", "a", "a"]


def test_string_constants() -> None:
    graph = 'g (int64[N] i) => (string[N] y) <string[3] w = {"a", "", "ß"}> { y = Gather(w, i) }'
    assert plain(run(model_of(graph), {"i": np.array([2, 1, 0])})) == [["ß", "", "a"]]


def test_strings_survive_a_loop_that_plans_again() -> None:
    """Shapes of the body change in every iteration, and the strings must outlive each plan."""
    graph = (
        "g (string[1] x, int64 n) => (string[M] y) {"
        " c = Constant<value_int = 1>() t = Cast<to = 9>(c)"
        " y = Loop(n, t, x) <body = body (int64 i, bool k, string[M] a) => (bool k2, string[P] b) {"
        " k2 = Identity(k) s = Cast<to = 8>(i) o = Constant<value_ints = [1]>() r = Reshape(s, o)"
        " b = Concat<axis = 0>(a, r) }> }"
    )
    got = run(model_of(graph), {"x": np.array(["x"], object), "n": np.int64(5)})
    assert plain(got) == [["x", "0", "1", "2", "3", "4"]]


SAME_STRINGS = "g (string[2] x) => (string[2] y) { y = Identity(x) }"
LENGTH = "g (seq(float[N]) x) => (int64 n) { n = SequenceLength(x) }"


@pytest.mark.parametrize(
    ("graph", "feed", "message"),
    [
        (SAME_STRINGS, np.array([1, 2], object), "str"),
        (SAME_STRINGS, np.array(["a"], object), "dimension"),
        (LENGTH, np.zeros(2, np.float32), "a list is needed"),
        (LENGTH, [np.zeros(1, np.int64)], "float"),
        (LENGTH, {"a": 1}, "a list is needed"),
    ],
)
def test_wrong_values_are_refused(graph: str, feed: Any, message: str) -> None:
    with pytest.raises(ortolan.OrtolanError, match=message):
        run(model_of(graph), {"x": feed})


@pytest.mark.parametrize("feed", [["a"], [[1.0], [1.0, 2.0]], {"a": 1}], ids=str)
def test_what_is_no_array_is_refused(feed: Any) -> None:
    with pytest.raises(ortolan.errors.InvalidArgument, match=r"the feed of 'x', a .* is no array"):
        run(model_of("g (float[N] x) => (float[N] y) { y = Neg(x) }"), {"x": feed})


def test_half_a_surrogate_is_refused() -> None:
    graph = "g (string[N] x) => (string[N] y) { y = Identity(x) }"
    with pytest.raises(ortolan.errors.InvalidArgument, match="is no text"):
        run(model_of(graph), {"x": np.array(["\ud800"])})


def test_bytes_that_are_no_bool_are_refused_in_containers() -> None:
    graph = "g (seq(bool[N]) x) => (bool[M] y) { y = ConcatFromSequence<axis = 0>(x) }"
    with pytest.raises(ortolan.errors.InvalidArgument, match="a byte that is no bool"):
        run(model_of(graph), {"x": [np.array([7, 1], np.uint8).view(np.bool_)]})


def test_the_block_of_a_string_tensor_needs_four_bytes_of_alignment() -> None:
    """As the C header promises, though a handle takes eight."""
    converted = ortolan.convert(model_of("g (string[N] x) => (string[N] y) { y = Identity(x) }"))
    session = ortolan.InferenceSession(converted)
    library = _native.library()
    block = np.array([12, 13, 15], np.uint32).tobytes() + "aß".encode()
    memory = ctypes.create_string_buffer(len(block) + 16)
    place = (ctypes.addressof(memory) + 7) // 8 * 8 + 4
    ctypes.memmove(place, block, len(block))
    run_handle = ctypes.c_void_p()
    assert library.ortolan_run_create(session._model, ctypes.byref(run_handle)) == 0
    tensor = _native.new_tensor()
    tensor.type, tensor.rank, tensor.data, tensor.bytes = STRING, 1, place, len(block)
    tensor.dims[0] = 2
    assert library.ortolan_run_input(run_handle, 0, ctypes.byref(tensor)) == 0
    assert library.ortolan_run_execute(run_handle) == 0
    value = library.ortolan_run_take(run_handle, 0)
    assert library.ortolan_value_tensor(value, ctypes.byref(tensor)) == 0
    assert ctypes.string_at(tensor.data, tensor.bytes) == block
    library.ortolan_value_release(value)
    library.ortolan_run_release(run_handle)


def test_wrong_graphs_are_refused() -> None:
    graph = "g (float[N] x) => (int64 n) { n = SequenceLength(x) }"
    with pytest.raises(ortolan.OrtolanError, match="must be a sequence"):
        run(model_of(graph), {"x": np.zeros(1, np.float32)})


def test_containers_are_given_back() -> None:
    """Items of outputs may outlive the session, and nothing is kept."""
    graph = "g (float[N] x) => (seq(float[N]) s) { s = SequenceConstruct(x, x) }"
    converted = ortolan.convert(model_of(graph), level="disable")
    session = ortolan.InferenceSession(converted)
    x = np.arange(100_000, dtype=np.float32)
    first = session.run(None, {"x": x})[0][1]
    for _ in range(20):
        session.run(None, {"x": x})
    del session
    gc.collect()
    np.testing.assert_array_equal(first, x)


@pytest.mark.parametrize("operator", ["DictVectorizer", "CastMap"])
@pytest.mark.parametrize("given", ["float[2]", "seq(float[2])"])
def test_what_is_no_map_is_refused(operator: str, given: str) -> None:
    """Found by a mutant: the bytes of a tensor were read as a container."""
    graph = f"g ({given} x) => (float[1, N] y) {{ y = ai.onnx.ml.{operator}(x) }}"
    x = np.ones(2, np.float32)
    with pytest.raises(ortolan.OrtolanError, match=r"map|kernel|type"):
        run(model_of(graph), {"x": x if given == "float[2]" else [x]})


def test_text_may_take_more_than_an_int_counts() -> None:
    """Nearly all of it is memory that nobody looks at."""
    size = (1 << 31) + 64
    with mmap.mmap(-1, size) as memory:
        place = ctypes.c_char.from_buffer(memory)
        memory[:15] = np.array([12, 14, 15], "<u4").tobytes() + "ü!".encode()
        texts = decode_strings(ctypes.addressof(place), size, (2,))
        del place
    assert texts.tolist() == ["ü", "!"]
