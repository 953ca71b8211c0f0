"""Runs models on a library that was just built and compares with the full runtime.

A built library is run in a process of its own: Linux and Android libraries by a small program that
loads them itself (``native/tools/probe.cc``), directly or under qemu; Windows libraries under wine;
WebAssembly by Node.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortolan.build import link
from ortolan.build.compile import source_root
from ortolan.build.link import BuildError
from ortolan.build.targets import COMMON_FLAGS, TARGETS, Target
from ortolan.catalog.types import DataType
from ortolan.error_codes import Code
from ortolan.errors import InvalidArgument, OrtolanError
from ortolan.ortformat import read
from ortolan.session import InferenceSession

__all__ = [
    "Array", "Check", "Reference", "compare", "pack_feeds", "probe", "reference", "run_library",
    "runner_of", "unpack_results", "verify",
]  # fmt: skip

Array = npt.NDArray[np.generic]
_RECORD = struct.Struct("<4I8qQ")
_HEAD = struct.Struct("<2i")
_SECONDS = 300
# Models refuse some sizes; the first that the full runtime takes is used.
_UNKNOWN_SIZES = (64, 1, 512, 1536)
LIMIT = 1e-3
"""Largest difference allowed between instruction sets, relative to an output's magnitude."""

_PROBES = {
    "x86_64": ("x86_64-linux-none", ()),
    "aarch64": ("aarch64-linux-none", ()),
    "arm": ("arm-linux-androideabi", ("-mcpu=cortex_a9", "-marm")),
    "i386": ("x86-linux-none", ("-mcpu=i686+sse2",)),
}
_DTYPES: Mapping[str, DataType] = {
    "float32": DataType.FLOAT, "float64": DataType.DOUBLE, "int8": DataType.INT8,
    "uint8": DataType.UINT8, "int16": DataType.INT16, "uint16": DataType.UINT16,
    "int32": DataType.INT32, "uint32": DataType.UINT32, "int64": DataType.INT64,
    "uint64": DataType.UINT64, "bool": DataType.BOOL, "float16": DataType.FLOAT16,
}  # fmt: skip
_NUMPY = {data_type: np.dtype(name) for name, data_type in _DTYPES.items()}
# What a runner does not hand out: strings, and what is no tensor.
_OPAQUE = (DataType.UNDEFINED, DataType.STRING)
_WINE = "wine"


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the full runtime makes of a model.

    Attributes:
        name: of the model.
        content: the `.ort` file.
        feeds: arrays by the number of the input.
        outputs: in order, empty arrays of objects for what a runner does not hand out; empty if the
            full runtime refused as well.
        code: the error code if it did.
    """

    name: str
    content: bytes
    feeds: Mapping[int, Array]
    outputs: tuple[Array, ...]
    code: int = 0


@dataclasses.dataclass(frozen=True)
class Check:
    """The comparison of one model.

    Attributes:
        model: its name.
        error: the largest difference, relative to the magnitude of the output.
        identical: whether all outputs are the same bit for bit.
        refused: the error code where the full runtime and the library both refused the random
            inputs: then loading was tried and nothing more.
    """

    model: str
    error: float
    identical: bool
    refused: int = 0


def reference(name: str, content: bytes, given: Mapping[str, Array] | None = None) -> Reference:
    """Feeds a model with random numbers, always the same, and runs it in the full runtime.

    Args:
        name: of the model, for messages.
        content: an `.ort` file.
        given: values for some inputs.

    Raises:
        OrtolanError: the full runtime cannot load the model.
        InvalidArgument: values were given, and it does not run with them.
    """
    session = InferenceSession(content)
    graph = read(content).model
    assert graph is not None and graph.graph is not None
    order = {name: index for index, name in enumerate(graph.graph.inputs)}
    found = Reference(name, content, {}, (), int(Code.INVALID_ARGUMENT))
    if any(_dtype(value.type) is None for value in session.get_inputs()):
        return found  # a runner takes numbers only: it is tried without any, and must say so
    wanted = {value.name for value in session.get_inputs()}
    own = {key: array for key, array in (given or {}).items() if key in wanted}
    refused = ""
    for size in _UNKNOWN_SIZES:
        named = _random_feeds(session, size) | own
        feeds = {order[key]: array for key, array in named.items()}
        try:
            outputs = session.run(None, named)
        except OrtolanError as error:
            found = Reference(name, content, feeds, (), int(error.code))
            refused = str(error)
        else:
            return Reference(name, content, feeds, tuple(map(_comparable, outputs)))
    if own:
        others = ", ".join(sorted(wanted - own.keys())) or "none"
        raise InvalidArgument(
            f"{name} does not run with the inputs given, {', '.join(sorted(own))} (random ones: "
            f"{others}): {refused}"
        )
    return found


def _dtype(kind: str) -> np.dtype[Any] | None:
    """Numpy's type of "tensor(float)"; None for what a runner does not take."""
    kind = kind.removeprefix("tensor(").removesuffix(")")
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    return np.dtype(kind) if kind in _DTYPES else None


def _comparable(output: object) -> Array:
    array = np.asarray(output)
    is_tensor = isinstance(output, np.ndarray | np.generic) and array.dtype.name in _DTYPES
    return array if is_tensor else np.empty(0, object)


def _random_feeds(session: InferenceSession, unknown: int) -> dict[str, Array]:
    """Feeds by name; dimensions of no known size get 1 where they come first, else `unknown`."""
    generator = np.random.default_rng(1)
    named: dict[str, Array] = {}
    for value in session.get_inputs():
        shape = [
            size if isinstance(size, int) and size > 0 else unknown if axis else 1
            for axis, size in enumerate(value.shape or ())
        ]
        dtype = _dtype(value.type)
        assert dtype is not None
        if dtype.kind == "f":
            array: Array = generator.normal(size=shape).astype(dtype)
        else:
            array = generator.integers(0, 2, size=shape).astype(dtype)
        named[value.name] = np.ascontiguousarray(array)
    return named


def runner_of(target: Target, cache: Path) -> tuple[str, list[str]] | None:
    """How this machine can run a library: a word for the manifest and the start of the command.

    None: it cannot.
    """
    if target.runner.startswith("node"):
        node = _node()
        script = Path(__file__).with_name("probe.mjs")
        return ("node", [node, str(script)]) if node and script.is_file() else None
    if target.runner == _WINE:
        wine = shutil.which("wine64") or shutil.which(_WINE)
        return (_WINE, [wine, str(_windows_probe(cache))]) if wine else None
    if target.runner not in _PROBES:
        return None
    program = str(probe(target.runner, cache))
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if os.name == "posix" and platform.system() == "Linux":
        if machine == target.runner or (machine, target.runner) == ("x86_64", "i386"):
            return "native", [program]
        emulator = shutil.which(f"qemu-{target.runner}")
        if emulator:
            return "qemu", [emulator, program]
    return None


def _node() -> str | None:
    """The Node that is named, else the checkout's own: that of the path may lack relaxed SIMD."""
    own = Path(__file__).resolve().parents[3] / "build/node/node_modules/.bin/node"
    return os.environ.get("ORTOLAN_NODE") or shutil.which(str(own)) or shutil.which("node")


def probe(processor: str, cache: Path) -> Path:
    """Compiles the program that loads a library for Linux or Android.

    Args:
        processor: "x86_64", "aarch64", "arm" or "i386".
        cache: for the result.
    """
    triple, flags = _PROBES[processor]

    def more(folder: Path) -> list[Path]:
        del folder
        if processor not in ("arm", "i386"):
            return []
        target = Target("probe-" + processor, triple, (), (), "", "elf", flags[:1])
        imports = cache / "imports"
        runtime = Path("compiler_rt.zig")
        return [link.import_library(target, runtime, "compiler_rt.a", imports, cache)]

    linker = ["ld.lld", "-static", "-e", "_start", "-s", "-o"]
    return _program(processor, "probe.cc", ["-target", triple, *flags], more, linker, cache)


def _windows_probe(cache: Path) -> Path:
    """Compiles the program that runs a Windows library."""
    target = TARGETS["windows-x64"]

    def more(folder: Path) -> list[Path]:
        platforms = source_root() / "platform"
        return [
            link.import_library(target, platforms / source, name, folder, cache)
            for source, name in target.libraries
        ]

    linker = ["lld-link", "/entry:start_probe", "/subsystem:console", "/lldmingw"]
    linker += ["/nodefaultlib", "/machine:x64", "/out:"]
    flags = ["-target", target.triple, *target.flags]
    return _program("windows.exe", "probe_windows.cc", flags, more, linker, cache)


def _program(
    name: str,
    source: str,
    flags: Sequence[str],
    more: Callable[[Path], list[Path]],
    linker: Sequence[str],
    cache: Path,
) -> Path:
    """A program of tools/ and the core's memory functions, made once for the same sources.

    Args:
        name: of the result, to which a digest is added.
        source: of the program, in tools/.
        flags: for the compiler, the target among them.
        more: makes what else is linked, in a folder of its own.
        linker: its command; the last word stands before the result.
        cache: for the result.
    """
    native = source_root()
    kept = Path(name)
    program = cache / "probes" / f"{kept.stem}-{_digest(native)}{kept.suffix}"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as text:
        folder = Path(text)
        objects = []
        for part in (f"tools/{source}", "core/memory.cc"):
            made = folder / (Path(part).stem + ".o")
            command = [link.zig(), "c++", *flags, *COMMON_FLAGS, "-O2"]
            command += [f"-I{native}", f"-I{native / 'include'}", "-c", str(native / part)]
            link.run([*command, "-o", str(made)], cache)
            objects.append(made)
        result = folder / kept
        *command, last = linker
        output = [last + str(result)] if last.endswith(":") else [last, str(result)]
        inputs = map(str, [*objects, *more(folder)])
        link.run([link.zig(), *command, *output, *inputs], cache)
        result.chmod(0o755)
        result.replace(program)
    return program


def _digest(native: Path) -> str:
    files = [native / "core" / name for name in ("memory.cc", "memory.h")]
    files += [native / "platform" / name for name in ("linux.cc", "windows.cc", "processor.h")]
    files += sorted((native / "platform").glob("*.def"))
    files += sorted((native / "tools").glob("probe*"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def verify(
    library: Path, target: Target, references: Sequence[Reference], cache: Path
) -> tuple[str, list[Check]]:
    """Runs models on a library.

    Args:
        library: the file.
        target: what it was built for.
        references: what must come out.
        cache: for the program that runs it.

    Returns:
        How it was run ("native", "node", "qemu", "wine" or "no"), and the comparisons.

    Raises:
        BuildError: a result differs by more than LIMIT, or the library failed.
    """
    found = runner_of(target, cache)
    if found is None or not references:
        return "no", []
    word, command = found
    checks = []
    for each in references:
        with tempfile.TemporaryDirectory() as folder:
            got = run_library(command, library, each, Path(folder))
        if got is None:
            return "no", []
        checks.append(compare(each, got, target))
    return word, checks


def run_library(
    command: Sequence[str], library: Path, given: Reference, folder: Path
) -> tuple[int, str, list[Array]] | None:
    """Runs a model on a library.

    Args:
        command: the start of the command, of :func:`runner_of`.
        library: the file.
        given: the model and its feeds.
        folder: for files between the processes.

    Returns:
        Error code, message and outputs; None when the runner cannot load such libraries.

    Raises:
        BuildError: it crashed, or did not end.
    """
    model, feeds, results = (folder / name for name in ("model.ort", "feeds", "results"))
    model.write_bytes(given.content)
    feeds.write_bytes(pack_feeds(given.feeds))
    parts = [*command, str(library), str(model), str(feeds), str(results)]
    environment = dict(os.environ)
    if command[0].endswith((_WINE, "wine64")):
        environment |= {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
        environment.setdefault("WINEPREFIX", str(Path(command[1]).parent / "wine"))
    try:
        done = subprocess.run(
            parts, capture_output=True, timeout=_SECONDS, check=False, env=environment
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{library.name}: {given.name} did not end in {_SECONDS} s") from error
    if done.returncode == 3 and "node" in Path(command[0]).name:
        return None
    if done.returncode != 0 or not results.is_file():
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise BuildError(
            f"{library.name}: {given.name} ended with code {done.returncode} while it was tried"
            f" ({Path(command[0]).name}): {said}"
        )
    return unpack_results(results.read_bytes())


def pack_feeds(feeds: Mapping[int, Array]) -> bytes:
    """The file of inputs that a runner reads, by number of the input."""
    parts = [struct.pack("<2I", len(feeds), 0)]
    for index, array in feeds.items():
        dims = [*array.shape, *[0] * (8 - array.ndim)]
        data = array.tobytes()
        parts.append(
            _RECORD.pack(index, _DTYPES[array.dtype.name], array.ndim, 0, *dims, len(data))
        )
        parts.append(data + b"\0" * (-len(data) % 8))
    return b"".join(parts)


def unpack_results(content: bytes) -> tuple[int, str, list[Array]]:
    """Code, message and outputs from the file that a runner wrote."""
    code, count = _HEAD.unpack_from(content)
    at = _HEAD.size
    if code:
        return code, content[at : at + count].decode("utf-8", "replace"), []
    outputs: list[Array] = []
    for _ in range(count):
        _, data_type, rank, _, *dims, size = _RECORD.unpack_from(content, at)
        at += _RECORD.size
        if data_type in _OPAQUE:
            outputs.append(np.empty(0, object))
        else:
            flat = np.frombuffer(content[at : at + size], _NUMPY[DataType(data_type)])
            outputs.append(flat.reshape(dims[:rank]))
        at += size + -size % 8
    return 0, "", outputs


def compare(given: Reference, got: tuple[int, str, list[Array]], target: Target) -> Check:
    """What came out beside what must.

    Raises:
        BuildError: they differ.
    """
    code, text, outputs = got
    place = f"{target.name}: {given.name}"
    if code != given.code:
        raise BuildError(f"{place}: error {code} where the full runtime has {given.code}: {text}")
    worst, identical = 0.0, True
    for k, (ours, expected) in enumerate(zip(outputs, given.outputs, strict=True)):
        if ours.shape != expected.shape or ours.dtype != expected.dtype:
            raise BuildError(
                f"{place}: output {k} is {ours.dtype}{list(ours.shape)}, not"
                f" {expected.dtype}{list(expected.shape)}"
            )
        identical &= ours.tobytes() == expected.tobytes()
        worst = max(worst, _error(ours, expected))
    if not worst <= LIMIT:
        raise BuildError(f"{place}: an output differs by {worst:.2e} of its magnitude")
    return Check(given.name, worst, identical, code)


def _error(ours: Array, expected: Array) -> float:
    if ours.size == 0:
        return 0.0  # or opaque
    if ours.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, expected) else 1.0
    a, b = ours.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    scale = max(float(np.abs(b[finite]).max(initial=0.0)), 1e-30)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale
