"""Lint: ruff's rules, ruff's and clang-format's formatting, mypy's types.

Prints what each tool found. With `--fix`, formats in place and applies ruff's safe fixes first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CPP_FOLDERS = ("native", "tests", "bindings")
CPP_SUFFIXES = (".h", ".cc")


class Check(NamedTuple):
    """One tool: the arguments that check, and those that repair what it complains about."""

    name: str
    tool: str
    arguments: Sequence[str]
    fix: Sequence[str] | None = None


def cpp_files() -> list[str]:
    """C++ sources that a person wrote, relative to the repository."""
    return sorted(
        str(path.relative_to(ROOT))
        for folder in CPP_FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in CPP_SUFFIXES and "node_modules" not in path.parts
    )


def checks() -> list[Check]:
    """All checks, in the order in which their repairs have to run."""
    cpp = cpp_files()
    return [
        Check("ruff check", "ruff", ["check", "--quiet"], ["check", "--quiet", "--fix"]),
        Check("ruff format", "ruff", ["format", "--check", "--quiet"], ["format", "--quiet"]),
        Check("clang-format", "clang-format", ["--dry-run", "-Werror", *cpp], ["-i", *cpp]),
        Check("mypy", "mypy", []),
    ]


def tool_path(tool: str) -> str | None:
    """The tool that was installed beside this Python, else the first on the PATH."""
    return shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)


def run(check: Check, fix: bool) -> bool:
    """Runs one check on the repository, after its repair if `fix`; tells if it is clean."""
    path = tool_path(check.tool)
    if path is None:
        print(f"{check.tool} is not installed; `make lint` installs it")
        return False
    if fix and check.fix is not None:
        subprocess.run([path, *check.fix], cwd=ROOT, check=False)
    return subprocess.run([path, *check.arguments], cwd=ROOT, check=False).returncode == 0


def main() -> int:
    """Runs every check; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="repair what can be repaired first")
    fix: bool = parser.parse_args().fix
    failed = 0
    for check in checks():
        is_clean = run(check, fix)
        failed += not is_clean
        print(f"{check.name}: {'clean' if is_clean else 'FAILED'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
