"""A build that fills memory of arena and heap that nobody may read gives the same outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ortolan._native import library_path
from ortolan.build.compile import build
from ortolan.build.host import cache_folder
from ortolan.build.targets import host_target

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("digests.py")


def digests(library: Path) -> dict[str, str]:
    """What each model gives with a library."""
    environment = {**os.environ, "ORTOLAN_LIBRARY": str(library)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_outputs_do_not_depend_on_memory_that_was_given_away(tmp_path: Path) -> None:
    poisoned = build(host_target(), tmp_path, cache_folder(), core_flags=("-DORTOLAN_POISON",))
    assert poisoned.read_bytes() != Path(library_path()).read_bytes()
    expected, found = digests(Path(library_path())), digests(poisoned)
    assert len(expected) > 40
    assert [name for name in expected if found[name] != expected[name]] == []
