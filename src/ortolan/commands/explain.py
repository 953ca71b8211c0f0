"""`ortolan explain`: the text of an error of a build that keeps numbers only."""

from __future__ import annotations

from typing import Annotated

import typer

from ortolan.errors import InvalidArgument

__all__ = ["command"]


def command(
    number: Annotated[int, typer.Argument(help="the number in the error: message 12345")],
) -> None:
    """Tell the text of an error by its number; each % stands for something of the model."""
    from ortolan.build.messages import texts

    found = texts().get(number)
    if not found:
        raise InvalidArgument(f"no message of this version has the number {number}")
    for text in found:
        print(text)
