"""The documentation: code blocks run, tables tell what is so, the site builds.

`python` blocks of a page run one after the other, and lines of `sh` blocks that call `ortolan`, in
a folder with the digits example. `text` blocks are for reading.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ortolan import errors
from ortolan.cli import COMMANDS
from ortolan.error_codes import Code

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"python", "sh", "text", "", "json", "c", "cpp", "mermaid", "js", "html"}


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    """The lines of a block that call `ortolan`; others are for the reader's own machine."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("ortolan ")]


# These show pieces of the house, not programs.
INNER = {"architecture.md", "format.md", "performance.md"}
RUN = [
    page
    for page in PAGES
    if page.name not in INNER and any(kind in ("python", "sh") for kind, _ in blocks(page))
]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    for name in ("digits.onnx", "held_out.npz"):
        shutil.copy(ROOT / "examples" / "digits" / name, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    program: list[str] = []
    for kind, text in blocks(page):
        if kind == "python":
            program.append(text)
            call(["-c", "\n".join(program)], tmp_path, environment)
        elif kind == "sh":
            for command in commands(text):
                call(["-m", "ortolan.cli", *command[1:]], tmp_path, environment)


def call(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_say_what_they_are(page: Path) -> None:
    assert {kind for kind, _ in blocks(page)} <= KINDS


def test_errors_page_has_all_codes_and_classes() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| (\d+) `(\w+)` \| `(\w+)`.*? \| `(\w+)` \|", text, re.MULTILINE)
    assert {name: int(code) for code, name, _, _ in rows} == {
        code.name: int(code) for code in Code if code != Code.OK
    }
    for code, _, name, base in rows:
        found = getattr(errors, name)
        kind = getattr(errors, base, None) or __builtins__[base]  # type: ignore[index]
        assert int(found.code) == int(code)
        assert issubclass(found, kind)


def test_command_page_has_all_commands() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    missing = [name for name in COMMANDS if f"`ortolan {name}" not in text]
    assert missing == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_site_builds(tmp_path: Path) -> None:
    for module in ("material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the site needs {module}: pip install ortolan[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "InferenceSession" in (tmp_path / "site" / "api.html").read_text()
