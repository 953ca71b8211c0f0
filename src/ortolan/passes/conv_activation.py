"""Fuses an activation into the convolution before it.

    x -> Conv -> y -> Relu -> z      =>      x -> FusedConv(activation "Relu") -> z

1. Relu, Sigmoid, Tanh: no parameters.
2. LeakyRelu (alpha), HardSigmoid (alpha, beta): the attributes become activation_params.
3. Clip with constant bounds, as attributes or inputs: both bounds become activation_params.
4. A pass of its own, for Ortolan alone: HardSwish, QuickGelu (alpha), which is also SiLU, and Gelu
   by erf. The result is ai.ortolan:FusedConv. Before opset 14, which brings HardSwish, it is a Mul
   of `y` with its HardSigmoid.

The result is com.microsoft:FusedConv, version 1, float32 only, as onnxruntime has it. Not
rewritten when `y` has another user or is an output of the graph.
"""

from __future__ import annotations

import onnx_ir as ir

from ortolan.passes.hard_swish import hard_swish_gate
from ortolan.passes.matching import clip_bounds, only_user, replace_node_with_input
from ortolan.passes.rewriting import MICROSOFT, OWN

__all__ = ["fuse_conv_activation", "fuse_own_conv_activation"]

_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip")
_OURS = ("HardSwish", "QuickGelu", "Gelu")
_DEFAULTS: dict[str, tuple[tuple[str, float], ...]] = {
    "LeakyRelu": (("alpha", 0.01),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
    "QuickGelu": (("alpha", 1.702),),
}


def fuse_conv_activation(model: ir.Model) -> bool:
    """Fuses activations into convolutions; returns whether there were any."""
    return _fuse_all(model, _ACTIVATIONS, MICROSOFT)


def fuse_own_conv_activation(model: ir.Model) -> bool:
    """The same with those that onnxruntime does not fuse."""
    modified = _fuse_all(model, _OURS, OWN)
    for node in list(model.graph.all_nodes()):
        if (node.domain, node.op_type) == ("", "Mul"):
            modified |= _fuse_gated(node)
    if modified:
        model.opset_imports.setdefault(OWN, 1)
    return modified


def _fuse_gated(product: ir.Node) -> bool:
    gate = hard_swish_gate(product)
    output = None if gate is None else gate.inputs[0]
    conv = None if output is None else output.producer()
    if gate is None or output is None or conv is None or output.dtype != ir.DataType.FLOAT:
        return False
    if (conv.domain, conv.op_type) != ("", "Conv") or output.is_graph_output():
        return False
    if {use.node for use in output.uses()} != {gate, product} or conv.graph is not product.graph:
        return False
    conv.domain, conv.op_type, conv.version = OWN, "FusedConv", 1
    conv.attributes.add(ir.AttrString("activation", "HardSwish"))
    product.replace_input_with(list(product.inputs).index(gate.outputs[0]), None)
    assert gate.graph is not None
    gate.graph.remove(gate, safe=True)
    replace_node_with_input(product, output)
    return True


def _fuse_all(model: ir.Model, operators: tuple[str, ...], domain: str) -> bool:
    modified = False
    for node in list(model.graph.all_nodes()):
        if (node.domain, node.op_type) == ("", "Conv"):
            modified |= _fuse(node, operators, domain)
    if modified:
        model.opset_imports.setdefault(domain, 1)
    return modified


def _fuse(conv: ir.Node, operators: tuple[str, ...], domain: str) -> bool:
    output = conv.outputs[0]
    activation = only_user(output, operators, ("", "ai.onnx", MICROSOFT))
    if activation is None or output.dtype != ir.DataType.FLOAT:
        return False
    if activation.inputs[0] is not output or "approximate" in activation.attributes:
        return False
    parameters = _parameters(activation)
    if parameters is None:
        return False
    conv.domain, conv.op_type, conv.version = domain, "FusedConv", 1
    conv.attributes.add(ir.AttrString("activation", activation.op_type))
    if parameters:
        conv.attributes.add(ir.AttrFloat32s("activation_params", parameters))
    replace_node_with_input(activation, output)
    return True


def _parameters(node: ir.Node) -> list[float] | None:
    """Returns the activation's parameters in FusedConv's order; None if they are not constant."""
    if node.op_type != "Clip":
        return [
            node.attributes[name].as_float() if name in node.attributes else default
            for name, default in _DEFAULTS.get(node.op_type, ())
        ]
    return clip_bounds(node)
