"""Damaged files and wrong feeds through the Python API: an error with code and place, or a result.

The files are tried in another process, so that a crash is seen as one. ``test_sanitizers.py`` tries
more of them, and sees more.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile_models
import mutate
from ortolan import errors
from ortolan.session import InferenceSession

SEED = int(os.environ.get("ORTOLAN_TEST_SEED", "20261123"))
RANDOM_MODELS = 1000

PROGRAM = """
import pickle, sys
import numpy as np
from ortolan.errors import OrtolanError
from ortolan.session import InferenceSession, SessionOptions
files, feeds = pickle.load(open(sys.argv[1], "rb"))
options = SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("ortolan.max_tensor_bytes", str(1 << 26))
options.add_session_config_entry("ortolan.max_iterations", "1000")
refused = ran = 0
for content in files:
    try:
        InferenceSession(content, options).run(None, feeds)
        ran += 1
    except OrtolanError as error:
        assert error.code != 0 and str(error), "an error without code or text"
        refused += 1
print(refused, ran)
"""


# Also by the converter, at a level that has most passes.
CONVERTER = """
import sys
import ortolan
from ortolan.errors import OrtolanError
from ortolan.session import InferenceSession as session
for name in sys.argv[1:]:
    for attempt in (lambda: ortolan.convert(name, level="basic"), lambda: session(name)):
        try:
            attempt()
        except OrtolanError as error:
            assert error.code != 0 and str(error), "an error without code or text"
    print(name)
"""
FOUND = sorted((Path(__file__).with_name("fuzz") / "found").iterdir())


def outcome(files: list[bytes], feeds: dict[str, Any], folder: Path) -> tuple[int, int]:
    """How many files were refused and how many ran, in a process of their own."""
    path = folder / "files.pickle"
    path.write_bytes(pickle.dumps((files, feeds)))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    refused, ran = done.stdout.split()
    return int(refused), int(ran)


@pytest.mark.parametrize("name", ["convnet", pytest.param("control", marks=pytest.mark.slow)])
def test_mutants(name: str, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    files = list(mutate.mutants(hostile_models.converted(name), SEED, 1000))
    refused, ran = outcome(files, hostile_models.FEEDS[name], tmp_path)
    assert refused + ran == 1000
    assert refused > 100, "the mutants are too tame"


@pytest.mark.parametrize("name", ["convnet", "control"])
def test_truncations(name: str, tmp_path: Path) -> None:
    content = hostile_models.converted(name)
    ends = {*range(min(1024, len(content))), *range(max(len(content) - 1024, 0), len(content))}
    ends |= set(range(0, len(content), 101))
    files = [content[:end] for end in sorted(ends)]
    assert outcome(files, hostile_models.FEEDS[name], tmp_path) == (len(files), 0)


def test_all_unknown_operators_are_named() -> None:
    content = hostile_models.converted("convnet")
    session = mutate.load(content)
    graph = session.model.graph
    graph.nodes[0].op_type, graph.nodes[1].op_type = "Frobnicate", "Twiddle"
    from ortolan.ortformat.writer import write

    with pytest.raises(errors.NotImplemented, match=r"Frobnicate.*Twiddle|Twiddle.*Frobnicate"):
        InferenceSession(write(session))


X = hostile_models.FEEDS["control"]["x"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown name": ({"nothing": X}, "nothing"),
    "a wrong type": ({"x": X.astype(np.float64)}, "float64"),
    "integers for floats": ({"x": X.astype(np.int64)}, "int64"),
    "a wrong rank": ({"x": X[0]}, "dimensions"),
    "objects": ({"x": X.astype(object)}, "object"),
    "text": ({"x": np.full(X.shape, "a")}, "x"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_feeds_are_refused(case: str) -> None:
    session = InferenceSession(hostile_models.converted("control"))
    changed, text = WRONG[case]
    with pytest.raises(errors.InvalidArgument, match=text):
        session.run(None, {**hostile_models.FEEDS["control"], **changed})


def test_a_missing_feed_is_named() -> None:
    session = InferenceSession(hostile_models.converted("control"))
    feeds = {k: v for k, v in hostile_models.FEEDS["control"].items() if k != "h"}
    with pytest.raises(errors.InvalidArgument, match=r"\['h'\]"):
        session.run(None, feeds)


@pytest.mark.parametrize("kind", ["strided", "swapped", "read-only", "fortran", "list"])
def test_unusual_feeds_are_right(kind: str) -> None:
    session = InferenceSession(hostile_models.converted("control"))
    feeds = dict(hostile_models.FEEDS["control"])
    expected = session.run(None, feeds)
    unusual: Any = np.repeat(X, 2, axis=2)[:, :, ::2]
    if kind == "swapped":
        unusual = X.astype(X.dtype.newbyteorder())
    elif kind == "read-only":
        unusual = X.copy()
        unusual.flags.writeable = False
    elif kind == "fortran":
        unusual = np.asfortranarray(X)
    elif kind == "list":
        unusual = X.tolist()
    for a, b in zip(session.run(None, {**feeds, "x": unusual}), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_fuzzing_found_is_refused_or_converted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONVERTER, *map(str, FOUND)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "ORTOLAN_CACHE": "off"},
    )  # fmt: skip
    assert done.returncode == 0, f"after {done.stdout[-200:]}: {done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) == len(FOUND)


NODES = """
import random, sys
import random_nodes
import ortolan
from ortolan.errors import OrtolanError
draw, accepted = random.Random(int(sys.argv[1])), 0
options = ortolan.SessionOptions()
options.add_session_config_entry("ortolan.max_tensor_bytes", str(1 << 26))
for k in range(int(sys.argv[2])):
    model = random_nodes.make(draw.randbytes(draw.choice((60, 120, 300)))).SerializeToString()
    print("model", k, file=sys.stderr)
    try:
        ortolan.InferenceSession(ortolan.convert(model, level="all"), options)
        accepted += 1
    except OrtolanError as error:
        assert error.code != 0 and str(error), "an error without code or text"
print(accepted)
"""


def test_random_nodes_are_refused_or_become_a_session() -> None:
    folders = [str(Path(__file__).parent / "fuzz"), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", NODES, str(SEED), str(RANDOM_MODELS)],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "ORTOLAN_CACHE": "off", "PYTHONPATH": os.pathsep.join(folders)},
    )  # fmt: skip
    assert done.returncode == 0, f"seed {SEED}: {done.stderr[-2000:]}"
    assert int(done.stdout) > RANDOM_MODELS // 4
