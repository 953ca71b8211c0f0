"""Type rules of operators in one form: from the catalog, the standard, or onnxruntime."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ortolan import catalog
from ortolan.catalog import onnxruntime
from ortolan.catalog.operator import Operator
from ortolan.importing.map_types import MapType
from ortolan.importing.versions import Schema, schema_of

__all__ = ["ANY", "Parameter", "Signature", "Type", "parse_type", "same_type", "signature_of"]

Type = ir.TypeProtocol

ANY = "Any"
"""The variable of a parameter that takes any type, independent of the others."""


@dataclass(frozen=True)
class Parameter:
    """One formal input or output; `variable` is a type variable, or names the parameter itself."""

    name: str
    variable: str
    required: bool
    variadic: bool
    is_sequence: bool = False


@dataclass(frozen=True)
class Signature:
    """The type rule of an operator.

    Attributes:
        inputs: the formal inputs.
        outputs: the formal outputs.
        single: variables that can stand for one type only.
        attribute: the attribute that gives types which no input binds, "" if there is none.
        fallback: what gives them without it: a variable or a type, "" if nothing does.
        in_catalog: Ortolan has the operator.
    """

    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    single: dict[str, Type]
    attribute: str
    fallback: str
    in_catalog: bool

    def input(self, index: int) -> Parameter | None:
        """Returns the formal input that a node's input belongs to, None if there is none."""
        return _at(self.inputs, index)

    def output(self, index: int) -> Parameter | None:
        """Returns the formal output that a node's output belongs to, None if there is none."""
        return _at(self.outputs, index)


def _at(parameters: tuple[Parameter, ...], index: int) -> Parameter | None:
    if index < len(parameters):
        return parameters[index]
    return parameters[-1] if parameters and parameters[-1].variadic else None


@functools.lru_cache(maxsize=4096)
def signature_of(domain: str, name: str, version: int) -> Signature | None:
    """Returns an operator's type rule; None where nobody declares it.

    Args:
        domain: "" is ai.onnx.
        name: the operator.
        version: its since_version.
    """
    operator = catalog.find(domain, name, version)
    if operator is not None:
        return _from_catalog(operator)
    schema = schema_of(domain, name, version)
    if schema is not None and schema.since_version == version and not schema.deprecated:
        return _from_schema(schema)
    declaration = onnxruntime.declaration(domain, name, version)
    return None if declaration is None else _from_declaration(declaration)


def _from_catalog(operator: Operator) -> Signature:
    inputs, outputs = (
        tuple(
            Parameter(p.name, p.variable, not (p.optional or p.variadic), p.variadic, p.is_sequence)
            for p in parameters
        )
        for parameters in (operator.inputs, operator.outputs)
    )
    single: dict[str, Type] = {
        variable: ir.TensorType(ir.DataType(int(next(iter(types)))))
        for variable, types in operator.types.items()
        if len(types) == 1
    }
    attribute = "" if operator.type_attribute == "none" else operator.type_attribute
    return Signature(inputs, outputs, single, attribute, operator.type_fallback, in_catalog=True)


def _from_schema(schema: Schema) -> Signature:
    allowed = {c.type_param_str: list(c.allowed_type_strs) for c in schema.type_constraints}
    single: dict[str, Type] = {}
    for variable, texts in allowed.items():
        type_ = parse_type(texts[0]) if len(texts) == 1 else None
        if type_ is not None:
            single[variable] = type_
    inputs, outputs = (
        tuple(_formal(parameter, allowed, single) for parameter in parameters)
        for parameters in (schema.inputs, schema.outputs)
    )
    attribute = next((name for name in ("to", "dtype") if name in schema.attributes), "")
    return Signature(inputs, outputs, single, attribute, "", in_catalog=False)


def _from_declaration(declaration: onnxruntime.Declaration) -> Signature:
    single: dict[str, Type] = {}
    for variable, texts in declaration.types.items():
        type_ = parse_type(texts[0]) if len(texts) == 1 else None
        if type_ is not None:
            single[variable] = type_
    inputs, outputs = (
        tuple(_declared(formal, declaration, single) for formal in formals)
        for formals in (declaration.inputs, declaration.outputs)
    )
    return Signature(inputs, outputs, single, declaration.type_attribute, "", in_catalog=False)


def _declared(
    formal: onnxruntime.Formal, declaration: onnxruntime.Declaration, single: dict[str, Type]
) -> Parameter:
    variable = formal.type if formal.homogeneous else ANY
    type_ = None if variable in declaration.types else parse_type(variable)
    if type_ is not None:
        single[variable] = type_
    required = not (formal.optional or formal.variadic)
    return Parameter(formal.name, variable, required, formal.variadic)


def _formal(
    parameter: onnx.defs.OpSchema.FormalParameter,
    allowed: dict[str, list[str]],
    single: dict[str, Type],
) -> Parameter:
    options = onnx.defs.OpSchema.FormalParameterOption
    variadic = parameter.option == options.Variadic
    variable = parameter.type_str
    if variadic and not parameter.is_homogeneous:
        variable = ANY
    elif variable not in allowed:
        # A type instead of a variable: the type string itself is its name.
        type_ = parse_type(variable)
        if type_ is not None:
            single[variable] = type_
    required = parameter.option == options.Single
    return Parameter(parameter.name, variable, required, variadic)


def parse_type(text: str) -> Type | None:
    """Returns the type that ONNX spells so, such as "seq(tensor(float))"; None for a map."""
    kind, _, inner = text.rstrip(")").partition("(")
    if kind == "tensor" and inner.upper() in ir.DataType.__members__:
        return ir.TensorType(ir.DataType[inner.upper()])
    if kind in ("seq", "optional"):
        element = parse_type(text[len(kind) + 1 : -1])
        if element is not None:
            return ir.SequenceType(element) if kind == "seq" else ir.OptionalType(element)
    return None


def same_type(a: Type, b: Type) -> bool:
    """Whether two types are equal, apart from what their denotations say."""
    if type(a) is not type(b):
        return False
    if isinstance(a, MapType) and isinstance(b, MapType) and a.key != b.key:
        return False
    if isinstance(a, ir.SequenceType | ir.OptionalType | MapType):
        return same_type(a.elem_type, b.elem_type)  # type: ignore[arg-type]
    return a.dtype == b.dtype
