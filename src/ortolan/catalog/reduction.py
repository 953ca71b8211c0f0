"""Reductions over axes, Softmax and its kin."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import FLOATS, INDEX, INT64, NUMBERS, TypeSet

_REDUCIBLE = FLOATS | INDEX


def _reduce(name: str, axes_input_since: int, types: TypeSet = _REDUCIBLE) -> tuple[Operator, ...]:
    return (
        op(
            name, f"1-{axes_input_since - 1}", "data:T", "reduced:T", "axes:ints keepdims:int=1",
            types={"T": types}, prepare="plain", infer="Reduce::infer",
        ),
        op(
            name, f"{axes_input_since}-", "data:T axes?:I", "reduced:T",
            "keepdims:int=1 noop_with_empty_axes:int=0", types={"T": types, "I": INT64},
            prepare="plain", infer="Reduce::infer", value_inputs=(1,),
        ),
    )  # fmt: skip


def _arg(name: str) -> tuple[Operator, ...]:
    return (
        op(
            name, "1-11", "data:T", "reduced:I", "axis:int=0 keepdims:int=1",
            types={"T": NUMBERS, "I": INT64}, prepare="plain", infer="ArgReduce::infer",
        ),
        op(
            name, "12-", "data:T", "reduced:I", "axis:int=0 keepdims:int=1 select_last_index:int=0",
            types={"T": NUMBERS, "I": INT64}, prepare="plain", infer="ArgReduce::infer",
        ),
    )  # fmt: skip


def _softmax(name: str) -> tuple[Operator, ...]:
    return (
        op(
            name, "1-11", "input:T", "output:T", "axis:int=1", types={"T": FLOATS},
            prepare="plain", infer="infer_same",
        ),
        op(
            name, "13-", "input:T", "output:T", "axis:int=-1", types={"T": FLOATS},
            prepare="plain", infer="infer_same",
        ),
    )  # fmt: skip


FAMILY = Family(
    "reduction",
    simd=True,
    operators=(
        *_reduce("ReduceMean", 18),
        *_reduce("ReduceSum", 13),
        *_reduce("ReduceMax", 18),
        *_reduce("ReduceMin", 18),
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
