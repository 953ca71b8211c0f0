"""The test runner itself: a failure that it loses hides every other one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import run_tests  # noqa: E402 - tools/ is no package; it is put on the path above
import setup_env  # noqa: E402 - the same

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="good"/>
<testcase classname="tests.a" name="bad"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.a" name="broken"><error message="no fixture"/></testcase>
<testcase classname="tests.b" name="left_out"><skipped message="no device"/></testcase>
</testsuite></testsuites>"""


def test_pytest_report_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    outcome = run_tests.read_junit(path)
    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 2, 1)
    assert list(outcome.skips) == ["tests.b: no device"]
    assert outcome.failures[0].startswith("tests.a.bad")


@pytest.mark.parametrize(
    ("status", "last_line", "counts"),
    [
        (0, "3 passed, 0 failed, 1 skipped", (3, 0, 1)),
        (1, "3 passed, 2 failed, 0 skipped", (3, 2, 0)),
        (1, "3 passed, 0 failed, 0 skipped", (3, 1, 0)),
        (None, "3 passed, 0 failed, 0 skipped", (3, 1, 0)),
        (0, "Killed", (0, 1, 0)),
    ],
)
def test_runner_summary_is_counted(
    status: int | None, last_line: str, counts: tuple[int, int, int]
) -> None:
    finished = run_tests.Finished(status, ["skipped: Conv: no relaxed SIMD", last_line, ""])
    outcome = run_tests.read_summary("Node", finished)
    assert (outcome.passed, outcome.failed, outcome.skipped) == counts
    if outcome.skipped:
        assert list(outcome.skips) == ["Node: Conv: no relaxed SIMD"]


def test_late_children_are_ended() -> None:
    start = time.monotonic()
    shell = "echo started; sleep 60 & wait"
    finished = run_tests.run(["sh", "-c", shell], 1.0, {})
    assert finished.status is None
    assert finished.lines == ["started"]
    assert time.monotonic() - start < 30


def test_stamp_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    source = tmp_path / "native" / "a.cc"
    source.parent.mkdir()
    source.write_text("int a;")
    before = setup_env.digest(["x"], ("native",))
    assert setup_env.digest(["x"], ("native",)) == before
    assert setup_env.digest(["y"], ("native",)) != before
    source.write_text("int b;")
    assert setup_env.digest(["x"], ("native",)) != before
