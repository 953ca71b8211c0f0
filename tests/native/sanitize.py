"""Builds harness.cc with the runtime under a sanitizer of Debian's clang, and runs it.

The same sources as in the product, one instruction set, ordinary libc underneath. Objects are kept
under build/sanitize and made again when a file that they were made of changes.

    python tests/native/sanitize.py address --mode truncate model.ort
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ortolan.build.compile import SHARED, source_root
from ortolan.build.registry import PORTABLE, Selector, generate
from ortolan.build.schema_header import generate as schema_header
from ortolan.build.targets import COMMON_FLAGS
from ortolan.catalog import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "sanitize"
HARNESS = Path(__file__).with_name("harness.cc")
CLANGS = ("clang++-19", "clang++")

# Flags of the product that would hide errors from the sanitizers, or that only its linker wants.
_DROPPED = {"-O2", "-g0", "-fno-sanitize=all", "-ffunction-sections", "-fdata-sections"}
_KINDS = {
    "address": ("-fsanitize=address,undefined,float-cast-overflow",),
    "thread": ("-fsanitize=thread",),
    "fuzzer": ("-fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow",),
    # What was not set may be passed on: vectors reach behind the last element, into padding.
    "memory": (
        "-fsanitize=memory", "-fsanitize-memory-track-origins",
        "-fno-sanitize-memory-param-retval",
    ),
}  # fmt: skip
_OPTIMIZATION = {"thread": "-O2", "fuzzer": "-O1", "memory": "-O1"}
_ISA_FLAGS = {"sse2": (), "avx2": ("-march=x86-64-v3",), "avx512": ("-march=x86-64-v4",)}
_ENVIRONMENT = {
    # The runtime must cope with a null from its allocator, so the sanitizer's may answer it.
    "ASAN_OPTIONS": "allocator_may_return_null=1:detect_stack_use_after_return=1:"
    "strict_init_order=1:detect_invalid_pointer_pairs=0:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "MSAN_OPTIONS": "halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class NoSanitizerError(RuntimeError):
    """This machine has no clang with sanitizer runtimes; the text says what is missing."""


@functools.cache
def find_clang(kind: str) -> str:
    """The path of a clang++ that links a program with a sanitizer and runs it.

    Args:
        kind: "address", "thread", "memory" or "fuzzer".

    Raises:
        NoSanitizerError: there is none.
    """
    reasons = []
    for name in CLANGS:
        path = shutil.which(name)
        if path is None:
            reasons.append(f"no {name}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "probe"
            command = [path, *_KINDS[kind], "-x", "c++", "-", "-o", str(program)]
            source = "#include <vector>\nint main() { return std::vector<int>(1)[0]; }"
            made = subprocess.run(command, input=source, capture_output=True, text=True)
            if made.returncode == 0:
                done = subprocess.run([str(program)], capture_output=True, text=True)
                if done.returncode == 0:
                    return path
                reasons.append(f"a program of {name} with -fsanitize={kind} does not run here")
            else:
                reasons.append(f"{name} lacks the runtime of -fsanitize={kind}")
    raise NoSanitizerError("; ".join(reasons))


@dataclass(frozen=True)
class _Unit:
    source: Path
    output: Path
    flags: tuple[str, ...]


def _digest(files: Iterable[Path], command: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(command).encode())
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _dependencies(depfile: Path) -> list[Path]:
    text = depfile.read_text().replace("\\\n", " ").partition(": ")[2]
    return [Path(word) for word in shlex.split(text)]


def _is_fresh(unit: _Unit, command: Sequence[str]) -> bool:
    key, depfile = unit.output.with_suffix(".key"), unit.output.with_suffix(".d")
    if not (unit.output.is_file() and key.is_file() and depfile.is_file()):
        return False
    try:
        return key.read_text() == _digest(_dependencies(depfile), command)
    except OSError:
        return False


def _compile(unit: _Unit, clang: str) -> Path:
    depfile = unit.output.with_suffix(".d")
    command = [clang, *unit.flags, "-c", str(unit.source), "-o", str(unit.output)]
    command += ["-MD", "-MF", str(depfile)]
    if not _is_fresh(unit, command):
        unit.output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True)
        unit.output.with_suffix(".key").write_text(_digest(_dependencies(depfile), command))
    return unit.output


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def objects(
    kind: str, *, isa: str = "avx2", wanted: Selector | None = None, name: str = ""
) -> list[Path]:
    """Compiles the runtime.

    Args:
        kind: "thread", "memory" or "fuzzer" (addresses and undefined behaviour, with libFuzzer's
            counters).
        isa: the instruction set that SIMD families are compiled for; of level 0, so that it runs.
        wanted: the instances to include; None for the whole catalog.
        name: tells builds of different selections apart.

    Returns:
        The object files.

    Raises:
        NoSanitizerError: there is no clang for it.
        subprocess.CalledProcessError: a source does not compile.
    """
    clang = find_clang(kind)
    folder = _folder(kind, isa, name)
    generated = folder / "generated"
    for relative, text in generate(FAMILIES, [isa], wanted, onnx=True).items():
        _write(generated / relative, text)
    _write(generated / "ort_schema.h", schema_header())
    native = source_root()
    base = (
        *(f for f in COMMON_FLAGS if f not in _DROPPED), _OPTIMIZATION[kind], "-g1",
        "-fno-omit-frame-pointer", *_KINDS[kind], "-fno-sanitize-recover=all", f"-I{native}",
        f"-I{native / 'include'}", f"-I{generated}",
    )  # fmt: skip

    def unit(source: Path, namespace: str = "") -> _Unit:
        flags = base + _ISA_FLAGS.get(namespace, ())
        if namespace:
            flags += (f"-DORTOLAN_ISA={namespace}", f"-I{generated / namespace}")
        return _Unit(source, folder / f"{source.stem}-{namespace or 'core'}.o", flags)

    units = [unit(s) for part in ("core", "onnx") for s in sorted((native / part).glob("*.cc"))]
    units.append(unit(generated / "onnx_versions.cc"))
    units += [unit(native / "platform" / "linux.cc"), unit(generated / "registry.cc")]
    units += [unit(native / "kernels" / f"{name}.cc", PORTABLE) for name in SHARED]
    for family in FAMILIES:
        namespace = isa if family.simd else PORTABLE
        if (generated / namespace / f"{family.name}.inc").is_file():
            units.append(unit(native / "kernels" / f"{family.name}.cc", namespace))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda u: _compile(u, clang), units))


def _folder(kind: str, isa: str, name: str) -> Path:
    return CACHE / f"{kind}-{isa}{name and '-' + name}"


def program(source: Path, kind: str, runtime: Sequence[Path], *, flags: Sequence[str] = ()) -> Path:
    """Compiles a hosted C++ file and links it with the runtime's objects.

    Args:
        source: the file with `main`, or with what libFuzzer calls.
        kind: "address", "thread", "memory", or "fuzzer", whose program has libFuzzer's `main`.
        runtime: what `objects` gave.
        flags: more of them for the file, such as directories of headers.

    Returns:
        The path of the program, named after the file, beside the objects.
    """
    clang, folder = find_clang(kind), runtime[0].parent
    hosted: tuple[str, ...] = ("-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", *_KINDS[kind])
    hosted += ("-fno-sanitize-recover=all", f"-I{source_root() / 'include'}", *flags)
    own = _compile(_Unit(source, folder / f"{source.stem}-program.o", hosted), clang)
    made = folder / source.stem
    inputs = [own, *runtime]
    newest = max(path.stat().st_mtime_ns for path in inputs)
    if not made.is_file() or made.stat().st_mtime_ns < newest:
        link = [flag.replace("fuzzer-no-link", "fuzzer") for flag in _KINDS[kind]]
        # Another process may be running the program, or linking it too.
        beside = made.with_name(f"{made.name}.{os.getpid()}")
        command = [clang, *link, "-o", str(beside), *map(str, inputs), "-lpthread"]
        subprocess.run(command, check=True)
        beside.replace(made)
    return made


def build(kind: str, *, isa: str = "avx2", wanted: Selector | None = None, name: str = "") -> Path:
    """Builds the harness; arguments and errors are those of `objects`.

    Returns:
        The path of the program.
    """
    # Compiling takes minutes, so the objects of fuzzing serve here as well.
    compiled = "fuzzer" if kind == "address" else kind
    return program(HARNESS, kind, objects(compiled, isa=isa, wanted=wanted, name=name))


def environment() -> dict[str, str]:
    """The environment of a program under a sanitizer."""
    return {**os.environ, **options()}


def options() -> dict[str, str]:
    """The variables that sanitizers read."""
    made = dict(_ENVIRONMENT)
    symbolizer = next(
        filter(None, map(shutil.which, ("llvm-symbolizer-19", "llvm-symbolizer"))), None
    )
    if symbolizer:
        for variable in _ENVIRONMENT:
            made[variable] += f":external_symbolizer_path={symbolizer}"
    return made


def run(
    program: Path, arguments: Sequence[str], timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Runs the harness; the sanitizers end it with a report on stderr when they find something.

    Raises:
        subprocess.TimeoutExpired: it did not end in `timeout` seconds.
    """
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, errors="replace",
        env=environment(), timeout=timeout,
    )  # fmt: skip


def main() -> int:
    """``sanitize.py address|thread [harness arguments]``: builds, and runs if there are any."""
    kind, *arguments = sys.argv[1:] or ["address"]
    program = build(kind)
    print(program)
    if not arguments:
        return 0
    done = run(program, arguments, timeout=3600)
    sys.stdout.write(done.stdout[-4000:])
    sys.stderr.write(done.stderr[:8000])
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
