"""Build hook: compiles the runtime for this machine and puts it into the wheel.

A wheel gets `ortolan/lib/` (the compiled library), `ortolan/native/` (the C++ sources, so that
`ortolan build` works from an installed package) and `ortolan/examples/digits/` (what the demo
runs). An editable install gets the library in `src/ortolan/lib/`; the checkout has the rest.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The Linux library needs no C library, so one file serves both kinds of distribution.
PLATFORM_TAGS = {
    ("linux", "x86_64"): "manylinux_2_17_x86_64.musllinux_1_1_x86_64",
    ("linux", "aarch64"): "manylinux_2_17_aarch64.musllinux_1_1_aarch64",
}
EXAMPLE_FILES = ("README.md", "digits.onnx", "held_out.npz")


class HostLibraryHook(BuildHookInterface[Any]):
    """Adds the compiled library and the shipped sources to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles before hatchling collects files; `version` is "standard" or "editable"."""
        root = Path(self.root)
        is_editable = version == "editable"
        output = root / ("src/ortolan/lib" if is_editable else "build/wheel/lib")
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        libraries = load_build_host(root / "src")(output)
        if not libraries:
            raise RuntimeError("ortolan.build.host.build_host made no library for this machine")
        if is_editable:
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"
        build_data["force_include"].update(shipped_files(root, libraries))


def load_build_host(source: Path) -> Callable[[Path], list[Path]]:
    """Imports `build_host` from the checkout.

    The build environment holds only what pyproject.toml's build-system asks for, so the modules
    that building uses must import without the package's other dependencies.
    """
    sys.path.insert(0, str(source))
    build_host: Callable[[Path], list[Path]] = importlib.import_module(
        "ortolan.build.host"
    ).build_host
    return build_host


def platform_tag() -> str:
    """The wheel's platform tag for the machine that the library was compiled for."""
    inferred = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return PLATFORM_TAGS.get((sys.platform, platform.machine().lower()), inferred)


def shipped_files(root: Path, libraries: list[Path]) -> dict[str, str]:
    """Maps files of the checkout to their places in the wheel."""
    example = root / "examples" / "digits"
    return {
        **{str(path): f"ortolan/lib/{path.name}" for path in libraries},
        **{str(example / name): f"ortolan/examples/digits/{name}" for name in EXAMPLE_FILES},
        str(root / "native"): "ortolan/native",
    }
