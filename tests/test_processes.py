"""Processes that fork, get signals, and interrupt or cancel runs: no hang, no other result.

Each script runs in a process of its own, so that a hang is a failure and not the end of the tests.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile_models
import ortolan
from ortolan import errors
from ortolan.runtime.environment import set_default_logger_callback
from ortolan.session import InferenceSession, RunOptions, SessionOptions
from scarce_lib import Memory, Model, Run
from test_session import ENDLESS, convert
from test_threads import wide_model

CANCELLED = 102
linux = pytest.mark.skipif(sys.platform != "linux", reason="forks and signals of Linux")

HEAD = """
import multiprocessing, os, pathlib, resource, signal, sys, threading, time
import numpy as np
from ortolan import errors
from ortolan.session import InferenceSession, SessionOptions

def make(path, threads=2):
    options = SessionOptions()
    options.intra_op_num_threads = threads
    return InferenceSession(path, options)

def feed(k):
    return {"x": np.random.default_rng(k).random((1, 16, 40, 44), np.float32)}

def result(session, k):
    return b"".join(each.tobytes() for each in session.run(None, feed(k)))

path = sys.argv[1]
"""


def run_script(body: str, model: bytes, folder: Path) -> str:
    """What a script prints whose ``path`` is of a file with the model."""
    path, script = folder / "model.ort", folder / "script.py"
    path.write_bytes(model)
    script.write_text(HEAD + body)
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


_SLOW = pytest.mark.slow


@linux
@pytest.mark.parametrize(
    "method",
    ["fork", pytest.param("spawn", marks=_SLOW), pytest.param("forkserver", marks=_SLOW)],
)
def test_sessions_in_other_processes(method: str, tmp_path: Path) -> None:
    """A session from before the fork, one of the child's own, and a child of the child."""
    out = run_script(
        f"""
session = None

def child(arguments):
    content, k = arguments
    own, inherited = make(content), session or make(content)
    return result(inherited, k), result(own, k), result(inherited, k)

def grandchild(content, k, queue):
    queue.put(child((content, k)))

def parent_too(content, k, queue):
    mine = child((content, k))
    again = multiprocessing.get_context({method!r}).Process(
        target=grandchild, args=(content, k, queue))
    again.start()
    queue.put(mine)
    again.join(60)
    assert again.exitcode == 0

if __name__ == "__main__":
    session = make(path)
    expected = [result(session, k) for k in range(6)]
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        given = [(path, k) for k in range(6)]
        assert pool.map_async(child, given).get(90) == [(e, e, e) for e in expected]
    queue = context.Queue()
    process = context.Process(target=parent_too, args=(path, 3, queue))
    process.start()
    assert [queue.get(timeout=60) for _ in range(2)] == [(expected[3],) * 3] * 2
    process.join(60)
    assert process.exitcode == 0
    assert result(session, 0) == expected[0]
    print("done")
""",
        wide_model(),
        tmp_path,
    )
    assert out.split() == ["done"]


@linux
def test_a_fork_while_the_pool_works(tmp_path: Path) -> None:
    out = run_script(
        """
session = make(path)
expected = result(session, 0)
stop = False

def work():
    while not stop:
        assert result(session, 0) == expected

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for k in range(25):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a hang ends the child
        good = result(session, 0) == expected and result(make(path), 0) == expected
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0, k
stop = True
for thread in threads:
    thread.join()
print("done")
""",
        wide_model(),
        tmp_path,
    )
    assert out.split() == ["done"]


@linux
def test_signals_do_not_disturb_a_run(tmp_path: Path) -> None:
    """A timer's signal each half millisecond: waiting goes on, and only the program gets it."""
    out = run_script(
        """
before = set(os.listdir("/proc/self/task"))
session = make(path, 3)
expected = [result(session, k) for k in range(4)]
got = []
signal.signal(signal.SIGALRM, lambda *_: got.append(threading.get_ident()))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for k in range(120):
    assert result(session, k % 4) == expected[k % 4]
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(got) > 20
# Threads of the pool leave signals to the others.
blocked = []
for task in set(os.listdir("/proc/self/task")) - before:
    lines = pathlib.Path("/proc/self/task", task, "status").read_text().splitlines()
    blocked += [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")]
for number in (signal.SIGINT, signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD):
    assert all(mask >> (number - 1) & 1 for mask in blocked), number
for number in (signal.SIGSEGV, signal.SIGBUS, 32, 33):
    assert not any(mask >> (number - 1) & 1 for mask in blocked), number
print(len(blocked))
""",
        wide_model(),
        tmp_path,
    )
    assert int(out) >= 2


@linux
@pytest.mark.slow
def test_an_interrupt_comes_when_the_run_is_over(tmp_path: Path) -> None:
    """Ctrl-C in runs with a large output: KeyboardInterrupt, nothing kept, the session works."""
    model = convert(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[N] x) => (float[N] y) { a = Erf(x) b = Tan(a) c = Erf(b) d = Tan(c) y = Erf(d) }"
    )
    out = run_script(
        """
session = make(path, 1)
x = np.linspace(-1, 1, 4 << 20, dtype=np.float32)  # 16 MB
expected = session.run(None, {"x": x})[0].sum()
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupts, peak = 0, 0
for turn in range(40):
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        session.run(None, {"x": x})
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    if turn == 10:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
assert interrupts > 30, interrupts
assert grown < 100_000, grown
assert session.run(None, {"x": x})[0].sum() == expected
print("done")
""",
        model,
        tmp_path,
    )
    assert out.split() == ["done"]


def test_a_cancel_is_for_the_execution_in_flight_or_the_next() -> None:
    model = Model(hostile_models.converted("control"), Memory())
    run, feeds = Run(model), hostile_models.FEEDS["control"]
    expected = run.execute(feeds)[1]
    for _ in range(2):
        model.library.ortolan_run_cancel(run.handle)
        assert run.execute(feeds)[0].code == CANCELLED
        status, outputs = run.execute(feeds)
        assert (status.code, outputs) == (0, expected)
    run.close()
    model.close()


def test_terminate_is_never_missed() -> None:
    """However close to the begin of an endless run it is set; and no later call is hit."""
    session = InferenceSession(convert(ENDLESS))
    feeds: dict[str, Any] = {"m": np.int64(2**62), "c": np.array(True), "x": np.ones(2, np.float32)}
    random = np.random.default_rng(3)
    for turn in range(300):
        options, begun = RunOptions(), threading.Event()

        def end(
            options: RunOptions = options, begun: threading.Event = begun,
            pause: float = float(random.random() * 1e-4),
        ) -> None:  # fmt: skip
            begun.wait()
            until = time.perf_counter() + pause
            while time.perf_counter() < until:
                pass
            options.terminate = True

        thread = threading.Thread(target=end)
        thread.start()
        begun.set()
        short = turn % 3 == 0
        try:
            session.run(None, {**feeds, "m": np.int64(40)} if short else feeds, options)
            assert short
        except errors.Cancelled:
            pass
        thread.join()
        np.testing.assert_array_equal(session.run(None, {**feeds, "m": np.int64(3)})[0], [-1, -1])


_UNLOAD = """
import _ctypes, ctypes, shutil
from ortolan import _native

copy = pathlib.Path(path).with_name("copy.so")
shutil.copy(_native.library_path(), copy)
library = ctypes.CDLL(str(copy))
load, release = library.ortolan_model_load, library.ortolan_model_release
load.argtypes = _native._SIGNATURES["ortolan_model_load"][1]
release.argtypes = [ctypes.c_void_p]
content, option = pathlib.Path(path).read_bytes(), _native.Option(
    b"session.intra_op_num_threads", b"3")
model = ctypes.c_void_p()
assert load(content, len(content), option, 1, None, model) == 0
release(model)
_ctypes.dlclose(library._handle)
time.sleep(0.05)
if os.fork() == 0:
    os._exit(0)
print(os.wait()[1])
"""


@linux
def test_a_library_that_is_unloaded_leaves_its_threads_their_code(tmp_path: Path) -> None:
    """They spin or sleep there, and a fork calls it."""
    assert run_script(_UNLOAD, hostile_models.converted("control"), tmp_path).split() == ["0"]


def test_what_terminates_too_late_is_not_for_the_next_call() -> None:
    """Set when the run is over and before its options know of it, and taken back at once."""
    session = InferenceSession(convert(ENDLESS))
    feeds: dict[str, Any] = {"m": np.int64(3), "c": np.array(True), "x": np.ones(2, np.float32)}

    class Calls(set[Any]):
        def discard(self, call: Any) -> None:
            options.terminate = True
            options.terminate = False
            super().discard(call)

    options = RunOptions()
    options._calls = Calls()
    for given in (options, None):
        np.testing.assert_array_equal(session.run(None, feeds, given)[0], [-1, -1])


def test_runs_from_within_callbacks() -> None:
    """A message's handler and an asynchronous call's may load and run models themselves."""
    content, feeds = hostile_models.converted("control"), hostile_models.FEEDS["control"]
    session = InferenceSession(content)
    expected = session.run(None, feeds)
    results: list[Any] = []

    def on_message(*_: Any) -> None:
        results.append(session.run(None, feeds))
        results.append(ortolan.InferenceSession(content).run(None, feeds))

    options = SessionOptions()
    options.log_severity_level = 0
    set_default_logger_callback(on_message, 4)
    try:
        InferenceSession(hostile_models.converted("convnet"), options)
    finally:
        set_default_logger_callback(None)
    done, left = threading.Event(), [20]

    def on_result(outputs: list[Any], _data: Any, message: str) -> None:
        assert message == ""
        results.append(outputs)
        results.append(session.run(None, feeds))
        left[0] -= 1
        if left[0]:
            session.run_async(None, feeds, on_result, None)
        else:
            done.set()

    session.run_async(None, feeds, on_result, None)
    assert done.wait(60)
    assert len(results) >= 42
    for result in results:
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_hook_for_messages_may_use_the_interface() -> None:
    content = hostile_models.converted("control")
    outer, codes = Memory(), list[int]()

    class Loading(list[str]):
        def append(self, text: str) -> None:
            super().append(text)
            inner = Model(content, Memory())
            run = Run(inner)
            codes.append(run.execute(hostile_models.FEEDS["control"])[0].code)
            run.close()
            inner.close()

    outer.messages = Loading()
    model = Model(content[:-100], outer)
    assert model.status.code
    assert list(outer.messages) == [model.status.text]
    assert codes == [0]
    model.close()
    assert outer.bytes == 0


def test_a_model_lives_as_long_as_its_runs() -> None:
    """The model is dropped first, then used and dropped by runs of several threads."""
    feeds = hostile_models.FEEDS["control"]
    for _ in range(20):
        memory = Memory()
        model = Model(hostile_models.converted("control"), memory)
        runs = [Run(model) for _ in range(4)]
        expected = runs[0].execute(feeds)
        assert expected[0].code == 0
        model.library.ortolan_model_release(model.handle)  # the runs hold it
        assert memory.bytes > 0
        results: list[Any] = []
        threads = [
            threading.Thread(target=_run_and_close, args=(run, feeds, results)) for run in runs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [expected] * 12
        assert memory.bytes == 0
        assert not memory.wrong


def _run_and_close(run: Run, feeds: Any, results: list[Any]) -> None:
    results += [run.execute(feeds) for _ in range(3)]
    run.close()


def test_signal_numbers_are_those_that_the_runtime_means() -> None:
    """Numbers of Linux's signals are the same on all processors that there are libraries for."""
    if sys.platform != "linux":
        pytest.skip("signals of Linux")
    faults = (signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE,
              signal.SIGSEGV, signal.SIGPROF, signal.SIGSYS)  # fmt: skip
    assert [int(each) for each in faults] == [4, 5, 6, 7, 8, 11, 27, 31]
