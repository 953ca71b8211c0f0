"""Attention without queries still has what is present as a result: found by fuzzing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

import ortolan

Array = npt.NDArray[np.float32]
OUTPUTS = ("y", "keys", "values")


def _random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _run(
    operator: str, domain: str, feeds: dict[str, Array], outputs: Sequence[str] = OUTPUTS,
    **attributes: Any,
) -> list[Array]:  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, [*feeds], [*outputs], domain=domain, **attributes)], "g",
        [info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items() if name],
        [info(name, TensorProto.FLOAT, None) for name in outputs],
    )  # fmt: skip
    versions = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    found: list[Array] = ortolan.InferenceSession(model.SerializeToString()).run(
        None, {name: x for name, x in feeds.items() if name}
    )
    return found


def test_keys_and_values_with_a_past() -> None:
    feeds = {
        "q": _random(2, 1, 0, 4), "k": _random(2, 1, 3, 4), "v": _random(2, 1, 3, 5),
        "mask": _random(0, 5), "past_k": _random(2, 1, 2, 4), "past_v": _random(2, 1, 2, 5),
    }  # fmt: skip
    y, keys, values = _run("Attention", "", feeds)
    assert y.size == 0
    assert np.array_equal(keys, np.concatenate([feeds["past_k"], feeds["k"]], 2))
    assert np.array_equal(values, np.concatenate([feeds["past_v"], feeds["v"]], 2))


def test_several_heads() -> None:
    feeds = {"q": _random(2, 0, 4), "k": _random(2, 3, 4), "v": _random(2, 3, 6)}
    y, keys, values = _run("MultiHeadAttention", "com.microsoft", feeds, num_heads=2)
    assert y.size == 0
    assert np.array_equal(keys, feeds["k"].reshape(2, 3, 2, 2).transpose(0, 2, 1, 3))
    assert np.array_equal(values, feeds["v"].reshape(2, 3, 2, 3).transpose(0, 2, 1, 3))


def test_what_is_past_is_present() -> None:
    feeds = {"x": _random(2, 0, 6), "w": _random(6, 12), "b": _random(12), "": _random(0)}
    feeds["past"] = _random(2, 2, 2, 3, 2)
    y, present = _run("Attention", "com.microsoft", feeds, ("y", "present"), num_heads=2)
    assert y.size == 0
    assert np.array_equal(present, feeds["past"])
