"""Answers of real models that are known from outside: labels of files, faces, objects, speech.

In: ../shared/models/samples and its known_answers.json. An answer decodes what a model says as its
makers do (thresholds, suppression of overlapping boxes), and tells whether that is what is known.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import cases_lib as lib
import models_lib
import ortolan

SAMPLES = models_lib.FOLDER / "samples"
# Entries that cannot be shown, and why.
NOT_HERE = {
    "qtdnn-int8/tract io.npz": "the sample has 10 rows of output, the model gives 8 for its input",
    "sr sizes": "it says sizes only",
    "super-resolution-10/sr.png": "the image is not among the samples",
    "candy/rgb": "neither the photograph nor the painting is among the samples",
    "candy/bgr": "neither the photograph nor the painting is among the samples",
}
_COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant "
    "stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite "
    "baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup "
    "fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut "
    "cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard "
    "cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear "
    "hair_drier toothbrush"
).split()
_FACE, _FACE_OVERLAP = 0.7, 0.5
_OBJECT, _OBJECT_OVERLAP = 0.4, 0.45
_YOLOX_SIZE, _YOLOX_STRIDES = 416, (8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said of a sample: in words, what it must say, and whether that is the same."""

    said: str
    known: str
    is_right: bool


@functools.cache
def known() -> dict[str, Any]:
    """The file of answers."""
    content: dict[str, Any] = json.loads((SAMPLES / "known_answers.json").read_text("utf-8"))
    return content


def names() -> list[str]:
    """The entries that can be shown."""
    return [name for name in known() if name not in NOT_HERE] if SAMPLES.is_dir() else []


def sample(name: str) -> dict[str, lib.Array]:
    """The arrays of a sample."""
    with np.load(SAMPLES / f"{name}.npz") as content:
        return dict(content)


@functools.cache
def session(model: str) -> ortolan.InferenceSession:
    """A session of a real model."""
    return ortolan.InferenceSession(ortolan.convert(models_lib.FOLDER / f"{model}.onnx"))


def run(model: str, *feeds: lib.Array) -> list[lib.Array]:
    """All outputs for inputs in the model's order."""
    inputs = session(model).get_inputs()
    names = [value.name for value in inputs]
    return session(model).run(None, dict(zip(names, feeds, strict=True)))


def planes(image: lib.Array) -> lib.Array:
    """An image of (H, W, 3) as (1, 3, H, W) in float32."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def keep_best(boxes: lib.Array, scores: lib.Array, overlap: float) -> list[int]:
    """Boxes (x1, y1, x2, y2) by falling score, but none that overlaps a better one by more."""
    kept: list[int] = []
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.size:
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        order = rest[common <= overlap * (areas[best] + areas[rest] - common)]
    return kept


def faces(rgb: lib.Array, model: str = "ultraface-rfb-320") -> int:
    """How many faces a detector finds."""
    scores, boxes = run(model, planes((rgb.astype(np.float32) - 127) / 128))
    is_face = scores[0, :, 1] > _FACE
    return len(keep_best(boxes[0][is_face], scores[0, is_face, 1], _FACE_OVERLAP))


def objects(bgr: lib.Array) -> list[tuple[str, float]]:
    """The best object of each class that YOLOX finds, and how sure it is."""
    (output,) = run("yolox-nano", planes(bgr))
    rows = output[0].astype(np.float64)
    steps = [(_YOLOX_SIZE // s, s) for s in _YOLOX_STRIDES]
    grid = np.concatenate([np.stack(np.divmod(np.arange(n * n), n)[::-1], 1) for n, _ in steps])
    stride = np.concatenate([np.full((n * n, 1), s) for n, s in steps])
    centre, size = (rows[:, :2] + grid) * stride, np.exp(rows[:, 2:4]) * stride
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
    scores = rows[:, 4:5] * rows[:, 5:]
    found: dict[str, float] = {}
    for kind in range(scores.shape[1]):
        is_sure = scores[:, kind] > _OBJECT
        kept = keep_best(boxes[is_sure], scores[is_sure, kind], _OBJECT_OVERLAP)
        if kept:
            found[_COCO[kind]] = float(scores[is_sure, kind][kept[0]])
    return sorted(found.items(), key=lambda item: -item[1])


def _list(pairs: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{name} {score:.3g}" for name, score in pairs)


def _compare_lists(said: Sequence[Any], wanted: Sequence[Any], tolerance: float) -> Answer:
    same_names = [name for name, _ in said] == [name for name, _ in wanted]
    is_right = same_names and all(
        abs(a - b) <= tolerance for (_, a), (_, b) in zip(said, wanted, strict=True)
    )
    return Answer(_list(said), _list(wanted), is_right)


def _mnist(entry: dict[str, Any], name: str) -> Answer:
    digit = sample("mnist")
    (output,) = run("mnist-7", digit["input"])
    error = float(np.abs(output - digit["expected"]).max() / np.abs(digit["expected"]).max())
    is_right = int(output.argmax()) == entry["argmax"] and error <= 1e-5
    return Answer(f"{output.argmax()}, off by {error:.1e}", f"{entry['argmax']}", is_right)


def _kitten(entry: dict[str, Any], name: str) -> Answer:
    rgb = sample("imagenet_kitten")["rgb"]
    image = rgb[..., ::-1] if name.endswith("bgr") else rgb
    (output,) = run("squeezenet-fp16", planes(image).astype(np.float16))
    scores = output.ravel().astype(np.float64)
    best = [(int(k), float(scores[k])) for k in np.argsort(-scores)[:3]]
    return _compare_lists(best, entry["top3"], 0.005)


def _objects(entry: dict[str, Any], name: str) -> Answer:
    image = sample(name.replace("-nano/", "_").removesuffix(".jpg"))["bgr_letterboxed"]
    return _compare_lists(objects(image), entry["classes"], 0.006)


def _faces(entry: dict[str, Any], name: str) -> Answer:
    image = sample(name.replace("-rfb-320/", "_").removesuffix(".jpg"))["rgb"]
    count = faces(image)
    return Answer(f"{count} faces", f"{entry['faces']} faces", count == entry["faces"])


def _segmentation(entry: dict[str, Any], name: str) -> Answer:
    image = sample("seg_selfie")["rgb"].astype(np.float32)[None] / 255
    part = float(np.mean(run("selfie-segmentation-op9", image)[0] > 0.5))
    wanted = entry["selfie_person_frac"]
    return Answer(f"{part:.4f} person", f"{wanted} person", abs(part - wanted) < 0.0006)


def _text(entry: dict[str, Any], name: str) -> Answer:
    image = sample("ppocr_ocr")["rgb"] / 255
    image = (image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    part = float(np.mean(run("ppocr-det-v1.1-ch", planes(image))[0] > 0.3))
    wanted = entry["text_frac_v1"]
    return Answer(f"{part:.4f} text", f"{wanted} text", abs(part - wanted) < 0.0006)


def speech() -> tuple[lib.Array, lib.Array]:
    """Probabilities of speech in the 625 chunks of 20 s, and those that are known."""
    chunks = models_lib.silero_chunks(625)
    state, said = np.zeros((2, 1, 128), np.float32), []
    for chunk in chunks:
        output, state = run("silero-vad-v5-op16", chunk, state, np.array(16000, np.int64))
        said.append(output[0, 0])
    return np.array(said), sample("silero_test_first20s")["prob"]


def _speech(entry: dict[str, Any], name: str) -> Answer:
    said, wanted = speech()
    error = float(np.abs(said - wanted).max())
    return Answer(
        f"{said.size} chunks, off by {error:.1e} at most, mean {said.mean():.3f}",
        f"{wanted.size} chunks of {entry['chunks']} are here, mean {wanted.mean():.3f}",
        said.shape == wanted.shape and error < 1e-5,
    )


def _magika(entry: dict[str, Any], name: str) -> Answer:
    files = sample("magika_v3_3_basic")
    labels = json.loads((SAMPLES / "magika_v3_3_labels.json").read_text("utf-8"))
    (output,) = run("magika-v3.3", files["bytes"])
    right = sum(labels[k] == x for k, x in zip(output.argmax(1), files["label"], strict=True))
    total = len(files["label"])
    is_right = right == entry["correct"] and total == entry["total"]
    return Answer(f"{right} of {total}", f"{entry['correct']} of {entry['total']}", is_right)


def _tract(entry: dict[str, Any], name: str) -> Answer:
    model = name.split("/")[0]
    pair = sample(f"{model}.tract_io")
    wanted = pair[entry["keys"][1]]
    said = run(model, pair["input"])[-1].reshape(wanted.shape)
    error = float(np.abs(said - wanted).max() / np.abs(wanted).max())
    return Answer(f"off by {error:.1e} of the largest", "tract's own file", error <= 1e-5)


_WAYS: dict[str, Callable[[dict[str, Any], str], Answer]] = {
    "mnist": _mnist, "squeezenet": _kitten, "yolox": _objects, "ultraface": _faces,
    "segmentation": _segmentation, "ppocr": _text, "silero": _speech, "magika": _magika,
    "byte": _tract, "lgbm": _tract, "xgboost": _tract,
}  # fmt: skip


def answer(name: str) -> Answer:
    """What the model says of an entry's sample."""
    way = next(way for prefix, way in _WAYS.items() if name.startswith(prefix))
    return way(known()[name], name)
