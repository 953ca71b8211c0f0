"""Compiles and links a target: objects in parallel, each cached by what it is made of."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ortolan.build import schema_header
from ortolan.build.link import SMALL_WASM, BuildError, compiler, import_library, link, run
from ortolan.build.registry import PORTABLE, Selector, VariantSelector, generate
from ortolan.build.targets import COMMON_FLAGS, Target
from ortolan.catalog import FAMILIES

__all__ = ["SHARED", "SPEED", "BuildError", "BuildOptions", "build", "compiler", "source_root"]

SHARED = ("infer", "narrow", "texts")
"""Files of ``native/kernels`` that several families use."""

_INCLUDE = re.compile(rb'^\s*#include\s+"([^"]+)"', re.MULTILINE)
# Helpers of operators that a reduced build leaves out have no user.
_LEFT_OUT = ("-Wno-unused-function", "-Wno-unneeded-internal-declaration")
_SMALL = ("-Os", "-Xclang", "-Oz")


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How a library is compiled.

    Attributes:
        optimize: "speed", or "size": kernels too are compiled to be small.
        messages: "text", or "codes": errors carry a number instead of their text.
        whole_program: optimize over all objects while linking. Smaller by a fifth, but every
            link compiles everything again; static libraries and macOS are left as they are.
        strip: leave out the names of functions.
    """

    optimize: str = "speed"
    messages: str = "text"
    whole_program: bool = False
    strip: bool = True


SPEED = BuildOptions()


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
    variants: VariantSelector | None = None,
    without: frozenset[str] = frozenset(),
    extra_flags: tuple[str, ...] = (),
    options: BuildOptions = SPEED,
    core_flags: tuple[str, ...] = (),
    progress: Callable[[str], None] = lambda text: None,
    linked: Callable[[Path], object] = lambda path: None,
    listed: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Builds the library of a target.

    Args:
        target: what to build for.
        output: folder for the result; nothing is written to it before all is done.
        cache: folder for generated sources and objects; safe to share between builds.
        wanted: instances to include; None for the whole catalog.
        variants: variants of their kernels to include; None for all.
        without: features to leave out, see `ortolan.required_ops.config.FEATURES`.
        extra_flags: more compiler flags.
        options: how to compile.
        core_flags: more of them for native/core alone, such as -DORTOLAN_POISON (core/poison.h).
        progress: called with a line per object that is compiled.
        linked: called with the path of each object that goes into the library.
        listed: called with the linker's listing, where there is one.

    Returns:
        The path of the library.

    Raises:
        BuildError: the compiler is missing or refused, or a file could not be written.
    """
    try:
        generated = _generated(target, cache, wanted, variants, without, options)
        flags = [*extra_flags] if wanted is None else [*extra_flags, *_LEFT_OUT]
        objects = _objects(target, cache, generated, flags, tuple(core_flags), options, progress)
        for path in objects:
            linked(path)
        made = _link(target, objects, cache, options)
        if _listing(made).is_file():
            listed(_listing(made))
        output.mkdir(parents=True, exist_ok=True)
        library = output / target.output
        _replace(library, made.read_bytes())
    except OSError as error:
        place = error.filename or output
        raise BuildError(f"{place}: cannot be written ({error.strerror or error})") from error
    return library


def _generated(
    target: Target, cache: Path, wanted: Selector | None, variants: VariantSelector | None,
    without: frozenset[str], options: BuildOptions,
) -> Path:  # fmt: skip
    """Writes the generated sources; answers their folder."""
    is_tiny = options.optimize == "size" and target.linker == "wasm"
    files = generate(
        FAMILIES, [i.name for i in target.instruction_sets], wanted, variants=variants,
        onnx=target.onnx, records=target.records and wanted is None,
        splits=is_tiny and not target.records, without=without,
    )  # fmt: skip
    files["ort_schema.h"] = schema_header.generate()
    key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    generated = cache / "generated" / key
    for name, text in files.items():
        path = generated / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            _replace(path, text.encode())
    return generated


def _objects(
    target: Target, cache: Path, generated: Path, extra_flags: Sequence[str],
    core_flags: tuple[str, ...], options: BuildOptions, progress: Callable[[str], None],
) -> list[Path]:  # fmt: skip
    native = source_root()
    digests = _Digests([native, native / "include", generated])
    sets = {i.name: i.flags for i in target.instruction_sets}
    baseline = target.instruction_sets[0].flags
    flags = [*COMMON_FLAGS, *target.flags, *extra_flags]
    if options.optimize == "size":
        flags.append("-DORTOLAN_FOR_SIZE")
    if options.messages == "codes":
        flags.append("-DORTOLAN_MESSAGE_CODES")
    if options.whole_program and target.linker in ("elf", "wasm", "coff"):
        flags.append("-flto")
    base = [*compiler(), "-target", target.triple, *flags]

    def compile_one(unit: tuple[Path, str, Path | None]) -> Path:
        source, isa, folder = unit
        command = [*base, *(sets.get(isa, baseline)), f"-I{native}", f"-I{native / 'include'}"]
        command += [f"-I{generated}", *_optimization(target, isa, options)]
        command += [f"-DORTOLAN_ISA={isa}"] if isa else []
        command += [] if isa else core_flags
        command += [f"-I{folder}"] if folder else []
        given = [c for c in command[1:] if not c.startswith("-I")]
        digest = hashlib.sha256(digests.of(source, folder) + repr(given).encode()).hexdigest()
        object_file = cache / "objects" / f"{source.stem}-{isa or 'core'}-{digest[:24]}.o"
        if not object_file.is_file():
            object_file.parent.mkdir(parents=True, exist_ok=True)
            temporary = object_file.with_suffix(f".{os.getpid()}.tmp.o")
            try:
                run([*command, "-c", str(source), "-o", str(temporary)], cache)
                temporary.replace(object_file)
            finally:
                temporary.unlink(missing_ok=True)
            progress(f"{source.stem} {isa}".strip())
        return object_file

    units = _units(target, native, generated)
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        waiting = [pool.submit(compile_one, unit) for unit in units]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _optimization(target: Target, isa: str, options: BuildOptions) -> tuple[str, ...]:
    """The core has no hot loop; what is compiled once has few, and weighs most for the web."""
    if not isa or options.optimize == "size":
        return _SMALL
    return ("-Os",) if isa == PORTABLE and target.linker == "wasm" else ("-O2",)


def _link(target: Target, objects: list[Path], cache: Path, options: BuildOptions) -> Path:
    """The library in the cache; linked unless the same objects were before."""
    native = source_root()
    names = repr((target, options, SMALL_WASM, [o.name for o in objects]))
    key = hashlib.sha256(names.encode()).hexdigest()[:24]
    library = cache / "libraries" / key / target.output
    if library.is_file():
        return library
    stubs = [
        import_library(target, native / "platform" / source, name, cache / "imports", cache)
        for source, name in target.libraries
    ]
    library.parent.mkdir(parents=True, exist_ok=True)
    temporary = library.with_suffix(f".{os.getpid()}.tmp")
    listing = _listing(library) if target.linker in ("elf", "wasm") else None
    try:
        link(
            target, objects, temporary, cache, stubs, strip=options.strip,
            small=options.optimize == "size", listing=listing,
        )  # fmt: skip
        temporary.replace(library)
    finally:
        temporary.unlink(missing_ok=True)
    return library


def _listing(library: Path) -> Path:
    return library.with_suffix(".map")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a write that fails does not tell, and there are two disks
        raise
    finally:
        temporary.unlink(missing_ok=True)
