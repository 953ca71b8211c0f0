"""Memory runs out at every place where it is asked for: an error, nothing lost, and on it goes.

Each model is loaded, run twice with other shapes, and dropped, while the n-th request for memory is
refused, or all are from the n-th on, for every n. `test_sanitizers.py` does the same where every
piece of memory is a request of its own.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

import hostile_models
import ortolan
from ortolan import _native
from scarce_lib import NEVER, OUT_OF_MEMORY, Memory, Model, Run

Feeds = dict[str, Any]

# Strings and sequences in a Loop that makes more of them each time, an optional, a map.
_WORDS = """
<ir_version: 10, opset_import: ["" : 20, "ai.onnx.ml" : 3]>
words (string[N] x, float[N, 3] y, seq(float[K]) given, optional(float[2]) maybe, int64 trip)
    => (string[N] long, seq(float[M, 3]) parts, float[P, 3] joined, int64 count,
        seq(map(string, float)) named, seq(float[K]) more, optional(float[2]) same, string[2] pair)
{
    yes = Constant <value = bool {1}> ()
    piece = Constant <value_string = "-grün-"> ()
    start = SequenceConstruct (y)
    long, parts, count = Loop <body = turn (
            int64 i, bool go, string[N] text, seq(float[M, 3]) held)
            => (bool again, string[N] longer, seq(float[M, 3]) grown, int64 number) {
        again = Identity (go)
        longer = StringConcat (text, piece)
        grown = SequenceInsert (held, y)
        number = SequenceLength (grown)
    }> (trip, yes, x, start)
    joined = ConcatFromSequence <axis = 0> (parts)
    named = ai.onnx.ml.ZipMap <classlabels_strings = ["a", "bc", "d"]> (y)
    two = Constant <value_floats = [1.0, 2.0]> ()
    more = SequenceInsert (given, two)
    same = Identity (maybe)
    pair = Constant <value_strings = ["x", "ß"]> ()
}
"""

_HALF = """
<ir_version: 10, opset_import: ["" : 20]>
half (float16[N, 8] x) => (float16[N, 4] y)
    <float16[8, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                        1, 2, 3, 4, 5, 6, 7}>
{
    a = MatMul (x, w)
    y = Softmax (a)
}
"""

# Large enough for arrays of the loader and of a run to be requests of their own.
_CHAIN = (
    """
<ir_version: 10, opset_import: ["" : 20]>
chain (float[N] x, bool c) => (float[N] y)
{
    v0 = If (c) <then_branch = a () => (float[N] p) { p = Neg (x) },
                 else_branch = b () => (float[N] q) { q = Abs (x) }>
"""
    + "".join(f"    v{k + 1} = {('Sin', 'Neg')[k % 2]} (v{k})\n" for k in range(200))
    + """
    y = Identity (v200)
}
"""
)

_TEXTS = {"words": _WORDS, "half": _HALF, "chain": _CHAIN}


def _words_feeds(size: int) -> Feeds:
    return {
        "x": np.array([f"wörter {i}" * (i + 1) for i in range(size)], object),
        "y": np.linspace(-1, 1, 3 * size, dtype=np.float32).reshape(size, 3),
        "given": [np.arange(size, dtype=np.float32), np.zeros(0, np.float32)],
        "maybe": np.array([1, 2], np.float32),
        "trip": np.array(3 + size, np.int64),
    }


def _feeds(name: str) -> list[Feeds]:
    """Two sets of feeds with other shapes."""
    if name == "words":
        return [_words_feeds(1), _words_feeds(9)]
    if name == "half":
        return [{"x": np.ones((n, 8), np.float16)} for n in (1, 300)]
    if name == "chain":
        return [{"x": np.ones(n, np.float32), "c": np.array(n > 1)} for n in (1, 300)]
    first = hostile_models.FEEDS[name]
    key = "image" if name == "convnet" else "x"
    return [first, {**first, key: np.repeat(first[key], 9, axis=0)}]


@functools.cache
def _content(name: str, kind: str) -> bytes:
    """A model as a file of a kind."""
    if name in hostile_models.TEXTS:
        proto = hostile_models.model(name)
    else:
        proto = onnx.parser.parse_model(_TEXTS[name])
    if kind == "onnx":
        content: bytes = proto.SerializeToString()
        return content
    level = "all" if kind == "optimized" else "disable"
    return ortolan.convert(proto, level=level)


def _try(
    content: bytes, feeds: list[Feeds], expected: list[Any] | None, at: int, times: int,
    threads: str = "1",
) -> tuple[list[Any], bool, bool]:  # fmt: skip
    """Loads and runs with requests for memory refused.

    Returns:
        The results, whether a request was refused, and whether that was an error.
    """
    memory = Memory()
    memory.fail(at, times)
    options = {"session.intra_op_num_threads": threads}
    model = Model(content, memory, **options)
    results: list[Any] = []
    run = None
    statuses = [model.status]
    if model.status.code == 0:
        run = Run(model)
        statuses.append(run.status)
        for feed in feeds if run.status.code == 0 else ():
            status, outputs = run.execute(feed)
            statuses.append(status)
            results.append(outputs)
            assert status.code or expected is None or outputs == expected[len(results) - 1]
    refused = memory.calls > at
    failed = [status for status in statuses if status.code]
    assert refused or not failed
    for status in failed:
        assert status.code == OUT_OF_MEMORY, status
        assert "memory" in status.text, status
    memory.fail(NEVER)
    if run is not None:
        if run.status.code:  # it could not be made, and another can
            run.close()
            run = Run(model)
        assert run.status.code == 0
        for k, feed in enumerate(feeds):
            status, outputs = run.execute(feed)
            assert status.code == 0, status
            assert expected is None or outputs == expected[k]
        run.close()
    model.close()
    assert not memory.wrong
    assert memory.bytes == 0, f"{len(memory.live)} blocks of {memory.bytes} bytes are left"
    return results, refused, bool(failed)


def _every_request(name: str, kind: str, times: int, threads: str = "1") -> int:
    content, feeds = _content(name, kind), _feeds(name)
    expected, refused, _ = _try(content, feeds, None, NEVER, NEVER)
    assert not refused
    errors = 0
    for at in itertools.count():
        _, refused, failed = _try(content, feeds, expected, at, times, threads)
        errors += failed
        if not refused:
            break
    # A list of no items and the figures of a plan do without.
    assert errors == at if times == NEVER else errors > 0.85 * at
    return at


_MODELS = ("convnet", "control", "words", "half", "chain")


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("kind", ["plain", "onnx"])
def test_one_request_is_refused(name: str, kind: str) -> None:
    assert _every_request(name, kind, 1) > 15


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("kind", ["plain", "onnx", "optimized"])
def test_all_requests_from_one_on_are_refused(name: str, kind: str) -> None:
    assert _every_request(name, kind, NEVER) > 15


@pytest.mark.parametrize("name", ["convnet", "control"])
def test_requests_are_refused_with_threads(name: str) -> None:
    assert _every_request(name, "optimized", 1, "2") > 15


def test_what_fails_again_and_again_does_not_pile_up() -> None:
    memory = Memory()
    model = Model(_content("words", "plain"), memory)
    run = Run(model)
    feeds = _feeds("words")
    expected = [run.execute(feed)[1] for feed in feeds]
    sizes = []
    for turn in range(60):
        memory.fail(turn % 7)
        run.execute(feeds[turn % 2])
        memory.fail(NEVER)
        status, outputs = run.execute(feeds[1])
        assert (status.code, outputs) == (0, expected[1])
        sizes.append(memory.bytes)
    assert max(sizes[30:]) <= max(sizes[:30])
    run.close()
    model.close()
    assert memory.bytes == 0
    assert not memory.wrong


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at what Linux says is mapped")
def test_files_that_were_mapped_are_given_back(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        "g (float[64] x) => (float[64] y) <float[64] w = {1}> { y = Add (x, w) }"
    )
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones(64, np.float32), "w"))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    library = _native.library()
    for at in itertools.count():
        memory, handle = Memory(), ctypes.c_void_p()
        memory.fail(at, 1)
        code = library.ortolan_model_open(
            os.fsencode(path), None, 0, ctypes.addressof(memory.hooks), ctypes.byref(handle)
        )
        library.ortolan_model_release(handle)
        assert code in (0, OUT_OF_MEMORY)
        assert "weights.bin" not in Path("/proc/self/maps").read_text()
        if at >= memory.calls:
            break
    assert code == 0
    assert at > 5
