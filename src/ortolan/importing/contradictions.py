"""What code for valid nodes trips on in others becomes an error in words.

Importing and passes read operands and attributes as the standard demands them. Each node that does
not keep to it could be looked for; there is always one more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ortolan.errors import InvalidGraph, OrtolanError

__all__ = ["told"]

_TRIPS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, StopIteration,
    TypeError, ValueError,
)  # fmt: skip


@contextlib.contextmanager
def told(step: str) -> Iterator[None]:
    """Makes exceptions of Python within it ones of Ortolan.

    Args:
        step: what is done to the model, for the message.

    Raises:
        InvalidGraph: something that is none of Ortolan's errors, which is its cause.
    """
    try:
        yield
    except OrtolanError:
        raise
    except _TRIPS as error:
        raise InvalidGraph(
            f"{step} fails ({type(error).__name__}: {error}): a node has other inputs or "
            "attributes than the standard says. Where onnx.checker finds nothing, this is a defect "
            "of Ortolan: please report it with the model"
        ) from error
