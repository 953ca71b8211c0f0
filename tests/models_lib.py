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

import cases_lib as lib
import models_oracle as oracle
import ortolan

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "models"
NAMES = (
    "mnist-7", "mnist-gemm-op12", "cifar-imageclassifier-op10", "squeezenet-fp16",
    "ultraface-rfb-320", "ultraface-slim-320-simplified", "yunet-n-dynamic", "yolox-nano",
    "ppocr-det-v1.1-ch", "vittrack-op14", "selfie-segmentation-op9", "candy-style-op7",
    "super-resolution-10", "silero-vad-v5-op16", "silero-vad-v4-lstm", "silero-micro-op11",
    "dtln-1", "gtcrn-simple", "magika-v1", "magika-v3.3", "byte-bidi-lstm", "bert-toy",
    "tfbert-mrpc-op10", "gpt2-past-op11", "tiny-gpt2-contrib-fp32", "attention-past-u8s8",
    "qtdnn-int8", "scan-lstm", "mlnet-tree-imputer", "lgbm-classifier", "xgboost-regressor",
    "linear-classifier",
)  # fmt: skip
MISSING = "" if (FOLDER / "golden").is_dir() else "there is no ../shared/models"
# Models that cannot run yet, and what they wait for. Tests expect the failure: when one begins to
# run, its line must go.
NOT_YET: Mapping[str, str] = {}
# Most of a minute and more under an emulator.
HEAVY = ("candy-style-op7", "super-resolution-10")
# Errors are relative to the largest magnitude of an output.
LIMIT = 1e-3
FLOAT16_LIMIT = 5e-3
# A quantized model may be off by one quantum in this part of the elements.
QUANTUM_PART = 0.01
SILERO_CHUNKS = 200
_YUNET_SIZES = ((224, 160), (416, 512))  # height and width, besides the golden's
# Goldens that do not tell right from wrong: onnxruntime's sigmoid is wrong by 1e-2 of its value
# below -11 and gives 0 below -18. Here its sigmoids are computed in double.
_EXACT_SIGMOIDS = ("yunet-n-dynamic", "ppocr-det-v1.1-ch")
# The output that decides on a class, and along which axis.
_DECISIONS = {
    "mnist-7": {"Plus214_Output_0": -1},
    "mnist-gemm-op12": {"probability": -1},
    "cifar-imageclassifier-op10": {"modelOutput": -1},
    "squeezenet-fp16": {"softmaxout_1": 1},
    "ultraface-rfb-320": {"scores": -1},
    "ultraface-slim-320-simplified": {"scores": -1},
    "silero-micro-op11": {"output": -1},
    "magika-v1": {"target_label": -1},
    "magika-v3.3": {"target_label": -1},
    "byte-bidi-lstm": {"output": -1},
    "bert-toy": {"prediction_scores": -1, "seq_relationship_score": -1},
    "tfbert-mrpc-op10": {"output_1": -1},
    "tiny-gpt2-contrib-fp32": {"logits": -1},
    "lgbm-classifier": {"probabilities": -1},
    "linear-classifier": {"probabilities": -1},
}


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
        quanta: by output: the step of its quantization; then at most QUANTUM_PART of the elements
            may be off, by one step.
        decisions: by output: the axis whose largest element is an answer, which must be equal.
        proto: the model, if it is no file of the folder.
        not_yet: what is missing for it to run.
    """

    name: str
    model: str
    steps: Sequence[Step]
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    quanta: Mapping[str, float] = dataclasses.field(default_factory=dict)
    decisions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    limit: float = LIMIT
    proto: onnx.ModelProto | None = None
    not_yet: str = ""

    @property
    def source(self) -> Path | onnx.ModelProto:
        """What is to be converted."""
        return self.proto or FOLDER / f"{self.model}.onnx"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check gave: the largest relative error and its output; what is wrong, if anything."""

    error: float = 0.0
    output: str = ""
    problem: str = ""

    def worse(self, other: Verdict) -> Verdict:
        """Both together; NaN is larger than any error."""
        is_first = np.isnan(self.error) or other.error <= self.error
        first = self if is_first else other
        return dataclasses.replace(first, problem=self.problem or other.problem)


def check_names() -> list[str]:
    """The checks; several for a model that is used in several ways."""
    more = ["yunet-n-dynamic/sizes", "silero-vad-v5-op16/stream", "scan-lstm/lengths"]
    return [*NAMES, *more, "ppocr-det-v1.1-ch/page"]


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
        case "ppocr-det-v1.1-ch/page":
            return _ppocr_page(name)
        case _:
            return _golden(name)


def golden(name: str) -> tuple[dict[str, lib.Array], dict[str, lib.Array]]:
    """Inputs and outputs of a golden file, by name."""
    with np.load(FOLDER / "golden" / f"{name}.npz") as content:
        parts = {key: content[key] for key in content.files}
    feeds = {key[3:]: value for key, value in parts.items() if key.startswith("in/")}
    return feeds, {key[4:]: value for key, value in parts.items() if key.startswith("out/")}


def _golden(name: str) -> Check:
    feeds, expected = golden(name)
    decisions = _DECISIONS.get(name, {})
    if name in _EXACT_SIGMOIDS:
        exact = _exact(name, feeds)
        for key, value in expected.items():
            assert np.allclose(exact[key], value, rtol=0.02, atol=1e-6)
        expected = exact
    if name == "squeezenet-fp16":
        session = oracle.session(oracle.in_float32(FOLDER / f"{name}.onnx").SerializeToString())
        wide = oracle.run(session, {key: value.astype(np.float32) for key, value in feeds.items()})
        # In the output's type, so that runtimes can compare bits; that is off by 5e-4 at most.
        expected = {key: value.astype(np.float16) for key, value in wide.items()}
        return Check(name, name, [Step(feeds, expected)], decisions=decisions, limit=FLOAT16_LIMIT)
    quanta = {"output": oracle.output_quantum(FOLDER / f"{name}.onnx")} if "int8" in name else {}
    return Check(
        name, name, [Step(feeds, expected)], quanta=quanta, decisions=decisions,
        not_yet=NOT_YET.get(name, ""),
    )  # fmt: skip


@functools.cache
def _exact_session(name: str) -> Any:
    return oracle.session(oracle.exact_sigmoids(FOLDER / f"{name}.onnx").SerializeToString())


def _exact(name: str, feeds: Mapping[str, lib.Array]) -> dict[str, lib.Array]:
    return oracle.run(_exact_session(name), feeds)


def _ppocr_page(name: str) -> Check:
    with np.load(FOLDER / "samples" / "ppocr_ocr.npz") as sample:
        feeds = {"image": oracle.imagenet_image(sample["rgb"])}
    return Check(name, "ppocr-det-v1.1-ch", [Step(feeds, _exact("ppocr-det-v1.1-ch", feeds))])


def _yunet_sizes(name: str) -> Check:
    golden = make_check("yunet-n-dynamic").steps[0]
    steps = [golden]
    for seed, (height, width) in enumerate(_YUNET_SIZES):
        random = np.random.default_rng(seed)
        image = random.uniform(0, 255, (1, 3, height, width)).astype(np.float32)
        steps.append(Step({"input": image}, _exact("yunet-n-dynamic", {"input": image})))
    return Check(name, "yunet-n-dynamic", [*steps, golden])


def silero_chunks(count: int = SILERO_CHUNKS) -> list[lib.Array]:
    """Pieces of 20 s of speech as the model wants them: 64 old samples and 512 new ones."""
    sample = np.load(FOLDER / "samples" / "silero_test_first20s.npz")
    sound = np.concatenate([np.zeros(64), sample["pcm16"] / 32768]).astype(np.float32)
    return [sound[None, 512 * k : 512 * k + 576] for k in range(count)]


def _silero_stream(name: str) -> Check:
    session = oracle.session(FOLDER / "silero-vad-v5-op16.onnx")
    known = np.load(FOLDER / "samples" / "silero_test_first20s.npz")["prob"]
    state = np.zeros((2, 1, 128), np.float32)
    steps = []
    for k, chunk in enumerate(silero_chunks()):
        feeds = {"input": chunk, "state": state, "sr": np.array(16000, np.int64)}
        results = oracle.run(session, feeds)
        assert abs(results["output"][0, 0] - known[k]) < 1e-5
        state = results["stateN"]
        if k > 0:
            del feeds["state"]
        steps.append(Step(feeds, results, {"state": "stateN"} if k > 0 else {}))
    # The output is a probability, often below 1e-3.
    return Check(name, "silero-vad-v5-op16", steps, {"output": 1.0})


def _scan_lengths(name: str) -> Check:
    session = oracle.session(FOLDER / "scan-lstm.onnx")
    steps = []
    for length in (1, 30, 7, 2):
        random = np.random.default_rng(length)
        feeds = {"Input13165": random.standard_normal((length, 1, 3)).astype(np.float32)}
        steps.append(Step(feeds, oracle.run(session, feeds)))
    return Check(name, "scan-lstm", steps)


def run_check(check: Check, session: ortolan.InferenceSession) -> Verdict:
    """Runs all steps in a session; the largest error of all outputs, and what is wrong."""
    verdict = Verdict()
    before: dict[str, lib.Array] = {}
    for step in check.steps:
        feeds = dict(step.feeds) | {to: before[of] for to, of in step.carried.items()}
        names = list(step.expected)
        before = dict(zip(names, session.run(names, feeds), strict=True))
        verdict = verdict.worse(judge_step(check, step, before))
    return verdict


def judge_step(check: Check, step: Step, results: Mapping[str, Any]) -> Verdict:
    """Compares the outputs of a step with what they must be."""
    verdict = Verdict()
    wanted, got = as_tensors(step.expected), as_tensors(results)
    if missing := [name for name in wanted if name not in got]:
        return Verdict(float("nan"), missing[0], f"{missing[0]}: is not there")
    for name, expected in wanted.items():
        verdict = verdict.worse(judge(check, name, got[name], expected))
    return verdict


def as_tensors(values: Mapping[str, Any]) -> dict[str, lib.Array]:
    """Values by name, with tensors in the place of sequences, maps and empty optionals.

    A sequence `s` gives its length as `s.length`, and its elements as `s[0]`...; a map `m` its keys
    and values, in the order of the keys, as `m.keys` and `m.values`.
    """
    tensors: dict[str, lib.Array] = {}
    for name, value in values.items():
        if value is None:
            tensors[f"{name}.none"] = np.array(True)
        elif isinstance(value, dict):
            keys = sorted(value)
            tensors[f"{name}.keys"] = np.array(keys)
            tensors[f"{name}.values"] = np.array([value[key] for key in keys])
        elif isinstance(value, list):
            tensors[f"{name}.length"] = np.array(len(value))
            parts = {f"{name}[{k}]": element for k, element in enumerate(value)}
            tensors |= as_tensors(parts)
        else:
            tensors[name] = np.asarray(value)
    return tensors


def judge(check: Check, name: str, got: lib.Array, expected: lib.Array) -> Verdict:
    """Compares an output by the rules of the check (tests/web/models.mjs has them as well)."""
    if {got.dtype.kind, expected.dtype.kind} <= {"O", "U"}:  # texts have two types in numpy
        got, expected = got.astype(object), expected.astype(object)
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        text = f"{got.dtype}{list(got.shape)} instead of {expected.dtype}{list(expected.shape)}"
        return Verdict(float("nan"), name, f"{name}: {text}")
    if expected.dtype.kind not in "fV":  # "V": numpy's own name for bfloat16
        differ = int(np.count_nonzero(got != expected))
        problem = f"{name}: {differ} of {got.size} elements differ" if differ else ""
        return Verdict(float("inf") if differ else 0.0, name, problem)
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    scale = check.scales.get(name) or lib.scale(expected.astype(np.float64))
    error = float(np.max(difference, initial=0)) / scale
    problem = "" if error <= check.limit else f"off by {error:.3g} of the largest magnitude"
    if quantum := check.quanta.get(name):
        steps = np.rint(difference / quantum)
        part = float(np.mean(steps > 0))
        problem = "" if steps.max() <= 1 and part <= QUANTUM_PART else "off by more than a quantum"
    if not problem and name in check.decisions:
        axis = check.decisions[name]
        wrong = np.count_nonzero(np.argmax(got, axis) != np.argmax(expected, axis))
        problem = f"{wrong} other decisions" if wrong else ""
    return Verdict(error, name, problem and f"{name}: {problem}")
