"""The cache of converted models: what decides on an entry, and that no harm comes from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import ortolan
from ortolan import cache, cache_notes
from ortolan._native import library_path
from ortolan.cache_notes import Note, facts_of, folder
from ortolan.external_data import external_files
from ortolan.session import GraphOptimizationLevel, InferenceSession, SessionOptions

MODEL = onnx.parser.parse_model(
    """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y)
    <float[2] w = {1.0, 2.0}> { a = Add(x, w) y = Relu(a) }"""
)
SETTINGS = ("all", "{}", "{}")
X = np.array([[1, -4]], np.float32)
Y = np.array([[2, 0]], np.float32)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the cache, which is not there yet."""
    monkeypatch.setenv("ORTOLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(MODEL, path)
    return path


def entries(place: Path, pattern: str = "*[!e]") -> list[Path]:
    """What is in the cache, but notes."""
    return sorted(place.glob(pattern))


def settle(path: Path) -> None:
    """Makes a file so old that its time can be trusted."""
    old = time.time() - 100
    os.utime(path, (old, old))


def opens(source: Path | bytes, level: str = "ORT_ENABLE_ALL") -> None:
    """Opens a model and holds that it computes what it should."""
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel[level]
    (y,) = InferenceSession(source, options).run(None, {"x": X})
    np.testing.assert_array_equal(y, Y)


def is_converted(source: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether opening a model converts it."""
    calls = []
    convert = InferenceSession._convert

    def counted(session: InferenceSession, model: str | bytes) -> bytes:
        calls.append(model)
        return convert(session, model)

    with monkeypatch.context() as patch:
        patch.setattr(InferenceSession, "_convert", counted)
        opens(source)
    return bool(calls)


def test_the_second_time_nothing_is_converted(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_converted(model, monkeypatch)
    (entry,) = entries(place)
    assert not is_converted(model, monkeypatch)
    assert entries(place) == [entry]
    # Content counts, not the path: the bytes are the same entry, and so is a copy.
    copy = model.with_name("copy.onnx")
    copy.write_bytes(model.read_bytes())
    assert not is_converted(copy, monkeypatch)
    opens(model.read_bytes())
    assert entries(place) == [entry]


def test_content_and_level_decide(model: Path, place: Path) -> None:
    opens(model)
    opens(model, "ORT_ENABLE_BASIC")
    opens(model, "ORT_DISABLE_ALL")  # never kept: it is as fast without
    assert len(entries(place)) == 2
    other = onnx.ModelProto()
    other.CopyFrom(MODEL)
    other.doc_string = "another one"
    onnx.save(other, model)
    opens(model)
    assert len(entries(place)) == 3


def test_a_note_spares_reading_the_model(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read_key = cache._key

    def counted(source: str | bytes, settings: Sequence[str], files: cache.Files) -> str | None:
        reads.append(source)
        return read_key(source, settings, files)

    monkeypatch.setattr(cache, "_key", counted)

    def is_read() -> bool:
        reads.clear()
        opens(model)
        return bool(reads)

    # A model that was written just now may change again: no note is taken of it.
    assert is_read() and is_read()
    assert entries(place, "*.note") == []
    settle(model)
    assert is_read() and not is_read()
    # Another time, size, or entry: the note says nothing any more, and is taken again.
    model.write_bytes(model.read_bytes())
    assert is_read()
    settle(model)
    assert is_read() and not is_read()
    (entry,) = entries(place)
    entry.write_bytes(entry.read_bytes()[:-1] + b"\0")
    assert is_read() and is_read() is False
    (note,) = entries(place, "*.note")
    told = note.read_bytes()
    for text in (b"", b"[]", b"\n", told[:-5], told[1:], told + b"x\n", told.replace(b" ", b"")):
        note.write_bytes(text)
        assert not is_read()  # this process knows what it said
        cache_notes._SEEN.clear()
        assert is_read() and not is_read()


def test_a_note_of_somebody_else(model: Path, place: Path, tmp_path: Path) -> None:
    """A note that names a file elsewhere is not followed."""
    settle(model)
    opens(model)
    (note,) = entries(place, "*.note")
    (entry,) = entries(place)
    elsewhere = tmp_path / "elsewhere.ort"
    elsewhere.write_bytes(entry.read_bytes())
    kept = Note(str(place), str(model), SETTINGS)
    assert kept.path == str(note)
    assert kept.entry() == str(entry)
    title, _, *rest = note.read_text().split("\n")
    row = f"{facts_of(elsewhere.stat(), is_entry=True)} {elsewhere}"
    note.write_text("\n".join([title, row, *rest]))
    assert kept.entry() == str(entry)  # this process knows what it said
    cache_notes._SEEN.clear()
    assert kept.entry() is None


def test_off(model: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTOLAN_CACHE", "off")
    assert folder() is None
    assert is_converted(model, monkeypatch) and is_converted(model, monkeypatch)
    assert entries(place) == []


@pytest.mark.parametrize(
    ("platform", "variables", "wanted"),
    [
        ("linux", {"XDG_CACHE_HOME": "{tmp}/xdg"}, "{tmp}/xdg/ortolan"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "{tmp}/.cache/ortolan"),
        ("linux", {}, "{tmp}/.cache/ortolan"),
        ("darwin", {}, "{tmp}/Library/Caches/ortolan"),
        ("win32", {"LOCALAPPDATA": "{tmp}/local"}, "{tmp}/local/ortolan"),
        ("linux", {"ORTOLAN_CACHE": "{tmp}/named"}, "{tmp}/named"),
    ],
)
def test_folders_are_those_of_the_system(
    platform: str,
    variables: dict[str, str],
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ORTOLAN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    assert Path(folder() or "") == Path(wanted.format(tmp=tmp_path))


def _flip(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


@pytest.mark.parametrize(
    "damage",
    [lambda d: b"", lambda d: d[:100], _flip, lambda d: d + d, lambda d: b"ORTM" * 500],
    ids=["empty", "cut", "flipped", "doubled", "other"],
)
def test_damaged_entries_are_made_again(
    damage: object, model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens(model)
    (entry,) = entries(place)
    good = entry.read_bytes()
    assert callable(damage)
    entry.write_bytes(damage(good))
    assert is_converted(model, monkeypatch)
    assert entry.read_bytes() == good


def test_an_entry_that_this_release_cannot_open(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole as it may be, what does not open is converted again."""
    opens(model)
    (entry,) = entries(place)
    good = entry.read_bytes()
    cache._store(entry, good[:4] + b"ORTM" + bytes(500))
    assert cache._is_whole(entry)
    assert is_converted(model, monkeypatch)
    assert entry.read_bytes() == good


def test_a_folder_that_cannot_be_written_to(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ORTOLAN_CACHE", str(tmp_path / "file" / "below"))
    opens(model)
    assert "converted models cannot be kept" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What could be written of the entry goes again."""
    real = Path.open

    def full(path: Path, mode: str = "r") -> object:
        if mode == "xb":
            real(path, mode).close()
            return real(Path("/dev/full"), "wb", buffering=0)
        return real(path, mode)

    monkeypatch.setattr(Path, "open", full)
    opens(model)
    assert "No space left" in caplog.text
    assert entries(place) == []


def test_the_least_recently_used_go_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()
    names = [letter * 64 for letter in "abc"]
    for age, name in enumerate(names):
        path = place / f"{name}.ort"
        path.write_bytes(bytes(400_000))
        os.utime(path, (time.time() - age * 100,) * 2)
    left_behind = place / f"{'e' * 64}.{'0' * 16}.tmp"
    left_behind.write_bytes(b"")
    os.utime(left_behind, (0, 0))
    being_written = place / f"{'f' * 64}.{'0' * 16}.tmp"
    being_written.write_bytes(b"")
    monkeypatch.setenv("ORTOLAN_CACHE_LIMIT", "1")
    cache._store(place / f"{'d' * 64}.ort", bytes(300_000))
    # 1 MB holds the new one and the one that was used last.
    assert [path.name[0] for path in entries(place)] == ["a", "d", "f"]
    cache._store(place / f"{'9' * 64}.ort", bytes(2 << 20))
    assert not (place / f"{'9' * 64}.ort").exists()


def test_other_files_of_the_folder_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir()
    others = [place / name for name in ("mine.ort", "mine.note", "mine.tmp", "a.b.tmp")]
    unfinished = place / f"{'0' * 64}.{'1' * 16}.tmp"
    for path in (*others, unfinished):
        path.write_bytes(bytes(1 << 20))
        os.utime(path, (0, 0))
    monkeypatch.setenv("ORTOLAN_CACHE_LIMIT", "1")
    cache._store(place / f"{'2' * 64}.ort", bytes(1 << 19))
    assert all(path.exists() for path in others)
    assert not unfinished.exists()


def test_many_processes(model: Path, place: Path) -> None:
    code = (
        "import sys, numpy as np; from ortolan import InferenceSession\n"
        "for _ in range(5):\n"
        "    s = InferenceSession(sys.argv[1])\n"
        "    assert s.run(None, {'x': np.array([[1, -4]], np.float32)})[0].tolist() == [[2, 0]]\n"
    )
    command = [sys.executable, "-c", code, str(model)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    (entry,) = entries(place)
    assert cache._is_whole(entry)


def test_opening_imports_no_converter(model: Path, place: Path, tmp_path: Path) -> None:
    """Neither an .ort file nor a model that is in the cache."""
    opens(model)
    (entry,) = entries(place)
    ort = tmp_path / "model.ort"
    ort.write_bytes(entry.read_bytes())
    code = (
        "import sys, numpy as np; from ortolan import InferenceSession\n"
        "s = InferenceSession(sys.argv[1])\n"
        "assert s.run(None, {'x': np.array([[1, -4]], np.float32)})[0].tolist() == [[2, 0]]\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'onnx', 'onnx_ir', 'onnxscript', 'typer', 'rich', 'google'}))"
    )
    for path in (ort, model):
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


def external(name: str, location: str) -> onnx.TensorProto:
    """A constant of two numbers in another file."""
    tensor = numpy_helper.from_array(np.array([1, 2], np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_external_data_decides_too(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = onnx.ModelProto()
    source.CopyFrom(MODEL)
    source.graph.initializer[0].CopyFrom(external("w", "w.bin"))
    model.write_bytes(source.SerializeToString())
    data = model.with_name("w.bin")
    data.write_bytes(np.array([1, 2], np.float32).tobytes())
    assert is_converted(model, monkeypatch)
    assert not is_converted(model, monkeypatch)
    data.write_bytes(np.array([1, 3], np.float32).tobytes())
    assert is_converted(model, monkeypatch)
    assert len(entries(place)) == 2


def test_external_data_is_found_wherever_it_is(tmp_path: Path) -> None:
    def holder(name: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=external(name, f"{name}.bin"))

    body = helper.make_graph([holder("in_body")], "b", [], [])
    function = helper.make_function(
        "f", "F", [], ["in_function"], [holder("in_function")], [helper.make_opsetid("", 17)]
    )
    sparse = helper.make_sparse_tensor(
        external("in_sparse", "in_sparse.bin"), external("i", "in_indices.bin"), [4]
    )
    graph = helper.make_graph(
        [
            holder("in_node"),
            helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body),
            helper.make_node("Other", [], ["t"], tensors=[external("t", "in_list.bin")]),
        ],
        "g", [], [], [external("w", "in_graph.bin"), numpy_helper.from_array(X, "location")],
    )  # fmt: skip
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(graph, functions=[function], doc_string="location of nothing")
    found = external_files(model.SerializeToString(), tmp_path)
    assert sorted(path.stem for path in found) == [
        "in_body", "in_function", "in_graph", "in_indices", "in_list", "in_node", "in_sparse",
    ]  # fmt: skip
    assert {path.parent for path in found} == {tmp_path}


def test_external_data_elsewhere_is_not_looked_at(tmp_path: Path) -> None:
    graph = helper.make_graph([], "g", [], [], [external("w", "../secret")])
    content = helper.make_model(graph).SerializeToString()
    with pytest.raises(ValueError, match="outside"):
        external_files(content, tmp_path)
    with pytest.raises(ValueError, match="without a folder"):
        external_files(content, None)
    for size in range(0, len(content), 3):
        if b"location" in content[:size]:
            with pytest.raises(ValueError):
                external_files(content[:size], tmp_path / "other")


def test_another_library_has_entries_of_its_own(
    model: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens(model)
    other = tmp_path / "other.so"  # what folds constants may lack operators
    other.write_bytes(Path(library_path()).read_bytes())
    monkeypatch.setenv("ORTOLAN_LIBRARY", str(other))
    opens(model)
    assert len(entries(place)) == 2


def constant(path: Path, value: float, *, external_file: str = "") -> Path:
    """A model that answers a number, which may lie in a file beside it; old enough for a note."""
    w = numpy_helper.from_array(np.array([value], np.float32), "w")
    if external_file:
        (path.parent / external_file).write_bytes(w.raw_data)
        settle(path.parent / external_file)
        w = external("w", external_file)
        w.dims[:] = [1]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [w])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    settle(path)
    return path


def value(path: Path) -> float:
    found: float = InferenceSession(path).run(None, {"x": np.zeros(1, np.float32)})[0][0]
    return found


def switch(link: Path, target: Path) -> None:
    """Makes a link name another file, as a release does."""
    link.with_suffix(".new").symlink_to(target)
    link.with_suffix(".new").replace(link)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
class TestLinks:
    def test_dots_are_the_systems(self, place: Path, tmp_path: Path) -> None:
        """``link/../m.onnx`` is beside what the link names, not beside the link."""
        for name in ("here", "other/sub"):
            (tmp_path / name).mkdir(parents=True)
        here = constant(tmp_path / "here/m.onnx", 1)
        constant(tmp_path / "other/m.onnx", 2)
        (tmp_path / "here/link").symlink_to("../other/sub")
        for _ in range(2):
            assert value(Path(f"{tmp_path}/here/link/../m.onnx")) == 2
            assert value(here) == 1

    def test_a_model_that_is_replaced_meanwhile(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = (constant(tmp_path / f"{i}.onnx", i) for i in (1, 2))
        link = tmp_path / "model.onnx"
        convert = InferenceSession._convert
        for is_before in (True, False):
            switch(link, one)

            def switching(
                session: InferenceSession, source: str | bytes, is_before: bool = is_before
            ) -> bytes:
                if is_before:
                    switch(link, two)
                content = convert(session, source)
                switch(link, two)
                return content

            monkeypatch.setattr(InferenceSession, "_convert", switching)
            assert value(link) == (2 if is_before else 1)
            monkeypatch.setattr(InferenceSession, "_convert", convert)
            assert [value(one), value(two), value(link)] == [1, 2, 2]
            for entry in entries(place, "*"):
                entry.unlink()

    def test_weights_behind_a_link(self, place: Path, tmp_path: Path) -> None:
        model = constant(tmp_path / "m.onnx", 2, external_file="two.bin")
        constant(tmp_path / "m.onnx", 1, external_file="one.bin")
        (tmp_path / "w.bin").symlink_to("one.bin")
        graph = onnx.load(model, load_external_data=False)
        graph.graph.initializer[0].external_data[0].value = "w.bin"
        model.write_bytes(graph.SerializeToString())
        settle(model)
        assert [value(model) for _ in range(3)] == [1, 1, 1]
        switch(tmp_path / "w.bin", Path("two.bin"))
        assert value(model) == 2

    def test_a_folder_that_is_switched(self, place: Path, tmp_path: Path) -> None:
        for i in (1, 2):
            (tmp_path / f"v{i}").mkdir()
            constant(tmp_path / f"v{i}/m.onnx", i, external_file="w.bin")
        (tmp_path / "v2/m.onnx").unlink()
        os.link(tmp_path / "v1/m.onnx", tmp_path / "v2/m.onnx")
        link = tmp_path / "current"
        switch(link, Path("v1"))
        assert [value(link / "m.onnx") for _ in range(3)] == [1, 1, 1]
        switch(link, Path("v2"))
        assert value(link / "m.onnx") == 2

    def test_other_content_with_the_same_times(self, place: Path, tmp_path: Path) -> None:
        model = constant(tmp_path / "m.onnx", 1)
        assert [value(model) for _ in range(3)] == [1, 1, 1]
        times = model.stat().st_mtime_ns
        model.write_bytes(constant(tmp_path / "other.onnx", 2).read_bytes())
        os.utime(model, ns=(times, times))
        assert value(model) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_external_data_that_is_a_pipe(place: Path, tmp_path: Path) -> None:
    model = constant(tmp_path / "m.onnx", 1, external_file="w.bin")
    (tmp_path / "w.bin").unlink()
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(ortolan.OrtolanError, match=r"w\.bin"):
        value(model)


def test_a_folder_that_is_gone(place: Path, tmp_path: Path) -> None:
    """A path from a working folder that was deleted names no file."""
    code = (
        "import os, ortolan\n"
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "try: ortolan.InferenceSession('m.onnx')\n"
        "except ortolan.errors.NoSuchFile: print('fine')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import ortolan.errors\n" + code], cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr
