"""`ortolan demo`: the first minute with Ortolan."""

from __future__ import annotations

import typer

__all__ = ["command"]


def command() -> None:
    """Convert and run the example model, and show what it says."""
    from ortolan.demo import main as run_demo

    raise typer.Exit(run_demo())
