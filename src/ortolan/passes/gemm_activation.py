"""Fuses an activation into the product of matrices before it.

    x -> Gemm -> y -> Relu -> z      =>      x -> FusedGemm(activation "Relu") -> z

1. Relu, Sigmoid, Tanh, Softplus, Softsign: no parameters.
2. LeakyRelu, Elu (alpha), HardSigmoid (alpha, beta).

The result is com.microsoft:FusedGemm. Not rewritten when `y` has another user.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.matching import only_user
from ortolan.passes.rewriting import MICROSOFT, Rewriter, rewrite
from ortolan.passes.target import ORTOLAN, Target

__all__ = ["fuse_gemm_activation"]

_PARAMETERS: dict[str, dict[str, float]] = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "Softplus": {}, "Softsign": {},
    "LeakyRelu": {"alpha": 0.01}, "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}  # fmt: skip


def fuse_gemm_activation(model: ir.Model, target: Target = ORTOLAN) -> bool:
    """Fuses activations into products of matrices; returns whether there were any."""
    return rewrite(model, target, ["Gemm"], _fuse)


def _fuse(rewriter: Rewriter, gemm: ir.Node) -> bool:
    activation = only_user(gemm.outputs[0], _PARAMETERS)
    if activation is None:
        return False
    attributes: dict[str, object] = dict(gemm.attributes.items())
    attributes["activation"] = activation.op_type
    for name, default in _PARAMETERS[activation.op_type].items():
        attributes[f"activation_{name}"] = activation.attributes.get_float(name, default)
    fused = rewriter.node("FusedGemm", gemm.inputs, attributes, domain=MICROSOFT)
    return rewriter.replace(activation, [fused])
