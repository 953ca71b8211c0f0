"""Sessions under many threads: the same bytes come out whoever else is running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx.parser
import pytest
from onnx import numpy_helper

import ortolan

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
THREADS = 8
Array = npt.NDArray[np.float32]

# Every kind of kernel that splits its work, on tensors that are worth splitting.
_WIDE = """
    <ir_version: 8, opset_import: ["" : 17]>
    wide (float[1,16,h,w] x,
          float[32,16,3,3] w0, float[32] b0, float[32,1,3,3] w1, float[32,64] w2)
      => (float[1,n] y, float[1,32,p,q] image) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
      b = Sigmoid (a)
      c = Conv <pads = [1, 1, 1, 1], group = 32> (b, w1)
      image = Add (c, a)
      d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (image)
      e = Transpose <perm = [0, 2, 3, 1]> (d)
      f = MatMul (e, w2)
      g = Softmax (f)
      h = ReduceMean <axes = [3], keepdims = 0> (g)
      y = Flatten (h)
    }"""


def wide_model() -> bytes:
    """A model whose operators are large enough for several threads."""
    model = onnx.parser.parse_model(_WIDE)
    random = np.random.default_rng(0)
    while len(model.graph.input) > 1:
        value = model.graph.input.pop()
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        numbers = random.standard_normal(shape).astype(np.float32) * 0.2
        model.graph.initializer.append(numpy_helper.from_array(numbers, value.name))
    return ortolan.convert(model)


def make_session(model: bytes, threads: int) -> ortolan.InferenceSession:
    """A session with that many threads of its own."""
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = threads
    return ortolan.InferenceSession(model, options)


def run_in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Calls `work` in threads that start together; raises what the first failure raised."""
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def body(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def images(shape: tuple[int, ...], count: int) -> list[Array]:
    """Different inputs."""
    random = np.random.default_rng(1)
    return [random.uniform(0, 1, shape).astype(np.float32) for _ in range(count)]


def result_bytes(session: ortolan.InferenceSession, name: str, image: Array) -> bytes:
    """All results of a run, as one string of bytes."""
    return b"".join(result.tobytes() for result in session.run(None, {name: image}))


@pytest.mark.parametrize("intra_op_threads", [1, 2])
def test_one_session_in_many_threads(intra_op_threads: int) -> None:
    session = make_session(ortolan.convert(DIGITS), intra_op_threads)
    # Batches of different sizes: every thread plans its memory again and again.
    inputs = [image for n in (1, 3, 2, 8) for image in images((n, 1, 8, 8), 2)]
    expected = [result_bytes(session, "image", image) for image in inputs]
    assert len(set(expected)) == len(inputs)

    def work(index: int) -> None:
        for k in range(1000):
            which = (k + index) % len(inputs)
            assert result_bytes(session, "image", inputs[which]) == expected[which]

    run_in_threads(work)


@pytest.mark.parametrize("intra_op_threads", [1, 2, 3])
def test_wide_operators_in_many_threads(intra_op_threads: int) -> None:
    """Runs that find the pool of threads taken compute on their own, and the same."""
    model = wide_model()
    inputs = images((1, 16, 40, 44), 4)
    alone = make_session(model, 1)
    expected = [result_bytes(alone, "x", image) for image in inputs]
    session = make_session(model, intra_op_threads)

    def work(index: int) -> None:
        for k in range(40):
            which = (k + index) % len(inputs)
            assert result_bytes(session, "x", inputs[which]) == expected[which]

    run_in_threads(work)


def test_several_sessions_at_once() -> None:
    model = wide_model()
    inputs = images((1, 16, 24, 20), THREADS)
    alone = make_session(model, 1)
    expected = [result_bytes(alone, "x", image) for image in inputs]

    def work(index: int) -> None:
        for k in range(10):
            session = make_session(model, 1 + (index + k) % 3)
            for _ in range(5):
                assert result_bytes(session, "x", inputs[index]) == expected[index]

    run_in_threads(work)


@pytest.mark.parametrize("size", [(3, 5), (37, 41), (64, 64), (200, 3)])
def test_results_do_not_depend_on_the_number_of_threads(size: tuple[int, int]) -> None:
    model = wide_model()
    (image,) = images((1, 16, *size), 1)
    expected = result_bytes(make_session(model, 1), "x", image)
    for threads in (2, 3, 4, 7):
        assert result_bytes(make_session(model, threads), "x", image) == expected


@pytest.mark.parametrize("operator, gates", [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("hidden, batch", [(200, 1), (264, 1), (131, 3)])
def test_recurrent_layers_do_not_depend_on_the_number_of_threads(
    operator: str, gates: int, hidden: int, batch: int
) -> None:
    """Units of a step are divided over threads, and steps follow each other closely."""
    random = np.random.default_rng(2)
    shapes = {"w": (1, gates * hidden, 72), "r": (1, gates * hidden, hidden)}
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[9,{batch},72] x) => (float[a,b,c,d] y)'
        f" {{ y = {operator} <hidden_size = {hidden}> (x, w, r) }}"
    )
    for name, shape in shapes.items():
        array = (random.standard_normal(shape) * 0.1).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    content = ortolan.convert(model)
    (x,) = images((9, batch, 72), 1)
    expected = result_bytes(make_session(content, 1), "x", x)
    for threads in (2, 3, 4, 7):
        session = make_session(content, threads)
        for _ in range(20):
            assert result_bytes(session, "x", x) == expected


@pytest.mark.parametrize("threads", [2, 4])
def test_workers_that_wake_when_their_part_is_taken(threads: int) -> None:
    """Workers fall asleep between runs, and come when the caller has already done their part."""
    model = wide_model()
    sizes = [(8, 8), (16, 20), (40, 44)]
    inputs = [image for size in sizes for image in images((1, 16, *size), 1)]
    expected = [result_bytes(make_session(model, 1), "x", image) for image in inputs]
    session = make_session(model, threads)
    for k in range(800):
        if k % 8 == 0:
            time.sleep(0.0004)
        assert result_bytes(session, "x", inputs[k % 3]) == expected[k % 3]


@pytest.mark.parametrize("flushes", [False, True])
def test_denormals_are_flushed_by_all_threads_or_none(flushes: bool) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[N] x, float[N] f) => (float[N] y) { y = Mul (x, f) }"
    )
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.set_denormal_as_zero", str(int(flushes)))
    session = ortolan.InferenceSession(ortolan.convert(onnx.parser.parse_model(text)), options)
    small = np.full(1 << 20, 1e-20, np.float32)
    for _ in range(10):
        (y,) = session.run(None, {"x": small, "f": small})
        assert np.count_nonzero(y) == (0 if flushes else y.size)


@pytest.mark.slow
def test_an_idle_session_uses_no_processor() -> None:
    sessions = [make_session(wide_model(), threads) for threads in (1, 2, 4)]
    for session in sessions:
        result_bytes(session, "x", images((1, 16, 64, 64), 1)[0])
    time.sleep(0.1)
    start = time.process_time()
    time.sleep(10)
    assert time.process_time() - start < 0.02
