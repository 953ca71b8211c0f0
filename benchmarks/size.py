"""Bytes of every target and part, as the tables of the README have them, and their budgets.

``python benchmarks/size.py``            prints the tables
``python benchmarks/size.py --check``    compares with budgets.json, exit code 1 where one is passed
``python benchmarks/size.py --update``   writes the measured bytes and 1/256 more, rounded up to
                                         512 bytes, to budgets.json
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import struct
import sys
from pathlib import Path

import brotli
import zoo

import ortolan
from ortolan.build.compile import SPEED, BuildOptions, build
from ortolan.build.host import cache_folder
from ortolan.build.product import config_of
from ortolan.build.registry import Selector
from ortolan.build.support import mobile_config
from ortolan.build.targets import (
    ANDROID_ARM64,
    LINUX_ARM64,
    LINUX_X64,
    WEB,
    WEB_RELAXED,
    Target,
)
from ortolan.build.variants import lanes_of
from ortolan.catalog.operator import Operator
from ortolan.catalog.types import TypeSet
from ortolan.required_ops import Config, minimise, selector, variant_selector

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = ROOT / "budgets.json"
OUTPUT = ROOT / "build" / "size"
SHARED = ROOT.parent / "shared" / "models"
# As small as `ortolan build` makes it.
SMALL = BuildOptions("size", "codes", whole_program=True)


def nothing(operator: Operator, types: tuple[TypeSet, TypeSet]) -> bool:
    """Selects no kernel: what is left is the core."""
    del operator, types
    return False


def family(name: str) -> Selector:
    """Selects the kernels of one family."""
    from ortolan.catalog import FAMILIES

    (found,) = (f for f in FAMILIES if f.name == name)

    def wanted(operator: Operator, types: tuple[TypeSet, TypeSet]) -> bool:
        del types
        return operator in found.operators

    return wanted


def for_model(path: Path, target: Target = WEB) -> Config:
    """What one model needs on a target, from its `.ort` at level all."""
    content = ortolan.convert(path)
    assert isinstance(content, bytes)
    return minimise(config_of(content, path.name, lanes_of([target])))


def make(
    target: Target, label: str, wanted: Selector | Config | None = None,
    options: BuildOptions = SPEED,
) -> bytes:  # fmt: skip
    """Builds a target and returns the library's bytes."""
    variants = variant_selector(wanted) if isinstance(wanted, Config) else None
    without = wanted.without if isinstance(wanted, Config) else frozenset()
    chosen = selector(wanted) if isinstance(wanted, Config) else wanted
    folder = OUTPUT / label.replace(" ", "-").replace(",", "")
    path = build(
        target, folder, cache_folder(), wanted=chosen, variants=variants, without=without,
        options=options,
    )  # fmt: skip
    return path.read_bytes()


def packed(content: bytes) -> dict[str, int]:
    """Raw, gzip -9 and brotli -q 11 (window 24) sizes."""
    return {
        "raw": len(content),
        "gzip": len(gzip.compress(content, 9, mtime=0)),
        "brotli": len(brotli.compress(content, quality=11, lgwin=24)),
    }


def elf_sections(content: bytes) -> dict[str, int]:
    """Bytes of each section of a 64-bit ELF file."""
    offset, entry, count, names_at = struct.unpack_from("<Q10xHHH", content, 0x28)
    headers = [struct.unpack_from("<IIQQQQ", content, offset + i * entry) for i in range(count)]
    names = headers[names_at][4]

    def text(at: int) -> str:
        return content[names + at : content.index(b"\0", names + at)].decode()

    return {text(h[0]): h[5] for h in headers}


def measure() -> dict[str, int]:
    """All figures by name."""
    figures: dict[str, int] = {}
    sets = LINUX_X64.instruction_sets
    for count in range(1, len(sets) + 1):
        label = "linux-x64 " + "+".join(s.name for s in sets[:count])
        part = dataclasses.replace(LINUX_X64, instruction_sets=sets[:count])
        figures[label] = len(make(part, label.replace(" ", "-")))
    figures["linux-x64 no operators"] = len(make(LINUX_X64, "x64-core", nothing))
    arm = make(LINUX_ARM64, "arm64")
    sections = elf_sections(arm)
    figures["linux-arm64"] = len(arm)
    relocations = sections.get(".rela.dyn", 0) + sections.get(".data.rel.ro", 0)
    figures["linux-arm64 .rela.dyn + .data.rel.ro"] = relocations
    figures["linux-arm64 no operators"] = len(make(LINUX_ARM64, "arm64-core", nothing))
    for name, kept in (("no operators", nothing), ("mobile", mobile_config())):
        label = f"ortolan build {ANDROID_ARM64.name} {name}, codes"
        figures[label] = len(make(ANDROID_ARM64, label, kept, SMALL))
    for target in (WEB, WEB_RELAXED):
        for kind, size in packed(make(target, target.name)).items():
            figures[f"{target.name} {kind}"] = size
    for name, wanted in reduced().items():
        for messages in ("text", "codes"):
            options = BuildOptions("size", messages, whole_program=True)
            label = f"{name}, {messages}"
            for kind, size in packed(make(WEB, label.replace(" ", "-"), wanted, options)).items():
                figures[f"ortolan build web {label} {kind}"] = size
    for name, wanted in wasm_selections().items():
        for kind, size in packed(make(WEB, "web-" + name.replace(" ", "-"), wanted)).items():
            figures[f"web {name} {kind}"] = size
    return figures


def named_models() -> list[Path]:
    """The models that budgets name, where they are."""
    known = [*zoo.real_models(), *zoo.unpack(ROOT / "build" / "zoo")]
    return [path for path in known if path.stem in ("silero-vad-v5-op16", "mobilenet_v2")]


def reduced() -> dict[str, Selector | Config]:
    """What `ortolan build` makes for the web: nothing, and one model each."""
    models = [ROOT / "examples" / "digits" / "digits.onnx", *named_models()]
    return {"no operators": nothing, **{path.stem: for_model(path) for path in models}}


def wasm_selections() -> dict[str, Selector | Config]:
    """Reduced WebAssembly builds: nothing, one family each, one model each."""
    from ortolan.catalog import FAMILIES

    found: dict[str, Selector | Config] = {"no operators": nothing}
    for each in FAMILIES:
        if any(operator.kernel for operator in each.operators):
            found[f"only {each.name}"] = family(each.name)
    found["digits only"] = for_model(ROOT / "examples" / "digits" / "digits.onnx")
    for model in ("mnist-7", "silero-vad-v5-op16", "yunet-n-dynamic"):
        path = SHARED / f"{model}.onnx"
        if path.is_file():
            found[f"{model} only"] = for_model(path)
    return found


def budget_of(size: int) -> int:
    """What a part of ``size`` bytes may have: a mend of some bytes passes, a feature does not."""
    return -(-(size + size // 256) // 512) * 512


def main() -> int:
    """Prints, checks or updates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    figures = measure()
    budgets = json.loads(BUDGETS.read_text())["bytes"] if BUDGETS.is_file() else {}
    print(f"{'bytes':>10}  {'budget':>10}  part")
    over = []
    for name, size in figures.items():
        limit = budgets.get(name)
        print(f"{size:>10,}  {limit or 0:>10,}  {name}")
        if limit is not None and size > limit:
            over.append(f"{name}: {size:,} bytes, budget {limit:,}")
    if options.update:
        content = json.loads(BUDGETS.read_text()) if BUDGETS.is_file() else {}
        content["bytes"] = {name: budget_of(size) for name, size in figures.items()}
        BUDGETS.write_text(json.dumps(content, indent=2) + "\n")
    if options.check and over:
        print("over budget:\n  " + "\n  ".join(over), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
