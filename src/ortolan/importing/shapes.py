"""Adds shapes, and types where no rule gives them, by onnx's own inference.

Shapes are hints: the runtime computes the real ones and trusts none of these. Where inference
fails, or finds nothing, what the model declares stays.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

import onnx
import onnx_ir as ir

from ortolan.importing.naming import graph_values, subgraphs
from ortolan.importing.signatures import Type, same_type
from ortolan.importing.versions import since_version

__all__ = [
    "Hint", "apply_shapes", "copy_shape", "infer_hints", "known_shape", "own_size",
    "refine_shapes", "set_known_shape",
]  # fmt: skip

# Larger constants are told by type and shape only: inference reads those that hold shapes.
_SMALL_BYTES = 1024

# Domain of what stands for operators that onnx's inference has wrong.
_MENDED = "ortolan.mended"

# Its operator that passes on a value's type, and its shape where no size of it is negative.
_GUARD = "Guard"

# What inference of Einsum comes back from.
_TERM = r"[A-Za-z ]*(\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")

# Elements of all vectors whose numbers onnx may propagate: it takes about 60 bytes for each.
_MOST_ELEMENTS = 1 << 22

# More than any tensor has.
_MOST_DIMS = 64

Hint = tuple[Type, ir.Shape | None]

Known = tuple[int | str | None, ...]
"""Sizes that are sure; equal names stand for equal sizes, None for a size that is not known."""

# Where a value keeps its sure sizes.
_KNOWN = "ortolan.known_shape"


def infer_hints(model: ir.Model, *, keep_names: bool = False) -> dict[ir.Value, Hint]:
    """Returns what onnx's inference finds for outputs of nodes, those in subgraphs included.

    Never raises: without a result there are no hints.

    Args:
        model: names of values are unique in all graphs around them; nodes have versions.
        keep_names: keep also the names of sizes that inference made up.
    """
    # Whatever goes wrong there, the model may be fine.
    try:
        proto = onnx.ModelProto(ir_version=model.ir_version)
        guarded = any(node.op_type == "Slice" for node in model.graph.all_nodes())
        light = _light_graph(model.graph, model, declared=not keep_names, guarded=guarded)
        proto.graph.CopyFrom(light)
        for domain, version in model.opset_imports.items():
            proto.opset_import.add(domain=domain, version=version)
        proto.opset_import.add(domain=_MENDED, version=1)
        proto.functions.append(_slice_of_opset_10())
        inferred = _infer(proto, propagate=False)
        if _vector_elements(inferred.graph) <= _MOST_ELEMENTS:
            inferred = _infer(proto, propagate=True)
    except Exception:
        return {}
    hints: dict[ir.Value, Hint] = {}
    _collect(model.graph, inferred.graph, hints)
    if keep_names:
        return hints
    names = _declared_names(model.graph)
    return {value: (type_, _known(shape, names)) for value, (type_, shape) in hints.items()}


def _infer(model: onnx.ModelProto, *, propagate: bool) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(
        model, check_type=False, strict_mode=False, data_prop=propagate
    )


def _vector_elements(graph: onnx.GraphProto) -> int:
    """The elements of all vectors together.

    Where onnx propagates the numbers of shapes it makes a dimension of each element of vectors
    that could be shapes: a model of 78 bytes would take all memory.
    """
    infos = (*graph.input, *graph.value_info, *graph.output)
    shapes = [[dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos]
    shapes += [list(tensor.dims) for tensor in graph.initializer]
    inner = (attribute.g for node in graph.node for attribute in node.attribute)
    own = sum(int(shape[0]) for shape in shapes if len(shape) == 1)
    return own + sum(map(_vector_elements, inner))


def apply_shapes(model: ir.Model, hints: Mapping[ir.Value, Hint]) -> None:
    """Sets the shapes of values that have types: what is found, then what is declared."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for value in node.outputs:
                type_, shape = hints.get(value, (value.type, None))
                if type_ is not None and value.type is not None and same_type(type_, value.type):
                    value.shape = _merge(shape, value.shape)


def _light_graph(
    graph: ir.Graph, model: ir.Model, *, declared: bool, guarded: bool
) -> onnx.GraphProto:
    """The graph as a message without the bulk of its constants.

    `declared`: with the shapes that results have of operators that inference does not know;
    `guarded`: without negative sizes.
    """
    proto = onnx.GraphProto(name=graph.name or "graph")
    proto.input.extend(ir.serde.serialize_value(value) for value in graph.inputs)
    if graph is not model.graph:
        # A loop may give them other sizes than are declared.
        for info in proto.input:
            _clear_shape(info)
    for value in graph.initializers.values():
        tensor = value.const_value
        if value.is_graph_input():
            continue  # A feed may replace it.
        if tensor is not None and tensor.nbytes <= _SMALL_BYTES:
            proto.initializer.append(ir.serde.serialize_tensor(tensor))
        else:
            proto.value_info.append(ir.serde.serialize_value(value))
    for node in graph:
        light = _light_node(node, model, declared=declared, guarded=guarded)
        proto.node.append(light)
        if guarded:
            _add_guards(proto)
        if not _is_standard(node, model):
            infos = [ir.serde.serialize_value(v) for v in node.outputs if v.name and v.type]
            for info in () if declared else infos:
                _clear_shape(info)
            proto.value_info.extend(infos)
    proto.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.outputs)
    return proto


def _add_guards(graph: onnx.GraphProto) -> None:
    """Keeps negative sizes of the last node's outputs from what comes after it.

    A Pad with negative pads may have them; inference of a Slice of one ends the process. Operators
    that pass on the numbers of shapes make none, and a guard would hide the numbers.
    """
    node = graph.node[-1]
    if node.op_type in _passing_numbers():
        return
    _register_guard()
    for index, name in enumerate(node.output):
        if name:
            node.output[index] = f"{name} as inferred"
            graph.node.add(
                op_type=_GUARD, domain=_MENDED, input=[node.output[index]], output=[name]
            )


@functools.cache
def _passing_numbers() -> frozenset[str]:
    """The operators whose inference computes with the numbers in vectors that could be shapes."""
    schemas = onnx.defs.get_all_schemas()
    numbers = {s.name for s in schemas if s.domain == "" and s.has_data_propagation_function}
    return frozenset(numbers | {"Constant"})


@functools.cache
def _register_guard() -> None:
    schema = onnx.defs.OpSchema
    guard = schema(
        _GUARD, _MENDED, 1,
        inputs=[schema.FormalParameter("input", "T")],
        outputs=[schema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)"], "Any: inference does not check types.")],
    )  # fmt: skip
    guard.set_type_and_shape_inference_function(_infer_guard)
    onnx.defs.register_schema(guard)


def _infer_guard(context: onnx.shape_inference.InferenceContext) -> None:
    type_ = context.get_input_type(0)
    if type_ is None:
        return
    if any(dim.dim_value < 0 for dim in type_.tensor_type.shape.dim):
        type_.tensor_type.ClearField("shape")
    context.set_output_type(0, type_)


def _clear_shape(info: onnx.ValueInfoProto) -> None:
    if info.type.HasField("tensor_type"):
        info.type.tensor_type.ClearField("shape")


def _is_standard(node: ir.Node, model: ir.Model) -> bool:
    """Whether inference would read the node as the version that it has."""
    opset = model.opset_imports.get(node.domain)
    return opset is not None and since_version(node.domain, node.op_type, opset) == node.version


@functools.cache
def _slice_of_opset_10() -> onnx.FunctionProto:
    """A Slice as it is in opset 13: inference of the older one gives parts the whole's name."""
    names = ["data", "starts", "ends", "axes", "steps"]
    node = onnx.helper.make_node("Slice", names, ["output"])
    opsets = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_function(_MENDED, "Slice", names, ["output"], [node], opsets)


def _knows_input(node: ir.Node) -> bool:
    """Inference reads the type of the first input without asking whether it is known."""
    first = node.inputs[0] if node.inputs else None
    return first is not None and (
        first.is_initializer() or (first.is_graph_input() and first.type is not None)
    )


def _has_readable_equation(node: ir.Node) -> bool:
    """Inference looks forever for the end of other terms."""
    return _EQUATION.fullmatch(node.attributes.get_string("equation", "") or "") is not None


def _has_batch_dims(node: ir.Node) -> bool:
    """Inference reads sizes from `batch_dims` on."""
    return 0 <= (node.attributes.get_int("batch_dims", 0) or 0) <= _MOST_DIMS


def _has_axis_of_means(node: ir.Node) -> bool:
    """Inference sets sizes of the mean from `axis` on; behind a negative one may be too few."""
    return len(node.outputs) == 1 or 0 <= (node.attributes.get_int("axis", -1) or 0) <= _MOST_DIMS


def _counts_outputs(node: ir.Node) -> bool:
    """Inference sets sizes of `num_outputs` outputs, there or not."""
    count = node.attributes.get_int("num_outputs", None)
    return count is None or count == len(node.outputs)


def _names_axes(node: ir.Node) -> bool:
    """Inference takes no axes for none, but all of size 1 go."""
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is not None and axes.const_value is not None:
        return bool(axes.const_value.size)
    return node.attributes.get_ints("axes", None) != ()


# Where inference ends the process, does not come back, or is not right, unless the node passes a
# test: found by fuzzing, and by trying every operator.
_TESTS: dict[tuple[str, str], Callable[[ir.Node], bool]] = {
    ("", "Einsum"): _has_readable_equation,
    ("", "EyeLike"): _knows_input,
    ("", "GatherND"): _has_batch_dims,
    ("", "LayerNormalization"): _has_axis_of_means,
    ("", "RegexFullMatch"): _knows_input,
    ("", "Split"): _counts_outputs,
    ("", "Squeeze"): _names_axes,
    ("ai.onnx.ml", "DictVectorizer"): _knows_input,
    ("ai.onnx.ml", "LabelEncoder"): _knows_input,
    ("ai.onnx.ml", "TreeEnsemble"): _knows_input,
}


def _is_safe(node: ir.Node) -> bool:
    """Whether inference of the node is sure to come back, with what is right."""
    test = _TESTS.get((node.domain, node.op_type))
    return test is None or test(node)


def _light_node(node: ir.Node, model: ir.Model, *, declared: bool, guarded: bool) -> onnx.NodeProto:
    mended = (node.domain, node.op_type, node.version) == ("", "Slice", 10)
    is_known = _is_standard(node, model) and _is_safe(node)
    proto = onnx.NodeProto(
        name=node.name,
        op_type=node.op_type if is_known else f"{node.op_type}_{node.version}",
        domain=_MENDED if mended else node.domain,
        input=[value.name or "" if value is not None else "" for value in node.inputs],
        output=[value.name or "" for value in node.outputs],
    )
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            item = onnx.AttributeProto(name=attribute.name, type=onnx.AttributeProto.GRAPH)
            body = attribute.as_graph()
            item.g.CopyFrom(_light_graph(body, model, declared=declared, guarded=guarded))
            proto.attribute.append(item)
        elif attribute.type != ir.AttributeType.GRAPHS:
            proto.attribute.append(ir.serde.serialize_attribute(attribute))
    return proto


def _collect(graph: ir.Graph, proto: onnx.GraphProto, hints: dict[ir.Value, Hint]) -> None:
    """Reads types and shapes from a message that has the graph's nodes in their order."""
    found = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    protos = [node for node in proto.node if (node.domain, node.op_type) != (_MENDED, _GUARD)]
    for node, node_proto in zip(graph, protos, strict=True):
        for value in node.outputs:
            type_proto = found.get(value.name) if value.name else None
            type_ = None if type_proto is None else _type(type_proto)
            if type_proto is not None and type_ is not None:
                hints[value] = (type_, ir.serde.deserialize_type_proto_for_shape(type_proto))
        bodies = [item.g for item in node_proto.attribute if item.HasField("g")]
        for subgraph, body in zip(subgraphs(node), bodies, strict=False):
            _collect(subgraph, body, hints)


def _type(proto: onnx.TypeProto) -> Type | None:
    try:
        type_ = ir.serde.deserialize_type_proto_for_type(proto)
    except (ir.serde.SerdeError, NotImplementedError, ValueError):
        return None
    if type_ is None or type_.dtype == ir.DataType.UNDEFINED:
        return None
    return type_


def _declared_names(graph: ir.Graph) -> set[str]:
    """The names of sizes that the model itself uses; inference makes up others."""
    names: set[str] = set()
    for part in (graph, *graph.subgraphs()):
        for value in graph_values(part):
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    names.add(dim.value)
    return names


def _known(shape: ir.Shape | None, names: set[str]) -> ir.Shape | None:
    """Replaces the names that inference made up by unknown sizes."""
    if shape is None:
        return None
    return ir.Shape([dim if isinstance(dim, int) or dim.value in names else None for dim in shape])


def _merge(found: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    """What is found wins where it contradicts what is declared; names of sizes are kept."""
    if found is None or declared is None:
        return found if declared is None else declared
    if len(found) != len(declared):
        return found
    return ir.Shape(
        [_merge_size(a, b) for a, b in zip(found, declared, strict=True)],
    )


def _merge_size(
    found: int | ir.SymbolicDim, declared: int | ir.SymbolicDim
) -> int | ir.SymbolicDim:
    if isinstance(found, int):
        return found
    if isinstance(declared, int) or declared.value is not None:
        return declared
    return found


def refine_shapes(model: ir.Model) -> bool:
    """Infers shapes anew, after passes have made more values constant; types stay.

    Also finds the sizes that `known_shape` tells: every size of an input that is not fixed gets
    a name of its own, and what the model declares for other values is not looked at.

    Returns:
        True: shapes may have changed.
    """
    names: dict[str, str | None] = {}
    shapes = {value: value.shape for value in model.graph.inputs}
    try:
        for value in model.graph.inputs:
            value.shape = _with_own_names(value.shape, names)
            value.meta[_KNOWN] = _sizes(value.shape)
        hints = infer_hints(model, keep_names=True)
    finally:
        for value, shape in shapes.items():
            value.shape = shape
    found = {}
    for value, (type_, shape) in hints.items():
        value.meta[_KNOWN] = _sizes(shape)
        found[value] = (type_, _with_old_names(shape, names))
    apply_shapes(model, found)
    return True


def known_shape(value: ir.Value | None) -> Known | None:
    """Returns the sizes of a value that are sure, since `refine_shapes` ran; None without rank."""
    if value is None:
        return None
    if value.is_initializer() and not value.is_graph_input() and value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    found: Known | None = value.meta.get(_KNOWN)
    return found


def set_known_shape(value: ir.Value, shape: Known) -> None:
    """Sets the sure sizes of a value."""
    value.meta[_KNOWN] = shape


def own_size(value: ir.Value, axis: int) -> str:
    """A name for a size that only this value has; a star would make it a product."""
    name = (value.name or "").replace("\\", "\\\\").replace("*", "\\.")
    return f"{name}[{axis}]"


def copy_shape(source: ir.Value, target: ir.Value) -> None:
    """Gives a value what is known of the shape of another, which is equal to it.

    A size that only has the target's own name, such as "y[0]", is not known better there.
    """
    if target.shape is None or not target.shape.is_static():
        target.shape = source.shape or target.shape
    known: Known | None = source.meta.get(_KNOWN)
    better: Known | None = target.meta.get(_KNOWN)
    if known is not None and better is not None and len(known) == len(better):
        own = {own_size(target, axis) for axis in range(len(better))}
        target.meta[_KNOWN] = tuple(
            k if isinstance(k, int) or b is None or b in own else b
            for k, b in zip(known, better, strict=True)
        )
    elif known is not None:
        target.meta[_KNOWN] = known


def _with_own_names(shape: ir.Shape | None, names: dict[str, str | None]) -> ir.Shape | None:
    """Gives each size that is not fixed a name of its own; collects the old ones by the new."""
    if shape is None:
        return None
    sizes: list[int | str] = []
    for size in shape:
        if isinstance(size, int):
            sizes.append(size)
        else:
            sizes.append(f"#{len(names)}")
            names[f"#{len(names)}"] = size.value
    return ir.Shape(sizes)


def _with_old_names(shape: ir.Shape | None, names: dict[str, str | None]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape([s if isinstance(s, int) else names.get(s.value or "") for s in shape])


def _sizes(shape: ir.Shape | None) -> Known | None:
    return None if shape is None else tuple(s if isinstance(s, int) else s.value for s in shape)
