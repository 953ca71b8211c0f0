"""Compiles and links a target: objects in parallel, each cached by what it is made of."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from ortolan.build import schema_header
from ortolan.build.registry import PORTABLE, Selector, generate
from ortolan.build.targets import COMMON_FLAGS, Target
from ortolan.catalog import FAMILIES

SHARED = ("infer", "narrow", "texts")
"""Files of ``native/kernels`` that several families use."""

_INCLUDE = re.compile(rb'^\s*#include\s+"([^"]+)"', re.MULTILINE)


class BuildError(RuntimeError):
    """The compiler or linker refused; the message holds what it said."""


def source_root() -> Path:
    """The folder ``native``: in the installed package, else in the source tree.

    Raises:
        BuildError: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "native", package.parent.parent / "native"):
        if (folder / "core" / "base.h").is_file():
            return folder
    raise BuildError("the C++ sources (native/) are missing from this installation")


def compiler() -> list[str]:
    """The command of clang as the ``ziglang`` package brings it.

    Raises:
        BuildError: ziglang is not installed.
    """
    try:
        import ziglang
    except ImportError as error:
        raise BuildError("the compiler is missing: pip install 'ortolan[build]'") from error
    folder = Path(ziglang.__file__).parent
    zig = folder / ("zig.exe" if os.name == "nt" else "zig")
    return [str(zig), "c++"]


def _run(command: list[str], cache: Path) -> None:
    environment = dict(os.environ)
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache / "zig"))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache / "zig"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr.strip()}")


class _Digests:
    """Content hashes of sources with all that they include, each file read once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = list(folders)
        self._files: dict[Path, tuple[bytes, list[str]]] = {}

    def of(self, source: Path, extra: Path | None = None) -> bytes:
        folders = ([extra] if extra else []) + self._folders
        seen: dict[Path, None] = {}
        queue = [source]
        while queue:
            path = queue.pop()
            if path in seen:
                continue
            seen[path] = None
            if path not in self._files:
                content = path.read_bytes()
                names = [n.decode() for n in _INCLUDE.findall(content)]
                self._files[path] = (hashlib.sha256(content).digest(), names)
            for name in self._files[path][1]:
                found = next((f / name for f in folders if (f / name).is_file()), None)
                if found is not None:
                    queue.append(found)
        return hashlib.sha256(b"".join(sorted(self._files[p][0] for p in seen))).digest()


def _units(target: Target, native: Path, generated: Path) -> list[tuple[Path, str, Path | None]]:
    """(source, instruction set or "", folder of its generated includes) of every object."""
    units: list[tuple[Path, str, Path | None]] = [
        (source, "", None) for source in sorted((native / "core").glob("*.cc"))
    ]
    units += [(native / "platform" / name, "", None) for name in target.platform_sources]
    units.append((generated / "registry.cc", "", None))
    if target.onnx:
        units += [(source, "", None) for source in sorted((native / "onnx").glob("*.cc"))]
        units.append((generated / "onnx_versions.cc", "", None))
    units += [(native / "kernels" / f"{name}.cc", PORTABLE, None) for name in SHARED]
    for family in FAMILIES:
        names = [i.name for i in target.instruction_sets] if family.simd else [PORTABLE]
        for name in names:
            if (generated / name / f"{family.name}.inc").is_file():
                units.append((native / "kernels" / f"{family.name}.cc", name, generated / name))
    return units


def build(
    target: Target,
    output: Path,
    cache: Path,
    *,
    wanted: Selector | None = None,
    extra_flags: tuple[str, ...] = (),
    core_flags: tuple[str, ...] = (),
    progress: Callable[[str], None] = lambda text: None,
    linked: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Builds the library of a target.

    Args:
        target: what to build for.
        output: folder for the result.
        cache: folder for generated sources and objects; safe to share between builds.
        wanted: instances to include; None for the whole catalog.
        extra_flags: more compiler flags.
        core_flags: more of them for native/core alone, such as -DORTOLAN_POISON (core/poison.h).
        progress: called with a line per object that is compiled.
        linked: called with the path of each object that goes into the library.

    Returns:
        The path of the library.

    Raises:
        BuildError: the compiler is missing or refused.
    """
    native = source_root()
    files = generate(FAMILIES, [i.name for i in target.instruction_sets], wanted, onnx=target.onnx)
    files["ort_schema.h"] = schema_header.generate()
    key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    generated = cache / "generated" / key
    for name, text in files.items():
        path = generated / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            _replace(path, text.encode())
    digests = _Digests([native, native / "include", generated])
    sets = {i.name: i.flags for i in target.instruction_sets}
    baseline = target.instruction_sets[0].flags
    base = [*compiler(), "-target", target.triple, *COMMON_FLAGS, *target.flags, *extra_flags]
    if wanted is not None:  # helpers of operators that are left out
        base += ["-Wno-unused-function", "-Wno-unneeded-internal-declaration"]

    def compile_one(unit: tuple[Path, str, Path | None]) -> Path:
        source, isa, folder = unit
        command = [*base, *(sets.get(isa, baseline)), f"-I{native}", f"-I{native / 'include'}"]
        command += [f"-I{generated}"]
        # The core has no hot loop: it is compiled for size.
        command += [f"-DORTOLAN_ISA={isa}"] if isa else ["-Os", "-Xclang", "-Oz", *core_flags]
        command += [f"-I{folder}"] if folder else []
        flags = [c for c in command[1:] if not c.startswith("-I")]
        digest = hashlib.sha256(digests.of(source, folder) + repr(flags).encode()).hexdigest()
        object_file = cache / "objects" / f"{source.stem}-{isa or 'core'}-{digest[:24]}.o"
        if not object_file.is_file():
            object_file.parent.mkdir(parents=True, exist_ok=True)
            temporary = object_file.with_suffix(f".{os.getpid()}.tmp.o")
            _run([*command, "-c", str(source), "-o", str(temporary)], cache)
            temporary.replace(object_file)
            progress(f"{source.stem} {isa}")
        return object_file

    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        objects = list(pool.map(compile_one, _units(target, native, generated)))
    for path in objects:
        linked(path)
    output.mkdir(parents=True, exist_ok=True)
    library = output / target.output
    temporary = library.with_suffix(f".{os.getpid()}.tmp")
    link = [*compiler(), "-target", target.triple, *target.link_flags]
    _run([*link, "-o", str(temporary), *map(str, objects)], cache)
    temporary.replace(library)
    return library


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
