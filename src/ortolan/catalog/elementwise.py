"""Elementwise operators: one functor each over a shared driver that broadcasts."""

from __future__ import annotations

from collections.abc import Mapping

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import (
    BOOL,
    CRUMBS,
    FLOAT4,
    FLOAT8S,
    FLOATS,
    HALVES,
    INDEX,
    INTS,
    NIBBLES,
    NUMBERS,
    POWERS,
    SIGNED,
    STRING,
    UNSIGNED,
    TypeSet,
)

_SIGNED_NUMBERS = SIGNED | FLOATS


def _unary(
    name: str,
    versions: str,
    types: TypeSet,
    attributes: str = "",
    prepare: str = "none",
    names: tuple[str, str] = ("X", "Y"),
) -> Operator:
    return op(
        name, versions, f"{names[0]}:T", f"{names[1]}:T", attributes, types={"T": types},
        infer="infer_same", layout="elementwise", in_place=(0,), prepare=prepare,
    )  # fmt: skip


def _function(name: str, versions: str, types: TypeSet = FLOATS) -> Operator:
    """Those whose operands the standard calls input and output."""
    return _unary(name, versions, types, names=("input", "output"))


def _binary(name: str, versions: str, types: TypeSet) -> Operator:
    return op(
        name, versions, "A:T B:T", "C:T", types={"T": types}, infer="infer_broadcast",
        layout="elementwise", in_place=(0, 1),
    )  # fmt: skip


def _compare(name: str, versions: str, types: TypeSet) -> Operator:
    return op(
        name, versions, "A:T B:T", "C:T1", types={"T": types, "T1": BOOL}, infer="infer_broadcast",
        layout="elementwise",
    )  # fmt: skip


def _variadic(name: str, versions: str, types: TypeSet) -> Operator:
    return op(
        name, versions, "data_0*:T", f"{name.lower()}:T", types={"T": types},
        infer="infer_broadcast", layout="elementwise", in_place=(0,),
    )  # fmt: skip


def _logic(name: str) -> Operator:
    types: Mapping[str, TypeSet] = {"T": BOOL, "T1": BOOL}
    return op(
        name, "7-", "A:T B:T", "C:T1", types=types, infer="infer_broadcast", layout="elementwise",
        in_place=(0, 1),
    )  # fmt: skip


def _bitwise(name: str) -> Operator:
    return op(
        name, "18-", "A:T B:T", "C:T", types={"T": INTS}, instances="width",
        infer="infer_broadcast", layout="elementwise", in_place=(0, 1),
    )  # fmt: skip


def _shift(versions: str, types: TypeSet) -> Operator:
    return op(
        "BitShift", versions, "X:T Y:T", "Z:T", "direction!:string", types={"T": types},
        prepare="plain", infer="infer_broadcast", layout="elementwise", in_place=(0, 1),
    )  # fmt: skip


def _cast(versions: str, attributes: str, more: TypeSet) -> Operator:
    castable = NUMBERS | BOOL | HALVES | STRING | more
    types: Mapping[str, TypeSet] = {"T1": castable, "T2": castable}
    return op(
        "Cast", versions, "input:T1", "output:T2", attributes, types=types, instances="pair",
        keys="T1 T2", layout="elementwise", type_attribute="to",
    )  # fmt: skip


FAMILY = Family(
    "elementwise",
    simd=True,
    operators=(
        _unary("Abs", "6-", NUMBERS),
        _unary("Neg", "6-", _SIGNED_NUMBERS),
        _function("Sign", "9-", NUMBERS),
        _unary("Floor", "6-", FLOATS),
        _unary("Ceil", "6-", FLOATS),
        _unary("Round", "11-", FLOATS),
        _unary("Reciprocal", "6-", FLOATS),
        _unary("Sqrt", "6-", FLOATS),
        _function("Exp", "6-"),
        _function("Log", "6-"),
        _function("Erf", "9-"),
        _function("Sin", "7-"),
        _function("Cos", "7-"),
        _function("Tan", "7-"),
        _function("Asin", "7-"),
        _function("Acos", "7-"),
        _function("Atan", "7-"),
        _function("Sinh", "9-"),
        _function("Cosh", "9-"),
        _function("Asinh", "9-"),
        _function("Acosh", "9-"),
        _function("Atanh", "9-"),
        _unary("Relu", "6-", _SIGNED_NUMBERS),
        _unary("Sigmoid", "6-", FLOATS),
        _function("Tanh", "6-"),
        _unary("Softplus", "1-", FLOATS),
        _function("Softsign", "1-"),
        _unary("HardSwish", "14-", FLOATS),
        _unary("Mish", "18-", FLOATS),
        _unary("LeakyRelu", "6-", FLOATS, "alpha:float=0.01", prepare="plain"),
        _unary("Elu", "6-", FLOATS, "alpha:float=1.0", prepare="plain"),
        _unary("Celu", "12-", FLOATS, "alpha:float=1.0", prepare="plain"),
        _unary("ThresholdedRelu", "10-", FLOATS, "alpha:float=1.0", prepare="plain"),
        _unary(
            "Selu", "6-", FLOATS, "alpha:float=1.6732632 gamma:float=1.0507010", prepare="plain"
        ),
        _unary("HardSigmoid", "6-", FLOATS, "alpha:float=0.2 beta:float=0.5", prepare="plain"),
        op(
            "Shrink", "9-", "input:T", "output:T", "bias:float=0.0 lambd:float=0.5",
            types={"T": NUMBERS}, prepare="plain", infer="infer_same", layout="elementwise",
            in_place=(0,),
        ),
        _unary("Gelu", "20-", FLOATS, "approximate:string=none", prepare="plain"),
        _unary("Not", "1-", BOOL),
        _binary("Add", "7-", NUMBERS),
        _binary("Sub", "7-", NUMBERS),
        _binary("Mul", "7-", NUMBERS),
        _binary("Div", "7-", NUMBERS),
        op(
            "Pow", "7-11", "X:T Y:T", "Z:T", types={"T": FLOATS}, instances="pair",
            keys="T T", infer="infer_broadcast", layout="elementwise", in_place=(0,),
        ),
        op(
            "Pow", "12-", "X:T Y:T1", "Z:T", types={"T": FLOATS | INDEX, "T1": FLOATS | INDEX},
            instances="pair", keys="T T1", infer="infer_broadcast", layout="elementwise",
            in_place=(0,),
        ),
        op(
            "Mod", "10-", "A:T B:T", "C:T", "fmod:int=0", types={"T": NUMBERS}, prepare="plain",
            infer="infer_broadcast", layout="elementwise", in_place=(0, 1),
        ),
        op(
            "PRelu", "7-", "X:T slope:T", "Y:T", types={"T": FLOATS}, layout="elementwise",
            in_place=(0,),
        ),
        _variadic("Max", "8-", NUMBERS),
        _variadic("Min", "8-", NUMBERS),
        _variadic("Sum", "8-", FLOATS),
        _variadic("Mean", "8-", FLOATS),
        _logic("And"),
        _logic("Or"),
        _logic("Xor"),
        _bitwise("BitwiseAnd"),
        _bitwise("BitwiseOr"),
        _bitwise("BitwiseXor"),
        op(
            "BitwiseNot", "18-", "X:T", "Y:T", types={"T": INTS}, instances="width",
            infer="infer_same", layout="elementwise", in_place=(0,),
        ),
        _shift("11-27", UNSIGNED),
        _shift("28-", INTS),
        _compare("Equal", "7-", NUMBERS | BOOL | STRING),
        _compare("Greater", "7-", NUMBERS),
        _compare("Less", "7-", NUMBERS),
        _compare("GreaterOrEqual", "12-", NUMBERS),
        _compare("LessOrEqual", "12-", NUMBERS),
        op(
            "Clip", "6", "input:T", "output:T",
            "min:float=-3.4028234663852886e+38 max:float=3.4028234663852886e+38",
            types={"T": FLOATS}, prepare="plain", infer="infer_same", layout="elementwise",
            in_place=(0,),
        ),
        op(
            "Clip", "11-", "input:T min?:T max?:T", "output:T", types={"T": NUMBERS},
            prepare="plain", infer="infer_same", layout="elementwise", in_place=(0,),
        ),
        op(
            "Where", "9-", "condition:B X:T Y:T", "output:T",
            types={"B": BOOL, "T": NUMBERS | BOOL | STRING}, instances="width", keys="T",
            infer="infer_broadcast", layout="elementwise", in_place=(1, 2),
        ),
        _cast("6-18", "to!:int", frozenset()),
        _cast("19-23", "saturate:int=1 to!:int", FLOAT8S | NIBBLES | FLOAT4),
        _cast(
            "24-", "round_mode:string=up saturate:int=1 to!:int",
            FLOAT8S | NIBBLES | FLOAT4 | POWERS | CRUMBS,
        ),
        op(
            "IsNaN", "9-", "X:T1", "Y:T2", types={"T1": FLOATS, "T2": BOOL}, keys="T1",
            infer="infer_same", layout="elementwise",
        ),
        op(
            "IsInf", "10-", "X:T1", "Y:T2", "detect_negative:int=1 detect_positive:int=1",
            types={"T1": FLOATS, "T2": BOOL}, keys="T1", prepare="plain", infer="infer_same",
            layout="elementwise",
        ),
    ),
)  # fmt: skip
