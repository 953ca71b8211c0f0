"""Measures what one core does at most: multiply-adds per second, and bytes read per second.

``python benchmarks/peak.py [--rounds 7]`` prints a table; the other benchmarks measure the same in
the run in which they need it, because the machine is not always the same.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peaks:
    """By name: giga multiply-adds a second; by bytes of the buffer: gigabytes read a second."""

    madds: dict[str, float]
    reads: dict[int, float]

    def madd(self, isa: str) -> float:
        """The peak of an instruction set; of the best one for a name that is not measured."""
        return self.madds.get(isa, max(self.madds.values()))

    def read(self, size: float) -> float:
        """The rate at which so many bytes are read again and again, between measured sizes."""
        sizes = sorted(self.reads)
        for low, high in itertools.pairwise(sizes):
            if size <= low:
                return self.reads[low]
            if size < high:
                share = math.log(size / low) / math.log(high / low)
                return self.reads[low] * math.pow(self.reads[high] / self.reads[low], share)
        return self.reads[sizes[-1]]


def compile_c(source: Path, output: Path, *flags: str) -> None:
    """Compiles C for this machine with the compiler that the project uses."""
    command = [sys.executable, "-m", "ziglang", "cc", "-O3", "-o", str(output), str(source)]
    subprocess.run([*command, *flags], check=True, capture_output=True)


def measure(rounds: int = 7) -> Peaks:
    """Compiles and runs the probe; the best of the rounds, for what is a bound."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        compile_c(HERE / "peak.c", program)
        done = subprocess.run(
            [program, str(rounds)], check=True, capture_output=True, text=True
        ).stdout
    found = {line.split()[0]: float(line.split()[2]) for line in done.splitlines()}
    madds = {k.removeprefix("peak_"): v for k, v in found.items() if k.startswith("peak_")}
    reads = {int(k.removeprefix("read_")): v for k, v in found.items() if k.startswith("read_")}
    return Peaks(madds, reads)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    found = measure(parser.parse_args().rounds)
    for isa, rate in found.madds.items():
        print(f"{isa:12} {rate:8.1f} G multiply-adds/s")
    for size, rate in found.reads.items():
        print(f"read {size >> 10:7d} KiB {rate:8.1f} GB/s")


if __name__ == "__main__":
    main()
