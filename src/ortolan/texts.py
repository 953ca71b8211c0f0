"""Texts of models on a terminal: they come from strangers."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Spells out the characters that a terminal would obey, such as those of escape sequences."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )
