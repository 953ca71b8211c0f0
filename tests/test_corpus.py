"""Runs the generated corpus natively at every level; Node and qemu run it with the real models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import corpus
import models_lib as lib
import models_oracle as oracle
import ortolan
import random_graphs
from ortolan.errors import OrtolanError
from ortolan.passes.pipeline import LEVELS

pytest.importorskip("onnxruntime")


def names() -> list[Any]:
    """The entries; those that cannot run yet must fail."""
    found = []
    for name in corpus.names():
        reason = corpus.entry(name).not_yet
        marks = [pytest.mark.xfail(raises=OrtolanError, reason=reason)] if reason else []
        found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", names())
def test_entry(name: str, level: str) -> None:
    check = corpus.make_check(name)
    session = ortolan.InferenceSession(ortolan.convert(check.source, level=level))
    assert not lib.run_check(check, session).problem


def test_answers_are_no_accident() -> None:
    """Zeros everywhere would hide what a runtime leaves out."""
    for name in corpus.names():
        results = [lib.as_tensors(step.expected) for step in corpus.make_check(name).steps]
        assert any(np.any(array != 0) for step in results for array in step.values()), name


def test_sequences_and_maps_are_compared() -> None:
    expected: dict[str, Any] = {"s": [{1: 0.5, 2: 0.25}], "t": np.array(["a", "b"], object)}
    step = lib.Step({}, expected)
    check = lib.Check("", "", [step])
    right = {"s": [{2: 0.25, 1: 0.5}], "t": np.array(["a", "b"])}
    assert not lib.judge_step(check, step, right).problem
    for wrong in (
        {"s": [{1: 0.5, 2: 0.26}], "t": expected["t"]},
        {"s": [{1: 0.5, 3: 0.25}], "t": expected["t"]},
        {"s": [], "t": expected["t"]},
        {"s": expected["s"], "t": np.array(["a", "c"])},
        {"s": expected["s"]},
    ):
        assert lib.judge_step(check, step, wrong).problem


@pytest.mark.parametrize("level", ["disable", "all"])
@pytest.mark.parametrize("seed", range(100, 140))
def test_random_graph(seed: int, level: str) -> None:
    drawn = random_graphs.make(seed)
    wanted = oracle.session(drawn.model.SerializeToString())
    got = ortolan.InferenceSession(ortolan.convert(drawn.model, level=level))
    for feeds in drawn.feeds:
        for a, b in zip(got.run(None, feeds), wanted.run(None, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
