"""Build hook: compiles the runtime and puts it into the wheel.

A wheel gets `ortolan/lib/<target>/` (a library for each machine that it is for), `ortolan/native/`
(the C++ sources, so that `ortolan build` works from an installed package) and
`ortolan/examples/digits/` (what the demo runs). It is for this machine alone, unless
ORTOLAN_WHEEL_TARGETS names others: `all`, or names of targets with commas between them; all are
cross-compiled here. An editable install gets the library in `src/ortolan/lib/`; the checkout has
the rest.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The Linux libraries need no C library, so one file serves both kinds of distribution.
PLATFORM_TAGS = {
    "linux-x64": ("manylinux_2_17_x86_64", "musllinux_1_1_x86_64"),
    "linux-arm64": ("manylinux_2_17_aarch64", "musllinux_1_1_aarch64"),
    "macos-x64": ("macosx_11_0_x86_64",),
    "macos-arm64": ("macosx_11_0_arm64",),
    "windows-x64": ("win_amd64",),
    "windows-arm64": ("win_arm64",),
}
EXAMPLE_FILES = ("README.md", "digits.onnx", "held_out.npz")


class LibraryHook(BuildHookInterface[Any]):
    """Adds the compiled libraries and the shipped sources to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles before hatchling collects files; `version` is "standard" or "editable"."""
        root = Path(self.root)
        # The build environment holds only what pyproject.toml's build-system asks for, so the
        # modules that building uses import without the package's other dependencies.
        sys.path.insert(0, str(root / "src"))
        targets = importlib.import_module("ortolan.build.targets")
        host = importlib.import_module("ortolan.build.host")
        if version == "editable":
            output = root / "src/ortolan/lib"
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(parents=True)
            host.build_host(output)
            return
        compiler = importlib.import_module("ortolan.build.compile")
        chosen = chosen_targets(targets.TARGETS, targets.host_target().name)
        libraries = {}
        for name in chosen:
            output = root / "build/wheel" / name
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(parents=True)
            libraries[name] = compiler.build(
                targets.TARGETS[name], output, host.cache_folder(), progress=print
            )
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(chosen)}"
        build_data["force_include"].update(shipped_files(root, libraries))


def chosen_targets(known: dict[str, Any], host: str) -> list[str]:
    """The targets that the wheel is for.

    Args:
        known: targets by name.
        host: name of this machine's.

    Raises:
        LookupError: ORTOLAN_WHEEL_TARGETS names one that is not known or no machine with Python.
    """
    asked = os.environ.get("ORTOLAN_WHEEL_TARGETS", "host")
    possible = [name for name in PLATFORM_TAGS if name in known]
    if asked == "all":
        return possible
    names = [host if name == "host" else name for name in asked.split(",")]
    if unknown := [name for name in names if name not in possible]:
        raise LookupError(
            f"ORTOLAN_WHEEL_TARGETS: no wheel for {unknown[0]}; there are: {', '.join(possible)}"
        )
    return list(dict.fromkeys(names))


def platform_tag(names: list[str]) -> str:
    """The wheel's platform tag: a set, so that one wheel may be for several machines."""
    return ".".join(tag for name in names for tag in PLATFORM_TAGS[name])


def shipped_files(root: Path, libraries: dict[str, Path]) -> dict[str, str]:
    """Maps files of the checkout to their places in the wheel.

    Args:
        root: of the checkout.
        libraries: by target.
    """
    example = root / "examples" / "digits"
    return {
        **{str(path): f"ortolan/lib/{name}/{path.name}" for name, path in libraries.items()},
        **{str(example / name): f"ortolan/examples/digits/{name}" for name in EXAMPLE_FILES},
        str(root / "native"): "ortolan/native",
    }
