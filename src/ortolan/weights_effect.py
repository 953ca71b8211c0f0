"""How far a model's answers move when its weights are stored in fewer bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ortolan.feeds import make_feeds
from ortolan.session import InferenceSession

__all__ = ["Change", "weights_effect"]

_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Change:
    """What happened to an output.

    Attributes:
        name: of the output.
        difference: the largest, of all elements and calls.
        largest: the largest absolute value before.
        same_top: share of rows whose largest element is the same, 0 to 1.
    """

    name: str
    difference: float
    largest: float
    same_top: float


def weights_effect(
    before: Any, after: Any, sizes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Change]:
    """Compares two files of one model on random inputs.

    Args:
        before: for a session.
        after: likewise.
        sizes: of symbolic dimensions and inputs; what is not there is 1.

    Raises:
        ortolan.errors.OrtolanError: the model does not run on such inputs.
    """
    sessions = [InferenceSession(model) for model in (before, after)]
    differences: dict[str, list[tuple[float, float, float]]] = {}
    for seed in _SEEDS:
        feeds, _ = make_feeds(sessions[0].get_inputs(), [], sizes or {}, seed)
        results = [session.run(None, feeds) for session in sessions]
        for argument, old, new in zip(sessions[0].get_outputs(), *results, strict=True):
            if isinstance(old, np.ndarray) and old.dtype.kind == "f" and old.size:
                differences.setdefault(argument.name, []).append(_compare(old, new))
    return [
        Change(
            name,
            max(row[0] for row in rows),
            max(row[1] for row in rows),
            sum(row[2] for row in rows) / len(rows),
        )
        for name, rows in differences.items()
    ]


def _compare(old: Any, new: Any) -> tuple[float, float, float]:
    if old.shape != new.shape:
        return float("inf"), float(np.abs(old).max()), 0.0
    rows = old.reshape(-1, old.shape[-1] if old.ndim else 1)
    others = new.reshape(rows.shape)
    same = float((rows.argmax(axis=1) == others.argmax(axis=1)).mean())
    difference = np.abs(rows.astype(np.float64) - others.astype(np.float64))
    return float(difference.max()), float(np.abs(rows).max()), same
