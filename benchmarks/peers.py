"""Bytes beside those of other runtimes, as a table for pages: ``python benchmarks/peers.py``.

Ours are built here, by what `ortolan build` does; the others' were measured on what they publish,
with the same gzip -9 and brotli -q 11 (window 24). `--model` adds a build for a model, such
as the zoo's MobileNetV2.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import size

from ortolan.build.compile import BuildOptions, build
from ortolan.build.host import cache_folder
from ortolan.build.product import load_model, wanted_config
from ortolan.build.support import mobile_config
from ortolan.build.targets import ANDROID_ARM64, WEB, WEB_RELAXED, Target
from ortolan.required_ops import Config, selector, variant_selector


@dataclasses.dataclass(frozen=True)
class Peer:
    """A published artefact; sizes that nobody published are 0.

    Attributes:
        name: what it is.
        source: where it can be had.
    """

    name: str
    raw: int
    gzip: int
    brotli: int
    source: str


_NPM = "npm onnxruntime-web@1.30.0"
PEERS = (
    Peer("onnxruntime-web, wasm, CPU", 14_239_897, 3_652_765, 2_300_583, _NPM),
    Peer("onnxruntime-web, wasm, default import (jsep)", 28_312_028, 6_624_630, 3_815_553, _NPM),
    Peer(
        "onnxruntime 1.20 minimal build, Silero VAD's operators, wasm", 1_037_262, 0, 0,
        "as shipped in a public browser extension",
    ),
    Peer("onnxruntime minimal build without operators, Android arm64", 1_571_376, 0, 0,
         "built from its sources, 2026"),
    Peer("onnxruntime-mobile 1.13.1, Android arm64, reduced", 3_200_000, 0, 0, "Maven Central"),
    Peer("LiteRT.js 2.5.3, wasm and JavaScript", 9_700_000, 2_930_000, 2_340_000, "npm"),
    Peer("tfjs core and wasm backend 4.22.0", 890_000, 260_000, 210_000, "npm"),
)  # fmt: skip
SMALL = BuildOptions("size", "codes", whole_program=True)
SILERO = size.SHARED / "silero-vad-v5-op16.onnx"


def reduced(target: Target, config: Config, options: BuildOptions = SMALL) -> bytes:
    """The library of a target with what a config keeps."""
    return build(
        target, size.OUTPUT / "peers", cache_folder(), wanted=selector(config),
        variants=variant_selector(config), options=options,
    ).read_bytes()  # fmt: skip


def for_model(path: Path, target: Target) -> bytes:
    """The library of a target for one model."""
    return reduced(target, wanted_config([(path.name, load_model(path))], None, targets=[target]))


def ours(models: list[Path]) -> list[tuple[str, bytes]]:
    """Names and contents of our libraries."""
    found = [
        (f"Ortolan, {t.name}, every operator", size.make(t, t.name)) for t in (WEB, WEB_RELAXED)
    ]
    for path in [*([SILERO] if SILERO.is_file() else []), *models]:
        found += [
            (f"Ortolan, {target.name}, {path.stem} alone", for_model(path, target))
            for target in (WEB, ANDROID_ARM64)
        ]
    found.append(("Ortolan, Android arm64, no operators", reduced(ANDROID_ARM64, Config())))
    mobile = reduced(ANDROID_ARM64, mobile_config(), BuildOptions("size"))
    found.append(("Ortolan, Android arm64, the set mobile", mobile))
    return found


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, action="append", default=[])
    options = parser.parse_args()
    print("| | raw | gzip -9 | brotli -q 11 | from |\n|---|---|---|---|---|")
    for name, content in ours(options.model):
        sizes = size.packed(content)
        print(
            f"| {name} | {sizes['raw']:,} | {sizes['gzip']:,} | {sizes['brotli']:,} | this build |"
        )
    for peer in PEERS:
        cells = [f"{n:,}" if n else "-" for n in (peer.raw, peer.gzip, peer.brotli)]
        print(f"| {peer.name} | {' | '.join(cells)} | {peer.source} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
