"""What the commands share: where they print, how they complain."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

__all__ = ["complain", "make_console"]


def make_console() -> Console:
    """A console for standard output that breaks no lines: they may be paths."""
    return Console(soft_wrap=True, highlight=False)


def complain(text: str) -> None:
    """Prints one line to standard error."""
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(text)}")
