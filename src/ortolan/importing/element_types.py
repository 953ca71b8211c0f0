"""Gives every value its type, by the catalog's type rules.

In: a graph whose inputs and constants have types. Out: the same, every value of every graph with
a type. Operators that the catalog lacks are typed by the standard's declaration, by what
onnx's inference found, or by what the model declares for their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from ortolan.errors import InvalidGraph
from ortolan.importing.map_types import MapType
from ortolan.importing.naming import subgraphs
from ortolan.importing.signatures import ANY, Parameter, Signature, Type, same_type, signature_of

__all__ = ["infer_node_types", "infer_types", "label", "type_text"]

_INT64 = ir.TensorType(ir.DataType.INT64)
_BOOL = ir.TensorType(ir.DataType.BOOL)
_FLOAT = ir.TensorType(ir.DataType.FLOAT)
_STRING = ir.TensorType(ir.DataType.STRING)


def label(node: ir.Node) -> str:
    """Returns how messages call a node: its operator and the best name that there is."""
    name = node.name or next((value.name for value in node.outputs if value.name), "")
    domain = f"{node.domain}:" if node.domain else ""
    return f'[{domain}{node.op_type}] node "{name}"'


def type_text(type_: Type | None) -> str:
    """Returns a type as ONNX spells it, such as "tensor(float)"."""
    if isinstance(type_, ir.SequenceType):
        return f"seq({type_text(type_.elem_type)})"
    if isinstance(type_, ir.OptionalType):
        return f"optional({type_text(type_.elem_type)})"
    if isinstance(type_, MapType):
        return f"map({type_.key.name.lower()},{type_text(type_.elem_type)})"
    return f"tensor({type_.dtype.name.lower()})" if type_ is not None else "unknown"


def infer_types(model: ir.Model, hints: Mapping[ir.Value, Type]) -> list[ir.Node]:
    """Sets the type of every value of a model's graphs.

    Args:
        model: inputs of the main graph have types; nodes are in order and have versions.
        hints: types that inference found elsewhere, for operators without a type rule.

    Returns:
        Nodes with outputs whose types neither a rule nor a declaration tells, though those of
        their inputs are known. What depends on them has no type either.

    Raises:
        InvalidGraph: types contradict each other.
    """
    for value in model.graph.inputs:
        if value.type is None and value.const_value is None:
            raise InvalidGraph(f'the input "{value.name}" has no type: declare its element type')
    declared = [(value, value.type) for value in model.graph.outputs]
    _infer_graph(model.graph, hints)
    for value, type_ in declared:
        if type_ is not None and value.type is not None and not same_type(type_, value.type):
            raise InvalidGraph(
                f'the output "{value.name}" is declared as {type_text(type_)}, '
                f"but the graph computes {type_text(value.type)}"
            )
    return [
        node
        for node in model.graph.all_nodes()
        if any(value.type is None and value.name != "" for value in node.outputs)
        and not any(value is not None and value.type is None for value in node.inputs)
    ]


def infer_node_types(node: ir.Node) -> None:
    """Sets the types of a node's outputs; its inputs have types."""
    _infer_node(node, {})


def _infer_graph(graph: ir.Graph, hints: Mapping[ir.Value, Type]) -> None:
    for value in graph.initializers.values():
        _settle_constant(value)
    for node in graph:
        _infer_node(node, hints)


def _settle_constant(value: ir.Value) -> None:
    """A constant is what its data is, whatever the model declares for it."""
    tensor = value.const_value
    if tensor is None:
        raise InvalidGraph(f'the constant "{value.name}" has no data')
    type_ = ir.TensorType(tensor.dtype)
    if not value.is_graph_input():
        value.shape = ir.Shape(tensor.shape.numpy())
    elif value.type is not None and not same_type(value.type, type_):
        raise InvalidGraph(
            f'the input "{value.name}" is declared as {type_text(value.type)}, '
            f"but its default is {type_text(type_)}"
        )
    value.type = type_


def _infer_node(node: ir.Node, hints: Mapping[ir.Value, Type]) -> None:
    signature = signature_of(node.domain, node.op_type, node.version or 1)
    types: Sequence[Type | None]
    if node.domain == "" and node.op_type in _CONTROL:
        types = _CONTROL[node.op_type](node, hints)
    else:
        for graph in subgraphs(node):
            _infer_graph(graph, hints)
        types = [] if signature is None else _output_types(node, signature)
    for k, value in enumerate(node.outputs):
        if value.name == "":
            continue
        type_ = types[k] if k < len(types) else None
        value.type = _copy(type_ or hints.get(value) or value.type or _default(signature))


def _copy(type_: Type | None) -> Type | None:
    """Types can be changed in place: two values never share one."""
    return ir.TensorType(type_.dtype) if isinstance(type_, ir.TensorType) else type_


def _default(signature: Signature | None) -> Type | None:
    """The type that the standard gives where the attribute that would tell is left out."""
    by_attribute = signature is not None and signature.attribute in ("value", "dtype")
    return _FLOAT if by_attribute else None


def _output_types(node: ir.Node, signature: Signature) -> list[Type | None]:
    """The types that an operator's rule gives; None where it gives none."""
    bound = _bind(node, signature)
    types: list[Type | None] = []
    for k in range(len(node.outputs)):
        parameter = signature.output(k)
        if parameter is None:
            raise InvalidGraph(
                f"{label(node)}: it has {len(node.outputs)} outputs, "
                f"but the operator has {len(signature.outputs)}"
            )
        types.append(_output_type(node, signature, parameter, bound))
    return types


def _output_type(
    node: ir.Node, signature: Signature, parameter: Parameter, bound: Mapping[str, tuple[Type, str]]
) -> Type | None:
    variable = parameter.variable
    type_: Type | None
    if signature.attribute in _RULES and variable not in bound and variable not in signature.single:
        source = node.inputs[0] if node.inputs else None
        return _RULES[signature.attribute](node, source.type if source is not None else None)
    if variable in bound:
        type_ = bound[variable][0]
    elif signature.attribute and signature.attribute not in _RULES:
        type_ = _attribute_type(node, signature.attribute) or _fallback_type(
            signature.fallback, bound
        )
        if parameter.is_sequence:
            type_ = type_ or _FLOAT
    else:
        type_ = signature.single.get(variable)
    return ir.SequenceType(type_) if parameter.is_sequence and type_ is not None else type_


def _zip_map(node: ir.Node, _: Type | None) -> Type:
    labels = node.attributes.get("classlabels_strings")
    is_text = labels is not None and len(labels.as_strings()) > 0
    key = ir.DataType.STRING if is_text else ir.DataType.INT64
    return ir.SequenceType(MapType(key, _FLOAT))


def _optional(node: ir.Node, type_: Type | None) -> Type | None:
    if type_ is not None:
        return ir.OptionalType(type_)
    declared = node.attributes.get("type")
    if declared is None or declared.type != ir.AttributeType.TYPE_PROTO:
        raise InvalidGraph(f"{label(node)}: it needs an input or the attribute type")
    return ir.OptionalType(declared.value.type)


def _labels(node: ir.Node, _: Type | None) -> Type:
    labels = node.attributes.get("classlabels_strings")
    return _STRING if labels is not None and labels.as_strings() else ir.TensorType(_INT64.dtype)


def _label_values(node: ir.Node, _: Type | None) -> Type:
    tensor = node.attributes.get("values_tensor")
    if tensor is not None:
        return ir.TensorType(tensor.as_tensor().dtype)
    texts = node.attributes.get("values_strings")
    if texts is not None and texts.as_strings():
        return _STRING
    return _INT64 if "values_int64s" in node.attributes else _FLOAT


def _cast_to(node: ir.Node, _: Type | None) -> Type | None:
    to = node.attributes.get("cast_to")
    types = {"TO_FLOAT": _FLOAT, "TO_INT64": _INT64, "TO_STRING": _STRING}
    return types.get(to.as_string() if to is not None else "TO_FLOAT")


def _positive(node: ir.Node, _: Type | None) -> Type:
    attribute = node.attributes.get("positive")
    is_signed = attribute is not None and attribute.value == 0
    return ir.TensorType(ir.DataType.INT32 if is_signed else ir.DataType.UINT32)


# The rules by which free outputs get their types, from the type of input 0.
_RULES: Mapping[str, Callable[[ir.Node, Type | None], Type | None]] = {
    "same": lambda node, type_: type_,
    "optional": _optional,
    "element": lambda node, type_: type_.elem_type if isinstance(type_, ir.OptionalType) else type_,
    "zip_map": _zip_map,
    "labels": _labels,
    "label_values": _label_values,
    "opposite": lambda node, type_: _INT64 if same_type(type_ or _INT64, _STRING) else _STRING,
    "cast_to": _cast_to,
    "positive": _positive,
    "map_value": lambda node, type_: ir.TensorType(type_.dtype) if type_ is not None else None,
}


def _bind(node: ir.Node, signature: Signature) -> dict[str, tuple[Type, str]]:
    """The types that a node's inputs give to type variables, each with the input's name."""
    bound: dict[str, tuple[Type, str]] = {}
    for k, value in enumerate(node.inputs):
        parameter = signature.input(k)
        if parameter is None:
            raise InvalidGraph(
                f"{label(node)}: it has {len(node.inputs)} inputs, "
                f"but the operator has {len(signature.inputs)}"
            )
        if value is None and (parameter.required or parameter.variadic):
            raise InvalidGraph(f"{label(node)}: its input {parameter.name} is left out")
        if value is None or value.type is None or parameter.variable == ANY:
            continue
        given: Type = value.type
        if parameter.is_sequence:
            if not isinstance(given, ir.SequenceType):
                raise InvalidGraph(
                    f"{label(node)}: its input {parameter.name} is {type_text(given)}, "
                    "but must be a sequence of tensors"
                )
            given = given.elem_type
        type_, first = bound.setdefault(parameter.variable, (given, parameter.name))
        if not same_type(type_, given):
            raise InvalidGraph(
                f"{label(node)}: its input {parameter.name} is {type_text(value.type)}, "
                f"but its input {first} is {type_text(type_)}: they must be equal"
            )
    missing = [p.name for p in signature.inputs[len(node.inputs) :] if p.required]
    if missing:
        raise InvalidGraph(f"{label(node)}: its input {missing[0]} is missing")
    return bound


def _fallback_type(name: str, bound: Mapping[str, tuple[Type, str]]) -> Type | None:
    """The type that a variable has or a name means; None without one."""
    if name in bound:
        return bound[name][0]
    return ir.TensorType(ir.DataType[name.upper()]) if name.islower() else None


def _attribute_type(node: ir.Node, name: str) -> Type | None:
    """The type in an attribute: the number of a data type, or the type of a tensor."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.TensorType(attribute.as_tensor().dtype)
    number = attribute.as_int() if attribute.type == ir.AttributeType.INT else 0
    if number == 0 and name == "output_dtype":
        return None
    if number not in ir.DataType._value2member_map_ or number == ir.DataType.UNDEFINED:
        raise InvalidGraph(f"{label(node)}: its attribute {name} names no element type")
    return ir.TensorType(ir.DataType(number))


def _if_types(node: ir.Node, hints: Mapping[ir.Value, Type]) -> list[Type | None]:
    then_branch, else_branch = (_body(node, name) for name in ("then_branch", "else_branch"))
    for branch in (then_branch, else_branch):
        _infer_graph(branch, hints)
        if len(branch.outputs) < len(node.outputs):
            raise InvalidGraph(
                f"{label(node)}: it has {len(node.outputs)} outputs, "
                f"but a branch has {len(branch.outputs)}"
            )
    for a, b in zip(then_branch.outputs, else_branch.outputs, strict=False):
        if a.type is not None and b.type is not None and not same_type(a.type, b.type):
            raise InvalidGraph(
                f"{label(node)}: one branch gives {type_text(a.type)} and the other "
                f"{type_text(b.type)}"
            )
    return [value.type for value in then_branch.outputs]


def _loop_types(node: ir.Node, hints: Mapping[ir.Value, Type]) -> list[Type | None]:
    body = _body(node, "body")
    states = [value.type if value is not None else None for value in node.inputs[2:]]
    _set_inputs(node, body, [_INT64, _BOOL, *states])
    _infer_graph(body, hints)
    return [value.type for value in body.outputs[1:]]


def _scan_types(node: ir.Node, hints: Mapping[ir.Value, Type]) -> list[Type | None]:
    body = _body(node, "body")
    # Version 8 has the lengths of the sequences in front.
    values = node.inputs[1:] if node.version == 8 else node.inputs
    _set_inputs(node, body, [value.type if value is not None else None for value in values])
    _infer_graph(body, hints)
    return [value.type for value in body.outputs]


_CONTROL = {"If": _if_types, "Loop": _loop_types, "Scan": _scan_types}


def _body(node: ir.Node, name: str) -> ir.Graph:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type != ir.AttributeType.GRAPH:
        raise InvalidGraph(f"{label(node)}: its attribute {name} is missing")
    return attribute.as_graph()


def _set_inputs(node: ir.Node, body: ir.Graph, types: Sequence[Type | None]) -> None:
    """Gives the inputs of a body the types of what the node passes to them."""
    if len(body.inputs) != len(types):
        raise InvalidGraph(
            f"{label(node)}: its body has {len(body.inputs)} inputs, but {len(types)} are passed"
        )
    for value, type_ in zip(body.inputs, types, strict=True):
        if type_ is not None:
            value.type = _copy(type_)
        elif value.type is None:
            raise InvalidGraph(f'{label(node)}: the input "{value.name}" of its body has no type')
