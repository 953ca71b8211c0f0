"""The hot loops of the arm64 library: instructions for a multiply-add, and their speed estimated.

``python benchmarks/arm_loops.py LIBRARY [--least 8] [--objdump llvm-objdump] [--mca llvm-mca]``

LIBRARY is a `libortolan.so` for arm64 (`python -m ortolan.build.host --target linux-arm64 -o DIR`).
A hot loop is straight code that ends in a branch to its own beginning and has at least LEAST
multiply-adds of four floats (`fmla`). Listed are its instructions by kind, instructions and loads
for each vector multiply-add, and llvm-mca's *estimate* of multiply-adds of one float a cycle on
several cores. An estimate knows no caches and no mispredicted branches: it is no measurement.
LLVM describes the Cortex-A76 by the Cortex-A57, which begins half as many of them in a cycle.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CORES = {"Cortex-A76": "cortex-a76", "Cortex-A510": "cortex-a510", "Apple M1": "apple-m1"}
LANES = 4
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(.+?)\s*$")
_SYMBOL = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_BRANCH = re.compile(r"^(b\.\w+|b|cbn?z|tbn?z)\s.*?0x([0-9a-f]+)")
_FMLA = re.compile(r"^fml[as]\s+v\d+\.4s")
_LOAD = re.compile(r"^(ld\w+)\s")
_STORE = re.compile(r"^(st\w+)\s")


@dataclass(frozen=True)
class Loop:
    """A loop: the place it begins at, and its instructions."""

    function: str
    start: int
    code: tuple[str, ...]

    @property
    def madds(self) -> int:
        """Vector multiply-adds of one turn."""
        return sum(bool(_FMLA.match(line)) for line in self.code)

    @property
    def kind(self) -> str:
        """What the loop is for: sums stay in registers, or each turn stores its results."""
        return "elementwise" if self.count(_STORE) else "product"

    def count(self, kind: re.Pattern[str]) -> int:
        """Instructions of a kind."""
        return sum(bool(kind.match(line)) for line in self.code)


def disassemble(library: Path, objdump: str) -> Iterator[tuple[str, int, str]]:
    """The instructions of a library: function, address, text."""
    command = [objdump, "-d", "--no-show-raw-insn", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    function = ""
    for line in done.stdout.splitlines():
        if match := _SYMBOL.match(line):
            function = match[1]
        elif match := _LINE.match(line):
            yield function, int(match[1], 16), " ".join(match[2].split())


def hot_loops(instructions: Sequence[tuple[str, int, str]], least: int) -> Iterator[Loop]:
    """Loops without another branch in them."""
    places = {address: k for k, (_, address, _) in enumerate(instructions)}
    for k, (function, address, text) in enumerate(instructions):
        match = _BRANCH.match(text)
        if not match:
            continue
        target = int(match[2], 16)
        first = places.get(target)
        if first is None or target >= address or k - first > 400:
            continue
        body = [t for _, _, t in instructions[first:k]]
        if any(_BRANCH.match(t) or t.startswith(("bl", "ret", "br ")) for t in body):
            continue
        loop = Loop(function, target, (*body, text))
        if loop.madds >= least:
            yield loop


def estimate(loop: Loop, core: str, mca: str) -> float:
    """Multiply-adds of one float a cycle, by llvm-mca."""
    turns = 100
    body, branch = loop.code[:-1], re.sub(r"0x[0-9a-f]+( <.*>)?$", "again", loop.code[-1])
    text = "\n".join(["again:", *body, branch, ""])
    done = subprocess.run(
        [mca, "-mtriple=aarch64", f"-mcpu={core}", f"-iterations={turns}"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    match = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if not match:
        raise RuntimeError(f"{mca}: {done.stderr.strip()[:300]}")
    return LANES * loop.madds * turns / int(match[1])


def find(name: str) -> str:
    """A tool of LLVM, of whichever version there is."""
    versions = [name, *(f"{name}-{v}" for v in range(25, 13, -1))]
    # The newest first: what a plain name stands for may be old.
    found = next(filter(None, map(shutil.which, [*versions[1:], name])), None)
    if found is None:
        raise SystemExit(f"{name} is not installed; it is part of LLVM")
    return found


def rows(loops: Sequence[Loop], mca: str) -> Iterator[str]:
    """The table; equal loops are one row."""
    yield (
        "| loop | multiply-adds of a turn | instructions | loads | stores | for each | "
        + " | ".join(f"{core}, *estimate*" for core in CORES)
        + " | times in the library |"
    )
    yield "|---|---|---|---|---|---|" + "---|" * (len(CORES) + 1)
    alike: dict[tuple[str, ...], list[Loop]] = {}
    for loop in loops:
        alike.setdefault(tuple(line.split()[0] for line in loop.code), []).append(loop)
    ordered = sorted(alike.values(), key=lambda group: -group[0].madds)
    for group in ordered:
        loop = group[0]
        cells = [f"{estimate(loop, core, mca):.1f}" for core in CORES.values()]
        yield (
            f"| {loop.kind} | {loop.madds} | {len(loop.code)} "
            f"| {loop.count(_LOAD)} | {loop.count(_STORE)} "
            f"| {len(loop.code) / loop.madds:.2f} | {' | '.join(cells)} | {len(group)} |"
        )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("--least", type=int, default=8, help="multiply-adds of a loop")
    parser.add_argument("--objdump", default="")
    parser.add_argument("--mca", default="")
    options = parser.parse_args()
    instructions = list(disassemble(options.library, options.objdump or find("llvm-objdump")))
    loops = list(hot_loops(instructions, options.least))
    print("Estimates are multiply-adds of one float a cycle. LLVM takes the A76 for an A57, whose")
    print("bound is 4; the core itself has 8.\n")
    print("\n".join(rows(loops, options.mca or find("llvm-mca"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
