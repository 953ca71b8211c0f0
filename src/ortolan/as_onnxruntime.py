"""Runs a program that was written for onnxruntime, unchanged, on Ortolan.

`python -m ortolan.as_onnxruntime script.py ...` or `... -m module ...`; in a program of one's own,
`ortolan.as_onnxruntime.install()` before onnxruntime is imported. `import onnxruntime` and its
submodules then give Ortolan's, whether onnxruntime is installed or not.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import runpy
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

__all__ = ["VERSION", "install", "main"]

VERSION = "1.32.0"
"""The version of onnxruntime whose API this is."""

_NAME = "onnxruntime"
# Submodules that programs reach as attributes, without an import of their own.
_EAGER = ("capi.onnxruntime_pybind11_state", "capi._pybind_state")


class _Stand(ModuleType):
    """A module of onnxruntime's name that has what Ortolan's has."""

    def __init__(self, name: str, target: ModuleType) -> None:
        super().__init__(name, target.__doc__)
        self.__dict__["_target"] = target
        if hasattr(target, "__all__"):
            self.__dict__["__all__"] = [n for n in target.__all__ if not n.startswith("__")]
        if name == _NAME:
            self.__dict__["__version__"] = VERSION
        self.__dict__["__file__"] = getattr(target, "__file__", None)
        if hasattr(target, "__path__"):
            self.__dict__["__path__"] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self.__dict__["_target"], name)


class _Loader(importlib.abc.Loader):
    def __init__(self, target: str) -> None:
        self._target = target

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Stand(spec.name, importlib.import_module(self._target))

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == _NAME:
            for name in _EAGER:
                importlib.import_module(f"{_NAME}.{name}")


class _Distribution(importlib.metadata.Distribution):
    """What programs find that ask which onnxruntime is installed."""

    def read_text(self, filename: str) -> str | None:
        if filename not in ("METADATA", "PKG-INFO"):
            return None
        return f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {VERSION}\n"

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        raise FileNotFoundError(f"{path}: Ortolan stands for {_NAME} and has no files of it")


class _Finder(importlib.metadata.DistributionFinder):
    """Finds onnxruntime's modules and its distribution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != _NAME and not fullname.startswith(f"{_NAME}."):
            return None
        ours = "ortolan" + fullname.removeprefix(_NAME)
        try:
            found = importlib.util.find_spec(ours)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ModuleNotFoundError(
                f"Ortolan stands for {_NAME} and has no module {fullname}", name=fullname
            )
        is_package = found.submodule_search_locations is not None
        return importlib.util.spec_from_loader(fullname, _Loader(ours), is_package=is_package)

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterable[importlib.metadata.Distribution]:
        name = getattr(context, "name", None)
        return [_Distribution()] if name == _NAME else []


def install() -> None:
    """Makes `import onnxruntime` give Ortolan, in this process, from now on."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    for name in [n for n in sys.modules if n == _NAME or n.startswith(f"{_NAME}.")]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Finder())


def main() -> None:
    """Entry point of `python -m ortolan.as_onnxruntime`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m ortolan.as_onnxruntime (script.py | -m module) [arguments...]")
        raise SystemExit(0 if arguments else 2)
    install()
    if arguments[0] == "-m":
        if len(arguments) < 2:
            raise SystemExit("-m needs the name of a module")
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))  # noqa: PTH100, PTH120 - as Python does
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    # The module under its own name: what is installed must be the class that others see.
    from ortolan.as_onnxruntime import main as run_main

    run_main()
