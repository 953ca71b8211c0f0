"""The engines that benchmarks time: one class each, with the calls that `worker.py` makes of it.

A class is usable when its packages import; nothing here imports them before. What needs a model in
a format of its own has `convert`, which writes it beside the others once, untimed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

CONVERT_SECONDS = 600


@dataclass(frozen=True)
class Spec:
    """A model to time: its ONNX file, the archive of its feeds, and a folder for conversions."""

    name: str
    onnx: str
    feeds: str
    folder: str
    outputs: list[str] = field(default_factory=list)

    def read_feeds(self) -> Feeds:
        """The inputs by name."""
        with np.load(self.feeds) as stored:
            return {k[3:]: stored[k] for k in stored.files if k.startswith("in/")}

    def read_outputs(self) -> Feeds:
        """What the model is known to give, by output."""
        with np.load(self.feeds) as stored:
            return {k[4:]: stored[k] for k in stored.files if k.startswith("out/")}

    def file(self, suffix: str) -> Path:
        """Where a converted form of the model lies."""
        return Path(self.folder) / f"{self.name}.{suffix}"


class Engine:
    """One engine with one model; the arguments are the model, threads, and a set to hold to."""

    label: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    # The environment that holds the engine to AVX2, None where it cannot be held.
    avx2: ClassVar[dict[str, str] | None] = None
    # Whether its own converter carried these weights, so that results can be compared.
    same_weights: ClassVar[bool] = True

    def __init__(self, spec: Spec, threads: int, isa: str | None) -> None:
        self.spec, self.threads, self.isa = spec, threads, isa
        self.feeds = spec.read_feeds()

    @classmethod
    def missing(cls) -> str:
        """The package that is not installed, or nothing."""
        return next((m for m in cls.modules if importlib.util.find_spec(m) is None), "")

    def convert(self) -> None:
        """Writes the engine's form of the model where it has one."""

    def files(self) -> list[Path]:
        """The files that a user of the engine ships."""
        return [Path(self.spec.onnx)]

    def start(self) -> str:
        """Imports the engine; answers its version."""
        raise NotImplementedError

    def load(self) -> None:
        """Makes a session."""
        raise NotImplementedError

    def run(self) -> None:
        """One inference; results stay in the engine."""
        raise NotImplementedError

    def outputs(self) -> list[Array]:
        """The results in the model's order."""
        raise NotImplementedError

    def unload(self) -> None:
        """Frees the session."""
        for name in set(vars(self)) - {"spec", "threads", "isa", "feeds", "module"}:
            delattr(self, name)


class Ortolan(Engine):
    """This project, through its Python API, from a mapped `.ort` file."""

    label = "Ortolan"
    modules = ("ortolan",)
    avx2: ClassVar[dict[str, str] | None] = {}

    def convert(self) -> None:
        import ortolan

        made = self.spec.file("ort.part")
        ortolan.convert(self.spec.onnx, made).rename(self.spec.file("ort"))

    def files(self) -> list[Path]:
        return [self.spec.file("ort")]

    def start(self) -> str:
        import ortolan
        import ortolan.session  # what the package imports when it is first used

        return str(ortolan.__version__)

    def load(self) -> None:
        from ortolan.session import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = self.threads
        if self.isa:
            from ortolan.build.targets import host_target

            names = [item.name for item in host_target().instruction_sets]
            level = str(names.index(self.isa))
            options.add_session_config_entry("ortolan.instruction_set", level)
        self.session = InferenceSession(self.spec.file("ort"), options)

    def run(self) -> None:
        self.results = self.session.run(None, self.feeds)

    def outputs(self) -> list[Array]:
        return list(self.results)


class OnnxRuntime(Engine):
    """onnxruntime's default optimizations."""

    label = "onnxruntime"
    modules = ("onnxruntime",)

    def start(self) -> str:
        import onnxruntime

        self.module = onnxruntime
        return str(onnxruntime.__version__)

    def load(self) -> None:
        options = self.module.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.session = self.module.InferenceSession(
            self.spec.onnx, options, providers=["CPUExecutionProvider"]
        )

    def run(self) -> None:
        self.results = self.session.run(None, self.feeds)

    def outputs(self) -> list[Array]:
        return list(self.results)


class OpenVino(Engine):
    """OpenVINO held to float32 (its default is bfloat16 where the processor has it)."""

    label = "OpenVINO"
    modules = ("openvino",)
    avx2: ClassVar[dict[str, str] | None] = {"ONEDNN_MAX_CPU_ISA": "AVX2"}

    def start(self) -> str:
        import openvino

        self.module = openvino
        return str(openvino.__version__).split("-")[0]

    def load(self) -> None:
        config = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        core = self.module.Core()
        model = core.read_model(self.spec.onnx)
        self.compiled = core.compile_model(model, "CPU", config)
        self.request = self.compiled.create_infer_request()
        self.tensors = []
        for port in self.compiled.inputs:
            name = next(n for n in self.feeds if n in port.names)
            tensor = self.module.Tensor(np.ascontiguousarray(self.feeds[name]))
            self.request.set_tensor(port, tensor)
            self.tensors.append(tensor)

    def run(self) -> None:
        self.request.infer()

    def outputs(self) -> list[Array]:
        return [np.array(self.request.get_tensor(o).data) for o in self.compiled.outputs]


def run_tool(command: list[str], folder: Path, wanted: Path) -> None:
    """Runs a converter; raises RuntimeError with its last words when the file is not there."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=CONVERT_SECONDS, check=False
    )
    if not wanted.exists():
        words = " ".join((done.stdout + done.stderr).split())[-160:]
        raise RuntimeError(f"{Path(command[0]).name} ({done.returncode}): {words}")


def tool(name: str) -> str:
    """A program of this Python's environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found


def by_number(name: str) -> tuple[int, str]:
    """Sorts in2 before in10."""
    return int("".join(re.findall(r"\d", name)) or 0), name


class Ncnn(Engine):
    """ncnn in float32, of a model that pnnx converted."""

    label = "ncnn"
    modules = ("ncnn", "pnnx")

    def convert(self) -> None:
        spec, param = self.spec, self.spec.file("ncnn.param")
        if param.exists():
            return
        kinds = {"float32": "f32", "int64": "i64", "int32": "i32", "bool": "bool", "uint8": "u8"}
        shapes = ",".join(
            f"[{','.join(map(str, a.shape))}]{kinds[a.dtype.name]}" for a in self.feeds.values()
        )
        scrap = Path(spec.folder) / f"{spec.name}.pnnx"
        scrap.mkdir(exist_ok=True)
        shutil.copy(spec.onnx, scrap / "model.onnx")
        made = scrap / "model.ncnn.param"
        run_tool([tool("pnnx"), "model.onnx", f"inputshape={shapes}", "fp16=0"], scrap, made)
        # Casts of masks and positions, which are fed as floats instead.
        text = made.read_text().replace("Tensor.to  ", "Noop       ")
        shutil.move(scrap / "model.ncnn.bin", spec.file("ncnn.bin"))
        param.write_text(text)
        shutil.rmtree(scrap)

    def files(self) -> list[Path]:
        return [self.spec.file("ncnn.param"), self.spec.file("ncnn.bin")]

    def start(self) -> str:
        import ncnn

        self.module = ncnn
        return str(ncnn.__version__)

    def load(self) -> None:
        self.net = self.module.Net()
        options = self.net.opt
        options.num_threads = self.threads
        options.use_vulkan_compute = False
        for name in dir(options):
            if re.match(r"use_(fp16|bf16)_", name):
                setattr(options, name, False)
        param, weights = map(str, self.files())
        if self.net.load_param(param) or self.net.load_model(weights):
            raise RuntimeError("it does not load")
        self.inputs = sorted(self.net.input_names(), key=by_number)
        self.names = sorted(self.net.output_names(), key=by_number)
        if len(self.inputs) != len(self.feeds):
            raise RuntimeError(f"inputs differ: {self.inputs}")
        self.mats = []
        for name, feed in self.feeds.items():
            is_index = feed.dtype.kind in "iu" and "mask" not in name and "position" not in name
            array = np.ascontiguousarray(feed.astype(np.int32 if is_index else np.float32))
            self.mats.append(self.module.Mat(array[0] if array.ndim > 1 else array).clone())

    def run(self) -> None:
        with self.net.create_extractor() as extractor:
            for name, mat in zip(self.inputs, self.mats, strict=True):
                extractor.input(name, mat)
            self.results = [extractor.extract(name) for name in self.names]
        if any(code for code, _ in self.results):
            raise RuntimeError("a result is missing")

    def outputs(self) -> list[Array]:
        return [np.array(mat) for _, mat in self.results]


class Mnn(Engine):
    """MNN at precision "high", of a model that its converter made."""

    label = "MNN"
    modules = ("MNN",)
    avx2: ClassVar[dict[str, str] | None] = {}  # the wheel has no AVX-512 code

    def convert(self) -> None:
        made = self.spec.file("mnn")
        if not made.exists():
            # Not its program: that installs packages and reports its use over the network.
            code = "import sys, _tools; _tools.mnnconvert(sys.argv)"
            command = [sys.executable, "-c", code, "-f", "ONNX", "--modelFile", self.spec.onnx]
            command += ["--MNNModel", str(made), "--bizCode", "x"]
            run_tool(command, Path(self.spec.folder), made)

    def files(self) -> list[Path]:
        return [self.spec.file("mnn")]

    def start(self) -> str:
        import MNN

        self.module = MNN
        return str(MNN.version())

    def load(self) -> None:
        nn, expr = self.module.nn, self.module.expr
        config = {
            "backend": "CPU", "numThread": self.threads, "precision": "high",
            "memory": "normal", "power": "high",
        }  # fmt: skip
        self.manager = nn.create_runtime_manager((config,))
        names = list(self.feeds)
        self.net = nn.load_module_from_file(
            str(self.files()[0]), names, self.spec.outputs,
            runtime_manager=self.manager, shape_mutable=False,
        )  # fmt: skip
        self.values = []
        for feed in self.feeds.values():
            kind, dtype = (
                (expr.float, np.float32) if feed.dtype.kind == "f" else (expr.int, np.int32)
            )
            array = np.ascontiguousarray(feed.astype(dtype))
            self.values.append(expr.const(array, list(array.shape), expr.NCHW, kind))

    def run(self) -> None:
        self.results = self.net.onForward(self.values)
        self.results[0].read()  # completes the computation

    def outputs(self) -> list[Array]:
        expr = self.module.expr
        plain = [
            expr.convert(r, expr.NCHW) if r.data_format == expr.NC4HW4 else r for r in self.results
        ]
        return [np.array(r.read()) for r in plain]


class LiteRt(Engine):
    """LiteRT with XNNPACK, of `NAME.tflite` in the folder that LITERT_MODELS names."""

    label = "LiteRT"
    modules = ("ai_edge_litert",)
    same_weights = False

    def files(self) -> list[Path]:
        folder = Path(os.environ.get("LITERT_MODELS", self.spec.folder))
        return [folder / f"{self.spec.name}.tflite"]

    def convert(self) -> None:
        if not self.files()[0].exists():
            raise RuntimeError("there is no .tflite file")

    def start(self) -> str:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        self.module = Interpreter
        return str(getattr(ai_edge_litert, "__version__", "?"))

    def load(self) -> None:
        self.session = self.module(model_path=str(self.files()[0]), num_threads=self.threads)
        self.session.allocate_tensors()
        inputs = sorted(
            self.session.get_input_details(), key=lambda t: by_number(t["name"].split(":")[0])
        )
        for tensor, feed in zip(inputs, self.feeds.values(), strict=True):
            array = np.ascontiguousarray(feed.astype(tensor["dtype"]))
            if list(array.shape) != list(tensor["shape"]):
                raise RuntimeError(f"shape {tensor['shape']} is not {array.shape}")
            self.session.set_tensor(tensor["index"], array)

    def run(self) -> None:
        self.session.invoke()

    def outputs(self) -> list[Array]:
        return [self.session.get_tensor(t["index"]) for t in self.session.get_output_details()]


ENGINES: dict[str, type[Engine]] = {
    "ortolan": Ortolan,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ncnn": Ncnn,
    "mnn": Mnn,
    "litert": LiteRt,
}


def largest_error(got: list[Array], expected: list[Array]) -> float | None:
    """The largest relative distance of the float outputs; None where there is nothing to say."""
    worst = None
    for a, b in zip(got, expected, strict=False):
        if not isinstance(a, np.ndarray) or b.dtype.kind != "f" or not b.size:
            continue
        error = float("inf")
        with contextlib.suppress(ValueError, TypeError):
            x, y = np.asarray(a, np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
            if x.size == y.size:
                error = float(np.linalg.norm(x - y) / (np.linalg.norm(y) + 1e-12))
        worst = error if worst is None or not error <= worst else worst
    return worst
