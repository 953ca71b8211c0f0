"""Files between Ortolan and onnxruntime, both ways, over the real models: two Markdown tables.

``python benchmarks/interchange.py [NAME ...] [--nchwc]``

Ours: converted with ``--for onnxruntime`` at three levels, loaded and run by onnxruntime. Theirs:
written by onnxruntime in both styles of its converter at all its levels, run by Ortolan. A cell is
the largest error against the golden results, relative to the largest magnitude of an output, or
what went wrong. The models lie in ``../shared/models``; tests/models_lib.py says how to judge them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import interchange_lib as interchange  # noqa: E402 - tests/ is no package, but on the path now
import models_lib as lib  # noqa: E402 - the same
from interchange_lib import OUR_LEVELS, STYLES, THEIR_LEVELS  # noqa: E402 - the same


def cell(compute: Callable[[], lib.Verdict]) -> str:
    """One cell of a table."""
    try:
        verdict = compute()
    except Exception as error:
        text = re.sub(r"\s+", " ", str(error)).replace("|", "/")
        return f"**{type(error).__name__}**: {text[:120]}"
    if verdict.problem:
        return f"**{verdict.error:.1e}**: {verdict.problem[:80]}"
    return f"{verdict.error:.1e}"


def main() -> int:
    """Prints the tables; the status is 1 if a cell is not a small error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=lib.NAMES)
    parser.add_argument("--nchwc", action="store_true", help="one more column: with that pass")
    arguments = parser.parse_args()
    if lib.MISSING:
        print(lib.MISSING)
        return 1
    failed = 0

    def row(name: str, cells: list[str]) -> None:
        nonlocal failed
        failed += sum("**" in text for text in cells)
        print("| " + " | ".join([name, *cells]) + " |", flush=True)

    print(f"Ours in onnxruntime {onnxruntime.__version__}\n")
    row("model", list(OUR_LEVELS))
    print("|---" * (1 + len(OUR_LEVELS)) + "|")
    for name in arguments.names:
        row(name, [cell(lambda n=name, v=level: interchange.ours(n, v)) for level in OUR_LEVELS])
    jobs = [(style, level, False) for style in STYLES for level in THEIR_LEVELS]
    jobs += [("Fixed", "all", True)] if arguments.nchwc else []
    print(f"\nThose of onnxruntime {onnxruntime.__version__} in Ortolan\n")
    row("model", [f"{style} {level}{' nchwc' if n else ''}" for style, level, n in jobs])
    print("|---" * (1 + len(jobs)) + "|")
    for name in arguments.names:
        row(
            name,
            [cell(lambda n=name, j=j: interchange.theirs(n, j[0], j[1], nchwc=j[2])) for j in jobs],
        )
    print(f"\n{failed} of the cells are no small error" if failed else "\nall agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
