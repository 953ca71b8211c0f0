"""Where the bytes of a library went: by family of operators, by function.

The linker lists every function with its size. Optimizing over the whole program puts functions that
have one caller into it; such bytes are counted where they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ortolan.catalog import FAMILIES

__all__ = ["by_part", "functions", "readable"]

_LINE = re.compile(
    r"^\s*\S+\s+[0-9a-f]+\s+([0-9a-f]+)\s+.*?\S*:\((?:\.(?:text|rodata|data)[\w.]*?\.)?"
    r"(\S+?)\)\s*$"
)
_FAMILIES = {family.name for family in FAMILIES}
_NOT_IN_FILE = (".bss", ".comment")


def functions(listing: str) -> dict[str, int]:
    """Bytes by name of function or data, from a linker's listing."""
    found: dict[str, int] = {}
    for line in listing.splitlines():
        match = _LINE.match(line)
        if match is None or match.group(2).startswith(_NOT_IN_FILE):
            continue
        size = int(match.group(1), 16)
        if size:
            found[match.group(2)] = found.get(match.group(2), 0) + size
    return found


def by_part(
    sizes: Mapping[str, int], objects: Sequence[Path], total: int
) -> dict[str, dict[str, int]]:
    """Bytes by part and function: families of operators, "core", "registry", "platform", "other".

    Args:
        sizes: of :func:`functions`.
        objects: what was linked; a function belongs to the one that names it.
        total: bytes of the library; what no function accounts for is "other".
    """
    contents = [
        (
            "core"
            if "-core-" in p.name and not p.name.startswith("registry")
            else p.name.split("-")[0],
            p.read_bytes(),
        )
        for p in objects
    ]
    contents.sort(key=lambda item: item[0] not in _FAMILIES)  # kernels before the core
    parts: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        wanted = name.encode()
        stem = next((stem for stem, content in contents if wanted in content), "")
        part = stem if stem in _FAMILIES or stem == "registry" else "core" if stem else "other"
        functions_of = parts.setdefault(part, {})
        functions_of[readable(name)] = functions_of.get(readable(name), 0) + size
    rest = total - sum(sum(f.values()) for f in parts.values())
    if rest > 0:
        parts.setdefault("other", {})["tables, headers, text"] = rest
    return {k: parts[k] for k in sorted(parts, key=lambda p: -sum(parts[p].values()))}


def readable(name: str) -> str:
    """The identifiers in a mangled name: ``Conv::prepare`` of ``_ZN7ortolan4wasm4Conv7prepare...``.

    Enough for a report; no types, no arguments.
    """
    start = re.match(r"_ZZ*N?[KVr]*", name)
    if start is None:
        return name
    at = start.end()
    words: list[str] = []
    while len(words) < 5:
        number = re.compile(r"\d+").match(name, at)
        if number is None:
            break
        end = number.end() + int(number.group())
        words.append(name[number.end() : end])
        at = end
    kept = [w for w in words if w not in ("ortolan", "portable") and not w.startswith("_GLOBAL_")]
    return "::".join(kept) or name
