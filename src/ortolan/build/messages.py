"""The texts of the runtime's errors by number, for builds that keep only the numbers."""

from __future__ import annotations

import re
from functools import cache

from ortolan.build.compile import source_root

__all__ = ["message_number", "texts"]

# Literals that stand next to each other are one text.
_LITERALS = re.compile(r'"(?:[^"\\\n]|\\.)*"(?:\s*"(?:[^"\\\n]|\\.)*")*')
_PIECE = re.compile(r'"((?:[^"\\\n]|\\.)*)"')


def message_number(text: str) -> int:
    """``message_number`` of ``core/status.h``."""
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return (value ^ value >> 16) & 0xFFFF


@cache
def texts() -> dict[int, list[str]]:
    """Every text in the C++ sources that may be a message, by its number.

    Two texts may have one number; then both are told.
    """
    found: dict[int, list[str]] = {}
    root = source_root()
    for folder in ("core", "onnx", "kernels"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".cc", ".h"):
                continue
            for match in _LITERALS.finditer(path.read_text("utf-8")):
                text = "".join(_PIECE.findall(match.group()))
                text = text.replace('\\"', '"').replace("\\\\", "\\")
                known = found.setdefault(message_number(text), [])
                if " " in text and text not in known:
                    known.append(text)
    return {number: known for number, known in found.items() if known}
