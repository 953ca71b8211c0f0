"""Files that are no files, full disks, writers that are killed: errors in words, nothing half.

What is tried with limits or signals runs in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile_models
import ortolan
from ortolan import errors
from ortolan.datasets import get_example
from ortolan.ortformat.writer import write_file
from ortolan.session import InferenceSession, SessionOptions

posix = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")
ROOT = Path(__file__).resolve().parents[1]
FEEDS = hostile_models.FEEDS["control"]


def onnx_bytes() -> bytes:
    """The ONNX model."""
    content: bytes = hostile_models.model("control").SerializeToString()
    return content


def plain() -> SessionOptions:
    """Level disable: `.onnx` files are opened by the runtime itself."""
    options = SessionOptions()
    options.graph_optimization_level = ortolan.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


WAYS: dict[str, Callable[[str], object]] = {
    "session": InferenceSession,
    "plain session": lambda path: InferenceSession(path, plain()),
    "convert": ortolan.convert,
}


def _odd(kind: str, folder: Path) -> str:
    path = folder / f"{kind}.{'onnx' if 'onnx' in kind else 'ort'}"
    if kind.startswith("empty"):
        path.write_bytes(b"")
    elif kind.startswith("folder"):
        path.mkdir()
    elif kind.startswith("loop"):
        path.symlink_to(path)
    elif kind.startswith("dangling"):
        path.symlink_to(folder / "nowhere")
    elif kind.startswith("pipe"):
        os.mkfifo(path)
    elif kind.startswith("below"):
        path.write_bytes(b"x")
        return str(path / "model.ort")
    elif kind == "device":
        return "/dev/zero"
    elif kind == "zero byte":
        return f"{path}\0.ort"
    elif kind == "long name":
        return str(folder / ("n" * 5000))
    return str(path)


KINDS = {
    "empty": "0 bytes|empty", "empty onnx": "0 bytes|empty",
    "folder": "directory", "folder onnx": "directory",
    "loop": "symbolic links", "loop onnx": "symbolic links",
    "dangling": "No such file", "missing onnx": "No such file",
    "pipe": "nothing came through this pipe", "pipe onnx": "nothing came through this pipe",
    "below": "Not a directory", "device": "device", "zero byte": "null byte",
    "long name": "name too long",
}  # fmt: skip


@posix
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_file_is_told(kind: str, way: str, tmp_path: Path) -> None:
    with pytest.raises(errors.OrtolanError, match=KINDS[kind]) as caught:
        WAYS[way](_odd(kind, tmp_path))
    assert type(caught.value) is not errors.Fail


@posix
@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "device", "missing"])
def test_the_runtime_itself_opens_files_only(kind: str, tmp_path: Path) -> None:
    """By the C interface, which waits for nobody."""
    import ctypes

    from ortolan import _native

    library, handle = _native.library(), ctypes.c_void_p()
    path = _odd(kind, tmp_path)
    code = library.ortolan_model_open(os.fsencode(path), None, 0, None, ctypes.byref(handle))
    assert code
    assert library.ortolan_model_error(handle.value)
    library.ortolan_model_release(handle.value)


@posix
@pytest.mark.parametrize("kind", ["ort", "onnx"])
@pytest.mark.parametrize("way", WAYS)
def test_models_come_through_pipes(kind: str, way: str, tmp_path: Path) -> None:
    content = onnx_bytes() if kind == "onnx" else hostile_models.converted("control")
    if way == "convert" and kind == "ort":
        content = hostile_models.converted("control", "basic")
    reader, writer = os.pipe()

    def write() -> None:
        for at in range(0, len(content), 1000):
            os.write(writer, content[at : at + 1000])
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        made: Any = WAYS[way](f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        thread.join()
    session = InferenceSession(made) if isinstance(made, bytes) else made
    expected = InferenceSession(hostile_models.converted("control")).run(None, FEEDS)
    for a, b in zip(session.run(None, FEEDS), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@posix
def test_commands_read_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ortolan.cli"]
    out = tmp_path / "out.ort"
    done = subprocess.run(
        [*command, "inspect", "/dev/stdin"], input=onnx_bytes(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"LSTM" in done.stdout
    done = subprocess.run(
        [*command, "convert", "/dev/stdin", "-o", str(out)], input=onnx_bytes(),
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert InferenceSession(out).get_outputs()


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="names there are text")
def test_names_need_not_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTOLAN_CACHE", str(tmp_path / "cache"))
    name = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn\xff.onnx")
    Path(name).write_bytes(onnx_bytes())
    converted = name + ".ort"
    ortolan.convert(name, converted)
    for session in (
        InferenceSession(name), InferenceSession(name), InferenceSession(name, plain()),
        InferenceSession(converted),
    ):  # fmt: skip
        assert len(session.run(None, FEEDS)) == 7
    done = subprocess.run(
        [sys.executable, "-m", "ortolan.cli", "convert", name, "-o", str(tmp_path / "out.ort")],
        capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with pytest.raises(errors.NoSuchFile):
        InferenceSession(name + "x")


def test_a_file_that_is_read_may_be_shortened(tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    content = hostile_models.converted("control")
    path.write_bytes(content)
    options = SessionOptions()
    options.add_session_config_entry("session.use_memory_mapped_ort_model", "0")
    session = InferenceSession(path, options)
    expected = session.run(None, FEEDS)
    path.write_bytes(b"")
    for a, b in zip(session.run(None, FEEDS), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_that_is_mapped_may_be_replaced_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    path.write_bytes(hostile_models.converted("control"))
    session = InferenceSession(path)
    expected = session.run(None, FEEDS)
    write_file(path, b"something else")
    path.unlink()
    for a, b in zip(session.run(None, FEEDS), expected, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- Disks that are full, and folders that cannot be written to.

_WRITE = """
import os, pathlib, resource, signal, sys
import ortolan
from ortolan import errors
from ortolan.session import InferenceSession, SessionOptions

source, folder, how = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
ortolan.convert(source)  # imports what it needs
if how == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
for target in ("new.ort", "old.ort", "new.onnx"):
    try:
        ortolan.convert(source, folder / target)
        print("written", target)
    except errors.Fail as error:
        assert "cannot be written" in str(error) and str(folder) in str(error), error
options = SessionOptions()
options.optimized_model_filepath = str(folder / "optimized.onnx")
try:
    InferenceSession(source, options)
    print("written", options.optimized_model_filepath)
except errors.Fail as error:
    assert "cannot be written" in str(error), error
os.environ["ORTOLAN_CACHE"] = str(folder / "cache")
session = InferenceSession(source)  # works without its cache
assert session.get_outputs()
print(*sorted(os.listdir(folder)))
"""


@posix
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_where_nothing_can_be_written(how: str, tmp_path: Path) -> None:
    source, folder = tmp_path / "model.onnx", tmp_path / "place"
    source.write_bytes(onnx_bytes())
    folder.mkdir()
    (folder / "old.ort").write_bytes(b"what was there")
    command = [sys.executable, "-c", _WRITE, str(source), str(folder), how]
    if how == "read-only":
        folder.chmod(0o555)
        if os.geteuid() == 0:  # who may write everywhere, unless that is taken from him
            setpriv = shutil.which("setpriv")
            if setpriv is None:
                pytest.skip("root without setpriv writes everywhere")
            command = [setpriv, "--bounding-set=-all", "--inh-caps=-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    left = [name for name in done.stdout.split() if name != "cache"]
    assert left == ["old.ort"]
    assert (folder / "old.ort").read_bytes() == b"what was there"


# ---- Writers that are killed.

_LOOP = """
import sys
import ortolan
first, second, target = sys.argv[1:]
while True:
    for source in (first, second):
        ortolan.convert(source, target)
        print("done", flush=True)
"""


@posix
@pytest.mark.slow
def test_a_killed_conversion_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    names = ("control", "convnet")
    sources = [tmp_path / f"{name}.onnx" for name in names]
    for name, source in zip(names, sources, strict=True):
        source.write_bytes(hostile_models.model(name).SerializeToString())
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "model.ort"
    whole = {ortolan.convert(source) for source in sources}
    random = np.random.default_rng(5)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _LOOP, *map(str, (*sources, target))], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"done\n"
            time.sleep(float(random.random()) * 0.2)
            child.send_signal(signal.SIGKILL)
        assert target.read_bytes() in whole
    for left in folder.iterdir():
        assert left == target or left.name.startswith(".model.ort.")
        os.utime(left, (0, 0))  # long ago
    write_file(target, b"new")
    assert os.listdir(folder) == ["model.ort"]  # noqa: PTH208 - names that begin with a dot, too


def test_only_own_remains_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "model.ort"
    others = [".model.ort.swp", ".model.ort.0123456789abcdeg", ".other.ort.0123456789abcdef",
              "model.ort.0123456789abcdef", ".model.ort.0123456789abcdef"]  # fmt: skip
    for name in others:
        (tmp_path / name).write_bytes(b"")
        if name != others[-1]:
            os.utime(tmp_path / name, (0, 0))
    write_file(target, b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "model.ort"])
    os.utime(tmp_path / others[-1], (0, 0))
    write_file(target, b"content")
    assert not (tmp_path / others[-1]).exists()


@posix
def test_examples_lie_in_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that somebody laid in the folder for all would lead elsewhere."""
    monkeypatch.setattr("importlib.machinery.PathFinder.find_spec", lambda *_: None)
    path = Path(get_example("sigmoid.onnx"))
    assert path.parent.parent == Path(tempfile.gettempdir())
    assert path.parent.stat().st_mode & 0o077 == 0
    assert get_example("sigmoid.onnx") == str(path)
