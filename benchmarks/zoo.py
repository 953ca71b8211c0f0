"""Where the models of the benchmarks are: the zoo of random weights, the real ones, any file.

The zoo is unpacked by ``../shared/bench/zoo_light.py`` into ``build/zoo`` when it is first needed.
Real models have the feeds and results of ``tests/models_lib.py``; those of other files are random.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from engines import Array, Feeds, Spec

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

import models_lib  # noqa: E402 - the path is set above

SHARED = ROOT.parent / "shared"
PACKED = SHARED / "bench" / "zoo_light.py"
# Models whose arithmetic is not in float32: they are timed only when they are named.
NOT_FLOAT = {
    "minilm_l6_int8_dyn", "mobilenet_v2_int8_qdq", "mobilenet_v2_int8_qop_u8s8",
    "attention-past-u8s8", "qtdnn-int8", "squeezenet-fp16",
}  # fmt: skip


def unpack(folder: Path) -> list[Path]:
    """The zoo's files; unpacks them if they are not there."""
    if not (folder / "zoo.json").is_file() and PACKED.is_file():
        subprocess.run([sys.executable, str(PACKED), "unpack", str(folder)], check=True)
    return sorted(folder.glob("*.onnx"))


def real_models() -> list[Path]:
    """The real models' files."""
    return sorted((SHARED / "models").glob("*.onnx"))


def find(names: Sequence[str], zoo: Path) -> list[Path]:
    """The files of names of models, of the groups `zoo` and `real`, and of paths.

    Raises:
        SystemExit: one is not found.
    """
    every = {path.stem: path for path in [*unpack(zoo), *real_models()]}
    groups = {"zoo": unpack(zoo), "real": real_models()}
    found: list[Path] = []
    for name in names or ["zoo", "real"]:
        if name in groups:
            found += [path for path in groups[name] if path.stem not in NOT_FLOAT]
        elif name in every:
            found.append(every[name])
        elif Path(name).is_file():
            found.append(Path(name))
        else:
            raise SystemExit(f"there is no model {name}; known are: {', '.join(every)}")
    return found


def spec(model: Path, folder: Path) -> Spec:
    """A model with its feeds and results; what is made for it goes into the folder."""
    stored = model.with_suffix(".npz")
    feeds = stored if stored.is_file() else folder / stored.name
    graph = onnx.load(model, load_external_data=False).graph
    outputs = [o.name for o in graph.output]
    if feeds is not stored:
        if model in real_models():
            # Not the goldens as they are: in some of them onnxruntime's sigmoid is wrong.
            step = models_lib.make_check(model.stem).steps[0]
            given, results = step.feeds, step.expected
        else:
            given = random_feeds(graph)
            results = dict(zip(outputs, known_results(model, given), strict=True))
        named = {f"in/{k}": v for k, v in given.items()}
        arrays = {f"out/{k}": v for k, v in results.items()}
        np.savez(feeds, allow_pickle=False, **named, **arrays)
    return Spec(model.stem, str(model), str(feeds), str(folder), outputs)


def known_results(model: Path, feeds: Feeds) -> list[Array]:
    """What onnxruntime gives without optimization."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    return [np.asarray(result) for result in session.run(None, feeds)]


def random_feeds(graph: onnx.GraphProto) -> Feeds:
    """Numbers between 0 and 1; unknown dimensions are 1."""
    random = np.random.default_rng(0)
    constants = {t.name for t in graph.initializer}
    feeds = {}
    for value in graph.input:
        if value.name not in constants:
            tensor = value.type.tensor_type
            shape = [d.dim_value or 1 for d in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            feeds[value.name] = random.random(shape).astype(dtype)
    return feeds
