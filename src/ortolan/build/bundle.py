"""Files that hold several libraries: macOS's for two processors, Apple's frameworks."""

from __future__ import annotations

import plistlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["fat", "write_xcframework"]

_MAGIC = 0xCAFEBABE
_PROCESSORS = {"aarch64": (0x0100000C, 0), "x86_64": (0x01000007, 3)}
_ALIGNMENT = 14  # as a power of two: 16 KB, the pages of Apple's arm64


def fat(parts: Sequence[tuple[str, bytes]]) -> bytes:
    """One file with a library for each processor ("aarch64", "x86_64")."""
    at = 8 + 20 * len(parts)
    header = struct.pack(">II", _MAGIC, len(parts))
    body = b""
    for processor, content in parts:
        place = -(-(at + len(body)) // (1 << _ALIGNMENT)) << _ALIGNMENT
        body += b"\0" * (place - at - len(body)) + content
        header += struct.pack(">5I", *_PROCESSORS[processor], place, len(content), _ALIGNMENT)
    return header + body


def write_xcframework(
    folder: Path, libraries: Mapping[str, Sequence[tuple[str, bytes]]], header: bytes
) -> None:
    """Writes a framework of static libraries.

    Args:
        folder: "Ortolan.xcframework", which must not be there.
        libraries: parts by identifier: "ios-arm64", "ios-arm64_x86_64-simulator".
        header: the C header.
    """
    available = []
    for identifier, parts in libraries.items():
        place = folder / identifier
        headers = place / "Headers"
        headers.mkdir(parents=True)
        content = parts[0][1] if len(parts) == 1 else fat(parts)
        (place / "libortolan.a").write_bytes(content)
        (headers / "ortolan.h").write_bytes(header)
        (headers / "module.modulemap").write_text(
            'module Ortolan {\n  header "ortolan.h"\n  export *\n}\n'
        )
        entry = {
            "LibraryIdentifier": identifier,
            "LibraryPath": "libortolan.a",
            "HeadersPath": "Headers",
            "SupportedPlatform": "ios",
            "SupportedArchitectures": [
                "arm64" if processor == "aarch64" else processor for processor, _ in parts
            ],
        }
        if identifier.endswith("-simulator"):
            entry["SupportedPlatformVariant"] = "simulator"
        available.append(entry)
    content = plistlib.dumps(
        {
            "AvailableLibraries": available,
            "CFBundlePackageType": "XFWK",
            "XCFrameworkFormatVersion": "1.0",
        }
    )
    (folder / "Info.plist").write_bytes(content)
