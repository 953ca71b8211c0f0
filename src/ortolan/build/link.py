"""Linking: objects to a library, with the linkers that come with the compiler.

They are called directly and not through the compiler's driver, which refuses options that matter
here and would first build a C runtime that nothing needs.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ortolan.build.targets import Target
from ortolan.errors import Fail

__all__ = ["SMALL_WASM", "BuildError", "compiler", "link", "run", "zig"]

_TOO_LARGE = os.strerror(errno.EFBIG)
_MACHINES = {"x86_64": "i386:x86-64", "aarch64": "arm64"}


# Without what trades bytes for speed and does so when compiling for size too: more pointers instead
# of one index, and copies of expressions on other paths.
SMALL_WASM = tuple(
    word
    for option in ("-disable-lsr", "-enable-pre=0", "-two-entry-phi-node-folding-threshold=8")
    for word in ("-mllvm", option)
)


class BuildError(Fail):
    """The compiler or linker refused, or a file could not be written; the text says which."""


def zig() -> str:
    """The program that is compiler and linker, as the ``ziglang`` package brings it.

    Raises:
        BuildError: ziglang is not installed.
    """
    try:
        import ziglang
    except ImportError as error:
        raise BuildError("the compiler is missing: pip install 'ortolan[build]'") from error
    return str(Path(ziglang.__file__).parent / ("zig.exe" if os.name == "nt" else "zig"))


def compiler() -> list[str]:
    """The command of clang."""
    return [zig(), "c++"]


def run(command: Sequence[str], cache: Path) -> None:
    """Runs a tool; its own cache lies in ours.

    Raises:
        BuildError: it failed.
    """
    environment = dict(os.environ)
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache / "zig"))
    environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache / "zig"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stderr.strip() or done.stdout.strip()
    if "No space left on device" in said or "NoSpaceLeft" in said:
        raise BuildError(f"{cache}: the disk is full ({os.strerror(errno.ENOSPC)})")
    if done.returncode == -getattr(signal, "SIGXFSZ", 0) or "FileTooBig" in said:
        raise BuildError(f"{cache}: a file became larger than files may be ({_TOO_LARGE})")
    if done.returncode < 0:
        said = f"ended by signal {-done.returncode}\n{said}"
    raise BuildError(f"{' '.join(command)}\n{said}")


def link(
    target: Target,
    objects: Sequence[Path],
    output: Path,
    cache: Path,
    libraries: Sequence[Path] = (),
    *,
    strip: bool = True,
    small: bool = False,
    listing: Path | None = None,
) -> None:
    """Links ``objects`` to ``output``.

    Args:
        target: what is linked.
        objects: in the order that decides the layout of the result.
        output: the file that is written.
        cache: for the tools' own files.
        libraries: what :func:`import_library` made of ``target.libraries``.
        strip: leave out the names of functions.
        small: what is compiled while linking is to be small.
        listing: where the linker writes what lies where; ELF and WebAssembly only.

    Raises:
        BuildError: a symbol is missing, or the linker failed otherwise.
    """
    files = [*map(str, objects), *map(str, libraries)]
    stripped = ["-s"] if strip else []
    if listing is not None:
        stripped.append(f"-Map={listing}")
    tool = zig()
    if target.linker == "elf":
        run([tool, "ld.lld", *target.link_flags, *stripped, "-o", str(output), *files], cache)
    elif target.linker == "wasm":
        flags = target.link_flags
        if not strip:  # relocations of debug information cannot be compressed
            flags = tuple(f for f in flags if f != "--compress-relocations")
        if small:
            flags = (*flags, *SMALL_WASM)
        run([tool, "wasm-ld", *flags, *stripped, "-o", str(output), *files], cache)
    elif target.linker == "coff":
        run([tool, "lld-link", *target.link_flags, f"/out:{output}", *files], cache)
    elif target.linker == "macho":
        command = [tool, "c++", "-target", target.triple, "-shared", "-nostdlib"]
        command += ["-s"] if strip else []
        command += [f"-Wl,-install_name,@rpath/{target.output}", "-Wl,-dead_strip"]
        run([*command, "-o", str(output), *files], cache)
    else:
        output.unlink(missing_ok=True)
        run([tool, "ar", "rcsD", str(output), *files], cache)


def import_library(target: Target, source: Path, name: str, folder: Path, cache: Path) -> Path:
    """A stand-in for a library of the system, made of what we use of it.

    Args:
        target: what it is for.
        source: a C file that defines the functions, a Windows module definition, or the
            compiler's own helpers (for processors that cannot divide, for example).
        name: of the system's library.
        folder: where to write.
        cache: for the tools' own files.
    """
    result = folder / target.name / (f"{source.stem}.lib" if target.linker == "coff" else name)
    if result.is_file():
        return result
    result.parent.mkdir(parents=True, exist_ok=True)
    temporary = result.with_suffix(f".{os.getpid()}.tmp")
    if source.suffix == ".zig":
        compiler = Path(zig()).parent / "lib" / source.name
        command = [zig(), "build-lib", str(compiler), "-target", target.triple, "-fPIC", "-fstrip"]
        command += [f for f in target.flags if f.startswith("-mcpu=")]
        command += ["-ffunction-sections", "-fdata-sections"]
        run([*command, "-OReleaseSmall", f"-femit-bin={temporary}"], cache)
    elif target.linker == "coff":
        machine = _MACHINES[target.triple.split("-")[0]]
        run([zig(), "dlltool", "-m", machine, "-d", str(source), "-l", str(temporary)], cache)
    else:
        stub = temporary.with_suffix(".o")
        flags = [f for f in target.flags if not f.startswith("-D")]
        command = [zig(), "cc", "-target", target.triple, *flags, "-ffreestanding"]
        command += ["-fno-builtin", "-fno-sanitize=all", "-O2", "-g0", "-fPIC"]
        run([*command, "-c", str(source), "-o", str(stub)], cache)
        run([zig(), "ld.lld", "-shared", "-soname", name, "-o", str(temporary), str(stub)], cache)
        stub.unlink()
    temporary.replace(result)
    return result
