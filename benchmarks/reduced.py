"""Every real model on a build made for it alone, and refused where it needs more.

``python benchmarks/reduced.py [MODEL...] [--targets linux-x64,web] [--sets sse2]`` makes for each
model the build that ``ortolan build`` makes, runs it (natively, or in Node) on sample inputs, and
compares with the build that has everything, bit for bit in the same instruction set. Another model
that needs more must be refused, with an error that names what is missing and the line for the
config. What the web module itself says of variants must be what was recorded here for it. Prints a
row per build; exit code 1 where something is not as it must be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import ortolan
from ortolan.build.compile import BuildOptions, build
from ortolan.build.host import cache_folder
from ortolan.build.product import wanted_config, with_sets
from ortolan.build.support import lacks
from ortolan.build.targets import LINUX_X64, WEB, Target
from ortolan.build.variants import parse_records, record_variants
from ortolan.build.verify import Array, Reference, run_library, runner_of
from ortolan.ortformat import read
from ortolan.required_ops import (
    Config,
    RequiredOperator,
    required_operators,
    selector,
    variant_selector,
)

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT.parent / "shared" / "models"
OUTPUT = ROOT / "build" / "reduced"
TARGETS = {"linux-x64": LINUX_X64, "web": WEB}
SMALL = BuildOptions("size", "text", whole_program=True)
FULL = BuildOptions("size")  # what is compiled for speed computes some convolutions by other sums


@dataclasses.dataclass(frozen=True)
class Model:
    """A model, what it needs, and sample inputs by number."""

    name: str
    content: bytes
    uses: frozenset[RequiredOperator]
    feeds: Mapping[int, Array]


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of one build; `problem` is empty where all is as it must be."""

    model: str
    target: str
    size: int
    seconds: float
    refused: str
    problem: str


def load(name: str) -> Model:
    """A model of the shared folder, converted as users do, with the inputs of its golden."""
    content = ortolan.convert(MODELS / f"{name}.onnx")
    assert isinstance(content, bytes)
    session = read(content)
    assert session.model is not None and session.model.graph is not None
    order = {name: index for index, name in enumerate(session.model.graph.inputs)}
    with np.load(MODELS / "golden" / f"{name}.npz") as golden:
        feeds = {order[k[3:]]: golden[k] for k in golden.files if k.startswith("in/")}
    return Model(name, content, frozenset(required_operators(session)), feeds)


class Full:
    """The builds with everything, and what they make of models."""

    def __init__(self) -> None:
        self._libraries: dict[str, Path] = {}

    def library(self, target: Target) -> Path:
        """The build for a target, which records variants as well."""
        if target.name not in self._libraries:
            recording = dataclasses.replace(target, records=True)
            folder = OUTPUT / f"full-{target.name}"
            self._libraries[target.name] = build(recording, folder, cache_folder(), options=FULL)
        return self._libraries[target.name]

    def run(self, model: Model, target: Target) -> tuple[int, str, list[Array]]:
        """As the function of that name."""
        return run(self.library(target), target, model)

    def variants(self, model: Model, target: Target) -> frozenset[object]:
        """What the library itself records, loaded by Node."""
        found = runner_of(target, cache_folder())
        assert found is not None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.ort"
            path.write_bytes(model.content)
            command = [*found[1], str(self.library(target)), str(path), "--variants"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        records = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
        return frozenset(parse_records(records))


def run(library: Path, target: Target, model: Model) -> tuple[int, str, list[Array]]:
    """Error code, message and outputs of a model on a library."""
    found = runner_of(target, cache_folder())
    if found is None:
        raise SystemExit(f"this machine cannot run {target.name}")
    given = Reference(model.name, model.content, model.feeds, ())
    with tempfile.TemporaryDirectory() as folder:
        result = run_library(found[1], library, given, Path(folder))
    if result is None:
        raise SystemExit(f"{found[1][0]} cannot load {library}")
    return result


def config_for(model: Model, target: Target) -> Config:
    """What a build for a model keeps."""
    return wanted_config([(model.name, model.content)], None, targets=[target])


def larger(config: Config, models: Sequence[Model]) -> tuple[Model, RequiredOperator] | None:
    """A model that needs an operator which a config lacks, the one with the fewest such."""
    kept = set(config.operators)
    needs = [
        (len(missing), other, missing[0])
        for other in models
        if (missing := [u for u in lacks(config, other.uses) if (u.domain, u.name) not in kept])
    ]
    return min(needs, key=lambda need: need[0])[1:] if needs else None


def check(model: Model, target: Target, models: Sequence[Model], full: Full) -> Row:
    """Builds for a model, and tries the build."""
    config = config_for(model, target)
    start = time.monotonic()
    library = build(
        target, OUTPUT / model.name / target.name, cache_folder(), wanted=selector(config),
        variants=variant_selector(config), without=config.without, options=SMALL,
    )  # fmt: skip
    seconds = time.monotonic() - start
    problems = []
    expected, got = full.run(model, target), run(library, target, model)
    if expected[0] or got[0]:
        problems.append(f"it fails: {expected[1] or got[1]}")
    elif [(o.shape, o.dtype, o.tobytes()) for o in got[2]] != [
        (o.shape, o.dtype, o.tobytes()) for o in expected[2]
    ]:
        problems.append("outputs differ")
    other = larger(config, models)
    refused = "-"
    if other is not None:
        code, text, _ = run(library, target, other[0])
        use = other[1]
        line = f"{use.domain or 'ai.onnx'};{use.version};{use.name}"
        refused = f"{other[0].name}: {line}"
        if code != 9 or line not in text:
            problems.append(f"{refused} is not told: {text or code}")
    if target.linker == "wasm":
        here = record_variants(model.content, [i.lanes for i in target.instruction_sets])
        if here != full.variants(model, target):
            problems.append("other variants are bound than were recorded")
    size = library.stat().st_size
    return Row(model.name, target.name, size, seconds, refused, "; ".join(problems))


def main() -> int:
    """Prints a row per build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="default: all")
    parser.add_argument("--targets", default="linux-x64,web")
    parser.add_argument("--sets", help="instruction sets of linux-x64; default: all")
    options = parser.parse_args()
    names = [m["name"] for m in json.loads((MODELS / "models.json").read_text())]
    known = [load(name) for name in names if (MODELS / f"{name}.onnx").is_file()]
    wanted = [m for m in known if not options.models or m.name in options.models]
    full, failed = Full(), 0
    print("| model | target | bytes | seconds | refuses | |\n|---|---|---|---|---|---|", flush=True)
    for model in wanted:
        for name in options.targets.split(","):
            target = TARGETS[name]
            if options.sets and name == "linux-x64":
                target = with_sets(target, options.sets.split(","))
            row = check(model, target, known, full)
            failed += bool(row.problem)
            print(
                f"| {row.model} | {row.target} | {row.size:,} | {row.seconds:.1f} | {row.refused} |"
                f" {row.problem or 'identical'} |",
                flush=True,
            )
    return 1 if failed or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
