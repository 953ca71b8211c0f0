"""Reduced builds: what comes out, that it runs, that it is the same, and what refuses it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import plistlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import ortolan
from ortolan import catalog, cli
from ortolan._native import library_path
from ortolan.build import compile as compiling
from ortolan.build import product, verify
from ortolan.build.attribution import by_part, functions, readable
from ortolan.build.bundle import fat, write_xcframework
from ortolan.build.compile import BuildError, BuildOptions
from ortolan.build.device import compare_kit, write_kit
from ortolan.build.host import cache_folder
from ortolan.build.messages import message_number, texts
from ortolan.build.registry import instances
from ortolan.build.report import treemap, weights_by_layer, write_report
from ortolan.build.sbom import SBOM
from ortolan.build.targets import LINUX_ARM64, LINUX_X64, TARGETS
from ortolan.catalog.types import DataType
from ortolan.errors import InvalidArgument
from ortolan.required_ops import selector
from ortolan.required_ops.config import ConfigError

pytest.importorskip("ziglang", reason="the compiler (ziglang) is not installed")

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
SMALL = BuildOptions("size", "text", whole_program=True)


def make(name: str, output: Path, **options: Any) -> product.Product:
    return product.build_product(name, output, cache_folder(), **options)


def sine() -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, [4])], [value("y", TensorProto.FLOAT, [4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = ortolan.convert(model.SerializeToString())
    assert isinstance(content, bytes)
    return content


def check_sbom(folder: Path, manifest: dict[str, Any]) -> None:
    """The bill of materials names all files of a build with what they hold now."""
    bill = json.loads((folder / SBOM).read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    runtime = bill["metadata"]["component"]
    assert (runtime["name"], runtime["version"]) == ("ortolan", manifest["ortolan"])
    assert runtime["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    (tool,) = bill["metadata"]["tools"]["components"]
    assert f"{tool['name']} {tool['version']}" == manifest["compiler"]
    told = {
        each["name"]: {h["alg"]: h["content"] for h in each["hashes"]}
        for each in bill["components"] if each["type"] == "file"
    }  # fmt: skip
    there = {
        path.relative_to(folder).as_posix(): {"SHA-256": sha256(path.read_bytes()).hexdigest()}
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (SBOM, product.MANIFEST)
    }
    assert told == there
    refs = [runtime["bom-ref"], *(each["bom-ref"] for each in bill["components"])]
    assert len(refs) == len(set(refs))
    for each in bill["dependencies"]:
        assert {each["ref"], *each["dependsOn"]} <= set(refs)


@pytest.mark.parametrize(
    "name",
    [
        "web",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("linux-x64", "linux-arm64", "android-armeabi-v7a")
        ),
    ],
)
def test_a_build_for_a_model_runs_it_and_tells_what_is_in(name: str, tmp_path: Path) -> None:
    made = make(name if name != "web" else "wasi", tmp_path / "out", models=[DIGITS])
    manifest = json.loads((tmp_path / "out" / product.MANIFEST).read_text())
    assert manifest == made.manifest
    (artefact,) = manifest["artefacts"]
    if artefact["executed"] != "no":
        (check,) = artefact["checks"]
        assert check["model"] == DIGITS.name and check["error"] <= verify.LIMIT
    check_sbom(tmp_path / "out", manifest)
    assert "com.microsoft;1;FusedConv" in "\n".join(manifest["config"])
    assert artefact["parts"]["core"] > artefact["parts"]["movement"] > 0
    full = TARGETS[artefact["target"]]
    whole = compiling.build(full, tmp_path / "full", cache_folder()).stat().st_size
    assert artefact["bytes"]["raw"] < whole / 2


_NO_FOLDERS = """
import { readFileSync } from "node:fs";
const module = new WebAssembly.Module(readFileSync(process.argv[1]));
const imports = { wasi_snapshot_preview1: {} };
for (const { module: from, name } of WebAssembly.Module.imports(module))
  imports[from][name] = () => Number(process.argv[2]);
const e = new WebAssembly.Instance(module, imports).exports;
const path = e.ortolan_allocate(64);
new Uint8Array(e.memory.buffer).set(Buffer.from("model.ort\\0"), path);
console.log(e.ortolan_model_open(path, 0, 0, 0, path + 32));
"""


@pytest.mark.parametrize("error", ["BADF", "NOSYS"])
def test_a_host_of_wasi_need_have_no_folders(error: str, tmp_path: Path) -> None:
    node = verify._node()
    if node is None:
        pytest.skip("there is no Node")
    make("wasi", tmp_path / "out", models=[DIGITS])
    (module,) = (tmp_path / "out").rglob("*.wasm")
    number = {"BADF": "8", "NOSYS": "52"}[error]
    command = [node, "--input-type=module", "-e", _NO_FOLDERS, str(module), number]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


@pytest.mark.slow
def test_relaxed_simd_is_tried_where_the_node_of_the_path_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = DIGITS.parents[2] / "build" / "node" / "node_modules" / ".bin" / "node"
    if not own.is_file():
        pytest.skip("no Node in the build folder")
    old = tmp_path / "bin" / "node"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nexit 3\n")  # what the probe answers to a module that it cannot run
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(old.parent))
    monkeypatch.setenv("ORTOLAN_NODE", str(old))
    made = make("web-relaxed", tmp_path / "old", models=[DIGITS])
    assert made.manifest["artefacts"][0]["executed"] == "no"
    monkeypatch.delenv("ORTOLAN_NODE")
    made = make("web-relaxed", tmp_path / "new", models=[DIGITS])
    (artefact,) = made.manifest["artefacts"]
    assert artefact["executed"] == "node"
    assert artefact["checks"][0]["error"] <= verify.LIMIT


def test_the_same_instruction_set_gives_the_same_bits(tmp_path: Path) -> None:
    made = make("linux-x64", tmp_path / "out", models=[DIGITS])
    (artefact,) = made.manifest["artefacts"]
    if artefact["executed"] != "native":
        pytest.skip("this machine does not run linux-x64")
    assert artefact["checks"][0]["identical"]


def test_a_model_that_needs_more_is_refused_by_name(tmp_path: Path) -> None:
    make("linux-x64", tmp_path / "out", models=[DIGITS])
    runner = verify.runner_of(LINUX_X64, cache_folder())
    if runner is None:
        pytest.skip("this machine does not run linux-x64")
    given = verify.reference("sine", sine())
    got = verify.run_library(runner[1], tmp_path / "out" / "libortolan.so", given, tmp_path)
    assert got is not None
    code, text, _ = got
    assert code == 9
    assert (
        text == "operators that this build does not have, as lines for its config:\nai.onnx;7;Sin"
    )
    # The line mends it.
    config = tmp_path / "more.config"
    config.write_text(text.splitlines()[-1] + "\n")
    kept = product.wanted_config([("digits", product.load_model(DIGITS))], config)
    assert ("", "Sin") in kept.operators


@pytest.mark.slow
def test_a_sparse_constant_is_refused_where_the_model_had_none(tmp_path: Path) -> None:
    make("linux-x64", tmp_path / "out", models=[DIGITS])
    runner = verify.runner_of(LINUX_X64, cache_folder())
    if runner is None:
        pytest.skip("this machine does not run linux-x64")
    value = helper.make_tensor_value_info
    numbers = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    place = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, [40])], [value("y", TensorProto.FLOAT, [40])],
        sparse_initializer=[helper.make_sparse_tensor(numbers, place, [40])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = ortolan.convert(model.SerializeToString())
    assert isinstance(content, bytes)
    given = verify.reference("sparse", content)
    got = verify.run_library(runner[1], tmp_path / "out" / "libortolan.so", given, tmp_path)
    assert got is not None
    assert got[0] == 9 and "#ortolan:without" in got[1]
    (tmp_path / "model.ort").write_bytes(content)
    code, text = run("check", str(tmp_path / "model.ort"), "--package", str(tmp_path / "out"))
    assert code == 1 and "the package has no sparse" in text and "Add" in text


def test_messages_as_codes_are_explained(tmp_path: Path) -> None:
    options = BuildOptions("size", "codes", whole_program=True)
    make("linux-x64", tmp_path / "out", models=[DIGITS], options=options)
    runner = verify.runner_of(LINUX_X64, cache_folder())
    if runner is None:
        pytest.skip("this machine does not run linux-x64")
    given = verify.reference("digits", product.load_model(DIGITS))
    broken = verify.Reference("broken", given.content[:1000], given.feeds, ())
    got = verify.run_library(runner[1], tmp_path / "out" / "libortolan.so", broken, tmp_path)
    assert got is not None
    code, text, _ = got
    assert code == 103 and text.startswith("message ")
    assert any("damaged ORT format file" in t for t in texts()[int(text.removeprefix("message "))])


def test_numbers_of_messages_are_those_of_the_sources() -> None:
    assert message_number("memory is out") in texts()
    several = [number for number, found in texts().items() if len(found) > 1]
    assert len(several) < 20


@pytest.mark.slow
def test_the_same_command_in_two_places_gives_the_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        product.build_product(
            "linux-arm64", tmp_path / place / "out", tmp_path / place / "cache", models=[DIGITS]
        )
    first = {p.relative_to(tmp_path / "a" / "out"): p.read_bytes()
             for p in sorted((tmp_path / "a" / "out").rglob("*")) if p.is_file()}  # fmt: skip
    second = {p.relative_to(tmp_path / "b" / "out"): p.read_bytes()
              for p in sorted((tmp_path / "b" / "out").rglob("*")) if p.is_file()}  # fmt: skip
    assert first == second
    assert any(p.name == "libortolan.so" for p in first)


def test_an_unknown_target_and_a_wrong_config_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match='no target "marsian": use one of linux-x64'):
        make("marsian", tmp_path / "out")
    config = tmp_path / "my.config"
    config.write_text("ai.onnx;13;Add\nai.onnx;13;Adz\n")
    with pytest.raises(ConfigError, match=r"my\.config:2: ai\.onnx:Adz, opset 13"):
        make("linux-x64", tmp_path / "out", config=config)
    with pytest.raises(InvalidArgument, match='no instruction set "neon"'):
        make("linux-x64", tmp_path / "out", config=config, instruction_sets=["neon"])
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    make("linux-arm64", tmp_path / "out", models=[DIGITS])  # all objects are there
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    monkeypatch.setattr(compiling, "_replace", no_room)
    for name in ("out", "new"):
        with pytest.raises(BuildError, match="No space left on device"):
            make("linux-arm64", tmp_path / name, models=[DIGITS])
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(product, "_described", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make("linux-arm64", tmp_path / "out", models=[DIGITS])
    assert not list(tmp_path.iterdir())


COMMAND = [sys.executable, "-c", "from ortolan.cli import main; main()", "build"]


def start_build(tmp_path: Path, **options: Any) -> subprocess.Popen[str]:
    """`ortolan build` of one operator for the smallest target, in a process of its own."""
    config = tmp_path / "my.config"
    config.write_text("ai.onnx;14;Relu\n")
    arguments = ["--target", "linux-arm64", "--config", str(config), "-o", str(tmp_path / "out")]
    return subprocess.Popen(
        [*COMMAND, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "ORTOLAN_BUILD_CACHE": str(tmp_path / "cache")}, **options,
    )  # fmt: skip


def stop_build(tmp_path: Path, number: int) -> None:
    """Begins a build and stops it in the middle of compiling by a signal.

    It takes a second or two: on a busy machine the signal may be late, and then it is tried again.
    """
    was_there = (tmp_path / "out").exists()
    for _ in range(10):
        shutil.rmtree(tmp_path / "cache" / "objects", ignore_errors=True)
        running = start_build(
            tmp_path, start_new_session=True,
            # A shell's background jobs ignore it, and so do those that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        while running.poll() is None and not list(tmp_path.glob("cache/objects/*.o")):
            time.sleep(0.02)
        if running.returncode is None:
            os.killpg(running.pid, number)
        said, _ = running.communicate(timeout=300)
        if running.returncode != 0:
            break
        if not was_there:
            shutil.rmtree(tmp_path / "out")
    assert running.returncode != 0 and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits and signals are those of POSIX")
def test_a_build_that_is_killed_or_has_no_room_leaves_nothing_that_looks_whole(
    tmp_path: Path,
) -> None:
    import resource

    # Files may not grow: it fails as on a full disk.
    limit = (4096, 4096)
    small = start_build(
        tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    said, _ = small.communicate(timeout=300)
    assert small.returncode == 1 and os.strerror(errno.EFBIG) in said, said
    assert "Traceback" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "my.config"]
    # Stopped in the middle, with the means of a terminal and with those that nothing survives.
    for number in (signal.SIGINT, signal.SIGKILL):
        stop_build(tmp_path, number)
        assert not (tmp_path / "out").exists()
    done = start_build(tmp_path)  # with what the others left in the cache
    said, _ = done.communicate(timeout=600)
    assert done.returncode == 0, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "my.config", "out"]
    clean = product.build_product(
        "linux-arm64", tmp_path / "clean", cache_folder(), config=tmp_path / "my.config"
    )
    assert (tmp_path / "out" / "libortolan.so").read_bytes() == (
        clean.folder / "libortolan.so"
    ).read_bytes()
    # What was there before stays.
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for number in (signal.SIGINT, signal.SIGKILL):
        stop_build(tmp_path, number)
        assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_a_windows_library_runs_under_wine(tmp_path: Path) -> None:
    if shutil.which("wine64") is None and shutil.which("wine") is None:
        pytest.skip("wine is not installed")
    made = make("windows-x64", tmp_path / "out", models=[DIGITS], instruction_sets=["sse2"])
    (artefact,) = made.manifest["artefacts"]
    assert artefact["executed"] == "wine"
    assert artefact["checks"][0]["error"] <= verify.LIMIT


@pytest.mark.slow
def test_what_a_kit_holds_gives_what_it_expects(tmp_path: Path) -> None:
    make("android-x86_64", tmp_path / "out", models=[DIGITS])
    if verify.runner_of(TARGETS["android-x86_64"], cache_folder()) is None:
        pytest.skip("this machine does not run android-x86_64")
    kit = tmp_path / "kit"
    assert write_kit(kit, tmp_path / "out", [DIGITS], cache_folder()) == ["x86_64"]
    with pytest.raises(InvalidArgument, match="there are no results"):
        compare_kit(kit)
    # What run.sh does on the device.
    results = kit / "results" / "x86_64" / "digits.results"
    results.parent.mkdir(parents=True)
    parts = [kit / "x86_64" / "probe", kit / "x86_64" / "libortolan.so"]
    parts += [kit / "models" / "digits.ort", kit / "models" / "digits.feeds", results]
    subprocess.run([str(p) for p in parts], check=True)
    ((abi, check),) = compare_kit(kit)
    assert abi == "x86_64" and check.error <= verify.LIMIT
    content = bytearray(results.read_bytes())
    content[-5] ^= 0x7F
    results.write_bytes(content)
    with pytest.raises(BuildError, match="differs by"):
        compare_kit(kit)


def test_inputs_of_models_may_be_given(tmp_path: Path) -> None:
    content = product.load_model(DIGITS)
    image = np.full((1, 1, 8, 8), 0.5, np.float32)
    given = verify.reference("digits", content, {"image": image, "another": image})
    assert {k: v.tolist() for k, v in given.feeds.items()} == {0: image.tolist()}
    (tmp_path / "no.npz").write_bytes(b"no")
    code, text = run("build", "--target", "wasi", "-o", str(tmp_path / "o"), str(DIGITS),
                     "--inputs", str(tmp_path / "no.npz"))  # fmt: skip
    assert code == 1 and "no .npz file" in text
    with pytest.raises(
        InvalidArgument, match=r"with the inputs given, image \(random ones: none\)"
    ):
        verify.reference("digits", content, {"image": image[..., 1:]})


def test_a_report_that_cannot_be_written_is_told_before_the_build(tmp_path: Path) -> None:
    code, text = run("build", "--target", "wasi", "-o", str(tmp_path / "o"), str(DIGITS),
                     "--report", str(tmp_path / "no" / "report.html"))  # fmt: skip
    assert code == 1 and "its folder does not exist" in text and not (tmp_path / "o").exists()


def test_models_with_strings_are_tried_as_far_as_a_runner_can() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [value("x", TensorProto.STRING, [2])], [value("y", TensorProto.STRING, [2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = ortolan.convert(model.SerializeToString())
    assert isinstance(content, bytes)
    given = verify.reference("strings", content)
    runner = verify.runner_of(LINUX_X64, cache_folder())
    if runner is None:
        pytest.skip("this machine does not run linux-x64")
    with tempfile.TemporaryDirectory() as folder:
        got = verify.run_library(runner[1], Path(library_path()), given, Path(folder))
    assert got is not None and verify.compare(given, got, LINUX_X64).refused == 2


def test_weights_are_told_by_layer(tmp_path: Path) -> None:
    weights = weights_by_layer(product.load_model(DIGITS))
    assert sum(weights["FusedConv"].values()) > 0
    made = make("linux-arm64", tmp_path / "out", models=[DIGITS])
    write_report(tmp_path / "page.html", made)
    page = (tmp_path / "page.html").read_text()
    assert "bytes of weights, by layer" in page and "FusedConv" in page


def test_a_result_that_differs_fails_the_build(tmp_path: Path) -> None:
    runner = verify.runner_of(LINUX_ARM64, cache_folder())
    if runner is None:
        pytest.skip("this machine cannot run linux-arm64")
    make("linux-arm64", tmp_path / "out", models=[DIGITS])
    given = verify.reference("digits", product.load_model(DIGITS))
    wrong = verify.Reference(
        "digits", given.content, given.feeds, tuple(np.multiply(o, 1.5) for o in given.outputs)
    )
    library = tmp_path / "out" / "libortolan.so"
    with pytest.raises(BuildError, match="differs by"):
        verify.verify(library, LINUX_ARM64, [wrong], cache_folder())


@pytest.mark.slow
def test_android_libraries_need_libc_alone_and_have_large_pages(tmp_path: Path) -> None:
    make("android-arm64-v8a", tmp_path / "out", models=[DIGITS])
    content = (tmp_path / "out" / "jni" / "arm64-v8a" / "libortolan.so").read_bytes()
    offset, size, count = struct.unpack_from("<Q", content, 32)[0], 56, 0
    for i in range(struct.unpack_from("<H", content, 56)[0]):
        kind, _, _, _, _, _, _, align = struct.unpack_from("<IIQQQQQQ", content, offset + i * size)
        if kind == 1:
            count += 1
            assert align == 16384
    assert count and b"libc.so\0" in content


def test_apple_bundles_hold_what_they_say(tmp_path: Path) -> None:
    both = fat([("aarch64", b"arm"), ("x86_64", b"intel")])
    magic, count = struct.unpack_from(">II", both)
    assert (magic, count) == (0xCAFEBABE, 2)
    for i, expected in enumerate((b"arm", b"intel")):
        _, _, offset, size, align = struct.unpack_from(">5I", both, 8 + 20 * i)
        assert offset % (1 << align) == 0 and both[offset : offset + size] == expected
    folder = tmp_path / "Ortolan.xcframework"
    parts = {"ios-arm64": [("aarch64", b"arm")]}
    parts["ios-arm64_x86_64-simulator"] = [("aarch64", b"arm"), ("x86_64", b"intel")]
    write_xcframework(folder, parts, b"header")
    info = plistlib.loads((folder / "Info.plist").read_bytes())
    assert info["CFBundlePackageType"] == "XFWK"
    for each in info["AvailableLibraries"]:
        assert (folder / each["LibraryIdentifier"] / each["LibraryPath"]).is_file()
    assert (folder / "ios-arm64" / "libortolan.a").read_bytes() == b"arm"


@pytest.mark.slow
def test_apple_and_windows_libraries_are_of_their_format(tmp_path: Path) -> None:
    make("macos", tmp_path / "mac", models=[DIGITS])
    content = (tmp_path / "mac" / "libortolan.dylib").read_bytes()
    for i in range(2):
        offset = struct.unpack_from(">5I", content, 8 + 20 * i)[2]
        magic, _, _, kind = struct.unpack_from("<4I", content, offset)
        assert (magic, kind) == (0xFEEDFACF, 6)  # 64 bits, a dynamic library
    made = make("windows-arm64", tmp_path / "win", models=[DIGITS])
    dll = (tmp_path / "win" / "ortolan.dll").read_bytes()
    header = struct.unpack_from("<I", dll, 60)[0]
    assert dll[header : header + 4] == b"PE\0\0"
    assert struct.unpack_from("<H", dll, header + 4)[0] == 0xAA64
    assert b"ortolan_model_load\0" in dll
    assert made.manifest["artefacts"][0]["executed"] == "no"


def test_bytes_are_attributed_to_parts(tmp_path: Path) -> None:
    objects: list[Path] = []
    listings: list[Path] = []
    library = compiling.build(
        LINUX_ARM64, tmp_path, cache_folder(), linked=objects.append, listed=listings.append
    )
    total = library.stat().st_size
    parts = by_part(functions(listings[0].read_text()), objects, total)
    assert parts["convolution"] and parts["core"]
    assert sum(sum(p.values()) for p in parts.values()) == total
    assert readable("_ZN7ortolan4wasm4Conv7prepareIfEENS_6StatusERNS_7ContextE") == (
        "wasm::Conv::prepare"
    )


def test_a_treemap_fills_its_box() -> None:
    sizes = [50.0, 30.0, 15.0, 5.0]
    boxes = treemap(sizes, (0, 0, 100, 50))
    for size, (x, y, width, height) in zip(sizes, boxes, strict=True):
        assert width * height == pytest.approx(size * 50)
        assert x >= 0 and y >= 0 and x + width <= 100.001 and y + height <= 50.001


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(arguments))
    failed = result.exception and not isinstance(result.exception, SystemExit)
    return result.exit_code, result.output + (str(result.exception) if failed else "")


def test_check_tells_what_is_missing_and_how_to_mend_it(tmp_path: Path) -> None:
    code, text = run("check", str(DIGITS))
    assert code == 0 and "runs on full" in text
    config = tmp_path / "c.config"
    config.write_text('ai.onnx;13;Softmax{"inputs": {"0": ["float"]}}\n')
    code, text = run("check", str(DIGITS), "--package", str(config), "--json")
    answer = json.loads(text)
    assert code == 1 and not answer["runs"]
    assert {"Gemm", "FusedConv"} <= {m["operator"] for m in answer["missing"]}
    assert "Softmax" not in {m["operator"] for m in answer["missing"]}
    with config.open("a") as file:
        file.write("\n".join(answer["config"]) + "\n")
    code, text = run("check", str(DIGITS), "--package", str(config))
    assert code == 0, text


def test_ops_lists_each_package() -> None:
    code, full = run("ops", "--package", "full")
    assert code == 0 and "TreeEnsembleClassifier" in full
    code, mobile = run("ops", "--package", "mobile")
    assert code == 0 and "TreeEnsembleClassifier" not in mobile and "Conv" in mobile
    code, page = run("ops", "--markdown")
    assert code == 0 and page.count("\n| ai.onnx:Conv |") == 1


def test_config_writes_what_build_reads(tmp_path: Path) -> None:
    target = tmp_path / "digits.config"
    code, text = run("config", str(DIGITS), "-o", str(target))
    assert code == 0 and "operators" in text
    from_file = product.wanted_config([], target)
    assert from_file == product.wanted_config([(DIGITS.name, product.load_model(DIGITS))], None)


@pytest.mark.slow
def test_the_code_for_apps_knows_the_digits(tmp_path: Path) -> None:
    page = (DIGITS.parents[2] / "docs" / "device-checklist.md").read_text("utf-8")
    source = tmp_path / "digit.c"
    source.write_text(page.split("```c\n")[1].split("```")[0])
    library = tmp_path / "libdigit.so"
    command = [*compiling.compiler()[:1], "cc", "-shared", "-fPIC", "-Wall", "-Werror", str(source)]
    command += [f"-I{compiling.source_root() / 'include' / 'ortolan'}", library_path()]
    command += [f"-I{compiling.source_root() / 'include'}", "-o", str(library)]
    subprocess.run(command, check=True)
    ctypes.CDLL(library_path(), mode=ctypes.RTLD_GLOBAL)
    digit_of = ctypes.CDLL(str(library)).digit_of
    content = product.load_model(DIGITS)
    with np.load(DIGITS.with_name("held_out.npz")) as samples:
        images, labels = samples["images"][:100], samples["labels"][:100]
    digit_of.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    answers = [digit_of(content, len(content), image.tobytes()) for image in images]
    assert np.mean(np.array(answers) == labels) >= 0.95


def test_names_of_files_need_not_be_plain(tmp_path: Path) -> None:
    model = tmp_path / "a[v1]\nai.onnx;1;Foo.onnx"
    model.write_bytes(sine())
    target = tmp_path / "my.config"
    code, text = run("config", str(model), "-o", str(target))
    assert code == 0, text
    assert set(product.wanted_config([], target).operators) == {("", "Sin")}
    assert product.plain_name(Path(os.fsdecode(b"\xff.onnx"))) == "\N{REPLACEMENT CHARACTER}.onnx"
    left = tmp_path / ".out[1].999999999.tmp"
    left.mkdir()
    output = tmp_path / "out[1]"
    code, text = run("build", str(model), "--target", "linux-x64", "-o", str(output))
    assert code == 0 and "a[v1]" in text, text
    assert not left.exists()


def test_a_config_that_adds_to_models_is_named(tmp_path: Path) -> None:
    config = tmp_path / "my.config"
    config.write_bytes(b"\xef\xbb\xbfai.onnx;13;Add\nai.onnx;13;Adz\n")
    with pytest.raises(ConfigError, match=r"my\.config:2: ai\.onnx:Adz, opset 13"):
        product.wanted_config([(DIGITS.name, product.load_model(DIGITS))], config)


def test_operators_of_any_type_are_kept_for_models_of_tensors(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    x, c = value("x", TensorProto.UINT8, [1, 2]), value("c", TensorProto.UINT8, [1, 4])
    y, z = value("y", TensorProto.BOOL, []), value("z", TensorProto.UINT8, [1, 4])
    joined = ["s", "o", "x", "s", "o", "x", "s", "o"]
    graph = helper.make_graph(
        [
            helper.make_node("QLinearConcat", joined, ["c"], domain="com.microsoft", axis=1),
            helper.make_node("OptionalHasElement", ["c"], ["y"]),
            helper.make_node("OptionalGetElement", ["c"], ["z"]),
        ],
        "g", [x], [c, y, z],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("o", TensorProto.UINT8, [], [3]),
        ],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    both = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path = tmp_path / "both.onnx"
    path.write_bytes(both.SerializeToString())
    assert (
        "containers"
        not in product.wanted_config([("both", product.load_model(path))], None).without
    )
    built = make("linux-x64", tmp_path / "both", models=[path])
    assert [c["refused"] for c in built.manifest["artefacts"][0]["checks"]] in ([0], [])
    del graph.node[1:], graph.output[1:]
    one = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(one.SerializeToString())
    assert "containers" in product.wanted_config([("one", product.load_model(path))], None).without
    built = make("linux-x64", tmp_path / "one", models=[path])
    assert [c["refused"] for c in built.manifest["artefacts"][0]["checks"]] in ([0], [])


def test_a_config_that_contradicts_itself_is_told(tmp_path: Path) -> None:
    config = tmp_path / "my.config"
    line = "#ortolan:without;containers,strings"
    config.write_text(f"ai.onnx;10;StringNormalizer\nai.onnx;11;SequenceAt\n{line}\n")
    with pytest.raises(ConfigError, match=r"my\.config:1: ai.onnx:StringNormalizer is for strings"):
        product.wanted_config([], config)
    with pytest.raises(ConfigError, match=r"my\.config:2: ai.onnx:SequenceAt is for containers"):
        product.wanted_config([], config)
    config.write_text("ai.onnx;13;Identity,If\nai.onnx.ml;2;LabelEncoder\n" + line)
    assert product.wanted_config([], config).without == {"containers", "strings"}


def test_values_for_an_input_that_no_model_has_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match='no model has an input "picture", but image'):
        make("linux-x64", tmp_path / "o", models=[DIGITS], inputs={"picture": np.zeros(3)})


@pytest.mark.parametrize("to", ["UINT8", "INT64", "BOOL"])
def test_a_result_of_another_type_leaves_the_layout_of_convolutions(to: str) -> None:
    value, kind = helper.make_tensor_value_info, TensorProto.DataType.Value(to)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [8, 8, 1, 1], [0.5] * 64)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Cast", ["a"], ["y"], to=kind),
        ],
        "g",
        [value("x", TensorProto.FLOAT, [1, 8, 4, 4])],
        [value("y", kind, [1, 8, 4, 4])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = ortolan.convert(model.SerializeToString())
    assert isinstance(content, bytes)
    wanted = selector(product.wanted_config([("model", content)], None))
    layout = catalog.find("ai.ortolan", "Layout", 1)
    assert wanted is not None and layout is not None
    kept = {
        t for i in instances(layout) if wanted(layout, (i.types_a, i.types_b)) for t in i.types_a
    }
    assert DataType[to] in kept
