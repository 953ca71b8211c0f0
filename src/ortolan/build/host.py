"""Builds the library of this machine; run by the wheel's build hook and by ``make build``."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from ortolan.build.compile import SPEED, BuildOptions, build
from ortolan.build.targets import TARGETS, host_target


def cache_folder() -> Path:
    """``ORTOLAN_BUILD_CACHE``, ``build/cache`` of a source tree, or the user's cache folder."""
    named = os.environ.get("ORTOLAN_BUILD_CACHE")
    if named:
        return Path(named)
    tree = Path(__file__).resolve().parents[3]
    if (tree / "native" / "core").is_dir():
        return tree / "build" / "cache"
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "ortolan" / "build"


def build_host(output: Path) -> list[Path]:
    """Builds this machine's library into ``output``; answers the files written.

    Raises:
        LookupError: no target for this machine.
        ortolan.build.compile.BuildError: the compiler refused.
    """
    return [build(host_target(), output, cache_folder(), progress=print)]


def main() -> None:
    """``python -m ortolan.build.host [--target T] [--onnx] [--small] [-o DIR]``."""
    parser = argparse.ArgumentParser(description="Build the runtime library.")
    parser.add_argument("--target", choices=sorted(TARGETS), default=None)
    parser.add_argument("-o", "--output", type=Path, default=None)
    parser.add_argument(
        "--onnx", action=argparse.BooleanOptionalAction, help="read ONNX models as well, or not"
    )
    parser.add_argument("--small", action="store_true", help="kernels as `ortolan build` has them")
    options = parser.parse_args()
    target = TARGETS[options.target] if options.target else host_target()
    if options.onnx is not None:
        target = dataclasses.replace(target, onnx=options.onnx)
    package = Path(__file__).resolve().parents[1]
    default = package / "lib" if options.target is None else Path("build") / target.name
    how = BuildOptions("size") if options.small else SPEED
    print(build(target, options.output or default, cache_folder(), options=how, progress=print))


if __name__ == "__main__":
    main()
