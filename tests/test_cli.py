"""The command line, in the process and once as a program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from ortolan import cli, errors
from ortolan.commands.run import write_arrays
from ortolan.conversion import convert
from ortolan.feeds import parse_sizes, random_value, read_inputs
from ortolan.ortformat import describe, read
from ortolan.runtime.describe import NodeArg

ROOT = Path(__file__).resolve().parent.parent

MODEL = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "house", metadata_props: ["author": "us"]>
g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}>
{
  m = MatMul (x, w)
  y = Relu (m)
}
"""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Runs the command line; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["ortolan", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    code = stopped.value.code
    assert isinstance(code, int | None)
    return code or 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model in a folder of its own."""
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    return path


def test_convert_writes_beside_the_model(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "convert", model) == 0
    written = model.with_suffix(".ort")
    assert written.read_bytes() == convert(model)
    output = capsys.readouterr().out
    assert f"{model.stat().st_size:,} -> {written.stat().st_size:,} bytes" in output
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.onnx", "model.ort"]


def test_convert_takes_a_file_a_folder_and_a_level(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "other.ort"
    target.write_bytes(b"old")
    assert call(monkeypatch, "convert", model, "-o", target, "--level", "disable") == 0
    assert target.read_bytes() == convert(model, level="disable")
    folder = tmp_path / "out"
    folder.mkdir()
    assert call(monkeypatch, "convert", model, "--output", folder) == 0
    assert (folder / "model.ort").is_file()


def test_convert_takes_a_folder_of_models_and_names_those_that_fail(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "copy.onnx").write_bytes(model.read_bytes())
    (below / "bad.onnx").write_bytes(b"no model")
    out = tmp_path / "out"
    assert call(monkeypatch, "convert", tmp_path, "-o", out) == 1
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.ort"))
    assert found == [str(Path("below", "copy.ort")), "model.ort"]
    output = capsys.readouterr()
    assert "2 converted, 1 failed" in output.out
    assert "bad.onnx: not an ONNX model" in output.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["convert", "{folder}/none.onnx"], "none.onnx: cannot be read (No such file"),
        (["convert", "{folder}/empty"], "empty: there is no .onnx file in this folder"),
        (["convert", "{model}", "-o", "{model}"], "model.onnx: this is the model itself"),
        (["convert", "{model}", "-o", "{folder}/no/m.ort"], "no: there is no such folder"),
        (["convert", "{model}", "--level", "fast"], 'there is no level "fast"'),
        (["convert", "{folder}/unknown.onnx"], "house:Frobnicate:1 (1 node)"),
        (["inspect", "{folder}/none.ort"], "none.ort: cannot be read (No such file"),
        (["inspect", "{folder}/bad.ort"], "bad.ort: damaged or no ORT format file"),
        (["inspect", "{folder}/text.onnx"], "text.onnx: not an ONNX model"),
    ],
)
def test_what_a_user_did_wrong_is_one_line(
    arguments: list[str],
    text: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = model.parent
    (folder / "empty").mkdir()
    (folder / "bad.ort").write_bytes(convert(model)[:100])
    (folder / "text.onnx").write_text("hello")
    unknown = onnx.parser.parse_model(MODEL.replace("Relu", "house.Frobnicate"))
    onnx.save(unknown, folder / "unknown.onnx")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    given = [argument.format(folder=folder, model=model) for argument in arguments]
    assert call(monkeypatch, *given) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert text in output.err
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_unknown_operators_can_be_allowed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(onnx.parser.parse_model(MODEL.replace("Relu", "house.Frobnicate")), model)
    assert call(monkeypatch, "convert", model, "--allow-unknown-operators") == 0
    nodes = read(model.with_suffix(".ort").read_bytes()).model.graph.nodes
    assert [node.op_type for node in nodes] == ["MatMul", "Frobnicate"]


@pytest.mark.parametrize("kind", ["onnx", "ort"])
def test_inspect_tells_what_is_in_a_model(
    kind: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    convert(model, model.with_suffix(".ort"), level="disable")
    file = model.with_suffix(f".{kind}")
    assert call(monkeypatch, "inspect", file, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert [(o["name"], o["since_version"], o["count"]) for o in summary["operators"]] == [
        ("MatMul", 13, 1), ("Relu", 14, 1),
    ]  # fmt: skip
    assert summary["inputs"] == [{"name": "x", "type": "tensor(float)", "shape": ["N", 3]}]
    assert (summary["initializer_bytes"], summary["metadata"]) == (24, [["author", "us"]])
    assert summary["runs_on"] == {name: ["ortolan", "onnxruntime"] for name in ("MatMul", "Relu")}
    assert call(monkeypatch, "inspect", file) == 0
    output = capsys.readouterr().out
    for text in ("MatMul", "tensor(float)", "[N, 3]", "house", "author", "ORT format 6"):
        assert text in output


def test_convert_stores_weights_in_fewer_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "examples" / "digits" / "digits.onnx"
    sizes = []
    for weights in ("float32", "float16", "int8"):
        target = tmp_path / f"{weights}.ort"
        assert call(monkeypatch, "convert", path, "-o", target, "--weights", weights) == 0
        sizes.append(target.stat().st_size)
    output = capsys.readouterr().out
    assert output.count("probabilities: moves by up to") == 2
    assert "100% of the rows keep their largest element" in output
    assert sizes[0] > 1.8 * sizes[1]
    assert sizes[1] > 1.6 * sizes[2]
    assert call(monkeypatch, "convert", path, "--weights", "int3", "-o", tmp_path / "x.ort") == 1
    assert 'no storage of weights "int3"' in capsys.readouterr().err


def test_convert_fixes_shapes_and_writes_a_config(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "convert", model, "-s", "N=5", "--config", "--level", "disable") == 0
    summary = describe(read(model.with_suffix(".ort").read_bytes()))
    assert summary.inputs[0].shape == (5, 3)
    config = model.with_name("model.required_operators.config").read_text()
    assert config.splitlines()[1:] == ["ai.onnx;13;MatMul", "ai.onnx;14;Relu"]
    assert call(monkeypatch, "convert", model, "-s", "x=2,3") == 0
    for wrong in ("M=5", "x=1,2,3", "x", "N=a"):
        assert call(monkeypatch, "convert", model, "-s", wrong) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_run_takes_files_numbers_and_random_inputs(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.array([[1, 0, 0], [0, 1, -1]], np.float32)
    np.save(model.with_name("x.npy"), x)
    np.savez(model.with_name("x.npz"), x=x)
    target = model.with_name("out.npz")
    for feed in ("x.npy", "x.npz", "x=[[1, 0, 0], [0, 1, -1]]"):
        given = feed if feed.startswith("x=") else str(model.with_name(feed))
        assert call(monkeypatch, "run", model, given, "-o", target) == 0
        with np.load(target) as written:
            np.testing.assert_array_equal(written["y"], [[1, 2], [0, 0]])
        assert "1.0 2.0 0.0 0.0" in capsys.readouterr().out
    assert call(monkeypatch, "run", model, "-s", "N=4", "--seed", "3") == 0
    output = capsys.readouterr().out
    assert "x  float32 [4, 3]  random" in output
    (model.parent / "labels.txt").write_text("zero\none\n")
    digits = ROOT / "examples" / "digits" / "digits.onnx"
    labels = str(model.parent / "labels.txt")
    assert call(monkeypatch, "run", digits, "--top", "10", "--labels", labels) == 0
    assert {"zero", "one"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("feed", "text"),
    [
        ("z={folder}/x.npy", "there is no input 'z'"),
        ("{folder}/none.npy", "none.npy: cannot be read"),
        ("{folder}/model.onnx", "inputs are .npy, .npz or images"),
        ("{folder}/text.npy", "no array of numpy"),
        ("{folder}/other.npz", "holds y, which are no inputs"),
        ("{folder}/double.npy", "float64"),
    ],
)
def test_run_tells_what_is_wrong_with_an_input(
    feed: str, text: str, model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = model.parent
    (folder / "text.npy").write_text("hello")
    np.savez(folder / "other.npz", y=np.ones(3))
    np.save(folder / "double.npy", np.ones((2, 3)))
    assert call(monkeypatch, "run", model, feed.format(folder=folder)) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('["a"]', "tensor(float)"),
        ('{"a": 1}', "tensor(float)"),
        ("[[1], [1, 2]]", "tensor(float)"),
        ("300", "tensor(uint8)"),
        ("1.5", "tensor(int64)"),
        ("null", "tensor(int64)"),
        (100_000 * "[", "tensor(float)"),
        (5000 * "9", "tensor(float)"),
    ],
)
def test_what_is_written_out_is_no_input(text: str, kind: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        read_inputs([f"x={text}"], [NodeArg("x", kind, [2])])


@pytest.mark.parametrize("name", ["empty.npy", "huge.npy", "broken.npz", "objects.npz"])
def test_damaged_arrays_are_no_input(name: str, tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"
    contents = {
        "empty.npy": b"",
        "huge.npy": b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117).encode() + b"\n",
        "broken.npz": b"PK\x03\x04",
    }
    path = tmp_path / name
    if name in contents:
        path.write_bytes(contents[name])
    else:
        np.savez(path, x=np.array([None], object))
    for text in (str(path), f"x={path}"):
        with pytest.raises(errors.InvalidArgument, match=re.escape(str(path))):
            read_inputs([text], [NodeArg("x", "tensor(float)", [2])])


@pytest.mark.parametrize("size", ["N=", "N=-1", "x=-1", "N=999999999999999999999"])
def test_sizes_that_cannot_be(size: str) -> None:
    argument = NodeArg("x", "tensor(float)", ["N"])
    with pytest.raises(errors.InvalidArgument):
        random_value(argument, parse_sizes([size]), np.random.default_rng(0))


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args"])
def test_outputs_may_have_any_name(name: str, tmp_path: Path) -> None:
    write_arrays(tmp_path / "out.npz", {name: np.arange(3), "b": np.ones((2, 2), np.float16)})
    with np.load(tmp_path / "out.npz") as found:
        assert found[name].tolist() == [0, 1, 2]
        assert found["b"].dtype == np.float16


def test_labels_that_are_no_text(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (model.parent / "labels").write_bytes(b"\xff")
    assert call(monkeypatch, "run", model, "--labels", model.parent / "labels") == 1
    assert "no text file (byte 0)" in capsys.readouterr().err


def test_names_do_not_command_the_terminal(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = onnx.load(model)
    content.metadata_props.add(key="\x1b]0;key\x07", value="\x1b[2J\u202e")
    onnx.save(content, model)
    assert call(monkeypatch, "inspect", model) == 0
    content.graph.node[0].op_type = "No\x1b[2J"
    onnx.save(content, model)
    assert call(monkeypatch, "run", model) == 1
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert "\\x1b[2J" in text


def test_run_reads_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    image.new("L", (16, 16), 255).save(tmp_path / "white.png")
    shapes: list[list[int | str | None]] = [[1, 1, 8, 8], [1, 8, 8, 1], ["N", 1, None, None]]
    for shape in shapes:
        argument = NodeArg("x", "tensor(float)", shape)
        (array,) = read_inputs([str(tmp_path / "white.png")], [argument]).values()
        sizes = [given if isinstance(given, int) else real
                 for given, real in zip(shape, (1, 1, 16, 16), strict=True)]  # fmt: skip
        assert list(array.shape) == sizes
        assert (array == 1).all()


def test_bench_measures(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = model.with_name("trace.json")
    arguments: list[str | Path] = [
        "bench",
        model,
        "-s",
        "N=64",
        "--runs",
        "7",
        "--compare",
        "--trace",
        trace,
    ]
    assert call(monkeypatch, *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("ortolan", "onnxruntime"):
        times = found["milliseconds"][name]
        assert times["runs"] == 7
        assert 0 < times["minimum"] <= times["median"] <= times["p90"]
    assert sum(row["share"] for row in found["operators"]) == pytest.approx(1)
    assert all(row["nodes"] >= 1 for row in found["operators"])
    names = [event["name"] for event in json.loads(trace.read_text())]
    assert names.count("model_run") == 3
    assert call(monkeypatch, "bench", model, "--runs", "5") == 0
    output = capsys.readouterr().out
    assert "90th percentile" in output
    assert "share" in output


@pytest.mark.parametrize(
    ("operator", "runs_on"),
    [("Mish", ["ortolan"]), ("house.Frobnicate", []), ("Relu", ["ortolan", "onnxruntime"])],
)
def test_inspect_tells_who_runs_an_operator(
    operator: str,
    runs_on: list[str],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = MODEL.replace("Relu", operator).replace("17]", "18]")
    onnx.save(onnx.parser.parse_model(text), model)
    assert call(monkeypatch, "inspect", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)["runs_on"]
    assert found.pop("MatMul") == ["ortolan", "onnxruntime"]
    assert list(found.values()) == [runs_on]
    assert call(monkeypatch, "inspect", model) == 0
    assert ("neither" in capsys.readouterr().out) is not bool(runs_on)


def test_inspect_writes_a_page(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = model.with_name("page.html")
    assert call(monkeypatch, "inspect", model, "--html", page) == 0
    text = page.read_text(encoding="utf-8")
    for expected in ("<h1>model.onnx</h1>", "w: float [3, 2], 24 bytes", "<td>MatMul</td>"):
        assert expected in text
    assert "http" not in text
    capsys.readouterr()
    assert call(monkeypatch, "inspect", model, "--html", page / "no") == 1


def test_program_runs_and_explains_itself(model: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for arguments, text in (
        (["--help"], "convert"),
        (["convert", "--help"], "--level"),
        (["convert", str(model)], "model.ort"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ortolan.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert text in done.stdout


def test_help_does_not_wait_for_onnx() -> None:
    code = "import sys, ortolan.cli; print('onnx' in sys.modules, 'numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "False"]


def test_styles_and_profiles(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """File names are those of onnxruntime's converter."""
    folder = tmp_path / "out"
    folder.mkdir()
    styles = ("--optimization-style", "Fixed", "--optimization-style", "Runtime")
    assert call(monkeypatch, "convert", model, "-o", folder, "--for", "onnxruntime", *styles) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["model.ort", "model.with_runtime_opt.ort"]
    assert (folder / "model.ort").read_bytes() == convert(model, profile="onnxruntime")
    assert call(monkeypatch, "convert", model, "-o", folder / "x.ort", *styles) == 1
    assert call(monkeypatch, "convert", model, "--for", "nobody") == 1


def test_from_a_file_to_onnx(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ort, back = tmp_path / "m.ort", tmp_path / "back.onnx"
    assert call(monkeypatch, "convert", model, "-o", ort, "--level", "disable") == 0
    assert call(monkeypatch, "convert", ort, "-o", back) == 0
    assert [node.op_type for node in onnx.load(back).graph.node] == ["MatMul", "Relu"]
    assert convert(back, level="disable") == ort.read_bytes()


def test_weights_in_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    large = MODEL.replace("float[3, 2] w = {1, 2, 3, 4, 5, 6}", "float[3, 200] w = {1}")
    source = onnx.parser.parse_model(large.replace("float[N, 2] y", "float[N, 200] y"))
    source.graph.initializer[0].float_data.extend([2.0] * 599)
    onnx.save(source, path)
    assert call(monkeypatch, "convert", path, "--external-data") == 0
    assert path.with_name("model.ort.data").stat().st_size == 2400
    capsys.readouterr()
    assert call(monkeypatch, "inspect", path.with_suffix(".ort")) == 0
    assert "2,400" in capsys.readouterr().out
