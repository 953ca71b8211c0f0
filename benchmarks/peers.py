"""Bytes beside those of other runtimes, as a table for pages: ``python benchmarks/peers.py``.

Ours are built here, by what `ortolan build` does; the others' were measured on what they publish,
with the same gzip -9 and brotli -q 11 (window 24).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import size

from ortolan.build.support import mobile_config
from ortolan.build.targets import ANDROID_ARM64, WEB, WEB_RELAXED


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


def ours() -> Iterator[tuple[str, bytes]]:
    """Names and contents of our libraries; reduced ones have messages as codes."""
    for target in (WEB, WEB_RELAXED):
        yield f"Ortolan, {target.name}, every operator", size.make(target, target.name)
    for path in size.named_models():
        for target in (WEB, ANDROID_ARM64):
            name = f"{target.name}, {path.stem} alone"
            yield (
                f"Ortolan, {name}",
                size.make(target, name, size.for_model(path, target), size.SMALL),
            )
    for name, kept in (("no operators", size.nothing), ("the set mobile", mobile_config())):
        name = f"{ANDROID_ARM64.name}, {name}"
        yield f"Ortolan, {name}", size.make(ANDROID_ARM64, name, kept, size.SMALL)


def main() -> int:
    """Prints the table."""
    print("| | raw | gzip -9 | brotli -q 11 | from |\n|---|---|---|---|---|")
    for name, content in ours():
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
