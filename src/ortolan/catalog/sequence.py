"""Sequences and optionals, and the maps that classifiers answer."""

from __future__ import annotations

from ortolan.catalog.operator import Family, Operator, op
from ortolan.catalog.types import BOOL, FIXED, FLOAT, INDEX, INT64

_T = {"T": FIXED}
_INDEXED = {"T": FIXED, "I": INDEX}
_LATE = ("data_dependent",)


def _sequence(
    name: str, versions: str, inputs: str, outputs: str, attributes: str = ""
) -> Operator:
    """An operator whose results are known when it runs."""
    return op(
        name, versions, inputs, outputs, attributes, types=_INDEXED, instances="once", keys="T",
        infer="none", flags=_LATE,
    )  # fmt: skip


def _any(
    name: str, versions: str, rule: str, inputs: str = "input:Any", domain: str = "",
    attributes: str = "",
) -> Operator:  # fmt: skip
    """An operator on values of any kind, with a rule for its result's type."""
    return op(
        name, versions, inputs, "output:Any", attributes, domain=domain, instances="once", keys="",
        infer="none", flags=_LATE, type_attribute=rule,
    )  # fmt: skip


FAMILY = Family(
    "sequence",
    simd=False,
    operators=(
        _any("Share", "1-", "same", domain="ai.ortolan"),
        _sequence("SequenceConstruct", "11-", "inputs*:T", "output_sequence:seq(T)"),
        op(
            "SequenceEmpty", "11-", "", "output:seq(T)", "dtype:int", types=_T, instances="once",
            infer="none", flags=_LATE, type_attribute="dtype=float",
        ),
        op(
            "SequenceLength", "11-", "input_sequence:seq(T)", "length:I",
            types={"T": FIXED, "I": INT64}, instances="once",
        ),
        _sequence("SequenceAt", "11-", "input_sequence:seq(T) position:I", "tensor:T"),
        _sequence(
            "SequenceErase", "11-", "input_sequence:seq(T) position?:I", "output_sequence:seq(T)"
        ),
        _sequence(
            "SequenceInsert", "11-", "input_sequence:seq(T) tensor:T position?:I",
            "output_sequence:seq(T)",
        ),
        _sequence(
            "SplitToSequence", "11-", "input:T split?:I", "output_sequence:seq(T)",
            "axis:int=0 keepdims:int=1",
        ),
        _sequence(
            "ConcatFromSequence", "11-", "input_sequence:seq(T)", "concat_result:T",
            "axis!:int new_axis:int=0",
        ),
        _any("Optional", "15-", "optional", "input?:Any"),
        _any("OptionalGetElement", "15-", "element"),
        op(
            "OptionalHasElement", "15-17", "input:Any", "output:B", types={"B": BOOL},
            instances="once", keys="B",
        ),
        op(
            "OptionalHasElement", "18-", "input?:Any", "output:B", types={"B": BOOL},
            instances="once", keys="B",
        ),
        op(
            "ZipMap", "1-", "X:X", "Z:Any", "classlabels_int64s:ints classlabels_strings:strings",
            domain="ai.onnx.ml", types={"X": FLOAT}, instances="once", keys="X", infer="none",
            flags=_LATE, type_attribute="zip_map",
        ),
    ),
)  # fmt: skip
