"""What the commands share: where they print, how they complain."""

from __future__ import annotations

from rich import markup
from rich.console import Console

from ortolan.texts import printable

__all__ = ["complain", "escape", "make_console"]


def escape(text: str) -> str:
    """A text as it is: in rich's markup, and without what a terminal would obey."""
    return markup.escape(printable(text))


def make_console() -> Console:
    """A console for standard output that breaks no lines: they may be paths."""
    return Console(soft_wrap=True, highlight=False)


def complain(text: str) -> None:
    """Prints one line to standard error."""
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(text)}")
