"""The passes, in their order, with the reason for each place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ortolan.errors import InvalidArgument
from ortolan.importing.contradictions import told
from ortolan.importing.shapes import refine_shapes
from ortolan.passes.attention import fuse_attention
from ortolan.passes.attention_projection import fuse_attention_projection
from ortolan.passes.bias_gelu import fuse_bias_gelu
from ortolan.passes.casts import simplify_casts
from ortolan.passes.channel_terms import fold_channel_terms
from ortolan.passes.common_subexpressions import share_common
from ortolan.passes.constant_folding import fold_constants
from ortolan.passes.constant_if import inline_constant_if
from ortolan.passes.conv_activation import fuse_conv_activation, fuse_own_conv_activation
from ortolan.passes.conv_before_resize import move_conv_before_resize
from ortolan.passes.conv_residual import fuse_conv_residual
from ortolan.passes.dead_code import remove_dead_code, remove_unused_constants
from ortolan.passes.dynamic_quantization import fuse_dynamic_quantization
from ortolan.passes.fast_gelu import fuse_fast_gelu
from ortolan.passes.flat_products import unflatten_products
from ortolan.passes.fused_matmul import fuse_matmul_operands
from ortolan.passes.gelu import fuse_gelu
from ortolan.passes.gemm_activation import fuse_gemm_activation
from ortolan.passes.group_query_attention import fuse_group_query_attention
from ortolan.passes.hard_swish import fuse_hard_swish
from ortolan.passes.identity_elimination import eliminate_identities
from ortolan.passes.inverted_bottleneck import fuse_inverted_bottleneck
from ortolan.passes.joining import join_movements
from ortolan.passes.layer_norm import fuse_layer_norm
from ortolan.passes.matmul_add import fuse_matmul_add
from ortolan.passes.neutral import remove_neutral
from ortolan.passes.pads import fold_pads
from ortolan.passes.qdq_clean_up import clean_up_qdq
from ortolan.passes.qdq_operators import fuse_qdq_operators
from ortolan.passes.quick_gelu import fuse_quick_gelu
from ortolan.passes.reshapes import simplify_reshapes
from ortolan.passes.rms_norm import fuse_rms_norm
from ortolan.passes.rotary import fuse_rotary
from ortolan.passes.scattered_slices import scatter_slices
from ortolan.passes.skip_layer_norm import fuse_skip_layer_norm
from ortolan.passes.static_shapes import compute_shapes
from ortolan.passes.target import ORTOLAN, Target
from ortolan.passes.transposed_conv import turn_transposed
from ortolan.passes.transposes import simplify_transposes
from ortolan.passes.verify import verify

__all__ = ["ALL", "BASIC", "EXTENDED", "LEVELS", "STEPS", "Step", "optimize"]

LEVELS = ("disable", "basic", "extended", "layout", "all")
"""How far a model is rewritten: each level does what those before it do."""

Pass = Callable[[ir.Model, Target], bool]

# One rewrite makes room for others: a group is repeated until nothing changes, at most so often.
_ROUNDS = 12


@dataclass(frozen=True)
class Step:
    """One pass.

    Attributes:
        name: its name in messages.
        run: changes a model in place for a target; returns whether it did.
        reason: why it has this place in the order.
        tells_shapes: what it changes lets the inference of shapes find more.
    """

    name: str
    run: Pass
    reason: str
    tells_shapes: bool = False


def _for_all(run: Callable[[ir.Model], bool]) -> Pass:
    """A pass that is the same for every target."""
    return lambda model, _: run(model)


FIRST: tuple[Step, ...] = (
    Step(
        "unused constants", _for_all(remove_unused_constants),
        "at every level, and first: the other passes look at fewer values",
    ),
)  # fmt: skip

_SHAPES = Step(
    "shapes", _for_all(refine_shapes),
    "before all that asks for shapes; folded constants tell more of them",
)  # fmt: skip

BASIC: tuple[Step, ...] = (
    Step(
        "identity elimination", _for_all(eliminate_identities),
        "before folding, which then finds constants behind an Identity",
    ),
    Step(
        "constant folding", _for_all(fold_constants),
        "before all that asks for constants, and before shapes are inferred from them",
        tells_shapes=True,
    ),
    Step(
        "constant If", inline_constant_if,
        "after folding, which makes conditions constant; what it brings is simplified below",
        tells_shapes=True,
    ),
    _SHAPES,
    Step(
        "static shapes", compute_shapes,
        "right after shapes: most of the arithmetic on them goes, and need not be looked at",
        tells_shapes=True,
    ),
    Step(
        "dead code", _for_all(remove_dead_code),
        "after shapes are constant: values have fewer users, and more have only one",
    ),
    Step(
        "flat products", unflatten_products,
        "before reshapes, which would join its first one with what is before it",
    ),
    Step("casts", simplify_casts, "as the next ones: what stays is what computes"),
    Step("neutral nodes", remove_neutral, "before joining, which finds more neighbours then"),
    Step("reshapes", simplify_reshapes, "after neutral nodes for the same reason"),
    Step("transposes", simplify_transposes, "after reshapes, which may lie between two of them"),
    Step("joined movements", join_movements, "after neutral nodes, which may lie between two"),
    Step("scattered slices", scatter_slices, "after folding, which makes indices constant"),
    Step(
        "transposed convolutions", turn_transposed,
        "after folding, which makes weights constant; before what goes into convolutions",
    ),
    Step("pads", fold_pads, "before terms of channels, which takes nothing that pads need"),
    Step(
        "channel terms", fold_channel_terms,
        "after folding, which may have made the constant that is added",
    ),
    Step(
        "matrix product and sum", fuse_matmul_add,
        "after channel terms: a constant term that comes with a scale is theirs",
    ),
    Step(
        "common subexpressions", share_common,
        "after the clean-up, which makes equal what was written differently",
    ),
)  # fmt: skip

EXTENDED: tuple[Step, ...] = (
    Step("QDQ clean-up", clean_up_qdq, "before integer operators, which it brings together"),
    Step("QDQ operators", fuse_qdq_operators, "before anything takes parts of a quantized node"),
    Step("dynamic quantization", fuse_dynamic_quantization, "beside QDQ operators"),
    Step("layer norm", fuse_layer_norm, "before GELU: its parts look like other patterns' parts"),
    Step("RMS norm", fuse_rms_norm, "after layer norm, which has all of its parts and more"),
    Step("rotary embedding", fuse_rotary, "before attention, which looks for heads behind it"),
    Step(
        "group query attention", fuse_group_query_attention,
        "before attention, which would take the repeated heads as they are",
    ),
    Step("attention", fuse_attention, "before scales go elsewhere; norms around it do not matter"),
    Step("projections of attention", fuse_attention_projection, "after attention, which it widens"),
    Step(
        "static shapes", compute_shapes,
        "again: a mask left open what batch attention has, and the residual behind it asks",
    ),
    Step("GELU", fuse_gelu, "as the next ones: before what takes a single Mul or Add"),
    Step("fast GELU", fuse_fast_gelu, "beside GELU"),
    Step("hard swish", fuse_hard_swish, "before activations go into convolutions"),
    Step("quick GELU", fuse_quick_gelu, "beside hard swish"),
    Step("bias GELU", fuse_bias_gelu, "after both GELU, whose bias it takes"),
    Step("skip layer norm", fuse_skip_layer_norm, "after both norms, whose residual it takes"),
    Step(
        "convolution before enlarging", move_conv_before_resize,
        "before residuals and activations, which go into the convolution where it is",
    ),
    Step(
        "convolution residual", fuse_conv_residual,
        "before activations, which would take the convolution alone",
    ),
    Step(
        "convolution activation", _for_all(fuse_conv_activation),
        "after everything that may lie between a convolution and its activation",
    ),
    Step("product activation", fuse_gemm_activation, "beside that of convolutions"),
    Step(
        "operands of products", fuse_matmul_operands,
        "after all that: it takes a Transpose and a Mul that other patterns ask for",
    ),
    Step(
        "common subexpressions", share_common,
        "again: the fusions of many layers make the same constants, and casts of the same mask",
    ),
)  # fmt: skip

ALL: tuple[Step, ...] = (
    Step(
        "own activations of convolutions", _for_all(fuse_own_conv_activation),
        "before convolutions become parts of something else",
    ),
    Step(
        "inverted bottleneck", fuse_inverted_bottleneck,
        "after all that goes into its convolutions; the result is for Ortolan alone",
    ),
)  # fmt: skip

LAST: tuple[Step, ...] = (
    Step("dead code", _for_all(remove_dead_code), "after everything that takes users away"),
    Step(
        "shapes", _for_all(refine_shapes),
        "last: folded constants tell more shapes, and what is gone needs none",
    ),
)  # fmt: skip

STEPS: tuple[Step, ...] = (*FIRST, *BASIC, *EXTENDED, *ALL, *LAST)
"""All passes, those of the last level included."""


def optimize(model: ir.Model, level: str = "all", target: Target = ORTOLAN) -> None:
    """Runs the passes of a level on a model, in place, with a check after each.

    Args:
        model: a verified model.
        level: one of `LEVELS`.
        target: who runs the model: no pass uses an operator that it has not.

    Raises:
        InvalidArgument: there is no such level.
        InvalidGraph: a pass broke a rule of the graph, or a node breaks one of the standard.
    """
    if level not in LEVELS:
        raise InvalidArgument(f'there is no level "{level}": use one of {", ".join(LEVELS)}')
    reached = LEVELS.index(level)
    _run(model, target, FIRST)
    if reached >= LEVELS.index("basic"):
        _repeat(model, target, BASIC)
    if reached >= LEVELS.index("extended"):
        for _ in range(_ROUNDS):
            # What is fused tells more of shapes: there may be clean-up to do again.
            if not (_repeat(model, target, EXTENDED) and _repeat(model, target, BASIC)):
                break
    if reached >= LEVELS.index("all") and target is ORTOLAN:
        _run(model, target, ALL)
    if reached >= LEVELS.index("basic"):
        _run(model, target, LAST)


def _repeat(model: ir.Model, target: Target, steps: Sequence[Step]) -> bool:
    """Runs passes until they change nothing; returns whether they ever did."""
    # Shapes are inferred again only where there is more to find: it takes longer than the rest.
    stale, ever = True, False
    for _ in range(_ROUNDS):
        modified = False
        for step in steps:
            if step is _SHAPES and not stale:
                continue
            if not _apply(step, model, target):
                continue
            modified |= step is not _SHAPES
            stale = step is not _SHAPES and (stale or step.tells_shapes)
        if not modified:
            break
        ever = True
    return ever


def _run(model: ir.Model, target: Target, steps: Sequence[Step]) -> None:
    for step in steps:
        _apply(step, model, target)


def _apply(step: Step, model: ir.Model, target: Target) -> bool:
    """Runs a pass; returns whether it changed something."""
    what = f'the pass "{step.name}"'
    with told(what):
        modified = step.run(model, target)
    if modified:
        verify(model, what)
    return modified
