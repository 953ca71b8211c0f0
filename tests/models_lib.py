"""The real models that every runtime must run: what to feed them and what must come out.

They lie beside the repository, in ../shared/models, with goldens that onnxruntime computed; where
the folder is absent, nothing of this can be done. A check is a sequence of runs in one session.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

import cases_lib as lib
import ortolan

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "models"
NAMES = (
    "mnist-7",
    "cifar-imageclassifier-op10",
    "super-resolution-10",
    "yunet-n-dynamic",
    "silero-vad-v5-op16",
    "scan-lstm",
    "tiny-gpt2-contrib-fp32",
)
MISSING = "" if (FOLDER / "golden").is_dir() else "there is no ../shared/models"
# Errors are relative to the largest magnitude of an output.
LIMIT = 1e-3
SILERO_CHUNKS = 200
_YUNET_SIZES = ((224, 160), (416, 512))  # height and width, besides the golden's


@dataclasses.dataclass(frozen=True)
class Step:
    """One run.

    Attributes:
        feeds: arrays by input.
        carried: outputs of the run before it by the inputs that they are fed to.
        expected: arrays by output.
    """

    feeds: Mapping[str, lib.Array]
    expected: Mapping[str, lib.Array]
    carried: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Check:
    """Runs of one session.

    Attributes:
        scales: by output: the magnitude that its errors are relative to, where the values of a
            single step do not tell it.
    """

    name: str
    model: str
    steps: Sequence[Step]
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return FOLDER / f"{self.model}.onnx"


def check_names() -> list[str]:
    """The checks; several for a model that is used in several ways."""
    return [*NAMES, "yunet-n-dynamic/sizes", "silero-vad-v5-op16/stream", "scan-lstm/lengths"]


@functools.cache
def make_check(name: str) -> Check:
    """The check of that name, with goldens or what onnxruntime computes now."""
    match name:
        case "yunet-n-dynamic/sizes":
            return _yunet_sizes(name)
        case "silero-vad-v5-op16/stream":
            return _silero_stream(name)
        case "scan-lstm/lengths":
            return _scan_lengths(name)
        case _:
            return _golden(name)


def _golden(name: str) -> Check:
    content = np.load(FOLDER / "golden" / f"{name}.npz")
    parts = {key: content[key] for key in content.files}
    feeds = {key[3:]: value for key, value in parts.items() if key.startswith("in/")}
    expected = {key[4:]: value for key, value in parts.items() if key.startswith("out/")}
    if name == "yunet-n-dynamic":
        expected = _yunet_expected(feeds)
        for key, value in expected.items():
            assert np.allclose(value, parts[f"out/{key}"], rtol=0.02, atol=1e-6)
    return Check(name, name, [Step(feeds, expected)])


def onnxruntime_session(model: Path | bytes) -> Any:
    """A session of the oracle, which computes the model as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def run_oracle(session: Any, feeds: Mapping[str, lib.Array]) -> dict[str, lib.Array]:
    """All outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@functools.cache
def _yunet_with_logits() -> tuple[Any, dict[str, str]]:
    """A session that also gives what goes into each Sigmoid, and its name by that of the result."""
    model = onnx.load(FOLDER / "yunet-n-dynamic.onnx")
    logits = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Sigmoid"
    }
    for name in logits.values():
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    return onnxruntime_session(model.SerializeToString()), logits


def _yunet_expected(feeds: Mapping[str, lib.Array]) -> dict[str, lib.Array]:
    """What onnxruntime computes, but sigmoids of its logits in double.

    Many of the logits are below -11. onnxruntime's own sigmoid is wrong by 1e-2 of its value
    there, so that the goldens do not tell right from wrong.
    """
    session, logits = _yunet_with_logits()
    results = run_oracle(session, feeds)
    for name, source in logits.items():
        logit = results.pop(source).astype(np.float64)
        results[name] = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return results


def _yunet_sizes(name: str) -> Check:
    golden = make_check("yunet-n-dynamic").steps[0]
    steps = [golden]
    for seed, (height, width) in enumerate(_YUNET_SIZES):
        random = np.random.default_rng(seed)
        image = random.uniform(0, 255, (1, 3, height, width)).astype(np.float32)
        steps.append(Step({"input": image}, _yunet_expected({"input": image})))
    return Check(name, "yunet-n-dynamic", [*steps, golden])


def silero_chunks() -> list[lib.Array]:
    """Pieces of 20 s of speech as the model wants them: 64 old samples and 512 new ones."""
    sample = np.load(FOLDER / "samples" / "silero_test_first20s.npz")
    sound = np.concatenate([np.zeros(64), sample["pcm16"] / 32768]).astype(np.float32)
    return [sound[None, 512 * k : 512 * k + 576] for k in range(SILERO_CHUNKS)]


def _silero_stream(name: str) -> Check:
    session = onnxruntime_session(FOLDER / "silero-vad-v5-op16.onnx")
    known = np.load(FOLDER / "samples" / "silero_test_first20s.npz")["prob"]
    state = np.zeros((2, 1, 128), np.float32)
    steps = []
    for k, chunk in enumerate(silero_chunks()):
        feeds = {"input": chunk, "state": state, "sr": np.array(16000, np.int64)}
        results = run_oracle(session, feeds)
        assert abs(results["output"][0, 0] - known[k]) < 1e-5
        state = results["stateN"]
        if k > 0:
            del feeds["state"]
        steps.append(Step(feeds, results, {"state": "stateN"} if k > 0 else {}))
    # The output is a probability, often below 1e-3.
    return Check(name, "silero-vad-v5-op16", steps, {"output": 1.0})


def _scan_lengths(name: str) -> Check:
    session = onnxruntime_session(FOLDER / "scan-lstm.onnx")
    steps = []
    for length in (1, 30, 7, 2):
        random = np.random.default_rng(length)
        feeds = {"Input13165": random.standard_normal((length, 1, 3)).astype(np.float32)}
        steps.append(Step(feeds, run_oracle(session, feeds)))
    return Check(name, "scan-lstm", steps)


def run_check(check: Check, session: ortolan.InferenceSession) -> dict[str, float]:
    """Runs all steps in a session; returns the largest error of each output.

    Raises:
        AssertionError: an output has another type or shape than it must have.
    """
    errors: dict[str, float] = {}
    before: dict[str, lib.Array] = {}
    for step in check.steps:
        feeds = dict(step.feeds) | {to: before[of] for to, of in step.carried.items()}
        names = list(step.expected)
        before = dict(zip(names, session.run(names, feeds), strict=True))
        for name, error in errors_of(before, step.expected, check.scales).items():
            # Not max(), which loses a NaN.
            errors[name] = float(np.maximum(error, errors.get(name, 0.0)))
    return errors


def errors_of(
    results: Mapping[str, lib.Array],
    expected: Mapping[str, lib.Array],
    scales: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """By output: the largest difference, relative to the output's largest magnitude."""
    errors = {}
    for name, wanted in expected.items():
        got = results[name]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
        scale = (scales or {}).get(name) or lib.scale(wanted.astype(np.float64))
        difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        errors[name] = float(np.max(difference, initial=0)) / scale
    return errors
