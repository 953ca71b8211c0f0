"""The Python API beside onnxruntime's: the same calls give the same things."""

from __future__ import annotations

import ctypes
import gc
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest

import ortolan
from ortolan import errors
from ortolan.runtime import environment
from ortolan.runtime.profiling import Recorder

ROOT = Path(__file__).resolve().parent.parent
HEAD = '<ir_version: 8, opset_import: ["" : 17], producer_name: "house", model_version: 3>'
ADD = HEAD + "g (float[N, 3] x, float[3] b) => (float[N, 3] z, float[N, 3] w) "
ADD += "{ z = Add(x, b) w = Mul(z, z) }"
WEIGHT = HEAD + "g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"
X = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1, 2, 3], np.float32)
BOTH = pytest.mark.parametrize("ort", [onnxruntime, ortolan], ids=["onnxruntime", "ortolan"])


def model(text: str) -> bytes:
    return bytes(onnx.parser.parse_model(text).SerializeToString())


@BOTH
def test_calls_take_what_onnxruntime_takes(ort: Any) -> None:
    session = ort.InferenceSession(model(ADD), providers=["CPUExecutionProvider"])
    for names in (None, [], ("z", "w"), ["z", "w"]):
        z, w = session.run(names, {"x": X, "b": B})
        np.testing.assert_array_equal(z, X + B)
        np.testing.assert_array_equal(w, (X + B) ** 2)
    value = ort.OrtValue.ortvalue_from_numpy(X)
    for feed in (X.tolist(), value, np.asfortranarray(X), X[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(session.run(["z"], {"x": feed, "b": B})[0], X + B)


@BOTH
def test_exceptions_are_those_that_programs_catch(ort: Any) -> None:
    state = __import__(f"{ort.__name__}.capi.onnxruntime_pybind11_state", fromlist=["Fail"])
    session = ort.InferenceSession(model(ADD))
    with pytest.raises(ValueError, match="Required inputs"):
        session.run(None, {"x": X})
    with pytest.raises(state.InvalidArgument):
        session.run(None, {"x": X.astype(np.float64), "b": B})
    with pytest.raises(state.InvalidArgument):
        session.run(None, {"x": X[0], "b": B})
    with pytest.raises(state.InvalidArgument):
        session.run(["nothing"], {"x": X, "b": B})
    with pytest.raises(state.NoSuchFile):
        ort.InferenceSession("no such file.onnx")
    with pytest.raises(state.InvalidProtobuf):
        ort.InferenceSession(b"this is no model at all")
    with pytest.raises(state.Fail):
        ort.InferenceSession(bytes(4) + b"ORTM" + bytes(100))
    with pytest.raises(TypeError):
        ort.InferenceSession(3)
    options = ort.RunOptions()
    options.terminate = True
    with pytest.raises(state.Fail, match="terminate flag"):
        session.run(None, {"x": X, "b": B}, options)
    with pytest.raises(RuntimeError):
        ort.SessionOptions().get_session_config_entry("none")
    with pytest.raises(RuntimeError):
        session.run_with_iobinding(session.io_binding())
    assert {"Fail", "InvalidGraph", "NotImplemented", "RuntimeException"} <= set(dir(state))


def test_exceptions_carry_a_code() -> None:
    with pytest.raises(errors.OrtolanError) as caught:
        ortolan.InferenceSession("no such file.onnx")
    assert (caught.value.code, caught.value.code.name) == (3, "NO_SUCHFILE")


@BOTH
def test_descriptions(ort: Any) -> None:
    session = ort.InferenceSession(model(ADD))
    assert [(a.name, a.type, a.shape) for a in session.get_inputs()] == [
        ("x", "tensor(float)", ["N", 3]), ("b", "tensor(float)", [3]),
    ]  # fmt: skip
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.graph_name, meta.version) == ("house", "g", 3)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_provider_options() == {"CPUExecutionProvider": {}}
    assert ort.get_device() == "CPU"
    assert "CPUExecutionProvider" in ort.get_available_providers()
    assert ort.GraphOptimizationLevel(99) == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


@BOTH
def test_values(ort: Any) -> None:
    make = ort.OrtValue
    value = make.ortvalue_from_numpy(X.copy())
    assert (value.shape(), value.data_type(), value.element_type()) == ([2, 3], "tensor(float)", 1)
    assert (value.is_tensor(), value.is_tensor_sequence(), value.has_value()) == (True, False, True)
    assert (value.device_name(), value.tensor_size_in_bytes()) == ("cpu", 24)
    value.update_inplace(X + 1)
    np.testing.assert_array_equal(value.numpy(), X + 1)
    at = (ctypes.c_float * 6).from_address(value.data_ptr())
    assert list(at) == list((X + 1).ravel())
    with pytest.raises(RuntimeError):
        value.update_inplace(X[0])
    np.testing.assert_array_equal(np.from_dlpack(value), X + 1)
    assert value.__dlpack_device__() == (1, 0)
    source = X.copy()
    shared = make.from_dlpack(source)
    source[0, 0] = 9
    assert shared.numpy()[0, 0] == 9
    empty = make.ortvalue_from_shape_and_type([2, 0], np.int64)
    assert (empty.shape(), empty.data_type()) == ([2, 0], "tensor(int64)")
    half = make.ortvalue_from_shape_and_type([2], onnx.TensorProto.BFLOAT16)
    assert half.data_type() == "tensor(bfloat16)"
    session = ort.InferenceSession(model(ADD))
    b = make.ortvalue_from_numpy(B)
    (z,) = session.run_with_ort_values(["z"], {"x": make.ortvalue_from_numpy(X), "b": b})
    np.testing.assert_array_equal(z.numpy(), X + B)


@BOTH
def test_bindings(ort: Any) -> None:
    session = ort.InferenceSession(model(ADD))
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_input("b", "cpu", 0, np.float32, B.shape, B.ctypes.data)
    place = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32)
    binding.bind_ortvalue_output("w", place)
    binding.bind_output("z")
    session.run_with_iobinding(binding)
    w, z = binding.get_outputs()
    np.testing.assert_array_equal(z.numpy(), X + B)
    np.testing.assert_array_equal(place.numpy(), (X + B) ** 2)
    assert w.data_ptr() == place.data_ptr()
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], (X + B) ** 2)
    binding.clear_binding_outputs()
    target = np.zeros((2, 3), np.float32)
    binding.bind_output("z", "cpu", 0, np.float32, target.shape, target.ctypes.data)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(target, X + B)
    binding.clear_binding_inputs()
    with pytest.raises(RuntimeError):
        session.run_with_iobinding(binding)


UNFIT: dict[str, tuple[Any, str]] = {
    "read-only": (lambda: np.frombuffer(bytes(24), np.float32).reshape(2, 3), "read-only"),
    "strided": (lambda: np.zeros((2, 6), np.float32)[:, ::2], "order"),
    "reversed": (lambda: np.zeros((2, 3), np.float32)[::-1], "order"),
    "swapped": (lambda: np.zeros((2, 3), np.dtype(np.float32).newbyteorder()), "order"),
    "deep": (lambda: np.zeros((1,) * 9, np.float32), "9 dimensions"),
    "another shape": (lambda: np.zeros((3, 2), np.float32), "shape"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_memory_that_cannot_take_an_output_is_refused(kind: str) -> None:
    make, text = UNFIT[kind]
    place = make()
    session = ortolan.InferenceSession(model(ADD))
    binding = session.io_binding()
    binding.bind_cpu_input("b", B)
    binding.bind_ortvalue_output("w", ortolan.OrtValue(place))
    # The second time it is state in place.
    for x in (X, place)[: 1 + (place.shape == X.shape)]:
        binding.bind_cpu_input("x", x)
        with pytest.raises(errors.InvalidArgument, match=rf"output \W+w.*{text}"):
            session.run_with_iobinding(binding)
    assert not place.any()


def test_outputs_do_not_share_memory() -> None:
    session = ortolan.InferenceSession(model(ADD))
    both = np.zeros((3, 3), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("b", B)
    for w, z in ((0, 0), (0, 1), (1, 0)):
        binding.bind_ortvalue_output("w", ortolan.OrtValue(both[w : w + 2]))
        binding.bind_ortvalue_output("z", ortolan.OrtValue(both[z : z + 2]))
        with pytest.raises(errors.InvalidArgument, match=r"outputs '[wz]' and '[wz]' overlaps"):
            session.run_with_iobinding(binding)
    whole = np.zeros((4, 3), np.float32)
    binding.bind_ortvalue_output("w", ortolan.OrtValue(whole[:2]))
    binding.bind_ortvalue_output("z", ortolan.OrtValue(whole[2:]))
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(whole, np.concatenate([(X + B) ** 2, X + B]))


def test_memory_that_is_read_only_is_not_updated() -> None:
    value = ortolan.OrtValue.ortvalue_from_numpy(np.frombuffer(bytes(12), np.float32))
    with pytest.raises(errors.InvalidArgument, match="read-only"):
        value.update_inplace(B)


PLACES: dict[str, tuple[Any, Any]] = {
    "negative": ((-1,), 64),
    "no numbers": (("N",), 64),
    "a fraction": ((1.5,), 64),
    "no shape": (5, 64),
    "more than memory": ((2**40, 2**40), 64),
    "a size that overflows": ((2**62, 4), 64),
    "nowhere": ((2, 3), 0),
    "no address": ((2, 3), "here"),
    "no such address": ((2, 3), 2**64),
}


@pytest.mark.parametrize("kind", PLACES)
def test_places_where_no_tensor_can_be(kind: str) -> None:
    shape, address = PLACES[kind]
    binding = ortolan.InferenceSession(model(ADD)).io_binding()
    with pytest.raises(errors.InvalidArgument, match=r"input 'x'.* no tensor"):
        binding.bind_input("x", "cpu", 0, np.float32, shape, address)
    with pytest.raises(errors.InvalidArgument, match=r"output 'z'.* no tensor"):
        binding.bind_output("z", "cpu", 0, np.float32, shape, address)


def test_state_goes_from_output_to_input_without_a_copy() -> None:
    text = HEAD + "g (float[1000] s) => (float[1000] t) <float one = {1}> { t = Add(s, one) }"
    session = ortolan.InferenceSession(model(text))
    binding = session.io_binding()
    binding.bind_cpu_input("s", np.zeros(1000, np.float32))
    for _ in range(5):
        binding.bind_output("t")
        session.run_with_iobinding(binding)
        (state,) = binding.get_outputs()
        binding.bind_ortvalue_input("s", state)
        assert binding._feeds[0].ctypes.data == state.data_ptr()
    assert (state.numpy() == 5).all()
    # The same memory on both sides.
    binding.bind_ortvalue_output("t", state)
    session.run_with_iobinding(binding)
    assert (state.numpy() == 6).all()


def test_async_calls_tell_results_and_errors() -> None:
    session = ortolan.InferenceSession(model(ADD))
    seen: list[tuple[Any, Any, str]] = []
    done = threading.Event()

    def note(results: Any, user_data: Any, error: str) -> None:
        seen.append((results, user_data, error))
        done.set()

    session.run_async(["z"], {"x": X, "b": B}, note, 5)
    assert done.wait(30)
    np.testing.assert_array_equal(seen[0][0][0], X + B)
    assert seen[0][1:] == (5, "")
    done.clear()
    session.run_async(["z"], {"x": X}, note, None)
    assert done.wait(30)
    assert seen[1][0] == []
    assert "['b']" in seen[1][2]


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_sessions_pickle(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    content = ortolan.convert(model(ADD), path).read_bytes()
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = 1
    session = ortolan.InferenceSession(path if kind == "path" else content, options)
    again = pickle.loads(pickle.dumps(session))
    np.testing.assert_array_equal(again.run(["z"], {"x": X, "b": B})[0], X + B)
    assert again.get_session_options().intra_op_num_threads == 1


@BOTH
def test_dimensions_are_fixed_and_weights_replaced(ort: Any) -> None:
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("N", 2)
    weight = ort.OrtValue.ortvalue_from_numpy(np.array([5, 6], np.float32))
    options.add_initializer("w", weight)
    session = ort.InferenceSession(model(WEIGHT), options)
    assert session.get_inputs()[0].shape == [2, 2]
    ones = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": ones})[0], [[5, 6]] * 2)
    with pytest.raises((errors.InvalidArgument, RuntimeError, Exception), match="x"):
        session.run(None, {"x": np.ones((3, 2), np.float32)})


def test_dimensions_are_fixed_by_what_they_denote() -> None:
    proto = onnx.parser.parse_model(WEIGHT)
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    options = ortolan.SessionOptions()
    options.add_free_dimension_override_by_denotation("DATA_BATCH", 4)
    session = ortolan.InferenceSession(proto.SerializeToString(), options)
    assert session.get_inputs()[0].shape == [4, 2]


def test_weights_of_an_ort_file_are_replaced() -> None:
    content = ortolan.convert(model(WEIGHT))
    options = ortolan.SessionOptions()
    options.add_initializer("w", np.array([7, 8], np.float32))
    ones = np.ones((1, 2), np.float32)
    session = ortolan.InferenceSession(content, options)
    np.testing.assert_array_equal(session.run(None, {"x": ones})[0], [[7, 8]])
    options.add_initializer("nothing", np.ones(2, np.float32))
    with pytest.raises(errors.InvalidArgument, match="nothing"):
        ortolan.InferenceSession(content, options)
    wrong = ortolan.SessionOptions()
    wrong.add_initializer("w", np.ones(3, np.float32))
    with pytest.raises(errors.InvalidArgument, match="'w'"):
        ortolan.InferenceSession(content, wrong)


NAMED = "g (string[N] x) => (string[N] y) { y = StringConcat(x, w) }"
COUNTED = (
    "g (float[N] x) => (float[N] y) { s = Shape(w) n = Size(s) c = Cast <to = 1> (n) "
    "d = Cast <to = 1> (w) e = Add(x, d) y = Add(e, c) }"
)
REPLACED: dict[str, tuple[str, Any, Any, Any, Any]] = {
    "swapped bytes": (COUNTED, np.ones(2, np.float32), np.array([3, 4], ">f4"), X[0, :2], [4, 6]),
    "no dimension": (COUNTED, np.array(1, np.float32), np.array(5, np.float32), X[0], [5, 6, 7]),
    "four bits": (
        COUNTED, np.ones(2, ml_dtypes.int4), np.array([3, -4], ml_dtypes.int4), X[0, :2], [4, -2],
    ),
    "texts": (
        NAMED, np.array(["abc", "d"], object), np.array(["é", b"q"], object),
        np.array(["a", "b"], object), ["aé", "bq"],
    ),
    "numpy's texts": (
        NAMED, np.array(["abc", "d"], object), np.array(["é", "q"]),
        np.array(["a", "b"], object), ["aé", "bq"],
    ),
}  # fmt: skip


def with_weight(text: str, weight: Any) -> bytes:
    """A model whose weight "w" is an array."""
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> ' + text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("kind", REPLACED)
@pytest.mark.parametrize("is_ort", [False, True])
def test_weights_of_every_kind_are_replaced(kind: str, is_ort: bool) -> None:
    text, weight, new, x, expected = REPLACED[kind]
    options = ortolan.SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_initializer("w", new)
    content = with_weight(text, weight)
    source = ortolan.convert(content, level="disable") if is_ort else content
    assert ortolan.InferenceSession(source, options).run(None, {"x": x})[0].tolist() == expected
    if weight.dtype == object:
        options.add_initializer("w", np.array(["a", 1], object))
        with pytest.raises(errors.InvalidArgument, match=r"'w'.* is 1"):
            ortolan.InferenceSession(source, options)


def test_weights_in_files_that_are_missing_are_given(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(WEIGHT)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(B[:2], "w"))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="data", size_threshold=0,
              convert_attribute=True)  # fmt: skip
    (tmp_path / "data").unlink()
    options = ortolan.SessionOptions()
    options.add_external_initializers(["w"], [np.array([3, 4], np.float32)])
    session = ortolan.InferenceSession(path, options)
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], [[3, 4]])


def test_the_model_that_runs_can_be_written(tmp_path: Path) -> None:
    text = HEAD + "g (float[2] x) => (float[2] y) { t = Identity(x) y = Neg(t) }"
    for name, is_ort in (("optimized.onnx", False), ("optimized.ort", True)):
        options = ortolan.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / name)
        ortolan.InferenceSession(model(text), options)
        content = (tmp_path / name).read_bytes()
        assert (content[4:8] == b"ORTM") is is_ort
        x = np.array([1, 2], np.float32)
        reference = onnxruntime.InferenceSession(content)
        np.testing.assert_array_equal(reference.run(None, {"x": x})[0], -x)
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert [node.op_type for node in nodes] == ["Neg"]


def test_what_is_not_supported_says_so() -> None:
    session = ortolan.InferenceSession(model(ADD))
    refused: list[Callable[[], object]] = [
        lambda: ortolan.SessionOptions().register_custom_ops_library("custom.so"),
        lambda: ortolan.SessionOptions().add_provider("CUDAExecutionProvider", {}),
        lambda: ortolan.RunOptions().add_active_adapter(None),
        lambda: ortolan.OrtValue.ortvalue_from_numpy(X, "cuda"),
        lambda: session.io_binding().bind_output("z", "cuda"),
        lambda: ortolan.OrtValue.ortvalue_from_numpy(X).as_sparse_tensor(),
        lambda: session.run_with_ortvaluevector(),
    ]
    for call in refused:
        with pytest.raises(errors.NotImplemented):
            call()
    with pytest.raises(AttributeError, match="LoRA"):
        _ = ortolan.LoraAdapter
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        ortolan.InferenceSession(model(ADD), providers=["CUDAExecutionProvider"])
    with pytest.raises(errors.InvalidArgument, match="same length"):
        ortolan.InferenceSession(model(ADD), None, ["CPUExecutionProvider"], [{}, {}])


def test_messages_go_where_they_are_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, str, str]] = []
    options = ortolan.SessionOptions()
    options.log_severity_level = 1
    options.logid = "mine"
    ortolan.InferenceSession(model(ADD), options)
    assert "[I:ortolan mine] session is ready" in capsys.readouterr().err
    ortolan.set_default_logger_callback(
        lambda severity, category, logid, location, text: seen.append((severity, logid, text)), 0
    )
    try:
        ortolan.InferenceSession(model(ADD))
        with pytest.raises(errors.InvalidFormat):
            ortolan.InferenceSession(bytes(4) + b"ORTM" + bytes(100))
    finally:
        ortolan.set_default_logger_callback(None)
        ortolan.set_default_logger_severity(2)
    assert [severity for severity, _, _ in seen] == [1, 3]
    ortolan.InferenceSession(model(ADD))
    assert capsys.readouterr().err == ""
    with pytest.raises(errors.InvalidArgument):
        ortolan.set_default_logger_severity(9)


@BOTH
def test_strings(ort: Any) -> None:
    text = HEAD + "g (string[N] s) => (string[N] t, string[M] u) "
    text += "{ t = Identity(s) u = Concat <axis = 0> (s, s) }"
    session = ort.InferenceSession(model(text))
    for feed in (np.array(["a", "böö", ""], object), np.array(["a", "böö", ""])):
        t, u = session.run(None, {"s": feed})
        assert (t.dtype, t.tolist(), u.tolist()) == (object, feed.tolist(), feed.tolist() * 2)
    (t, _) = session.run(None, {"s": np.empty(0, object)})
    assert t.shape == (0,)


def test_small_types_are_those_of_ml_dtypes() -> None:
    text = HEAD.replace("17", "19") + "g (bfloat16[3] x) => (bfloat16[3] y) { y = Identity(x) }"
    session = ortolan.InferenceSession(model(text))
    x = np.array([1, 2, 3], ml_dtypes.bfloat16)
    (y,) = session.run(None, {"x": x})
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y.astype(np.float32), [1, 2, 3])


MEMORY = """
import gc, resource, sys
import numpy as np
import ortolan

def resident():
    gc.collect()
    pages = open("/proc/self/statm").read().split()[1]
    return int(pages) * resource.getpagesize()

session = ortolan.InferenceSession(sys.argv[1])
b = np.ones(3, np.float32)
def call(rows):
    session.run(None, {"x": np.ones((rows, 3), np.float32), "b": b})
for i in range(2000):
    call(i % 50 + 1)
before = resident()
for _ in range(100_000):
    call(2)
for i in range(2000):
    call(i % 50 + 1)
runs = resident()
for _ in range(1000):
    ortolan.InferenceSession(sys.argv[1]).run(None, {"x": np.ones((2, 3), np.float32), "b": b})
print(runs - before, resident() - runs)
"""


def test_memory_is_flat_over_many_calls_and_sessions(tmp_path: Path) -> None:
    """10^5 calls, 10^3 sessions, in a process whose heap no other test has moved."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the resident size is not known here")
    path = tmp_path / "add.ort"
    path.write_bytes(ortolan.convert(model(ADD)))
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    of_runs, of_sessions = map(int, done.stdout.split())
    assert of_runs < 2**20
    assert of_sessions < 2**20


USER_PROGRAM = """
import numpy as np
import numpy.typing as npt
import ortolan


def classify(path: str, image: npt.NDArray[np.float32]) -> int:
    options = ortolan.SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ortolan.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name: str = session.get_inputs()[0].name
    binding = session.io_binding()
    binding.bind_cpu_input(name, image)
    value: ortolan.OrtValue = ortolan.OrtValue.ortvalue_from_numpy(image)
    try:
        outputs = session.run(None, {name: value}, ortolan.RunOptions())
    except ortolan.OrtolanError as error:
        return int(error.code)
    return int(np.argmax(outputs[0]))
"""


def test_a_users_file_passes_mypy(tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    file.write_text(USER_PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", str(file)]
    # As for an installed package: what is wrong inside it is not the user's.
    command.append("--follow-imports=silent")
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "Success: no issues found in 1 source file",
    )


def test_a_seed_makes_sessions_repeat() -> None:
    text = HEAD + "g () => (float[4] a, float[4] b) { [one] a = %s [two] b = %s }".replace(
        "%s", "RandomNormal <shape = [4]> ()"
    )
    content = ortolan.convert(model(text))

    def draws() -> list[list[float]]:
        session = ortolan.InferenceSession(content)
        return [array.tolist() for _ in range(2) for array in session.run(None, {})]

    assert draws() != draws()
    ortolan.set_seed(5)
    try:
        first = draws()
        assert draws() == first
        assert len({tuple(numbers) for numbers in first}) == 4
        ortolan.set_seed(6)
        assert draws() != first
    finally:
        environment._State.seed = None


@BOTH
def test_profiles_are_chrome_traces(ort: Any, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    text = (
        HEAD + "g (float[N, 64] x) => (float[N, 64] z) { [first] y = Exp(x) [second] z = Neg(y) }"
    )
    session = ort.InferenceSession(model(text), options)
    assert session.get_profiling_start_time_ns() > 0
    x = np.zeros((2000, 64), np.float32)
    for _ in range(3):
        session.run(None, {"x": x})
    path = Path(session.end_profiling())
    assert path.parent == tmp_path
    assert path.name.startswith("profile")
    events = json.loads(path.read_text())
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    assert [e["args"]["op_name"] for e in nodes] == ["Exp", "Neg"] * 3
    runs = [e for e in events if e["name"] == "model_run"]
    assert len(runs) == 3
    for run, first in zip(runs, nodes[::2], strict=True):
        assert run["ts"] - 1 <= first["ts"] <= run["ts"] + run["dur"]
        assert 0 < first["dur"] <= run["dur"] + 1


def test_a_profile_shows_names_that_are_no_text(tmp_path: Path) -> None:
    content = ortolan.convert(model(HEAD + "g (float[N] x) => (float[N] y) { [named] y = Neg(x) }"))
    options = ortolan.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ortolan.InferenceSession(content.replace(b"named", b"n\xff\xfe\xfdd"), options)
    np.testing.assert_array_equal(session.run(None, {"x": B})[0], -B)
    assert "n\\ufffd\\ufffd\\ufffdd_kernel_time" in Path(session.end_profiling()).read_text()


class Ending:
    """A feed during whose conversion the profile is ended."""

    def __init__(self, session: ortolan.InferenceSession) -> None:
        self.session = session

    def __array__(self, *_: Any, **__: Any) -> Any:
        self.session.end_profiling()
        return X


def test_a_profile_may_end_while_a_call_is_in_flight(tmp_path: Path) -> None:
    options = ortolan.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ortolan.InferenceSession(model(ADD), options)
    z = session.run(["z"], {"x": Ending(session), "b": B})[0]
    np.testing.assert_array_equal(z, X + B)
    assert session.end_profiling() == ""


def test_an_interrupted_profile_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes between a call and the end of its recording does not take the memory away."""
    options = ortolan.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ortolan.InferenceSession(model(ADD), options)

    def interrupt(_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Recorder, "steps", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.run(None, {"x": X, "b": B})
    gc.collect()
    session.end_profiling()
    np.testing.assert_array_equal(session.run(["z"], {"x": X, "b": B})[0], X + B)


CONTAINERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a sequence": (
        (
            "g (seq(float[N]) s, float[N] x) => (seq(float[N]) y, float[M] z, int64 n) "
            "{ y = SequenceInsert(s, x) i = Constant <value_int = 0> () z = SequenceAt(y, i) "
            "n = SequenceLength(y) }"
        ),
        {"s": [B, np.zeros(2, np.float32)], "x": B[:1]},
    ),
    "an empty sequence": ("g (seq(float[N]) s) => (int64 n) { n = SequenceLength(s) }", {"s": []}),
    "maps": (
        (
            "g (float[N, 2] x) => (seq(map(int64, float)) y) "
            "{ y = ai.onnx.ml.ZipMap <classlabels_int64s = [1, 2]> (x) }"
        ),
        {"x": np.array([[0.25, 0.75], [1, 0]], np.float32)},
    ),
    "maps by text": (
        (
            "g (float[N, 2] x) => (seq(map(string, float)) y) "
            '{ y = ai.onnx.ml.ZipMap <classlabels_strings = ["a", "ü"]> (x) }'
        ),
        {"x": np.array([[0.25, 0.75]], np.float32)},
    ),
    "an optional": (
        (
            "g (float[N] x) => (optional(float[N]) y, bool h) "
            "{ y = Optional(x) h = OptionalHasElement(y) }"
        ),
        {"x": B},
    ),
    "nothing": ("g (optional(float[N]) x) => (bool h) { h = OptionalHasElement(x) }", {"x": None}),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_containers(case: str) -> None:
    text, feeds = CONTAINERS[case]
    content = model(HEAD.replace("17]", '17, "ai.onnx.ml": 3]') + text)
    theirs = onnxruntime.InferenceSession(content)
    ours = ortolan.InferenceSession(content)
    assert [a.type for a in ours.get_inputs()] == [a.type for a in theirs.get_inputs()]
    assert [a.type for a in ours.get_outputs()] == [a.type for a in theirs.get_outputs()]
    expected = theirs.run(None, feeds)
    for _ in range(2):
        for got, wanted in zip(ours.run(None, feeds), expected, strict=True):
            assert type(got) is type(wanted)
            if isinstance(wanted, list):
                assert len(got) == len(wanted)
                for a, b in zip(got, wanted, strict=True):
                    assert a == b if isinstance(b, dict) else np.array_equal(a, b)
            else:
                np.testing.assert_array_equal(got, wanted)


def test_what_is_no_container_is_refused() -> None:
    text, _ = CONTAINERS["a sequence"]
    session = ortolan.InferenceSession(model(HEAD + text))
    feeds: dict[str, Any] = {"s": [B], "x": B}
    for wrong, message in ((B, "a list"), ([B.astype(int)], "int64"), (None, "a list")):
        with pytest.raises(errors.InvalidArgument, match=message):
            session.run(None, {**feeds, "s": wrong})
    np.testing.assert_array_equal(session.run(["z"], feeds)[0], B)
    strings = ortolan.InferenceSession(
        model(HEAD + "g (string[N] s) => (string[N] t) { t = Identity(s) }")
    )
    with pytest.raises(errors.InvalidArgument, match="float"):
        strings.run(None, {"s": np.array(["a", 1.5], object)})


@BOTH
def test_what_has_nothing_in_it_is_padded(ort: Any) -> None:
    """Found by fuzzing: the place of an empty result was taken for the result of Pad."""
    head = HEAD.replace("17", "10")
    text = f"{head} g (float[N, 8] x) => (float[M, K] z) "
    text += "{ y = Relu(x) p = Pad <pads = [1, 2, 2, 0], value = 0.5> (y) z = Neg(p) }"
    session = ort.InferenceSession(model(text))
    for _ in range(2):
        (z,) = session.run(None, {"x": np.zeros((0, 8), np.float32)})
        np.testing.assert_array_equal(z, np.full((3, 10), -0.5, np.float32))
