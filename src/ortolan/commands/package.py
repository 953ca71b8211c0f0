"""`ortolan package`: the prebuilt operator sets for all platforms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ortolan.errors import InvalidArgument

__all__ = ["command"]


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder for the packages")],
    sets: Annotated[str, typer.Option(help="the operator sets: full,mobile")] = "full,mobile",
    targets: Annotated[str, typer.Option(help="the platforms; default: all")] = "",
) -> None:
    """Build the operator sets `full` and `mobile` for all platforms: DIR/SET/PLATFORM."""
    from ortolan.build.compile import BuildOptions
    from ortolan.build.host import cache_folder
    from ortolan.build.product import build_product
    from ortolan.build.support import SETS
    from ortolan.build.targets import PLATFORMS

    names = [name for name in sets.split(",") if name]
    for name in names:
        if name not in SETS:
            raise InvalidArgument(f'there is no set "{name}": use {", ".join(SETS)}')
    console = Console(soft_wrap=True, highlight=False)
    for name in names:
        for platform in targets.split(",") if targets else PLATFORMS:
            with console.status(f"{name} for {platform}"):
                product = build_product(
                    platform,
                    output / name / platform,
                    cache_folder(),
                    kept=SETS[name](),
                    options=BuildOptions(whole_program=False),
                )
            for each in product.manifest["artefacts"]:
                console.print(f"{name} {each['target']}: {each['bytes']['raw']:,} bytes")
