"""Models that take less than 0.1 ms, called from C: no binding of Python is part of the time.

``python benchmarks/tiny.py [MODEL ...] [--rounds 15] [--openvino FOLDER] [--zoo FOLDER]``

A C function (`repeat.c`) calls each engine's own C interface with inputs and outputs at fixed
places: `ortolan_run_call`, onnxruntime's `Run`, and OpenVINO's `ov_infer_request_infer` where
FOLDER has its libraries (its request keeps its tensors, so that it is not given them anew). All in
one process, in turn; results are compared with what is known of the model before anything is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_long, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import peak
import report
import zoo
from engines import Array, Feeds, Spec, largest_error
from worker import busy_seconds

import ortolan
from ortolan import _native
from ortolan.build.targets import host_target

HERE = Path(__file__).resolve().parent
DEFAULT = (
    "tiny_mlp", "vad_lstm", "sk_logreg", "sk_random_forest", "bert-toy", "byte-bidi-lstm",
    "dtln-1", "gpt2-past-op11", "lgbm-classifier", "linear-classifier", "mnist-7",
    "mnist-gemm-op12", "scan-lstm", "silero-vad-v4-lstm", "silero-vad-v5-op16",
    "tfbert-mrpc-op10", "tiny-gpt2-contrib-fp32", "xgboost-regressor",
)  # fmt: skip
TURN_SECONDS = 0.03
# Places in onnxruntime's table of functions, which only ever grows at its end.
ORT = {
    "GetErrorMessage": 2, "CreateEnv": 3, "CreateSession": 7, "Run": 9, "CreateSessionOptions": 10,
    "SetIntraOpNumThreads": 24, "CreateTensorWithDataAsOrtValue": 49, "CreateCpuMemoryInfo": 69,
}  # fmt: skip
ORT_API_VERSION = 16
OV_TYPES = {"bool": 1, "float32": 4, "float64": 5, "int32": 9, "int64": 10, "uint8": 16}


class Program:
    """A C function with its arguments, the arrays it writes, and what must stay alive."""

    def __init__(
        self, function: Any, arguments: list[Any], outputs: list[Array], keep: Any
    ) -> None:
        self.function = ctypes.cast(function, c_void_p)
        addresses = [ctypes.cast(a, c_void_p).value if a is not None else None for a in arguments]
        self.arguments = (c_void_p * 8)(*addresses)
        self.outputs, self.keep = outputs, keep


def element_type(array: Array) -> int:
    """ONNX's number of an array's type; onnxruntime's C interface has the same."""
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)


def level(isa: str) -> bytes:
    """The number by which the runtime knows an instruction set of this machine's library."""
    names = [item.name for item in host_target().instruction_sets]
    return str(names.index(isa) if isa in names else len(names)).encode()


def ours(spec: Spec, feeds: Feeds, outputs: Feeds, isa: str = "") -> Program:
    """A whole call of Ortolan with places for inputs and outputs; the model is kept first."""
    library = _native.library()
    keys = [(b"session.intra_op_num_threads", b"1"), (b"ortolan.instruction_set", level(isa))]
    given = keys if isa else keys[:1]
    chosen = (_native.Option * len(given))(*(_native.Option(*pair) for pair in given))
    model, run = c_void_p(), c_void_p()
    path = str(spec.file("ort")).encode()
    code = library.ortolan_model_open(path, chosen, len(given), None, byref(model))
    _native.check(code, library.ortolan_model_error(model))
    _native.check(library.ortolan_run_create(model, byref(run)), b"a run")

    def describe(array: Array) -> _native.Tensor:
        return _native.Tensor(
            size=_native.TENSOR_SIZE, type=element_type(array), rank=array.ndim,
            data=array.ctypes.data, bytes=array.nbytes,
            dims=(c_int64 * _native.MAX_RANK)(*array.shape),
        )  # fmt: skip

    count = library.ortolan_model_count(model, _native.INPUT)
    names = [library.ortolan_model_name(model, _native.INPUT, k).decode() for k in range(count)]
    absent = _native.new_tensor()  # type 0
    inputs = (_native.Tensor * count)(
        *(describe(feeds[n]) if n in feeds else absent for n in names)
    )
    places = (_native.Tensor * len(outputs))(*map(describe, outputs.values()))
    wanted = (ctypes.c_uint32 * len(outputs))(*range(len(outputs)))
    answers = (_native.Tensor * len(outputs))(*(_native.new_tensor() for _ in outputs))
    values = (c_void_p * len(outputs))()

    def address(of: Any) -> int:
        return ctypes.addressof(of)

    call = _native.Call(
        size=ctypes.sizeof(_native.Call), input_count=count, output_count=len(outputs),
        inputs=address(inputs), wanted=address(wanted), places=address(places),
        outputs=address(answers), values=address(values),
    )  # fmt: skip
    keep = [model, inputs, places, wanted, answers, values, call, feeds]
    return Program(library.ortolan_run_call, [run, byref(call)], list(outputs.values()), keep)


def theirs(spec: Spec, feeds: Feeds, outputs: Feeds) -> Program:
    """The Run of onnxruntime, found in the library of its Python package."""
    path = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    library = ctypes.CDLL(str(path))
    library.OrtGetApiBase.restype = POINTER(c_void_p)
    get_api = ctypes.CFUNCTYPE(POINTER(c_void_p), ctypes.c_uint32)(library.OrtGetApiBase()[0])
    table = get_api(ORT_API_VERSION)

    def call(name: str, *arguments: Any) -> None:
        status = ctypes.CFUNCTYPE(c_void_p)(table[ORT[name]])(*arguments)
        if status:
            text = ctypes.CFUNCTYPE(c_char_p, c_void_p)(table[ORT["GetErrorMessage"]])(status)
            raise RuntimeError(f"onnxruntime: {name}: {text!r}")

    environment, options, session, memory = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    call("CreateEnv", c_int(4), c_char_p(b"tiny"), byref(environment))
    call("CreateSessionOptions", byref(options))
    call("SetIntraOpNumThreads", options, c_int(1))
    call("CreateSession", environment, c_char_p(spec.onnx.encode()), options, byref(session))
    call("CreateCpuMemoryInfo", c_int(0), c_int(0), byref(memory))

    def value(array: Array) -> int | None:
        dims, made = (c_int64 * max(array.ndim, 1))(*array.shape), c_void_p()
        call(
            "CreateTensorWithDataAsOrtValue", memory, c_void_p(array.ctypes.data),
            c_size_t(array.nbytes), dims, c_size_t(array.ndim), c_int(element_type(array)),
            byref(made),
        )  # fmt: skip
        return made.value

    def texts(names: Feeds) -> Any:
        return (c_char_p * len(names))(*(n.encode() for n in names))

    given = (c_void_p * len(feeds))(*map(value, feeds.values()))
    places = (c_void_p * len(outputs))(*map(value, outputs.values()))
    names, wanted = texts(feeds), texts(outputs)
    arguments = [
        session, None, names, given, c_void_p(len(feeds)), wanted, c_void_p(len(outputs)), places,
    ]  # fmt: skip
    keep = [feeds, given, places, names, wanted]
    return Program(c_void_p(table[ORT["Run"]]), arguments, list(outputs.values()), keep)


class OvShape(ctypes.Structure):
    """OpenVINO's `ov_shape_t`."""

    _fields_ = (("rank", c_int64), ("dims", POINTER(c_int64)))


def openvino(folder: Path, spec: Spec, feeds: Feeds) -> Program:
    """OpenVINO's inference on tensors that its request keeps."""
    library = ctypes.CDLL(str(next(folder.glob("libopenvino_c.so*"))))

    def call(name: str, *arguments: Any) -> None:
        code = getattr(library, name)(*arguments)
        if code:
            raise RuntimeError(f"OpenVINO: {name}: {code}")

    core, model, compiled, request = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    call("ov_core_create", byref(core))
    call("ov_core_read_model", core, c_char_p(spec.onnx.encode()), None, byref(model))
    config = [b"INFERENCE_NUM_THREADS", b"1", b"NUM_STREAMS", b"1"]
    config += [b"INFERENCE_PRECISION_HINT", b"f32"]
    texts = [c_char_p(text) for text in config]
    call(
        "ov_core_compile_model", core, model, c_char_p(b"CPU"), c_size_t(len(texts)),
        byref(compiled), *texts,
    )  # fmt: skip
    call("ov_compiled_model_create_infer_request", compiled, byref(request))
    for name, array in feeds.items():
        dims, tensor = (c_int64 * max(array.ndim, 1))(*array.shape), c_void_p()
        call(
            "ov_tensor_create_from_host_ptr", c_int(OV_TYPES[array.dtype.name]),
            OvShape(array.ndim, dims), c_void_p(array.ctypes.data), byref(tensor),
        )  # fmt: skip
        call("ov_infer_request_set_tensor", request, c_char_p(name.encode()), tensor)
    return Program(library.ov_infer_request_infer, [request], [], [feeds, texts])


def build(spec: Spec, folder: Path | None) -> tuple[dict[str, Program], dict[str, str]]:
    """The programs of a model by engine, and why others are missing."""
    known = spec.read_outputs()
    makers: dict[str, Callable[[Feeds, Feeds], Program]] = {
        "ortolan": lambda feeds, outputs: ours(spec, feeds, outputs),
        "onnxruntime": lambda feeds, outputs: theirs(spec, feeds, outputs),
    }
    if folder:
        makers["openvino"] = lambda feeds, _: openvino(folder, spec, feeds)
    programs, failed = {}, {}
    for name, make in makers.items():
        feeds = {k: np.array(v, order="C") for k, v in spec.read_feeds().items()}
        outputs = {k: np.zeros_like(v) for k, v in known.items()}
        try:
            programs[name] = make(feeds, outputs)
        except Exception as error:  # whatever an engine raises is its result
            failed[name] = str(error)
    return programs, failed


def measure(spec: Spec, rounds: int, repeat: Any, folder: Path | None) -> report.Json:
    """Times a model's programs in turn, as a run that `report` knows."""
    programs, failed = build(spec, folder)
    engines: report.Json = {}
    counts = {}
    for name, program in programs.items():
        once = repeat(program.function, program.arguments, 20)
        if once < 0:
            engines[name] = {"turns": [], "failed": "its call fails"}
            continue
        known = list(spec.read_outputs().values())
        engines[name] = {"turns": [], "error": largest_error(program.outputs, known)}
        counts[name] = max(10, int(TURN_SECONDS * 1e9 / once))
    for _ in range(rounds):
        for name, count in counts.items():
            program, busy = programs[name], busy_seconds()
            took = repeat(program.function, program.arguments, count) * 1e-9
            others = max((busy_seconds() - busy) / (took * count) - 1, 0)
            turn = {"median": took, "min": took, "calls": count, "others": others}
            engines[name]["turns"].append(turn)
    engines |= {name: {"turns": [], "failed": why} for name, why in failed.items()}
    return {"model": spec.name, "threads": 1, "avx2": False, "engines": engines}


def microseconds_table(runs: list[report.Json]) -> list[str]:
    """Times in microseconds, and the ratio to the best peer."""
    names = list(dict.fromkeys(e for run in runs for e in run["engines"]))
    lines = [f"| model | {' | '.join(names)} | times as fast as the best, min / median |"]
    lines.append("|---|" + "---|" * (len(names) + 1))
    rows = [report.row_of(run) for run in runs]
    for row in rows:
        cells = [
            f"{row.found[n].least * 1e6:.2f} / {row.found[n].median * 1e6:.2f}"
            if n in row.found else "-"
            for n in names
        ]  # fmt: skip
        ratio = "{:.2f} / {:.2f}".format(*row.ratio) if row.best and "ortolan" in row.found else "-"
        lines.append(f"| {row.run['model']} | {' | '.join(cells)} | {ratio} |")
    return [*lines, "", *report.mean_lines(rows, names)]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--zoo", type=Path, default=HERE.parent / "build" / "zoo")
    parser.add_argument("--openvino", type=Path, help="the folder of its libopenvino_c.so")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as scrap:
        harness = Path(scrap) / "repeat.so"
        peak.compile_c(HERE / "repeat.c", harness, "-shared", "-fPIC")
        repeat = ctypes.CDLL(str(harness)).repeat
        repeat.restype = ctypes.c_double
        repeat.argtypes = [c_void_p, c_void_p, c_long]
        for model in zoo.find(options.models or DEFAULT, options.zoo):
            spec = zoo.spec(model, Path(scrap))
            ortolan.convert(model, spec.file("ort"))
            run = measure(spec, options.rounds, repeat, options.openvino)
            for name, result in run["engines"].items():
                if result.get("failed") or not report.is_right(result):
                    why = result.get("failed") or f"wrong by {result['error']:.1e}"
                    print(f"{spec.name}: {name}: {why}", file=sys.stderr)
            runs.append(run)
    print("Microseconds, called from C: minimum / median\n")
    print("\n".join(microseconds_table(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
