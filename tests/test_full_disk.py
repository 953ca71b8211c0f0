"""Disks that are really full: small ones in memory, in a namespace of mounts of a child's own.

The child mounts disks of several sizes in turn, so that writing stops at another place each time,
and tells what it saw: the error says why, nothing half is left, and old files stay.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ortolan
from ortolan.build.host import cache_folder

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
OLD = b"what was there"
FULL = "No space left on device"
# Sizes in bytes; a disk in memory has pages of 4096. None of the first holds the whole.
CONVERTED = (4096, 8192, 40960, 118784, 1 << 20)
BUILT = (4096, 16384, 49152, 98304, 8 << 20)


# ---- In the child.


def _files(place: Path) -> dict[str, bytes]:
    found = (path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in found}


@contextlib.contextmanager
def _disk(place: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def _tell(place: Path, size: int, error: str, expected: dict[str, bytes], **more: bool) -> None:
    row = {"size": size, "error": error, "as_expected": _files(place) == expected, **more}
    print(json.dumps({**row, "names": sorted(_files(place))}), flush=True)


def _convert(place: Path) -> None:
    target = place / "model.ort"
    whole = ortolan.convert(DIGITS)
    for size in CONVERTED:
        for has_old in (False, True):
            with _disk(place, size):
                if has_old:
                    target.write_bytes(OLD)
                expected, error = _files(place), ""
                try:
                    ortolan.convert(DIGITS, target)
                    expected = {target.name: whole}
                except ortolan.errors.Fail as caught:
                    error = str(caught)
                _tell(place, size, error, expected)


def _cache(place: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    os.environ["ORTOLAN_CACHE"] = str(place / "cache")
    for size in CONVERTED:
        with _disk(place, size):
            (place / "other").write_bytes(OLD)
            said.clear()
            assert ortolan.InferenceSession(str(DIGITS)).get_outputs()  # works without its cache
            _tell(place, size, " ".join(said), {"other": OLD})


def _command(out: Path, cache: Path) -> str:
    config = out.parent.with_name("my.config")
    config.write_text("ai.onnx;14;Relu\n")
    command = [sys.executable, "-c", "from ortolan.cli import main; main()", "build"]
    command += ["--target", "linux-arm64", "--config", str(config), "-o", str(out)]
    environment = {**os.environ, "ORTOLAN_BUILD_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode == 0) == (not done.stderr), done.stderr
    return done.stderr


def _build(place: Path) -> None:
    cache = cache_folder()
    assert not _command(place / "out", cache)  # all objects are there
    whole = _files(place)
    shutil.rmtree(place / "out")
    for size in BUILT:
        for has_old in (False, True):
            with _disk(place, size):
                if has_old:
                    (place / "out").mkdir()
                    (place / "out" / "libortolan.so").write_bytes(OLD)
                expected = _files(place)
                error = _command(place / "out", cache)
                _tell(place, size, error, expected if error else whole)


def _build_cache(place: Path) -> None:
    for size in BUILT[:-1]:
        with _disk(place, size):
            error = _command(place.with_name("out"), place / "cache")
            is_there = place.with_name("out").exists()
            _tell(place, size, error, _files(place), is_there=is_there)


CHILDREN: dict[str, Callable[[Path], None]] = {
    "convert": _convert, "cache": _cache, "build": _build, "build cache": _build_cache,
}  # fmt: skip


# ---- The tests.


def on_small_disks(what: str, folder: Path) -> list[dict[str, Any]]:
    """What a child tells."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("mount") is None:
        pytest.skip("no unshare and mount: a small disk cannot be made")
    alone = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--mount", "--map-root-user"]
    folder.mkdir()
    probe = [*alone, "mount", "-t", "tmpfs", "none", str(folder)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("disks cannot be mounted here")
    command = [*alone, sys.executable, __file__, what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "what", ["convert", "cache", pytest.param("build", marks=pytest.mark.slow)]
)
def test_a_full_disk_is_told_and_nothing_half_is_left(what: str, tmp_path: Path) -> None:
    rows = on_small_disks(what, tmp_path / "disk")
    largest = rows[-1]["size"]
    assert len({row["size"] for row in rows}) == 5
    for row in rows:
        if row["size"] < largest:
            assert FULL in row["error"] and "Traceback" not in row["error"], row
            assert row["as_expected"], row
        elif what == "cache":
            assert not row["error"] and len(row["names"]) > 1, row
        else:
            assert not row["error"] and row["as_expected"], row


@pytest.mark.slow
def test_a_full_disk_of_the_build_cache_is_told(tmp_path: Path) -> None:
    for row in on_small_disks("build cache", tmp_path / "disk"):
        assert FULL in row["error"] and "Traceback" not in row["error"], row
        assert str(tmp_path / "disk" / "cache") in row["error"], row
        assert not row["is_there"], row


if __name__ == "__main__":
    CHILDREN[sys.argv[1]](Path(sys.argv[2]))
