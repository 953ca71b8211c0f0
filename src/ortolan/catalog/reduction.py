"""Reductions over axes, Softmax and its kin."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import (
    BOOL,
    FLOATS,
    INDEX,
    INT64,
    NUMBERS,
    TypeSet,
    type_set,
)

# Layout "transpose": kernels read any layout and write any other, since the rank may change.
_REDUCIBLE = FLOATS | INDEX
_BYTES = type_set("int8", "uint8")


def _by_attribute(name: str, versions: str, types: TypeSet) -> Operator:
    return op(
        name, versions, "data:T", "reduced:T", "axes:ints keepdims:int=1", types={"T": types},
        prepare="plain", infer="Reduce::infer", layout="transpose",
    )  # fmt: skip


def _by_input(name: str, versions: str, types: TypeSet) -> Operator:
    return op(
        name, versions, "data:T axes?:I", "reduced:T",
        "keepdims:int=1 noop_with_empty_axes:int=0", types={"T": types, "I": INT64},
        prepare="plain", infer="Reduce::infer", layout="transpose", value_inputs=(1,),
    )  # fmt: skip


def _reduce(name: str, axes_input_since: int, types: TypeSet = _REDUCIBLE) -> tuple[Operator, ...]:
    return (
        _by_attribute(name, f"1-{axes_input_since - 1}", types),
        _by_input(name, f"{axes_input_since}-", types),
    )


def _reduce_extreme(name: str) -> tuple[Operator, ...]:
    return (
        _by_attribute(name, "1-11", _REDUCIBLE),
        _by_attribute(name, "12-17", _REDUCIBLE | _BYTES),
        _by_input(name, "18-19", _REDUCIBLE | _BYTES),
        _by_input(name, "20-", _REDUCIBLE | _BYTES | BOOL),
    )


def _arg(name: str) -> tuple[Operator, ...]:
    return (
        op(
            name, "1-11", "data:T", "reduced:I", "axis:int=0 keepdims:int=1",
            types={"T": NUMBERS, "I": INT64}, prepare="plain", infer="ArgReduce::infer",
            layout="transpose",
        ),
        op(
            name, "12-", "data:T", "reduced:I", "axis:int=0 keepdims:int=1 select_last_index:int=0",
            types={"T": NUMBERS, "I": INT64}, prepare="plain", infer="ArgReduce::infer",
            layout="transpose",
        ),
    )  # fmt: skip


def _softmax(name: str) -> tuple[Operator, ...]:
    return (
        op(
            name, "1-11", "input:T", "output:T", "axis:int=1", types={"T": FLOATS},
            prepare="plain", infer="SoftmaxAxis::infer", layout="axis", in_place=(0,),
        ),
        op(
            name, "13-", "input:T", "output:T", "axis:int=-1", types={"T": FLOATS},
            prepare="plain", infer="SoftmaxAxis::infer", layout="axis", in_place=(0,),
        ),
    )  # fmt: skip


FAMILY = Family(
    "reduction",
    simd=True,
    operators=(
        *_reduce("ReduceMean", 18),
        *_reduce("ReduceSum", 13),
        *_reduce_extreme("ReduceMax"),
        *_reduce_extreme("ReduceMin"),
        *_reduce("ReduceProd", 18),
        *_reduce("ReduceSumSquare", 18),
        *_reduce("ReduceL1", 18),
        *_reduce("ReduceL2", 18),
        *_reduce("ReduceLogSum", 18, FLOATS),
        *_reduce("ReduceLogSumExp", 18, FLOATS),
        *_arg("ArgMax"),
        *_arg("ArgMin"),
        *_softmax("Softmax"),
        *_softmax("LogSoftmax"),
    ),
)
