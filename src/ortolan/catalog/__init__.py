"""The single source of truth: operators, their versions, types and attributes, and error codes."""

from __future__ import annotations

from ortolan.catalog import (
    activation,
    algebra,
    attention,
    categories,
    control,
    convolution,
    einsum,
    elementwise,
    indexing,
    matrix,
    ml,
    movement,
    normalization,
    quantized,
    quantized_microsoft,
    random,
    recurrent,
    reduction,
    resize,
    sequence,
    shape_ops,
    signal,
    text,
    transformer,
    transposed,
    vision,
)
from ortolan.catalog.operator import Family, Operator, covers

FAMILIES: tuple[Family, ...] = (
    elementwise.FAMILY,
    shape_ops.FAMILY,
    movement.FAMILY,
    matrix.FAMILY,
    convolution.FAMILY,
    resize.FAMILY,
    reduction.FAMILY,
    recurrent.FAMILY,
    activation.FAMILY,
    attention.FAMILY,
    transformer.FAMILY,
    normalization.FAMILY,
    quantized.FAMILY,
    quantized_microsoft.FAMILY,
    transposed.FAMILY,
    indexing.FAMILY,
    ml.FAMILY,
    sequence.FAMILY,
    text.FAMILY,
    categories.FAMILY,
    vision.FAMILY,
    signal.FAMILY,
    algebra.FAMILY,
    random.FAMILY,
    einsum.FAMILY,
    control.FAMILY,
)

_BY_NAME: dict[tuple[str, str], list[Operator]] = {}
for _family in FAMILIES:
    for _operator in _family.operators:
        _BY_NAME.setdefault((_operator.domain, _operator.name), []).append(_operator)


def find(domain: str, name: str, version: int) -> Operator | None:
    """The entry for an operator of this since_version; None when there is none."""
    for operator in _BY_NAME.get((domain, name), ()):
        if covers(operator, version):
            return operator
    return None


def knows(domain: str, name: str) -> bool:
    """Whether any version of the operator has an entry."""
    return (domain, name) in _BY_NAME
