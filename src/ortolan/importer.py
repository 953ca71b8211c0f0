"""ONNX -> IR: reads a model, mends it, checks it, and gives every value a type.

In: an ONNX model as exporters write it. Out: an `onnx_ir.Model` without functions and Constant
nodes, in which every node has its since_version and every value its type; shapes are hints.
"""

from __future__ import annotations

import ortolan.lean  # noqa: F401 # isort: skip - before onnx_ir

import onnx
import onnx_ir as ir

from ortolan import errors
from ortolan.importing.attributes import check_attributes
from ortolan.importing.contradictions import told
from ortolan.importing.element_types import infer_types, label
from ortolan.importing.functions import inline_model_functions, inline_standard_functions
from ortolan.importing.legacy import upgrade
from ortolan.importing.map_types import take_map_types
from ortolan.importing.mending import mend, opset_versions
from ortolan.importing.microsoft import lower_microsoft
from ortolan.importing.naming import make_names_unique
from ortolan.importing.reading import Source, read_model
from ortolan.importing.shapes import apply_shapes, infer_hints
from ortolan.importing.versions import set_versions
from ortolan.importing.widening import widen_types
from ortolan.passes.operators import list_operators, missing_operators
from ortolan.passes.verify import verify

__all__ = ["Source", "load"]

# Bodies of the standard's functions use functions again, but not deeper than this.
_MAX_NESTED_FUNCTIONS = 8


def load(source: Source) -> ir.Model:
    """Imports an ONNX model.

    Args:
        source: path of an ONNX file, its content, or a message, which is left as it is.

    Returns:
        The model. Operators without a catalog entry are kept where the standard has no body
        for them: `ortolan.passes.operators.check_operators` names them.

    Raises:
        NoSuchFile: the file, or one with external data, cannot be read.
        NoModel: the bytes are no ONNX model.
        InvalidGraph: the graph contradicts itself in a way that has no mending.
        NotImplemented: an opset is too new, something has no place in the ORT format, or the
            types of an unknown operator's outputs are not known.
        LimitExceeded: a sparse constant is too large as a dense one, or functions multiply.
    """
    proto = read_model(source)
    with told("importing the model"):
        return _imported(proto)


def _imported(proto: onnx.ModelProto) -> ir.Model:
    imports = opset_versions(proto)
    mend(proto)
    maps = take_map_types(proto)
    model = _deserialize(proto)
    for value in model.graph.inputs:
        value.type = maps.get(value.name or "", value.type)
    model.opset_imports.clear()
    model.opset_imports.update(imports)
    set_versions(model.graph.all_nodes(), imports)
    inline_model_functions(model)
    make_names_unique(model)
    check_attributes(model)
    upgrade(model)
    lower_microsoft(model)
    set_types(model)
    for _ in range(_MAX_NESTED_FUNCTIONS):
        if not (widen_types(model) or inline_standard_functions(model)):
            break
        set_types(model)
    verify(model, "the import")
    return model


def _deserialize(proto: onnx.ModelProto) -> ir.Model:
    try:
        return ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, NotImplementedError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise errors.InvalidGraph(f"the model cannot be read: {cause}") from error


def set_types(model: ir.Model) -> None:
    """Gives all values of a model types and, where they are known, shapes.

    Args:
        model: nodes have versions; changed in place.

    Raises:
        InvalidGraph: types contradict each other.
        NotImplemented: the types of an unknown operator's outputs are not known.
    """
    hints = infer_hints(model)
    untyped = infer_types(model, {value: type_ for value, (type_, _) in hints.items()})
    if untyped:
        raise errors.NotImplemented(
            f"Ortolan has no kernel for {list_operators(missing_operators(model))}. The types "
            f"of what {label(untyped[0])} computes are not known either: declare them in the "
            "model's value_info to write the file anyway"
        )
    apply_shapes(model, hints)
