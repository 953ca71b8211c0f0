"""The passes, in their order, with the reason for each place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ortolan.errors import InvalidArgument
from ortolan.importing.shapes import refine_shapes
from ortolan.passes.constant_folding import fold_constants
from ortolan.passes.conv_activation import fuse_conv_activation
from ortolan.passes.conv_bias import fold_conv_bias
from ortolan.passes.dead_code import remove_dead_code, remove_unused_constants
from ortolan.passes.identity_elimination import eliminate_identities
from ortolan.passes.verify import verify

__all__ = ["LEVELS", "STEPS", "Step", "optimize"]

LEVELS = ("disable", "basic", "extended", "layout", "all")
"""How far a model is rewritten: each level does what those before it do."""


@dataclass(frozen=True)
class Step:
    """One pass.

    Attributes:
        name: its name in messages.
        level: the first level that runs it.
        run: changes a model in place; returns whether it did.
        reason: why it has this place in the order.
    """

    name: str
    level: str
    run: Callable[[ir.Model], bool]
    reason: str


STEPS: tuple[Step, ...] = (
    Step(
        "unused constants", "disable", remove_unused_constants,
        "first: the other passes look at fewer values",
    ),
    Step(
        "identity elimination", "basic", eliminate_identities,
        "before folding, which then finds constants behind an Identity",
    ),
    Step(
        "constant folding", "basic", fold_constants,
        "before dead code, because it leaves constants that nothing uses any more",
    ),
    Step(
        "convolution bias", "basic", fold_conv_bias,
        "after folding, which may have made the constant that is added",
    ),
    Step(
        "convolution activation", "extended", fuse_conv_activation,
        "after the bias: what is between a convolution and its activation is gone",
    ),
    Step(
        "dead code", "basic", remove_dead_code,
        "after everything that takes users away",
    ),
    Step(
        "shapes", "basic", refine_shapes,
        "last: folded constants tell more shapes, and what is gone needs none",
    ),
)  # fmt: skip


def optimize(model: ir.Model, level: str = "all") -> None:
    """Runs the passes of a level on a model, in place, with a check after each.

    Args:
        model: a verified model.
        level: one of `LEVELS`.

    Raises:
        InvalidArgument: there is no such level.
        InvalidGraph: a pass broke a rule of the graph.
    """
    if level not in LEVELS:
        raise InvalidArgument(f'there is no level "{level}": use one of {", ".join(LEVELS)}')
    for step in STEPS:
        if LEVELS.index(step.level) <= LEVELS.index(level) and step.run(model):
            verify(model, f'the pass "{step.name}"')
