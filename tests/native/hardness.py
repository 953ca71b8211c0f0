"""The long form of tests/test_sanitizers.py, under ASan and UBSan: run by hand, it prints its seed.

Truncates ten files at every point of their first and last 4 KB and at steps between, runs the
corpus at buffer offsets 0, 4 (both in place) and 1 (copied once), and tries structural mutants.

    python tests/native/hardness.py [--seed N] [--mutants 50000] [--first N]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import struct
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "fuzz")]

import corpora  # noqa: E402 - the paths are set above
import sanitize  # noqa: E402

import hostile_models  # noqa: E402
import mutate  # noqa: E402
import ortolan  # noqa: E402

_BATCH = 500
_TRUNCATED = 10


def main() -> int:
    """Runs all of it; the first report of a sanitizer ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--mutants", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0, help="go on from this mutant, only these")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    program = sanitize.build("address")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = _write_corpus(folder)
        largest = sorted(files, key=lambda path: -path.stat().st_size)[:_TRUNCATED]
        for path in [] if arguments.first else largest:
            size = path.stat().st_size
            options = ["--mode", "truncate", "--edge", "4096", "--step", "17", "--offsets", "0,4,1"]
            report = _run(program, [*options, str(path)])
            print(f"truncated {path.name} of {size} bytes: {_text(report)}", flush=True)
        for offset in () if arguments.first else (0, 4, 1):
            options = ["--mode", "run", "--offsets", str(offset)]
            report = _run(program, [*options, *map(str, files)])
            print(f"{len(files)} files at offset {offset}: {_text(report)}", flush=True)
        _try_mutants(program, folder, arguments)
    return 0


def _write_corpus(folder: Path) -> list[Path]:
    files = []
    for name, model in corpora.models():
        with contextlib.suppress(ortolan.errors.OrtolanError):
            path = folder / f"{name}.ort"
            path.write_bytes(ortolan.convert(model, level="disable"))
            files.append(path)
    return files


def _try_mutants(program: Path, folder: Path, arguments: argparse.Namespace) -> None:
    seed, count = arguments.seed, arguments.mutants
    names = list(hostile_models.TEXTS)
    done: collections.Counter[str] = collections.Counter()
    for batch in range(arguments.first, count, _BATCH):
        content = hostile_models.converted(names[batch // _BATCH % len(names)])
        pack = folder / "pack"
        with pack.open("wb") as file:
            for mutant in mutate.mutants(content, seed + batch, min(_BATCH, count - batch)):
                file.write(struct.pack("<I", len(mutant)) + mutant)
        options = ["--mode", "pack", "--offsets", "0,4,1", "--seed", str(seed + batch)]
        done += _run(program, [*options, str(pack)])
        print(f"up to mutant {batch + _BATCH}: {_text(done)}", flush=True)


def _run(program: Path, arguments: list[str]) -> collections.Counter[str]:
    done = sanitize.run(program, arguments, timeout=7200)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-8000:])
    stages = re.findall(r"\t(load|run)\t(-?\d+)\t", done.stdout)
    return collections.Counter(f"{stage} {code}" for stage, code in stages)


def _text(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{key}: {counts[key]}" for key in sorted(counts))


if __name__ == "__main__":
    sys.exit(main())
