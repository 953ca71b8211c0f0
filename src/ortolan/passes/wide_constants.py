"""Turns constants of fewer than 8 bits, which onnxruntime does not read from a file, into int8.

    w (int4) -> DequantizeLinear      =>      w (int8) -> DequantizeLinear
    w (int4) -> other                 =>      w (int8) -> Cast(int4) -> other

1. A DequantizeLinear whose 4 bit inputs are all constants takes them as int8 or uint8: its
   result is the same.
2. For other users a Cast makes the narrow value again when the model runs.
"""

from __future__ import annotations

import ml_dtypes  # noqa: F401  (numpy needs it to convert the narrow types)
import onnx_ir as ir

from ortolan.importing.naming import make_names_unique
from ortolan.importing.versions import since_version
from ortolan.passes.matching import constant

__all__ = ["widen_constants"]

_WIDE = {
    ir.DataType.INT4: ir.DataType.INT8,
    ir.DataType.UINT4: ir.DataType.UINT8,
    ir.DataType.INT2: ir.DataType.INT8,
    ir.DataType.UINT2: ir.DataType.UINT8,
}


def widen_constants(model: ir.Model) -> bool:
    """Rewrites all constants of 2 and 4 bits; returns whether there were any.

    Args:
        model: a verified model, changed in place.
    """
    narrow = [
        value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.dtype in _WIDE and not value.is_graph_input()
    ]
    version = since_version("", "Cast", model.opset_imports.get(""))
    for value in narrow:
        users = [use.node for use in value.uses()]
        direct = bool(users) and all(_takes_wide(node) for node in users)
        if direct and not value.is_graph_output():
            _widen(value)
        else:
            _cast(value, version)
    make_names_unique(model)
    return bool(narrow)


def _takes_wide(node: ir.Node) -> bool:
    """Whether all narrow inputs of a node become wide, and the node can be."""
    if (node.domain, node.op_type) != ("", "DequantizeLinear"):
        return False
    narrow = [v for v in node.inputs if v is not None and v.dtype in (*_WIDE, *_WIDE.values())]
    return all(constant(value) is not None for value in narrow) and all(
        use.node.op_type == "DequantizeLinear" and use.node.domain == ""
        for value in narrow
        for use in value.uses()
    )


def _widen(value: ir.Value) -> None:
    assert value.dtype is not None and value.const_value is not None
    wide = _WIDE[value.dtype]
    array = value.const_value.numpy().astype(wide.numpy())
    value.const_value = ir.Tensor(array, dtype=wide, name=value.name)
    value.type = ir.TensorType(wide)


def _cast(value: ir.Value, version: int) -> None:
    graph, name, narrow = value.graph, value.name, value.dtype
    assert isinstance(graph, ir.Graph) and narrow is not None
    node = ir.Node(
        "", "Cast", [value], [ir.AttrInt64("to", int(narrow))], num_outputs=1, version=version
    )
    output = node.outputs[0]
    output.name, output.type, output.shape = f"{name}_narrow", ir.TensorType(narrow), value.shape
    value.replace_all_uses_with(output, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    _widen(value)
    if len(graph) > 0:
        graph.insert_before(graph[0], [node])
    else:
        graph.append(node)
