"""Attention over more keys than one block holds, against float64, in each instruction set.

A block may have a greater score than all before it, none that a row sees, or a NaN.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

import ortolan
from ortolan.build.targets import host_target

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
LEVELS = [item.name for item in host_target().instruction_sets]
KEYS = (1, 7, 31, 300, 511, 767, 768, 775, 1030, 1700)
SEED = 20250712


@functools.cache
def model(attributes: tuple[tuple[str, Any], ...]) -> bytes:
    names = ["q", "k", "v", "mask"]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 4) for n in names]
    graph = helper.make_graph(
        [helper.make_node("Attention", names, ["y"], **dict(attributes))],
        "attention",
        values,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    )
    imports = [helper.make_opsetid("", 23)]
    return ortolan.convert(helper.make_model(graph, opset_imports=imports, ir_version=10))


def run(feeds: dict[str, F32], level: int, threads: int = 1, **attributes: Any) -> F32:
    options = ortolan.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("ortolan.instruction_set", str(level))
    session = ortolan.InferenceSession(model(tuple(sorted(attributes.items()))), options)
    result: F32 = session.run(None, feeds)[0]
    return result


def expected(feeds: dict[str, F32], is_causal: int = 0, softcap: float = 0) -> F64:
    q, k, v, mask = (feeds[name].astype(np.float64) for name in ("q", "k", "v", "mask"))
    each = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, each, axis=1), np.repeat(v, each, axis=1)
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3])
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = scores + mask
    if is_causal:
        rows, keys = scores.shape[2:]
        scores = np.where(np.arange(keys) > np.arange(rows)[:, None], -np.inf, scores)
    most = scores.max(axis=3, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.exp(scores - np.where(most == -np.inf, 0, most))
        total = e.sum(axis=3, keepdims=True)
        result: F64 = np.where(total == 0, 0, e / total) @ v
    return result


def random_feeds(rng: np.random.Generator) -> dict[str, F32]:
    batches, kv_heads, rows = rng.integers(1, 3), rng.integers(1, 3), int(rng.integers(1, 150))
    heads, keys = kv_heads * rng.integers(1, 3), int(rng.choice(KEYS))
    width, value_width = (int(n) for n in rng.choice([1, 8, 33, 64], 2))
    q = rng.standard_normal((batches, heads, rows, width)) * rng.choice([0.3, 3])
    k = rng.standard_normal((batches, kv_heads, keys, width))
    first_scale, last_scale = (float(n) for n in rng.choice([0.1, 1, 4], 2))
    k *= np.linspace(first_scale, last_scale, keys)[:, None]
    v = rng.standard_normal((batches, kv_heads, keys, value_width))
    mask = np.zeros((1, 1, rows, keys))
    if rng.random() < 0.6:  # whole runs of keys are hidden, for some rows all
        first = rng.integers(0, keys, rows)[:, None]
        seen = np.arange(keys) >= first if rng.random() < 0.5 else np.arange(keys) < first
        mask = np.where(seen, rng.standard_normal((rows, keys)), -np.inf)[None, None]
    feeds = {"q": q, "k": k, "v": v, "mask": mask}
    return {name: array.astype(np.float32) for name, array in feeds.items()}


@pytest.mark.parametrize("level", range(len(LEVELS)), ids=LEVELS)
def test_random_shapes(level: int) -> None:
    rng = np.random.default_rng(SEED)
    for index in range(40):
        feeds = random_feeds(rng)
        choices: list[dict[str, Any]] = [{}, {"is_causal": 1}, {"softcap": 2.0}]
        attributes = choices[index % len(choices)]
        got, want = run(feeds, level, **attributes), expected(feeds, **attributes)
        bound = 3e-5 * np.abs(feeds["v"]).max()
        shapes = {name: array.shape for name, array in feeds.items()}
        assert np.abs(got - want).max() <= bound, (index, shapes, attributes)


@pytest.mark.parametrize("level", range(len(LEVELS)), ids=LEVELS)
def test_a_nan_stays_in_its_row(level: int) -> None:
    rng = np.random.default_rng(SEED)
    shape = (1, 1, 1200, 16)
    feeds = {n: rng.standard_normal(shape).astype(np.float32) for n in ("q", "k", "v")}
    feeds["mask"] = np.zeros((1, 1, 1200, 1200), np.float32)
    feeds["mask"][0, 0, 5, 3] = feeds["mask"][0, 0, 700, 1100] = np.nan
    feeds["mask"][0, 0, 9] = -np.inf
    got = run(feeds, level)[0, 0]
    assert np.flatnonzero(np.isnan(got).all(axis=1)).tolist() == [5, 700]
    assert np.isnan(got).sum() == 2 * 16
    assert (got[9] == 0).all()


@pytest.mark.parametrize("level", range(len(LEVELS)), ids=LEVELS)
def test_scores_of_microsoft_are_put_out(level: int) -> None:
    names = ["q", "k", "v"]
    graph = helper.make_graph(
        [
            helper.make_node(
                "MultiHeadAttention", names, ["y", "", "", "s"], domain="com.microsoft", num_heads=2
            )
        ],
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 3) for n in names],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "s")],
    )
    imports = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    options = ortolan.SessionOptions()
    options.add_session_config_entry("ortolan.instruction_set", str(level))
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    session = ortolan.InferenceSession(made.SerializeToString(), options)
    rng = np.random.default_rng(SEED)
    feeds = {n: rng.standard_normal((1, 40 if n == "q" else 1700, 16)) for n in names}
    y, scores = session.run(None, {n: x.astype(np.float32) for n, x in feeds.items()})
    q, k, v = (feeds[n].reshape(1, -1, 2, 8).swapaxes(1, 2) for n in names)
    want = q @ k.swapaxes(2, 3) / math.sqrt(8)
    assert np.abs(scores - want).max() < 1e-5
    e = np.exp(want)
    result = (e / e.sum(axis=3, keepdims=True) @ v).swapaxes(1, 2).reshape(1, 40, 16)
    assert np.abs(y - result).max() < 1e-5


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    rng = np.random.default_rng(SEED)
    for keys, rows in ((1100, 130), (200, 197)):
        sizes = {"q": (1, 3, rows, 64), "k": (1, 3, keys, 64), "v": (1, 3, keys, 64)}
        feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in sizes.items()}
        feeds["mask"] = np.zeros((1, 1, 1, keys), np.float32)
        top = len(LEVELS) - 1
        assert run(feeds, top, threads).tobytes() == run(feeds, top).tobytes()
