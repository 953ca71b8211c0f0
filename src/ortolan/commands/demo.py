"""`ortolan demo`: the first minute with Ortolan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    png: Annotated[
        Path | None, typer.Option(help="draw the samples and the answers into this file too")
    ] = None,
) -> None:
    """Convert and run the example model, and show what it says."""
    from ortolan.demo import main as run_demo

    raise typer.Exit(run_demo(png))
