"""Adds a residual within the convolution before it.

    x -> Conv -> c -> Add -> s -> Relu -> y      =>      x -> FusedConv(Z = z, "Relu") -> y
                 z ---^                                  z ---^

1. Conv and Add: com.microsoft:FusedConv with `z` as its fourth input.
2. A Relu behind them becomes its activation.

Not rewritten when `z` is a constant, is not surely of the shape of `c`, or `c` has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.importing.shapes import known_shape
from ortolan.passes.matching import constant, only_user
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_conv_residual"]


def fuse_conv_residual(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Moves residuals into convolutions; returns whether there were any."""
    return rewrite(model, target, ["Add"], _fuse)


def _fuse(rewriter: Rewriter, add: ir.Node) -> bool:
    for conv_output, residual in (tuple(add.inputs), tuple(add.inputs)[::-1]):
        conv = conv_output.producer() if conv_output is not None else None
        if conv_output is None or residual is None or conv is None:
            continue
        if (conv.domain, conv.op_type) != ("", "Conv") or constant(residual) is not None:
            continue
        shape = known_shape(conv_output)
        if only_user(conv_output, ("Add",)) is not add or conv_output is residual:
            continue
        if shape is None or None in shape or shape != known_shape(residual):
            continue
        relu = only_user(add.outputs[0], ("Relu",))
        weights, bias, *_ = [*conv.inputs[1:], None]
        attributes = dict(conv.attributes.items())
        if relu is not None:
            attributes["activation"] = ir.AttrString("activation", "Relu")
        fused = rewriter.node(
            "FusedConv", [conv.inputs[0], weights, bias, residual], attributes, domain=MICROSOFT
        )
        return rewriter.replace(relu or add, [fused])
    return False
