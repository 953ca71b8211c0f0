"""One table of all real models: how far each runtime is from what onnxruntime computed.

``python benchmarks/models.py [--all] [--armv7] [MODEL ...]``

Prints Markdown: per model the largest error relative to the output's largest magnitude, natively,
in WebAssembly (relaxed SIMD, in Node) and on arm64 under qemu-user; then the answers that are known
of real samples. The rules are those of ``tests/models_lib.py``. ``--all`` also runs on Arm what
takes minutes there. The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tools")]

import known_answers  # noqa: E402 - the paths above
import models_lib as lib  # noqa: E402
import ortolan  # noqa: E402
import run_tests  # noqa: E402

NOTES = {
    "yunet-n-dynamic": "its sigmoids in double: onnxruntime's are off by 1e-2 of such small values",
    "ppocr-det-v1.1-ch": "its sigmoids in double: in the golden all are 0; a logit near -41 off by "
    "3e-6 of itself moves the result by 1e-4",
    "selfie-segmentation-op9": "onnxruntime is 5.7e-5 from its own logits in a sigmoid in double",
    "silero-vad-v5-op16": "2e-5 of it is onnxruntime's sigmoid of -6.5; the state is off by 7e-6",
    "candy-style-op7": "by layers: 1e-6 to 9e-6 up to the last Conv, 3e-5 behind its Tanh, whose "
    "results are smaller than what goes in",
    "squeezenet-fp16": "against onnxruntime's float32 run of the same weights; limit 5e-3",
    "qtdnn-int8": "quantized: limit one quantum on 1 % of the elements",
}
_LINE = re.compile(r"(?:relaxed )?(\S+): largest error (\S+) \(")
_PROBLEM = re.compile(r"(failed|skipped): (?:relaxed )?(\S+): (.*)")


def native(names: Sequence[str]) -> dict[str, str]:
    """The largest error of each model here, or what is wrong."""
    cells = {}
    for name in names:
        check = lib.make_check(name)
        try:
            session = ortolan.InferenceSession(ortolan.convert(check.source))
            verdict = lib.run_check(check, session)
            cells[name] = verdict.problem or f"{verdict.error:.1e}"
        except ortolan.errors.OrtolanError as error:
            cells[name] = f"fails: {error}"
    return cells


def of_program(command: Sequence[str], environment: dict[str, str]) -> dict[str, str]:
    """The cells that a test runner's lines tell of."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    cells = {}
    for line in done.stdout.splitlines():
        if match := _LINE.match(line):
            cells[match[1]] = f"{float(match[2]):.1e}"
    for line in done.stdout.splitlines():
        if match := _PROBLEM.match(line):
            word = "not run" if match[1] == "skipped" else "fails"
            cells[match[2]] = f"{word}: {match[3]}"
    if not cells:
        print(done.stdout[-500:] + done.stderr[-500:], file=sys.stderr)
    return cells


def wasm() -> dict[str, str]:
    """The largest error of each model in Node."""
    node = run_tests.find_node()
    if node is None:
        return {}
    return of_program([node, "tests/web/run_models.mjs"], {"ORTOLAN_PYTHON": sys.executable})


def arm(machine: str, names: Sequence[str]) -> dict[str, str]:
    """The largest error of each model under an emulator."""
    return of_program([sys.executable, "tests/cross.py", machine, "models", *names], {})


def table(columns: dict[str, dict[str, str]], names: Sequence[str]) -> Iterator[str]:
    """The lines of the table, and of what is remarkable in it."""
    yield "| model | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name in names:
        absent = f"not run: {'minutes, see --all' if name in lib.HEAVY else 'it is missing here'}"
        cells = [cells.get(name, absent) for cells in columns.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    for name in names:
        if name in NOTES:
            yield f"* {name}: {NOTES[name]}"


def answers() -> Iterator[tuple[str, bool]]:
    """The lines of the table of known answers, and whether each is right."""
    yield "| sample | Ortolan says | known | right |", True
    yield "|---|---|---|---|", True
    for name in known_answers.names():
        found = known_answers.answer(name)
        mark = "yes" if found.is_right else "NO"
        yield f"| {name} | {found.said} | {found.known} | {mark} |", found.is_right
    for name, reason in known_answers.NOT_HERE.items():
        yield f"| {name} | - | {reason} | - |", True


def main() -> int:
    """Prints the tables; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--armv7", action="store_true")
    options = parser.parse_args()
    if lib.MISSING:
        print(lib.MISSING)
        return 1
    names = options.models or list(lib.NAMES)
    light = [name for name in names if name not in lib.HEAVY]
    on_arm = names if options.all else light
    columns = {"native": native(names), "wasm": wasm(), "arm64": arm("arm64", on_arm)}
    if options.armv7:
        columns["armv7"] = arm("armv7", on_arm)
    for line in table(columns, names):
        print(line)
    print()
    is_right = True
    for line, was_right in answers():
        print(line)
        is_right = is_right and was_right
    wrong = [c for cells in columns.values() for c in cells.values() if not c[0].isdigit()]
    missing = [cell for cell in wrong if not cell.startswith("not run")]
    return 0 if is_right and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
